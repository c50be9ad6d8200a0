"""Where the cells of histograms lie, before anybody has looked at a row: coarse over all a type can hold, then finer.

Shapes:   a cell is a pair of whole numbers, both inclusive; cells are sorted and apart. Integers count as they are,
          decimals in units of the last place a type has (10**-10), dates in days since 1970, texts by their length in
          characters, truth values as 0 and 1. Coarse cells of numbers are zero and the powers of two on either side of
          it, those of dates are years.
Errors:   ``InvalidSpec`` for a declared range that holds no value of its type.
Not here: counting rows in cells with noise (measuring, release).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sandbox.catalog.columns import FIRST_DAY, LAST_DAY
from sandbox.catalog.schema import DECIMAL_DIGITS, DECIMAL_PLACES, Field, FieldType
from sandbox.errors import InvalidSpec

Cell: TypeAlias = tuple[int, int]
Whole: TypeAlias = npt.NDArray[np.int64]

LONGEST: Final = 512  # characters of a made-up text; longer ones count as this long
FINE: Final = 256  # cells a column, where that many are of use
FINE_EACH: Final = 8  # cells that a coarse one is split into at least
_FIRST_YEAR: Final = 1900
_LAST_YEAR: Final = 2100
_ENDS: Final = {
    FieldType.INTEGER: (-(1 << 63), (1 << 63) - 1),
    FieldType.DECIMAL: (1 - 10**DECIMAL_DIGITS, 10**DECIMAL_DIGITS - 1),
    FieldType.DATE: (FIRST_DAY, LAST_DAY),
}
_LENGTH_STARTS: Final = (*range(17), 20, 24, 32, 48, 64, 96, 128, 256, LONGEST)
LENGTHS: Final[tuple[Cell, ...]] = tuple(
    (low, after - 1) for low, after in zip(_LENGTH_STARTS, (*_LENGTH_STARTS[1:], LONGEST + 1), strict=True)
)


def bounds(field: Field) -> Cell:
    """Return the least and the greatest number or date that the schema, or else the type, lets a column hold.

    Raises:
        InvalidSpec: there is none.
    """
    least, most = _ENDS[field.type]
    low = max(least, math.ceil(_units(field, field.valid.low))) if field.valid.low else least
    high = min(most, math.floor(_units(field, field.valid.high))) if field.valid.high else most
    if low > high:
        raise InvalidSpec(f"field {field.name!r}: no {field.type.value} lies between valid.low and valid.high")
    return low, high


def coarse(field: Field) -> tuple[Cell, ...]:
    """Return coarse cells over all that a column of numbers or dates may hold."""
    low, high = bounds(field)
    found = _years() if field.type is FieldType.DATE else _octaves(max(abs(low), abs(high)).bit_length())
    return tuple((max(start, low), min(end, high)) for start, end in found if start <= high and end >= low)


def finer(cells: Sequence[Cell], most: int) -> tuple[Cell, ...]:
    """Return the same cells split evenly, into ``most`` altogether unless they are more already."""
    each = max(min(max(FINE // len(cells), FINE_EACH), most // len(cells)), 1)
    found = []
    for low, high in cells:
        size = high - low + 1
        parts = min(each, size)
        starts = [low + size * part // parts for part in range(parts + 1)]
        found += [(start, after - 1) for start, after in pairwise(starts)]
    return tuple(found)


def numbers(column: pa.Array) -> npt.NDArray[Any]:
    """Return what a column without missing values holds, in the units of cells; decimals about, in floats.

    A float may put a decimal of more than 15 digits into the cell beside its own, always into the same one: a row is
    still in one cell, which is all that the privacy of a count needs.
    """
    if pa.types.is_decimal(column.type):
        near = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return np.asarray(np.rint(near * 10.0**DECIMAL_PLACES))
    if pa.types.is_string(column.type):
        return np.asarray(np.minimum(pc.utf8_length(column).to_numpy(zero_copy_only=False), LONGEST), np.int64)
    if pa.types.is_date(column.type):
        column = column.cast(pa.int32())
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    return np.asarray(column.cast(pa.int64()).to_numpy(zero_copy_only=False))


def count(values: npt.NDArray[Any], cells: Sequence[Cell]) -> Whole:
    """Return how many values lie in each cell; those in none are not counted."""
    starts, ends = (np.array(edge, values.dtype) for edge in zip(*cells, strict=True))
    at = np.searchsorted(starts, values, side="right") - 1
    inside = (at >= 0) & (values <= ends[at])
    return np.bincount(at[inside], minlength=len(cells)).astype(np.int64)


def _units(field: Field, bound: str) -> Decimal:
    if field.type is FieldType.DATE:
        return Decimal((date.fromisoformat(bound) - date(1970, 1, 1)).days)
    return Decimal(bound).scaleb(DECIMAL_PLACES if field.type is FieldType.DECIMAL else 0)


def _octaves(bits: int) -> Iterable[Cell]:
    above = [(1 << bit, (2 << bit) - 1) for bit in range(bits)]
    return (*((-high, -low) for low, high in reversed(above)), (0, 0), *above)


def _years() -> Iterable[Cell]:
    starts = [date(year, 1, 1).toordinal() + FIRST_DAY - 1 for year in range(_FIRST_YEAR, _LAST_YEAR + 2)]
    within = ((start, after - 1) for start, after in pairwise(starts))
    return ((FIRST_DAY, starts[0] - 1), *within, (starts[-1], LAST_DAY))
