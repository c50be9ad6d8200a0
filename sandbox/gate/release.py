"""The last step before sealing: RawResult -> Release, an allow-list and a pure function.

What the plan does not name does not leave; what it names leaves only in the shape its class allows: counts rounded,
metrics rounded to three places, scores as whole steps of points, rows and bytes under their caps.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sandbox.errors import OutputWithheld
from sandbox.gate.judge import judge
from sandbox.model import Output, OutputClass, OutputRule, Plan, Release

METRIC_PLACES = 3
METRICS = frozenset({"auc"})  # between 0 and 1
COUNTS = frozenset({"rows", "rows_trained", "rows_held"})  # of people; a report holds nothing else


def release(
    plan: Plan,
    gate_inputs: Mapping[str, int],
    figures: Mapping[str, float],
    tables: Mapping[str, bytes],
    score_step: int,
) -> Release:
    """Return the outputs of the plan, reduced to what their rules allow.

    Raises:
        OutputWithheld: an output is missing, of another shape, or above its caps; or the numbers fail the judge.
    """
    judge(plan, gate_inputs)
    unknown = set(tables) - {rule.name for rule in plan.outputs}
    if unknown:
        raise _withheld("the result has an output the plan does not name")
    rows = gate_inputs.get("rows", 0)
    return Release(tuple(_output(rule, rows, figures, tables, score_step) for rule in plan.outputs))


def rounded(count: float, to: int) -> int:
    """Return ``count`` rounded to the nearest multiple of ``to``; halves go up."""
    return to * int((count + to / 2) // to)


def _output(
    rule: OutputRule, rows: int, figures: Mapping[str, float], tables: Mapping[str, bytes], score_step: int
) -> Output:
    if rule.class_ is OutputClass.ROW_CONSENTED:
        content, kind = _scores(rule, rows, tables, score_step), "parquet"
    elif rule.class_ is OutputClass.AGGREGATE:
        if rule.name not in figures:
            raise _withheld(f"{rule.name} is missing")
        content, kind = _json({rule.name: _count(rule.name, figures[rule.name], rule)}), "json"
    else:
        if not figures:
            raise _withheld(f"{rule.name} is empty")
        content, kind = _json({name: _figure(name, value, rule) for name, value in sorted(figures.items())}), "json"
    if len(content) > rule.max_bytes:
        raise _withheld(f"{rule.name} is larger than {rule.max_bytes} bytes")
    return Output(rule.name, rule.class_, kind, content)


def _figure(name: str, value: float, rule: OutputRule) -> float | int:
    if name in METRICS:
        if not 0 <= value <= 1:
            raise _withheld(f"{rule.name}: {name} is no ratio")
        return round(value, METRIC_PLACES)
    if name not in COUNTS:
        raise _withheld(f"{rule.name} has a figure that no report may hold")
    return _count(name, value, rule)


def _count(name: str, value: float, rule: OutputRule) -> int:
    if not math.isfinite(value) or value < 0 or value != int(value):
        raise _withheld(f"{rule.name}: {name} is not a count")
    return rounded(value, rule.round_to)


def _scores(rule: OutputRule, rows: int, tables: Mapping[str, bytes], score_step: int) -> bytes:
    if rule.name not in tables:
        raise _withheld(f"{rule.name} is missing")
    try:
        table = pq.read_table(io.BytesIO(tables[rule.name]))
    except (pa.ArrowException, OSError, ValueError):
        raise _withheld(f"{rule.name} is not a table") from None
    if table.schema.names != ["id", "points"] or not _are_scores(table.schema):
        raise _withheld(f"{rule.name} has other columns than id and points")
    if table.num_rows > rule.max_rows:
        raise _withheld(f"{rule.name} has more than {rule.max_rows} rows")
    if table.num_rows != rows or score_step < 1:
        raise _withheld(f"{rule.name} has other rows than were judged, or its points no step")
    points = table.column("points")
    whole = pc.multiply(pc.divide(points, score_step), score_step)
    if points.null_count or not pc.all(pc.equal(points, whole)).as_py():
        raise _withheld(f"{rule.name} has points that are no multiple of {score_step}")
    # Written anew: what a file carries beside its rows (metadata, statistics of other rows) does not leave.
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(None), sink)
    return sink.getvalue()


def _are_scores(schema: pa.Schema) -> bool:
    return bool(pa.types.is_string(schema.field("id").type) and pa.types.is_integer(schema.field("points").type))


def _json(value: Mapping[str, float | int]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _withheld(reason: str) -> OutputWithheld:
    return OutputWithheld(reason, stage="release")
