"""Rows at rest (数据保险箱): sealed Parquet chunks that open only under the key of their version.

    <vault>/<code>/<version>/chunk-00000.sealed ...   rows
                             manifest.json            what there is: codes, types, counts, digests; no value of a row
                             manifest.mac             HMAC-SM3 of the manifest's bytes under the version's key

Source:    GB/T 32907-2016 (SM4) in GCM, RFC 5869 (HKDF) with SM3.
Security:  a random 16-byte key a version, wrapped under the node key; a key and nonce a chunk, derived from it and 32
           random bytes that stand before the chunk. The chunk's AAD is code, version, index and whether it is the
           last, so chunks cannot be swapped, repeated, dropped or taken from elsewhere; the manifest is checked before
           it is parsed. Plaintext is never written, not even to a temporary file. All of this is checked on every read.
           Destroying: without the key the chunks are noise; whoever keeps the wrapped key must delete it as well.
Reveals:   to whoever reads the disk: rows, columns, types, sizes, and how well chunks compress; and, to whoever can
           guess a whole table, whether the guess is right (its content hash).
Shapes:    chunks of at most 65536 rows; wrapped key = 12-byte nonce, then SM4-GCM of the key (44 bytes in all).
           A version is written into ``.sealing-*`` beside its place and renamed when everything is on disk; a crash
           leaves only that, and ``sweep`` removes it.
Errors:    ``IntegrityFailed`` if anything on disk is not what was sealed; ``AlreadyExists``; ``NotFound``.
Not here:  the wrapped keys and the catalogue's rows (store), the receipt of a destruction (audit).
"""

from __future__ import annotations

import fcntl
import hmac
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from sandbox.catalog.content import ContentHash
from sandbox.catalog.manifest import Chunk, Manifest, manifest_bytes, parse_manifest
from sandbox.catalog.registration import check_code
from sandbox.catalog.schema import ARROW, Schema, schema_digest
from sandbox.crypto.sm3 import hkdf, hmac_sm3, tagged
from sandbox.crypto.sm4 import KEY_SIZE, NONCE_SIZE, seal, unseal
from sandbox.errors import AlreadyExists, IntegrityFailed, InvalidSpec, NotFound

CHUNK_ROWS = 65536
SALT = 32  # bytes before every chunk
MANIFEST, MAC = "manifest.json", "manifest.mac"
_UNFINISHED = re.compile(r"\.(sealing|destroying)-[0-9a-f]{16}")


class VersionLike(Protocol):
    """What sealing needs to know of a version; a ``DatasetVersion`` has it."""

    @property
    def code(self) -> str:
        """The registration code."""

    @property
    def version(self) -> int:
        """1 for the first."""

    @property
    def schema(self) -> Schema:
        """The columns of its rows."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A version that is safely on disk; it is lost unless the caller stores ``wrapped_key``."""

    manifest: Manifest
    wrapped_key: bytes
    content_hash: bytes


@dataclass(frozen=True, slots=True)
class DestroyReceiptFacts:
    """What was removed. ``verified`` says whether the manifest these facts come from was authentic."""

    code: str
    version: int
    content_hash: bytes
    rows: int
    chunk_digests: tuple[bytes, ...]
    verified: bool


