"""Totals by group over what several parties hold, each contribution a ciphertext to everybody else.

Every contributor knows its rows' groups (``spec.datasets``):

    contributor                     aggregator                      key holder (the recipient's node)
    seeds, one a pair  <-----------------------------------------> seeds
    numbers of rows, masked  <------- everybody adds up -------->  numbers of rows in every group, joint
    sums, masked, encrypted -->     adds up, re-randomises
                                    after all grants: the sum  -->  decrypts; the masks have cancelled

One side knows the groups, the other the measures (``spec.alignment``):

    measure side (key holder)                                       group side
    one ciphertext a shared row, same sequence ------------------>  adds up by group, masks, re-randomises
    decrypts: its share         <-----------------------------------
                        after all grants: one share to the recipient's node, which has the other

Source:   Paillier as in ``mpc.paillier``; pairwise masks as in ``mpc.masks``.
Security: semi-honest parties. Aggregator and key holder together see only totals: every contribution carries masks that
          cancel over all contributors and over no part of them. Of a total over two each can subtract its own part:
          then every approval must accept that. Between two sides the mask is uniform modulo n.
Reveals:  to every owner: how many rows each group has, over all of them, and in how many each measured column is
          there; its gate judges these before anything is opened. To the recipient: the table, numbers of rows rounded.
Output:   "totals": the groups, "rows", and a column a measure (one a band for a histogram).
Errors:   what a party sends that is no ciphertext under the key ends the job, naming it; so does a second message.
"""

from __future__ import annotations

import io
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sandbox.errors import InvalidSpec, PartyFailed, ProtocolFailed
from sandbox.kinds import cells
from sandbox.kinds.cells import Shape
from sandbox.kinds.kind import Form, Kind, Task
from sandbox.kinds.psi import ALIGNMENT
from sandbox.model import (
    AggregateSpec,
    DatasetUse,
    JobSpec,
    OutputClass,
    Party,
    Plan,
    RawResult,
    Reveal,
    Scenario,
)
from sandbox.mpc.masks import SEED_SIZE, masks
from sandbox.mpc.packing import Column, Layout
from sandbox.mpc.paillier import PrivateKey, PublicKey
from sandbox.mpc.slots import add

ENGINE: Final = "paillier"
TOTALS: Final = "totals"
BATCH: Final = 2048  # rows: a ciphertext each, a mebibyte together

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Counted:
    """How many rows there are: in each cell, and of them with each measure (and band)."""

    rows: Counts  # (cells,)
    measured: Counts  # (counts, cells)

    def to_bytes(self) -> bytes:
        """Return the numbers as an artefact."""
        return np.concatenate([self.rows[None, :], self.measured]).astype("<i8").tobytes()

    @classmethod
    def from_bytes(cls, content: bytes, shape: Shape) -> Counted:
        """Read them back, or take them from another party."""
        if len(content) != 8 * shape.cells * (1 + shape.counts):
            raise ProtocolFailed("numbers of rows came for other groups")
        whole = np.frombuffer(content, "<i8").reshape(1 + shape.counts, shape.cells)
        return cls(whole[0], whole[1:])

    def gate_inputs(self) -> dict[str, int]:
        """Return every number as a group that has to reach the minimum."""
        inputs = {"rows": int(self.rows.sum())}
        inputs |= {f"group.{cell}": count for cell, count in enumerate(self.rows.tolist())}
        for place, counts in enumerate(self.measured.tolist()):
            inputs |= {f"group.{cell}.{place}": count for cell, count in enumerate(counts)}
        return inputs


def compute(task: Task) -> RawResult:
    """Leave numbers of rows, and sums that nobody can open alone."""
    spec = _spec(task.spec)
    shape = _shape(spec, task.scenario)
    counted = _between_two(task, spec, shape) if spec.alignment else _contribute(task, spec, shape)
    task.keep("counts", counted.to_bytes())
    return RawResult(counted.gate_inputs(), {}, {})


