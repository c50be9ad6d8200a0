"""From rows to the cells of a table of totals: who is in which group, and what counts there. One party alone.

    group_codes(table, dimensions)  -> for every row the number of its cell, -1 if it is in none
    labels(dimensions)              -> the cells in order, as the first columns of the result
    prepare(table, measures)        -> for every row what is added up, as whole numbers, and where it is missing

Shapes:  cells are the product of the dimensions' levels, the last dimension fastest. A dimension over text or truth
         values has the levels it names, and rows with another value are in no cell; one over numbers has a band below
         its first edge, one between any two, and one from its last edge up; a missing value is in no cell.
Units:   whole numbers of 10^-places, places as the scenario declares for the column; halves are rounded to even.
Errors:  ``InvalidSpec`` for a job the scenario has no dimension or range for, or that asks for a sum and a mean of one
         column (together they tell the exact number that rounding hides); ``WrongState`` for a value outside the
         declared range, never saying which or how many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise, product
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sandbox.errors import InvalidSpec, WrongState
from sandbox.model import Dimension, Measure, MeasureRange, Scenario, Statistic

MOST_CELLS: Final = 10_000
MOST_NUMBERS: Final = 100_000  # of a table: they travel in one message
MOST_PLACES: Final = 9
EXACT: Final = 1 << 53  # units; a larger total would not be delivered exactly
MOST_VALUE: Final = 1 << 62  # of one row's contribution; sums may be larger

Codes: TypeAlias = npt.NDArray[np.int32]
Whole: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]

_ADDED: Final = {
    Statistic.SUM: 1,
    Statistic.MEAN: 1,
    Statistic.VARIANCE: 2,
    Statistic.WEIGHTED_SUM: 1,
    Statistic.COUNT: 0,
    Statistic.HISTOGRAM: 0,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """One measure of a job, with what the scenario says about its columns."""

    measure: Measure
    value: MeasureRange | None  # None of a count or a histogram
    weight: MeasureRange | None
    bands: Dimension | None  # of a histogram

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the dataset it reads."""
        if self.bands is not None:
            return (self.bands.column,)
        return (self.measure.column, self.measure.weight) if self.measure.weight else (self.measure.column,)

    @property
    def names(self) -> tuple[str, ...]:
        """Its columns in the result: one, or one a band."""
        if self.bands is not None:
            return tuple(f"{self.measure.name}: {level}" for level in levels(self.bands))
        return (self.measure.name,)

    @property
    def counts(self) -> int:
        """How many numbers of rows it has in every cell: one, or one a band."""
        return len(self.names)

    @property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """Between which bounds lies each of the numbers that a row adds to a sum."""
        if self.value is None:
            return ()
        low, high = self.value.low, self.value.high
        if self.weight is not None:
            corners = [a * b for a in (low, high) for b in (self.weight.low, self.weight.high)]
            return ((min(corners), max(corners)),)
        if self.measure.statistic is Statistic.VARIANCE:
            return (low, high), (0, max(low * low, high * high))
        return ((low, high),)


@dataclass(frozen=True, slots=True)
class Shape:
    """A job's table: its dimensions, and its measures."""

    dimensions: tuple[Dimension, ...]
    wanted: tuple[Wanted, ...]

    @property
    def cells(self) -> int:
        """How many groups there are."""
        return int(np.prod([len(levels(dimension)) for dimension in self.dimensions], dtype=np.int64))

    @property
    def rest(self) -> int:
        """How many cells there are for rows that are left out: those without a level in at least one dimension."""
        return int(np.prod([len(levels(one)) + 1 for one in self.dimensions], dtype=np.int64)) - self.cells

    @property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """The bounds of all numbers a row adds to sums, measure after measure."""
        return tuple(bound for wanted in self.wanted for bound in wanted.bounds)

    @property
    def counts(self) -> int:
        """How many numbers of rows a cell has beside that of the cell itself."""
        return sum(wanted.counts for wanted in self.wanted)

    @property
    def group_columns(self) -> tuple[str, ...]:
        """The columns that sort rows into groups."""
        return tuple(dict.fromkeys(dimension.column for dimension in self.dimensions))

    @property
    def measure_columns(self) -> tuple[str, ...]:
        """The columns that are added up or counted."""
        return tuple(dict.fromkeys(column for wanted in self.wanted for column in wanted.columns))


