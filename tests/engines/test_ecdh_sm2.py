"""What is particular to the SM2 curve; the exchange itself is tested in both groups elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from engine_pairs import PLAN, SALT, Call, channels, digests, over_channel, sets, terms, together

from sandbox.crypto import sm2curve
from sandbox.errors import ProtocolFailed
from sandbox.psi import ecdh_sm2
from sandbox.psi.contract import EVERYTHING, Role


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
                some = digests(["a", "b", "c"])
                return ecdh_sm2.intersect(some, Role.LEFT, terms(3, 3), EVERYTHING, left, patience_s=5)
            finally:
                left.close()

        return together(mine, peer)[0]


def found(left: int, right: int, common: int) -> list[int]:
    """Return how many common keys each side finds."""
    mine, theirs = sets(left, right, common)
    agreed = terms(left, right)
    return [len(got) for got in over_channel(ecdh_sm2, Call(digests(mine), agreed), Call(digests(theirs), agreed))]


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
        lambda sent: X + Y + negated(Y),  # repeated
        lambda sent: negated(sent[33:66]) + X + Y,  # our own reflected
    ],
)
def test_points_are_the_same_up_to_sign(batch):
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
    generate, mixed = sm2curve.Scalar.generate, iter([backend, "libcrypto"])
    monkeypatch.setattr(sm2curve.Scalar, "generate", lambda: generate(backend=next(mixed)))
    assert found(60, 50, 25) == [25, 25]


def test_the_secret_is_wiped_whatever_happens(monkeypatch):
    made: list[sm2curve.Scalar] = []
    generate = sm2curve.Scalar.generate

    def kept() -> sm2curve.Scalar:
        made.append(generate())
        return made[-1]

    monkeypatch.setattr(sm2curve.Scalar, "generate", kept)
    assert found(5, 5, 2) == [2, 2]
    scripted(lambda turn, sent: None)
    assert len(made) == 3 and all(bytes(one._value) == bytes(32) for one in made)
