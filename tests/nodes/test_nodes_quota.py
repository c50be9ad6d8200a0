"""Learning costs: wherever a node breaks off, what the others sent stays spent, and what nobody sent comes back.

The bank's node is one that breaks off where it is told to, and takes down what it got from the others until then.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Data
from node_world import (
    BANK,
    COLUMNS,
    DEPARTMENT,
    DIMENSIONS,
    OPERATOR,
    PEOPLE_SCHEMA,
    PURPOSE,
    RANGES,
    SHARED_ID,
    SIZES,
    World,
    bank_rows,
    department_rows,
    joint_rules,
    operator_rows,
    people_table,
    ref,
)
from sqlalchemy import select
from test_nodes_query import approved as approved_by_two
from test_nodes_query import drafted, level

from sandbox.errors import OutputWithheld
from sandbox.model import (
    JobKind,
    JobView,
    Measure,
    OutputClass,
    OutputRule,
    PsiEngine,
    PsiOutput,
    Quota,
    State,
    Statistic,
)
from sandbox.policy.quota import ALL_DAYS
from sandbox.store import consents, privacy_uses, results, unknown_people, usage

BREAKING = """
import os, signal, sys
from pathlib import Path

from sandbox import host, pipeline
from sandbox.cli import main
from sandbox.errors import JobFailed
from sandbox.exchange import Wires

HOME = Path(sys.argv[sys.argv.index("--home") + 1])
_enter_stage, _grants, _take_share = pipeline.Pipeline._enter_stage, Wires.grants, Wires._take_share
_receive = host.WorkerHost.receive


def at(place):
    told = HOME / "break-in"
    wish = told.read_text() if told.exists() else ""
    if wish in (place, "die " + place):
        told.unlink()
        if wish != place:
            os.kill(os.getpid(), signal.SIGKILL)
        raise JobFailed("it was told to")


def enter_stage(self, live, name):
    _enter_stage(self, live, name)
    at(name)


async def grants(self, mine, which):
    at("grants-" + which)
    await _grants(self, mine, which)


async def take_share(self, sender):
    share = await _take_share(self, sender)
    (HOME / "got-share").touch()
    return share


async def receive(self):
    message = await _receive(self)
    (HOME / "got-bytes").touch()
    return message


pipeline.Pipeline._enter_stage, Wires.grants, Wires._take_share = enter_stage, grants, take_share
host.WorkerHost.receive = receive
main()
"""
MARKS = ("break-in", "got-bytes", "got-share")
BEFORE = ("propose", "agree", "gate-before", "grants-before", "compute")  # nothing was sent, to anybody
AFTER = ("gate", "grants-after", "reveal", "deliver")
UNJUDGED = ("gate", "grants-after")  # the bank's leave is missing: no share may leave
NOBODY_ELSE = frozenset({"gate-before", "grants-before"})  # stages of intersections alone
MEAN = Measure("income", Statistic.MEAN, "income")
BUDGET = 10_000


@dataclasses.dataclass(frozen=True)
class Broken:
    """Three nodes, of which the bank's breaks off on demand; and jobs of four kinds."""

    world: World
    ask: dict[str, Callable[[], JobView]]

    def mark(self, name: str) -> Path:
        return self.world.nodes.home("bank") / name

    def tell(self, wish: str) -> None:
        """Have the next job break off there."""
        for name in MARKS:
            self.mark(name).unlink(missing_ok=True)
        if wish:
            self.mark("break-in").write_text(wish)

    def line(self, node: str, job: JobView) -> str:
        """Where the job's quota stands at an owner; empty if it never heard of it."""
        found = self.world.select(node, select(usage.c.state).where(usage.c.job_id == job.job_id))
        return "".join(row.state for row in found)

    def entered(self, job: JobView) -> set[str]:
        return {logged.entry.what for logged in self.world.op_owner.entries(job_id=job.job_id)}


