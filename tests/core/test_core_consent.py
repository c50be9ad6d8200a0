"""Consents from three sources, their use and withdrawal; and what becomes of the letters behind what was released."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from core_builders import BANK, DAY, FLOORS, ISSUER, NOW, OFFICER, OTHER, RECIPIENT, facts, psi, scenario, standing
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, select
from typer.testing import CliRunner

from sandbox import challenges, letters, record, registry, signed, wire
from sandbox.api.consents import Consents
from sandbox.api.edge import Caller
from sandbox.api.post import Post
from sandbox.api.scenarios import Scenarios
from sandbox.audit import log as audit_log
from sandbox.challenges import Drawn
from sandbox.cli import app
from sandbox.cli.person import read_paper
from sandbox.client import certify_subject, issue_consent, sign_consent, withdraw
from sandbox.crypto.envelope import seal_to
from sandbox.crypto.sm2 import PrivateKey
from sandbox.crypto.sm3 import sm3, tagged
from sandbox.errors import (
    AlreadyExists,
    BudgetSpent,
    IntegrityFailed,
    InvalidSpec,
    NotFound,
    PartyFailed,
    PolicyRefused,
    SandboxError,
    Unauthenticated,
    WrongState,
)
from sandbox.home import Home, init
from sandbox.keyring import Person, create_person, load_person
from sandbox.kinds import drawn
from sandbox.ledger import Ledger
from sandbox.model import (
    ApplicantInput,
    ApplicantScore,
    Approval,
    ApprovalRecord,
    ConsentRule,
    ConsentSource,
    ConsentToken,
    ConsentWithdrawal,
    Entry,
    Environment,
    JobKind,
    JobSpec,
    JobSubmission,
    LetterJudgement,
    LetterState,
    LetterUpload,
    ListQuery,
    Notice,
    NoticeKind,
    ScoreSpec,
    SealedInput,
    SealedWithdrawal,
    Signed,
    State,
    SubjectKey,
    WithdrawalNotice,
)
from sandbox.pipeline import SUBMIT
from sandbox.policy import book, spending
from sandbox.policy.admit import admit
from sandbox.policy.consent import Consented, commitment, open_subject, token_digest
from sandbox.record import Job
from sandbox.store import Store, consents, withdrawn_consents
from sandbox.store import challenges as store_challenges
from sandbox.store import letters as store_letters

NODE, PERSON_KEY, SECOND_ISSUER = (PrivateKey.generate() for _ in range(3))
DIGEST, OPENING, PERSON = b"S" * 32, b"o" * 32, "110101199001010000"
LETTER = b"%PDF-1.7 a letter, signed by hand"
NODE_KEY, LASTING = b"k" * 16, b"l" * 32
RULE = replace(
    scenario().consent,
    issuers=(ISSUER.public.to_bytes(), SECOND_ISSUER.public.to_bytes()),
    sources=tuple(ConsentSource),
    most_uses=3,
    sample_permille=100,
    letter_days=14,
)
ONE = scenario(consent=RULE)


# --- tokens -----------------------------------------------------------------------------------------------------------


def token(signer: PrivateKey = ISSUER, **changes: Any) -> Signed:
    whole = {"subject_id": PERSON, "scenario_digest": DIGEST, "purpose": ONE.purpose, "not_after_ms": NOW + 1}
    whole |= {"nonce": b"n" * 16, "source": ConsentSource.ATTESTED, "evidence": sm3(b"a record")}
    return signed.sign(signer, "consent", ConsentToken(**{**whole, **changes}))


def own(signer: PrivateKey = PERSON_KEY, **changes: Any) -> Signed:
    return token(signer, **{"source": ConsentSource.SUBJECT, "evidence": b"", **changes})


def word(issuer: PrivateKey = ISSUER, key: PrivateKey = PERSON_KEY, **changes: Any) -> Signed:
    whole: dict[str, Any] = {"subject_id": PERSON, "key": key.public.to_bytes(), "not_after_ms": NOW + 1}
    return signed.sign(issuer, "subject-key", SubjectKey(**{**whole, **changes}))


def opened(
    consent: Signed | None = None,
    subject_key: Signed | None = None,
    *,
    rule: Any = RULE,
    person: str = PERSON,
    committed: bytes = b"",
    party: str = "operator",
    times: int = 1,
    at: int = NOW,
    spoil: Callable[[bytes], bytes] = bytes,
) -> Consented:
    """Open an applicant's input of one's own making, changed as asked."""
    content = wire.encode(ApplicantInput(person, OPENING, consent or token(), subject_key))
    committed = committed or commitment(person, OPENING)
    inputs = (SealedInput(party, spoil(seal_to(NODE.public, content, tagged("applicant", committed)))),) * times
    return open_subject(NODE, "operator", inputs, committed, replace(ONE, consent=rule), DIGEST, at)


def flipped(sealed: bytes) -> bytes:
    return sealed[:-1] + bytes([sealed[-1] ^ 1])


def test_a_consent_of_each_source_names_the_person_and_who_answers_for_it() -> None:
    attested, letter = opened(), opened(token(source=ConsentSource.LETTER, evidence=sm3(LETTER), uses=2))
    assert (attested.subject_id, attested.source, attested.uses) == (PERSON, ConsentSource.ATTESTED, 1)
    assert (letter.source, letter.evidence, letter.uses) == (ConsentSource.LETTER, sm3(LETTER), 2)
    assert attested.signers == letter.signers == {ISSUER.public.key_id}
    subject = opened(own(uses=3), word(SECOND_ISSUER))
    assert (subject.source, subject.uses) == (ConsentSource.SUBJECT, 3)
    assert subject.signers == {PERSON_KEY.public.key_id, SECOND_ISSUER.public.key_id}
    assert PERSON not in repr((attested, letter, subject))


TAMPERED = token()


@pytest.mark.parametrize(
    ("change", "kind", "told"),
    [
        ({"party": "bank"}, InvalidSpec, "one sealed input for operator"),
        ({"times": 2}, InvalidSpec, "one sealed input for operator"),
        ({"spoil": flipped}, InvalidSpec, "does not open"),
        ({"committed": commitment(PERSON, b"x" * 32)}, InvalidSpec, "does not fit the commitment"),
        ({"person": "somebody"}, PolicyRefused, "another person's"),
        ({"consent": token(subject_id="somebody")}, PolicyRefused, "another person's"),
        ({"consent": token(scenario_digest=b"X" * 32)}, PolicyRefused, "another scenario or purpose"),
        ({"consent": token(purpose="advertising")}, PolicyRefused, "another scenario or purpose"),
        ({"consent": token(not_after_ms=NOW)}, PolicyRefused, "has expired"),
        ({"at": NOW + 1}, PolicyRefused, "has expired"),
        ({"consent": token(OFFICER)}, PolicyRefused, "not signed by an issuer"),
        (
            {"consent": replace(TAMPERED, payload=TAMPERED.payload.replace(b"1101", b"9999"))},
            PolicyRefused,
            "signature does not verify",
        ),
        ({"consent": token(evidence=b"")}, PolicyRefused, "names no evidence"),
        ({"consent": token(source=ConsentSource.LETTER, evidence=b"")}, PolicyRefused, "names no evidence"),
        ({"consent": token(evidence=b"short")}, PolicyRefused, "not an SM3 digest"),
        ({"consent": token(uses=4)}, PolicyRefused, "more calls than"),
        ({"consent": token(uses=2), "rule": replace(RULE, most_uses=0)}, PolicyRefused, "more calls than"),
        ({"rule": replace(RULE, sources=(ConsentSource.LETTER,))}, PolicyRefused, "does not allow consents from this"),
        ({"rule": replace(RULE, sources=())}, PolicyRefused, "does not allow consents from this"),
        # the person's own key
        ({"consent": own()}, PolicyRefused, "not signed by an issuer"),
        ({"consent": own(ISSUER)}, PolicyRefused, "comes with an issuer's word"),
        ({"consent": own(), "subject_key": word(OFFICER)}, PolicyRefused, "not certified by an issuer"),
        ({"consent": own(), "subject_key": word(subject_id="somebody")}, PolicyRefused, "another person's"),
        (
            {"consent": own(), "subject_key": word(not_after_ms=NOW)},
            PolicyRefused,
            "person's key has expired",
        ),
        ({"consent": own(OTHER), "subject_key": word()}, PolicyRefused, "not signed by the person's certified key"),
        ({"consent": token(PERSON_KEY), "subject_key": word()}, PolicyRefused, "names another source"),
        ({"consent": own(ISSUER), "subject_key": word(key=ISSUER)}, PolicyRefused, "or an issuer's"),
        ({"consent": own(OFFICER), "subject_key": word(key=OFFICER)}, PolicyRefused, "is the applicant's"),
        ({"consent": own(RECIPIENT), "subject_key": word(key=RECIPIENT)}, PolicyRefused, "the recipient's"),
        (
            {"consent": own(), "subject_key": replace(word(), signature=word(OTHER).signature)},
            PolicyRefused,
            "not certified by an issuer",
        ),
        (
            {"consent": own(), "subject_key": word(), "rule": replace(RULE, sources=(ConsentSource.ATTESTED,))},
            PolicyRefused,
            "does not allow consents from this",
        ),
    ],
)
def test_any_other_consent_is_refused(change: dict[str, Any], kind: type[SandboxError], told: str) -> None:
    with pytest.raises(kind) as refusal:
        opened(**change)
    assert told in refusal.value.tell
    assert PERSON not in refusal.value.tell + str(refusal.value)


def test_what_the_sdk_makes_is_what_the_nodes_take(tmp_path: Path) -> None:
    desk, person = (create_person(tmp_path / name, name, "Example") for name in ("desk", "person"))
    rule = replace(RULE, issuers=(desk.identity.public.to_bytes(),))
    now = signed.now_ms()
    made = [
        (issue_consent(desk, PERSON, DIGEST, ONE.purpose, 60), None),
        (
            issue_consent(
                desk, PERSON, DIGEST, ONE.purpose, 60, source=ConsentSource.LETTER, evidence=sm3(LETTER), uses=3
            ),
            None,
        ),
        (
            sign_consent(person, PERSON, DIGEST, ONE.purpose, 60, uses=2),
            certify_subject(desk, PERSON, person.identity.public, 60),
        ),
    ]
    for (consent, subject_key), uses in zip(made, (1, 3, 2), strict=True):
        assert opened(consent, subject_key, rule=rule, at=now).uses == uses
        notice = withdraw(desk, consent)
        found = spending.check_withdrawal(replace(ONE, consent=rule), DIGEST, notice)
        assert found.token == token_digest(consent)
    with pytest.raises(InvalidSpec, match="names the letter's SM3"):
        issue_consent(desk, PERSON, DIGEST, ONE.purpose, 60, source=ConsentSource.LETTER)
    with pytest.raises(InvalidSpec, match="signed by the person"):
        issue_consent(desk, PERSON, DIGEST, ONE.purpose, 60, source=ConsentSource.SUBJECT)


def test_the_commands_make_what_the_nodes_take(tmp_path: Path) -> None:
    for name in ("desk", "person"):
        create_person(tmp_path / name, name, "Example")
    subject, paper = tmp_path / "subject", tmp_path / "letter.pdf"
    subject.write_text(PERSON)
    paper.write_bytes(LETTER)
    asked = ("--scenario", DIGEST.hex(), "--purpose", ONE.purpose, "--subject-from", subject)

    def run(who: str, *words: object) -> str:
        ended = CliRunner().invoke(app, ["consent", *map(str, (*words, "--key", tmp_path / who, "--json"))])
        assert ended.exit_code == 0, ended.stderr
        assert PERSON not in ended.stdout
        return ended.stdout

    letter, word, own_token, back = (tmp_path / name for name in ("letter.token", "word", "own.token", "back"))
    run("desk", "issue", letter, *asked, "--source", "letter", "--evidence", paper, "--uses", 2)
    run("desk", "certify", word, tmp_path / "person" / "key.card", "--subject-from", subject)
    run("person", "sign", own_token, *asked, "--certificate", word)
    run("person", "withdraw", own_token, "--out", back)
    desk = load_person(tmp_path / "desk")
    rule = replace(RULE, issuers=(desk.identity.public.to_bytes(),))
    now = signed.now_ms()
    first = opened(*read_paper(letter), rule=rule, at=now)
    assert (first.source, first.evidence, first.uses) == (ConsentSource.LETTER, sm3(LETTER), 2)
    second = opened(*read_paper(own_token), rule=rule, at=now)
    assert second.source is ConsentSource.SUBJECT
    notice = wire.decode(WithdrawalNotice, back.read_bytes())
    assert spending.check_withdrawal(replace(ONE, consent=rule), DIGEST, notice).token == second.token
    with pytest.raises(InvalidSpec, match="is not a consent"):
        read_paper(paper)


# --- use --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.at(tmp_path / "store.db")
    made.create()
    yield made
    made.close()


def use(store: Store, job_id: str, consent: Consented, environment: Environment = Environment.PRODUCTION) -> bytes:
    with store.write() as conn:
        return spending.reserve(conn, NODE_KEY, job_id, consent, environment)


def test_a_consent_is_used_as_often_as_it_says_and_a_refusal_leaves_nothing(store: Store) -> None:
    once, twice = opened(), opened(token(uses=2, nonce=b"m" * 16))
    use(store, "job-1", once)
    with pytest.raises(BudgetSpent, match="used already"):
        use(store, "job-2", once)
    use(store, "job-2", twice)
    use(store, "job-3", twice)
    with pytest.raises(BudgetSpent, match="used already, 2 times"):
        use(store, "job-4", twice)
    with store.read() as conn:
        assert conn.execute(select(consents.c.job_id).order_by(consents.c.job_id)).all() == [
            ("job-1",),
            ("job-2",),
            ("job-3",),
        ]


def test_what_was_not_spent_comes_back_and_what_was_spent_does_not(store: Store) -> None:
    consent = opened()
    use(store, "job-1", consent)
    with store.write() as conn:
        spending.give_back(conn, "job-1")
    use(store, "job-2", consent)
    with store.write() as conn:
        spending.spend(conn, "job-2")
        spending.give_back(conn, "job-2")
    with pytest.raises(BudgetSpent):
        use(store, "job-3", consent)


def test_tests_do_not_use_up_a_consent(store: Store) -> None:
    consent = opened()
    use(store, "test-1", consent, Environment.TEST)
    with pytest.raises(BudgetSpent):
        use(store, "test-2", consent, Environment.TEST)
    use(store, "job-1", consent)


def test_the_same_nonce_of_two_issuers_is_two_consents_and_signing_again_is_none(store: Store) -> None:
    first, second, again = opened(token(ISSUER)), opened(token(SECOND_ISSUER)), opened(token(ISSUER))
    use(store, "job-1", first)
    use(store, "job-2", second)
    with pytest.raises(BudgetSpent):  # another signature over the same words
        use(store, "job-3", again)


def test_the_entry_commits_to_token_and_evidence_and_the_owner_can_open_it(store: Store) -> None:
    consent = opened()
    digest = use(store, "job-1", consent)
    with store.read() as conn:
        content = spending.opening(conn, NODE_KEY, "job-1")
        assert sm3(content) == digest and len(content) == 96
        assert spending.opened(content) == (consent.token, consent.evidence)
        with pytest.raises(NotFound):
            spending.opening(conn, NODE_KEY, "job-2")
        sealed = conn.scalar(select(consents.c.sealed))
    assert consent.evidence not in sealed and digest not in (sm3(consent.evidence), sm3(consent.token))


# --- withdrawal -------------------------------------------------------------------------------------------------------


def withdrawal(signer: PrivateKey, consent: Signed, subject_key: Signed | None = None, **changes: Any) -> Any:
    whole: dict[str, Any] = {"token": token_digest(consent), "scenario_digest": DIGEST, "time_ms": NOW}
    made = signed.sign(signer, "consent-withdrawal", ConsentWithdrawal(**{**whole, **changes}))
    return WithdrawalNotice(made, signer.public.to_bytes(), subject_key)


def file(store: Store, notice: WithdrawalNotice, untold: tuple[str, ...] = ()) -> bool:
    with store.write() as conn:
        return spending.withdraw(conn, NODE_KEY, LASTING, spending.check_withdrawal(ONE, DIGEST, notice), untold)


def is_withdrawn(store: Store, consent: Consented) -> bool:
    with store.read() as conn:
        try:
            spending.check_not_withdrawn(conn, LASTING, consent)
        except PolicyRefused as error:
            assert "was withdrawn" in error.tell
            return True
    return False


LATER = word(not_after_ms=1)  # it has expired; leaving must not be harder than consenting


@pytest.mark.parametrize(
    ("consent", "subject_key", "notice", "counts"),
    [
        (token(), None, withdrawal(ISSUER, token()), True),
        (token(), None, withdrawal(SECOND_ISSUER, token()), False),  # another issuer's is not its to withdraw
        (token(), None, withdrawal(ISSUER, token(nonce=b"m" * 16)), False),
        (token(), None, withdrawal(ISSUER, token(SECOND_ISSUER)), False),
        (token(), None, withdrawal(PERSON_KEY, token(), LATER), True),  # the person's own key, of a desk's token
        (token(), None, withdrawal(OTHER, token(), word(key=OTHER, subject_id="somebody")), False),
        (own(), word(), withdrawal(PERSON_KEY, own(), LATER), True),
        (own(), word(), withdrawal(ISSUER, own()), True),  # who certified the key, should it be lost
        (own(), word(), withdrawal(SECOND_ISSUER, own()), False),
    ],
)
def test_a_withdrawal_counts_if_it_is_of_one_who_may(
    store: Store, consent: Signed, subject_key: Signed | None, notice: WithdrawalNotice, counts: bool
) -> None:
    found = opened(consent, subject_key)
    assert not is_withdrawn(store, found)
    assert file(store, notice)
    assert not file(store, notice)
    assert is_withdrawn(store, found) is counts


@pytest.mark.parametrize(
    ("notice", "told"),
    [
        (withdrawal(OTHER, token()), "not signed by an issuer"),
        (withdrawal(OFFICER, token()), "not signed by an issuer"),
        (withdrawal(PERSON_KEY, token()), "not signed by an issuer"),
        (withdrawal(OTHER, token(), word()), "not signed by the person's certified key"),
        (withdrawal(PERSON_KEY, token(), word(OFFICER)), "not certified by an issuer"),
        (withdrawal(ISSUER, token(), scenario_digest=b"X" * 32), "another scenario"),
        (replace(withdrawal(OTHER, token()), signer=ISSUER.public.to_bytes()), "signature does not verify"),
    ],
)
def test_a_withdrawal_by_a_stranger_is_refused(store: Store, notice: WithdrawalNotice, told: str) -> None:
    with pytest.raises(PolicyRefused) as refusal:
        file(store, notice)
    assert told in refusal.value.tell and PERSON not in refusal.value.tell


def test_a_withdrawal_is_told_to_each_owner_once_and_names_nobody_in_the_store(store: Store) -> None:
    notice = withdrawal(PERSON_KEY, token(), word())
    file(store, notice, ("operator", "fund"))
    with store.read() as conn:
        (waiting,) = spending.untold(conn, NODE_KEY)
        row = conn.execute(select(withdrawn_consents)).one()
    assert (waiting.notice, waiting.scenario_digest, waiting.parties) == (notice, DIGEST, ("fund", "operator"))
    assert PERSON.encode() not in b"".join(bytes(value) for value in row if isinstance(value, bytes))
    for party, left in (("operator", [("fund",)]), ("fund", [])):
        with store.write() as conn:
            spending.told(conn, token_digest(token()), PERSON_KEY.public.key_id, party)
            assert [one.parties for one in spending.untold(conn, NODE_KEY)] == left


# --- drawing ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 10**7), st.integers(0, 1000))
def test_at_least_one_is_drawn_and_never_more_than_there_are(people: int, permille: int) -> None:
    count = drawn.how_many(people, permille)
    assert 1 <= count <= min(people, drawn.MOST)
    assert count == drawn.MOST or count == max(1, -(-people * permille // 1000))


class Rows:
    """What a worker shows of a score: whose rows, and a place for artefacts."""

    def __init__(self, me: str = "operator", rule: ConsentRule = ConsentRule.HELD_LETTER, **changes: Any) -> None:
        self.me, self.kept = me, dict[str, bytes]()
        self.scenario = replace(ONE, consent=replace(RULE, batch=rule))
        environment = changes.get("environment", Environment.PRODUCTION)
        self.plan = SimpleNamespace(recipient_node="bank", environment=environment)

    def keys(self) -> pa.Array:
        return pa.array([f"person-{number}" for number in range(1000)])

    def keep(self, name: str, content: bytes) -> None:
        self.kept[name] = content


def test_who_is_drawn_is_among_those_released_and_differs_each_time() -> None:
    found = []
    for _ in range(3):
        rows: Any = Rows()
        drawn.draw(rows, np.arange(200, 500))
        found.append(wire_people(rows.kept[drawn.DRAWN]))
    assert all(len(set(people)) == 30 and set(people) <= {f"person-{n}" for n in range(200, 500)} for people in found)
    assert len({tuple(people) for people in found}) == 3


def wire_people(content: bytes) -> list[str]:
    people: list[str] = json.loads(content)
    return people


@pytest.mark.parametrize(
    "rows",
    [Rows("bank"), Rows(rule=ConsentRule.TOKEN), Rows(environment=Environment.TEST)],
    ids=["recipient", "no letters", "test"],
)
def test_nobody_is_drawn_where_no_letters_stand_behind_it(rows: Any) -> None:
    drawn.draw(rows, np.arange(200, 500))
    assert rows.kept == {}


def test_one_call_is_drawn_as_often_as_the_scenario_says() -> None:
    assert not any(challenges.is_drawn(0) for _ in range(200))
    assert all(challenges.is_drawn(1000) for _ in range(200))
    assert 300 < sum(challenges.is_drawn(500) for _ in range(1000)) < 700  # fails once in 1e36 runs


# --- challenges and letters -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """One released job, as an owner and as the recipient's node hold it."""

    operator: Ledger
    bank: Ledger
    job: Job
    judge: Person


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Home]]:
    folder = tmp_path_factory.mktemp("letters")
    for name in ("operator", "bank"):
        init(folder / name, node_id=name, organisation=name, listen="127.0.0.1:1")
    made = {name: Home(folder / name) for name in ("operator", "bank")}
    made["operator"].add_peer(made["bank"].card())
    yield made
    for home in made.values():
        home.store.close()


