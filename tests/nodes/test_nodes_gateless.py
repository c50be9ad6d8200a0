"""A node that skips its gate gets nothing by it: the other owner's last share waits for that owner's own leave."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Data
from node_world import PEOPLE_SCHEMA, World, joint_rules, people_table

from sandbox.errors import OutputWithheld
from sandbox.model import JobView, PsiEngine, PsiOutput, State

GATELESS = Path(__file__).parent / "gateless_node.py"
WAITED_S = 4.0


@pytest.fixture
def gateless(mended: World) -> Iterator[World]:
    """The nodes, of which the bank's has no gate."""
    mended.nodes.stop("bank")
    with (mended.folder / "bank.log").open("ab") as log:
        command = [sys.executable, str(GATELESS), "--home", str(mended.nodes.home("bank")), "serve"]
        mended.nodes.processes["bank"] = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=dict(os.environ)
        )
    mended.nodes.wait("bank")
    yield mended
    mended.nodes.stop("bank")  # the next test finds one with a gate


def ask(world: World, shared: int, **rule: Any) -> tuple[JobView, bytes]:
    """Have the bank's side ask for the operator's columns of the shared people."""
    left = world.register("bank-owner", people_table(50), PEOPLE_SCHEMA)
    right = world.register("op-owner", people_table(50, 50 - shared), PEOPLE_SCHEMA)
    pair = Data(left, right)
    digest = world.approved(
        world.joint({left: (), right: ("v",)}, outputs=joint_rules(joined={"min_group": 10, **rule}))
    )
    engine = PsiEngine.ECDH_SM2
    return world.align(digest, pair.bank, pair.operator, engine=engine, output=PsiOutput.JOINED, columns=("v",)), digest


def got_share(world: World) -> bool:
    return (world.nodes.home("bank") / "got-share").exists()


def entered(world: World, job: JobView) -> set[str]:
    return {logged.entry.what for logged in world.op_owner.entries(job_id=job.job_id)}


@pytest.mark.long
def test_the_other_owners_gate_keeps_its_share(gateless: World) -> None:
    fine, _ = ask(gateless, 30)
    gateless.released(fine)
    assert got_share(gateless)  # it would see one
    (gateless.nodes.home("bank") / "got-share").unlink()

    job, _ = ask(gateless, 9)
    assert gateless.ended(job.job_id).state in (State.REFUSED, State.FAILED)
    view = gateless.ended(job.job_id, gateless.op_owner)
    assert view.state is State.REFUSED and view.failure is not None and view.failure.cause == OutputWithheld.public
    assert not got_share(gateless) and "released" not in entered(gateless, job)


@pytest.mark.long
def test_the_other_owners_reviewers_are_not_passed_by(gateless: World) -> None:
    (gateless.nodes.home("bank") / "got-share").unlink(missing_ok=True)
    job, digest = ask(gateless, 30, reviewed=True)
    end = time.monotonic() + WAITED_S
    while time.monotonic() < end:
        assert not got_share(gateless)
        time.sleep(0.1)
    assert gateless.op_owner.job(job.job_id).state is not State.RELEASED
    gateless.op_owner.revoke_scenario(digest, "its node goes on alone")
    for client in (gateless.officer, gateless.op_owner):
        assert gateless.ended(job.job_id, client).state in (State.CANCELLED, State.FAILED)
    assert not got_share(gateless) and "released" not in entered(gateless, job)
