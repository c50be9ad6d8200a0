"""Consents: tokens and withdrawals, built from plain values; and calls about letters that are to be produced.

    consent desk   issue_consent, certify_subject          person   sign_consent, withdraw
    bank           challenges, challenge, produce_letter   owner    challenges, challenge, letter, judge_letter

Security:  a person's id stands in tokens, certificates and sealed bytes only. Withdrawals are sealed to the node they
           go to, letters to the node that asks, as one's own node names it; what a node shows of persons and letters
           comes sealed to the caller.
Units:     validity in seconds.
Errors:    ``InvalidSpec`` for what no node would accept; ``IntegrityFailed`` where a node answers about something else.
Not here:  who may withdraw or judge: the nodes decide that.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from sandbox import signed, wire
from sandbox.client.connection import CHUNK, Connection
from sandbox.client.specs import sealing_key
from sandbox.crypto.envelope import open_with, seal_to
from sandbox.crypto.sm2 import PublicKey
from sandbox.crypto.sm3 import Sm3, sm3, tagged
from sandbox.errors import IntegrityFailed, InvalidSpec
from sandbox.keyring import Person
from sandbox.model import (
    ChallengedPersons,
    ChallengeQuery,
    ChallengeView,
    ConsentSource,
    ConsentToken,
    ConsentWithdrawal,
    LetterHead,
    LetterJudgement,
    LetterQuery,
    LetterUpload,
    ListQuery,
    SealedWithdrawal,
    Signed,
    SubjectKey,
    WithdrawalNotice,
)

MOST_LETTER: Final = 16 << 20  # bytes
LETTER_S: Final = 300.0
_LONGEST_S: Final = 366 * 86400


@dataclass(frozen=True, slots=True)
class Challenged:
    """A challenge, and whose letters it is about: empty for those who may not know."""

    view: ChallengeView
    persons: tuple[str, ...] = field(repr=False)


def issue_consent(
    person: Person,
    subject_id: str,
    scenario_digest: bytes,
    purpose: str,
    valid_s: int,
    *,
    source: ConsentSource = ConsentSource.ATTESTED,
    evidence: bytes = b"",
    uses: int = 0,
) -> Signed:
    """Return a token with which one person lets a call happen, signed by a key that the scenario lists as issuer.

    Args:
        evidence: SM3 of the letter, or of the record that the issuer keeps, for example of a text message. Without a
            record the issuer's statement itself is one: SM3 over its words, which the token repeats.
        uses: calls it is for; 0 means 1.
    """
    if source is ConsentSource.SUBJECT:
        raise InvalidSpec(tell="a consent from the person's own key is signed by the person")
    if source is ConsentSource.LETTER and not evidence:
        raise InvalidSpec(tell="a consent that stands on a letter names the letter's SM3")
    return _token(person, source, subject_id, scenario_digest, purpose, valid_s, evidence, uses)


def sign_consent(
    person: Person, subject_id: str, scenario_digest: bytes, purpose: str, valid_s: int, *, uses: int = 0
) -> Signed:
    """Return a token signed by the person's own key; it goes with an issuer's word about that key."""
    return _token(person, ConsentSource.SUBJECT, subject_id, scenario_digest, purpose, valid_s, b"", uses)


def certify_subject(issuer: Person, subject_id: str, key: PublicKey, valid_s: int) -> Signed:
    """Return an issuer's word that a key is a person's own; say it only of somebody who proved to be that person."""
    word = SubjectKey(subject_id, key.to_bytes(), _until(valid_s))
    return _checked(signed.sign(issuer.identity, "subject-key", word), SubjectKey)


def withdraw(person: Person, token: Signed, subject_key: Signed | None = None) -> WithdrawalNotice:
    """Return a signed withdrawal of a token.

    Args:
        person: who signed the token, or certified its key, or whom it is about.
        subject_key: what certifies the own key of the person it is about.
    """
    told = wire.decode(ConsentToken, token.payload)
    known_by = tagged("consent-token", token.key_id.encode() + b"\0" + token.payload)
    word = ConsentWithdrawal(known_by, told.scenario_digest, signed.now_ms())
    made = signed.sign(person.identity, "consent-withdrawal", word)
    return WithdrawalNotice(made, person.identity.public.to_bytes(), subject_key)


class ConsentCalls:
    """What the holders of letters, a data owner's people, and whoever carries a withdrawal can do."""

    _line: Connection

    def withdraw_consent(self, notice: WithdrawalNotice) -> tuple[str, ...]:
        """Hand in a withdrawal, one's own or another's; returns the other owners that have it by now."""
        digest = wire.decode(ConsentWithdrawal, notice.withdrawal.payload).scenario_digest
        sealed = seal_to(sealing_key(self._line.node), wire.encode(notice), tagged("withdrawal", digest))
        return tuple(self._line.call("ConsentService/WithdrawConsent", SealedWithdrawal(digest, sealed)).told)

    def challenges(self, after: str = "", limit: int = 0) -> tuple[ChallengeView, ...]:
        """Return one page of the challenges that concern the caller, newest first; without the persons."""
        answer = self._line.call("ConsentService/ListChallenges", ListQuery(after, limit))
        return tuple(self._line.read(ChallengeView, view) for view in answer.challenges)

    def challenge(self, challenge_id: str) -> Challenged:
        """Return one challenge with the persons."""
        answer = self._line.call("ConsentService/GetChallenge", ChallengeQuery(challenge_id))
        view = self._challenge(challenge_id, answer)
        if not view.sealed:
            return Challenged(view, ())
        aad = tagged("challenge", challenge_id.encode())
        return Challenged(
            view, wire.decode(ChallengedPersons, open_with(self._line.person.sealing, view.sealed, aad)).persons
        )

    def produce_letter(self, challenge_id: str, number: int, document: bytes) -> ChallengeView:
        """Hand in a letter that was asked for, sealed to the node that asks."""
        if not 1 <= len(document) <= MOST_LETTER:
            raise InvalidSpec(tell=f"a letter has 1 to {MOST_LETTER} bytes")
        asks = self.challenge(challenge_id).view.sealing_key
        if not asks:
            raise InvalidSpec(tell="this node asks for the letters of this challenge; it does not produce them")
        sealed = seal_to(PublicKey.from_bytes(asks), document, _document_aad(challenge_id, number))
        upload = LetterUpload(challenge_id, number, len(sealed), sm3(sealed))
        pieces: Iterator[bytes] = (sealed[first : first + CHUNK] for first in range(0, len(sealed), CHUNK))
        answer = self._line.upload("ConsentService/ProduceLetter", upload, pieces, timeout_s=LETTER_S)
        return self._challenge(challenge_id, answer)

    def letter(self, challenge_id: str, number: int) -> bytes:
        """Return a letter that was produced and waits to be judged."""
        messages = self._line.stream("ConsentService/GetLetter", LetterQuery(challenge_id, number), timeout_s=LETTER_S)
        head, sealed = None, bytearray()
        for message in messages:
            if message.WhichOneof("part") == "head" and head is None:
                head = self._line.read(LetterHead, message.head)
            sealed += message.chunk
            if len(sealed) > MOST_LETTER + (1 << 16):
                raise IntegrityFailed("the node sends more than a letter has", party=self._line.node.node_id)
        if head is None or (head.challenge_id, head.number) != (challenge_id, number) or head.size != len(sealed):
            raise IntegrityFailed("the node sent another letter than was asked for", party=self._line.node.node_id)
        document = open_with(self._line.person.sealing, bytes(sealed), _document_aad(challenge_id, number))
        if sm3(document) != head.digest:
            raise IntegrityFailed("the letter is not what the node says it is", party=self._line.node.node_id)
        return document

    def judge_letter(
        self, challenge_id: str, number: int, accepted: bool, reason: str = "", digest: bytes = b""
    ) -> ChallengeView:
        """Sign and hand in a judgement on a letter; a rejected one suspends the scenario.

        Args:
            reason: needed to reject.
            digest: SM3 of the document that was read; without it, of what the node has at this moment.
        """
        if not accepted and not reason.strip():
            raise InvalidSpec(tell="who rejects a letter says why")
        if not digest:
            view = self.challenge(challenge_id).view
            digest = next((letter.digest for letter in view.letters if letter.number == number), b"")
        word = LetterJudgement(challenge_id, number, digest, accepted, reason, signed.now_ms())
        judgement = _checked(signed.sign(self._line.person.identity, "letter-judgement", word), LetterJudgement)
        answer = self._line.call("ConsentService/JudgeLetter", judgement, repeatable=False)
        return self._challenge(challenge_id, answer)

    def _challenge(self, challenge_id: str, answer: Any) -> ChallengeView:
        view = self._line.read(ChallengeView, answer.challenge)
        if view.challenge_id != challenge_id:
            raise IntegrityFailed("the node answered about another challenge", party=self._line.node.node_id)
        return view


