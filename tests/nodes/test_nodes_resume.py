"""A job in parts outlives its nodes: killed or stopped in the middle, started again, taken up where it was left."""

from __future__ import annotations

import re
import signal
import time
from typing import Any

import psutil
import pytest
from conftest import Data
from node_world import World
from sqlalchemy import select

from sandbox.model import JobView, PsiEngine, State
from sandbox.store import artefacts, usage

NODES = ("bank", "operator")
PARTS, ENOUGH = 12, 3
SHARED = {"aligned": {"aligned": 59_000}}


def kept(world: World, node: str, job: JobView) -> set[str]:
    """The names of what a node has kept of a job."""
    return {row.name for row in world.select(node, select(artefacts.c.name).where(artefacts.c.job_id == job.job_id))}


def finished(world: World, job: JobView) -> set[int]:
    """The parts that both nodes have kept."""
    both = set.intersection(*(kept(world, node, job) for node in NODES))
    return {int(name.removeprefix("part-")) for name in both if name.startswith("part-")}


def begun(world: World, pair: Data, digest: bytes) -> tuple[JobView, set[int]]:
    """A job of many parts, some of them done."""
    job = world.align(digest, pair.bank, pair.operator, engine=PsiEngine.ECDH_SM2, bucket_rows=60_000 // PARTS)
    end = time.monotonic() + 60
    while len(done := finished(world, job)) < ENOUGH:
        view = world.officer.job(job.job_id)
        assert view.state in (State.ADMITTED, State.RUNNING), f"{view.failure}\n{world.logs()}"
        assert time.monotonic() < end, world.logs()
        time.sleep(0.02)
    assert len(done) < PARTS, "too quick to be met in the middle"
    return job, done


def computed(log: str, job: JobView) -> set[int]:
    """The parts that a log says a worker computed."""
    return {int(found) - 1 for found in re.findall(rf"job {job.job_id}: \d+ of \d+, part (\d+) of {PARTS}\n", log)}


@pytest.mark.parametrize(
    ("node", "number"),
    [("operator", signal.SIGKILL), pytest.param("bank", signal.SIGTERM, marks=pytest.mark.long)],
)
def test_a_job_in_parts_goes_on_after_a_restart(
    mended: World, frail_slow: tuple[Data, bytes], node: str, number: int
) -> None:
    world, (pair, digest) = mended, frail_slow
    before = {name: len(world.log(name)) for name in NODES}
    job, done = begun(world, pair, digest)
    logged = {name: len(world.log(name)) for name in NODES}
    for name in NODES:
        assert computed(world.log(name)[before[name] :], job) >= done  # the log does tell
    world.nodes.stop(node, number)
    assert kept(world, node, job) >= {f"part-{part}" for part in done} | {"setting"}
    world.nodes.start(node)
    world.nodes.wait(node)

    view = world.ended(job.job_id, timeout_s=150)
    assert view.state is State.RELEASED, f"{view.failure}\n{world.logs()}"
    assert world.officer.result(job.job_id, world.trust()).outputs == SHARED
    assert view.failure is None and view.fee is not None
    there = re.compile(rf"job {job.job_id}: (\d+) of {PARTS} parts are there already")
    for name in NODES:
        log = world.log(name)[logged[name] :]
        (number_there,) = there.findall(log)
        assert int(number_there) >= len(done)
        assert not computed(log, job) & done, "a finished part was computed again"
        rows = world.select(
            name, select(usage.c.state, usage.c.rows, usage.c.calls).where(usage.c.job_id == job.job_id)
        )
        again = 60_000 // PARTS  # one part at a time: it may have been on its way
        assert [tuple(row) for row in rows] == [("spent", 60_000 + again, 1)]
    whats: dict[str, list[str]] = {
        name: [entry.entry.what for entry in client.entries(job_id=job.job_id)]
        for name, client in (("bank", world.bank_owner), ("operator", world.op_owner))
    }
    assert whats == {
        "bank": ["admitted", "resumed", "released", "delivered"],
        "operator": ["admitted", "resumed", "released"],
    }
    world.ended(job.job_id, world.op_owner)
    world.settle(*NODES)
    for name in NODES:
        assert kept(world, name, job) == {"alignment"}
        home = world.home(name)
        home.fsck()
        home.store.close()


def test_the_job_says_that_it_waits(mended: World, frail_slow: tuple[Data, bytes]) -> None:
    """Meanwhile it is no failure: it can be cancelled as any job that runs."""
    world, (pair, digest) = mended, frail_slow
    job, _ = begun(world, pair, digest)
    world.nodes.stop("operator")
    world.reached(job.job_id, "resume", timeout_s=20)
    assert world.officer.job(job.job_id).state is State.RUNNING
    view = world.officer.cancel(job.job_id)
    assert view.state is State.CANCELLED and kept(world, "bank", job) == set()
    rows = world.select("bank", select(usage.c.state).where(usage.c.job_id == job.job_id))
    assert [row.state for row in rows] == ["spent"]


@pytest.mark.long
def test_a_part_whose_engine_dies_is_run_again_alone(mended: World, frail_slow: tuple[Data, bytes]) -> None:
    world, (pair, digest) = mended, frail_slow
    before = len(world.log("operator"))
    world.released(world.align(digest, pair.bank, pair.operator, engine=PsiEngine.ECDH_SM2))  # workers are warm
    job = world.align(digest, pair.bank, pair.operator, engine=PsiEngine.RR22, bucket_rows=20_000)
    engine_of(world, "operator").kill()
    world.released(job)
    assert world.officer.result(job.job_id, world.trust()).outputs == SHARED
    failed = re.findall(rf"job {job.job_id}: part (\d+) failed, attempt (\d)", world.log("operator")[before:])
    assert failed and {part for part, _ in failed} == {failed[0][0]}
    (row,) = world.select("operator", select(usage.c.state, usage.c.calls).where(usage.c.job_id == job.job_id))
    assert tuple(row) == ("spent", 1)


def engine_of(world: World, name: str) -> psutil.Process:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        for process in world.engines(name):
            return process
        time.sleep(0.002)
    raise AssertionError(f"no engine was seen\n{world.logs()}")


@pytest.mark.long
def test_in_parts_a_job_cancelled_at_one_party_is_cancelled_at_both(
    mended: World, frail_slow: tuple[Data, bytes]
) -> None:
    world, (pair, digest) = mended, frail_slow
    job, _ = begun(world, pair, digest)
    assert world.op_owner.cancel(job.job_id).state is State.CANCELLED
    told: Any = world.ended(job.job_id)
    assert (told.state, told.failure.code, told.failure.party) == (State.CANCELLED, "Cancelled", "operator")
    assert all(kept(world, name, job) == set() for name in NODES)
