"""Masks that cancel in pairs: everybody adds theirs to what they contribute, and only the sum over all is readable.

    mask of party i, slot s  =  sum over j > i of PRF(k_ij, s)  -  sum over j < i of PRF(k_ij, s)      modulo 2^bits

Source:   pairwise masks as in Bonawitz et al., "Practical secure aggregation", CCS 2017, without its recovery of
          drop-outs: if one party's contribution is missing, the sum is noise and the job ends. PRF: HMAC-SM3 (RFC 2104,
          GB/T 32905-2016) in counter mode, ``k_ij`` derived from the pair's seed, names, the context and ``bits``.
Security: semi-honest parties, HMAC-SM3 a pseudo-random function. A masked slot is uniform for everybody who lacks one
          of its pair keys: what the parties that do not collude contribute stays hidden but for its sum, even from the
          holder of the decryption key. Where all but one collude, that sum *is* the one's contribution: two parties
          hide nothing from each other.
          ``context`` must never come twice with the same seed: use the job's id and the round. Under a repeated one the
          difference of two masked slots is the difference of the values.
Shapes:   ``(slots, 2)`` 64-bit words, low word first; below 2^bits, bits from 1 to 128. Names are compared as UTF-8
          bytes; all parties must use the same names.
Errors:   ``InvalidSpec`` for seeds, names or sizes that cannot be.
Not here: agreeing on seeds (fresh ones a job, from the channel between the two), adding masks to values (``packing``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from sandbox.crypto.sm3 import DIGEST_SIZE, domain, hmac_sm3
from sandbox.errors import InvalidSpec
from sandbox.mpc.slots import MAX_WIDTH, Words, add, negated, reduced

SEED_SIZE: Final = 32  # bytes
_MAX_SLOTS: Final = 1 << 26


def masks(me: str, seeds: Mapping[str, bytes], context: bytes, slots: int, modulus_bits: int) -> Words:
    """Return this party's masks for one round.

    Args:
        seeds: for every other party the secret shared with it, and with nobody else.
        context: what no other use of these seeds has: job id and round.

    Raises:
        InvalidSpec: no other party, a seed that is not 32 bytes or comes twice, or sizes out of range.
    """
    if not (1 <= modulus_bits <= MAX_WIDTH and 0 <= slots <= _MAX_SLOTS and context):
        raise InvalidSpec("masks need a context, 1 to 128 bits and a possible number of slots")
    if not seeds or me in seeds or len(set(seeds.values())) != len(seeds):
        raise InvalidSpec("masks need at least one other party, and a seed of its own for each")
    if any(len(seed) != SEED_SIZE for seed in seeds.values()):
        raise InvalidSpec(f"a seed is {SEED_SIZE} bytes")
    mine = _encoded(me)
    total = np.zeros((slots, 2), np.uint64)
    for name, seed in seeds.items():
        other = _encoded(name)
        key = _pair_key(seed, min(mine, other), max(mine, other), context, modulus_bits)
        stream = _stream(key, slots, modulus_bits)
        total = add(total, stream if mine < other else negated(stream, modulus_bits), modulus_bits)
    return total


def _pair_key(seed: bytes, first: bytes, second: bytes, context: bytes, bits: int) -> bytes:
    fields = b"".join(len(field).to_bytes(4, "big") + field for field in (first, second, context))
    return hmac_sm3(seed, domain("pair-mask") + fields + bytes([bits]))


def _stream(key: bytes, slots: int, bits: int) -> Words:
    """Return pseudo-random numbers: blocks HMAC(key, 0), HMAC(key, 1), ... cut into 8 or 16 bytes a slot."""
    words = 1 if bits <= 64 else 2
    blocks = -(-slots * words * 8 // DIGEST_SIZE)
    data = b"".join(hmac_sm3(key, number.to_bytes(8, "big")) for number in range(blocks))
    drawn = np.frombuffer(data, "<u8", slots * words).reshape(slots, words)
    wide = np.zeros((slots, 2), np.uint64)
    wide[:, :words] = drawn
    return reduced(wide, bits)


def _encoded(name: str) -> bytes:
    try:
        return name.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidSpec("the name of a party is not text") from None
