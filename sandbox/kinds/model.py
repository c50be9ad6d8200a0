"""The merchant's own code over one owner's columns, or over two owners' shared rows, in a jail next to them.

    bundle, approved by its measurement --+
    columns, declared by the bundle ------+--> jail --> tables as declared --> the gate --> two reviewers --> recipient

    class in the manifest   output    its class       what it is                      who looks
    row                     scores    ROW_CONSENTED   one row a person, by the key    the gate, and people if asked
    aggregate               summary   MODEL           totals, measures of quality     the gate, and two people
    model                   learnt    MODEL           weights                         the gate, and two people

Reveals:  to the recipient what the bundle declares, made by code that saw every row: columns, places and bounds are
          held, what is said in them is the merchant's. Nobody can vouch for the group behind a number of a stranger's
          code, so people look. To the owner's node, whose enclave is SIMULATED: the bundle.
Security: a bundle has one input and at most one table a class. It runs only if the scenario names its measurement, if
          the columns it reads are the scenario's, and if what it gives out has a rule. What it prints is dropped.
Artefacts: a Parquet under the name of every output; "sample", in UTF-8, of those that people look at; "drawn", whose
          letters are asked for.
Errors:   ``JobFailed``, ``DeadlinePassed``, ``Cancelled`` and ``OutputWithheld`` in their fixed words; nothing in their
          details comes from inside the jail.
Not here: the jail (``confined``), who may open the rows (``policy.enclaves``).
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sandbox.errors import (
    Cancelled,
    DeadlinePassed,
    IntegrityFailed,
    InvalidSpec,
    JobFailed,
    OutputWithheld,
    PolicyRefused,
    WrongState,
)
from sandbox.kinds import confined, joint
from sandbox.kinds.drawn import draw, is_asked
from sandbox.kinds.kind import Conditions, Form, Kind, Task, at
from sandbox.kinds.population import WHOLE, Sketcher
from sandbox.model import (
    DatasetRef,
    DatasetUse,
    Environment,
    JobKind,
    JobSpec,
    ModelSpec,
    OutputClass,
    Party,
    PartyRole,
    Plan,
    Population,
    RawResult,
    Reveal,
    Scenario,
)
from sandbox.tee_sim.attest import SIMULATED, measure_runtime
from sandbox.tee_sim.bundle import parse
from sandbox.tee_sim.enclave import Enclave, Ran, read_params
from sandbox.tee_sim.levels import told_by
from sandbox.tee_sim.manifest import Manifest, OutputTable, ResultClass, Type

SCORES, SUMMARY, LEARNT = "scores", "summary", "learnt"
SAMPLE: Final = "sample"
PRINTED: Final = "printed_bytes"  # the figure that says how much the code printed; the node notes it in its log
SAMPLE_ROWS: Final = 20
_UNAPPROVED: Final = "the scenario does not approve this bundle"
_SAMPLE_SIZE: Final = 65536  # characters
_BESIDE: Final = " | "  # a tab is a control character, and screens replace those
_PER_BYTE: Final = 8.0  # of memory for each byte of rows: frames are made of them, and copies of frames
_OUTPUTS: Final[Mapping[ResultClass, str]] = {
    ResultClass.ROW: SCORES,
    ResultClass.AGGREGATE: SUMMARY,
    ResultClass.MODEL: LEARNT,
}
_ARROW: Final[Mapping[Type, pa.DataType]] = {
    Type.INTEGER: pa.int64(),
    Type.NUMBER: pa.float64(),
    Type.STRING: pa.string(),
    Type.BOOLEAN: pa.bool_(),
    Type.DATE: pa.date32(),
}


def check_manifest(manifest: Manifest) -> None:
    """Refuse a bundle that no job could run: when it is packed, when it is handed in, and before it runs.

    Raises:
        InvalidSpec: it has several inputs, several tables of one class, or rows about persons without a key.
    """
    if len(manifest.inputs) != 1:
        raise InvalidSpec(tell="a bundle that a node runs reads one table: [inputs] has exactly one member")
    for class_, output in _OUTPUTS.items():
        named = [name for name, table in manifest.outputs.items() if table.class_ is class_]
        if len(named) > 1:
            raise InvalidSpec(
                tell=f"a bundle that a node runs has at most one table of class {class_}: it leaves as {output}; "
                f"this one has {' and '.join(sorted(named))}",
                hint="put them into one table, or make two bundles",
            )
    for name, table in manifest.outputs.items():
        if table.class_ is ResultClass.ROW and not table.key:
            raise InvalidSpec(
                tell=f"outputs.{name}: rows about persons need of and key, so that each is about one person"
            )


def of(manifest: Manifest) -> Kind:
    """Return this kind as one bundle makes it: its outputs, its columns, and their forms."""
    return dataclasses.replace(
        KIND,
        chosen=lambda spec: frozenset(_tables(manifest)),
        columns=functools.partial(columns, manifest),
        form=functools.partial(form, manifest),
    )


def columns(
    manifest: Manifest, spec: JobSpec, scenario: Scenario, uses: Sequence[DatasetUse]
) -> tuple[tuple[str, ...], ...]:
    """Return the columns that a bundle reads, the key apart, if the scenario lets it do what it declares.

    Raises:
        InvalidSpec: the bundle is none that a node runs, or the parameters are not those it declares.
        PolicyRefused: the scenario does not name it, or not a column it reads, or has no rule for what it gives out.
    """
    wanted, use = _spec(spec), uses[0]  # over an alignment, rows about persons are by the left owner's key
    if wanted.bundle not in scenario.bundles:
        _unapproved()
    check_manifest(manifest)
    read_params(manifest, params(wanted))
    (read,) = manifest.inputs.values()
    if wanted.alignment:
        _check_rows_go_home(manifest, scenario, use)
    granted = [name for each in uses for name in (*each.fields, each.label)]
    if not _gives_rows(manifest) and (keys := [name for name in read if name in use.key]):
        raise PolicyRefused(tell=f"the bundle reads the key {keys[0]!r}, and gives out no rows about persons")
    if strange := [name for name in read if name not in {*use.key, *granted}]:
        raise PolicyRefused(tell=f"the bundle reads the column {strange[0]!r}, which the scenario does not let in")
    ruled = {rule.name for rule in scenario.outputs if rule.kind is JobKind.MODEL}
    for output, (name, table) in _tables(manifest).items():
        if output not in ruled:
            raise PolicyRefused(
                tell=f"the bundle gives out {name}, and the scenario has no rule for {output} of a model"
            )
        if table.key and set(table.key) != set(use.key):
            raise PolicyRefused(tell=f"the key of {name} is not that of the dataset: {', '.join(use.key)}")
    if wanted.alignment:
        return joint.divided(read, uses, [name for name in read if name in use.key])
    return (tuple(name for name in read if name not in use.key),)


def _check_rows_go_home(manifest: Manifest, scenario: Scenario, use: DatasetUse) -> None:
    """Rows about persons are named as the left owner names them: nobody else learns those names."""
    if _gives_rows(manifest) and scenario.recipient.node_id != use.owner:
        raise PolicyRefused(
            tell="over an alignment rows about persons leave only to the node that submits and knows them by their key"
        )


def form(manifest: Manifest, spec: JobSpec, scenario: Scenario, output: str) -> Form | None:
    """Return what the table of an output must look like: the declared columns, types and places."""
    declared = _tables(manifest)
    if output not in declared:
        return None
    _, table = declared[output]
    exact = {one.name: one.places for one in table.columns if one.type is Type.NUMBER and not one.optional}
    return Form(
        tuple(one.name for one in table.columns),
        places=exact,
        plain={one.name: _ARROW[one.type] for one in table.columns if one.name not in exact},
    )


def params(spec: ModelSpec) -> dict[str, Any]:
    """Return a job's parameters.

    Raises:
        InvalidSpec: they are no JSON object.
    """
    try:
        found = json.loads(spec.params)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidSpec(tell="model.params is not a JSON object")
    return found


# --- in the worker ----------------------------------------------------------------------------------------------------


class _Quoted:
    """The place that the node's quote was about; the node has quoted before the rows came here."""

    vendor: Final = SIMULATED

    def __init__(self, level: str) -> None:
        self.level, self.runtime = level, measure_runtime()

    def quote(self, nonce: bytes, bundle: bytes, report_data: bytes) -> bytes:
        raise WrongState("only the node itself quotes")


