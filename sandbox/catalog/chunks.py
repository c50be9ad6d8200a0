"""One sealed file of rows: 32 random bytes, then SM4-GCM of Parquet under a key derived from them and the version key.

Security:  plaintext exists in memory only. The place of a chunk in its version is bound by the context (AAD).
Reveals:   to whoever reads the disk: the size, so also how well the rows compress.
Errors:    ``IntegrityFailed`` if a file is missing or does not open; ``Unavailable`` if the disk is full or refuses.
Not here:  which chunks make up a version (vault), keys (vault_keys).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sandbox.catalog.manifest import Chunk
from sandbox.catalog.vault_keys import SALT, chunk_key
from sandbox.crypto.sm3 import tagged
from sandbox.crypto.sm4 import seal, unseal
from sandbox.errors import IntegrityFailed, Unavailable

CHUNK_ROWS = 65536


def cut_chunks(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the same rows in batches of ``CHUNK_ROWS``, the last one shorter."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        rest = batch
        while count + rest.num_rows >= CHUNK_ROWS:
            head = rest.slice(0, CHUNK_ROWS - count)
            yield pa.concat_batches([*held, head])
            held, count, rest = [], 0, rest.slice(head.num_rows)
        if rest.num_rows:
            held.append(rest)
            count += rest.num_rows
    if held:
        yield pa.concat_batches(held)


def write_chunk(path: Path, version_key: bytes, context: bytes, rows: pa.RecordBatch, unique: Sequence[str]) -> Chunk:
    """Seal ``rows`` into a new file; the values of the columns ``unique`` hardly repeat."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_batches([rows]),
        sink,
        compression="zstd",
        # Texts that recur; of numbers zstd makes less, and sooner, than of a dictionary that does not help.
        use_dictionary=[one.name for one in rows.schema if pa.types.is_string(one.type) and one.name not in unique],
        write_statistics=False,  # copies of values, for nobody
    )
    salt = secrets.token_bytes(SALT)
    key, nonce = chunk_key(version_key, salt)
    data = salt + seal(key, nonce, sink.getvalue().to_pybytes(), context)
    write_file(path, data)
    return Chunk(rows=rows.num_rows, size=len(data), digest=chunk_digest(data))


def read_chunk(path: Path, version_key: bytes, context: bytes, chunk: Chunk, types: pa.Schema) -> pa.RecordBatch:
    """Return the columns ``types`` of the rows in a file, in that order."""
    data = read_file(path)
    key, nonce = chunk_key(version_key, data[:SALT])
    try:
        plaintext = unseal(key, nonce, data[SALT:], context)
    except IntegrityFailed:
        raise IntegrityFailed(f"{path} was changed, cut, or belongs to another place") from None
    # It is what we wrote: a failure from here on is this program's or the library's, not the disk's.
    with pq.ParquetFile(pa.BufferReader(plaintext)) as file:
        table = file.read(columns=types.names, use_threads=False).select(types.names)
    batch = pa.concat_batches(table.to_batches())
    if batch.num_rows != chunk.rows or not batch.schema.equals(types):
        raise IntegrityFailed(f"{path} holds other rows than its manifest says")
    return batch


def chunk_digest(data: bytes) -> bytes:
    """Return the digest of a sealed file's bytes that manifests and receipts hold."""
    return tagged("chunk", data)


def read_file(path: Path) -> bytes:
    """Return the bytes of a file that must be there."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise IntegrityFailed(f"{path} cannot be read ({error.strerror})") from None


def write_file(path: Path, data: bytes) -> None:
    """Write a new file that its owner alone may read; it is on the disk when this returns."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise Unavailable(f"{path} cannot be written ({error.strerror})") from None


def sync_directory(path: Path) -> None:
    """Bring the names in a directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