def finish(task: Task) -> RawResult:
    """At the recipient's node: open the sums and make the table."""
    spec = _spec(task.spec)
    shape = _shape(spec, task.scenario)
    kept = task.artefact(task.plan.job_id, "counts")
    if spec.alignment:
        counted, sums = _open_shares(task, spec, shape, Counted.from_bytes(kept, _only_rows(shape)))
    else:
        counted = Counted.from_bytes(kept, shape)
        sums = _open_total(task, spec, shape, counted)
    table = cells.statistics(shape, counted.rows.tolist(), counted.measured.tolist(), sums)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    task.keep(TOTALS, sink.getvalue())
    return RawResult(counted.gate_inputs(), {}, {TOTALS: TOTALS})


# --- every contributor knows its groups -------------------------------------------------------------------------------


def _contribute(task: Task, spec: AggregateSpec, shape: Shape) -> Counted:
    contributors = [party.node_id for party in task.plan.parties]
    others = [name for name in contributors if name != task.me]
    seeds = _agree_on_seeds(task, others)
    own, sums = _totals(task, shape)
    counted = _joint(task, shape, own, seeds)
    task.progress(1, 2)
    if not shape.bounds:
        return counted
    holder, aggregator = _holder(task.plan), _aggregator(task.plan)
    key = _agree_on_key(task, spec, holder, others)
    layout = _layout(shape, sum(task.rows.values()), spec.key_bits, contributors=len(contributors))
    hidden = masks(task.me, seeds, _context(task, "sums"), layout.mask_slots(shape.cells), layout.mask_bits)
    total = key.encrypt(layout.pack(sums, own.rows, masks=hidden))
    if task.me != aggregator:
        task.send(aggregator, "cipher", total)
        return counted
    for other in others:
        part = task.receive(other, "cipher")
        total = key.add(total, _checked(key, part, len(total), other), fresh=False)
    task.keep(f"share-for-{holder}", key.rerandomise(total))
    return counted


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


def _totals(task: Task, shape: Shape) -> tuple[Counted, NDArray[np.object_]]:
    """Add up this party's rows: numbers of rows, and sums as (cells, sums) Python integers."""
    rows = np.zeros(shape.cells, np.int64)
    measured = np.zeros((shape.counts, shape.cells), np.int64)
    sums = np.zeros((len(shape.bounds), shape.cells), object)
    for batch in task.batches(task.fields):
        codes = cells.group_codes(batch, shape.dimensions)
        values, present = cells.prepare(batch, shape.wanted)
        rows += np.array(cells.grouped_counts(codes, np.ones(len(codes), np.bool_), shape.cells))
        for place, mask in enumerate(present):
            measured[place] += np.array(cells.grouped_counts(codes, mask, shape.cells))
        for place, column in enumerate(values):
            sums[place] += np.array(cells.grouped_sums(codes, column, shape.cells), object)
    return Counted(rows, measured), sums.T


def _joint(task: Task, shape: Shape, own: Counted, seeds: Mapping[str, bytes]) -> Counted:
    """Add up everybody's numbers of rows, of which each party shows only masked ones."""
    plain = np.frombuffer(own.to_bytes(), "<u8")
    words = np.zeros((len(plain), 2), np.uint64)
    words[:, 0] = plain
    total = add(words, masks(task.me, seeds, _context(task, "counts"), len(plain), 64), 64)
    shown = total[:, 0].astype("<u8").tobytes()
    for other in seeds:
        task.send(other, "counts", shown)
    for other in seeds:
        came = task.receive(other, "counts")
        if len(came) != len(shown):
            raise ProtocolFailed("numbers of rows came for other groups", party=other, stage="compute")
        words = np.zeros_like(total)
        words[:, 0] = np.frombuffer(came, "<u8")
        total = add(total, words, 64)
    joint = Counted.from_bytes(total[:, 0].astype("<u8").tobytes(), shape)
    if bool((joint.rows < own.rows).any()) or int(joint.rows.sum()) > sum(task.rows.values()):
        raise ProtocolFailed("the numbers of rows of all parties do not add up", stage="compute")
    return joint


def _open_total(task: Task, spec: AggregateSpec, shape: Shape, counted: Counted) -> list[list[int]]:
    if not shape.bounds:
        return []
    contributors = [party.node_id for party in task.plan.parties]
    layout = _layout(shape, sum(task.rows.values()), spec.key_bits, contributors=len(contributors))
    aggregator = _aggregator(task.plan)
    sealed = task.artefact(task.plan.job_id, f"share-from-{aggregator}")
    with PrivateKey.from_bytes(task.paillier_key) as key:
        expected = layout.plaintexts(shape.cells) * 2 * key.public.size
        plain = key.decrypt(_checked(key.public, sealed, expected, aggregator))
    opened = layout.unpack(plain, counted.rows, shape.cells)
    return [[int(value) for value in column] for column in opened.T]


