"""One statement over one owner's rows: what comes out of the jail, what its gate judges, and who is behind it."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from kind_parties import JOB, KINDS, Room, ref, scenario

from sandbox.errors import Cancelled, IntegrityFailed, InvalidSpec, JobFailed, OutputWithheld, Unavailable, WrongState
from sandbox.gate.judge import judge
from sandbox.kinds import cells, confined, dominance, query
from sandbox.kinds.asked import Asked
from sandbox.kinds.cells import Shape
from sandbox.kinds.counted import Counted
from sandbox.kinds.kind import Conditions
from sandbox.kinds.margins import Lines
from sandbox.kinds.population import Sketcher
from sandbox.kinds.suppression import unions
from sandbox.model import (
    Dimension,
    JobKind,
    JobSpec,
    Measure,
    MeasureRange,
    OutputClass,
    OutputRule,
    Party,
    PartyRole,
    Plan,
    QuerySpec,
    RawResult,
    Scenario,
    Statistic,
)
from sandbox.tee_sim import probes, sql
from sandbox.tee_sim.levels import Level, Limits, Outcome
from sandbox.tee_sim.pool import Pool
from sandbox.tee_sim.stream import read_stream, write_stream

FIELDS = ("city", "sex", "age", "income", "paid", "late")
DIMENSIONS = (
    Dimension("city", "city", ("north", "south", "east")),
    Dimension("sex", "sex", ("f", "m")),
    Dimension("age_band", "age", (), (40, 65)),
)
RANGES = (MeasureRange("income", 0, 100_000), MeasureRange("paid", -50_000, 50_000, 2), MeasureRange("late", 0, 1))
LEAST = 5


def people(count: int = 2000, seed: int = 3) -> pa.Table:
    """Rows of one owner; some live elsewhere or nowhere, some values are missing."""
    rng = np.random.default_rng(seed)
    gone = rng.random((3, count)) < 0.15
    cents = [Decimal(int(value)).scaleb(-2) for value in rng.integers(-50_000, 50_000, count)]
    return pa.table(
        {
            "id": [f"P{number:05d}" for number in range(count)],
            "city": rng.choice(["north", "south", "east", "abroad", None], count, p=[0.3, 0.3, 0.2, 0.1, 0.1]).tolist(),
            "sex": rng.choice(["f", "m"], count).tolist(),
            "age": pa.array(rng.integers(18, 90, count)),
            "income": pa.array(rng.integers(0, 100_000, count), mask=gone[0]),
            "paid": pa.array(
                [None if lost else value for lost, value in zip(gone[1], cents, strict=True)], pa.decimal128(38, 10)
            ),
            "late": pa.array(rng.random(count) < 0.3, pa.bool_(), mask=gone[2]),
        }
    )


PEOPLE = people()


def frame(table: pa.Table = PEOPLE) -> pd.DataFrame:
    """The same in the clear, with the bands that a scenario makes of ages."""
    rows = table.to_pandas()
    rows["paid"] = rows["paid"].astype(float)
    rows["late"] = rows["late"].astype(float)
    rows["age_band"] = pd.cut(
        rows["age"], [0, 39, 64, 200], labels=["below 40", "40 to below 65", "65 and above"]
    ).astype(str)
    return rows


def level() -> Level | None:
    try:
        return probes.strongest()
    except Unavailable:
        return None


@pytest.fixture
def jailed() -> Level:
    """The level that holds here; on a machine where none does, see that a run is refused with the fix."""
    found = level()
    if found is None:
        with pytest.raises(Unavailable) as refusal:
            room("SELECT count(*) AS n FROM data", at=Level.UNPRIVILEGED).compute()
        assert refusal.value.tell != Unavailable.public and refusal.value.hint
        pytest.skip(f"nothing is confined here: {refusal.value.tell}")
    return found


def asking(statement: str, **changes: Any) -> tuple[Scenario, JobSpec]:
    """A scenario for statements, and one job under it."""
    rule = OutputRule(JobKind.QUERY, "table", OutputClass.AGGREGATE, LEAST, 5, 10_000, 1 << 24)
    held = scenario([FIELDS], DIMENSIONS, RANGES)
    held = dataclasses.replace(
        held, kinds=(JobKind.QUERY,), outputs=(dataclasses.replace(rule, **changes),), isolation="narrowed"
    )
    return held, JobSpec("request", bytes(32), QuerySpec(ref("bank"), statement))


def room(statement: str, table: pa.Table = PEOPLE, at: Level | None = None, **changes: Any) -> Room:
    """The one party of a job."""
    held, spec = asking(statement, **changes)
    kind = KINDS[JobKind.QUERY]
    (columns,) = kind.columns(spec, held, held.datasets)
    party = Party("bank", PartyRole.LEFT, ref("bank"), b"b" * 32, columns)
    plan = Plan(
        job_id=JOB,
        proposer="bank",
        kind=JobKind.QUERY,
        scenario_digest=bytes(32),
        submission_digest=bytes(32),
        parties=(party,),
        engine=kind.engines(spec, Conditions())[0],
        outputs=held.outputs,
        recipient="0" * 32,
        recipient_node="bank",
        deadline_s=60,
        reveals=kind.reveals(spec, [party], held, "duckdb"),
        isolation=confined.isolation(at or level() or Level.CONFINED),
        time_ms=0,
    )
    return Room({"bank": table}, held, spec, plan, "bank", deadline_s=60.0)


def released(statement: str, table: pa.Table = PEOPLE, **changes: Any) -> pd.DataFrame:
    """What leaves."""
    found: pd.DataFrame = room(statement, table, **changes).run()["table"].to_pandas()
    groups = [name for name in found.columns if name in {dimension.name for dimension in DIMENSIONS}]
    found[groups] = found[groups].astype(object).where(found[groups].notna(), None)
    return found


def judged(statement: str, table: pa.Table = PEOPLE, **changes: Any) -> dict[str, int]:
    """What the gate would judge: the same without a jail."""
    held, spec = asking(statement, **changes)
    inside = populations(held, spec, table)
    return inside.gate_inputs(inside.blank(LEAST) if held.outputs[0].suppress else None)


def populations(held: Scenario, spec: JobSpec, table: pa.Table) -> Asked:
    use = held.datasets[0]
    grant = sql.TableGrant("data", {name: table.schema.field(name).type for name in use.fields}, dict.fromkeys(use.key))
    groupings = [sql.Grouping(dimension, cells.levels(dimension)) for dimension in held.dimensions]
    assert isinstance(spec.kind, QuerySpec)
    made = sql.analyse(spec.kind.sql, [grant], groupings, held.measures, LEAST)
    with duckdb.connect(":memory:") as connection:
        connection.register("data", table)
        return Asked.of(made.statement, connection.sql(made.populations).to_arrow_table())


def withheld(statement: str, table: pa.Table = PEOPLE, **changes: Any) -> str:
    """The owner's reason for which its gate withholds an answer; empty if it lets it out."""
    try:
        judge(room(statement, table, **changes).plan, judged(statement, table, **changes))
    except OutputWithheld as error:
        return str(error)
    return ""


