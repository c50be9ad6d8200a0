"""The append-only log of one node, on the caller's database connection.

Source:    the tree of RFC 6962 with SM3 (``merkle``), heads as C2SP checkpoints (``checkpoint``).
Security:  an entry is opaque bytes, written once and never re-encoded. Everything runs inside the caller's transaction,
           so that an entry and the effect it tells of commit together or not at all. A head is signed only if it
           extends the newest one signed before.
Units:     an index counts entries from 0; a size is the number of entries; order is the index, never time.
Errors:    ``InvalidSpec`` for an entry that cannot be stored, ``NotFound`` for one that does not exist,
           ``IntegrityFailed`` where the stored log contradicts itself. What the database raises (locked, full, two
           writers at once) passes through: it belongs to the owner of the transaction, who rolls back and tries again.
Not here:  what an entry means (``wire``), co-signing of other logs (``witness``), the full check (``fsck``).
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection, func, insert, select, update

from sandbox.audit import merkle
from sandbox.audit.checkpoint import (
    Checkpoint,
    VerifierKey,
    parse_checkpoint,
    sign_checkpoint,
    verify_checkpoint,
)
from sandbox.audit.fsck import check
from sandbox.audit.receipt import MAX_LEAF
from sandbox.audit.tables import audit_checkpoint, audit_leaf, audit_node
from sandbox.crypto.sm2 import PrivateKey
from sandbox.crypto.sm3 import sm3
from sandbox.errors import IntegrityFailed, InvalidSpec, NotFound

__all__ = ["append", "check", "checkpoint", "consistency", "for_job", "inclusion", "leaf", "leaves", "size"]


def append(conn: Connection, leaf: bytes, job_id: str = "") -> int:
    """Add an entry and return its index; it exists once the caller's transaction commits."""
    if not 1 <= len(leaf) <= MAX_LEAF:
        raise InvalidSpec(f"an audit entry has 1 to {MAX_LEAF} bytes")
    index = size(conn)
    nodes = merkle.new_nodes(index, merkle.leaf_hash(leaf, sm3), _reader(conn), sm3)
    conn.execute(insert(audit_leaf), {"index": index, "leaf": leaf, "job_id": job_id})
    conn.execute(insert(audit_node), [{"level": level, "index": at, "hash": digest} for level, at, digest in nodes])
    return index


def size(conn: Connection) -> int:
    """Return how many entries there are."""
    last = conn.scalar(select(func.max(audit_leaf.c.index)))
    return 0 if last is None else int(last) + 1


def leaf(conn: Connection, index: int) -> bytes:
    """Return one entry."""
    found = leaves(conn, index, 1)
    if not found:
        raise NotFound(f"audit log: no entry {index}")
    return found[0]


def leaves(conn: Connection, start: int, count: int) -> list[bytes]:
    """Return up to ``count`` entries from ``start`` on; fewer only at the end of the log.

    Raises:
        IntegrityFailed: an entry in between is missing.
    """
    if start < 0 or count < 0:
        raise InvalidSpec("entries are counted from 0")
    index = audit_leaf.c.index
    rows = conn.execute(select(index, audit_leaf.c.leaf).where(index >= start).order_by(index).limit(count)).all()
    for expected, row in enumerate(rows, start):
        if row[0] != expected:
            raise IntegrityFailed(f"audit log: entry {expected} is missing")
    return [bytes(row[1]) for row in rows]


def for_job(conn: Connection, job_id: str) -> list[tuple[int, bytes]]:
    """Return (index, entry) of everything appended under ``job_id``, in order."""
    index = audit_leaf.c.index
    rows = conn.execute(select(index, audit_leaf.c.leaf).where(audit_leaf.c.job_id == job_id).order_by(index))
    return [(int(at), bytes(entry)) for at, entry in rows]


def inclusion(conn: Connection, index: int, size: int) -> list[bytes]:
    """Return the proof that entry ``index`` is in the log of ``size`` entries."""
    if index < 0:
        raise NotFound("audit log: entries are counted from 0")
    _need_past(conn, index + 1, size)
    return merkle.inclusion_path(index, size, _reader(conn), sm3)


def consistency(conn: Connection, old: int, new: int) -> list[bytes]:
    """Return the proof that the log of ``old`` entries is a prefix of the log of ``new`` entries."""
    _need_past(conn, old, new)
    return merkle.consistency_path(old, new, _reader(conn), sm3)


def checkpoint(conn: Connection, name: str, key: PrivateKey) -> bytes:
    """Sign the head of the log as it stands, store the note and return it; a size is signed once.

    Raises:
        IntegrityFailed: the head does not extend the newest one stored; nothing is signed.
    """
    read = _reader(conn)
    head = Checkpoint(name, size(conn), b"")
    head = replace(head, root=merkle.root_at(head.size, read, sm3))
    newest = conn.scalar(select(audit_checkpoint.c.note).order_by(audit_checkpoint.c.size.desc()).limit(1))
    last = None if newest is None else parse_checkpoint(newest)
    if last is not None:
        if last.origin != name:
            raise InvalidSpec(f"this log signs as {last.origin}, not as {name}")
        if last.size > head.size or last.root != merkle.root_at(last.size, read, sm3):
            raise IntegrityFailed(f"audit log: its {head.size} entries do not extend the checkpoint of {last.size}")
        if last == head and newest is not None and _is_signed(newest, VerifierKey(name, key.public)):
            return bytes(newest)
    note = sign_checkpoint(head, name, key)
    if last is not None and last.size == head.size:  # signed before, with a key that has been replaced since
        conn.execute(update(audit_checkpoint).where(audit_checkpoint.c.size == head.size).values(note=note))
    else:
        conn.execute(insert(audit_checkpoint).values(size=head.size, note=note))
    return note


def _is_signed(note: bytes, verifier: VerifierKey) -> bool:
    try:
        verify_checkpoint(note, verifier)
    except IntegrityFailed:
        return False
    return True


def _reader(conn: Connection) -> merkle.Read:
    def read(level: int, index: int) -> bytes:
        found = conn.scalar(select(audit_node.c.hash).where(audit_node.c.level == level, audit_node.c.index == index))
        if found is None:
            raise IntegrityFailed(f"audit log: node {index} of level {level} is missing")
        return bytes(found)

    return read


def _need_past(conn: Connection, old: int, new: int) -> None:
    if not 0 <= old <= new <= size(conn):
        raise NotFound(f"audit log: no proof from {old} to {new} entries")
