"""The quality profile of a dataset: how complete, valid, varied and recent it is, in figures that tell of no row.

    batches of intake --Profiler--> Profile --to_json--> bytes beside the catalogue's entry

Source:    completeness, accuracy against rules and timeliness as in GB/T 36344-2018. Distinct values: K minimum values
           (Bar-Yossef and others, RANDOM 2002) with K = 2048.
Security:  a profile is shown to people who may see no row, so it has no value of one, the smallest and largest
           included, and nothing that fewer than ``SMALL`` rows decide. What falls short of a share is counted in tens,
           rounded down, before the share is rounded to 0.1 %: nine missing values look like none, nine present ones
           like none. Of fewer than ``FEW`` no share is told. Different values are told in tens (from 1000 on, with
           two digits), fewer than ten as ``BELOW_TEN``, and counted under a fresh secret, so that nobody can try
           whether a value is among them. The day that the rows describe is one that ``SMALL`` rows share: else the
           first of such a month or year, or none. The number of rows is exact: the catalogue shows it.
Units:     shares in thousandths.
Shapes:    of a column: ``complete``, the share of rows that hold a value, an empty text included; of the values, the
           share that meets the rule of the schema (``valid``) and the share that is what the format of the key says
           (``formed``: all of them where intake refuses others); about how many values differ, within 5 % (19 times
           of 20) where they are many. Memory: 16 KiB a column, and 15 MiB for the day. JSON: canonical, UTF-8.
Errors:    ``InvalidSpec``: other columns than the schema's, or names so long that the JSON exceeds ``MAX_BYTES``.
Not here:  what is refused (intake), the page that people read (profile_page), how likely it is that values are true.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa

from sandbox.catalog.columns import FIRST_DAY, LAST_DAY
from sandbox.catalog.profile_columns import ColumnMeasure, Days
from sandbox.catalog.schema import MAX_FIELDS, FieldType, Schema
from sandbox.errors import InvalidSpec

SMALL: Final = 10  # rows
FEW: Final = 2 * SMALL  # rows: of fewer, one of two parts is always small
TOO_FEW: Final = -1  # in place of a share
BELOW_TEN: Final = 0  # in place of a number of distinct values
MAX_BYTES: Final = 256 << 10  # of JSON
_FIGURES: Final = 32  # bytes of JSON at most, beside the name of a column
_EPOCH: Final = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """One column; shares are in thousandths, or ``TOO_FEW``, or None where there is no rule, or no format."""

    name: str
    complete: int
    valid: int | None
    formed: int | None
    distinct: int | None  # or ``BELOW_TEN``, or ``TOO_FEW``; None: every value is another one, for it is the key

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InvalidSpec("a profile names a column with no text")
        for share in (self.complete, self.valid, self.formed):
            if share is not None and (type(share) is not int or not TOO_FEW <= share <= 1000):
                raise InvalidSpec("a profile holds a share that is none")
        if self.complete is None or not (self.distinct in (None, TOO_FEW) or _is_count(self.distinct)):
            raise InvalidSpec("a profile holds a number that is none")


@dataclass(frozen=True, slots=True)
class Profile:
    """All columns in the schema's order, and how recent the rows are."""

    rows: int
    key: tuple[str, ...]  # together different in every row
    columns: tuple[ColumnProfile, ...]
    as_of: date | None
    update_days: int  # 0: not told

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if not (_is_count(self.rows) and _is_count(self.update_days)):
            raise InvalidSpec("a profile holds a number that is none")
        if not 1 <= len(names) <= MAX_FIELDS or len(set(names)) < len(names) or not set(self.key) <= set(names):
            raise InvalidSpec("the columns of a profile are none")

    @property
    def due(self) -> date | None:
        """The day until which a newer version is due, if that is known."""
        if self.as_of is None or not self.update_days or self.update_days > (date.max - self.as_of).days:
            return None
        return self.as_of + timedelta(days=self.update_days)

    def to_json(self) -> bytes:
        """Return the canonical JSON, of at most ``MAX_BYTES``."""
        tree = {
            "rows": self.rows,
            "key": list(self.key),
            "columns": [[one.name, one.complete, one.valid, one.formed, one.distinct] for one in self.columns],
            "as_of": self.as_of.isoformat() if self.as_of else None,
            "update_days": self.update_days,
        }
        return _encoded(tree)

    @classmethod
    def from_json(cls, data: bytes) -> Profile:
        """Read back what ``to_json`` made, and nothing else.

        Raises:
            InvalidSpec: it is something else.
        """
        try:
            tree: Any = json.loads(data) if len(data) <= MAX_BYTES else None
            columns = tuple(ColumnProfile(*column) for column in tree["columns"])
            as_of = None if tree["as_of"] is None else date.fromisoformat(tree["as_of"])
            profile: Profile | None = cls(tree["rows"], tuple(tree["key"]), columns, as_of, tree["update_days"])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            profile = None
        if profile is None or profile.to_json() != data:
            raise InvalidSpec("not the JSON of a profile")
        return profile


