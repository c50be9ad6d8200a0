"""Private set intersection on Curve25519: runs on every machine. The exchange itself is ``commutative``.

Source:   group and scalar multiplication as in RFC 7748 (X25519). Digests: SM3.
Security: as in ``commutative``. The group: X25519 maps a u-coordinate to the u-coordinate of k times the point, so an
          element is a point up to sign. A 32-byte hash taken as it is would lie on the curve or, just as often, on its
          quadratic twist; both have near-prime order (8 and 4 times a prime, and clamped scalars are multiples of 8),
          but *which* of the two is preserved by k, so that one bit of every hash would show through. So H repeats with
          a counter until u lies on the curve. Elements then stay in its prime-order subgroup. All-zero outputs (small
          order) are refused, and so are spellings of u that are not canonical.
Reveals:  as in ``commutative``.
Shapes:   elements are 32 bytes, in both rounds.

One thread: ``cryptography`` holds the interpreter's lock during X25519 (measured: two threads are slower than one).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from sandbox.crypto.sm3 import sm3
from sandbox.errors import ProtocolFailed
from sandbox.psi.commutative import Group, Names, exchange, rows
from sandbox.psi.contract import Terms
from sandbox.psi.keys import Digests

ENGINE: Final = "ecdh-x25519/3"
_SIZE: Final = 32  # bytes an element
_PRIME: Final = 2**255 - 19
_DOMAIN: Final = b"sandbox/v1/psi-x25519\0"
# 3 microseconds a symbol instead of 116 for the exponentiation, where the library is installed; the result is the same.
_JACOBI: Final = importlib.import_module("gmpy2").jacobi if importlib.util.find_spec("gmpy2") else None


def hash_to_curve(key: bytes, salt: bytes) -> bytes:
    """Return the u-coordinate of a point of the curve (not of its twist) that depends on ``key`` and ``salt`` only."""
    seed = _DOMAIN + len(salt).to_bytes(2, "big") + salt + key
    counter = 0
    while True:  # two attempts on average; more than 100 has chance 2^-100
        u = int.from_bytes(sm3(counter.to_bytes(4, "big") + seed), "little") % 2**255
        if u < _PRIME and _is_square(u * (u * (u + 486662) + 1) % _PRIME):
            return u.to_bytes(_SIZE, "little")
        counter += 1


class _Curve25519:
    """The group with one secret of this bucket."""

    engine, element, echo, overlaps = ENGINE, _SIZE, _SIZE, False

    def __init__(self, salt: bytes) -> None:
        self._secret, self._salt = X25519PrivateKey.generate(), salt

    def blind(self, digests: Digests) -> bytes:
        names = digests.astype("<u8").tobytes()
        points = (hash_to_curve(names[place : place + 16], self._salt) for place in range(0, len(names), 16))
        return b"".join(_multiply(self._secret, point) for point in points)

    def again(self, elements: memoryview) -> bytes:
        places = range(0, len(elements), _SIZE)
        return b"".join(_multiply(self._secret, bytes(elements[place : place + _SIZE])) for place in places)

    def names(self, elements: memoryview) -> Names:
        self.check_echo(elements)
        return rows(elements, _SIZE)

    def check_echo(self, echo: memoryview) -> None:
        for row in np.flatnonzero(np.frombuffer(echo, np.uint8).reshape(-1, _SIZE)[:, 31] >= 0x7F).tolist():
            if int.from_bytes(echo[_SIZE * row : _SIZE * (row + 1)], "little") >= _PRIME:
                raise ProtocolFailed("the other side sent an element that is not canonical")


def _multiply(secret: X25519PrivateKey, element: bytes) -> bytes:
    try:
        return secret.exchange(X25519PublicKey.from_public_bytes(element))
    except ValueError as error:  # the library refuses an all-zero result
        raise ProtocolFailed("the other side sent a point of small order") from error


def _is_square(value: int) -> bool:
    """Return whether ``value`` is a non-zero square modulo the field's prime."""
    if _JACOBI is not None:
        return bool(_JACOBI(value, _PRIME) == 1)
    return pow(value, (_PRIME - 1) // 2, _PRIME) == 1


@contextlib.contextmanager
def _group(terms: Terms) -> Iterator[Group]:
    yield _Curve25519(terms.salt)


intersect: Final = partial(exchange, _group)
