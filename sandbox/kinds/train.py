"""Train one logistic model on both sides' columns of the people they share.

    left (holds the label)          right                     compute party
    hold-out mask, shapes   --->    mask, shapes        --->  shapes
    own columns -> features         own columns -> features
          <================ ABY3, three parties, nothing opened ================>
    share of both halves            share of both halves      share of both halves
          after all grants: the shares of left's half go to left, those of right's half to right
          a scorecard is to be released: the other owner's points  ------>  recipient's node

Reveals:  to left: the weights of its own features. To right: the weights of its own features, and which shared people
          are held out of training. To the compute party: numbers of rows and columns. To the recipient: how many
          people it was trained and tested on, rounded. With a scorecard, to the recipient and its node: the bands of
          the other side's columns and their whole points.
Security: who is held out depends on the seed and on the order of left's rows, never on a label: a hold-out stratified
          by label would tell, over many trainings, every label. A side's points exist only once its own half is open,
          after all grants, and then leave as whole numbers; its weights never do. Without a rule of that output in the
          plan, nothing of a scorecard is made.
Output:   "training": {"rows_trained", "rows_held"}, rounded; "scorecard" if the job asks for it, as in ``card``.
Artefacts: "model" (this side's half), "positions" (the alignment, int64).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sandbox.errors import IntegrityFailed, InvalidSpec
from sandbox.kinds import card
from sandbox.kinds.card import SCORECARD, Card
from sandbox.kinds.features import Banding, Encoder, fit
from sandbox.kinds.holdout import draw, truth
from sandbox.kinds.kind import Conditions, Form, Kind, Task, at
from sandbox.kinds.psi import ALIGNMENT
from sandbox.model import (
    DatasetUse,
    JobKind,
    JobSpec,
    OutputClass,
    OutputRule,
    Party,
    PartyRole,
    Plan,
    RawResult,
    Reveal,
    Scenario,
    TrainSpec,
)
from sandbox.mpc import logistic
from sandbox.mpc.logistic import Rank
from sandbox.mpc.reference import Basis, Part, Schedule
from sandbox.mpc.scorecard import Points, Scale

ENGINE = "aby3"
MODEL, POSITIONS = "model", "positions"
TRAINING = "training"
_JUDGED = "judged"  # artefact: what this owner's gate judged the scorecard by
_RANKS = {PartyRole.LEFT: Rank.LABELS, PartyRole.RIGHT: Rank.FEATURES, PartyRole.COMPUTE: Rank.HELPER}


@dataclass(frozen=True, slots=True)
class TrainedSide:
    """One side's half of a model: how to make its features, and what they weigh."""

    encoder: Encoder
    part: Part
    held: NDArray[np.bool_]  # of the alignment, which were held out
    label: str  # the target column; empty at the side that has none
    points: Points | None = None  # what the weights count for, where a scorecard is released

    def to_json(self) -> bytes:
        """Return the half as an artefact."""
        return json.dumps(
            {
                "encoder": json.loads(self.encoder.to_json()),
                "weights": self.part.weights.tolist(),
                "offset": self.part.offset,
                "held": np.packbits(self.held).tobytes().hex(),
                "rows": len(self.held),
                "label": self.label,
                "points": None if self.points is None else [self.points.base, *self.points.bands],
            }
        ).encode()

    @classmethod
    def from_json(cls, text: bytes) -> TrainedSide:
        """Read the half back."""
        found = json.loads(text)
        held = np.unpackbits(np.frombuffer(bytes.fromhex(found["held"]), np.uint8), count=found["rows"]).astype(bool)
        part = Part(np.array(found["weights"], np.float64), float(found["offset"]))
        encoder = Encoder.from_json(json.dumps(found["encoder"]))
        points = None
        if given := found.get("points"):
            points = Points(given[0], tuple(tuple(column) for column in given[1:]))
        return cls(encoder, part, held, found["label"], points)


def compute(task: Task) -> RawResult:
    """Train on shares; leave this party's shares of both halves, and what turns its own half into a model."""
    spec = _spec(task.spec)
    parties = {rank: task.party(role) for role, rank in _RANKS.items()}
    inputs, gate_inputs = _prepare(task, spec)
    schedule = Schedule(spec.steps, spec.l2_micro / 1e6)
    terms = logistic.Terms(bytes.fromhex(task.plan.job_id), inputs.rows, *inputs.columns, schedule)
    made = logistic.train(
        _RANKS[task.role],
        inputs.features,
        inputs.labels,
        terms,
        task.workspace,
        peers={rank: name for rank, name in parties.items() if name != task.me},
        deadline_s=task.deadline_s,
        on_progress=lambda done: task.progress(int(1000 * done), 1000),
        stop=task.stopped(),
    )
    task.keep(f"share-for-{parties[Rank.LABELS]}", made.label_side)
    task.keep(f"share-for-{parties[Rank.FEATURES]}", made.other_side)
    if made.basis is not None:
        basis = {"mean": made.basis.mean.tolist(), "transform": made.basis.transform.tolist()}
        task.keep("basis", json.dumps(basis).encode())
    return RawResult(gate_inputs, {}, {})


