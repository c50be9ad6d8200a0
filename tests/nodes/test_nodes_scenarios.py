"""Approvals, revocation, consent, and the gate's one wording, on real nodes."""

from __future__ import annotations

import dataclasses
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import Data, Flow
from node_world import PEOPLE_SCHEMA, PURPOSE, SHARED_ID, World, counting, people_table, ref
from sqlalchemy import select

from sandbox import keyring, signed, wire
from sandbox.client import Client, Difference, Outcome, differences, read_scenario, specs
from sandbox.client.datasets import Terms
from sandbox.client.specs import Applicant
from sandbox.crypto.envelope import seal_to
from sandbox.crypto.sm3 import sm3, tagged
from sandbox.errors import (
    BudgetSpent,
    InvalidSpec,
    NotFound,
    OutputWithheld,
    PolicyRefused,
    Unauthenticated,
    WrongState,
)
from sandbox.model import (
    ApplicantInput,
    ApplicantScore,
    ApprovalRecord,
    ConsentToken,
    DatasetView,
    JobView,
    NoticeKind,
    OutputClass,
    Quota,
    ScoreSpec,
    SealedInput,
    Signed,
    State,
)
from sandbox.policy.admit import REFUSALS
from sandbox.store import approvals, consents, usage

WITHHELD = OutputWithheld.public


# --- approval and revocation ----------------------------------------------------------------------------------------


def test_nothing_runs_before_everybody_approved(world: World, data: Data) -> None:
    digest = world.officer.apply_scenario(world.draft(data.bank, data.operator)).digest
    for client in (world.op_owner, world.bank_owner, world.regulator):
        with pytest.raises(PolicyRefused) as refusal:
            world.align(digest, data.bank, data.operator)
        assert refusal.value.tell == REFUSALS["awaiting"]
        client.approve_scenario(digest)
    for client in (world.op_owner, world.bank_owner, world.regulator):
        (view,) = [view for view in client.scenarios(limit=500) if view.digest == digest]
        assert (view.state, view.approved_by, view.awaiting) == ("active", ("bank", "operator", "witness"), ())
    world.released(world.align(digest, data.bank, data.operator))


def test_the_applicant_cannot_approve_even_with_the_role(world: World, data: Data) -> None:
    home = world.home("bank")
    officer = world.people["officer"]
    digest = world.officer.apply_scenario(world.draft(data.bank, data.operator)).digest
    try:
        home.register_key(officer.card, ["submitter", "owner"])
        with pytest.raises(PolicyRefused, match="the applicant cannot approve"):
            world.officer.approve_scenario(digest)
    finally:
        home.register_key(officer.card, ["submitter"])
        home.store.close()
    (view,) = [view for view in world.officer.scenarios(limit=500) if view.digest == digest]
    assert view.approved_by == ()


def test_an_application_below_the_floors_is_refused_by_field(world: World, data: Data) -> None:
    draft = world.draft(data.bank, data.operator)
    low = tuple(
        dataclasses.replace(rule, min_group=5) if rule.class_ is OutputClass.AGGREGATE else rule
        for rule in draft.outputs
    )
    with pytest.raises(InvalidSpec, match=r"outputs.aligned.min_group is below 10"):
        world.officer.apply_scenario(dataclasses.replace(draft, outputs=low))
    clerk_key = world.people["clerk"].identity.public.to_bytes()
    with pytest.raises(Unauthenticated):
        world.officer.apply_scenario(dataclasses.replace(draft, applicant_key=clerk_key))


def test_only_the_applicant_submits(world: World, data: Data, scenario: bytes) -> None:
    with pytest.raises(PolicyRefused) as refusal:
        world.clients["clerk"].align(scenario, ref(data.bank), ref(data.operator))
    assert refusal.value.tell == REFUSALS["submitter"]


