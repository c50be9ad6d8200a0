"""One node's durable side, where it begins: transactions, entries, artefacts, statements, trails.

Every effect is one transaction with its audit entry. What a job may use is in ``materials``, its line in ``ledger``.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, insert, select

from sandbox import record, signed, wire
from sandbox.audit import log as audit_log
from sandbox.audit.merkle import leaf_hash
from sandbox.catalog import artefacts, cache
from sandbox.crypto.sm2 import PublicKey
from sandbox.crypto.sm3 import sm3
from sandbox.errors import (
    AlreadyExists,
    BudgetSpent,
    InvalidSpec,
    NotFound,
    PartyFailed,
    PolicyRefused,
    Unauthenticated,
    Unavailable,
    WrongState,
)
from sandbox.keyring import NodeKeys
from sandbox.model import (
    Commitment,
    Entry,
    Fact,
    GrantStatement,
    Plan,
    Signed,
    TrailEntry,
    TrailReport,
)
from sandbox.record import Job
from sandbox.settings import Settings
from sandbox.store import Store, grants

T = TypeVar("T")
ROUNDS = frozenset({"before", "after", "released", "withheld", "sent back", "cancelled", "expired"})
_ENTERED = (
    AlreadyExists,
    BudgetSpent,
    InvalidSpec,
    PartyFailed,
    PolicyRefused,
    Unauthenticated,
    Unavailable,
    WrongState,
)


class Books:
    """The store of one node, and what everything in it is written by."""

    def __init__(
        self, home: Path, settings: Settings, keys: NodeKeys, store: Store, engines: Callable[[], Mapping[str, str]]
    ) -> None:
        self.node_id, self.home, self.settings, self.keys, self.store = settings.node_id, home, settings, keys, store
        self._engines = engines

    async def write(self, action: Callable[[Connection], T]) -> T:
        """Run ``action`` in one durable transaction, off the event loop."""

        def run() -> T:
            with self.store.write() as conn:
                return action(conn)

        return await asyncio.to_thread(run)

    async def transact(
        self, action: Callable[[Connection], T], on_refusal: tuple[str, str, Callable[[Connection], None]]
    ) -> T:
        """Run ``action``; a refusal leaves an entry and uses up the request's nonce before it is raised."""
        try:
            return await self.write(action)
        except _ENTERED as error:
            job_id, actor, remember = on_refusal
            told = {"code": type(error).__name__, "reason": error.tell[:200]}

            def refused(conn: Connection) -> None:
                remember(conn)
                entry = self._entry("refused", job_id, b"", b"", actor, 0, told)
                audit_log.append(conn, wire.encode(entry), job_id)

            await self.write(refused)
            raise

    def enter(
        self,
        conn: Connection,
        what: str,
        job: Job,
        facts: Mapping[str, str],
        commitments: tuple[Commitment, ...] = (),
    ) -> int:
        """Append an entry about a job, inside the caller's transaction."""
        return self.enter_by(conn, what, job, job.submission.key_id, facts, commitments)

    def enter_by(
        self,
        conn: Connection,
        what: str,
        job: Job,
        actor: str,
        facts: Mapping[str, str],
        commitments: tuple[Commitment, ...] = (),
    ) -> int:
        """The same in the name of somebody else than its submitter."""
        digest = job.plan.scenario_digest
        entry = self._entry(what, job.job_id, job.plan_digest, digest, actor, job.plan.time_ms, facts, commitments)
        return audit_log.append(conn, wire.encode(entry), job.job_id)

    def enter_other(
        self, conn: Connection, what: str, actor: str, facts: Mapping[str, str], scenario: bytes = b""
    ) -> int:
        """Append an entry about something else than a job."""
        return audit_log.append(conn, wire.encode(self._entry(what, "", b"", scenario, actor, 0, facts)))

    def _entry(
        self,
        what: str,
        job_id: str,
        plan_digest: bytes,
        scenario_digest: bytes,
        actor: str,
        peer_time_ms: int,
        facts: Mapping[str, str],
        commitments: tuple[Commitment, ...] = (),
    ) -> Entry:
        listed = tuple(Fact(name, value) for name, value in sorted(facts.items()))
        return Entry(
            what, job_id, plan_digest, scenario_digest, actor, signed.now_ms(), peer_time_ms, listed, commitments
        )

    @property
    def _artefacts(self) -> Path:
        return self.home / "artefacts"

    def _fetch(self, conn: Connection, job_id: str, name: str) -> bytes:
        return artefacts.fetch(conn, self._artefacts, self.keys.node_key, job_id, name)

    async def fetch(self, job: Job, job_id: str, name: str) -> bytes:
        """Return an artefact of this job, or of an earlier one under the same scenario."""

        def run() -> bytes:
            with self.store.read() as conn:
                if job_id != job.job_id and record.read(conn, job_id).plan.scenario_digest != job.plan.scenario_digest:
                    raise NotFound("an artefact of another scenario was asked for")
                return self._fetch(conn, job_id, name)

        return await asyncio.to_thread(run)

    async def keep(self, job: Job, name: str, content: bytes) -> None:
        """Keep an artefact under a job."""
        await self.write(
            lambda conn: artefacts.keep(conn, self._artefacts, self.keys.node_key, job.job_id, name, content)
        )

    async def cached(self, name: str) -> bytes:
        """Return what an earlier job kept for later ones; empty if nothing is there."""
        return await self.write(lambda conn: cache.fetch(conn, self._cache, self.keys.node_key, name, signed.now_ms()))

    async def cache(self, name: str, content: bytes, source: bytes) -> None:
        """Keep something for later jobs, until the dataset it was made from is destroyed."""
        key, now = self.keys.node_key, signed.now_ms()
        await self.write(lambda conn: cache.keep(conn, self._cache, key, name, content, source, now))

    @property
    def _cache(self) -> Path:
        return self.home / "cache"

    async def kept(self, job: Job, prefix: str) -> list[str]:
        """Return the names of what was kept under a job that begin so."""
        with self.store.read() as conn:
            return artefacts.names(conn, job.job_id, prefix)

    async def unfinished(self, scenario_digest: bytes | None = None) -> list[str]:
        """Return the ids of jobs that have not ended."""
        with self.store.read() as conn:
            return record.unfinished(conn, scenario_digest)

    async def job(self, job_id: str) -> Job:
        """Return a job."""
        with self.store.read() as conn:
            return record.read(conn, job_id)

    async def own_trail(self, job: Job) -> TrailReport:
        """Return and store this node's entries about a job."""

        def run(conn: Connection) -> TrailReport:
            entries = []
            for index, leaf in audit_log.for_job(conn, job.job_id):
                entry = wire.decode(Entry, leaf)
                entries.append(TrailEntry(self.node_id, index, entry.what, leaf_hash(leaf, sm3), entry.time_ms))
            report = TrailReport(job.job_id, tuple(entries))
            record.trail(conn, job.job_id, self.node_id, signed.sign(self.keys.identity, "trail", report))
            return report

        return await self.write(run)

    async def their_trail(self, job: Job, party: str, identity: PublicKey, report: Signed) -> None:
        """Store what another party says it entered, as that party signed it.

        Raises:
            Unauthenticated: it did not sign this.
            InvalidSpec: it speaks of another job, or for others.
        """
        told = signed.verify(identity, "trail", report, TrailReport)
        if told.job_id != job.job_id or any(entry.party != party for entry in told.entries):
            raise InvalidSpec(f"{party} reports entries of others, or of another job")
        await self.write(lambda conn: record.trail(conn, job.job_id, party, report))

    async def take_grant(self, party: str, identity: PublicKey, grant: Signed) -> tuple[GrantStatement, bool]:
        """Store an owner's leave to reveal, or a party's word about a held job; returns it, and whether it is new.

        Raises:
            Unauthenticated: that party did not sign it.
            NotFound, WrongState: there is no such job, or it is not the plan's, or not that party's to say.
        """
        statement = signed.verify(identity, "grant", grant, GrantStatement)

        def store(conn: Connection) -> bool:
            job = record.read(conn, statement.job_id)
            mine = (party, job.plan_digest, job.plan.recipient)
            if not hmac.compare_digest(repr((statement.party, statement.plan_digest, statement.recipient)), repr(mine)):
                raise WrongState(f"a grant by {party} is not for the plan of job {statement.job_id}")
            if party not in job.parties or statement.round not in ROUNDS:
                raise WrongState(f"{party} has nothing to say about {statement.round!r} of job {statement.job_id}")
            return self.file_grant(conn, job, party, statement.round, grant)

        return statement, await self.write(store)

    def file_grant(self, conn: Connection, job: Job, party: str, which: str, grant: Signed) -> bool:
        """Store a statement that was checked; whether it is new."""
        if which in self.said(conn, job, party):
            return False
        row = {"job_id": job.job_id, "party": party, "round": which, "record": wire.encode(grant)}
        conn.execute(insert(grants).values(**row))
        return True

    def said(self, conn: Connection, job: Job, party: str) -> dict[str, Signed]:
        """Return a party's statements about a job, by round."""
        found = conn.execute(
            select(grants.c.round, grants.c.record).where(grants.c.job_id == job.job_id, grants.c.party == party)
        )
        return {row.round: signed.read_signed(row.record) for row in found}

    async def granted(self, job: Job, which: str) -> frozenset[str]:
        """Return the parties whose grants this node holds."""

        def run() -> frozenset[str]:
            with self.store.read() as conn:
                found = conn.execute(
                    select(grants.c.party).where(grants.c.job_id == job.job_id, grants.c.round == which)
                )
                return frozenset(party for (party,) in found)

        return await asyncio.to_thread(run)

    def statement(self, job: Job, which: str, note: str = "") -> Signed:
        """Return this party's signed word about a job: leave to reveal, or how a held job ended here."""
        value = GrantStatement(self.node_id, job.job_id, job.plan_digest, job.plan.recipient, which, note)
        return signed.sign(self.keys.identity, "grant", value)

    async def say(self, job: Job, which: str, note: str = "") -> Signed:
        """Sign and keep this party's own word about a job."""
        statement = self.statement(job, which, note)
        await self.write(lambda conn: self.file_grant(conn, job, self.node_id, which, statement))
        return statement

    def note_of(self, statement: Signed) -> str:
        """Return the note of a statement that was checked when it was stored."""
        return wire.decode(GrantStatement, statement.payload).note

    def grant(self, job: Job, which: str) -> Signed | None:
        """Return this owner's signed leave to reveal; None if it owns nothing in the job."""
        return self.statement(job, which) if self.owns(job.plan) else None

    def owns(self, plan: Plan) -> bool:
        """Whether this node brings data to the plan."""
        return any(party.node_id == self.node_id and party.dataset is not None for party in plan.parties)

    async def head(self) -> bytes:
        """Return a signed checkpoint of this moment."""
        return await self.write(lambda conn: audit_log.checkpoint(conn, self.node_id, self.keys.checkpoint))

    async def proof(self, index: int) -> tuple[bytes, tuple[bytes, ...], bytes]:
        """Return an entry, its path, and a checkpoint of this moment that covers it."""

        def run(conn: Connection) -> tuple[bytes, tuple[bytes, ...], bytes]:
            note = audit_log.checkpoint(conn, self.node_id, self.keys.checkpoint)
            path = tuple(audit_log.inclusion(conn, index, audit_log.size(conn)))
            return audit_log.leaf(conn, index), path, note

        return await self.write(run)

    async def stage(self, job: Job, name: str, milliseconds: int, traffic: int) -> None:
        """Note a finished stage."""
        await self.write(lambda conn: record.stage(conn, job.job_id, name, milliseconds, traffic))


def reason_context(job_id: str) -> bytes:
    """Return what binds a sealed reason to its job."""
    return b"reason\0" + job_id.encode()


def entered(conn: Connection, job_id: str) -> list[str]:
    """Return what this node entered about a job, in order."""
    return [wire.decode(Entry, leaf).what for _, leaf in audit_log.for_job(conn, job_id)]
