"""RR22 in its child process: the fences around the library, each shown to hold."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from engine_pairs import Call, Relay, digests, in_children, joined, needs_spu, sets, terms

from sandbox.errors import DeadlinePassed, PartyFailed, ProtocolFailed, SandboxError, Unavailable
from sandbox.psi import rr22, rr22_child, table
from sandbox.psi.buckets import number_of, padded_size
from sandbox.psi.contract import EVERYTHING, Bucket, Role
from sandbox.workspace import engines as availability
from sandbox.workspace import run_child


def honest(left: int, right: int, common: int, learner: Role | None = None) -> tuple[Call, Call]:
    agreed = terms(left, right)
    mine, theirs = (Call(digests(side), agreed, learner=learner) for side in sets(left, right, common))
    return mine, theirs


def alone(space: Any) -> Any:
    return rr22.intersect(
        digests(["a"]), Role.LEFT, terms(1, 1), EVERYTHING, space, peer="right", deadline_s=1, patience_s=1
    )


# -- what goes in, what is told -------------------------------------------------------------------------------------


@needs_spu
@pytest.mark.parametrize("bucket", [EVERYTHING, Bucket(1, 2)])
def test_rows_go_in_shuffled_with_a_random_one_more_than_agreed(place, monkeypatch, bucket):
    left, right = (digests(side) for side in sets(400, 300, 100))
    mine, theirs = (side[number_of(side, bucket.of) == bucket.number] for side in (left, right))
    agreed, seen = terms(400, 300), dict[int, np.ndarray]()

    def looking(target: Any, config: Any, *rest: Any, **named: Any) -> Any:
        lines = Path(config["source"]).read_bytes().removeprefix(table.HEADER).splitlines()
        seen[config["rank"]] = np.array([list(bytes.fromhex(line[:32].decode())) for line in lines], np.uint8)
        assert config["sizes"] == [padded_size(400, bucket.of) + 1, padded_size(300, bucket.of) + 1]
        return run_child(target, config, *rest, **named)

    monkeypatch.setattr(rr22, "run_child", looking)
    with joined(place, ("left", "right")) as spaces:
        results = in_children(spaces, Call(mine, agreed, bucket), Call(theirs, agreed, bucket))
    assert len(results[0]) == len(results[1]) > 30
    for rank, side in ((0, mine), (1, theirs)):
        rows = seen[rank].view(np.uint64)
        assert len(rows) == padded_size(agreed.rows(Role(rank)), bucket.of) + 1
        names, given = [bytes(row) for row in rows], [bytes(row) for row in side]
        assert set(given) < set(names) and len(set(names)) == len(names)
        places = [names.index(name) for name in given]
        assert places != sorted(places) and max(places) > len(given) - 1  # what is random is anywhere among them


@needs_spu
def test_a_side_that_is_not_to_learn_is_sent_as_much_whatever_the_other_finds(place):
    sent = dict[tuple[int, Role | None], int]()
    for learner in (None, Role.RIGHT):
        for common in (0, 5000):
            relay = Relay()
            with joined(place, ("left", "right"), relay) as spaces:
                # Where both learn, the library gives the result to left, which passes it on.
                listening = spaces["left" if learner is Role.RIGHT else "right"].own_socket
                results = in_children(spaces, *honest(5000, 5000, common, learner))
                sent[common, learner] = relay.carried[listening]
            assert [len(got) for got in results] == [0 if learner is Role.RIGHT else common, common]
    assert sent[5000, None] - sent[0, None] > 4 * 5000 - 4000, sent  # four bytes a match, and the noise of heartbeats
    assert abs(sent[5000, Role.RIGHT] - sent[0, Role.RIGHT]) < 4000, sent


@needs_spu
@pytest.mark.parametrize("learner", [None, Role.LEFT])
def test_nothing_of_a_key_or_a_trace_is_left(place, learner):
    before = set(Path("/tmp").glob("psi_*"))
    with joined(place, ("left", "right")) as spaces:
        results = in_children(spaces, *honest(20, 20, 10, learner))
        assert len(results[0]) == 10
        for space in spaces.values():
            assert {path.suffix for path in space.path.rglob("*")} <= {".sock"}
    assert list(place.iterdir()) == []
    left, end = set(Path("/tmp").glob("psi_*")) - before, time.monotonic() + 30
    while any(path.exists() for path in left):  # those of engines of other tests go when those end
        assert time.monotonic() < end, left
        time.sleep(0.1)


# -- a peer, a library, or a machine that fails ---------------------------------------------------------------------


def forged(place: Path, name: str, body: str) -> Path:
    """Return a child whose behaviour ``body`` changes."""
    path = place / f"{name}.py"
    path.write_text(f"from sandbox.psi import rr22_child as real\n{body}\nmain = real.main\n")
    return path


def with_forged(spaces: Any, side: str, script: Path, calls: tuple[Call, Call]) -> list[Any]:
    """Run both sides, one of them with the forged child."""

    def child(target: Any, config: Any, space: Any, *rest: Any, **named: Any) -> Any:
        return run_child(script if space is spaces[side] else target, config, space, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rr22, "run_child", child)
        return in_children(spaces, *calls, deadline_s=4)


LOSES_A_ROW = """
execute = real._execute
def lossy(psi, context, config):
    count = execute(psi, context, config)
    lines = open(config["target"], "rb").readlines()
    open(config["target"], "wb").writelines(lines[:-1])
    return count - 1
