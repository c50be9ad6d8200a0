"""Totals with noise, from rows to what leaves: near the exact ones, and nothing exact is ever shown."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from kind_parties import NAMES, Room, ref, room, scenario

from sandbox.errors import WrongState
from sandbox.kinds import cells, contributors, noise
from sandbox.model import AggregateSpec, Dimension, Measure, MeasureRange, Statistic

FIELDS = ("city", "age", "income")
CITY, AGE = Dimension("city", "city", ("a", "b", "c")), Dimension("age_band", "age", (), (30, 60))
INCOME = MeasureRange("income", -500, 10_000, 0)
TOTAL = Measure("income", Statistic.SUM, "income")
MEAN = Measure("mean", Statistic.MEAN, "income")
TOLD = Measure("told", Statistic.COUNT, "income")
AGES = Measure("ages", Statistic.HISTOGRAM, "age_band")
MOST = 10_000  # the largest epsilon, in thousandths


def people(seed: int, rows: int = 60, richest: int = 10_000) -> pa.Table:
    random = np.random.default_rng(seed)
    incomes = [Decimal(int(one)) for one in random.integers(-500, 10_001, rows)]
    return pa.table(
        {
            "id": pa.array([f"{seed}-{n}" for n in range(rows)]),
            "city": pa.array(random.choice(["a", "b", "c", "elsewhere"], rows)),
            "age": pa.array(random.integers(10, 90, rows)),
            "income": pa.array([Decimal(richest), None, *incomes[2:]], pa.decimal128(38, 0)),
        }
    )


def ask(tables: Sequence[pa.Table], epsilon_milli: int, *measures: Measure, **options: Any) -> Room:
    minimum, recipient = options.pop("minimum", 0), options.pop("recipient", "")
    held = scenario([FIELDS] * len(tables), (CITY, AGE), (INCOME,), minimum, recipient)
    datasets = tuple(map(ref, NAMES[: len(tables)]))
    spec = AggregateSpec(datasets, "", ("city",), measures, 2048, epsilon_milli=epsilon_milli)
    return room(spec, held, tables, **options)


def exact(tables: Sequence[pa.Table], *measures: Measure) -> pa.Table:
    """The table without noise, over everybody's rows in one place."""
    held = scenario([FIELDS] * len(tables), (CITY, AGE), (INCOME,))
    made, whole = cells.shape(("city",), measures, held), pa.concat_tables(tables)
    codes = cells.group_codes(whole, made.dimensions)
    sums, counted = cells.prepare(whole, made.wanted)
    return cells.statistics(
        made,
        cells.grouped_counts(codes, np.ones(whole.num_rows, np.bool_), made.cells),
        [cells.grouped_counts(codes, one, made.cells) for one in counted],
        [cells.grouped_sums(codes, one, made.cells) for one in sums],
    )


def apart(found: pa.Table, wanted: pa.Table, name: str) -> list[float]:
    both = zip(found.column(name).to_pylist(), wanted.column(name).to_pylist(), strict=True)
    return [abs(one - other) for one, other in both]


@pytest.mark.parametrize(("parties", "recipient"), [(2, "bank"), (3, "bank"), (3, "witness"), (5, "operator")])
def test_the_table_is_the_exact_one_within_the_noise(parties: int, recipient: str) -> None:
    tables, measures = [people(n) for n in range(parties)], (TOTAL, TOLD, AGES)
    asked = ask(tables, MOST, *measures, recipient=recipient)
    found, wanted = asked.run()["noisy_totals"], exact(tables, *measures)
    bounds = {one.measure: parties * one.bound for one in noise.numbers(asked.spec.kind, shape_of(asked))}  # type: ignore[arg-type]
    for name in ("rows", "told", "income"):
        assert max(apart(found, wanted, name)) <= bounds[name]
    assert max(apart(found, wanted, "income")) > 0


def shape_of(asked: Room) -> cells.Shape:
    spec: Any = asked.spec.kind
    return cells.shape(spec.groups, spec.measures, asked.scenario)


def test_nothing_is_said_but_secrets_keys_and_ciphertexts() -> None:
    asked = ask([people(n) for n in range(3)], 1000, MEAN, TOLD, AGES)
    raw = asked.compute()
    assert {message.label for message in asked.said} == {"seed", "key", "cipher"}
    for left in raw.values():
        assert left.gate_inputs == {"rows": 180, "epsilon_milli": 1000}
        assert not (left.figures or left.tables or left.populations)
    assert {(who, name) for who, _, name in asked.artefacts} == {("operator", "share-for-bank")}


def test_two_runs_over_the_same_rows_differ() -> None:
    tables = [people(n) for n in range(2)]
    assert not ask(tables, 1000, TOTAL).exact().equals(ask(tables, 1000, TOTAL).exact())


def test_numbers_of_rows_alone_are_sealed_too() -> None:
    asked = ask([people(n) for n in range(3)], MOST, TOLD)
    asked.run()
    assert [m.to for m in asked.said if m.label == "share"] == [contributors.key_holder(asked.plan)]


def test_small_cells_stay_blank_and_do_not_withhold_the_rest() -> None:
    tables = [people(n, 300) for n in range(3)]
    few = [one.filter(pc.not_equal(one["city"], "c")) for one in tables]
    found = ask(few, MOST, MEAN, TOLD, minimum=60).run()["noisy_totals"].to_pylist()
    assert [row["rows"] is None for row in found] == [False, False, True]
    assert all(value is None for name, value in found[2].items() if name != "city")
    assert all(value is not None for row in found[:2] for value in row.values())


def test_a_value_out_of_range_counts_as_the_bound_and_ends_nothing() -> None:
    """With exact totals it ends the job; here that would be an exact test on somebody's value."""
    rich, poor = [people(1, richest=10**9), people(2)], [people(1), people(2)]
    with pytest.raises(WrongState, match="outside the range"):
        ask(rich, 0, TOTAL).run()
    found, wanted = ask(rich, MOST, TOTAL).exact(), exact(poor, TOTAL)
    assert max(apart(found, wanted, "income")) < 10**6
