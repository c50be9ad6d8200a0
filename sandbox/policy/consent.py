"""One person's leave for one call: opened and checked at every data owner's node.

The person's id travels in an input sealed to each owner; the spec holds only SM3(opening ‖ id), so that all owners
can tell that they were asked about the same person. A token is signed by an issuer the scenario names, for one
purpose, until one date; its nonce is spent in the same transaction as the quota (``policy.quota``).
"""

from __future__ import annotations

import hmac

from sandbox import wire
from sandbox.crypto.envelope import open_with
from sandbox.crypto.sm2 import PrivateKey, PublicKey
from sandbox.crypto.sm3 import sm3, tagged
from sandbox.errors import IntegrityFailed, InvalidSpec, PolicyRefused, Unauthenticated
from sandbox.model import ApplicantInput, ConsentToken, Scenario, SealedInput
from sandbox.signed import verify


def commitment(subject_id: str, opening: bytes) -> bytes:
    """Return what stands in the spec for a person."""
    return sm3(opening + subject_id.encode())


def open_subject(
    key: PrivateKey,
    node_id: str,
    inputs: tuple[SealedInput, ...],
    committed: bytes,
    scenario: Scenario,
    digest: bytes,
    now_ms: int,
) -> tuple[str, bytes]:
    """Return the person's id and the token's nonce.

    Raises:
        InvalidSpec: there is no input for this node, or it does not fit the commitment.
        PolicyRefused: the token is not for this person, scenario, purpose or time, or its issuer is not named.
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
    token = _token(content, scenario)
    if token.subject_id != content.subject_id:
        raise PolicyRefused(tell="the consent is another person's")
    if token.scenario_digest != digest or token.purpose != scenario.purpose:
        raise PolicyRefused(tell="the consent is for another scenario or purpose")
    if now_ms >= token.not_after_ms:
        raise PolicyRefused(tell="the consent has expired")
    return content.subject_id, token.nonce


def _token(content: ApplicantInput, scenario: Scenario) -> ConsentToken:
    for point in scenario.consent.issuers:
        issuer = PublicKey.from_bytes(point)
        if issuer.key_id == content.consent.key_id:
            try:
                return verify(issuer, "consent", content.consent, ConsentToken)
            except Unauthenticated:
                raise PolicyRefused(tell="the consent's signature does not verify") from None
    raise PolicyRefused(tell="the consent is not signed by an issuer the scenario names")
