"""From rows to cells: bands and values, exact numbers, their sums, and what a scenario or a job may not ask."""

from __future__ import annotations

import itertools
from dataclasses import replace
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kind_parties import scenario

from sandbox.errors import InvalidSpec, ProtocolFailed, WrongState
from sandbox.kinds import cells
from sandbox.kinds.cells import Shape
from sandbox.kinds.counted import Counted
from sandbox.model import Dimension, Measure, MeasureRange, Statistic

MOST = 1 << 62
STORED = pa.decimal128(38, 10)  # how the vault keeps a decimal
AGE = Dimension("age_band", "age", (), (18, 30, 65))
BALANCE = Dimension("balance_band", "balance", (), (-500, 0, 1999), 2)
CITY = Dimension("city", "city", ("Beijing", "上海", "north"))
MEMBER = Dimension("member", "member", ("true", "false"))
DIMENSIONS = (AGE, BALANCE, CITY, MEMBER)
RANGES = (
    MeasureRange("income", -100_000, 10_000_000, 2),
    MeasureRange("age", 0, 15_000, 2),
    MeasureRange("member", 0, 1),
    MeasureRange("weight", 0, 1000, 3),
    MeasureRange("wide", -MOST + 1, MOST - 1),
)
HELD = scenario([("age", "balance", "city", "member", "income", "weight", "wide")], DIMENSIONS, RANGES)


def decimals(*values: Any) -> pa.Array:
    return pa.array([None if v is None else Decimal(v) for v in values], STORED)


def codes(column: pa.Array, dimension: Dimension) -> list[int]:
    table = pa.table({dimension.column: column})
    found: list[int] = cells.group_codes(table, (dimension,)).tolist()
    return found


def shape(groups: tuple[str, ...] = (), *measures: Measure) -> Shape:
    return cells.shape(groups, measures, HELD)


def added(measure: Measure, table: pa.Table) -> tuple[list[list[int]], list[list[bool]]]:
    sums, counted = cells.prepare(table, shape((), measure).wanted)
    return [one.tolist() for one in sums], [one.tolist() for one in counted]


# --- cells ----------------------------------------------------------------------------------------------------------


def test_bands_are_named_and_half_open() -> None:
    assert cells.levels(AGE) == ("below 18", "18 to below 30", "30 to below 65", "65 and above")
    assert cells.levels(BALANCE) == ("below -5.00", "-5.00 to below 0.00", "0.00 to below 19.99", "19.99 and above")
    assert cells.levels(Dimension("d", "c", (), (-5, 7), 3)) == (
        "below -0.005",
        "-0.005 to below 0.007",
        "0.007 and above",
    )
    ages = pa.array([-(1 << 63), -1, 17, 18, 29, 30, 64, 65, (1 << 63) - 1, None], pa.int64())
    assert codes(ages, AGE) == [0, 0, 0, 1, 1, 2, 2, 3, 3, -1]


def test_decimals_fall_into_the_band_they_are_in_not_the_one_they_round_to() -> None:
    column = decimals("-5.01", "-5.0000000001", "-5", "-0.0000000001", "0", "19.9899999999", "19.99", "20", None)
    assert codes(column, BALANCE) == [0, 0, 1, 1, 2, 2, 3, 3, -1]
    assert codes(column.slice(5, 3), BALANCE) == [2, 3, 3]
    assert codes(decimals("-" + "9" * 27, "9" * 27), BALANCE) == [0, 3]


def test_the_largest_number_a_column_can_hold_is_in_the_last_band_and_in_no_sum() -> None:
    largest = decimals("9" * 28 + "." + "9" * 10, "-" + "9" * 28 + "." + "9" * 10)
    assert codes(largest, BALANCE) == [3, 0]
    for column in (largest, decimals("9" * 27)):
        with pytest.raises(WrongState):
            added(Measure("s", Statistic.SUM, "income"), pa.table({"income": column}))