real._execute = lossy
"""


@needs_spu
def test_sides_that_find_different_sets_return_nothing(place, tmp_path):
    # One side's engine "loses" a row after the protocol, as the library's low-communication mode does.
    with joined(place, ("left", "right")) as spaces:
        results = with_forged(spaces, "left", forged(tmp_path, "loses", LOSES_A_ROW), honest(20, 20, 10))
    assert [type(result) for result in results] == [ProtocolFailed, ProtocolFailed], results
    assert [result.party for result in results] == ["right", "left"]


BRINGS_MORE = """
def main(config, report):
    config["sizes"][config["rank"]] += 5
    with open(config["source"], "ab") as out:
        for row in range(5):
            out.write(b"%032d,%08d\\n" % (row, row + config["sizes"][config["rank"]] - 5))
    return real.main(config, report)
"""


@needs_spu
def test_a_side_that_brings_more_rows_than_it_committed_to_is_refused(place, tmp_path):
    script = tmp_path / "more.py"
    script.write_text(f"from sandbox.psi import rr22_child as real\n{BRINGS_MORE}")
    with joined(place, ("left", "right")) as spaces:
        results = with_forged(spaces, "right", script, honest(20, 20, 10, Role.LEFT))
    assert isinstance(results[0], ProtocolFailed) and results[0].party == "right", results
    assert "another number of rows" in str(results[0])
    assert isinstance(results[1], SandboxError)


def test_what_the_sides_compare_is_the_same_for_the_same_set_in_any_order(tmp_path):
    lines = [bytes(row).hex().encode() + b",%08d\n" % place for place, row in enumerate(digests(["a", "b", "c"]))]

    def of(*parts: bytes) -> str:
        path = tmp_path / "answer.csv"
        path.write_bytes(table.ANSWER_HEADER + b"".join(parts))
        return rr22_child._checksum(path)

    other_rows = [line[:33] + b"00000009\n" for line in lines]
    assert of(*lines) == of(*lines[::-1]) == of(*other_rows)
    assert len({of(*lines), of(*lines[:2]), of(*lines[1:]), of()}) == 4
    for damaged in (b"x" * 42, b"\n"):
        with pytest.raises(ProtocolFailed):
            of(lines[0], damaged)
    with pytest.raises(ProtocolFailed):
        rr22_child._checksum(tmp_path / "missing.csv")


PAIRS_WRONGLY = """
def main(config, report):
    result = real.main(config, report)
    header, *lines = open(config["target"], "rb").readlines()
    lines[0], lines[1] = lines[0][:33] + lines[1][33:], lines[1][:33] + lines[0][33:]
    open(config["target"], "wb").writelines([header, *lines])
    return result
