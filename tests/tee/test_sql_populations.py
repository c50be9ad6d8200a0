"""What gates are told about a statement, against a count by hand over the same rows."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sql_world import DIMENSIONS, MEASURES, PAYMENTS, ask, decimals, run
from test_sql_results import CASES, FRAMES, LEVELS, ROWS, Case, places

from sandbox.tee_sim.sql import Query, analyse
from sandbox.tee_sim.sql_populations import MEASURED, OUTSIDE, SIDES
from sandbox.tee_sim.sql_terms import QUANTILES

UNIQUE = {"loans", "accounts", "firms", "shops"}


def everybody(case: Case) -> pd.DataFrame:
    """All rows of all tables, with partners or without."""
    whole: pd.DataFrame | None = None
    for name, _ in case.source:
        own = FRAMES[name].assign(**{f"in {name}": True})
        keys = [column for column in own.columns if column.startswith("key")]
        if whole is None:
            whole = own
        else:
            whole = whole.merge(own.drop(columns=["#late"], errors="ignore"), how="outer", on=keys)
    assert whole is not None
    whole["person"] = list(zip(*(whole[key] for key in keys), strict=True))
    return whole.astype(object).where(whole.notna(), None)


def counted(case: Case, asked: Query) -> dict[str, Any]:
    """Count by hand: groups in order, atoms and the rest as they come."""
    rows = everybody(case).to_dict("records")
    axes = [axis.name for axis in asked.statement.axes]
    kept: list[dict[str, Any]] = []
    rest: Counter[tuple[Any, ...]] = Counter()
    people: dict[tuple[Any, ...], set[Any]] = {}
    left: list[dict[str, Any]] = []
    for row in rows:
        states = []
        for name in axes:
            level = row[name]
            chosen = case.where.get(name, LEVELS[name])
            states.append("none" if level is None else "in" if level in chosen else "other")
        states += ["there" if row[f"in {name}"] else "absent" for name, how in case.source if how != "left"]
        if all(state in ("in", "there") for state in states):
            kept.append(row)
            continue
        levels = [row[name] if states[at] == "in" else None for at, name in enumerate(case.groups)]
        way = (*states, *levels)
        rest[way] += 1
        people.setdefault(way, set()).add(row["person"])
        if None not in levels:
            left.append(row)
    groups = [
        dict(group(case, asked, kept, place), others=len(persons(inside(case, left, place)))) for place in places(case)
    ]
    atoms: dict[tuple[Any, ...], set[Any]] = {}
    for row in kept:
        atoms.setdefault(tuple(row[name] for name in axes), set()).add(row["person"])
    has_atoms = any(len(axis.chosen) > 1 for axis in asked.statement.conditions)
    return {
        "group": groups,
        "atom": sorted(len(one) for one in atoms.values()) if has_atoms else [],
        "rest": sorted((rest[way], len(people[way])) for way in rest),
    }


def inside(case: Case, rows: list[dict[str, Any]], place: tuple[str | None, ...]) -> list[dict[str, Any]]:
    wanted = [(name, level) for name, level in zip(case.groups, place, strict=True) if level is not None]
    return [row for row in rows if all(row[name] == level for name, level in wanted)]


def persons(rows: list[dict[str, Any]]) -> set[Any]:
    return {row["person"] for row in rows}


def group(case: Case, asked: Query, kept: list[dict[str, Any]], place: tuple[str | None, ...]) -> dict[str, Any]:
    rows = inside(case, kept, place)
    made: dict[str, Any] = {"rows": len(rows), "people": len(persons(rows))}
    for j, measured in enumerate(asked.statement.measured):
        column = f"#{measured.range.column}"
        with_it = [row for row in rows if row[column] is not None]
        sums: Counter[Any] = Counter()
        for row in with_it:
            sums[row["person"]] += row[column]
        parts = sorted((abs(part) for part in sums.values()), reverse=True)
        made |= {
            f"m{j}_people": len(persons(with_it)),
            f"m{j}_without": len(persons([row for row in rows if row[column] is None])),
            f"m{j}_largest": parts[0] if parts else 0,
            f"m{j}_second": parts[1] if len(parts) > 1 else 0,
            f"m{j}_total": sum(parts),
            f"m{j}_alike": int(len({row[column] for row in with_it}) == 1),
            f"m{j}_large": 0,
            f"m{j}_outside": 0,
        }
    for i, number in enumerate(asked.statement.numbers):
        if number.function in QUANTILES and number.measured is not None:
            column = f"#{number.measured.range.column}"
            values = sorted(row[column] for row in rows if row[column] is not None)
            at = float(number.fraction) * (len(values) - 1)
            if UNIQUE.issuperset(asked.tables):
                made[f"q{i}_below"] = math.floor(at) + 1 if values else 0
                made[f"q{i}_above"] = len(values) - math.ceil(at) if values else 0
            elif values:
                found = np.quantile([float(value) for value in values], float(number.fraction))
                made[f"q{i}_below"] = len(
                    persons([row for row in rows if row[column] is not None and row[column] <= found])
                )
                made[f"q{i}_above"] = len(
                    persons([row for row in rows if row[column] is not None and row[column] >= found])
                )
    return made


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.text[:70])
def test_populations_are_what_a_count_by_hand_gives(case: Case) -> None:
    asked = ask(case.text)
    found = run(asked.populations, {name: ROWS[name] for name in asked.tables}).to_pylist()
    by_hand = counted(case, asked)
    groups = [row for row in found if row["part"] == "group"]
    assert [row["place"] for row in groups] == list(range(len(places(case))))
    assert [
        {name: int(row[name]) for name in wanted} for row, wanted in zip(groups, by_hand["group"], strict=True)
    ] == (by_hand["group"])
    assert sorted(row["people"] for row in found if row["part"] == "atom") == by_hand["atom"]
    assert sorted((row["rows"], row["people"]) for row in found if row["part"] == "rest") == by_hand["rest"]


def test_every_row_is_in_a_group_or_in_the_rest() -> None:
    asked = ask("SELECT district, COUNT(*) n FROM loans WHERE member = 'true' GROUP BY district")
    found = run(asked.populations, ROWS).to_pylist()
    assert sum(row["rows"] for row in found) == ROWS["loans"].num_rows
    assert len({row["way"] for row in found}) > 3


def test_the_sign_of_a_sum_hides_nobody() -> None:
    table = pa.table(
        {
            "id": list("aabbcd"),
            "paid": decimals([9, 1, 2, 3, 4, None], 0),
            "channel": ["web"] * 6,
        }
    )
    signed = table.set_column(1, "paid", decimals([-9, -1, 2, 3, 4, None], 0))
    declared = [dataclasses.replace(one, low=-10_000) if one.column == "paid" else one for one in MEASURES]
    asked = analyse("SELECT SUM(paid) s FROM payments", [PAYMENTS], DIMENSIONS, declared, 1)
    for rows in (table, signed):
        (row,) = run(asked.populations, {"payments": rows}).to_pylist()
        assert (row["m0_largest"], row["m0_second"], row["m0_total"]) == (10_000, 5_000, 19_000)
        assert (row["people"], row["m0_people"], row["m0_without"]) == (4, 3, 1)


def test_a_value_outside_its_range_is_counted_wherever_its_row_is() -> None:
    asked = ask("SELECT district, AVG(income) a FROM loans GROUP BY district")
    for district in ("Huli", "elsewhere", None):
        for value, outside in ((1_000_001, 1), (-1, 1), (1_000_000, 0), (None, 0)):
            columns = {"district": pa.array([district], pa.string()), "income": pa.array([value], pa.int64())}
            found = run(asked.populations, {"loans": pa.table({"id": ["a"], **columns})})
            assert sum(found.column("m0_outside").to_pylist()) == outside


def test_a_total_that_is_not_exact_is_marked() -> None:
    asked = ask("SELECT SUM(huge) s FROM loans")
    for last, is_large in ((1 << 51, 1), ((1 << 51) - 1, 0)):
        table = pa.table({"id": list("abcd"), "huge": pa.array([1 << 51] * 3 + [last], pa.int64())})
        assert run(asked.populations, {"loans": table}).column("m0_large").to_pylist() == [is_large]


def test_a_group_that_everybody_is_in_has_no_others() -> None:
    asked = ask("SELECT member, COUNT(*) n FROM loans WHERE district = 'Huli' GROUP BY member")
    columns = {"member": pa.array([True, True, False]), "district": ["Huli", "Huli", "Siming"]}
    found = run(asked.populations, {"loans": pa.table({"id": list("abc"), **columns})}).to_pylist()
    assert [(row["people"], row["others"]) for row in found if row["part"] == "group"] == [(2, 0), (0, 1)]


def test_the_populations_have_the_columns_they_say() -> None:
    asked = ask("SELECT member, SUM(income) s, MEDIAN(amount) m FROM loans GROUP BY member")
    measured = [f"m{j}_{name}" for j in range(2) for name in (*MEASURED, OUTSIDE)]
    sides = [f"q1_{side}" for side in SIDES]
    names = run(asked.populations, ROWS).column_names
    assert sorted(names) == sorted(["part", "place", "way", "c0", "rows", "people", "others", *measured, *sides])
