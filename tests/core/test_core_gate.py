"""The gate: what it lets out has the allowed shape, and whatever is missing withholds everything."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from core_builders import BANK, JOB, departments, facts, psi, scenario, totals
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.errors import OutputWithheld
from sandbox.gate.judge import judge, judge_sizes
from sandbox.gate.release import release, rounded
from sandbox.kinds import KINDS
from sandbox.kinds.kind import Form
from sandbox.model import (
    BatchScore,
    DatasetRef,
    JobKind,
    JobSpec,
    OutputRule,
    Party,
    PartyRole,
    Plan,
    RawResult,
    ScoreScope,
    ScoreSpec,
)
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


def reordered(points: list[int]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(table(points))).select(["points", "id"]), sink)
    return sink.getvalue()


SCORING = JobSpec("b", b"S" * 32, ScoreSpec("ef" * 16, BatchScore(ScoreScope.HOLDOUT)))


def forms(step: int = 5) -> Any:
    """What the kinds themselves declare of their outputs."""
    held = scenario(score_step=step)
    return lambda name: KINDS[JobKind.SCORE].form(SCORING, held, name)


def let_out(rule: OutputRule, inputs: Any, figures: Any, tables: Any = None, step: int = 5) -> Any:
    raw = RawResult(inputs, figures, {})
    (output,) = release(plan(rule), raw, tables or {}, forms(step)).outputs
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
    ("fewer rows than judged", SCORES, GOOD, {}, {"scores": table([5, 10])}),
    ("fewer rows than the rule's minimum", replace(SCORES, min_group=4), GOOD, {}, {"scores": table([5, 10, 15])}),
    ("columns in another order", SCORES, GOOD, {}, {"scores": reordered([5, 10, 15])}),
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
        release(plan(rule), RawResult(inputs, figures, {}), tables, forms())
    assert (refusal.value.tell, refusal.value.hint) == (WORDS, OutputWithheld.next_step)


def test_a_plan_without_outputs_releases_nothing() -> None:
    with pytest.raises(OutputWithheld):
        judge(plan(), {"group.a": 40, "rows": 40})
    with pytest.raises(OutputWithheld):
        release(plan(), RawResult({"group.a": 40, "rows": 40}, {"aligned": 40.0}, {}), {}, forms())
    with pytest.raises(OutputWithheld):
        release(plan(SCORES), RawResult(GOOD, {}, {}), {"scores": table([0, 0, 0])}, forms(0))


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


def test_who_is_left_out_is_nobody_or_a_group() -> None:
    """Two tables may differ by exactly these people."""
    groups = {"group.0": 40, "rows": 40}
    for rest, passes in ((0, True), (1, False), (9, False), (10, True), (-1, False)):
        if passes:
            assert [e.check for e in judge(plan(ALIGNED), {**groups, "rest.0": rest})] == ["group.0"]
            continue
        with pytest.raises(OutputWithheld) as refusal:
            judge(plan(ALIGNED), {**groups, "rest.0": rest})
        assert refusal.value.tell == WORDS
    with pytest.raises(OutputWithheld):  # a rest is no group
        judge(plan(ALIGNED), {"rest.0": 40, "rows": 40})


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


# --- tables of totals -----------------------------------------------------------------------------------------------

AGGREGATE = totals()
HELD = departments()
TOTALS = next(rule for rule in HELD.outputs if rule.name == "totals")
FORM = KINDS[JobKind.AGGREGATE].form(AGGREGATE, HELD, "totals")


def written(columns: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def made(**changes: Any) -> dict[str, Any]:
    whole = {"city": ["a", "b"], "rows": [41, 57], "income": [1234.56789, 7.0011]}
    return {**whole, **changes}


def totals_of(columns: dict[str, Any], form: Form | None = FORM, **rule: Any) -> pa.Table:
    raw = RawResult({"rows": 98, "group.0": 41, "group.1": 57}, {}, {"totals": "totals"})
    released = release(plan(replace(TOTALS, **rule)), raw, {"totals": written(columns)}, lambda name: form)
    (output,) = released.outputs
    assert output.format == "parquet"
    return pq.read_table(io.BytesIO(output.content))


def test_a_table_of_totals_leaves_rounded() -> None:
    assert FORM is not None and FORM.names == ("city", "rows", "income") and FORM.counts == {"rows"}
    left = totals_of(made())
    assert left.to_pydict() == {"city": ["a", "b"], "rows": [40, 60], "income": [1234.57, 7.0]}
    assert left.schema.metadata is None


TABLES: dict[str, dict[str, Any]] = {
    "a further column": made(names=["x", "y"]),
    "a column less": {"city": ["a", "b"], "rows": [41, 57]},
    "columns in another order": {"rows": [41, 57], "city": ["a", "b"], "income": [1.0, 2.0]},
    "another name": {"town": ["a", "b"], "rows": [41, 57], "income": [1.0, 2.0]},
    "groups in another order": made(city=["b", "a"]),
    "a group less": {"city": ["a"], "rows": [41], "income": [1.0]},
    "a group more": {"city": ["a", "b", "b"], "rows": [41, 57, 57], "income": [1.0, 2.0, 2.0]},
    "other groups": made(city=["a", "person-7"]),
    "a missing label": made(city=["a", None]),
    "labels of another type": made(city=pa.array([b"a", b"b"])),
    "a group below the minimum": made(rows=[41, 9]),
    "a negative count": made(rows=[41, -50]),
    "a missing count": made(rows=[41, None]),
    "a count that is no whole number": made(rows=[41.5, 57.5]),
    "a count as text": made(rows=["41", "57"]),
    "a missing sum": made(income=[1.0, None]),
    "no number": made(income=[1.0, float("nan")]),
    "no finite number": made(income=[1.0, float("inf")]),
    "sums as whole numbers": made(income=[1, 2]),
    "sums as text": made(income=["1", "2"]),
    "sums of single precision": made(income=pa.array([1.0, 2.0], pa.float32())),
    "lists for sums": made(income=[[1.0], [2.0]]),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_table_of_another_form_is_withheld(case: str) -> None:
    with pytest.raises(OutputWithheld) as refusal:
        totals_of(TABLES[case])
    assert (refusal.value.tell, refusal.value.hint, refusal.value.stage) == (WORDS, OutputWithheld.next_step, "release")
    assert "person-7" not in str(refusal.value)


def test_caps_hold_for_totals_too() -> None:
    assert totals_of(made(), max_rows=2, max_bytes=4000)
    for name, most in (("max_rows", 1), ("max_bytes", 100)):
        with pytest.raises(OutputWithheld):
            totals_of(made(), FORM, **{name: most})


def test_every_number_of_rows_is_judged_also_those_that_a_measure_has() -> None:
    inputs = {"rows": 98, "group.0": 41, "group.1": 57, "group.0.0": 41, "group.1.0": 9}
    raw = RawResult(inputs, {}, {})
    with pytest.raises(OutputWithheld, match=r"1\.0 is below 10"):
        release(plan(TOTALS), raw, {"totals": written(made())}, lambda name: FORM)


def test_a_table_without_groups_has_one_line() -> None:
    form = Form(("rows", "income"), pa.table({}), frozenset({"rows"}), {"income": 2})
    assert totals_of({"rows": [98], "income": [1.005]}, form).to_pydict() == {"rows": [100], "income": [1.0]}
    for lines in (0, 2):
        columns = {"rows": pa.array([98] * lines, pa.int64()), "income": pa.array([1.0] * lines, pa.float64())}
        with pytest.raises(OutputWithheld):
            totals_of(columns, form)


def test_an_output_that_nobody_declared_does_not_leave() -> None:
    raw = RawResult({"rows": 98, "group.0": 98}, {}, {})
    content = written(made())
    for tables in ({}, {"totals": content, "more": content}, {"more": content}):
        with pytest.raises(OutputWithheld):
            release(plan(TOTALS), raw, tables, lambda name: FORM)
    with pytest.raises(OutputWithheld, match="no declared form"):
        release(plan(SCORES), RawResult(GOOD, {}, {}), {}, lambda name: None)
    with pytest.raises(OutputWithheld):  # a column that the form names without saying what it holds
        totals_of(made(), Form(("city", "rows", "income"), FORM.labels if FORM else None, frozenset({"rows"})))


@given(counts=st.lists(st.integers(10, 10**6), min_size=2, max_size=2), step=st.integers(10, 500))
@settings(max_examples=20, deadline=None)
def test_no_exact_count_leaves(counts: list[int], step: int) -> None:
    left = totals_of(made(rows=counts), round_to=step)["rows"].to_pylist()
    assert all(told % step == 0 and abs(told - true) * 2 <= step for told, true in zip(left, counts, strict=True))


# --- rows of people -------------------------------------------------------------------------------------------------

JOINED = next(rule for rule in HELD.outputs if rule.name == "joined")
PLAIN = Form(("id", "late"), plain={"id": pa.string(), "late": None})


def rows_of(columns: dict[str, Any], judged: int = 3, form: Form = PLAIN) -> pa.Table:
    raw = RawResult({"rows": judged}, {}, {})
    (output,) = release(plan(JOINED), raw, {"joined": written(columns)}, lambda name: form).outputs
    return pq.read_table(io.BytesIO(output.content))


def test_rows_leave_as_they_are_with_what_is_missing() -> None:
    columns = {"id": ["a", "b", "c"], "late": pa.array([1, None, 3], pa.int64())}
    assert rows_of(columns).to_pydict() == {"id": ["a", "b", "c"], "late": [1, None, 3]}


@pytest.mark.parametrize(
    "columns",
    [
        {"id": ["a", "b"], "late": [1, 2]},
        {"id": ["a", "b", "c", "d"], "late": [1, 2, 3, 4]},
        {"id": [1, 2, 3], "late": [1, 2, 3]},
        {"late": [1, 2, 3], "id": ["a", "b", "c"]},
        {"id": ["a", "b", "c"], "late": [1, 2, 3], "city": ["x", "y", "z"]},
    ],
)
def test_other_rows_or_columns_than_judged_are_withheld(columns: dict[str, Any]) -> None:
    with pytest.raises(OutputWithheld):
        rows_of(columns)


# --- before the first round -----------------------------------------------------------------------------------------


def owners(*rows: int) -> tuple[Plan, dict[str, int]]:
    names = ("bank", "operator", "witness")[: len(rows)]
    parties = tuple(Party(name, PartyRole.LEFT, DatasetRef(name, 1), bytes(32), ()) for name in names)
    return replace(PLAN, parties=parties, outputs=(ALIGNED,)), dict(zip(names, rows, strict=True))


def test_a_set_below_the_minimum_is_withheld_before_anything_is_sent() -> None:
    judge_sizes(*owners(10, 10))
    judge_sizes(*owners(10, 900, 10))
    for sizes in ((9, 900), (900, 9), (0, 900), (10, 900, 9)):
        with pytest.raises(OutputWithheld) as refusal:
            judge_sizes(*owners(*sizes))
        assert refusal.value.tell == WORDS
    one, _ = owners(10, 10)
    with pytest.raises(OutputWithheld):  # nobody said how many
        judge_sizes(one, {"bank": 10})


def test_a_party_without_data_has_no_size_and_rows_of_people_need_one() -> None:
    one, rows = owners(10, 10)
    compute = Party("witness", PartyRole.COMPUTE, None, b"", ())
    judge_sizes(replace(one, parties=(*one.parties, compute)), rows)
    members = replace(JOINED, min_group=0)
    judge_sizes(replace(one, outputs=(members,)), {"bank": 1, "operator": 1})
    with pytest.raises(OutputWithheld):
        judge_sizes(replace(one, outputs=(members,)), {"bank": 0, "operator": 1})
    with pytest.raises(OutputWithheld):  # the strictest of all rules counts
        judge_sizes(replace(one, outputs=(members, ALIGNED)), {"bank": 9, "operator": 50})


def test_rows_of_people_have_the_minimum_that_their_rule_names() -> None:
    for rows, least, passes in ((1, 0, True), (1, 1, True), (9, 10, False), (10, 10, True), (0, 0, False)):
        rule = replace(JOINED, min_group=least)
        if passes:
            assert judge(plan(rule), {"rows": rows})
        else:
            with pytest.raises(OutputWithheld):
                judge(plan(rule), {"rows": rows})