def test_revoked_at_the_operator_stops_what_runs_and_refuses_the_next(world: World) -> None:
    bank = world.register("bank-owner", people_table(60_000), PEOPLE_SCHEMA)
    operator = world.register("op-owner", people_table(60_000, 1000), PEOPLE_SCHEMA)
    digest = world.approved(world.draft(bank, operator, **counting(world.draft(bank, operator))))
    job = world.align(digest, bank, operator)
    world.reached(job.job_id, "compute")
    view = world.op_owner.revoke_scenario(digest, "the purpose has ended")
    assert view.state == "revoked"
    ended = world.ended(job.job_id)
    assert (ended.state, world.ended(job.job_id, world.op_owner).state) == (State.CANCELLED, State.CANCELLED)
    with pytest.raises(PolicyRefused) as refusal:
        world.align(digest, bank, operator)
    assert refusal.value.tell == REFUSALS["revoked"]
    for client in (world.bank_owner, world.regulator):
        assert "revoked" in {v.state for v in client.scenarios(limit=500) if v.digest == digest}
    with pytest.raises(WrongState, match="the scenario is revoked"):
        world.bank_owner.approve_scenario(digest)


# --- asked to change, suspended, amended ----------------------------------------------------------------------------


def state_at(client: Client, digest: bytes) -> str:
    return client.find_scenario(digest).state


def refused_as(world: World, digest: bytes, data: Data) -> str:
    with pytest.raises(PolicyRefused) as refusal:
        world.align(digest, data.bank, data.operator)
    return refusal.value.tell


def test_an_application_with_gaps_is_refused_once_with_all_of_them(world: World, data: Data) -> None:
    draft = world.draft(data.bank, data.operator)
    assert draft.outline is not None
    gaps = dataclasses.replace(
        draft,
        outline=dataclasses.replace(draft.outline, supply="monthly", field_of_use=""),
        quota=Quota(5, 5, 0),
        consent=dataclasses.replace(draft.consent, sources=(), letter_days=0),
    )
    with pytest.raises(InvalidSpec) as refusal:
        world.officer.apply_scenario(gaps)
    missing = ("outline.supply", "outline.field_of_use", "quota.rows_total", "consent.sources", "consent.letter_days")
    assert all(f"{field} (" in refusal.value.tell for field in missing)
    assert "怎样供数" in refusal.value.tell and "purpose" not in refusal.value.tell


def test_asked_to_change_amended_and_approved(world: World, data: Data) -> None:
    first = world.officer.apply_scenario(world.draft(data.bank, data.operator)).digest
    world.bank_owner.approve_scenario(first)
    view = world.op_owner.ask_changes(first, "fewer calls, please")
    assert view.state == "changes"
    assert refused_as(world, first, data) == REFUSALS["changes"]
    assert [(told.party, told.kind, told.reason) for told in world.officer.find_scenario(first).notices] == [
        ("operator", NoticeKind.CHANGES, "fewer calls, please")
    ]
    with pytest.raises(WrongState, match="bank has approved the scenario already"):
        world.bank_owner.refuse_scenario(first, "second thoughts")
    with pytest.raises(WrongState, match="not approved by every party yet"):
        world.bank_owner.suspend_scenario(first, "too early")
    assert world.regulator.refuse_scenario(first, "no basis in law").state == "refused"
    assert refused_as(world, first, data) == REFUSALS["refused"]

    again = world.draft(data.bank, data.operator, amends=first, quota=Quota(20, 20, 10_000_000))
    second = world.officer.apply_scenario(again).digest
    assert state_at(world.bank_owner, first) == "refused"  # nobody has approved what would take its place
    found = {one.field: (one.before, one.after) for one in _changes(world.op_owner, second)}
    assert found["quota.calls_total"] == (200, 20) and "purpose" not in found
    for client in (world.bank_owner, world.op_owner, world.regulator):
        client.approve_scenario(second)
    for client in (world.officer, world.op_owner, world.regulator):
        assert (state_at(client, first), state_at(client, second)) == ("amended", "active")
    with pytest.raises(WrongState, match="the scenario is amended"):
        world.op_owner.approve_scenario(first)
    assert refused_as(world, first, data) == REFUSALS["amended"]
    world.released(world.align(second, data.bank, data.operator))
    with pytest.raises(WrongState, match="to be amended is amended"):
        world.officer.apply_scenario(world.draft(data.bank, data.operator, amends=first))
    with pytest.raises(NotFound, match="no scenario that the application could amend"):
        world.officer.apply_scenario(world.draft(data.bank, data.operator, amends=bytes(32)))
    assert world.officer.apply_scenario(again) is not None  # a retry of what was filed is no new amendment


