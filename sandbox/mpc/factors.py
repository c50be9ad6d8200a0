"""What the owner of a Paillier key can do with p and q: decrypt, and draw n-th residues, modulo p^2 and q^2.

Security: powers of a ciphertext have the secret exponents p - 1 and q - 1; the rest is GMP's arithmetic, whose time
          depends on the numbers. Nothing here is wiped.
Shapes:   numbers are GMP integers; ciphertexts have been checked.
Not here: keys and their bytes (``paillier``).
"""

from __future__ import annotations

import functools
import secrets
from typing import Final

import gmpy2
from gmpy2 import mpz

from sandbox.errors import InvalidSpec
from sandbox.mpc.powers import OnSlice, Powers, joined, numbers

_ROUNDS: Final = 40  # of the primality test
_SMALL: Final = 1 << 16  # factors up to here are looked for


class Factors:
    """Both prime factors of n."""

    def __init__(self, p: int, q: int, h_s: int) -> None:
        """Check and prepare them.

        Raises:
            InvalidSpec: they are no primes of equal length, or close, or ``h_s`` is no n-th residue.
        """
        half = p.bit_length()
        if q.bit_length() != half or abs(p - q) < 1 << (half - 100):
            raise InvalidSpec("the factors of a Paillier key are of one length and not close")
        if not (gmpy2.is_prime(p, _ROUNDS) and gmpy2.is_prime(q, _ROUNDS)):
            raise InvalidSpec("the factors of a Paillier key are primes")
        self.p, self.q = p, q
        self._left, self._right = _Half(p, q, h_s), _Half(q, p, h_s)

    def decrypt(self, ciphertexts: list[mpz], threads: int, on_slice: OnSlice | None) -> list[mpz]:
        """Return the plaintexts."""
        done, total = 0, len(ciphertexts)

        def halfway(count: int) -> None:
            if on_slice is not None:
                on_slice((done + count) // 2)

        m_p = self._left.decrypt(ciphertexts, threads, halfway)
        done = total
        m_q = self._right.decrypt(ciphertexts, threads, halfway)
        p, q, inverse = mpz(self.p), mpz(self.q), self._left.inverse
        return [b + (a - b) * inverse % p * q for a, b in zip(m_p, m_q, strict=True)]

    def powers(self, count: int, threads: int, on_slice: OnSlice | None) -> list[mpz]:
        """Return n-th residues modulo n^2: powers of h_s with exponents uniform modulo p - 1, and modulo q - 1."""
        done = 0

        def halfway(drawn: int) -> None:
            if on_slice is not None:
                on_slice((done + drawn) // 2)

        left, right = self._left, self._right
        a = numbers(left.powers.draw(count, threads, halfway), left.size)
        done = count
        b = numbers(right.powers.draw(count, threads, halfway), right.size)
        p2, q2, inverse = left.square, right.square, left.inverse_square
        return [y + (x - y) * inverse % p2 * q2 for x, y in zip(a, b, strict=True)]


class _Half:
    """One factor, and what is computed modulo its square."""

    def __init__(self, prime: int, other: int, h_s: int) -> None:
        self.prime, self.square = mpz(prime), mpz(prime) ** 2
        if gmpy2.powmod(h_s, prime - 1, self.square) != 1:
            raise InvalidSpec("the base of a Paillier key's randomness is not one")
        self.inverse = gmpy2.invert(other, self.prime)
        self.inverse_square = gmpy2.invert(mpz(other) ** 2, self.square)
        self.powers = Powers(int(self.square), int(h_s % self.square), prime)
        self.size = self.powers.modulus.size

    def decrypt(self, ciphertexts: list[mpz], threads: int, on_slice: OnSlice) -> list[mpz]:
        """Return the plaintexts modulo the factor."""
        p, square = self.prime, self.square
        residues = joined([c % square for c in ciphertexts], self.size)
        raised = self.powers.modulus.power(residues, int(p) - 1, threads=threads, on_slice=on_slice)
        # (1 + n)^(p - 1) = 1 - n modulo p^2: times the inverse of -q it is the plaintext that remains.
        factor = p - self.inverse
        return [(x - 1) // p * factor % p for x in numbers(raised, self.size)]


def prime(bits: int) -> int:
    """Return a random prime, 3 modulo 4, with its two highest bits set: two of them multiply to full length."""
    while True:
        drawn = secrets.randbits(bits) | 3 << (bits - 2) | 3
        if gmpy2.is_prime(drawn, _ROUNDS):
            return drawn


def check_modulus(n: int) -> None:
    """Check, as far as can be without the factors, that ``n`` is the product of two large primes.

    Raises:
        InvalidSpec: it is not.
    """
    if n < 1 or gmpy2.gcd(n, _small_primes()) != 1 or gmpy2.is_prime(n, _ROUNDS) or gmpy2.is_power(n):
        raise InvalidSpec("the modulus of a Paillier key is not the product of two large primes")


@functools.cache
def _small_primes() -> mpz:
    return gmpy2.primorial(_SMALL)
