"""Consents from three sources, withdrawals, and letters that are asked for, produced and judged, on real nodes."""

from __future__ import annotations

import dataclasses
import json
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Data
from node_world import CANARY, PURPOSE, SHARED_ID, World
from sqlalchemy import select
from typer.testing import CliRunner

from sandbox import keyring, wire
from sandbox.audit import log as audit_log
from sandbox.cli import app
from sandbox.client import Client, certify_subject, sign_consent, withdraw
from sandbox.client.consents import Challenged
from sandbox.crypto.sm3 import sm3
from sandbox.errors import BudgetSpent, InvalidSpec, NotFound, PolicyRefused, WrongState
from sandbox.model import ConsentSource, Entry, JobView, LetterState, PsiEngine, ScoreScope, Signed
from sandbox.policy.consent import token_digest
from sandbox.store import consents, withdrawn_consents

LETTER = f"%PDF-1.7 {CANARY} agrees, signed by hand".encode()
OWNERS = ("bank", "operator")


@dataclass(frozen=True)
class Own:
    """A scenario of this module's own, whose letters are all asked for, with a trained model."""

    digest: bytes
    model: str


@pytest.fixture(scope="module")
def own(world: World, data: Data) -> Own:
    draft = world.draft(data.bank, data.operator)
    rule = dataclasses.replace(draft.consent, most_uses=2, sample_permille=1000, letter_days=7)
    digest = world.approved(dataclasses.replace(draft, consent=rule))
    psi = world.released(world.align(digest, data.bank, data.operator, engine=PsiEngine.ECDH_X25519))
    train = world.released(world.officer.train(digest, psi.job_id, steps=2, seed=b"test"))
    return Own(digest, train.job_id)


def ask(world: World, own: Own, token: Signed, subject_key: Signed | None = None) -> JobView:
    cards = [world.nodes.cards[name] for name in OWNERS]
    return world.officer.score_applicant(own.digest, own.model, SHARED_ID, token, cards, subject_key=subject_key)


def issue(world: World, own: Own, uses: int = 1, source: ConsentSource = ConsentSource.ATTESTED) -> Signed:
    evidence = sm3(LETTER if source is ConsentSource.LETTER else b"the record of a text message")
    options = {"source": source, "evidence": evidence, "uses": uses}
    return world.clients["desk"].issue_consent(SHARED_ID, own.digest, PURPOSE, 600, **options)


def entries(world: World, node: str, job_id: str) -> dict[str, Entry]:
    home = world.home(node)
    try:
        with home.store.read() as conn:
            found = [wire.decode(Entry, leaf) for _, leaf in audit_log.for_job(conn, job_id)]
    finally:
        home.store.close()
    return {entry.what: entry for entry in found}


def until(look: Callable[[], Challenged | None], world: World, timeout_s: float = 30.0) -> Challenged:
    end = time.monotonic() + timeout_s
    while (found := look()) is None:
        assert time.monotonic() < end, world.logs()
        time.sleep(0.2)
    return found


def challenged(world: World, client: Client, job_id: str, *states: LetterState) -> Challenged:
    """Wait until a node has the challenge about a job, with letters in these states."""

    def look() -> Challenged | None:
        views = [view for view in client.challenges() if view.job_id == job_id]
        if not views or (states and {letter.state for letter in views[0].letters} != set(states)):
            return None
        return client.challenge(views[0].challenge_id)

    return until(look, world)


def cli(world: World, person: str, node: str, *words: object) -> Any:
    """Run `sandbox consent` as its users do, and return its answer."""
    shared = ("--key", world.folder / person, "--node", world.folder / f"{node}.peer", "--json")
    ended = CliRunner().invoke(app, ["consent", *map(str, (*words, *shared))])
    assert ended.exit_code == 0, ended.stderr
    return json.loads(ended.stdout)


def test_a_person_agrees_with_the_own_key(world: World, own: Own, tmp_path: Path) -> None:
    person, desk = keyring.create_person(tmp_path / "person", "person", "nobody's"), world.people["desk"]
    token = sign_consent(person, SHARED_ID, own.digest, PURPOSE, 600)
    word = certify_subject(desk, SHARED_ID, person.identity.public, 3600)
    for told, subject_key in (
        ("not signed by an issuer", None),
        ("not certified by an issuer", certify_subject(person, SHARED_ID, person.identity.public, 3600)),
        ("another person's", certify_subject(desk, "PERSON-00001", person.identity.public, 3600)),
    ):
        with pytest.raises(PolicyRefused, match=told):
            ask(world, own, token, subject_key)
    job = world.released(ask(world, own, token, word))
    assert list(world.officer.result(job.job_id, world.trust()).outputs["scores"]["id"]) == [SHARED_ID]
    for node in OWNERS:
        commitments = [one.name for one in entries(world, node, job.job_id)["admitted"].commitments]
        assert commitments == ["consent"]
        assert "challenged" not in entries(world, node, job.job_id)  # no letter stands behind it


def test_a_consent_for_two_calls_serves_two_at_every_owner(world: World, own: Own) -> None:
    token = issue(world, own, uses=2)
    for _ in range(2):
        world.released(ask(world, own, token))
    with pytest.raises(BudgetSpent, match="used already, 2 times"):
        ask(world, own, token)
    with pytest.raises(PolicyRefused, match="more calls than the scenario"):
        ask(world, own, issue(world, own, uses=3))
    spent = select(consents.c.state).where(consents.c.token == token_digest(token))
    for node in OWNERS:
        assert [row.state for row in world.select(node, spent)] == ["spent", "spent"]


