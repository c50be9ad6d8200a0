"""AuditService: entries, checkpoint, inclusion, consistency, cosign."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import Connection

from sandbox import record, registry, signed, wire
from sandbox.api.edge import Edge
from sandbox.audit import log as audit_log
from sandbox.audit import witness
from sandbox.audit.checkpoint import VerifierKey, parse_checkpoint
from sandbox.audit.receipt import Receipt
from sandbox.crypto.sm2 import PublicKey
from sandbox.errors import InvalidSpec, NotFound, PolicyRefused
from sandbox.ledger import Ledger
from sandbox.model import CheckpointQuery, ConsistencyQuery, CosignQuery, Entry, EntryQuery, InclusionQuery
from sandbox.v1 import audit_pb2, audit_pb2_grpc

EVERYBODY = registry.ROLES | {registry.PEER}
SEERS = frozenset({"operator", "auditor"})
_PREFIX = "/sandbox.v1.AuditService/"


class Audit(audit_pb2_grpc.AuditServiceServicer):
    """This node's log, and this node as a witness of others."""

    def __init__(self, edge: Edge, ledger: Ledger) -> None:
        self._edge, self._ledger = edge, ledger

    async def ListEntries(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Return leaves as stored."""

        def listed() -> Any:
            opened = self._edge.open(request, _PREFIX + "ListEntries", EntryQuery, registry.ROLES)
            self._edge.spend_nonce(opened)
            body = opened.body
            if not 0 <= body.limit <= 1000:
                raise InvalidSpec(tell="limit must be 0 to 1000")
            limit = body.limit or 100
            with self._ledger.store.read() as conn:
                if body.job_id:
                    job = record.read(conn, body.job_id)
                    if job.submission.key_id != opened.caller.key_id and not SEERS & opened.caller.roles:
                        raise NotFound()
                    found = [pair for pair in audit_log.for_job(conn, body.job_id) if pair[0] >= body.start][:limit]
                elif SEERS & opened.caller.roles:
                    found = list(enumerate(audit_log.leaves(conn, body.start, limit), body.start))
                else:
                    raise PolicyRefused(tell="only operators and auditors see the whole log; name one of your jobs")
                size = audit_log.size(conn)
            entries = [audit_pb2.LogEntry(index=index, leaf=leaf) for index, leaf in found]
            return audit_pb2.ListEntriesResponse(entries=entries, size=size)

        return await self._edge.unary(context, lambda: asyncio.to_thread(listed))

    async def GetCheckpoint(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Sign and return the present head."""

        def get() -> Any:
            opened = self._edge.open(request, _PREFIX + "GetCheckpoint", CheckpointQuery, EVERYBODY)
            with self._ledger.store.write() as conn:
                opened.remember(conn)
                note = audit_log.checkpoint(conn, self._ledger.node_id, self._ledger.keys.checkpoint)
            verifier = VerifierKey(self._ledger.node_id, self._ledger.keys.checkpoint.public)
            return audit_pb2.GetCheckpointResponse(checkpoint=note, verifier_key=verifier.to_text())

        return await self._edge.unary(context, lambda: asyncio.to_thread(get))

    async def GetInclusion(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Prove one entry."""

        def get() -> Any:
            opened = self._edge.open(request, _PREFIX + "GetInclusion", InclusionQuery, registry.ROLES)
            index, wanted = opened.body.index, opened.body.size
            with self._ledger.store.write() as conn:
                opened.remember(conn)
                note = audit_log.checkpoint(conn, self._ledger.node_id, self._ledger.keys.checkpoint)
                size = parse_checkpoint(note).size
                if wanted not in (0, size) or not 0 <= index < size:
                    raise InvalidSpec(tell=f"index must be below, and size be 0 or, {size}")
                leaf = audit_log.leaf(conn, index)
                if not SEERS & opened.caller.roles and not _is_about(conn, leaf, opened.caller.key_id):
                    raise PolicyRefused(tell="only operators and auditors see entries that are not about them")
                path = tuple(audit_log.inclusion(conn, index, size))
                receipt = Receipt(leaf, index, path, note, ())
            return audit_pb2.GetInclusionResponse(receipt=receipt.to_text())

        return await self._edge.unary(context, lambda: asyncio.to_thread(get))

    async def GetConsistency(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Prove that one tree continues another."""

        def get() -> Any:
            opened = self._edge.open(request, _PREFIX + "GetConsistency", ConsistencyQuery, EVERYBODY)
            self._edge.spend_nonce(opened)
            old, new = opened.body.old_size, opened.body.new_size
            with self._ledger.store.read() as conn:
                if not 0 < old <= new <= audit_log.size(conn):
                    raise InvalidSpec(tell=f"sizes must be 1 to {audit_log.size(conn)}, the old one not larger")
                path = audit_log.consistency(conn, old, new)
            return audit_pb2.GetConsistencyResponse(path=path)

        return await self._edge.unary(context, lambda: asyncio.to_thread(get))

    async def Cosign(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Co-sign a peer's checkpoint after checking that its log only grew."""

        def cosign() -> Any:
            opened = self._edge.open(request, _PREFIX + "Cosign", CosignQuery, frozenset({registry.PEER}))
            body, origin = opened.body, opened.caller.name
            with self._ledger.store.write() as conn:
                opened.remember(conn)
                card = registry.peer(conn, origin)
                before = witness.seen(conn, origin)
                seen = before[0].size if before else 0
                if body.old_size != seen:
                    return audit_pb2.CosignResponse(seen_size=seen)  # prove from there, and call again
                line = witness.cosign_checked(
                    conn,
                    body.checkpoint,
                    VerifierKey(origin, PublicKey.from_bytes(card.checkpoint.key)),
                    body.consistency,
                    self._ledger.node_id,
                    self._ledger.keys.checkpoint,
                    signed.now_ms() // 1000,
                )
            return audit_pb2.CosignResponse(cosignature=line, seen_size=parse_checkpoint(body.checkpoint).size)

        return await self._edge.unary(context, lambda: asyncio.to_thread(cosign))


def _is_about(conn: Connection, leaf: bytes, key_id: str) -> bool:
    """Whether an entry is of somebody's own doing, or of a job that one submitted."""
    entry = wire.decode(Entry, leaf)
    if entry.actor == key_id:
        return True
    return bool(entry.job_id) and record.submitted_by(conn, entry.job_id) == key_id
