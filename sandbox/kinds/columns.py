"""Columns of one side's table, read as numbers or as categories.

Shapes:    a number is an integer, a decimal or a floating column; missing is NaN. A category is text or a truth value;
           missing stays null.
Errors:    ``InvalidSpec`` names the column, never a value.
Not here:  what features are made of them (``features``, ``bands``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sandbox.errors import InvalidSpec

Floats: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Places: TypeAlias = npt.NDArray[np.int64]


def are_finite(figures: Sequence[object]) -> bool:
    """Return whether these are floating figures, all finite."""
    return all(type(figure) is float and math.isfinite(figure) for figure in figures)


def column_of(table: pa.Table, name: str) -> pa.ChunkedArray:
    """Return the column of that name."""
    if table.schema.names.count(name) != 1:
        raise InvalidSpec(f"column {name!r} is absent or there twice")
    return table.column(name)


def is_category(name: str, kind: pa.DataType) -> bool:
    """Return whether a column of that type is a category; a number otherwise."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return False
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind):
        return True
    raise InvalidSpec(f"column {name!r} is neither a number nor a category")


def texts(name: str, column: pa.ChunkedArray) -> pa.Array:
    """Return a category as text."""
    if not is_category(name, column.type):
        raise InvalidSpec(f"column {name!r} is a number; the encoder was fitted on a category")
    return pc.cast(column.combine_chunks(), pa.string())


def numbers(name: str, column: pa.ChunkedArray) -> Floats:
    """Return a number as 64-bit floating point."""
    if is_category(name, column.type):
        raise InvalidSpec(f"column {name!r} is a category; the encoder was fitted on numbers")
    # Unsafe: integers beyond 2**53 lose their last digits, which no feature needs.
    values: Floats = pc.cast(column.combine_chunks(), pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values


def decimal_places(kind: pa.DataType) -> int | None:
    """Return how many decimal places numbers of that type have; ``None`` where they have no fixed number."""
    if pa.types.is_integer(kind):
        return 0
    return max(kind.scale, 0) if pa.types.is_decimal(kind) else None


def places_in(name: str, column: pa.ChunkedArray, levels: tuple[str, ...]) -> Places:
    """Return the place of every entry in ``levels``, and their number where it is missing or not among them."""
    found = pc.index_in(texts(name, column), value_set=pa.array(levels, pa.string()), skip_nulls=True)
    places: Places = found.fill_null(len(levels)).to_numpy().astype(np.int64)
    return places
