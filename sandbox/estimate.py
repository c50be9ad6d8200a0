"""What a job will take, before it runs: rows, time, bytes, memory and the price at most.

Units:    seconds, bytes and MiB are rough: per-row figures measured on two cores on loopback (``bench/``), for both
          engines' own work; a slower line between the parties adds its own time.
"""

from __future__ import annotations

from sqlalchemy import Connection, select

from sandbox import record
from sandbox.crypto import sm2curve
from sandbox.errors import NotFound
from sandbox.gate.release import rounded
from sandbox.ledger import metered_fields
from sandbox.model import JobSpec, Plan, PlanView, ScoreSpec, TrainSpec
from sandbox.policy import book
from sandbox.policy.admit import built_on, named_datasets
from sandbox.policy.scenario import coefficient
from sandbox.store import datasets
from sandbox.usage import tariff

_SM2_S = {"ifma": 2.4e-5, "portable": 2.2e-4, "libcrypto": 1.2e-3}  # hash and two multiplications a row, two sides
_BASE_S = {"rr22": 2.0, "ecdh-x25519": 1.0, "ecdh-sm2": 1.0, "aby3": 6.0, "partial-sums": 0.2, "paillier": 1.0}
_ROW_S = {
    "rr22": 6e-6,
    "ecdh-x25519": 1.2e-4,
    "ecdh-sm2": _SM2_S[sm2curve.BACKEND],
    "aby3": 2.5e-5,
    "partial-sums": 2e-6,
    "paillier": 2e-6,
}
_ROW_BYTES = {
    "rr22": 36,
    "ecdh-x25519": 96,
    "ecdh-sm2": 98,
    "aby3": 480,
    "partial-sums": 4,
    "paillier": 0,
}  # aby3: per row and step
_BASE_MIB = {"rr22": 120, "ecdh-x25519": 80, "ecdh-sm2": 80, "aby3": 400, "partial-sums": 60, "paillier": 150}
_ROW_MIB = {"rr22": 6e-4, "ecdh-x25519": 3e-4, "ecdh-sm2": 3e-4, "aby3": 1e-3, "partial-sums": 1e-4, "paillier": 1e-4}
_NOTES = {
    "ecdh-sm2": f"SM2 back end at this node: {sm2curve.BACKEND}; {sm2curve.WHY}",
    "ecdh-x25519": "the portable engine: about 20 times slower than rr22; install the extra 'fast' at both parties",
}


def estimate(conn: Connection, plan: Plan, spec: JobSpec, round_to: int) -> PlanView:
    """Return the plan as its submitter sees it before the run; counts of people rounded."""
    people = _rows(conn, plan, spec)
    rows = people if people == 1 else rounded(people, round_to)
    steps = spec.kind.steps if isinstance(spec.kind, TrainSpec) else 1
    scenario = book.application(conn, plan.scenario_digest)
    units = tariff.units(metered_fields(plan), rows)
    before = record.units_before(conn, plan.scenario_digest)
    yuan = tariff.price(units, before, coefficient(scenario), scenario.price.public_good)
    return PlanView(
        job_id=plan.job_id,
        kind=plan.kind,
        engine=plan.engine,
        parties=tuple(party.node_id for party in plan.parties),
        reveals=plan.reveals,
        expected_s=round(_BASE_S[plan.engine] + rows * steps * _ROW_S[plan.engine]) or 1,
        expected_bytes=rows * steps * _ROW_BYTES[plan.engine],
        expected_mib=round(_BASE_MIB[plan.engine] + rows * _ROW_MIB[plan.engine]),
        deadline_s=plan.deadline_s,
        units_at_most=units,
        yuan_at_most=str(yuan),
        outputs=plan.outputs,
        note=_NOTES.get(plan.engine, ""),
    )


def _rows(conn: Connection, plan: Plan, spec: JobSpec) -> int:
    """Return how many people at most: the own rows, the earlier job's where there is one, one for an applicant."""
    if refs := named_datasets(spec):
        own = conn.execute(select(datasets.c.code, datasets.c.version, datasets.c.rows)).all()
        mine = {(row.code, row.version): row.rows for row in own}
        return max((mine.get((ref.code, ref.version), 0) for ref in refs), default=0)
    if isinstance(spec.kind, ScoreSpec) and "metrics" not in {rule.name for rule in plan.outputs}:
        return 1
    try:
        return record.people_of(conn, built_on(spec))
    except NotFound:
        return 0
