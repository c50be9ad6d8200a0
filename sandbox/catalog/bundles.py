"""Merchants' bundles at a node: sealed files, each with a key of its own, wrapped by the node key.

    <home>/bundles/<measurement>.sealed        SM4-GCM, AAD = "bundle" ‖ 0 ‖ measurement; wrapped key in the store

Security:  what is handed in are a stranger's bytes: they are kept only if they are what packing gives, byte for byte,
           and what is read back is measured again. Withdrawn, its key and its file are gone; that it was here stays:
           approvals and receipts name it.
Errors:    ``AlreadyExists`` where another key handed in the same bundle, ``Unavailable`` where one key hands in too
           many or a bundle is not here, ``IntegrityFailed`` where the file is not what was kept.
Not here:  who approved which (policy), what an archive is (``tee_sim.bundle``).
"""

from __future__ import annotations

import functools
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Row, func, insert, select, update

from sandbox import wire
from sandbox.crypto.sm4 import seal, unseal
from sandbox.errors import AlreadyExists, IntegrityFailed, Unavailable
from sandbox.model import Signed
from sandbox.store import bundles
from sandbox.tee_sim.bundle import Bundle, measure, parse
from sandbox.tee_sim.manifest import Manifest

MOST: Final = 64  # bundles of one key
MOST_EVER: Final = 8 * MOST  # with those that it withdrew: their rows stay
FOLDER: Final = "bundles"
_ONCE = bytes(12)  # every content key seals exactly one message


@dataclass(frozen=True, slots=True)
class HandedIn:
    """Who brought a bundle, and the statement that came with it."""

    merchant: str  # organisation
    submitter: str  # key id
    statement: Signed
    time_ms: int


@dataclass(frozen=True, slots=True)
class Description:
    """What people read of a bundle before they approve it."""

    manifest: Manifest
    files: tuple[tuple[str, int], ...]  # name, bytes


@dataclass(frozen=True, slots=True)
class Place:
    """Where a bundle lies, and what opens it: for this node and its workers."""

    path: Path
    key: bytes = field(repr=False)
    measurement: bytes

    def read(self) -> bytes:
        """Return the archive.

        Raises:
            IntegrityFailed: the file is gone, or not what was kept.
        """
        try:
            sealed = self.path.read_bytes()
        except FileNotFoundError:
            raise IntegrityFailed(f"the file of bundle {self.measurement.hex()} is gone") from None
        archive = unseal(self.key, _ONCE, sealed, _context(self.measurement))
        if not hmac.compare_digest(measure(archive), self.measurement):
            raise IntegrityFailed(f"bundle {self.measurement.hex()} has another measurement")
        return archive


def keep(conn: Connection, home: Path, node_key: bytes, bundle: Bundle, archive: bytes, given: HandedIn) -> Row[Any]:
    """Seal an archive under a fresh key and return its row; handed in again by the same key, nothing changes."""
    found = row(conn, bundle.measurement)
    if found is not None and found.wrapped_key is not None:
        if found.submitter != given.submitter:
            raise AlreadyExists(tell="this bundle was handed in under another key", hint="name it by its measurement")
        return found
    mine = select(func.count()).select_from(bundles).where(bundles.c.submitter == given.submitter)
    count = conn.scalar(mine.where(bundles.c.wrapped_key.is_not(None))) or 0
    if count >= MOST or (conn.scalar(mine) or 0) >= MOST_EVER:
        raise Unavailable(
            tell=f"this key has handed in as many bundles as it may: {MOST} at once, {MOST_EVER} with those withdrawn",
            hint="withdraw one, or ask the node's operator",
        )
    key, wrap_nonce = secrets.token_bytes(16), secrets.token_bytes(12)
    path = _path(home, bundle.measurement)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    # A file without a row is left by a crash in between: noise without its key, and replaced here.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(seal(key, _ONCE, archive, _context(bundle.measurement)))
        file.flush()
        os.fsync(file.fileno())
    values = {
        "measurement": bundle.measurement,
        "name": bundle.manifest.name,
        "form": bundle.manifest.form.value,
        "merchant": given.merchant,
        "submitter": given.submitter,
        "size": len(archive),
        "statement": wire.encode(given.statement),
        "wrapped_key": wrap_nonce + seal(node_key, wrap_nonce, key, _context(bundle.measurement)),
        "created_ms": given.time_ms,
        "withdrawn_ms": 0,
    }
    if found is None:
        conn.execute(insert(bundles).values(**values))
    else:  # it had been withdrawn
        conn.execute(update(bundles).where(bundles.c.measurement == bundle.measurement).values(**values))
    return conn.execute(select(bundles).where(bundles.c.measurement == bundle.measurement)).one()


def withdraw(conn: Connection, measurement: bytes, time_ms: int) -> Row[Any]:
    """Destroy a bundle's key and return its row; ``forget`` removes the file, in a transaction after this one."""
    here = bundles.c.measurement == measurement
    conn.execute(update(bundles).where(here).values(wrapped_key=None, withdrawn_ms=time_ms))
    return conn.execute(select(bundles).where(here)).one()


def forget(conn: Connection, home: Path, measurement: bytes) -> None:
    """Remove the file of a bundle that is withdrawn, unless it was handed in again meanwhile."""
    found = row(conn, measurement)
    if found is not None and found.wrapped_key is None:
        _path(home, measurement).unlink(missing_ok=True)
        describe.cache_clear()  # it remembers keys


def row(conn: Connection, measurement: bytes) -> Row[Any] | None:
    """Return what the store says of a bundle."""
    return conn.execute(select(bundles).where(bundles.c.measurement == measurement)).one_or_none()


def listed(conn: Connection, after: bytes, limit: int, submitter: str = "") -> list[Row[Any]]:
    """Return a page of bundles by measurement: of one key, or of all."""
    query = select(bundles).where(bundles.c.measurement > after).order_by(bundles.c.measurement).limit(limit)
    return list(conn.execute(query.where(bundles.c.submitter == submitter) if submitter else query))


def locate(conn: Connection, home: Path, node_key: bytes, measurement: bytes) -> Place:
    """Return where a bundle lies.

    Raises:
        Unavailable: it is not here.
    """
    found = row(conn, measurement)
    if found is None or found.wrapped_key is None:
        raise Unavailable(
            f"bundle {measurement.hex()} is not here",
            tell="no such bundle at this node" if found is None else "the bundle was withdrawn from this node",
            hint="hand it in first (sandbox model upload)",
        )
    wrapped = bytes(found.wrapped_key)
    key = unseal(node_key, wrapped[:12], wrapped[12:], _context(measurement))
    return Place(_path(home, measurement), key, measurement)


@functools.lru_cache(maxsize=256)
def describe(place: Place) -> Description:
    """Return what a bundle says of itself; remembered, since a measurement never means anything else."""
    opened = parse(place.read())
    return Description(opened.manifest, tuple((name, len(content)) for name, content in opened.files.items()))


def _path(home: Path, measurement: bytes) -> Path:
    return home / FOLDER / f"{measurement.hex()}.sealed"


def _context(measurement: bytes) -> bytes:
    return b"bundle\0" + measurement
