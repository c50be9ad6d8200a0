"""Private set intersection with the RR22 protocol, run by the ``spu`` library in a child process.

    left child                                right child
    terms, sizes    <------ compared ------>  terms, sizes
    oblivious key-value store, VOLE <------>  (spu, fast mode)
    result          <------ broadcast ----->  result                  where both learn; else at the learner only
    count, checksum <------ compared ------>  count, checksum         where both learn; else nothing but "done"

Source:   Raghuraman and Rindal, "Blazing fast PSI from improved OKVS and subfield VOLE", CCS 2022.
Security: semi-honest parties. The library sees 128-bit digests in place of keys (``keys``); nothing else of a row
          enters its process or its files. It compares keys by codes just long enough that a bucket has a wrong match
          with a chance of 2^-40. Where both learn, the comparison at the end finds that, and any row that one side
          lost or invented. Where one learns nobody can compare: such a row stays wrong at the learner.
          How many rows the other side's library really brought is what that side says.
Reveals:  to both sides: the size of both sets, the number of buckets and their padded size. To whoever learns: which
          of *their* keys both have. A party that may choose its keys can so ask about those keys. Nothing of a side's
          order of input: the library tells one side the other's row numbers, so rows go in shuffled.
Units:    seconds.
Errors:   ``InvalidSpec`` for digests that break the contract, ``Unavailable`` without the library, ``PartyFailed`` if
          the terms differ or the other side goes away, ``ProtocolFailed`` if the results of the two sides disagree
          or the engine aborts, ``DeadlinePassed``, ``Cancelled``. Never a partial answer.
Not here: sockets to the other side, consent, retries (the caller may repeat a bucket at most twice, under the same
          commitment).

Fences around the library, each for a defect seen: the fast mode only (the low-communication mode loses rows) and no
other protocol (KKRT invents rows on duplicates); duplicates and nulls refused before; no empty file (it hangs the
peer); a barrier right after connecting (the first exchange hangs now and then without one); no alignment by the
library (slower than ours); no cutting by the library (its parts are not padded: their sizes would tell the other side
something of the keys); one random row more than agreed on each side (the library sends a plain hash of all keys to
compare inputs, from which a set of one or two keys could be guessed); a timeout from the number of rows; results
compared between the sides.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from sandbox.errors import ProtocolFailed
from sandbox.psi import table
from sandbox.psi.buckets import check_bucket, padded, padded_size
from sandbox.psi.contract import Bucket, Role, Terms
from sandbox.psi.keys import Digests, Positions, order, shuffled
from sandbox.workspace import Workspace, run_child
from sandbox.workspace.engines import spu_directory

ENGINE = "rr22-fast/2"
_CHILD = "sandbox.psi.rr22_child"


def intersect(
    digests: Digests,
    role: Role,
    terms: Terms,
    bucket: Bucket,
    workspace: Workspace,
    *,
    peer: str,
    deadline_s: float,
    learner: Role | None = None,
    on_progress: Callable[[float], None] | None = None,
    stop: threading.Event | None = None,
    patience_s: float | None = None,
) -> Positions:
    """Return the positions of the common keys in ``digests``, as ``contract`` says.

    Args:
        workspace: for one bucket at a time.
        peer: name of the other party in ``workspace``.
        on_progress: told 1.0 at the end; the library does not say how far it is.
        patience_s: how long the engine waits for one message; by default by the number of rows.
    """
    check_bucket(digests, role, terms, bucket)
    package = spu_directory(compiler=False)
    sizes = [_brought(terms.rows(side), bucket) for side in (Role.LEFT, Role.RIGHT)]
    places = shuffled(sizes[role.value])
    rows = padded(digests, sizes[role.value]).take(places, axis=0)
    source, target = workspace.path / "in.csv", workspace.path / "out.csv"
    before = set(workspace.path.iterdir())
    hosts = [f"unix:{workspace.own_socket}", f"unix:{workspace.peer_socket(peer)}"]
    try:
        table.write(source, rows)
        outcome = run_child(
            _CHILD,
            {
                "package": package,
                "peer": peer,
                "rank": role.value,
                "learner": None if learner is None else learner.value,
                "hosts": hosts if role is Role.LEFT else hosts[::-1],
                "source": str(source),
                "target": str(target),
                "sizes": sizes,
                "agreement": terms.agreement(ENGINE, bucket, learner),
                "patience_ms": int(1000 * (patience_s if patience_s is not None else 20 + 5e-5 * sum(sizes))),
            },
            workspace,
            deadline_s,
            stop=stop,
        )
        matched = table.read(target, rows) if outcome.values["count"] else np.empty(0, np.int64)
    finally:
        _remove(set(workspace.path.iterdir()) - before)
    if len(matched) != outcome.values["count"]:
        raise ProtocolFailed("the engine's file and its report differ in the number of rows", party=peer)
    hits = places[matched]
    if bool((hits >= len(digests)).any()):
        raise ProtocolFailed("the engine matched a random row", party=peer)
    if on_progress is not None:
        on_progress(1.0)
    positions: Positions = hits[order(digests.take(hits, axis=0))]
    return positions


def _brought(rows: int, bucket: Bucket) -> int:
    """Return how many rows a side of ``rows`` brings into a bucket: as agreed, and one that nobody can guess."""
    return padded_size(rows, bucket.of) + 1 if rows else 0


def _remove(paths: Iterable[Path]) -> None:
    """Remove a bucket's files now, not at the end of the job: they, and the library's own copies, hold digests."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)  # a killed helper may still write; the workspace's end is strict
        else:
            path.unlink(missing_ok=True)
