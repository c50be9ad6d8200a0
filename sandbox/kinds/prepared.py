"""A small set against a large one that is prepared once: the part of ``psi`` for lopsided sizes.

    left                                   right
    which preparation it holds  ------->   the same one: go on; else: make one, keep its secret
                                <-------   the names, if left lacks them; both cache
    query                       <------>   answer                             ``psi.prepared``

A preparation belongs to one scenario, one pair of nodes and one version of right's dataset.
"""

from __future__ import annotations

import os
from typing import Final

import numpy as np

from sandbox.crypto import sm2curve
from sandbox.crypto.sm3 import tagged
from sandbox.errors import IntegrityFailed, InvalidSpec, ProtocolFailed
from sandbox.kinds.alignment import digests_of
from sandbox.kinds.kind import Task, blaming
from sandbox.model import Environment, PartyRole
from sandbox.psi import prepared
from sandbox.psi.keys import Positions
from sandbox.psi.prepared import Preparation

_PIECE: Final = 4 << 20  # bytes in a message
_KNOWN: Final = b"known"


def find(task: Task) -> Positions:
    """Return, at the left side, the rows that the right has too; empty at the right."""
    left, right = task.party(PartyRole.LEFT), task.party(PartyRole.RIGHT)
    source = next(party.content_hash for party in task.plan.parties if party.node_id == right)
    name = cache_name(left, right, task.plan.scenario_digest, source)
    return _ask(task, right, name, source) if task.me == left else _tell(task, left, name, source)


def _held(task: Task, name: str) -> bytes:
    """Return what is kept; in the test environment nothing is, so that tests push nothing out of its place."""
    return task.cached(name) if task.plan.environment is Environment.PRODUCTION else b""


def _keep(task: Task, name: str, content: bytes, source: bytes) -> None:
    if task.plan.environment is Environment.PRODUCTION:
        task.cache(name, content, source)


def cache_name(left: str, right: str, scenario_digest: bytes, source: bytes) -> str:
    """Return under what name both sides keep a preparation; ``source`` is the content hash of right's dataset."""
    context = b"\0".join([left.encode(), right.encode(), scenario_digest, source, prepared.ENGINE.encode()])
    return tagged("prepared-set", context).hex()


def _ask(task: Task, right: str, name: str, source: bytes) -> Positions:
    held = _held(task, name)
    known = prepared.from_bytes(held) if held else None
    task.send(right, "prepared", known[0].identity if known else b"")
    size, content = task.receive(right, "prepared"), b""
    if size != _KNOWN:
        content = _take(task, right, int.from_bytes(size, "big"))
        known = _read(content, right)
    if known is None:
        raise ProtocolFailed("the other side says that a preparation is known here", party=right, stage="compute")
    preparation, names = known
    if preparation.rows != task.rows[right]:
        raise ProtocolFailed("a preparation of another number of rows than committed", party=right, stage="compute")
    if content:
        _keep(task, name, content, source)
    digests, rows = digests_of(task, preparation.salt)
    with blaming(right):
        found = prepared.query(
            digests,
            preparation,
            names,
            task.channel(right),
            plan=bytes.fromhex(task.plan.job_id),
            most=task.rows[task.me],
            stop=task.stopped(),
        )
    positions: Positions = rows[found]
    return positions


def _tell(task: Task, left: str, name: str, source: bytes) -> Positions:
    held = _held(task, name)
    asked = task.receive(left, "prepared")
    if held and asked == _opened(held)[1].identity:
        secret, preparation = _opened(held)
        task.send(left, "prepared", _KNOWN)
    else:
        secret, preparation, content = _prepare(task)
        _keep(task, name, secret + preparation.packed(), source)
        task.send(left, "prepared", len(content).to_bytes(8, "big"))
        for first in range(0, len(content), _PIECE):
            task.send(left, "prepared", content[first : first + _PIECE])
    with sm2curve.Scalar(secret) as scalar, blaming(left):
        prepared.answer(
            task.channel(left),
            scalar,
            task.rows[left],
            preparation=preparation,
            plan=bytes.fromhex(task.plan.job_id),
            stop=task.stopped(),
        )
    return np.empty(0, np.int64)


def _prepare(task: Task) -> tuple[bytes, Preparation, bytes]:
    identity, salt = os.urandom(prepared.ID_SIZE), os.urandom(prepared.SALT_SIZE)
    digests, _ = digests_of(task, salt)
    secret = _fresh()
    with sm2curve.Scalar(secret) as scalar:
        names = prepared.prepare(
            digests,
            scalar,
            prepared.domain_tag(identity, salt),
            threads=task.cores,
            on_progress=lambda done: task.progress(int(1000 * done), 1000),
            stop=task.stopped(),
        )
        preparation = prepared.describe(identity, salt, names, scalar)
    return secret, preparation, prepared.to_bytes(preparation, names)


def _opened(held: bytes) -> tuple[bytes, Preparation]:
    return held[: sm2curve.SCALAR_SIZE], prepared.unpacked(held[sm2curve.SCALAR_SIZE :])


def _fresh() -> bytes:
    """Return a scalar that can be kept sealed; the range is checked where it is used."""
    while True:
        value = os.urandom(sm2curve.SCALAR_SIZE)
        try:
            sm2curve.Scalar(value).close()
        except InvalidSpec:  # one attempt in 2^32
            continue
        return value


def _read(content: bytes, right: str) -> tuple[Preparation, memoryview]:
    """Read what came over the wire: if it is damaged, it is the other side's doing."""
    try:
        return prepared.from_bytes(content)
    except (IntegrityFailed, InvalidSpec) as error:
        raise ProtocolFailed(str(error), party=right, stage="compute") from None


def _take(task: Task, right: str, size: int) -> bytes:
    if size != prepared.HEAD_SIZE + prepared.NAME * task.rows[right]:
        raise ProtocolFailed("a preparation of an impossible size", party=right, stage="compute")
    content = bytearray()
    for first in range(0, size, _PIECE):
        content += task.receive(right, "prepared")
        if len(content) > first + _PIECE:
            break
    if len(content) != size:
        raise ProtocolFailed("a preparation of another size than announced", party=right, stage="compute")
    return bytes(content)
