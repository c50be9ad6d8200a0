"""Private set intersection from commutative encryption, over a channel, in whichever group it is given.

    both learn                                            only left learns
    left                        right                     left                        right
    header   <--- compared ---> header                    header   <--- compared ---> header
    a H(x), shuffled   ------->                           a H(x), shuffled   ------->
             <-------  b H(y), shuffled                            <-------  b H(y), shuffled      sets fixed from here
    a b H(y), in order ------->                           (kept)             ------->
             <-------  b a H(x), in order                          <-------  b a H(x), in order
    match    <--- compared ---> match                     match    <---  done   --->

Source:   C. Meadows, IEEE S&P 1986; Huberman, Franklin and Hogg, EC 1999.
Security: semi-honest parties; decisional Diffie-Hellman in the group, H a random oracle. What a group has to check is
          said there. H is taken of the 16-byte digest of a key, not of the key: of two keys with one digest (2^-128 a
          pair of keys fixed before the salt) one would be taken for the other, unnoticed.
          Where both learn, number and digest of the result are compared: a side that lost or invented a row, by
          mistake or by sending elements back in another order, is found out. Where one learns, nobody can compare:
          such a row stays wrong at the learner, and the other side only hears that the learner is content.
Reveals:  to both sides: the size of both sets, the number of buckets and their padded size. To whoever learns: which
          of *their* keys both have. A party that may choose its keys can so ask about those keys. Nothing of a side's
          order of input: elements are shuffled under the system's random source before they are sent. What a side that
          does not learn is sent is the same whatever was found; how long the learner takes may not be, by a little.
Shapes:   elements of a fixed size, in messages of exactly ``BATCH`` elements but for the last; a side that does not
          tell sends as many messages without content.
Errors:   ``InvalidSpec`` for digests that break the contract; ``PartyFailed`` if the terms differ; ``ProtocolFailed``
          on a wrong length, a repeated, reflected or invalid element, or results that disagree. Never a partial answer.
Not here: transport, cutting into buckets (memory is about 500 bytes a key of one bucket).
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from sandbox.crypto.sm3 import sm3, tagged
from sandbox.errors import Cancelled, PartyFailed, ProtocolFailed
from sandbox.psi.buckets import check_bucket, padded, padded_size
from sandbox.psi.contract import EVERYTHING, Bucket, Role, Terms
from sandbox.psi.keys import Digests, Positions, order
from sandbox.workspace import Channel

BATCH: Final = 1 << 14  # elements: half a megabyte, sealed as one record; nodes pay for the number of messages, too
_DONE: Final = tagged("psi-done", b"")

Names = NDArray[np.uint64]  # a row an element; of pseudo-random words, so that the first alone sorts them


class Group(Protocol):
    """A group with one secret of this run. Elements are bytes, one after another."""

    engine: str  # the name both sides compare
    element: int  # bytes of an element
    echo: int  # bytes kept of an element that both secrets went into
    overlaps: bool  # whether computing leaves the interpreter's lock, so that it can go on while a message travels

    def blind(self, digests: Digests) -> bytes:
        """Return the elements of keys, given by their digests, under the secret."""
        ...

    def again(self, elements: memoryview) -> bytes:
        """Return the other side's elements under the secret, cut to ``echo`` bytes.

        Raises:
            ProtocolFailed: one of them is not an element.
        """
        ...

    def names(self, elements: memoryview) -> Names:
        """Return one name an element; elements that give equal echoes have equal names.

        Raises:
            ProtocolFailed: an element is spelled in a way that hides which one it is.
        """
        ...

    def check_echo(self, echo: memoryview) -> None:
        """Check what came back.

        Raises:
            ProtocolFailed: it is spelled in a way that hides a repetition.
        """
        ...


def exchange(
    open_group: Callable[[Terms], AbstractContextManager[Group]],
    digests: Digests,
    role: Role,
    terms: Terms,
    bucket: Bucket,
    channel: Channel,
    *,
    learner: Role | None = None,
    patience_s: float = 60.0,
    on_progress: Callable[[float], None] | None = None,
    stop: threading.Event | None = None,
) -> Positions:
    """Return the positions of the common keys in ``digests``, as ``contract`` says.

    Args:
        open_group: the group with a fresh secret, which leaving it wipes.
        patience_s: how long to wait for one message.
    """
    check_bucket(digests, role, terms, bucket)
    own, others = (padded_size(terms.rows(side), bucket.of) for side in (role, role.other))
    session = Session(role, channel, patience_s, on_progress, stop, own + others)
    with open_group(terms) as group:
        agreed = header(terms, group.engine, bucket, learner)
        if session.swap(agreed) != agreed:
            raise PartyFailed("the other side works on different terms")
        if not own or not others:
            return np.empty(0, np.int64)
        shuffle = np.argsort(np.frombuffer(os.urandom(8 * own), np.uint64))
        # The other side hears what became of its elements only if it is to learn, and so do we.
        hears, tells = learner is not role.other, learner is not role
        back, twice_theirs = _blind_twice(
            group, session, padded(digests, own).take(shuffle, axis=0), others, tells=tells, hears=hears
        )
    if not hears:
        positions: Positions = np.empty(0, np.int64)
    else:
        hits = shuffle[_common(back, twice_theirs)]
        if bool((hits >= len(digests)).any()):
            raise ProtocolFailed("a random entry of the padding matched")
        positions = hits[order(digests[hits])]
    result = _DONE
    if learner is None:
        result = len(positions).to_bytes(8, "big") + sm3(digests[positions].astype("<u8").tobytes())
    if session.swap(result) != result:
        raise ProtocolFailed("the two sides found different intersections")
    return positions


def _blind_twice(
    group: Group, session: Session, shuffled: Digests, others: int, *, tells: bool, hears: bool
) -> tuple[Names, Names]:
    """Take both sets through both secrets; return our elements in our order (none if not heard), and theirs."""
    own = len(shuffled)
    mine, theirs = in_rounds(
        session, lambda part: group.blind(shuffled[part]), own, others, group.element, group.overlaps
    )
    _check_fresh(group.names(mine), group.names(theirs))
    del mine

    # Seen from here the roles are exchanged: we send as many as they have, and get back as many as we have.
    twice_theirs, twice_mine = in_rounds(
        session,
        lambda part: group.again(theirs[group.element * part.start : group.element * part.stop]),
        others,
        own,
        group.echo,
        group.overlaps,
        tells=tells,
        hears=hears,
    )
    group.check_echo(twice_mine)
    return rows(twice_mine, group.echo), rows(twice_theirs, group.echo)


def rows(data: memoryview, size: int) -> Names:
    """Return bytes as rows of ``size`` bytes, a multiple of eight, without copying them."""
    return np.frombuffer(data, np.uint64).reshape(-1, size // 8)


class Session:
    """The two sides' turns: left speaks first, and both compute before either speaks."""

    def __init__(
        self,
        role: Role,
        channel: Channel,
        patience_s: float,
        on_progress: Callable[[float], None] | None,
        stop: threading.Event | None,
        total: int,
    ) -> None:
        self._role, self._channel, self._patience_s = role, channel, patience_s
        self._on_progress, self._stop = on_progress, stop
        self._done, self._total = 0, max(2 * total, 1)

    def swap(self, data: bytes) -> bytes:
        """Send ``data`` and return what the other side sends in the same round."""
        if self._stop is not None and self._stop.is_set():
            raise Cancelled("stopped during the intersection")
        if self._role is Role.LEFT:
            self._channel.send(data)
            return self._channel.recv(self._patience_s)
        answer = self._channel.recv(self._patience_s)
        self._channel.send(data)
        return answer

    def advance(self, elements: int) -> None:
        """Report that so many more elements have gone out or come in."""
        self._done += elements
        if self._on_progress is not None:
            self._on_progress(self._done / self._total)


