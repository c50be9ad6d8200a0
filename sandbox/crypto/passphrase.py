"""Small secrets under a passphrase: scrypt, then SM4-GCM.

    locked  =  salt (32) || SM4-GCM of the secret, AAD = purpose

Source:    RFC 7914 (scrypt), RFC 5869 (HKDF) with SM3, GB/T 32907-2016 (SM4) in GCM.
Security:  a passphrase is weak: each guess costs 32 MiB of memory and about a tenth of a second (N = 2**15, r = 8,
           p = 1). A salt is used once, so the key is, and the nonce may be zero. What is locked for one purpose does
           not open for another.
Errors:    ``IntegrityFailed`` if it does not open, whatever the cause; ``InvalidSpec`` for an empty passphrase.
Not here:  PEM files, which carry their own protection (``sm2``, ``tls``).
"""

from __future__ import annotations

import secrets
from hashlib import scrypt
from typing import Final

from sandbox.crypto.sm3 import hkdf
from sandbox.crypto.sm4 import KEY_SIZE, NONCE_SIZE, TAG_SIZE, seal, unseal
from sandbox.errors import IntegrityFailed, InvalidSpec

SALT_SIZE: Final = 32  # bytes
_ONCE: Final = bytes(NONCE_SIZE)


def lock(secret: bytes, passphrase: bytes, purpose: bytes) -> bytes:
    """Return ``secret`` so that only ``passphrase`` opens it, for the same ``purpose``."""
    salt = secrets.token_bytes(SALT_SIZE)
    return salt + seal(_stretched(passphrase, salt, purpose), _ONCE, secret, purpose)


def unlock(locked: bytes, passphrase: bytes, purpose: bytes) -> bytes:
    """Return what ``lock`` was given.

    Raises:
        IntegrityFailed: passphrase, purpose or bytes are others.
    """
    if len(locked) < SALT_SIZE + TAG_SIZE:
        raise IntegrityFailed("a locked secret is too short")
    return unseal(_stretched(passphrase, locked[:SALT_SIZE], purpose), _ONCE, locked[SALT_SIZE:], purpose)


def _stretched(passphrase: bytes, salt: bytes, purpose: bytes) -> bytes:
    if not passphrase:
        raise InvalidSpec("a passphrase is empty")
    return hkdf(scrypt(passphrase, salt=salt, n=1 << 15, r=8, p=1, maxmem=1 << 26), salt, purpose, KEY_SIZE)
