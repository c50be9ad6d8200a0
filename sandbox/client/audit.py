"""Calls about a node's audit log.

Security:  a checkpoint is returned only if the key in the node's card signed it; entries, receipts and proofs come back
           as bytes for whoever checks them (``trust``, ``sandbox.audit``).
Errors:    ``IntegrityFailed`` for a checkpoint by another key.
Not here:  verification of receipts (``trust``).
"""

from __future__ import annotations

from dataclasses import dataclass

from sandbox import signed
from sandbox.audit.checkpoint import Checkpoint, VerifierKey, verify_checkpoint
from sandbox.client.connection import Connection
from sandbox.client.trust import read_entry
from sandbox.errors import IntegrityFailed, InvalidSpec
from sandbox.keyring import public_key
from sandbox.model import CheckpointQuery, ConsistencyQuery, Entry, EntryQuery, InclusionQuery


@dataclass(frozen=True, slots=True)
class LoggedEntry:
    """An entry at its place in a log; ``leaf`` is what was hashed."""

    index: int
    leaf: bytes
    entry: Entry


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A node's newest checkpoint: what it says, the signed note, and the key in text form."""

    checkpoint: Checkpoint
    note: bytes
    verifier_key: str


class AuditCalls:
    """What an auditor can do."""

    _line: Connection

    def entries(self, start: int = 0, limit: int = 0, job_id: str = "") -> tuple[LoggedEntry, ...]:
        """Return a range of the log (at most 1000 entries), or of the entries of one job."""
        answer = self._line.call("AuditService/ListEntries", EntryQuery(start, limit, job_id))
        return tuple(LoggedEntry(e.index, e.leaf, read_entry(e.leaf)) for e in answer.entries)

    def checkpoint(self) -> SignedHead:
        """Return the newest checkpoint, its signature checked against the node's card."""
        answer = self._line.call("AuditService/GetCheckpoint", CheckpointQuery())
        node = self._line.node
        try:
            verifier = VerifierKey.from_text(answer.verifier_key)
        except InvalidSpec as error:
            raise IntegrityFailed(f"the node's verifier key is malformed: {error}", party=node.node_id) from None
        if verifier.key != signed.open_certified(public_key(node), "checkpoint", node.checkpoint):
            raise IntegrityFailed("the checkpoint is not by the key in the node's card", party=node.node_id)
        return SignedHead(verify_checkpoint(answer.checkpoint, verifier), answer.checkpoint, answer.verifier_key)

    def inclusion(self, index: int, size: int = 0) -> bytes:
        """Return a receipt, without co-signatures, for one entry in the tree of a size (0: the newest)."""
        receipt: bytes = self._line.call("AuditService/GetInclusion", InclusionQuery(index, size)).receipt
        return receipt

    def consistency(self, old_size: int, new_size: int) -> tuple[bytes, ...]:
        """Return the proof that the smaller tree is the beginning of the larger."""
        return tuple(self._line.call("AuditService/GetConsistency", ConsistencyQuery(old_size, new_size)).path)