def in_rounds(
    session: Session,
    work: Callable[[slice], bytes],
    sent: int,
    received: int,
    size: int,
    overlaps: bool,
    *,
    tells: bool = True,
    hears: bool = True,
) -> tuple[memoryview, memoryview]:
    """Work on ``sent`` elements batch by batch and swap the results for ``received`` elements; return both.

    Args:
        tells: whether the results are sent; messages without content go in their place.
        hears: whether the other side sends its results; messages without content are expected in their place.
    """
    firsts = range(0, max(sent, received), BATCH)
    parts = [slice(min(first, sent), min(first + BATCH, sent)) for first in firsts]
    out, come = memoryview(bytearray(size * sent)), memoryview(bytearray(size * received if hears else 0))
    with contextlib.closing(_ahead(work, parts) if overlaps else _in_turn(work, parts)) as results:
        for first, part, result in zip(firsts, parts, results, strict=True):
            incoming = min(max(received - first, 0), BATCH)
            message = session.swap(result if tells else b"")
            if len(message) != (incoming * size if hears else 0):
                raise ProtocolFailed("the other side sent a batch of the wrong length")
            out[size * part.start : size * part.stop] = result
            come[size * first : size * first + len(message)] = message
            session.advance(incoming + part.stop - part.start)
    return out.toreadonly(), come.toreadonly()