def test_integers_fall_into_bands_with_places() -> None:
    assert codes(pa.array([-6, -5, -1, 0, 19, 20, 1 << 62, None], pa.int64()), BALANCE) == [0, 1, 1, 2, 2, 3, 3, -1]


def test_texts_and_truth_values_have_the_levels_they_name() -> None:
    texts = pa.array(["north", "Beijing", "上海", "south", "", None, "beijing"])
    assert codes(texts, CITY) == [2, 0, 1, -1, -1, -1, -1]
    assert codes(texts.dictionary_encode(), CITY) == [2, 0, 1, -1, -1, -1, -1]
    chunked = pa.chunked_array([["north"], [], ["上海", None]], pa.string())
    assert cells.group_codes(pa.table({"city": chunked}), (CITY,)).tolist() == [2, 1, -1]
    assert codes(pa.array([True, False, None]), MEMBER) == [0, 1, -1]
    numbers = pa.array([17, 18, None], pa.int64()).dictionary_encode()
    assert codes(numbers, AGE) == [0, 1, -1]


def test_cells_are_the_product_the_last_dimension_fastest() -> None:
    table = pa.table({"city": ["Beijing", "north", "north", "west", "上海"], "age": [70, 17, 20, 20, None]})
    assert cells.group_codes(table, (CITY, AGE)).tolist() == [3, 8, 9, -1, -1]
    names = cells.labels((CITY, AGE))
    assert list(zip(names["city"].to_pylist(), names["age_band"].to_pylist(), strict=True)) == list(
        itertools.product(cells.levels(CITY), cells.levels(AGE))
    )
    assert shape(("city", "age_band"), Measure("n", Statistic.COUNT, "age")).cells == 12
    assert cells.group_codes(table, ()).tolist() == [0] * 5
    assert cells.labels(()).num_columns == 0 and shape((), Measure("n", Statistic.COUNT, "age")).cells == 1


def test_a_table_without_rows_has_cells_all_the_same() -> None:
    empty = pa.table({"age": pa.array([], pa.int64()), "city": pa.array([], pa.string()), "income": decimals()})
    assert cells.group_codes(empty, (AGE, CITY)).tolist() == []
    wanted = shape((), Measure("s", Statistic.VARIANCE, "income"), Measure("n", Statistic.COUNT, "age")).wanted
    sums, counted = cells.prepare(empty, wanted)
    assert [one.tolist() for one in (*sums, *counted)] == [[], [], [], []]
    assert cells.grouped_sums(np.zeros(0, np.int32), sums[0], 3) == [0, 0, 0]
    assert cells.grouped_counts(np.zeros(0, np.int32), counted[0], 3) == [0, 0, 0]


@pytest.mark.parametrize(
    ("column", "dimension"),
    [
        (pa.array([1, 2], pa.int64()), CITY),
        (pa.array([1.5, 2.5]), AGE),
        (pa.array(["18", "30"]), AGE),
        (pa.array([1, 2], pa.date32()), AGE),
    ],
)
def test_a_column_of_another_type_is_refused(column: pa.Array, dimension: Dimension) -> None:
    with pytest.raises(InvalidSpec):
        codes(column, dimension)


# --- numbers --------------------------------------------------------------------------------------------------------


def test_values_are_rounded_half_to_even_and_counted_where_they_are() -> None:
    table = pa.table({"income": decimals("1.005", "1.015", "-1.005", "1.0050000001", "0.004", None)})
    sums, counted = added(Measure("s", Statistic.SUM, "income"), table)
    assert sums == [[100, 102, -100, 101, 0, 0]]
    assert counted == [[True] * 5 + [False]]
    sums, _ = added(Measure("v", Statistic.VARIANCE, "income"), table)
    assert sums == [[100, 102, -100, 101, 0, 0], [10_000, 10_404, 10_000, 10_201, 0, 0]]


def test_truth_values_add_up_as_ones() -> None:
    sums, counted = added(Measure("m", Statistic.MEAN, "member"), pa.table({"member": [True, False, None]}))
    assert (sums, counted) == ([[1, 0, 0]], [[True, True, False]])


