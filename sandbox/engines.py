"""Which engines can run at this node, by the names plans use; among them the jail, at every level it may stand at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from sandbox.errors import Unavailable
from sandbox.kinds import noise
from sandbox.kinds.confined import JAIL, at_level
from sandbox.tee_sim import probes
from sandbox.tee_sim.levels import Level
from sandbox.workspace import engines

_NAMES = {
    "rr22": "psi.rr22",
    "ecdh-x25519": "psi.ecdh",
    "ecdh-sm2": "psi.ecdh",
    "prepared-sm2": "psi.ecdh",
    "count-sm2": "psi.ecdh",
    "loads-sm2": "psi.ecdh",
    "aby3": "mpc.aby3",
    "partial-sums": "mpc.scorecard",
}


class Engines(Mapping[str, str]):
    """Every engine with an empty text, or with why it cannot run here.

    What a jail holds is found out by trying, in seconds: when it is first asked for, once a process. ``known`` are the
    others.
    """

    def __init__(self, known: Mapping[str, str], tried: Mapping[str, Callable[[], str]]) -> None:
        self.known, self._tried = known, tried

    def __getitem__(self, name: str) -> str:
        return self._tried[name]() if name in self._tried else self.known[name]

    def __iter__(self) -> Iterator[str]:
        return iter((*self.known, *self._tried))

    def __len__(self) -> int:
        return len(self.known) + len(self._tried)


def available() -> Engines:
    """Return what can run here."""
    found = engines.engines()
    ours = {name: "" if found[inner] == engines.READY else found[inner] for name, inner in _NAMES.items()}
    tried: dict[str, Callable[[], str]] = {JAIL: _jail}
    for level in Level:
        tried[at_level(level)] = lambda level=level: _at(level)  # type: ignore[misc]
    return Engines({**ours, "paillier": "", "duckdb": "", "noise": noise.unavailable()}, tried)


def _jail() -> str:
    """Return why no code can be confined here at any level."""
    try:
        probes.strongest()
    except Unavailable as error:
        return _said(error)
    return ""


def _at(level: Level) -> str:
    """Return why code is not confined here at a level: always at the strongest that holds."""
    try:
        strongest = probes.strongest()
        if strongest is level:
            return ""
        if list(Level).index(strongest) < list(Level).index(level):
            return f"it is confined at level {strongest}"
        probes.check(level)
    except Unavailable as error:
        return _said(error)
    return ""


def _said(error: Unavailable) -> str:
    return f"{error.tell} ({error.hint})"
