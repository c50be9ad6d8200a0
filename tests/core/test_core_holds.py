"""Held jobs at one node: what was decided or told is acted on after a crash, once, and by nobody who must not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from core_builders import OTHER, scenario
from test_core_ledger import made

from sandbox import keyring, review, signed, wire
from sandbox.errors import PolicyRefused, SandboxError, WrongState
from sandbox.exchange import Setting
from sandbox.gate.judge import Evidence
from sandbox.holds import Holds
from sandbox.home import Home, init
from sandbox.ledger import Ledger
from sandbox.model import Decision, GrantStatement, Notice, NoticeKind, RawResult, ReviewDecision, ReviewVerdict, State
from sandbox.peer.failures import failure_of
from sandbox.policy import book
from sandbox.record import Job

REVIEWED = tuple(replace(rule, reviewed=rule.name == "aligned") for rule in scenario().outputs)


@dataclass
class Links:
    """The other nodes' door: keeps what was said there."""

    said: list[tuple[str, str]] = field(default_factory=list)

    async def grant(self, party: str, statement: Any) -> None:
        self.said.append((party, wire.decode(GrantStatement, statement.payload).round))


class Desk:
    """One node with a held job, and its reviewers."""

    def __init__(self, home: Home, folder: Path) -> None:
        self.home, self.links = home, Links()
        self.ledger = Ledger(home.path, home.settings, home.keys, home.store, lambda: {})
        self.people = {}
        for name, organisation in (("li", "Audit House"), ("wang", "Audit House"), ("chen", "Example Bank")):
            self.people[name] = keyring.create_person(folder / name, name, organisation)
            home.register_key(self.people[name].card, ["reviewer"])
        self.taken_up: list[str] = []
        exchange: Any = SimpleNamespace(links=self.links, failure=lambda error, stage: failure_of(error, "bank", stage))
        self.holds = Holds(
            self.ledger, exchange, lambda job: self.taken_up.append(job.job_id), self.taken_up.__contains__
        )

    def hold(self, name: str) -> Job:
        job = made(self.ledger, name, outputs=REVIEWED)
        with self.ledger.store.write() as conn:
            found = [Evidence("aligned", "group.shared", 10, 400)]
            review.keep(conn, self.home.keys.node_key, job, self.ledger.scenario(job.plan), found, b"")
        asyncio.run(self.holds.hold(job, Setting({"bank": 600, "operator": 900}, bytes(32)), RawResult({}, {}, {})))
        return asyncio.run(self.ledger.job(job.job_id))

    def decision(self, who: str, job: Job, decision: Decision, reason: str = "") -> Any:
        with self.ledger.store.read() as conn:
            page = review.evidence(conn, self.home.keys.node_key, job.job_id)
        digest = review.evidence_digest(job.plan_digest, page)
        value = ReviewDecision(job.job_id, job.plan_digest, digest, decision, reason, signed.now_ms())
        return signed.sign(self.people[who].identity, "review", value)

    def registered(self, who: str) -> Any:
        [found] = [one for one in self.home.registered() if one.name == who and not one.revoked]
        return found

    def decide(self, who: str, job: Job, decision: Decision, reason: str = "") -> None:
        verdict = ReviewVerdict(self.decision(who, job, decision, reason))
        asyncio.run(self.holds.decide(job.job_id, verdict, self.registered(who), lambda conn: None))

    def state(self, job: Job) -> State:
        return asyncio.run(self.ledger.job(job.job_id)).state

    def word(self, job: Job, party: str, which: str) -> GrantStatement:
        """Another party's word, as it is stored before anybody acts on it."""
        value = GrantStatement(party, job.job_id, job.plan_digest, job.plan.recipient, which)
        statement = signed.sign(OTHER, "grant", value)
        asyncio.run(self.ledger.take_grant(party, OTHER.public, statement))
        return value


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    init(tmp_path / "bank", node_id="bank", organisation="Example Public Data Operator", listen="127.0.0.1:1")
    home = Home(tmp_path / "bank")
    yield Desk(home, tmp_path)
    home.store.close()


def test_two_approve_and_the_others_leave_is_waited_for(desk: Desk) -> None:
    job = desk.hold("two")
    desk.decide("li", job, Decision.APPROVE)
    assert (desk.links.said, desk.taken_up) == ([], [])
    desk.decide("wang", job, Decision.APPROVE)
    assert (desk.links.said, desk.taken_up) == ([("operator", "after")], [])
    asyncio.run(desk.holds.told(desk.word(job, "operator", "after"), True))
    assert desk.taken_up == [job.job_id]
    with pytest.raises(WrongState, match="approved this job already"):
        desk.decide("li", job, Decision.REFUSE, "too late")