def compute(task: Task) -> RawResult:
    """Run the bundle next to the rows; leave its tables here, sealed, and what they are judged by.

    An owner whose rows travel to the enclave of the other leaves only what its own gate and reviewers judge by.
    """
    spec, rules = _spec(task.spec), {rule.name: rule for rule in task.plan.outputs}
    if spec.alignment and task.me != joint.host(task.spec, task.scenario):
        return _give(task)
    allowed_rows = SCORES in rules
    archive = task.bundle()
    manifest = parse(archive).manifest
    check_manifest(manifest)
    ((table, read),) = manifest.inputs.items()
    rows = _shared(task, read) if spec.alignment else task.table(read)
    limits = confined.limits(task, rows.nbytes, _PER_BYTE)
    with confined.jails(task, limits) as jails:
        enclave = Enclave(_Quoted(confined.level_of(task.plan)), jails, task.workspace.path, limits)
        if enclave.load(archive) != spec.bundle:
            raise IntegrityFailed("the bundle at hand is not the one that the job names")
        ran = _run(task, enclave, {table: rows}, params(spec), allowed_rows)
    _show(task, ran.log)
    made = {output: ran.tables[name] for output, (name, _) in _tables(manifest).items()}
    files = {output: _parquet(found) for output, found in made.items()}
    shown = {output: found for output, found in made.items() if output in rules and rules[output].reviewed}
    if SCORES in made and is_asked(task):
        draw(task, _scored(task, made[SCORES], rows))
    judged = {"group.all": rows.num_rows, "rows": made[SCORES].num_rows if SCORES in made else rows.num_rows}
    figures, looked_at = {PRINTED: float(len(ran.log))}, sample(shown) if shown else ""
    if looked_at:
        task.keep(SAMPLE, looked_at.encode())
    if spec.alignment:
        joint.tell(task, joint.other_owner(task), judged, looked_at)
    if task.plan.recipient_node in joint.shares(task.plan, task.spec, task.scenario):
        task.keep(f"share-for-{task.plan.recipient_node}", joint.pack(files, judged))
        return RawResult(judged, figures, {}, _people(task))
    for output, content in files.items():
        task.keep(output, content)
    return RawResult(judged, figures, {output: output for output in files}, _people(task))


