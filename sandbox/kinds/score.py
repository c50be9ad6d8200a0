"""What does the joint model say about these people, or about one applicant?

    left (recipient's node)                 right
    points from own columns                 points from own columns, in whole steps
                       <--- after all grants: right's partial points ---
    sum, per person

Reveals:  to left: right's weighted sum for each scored person, in steps of the scenario's ``score_step`` points (a
          score and one's own part give the other part under any protocol; the step and the cap on models bound it).
          To right: who was scored. To the recipient: the scores; and, for a batch, how well they rank, rounded.
          Of a model whose scorecard left, a part is the sum of the points in that table, then rounded to steps.
Units:    points: 600 at 50 good to 1 bad, 20 points double the odds of being good.
Output:   "scores": one row a person; "metrics": {"auc", "rows"} of a batch, rounded.
Security: additive partial sums of quantised values; no cryptography hides the sum itself, the gate and the grants
          come before it leaves.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sandbox.errors import IntegrityFailed, InvalidSpec
from sandbox.kinds.drawn import draw
from sandbox.kinds.holdout import truth
from sandbox.kinds.kind import Conditions, Form, Kind, Task, at
from sandbox.kinds.train import MODEL, POSITIONS, TrainedSide
from sandbox.model import (
    BatchScore,
    DatasetUse,
    JobSpec,
    OutputClass,
    Party,
    PartyRole,
    Plan,
    RawResult,
    Reveal,
    Scenario,
    ScoreScope,
    ScoreSpec,
)
from sandbox.mpc import scorecard
from sandbox.mpc.reference import auc
from sandbox.mpc.scorecard import Scale

ENGINE = "partial-sums"
PARTIAL = "partial"


def compute(task: Task) -> RawResult:
    """Turn this side's columns of the people asked about into partial points."""
    spec = _spec(task.spec)
    side = TrainedSide.from_json(task.artefact(spec.model, MODEL))
    rows = _rows(task, spec, side)
    if not len(rows):
        # Whether somebody is in a dataset is not for sale: the gate withholds this like anything else.
        return RawResult({"rows": 0}, {}, {})
    table = task.table(side.encoder.columns()).take(pa.array(rows))
    points = _partial(side, table, Scale(step=task.scenario.score_step))
    content = np.ascontiguousarray(points, "<i4").tobytes()
    if task.role is PartyRole.LEFT:
        task.keep(PARTIAL, content)
    else:
        task.keep(f"share-for-{task.party(PartyRole.LEFT)}", content)
    if isinstance(spec.subject, BatchScore):
        draw(task, rows)
    gate_inputs = {"rows": len(rows)}
    if task.role is PartyRole.LEFT and isinstance(spec.subject, BatchScore):
        labels = _labels(task, side, rows)
        gate_inputs |= {"group.scored_bad": int(labels.sum()), "group.scored_good": int((~labels).sum())}
    return RawResult(gate_inputs, {}, {})


def finish(task: Task) -> RawResult:
    """At the recipient's node: add the other side's part, and judge a batch by its labels."""
    spec = _spec(task.spec)
    side = TrainedSide.from_json(task.artefact(spec.model, MODEL))
    mine = np.frombuffer(task.artefact(task.plan.job_id, PARTIAL), "<i4")
    theirs = np.frombuffer(task.artefact(task.plan.job_id, f"share-from-{task.party(PartyRole.RIGHT)}"), "<i4")
    if len(mine) != len(theirs):
        raise IntegrityFailed("the partial scores of the two sides differ in length")
    points = scorecard.combine(mine, theirs, scale=Scale(step=task.scenario.score_step))
    rows = _rows(task, spec, side)
    scores = pa.table({"id": task.keys().take(pa.array(rows)), "points": pa.array(points, pa.int32())})
    sink = io.BytesIO()
    pq.write_table(scores, sink)
    task.keep("scores", sink.getvalue())
    if not isinstance(spec.subject, BatchScore):
        return RawResult({"rows": len(rows)}, {}, {"scores": "scores"})
    labels = _labels(task, side, rows)
    groups = {"group.scored_bad": int(labels.sum()), "group.scored_good": int((~labels).sum())}
    # Points fall as risk rises.
    figures = {"auc": auc(-points.astype(np.float64), labels), "rows": float(len(rows))}
    return RawResult({"rows": len(rows), **groups}, figures, {"scores": "scores"})


