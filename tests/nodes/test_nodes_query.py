"""One statement over one owner's rows on real nodes: answered in the jail, judged, remembered, co-signed by another."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from node_world import (
    CANARY,
    COLUMNS,
    DEPARTMENT,
    DIMENSIONS,
    DISTRICTS,
    PEOPLE_SCHEMA,
    RANGES,
    World,
    department_rows,
    people_table,
    ref,
    schema,
)

from sandbox.client import specs
from sandbox.errors import InvalidSpec, OutputWithheld, Unavailable
from sandbox.kinds import confined
from sandbox.model import (
    DatasetView,
    Dimension,
    JobKind,
    JobView,
    MeasureRange,
    OutputClass,
    OutputRule,
    Scenario,
    State,
)
from sandbox.tee_sim import leases, probes
from sandbox.tee_sim.levels import Level

PEOPLE = 3000
RULE = OutputRule(JobKind.QUERY, "table", OutputClass.AGGREGATE, 10, 10, 1000, 65_536)
STATEMENT = """
SELECT district, age_band, count(*) AS people, avg(income) AS mean_income, quantile_cont(age, 0.25)
FROM data
GROUP BY district, age_band
"""


@dataclasses.dataclass(frozen=True)
class Asking:
    """A dataset of the bank's, and a scenario for statements over it."""

    view: DatasetView
    scenario: bytes
    rows: pd.DataFrame


def level() -> Level | None:
    """How strongly this machine confines code; None if not at all."""
    try:
        return probes.strongest()
    except Unavailable:
        return None


def drafted(world: World, view: DatasetView, fields: tuple[str, ...], **changes: Any) -> Scenario:
    """A scenario over one dataset of the bank's, accepting whatever level this machine has."""
    scenario = world.draft(view, view)
    use = dataclasses.replace(scenario.datasets[0], fields=fields, label="", rows=view.rows)
    weakest = level()
    whole = dataclasses.replace(
        scenario,
        datasets=(use,),
        kinds=(JobKind.QUERY,),
        outputs=(RULE,),
        computing_parties=(),
        isolation="" if weakest is None else weakest.value,
    )
    return dataclasses.replace(whole, **changes)


def approved(world: World, scenario: Scenario) -> bytes:
    digest = world.officer.apply_scenario(scenario).digest
    world.op_owner.approve_scenario(digest)
    assert world.bank_owner.approve_scenario(digest).state == "active"
    return digest


@pytest.fixture(scope="module")
def asking(world: World) -> Asking:
    table = department_rows(8, 0, PEOPLE)
    view = world.register("bank-owner", table, DEPARTMENT, "asked-people")
    draft = drafted(world, view, COLUMNS, dimensions=DIMENSIONS, measures=RANGES)
    frame = table.to_pandas().astype({"income": float})
    return Asking(view, approved(world, draft), frame)


@pytest.fixture
def jailed(world: World, asking: Asking) -> None:
    """On a machine that confines no code, see that statements are refused with what is missing, and how to mend it."""
    if level() is None:
        with pytest.raises(Unavailable, match="bank cannot confine code at level confined") as refusal:
            world.officer.query(asking.scenario, ref(asking.view), STATEMENT)
        assert "(" in refusal.value.tell and "sandbox tee doctor" in refusal.value.hint
        pytest.skip(f"nothing is confined here, and the node says so: {refusal.value.tell}")


@pytest.fixture
def ask(world: World, asking: Asking, jailed: None) -> Callable[[str], JobView]:
    """Submit a statement."""
    return lambda sql: world.officer.query(asking.scenario, ref(asking.view), sql)


