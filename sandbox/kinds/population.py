"""Who is behind a number, in a few bytes, so that two numbers can be compared later: sketches of groups of people.

    sketch(group) = 1024 bits, one toggled for every person | the people's 64-bit digests added up
    sketch(A) xor sketch(B), of the bits                    = the bits of the people in one of A and B only

Source:   odd sketches, Mitzenmacher, Pagh and Pham, "Efficient estimation for high similarities using odd sketches",
          WWW 2014; the sum is a multiset hash, Clarke, Devadas, van Dijk, Gassend and Suh, ASIACRYPT 2003.
Security: ``differing`` never says more people than there are: each of them toggles one bit. Two who toggle the same
          bit hide each other there, and then the sums differ: for people fixed before the secret was drawn those of a
          group and of the same group with one exchanged for another are equal with probability 2^-64. So a difference
          is never taken for none, nor a small one for a large one. A large one can be taken for a small one, which
          costs an answer and nobody's privacy (``docs/gate.md`` has the figures).
          Bits and sums come from ``psi.keys`` under the node's own secret: that is a universal hash and no random
          function, and suffices, since sketches never leave the node and those who ask do not know the secret. Who
          knows it can try names against a sketch of one person, but not against one of many.
Shapes:   a sketch is 16 little-endian words of bits and one of the sum, 136 bytes. A key is a person; a key that occurs
          twice is in no bit, twice in the sum and twice in ``rows``.
          Beside it, in the same pass, who they are is sketched for counting (``kinds.distinct``): for each of up to two
          groups, for all groups of a larger table together.
Units:    memory is 136 bytes a group beside one batch of keys, and 64 KiB.
Errors:   ``InvalidSpec`` on keys that are no column of strings without nulls, on codes of groups there are not, and on
          numbers that do not belong together.
Not here: which differences are too small (``gate.history``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sandbox.errors import InvalidSpec
from sandbox.kinds.distinct import Crowd, merged
from sandbox.model import Population
from sandbox.psi.keys import digest

BITS: Final = 1024
WORDS: Final = BITS // 64
SKETCH_SIZE: Final = 8 * (WORDS + 1)  # bytes
WHOLE: Final = "whole"  # all rows an owner brought, where it does not know which of them are behind the number
SUMMED: Final = "summed"  # the same, where its own columns are added up
SHARED: Final = "shared"  # the rows behind the number
_BLOCK: Final = 1 << 18  # rows at a time
_APART: Final = 2  # groups whose people are counted apart

Codes = npt.NDArray[np.int32]
Words = npt.NDArray[np.uint64]


def person_digests(keys: pa.Array, secret: bytes) -> Words:
    """Return what stands for people in sketches: 64 bits of a hash of each key under the node's secret."""
    return np.ascontiguousarray(digest(keys, secret)[:, 0])


