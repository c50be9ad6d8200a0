"""Totals with noise: how much it is, what it hides, that it fits, and that nothing else decides what leaves."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kind_parties import NAMES, paillier, ref, scenario
from scipy import stats

from sandbox.errors import InvalidSpec, Unavailable
from sandbox.kinds import cells, noise, sealed
from sandbox.kinds.noise import Number, bound, contribution, deviation, noisy, numbers, scale_of
from sandbox.model import AggregateSpec, Dimension, Measure, MeasureRange, Statistic
from sandbox.mpc.masks import SEED_SIZE, masks
from sandbox.mpc.packing import Layout

CITY, AGE = Dimension("city", "city", ("a", "b", "c")), Dimension("age_band", "age", (), (30, 60))
RANGES = (MeasureRange("income", -50_000, 1_000_000, 2), MeasureRange("hours", 0, 200, 0))
INCOME = Measure("income", Statistic.SUM, "income")
HOURS = Measure("hours", Statistic.MEAN, "hours")
WORKED = Measure("worked", Statistic.WEIGHTED_SUM, "income", "hours")
TOLD = Measure("told", Statistic.COUNT, "income")
AGES = Measure("ages", Statistic.HISTOGRAM, "age_band")
MEASURES = (INCOME, HOURS, WORKED, TOLD, AGES)
HELD = scenario([("city", "age", "income", "hours")] * 3, (CITY, AGE), RANGES)


def spec_of(epsilon: int, measures: Sequence[Measure] = MEASURES, **changes: Any) -> AggregateSpec:
    datasets = tuple(map(ref, NAMES[:3]))
    whole = AggregateSpec(datasets, "", ("city",), tuple(measures), 2048, epsilon_milli=epsilon)
    return replace(whole, **changes)


def shape_of(spec: AggregateSpec) -> cells.Shape:
    return cells.shape(spec.groups, spec.measures, HELD)


def table(rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    """Rows of city, age, income in cents, and hours."""
    cities, ages, cents, hours = zip(*rows, strict=True) if rows else ((), (), (), ())
    incomes = [None if one is None else Decimal(one).scaleb(-2) for one in cents]
    return pa.table(
        {
            "city": pa.array(cities, pa.string()),
            "age": pa.array(ages, pa.int64()),
            "income": pa.array(incomes, pa.decimal128(38, 2)),
            "hours": pa.array(hours, pa.int64()),
        }
    )


Exact = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[Any]]


def exact(shape: cells.Shape, rows: Sequence[tuple[Any, ...]]) -> Exact:
    """What one contributor adds up: numbers of rows, of each measure, and sums."""
    whole = table(rows)
    codes = cells.group_codes(whole, shape.dimensions)
    values, present = cells.prepare(whole, shape.wanted)
    everything = np.ones(whole.num_rows, np.bool_)
    counts = [cells.grouped_counts(codes, mask, shape.cells) for mask in present]
    sums = [cells.grouped_sums(codes, column, shape.cells) for column in values]
    return (
        np.array(cells.grouped_counts(codes, everything, shape.cells), np.int64),
        np.array(counts, np.int64).reshape(len(counts), shape.cells),
        np.array(sums, object).reshape(len(sums), shape.cells),
    )


def whole_numbers(asked: Sequence[Number], own: Exact) -> npt.NDArray[np.int64]:
    return np.stack([number.of(*own) for number in asked], axis=1)


PERSON = st.tuples(
    st.sampled_from(["a", "b", "c", "elsewhere", None]),
    st.none() | st.integers(0, 120),
    st.none() | st.sampled_from([-50_000, 0, 1_000_000]) | st.integers(-50_000, 1_000_000),
    st.none() | st.integers(0, 200),
)
PEOPLE = st.lists(PERSON, max_size=12)


# --- the noise itself -------------------------------------------------------------------------------------------------


def expected(edges: npt.NDArray[np.int64], scale: float) -> npt.NDArray[np.float64]:
    """The probabilities of below the first edge, of from each edge to below the next, and of from the last edge up."""
    p = math.exp(-1 / scale)

    def below(edge: int) -> float:
        return float(p ** (1 - edge) / (1 + p) if edge <= 0 else 1 - p**edge / (1 + p))

    return np.diff([0.0, *(below(int(edge)) for edge in edges), 1.0])


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0, 7.5, 20.25, 1000.0])
def test_the_noise_is_discrete_laplace(scale: float) -> None:
    width, each = max(1, round(scale / 3)), 60_000
    most = round(6 * scale / width)
    edges = np.arange(-most, most + 2) * width
    drawn = noisy(np.zeros(each, np.int64), scale)
    found = np.bincount(np.searchsorted(edges, drawn, side="right"), minlength=len(edges) + 1)
    wanted = expected(edges, scale) * each
    assert wanted.min() > 5
    assert stats.chisquare(found, wanted).pvalue > 1e-9


def test_every_number_has_noise_of_its_own_around_its_value() -> None:
    values = np.arange(2_000, dtype=np.int64) * 10**12
    once, again = noisy(values, 1e6) - values, noisy(values, 1e6) - values
    assert len(np.unique(once)) > 1_900 and not np.array_equal(once, again)
    assert np.abs(once).max() <= bound(1e6)
    assert stats.pearsonr(once, again).pvalue > 1e-9 and stats.pearsonr(once[1:], once[:-1]).pvalue > 1e-9


def test_without_a_scale_there_is_no_noise() -> None:
    assert noisy(np.array([3, -4], np.int64), 0.0).tolist() == [3, -4]
    assert (bound(0.0), deviation(0.0), scale_of(0, Fraction(1, 10))) == (0, 0.0, 0.0)


@given(st.integers(1, 10**15), st.integers(1, 10_000), st.integers(1, 40))
def test_the_scale_is_the_least_that_suffices(sensitivity: int, epsilon_milli: int, shares: int) -> None:
    epsilon = Fraction(epsilon_milli, 1000 * shares)
    scale = scale_of(sensitivity, epsilon)
    assert sensitivity / Fraction(scale) <= epsilon < sensitivity / Fraction(math.nextafter(scale, 0))


def test_the_library_gives_the_same_loss() -> None:
    from opendp.domains import atom_domain, vector_domain
    from opendp.measurements import make_laplace
    from opendp.metrics import l1_distance

    noisy(np.zeros(1, np.int64), 1.0)  # switches on what is needed
    for sensitivity, epsilon in ((1, Fraction(1, 7)), (1_000_000, Fraction(3, 10)), (7, Fraction(10))):
        made = make_laplace(vector_domain(atom_domain(T="i64")), l1_distance(T="i64"), scale_of(sensitivity, epsilon))
        assert made.map(sensitivity) == pytest.approx(float(epsilon), rel=1e-12)


@given(st.floats(0.05, 1e15))
def test_the_bound_is_met_but_with_probability_two_to_minus_64(scale: float) -> None:
    def log2_beyond(most: int) -> float:
        return (math.log(2) - (most + 1) / scale - math.log1p(math.exp(-1 / scale))) / math.log(2)

    assert log2_beyond(bound(scale)) <= -64
    assert log2_beyond(int(0.9 * bound(scale)) - 2) > -64  # and no wider than it must be


@pytest.mark.parametrize("scale", [0.3, 2.0, 50.0])
def test_the_deviation_is_that_of_the_distribution(scale: float) -> None:
    p = math.exp(-1 / scale)
    second = sum(2 * k * k * p**k for k in range(1, 5_000)) * (1 - p) / (1 + p)
    assert deviation(scale) == pytest.approx(math.sqrt(second), rel=1e-12)


# --- what it hides ----------------------------------------------------------------------------------------------------


def loss(asked: Sequence[Number], one: Exact, other: Exact) -> Fraction:
    """The most that the logarithms of the probabilities of any answer differ by: exact, noise by noise."""
    apart = np.abs(whole_numbers(asked, one) - whole_numbers(asked, other)).sum(axis=0)
    return sum((Fraction(int(by)) / Fraction(n.scale) for by, n in zip(apart, asked, strict=True) if by), Fraction(0))


@settings(max_examples=150, deadline=None)
@given(PEOPLE, PERSON, PERSON, st.integers(1, 10_000), st.sets(st.sampled_from(MEASURES), min_size=1))
def test_no_person_costs_more_than_the_job_was_charged(
    people: list[Any], person: Any, other: Any, epsilon_milli: int, measures: set[Measure]
) -> None:
    spec = spec_of(epsilon_milli, [one for one in MEASURES if one in measures])
    shape, charged = shape_of(spec), Fraction(epsilon_milli, 1000)
    asked = numbers(spec, shape)
    without, beside = exact(shape, people), exact(shape, [*people, person])
    assert loss(asked, without, beside) <= charged
    assert loss(asked, beside, exact(shape, [*people, other])) <= 2 * charged  # one in another's place


def test_the_budget_is_used_up_by_who_adds_most() -> None:
    spec = spec_of(700)
    shape = shape_of(spec)
    largest = exact(shape, [("a", 40, 1_000_000, 200)])
    assert float(loss(numbers(spec, shape), exact(shape, []), largest)) == pytest.approx(0.7, rel=1e-12)


@pytest.mark.parametrize(("low", "high", "most"), [(-900, 100, 900), (5, 10, 10), (-10, -5, 10), (0, 0, 0)])
def test_the_largest_thing_one_person_can_add_counts_whatever_its_sign(low: int, high: int, most: int) -> None:
    spec = spec_of(1000, [INCOME])
    held = replace(HELD, measures=(MeasureRange("income", low, high, 0),))
    rows, income = numbers(spec, cells.shape(spec.groups, spec.measures, held))
    assert (rows.scale, income.scale) == (2.0, 2.0 * most)
    assert (income.low, income.high) == (min(low, 0), max(high, 0))  # a row without a value adds 0


def law(scale: float, value: int, low: int, high: int) -> npt.NDArray[np.longdouble]:
    """The probability of every outcome from ``low`` to ``high`` of a number with noise, clamped to them."""
    at = np.abs(np.arange(low, high + 1, dtype=np.longdouble) - value)
    p = np.exp(-1 / np.longdouble(scale))
    made = (1 - p) / (1 + p) * p**at
    made[0], made[-1] = p ** at[0] / (1 + p), p ** at[-1] / (1 + p)  # with everything beyond
    return made


@pytest.mark.parametrize("parties", [1, 3])
def test_no_answer_is_much_likelier_with_a_person_than_without(parties: int) -> None:
    """By the probabilities of all answers; clamping and the others' noise are in them."""
    epsilon = Fraction(1, 2)
    scale = scale_of(3, epsilon)
    low, high = -20, 5 + 20  # narrower than any real layout, so that clamping shows
    for value in range(0, 3):
        without, beside = law(scale, value, low, high), law(scale, value + 3, low, high)
        assert float(without.sum()) == pytest.approx(1, abs=1e-15)
        for _ in range(parties - 1):
            others = law(scale, 0, low, high)
            without, beside = np.convolve(without, others), np.convolve(beside, others)
        ratios = np.abs(np.log(without) - np.log(beside))
        assert float(ratios.max()) <= float(epsilon) + 1e-12
        assert parties > 1 or float(ratios.max()) == pytest.approx(float(epsilon), abs=1e-12)