@pytest.fixture
def world(homes: dict[str, Home], tmp_path: Path) -> World:
    ledgers = {}
    for name, home in homes.items():
        ledger = ledgers[name] = Ledger(home.path, home.settings, home.keys, home.store, lambda: {})
        with ledger.store.write() as conn:
            for table in (store_letters, store_challenges, withdrawn_consents):
                conn.execute(delete(table))  # the homes are made once for all tests
    judge = create_person(tmp_path / "judge", "judge", "operator")
    return World(ledgers["operator"], ledgers["bank"], ran((ledgers["operator"], ledgers["bank"])), judge)


PARTIES = ("bank", "operator", "witness")


def applied(ledgers: Iterable[Ledger], applicant: PrivateKey = OFFICER, **changes: Any) -> bytes:
    """File a scenario; returns its digest."""
    now = signed.now_ms()
    times = {"not_before_ms": now - DAY, "not_after_ms": now + DAY, "nonce": secrets.token_bytes(16)}
    held = replace(ONE, **{**times, "applicant_key": applicant.public.to_bytes(), **changes})
    for ledger in ledgers:
        with ledger.store.write() as conn:
            digest = book.file(conn, signed.sign(applicant, "scenario", held), FLOORS)
    return digest


def approve(ledger: Ledger, digest: bytes, *parties: str) -> None:
    for party in parties or PARTIES:
        yes = signed.sign(OTHER, "approval", Approval(digest, party, False, NOW))
        record = signed.sign(NODE, "approval-record", ApprovalRecord(yes, OTHER.public.to_bytes()))
        with ledger.store.write() as conn:
            book.approve(conn, record, NODE.public, party)


