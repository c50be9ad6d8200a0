"""What the gate found, and what people decide on it: evidence, holds and decisions. Inside the caller's transaction.

    judged    keep(evidence)                    for every job that passed the gate here
    held      hold(job, until)                  where a rule says ``reviewed``: HELD, until two people here approve
    decided   decide(signed decision)           approve, refuse or send back; over exactly the evidence that was shown

Two different people must approve at every data owner whose organisation is not the author's; neither may be the author,
the recipient, or of the author's organisation. What a decision signs is the digest of the evidence page: whoever shows
other evidence has no decision on it.

Security:  evidence holds exact numbers of this owner's data: sealed under the node key, shown to its own people only.
Errors:    ``PolicyRefused`` for who may not decide, ``WrongState`` for what is not held or has changed, ``NotFound``.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from sandbox import record, registry, signed, wire
from sandbox.crypto.sm3 import sm3, tagged
from sandbox.crypto.sm4 import seal, unseal
from sandbox.errors import NotFound, PolicyRefused, WrongState
from sandbox.gate.judge import Evidence
from sandbox.model import (
    CheckView,
    Decision,
    DecisionView,
    Environment,
    JobKind,
    ModelSpec,
    Plan,
    ReleaseView,
    ReviewDecision,
    ReviewView,
    Scenario,
    Signed,
    State,
)
from sandbox.policy import book
from sandbox.policy.scenario import controller, same_name, subjects
from sandbox.record import Job
from sandbox.registry import Registered
from sandbox.store import decisions, evidences, jobs, released_jobs, reviews

APPROVALS = 2
MOST_CHECKS = 4096  # of a page; the worst of each kind of check come first
MOST_HISTORY = 100
MOST_SAMPLE = 65536  # characters
MOST_LINES, MOST_LINE = 256, 500  # of what was asked


@dataclass(frozen=True, slots=True)
class Hold:
    """A held job as this node keeps it."""

    job_id: str
    is_here: bool  # whether this node's reviewers decide
    held_ms: int
    due_ms: int
    is_reminded: bool


def is_reviewed(plan: Plan) -> bool:
    """Whether people have to look at a job's outputs before they leave; nobody has to where no row is anybody's."""
    return plan.environment is Environment.PRODUCTION and any(rule.reviewed for rule in plan.outputs)


# --- evidence ---------------------------------------------------------------------------------------------------------


def keep(
    conn: Connection, node_key: bytes, job: Job, scenario: Scenario, found: Sequence[Evidence], sample: bytes
) -> None:
    """Keep what the gate found on a job, with what was released before; found again, it replaces the first.

    Args:
        sample: of what would leave, where the job left one at this node; only its digest is kept here.
    """
    shown = sorted(found, key=lambda one: (one.check.partition(".")[0], abs(one.found - one.bound)))[:MOST_CHECKS]
    page = {
        "checks": [asdict(one) for one in shown],
        "history": _history(conn, job.job_id, scenario),
        "sample": sm3(sample).hex() if sample else "",
    }
    text = json.dumps(page, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    nonce = secrets.token_bytes(12)
    conn.execute(delete(evidences).where(evidences.c.job_id == job.job_id))
    sealed = nonce + seal(node_key, nonce, text, _context(job.job_id))
    conn.execute(insert(evidences).values(job_id=job.job_id, sealed=sealed))


def forget(conn: Connection, job_ids: Sequence[str]) -> None:
    """Remove what was kept about jobs: their data were destroyed."""
    conn.execute(delete(evidences).where(evidences.c.job_id.in_(job_ids)))


def evidence(conn: Connection, node_key: bytes, job_id: str) -> bytes:
    """Return a job's evidence page as it was kept; an empty page where this node owns nothing in it."""
    sealed = conn.scalar(select(evidences.c.sealed).where(evidences.c.job_id == job_id))
    if sealed is None:
        return b'{"checks":[],"history":[],"sample":""}'
    return unseal(node_key, sealed[:12], sealed[12:], _context(job_id))


def evidence_digest(plan_digest: bytes, page: bytes) -> bytes:
    """Return what a decision signs."""
    return tagged("evidence", plan_digest + page)


def released(conn: Connection, job_id: str, scenario: Scenario, now_ms: int) -> None:
    """Note that a job's outputs leave, under everybody in whose hands answers could come together."""
    for subject in subjects(scenario):
        conn.execute(insert(released_jobs).values(subject=subject, job_id=job_id, time_ms=now_ms))


