"""Totals where one side knows the groups and the other the measures: over an alignment, row by row.

    measure side (key holder)                                       group side
    one ciphertext a shared row, same sequence ------------------>  adds up by group and hides the sums  (``sealed``)
    decrypts: its share         <-----------------------------------
                                                                    its own measures: adds them up by itself
                        after all grants: one side's share to the recipient's node, which has the other

Neither side ever shows a row: the measure side learns how many shared rows each group has, the group side ciphertexts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from sandbox.errors import InvalidSpec, ProtocolFailed
from sandbox.kinds import cells, dominance, margins, sealed
from sandbox.kinds.cells import Codes, Shape
from sandbox.kinds.counted import COUNTS, Counted
from sandbox.kinds.dominance import Weights
from sandbox.kinds.kind import Task
from sandbox.kinds.margins import Lines
from sandbox.kinds.population import SHARED, Sketcher
from sandbox.kinds.psi import ALIGNMENT
from sandbox.model import AggregateSpec, DatasetUse, Party, Population, Scenario
from sandbox.mpc.paillier import PrivateKey, PublicKey

MESSAGE: Final = 4 << 20  # bytes of ciphertexts in a message, about
_OWN: Final = "own-share"


@dataclass(frozen=True, slots=True)
class Placed:
    """Which of two owners holds the groups, and which measures are the other's."""

    grouping: int  # 0 or 1: place among the owners
    is_sealed: tuple[bool, ...]  # for each measure: held by the other side

    def shape_of(self, shape: Shape, are_sealed: bool) -> Shape:
        """Return the table of the measures of one side."""
        chosen = zip(shape.wanted, self.is_sealed, strict=True)
        return Shape(shape.dimensions, tuple(one for one, is_sealed in chosen if is_sealed is are_sealed))

    def columns(self, shape: Shape) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the columns of each owner's dataset that are used."""
        own = tuple(dict.fromkeys((*shape.group_columns, *self.shape_of(shape, False).measure_columns)))
        both = (own, self.shape_of(shape, True).measure_columns)
        return both if self.grouping == 0 else (both[1], both[0])


def place(shape: Shape, uses: Sequence[DatasetUse]) -> Placed:
    """Return how a job is shared out between two owners.

    Raises:
        InvalidSpec: no side has all groups and the other at least one measure.
    """
    held = [{*use.fields, use.label} for use in uses]
    for grouping in (0, 1):
        own, other = held[grouping], held[1 - grouping]
        is_sealed = tuple(set(one.columns) <= other for one in shape.wanted)
        rest = all(is_sealed[n] or set(one.columns) <= own for n, one in enumerate(shape.wanted))
        if set(shape.group_columns) <= own and rest and any(is_sealed):
            _check_sealed(shape, is_sealed, own)
            return Placed(grouping, is_sealed)
    raise InvalidSpec(
        tell="with an alignment one side holds all groups, and the other at least one measure",
        hint="compare the columns with the scenario's fields",
    )


def _check_sealed(shape: Shape, is_sealed: Sequence[bool], own: set[str]) -> None:
    for one, sealed_one in zip(shape.wanted, is_sealed, strict=True):
        if sealed_one and set(one.columns) <= own:
            raise InvalidSpec(tell=f"measure {one.measure.name!r}: both sides have its columns; rename one's")
        if sealed_one and one.bands is not None:
            raise InvalidSpec(
                tell=f"measure {one.measure.name!r}: a histogram of the other side's column cannot be judged before it "
                "is opened",
                hint="make its bands the groups, and let the other side submit",
            )


def placed_in(shape: Shape, scenario: Scenario, parties: Sequence[Party]) -> tuple[Placed, str, str]:
    """Return the same for a plan, with the node ids of the group side and of the measure side."""
    known = {(use.code, use.version): use for use in scenario.datasets}
    owners = [party for party in parties if party.dataset is not None]
    uses = [known[party.dataset.code, party.dataset.version] for party in owners if party.dataset is not None]
    found = place(shape, uses)
    return found, owners[found.grouping].node_id, owners[1 - found.grouping].node_id


