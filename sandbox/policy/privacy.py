"""The privacy budget: how much may be asked of an owner's rows with noise, under one scenario, ever.

    check    pure: may a job ask for so much, after what was used?         admission calls it on the facts
    reserve  the same, and takes it                                        with the job's row
    spend    makes it final                                                before the first byte of the computation
    give_back  returns what was reserved and never spent                   where the job ends early

Source:   basic composition: losses add up (Dwork, McSherry, Nissim, Smith, TCC 2006). Better bounds buy budget with a
          probability that the promise does not hold at all, and only for many small questions; a scenario asks a few.
          A sum is also what an owner can check by hand.
Security: what is spent stays spent, however the job ends; there is no refill, a new scenario needs new approvals.
          A job is computed once: to draw noise again is to ask again.
Units:    thousandths of epsilon.
Errors:   ``BudgetSpent`` in one wording, whether the budget is gone or only too small.

Every function with a connection works inside the caller's transaction, the one that also holds the audit entry.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from sandbox.errors import BudgetSpent, InvalidSpec, WrongState
from sandbox.store import privacy_uses

SPENT: Final = "the scenario's privacy budget does not allow this"
_TAKEN: Final = ("reserved", "spent")


def check(epsilon_milli: int, used_milli: int, budget_milli: int) -> None:
    """Refuse a job that asks for more than is left.

    Raises:
        BudgetSpent: it does.
    """
    if epsilon_milli < 1:
        raise InvalidSpec(tell="epsilon_milli must be at least 1")
    if used_milli + epsilon_milli > budget_milli:
        raise BudgetSpent(tell=SPENT, hint="ask for less of it, or apply for another scenario")


def used(conn: Connection, scenario_digest: bytes) -> int:
    """Return what a scenario has reserved and spent at this node."""
    return _sum(conn, privacy_uses.c.scenario_digest == scenario_digest)


def used_by(conn: Connection, controller: str) -> int:
    """Return what all scenarios of one controller have: what approvers of the next one should see."""
    return _sum(conn, privacy_uses.c.controller == controller)


def reserve(
    conn: Connection, job_id: str, scenario_digest: bytes, controller: str, epsilon_milli: int, budget_milli: int
) -> None:
    """Take a job's part of the budget.

    Raises:
        BudgetSpent: so much is not left.
    """
    check(epsilon_milli, used(conn, scenario_digest), budget_milli)
    conn.execute(
        insert(privacy_uses).values(
            job_id=job_id,
            scenario_digest=scenario_digest,
            controller=controller,
            epsilon_milli=epsilon_milli,
            state="reserved",
        )
    )


def spend(conn: Connection, job_id: str) -> None:
    """Make a reservation final.

    Raises:
        WrongState: none is open, so that nothing may be computed: a second time least of all.
    """
    changed = conn.execute(
        update(privacy_uses)
        .where(privacy_uses.c.job_id == job_id, privacy_uses.c.state == "reserved")
        .values(state="spent")
    )
    if changed.rowcount != 1:
        raise WrongState("no privacy budget is reserved for this job")


def give_back(conn: Connection, job_id: str) -> bool:
    """Return a reservation that was never spent; whether there was one."""
    changed = conn.execute(
        update(privacy_uses)
        .where(privacy_uses.c.job_id == job_id, privacy_uses.c.state == "reserved")
        .values(state="returned")
    )
    return bool(changed.rowcount)


def _sum(conn: Connection, mine: ColumnElement[bool]) -> int:
    total = func.coalesce(func.sum(privacy_uses.c.epsilon_milli), 0)
    return int(conn.scalar(select(total).where(mine, privacy_uses.c.state.in_(_TAKEN))) or 0)
