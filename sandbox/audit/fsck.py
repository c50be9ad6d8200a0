"""The full check of a stored log: everything that follows from the entries is computed again and compared.

Security:  finds any altered, missing, added or moved entry, node or checkpoint. A log cut back *together with* its
           checkpoints, or restored from an old copy, is whole in itself: only heads kept elsewhere show it. Pass those
           as ``seen``. ``job_of`` checks the index by job, which the tree does not cover.
Errors:    ``IntegrityFailed`` naming the first bad entry, node or checkpoint. A database that is locked or
           unreachable raises its own error: that is no verdict on the log.
Not here:  what entries mean; repair (there is none: stop, keep everything, call the auditor).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, func, select
from sqlalchemy.exc import DatabaseError, OperationalError

from sandbox.audit import merkle
from sandbox.audit.checkpoint import Checkpoint, VerifierKey, split_note, verify_checkpoint
from sandbox.audit.tables import audit_checkpoint, audit_leaf, audit_node
from sandbox.crypto.sm3 import sm3
from sandbox.errors import IntegrityFailed

Heads = dict[int, list[Checkpoint]]  # by size

BATCH = 1024  # entries held in memory at a time


def check(
    conn: Connection,
    verifier: VerifierKey,
    *,
    retired: Sequence[VerifierKey] = (),
    seen: Sequence[bytes] = (),
    job_of: Callable[[bytes], str] | None = None,
) -> None:
    """Check the whole log against itself and against heads that others have seen.

    Args:
        conn: in a transaction, so that the log does not grow meanwhile.
        verifier: the key this log signs with.
        retired: keys it signed with before.
        seen: notes of this log that somebody else kept, for example with a receipt or at a witness.
        job_of: tells from an entry under which job id it was appended.

    Raises:
        IntegrityFailed: naming the first entry, node or checkpoint that is wrong.
    """
    keys = (verifier, *retired)
    elsewhere = _by_size([_verified(note, keys, "seen elsewhere") for note in seen])
    grown = _Grown()
    checked = _compare(grown, _signed_heads(conn, keys, -1, 0))
    _compare(grown, elsewhere)
    for rows in _batches(conn):
        begin, end = grown.size, grown.size + len(rows)
        nodes = _stored_nodes(conn, begin, end)
        signed = _signed_heads(conn, keys, begin, end)
        for index, leaf, job_id in rows:
            if index != grown.size:
                raise IntegrityFailed(f"audit log: entry {grown.size} is missing")
            for level, at, digest in grown.append(leaf):
                if nodes.get((level, at)) != digest:
                    raise IntegrityFailed(f"audit log: entry {index} does not match node {at} of level {level}")
            if job_of is not None and job_of(leaf) != job_id:
                raise IntegrityFailed(f"audit log: entry {index} is filed under another job than its own")
            checked += _compare(grown, signed)
            _compare(grown, elsewhere)
    _check_nothing_beyond(conn, grown.size, checked, elsewhere)


class _Grown:
    """The tree computed from the entries so far: the newest complete subtree of each level is all it takes."""

    def __init__(self) -> None:
        self.size = 0
        self._newest: dict[int, bytes] = {}

    def append(self, leaf: bytes) -> list[tuple[int, int, bytes]]:
        nodes = merkle.new_nodes(self.size, merkle.leaf_hash(leaf, sm3), self._read, sm3)
        self._newest.update({level: digest for level, _, digest in nodes})
        self.size += 1
        return nodes

    def root(self) -> bytes:
        return merkle.root_at(self.size, self._read, sm3)

    def _read(self, level: int, index: int) -> bytes:
        return self._newest[level]  # appending and the root of the present size ask for the newest only


def _compare(grown: _Grown, heads: Heads) -> int:
    """Compare those ``heads`` that are of the present size with the tree, and return how many they are."""
    due = heads.get(grown.size, [])
    if any(head.root != grown.root() for head in due):
        raise IntegrityFailed(f"audit log: the checkpoint of size {grown.size} does not match the entries")
    return len(due)


def _by_size(heads: Sequence[Checkpoint]) -> Heads:
    found: Heads = {}
    for head in heads:
        found.setdefault(head.size, []).append(head)
    return found


def _signed_heads(conn: Connection, keys: Sequence[VerifierKey], after: int, until: int) -> Heads:
    size = audit_checkpoint.c.size
    heads = []
    for row in _rows(conn, select(audit_checkpoint).where(size > after, size <= until).order_by(size)):
        head = _verified(row.note, keys, f"of size {row.size}")
        if head.size != row.size or len(split_note(row.note)[1]) != 1:
            raise IntegrityFailed(f"audit log: the checkpoint of size {row.size} is a note of size {head.size}")
        heads.append(head)
    return _by_size(heads)


def _verified(note: bytes, keys: Sequence[VerifierKey], what: str) -> Checkpoint:
    for key in keys:
        try:
            return verify_checkpoint(note, key)
        except IntegrityFailed:
            continue
    raise IntegrityFailed(f"audit log: the checkpoint {what} does not verify")


def _batches(conn: Connection) -> Iterator[list[Row[*tuple[Any, ...]]]]:
    statement = select(audit_leaf).order_by(audit_leaf.c.index).limit(BATCH)
    rows = _rows(conn, statement)
    while rows:
        yield rows
        rows = _rows(conn, statement.where(audit_leaf.c.index > rows[-1][0]))


def _stored_nodes(conn: Connection, begin: int, end: int) -> dict[tuple[int, int], bytes]:
    """Return the stored subtrees that the entries from ``begin`` to ``end`` complete."""
    nodes: dict[tuple[int, int], bytes] = {}
    level, at, digest = audit_node.c.level, audit_node.c.index, audit_node.c.hash
    for height in range(end.bit_length()):
        statement = select(at, digest).where(level == height, at >= begin >> height, at < end >> height)
        nodes.update({(height, row[0]): row[1] for row in _rows(conn, statement)})
    return nodes


def _check_nothing_beyond(conn: Connection, size: int, checked: int, elsewhere: Heads) -> None:
    due = sum(size >> height for height in range(size.bit_length()))
    if _rows(conn, select(func.count()).select_from(audit_node))[0][0] != due:
        raise IntegrityFailed(f"audit log: {size} entries, but nodes of more: the last entries were dropped")
    if _rows(conn, select(func.count()).select_from(audit_checkpoint))[0][0] != checked or any(
        at > size for at in elsewhere
    ):
        raise IntegrityFailed(f"audit log: {size} entries, but a checkpoint of more: the last entries were dropped")


def _rows(conn: Connection, statement: Select[*tuple[Any, ...]]) -> list[Row[*tuple[Any, ...]]]:
    """Return all rows; what is stored but cannot be read is damage, and named without its content."""
    types = [column.type.python_type for column in statement.selected_columns]
    try:
        rows = list(conn.execute(statement))
    except OperationalError as error:
        if "decode" in str(error.orig):
            raise IntegrityFailed("audit log: a text in the database is not UTF-8") from None
        raise
    except DatabaseError:
        raise IntegrityFailed("audit log: the database is damaged") from None
    if any(type(value) is not expected for row in rows for value, expected in zip(row, types, strict=True)):
        raise IntegrityFailed("audit log: a cell of the database is not of its column's type")
    return rows