def _in_turn(work: Callable[[slice], bytes], parts: Iterable[slice]) -> Generator[bytes, None, None]:
    for part in parts:
        yield work(part)


def _ahead(work: Callable[[slice], bytes], parts: Iterable[slice]) -> Generator[bytes, None, None]:
    """Yield the results in order; while the caller uses one, the next is computed."""
    with ThreadPoolExecutor(1, "psi") as pool:
        waiting: deque[Future[bytes]] = deque()
        for part in parts:
            waiting.append(pool.submit(work, part))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def header(terms: Terms, engine: str, bucket: Bucket = EVERYTHING, learner: Role | None = None) -> bytes:
    """Return what the two sides compare before anything else; it shows nothing of the salt."""
    return tagged("psi-terms", json.dumps(terms.agreement(engine, bucket, learner), sort_keys=True).encode("ascii"))


def _check_fresh(mine: Names, theirs: Names) -> None:
    """Check that the other side sent every element once, and none of ours."""
    leading = np.sort(np.concatenate([mine[:, 0], theirs[:, 0]]))
    if not bool((leading[1:] == leading[:-1]).any()):
        return
    one, _ = _equal(np.concatenate([mine, theirs]))
    if bool((one >= len(mine)).any()):
        raise ProtocolFailed("the other side sent a blinded key twice")
    if len(one):
        raise ProtocolFailed("the other side sent our own elements back")


def _common(back: Names, twice_theirs: Names) -> Positions:
    """Return, in any order, which of our elements that came back are among the other side's."""
    one, other = _equal(np.concatenate([back, twice_theirs]))
    if bool((other < len(back)).any()):
        raise ProtocolFailed("the other side sent a key blinded twice twice")
    return one[one < len(back)]


def _equal(names: Names) -> tuple[Positions, Positions]:
    """Return the positions of neighbours that are equal when the names are sorted, the lower position first."""
    order = np.argsort(names[:, 0])
    leading = names[order, 0]
    after = np.flatnonzero(leading[1:] == leading[:-1]) + 1
    one, other = order[after - 1], order[after]
    if bool((names[one] != names[other]).any()) or bool((np.diff(after) == 1).any()):
        # Of more than two with one first word: sorted by all words, equal ones in the order they came in.
        order = np.lexsort(names.T)
        after = np.flatnonzero((names[order[1:]] == names[order[:-1]]).all(axis=1)) + 1
        one, other = order[after - 1], order[after]
    return np.minimum(one, other), np.maximum(one, other)
