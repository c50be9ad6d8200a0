"""Modular arithmetic on slices through GMP: the way without the extension, or without AVX512-IFMA.

Security:  nothing here runs in constant time, not even ``power``: how long it takes depends on the exponent.
Shapes:    as in ``sandbox.crypto.modexp``, which has checked everything that comes in.
"""

from __future__ import annotations

import functools
from typing import Final

import gmpy2
import numpy as np
from gmpy2 import mpz
from numpy.typing import NDArray

WINDOW: Final = 10  # bits; for exponents of 1024 bits a table of 51 MiB under a modulus of 4096


class Engine:
    """One modulus. Every method takes one slice and returns its elements one after another."""

    def __init__(self, n: int) -> None:
        self._n, self.size = mpz(n), (n.bit_length() + 7) // 8

    def multiply(self, left: memoryview, right: memoryview) -> bytes:
        """Return the products, element by element."""
        n = self._n
        with _released():
            return self._joined([a * b % n for a, b in zip(self._numbers(left), self._numbers(right), strict=True)])

    def chains(self, elements: memoryview, order: NDArray[np.int64], starts: NDArray[np.int64]) -> bytes:
        """Return the products of the elements ``order[starts[i]:starts[i + 1]]``, at least one for each i."""
        n, size = self._n, self.size
        products = []
        with _released():
            for first, last in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
                chain = (
                    mpz.from_bytes(elements[size * at : size * (at + 1)], "big") for at in order[first:last].tolist()
                )
                products.append(functools.reduce(lambda left, right: left * right % n, chain))
        return self._joined(products)

    def power(self, elements: memoryview, exponent: int) -> bytes:
        """Return every element to the power of ``exponent``; this call of gmpy2 releases the lock by itself."""
        return self._joined(gmpy2.powmod_base_list(self._numbers(elements), exponent, self._n))

    def table(self, base: int, bits: int, window: int | None) -> Table:
        """Return the table for powers of ``base``."""
        return Table(self, self._n, base, bits, WINDOW if window is None else window)

    def _numbers(self, elements: memoryview) -> list[mpz]:
        size = self.size
        return [mpz.from_bytes(elements[place : place + size], "big") for place in range(0, len(elements), size)]

    def _joined(self, numbers: list[mpz]) -> bytes:
        size = self.size
        return b"".join([number.to_bytes(size, "big") for number in numbers])


class Table:
    """All powers of a base that a window of an exponent can ask for: ``rows[i][digit] = base^(digit 2^(i window))``."""

    def __init__(self, engine: Engine, n: mpz, base: int, bits: int, window: int) -> None:
        self._engine, self._n, self._bits, self._window = engine, n, bits, window
        self._rows: list[list[mpz]] = []
        step = mpz(base)
        for _ in range(-(-bits // window)):
            row = [mpz(1)]
            while len(row) < 1 << window:
                row.append(row[-1] * step % n)
            step = row[-1] * step % n
            self._rows.append(row)

    @property
    def nbytes(self) -> int:
        """Size of the numbers in bytes, without what the interpreter adds to each."""
        return len(self._rows) * len(self._rows[0]) * self._engine.size

    def power(self, exponents: memoryview) -> bytes:
        """Return the base to the power of each exponent."""
        n, window, mask, size = self._n, self._window, (1 << self._window) - 1, (self._bits + 7) // 8
        powers = []
        with _released():
            for place in range(0, len(exponents), size):
                exponent, power = int.from_bytes(exponents[place : place + size], "big"), mpz(1)
                for row in self._rows:
                    digit = exponent & mask
                    exponent >>= window
                    if digit:
                        power = power * row[digit] % n
                powers.append(power)
        return self._engine._joined(powers)


def _released() -> gmpy2.context:
    # The context is the thread's own, so this reaches nobody else; without it one multiplication holds up all threads.
    return gmpy2.context(gmpy2.get_context(), allow_release_gil=True)