"""


@needs_spu
def test_a_library_that_pairs_a_key_with_another_row_is_found_out(place, tmp_path):
    script = tmp_path / "pairs.py"
    script.write_text(f"from sandbox.psi import rr22_child as real\n{PAIRS_WRONGLY}")
    with joined(place, ("left", "right")) as spaces:
        results = with_forged(spaces, "left", script, honest(20, 20, 10, Role.LEFT))
    assert isinstance(results[0], ProtocolFailed), results


TELLS_EVERYBODY = """
import types
execute = real._execute
def telling(psi, context, config):
    def both(**named):
        return psi.PsiProtocolConfig(**named | {"broadcast_result": True})
    faces = {name: getattr(psi, name) for name in dir(psi) if not name.startswith("_")}
    return execute(types.SimpleNamespace(**faces | {"PsiProtocolConfig": both}), context, config)
real._execute = telling
"""


@needs_spu
def test_a_result_on_the_side_that_is_not_to_learn_is_an_error(place, tmp_path):
    # Both sides' libraries are told to broadcast, as after a change of what its options mean.
    script = forged(tmp_path, "tells", TELLS_EVERYBODY)
    with joined(place, ("left", "right")) as spaces, pytest.MonkeyPatch.context() as patch:
        patch.setattr(rr22, "run_child", lambda target, *rest, **named: run_child(script, *rest, **named))
        results = in_children(spaces, *honest(20, 20, 10, Role.LEFT), deadline_s=4)
    assert isinstance(results[1], ProtocolFailed) and "not to learn" in str(results[1]), results
    assert isinstance(results[0], SandboxError)


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
    started: list[float] = []

    def kill(space: Any) -> None:
        while not (space.path / "in.csv").exists() or engine_of(space) is None:
            time.sleep(0.005)
        time.sleep(0.5)
        engine = engine_of(space)
        assert engine is not None
        started.append(time.monotonic())
        engine.kill()

    calls = honest(200_000, 200_000, 1000)
    with joined(place, ("left", "right")) as spaces:
        killer = threading.Thread(target=kill, args=(spaces["right"],))
        killer.start()
        results = in_children(spaces, *calls, deadline_s=6, patience_s=3)
        killer.join()
        assert time.monotonic() - started[0] < 15
    assert isinstance(results[0], SandboxError) and isinstance(results[1], SandboxError), results
    assert list(place.iterdir()) == []


@needs_spu
def test_an_engine_alone_ends_at_its_deadline(place):
    with joined(place, ("left", "right")) as spaces, pytest.raises((DeadlinePassed, PartyFailed)):
        alone(spaces["left"])


@needs_spu
def test_the_end_of_a_bucket_is_reported(place):
    seen: list[float] = []
    with joined(place, ("left", "right")) as spaces:
        in_children(spaces, *honest(20, 20, 10), on_progress=seen.append)
    assert seen == [1.0, 1.0]


def test_the_modes_that_lose_or_invent_rows_are_not_reachable():
    source = Path(rr22_child.__file__).read_text(encoding="utf-8")
    assert source.count("low_comm_mode=") == 1 and "low_comm_mode=False" in source
    assert source.count("PROTOCOL_") == 1 and "PROTOCOL_RR22" in source


def test_without_the_library_the_answer_says_what_to_install(place, monkeypatch):
    monkeypatch.setattr(availability, "package_directory", lambda name: "")
    reasons = availability.engines()
    assert reasons["psi.ecdh"] == reasons["mpc.scorecard"] == "ready"
    assert "pip install 'data-sandbox[fast]'" in reasons["psi.rr22"] and "'fast'" in reasons["mpc.aby3"]
    with joined(place, ("left", "right")) as spaces, pytest.raises(Unavailable, match="data-sandbox"):
        alone(spaces["left"])
    assert list(place.iterdir()) == []