class Profiler:
    """Takes in the batches that ``intake.read_table`` yields, one after the other."""

    def __init__(self, schema: Schema, as_of_column: str = "") -> None:
        """Args:
        schema: of the batches.
        as_of_column: the column whose newest day is the day that the rows describe; empty: none.

        Raises:
            InvalidSpec: there is no such column of dates, or the names are too long for a profile.
        """
        dates = {field.name for field in schema.fields if field.type is FieldType.DATE}
        if as_of_column and as_of_column not in dates:
            raise InvalidSpec(f"{as_of_column!r} is not a column of dates")
        if len(_encoded([schema.names, schema.key])) + _FIGURES * len(schema.fields) + 200 > MAX_BYTES:
            raise InvalidSpec("the names of the fields are too long, all together")
        self._schema = schema
        self._types = schema.arrow()
        self._rows = 0
        self._columns = [ColumnMeasure(field, unique=schema.key == (field.name,)) for field in schema.fields]
        self._as_of_column = as_of_column
        self._days = next((Days(field.valid) for field in schema.fields if field.name == as_of_column), None)

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in the next rows."""
        if not batch.schema.equals(self._types):
            raise InvalidSpec("a batch has other columns than its schema")
        for measure, column in zip(self._columns, batch.columns, strict=True):
            measure.add(column)
        if self._days is not None:
            self._days.add(batch.column(self._as_of_column))
        self._rows += batch.num_rows

    def done(self, as_of: date | None = None, update_days: int = 0) -> Profile:
        """Return the profile of all rows so far.

        Args:
            as_of: the day that the rows describe; None asks the column, if one was named.
            update_days: a newer version is due after so many days; 0: not told.
        """
        if as_of is None and self._days is not None:
            as_of = newest_shared(self._days)
        columns = (
            ColumnProfile(
                name=measure.field.name,
                complete=share(measure.present, self._rows),
                valid=None if measure.valid is None else share(measure.valid, measure.present),
                formed=None if measure.formed is None else share(measure.formed, measure.present),
                distinct=None if measure.distinct is None else rounded(measure.distinct.estimate(), measure.present),
            )
            for measure in self._columns
        )
        return Profile(self._rows, self._schema.key, tuple(columns), as_of, update_days)


def profiled(batches: Iterable[pa.RecordBatch], profiler: Profiler) -> Iterator[pa.RecordBatch]:
    """Yield the batches as they come, and let ``profiler`` see each."""
    for batch in batches:
        profiler.add(batch)
        yield batch


def share(good: int, of: int) -> int:
    """Return in thousandths how many of how many rows are good, so that no small number of rows can be read from it."""
    if of < FEW:
        return TOO_FEW
    if good < SMALL:
        return 0
    short = (of - good) // SMALL * SMALL
    return (2000 * (of - short) + of) // (2 * of)


def rounded(count: int, of: int) -> int:
    """Return how many of so many values differ: in tens, from 1000 on with two digits, ``BELOW_TEN`` or ``TOO_FEW``."""
    if of < FEW:
        return TOO_FEW
    if count < SMALL:
        return BELOW_TEN
    unit = SMALL
    while count >= 100 * unit:
        unit *= 10
    nearest = (count + unit // 2) // unit * unit
    return nearest if nearest <= of else count // unit * unit


def newest_shared(days: Days) -> date | None:
    """Return the newest day that ``SMALL`` rows share; else the first day of such a month, or year, or None."""
    for unit in ("D", "M", "Y"):
        begins, rows = days.grouped(unit)
        shared = np.flatnonzero(rows >= SMALL)
        if len(shared):
            day = int(begins[shared[-1]])
            return _EPOCH + timedelta(days=min(max(day, FIRST_DAY), LAST_DAY))
    return None


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _encoded(tree: Any) -> bytes:
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
