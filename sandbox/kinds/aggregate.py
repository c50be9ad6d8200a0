"""Totals by group over what several parties hold, each contribution a ciphertext to everybody else.

    every contributor knows its rows' groups (``spec.datasets``)                              ``contributors``
    one side knows the groups, the other measures, over an alignment (``spec.alignment``)     ``crosswise``

Source:   Paillier as in ``mpc.paillier``; pairwise masks as in ``mpc.masks``.
Security: semi-honest parties. Of several contributors, aggregator and key holder together see only totals: every
          contribution carries masks that cancel over all contributors and over no part of them. Of a total over two
          each can subtract its own part: then every owner's approval must accept that.
Reveals:  to every owner: how many rows each group has, over all of them, and in how many each measured column is there
          (crosswise: of the shared rows, and of its own columns only); its gate judges these before anything is opened.
          Of contributors also what ``dominance`` says, where an owner has too few rows to judge a group alone.
          To the recipient: the table, numbers of rows rounded.
Output:   "totals": the groups, "rows", and a column a measure (one a band for a histogram). With an epsilon, over
          datasets, "noisy_totals" instead: the same with noise (``noise``), and nobody sees an exact number.
Errors:   what a party sends that is no ciphertext under the key ends the job, naming it; so does a second message.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sandbox.errors import InvalidSpec
from sandbox.kinds import cells, contributors, crosswise, noise
from sandbox.kinds.cells import Mask, Shape
from sandbox.kinds.counted import COUNTS, Counted
from sandbox.kinds.kind import Conditions, Form, Kind, Task
from sandbox.kinds.margins import Lines
from sandbox.model import (
    AggregateSpec,
    DatasetUse,
    JobSpec,
    OutputClass,
    OutputRule,
    Party,
    Plan,
    RawResult,
    Reveal,
    Scenario,
)

ENGINE: Final = "paillier"
TOTALS: Final = "totals"
NOISY: Final = "noisy_totals"


def compute(task: Task) -> RawResult:
    """Leave numbers of rows, and sums that nobody can open alone."""
    spec = _spec(task.spec)
    shape = _shape(spec, task.scenario)
    if spec.epsilon_milli:
        return RawResult(contributors.compute_noisy(task, spec, shape), {}, {})
    if spec.alignment:
        counted, inputs, populations = crosswise.compute(task, spec, shape)
    else:
        lines = Lines.of(shape, spec.margins)
        counted, inputs, populations = contributors.compute(task, spec, shape, lines, _rule(task.plan))
    task.keep(COUNTS, counted.to_bytes())
    return RawResult(inputs, {}, {}, populations)


def finish(task: Task) -> RawResult:
    """At the recipient's node: open the sums and make the table."""
    spec = _spec(task.spec)
    shape = _shape(spec, task.scenario)
    if spec.epsilon_milli:
        made = contributors.finish_noisy(task, spec, shape, _rule(task.plan, NOISY).min_group)
        return RawResult(noise.gate_inputs(task.rows, spec.epsilon_milli), {}, _kept(task, NOISY, made))
    lines, blank = Lines.of(shape, spec.margins), None
    if spec.alignment:
        counted, sums = crosswise.finish(task, spec, shape)
    else:
        counted = Counted.from_bytes(task.artefact(task.plan.job_id, COUNTS), shape)
        blank = contributors.blank_of(counted, shape, _rule(task.plan))
        sums = contributors.finish(task, spec, shape, lines, counted, blank)
    numbers = (lines.totals(counted.rows), lines.totals(counted.measured))
    table = cells.statistics(shape, numbers[0].tolist(), numbers[1].tolist(), sums, lines.labels)
    if blank is not None:
        table = _blanked(table, len(shape.dimensions), lines.chosen(blank))
    return RawResult(counted.gate_inputs(shape, lines, blank), {}, _kept(task, TOTALS, table))


def _kept(task: Task, name: str, table: pa.Table) -> dict[str, str]:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    task.keep(name, sink.getvalue())
    return {name: name}


def _blanked(table: pa.Table, labels: int, blank: Mask) -> pa.Table:
    """Return the table with nothing in the lines that stay blank but their labels."""
    is_shown = pa.array(~blank)
    for place, name in list(enumerate(table.column_names))[labels:]:
        table = table.set_column(place, name, pc.if_else(is_shown, table.column(name), None))
    return table


# --- what the kind declares -------------------------------------------------------------------------------------------


