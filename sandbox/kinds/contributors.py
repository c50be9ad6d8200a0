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
import pyarrow as pa
from numpy.typing import NDArray

from sandbox.errors import PartyFailed, ProtocolFailed
from sandbox.kinds import cells, dominance, margins, noise, sealed
from sandbox.kinds.cells import Codes, Mask, Shape
from sandbox.kinds.counted import Counted
from sandbox.kinds.dominance import Exact, Weights
from sandbox.kinds.kind import Task
from sandbox.kinds.margins import Lines
from sandbox.kinds.suppression import unions
from sandbox.model import AggregateSpec, OutputRule, Plan, Population
from sandbox.mpc.masks import SEED_SIZE, masks
from sandbox.mpc.packing import Additions, Layout
from sandbox.mpc.paillier import PrivateKey
from sandbox.mpc.slots import add

# Numbers of rows, and on which step somebody needs cover, go under one label: what comes too often is found by its
# length, or at the end. How much others have goes under the other.
_COUNTS, _COVER = "counts", "masked"


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
    counted = _join(task, shape, own.counted, seeds)
    blank = blank_of(counted, shape, rule)
    inputs = counted.gate_inputs(shape, lines, blank)
    inputs |= _judge_weights(task, shape, own, counted, blank, seeds if _may_leave(inputs, rule) else {})
    hidden = blank if blank is not None else np.zeros(Lines(shape.dimensions, True).count, np.bool_)
    known = margins.populations(
        task.population_key, task.key_batches(), own.codes, shape.dimensions, counted.rows, hidden
    )
    task.progress(1, 2)
    if shape.bounds:
        sums, rows = _shown(lines, own.sums, blank).T, _shown(lines, own.counted.rows, blank)
        _encrypt(task, spec, _layout(task, spec, shape), sums, rows, seeds)
    return counted, inputs, known


def finish(
    task: Task, spec: AggregateSpec, shape: Shape, lines: Lines, counted: Counted, blank: Mask | None
) -> list[list[int]]:
    """At the key holder: open the total."""
    if not shape.bounds:
        return []
    return _open(task, _layout(task, spec, shape), _shown(lines, counted.rows, blank), lines.count)


def compute_noisy(task: Task, spec: AggregateSpec, shape: Shape) -> dict[str, int]:
    """Leave the encrypted total at the aggregator, with everybody's noise in it; nothing else is shown to anybody."""
    seeds = _agree_on_seeds(task, [party.node_id for party in task.plan.parties if party.node_id != task.me])
    own = _add_up(task, shape, is_clipped=True)
    asked = noise.numbers(spec, shape)
    layout = noise.layout(asked, task.rows, spec.key_bits)
    values = noise.contribution(asked, layout, own.counted.rows, own.counted.measured, own.sums)
    task.progress(1, 2)
    _encrypt(task, spec, layout, values, 1, seeds)
    return noise.gate_inputs(task.rows, spec.epsilon_milli)


def finish_noisy(task: Task, spec: AggregateSpec, shape: Shape, min_group: int) -> pa.Table:
    """At the key holder: open the total, and make the table."""
    asked = noise.numbers(spec, shape)
    layout = noise.layout(asked, task.rows, spec.key_bits)
    found = _open(task, layout, len(task.plan.parties), shape.cells)
    return noise.statistics(shape, asked, np.array(found, object).T, min_group)


def _open(task: Task, layout: Layout, additions: Additions, number: int) -> list[list[int]]:
    collector = aggregator(task.plan)
    share = task.artefact(task.plan.job_id, f"share-from-{collector}")
    with PrivateKey.from_bytes(task.paillier_key) as key:
        plain = key.decrypt(sealed.checked(key.public, share, layout.plaintexts(number), collector), threads=task.cores)
    return sealed.opened(layout, plain, additions, number)


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
    layout: Layout,
    sums: NDArray[Any],
    additions: Additions,
    seeds: Mapping[str, bytes],
) -> None:
    """Encrypt this party's sums under masks; at the aggregator, add up everybody's."""
    holder, collector = key_holder(task.plan), aggregator(task.plan)
    key = sealed.offer_key(task, list(seeds)) if task.me == holder else sealed.take_key(task, holder, spec.key_bits)
    if task.me not in (holder, collector):
        task.send(collector, "key", key.key_id)
    hidden = masks(task.me, seeds, _context(task, "sums"), layout.mask_slots(len(sums)), layout.mask_bits)
    total = key.encrypt(layout.pack(sums, additions, masks=hidden), threads=task.cores)
    if task.me != collector:
        task.send(collector, "cipher", total)
        return
    for other in seeds:
        # Of two keys the product would open to nobody, and nobody could say why.
        if other != holder and task.receive(other, "key") != key.key_id:
            raise PartyFailed(tell="encrypts under another key than came here", party=other, stage=sealed.STAGE)
        part = sealed.checked(key, task.receive(other, "cipher"), layout.plaintexts(len(sums)), other)
        total = key.add(total, part, threads=task.cores, fresh=False)
    task.keep(f"share-for-{holder}", key.rerandomise(total, threads=task.cores))


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


