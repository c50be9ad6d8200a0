"""Quota and consent: reserved at admission, spent before the first engine byte, given back only if none was sent.

Every function works inside the caller's transaction, the one that also holds the audit entry.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, insert, select, update

from sandbox.errors import BudgetSpent
from sandbox.model import JobKind
from sandbox.policy import privacy
from sandbox.policy.admit import Used
from sandbox.store import consents, jobs, usage

_DAY_MS = 86_400_000


def used(conn: Connection, scenario_digest: bytes, now_ms: int, models: frozenset[str]) -> Used:
    """Return what the scenario has reserved and spent at this node; ``models`` are those its score jobs named."""
    counted = usage.c.state.in_(("reserved", "spent"))
    mine = usage.c.scenario_digest == scenario_digest
    total = conn.execute(
        select(func.coalesce(func.sum(usage.c.calls), 0), func.coalesce(func.sum(usage.c.rows), 0)).where(mine, counted)
    ).one()
    today = conn.scalar(
        select(func.coalesce(func.sum(usage.c.calls), 0)).where(mine, counted, usage.c.day == now_ms // _DAY_MS)
    )
    return Used(
        calls_today=int(today or 0),
        calls_total=int(total[0]),
        rows=int(total[1]),
        models=models,
        epsilon_milli=privacy.used(conn, scenario_digest),
    )


def score_jobs(conn: Connection, scenario_digest: bytes) -> list[tuple[str, bytes]]:
    """Return (job id, submission) of the scenario's score jobs whose quota is reserved or spent."""
    found = conn.execute(
        select(jobs.c.job_id, jobs.c.submission)
        .join(usage, usage.c.job_id == jobs.c.job_id)
        .where(
            jobs.c.scenario_digest == scenario_digest,
            jobs.c.kind == int(JobKind.SCORE),
            usage.c.state.in_(("reserved", "spent")),
        )
    )
    return [(row.job_id, row.submission) for row in found]


def reserve(
    conn: Connection, job_id: str, scenario_digest: bytes, rows: int, now_ms: int, consent: bytes = b""
) -> None:
    """Reserve one call, its rows and, where there is one, the consent.

    Raises:
        BudgetSpent: the consent was used before.
    """
    conn.execute(
        insert(usage).values(
            job_id=job_id,
            scenario_digest=scenario_digest,
            day=now_ms // _DAY_MS,
            calls=1,
            rows=rows,
            state="reserved",
        )
    )
    if consent:
        if conn.scalar(select(consents.c.job_id).where(consents.c.nonce == consent)) is not None:
            raise BudgetSpent(tell="this consent was used already", hint="ask the person for a new consent")
        conn.execute(insert(consents).values(nonce=consent, job_id=job_id, state="reserved"))


def spend(conn: Connection, job_id: str) -> None:
    """Make a reservation final."""
    conn.execute(update(usage).where(usage.c.job_id == job_id, usage.c.state == "reserved").values(state="spent"))
    conn.execute(update(consents).where(consents.c.job_id == job_id).values(state="spent"))


def add(conn: Connection, job_id: str, rows: int) -> None:
    """Count more rows than were reserved."""
    conn.execute(update(usage).where(usage.c.job_id == job_id).values(rows=usage.c.rows + rows))


def settle(conn: Connection, job_id: str, rows: int) -> None:
    """Replace the reserved rows by those that were used."""
    conn.execute(update(usage).where(usage.c.job_id == job_id).values(rows=rows))


def give_back(conn: Connection, job_id: str) -> bool:
    """Return a reservation that was never spent; whether there was one."""
    returned = conn.execute(
        update(usage).where(usage.c.job_id == job_id, usage.c.state == "reserved").values(state="returned")
    )
    conn.execute(delete(consents).where(consents.c.job_id == job_id, consents.c.state == "reserved"))
    return bool(returned.rowcount)