def ran(ledgers: Iterable[Ledger], applicant: PrivateKey = OFFICER) -> Job:
    """A job under an approved scenario of its own."""
    digest, now = applied(ledgers, applicant), signed.now_ms()
    spec = replace(psi(), request_id=secrets.token_hex(8), scenario_digest=digest)
    call = signed.sign_call(applicant, "bank", "/sandbox.v1.JobService/SubmitJob", JobSubmission(spec))
    for ledger in ledgers:
        approve(ledger, digest)
        with ledger.store.write() as conn:
            held = book.application(conn, digest)
            known = facts(now_ms=now, standing=standing(scenario=held, digest=digest), submitter=held.applicant_key)
            job_id = record.job_id(call.key_id, spec.request_id)
            plan = admit(spec, job_id, signed.digest("call", call), known, BANK)
            job = record.create(conn, call, plan, wire.encode(plan), b"r" * 32)
    return job


def ask(world: World, *people: Drawn, now: int = NOW, job: Job | None = None) -> str:
    ledger, job = world.operator, job or world.job
    with ledger.store.write() as conn:
        held = book.application(conn, job.plan.scenario_digest)
        return challenges.ask(conn, ledger.keys.node_key, job, held, people or (Drawn(PERSON),), now)


def notice(world: World, challenge_id: str) -> Any:
    ledger = world.operator
    with ledger.store.read() as conn:
        found = challenges.find(conn, challenge_id)
        return challenges.notice(conn, ledger.keys.node_key, found, world.bank.keys.sealing.public)


