"""A job's row: made, moved, and shown. Every function works inside the caller's transaction."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from sandbox import pinned, signed, wire
from sandbox.crypto.sm3 import tagged
from sandbox.errors import NotFound, WrongState
from sandbox.model import (
    ENDED,
    MOVES,
    Call,
    DatasetRef,
    Environment,
    Failure,
    Fee,
    JobKind,
    JobSpec,
    JobSubmission,
    JobView,
    Plan,
    Signed,
    Stage,
    State,
    TrailEntry,
    TrailReport,
)
from sandbox.store import jobs, stages, trails


@dataclass(frozen=True, slots=True)
class Job:
    """One job as this node keeps it: what was asked, what was planned, and the exact bytes of both."""

    job_id: str
    submission: Signed
    spec: JobSpec
    content: JobSubmission
    plan: Plan
    plan_bytes: bytes
    plan_digest: bytes
    state: State
    created_ms: int

    @property
    def parties(self) -> tuple[str, ...]:
        """Node ids, proposer first."""
        return tuple(party.node_id for party in self.plan.parties)


def create(conn: Connection, submission: Signed, plan: Plan, plan_bytes: bytes, recipe: bytes) -> Job:
    """Make the row of an admitted job."""
    content = contents(submission)
    conn.execute(
        insert(jobs).values(
            job_id=plan.job_id,
            submitter=submission.key_id,
            request_id=content.spec.request_id,
            kind=int(plan.kind),
            state=int(State.ADMITTED),
            scenario_digest=plan.scenario_digest,
            submission=wire.encode(submission),
            submission_digest=plan.submission_digest,
            body_digest=body_digest(submission),
            plan=plan_bytes,
            plan_digest=tagged("plan", plan_bytes),
            created_ms=signed.now_ms(),
            environment=int(plan.environment),
            recipe=recipe,
        )
    )
    return read(conn, plan.job_id)


def contents(submission: Signed) -> JobSubmission:
    """Return what a signed SubmitJob call asks for."""
    return wire.decode(JobSubmission, wire.decode(Call, submission.payload).body)


def body_digest(submission: Signed) -> bytes:
    """Return the digest of a call's body: equal for a retry, which re-signs with a fresh nonce."""
    return tagged("body", wire.decode(Call, submission.payload).body)


def job_id(submitter: str, request_id: str) -> str:
    """Return the id a submission has at every node."""
    return tagged("job", submitter.encode() + b"\0" + request_id.encode())[:16].hex()


def read(conn: Connection, job_id: str) -> Job:
    """Return a job; ``NotFound`` if there is none."""
    row = _row(conn, job_id)
    submission = signed.read_signed(row.submission)
    content, plan = contents(submission), wire.decode(Plan, row.plan)
    brought = (party.dataset for party in plan.parties if party.dataset is not None)
    return Job(
        row.job_id,
        submission,
        pinned.spec_of(content.spec, brought),
        content,
        plan,
        bytes(row.plan),
        bytes(row.plan_digest),
        State(row.state),
        row.created_ms,
    )


def known_body(conn: Connection, job_id: str) -> bytes | None:
    """Return the body digest of a job that exists already."""
    found = conn.scalar(select(jobs.c.body_digest).where(jobs.c.job_id == job_id))
    return None if found is None else bytes(found)


def submitted_by(conn: Connection, job_id: str) -> str:
    """Return the key id of a job's submitter; empty if the job was refused and never made."""
    return conn.scalar(select(jobs.c.submitter).where(jobs.c.job_id == job_id)) or ""


def move(conn: Connection, job_id: str, then: State) -> State:
    """Move a job to ``then`` and return where it was.

    Raises:
        WrongState: the table of states has no such move.
    """
    now = State(_row(conn, job_id).state)
    if then not in MOVES[now]:
        raise WrongState(f"{now.name} -> {then.name}", tell=f"the job is {now.name.lower()} already")
    ended = signed.now_ms() if then in ENDED else None
    conn.execute(update(jobs).where(jobs.c.job_id == job_id).values(state=int(then), ended_ms=ended))
    return now


def fail(conn: Connection, job_id: str, failure: Failure) -> None:
    """Store why a job ended."""
    conn.execute(update(jobs).where(jobs.c.job_id == job_id).values(failure=wire.encode(failure)))


def people(conn: Connection, job_id: str, count: int) -> None:
    """Store how many people a job was about; for this node only."""
    conn.execute(update(jobs).where(jobs.c.job_id == job_id).values(people=count))


def people_of(conn: Connection, job_id: str) -> int:
    """Return how many people a job was about."""
    return int(_row(conn, job_id).people)


def recipe_of(conn: Connection, job_id: str) -> bytes:
    """Return the digest of what a job asked."""
    return bytes(_row(conn, job_id).recipe)


def was_tested(conn: Connection, scenario_digest: bytes, recipe: bytes) -> bool:
    """Whether a recipe was released on twins under a scenario."""
    green = (jobs.c.environment == int(Environment.TEST)) & (jobs.c.state == int(State.RELEASED))
    same = (jobs.c.recipe == recipe) & (jobs.c.scenario_digest == scenario_digest)
    return conn.scalar(select(jobs.c.job_id).where(same, green).limit(1)) is not None


def tests_since(conn: Connection, scenario_digest: bytes, since_ms: int) -> int:
    """Return how many jobs of a scenario ran on twins since a moment."""
    mine = (jobs.c.scenario_digest == scenario_digest) & (jobs.c.environment == int(Environment.TEST))
    return int(conn.scalar(select(func.count()).select_from(jobs).where(mine, jobs.c.created_ms >= since_ms)) or 0)