def test_a_row_is_hidden_from_all_the_others_together() -> None:
    """What a contributor hands over has the whole noise in it already, whoever subtracts what."""
    spec = spec_of(100)
    shape = shape_of(spec)
    asked = numbers(spec, shape)
    room = noise.layout(asked, {"bank": 400, "operator": 400}, 2048)
    own = exact(shape, [("abc"[n % 3], 20 + n % 60, 1_000 * n, n % 200) for n in range(400)])
    for place, number in enumerate(asked):
        drawn = np.array([contribution(asked, room, *own)[0, place] for _ in range(40)])
        blur = drawn - whole_numbers(asked, own)[0, place]
        # Forty draws whose squares are on average far too small, or far too large, are not of this law.
        assert 0.1 < float(np.mean(blur.astype(float) ** 2)) / deviation(number.scale) ** 2 < 20


# --- how it travels ---------------------------------------------------------------------------------------------------


def brought_together(layout: Layout, parts: Sequence[npt.NDArray[np.int64]], number: int) -> npt.NDArray[Any]:
    """Masked, encrypted, added up, decrypted: what the key holder sees."""
    parties = NAMES[: len(parts)]
    pairs = {frozenset((a, b)): os.urandom(SEED_SIZE) for a in parties for b in parties if a < b}
    key, total = paillier(layout.key_bits), b""
    for me, part in zip(parties, parts, strict=True):
        seeds = {other: pairs[frozenset((me, other))] for other in parties if other != me}
        hidden = masks(me, seeds, b"job", layout.mask_slots(number), layout.mask_bits)
        cipher = key.public.encrypt(layout.pack(part, masks=hidden))
        total = cipher if not total else key.public.add(total, cipher)
    columns = sealed.opened(layout, key.decrypt(total), len(parts), number)
    return np.array(columns, object).T


