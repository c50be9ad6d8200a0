"""Statements and models over what two owners share, in the enclave of one of them: the other's rows come sealed, and
only once its own node has let them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from node_world import BANDS, BOUNDS, CANARY, SHARED, World, _use, bank_rows, joint_rules, operator_rows, schema
from test_nodes_model import bundle
from test_nodes_query import RULE, level

from sandbox.client import Client, specs
from sandbox.errors import InvalidSpec, PolicyRefused
from sandbox.home import Home
from sandbox.model import DatasetView, Environment, JobKind, JobView, OutputClass, OutputRule, Scenario, State
from sandbox.policy.admit import REFUSALS
from sandbox.tee_sim.bundle import measure

STATEMENT = (
    "SELECT region, count(*) AS people, avg(late) AS mean_late, avg(income) AS mean_income FROM data GROUP BY region"
)
POINTS = """
name = "points"
form = "python"
entry = "model.py"
[inputs]
data = ["id", "income", "late"]
[outputs.points]
class = "row"
rows = 1000
of = "data"
key = ["id"]
columns = [{ name = "id", type = "string" }, { name = "points", type = "integer", low = 0, high = 100000 }]
"""
POINTS_CODE = """
import pyarrow as pa
import pyarrow.compute as pc

def run(tables, params):
    rows = tables["data"]
    points = pc.subtract(rows["income"], pc.multiply(rows["late"], 10))
    return {"points": pa.table({"id": rows["id"], "points": points})}