def _history(conn: Connection, job_id: str, scenario: Scenario) -> list[dict[str, Any]]:
    """Return what was released before to the same merchant, or to one under the same control; the newest first."""
    found = conn.execute(
        select(jobs.c.job_id, jobs.c.plan, jobs.c.scenario_digest, released_jobs.c.time_ms)
        .join(released_jobs, released_jobs.c.job_id == jobs.c.job_id)
        .where(released_jobs.c.subject.in_(subjects(scenario)), jobs.c.job_id != job_id)
        .distinct()
        .order_by(released_jobs.c.time_ms.desc())
        .limit(MOST_HISTORY)
    )
    told = []
    for row in found:
        plan = wire.decode(Plan, row.plan)
        told.append(
            {
                "job_id": row.job_id,
                "kind": int(plan.kind),
                "merchant": book.application(conn, row.scenario_digest).merchant,
                "time_ms": row.time_ms,
                "outputs": [rule.name for rule in plan.outputs],
            }
        )
    return told


# --- holds ------------------------------------------------------------------------------------------------------------


def hold(conn: Connection, job_id: str, is_here: bool, days: int, now_ms: int) -> None:
    """RUNNING -> HELD."""
    record.move(conn, job_id, State.HELD)
    conn.execute(
        insert(reviews).values(job_id=job_id, is_here=is_here, held_ms=now_ms, due_ms=now_ms + days * signed.DAY_MS)
    )


def held(conn: Connection) -> list[Hold]:
    """Return the jobs that are held at this moment."""
    found = conn.execute(
        select(reviews).join(jobs, jobs.c.job_id == reviews.c.job_id).where(jobs.c.state == int(State.HELD))
    )
    return [_hold(row) for row in found]


def hold_of(conn: Connection, job_id: str) -> Hold:
    """Return how a job is held, or was; ``NotFound`` if it never was."""
    row = conn.execute(select(reviews).where(reviews.c.job_id == job_id)).one_or_none()
    if row is None:
        raise NotFound()
    return _hold(row)


def reminded(conn: Connection, job_id: str, now_ms: int) -> None:
    """Note that the reviewers were reminded."""
    conn.execute(update(reviews).where(reviews.c.job_id == job_id).values(reminded_ms=now_ms))


def is_due_soon(hold: Hold, now_ms: int) -> bool:
    """Whether more than half of the time has passed."""
    return now_ms - hold.held_ms > (hold.due_ms - hold.held_ms) // 2


# --- decisions --------------------------------------------------------------------------------------------------------


def decide(
    conn: Connection, node_key: bytes, job: Job, decision: Signed, reviewer: Registered, authors: Set[str]
) -> ReviewDecision:
    """Store one reviewer's decision after checking that it is this person's to take.

    Args:
        authors: organisations whose people must not decide.

    Raises:
        WrongState: the job is not held for review here, or the evidence is not what was looked at.
        PolicyRefused: the reviewer is the author or the recipient, of an author's organisation, or decided before.
    """
    value = signed.verify(reviewer.identity, "review", decision, ReviewDecision)
    if job.state is not State.HELD or not hold_of(conn, job.job_id).is_here:
        raise WrongState(tell="this job is not held for review here")
    page = evidence_digest(job.plan_digest, evidence(conn, node_key, job.job_id))
    if (value.job_id, value.plan_digest, value.evidence_digest) != (job.job_id, job.plan_digest, page):
        raise WrongState(
            tell="the evidence is not what was looked at", hint="look again (sandbox review show), then decide"
        )
    if "reviewer" not in reviewer.roles:
        raise PolicyRefused(tell="your key has not the role reviewer")
    check_reader(conn, job, reviewer, authors)
    taken = conn.execute(select(decisions).where(decisions.c.job_id == job.job_id)).all()
    if any(reviewer.key_id == one.key_id or reviewer.name == one.reviewer for one in taken):
        raise PolicyRefused(tell="you have decided on this job already", hint="another reviewer has to decide as well")
    row = {"reviewer": reviewer.name, "record": wire.encode(decision)}
    conn.execute(insert(decisions).values(job_id=job.job_id, key_id=reviewer.key_id, **row))
    return value


def ending(conn: Connection, job_id: str) -> ReviewDecision | None:
    """Return the decision that ends a job, if there is one: a refusal before what is sent back."""
    found = [one for _, _, one in _decisions(conn, job_id) if one.decision is not Decision.APPROVE]
    return min(found, key=lambda one: one.decision, default=None)


def approvals(conn: Connection, job: Job, authors: Set[str]) -> int:
    """Return how many people approved who may still do so: a key that was revoked since does not count."""
    count = 0
    for key_id, _, one in _decisions(conn, job.job_id):
        reviewer = registry.find_key(conn, key_id)
        if one.decision is not Decision.APPROVE or reviewer.revoked or "reviewer" not in reviewer.roles:
            continue
        try:
            check_reader(conn, job, reviewer, authors)
        except PolicyRefused:
            continue  # of an author's organisation by now
        count += 1
    return count


