"""The durable side of a job at one node; every effect is one transaction with its audit entry."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, delete, insert, select

from sandbox import challenges, pinned, record, review, signed, wire
from sandbox.audit import log as audit_log
from sandbox.audit.merkle import leaf_hash
from sandbox.audit.receipt import Receipt
from sandbox.catalog import artefacts, bundles, cache, vault
from sandbox.catalog.retention import DAY_MS
from sandbox.catalog.schema import parse_schema
from sandbox.catalog.test_rows import TWINS, twin_key
from sandbox.challenges import Drawn
from sandbox.crypto import sm2curve
from sandbox.crypto.envelope import seal_to
from sandbox.crypto.sm2 import PublicKey
from sandbox.crypto.sm3 import sm3, tagged
from sandbox.crypto.sm4 import seal, unseal
from sandbox.errors import (
    AlreadyExists,
    BudgetSpent,
    Cancelled,
    Expired,
    Interrupted,
    InvalidSpec,
    JobFailed,
    NotFound,
    OutputWithheld,
    PartyFailed,
    PolicyRefused,
    SandboxError,
    SentBack,
    Unauthenticated,
    Unavailable,
    WrongState,
)
from sandbox.gate import history
from sandbox.gate.judge import Bounds, Evidence, judge, judge_people
from sandbox.gate.release import release, rounded
from sandbox.keyring import NodeKeys
from sandbox.kinds import KINDS, confined
from sandbox.kinds import model as own_code
from sandbox.kinds.drawn import DRAWN
from sandbox.kinds.kind import Conditions, Kind
from sandbox.kinds.prepared import cache_name
from sandbox.kinds.psi import keeps_alignment
from sandbox.model import (
    ENDED,
    Acceptance,
    AggregateSpec,
    ApplicantScore,
    Call,
    Commitment,
    ConsentSource,
    DatasetRef,
    Entry,
    Environment,
    Fact,
    Failure,
    Fee,
    GrantStatement,
    JobKind,
    JobSpec,
    JobSubmission,
    ModelSpec,
    OpenedTerms,
    Opening,
    OutputClass,
    Plan,
    PsiOutput,
    PsiSpec,
    RawResult,
    Release,
    Result,
    Scenario,
    ScoreSpec,
    Signed,
    State,
    Terms,
    TrailEntry,
    TrailReport,
)
from sandbox.mpc import paillier
from sandbox.policy import book, enclaves, people, privacy, quota, spending, versions
from sandbox.policy.admit import Choices, Earlier, Facts, OwnDataset, built_on, epsilon_milli, named_datasets
from sandbox.policy.consent import Consented, open_subject
from sandbox.policy.recipe import recipe
from sandbox.policy.scenario import Standing, coefficient, controller, subjects
from sandbox.record import Job
from sandbox.settings import Settings
from sandbox.store import Store, datasets, grants, paillier_keys, refusals, released_populations, results, twins
from sandbox.tee_sim import broker
from sandbox.usage import tariff

T = TypeVar("T")
SAMPLE = "sample"  # the artefact with a sample, for reviewers, of what would leave
SETTING = "setting"  # the artefact with which an interrupted job is taken up
HELD = "held"  # the artefact with what the gate judged
OPENINGS = "openings"  # the artefact with what opens the commitments of the entry of a delivery
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
_ENDS: Mapping[type[SandboxError], State] = {
    OutputWithheld: State.REFUSED,
    PolicyRefused: State.REFUSED,
    SentBack: State.REFUSED,
    Cancelled: State.CANCELLED,
    Expired: State.EXPIRED,
}


@dataclass(frozen=True, slots=True)
class Committed:
    """This party's terms, and what opens the commitment it gave."""

    opened: OpenedTerms
    commitment: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """A release with its entry and the checkpoint that covers it."""

    release: Release
    openings: tuple[Opening, ...]
    index: int
    leaf: bytes
    path: tuple[bytes, ...]
    note: bytes
    fee: Fee
    recipient: PublicKey


def reason_context(job_id: str) -> bytes:
    """Return what binds a sealed reason to its job."""
    return b"reason\0" + job_id.encode()


def commitment_to(opened: OpenedTerms) -> bytes:
    """Return what commits to terms: SM3 over the opening and the encoded terms."""
    return tagged("terms", opened.opening + wire.encode(opened.terms))