def _changes(client: Client, digest: bytes) -> tuple[Difference, ...]:
    after = read_scenario(client.find_scenario(digest))
    return differences(read_scenario(client.find_scenario(after.amends)), after)


def test_suspended_and_resumed_by_the_same_party(world: World, slow: tuple[Data, bytes]) -> None:
    data, _ = slow
    draft = world.draft(data.bank, data.operator)
    digest = world.approved(dataclasses.replace(draft, **counting(draft)))
    job = world.align(digest, data.bank, data.operator)
    world.reached(job.job_id, "compute")
    assert world.regulator.suspend_scenario(digest, "an inquiry is under way").state == "suspended"
    states = (world.ended(job.job_id).state, world.ended(job.job_id, world.op_owner).state)
    assert states == (State.CANCELLED, State.CANCELLED)
    assert refused_as(world, digest, data) == REFUSALS["suspended"]
    for client in (world.bank_owner, world.op_owner):
        assert state_at(client, digest) == "suspended"
        with pytest.raises(WrongState, match="did not suspend it"):
            client.resume_scenario(digest)
    with pytest.raises(WrongState, match="suspended already"):
        world.regulator.suspend_scenario(digest, "once more")
    with pytest.raises(PolicyRefused, match="no role"):
        world.officer.suspend_scenario(digest, "I am only the applicant")
    world.op_owner.suspend_scenario(digest, "our own inquiry")
    assert world.regulator.resume_scenario(digest).state == "suspended"  # the operator's still stands
    assert world.op_owner.resume_scenario(digest).state == "active"
    again = world.align(digest, data.bank, data.operator)
    world.reached(again.job_id, "compute")

    successor = dataclasses.replace(draft, **counting(draft), nonce=secrets.token_bytes(16), amends=digest)
    world.approved(successor)
    assert world.ended(again.job_id).state is State.CANCELLED  # what ran under the old one
    told = [(one.party, one.kind) for one in world.officer.find_scenario(digest).notices]
    assert told == [
        ("witness", NoticeKind.SUSPENDED),
        ("operator", NoticeKind.SUSPENDED),
        ("witness", NoticeKind.RESUMED),
        ("operator", NoticeKind.RESUMED),
    ]


# --- source departments ---------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Bureau:
    """A source department whose data the operator's node holds, and somebody of another one."""

    view: DatasetView
    health: Client
    stranger: Client


@pytest.fixture(scope="module")
def bureau(world: World) -> Iterator[Bureau]:
    with ExitStack() as stack:
        clients = []
        for name, organisation in (("health", "Health Bureau"), ("roads", "Roads Bureau")):
            person = keyring.create_person(world.folder / name, name, organisation)
            home = world.home("operator")
            home.register_key(person.card, ["department"])
            home.store.close()
            clients.append(stack.enter_context(Client.connect(world.folder / name, world.nodes.cards["operator"])))
        path, described = world.folder / "insured.parquet", world.folder / "insured.schema.json"
        pq.write_table(people_table(500), path)
        described.write_text(json.dumps(PEOPLE_SCHEMA))
        terms = Terms(department="Health Bureau", grades_confirmed=True)
        yield Bureau(world.op_owner.register_dataset(path, described, "insured", terms=terms), *clients)