def take(world: World, sent: Any, sender: str = "operator", now: int = NOW) -> bool:
    ledger = world.bank
    with ledger.store.write() as conn:
        return challenges.take(conn, ledger.keys.node_key, ledger.keys.sealing, "bank", sender, sent, now)


def keep(world: World, challenge_id: str, number: int = 1, document: bytes = LETTER, now: int = NOW, **by: str) -> None:
    ledger, place = world.operator, (challenge_id, number)
    with letters.laid_down(ledger.home, *place, document) as laid, ledger.store.write() as conn:
        letters.keep(conn, ledger.home, ledger.keys.node_key, by.get("sender", "bank"), *place, laid, now)


def judge(world: World, challenge_id: str, accepted: bool, document: bytes = LETTER, **changes: Any) -> None:
    value = LetterJudgement(challenge_id, 1, sm3(document), accepted, "it is not signed", NOW)
    signer = changes.pop("signer", world.judge.identity)
    made = signed.sign(signer, "letter-judgement", replace(value, **changes))
    with world.operator.store.write() as conn:
        card = registry.register(conn, world.judge.card, ["reviewer"])
        letters.judge(conn, made, card)


def states(world: World, challenge_id: str, at: str = "operator") -> tuple[str, list[LetterState]]:
    ledger = world.operator if at == "operator" else world.bank
    with ledger.store.read() as conn:
        found = challenges.find(conn, challenge_id)
    return found.state, [letter.state for letter in found.letters]


