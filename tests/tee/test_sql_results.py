"""Accepted statements: what DuckDB makes of them is what pandas makes of the same rows, by the rules of totals."""

from __future__ import annotations

import dataclasses
import itertools
import re
import statistics
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Context, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sql_world import DIMENSIONS, LEAST, LOANS, MEASURES, STORED, ask, decimals, frame, rows, run, wanted

from sandbox.errors import InvalidSpec
from sandbox.kinds import cells
from sandbox.model import Dimension, MeasureRange
from sandbox.tee_sim import sql_columns
from sandbox.tee_sim.sql import Grouping, Role, TableGrant, analyse, labels
from sandbox.tee_sim.sql_terms import Axis, Joined, Measured

CONTEXT = Context(prec=60)
ROWS = rows()
FRAMES = {
    "loans": frame(ROWS["loans"], ["id"]),
    "accounts": frame(ROWS["accounts"], ["person"]),
    "payments": frame(ROWS["payments"], ["id"]),
    "firms": frame(ROWS["firms"], ["org", "no"]),
    "shops": frame(ROWS["shops"], ["org", "no"]),
}
LEVELS = {grouping.dimension.name: grouping.levels for grouping in DIMENSIONS}
PLACES = {declared.column: declared.places for declared in MEASURES}


@dataclasses.dataclass(frozen=True)
class Case:
    """A statement, and what it asks in other words."""

    text: str
    numbers: dict[str, tuple[str, str]]  # name -> statistic, measure
    groups: tuple[str, ...] = ()
    where: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    source: tuple[tuple[str, str], ...] = (("loans", ""),)  # table, how it is joined
    margins: str = ""