@pytest.mark.parametrize("parties", [2, 3, 5])
def test_joint_numbers_are_the_exact_ones_within_the_noise(parties: int) -> None:
    spec = spec_of(10_000)
    shape = shape_of(spec)
    asked = numbers(spec, shape)
    owns = [
        exact(shape, [("abc"[n % 3], n % 90, 100 * n - 5_000 * who, n % 150) for n in range(50 * (who + 1))])
        for who in range(parties)
    ]
    room = noise.layout(asked, {NAMES[who]: 50 * (who + 1) for who in range(parties)}, 2048)
    together = brought_together(room, [contribution(asked, room, *own) for own in owns], shape.cells)
    plain = sum(whole_numbers(asked, own) for own in owns)
    for place, number in enumerate(asked):
        off = [abs(int(one)) for one in together[:, place] - plain[:, place]]
        assert max(off) <= parties * number.bound and (number.scale < 100 or max(off) > 0)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-(10**6), 0), st.integers(0, 10**6), st.floats(0, 1e5)), min_size=1, max_size=6),
    st.integers(2, 5),
    st.integers(0, 10**6),
    st.data(),
)
def test_the_slots_hold_the_most_and_the_least_there_can_be(
    ranges: list[tuple[int, int, float]], parties: int, rows: int, data: st.DataObject
) -> None:
    asked = [Number(f"n{n}", "sum", n, *one[:2], 0, one[2]) for n, one in enumerate(ranges)]
    room = noise.layout(asked, {NAMES[who]: rows for who in range(parties)}, 2048)
    edges = [
        np.array([[data.draw(st.sampled_from((c.low, c.high))) for c in room.columns] for _ in range(2)])
        for _ in range(parties)
    ]
    assert np.array_equal(brought_together(room, edges, 2), sum(edge.astype(object) for edge in edges))
    for beyond in (1, -1):
        far = np.array([[(c.high if beyond > 0 else c.low) + beyond for c in room.columns]])
        with pytest.raises(InvalidSpec, match="outside the declared range"):
            room.pack(far, masks=np.zeros((room.mask_slots(1), 2), np.uint64))


