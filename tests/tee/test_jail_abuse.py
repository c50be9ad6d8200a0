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


def test_a_thread_bomb_stays_within_its_number(targets: World, level: Level) -> None:
    said, _ = targets.attempt(level, "thread_bomb")
    assert said["thread_bomb"]["value"] <= SMALL.processes + 4


@pytest.mark.parametrize("attempt", ["memory_bomb", "shared_memory_bomb", "memory_of_many"])
def test_memory_is_bounded_for_all_processes_together(targets: World, level: Level, attempt: str) -> None:
    limits = dataclasses.replace(SMALL, memory_mib=256)
    error = ends(targets, level, attempt, limits, each_mib=80)
    # Without a control group one process alone may meet its own limit before anybody looks.
    own = level is not Level.CONFINED and attempt == "memory_bomb"
    assert reason(error) in ((Reason.MEMORY, Reason.PROGRAM) if own else (Reason.MEMORY,))
    assert isinstance(error, JobFailed)


def test_disk_is_bounded(targets: World, level: Level) -> None:
    if level is Level.NARROWED:
        assert reason(ends(targets, level, "disk_bomb", SMALL)) is Reason.DISK
        return
    said, _ = targets.attempt(level, "disk_bomb")
    assert said["disk_bomb"]["value"] <= SMALL.disk_mib << 20


def test_one_large_file_is_bounded(targets: World, level: Level) -> None:
    limits = dataclasses.replace(SMALL, disk_mib=8)
    try:
        said, _ = targets.attempt(level, "big_file", limits=limits)
    except JobFailed as error:
        assert reason(error) is Reason.DISK  # the signal of the file size limit
    else:
        assert said["big_file"]["errno"] in (27, 28)  # EFBIG, ENOSPC


def test_the_number_of_files_is_bounded(targets: World, level: Level) -> None:
    if level is Level.NARROWED:
        assert reason(ends(targets, level, "inode_bomb", SMALL)) is Reason.DISK
        return
    said, _ = targets.attempt(level, "inode_bomb")
    assert 0 < said["inode_bomb"]["value"] <= SMALL.files


def test_processor_time_is_bounded_for_all_processes_together(targets: World, level: Level) -> None:
    error = ends(targets, level, "cpu_bomb", dataclasses.replace(SMALL, cpu_s=1))
    assert reason(error) is Reason.CPU


@pytest.mark.parametrize("attempt", ["endless_sleep", "deaf"])
def test_time_is_bounded(targets: World, level: Level, attempt: str) -> None:
    began = time.monotonic()
    error = ends(targets, level, attempt, QUICK)
    assert isinstance(error, DeadlinePassed)
    assert reason(error) is Reason.TIME
    assert time.monotonic() - began < 20


def test_a_log_without_end_is_cut_in_the_middle(targets: World, level: Level) -> None:
    said, outcome = targets.attempt(level, "log_flood")
    assert said["log_flood"] == {"value": "printed"}
    assert len(outcome.log) <= SMALL.log_bytes
    assert outcome.log.endswith(b"last line\n")
    assert b"[...]" in outcome.log


def test_what_is_left_running_ends_with_the_run(targets: World, level: Level) -> None:
    said, _ = targets.attempt(level, "daemon")
    assert said["daemon"] == {"value": "left one behind"}  # and `nothing_is_left`


@pytest.mark.parametrize("attempt", FORBIDDEN)
def test_an_output_that_is_not_a_plain_table_is_refused(targets: World, level: Level, attempt: str) -> None:
    if level is Level.NARROWED and attempt in ("link_as_output", "hard_link_as_output"):
        try:
            said, _ = targets.attempt(level, attempt)  # Landlock refuses to make the first, the second may be made
            assert said[attempt]["errno"] == 13
        except JobFailed as error:
            assert reason(error) is Reason.OUTPUT
        return
    assert reason(ends(targets, level, attempt, SMALL)) is Reason.OUTPUT


def test_a_pipe_cannot_be_made(targets: World, level: Level) -> None:
    said, _ = targets.attempt(level, "pipe_as_output")
    assert said["pipe_as_output"]["errno"] == 1


def test_outputs_are_bounded_together(targets: World, level: Level) -> None:
    limits = dataclasses.replace(SMALL, output_bytes=1 << 20)
    assert reason(ends(targets, level, "too_large_output", limits, size=(1 << 20) + 1)) is Reason.OUTPUT


def test_the_exit_code_says_nothing_but_bad(targets: World, level: Level) -> None:
    error = ends(targets, level, "leave_with_seven", SMALL)
    assert reason(error) is Reason.PROGRAM
    assert "7" not in str(error)


def test_leaving_early_with_nothing_gives_nothing(targets: World, level: Level) -> None:
    with targets.pool(level) as pool, pool.take() as jail:
        outcome = jail.run(targets.program, {}, b'{"attempts": ["leave_with_nothing"]}', threading.Event())
    assert dict(outcome.tables) == {}


def test_what_it_printed_is_with_the_error_and_not_in_it(targets: World, level: Level) -> None:
    error = ends(targets, level, "fail_loudly", SMALL)
    assert told_by(error) == b"row 42: canary-in-the-log\n"
    assert "canary" not in f"{error} {error.tell} {error.hint}"


def test_stopping_really_stops(targets: World, level: Level) -> None:
    stop = threading.Event()
    timer = threading.Timer(1.0, stop.set)
    timer.start()
    began = time.monotonic()
    error = ends(targets, level, "deaf", SMALL, stop)
    timer.join()
    assert isinstance(error, Cancelled)
    assert time.monotonic() - began < 15
