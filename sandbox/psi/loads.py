"""What right attached to the keys both have, handed to left without left learning which keys those are.

    left                                      right
    header, a H(x), b H(y), b a H(x): the matching of ``counting``; the header also holds load size and minimum
    go | stop          -------------------->                           stop if fewer than the minimum are common
                       <--------------------  load of y, one for *every* y, in the sequence of b H(y)
    done               -------------------->

A load is opaque and of one size: a ciphertext, under a key that left does not have, made by the caller.

Source:   Ion et al., "Private Intersection-Sum Protocols with Applications to Attributing Aggregate Ad Conversions",
          EuroS&P 2020 (first as ePrint 2017/738), the variant from decisional Diffie-Hellman. There left adds up the
          loads it takes, re-randomises the sum and returns it for decryption: the caller's part here.
Security: as in ``counting``, semi-honest, and a load must look the same whatever is in it: encrypted afresh for this
          run, with randomness, under a semantically secure scheme. A load that is seen again in another run, or whose
          size depends on its content, says which row it is.
          Left knows which loads are common, not whose they are: right's sequence was drawn from the system's random
          source for this run, and its own elements came back in an order without any trace of theirs.
          Right sends all loads in any case. In what left sends there is no sign of the ones taken: its messages here
          are empty, one for each batch, whatever the batch held. *Their timing is one*: ``take`` runs between them, so
          who watches the intervals may estimate how many of a batch were common. Batches are in right's random
          sequence, so this is noise about the size, not about rows; a caller to whom that matters lets ``take`` only
          put the loads aside.
          A left that departs from the protocol can go on below the minimum, or take fewer loads than are common: the
          minimum binds an honest left, and what is decrypted in the end is for the gate of right's owner to decide.
Reveals:  to left: how many keys both have (also when they are too few), right's row count, and the loads of the common
          ones, in a random sequence. To right: left's row count, and whether the minimum was reached.
Shapes:   ``load_size`` bytes a load; in a message as many as fit ``MESSAGE`` bytes, at least one.
Errors:   as in ``counting``; ``OutputWithheld``, in the same words at both sides, where fewer than the minimum are
          common: no load is made or sent then. If a side has fewer rows than that, nothing but the header is.
Not here: encryption, sums, masks, re-randomisation, decryption. Neither side ever holds all loads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from sandbox.errors import InvalidSpec, OutputWithheld, ProtocolFailed
from sandbox.psi.commutative import Session, header
from sandbox.psi.contract import Role, Terms
from sandbox.psi.counting import DONE, begin, exactly, find, offer
from sandbox.psi.keys import Digests, Positions
from sandbox.workspace import Channel

ENGINE: Final = "loads-sm2/1"
MESSAGE: Final = 1 << 20  # bytes of loads in a message
_GO, _STOP = b"go  ", b"stop"
_WITHHELD: Final = "the intersection has fewer rows than the minimum both sides agreed on"


def collect_loads(
    digests: Digests,
    terms: Terms,
    channel: Channel,
    *,
    load_size: int,
    minimum: int,
    take: Callable[[bytes], None],
    on_progress: Callable[[float], None] | None = None,
    stop: threading.Event | None = None,
    patience_s: float = 60.0,
    scratch: Path | None = None,
    threads: int = 1,
) -> int:
    """Return, at the left side, the size of the intersection, after ``take`` was given the loads of it.

    Args:
        minimum: the fewest common keys for which any load is sent; at least 1.
        take: given one or more loads at a time, one after another.

    Raises:
        OutputWithheld: fewer are common.
    """
    agreed = _agreed(terms, load_size, minimum)
    session = Session(Role.LEFT, channel, patience_s, on_progress, stop, 2 * (terms.left_rows + terms.right_rows))
    if _hopeless(terms, minimum):
        begin(digests, terms.left_rows, session, agreed)
        raise OutputWithheld(_WITHHELD)
    common = find(digests, terms, session, agreed, scratch, threads)
    size = int(common.sum())
    exactly(session.swap(_GO if size >= minimum else _STOP), 0)
    if size < minimum:
        raise OutputWithheld(_WITHHELD)
    each = max(MESSAGE // load_size, 1)
    for first in range(0, len(common), each):
        wanted = common[first : first + each]
        loads = np.frombuffer(exactly(session.swap(b""), load_size * len(wanted)), np.uint8).reshape(-1, load_size)
        if bool(wanted.any()):
            take(loads[wanted].tobytes())
        session.advance(2 * len(wanted))
    exactly(session.swap(DONE), 0)
    return size


def send_loads(
    digests: Digests,
    terms: Terms,
    channel: Channel,
    *,
    load_size: int,
    minimum: int,
    make: Callable[[Positions], bytes],
    on_progress: Callable[[float], None] | None = None,
    stop: threading.Event | None = None,
    patience_s: float = 60.0,
    scratch: Path | None = None,
    threads: int = 1,
) -> None:
    """Take part at the right side, sending what ``make`` returns.

    Args:
        minimum: as at the left side; the two are compared.
        make: returns the loads of some positions in ``digests``, one after another in the sequence asked for; asked
            once for every position, in the random sequence of this run.

    Raises:
        OutputWithheld: fewer keys than the minimum are common; ``make`` was not called.
    """
    agreed = _agreed(terms, load_size, minimum)
    session = Session(Role.RIGHT, channel, patience_s, on_progress, stop, 2 * (terms.left_rows + terms.right_rows))
    if _hopeless(terms, minimum):
        begin(digests, terms.right_rows, session, agreed)
        raise OutputWithheld(_WITHHELD)
    sequence = offer(digests, terms, session, agreed, scratch, threads)
    verdict = session.swap(b"")
    if verdict == _STOP:
        raise OutputWithheld(_WITHHELD)
    if verdict != _GO:
        raise ProtocolFailed("the other side did not say whether to go on")
    each = max(MESSAGE // load_size, 1)
    for first in range(0, len(sequence), each):
        asked = sequence[first : first + each]
        loads = make(asked)
        if len(loads) != load_size * len(asked):
            raise InvalidSpec("the loads made for an intersection are not of the size agreed on")
        exactly(session.swap(loads), 0)
        session.advance(2 * len(asked))
    if session.swap(b"") != DONE:
        raise ProtocolFailed("the other side did not end as agreed")


def _agreed(terms: Terms, load_size: int, minimum: int) -> bytes:
    if not 1 <= load_size <= MESSAGE:
        raise InvalidSpec(f"a load is 1 to {MESSAGE} bytes")
    if minimum < 1:
        raise InvalidSpec("the minimum of an intersection with loads is at least 1")
    return header(terms, f"{ENGINE} of {load_size} bytes, at least {minimum} common")


def _hopeless(terms: Terms, minimum: int) -> bool:
    """Return whether both sides can tell from the row counts that too few will be common."""
    return min(terms.left_rows, terms.right_rows) < minimum