INNER = (("loans", ""), ("accounts", "inner"))
OUTER = (("loans", ""), ("accounts", "left"))
CASES = [
    Case("SELECT COUNT(*) FROM loans", {"count": ("rows", "")}),
    Case("select count(*) as n from loans", {"n": ("rows", "")}),
    Case("SELECT COUNT(income) FROM loans", {"count_income": ("count", "income")}),
    Case("SELECT SUM(income) AS total FROM loans", {"total": ("sum", "income")}),
    Case(
        "SELECT SUM(amount), COUNT(amount) FROM loans",
        {"sum_amount": ("sum", "amount"), "count_amount": ("count", "amount")},
    ),
    Case("SELECT AVG(amount) FROM loans", {"avg_amount": ("mean", "amount")}),
    Case("SELECT AVG(late) AS rate FROM loans", {"rate": ("mean", "late")}),
    Case("SELECT VAR_SAMP(amount) FROM loans", {"var_samp_amount": ("var", "amount")}),
    Case("SELECT STDDEV_SAMP(income) AS s FROM loans", {"s": ("std", "income")}),
    Case(
        "SELECT VAR_SAMP(income) a, STDDEV_SAMP(income) b FROM loans", {"a": ("var", "income"), "b": ("std", "income")}
    ),
    Case("SELECT MEDIAN(amount) FROM loans", {"median_amount": ("0.5", "amount")}),
    Case("SELECT QUANTILE_CONT(income, 0.05) q FROM loans", {"q": ("0.05", "income")}),
    Case(
        "SELECT QUANTILE_CONT(income, .25) q1, QUANTILE_CONT(income, 0.750) q3 FROM loans",
        {"q1": ("0.25", "income"), "q3": ("0.75", "income")},
    ),
    Case("SELECT SUM(huge) h, STDDEV_SAMP(income_k) k FROM loans", {"h": ("sum", "huge"), "k": ("std", "income_k")}),
    Case("SELECT district, COUNT(*) n FROM loans GROUP BY district", {"n": ("rows", "")}, ("district",)),
    Case(
        "SELECT age_band, AVG(income) m FROM loans GROUP BY age_band ORDER BY age_band ASC",
        {"m": ("mean", "income")},
        ("age_band",),
    ),
    Case("SELECT member, SUM(late) l FROM loans GROUP BY member", {"l": ("sum", "late")}, ("member",)),
    Case(
        "SELECT district, age_band, COUNT(*) n, AVG(amount) a, MEDIAN(income) m FROM loans GROUP BY district, age_band",
        {"n": ("rows", ""), "a": ("mean", "amount"), "m": ("0.5", "income")},
        ("district", "age_band"),
    ),
    Case(
        "SELECT member, age_band, COUNT(*) n FROM loans GROUP BY ROLLUP (member, age_band) ORDER BY member, age_band",
        {"n": ("rows", "")},
        ("member", "age_band"),
        margins="rollup",
    ),
    Case(
        "SELECT member, age_band, SUM(income) s, VAR_SAMP(amount) v FROM loans GROUP BY CUBE (member, age_band)",
        {"s": ("sum", "income"), "v": ("var", "amount")},
        ("member", "age_band"),
        margins="cube",
    ),
    Case(
        "SELECT district, AVG(amount) a FROM loans GROUP BY ROLLUP (district)",
        {"a": ("mean", "amount")},
        ("district",),
        margins="rollup",
    ),
    Case("SELECT COUNT(*) n FROM loans WHERE district = 'Huli'", {"n": ("rows", "")}, where={"district": ("Huli",)}),
    Case(
        "SELECT COUNT(*) n FROM loans WHERE district IN ('o''Neill', '思明\"区') AND (member = 'true')",
        {"n": ("rows", "")},
        where={"district": ("o'Neill", '思明"区'), "member": ("true",)},
    ),
    Case(
        "SELECT SUM(income) s FROM loans WHERE ((age_band = '30 to below 60') AND (district IN ('Huli')))",
        {"s": ("sum", "income")},
        where={"age_band": ("30 to below 60",), "district": ("Huli",)},
    ),
    Case(
        "SELECT district, COUNT(*) n FROM loans WHERE district IN ('Huli', 'Siming') GROUP BY district",
        {"n": ("rows", "")},
        ("district",),
        {"district": ("Siming", "Huli")},
    ),
    Case(
        "SELECT district, member, COUNT(*) n FROM loans"
        " WHERE district IN ('Huli', 'Siming') AND age_band = '30 to below 60'"
        " GROUP BY CUBE (district, member)",
        {"n": ("rows", "")},
        ("district", "member"),
        {"district": ("Siming", "Huli"), "age_band": ("30 to below 60",)},
        margins="cube",
    ),
    Case(
        "SELECT COUNT(*) n, AVG(balance) b FROM loans JOIN accounts ON loans.id = accounts.person",
        {"n": ("rows", ""), "b": ("mean", "balance")},
        source=INNER,
    ),
    Case(
        "SELECT l.district, a.sex, COUNT(*) n, AVG(a.balance) b, SUM(l.income) s FROM loans AS l INNER JOIN accounts a"
        " ON a.person = l.id GROUP BY l.district, a.sex ORDER BY l.district, sex",
        {"n": ("rows", ""), "b": ("mean", "balance"), "s": ("sum", "income")},
        ("district", "sex"),
        source=INNER,
    ),
    Case(
        "SELECT district, COUNT(*) n, COUNT(balance) c, AVG(balance) b FROM loans"
        " LEFT JOIN accounts ON loans.id = accounts.person GROUP BY district",
        {"n": ("rows", ""), "c": ("count", "balance"), "b": ("mean", "balance")},
        ("district",),
        source=OUTER,
    ),
    Case(
        'SELECT "区县", COUNT(*) AS "户数" FROM accounts GROUP BY "区县"',
        {"户数": ("rows", "")},
        ("区县",),
        source=(("accounts", ""),),
    ),
    Case(
        "SELECT balance_band, COUNT(*) n FROM accounts WHERE \"区县\" = '甲' GROUP BY balance_band",
        {"n": ("rows", "")},
        ("balance_band",),
        {"区县": ("甲",)},
        (("accounts", ""),),
    ),
    Case(
        "SELECT channel, COUNT(*) n, SUM(paid) s, MEDIAN(paid) m FROM payments GROUP BY channel",
        {"n": ("rows", ""), "s": ("sum", "paid"), "m": ("0.5", "paid")},
        ("channel",),
        source=(("payments", ""),),
    ),
    Case(
        "SELECT district, AVG(paid) m, SUM(income) i FROM loans JOIN payments USING (id) GROUP BY district",
        {"m": ("mean", "paid"), "i": ("sum", "income")},
        ("district",),
        source=(("loans", ""), ("payments", "inner")),
    ),
    Case(
        "SELECT sex, COUNT(*) n, AVG(paid) m FROM loans l JOIN payments p ON l.id = p.id LEFT OUTER JOIN accounts a"
        " ON p.id = a.person WHERE channel IN ('web', 'desk') GROUP BY sex",
        {"n": ("rows", ""), "m": ("mean", "paid")},
        ("sex",),
        {"channel": ("web", "desk")},
        (("loans", ""), ("payments", "inner"), ("accounts", "left")),
    ),
    Case(
        "SELECT firms.district, sex, AVG(income) m FROM firms"
        " JOIN shops ON firms.org = shops.org AND firms.no = shops.no GROUP BY ROLLUP (district, sex)",
        {"m": ("mean", "income")},
        ("district", "sex"),
        source=(("firms", ""), ("shops", "inner")),
        margins="rollup",
    ),
    Case(
        "SELECT Sex, Count(*) N /* how many */ FROM Firms JOIN Shops USING (org, no) -- of both\nGROUP BY SEX\n",
        {"N": ("rows", "")},
        ("sex",),
        source=(("firms", ""), ("shops", "inner")),
    ),
]