def test_a_weighted_sum_counts_rows_that_have_both() -> None:
    table = pa.table({"income": decimals("2.50", None, "-1.00", "4"), "weight": decimals("0.5", "0.1", None, "1")})
    sums, counted = added(Measure("w", Statistic.WEIGHTED_SUM, "income", "weight"), table)
    assert (sums, counted) == ([[250 * 500, 0, 0, 400 * 1000]], [[True, False, False, True]])


def test_a_count_takes_any_column_and_a_histogram_every_band() -> None:
    table = pa.table({"city": ["a", None, "b"], "age": pa.array([17, None, 70], pa.int64())})
    assert added(Measure("n", Statistic.COUNT, "city"), table) == ([], [[True, False, True]])
    sums, counted = added(Measure("h", Statistic.HISTOGRAM, "age_band"), table)
    assert sums == [] and counted == [[True, False, False], [False] * 3, [False] * 3, [False, False, True]]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, 151], pa.int64()),
        pa.array([-1, 5], pa.int64()),
        pa.array([(1 << 63) - 1], pa.int64()),
        pa.array([-(1 << 63)], pa.int64()),
        decimals("150.5000000001"),
        decimals("-0.6"),
        decimals("7" * 26),
    ],
)
def test_a_value_outside_its_range_ends_the_job_and_is_not_told(column: pa.Array) -> None:
    with pytest.raises(WrongState) as refusal:
        added(Measure("s", Statistic.SUM, "age"), pa.table({"age": column}))
    told = f"{refusal.value} {refusal.value.tell} {refusal.value.hint}"
    assert "'age'" in told and refusal.value.__cause__ is None and refusal.value.__suppress_context__ is False
    assert not any(str(value).strip("-") in told for value in column.to_pylist() if abs(value) > 9)
    assert not any(character.isdigit() for character in told)


def test_values_at_the_bounds_are_taken() -> None:
    values = [-MOST + 1, MOST - 1, 0]
    table = pa.table({"wide": pa.array(values, pa.int64())})
    assert added(Measure("s", Statistic.SUM, "wide"), table)[0] == [values]
    for beyond in (MOST, -MOST):
        with pytest.raises(WrongState):
            added(Measure("s", Statistic.SUM, "wide"), pa.table({"wide": pa.array([beyond], pa.int64())}))
    stored = pa.table({"wide": decimals(*values)})
    assert added(Measure("s", Statistic.SUM, "wide"), stored)[0] == [values]


@given(
    st.lists(st.one_of(st.none(), st.decimals("-999.99", "99999.99", places=10)), max_size=40),
    st.sampled_from((0, 2, 9)),
)
@settings(max_examples=60, deadline=None)
def test_decimals_become_the_whole_numbers_the_decimal_library_gives(values: list[Decimal | None], places: int) -> None:
    declared = MeasureRange("x", -(10**14), 10**14, places)
    (wanted,) = cells.shape((), (Measure("s", Statistic.SUM, "x"),), replace(HELD, measures=(declared,))).wanted
    (sums,), (counted,) = cells.prepare(pa.table({"x": decimals(*values)}), (wanted,))
    unit = Decimal(1).scaleb(-places)
    exact = [0 if v is None else int(v.quantize(unit, ROUND_HALF_EVEN).scaleb(places)) for v in values]
    assert sums.tolist() == exact and counted.tolist() == [v is not None for v in values]
    edges = (-(10**3), 0, 7, 10**5)
    found = codes(decimals(*values), Dimension("d", "x", (), edges, places))
    floors = [None if v is None else int(v.quantize(unit, ROUND_FLOOR).scaleb(places)) for v in values]
    assert found == [-1 if f is None else sum(f >= edge for edge in edges) for f in floors]


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_sums_are_exact_however_large(data: st.DataObject) -> None:
    rows = data.draw(st.integers(0, 60))
    groups = data.draw(st.lists(st.integers(-1, 4), min_size=rows, max_size=rows))
    values = data.draw(st.lists(st.integers(-MOST + 1, MOST - 1), min_size=rows, max_size=rows))
    mask = data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows))
    placed = np.array(groups, np.int32)
    pairs = list(zip(groups, values, strict=True))
    assert cells.grouped_sums(placed, np.array(values, np.int64), 5) == [
        sum(value for group, value in pairs if group == cell) for cell in range(5)
    ]
    assert cells.grouped_counts(placed, np.array(mask, np.bool_), 5) == [
        sum(g == cell and m for g, m in zip(groups, mask, strict=True)) for cell in range(5)
    ]


