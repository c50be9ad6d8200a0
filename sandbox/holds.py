"""Jobs that wait for people: what the gate let pass stays sealed where it was computed, until two people of every other
data owner have looked.

    hold ── HELD, connections closed ── decided here, or told by another owner ── tend
    tend:   this owner's grant, once its reviewers approve (at once where the author's own organisation is the owner)
            ── all owners' grants are here ── taken up: connections, release, last shares, delivery
    end:    refused, sent back, cancelled, expired: here first, then every other party is told

Nothing here is lost by a restart: grants and decisions are durable, and ``tend_all`` begins where things stand.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from sqlalchemy import Connection

from sandbox import record, registry, review, signed
from sandbox.desk import pack_result
from sandbox.errors import (
    Cancelled,
    Expired,
    NotFound,
    OutputWithheld,
    SandboxError,
    SentBack,
    WrongState,
)
from sandbox.exchange import Exchange, Setting
from sandbox.ledger import SETTING, Ledger
from sandbox.model import Decision, GrantStatement, RawResult, ReviewVerdict, Scenario, Signed, State
from sandbox.policy.scenario import controller
from sandbox.record import Job
from sandbox.registry import Registered

log = logging.getLogger(__name__)
HELD = "held"  # the artefact with what the gate judged
ENDS: dict[str, type[SandboxError]] = {
    "withheld": OutputWithheld,
    "sent back": SentBack,
    "cancelled": Cancelled,
    "expired": Expired,
}


class Holds:
    """The held jobs of one node."""

    def __init__(self, ledger: Ledger, exchange: Exchange, take_up: Callable[[Job], None]) -> None:
        """Args:
        take_up: begins the second half of a job that every owner has granted; does nothing if it is in motion.
        """
        self._ledger, self._exchange, self._take_up = ledger, exchange, take_up

    async def hold(self, job: Job, setting: Setting, raw: RawResult) -> None:
        """Put a job that passed the gate before the reviewers.

        Raises:
            OutputWithheld: nobody may review it: every owner is of the author's organisation.
        """
        ledger = self._ledger
        scenario = ledger.scenario(job.plan)
        with ledger.store.read() as conn:
            reviewing = self._reviewing(conn, job, scenario)
        if not reviewing:
            raise OutputWithheld("every data owner is of the author's organisation: nobody may review", stage="gate")
        await ledger.keep(job, SETTING, setting.to_bytes())
        await ledger.keep(job, HELD, pack_result(raw))

        def enter(conn: Connection) -> None:
            is_here = ledger.node_id in reviewing
            review.hold(conn, job.job_id, is_here, ledger.settings.review_days, signed.now_ms())
            ledger.enter(conn, "held", job, {"reviewers": ",".join(sorted(reviewing))})

        await ledger.write(enter)

    def _reviewing(self, conn: Connection, job: Job, scenario: Scenario) -> set[str]:
        """Return the owners whose people may review: all that are not of the author's organisation."""
        authors = {review.organisation(scenario.merchant), controller(scenario)}
        owners = {party.node_id for party in job.plan.parties if party.dataset is not None}
        here = self._ledger.node_id

        def organisation(node_id: str) -> str:
            own = self._ledger.settings.organisation
            return review.organisation(own if node_id == here else registry.peer(conn, node_id).organisation)

        return {owner for owner in owners if organisation(owner) not in authors}

    # --- decisions ----------------------------------------------------------------------------------------------------

    async def decide(
        self, job_id: str, verdict: ReviewVerdict, reviewer: Registered, remember: Callable[[Connection], None]
    ) -> None:
        """Take one reviewer's decision, and act on it.

        Raises:
            WrongState, PolicyRefused, NotFound: as in ``review.decide``.
        """
        ledger = self._ledger

        def take(conn: Connection) -> tuple[Decision, str]:
            remember(conn)
            value = review.decide(conn, ledger.keys.node_key, job_id, verdict.decision, reviewer)
            facts = {"decision": value.decision.name.lower(), "evidence": value.evidence_digest.hex()}
            digest = signed.digest("review", verdict.decision).hex()
            ledger.enter_by(conn, "reviewed", record.read(conn, job_id), reviewer.key_id, {**facts, "signed": digest})
            return value.decision, value.reason

        decision, reason = await ledger.write(take)
        if decision is Decision.APPROVE:
            await self.tend(job_id)
        elif decision is Decision.REFUSE:
            await self.end(job_id, OutputWithheld(f"refused by a reviewer: {reason}", stage="review"), "withheld")
        else:
            await self.end(job_id, SentBack(stage="review", hint=reason[:200]), "sent back", reason[:200])

    async def end(self, job_id: str, error: SandboxError, which: str, note: str = "") -> None:
        """End a held job here, and tell every other party.

        Raises:
            WrongState: it is not held any more.
        """
        ledger = self._ledger
        job = await ledger.job(job_id)
        if job.state is not State.HELD:
            raise WrongState(tell="the job has ended already")
        await ledger.stop(job, error, self._exchange.failure(error, "review"))
        await self._tell_all(job, ledger.statement(job, which, note))

    async def told(self, statement: GrantStatement) -> None:
        """Act on another party's word about a held job; of a job that is not held, it means nothing."""
        try:
            job = await self._ledger.job(statement.job_id)
        except NotFound:
            return
        if job.state is not State.HELD or statement.party not in job.parties:
            return
        if statement.round not in ENDS:
            await self.tend(job.job_id)
            return
        kind = ENDS[statement.round]
        note = statement.note if kind is SentBack else ""
        error = kind(f"{statement.party}: {statement.round}", party=statement.party, stage="review", hint=note)
        await self._ledger.stop(job, error, self._exchange.failure(error, "review"))

    # --- going on -----------------------------------------------------------------------------------------------------

    async def tend(self, job_id: str) -> None:
        """Give this owner's grant if nothing is in its way, hand it round, and take the job up once all are here."""
        ledger = self._ledger
        job = await ledger.job(job_id)
        if job.state is not State.HELD:
            return
        owners = {party.node_id for party in job.plan.parties if party.dataset is not None}
        if ledger.node_id in owners:
            with ledger.store.read() as conn:
                waits = review.hold_of(conn, job_id).is_here and review.approvals(conn, job_id) < review.APPROVALS
            if waits:
                return
            statement = ledger.statement(job, "after")
            await ledger.take_grant(ledger.node_id, ledger.keys.identity.public, statement)
            await self._tell_all(job, statement)
        if owners <= await ledger.granted(job, "after"):
            self._take_up(job)

    async def tend_all(self) -> None:
        """Remind, let expire, and go on with whatever was missed; at the start, and now and then."""
        ledger, now = self._ledger, signed.now_ms()
        with ledger.store.read() as conn:
            waiting = review.held(conn)
        for hold in waiting:
            if now >= hold.due_ms:
                await self.end(hold.job_id, Expired(party=ledger.node_id, stage="review"), "expired")
                continue
            if hold.is_here and not hold.is_reminded and review.is_due_soon(hold, now):
                await self._remind(hold.job_id, now)
            await self.tend(hold.job_id)

    async def _remind(self, job_id: str, now_ms: int) -> None:
        job = await self._ledger.job(job_id)

        def enter(conn: Connection) -> None:
            review.reminded(conn, job_id, now_ms)
            self._ledger.enter(conn, "review-due", job, {})

        await self._ledger.write(enter)
        log.warning("job %s is held and waits for a review; half of its time has passed", job_id)

    async def _tell_all(self, job: Job, statement: Signed) -> None:
        async def tell(party: str) -> None:
            try:
                await asyncio.wait_for(self._exchange.links.grant(party, statement), 10.0)
            except (SandboxError, TimeoutError) as error:  # a grant is told again at the next round
                log.warning("job %s: %s was not told: %s", job.job_id, party, error)

        await asyncio.gather(*(tell(party) for party in job.parties if party != self._ledger.node_id))