def test_a_department_approves_before_its_operator_may(world: World, data: Data, bureau: Bureau) -> None:
    bank = world.register("bank-owner", people_table(500), PEOPLE_SCHEMA)
    draft = world.draft(bank, bureau.view)
    digest = world.officer.apply_scenario(dataclasses.replace(draft, **counting(draft))).digest
    with pytest.raises(WrongState, match="awaiting the approval of: Health Bureau"):
        world.op_owner.approve_scenario(digest)
    assert world.op_owner.find_scenario(digest).awaiting_departments == ("Health Bureau",)
    assert world.bank_owner.find_scenario(digest).awaiting_departments == ()
    with pytest.raises(NotFound):
        bureau.stranger.approve_scenario(digest)
    assert bureau.stranger.scenarios() == ()
    assert [view.digest for view in bureau.health.scenarios()] == [digest]

    assert bureau.health.ask_changes(digest, "name the term of the loans").state == "changes"
    assert state_at(world.bank_owner, digest) == "changes"
    view = bureau.health.approve_scenario(digest)
    assert (view.awaiting_departments, view.state) == ((), "changes")  # the party itself has not approved yet
    for client in (world.op_owner, world.bank_owner, world.regulator):
        view = client.approve_scenario(digest)
    assert view.state == "active"
    query = select(approvals.c.record).where(approvals.c.digest == digest, approvals.c.party == "operator")
    (row,) = world.select("bank", query)
    record = wire.decode(ApprovalRecord, signed.read_signed(row.record).payload)
    assert [inside.department for inside in record.departments] == ["Health Bureau"]


def test_a_departments_suspension_is_its_own(world: World, scenario: bytes, bureau: Bureau) -> None:
    (view,) = bureau.health.scenarios()
    digest = view.digest
    assert bureau.health.suspend_scenario(digest, "the data are being corrected").state == "suspended"
    with pytest.raises(WrongState, match="suspended by Health Bureau"):
        world.op_owner.resume_scenario(digest)
    assert world.op_owner.suspend_scenario(digest, "so we wait as well").state == "suspended"
    view = bureau.health.resume_scenario(digest)
    assert view.state == "suspended" and view.notices[-1].reason == "so we wait as well"
    assert state_at(world.bank_owner, digest) == "suspended"
    assert world.op_owner.resume_scenario(digest).state == "active"
    assert state_at(world.bank_owner, digest) == "active"
    for say in (bureau.stranger.revoke_scenario, bureau.stranger.suspend_scenario):
        with pytest.raises(NotFound):
            say(digest, "none of our business")
    with pytest.raises(NotFound):
        bureau.health.revoke_scenario(scenario, "not about our data")
    assert bureau.health.revoke_scenario(digest, "our data may not be used for this").state == "revoked"
    assert state_at(world.regulator, digest) == "revoked"


# --- a party that was down ------------------------------------------------------------------------------------------


def settled(client: Client, digest: bytes, state: str) -> None:
    end = time.monotonic() + 30
    while (found := state_at(client, digest)) != state:
        assert time.monotonic() < end, f"it is {found} there, not {state}"
        time.sleep(0.1)


def test_a_party_that_was_down_learns_what_was_said(mended: World, frail_slow: tuple[Data, bytes]) -> None:
    world, (data, _) = mended, frail_slow
    draft = world.draft(data.bank, data.operator)
    digest = world.approved(dataclasses.replace(draft, **counting(draft)))
    world.nodes.stop("operator")
    assert world.bank_owner.suspend_scenario(digest, "the other side is away").state == "suspended"
    world.nodes.start("operator")
    world.nodes.wait("operator")
    settled(world.op_owner, digest, "suspended")  # asked when it came up; nobody else did anything
    assert refused_as(world, digest, data) == REFUSALS["suspended"]
    assert world.bank_owner.resume_scenario(digest).state == "active"
    assert state_at(world.op_owner, digest) == "active"


