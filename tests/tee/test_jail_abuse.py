"""Bombs, bad manners and forged outputs: each alone in its jail, at every level that holds on this machine."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Iterator

import pytest
from jail_world import SMALL, World, left_over, levels, world

from sandbox.errors import Cancelled, DeadlinePassed, JobFailed, SandboxError
from sandbox.tee_sim.levels import Level, Limits, Reason, told_by

QUICK = dataclasses.replace(SMALL, wall_s=1.5)
FORBIDDEN = (
    "link_as_output",
    "hard_link_as_output",
    "folder_as_output",
    "odd_name_as_output",
    "too_many_outputs",
)


@pytest.fixture(scope="module")
def targets() -> Iterator[World]:
    with world() as made:
        yield made


@pytest.fixture(scope="module", params=list(Level))
def level(request: pytest.FixtureRequest) -> Level:
    chosen: Level = request.param
    if chosen not in levels():
        pytest.skip(f"the level {chosen} does not hold on this machine")
    return chosen


@pytest.fixture(autouse=True)
def nothing_is_left(targets: World) -> Iterator[None]:
    """After each run: no process, no control group, no folder."""
    yield
    assert left_over(targets) == []


def ends(
    targets: World, level: Level, attempt: str, limits: Limits, stop: threading.Event | None = None, **more: int
) -> SandboxError:
    """Run something that must not succeed; return how it ended."""
    with pytest.raises(SandboxError) as caught:
        targets.attempt(level, attempt, limits=limits, stop=stop, **more)
    error = caught.value
    assert str(error) in set(Reason)  # nothing from inside
    assert error.tell == type(error).public
    return error


def reason(error: SandboxError) -> Reason:
    found: Reason = vars(error)["reason"]
    return found


def test_a_fork_bomb_stays_within_its_number_and_ends_with_its_time(targets: World, level: Level) -> None:
    most = 0
    over = threading.Event()

    def count() -> None:
        nonlocal most
        while not over.is_set():
            most = max(most, sum(one.startswith("process") for one in left_over(targets)))
            time.sleep(0.05)

    counting = threading.Thread(target=count)
    counting.start()
    error = ends(targets, level, "fork_bomb", QUICK)
    over.set()
    counting.join()
    assert isinstance(error, DeadlinePassed)
    if os.geteuid() == 0:
        assert QUICK.processes // 2 < most <= QUICK.processes + 4  # it did explode, up to the limit


def test_what_the_kernel_bounds_by_itself(targets: World, level: Level) -> None:
    attempts = ("daemon", "big_file", "thread_bomb", "log_flood", "pipe_as_output")
    filling = () if level is Level.NARROWED else ("disk_bomb", "inode_bomb")
    said, outcome = targets.attempt(level, *filling, *attempts)
    value = {name: one.get("value") for name, one in said.items()}
    assert 0 < value["thread_bomb"] <= SMALL.processes + 4
    assert 0 < value["big_file"] <= SMALL.disk_mib << 20
    assert said["pipe_as_output"] == {"errno": 1, "error": "PermissionError"}
    if filling:
        assert 0 < value["disk_bomb"] <= SMALL.disk_mib << 20
        assert 0 < value["inode_bomb"] <= SMALL.files
    assert value["daemon"] == "left one behind"  # and `nothing_is_left`
    assert value["log_flood"] == "printed"
    assert len(outcome.log) <= SMALL.log_bytes
    assert outcome.log.endswith(b"last line\n")
    assert b"[...]" in outcome.log


@pytest.mark.parametrize("attempt", ["disk_bomb", "inode_bomb"])
def test_where_nothing_can_be_mounted_the_watcher_bounds_what_is_written(targets: World, attempt: str) -> None:
    if Level.NARROWED not in levels():
        pytest.skip("the level narrowed does not hold on this machine")
    assert reason(ends(targets, Level.NARROWED, attempt, SMALL)) is Reason.DISK


@pytest.mark.parametrize("attempt", ["memory_bomb", "shared_memory_bomb", "memory_of_many"])
def test_memory_is_bounded_for_all_processes_together(targets: World, level: Level, attempt: str) -> None:
    limits = dataclasses.replace(SMALL, memory_mib=256)
    error = ends(targets, level, attempt, limits, each_mib=80)
    # Without a control group one process alone may meet its own limit before anybody looks.
    own = level is not Level.CONFINED and attempt == "memory_bomb"
    assert reason(error) in ((Reason.MEMORY, Reason.PROGRAM) if own else (Reason.MEMORY,))
    assert isinstance(error, JobFailed)


def test_processor_time_is_bounded_for_all_processes_together(targets: World, level: Level) -> None:
    error = ends(targets, level, "cpu_bomb", dataclasses.replace(SMALL, cpu_s=1))
    assert reason(error) is Reason.CPU


def test_time_is_bounded_for_those_who_hear_no_signal(targets: World, level: Level) -> None:
    error = ends(targets, level, "deaf", QUICK)
    assert isinstance(error, DeadlinePassed)
    assert reason(error) is Reason.TIME


def test_time_is_bounded_for_those_who_sleep(targets: World) -> None:
    error = ends(targets, levels()[0], "endless_sleep", QUICK)
    assert isinstance(error, DeadlinePassed)


@pytest.mark.parametrize("attempt", FORBIDDEN)
def test_an_output_that_is_not_a_plain_table_is_refused(targets: World, attempt: str) -> None:
    assert reason(ends(targets, levels()[0], attempt, SMALL)) is Reason.OUTPUT


def test_links_do_not_become_outputs_where_landlock_stands(targets: World) -> None:
    if Level.NARROWED not in levels():
        pytest.skip("the level narrowed does not hold on this machine")
    said, _ = targets.attempt(Level.NARROWED, "link_as_output")
    assert said["link_as_output"]["errno"] == 13


def test_outputs_are_bounded_together(targets: World) -> None:
    limits = dataclasses.replace(SMALL, output_bytes=1 << 20)
    assert reason(ends(targets, levels()[0], "too_large_output", limits, size=(1 << 20) + 1)) is Reason.OUTPUT


def test_the_exit_code_says_nothing_but_bad(targets: World) -> None:
    error = ends(targets, levels()[0], "leave_with_seven", SMALL)
    assert reason(error) is Reason.PROGRAM
    assert "7" not in str(error)


def test_leaving_early_with_nothing_gives_nothing(targets: World) -> None:
    with targets.pool(levels()[0]) as pool, pool.take() as jail:
        outcome = jail.run(targets.program, {}, b'{"attempts": ["leave_with_nothing"]}', threading.Event())
    assert dict(outcome.tables) == {}


def test_what_it_printed_is_with_the_error_and_not_in_it(targets: World) -> None:
    error = ends(targets, levels()[0], "fail_loudly", SMALL)
    assert told_by(error) == b"row 42: canary-in-the-log\n"
    assert "canary" not in f"{error} {error.tell} {error.hint}"


def test_stopping_really_stops(targets: World, level: Level) -> None:
    stop = threading.Event()
    timer = threading.Timer(1.0, stop.set)
    timer.start()
    error = ends(targets, level, "deaf", SMALL, stop)
    timer.join()
    assert isinstance(error, Cancelled)
    assert reason(error) is Reason.STOPPED