def read(world: World, challenge_id: str, number: int = 1) -> bytes:
    ledger = world.operator
    with ledger.store.read() as conn:
        return letters.document(conn, ledger.home, ledger.keys.node_key, challenge_id, number)


def files(world: World, challenge_id: str) -> list[Path]:
    return sorted((world.operator.home / letters.FOLDER).glob(f"{challenge_id}-*"))


def test_a_letter_goes_from_the_challenge_to_the_judgement(world: World) -> None:
    made = ask(world)
    assert take(world, notice(world, made)) and not take(world, notice(world, made))
    with world.bank.store.read() as conn:
        assert challenges.persons(conn, world.bank.keys.node_key, made) == (PERSON,)
    keep(world, made, document=b"the wrong page")
    keep(world, made)  # until it is judged another may take its place
    assert states(world, made) == ("open", [LetterState.PRODUCED])
    assert read(world, made) == LETTER
    assert len(files(world, made)) == 1
    assert all(LETTER not in path.read_bytes() for path in files(world, made))
    take(world, notice(world, made))
    assert states(world, made, "bank") == ("open", [LetterState.PRODUCED])
    judge(world, made, accepted=True)
    assert states(world, made) == ("settled", [LetterState.ACCEPTED])
    with pytest.raises(WrongState, match="no letter to read"):
        read(world, made)
    letters.forget(world.operator.home, made, 1)
    assert files(world, made) == []
    take(world, notice(world, made))
    assert states(world, made, "bank") == ("settled", [LetterState.ACCEPTED])
    for again in (lambda: keep(world, made), lambda: judge(world, made, True)):
        with pytest.raises(WrongState, match="judged already"):
            again()


def test_only_the_letter_that_a_consent_names_is_taken(world: World) -> None:
    made = ask(world, Drawn(PERSON, sm3(LETTER)))
    with pytest.raises(InvalidSpec, match="another SM3"):
        keep(world, made, document=LETTER + b" ")
    assert states(world, made) == ("open", [LetterState.AWAITED])
    keep(world, made)
    assert states(world, made) == ("open", [LetterState.PRODUCED])


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"sender": "witness"}, NotFound),
        ({"number": 0}, NotFound),
        ({"number": 2}, NotFound),
        ({"document": b""}, InvalidSpec),
        ({"document": bytes(letters.MOST_BYTES + 1)}, InvalidSpec),
        ({"now": NOW + 14 * DAY}, WrongState),
    ],
)
def test_letters_that_were_not_asked_for_so(world: World, change: dict[str, Any], kind: type[SandboxError]) -> None:
    made = ask(world)
    with pytest.raises(kind):
        keep(world, made, **change)
    assert states(world, made) == ("open", [LetterState.AWAITED])
    assert files(world, made) == []


def test_who_judges_says_of_what_and_why(world: World) -> None:
    made = ask(world)
    with pytest.raises(WrongState, match="not produced yet"):
        judge(world, made, True)
    keep(world, made)
    with pytest.raises(WrongState, match="not the letter that was looked at"):
        judge(world, made, True, document=b"another")
    with pytest.raises(InvalidSpec, match="says why"):
        judge(world, made, False, reason=" ")
    with pytest.raises(Unauthenticated):
        judge(world, made, True, signer=OTHER)
    assert states(world, made) == ("open", [LetterState.PRODUCED])


def test_letters_at_rest_do_not_open_in_another_place(world: World) -> None:
    made = ask(world, Drawn(PERSON), Drawn("somebody"))
    keep(world, made, 1)
    keep(world, made, 2, b"another's")
    first, second = files(world, made)
    second.write_bytes(first.read_bytes())
    with pytest.raises(IntegrityFailed):
        read(world, made, 2)
    second.unlink()
    with pytest.raises(IntegrityFailed, match="is gone"):
        read(world, made, 2)


def test_a_challenge_is_taken_from_an_owner_of_the_job_alone_and_once(world: World) -> None:
    made, second = ask(world), ask(world)
    sent = notice(world, made)
    for sender in ("witness", "bank", "stranger"):
        with pytest.raises(PolicyRefused):
            take(world, sent, sender)
    for change, kind in (
        ({"scenario_digest": b"X" * 32}, PolicyRefused),
        ({"due_ms": NOW + 365 * DAY}, PolicyRefused),
        ({"job_id": "f" * 32}, NotFound),
        ({"challenge_id": "f" * 32}, InvalidSpec),  # sealed for another
        ({"letters": sent.letters * 2}, InvalidSpec),
    ):
        with pytest.raises(kind):
            take(world, replace(sent, **change))
    assert take(world, sent)
    with pytest.raises(AlreadyExists):
        take(world, notice(world, second))
    with pytest.raises(InvalidSpec):
        take(world, replace(sent, letters=sent.letters * 2, revision=9))


def test_an_earlier_revision_takes_nothing_back(world: World) -> None:
    made = ask(world)
    before = notice(world, made)
    keep(world, made)
    take(world, notice(world, made))
    take(world, before)
    assert states(world, made, "bank") == ("open", [LetterState.PRODUCED])


class Links:
    """The network between two nodes: what one says the other takes, unless it is down."""

    def __init__(self, world: World) -> None:
        self.world, self.is_down, self.said, self.tried = world, False, 0, list[Any]()
        exchange: Any = SimpleNamespace(ledger=world.bank, links=self)
        idle: Any = SimpleNamespace()
        self.bank = Post(idle, exchange, lambda digest, reason: asyncio.sleep(0))

    async def call(self, party: str, method: str, body: Any, timeout_s: float) -> None:
        assert party == "bank"
        self.tried.append(body)
        if self.is_down:
            raise PartyFailed(party=party)
        if method.endswith("/Withdraw"):
            await self.bank.take_withdrawal("operator", body, lambda conn: None, is_from_peer=True)
        else:
            assert method == "/sandbox.v1.PeerService/Challenge"
            take(self.world, body)
        self.said += 1

    async def share(self, party: str, bundle: Any) -> Any:
        raise PartyFailed(party=party)  # what is said of scenarios is not what is tested here


@dataclass
class Desk:
    """The rounds of the operator's node, and what they say of scenarios."""

    post: Post
    links: Links
    scenarios: Scenarios

    def tend(self, now_ms: int = NOW) -> None:
        asyncio.run(self.post.tend(now_ms))