def rounded(count: float) -> int:
    return 5 * int((count + 2.5) // 5)


# --- answers ----------------------------------------------------------------------------------------------------------


def test_all_functions_by_two_dimensions(jailed: Level) -> None:
    found = released(
        "SELECT city, sex, count(*) AS n, count(paid) AS told, sum(paid) AS total, avg(income) AS mean, "
        "quantile_cont(income, 0.75) AS upper, stddev_samp(late) AS spread FROM data GROUP BY city, sex ORDER BY city"
    )
    groups = [(city, sex) for city in ("north", "south", "east") for sex in ("f", "m")]
    assert list(zip(found["city"], found["sex"], strict=True)) == groups
    rows = frame()
    for at, (city, sex) in enumerate(groups):
        own, row = rows[(rows.city == city) & (rows.sex == sex)], found.iloc[at]
        assert (row.n, row.told) == (rounded(len(own)), rounded(own.paid.count()))
        assert row.total == pytest.approx(own.paid.sum(), abs=1e-6)
        assert row["mean"] == round(own.income.mean())
        assert row.upper == pytest.approx(own.income.quantile(0.75), abs=0.501)
        assert row.spread == round(own.late.std())  # to as many places as the range declares: none


def test_totals_and_conditions(jailed: Level) -> None:
    found = released(
        "SELECT age_band, sex, median(paid) AS middle, var_samp(income) AS variance FROM data "
        "WHERE city IN ('north', 'east') AND age_band IN ('below 40', '65 and above') GROUP BY CUBE (age_band, sex)"
    )
    rows = frame()
    rows = rows[rows.city.isin(["north", "east"]) & (rows.age_band != "40 to below 65")]
    wanted = [(band, sex) for band in ("below 40", "65 and above", None) for sex in ("f", "m", None)]
    assert [(row.age_band, row.sex) for row in found.itertuples()] == wanted
    for (band, sex), row in zip(wanted, found.itertuples(), strict=True):
        own = rows[(rows.age_band == band if band else True) & (rows.sex == sex if sex else rows.sex.notna())]
        assert row.middle == pytest.approx(own.paid.median(), abs=0.00501)
        assert row.variance == pytest.approx(own.income.var(), rel=1e-9, abs=1)


def test_a_statement_that_uses_no_column(jailed: Level) -> None:
    one = room("SELECT count(*) AS n FROM data")
    assert one.plan.parties[0].fields == ()
    raw = one.compute()["bank"]
    assert dict(raw.gate_inputs) == {"rows": 2000, "group.0": 2000, "rest.others.0": 0}
    assert one.release(raw)["table"].to_pydict() == {"n": [2000]}


# --- what enters the jail, and what comes out -------------------------------------------------------------------------


Run = Callable[..., Outcome]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What goes into every jail."""
    noted: list[dict[str, Any]] = []
    real: Run = confined.run

    def run(task: Any, program: Path, tables: Mapping[str, pa.Table], params: bytes, allowed: Limits) -> Outcome:
        noted.append({"tables": dict(tables), "params": json.loads(params), "limits": allowed})
        return real(task, program, tables, params, allowed)

    monkeypatch.setattr(confined, "run", run)
    return noted


def test_nothing_that_says_who_a_row_is_about_enters_the_jail(jailed: Level, seen: list[dict[str, Any]]) -> None:
    released("SELECT city, avg(income) AS mean FROM data GROUP BY city")
    (one,) = seen
    assert list(one["tables"]) == ["data"] and one["tables"]["data"].column_names == ["city", "income"]
    assert "P00" not in repr(one) and one["params"]["cores"] == one["limits"].cores == 1


def changed(monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, pa.Table]], None]) -> None:
    """Let the jail say something else."""
    real: Run = confined.run

    def run(*arguments: Any) -> Outcome:
        outcome = real(*arguments)
        tables = {name: read_stream(stream) for name, stream in outcome.tables.items()}
        change(tables)
        return dataclasses.replace(outcome, tables={name: write_stream(table) for name, table in tables.items()})

    monkeypatch.setattr(confined, "run", run)


def with_column(table: pa.Table, name: str, change: Callable[[list[Any]], list[Any]]) -> pa.Table:
    at, field = table.column_names.index(name), table.schema.field(name)
    return table.set_column(at, name, pa.array(change(table.column(name).to_pylist()), field.type))


def more(tables: dict[str, pa.Table]) -> None:
    tables["populations"] = with_column(tables["populations"], "people", lambda held: [count + 1 for count in held])


def fewer(tables: dict[str, pa.Table]) -> None:
    tables["populations"] = tables["populations"].slice(1)


def none(tables: dict[str, pa.Table]) -> None:
    del tables["result"]


def others(tables: dict[str, pa.Table]) -> None:
    tables["result"] = with_column(tables["result"], "city", lambda held: held[::-1])


def rows_of_people(tables: dict[str, pa.Table]) -> None:
    tables["result"] = pa.concat_tables([tables["result"], tables["result"]])


def strange(tables: dict[str, pa.Table]) -> None:
    tables["more"] = tables["result"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (more, IntegrityFailed),
        (fewer, JobFailed),
        (none, JobFailed),
        (others, JobFailed),
        (rows_of_people, JobFailed),
        (strange, JobFailed),
    ],
)
def test_what_a_jail_says_is_not_believed(
    jailed: Level, monkeypatch: pytest.MonkeyPatch, change: Any, error: type[Exception]
) -> None:
    changed(monkeypatch, change)
    with pytest.raises(error):
        room("SELECT city, count(*) AS n FROM data GROUP BY city").compute()


def test_a_second_row_is_not_believed(jailed: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    changed(monkeypatch, rows_of_people)
    with pytest.raises(JobFailed):
        room("SELECT count(*) AS n FROM data").compute()


def test_a_value_outside_its_range_is_not_told(jailed: Level) -> None:
    low = with_column(PEOPLE, "paid", lambda held: [Decimal("-500.01"), *held[1:]])
    with pytest.raises(WrongState) as told:
        room("SELECT sex, sum(paid) AS total FROM data GROUP BY sex", low).compute()
    assert told.value.tell == "a value of 'paid' is outside the range the scenario declares"
    assert "500" not in str(told.value)
    room("SELECT sex, sum(income) AS total FROM data GROUP BY sex", low).compute()  # a column nobody asked for


def test_values_are_held_against_their_ranges_wherever_they_are() -> None:
    low = with_column(PEOPLE, "paid", lambda held: [Decimal("-500.01"), *held[1:]])
    city = PEOPLE["city"][0].as_py()
    assert city is not None
    other = "north" if city != "north" else "south"
    with pytest.raises(WrongState, match="of 'paid' is outside"):
        judged(f"SELECT sum(paid) AS total FROM data WHERE city = '{other}'", low)
    judged(f"SELECT sum(income) AS total FROM data WHERE city = '{other}'", low)


def test_a_total_that_cannot_be_told_exactly_ends_the_job() -> None:
    large = with_column(PEOPLE, "income", lambda held: [1 << 45] * 2000)
    held, spec = asking("SELECT sum(income) AS total FROM data")
    held = dataclasses.replace(held, measures=(MeasureRange("income", 0, 1 << 46),))
    with pytest.raises(WrongState, match="a total of 'income' is too large to be given exactly"):
        populations(held, spec, large)
    _, mean = asking("SELECT avg(income) AS mean FROM data")
    assert populations(held, mean, large).people.tolist() == [2000]


def test_another_level_than_planned_is_no_answer(jailed: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    if jailed is not Level.CONFINED:
        pytest.skip(f"only one level is tried on this machine: {jailed}")
    one = room("SELECT count(*) AS n FROM data")
    monkeypatch.setattr(confined, "jails", lambda task, allowed: Pool(0, Level.NARROWED, scratch=confined.scratch()))
    with pytest.raises(JobFailed, match="another level"):
        one.compute()


def test_the_level_of_the_plan_is_the_one_that_runs(jailed: Level) -> None:
    with pytest.raises(InvalidSpec):
        one = room("SELECT count(*) AS n FROM data")
        one.plan = dataclasses.replace(one.plan, isolation="engine-child")
        one.compute()
    if jailed is Level.CONFINED:
        assert room("SELECT count(*) AS n FROM data", at=Level.NARROWED).compute()["bank"].gate_inputs["rows"] == 2000


# --- what gates judge -------------------------------------------------------------------------------------------------


def test_every_number_that_is_judged() -> None:
    found = judged(
        "SELECT city, count(*) AS n, avg(income) AS mean, quantile_cont(paid, 0.1) AS low FROM data "
        "WHERE sex = 'f' AND age_band IN ('below 40', '65 and above') GROUP BY city"
    )
    rows = frame()
    listed = rows.city.isin(["north", "south", "east"])
    meets = (rows.sex == "f") & (rows.age_band != "40 to below 65")
    wanted = {"rows": int((meets & listed).sum())}
    tops, remainders = [], []
    for at, city in enumerate(("north", "south", "east")):
        own, left = rows[meets & (rows.city == city)], rows[~meets & (rows.city == city)]
        incomes, paid = sorted(own.income.dropna().astype(int)), sorted(own.paid.dropna())
        below = int(0.1 * (len(paid) - 1)) + 1
        wanted |= {f"group.{at}": len(own), f"rest.others.{at}": len(left)}
        wanted |= {f"group.{at}.0": len(incomes), f"rest.{at}.0": len(own) - len(incomes)}
        wanted |= {f"group.{at}.1": len(paid), f"rest.{at}.1": len(own) - len(paid)}
        wanted[f"group.{at}.q2"] = below
        tops.append(-(-1000 * sum(incomes[-2:]) // sum(incomes)))
        remainders.append(1000 * sum(incomes[:-2]) // incomes[-1])
    wanted |= {"top.income": max(tops), "remainder.income": min(remainders)}
    counts = {name: count for name, count in found.items() if not name.startswith(("rest.none", "rest.atom"))}
    assert counts == wanted
    none = [count for name, count in found.items() if name.startswith("rest.none")]
    assert none == [int((meets & ~listed).sum())]
    atoms = rows[meets & listed].groupby(["city", "age_band"]).size()
    assert sorted(count for name, count in found.items() if name.startswith("rest.atom")) == sorted(atoms)


def test_the_largest_part_of_a_sum_is_that_of_dominance() -> None:
    found = judged("SELECT city, sex, sum(paid) AS total FROM data GROUP BY ROLLUP (city, sex)")
    shape = cells.shape(["city", "sex"], [Measure("paid", Statistic.SUM, "paid")], asking("x")[0])
    codes = cells.group_codes(PEOPLE, shape.dimensions)
    values, _ = cells.prepare(PEOPLE, shape.wanted)
    whole = dominance.Weights.of_rows(codes, dominance.amounts(shape, values), shape.cells)
    both = [
        whole.over([np.array(region) for region in ([0], [1], [2], [3], [4], [5], [0, 1], [2, 3], [4, 5], range(6))])
    ]
    wanted = dominance.figures(("paid",), both[0], alone=np.ones(10, np.bool_))
    assert {name: found[name] for name in wanted} == wanted


def test_a_group_below_the_minimum_is_withheld() -> None:
    few = with_column(PEOPLE, "city", lambda held: ["north"] * 4 + ["south"] * 1000 + ["east"] * 996)
    statement = "SELECT city, count(*) AS n FROM data GROUP BY city"
    assert withheld(statement, few) == "table: 0 is below 5"
    assert withheld(statement) == ""
    enough = with_column(PEOPLE, "city", lambda held: ["north"] * 5 + ["south"] * 1000 + ["east"] * 995)
    assert withheld(statement, enough) == ""
    nobody = with_column(PEOPLE, "city", lambda held: ["south"] * 1000 + ["east"] * 1000)
    assert withheld(statement, nobody) == "table: 0 is below 5"


def test_who_is_left_out_is_judged() -> None:
    """By how few two tables would differ, of which one has a condition, a dimension or a measure more."""
    nearly = with_column(PEOPLE, "sex", lambda held: ["f"] * 1997 + ["m"] * 3)
    assert withheld("SELECT count(*) AS n FROM data WHERE sex = 'f'", nearly).startswith("table: rest.others.0")
    assert withheld("SELECT count(*) AS n FROM data WHERE sex IN ('f', 'm')", nearly).startswith("table: rest.atom.")
    assert withheld("SELECT count(*) AS n FROM data", nearly) == ""
    unlisted = with_column(
        PEOPLE, "city", lambda held: ["north"] * 1000 + ["south"] * 500 + ["east"] * 498 + ["x", None]
    )
    assert withheld("SELECT city, count(*) AS n FROM data GROUP BY city", unlisted).startswith("table: rest.none.0")
    known = with_column(PEOPLE, "income", lambda held: [None, None, *(value or 0 for value in held[2:])])
    assert withheld("SELECT count(income) AS n FROM data", known).startswith("table: rest.0.0")


def test_what_a_measure_tells_is_judged() -> None:
    same = with_column(PEOPLE, "late", lambda held: [True] * 2000)
    assert withheld("SELECT sex, avg(late) AS share FROM data GROUP BY sex", same) == "table: unlike.0.0 is below 5"
    assert withheld("SELECT sex, count(late) AS n FROM data GROUP BY sex", same) == ""
    one = with_column(PEOPLE, "paid", lambda held: [Decimal(500), *([Decimal("0.01")] * 1999)])
    assert withheld("SELECT sum(paid) AS total FROM data", one, top_two=900).startswith("table: two people make up")
    assert withheld("SELECT count(paid) AS n FROM data", one, top_two=900) == ""


def test_a_quantile_needs_people_on_either_side() -> None:
    fifty = with_column(people(50), "income", lambda held: list(range(50)))
    assert withheld("SELECT quantile_cont(income, 0.05) AS low FROM data", fifty) == "table: 0.q0 is below 5"
    assert withheld("SELECT quantile_cont(income, 0.95) AS high FROM data", fifty) == "table: 0.q0 is below 5"
    assert withheld("SELECT median(income) AS middle FROM data", fifty) == ""


# --- blanks -----------------------------------------------------------------------------------------------------------


def sparse() -> pa.Table:
    """Three people in one of six cells, and a few without a value."""
    table = with_column(people(600, 9), "city", lambda held: [value or "north" for value in held])
    small = [n for n, row in enumerate(table.to_pylist()) if row["city"] == "east" and row["sex"] == "f"]
    table = with_column(table, "sex", lambda held: ["m" if n in small[3:] else value for n, value in enumerate(held)])
    return with_column(table, "income", lambda held: [value or 0 for value in held])


@pytest.mark.parametrize("grouping", ["city, sex", "ROLLUP (city, sex)", "CUBE (city, sex)"])
def test_small_groups_stay_blank_as_in_totals(grouping: str) -> None:
    table = sparse()
    held, spec = asking(f"SELECT city, sex, count(*) AS n, avg(income) AS mean FROM data GROUP BY {grouping}")
    found = populations(held, spec, table)
    blank = found.blank(LEAST)
    shape = cells.shape(["city", "sex"], [Measure("mean", Statistic.MEAN, "income")], held)
    codes = cells.group_codes(table, shape.dimensions)
    _, present = cells.prepare(table, shape.wanted)
    counts = [cells.grouped_counts(codes, mask, 6) for mask in (np.ones(600, np.bool_), *present)]
    same = Counted(np.array(counts[0]), np.array(counts[1:]), np.array(cells.rest_counts(table, shape.dimensions)))
    assert np.array_equal(blank, same.blank(shape, LEAST)) and blank.any() and not blank.all()
    inputs, other = found.gate_inputs(blank), same.gate_inputs(shape, Lines(shape.dimensions, True), blank)
    named = {name.removesuffix(".0") if name.count(".") == 4 else name: count for name, count in other.items()}
    for prefix in ("group.blank.", "rest.blank."):
        assert {name for name in inputs if name.startswith(prefix)}
        assert {name: count for name, count in inputs.items() if name.startswith(prefix)} == {
            name: count for name, count in named.items() if name.startswith(prefix)
        }
    values, _ = cells.prepare(table, shape.wanted)
    whole = dominance.Weights.of_rows(codes, dominance.amounts(shape, values), 6)
    regions = [np.array([cell]) for cell in np.flatnonzero(~Lines(shape.dimensions, False).chosen(blank))]
    regions += unions(blank, (3, 2))
    most = dominance.figures(("income",), whole.over(regions), alone=np.ones(len(regions), np.bool_))
    assert inputs["top.income"] == most["top.income"] and inputs["remainder.income"] == most["remainder.income"]


def test_a_table_with_blanks_leaves_with_nothing_in_them(jailed: Level) -> None:
    statement = "SELECT city, sex, count(*) AS n, avg(income) AS mean FROM data GROUP BY CUBE (city, sex)"
    found = released(statement, sparse(), suppress=True)
    assert found[["n", "mean"]].isna().any(axis=1).equals(found[["n", "mean"]].isna().all(axis=1))
    lines = {(row.city, row.sex): row.n for row in found.itertuples()}
    assert pd.isna(lines["east", "f"]) and pd.isna(lines["east", "m"]) and lines[None, None] > 0
    rows = frame(sparse())
    for (city, sex), count in lines.items():
        own = rows[rows.city.isin(["north", "south", "east"])]
        own = own[(own.city == city if city else True) & (own.sex == sex if sex else own.sex.notna())]
        assert pd.isna(count) or count == rounded(len(own))


# --- people, admission, limits ----------------------------------------------------------------------------------------


def test_who_is_behind_every_group(jailed: Level) -> None:
    one = room("SELECT sex, count(*) AS n FROM data WHERE city IN ('north', 'south') GROUP BY sex")
    (raw,) = one.compute().values()
    assert isinstance(raw, RawResult)
    rows, secret = frame(), Sketcher(b"b" * 32)
    kept = rows[rows.city.isin(["north", "south"])]
    wanted = {
        name: secret.of(name, pa.array(own.id), len(own))
        for name, own in {"f": kept[kept.sex == "f"], "m": kept[kept.sex == "m"], "all": kept}.items()
    }
    assert {population.name: population for population in raw.populations} == wanted


def test_a_statement_is_read_at_admission() -> None:
    held, spec = asking("SELECT age_band, avg(paid) AS a FROM data WHERE city = 'east' GROUP BY age_band")
    assert query.columns(spec, held, held.datasets) == (("age", "city", "paid"),)
    assert query.KIND.chosen(spec) == {"table"} == set(query.KIND.outputs)
    assert query.shares(room(spec.kind.sql).plan, spec, held) == {}  # type: ignore[union-attr]
    for text, told in {
        "SELECT id FROM data": "line 1, column 8",
        "SELECT count(*) FROM data GROUP BY id": "the scenario has no dimension 'id'",
        "SELECT avg(income) AS a FROM bank": "the job has no table 'bank'",
    }.items():
        held, spec = asking(text)
        with pytest.raises(InvalidSpec) as refusal:
            query.columns(spec, held, held.datasets)
        assert told in refusal.value.tell


def test_a_label_can_be_measured() -> None:
    held, spec = asking("SELECT avg(bad) AS share FROM data")
    use = dataclasses.replace(held.datasets[0], label="bad")
    held = dataclasses.replace(held, datasets=(use,), measures=(*RANGES, MeasureRange("bad", 0, 1)))
    assert query.columns(spec, held, held.datasets) == (("bad",),)


def test_the_form_is_that_of_the_statement() -> None:
    held, spec = asking("SELECT city, count(*) AS n, avg(paid) AS mean, var_samp(late) AS v FROM data GROUP BY city")
    form = query.form(spec, held, "table")
    assert form is not None and form.names == ("city", "n", "mean", "v")
    assert form.counts == {"n"} and form.places == {"mean": 2, "v": 0}
    assert form.labels is not None and form.labels.to_pydict() == {"city": ["north", "south", "east"]}


def test_memory_grows_with_the_rows_and_never_beyond_the_machine() -> None:
    task: Any = type("Task", (), {"deadline_s": 30.0, "cores": 2})
    small, large = confined.limits(task, 0, 8.0), confined.limits(task, 1 << 60, 8.0)
    assert small.memory_mib == 768 and (small.wall_s, small.cpu_s, small.cores) == (30.0, 60, 2)
    assert small.memory_mib < confined.limits(task, 100 << 20, 8.0).memory_mib < large.memory_mib
    assert large.memory_mib <= 0.6 * int(Path("/proc/meminfo").read_text().split()[1]) / 1024


def test_a_job_that_is_stopped_ends_at_once(jailed: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    stop.set()
    plan = room("SELECT count(*) AS n FROM data").plan
    task: Any = type("Task", (), {"deadline_s": 30.0, "cores": 1, "plan": plan, "stopped": staticmethod(lambda: stop)})
    with tempfile.TemporaryDirectory(prefix="q-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # other uids pass through
        monkeypatch.setattr(confined, "scratch", lambda: folder / "jails")
        (folder / "program.json").write_text('{"form": "python", "entry": "none.py"}')
        with pytest.raises(Cancelled):
            confined.run(task, folder, {}, b"", confined.limits(task, 0, 1.0))
        assert list((folder / "jails").iterdir()) == []


def test_between_jobs_a_jail_waits_that_no_job_has_used(jailed: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confined, "_waiting", confined._Waiting())
    one = room("SELECT count(*) AS n FROM data")
    one.compute()
    assert confined._waiting.pool is None  # only where it is wanted: in a node's workers
    confined.stay_warm()
    one.compute()
    kept = confined._waiting.pool
    assert kept is not None
    try:
        (first,) = kept.waiting
        one.compute()
        (second,) = kept.waiting
        assert confined._waiting.pool is kept and second is not first
        assert not first.alive and second.alive
        one.deadline_s += 60.0  # other limits: another start
        one.compute()
        other = confined._waiting.pool
        assert other is not None and other is not kept
        assert not kept.waiting and not second.alive and len(other.waiting) == 1
    finally:
        for pool in (kept, confined._waiting.pool):
            if pool is not None:
                pool.close()


def test_where_the_limit_counts_a_user_s_threads_no_jail_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a limit is set at the start, from what ran then: later it may be too low, or too high."""
    waiting = confined._Waiting(is_wanted=True)
    monkeypatch.setattr(confined, "_waiting", waiting)
    task: Any = SimpleNamespace(plan=SimpleNamespace(isolation=confined.isolation(Level.NARROWED)))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with confined.jails(task, Limits()) as pool:
        assert pool.waiting == () and waiting.pool is None


def test_after_a_start_that_failed_the_next_job_starts_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool that waited has been closed by then; nobody may be handed it."""
    closed: list[str] = []
    old: Any = SimpleNamespace(level=Level.NARROWED, close=lambda: closed.append("old"))
    waiting = confined._Waiting(is_wanted=True, pool=old, allowed=Limits())
    monkeypatch.setattr(confined, "_waiting", waiting)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    task: Any = SimpleNamespace(plan=SimpleNamespace(isolation=confined.isolation(Level.NARROWED)))
    other = dataclasses.replace(Limits(), memory_mib=4 * Limits().memory_mib)

    def start(*_: Any, **__: Any) -> Pool:
        raise JobFailed("no room", stage="jail")

    with monkeypatch.context() as patched:
        patched.setattr(confined, "Pool", start)
        with pytest.raises(JobFailed), confined.jails(task, other):
            pass
    assert closed == ["old"] and waiting.pool is None
    started: Any = object()
    monkeypatch.setattr(confined, "Pool", lambda *_, **__: started)
    with confined.jails(task, other) as pool:
        assert pool is started and waiting.pool is started


def test_over_one_owner_s_rows_there_is_no_last_stage() -> None:
    alone: Any = SimpleNamespace(spec=asking("SELECT count(*) AS n FROM data")[1])
    with pytest.raises(JobFailed):
        query.finish(alone)


def test_a_shape_of_cells_is_what_asked_counts() -> None:
    held, spec = asking("SELECT age_band, count(*) AS n FROM data GROUP BY age_band")
    found = populations(held, spec, PEOPLE)
    shape = Shape((DIMENSIONS[2],), ())
    assert found.people.tolist() == np.bincount(cells.group_codes(PEOPLE, shape.dimensions), minlength=3).tolist()
