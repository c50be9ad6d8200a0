"""One SELECT over one owner's columns, or over two owners' shared rows, answered by DuckDB in the jail.

    admission    the statement is read against the scenario: functions of measures, by dimensions   ``tee_sim.sql``
    worker       the columns it uses, and nothing that says who a row is about  --> jail
    jail         first who is behind every number, then the numbers                                 one program
    worker       what gates judge (``asked``), sketches of the people (``population``), the table, kept sealed

Security: the statement never reaches DuckDB as it was written, and no merchant's code is in the jail: what it keeps in
          is a defect of DuckDB or of ours. Sizes of groups are counted twice, by DuckDB and here, and have to agree.
Reveals:  to the owner: the statement. To the recipient: the table, numbers of rows rounded.
Output:   "table": the groups, and a column a function. A total over a dimension has no level: null. Where the scenario
          leaves small groups blank, nothing stands in them but their levels.
Errors:   ``InvalidSpec`` with line and column for what is no statement or not allowed, before any work; ``WrongState``
          for a value outside its range.
Not here: statements over several tables. Of two owners the rows are joined before (``joint``): one table has the
          columns of both.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sandbox.errors import IntegrityFailed, InvalidSpec, JobFailed
from sandbox.kinds import cells, confined, joint, margins
from sandbox.kinds.asked import Asked
from sandbox.kinds.cells import Codes, Mask
from sandbox.kinds.kind import Conditions, Form, Kind, Task, at
from sandbox.model import (
    DatasetUse,
    JobSpec,
    OutputClass,
    Party,
    PartyRole,
    Plan,
    Population,
    QuerySpec,
    RawResult,
    Reveal,
    Scenario,
)
from sandbox.tee_sim import sql
from sandbox.tee_sim.sql import Grouping, Query, Role, TableGrant
from sandbox.tee_sim.sql_terms import Statement
from sandbox.tee_sim.stream import read_stream

ENGINE: Final = "duckdb"
TABLE: Final = "table"
NAME: Final = "data"  # of the one table a statement reads
_ROWS: Final = "row"  # a column for tables of which a statement uses none
_PER_BYTE: Final = 8.0  # of memory, for each byte that goes in: what DuckDB keeps of rows while it counts
_POPULATIONS, _RESULT = "populations", "result"
_MOST_LINES: Final = 1 << 20
_PROGRAM: Final = '''"""Answers statements one after the other, as the jail answers one; after one that fails, none."""

import sys
import traceback

import __main__


def run(tables, params):
    found = {}
    for name, text in params["statements"].items():
        try:
            found |= {name: __main__.run_sql({**params, "sql": text}, tables, {})["result"]}
        except Exception:
            traceback.print_exc(file=sys.stderr)
            break
    return found
'''


def compute(task: Task) -> RawResult:
    """Leave the table, sealed at this node, and what its gate judges; an owner whose rows travel, only the latter."""
    is_joint, host = bool(_spec(task.spec).alignment), joint.host(task.spec, task.scenario)
    if is_joint and task.me != host:
        joint.give(task, task.fields)
        numbers, _ = joint.hear(task)
        return RawResult(numbers, {}, {}, (joint.everybody(task),))
    table = _shared(task) if is_joint else _load(task)
    grant = _grant(_uses(task.scenario, task.spec), {field.name: field.type for field in table.schema})
    rule = next(rule for rule in task.plan.outputs if rule.name == TABLE)
    spec = _spec(task.spec)
    query = sql.analyse(spec.sql, [grant], _groupings(task.scenario), task.scenario.measures, rule.min_group)
    found = _answer(task, table, query)
    task.progress(1, 2)
    asked = Asked.of(query.statement, found[_POPULATIONS])
    codes = _codes(table, query.statement)
    sizes = _sizes(codes, query.statement)
    if not np.array_equal(_chosen(sizes, query.statement), asked.people):
        raise IntegrityFailed("the jail counted other people than the node", stage="compute")
    if _RESULT not in found:
        raise JobFailed("the statement could not be answered; the jail did not say why", stage="compute")
    blank = asked.blank(rule.min_group) if rule.suppress else None
    sink = io.BytesIO()
    pq.write_table(_table(query, found[_RESULT], asked.shown(blank)), sink)
    judged = asked.gate_inputs(blank)
    known = _people(task, query.statement, codes, sizes, blank)
    if is_joint:
        joint.tell(task, joint.other_owner(task), judged)
    if is_joint and task.plan.recipient_node != task.me:
        task.keep(f"share-for-{task.plan.recipient_node}", joint.pack({TABLE: sink.getvalue()}, judged))
        return RawResult(judged, {}, {}, known)
    task.keep(TABLE, sink.getvalue())
    return RawResult(judged, {}, {TABLE: TABLE}, known)


def finish(task: Task) -> RawResult:
    """At the recipient's node, where the enclave is another's: take the table."""
    return joint.finish(task, frozenset({TABLE}))


# --- in the worker ----------------------------------------------------------------------------------------------------


def _load(task: Task) -> pa.Table:
    """Return the columns that the plan names; for a statement that uses none, as many rows."""
    if task.fields:
        return task.table(task.fields)
    return pa.table({_ROWS: pa.nulls(task.rows[task.me], pa.bool_())})


def _shared(task: Task) -> pa.Table:
    """Return the shared rows of both owners, with the columns that the plan names."""
    other = joint.other_owner(task)
    others = next(party.fields for party in task.plan.parties if party.node_id == other)
    return joint.take(task, other, task.fields, others)


def _answer(task: Task, table: pa.Table, query: Query) -> dict[str, pa.Table]:
    """Run both statements in the jail; the second is missing where it failed."""
    allowed = confined.limits(task, table.nbytes, _PER_BYTE)
    statements = {_POPULATIONS: query.populations, _RESULT: query.sql}
    params = {"statements": statements, "cores": allowed.cores, "memory_mib": allowed.memory_mib}
    program = task.workspace.path / "program"
    program.mkdir()
    (program / "ask.py").write_text(_PROGRAM, encoding="ascii")
    (program / "program.json").write_text(json.dumps({"form": "python", "entry": "ask.py"}), encoding="ascii")
    outcome = confined.run(task, program, {NAME: table}, json.dumps(params).encode(), allowed)
    if _POPULATIONS not in outcome.tables or not outcome.tables.keys() <= statements.keys():
        raise JobFailed("the jail did not answer the statement", stage="compute")
    names = {_RESULT: [column.name for column in query.columns]}
    return {name: read_stream(found, _MOST_LINES, names.get(name)) for name, found in outcome.tables.items()}


def _table(query: Query, found: pa.Table, shown: Sequence[int]) -> pa.Table:
    """Return the result with the levels that are expected, and nothing else in lines that stay blank."""
    labels = _labels(query.statement)
    if found.num_rows != len(query.statement.places):
        raise JobFailed("the jail left another number of groups than the statement has", stage="compute")
    is_shown = pa.array(np.isin(np.arange(found.num_rows), shown))
    columns = {name: labels.column(name) for name in labels.column_names}
    for column in query.columns:
        if column.role is not Role.LABEL:
            kind = pa.int64() if column.role is Role.COUNT else pa.float64()
            values = found.column(column.name).cast(kind)
            columns[column.name] = pc.if_else(is_shown, values, None)
        elif not found.column(column.name).equals(labels.column(column.name)):
            raise JobFailed("the jail left other groups than the statement has", stage="compute")
    return pa.table(columns)


def _codes(table: pa.Table, statement: Statement) -> Codes:
    """Return the cell each row is in, of all levels there are; -1 if it is in none, or left out by a condition."""
    codes = cells.group_codes(table, [axis.grouping.dimension for axis in statement.groups])
    for axis in statement.axes:
        own = cells.group_codes(table, [axis.grouping.dimension])
        codes = np.where(np.isin(own, axis.chosen), codes, -1).astype(np.int32)
    return codes


def _sizes(codes: Codes, statement: Statement) -> cells.Whole:
    """Return how many people each cell has, of all levels there are."""
    count = int(np.prod([len(axis.grouping.levels) for axis in statement.groups], dtype=np.int64))
    return np.bincount(codes[codes >= 0], minlength=count).astype(np.int64)


def _chosen(sizes: cells.Whole, statement: Statement) -> cells.Whole:
    """Return, of all cells there are, those of the result."""
    whole = sizes.reshape(tuple(len(axis.grouping.levels) for axis in statement.groups))
    return whole[np.ix_(*(axis.chosen for axis in statement.groups))].ravel()


def _people(
    task: Task, statement: Statement, codes: Codes, sizes: cells.Whole, blank: Mask | None
) -> tuple[Population, ...]:
    """Return who is behind every group, and behind every total over them."""
    whole = tuple(len(axis.grouping.levels) + 1 for axis in statement.groups)
    hidden: Mask = np.ones(whole, np.bool_)
    lines = np.ix_(*([*axis.chosen, len(axis.grouping.levels)] for axis in statement.groups))
    hidden[lines] = False if blank is None else blank.reshape(hidden[lines].shape)
    dimensions = [axis.grouping.dimension for axis in statement.groups]
    keys = [joint.shared_keys(task)] if _spec(task.spec).alignment else task.key_batches()
    return margins.populations(task.population_key, keys, codes, dimensions, sizes, hidden.ravel())


# --- what the kind declares -------------------------------------------------------------------------------------------


def columns(spec: JobSpec, scenario: Scenario, uses: Sequence[DatasetUse]) -> tuple[tuple[str, ...], ...]:
    """Return the columns that the statement uses; of what says who a row is about, none."""
    statement = _read(spec, scenario, uses)
    if _spec(spec).alignment:
        return joint.divided(statement.used[NAME], uses)
    return (tuple(name for name in statement.used[NAME] if name not in uses[0].key),)


def engines(spec: JobSpec, conditions: Conditions) -> tuple[str, ...]:
    """Return the one engine."""
    return (ENGINE,)


def reveals(spec: JobSpec, parties: Sequence[Party], scenario: Scenario, engine: str) -> tuple[Reveal, ...]:
    """Say who learns what."""
    owner = joint.host(spec, scenario) or at(parties, PartyRole.LEFT)
    others = [party.node_id for party in parties if party.node_id != owner]
    sizes, sizes_zh = "the statement; how many of the shared rows each group has", "查询语句；各组在共有行中的行数"
    return (
        *((joint.reveals(owner), *(Reveal(other, sizes, sizes_zh) for other in others)) if others else ()),
        Reveal(
            owner,
            "the statement; it runs in a simulated enclave of this node",
            "查询语句；在本节点的模拟可信环境中执行",
        ),
        Reveal("recipient", "the table the statement asks for; numbers of rows rounded", "语句所求的结果表；行数取整"),
    )


def shares(plan: Plan, spec: JobSpec, scenario: Scenario) -> Mapping[str, tuple[str, ...]]:
    """Return that nobody sends anything but the enclave, and only where the recipient's node is another."""
    return joint.shares(plan, spec, scenario)


