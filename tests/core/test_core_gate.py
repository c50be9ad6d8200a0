"""The gate: what it lets out has the allowed shape, and whatever is missing withholds everything."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from core_builders import BANK, JOB, facts, psi, scenario
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.errors import OutputWithheld
from sandbox.gate.judge import judge
from sandbox.gate.release import release, rounded
from sandbox.model import OutputRule, Plan
from sandbox.policy.admit import admit

ALIGNED, TRAINING, METRICS, SCORES = scenario().outputs
PLAN = admit(psi(), JOB, bytes(32), facts(), BANK)
WORDS = OutputWithheld.public


def plan(*rules: OutputRule) -> Plan:
    return replace(PLAN, outputs=rules)


def table(points: Any, ids: Any = None, **more: Any) -> bytes:
    ids = [f"p{n}" for n in range(len(points))] if ids is None else ids
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": ids, "points": pa.array(points, more.pop("type", pa.int32())), **more}), sink)
    return sink.getvalue()


def let_out(rule: OutputRule, inputs: Any, figures: Any, tables: Any = None, step: int = 5) -> Any:
    (output,) = release(plan(rule), inputs, figures, tables or {}, step).outputs
    assert len(output.content) <= rule.max_bytes
    return json.loads(output.content) if output.format == "json" else pq.read_table(io.BytesIO(output.content))


GOOD = {"rows": 3}
WITHHELD: list[tuple[str, OutputRule, Any, Any, Any]] = [
    ("no group", ALIGNED, {}, {"aligned": 40.0}, {}),
    ("only rows", ALIGNED, {"rows": 40}, {"aligned": 40.0}, {}),
    ("small group", ALIGNED, {"group.aligned": 9}, {"aligned": 40.0}, {}),
    ("one small of two", ALIGNED, {"group.a": 40, "group.b": 9}, {"aligned": 40.0}, {}),
    ("no figure", ALIGNED, {"group.a": 40}, {}, {}),
    ("another figure", ALIGNED, {"group.a": 40}, {"income": 40.0}, {}),
    ("a fraction", ALIGNED, {"group.a": 40}, {"aligned": 40.5}, {}),
    ("not a number", ALIGNED, {"group.a": 40}, {"aligned": float("nan")}, {}),
    ("infinite", ALIGNED, {"group.a": 40}, {"aligned": float("inf")}, {}),
    ("too large", replace(ALIGNED, max_bytes=5), {"group.a": 40}, {"aligned": 40.0}, {}),
    ("unknown output", ALIGNED, {"group.a": 40}, {"aligned": 40.0}, {"scores": table([5])}),
    ("report without numbers", METRICS, {}, {"auc": 0.5}, {}),
    ("report of few", METRICS, {"rows": 9}, {"auc": 0.5}, {}),
    ("report of a small group", METRICS, {"group.bad": 9, "rows": 40}, {"auc": 0.5}, {}),
    ("empty report", METRICS, {"group.bad": 40}, {}, {}),
    ("no ratio", METRICS, {"group.bad": 40}, {"auc": 1.5}, {}),
    ("no ratio at all", METRICS, {"group.bad": 40}, {"auc": float("nan")}, {}),
    ("negative count", METRICS, {"group.bad": 40}, {"rows": -10.0}, {}),
    ("a figure nobody allowed", METRICS, {"group.bad": 40}, {"auc": 0.5, "income_sum": 123456.0}, {}),
    ("no rows", SCORES, {}, {}, {"scores": table([5])}),
    ("zero rows", SCORES, {"rows": 0}, {}, {"scores": table([])}),
    ("too many rows", replace(SCORES, max_rows=2), GOOD, {}, {"scores": table([5, 10, 15])}),
    ("more rows than judged", SCORES, GOOD, {}, {"scores": table([5, 10, 15, 20])}),
    ("no table", SCORES, GOOD, {}, {}),
    ("not a table", SCORES, GOOD, {}, {"scores": b"PAR1 nothing"}),
    ("empty bytes", SCORES, GOOD, {}, {"scores": b""}),
    ("a further column", SCORES, GOOD, {}, {"scores": table([5, 10, 15], income=pa.array([1, 2, 3]))}),
    ("fractions", SCORES, GOOD, {}, {"scores": table([5.0, 10.0, 15.0], type=pa.float64())}),
    ("finer points", SCORES, GOOD, {}, {"scores": table([5, 10, 16])}),
    ("a missing score", SCORES, GOOD, {}, {"scores": table([5, 10, None])}),
    ("ids that are no texts", SCORES, GOOD, {}, {"scores": table([5, 10, 15], ids=[[1.5], [2.5], [3.5]])}),
    ("too many bytes", replace(SCORES, max_bytes=10), GOOD, {}, {"scores": table([5, 10, 15])}),
]


@pytest.mark.parametrize(
    ("rule", "inputs", "figures", "tables"), [w[1:] for w in WITHHELD], ids=[w[0] for w in WITHHELD]
)
def test_whatever_is_missing_or_disclosive_withholds(rule: OutputRule, inputs: Any, figures: Any, tables: Any) -> None:
    with pytest.raises(OutputWithheld) as refusal:
        release(plan(rule), inputs, figures, tables, 5)
    assert (refusal.value.tell, refusal.value.hint) == (WORDS, OutputWithheld.next_step)


def test_a_plan_without_outputs_releases_nothing() -> None:
    with pytest.raises(OutputWithheld):
        judge(plan(), {"group.a": 40, "rows": 40})
    with pytest.raises(OutputWithheld):
        release(plan(SCORES), GOOD, {}, {"scores": table([0, 0, 0])}, 0)


def test_every_rule_is_judged_and_leaves_evidence() -> None:
    inputs = {"group.bad": 11, "group.good": 400, "rows": 411}
    found = judge(plan(METRICS, SCORES), inputs)
    assert [(e.output, e.check, e.bound) for e in found] == [
        ("metrics", "group.bad", 10),
        ("metrics", "group.good", 10),
        ("scores", "rows at most", 1000),
    ]
    with pytest.raises(OutputWithheld):  # one rule withholds all
        judge(plan(METRICS, replace(SCORES, max_rows=410)), inputs)


@given(count=st.integers(10, 10**9), step=st.integers(10, 1000))
def test_counts_leave_as_multiples(count: int, step: int) -> None:
    rule = replace(ALIGNED, round_to=step)
    told = let_out(rule, {"group.aligned": count}, {"aligned": float(count)})["aligned"]
    assert told % step == 0 and abs(told - count) * 2 <= step
    assert rounded(5, 10) == 10 and rounded(4.9, 10) == 0


@given(auc=st.floats(0, 1), rows=st.integers(0, 10**6))
def test_reports_leave_rounded(auc: float, rows: int) -> None:
    told = let_out(METRICS, {"group.bad": 10}, {"auc": auc, "rows": float(rows)})
    assert set(told) == {"auc", "rows"}
    assert told["auc"] == round(told["auc"], 3) and abs(told["auc"] - auc) <= 0.0005001
    assert told["rows"] % 10 == 0


@given(steps=st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=30), step=st.integers(1, 50))
@settings(max_examples=30, deadline=None)
def test_scores_leave_in_whole_steps_and_nothing_beside_them(steps: list[int], step: int) -> None:
    made = pq.read_table(io.BytesIO(table([n * step for n in steps])))
    sink = io.BytesIO()
    pq.write_table(made.replace_schema_metadata({"hidden": "income=4711"}), sink)
    out = let_out(SCORES, {"rows": len(steps)}, {}, {"scores": sink.getvalue()}, step)
    assert out.schema.names == ["id", "points"] and out.schema.metadata is None
    assert all(value % step == 0 for value in out["points"].to_pylist())
    assert out["points"].to_pylist() == [n * step for n in steps]