def seal_version(vault_dir: Path, node_key: bytes, meta: VersionLike, batches: Iterator[pa.RecordBatch]) -> Sealed:
    """Seal all rows of a new version; nothing of it is visible before everything is on disk.

    Whatever ``batches`` raises ends the sealing, and leaves nothing behind.

    Raises:
        InvalidSpec: the code or version is none, a batch has other columns, or there are no rows.
        AlreadyExists: there is such a version.
    """
    place = version_dir(vault_dir, meta.code, meta.version)
    if place.exists():
        raise AlreadyExists(f"version {meta.version} of {meta.code} is sealed already")
    key = secrets.token_bytes(KEY_SIZE)
    wrapped = wrap(node_key, key, meta.code, meta.version)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    work = place.parent / f".sealing-{secrets.token_hex(8)}"
    work.mkdir(mode=0o700)
    lock = os.open(work, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tells ``sweep`` that somebody is still at work; ends with the process
        manifest = _write_version(work, key, meta, batches)
        os.fsync(lock)
        try:
            work.rename(place)
        except OSError:
            raise AlreadyExists(f"version {meta.version} of {meta.code} was sealed meanwhile") from None
        _sync(place.parent)
        _sync(vault_dir)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    finally:
        os.close(lock)
    return Sealed(manifest, wrapped, manifest.content_hash)


def open_version(
    version_dir: Path, version_key: bytes, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a version in their order, one batch a chunk; ``columns`` picks some, in the given order.

    Raises:
        InvalidSpec: there is no such column.
        IntegrityFailed: anything on disk is not what was sealed; batches yielded before were authentic.
    """
    manifest = read_manifest(version_dir, version_key)
    types = dict(manifest.columns)
    if columns is not None and (not columns or not set(columns) <= types.keys() or len(set(columns)) < len(columns)):
        raise InvalidSpec("the columns to read are none, not in this version, or one is named twice")
    names = list(types if columns is None else columns)
    expected = pa.schema([pa.field(name, ARROW[types[name]]) for name in names])
    for index, chunk in enumerate(manifest.chunks):
        plaintext = _open_chunk(version_dir, version_key, manifest, index)
        # It is what we wrote: a failure from here on is this program's or the library's, not the disk's.
        table = pq.read_table(pa.BufferReader(plaintext), columns=names, use_threads=False).select(names)
        batch = table.combine_chunks().to_batches()[0]
        if batch.num_rows != chunk.rows or not batch.schema.equals(expected):
            raise IntegrityFailed(f"chunk {index} of {version_dir} holds other rows than its manifest says")
        yield batch


def read_manifest(version_dir: Path, version_key: bytes) -> Manifest:
    """Return the manifest of a version after checking it, and that its files are there and no others.

    Raises:
        NotFound: there is no such directory.
        IntegrityFailed: it is not what was sealed.
    """
    if not version_dir.is_dir():
        raise NotFound(f"{version_dir} is not there")
    data, mac = _read(version_dir / MANIFEST), _read(version_dir / MAC)
    if not hmac.compare_digest(mac, _mac(version_key, data)):
        raise IntegrityFailed(f"the manifest of {version_dir} does not authenticate")
    manifest = parse_manifest(data)
    if (manifest.code, str(manifest.version)) != (version_dir.parent.name, version_dir.name):
        raise IntegrityFailed(f"{version_dir} holds another version than its name says")
    expected = {MANIFEST, MAC} | {_chunk_name(index) for index in range(len(manifest.chunks))}
    if {entry.name for entry in version_dir.iterdir()} != expected:
        raise IntegrityFailed(f"{version_dir} lacks files or has some that do not belong there")
    return manifest


def destroy(version_dir: Path, version_key: bytes | None) -> DestroyReceiptFacts:
    """Remove all files of a version and return what was removed; deleting the wrapped key is the caller's part.

    A version that was tampered with, or whose key is lost, can be destroyed too: its facts are not ``verified``.

    Raises:
        NotFound: there is no such version.
    """
    try:
        manifest = read_manifest(version_dir, version_key) if version_key is not None else None
    except IntegrityFailed:
        manifest = None
    if not version_dir.is_dir():
        raise NotFound(f"{version_dir} is not there")
    present = sorted(version_dir.glob("chunk-*.sealed"))
    facts = DestroyReceiptFacts(
        code=version_dir.parent.name,
        version=int(version_dir.name),
        content_hash=manifest.content_hash if manifest else b"",
        rows=manifest.rows if manifest else 0,
        chunk_digests=tuple(chunk.digest for chunk in manifest.chunks)
        if manifest
        else tuple(tagged("chunk", _read(path)) for path in present),
        verified=manifest is not None,
    )
    gone = version_dir.parent / f".destroying-{secrets.token_hex(8)}"
    version_dir.rename(gone)  # from here on nobody opens it; ``sweep`` finishes what a crash leaves
    _sync(version_dir.parent)
    shutil.rmtree(gone)
    _sync(version_dir.parent)
    return facts


def sweep(vault_dir: Path) -> int:
    """Remove what crashed sealings and destructions left; return how many. Sealings under way are left alone."""
    swept = 0
    for left in sorted(vault_dir.glob("*/.*")):
        if not _UNFINISHED.fullmatch(left.name):
            continue
        lock = os.open(left, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left)
            swept += 1
        except BlockingIOError:
            continue
        finally:
            os.close(lock)
    return swept


def wrap(node_key: bytes, version_key: bytes, code: str, version: int) -> bytes:
    """Seal the key of a version under the node's."""
    nonce = secrets.token_bytes(NONCE_SIZE)
    return nonce + seal(node_key, nonce, version_key, _context("vault-key", code, str(version)))


def unwrap(node_key: bytes, wrapped: bytes, code: str, version: int) -> bytes:
    """Return the key of a version.

    Raises:
        IntegrityFailed: it was wrapped under another key, for another version, or changed.
    """
    if len(wrapped) <= NONCE_SIZE:
        raise IntegrityFailed("a wrapped key is too short")
    context = _context("vault-key", code, str(version))
    return unseal(node_key, wrapped[:NONCE_SIZE], wrapped[NONCE_SIZE:], context)


def version_dir(vault_dir: Path, code: str, version: int) -> Path:
    """Return where a version lies."""
    check_code(code)  # besides, keeps it from leading out of the vault
    if version < 1:
        raise InvalidSpec("versions count from 1")
    return vault_dir / code / str(version)


def _write_version(work: Path, key: bytes, meta: VersionLike, batches: Iterator[pa.RecordBatch]) -> Manifest:
    content = ContentHash(meta.schema)
    chunks: list[Chunk] = []
    waiting: pa.RecordBatch | None = None  # one chunk behind, because the last one is marked as such
    for batch in _rebatched(batches, content):
        if waiting is not None:
            chunks.append(_write_chunk(work, key, meta, len(chunks), waiting, last=False))
        waiting = batch
    if waiting is None:
        raise InvalidSpec("there are no rows to seal")
    chunks.append(_write_chunk(work, key, meta, len(chunks), waiting, last=True))
    manifest = Manifest(
        code=meta.code,
        version=meta.version,
        schema_digest=schema_digest(meta.schema),
        columns=tuple((field.name, field.type) for field in meta.schema.fields),
        key=meta.schema.key,
        rows=content.rows,
        content_hash=content.digest(),
        chunks=tuple(chunks),
    )
    data = manifest_bytes(manifest)
    _write(work / MANIFEST, data)
    _write(work / MAC, _mac(key, data))
    return manifest


def _rebatched(batches: Iterator[pa.RecordBatch], content: ContentHash) -> Iterator[pa.RecordBatch]:
    """Yield the same rows in batches of ``CHUNK_ROWS``, the last one shorter, after hashing them."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        content.update(batch)
        while count + batch.num_rows >= CHUNK_ROWS:
            head = batch.slice(0, CHUNK_ROWS - count)
            yield pa.concat_batches([*held, head])
            held, count, batch = [], 0, batch.slice(head.num_rows)
        if batch.num_rows:
            held.append(batch)
            count += batch.num_rows
    if held:
        yield pa.concat_batches(held)


def _write_chunk(work: Path, key: bytes, meta: VersionLike, index: int, rows: pa.RecordBatch, *, last: bool) -> Chunk:
    sink = pa.BufferOutputStream()
    names = meta.schema.names
    # Keys all differ: a dictionary of them would only be thrown away. Statistics would copy values for nobody.
    repeated = [name for name in names if name not in meta.schema.key]
    pq.write_table(
        pa.Table.from_batches([rows]), sink, compression="zstd", use_dictionary=repeated, write_statistics=False
    )
    salt = secrets.token_bytes(SALT)
    chunk_key, nonce = _chunk_key(key, salt)
    plaintext = sink.getvalue().to_pybytes()
    data = salt + seal(chunk_key, nonce, plaintext, _chunk_context(meta.code, meta.version, index, last))
    _write(work / _chunk_name(index), data)
    return Chunk(rows=rows.num_rows, size=len(data), digest=tagged("chunk", data))


def _open_chunk(version_dir: Path, version_key: bytes, manifest: Manifest, index: int) -> bytes:
    data = _read(version_dir / _chunk_name(index))
    if len(data) != manifest.chunks[index].size or len(data) <= SALT:
        raise IntegrityFailed(f"chunk {index} of {version_dir} is longer or shorter than it was")
    chunk_key, nonce = _chunk_key(version_key, data[:SALT])
    last = index == len(manifest.chunks) - 1
    return unseal(chunk_key, nonce, data[SALT:], _chunk_context(manifest.code, manifest.version, index, last))


def _chunk_key(version_key: bytes, salt: bytes) -> tuple[bytes, bytes]:
    derived = hkdf(version_key, salt, b"sandbox/v1/vault-chunk", KEY_SIZE + NONCE_SIZE)
    return derived[:KEY_SIZE], derived[KEY_SIZE:]


def _mac(version_key: bytes, manifest: bytes) -> bytes:
    return hmac_sm3(hkdf(version_key, b"", b"sandbox/v1/vault-manifest", 32), manifest)


def _chunk_context(code: str, version: int, index: int, last: bool) -> bytes:
    return _context("vault-chunk", code, str(version), str(index), "last" if last else "more")


def _context(*parts: str) -> bytes:
    """Return the parts, each after its length as 4 bytes: no two lists of parts give the same bytes."""
    return b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)


def _chunk_name(index: int) -> str:
    return f"chunk-{index:05d}.sealed"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise IntegrityFailed(f"{path} cannot be read ({error.strerror})") from None


def _write(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
