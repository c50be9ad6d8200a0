"""What is asked of each column of a dataset, and its share of the one privacy budget.

    questions(schema, epsilon_milli) -> every question with its epsilon; together they are the stated epsilon exactly

Security: basic composition: epsilons are added up. Every column outside the key has the same share, split by the
          weights below. Key columns are asked nothing: their twins are made up (``people``). A schema of key columns
          only has no questions and spends nothing.
          The unit is a row, which is a person, because keys are unique: what stands in one row may be anything else,
          and no twin becomes more than exp(epsilon) times as likely, but for the delta of categories (``release``).
          How many rows there are is public; the catalogue shows it.
          A replaced row leaves one cell of each histogram and enters another: every answer has a sensitivity of 2.
Units:    epsilon in thousandths where it is stated, in exact fractions where it is split.
Not here: how noise is drawn (release), whether the owner's budget allows it (policy).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Final

from sandbox.catalog.schema import Field, FieldType, Schema
from sandbox.errors import InvalidSpec
from sandbox.kinds.noise import MOST_EPSILON_MILLI


class Ask(StrEnum):
    """A question, which is a histogram: each row counts in one of its cells at most."""

    RANGE = "range"  # which powers of two, or which years
    PLACES = "places"  # how many decimal places
    CATEGORIES = "categories"  # which texts are frequent
    LENGTHS = "lengths"  # of texts, and how many are missing
    VALUES = "values"  # in cells that are known by now, and how many are missing


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one column, and what it costs."""

    column: str
    ask: Ask
    epsilon: Fraction


_NUMBERS: Final = {Ask.RANGE: 2, Ask.VALUES: 4}
_DECIMALS: Final = {Ask.RANGE: 2, Ask.PLACES: 1, Ask.VALUES: 3}
_TEXTS: Final = {Ask.CATEGORIES: 3, Ask.LENGTHS: 1}
_KNOWN: Final = {Ask.VALUES: 1}
_WEIGHTS: Final[Mapping[FieldType, Mapping[Ask, int]]] = {
    FieldType.STRING: _TEXTS,
    FieldType.INTEGER: _NUMBERS,
    FieldType.DATE: _NUMBERS,
    FieldType.DECIMAL: _DECIMALS,
    FieldType.BOOLEAN: _KNOWN,
}


def measured(schema: Schema) -> tuple[Field, ...]:
    """Return the fields that are asked about: those outside the key."""
    return tuple(field for field in schema.fields if field.name not in schema.key)


def questions(schema: Schema, epsilon_milli: int) -> tuple[Question, ...]:
    """Return every question about a dataset with its share of the budget.

    Raises:
        InvalidSpec: no such budget.
    """
    if not 1 <= epsilon_milli <= MOST_EPSILON_MILLI:
        raise InvalidSpec(tell=f"epsilon_milli must be 1 to {MOST_EPSILON_MILLI}")
    fields = measured(schema)
    found = []
    for field in fields:
        weights = _weights(field)
        share = Fraction(epsilon_milli, 1000 * len(fields) * sum(weights.values()))
        found += [Question(field.name, ask, share * weight) for ask, weight in weights.items()]
    return tuple(found)


def _weights(field: Field) -> Mapping[Ask, int]:
    """Return how the share of a column is split; what its schema declares needs not be asked."""
    if field.valid.values:
        return _KNOWN
    weights = _WEIGHTS[field.type]
    if field.valid.low and field.valid.high:
        return {ask: weight for ask, weight in weights.items() if ask is not Ask.RANGE}
    return weights
