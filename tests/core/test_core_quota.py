"""What a scenario may use: calls, rows, models, different people; reserved, spent, given back, and never for free."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from core_builders import ALL, BANK, DAY, FLOORS, LEFT, NOW, OFFICER, OTHER, facts, psi, scenario, standing
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, event, insert, select

from sandbox import record, signed, wire
from sandbox.errors import (
    BudgetSpent,
    Cancelled,
    DeadlinePassed,
    JobFailed,
    OutputWithheld,
    PartyFailed,
    SandboxError,
    SentBack,
    WrongState,
)
from sandbox.gate.judge import Evidence, judge_people
from sandbox.home import Home, init
from sandbox.kinds.distinct import EXACT
from sandbox.kinds.population import Sketcher
from sandbox.ledger import Ledger
from sandbox.model import (
    Approval,
    ApprovalRecord,
    BatchScore,
    Environment,
    Failure,
    JobSpec,
    JobSubmission,
    Quota,
    RawResult,
    ScoreScope,
    ScoreSpec,
    State,
)
from sandbox.policy import book, people, quota
from sandbox.policy.admit import Used, admit
from sandbox.policy.people import Brought, Told
from sandbox.record import Job
from sandbox.store import Store, datasets, jobs, usage

ONE, OTHER_ONE = b"1" * 32, b"2" * 32
HOUR = 3_600_000
ROWS = 600
SKETCHER = Sketcher(bytes(range(32)))
OWN = Brought(b"L" * 32, ROWS)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.at(tmp_path / "store.db")
    made.create()
    yield made
    made.close()


# --- calls and rows ---------------------------------------------------------------------------------------------------


def summed(conn: Connection, digest: bytes, now: int) -> tuple[int, int, int, int]:
    """What every line adds up to, read one by one: what admission reads in two."""
    lines = [row for row in conn.execute(select(usage)) if bytes(row.scenario_digest) == digest]
    counted = [row for row in lines if row.state != "returned"]
    today = [row for row in counted if row.day == now // DAY]
    return len(today), len(counted), sum(row.rows for row in counted), sum(row.rows for row in today)


DONE = st.sampled_from(["reserve", "spend", "settle", "add", "give back"])
MOVES = st.tuples(DONE, st.integers(0, 3), st.integers(0, 9))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(MOVES, st.integers(0, 2)), max_size=25))
def test_the_sums_are_those_of_all_lines_whatever_happens(moves: list[tuple[tuple[str, int, int], int]]) -> None:
    store = Store("sqlite://")
    store.create()
    made: set[str] = set()
    with store.write() as conn:
        for (move, number, rows), days in moves:
            job, digest, now = f"job-{number}", (ONE, OTHER_ONE)[number % 2], NOW + days * DAY
            if move == "reserve" and job not in made:
                quota.reserve(conn, job, digest, rows, now)
                made.add(job)
            elif move == "spend" and conn.scalar(select(usage.c.state).where(usage.c.job_id == job)) != "returned":
                quota.spend(conn, job)
            elif move == "settle":
                quota.settle(conn, job, rows)
            elif move == "add":
                quota.add(conn, job, rows)
            elif move == "give back":
                quota.give_back(conn, job)
            for one in (ONE, OTHER_ONE):
                found = quota.used(conn, one, now, frozenset())
                told = (found.calls_today, found.calls_total, found.rows, found.rows_today)
                assert told == summed(conn, one, now)
    store.close()


def test_what_was_given_back_cannot_be_spent_and_what_was_spent_cannot_be_given_back(store: Store) -> None:
    with store.write() as conn:
        quota.reserve(conn, "early", ONE, 10, NOW)
        quota.reserve(conn, "late", ONE, 10, NOW)
        quota.spend(conn, "late")
        assert quota.give_back(conn, "early") and not quota.give_back(conn, "late")
        with pytest.raises(WrongState):
            quota.spend(conn, "early")
        quota.spend(conn, "late")
        quota.spend(conn, "one of the test environment, which has no line")


def test_rows_settle_to_fewer_and_never_to_more_than_there_was_room_for(store: Store) -> None:
    with store.write() as conn:
        quota.reserve(conn, "job", ONE, 600, NOW)
        quota.spend(conn, "job")
        for rows, left in ((5000, 600), (480, 480), (600, 480)):
            quota.settle(conn, "job", rows)
            assert quota.used(conn, ONE, NOW, frozenset()).rows == left


BOUNDED = replace(scenario().quota, rows_total=10_000, rows_per_day=1000)


@pytest.mark.parametrize(
    ("used", "told"),
    [
        (Used(0, 0, 400, frozenset(), rows_today=400), ""),
        (Used(0, 0, 401, frozenset(), rows_today=401), "rows for today are used up"),
        (Used(0, 0, 9400, frozenset(), rows_today=0), ""),
        (Used(0, 0, 9401, frozenset(), rows_today=0), "rows are used up"),
    ],
)
def test_rows_of_a_day_are_bounded_where_the_scenario_says_so(used: Used, told: str) -> None:
    held = standing(scenario=replace(standing().scenario, quota=BOUNDED))
    known = facts(standing=held, used=used)
    if not told:
        assert admit(psi(), "ab" * 16, b"d" * 32, known, BANK).kind
        return
    with pytest.raises(BudgetSpent, match=told):
        admit(psi(), "ab" * 16, b"d" * 32, known, BANK)


def test_without_a_bound_for_the_day_only_the_total_counts() -> None:
    free = standing(scenario=replace(standing().scenario, quota=replace(BOUNDED, rows_per_day=0)))
    used = Used(0, 0, 9400, frozenset(), rows_today=9400)
    assert admit(psi(), "ab" * 16, b"d" * 32, facts(standing=free, used=used), BANK).kind


# --- models -----------------------------------------------------------------------------------------------------------


def scoring(conn: Connection, number: int, model: str, digest: bytes = ONE) -> str:
    """Reserve for a score job that has its row."""
    spec = JobSpec(f"score-{number}", digest, ScoreSpec(model, BatchScore(ScoreScope.HOLDOUT)))
    call = signed.sign_call(OFFICER, "bank", "/sandbox.v1.JobService/SubmitJob", JobSubmission(spec))
    row: dict[str, Any] = {name: b"" for name in ("submission_digest", "body_digest", "plan", "plan_digest", "recipe")}
    row |= {"job_id": f"{number:032x}", "submitter": "s", "request_id": spec.request_id, "kind": 3, "state": 2}
    row |= {"scenario_digest": digest, "submission": wire.encode(call), "created_ms": NOW, "environment": 1}
    conn.execute(insert(jobs).values(**row))
    quota.reserve(conn, f"{number:032x}", digest, 1, NOW)
    return f"{number:032x}"


def test_models_count_while_a_score_with_them_does(store: Store) -> None:
    first, second = "a" * 32, "b" * 32
    with store.write() as conn:
        assert quota.models(conn, ONE) == frozenset()
        one, two, three = scoring(conn, 1, first), scoring(conn, 2, first), scoring(conn, 3, second)
        scoring(conn, 4, "c" * 32, OTHER_ONE)
        quota.reserve(conn, "no score", ONE, 5, NOW)
        assert quota.models(conn, ONE) == {first, second}
        quota.give_back(conn, one)
        quota.spend(conn, three)
        quota.give_back(conn, three)
        assert quota.models(conn, ONE) == {first, second}
        quota.give_back(conn, two)
        assert quota.models(conn, ONE) == {second}


def test_admission_reads_sums_and_not_the_past(store: Store) -> None:
    """The same few statements over one line or over a thousand, and none of them over the lines."""
    counts = []
    for first, last in ((0, 1), (1, 200)):
        with store.write() as conn:
            for number in range(first, last):
                scoring(conn, number, "a" * 32)
        said: list[str] = []
        with store.read() as conn:
            event.listen(conn, "before_cursor_execute", lambda *told, said=said: said.append(told[2]))
            assert quota.used(conn, ONE, NOW, quota.models(conn, ONE)).calls_total == last
        counts.append(len(said))
        assert not any("quota_use" in one for one in said)
    assert counts[0] == counts[1] > 0


# --- different people -------------------------------------------------------------------------------------------------


def sketch(numbers: Any) -> bytes:
    return SKETCHER.of("", pa.array([f"id-{number}" for number in numbers], pa.string()), 0).people


def told(store: Store, now: int = NOW, digest: bytes = ONE) -> tuple[int, int]:
    with store.read() as conn:
        found = people.told(conn, digest, now)
    return found.today, found.total


def test_known_people_count_once_a_day_and_once_in_all(store: Store) -> None:
    days = [(NOW, range(100)), (NOW, range(50, 120)), (NOW + DAY, range(110, 130)), (NOW + 2 * DAY, [])]
    seen: set[int] = set()
    for now, group in days:
        with store.write() as conn:
            people.count(conn, ONE, sketch(group), now)
        seen |= set(group)
        assert told(store, now)[1] == len(seen)
    assert [told(store, NOW + day * DAY)[0] for day in (0, 1, 2)] == [0, 0, 0]  # days that are over are forgotten
    assert told(store, digest=OTHER_ONE) == (0, 0)


def test_unknown_people_count_for_each_job_until_it_is_known_who_they_are(store: Store) -> None:
    with store.write() as conn:
        for job in ("one", "one", "two"):  # a job that is taken up again counts once
            people.expect(conn, ONE, job, OWN, 200, NOW)
        assert people.told(conn, ONE, NOW) == Told(400, 400)
        people.settle(conn, ONE, "one", 0, NOW)
        people.count(conn, ONE, sketch(range(150)), NOW)
        assert people.told(conn, ONE, NOW) == Told(350, 350)
        people.settle(conn, ONE, "two", 500, NOW)  # nothing makes them more
        assert people.told(conn, ONE, NOW) == Told(350, 350)


def test_of_one_dataset_there_are_no_more_unknown_people_than_rows(store: Store) -> None:
    with store.write() as conn:
        for number in range(5):
            people.expect(conn, ONE, f"job-{number}", OWN, 200, NOW + number * DAY)
        assert people.told(conn, ONE, NOW + 4 * DAY) == Told(200, ROWS)
        people.expect(conn, ONE, "another version", Brought(b"M" * 32, 700), 200, NOW)
        assert people.told(conn, ONE, NOW).total == ROWS + 200


@pytest.mark.parametrize(
    ("bounds", "checks"),
    [
        ((0, 0), []),
        ((30, 0), ["people.day"]),
        ((0, 70), ["people.total"]),
        ((30, 70), ["people.day", "people.total"]),
        ((29, 0), None),
        ((0, 69), None),
        ((30, 69), None),
    ],
)
def test_the_gate_passes_up_to_the_bounds_in_its_one_wording(bounds: tuple[int, int], checks: list[str] | None) -> None:
    held = Quota(1, 1, 1, 0, *bounds)
    if checks is not None:
        found = judge_people(held, 30, 70)
        assert [one.check for one in found] == checks
        wanted = {"people.day": (30, 30), "people.total": (70, 70)}
        assert all(one == Evidence("", one.check, *wanted[one.check]) for one in found)
        return
    with pytest.raises(OutputWithheld) as refusal:
        judge_people(held, 30, 70)
    assert refusal.value.tell == OutputWithheld.public and "people." in str(refusal.value)


# --- at one owner's node ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quota") / "bank"
    init(path, node_id="bank", organisation="Example Bank", listen="127.0.0.1:1")
    home = Home(path)
    row = {column.name: _blank(column) for column in datasets.columns if not column.nullable}
    row |= {"code": LEFT.code, "version": LEFT.version, "rows": ROWS, "content_hash": b"L" * 32, "state": "active"}
    with home.store.write() as conn:
        conn.execute(insert(datasets).values(**row))
    home.store.close()
    return path


def _blank(column: Any) -> Any:
    return {int: 0, str: "", bytes: b""}[column.type.python_type]


@pytest.fixture
def ledger(folder: Path) -> Iterator[Ledger]:
    home = Home(folder)
    yield Ledger(home.path, home.settings, home.keys, home.store, lambda: {})
    home.store.close()


class Asked:
    """One scenario of the bank's, approved by everybody, and the intersections asked under it."""

    def __init__(self, ledger: Ledger, name: str, **bounds: int) -> None:
        now = signed.now_ms()
        self.ledger, self.name, self.count = ledger, name, 0
        held = scenario(
            not_before_ms=now - HOUR,
            not_after_ms=now + HOUR,
            nonce=name.encode().rjust(16, b"\0"),
            quota=replace(Quota(50, 50, 1_000_000), **bounds),
        )
        application = signed.sign(OFFICER, "scenario", held)
        self.digest, self.held = signed.digest("scenario", application), held
        with ledger.store.write() as conn:
            book.file(conn, application, FLOORS)
            for party in ALL:
                approval = signed.sign(OTHER, "approval", Approval(self.digest, party, False, now))
                vouched = ApprovalRecord(approval, OTHER.public.to_bytes())
                statement = signed.sign(ledger.keys.identity, "approval-record", vouched)
                book.approve(conn, statement, ledger.keys.identity.public, party)

    def job(self, environment: Environment = Environment.PRODUCTION) -> Job:
        """One more job that was admitted and runs."""
        self.count += 1
        spec = psi(request_id=f"{self.name}-{self.count}", scenario_digest=self.digest)
        call = signed.sign_call(OFFICER, "bank", "/sandbox.v1.JobService/SubmitJob", JobSubmission(spec))
        job_id = record.job_id(call.key_id, spec.request_id)
        known = facts(now_ms=signed.now_ms(), standing=standing(scenario=self.held, digest=self.digest))
        plan = replace(admit(spec, job_id, signed.digest("call", call), known, BANK), environment=environment)
        with self.ledger.store.write() as conn:
            job = record.create(conn, call, plan, wire.encode(plan), b"r" * 32)
            if environment is Environment.PRODUCTION:
                quota.reserve(conn, job.job_id, self.digest, ROWS, signed.now_ms())
            self.ledger.enter(conn, "admitted", job, {})
            record.move(conn, job.job_id, State.RUNNING)
            return record.read(conn, job.job_id)

    def told(self) -> int:
        """How many different people the jobs told of."""
        return told(self.ledger.store, signed.now_ms(), self.digest)[1]

    def line(self, job: Job) -> str:
        """Where the job's quota stands."""
        with self.ledger.store.read() as conn:
            return str(conn.scalar(select(usage.c.state).where(usage.c.job_id == job.job_id)))

    def spend(self, job: Job, rows: Mapping[str, int] | None = None) -> None:
        asyncio.run(self.ledger.spend(job, rows))

    def judge(self, job: Job, group: Any = (), unknown: int = 0) -> None:
        asyncio.run(self.ledger.judge(job, result(group, unknown)))

    def stop(self, job: Job, error: SandboxError) -> None:
        asyncio.run(self.ledger.stop(job, error, Failure("code", "bank", "stage", "", "", "")))