def test_a_thousand_of_the_largest_values_are_beyond_64_bits_and_exact() -> None:
    values = np.full(1000, MOST - 1, np.int64)
    assert cells.grouped_sums(np.zeros(1000, np.int32), values, 2) == [1000 * (MOST - 1), 0]
    assert cells.grouped_sums(np.ones(1000, np.int32), -values, 2) == [0, -1000 * (MOST - 1)]


# --- the table ------------------------------------------------------------------------------------------------------


def totals(made: Shape, table: pa.Table) -> pa.Table:
    """What a party alone makes of its rows."""
    placed = cells.group_codes(table, made.dimensions)
    sums, counted = cells.prepare(table, made.wanted)
    everything = np.ones(table.num_rows, np.bool_)
    rows = cells.grouped_counts(placed, everything, made.cells)
    return cells.statistics(
        made,
        rows,
        [cells.grouped_counts(placed, one, made.cells) for one in counted],
        [cells.grouped_sums(placed, one, made.cells) for one in sums],
    )


def test_every_statistic_is_what_pandas_says() -> None:
    random = np.random.default_rng(3)
    count = 500
    frame = pd.DataFrame(
        {
            "city": random.choice(["Beijing", "上海", "north", "west"], count),
            "age": random.integers(0, 100, count),
            "income": random.integers(-100_000, 10_000_000, count),
            "weight": random.integers(0, 1000, count),
        }
    )
    frame["missing"] = random.random(count) < 0.2
    table = pa.table(
        {
            "city": pa.array(frame["city"], pa.string()),
            "age": pa.array(frame["age"], pa.int64()),
            "income": decimals(
                *(None if gone else Decimal(n) / 100 for n, gone in zip(frame["income"], frame["missing"], strict=True))
            ),
            "weight": decimals(*(Decimal(n) / 1000 for n in frame["weight"])),
        }
    )
    asked = [
        Measure("mean_age", Statistic.MEAN, "age"),
        Measure("incomes", Statistic.COUNT, "income"),
        Measure("income", Statistic.SUM, "income"),
        Measure("weighted", Statistic.WEIGHTED_SUM, "income", "weight"),
        Measure("ages", Statistic.HISTOGRAM, "age_band"),
    ]
    made = shape(("city",), *asked)
    found = totals(made, table).to_pandas().set_index("city")
    spread = totals(shape(("city",), Measure("spread", Statistic.VARIANCE, "income")), table).to_pandas()
    spread = spread.set_index("city")["spread"]
    frame = frame[frame["city"] != "west"]
    income = (frame["income"] / 100).where(~frame["missing"])
    expected = frame.groupby("city").size()
    grouped = income.groupby(frame["city"])
    for city in cells.levels(CITY):
        row = found.loc[city]
        own = frame[frame["city"] == city]
        assert row["rows"] == expected[city] and row["incomes"] == grouped.count()[city]
        assert row["mean_age"] == pytest.approx(own["age"].mean(), abs=0.5e-2)
        assert row["income"] == pytest.approx(grouped.sum()[city], abs=1e-6)
        assert spread[city] == pytest.approx(grouped.var()[city], rel=1e-9)
        both = (income * frame["weight"] / 1000)[frame["city"] == city].sum()
        assert row["weighted"] == pytest.approx(both, rel=1e-12)
        bands = np.histogram(own["age"], [-1, 18, 30, 65, 1000])[0].tolist()
        assert [row[f"ages: {level}"] for level in cells.levels(AGE)] == bands
    assert list(found.columns) == list(cells.result_columns(made))