def finish(task: Task) -> RawResult:
    """At the recipient's node, where the enclave is another's: take the tables."""
    return joint.finish(task, KIND.outputs.keys())


def _give(task: Task) -> RawResult:
    """Send the rows that the bundle reads to the enclave; with the key, if it is this owner's and is read."""
    left, keys = at(task.plan.parties, PartyRole.LEFT), _keys_read(task)
    joint.give(task, (*task.fields, *keys) if left == task.me else task.fields)
    if keys:
        draw(task, joint.positions(task))  # whom the code leaves out only the enclave learns
    judged, looked_at = joint.hear(task)
    if looked_at:
        task.keep(SAMPLE, looked_at.encode())
    return RawResult(judged, {}, {}, _people(task))


def _keys_read(task: Task) -> tuple[str, ...]:
    """Return the left owner's key, where the bundle gives out rows about persons; it reads it then."""
    if all(rule.name != SCORES for rule in task.plan.outputs):
        return ()
    left = next(party.dataset for party in task.plan.parties if party.role is PartyRole.LEFT)
    return next(use.key for use in task.scenario.datasets if left == DatasetRef(use.code, use.version))


def _shared(task: Task, read: Sequence[str]) -> pa.Table:
    """Return the shared rows of both owners, with the columns that the bundle reads."""
    other = joint.other_owner(task)
    others = next(party.fields for party in task.plan.parties if party.node_id == other)
    left, keys = at(task.plan.parties, PartyRole.LEFT), _keys_read(task)
    own = (*task.fields, *keys) if left == task.me else task.fields
    return joint.take(task, other, own, (*others, *keys) if left == other else others).select(list(read))


def _scored(task: Task, scores: pa.Table, rows: pa.Table) -> NDArray[np.int64]:
    """Return at which of this owner's rows the people are whom a table is about."""
    key = [name for name in scores.column_names if name in _keys_read(task)]
    named = scores.select(key)  # in the type that the bundle declares
    numbered = rows.select(key).cast(named.schema).append_column("", pa.array(np.arange(rows.num_rows)))
    found: NDArray[np.int64] = named.join(numbered, key, join_type="inner").column("").to_numpy()
    return joint.positions(task)[found] if joint.alignment_of(task.spec) else found


def _run(task: Task, enclave: Enclave, own: Mapping[str, pa.Table], values: Mapping[str, Any], rows: bool) -> Ran:
    try:
        return enclave.run(own, (), values, task.stopped(), rows_allowed=rows)
    except (JobFailed, DeadlinePassed, Cancelled, OutputWithheld) as error:
        # What the code printed over rows stays behind with this process; how much of it, the node's owner may know.
        _show(task, told_by(error))
        detail = f"{error}; the code printed {len(told_by(error))} bytes"
        raise type(error)(detail, stage=error.stage) from None


