"""What statements are written against in these tests: five tables of one owner or several, and what may be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from sandbox.kinds import cells
from sandbox.model import Dimension, MeasureRange
from sandbox.tee_sim.sql import Grouping, Query, TableGrant, analyse

STORED: Final = pa.decimal128(38, 10)  # how the vault keeps a decimal
DIMENSIONS: Final = tuple(
    Grouping(dimension, cells.levels(dimension))
    for dimension in (
        Dimension("district", "district", ("Siming", "Huli", "o'Neill", '思明"区')),
        Dimension("sex", "sex", ("F", "M")),
        Dimension("age_band", "age", (), (30, 60)),
        Dimension("balance_band", "balance", (), (0, 100050), 2),
        Dimension("member", "member", ("true", "false")),
        Dimension("区县", "county", ("甲", "乙")),
        Dimension("channel", "channel", ("web", "desk")),
    )
)
MEASURES: Final = (
    MeasureRange("income", 0, 1_000_000),
    MeasureRange("amount", -500_000, 500_000, 2),
    MeasureRange("late", 0, 1),
    MeasureRange("balance", -10_000_000, 10_000_000, 1),
    MeasureRange("paid", 0, 10_000, 3),
    MeasureRange("income_k", 0, 1_000_000, 3),
    MeasureRange("huge", -(1 << 61), 1 << 61),
)
LOANS: Final = TableGrant(
    "loans",
    {
        "district": pa.string(),
        "age": pa.int64(),
        "income": pa.int64(),
        "income_k": pa.int64(),
        "amount": STORED,
        "late": pa.bool_(),
        "member": pa.bool_(),
        "huge": pa.int64(),
        "name": pa.string(),
        "opened": pa.date32(),
    },
    {"id": pa.string()},
)
ACCOUNTS: Final = TableGrant(
    "accounts",
    {"sex": pa.string(), "balance": STORED, "county": pa.string(), "late": pa.bool_()},
    {"person": pa.string()},
)
PAYMENTS: Final = TableGrant("payments", {"paid": STORED, "channel": pa.string()}, {"id": pa.string()}, is_unique=False)
VISITS: Final = TableGrant("visits", {"channel": pa.string()}, {"who": pa.string()}, is_unique=False)
FIRMS: Final = TableGrant(
    "firms", {"district": pa.string(), "income": pa.int64()}, {"org": pa.int64(), "no": pa.string()}
)
SHOPS: Final = TableGrant("shops", {"sex": pa.string()}, {"org": pa.int64(), "no": pa.string()})
TABLES: Final = (LOANS, ACCOUNTS, PAYMENTS, VISITS, FIRMS, SHOPS)
LEAST: Final = 5


def ask(text: str, least: int = LEAST, tables: Sequence[TableGrant] = TABLES) -> Query:
    """Analyse a statement against this world."""
    return analyse(text, tables, DIMENSIONS, MEASURES, least)


SETTINGS: Final = (
    "SET temp_directory = ''",
    "SET python_enable_replacements = false",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET enable_external_access = false",
)


def run(sql: str, tables: Mapping[str, pa.Table], threads: int = 1) -> pa.Table:
    """Run one statement where nothing but the tables can be reached, and nothing of that changed."""
    with closed(threads) as connection:
        for name, table in tables.items():
            connection.register(name, table)
        found: pa.Table = connection.sql(sql).to_arrow_table()
        return found


def closed(threads: int = 1) -> duckdb.DuckDBPyConnection:
    """Return a database that reaches nothing outside."""
    connection = duckdb.connect(":memory:")
    for setting in (f"SET threads = {threads}", *SETTINGS, "SET lock_configuration = true"):
        connection.execute(setting)
    return connection


def decimals(units: Sequence[int | None], places: int) -> pa.Array:
    """Return a column of decimals, from whole numbers of 10^-places."""
    return pa.array([None if unit is None else Decimal(unit).scaleb(-places) for unit in units], STORED)


def rows(people: int = 600, seed: int = 7) -> dict[str, pa.Table]:
    """Return rows for all tables; some values are missing, some levels are not of any dimension."""
    rng = np.random.default_rng(seed)

    def some(values: Sequence[Any], count: int) -> list[Any]:
        return [values[number] for number in rng.integers(0, len(values), count)]

    def gaps(values: list[Any]) -> list[Any]:
        return [None if rng.random() < 0.07 else value for value in values]

    def whole(low: int, high: int, count: int) -> list[int]:
        return [int(value) for value in rng.integers(low, high, count, endpoint=True)]

    districts = ["Siming", "Huli", "o'Neill", '思明"区', "elsewhere", None]
    loans = pa.table(
        {
            "id": [f"p{number}" for number in range(people)],
            "district": some(districts, people),
            "age": pa.array(gaps(whole(18, 90, people)), pa.int64()),
            "income": pa.array(gaps(whole(0, 1_000_000, people)), pa.int64()),
            "income_k": pa.array(gaps(whole(0, 1000, people)), pa.int64()),
            "amount": decimals(gaps(whole(-4_999_999, 4_999_999, people)), 3),
            "late": pa.array(gaps(some([True, False], people)), pa.bool_()),
            "member": pa.array(gaps(some([True, False], people)), pa.bool_()),
            "huge": pa.array(gaps(whole(-(1 << 40), 1 << 40, people)), pa.int64()),
            "name": [f"name {number}" for number in range(people)],
            "opened": pa.array([1] * people, pa.date32()),
        }
    )
    holders = people * 3 // 4
    accounts = pa.table(
        {
            "person": [f"p{number}" for number in range(people // 3, people // 3 + holders)],
            "sex": pa.array(some(["F", "M", None], holders)).dictionary_encode(),
            "balance": decimals(gaps(whole(-99_999_999, 99_999_999, holders)), 2),
            "county": pa.array(some(["甲", "乙", "丙"], holders)),
            "late": pa.array(some([True, False], holders), pa.bool_()),
        }
    )
    bills = people * 2
    payments = pa.table(
        {
            "id": [f"p{number}" for number in whole(0, people // 2, bills)],
            "paid": decimals(gaps(whole(0, 99_999, bills)), 4),
            "channel": some(["web", "desk", "post"], bills),
        }
    )
    firms = pa.table(
        {
            "org": pa.array(whole(1, 3, people), pa.int64()),
            "no": [f"n{number}" for number in range(people)],
            "district": some(districts, people),
            "income": pa.array(whole(0, 1_000_000, people), pa.int64()),
        }
    )
    shops = (
        firms.select(["org", "no"]).slice(0, people // 2).append_column("sex", pa.array(some(["F", "M"], people // 2)))
    )
    return {"loans": loans, "accounts": accounts, "payments": payments, "firms": firms, "shops": shops}


def frame(table: pa.Table, key: Sequence[str]) -> pd.DataFrame:
    """Return a table with its dimensions as names of levels and its measures as numbers, by the rules of totals."""
    made: dict[str, Any] = {f"key{at}": table.column(name).to_pylist() for at, name in enumerate(key)}
    for grouping in DIMENSIONS:
        if grouping.dimension.column in table.column_names:
            codes = cells.group_codes(table, (grouping.dimension,)).tolist()
            made[grouping.dimension.name] = [None if code < 0 else grouping.levels[code] for code in codes]
    for declared in MEASURES:
        if declared.column in table.column_names:
            (units,), (present,) = cells.prepare(table, (wanted(declared),))
            made[f"#{declared.column}"] = [
                int(unit) if there else None for unit, there in zip(units.tolist(), present.tolist(), strict=True)
            ]
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in made.items()})


def wanted(declared: MeasureRange) -> cells.Wanted:
    """Return the sum of a column as totals have it."""
    from sandbox.model import Measure, Statistic

    return cells.Wanted(Measure("sum", Statistic.SUM, declared.column), declared, None, None)
