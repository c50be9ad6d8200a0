"""Small sets against a large one that was prepared once: left learns which of its keys right has, on the SM2 curve.

    once, right:       names = the last 12 bytes of x of b H(y), ascending; a copy of them goes to left
    each query:        left                                  right
                       header, how many   <-- compared -->   header
                       a H(x)             --------------->                      fresh a
                                          <---------------   b a H(x)           the same sequence
                       a^-1 b a H(x), looked up in names

Source:   oblivious evaluation of H(x)^b: Jarecki and Liu, "Fast secure computation of set intersection", SCN 2010;
          prepared once for small queries: Resende and Aranha, "Faster unbalanced private set intersection", FC 2018.
Security: semi-honest parties; H a random oracle; decisional Diffie-Hellman for right's view, one-more (gap)
          Diffie-Hellman for left's. Right sees a H(x) under a secret of this query only: random points, whatever x is,
          with nothing in common with those of another query.
          Left's copy says nothing about any key without right's help, however guessable keys are, and one answered
          element tests one key, even for a left that departs from the protocol or makes keys up: so the owner counts
          elements before it answers them (``on_asked``), and caps them (``most``). Who has b *and* a copy can test any
          number of keys: b must never leave right. That it answers for long costs little: q answers take at most half
          the bits of q off the difficulty of finding it (Cheon, EUROCRYPT 2006). A new preparation has a new b, salt
          and tag and is unlinkable with the old: nobody without b can tell which names of the two are one key's.
          *Every* point is validated before a secret touches it, at both sides. Right's secret is checked against the
          preparation before it answers: another would find nothing, and look like an answer. That right prepared its
          true set and answers honestly is taken on trust.
          The salt is not drawn for each query, so a left may look for two keys with one digest; it gains nothing, as it
          asks about a digest and pays for it, whatever key it claims.
          q elements match one of m names by chance with about q m / 2^96: 2^-62 for 1e3 against 1e7. Nobody could tell.
Reveals:  to left: which of its keys right has, and right's row count. To right: how many keys each query asked about.
Shapes:   33 bytes an element both ways, in messages of ``BATCH``; 12 bytes a name.
Errors:   ``InvalidSpec`` for keys or a secret that break the contract; ``PartyFailed`` if the two sides hold different
          preparations, plans or limits; ``ProtocolFailed`` for too many or wrong elements; ``IntegrityFailed`` for a
          cached preparation that is not what was written. Never a partial answer.
Not here: sealing at rest, sending the copy, counting over time (quota), who may ask.
"""

from __future__ import annotations

import secrets
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sandbox.crypto import sm2curve
from sandbox.crypto.sm3 import DIGEST_SIZE, Sm3, domain, tagged
from sandbox.errors import Cancelled, IntegrityFailed, InvalidSpec, PartyFailed, ProtocolFailed
from sandbox.psi.commutative import Session
from sandbox.psi.contract import MAX_ROWS, Role
from sandbox.psi.counting import BATCH, again, blinded, check_digests, ends, exactly
from sandbox.psi.keys import Digests, Positions, order
from sandbox.workspace import Channel

ENGINE: Final = "prepared-sm2/1"
NAME: Final = 12  # bytes of x that stand for a key
ID_SIZE: Final = 16
SALT_SIZE: Final = 32
_POINT: Final = sm2curve.POINT_SIZE
_ORDER: Final = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123
_CHECKED: Final = b"check"  # no digest: those are 16 bytes
_FORM: Final = struct.Struct(f">16s{ID_SIZE}s{SALT_SIZE}sQ{DIGEST_SIZE}s{_POINT}s")
HEAD_SIZE: Final = _FORM.size + DIGEST_SIZE  # bytes of a file before its names

Names = NDArray[np.uint8]  # (n, 12)


@dataclass(frozen=True, slots=True)
class Preparation:
    """What is fixed when a set is prepared; both sides keep it with the names, and compare it at each query."""

    identity: bytes  # 16 random bytes
    salt: bytes = field(repr=False)  # 32 random bytes, for the digests of both sides; secret from outsiders
    rows: int
    digest: bytes  # of the names
    check: bytes  # a point under right's secret, by which right knows it again
    engine: str = ENGINE

    def __post_init__(self) -> None:
        sizes = [len(part) for part in (self.identity, self.salt, self.digest, self.check)]
        if sizes != [ID_SIZE, SALT_SIZE, DIGEST_SIZE, _POINT] or not 0 <= self.rows < MAX_ROWS or self.engine != ENGINE:
            raise InvalidSpec("this does not describe a prepared set of this version")

    @property
    def tag(self) -> bytes:
        """The domain separation tag of its points."""
        return domain_tag(self.identity, self.salt)

    def packed(self) -> bytes:
        """Return all fields in a fixed form."""
        return _FORM.pack(self.engine.encode("ascii"), self.identity, self.salt, self.rows, self.digest, self.check)


