"""Training under ABY3 against the training in the clear; shares; parties that fail."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from engine_pairs import joined, together

from sandbox.errors import InvalidSpec, PartyFailed, ProtocolFailed, SandboxError, Unavailable
from sandbox.mpc import logistic, logistic_child, reference, shares
from sandbox.mpc.logistic import Rank, Terms
from sandbox.mpc.reference import Schedule
from sandbox.workspace import engines as availability

NAMES = {Rank.LABELS: "bank", Rank.FEATURES: "operator", Rank.HELPER: "witness"}
needs_spu = pytest.mark.skipif(
    availability.engines()["mpc.aby3"] != availability.READY, reason="spu and jax are not installed"
)


def data(rows: int, seed: int = 1):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(rows, 12))
    x[:, 3] += x[:, 8]  # the two sides are correlated
    weights = draw.normal(size=12) / 2
    y = (draw.random(rows) < reference.sigmoid(x @ weights - 2.5)).astype(int)
    return x[:, :5] * 3 + 1, x[:, 5:], y


def three(spaces: Any, given: dict[Rank, tuple[Any, Any, Terms]], also: Any = None, **more: Any) -> list[Any]:
    def side(rank: Rank) -> Any:
        features, labels, terms = given[rank]
        peers = {other: name for other, name in NAMES.items() if other is not rank}
        return lambda: logistic.train(
            rank, features, labels, terms, spaces[NAMES[rank]], peers=peers, **{"deadline_s": 60} | more
        )

    return together(*(side(rank) for rank in Rank), *([also] if also else []))


@needs_spu
@pytest.mark.slow
@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_equals_the_training_in_the_clear(place, l2):
    mine, theirs, labels = data(1500)
    mine[11] = 1e5  # an outlier must not overflow the fixed point
    terms = Terms(b"p" * 32, 1500, 5, 7, Schedule(steps=12, l2=l2))
    seen: list[float] = []
    with joined(place, list(NAMES.values())) as spaces:
        given = {
            Rank.LABELS: (mine, labels, terms),
            Rank.FEATURES: (theirs, None, terms),
            Rank.HELPER: (None, None, terms),
        }
        done = three(spaces, given, on_progress=seen.append)
        assert not [result for result in done if isinstance(result, Exception)], done
        assert not [path for space in spaces.values() for path in space.path.iterdir() if path.suffix != ".sock"]
        own = logistic.reconstruct([result.label_side for result in done[::-1]], spaces["bank"])
        other = logistic.reconstruct([result.other_side for result in done], spaces["operator"])
        # Altered, mixed or missing shares make no value.
        parts = [result.other_side for result in done]
        altered = parts[0][:-1] + bytes([parts[0][-1] ^ 1])
        mixed = [parts[0], parts[1], done[2].label_side]
        for wrong in ([altered, *parts[1:]], mixed, parts[:2], [parts[0], parts[0], parts[1]]):
            with pytest.raises(ProtocolFailed):
                logistic.reconstruct(wrong, spaces["operator"])
    assert sorted(seen)[-1] == 1.0 and len(set(seen)) == 12
    got = [done[0].basis.restore(own[:-1], own[-1]), done[1].basis.restore(other)]
    want = reference.train([mine, theirs], labels, terms.schedule)
    for one, two in zip(got, want, strict=True):
        assert np.abs(one.weights - two.weights).max() < 0.01
        assert abs(one.offset - two.offset) < 0.02
    blocks = [mine, theirs]
    assert (
        abs(
            reference.auc(reference.logits(got, blocks), labels) - reference.auc(reference.logits(want, blocks), labels)
        )
        < 0.005
    )
    assert done[2].basis is None
    assert repr(done[0]).count("b'") == 0


@needs_spu
@pytest.mark.slow
def test_different_terms_end_before_any_input_is_shared(place):
    mine, theirs, labels = data(100)
    terms, changed = (Terms(plan, 100, 5, 7, Schedule(2)) for plan in (b"p" * 32, b"q" * 32))
    with joined(place, list(NAMES.values())) as spaces:
        given = {
            Rank.LABELS: (mine, labels, terms),
            Rank.FEATURES: (theirs, None, changed),
            Rank.HELPER: (None, None, terms),
        }
        done = three(spaces, given)
    assert all(isinstance(result, PartyFailed) for result in done), done


@needs_spu
@pytest.mark.slow
def test_when_one_engine_is_killed_all_end_in_time_and_leave_nothing(place):
    mine, theirs, labels = data(3000)
    terms = Terms(b"p" * 32, 3000, 5, 7, Schedule(500))
    killed: list[float] = []

    with joined(place, list(NAMES.values())) as spaces:
        token = spaces["operator"].token

        def kill() -> None:
            while not started:
                time.sleep(0.01)
            engine = [child for child in psutil.Process().children() if token in child.cmdline()]
            killed.append(time.monotonic())
            engine[0].kill()

        started: list[float] = []
        given = {
            Rank.LABELS: (mine, labels, terms),
            Rank.FEATURES: (theirs, None, terms),
            Rank.HELPER: (None, None, terms),
        }
        done = three(spaces, given, kill, on_progress=started.append, deadline_s=12, patience_s=3)
        assert time.monotonic() - killed[0] < 15
    assert all(isinstance(result, SandboxError) for result in done[:3]), done
    assert list(place.iterdir()) == []


def test_a_party_brings_exactly_what_its_rank_says(place):
    mine, theirs, labels = data(100)
    terms = Terms(b"p" * 32, 100, 5, 7)
    for rank, features, given in (
        (Rank.HELPER, theirs, None),
        (Rank.FEATURES, None, None),
        (Rank.FEATURES, theirs, labels),
        (Rank.LABELS, mine, None),
        (Rank.LABELS, theirs, labels),
        (Rank.FEATURES, theirs[:99], None),
        (Rank.LABELS, mine, labels[:99]),
    ):
        with pytest.raises(InvalidSpec):
            logistic._inputs(rank, features, given, terms)
    for wrong in ((1, 5, 7), (100, 0, 7), (100, 5, 501)):
        with pytest.raises(InvalidSpec):
            Terms(b"p" * 32, *wrong)


def test_without_the_library_the_answer_says_what_to_install(place, monkeypatch):
    monkeypatch.setattr(availability, "package_directory", lambda name: "" if name == "jax" else "/x")
    with (
        joined(place, ["bank", "operator", "witness"]) as spaces,
        pytest.raises(Unavailable, match="package jax of the extra"),
    ):
        logistic.train(
            Rank.HELPER, None, None, Terms(b"p" * 32, 9, 1, 1), spaces["witness"],
            peers={Rank.LABELS: "bank", Rank.FEATURES: "operator"}, deadline_s=1,
        )  # fmt: skip


def test_other_protocols_are_not_reachable():
    source = Path(logistic_child.__file__).read_text(encoding="utf-8")
    assert source.count("ProtocolKind.") == 1 and "ProtocolKind.ABY3" in source
    assert "pickle" not in source.replace("allow_pickle=False", "")


def test_shares_come_back_as_they_were_written_and_nothing_else_does():
    share = shares.Share(2, shares.OTHER_SIDE, b"t" * 32, b"meta", (b"", b"chunk"))
    data = share.to_bytes()
    assert shares.parse(data) == share
    assert "chunk" not in repr(share)
    for wrong in [data[:length] for length in range(len(data))] + [data + b"x", b"X" + data[1:]]:
        with pytest.raises(ProtocolFailed):
            shares.parse(wrong)
    for place, value in ((4, 3), (5, 3)):  # a rank, an output that do not exist
        with pytest.raises(ProtocolFailed):
            shares.parse(data[:place] + bytes([value]) + data[place + 1 :])
    with pytest.raises(ProtocolFailed):
        shares.parse(data[:38] + b"\xff" * 4 + data[42:])  # an absurd length


def test_shares_of_different_jobs_do_not_mix():
    parts = [shares.Share(rank, 0, b"t" * 32, b"m", (b"c",)) for rank in range(3)]
    assert [share.rank for share in shares.complete([part.to_bytes() for part in parts[::-1]])] == [0, 1, 2]
    strange = shares.Share(2, 0, b"u" * 32, b"m", (b"c",))
    with pytest.raises(ProtocolFailed):
        shares.complete([parts[0].to_bytes(), parts[1].to_bytes(), strange.to_bytes()])