def finish(task: Task) -> RawResult:
    """At each data owner: open the own half from the three shares, and keep it as the model."""
    job_id = task.plan.job_id
    shares = [task.artefact(job_id, f"share-from-{task.party(role)}") for role in _RANKS]
    weights = logistic.reconstruct(shares, task.workspace)
    found = json.loads(task.artefact(job_id, "basis"))
    basis = Basis(np.array(found["mean"]), np.array(found["transform"]))
    intercept = 0.0
    if task.role is PartyRole.LEFT:
        weights, intercept = weights[:-1], float(weights[-1])
    draft = TrainedSide.from_json(task.artefact(job_id, "draft"))
    part = basis.restore(weights, intercept)
    if not np.isfinite(part.weights).all():
        raise IntegrityFailed("the trained weights are not finite numbers")
    points, tables = None, {}
    trained, held = int((~draft.held).sum()), int(draft.held.sum())
    gate_inputs = {"group.trained": trained, "group.held": held, "rows": trained + held}
    if _released(task.plan) is not None:
        blocks = [banded.rows() for banded in draft.encoder.banded()]
        points = Points.of(blocks, part.weights, Scale(step=task.scenario.score_step), offset=part.offset)
        gate_inputs |= json.loads(task.artefact(job_id, _JUDGED))
        tables = card.hand_over(task, Card.of(draft.encoder, points))
    task.keep(MODEL, TrainedSide(draft.encoder, part, draft.held, draft.label, points).to_json())
    return RawResult(gate_inputs, {"rows_trained": float(trained), "rows_held": float(held)}, tables)


@dataclass(frozen=True, slots=True)
class _Inputs:
    rows: int
    columns: tuple[int, int]
    features: NDArray[np.float32] | None
    labels: NDArray[np.float32] | None


def _prepare(task: Task, spec: TrainSpec) -> tuple[_Inputs, dict[str, int]]:
    """Agree on who is held out and on shapes, and make this side's features of the rest."""
    left, right, third = (task.party(role) for role in (PartyRole.LEFT, PartyRole.RIGHT, PartyRole.COMPUTE))
    if task.role is PartyRole.COMPUTE:
        shape = json.loads(task.receive(left, "shape"))
        other = json.loads(task.receive(right, "shape"))
        if shape["rows"] != other["rows"]:
            raise IntegrityFailed("the two sides bring different numbers of rows")
        return _Inputs(shape["rows"], (shape["columns"], other["columns"]), None, None), {}
    positions = np.frombuffer(task.artefact(spec.alignment, ALIGNMENT), "<i8")
    task.keep(POSITIONS, positions.astype("<i8").tobytes())
    fields = task.fields
    label = task.label()
    table = task.table([*fields, label] if label else list(fields)).take(pa.array(positions))
    gate_inputs = {"group.aligned": len(positions), "rows": len(positions)}
    labels: NDArray[np.bool_] | None = None
    if task.role is PartyRole.LEFT:
        labels = truth(table.column(label).to_numpy().astype(np.float64))
        held = _hold_out(positions, spec)
        for name, members in (("trained", ~held), ("held", held)):
            gate_inputs[f"group.{name}_bad"] = int(labels[members].sum())
            gate_inputs[f"group.{name}_good"] = int((~labels[members]).sum())
        task.send(right, "held", np.packbits(held).tobytes())
    else:
        mask = np.frombuffer(task.receive(left, "held"), np.uint8)
        if len(mask) != (len(positions) + 7) // 8:
            raise IntegrityFailed("the hold-out is not as long as the alignment", party=left)
        held = np.unpackbits(mask, count=len(positions)).astype(bool)
    rule = _released(task.plan)
    declared = {dimension.column: dimension for dimension in task.scenario.dimensions if dimension.edges}
    banding = None if rule is None else Banding(rule.min_group, declared)
    encoder = fit(table, fields, ~held, labels, banding=banding)
    features = encoder.transform(table)[~held]
    draft = TrainedSide(encoder, Part(np.zeros(features.shape[1]), 0.0), held, label)
    task.keep("draft", draft.to_json())
    other = right if task.role is PartyRole.LEFT else left
    shape = json.dumps({"rows": len(features), "columns": features.shape[1]}).encode()
    task.send(other, "shape", shape)
    task.send(third, "shape", shape)
    theirs = json.loads(task.receive(other, "shape"))
    if theirs["rows"] != len(features):
        raise IntegrityFailed("the two sides bring different numbers of rows", party=other)
    columns = (features.shape[1], int(theirs["columns"]))
    if task.role is PartyRole.RIGHT:
        columns = columns[::-1]
    known = None if labels is None else labels[~held]
    if rule is not None:
        # All coefficients and the intercept.
        judged = card.gate_inputs(encoder, table.filter(pa.array(~held)), known, sum(columns) + 1)
        task.keep(_JUDGED, json.dumps(judged).encode())
        gate_inputs |= judged
    target = None if known is None else known.astype(np.float32)
    return _Inputs(len(features), columns, features, target), gate_inputs


