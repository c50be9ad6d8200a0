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
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from sandbox import record, signed, wire
from sandbox.crypto.sm3 import tagged
from sandbox.crypto.sm4 import seal, unseal
from sandbox.errors import NotFound, PolicyRefused, WrongState
from sandbox.gate.judge import Evidence
from sandbox.model import (
    CheckView,
    Decision,
    DecisionView,
    JobKind,
    Plan,
    ReleaseView,
    ReviewDecision,
    ReviewView,
    Scenario,
    Signed,
    State,
)
from sandbox.policy import book
from sandbox.policy.scenario import controller
from sandbox.record import Job
from sandbox.registry import Registered
from sandbox.store import decisions, evidences, jobs, released_populations, reviews

APPROVALS = 2
MOST_CHECKS = 4096  # of a page; the worst of each kind of check come first
MOST_HISTORY = 100
MOST_SAMPLE = 65536  # characters
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Hold:
    """A held job as this node keeps it."""

    job_id: str
    is_here: bool  # whether this node's reviewers decide
    held_ms: int
    due_ms: int
    is_reminded: bool


def is_reviewed(plan: Plan) -> bool:
    """Whether people have to look at a job's outputs before they leave."""
    return any(rule.reviewed for rule in plan.outputs)


def organisation(name: str) -> str:
    """Return an organisation's name in the form in which two are compared."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


# --- evidence ---------------------------------------------------------------------------------------------------------


def keep(conn: Connection, node_key: bytes, job: Job, scenario: Scenario, found: Sequence[Evidence]) -> None:
    """Keep what the gate found on a job, with what was released before; found again, it replaces the first."""
    shown = sorted(found, key=lambda one: (one.check.partition(".")[0], abs(one.found - one.bound)))[:MOST_CHECKS]
    page = {"checks": [asdict(one) for one in shown], "history": _history(conn, job.job_id, scenario)}
    text = json.dumps(page, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    nonce = secrets.token_bytes(12)
    conn.execute(delete(evidences).where(evidences.c.job_id == job.job_id))
    sealed = nonce + seal(node_key, nonce, text, _context(job.job_id))
    conn.execute(insert(evidences).values(job_id=job.job_id, sealed=sealed))


def evidence(conn: Connection, node_key: bytes, job_id: str) -> bytes:
    """Return a job's evidence page as it was kept; an empty page where this node owns nothing in it."""
    sealed = conn.scalar(select(evidences.c.sealed).where(evidences.c.job_id == job_id))
    if sealed is None:
        return b'{"checks":[],"history":[]}'
    return unseal(node_key, sealed[:12], sealed[12:], _context(job_id))


def evidence_digest(plan_digest: bytes, page: bytes) -> bytes:
    """Return what a decision signs."""
    return tagged("evidence", plan_digest + page)


def _history(conn: Connection, job_id: str, scenario: Scenario) -> list[dict[str, Any]]:
    """Return what was released before to the same merchant, or to one under the same control; the newest first."""
    found = conn.execute(
        select(jobs.c.job_id, jobs.c.plan, jobs.c.scenario_digest, jobs.c.created_ms)
        .where(
            jobs.c.job_id.in_(
                select(released_populations.c.job_id).where(released_populations.c.controller == controller(scenario))
            ),
            jobs.c.state == int(State.RELEASED),
            jobs.c.job_id != job_id,
        )
        .order_by(jobs.c.created_ms.desc())
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
                "time_ms": row.created_ms,
                "outputs": [rule.name for rule in plan.outputs],
            }
        )
    return told


# --- holds ------------------------------------------------------------------------------------------------------------


def hold(conn: Connection, job_id: str, is_here: bool, days: int, now_ms: int) -> None:
    """RUNNING -> HELD."""
    record.move(conn, job_id, State.HELD)
    conn.execute(insert(reviews).values(job_id=job_id, is_here=is_here, held_ms=now_ms, due_ms=now_ms + days * _DAY_MS))


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