def _partial(side: TrainedSide, table: pa.Table, scale: Scale) -> scorecard.Steps:
    if side.points is not None:
        return scorecard.in_steps(side.points.sums(side.encoder.places(table)), scale)
    features = side.encoder.transform(table)
    return scorecard.partial_points(features, side.part.weights, scale, offset=side.part.offset)


def _labels(task: Task, side: TrainedSide, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    return truth(task.table([side.label]).take(pa.array(rows)).column(0).to_numpy().astype(np.float64))


def _rows(task: Task, spec: ScoreSpec, side: TrainedSide) -> NDArray[np.int64]:
    """Return the positions, in this side's dataset, of the people asked about; the same sequence on both sides."""
    if isinstance(spec.subject, BatchScore):
        positions = np.frombuffer(task.artefact(spec.model, POSITIONS), "<i8")
        return positions[side.held] if spec.subject.scope is ScoreScope.HOLDOUT else positions
    same = pc.equal(task.keys(), task.subject).to_numpy(zero_copy_only=False)
    return np.flatnonzero(same).astype(np.int64)


def _spec(spec: JobSpec) -> ScoreSpec:
    if not isinstance(spec.kind, ScoreSpec):
        raise InvalidSpec("not a score spec")
    return spec.kind


def engines(spec: JobSpec, conditions: Conditions) -> tuple[str, ...]:
    """Return the one way of linear scoring."""
    return (ENGINE,)


def chosen(spec: JobSpec) -> frozenset[str]:
    """Return the outputs: one person has no AUC."""
    return frozenset({"scores", "metrics"} if isinstance(_spec(spec).subject, BatchScore) else {"scores"})


def columns(spec: JobSpec, scenario: Scenario, uses: Sequence[DatasetUse]) -> tuple[tuple[str, ...], ...]:
    """Return that all fields are used."""
    return tuple(use.fields for use in uses)


def form(spec: JobSpec, scenario: Scenario, output: str) -> Form | None:
    """Return that scores are an id and points in whole steps."""
    if output != "scores":
        return None
    return Form(("id", "points"), steps={"points": scenario.score_step}, plain={"id": pa.string()})


def reveals(spec: JobSpec, parties: Sequence[Party], scenario: Scenario, engine: str) -> tuple[Reveal, ...]:
    """Say who learns what."""
    return (
        Reveal(
            at(parties, PartyRole.LEFT),
            "the other side's part of each score, in whole steps of points",
            "每个评分中对方贡献的部分（按分值步长取整）",
        ),
        Reveal(at(parties, PartyRole.RIGHT), "which of its people were scored", "被评分的是哪些人"),
        Reveal(
            "recipient", "the scores; of a batch also its AUC and size, rounded", "评分；批量时另有取整后的 AUC 与人数"
        ),
    )


def shares(plan: Plan, spec: JobSpec, scenario: Scenario) -> Mapping[str, tuple[str, ...]]:
    """Return that right's part goes to left."""
    return {at(plan.parties, PartyRole.LEFT): (at(plan.parties, PartyRole.RIGHT),)}


KIND = Kind(
    outputs={"scores": OutputClass.ROW_CONSENTED, "metrics": OutputClass.REPORT},
    chosen=chosen,
    lasting=frozenset(),
    reveals_in_protocol=False,
    engines=engines,
    columns=columns,
    reveals=reveals,
    shares=shares,
    form=form,
    compute=compute,
    finish=finish,
)
