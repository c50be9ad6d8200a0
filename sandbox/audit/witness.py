"""What a co-signer does before it signs: the other log may only have grown since it was last seen.

Security:  as long as one co-signer is honest, an origin cannot show two histories, nor take one back. The first head
           seen of an origin is taken on trust; every later one must extend it. State and signature are one
           transaction: *the caller commits before the co-signature leaves this node*, else a restart forgets it.
Errors:    ``IntegrityFailed`` on a split view, a shrunken log, a bad proof or signature: nothing is signed, nothing
           stored. ``InvalidSpec`` for the node's own log. ``WrongState`` when another transaction stored a head of the
           same origin meanwhile: roll back and try again.
Not here:  transport; who counts as a co-signer (``receipt``).
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from sandbox.audit.checkpoint import Checkpoint, VerifierKey, cosign, parse_checkpoint, verify_checkpoint
from sandbox.audit.merkle import verify_consistency
from sandbox.audit.tables import audit_seen
from sandbox.crypto.sm2 import PrivateKey
from sandbox.crypto.sm3 import sm3
from sandbox.errors import IntegrityFailed, InvalidSpec, WrongState


def seen(conn: Connection, origin: str) -> tuple[Checkpoint, bytes] | None:
    """Return the newest head co-signed of ``origin``, with its note; None before the first.

    Raises:
        IntegrityFailed: the stored head is not the one its note tells of.
    """
    row = conn.execute(select(audit_seen).where(audit_seen.c.origin == origin)).one_or_none()
    if row is None:
        return None
    stored = Checkpoint(origin, row.size, bytes(row.root))
    if parse_checkpoint(bytes(row.note)) != stored:
        raise IntegrityFailed(f"witness: the stored head of {origin} was altered")
    return stored, bytes(row.note)


def cosign_checked(
    conn: Connection,
    note: bytes,
    verifier_of_origin: VerifierKey,
    consistency_proof: Sequence[bytes],
    name: str,
    key: PrivateKey,
    now: int,
) -> bytes:
    """Check that ``note`` extends what was last seen of its origin, remember it, and return the co-signature line.

    Args:
        conn: in the caller's transaction, to be committed before the line is sent.
        note: the checkpoint to co-sign.
        verifier_of_origin: the origin's key.
        consistency_proof: from the size last seen to the size of ``note``; empty if there is none or nothing new.
        name: the name this node co-signs under.
        key: the key this node co-signs with.
        now: seconds since 1970.

    Raises:
        IntegrityFailed: the note does not verify, or does not extend what was seen.
    """
    if name == verifier_of_origin.name or key.public == verifier_of_origin.key:
        raise InvalidSpec("a log does not co-sign itself")
    head = verify_checkpoint(note, verifier_of_origin)
    before = seen(conn, head.origin)
    old = Checkpoint(head.origin, 0, sm3(b"")) if before is None else before[0]
    if head.size < old.size:
        raise IntegrityFailed(f"witness: {head.origin} shrank from {old.size} to {head.size} entries")
    if head.size == old.size and head.root != old.root:
        raise IntegrityFailed(f"witness: {head.origin} shows two histories of {head.size} entries")
    verify_consistency(old.size, head.size, old.root, head.root, consistency_proof, sm3)
    _remember(conn, None if before is None else old, head, note)
    return cosign(note, name, key, now)


def _remember(conn: Connection, old: Checkpoint | None, head: Checkpoint, note: bytes) -> None:
    """Store ``head``, provided that ``old`` is still the newest: two heads checked at once must not both pass."""
    row = {"size": head.size, "root": head.root, "note": note}
    if old is None:
        try:
            conn.execute(insert(audit_seen).values(origin=head.origin, **row))
        except IntegrityError:
            raise WrongState(f"witness: another head of {head.origin} was stored meanwhile") from None
        return
    same = (audit_seen.c.origin == old.origin) & (audit_seen.c.size == old.size)
    if conn.execute(update(audit_seen).where(same).values(row)).rowcount != 1:
        raise WrongState(f"witness: another head of {head.origin} was stored meanwhile")