def joined(case: Case) -> pd.DataFrame:
    (first, _), *others = case.source
    whole = FRAMES[first]
    for name, how in others:
        on = [column for column in whole.columns if column.startswith("key")]
        whole = whole.merge(FRAMES[name].drop(columns=["#late"], errors="ignore"), how=how, on=on)  # type: ignore[call-overload]
    for name in case.groups:
        whole = whole[whole[name].notna()]
    for name, levels in case.where.items():
        whole = whole[whole[name].isin(levels)]
    return whole


def places(case: Case) -> list[tuple[str | None, ...]]:
    levels = [[one for one in LEVELS[name] if one in case.where.get(name, LEVELS[name])] for name in case.groups]
    if not case.margins:
        return list(itertools.product(*levels))
    every = list(itertools.product(*([*one, None] for one in levels)))
    if case.margins == "cube":
        return every
    return [one for one in every if all(b is None for a, b in itertools.pairwise(one) if a is None)]


STATISTICS: dict[str, Callable[[list[float]], float | None]] = {
    "count": len,
    "sum": lambda values: sum(values) if values else None,
    "mean": lambda values: sum(values) / len(values) if values else None,
    "var": lambda values: statistics.variance(values) if len(values) > 1 else None,
    "std": lambda values: statistics.stdev(values) if len(values) > 1 else None,
}


def expected(case: Case) -> dict[str, list[Any]]:
    whole = joined(case)
    table: dict[str, list[Any]] = {name: [] for name in (*case.groups, *case.numbers)}
    for place in places(case):
        part = whole
        for name, level in zip(case.groups, place, strict=True):
            part = part[part[name] == level] if level is not None else part
        for name, level in zip(case.groups, place, strict=True):
            table[name].append(level)
        for name, (statistic, measure) in case.numbers.items():
            if statistic == "rows":
                table[name].append(len(part))
                continue
            values = [
                Decimal(unit).scaleb(-PLACES[measure])
                for unit in part[f"#{measure}"]
                if unit is not None and not pd.isna(unit)
            ]
            if statistic in STATISTICS:
                found: Any = STATISTICS[statistic](values)  # type: ignore[arg-type]
            else:
                found = np.quantile([float(value) for value in values], float(statistic)) if values else None
            table[name].append(found if isinstance(found, int) or found is None else float(found))
    return table


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.text[:70])
def test_a_statement_gives_what_pandas_gives(case: Case) -> None:
    query = ask(case.text)
    found = run(query.sql, {name: ROWS[name] for name in query.tables})
    wanted = expected(case)
    assert found.column_names == list(wanted) == [column.name for column in query.columns]
    assert sorted(query.tables) == sorted(name for name, _ in case.source)
    assert len(joined(case)) > 4 * LEAST
    for column in query.columns:
        values = found.column(column.name).to_pylist()
        if column.role is Role.REAL:
            assert found.column(column.name).type == pa.float64()
            assert values == pytest.approx(wanted[column.name], rel=1e-11, abs=1e-12)
            rounded = [round(value, column.places) for value in values]
            assert rounded == pytest.approx([round(value, column.places) for value in wanted[column.name]], rel=1e-12)
        else:
            kind = pa.int64() if column.role is Role.COUNT else pa.string()
            assert (values, found.column(column.name).type) == (wanted[column.name], kind)
    assert list(labels(query.statement)) == places(case)


def test_the_places_of_numbers_are_those_of_the_declared_ranges() -> None:
    query = ask(
        "SELECT member, COUNT(*) n, SUM(amount), VAR_SAMP(paid), STDDEV_SAMP(balance), MEDIAN(income) FROM loans"
        " JOIN accounts ON loans.id = accounts.person JOIN payments ON payments.id = loans.id GROUP BY member"
    )
    assert [(column.role, column.places) for column in query.columns] == [
        (Role.LABEL, 0),
        (Role.COUNT, 0),
        (Role.REAL, 2),
        (Role.REAL, 6),
        (Role.REAL, 1),
        (Role.REAL, 0),
    ]
    assert query.used == {
        "loans": ("id", "member", "amount", "income"),
        "accounts": ("person", "balance"),
        "payments": ("id", "paid"),
    }