def _token(
    person: Person,
    source: ConsentSource,
    subject_id: str,
    scenario_digest: bytes,
    purpose: str,
    valid_s: int,
    evidence: bytes,
    uses: int,
) -> Signed:
    not_after_ms, nonce = _until(valid_s), secrets.token_bytes(16)
    if source is ConsentSource.ATTESTED and not evidence:
        found = Sm3()
        for part in (subject_id.encode(), scenario_digest, purpose.encode(), str(not_after_ms).encode(), nonce):
            found.update(len(part).to_bytes(4, "big") + part)
        evidence = found.digest()
    token = ConsentToken(subject_id, scenario_digest, purpose, not_after_ms, nonce, source, evidence, uses)
    return _checked(signed.sign(person.identity, "consent", token), ConsentToken)


def _until(valid_s: int) -> int:
    if not 1 <= valid_s <= _LONGEST_S:
        raise InvalidSpec(tell="a consent holds for 1 second to 366 days")
    return signed.now_ms() + 1000 * valid_s


def _checked(made: Signed, shape: type[object]) -> Signed:
    wire.decode(shape, made.payload)  # the bounds every node applies
    return made


def _document_aad(challenge_id: str, number: int) -> bytes:
    return tagged("letter", f"{challenge_id}\0{number}".encode())
