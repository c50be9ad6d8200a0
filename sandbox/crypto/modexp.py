"""Arithmetic modulo one large odd number on many numbers at once: what Paillier spends its time on.

Source:    P. Montgomery, Math. Comp. 44, 1985, in radix 2^52 for AVX512-IFMA; Karatsuba and Ofman, 1962.
Security:  "ifma": in C no branch and no address depends on an exponent or an element. All powers that a window of an
           exponent could ask for are read, whichever is taken; what shows is the length of a common exponent in 64-bit
           words. Work space is wiped, registers and stack slots that the compiler spilled to are not.
           "gmp": nothing is constant-time, a table is read where the digits say, and nothing can be wiped.
           Both: checks of range and preparing a modulus are Python, whose time depends on the values.
Shapes:    elements are ``Modulus.size`` bytes, big-endian, less than the modulus, one after another; exponents of a
           fixed base ``(bits + 7) // 8`` bytes, big-endian, less than 2^bits.
Units:     work is done in slices of some hundred elements; ``on_slice`` is told the number of elements done so far and
           what it raises ends the work. With ``threads`` above 1 slices run side by side. Two threads on two cores did
           1.9 times the work of one in powers and 1.5 in products with "ifma", which holds no lock; with "gmp" 1.6 to
           1.9 times in powers and no more than one in products, since the lock is taken again for each of them.
Errors:    ``InvalidSpec``, before any work, for a modulus, element, exponent, group, length or back end that is none.
Not here:  keys, randomness, what the numbers mean (``sandbox.mpc.paillier``).

``BACKEND`` is "ifma" (AVX512-IFMA in C) or "gmp" (the library gmpy2); ``WHY`` says why in a sentence. The environment
variable ``SANDBOX_MODEXP`` set to one of the names forces it.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from sandbox.crypto._modexp import fallback, lanes
from sandbox.crypto._modexp.groups import fill
from sandbox.crypto._modexp.slices import OnSlice, Part, cut, join
from sandbox.crypto.backends import asked_for
from sandbox.errors import InvalidSpec

VARIABLE: Final = "SANDBOX_MODEXP"
MIN_BITS: Final = 1024
MAX_BITS: Final = 6144
MAX_WINDOW: Final = 12  # bits
MAX_EXPONENT_BITS: Final = 8192
SLICE: Final = 128  # elements
LONG_SLICE: Final = 512  # elements, where one costs no more than a few multiplications

_IFMA: Final = "ifma"
_GMP: Final = "gmp"


class _Table(Protocol):
    @property
    def nbytes(self) -> int: ...

    def power(self, exponents: memoryview) -> bytes: ...


class _Engine(Protocol):
    def multiply(self, left: memoryview, right: memoryview) -> bytes: ...

    def chains(self, elements: memoryview, order: NDArray[np.int64], starts: NDArray[np.int64]) -> bytes: ...

    def power(self, elements: memoryview, exponent: int) -> bytes: ...

    def table(self, base: int, bits: int, window: int | None) -> _Table: ...


def backends() -> tuple[str, ...]:
    """Return the back ends that can run here, fastest first."""
    return (_IFMA, _GMP) if lanes.runs() else (_GMP,)


def choose(forced: str) -> tuple[str, str]:
    """Return the name of the back end to use and the reason; ``forced`` is a name or empty.

    Raises:
        Unavailable: ``forced`` names something that cannot run here.
    """
    here = backends()
    if forced:
        return asked_for(VARIABLE, forced, here)
    if here[0] == _GMP:
        return _GMP, _slow()
    return here[0], "eight numbers at a time with AVX512-IFMA"


def _slow() -> str:
    if lanes._native is None:
        return (
            "the C extension of this package was not built, so numbers are multiplied one at a time by GMP, 4 to 6 "
            "times slower; install gcc and the package again"
        )
    return "this processor has no AVX512-IFMA, so numbers are multiplied one at a time by GMP"


BACKEND, WHY = choose(os.environ.get(VARIABLE, ""))


class Modulus:
    """An odd number of 1024 to 6144 bits, ready to be computed with. It does not print."""

    __slots__ = ("_engine", "_top", "_value", "backend", "size")

    def __init__(self, n: int, *, backend: str = BACKEND) -> None:
        """Prepare ``n``.

        Raises:
            InvalidSpec: it is even or has too few or too many bits, or there is no such back end here.
        """
        if n % 2 == 0 or n < 0 or not MIN_BITS <= n.bit_length() <= MAX_BITS:
            raise InvalidSpec(f"a modulus is odd and has {MIN_BITS} to {MAX_BITS} bits")
        if backend not in backends():
            raise InvalidSpec("there is no such back end for modular arithmetic on this machine")
        self.backend, self.size = backend, (n.bit_length() + 7) // 8
        self._value = n.to_bytes(self.size, "big")
        self._top = np.uint64(int.from_bytes(self._value[:8], "big"))
        self._engine: _Engine = fallback.Engine(n) if backend == _GMP else lanes.Engine(n)

    def multiply(
        self, left: bytes | memoryview, right: bytes | memoryview, *, threads: int = 1, on_slice: OnSlice | None = None
    ) -> bytes:
        """Return the products of ``left`` and ``right``, element by element.

        Raises:
            InvalidSpec: an element or a length is not one, or there are not as many on both sides.
        """
        one, other = self._checked(left), self._checked(right)
        if len(one) != len(other):
            raise InvalidSpec("the sides of a multiplication differ in length")
        places = cut(len(one), self.size, LONG_SLICE, threads)
        parts = [Part(partial(self._engine.multiply, one[at], other[at]), count) for at, count in places]
        return join(parts, threads, on_slice)

    def product(self, elements: bytes | memoryview, *, threads: int = 1, on_slice: OnSlice | None = None) -> bytes:
        """Return the product of all elements, 1 where there are none.

        Raises:
            InvalidSpec: an element or a length is not one.
        """
        count = memoryview(elements).nbytes // self.size
        return self.grouped_products(elements, np.zeros(count, np.int32), 1, threads=threads, on_slice=on_slice)

    def grouped_products(
        self,
        elements: bytes | memoryview,
        groups: NDArray[np.int32],
        count: int,
        *,
        threads: int = 1,
        on_slice: OnSlice | None = None,
    ) -> bytes:
        """Return the product of the elements of each group 0 .. ``count`` - 1, 1 for a group without any.

        Args:
            groups: the number of its group for each element.

        Raises:
            InvalidSpec: an element, a length or a group is not one.
        """
        view = self._checked(elements)
        if groups.dtype != np.int32 or groups.shape != (len(view) // self.size,) or count < 0:
            raise InvalidSpec("there is not one group for each element, as 32-bit numbers")
        if len(groups) and not 0 <= int(groups.min()) <= int(groups.max()) < count:
            raise InvalidSpec("a group is out of range")
        out = np.frombuffer((1).to_bytes(self.size, "big") * count, np.uint8).reshape(count, self.size).copy()
        fill(out, self._engine.chains, view, groups, slice_size=LONG_SLICE, threads=threads, on_slice=on_slice)
        return out.tobytes()

    def power(
        self, elements: bytes | memoryview, exponent: int, *, threads: int = 1, on_slice: OnSlice | None = None
    ) -> bytes:
        """Return every element to the power of one exponent, which may be a secret with "ifma".

        Raises:
            InvalidSpec: an element, a length or the exponent is not one.
        """
        view = self._checked(elements)
        if exponent < 0 or exponent.bit_length() > MAX_EXPONENT_BITS:
            raise InvalidSpec(f"an exponent is not negative and has at most {MAX_EXPONENT_BITS} bits")
        places = cut(len(view), self.size, SLICE, threads)
        parts = [Part(partial(self._engine.power, view[at], exponent), count) for at, count in places]
        return join(parts, threads, on_slice)

    def _checked(self, elements: bytes | memoryview) -> memoryview:
        view = memoryview(elements).cast("B")
        if len(view) % self.size:
            raise InvalidSpec("the length of elements is not a multiple of the modulus' size")
        # The first eight bytes decide, but for one random element in 2^64 and for those that try.
        heads = np.frombuffer(view, np.uint8).reshape(-1, self.size)[:, :8].copy().view(">u8").reshape(-1)
        for place in np.flatnonzero(heads >= self._top).tolist():
            if view[place * self.size : (place + 1) * self.size].tobytes() >= self._value:
                raise InvalidSpec("an element is not less than the modulus")
        return view

    def __repr__(self) -> str:
        return f"Modulus({8 * self.size} bits, {self.backend})"


class FixedBase:
    """A table of the powers of one base."""

    __slots__ = ("_bits", "_modulus", "_size", "_table")

    def __init__(self, modulus: Modulus, base: int, bits: int, *, window: int | None = None) -> None:
        """Build the table.

        Args:
            bits: the length of exponents.
            window: bits that are looked up at a time; the table has ceil(bits / window) * 2^window elements.

        Raises:
            InvalidSpec: the base is not less than the modulus, or ``bits`` or ``window`` is out of range.
        """
        if not 0 <= base < int.from_bytes(modulus._value, "big"):
            raise InvalidSpec("a base is not negative and less than its modulus")
        if not 1 <= bits <= MAX_EXPONENT_BITS or not (window is None or 1 <= window <= MAX_WINDOW):
            raise InvalidSpec(f"exponents have 1 to {MAX_EXPONENT_BITS} bits, windows 1 to {MAX_WINDOW}")
        self._modulus, self._bits, self._size = modulus, bits, (bits + 7) // 8
        self._table = modulus._engine.table(base, bits, window)

    @property
    def nbytes(self) -> int:
        """Size of the table in bytes."""
        return self._table.nbytes

    def power(self, exponents: bytes | memoryview, *, threads: int = 1, on_slice: OnSlice | None = None) -> bytes:
        """Return the base to the power of each exponent; they may be secrets with "ifma".

        Raises:
            InvalidSpec: a length is not one, or an exponent has more bits than was said.
        """
        view = memoryview(exponents).cast("B")
        if len(view) % self._size:
            raise InvalidSpec("the length of exponents is not a multiple of one exponent's")
        if self._bits % 8 and np.any(np.frombuffer(view, np.uint8)[:: self._size] >> self._bits % 8):
            raise InvalidSpec("an exponent is too long")
        places = cut(len(view), self._size, SLICE, threads)
        return join([Part(partial(self._table.power, view[at]), count) for at, count in places], threads, on_slice)
