"""Three parties train one logistic model on two parties' columns, under ABY3.

    labels' holder (0)         other holder (1)          helper (2)
    terms, program   <------------- compared ------------->
    shares of X_0, y, b  --->  shares of X_1  --->        (brings nothing)
    30 steps on shares: two matrix products and a sigmoid each
    share of w_0, w_1          share of w_0, w_1         share of w_0, w_1        nothing is opened

Source:   Mohassel and Rindal, "ABY3", CCS 2018, as in the library ``spu``; optimiser as in ``reference``.
Security: semi-honest, no two of the three together: any two of the three hold every input. 64-bit fixed point with
          18 fraction bits. Each side decorrelates its columns alone before sharing them (``reference``).
Reveals:  to all three: rows, number of columns of each side, the schedule. Nothing of rows, labels or weights. Who
          later gets all three shares of an output learns that output: the model's weights on one side's columns.
Shapes:   features ``(rows, columns)``, labels ``(rows,)`` of 0 and 1; rows in the order of the intersection.
Units:    seconds; bytes.
Errors:   ``Unavailable`` without the library, ``InvalidSpec`` for inputs that do not fit the terms, ``PartyFailed``
          if terms or programs differ or a party goes away, ``ProtocolFailed``, ``DeadlinePassed``, ``Cancelled``.
Not here: other protocols. SEMI2K lets its dealer see the data and CHEETAH is fifty times slower; neither is reachable.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from sandbox.crypto.sm3 import tagged
from sandbox.errors import InvalidSpec
from sandbox.mpc import shares
from sandbox.mpc.reference import Basis, Floats, Schedule, check_labels, log_odds, prepare
from sandbox.workspace import Workspace, run_child
from sandbox.workspace.engines import spu_directory

ENGINE = "aby3-logistic/1"
MAX_ROWS, MAX_COLUMNS = 1_000_000, 500
_TRAIN, _RECONSTRUCT = "sandbox.mpc.logistic_child", "sandbox.mpc.reconstruct_child"
_RECONSTRUCT_S = 60.0


class Rank(Enum):
    """What a party does; also its place in the protocol."""

    LABELS = 0  # holds the labels and some columns
    FEATURES = 1  # holds the other columns
    HELPER = 2  # only computes


@dataclass(frozen=True, slots=True)
class Terms:
    """What the three parties agreed on; compared before any input is shared."""

    plan: bytes  # digest of the admitted plan
    rows: int
    label_columns: int
    other_columns: int
    schedule: Schedule = Schedule()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        columns = (self.label_columns, self.other_columns)
        if not 2 <= self.rows <= MAX_ROWS or not all(1 <= count <= MAX_COLUMNS for count in columns):
            raise InvalidSpec("rows or columns of a joint training are out of range")

    def agreement(self) -> dict[str, object]:
        """Return the fields the parties compare."""
        return {
            "engine": ENGINE,
            "plan": self.plan.hex(),
            "rows": self.rows,
            "label_columns": self.label_columns,
            "other_columns": self.other_columns,
            "steps": self.schedule.steps,
            "l2": self.schedule.l2,
        }

    def digest(self) -> bytes:
        """Return the digest that stands in every share."""
        return tagged("mpc-terms", json.dumps(self.agreement(), sort_keys=True).encode("ascii"))


@dataclass(frozen=True, slots=True)
class Shares:
    """What one party holds after training. Nothing in it may leave before every owner has granted the release."""

    label_side: bytes = field(repr=False)  # share of (weights of the labels' holder, then the intercept)
    other_side: bytes = field(repr=False)  # share of the weights of the other holder
    basis: Basis | None = field(repr=False)  # this party's way back to its own columns; None for the helper
    peak_rss: int
    cpu_s: float
    wall_s: float


def train(
    rank: Rank,
    features: NDArray[np.floating] | None,
    labels: NDArray[np.generic] | None,
    terms: Terms,
    workspace: Workspace,
    *,
    peers: Mapping[Rank, str],
    deadline_s: float,
    on_progress: Callable[[float], None] | None = None,
    stop: threading.Event | None = None,
    patience_s: float | None = None,
) -> Shares:
    """Train as the party of ``rank``; the helper brings neither features nor labels.

    Args:
        peers: names of the two other parties in ``workspace``.
        patience_s: how long the engine waits for one message; by default by the number of rows.
    """
    spu_directory(compiler=True)
    inputs, basis = _inputs(rank, features, labels, terms)
    hosts = [f"unix:{workspace.own_socket if other is rank else workspace.peer_socket(peers[other])}" for other in Rank]
    paths = {name: workspace.path / f"{name}.npy" for name in inputs}
    outputs = {name: workspace.path / f"{name}.share" for name in ("label_side", "other_side")}
    try:
        for name, value in inputs.items():
            np.save(paths[name], value, allow_pickle=False)
        outcome = run_child(
            _TRAIN,
            {
                "rank": rank.value,
                "hosts": hosts,
                "rows": terms.rows,
                "label_columns": terms.label_columns,
                "other_columns": terms.other_columns,
                "steps": terms.schedule.steps,
                "l2": terms.schedule.l2,
                "rate": terms.schedule.rate(2),
                "inputs": {name: str(path) for name, path in paths.items()},
                "outputs": {name: str(path) for name, path in outputs.items()},
                "agreement": terms.agreement(),
                "digest": terms.digest().hex(),
                "patience_ms": int(1000 * (patience_s if patience_s is not None else 30 + 1e-4 * terms.rows)),
            },
            workspace,
            deadline_s,
            on_progress,
            stop,
        )
        mine = {name: path.read_bytes() for name, path in outputs.items()}
    finally:
        for path in (*paths.values(), *outputs.values()):
            path.unlink(missing_ok=True)
    return Shares(mine["label_side"], mine["other_side"], basis, outcome.peak_rss, outcome.cpu_s, outcome.wall_s)


def reconstruct(parts: Sequence[bytes], workspace: Workspace) -> Floats:
    """Return the vector that the three parties' shares of one output make; for its recipient only.

    The result is in the decorrelated basis: ``Shares.basis.restore`` of the owner of the columns turns it back.

    Raises:
        ProtocolFailed: the shares are not one from each party, belong to different jobs, or contradict each other.
    """
    package = spu_directory(compiler=False)
    shares.complete(parts)
    stem = f"open-{secrets.token_hex(4)}"
    paths = [workspace.path / f"{stem}-{number}" for number in range(len(parts))]
    try:
        for path, part in zip(paths, parts, strict=True):
            path.write_bytes(part)
        outcome = run_child(
            _RECONSTRUCT,
            {"package": package, "shares": [str(path) for path in paths], "limit": MAX_COLUMNS + 1},
            workspace,
            _RECONSTRUCT_S,
        )
    finally:
        for path in paths:
            path.unlink(missing_ok=True)
    return np.array(outcome.values["values"], np.float64)


def _inputs(
    rank: Rank, features: NDArray[np.floating] | None, labels: NDArray[np.generic] | None, terms: Terms
) -> tuple[dict[str, NDArray[np.float32]], Basis | None]:
    """Return what this party shares, and its way back."""
    if (features is None) != (rank is Rank.HELPER) or (labels is None) != (rank is not Rank.LABELS):
        raise InvalidSpec("this party brings other inputs than its rank says")
    if features is None:
        return {}, None
    columns = terms.label_columns if rank is Rank.LABELS else terms.other_columns
    matrix, basis = prepare(features)
    if matrix.shape != (terms.rows, columns):
        raise InvalidSpec("the features are not of the shape the terms say")
    if labels is None:
        return {"other_block": matrix.astype(np.float32)}, basis
    target = check_labels(labels)
    if len(target) != terms.rows:
        raise InvalidSpec("the labels are not as many as the terms say")
    return {
        "label_block": matrix.astype(np.float32),
        "y": target.astype(np.float32)[:, None],
        "start": np.array([[log_odds(target)]], np.float32),
    }, basis
