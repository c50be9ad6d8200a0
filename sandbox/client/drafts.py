"""Drafts a schema from a table on this machine; nothing is sent.

Errors:    ``InvalidSpec`` for a file that is no table.
Not here:  what is suggested (``catalog.grading``, ``catalog.drafting``).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sandbox.catalog.csv_text import read_columns
from sandbox.catalog.drafting import Drafter
from sandbox.catalog.grading import Grader, Suggestion
from sandbox.errors import InvalidSpec


def draft_schema(path: Path, encoding: str = "utf-8") -> tuple[bytes, tuple[Suggestion, ...]]:
    """Return a schema.json to complete, and the columns that look like personal data.

    Raises:
        InvalidSpec: the file is no table that a schema could describe.
    """
    drafter, grader = Drafter(), Grader()
    for batch in _batches(path, encoding):
        drafter.add(batch)
        grader.add(batch)
    suggestions = grader.done()
    return drafter.done(suggestions).data, suggestions


def _batches(path: Path, encoding: str) -> Iterator[pa.RecordBatch]:
    try:
        if path.suffix.lower() == ".parquet":
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches()
            return
        with path.open(encoding="utf-8-sig" if encoding == "utf-8" else encoding, newline="") as text:
            names = next(csv.reader([text.readline()]), [])
    except (OSError, ValueError, pa.ArrowException, LookupError):
        raise InvalidSpec(tell=f"{path} is neither Parquet nor CSV in {encoding}") from None
    yield from read_columns(path, names, encoding)
