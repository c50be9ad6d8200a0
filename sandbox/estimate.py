"""What a job will take, before it runs: rows, time, bytes, memory and the price at most.

Units:    seconds, bytes and MiB are rough: figures measured on two cores on loopback (``bench/``, ``psi.cost``) for the
          engines' own work, with the line and the cores that the node's settings tell.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from sandbox import pinned, record
from sandbox.crypto import modexp, sm2curve
from sandbox.errors import NotFound
from sandbox.kinds import confined
from sandbox.kinds.kind import Conditions
from sandbox.ledger import metered_fields, metered_rows
from sandbox.model import (
    AggregateSpec,
    DatasetRef,
    Environment,
    JobSpec,
    ModelSpec,
    Plan,
    PlanView,
    PsiSpec,
    QuerySpec,
    ScoreSpec,
    TrainSpec,
)
from sandbox.policy import book
from sandbox.policy.admit import built_on, named_datasets
from sandbox.policy.scenario import coefficient
from sandbox.psi import cost
from sandbox.psi.cost import Cost
from sandbox.store import datasets
from sandbox.usage import tariff

_ENCRYPT_S = {"ifma": 1.6e-4, "gmp": 6e-4}  # a ciphertext a row, 2048 bits, one core: bench.paillier
_VALUE = 8  # bytes of a value that goes into another owner's enclave, about
_CIPHERTEXT = 512  # bytes, 2048-bit key
_NOTES = {
    "ecdh-sm2": f"SM2 back end at this node: {sm2curve.BACKEND}; {sm2curve.WHY}",
    "prepared-sm2": "the first job encodes the right's set and sends it; later ones with the same data only ask",
    "count-sm2": f"SM2 back end at this node: {sm2curve.BACKEND}; {sm2curve.WHY}",
    "loads-sm2": f"SM2 back end at this node: {sm2curve.BACKEND}; Paillier: {modexp.BACKEND}",
    "ecdh-x25519": "the portable engine: many times slower than rr22; install the extra 'fast' at both parties",
    "paillier": f"modular exponentiation at this node: {modexp.BACKEND}; {modexp.WHY}",
}


def estimate(
    conn: Connection, plan: Plan, spec: JobSpec, round_to: int, conditions: Conditions, asked: bytes
) -> PlanView:
    """Return the plan as its submitter sees it before the run; counts of people rounded."""
    scenario = pinned.for_plan(book.application(conn, plan.scenario_digest), plan)
    spec = pinned.spec_of(spec, (party.dataset for party in plan.parties if party.dataset is not None))
    told = {DatasetRef(use.code, use.version): use.rows for use in scenario.datasets}
    people = _people(conn, plan, spec, told)
    rows = metered_rows(plan, people, round_to)
    units = tariff.units(metered_fields(plan), rows)
    before = record.units_before(conn, plan.scenario_digest)
    is_free = scenario.price.public_good or plan.environment is Environment.TEST
    yuan = tariff.price(units, before, coefficient(scenario), is_free)
    taken = _cost(conn, plan, spec, rows, told, conditions)
    return PlanView(
        job_id=plan.job_id,
        kind=plan.kind,
        engine=plan.engine,
        parties=tuple(party.node_id for party in plan.parties),
        reveals=plan.reveals,
        expected_s=round(taken.seconds) or 1,
        expected_bytes=taken.bytes,
        expected_mib=taken.mib,
        deadline_s=plan.deadline_s,
        units_at_most=units,
        yuan_at_most=str(yuan),
        outputs=plan.outputs,
        note=_note(plan),
        environment=plan.environment,
        recipe=asked,
    )


def _cost(
    conn: Connection,
    plan: Plan,
    spec: JobSpec,
    rows: int,
    told: dict[DatasetRef, int],
    conditions: Conditions,
) -> Cost:
    if isinstance(spec.kind, PsiSpec):
        left, right = _sizes(conn, (spec.kind.left, spec.kind.right), told)
        return cost.estimate(
            plan.engine,
            left or right,
            right or left,
            link_mbit=conditions.link_mbit,
            cores=conditions.cores,
            backend=conditions.backend,
            seal=conditions.seal,
            prepared=conditions.is_prepared,
        )
    if isinstance(spec.kind, TrainSpec):
        return Cost(6.0 + 2.5e-5 * rows * spec.kind.steps, 480 * rows * spec.kind.steps, 400 + rows // 1000, 0)
    if isinstance(spec.kind, AggregateSpec) and spec.kind.alignment:
        per_row = _ENCRYPT_S[modexp.BACKEND] / conditions.cores
        return Cost(1.0 + per_row * rows, _CIPHERTEXT * rows, 250, 0)
    if isinstance(spec.kind, AggregateSpec):
        return Cost(1.0 + 1e-6 * rows, _CIPHERTEXT * len(plan.parties), 150, 0)
    if isinstance(spec.kind, QuerySpec | ModelSpec):
        moved = _VALUE * rows * max(len(party.fields) for party in plan.parties) if spec.kind.alignment else 0
        return Cost(2.0 + 1e-6 * rows, moved, 300 + rows // 5_000, 0)
    return Cost(0.2 + 2e-6 * rows, 4 * rows, 60 + rows // 10_000, 0)


def _note(plan: Plan) -> str:
    if plan.kind in confined.KINDS:
        return f"runs in a jail of level {plan.isolation}: no trusted hardware stands behind it"
    return _NOTES.get(plan.engine, "")


def _sizes(conn: Connection, refs: Sequence[DatasetRef], told: dict[DatasetRef, int]) -> list[int]:
    """Return the rows of datasets: the own ones as they are, others as the scenario tells."""
    own = conn.execute(select(datasets.c.code, datasets.c.version, datasets.c.rows)).all()
    mine = {DatasetRef(row.code, row.version): int(row.rows) for row in own}
    return [mine.get(ref, told.get(ref, 0)) for ref in refs]


def _people(conn: Connection, plan: Plan, spec: JobSpec, told: dict[DatasetRef, int]) -> int:
    """Return how many people at most: the rows that go in, those of the earlier job, or one applicant."""
    if refs := named_datasets(spec):
        sizes = _sizes(conn, refs, told)
        return sum(sizes) if isinstance(spec.kind, AggregateSpec) else max(sizes, default=0)
    if isinstance(spec.kind, ScoreSpec) and "metrics" not in {rule.name for rule in plan.outputs}:
        return 1
    try:
        return record.people_of(conn, built_on(spec))
    except NotFound:
        return 0
