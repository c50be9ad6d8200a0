"""Keys and encrypted numbers of the library ``phe``, taken in and given back, for those who have code or data in it.

Source:   ``phe`` encrypts with g = n + 1, as we do: under one n, each other's ciphertexts are valid.
Security: ``phe`` publishes an exponent with every number, and chosen by value it tells the magnitude. Here one exponent
          is fixed for all, and numbers with another are refused: encode with one ``precision`` at the source.
          Its keys need not have p = q = 3 mod 4. Ours have a base for randomness added, x^2 or -x^2, and where p and q
          are of another form the assumption of ``paillier`` is made for the squares modulo n^2 that x^2 spans.
          What is taken in or given back is re-randomised, so that sums that ``phe`` left bare do not travel.
Units:    a number with exponent e stands for its integer times 16^e; integers have exponent 0. Negative ones are n - m.
Errors:   ``Unavailable`` without ``phe``, which is GPL-3.0 and installed with the extra ``phe`` only; ``InvalidSpec``
          for what is not of the kind, key or exponent asked for; ``ProtocolFailed`` for ciphertexts that are none.
Not here: floats; packed slots, which fill more of a plaintext than ``phe`` decodes (its ``raw_decrypt`` gives them).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

from sandbox.errors import InvalidSpec, ProtocolFailed, Unavailable
from sandbox.mpc.paillier import PrivateKey, PublicKey


def public_from_phe(theirs: Any, *, exponent_bits: int | None = None) -> PublicKey:
    """Return our form of a ``PaillierPublicKey``, with a base for randomness drawn here: each call gives another."""
    _expect(theirs, "PaillierPublicKey")
    return PublicKey.from_modulus(int(theirs.n), exponent_bits=exponent_bits)


def public_to_phe(key: PublicKey) -> Any:
    """Return a ``PaillierPublicKey``."""
    return _phe().PaillierPublicKey(key.n)


def private_from_phe(theirs: Any, public: PublicKey | None = None) -> PrivateKey:
    """Return our form of a ``PaillierPrivateKey``, with the public key that others use already, if there is one."""
    _expect(theirs, "PaillierPrivateKey")
    return PrivateKey(int(theirs.p), int(theirs.q), public)


def private_to_phe(key: PrivateKey) -> Any:
    """Return a ``PaillierPrivateKey``: the secret itself, in an object that prints nothing but can be pickled."""
    return _phe().PaillierPrivateKey(public_to_phe(key.public), *key.factors())


def numbers_from_phe(
    key: PublicKey, numbers: Iterable[Any], *, exponent: int = 0, threads: int = 1, fresh: bool = True
) -> bytes:
    """Return the ciphertexts of ``EncryptedNumber`` objects that all have this exponent.

    Raises:
        InvalidSpec: one is something else, under another key, or has another exponent.
    """
    taken = []
    for number in numbers:
        _expect(number, "EncryptedNumber")
        if number.public_key.n != key.n:
            raise InvalidSpec("an encrypted number is under another key")
        if number.exponent != exponent:
            raise InvalidSpec("the encrypted numbers do not all have the exponent asked for")
        ciphertext = int(number.ciphertext(be_secure=False))  # made secure below, and 20 times faster
        if not 0 <= ciphertext < key.n**2:
            raise ProtocolFailed("an encrypted number is out of range")
        taken.append(ciphertext.to_bytes(2 * key.size, "big"))
    ciphertexts = b"".join(taken)
    if fresh:
        return key.rerandomise(ciphertexts, threads=threads)
    key.check(ciphertexts)
    return ciphertexts


def numbers_to_phe(
    key: PublicKey, ciphertexts: bytes, *, exponent: int = 0, threads: int = 1, fresh: bool = True
) -> list[Any]:
    """Return ciphertexts as ``EncryptedNumber`` objects with this exponent.

    ``phe`` cannot be told that they are fresh, and obfuscates once more when asked for ``ciphertext()``.
    """
    library, theirs, size = _phe(), public_to_phe(key), 2 * key.size
    if fresh:
        ciphertexts = key.rerandomise(ciphertexts, threads=threads)
    else:
        key.check(ciphertexts)
    places = range(0, len(ciphertexts), size)
    return [
        library.EncryptedNumber(theirs, int.from_bytes(ciphertexts[place : place + size], "big"), exponent)
        for place in places
    ]


def plaintexts_from_ints(key: PublicKey, values: Sequence[int]) -> bytes:
    """Return plaintexts of integers of either sign, as ``phe`` encodes them.

    Raises:
        InvalidSpec: some are not less than about n / 3; says how many.
    """
    bad = sum(abs(value) > _largest(key) for value in values)
    if bad:
        raise InvalidSpec(f"{bad} integers are too large for the key")
    return b"".join((value % key.n).to_bytes(key.size, "big") for value in values)


def ints_from_plaintexts(key: PublicKey, plaintexts: bytes) -> list[int]:
    """Return the integers, negative ones too.

    Raises:
        InvalidSpec: the length does not fit the key.
        ProtocolFailed: some lie between the largest and the smallest integer, so a sum has overflowed.
    """
    if len(plaintexts) % key.size:
        raise InvalidSpec("the length of plaintexts does not fit the key")
    places = range(0, len(plaintexts), key.size)
    values = [int.from_bytes(plaintexts[place : place + key.size], "big") for place in places]
    signed = [value if value <= _largest(key) else value - key.n for value in values]
    bad = sum(abs(value) > _largest(key) for value in signed)
    if bad:
        raise ProtocolFailed(f"{bad} integers have overflowed")
    return signed


def _largest(key: PublicKey) -> int:
    return key.n // 3 - 1


def _expect(thing: Any, kind: str) -> None:
    if not isinstance(thing, getattr(_phe(), kind)):
        raise InvalidSpec(f"this is not a {kind} of phe")


def _phe() -> ModuleType:
    try:
        import phe
    except ImportError:
        hint = "install the extra: pip install 'data-sandbox[phe]' (phe is under GPL-3.0)"
        raise Unavailable("the library phe is not installed", hint=hint) from None
    library: ModuleType = phe
    return library