def shape(groups: Sequence[str], measures: Sequence[Measure], scenario: Scenario) -> Shape:
    """Return the table a job asks for.

    Raises:
        InvalidSpec: the scenario does not declare what it needs, or it asks for what must not be in one table.
    """
    dimensions = {dimension.name: dimension for dimension in scenario.dimensions}
    ranges = {one.column: one for one in scenario.measures}
    missing = [name for name in groups if name not in dimensions]
    if missing:
        raise InvalidSpec(tell=f"the scenario has no dimension {missing[0]!r}")
    if len(set(groups)) != len(groups):
        raise InvalidSpec(tell="a dimension is named twice")
    _refuse_telling_pairs(measures)
    wanted = tuple(_wanted(measure, ranges, dimensions) for measure in measures)
    names = [*groups, "rows", *(name for one in wanted for name in one.names)]
    if len(set(names)) != len(names):
        raise InvalidSpec(tell="two columns of the result have the same name (rows is always one)")
    made = Shape(tuple(dimensions[name] for name in groups), wanted)
    if made.cells * (1 + made.counts + len(made.bounds)) > MOST_NUMBERS:
        raise InvalidSpec(tell=f"the table would hold more than {MOST_NUMBERS} numbers", hint="ask for less at once")
    if made.cells > MOST_CELLS:
        raise InvalidSpec(tell=f"the groups are {made.cells}; at most {MOST_CELLS} are allowed")
    return made


def check_dimension(dimension: Dimension) -> str:
    """Return what is wrong with a dimension; empty if nothing is."""
    if bool(dimension.values) == bool(dimension.edges):
        return "must have either values or edges"
    if len(set(dimension.values)) != len(dimension.values):
        return "names a value twice"
    if list(dimension.edges) != sorted(set(dimension.edges)):
        return "must have ascending edges"
    if not 0 <= dimension.places <= MOST_PLACES or (dimension.values and dimension.places):
        return f"must have 0 to {MOST_PLACES} places, and none with values"
    return ""


def check_range(declared: MeasureRange) -> str:
    """Return what is wrong with a range; empty if nothing is."""
    if not 0 <= declared.places <= MOST_PLACES:
        return f"must have 0 to {MOST_PLACES} places"
    if not -MOST_VALUE < declared.low <= declared.high < MOST_VALUE:
        return "must have low <= high, both below 2^62"
    return ""


def levels(dimension: Dimension) -> tuple[str, ...]:
    """Return the names of a dimension's levels, in order."""
    if dimension.values:
        return dimension.values
    edges = [_decimal(edge, dimension.places) for edge in dimension.edges]
    between = [f"{low} to below {high}" for low, high in pairwise(edges)]
    return (f"below {edges[0]}", *between, f"{edges[-1]} and above")


def labels(dimensions: Sequence[Dimension]) -> pa.Table:
    """Return the cells in order, a column for each dimension."""
    rows = list(product(*(levels(dimension) for dimension in dimensions)))
    return pa.table(
        {
            dimension.name: pa.array([row[place] for row in rows], pa.string())
            for place, dimension in enumerate(dimensions)
        }
    )


def group_codes(table: pa.Table, dimensions: Sequence[Dimension]) -> Codes:
    """Return the number of the cell each row is in, -1 if in none."""
    codes: Codes = np.zeros(table.num_rows, np.int32)
    for dimension in dimensions:
        own = _codes(table.column(dimension.column), dimension)
        codes = np.where((codes < 0) | (own < 0), -1, codes * len(levels(dimension)) + own).astype(np.int32)
    return codes


def rest_counts(table: pa.Table, dimensions: Sequence[Dimension]) -> list[int]:
    """Return how many rows are left out, for every way of being so: a level or none in each dimension.

    Two tables of which one has a dimension more differ by exactly these rows.
    """
    codes: Codes = np.zeros(table.num_rows, np.int32)
    is_listed: Mask = np.ones(1, np.bool_)
    for dimension in dimensions:
        count = len(levels(dimension))
        own = _codes(table.column(dimension.column), dimension)
        codes = (codes * (count + 1) + np.where(own < 0, count, own)).astype(np.int32)
        is_listed = (is_listed[:, None] & (np.arange(count + 1) < count)).ravel()
    found: list[int] = np.bincount(codes, minlength=len(is_listed))[~is_listed].tolist()
    return found


def prepare(table: pa.Table, wanted: Sequence[Wanted], *, clip: bool = False) -> tuple[list[Whole], list[Mask]]:
    """Return what each row adds to the sums (0 where missing), and to the numbers of rows (one mask for each).

    Args:
        clip: let a value outside its declared range count as the nearest bound: with noise, a job that ended because
            of one would be an exact test on data.

    Raises:
        WrongState: a value is outside its declared range.
    """
    sums: list[Whole] = []
    counted: list[Mask] = []
    for one in wanted:
        if one.bands is not None:
            codes = _codes(table.column(one.bands.column), one.bands)
            counted += [codes == band for band in range(one.counts)]
            continue
        if one.value is None:
            counted.append(table.column(one.measure.column).combine_chunks().is_valid().to_numpy(zero_copy_only=False))
            continue
        values, present = _scaled(table.column(one.value.column), one.value, clip)
        if one.weight is not None:
            weights, weighted = _scaled(table.column(one.weight.column), one.weight, clip)
            values, present = values * weights, present & weighted
        values = np.where(present, values, 0)
        sums.append(values)
        counted.append(present)
        if one.measure.statistic is Statistic.VARIANCE:
            sums.append(values * values)
    return sums, counted


