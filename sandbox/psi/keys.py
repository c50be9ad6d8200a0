"""Keys as fixed-size digests: checked, hashed and ordered in C, or without a loop over rows in numpy (``native``).

    h_0 .. h_3  = (a_0 + sum a_i w_i  mod 2^64) >> 32, four times    w = 32-bit words of the key, then its length
    digest(key) = (h_0 h_1 xor s(h_2 h_3),  h_2 h_3)                 s = the last steps of SplitMix64

Source:   multilinear hashing, Carter and Wegman 1979; Lemire and Kaser, "Strongly universal string hashing is
          fast", The Computer Journal 57(11), 2014. The a_i come from HMAC-SM3 under the salt.
          s: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
Security: for keys fixed before the salt is drawn, two different keys collide with probability 2^-128; for two sets
          of 10^7 keys the chance of any collision is below 2^-79. It is *not* a cryptographic hash: who knows the
          salt and may choose keys afterwards can build collisions, and a digest does not hide a guessable key.
          It stands for the key inside engines that hide it.
          The sums alone are linear in the key: consecutive numbers would fall into buckets of visibly uneven size
          under about one salt in a hundred. The second line, which can be undone and so changes no collision,
          breaks that up.
Shapes:   ``(n, 2)`` unsigned 64-bit, ordered by the first number and then the second. Keys are UTF-8, at most
          ``MAX_KEY`` bytes, compared byte for byte.
Errors:   ``InvalidSpec`` on nulls, duplicates, other types, and keys that are too long.
Not here: normalisation of identifiers (the catalogue's), buckets.
"""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sandbox.crypto.sm3 import hmac_sm3
from sandbox.errors import InvalidSpec
from sandbox.psi import native

MAX_KEY = 1024  # bytes
_BLOCK = 1 << 15  # rows at a time: what is being added up stays in the cache
_LANES = 4

Digests = NDArray[np.uint64]
Positions = NDArray[np.int64]


def digest(keys: pa.Array, salt: bytes) -> Digests:
    """Return the digests of ``keys`` under ``salt``.

    Raises:
        InvalidSpec: a key is null, not a string, or too long.
    """
    offsets, data = _buffers(keys)
    lengths = np.diff(offsets)
    out = np.empty((len(lengths), 2), np.uint64)
    if not len(lengths):
        return out
    longest = int(lengths.max())
    if longest > MAX_KEY:
        raise InvalidSpec("a key is longer than an engine takes")
    factors = _factors(salt, (longest + 3) // 4)
    if native.ROWS is not None:
        native.ROWS.digest(offsets, data, factors, out)
        return out
    present = np.unique(lengths)
    for length in present.tolist():
        rows = None if len(present) == 1 else np.flatnonzero(lengths == length)
        starts = offsets[:-1] if rows is None else offsets[:-1][rows]
        for first in range(0, len(starts), _BLOCK):
            block = starts[first : first + _BLOCK]
            where = slice(first, first + len(block)) if rows is None else rows[first : first + len(block)]
            if rows is None:  # one after the other
                text = data[block[0] : block[0] + length * len(block)].reshape(len(block), length)
            else:
                text = data[block[:, None] + np.arange(length)]
            out[where] = _mix(_words(text), length, factors)
    return out


def order(digests: Digests) -> Positions:
    """Return the positions that sort ``digests``; the same for equal sets on both sides."""
    if native.ROWS is not None:
        out = np.empty(len(digests), np.int64)
        native.ROWS.order(np.ascontiguousarray(digests), out)
        return out
    first = np.argsort(digests[:, 0])
    leading = digests[first, 0]
    if len(leading) > 1 and bool((leading[1:] == leading[:-1]).any()):
        first = np.lexsort((digests[:, 1], digests[:, 0]))
    return first.astype(np.int64, copy=False)


def check_unique(digests: Digests) -> None:
    """Check that no key occurs twice; engines return wrong answers otherwise.

    Raises:
        InvalidSpec: one does.
    """
    if _has_twice(digests):
        raise InvalidSpec("a key occurs twice in the input of an intersection")


def shuffled(count: int) -> Positions:
    """Return the numbers below ``count`` in an order that nobody can guess."""
    random = np.frombuffer(os.urandom(8 * count), np.uint64)
    if native.ROWS is None:
        return np.argsort(random).astype(np.int64, copy=False)
    out = np.empty(count, np.int64)
    native.ROWS.shuffle(random, out)
    return out


def _has_twice(digests: Digests) -> bool:
    if native.ROWS is not None:
        return bool(native.ROWS.order(np.ascontiguousarray(digests), np.empty(len(digests), np.int64)))
    leading = np.sort(digests[:, 0])
    if not bool((leading[1:] == leading[:-1]).any()):
        return False
    ordered = digests[order(digests)]
    return bool((ordered[1:] == ordered[:-1]).all(axis=1).any())


def _buffers(keys: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return where each key starts (with the end of the last), and all the bytes."""
    if isinstance(keys, pa.ChunkedArray):
        keys = keys.combine_chunks()
    if not isinstance(keys, pa.Array) or not (pa.types.is_string(keys.type) or pa.types.is_large_string(keys.type)):
        raise InvalidSpec("the keys of an intersection are not an array of strings")
    if keys.null_count:
        raise InvalidSpec("a key of an intersection is null")
    width = np.int64 if pa.types.is_large_string(keys.type) else np.int32
    _, places, content = keys.buffers()
    if places is None or not len(keys):
        return np.zeros(len(keys) + 1, np.int64), np.zeros(0, np.uint8)
    offsets = np.frombuffer(places, width)[keys.offset : keys.offset + len(keys) + 1].astype(np.int64)
    data = np.frombuffer(content, np.uint8) if content is not None else np.zeros(0, np.uint8)
    return offsets, data


def _factors(salt: bytes, words: int) -> NDArray[np.uint64]:
    """Return the random multipliers: one addend, one for the length and one a word, for each lane."""
    count = _LANES * (words + 2)
    stream = b"".join(hmac_sm3(salt, b"sandbox/v1/psi-keys\0" + i.to_bytes(4, "big")) for i in range((count + 3) // 4))
    # Lane after lane inside each word, so that the multiplier of a word does not depend on the longest key.
    return np.frombuffer(stream, "<u8")[:count].reshape(words + 2, _LANES)


def _words(text: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return keys of one length as rows of 32-bit words, zeros at the end."""
    rows, length = text.shape
    padded = np.zeros((rows, (length + 3) // 4 * 4), np.uint8)
    padded[:, :length] = text
    return padded.view("<u4")


def _mix(words: NDArray[np.uint32], length: int, factors: NDArray[np.uint64]) -> Digests:
    sums = np.empty((_LANES, len(words)), np.uint64)
    sums[:] = (factors[0] + factors[1] * np.uint64(length))[:, None]
    for place in range(words.shape[1]):
        column = words[:, place].astype(np.uint64)
        for lane in range(_LANES):
            sums[lane] += column * factors[place + 2, lane]
    sums >>= np.uint64(32)
    first, second = sums[0] << np.uint64(32) | sums[1], sums[2] << np.uint64(32) | sums[3]
    return np.stack([first ^ _scatter(second), second], axis=1)


def _scatter(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a fixed non-linear permutation of 64-bit numbers."""
    out = numbers ^ numbers >> np.uint64(30)
    out *= np.uint64(0xBF58476D1CE4E5B9)
    out ^= out >> np.uint64(27)
    out *= np.uint64(0x94D049BB133111EB)
    out ^= out >> np.uint64(31)
    return out