@given(st.lists(st.integers(-100_000, 10_000_000), min_size=0, max_size=12))
@settings(max_examples=50, deadline=None)
def test_means_and_variances_are_the_exact_ones_rounded(cents: list[int]) -> None:
    table = pa.table({"income": decimals(*(Decimal(n) / 100 for n in cents))})
    mean, variance = Measure("m", Statistic.MEAN, "income"), Measure("v", Statistic.VARIANCE, "income")
    ((one,), (other,)) = (totals(shape((), measure), table).to_pylist() for measure in (mean, variance))
    count, total = len(cents), Fraction(sum(cents), 100)
    assert one["rows"] == other["rows"] == count
    if count < 1:
        assert one["m"] is None
    else:
        assert abs(Fraction(one["m"]) - total / count) <= Fraction(1, 200) + Fraction(1, 10**9)
    if count < 2:
        assert other["v"] is None
    else:
        exact = (sum(Fraction(n, 100) ** 2 for n in cents) - total**2 / count) / (count - 1)
        assert abs(Fraction(other["v"]) - exact) <= Fraction(1, 20_000) + abs(exact) / 2**50
    assert cells.result_places(shape((), mean)) == {"m": 2} and cells.result_places(shape((), variance)) == {"v": 4}


def test_a_total_that_a_float_would_not_hold_exactly_is_not_given() -> None:
    sums = Measure("s", Statistic.SUM, "wide")
    for value, fits in (((1 << 53) - 1, True), (1 << 53, False), (-(1 << 53), False), (1 - (1 << 53), True)):
        table = pa.table({"wide": pa.array([value], pa.int64())})
        if fits:
            assert totals(shape((), sums), table)["s"].to_pylist() == [float(value)]
            continue
        with pytest.raises(WrongState, match="too large to be given exactly") as refusal:
            totals(shape((), sums), table)
        assert str(1 << 53) not in f"{refusal.value}{refusal.value.hint}"


def test_places_are_as_many_as_the_columns_have() -> None:
    made = shape(
        (),
        Measure("s", Statistic.SUM, "income"),
        Measure("w", Statistic.WEIGHTED_SUM, "income", "weight"),
        Measure("a", Statistic.MEAN, "age"),
        Measure("n", Statistic.COUNT, "age"),
        Measure("h", Statistic.HISTOGRAM, "member"),
    )
    assert cells.result_places(made) == {"s": 2, "w": 5, "a": 2}
    assert cells.result_columns(made) == {
        "rows": True,
        "s": False,
        "w": False,
        "a": False,
        "n": True,
        "h: true": True,
        "h: false": True,
    }


# --- what is refused ------------------------------------------------------------------------------------------------

SUM = Measure("s", Statistic.SUM, "income")


@pytest.mark.parametrize(
    ("groups", "measures", "told"),
    [
        (("district",), (SUM,), "no dimension 'district'"),
        (("city", "city"), (SUM,), "named twice"),
        (("city",), (replace(SUM, name="city"),), "the same name"),
        ((), (replace(SUM, name="rows"),), "the same name"),
        ((), (SUM, Measure("s", Statistic.MEAN, "age")), "the same name"),
        ((), (Measure("h", Statistic.HISTOGRAM, "member"), replace(SUM, name="h: true")), "the same name"),
        (("city",), (Measure("h", Statistic.HISTOGRAM, "district"),), "no dimension 'district'"),
        ((), (SUM, Measure("m", Statistic.MEAN, "income")), "two of sum, mean and variance of 'income'"),
        ((), (SUM, Measure("v", Statistic.VARIANCE, "income")), "two of sum, mean and variance of 'income'"),
        ((), (Measure("s", Statistic.SUM, "balance"),), "no range for 'balance'"),
        ((), (Measure("w", Statistic.WEIGHTED_SUM, "income", "city"),), "no range for 'city'"),
        ((), (Measure("w", Statistic.WEIGHTED_SUM, "income"),), "a weight goes with"),
        ((), (replace(SUM, weight="weight"),), "a weight goes with"),
        ((), (Measure("n", Statistic.COUNT, "age", "weight"),), "a weight goes with"),
        ((), (Measure("v", Statistic.VARIANCE, "wide"),), "too wide"),
        ((), (Measure("w", Statistic.WEIGHTED_SUM, "wide", "age"),), "too wide"),
    ],
)
def test_a_job_that_the_scenario_does_not_carry_is_refused(groups: Any, measures: Any, told: str) -> None:
    with pytest.raises(InvalidSpec) as refusal:
        shape(groups, *measures)
    assert told in refusal.value.tell


