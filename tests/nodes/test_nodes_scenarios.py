"""Approvals, revocation, consent, and the gate's one wording, on real nodes."""

from __future__ import annotations

import dataclasses
import secrets
from typing import Any

import pytest
from conftest import Data, Flow
from node_world import PEOPLE_SCHEMA, PURPOSE, SHARED_ID, World, counting, people_table, ref
from sqlalchemy import select

from sandbox import signed, wire
from sandbox.client import Outcome, specs
from sandbox.client.specs import Applicant
from sandbox.crypto.envelope import seal_to
from sandbox.crypto.sm3 import sm3, tagged
from sandbox.errors import BudgetSpent, InvalidSpec, OutputWithheld, PolicyRefused, Unauthenticated, WrongState
from sandbox.model import (
    ApplicantInput,
    ApplicantScore,
    ConsentToken,
    JobView,
    OutputClass,
    Quota,
    ScoreSpec,
    SealedInput,
    Signed,
    State,
)
from sandbox.policy.admit import REFUSALS
from sandbox.store import consents, usage

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