def result(group: Any, unknown: int = 0) -> RawResult:
    """What an intersection leaves."""
    size = max(len(group), unknown)
    return RawResult({"rows": size, "group.shared": size}, {}, {}, (), sketch(group), unknown)


SETS = {"bank": ROWS, "operator": 300}


def test_an_intersection_counts_all_it_could_tell_of_until_it_is_judged(ledger: Ledger) -> None:
    asked = Asked(ledger, "expected", people_total=1000)
    job = asked.job()
    asked.spend(job, SETS)
    assert asked.told() == 300  # the smaller set
    asked.judge(job, range(120))
    assert asked.told() == 120
    again = asked.job()
    asked.spend(again, SETS)
    asked.judge(again, range(100, 140))
    assert asked.told() == 140
    blind = asked.job()
    asked.spend(blind)  # without the other's number of rows it may be all of this owner's
    assert asked.told() == 140 + ROWS
    asked.judge(blind, unknown=300)
    assert asked.told() == 140 + 300


def test_one_that_could_tell_of_too_many_is_withheld_before_its_first_byte(ledger: Ledger) -> None:
    asked = Asked(ledger, "too many", people_total=400)
    fine, late = asked.job(), asked.job()
    asked.spend(fine, SETS)
    with pytest.raises(OutputWithheld) as refusal:
        asked.spend(late, SETS)
    assert refusal.value.tell == OutputWithheld.public
    assert asked.line(late) == "reserved" and asked.told() == 300  # nothing of it stays
    asked.stop(late, refusal.value)
    assert asked.line(late) == "returned"