def grouped_sums(codes: Codes, values: Whole, cells: int) -> list[int]:
    """Return the exact sum of ``values`` in every cell, however large."""
    inside = codes >= 0
    places, own = codes[inside].astype(np.intp), values[inside]
    high, low = np.zeros(cells, np.int64), np.zeros(cells, np.int64)
    np.add.at(high, places, own >> 32)
    np.add.at(low, places, own & 0xFFFFFFFF)
    return [(above << 32) + below for above, below in zip(high.tolist(), low.tolist(), strict=True)]


def grouped_counts(codes: Codes, mask: Mask, cells: int) -> list[int]:
    """Return how many rows of ``mask`` are in every cell."""
    found: list[int] = np.bincount(codes[mask & (codes >= 0)], minlength=cells).tolist()
    return found


def statistics(
    shape: Shape,
    rows: Sequence[int],
    counts: Sequence[Sequence[int]],
    sums: Sequence[Sequence[int]],
    named: pa.Table | None = None,
) -> pa.Table:
    """Return the table of totals: a row a cell.

    Args:
        rows: how many rows each cell has.
        counts: for each number of rows of the measures, its value in every cell.
        sums: for each number that is added up, its total in every cell.
        named: the labels of the rows, where they are not the cells.
    """
    table = labels(shape.dimensions) if named is None else named
    table = pa.table({**{name: table.column(name) for name in table.column_names}, "rows": pa.array(rows, pa.int64())})
    count_at, sum_at = 0, 0
    for one in shape.wanted:
        name, statistic = one.measure.name, one.measure.statistic
        own_counts, own_sums = counts[count_at : count_at + one.counts], sums[sum_at : sum_at + _ADDED[statistic]]
        count_at, sum_at = count_at + one.counts, sum_at + _ADDED[statistic]
        if one.bands is not None:
            for column_name, column in zip(one.names, own_counts, strict=True):
                table = table.append_column(column_name, pa.array(column, pa.int64()))
        elif one.value is None:
            table = table.append_column(name, pa.array(own_counts[0], pa.int64()))
        else:
            values = [_statistic(one, n, *parts) for n, *parts in zip(own_counts[0], *own_sums, strict=True)]
            table = table.append_column(name, pa.array(values, pa.float64()))
    return table


def result_columns(shape: Shape) -> dict[str, bool]:
    """Return the columns behind the labels: name -> whether it holds numbers of rows."""
    return {"rows": True} | {name: one.value is None for one in shape.wanted for name in one.names}


def result_places(shape: Shape) -> dict[str, int]:
    """Return for the columns that hold no numbers of rows how many decimal places they have."""
    return {one.measure.name: _places(one) for one in shape.wanted if one.value is not None}


def _statistic(one: Wanted, n: int, total: int, squares: int = 0) -> float | None:
    """Return one cell's value; None where there are too few rows for it to exist."""
    if one.value is None or n < 1 or (one.measure.statistic is Statistic.VARIANCE and n < 2):
        return None
    if abs(total) >= EXACT and one.measure.statistic in (Statistic.SUM, Statistic.WEIGHTED_SUM):
        raise WrongState(
            tell=f"a total of {one.measure.column!r} is too large to be given exactly",
            hint="declare fewer places, or ask for finer groups",
        )
    unit = 10**one.value.places
    if one.measure.statistic is Statistic.SUM:
        found = total / unit
    elif one.measure.statistic is Statistic.WEIGHTED_SUM:
        found = total / (unit * 10 ** (one.weight.places if one.weight else 0))
    elif one.measure.statistic is Statistic.MEAN:
        found = total / (n * unit)
    else:
        found = (n * squares - total * total) / (n * (n - 1) * unit * unit)
    return float(round(found, _places(one)))


def _places(one: Wanted) -> int:
    declared = (one.value.places if one.value else 0) + (one.weight.places if one.weight else 0)
    return 2 * declared if one.measure.statistic is Statistic.VARIANCE else declared


def _refuse_telling_pairs(measures: Sequence[Measure]) -> None:
    telling = (Statistic.SUM, Statistic.MEAN, Statistic.VARIANCE)
    for column in {measure.column for measure in measures}:
        asked = {measure.statistic for measure in measures if measure.column == column and measure.statistic in telling}
        if len(asked) > 1:
            raise InvalidSpec(
                tell=f"two of sum, mean and variance of {column!r} in one table would tell the exact number of rows",
                hint="ask for one of them",
            )


