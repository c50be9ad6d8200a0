"""The exchange in both groups against the intersection in the clear, and what is particular to the SM2 curve."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from engine_pairs import channels, together
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.crypto import sm2curve
from sandbox.errors import Cancelled, DeadlinePassed, InvalidSpec, PartyFailed, ProtocolFailed, SandboxError
from sandbox.psi import commutative, ecdh, ecdh_sm2, reference
from sandbox.psi.contract import Role, Terms

PLAN, SALT = b"p" * 32, b"salt of this run"
ENGINES = {"x25519": ecdh, "sm2": ecdh_sm2}


@pytest.fixture(params=ENGINES)
def engine(request) -> Any:
    return ENGINES[request.param]


def terms(left: int, right: int, **other: Any) -> Terms:
    return Terms(**{"plan": PLAN, "salt": SALT, "left_rows": left, "right_rows": right} | other)


def run(engine: Any, left: pa.Array, right: pa.Array, mine: Terms, theirs: Terms | None = None) -> list[Any]:
    with channels() as (here, there):
        # A node closes the channel when its side is over, so that the other side learns of it.
        def side(keys: pa.Array, role: Role, agreed: Terms, channel: Any) -> Any:
            try:
                return engine.intersect(keys, role, agreed, channel, patience_s=30)
            except SandboxError:
                channel.close()
                raise

        return together(
            lambda: side(left, Role.LEFT, mine, here), lambda: side(right, Role.RIGHT, theirs or mine, there)
        )


def check(engine: Any, left: pa.Array, right: pa.Array) -> int:
    results = run(engine, left, right, terms(len(left), len(right)))
    wanted = reference.intersect(left, right, SALT)
    for got, want in zip(results, wanted, strict=True):
        assert isinstance(got, np.ndarray), got
        assert got.dtype == np.int64 and np.array_equal(got, want)
    return len(wanted[0])


def sets(left: int, right: int, common: int) -> tuple[pa.Array, pa.Array]:
    draw = random.Random(left * 7 + right)
    ids = [f"99{draw.getrandbits(50):016d}" for _ in range(left + right - common)]
    mine, theirs = ids[:left], ids[left - common :]
    draw.shuffle(mine)
    draw.shuffle(theirs)
    return pa.array(mine, pa.string()), pa.array(theirs, pa.string())


# -- both groups ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "common"),
    [(0, 0, 0), (0, 5, 0), (5, 0, 0), (1, 1, 1), (1, 1, 0), (1, 100, 1), (7, 5, 3), (100, 99, 0), (4097, 10, 5),
     (10, 4096, 5), (4097, 4096, 17)],
)  # fmt: skip
def test_equals_the_reference(engine, left, right, common):
    assert check(engine, *sets(left, right, common)) == common


@settings(max_examples=25, deadline=None)
@given(
    left=st.sets(st.text(max_size=40), max_size=30),
    right=st.sets(st.text(max_size=40), max_size=30),
    common=st.sets(st.text(max_size=40), max_size=10),
    name=st.sampled_from(sorted(ENGINES)),
)
def test_any_text_is_a_key(left, right, common, name):
    mine, theirs = (pa.array(sorted(part | common), pa.string()) for part in (left, right))
    check(ENGINES[name], mine, theirs)


@pytest.mark.parametrize("shape", [pa.large_string(), "chunked", "sliced"])
def test_every_layout_of_a_column_is_taken(engine, shape):
    left, right = sets(40, 50, 20)
    if shape == "chunked":
        left = pa.chunked_array([left[:7], left[7:]])
    elif shape == "sliced":
        left = pa.concat_arrays([pa.array(["before"]), left, pa.array(["after"])])[1:-1]
    else:
        left = left.cast(shape)
    results = run(engine, left, right, terms(40, 50))
    flat = pa.array(left.to_pylist(), pa.string())
    for got, want in zip(results, reference.intersect(flat, right, SALT), strict=True):
        assert np.array_equal(got, want)


@pytest.mark.parametrize("other", [{"plan": b"q" * 32}, {"salt": b"another salt 16b"}])
def test_different_terms_end_before_any_key_is_used(engine, other):
    left, right = sets(5, 5, 2)
    results = run(engine, left, right, terms(5, 5), terms(5, 5, **other))
    assert all(isinstance(result, PartyFailed) for result in results), results


def test_the_two_engines_do_not_talk_to_each_other():
    left, right = sets(5, 5, 2)
    with channels() as (here, there):
        results = together(
            lambda: ecdh.intersect(left, Role.LEFT, terms(5, 5), here),
            lambda: ecdh_sm2.intersect(right, Role.RIGHT, terms(5, 5), there),
        )
    assert [type(result) for result in results] == [PartyFailed, PartyFailed]


@pytest.mark.parametrize("bad", [pa.array(["a", "b", "a"]), pa.array(["a", None, "b"]), pa.array([1, 2, 3])])
def test_keys_that_break_the_contract_never_reach_the_other_side(engine, bad):
    assert [type(result) for result in run(engine, bad, bad, terms(3, 3))] == [InvalidSpec, InvalidSpec]


def test_progress_grows_to_one_and_the_elements_sent_are_shuffled(engine):
    left, right = sets(5000, 100, 50)
    seen: list[float] = []
    with channels() as (here, there):
        results = together(
            lambda: engine.intersect(left, Role.LEFT, terms(5000, 100), here, on_progress=seen.append),
            lambda: engine.intersect(right, Role.RIGHT, terms(5000, 100), there),
        )
    assert len(results[0]) == 50
    assert seen == sorted(seen) and seen[-1] == 1.0 and len(seen) == 4


def test_a_peer_that_falls_silent_or_a_stop_ends_it_in_time(engine):
    before = threading.active_count()
    with channels() as (left, right):
        with pytest.raises(DeadlinePassed):
            engine.intersect(pa.array(["a"]), Role.LEFT, terms(1, 1), left, patience_s=0.1)
        stop = threading.Event()
        stop.set()
        with pytest.raises(Cancelled):
            engine.intersect(pa.array(["a"]), Role.LEFT, terms(1, 1), right, stop=stop)
    assert threading.active_count() == before


def test_a_stop_in_the_middle_leaves_no_thread_behind():
    before = threading.active_count()
    left, right = sets(40_000, 40_000, 10)
    stop = threading.Event()

    def side(keys: pa.Array, role: Role, channel: Any, mine: threading.Event | None) -> Any:
        try:
            return ecdh_sm2.intersect(
                keys,
                role,
                terms(40_000, 40_000),
                channel,
                stop=mine,
                on_progress=lambda done: done > 0.1 and stop.set(),
            )
        finally:
            channel.close()

    with channels() as (here, there):
        began = time.monotonic()
        results = together(lambda: side(left, Role.LEFT, here, stop), lambda: side(right, Role.RIGHT, there, None))
    assert isinstance(results[0], Cancelled) and isinstance(results[1], PartyFailed), results
    assert time.monotonic() - began < 60
    assert threading.active_count() == before


# -- the SM2 curve --------------------------------------------------------------------------------------------------


def scripted(reply: Callable[[int, bytes], bytes | None]) -> Any:
    """Run the left side with three keys against a peer that answers each message as ``reply`` says."""
    with channels() as (left, right):

        def peer() -> None:
            for turn in range(4):
                answer = reply(turn, right.recv(5))
                if answer is None:
                    break
                right.send(answer)
            right.close()

        def mine() -> Any:
            try:
                return ecdh_sm2.intersect(pa.array(["a", "b", "c"]), Role.LEFT, terms(3, 3), left, patience_s=5)
            finally:
                left.close()

        return together(mine, peer)[0]


def points(*names: bytes) -> list[bytes]:
    flat = sm2curve.hash_to_curve(names, b"made by the peer")
    return [flat[place : place + 33] for place in range(0, len(flat), 33)]


def negated(point: bytes) -> bytes:
    return bytes([point[0] ^ 1]) + point[1:]


X, Y, W = points(b"x", b"y", b"w")
OFF = next(  # about every other x is on no point
    candidate
    for number in range(1, 100)
    if sm2curve.Scalar(bytes(31) + b"\1").multiply(candidate := b"\2" + number.to_bytes(32, "big"))[1]
)


@pytest.mark.parametrize(
    "batch",
    [
        lambda sent: X + Y,  # too few
        lambda sent: X + Y + W + W,  # too many
        lambda sent: (X + Y + W)[:-1],  # a byte short
        lambda sent: X + Y + Y,  # a repeated element
        lambda sent: X + Y + negated(Y),  # repeated up to sign
        lambda sent: sent[:33] + X + Y,  # our own element reflected
        lambda sent: negated(sent[33:66]) + X + Y,  # reflected up to sign
    ],
)
def test_a_peer_that_breaks_the_first_round_is_found_out(batch):
    result = scripted(lambda turn, sent: sent if turn == 0 else batch(sent) if turn == 1 else None)
    assert isinstance(result, ProtocolFailed), result


@pytest.mark.parametrize(
    "element",
    [OFF, bytes(33), b"\2" + b"\xff" * 32, b"\4" + X[1:], b"\0" + X[1:]],
    ids=["off the curve", "infinity", "x not below the prime", "wrong form", "no form"],
)
@pytest.mark.parametrize("lane", [0, 1, 2])
def test_a_point_off_the_curve_ends_the_run_before_the_secret_touches_it(element, lane):
    turns: list[int] = []

    def reply(turn: int, sent: bytes) -> bytes | None:
        turns.append(turn)
        batch = [points(b"1", b"2", b"3")[place] if place != lane else element for place in range(3)]
        return [sent, b"".join(batch), None, None][turn]

    result = scripted(reply)
    assert isinstance(result, ProtocolFailed), result
    assert "1 elements of 3" in str(result)
    assert turns == [0, 1]  # nothing of the second round was sent


@pytest.mark.parametrize("second", [b"", bytes(16), b"e" * 48, bytes(49)], ids=["none", "few", "repeated", "long"])
def test_a_peer_that_breaks_the_second_round_is_found_out(second):
    result = scripted(lambda turn, sent: [sent, X + Y + W, second, None][turn])
    assert isinstance(result, ProtocolFailed), result


def test_results_that_disagree_are_no_result():
    result = scripted(lambda turn, sent: [sent, X + Y + W, bytes(range(48)), b"x" * 40][turn])
    assert isinstance(result, ProtocolFailed)


def test_on_the_wire_are_33_and_16_bytes_an_element_and_fresh_ones_every_run():
    firsts: list[bytes] = []

    def reply(turn: int, sent: bytes) -> bytes | None:
        if turn == 1:
            firsts.append(sent)
        if turn == 2:
            assert len(sent) == 3 * ecdh_sm2.ECHO == 48
        return [sent, X + Y + W, None, None][turn]

    for _ in range(2):
        scripted(reply)
    assert [len(first) for first in firsts] == [99, 99]
    assert not {firsts[0][k : k + 33] for k in (0, 33, 66)} & {firsts[1][k : k + 33] for k in (0, 33, 66)}


def test_the_tag_separates_jobs_and_salts_and_fits():
    tags = {
        ecdh_sm2.domain_tag(terms(1, 1, **other))
        for other in ({}, {"plan": b"q" * 32}, {"salt": b"another salt 16b"}, {"plan": PLAN + SALT[:1], "salt": SALT})
    }
    assert len(tags) == 4
    assert all(tag.endswith(b"/" + sm2curve.SUITE) and len(tag) < 255 for tag in tags)
    assert len({sm2curve.hash_to_curve([b"k"], tag) for tag in tags}) == 4


@pytest.mark.parametrize("backend", sm2curve.backends())
def test_sides_on_different_back_ends_agree(backend, monkeypatch):
    left, right = sets(60, 50, 25)
    generate, mixed = sm2curve.Scalar.generate, iter([backend, "libcrypto"])
    monkeypatch.setattr(sm2curve.Scalar, "generate", lambda: generate(backend=next(mixed)))
    assert check(ecdh_sm2, left, right) == 25


def test_the_secret_is_wiped_whatever_happens(monkeypatch):
    made: list[sm2curve.Scalar] = []
    generate = sm2curve.Scalar.generate

    def kept() -> sm2curve.Scalar:
        made.append(generate())
        return made[-1]

    monkeypatch.setattr(sm2curve.Scalar, "generate", kept)
    check(ecdh_sm2, *sets(5, 5, 2))
    scripted(lambda turn, sent: None)
    assert len(made) == 3 and all(bytes(one._value) == bytes(32) for one in made)


def test_batches_overlap_with_the_wire():
    # While the caller holds the first result, the second is computed.
    computed = threading.Event()

    def work(part: slice) -> bytes:
        if part.start:
            computed.set()
        return b""

    results = commutative._ahead(work, [slice(0, 1), slice(1, 2), slice(2, 3)])
    next(results)
    assert computed.wait(5)
    assert list(results) == [b"", b""]
