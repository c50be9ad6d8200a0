"""The exchange over a channel, in both groups: who is told what, and what a peer cannot do unnoticed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from engine_pairs import SALT, Call, channels, digests, over_channel, sets, terms, together

from sandbox.crypto import sm2curve
from sandbox.errors import Cancelled, DeadlinePassed, PartyFailed, ProtocolFailed
from sandbox.psi import commutative, ecdh, ecdh_sm2
from sandbox.psi.buckets import number_of, padded_size
from sandbox.psi.contract import EVERYTHING, Bucket, Role


def on_x25519(count: int) -> list[bytes]:
    secret = X25519PrivateKey.generate()
    return [ecdh._multiply(secret, ecdh.hash_to_curve(b"%d" % number, SALT)) for number in range(count)]


def on_sm2(count: int) -> list[bytes]:
    with sm2curve.Scalar.generate() as secret:
        flat, _ = secret.multiply(sm2curve.hash_to_curve([b"%d" % number for number in range(count)], b"the peer's"))
    return [flat[place : place + 33] for place in range(0, len(flat), 33)]


GROUPS = {
    "x25519": SimpleNamespace(name="x25519", engine=ecdh, points=on_x25519, element=32, echo=32),
    "sm2": SimpleNamespace(name="sm2", engine=ecdh_sm2, points=on_sm2, element=33, echo=16),
}


@pytest.fixture(params=GROUPS)
def group(request) -> Any:
    return GROUPS[request.param]


def scripted(group: Any, reply: Callable[[int, bytes], bytes | None], learner: Role | None = None) -> Any:
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
                return group.engine.intersect(
                    some, Role.LEFT, terms(3, 3), EVERYTHING, left, learner=learner, patience_s=5
                )
            finally:
                left.close()

        return together(mine, peer)[0]


# -- a peer that does not keep to it --------------------------------------------------------------------------------


FIRST = {
    "too few": lambda sent, p, size: b"".join(p[:2]),
    "more than it committed": lambda sent, p, size: b"".join(p),
    "a byte short": lambda sent, p, size: b"".join(p[:3])[:-1],
    "a repeated key": lambda sent, p, size: p[0] + p[1] + p[1],
    "our own element": lambda sent, p, size: sent[:size] + p[0] + p[1],
    "all of our own": lambda sent, p, size: sent,
    "no elements": lambda sent, p, size: b"\xff" * (3 * size),
}


@pytest.mark.parametrize("learner", [None, Role.LEFT, Role.RIGHT])
@pytest.mark.parametrize("batch", FIRST.values(), ids=FIRST)
def test_a_peer_that_breaks_the_first_round_is_found_out(group, batch, learner):
    def reply(turn: int, sent: bytes) -> bytes | None:
        return [sent, batch(sent, group.points(4), group.element), None, None][turn]

    result = scripted(group, reply, learner)
    assert isinstance(result, ProtocolFailed), result


@pytest.mark.parametrize("learner", [None, Role.LEFT])
@pytest.mark.parametrize("second", ["none", "few", "repeated", "long"])
def test_a_peer_that_breaks_the_second_round_is_found_out(group, second, learner):
    size = group.echo
    batch = {"none": b"", "few": b"1" * size, "repeated": b"1" * 3 * size, "long": bytes(range(3 * size + 1))}[second]

    def reply(turn: int, sent: bytes) -> bytes | None:
        return [sent, b"".join(group.points(3)), batch, sent][turn]

    result = scripted(group, reply, learner)
    assert isinstance(result, ProtocolFailed), result


def test_a_peer_that_tells_a_side_that_is_not_to_learn_is_refused(group):
    def reply(turn: int, sent: bytes) -> bytes | None:
        return [sent, b"".join(group.points(3)), b"".join(group.points(3))[: 3 * group.echo], sent][turn]

    result = scripted(group, reply, Role.RIGHT)
    assert isinstance(result, ProtocolFailed), result


@pytest.mark.parametrize("learner", [None, Role.LEFT, Role.RIGHT])
def test_results_that_disagree_are_no_result(group, learner):
    echo = b"" if learner is Role.RIGHT else bytes(range(3 * group.echo))

    def reply(turn: int, sent: bytes) -> bytes | None:
        return [sent, b"".join(group.points(3)), echo, b"x" * 40][turn]

    result = scripted(group, reply, learner)
    assert isinstance(result, ProtocolFailed), result


def test_echoes_in_another_order_are_found_out_where_both_learn(group, monkeypatch):
    # One side multiplies as it should, and returns the elements reversed: its peer would take wrong rows.
    left, right = sets(40, 40, 20)
    again = {"x25519": ecdh._Curve25519, "sm2": ecdh_sm2._Sm2}[group.name]
    real, first = again.again, threading.Lock()

    def reversing(self: Any, elements: bytes) -> bytes:
        out: bytes = real(self, elements)
        if not first.acquire(blocking=False):
            return out
        size = group.echo
        return b"".join(out[place : place + size] for place in range(len(out) - size, -1, -size))

    monkeypatch.setattr(again, "again", reversing)
    agreed = terms(40, 40)
    results = over_channel(group.engine, Call(digests(left), agreed), Call(digests(right), agreed))
    assert [type(result) for result in results] == [ProtocolFailed, ProtocolFailed], results


def test_a_peer_that_leaves_or_falls_silent_is_named_in_time(group):
    assert isinstance(scripted(group, lambda turn, sent: sent if turn == 0 else None), PartyFailed)
    before = threading.active_count()
    one = digests(["a"])
    with channels() as (left, right):
        with pytest.raises(DeadlinePassed):
            group.engine.intersect(one, Role.LEFT, terms(1, 1), EVERYTHING, left, patience_s=0.1)
        stop = threading.Event()
        stop.set()
        with pytest.raises(Cancelled):
            group.engine.intersect(one, Role.LEFT, terms(1, 1), EVERYTHING, right, stop=stop)
    assert threading.active_count() == before


def test_a_stop_in_the_middle_leaves_no_thread_behind():
    before = threading.active_count()
    left, right = sets(40_000, 40_000, 10)
    stop = threading.Event()

    def side(some: Any, role: Role, channel: Any, mine: threading.Event | None) -> Any:
        try:
            return ecdh_sm2.intersect(
                some,
                role,
                terms(40_000, 40_000),
                EVERYTHING,
                channel,
                stop=mine,
                on_progress=lambda done: done > 0.1 and stop.set(),
            )
        finally:
            channel.close()

    with channels() as (here, there):
        results = together(
            lambda: side(digests(left), Role.LEFT, here, stop), lambda: side(digests(right), Role.RIGHT, there, None)
        )
    assert isinstance(results[0], Cancelled) and isinstance(results[1], PartyFailed), results
    assert threading.active_count() == before


def test_the_two_groups_do_not_talk_to_each_other():
    left, right = sets(5, 5, 2)
    with channels() as (here, there):
        results = together(
            lambda: ecdh.intersect(digests(left), Role.LEFT, terms(5, 5), EVERYTHING, here),
            lambda: ecdh_sm2.intersect(digests(right), Role.RIGHT, terms(5, 5), EVERYTHING, there),
        )
    assert [type(result) for result in results] == [PartyFailed, PartyFailed]


# -- what the sides are told ----------------------------------------------------------------------------------------


class Recorded:
    """A channel that remembers what was sent over it."""

    def __init__(self, channel: Any) -> None:
        self._channel, self.sent = channel, list[bytes]()

    def send(self, data: bytes) -> None:
        self.sent.append(data)
        self._channel.send(data)

    def recv(self, deadline: float) -> bytes:
        return self._channel.recv(deadline)


def said(group: Any, left: Any, right: Any, learner: Role | None, bucket: Bucket = EVERYTHING) -> list[list[bytes]]:
    """Return what each side sent."""
    agreed, kept = terms(len(left), len(right)), list[Recorded]()

    def remember(channel: Any) -> Recorded:
        kept.append(Recorded(channel))
        return kept[-1]

    both = (digests(side) for side in (left, right))
    chosen = [part[number_of(part, bucket.of) == bucket.number] for part in both]
    results = over_channel(group.engine, *(Call(part, agreed, bucket, learner) for part in chosen), wrap=remember)
    assert all(isinstance(result, np.ndarray) for result in results), results
    # The side that starts first wraps first; the elements of a side are as many as its keys.
    size = group.element * padded_size(len(left), bucket.of)
    return [one.sent for one in sorted(kept, key=lambda one: len(one.sent[1]) != size)]


def test_a_side_that_does_not_learn_is_told_the_same_whatever_the_other_finds(group):
    nothing = [said(group, *sets(30, 40, common), Role.RIGHT)[1] for common in (0, 30)]
    for messages in nothing:
        assert [len(one) for one in messages] == [32, 40 * group.element, 0, 32]
    assert nothing[0][0] == nothing[1][0] and nothing[0][3] == nothing[1][3]  # the terms, and "done"
    assert not set(cut(nothing[0][1], group.element)) & set(cut(nothing[1][1], group.element))


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[place : place + size] for place in range(0, len(data), size)]


def test_elements_are_fresh_in_every_run_and_echoes_are_short(group):
    left, right = sets(30, 40, 10)
    runs = [said(group, left, right, None) for _ in range(2)]
    assert [[len(one) for one in side] for side in runs[0]] == [
        [32, 30 * group.element, 40 * group.echo, 40],
        [32, 40 * group.element, 30 * group.echo, 40],
    ]
    firsts = [set(cut(run[0][1], group.element)) for run in runs]
    assert len(firsts[0] | firsts[1]) == 60


@pytest.mark.parametrize("bucket", [EVERYTHING, Bucket(1, 3)])
def test_keys_and_padding_go_out_shuffled(group, monkeypatch, bucket):
    left, right = sets(300, 1, 0)
    kind, seen = {"x25519": ecdh._Curve25519, "sm2": ecdh_sm2._Sm2}[group.name], list[list[bytes]]()
    real = kind.blind

    def looking(self: Any, some: Any) -> bytes:
        seen.append([bytes(row) for row in some])
        return real(self, some)

    monkeypatch.setattr(kind, "blind", looking)
    mine = [bytes(row) for row in digests(left) if number_of(row[None], bucket.of)[0] == bucket.number]
    for _ in range(2):
        said(group, left, right, None, bucket)
    runs = [names for names in seen if len(names) > 1]
    for names in runs:
        assert len(set(names)) == len(names) == padded_size(300, bucket.of) and set(mine) <= set(names)
        places = [names.index(name) for name in mine]
        assert places != sorted(places)
    assert [name for name in runs[0] if name in mine] != [name for name in runs[1] if name in mine]


@pytest.mark.parametrize("learner", [None, Role.LEFT])
def test_a_bucket_is_padded_so_that_its_size_tells_nothing(group, learner):
    left, right = sets(300, 200, 100)
    shapes = {
        tuple(len(one) for side in said(group, left, right, learner, Bucket(number, 3)) for one in side[:3])
        for number in range(3)
    }
    assert len(shapes) == 1
    assert next(iter(shapes))[1] == group.element * padded_size(300, 3)


def test_progress_grows_to_one(group, monkeypatch):
    monkeypatch.setattr(commutative, "BATCH", 2048)
    left, right = sets(5000, 100, 50)
    seen: list[float] = []
    with channels() as (here, there):
        results = together(
            lambda: group.engine.intersect(
                digests(left), Role.LEFT, terms(5000, 100), EVERYTHING, here, learner=Role.LEFT, on_progress=seen.append
            ),
            lambda: group.engine.intersect(
                digests(right), Role.RIGHT, terms(5000, 100), EVERYTHING, there, learner=Role.LEFT
            ),
        )
    assert len(results[0]) == 50
    assert seen == sorted(seen) and seen[-1] == 1.0 and len(seen) == 6


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


# -- Curve25519 -----------------------------------------------------------------------------------------------------


def on_curve(u: int) -> bool:
    return pow(u**3 + 486662 * u**2 + u, (ecdh._PRIME - 1) // 2, ecdh._PRIME) == 1


def test_hashes_lie_on_the_curve_and_the_slow_way_agrees(monkeypatch):
    some = [f"k{number}".encode() for number in range(40)]
    fast = [ecdh.hash_to_curve(key, SALT) for key in some]
    assert all(on_curve(int.from_bytes(point, "little")) for point in fast)
    assert len(set(fast)) == 40 and fast[0] != ecdh.hash_to_curve(some[0], b"another salt 16b")
    monkeypatch.setattr(ecdh, "_JACOBI", None)
    assert [ecdh.hash_to_curve(key, SALT) for key in some] == fast


@pytest.mark.parametrize(
    "element",
    [bytes(32), (2**255 - 18).to_bytes(32, "little")],
    ids=["small order", "second spelling of 1"],
)
def test_an_element_that_is_no_honest_point_of_curve25519_is_refused(element):
    result = scripted(GROUPS["x25519"], lambda turn, sent: [sent, b"".join(on_x25519(2)) + element, None][turn])
    assert isinstance(result, ProtocolFailed), result


def test_a_repetition_hidden_in_the_unused_bit_of_curve25519_is_refused():
    first, second = on_x25519(2)
    hidden = second[:31] + bytes([second[31] | 128])
    result = scripted(GROUPS["x25519"], lambda turn, sent: [sent, first + second + hidden, None][turn])
    assert isinstance(result, ProtocolFailed), result


# -- which names are equal ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [1, 3, 2**63], ids=["first words all equal", "few first words", "any first words"])
def test_equal_names_are_found_whatever_their_first_words(first):
    draw = np.random.default_rng(first)
    for size in (0, 1, 2, 3, 50):
        one, other = (
            np.stack([draw.integers(0, first, size, np.uint64), draw.permutation(2 * size)[:size].astype(np.uint64)], 1)
            for _ in range(2)
        )
        wanted = {tuple(row) for row in one.tolist()} & {tuple(row) for row in other.tolist()}
        found = commutative._common(one, other)
        assert len(found) == len(wanted) and {tuple(one[place].tolist()) for place in found} == wanted
        if wanted:
            with pytest.raises(ProtocolFailed, match="our own"):
                commutative._check_fresh(one, other)
        else:
            commutative._check_fresh(one, other)
        if size:
            with pytest.raises(ProtocolFailed, match="twice"):
                commutative._common(np.concatenate([one, one[-1:]]), other)
            with pytest.raises(ProtocolFailed, match="a blinded key twice"):
                commutative._check_fresh(one, np.concatenate([other, other[:1]]))
