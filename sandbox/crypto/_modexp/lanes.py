"""Modular arithmetic on slices through the extension: eight numbers at a time, without the interpreter's lock.

Security:  as in ``sandbox.crypto.modexp``. Preparing a modulus is Python, whose time depends on it.
Shapes:    as there; it has checked everything that comes in.
"""

from __future__ import annotations

from functools import cached_property
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sandbox.crypto._modexp.groups import RUN
from sandbox.errors import Unavailable

_native: ModuleType | None
try:
    from sandbox.crypto._modexp import _native
except ImportError:  # not built: no compiler at installation
    _native = None

WINDOW: Final = 8  # bits
_LIMB: Final = 52  # bits
_BLOCK: Final = 10  # limbs


def runs() -> bool:
    """Tell whether the extension was built and this processor can run it."""
    return _native is not None and bool(_native.runs())


class Engine:
    """One modulus. Every method takes one slice and returns its elements one after another."""

    def __init__(self, n: int) -> None:
        """Prepare ``n``.

        Raises:
            Unavailable: the extension was not built.
        """
        if _native is None:
            raise Unavailable("the C extension for modular arithmetic was not built")
        self._native, self._n, self._size = _native, n, (n.bit_length() + 7) // 8
        # R = 2^(52 limbs), as backend.h has it.
        self._r = 1 << -(-(8 * self._size + 2) // (_LIMB * _BLOCK)) * _LIMB * _BLOCK
        self._modulus: Any = _native.modulus(*map(self._bytes, (n, self._r % n, self._r**2 % n)))

    def multiply(self, left: memoryview, right: memoryview) -> bytes:
        """Return the products, element by element."""
        return bytes(self._native.multiply(self._modulus, left, right))

    def chains(self, elements: memoryview, order: NDArray[np.int64], starts: NDArray[np.int64]) -> bytes:
        """Return the products of the elements ``order[starts[i]:starts[i + 1]]``, at most ``RUN`` for each i."""
        return bytes(self._native.chains(self._modulus, self._powers, elements, order.data, starts.data))

    def power(self, elements: memoryview, exponent: int) -> bytes:
        """Return every element to the power of ``exponent``."""
        # In whole 64-bit words: how many there are shows in the time.
        words = exponent.to_bytes(-(-exponent.bit_length() // 64) * 8, "big")
        return bytes(self._native.power(self._modulus, elements, words))

    def table(self, base: int, bits: int, window: int | None) -> Table:
        """Return the table for powers of ``base``."""
        chosen = WINDOW if window is None else window
        return Table(self._native, self._native.table(self._modulus, self._bytes(base), bits, chosen))

    @cached_property
    def _powers(self) -> bytes:
        return b"".join(self._bytes(pow(self._r, exponent, self._n)) for exponent in range(RUN + 1))

    def _bytes(self, number: int) -> bytes:
        return number.to_bytes(self._size, "big")


class Table:
    """A table in the extension's memory."""

    def __init__(self, native: ModuleType, table: Any) -> None:
        self._native, self._table = native, table

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(self._native.nbytes(self._table))

    def power(self, exponents: memoryview) -> bytes:
        """Return the base to the power of each exponent."""
        return bytes(self._native.look_up(self._table, exponents))