class Ledger:
    """One node's durable side."""

    def __init__(
        self, home: Path, settings: Settings, keys: NodeKeys, store: Store, engines: Callable[[], Mapping[str, str]]
    ) -> None:
        self.node_id, self.home, self.settings, self.keys, self.store = settings.node_id, home, settings, keys, store
        self._engines = engines

    # --- transactions -----------------------------------------------------------------------------------------------

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

    # --- admission --------------------------------------------------------------------------------------------------

    def facts(self, conn: Connection, call: Signed, spec: JobSpec, choices: Choices) -> Facts:
        """Return everything policy may look at."""
        now = signed.now_ms()
        standing = book.standing(conn, spec.scenario_digest)
        submitter = b""
        if standing is not None:
            applicant = PublicKey.from_bytes(standing.scenario.applicant_key)
            if applicant.key_id == call.key_id:
                signed.verify(applicant, "call", call, Call)
                submitter = standing.scenario.applicant_key
        models = quota.models(conn, spec.scenario_digest)
        earlier = _earlier(conn, spec)
        brought = earlier.plan.parties if earlier is not None else ()
        refs = {*named_datasets(spec), *choices.datasets, *(p.dataset for p in brought if p.dataset is not None)}
        return Facts(
            node_id=self.node_id,
            now_ms=now,
            standing=standing,
            submitter=submitter,
            used=quota.used(conn, spec.scenario_digest, now, models),
            own=_own(conn, {ref.code for ref in refs}),
            earlier=earlier,
            engines=self._engines(),
            conditions=self.conditions(conn, spec, standing),
            default_deadline_s=self.settings.deadline_s,
            is_tested=not self.settings.test_before_production
            or record.was_tested(conn, spec.scenario_digest, recipe(spec, earlier.recipe if earlier else b"")),
            tests_today=record.tests_since(conn, spec.scenario_digest, now - now % DAY_MS),
            offered={} if standing is None else versions.offered(conn, standing.scenario, refs),
            bundled=None if standing is None else self.bundled(conn, spec, standing.scenario),
        )

    def conditions(self, conn: Connection, spec: JobSpec, standing: Standing | None) -> Conditions:
        """Return what this node knows of itself where engines are chosen."""
        is_prepared = False
        if isinstance(spec.kind, PsiSpec) and spec.kind.output is PsiOutput.MEMBERS and standing is not None:
            refs, now = (spec.kind.left, spec.kind.right), signed.now_ms()
            offered = versions.offered(conn, standing.scenario, refs)
            left, right = (versions.pin(standing.scenario, ref, offered, now) for ref in refs)
            if left is not None and right is not None:
                name = cache_name(left.owner, right.owner, standing.digest, right.content_hash, spec.environment)
                is_prepared = cache.known(conn, name)
        settings = self.settings
        return Conditions(
            national=settings.national_algorithms,
            link_mbit=settings.link_mbit,
            cores=settings.ray_cpus,
            backend=sm2curve.BACKEND,
            seal=settings.seal,
            is_prepared=is_prepared,
        )

    def consent(self, conn: Connection, plan: Plan, submission: JobSubmission) -> Consented | None:
        """Return the person's consent, checked, where the job is about one and this node owns data."""
        if not self.owns(plan) or not _is_applicant(submission.spec):
            return None
        given = self._subject(conn, plan, submission)
        spending.check_not_withdrawn(conn, self.keys.population_key, given)
        return given

    def use_consent(self, conn: Connection, job: Job, given: Consented | None) -> tuple[Commitment, ...]:
        """Reserve one call on a consent where there is one; returns what the entry commits to it by.

        Raises:
            BudgetSpent: it was used as often as it allows.
        """
        if given is None:
            return ()
        digest = spending.reserve(conn, self.keys.node_key, job.job_id, given, job.plan.environment)
        return (Commitment("consent", digest),)

    def subject(self, job: Job) -> str:
        """Return the person a job is about; empty if it is about many, or this node has no data."""
        if not self.owns(job.plan) or not _is_applicant(job.spec):
            return ""
        with self.store.read() as conn:
            return self._subject(conn, job.plan, job.content).subject_id

    def is_withdrawn(self, job: Job) -> bool:
        """Whether the consent that a job runs on was taken back meanwhile."""
        with self.store.read() as conn:
            try:
                spending.check_not_withdrawn(conn, self.keys.population_key, self._subject(conn, job.plan, job.content))
            except PolicyRefused:
                return True
        return False

    def _subject(self, conn: Connection, plan: Plan, submission: JobSubmission) -> Consented:
        spec = submission.spec.kind
        if not isinstance(spec, ScoreSpec) or not isinstance(spec.subject, ApplicantScore):
            raise InvalidSpec("not about one person")
        return open_subject(
            self.keys.sealing,
            self.node_id,
            submission.inputs,
            spec.subject.commitment,
            book.application(conn, plan.scenario_digest),
            plan.scenario_digest,
            plan.time_ms,
        )

    def owns(self, plan: Plan) -> bool:
        """Whether this node brings data to the plan."""
        return any(party.node_id == self.node_id and party.dataset is not None for party in plan.parties)

    async def commit_terms(self, job: Job) -> Committed:
        """Return this party's terms: which rows go in, and its share of the salt."""
        rows, content_hash = 0, b""
        if self.owns(job.plan):
            with self.store.read() as conn:
                row = _dataset(conn, self._reference(job.plan))
                is_test = job.plan.environment is Environment.TEST
                rows = _twin(conn, self._reference(job.plan)).rows if is_test else row.rows
            content_hash = bytes(row.content_hash)
        opened = OpenedTerms(Terms(content_hash, rows, secrets.token_bytes(32)), secrets.token_bytes(32))
        return Committed(opened, commitment_to(opened))

    def accept(self, job: Job, terms: Committed) -> Signed:
        """Return this party's signed acceptance of a plan."""
        value = Acceptance(self.node_id, job.plan_digest, terms.commitment, signed.now_ms())
        return signed.sign(self.keys.identity, "acceptance", value)

    def grant(self, job: Job, which: str) -> Signed | None:
        """Return this owner's signed leave to reveal; None if it owns nothing in the job."""
        return self.statement(job, which) if self.owns(job.plan) else None

    def statement(self, job: Job, which: str, note: str = "") -> Signed:
        """Return this party's signed word about a job: leave to reveal, or how a held job ended here."""
        value = GrantStatement(self.node_id, job.job_id, job.plan_digest, job.plan.recipient, which, note)
        return signed.sign(self.keys.identity, "grant", value)

    # --- the line ---------------------------------------------------------------------------------------------------

    async def run(self, job: Job) -> None:
        """ADMITTED -> RUNNING."""
        await self.write(lambda conn: record.move(conn, job.job_id, State.RUNNING))

    async def spend(self, job: Job, rows: Mapping[str, int] | None = None) -> None:
        """Make the reservation final: from here on engine bytes flow.

        Args:
            rows: of every party's dataset, as committed: an intersection tells of no more people than the smallest has.

        Raises:
            OutputWithheld: it could tell of more people than the scenario may still learn of.
        """

        def spend(conn: Connection) -> None:
            quota.spend(conn, job.job_id)
            if self.owns(job.plan) and job.plan.environment is Environment.PRODUCTION:
                if epsilon_milli(job.spec):
                    privacy.spend(conn, job.job_id)
                if KINDS[job.plan.kind].reveals_in_protocol:
                    self._expect_people(conn, job, rows or {})

        await self.write(spend)

    def _expect_people(self, conn: Connection, job: Job, rows: Mapping[str, int]) -> None:
        """Count all of whom a protocol could tell by itself: its other party may break off before this owner's gate."""
        digest, now = job.plan.scenario_digest, signed.now_ms()
        bounds = self._scenario(conn, job.plan).quota
        if not (bounds.people_per_day or bounds.people_total):
            return
        content = next(party.content_hash for party in job.plan.parties if party.node_id == self.node_id)
        own = people.Brought(content, self._rows(conn, job.plan))
        owners = [party.node_id for party in job.plan.parties if party.dataset is not None]
        people.expect(conn, digest, job.job_id, own, min(own.rows, *(rows.get(one, own.rows) for one in owners)), now)
        told = people.told(conn, digest, now)
        judge_people(bounds, told.today, told.total)

    def _count_people(self, conn: Connection, job: Job, raw: RawResult) -> tuple[Evidence, ...]:
        """Count whom a job is about, and judge it; of those expected before, only who stays unknown still counts."""
        digest, now = job.plan.scenario_digest, signed.now_ms()
        bounds = self._scenario(conn, job.plan).quota
        if not (bounds.people_per_day or bounds.people_total):
            return ()
        people.settle(conn, digest, job.job_id, raw.unknown, now)
        people.count(conn, digest, raw.people, now)
        told = people.told(conn, digest, now)
        return judge_people(bounds, told.today, told.total)

    def reserve_privacy(self, conn: Connection, job: Job) -> None:
        """Reserve what the job costs of this owner's privacy budget, inside the caller's transaction.

        Raises:
            BudgetSpent: there is not so much left.
        """
        if wanted := epsilon_milli(job.spec):
            scenario = self._scenario(conn, job.plan)
            whose, budget = controller(scenario), scenario.epsilon_milli
            privacy.reserve(conn, job.job_id, job.plan.scenario_digest, whose, wanted, budget)

    async def resumed(self, job: Job, most: int) -> None:
        """Enter that a job waits for a party and will be taken up.

        Raises:
            Interrupted: it was taken up ``most`` times already.
            PolicyRefused: its scenario is not active any more.
        """

        def enter(conn: Connection) -> None:
            if _entered(conn, job.job_id).count("resumed") >= most:
                raise Interrupted(tell="a party went away too often", stage="resume")
            standing = book.standing(conn, job.plan.scenario_digest)
            if standing is None or standing.state(signed.now_ms()) != "active":
                raise PolicyRefused(tell="the scenario is not active any more", stage="resume")
            self.enter(conn, "resumed", job, {})

        await self.write(enter)

    async def can_resume(self, job: Job) -> bool:
        """Whether a job in motion can be taken up: it was being computed in parts, and nothing was released."""

        def look() -> bool:
            with self.store.read() as conn:
                is_released = "released" in _entered(conn, job.job_id)
                return not is_released and bool(artefacts.names(conn, job.job_id, SETTING))

        return job.state is State.RUNNING and await asyncio.to_thread(look)

    async def was_resumed(self, job: Job) -> bool:
        """Whether a job was taken up again after a party went away."""

        def look() -> bool:
            with self.store.read() as conn:
                return "resumed" in _entered(conn, job.job_id)

        return await asyncio.to_thread(look)

    async def is_released(self, job: Job) -> bool:
        """Whether this node's leave to let the last shares go is entered already."""

        def look() -> bool:
            with self.store.read() as conn:
                return "released" in _entered(conn, job.job_id)

        return await asyncio.to_thread(look)

    async def charge_again(self, job: Job, parts: int, of: int) -> None:
        """Count the rows of parts that are computed once more."""
        if self.owns(job.plan):
            await self.write(lambda conn: quota.add(conn, job.job_id, -(-self._rows(conn, job.plan) * parts // of)))

    def _rows(self, conn: Connection, plan: Plan) -> int:
        return int(_dataset(conn, self._reference(plan)).rows)

    async def judge(self, job: Job, raw: RawResult) -> None:
        """This owner's gate, and a note of whom the release would be about; what it found is kept for its people.

        One transaction: of two jobs at once, whose difference would be somebody, one comes second.

        Raises:
            OutputWithheld: it does not pass; nothing is noted then.
        """

        def look(conn: Connection) -> None:
            scenario = self._scenario(conn, job.plan)
            found = judge(job.plan, raw.gate_inputs, Bounds(self.settings.top_two_floor, self.settings.remainder_floor))
            others = [p for p in job.plan.parties if p.dataset is not None and p.node_id != self.node_id]
            content = tagged("partners", b"".join(sorted(party.content_hash for party in others)))
            partners = frozenset(party.dataset.code for party in others if party.dataset is not None)
            least = max(rule.min_group for rule in job.plan.outputs)
            is_compared = any(rule.class_ is OutputClass.AGGREGATE for rule in job.plan.outputs)
            is_alone = any(party.node_id == job.plan.recipient_node for party in others)
            is_real = job.plan.environment is Environment.PRODUCTION  # a twin's people are nobody's
            for subject in subjects(scenario) if is_real else ():
                asked = history.Asked(subject, job.job_id, partners, content, is_alone)
                if is_compared and (reason := history.conflict(conn, asked, raw.populations, least)):
                    raise OutputWithheld(reason, stage="gate")
                history.note(conn, asked, raw.populations, signed.now_ms())
            if is_compared and raw.populations:
                found += (Evidence("", "people by whom it differs from earlier releases: none, or", least, least),)
            if is_real:
                found += self._count_people(conn, job, raw)
            if review.is_reviewed(job.plan):
                names = artefacts.names(conn, job.job_id, SAMPLE)
                sample = self._fetch(conn, job.job_id, SAMPLE) if names else b""
                review.keep(conn, self.keys.node_key, job, scenario, found, sample)

        await self.write(look)

    async def release(self, job: Job, raw: RawResult) -> None:
        """The durable entry without which no last share may leave."""

        def enter(conn: Connection) -> None:
            if "released" in _entered(conn, job.job_id):
                return  # a held job that was cut off in the middle is taken up again
            if record.read(conn, job.job_id).state not in (State.RUNNING, State.HELD):
                raise WrongState(tell="the job has ended already")  # while its line was on the way here
            if job.plan.environment is Environment.PRODUCTION:
                review.released(conn, job.job_id, self._scenario(conn, job.plan), signed.now_ms())
            people = _people(raw)
            record.people(conn, job.job_id, people)
            if job.plan.kind in (JobKind.TRAIN, JobKind.SCORE):
                quota.settle(conn, job.job_id, people if self.owns(job.plan) else 0)
            elif "used" in raw.gate_inputs:  # else every row that went in
                quota.settle(conn, job.job_id, raw.gate_inputs["used"])
            self.enter(conn, "released", job, {"outputs": ",".join(rule.name for rule in job.plan.outputs)})
            self._challenge(conn, job)

        await self.write(enter)

    def _challenge(self, conn: Connection, job: Job) -> None:
        """Ask the recipient's node for letters of some of the people released, where letters stand behind it."""
        is_asked = self.owns(job.plan) and job.plan.recipient_node != self.node_id
        if not is_asked or job.plan.environment is not Environment.PRODUCTION:
            return
        scenario, drawn = self._scenario(conn, job.plan), []
        if _is_applicant(job.spec):
            given = self._subject(conn, job.plan, job.content)
            if given.source is ConsentSource.LETTER and challenges.is_drawn(scenario.consent.sample_permille):
                drawn = [Drawn(given.subject_id, given.evidence)]
        elif artefacts.names(conn, job.job_id, DRAWN):
            drawn = [Drawn(person) for person in json.loads(self._fetch(conn, job.job_id, DRAWN))]
        if drawn:
            challenge = challenges.ask(conn, self.keys.node_key, job, scenario, drawn, signed.now_ms())
            facts = {"challenge": challenge, "people": str(len(drawn)), "party": job.plan.recipient_node}
            self.enter_by(conn, "challenged", job, self.node_id, facts)

    async def deliver(self, job: Job, raw: RawResult) -> Delivery:
        """Gate the outputs, enter them as commitments, and sign the checkpoint that covers the entry."""

        def enter(conn: Connection) -> Delivery:
            scenario = self._scenario(conn, job.plan)
            tables = {name: self._fetch(conn, job.job_id, kept) for name, kept in raw.tables.items()}
            form = (self.bundled(conn, job.spec, scenario) or KINDS[job.plan.kind]).form
            released = release(job.plan, raw, tables, lambda name: form(job.spec, scenario, name))
            if (index := _delivered(conn, job.job_id)) is not None:  # cut off before it was sealed
                return self._delivery(conn, job, released, index, scenario)
            openings = tuple(
                Opening(output.name, secrets.token_bytes(32), sm3(output.content)) for output in released.outputs
            )
            salts = b"".join(opening.salt for opening in openings)
            artefacts.keep(conn, self._artefacts, self.keys.node_key, job.job_id, OPENINGS, salts)
            units, yuan = self._price(conn, job, raw)
            entry = self._entry(
                "delivered",
                job.job_id,
                job.plan_digest,
                job.plan.scenario_digest,
                self.node_id,
                job.plan.time_ms,
                {"recipient": job.plan.recipient, "units": str(units), "yuan": yuan, **_enclave_facts(job)},
                tuple(Commitment(o.name, sm3(o.salt + o.value)) for o in openings),
            )
            index = audit_log.append(conn, wire.encode(entry), job.job_id)
            return self._delivery(conn, job, released, index, scenario)

        return await self.write(enter)

    def _delivery(self, conn: Connection, job: Job, released: Release, index: int, scenario: Scenario) -> Delivery:
        """Return what goes to the recipient: outputs, the entry that commits to them, and a checkpoint over it."""
        leaf = audit_log.leaf(conn, index)
        salts = self._fetch(conn, job.job_id, OPENINGS)
        openings = tuple(
            Opening(output.name, salts[32 * place : 32 * place + 32], sm3(output.content))
            for place, output in enumerate(released.outputs)
        )
        facts = {fact.name: fact.value for fact in wire.decode(Entry, leaf).facts}
        fee = Fee(int(facts["units"]), facts["yuan"], index)
        note = audit_log.checkpoint(conn, self.node_id, self.keys.checkpoint)
        path = tuple(audit_log.inclusion(conn, index, audit_log.size(conn)))
        recipient = PublicKey.from_bytes(scenario.recipient.sealing_key)
        return Delivery(released, openings, index, leaf, path, note, fee, recipient)

    async def seal(self, job: Job, delivery: Delivery, cosignature: bytes) -> None:
        """Sign, seal to the recipient, and keep with the receipt. No receipt, no result."""
        receipt = Receipt(delivery.leaf, delivery.index, delivery.path, delivery.note, (cosignature,))
        content = Result(job.job_id, delivery.release.outputs, delivery.openings)
        inner = wire.encode(signed.sign(self.keys.identity, "result", content))
        context = job.job_id.encode() + job.plan.recipient.encode() + tagged("leaf", delivery.leaf)
        sealed = seal_to(delivery.recipient, inner, tagged("result-aad", context))
        path = self.home / "results" / f"{job.job_id}.sealed"

        def keep(conn: Connection) -> None:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(sealed)
                file.flush()
                os.fsync(file.fileno())
            row = {"recipient": job.plan.recipient, "receipt": receipt.to_text(), "size": len(sealed)}
            conn.execute(insert(results).values(job_id=job.job_id, **row))
            record.charge(conn, job.job_id, delivery.fee)
            record.move(conn, job.job_id, State.RELEASED)

        await self.write(keep)

    async def close(self, job: Job) -> None:
        """RUNNING -> RELEASED; of what the stages left here only what later jobs build on stays."""

        def end(conn: Connection) -> None:
            if record.read(conn, job.job_id).state is not State.RELEASED:  # the recipient's node is there already
                record.move(conn, job.job_id, State.RELEASED)
            artefacts.thin_out(conn, self._artefacts, job.job_id, KINDS[job.plan.kind].lasting | _shown(job))

        await self.write(end)

    async def stop(self, job: Job, error: SandboxError, failure: Failure) -> bool:
        """End a job early: state, public reason, entry, quota, and the owner's reason sealed; whether it ended."""

        def end(conn: Connection) -> bool:
            now = record.read(conn, job.job_id).state
            then = _ENDS.get(type(error), State.FAILED)
            is_released = "released" in _entered(conn, job.job_id)
            goes_on = then is State.FAILED or (is_released and then is not State.EXPIRED)
            if now in ENDED or (now is State.HELD and goes_on):
                # What ended stays as it ended. What is held waits for people, not for connections; and once a share may
                # have left it goes on, as long as there is time.
                return False
            if not is_released and not KINDS[job.plan.kind].reveals_in_protocol:
                conn.execute(delete(released_populations).where(released_populations.c.job_id == job.job_id))
            if now is State.ADMITTED and then is State.REFUSED:
                then = State.FAILED
            record.move(conn, job.job_id, then)
            record.fail(conn, job.job_id, failure)
            returned, is_real = quota.give_back(conn, job.job_id), job.plan.environment is Environment.PRODUCTION
            privacy.give_back(conn, job.job_id)
            salt, reason = secrets.token_bytes(32), str(error).encode()
            self.enter(
                conn,
                then.name.lower(),
                job,
                {
                    "code": failure.code,
                    "party": failure.party,
                    "stage": failure.stage,
                    "quota": "returned" if returned else "spent" if is_real else "none",
                },
                (Commitment("reason", sm3(salt + reason)),),
            )
            nonce = secrets.token_bytes(12)
            sealed = nonce + seal(self.keys.node_key, nonce, salt + reason, reason_context(job.job_id))
            conn.execute(insert(refusals).values(job_id=job.job_id, sealed=sealed))
            artefacts.thin_out(conn, self._artefacts, job.job_id, _shown(job))
            return True

        return await self.write(end)

    async def stage(self, job: Job, name: str, milliseconds: int, traffic: int) -> None:
        """Note a finished stage."""
        await self.write(lambda conn: record.stage(conn, job.job_id, name, milliseconds, traffic))

    # --- entries, artefacts, grants, trail --------------------------------------------------------------------------

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

    async def say(self, job: Job, which: str, note: str = "") -> Signed:
        """Sign and keep this party's own word about a job."""
        statement = self.statement(job, which, note)
        await self.write(lambda conn: self.file_grant(conn, job, self.node_id, which, statement))
        return statement

    def note_of(self, statement: Signed) -> str:
        """Return the note of a statement that was checked when it was stored."""
        return wire.decode(GrantStatement, statement.payload).note

    def standing_of(self, conn: Connection, job: Job) -> str:
        """Return where a job's scenario stands at this moment."""
        standing = book.standing(conn, job.plan.scenario_digest)
        return "unknown" if standing is None else standing.state(signed.now_ms())

    async def hold(self, job: Job, setting: bytes, raw: bytes, is_here: bool) -> None:
        """RUNNING -> HELD, with all it takes to go on; ``is_here``: this node's people review it."""

        def enter(conn: Connection) -> None:
            for name, content in ((SETTING, setting), (HELD, raw)):
                artefacts.keep(conn, self._artefacts, self.keys.node_key, job.job_id, name, content)
            review.hold(conn, job.job_id, is_here, self.settings.review_days, signed.now_ms())
            self.enter(conn, "held", job, {"reviewers": "here" if is_here else "elsewhere"})

        await self.write(enter)

    async def can_deliver(self, job: Job, senders: Collection[str]) -> bool:
        """Whether this node has all it takes to deliver a job alone: its own entry, and every sender's last share."""

        def look() -> bool:
            with self.store.read() as conn:
                kept = set(artefacts.names(conn, job.job_id, "share-from-"))
                return "released" in _entered(conn, job.job_id) and {f"share-from-{name}" for name in senders} <= kept

        return job.plan.recipient_node == self.node_id and await asyncio.to_thread(look)

    def sample(self, conn: Connection, job_id: str) -> str:
        """Return the sample of a held job, where there still is one."""
        if not artefacts.names(conn, job_id, SAMPLE):
            return ""
        return self._fetch(conn, job_id, SAMPLE).decode()

    async def granted(self, job: Job, which: str) -> frozenset[str]:
        """Return the parties whose grants this node holds."""

        def run() -> frozenset[str]:
            with self.store.read() as conn:
                found = conn.execute(
                    select(grants.c.party).where(grants.c.job_id == job.job_id, grants.c.round == which)
                )
                return frozenset(party for (party,) in found)

        return await asyncio.to_thread(run)

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

    async def unfinished(self, scenario_digest: bytes | None = None) -> list[str]:
        """Return the ids of jobs that have not ended."""
        with self.store.read() as conn:
            return record.unfinished(conn, scenario_digest)

    async def job(self, job_id: str) -> Job:
        """Return a job."""
        with self.store.read() as conn:
            return record.read(conn, job_id)

    def dataset(self, plan: Plan) -> Mapping[str, object]:
        """Return what a worker needs to open this party's rows: where, and the key. Empty without data."""
        if not self.owns(plan):
            return {}
        reference = self._reference(plan)
        with self.store.read() as conn:
            row = _dataset(conn, reference)
            uses = self._scenario(conn, plan).datasets
            twin = _twin(conn, reference) if plan.environment is Environment.TEST else None
        label = next(use.label for use in uses if (use.code, use.version) == (reference.code, reference.version))
        if row.wrapped_key is None:
            raise Unavailable(f"dataset {reference.code} version {reference.version} was destroyed")
        place, wrapping, wrapped = self.home / "vault", self.keys.node_key, row.wrapped_key
        if twin is not None:
            place, wrapping, wrapped = self.home / TWINS, twin_key(self.home), twin.wrapped_key
        key = vault.unwrap(wrapping, bytes(wrapped), reference.code, reference.version)
        schema = parse_schema(bytes(row.schema_json))
        directory = vault.version_dir(place, reference.code, reference.version)
        return {
            "directory": str(directory),
            "key": key.hex(),
            "key_columns": list(schema.key),
            "key_formats": list(schema.key_formats),
            "label": label,
        }

    def bundled(self, conn: Connection, spec: JobSpec, scenario: Scenario) -> Kind | None:
        """Return a job's kind as the approved bundle that it names makes it; None where it names none.

        Raises:
            Unavailable: the bundle is not here.
        """
        if not isinstance(spec.kind, ModelSpec) or spec.kind.bundle not in scenario.bundles:
            return None
        place = bundles.locate(conn, self.home, self.keys.node_key, spec.kind.bundle)
        return own_code.of(bundles.describe(place).manifest)

    async def open_enclave(self, job: Job) -> Mapping[str, str]:
        """Quote the place where merchant code will run, have the broker decide, and enter what it decided.

        Returns what a worker needs to open the bundle; empty for jobs without one. The key of the rows goes to no
        worker before this.

        Raises:
            PolicyRefused: the scenario does not let this place open rows.
        """
        if not isinstance(job.spec.kind, ModelSpec):
            return {}
        measurement, level = job.spec.kind.bundle, confined.level_of(job.plan)
        quote = await asyncio.to_thread(enclaves.quoted, self.keys, level, measurement)
        facts = {fact.name: fact.value for fact in broker.facts(quote)}
        try:
            enclaves.release(quote, self.scenario(job.plan))
        except PolicyRefused:
            await self.write(lambda conn: self.enter(conn, "key-refused", job, facts))
            raise

        def enter(conn: Connection) -> bundles.Place:
            place = bundles.locate(conn, self.home, self.keys.node_key, measurement)
            self.enter(conn, "key-released", job, facts)
            return place

        place = await self.write(enter)
        return {"path": str(place.path), "key": place.key.hex(), "runtime": quote.runtime.hex()}

    async def console(self, job: Job) -> bytes:
        """Return what a merchant's code printed while it was tried on twins.

        Raises:
            WrongState: it ran on rows; what it prints there nobody sees.
            NotFound: it printed nothing, or is still running.
        """
        if job.plan.environment is not Environment.TEST:
            raise WrongState(
                tell="what code prints is shown of runs on twins only", hint="submit the job with --test and look there"
            )
        if not await self.kept(job, confined.CONSOLE):
            raise NotFound(tell="this job has printed nothing so far")
        return await self.fetch(job, job.job_id, confined.CONSOLE)

    async def taken_versions(self, plan: Plan) -> tuple[Signed, ...]:
        """Return the owners' notices of the dataset versions that a plan takes by rule."""

        def look() -> tuple[Signed, ...]:
            with self.store.read() as conn:
                return versions.taken(conn, book.application(conn, plan.scenario_digest), plan)

        return await asyncio.to_thread(look)

    def scenario(self, plan: Plan) -> Scenario:
        """Return the scenario a job runs under."""
        with self.store.read() as conn:
            return self._scenario(conn, plan)

    def _scenario(self, conn: Connection, plan: Plan) -> Scenario:
        return pinned.for_plan(book.application(conn, plan.scenario_digest), plan)

    async def paillier_key(self, job: Job) -> bytes:
        """Return this node's private Paillier key, made when first needed, if it is the one this job uses."""
        if KINDS[job.plan.kind].key_holder(job.plan, job.spec, self.scenario(job.plan)) != self.node_id:
            return b""
        bits = job.spec.kind.key_bits if isinstance(job.spec.kind, AggregateSpec) else paillier.KEY_BITS[0]
        with self.store.read() as conn:
            held: bytes | None = conn.scalar(select(paillier_keys.c.sealed).where(paillier_keys.c.bits == bits))
        if held is None:
            made = await asyncio.to_thread(lambda: paillier.generate(bits).to_bytes())
            held = await self.write(lambda conn: self._file_key(conn, bits, made))
        return unseal(self.keys.node_key, held[:12], held[12:], _key_context(bits))

    def _file_key(self, conn: Connection, bits: int, made: bytes) -> bytes:
        """Keep a key sealed under the node key; of two made at once the first stays."""
        held = conn.scalar(select(paillier_keys.c.sealed).where(paillier_keys.c.bits == bits))
        if held is None:
            nonce = secrets.token_bytes(12)
            held = nonce + seal(self.keys.node_key, nonce, made, _key_context(bits))
            conn.execute(insert(paillier_keys).values(bits=bits, sealed=held, created_ms=signed.now_ms()))
        return bytes(held)

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

    def _reference(self, plan: Plan) -> DatasetRef:
        mine = next(party.dataset for party in plan.parties if party.node_id == self.node_id)
        if mine is None:
            raise JobFailed("this party brings no data")
        return mine

    def _price(self, conn: Connection, job: Job, raw: RawResult) -> tuple[int, str]:
        """Meter the other owners' fields by the rounded number of people; a fee must not tell more than the outputs."""
        scenario = self._scenario(conn, job.plan)
        if job.plan.environment is Environment.TEST:
            return 0, "0.00"
        fields = metered_fields(job.plan)
        people = _people(raw)
        units = tariff.units(fields, metered_rows(job.plan, people, self.settings.round_floor))
        before = record.units_before(conn, job.plan.scenario_digest)
        return units, str(tariff.price(units, before, coefficient(scenario), scenario.price.public_good))


def _shown(job: Job) -> frozenset[str]:
    """Return what outlives a job for its submitter to read: what code of his own printed, over twins."""
    return frozenset({confined.CONSOLE}) if job.plan.environment is Environment.TEST else frozenset()


def _enclave_facts(job: Job) -> dict[str, str]:
    """Return what an entry says of where a job ran; nothing of one that ran outside the jail."""
    facts = {"isolation": job.plan.isolation} if job.plan.kind in confined.KINDS else {}
    return facts | ({"bundle": job.spec.kind.bundle.hex()} if isinstance(job.spec.kind, ModelSpec) else {})


def metered_fields(plan: Plan) -> int:
    """Return how many columns of others the recipient's node pays for; a key alone counts as one.

    Where one owner's data are all there is, whoever asks is its guest: then it is that owner's columns.
    """
    brought = [party for party in plan.parties if party.dataset is not None]
    others = [party for party in brought if party.node_id != plan.recipient_node]
    return sum(max(1, len(party.fields)) for party in others or brought)


def metered_rows(plan: Plan, people: int, round_floor: int) -> int:
    """Return how many rows are paid for: as rounded as the outputs, so that a fee tells no more than they do."""
    return 1 if people == 1 else rounded(people, max(round_floor, *(rule.round_to for rule in plan.outputs)))


def _key_context(bits: int) -> bytes:
    return b"paillier\0" + str(bits).encode()


def _people(raw: RawResult) -> int:
    if "rows" in raw.gate_inputs:
        return raw.gate_inputs["rows"]
    return raw.gate_inputs.get("group.aligned", 0)


def _entered(conn: Connection, job_id: str) -> list[str]:
    return [wire.decode(Entry, leaf).what for _, leaf in audit_log.for_job(conn, job_id)]


def _delivered(conn: Connection, job_id: str) -> int | None:
    for index, leaf in audit_log.for_job(conn, job_id):
        if wire.decode(Entry, leaf).what == "delivered":
            return index
    return None


def _is_applicant(spec: JobSpec) -> bool:
    return isinstance(spec.kind, ScoreSpec) and isinstance(spec.kind.subject, ApplicantScore)


def _earlier(conn: Connection, spec: JobSpec) -> Earlier | None:
    if not (job_id := built_on(spec)):
        return None
    try:
        job = record.read(conn, job_id)
    except NotFound:
        return None
    lasts = not isinstance(job.spec.kind, PsiSpec) or keeps_alignment(job.spec)
    people, recipe = record.people_of(conn, job_id), record.recipe_of(conn, job_id)
    return Earlier(job.plan.kind, job.state, job.plan, people, lasts, recipe)


def _own(conn: Connection, codes: set[str]) -> dict[DatasetRef, OwnDataset]:
    """Return this node's versions of some datasets."""
    both = (twins.c.code == datasets.c.code) & (twins.c.version == datasets.c.version)
    columns = (datasets.c.code, datasets.c.version, datasets.c.content_hash, datasets.c.rows, datasets.c.state)
    query = select(*columns, twins.c.rows.label("twin_rows"), twins.c.wrapped_key.label("twin_key"))
    found = conn.execute(query.select_from(datasets.outerjoin(twins, both)).where(datasets.c.code.in_(codes)))
    return {
        DatasetRef(row.code, row.version): OwnDataset(
            bytes(row.content_hash), row.rows, row.state == "active", row.twin_rows if row.twin_key else 0
        )
        for row in found
    }


def _twin(conn: Connection, reference: DatasetRef) -> Row[Any]:
    same = (twins.c.code == reference.code) & (twins.c.version == reference.version)
    row = conn.execute(select(twins).where(same)).one_or_none()
    if row is None or row.wrapped_key is None:
        raise Unavailable(f"dataset {reference.code} version {reference.version} has no twin here")
    return row


def _dataset(conn: Connection, reference: DatasetRef) -> Row[Any]:
    row = conn.execute(
        select(datasets).where(datasets.c.code == reference.code, datasets.c.version == reference.version)
    ).one_or_none()
    if row is None or row.state != "active":
        raise Unavailable(f"dataset {reference.code} version {reference.version} is not here or destroyed")
    return row