# --- few people -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [0, 9])
def test_few_shared_people_are_withheld_in_one_wording_on_both_sides(world: World, shared: int) -> None:
    bank = world.register("bank-owner", people_table(50), PEOPLE_SCHEMA)
    operator = world.register("op-owner", people_table(50, 50 - shared), PEOPLE_SCHEMA)
    digest = world.approved(world.draft(bank, operator, **counting(world.draft(bank, operator))))
    job = world.align(digest, bank, operator)
    told = [world.ended(job.job_id), world.ended(job.job_id, world.op_owner)]
    for view in told:
        assert view.state is State.REFUSED and view.failure is not None
        assert (view.failure.code, view.failure.cause) == ("OutputWithheld", WITHHELD)
        assert all(stage.bytes == 0 for stage in view.stages)
    with pytest.raises(WrongState, match="refused, not released"):
        world.officer.result(job.job_id)
    for node in ("bank", "operator"):
        rows = world.select(node, select(usage.c.state).where(usage.c.job_id == job.job_id))
        assert [row.state for row in rows] == ["spent"]


def test_a_side_of_few_rows_is_withheld_before_anything_is_sent(world: World) -> None:
    bank = world.register("bank-owner", people_table(9), PEOPLE_SCHEMA)
    operator = world.register("op-owner", people_table(50), PEOPLE_SCHEMA)
    digest = world.approved(world.draft(bank, operator, **counting(world.draft(bank, operator))))
    job = world.align(digest, bank, operator)
    for client in (world.officer, world.op_owner):
        view = world.ended(job.job_id, client)
        assert view.state is State.REFUSED and view.failure is not None
        assert (view.failure.code, view.failure.cause) == ("OutputWithheld", WITHHELD)
    for node in ("bank", "operator"):
        rows = world.select(node, select(usage.c.state).where(usage.c.job_id == job.job_id))
        assert [row.state for row in rows] == ["returned"]


# --- one applicant --------------------------------------------------------------------------------------------------


def scores(outcome: Outcome) -> dict[str, int]:
    table: Any = outcome.outputs["scores"]
    return dict(zip(table["id"], table["points"], strict=True))


def consent(world: World, scenario: bytes, person: str = SHARED_ID, **changes: Any) -> Signed:
    return world.clients["desk"].issue_consent(
        person, changes.get("scenario", scenario), changes.get("purpose", PURPOSE), changes.get("valid_s", 600)
    )


def ask(world: World, scenario: bytes, flow: Flow, token: Signed, person: str = SHARED_ID) -> JobView:
    cards = [world.nodes.cards[name] for name in ("bank", "operator")]
    return world.officer.score_applicant(scenario, flow.train.job_id, person, token, cards)


def test_an_applicant_gets_the_score_of_the_batch(world: World, scenario: bytes, flow: Flow) -> None:
    job = world.released(ask(world, scenario, flow, consent(world, scenario)))
    one = scores(world.officer.result(job.job_id, world.trust()))
    assert one == {SHARED_ID: scores(flow.outcomes["score"])[SHARED_ID]}


def test_an_id_is_found_however_it_is_written(world: World, scenario: bytes, flow: Flow) -> None:
    written = f"  {SHARED_ID.lower()} "
    job = world.released(ask(world, scenario, flow, consent(world, scenario, written), written))
    assert list(world.officer.result(job.job_id).outputs["scores"]["id"]) == [SHARED_ID]


def test_a_consent_serves_one_call_at_every_owner(world: World, scenario: bytes, flow: Flow) -> None:
    token = consent(world, scenario)
    job = world.released(ask(world, scenario, flow, token))
    with pytest.raises(BudgetSpent, match="consent was used already"):
        ask(world, scenario, flow, token)
    for node in ("bank", "operator"):
        rows = world.select(node, select(consents.c.state).where(consents.c.job_id == job.job_id))
        assert [row.state for row in rows] == ["spent"]


