"""One party's share of one secret value, as bytes that may travel.

    "SHR1" | rank (1) | output (1) | terms (32) | meta length (4) | meta | chunks (4) | { length (8) | chunk } ...

The library's own share objects would travel as ``pickle``, which runs code of the sender; this form holds bytes only.

Security: any two of the three shares of a value tell it. Treat a share like the value itself.
Errors:   ``ProtocolFailed`` on any other form.
Not here: what the bytes mean; the library checks ``meta`` and chunks against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sandbox.errors import ProtocolFailed

MAGIC = b"SHR1"
PARTIES = 3
LABEL_SIDE, OTHER_SIDE, INPUT = 0, 1, 2  # what a share is a share of
_MAX_META = 4096
_MAX_CHUNKS = 1 << 16
_MAX_TOTAL = 4 << 30


@dataclass(frozen=True, slots=True)
class Share:
    """The parts of a share."""

    rank: int
    output: int
    terms: bytes
    meta: bytes
    chunks: tuple[bytes, ...] = field(repr=False)

    def to_bytes(self) -> bytes:
        """Return the share in the form above."""
        parts = [MAGIC, bytes([self.rank, self.output]), self.terms, len(self.meta).to_bytes(4, "big"), self.meta]
        parts.append(len(self.chunks).to_bytes(4, "big"))
        for chunk in self.chunks:
            parts += [len(chunk).to_bytes(8, "big"), chunk]
        return b"".join(parts)


def parse(data: bytes) -> Share:
    """Return the parts of a share.

    Raises:
        ProtocolFailed: it is not of the form above.
    """
    if len(data) > _MAX_TOTAL:
        raise ProtocolFailed("a share is too long")
    reader = _Reader(data)
    if reader.take(4) != MAGIC:
        raise ProtocolFailed("a share does not begin like one")
    rank, output = reader.take(2)
    terms = reader.take(32)
    meta = reader.take(reader.number(4, _MAX_META))
    chunks = tuple(reader.take(reader.number(8, _MAX_TOTAL)) for _ in range(reader.number(4, _MAX_CHUNKS)))
    if rank >= PARTIES or output not in (LABEL_SIDE, OTHER_SIDE, INPUT) or reader.left:
        raise ProtocolFailed("a share has impossible fields or bytes left over")
    return Share(rank, output, terms, meta, chunks)


def complete(shares: Sequence[bytes]) -> list[Share]:
    """Return the shares of all three parties in the order of their ranks.

    Raises:
        ProtocolFailed: they are not one share from each party of one value of one job.
    """
    parsed = sorted((parse(share) for share in shares), key=lambda share: share.rank)
    if [share.rank for share in parsed] != list(range(PARTIES)):
        raise ProtocolFailed("the shares are not one from each party")
    if len({(share.output, share.terms, share.meta) for share in parsed}) != 1:
        raise ProtocolFailed("the shares do not belong to one value of one job")
    return parsed


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    @property
    def left(self) -> int:
        return len(self._data) - self._place

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise ProtocolFailed("a share ends too early")
        self._place += count
        return self._data[self._place - count : self._place]

    def number(self, size: int, limit: int) -> int:
        value = int.from_bytes(self.take(size), "big")
        if value > limit:
            raise ProtocolFailed("a share announces too long a part")
        return value