def columns(spec: JobSpec, scenario: Scenario, uses: Sequence[DatasetUse]) -> tuple[tuple[str, ...], ...]:
    """Return what each dataset brings: groups and measures, or its part of them."""
    wanted = _spec(spec)
    shape = _shape(wanted, scenario)
    Lines.of(shape, wanted.margins)
    if wanted.epsilon_milli:
        noise.numbers(wanted, shape)
    if wanted.alignment:
        if wanted.margins or any(rule.suppress for rule in scenario.outputs if rule.name == TOTALS):
            raise InvalidSpec(
                tell="over an alignment there are no lines of totals, and no blank groups",
                hint="ask without margins, under a scenario that does not suppress",
            )
        return crosswise.place(shape, uses).columns(shape)
    used = tuple(dict.fromkeys((*shape.group_columns, *shape.measure_columns)))
    return tuple(used for _ in uses)


def engines(spec: JobSpec, conditions: Conditions) -> tuple[str, ...]:
    """Return the one engine."""
    return (ENGINE,)


def reveals(spec: JobSpec, parties: Sequence[Party], scenario: Scenario, engine: str) -> tuple[Reveal, ...]:
    """Say who learns what."""
    if _spec(spec).epsilon_milli:
        return noise.reveals(_spec(spec), _shape(_spec(spec), scenario), [party.node_id for party in parties])
    if _spec(spec).alignment:
        sizes, sizes_zh = "how many of the shared rows each group has", "各组在共有行中的行数"
    else:
        sizes = "how many rows each group has, over all parties, and in how many each measured column is there"
        sizes_zh = "各组在所有参与方合计的行数，以及其中各指标非空的行数"
        if _shape(_spec(spec), scenario).bounds:
            sizes += (
                "; where an owner has too few rows to judge a group's total alone: on which power of 4 the largest "
                "amount there stands, and how many sixteenths of it, of each at most sixteen, the others' amounts reach"
            )
            sizes_zh += (
                "；若某方行数过少、无法独立判断某组合计：该组最大值所在的4的幂次，"
                "以及其他方金额以其十六分之一计的份数（各方至多十六份）"
            )
        if len(parties) == 2:
            sizes += "; with two contributors each can subtract its own part from the total"
            sizes_zh += "；仅两方时，任一方可由合计减去本方部分"
    told = tuple(Reveal(party.node_id, sizes, sizes_zh) for party in parties)
    return (*told, Reveal("recipient", "the totals by group; numbers of rows rounded", "分组合计结果；行数取整"))


def shares(plan: Plan, spec: JobSpec, scenario: Scenario) -> Mapping[str, tuple[str, ...]]:
    """Return that the recipient's node gets the encrypted total, or the other side's share."""
    recipient = plan.recipient_node
    if _spec(spec).alignment:
        return {recipient: tuple(party.node_id for party in plan.parties if party.node_id != recipient)}
    is_sealed = _spec(spec).epsilon_milli or _shape(_spec(spec), scenario).bounds
    return {recipient: (contributors.aggregator(plan),) if is_sealed else ()}


def key_holder(plan: Plan, spec: JobSpec, scenario: Scenario) -> str:
    """Return whose key it is: the recipient's node, or the side that encrypts row by row."""
    if _spec(spec).alignment:
        return crosswise.placed_in(_shape(_spec(spec), scenario), scenario, plan.parties)[2]
    return contributors.key_holder(plan)


def form(spec: JobSpec, scenario: Scenario, output: str) -> Form | None:
    """Return that the table has every group, in order, and nothing but numbers."""
    shape = _shape(_spec(spec), scenario)
    labels, values = Lines.of(shape, _spec(spec).margins).labels, cells.result_columns(shape)
    counts = frozenset(name for name, counts in values.items() if counts)
    return Form((*labels.column_names, *values), labels, counts=counts, places=cells.result_places(shape))


def _rule(plan: Plan, name: str = TOTALS) -> OutputRule:
    return next(rule for rule in plan.outputs if rule.name == name)


def _shape(spec: AggregateSpec, scenario: Scenario) -> Shape:
    return cells.shape(spec.groups, spec.measures, scenario)


def _spec(spec: JobSpec) -> AggregateSpec:
    if not isinstance(spec.kind, AggregateSpec):
        raise InvalidSpec("not an aggregate spec")
    return spec.kind


KIND = Kind(
    outputs={TOTALS: OutputClass.AGGREGATE, NOISY: OutputClass.NOISY},
    chosen=lambda spec: frozenset({NOISY if _spec(spec).epsilon_milli else TOTALS}),
    lasting=frozenset(),
    reveals_in_protocol=False,
    engines=engines,
    columns=columns,
    reveals=reveals,
    shares=shares,
    form=form,
    compute=compute,
    finish=finish,
    key_holder=key_holder,
)
