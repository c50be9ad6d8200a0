"""Columns of one table as SQL: in which level of a dimension a row is, and how many units of a measure it has.

Units:   measures are whole numbers of 10^-places, halves rounded to even (DuckDB's own rounding of decimals goes away
         from zero, ``round_even`` included).
Shapes:  levels are numbered from 0; a row with another value than a dimension names, or none, has no level (NULL).
         Bands are compared with exact decimals, so that nothing falls into the band that it only rounds to.
Errors:  ``InvalidSpec`` where a column's type does not fit.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from sandbox.errors import InvalidSpec
from sandbox.model import Dimension, MeasureRange
from sandbox.tee_sim.sql_terms import Axis, Joined, Measured

_WIDEST: Final = 38  # digits of a decimal
_NEAR: Final = 1 << 50  # units; of more, a real number says them only to within a thousand


def quoted(name: str) -> str:
    """Return a name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """Return a text as SQL."""
    return "'" + value.replace("'", "''") + "'"


def code(axis: Axis, joined: Joined) -> str:
    """Return the number of the level each row has."""
    dimension = axis.grouping.dimension
    column = f"t{axis.table}.{quoted(dimension.column)}"
    kind = _type(joined, dimension.column)
    if dimension.values:
        if not (_is_text(kind) or pa.types.is_boolean(kind)):
            raise InvalidSpec(tell=f"dimension {dimension.name!r} has values, and its column is no text")
        whens = [f"WHEN {literal(level)} THEN {at}" for at, level in enumerate(axis.grouping.levels)]
        return f"CASE CAST({column} AS VARCHAR) {' '.join(whens)} END"
    if pa.types.is_boolean(kind):
        column, kind = f"CAST({column} AS BIGINT)", pa.int64()
    scale = _scale(kind, dimension.column)
    whens = [f"WHEN {column} < {_edge(edge, dimension, scale)} THEN {at}" for at, edge in enumerate(dimension.edges)]
    return f"CASE {' '.join(whens)} WHEN {column} IS NOT NULL THEN {len(dimension.edges)} END"


def is_inside(measured: Measured, joined: Joined) -> str:
    """Return the condition that a value is inside its declared range; neither true nor false where it is missing."""
    declared = measured.range
    column, kind = _number(measured, joined)
    scale = _scale(kind, declared.column)
    low, high = _bounds(declared, scale)
    return f"{column} BETWEEN {_decimal(low, scale)} AND {_decimal(high, scale)}"


def units(measured: Measured, joined: Joined, checked: str) -> str:
    """Return the units of a value; ``checked`` is a column that holds it where it is inside its range, or missing.

    Of a decimal, a real number says the units but for one or two, and what is left is compared exactly: DuckDB takes
    thirty times as long to cut decimals short.
    """
    places = measured.range.places
    kind = _number(measured, joined)[1]
    if not pa.types.is_decimal(kind):
        return f"CAST({checked} AS BIGINT) * {10**places}"
    near = f"CAST(round(CAST({checked} AS DOUBLE) * {10**places}) AS BIGINT)"
    if max(abs(measured.range.low), abs(measured.range.high)) >= _NEAR:
        near = f"({near} + CAST(round(CAST({_rest(checked, near, places)} AS DOUBLE) * {10**places}) AS BIGINT))"
    rest, half, is_odd = _rest(checked, near, places), _decimal(5, places + 1), f"{near} % 2 <> 0"
    up = f"{rest} > {half} OR ({rest} = {half} AND {is_odd})"
    down = f"{rest} < -{half} OR ({rest} = -{half} AND {is_odd})"
    return f"{near} + CASE WHEN {up} THEN 1 WHEN {down} THEN -1 ELSE 0 END"


def _rest(column: str, near: str, places: int) -> str:
    """Return, exactly, what a column has over ``near`` units."""
    return f"({column} - {near} * {_decimal(1, places)})"


def raw(measured: Measured, joined: Joined) -> str:
    """Return the value as it stands in the table."""
    return _number(measured, joined)[0]


def _number(measured: Measured, joined: Joined) -> tuple[str, pa.DataType]:
    name = measured.range.column
    column, kind = f"t{measured.table}.{quoted(name)}", _type(joined, name)
    if pa.types.is_boolean(kind):
        return f"CAST({column} AS BIGINT)", pa.int64()
    return column, kind


def _bounds(declared: MeasureRange, scale: int) -> tuple[int, int]:
    """Return the least and the greatest value, in units of 10^-scale, that is inside the range once it is rounded."""
    low, high, places = declared.low, declared.high, declared.places
    if scale <= places:
        step = 10 ** (places - scale)
        return -(-low // step), high // step
    half = 5 * 10 ** (scale - places - 1)
    # A half rounds to the even side: it belongs to a bound that is even, and not to one that is odd.
    return low * 2 * half - half + low % 2, high * 2 * half + half - high % 2


def _edge(edge: int, dimension: Dimension, scale: int) -> str:
    """Return the least value, in the units of the column, that is not below an edge."""
    if scale >= dimension.places:
        return _decimal(edge * 10 ** (scale - dimension.places), scale)
    return _decimal(-(-edge // 10 ** (dimension.places - scale)), scale)


def _decimal(number: int, scale: int) -> str:
    """Return ``number`` of 10^-scale as an exact constant."""
    if not scale:  # of whole columns only
        return f"CAST({literal(str(number))} AS {'BIGINT' if abs(number) < 1 << 63 else 'HUGEINT'})"
    digits = str(abs(number)).rjust(scale + 1, "0")
    if len(digits) > _WIDEST:
        raise InvalidSpec(tell=f"a range or an edge of a band does not fit into a column with {scale} decimal places")
    shown = f"{'-' if number < 0 else ''}{digits[:-scale]}.{digits[-scale:]}"
    return f"CAST({literal(shown)} AS DECIMAL({len(digits)}, {scale}))"


def _scale(kind: pa.DataType, column: str) -> int:
    if pa.types.is_integer(kind):
        return 0
    if not pa.types.is_decimal(kind):
        raise InvalidSpec(tell=f"column {column!r} is to be computed with or put into bands, and is no number")
    return int(kind.scale)


def _type(joined: Joined, column: str) -> pa.DataType:
    kind = joined.grant.columns[column]
    if kind is None:
        raise InvalidSpec(tell=f"the type of column {column!r} is not known yet")
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
