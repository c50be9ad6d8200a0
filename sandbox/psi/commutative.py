"""Private set intersection from commutative encryption, over a channel, in whichever group it is given.

    left                                      right
    header             <---- compared ---->   header
    a H(x), shuffled   -------------------->
                       <--------------------  b H(y), shuffled         both sets are fixed from here on
    a b H(y), in the order received  ------>
                       <--------------------  b a H(x), in the order received
    match              <---- compared ---->   match                    number and digest of the result

Source:   C. Meadows, IEEE S&P 1986; Huberman, Franklin and Hogg, EC 1999.
Security: semi-honest parties; decisional Diffie-Hellman in the group, H a random oracle. What a group has to check is
          said there.
Reveals:  to both sides: the size of both sets, and which of *their* keys both have. A party that may choose its keys
          can so ask about those keys. Nothing of a side's order of input: elements are shuffled under the system's
          random source before they are sent.
Shapes:   elements of a fixed size, in messages of exactly ``BATCH`` elements but for the last.
Errors:   ``InvalidSpec`` for keys that break the contract; ``PartyFailed`` if the terms differ; ``ProtocolFailed``
          on a wrong length, a repeated, reflected or invalid element, or results that disagree. Never a partial answer.
Not here: transport, buckets (everything is streamed; memory is about 200 bytes a key).
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sandbox.crypto.sm3 import sm3, tagged
from sandbox.errors import Cancelled, InvalidSpec, PartyFailed, ProtocolFailed
from sandbox.psi.contract import Role, Terms
from sandbox.psi.keys import Positions, check_unique, digest, order
from sandbox.workspace import Channel

BATCH: Final = 4096


class Group(Protocol):
    """A group with one secret of this run. Elements are bytes, one after another."""

    engine: str  # the name both sides compare
    element: int  # bytes of an element
    echo: int  # bytes kept of an element that both secrets went into
    overlaps: bool  # whether computing leaves the interpreter's lock, so that it can go on while a message travels

    def blind(self, keys: pa.Array) -> bytes:
        """Return the elements of ``keys``, a string array, under the secret."""
        ...

    def again(self, elements: bytes) -> bytes:
        """Return the other side's elements under the secret, cut to ``echo`` bytes.

        Raises:
            ProtocolFailed: one of them is not an element.
        """
        ...

    def names(self, elements: bytes) -> pa.Array:
        """Return one fixed-size name an element; equal names give equal echoes.

        Raises:
            ProtocolFailed: an element is spelled in a way that hides which one it is.
        """
        ...

    def check_echo(self, echo: bytes) -> None:
        """Check what came back.

        Raises:
            ProtocolFailed: it is spelled in a way that hides a repetition.
        """
        ...


def exchange(
    group: Group,
    keys: pa.Array,
    role: Role,
    terms: Terms,
    channel: Channel,
    *,
    patience_s: float,
    on_progress: Callable[[float], None] | None,
    stop: threading.Event | None,
) -> Positions:
    """Return the positions of the common keys in ``keys``, as ``contract`` says."""
    digests = digest(keys, terms.salt)
    check_unique(digests)
    if len(digests) != terms.rows(role):
        raise InvalidSpec("the keys are not as many as the terms say")
    session = _Session(role, channel, patience_s, on_progress, stop, terms.left_rows + terms.right_rows)
    header = _header(terms, group.engine)
    if session.swap(header) != header:
        raise PartyFailed("the other side works on different terms")
    others = terms.rows(Role.RIGHT if role is Role.LEFT else Role.LEFT)
    if not len(digests) or not others:
        return np.empty(0, np.int64)

    shuffle = np.argsort(np.frombuffer(os.urandom(8 * len(digests)), np.uint64)).astype(np.int64)
    shuffled = keys.take(pa.array(shuffle))
    if isinstance(shuffled, pa.ChunkedArray):
        shuffled = shuffled.combine_chunks()

    mine, theirs = _round(
        session, lambda part: group.blind(shuffled[part]), len(digests), others, group.element, group.overlaps
    )
    names = group.names(theirs)
    _refuse_repeats(names, "a blinded key")
    if pc.any(pc.is_in(names, value_set=group.names(mine))).as_py():
        raise ProtocolFailed("the other side sent our own elements back")
    del mine, names

    # Seen from here the roles are exchanged: we send as many as they have, and get back as many as we have.
    received = memoryview(theirs)
    twice_theirs, twice_mine = _round(
        session,
        lambda part: group.again(bytes(received[group.element * part.start : group.element * part.stop])),
        others,
        len(digests),
        group.echo,
        group.overlaps,
    )
    group.check_echo(twice_mine)
    back = fixed(twice_mine, group.echo)
    _refuse_repeats(back, "a key blinded twice")
    common = pc.is_in(back, value_set=fixed(twice_theirs, group.echo)).to_numpy(zero_copy_only=False)
    hits = shuffle[np.flatnonzero(common)]
    positions: Positions = hits[order(digests[hits])]
    result = len(positions).to_bytes(8, "big") + sm3(digests[positions].astype("<u8").tobytes())
    if session.swap(result) != result:
        raise ProtocolFailed("the two sides found different intersections")
    return positions


def fixed(data: bytes, size: int) -> pa.Array:
    """Return bytes as an array of ``size`` bytes each, without copying them."""
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(size), len(data) // size, [None, pa.py_buffer(data)])


class _Session:
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


def _round(
    session: _Session, work: Callable[[slice], bytes], sent: int, received: int, size: int, overlaps: bool
) -> tuple[bytes, bytes]:
    """Work on ``sent`` elements batch by batch and swap the results for ``received`` elements; return both."""
    firsts = range(0, max(sent, received), BATCH)
    parts = [slice(min(first, sent), min(first + BATCH, sent)) for first in firsts]
    out, come = bytearray(), bytearray()
    with contextlib.closing(_ahead(work, parts) if overlaps else _in_turn(work, parts)) as results:
        for first, part, result in zip(firsts, parts, results, strict=True):
            incoming = min(max(received - first, 0), BATCH)
            message = session.swap(result)
            if len(message) != incoming * size:
                raise ProtocolFailed("the other side sent a batch of the wrong length")
            out += result
            come += message
            session.advance(incoming + part.stop - part.start)
    return bytes(out), bytes(come)


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


def _header(terms: Terms, engine: str) -> bytes:
    return tagged("psi-terms", json.dumps(terms.agreement(engine), sort_keys=True).encode("ascii"))


def _refuse_repeats(names: pa.Array, what: str) -> None:
    if pc.count_distinct(names).as_py() != len(names):
        raise ProtocolFailed(f"the other side sent {what} twice")
