"""What a stage leaves at its node: sealed files under a job, each with a key of its own, wrapped by the node key.

    <home>/artefacts/<job id>/<name>.sealed        SM4-GCM, AAD = job id ‖ 0 ‖ name; the wrapped key is in the store

Alignments, model halves and shares lie here; none of it ever leaves but through the pipeline.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Collection
from pathlib import Path

from sqlalchemy import Connection, delete, insert, select

from sandbox.crypto.sm4 import seal, unseal
from sandbox.errors import IntegrityFailed, NotFound
from sandbox.store import artefacts

_ONCE = bytes(12)  # every content key seals exactly one message


def keep(conn: Connection, folder: Path, node_key: bytes, job_id: str, name: str, content: bytes) -> None:
    """Seal ``content`` under a fresh key; durable when the caller's transaction is."""
    key, wrap_nonce = secrets.token_bytes(16), secrets.token_bytes(12)
    path = _path(folder, job_id, name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(seal(key, _ONCE, content, _context(job_id, name)))
        file.flush()
        os.fsync(file.fileno())
    wrapped = wrap_nonce + seal(node_key, wrap_nonce, key, b"artefact\0" + _context(job_id, name))
    conn.execute(delete(artefacts).where(artefacts.c.job_id == job_id, artefacts.c.name == name))
    conn.execute(insert(artefacts).values(job_id=job_id, name=name, wrapped_key=wrapped))


def fetch(conn: Connection, folder: Path, node_key: bytes, job_id: str, name: str) -> bytes:
    """Return what was kept.

    Raises:
        NotFound: nothing was.
        IntegrityFailed: it is not what was kept.
    """
    wrapped = conn.scalar(select(artefacts.c.wrapped_key).where(artefacts.c.job_id == job_id, artefacts.c.name == name))
    if wrapped is None:
        raise NotFound(f"job {job_id} kept no {name} here", tell="an earlier stage is missing at this node")
    key = unseal(node_key, wrapped[:12], wrapped[12:], b"artefact\0" + _context(job_id, name))
    try:
        sealed = _path(folder, job_id, name).read_bytes()
    except FileNotFoundError:
        raise IntegrityFailed(f"job {job_id}: the file of artefact {name} is gone") from None
    return unseal(key, _ONCE, sealed, _context(job_id, name))


def names(conn: Connection, job_id: str, prefix: str) -> list[str]:
    """Return the names of what was kept that begin so."""
    found = conn.scalars(select(artefacts.c.name).where(artefacts.c.job_id == job_id))
    return [name for name in found if name.startswith(prefix)]


def thin_out(conn: Connection, folder: Path, job_id: str, lasting: Collection[str]) -> None:
    """Destroy what was kept under a job, but for what later jobs build on."""
    gone = select(artefacts.c.name).where(artefacts.c.job_id == job_id, artefacts.c.name.notin_(lasting))
    left = [name for (name,) in conn.execute(gone)]
    conn.execute(delete(artefacts).where(artefacts.c.job_id == job_id, artefacts.c.name.in_(left)))
    for name in left:
        _path(folder, job_id, name).unlink(missing_ok=True)  # noise already: its key is gone with this transaction


def drop(conn: Connection, folder: Path, job_id: str) -> None:
    """Destroy everything kept under a job: the keys first, then the files."""
    conn.execute(delete(artefacts).where(artefacts.c.job_id == job_id))
    shutil.rmtree(folder / job_id, ignore_errors=True)  # without their keys they are noise


def _path(folder: Path, job_id: str, name: str) -> Path:
    return folder / job_id / f"{name}.sealed"


def _context(job_id: str, name: str) -> bytes:
    return job_id.encode() + b"\0" + name.encode()