def test_who_breaks_off_after_the_protocol_has_used_up_what_it_could_have_learnt(ledger: Ledger) -> None:
    asked, sets = Asked(ledger, "broken off", people_total=599), {"bank": ROWS, "operator": 200}
    for tries in (1, 2):
        job = asked.job()
        asked.spend(job, sets)
        asked.stop(job, PartyFailed(party="operator"))
        assert asked.line(job) == "spent" and asked.told() == 200 * tries
    job = asked.job()
    with pytest.raises(OutputWithheld):
        asked.spend(job, sets)


def test_a_job_over_people_already_told_of_passes_when_nobody_else_may(ledger: Ledger) -> None:
    asked = Asked(ledger, "the same", people_total=420)
    one, same, other = asked.job(), asked.job(), asked.job()
    asked.spend(one, SETS)
    asked.judge(one, range(120))
    asked.spend(same, SETS)
    asked.judge(same, range(20, 120))
    assert asked.told() == 120
    asked.spend(other, {"bank": ROWS, "operator": 100})
    asked.judge(other, range(119, 219))
    assert asked.told() == 219


def test_a_refusal_of_the_gate_leaves_what_the_protocol_may_have_told(ledger: Ledger) -> None:
    asked = Asked(ledger, "refused", people_total=300)
    job = asked.job()
    asked.spend(job, SETS)
    with pytest.raises(OutputWithheld) as refusal:
        asked.judge(job, range(301))
    asked.stop(job, refusal.value)
    assert asked.told() == 300 and asked.line(job) == "spent"