def test_groups_below_the_minimum_have_no_numbers_and_empty_ones_have_counts_of_nothing() -> None:
    ids = [f"p{number}" for number in range(9)]
    table = pa.table({"id": ids, "district": ["Siming"] * 5 + ["Huli"] * 4, "income": pa.array([1] * 9, pa.int64())})
    found = run(
        ask("SELECT district, COUNT(*) n, SUM(income) s FROM loans GROUP BY ROLLUP (district)", 5).sql, {"loans": table}
    )
    assert found.column("n").to_pylist() == [5, None, 0, 0, 9]
    assert found.column("s").to_pylist() == [5.0, None, None, None, 9.0]


def test_people_are_counted_not_rows_where_one_may_have_several() -> None:
    table = pa.table(
        {
            "id": ["a", "a", "a", "a", "b", *"cdefg"],
            "channel": ["web"] * 5 + ["desk"] * 5,
            "paid": decimals([1] * 10, 0),
        }
    )
    found = run(ask("SELECT channel, COUNT(*) n FROM payments GROUP BY channel", 5).sql, {"payments": table})
    assert found.column("n").to_pylist() == [None, 5]


def test_a_key_that_nothing_depends_on_is_not_read() -> None:
    query = ask("SELECT member, COUNT(*) n, MEDIAN(income) m FROM loans WHERE district = 'Huli' GROUP BY member")
    nameless = {"loans": ROWS["loans"].drop_columns(["id"])}
    assert run(query.sql, nameless).equals(run(query.sql, ROWS))
    assert run(query.populations, nameless).equals(run(query.populations, ROWS))


def test_a_value_outside_its_range_stops_the_result_and_is_not_named() -> None:
    for value, is_inside in (
        ("5000.005", True),
        ("5000.0050000001", False),
        ("-5000.005", True),
        ("-5000.0051", False),
    ):
        table = pa.table({"id": ["a"], "amount": pa.array([Decimal(value)], STORED)})
        for function in ("SUM", "AVG", "MEDIAN", "COUNT"):
            sql = ask(f"SELECT {function}(amount) s FROM loans", 1).sql
            if is_inside:
                assert run(sql, {"loans": table}).num_rows == 1
            else:
                with pytest.raises(Exception, match="outside the range") as raised:
                    run(sql, {"loans": table})
                assert "5000" not in str(raised.value)


def test_a_total_that_is_no_longer_exact_stops_the_result() -> None:
    table = pa.table({"id": list("abcd"), "huge": pa.array([1 << 51] * 4, pa.int64())})
    with pytest.raises(Exception, match="too large"):
        run(ask("SELECT SUM(huge) s FROM loans", 1).sql, {"loans": table})
    table = pa.table({"id": list("abcd"), "huge": pa.array([1 << 51, 1 << 51, 1 << 51, (1 << 51) - 1], pa.int64())})
    assert run(ask("SELECT SUM(huge) s FROM loans", 1).sql, {"loans": table}).column("s").to_pylist() == [(1 << 53) - 1]


def test_the_order_of_rows_and_threads_change_no_bit() -> None:
    query = ask(
        "SELECT district, AVG(amount) a, STDDEV_SAMP(balance) s, SUM(income) i FROM loans JOIN accounts"
        " ON loans.id = accounts.person GROUP BY district"
    )
    first = run(query.sql, ROWS)
    order = np.random.default_rng(3).permutation(ROWS["loans"].num_rows)
    assert run(query.sql, {**ROWS, "loans": ROWS["loans"].take(pa.array(order))}, threads=3).equals(first)


def test_a_small_spread_around_a_large_mean_is_exact() -> None:
    values = [10_000_000_000 + value for value in (1, 2, 3, 4, 5, 6, 8)]
    table = pa.table({"id": list("abcdefg"), "huge": pa.array(values, pa.int64())})
    grants = [dataclasses.replace(LOANS)]
    query = analyse("SELECT VAR_SAMP(huge) v FROM loans", grants, (), [MeasureRange("huge", -(1 << 40), 1 << 40)], 1)
    assert run(query.sql, {"loans": table}).column("v").to_pylist() == [statistics.variance(values)]


