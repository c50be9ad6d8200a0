"""Random powers of one base, and large numbers in rows of bytes: what ``paillier`` is made of.

Security: exponents come from the operating system, uniform between 1 and the bound, for each power anew. With a table
          which entries are read depends on the exponents where GMP does it, and not in the extension
          (``sandbox.crypto.modexp``); one by one, GMP's constant-time power is used. Exponents are Python
          bytes and are not wiped.
Shapes:   numbers are big-endian, all of one size, one after another.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

import gmpy2
import numpy as np
from gmpy2 import mpz

from sandbox.crypto.modexp import BACKEND, FixedBase, Modulus

OnSlice: TypeAlias = Callable[[int], None]

FEW: Final = 24 if BACKEND == "ifma" else 96  # powers that are not worth the time and memory of a table
TABLES: Final = 2  # public bases whose tables are kept, some 20 to 130 MiB each
CHUNK: Final = 4096  # numbers worked on at a time
_KEEPING: Final = threading.Lock()


class Powers:
    """Powers of ``base`` modulo ``n``: one by one at first, from a table as soon as enough were asked for."""

    def __init__(self, n: int, base: int, bound: int) -> None:
        self.modulus = Modulus(n)
        self._n, self._base, self._bound, self._size = n, base, bound, size_of(bound - 1)
        self._lock, self._asked = threading.Lock(), 0
        self._table: FixedBase | None = None

    def draw(self, count: int, threads: int = 1, on_slice: OnSlice | None = None) -> bytes:
        """Return ``count`` powers with fresh exponents."""
        exponents = uniform(count, self._bound)
        table = self._prepared(count)
        if table is not None:
            return table.power(exponents, threads=threads, on_slice=on_slice)
        powers = []
        for exponent in numbers(exponents, self._size):
            powers.append(gmpy2.powmod_sec(self._base, exponent, self._n).to_bytes(self.modulus.size, "big"))
            if on_slice is not None:
                on_slice(len(powers))
        return b"".join(powers)

    def _prepared(self, count: int) -> FixedBase | None:
        with self._lock:  # two threads must not both build a table
            self._asked += count
            if self._table is None and self._asked > FEW:
                self._table = FixedBase(self.modulus, self._base, 8 * self._size)
            return self._table


@functools.lru_cache(TABLES)
def _kept(n: int, base: int, bound: int) -> Powers:
    return Powers(n, base, bound)


def kept(n: int, base: int, bound: int) -> Powers:
    """Return the powers of a public base, the same object every time until others have displaced it."""
    with _KEEPING:  # or two threads would each make one, with a table each
        return _kept(n, base, bound)


def uniform(count: int, bound: int) -> bytes:
    """Return ``count`` numbers drawn uniformly from 1 to ``bound`` - 1."""
    size = size_of(bound - 1)
    kept: list[bytes] = []
    missing = count
    while missing:
        drawn = np.frombuffer(os.urandom(missing * size), f"S{size}")
        good = drawn[drawn != b""]
        if bound < 1 << (8 * size):
            good = good[good < bound.to_bytes(size, "big")]
        kept.append(good.tobytes())
        missing -= len(good)
    return b"".join(kept)


def at_least(data: bytes, bound: int, size: int) -> int:
    """Return how many numbers are not less than ``bound``, which has no more than ``size`` bytes."""
    # Byte strings of numpy compare like big-endian numbers: fixed length, zero bytes at the end are filling.
    return int(np.count_nonzero(np.frombuffer(data, f"S{size}") >= bound.to_bytes(size, "big")))


def numbers(data: bytes, size: int) -> list[mpz]:
    """Return the numbers."""
    return [mpz.from_bytes(data[place : place + size], "big") for place in range(0, len(data), size)]


def joined(values: list[mpz], size: int) -> bytes:
    """Return the numbers as bytes."""
    return b"".join([value.to_bytes(size, "big") for value in values])


def chunks(data: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    """Return pieces of at most ``CHUNK`` numbers, each with how many come before it."""
    for first in range(0, len(data) // size, CHUNK):
        yield first, data[first * size : (first + CHUNK) * size]


def after(first: int, on_slice: OnSlice | None) -> OnSlice | None:
    """Return what tells ``on_slice`` of the numbers done, ``first`` of which were done before."""
    if on_slice is None:
        return None
    tell = on_slice
    return lambda done: tell(first + done)


def size_of(number: int) -> int:
    """Return how many bytes a number takes."""
    return (number.bit_length() + 7) // 8
