"""What a dataset's columns are: type, meaning, unit, grade, masking, price; and one version of a dataset.

    schema.json --read_schema--> Schema --schema_digest--> 32 bytes that approvals name

Source:    grades L1 (public) to L4 (most sensitive) as in the classified and graded protection (分类分级) that
           article 21 of the Data Security Law asks for.
Units:     ``price_coefficient`` multiplies the tariff, 0 to 1 with at most 6 places.
Shapes:    the file that users write is a JSON object ``{"key": [names], "fields": [{...}]}``; every member is required
           but ``unit`` and ``masking`` (default: none), ``price_coefficient`` (default: 1) and, of a field of the key,
           ``format`` ("text", "id_number", "phone", "name", "credit_code"; default: "text") and ``invalid`` ("refuse",
           "keep"; default: "refuse"), and ``valid``, an object that says which values make sense: ``low`` and
           ``high`` (numbers, or dates as texts), ``values`` (texts), ``pattern`` (a regular expression of RE2 that
           the whole text fits). It is measured (profile) and used to make twins (twin), not enforced. ``masking`` is a
           rule of masking_rules, and says how the column is shown outside production (masking). The digest is
           the tagged SM3 of the canonical form that ``schema_bytes`` returns, and covers every member; that form
           leaves out a format, an ``invalid`` and a ``valid`` that are the default.
Errors:    ``InvalidSpec`` names the file and the field.
Not here:  rows. A schema holds no value of anybody. What a format means (formats), whether two schemas fit (matching).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from sandbox.catalog.field_types import ARROW as ARROW
from sandbox.catalog.field_types import DECIMAL_DIGITS as DECIMAL_DIGITS
from sandbox.catalog.field_types import DECIMAL_PLACES as DECIMAL_PLACES
from sandbox.catalog.field_types import FieldType as FieldType
from sandbox.catalog.formats import NEVER_INVALID, KeyFormat, WhenInvalid
from sandbox.catalog.masking_rules import KEY_RULES, Rule, parse_rule
from sandbox.crypto.sm3 import tagged
from sandbox.errors import InvalidSpec

COEFFICIENT_PLACES = 6
MAX_FIELDS = 1024
MAX_NAME = 64  # characters
MAX_TEXT = 500  # characters of a meaning, unit or masking rule
MAX_VALUES = 1000
MAX_FILE = 4 << 20  # bytes of a schema.json


class Grade(StrEnum):
    """How sensitive a column is, from public to most sensitive."""

    L1 = "L1"
    L2 = "L2"
    L3 = "L3"
    L4 = "L4"


# A decimal or a truth value identifies nobody, and a decimal has more than one way to be written.
KEY_TYPES = frozenset({FieldType.STRING, FieldType.INTEGER, FieldType.DATE})
# An identity number may end in X, and a credit code has letters: no column of integers holds all of them.
FORMAT_TYPES: Mapping[KeyFormat, frozenset[FieldType]] = {
    **dict.fromkeys(KeyFormat, frozenset({FieldType.STRING})),
    KeyFormat.TEXT: KEY_TYPES,
    KeyFormat.PHONE: frozenset({FieldType.STRING, FieldType.INTEGER}),
}
_CHOICES: Mapping[str, type[StrEnum]] = {"type": FieldType, "grade": Grade, "format": KeyFormat, "invalid": WhenInvalid}


@dataclass(frozen=True, slots=True)
class Valid:
    """Which values of a column make sense; what is empty says nothing.

    ``low`` and ``high`` are decimals for numbers and ISO dates for dates, both inclusive and written as texts.
    """

    low: str = ""
    high: str = ""
    values: tuple[str, ...] = ()
    pattern: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """One column."""

    name: str
    type: FieldType
    meaning: str
    unit: str
    grade: Grade
    masking: str
    price_coefficient: Decimal
    format: KeyFormat = KeyFormat.TEXT
    invalid: WhenInvalid = WhenInvalid.REFUSE
    valid: Valid = Valid()

    def __post_init__(self) -> None:
        _check_text("name", self.name, MAX_NAME)
        _check_valid(self)
        for label, text in (("meaning", self.meaning), ("unit", self.unit), ("masking", self.masking)):
            _check_text(f"{label} of field {self.name!r}", text, MAX_TEXT, empty=label != "meaning")
        price = self.price_coefficient
        if not (price.is_finite() and 0 <= price <= 1 and price == round(price, COEFFICIENT_PLACES)):
            raise InvalidSpec(
                f"price_coefficient of field {self.name!r} is not between 0 and 1 with {COEFFICIENT_PLACES} places"
            )
        if self.type in KEY_TYPES and self.type not in FORMAT_TYPES[self.format]:
            takes = " or ".join(sorted(FORMAT_TYPES[self.format], reverse=True))
            raise InvalidSpec(f"field {self.name!r} is of type {self.type}; the format {self.format} needs {takes}")
        if self.invalid is WhenInvalid.KEEP and self.format in NEVER_INVALID:
            raise InvalidSpec(f"field {self.name!r}: every value is a valid {self.format.value}, so none is kept")
        _masking_of(self)


@dataclass(frozen=True, slots=True)
class Schema:
    """The columns in their order, and which of them identify a row (``key``, in the order they are joined)."""

    fields: tuple[Field, ...]
    key: tuple[str, ...]

    def __post_init__(self) -> None:
        types = {field.name: field.type for field in self.fields}
        if not 1 <= len(self.fields) <= MAX_FIELDS:
            raise InvalidSpec(f"a schema has 1 to {MAX_FIELDS} fields")
        if len(types) != len(self.fields):
            raise InvalidSpec("two fields have the same name")
        if not self.key or len(set(self.key)) != len(self.key):
            raise InvalidSpec("the key names no field, or one twice")
        for name in self.key:
            if name not in types:
                raise InvalidSpec(f"the key names {name!r}, which is not a field")
            if types[name] not in KEY_TYPES:
                raise InvalidSpec(f"key field {name!r} is a {types[name].value}; it must be string, integer or date")
        for field in self.fields:
            if field.name not in self.key and field.format is not KeyFormat.TEXT:
                raise InvalidSpec(f"field {field.name!r} has the format {field.format.value} and is not in the key")
            if field.name in self.key and not isinstance(_masking_of(field), KEY_RULES):
                raise InvalidSpec(f"key field {field.name!r}: a key is masked by drop, hash or mask:HEAD,TAIL only")

    @property
    def names(self) -> tuple[str, ...]:
        """The column names in their order."""
        return tuple(field.name for field in self.fields)

    @property
    def key_fields(self) -> tuple[Field, ...]:
        """The fields of the key, in the order they are joined."""
        fields = {field.name: field for field in self.fields}
        return tuple(fields[name] for name in self.key)

    @property
    def key_formats(self) -> tuple[KeyFormat, ...]:
        """Their formats."""
        return tuple(field.format for field in self.key_fields)

    def arrow(self) -> pa.Schema:
        """Return the Arrow schema that every batch of rows has."""
        return pa.schema([pa.field(field.name, ARROW[field.type]) for field in self.fields])


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """One version of a dataset, as the catalogue knows it; ``rows`` and ``content_hash`` come from sealing it."""

    code: str
    version: int
    owner: str
    schema: Schema
    rows: int
    content_hash: bytes
    created: datetime
    licence: str
    retention_days: int


class VersionLike(Protocol):
    """What sealing needs to know of a version; a ``DatasetVersion`` has it."""

    @property
    def code(self) -> str:
        """The registration code."""

    @property
    def version(self) -> int:
        """1 for the first."""

    @property
    def schema(self) -> Schema:
        """The columns of its rows."""


def schema_bytes(schema: Schema) -> bytes:
    """Return the canonical JSON of ``schema``: sorted members, ASCII, decimals in their shortest form."""
    fields = [
        {
            "name": field.name,
            "type": field.type.value,
            "meaning": field.meaning,
            "unit": field.unit,
            "grade": field.grade.value,
            "masking": field.masking,
            "price_coefficient": _shortest(field.price_coefficient),
            # The default is left out: digests of schemas from before there were formats stay what they were.
            **({"format": field.format.value} if field.format is not KeyFormat.TEXT else {}),
            **({"invalid": field.invalid.value} if field.invalid is not WhenInvalid.REFUSE else {}),
            **({"valid": _valid_members(field.valid)} if field.valid != Valid() else {}),
        }
        for field in schema.fields
    ]
    return json.dumps({"fields": fields, "key": list(schema.key)}, sort_keys=True, separators=(",", ":")).encode()


def schema_digest(schema: Schema) -> bytes:
    """Return the 32 bytes that stand for ``schema`` in approvals."""
    return tagged("schema", schema_bytes(schema))


def read_schema(path: Path) -> Schema:
    """Read the ``schema.json`` that its owner wrote beside the data."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidSpec(f"{path}: cannot be read ({error.strerror})") from None
    try:
        return parse_schema(data)
    except InvalidSpec as error:
        raise InvalidSpec(f"{path}: {error}") from None


