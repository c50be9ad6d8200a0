"""Private set intersection on the SM2 curve, under national algorithms. The exchange itself is ``commutative``.

Source:   group of GB/T 32918.5-2016; H is hash_to_curve of RFC 9380 with SM3 (``sandbox.crypto.sm2curve``).
Security: semi-honest parties. Elements are k H(x) for a uniform secret k that is used for one bucket only. With H a
          random oracle, decisional Diffie-Hellman in the SM2 group makes (H(x_1), ..., k H(x_1), ...) indistinguishable
          from random points for everybody without k, so a blinded key says nothing about the key, however guessable it
          is, but through the comparison both sides agreed to. The group has prime order and cofactor 1: there is no
          twist to fall on, no small subgroup, and H(x) is never predictable up to a factor.
          *Every* received point is validated before k touches it; without that, a point on another curve would leak k
          piece by piece. One bad point ends the run, saying how many there were.
          A point and its negative are equal here, since only x is compared: the two would be a repetition that hides.
          The domain separation tag holds the job and the salt: elements of two jobs have nothing in common even if a
          secret were.
          The second round is cut to the last 16 bytes of x. Matches are decided on it, and two sets of m and n keys
          collide anywhere with a chance of about m n / 2^128 (1e6 each: 2^-88; 1e9 each: 2^-68). Where both learn, the
          run even then ends instead of naming a wrong row, since the two sides' digests of the result differ.
          Repetitions in the first round are looked for by the same 16 bytes: two keys alike there end the run.
Reveals:  as in ``commutative``.
Shapes:   33 bytes an element in the first round (SEC 1, compressed), 16 in the second.
Not here: the arithmetic and which back end it runs on: ``sm2curve.BACKEND`` and ``sm2curve.WHY``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np

from sandbox.crypto import sm2curve
from sandbox.crypto.sm3 import tagged
from sandbox.errors import ProtocolFailed
from sandbox.psi.commutative import Group, Names, exchange, rows
from sandbox.psi.contract import Terms
from sandbox.psi.keys import Digests

ENGINE: Final = "ecdh-sm2/3"
ECHO: Final = 16  # bytes of x in the second round
_TAG: Final = b"sandbox/v1/psi-sm2/"
_POINT: Final = sm2curve.POINT_SIZE


def domain_tag(terms: Terms) -> bytes:
    """Return the domain separation tag of a run: the job and its salt, in the form RFC 9380 (3.1) advises."""
    run = tagged("psi-sm2", len(terms.plan).to_bytes(4, "big") + terms.plan + terms.salt)
    return _TAG + run[:16].hex().encode("ascii") + b"/" + sm2curve.SUITE


class _Sm2:
    """The group with one secret of this bucket."""

    engine, element, echo, overlaps = ENGINE, _POINT, ECHO, True

    def __init__(self, secret: sm2curve.Scalar, tag: bytes) -> None:
        self._secret, self._tag = secret, tag

    def blind(self, digests: Digests) -> bytes:
        places = 16 * np.arange(len(digests) + 1, dtype=np.int64)
        return self._secret.multiply_hashed(digests.astype("<u8").tobytes(), places.tobytes(), self._tag)

    def again(self, elements: memoryview) -> bytes:
        products, bad = self._secret.multiply(elements)
        if bad:
            total = len(elements) // _POINT
            raise ProtocolFailed(f"the other side sent {len(bad)} elements of {total} that are no points of the curve")
        return _ends(products)

    def names(self, elements: memoryview) -> Names:
        return rows(memoryview(_ends(elements)), ECHO)

    def check_echo(self, echo: memoryview) -> None:
        """Every 16 bytes are a spelling of their own."""


def _ends(points: bytes | memoryview) -> bytes:
    """Return the last bytes of x of each point: what it is known by."""
    return np.frombuffer(points, np.uint8).reshape(-1, _POINT)[:, _POINT - ECHO :].tobytes()


@contextlib.contextmanager
def _group(terms: Terms) -> Iterator[Group]:
    with sm2curve.Scalar.generate() as secret:
        yield _Sm2(secret, domain_tag(terms))


intersect: Final = partial(exchange, _group)
