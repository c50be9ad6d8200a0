"""Private set intersection from commutative encryption on Curve25519, over a channel: runs on every machine.

    left                                      right
    header             <---- compared ---->   header
    a H(x), shuffled   -------------------->
                       <--------------------  b H(y), shuffled         both sets are fixed from here on
    a b H(y), in the order received  ------>
                       <--------------------  b a H(x), in the order received
    match              <---- compared ---->   match                    number and digest of the result

Source:   C. Meadows, IEEE S&P 1986; Huberman, Franklin and Hogg, EC 1999. Group and scalar multiplication as in
          RFC 7748 (X25519). Digests: SM3.
Security: semi-honest parties; decisional Diffie-Hellman in the group, H a random oracle. The group: X25519 maps a
          u-coordinate to the u-coordinate of k times the point, so an element is a point up to sign. A 32-byte hash
          taken as it is would lie on the curve or, just as often, on its quadratic twist; both have near-prime order
          (8 and 4 times a prime, and clamped scalars are multiples of 8), but *which* of the two is preserved by k,
          so that one bit of every hash would show through. So H repeats with a counter until u lies on the curve.
          Elements then stay in its prime-order subgroup. All-zero outputs (small order) are refused.
Reveals:  to both sides: the size of both sets, and which of *their* keys both have. A party that may choose its keys
          can so ask about those keys. Nothing of a side's order of input: elements are shuffled under the system's
          random source before they are sent.
Shapes:   elements are 32 bytes, in messages of exactly ``BATCH`` but for the last.
Errors:   ``InvalidSpec`` for keys that break the contract; ``PartyFailed`` if the terms differ; ``ProtocolFailed``
          on a wrong length, a repeated, reflected, small or non-canonical element, or results that disagree.
          Never a partial answer.
Not here: transport, buckets (everything is streamed; memory is about 200 bytes a key).

One thread: ``cryptography`` holds the interpreter's lock during X25519 (measured: two threads are slower than one).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from sandbox.crypto.sm3 import sm3, tagged
from sandbox.errors import Cancelled, InvalidSpec, PartyFailed, ProtocolFailed
from sandbox.psi.contract import Role, Terms
from sandbox.psi.keys import Positions, check_unique, digest, order
from sandbox.workspace import Channel

ENGINE: Final = "ecdh-x25519/1"
BATCH: Final = 4096
_SIZE: Final = 32  # bytes an element
_PRIME: Final = 2**255 - 19
_DOMAIN: Final = b"sandbox/v1/psi-x25519\0"
# 3 microseconds a symbol instead of 116 for the exponentiation, where the library is installed; the result is the same.
_JACOBI: Final = importlib.import_module("gmpy2").jacobi if importlib.util.find_spec("gmpy2") else None


def intersect(
    keys: pa.Array,
    role: Role,
    terms: Terms,
    channel: Channel,
    *,
    patience_s: float = 60.0,
    on_progress: Callable[[float], None] | None = None,
    stop: threading.Event | None = None,
) -> Positions:
    """Return the positions of the common keys in ``keys``, as ``contract`` says.

    Args:
        patience_s: how long to wait for one message.
    """
    digests = digest(keys, terms.salt)
    check_unique(digests)
    if len(digests) != terms.rows(role):
        raise InvalidSpec("the keys are not as many as the terms say")
    session = _Session(role, channel, patience_s, on_progress, stop, terms.left_rows + terms.right_rows)
    if session.swap(_header(terms)) != _header(terms):
        raise PartyFailed("the other side works on different terms")
    others = terms.rows(Role.RIGHT if role is Role.LEFT else Role.LEFT)
    if not len(digests) or not others:
        return np.empty(0, np.int64)

    secret = X25519PrivateKey.generate()
    shuffle = np.argsort(np.frombuffer(os.urandom(8 * len(digests)), np.uint64)).astype(np.int64)
    texts = keys.take(pa.array(shuffle)).to_pylist()
    mine: list[bytes] = []
    theirs: list[bytes] = []
    for count, batch in session.rounds(len(texts), others):
        blinded = [_multiply(secret, hash_to_curve(text.encode("utf-8"), terms.salt)) for text in texts[batch]]
        mine += blinded
        theirs += _elements(session.swap(b"".join(blinded)), count)
    _refuse_repeats(theirs, "a blinded key")
    if not set(mine).isdisjoint(theirs):
        raise ProtocolFailed("the other side sent our own elements back")

    twice_theirs: list[bytes] = []
    twice_mine: list[bytes] = []
    # Seen from here the roles are exchanged: we send as many as they have, and get back as many as we have.
    for count, batch in session.rounds(others, len(texts)):
        again = [_multiply(secret, element) for element in theirs[batch]]
        twice_theirs += again
        twice_mine += _elements(session.swap(b"".join(again)), count)
    _refuse_repeats(twice_mine, "a key blinded twice")
    common = set(twice_theirs)
    hits = shuffle[[number for number, element in enumerate(twice_mine) if element in common]]
    positions = hits[order(digests[hits])]
    result = len(positions).to_bytes(8, "big") + sm3(digests[positions].astype("<u8").tobytes())
    if session.swap(result) != result:
        raise ProtocolFailed("the two sides found different intersections")
    return positions


def hash_to_curve(key: bytes, salt: bytes) -> bytes:
    """Return the u-coordinate of a point of the curve (not of its twist) that depends on ``key`` and ``salt`` only."""
    seed = _DOMAIN + len(salt).to_bytes(2, "big") + salt + key
    counter = 0
    while True:  # two attempts on average; more than 100 has chance 2^-100
        u = int.from_bytes(sm3(counter.to_bytes(4, "big") + seed), "little") % 2**255
        if u < _PRIME and _is_square(u * (u * (u + 486662) + 1) % _PRIME):
            return u.to_bytes(_SIZE, "little")
        counter += 1


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

    def rounds(self, sent: int, received: int) -> Iterator[tuple[int, slice]]:
        """Yield, for each round, how many elements come in and which of ours go out."""
        for first in range(0, max(sent, received), BATCH):
            outgoing, incoming = (min(max(total - first, 0), BATCH) for total in (sent, received))
            yield incoming, slice(first, first + outgoing)
            self._done += outgoing + incoming
            if self._on_progress is not None:
                self._on_progress(self._done / self._total)


def _header(terms: Terms) -> bytes:
    return tagged("psi-terms", json.dumps(terms.agreement(ENGINE), sort_keys=True).encode("ascii"))


def _multiply(secret: X25519PrivateKey, element: bytes) -> bytes:
    try:
        return secret.exchange(X25519PublicKey.from_public_bytes(element))
    except ValueError as error:  # the library refuses an all-zero result
        raise ProtocolFailed("the other side sent a point of small order") from error


def _elements(message: bytes, count: int) -> Sequence[bytes]:
    """Return the ``count`` elements of a message.

    Raises:
        ProtocolFailed: the length is another, or an element has a second spelling (which would hide a repetition).
    """
    if len(message) != count * _SIZE:
        raise ProtocolFailed("the other side sent a batch of the wrong length")
    parts = [message[place : place + _SIZE] for place in range(0, len(message), _SIZE)]
    if any(part[31] >= 0x7F and int.from_bytes(part, "little") >= _PRIME for part in parts):
        raise ProtocolFailed("the other side sent an element that is not canonical")
    return parts


def _refuse_repeats(elements: Sequence[bytes], what: str) -> None:
    if len(set(elements)) != len(elements):
        raise ProtocolFailed(f"the other side sent {what} twice")


def _is_square(value: int) -> bool:
    """Return whether ``value`` is a non-zero square modulo the field's prime."""
    if _JACOBI is not None:
        return bool(_JACOBI(value, _PRIME) == 1)
    return pow(value, (_PRIME - 1) // 2, _PRIME) == 1