def _hold_out(positions: NDArray[np.int64], spec: TrainSpec) -> NDArray[np.bool_]:
    """Return who is held out: by stored order, so that the same people are in every alignment of the same rows."""
    held = np.zeros(len(positions), np.bool_)
    held[np.argsort(positions)] = draw(len(positions), spec.seed, spec.holdout_percent / 100)
    return held


def _released(plan: Plan) -> OutputRule | None:
    """Return the rule under which a scorecard leaves; ``None`` if none does."""
    return next((rule for rule in plan.outputs if rule.name == SCORECARD), None)


def _spec(spec: JobSpec) -> TrainSpec:
    if not isinstance(spec.kind, TrainSpec):
        raise InvalidSpec("not a train spec")
    return spec.kind


def engines(spec: JobSpec, conditions: Conditions) -> tuple[str, ...]:
    """Return the one protocol offered: three parties, no dealer."""
    return (ENGINE,)


def columns(spec: JobSpec, scenario: Scenario, uses: Sequence[DatasetUse]) -> tuple[tuple[str, ...], ...]:
    """Return that all fields are used; the label is the left's own."""
    return tuple(use.fields for use in uses)


def form(spec: JobSpec, scenario: Scenario, output: str) -> Form | None:
    """Return that the scorecard is points under names, and the report no table."""
    return card.FORM if output == SCORECARD else None


def chosen(spec: JobSpec) -> frozenset[str]:
    """Return the report, and the scorecard where it is asked for."""
    return frozenset({TRAINING, SCORECARD} if _spec(spec).release_scorecard else {TRAINING})


def reveals(spec: JobSpec, parties: Sequence[Party], scenario: Scenario, engine: str) -> tuple[Reveal, ...]:
    """Say who learns what."""
    promised = any(rule.kind is JobKind.TRAIN and rule.name == SCORECARD for rule in scenario.outputs)
    is_released = _spec(spec).release_scorecard and promised
    return (
        Reveal(
            at(parties, PartyRole.LEFT),
            "the weights of its own features, and how many features the other side has",
            "本方特征的权重，以及对方特征的个数",
        ),
        Reveal(
            at(parties, PartyRole.RIGHT),
            "the weights of its own features, how many features the other side has, and who is held out of training",
            "本方特征的权重、对方特征的个数，以及哪些共有人员未参与训练",
        ),
        Reveal(
            at(parties, PartyRole.COMPUTE),
            "how many rows and columns there are; together with either other party it could recover all inputs",
            "行数与列数；若与任一方合谋可还原全部输入",
        ),
        Reveal("recipient", "how many people it was trained and tested on, rounded", "训练与测试人数（取整）"),
        *(card.reveals(scenario) if is_released else ()),
    )


def shares(plan: Plan, spec: JobSpec, scenario: Scenario) -> Mapping[str, tuple[str, ...]]:
    """Return that all three send each owner its half's shares."""
    everybody = tuple(party.node_id for party in plan.parties)
    return {party.node_id: everybody for party in plan.parties if party.dataset is not None}


KIND = Kind(
    outputs={TRAINING: OutputClass.REPORT, SCORECARD: OutputClass.MODEL},
    chosen=chosen,
    lasting=frozenset({MODEL, POSITIONS}),
    reveals_in_protocol=False,
    engines=engines,
    columns=columns,
    reveals=reveals,
    shares=shares,
    form=form,
    compute=compute,
    finish=finish,
)
