"""The content hash of a table: the same rows in the same order have the same hash on every machine.

Shapes:    every column is digested with SM3 as streams that run through all rows, so that batches do not matter:
             * presence: a byte a row, 1 or 0 for a missing value;
             * lengths (texts only): 4 bytes a row, little-endian, 0 for a missing value;
             * values: texts as their UTF-8 bytes; integers as 8 bytes, dates as 4 (days since 1970) and decimals as
               16 (times 10**10), each little-endian two's complement; truth values as one byte; 0 if missing.
           The hash is the tagged SM3 ("content") of the number of rows (8 bytes, big-endian) and, for each column in
           the schema's order, the length of its name (4 bytes), its name, its type's name in the same way, and the
           32-byte digests of its three streams (of nothing, for numbers' lengths).
           Meanings, grades and prices are not part of it: ``schema_digest`` covers those.
Security:  whoever can guess the whole table can confirm the guess. Where that matters, publish a commitment to it.
Not here:  file formats; Parquet bytes differ between library versions, so they are never hashed as content.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sandbox.catalog.schema import ARROW, FieldType, Schema
from sandbox.crypto.sm3 import Sm3, tagged
from sandbox.errors import InvalidSpec


class ContentHash:
    """Takes in batches of a schema's columns, one after the other."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._columns = [(Sm3(), Sm3(), Sm3()) for _ in schema.fields]
        self.rows = 0

    def update(self, batch: pa.RecordBatch) -> None:
        """Take in the next rows."""
        if not batch.schema.equals(self._schema.arrow()):
            raise InvalidSpec("a batch has other columns than its schema")
        for field, column, (presence, lengths, values) in zip(
            self._schema.fields, batch.columns, self._columns, strict=True
        ):
            valid = column.is_valid().cast(pa.uint8()).to_numpy(zero_copy_only=False)
            presence.update(valid.tobytes())
            if field.type is FieldType.STRING:
                sizes, text = _text(column)
                lengths.update(sizes.tobytes())
                values.update(text)
            else:
                values.update(_numbers(column, field.type, valid).tobytes())
        self.rows += batch.num_rows

    def digest(self) -> bytes:
        """Return the content hash of all rows so far."""
        parts = [self.rows.to_bytes(8, "big")]
        for field, streams in zip(self._schema.fields, self._columns, strict=True):
            for text in (field.name.encode(), field.type.value.encode()):
                parts += [len(text).to_bytes(4, "big"), text]
            parts += [stream.digest() for stream in streams]
        return tagged("content", b"".join(parts))


def _text(column: pa.Array) -> tuple[npt.NDArray[np.int32], bytes]:
    if not len(column):
        return np.empty(0, dtype="<i4"), b""
    if column.null_count:
        column = column.fill_null("")  # what lies under a missing value is anything
    _, offsets, data = column.buffers()
    places = np.frombuffer(offsets, "<i4", len(column) + 1, column.offset * 4)
    text = bytes(memoryview(data)[places[0] : places[-1]]) if data is not None else b""
    return np.diff(places), text


def _numbers(column: pa.Array, type_: FieldType, valid: npt.NDArray[np.uint8]) -> npt.NDArray[np.generic]:
    if type_ is FieldType.BOOLEAN:
        return column.cast(pa.uint8()).fill_null(0).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
    shape = {FieldType.INTEGER: ("<i8", 1), FieldType.DATE: ("<i4", 1), FieldType.DECIMAL: ("<i8", 2)}
    word, words = shape[type_]
    width = ARROW[type_].byte_width
    data = column.buffers()[1]
    if data is None or not len(column):
        return np.zeros((len(column), words), dtype=word)
    numbers = np.frombuffer(data, word, len(column) * words, column.offset * width).reshape(-1, words)
    return numbers if not column.null_count else np.where(valid[:, None], numbers, np.zeros(1, dtype=word))
