"""Totals where every contributor knows its own rows' groups: added up alone, masked, encrypted, added up together.

contributor                     aggregator                      key holder (the recipient's node)
a secret, one a pair  <------------------------------------->  a secret, one a pair
numbers of rows, masked  <------- everybody adds up -------->  numbers of rows in every group, joint
who needs cover, masked  <------- everybody adds up -------->  what can be counted on of others  (``dominance``)
sums, masked, encrypted -->     adds up, re-randomises
                                after all grants: the sum  -->  decrypts; the masks have cancelled

Totals over a dimension are sums of their own, and where small groups stay blank (``suppression``) everybody adds 0 for
them: what is blank is in no ciphertext.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sandbox.errors import ProtocolFailed
from sandbox.kinds import cells, dominance, margins, sealed
from sandbox.kinds.cells import Codes, Mask, Shape
from sandbox.kinds.counted import Counted
from sandbox.kinds.dominance import Exact, Weights
from sandbox.kinds.kind import Task
from sandbox.kinds.margins import Lines
from sandbox.kinds.suppression import unions
from sandbox.model import AggregateSpec, OutputRule, Plan, Population
from sandbox.mpc.masks import SEED_SIZE, masks
from sandbox.mpc.packing import Layout
from sandbox.mpc.paillier import PrivateKey
from sandbox.mpc.slots import add

_COUNTS = "counts"
_COVER = "masked"  # how much others have, where somebody needs to know


@dataclass(frozen=True, slots=True)
class _Own:
    """What this party's rows add up to."""

    counted: Counted
    sums: Exact  # (sums, cells)
    weights: Weights
    codes: Codes  # of every row


def compute(
    task: Task, spec: AggregateSpec, shape: Shape, lines: Lines, rule: OutputRule
) -> tuple[Counted, dict[str, int], tuple[Population, ...]]:
    """Leave the encrypted total at the aggregator; return the joint numbers of rows, and what this gate judges."""
    others = [party.node_id for party in task.plan.parties if party.node_id != task.me]
    seeds = _agree_on_seeds(task, others)
    own = _add_up(task, shape)
    counted, steps = _join(task, shape, own, seeds)
    blank = blank_of(counted, shape, rule)
    inputs = counted.gate_inputs(shape, lines, blank)
    inputs |= _judge_weights(task, shape, own, counted, steps, blank, seeds)
    hidden = blank if blank is not None else np.zeros(Lines(shape.dimensions, True).count, np.bool_)
    known = margins.populations(
        task.population_key, task.key_batches(), own.codes, shape.dimensions, counted.rows, hidden
    )
    task.progress(1, 2)
    if shape.bounds:
        _encrypt(task, spec, shape, lines, own, blank, seeds)
    return counted, inputs, known


def finish(
    task: Task, spec: AggregateSpec, shape: Shape, lines: Lines, counted: Counted, blank: Mask | None
) -> list[list[int]]:
    """At the key holder: open the total."""
    if not shape.bounds:
        return []
    layout, collector = _layout(task, spec, shape), aggregator(task.plan)
    share = task.artefact(task.plan.job_id, f"share-from-{collector}")
    with PrivateKey.from_bytes(task.paillier_key) as key:
        plain = key.decrypt(sealed.checked(key.public, share, layout.plaintexts(lines.count), collector))
    return sealed.opened(layout, plain, _shown(lines, counted.rows, blank), lines.count)


def blank_of(counted: Counted, shape: Shape, rule: OutputRule) -> Mask | None:
    """Return which cells and totals stay blank, the same at every party; None where the scenario blanks none."""
    return counted.blank(shape, rule.min_group) if rule.suppress else None


def key_holder(plan: Plan) -> str:
    """Return who can decrypt: the recipient's node."""
    return plan.recipient_node


def aggregator(plan: Plan) -> str:
    """Return who adds up: the first contributor that cannot decrypt."""
    return next(party.node_id for party in plan.parties if party.node_id != key_holder(plan))


def _encrypt(
    task: Task,
    spec: AggregateSpec,
    shape: Shape,
    lines: Lines,
    own: _Own,
    blank: Mask | None,
    seeds: Mapping[str, bytes],
) -> None:
    """Encrypt this party's sums under masks; at the aggregator, add up everybody's."""
    holder, collector = key_holder(task.plan), aggregator(task.plan)
    key = sealed.offer_key(task, list(seeds)) if task.me == holder else sealed.take_key(task, holder, spec.key_bits)
    layout = _layout(task, spec, shape)
    hidden = masks(task.me, seeds, _context(task, "sums"), layout.mask_slots(lines.count), layout.mask_bits)
    sums, rows = _shown(lines, own.sums, blank).T, _shown(lines, own.counted.rows, blank)
    total = key.encrypt(layout.pack(sums, rows, masks=hidden), threads=task.cores)
    if task.me != collector:
        task.send(collector, "cipher", total)
        return
    for other in seeds:
        part = sealed.checked(key, task.receive(other, "cipher"), layout.plaintexts(lines.count), other)
        total = key.add(total, part, fresh=False)
    task.keep(f"share-for-{holder}", key.rerandomise(total))


def _shown(lines: Lines, numbers: NDArray[Any], blank: Mask | None) -> NDArray[Any]:
    """Return numbers of a table's lines, 0 where they stay blank."""
    whole = lines.totals(numbers)
    return whole if blank is None else np.where(lines.chosen(blank), 0, whole)


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


