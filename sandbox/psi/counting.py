"""How many keys two parties share, on the SM2 curve, without either learning which.

    left                                      right
    header             <---- compared ---->   header
    a H(x), shuffled   <---- in turns ---->   b H(y), shuffled         both sets are fixed from here on
                       <--------------------  b a H(x), ascending      once right has *all* of left's
    done               -------------------->                           left has compared a b H(y)

Source:   Huberman, Franklin and Hogg, EC 1999; Ion et al., EuroS&P 2020. Group, H and validation as in ``ecdh_sm2``.
Security: semi-honest parties, decisional Diffie-Hellman in the SM2 group, H a random oracle.
          *Why left cannot link.* It knows a, sees the set {b a H(x)} and the sequence of b H(y). Its own elements come
          back in ascending order, a function of the set, so nothing is left of the order it sent them in; b being
          fresh, that is a fresh global shuffle. To tell whose element one is, left would have to recognise b H(x):
          the decision problem. The sequence of b H(y) was drawn by right, so the places that turn out common are places
          in a random order. Without the first shuffle left would learn its common rows, without the second right's.
          To right nothing comes back that depends on the result. Left's shuffle keeps its rows' order out of its words.
          *Not* held against a side that departs from the protocol: a left that blinds groups of its rows under
          different secrets learns the size for each group, and both may bring keys they made up.
Checks:   every point is validated before a secret touches it. Points equal up to sign, among those received (they would
          count twice) or between received and sent (never honest), end the run at who received them: at right before
          anything of the second round leaves; so do repetitions in that round at left. There are no two results to
          compare, as in ``commutative``: that right multiplied honestly is taken on trust.
Reveals:  to left: how many keys both have, and right's row count. To right: left's row count. Part counts to nobody.
Shapes:   33 bytes an element, 16 in the second round: m and n keys collide anywhere with a chance of about m n / 2^128.
Memory:   about 100 bytes a row of both sides up to ``HELD`` rows. Beyond, and given ``scratch``, about 40 for each own
          row; the rest is in files there until the end: blinded names and places in shuffled orders, nothing of a key.
Errors:   ``InvalidSpec`` for keys or a directory that break the contract; ``PartyFailed`` if the terms differ;
          ``ProtocolFailed`` for what the other side may not send. Never a partial answer.
Not here: a minimum size (``loads``, the gate), transport, buckets: a bucket's count would be told, so there is one key
          and one shuffle, and several cores are used by ``threads``.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sandbox.crypto import sm2curve
from sandbox.crypto.sm3 import tagged
from sandbox.errors import InvalidSpec, JobFailed, PartyFailed, ProtocolFailed
from sandbox.psi.commutative import Session, header
from sandbox.psi.contract import Role, Terms
from sandbox.psi.keys import Digests, Positions, check_unique, order
from sandbox.workspace import Channel

ENGINE: Final = "count-sm2/1"
NAME: Final = 16  # bytes of x that stand for a point
BATCH: Final = 1 << 12  # elements in a message
ECHO_BATCH: Final = 1 << 14  # names in a message
HELD: Final = 1 << 22  # names up to which a collection of them stays in memory
PART: Final = 1 << 20  # records of a file, and records gathered before files are written to
DONE: Final = b"done"
_POINT: Final = sm2curve.POINT_SIZE
_BACK: Final = 1 << 63  # marks what came back; other marks are places


def count(
    digests: Digests,
    role: Role,
    terms: Terms,
    channel: Channel,
    *,
    on_progress: Callable[[float], None] | None = None,
    stop: threading.Event | None = None,
    patience_s: float = 60.0,
    scratch: Path | None = None,
    threads: int = 1,
) -> int | None:
    """Return the size of the intersection at the left side, and None at the right.

    Args:
        scratch: a directory private to this side of this run; None keeps everything in memory.
        threads: how many cores to multiply on.
    """
    session = Session(role, channel, patience_s, on_progress, stop, 2 * terms.left_rows + terms.right_rows)
    agreed = header(terms, ENGINE)
    if role is Role.RIGHT:
        if len(offer(digests, terms, session, agreed, scratch, threads)) and session.swap(b"") != DONE:
            raise ProtocolFailed("the other side did not end as agreed")
        return None
    common = find(digests, terms, session, agreed, scratch, threads)
    if len(common):
        exactly(session.swap(DONE), 0)
    return int(common.sum())


def find(
    digests: Digests, terms: Terms, session: Session, agreed: bytes, scratch: Path | None, threads: int
) -> NDArray[np.bool_]:
    """Return, at the left side, which places of right's sequence hold common keys; empty if a side has no rows."""
    begin(digests, terms.left_rows, session, agreed)
    if not terms.left_rows or not terms.right_rows:
        return np.empty(0, np.bool_)
    common = np.zeros(terms.right_rows, np.bool_)
    with Names(scratch, terms.left_rows + terms.right_rows) as names:
        _swap_blinded(digests, Role.LEFT, terms, session, names, scratch, threads)
        for first in range(0, len(digests), ECHO_BATCH):
            size = min(ECHO_BATCH, len(digests) - first)
            names.add(exactly(session.swap(b""), NAME * size), _BACK)
            session.advance(2 * size)
        for records in names.ordered():
            after = _equal(records)
            one, other = records[after - 1, 2], records[after, 2]
            # Of more than two with one name, two of one kind are neighbours: equal names stay in the order they came.
            if bool(((one == _BACK) == (other == _BACK)).any()):
                raise ProtocolFailed("the other side sent a key twice in the second round")
            common[np.minimum(one, other).astype(np.int64)] = True
    return common