def test_a_sum_and_a_mean_of_different_columns_tell_nothing_together() -> None:
    assert shape((), SUM, replace(SUM, name="again")).measure_columns == ("income",)  # the same twice is no more
    made = shape((), SUM, Measure("m", Statistic.MEAN, "age"), Measure("n", Statistic.COUNT, "income"))
    assert made.counts == 3 and made.measure_columns == ("income", "age")
    assert made.bounds == ((-100_000, 10_000_000), (0, 15_000))
    assert shape((), Measure("v", Statistic.VARIANCE, "income")).bounds == (
        (-100_000, 10_000_000),
        (0, 10_000_000**2),
    )


def test_bounds_of_a_weighted_sum_are_the_corners() -> None:
    ranges = (MeasureRange("a", -3, 5), MeasureRange("b", -7, 2))
    (wanted,) = cells.shape(
        (), (Measure("w", Statistic.WEIGHTED_SUM, "a", "b"),), replace(HELD, measures=ranges)
    ).wanted
    assert wanted.bounds == ((-35, 21),)


def test_more_groups_than_a_table_may_have_are_refused() -> None:
    many = tuple(Dimension(name, "age", (), tuple(range(1, 101))) for name in ("a", "b"))
    with pytest.raises(InvalidSpec, match="the groups are 10201"):
        cells.shape(("a", "b"), (SUM,), replace(HELD, dimensions=many))


def test_more_numbers_than_a_message_may_carry_are_refused() -> None:
    many = tuple(Dimension(name, "age", (), tuple(range(1, 91))) for name in ("a", "b"))
    held = replace(HELD, dimensions=many)
    counts = tuple(Measure(f"n{n}", Statistic.COUNT, "age") for n in range(11))
    assert cells.shape(("a", "b"), counts[:10], held).cells == 8281
    with pytest.raises(InvalidSpec, match="more than 100000 numbers"):
        cells.shape(("a", "b"), (*counts, Measure("h", Statistic.HISTOGRAM, "a")), held)


# --- who is left out ------------------------------------------------------------------------------------------------


def test_rows_left_out_are_counted_in_every_way_there_is() -> None:
    """Two tables of which one has a dimension more differ by exactly these."""
    table = pa.table(
        {"city": ["north", "west", "west", None, "Beijing", "上海"], "member": [True, True, None, None, False, None]}
    )
    made = shape(("city", "member"), Measure("n", Statistic.COUNT, "age"))
    assert made.cells == 6 and made.rest == 4 * 3 - 6
    rest = dict(zip(REST, cells.rest_counts(table, (CITY, MEMBER)), strict=True))
    assert rest == {
        ("Beijing", None): 0,
        ("上海", None): 1,
        ("north", None): 0,
        (None, "true"): 1,
        (None, "false"): 0,
        (None, None): 2,
    }
    assert cells.rest_counts(table, ()) == [] and shape((), Measure("n", Statistic.COUNT, "age")).rest == 0
    assert cells.rest_counts(table, (CITY,)) == [3]


