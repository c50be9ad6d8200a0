"""The SM2 group in batches: one secret scalar times many points, and messages hashed to points.

Source:    curve of GB/T 32918.5; compressed points of SEC 1; hash_to_curve of RFC 9380 as suite ``SUITE``: SM3 in
           expand_message_xmd, 48 bytes a field element, simplified SWU with Z = -9 (the rule of its appendix H.2), both
           maps added. The RFC has no suite for this curve; tests/vectors/sm2_hash_to_curve.json is ours.
Security:  every point that comes in is validated (form, x < p, on the curve; the cofactor is 1, so there are no small
           subgroups), and one that is none cannot touch its neighbours. A scalar is 1 to n - 1. In C no branch and no
           address depends on the scalar or on what a message says, only on how long it is, and both are wiped; in the
           fallback the product is OpenSSL's ladder, while the map is Python and its time depends on the message.
Shapes:    points 33 bytes ``02|03 || x``, one after another; scalars 32 bytes, big-endian; tags 1 to 255 bytes.
Units:     work is done ``SLICE`` points at a time, without the interpreter's lock where there is the extension.
Errors:    ``InvalidSpec`` for a scalar, tag, length or back end that is not one; ``WrongState`` for a scalar used after
           ``close``; ``Unavailable`` where neither the extension nor OpenSSL 3 is there. Bad points are no error here:
           their positions are returned, and the caller has to look.
Not here:  signatures and keys (``sm2``), what to do with a bad point (the protocol).

``BACKEND`` is "ifma", "portable" (both in C) or "libcrypto" (about 6 to 50 times slower); ``WHY`` says why in a
sentence. The environment variable ``SANDBOX_SM2CURVE`` set to one of the names forces it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Final, NoReturn

from sandbox.crypto._sm2curve import fallback
from sandbox.crypto.backends import asked_for
from sandbox.errors import InvalidSpec, JobFailed, Unavailable, WrongState

_native: ModuleType | None
try:
    from sandbox.crypto._sm2curve import _native
except ImportError:  # not built: no compiler at installation, or a platform without 128-bit integers
    _native = None

SUITE: Final = b"curveSM2_XMD:SM3_SSWU_RO_"
POINT_SIZE: Final = 33  # bytes
SCALAR_SIZE: Final = 32  # bytes
SLICE: Final = 4096  # points
VARIABLE: Final = "SANDBOX_SM2CURVE"

_LIBCRYPTO: Final = "libcrypto"
_ORDER: Final = bytes.fromhex("fffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54123")

OnSlice = Callable[[int], None]
_Hashing = Callable[[memoryview, memoryview, bytes], tuple[bytes, bytes]]  # points, and which are none


def backends() -> tuple[str, ...]:
    """Return the back ends that can run here, fastest first."""
    built: tuple[str, ...] = _native.backends() if _native is not None else ()
    return (*built, _LIBCRYPTO)


def choose(forced: str) -> tuple[str, str]:
    """Return the name of the back end to use and the reason; ``forced`` is a name or empty.

    Raises:
        Unavailable: ``forced`` names something that cannot run here.
    """
    here = backends()
    if forced:
        return asked_for(VARIABLE, forced, here)
    if here[0] == _LIBCRYPTO:
        return _LIBCRYPTO, (
            "the C extension of this package was not built, so SM2 points are multiplied by OpenSSL, 6 to 50 times "
            "slower; install gcc and the package again"
        )
    if here[0] == "portable":
        return "portable", "this processor has no AVX512-IFMA, so SM2 points are multiplied two at a time"
    return here[0], "sixteen SM2 points at a time with AVX512-IFMA"


BACKEND, WHY = choose(os.environ.get(VARIABLE, ""))


class Scalar:
    """A secret scalar. Used as a context manager, it is wiped at the end; it does not print or pickle."""

    __slots__ = ("_backend", "_closed", "_value")

    def __init__(self, value: bytes | bytearray, *, backend: str = BACKEND) -> None:
        """Take a copy of ``value``.

        Raises:
            InvalidSpec: it is not in 1 .. n - 1, or there is no such back end here.
        """
        if len(value) != SCALAR_SIZE or not bytes(SCALAR_SIZE) < value < _ORDER:
            raise InvalidSpec("a scalar is 32 bytes, at least 1 and less than the order of the group")
        self._backend, self._closed, self._value = _checked(backend), False, bytearray(value)

    @classmethod
    def generate(cls, *, backend: str = BACKEND) -> Scalar:
        """Return a uniformly random scalar."""
        while True:  # one attempt in 2^32 fails
            value = bytearray(os.urandom(SCALAR_SIZE))
            if bytes(SCALAR_SIZE) < value < _ORDER:
                made = cls(value, backend=backend)
                value[:] = bytes(SCALAR_SIZE)
                return made

    def __enter__(self) -> Scalar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Wipe the scalar; harmless when done twice."""
        self._value[:] = bytes(SCALAR_SIZE)
        self._closed = True

    def multiply(self, points: bytes | memoryview, on_slice: OnSlice | None = None) -> tuple[bytes, tuple[int, ...]]:
        """Return the products, and the positions of what is not a point (33 zero bytes among the products).

        Args:
            on_slice: told the number of points done after each slice; what it raises ends the work.

        Raises:
            InvalidSpec: ``points`` is not a number of 33 bytes each.
            WrongState: the scalar has been wiped.
        """
        if self._closed:
            raise WrongState("this scalar has been wiped")
        view = memoryview(points).cast("B")
        if len(view) % POINT_SIZE:
            raise InvalidSpec("the length of compressed points is not a multiple of 33")
        products: list[bytes] = []
        bad: list[int] = []
        for first in range(0, len(view) // POINT_SIZE, SLICE):
            part = view[POINT_SIZE * first : POINT_SIZE * (first + SLICE)]
            if self._backend == _LIBCRYPTO:
                done, marks = fallback.multiply(self._value, part)
            else:
                done, marks = _extension().multiply(self._backend, self._value, part)
            products.append(done)
            if any(marks):
                bad += (first + place for place, mark in enumerate(marks) if mark)
            if on_slice is not None:
                on_slice(first + len(marks))
        return b"".join(products), tuple(bad)

    def multiply_hashed(self, data: bytes | memoryview, offsets: bytes | memoryview, tag: bytes) -> bytes:
        """Return the products of ``hash_column(data, offsets, tag)``, in one step.

        Raises:
            InvalidSpec: the tag, the offsets, or a message of more than 65 535 bytes is out of range.
            WrongState: the scalar has been wiped.
        """
        if self._closed:
            raise WrongState("this scalar has been wiped")
        if self._backend == _LIBCRYPTO:
            return self.multiply(hash_column(data, offsets, tag, backend=self._backend))[0]
        return _on_columns(partial(_extension().multiply_hashed, self._backend, self._value), data, offsets, tag, None)

    def __repr__(self) -> str:
        return "Scalar(secret)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret scalar cannot be copied or pickled")


