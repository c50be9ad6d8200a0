"""Looks at the rows of a new version while they stream by on their way into the vault.

    batches --watch--> the same batches;   done() -> quality profile, columns that look more sensitive than their grade

Units:     the grader sees the first ``GRADED_ROWS`` rows, which is enough to know an identity number when it comes.
Errors:    ``InvalidSpec`` where the day that the rows describe is neither a day nor a column of dates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from typing import Final

import pyarrow as pa

from sandbox.catalog.grading import Grader, Suggestion, too_low
from sandbox.catalog.profile import Profile, Profiler
from sandbox.catalog.schema import Schema
from sandbox.errors import InvalidSpec, PolicyRefused

GRADED_ROWS: Final = 1 << 16


class Survey:
    """What is found out about one table."""

    def __init__(self, schema: Schema, as_of: str = "", update_days: int = 0) -> None:
        """Args:
        as_of: the day that the rows describe, or the column whose newest day does; empty: not told.
        update_days: a newer version is due after so many days; 0: not told.
        """
        self._schema, self._update_days = schema, update_days
        self._day = None if as_of in schema.names else _day(as_of)
        self._profiler = Profiler(schema, as_of if as_of in schema.names else "")
        self._grader, self._rows = Grader(), 0

    def watch(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the batches, looking at each."""
        for batch in batches:
            self._profiler.add(batch)
            if self._rows < GRADED_ROWS:
                self._grader.add(batch)
            self._rows += batch.num_rows
            yield batch

    def profile(self) -> Profile:
        """Return the quality profile."""
        return self._profiler.done(self._day, self._update_days)

    def too_low(self) -> tuple[Suggestion, ...]:
        """Return the columns that hold what deserves a higher grade than the schema gives."""
        return too_low(self._schema, self._grader.done())


def refuse_low(found: tuple[Suggestion, ...]) -> None:
    """Raise ``PolicyRefused`` naming the columns whose grade a person has to look at."""
    if found:
        named = "; ".join(f"{one.column} looks like {one.kind.value} (grade {one.grade})" for one in found)
        raise PolicyRefused(
            tell=f"columns look more sensitive than their grades say: {named}",
            stage="register",
            hint="raise the grades in the schema, or confirm them (--grades-confirmed) after looking",
        )


def _day(text: str) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidSpec(tell="as_of must be a day as YYYY-MM-DD, or a column of dates") from None