def authors(conn: Connection, job: Job) -> frozenset[str]:
    """Return the organisations that a job's scenario names as its authors."""
    scenario = book.application(conn, job.plan.scenario_digest)
    return frozenset({same_name(scenario.merchant), controller(scenario)})


def check_reader(conn: Connection, job: Job, reader: Registered, authors: Set[str]) -> None:
    """Refuse the evidence, which is exact, and every decision, to whoever stands on the author's side.

    Raises:
        PolicyRefused: the author, the recipient, or somebody of an author's organisation.
    """
    scenario = book.application(conn, job.plan.scenario_digest)
    identity = reader.identity.to_bytes()
    if reader.key_id == job.submission.key_id or identity == scenario.applicant_key:
        raise PolicyRefused(tell="the author of a job cannot review it")
    if identity == scenario.recipient.identity_key:
        raise PolicyRefused(tell="the recipient of a result cannot review it")
    if same_name(reader.organisation) in authors:
        raise PolicyRefused(tell="the evidence is not for people of the author's organisation")


# --- what people see --------------------------------------------------------------------------------------------------


def listed(conn: Connection, node_key: bytes, after: str, limit: int, now_ms: int) -> list[ReviewView]:
    """Return a page of what this node's reviewers have to decide, what expires first on top."""
    places = sorted((hold.due_ms, hold.job_id) for hold in held(conn) if hold.is_here)
    if after:
        last = hold_of(conn, after)
        places = [place for place in places if place > (last.due_ms, last.job_id)]
    return [view(conn, node_key, job_id, now_ms) for _, job_id in places[:limit]]


def view(conn: Connection, node_key: bytes, job_id: str, now_ms: int, sample: str = "") -> ReviewView:
    """Return everything a reviewer needs to decide on a job.

    Args:
        sample: of what would leave, if this node still has one.
    """
    held_here = hold_of(conn, job_id)
    job = record.read(conn, job_id)
    scenario = book.application(conn, job.plan.scenario_digest)
    page = evidence(conn, node_key, job_id)
    found = json.loads(page)
    return ReviewView(
        job_id=job_id,
        kind=job.plan.kind,
        state=job.state.name.lower(),
        plan_digest=job.plan_digest,
        evidence_digest=evidence_digest(job.plan_digest, page),
        scenario=scenario.name,
        scenario_digest=job.plan.scenario_digest,
        purpose=scenario.purpose,
        merchant=scenario.merchant,
        controller=scenario.controller,
        recipient=job.plan.recipient,
        recipient_node=job.plan.recipient_node,
        outputs=job.plan.outputs,
        parties=job.parties,
        asked=_asked(job),
        reveals=job.plan.reveals,
        checks=tuple(
            CheckView(one["output"] or "-", one["check"], str(one["bound"]), str(one["found"]))
            for one in found["checks"]
        ),
        history=tuple(
            ReleaseView(one["job_id"], JobKind(one["kind"]), one["merchant"], one["time_ms"], tuple(one["outputs"]))
            for one in found["history"]
        ),
        decisions=tuple(
            DecisionView(name, one.decision, one.reason, one.time_ms) for _, name, one in _decisions(conn, job_id)
        ),
        approvals_needed=APPROVALS,
        held_ms=held_here.held_ms,
        due_ms=held_here.due_ms,
        is_due_soon=is_due_soon(held_here, now_ms),
        sample=sample[:MOST_SAMPLE],
    )


def _asked(job: Job) -> tuple[str, ...]:
    """Return what the submitter asked for, as it stands in the spec, and whose columns go in."""
    spec = [line for line in str(wire.to_proto(job.spec.kind)).splitlines() if line.strip()]
    if isinstance(job.spec.kind, ModelSpec):  # bytes, which people compare in hexadecimal
        spec = [line for line in spec if not line.startswith("bundle:")]
        spec.insert(0, f"bundle: {job.spec.kind.bundle.hex()}")
    used = [
        f"{party.node_id}: {party.dataset.code} {party.dataset.version}: {', '.join(party.fields) or 'keys only'}"
        for party in job.plan.parties
        if party.dataset is not None
    ]
    return tuple(line[:MOST_LINE] for line in (*used, *spec)[:MOST_LINES])


def _decisions(conn: Connection, job_id: str) -> list[tuple[str, str, ReviewDecision]]:
    found = conn.execute(select(decisions).where(decisions.c.job_id == job_id))
    return [
        (row.key_id, row.reviewer, wire.decode(ReviewDecision, signed.read_signed(row.record).payload)) for row in found
    ]


def _hold(row: Row[Any]) -> Hold:
    return Hold(row.job_id, bool(row.is_here), row.held_ms, row.due_ms, row.reminded_ms is not None)


def _context(job_id: str) -> bytes:
    return b"evidence\0" + job_id.encode()
