"""Different people of this owner about whom a scenario's jobs told something: of today, and over its life.

    expect   as many as a protocol can tell of by itself, before anybody can judge it       with the spending
    settle   as many of them as stay unknown, once it is computed; 0 if it is known who     with this owner's gate
    count    those who are known                                                            with this owner's gate

A count is of people this owner knows, as one sketch (``kinds.distinct``), and of others, of whom it only knows how many
there can be: each job may have told of other ones, but all jobs over one dataset of no more than it has rows.

Security: what is counted stays counted, whatever becomes of the job. Who breaks off an intersection after it has learnt
          rows, and before this owner's gate, has used up all that it could have learnt. Nothing here believes what the
          other side says of its own rows: to bring the same again is to ask again, as it might be others.
Units:    people. Numbers are upper bounds: exact of up to 4096 known people, see ``kinds.distinct``.
Not here: whether there are too many (``gate.judge``), calls and rows (``policy.quota``).

Every function works inside the caller's transaction: of two jobs at once one comes second.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from sandbox import signed
from sandbox.kinds.distinct import merged, most
from sandbox.policy.quota import ALL_DAYS
from sandbox.store import people_counts, unknown_people


@dataclass(frozen=True, slots=True)
class Told:
    """How many different people there can be that were told of."""

    today: int
    total: int


@dataclass(frozen=True, slots=True)
class Brought:
    """The dataset of this owner that a job uses: whoever is unknown is somebody in there."""

    content: bytes
    rows: int


def expect(conn: Connection, scenario_digest: bytes, job_id: str, own: Brought, people: int, now_ms: int) -> None:
    """Count so many unknown people for a job; a second time, when it is taken up again, changes nothing."""
    for day in _begin(conn, scenario_digest, now_ms):
        held = select(unknown_people.c.people).where(_is(scenario_digest, day), unknown_people.c.job_id == job_id)
        if conn.scalar(held) is None:
            line = {"scenario_digest": scenario_digest, "day": day, "job_id": job_id, "people": people}
            conn.execute(insert(unknown_people).values(**line, content=own.content, rows=own.rows))


def settle(conn: Connection, scenario_digest: bytes, job_id: str, people: int, now_ms: int) -> None:
    """Lower the number of unknown people of a job to those that stay unknown."""
    for day in _begin(conn, scenario_digest, now_ms):
        mine = _is(scenario_digest, day) & (unknown_people.c.job_id == job_id)
        conn.execute(update(unknown_people).where(mine, unknown_people.c.people > people).values(people=people))


def count(conn: Connection, scenario_digest: bytes, sketch: bytes, now_ms: int) -> None:
    """Count people who are known; whom an earlier job told of, counts no second time."""
    for day in _begin(conn, scenario_digest, now_ms):
        line = (people_counts.c.scenario_digest == scenario_digest) & (people_counts.c.day == day)
        held = conn.scalar(select(people_counts.c.sketch).where(line))
        if held is None:
            conn.execute(insert(people_counts).values(scenario_digest=scenario_digest, day=day, sketch=sketch))
        else:
            conn.execute(update(people_counts).where(line).values(sketch=merged((bytes(held), sketch))))


def told(conn: Connection, scenario_digest: bytes, now_ms: int) -> Told:
    """Return how many a scenario's jobs told of so far."""
    return Told(_sum(conn, scenario_digest, now_ms // signed.DAY_MS), _sum(conn, scenario_digest, ALL_DAYS))


def _begin(conn: Connection, scenario_digest: bytes, now_ms: int) -> tuple[int, int]:
    """Return what is counted for: today, and all days. Of the days before only those of all days are kept."""
    today = now_ms // signed.DAY_MS
    for table in (people_counts, unknown_people):
        is_past = (table.c.day != ALL_DAYS) & (table.c.day < today)
        conn.execute(delete(table).where(table.c.scenario_digest == scenario_digest, is_past))
    return today, ALL_DAYS


def _is(scenario_digest: bytes, day: int) -> ColumnElement[bool]:
    return (unknown_people.c.scenario_digest == scenario_digest) & (unknown_people.c.day == day)


def _sum(conn: Connection, scenario_digest: bytes, day: int) -> int:
    line = (people_counts.c.scenario_digest == scenario_digest) & (people_counts.c.day == day)
    sketch = conn.scalar(select(people_counts.c.sketch).where(line))
    each = select(func.sum(unknown_people.c.people), func.max(unknown_people.c.rows)).where(_is(scenario_digest, day))
    unknown = conn.execute(each.group_by(unknown_people.c.content))
    known = b"" if sketch is None else bytes(sketch)
    return most(known) + sum(min(int(people), int(rows)) for people, rows in unknown)