@pytest.fixture
def desk(world: World) -> Desk:
    links = Links(world)

    async def revoked(digest: bytes) -> None:
        assert digest  # nothing runs here

    exchange: Any = SimpleNamespace(ledger=world.operator, links=links)
    pipeline: Any = SimpleNamespace(revoked=revoked)
    edge: Any = SimpleNamespace()
    scenarios = Scenarios(edge, pipeline, world.operator, exchange)
    return Desk(Post(pipeline, exchange, scenarios.suspend), links, scenarios)


def suspensions(world: World, digest: bytes = b"") -> list[str]:
    """The reasons for which the operator's node suspended a scenario, one after the other."""
    with world.operator.store.read() as conn:
        said = book.said(conn, digest or world.job.plan.scenario_digest, "operator")
    return [notice.reason for notice in said if notice.kind is NoticeKind.SUSPENDED]


def say(world: World, kind: NoticeKind, digest: bytes = b"", party: str = "operator") -> None:
    """Say something of a scenario in a party's name, as its organisation."""
    ledger, digest = world.operator, digest or world.job.plan.scenario_digest
    signer = ledger.keys.identity if party == "operator" else NODE
    with ledger.store.write() as conn:
        serial = book.next_serial(conn, digest, party)
        value = Notice(digest, party, kind, "it was cleared up", signed.now_ms(), serial, "an-officer")
        book.notify(conn, signed.sign(signer, "notice", value), signer.public, party)


def unpunished(world: World) -> list[str]:
    with world.operator.store.read() as conn:
        return [one.challenge_id for one in letters.unpunished(conn)]


def entered(world: World) -> list[Entry]:
    with world.operator.store.read() as conn:
        return [wire.decode(Entry, leaf) for _, leaf in audit_log.for_job(conn, world.job.job_id)]


def test_a_challenge_is_told_until_the_other_node_has_it_and_not_again(world: World, desk: Desk) -> None:
    made = ask(world)
    desk.links.is_down = True
    desk.tend()
    with world.operator.store.read() as conn:
        assert [one.challenge_id for one in challenges.unsent(conn)] == [made]
    desk.links.is_down = False
    desk.tend()
    desk.tend()
    assert desk.links.said == 1
    keep(world, made)
    desk.tend()
    assert desk.links.said == 2
    assert states(world, made, "bank") == ("open", [LetterState.PRODUCED])
    assert suspensions(world) == [] and entered(world) == []


def test_a_challenge_that_is_refused_holds_up_no_other_and_is_tried_ever_more_rarely(world: World, desk: Desk) -> None:
    ask(world)
    desk.tend()
    refused = ask(world)  # a second one about the same job
    later = ask(world, job=ran((world.operator, world.bank)))
    with world.operator.store.read() as conn:
        assert [one.challenge_id for one in challenges.unsent(conn)] == [refused, later]
    tries = []
    for minute in range(16):
        desk.links.tried.clear()
        desk.tend(NOW + minute * 60_000)
        tried = [body.challenge_id for body in desk.links.tried]
        assert (later in tried) is (minute == 0)
        tries += [minute] if refused in tried else []
    assert states(world, later, "bank") == ("open", [LetterState.AWAITED])
    assert tries == [0, 2, 6, 14]


def test_a_node_that_is_down_is_not_waited_for_twice_in_one_round(world: World, desk: Desk) -> None:
    for job in (None, ran((world.operator, world.bank))):
        ask(world, job=job)
    desk.links.is_down = True
    for rounds in (1, 2):
        desk.tend()
        assert len(desk.links.tried) == rounds


def test_a_letter_that_does_not_come_suspends_the_scenario_once_and_is_entered(world: World, desk: Desk) -> None:
    made = ask(world, Drawn(PERSON), Drawn("somebody"), now=NOW)
    keep(world, made, 2)
    due = NOW + 14 * DAY
    desk.tend(due - 1)
    assert suspensions(world) == []
    desk.tend(due)
    (reason,) = suspensions(world)
    assert made in reason and PERSON not in reason
    say(world, NoticeKind.RESUMED)
    desk.tend(due + 1)
    assert len(suspensions(world)) == 1 and unpunished(world) == []
    assert states(world, made) == ("failed", [LetterState.MISSING, LetterState.PRODUCED])
    assert states(world, made, "bank") == ("failed", [LetterState.MISSING, LetterState.PRODUCED])
    (entry,) = entered(world)
    told = {fact.name: fact.value for fact in entry.facts}
    assert (entry.what, told) == ("letters-missing", {"challenge": made, "letters": "1", "party": "bank"})
    with pytest.raises(WrongState, match="is over"):
        keep(world, made, 1, now=due)


def test_a_rejected_letter_suspends_the_scenario_even_if_the_first_try_was_cut_off(world: World, desk: Desk) -> None:
    made = ask(world)
    keep(world, made)
    judge(world, made, accepted=False)

    async def cut_off(digest: bytes, reason: str) -> None:
        raise WrongState("the node stops")

    exchange: Any = SimpleNamespace(ledger=world.operator, links=desk.links)
    asyncio.run(Post(SimpleNamespace(), exchange, cut_off).tend(NOW))  # type: ignore[arg-type]
    assert unpunished(world) == [made]
    for _ in range(2):
        desk.tend()
    assert len(suspensions(world)) == 1 and unpunished(world) == []
    assert states(world, made, "bank") == ("failed", [LetterState.REJECTED])
    with world.operator.store.read() as conn:
        (letter,) = challenges.find(conn, made).letters
    assert (letter.judged_by, letter.reason) == ("judge", "it is not signed")


def reject(world: World, challenge_id: str, number: int = 1) -> None:
    keep(world, challenge_id, number)
    judge(world, challenge_id, accepted=False, number=number)


def test_each_further_letter_that_fails_suspends_again_what_was_resumed(world: World, desk: Desk) -> None:
    made = ask(world, *map(Drawn, "abcd"))
    for number in (1, 2):
        reject(world, made, number)
        desk.tend()
        assert len(suspensions(world)) == number
        say(world, NoticeKind.RESUMED)
        desk.tend()
        assert len(suspensions(world)) == number
    reject(world, made, 3)
    desk.tend()
    reject(world, made, 4)  # while it is suspended already
    desk.tend()
    say(world, NoticeKind.RESUMED)
    desk.tend()
    assert len(suspensions(world)) == 3 and unpunished(world) == []


def test_a_suspension_that_was_said_before_a_crash_is_not_said_again(world: World, desk: Desk) -> None:
    made = ask(world)
    reject(world, made)
    with world.operator.store.read() as conn:
        reason = letters.reason(challenges.find(conn, made))
    asyncio.run(desk.scenarios.suspend(world.job.plan.scenario_digest, reason))
    say(world, NoticeKind.RESUMED)
    desk.tend()
    assert suspensions(world) == [reason] and unpunished(world) == []