def test_a_refusal_that_a_crash_left_behind_is_acted_on(desk: Desk) -> None:
    job = desk.hold("crash")
    with desk.ledger.store.write() as conn:
        for who, decision in (("li", Decision.APPROVE), ("wang", Decision.REFUSE)):
            made = desk.decision(who, job, decision, "no")
            review.decide(conn, desk.home.keys.node_key, job, made, desk.registered(who), frozenset())
    asyncio.run(desk.holds.tend_all())
    assert desk.state(job) is State.REFUSED and ("operator", "withheld") in desk.links.said
    assert ("operator", "after") not in desk.links.said and desk.home.reason(job.job_id) == "refused by a reviewer: no"


def test_the_approval_of_a_key_that_was_revoked_does_not_count(desk: Desk) -> None:
    job = desk.hold("stolen")
    desk.decide("li", job, Decision.APPROVE)
    desk.home.revoke_key(desk.registered("li").key_id)
    desk.decide("wang", job, Decision.APPROVE)
    assert (desk.state(job), desk.links.said) == (State.HELD, [])


def test_whoever_is_of_the_authors_organisation_neither_sees_nor_decides(desk: Desk) -> None:
    job = desk.hold("own")
    with pytest.raises(PolicyRefused, match="author's organisation"):
        desk.decide("chen", job, Decision.APPROVE)
    with desk.ledger.store.read() as conn, pytest.raises(PolicyRefused, match="author's organisation"):
        review.check_reader(conn, job, desk.registered("chen"), desk.holds.authors(conn, job.job_id))


def test_owners_do_not_answer_each_other_without_end(desk: Desk) -> None:
    job = desk.hold("storm")
    for who in ("li", "wang"):
        desk.decide(who, job, Decision.APPROVE)
    before = len(desk.links.said)
    again = GrantStatement("operator", job.job_id, job.plan_digest, job.plan.recipient, "after")
    for _ in range(20):
        asyncio.run(desk.holds.told(again, False))
    assert len(desk.links.said) == before  # told a moment ago


@pytest.mark.parametrize(
    ("party", "which", "then"),
    [
        ("operator", "withheld", State.REFUSED),
        ("operator", "sent back", State.REFUSED),
        ("operator", "cancelled", State.CANCELLED),
        ("operator", "expired", State.EXPIRED),
    ],
)
def test_another_partys_end_that_came_before_is_found(desk: Desk, party: str, which: str, then: State) -> None:
    job = desk.hold(f"end {which}"[:16])
    desk.word(job, party, which)
    asyncio.run(desk.holds.tend(job.job_id))
    assert desk.state(job) is then


@pytest.mark.parametrize(("party", "which"), [("witness", "withheld"), ("operator", "approved by everybody")])
def test_nobody_speaks_out_of_turn(desk: Desk, party: str, which: str) -> None:
    job = desk.hold(f"turn {which}"[:16])
    with pytest.raises(SandboxError):
        desk.word(job, party, which)
    asyncio.run(desk.holds.tend(job.job_id))
    assert desk.state(job) is State.HELD


def test_under_a_scenario_that_ended_nothing_is_held_any_longer(desk: Desk) -> None:
    job = desk.hold("over")
    digest = job.plan.scenario_digest
    value = Notice(digest, "bank", NoticeKind.REVOKED, "over", signed.now_ms(), 1, "bank")
    with desk.ledger.store.write() as conn:
        revocation = signed.sign(desk.home.keys.identity, "notice", value)
        book.notify(conn, revocation, desk.home.keys.identity.public, "bank")
    asyncio.run(desk.holds.tend_all())
    assert desk.state(job) is State.REFUSED and ("operator", "cancelled") in desk.links.said


def test_what_is_released_already_is_not_ended_by_people(desk: Desk) -> None:
    job = desk.hold("released")
    asyncio.run(desk.ledger.release(job, RawResult({"rows": 400}, {}, {})))
    desk.word(job, "operator", "cancelled")
    asyncio.run(desk.holds.tend(job.job_id))
    assert desk.state(job) is State.HELD
    asyncio.run(desk.ledger.release(job, RawResult({"rows": 400}, {}, {})))  # taken up again
    entered = [entry.what for entry in asyncio.run(desk.ledger.own_trail(job)).entries]
    assert entered.count("released") == 1