def units_before(conn: Connection, scenario_digest: bytes) -> int:
    """Return the units already charged under a scenario: tiers are cumulative."""
    total = conn.scalar(
        select(func.coalesce(func.sum(jobs.c.fee_units), 0)).where(jobs.c.scenario_digest == scenario_digest)
    )
    return int(total or 0)


def charge(conn: Connection, job_id: str, fee: Fee) -> None:
    """Store what a job cost."""
    conn.execute(
        update(jobs).where(jobs.c.job_id == job_id).values(fee_units=fee.units, fee_yuan=fee.yuan, fee_entry=fee.entry)
    )


def stage(conn: Connection, job_id: str, name: str, milliseconds: int, traffic: int) -> None:
    """Add a finished stage; one that is gone through again replaces the first."""
    again = conn.execute(
        update(stages)
        .where(stages.c.job_id == job_id, stages.c.name == name)
        .values(milliseconds=milliseconds, bytes=traffic)
    )
    if again.rowcount:
        return
    position = conn.scalar(select(func.count()).select_from(stages).where(stages.c.job_id == job_id)) or 0
    conn.execute(
        insert(stages).values(job_id=job_id, position=position, name=name, milliseconds=milliseconds, bytes=traffic)
    )


def trail(conn: Connection, job_id: str, party: str, report: Signed) -> None:
    """Store the entries a party says it made."""
    conn.execute(trails.delete().where(trails.c.job_id == job_id, trails.c.party == party))
    conn.execute(insert(trails).values(job_id=job_id, party=party, report=wire.encode(report)))


def using(conn: Connection, reference: DatasetRef) -> list[str]:
    """Return the ids of jobs that used a dataset version."""
    found = conn.execute(select(jobs.c.job_id, jobs.c.plan))
    return [
        job_id for job_id, plan in found if any(party.dataset == reference for party in wire.decode(Plan, plan).parties)
    ]


def unfinished(conn: Connection, scenario_digest: bytes | None = None) -> list[str]:
    """Return the ids of jobs that have not ended, of one scenario or all."""
    query = select(jobs.c.job_id).where(jobs.c.state.notin_([int(state) for state in ENDED]))
    if scenario_digest is not None:
        query = query.where(jobs.c.scenario_digest == scenario_digest)
    return [found for (found,) in conn.execute(query)]


def mine(conn: Connection, submitter: str, after: str, limit: int) -> list[str]:
    """Return a page of a submitter's job ids, or of everybody's if none is named, newest first."""
    query = select(jobs.c.job_id)
    if submitter:
        query = query.where(jobs.c.submitter == submitter)
    if after:
        start = _row(conn, after)
        query = query.where(
            (jobs.c.created_ms < start.created_ms)
            | ((jobs.c.created_ms == start.created_ms) & (jobs.c.job_id > start.job_id))
        )
    return [found for (found,) in conn.execute(query.order_by(jobs.c.created_ms.desc(), jobs.c.job_id).limit(limit))]


def view(conn: Connection, job_id: str, stage_now: str = "", in_full: bool = False) -> JobView:
    """Return a job as its submitter may see it: before release no sizes, durations roughly; then sizes roughly.

    The bytes between parties follow the number of rows, which leaves rounded: exact ones are for the operator only.
    """
    row = _row(conn, job_id)
    plan, state = _plan(bytes(row.plan)), State(row.state)
    released = state is State.RELEASED
    done = conn.execute(select(stages).where(stages.c.job_id == job_id).order_by(stages.c.position))
    shown = [
        Stage(
            s.name,
            s.milliseconds if released else 100 * round(s.milliseconds / 100),
            _shown(s.bytes, in_full) if released else 0,
        )
        for s in done
    ]
    if stage_now and state not in ENDED:
        shown.append(Stage(stage_now, 0, 0))
    entries: list[TrailEntry] = []
    for (report,) in conn.execute(select(trails.c.report).where(trails.c.job_id == job_id).order_by(trails.c.party)):
        entries.extend(_report(bytes(report)).entries)
    return JobView(
        job_id=job_id,
        kind=JobKind(row.kind),
        state=state,
        created_ms=row.created_ms,
        stages=tuple(shown),
        failure=wire.decode(Failure, row.failure) if row.failure else None,
        plan_digest=bytes(row.plan_digest),
        engine=plan.engine,
        isolation=plan.isolation,
        fee=Fee(row.fee_units, row.fee_yuan, row.fee_entry) if released and row.fee_units is not None else None,
        trail=tuple(entries),
        request_id=row.request_id,
        submitter=row.submitter,
        parties=tuple(party.node_id for party in plan.parties),
        deadline_s=plan.deadline_s,
        environment=plan.environment,
    )


def _shown(size: int, in_full: bool) -> int:
    return size if in_full else int(float(f"{size:.0e}"))


@functools.lru_cache(maxsize=256)
def _plan(stored: bytes) -> Plan:
    return wire.decode(Plan, stored)


@functools.lru_cache(maxsize=256)
def _report(stored: bytes) -> TrailReport:
    return wire.decode(TrailReport, signed.read_signed(stored).payload)


def _row(conn: Connection, job_id: str) -> Row[Any]:
    row = conn.execute(select(jobs).where(jobs.c.job_id == job_id)).one_or_none()
    if row is None:
        raise NotFound()
    return row
