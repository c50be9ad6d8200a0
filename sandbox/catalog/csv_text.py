"""Reads the bytes of a CSV file in batches, strictly: what RFC 4180 does not allow is refused, not guessed at.

    bytes --Recoded (GB18030 only)--> UTF-8 --Quotes--> Arrow's parser --> columns of bytes

Source:    RFC 4180, with a heading, commas, LF or CRLF, in UTF-8 (a byte order mark is accepted) or GB 18030-2005, of
           which GBK and GB 2312 are parts. Empty lines are skipped.
Security:  Arrow's parser lets an open quotation mark swallow the rest of the file, and text follow a closing one; rows
           would vanish without a word. ``Quotes`` checks that every mark stands where a field begins or ends. Behind
           the first byte of a character of GB18030 there may be one that looks like a letter or a digit: nothing looks
           at those bytes before they are UTF-8.
Shapes:    columns of bytes; an unquoted empty field is a missing value, a quoted one an empty text.
           Memory: some forty blocks of ``BLOCK`` bytes, for the parser reads up to 32 ahead; a row must fit into one,
           in UTF-8.
Errors:    ``InvalidSpec`` with file and row or line, nothing of their contents.
Not here:  types (columns).
"""

from __future__ import annotations

import codecs
import csv as heading_csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

from sandbox.catalog.columns import Place

BLOCK = 1 << 20  # bytes
TOGETHER = 4  # blocks that become one batch, for the sake of whoever works on batches
_QUOTE, _LINE_FEED = 0x22, 0x0A
_BEFORE = np.frombuffer(b',\n"', dtype=np.uint8)  # what may stand before an opening mark
_BEHIND = np.frombuffer(b',\r\n"', dtype=np.uint8)  # what may stand behind a closing one
_MARK = b"\xef\xbb\xbf"
UTF8: Final = "utf-8"
GB18030: Final = "gb18030"
ENCODINGS: Final = (UTF8, GB18030)


class Readable(Protocol):
    """What can be asked for the next bytes."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes, none at the end."""


class Recoded:
    """A file in GB18030 as UTF-8, which remembers the first line with bytes that are no text, and ends there."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(GB18030)("strict")
        self._ready = b""
        self._ended = False
        self._lines = 0  # ends of lines in what the decoder took
        self.wrong_line = 0  # 0: none

    def read(self, size: int = -1, /) -> bytes:
        """Return the next ``size`` bytes, fewer at the end or before bytes that are no text."""
        while len(self._ready) < size and not self._ended:
            # As many as are missing: what they become is at most half as long again.
            self._take(self._file.read(size - len(self._ready)))
        data, self._ready = self._ready[:size], self._ready[size:]
        return data

    def _take(self, raw: bytes) -> None:
        self._ended = not raw
        try:
            self._ready += self._decoder.decode(raw, final=not raw).encode()
        except UnicodeDecodeError as error:
            # A line feed is never part of a longer character, so lines are counted in either encoding.
            self.wrong_line = self._lines + error.object.count(b"\n", 0, error.start) + 1
            self._ended = True
        self._lines += raw.count(b"\n")


class Quotes:
    """A file that remembers the first line with a quotation mark in a wrong place, and ends there."""

    closed = False

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._begun = False
        self._marks = 0  # quotation marks so far; after an odd number we are inside a quoted field
        self._lines = 0  # ends of lines so far
        self._last = _LINE_FEED  # the byte before this block
        self.wrong_line = 0  # 0: none

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, or none at the end or after a mark in a wrong place."""
        if self.wrong_line or size == 0:
            return b""
        data = self._file.read(size)
        if not self._begun:
            data, self._begun = data.removeprefix(_MARK), True
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


def read_columns(path: Path, names: Sequence[str], encoding: str = UTF8) -> Iterator[pa.RecordBatch]:
    """Yield the columns ``names`` of a CSV file as bytes of UTF-8; other columns are not looked at."""
    place = Place(path)
    if not check_heading(path, names, encoding):
        return
    with path.open("rb") as file:
        recoded = Recoded(file) if encoding == GB18030 else None
        text = Quotes(recoded or file)
        ragged: list[int] = []

        def stop(row: csv.InvalidRow) -> str:
            ragged.append(row.number - 1)  # the heading is row 1 there
            return "error"

        reader = _open(text, names, stop)
        batch, rows = None, 0
        held: list[pa.RecordBatch] = []
        while batch is not END:
            batch = _next(reader) if reader else None
            if batch is END:
                while text.read(BLOCK):  # the end of the file, should the parser not have asked for it
                    continue
            if recoded and recoded.wrong_line:
                raise place.refuse(f"line {recoded.wrong_line}: not text in GB18030")
            if text.wrong_line:
                raise place.refuse(f"line {text.wrong_line}: a quotation mark is open, or not at the end of its field")
            if ragged:
                raise place.refuse("more or fewer fields than the heading has", index=ragged[0] - 1)
            if batch is None:
                raise Place(path, rows).refuse("not CSV, or a row longer than a block, here or further down", index=0)
            if isinstance(batch, pa.RecordBatch):
                held.append(batch)
                rows += batch.num_rows
            if held and (batch is END or sum(one.nbytes for one in held) >= TOGETHER * BLOCK):
                yield pa.concat_batches(held)
                held = []


def check_heading(path: Path, names: Sequence[str], encoding: str = UTF8) -> bool:
    """Refuse a heading that lacks a column or names one twice, and return whether anything comes after it."""
    place = Place(path)
    with path.open("rb") as file:
        line = file.readline(BLOCK)
    if encoding == GB18030 and line.startswith(_MARK):
        raise place.refuse("the file begins with the byte order mark of UTF-8: it is not in GB18030")
    try:
        heading = line.decode(encoding).removeprefix("\ufeff")
        found = next(heading_csv.reader([heading], strict=True), [])
    except (UnicodeDecodeError, heading_csv.Error):
        found = None
    if found is None or any("\0" in name for name in found):
        other = "in GB18030" if encoding == UTF8 else "in UTF-8"
        words = f"the heading is not text in {encoding.upper()}: neither Parquet nor CSV, or {other}"
        raise place.refuse(words)
    if not found:
        raise place.refuse("no heading in the first line")
    for name in names:
        if name not in found:
            raise place.refuse("the file has no such column", column=name)
        if found.count(name) > 1:
            raise place.refuse("the file has this column twice", column=name)
    return line.endswith(b"\n")


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