"""
INCOMES, HABITS = {"id": "string", "income": "integer"}, {"id": "string", "late": "integer", "util": "integer"}
MODEL_RULE = OutputRule(JobKind.MODEL, "scores", OutputClass.ROW_CONSENTED, 10, 1, 1000, 1 << 20)


@pytest.fixture(scope="module", autouse=True)
def jailed() -> None:
    if level() is None:
        pytest.skip("this machine confines no code; test_nodes_query sees what nodes say then")


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle(tmp_path_factory.mktemp("bundles"), "points", POINTS, POINTS_CODE)


@pytest.fixture(scope="module")
def everywhere(world: World, points: Path) -> Iterator[bytes]:
    """The officer's bundle at both owners' nodes."""
    home = Home(world.nodes.home("operator"))
    home.register_key(world.people["officer"].card, ["submitter"])
    home.store.close()
    with ExitStack() as stack:
        for node in ("bank", "operator"):
            client = stack.enter_context(Client.connect(world.folder / "officer", world.nodes.cards[node]))
            client.put_bundle(points)
        yield measure(points.read_bytes())


def drafted(world: World, data: Any, enclave: str, **changes: Any) -> Scenario:
    uses = (
        _use(data.bank, ("income", "region"), "bad", data.bank.rows),
        _use(data.operator, ("late", "util", "city"), "", data.operator.rows),
    )
    whole = dataclasses.replace(
        world.draft(data.bank, data.operator),
        datasets=uses,
        kinds=(JobKind.PSI, JobKind.QUERY),
        outputs=(*joint_rules()[:5], RULE),
        dimensions=BANDS,
        measures=BOUNDS,
        computing_parties=("witness",),
        enclave=enclave,
        accepts_simulated=True,
        isolation=str(level()),
    )
    return dataclasses.replace(whole, **changes)


@dataclasses.dataclass(frozen=True)
class Both:
    """Datasets of the bank and of the operator."""

    bank: DatasetView
    operator: DatasetView


@dataclasses.dataclass(frozen=True)
class Meeting:
    """A scenario, and an alignment under it."""

    scenario: bytes
    alignment: str


def met(world: World, data: Any, scenario: Scenario) -> Meeting:
    digest = world.approved(scenario, simulated=True)
    return Meeting(digest, world.released(world.align(digest, data.bank, data.operator)).job_id)


@pytest.fixture(scope="module")
def meeting(world: World, data: Any) -> Callable[[str], Meeting]:
    made: dict[str, Meeting] = {}

    def at(enclave: str) -> Meeting:
        if enclave not in made:
            made[enclave] = met(world, data, drafted(world, data, enclave))
        return made[enclave]

    return at


def shared_rows() -> pd.DataFrame:
    both = bank_rows().to_pandas().merge(operator_rows().to_pandas(), on="id")
    assert len(both) == SHARED
    return both


def facts(world: World, client: Client, job: JobView) -> dict[str, dict[str, str]]:
    world.ended(job.job_id, client)  # it ends at one node a moment after the other
    entries = [logged.entry for logged in client.entries(job_id=job.job_id)]
    assert CANARY not in repr(entries)
    return {entry.what: {fact.name: fact.value for fact in entry.facts} for entry in entries}


@pytest.mark.parametrize(("enclave", "giver"), [("operator", "bank"), ("bank", "operator")])
def test_a_statement_over_both_is_answered_as_over_the_joined_rows(
    world: World, meeting: Any, enclave: str, giver: str
) -> None:
    here = meeting(enclave)
    job = world.released(world.officer.query(here.scenario, here.alignment, STATEMENT))
    found = world.officer.result(job.job_id, world.trust()).outputs["table"].set_index("region")
    rows = shared_rows()
    for region in ("region-1", "region-2"):
        own = rows[rows["region"] == region]
        assert found.loc[region, "people"] == 10 * ((len(own) + 5) // 10)
        assert found.loc[region, "mean_late"] == pytest.approx(own["late"].mean(), abs=0.00501)
        assert found.loc[region, "mean_income"] == pytest.approx(own["income"].mean(), abs=0.51)
    assert (job.parties, job.isolation) == (("bank", "operator"), f"{level()} SIMULATED")
    clients = {"bank": world.bank_owner, "operator": world.op_owner}
    there, gave = facts(world, clients[enclave], job), facts(world, clients[giver], job)
    released = gave["key-released"]
    assert (released["vendor"], released["enclave"], released["level"]) == ("SIMULATED", enclave, str(level()))
    assert there["enclave-wiped"]["scratch"] == "wiped" and "enclave-wiped" not in gave
    assert "key-released" not in there  # its own rows need no leave of anybody
    assert CANARY not in world.log("bank") + world.log("operator")


def test_the_plan_says_before_who_would_see_what(world: World, meeting: Any) -> None:
    here = meeting("operator")
    plan = world.officer.plan(specs.query(here.scenario, here.alignment, STATEMENT))
    assert plan.expected_bytes > 0
    told = {(one.party, "SIMULATED" in one.what) for one in plan.reveals}
    assert ("operator", True) in told and ("bank", True) not in told
    assert any(one.party == "bank" and "how many of the shared rows each group has" in one.what for one in plan.reveals)


def test_small_groups_of_the_shared_rows_are_withheld_at_both(world: World, data: Any) -> None:
    strict = (*joint_rules()[:5], dataclasses.replace(RULE, min_group=60))
    here = met(world, data, drafted(world, data, "operator", outputs=strict))
    fine = "SELECT util_band, avg(late) AS late, avg(income) AS income FROM data GROUP BY util_band"
    world.released(world.officer.query(here.scenario, here.alignment, fine))
    small = fine.replace("util_band", "region, util_band")
    job = world.ended(world.officer.query(here.scenario, here.alignment, small).job_id)
    assert (job.state, job.failure and job.failure.code) == (State.REFUSED, "OutputWithheld")
    for client in (world.bank_owner, world.op_owner):
        assert facts(world, client, job)["refused"]["code"] == "OutputWithheld"


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT region, count(*) AS people FROM data GROUP BY region", "this reads those of one"),
        ("SELECT note FROM data", "line 1, column 8"),
    ],
)
def test_what_is_not_allowed_is_refused_before_any_work(world: World, meeting: Any, sql: str, told: str) -> None:
    here = meeting("operator")
    before = world.officer.jobs()
    with pytest.raises(InvalidSpec, match=told):
        world.officer.query(here.scenario, here.alignment, sql)
    assert world.officer.jobs() == before


def test_without_the_other_owner_s_leave_no_row_travels(world: World, data: Any) -> None:
    digest = world.approved(drafted(world, data, "operator"))  # nobody accepted a simulated enclave
    alignment = world.released(world.align(digest, data.bank, data.operator)).job_id
    with pytest.raises(PolicyRefused) as refusal:
        world.officer.query(digest, alignment, STATEMENT)
    assert refusal.value.tell == REFUSALS["simulated"]


def test_an_enclave_of_another_runtime_gets_no_key(world: World, data: Any) -> None:
    here = met(world, data, drafted(world, data, "operator", runtimes=(bytes(32),)))
    job = world.ended(world.officer.query(here.scenario, here.alignment, STATEMENT).job_id)
    assert job.state is State.REFUSED and job.failure is not None
    assert "quote is not what the data owners approved" in job.failure.cause
    gave = facts(world, world.bank_owner, job)
    assert gave["key-refused"]["enclave"] == "operator" and "key-released" not in gave


@pytest.mark.parametrize("enclave", ["operator", "bank"])
def test_a_model_scores_people_by_what_both_know_of_them(
    world: World, data: Any, everywhere: bytes, enclave: str
) -> None:
    changes = {"kinds": (JobKind.PSI, JobKind.MODEL), "outputs": (*joint_rules()[:5], MODEL_RULE)}
    draft = drafted(world, data, enclave, **changes, bundles=(everywhere,), dimensions=(), measures=())
    here = met(world, data, draft)
    job = world.released(world.officer.run_model(here.scenario, here.alignment, everywhere))
    found = world.officer.result(job.job_id, world.trust()).outputs["scores"].set_index("id")["points"]
    rows = shared_rows().set_index("id")
    expected = rows["income"] - 10 * rows["late"]
    assert len(found) == SHARED and (found.sort_index() == expected.sort_index()).all()
    giver = {"operator": world.bank_owner, "bank": world.op_owner}[enclave]
    assert facts(world, giver, job)["key-released"]["bundle"] == everywhere.hex()


def test_over_twins_it_runs_the_same_way(world: World) -> None:
    # Without the columns in which a mark is common: a twin has the categories that many people share.
    bank = world.register("bank-owner", bank_rows().select(["id", "income"]), schema(INCOMES))
    operator = world.register("op-owner", operator_rows().select(["id", "late", "util"]), schema(HABITS))
    for client, view in ((world.bank_owner, bank), (world.op_owner, operator)):
        client.make_twin(view.code, view.version, 10_000)
    uses = (_use(bank, ("income",), "", bank.rows), _use(operator, ("late", "util"), "", operator.rows))
    own = {"datasets": uses, "dimensions": BANDS[:1], "measures": BOUNDS[1:]}
    here = world.approved(drafted(world, Both(bank, operator), "operator", **own), simulated=True)
    alignment = world.released(world.align(here, bank, operator, test=True)).job_id
    by_band = "SELECT util_band, avg(late) AS late, avg(income) AS income FROM data GROUP BY util_band"
    job = world.released(world.officer.query(here, alignment, by_band, test=True))
    assert job.environment is Environment.TEST
    found = world.officer.result(job.job_id, world.trust()).outputs["table"]
    assert len(found) == 3 and CANARY not in repr(found)
