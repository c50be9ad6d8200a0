"""What outlives a job because making it again is dear: sets prepared for small queries. Sealed, each under its own key.

    <home>/cache/<name>-<random>.sealed        SM4-GCM, AAD = name; the wrapped key is in the store

A name is the digest of all that the content depends on. Beyond ``MOST`` entries the one unused for longest goes; those
made from a dataset go when it is destroyed.
"""

from __future__ import annotations

import logging
import os
import secrets
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, delete, insert, select, update

from sandbox.crypto.sm4 import seal, unseal
from sandbox.errors import IntegrityFailed
from sandbox.store import cached

log = logging.getLogger(__name__)
MOST: Final = 16  # entries
_ONCE = bytes(12)  # every content key seals exactly one message


def keep(
    conn: Connection, folder: Path, node_key: bytes, name: str, content: bytes, source: bytes, now_ms: int
) -> None:
    """Seal ``content`` under a fresh key.

    Args:
        source: content hash of the dataset it was made from.
    """
    key, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file_name = f"{name}-{secrets.token_hex(8)}"  # what is there stays whole until the new row is durable
    with os.fdopen(os.open(_path(folder, file_name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(seal(key, _ONCE, content, name.encode()))
        file.flush()
        os.fsync(file.fileno())
    wrapped = nonce + seal(node_key, nonce, key, b"cached\0" + name.encode())
    _forget(conn, folder, [name])
    row = {"name": name, "file": file_name, "source": source, "wrapped_key": wrapped, "used_ms": now_ms}
    conn.execute(insert(cached).values(**row))
    old = list(conn.scalars(select(cached.c.name).order_by(cached.c.used_ms.desc()).offset(MOST)))
    _forget(conn, folder, old)


def fetch(conn: Connection, folder: Path, node_key: bytes, name: str, now_ms: int) -> bytes:
    """Return what was kept; empty if nothing is, or not what was kept: it is then made anew."""
    row = conn.execute(select(cached).where(cached.c.name == name)).one_or_none()
    if row is None:
        return b""
    try:
        key = unseal(node_key, row.wrapped_key[:12], row.wrapped_key[12:], b"cached\0" + name.encode())
        content = unseal(key, _ONCE, _path(folder, row.file).read_bytes(), name.encode())
    except (FileNotFoundError, IntegrityFailed) as error:
        log.warning("cached %s is lost: %s", name, type(error).__name__)
        _forget(conn, folder, [name])
        return b""
    conn.execute(update(cached).where(cached.c.name == name).values(used_ms=now_ms))
    return content


def known(conn: Connection, name: str) -> bool:
    """Return whether something is kept under a name."""
    return conn.scalar(select(cached.c.name).where(cached.c.name == name)) is not None


def forget_source(conn: Connection, folder: Path, source: bytes) -> None:
    """Destroy what was made from a dataset: the keys first, then the files."""
    _forget(conn, folder, list(conn.scalars(select(cached.c.name).where(cached.c.source == source))))


def _forget(conn: Connection, folder: Path, names: list[str]) -> None:
    files = list(conn.scalars(select(cached.c.file).where(cached.c.name.in_(names))))
    conn.execute(delete(cached).where(cached.c.name.in_(names)))
    for file in files:
        _path(folder, file).unlink(missing_ok=True)  # noise already, without its key


def _path(folder: Path, file: str) -> Path:
    return folder / f"{file}.sealed"