def test_consents_that_are_not_for_this(world: World, scenario: bytes, flow: Flow) -> None:
    issuer = world.people["desk"].identity
    expired = signed.sign(
        issuer, "consent", ConsentToken(SHARED_ID, scenario, PURPOSE, signed.now_ms() - 1, secrets.token_bytes(16))
    )
    by_clerk = world.clients["clerk"].issue_consent(SHARED_ID, scenario, PURPOSE, 600)
    cases = [
        (expired, "the consent has expired"),
        (by_clerk, "not signed by an issuer the scenario names"),
        (consent(world, scenario, purpose="advertising"), "another scenario or purpose"),
    ]
    for token, told in cases:
        with pytest.raises(PolicyRefused, match=told):
            ask(world, scenario, flow, token)


def test_a_consent_of_another_person_is_no_consent(world: World, scenario: bytes, flow: Flow) -> None:
    """A client without our checks: the input names one person, the token another."""
    cards = tuple(world.nodes.cards[name] for name in ("bank", "operator"))
    token = consent(world, scenario, "PERSON-00001")
    spec, inputs = specs.score_applicant(scenario, flow.train.job_id, Applicant("PERSON-00001", token, cards))
    opening = secrets.token_bytes(32)
    commitment = sm3(opening + SHARED_ID.encode())
    content = wire.encode(ApplicantInput(SHARED_ID, opening, token))
    sealed = tuple(
        SealedInput(card.node_id, seal_to(specs.sealing_key(card), content, tagged("applicant", commitment)))
        for card in cards
    )
    forged = dataclasses.replace(spec, kind=ScoreSpec(flow.train.job_id, ApplicantScore(commitment)))
    with pytest.raises(PolicyRefused, match="another person's"):
        world.officer.submit(forged, sealed)
    with pytest.raises(InvalidSpec, match="does not open"):
        world.officer.submit(forged, inputs)
    with pytest.raises(InvalidSpec, match="one sealed input for bank"):
        world.officer.submit(spec, inputs[1:])
    only_bank = world.officer.submit(dataclasses.replace(spec, request_id="only-bank"), inputs[:1])
    view = world.ended(only_bank.job_id)
    assert view.state is State.FAILED and view.failure is not None
    assert (view.failure.party, "one sealed input for operator" in view.failure.cause) == ("operator", True)


@pytest.mark.parametrize(
    ("person", "known_at"), [("PERSON-00599", "bank"), ("OTHER-00001", "operator"), ("NOBODY", "")]
)
def test_whether_somebody_is_in_a_dataset_is_not_told(
    world: World, scenario: bytes, flow: Flow, person: str, known_at: str
) -> None:
    job = ask(world, scenario, flow, consent(world, scenario, person), person)
    for client in (world.officer, world.op_owner):
        view = world.ended(job.job_id, client)
        assert view.state is State.REFUSED and view.failure is not None, known_at
        assert (view.failure.code, view.failure.cause) == ("OutputWithheld", WITHHELD)
    for node in ("bank", "operator"):
        (row,) = world.select(node, select(usage.c.state, usage.c.rows).where(usage.c.job_id == job.job_id))
        assert (row.state, row.rows) == ("spent", 1)  # asking counts


def test_the_operators_own_quota_holds_though_the_banks_would_not(world: World, data: Data) -> None:
    digest = world.approved(world.draft(data.bank, data.operator, quota=Quota(5, 5, 700)))  # the operator has 900
    job = world.ended(world.align(digest, data.bank, data.operator).job_id)
    assert job.state is State.FAILED and job.failure is not None
    assert (job.failure.code, job.failure.party) == ("BudgetSpent", "operator")
    (row,) = world.select("bank", select(usage.c.state).where(usage.c.job_id == job.job_id))
    assert row.state == "returned"
