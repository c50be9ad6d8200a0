"""What a job may use at one node: the facts that policy looks at, consents, rows, bundles, keys.

Security:  keys of rows leave for a worker only after the broker decided, where code of a merchant's runs beside them.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from sandbox import pinned, record, signed, wire
from sandbox.books import Books
from sandbox.catalog import artefacts, bundles, cache, vault
from sandbox.catalog.schema import parse_schema
from sandbox.catalog.test_rows import TWINS, twin_key
from sandbox.crypto import sm2curve, sm4
from sandbox.crypto.sm2 import PublicKey
from sandbox.crypto.sm3 import tagged
from sandbox.crypto.sm4 import seal, unseal
from sandbox.errors import (
    IntegrityFailed,
    InvalidSpec,
    JobFailed,
    NotFound,
    PolicyRefused,
    ProtocolFailed,
    Unavailable,
    WrongState,
)
from sandbox.kinds import KINDS, confined, joint
from sandbox.kinds import model as own_code
from sandbox.kinds.kind import Conditions, Kind
from sandbox.kinds.prepared import cache_name
from sandbox.kinds.psi import keeps_alignment
from sandbox.model import (
    Acceptance,
    AggregateSpec,
    ApplicantScore,
    Call,
    Commitment,
    DatasetRef,
    Environment,
    JobSpec,
    JobSubmission,
    ModelSpec,
    OpenedTerms,
    Plan,
    PsiOutput,
    PsiSpec,
    Scenario,
    ScoreSpec,
    Signed,
    Terms,
)
from sandbox.mpc import paillier
from sandbox.policy import book, enclaves, quota, spending, versions
from sandbox.policy.admit import Choices, Earlier, Facts, OwnDataset, built_on, named_datasets
from sandbox.policy.consent import Consented, open_subject
from sandbox.policy.recipe import recipe
from sandbox.policy.scenario import Standing
from sandbox.record import Job
from sandbox.store import datasets, paillier_keys, twins
from sandbox.tee_sim import broker

SAMPLE = "sample"  # the artefact with a sample, for reviewers, of what would leave


@dataclass(frozen=True, slots=True)
class Committed:
    """This party's terms, and what opens the commitment it gave."""

    opened: OpenedTerms
    commitment: bytes


def commitment_to(opened: OpenedTerms) -> bytes:
    """Return what commits to terms: SM3 over the opening and the encoded terms."""
    return tagged("terms", opened.opening + wire.encode(opened.terms))


