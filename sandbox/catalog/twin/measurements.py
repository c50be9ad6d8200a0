"""What a dataset's rows were asked, once, and what the noisy answers were: all that a twin is made from.

Security: epsilon-private as a whole, for the epsilon it states, with a delta of ``2**-delta_bits`` where texts were
          looked for (none where ``delta_bits`` is 0). It may be kept, shown, and used again and again.
Reveals:  the number of rows, exactly, as the catalogue does.
Units:    as in ``cells``: integers as they are, decimals times 10**10, dates in days since 1970, lengths in characters.
Shapes:   ``to_json`` gives canonical JSON (sorted members, ASCII), and ``from_json`` takes no other.
Errors:   ``InvalidSpec`` for what is no measurement.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sandbox.catalog.columns import FIRST_DAY, LAST_DAY
from sandbox.catalog.schema import DECIMAL_DIGITS, DECIMAL_PLACES, MAX_FIELDS, FieldType
from sandbox.catalog.twin.cells import LONGEST
from sandbox.errors import InvalidSpec

MOST_SPANS: Final = 1 << 12  # of a column
MOST_BYTES: Final = 256 << 20
_ENDS: Final[Mapping[FieldType, tuple[int, int]]] = {
    FieldType.STRING: (0, LONGEST),
    FieldType.INTEGER: (-(1 << 63), (1 << 63) - 1),
    FieldType.DECIMAL: (1 - 10**DECIMAL_DIGITS, 10**DECIMAL_DIGITS - 1),
    FieldType.BOOLEAN: (0, 1),
    FieldType.DATE: (FIRST_DAY, LAST_DAY),
}
_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class Span:
    """How many rows, with noise, lie from ``low`` to ``high``, both inclusive."""

    low: int
    high: int
    count: int


@dataclass(frozen=True, slots=True)
class Frequent:
    """How many rows, with noise, hold a text."""

    text: str
    count: int


@dataclass(frozen=True, slots=True)
class Column:
    """What is known of a column.

    ``spans`` are of its values, or of the lengths of texts that are not ``texts``; ``places`` is how many decimal
    places it shows.
    """

    name: str
    type: FieldType
    nulls: int
    spans: tuple[Span, ...] = ()
    texts: tuple[Frequent, ...] = ()
    places: int = 0

    def __post_init__(self) -> None:
        least, most = _ENDS[self.type]
        counts = [self.nulls, *(span.count for span in self.spans), *(one.count for one in self.texts)]
        rising = [edge for span in self.spans for edge in (span.low, span.high)]
        wrong = (
            min(counts) < 0
            or not sum(counts[1:])
            or rising != sorted(rising)
            or any(not least <= edge <= most for edge in rising)
            or not 0 <= self.places <= DECIMAL_PLACES
            or len(self.spans) > MOST_SPANS
            or (bool(self.texts) and self.type is not FieldType.STRING)
        )
        if wrong:
            raise InvalidSpec(f"the measurements of field {self.name!r} are none")


@dataclass(frozen=True, slots=True)
class Measurements:
    """What is known of a version of a dataset, and what that has cost."""

    rows: int
    epsilon_milli: int
    delta_bits: int
    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        if self.rows < 1 or self.epsilon_milli < 1 or self.delta_bits < 0 or len(self.columns) > MAX_FIELDS:
            raise InvalidSpec("these measurements are of no rows, of no budget, or of too many columns")

    @property
    def delta(self) -> float:
        """The probability with which the promise of epsilon may fail."""
        return 2.0**-self.delta_bits if self.delta_bits else 0.0

    def to_json(self) -> bytes:
        """Return the canonical form."""
        columns = [
            {
                "name": column.name,
                "type": column.type.value,
                "nulls": column.nulls,
                "places": column.places,
                "spans": [[span.low, span.high, span.count] for span in column.spans],
                "texts": [[one.text, one.count] for one in column.texts],
            }
            for column in self.columns
        ]
        tree = {
            "rows": self.rows,
            "epsilon_milli": self.epsilon_milli,
            "delta_bits": self.delta_bits,
            "columns": columns,
        }
        return json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Measurements:
        """Parse the canonical form.

        Raises:
            InvalidSpec: it is not.
        """
        if len(data) > MOST_BYTES:
            raise InvalidSpec(f"measurements have at most {MOST_BYTES} bytes")
        try:
            tree = json.loads(data)
            found = cls(**_typed(tree, {"rows": int, "epsilon_milli": int, "delta_bits": int, "columns": _columns}))
            same = found.to_json() == data
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise InvalidSpec("these are no measurements") from None
        if not same:
            raise InvalidSpec("these measurements are not in their canonical form")
        return found


def _columns(trees: object) -> tuple[Column, ...]:
    shape: dict[str, Any] = {"name": str, "type": FieldType, "nulls": int, "places": int}
    shape |= {"spans": lambda rows: _parts(Span, rows, (int, int, int))}
    shape |= {"texts": lambda rows: _parts(Frequent, rows, (str, int))}
    return tuple(Column(**_typed(tree, shape)) for tree in _listed(trees))


def _parts(make: Callable[..., _Part], rows: object, types: Sequence[type]) -> tuple[_Part, ...]:
    found = []
    for row in _listed(rows):
        if [type(part) for part in _listed(row)] != list(types):
            raise TypeError
        "".join(part for part in row if isinstance(part, str)).encode()  # half a character raises
        found.append(make(*row))
    return tuple(found)


def _typed(tree: object, shape: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of an object, each as ``shape`` says; any other type raises."""
    if not isinstance(tree, dict) or tree.keys() != shape.keys():
        raise TypeError
    for name, wanted in shape.items():
        if wanted in (int, str) and type(tree[name]) is not wanted:
            raise TypeError
    return {name: wanted(tree[name]) for name, wanted in shape.items()}


def _listed(rows: object) -> list[Any]:
    if not isinstance(rows, list):
        raise TypeError
    return rows
