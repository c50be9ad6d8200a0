"""Every engine against the intersection in the clear: one suite, two engines."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from engine_pairs import channels, joined, together

from sandbox.errors import (
    Cancelled,
    DeadlinePassed,
    InvalidSpec,
    PartyFailed,
    ProtocolFailed,
    SandboxError,
    Unavailable,
)
from sandbox.psi import ecdh, reference, rr22, rr22_child
from sandbox.psi.contract import Role, Terms
from sandbox.workspace import engines as availability
from sandbox.workspace import run_child

PLAN, SALT = b"p" * 32, b"salt of this run"
Pair = Callable[..., list[Any]]
HAS_SPU = availability.engines()["psi.rr22"] == availability.READY
needs_spu = pytest.mark.skipif(not HAS_SPU, reason="spu is not installed")


def terms(left: int, right: int, **other: Any) -> Terms:
    return Terms(**{"plan": PLAN, "salt": SALT, "left_rows": left, "right_rows": right} | other)


@pytest.fixture(params=["ecdh", pytest.param("rr22", marks=needs_spu)])
def pair(request, place) -> Any:
    """Run one engine on both sides; return what each side returned or raised."""
    if request.param == "ecdh":
        with channels() as (left, right):

            def run(a: pa.Array, b: pa.Array, mine: Terms, theirs: Terms | None = None) -> list[Any]:
                # A node closes the channel when its side is over, so that the other side learns of it.
                def side(keys, role, agreed, channel):
                    try:
                        return ecdh.intersect(keys, role, agreed, channel, patience_s=30)
                    except SandboxError:
                        channel.close()
                        raise

                return together(
                    lambda: side(a, Role.LEFT, mine, left), lambda: side(b, Role.RIGHT, theirs or mine, right)
                )

            yield run
    else:
        with joined(place, ("left", "right")) as spaces:

            def run(a: pa.Array, b: pa.Array, mine: Terms, theirs: Terms | None = None) -> list[Any]:
                more: dict[str, Any] = {"deadline_s": 30, "patience_s": 5}
                return together(
                    lambda: rr22.intersect(a, Role.LEFT, mine, spaces["left"], peer="right", **more),
                    lambda: rr22.intersect(b, Role.RIGHT, theirs or mine, spaces["right"], peer="left", **more),
                )

            yield run


def sets(left: int, right: int, common: int) -> tuple[pa.Array, pa.Array]:
    draw = random.Random(left * 7 + right)
    ids = [f"99{draw.getrandbits(50):016d}" for _ in range(left + right - common)]
    mine, theirs = ids[:left], ids[left - common :]
    draw.shuffle(mine)
    draw.shuffle(theirs)
    return pa.array(mine, pa.string()), pa.array(theirs, pa.string())


def check(pair: Pair, left: pa.Array, right: pa.Array, expected: int) -> None:
    results = pair(left, right, terms(len(left), len(right)))
    wanted = reference.intersect(left, right, SALT)
    assert len(wanted[0]) == expected
    for got, want in zip(results, wanted, strict=True):
        assert isinstance(got, np.ndarray), got
        assert got.dtype == np.int64 and np.array_equal(got, want)


@pytest.mark.parametrize(
    ("left", "right", "common"),
    [
        (0, 0, 0), (0, 5, 0), (5, 0, 0), (1, 1, 1), (1, 1, 0), (1, 100, 1), (7, 5, 3), (100, 100, 100),
        (100, 99, 0), (1000, 10, 5), (5000, 5000, 2500), (4097, 4096, 17),
    ],
)  # fmt: skip
def test_equals_the_reference(pair, left, right, common):
    check(pair, *sets(left, right, common), common)


def test_awkward_keys_are_compared_byte_for_byte(pair):
    left = ["张三", "a,b", 'say "x"', "two\nlines", "0012", " 3", "1.0", "NULL", "", "é", "x\0", "\\", "'", "id", "𠮷"]
    right = ["张三", "a,b", 'say "x"', "two\nlines", "12", "3", "1", "NULL", "", "e\u0301", "x", "\\", "'", "ID", "𠮷"]
    check(pair, pa.array(left), pa.array(right[::-1]), 9)


def test_the_sequence_depends_on_neither_sides_order(pair):
    left, right = sets(50, 50, 30)
    first = pair(left, right, terms(50, 50))
    again = pair(left[::-1], right, terms(50, 50))
    people = [left.take(pa.array(first[0])).to_pylist(), left[::-1].take(pa.array(again[0])).to_pylist()]
    assert people[0] == people[1] == right.take(pa.array(first[1])).to_pylist()


@pytest.mark.parametrize("bad", [pa.array(["a", "b", "a"]), pa.array(["a", None, "b"]), pa.array([1, 2, 3])])
def test_keys_that_break_the_contract_never_reach_the_other_side(pair, bad):
    # The peer is not even waited for: nothing has been sent.
    results = pair(bad, bad, terms(3, 3))
    assert [type(result) for result in results] == [InvalidSpec, InvalidSpec]


def test_another_number_of_keys_than_agreed_is_refused(pair):
    left, right = sets(5, 5, 2)
    assert [type(result) for result in pair(left, right, terms(4, 4))] == [InvalidSpec, InvalidSpec]


@pytest.mark.parametrize("other", [{"plan": b"q" * 32}, {"salt": b"another salt 16b"}])
def test_different_terms_end_before_any_key_is_used(pair, other):
    left, right = sets(5, 5, 2)
    results = pair(left, right, terms(5, 5), terms(5, 5, **other))
    assert all(isinstance(result, PartyFailed) for result in results), results


def test_terms_without_a_salt_or_with_absurd_sizes_are_refused():
    for wrong in ({"salt": b"short"}, {"left_rows": -1}, {"right_rows": 1 << 31}):
        with pytest.raises(InvalidSpec):
            terms(**{"left": 1, "right": 1} | {"left_rows": 1, "right_rows": 1} | wrong)


# -- ecdh alone ---------------------------------------------------------------------------------------------------


def on_curve(u: int) -> bool:
    return pow(u**3 + 486662 * u**2 + u, (ecdh._PRIME - 1) // 2, ecdh._PRIME) == 1


def test_hashes_lie_on_the_curve_and_the_slow_way_agrees(monkeypatch):
    keys = [f"k{number}".encode() for number in range(40)]
    fast = [ecdh.hash_to_curve(key, SALT) for key in keys]
    assert all(on_curve(int.from_bytes(point, "little")) for point in fast)
    assert len(set(fast)) == 40 and fast[0] != ecdh.hash_to_curve(keys[0], b"another salt 16b")
    monkeypatch.setattr(ecdh, "_JACOBI", None)
    assert [ecdh.hash_to_curve(key, SALT) for key in keys] == fast


def scripted(reply: Callable[[int, bytes], bytes | None]) -> list[Any]:
    """Run the left side against a peer that answers each message as ``reply`` says."""
    keys = pa.array(["a", "b", "c"])
    agreed = terms(3, 3)
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
                return ecdh.intersect(keys, Role.LEFT, agreed, left, patience_s=5)
            finally:
                left.close()

        return together(mine, peer)


def points(count: int) -> list[bytes]:
    secret = X25519PrivateKey.generate()
    return [ecdh._multiply(secret, ecdh.hash_to_curve(b"%d" % number, SALT)) for number in range(count)]


@pytest.mark.parametrize(
    "batch",
    [
        lambda sent: b"".join(points(2)),  # too few
        lambda sent: b"".join(points(3))[:-1],  # a byte short
        lambda sent: b"".join([*points(2), bytes(32)]),  # small order
        lambda sent: b"".join([*points(2), (2**255 - 18).to_bytes(32, "little")]),  # second spelling of 1
        lambda sent: b"".join((lambda p: [p[0], p[1], p[1]])(points(3))),  # a repeated key
        lambda sent: b"".join((lambda p: [p[0], p[1], p[1][:31] + bytes([p[1][31] | 128])])(points(2))),  # same, hidden
        lambda sent: b"".join([sent[:32], *points(2)]),  # our own element reflected
    ],
)
def test_a_peer_that_breaks_the_first_round_is_found_out(batch):
    result = scripted(lambda turn, sent: sent if turn == 0 else batch(sent) if turn == 1 else None)[0]
    assert isinstance(result, ProtocolFailed), result


def test_a_peer_that_breaks_the_second_round_is_found_out():
    for second in (lambda sent: b"".join(points(1) * 3), lambda sent: b"".join(points(4)), lambda sent: b""):

        def reply(turn: int, sent: bytes, second: Any = second) -> bytes | None:
            return [sent, b"".join(points(3)), second(sent), None][turn]

        result = scripted(reply)[0]
        assert isinstance(result, ProtocolFailed), result


def test_results_that_disagree_are_no_result():
    def reply(turn: int, sent: bytes) -> bytes | None:
        return sent if turn == 0 else b"x" * 40 if turn == 3 else b"".join(points(3))

    assert isinstance(scripted(reply)[0], ProtocolFailed)


def test_a_peer_that_leaves_or_falls_silent_is_named_in_time():
    assert isinstance(scripted(lambda turn, sent: sent if turn == 0 else None)[0], PartyFailed)
    with channels() as (left, _):
        with pytest.raises(DeadlinePassed):
            ecdh.intersect(pa.array(["a"]), Role.LEFT, terms(1, 1), left, patience_s=0.1)
        stop = threading.Event()
        stop.set()
        with pytest.raises(Cancelled):
            ecdh.intersect(pa.array(["a"]), Role.LEFT, terms(1, 1), left, stop=stop)


# -- rr22 alone ---------------------------------------------------------------------------------------------------


def both(spaces: Any, left: pa.Array, right: pa.Array, **more: Any) -> list[Any]:
    agreed = terms(len(left), len(right))
    more = {"deadline_s": 60, "patience_s": 5} | more
    return together(
        lambda: rr22.intersect(left, Role.LEFT, agreed, spaces["left"], peer="right", **more),
        lambda: rr22.intersect(right, Role.RIGHT, agreed, spaces["right"], peer="left", **more),
    )


@needs_spu
def test_buckets_one_after_another_give_the_same_result(place, monkeypatch):
    monkeypatch.setattr("sandbox.psi.buckets.WHOLE", 1000)
    monkeypatch.setattr("sandbox.psi.buckets.BUCKET", 700)
    left, right = sets(2000, 900, 450)
    seen: list[float] = []
    with joined(place, ("left", "right")) as spaces:
        results = both(spaces, left, right, on_progress=seen.append)
        assert not list(spaces["left"].path.glob("in-*")) and not list(spaces["left"].path.glob("out-*"))
    wanted = reference.intersect(left, right, SALT)
    assert np.array_equal(results[0], wanted[0]) and np.array_equal(results[1], wanted[1])
    assert sorted(set(seen)) == [1 / 3, 2 / 3, 1.0]


@needs_spu
def test_nothing_of_a_key_or_a_trace_is_left(place):
    before = {name for name in os.listdir("/tmp") if name.startswith("psi_")}
    with joined(place, ("left", "right")) as spaces:
        both(spaces, *sets(20, 20, 10))
    assert list(place.iterdir()) == []
    assert {name for name in os.listdir("/tmp") if name.startswith("psi_")} <= before


def engine_of(space: Any) -> psutil.Process | None:
    for child in psutil.Process().children():
        try:
            if space.token in child.cmdline():
                return child
        except psutil.NoSuchProcess:
            continue
    return None


@needs_spu
@pytest.mark.slow
def test_a_killed_engine_ends_both_sides_in_time_and_leaves_nothing(place):
    left, right = sets(200_000, 200_000, 1000)
    started: list[float] = []

    def kill(space: Any) -> None:
        while not (space.path / "in-0.csv").exists() or engine_of(space) is None:
            time.sleep(0.005)
        time.sleep(0.5)
        engine = engine_of(space)
        assert engine is not None
        started.append(time.monotonic())
        engine.kill()

    with joined(place, ("left", "right")) as spaces:
        agreed = terms(200_000, 200_000)
        more: dict[str, Any] = {"deadline_s": 6, "patience_s": 3}
        results = together(
            lambda: rr22.intersect(left, Role.LEFT, agreed, spaces["left"], peer="right", **more),
            lambda: rr22.intersect(right, Role.RIGHT, agreed, spaces["right"], peer="left", **more),
            lambda: kill(spaces["right"]),
        )
        assert time.monotonic() - started[0] < 15
    assert isinstance(results[0], SandboxError) and isinstance(results[1], SandboxError), results
    assert list(place.iterdir()) == []


@needs_spu
def test_an_engine_alone_ends_at_its_deadline(place):
    with joined(place, ("left", "right")) as spaces, pytest.raises((DeadlinePassed, PartyFailed)):
        rr22.intersect(pa.array(["a"]), Role.LEFT, terms(1, 1), spaces["left"], peer="right", deadline_s=1)


@needs_spu
def test_sides_that_find_different_sets_return_nothing(place, tmp_path):
    # One side's engine "loses" a row after the protocol, as the library's low-communication mode does.
    forged = tmp_path / "loses_a_row.py"
    forged.write_text(
        "from sandbox.psi import rr22_child as real\n"
        "execute = real._execute\n"
        "def lossy(psi, context, config):\n"
        "    count = execute(psi, context, config)\n"
        "    lines = open(config['target'], 'rb').readlines()\n"
        "    open(config['target'], 'wb').writelines(lines[:-1])\n"
        "    return count - 1\n"
        "real._execute = lossy\n"
        "main = real.main\n"
    )
    left, right = sets(20, 20, 10)
    agreed = terms(20, 20)
    more: dict[str, Any] = {"deadline_s": 30, "patience_s": 5}

    def lossy_side(space: Any) -> Any:
        def child(_target: str, *rest: Any, **named: Any) -> Any:
            return run_child(forged, *rest, **named)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                rr22,
                "run_child",
                lambda t, c, w, *rest, **named: (
                    child(t, c, w, *rest, **named) if w is space else run_child(t, c, w, *rest, **named)
                ),
            )
            return together(
                lambda: rr22.intersect(left, Role.LEFT, agreed, spaces["left"], peer="right", **more),
                lambda: rr22.intersect(right, Role.RIGHT, agreed, spaces["right"], peer="left", **more),
            )

    with joined(place, ("left", "right")) as spaces:
        results = lossy_side(spaces["left"])
    assert [type(result) for result in results] == [ProtocolFailed, ProtocolFailed], results
    assert [result.party for result in results] == ["right", "left"]


def test_the_modes_that_lose_or_invent_rows_are_not_reachable():
    source = Path(rr22_child.__file__).read_text(encoding="utf-8")
    assert source.count("low_comm_mode=") == 1 and "low_comm_mode=False" in source
    assert source.count("PROTOCOL_") == 1 and "PROTOCOL_RR22" in source
    assert "broadcast" not in json.dumps(terms(1, 1).agreement("x"))


def test_without_the_library_the_answer_says_what_to_install(place, monkeypatch):
    monkeypatch.setattr(availability, "package_directory", lambda name: "")
    reasons = availability.engines()
    assert reasons["psi.ecdh"] == reasons["mpc.scorecard"] == "ready"
    assert "pip install 'data-sandbox[fast]'" in reasons["psi.rr22"] and "'fast'" in reasons["mpc.aby3"]
    with joined(place, ("left", "right")) as spaces, pytest.raises(Unavailable, match="data-sandbox"):
        rr22.intersect(pa.array(["a"]), Role.LEFT, terms(1, 1), spaces["left"], peer="right", deadline_s=1)
    assert list(place.iterdir()) == []
