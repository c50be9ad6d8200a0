"""Totals where every contributor knows its own rows' groups: added up alone, masked, encrypted, added up together.

contributor                     aggregator                      key holder (the recipient's node)
a secret, one a pair  <------------------------------------->  a secret, one a pair
numbers of rows, masked  <------- everybody adds up -------->  numbers of rows in every group, joint
sums, masked, encrypted -->     adds up, re-randomises
                                after all grants: the sum  -->  decrypts; the masks have cancelled
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sandbox.errors import ProtocolFailed
from sandbox.kinds import cells, sealed
from sandbox.kinds.cells import Shape
from sandbox.kinds.counted import Counted
from sandbox.kinds.kind import Task
from sandbox.model import AggregateSpec, Plan
from sandbox.mpc.masks import SEED_SIZE, masks
from sandbox.mpc.packing import Layout
from sandbox.mpc.paillier import PrivateKey
from sandbox.mpc.slots import add


def compute(task: Task, spec: AggregateSpec, shape: Shape) -> Counted:
    """Leave the encrypted total at the aggregator; return the joint numbers of rows."""
    others = [party.node_id for party in task.plan.parties if party.node_id != task.me]
    seeds = _agree_on_seeds(task, others)
    own, sums = _add_up(task, shape)
    counted = _join(task, shape, own, seeds)
    task.progress(1, 2)
    if not shape.bounds:
        return counted
    holder, collector = key_holder(task.plan), aggregator(task.plan)
    key = sealed.offer_key(task, others) if task.me == holder else sealed.take_key(task, holder, spec.key_bits)
    layout = _layout(task, spec, shape)
    hidden = masks(task.me, seeds, _context(task, "sums"), layout.mask_slots(shape.cells), layout.mask_bits)
    total = key.encrypt(layout.pack(sums, own.rows, masks=hidden), threads=task.cores)
    if task.me != collector:
        task.send(collector, "cipher", total)
        return counted
    for other in others:
        part = sealed.checked(key, task.receive(other, "cipher"), layout.plaintexts(shape.cells), other)
        total = key.add(total, part, fresh=False)
    task.keep(f"share-for-{holder}", key.rerandomise(total))
    return counted


def finish(task: Task, spec: AggregateSpec, shape: Shape, counted: Counted) -> list[list[int]]:
    """At the key holder: open the total."""
    if not shape.bounds:
        return []
    layout, collector = _layout(task, spec, shape), aggregator(task.plan)
    share = task.artefact(task.plan.job_id, f"share-from-{collector}")
    with PrivateKey.from_bytes(task.paillier_key) as key:
        plain = key.decrypt(sealed.checked(key.public, share, layout.plaintexts(shape.cells), collector))
    return sealed.opened(layout, plain, counted.rows, shape.cells)


def key_holder(plan: Plan) -> str:
    """Return who can decrypt: the recipient's node."""
    return plan.recipient_node


def aggregator(plan: Plan) -> str:
    """Return who adds up: the first contributor that cannot decrypt."""
    return next(party.node_id for party in plan.parties if party.node_id != key_holder(plan))


def _agree_on_seeds(task: Task, others: Sequence[str]) -> dict[str, bytes]:
    """Draw a secret with every other party: of two, the one named first draws."""
    seeds = {other: os.urandom(SEED_SIZE) for other in others if task.me < other}
    for other, seed in seeds.items():
        task.send(other, "seed", seed)
    for other in others:
        if other not in seeds:
            seeds[other] = task.receive(other, "seed")
            if len(seeds[other]) != SEED_SIZE:
                raise ProtocolFailed("a seed has another length", party=other, stage="compute")
    return seeds


def _add_up(task: Task, shape: Shape) -> tuple[Counted, NDArray[np.object_]]:
    """Add up this party's rows, batch by batch: numbers of rows, and sums as (cells, sums) whole numbers."""
    rows = np.zeros(shape.cells, np.int64)
    measured = np.zeros((shape.counts, shape.cells), np.int64)
    rest = np.zeros(shape.rest, np.int64)
    sums = np.zeros((len(shape.bounds), shape.cells), object)
    for batch in task.batches(task.fields):
        codes = cells.group_codes(batch, shape.dimensions)
        values, present = cells.prepare(batch, shape.wanted)
        rows += np.array(cells.grouped_counts(codes, np.ones(len(codes), np.bool_), shape.cells))
        rest += np.array(cells.rest_counts(batch, shape.dimensions), np.int64)
        for place, mask in enumerate(present):
            measured[place] += np.array(cells.grouped_counts(codes, mask, shape.cells))
        for place, column in enumerate(values):
            sums[place] += np.array(cells.grouped_sums(codes, column, shape.cells), object)
    return Counted(rows, measured, rest), sums.T


def _join(task: Task, shape: Shape, own: Counted, seeds: Mapping[str, bytes]) -> Counted:
    """Add up everybody's numbers of rows, of which each party shows only masked ones."""
    plain = np.frombuffer(own.to_bytes(), "<u8")
    total = add(_words(plain), masks(task.me, seeds, _context(task, "counts"), len(plain), 64), 64)
    shown = total[:, 0].astype("<u8").tobytes()
    for other in seeds:
        task.send(other, "counts", shown)
    for other in seeds:
        came = task.receive(other, "counts")
        if len(came) != len(shown):
            raise ProtocolFailed("numbers of rows came for other groups", party=other, stage="compute")
        total = add(total, _words(np.frombuffer(came, "<u8")), 64)
    joint = Counted.from_bytes(total[:, 0].astype("<u8").tobytes(), shape)
    possible = sum(task.rows.values())
    smaller = (joint.rows < own.rows).any() or (joint.measured < own.measured).any() or (joint.rest < own.rest).any()
    every = np.concatenate([joint.rows, joint.rest])
    if bool(smaller) or int(every.max(initial=0)) > possible or int(every.sum()) != possible:
        # Masked numbers do not say whose they are.
        tell = "one of the other contributors sent numbers of rows that do not add up"
        raise ProtocolFailed(tell=tell, party=next(iter(seeds)) if len(seeds) == 1 else "", stage="compute")
    return joint


def _words(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    words = np.zeros((len(numbers), 2), np.uint64)
    words[:, 0] = numbers
    return words


def _layout(task: Task, spec: AggregateSpec, shape: Shape) -> Layout:
    contributors, rows = len(task.plan.parties), sum(task.rows.values())
    return Layout.fitting(sealed.columns_of(shape), rows, key_bits=spec.key_bits, contributors=contributors)


def _context(task: Task, what: str) -> bytes:
    return json.dumps([task.plan.job_id, task.salt.hex(), what]).encode()
