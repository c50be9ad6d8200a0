"""The durable side of a job at one node; every effect is one transaction with its audit entry."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert

from sandbox import challenges, record, review, signed, wire
from sandbox.audit import log as audit_log
from sandbox.audit.receipt import Receipt
from sandbox.books import entered, reason_context
from sandbox.catalog import artefacts
from sandbox.challenges import Drawn
from sandbox.crypto.envelope import seal_to
from sandbox.crypto.sm2 import PublicKey
from sandbox.crypto.sm3 import sm3, tagged
from sandbox.crypto.sm4 import seal
from sandbox.errors import (
    Cancelled,
    Expired,
    Interrupted,
    OutputWithheld,
    PolicyRefused,
    SandboxError,
    SentBack,
    WrongState,
)
from sandbox.gate import history
from sandbox.gate.judge import Bounds, Evidence, judge, judge_people
from sandbox.gate.release import release, rounded
from sandbox.kinds import KINDS, confined
from sandbox.kinds.drawn import DRAWN
from sandbox.materials import SAMPLE, Materials, is_applicant
from sandbox.model import (
    ENDED,
    Commitment,
    ConsentSource,
    Entry,
    Environment,
    Failure,
    Fee,
    JobKind,
    ModelSpec,
    Opening,
    OutputClass,
    Plan,
    RawResult,
    Release,
    Result,
    Scenario,
    State,
)
from sandbox.policy import book, people, privacy, quota
from sandbox.policy.admit import epsilon_milli
from sandbox.policy.scenario import coefficient, controller, subjects
from sandbox.record import Job
from sandbox.store import refusals, released_populations, results
from sandbox.usage import tariff

SETTING = "setting"  # the artefact with which an interrupted job is taken up
HELD = "held"  # the artefact with what the gate judged
OPENINGS = "openings"  # the artefact with what opens the commitments of the entry of a delivery
_ENDS: Mapping[type[SandboxError], State] = {
    OutputWithheld: State.REFUSED,
    PolicyRefused: State.REFUSED,
    SentBack: State.REFUSED,
    Cancelled: State.CANCELLED,
    Expired: State.EXPIRED,
}


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


class Ledger(Materials):
    """One node's durable side: the line of a job."""

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
            if entered(conn, job.job_id).count("resumed") >= most:
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
                is_released = "released" in entered(conn, job.job_id)
                return not is_released and bool(artefacts.names(conn, job.job_id, SETTING))

        return job.state is State.RUNNING and await asyncio.to_thread(look)

    async def was_resumed(self, job: Job) -> bool:
        """Whether a job was taken up again after a party went away."""

        def look() -> bool:
            with self.store.read() as conn:
                return "resumed" in entered(conn, job.job_id)

        return await asyncio.to_thread(look)

    async def is_released(self, job: Job) -> bool:
        """Whether this node's leave to let the last shares go is entered already."""

        def look() -> bool:
            with self.store.read() as conn:
                return "released" in entered(conn, job.job_id)

        return await asyncio.to_thread(look)

    async def charge_again(self, job: Job, parts: int, of: int) -> None:
        """Count the rows of parts that are computed once more."""
        if self.owns(job.plan):
            await self.write(lambda conn: quota.add(conn, job.job_id, -(-self._rows(conn, job.plan) * parts // of)))

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
            if "released" in entered(conn, job.job_id):
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
        if is_applicant(job.spec):
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
            is_released = "released" in entered(conn, job.job_id)
            goes_on = then is State.FAILED or (is_released and then is not State.EXPIRED)
            if now in ENDED or (now is State.HELD and goes_on):
                # What ended stays as it ended. What is held waits for people, not for connections; and once a share may
                # have left it goes on, as long as there is time.
                return False
            if not is_released and not KINDS[job.plan.kind].reveals_in_protocol:
                conn.execute(delete(released_populations).where(released_populations.c.job_id == job.job_id))
            if now is State.ADMITTED and then is State.REFUSED:
                record.move(conn, job.job_id, State.RUNNING)  # at the party that refused, and so for this one as well
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
                return "released" in entered(conn, job.job_id) and {f"share-from-{name}" for name in senders} <= kept

        return job.plan.recipient_node == self.node_id and await asyncio.to_thread(look)

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


def _people(raw: RawResult) -> int:
    if "rows" in raw.gate_inputs:
        return raw.gate_inputs["rows"]
    return raw.gate_inputs.get("group.aligned", 0)


def _delivered(conn: Connection, job_id: str) -> int | None:
    for index, leaf in audit_log.for_job(conn, job_id):
        if wire.decode(Entry, leaf).what == "delivered":
            return index
    return None