def compute(task: Task, spec: AggregateSpec, shape: Shape) -> tuple[Counted, dict[str, int], tuple[Population, ...]]:
    """Leave both sides' shares; return what this side knows of the groups' sizes, what its gate judges, and of whom.

    How many rows of a group have a sealed measure nobody knows before the sums are opened: the measure side has its
    gate judge the least there can be, as if all missing values were in one group. Nor does anybody know whose values
    are in which group: whether one stands out, the measure side guesses (``dominance.guessed``).
    """
    positions = np.frombuffer(task.artefact(spec.alignment, ALIGNMENT), "<i8")
    placed, grouping, measuring = placed_in(shape, task.scenario, task.plan.parties)
    task.keep("shared", np.array([len(positions)], "<i8").tobytes())
    table = task.table(task.fields).take(pa.array(positions)) if task.fields else None
    if task.me == measuring:
        counted, inputs = _measure(task, spec, placed.shape_of(shape, True), table, len(positions), grouping)
        keys = task.keys().take(pa.array(positions))
        return counted, inputs, (Sketcher(task.population_key).of(SHARED, keys, len(positions)),)
    codes = cells.group_codes(table, shape.dimensions) if table is not None else np.zeros(len(positions), np.int32)
    counted, inputs = _group(task, spec, placed, (shape, codes), table, measuring)
    keys, none = task.keys().take(pa.array(positions)), np.zeros(Lines(shape.dimensions, True).count, np.bool_)
    return (
        counted,
        inputs,
        margins.populations(task.population_key, [keys], codes, shape.dimensions, counted.rows, none),
    )


def finish(task: Task, spec: AggregateSpec, shape: Shape) -> tuple[Counted, list[list[int]]]:
    """At the recipient's node: join the shares; return the numbers of rows, and the sums."""
    placed, grouping, measuring = placed_in(shape, task.scenario, task.plan.parties)
    other = grouping if task.me == measuring else measuring
    mine, theirs = (task.artefact(task.plan.job_id, name) for name in (_OWN, f"share-from-{other}"))
    masked, told = (mine, theirs) if task.me == measuring else (theirs, mine)
    own, hiding = _read_share(told, placed.shape_of(shape, False), grouping)
    if task.me == measuring:
        judged = Counted.from_bytes(task.artefact(task.plan.job_id, COUNTS), Shape(shape.dimensions, ()))
        if judged.to_bytes() != Counted(own[0].rows, judged.measured, own[0].rest).to_bytes():
            raise ProtocolFailed("other numbers of rows came than were judged", party=grouping, stage="reveal")
    key = PublicKey.from_bytes(task.artefact(task.plan.job_id, "key"))
    rows = int(np.frombuffer(task.artefact(task.plan.job_id, "shared"), "<i8")[0])
    other_shape = placed.shape_of(shape, True)
    plain = sealed.join(key, masked, hiding, other)
    layout = sealed.row_layout(other_shape, rows, spec.key_bits)
    numbers = sealed.opened(layout, plain, own[0].rows, shape.cells, other)
    return _merge(shape, placed, own, (numbers[len(other_shape.bounds) :], numbers[: len(other_shape.bounds)]))


def _measure(
    task: Task, spec: AggregateSpec, shape: Shape, table: pa.Table, rows: int, grouping: str
) -> tuple[Counted, dict[str, int]]:
    """Encrypt what each shared row adds; decrypt the hidden sums."""
    layout = sealed.row_layout(shape, rows, spec.key_bits)
    values, present = cells.prepare(table, shape.wanted)
    added = sealed.rows_of(values, present)
    only_rows = Shape(shape.dimensions, ())
    with PrivateKey.from_bytes(task.paillier_key) as key:
        task.send(grouping, "key", key.public.to_bytes())
        batch = _batch(layout.parts, key.public)
        for first in range(0, rows, batch):
            plain = layout.pack(added[first : first + batch])
            task.send(grouping, "cipher", key.encrypt(plain, threads=task.cores))
            task.progress(min(first + batch, rows), rows)
        counted = Counted.from_bytes(task.receive(grouping, "counts"), only_rows, grouping)
        every = np.concatenate([counted.rows, counted.rest])
        if bool((every < 0).any()) or int(every.sum()) != rows:
            raise ProtocolFailed("other rows are in groups than are shared", party=grouping, stage="compute")
        hidden = task.receive(grouping, "masked")
        masked = sealed.checked(key.public, hidden, layout.plaintexts(shape.cells), grouping)
        share = key.decrypt(masked, threads=task.cores)
        task.keep("key", key.public.to_bytes())
    _keep_share(task, grouping, share)
    least = int(counted.rows.min())
    judged = {f"group.sealed.{place}": least - int((~mask).sum()) for place, mask in enumerate(present)}
    judged |= dominance.guessed(dominance.names(shape), dominance.amounts(shape, values), least)
    return counted, counted.gate_inputs(only_rows) | judged