def test_what_is_drawn_beyond_the_room_is_clamped_to_public_limits() -> None:
    spec = spec_of(1000, [INCOME])
    shape = shape_of(spec)
    asked = numbers(spec, shape)
    room = noise.layout(asked, dict.fromkeys(NAMES[:3], 20), 2048)
    wild = [replace(number, scale=1e6 * number.scale) for number in asked]  # nearly all draws are beyond
    low, high = (np.array([getattr(column, edge) for column in room.columns]) for edge in ("low", "high"))
    for rows in ([], [("a", 1, 1_000_000, 1)] * 20):
        made = np.concatenate([contribution(wild, room, *exact(shape, rows)) for _ in range(20)])
        assert (made >= low).all() and (made <= high).all()
        assert {*np.unique(made[:, 0])} >= {low[0], high[0]} and {*np.unique(made[:, 1])} >= {low[1], high[1]}
    assert low.tolist() == [20 * n.low - n.bound for n in asked]
    assert high.tolist() == [20 * n.high + n.bound for n in asked]


# --- what leaves ------------------------------------------------------------------------------------------------------


def totals_of(asked: Sequence[Number], rows: list[int], measured: list[int], sums: list[int]) -> npt.NDArray[Any]:
    held = {"rows": rows, "count": measured, "sum": sums}
    return np.array([held[number.source] for number in asked], object).T


def test_cells_that_seem_too_small_are_blank_and_only_they() -> None:
    spec = spec_of(1000)
    shape = shape_of(spec)
    asked = numbers(spec, shape)
    assert [number.measure for number in asked] == ["rows", "income", "hours", "hours", "worked", "told", *["ages"] * 3]
    # Numbers of rows of the second cell are one too few; of the third, those that tell their measure are.
    made = noise.statistics(shape, asked, totals_of(asked, [10, 9, 50], [10, 40, 9], [123, -1 << 60, 4_000]), 10)
    first, second, third = made.to_pylist()
    assert first == {
        "city": "a",
        "rows": 10,
        "income": 1.23,
        "hours": 12.0,
        "worked": 1.23,
        "told": 10,
        "ages: below 30": 10,
        "ages: 30 to below 60": 10,
        "ages: 60 and above": 10,
    }
    assert second.pop("city") == "b" and set(second.values()) == {None}
    assert (third["rows"], third["income"], third["worked"]) == (50, 40.0, 40.0)
    assert (third["hours"], third["told"], third["ages: below 30"]) == (None, None, None)
    assert made.schema.types == [pa.string(), pa.int64(), pa.float64(), pa.float64(), pa.float64(), *[pa.int64()] * 4]


@settings(deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=3, max_size=3), st.integers(0, 30))
def test_no_number_of_rows_below_the_minimum_is_shown(rows: list[int], minimum: int) -> None:
    spec = spec_of(1000)
    shape = shape_of(spec)
    asked = numbers(spec, shape)
    made = noise.statistics(shape, asked, totals_of(asked, rows, rows[::-1], [7, 8, 9]), minimum)
    for name in ("rows", "told", "ages: below 30"):
        shown = [one for one in made.column(name).to_pylist() if one is not None]
        assert all(one >= max(minimum, 1) for one in shown)
    is_blank = [one < max(minimum, 1) for one in rows]
    assert [one is None for one in made.column("rows").to_pylist()] == is_blank
    assert [one is None for one in made.column("income").to_pylist()] == is_blank


