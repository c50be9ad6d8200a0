"""The life of a job. Start reading here: ``submit`` and ``take_part`` admit, ``_carry`` is the line every party then
runs.

    submit ── admit ── propose ─┐                          ┌─ take_part ── admit ── acceptance
                                └── start · terms · salt ──┘
            gate on sizes, where the protocol itself reveals ── grants
            spend quota ── compute ── gate ── grants ── entry: released ── last shares
                                       └─ HELD, where people review (``holds``), and on from the grants
            recipient's node: finish ── release ── entry: delivered ── co-signature ── sealed result

*admitted* is durable before any work, *released* before any byte leaves, and no result exists without its receipt.
Whatever goes wrong ends in ``_stop``: state, reason, entry and quota in one transaction, and every other party told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from sqlalchemy import Connection

from sandbox import record, signed, wire
from sandbox.crypto.sm3 import tagged
from sandbox.desk import unpack_result
from sandbox.errors import (
    AlreadyExists,
    Cancelled,
    DeadlinePassed,
    Interrupted,
    JobFailed,
    OutputWithheld,
    PartyFailed,
    SandboxError,
    SentBack,
    Unauthenticated,
    Unavailable,
    WrongState,
)
from sandbox.exchange import Exchange, Setting, Wires
from sandbox.gate.judge import judge_sizes
from sandbox.holds import Holds
from sandbox.kinds import KINDS
from sandbox.ledger import HELD, Delivery, Ledger
from sandbox.materials import Committed
from sandbox.model import (
    Acceptance,
    Call,
    Environment,
    GrantStatement,
    JobSubmission,
    Plan,
    Proposal,
    RawResult,
    ReviewVerdict,
    Signed,
    State,
)
from sandbox.policy import quota, versions
from sandbox.policy.admit import Choices, Facts, admit, agree, rows_needed
from sandbox.record import Job
from sandbox.registry import Registered
from sandbox.review import is_reviewed

log = logging.getLogger(__name__)
T = TypeVar("T")
SUBMIT = "/sandbox.v1.JobService/SubmitJob"
SKEW_MS = 60_000
CALL_WINDOW_MS = 120_000
MOST_AT_ONCE = 64
MOST_OF_ONE = 24  # submitter: nobody can take all slots
TAKE_UP_S = 900.0  # of a held job, from the connections to the delivery
HELD_AWAY_S = 30.0  # how long a held job's line waits for the others; it is tried again later
RESUMES = 2  # how often a job may be taken up after a party went away
SHARED_ENDS = (OutputWithheld, Cancelled, SentBack)
Remember = Callable[[Connection], None]


@dataclass
class Live:
    """A job in motion at this node."""

    submitter: str
    task: asyncio.Task[None] | None = None
    stage: str = "admitted"
    progress: str = ""  # for this node's operator; a requester learns no sizes before the release
    resumable: bool = False  # whether it can be taken up again if this node stops now
    is_held: bool = False  # whether people have to look before it goes on, or did
    is_taken_up: bool = False  # whether it goes on after they did
    began: float = 0.0
    acceptance: Signed | None = None
    reason: SandboxError | None = None
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Pipeline:
    """The stages of every job at one node."""

    def __init__(self, ledger: Ledger, exchange: Exchange) -> None:
        """Args:
        ledger: this node's durable side: facts, rows, entries, artefacts, results.
        exchange: its other side: the parties and the workers.
        """
        self._ledger, self._exchange = ledger, exchange
        self.on_released: Callable[[], None] = lambda: None  # there may be letters to ask for
        self._live: dict[str, Live] = {}
        self._holds = Holds(ledger, exchange, self._go_on, self._live.__contains__)
        self._tending: set[asyncio.Task[None]] = set()

    # --- admission ------------------------------------------------------------------------------------------------

    async def submit(self, call: Signed, submission: JobSubmission, remember: Remember) -> str:
        """Admit a submitter's job and start it; the same request again is the same job."""
        job_id = record.job_id(call.key_id, submission.spec.request_id)

        def admitted(conn: Connection) -> tuple[Job, bool]:
            remember(conn)
            if (known := record.known_body(conn, job_id)) is not None:
                if known != record.body_digest(call):
                    raise AlreadyExists(tell=f"request id {submission.spec.request_id} was used with another body")
                return record.read(conn, job_id), False
            return self._admit(conn, call, submission, job_id, Choices(self._ledger.node_id)), True

        async def begin() -> None:
            job, new = await self._ledger.transact(admitted, on_refusal=(job_id, call.key_id, remember))
            if new:
                self._start(job, lambda live: self._lead(job, live))

        await _finished(begin())
        return job_id

    def plan(self, conn: Connection, call: Signed, submission: JobSubmission) -> tuple[Plan, Facts]:
        """Return what ``submit`` would admit, and by which facts; without effect."""
        job_id = record.job_id(call.key_id, submission.spec.request_id)
        facts = self._ledger.facts(conn, call, submission.spec, Choices(self._ledger.node_id))
        facts = replace(facts, is_tested=True)  # what it would do may be known before it was tried
        plan = admit(submission.spec, job_id, signed.digest("call", call), facts, Choices(self._ledger.node_id))
        return plan, facts

    async def take_part(self, proposer: str, proposal: Proposal, remember: Remember) -> Signed:
        """Admit another node's job by this node's own rules; returns this party's signed acceptance."""
        plan = wire.decode(Plan, proposal.plan)
        live = self._live.get(plan.job_id)
        if live and live.acceptance:
            return self._same(live.acceptance, proposal)
        brought = tuple(party.dataset for party in plan.parties if party.dataset is not None)
        choices = Choices(proposer, plan.engine, plan.deadline_s, plan.time_ms, brought)

        def admitted(conn: Connection) -> Job:
            remember(conn)
            submission = self._submission(plan, proposal.submission, proposer)
            versions.learn(conn, proposal.versions, self._exchange.identity)
            return self._admit(conn, proposal.submission, submission, plan.job_id, choices, proposal.plan)

        async def begin() -> Signed:
            job = await self._ledger.transact(admitted, on_refusal=(plan.job_id, proposer, remember))
            terms = await self._ledger.commit_terms(job)
            acceptance = self._ledger.accept(job, terms)
            live = self._start(job, lambda live: self._carry(job, live, terms, {proposer: proposal.commitment}))
            live.acceptance = acceptance
            return acceptance

        return await _finished(begin())

    def _same(self, acceptance: Signed, proposal: Proposal) -> Signed:
        """A proposer that did not hear the answer asks again; another plan under the same id is refused."""
        if wire.decode(Acceptance, acceptance.payload).plan_digest != tagged("plan", proposal.plan):
            raise AlreadyExists(tell="this job id is taken by another plan")
        return acceptance

    def _submission(self, plan: Plan, call: Signed, proposer: str) -> JobSubmission:
        """Check a proposal against the submitter's own call to the proposer, as the proposer received it."""
        here = self._ledger.node_id
        if plan.proposer != proposer:
            raise PartyFailed(tell="proposes in another's name", party=proposer, stage="propose")
        if abs(signed.now_ms() - plan.time_ms) > SKEW_MS:
            raise WrongState(
                tell=f"the clocks of {proposer} and {here} differ by more than 60 s",
                hint="set both clocks (sandbox doctor shows the difference)",
            )
        content = wire.decode(Call, call.payload)
        if content.method != SUBMIT or content.audience != proposer:
            raise Unauthenticated("the forwarded call is not a submission to the proposer")
        if abs(plan.time_ms - content.time_ms) > CALL_WINDOW_MS:
            raise WrongState(tell="the submission is of another day than the plan", hint="submit the job again")
        submission = wire.decode(JobSubmission, content.body)
        if record.job_id(call.key_id, submission.spec.request_id) != plan.job_id:
            raise PartyFailed(tell="the job id does not fit the submission", party=proposer, stage="propose")
        return submission

    def _admit(
        self,
        conn: Connection,
        call: Signed,
        submission: JobSubmission,
        job_id: str,
        choices: Choices,
        proposed: bytes = b"",
    ) -> Job:
        """Policy, reservation, row and entry: one transaction."""
        ledger = self._ledger
        moving = [live.submitter for live in list(self._live.values()) if not live.is_held]
        if len(moving) >= MOST_AT_ONCE or moving.count(call.key_id) >= MOST_OF_ONE:
            raise Unavailable(tell=f"{ledger.node_id} has too many jobs in motion", hint="submit again later")
        if record.known_body(conn, job_id) is not None:
            raise AlreadyExists(tell="this job is known here already", hint="submit again with a new request id")
        facts = ledger.facts(conn, call, submission.spec, choices)
        plan = admit(submission.spec, job_id, signed.digest("call", call), facts, choices)
        if proposed:
            agree(plan, wire.decode(Plan, proposed), choices.proposer)
        consent = ledger.consent(conn, plan, submission)
        job = record.create(conn, call, plan, proposed or wire.encode(plan), facts.recipe)
        told = {"engine": plan.engine, "kind": plan.kind.name.lower()}
        if plan.environment is Environment.PRODUCTION:
            brought = (party.dataset for party in plan.parties if party.dataset is not None)
            rows = rows_needed(submission.spec, brought, facts) if ledger.owns(plan) else 0
            quota.reserve(conn, job_id, plan.scenario_digest, rows, facts.now_ms)
            if ledger.owns(plan):
                ledger.reserve_privacy(conn, job)
        else:
            told["environment"] = "test"
        ledger.enter(conn, "admitted", job, told, ledger.use_consent(conn, job, consent))
        return job

    # --- the line -------------------------------------------------------------------------------------------------

    async def _lead(self, job: Job, live: Live) -> None:
        """The proposer's beginning: everybody accepts the very same bytes, or nobody starts."""
        terms = await self._ledger.commit_terms(job)
        self._enter_stage(live, "propose")
        accepted = await self._exchange.propose(job, terms.commitment)
        await self._leave_stage(job, live, 0)
        await self._carry(job, live, terms, {}, (self._ledger.accept(job, terms), *accepted))

    async def _carry(
        self,
        job: Job,
        live: Live,
        terms: Committed,
        commitments: Mapping[str, bytes],
        accepted: tuple[Signed, ...] = (),
    ) -> None:
        """From acceptance to release; every party runs this same line."""
        kind, ledger = KINDS[job.plan.kind], self._ledger
        try:
            async with self._exchange.open(job, lambda: live.stage, lambda: live.reason) as wires:
                async with self._stage(job, live, "agree", wires):
                    setting = await wires.agree(terms, commitments, accepted)
                    await ledger.run(job)
                if kind.reveals_in_protocol:
                    async with self._stage(job, live, "gate-before", wires):
                        judge_sizes(job.plan, setting.rows)
                        await wires.grants(ledger.grant(job, "before"), "before")
                raw = await self._compute(job, live, wires, setting)
                await self._reveal(job, live, wires, setting, raw)
        except Interrupted:
            await self._resume(job, live)

    async def _compute(self, job: Job, live: Live, wires: Wires, setting: Setting) -> RawResult:
        parts = KINDS[job.plan.kind].parts(job.plan, job.spec, setting.rows)
        async with self._stage(job, live, "compute", wires):
            live.resumable = parts > 1

            def on_done(done: int) -> None:
                live.progress = f"{done} of {parts} parts"
                self._tell(live)

            raw = await wires.compute(setting, parts, lambda: self._ledger.spend(job, setting.rows), on_done)
            live.resumable = False
        return raw

    async def _reveal(self, job: Job, live: Live, wires: Wires, setting: Setting, raw: RawResult) -> None:
        """The second half of the line: nothing of the result has left its party before."""
        ledger = self._ledger
        async with self._stage(job, live, "gate", wires):
            if ledger.owns(job.plan):
                await ledger.judge(job, raw)
            if is_reviewed(job.plan):
                await wires.passed()
                await self._holds.hold(job, setting, raw)
                live.is_held = True
                await wires.part()
                return
            await wires.grants(ledger.grant(job, "after"), "after")
        await self._release(job, live, wires, setting, raw)

    async def _release(self, job: Job, live: Live, wires: Wires, setting: Setting, raw: RawResult) -> None:
        """The end of the line: every owner has granted."""
        kind, ledger = KINDS[job.plan.kind], self._ledger
        async with self._stage(job, live, "reveal", wires):
            await ledger.release(job, raw)
            shares = kind.shares(job.plan, job.spec, ledger.scenario(job.plan))
            await wires.shares(shares)
            await wires.taken(shares)
            if ledger.node_id in shares:
                raw = await wires.work("finish", setting)
        if job.plan.recipient_node == ledger.node_id:
            async with self._stage(job, live, "deliver", wires):
                await wires.others_closed()
                delivery, cosignature = await self._deliver(job, raw)
            await ledger.seal(job, delivery, cosignature)  # the job is released, and its stages are all noted
        await ledger.close(job)
        self.on_released()
        await wires.closed()
        self._enter_stage(live, "trail")
        await wires.trail()

    async def _resume(self, job: Job, live: Live) -> None:
        """Wait for the party that went away, and go on where the parts were left; at most twice."""
        last = Interrupted(stage="resume")
        for _ in range(RESUMES):
            self._enter_stage(live, "resume")
            live.resumable = True
            await self._ledger.resumed(job, RESUMES)
            try:
                async with self._exchange.reopen(job, lambda: live.stage, lambda: live.reason) as wires:
                    setting = await wires.resume()
                    raw = await self._compute(job, live, wires, setting)
                    await self._reveal(job, live, wires, setting, raw)
                return
            except Interrupted as error:
                last = error
        raise last

    async def _take_up(self, job: Job, live: Live) -> None:
        """Go on with a held job that every owner has granted."""
        raw = unpack_result(await self._ledger.fetch(job, job.job_id, HELD))
        try:
            away_s = HELD_AWAY_S
            async with self._exchange.reopen(job, lambda: live.stage, lambda: live.reason, away_s) as wires:
                setting = await wires.resume()
                await wires.grants(None, "after")
                await self._release(job, live, wires, setting, raw)
        except (PartyFailed, WrongState):
            shares = KINDS[job.plan.kind].shares(job.plan, job.spec, self._ledger.scenario(job.plan))
            if not await self._ledger.can_deliver(job, shares.get(self._ledger.node_id, ())):
                raise
            await self._finish_alone(job, live, raw)

    async def _finish_alone(self, job: Job, live: Live, raw: RawResult) -> None:
        """Deliver what a crash cut off after the last share had come: the others are through, or hear of it later."""
        async with self._exchange.open(job, lambda: live.stage, lambda: live.reason, is_alone=True) as wires:
            setting = await wires.resume()
            shares = KINDS[job.plan.kind].shares(job.plan, job.spec, self._ledger.scenario(job.plan))
            if self._ledger.node_id in shares:
                raw = await wires.work("finish", setting)
            async with self._stage(job, live, "deliver", wires):
                delivery, cosignature = await self._deliver(job, raw)
            await self._ledger.seal(job, delivery, cosignature)
            await self._ledger.close(job)
            self.on_released()

    async def _deliver(self, job: Job, raw: RawResult) -> tuple[Delivery, bytes]:
        """Enter what leaves in the log, and have another party co-sign the log with the entry in it."""
        async with self._exchange.log_in_order:
            delivery = await self._ledger.deliver(job, raw)
            return delivery, await self._exchange.cosign(delivery.note)

    # --- running, stopping, watching ------------------------------------------------------------------------------

    def _start(self, job: Job, line: Callable[[Live], Awaitable[None]]) -> Live:
        live = Live(job.submission.key_id)
        self._live[job.job_id] = live
        live.task = asyncio.create_task(self._guard(job, live, line), name=f"job {job.job_id}")
        return live

    async def _guard(self, job: Job, live: Live, line: Callable[[Live], Awaitable[None]]) -> None:
        """Run the line under its deadline and its stop; whatever ends it early is written down here, once."""
        work = asyncio.ensure_future(line(live))
        stop = asyncio.create_task(live.stop.wait())
        try:
            left = max(job.plan.deadline_s, TAKE_UP_S) if live.is_taken_up else job.plan.deadline_s
            await asyncio.wait({work, stop}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                here = self._ledger.node_id
                live.reason = Cancelled(party=here) if live.stop.is_set() else DeadlinePassed(party=here)
                work.cancel()
            await work
        except SandboxError as error:
            await self._stop(job, live, error)
        except asyncio.CancelledError:
            if live.reason is None:  # not the job but the node is being stopped
                here = self._ledger.node_id
                stays = live.resumable  # taken up again at the next start, here and elsewhere
                live.reason = (Interrupted if stays else JobFailed)(tell="the node was stopped", party=here)
                work.cancel()
                await asyncio.wait({work})
                if stays:
                    return
            await self._stop(job, live, live.reason)
        except Exception as error:  # a defect of ours: named in the log, closed to everybody else
            log.exception("job %s: a defect in stage %s", job.job_id, live.stage)
            await self._stop(job, live, JobFailed(type(error).__name__))
        finally:
            stop.cancel()
            self._live.pop(job.job_id, None)
            live.changed.set()
            if live.is_held and not live.is_taken_up:
                self._soon(self._holds.tend(job.job_id))

    async def _stop(self, job: Job, live: Live, error: SandboxError) -> None:
        """State, reason, entry and quota in one transaction. The others were told when the connections closed."""
        if isinstance(error, PartyFailed) and isinstance(error.__cause__, SHARED_ENDS):
            error = error.__cause__  # a job withheld or cancelled at one party is so at all
        failure = self._exchange.failure(error, live.stage)
        log.warning("job %s stopped in %s: %s: %s", job.job_id, failure.stage, failure.code, error)
        if await self._ledger.stop(job, error, failure) and is_reviewed(job.plan):
            self._soon(self._holds.tell_end(job, "cancelled"))  # another party may hold it, and wait

    async def cancel(self, job_id: str) -> None:
        """Stop a job here and, through its connections, everywhere."""
        live = self._live.get(job_id)
        if live is None:
            await self._holds.end(job_id, Cancelled(party=self._ledger.node_id), "cancelled")
            return
        live.stop.set()
        if live.task is not None:
            await asyncio.wait({live.task}, timeout=15.0)

    async def revoked(self, scenario_digest: bytes) -> None:
        """Cancel what runs under a scenario that was revoked."""

        async def cancel(job_id: str) -> None:
            with contextlib.suppress(WrongState):  # it ended meanwhile
                await self.cancel(job_id)

        await asyncio.gather(*(cancel(job_id) for job_id in await self._ledger.unfinished(scenario_digest)))

    async def changes(self, job_id: str) -> AsyncIterator[str]:
        """Yield the stage a job is in, now and at every change, until it has ended here."""
        while (live := self._live.get(job_id)) is not None:
            changed = live.changed
            yield live.stage
            await changed.wait()
        yield ""

    def stage_of(self, job_id: str, in_detail: bool = False) -> str:
        """Return the stage a job is in; empty when it is not in motion."""
        live = self._live.get(job_id)
        if live is None:
            return ""
        return f"{live.stage}: {live.progress}" if in_detail and live.progress else live.stage

    async def recover(self) -> None:
        """After a restart: what was in motion fails cleanly; quota comes back where nothing had been sent."""
        for job_id in await self._ledger.unfinished():
            job = await self._ledger.job(job_id)
            if job.state is State.HELD:
                continue  # it waits for people, and ``tend_held`` looks after it
            if await self._ledger.can_resume(job):
                self._start(job, lambda live, job=job: self._resume(job, live))  # type: ignore[misc]
                continue
            error = JobFailed(
                tell="the node was restarted", party=self._ledger.node_id, hint="submit again with a new request id"
            )
            await self._ledger.stop(job, error, self._exchange.failure(error, "restart"))
            if is_reviewed(job.plan):
                self._soon(self._holds.tell_end(job, "cancelled"))

    # --- held jobs --------------------------------------------------------------------------------------------------

    async def decide(self, job_id: str, verdict: ReviewVerdict, reviewer: Registered, remember: Remember) -> None:
        """Take one reviewer's decision on a held job, and act on it."""
        await _finished(self._holds.decide(job_id, verdict, reviewer, remember))

    def told(self, statement: GrantStatement, is_new: bool) -> None:
        """Act soon on another party's grant, or on its word about a held job."""
        self._soon(self._holds.told(statement, is_new))

    def review_authors(self, conn: Connection, job_id: str) -> frozenset[str]:
        """Return the organisations whose people neither see nor decide what is held."""
        return self._holds.authors(conn, job_id)

    async def tend_held(self) -> None:
        """Remind reviewers, let jobs expire, and go on with those that every owner has granted."""
        await self._holds.tend_all()

    def _go_on(self, job: Job) -> None:
        if job.job_id not in self._live:
            live = self._start(job, lambda live: self._take_up(job, live))
            live.is_held = live.is_taken_up = True

    def _soon(self, action: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            try:
                await action
            except SandboxError as error:  # the next round tries again
                log.warning("a held job was not looked after: %s", error)

        task = asyncio.create_task(run())
        self._tending.add(task)
        task.add_done_callback(self._tending.discard)

    async def close(self) -> None:
        """Stop every job and wait until it is written down."""
        tasks = [live.task for live in self._live.values() if live.task is not None]
        tasks += self._tending
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _stage(self, job: Job, live: Live, name: str, wires: object) -> AsyncIterator[None]:
        traffic = getattr(wires, "traffic", 0)
        self._enter_stage(live, name)
        yield
        await self._leave_stage(job, live, getattr(wires, "traffic", 0) - traffic)

    def _enter_stage(self, live: Live, name: str) -> None:
        live.stage, live.began, live.progress = name, time.monotonic(), ""
        self._tell(live)

    def _tell(self, live: Live) -> None:
        live.changed.set()
        live.changed = asyncio.Event()

    async def _leave_stage(self, job: Job, live: Live, traffic: int) -> None:
        await self._ledger.stage(job, live.stage, int(1000 * (time.monotonic() - live.began)), traffic)


async def _finished(action: Coroutine[Any, Any, T]) -> T:
    """Await ``action`` to its end even if the caller hangs up: what is committed is also begun."""
    return await asyncio.shield(asyncio.ensure_future(action))