def parse_schema(data: bytes) -> Schema:
    """Parse the JSON form of a schema, the canonical one included; refuse members it does not know."""
    if len(data) > MAX_FILE:
        raise InvalidSpec(f"a schema has at most {MAX_FILE} bytes")
    try:
        tree = json.loads(data.decode("utf-8-sig"), parse_float=Decimal, object_pairs_hook=_no_twins)
    except (ValueError, RecursionError):
        raise InvalidSpec("not a JSON file in UTF-8, or a member stands in it twice") from None
    tree = _members("the schema", tree, required={"key", "fields"}, optional=set())
    key, fields = tree["key"], tree["fields"]
    if not isinstance(key, list) or not all(isinstance(name, str) for name in key):
        raise InvalidSpec("key is not a list of field names")
    if not isinstance(fields, list):
        raise InvalidSpec("fields is not a list")
    return Schema(tuple(_parse_field(number, field) for number, field in enumerate(fields, 1)), tuple(key))


def _parse_field(number: int, tree: object) -> Field:
    name = tree.get("name") if isinstance(tree, dict) else None
    where = f"field {name!r}" if isinstance(name, str) else f"field number {number}"
    texts, more = {"name", "type", "meaning", "grade"}, {"unit", "masking", "format", "invalid"}
    tree = _members(where, tree, required=texts, optional=more | {"price_coefficient", "valid"})
    for member in texts | (more & tree.keys()):
        if not isinstance(tree[member], str):
            raise InvalidSpec(f"{where}: {member} is not a text")
    for member, choices in _CHOICES.items():
        if member in tree and tree[member] not in list(choices):
            raise InvalidSpec(f"{where}: {member} is not one of {', '.join(choices)}")
    price = tree.get("price_coefficient", 1)
    if isinstance(price, bool) or not isinstance(price, int | str | Decimal):
        raise InvalidSpec(f"{where}: price_coefficient is not a number")
    try:
        coefficient = Decimal(price)
    except InvalidOperation:
        raise InvalidSpec(f"{where}: price_coefficient is not a number") from None
    return Field(
        name=tree["name"],
        type=FieldType(tree["type"]),
        meaning=tree["meaning"],
        unit=tree.get("unit", ""),
        grade=Grade(tree["grade"]),
        masking=tree.get("masking", ""),
        price_coefficient=coefficient,
        format=KeyFormat(tree.get("format", KeyFormat.TEXT)),
        invalid=WhenInvalid(tree.get("invalid", WhenInvalid.REFUSE)),
        valid=_parse_valid(where, tree["valid"]) if "valid" in tree else Valid(),
    )


