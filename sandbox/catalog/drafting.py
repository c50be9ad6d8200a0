"""Drafts a schema.json for a table that has none: its columns with their types, suggested grades and maskings.

    batches + Suggestions --draft--> Draft --a person writes the meanings--> schema.json --read_schema--> Schema

Security:  no draft can be registered as it is: every ``meaning`` is empty, and ``read_schema`` refuses that by the
           field's name. A person has to look at each column and say what it is. What no detector found is L3, not L1:
           a person may lower a grade, nothing here does. A draft holds names of columns, and nothing of any row.
Shapes:    types are those of the file. Bytes, as a CSV file is read, become whole numbers, decimals, dates or truth
           values if all of them are; what begins with a zero, such as 010, stays a text, and so does what a suggestion
           is for. Whole floats become whole numbers only under a suggestion: a telephone number with gaps is stored so.
           The key is the column of identity numbers, or else of credit codes, if there is just one; otherwise it is
           left empty, which ``read_schema`` refuses too.
Errors:    ``InvalidSpec``: the batches differ in their columns, one stands twice, or there is none a schema can hold.
Not here:  finding personal fields (grading), reading files (intake, csv_text).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from sandbox.catalog.columns import may_become
from sandbox.catalog.field_types import FieldType
from sandbox.catalog.formats import KeyFormat
from sandbox.catalog.grading import EXACT, Suggestion
from sandbox.catalog.masking_rules import parse_rule
from sandbox.catalog.personal import Personal
from sandbox.catalog.schema import FORMAT_TYPES, MAX_NAME, Grade
from sandbox.errors import InvalidSpec

UNKNOWN: Final = Grade.L3  # the grade of what no detector found

_KEYS: Final[Mapping[Personal, KeyFormat]] = {
    Personal.ID_NUMBER: KeyFormat.ID_NUMBER,
    Personal.CREDIT_CODE: KeyFormat.CREDIT_CODE,
}
# In this order: what is a whole number is a decimal too, and everything is a text.
_WRITTEN: Final[Mapping[FieldType, str]] = {
    FieldType.INTEGER: "(?:0|-?[1-9][0-9]{0,17})",
    FieldType.DECIMAL: r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,10})?",
    FieldType.DATE: "[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])",
    FieldType.BOOLEAN: "(?:true|false)",
    FieldType.STRING: r"(?s:.*)",
}
_BLANKS: Final = r"[\t-\r ]*"  # what intake drops around a value
# Of a file's type, the first of these that holds it; whole floats may become whole numbers.
_BY_FILE: Final = (FieldType.STRING, FieldType.BOOLEAN, FieldType.DATE, FieldType.INTEGER, FieldType.DECIMAL)


@dataclass(frozen=True, slots=True)
class Draft:
    """A schema.json to start from, and the columns of the table that no schema can hold."""

    data: bytes
    left_out: tuple[str, ...]


@dataclass(slots=True)
class _Column:
    found: pa.DataType
    possible: list[FieldType]
    empty: bool = True  # so far

    def take_in(self, column: pa.Array) -> None:
        """Strike the types that these values are not of."""
        if _is_bytes(self.found):
            column = column.filter(pc.invert(pc.match_substring_regex(column, rf"^{_BLANKS}$")))
        self.empty &= column.null_count == len(column)
        self.possible = [type_ for type_ in self.possible if _may_be(column, type_)]

    def type(self, suggested: bool) -> FieldType | None:
        """Return the type to write down."""
        if _is_bytes(self.found):
            return FieldType.STRING if suggested or self.empty else self.possible[0]
        if suggested and pa.types.is_floating(self.found) and FieldType.INTEGER in self.possible:
            return FieldType.INTEGER
        if pa.types.is_floating(self.found):
            return FieldType.DECIMAL
        return self.possible[0] if self.possible else None


class Drafter:
    """Finds the types of a table's columns, batch by batch."""

    def __init__(self) -> None:
        self._types: pa.Schema | None = None
        self._columns: dict[str, _Column] = {}

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in the next rows.

        Raises:
            InvalidSpec: the batch has other columns than the first one, or one twice.
        """
        if self._types is None:
            if len(set(batch.schema.names)) != len(batch.schema.names):
                raise InvalidSpec("two columns of the table have the same name")
            self._types = batch.schema.remove_metadata()
            self._columns = {one.name: _Column(one.type, _at_first(one.type)) for one in self._types}
        elif not batch.schema.equals(self._types):
            raise InvalidSpec("the columns of the table differ from those of its first rows")
        for name, column in self._columns.items():
            column.take_in(batch.column(name))

    def done(self, suggestions: Sequence[Suggestion]) -> Draft:
        """Return the draft; ``suggestions`` are those for the same table.

        Raises:
            InvalidSpec: there is no column that a schema can hold.
        """
        suggested = {one.column: one for one in suggestions}
        types = {name: column.type(name in suggested) for name, column in self._columns.items() if _is_name(name)}
        held = {name: type_ for name, type_ in types.items() if type_}
        if not held:
            raise InvalidSpec("the table has no column that a schema can hold")
        key = _key(held, suggested)
        fields = [_field(name, type_, suggested.get(name), name in key) for name, type_ in held.items()]
        text = json.dumps({"key": key, "fields": fields}, ensure_ascii=False, indent=2)
        return Draft((text + "\n").encode(), tuple(name for name in self._columns if name not in held))


def draft(batches: Iterable[pa.RecordBatch], suggestions: Sequence[Suggestion]) -> Draft:
    """Return a schema.json for a table, for a person to complete; ``suggestions`` are those for the same table.

    Raises:
        InvalidSpec: the batches differ in their columns, one stands twice, or there is none a schema can hold.
    """
    drafter = Drafter()
    for batch in batches:
        drafter.add(batch)
    return drafter.done(suggestions)


def _field(name: str, type_: FieldType, suggestion: Suggestion | None, in_key: bool) -> dict[str, str]:
    masking = suggestion.masking if suggestion else ""
    try:
        parse_rule(masking, type_)
    except InvalidSpec:  # a number with places that looks like something else: nobody can say what its ends are
        masking = "drop"
    grade = suggestion.grade if suggestion else UNKNOWN
    form = {"format": _KEYS[suggestion.kind].value} if suggestion and in_key else {}
    return {
        "name": name,
        "type": type_.value,
        "meaning": "",
        "unit": "",
        "grade": grade.value,
        "masking": masking,
        **form,
    }


def _key(held: Mapping[str, FieldType], suggested: Mapping[str, Suggestion]) -> list[str]:
    for kind, form in _KEYS.items():
        names = [name for name, one in suggested.items() if one.kind is kind and held.get(name) in FORMAT_TYPES[form]]
        if len(names) == 1:
            return names
    return []


def _is_name(name: str) -> bool:
    return 0 < len(name) <= MAX_NAME and name == name.strip() and name.isprintable()


def _is_bytes(found: pa.DataType) -> bool:
    return bool(pa.types.is_binary(found) or pa.types.is_large_binary(found))


def _at_first(found: pa.DataType) -> list[FieldType]:
    return list(_WRITTEN) if _is_bytes(found) else [type_ for type_ in _BY_FILE if may_become(found, type_)]


def _may_be(column: pa.Array, type_: FieldType) -> bool:
    """Whether the values are of a type that their column in the file may have."""
    kinds = pa.types
    if _is_bytes(column.type):
        return bool(
            pc.all(pc.match_substring_regex(column, rf"^{_BLANKS}{_WRITTEN[type_]}{_BLANKS}$"), min_count=0).as_py()
        )
    if kinds.is_floating(column.type) and type_ is FieldType.INTEGER:
        column = column.cast(pa.float64())
        whole = pc.and_(pc.less(pc.abs(column), EXACT), pc.equal(pc.floor(column), column))
        return bool(pc.all(whole, min_count=0).as_py())
    if kinds.is_timestamp(column.type) and type_ is FieldType.DATE:
        return bool(pc.all(pc.equal(pc.floor_temporal(column, unit="day"), column), min_count=0).as_py())
    return True