def hash_to_curve(messages: Sequence[bytes], tag: bytes, *, backend: str = BACKEND) -> bytes:
    """Return the points of ``messages`` under the domain separation tag ``tag``.

    Raises:
        InvalidSpec: the tag, or a message of more than 65 535 bytes, is out of range.
    """
    places = [0]
    for message in messages:
        places.append(places[-1] + len(message))
    offsets = b"".join(place.to_bytes(8, sys.byteorder) for place in places)
    return hash_column(b"".join(messages), offsets, tag, backend=backend)


def hash_column(
    data: bytes | memoryview,
    offsets: bytes | memoryview,
    tag: bytes,
    *,
    on_slice: OnSlice | None = None,
    backend: str = BACKEND,
) -> bytes:
    """Return the points of the messages ``data[offsets[i]:offsets[i + 1]]``, the way Arrow lays out a column.

    Args:
        offsets: one more than there are messages, signed 64-bit in the machine's byte order.
        on_slice: told the number of messages done after each slice; what it raises ends the work.

    Raises:
        InvalidSpec: the tag, the offsets, or a message of more than 65 535 bytes is out of range.
    """
    if _checked(backend) == _LIBCRYPTO:
        return _on_columns(fallback.hash_to_curve, data, offsets, tag, on_slice)
    return _on_columns(partial(_extension().hash_to_curve, backend), data, offsets, tag, on_slice)


def _on_columns(
    work: _Hashing, data: bytes | memoryview, offsets: bytes | memoryview, tag: bytes, on_slice: OnSlice | None
) -> bytes:
    """Do ``work`` on a column slice by slice and return the points."""
    everything, places = memoryview(data).cast("B"), memoryview(offsets).cast("B")
    points: list[bytes] = []
    for first in range(0, max(len(places) // 8 - 1, 0), SLICE):
        part = places[8 * first : 8 * (first + SLICE + 1)]
        try:
            done, marks = work(everything, part, tag)
        except ValueError:
            raise InvalidSpec("a tag, a message or the offsets of messages are out of range") from None
        if any(marks):  # with probability 2^-256 a message
            raise JobFailed("a message was hashed to the point at infinity")
        points.append(done)
        if on_slice is not None:
            on_slice(first + len(marks))
    return b"".join(points)


def _checked(backend: str) -> str:
    if backend not in backends():
        raise InvalidSpec("there is no such back end for the SM2 curve on this machine")
    return backend


def _extension() -> ModuleType:
    if _native is None:
        raise Unavailable("the C extension for the SM2 curve was not built")
    return _native