class Materials(Books):
    """What this node knows and keeps, as far as a job may use it."""

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
        asked = recipe(spec, earlier.recipe if earlier is not None else b"")
        refs = {*named_datasets(spec), *choices.datasets, *(p.dataset for p in brought if p.dataset is not None)}
        return Facts(
            node_id=self.node_id,
            now_ms=now,
            standing=standing,
            submitter=submitter,
            used=quota.used(conn, spec.scenario_digest, now, models),
            own=_own(conn, {ref.code for ref in refs}),
            earlier=earlier,
            recipe=asked,
            engines=self._engines(),
            conditions=self.conditions(conn, spec, standing),
            default_deadline_s=self.settings.deadline_s,
            is_tested=not self.settings.test_before_production or record.was_tested(conn, spec.scenario_digest, asked),
            tests_today=record.tests_since(conn, spec.scenario_digest, now - now % signed.DAY_MS),
            offered={} if standing is None else versions.offered(conn, standing.scenario, refs),
            bundled=None if standing is None else self.bundled(conn, spec, standing.scenario),
        )

    def conditions(self, conn: Connection, spec: JobSpec, standing: Standing | None) -> Conditions:
        """Return what this node knows of itself where engines are chosen."""
        is_prepared, kind = False, spec.kind if spec.environment is Environment.PRODUCTION else None
        if isinstance(kind, PsiSpec) and kind.output is PsiOutput.MEMBERS and standing is not None:
            refs, now = (kind.left, kind.right), signed.now_ms()
            offered = versions.offered(conn, standing.scenario, refs)
            left, right = (versions.pin(standing.scenario, ref, offered, now) for ref in refs)
            if left is not None and right is not None:
                name = cache_name(left.owner, right.owner, standing.digest, right.content_hash)
                is_prepared = cache.known(conn, name)
        settings = self.settings
        return Conditions(
            national=settings.national_algorithms,
            link_mbit=settings.link_mbit,
            cores=settings.ray_cpus,
            backend=sm2curve.BACKEND,
            seal="sm4/openssl" if (settings.seal, sm4.BACKEND) == ("sm4", "openssl") else settings.seal,
            is_prepared=is_prepared,
        )

    def consent(self, conn: Connection, plan: Plan, submission: JobSubmission) -> Consented | None:
        """Return the person's consent, checked, where the job is about one and this node owns data."""
        if not self.owns(plan) or not is_applicant(submission.spec):
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
        if not self.owns(job.plan) or not is_applicant(job.spec):
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
        if not isinstance(job.spec.kind, ModelSpec) or not self.runs_code(job):
            return {}
        measurement, level = job.spec.kind.bundle, confined.level_of(job.plan)
        quote = await asyncio.to_thread(enclaves.quoted, self.keys, level, measurement)
        facts = {fact.name: fact.value for fact in broker.facts(quote)}
        try:
            enclaves.release(quote, self.scenario(job.plan), job.spec)
        except PolicyRefused:
            await self.write(lambda conn: self.enter(conn, "key-refused", job, facts))
            raise

        def enter(conn: Connection) -> bundles.Place:
            place = bundles.locate(conn, self.home, self.keys.node_key, measurement)
            self.enter(conn, "key-released", job, facts)
            return place

        place = await self.write(enter)
        return {"path": str(place.path), "key": place.key.hex(), "runtime": quote.runtime.hex()}

    def runs_code(self, job: Job) -> bool:
        """Whether it is in this node's jail that a job's code or statement runs."""
        if job.plan.kind not in confined.KINDS:
            return False
        return self.node_id == (joint.host(job.spec, self.scenario(job.plan)) or job.plan.parties[0].node_id)

    async def quote(self, job: Job, nonce: bytes, key: bytes) -> bytes:
        """Quote the enclave of a job: its key was made by the worker that runs it."""
        level, program = confined.level_of(job.plan), confined.program_of(job.spec)
        return await asyncio.to_thread(enclaves.quote, self.keys, level, nonce, program, key)

    async def grant_rows(self, job: Job, root: PublicKey, text: bytes, nonce: bytes, key: bytes) -> bytes:
        """Decide whether the other owner's enclave may open this owner's rows, and enter what was decided.

        Args:
            root: the identity key of the enclave's node.
            text: its quote.
            nonce: what this node's worker asked it with.
            key: the data key, which is returned sealed for the enclave.

        Raises:
            PolicyRefused: it may not.
            ProtocolFailed: this is no quote of that node.
        """
        with self.store.read() as conn:
            standing = book.standing(conn, job.plan.scenario_digest)
        if standing is None:
            raise JobFailed("the scenario is not here any more")
        scenario, given = standing.scenario, standing.approved_by.get(self.node_id)
        is_accepted = scenario.accepts_simulated and given is not None and given.simulated
        facts = {"enclave": scenario.enclave}
        try:
            quote = await asyncio.to_thread(enclaves.read, text, nonce, root)
            facts |= {fact.name: fact.value for fact in broker.facts(quote)}
            grant = broker.grant_key(key, quote, enclaves.approved(scenario, job.spec, is_accepted))
        except (InvalidSpec, IntegrityFailed) as error:
            await self.write(lambda conn: self.enter(conn, "key-refused", job, facts))
            raise ProtocolFailed(
                f"sent no quote of its own: {error}", party=scenario.enclave, stage="compute"
            ) from None
        except PolicyRefused:
            await self.write(lambda conn: self.enter(conn, "key-refused", job, facts))
            raise
        await self.write(lambda conn: self.enter(conn, "key-released", job, facts))
        return grant.sealed

    async def wiped(self, job: Job) -> None:
        """Enter that nothing is left of where a job's code ran: its worker has ended in order."""
        facts = {"scratch": "wiped", "program": confined.program_of(job.spec).hex(), "isolation": job.plan.isolation}
        await self.write(lambda conn: self.enter(conn, "enclave-wiped", job, facts))

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

    def _reference(self, plan: Plan) -> DatasetRef:
        mine = next(party.dataset for party in plan.parties if party.node_id == self.node_id)
        if mine is None:
            raise JobFailed("this party brings no data")
        return mine

    def _rows(self, conn: Connection, plan: Plan) -> int:
        return int(_dataset(conn, self._reference(plan)).rows)

    def standing_of(self, conn: Connection, job: Job) -> str:
        """Return where a job's scenario stands at this moment."""
        standing = book.standing(conn, job.plan.scenario_digest)
        return "unknown" if standing is None else standing.state(signed.now_ms())

    def sample(self, conn: Connection, job_id: str) -> str:
        """Return the sample of a held job, where there still is one."""
        if not artefacts.names(conn, job_id, SAMPLE):
            return ""
        return self._fetch(conn, job_id, SAMPLE).decode()


def _key_context(bits: int) -> bytes:
    return b"paillier\0" + str(bits).encode()


def is_applicant(spec: JobSpec) -> bool:
    """Whether a job is about one person."""
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