def _wanted(measure: Measure, ranges: Mapping[str, MeasureRange], dimensions: Mapping[str, Dimension]) -> Wanted:
    statistic = measure.statistic
    if bool(measure.weight) != (statistic is Statistic.WEIGHTED_SUM):
        raise InvalidSpec(tell=f"measure {measure.name!r}: a weight goes with a weighted sum, and only there")
    if statistic is Statistic.HISTOGRAM:
        if measure.column not in dimensions:
            raise InvalidSpec(tell=f"measure {measure.name!r}: the scenario has no dimension {measure.column!r}")
        return Wanted(measure, None, None, dimensions[measure.column])
    if statistic is Statistic.COUNT:
        return Wanted(measure, None, None, None)
    for column in (measure.column, *([measure.weight] if measure.weight else ())):
        if column not in ranges:
            raise InvalidSpec(tell=f"measure {measure.name!r}: the scenario declares no range for {column!r}")
    made = Wanted(measure, ranges[measure.column], ranges[measure.weight] if measure.weight else None, None)
    if any(max(-low, high) >= MOST_VALUE for low, high in made.bounds):
        raise InvalidSpec(tell=f"measure {measure.name!r}: the declared range is too wide for this statistic")
    return made


def _codes(column: pa.ChunkedArray, dimension: Dimension) -> Codes:
    whole = _whole(column)
    if dimension.values:
        if not (pa.types.is_string(whole.type) or pa.types.is_boolean(whole.type)):
            raise InvalidSpec(tell=f"dimension {dimension.name!r} has values, and its column is no text")
        found = pc.index_in(whole.cast(pa.string()), value_set=pa.array(dimension.values, pa.string()))
        named: Codes = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
        return named
    numbers, present, _ = _integers(whole, dimension.places, "down")
    places = np.searchsorted(np.array(dimension.edges, np.int64), numbers, side="right")
    codes: Codes = np.where(present, places, -1).astype(np.int32)
    return codes


def _scaled(column: pa.ChunkedArray, declared: MeasureRange, clip: bool) -> tuple[Whole, Mask]:
    whole = _whole(column)
    numbers, present, fits = _integers(whole, declared.places, "half_to_even")
    if clip:
        return np.clip(numbers, declared.low, declared.high), present
    if not fits or bool((present & ((numbers < declared.low) | (numbers > declared.high))).any()):
        raise WrongState(
            tell=f"a value of {declared.column!r} is outside the range the scenario declares",
            hint="apply for a scenario with a wider range",
        )
    return numbers, present


def _integers(column: pa.Array, places: int, rounding: str) -> tuple[Whole, Mask, bool]:
    """Return a column in units of 10^-places, where it is present, and whether all of it fits into 63 bits.

    What does not fit is the largest or the smallest number that does: right for bands, refused for sums.
    """
    present: Mask = column.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int64())
    if pa.types.is_integer(column.type):
        plain: Whole = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        room = MOST_VALUE // 10**places
        clipped = np.clip(plain, -room, room)
        return clipped * 10**places, present, bool((clipped == plain).all())
    if not pa.types.is_decimal(column.type):
        raise InvalidSpec(tell="a column that is to be added up or put into bands is no number")
    if places < column.type.scale:
        # What does not fit anyhow is not rounded: it could need one digit more than a decimal has.
        kind = pa.decimal128(38, column.type.scale)
        most, least = (pa.scalar(Decimal(sign * MOST_VALUE).scaleb(-places), kind) for sign in (1, -1))
        column = pc.min_element_wise(column.cast(kind), most, skip_nulls=False)
        column = pc.max_element_wise(column, least, skip_nulls=False)
        column = pc.round(column, ndigits=places, round_mode=rounding)
    exact = column.cast(pa.decimal128(38, places)).fill_null(Decimal(0))
    words = np.frombuffer(exact.buffers()[1], "<i8").reshape(-1, 2)[exact.offset : exact.offset + len(exact)]
    low, high = words[:, 0], words[:, 1]
    inside = (high == low >> 63) & (np.abs(low) < MOST_VALUE)
    return np.where(inside, low, np.where(high < 0, -MOST_VALUE, MOST_VALUE)), present, bool(inside.all())


def _whole(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return whole.dictionary_decode() if pa.types.is_dictionary(whole.type) else whole


def _decimal(number: int, places: int) -> str:
    if not places:
        return str(number)
    digits = str(abs(number)).rjust(places + 1, "0")
    return f"{'-' if number < 0 else ''}{digits[:-places]}.{digits[-places:]}"
