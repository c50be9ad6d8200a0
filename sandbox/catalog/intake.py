"""Takes in the table that a department hands over: typed, checked, in batches, or refused before any work.

    path --csv_text | parquet--> batches --columns--> typed --keys--> batches of the schema's columns

Security:  an owner's file may be wrong in any place; the owner learns which (file, column, row), everybody else only
           that the dataset cannot be used and whom to ask (``tell``). No text quotes a value.
Shapes:    rows are counted from 1, headings not counted. Columns that the schema does not name are not read.
           Memory: a batch, and for the key check 16 bytes a row, for a moment at the end 40.
           Which rows repeat the key of another is counted by 128-bit digests under a fresh salt.
           The file is read once; a second time only when two keys look alike, to compare them exactly.
Errors:    ``InvalidSpec``: no such file, neither Parquet nor CSV, not UTF-8, a column missing or of another type, no
           rows, a key that is missing or empty; and, with how many rows that concerns, keys that are not what their
           format says (unless the schema keeps them) and keys that come twice once they are spelled.
Not here:  sealing (vault), how keys are spelled (formats).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as member
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sandbox.catalog.columns import Place, from_arrow, from_text
from sandbox.catalog.csv_text import read_columns
from sandbox.catalog.formats import Flags, WhenInvalid, spell
from sandbox.catalog.ids import SEPARATOR, digest128, join, normalise
from sandbox.catalog.schema import Field, Schema
from sandbox.errors import InvalidSpec

BATCH_ROWS = 131072
NAMED_ROWS = 10  # of those with an invalid key
COMPARED_AT_ONCE = 10_000  # pairs of keys that look alike, compared in one reading of the file

Rows: TypeAlias = npt.NDArray[np.int64]
Fetch: TypeAlias = Callable[[Rows], pa.Array]


@dataclass(slots=True)
class _Invalid:
    """Rows whose key is not what the format of one of its columns says."""

    field: Field
    count: int = 0
    first: list[int] = member(default_factory=list)

    def add(self, valid: Flags, before: int) -> None:
        """Take in the flags of a batch that ``before`` rows came before."""
        wrong = np.flatnonzero(~valid)
        self.count += len(wrong)
        self.first += (wrong[: NAMED_ROWS - len(self.first)] + before + 1).tolist()

    def text(self, rows: int) -> str:
        """Say how many of ``rows`` and which, never what stands there."""
        more = " ..." if self.count > len(self.first) else ""
        return (
            f"column {self.field.name!r}: {self.count} of {rows} rows hold no valid {self.field.format.value} "
            f"(rows {', '.join(map(str, self.first))}{more}); correct them, or keep them as they are by "
            'saying "invalid": "keep" in the schema'
        )


def read_table(path: Path, schema: Schema, batch_rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
    """Yield the table in batches of at most ``batch_rows`` rows with the schema's columns, types and order.

    Invalid and equal keys are refused after the last batch: whoever stores rows must not commit before the end.

    Raises:
        InvalidSpec: the table cannot be used; see the module.
    """
    salt = os.urandom(16)
    digests: list[npt.NDArray[np.uint64]] = []
    refused = {field.name: _Invalid(field) for field in schema.key_fields if field.invalid is WhenInvalid.REFUSE}
    rows = 0
    for batch in _typed(path, schema, schema.names, batch_rows):
        keys = _keys(batch, schema, Place(path, rows), refused)
        digests.append(digest128(keys, salt))
        rows += batch.num_rows
        yield batch
    if not rows:
        raise Place(path).refuse("the table has no rows")
    wrong = [column.text(rows) for column in refused.values() if column.count]
    twins = find_twins(np.concatenate(digests), lambda wanted: _fetch(path, schema, wanted))
    if twins:
        first, second, repeats = twins
        of = "1 row repeats" if repeats == 1 else f"{repeats} rows repeat"
        wrong.append(
            f"rows {first + 1} and {second + 1} have the same key ({', '.join(schema.key)}); "
            f"in all, {of} the key of an earlier row"
        )
    if wrong:
        raise Place(path).refuse("; ".join(wrong))


def find_twins(digests: npt.NDArray[np.uint64], fetch: Fetch) -> tuple[int, int, int] | None:
    """Return the first row whose key stood in an earlier one, after that one, and how many such rows there are.

    Rows are counted from 0 here.

    ``digests`` holds two words a row, equal where keys are; ``fetch`` returns the keys of rows in ascending order,
    and decides: rows with equal digests and different keys are no twins.
    """
    ordered = np.sort(digests[:, 0])
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    if not len(repeated):
        return None
    rows = np.flatnonzero(np.isin(digests[:, 0], repeated))
    alike = digests[rows]
    order = np.lexsort((rows, alike[:, 1], alike[:, 0]))  # equal digests side by side, earlier rows first
    rows, alike = rows[order], alike[order]
    again = np.flatnonzero((alike[1:] == alike[:-1]).all(axis=1)) + 1
    pairs = np.stack([rows[again - 1], rows[again]], axis=1)
    pairs = pairs[np.argsort(pairs[:, 1])]
    for begin in range(0, len(pairs), COMPARED_AT_ONCE):
        some = pairs[begin : begin + COMPARED_AT_ONCE]
        wanted = np.unique(some)
        keys = fetch(wanted)
        left, right = (keys.take(pa.array(np.searchsorted(wanted, side))) for side in (some[:, 0], some[:, 1]))
        index = pc.index(pc.equal(left, right), pa.scalar(True)).as_py()
        if index >= 0:
            return int(some[index, 0]), int(some[index, 1]), len(pairs)
    # Three keys or more with one digest may hide a pair that is not side by side: look at all of them at once.
    wanted = np.unique(pairs)
    codes = fetch(wanted).dictionary_encode().indices.to_numpy() if len(wanted) > 2 else np.arange(len(wanted))
    order = np.argsort(codes, kind="stable")
    same = np.flatnonzero(codes[order][1:] == codes[order][:-1])
    if not len(same):
        return None
    first = same[np.argmin(wanted[order][same + 1])]
    return int(wanted[order][first]), int(wanted[order][first + 1]), len(same)


def _keys(batch: pa.RecordBatch, schema: Schema, place: Place, refused: Mapping[str, _Invalid]) -> pa.Array:
    parts = []
    for field in schema.key_fields:
        spelled = spell(batch.column(field.name), field.format)
        bad = pc.fill_null(pc.equal(spelled.text, ""), True)
        if (index := pc.index(bad, pa.scalar(True)).as_py()) >= 0:
            raise place.refuse("the key is missing or empty", column=field.name, index=index)
        if (index := pc.index(pc.match_substring(spelled.text, SEPARATOR), pa.scalar(True)).as_py()) >= 0:
            raise place.refuse("the key contains the control character U+001F", column=field.name, index=index)
        if field.name in refused:
            refused[field.name].add(spelled.valid, place.rows)
        parts.append(spelled.text)
    return join(parts)


def _fetch(path: Path, schema: Schema, wanted: Rows) -> pa.Array:
    """Return the keys of the rows ``wanted`` (from 0, ascending)."""
    found, rows = [], 0
    for batch in _typed(path, schema, schema.key, BATCH_ROWS):
        first, end = np.searchsorted(wanted, [rows, rows + batch.num_rows])
        if end > first:
            some = batch.take(pa.array(wanted[first:end] - rows))
            found.append(normalise([some.column(name) for name in schema.key], schema.key_formats))
        rows += batch.num_rows
    if sum(map(len, found)) != len(wanted):
        raise Place(path).refuse("the file changed while it was read")
    return pa.concat_arrays(found)


def _typed(path: Path, schema: Schema, names: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
    if batch_rows < 1:
        raise InvalidSpec("a batch has at least one row")
    fields = [field for field in schema.fields if field.name in names]
    types = pa.schema([schema.arrow().field(field.name) for field in fields])
    parquet = _is_parquet(path)
    source = _parquet(path, types.names, batch_rows) if parquet else read_columns(path, types.names)
    convert = from_arrow if parquet else from_text
    rows = 0
    for batch in source:
        for begin in range(0, batch.num_rows, batch_rows):
            part = batch.slice(begin, batch_rows)
            place = Place(path, rows)
            columns = [convert(part.column(field.name), field, place) for field in fields]
            yield pa.RecordBatch.from_arrays(columns, schema=types)
            rows += part.num_rows


def _is_parquet(path: Path) -> bool:
    reason, magic = "", b""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        reason = error.strerror or "unknown"
    if reason:
        raise Place(path).refuse(f"cannot be read ({reason})")
    if not magic:
        raise Place(path).refuse("the file is empty")
    return magic == b"PAR1"


def _parquet(path: Path, names: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
    place = Place(path)
    try:
        file: pq.ParquetFile | None = pq.ParquetFile(path, memory_map=False, buffer_size=1 << 20, pre_buffer=False)
        found = file.schema_arrow.names if file else []
    except (pa.ArrowException, OSError, ValueError):
        file = None
    if file is None:
        raise place.refuse("a damaged Parquet file")
    with file:
        for name in names:
            if name not in found:
                raise place.refuse("the file has no such column", column=name)
            if found.count(name) > 1:
                raise place.refuse("the file has this column twice", column=name)
        batches = file.iter_batches(batch_rows, columns=list(names), use_threads=False)
        rows = 0
        while True:
            damaged, batch = False, None
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError, ValueError):
                damaged = True
            if damaged:
                raise Place(path, rows).refuse("a damaged Parquet file, here or further down", index=0)
            if batch is None:
                return
            yield batch
            rows += batch.num_rows