def start(world: World, command: list[str]) -> None:
    world.nodes.stop("bank")
    with (world.folder / "bank.log").open("ab") as log:
        world.nodes.processes["bank"] = subprocess.Popen(
            [sys.executable, *command, "--home", str(world.nodes.home("bank")), "serve"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=dict(os.environ),
        )
    world.nodes.wait("bank")


@pytest.fixture(scope="module")
def broken(frail: World) -> Iterator[Broken]:
    world = frail
    data = Data(
        world.register("bank-owner", bank_rows(), BANK, "loans"),
        world.register("op-owner", operator_rows(), OPERATOR, "records"),
    )
    credit = world.approved(world.draft(data.bank, data.operator))
    psi = world.released(world.align(credit, data.bank, data.operator))
    model = world.released(world.officer.train(credit, psi.job_id, steps=5)).job_id
    left = world.register("bank-owner", people_table(60), PEOPLE_SCHEMA)
    right = world.register("op-owner", people_table(50, 20), PEOPLE_SCHEMA)
    quota = Quota(100, 100, 1_000_000, people_total=10_000)
    rules = joint_rules(members={"min_group": 10}, joined={"min_group": 45})
    pairs = world.approved(world.joint({left: (), right: ("v",)}, outputs=rules, quota=quota))
    held = world.approved(world.joint({left: (), right: ("v",)}, outputs=joint_rules(joined={"reviewed": True})))
    owners = {"bank": "bank-owner", "operator": "op-owner", "witness": "fund-owner"}
    views = [world.register(owners[name], department_rows(*SIZES[name]), DEPARTMENT) for name in SIZES]
    noisy = OutputRule(JobKind.AGGREGATE, "noisy_totals", OutputClass.NOISY, 10, 10, 100, 40_960)
    draft = world.joint(dict.fromkeys(views, COLUMNS), dimensions=DIMENSIONS, measures=RANGES)
    draft = dataclasses.replace(draft, kinds=(JobKind.AGGREGATE,), outputs=(noisy,), epsilon_milli=BUDGET)
    totals = world.approved(draft)
    asked = drafted(world, views[0], COLUMNS, dimensions=DIMENSIONS, measures=RANGES)
    statements = approved_by_two(world, asked)
    cards = [world.nodes.cards[name] for name in ("bank", "operator")]

    def intersect(output: PsiOutput, digest: bytes = pairs) -> JobView:
        columns = ("v",) if output is PsiOutput.JOINED else ()
        return world.align(digest, left, right, engine=PsiEngine.ECDH_SM2, output=output, columns=columns)

    def score() -> JobView:
        token = world.clients["desk"].issue_consent(SHARED_ID, credit, PURPOSE, 600)
        return world.officer.score_applicant(credit, model, SHARED_ID, token, cards)

    def add_up() -> JobView:
        refs = [ref(view) for view in views]
        return world.officer.aggregate(totals, refs, groups=["district"], measures=[MEAN], epsilon_milli=100)

    def state() -> JobView:
        return world.officer.query(
            statements, ref(views[0]), "SELECT district, count(*) AS n FROM data GROUP BY district"
        )

    ask = {
        "psi": lambda: intersect(PsiOutput.MEMBERS),
        "joined": lambda: intersect(PsiOutput.JOINED),
        "held": lambda: intersect(PsiOutput.JOINED, held),
        "score": score,
        "aggregate": add_up,
        "query": state,
    }
    start(world, ["-c", BREAKING])
    yield Broken(world, ask)
    start(world, ["-m", "sandbox"])  # the tests after these find one that does not break off


def owners_of(kind: str) -> tuple[str, ...]:
    return {"aggregate": ("bank", "operator", "witness"), "query": ("bank",)}.get(kind, ("bank", "operator"))


CASES = [
    (kind, stage)
    for kind in ("psi", "score", "aggregate", "query")
    for stage in (*BEFORE, *AFTER)
    if (kind == "psi" or stage not in NOBODY_ELSE) and (kind != "query" or stage not in ("grants-after",))
]


@pytest.mark.parametrize(("kind", "stage"), CASES)
def test_who_breaks_off_has_paid_for_what_it_got(broken: Broken, kind: str, stage: str) -> None:
    if kind == "query" and level() is None:
        pytest.skip("nothing is confined here")
    world, operator = broken.world, broken.world.op_owner
    broken.tell(stage)
    job = broken.ask[kind]()
    view = world.ended(job.job_id)
    assert view.state is State.FAILED and not broken.mark("break-in").exists(), "it did not break off there"
    wanted = "returned" if stage in BEFORE else "spent"
    for node in owners_of(kind):
        if node != "bank" and stage == "propose":
            assert broken.line(node, job) == ""  # it never heard of it
            continue
        if node == "operator":
            world.ended(job.job_id, operator)
        _settled(broken, node, job)
        assert broken.line(node, job) == wanted, f"{node}: {world.logs()}"
        if kind == "aggregate":
            found = world.select(node, select(privacy_uses.c.state).where(privacy_uses.c.job_id == job.job_id))
            assert [row.state for row in found] == [wanted]
        if kind == "score" and node == "operator":
            found = world.select(node, select(consents.c.state).where(consents.c.job_id == job.job_id))
            assert [row.state for row in found] == ([] if stage in BEFORE else ["spent"])
        if kind == "psi":
            mine = (unknown_people.c.job_id == job.job_id) & (unknown_people.c.day == ALL_DAYS)
            expected = sum(row.people for row in world.select(node, select(unknown_people.c.people).where(mine)))
            assert (expected > 0) is (stage == "gate" or (stage in AFTER and node == "operator"))
    assert not (broken.mark("got-bytes").exists() and stage in BEFORE)
    if stage in UNJUDGED and kind != "query":  # which has no other owner
        assert not broken.mark("got-share").exists() and "released" not in broken.entered(job)
    if kind == "psi" and stage in AFTER:
        assert broken.mark("got-bytes").exists()  # it did learn something, and that is what stays spent
    if stage != "deliver":
        assert world.select("bank", select(results.c.job_id).where(results.c.job_id == job.job_id)) == []


def _settled(broken: Broken, node: str, job: JobView, timeout_s: float = 20.0) -> None:
    """Wait until a node without a client here has ended a job as well."""
    end = time.monotonic() + timeout_s
    while broken.line(node, job) == "reserved":
        assert time.monotonic() < end, f"{node} still has it\n{broken.world.logs()}"
        time.sleep(0.1)


def test_without_a_wish_they_all_end_well(broken: Broken) -> None:
    """Or the cases above would pass for another reason."""
    for kind in ("psi", "score", "aggregate"):
        broken.tell("")
        job = broken.world.released(broken.ask[kind]())
        assert [broken.line(node, job) for node in owners_of(kind)] == ["spent"] * len(owners_of(kind))


def test_who_is_killed_after_it_heard_everything_but_the_leave_has_paid(broken: Broken) -> None:
    world = broken.world
    broken.tell("die grants-after")
    job = broken.ask["psi"]()
    view = world.ended(job.job_id, world.op_owner)
    assert view.state is State.FAILED and view.failure is not None and view.failure.party == "bank"
    assert broken.line("operator", job) == "spent" and "released" not in broken.entered(job)
    start(world, ["-c", BREAKING])
    assert world.ended(job.job_id).state is State.FAILED
    assert broken.line("bank", job) == "spent" and not broken.mark("got-share").exists()
    assert broken.mark("got-bytes").exists()


def test_a_refusal_of_the_gate_is_paid_for(broken: Broken) -> None:
    broken.tell("")
    job = broken.ask["joined"]()  # 40 people are shared, 45 are the least
    for client in (broken.world.officer, broken.world.op_owner):
        view = broken.world.ended(job.job_id, client)
        assert view.state is State.REFUSED and view.failure is not None
        assert view.failure.cause == OutputWithheld.public
    assert [broken.line(node, job) for node in ("bank", "operator")] == ["spent", "spent"]
    assert not broken.mark("got-share").exists()


def test_a_held_job_that_is_cancelled_is_paid_for(broken: Broken) -> None:
    broken.tell("")
    job = broken.ask["held"]()
    broken.world.held(job.job_id)
    assert broken.world.officer.cancel(job.job_id).state is State.CANCELLED
    assert broken.world.ended(job.job_id, broken.world.op_owner).state is State.CANCELLED
    assert [broken.line(node, job) for node in ("bank", "operator")] == ["spent", "spent"]
    assert not broken.mark("got-share").exists()


def test_more_different_people_than_the_scenario_allows_are_withheld_at_both(broken: Broken) -> None:
    """40 people are shared of 60 and 50; a second intersection might tell of 50 others."""
    world = broken.world
    left = world.register("bank-owner", people_table(60), PEOPLE_SCHEMA)
    right = world.register("op-owner", people_table(50, 20), PEOPLE_SCHEMA)
    quota = Quota(100, 100, 1_000_000, people_total=60)
    digest = world.approved(world.joint({left: (), right: ()}, quota=quota))
    broken.tell("")
    world.released(world.align(digest, left, right, engine=PsiEngine.ECDH_SM2, output=PsiOutput.ALIGNED))
    broken.tell("")
    job = world.align(digest, left, right, engine=PsiEngine.ECDH_SM2, output=PsiOutput.ALIGNED)
    for client in (world.officer, world.op_owner):
        view = world.ended(job.job_id, client)
        assert view.state is State.REFUSED and view.failure is not None
        assert view.failure.cause == OutputWithheld.public and view.failure.party == ""
    assert [broken.line(node, job) for node in ("bank", "operator")] == ["returned", "returned"]
    assert not broken.mark("got-bytes").exists()