class Tally:
    """Groups of people that are still being read, batch by batch."""

    def __init__(self, secret: bytes, groups: int) -> None:
        self._secret = secret
        self._bits = np.zeros(groups * WORDS, np.uint64)
        self._sums = np.zeros(groups, np.uint64)
        self._rows = np.zeros(groups, np.int64)
        self._crowds = [Crowd() for _ in range(groups if groups <= _APART else 1)]

    def add(self, keys: pa.Array, codes: Codes | None = None) -> None:
        """Add people to their groups: ``codes`` says which, -1 for none; without it all go into the only one."""
        if codes is not None and len(codes) != len(keys):
            raise InvalidSpec("a group is needed for every key")
        for first in range(0, len(keys), _BLOCK):
            some = keys.slice(first, _BLOCK)
            part = None if codes is None else codes[first : first + len(some)]
            self.add_digests(person_digests(some, self._secret), part)

    def add_digests(self, digests: Words, codes: Codes | None = None) -> None:
        """Add people by what ``person_digests`` returned for their keys."""
        groups = len(self._rows)
        if codes is None:
            if groups != 1:
                raise InvalidSpec("of several groups it must be said who is in which")
            places = np.zeros(len(digests), np.int64)
        else:
            if len(codes) and not -1 <= int(codes.min()) <= int(codes.max()) < groups:
                raise InvalidSpec("there is no group of that number")
            inside = codes >= 0
            digests, places = digests[inside], codes[inside].astype(np.int64)
        bits = (digests >> np.uint64(54)).astype(np.int64)  # the first ten bits of 64
        if groups <= _APART:  # counting all bits at once is several times faster than toggling one after the other
            toggled = np.bincount(places * BITS + bits, minlength=groups * BITS).astype(np.uint8) & 1
            self._bits ^= np.packbits(toggled, bitorder="little").view("<u8").astype(np.uint64)
            self._sums += np.array([digests[places == number].sum(dtype=np.uint64) for number in range(groups)])
        else:
            np.bitwise_xor.at(self._bits, places * WORDS + (bits >> 6), np.uint64(1) << (bits & 63).astype(np.uint64))
            np.add.at(self._sums, places, digests)
        self._rows += np.bincount(places, minlength=groups)
        for number, crowd in enumerate(self._crowds):
            crowd.add(digests if len(self._crowds) == 1 else digests[places == number])

    def done(self, names: Sequence[str], sizes: Sequence[int], is_whole: bool = False) -> tuple[Population, ...]:
        """Return the groups under their names; ``sizes`` are over all parties."""
        if not len(names) == len(sizes) == len(self._rows):
            raise InvalidSpec("there are other groups than names or sizes")
        bits, people = self._bits.reshape(-1, WORDS), [crowd.done() for crowd in self._crowds]
        return tuple(
            Population(
                name,
                _packed(bits[place], self._sums[place]),
                int(self._rows[place]),
                int(size),
                is_whole,
                people[min(place, len(people) - 1)],
            )
            for place, (name, size) in enumerate(zip(names, sizes, strict=True))
        )


class Sketcher:
    """Sketches groups of people under one node's secret; only sketches under the same secret can be compared."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 16:
            raise InvalidSpec("a secret for sketches has at least 16 bytes")
        self._secret = secret

    def start(self, groups: int = 1) -> Tally:
        """Return empty groups, for people that come in batches."""
        return Tally(self._secret, groups)

    def of(self, name: str, keys: pa.Array, size: int, is_whole: bool = False) -> Population:
        """Return one group of people."""
        tally = self.start()
        tally.add(keys)
        return tally.done([name], [size], is_whole)[0]

    def groups(
        self, names: Sequence[str], keys: pa.Array, codes: Codes, sizes: Sequence[int]
    ) -> tuple[Population, ...]:
        """Return groups of people that have nobody in common; ``codes`` says who is in which, -1 for none."""
        tally = self.start(len(names))
        tally.add(keys, codes)
        return tally.done(names, sizes)


def union(name: str, parts: Sequence[Population], size: int, is_whole: bool = False) -> Population:
    """Return the group of all people of groups that have nobody in common: a margin of cells."""
    sketches = words(b"".join(part.sketch for part in parts))
    bits, total = np.bitwise_xor.reduce(sketches[:, :WORDS], axis=0), sketches[:, WORDS].sum(dtype=np.uint64)
    rows, people = sum(part.rows for part in parts), merged(part.people for part in parts)
    return Population(name, _packed(bits, total), rows, size, is_whole, people)


def differing(one: bytes, other: bytes) -> int:
    """Return how many people, at least, are in one of two groups only; 0 if it is the same group."""
    apart = np.bitwise_xor(*words(one + other))
    return max(int(np.bitwise_count(apart[:WORDS]).sum()), int(apart.any()))


def words(sketches: bytes) -> Words:
    """Return sketches, one after the other, as rows of ``WORDS`` words of bits and one of the sum."""
    if len(sketches) % SKETCH_SIZE:
        raise InvalidSpec("a sketch of another size")
    return np.frombuffer(sketches, "<u8").astype(np.uint64).reshape(-1, WORDS + 1)


def _packed(bits: Words, total: np.uint64) -> bytes:
    return bits.astype("<u8").tobytes() + int(total).to_bytes(8, "little")