def decide(conn: Connection, node_key: bytes, job_id: str, decision: Signed, reviewer: Registered) -> ReviewDecision:
    """Store one reviewer's decision after checking that it is this person's to take.

    Raises:
        WrongState: the job is not held for review here, or the evidence is not what was looked at.
        PolicyRefused: the reviewer is the author or the recipient, of the author's organisation, or decided before.
    """
    value = signed.verify(reviewer.identity, "review", decision, ReviewDecision)
    job = record.read(conn, job_id)
    if job.state is not State.HELD or not hold_of(conn, job_id).is_here:
        raise WrongState(tell="this job is not held for review here")
    page = evidence_digest(job.plan_digest, evidence(conn, node_key, job_id))
    if (value.job_id, value.plan_digest, value.evidence_digest) != (job_id, job.plan_digest, page):
        raise WrongState(
            tell="the evidence is not what was looked at", hint="look again (sandbox review show), then decide"
        )
    scenario = book.application(conn, job.plan.scenario_digest)
    _check_reviewer(reviewer, job, scenario)
    taken = conn.execute(select(decisions).where(decisions.c.job_id == job_id)).all()
    if any(reviewer.key_id == one.key_id or reviewer.name == one.reviewer for one in taken):
        raise PolicyRefused(tell="you have decided on this job already", hint="another reviewer has to decide as well")
    row = {"reviewer": reviewer.name, "record": wire.encode(decision)}
    conn.execute(insert(decisions).values(job_id=job_id, key_id=reviewer.key_id, **row))
    return value


def approvals(conn: Connection, job_id: str) -> int:
    """Return how many people approved."""
    return sum(one.decision is Decision.APPROVE for _, one in _decisions(conn, job_id))


def check_reader(conn: Connection, job_id: str, reader: Registered) -> None:
    """Refuse the evidence, which is exact, to whoever is of the author's organisation."""
    hold_of(conn, job_id)
    scenario = book.application(conn, record.read(conn, job_id).plan.scenario_digest)
    if organisation(reader.organisation) in {organisation(scenario.merchant), controller(scenario)}:
        raise PolicyRefused(tell="the evidence is not for people of the author's organisation")


def _check_reviewer(reviewer: Registered, job: Job, scenario: Scenario) -> None:
    if "reviewer" not in reviewer.roles:
        raise PolicyRefused(tell="your key has not the role reviewer")
    identity = reviewer.identity.to_bytes()
    if reviewer.key_id == job.submission.key_id or identity == scenario.applicant_key:
        raise PolicyRefused(tell="the author of a job cannot review it")
    if identity == scenario.recipient.identity_key:
        raise PolicyRefused(tell="the recipient of a result cannot review it")
    authors = {organisation(scenario.merchant), controller(scenario)}
    if organisation(reviewer.organisation) in authors:
        raise PolicyRefused(tell="a reviewer must not be of the author's organisation")


# --- what people see --------------------------------------------------------------------------------------------------


def listed(conn: Connection, node_key: bytes, after: str, limit: int, now_ms: int) -> list[ReviewView]:
    """Return a page of what this node's reviewers have to decide, what expires first on top."""
    places = sorted((hold.due_ms, hold.job_id) for hold in held(conn) if hold.is_here)
    if after:
        last = hold_of(conn, after)
        places = [place for place in places if place > (last.due_ms, last.job_id)]
    return [view(conn, node_key, job_id, now_ms) for _, job_id in places[:limit]]


def view(conn: Connection, node_key: bytes, job_id: str, now_ms: int) -> ReviewView:
    """Return everything a reviewer needs to decide on a job."""
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
        checks=tuple(
            CheckView(one["output"] or "-", one["check"], str(one["bound"]), str(one["found"]))
            for one in found["checks"]
        ),
        history=tuple(
            ReleaseView(one["job_id"], JobKind(one["kind"]), one["merchant"], one["time_ms"], tuple(one["outputs"]))
            for one in found["history"]
        ),
        decisions=tuple(
            DecisionView(name, one.decision, one.reason, one.time_ms) for name, one in _decisions(conn, job_id)
        ),
        approvals_needed=APPROVALS,
        held_ms=held_here.held_ms,
        due_ms=held_here.due_ms,
        is_due_soon=is_due_soon(held_here, now_ms),
        sample="",
    )


def _decisions(conn: Connection, job_id: str) -> list[tuple[str, ReviewDecision]]:
    found = conn.execute(select(decisions.c.reviewer, decisions.c.record).where(decisions.c.job_id == job_id))
    return [(row.reviewer, wire.decode(ReviewDecision, signed.read_signed(row.record).payload)) for row in found]


def _hold(row: Row[Any]) -> Hold:
    return Hold(row.job_id, bool(row.is_here), row.held_ms, row.due_ms, row.reminded_ms is not None)


def _context(job_id: str) -> bytes:
    return b"evidence\0" + job_id.encode()