def _add_up(task: Task, shape: Shape) -> _Own:
    """Add up this party's rows, batch by batch."""
    rows = np.zeros(shape.cells, np.int64)
    measured = np.zeros((shape.counts, shape.cells), np.int64)
    rest = np.zeros(shape.rest, np.int64)
    sums = np.zeros((len(shape.bounds), shape.cells), object)
    weights = Weights.of_rows(np.zeros(0, np.int32), [np.zeros(0, np.int64)] * len(dominance.names(shape)), shape.cells)
    placed: list[Codes] = [np.zeros(0, np.int32)]
    for batch in task.batches(task.fields):
        codes = cells.group_codes(batch, shape.dimensions)
        values, present = cells.prepare(batch, shape.wanted)
        rows += np.array(cells.grouped_counts(codes, np.ones(len(codes), np.bool_), shape.cells))
        rest += np.array(cells.rest_counts(batch, shape.dimensions), np.int64)
        for place, mask in enumerate(present):
            measured[place] += np.array(cells.grouped_counts(codes, mask, shape.cells))
        for place, column in enumerate(values):
            sums[place] += np.array(cells.grouped_sums(codes, column, shape.cells), object)
        weights = weights.plus(Weights.of_rows(codes, dominance.amounts(shape, values), shape.cells))
        placed.append(codes)
    return _Own(Counted(rows, measured, rest), sums, weights, np.concatenate(placed))


def _join(task: Task, shape: Shape, own: _Own, seeds: Mapping[str, bytes]) -> tuple[Counted, cells.Whole]:
    """Add up everybody's numbers of rows; and where somebody needs cover, on which step (``dominance``)."""
    plain = np.frombuffer(own.counted.to_bytes(), "<u8")
    total = _opened(task, seeds, _COUNTS, np.concatenate([plain, dominance.ladder(shape, own.weights)]))
    joint = Counted.from_bytes(total[: len(plain)].astype("<u8").tobytes(), shape)
    mine, possible = own.counted, sum(task.rows.values())
    smaller = (joint.rows < mine.rows).any() or (joint.measured < mine.measured).any() or (joint.rest < mine.rest).any()
    every = np.concatenate([joint.rows, joint.rest])
    if bool(smaller) or int(every.max(initial=0)) > possible or int(every.sum()) != possible:
        raise _unlikely(seeds, "numbers of rows")
    return joint, dominance.highest(shape, total[len(plain) :])


def _judge_weights(
    task: Task,
    shape: Shape,
    own: _Own,
    counted: Counted,
    steps: cells.Whole,
    blank: Mask | None,
    seeds: Mapping[str, bytes],
) -> dict[str, int]:
    """Return how far the largest amount of this party's people stands out in any group whose total can be told."""
    regions = [np.array([cell]) for cell in range(shape.cells)]
    if blank is not None:
        shown = np.flatnonzero(~Lines(shape.dimensions, False).chosen(blank)).tolist()
        regions = [regions[cell] for cell in shown] + unions(blank, Lines(shape.dimensions, True).levels)
    weights, found = own.weights.over(regions), dominance.highest_over(steps, regions)
    covered: Exact | int = 0
    if bool((found >= 0).any()):
        parties = len(seeds) + 1
        part = dominance.sixteenths(weights, found, parties)
        joint = _opened(task, seeds, _COVER, part.ravel()).reshape(part.shape)
        others = dominance.cover(part, joint, found, parties)
        if others is None:
            raise _unlikely(seeds, "amounts")
        covered = others
    alone = np.array([own.counted.rows[region].sum() == counted.rows[region].sum() for region in regions], np.bool_)
    return dominance.figures(dominance.names(shape), weights, covered, alone)


def _opened(task: Task, seeds: Mapping[str, bytes], label: str, own: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the sum of everybody's numbers modulo 2^64, of which each party shows only masked ones."""
    total = add(_words(own), masks(task.me, seeds, _context(task, label), len(own), 64), 64)
    shown = total[:, 0].astype("<u8").tobytes()
    for other in seeds:
        task.send(other, label, shown)
    for other in seeds:
        came = task.receive(other, label)
        if len(came) != len(shown):
            raise ProtocolFailed("numbers came for other groups", party=other, stage="compute")
        total = add(total, _words(np.frombuffer(came, "<u8")), 64)
    return total[:, 0]


def _unlikely(seeds: Mapping[str, bytes], what: str) -> ProtocolFailed:
    """Masked numbers do not say whose they are, unless there is only one other party."""
    tell = f"one of the other contributors sent {what} that do not add up"
    return ProtocolFailed(tell=tell, party=next(iter(seeds)) if len(seeds) == 1 else "", stage="compute")


def _words(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    words = np.zeros((len(numbers), 2), np.uint64)
    words[:, 0] = numbers
    return words


def _layout(task: Task, spec: AggregateSpec, shape: Shape) -> Layout:
    contributors, rows = len(task.plan.parties), sum(task.rows.values())
    return Layout.fitting(sealed.columns_of(shape), rows, key_bits=spec.key_bits, contributors=contributors)


def _context(task: Task, what: str) -> bytes:
    return json.dumps([task.plan.job_id, task.salt.hex(), what]).encode()
