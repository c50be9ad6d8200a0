"""What a node says it can run: the jail at the strongest level that holds, and why not at the others."""

from __future__ import annotations

import pytest

from sandbox import engines
from sandbox.errors import Unavailable
from sandbox.kinds.confined import JAIL, at_level
from sandbox.tee_sim import probes
from sandbox.tee_sim.levels import Level

LACKS = {
    Level.CONFINED: Unavailable("x", tell="needs root", hint="run as root"),
    Level.UNPRIVILEGED: Unavailable("x", tell="no namespaces", hint="allow them"),
    Level.NARROWED: Unavailable("x", tell="no Landlock", hint="another kernel"),
}


def holding(monkeypatch: pytest.MonkeyPatch, *levels: Level) -> list[str]:
    """A machine on which some levels hold; returns what was tried."""
    tried: list[str] = []

    def strongest() -> Level:
        tried.append("strongest")
        if not levels:
            raise LACKS[Level.CONFINED]
        return levels[0]

    def check(level: Level) -> None:
        tried.append(level)
        if level not in levels:
            raise LACKS[level]

    monkeypatch.setattr(probes, "strongest", strongest)
    monkeypatch.setattr(probes, "check", check)
    return tried


def test_nothing_is_tried_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = holding(monkeypatch, Level.CONFINED)
    found = engines.available()
    assert found["paillier"] == found["duckdb"] == "" and "rr22" in found.known and len(found) == len(list(found))
    assert found.get("nothing", "unknown") == "unknown" and tried == []
    assert found[JAIL] == "" and tried == ["strongest"]


def test_every_level_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    holding(monkeypatch, Level.UNPRIVILEGED, Level.NARROWED)
    found = engines.available()
    assert {name: found[name] for name in (JAIL, *map(at_level, Level))} == {
        JAIL: "",
        "jail, confined": "needs root (run as root)",
        "jail, unprivileged": "",
        "jail, narrowed": "it is confined at level unprivileged",
    }


def test_a_machine_that_confines_nothing_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    holding(monkeypatch)
    found = engines.available()
    assert found[JAIL] == "needs root (run as root)"
    assert all(found[at_level(level)] for level in Level)


def test_this_machine_says_what_its_probes_say() -> None:
    found = engines.available()
    try:
        strongest = probes.strongest()
    except Unavailable as error:
        assert found[JAIL] == f"{error.tell} ({error.hint})"
    else:
        assert found[JAIL] == found[at_level(strongest)] == ""