def unpacked(head: bytes) -> Preparation:
    """Return what ``packed`` gave.

    Raises:
        IntegrityFailed: it did not.
    """
    if len(head) != _FORM.size or head[:16].rstrip(b"\0") != ENGINE.encode("ascii"):
        raise IntegrityFailed("the description of a prepared set is of another size or version")
    try:
        return Preparation(*_FORM.unpack(head)[1:])
    except InvalidSpec as error:
        raise IntegrityFailed("the description of a prepared set is damaged") from error


def domain_tag(identity: bytes, salt: bytes) -> bytes:
    """Return the domain separation tag of a preparation, in the form RFC 9380 (3.1) advises."""
    return b"sandbox/v1/psi-prepared/" + tagged("psi-tag", identity + salt)[:16].hex().encode() + b"/" + sm2curve.SUITE


def prepare(
    digests: Digests,
    secret: sm2curve.Scalar,
    tag: bytes,
    *,
    threads: int = 1,
    on_progress: Callable[[float], None] | None = None,
    stop: threading.Event | None = None,
) -> bytes:
    """Return the names of right's keys, ascending: their sequence is a function of the set.

    Args:
        digests: under the salt of the preparation.
        secret: of this preparation alone, which the caller keeps sealed for as long as it answers.
        tag: ``domain_tag`` of the preparation.
    """
    check_digests(digests)
    names = np.empty((len(digests), NAME), np.uint8)
    with ThreadPoolExecutor(threads, "psi") as pool:
        for number, points in enumerate(blinded(digests, secret, tag, pool, threads)):
            _check(stop)
            part = names[number * BATCH : (number + 1) * BATCH]
            part[:] = _names(ends(points, NAME))
            if on_progress is not None:
                on_progress((number * BATCH + len(part)) / len(digests))
    return names[order(np.stack(_words(names), axis=1))].tobytes()


