"""Signed payloads, and bytes sealed to somebody's public key.

    sealed  =  version (1) || size (2) || SM2 ciphertext of a fresh SM4 key || record 0 || ... || last record
    record  =  SM4-GCM of up to 1 MiB, under nonce "seal" || number, AAD = SM3(header, aad) || last flag (1)

Source:    design of our own from GB/T 32918 (SM2) and GB/T 32907 (SM4); GCM as in NIST SP 800-38D. Numbered records
           with a last flag follow the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizar, CRYPTO 2015).
Security:  signatures cover the kind of the payload, so a signature on one kind is none on another. Every record is
           bound to its place, to whether it is the last, to ``aad`` and to the wrapped key: changed, lost, repeated,
           reordered or cut off records fail, and no plaintext is returned. Anybody can seal: sealing says nothing
           about who did; sign first, then seal.
Reveals:   to whoever sees sealed bytes: the length of the plaintext.
Errors:    ``IntegrityFailed`` for all that does not verify or open; ``InvalidSpec`` for a malformed kind.
Not here:  what payloads mean, and their digests (``sm3.tagged``).
"""

from __future__ import annotations

import secrets
from typing import Final

from sandbox.crypto.sm2 import PrivateKey, PublicKey
from sandbox.crypto.sm3 import domain, tagged
from sandbox.crypto.sm4 import KEY_SIZE, TAG_SIZE, RecordOpener, RecordSealer
from sandbox.errors import IntegrityFailed

RECORD_SIZE: Final = 1 << 20  # bytes of plaintext in every record but the last

_VERSION: Final = b"\x01"
_SENDER: Final = b"seal"
_MORE, _LAST = b"\x00", b"\x01"


def sign_payload(key: PrivateKey, kind: str, payload: bytes) -> bytes:
    """Return the signature of ``payload`` as a message of ``kind``."""
    return key.sign(domain(kind) + payload)


def verify_payload(key: PublicKey, kind: str, payload: bytes, signature: bytes) -> None:
    """Check a signature; verify before parsing.

    Raises:
        IntegrityFailed: it is not this key's over this payload and kind.
    """
    key.verify(domain(kind) + payload, signature)


def seal_to(key: PublicKey, plaintext: bytes, aad: bytes) -> bytes:
    """Seal ``plaintext`` so that only the owner of ``key`` can open it, with the same ``aad``."""
    secret = secrets.token_bytes(KEY_SIZE)
    wrapped = key.encrypt(secret)
    header = _VERSION + len(wrapped).to_bytes(2, "big") + wrapped
    bound = _binding(header, aad)
    records = RecordSealer(secret, _SENDER)
    parts = [header]
    final = max(0, len(plaintext) - 1) // RECORD_SIZE * RECORD_SIZE  # where the last record starts
    view = memoryview(plaintext)
    for start in range(0, final + 1, RECORD_SIZE):
        flag = _LAST if start == final else _MORE
        parts.append(records.seal(bytes(view[start : start + RECORD_SIZE]), bound + flag))
    return b"".join(parts)


def open_with(key: PrivateKey, sealed: bytes, aad: bytes) -> bytes:
    """Return the plaintext of ``seal_to``.

    Raises:
        IntegrityFailed: it was sealed to another key or with another ``aad``, or is not complete and unchanged.
    """
    start = 3 + int.from_bytes(sealed[1:3], "big")
    if sealed[:1] != _VERSION or len(sealed) < start + TAG_SIZE:
        raise IntegrityFailed("this is not an envelope, or it is cut short")
    header = sealed[:start]
    secret = key.decrypt(header[3:])
    if len(secret) != KEY_SIZE:
        raise IntegrityFailed("an envelope's key has the wrong size")
    bound = _binding(header, aad)
    records = RecordOpener(secret, _SENDER)
    stride = RECORD_SIZE + TAG_SIZE
    view = memoryview(sealed)
    parts = []
    for place in range(start, len(sealed), stride):
        flag = _LAST if place + stride >= len(sealed) else _MORE
        parts.append(records.open(bytes(view[place : place + stride]), bound + flag))
    return b"".join(parts)


def _binding(header: bytes, aad: bytes) -> bytes:
    """Return what every record authenticates; the header gives its own size, so the two cannot run together."""
    return tagged("envelope", header + aad)
