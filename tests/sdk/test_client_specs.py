"""Specs and consents, and that a person's id stands nowhere in the open."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox import signed, wire
from sandbox.client import Applicant, issue_consent, specs
from sandbox.crypto.envelope import open_with
from sandbox.crypto.sm3 import sm3, tagged
from sandbox.errors import InvalidSpec, SandboxError, Unauthenticated
from sandbox.keyring import Person
from sandbox.model import ApplicantInput, ApplicantScore, ConsentToken, DatasetRef, ScoreSpec

DIGEST = bytes(range(32))
JOB = "ab" * 16
PERSON = "990000199001011239"


def test_every_spec_has_its_own_request_id_unless_given() -> None:
    left, right = DatasetRef("A", 1), DatasetRef("B", 1)
    first, second = (specs.align(DIGEST, left, right) for _ in range(2))
    assert first.request_id != second.request_id
    assert specs.align(DIGEST, left, right, request_id="mine").request_id == "mine"


def test_without_a_seed_the_hold_out_is_fresh() -> None:
    first, second = (specs.train(DIGEST, JOB).kind for _ in range(2))
    assert first != second
    assert specs.train(DIGEST, JOB, seed=b"s").kind == specs.train(DIGEST, JOB, seed=b"s").kind


def test_an_applicant_is_sealed_to_each_party_under_the_commitment(officer: Person, bank: Any, witness: Any) -> None:
    consent = issue_consent(officer, PERSON, DIGEST, "credit", 60)
    applicant = Applicant(PERSON, consent, (bank.card, witness.card))
    spec, inputs = specs.score_applicant(DIGEST, JOB, applicant)
    assert isinstance(spec.kind, ScoreSpec) and isinstance(spec.kind.subject, ApplicantScore)
    commitment = spec.kind.subject.commitment
    assert [item.party for item in inputs] == ["bank", "witness"]
    for party, item in zip((bank, witness), inputs, strict=True):
        opened = open_with(party.keys.sealing, item.sealed, tagged("applicant", commitment))
        content = wire.decode(ApplicantInput, opened)
        assert content.subject_id == PERSON
        assert sm3(content.opening + PERSON.encode()) == commitment
        token = signed.verify(officer.identity.public, "consent", content.consent, ConsentToken)
        assert (token.subject_id, token.scenario_digest, token.purpose) == (PERSON, DIGEST, "credit")
        with pytest.raises(SandboxError):
            open_with(party.keys.sealing, item.sealed, tagged("applicant", bytes(32)))
    with pytest.raises(SandboxError):
        open_with(bank.keys.sealing, inputs[1].sealed, tagged("applicant", commitment))


def test_the_same_person_twice_cannot_be_linked(officer: Person, bank: Any) -> None:
    applicant = Applicant(PERSON, issue_consent(officer, PERSON, DIGEST, "credit", 60), (bank.card,))
    first, second = (specs.score_applicant(DIGEST, JOB, applicant)[0].kind for _ in range(2))
    assert first != second


def test_the_id_is_not_printed(officer: Person, bank: Any) -> None:
    consent = issue_consent(officer, PERSON, DIGEST, "credit", 60)
    assert PERSON not in repr(Applicant(PERSON, consent, (bank.card,)))


def test_a_consent_for_something_else_is_refused_before_anything_is_sent(officer: Person, bank: Any) -> None:
    consent = issue_consent(officer, PERSON, DIGEST, "credit", 60)
    with pytest.raises(InvalidSpec, match="another person"):
        specs.score_applicant(DIGEST, JOB, Applicant("990000199001011230", consent, (bank.card,)))
    with pytest.raises(InvalidSpec, match="another scenario"):
        specs.score_applicant(bytes(32), JOB, Applicant(PERSON, consent, (bank.card,)))
    with pytest.raises(InvalidSpec, match="none is named"):
        specs.score_applicant(DIGEST, JOB, Applicant(PERSON, consent, ()))


@pytest.mark.parametrize("valid_s", [0, -1, 367 * 86400])
def test_a_consent_holds_for_a_bounded_time(officer: Person, valid_s: int) -> None:
    with pytest.raises(InvalidSpec, match="366 days"):
        issue_consent(officer, PERSON, DIGEST, "credit", valid_s)


def test_a_consent_ends_when_it_says(officer: Person) -> None:
    before = signed.now_ms()
    token = wire.decode(ConsentToken, issue_consent(officer, PERSON, DIGEST, "credit", 60).payload)
    assert before + 60_000 <= token.not_after_ms <= signed.now_ms() + 60_000


def test_a_card_with_a_foreign_sealing_key_gets_no_secrets(officer: Person, bank: Any, witness: Any) -> None:
    forged = bank.card.__class__(
        **{name: getattr(bank.card, name) for name in bank.card.__slots__} | {"sealing": witness.card.sealing}
    )
    applicant = Applicant(PERSON, issue_consent(officer, PERSON, DIGEST, "credit", 60), (forged,))
    with pytest.raises(Unauthenticated):
        specs.score_applicant(DIGEST, JOB, applicant)
