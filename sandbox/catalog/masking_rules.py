"""The short texts by which an owner says how a column is shown outside production, read into rules.

    text           for                        what is shown
    (nothing)      every type                 as its grade says, see masking
    drop           every type                 no such column
    hash           string, integer, date      32 characters that stand for the value under a secret
    mask:3,4       string, integer            the first 3 and the last 4 characters, asterisks between them
    bin:5000       integer, decimal, date     where its bin begins; of dates, bins of that many days
    generalise:4   string                     the first 4 characters: of codes that become finer to the right
    generalise:month, generalise:year
                   date                       the first day of the month, of the year
    shift:30       date                       moved by up to 30 days, a row's dates all by the same number

Errors:    ``InvalidSpec`` in words for who writes the schema; it quotes the rule, which holds nothing of any row.
Not here:  applying them, and what is shown where there is no rule (masking).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal, TypeAlias

from sandbox.catalog.field_types import DECIMAL_PLACES, FieldType
from sandbox.errors import InvalidSpec

MAX_CHARACTERS: Final = 100
MAX_DAYS: Final = 36_500
WHOLE_NUMBERS: Final = 10**18  # widths of bins of integers


@dataclass(frozen=True, slots=True)
class Unmasked:
    """No rule."""


@dataclass(frozen=True, slots=True)
class Drop:
    """The column is not shown."""


@dataclass(frozen=True, slots=True)
class Hash:
    """A keyed digest stands for the value."""


@dataclass(frozen=True, slots=True)
class Mask:
    """``head`` characters at the front and ``tail`` at the end are shown."""

    head: int
    tail: int


@dataclass(frozen=True, slots=True)
class Bin:
    """The begin of bins of this width is shown; dates count in days since 1970."""

    width: Decimal


@dataclass(frozen=True, slots=True)
class Prefix:
    """The first characters are shown."""

    characters: int


@dataclass(frozen=True, slots=True)
class Period:
    """The first day of the calendar's month or year is shown."""

    unit: Literal["M", "Y"]


@dataclass(frozen=True, slots=True)
class Shift:
    """Dates move by at most this many days."""

    days: int


Shown: TypeAlias = Unmasked | Hash | Mask | Bin | Prefix | Period | Shift
Rule: TypeAlias = Shown | Drop

# Under any other rule what is shown may be the key itself: a short text, a number at the edge of its bin.
KEY_RULES: Final = (Unmasked, Drop, Hash, Mask)

EXAMPLES: Final[Mapping[FieldType, str]] = {
    FieldType.STRING: "drop, hash, mask:3,4 or generalise:4",
    FieldType.INTEGER: "drop, hash, mask:3,4 or bin:10",
    FieldType.DECIMAL: "drop or bin:5000",
    FieldType.BOOLEAN: "drop",
    FieldType.DATE: "drop, hash, bin:7, generalise:month, generalise:year or shift:30",
}


def parse_rule(rule: str, type_: FieldType) -> Rule:
    """Return what a masking text says about a column of this type.

    Raises:
        InvalidSpec: it is none of the rules, or none for this type, or a number in it is out of range.
    """
    if rule == "":
        return Unmasked()
    if rule == "drop":
        return Drop()
    for pattern, types, read in _RULES:
        if type_ in types and (found := re.fullmatch(pattern, rule, re.ASCII)):
            return read(type_, *found.groups())
    raise InvalidSpec(f"masking {rule!r} is no rule for a column of type {type_}; write {EXAMPLES[type_]}, or nothing")


def _hash(_: FieldType) -> Rule:
    return Hash()


def _mask(_: FieldType, head: str, tail: str) -> Rule:
    if int(head) + int(tail) > MAX_CHARACTERS:
        raise InvalidSpec(f"masking shows at most {MAX_CHARACTERS} characters")
    return Mask(int(head), int(tail))


def _bin(type_: FieldType, width: str) -> Rule:
    value, finest = Decimal(width), Decimal(1).scaleb(-DECIMAL_PLACES)
    if type_ is FieldType.DECIMAL:
        if value <= finest:
            raise InvalidSpec(f"a bin of decimals is wider than {finest:f}")
        return Bin(value)
    most = Decimal(MAX_DAYS if type_ is FieldType.DATE else WHOLE_NUMBERS)
    if "." in width or not 2 <= value <= most:
        raise InvalidSpec(f"a bin of a column of type {type_} is 2 to {most} wide, a whole number")
    return Bin(value)


def _prefix(_: FieldType, characters: str) -> Rule:
    if not 1 <= int(characters) <= MAX_CHARACTERS:
        raise InvalidSpec(f"generalising a text keeps 1 to {MAX_CHARACTERS} characters")
    return Prefix(int(characters))


def _period(_: FieldType, unit: str) -> Rule:
    return Period("M" if unit == "month" else "Y")


def _shift(_: FieldType, days: str) -> Rule:
    if not 1 <= int(days) <= MAX_DAYS:
        raise InvalidSpec(f"dates are shifted by up to 1 to {MAX_DAYS} days")
    return Shift(int(days))


_STRING, _INTEGER, _DECIMAL, _DATE = FieldType.STRING, FieldType.INTEGER, FieldType.DECIMAL, FieldType.DATE
_RULES: Final[tuple[tuple[str, frozenset[FieldType], Callable[..., Rule]], ...]] = (
    (r"hash", frozenset({_STRING, _INTEGER, _DATE}), _hash),
    (r"mask:([0-9]{1,3}),([0-9]{1,3})", frozenset({_STRING, _INTEGER}), _mask),
    (r"bin:([0-9]{1,28}(?:\.[0-9]{1,10})?)", frozenset({_INTEGER, _DECIMAL, _DATE}), _bin),
    (r"generalise:([0-9]{1,3})", frozenset({_STRING}), _prefix),
    (r"generalise:(month|year)", frozenset({_DATE}), _period),
    (r"shift:([0-9]{1,5})", frozenset({_DATE}), _shift),
)
