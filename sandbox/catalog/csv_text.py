"""Reads the bytes of a CSV file in batches, strictly: what RFC 4180 does not allow is refused, not guessed at.

Source:    RFC 4180, with a heading, commas, UTF-8 (a byte order mark is accepted), LF or CRLF. Empty lines are skipped.
Security:  Arrow's parser lets an open quotation mark swallow the rest of the file, and text follow a closing one; rows
           would vanish without a word. ``Quotes`` checks that every mark stands where a field begins or ends.
Shapes:    columns of bytes; an unquoted empty field is a missing value, a quoted one an empty text.
           Memory: a few blocks of ``BLOCK`` bytes; a row must fit into one.
Errors:    ``InvalidSpec`` with file and row or line, nothing of their contents.
Not here:  types (columns).
"""

from __future__ import annotations

import csv as heading_csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

from sandbox.catalog.columns import Place

BLOCK = 4 << 20  # bytes
_QUOTE, _LINE_FEED = 0x22, 0x0A
_BEFORE = np.frombuffer(b',\n"', dtype=np.uint8)  # what may stand before an opening mark
_BEHIND = np.frombuffer(b',\r\n"', dtype=np.uint8)  # what may stand behind a closing one
_MARK = b"\xef\xbb\xbf"


class Quotes:
    """A file that remembers the first line with a quotation mark in a wrong place, and ends there."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._marks = 0  # quotation marks so far; after an odd number we are inside a quoted field
        self._lines = 0  # ends of lines so far
        self._last = _LINE_FEED  # the byte before this block
        self.wrong_line = 0  # 0: none

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, or none at the end or after a mark in a wrong place."""
        if self.wrong_line or size == 0:
            return b""
        start = not self._file.tell()
        data = self._file.read(size)
        if start:
            data = data.removeprefix(_MARK)
        block = np.frombuffer(data, dtype=np.uint8)
        self._check(block)
        if len(block):
            self._last = int(block[-1])
        return b"" if self.wrong_line else data

    def _check(self, block: npt.NDArray[np.uint8]) -> None:
        marks = np.flatnonzero(block == _QUOTE)
        opening = marks[self._marks % 2 :: 2]
        before = block[opening - 1]  # of a mark at the very beginning this is the last byte: set right below
        if len(opening) and opening[0] == 0:
            before[0] = self._last
        wrong = opening[~np.isin(before, _BEFORE)]
        closing = marks[(self._marks + 1) % 2 :: 2]
        inside = closing[closing + 1 < len(block)]
        wrong = np.append(wrong, inside[~np.isin(block[inside + 1], _BEHIND)])
        if self._last == _QUOTE and not self._marks % 2 and self._marks and len(block) and block[0] not in _BEHIND:
            wrong = np.append(wrong, 0)
        if not len(block) and self._marks % 2:  # the file ends inside a quoted field
            self.wrong_line = self._lines + 1
        elif len(wrong):
            self.wrong_line = self._lines + int(np.count_nonzero(block[: wrong.min()] == _LINE_FEED)) + 1
        self._marks += len(marks)
        self._lines += int(np.count_nonzero(block == _LINE_FEED))


def read_columns(path: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield the columns ``names`` of a CSV file as bytes; other columns are not looked at."""
    place = Place(path)
    with path.open("rb") as file:
        _check_heading(file.readline(BLOCK), names, place)
        file.seek(0)
        text = Quotes(file)
        ragged: list[int] = []

        def stop(row: csv.InvalidRow) -> str:
            ragged.append(row.number - 1)  # the heading is row 1 there
            return "error"

        reader = _open(text, names, stop)
        batch, rows = None, 0
        while batch is not END:
            batch = _next(reader) if reader else None
            if batch is END:
                text.read()  # the end of the file, should the parser not have asked for it
            if text.wrong_line:
                raise place.refuse(f"line {text.wrong_line}: a quotation mark is open, or not at the end of its field")
            if ragged:
                raise place.refuse("more or fewer fields than the heading has", index=ragged[0] - 1)
            if batch is None:
                raise Place(path, rows).refuse("not CSV, or a row longer than a block, here or further down", index=0)
            if isinstance(batch, pa.RecordBatch):
                yield batch
                rows += batch.num_rows


class End:
    """The end of the rows."""


END = End()


def _next(reader: csv.CSVStreamingReader) -> pa.RecordBatch | End | None:
    """Return the next batch, ``END``, or None for text that is not CSV: the library's words quote the row."""
    try:
        return reader.read_next_batch()
    except StopIteration:
        return END
    except (pa.ArrowException, OSError, ValueError):
        return None


def _open(text: Quotes, names: Sequence[str], stop: Callable[[csv.InvalidRow], str]) -> csv.CSVStreamingReader | None:
    try:
        return csv.open_csv(
            pa.PythonFile(text, mode="r"),
            read_options=csv.ReadOptions(use_threads=False, block_size=BLOCK),
            parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=stop),
            convert_options=csv.ConvertOptions(
                column_types={name: pa.binary() for name in names},
                include_columns=list(names),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                check_utf8=False,
            ),
        )
    except (pa.ArrowException, OSError, ValueError):
        return None


def _check_heading(line: bytes, names: Sequence[str], place: Place) -> None:
    """Refuse a heading that lacks a column or names one twice; say nothing of what else it holds."""
    try:
        found = next(heading_csv.reader([line.decode("utf-8-sig")], strict=True), [])
    except (UnicodeDecodeError, heading_csv.Error):
        found = None
    if found is None or any("\0" in name for name in found):
        raise place.refuse("the heading is not text in UTF-8: neither Parquet nor CSV")
    if not found:
        raise place.refuse("no heading in the first line")
    for name in names:
        if name not in found:
            raise place.refuse("the file has no such column", column=name)
        if found.count(name) > 1:
            raise place.refuse("the file has this column twice", column=name)
    if not line.endswith(b"\n"):
        raise place.refuse("the table has no rows")