def describe(identity: bytes, salt: bytes, names: bytes, secret: sm2curve.Scalar) -> Preparation:
    """Return the description of what ``prepare`` returned."""
    check = _known_point(secret, domain_tag(identity, salt))
    return Preparation(identity, salt, len(names) // NAME, _digest(memoryview(names)), check)


def query(
    digests: Digests,
    preparation: Preparation,
    names: bytes | memoryview,
    channel: Channel,
    *,
    plan: bytes,
    most: int,
    on_progress: Callable[[float], None] | None = None,
    stop: threading.Event | None = None,
    patience_s: float = 60.0,
) -> Positions:
    """Return, at the left side, the positions of the keys right has, ascending by digest.

    Args:
        digests: under the salt of the preparation.
        names: what came with the preparation.
        plan: digest of the admitted plan, compared with right's.
        most: how many elements right agreed to answer, compared too.
    """
    check_digests(digests)
    if len(digests) > most:
        raise InvalidSpec("these are more keys than the other side agreed to answer")
    if len(names) != NAME * preparation.rows:
        raise IntegrityFailed("a prepared set is not of the size it is said to have")
    session = Session(Role.LEFT, channel, patience_s, on_progress, stop, len(digests))
    agreed = _agreed(preparation, plan, most)
    if session.swap(agreed + len(digests).to_bytes(8, "big")) != agreed:
        raise PartyFailed("the other side works on another preparation or other terms")
    found = np.zeros(len(digests), np.bool_)
    secret, inverse = _blinding()
    with secret, inverse, ThreadPoolExecutor(1, "psi") as pool:
        for number, mine in enumerate(blinded(digests, secret, preparation.tag, pool, 1)):
            back = again(exactly(session.swap(mine), len(mine)), inverse)
            found[number * BATCH : (number + 1) * BATCH] = _lookup(_names(names), _names(ends(back, NAME)))
            session.advance(2 * len(mine) // _POINT)
    hits: Positions = np.flatnonzero(found).astype(np.int64)
    return hits[order(digests[hits])]


def answer(
    channel: Channel,
    secret: sm2curve.Scalar,
    most: int,
    *,
    preparation: Preparation,
    plan: bytes,
    on_asked: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
    patience_s: float = 60.0,
) -> int:
    """Answer one query at the right side; return how many elements were answered.

    Args:
        on_asked: told how many are asked before any is answered, to count them durably; what it raises ends the query.
    """
    if _known_point(secret, preparation.tag) != preparation.check:
        raise InvalidSpec("this secret is not the one of the preparation")
    agreed = _agreed(preparation, plan, most)
    _check(stop)
    opening = channel.recv(patience_s)
    channel.send(agreed)
    if opening[:-8] != agreed:
        raise PartyFailed("the other side works on another preparation or other terms")
    asked = int.from_bytes(opening[-8:], "big")
    if asked > most:
        raise ProtocolFailed("the other side asks about more keys than were agreed on")
    if on_asked is not None and asked:
        on_asked(asked)
    for first in range(0, asked, BATCH):
        _check(stop)
        size = min(BATCH, asked - first)
        channel.send(again(exactly(channel.recv(patience_s), _POINT * size), secret))
    return asked


def to_bytes(preparation: Preparation, names: bytes) -> bytes:
    """Return a preparation with its names as one file, for the caller to seal."""
    head = preparation.packed()
    return b"".join((head, tagged("psi-prepared", head), names))


def from_bytes(data: bytes) -> tuple[Preparation, memoryview]:
    """Return what ``to_bytes`` was given; the names are a view of ``data``.

    Raises:
        IntegrityFailed: these are not such bytes, or some are missing, added or changed.
    """
    head, rest = data[: _FORM.size], memoryview(data)[_FORM.size :]
    if len(rest) < DIGEST_SIZE or tagged("psi-prepared", head) != rest[:DIGEST_SIZE]:
        raise IntegrityFailed("a file does not begin like a prepared set")
    preparation, names = unpacked(head), rest[DIGEST_SIZE:]
    if len(names) != NAME * preparation.rows or _digest(names) != preparation.digest:
        raise IntegrityFailed("a prepared set is damaged")
    return preparation, names


def _agreed(preparation: Preparation, plan: bytes, most: int) -> bytes:
    """Return what both sides compare; it shows nothing of the salt."""
    if not 0 <= most < MAX_ROWS:
        raise InvalidSpec("the number of keys a query may ask about is out of range")
    return tagged("psi-prepared-terms", preparation.packed() + most.to_bytes(8, "big") + plan)


def _check(stop: threading.Event | None) -> None:
    if stop is not None and stop.is_set():
        raise Cancelled("stopped during the intersection")


def _known_point(secret: sm2curve.Scalar, tag: bytes) -> bytes:
    return secret.multiply(sm2curve.hash_to_curve([_CHECKED], tag))[0]


def _blinding() -> tuple[sm2curve.Scalar, sm2curve.Scalar]:
    """Return a fresh secret and its inverse. Python's integers, which they are made from, cannot be wiped."""
    number, factor = (1 + secrets.randbelow(_ORDER - 1) for _ in range(2))
    # Inverted under a random factor, so that the time it takes does not depend on the secret.
    inverse = factor * pow(number * factor % _ORDER, -1, _ORDER) % _ORDER
    size = sm2curve.SCALAR_SIZE
    return sm2curve.Scalar(number.to_bytes(size, "big")), sm2curve.Scalar(inverse.to_bytes(size, "big"))


def _names(data: bytes | memoryview) -> Names:
    return np.frombuffer(data, np.uint8).reshape(-1, NAME)


def _words(names: Names) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return each name as two numbers that compare as its bytes do."""
    first = np.ascontiguousarray(names[:, :8]).view(">u8").astype(np.uint64).ravel()
    return first, np.ascontiguousarray(names[:, 8:]).view(">u4").astype(np.uint64).ravel()


def _lookup(names: Names, wanted: Names) -> NDArray[np.bool_]:
    """Return which of ``wanted`` are among the ascending ``names``: a binary search for all at once, in place."""
    if not len(names):
        return np.zeros(len(wanted), np.bool_)
    low, high = np.zeros(len(wanted), np.int64), np.full(len(wanted), len(names), np.int64)
    first, second = _words(wanted)
    for _ in range(len(names).bit_length()):
        middle = low + high >> 1
        at_first, at_second = _words(names[np.minimum(middle, len(names) - 1)])
        below = (at_first < first) | (at_first == first) & (at_second < second)
        low, high = np.where(below & (low < high), middle + 1, low), np.where(below, high, middle)
    return np.asarray((names[np.minimum(low, len(names) - 1)] == wanted).all(axis=1), np.bool_)


def _digest(names: memoryview) -> bytes:
    digest = Sm3()
    digest.update(domain("psi-prepared-names"))
    for first in range(0, len(names), 1 << 20):
        digest.update(bytes(names[first : first + (1 << 20)]))
    return digest.digest()
