"""What a node keeps of a job that outlives it, and what it takes up again; and of sets that are prepared once."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from core_builders import ALL, BANK, FLOORS, JOB, LEFT, OFFICER, OTHER, facts, psi, scenario, standing
from sqlalchemy import insert, select, update

from sandbox import record, signed, wire
from sandbox.catalog import cache
from sandbox.errors import (
    Interrupted,
    InvalidSpec,
    JobFailed,
    OutputWithheld,
    PolicyRefused,
    SandboxError,
    Unauthenticated,
)
from sandbox.home import Home, init
from sandbox.ledger import SETTING, Ledger
from sandbox.model import (
    Approval,
    ApprovalRecord,
    Failure,
    JobSubmission,
    Notice,
    NoticeKind,
    RawResult,
    Signed,
    State,
    TrailEntry,
    TrailReport,
)
from sandbox.pipeline import RESUMES
from sandbox.policy import book, quota
from sandbox.policy.admit import admit
from sandbox.record import Job
from sandbox.store import Store, cached, datasets, jobs, usage

HOUR = 3_600_000


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ledger") / "bank"
    init(path, node_id="bank", organisation="Example Bank", listen="127.0.0.1:1")
    return path


@pytest.fixture
def ledger(bank: Path) -> Iterator[Ledger]:
    home = Home(bank)
    yield Ledger(home.path, home.settings, home.keys, home.store, lambda: {})
    home.store.close()


def made(ledger: Ledger, request_id: str, **changes: Any) -> Job:
    """A job that was admitted and runs, under a scenario of its own that everybody approved."""
    now = signed.now_ms()
    held = scenario(
        not_before_ms=now - HOUR, not_after_ms=now + HOUR, nonce=request_id.encode().rjust(16, b"\0"), **changes
    )
    application = signed.sign(OFFICER, "scenario", held)
    digest = signed.digest("scenario", application)
    spec = replace(psi(), request_id=request_id, scenario_digest=digest)
    call = signed.sign_call(OFFICER, "bank", "/sandbox.v1.JobService/SubmitJob", JobSubmission(spec))
    job_id = record.job_id(call.key_id, request_id)
    known = facts(now_ms=now, standing=standing(scenario=held, digest=digest))
    plan = admit(spec, job_id, signed.digest("call", call), known, BANK)
    with ledger.store.write() as conn:
        book.file(conn, application, FLOORS)
        for party in ALL:
            approval = signed.sign(OTHER, "approval", Approval(digest, party, False, now))
            vouched = ApprovalRecord(approval, OTHER.public.to_bytes())
            statement = signed.sign(ledger.keys.identity, "approval-record", vouched)
            book.approve(conn, statement, ledger.keys.identity.public, party)
        job = record.create(conn, call, plan, wire.encode(plan), b"r" * 32)
        quota.reserve(conn, job.job_id, digest, 600, now)
        ledger.enter(conn, "admitted", job, {})
        record.move(conn, job.job_id, State.RUNNING)
        return record.read(conn, job.job_id)


def state_of(ledger: Ledger, job: Job) -> tuple[str, int, int]:
    with ledger.store.read() as conn:
        row = conn.execute(select(usage).where(usage.c.job_id == job.job_id)).one()
    return row.state, row.calls, row.rows


def whats(ledger: Ledger, job: Job) -> list[str]:
    return [entry.what for entry in asyncio.run(ledger.own_trail(job)).entries]


# --- taken up again -------------------------------------------------------------------------------------------------


def test_a_job_is_taken_up_so_often_and_no_more(ledger: Ledger) -> None:
    job = made(ledger, "often")
    for _ in range(RESUMES):
        asyncio.run(ledger.resumed(job, RESUMES))
    with pytest.raises(Interrupted, match="went away too often"):
        asyncio.run(ledger.resumed(job, RESUMES))
    assert whats(ledger, job) == ["admitted", *["resumed"] * RESUMES]  # counted in the log: a restart forgets nothing


@pytest.mark.parametrize("now", [State.ADMITTED, State.RUNNING])
@pytest.mark.parametrize(
    ("error", "then"), [(OutputWithheld("few", party="bank"), State.REFUSED), (JobFailed("broke"), State.FAILED)]
)
def test_a_refusal_ends_a_job_as_one_whether_or_not_it_runs_here_yet(
    ledger: Ledger, now: State, error: SandboxError, then: State
) -> None:
    job = made(ledger, f"{now}{then}")
    with ledger.store.write() as conn:
        conn.execute(update(jobs).where(jobs.c.job_id == job.job_id).values(state=int(now)))
    failure = Failure(type(error).__name__, "bank", "gate", "c", "c", "n", "n")
    assert asyncio.run(ledger.stop(job, error, failure))
    with ledger.store.read() as conn:
        assert record.read(conn, job.job_id).state is then
    assert whats(ledger, job) == ["admitted", then.name.lower()]


def test_under_a_scenario_that_ended_meanwhile_nothing_is_taken_up(ledger: Ledger) -> None:
    job = made(ledger, "revoked")
    digest = job.plan.scenario_digest
    notice = Notice(digest, "bank", NoticeKind.REVOKED, "over", signed.now_ms(), 1, "bank")
    revocation = signed.sign(ledger.keys.identity, "notice", notice)
    with ledger.store.write() as conn:
        book.notify(conn, revocation, ledger.keys.identity.public, "bank")
    with pytest.raises(PolicyRefused, match="not active any more") as refusal:
        asyncio.run(ledger.resumed(job, RESUMES))
    assert refusal.value.stage == "resume" and whats(ledger, job) == ["admitted"]


def test_what_can_be_taken_up_ran_in_parts_and_released_nothing(ledger: Ledger) -> None:
    job = made(ledger, "parts")
    assert not asyncio.run(ledger.can_resume(job))
    asyncio.run(ledger.keep(job, SETTING, b"{}"))
    assert asyncio.run(ledger.can_resume(job))
    assert not asyncio.run(ledger.can_resume(replace(job, state=State.ADMITTED)))
    asyncio.run(ledger.release(job, RawResult({"rows": 400, "group.shared": 400}, {}, {})))
    assert not asyncio.run(ledger.can_resume(job))  # shares may be on their way: never released twice


def test_quota_is_spent_once_and_parts_that_are_asked_again_count_again(ledger: Ledger) -> None:
    job = made(ledger, "again")
    row = {"code": LEFT.code, "version": LEFT.version, "name": "loans", "schema_json": b"{}", "rows": 601}
    row |= {"content_hash": b"L" * 32, "state": "active", "created_ms": 0, "licence": "", "retention_days": 0}
    row |= {"schema_digest": bytes(32), "department": "", "domain": "", "keywords": "", "update_days": 0, "as_of": ""}
    row |= {"visible_to": "", "profile": b"{}", "words": "loans"}
    with ledger.store.write() as conn:
        conn.execute(insert(datasets).values(**row))
    for _ in range(3):
        asyncio.run(ledger.spend(job))
    assert state_of(ledger, job) == ("spent", 1, 600)
    asyncio.run(ledger.charge_again(job, 1, 10))
    assert state_of(ledger, job) == ("spent", 1, 661)  # a part of ten, rounded up
    asyncio.run(ledger.charge_again(job, 3, 10))
    assert state_of(ledger, job) == ("spent", 1, 661 + 181)


# --- trails ---------------------------------------------------------------------------------------------------------


def test_a_trail_is_that_party_s_word_about_this_job_alone(ledger: Ledger) -> None:
    job = made(ledger, "trail")
    entry = TrailEntry("operator", 4, "admitted", bytes(32), 1)
    good = signed.sign(OTHER, "trail", TrailReport(job.job_id, (entry,)))
    asyncio.run(ledger.their_trail(job, "operator", OTHER.public, good))
    bad: list[tuple[Signed, type[SandboxError]]] = [
        (signed.sign(OFFICER, "trail", TrailReport(job.job_id, (entry,))), Unauthenticated),
        (signed.sign(OTHER, "grant", TrailReport(job.job_id, (entry,))), Unauthenticated),
        (signed.sign(OTHER, "trail", TrailReport(JOB, (entry,))), InvalidSpec),
        (signed.sign(OTHER, "trail", TrailReport(job.job_id, (replace(entry, party="bank"),))), InvalidSpec),
    ]
    for report, kind in bad:
        with pytest.raises(kind):
            asyncio.run(ledger.their_trail(job, "operator", OTHER.public, report))
    with ledger.store.read() as conn:
        assert record.view(conn, job.job_id).trail == (entry,)


# --- what is kept for later jobs ------------------------------------------------------------------------------------

KEY, SOURCE = bytes(range(16)), b"s" * 32


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    kept = Store.at(tmp_path / "store.db")
    kept.create()
    yield kept
    kept.close()


def keep(store: Store, folder: Path, name: str, content: bytes, source: bytes = SOURCE, now: int = 1) -> None:
    with store.write() as conn:
        cache.keep(conn, folder, KEY, name, content, source, now)


def fetch(store: Store, folder: Path, name: str, now: int = 2, key: bytes = KEY) -> bytes:
    with store.write() as conn:
        return cache.fetch(conn, folder, key, name, now)


def known(store: Store, name: str) -> bool:
    with store.read() as conn:
        return cache.known(conn, name)


def test_what_is_kept_is_sealed_private_and_replaced_whole(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    assert fetch(store, folder, "a") == b"" and not known(store, "a")
    keep(store, folder, "a", b"a secret and a set")
    (first,) = folder.iterdir()
    assert stat.S_IMODE(first.stat().st_mode) == 0o600 and stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert b"secret" not in first.read_bytes() and fetch(store, folder, "a") == b"a secret and a set"
    keep(store, folder, "a", b"another")
    (second,) = folder.iterdir()
    assert second != first and fetch(store, folder, "a") == b"another" and known(store, "a")


def test_what_is_damaged_or_gone_is_forgotten_and_made_anew(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    ways: list[Callable[[Path], Any]] = [
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"),
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
    ]
    for spoil in ways:
        keep(store, folder, "a", b"content")
        (path,) = folder.iterdir()
        spoil(path)
        assert fetch(store, folder, "a") == b"" and not known(store, "a") and list(folder.iterdir()) == []
    keep(store, folder, "a", b"content")
    assert fetch(store, folder, "a", key=bytes(16)) == b""  # another node's


def test_a_file_under_another_name_does_not_open(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    keep(store, folder, "a", b"of a")
    keep(store, folder, "b", b"of b")
    with store.write() as conn:
        files = {row.name: row.file for row in conn.execute(select(cached))}
        conn.execute(update(cached).where(cached.c.name == "a").values(file=files["b"]))
    assert fetch(store, folder, "a") == b""


def test_the_one_unused_for_longest_goes_first(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    for number in range(cache.MOST):
        keep(store, folder, f"n{number}", b"x", now=number)
    assert fetch(store, folder, "n0", now=1000) == b"x"
    keep(store, folder, "one more", b"x", now=2000)
    assert len(list(folder.iterdir())) == cache.MOST
    assert known(store, "n0") and not known(store, "n1") and known(store, "n2") and known(store, "one more")


def test_what_came_of_a_dataset_goes_with_it(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    keep(store, folder, "a", b"x", b"1" * 32)
    keep(store, folder, "b", b"y", b"1" * 32)
    keep(store, folder, "c", b"z", b"2" * 32)
    with store.write() as conn:
        cache.forget_source(conn, folder, b"1" * 32)
    assert [known(store, name) for name in "abc"] == [False, False, True]
    assert len(list(folder.iterdir())) == 1 and fetch(store, folder, "c") == b"z"