def form(spec: JobSpec, scenario: Scenario, output: str) -> Form | None:
    """Return that the table has every group, in order, and nothing but numbers."""
    statement = _read(spec, scenario, _uses(scenario, spec))
    told = sql.result_columns(statement)
    counts = frozenset(column.name for column in told if column.role is Role.COUNT)
    places = {column.name: column.places for column in told if column.role is Role.REAL}
    return Form(tuple(column.name for column in told), _labels(statement), counts=counts, places=places)


def _read(spec: JobSpec, scenario: Scenario, uses: Sequence[DatasetUse]) -> Statement:
    return sql.read(_spec(spec).sql, [_grant(uses, {})], _groupings(scenario), scenario.measures)


def _grant(uses: Sequence[DatasetUse], types: Mapping[str, pa.DataType]) -> TableGrant:
    """Return what a statement may read of a dataset, or of two side by side; nobody has two rows in one."""
    names = [name for use in uses for name in (*use.fields, use.label) if name]
    return TableGrant(NAME, {name: types.get(name) for name in names}, dict.fromkeys(uses[0].key))


def _groupings(scenario: Scenario) -> tuple[Grouping, ...]:
    return tuple(Grouping(dimension, cells.levels(dimension)) for dimension in scenario.dimensions)


def _labels(statement: Statement) -> pa.Table:
    """Return the groups in order, as the first columns of the result."""
    names = [axis.name for axis in statement.groups]
    lines = sql.labels(statement)
    return pa.table({name: pa.array([line[at] for line in lines], pa.string()) for at, name in enumerate(names)})


def _uses(scenario: Scenario, spec: JobSpec) -> tuple[DatasetUse, ...]:
    """Return what the scenario says of the dataset; over an alignment, of both that it has."""
    dataset = _spec(spec).dataset
    if dataset is None:
        return scenario.datasets
    found = [use for use in scenario.datasets if (use.code, use.version) == (dataset.code, dataset.version)]
    if not found:
        raise InvalidSpec(tell="the scenario does not name this dataset version")
    return (found[0],)


def _spec(spec: JobSpec) -> QuerySpec:
    if not isinstance(spec.kind, QuerySpec):
        raise InvalidSpec("not a query spec")
    return spec.kind


KIND = Kind(
    outputs={TABLE: OutputClass.AGGREGATE},
    chosen=lambda spec: frozenset({TABLE}),
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
