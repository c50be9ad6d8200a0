"""Signing and checking of messages: verify, then parse; the bytes that were signed are kept and forwarded as they are.

Source:    SM2 signatures over "sandbox/v1/<type>\\0" ‖ payload (``crypto.envelope``).
Errors:    ``Unauthenticated`` where a request or a card does not verify; ``InvalidSpec`` where it does but is
           malformed.
Not here:  who is registered, replay, and roles: ``api.authenticate``.
"""

from __future__ import annotations

import secrets
import time
from typing import Final, TypeVar

from sandbox import wire
from sandbox.crypto.envelope import sign_payload, verify_payload
from sandbox.crypto.sm2 import PrivateKey, PublicKey
from sandbox.crypto.sm3 import tagged
from sandbox.errors import IntegrityFailed, SandboxError, Unauthenticated
from sandbox.model import Call, CertifiedKey, KeyCard, PeerCard, Signed

T = TypeVar("T")
PROTOCOL = 1


DAY_MS: Final = 86_400_000


def now_ms() -> int:
    """Return the wall clock in Unix milliseconds: for people and windows, never for order."""
    return time.time_ns() // 1_000_000


def sign(key: PrivateKey, kind: str, value: object) -> Signed:
    """Encode ``value`` once and sign those bytes as a ``kind``."""
    payload = wire.encode(value)
    return Signed(payload, key.public.key_id, sign_payload(key, kind, payload))


def verify(key: PublicKey, kind: str, signed: Signed, shape: type[T]) -> T:
    """Return what ``key`` signed.

    Raises:
        Unauthenticated: the signature is another's, or over something else.
        InvalidSpec: it verifies and is still no ``shape``.
    """
    if signed.key_id != key.key_id:
        raise Unauthenticated(f"a {kind} names key {signed.key_id}, expected {key.key_id}")
    try:
        verify_payload(key, kind, signed.payload, signed.signature)
    except IntegrityFailed:
        raise Unauthenticated(f"the signature over a {kind} by {signed.key_id} does not verify") from None
    return wire.decode(shape, signed.payload)


def digest(kind: str, signed: Signed) -> bytes:
    """Return the digest of a signed message: SM3 over the stored payload with its type in front."""
    return tagged(kind, signed.payload)


def sign_call(key: PrivateKey, audience: str, method: str, body: object) -> Signed:
    """Return ``body`` as a fresh signed request for one method of one node."""
    encoded = body if isinstance(body, bytes) else wire.encode(body)
    return sign(key, "call", Call(PROTOCOL, audience, method, encoded, now_ms(), secrets.token_bytes(16)))


def certify(identity: PrivateKey, purpose: str, key: PublicKey) -> CertifiedKey:
    """Return ``key`` certified by ``identity`` for one purpose."""
    return CertifiedKey(key.to_bytes(), sign_payload(identity, f"certified-{purpose}", key.to_bytes()))


def open_certified(identity: PublicKey, purpose: str, certified: CertifiedKey) -> PublicKey:
    """Return the certified key, or raise ``Unauthenticated``."""
    try:
        verify_payload(identity, f"certified-{purpose}", certified.key, certified.signature)
    except IntegrityFailed:
        raise Unauthenticated(f"the {purpose} key is not certified by {identity.key_id}") from None
    return PublicKey.from_bytes(certified.key)


def read_signed(data: bytes) -> Signed:
    """Return the signed message in a file.

    Raises:
        InvalidSpec: it is none.
    """
    return wire.decode(Signed, data)


def open_key_card(signed: Signed) -> KeyCard:
    """Return a person's card after checking its self-signature and the sealing key's certificate."""
    card = _self_signed(signed, "key-card", KeyCard)
    open_certified(PublicKey.from_bytes(card.identity_key), "sealing", card.sealing)
    return card


def open_peer_card(signed: Signed) -> PeerCard:
    """Return a node's card after checking its self-signature and every certified key."""
    card = _self_signed(signed, "peer-card", PeerCard)
    identity = PublicKey.from_bytes(card.identity_key)
    for purpose, certified in (
        ("checkpoint", card.checkpoint),
        ("sealing", card.sealing),
        ("attestation", card.attestation),
    ):
        open_certified(identity, purpose, certified)
    return card


def _self_signed(signed: Signed, kind: str, shape: type[T]) -> T:
    """A card names the key it is signed with: parsed once to find the key, trusted only after the check."""
    claimed = wire.decode(shape, signed.payload)
    try:
        return verify(PublicKey.from_bytes(claimed.identity_key), kind, signed, shape)  # type: ignore[attr-defined]
    except SandboxError as error:
        raise Unauthenticated(f"the {kind} is not signed by the key it names: {error}") from None
