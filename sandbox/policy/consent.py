"""One person's leave for a call: opened and checked at every data owner's node.

    source      signed by                                  evidence
    SUBJECT     the person's own key, which an issuer      none needed
                certified in a SubjectKey
    ATTESTED    an issuer                                  SM3 of a record that the issuer keeps
    LETTER      an issuer                                  SM3 of the letter, which is produced on challenge (letters)

The person's id travels in an input sealed to each owner; the spec holds only SM3(opening ‖ id), so that all owners
can tell that they were asked about the same person. A token is for one purpose, until one date, for one call or as many
as it says; ``spending`` counts them in the transaction that admits the job.

Source:    issuers, the sources that are allowed, and how many calls one token may be for: the scenario's consent rule.
Security:  verify, then parse. An own key is none if it is an issuer's, the applicant's or the recipient's: it would be
           their word alone under the person's name. A token is known by SM3 over its signer's key id and what was
           signed, not by its nonce: what one issuer signs cannot use up or withdraw what another did.
Reveals:   to the submitter, which of its own tokens is not for this call, or has expired: it holds them.
Errors:    ``InvalidSpec`` for an input that is not whole, ``PolicyRefused`` for a token that is not for this call.
Not here:  counting and withdrawals (``spending``), challenges (``letters``).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from sandbox import wire
from sandbox.crypto.envelope import open_with
from sandbox.crypto.sm2 import PrivateKey, PublicKey
from sandbox.crypto.sm3 import sm3, tagged
from sandbox.errors import IntegrityFailed, InvalidSpec, PolicyRefused, Unauthenticated
from sandbox.model import ApplicantInput, ConsentSource, ConsentToken, Scenario, SealedInput, Signed, SubjectKey
from sandbox.signed import verify

DIGEST = 32  # bytes of an SM3 digest


@dataclass(frozen=True, slots=True)
class Consented:
    """A consent that was checked, and whom it is about."""

    subject_id: str = field(repr=False)
    token: bytes  # what it is known by
    source: ConsentSource
    evidence: bytes = field(repr=False)
    uses: int  # calls it is for
    signers: frozenset[str]  # ids of the keys that may withdraw it, beside the person's own


def commitment(subject_id: str, opening: bytes) -> bytes:
    """Return what stands in the spec for a person."""
    return sm3(opening + subject_id.encode())


def token_digest(token: Signed) -> bytes:
    """Return what a token is known by: the same however often its signer signs the same words."""
    return tagged("consent-token", token.key_id.encode() + b"\0" + token.payload)


def open_subject(
    key: PrivateKey,
    node_id: str,
    inputs: tuple[SealedInput, ...],
    committed: bytes,
    scenario: Scenario,
    digest: bytes,
    now_ms: int,
) -> Consented:
    """Return whom a job is about, with the consent.

    Raises:
        InvalidSpec: there is no input for this node, or it does not fit the commitment.
        PolicyRefused: the token is not for this person, scenario, purpose, time or so many calls, or not signed by whom
            the scenario names.
    """
    mine = [item for item in inputs if item.party == node_id]
    if len(mine) != 1:
        raise InvalidSpec(tell=f"the submission must carry one sealed input for {node_id}")
    try:
        content = wire.decode(ApplicantInput, open_with(key, mine[0].sealed, tagged("applicant", committed)))
    except IntegrityFailed:
        raise InvalidSpec(tell=f"the sealed input for {node_id} does not open") from None
    if not hmac.compare_digest(commitment(content.subject_id, content.opening), committed):
        raise InvalidSpec(tell="the sealed input does not fit the commitment in the spec")
    token, signers = _token(content, scenario, now_ms)
    if token.subject_id != content.subject_id:
        raise PolicyRefused(tell="the consent is another person's")
    if token.scenario_digest != digest or token.purpose != scenario.purpose:
        raise PolicyRefused(tell="the consent is for another scenario or purpose")
    if now_ms >= token.not_after_ms:
        raise PolicyRefused(tell="the consent has expired")
    _check_terms(token, scenario)
    return Consented(
        content.subject_id,
        token_digest(content.consent),
        token.source,
        token.evidence,
        max(1, token.uses),
        signers,
    )


def certified_key(scenario: Scenario, certificate: Signed) -> SubjectKey:
    """Return a person's own key as an issuer of the scenario certified it; when it ends is not looked at.

    Raises:
        PolicyRefused: no issuer the scenario names signed it, or it is not a key that can be a person's own.
    """
    told = "the person's key is not certified by an issuer the scenario names"
    try:
        found = verify(_issuer(scenario, certificate, told), "subject-key", certificate, SubjectKey)
    except Unauthenticated:
        raise PolicyRefused(tell=told) from None
    if found.key in {scenario.applicant_key, scenario.recipient.identity_key, *scenario.consent.issuers}:
        raise PolicyRefused(tell="the person's key is the applicant's, the recipient's or an issuer's")
    return found


def _token(content: ApplicantInput, scenario: Scenario, now_ms: int) -> tuple[ConsentToken, frozenset[str]]:
    """Return the token, and the keys that answer for it."""
    if content.subject_key is None:
        signer = _issuer(scenario, content.consent, "the consent is not signed by an issuer the scenario names")
        token = _signed(signer, content.consent)
        if token.source is ConsentSource.SUBJECT:
            raise PolicyRefused(tell="a consent from the person's own key comes with an issuer's word about that key")
        return token, frozenset({signer.key_id})
    certified = certified_key(scenario, content.subject_key)
    if certified.subject_id != content.subject_id:
        raise PolicyRefused(tell="the certified key is another person's")
    if now_ms >= certified.not_after_ms:
        raise PolicyRefused(tell="what certifies the person's key has expired")
    own = PublicKey.from_bytes(certified.key)
    if own.key_id != content.consent.key_id:
        raise PolicyRefused(tell="the consent is not signed by the person's certified key")
    token = _signed(own, content.consent)
    if token.source is not ConsentSource.SUBJECT:
        raise PolicyRefused(tell="the consent names another source than the person's own key")
    return token, frozenset({own.key_id, content.subject_key.key_id})


def _signed(signer: PublicKey, consent: Signed) -> ConsentToken:
    try:
        return verify(signer, "consent", consent, ConsentToken)
    except Unauthenticated:
        raise PolicyRefused(tell="the consent's signature does not verify") from None


def _issuer(scenario: Scenario, statement: Signed, otherwise: str) -> PublicKey:
    for point in scenario.consent.issuers:
        issuer = PublicKey.from_bytes(point)
        if issuer.key_id == statement.key_id:
            return issuer
    raise PolicyRefused(tell=otherwise)


def _check_terms(token: ConsentToken, scenario: Scenario) -> None:
    rule = scenario.consent
    if token.source not in rule.sources:
        raise PolicyRefused(tell="the scenario does not allow consents from this source")
    if token.evidence and len(token.evidence) != DIGEST:
        raise PolicyRefused(tell="the consent's evidence is not an SM3 digest")
    if token.source is not ConsentSource.SUBJECT and not token.evidence:
        raise PolicyRefused(tell="the consent names no evidence")
    if token.uses > max(1, rule.most_uses):
        raise PolicyRefused(tell="the consent is for more calls than the scenario lets one be for")
