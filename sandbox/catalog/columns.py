"""Turns a column as it stands in an owner's file into the type its schema declares, or names the first row that is not.

Shapes:    from text (CSV): whole numbers ``-?[0-9]+``; decimals ``-?[0-9]+[.][0-9]+`` with at most 10 places; dates
           ``YYYY-MM-DD``; truth values ``true``/``false``/``1``/``0``. Blanks around them are dropped and nothing at
           all is a missing value, as is an unquoted empty text. From Parquet: the same types, narrower ones, texts in
           a dictionary, whole floats as integers, floats as decimals rounded to 10 places, and times of midnight as
           dates; not a number (NaN) is no missing value.
Errors:    ``InvalidSpec`` with file, column and row (from 1, headings not counted). Neither its text nor anything
           chained to it quotes a value: the library's own errors do, so they are dropped before ours is raised.
Not here:  reading files (intake, csv_text), keys (intake).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sandbox.catalog.schema import ARROW, DECIMAL_PLACES, Field, FieldType
from sandbox.errors import InvalidSpec

UNUSABLE = "the dataset cannot be used as it is; ask the department that owns it"
WHERE_TO_LOOK = "the place and the reason are in the log of the node of that department"
FIRST_DAY, LAST_DAY = -719162, 2932896  # 0001-01-01 and 9999-12-31 in days since 1970

EXPECTED = {
    FieldType.STRING: "text in UTF-8",
    FieldType.INTEGER: "a whole number of at most 64 bits",
    FieldType.DECIMAL: f"a decimal number with at most {DECIMAL_PLACES} places",
    FieldType.BOOLEAN: "true or false",
    FieldType.DATE: "a date as YYYY-MM-DD",
}

# The library's own parser takes more than it should: hexadecimal numbers, exponents.
PATTERNS = {
    FieldType.INTEGER: r"^-?[0-9]+$",
    FieldType.DECIMAL: r"^-?[0-9]+(\.[0-9]+)?$",
    FieldType.DATE: r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
}

# Columns of these bytes alone need no pattern, which takes five times as long: the parser is strict about them.
_ALPHABETS = {FieldType.INTEGER: b"0123456789-", FieldType.DECIMAL: b"0123456789-.", FieldType.DATE: b"0123456789-"}
_PLAIN = {type_: np.isin(np.arange(256), list(letters)) for type_, letters in _ALPHABETS.items()}
_DATE_LENGTH = 10

Convert: TypeAlias = Callable[[pa.Array], pa.Array]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a batch of a file begins: its file, and how many rows came before."""

    path: Path
    rows: int = 0

    def refuse(self, what: str, *, column: str = "", index: int | None = None) -> InvalidSpec:
        """Return the error to raise about one column, and one row counted from 0 in this batch."""
        where = [str(self.path)]
        where += [f"column {column!r}"] if column else []
        where += [f"row {self.rows + index + 1}"] if index is not None else []
        return refuse_table(", ".join(where), what)


def refuse_table(where: str, what: str) -> InvalidSpec:
    """Return the error to raise about a whole table, whose files ``where`` names."""
    return InvalidSpec(f"{where}: {what}", tell=UNUSABLE, hint=WHERE_TO_LOOK)


def from_text(column: pa.Array, field: Field, place: Place) -> pa.Array:
    """Return the bytes of a CSV column as what ``field`` declares."""
    if (plain := _plain(column, field.type)) is not None:
        whole = _try(lambda part: _bounded(part.cast(ARROW[field.type])), plain)
        if whole is not None:
            return whole
    text = _convert(column, lambda part: part.cast(pa.string()), field.name, "not text in UTF-8", place)
    if field.type is FieldType.STRING:
        return text
    text = pc.ascii_trim_whitespace(text)
    text = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
    wrong = f"not {EXPECTED[field.type]}"
    if pattern := PATTERNS.get(field.type):
        index = pc.index(pc.match_substring_regex(text, pattern), pa.scalar(False)).as_py()
        if index >= 0:
            raise place.refuse(wrong, column=field.name, index=index)
    return _convert(text, lambda part: _bounded(part.cast(ARROW[field.type])), field.name, wrong, place)