# --- one side knows the groups, the other the measures ----------------------------------------------------------------


def _between_two(task: Task, spec: AggregateSpec, shape: Shape) -> Counted:
    positions = np.frombuffer(task.artefact(spec.alignment, ALIGNMENT), "<i8")
    measuring, grouping = _sides(task.plan.parties, shape)
    layout = _rowwise_layout(shape, len(positions), spec.key_bits)
    task.keep("shared", np.array([len(positions)], "<i8").tobytes())
    table = task.table(task.fields).take(pa.array(positions)) if task.fields else None
    if task.me == measuring:
        return _measure(task, spec, shape, layout, table, len(positions), grouping)
    return _group(task, spec, shape, layout, table, len(positions), measuring)


def _measure(
    task: Task, spec: AggregateSpec, shape: Shape, layout: Layout, table: pa.Table, rows: int, grouping: str
) -> Counted:
    """Encrypt what each shared row adds; decrypt the masked sums."""
    values, present = cells.prepare(table, shape.wanted)
    added = np.stack([*values, *(mask.astype(np.int64) for mask in present)], axis=1)
    with PrivateKey.from_bytes(task.paillier_key) as key:
        task.send(grouping, "key", key.public.to_bytes())
        for first in range(0, rows, BATCH):
            task.send(grouping, "cipher", key.encrypt(layout.pack(added[first : first + BATCH])))
            task.progress(min(first + BATCH, rows), rows)
        counted = Counted.from_bytes(task.receive(grouping, "counts"), _only_rows(shape))
        if bool((counted.rows < 0).any()) or int(counted.rows.sum()) > rows:
            raise ProtocolFailed("more rows are in groups than are shared", party=grouping, stage="compute")
        masked = task.receive(grouping, "masked")
        expected = layout.plaintexts(shape.cells) * 2 * key.public.size
        opened = key.decrypt(_checked(key.public, masked, expected, grouping))
        task.keep("key", key.public.to_bytes())
    _keep_share(task, grouping, opened)
    return Counted(counted.rows, np.zeros((0, shape.cells), np.int64))


def _group(
    task: Task, spec: AggregateSpec, shape: Shape, layout: Layout, table: pa.Table | None, rows: int, measuring: str
) -> Counted:
    """Add up the other side's ciphertexts by group, and hide the sums from it."""
    codes = cells.group_codes(table, shape.dimensions) if table is not None else np.zeros(rows, np.int32)
    counts = np.array(cells.grouped_counts(codes, np.ones(rows, np.bool_), shape.cells))
    key = _taken_key(task, spec, measuring)
    # Rows in no group go into one more, which is thrown away: what is left out must not show in what is computed.
    codes = np.where(codes < 0, shape.cells, codes)
    places = (codes[:, None] * layout.parts + np.arange(layout.parts)).astype(np.int32)
    total = b""
    for first in range(0, rows, BATCH):
        batch = places[first : first + BATCH].ravel()
        came = _checked(key, task.receive(measuring, "cipher"), len(batch) * 2 * key.size, measuring)
        part = key.grouped_sums(came, batch, (shape.cells + 1) * layout.parts, fresh=False)
        total = key.add(total, part, fresh=False) if total else part
        task.progress(min(first + BATCH, rows), rows)
    total = total[: shape.cells * layout.parts * 2 * key.size]
    hiding = [secrets.randbelow(key.n) for _ in range(shape.cells * layout.parts)]
    shown = b"".join(number.to_bytes(key.size, "big") for number in hiding)
    task.send(measuring, "counts", Counted(counts, np.zeros((0, shape.cells), np.int64)).to_bytes())
    task.send(measuring, "masked", key.add_plain(total, shown))
    task.keep("key", key.to_bytes())
    _keep_share(task, measuring, shown)
    return Counted(counts, np.zeros((0, shape.cells), np.int64))


