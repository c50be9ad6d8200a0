"""Nodes that die, vanish, stop or are too slow: the job ends on every side, by name, with nothing left behind."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest
from conftest import Data
from node_world import BANK, OPERATOR, World, bank_rows, operator_rows
from sqlalchemy import select

from sandbox.errors import WrongState
from sandbox.model import JobView, PsiEngine, State
from sandbox.store import artefacts, usage

NOTICED_S = 15.0


def kill(world: World, name: str) -> list[psutil.Process]:
    """Kill a node as a power cut would its process; returns what it had started."""
    below = world.processes(name)[1:]
    world.nodes.stop(name, signal.SIGKILL)
    return below


def is_engine(process: psutil.Process) -> bool:
    try:
        return "boot.py" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def restart(world: World, name: str) -> None:
    world.nodes.start(name)
    world.nodes.wait(name)


def quota_of(world: World, node: str, job: JobView) -> list[str]:
    return [row.state for row in world.select(node, select(usage.c.state).where(usage.c.job_id == job.job_id))]


def no_artefacts(world: World, node: str, job: JobView) -> bool:
    kept = world.select(node, select(artefacts.c.name).where(artefacts.c.job_id == job.job_id))
    files = list((world.nodes.home(node) / "artefacts").glob(f"**/*{job.job_id}*/*"))
    return kept == [] and files == []


@pytest.mark.parametrize("engine", [pytest.param(PsiEngine.ECDH_X25519, marks=pytest.mark.long), PsiEngine.RR22])
def test_a_peer_killed_mid_run_is_named_in_time_and_fails_cleanly_itself(
    mended: World, frail_slow: tuple[Data, bytes], engine: PsiEngine
) -> None:
    world, (pair, digest) = mended, frail_slow
    job = world.align(digest, pair.bank, pair.operator, engine=engine)
    if engine is PsiEngine.RR22:  # too quick to be met in mid-run: hold its engine
        held = hold_engine(world, "operator", job)
        assert held.is_running()
    else:
        world.computing(job)
    before = time.monotonic()
    below = kill(world, "operator")
    view = world.ended(job.job_id)
    assert time.monotonic() - before < NOTICED_S
    assert view.state is State.FAILED and view.failure is not None
    assert (view.failure.code, view.failure.party, view.failure.stage) == ("PartyFailed", "operator", "compute")
    assert quota_of(world, "bank", job) == ["spent"] and no_artefacts(world, "bank", job)
    world.settle("bank")
    engines = [process for process in below if is_engine(process)]  # Ray's own agents take a minute to notice
    assert psutil.wait_procs(engines, timeout=10)[1] == []  # engines die with their node

    restart(world, "operator")
    theirs = world.ended(job.job_id, world.op_owner)
    assert theirs.state is State.FAILED and theirs.failure is not None
    assert (theirs.failure.cause, theirs.failure.party) == ("the node was restarted", "operator")
    assert quota_of(world, "operator", job) == ["spent"] and no_artefacts(world, "operator", job)
    for name in ("bank", "operator"):
        home = world.home(name)
        home.fsck()
        home.store.close()


def hold_engine(world: World, name: str, job: JobView) -> psutil.Process:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        for process in world.engines(name):
            process.suspend()
            return process
        time.sleep(0.002)
    raise AssertionError(f"no engine was seen; the job is {world.officer.job(job.job_id).state}")


def test_after_a_restart_the_same_nodes_work_again(mended: World, frail_slow: tuple[Data, bytes]) -> None:
    world = mended
    kill(world, "bank")
    restart(world, "bank")
    left = world.register("bank-owner", bank_rows(), BANK)
    right = world.register("op-owner", operator_rows(), OPERATOR)
    digest = world.approved(world.draft(left, right))
    job = world.released(world.align(digest, left, right))
    assert world.officer.result(job.job_id, world.trust()).outputs == {"aligned": {"aligned": 420}}


def test_a_submitters_node_killed_mid_run_leaves_no_job_hanging(mended: World, frail_slow: tuple[Data, bytes]) -> None:
    world, (pair, digest) = mended, frail_slow
    job = world.align(digest, pair.bank, pair.operator)
    world.reached(job.job_id, "compute")
    kill(world, "bank")
    view = world.ended(job.job_id, world.op_owner, NOTICED_S)
    assert view.state is State.FAILED and view.failure is not None and view.failure.party == "bank"
    world.settle("operator")
    restart(world, "bank")
    own = world.ended(job.job_id)
    assert own.state is State.FAILED and own.failure is not None and own.failure.cause == "the node was restarted"
    again = world.align(digest, pair.bank, pair.operator)
    world.reached(again.job_id, "compute")
    world.officer.cancel(again.job_id)


def test_a_node_stopped_in_order_tells_the_others(mended: World, frail_slow: tuple[Data, bytes]) -> None:
    world, (pair, digest) = mended, frail_slow
    job = world.align(digest, pair.bank, pair.operator)
    world.reached(job.job_id, "compute")
    run = world.run("operator")
    below = world.processes("operator")[1:]
    before = time.monotonic()
    world.nodes.stop("operator")
    view = world.ended(job.job_id)
    assert time.monotonic() - before < NOTICED_S + 5
    assert view.state is State.FAILED and view.failure is not None and view.failure.party == "operator"
    assert not run.exists()
    _, alive = psutil.wait_procs(below, timeout=10)
    assert alive == []
    restart(world, "operator")
    theirs = world.ended(job.job_id, world.op_owner)
    assert theirs.state is State.FAILED and theirs.failure is not None
    assert theirs.failure.cause == "the node was stopped"


def test_a_silent_peer_is_noticed(mended: World, frail_slow: tuple[Data, bytes]) -> None:
    """Alive, connected, and saying nothing: a stopped process."""
    world, (pair, digest) = mended, frail_slow
    job = world.align(digest, pair.bank, pair.operator)
    world.reached(job.job_id, "compute")
    pid = world.nodes.processes["operator"].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        before = time.monotonic()
        view = world.ended(job.job_id)
        assert time.monotonic() - before < NOTICED_S
    finally:
        os.kill(pid, signal.SIGCONT)
    assert view.state is State.FAILED and view.failure is not None and view.failure.party == "operator"
    theirs = world.ended(job.job_id, world.op_owner)
    assert theirs.state is State.FAILED and theirs.failure is not None


def test_an_absent_peer_is_named_and_nothing_is_spent(mended: World, frail_slow: tuple[Data, bytes]) -> None:
    world, (pair, digest) = mended, frail_slow
    world.nodes.stop("operator")
    job = world.align(digest, pair.bank, pair.operator)
    view = world.ended(job.job_id, timeout_s=40)
    assert view.state is State.FAILED and view.failure is not None
    assert (view.failure.party, view.failure.stage) == ("operator", "propose")
    assert "cannot be reached" in view.failure.cause
    assert quota_of(world, "bank", job) == ["returned"]
    entries = [e.entry for e in world.bank_owner.entries(job_id=job.job_id)]
    assert [e.what for e in entries] == ["admitted", "failed"]
    facts = {fact.name: fact.value for fact in entries[-1].facts}
    assert (facts["party"], facts["stage"], facts["quota"]) == ("operator", "propose", "returned")


def test_a_missing_witness_withholds_the_receipt_and_so_the_result(mended: World) -> None:
    world = mended
    left = world.register("bank-owner", bank_rows(), BANK)
    right = world.register("op-owner", operator_rows(), OPERATOR)
    digest = world.approved(world.draft(left, right))
    world.nodes.stop("witness")
    job = world.align(digest, left, right)
    view = world.ended(job.job_id)
    assert view.state is State.FAILED and view.failure is not None
    assert (view.failure.party, view.failure.stage) == ("witness", "deliver")
    with pytest.raises(WrongState, match="failed, not released"):
        world.officer.result(job.job_id)


# --- stopped on purpose ---------------------------------------------------------------------------------------------


def test_cancelled_mid_run_on_both_sides(world: World, slow: tuple[Data, bytes]) -> None:
    pair, digest = slow
    job = world.align(digest, pair.bank, pair.operator)
    world.computing(job)
    view = world.officer.cancel(job.job_id)
    assert view.state is State.CANCELLED and view.failure is not None and view.failure.code == "Cancelled"
    theirs = world.ended(job.job_id, world.op_owner)
    assert theirs.state is State.CANCELLED
    with pytest.raises(WrongState, match="ended already"):
        world.officer.cancel(job.job_id)
    for node in ("bank", "operator"):
        assert quota_of(world, node, job) == ["spent"] and no_artefacts(world, node, job)


def test_cancelled_at_the_other_party(world: World, slow: tuple[Data, bytes]) -> None:
    pair, digest = slow
    job = world.align(digest, pair.bank, pair.operator)
    world.reached(job.job_id, "compute")
    assert world.op_owner.cancel(job.job_id).state is State.CANCELLED
    view = world.ended(job.job_id)
    assert view.state is State.CANCELLED and view.failure is not None and view.failure.party == "operator"


def test_cancelled_at_once(world: World, slow: tuple[Data, bytes]) -> None:
    """How far each party came by then is chance; who had not agreed yet has paid nothing, and the log says the same."""
    pair, digest = slow
    job = world.align(digest, pair.bank, pair.operator)
    assert world.officer.cancel(job.job_id).state is State.CANCELLED
    world.settle()
    for node, client in (("bank", world.bank_owner), ("operator", world.op_owner)):
        if node == "operator" and job.job_id not in {view.job_id for view in client.jobs(limit=500)}:
            continue  # it never heard of it
        view = world.ended(job.job_id, client)
        assert view.failure is not None and view.failure.party == "bank"
        # Where the two were not connected yet, the other one hears nothing, and says that the bank did not join.
        assert view.state is State.CANCELLED or (node == "operator" and view.state is State.FAILED)
        (ended,) = [e.entry for e in client.entries(job_id=job.job_id) if e.entry.what == view.state.name.lower()]
        told = {fact.name: fact.value for fact in ended.facts}["quota"]
        assert quota_of(world, node, job) == [told]
        assert told == "returned" or (told == "spent" and "agree" in {stage.name for stage in view.stages})


def test_a_deadline_that_is_too_short_ends_it_on_both_sides(world: World, slow: tuple[Data, bytes]) -> None:
    pair, digest = slow
    job = world.align(digest, pair.bank, pair.operator, deadline_s=2)
    for client in (world.officer, world.op_owner):
        view = world.ended(job.job_id, client)
        assert view.state is State.FAILED and view.failure is not None
        assert (view.failure.code, view.failure.stage) == ("DeadlinePassed", "compute")
    for node in ("bank", "operator"):
        assert no_artefacts(world, node, job)


def test_training_cancelled_mid_run_ends_at_all_three(world: World, data: Data, scenario: bytes) -> None:
    psi = world.released(world.align(scenario, data.bank, data.operator))
    job = world.officer.train(scenario, psi.job_id, steps=500)
    world.reached(job.job_id, "compute")
    end = time.monotonic() + 20
    while not world.engines("witness") and time.monotonic() < end:
        time.sleep(0.05)
    world.officer.cancel(job.job_id)
    for client in (world.officer, world.op_owner, world.regulator):
        assert world.ended(job.job_id, client).state is State.CANCELLED


def test_training_without_a_third_party_names_it(mended: World) -> None:
    world = mended
    left = world.register("bank-owner", bank_rows(), BANK)
    right = world.register("op-owner", operator_rows(), OPERATOR)
    digest = world.approved(world.draft(left, right))
    psi = world.released(world.align(digest, left, right))
    job = world.officer.train(digest, psi.job_id, steps=500)
    world.reached(job.job_id, "compute")
    hold_engine(world, "witness", job)
    before = time.monotonic()
    kill(world, "witness")
    for client in (world.officer, world.op_owner):
        view = world.ended(job.job_id, client)
        assert time.monotonic() - before < NOTICED_S
        assert view.state is State.FAILED and view.failure is not None and view.failure.party == "witness"