def _group(
    task: Task,
    spec: AggregateSpec,
    placed: Placed,
    grouped: tuple[Shape, Codes],
    table: pa.Table | None,
    measuring: str,
) -> tuple[Counted, dict[str, int]]:
    """Add up the other side's ciphertexts by group and hide the sums; add up the own measures."""
    shape, codes = grouped
    rows = len(codes)
    own_shape, other_shape = placed.shape_of(shape, False), placed.shape_of(shape, True)
    values, present = cells.prepare(table, own_shape.wanted) if own_shape.wanted else ([], [])
    counts = [cells.grouped_counts(codes, mask, shape.cells) for mask in (np.ones(rows, np.bool_), *present)]
    rest = cells.rest_counts(table, shape.dimensions) if table is not None else []
    measured = np.array(counts[1:], np.int64).reshape(-1, shape.cells)
    counted = Counted(np.array(counts[0], np.int64), measured, np.array(rest, np.int64))
    sums = [cells.grouped_sums(codes, column, shape.cells) for column in values]
    key = sealed.take_key(task, measuring, spec.key_bits)
    total = _add_up(task, key, codes, shape.cells, sealed.row_layout(other_shape, rows, spec.key_bits).parts, measuring)
    hidden, hiding = sealed.hide(key, total, threads=task.cores)
    shown = Counted(counted.rows, np.zeros((0, shape.cells), np.int64), counted.rest)
    task.send(measuring, "counts", shown.to_bytes())
    task.send(measuring, "masked", hidden)
    task.keep("key", key.to_bytes())
    share = {"hiding": hiding.hex(), "counts": counted.to_bytes().hex(), "sums": [list(map(str, one)) for one in sums]}
    _keep_share(task, measuring, json.dumps(share).encode())
    weights = Weights.of_rows(codes, dominance.amounts(own_shape, values), shape.cells)
    alone = np.ones(shape.cells, np.bool_)
    judged = dominance.figures(dominance.names(own_shape), weights, alone=alone)
    return counted, counted.gate_inputs(own_shape) | judged


def _add_up(task: Task, key: PublicKey, codes: Codes, groups: int, parts: int, measuring: str) -> bytes:
    """Add up ciphertexts as they come. Rows in no group go into one more, which is thrown away."""
    codes = np.where(codes < 0, groups, codes)
    places = (codes[:, None] * parts + np.arange(parts)).astype(np.int32)
    total = b""
    each = _batch(parts, key)
    for first in range(0, len(codes), each):
        batch = places[first : first + each].ravel()
        came = sealed.checked(key, task.receive(measuring, "cipher"), len(batch), measuring)
        part = key.grouped_sums(came, batch, (groups + 1) * parts, threads=task.cores, fresh=False)
        total = key.add(total, part, threads=task.cores, fresh=False) if total else part
        task.progress(min(first + each, len(codes)), len(codes))
    return total[: groups * parts * 2 * key.size]


def _batch(parts: int, key: PublicKey) -> int:
    """Return how many rows go into one message."""
    return max(1, MESSAGE // (2 * key.size * parts))


def _merge(
    shape: Shape,
    placed: Placed,
    own: tuple[Counted, list[list[int]]],
    other: tuple[list[list[int]], list[list[int]]],
) -> tuple[Counted, list[list[int]]]:
    """Put both sides' numbers into the order of the measures."""
    counts = {False: iter(own[0].measured.tolist()), True: iter(other[0])}
    totals = {False: iter(own[1]), True: iter(other[1])}
    measured: list[list[int]] = []
    sums: list[list[int]] = []
    for one, is_sealed in zip(shape.wanted, placed.is_sealed, strict=True):
        measured += [next(counts[is_sealed]) for _ in range(one.counts)]
        sums += [next(totals[is_sealed]) for _ in one.bounds]
    counts_of_all = np.array(measured, np.int64).reshape(shape.counts, shape.cells)
    return Counted(own[0].rows, counts_of_all, own[0].rest), sums


def _read_share(told: bytes, own: Shape, grouping: str) -> tuple[tuple[Counted, list[list[int]]], bytes]:
    try:
        found = json.loads(told)
        counted = Counted.from_bytes(bytes.fromhex(found["counts"]), own, grouping, "reveal")
        sums = [[int(value) for value in one] for one in found["sums"]]
        hiding = bytes.fromhex(found["hiding"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ProtocolFailed("the group side's share is none", party=grouping, stage="reveal") from None
    if len(sums) != len(own.bounds) or any(len(one) != own.cells for one in sums):
        raise ProtocolFailed("the group side's share is of other groups", party=grouping, stage="reveal")
    rows = counted.rows.tolist()
    possible = bool(((counted.measured >= 0) & (counted.measured <= counted.rows)).all())
    for (low, high), one in zip(own.bounds, sums, strict=True):
        possible &= all(min(low, 0) * n <= value <= max(high, 0) * n for n, value in zip(rows, one, strict=True))
    if not possible:
        raise ProtocolFailed("the group side's totals cannot be", party=grouping, stage="reveal")
    return (counted, sums), hiding


def _keep_share(task: Task, other: str, share: bytes) -> None:
    task.keep(_OWN if task.plan.recipient_node == task.me else f"share-for-{other}", share)
