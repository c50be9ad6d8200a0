"""Held jobs on real nodes: nothing leaves until two people of the other owner have looked, and nobody gets round it."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
from conftest import Data
from node_world import (
    BANK,
    OPERATOR,
    PEOPLE_SCHEMA,
    SHARED,
    World,
    bank_rows,
    joint_rules,
    operator_rows,
    people_table,
    ref,
)
from sqlalchemy import select, update
from test_nodes_failures import kill, restart

from sandbox import signed
from sandbox.client import specs
from sandbox.errors import NotFound, OutputWithheld, PolicyRefused, SentBack, WrongState
from sandbox.model import Decision, JobView, PsiEngine, PsiOutput, Recipient, ReviewDecision, ReviewVerdict, State
from sandbox.store import artefacts, results, reviews

LOOKED_AT = joint_rules(size={"reviewed": True}, members={"reviewed": True})


@pytest.fixture(scope="module")
def reviewed(world: World, data: Data) -> bytes:
    return world.approved(world.joint({data.bank: (), data.operator: ()}, outputs=LOOKED_AT))


def ask(world: World, data: Data, digest: bytes, output: PsiOutput = PsiOutput.MEMBERS) -> JobView:
    """Submit a job whose output people have to look at, and wait until it is held at both nodes."""
    job = world.align(digest, data.bank, data.operator, engine=PsiEngine.ECDH_SM2, output=output)
    world.held(job.job_id)
    return job


def entries(world: World, node: str, job_id: str) -> list[str]:
    client = {"bank": world.bank_owner, "operator": world.op_owner}[node]
    return [logged.entry.what for logged in client.entries(job_id=job_id)]


def test_two_people_of_the_other_owner_let_it_out(world: World, data: Data, reviewed: bytes) -> None:
    job = ask(world, data, reviewed)
    first, second = world.clients["first-reviewer"], world.clients["second-reviewer"]
    waiting = world.officer.job(job.job_id)
    assert waiting.state is State.HELD and waiting.fee is None
    assert all(stage.bytes == 0 and stage.milliseconds % 100 == 0 for stage in waiting.stages)
    with pytest.raises(WrongState, match="held, not released"):
        world.officer.result(job.job_id)
    assert world.select("bank", select(results.c.job_id).where(results.c.job_id == job.job_id)) == []

    assert job.job_id in [view.job_id for view in first.reviews()]
    page = first.review(job.job_id)
    assert (page.merchant, page.recipient_node, page.approvals_needed, page.state) == (
        "Example Bank",
        "bank",
        2,
        "held",
    )
    assert [(rule.name, rule.reviewed) for rule in page.outputs] == [("members", True)]
    assert [(check.check, check.found) for check in page.checks] == [("rows at most", str(SHARED))]

    after = first.decide(job.job_id, Decision.APPROVE)
    assert [(one.reviewer, one.decision) for one in after.decisions] == [("first-reviewer", Decision.APPROVE)]
    assert world.officer.job(job.job_id).state is State.HELD
    with pytest.raises(PolicyRefused, match="decided on this job already"):
        first.decide(job.job_id, Decision.APPROVE)
    second.decide(job.job_id, Decision.APPROVE)
    done = world.released(job)
    outcome = world.officer.result(job.job_id, world.trust())
    assert len(outcome.outputs["members"]) == SHARED and done.fee is not None
    assert entries(world, "operator", job.job_id) == ["admitted", "held", "reviewed", "reviewed", "released"]
    assert entries(world, "bank", job.job_id)[:3] == ["admitted", "held", "released"]
    for node in ("bank", "operator"):
        assert world.select(node, select(artefacts.c.name).where(artefacts.c.job_id == job.job_id)) == []
    assert first.review(job.job_id).state == "released"
    with pytest.raises(WrongState, match="not held"):
        first.decide(job.job_id, Decision.REFUSE, "too late")


def test_a_refusal_has_the_one_wording_and_its_reason_stays_with_the_owner(
    world: World, data: Data, reviewed: bytes
) -> None:
    job = ask(world, data, reviewed)
    world.clients["first-reviewer"].decide(job.job_id, Decision.APPROVE)
    world.clients["second-reviewer"].decide(job.job_id, Decision.REFUSE, "the purpose has changed")
    for client in (world.officer, world.op_owner):
        view = world.ended(job.job_id, client)
        assert view.state is State.REFUSED and view.failure is not None
        assert (view.failure.code, view.failure.cause) == ("OutputWithheld", OutputWithheld.public)
        assert (view.failure.party, view.failure.stage) == ("", "gate")
        assert "purpose has changed" not in repr(view)
    home = world.home("operator")
    try:
        assert home.reason(job.job_id) == "refused by a reviewer: the purpose has changed"
    finally:
        home.store.close()


def test_what_is_sent_back_says_why(world: World, data: Data, reviewed: bytes) -> None:
    job = ask(world, data, reviewed)
    world.clients["first-reviewer"].decide(job.job_id, Decision.SEND_BACK, "ask for the size only")
    view = world.ended(job.job_id)
    assert view.state is State.REFUSED and view.failure is not None
    assert (view.failure.code, view.failure.next_step) == ("SentBack", "ask for the size only")
    with pytest.raises(SentBack):
        world.officer.wait(job.job_id)


def test_nobody_decides_who_must_not(world: World, data: Data, reviewed: bytes) -> None:
    job = ask(world, data, reviewed)
    with pytest.raises(PolicyRefused, match="no role"):
        world.op_owner.decide(job.job_id, Decision.APPROVE)
    with pytest.raises(PolicyRefused, match="not for people of the author's organisation"):
        world.clients["bank-reviewer"].review(job.job_id)
    with pytest.raises(NotFound):
        world.clients["first-reviewer"].review("00" * 16)
    first = world.clients["first-reviewer"]
    page = first.review(job.job_id)
    with pytest.raises(WrongState, match="not what was looked at"):
        first.decide(job.job_id, Decision.APPROVE, view=replace(page, evidence_digest=bytes(32)))
    with pytest.raises(WrongState, match="not what was looked at"):
        first.decide(job.job_id, Decision.APPROVE, view=replace(page, plan_digest=bytes(32)))
    assert first.review(job.job_id).decisions == ()
    with pytest.raises(WrongState, match="not held for review here"):  # the author's own organisation decides nothing
        world.clients["bank-reviewer"].decide(job.job_id, Decision.APPROVE, view=page)
    # Another's decision in one's own request:
    made = ReviewDecision(job.job_id, page.plan_digest, page.evidence_digest, Decision.APPROVE, "", signed.now_ms())
    stolen = signed.sign(world.people["second-reviewer"].identity, "review", made)
    with pytest.raises(Exception, match=r"signature|signed"):
        first._line.call("ReviewService/DecideReview", ReviewVerdict(stolen), repeatable=False)
    world.officer.cancel(job.job_id)
    for client in (world.officer, world.op_owner):
        assert world.ended(job.job_id, client).state is State.CANCELLED


def test_an_end_to_the_scenario_ends_what_is_held(world: World, data: Data) -> None:
    digest = world.approved(world.joint({data.bank: (), data.operator: ()}, outputs=LOOKED_AT))
    job = ask(world, data, digest)
    world.op_owner.revoke_scenario(digest, "no longer")
    for client in (world.officer, world.op_owner):
        assert world.ended(job.job_id, client).state is State.CANCELLED
    with pytest.raises(WrongState, match="not held"):
        world.clients["first-reviewer"].decide(job.job_id, Decision.APPROVE)


@pytest.mark.long
def test_a_held_job_outlives_restarts_and_expires_by_itself(mended: World) -> None:
    bank = mended.register("bank-owner", bank_rows(), BANK)
    operator = mended.register("op-owner", operator_rows(), OPERATOR)
    pair = Data(bank, operator)
    digest = mended.approved(mended.joint({bank: (), operator: ()}, outputs=LOOKED_AT))
    stays, goes = ask(mended, pair, digest), ask(mended, pair, digest)
    mended.clients["first-reviewer"].decide(stays.job_id, Decision.APPROVE)
    kill(mended, "bank")
    mended.clients["second-reviewer"].decide(stays.job_id, Decision.APPROVE)  # the bank is not told
    home = mended.home("operator")
    try:
        with home.store.write() as conn:
            conn.execute(update(reviews).where(reviews.c.job_id == goes.job_id).values(due_ms=signed.now_ms()))
    finally:
        home.store.close()
    kill(mended, "operator")
    restart(mended, "operator")
    restart(mended, "bank")
    # Whoever was away is told again in the next round, which may be a minute off.
    assert mended.ended(stays.job_id, timeout_s=150).state is State.RELEASED
    assert mended.ended(goes.job_id, timeout_s=150).state is State.EXPIRED
    failure = mended.ended(goes.job_id, mended.op_owner).failure
    assert failure is not None and (failure.code, failure.party) == ("Expired", "operator")


def test_one_row_more_or_less_is_not_asked_twice(world: World) -> None:
    """Two harmless sizes whose difference is one person: the second is withheld, whoever of one control asks."""
    right = world.register("op-owner", people_table(700, 50_200), PEOPLE_SCHEMA)
    rows = people_table(600, 50_000)

    def size(table: pa.Table, person: str, controller: str, merchant: str = "Example Bank") -> JobView:
        left = world.register("bank-owner", table, PEOPLE_SCHEMA)
        card = signed.open_key_card(world.people[person].card)
        draft = replace(
            world.joint({left: (), right: ()}, controller=controller, merchant=merchant),
            applicant_key=card.identity_key,
            recipient=Recipient("bank", card.identity_key, card.sealing.key),
        )
        digest = world.approved(draft, person=person)
        spec = specs.align(digest, ref(left), ref(right), PsiEngine.AUTO, output=PsiOutput.SIZE)
        client = world.clients[person]
        return world.ended(client.submit(spec).job_id, client)

    assert size(rows, "officer", "Patient Holding").state is State.RELEASED
    second = [
        size(rows.slice(1), "officer", "Patient Holding"),
        size(rows.slice(0, 599), "officer", "patient holding"),
        size(rows.slice(1), "officer", "", "Another Name"),  # the same person asks
        size(rows.slice(1), "clerk", "Patient Holding", "A Daughter"),  # another, of one control
    ]
    for view in second:
        assert view.state is State.REFUSED and view.failure is not None
        assert view.failure.cause == OutputWithheld.public
    assert size(rows.slice(1), "clerk", "Somebody Else", "Nobody's Daughter").state is State.RELEASED
    assert size(rows.slice(40), "officer", "Patient Holding").state is State.RELEASED
    assert size(rows, "officer", "Patient Holding").state is State.RELEASED  # the same question once more