def _open_shares(task: Task, spec: AggregateSpec, shape: Shape, counted: Counted) -> tuple[Counted, list[list[int]]]:
    measuring, grouping = _sides(task.plan.parties, shape)
    other = grouping if task.me == measuring else measuring
    key = PublicKey.from_bytes(task.artefact(task.plan.job_id, "key"))
    mine, theirs = (task.artefact(task.plan.job_id, name) for name in ("own-share", f"share-from-{other}"))
    if len(mine) != len(theirs):
        raise ProtocolFailed("the two shares differ in length", party=other, stage="reveal")
    masked, hiding = (mine, theirs) if task.me == measuring else (theirs, mine)
    size = key.size
    plain = b"".join(
        (
            (int.from_bytes(masked[at : at + size], "big") - int.from_bytes(hiding[at : at + size], "big")) % key.n
        ).to_bytes(size, "big")
        for at in range(0, len(masked), size)
    )
    rows = int(np.frombuffer(task.artefact(task.plan.job_id, "shared"), "<i8")[0])
    opened = _rowwise_layout(shape, rows, spec.key_bits).unpack(plain, counted.rows, shape.cells)
    columns = [[int(value) for value in column] for column in opened.T]
    sums, measured = columns[: len(shape.bounds)], columns[len(shape.bounds) :]
    return Counted(counted.rows, np.array(measured, np.int64).reshape(shape.counts, shape.cells)), sums


def _keep_share(task: Task, other: str, share: bytes) -> None:
    task.keep("own-share" if task.plan.recipient_node == task.me else f"share-for-{other}", share)


# --- shapes, keys, roles ----------------------------------------------------------------------------------------------


def _layout(shape: Shape, rows: int, bits: int, contributors: int) -> Layout:
    """A row without a value adds 0, so 0 is in every range."""
    columns = [Column(f"s{n}", min(low, 0), max(high, 0)) for n, (low, high) in enumerate(shape.bounds)]
    return Layout.fitting(columns, rows, key_bits=bits, contributors=contributors)


def _rowwise_layout(shape: Shape, rows: int, bits: int) -> Layout:
    columns = [Column(f"s{n}", min(low, 0), max(high, 0)) for n, (low, high) in enumerate(shape.bounds)]
    columns += [Column(f"n{n}", 0, 1) for n in range(shape.counts)]
    return Layout.fitting(columns, max(rows, 1), key_bits=bits, lanes=1)


def _only_rows(shape: Shape) -> Shape:
    return Shape(shape.dimensions, ())


def _agree_on_key(task: Task, spec: AggregateSpec, holder: str, others: Sequence[str]) -> PublicKey:
    if task.me != holder:
        return _taken_key(task, spec, holder)
    with PrivateKey.from_bytes(task.paillier_key) as key:
        public = key.public
    for other in others:
        task.send(other, "key", public.to_bytes())
    return public


def _taken_key(task: Task, spec: AggregateSpec, holder: str) -> PublicKey:
    try:
        key = PublicKey.from_bytes(task.receive(holder, "key"))
    except InvalidSpec as error:
        raise ProtocolFailed(str(error), tell="sent a key that is none", party=holder, stage="compute") from None
    if key.bits != spec.key_bits:
        raise PartyFailed(tell="uses a key of another size than planned", party=holder, stage="compute")
    return key


def _checked(key: PublicKey, ciphertexts: bytes, size: int, party: str) -> bytes:
    """Return what a party sent, if it is as many ciphertexts under the key as agreed."""
    if len(ciphertexts) != size:
        raise ProtocolFailed("another number of ciphertexts came than agreed", party=party, stage="compute")
    try:
        key.check(ciphertexts)
    except ProtocolFailed as error:
        raise ProtocolFailed(str(error), party=party, stage="compute") from None
    return ciphertexts


def _context(task: Task, what: str) -> bytes:
    return json.dumps([task.plan.job_id, task.salt.hex(), what]).encode()


def _holder(plan: Plan) -> str:
    return plan.recipient_node


def _aggregator(plan: Plan) -> str:
    """The first contributor that is not the key holder: who adds up must not be able to open."""
    return next(party.node_id for party in plan.parties if party.node_id != _holder(plan))


