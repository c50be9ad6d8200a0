"""Private set intersection with the RR22 protocol, run by the ``spu`` library in a child process.

    left child                                right child
    terms, sizes    <------ compared ------>  terms, sizes
    oblivious key-value store, VOLE <------>  (spu, fast mode)
    result          <------ broadcast ----->  result
    count, checksum <------ compared ------>  count, checksum

Source:   Raghuraman and Rindal, "Blazing fast PSI from improved OKVS and subfield VOLE", CCS 2022.
Security: semi-honest parties. The library sees 128-bit digests in place of keys (``keys``); nothing else of a row
          enters its process or its files.
Reveals:  to both sides: the size of both sets, the number of buckets and their padded size, and which of *their*
          keys both have. A party that may choose its keys can so ask about those keys.
Units:    seconds.
Errors:   ``InvalidSpec`` for keys that break the contract, ``Unavailable`` without the library, ``PartyFailed`` if
          the terms differ or the other side goes away, ``ProtocolFailed`` if the results of the two sides disagree
          or the engine aborts, ``DeadlinePassed``, ``Cancelled``. Never a partial answer.
Not here: sockets to the other side, consent, retries (the caller may repeat a bucket at most twice, under the same
          commitment).

Fences around the library, each for a defect seen: the fast mode only (the low-communication mode loses rows) and no
other protocol (KKRT invents rows on duplicates); duplicates and nulls refused before; no empty file (it hangs the
peer); a barrier right after connecting (the first exchange hangs now and then without one); no alignment by the
library (slower than ours); a timeout from the number of rows; results compared between the sides.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sandbox.errors import InvalidSpec, ProtocolFailed
from sandbox.psi import table
from sandbox.psi.buckets import padded_size, plan_buckets, split_digests
from sandbox.psi.contract import Role, Terms
from sandbox.psi.keys import Digests, Positions, check_unique, digest, order
from sandbox.workspace import Workspace, run_child
from sandbox.workspace.engines import spu_directory

ENGINE = "rr22-fast/1"
_CHILD = "sandbox.psi.rr22_child"


def intersect(
    keys: pa.Array,
    role: Role,
    terms: Terms,
    workspace: Workspace,
    *,
    peer: str,
    deadline_s: float,
    on_progress: Callable[[float], None] | None = None,
    stop: threading.Event | None = None,
    patience_s: float | None = None,
) -> Positions:
    """Return the positions of the common keys in ``keys``, as ``contract`` says.

    Args:
        peer: name of the other party in ``workspace``.
        deadline_s: for each bucket.
        on_progress: called after each bucket with the fraction done.
        patience_s: how long the engine waits for one message; by default by the number of rows.
    """
    digests = digest(keys, terms.salt)
    check_unique(digests)
    if len(digests) != terms.rows(role):
        raise InvalidSpec("the keys are not as many as the terms say")
    buckets = plan_buckets(terms.left_rows, terms.right_rows)
    found: list[Positions] = []
    for number, places in enumerate(split_digests(digests, buckets)):
        matched = intersect_bucket(
            digests[places],
            role,
            terms,
            workspace,
            peer=peer,
            bucket=number,
            buckets=buckets,
            deadline_s=deadline_s,
            stop=stop,
            patience_s=patience_s,
        )
        found.append(places[matched])
        if on_progress is not None:
            on_progress((number + 1) / buckets)
    positions = np.concatenate(found)
    return positions[order(digests[positions])]


def intersect_bucket(
    digests: Digests,
    role: Role,
    terms: Terms,
    workspace: Workspace,
    *,
    peer: str,
    bucket: int,
    buckets: int,
    deadline_s: float,
    stop: threading.Event | None = None,
    patience_s: float | None = None,
) -> Positions:
    """Return the positions of the common keys of one bucket, in no particular order; one child process."""
    package = spu_directory(compiler=False)
    padded = _padded(digests, padded_size(terms.rows(role), buckets))
    source, target = workspace.path / f"in-{bucket}.csv", workspace.path / f"out-{bucket}.csv"
    hosts = [f"unix:{workspace.own_socket}", f"unix:{workspace.peer_socket(peer)}"]
    rows = terms.left_rows + terms.right_rows
    try:
        table.write(source, padded)
        outcome = run_child(
            _CHILD,
            {
                "package": package,
                "peer": peer,
                "rank": role.value,
                "hosts": hosts if role is Role.LEFT else hosts[::-1],
                "source": str(source),
                "target": str(target),
                "rows": len(padded),
                "most": _most(terms.rows(Role.RIGHT if role is Role.LEFT else Role.LEFT), buckets),
                "agreement": terms.agreement(ENGINE, bucket, buckets),
                "patience_ms": int(1000 * (patience_s if patience_s is not None else 20 + 5e-5 * rows)),
            },
            workspace,
            deadline_s,
            stop=stop,
        )
        matched = table.read(target, padded) if outcome.values["count"] else np.empty(0, np.int64)
    finally:
        _remove(workspace.path, f"in-{bucket}.csv", f"out-{bucket}.csv")
    if len(matched) != outcome.values["count"]:
        raise ProtocolFailed("the engine's file and its report differ in the number of rows", party=peer)
    if bool((matched >= len(digests)).any()):
        raise ProtocolFailed("the engine matched a padding row", party=peer)
    return matched


def _most(rows: int, buckets: int) -> int:
    """Return how many of its ``rows`` the other side may bring into one bucket; a cut may be a little uneven."""
    size = padded_size(rows, buckets)
    return size if buckets == 1 else size + size // 10 + 1000


def _padded(digests: Digests, size: int) -> Digests:
    """Return ``digests`` filled up to ``size`` with random ones, which match nothing (chance below 2^-80)."""
    missing = size - len(digests)
    if missing <= 0:
        return digests
    noise: NDArray[np.uint64] = np.frombuffer(secrets.token_bytes(16 * missing), np.uint64).reshape(-1, 2)
    return np.concatenate([digests, noise])


def _remove(folder: Path, *stems: str) -> None:
    """Remove a bucket's files now, not at the end of the job: they hold digests of keys."""
    for stem in stems:
        for path in folder.glob(stem + "*"):
            path.unlink(missing_ok=True)
