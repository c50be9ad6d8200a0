"""Jobs that wait for people: what the gate let pass stays sealed where it was computed, until two people of every other
data owner have looked.

    hold ── HELD, connections closed ── decided here, or told by another party ── tend
    tend:   an end that somebody told, or a refusal of this node's people ── ended here, and told
            this owner's leave, once two of its people approved (at once where the job is of its own people)
            all owners' leave is here ── taken up: connections, release, last shares, delivery

Nothing here is lost by a restart: decisions, grants and ends are durable before anything is done about them, and
``tend_all`` begins where things stand. From a job's being taken up on, people's ends come too late: its line ends it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from sqlalchemy import Connection

from sandbox import record, registry, review, signed
from sandbox.desk import pack_result, unpack_result
from sandbox.errors import (
    Cancelled,
    Expired,
    NotFound,
    OutputWithheld,
    PolicyRefused,
    SandboxError,
    SentBack,
    WrongState,
)
from sandbox.exchange import Exchange, Setting
from sandbox.ledger import HELD, Ledger
from sandbox.model import Decision, GrantStatement, RawResult, ReviewVerdict, Signed, State
from sandbox.policy.scenario import same_name
from sandbox.record import Job
from sandbox.registry import Registered

log = logging.getLogger(__name__)
TELL_S = 10.0
ANSWER_S = 20.0  # between two answers to one party about one job
AT_ONCE = 8  # jobs looked after at a time
ENDS: dict[str, type[SandboxError]] = {
    "withheld": OutputWithheld,
    "sent back": SentBack,
    "cancelled": Cancelled,
    "expired": Expired,
}
OF_OWNERS = frozenset({"withheld", "sent back"})  # a reviewer's words: only those whose people review may say so


class Holds:
    """The held jobs of one node."""

    def __init__(
        self, ledger: Ledger, exchange: Exchange, take_up: Callable[[Job], None], in_motion: Callable[[str], bool]
    ) -> None:
        """Args:
        take_up: begins the second half of a job that every owner has granted.
        in_motion: whether a job's line runs at this moment.
        """
        self._ledger, self._exchange, self._take_up, self._in_motion = ledger, exchange, take_up, in_motion
        self._last_told: dict[tuple[str, str], float] = {}

    async def hold(self, job: Job, setting: Setting, raw: RawResult) -> None:
        """Put a job that passed the gate before the reviewers.

        Raises:
            OutputWithheld: nobody may review it: the only owner's people are those who ask.
        """
        ledger, plan = self._ledger, job.plan
        owners = {party.node_id for party in plan.parties if party.dataset is not None}
        is_here = ledger.owns(plan)
        if is_here and plan.proposer == ledger.node_id:
            with ledger.store.read() as conn:
                is_here = not self._is_own(conn, job)
        if not is_here and owners <= {plan.proposer}:
            raise OutputWithheld("the only data owner's people are those who ask: nobody may review", stage="gate")
        await ledger.hold(job, setting.to_bytes(), pack_result(raw), is_here)

    def _is_own(self, conn: Connection, job: Job) -> bool:
        """Whether a job was submitted here by somebody of this node's own organisation."""
        try:
            author = registry.find_key(conn, job.submission.key_id)
        except NotFound:
            return False
        return same_name(author.organisation) == same_name(self._ledger.settings.organisation)

    # --- decisions and ends -------------------------------------------------------------------------------------------

    async def decide(
        self, job_id: str, verdict: ReviewVerdict, reviewer: Registered, remember: Callable[[Connection], None]
    ) -> None:
        """Take one reviewer's decision, and act on it.

        Raises:
            WrongState, PolicyRefused, NotFound: as in ``review.decide``.
        """
        ledger = self._ledger

        def take(conn: Connection) -> None:
            remember(conn)
            job = record.read(conn, job_id)
            is_given = job.state is State.HELD and "after" in ledger.said(conn, job, ledger.node_id)
            if is_given and review.hold_of(conn, job_id).is_here:
                raise WrongState(tell="two people have approved this job already")
            value = review.decide(conn, ledger.keys.node_key, job, verdict.decision, reviewer, self._authors(conn, job))
            facts = {"decision": value.decision.name.lower(), "evidence": value.evidence_digest.hex()}
            digest = signed.digest("review", verdict.decision).hex()
            ledger.enter_by(conn, "reviewed", job, reviewer.key_id, {**facts, "signed": digest})

        await ledger.write(take)
        await self.tend(job_id)

    def authors(self, conn: Connection, job_id: str) -> frozenset[str]:
        """Return the organisations whose people neither see nor decide what is held."""
        return self._authors(conn, record.read(conn, job_id))

    def _authors(self, conn: Connection, job: Job) -> frozenset[str]:
        """By name as the scenario has it, and by what this node itself knows of the submitter and of other nodes."""
        plan, here = job.plan, self._ledger.node_id
        known = {registry.peer(conn, node).organisation for node in {plan.proposer, plan.recipient_node} - {here}}
        for key_id in (job.submission.key_id, plan.recipient):
            try:
                known.add(registry.find_key(conn, key_id).organisation)
            except NotFound:
                continue  # somebody of another node
        return review.authors(conn, job) | {same_name(name) for name in known}

    async def end(self, job_id: str, error: SandboxError, which: str, note: str = "") -> None:
        """End a held job here, and tell every other party.

        Raises:
            WrongState: it is not held any more, or is being released.
        """
        job = await self._ledger.job(job_id)
        if job.state is not State.HELD:
            raise WrongState(tell="the job has ended already")
        if self._in_motion(job_id):
            raise WrongState(tell="the job is being released already")
        if not await self._ledger.stop(job, error, self._exchange.failure(error, "review")):
            raise WrongState(tell="the job is being released already")
        await self.tell_end(job, which, note)

    async def tell_end(self, job: Job, which: str, note: str = "") -> None:
        """Keep this party's word about how a job ended, and tell it to every other party."""
        await self._tell_all(job, await self._ledger.say(job, which, note))

    async def told(self, statement: GrantStatement, is_new: bool) -> None:
        """Act on another party's word about a held job; who asks about one that has ended here is told so."""
        try:
            job = await self._ledger.job(statement.job_id)
        except NotFound:
            return
        if job.state is State.HELD:
            if is_new:
                await self.tend(job.job_id)
            elif statement.round == "after":
                await self._answer(job, statement.party)
        elif statement.round == "after" and review.is_reviewed(job.plan):
            if job.state is State.RELEASED and job.plan.recipient_node == self._ledger.node_id:
                await self._tell(statement.party, await self._ledger.say(job, "released"), job.job_id)
            with self._ledger.store.read() as conn:
                said = self._ledger.said(conn, job, self._ledger.node_id)
            for which in said.keys() & ENDS.keys():
                await self._tell(statement.party, said[which], job.job_id)

    async def _answer(self, job: Job, party: str) -> None:
        """Tell this owner's leave to a party that says its own once more: it may have been away when it was told."""
        last = self._last_told.get((job.job_id, party), -ANSWER_S)
        if time.monotonic() - last < ANSWER_S:
            return  # or two owners would never stop
        with self._ledger.store.read() as conn:
            given = self._ledger.said(conn, job, self._ledger.node_id).get("after")
        if given is not None:
            await self._tell(party, given, job.job_id)

    # --- going on -----------------------------------------------------------------------------------------------------

    async def tend(self, job_id: str, again: bool = False) -> None:
        """End a job that is to end, give this owner's leave if nothing is in its way, and take it up once all have.

        Args:
            again: hand round this owner's leave even if that was done before.
        """
        ledger = self._ledger
        job = await ledger.job(job_id)
        if job.state is not State.HELD or self._in_motion(job_id) or await self._ended(job):
            return
        owners = {party.node_id for party in job.plan.parties if party.dataset is not None}
        if ledger.node_id in owners:
            leave, is_new = await ledger.write(lambda conn: self._leave(conn, job))
            if leave is None:
                return
            if is_new or again:
                await self._tell_all(job, leave)
        if owners <= await ledger.granted(job, "after") and not self._in_motion(job_id):
            self._take_up(job)

    def _leave(self, conn: Connection, job: Job) -> tuple[Signed | None, bool]:
        """Give this owner's leave in the transaction that counts its reviewers' approvals; and whether it is new."""
        ledger = self._ledger
        if (given := ledger.said(conn, job, ledger.node_id).get("after")) is not None:
            return given, False
        if record.read(conn, job.job_id).state is not State.HELD:
            return None, False
        if review.hold_of(conn, job.job_id).is_here:
            count = review.approvals(conn, job, self._authors(conn, job))
            if count < review.APPROVALS or review.ending(conn, job.job_id) is not None:
                return None, False
        statement = ledger.statement(job, "after")
        ledger.file_grant(conn, job, ledger.node_id, "after", statement)
        return statement, True

    async def _ended(self, job: Job) -> bool:
        """End a job that a reviewer or another party ended, or whose scenario is not active; whether there was one."""
        ledger = self._ledger
        with ledger.store.read() as conn:
            decided = review.ending(conn, job.job_id)
            words = {party: ledger.said(conn, job, party) for party in job.parties if party != ledger.node_id}
            state = ledger.standing_of(conn, job)
        owners = {party.node_id for party in job.plan.parties if party.dataset is not None}
        if decided is not None and decided.decision is Decision.REFUSE:
            reason = f"refused by a reviewer: {decided.reason}"
            await self.end(job.job_id, OutputWithheld(reason, stage="review"), "withheld")
            return True
        if decided is not None:
            note = decided.reason[:200]
            await self.end(job.job_id, SentBack(stage="review", hint=note), "sent back", note)
            return True
        if "released" in words.get(job.plan.recipient_node, {}) and owners <= await ledger.granted(job, "after"):
            await ledger.release(job, unpack_result(await ledger.fetch(job, job.job_id, HELD)))
            await ledger.close(job)  # it was delivered while this node was away
            return True
        for party, said in words.items():
            for which in said.keys() & ENDS.keys():
                if which in OF_OWNERS and party not in owners:
                    continue
                note = ledger.note_of(said[which]) if which == "sent back" else ""
                error = ENDS[which](f"{party}: {which}", party=party, stage="review", hint=note)
                return await ledger.stop(job, error, self._exchange.failure(error, "review"))
        if state != "active" and not await ledger.is_released(job):
            error = PolicyRefused(tell=f"the scenario is {state}", party=ledger.node_id, stage="review")
            await self.end(job.job_id, error, "cancelled")
            return True
        return False

    async def tend_all(self) -> None:
        """Remind, let expire, and go on with whatever was missed; at the start, and now and then."""
        with self._ledger.store.read() as conn:
            waiting = review.held(conn)
        held = {hold.job_id for hold in waiting}
        self._last_told = {place: when for place, when in self._last_told.items() if place[0] in held}
        for first in range(0, len(waiting), AT_ONCE):
            await asyncio.gather(*(self._look_after(hold) for hold in waiting[first : first + AT_ONCE]))

    async def _look_after(self, hold: review.Hold) -> None:
        now = signed.now_ms()
        try:
            if now >= hold.due_ms and not self._in_motion(hold.job_id):
                await self.end(hold.job_id, Expired(party=self._ledger.node_id, stage="review"), "expired")
                return
            if hold.is_here and not hold.is_reminded and review.is_due_soon(hold, now):
                await self._remind(hold.job_id, now)
            await self.tend(hold.job_id, again=True)
        except SandboxError as error:
            log.warning("held job %s was not looked after: %s", hold.job_id, error)

    async def _remind(self, job_id: str, now_ms: int) -> None:
        job = await self._ledger.job(job_id)

        def enter(conn: Connection) -> None:
            review.reminded(conn, job_id, now_ms)
            self._ledger.enter(conn, "review-due", job, {})

        await self._ledger.write(enter)
        log.warning("job %s is held and waits for a review; half of its time has passed", job_id)

    async def _tell_all(self, job: Job, statement: Signed) -> None:
        others = [party for party in job.parties if party != self._ledger.node_id]
        await asyncio.gather(*(self._tell(party, statement, job.job_id) for party in others))

    async def _tell(self, party: str, statement: Signed, job_id: str) -> None:
        self._last_told[job_id, party] = time.monotonic()
        try:
            await asyncio.wait_for(self._exchange.links.grant(party, statement), TELL_S)
        except (SandboxError, TimeoutError) as error:  # leave is told again, and an end when the party asks
            log.warning("job %s: %s was not told: %s", job_id, party, error)