def rounded(count: int) -> int:
    return 10 * ((count + 5) // 10)


def test_a_statement_is_answered_and_the_answer_has_a_receipt(world: World, asking: Asking, ask: Any) -> None:
    submitted = ask(STATEMENT)
    job = world.released(submitted)
    outcome = world.officer.result(job.job_id, world.trust())  # receipt, inclusion and the witness's co-signature
    found = outcome.outputs["table"]
    assert isinstance(found, pd.DataFrame) and list(outcome.outputs) == ["table"] and CANARY not in repr(found)
    assert list(found.columns) == ["district", "age_band", "people", "mean_income", "quantile_cont_age"]
    bands = pd.cut(asking.rows["age"], [0, 39, 64, 200], labels=["below 40", "40 to below 65", "65 and above"])
    lines = found.set_index(["district", "age_band"])
    assert len(lines) == len(DISTRICTS) * 3
    for place, own in asking.rows.groupby(["district", bands.astype(str)]):
        if place[0] in DISTRICTS:
            row: Any = lines.loc[place]
            assert row["people"] == rounded(len(own))
            assert row["mean_income"] == pytest.approx(own["income"].mean(), abs=0.00501)
            assert row["quantile_cont_age"] == pytest.approx(own["age"].quantile(0.25), abs=1e-9)
    assert (job.kind, job.engine, job.parties) == (JobKind.QUERY, "duckdb", ("bank",))
    assert job.isolation == f"{level()} SIMULATED"
    assert [stage.name for stage in job.stages] == ["propose", "agree", "compute", "gate", "reveal", "deliver"]
    world.settle()
    assert left(world) == []


def test_the_trail_says_how_the_statement_was_confined_and_nothing_of_a_row(world: World, ask: Any) -> None:
    job = world.released(ask("SELECT count(*) AS people FROM data WHERE district IN ('north', 'south')"))
    entries = [logged.entry for logged in world.bank_owner.entries(job_id=job.job_id)]
    facts = {entry.what: {fact.name: fact.value for fact in entry.facts} for entry in entries}
    assert list(facts) == ["admitted", "enclave-wiped", "released", "delivered"]
    assert facts["enclave-wiped"]["scratch"] == "wiped"
    assert facts["delivered"]["isolation"] == job.isolation == f"{level()} SIMULATED"
    assert CANARY not in repr(entries) and CANARY not in world.log("bank")


def test_a_plan_says_where_it_would_run_and_who_learns_what(world: World, asking: Asking, jailed: None) -> None:
    plan = world.officer.plan(specs.query(asking.scenario, ref(asking.view), STATEMENT))
    assert (plan.engine, plan.parties, plan.expected_bytes) == ("duckdb", ("bank",), 0)
    assert f"{level()} SIMULATED" in plan.note
    assert {one.party: one.what for one in plan.reveals} == {
        "bank": "the statement; it runs in a simulated enclave of this node",
        "recipient": "the table the statement asks for; numbers of rows rounded",
    }


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT note FROM data", "line 1, column 8"),
        ("SELECT count(*)\nFROM data\nWHERE income > 5", "line 3"),
        ("SELECT avg(income) FROM data GROUP BY age", "the dimension over column 'age' is called 'age_band'"),
        ("SELECT avg(note) FROM data", "the scenario has no measure 'note'"),
        ("SELECT count(*) FROM other", "the job has no table 'other'"),
        ("COPY data TO '/tmp/x'", "only one SELECT"),
    ],
)
def test_what_is_not_allowed_is_refused_with_its_place_before_any_work(
    world: World, asking: Asking, sql: str, told: str
) -> None:
    before = world.officer.jobs()
    with pytest.raises(InvalidSpec) as refusal:
        world.officer.query(asking.scenario, ref(asking.view), sql)
    assert told in refusal.value.tell
    assert world.officer.jobs() == before


def ended_with(world: World, scenario: bytes, view: DatasetView, sql: str) -> tuple[State, str]:
    """How a statement ended, and what its submitter was told."""
    job = world.ended(world.officer.query(scenario, ref(view), sql).job_id)
    return job.state, "" if job.failure is None else job.failure.cause


def test_the_gate_withholds_small_groups_and_small_differences(world: World, jailed: None) -> None:
    cities = [Dimension("city", "city", ("north", "south"))]
    declared: dict[str, Any] = {"dimensions": tuple(cities), "measures": (MeasureRange("v", 0, 300),)}
    table = people_table(200, city=["north"] * 195 + ["south"] * 5)
    described = schema({"id": "string", "v": "integer", "city": "string"})
    first, fewer = (world.register("bank-owner", rows, described) for rows in (table, table.slice(3)))
    scenario = approved(world, drafted(world, first, ("v", "city"), **declared))
    withheld = (State.REFUSED, OutputWithheld.public)
    whole = "SELECT count(*) AS people FROM data"
    assert ended_with(world, scenario, first, "SELECT city, count(*) AS n FROM data GROUP BY city") == withheld
    assert ended_with(world, scenario, first, "SELECT count(*) AS n FROM data WHERE city = 'north'") == withheld
    assert ended_with(world, scenario, first, whole) == (State.RELEASED, "")
    assert ended_with(world, scenario, first, whole) == (State.RELEASED, "")  # the same people once more
    without_three = approved(world, drafted(world, fewer, ("v", "city"), **declared))
    assert ended_with(world, without_three, fewer, whole) == withheld


def test_a_value_outside_its_range_ends_the_job_and_is_not_told(world: World, jailed: None) -> None:
    view = world.register("bank-owner", people_table(200), PEOPLE_SCHEMA)
    scenario = approved(world, drafted(world, view, ("v",), measures=(MeasureRange("v", 0, 150),)))
    cause = "a value of 'v' is outside the range the scenario declares"
    assert ended_with(world, scenario, view, "SELECT sum(v) AS total FROM data") == (State.FAILED, cause)


def test_a_cancelled_statement_leaves_no_jail(world: World, ask: Any) -> None:
    job = ask("SELECT district, sum(income) AS total FROM data GROUP BY district")
    world.reached(job.job_id, "compute")
    assert world.officer.cancel(job.job_id).state in (State.RUNNING, State.CANCELLED)
    assert world.ended(job.job_id).state is State.CANCELLED
    world.settle()
    end = time.monotonic() + 10
    while found := left(world):
        assert time.monotonic() < end, found
        time.sleep(0.1)


def left(world: World) -> list[str]:
    """What there is of jails beside one that waits for its job: one with a job, one too many, folders nobody holds."""
    found = world.jails("bank")
    busy, waiting = ([folder for folder, is_busy in found.items() if is_busy is wanted] for wanted in (True, False))
    return [*map(str, (*busy, *waiting[1:])), *["a folder"] * leases.sweep(confined.scratch())]
