"""Numbers of up to 128 bits as pairs of 64-bit words, and the slots of a plaintext made of them, many at a time.

Shapes:   the last axis holds the low word, then the high word. Slot 0 is the lowest bits of a plaintext; plaintexts are
          big-endian, a multiple of 8 bytes.
Errors:   ``ProtocolFailed`` for a plaintext with anything beyond its slots.
Not here: what slots mean (``packing``).
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sandbox.errors import ProtocolFailed

Words: TypeAlias = NDArray[np.uint64]

MAX_WIDTH: Final = 128  # bits
_ALL: Final = (1 << 64) - 1


def add(left: Words, right: Words, bits: int) -> Words:
    """Return sums modulo 2^bits of numbers of two words each (the last axis)."""
    total = left + right
    total[..., 1] += total[..., 0] < left[..., 0]
    return reduced(total, bits)


def negated(words: Words, bits: int) -> Words:
    """Return the numbers that add to 0 modulo 2^bits."""
    one = np.zeros_like(words)
    one[..., 0] = 1
    return add(~words, one, bits)


def reduced(words: Words, bits: int) -> Words:
    """Return numbers of two words each modulo 2^bits."""
    limit = (1 << bits) - 1
    return words & np.array([limit & _ALL, limit >> 64], np.uint64)


def join(slots: Words, width: int, key_bits: int) -> bytes:
    """Return plaintexts, big-endian, from ``(plaintexts, slots, 2)`` words below 2^width."""
    limbs = np.zeros((key_bits // 64, len(slots)), np.uint64)
    for slot, (low, high) in enumerate(np.ascontiguousarray(slots.transpose(1, 2, 0))):
        limb, shift = divmod(slot * width, 64)
        limbs[limb] |= low << shift
        if shift + width > 64:
            limbs[limb + 1] |= high << shift
            if shift:
                limbs[limb + 1] |= low >> (64 - shift)
        if shift + width > 128:
            limbs[limb + 2] |= high >> (64 - shift)
    return limbs[::-1].T.astype(">u8").tobytes()


def split(plaintexts: bytes, slots: int, width: int, size: int) -> Words:
    """Return ``(plaintexts, slots, 2)`` words; beyond the slots there must be nothing."""
    limbs = np.frombuffer(plaintexts, ">u8").reshape(-1, size // 8)[:, ::-1].T.astype(np.uint64)
    found = np.zeros((limbs.shape[1], slots, 2), np.uint64)
    ahead = np.concatenate([limbs, np.zeros((2, limbs.shape[1]), np.uint64)])
    for slot in range(slots):
        limb, shift = divmod(slot * width, 64)
        for word in range(2 if width > 64 else 1):
            found[:, slot, word] = ahead[limb + word] >> shift
            if shift:
                found[:, slot, word] |= ahead[limb + word + 1] << (64 - shift)
    limb, shift = divmod(slots * width, 64)
    if (ahead[limb] >> shift).any() or ahead[limb + 1 :].any():
        raise ProtocolFailed("a plaintext holds more than the slots of its layout")
    return reduced(found, width)


def integers(words: Words) -> NDArray[Any]:
    """Return Python integers from numbers of two words each."""
    whole: NDArray[Any] = words[..., 0].astype(object) + (words[..., 1].astype(object) << 64)
    return whole