def test_of_two_at_once_only_one_passes(ledger: Ledger) -> None:
    asked = Asked(ledger, "at once", people_total=200)
    pair = [asked.job(), asked.job()]

    def judged(number: int) -> bool:
        try:
            asked.judge(pair[number], range(101 * number, 101 * number + 101))
        except OutputWithheld:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(judged, (0, 1))) == [False, True]
    assert asked.told() == 101


def test_a_bound_of_a_day_holds_for_a_day(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(ledger, "daily", people_per_day=300)
    first, second, third = asked.job(), asked.job(), asked.job()
    asked.spend(first, SETS)
    asked.judge(first, range(200))
    with pytest.raises(OutputWithheld):
        asked.spend(second, SETS)
    tomorrow = signed.now_ms() + DAY
    monkeypatch.setattr(signed, "now_ms", lambda: tomorrow)
    asked.spend(third, SETS)
    asked.judge(third, range(300, 500))
    assert told(ledger.store, tomorrow, asked.digest) == (200, 400)


def test_above_exactness_a_bound_is_never_passed(ledger: Ledger) -> None:
    """Refused from about 95 % of the bound on: what is not exact errs to the side of the people."""
    asked = Asked(ledger, "many", people_total=2 * EXACT)
    with ledger.store.write() as conn:
        for first in range(0, 2 * EXACT, 256):
            people.count(conn, asked.digest, sketch(range(first, first + 256)), signed.now_ms())
            try:
                judge_people(asked.held.quota, 0, people.told(conn, asked.digest, signed.now_ms()).total)
            except OutputWithheld:
                break
    assert 0.88 * 2 * EXACT < first <= 2 * EXACT


def test_without_a_bound_and_on_twins_nobody_is_counted(ledger: Ledger) -> None:
    free = Asked(ledger, "free")
    job = free.job()
    free.spend(job, SETS)
    free.judge(job, range(120))
    bounded = Asked(ledger, "twins", people_total=10)
    twin = bounded.job(Environment.TEST)
    bounded.spend(twin, SETS)
    bounded.judge(twin, range(120))
    assert (free.told(), bounded.told()) == (0, 0)


# --- ended early, at every stage --------------------------------------------------------------------------------------

ENDS: Sequence[Callable[[], SandboxError]] = (
    lambda: Cancelled(party="bank"),
    lambda: DeadlinePassed(party="bank"),
    lambda: PartyFailed(party="operator"),
    lambda: JobFailed(),
    lambda: OutputWithheld("the gate"),
    lambda: SentBack(party="operator"),
)


@pytest.mark.parametrize("end", ENDS, ids=[type(end()).__name__ for end in ENDS])
@pytest.mark.parametrize(
    ("stage", "line", "counted"),
    [("agreed", "returned", 0), ("spent", "spent", 300), ("judged", "spent", 120), ("released", "spent", 120)],
)
def test_wherever_it_ends_it_counts_what_it_could_have_told(
    ledger: Ledger, end: Callable[[], SandboxError], stage: str, line: str, counted: int
) -> None:
    asked = Asked(ledger, f"{stage[:6]} {type(end()).__name__[:8]}", people_total=1000)
    job = asked.job()
    if stage != "agreed":
        asked.spend(job, SETS)
    if stage in ("judged", "released"):
        asked.judge(job, range(120))
    if stage == "released":
        asyncio.run(asked.ledger.release(job, result(range(120))))
    asked.stop(job, end())
    assert (asked.line(job), asked.told()) == (line, counted)
    with ledger.store.read() as conn:
        used = quota.used(conn, asked.digest, signed.now_ms(), frozenset())
    spent = line == "spent"
    assert (used.calls_total, used.rows, used.rows_today) == (int(spent), ROWS * spent, ROWS * spent)
    with pytest.raises(WrongState) if not spent else contextlib.nullcontext():
        asked.spend(job, SETS)  # a line that goes on although the job has ended gets nowhere
