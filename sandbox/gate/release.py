"""The last step before sealing: RawResult -> Release, an allow-list and a pure function.

What the plan does not name does not leave; what it names leaves only in the form its kind declares and its class
allows: counts rounded, metrics rounded to three places, real numbers to their declared places, points as whole steps,
rows and bytes under their caps. A table is written anew, so that nothing travels beside its rows.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sandbox.errors import OutputWithheld
from sandbox.gate.judge import judge
from sandbox.kinds.kind import Form
from sandbox.model import Output, OutputClass, OutputRule, Plan, RawResult, Release

METRIC_PLACES = 3
METRICS = frozenset({"auc"})  # between 0 and 1
COUNTS = frozenset({"rows", "rows_trained", "rows_held"})  # of people; a report holds nothing else


def release(plan: Plan, raw: RawResult, tables: Mapping[str, bytes], form: Callable[[str], Form | None]) -> Release:
    """Return the outputs of the plan, reduced to what their rules allow.

    Args:
        tables: the tables that ``raw`` names, in Parquet.
        form: what the table of an output must look like; None where the output is no table.

    Raises:
        OutputWithheld: an output is missing, of another form, or above its caps; or the numbers fail the judge.
    """
    judge(plan, raw.gate_inputs)
    if set(tables) - {rule.name for rule in plan.outputs}:
        raise _withheld("the result has an output the plan does not name")
    return Release(tuple(_output(rule, raw, tables, form(rule.name)) for rule in plan.outputs))


def rounded(count: float, to: int) -> int:
    """Return ``count`` rounded to the nearest multiple of ``to``; halves go up."""
    return to * int((count + to / 2) // to)


def _output(rule: OutputRule, raw: RawResult, tables: Mapping[str, bytes], form: Form | None) -> Output:
    if form is not None:
        content, kind = _table(rule, raw.gate_inputs.get("rows", 0), tables, form), "parquet"
    elif rule.class_ is OutputClass.ROW_CONSENTED:
        raise _withheld(f"{rule.name} has no declared form")
    elif rule.class_ is OutputClass.AGGREGATE:
        if rule.name not in raw.figures:
            raise _withheld(f"{rule.name} is missing")
        content, kind = _json({rule.name: _count(rule.name, raw.figures[rule.name], rule)}), "json"
    else:
        if not raw.figures:
            raise _withheld(f"{rule.name} is empty")
        figures = {name: _figure(name, value, rule) for name, value in sorted(raw.figures.items())}
        content, kind = _json(figures), "json"
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


def _table(rule: OutputRule, rows: int, tables: Mapping[str, bytes], form: Form) -> bytes:
    if rule.name not in tables:
        raise _withheld(f"{rule.name} is missing")
    try:
        table = pq.read_table(io.BytesIO(tables[rule.name])).replace_schema_metadata(None)
    except (pa.ArrowException, OSError, ValueError):
        raise _withheld(f"{rule.name} is not a table") from None
    if table.column_names != list(form.names):
        raise _withheld(f"{rule.name} has other columns than declared")
    if table.num_rows > rule.max_rows:
        raise _withheld(f"{rule.name} has more than {rule.max_rows} rows")
    if form.labels is not None:
        named = form.labels.column_names
        if (table.num_rows != 1) if not named else not table.select(named).equals(form.labels):
            raise _withheld(f"{rule.name} has other groups than declared")
    elif rule.class_ is not OutputClass.MODEL and table.num_rows != rows:
        raise _withheld(f"{rule.name} has other rows than were judged")
    shown = _shown(rule, table, form)
    for place, name in enumerate(table.column_names):
        column = table.column(name)
        filled = column.is_valid().combine_chunks() if rule.class_ is OutputClass.NOISY else shown
        if filled is None or (form.labels is not None and name in form.labels.column_names):
            judged = _column(rule, name, column, form)
        else:
            judged = _column(rule, name, column.filter(filled), form)
            places = filled.to_numpy(zero_copy_only=False)
            judged = judged.take(pa.array(np.cumsum(places) - 1, mask=~places))
        table = table.set_column(place, name, judged)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def _shown(rule: OutputRule, table: pa.Table, form: Form) -> pa.Array | None:
    """Return which lines hold numbers, where a rule leaves small groups blank; None where every line must hold them.

    A line is blank as a whole or not at all: a part of it would tell about the rest. Where there is noise, nothing
    tells of anything else, and each number is blank by itself.
    """
    if not rule.suppress or form.labels is None or rule.class_ is OutputClass.NOISY:
        return None
    values = [name for name in form.names if name not in form.labels.column_names]
    shown = table.column(values[0]).is_valid().combine_chunks()
    for name in values:
        _require(rule, name, table.column(name).is_valid().combine_chunks().equals(shown))
    if not pc.any(shown).as_py():
        raise _withheld(f"{rule.name}: every group is blank")
    return shown


def _column(rule: OutputRule, name: str, column: pa.ChunkedArray, form: Form) -> pa.Array:
    whole = column.combine_chunks()
    if name in form.counts:
        _require(rule, name, pa.types.is_integer(whole.type) and not whole.null_count)
        counts = whole.to_numpy().astype(np.int64)
        if bool((counts < rule.min_group).any()):
            raise _withheld(f"{rule.name}: a group of {name} is below {rule.min_group}")
        return pa.array([rounded(count, rule.round_to) for count in counts.tolist()], pa.int64())
    if name in form.places:
        _require(rule, name, pa.types.is_float64(whole.type) and not whole.null_count)
        values = whole.to_numpy()
        _require(rule, name, bool(np.isfinite(values).all()))
        return pa.array([round(value, form.places[name]) for value in values.tolist()], pa.float64())
    if name in form.steps:
        _require(rule, name, pa.types.is_integer(whole.type) and not whole.null_count and form.steps[name] >= 1)
        if not pc.all(pc.equal(pc.multiply(pc.divide(whole, form.steps[name]), form.steps[name]), whole)).as_py():
            raise _withheld(f"{rule.name}: {name} is no multiple of {form.steps[name]}")
        return whole
    if form.labels is not None and name in form.labels.column_names:
        return whole  # compared as a whole above
    _require(rule, name, name in form.plain and form.plain[name] in (None, whole.type))
    return whole


def _require(rule: OutputRule, name: str, holds: bool) -> None:
    if not holds:
        raise _withheld(f"{rule.name}: {name} holds something else than declared")


def _json(value: Mapping[str, float | int]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _withheld(reason: str) -> OutputWithheld:
    return OutputWithheld(reason, stage="release")
