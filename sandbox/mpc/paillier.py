"""Paillier encryption of numbers that can be added while encrypted, in batches.

    c = (1 + n m) h_s^r mod n^2          c1 c2 encrypts m1 + m2 mod n          r fresh, ``exponent_bits`` long

Source:   P. Paillier, EUROCRYPT 1999. Randomness as powers of one base: I. Damgard, M. Jurik, J. B. Nielsen, "A
          generalization of Paillier's public-key system with applications to electronic voting", Int. J. of Information
          Security 9 (2010), and Damgard and Jurik, ACISP 2003: p = q = 3 mod 4, gcd(p - 1, q - 1) = 2, h = -x^2 mod n
          for a random x, h_s = h^n mod n^2. Decryption modulo p^2 and q^2 by the Chinese remainder theorem.
Security: semi-honest parties; decisional composite residuosity, and for exponents of half the key's length (the
          default) what that paper assumes besides. Shorter ``exponent_bits`` are faster in proportion and assume
          moreover that powers with so short exponents look random; least are 224 bits (2048) and 256 (3072), against
          square-root attacks. The owner of the key encrypts with independent exponents of full length modulo p - 1 and
          q - 1.
          Anybody can change what a ciphertext says without being noticed: sign what travels. Never show others the
          decryption of what they chose, only agreed sums.
          What leaves a party is re-randomised: every operation does so unless told ``fresh=False``, which is for steps
          in between. Without it, whoever knows the inputs recognises which of them were added.
          Numbers are not handled in constant time, and Python integers cannot be wiped: ``close`` only lets go of
          them. Whoever can measure or read the process of a key's owner is not kept out here.
Reveals:  a ciphertext shows the key and its size; to the key's owner the plaintext, all of it. How many ciphertexts
          there are, and the groups in ``grouped_sums``, are not hidden.
Shapes:   plaintexts are ``key.size`` bytes (256 or 384) below n, ciphertexts twice as many, big-endian, one after
          another.
Units:    ``on_slice`` is told the number of elements done so far; what it raises ends the work.
Errors:   ``InvalidSpec`` for keys and plaintexts that are none, ``ProtocolFailed`` for ciphertexts that are none (the
          message says how many), ``WrongState`` for a private key after ``close``.
Not here: what plaintexts mean (``packing``), hiding one contribution from the key's owner (``masks``), the arithmetic
          and its back ends (``sandbox.crypto.modexp``).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Final, NoReturn

import gmpy2
import numpy as np
from gmpy2 import mpz
from numpy.typing import NDArray

from sandbox.crypto.sm3 import tagged
from sandbox.errors import InvalidSpec, ProtocolFailed, WrongState
from sandbox.mpc.factors import Factors, check_modulus, prime
from sandbox.mpc.powers import OnSlice, Powers, after, at_least, chunks, joined, kept, numbers

KEY_BITS: Final = (2048, 3072)
MAX_FACTOR: Final = (1 << 64) - 1
_SHORTEST: Final = {2048: 224, 3072: 256}  # bits of an exponent
_PUBLIC, _PRIVATE = b"PPK1", b"PSK1"
_HEAD: Final = 8  # bytes


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What encrypts and adds. Equal keys have equal bytes."""

    n: int = field(repr=False)
    h_s: int = field(repr=False)
    exponent_bits: int

    def __post_init__(self) -> None:
        bits = self.n.bit_length()
        if self.n < 0 or bits not in KEY_BITS:
            raise InvalidSpec("a Paillier key has 2048 or 3072 bits")
        check_modulus(self.n)
        if not _SHORTEST[bits] <= self.exponent_bits <= bits or self.exponent_bits % 8:
            raise InvalidSpec("the length of a Paillier key's exponents is out of range")
        # An n-th power of -x^2: a unit with Jacobi symbol 1, and not one that yields no randomness.
        if not 1 < self.h_s < self.n**2 or self.h_s % self.n in (1, self.n - 1) or gmpy2.jacobi(self.h_s, self.n) != 1:
            raise InvalidSpec("the base of a Paillier key's randomness is not one")

    @classmethod
    def from_modulus(cls, n: int, *, exponent_bits: int | None = None) -> PublicKey:
        """Return a key for anybody's ``n``, with a base of one's own; half the key's length as exponents if not given.

        Where n = 3 mod 4 (a key that was not made for this) the base is x^2: -x^2 would have Jacobi symbol -1.
        """
        if n <= 0 or n.bit_length() not in KEY_BITS:
            raise InvalidSpec("a Paillier key has 2048 or 3072 bits")
        square = secrets.randbelow(n - 2) ** 2 % n
        h = n - square if n % 4 == 1 else square
        return cls(n, int(gmpy2.powmod(h, n, n**2)), n.bit_length() // 2 if exponent_bits is None else exponent_bits)

    @classmethod
    def from_bytes(cls, data: bytes) -> PublicKey:
        """Return the key that ``to_bytes`` wrote, or raise ``InvalidSpec``."""
        exponent_bits, n, h_s = _parse(data, _PUBLIC)
        return cls(n, h_s, exponent_bits)

    def to_bytes(self) -> bytes:
        """Return the key: ``PPK1``, bits and exponents' bits (2 bytes each), n, h_s."""
        return _written(_PUBLIC, self, self.n)

    @property
    def key_id(self) -> bytes:
        """32 bytes that name the key."""
        return tagged("paillier-key", self.to_bytes())

    @property
    def bits(self) -> int:
        """2048 or 3072."""
        return self.n.bit_length()

    @property
    def size(self) -> int:
        """Bytes of a plaintext; a ciphertext has twice as many."""
        return self.bits // 8

    def encrypt(self, plaintexts: bytes, *, threads: int = 1, on_slice: OnSlice | None = None) -> bytes:
        """Return a ciphertext for each plaintext."""
        return self._blinded(self.bare(plaintexts), threads, on_slice)

    def rerandomise(self, ciphertexts: bytes, *, threads: int = 1, on_slice: OnSlice | None = None) -> bytes:
        """Return ciphertexts of the same plaintexts that nobody without the private key can tell from new ones."""
        self.check(ciphertexts)
        return self._blinded(ciphertexts, threads, on_slice)

    def add(self, left: bytes, right: bytes, *, threads: int = 1, fresh: bool = True) -> bytes:
        """Return ciphertexts of the sums, element by element."""
        self._check_range(left + right)
        sums = self.times(left, right, threads)
        self._check_units(sums, left + right)
        return self._blinded(sums, threads) if fresh else sums

    def add_plain(self, ciphertexts: bytes, plaintexts: bytes, *, threads: int = 1, fresh: bool = True) -> bytes:
        """Return ciphertexts of the sums with plaintexts, element by element."""
        return self.add(ciphertexts, self.bare(plaintexts), threads=threads, fresh=fresh)

    def sum(
        self, ciphertexts: bytes, *, threads: int = 1, fresh: bool = True, on_slice: OnSlice | None = None
    ) -> bytes:
        """Return one ciphertext of the sum of all; of 0 if there are none."""
        groups = np.zeros(len(ciphertexts) // (2 * self.size), np.int32)
        return self.grouped_sums(ciphertexts, groups, 1, threads=threads, fresh=fresh, on_slice=on_slice)

    def grouped_sums(
        self,
        ciphertexts: bytes,
        groups: NDArray[np.int32],
        count: int,
        *,
        threads: int = 1,
        fresh: bool = True,
        on_slice: OnSlice | None = None,
    ) -> bytes:
        """Return one ciphertext a group 0 .. ``count`` - 1 of the sum of those whose place in ``groups`` names it."""
        self._check_range(ciphertexts)
        modulus = _powers(self).modulus
        sums = modulus.grouped_products(ciphertexts, groups, count, threads=threads, on_slice=on_slice)
        self._check_units(sums, ciphertexts)
        return self._blinded(sums, threads) if fresh else sums

    def scale(self, ciphertexts: bytes, factor: int, *, threads: int = 1, fresh: bool = True) -> bytes:
        """Return ciphertexts of ``factor`` (0 to 2^64 - 1) times each plaintext, all slots of it alike."""
        if not 0 <= factor <= MAX_FACTOR:
            raise InvalidSpec("a factor is not negative and has at most 64 bits")
        self.check(ciphertexts)
        scaled = _powers(self).modulus.power(ciphertexts, factor, threads=threads)
        return self._blinded(scaled, threads) if fresh else scaled

    def check(self, ciphertexts: bytes) -> None:
        """Check that all are units modulo n^2, or raise ``ProtocolFailed``; the operations do so themselves."""
        self._check_range(ciphertexts)
        self._check_units(ciphertexts, ciphertexts)

    def _check_range(self, ciphertexts: bytes) -> None:
        if len(ciphertexts) % (2 * self.size):
            raise ProtocolFailed("the length of ciphertexts does not fit the key")
        bad = at_least(ciphertexts, self.n**2, 2 * self.size)
        if bad:
            raise ProtocolFailed(f"{bad} ciphertexts are out of range")

    def _check_units(self, products: bytes, ciphertexts: bytes) -> None:
        """Check all ``ciphertexts`` by the product of ``products``, in which every one of them is a factor."""
        product = int.from_bytes(_powers(self).modulus.product(products), "big")
        if gmpy2.gcd(product, self.n) != 1:
            bad = sum(gmpy2.gcd(one, self.n) != 1 for one in numbers(ciphertexts, 2 * self.size))
            raise ProtocolFailed(f"{bad} ciphertexts are no units")

    def bare(self, plaintexts: bytes) -> bytes:
        """Return ``1 + n m``: a ciphertext without randomness."""
        if len(plaintexts) % self.size or at_least(plaintexts, self.n, self.size):
            raise InvalidSpec("a plaintext is not less than the modulus, or the length of plaintexts does not fit")
        n, size = mpz(self.n), 2 * self.size
        return joined([n * m + 1 for m in numbers(plaintexts, self.size)], size)

    def times(self, left: bytes, right: bytes, threads: int) -> bytes:
        """Return products modulo n^2 of what has been checked, element by element."""
        return _powers(self).modulus.multiply(left, right, threads=threads)

    def _blinded(self, elements: bytes, threads: int, on_slice: OnSlice | None = None) -> bytes:
        size, done = 2 * self.size, []
        for first, part in chunks(elements, size):
            drawn = _powers(self).draw(len(part) // size, threads, after(first, on_slice))
            done.append(self.times(part, drawn, threads))
        return b"".join(done)


class PrivateKey:
    """What decrypts. Used as a context manager, it is closed at the end; it does not print or pickle."""

    __slots__ = ("_factors", "public")

    def __init__(self, p: int, q: int, public: PublicKey | None = None) -> None:
        """Take the factors of n, and the public key if there is one already.

        Raises:
            InvalidSpec: these are not two primes of half a key's length that are not close, or not those of ``public``.
        """
        self.public = PublicKey.from_modulus(p * q) if public is None else public
        if self.public.n != p * q:
            raise InvalidSpec("the factors are those of another Paillier key")
        self._factors: Factors | None = Factors(p, q, self.public.h_s)

    @classmethod
    def from_bytes(cls, data: bytes) -> PrivateKey:
        """Return the key that ``to_bytes`` wrote, or raise ``InvalidSpec``."""
        exponent_bits, both, h_s = _parse(data, _PRIVATE)
        p, q = divmod(both, 1 << (len(data) - _HEAD) * 8 // 6)
        return cls(p, q, PublicKey(p * q, h_s, exponent_bits))

    def to_bytes(self) -> bytes:
        """Return the key in the clear, to be sealed at once: ``PSK1``, bits and exponents' bits, p, q, h_s."""
        p, q = self.factors()
        return _written(_PRIVATE, self.public, p << self.public.bits // 2 | q)

    def factors(self) -> tuple[int, int]:
        """Return p and q: the secret itself."""
        factors = self._open()
        return factors.p, factors.q

    def encrypt(self, plaintexts: bytes, *, threads: int = 1, on_slice: OnSlice | None = None) -> bytes:
        """Return a ciphertext for each plaintext, with randomness of full length."""
        factors, size, done = self._open(), 2 * self.public.size, []
        for first, part in chunks(self.public.bare(plaintexts), size):
            powers = factors.powers(len(part) // size, threads, after(first, on_slice))
            done.append(self.public.times(part, joined(powers, size), threads))
        return b"".join(done)

    def decrypt(self, ciphertexts: bytes, *, threads: int = 1, on_slice: OnSlice | None = None) -> bytes:
        """Return the plaintexts."""
        factors, size, done = self._open(), self.public.size, []
        self.public.check(ciphertexts)
        for first, part in chunks(ciphertexts, 2 * size):
            plain = factors.decrypt(numbers(part, 2 * size), threads, after(first, on_slice))
            done.append(joined(plain, size))
        return b"".join(done)

    def close(self) -> None:
        """Let go of the numbers; harmless when done twice."""
        self._factors = None

    def _open(self) -> Factors:
        if self._factors is None:
            raise WrongState("this private key has been closed")
        return self._factors

    def __enter__(self) -> PrivateKey:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return "PrivateKey(secret)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key cannot be copied or pickled; use to_bytes, and seal them")


def generate(bits: int = KEY_BITS[0], *, exponent_bits: int | None = None) -> PrivateKey:
    """Return a new key of 2048 or 3072 bits, with exponents of half its length if not given."""
    if bits not in KEY_BITS:
        raise InvalidSpec("a Paillier key has 2048 or 3072 bits")
    while True:  # one pair in three shares an odd factor in p - 1 and q - 1
        p, q = prime(bits // 2), prime(bits // 2)
        if gmpy2.gcd(p - 1, q - 1) == 2 and abs(p - q) >> (bits // 2 - 100):
            return PrivateKey(p, q, PublicKey.from_modulus(p * q, exponent_bits=exponent_bits))


def _powers(key: PublicKey) -> Powers:
    return kept(key.n**2, key.h_s, 1 << key.exponent_bits)


def _written(magic: bytes, key: PublicKey, first: int) -> bytes:
    head = magic + key.bits.to_bytes(2, "big") + key.exponent_bits.to_bytes(2, "big")
    return head + first.to_bytes(key.size, "big") + key.h_s.to_bytes(2 * key.size, "big")


def _parse(data: bytes, magic: bytes) -> tuple[int, int, int]:
    """Return the exponents' bits and the two numbers after them."""
    bits, size = int.from_bytes(data[4:6], "big"), (len(data) - _HEAD) // 3
    if data[:4] != magic or bits not in KEY_BITS or len(data) != _HEAD + 3 * bits // 8:
        raise InvalidSpec("these are not the bytes of a Paillier key")
    first, h_s = data[_HEAD : _HEAD + size], data[_HEAD + size :]
    return int.from_bytes(data[6:8], "big"), int.from_bytes(first, "big"), int.from_bytes(h_s, "big")
