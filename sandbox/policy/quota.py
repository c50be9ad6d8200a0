"""Quota: reserved at admission, spent before the first engine byte, given back only if none was sent; consents with it.

    reserve    one call, all rows that may be sent, and the model of a score     with the job's row
    spend      makes it final, and consents with it                              before the first byte of the engine
    settle     the rows that were sent, once that is known                       with the entry of the release
    add        rows of parts that are sent once more                             before they are
    give_back  returns what was reserved and never spent                         where the job ends early

Every function works inside the caller's transaction, the one that also holds the audit entry. Beside each job's line
stand sums of what is reserved and spent, of each day and of all days, so that admission reads two lines and not a
scenario's past. ``docs/quotas.md`` has the rules.

Errors:   ``WrongState`` on spending what was given back.
Not here: whether there is enough (``policy.admit``), different people (``policy.people``), noise (``policy.privacy``).
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, insert, select, update

from sandbox import signed, wire
from sandbox.errors import WrongState
from sandbox.model import Call, JobKind, JobSubmission, ScoreSpec
from sandbox.policy import privacy, spending
from sandbox.policy.admit import Used
from sandbox.store import jobs, model_uses, usage, usage_sums

ALL_DAYS: Final = -1


def used(conn: Connection, scenario_digest: bytes, now_ms: int, models: frozenset[str]) -> Used:
    """Return what the scenario has reserved and spent at this node; ``models`` are those its score jobs named."""
    today = now_ms // signed.DAY_MS
    mine = (usage_sums.c.scenario_digest == scenario_digest) & usage_sums.c.day.in_((today, ALL_DAYS))
    sums = {row.day: (int(row.calls), int(row.rows)) for row in conn.execute(select(usage_sums).where(mine))}
    calls, rows = sums.get(ALL_DAYS, (0, 0))
    calls_today, rows_today = sums.get(today, (0, 0))
    return Used(
        calls_today=calls_today,
        calls_total=calls,
        rows=rows,
        models=models,
        epsilon_milli=privacy.used(conn, scenario_digest),
        rows_today=rows_today,
    )


def models(conn: Connection, scenario_digest: bytes) -> frozenset[str]:
    """Return the models that the scenario's score jobs named, of those reserved and spent."""
    mine = (model_uses.c.scenario_digest == scenario_digest) & (model_uses.c.jobs > 0)
    return frozenset(model for (model,) in conn.execute(select(model_uses.c.model).where(mine)))


def reserve(conn: Connection, job_id: str, scenario_digest: bytes, rows: int, now_ms: int) -> None:
    """Reserve one call and its rows, and of a score its model, in the transaction that made the job's row."""
    model, day = _model_of(conn, job_id), now_ms // signed.DAY_MS
    line = {"job_id": job_id, "scenario_digest": scenario_digest, "day": day, "calls": 1, "rows": rows}
    conn.execute(insert(usage).values(**line, state="reserved", model=model))
    _count(conn, scenario_digest, day, 1, rows)
    if model:
        _count_model(conn, scenario_digest, model, 1)


def spend(conn: Connection, job_id: str) -> None:
    """Make a reservation final; a second time, after a restart, changes nothing.

    Raises:
        WrongState: it was given back meanwhile, so that nothing may be sent.
    """
    state = conn.scalar(select(usage.c.state).where(usage.c.job_id == job_id))
    if state == "returned":
        raise WrongState("the quota of this job was given back", tell="the job has ended already")
    if state == "reserved":
        conn.execute(update(usage).where(usage.c.job_id == job_id).values(state="spent"))
    spending.spend(conn, job_id)


def add(conn: Connection, job_id: str, rows: int) -> None:
    """Count more rows than were reserved."""
    line = conn.execute(select(usage).where(usage.c.job_id == job_id)).one_or_none()
    if line is None or line.state == "returned":
        return
    conn.execute(update(usage).where(usage.c.job_id == job_id).values(rows=line.rows + rows))
    _count(conn, bytes(line.scenario_digest), line.day, 0, rows)


def settle(conn: Connection, job_id: str, rows: int) -> None:
    """Replace the reserved rows by those that were sent, if they are fewer: there was room for no more."""
    reserved = conn.scalar(select(usage.c.rows).where(usage.c.job_id == job_id))
    if reserved is not None and rows < reserved:
        add(conn, job_id, rows - int(reserved))


def give_back(conn: Connection, job_id: str) -> bool:
    """Return a reservation that was never spent; whether there was one."""
    spending.give_back(conn, job_id)
    line = conn.execute(select(usage).where(usage.c.job_id == job_id, usage.c.state == "reserved")).one_or_none()
    if line is None:
        return False
    conn.execute(update(usage).where(usage.c.job_id == job_id).values(state="returned"))
    _count(conn, bytes(line.scenario_digest), line.day, -line.calls, -line.rows)
    if line.model:
        _count_model(conn, bytes(line.scenario_digest), line.model, -1)
    return True


def _count(conn: Connection, scenario_digest: bytes, day: int, calls: int, rows: int) -> None:
    """Add to the sums of a day and of all days."""
    for when in (day, ALL_DAYS):
        line = (usage_sums.c.scenario_digest == scenario_digest) & (usage_sums.c.day == when)
        more = {"calls": usage_sums.c.calls + calls, "rows": usage_sums.c.rows + rows}
        if not conn.execute(update(usage_sums).where(line).values(**more)).rowcount:
            first = {"scenario_digest": scenario_digest, "day": when, "calls": calls, "rows": rows}
            conn.execute(insert(usage_sums).values(**first))


def _count_model(conn: Connection, scenario_digest: bytes, model: str, more: int) -> None:
    line = (model_uses.c.scenario_digest == scenario_digest) & (model_uses.c.model == model)
    if not conn.execute(update(model_uses).where(line).values(jobs=model_uses.c.jobs + more)).rowcount:
        conn.execute(insert(model_uses).values(scenario_digest=scenario_digest, model=model, jobs=more))


def _model_of(conn: Connection, job_id: str) -> str:
    """Return the training whose model a job scores with, as its submission says; empty of any other job."""
    is_score = (jobs.c.job_id == job_id) & (jobs.c.kind == int(JobKind.SCORE))
    stored = conn.scalar(select(jobs.c.submission).where(is_score))
    if stored is None:
        return ""
    call = wire.decode(Call, signed.read_signed(bytes(stored)).payload)
    spec = wire.decode(JobSubmission, call.body).spec.kind
    return spec.model if isinstance(spec, ScoreSpec) else ""
