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
Errors:    ``IntegrityFailed`` if anything on disk is not what was sealed; ``AlreadyExists``; ``NotFound``;
           ``Unavailable`` if the disk is full or refuses.
Not here:  the wrapped keys and the catalogue's rows (store), the receipt of a destruction (audit).
"""

from __future__ import annotations

import errno
import fcntl
import hmac
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from sandbox.catalog.chunks import (
    chunk_digest,
    cut_chunks,
    read_chunk,
    read_file,
    sync_directory,
    write_chunk,
    write_file,
)
from sandbox.catalog.content import ContentHash
from sandbox.catalog.manifest import Chunk, Manifest, manifest_bytes, parse_manifest
from sandbox.catalog.registration import check_code
from sandbox.catalog.schema import ARROW, VersionLike, schema_digest
from sandbox.catalog.vault_keys import chunk_context, manifest_mac, unwrap, wrap
from sandbox.crypto.sm4 import KEY_SIZE
from sandbox.errors import AlreadyExists, IntegrityFailed, InvalidSpec, NotFound, Unavailable

MANIFEST, MAC = "manifest.json", "manifest.mac"
__all__ = [
    "DestroyReceiptFacts",
    "Sealed",
    "destroy",
    "open_version",
    "read_manifest",
    "seal_version",
    "sweep",
    "unwrap",
    "version_dir",
]

_VERSION = re.compile(r"[1-9][0-9]{0,17}")
_UNFINISHED = re.compile(r"\.(sealing|destroying)-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Sealed:
    """A version that is safely on disk. If its ``wrapped_key`` was never stored, ``destroy`` it and seal again."""

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
    work = place.parent / f".sealing-{secrets.token_hex(8)}"
    try:
        vault_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.parent.mkdir(mode=0o700, exist_ok=True)
        work.mkdir(mode=0o700)
    except OSError as error:
        raise Unavailable(f"{work} cannot be made ({error.strerror})") from None
    lock = os.open(work, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tells ``sweep`` that somebody is still at work; ends with the process
        manifest = _write_version(work, key, meta, batches)
        os.fsync(lock)
        _publish(work, place)
        sync_directory(vault_dir)
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
    wanted = pa.schema([pa.field(name, ARROW[types[name]]) for name in (types if columns is None else columns)])
    for index, chunk in enumerate(manifest.chunks):
        context = chunk_context(manifest.code, manifest.version, index, last=index == len(manifest.chunks) - 1)
        yield read_chunk(version_dir / chunk_name(index), version_key, context, chunk, wanted)


def read_manifest(version_dir: Path, version_key: bytes) -> Manifest:
    """Return the manifest of a version after checking it, and that its files are there and no others.

    Raises:
        NotFound: there is no such directory.
        IntegrityFailed: it is not what was sealed.
    """
    _check_place(version_dir)
    data, mac = read_file(version_dir / MANIFEST), read_file(version_dir / MAC)
    if not hmac.compare_digest(mac, manifest_mac(version_key, data)):
        raise IntegrityFailed(f"the manifest of {version_dir} does not authenticate")
    manifest = parse_manifest(data)
    if (manifest.code, str(manifest.version)) != (version_dir.parent.name, version_dir.name):
        raise IntegrityFailed(f"{version_dir} holds another version than its name says")
    expected = {MANIFEST, MAC} | {chunk_name(index) for index in range(len(manifest.chunks))}
    if {entry.name for entry in version_dir.iterdir()} != expected:
        raise IntegrityFailed(f"{version_dir} lacks files or has some that do not belong there")
    return manifest


def destroy(version_dir: Path, version_key: bytes | None) -> DestroyReceiptFacts:
    """Remove all files of a version and return what was removed; deleting the wrapped key is the caller's part.

    A version that was tampered with, or whose key is lost, can be destroyed too: its facts are not ``verified``.

    Raises:
        NotFound: there is no such version.
    """
    _check_place(version_dir)
    try:
        manifest = read_manifest(version_dir, version_key) if version_key is not None else None
    except IntegrityFailed:
        manifest = None
    present = sorted(path for path in version_dir.glob("chunk-*.sealed") if path.is_file())
    facts = DestroyReceiptFacts(
        code=version_dir.parent.name,
        version=int(version_dir.name),
        content_hash=manifest.content_hash if manifest else b"",
        rows=manifest.rows if manifest else 0,
        chunk_digests=tuple(chunk.digest for chunk in manifest.chunks)
        if manifest
        else tuple(chunk_digest(read_file(path)) for path in present),
        verified=manifest is not None,
    )
    gone = version_dir.parent / f".destroying-{secrets.token_hex(8)}"
    version_dir.rename(gone)  # from here on nobody opens it; ``sweep`` finishes what a crash leaves
    sync_directory(version_dir.parent)
    shutil.rmtree(gone)
    sync_directory(version_dir.parent)
    return facts


def sweep(vault_dir: Path) -> int:
    """Remove what crashed sealings and destructions left; return how many; for the start of a node.

    Sealings under way are left alone.
    """
    swept = 0
    for left in sorted(vault_dir.glob("*/.*")):
        if not _UNFINISHED.fullmatch(left.name):
            continue
        lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left)
            swept += 1
        except BlockingIOError:
            continue
        finally:
            os.close(lock)
    return swept


def version_dir(vault_dir: Path, code: str, version: int) -> Path:
    """Return where a version lies."""
    check_code(code)  # besides, keeps it from leading out of the vault
    if version < 1:
        raise InvalidSpec("versions count from 1")
    return vault_dir / code / str(version)


def _check_place(version_dir: Path) -> None:
    """Refuse directories that cannot be a version's: destroying one by mistake would be no small one."""
    try:
        check_code(version_dir.parent.name)
    except InvalidSpec:
        raise NotFound(f"{version_dir} is not a version of a dataset") from None
    if not _VERSION.fullmatch(version_dir.name) or not version_dir.is_dir():
        raise NotFound(f"{version_dir} is not there")


def _write_version(work: Path, key: bytes, meta: VersionLike, batches: Iterator[pa.RecordBatch]) -> Manifest:
    content = ContentHash(meta.schema)

    def hashed() -> Iterator[pa.RecordBatch]:
        for batch in batches:
            content.update(batch)
            yield batch

    def write(index: int, rows: pa.RecordBatch, last: bool) -> Chunk:
        context = chunk_context(meta.code, meta.version, index, last)
        return write_chunk(work / chunk_name(index), key, context, rows, unique=meta.schema.key)

    chunks: list[Chunk] = []
    waiting: pa.RecordBatch | None = None  # one chunk behind, because the last one is marked as such
    for rows in cut_chunks(hashed()):
        if waiting is not None:
            chunks.append(write(len(chunks), waiting, last=False))
        waiting = rows
    if waiting is None:
        raise InvalidSpec("there are no rows to seal")
    chunks.append(write(len(chunks), waiting, last=True))
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
    write_file(work / MANIFEST, data)
    write_file(work / MAC, manifest_mac(key, data))
    return manifest


def _publish(work: Path, place: Path) -> None:
    try:
        work.rename(place)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise AlreadyExists(f"{place} was sealed meanwhile") from None
        raise Unavailable(f"{place} cannot be written ({error.strerror})") from None
    sync_directory(place.parent)


def chunk_name(index: int) -> str:
    """Return the name of the file that holds a chunk."""
    return f"chunk-{index:05d}.sealed"