def amended(world: World, *parties: str) -> bytes:
    later = applied((world.operator,), amends=world.job.plan.scenario_digest)
    if parties:
        approve(world.operator, later, *parties)
    return later


def test_a_letter_that_fails_after_an_amendment_suspends_what_took_the_scenarios_place(
    world: World, desk: Desk
) -> None:
    made, later = ask(world), amended(world, *PARTIES)
    last = applied((world.operator,), amends=later)
    approve(world.operator, last)
    reject(world, made)
    desk.tend()
    assert [len(suspensions(world, one)) for one in (b"", later, last)] == [0, 0, 1]
    assert unpunished(world) == []


@pytest.mark.parametrize(("before", "count"), [(("operator",), 1), ((), 0)])
def test_an_amendment_agreed_before_a_letter_failed_takes_nothing_back(
    world: World, desk: Desk, before: tuple[str, ...], count: int
) -> None:
    made, later = ask(world), amended(world, *before)
    reject(world, made)
    desk.tend()
    assert len(suspensions(world)) == 1 and suspensions(world, later) == []
    assert unpunished(world) == ([made] if count else [])
    approve(world.operator, later)  # without ``before`` this owner agrees knowing what happened
    for _ in range(2):
        desk.tend()
    assert len(suspensions(world, later)) == count and unpunished(world) == []


def test_nothing_is_said_of_a_scenario_that_is_over(world: World, desk: Desk) -> None:
    made, later = ask(world), amended(world, *PARTIES)
    reject(world, made)
    say(world, NoticeKind.REVOKED, later)
    desk.tend()
    assert suspensions(world) == suspensions(world, later) == [] and unpunished(world) == []


def produce(world: World, desk: Desk, challenge_id: str, document: bytes) -> None:
    """Hand a letter in as the bank's node does."""
    place = (challenge_id, 1)
    sealed = seal_to(world.operator.keys.sealing.public, document, letters.document_aad(*place))

    async def hand_in() -> None:
        try:
            await desk.post.take_letter("bank", LetterUpload(*place, len(sealed), sm3(sealed)), sealed)
        finally:
            await desk.post.close()

    asyncio.run(hand_in())


def test_a_letter_is_replaced_five_times_and_only_the_last_one_lies_here(world: World, desk: Desk) -> None:
    made, others = ask(world, Drawn(PERSON), Drawn("somebody")), ask(world, job=ran((world.operator,)))
    for count in range(6):
        produce(world, desk, made, LETTER + bytes([count]))
        assert len(files(world, made)) == 1
        assert read(world, made) == LETTER + bytes([count])
    with pytest.raises(WrongState, match="replaced 5 times already"):
        produce(world, desk, made, LETTER)
    assert read(world, made) == LETTER + bytes([5]) and len(files(world, made)) == 1
    produce(world, desk, others, LETTER)
    judge(world, made, accepted=True, document=LETTER + bytes([5]))


def test_a_letter_that_is_not_taken_leaves_no_file_and_the_one_before_stays(world: World, desk: Desk) -> None:
    made = ask(world, Drawn(PERSON, sm3(LETTER)))
    produce(world, desk, made, LETTER)
    (kept,) = files(world, made)
    for document in (LETTER + b"?", bytes(letters.MOST_BYTES + 1)):
        with pytest.raises(InvalidSpec):
            produce(world, desk, made, document)
    assert files(world, made) == [kept] and read(world, made) == LETTER
    with pytest.raises(NotFound):
        asyncio.run(desk.post.take_letter("witness", LetterUpload(made, 1, 1, sm3(b"")), b"x"))


