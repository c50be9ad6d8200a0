"""Arrow streams from somebody we do not trust: the jail, and another owner.

Source:    the IPC streaming format of Apache Arrow, columnar format 1.x.
Security:  read message by message and never as a whole. Only a schema and then record batches are taken: no
           dictionaries, no compression, no views (a few bytes could stand for gigabytes), no types but plain ones. The
           schema is judged before any batch is read, the number of rows before any is looked at, and what was read is
           validated in full, so that no later code meets offsets outside their buffers. Metadata is dropped.
Errors:    ``IntegrityFailed`` without any text from inside the stream.
Not here:  whether the columns are the declared ones (``outputs``).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import pyarrow as pa
from pyarrow import types

from sandbox.errors import IntegrityFailed

MOST_BATCHES: Final = 65536
MOST_COLUMNS: Final = 1024
_RECORD_BATCH_COMPRESSION: Final = 3  # the field's number in the RecordBatch table of Arrow's Message.fbs
_MESSAGE_HEADER: Final = 2  # the field's number in the Message table
_PLAIN = (
    types.is_boolean,
    types.is_integer,
    types.is_floating,
    types.is_decimal,
    types.is_date,
    types.is_string,
    types.is_large_string,
)


def write_stream(table: pa.Table) -> bytes:
    """Return a table as an Arrow stream: no compression, no metadata."""
    sink = pa.BufferOutputStream()
    plain = table.replace_schema_metadata(None)
    with pa.ipc.new_stream(sink, plain.schema) as writer:
        writer.write_table(plain)
    return bytes(sink.getvalue())


def read_stream(data: bytes, most_rows: int = 1 << 40, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the table in a stream.

    Args:
        data: the stream.
        most_rows: how many rows it may have.
        columns: which columns it has to have, in whatever order; by default, any.

    Raises:
        IntegrityFailed: it is malformed, compressed, nested, or has other columns or more rows.
    """
    try:
        return _read(data, most_rows, columns)
    except (pa.ArrowException, OSError, ValueError, struct.error, OverflowError):
        raise IntegrityFailed("a table is not a well-formed Arrow stream") from None


def _read(data: bytes, most_rows: int, columns: Sequence[str] | None) -> pa.Table:
    messages = pa.ipc.MessageReader.open_stream(pa.py_buffer(data))
    first = next(messages, None)
    if first is None or first.type != "schema":
        raise IntegrityFailed("a table's stream does not begin with a schema")
    schema = pa.ipc.read_schema(first)
    if len(schema) > MOST_COLUMNS or (columns is not None and sorted(schema.names) != sorted(columns)):
        raise IntegrityFailed("the columns of a table are not exactly the declared ones")
    if not all(any(test(field.type) for test in _PLAIN) for field in schema):
        raise IntegrityFailed("a table has a column of a nested or encoded type")
    # Names are decoded when they are asked for: here, where one that is no text is still our error.
    plain = pa.schema([pa.field(field.name, field.type, field.nullable) for field in schema])
    batches: list[pa.RecordBatch] = []
    rows = 0
    for message in messages:
        if message.type != "record batch" or _is_compressed(bytes(message.metadata)):
            raise IntegrityFailed("a table's stream holds more than plain record batches")
        batch = pa.ipc.read_record_batch(message, schema)
        rows += batch.num_rows
        if rows > most_rows or len(batches) >= MOST_BATCHES:
            raise IntegrityFailed("a table has too many rows or batches")
        batch.validate(full=True)
        batches.append(pa.RecordBatch.from_arrays(batch.columns, schema=plain))
    return pa.Table.from_batches(batches, schema=plain)


def _is_compressed(metadata: bytes) -> bool:
    """Tell whether a record batch's message says that its buffers are compressed.

    The library decompresses without asking. A message is a flatbuffer: tables begin with the distance back to a list
    of two-byte places of their fields, 0 where a field is not there.
    """
    header = _field(metadata, struct.unpack_from("<I", metadata)[0], _MESSAGE_HEADER)
    if header == 0:
        raise IntegrityFailed("a table's stream holds a message without a header")
    batch = header + struct.unpack_from("<I", metadata, header)[0]
    return _field(metadata, batch, _RECORD_BATCH_COMPRESSION) != 0


def _field(metadata: bytes, table: int, number: int) -> int:
    """Return where a field of a flatbuffer's table stands, or 0."""
    places = table - struct.unpack_from("<i", metadata, table)[0]
    if table < 0 or places < 0:
        raise IntegrityFailed("a table's stream holds a malformed message")
    entry = 4 + 2 * number
    if entry + 2 > struct.unpack_from("<H", metadata, places)[0]:
        return 0
    offset = struct.unpack_from("<H", metadata, places + entry)[0]
    return table + offset if offset else 0