def test_a_consent_that_was_withdrawn_at_one_owner_is_refused_at_all(world: World, own: Own, tmp_path: Path) -> None:
    token = issue(world, own, uses=2)
    world.released(ask(world, own, token))
    stranger = keyring.create_person(tmp_path / "stranger", "stranger", "nobody's")
    with pytest.raises(PolicyRefused, match="not signed by an issuer"):
        world.op_owner.withdraw_consent(withdraw(stranger, token))
    assert world.op_owner.withdraw_consent(withdraw(world.people["desk"], token)) == ("bank",)
    with pytest.raises(PolicyRefused, match="this consent was withdrawn"):
        ask(world, own, token)
    mine = select(withdrawn_consents.c.untold).where(withdrawn_consents.c.token == token_digest(token))
    for node in OWNERS:
        assert [row.untold for row in world.select(node, mine)] == [""]


def test_the_letter_behind_one_call_is_asked_for_produced_and_accepted(world: World, own: Own) -> None:
    reviewer = world.clients["first-reviewer"]
    job = world.released(ask(world, own, issue(world, own, source=ConsentSource.LETTER)))
    found = challenged(world, world.officer, job.job_id)
    challenge = found.view.challenge_id
    assert (found.persons, found.view.party, found.view.is_own) == ((SHARED_ID,), "operator", False)
    with pytest.raises(NotFound):
        world.clients["clerk"].challenge(challenge)
    assert world.bank_owner.challenge(challenge).persons == ()  # an auditor
    with pytest.raises(InvalidSpec, match="another SM3"):
        world.officer.produce_letter(challenge, 1, LETTER + b"?")
    with pytest.raises(WrongState, match="no letter to read"):
        reviewer.letter(challenge, 1)
    world.officer.produce_letter(challenge, 1, LETTER)
    assert reviewer.letter(challenge, 1) == LETTER
    kept = list((world.nodes.home("operator") / "letters").glob(f"{challenge}-*"))
    assert len(kept) == 1 and LETTER not in kept[0].read_bytes()
    assert reviewer.judge_letter(challenge, 1, True, digest=sm3(LETTER)).state == "settled"
    assert not kept[0].exists()
    assert challenged(world, world.officer, job.job_id, LetterState.ACCEPTED).view.state == "settled"
    own_entries = entries(world, "operator", job.job_id)
    assert {"challenged", "letter-received", "letter-read", "letter-judged"} <= set(own_entries)
    assert {fact.name: fact.value for fact in own_entries["challenged"].facts}["people"] == "1"
    assert {"challenge-received", "letter-produced"} <= set(entries(world, "bank", job.job_id))
    for node in OWNERS:
        assert CANARY not in world.log(node)
        assert all(CANARY not in repr(entry) for entry in entries(world, node, job.job_id).values())


def test_a_batch_is_challenged_and_a_rejected_letter_suspends_the_scenario(
    world: World, own: Own, tmp_path: Path
) -> None:
    """The last of this module: its scenario stays suspended."""
    reviewer = world.clients["second-reviewer"]
    job = world.released(world.officer.score(own.digest, own.model, ScoreScope.ALIGNED))
    scored = set(world.officer.result(job.job_id, world.trust()).outputs["scores"]["id"])
    found = challenged(world, world.officer, job.job_id)
    challenge = found.view.challenge_id
    assert len(found.persons) == len(set(found.persons)) == 50 and set(found.persons) <= scored
    assert reviewer.challenge(challenge).persons == found.persons
    assert world.clients["bank-reviewer"].challenges() == ()
    auditor = world.bank_owner.challenge(challenge)
    assert auditor.persons == () and len(auditor.view.letters) == 50

    paper, read = tmp_path / "letter.pdf", tmp_path / "read.pdf"
    paper.write_bytes(LETTER)
    shown = cli(world, "officer", "bank", "challenge", challenge)
    assert [letter["person"] for letter in shown["letters"]] == list(found.persons)
    assert cli(world, "officer", "bank", "produce", challenge, 1, paper)["letters"] == {"awaited": 49, "produced": 1}
    digest = cli(world, "second-reviewer", "operator", "letter", challenge, 1, "--to", read)["digest"]
    assert read.read_bytes() == LETTER and stat.S_IMODE(read.stat().st_mode) == 0o600
    judged = cli(world, "second-reviewer", "operator", "judge", challenge, 1, "--accept", "--digest", digest)
    assert judged["letters"] == {"accepted": 1, "awaited": 49}
    assert challenge in [one["challenge_id"] for one in cli(world, "officer", "bank", "challenges")]
    world.officer.produce_letter(challenge, 2, b"a blank page")
    with pytest.raises(WrongState, match="not the letter that was looked at"):
        reviewer.judge_letter(challenge, 2, False, "nobody signed it", digest=sm3(LETTER))
    assert reviewer.judge_letter(challenge, 2, False, "nobody signed it").state == "failed"
    assert [view.state for view in world.op_owner.scenarios() if view.digest == own.digest] == ["suspended"]
    with pytest.raises(PolicyRefused):
        ask(world, own, issue(world, own))