def test_the_one_writer_is_free_while_a_letter_is_put_on_the_disk(
    world: World, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, is_free = os.fsync, list[bool]()

    def write() -> None:
        with world.operator.store.write() as conn:
            challenges.unsent(conn)

    def spy(descriptor: int) -> None:
        other = threading.Thread(target=write, daemon=True)
        other.start()
        other.join(5)  # for ever, if the transaction were open
        is_free.append(not other.is_alive())
        flush(descriptor)

    made = ask(world)
    monkeypatch.setattr(os, "fsync", spy)
    keep(world, made)
    assert is_free == [True]


def test_a_page_of_challenges_is_full_of_those_that_the_caller_may_see(world: World) -> None:
    """An applicant's own are not crowded out by newer ones of others'."""
    own = ran((world.operator, world.bank), applicant=PERSON_KEY)
    mine, newer = ask(world, job=own, now=NOW), ask(world, now=NOW)
    take(world, notice(world, mine), now=NOW)
    take(world, notice(world, newer), now=NOW + 1)

    def seen(node: str, key: PrivateKey, *roles: str, after: str = "") -> list[str]:
        caller = Caller(key.public.key_id, "somebody", frozenset(roles), key.public, "somewhere")
        request = SimpleNamespace(caller=caller, body=ListQuery(after=after, limit=1))

        async def unary(context: Any, action: Any) -> Any:
            return await action()

        edge: Any = SimpleNamespace(open=lambda *_: request, spend_nonce=lambda _: None, unary=unary)
        ledger = world.bank if node == "bank" else world.operator
        post: Any = SimpleNamespace(sealing_key=lambda conn, party: world.operator.keys.sealing.public)
        idle: Any = SimpleNamespace()
        answer = asyncio.run(Consents(edge, idle, ledger, post, ledger.home).ListChallenges(None, None))
        return [view.challenge_id for view in answer.challenges]

    assert seen("bank", PERSON_KEY, "submitter") == [mine]
    assert seen("bank", PERSON_KEY, "submitter", after=mine) == []
    assert seen("bank", OFFICER, "submitter") == [newer]
    for roles in (("auditor",), ("bank",)):
        assert seen("bank", ISSUER, *roles) == [newer]
        assert seen("bank", ISSUER, *roles, after=newer) == [mine]
    assert seen("bank", ISSUER, "reviewer") == []
    assert len(seen("operator", ISSUER, "reviewer")) == len(seen("operator", ISSUER, "auditor")) == 1
    assert seen("operator", ISSUER, "submitter") == seen("operator", ISSUER, "owner", "peer") == []


# --- what runs on a token that is withdrawn ---------------------------------------------------------------------------


def running(world: World, consent: Signed, subject_key: Signed | None = None) -> Job:
    """A score about one person at the operator's node, admitted on a consent."""
    ledger, opening = world.operator, secrets.token_bytes(32)
    committed = commitment(PERSON, opening)
    content = wire.encode(ApplicantInput(PERSON, opening, consent, subject_key))
    sealed = seal_to(ledger.keys.sealing.public, content, tagged("applicant", committed))
    kind = ScoreSpec("a" * 32, ApplicantScore(committed))
    spec = JobSpec(secrets.token_hex(8), world.job.plan.scenario_digest, kind)
    call = signed.sign_call(OFFICER, "bank", SUBMIT, JobSubmission(spec, (SealedInput("operator", sealed),)))
    job_id = record.job_id(call.key_id, spec.request_id)
    plan = replace(world.job.plan, job_id=job_id, kind=JobKind.SCORE)
    with ledger.store.write() as conn:
        job = record.create(conn, call, plan, wire.encode(plan), b"r" * 32)
        given = ledger.consent(conn, plan, job.content)
        entry = ledger.enter(conn, "admitted", job, {}, ledger.use_consent(conn, job, given))
        assert wire.decode(Entry, audit_log.leaf(conn, entry)).commitments[0].name == "consent"
        record.move(conn, job_id, State.RUNNING)
    return job


@pytest.mark.parametrize(("signer", "stops"), [(ISSUER, True), (SECOND_ISSUER, False)])
def test_a_withdrawal_stops_what_runs_on_the_token_if_it_is_of_one_who_may(
    world: World, signer: PrivateKey, stops: bool
) -> None:
    ledger, digest = world.operator, world.job.plan.scenario_digest
    consent = token(scenario_digest=digest, nonce=secrets.token_bytes(16), not_after_ms=signed.now_ms() + DAY, uses=2)
    job, cancelled, links = running(world, consent), list[str](), Away()

    async def cancel(job_id: str) -> None:
        cancelled.append(job_id)

    exchange: Any = SimpleNamespace(ledger=ledger, links=links)
    pipeline: Any = SimpleNamespace(cancel=cancel)
    post = Post(pipeline, exchange, lambda digest, reason: asyncio.sleep(0))
    made = withdrawal(signer, consent, scenario_digest=digest)
    sealed = seal_to(ledger.keys.sealing.public, wire.encode(made), spending.withdrawal_aad(digest))
    body = SealedWithdrawal(digest, sealed)
    for _ in range(2):  # handed in again it changes nothing
        assert asyncio.run(post.take_withdrawal("k" * 32, body, lambda conn: None, is_from_peer=False)) == ()
    assert set(cancelled) == ({job.job_id} if stops else set())
    with ledger.store.read() as conn:
        entries = [wire.decode(Entry, leaf) for leaf in audit_log.leaves(conn, 0, audit_log.size(conn))]
    told = [entry for entry in entries if entry.what == "consent-withdrawn" and entry.scenario_digest == digest]
    assert [{fact.name for fact in entry.facts} for entry in told] == [{"by", "withdrawal"}]
    if stops:
        with pytest.raises(PolicyRefused, match="was withdrawn"):
            running(world, consent)
    else:
        running(world, consent)
    with pytest.raises(InvalidSpec, match="does not open"):
        other = SealedWithdrawal(digest, seal_to(ledger.keys.sealing.public, b"x", b"y"))
        asyncio.run(post.take_withdrawal("k" * 32, other, lambda conn: None, is_from_peer=True))
    with pytest.raises(NotFound):
        asyncio.run(post.take_withdrawal("k" * 32, replace(body, scenario_digest=b"X" * 32), lambda conn: None, True))


class Away:
    """A network on which nobody answers."""

    async def call(self, party: str, method: str, body: Any, timeout_s: float) -> None:
        raise PartyFailed(party=party)


def taken_back(world: World, digest: bytes, ledger: Ledger | None = None) -> SealedWithdrawal:
    """A withdrawal of a desk's token under a scenario, sealed to the operator's node."""
    made = withdrawal(ISSUER, token(scenario_digest=digest, nonce=secrets.token_bytes(16)), scenario_digest=digest)
    to = (ledger or world.operator).keys.sealing.public
    return SealedWithdrawal(digest, seal_to(to, wire.encode(made), spending.withdrawal_aad(digest)))


def hand_in(desk: Desk, body: SealedWithdrawal) -> tuple[str, ...]:
    return asyncio.run(desk.post.take_withdrawal("k" * 32, body, lambda conn: None, is_from_peer=False))


def test_a_withdrawal_that_is_refused_holds_up_no_other_and_is_tried_ever_more_rarely(world: World, desk: Desk) -> None:
    unknown = ran((world.operator,)).plan.scenario_digest  # the bank has never heard of it
    assert hand_in(desk, taken_back(world, unknown)) == ()
    desk.links.is_down = True
    assert hand_in(desk, taken_back(world, world.job.plan.scenario_digest)) == ()
    desk.links.is_down, now, tries = False, signed.now_ms() + DAY, []
    for minute in range(16):
        desk.links.tried.clear()
        desk.tend(now + minute * 60_000)
        tried = [body.scenario_digest for body in desk.links.tried]
        assert (world.job.plan.scenario_digest in tried) is (minute == 0)
        tries += [minute] if unknown in tried else []
    assert tries == [0, 4, 12]  # the first try was when it was handed in
    with world.operator.store.read() as conn:
        (left,) = spending.untold(conn, world.operator.keys.node_key)
    assert left.scenario_digest == unknown
    with world.bank.store.read() as conn:
        found = conn.execute(select(withdrawn_consents.c.scenario_digest)).all()
    assert [bytes(row.scenario_digest) for row in found] == [world.job.plan.scenario_digest]


def test_who_was_told_of_a_withdrawal_is_said_of_this_one_alone(world: World, desk: Desk) -> None:
    digest = world.job.plan.scenario_digest
    assert hand_in(desk, taken_back(world, ran((world.operator,)).plan.scenario_digest)) == ()
    assert hand_in(desk, taken_back(world, digest)) == ("bank",)
    desk.links.is_down = True
    assert hand_in(desk, taken_back(world, digest)) == ()


@pytest.mark.parametrize("kind", [None, NoticeKind.SUSPENDED, NoticeKind.REVOKED])
def test_withdrawals_are_taken_under_scenarios_that_all_parties_approved(
    world: World, desk: Desk, kind: NoticeKind | None
) -> None:
    if kind is not None:
        say(world, kind)
    assert hand_in(desk, taken_back(world, world.job.plan.scenario_digest)) == ("bank",)
    over = applied((world.operator,))
    approve(world.operator, over, "operator", "bank")
    if kind is NoticeKind.REVOKED:
        say(world, kind, over)
    with pytest.raises(WrongState, match="once every party has approved"):
        hand_in(desk, taken_back(world, over))
    with world.operator.store.read() as conn:
        assert len(conn.execute(select(withdrawn_consents)).all()) == 1


def test_withdrawals_are_taken_after_the_scenario_expired_or_was_amended(world: World, desk: Desk) -> None:
    amended(world, *PARTIES)
    now = signed.now_ms()
    expired = applied((world.operator, world.bank), not_before_ms=now - 2 * DAY, not_after_ms=now - DAY)
    for ledger in (world.operator, world.bank):
        approve(ledger, expired)
    for digest in (world.job.plan.scenario_digest, expired):
        assert hand_in(desk, taken_back(world, digest)) == ("bank",)