REST = [("Beijing", None), ("上海", None), ("north", None), (None, "true"), (None, "false"), (None, None)]


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_every_row_is_in_a_cell_or_left_out_once(data: st.DataObject) -> None:
    rows = data.draw(st.integers(0, 30))
    texts = st.lists(st.sampled_from([*CITY.values, "west", None]), min_size=rows, max_size=rows)
    ages = st.lists(st.one_of(st.none(), st.integers(0, 99)), min_size=rows, max_size=rows)
    table = pa.table({"city": pa.array(data.draw(texts), pa.string()), "age": pa.array(data.draw(ages), pa.int64())})
    dimensions = tuple(data.draw(st.permutations([CITY, AGE]))[: data.draw(st.integers(0, 2))])
    made = cells.shape(tuple(one.name for one in dimensions), (Measure("n", Statistic.COUNT, "age"),), HELD)
    listed = cells.grouped_counts(cells.group_codes(table, dimensions), np.ones(rows, np.bool_), made.cells)
    rest = cells.rest_counts(table, dimensions)
    assert len(rest) == made.rest and sum(listed) + sum(rest) == rows


@pytest.mark.parametrize(
    ("dimension", "told"),
    [
        (Dimension("d", "c"), "either values or edges"),
        (Dimension("d", "c", ("a",), (1,)), "either values or edges"),
        (Dimension("d", "c", ("a", "a")), "a value twice"),
        (Dimension("d", "c", (), (2, 1)), "ascending"),
        (Dimension("d", "c", (), (1, 1)), "ascending"),
        (Dimension("d", "c", (), (1,), 10), "0 to 9 places"),
        (Dimension("d", "c", (), (1,), -1), "0 to 9 places"),
        (Dimension("d", "c", ("a",), (), 1), "none with values"),
    ],
)
def test_dimensions_that_make_no_sense(dimension: Dimension, told: str) -> None:
    assert told in cells.check_dimension(dimension)


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        (MeasureRange("c", 0, 1, 10), "0 to 9 places"),
        (MeasureRange("c", 0, 1, -1), "0 to 9 places"),
        (MeasureRange("c", 2, 1), "low <= high"),
        (MeasureRange("c", 0, MOST), "below 2^62"),
        (MeasureRange("c", -MOST, 0), "below 2^62"),
    ],
)
def test_ranges_that_make_no_sense(declared: MeasureRange, told: str) -> None:
    assert told in cells.check_range(declared)


def test_those_of_these_tests_make_sense() -> None:
    assert not any(map(cells.check_dimension, DIMENSIONS)) and not any(map(cells.check_range, RANGES))
    assert cells.check_range(MeasureRange("c", -MOST + 1, MOST - 1, 9)) == ""


# --- numbers of rows ------------------------------------------------------------------------------------------------


def test_numbers_of_rows_travel_whole_or_not_at_all() -> None:
    made = shape(("member",), SUM, Measure("h", Statistic.HISTOGRAM, "member"))
    counted = Counted(np.array([5, 7]), np.array([[4, 7], [5, 0], [0, 6]]), np.array([3]))
    content = counted.to_bytes()
    again = Counted.from_bytes(content, made)
    assert [one.tolist() for one in (again.rows, again.measured, again.rest)] == [
        [5, 7],
        [[4, 7], [5, 0], [0, 6]],
        [3],
    ]
    assert counted.gate_inputs(made) == {
        "rows": 12,
        **{"group.0": 5, "group.1": 7, "rest.0": 3},
        **{"group.0.0.0": 4, "group.1.0.0": 7, "rest.0.0": 1, "rest.1.0": 0},
        **{"group.0.1.0": 5, "group.1.1.0": 0, "group.0.1.1": 0, "group.1.1.1": 6, "rest.0.1": 0, "rest.1.1": 1},
    }
    for other in (content[:-8], content + bytes(8), content[:-1], b""):
        with pytest.raises(ProtocolFailed, match="other groups") as refusal:
            Counted.from_bytes(other, made, "bank", "reveal")
        assert (refusal.value.party, refusal.value.stage) == ("bank", "reveal")