def test_without_small_cells_it_is_the_plain_table() -> None:
    spec = spec_of(1000, groups=("city", "age_band"))
    shape = shape_of(spec)
    asked = numbers(spec, shape)
    people = [(c, a, 1_234 * n, n) for c in "abc" for a in (20, 40, 70) for n in range(1, 13)]
    own = exact(shape, people)
    plain = cells.statistics(shape, own[0].tolist(), own[1].tolist(), own[2].tolist())
    bands = [name for name in plain.column_names if name.startswith("ages")]  # a band holds nobody of other ages
    made = noise.statistics(shape, asked, whole_numbers(asked, own), 10)
    assert made.drop_columns(bands).equals(plain.drop_columns(bands))


def test_the_gate_is_given_public_numbers_only() -> None:
    assert noise.gate_inputs({"bank": 40, "operator": 60}, 250) == {"rows": 100, "epsilon_milli": 250}


# --- what is refused, and what is told before -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epsilon_milli": 0}, "epsilon_milli must be 1 to 10000"),
        ({"epsilon_milli": 10_001}, "epsilon_milli must be 1 to 10000"),
        ({"datasets": (), "alignment": "cd" * 16}, "not over an alignment"),
        ({"margins": True}, "no margins"),
        ({"measures": (Measure("spread", Statistic.VARIANCE, "hours"),)}, "'spread': a variance drowns"),
    ],
)
def test_what_noise_has_no_use_for_is_refused(changes: dict[str, Any], words: str) -> None:
    spec = spec_of(1000, **changes)
    with pytest.raises(InvalidSpec, match=words):
        numbers(spec, shape_of(spec))


def test_ranges_too_wide_for_noise_are_refused() -> None:
    wide = replace(HELD, measures=(MeasureRange("income", 0, 1 << 50, 2), MeasureRange("hours", 0, 200)))
    spec = spec_of(100, [INCOME])
    with pytest.raises(InvalidSpec, match="'income': the noise could be larger"):
        numbers(spec, cells.shape(spec.groups, spec.measures, wide))
    whole = replace(spec, epsilon_milli=10_000)
    narrow = replace(HELD, measures=(MeasureRange("income", 0, 1 << 45, 2),))
    asked = numbers(whole, cells.shape(whole.groups, whole.measures, narrow))
    noise.layout(asked, {"bank": 1 << 16, "operator": 10}, 2048)
    with pytest.raises(InvalidSpec, match="'income': the declared range is too wide"):
        noise.layout(asked, {"bank": 1 << 17, "operator": 10}, 2048)


def test_the_budget_is_split_evenly_and_a_mean_takes_two_shares() -> None:
    asked = numbers(spec_of(700), shape_of(spec_of(700)))
    shares = 7  # rows, income, two of hours, worked, told, ages
    most = {"income": 1_000_000, "worked": 200_000_000}
    for number in asked:
        change = most.get(number.measure, 200) if number.source == "sum" else 1
        assert number.scale == pytest.approx(change * shares / 0.7, rel=1e-12)


def test_the_plan_says_how_much_noise_there_will_be() -> None:
    spec = spec_of(700)
    told = noise.reveals(spec, shape_of(spec), NAMES[:4])
    assert [one.party for one in told] == [*NAMES[:4], *["recipient"] * 8]
    assert all(0 < len(one.what) <= 512 and 0 < len(one.what_zh) <= 512 for one in told)
    lines = [one.what for one in told[4:]]
    own = deviation(7 / 0.7)  # of a number of rows
    assert lines[0].startswith("the totals by group with noise, for epsilon 0.700 of the budget")
    assert (
        lines[1]
        == f"rows: a number of rows in each group with a standard deviation of {2 * own:.1f} ({own:.1f} from each of 4)"
    )
    assert lines[2].startswith("income: a sum in each group with a standard deviation of 283000 (141000 from each")
    assert [line.split(":")[0] for line in lines[1:]] == ["rows", "income", "hours", "hours", "worked", "told", "ages"]


def test_a_node_without_the_library_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert noise.unavailable() == ""
    monkeypatch.setitem(sys.modules, "opendp.domains", None)
    with pytest.raises(Unavailable, match="opendp does not load"):
        noisy(np.zeros(1, np.int64), 1.0)