def _add_up(task: Task, shape: Shape, is_clipped: bool = False) -> _Own:
    """Add up this party's rows, batch by batch."""
    rows = np.zeros(shape.cells, np.int64)
    measured = np.zeros((shape.counts, shape.cells), np.int64)
    rest = np.zeros(shape.rest, np.int64)
    sums = np.zeros((len(shape.bounds), shape.cells), object)
    weights = Weights.of_rows(np.zeros(0, np.int32), [np.zeros(0, np.int64)] * len(dominance.names(shape)), shape.cells)
    placed: list[Codes] = [np.zeros(0, np.int32)]
    for batch in task.batches(task.fields):
        codes = cells.group_codes(batch, shape.dimensions)
        values, present = cells.prepare(batch, shape.wanted, clip=is_clipped)
        rows += np.array(cells.grouped_counts(codes, np.ones(len(codes), np.bool_), shape.cells))
        rest += np.array(cells.rest_counts(batch, shape.dimensions), np.int64)
        for place, mask in enumerate(present):
            measured[place] += np.array(cells.grouped_counts(codes, mask, shape.cells))
        for place, column in enumerate(values):
            sums[place] += np.array(cells.grouped_sums(codes, column, shape.cells), object)
        weights = weights.plus(Weights.of_rows(codes, dominance.amounts(shape, values), shape.cells))
        placed.append(codes)
    return _Own(Counted(rows, measured, rest), sums, weights, np.concatenate(placed))


def _join(task: Task, shape: Shape, own: Counted, seeds: Mapping[str, bytes]) -> Counted:
    """Add up everybody's numbers of rows."""
    total = _opened(task, seeds, _COUNTS, "counts", np.frombuffer(own.to_bytes(), "<u8"))
    joint = Counted.from_bytes(total.astype("<u8").tobytes(), shape)
    possible = sum(task.rows.values())
    smaller = (joint.rows < own.rows).any() or (joint.measured < own.measured).any() or (joint.rest < own.rest).any()
    every = np.concatenate([joint.rows, joint.rest])
    if bool(smaller) or int(every.max(initial=0)) > possible or int(every.sum()) != possible:
        raise _unlikely(seeds, "numbers of rows")
    return joint


def _may_leave(inputs: Mapping[str, int], rule: OutputRule) -> bool:
    """Whether all groups are large enough; the same at every party, since all numbers here are joint."""
    groups = [count for name, count in inputs.items() if name.startswith("group.")]
    rests = [count for name, count in inputs.items() if name.startswith("rest.") and count]
    return bool(groups) and min([*groups, *rests]) >= rule.min_group


def _judge_weights(
    task: Task,
    shape: Shape,
    own: _Own,
    counted: Counted,
    blank: Mask | None,
    seeds: Mapping[str, bytes],
) -> dict[str, int]:
    """Return how far the largest amount of this party's people stands out in any group whose total can be told.

    Args:
        seeds: of the parties to ask; nobody is asked about a table that is withheld anyhow.
    """
    regions = [np.array([cell]) for cell in range(shape.cells)]
    if blank is not None:
        shown = np.flatnonzero(~Lines(shape.dimensions, False).chosen(blank)).tolist()
        regions = [regions[cell] for cell in shown] + unions(blank, Lines(shape.dimensions, True).levels)
    weights = own.weights.over(regions)
    covered = _ask(task, shape, weights, seeds) if seeds and shape.bounds else 0
    alone = np.array([own.counted.rows[region].sum() == counted.rows[region].sum() for region in regions], np.bool_)
    return dominance.figures(dominance.names(shape), weights, covered, alone)


def _ask(task: Task, shape: Shape, weights: Weights, seeds: Mapping[str, bytes]) -> Exact | int:
    """Return what can be counted on of the others, where somebody needs to know."""
    steps = dominance.highest(shape, _opened(task, seeds, _COUNTS, "steps", dominance.ladder(shape, weights)))
    if not bool((steps >= 0).any()):
        return 0
    part = dominance.sixteenths(weights, steps, len(seeds) + 1)
    joint = _opened(task, seeds, _COVER, "cover", part.ravel()).reshape(part.shape)
    others = dominance.cover(part, joint, steps, len(seeds) + 1)
    if others is None:
        raise _unlikely(seeds, "amounts")
    return others


def _opened(
    task: Task, seeds: Mapping[str, bytes], label: str, what: str, own: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """Return the sum of everybody's numbers modulo 2^64, of which each party shows only masked ones."""
    total = add(_words(own), masks(task.me, seeds, _context(task, what), len(own), 64), 64)
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