def from_arrow(column: pa.Array, field: Field, place: Place) -> pa.Array:
    """Return a Parquet column as what ``field`` declares."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    wrong = f"not {EXPECTED[field.type]}"
    if not may_become(column.type, field.type):
        raise place.refuse(f"its type in the file is {column.type}: {wrong}", column=field.name)
    target = ARROW[field.type]
    if field.type is FieldType.STRING:  # Parquet files may hold anything under the name of text: look at the bytes
        return _convert(column, lambda part: part.cast(pa.binary()).cast(target), field.name, wrong, place)
    if pa.types.is_timestamp(column.type):
        return _convert(column, lambda part: _bounded(_midnights(part)), field.name, wrong, place)
    return _convert(column, lambda part: _bounded(part.cast(target)), field.name, wrong, place)


def may_become(found: pa.DataType, declared: FieldType) -> bool:
    """Whether a column of a Parquet file of type ``found`` may hold what is declared."""
    kinds = pa.types
    if kinds.is_dictionary(found):
        found = found.value_type
    if kinds.is_null(found):  # a column of missing values only has no type of its own
        return True
    match declared:
        case FieldType.STRING:
            return bool(kinds.is_string(found) or kinds.is_large_string(found) or kinds.is_string_view(found))
        case FieldType.INTEGER:
            return bool(kinds.is_integer(found) or kinds.is_floating(found))
        case FieldType.DECIMAL:
            return bool(kinds.is_decimal(found) or kinds.is_integer(found) or kinds.is_floating(found))
        case FieldType.BOOLEAN:
            return bool(kinds.is_boolean(found))
        case FieldType.DATE:
            return bool(kinds.is_date(found) or (kinds.is_timestamp(found) and found.tz is None))


def _plain(column: pa.Array, type_: FieldType) -> pa.Array | None:
    """Return a column of bytes as text if no value needs a closer look before it is parsed: most never do."""
    if type_ not in _PLAIN or not len(column):
        return None
    bits, offsets, data = column.buffers()
    places = np.frombuffer(offsets, np.int32, len(column) + 1, column.offset * 4)
    first, end = int(places[0]), int(places[-1])
    letters = np.frombuffer(data, np.uint8, end - first, first) if end > first else np.empty(0, np.uint8)
    if not _PLAIN[type_][letters].all():
        return None
    if type_ is FieldType.DATE and not np.isin(np.diff(places), (0, _DATE_LENGTH)).all():
        return None
    if type_ is FieldType.DECIMAL:  # the parser takes ``.5`` and ``5.``: a digit of the same value on either side
        points = np.flatnonzero(letters == ord("."))
        edges = np.zeros(end - first + 1, dtype=np.bool_)
        edges[places - first] = True
        if (edges[points] | edges[points + 1]).any() or (letters[points - 1] == ord("-")).any():
            return None
    return pa.Array.from_buffers(pa.string(), len(column), [bits, offsets, data], offset=column.offset)


def _convert(column: pa.Array, convert: Convert, name: str, wrong: str, place: Place) -> pa.Array:
    whole = _try(convert, column)
    if whole is not None:
        return whole
    first, end = 0, len(column)  # the first row that fails lies between them: halve until it is alone
    while end - first > 1:
        middle = (first + end) // 2
        if _try(convert, column[first:middle]) is None:
            end = middle
        else:
            first = middle
    raise place.refuse(wrong, column=name, index=first)


def _try(convert: Convert, column: pa.Array) -> pa.Array | None:
    try:
        return convert(column)
    except (pa.ArrowException, ValueError):
        return None


def _bounded(column: pa.Array) -> pa.Array:
    if pa.types.is_date(column.type):
        days = pc.min_max(column.cast(pa.int32()))
        low, high = days["min"].as_py(), days["max"].as_py()
        if low is not None and not FIRST_DAY <= low <= high <= LAST_DAY:
            raise ValueError("a date outside the years 1 to 9999")
    return column


def _midnights(column: pa.Array) -> pa.Array:
    days = column.cast(pa.date32(), safe=False)
    if not pc.all(pc.equal(days.cast(column.type), column), min_count=0).as_py():
        raise ValueError("a time that is not midnight")
    return days