def test_hostile_names_of_the_scenario_are_names_and_nothing_else() -> None:
    evil = "x\" FROM loans; DROP TABLE loans; --'"
    level = "'); SELECT error('no') --"
    grant = TableGrant(evil, {evil: pa.string(), "place": pa.int64()}, {'k"0': pa.string()})
    grouping = Grouping(Dimension(evil, evil, (level, "t.people")), (level, "t.people"))
    name = '"' + evil.replace('"', '""') + '"'
    text = f"SELECT {name}, COUNT(*) AS g, SUM(place) AS people, MEDIAN(place) AS t FROM {name} GROUP BY {name}"
    query = analyse(text, [grant], [grouping], [MeasureRange("place", 0, 10)], 1)
    table = pa.table(
        {'k"0': ["1", "2", "3"], evil: [level, level, "t.people"], "place": pa.array([1, 2, 9], pa.int64())}
    )
    found = run(query.sql, {evil: table})
    assert found.to_pydict() == {evil: [level, "t.people"], "g": [2, 1], "people": [3.0, 9.0], "t": [1.5, 9.0]}
    assert run(query.populations, {evil: table}).column("people").to_pylist() == [2, 1]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 9),
    st.integers(0, 10),
    st.lists(st.integers(-(10**21), 10**21), max_size=20),
    st.one_of(st.integers(1, (1 << 62) - 1), st.integers(1, 1000), st.integers((1 << 49), (1 << 52))),
)
def test_units_and_bands_are_those_of_totals(places: int, scale: int, values: list[int], bound: int) -> None:
    declared, finer = MeasureRange("v", -bound, bound, places), 10 ** max(scale - places, 0)
    banded = Dimension("band", "v", (), tuple(sorted({-bound // 3, 0, bound // 2})), places)
    half = 5 * 10 ** max(scale - places - 1, 0)
    edges = [edge * finer for edge in (-bound, bound, *banded.edges, 1, 2, bound - 1)]
    numbers = [edge + step for edge in edges for step in (0, half, -half, half - 1, 1)] + values
    table = pa.table({"v": pa.array([Decimal(number).scaleb(-scale) for number in numbers], pa.decimal128(38, scale))})

    grant = Joined(TableGrant("t", {"v": table.schema.field("v").type}, {"k": None}), is_optional=False)
    measured = Measured(0, declared)
    inside = sql_columns.is_inside(measured, grant)
    level = sql_columns.code(Axis(Grouping(banded, cells.levels(banded)), 0, (), is_condition=False), grant)
    units = sql_columns.units(measured, grant, "x")
    joined = f"SELECT {inside} AS inside, {level} AS level, CASE WHEN {inside} THEN v END AS x FROM t AS t0"
    found = run(f"SELECT inside, level, {units} AS units FROM ({joined})", {"t": table})

    assert found.column("level").to_pylist() == cells.group_codes(table, (banded,)).tolist()
    exact = [Decimal(number).scaleb(places - scale, CONTEXT).to_integral_value(ROUND_HALF_EVEN) for number in numbers]
    assert found.column("inside").to_pylist() == [abs(number) <= bound for number in exact]
    (expected_units,), _ = cells.prepare(table.filter(found.column("inside")), (wanted(declared),))
    assert [unit for unit in found.column("units").to_pylist() if unit is not None] == expected_units.tolist()


def test_types_that_do_not_fit_are_refused() -> None:
    def grant(kind: pa.DataType | None) -> list[TableGrant]:
        return [TableGrant("t", {"v": kind}, {"k": pa.string()})]

    banded, named = Dimension("band", "v", (), (1,)), Dimension("named", "v", ("a",))
    for kind in (pa.string(), pa.float64(), pa.date32(), None):
        with pytest.raises(InvalidSpec):
            analyse("SELECT SUM(v) FROM t", grant(kind), [], [MeasureRange("v", 0, 1)], 1)
        with pytest.raises(InvalidSpec):
            analyse(
                "SELECT band, COUNT(*) FROM t GROUP BY band",
                grant(kind),
                [Grouping(banded, cells.levels(banded))],
                [],
                1,
            )
    for kind in (pa.int64(), pa.float64(), pa.date32(), STORED, None):
        with pytest.raises(InvalidSpec):
            analyse("SELECT named, COUNT(*) FROM t GROUP BY named", grant(kind), [Grouping(named, ("a",))], [], 1)
    with pytest.raises(InvalidSpec, match="too wide for a variance"):
        ask("SELECT VAR_SAMP(huge) FROM loans")


def test_the_statement_of_the_page_can_be_asked() -> None:
    page = (Path(__file__).parents[2] / "docs" / "queries.md").read_text(encoding="utf-8")
    (statement,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    query = ask(statement, tables=[dataclasses.replace(LOANS, name="data")])
    assert run(query.sql, {"data": ROWS["loans"]}).num_rows == len(labels(query.statement)) == 9