def _show(task: Task, log: bytes) -> None:
    """Keep what the code printed for its author, if it ran on a twin: then no row is in it."""
    if log and task.plan.environment is Environment.TEST:
        task.keep(confined.CONSOLE, log)


def sample(tables: Mapping[str, pa.Table]) -> str:
    """Return a few rows of each table for the people who decide: evenly spread, the first and the last among them."""
    parts = []
    for output, table in tables.items():
        count = min(table.num_rows, SAMPLE_ROWS)
        places = np.linspace(0, max(table.num_rows - 1, 0), count).round().astype(np.int64)
        shown = table.take(pa.array(places)).to_pylist()
        lines = [_BESIDE.join("" if value is None else str(value) for value in row.values()) for row in shown]
        head = f"{output}: {count} of {table.num_rows} rows"
        parts.append("\n".join([head, _BESIDE.join(table.column_names), *lines]))
    return "\n\n".join(parts)[:_SAMPLE_SIZE]


def _people(task: Task) -> tuple[Population, ...]:
    """Everybody: nobody knows whose rows a stranger's code made its numbers of."""
    if _spec(task.spec).alignment:
        return (joint.everybody(task, WHOLE, is_whole=True),)
    tally = Sketcher(task.population_key).start()
    for keys in task.key_batches():
        tally.add(keys)
    return tally.done([WHOLE], [task.rows[task.me]], is_whole=True)


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


# --- what the kind declares -------------------------------------------------------------------------------------------


def _tables(manifest: Manifest) -> dict[str, tuple[str, OutputTable]]:
    """Return the bundle's tables by the outputs as which they leave."""
    return {_OUTPUTS[table.class_]: (name, table) for name, table in manifest.outputs.items()}


def _gives_rows(manifest: Manifest) -> bool:
    return SCORES in _tables(manifest)


def _spec(spec: JobSpec) -> ModelSpec:
    if not isinstance(spec.kind, ModelSpec):
        raise InvalidSpec("not a model spec")
    return spec.kind


def _unapproved(*_: object) -> NoReturn:
    """Of a bundle that the scenario names, ``of`` knows all of this."""
    raise PolicyRefused(tell=_UNAPPROVED, hint="compare `sandbox model show` with the scenario")


def engines(spec: JobSpec, conditions: Conditions) -> tuple[str, ...]:
    """Return that it runs in the jail."""
    return (confined.JAIL,)


def reveals(spec: JobSpec, parties: Sequence[Party], scenario: Scenario, engine: str) -> tuple[Reveal, ...]:
    """Say who learns what."""
    node = joint.host(spec, scenario) or at(parties, PartyRole.LEFT)
    owner = (
        "the merchant's code, and what it makes of the rows: the enclave is SIMULATED, its node's root sees all of it"
    )
    owner_zh = "数商代码及其运行结果：可信环境为模拟（SIMULATED），节点管理员可见全部内容"
    recipient = "the tables that the bundle declares, made by the merchant's own code from all rows it was given"
    recipient_zh = "模型包所声明的表，由数商自有代码根据全部输入行生成"
    others = [party.node_id for party in parties if party.node_id != node]
    size, size_zh = "a sample of what would leave, for its reviewers", "供其审核人查看的出域内容样本"
    return (
        *((joint.reveals(node), *(Reveal(other, size, size_zh) for other in others)) if others else ()),
        Reveal(node, owner, owner_zh),
        Reveal("recipient", recipient, recipient_zh),
    )


def shares(plan: Plan, spec: JobSpec, scenario: Scenario) -> Mapping[str, tuple[str, ...]]:
    """Return that there are none, unless the recipient's node is another than the enclave's."""
    return joint.shares(plan, spec, scenario)


KIND = Kind(
    outputs={SCORES: OutputClass.ROW_CONSENTED, SUMMARY: OutputClass.MODEL, LEARNT: OutputClass.MODEL},
    chosen=_unapproved,
    lasting=frozenset(),
    reveals_in_protocol=False,
    engines=engines,
    columns=_unapproved,
    reveals=reveals,
    shares=shares,
    form=_unapproved,
    compute=compute,
    finish=finish,
)