def _parse_valid(where: str, tree: object) -> Valid:
    tree = _members(f"{where}: valid", tree, required=set(), optional={"low", "high", "values", "pattern"})
    bounds = []
    for name in ("low", "high"):
        bound = tree.get(name, "")
        if isinstance(bound, bool) or not isinstance(bound, str | int | Decimal):
            raise InvalidSpec(f"{where}: valid.{name} is neither a number nor a date")
        bounds.append(bound if isinstance(bound, str) else _shortest(Decimal(bound)))
    values, pattern = tree.get("values", []), tree.get("pattern", "")
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InvalidSpec(f"{where}: valid.values is not a list of texts")
    if not isinstance(pattern, str):
        raise InvalidSpec(f"{where}: valid.pattern is not a text")
    return Valid(bounds[0], bounds[1], tuple(values), pattern)


def _valid_members(valid: Valid) -> dict[str, object]:
    members = {"low": valid.low, "high": valid.high, "values": list(valid.values), "pattern": valid.pattern}
    return {name: value for name, value in members.items() if value}


def _check_valid(field: Field) -> None:
    """Refuse a rule that its column could never meet, or that means nothing for its type."""
    valid, where = field.valid, f"field {field.name!r}: valid"
    is_text, is_date = field.type is FieldType.STRING, field.type is FieldType.DATE
    if (valid.values or valid.pattern) and not is_text:
        raise InvalidSpec(f"{where}.values and valid.pattern are for texts")
    if (valid.low or valid.high) and (is_text or field.type is FieldType.BOOLEAN):
        raise InvalidSpec(f"{where}.low and valid.high are for numbers and dates")
    if len(valid.values) > MAX_VALUES or len(set(valid.values)) != len(valid.values) or "" in valid.values:
        raise InvalidSpec(f"{where}.values has more than {MAX_VALUES} texts, one twice, or an empty one")
    try:
        bounds = [(date.fromisoformat if is_date else Decimal)(text) for text in (valid.low, valid.high) if text]
        if any(isinstance(bound, Decimal) and not bound.is_finite() for bound in bounds):
            raise ValueError
    except (ValueError, InvalidOperation):
        raise InvalidSpec(f"{where}.low or valid.high is no {'date as YYYY-MM-DD' if is_date else 'number'}") from None
    if len(bounds) == 2 and bounds[0] > bounds[1]:  # type: ignore[operator]  # both are dates, or both decimals
        raise InvalidSpec(f"{where}.low is above valid.high")
    if valid.pattern:
        try:
            pc.match_substring_regex(pa.array([""]), valid.pattern)
        except pa.ArrowInvalid:
            raise InvalidSpec(f"{where}.pattern is no regular expression of RE2") from None


def _masking_of(field: Field) -> Rule:
    try:
        return parse_rule(field.masking, field.type)
    except InvalidSpec as error:
        raise InvalidSpec(f"field {field.name!r}: {error}") from None


def _members(where: str, tree: object, *, required: set[str], optional: set[str]) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise InvalidSpec(f"{where} is not a JSON object")
    if missing := required - tree.keys():
        raise InvalidSpec(f"{where} lacks {', '.join(sorted(missing))}")
    if unknown := tree.keys() - required - optional:
        raise InvalidSpec(f"{where} has members that mean nothing: {', '.join(sorted(unknown))}")
    return tree


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a member stands twice")
    return dict(pairs)


def _check_text(label: str, text: str, limit: int, *, empty: bool = False) -> None:
    if not (empty or text) or len(text) > limit or text != text.strip() or not text.isprintable():
        raise InvalidSpec(f"{label} is empty, longer than {limit} characters, or has blanks around or controls in it")


def _shortest(value: Decimal) -> str:
    return format(value.normalize(), "f") if value else "0"