def offer(
    digests: Digests, terms: Terms, session: Session, agreed: bytes, scratch: Path | None, threads: int
) -> Positions:
    """Take part at the right side; return my positions in the sequence they were sent; empty if a side has no rows."""
    begin(digests, terms.right_rows, session, agreed)
    if not terms.left_rows or not terms.right_rows:
        return np.empty(0, np.int64)
    with Names(scratch, terms.left_rows) as names:
        shuffle = _swap_blinded(digests, Role.RIGHT, terms, session, names, scratch, threads)
        for message in _messages(names):
            exactly(session.swap(message), 0)
            session.advance(2 * len(message) // NAME)
    return shuffle


def begin(digests: Digests, rows: int, session: Session, agreed: bytes) -> None:
    """Check my digests, then compare what both sides work on."""
    check_digests(digests)
    if len(digests) != rows:
        raise InvalidSpec("the keys are not as many as the terms say")
    if session.swap(agreed) != agreed:
        raise PartyFailed("the other side works on different terms")


def check_digests(digests: Digests) -> None:
    """Check that digests are of the right form, and each there once."""
    if digests.dtype != np.uint64 or digests.shape[1:] != (2,):
        raise InvalidSpec("the keys of an intersection are not digests")
    check_unique(digests)


def exactly(message: bytes, size: int) -> bytes:
    """Return a message that has to be of ``size`` bytes."""
    if len(message) != size:
        raise ProtocolFailed("the other side sent a message of the wrong length")
    return message


def blinded(
    digests: Digests, secret: sm2curve.Scalar, tag: bytes, pool: ThreadPoolExecutor, ahead: int
) -> Iterator[bytes]:
    """Yield the points of ``digests`` under the secret in batches; ``ahead`` more are computed while one is used."""

    def work(part: Digests) -> bytes:
        places = np.arange(0, 16 * len(part) + 1, 16, dtype=np.int64)
        return secret.multiply_hashed(part.astype("<u8").tobytes(), places.tobytes(), tag)

    waiting: deque[Future[bytes]] = deque()
    for first in range(0, len(digests), BATCH):
        waiting.append(pool.submit(work, digests[first : first + BATCH]))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def again(points: bytes, secret: sm2curve.Scalar) -> bytes:
    """Return the other side's points under the secret.

    Raises:
        ProtocolFailed: some are no points.
    """
    products, bad = secret.multiply(points)
    if bad:
        total = len(points) // _POINT
        raise ProtocolFailed(f"the other side sent {len(bad)} elements of {total} that are no points of the curve")
    return products


def ends(points: bytes, size: int = NAME) -> bytes:
    """Return the last ``size`` bytes of each point's x."""
    return np.frombuffer(points, np.uint8).reshape(-1, _POINT)[:, _POINT - size :].tobytes()


def _swap_blinded(
    digests: Digests, role: Role, terms: Terms, session: Session, names: Names, scratch: Path | None, threads: int
) -> Positions:
    """Swap the blinded keys; the other side's go to ``names`` blinded twice, with their places. Return my sequence."""
    others = terms.rows(role.other)
    shuffle = np.argsort(np.frombuffer(os.urandom(8 * len(digests)), np.uint64)).astype(np.int64, copy=False)
    run = tagged("psi-count", len(terms.plan).to_bytes(4, "big") + terms.plan + terms.salt)[:16].hex().encode("ascii")
    tag = b"sandbox/v1/psi-count/" + run + b"/" + sm2curve.SUITE
    twice: deque[tuple[int, Future[bytes]]] = deque()
    with (
        sm2curve.Scalar.generate() as secret,
        Names(scratch, len(digests) + others) as seen,
        ThreadPoolExecutor(threads, "psi") as pool,
    ):
        batches = blinded(digests[shuffle], secret, tag, pool, threads)
        for first in range(0, max(len(digests), others), BATCH):
            mine = next(batches, b"")
            theirs = exactly(session.swap(mine), _POINT * min(max(others - first, 0), BATCH))
            seen.add(ends(mine), 0)
            seen.add(ends(theirs), 0)
            twice.append((first, pool.submit(again, theirs, secret)))
            while len(twice) > (threads if first + BATCH < others else 0):
                place, points = twice.popleft()
                names.add(ends(points.result()), place, count_up=True)
            session.advance(2 * (len(mine) + len(theirs)) // _POINT)
        if any(len(_equal(records)) for records in seen.ordered()):
            raise ProtocolFailed("the other side sent a blinded key twice, or one of ours")
    return shuffle


class Names:
    """Blinded names with a mark each, ascending; in files where they are too many. Records: two words and the mark."""

    def __init__(self, scratch: Path | None, rows: int) -> None:
        if scratch is not None and (not scratch.is_dir() or scratch.stat().st_mode & 0o077):
            raise InvalidSpec("the directory given to an intersection is not private")
        stem, parts = secrets.token_hex(8), -(-rows // PART) if scratch is not None and rows > HELD else 0
        self._files = [scratch / f"{stem}-{number}" for number in range(parts)] if scratch is not None else []
        self._held, self._filled, self._written = np.empty((PART if parts else rows, 3), np.uint64), 0, 0

    def __enter__(self) -> Names:
        return self

    def __exit__(self, *_: object) -> None:
        for path in self._files:
            path.unlink(missing_ok=True)

    def add(self, names: bytes, mark: int, *, count_up: bool = False) -> None:
        """Take in names of ``NAME`` bytes, fewer than ``PART``, all with one mark or with marks that count up."""
        words = np.frombuffer(names, ">u8").reshape(-1, 2)
        if self._files and self._filled + len(words) > len(self._held):
            self._write()
        into = self._held[self._filled : self._filled + len(words)]
        into[:, :2] = words
        into[:, 2] = np.arange(mark, mark + len(words), dtype=np.uint64) if count_up else np.uint64(mark)
        self._filled += len(words)

    def ordered(self) -> Iterator[NDArray[np.uint64]]:
        """Yield everything ascending by name, in pieces; equal names are in one piece."""
        if not self._files:
            yield self._held[order(self._held[: self._filled, :2])]
            return
        self._write()
        for path in self._files:
            try:
                records = np.fromfile(path, np.uint64).reshape(-1, 3)
                path.unlink()
            except OSError as error:
                raise JobFailed("a file in the private directory of an intersection cannot be read") from error
            if len(records) > PART + 8 * PART**0.5:  # the other side may have chosen its points to fill our memory
                raise ProtocolFailed("the other side's elements are not spread as those of keys are")
            self._written -= len(records)
            yield records[order(records[:, :2])]
        if self._written:
            raise JobFailed("a file in the private directory of an intersection was changed by somebody else")

    def _write(self) -> None:
        records, parts = self._held[: self._filled], len(self._files)
        numbers = (records[:, 0] >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)
        cuts = np.cumsum(np.bincount(numbers.astype(np.int64), minlength=parts))[:-1]
        pieces = np.split(records[np.argsort(numbers, kind="stable")], cuts)
        try:
            for path, piece in zip(self._files, pieces, strict=True):
                with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600), "wb") as file:
                    piece.tofile(file)
        except OSError as error:
            raise JobFailed("a file in the private directory of an intersection cannot be written") from error
        self._filled, self._written = 0, self._written + self._filled


def _equal(records: NDArray[np.uint64]) -> Positions:
    """Return the places in ascending ``records`` whose name is that of the place before."""
    after = np.flatnonzero(records[1:, 0] == records[:-1, 0]) + 1
    same: Positions = after[records[after, 1] == records[after - 1, 1]]
    return same


def _messages(names: Names) -> Iterator[bytes]:
    """Cut all names, ascending, into messages: nothing of how they were held shows."""
    rest = b""
    for records in names.ordered():
        rest += records[:, :2].astype(">u8").tobytes()
        whole = len(rest) // (NAME * ECHO_BATCH) * (NAME * ECHO_BATCH)
        yield from (rest[first : first + NAME * ECHO_BATCH] for first in range(0, whole, NAME * ECHO_BATCH))
        rest = rest[whole:]
    if rest:
        yield rest