def _sides(parties: Sequence[Party], shape: Shape) -> tuple[str, str]:
    """Return who holds the measures and who the groups, from the columns the plan gives them."""
    left, right = parties
    if set(left.fields) == set(shape.measure_columns) and set(right.fields) == set(shape.group_columns):
        return left.node_id, right.node_id
    return right.node_id, left.node_id


def _shape(spec: AggregateSpec, scenario: Scenario) -> Shape:
    return cells.shape(spec.groups, spec.measures, scenario)


def _spec(spec: JobSpec) -> AggregateSpec:
    if not isinstance(spec.kind, AggregateSpec):
        raise InvalidSpec("not an aggregate spec")
    return spec.kind


# --- what the kind declares -------------------------------------------------------------------------------------------


def columns(spec: JobSpec, scenario: Scenario, uses: Sequence[DatasetUse]) -> tuple[tuple[str, ...], ...]:
    """Return what each dataset brings: groups and measures, or one of the two."""
    wanted = _spec(spec)
    shape = _shape(wanted, scenario)
    groups, measures = shape.group_columns, shape.measure_columns
    if not wanted.alignment:
        return tuple(tuple(dict.fromkeys((*groups, *measures))) for _ in uses)
    for first, second in ((measures, groups), (groups, measures)):
        if all(set(needed) <= {*use.fields, use.label} for use, needed in zip(uses, (first, second), strict=True)):
            return first, second
    raise InvalidSpec(
        tell="with an alignment one side holds all groups, the other all measures",
        hint="compare the columns with the scenario's fields",
    )


def engines(spec: JobSpec) -> tuple[str, ...]:
    """Return the one engine."""
    return (ENGINE,)


def reveals(spec: JobSpec, parties: Sequence[Party], scenario: Scenario, engine: str) -> tuple[Reveal, ...]:
    """Say who learns what."""
    sizes = "how many rows each group has, over all parties, and how many of them have each measured column"
    sizes_zh = "各组在所有参与方合计的行数，以及其中各指标非空的行数"
    two = "; with two contributors each can subtract its own part from the total" if len(parties) == 2 else ""
    two_zh = "；仅两方时，任一方可由合计减去本方部分" if len(parties) == 2 else ""
    if _spec(spec).alignment:
        sizes = "how many of the shared rows each group has"
        sizes_zh, two, two_zh = "各组在共有行中的行数", "", ""
    told = tuple(Reveal(party.node_id, sizes + two, sizes_zh + two_zh) for party in parties)
    return (
        *told,
        Reveal("recipient", "the totals by group; numbers of rows rounded", "分组合计结果；行数取整"),
    )


def shares(plan: Plan, spec: JobSpec, scenario: Scenario) -> Mapping[str, tuple[str, ...]]:
    """Return that the recipient's node gets the encrypted total, or the other side's share."""
    if _spec(spec).alignment:
        return {plan.recipient_node: tuple(p.node_id for p in plan.parties if p.node_id != plan.recipient_node)}
    return {plan.recipient_node: (_aggregator(plan),) if _shape(_spec(spec), scenario).bounds else ()}


def key_holder(plan: Plan, spec: JobSpec, scenario: Scenario) -> str:
    """Return whose key it is: the recipient's node, or the side that encrypts row by row."""
    if _spec(spec).alignment:
        return _sides(plan.parties, _shape(_spec(spec), scenario))[0]
    return _holder(plan)


def form(spec: JobSpec, scenario: Scenario, output: str) -> Form | None:
    """Return that the table has every group, in order, and nothing but numbers."""
    shape = _shape(_spec(spec), scenario)
    labels = cells.labels(shape.dimensions)
    values = cells.result_columns(shape)
    return Form(
        (*labels.column_names, *values),
        labels,
        counts=frozenset(name for name, counts in values.items() if counts),
        places=cells.result_places(shape),
    )


KIND = Kind(
    outputs={TOTALS: OutputClass.AGGREGATE},
    chosen=lambda spec: frozenset({TOTALS}),
    lasting=frozenset(),
    reveals_in_protocol=False,
    engines=engines,
    columns=columns,
    reveals=reveals,
    shares=shares,
    form=form,
    compute=compute,
    finish=finish,
    key_holder=key_holder,
)
