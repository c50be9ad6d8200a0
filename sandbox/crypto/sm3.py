"""SM3: digests, keyed digests and key derivation.

Source:    GB/T 32905-2016 (SM3), RFC 2104 (HMAC), RFC 5869 (HKDF), computed by OpenSSL through ``cryptography``.
Security:  stored bytes are always digested with a type prefix (``tagged``), so that bytes of one kind never pass for
           another. Plain ``sm3`` is for formats that fix their own prefix, such as the audit tree.
Errors:    ``InvalidSpec`` on a kind that is not a short lower-case word, or an impossible length.
Not here:  signatures (``sm2``), encryption (``sm4``).
"""

from __future__ import annotations

import functools
import re
from typing import Final

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sandbox.errors import InvalidSpec

DIGEST_SIZE: Final = 32  # bytes

_SM3: Final = hashes.SM3()
_KIND: Final = re.compile(r"[a-z0-9][a-z0-9_./-]{0,63}")


def sm3(data: bytes) -> bytes:
    """Return the 32-byte SM3 digest of ``data``."""
    digest = hashes.Hash(_SM3)
    digest.update(data)
    return digest.finalize()


class Sm3:
    """A digest taken piece by piece; ``digest`` may be asked for at any time and does not end it."""

    def __init__(self) -> None:
        self._state = hashes.Hash(_SM3)

    def update(self, data: bytes) -> None:
        """Take in the next bytes."""
        self._state.update(data)

    def digest(self) -> bytes:
        """Return the digest of everything taken in so far."""
        return self._state.copy().finalize()


def domain(kind: str) -> bytes:
    """Return the prefix that marks bytes as being of ``kind``: ``sandbox/v1/<kind>`` and a zero byte.

    Raises:
        InvalidSpec: ``kind`` is not 1 to 64 characters of ``a-z 0-9 _ . / -``; a zero byte would let two kinds collide.
    """
    if not _KIND.fullmatch(kind):
        raise InvalidSpec("a kind is 1 to 64 characters of a-z 0-9 _ . / -")
    return f"sandbox/v1/{kind}\0".encode("ascii")


def tagged(kind: str, data: bytes) -> bytes:
    """Return the digest of stored bytes of one kind: SM3 over ``domain(kind)`` and ``data``."""
    digest = _started(kind).copy()
    digest.update(data)
    return digest.finalize()


@functools.lru_cache(256)
def _started(kind: str) -> hashes.Hash:
    """Return a digest that has taken in the prefix; only copies of it go on."""
    digest = hashes.Hash(_SM3)
    digest.update(domain(kind))
    return digest


def hmac_sm3(key: bytes, data: bytes) -> bytes:
    """Return the 32-byte HMAC-SM3 of ``data`` under ``key``."""
    code = hmac.HMAC(key, _SM3)
    code.update(data)
    return code.finalize()


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """Derive ``length`` bytes (1 to 8160) from ``secret`` with HKDF-SM3.

    Raises:
        InvalidSpec: ``length`` is out of range.
    """
    if not 1 <= length <= 255 * DIGEST_SIZE:
        raise InvalidSpec(f"HKDF-SM3 yields 1 to {255 * DIGEST_SIZE} bytes, not {length}")
    return HKDF(_SM3, length, salt, info).derive(secret)
