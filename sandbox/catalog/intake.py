"""Takes in the table that a department hands over: typed, checked, in batches, or refused before any work.

    paths --csv_text | parquet--> batches --columns--> typed --keys--> batches of the schema's columns

Security:  an owner's file may be wrong in any place; the owner learns which (file, column, row), everybody else only
           that the dataset cannot be used and whom to ask (``tell``). No text quotes a value.
Shapes:    one file, or several that are one table, in the order given: all Parquet or all CSV. Rows are counted from
           1 in each file, headings not counted. Columns that the schema does not name are not read.
           Memory: a few batches, and for the key check 8 bytes a row; where keys repeat, up to 25 for a moment.
           Which rows repeat the key of another is counted by 64-bit digests under a fresh salt.
           The files are read once; a second time only when two keys look alike, to compare them exactly.
Errors:    ``InvalidSpec``: no such file, neither Parquet nor CSV, both, not in the encoding, a column missing or of
           another type, no rows, a key that is missing or empty; and, with how many rows that concerns, keys that are
           not what their format says (unless the schema keeps them) and keys that come twice once they are spelled.
Not here:  sealing (vault), how keys are spelled (formats), what is worth knowing about the values (profile).
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as member
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sandbox.catalog.columns import Place, from_arrow, from_text, refuse_table
from sandbox.catalog.csv_text import ENCODINGS, UTF8, check_heading, read_columns
from sandbox.catalog.formats import Flags, WhenInvalid, spell
from sandbox.catalog.ids import SEPARATOR, Words, digest128, join, normalise
from sandbox.catalog.schema import Field, Schema
from sandbox.errors import InvalidSpec

BATCH_ROWS = 65536  # a chunk of the vault: larger ones cost memory and are cut again
NAMED_ROWS = 10  # of those with an invalid key
COMPARED_AT_ONCE = 10_000  # keys that look alike, compared in one reading of the table

Batches: TypeAlias = Iterator[tuple[Place, pa.RecordBatch]]


@dataclass(slots=True)
class _Table:
    """The files of one table, and with which of its rows, from 0, those that were begun begin."""

    paths: tuple[Path, ...]
    parquet: bool
    encoding: str
    begins: list[int] = member(default_factory=list)

    def read(self, schema: Schema, names: Sequence[str], batch_rows: int) -> Batches:
        """Yield the columns ``names``, each batch with its place in its file."""
        fields = [field for field in schema.fields if field.name in names]
        types = pa.schema([schema.arrow().field(field.name) for field in fields])
        convert = from_arrow if self.parquet else from_text
        rows, self.begins = 0, []
        for path in self.paths:
            self.begins.append(rows)
            source = (
                _parquet(path, types.names, batch_rows)
                if self.parquet
                else read_columns(path, types.names, self.encoding)
            )
            for batch in source:
                for begin in range(0, batch.num_rows, batch_rows):
                    part, place = batch.slice(begin, batch_rows), Place(path, rows - self.begins[-1])
                    columns = [convert(part.column(field.name), field, place) for field in fields]
                    yield place, pa.RecordBatch.from_arrays(columns, schema=types)
                    rows += part.num_rows

    def rows_named(self, rows: Sequence[int]) -> str:
        """Say which rows these are; with several files, of which."""
        found = [(bisect_right(self.begins, row) - 1, row) for row in rows]
        parts = []
        for file, some in groupby(found, key=lambda one: one[0]):
            numbers = ", ".join(str(row - self.begins[file] + 1) for _, row in some)
            parts.append(numbers if len(self.paths) == 1 else f"{numbers} of {self.paths[file]}")
        return ", ".join(parts)

    def refuse(self, what: str) -> InvalidSpec:
        """Return the error to raise about all of it."""
        more = len(self.paths) - 1
        return refuse_table(f"{self.paths[0]}{f' and {more} more' if more else ''}", what)


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
        self.first += (wrong[: NAMED_ROWS - len(self.first)] + before).tolist()

    def text(self, rows: int, table: _Table) -> str:
        """Say how many of ``rows`` and which, never what stands there."""
        more = " ..." if self.count > len(self.first) else ""
        return (
            f"column {self.field.name!r}: {self.count} of {rows} rows hold no valid {self.field.format.value} "
            f"(rows {table.rows_named(self.first)}{more}); correct them, or keep them as they are by "
            'saying "invalid": "keep" in the schema'
        )


def read_table(
    paths: Path | Sequence[Path], schema: Schema, batch_rows: int = BATCH_ROWS, encoding: str = UTF8
) -> Iterator[pa.RecordBatch]:
    """Yield the table in batches of at most ``batch_rows`` rows with the schema's columns, types and order.

    Invalid and equal keys are refused after the last batch: whoever stores rows must not commit before the end.

    Args:
        paths: a file, or several to be read one after the other as one table.
        schema: what they hold.
        batch_rows: at least 1.
        encoding: of CSV files, "utf-8" or "gb18030".

    Raises:
        InvalidSpec: the table cannot be used; see the module.
    """
    if batch_rows < 1:
        raise InvalidSpec("a batch has at least one row")
    table = _open(paths, schema, encoding)
    digest = partial(_digest, salt=os.urandom(16))
    digests: list[Words] = []
    refused = {field.name: _Invalid(field) for field in schema.key_fields if field.invalid is WhenInvalid.REFUSE}
    rows = 0
    for place, batch in table.read(schema, schema.names, batch_rows):
        digests.append(digest(_keys(batch, schema, place, rows, refused)))
        rows += batch.num_rows
        yield batch
    if not rows:
        raise table.refuse("the table has no rows")
    wrong = [column.text(rows, table) for column in refused.values() if column.count]
    twins = find_twins(digests, lambda: _keys_again(table, schema, rows), digest)
    if twins:
        first, second, repeats = twins
        of = "1 row repeats" if repeats == 1 else f"{repeats} rows repeat"
        wrong.append(
            f"rows {table.rows_named([first])} and {table.rows_named([second])} have the same key "
            f"({', '.join(schema.key)}); in all, {of} the key of an earlier row"
        )
    if wrong:
        raise table.refuse("; ".join(wrong))


def find_twins(
    digests: list[Words], again: Callable[[], Iterator[pa.Array]], digest: Callable[[pa.Array], Words]
) -> tuple[int, int, int] | None:
    """Return the first row whose key stood in an earlier one, after that one, and how many such rows there are.

    Rows are counted from 0 here. Equal keys have equal digests, and the keys decide: ``again`` reads all of them anew.
    Where more than ``COMPARED_AT_ONCE`` keys come twice, the row is the first of so many of them.

    Args:
        digests: of all keys in their order, in batches; the list is emptied, to save memory.
        again: yields the keys of all rows.
        digest: what ``digests`` are made with.
    """
    ordered = np.empty(sum(map(len, digests)), dtype=np.uint64)
    end = len(ordered)
    while digests:
        some = digests.pop()
        ordered[end - len(some) : end] = some
        end -= len(some)
    ordered.sort()
    same = ordered[1:] == ordered[:-1]
    repeats, repeated = int(np.count_nonzero(same)), np.unique(ordered[1:][same])
    del ordered, same
    for begin in range(0, len(repeated), COMPARED_AT_ONCE):
        some = repeated[begin : begin + COMPARED_AT_ONCE]
        seen: dict[str, int] = {}
        rows = 0
        for keys in again():
            alike = np.flatnonzero(np.isin(digest(keys), some))
            for row, key in zip(alike.tolist(), keys.take(pa.array(alike)).to_pylist(), strict=True):
                if key in seen:
                    return seen[key], rows + row, repeats
                seen[key] = rows + row
            rows += len(keys)
    return None


def _digest(keys: pa.Array, salt: bytes) -> Words:
    return digest128(keys, salt)[:, 0].copy()  # a view would keep the other half


def _keys(
    batch: pa.RecordBatch, schema: Schema, place: Place, before: int, refused: Mapping[str, _Invalid]
) -> pa.Array:
    parts = []
    for field in schema.key_fields:
        spelled = spell(batch.column(field.name), field.format)
        bad = pc.fill_null(pc.equal(spelled.text, ""), True)
        if (index := pc.index(bad, pa.scalar(True)).as_py()) >= 0:
            raise place.refuse("the key is missing or empty", column=field.name, index=index)
        if (index := pc.index(pc.match_substring(spelled.text, SEPARATOR), pa.scalar(True)).as_py()) >= 0:
            raise place.refuse("the key contains the control character U+001F", column=field.name, index=index)
        if field.name in refused:
            refused[field.name].add(spelled.valid, before)
        parts.append(spelled.text)
    return join(parts)


def _keys_again(table: _Table, schema: Schema, rows: int) -> Iterator[pa.Array]:
    left = rows
    for _, batch in table.read(schema, schema.key, BATCH_ROWS):
        left -= batch.num_rows
        yield normalise([batch.column(name) for name in schema.key], schema.key_formats)
    if left:
        raise table.refuse("the table changed while it was read")


def _open(paths: Path | Sequence[Path], schema: Schema, encoding: str) -> _Table:
    """Refuse files of which one look is enough to see that they are not one table of ``schema``."""
    files = (paths,) if isinstance(paths, Path) else tuple(paths)
    if not files:
        raise InvalidSpec("a table is read from one file at least")
    if encoding not in ENCODINGS:
        raise InvalidSpec(f"an encoding is one of {', '.join(ENCODINGS)}")
    parquet = _is_parquet(files[0])
    for path in files:
        if _is_parquet(path) is not parquet:
            kind, other = ("a Parquet", "no Parquet") if parquet else ("no Parquet", "a Parquet")
            raise Place(path).refuse(f"is {other} file, and {files[0]} is {kind} file: a table is of one kind")
        if parquet:
            _open_parquet(path, schema.names).close()
        else:
            check_heading(path, schema.names, encoding)
    return _Table(files, parquet, encoding)


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


def _open_parquet(path: Path, names: Sequence[str]) -> pq.ParquetFile:
    place = Place(path)
    try:
        file: pq.ParquetFile | None = pq.ParquetFile(path, memory_map=False, buffer_size=1 << 20, pre_buffer=False)
        found = file.schema_arrow.names if file else []
    except (pa.ArrowException, OSError, ValueError):
        file = None
    if file is None:
        raise place.refuse("a damaged Parquet file")
    for name in names:
        if found.count(name) != 1:
            file.close()
            raise place.refuse(
                "the file has this column twice" if name in found else "the file has no such column", column=name
            )
    return file


def _parquet(path: Path, names: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
    with _open_parquet(path, names) as file:
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
