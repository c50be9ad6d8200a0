"""Which people do two datasets share, or three; how many; and what do totals over them say?

    output          engine                          who learns which rows               what leaves, to the recipient
    aligned         rr22, ecdh-*                    both owners (all, of three)         the count
    members         rr22, ecdh-*, prepared-sm2      the left; the right: how many       the left's keys of them
    members-both    rr22, ecdh-*                    both owners                         the left's keys of them
    joined          rr22, ecdh-*                    both owners                         keys, and the right's columns
    size            count-sm2                       nobody                              the count
    sums            loads-sm2                       nobody                              the count, sums and means

Reveals:  besides the table, to each owner the other's row count. Where the protocol itself reveals rows, the gate runs
          before the first round on the sizes of both sets; a small intersection can then no longer be hidden from the
          owners, only from the recipient. Of three parties, left and right also learn what the two of them share.
Artefact: "alignment" (aligned, members-both): little-endian int64 positions into one's own rows, the same people in the
          same sequence at every party.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sandbox.errors import InvalidSpec, PolicyRefused, ProtocolFailed
from sandbox.kinds import alignment, blind, cells, prepared
from sandbox.kinds.alignment import NAMES
from sandbox.kinds.drawn import draw
from sandbox.kinds.kind import Conditions, Form, Kind, Task, at
from sandbox.kinds.population import SHARED, SUMMED, WHOLE, Sketcher, union
from sandbox.model import (
    DatasetUse,
    JobSpec,
    OutputClass,
    Party,
    PartyRole,
    Plan,
    Population,
    PsiEngine,
    PsiOutput,
    PsiSpec,
    RawResult,
    Reveal,
    Scenario,
)
from sandbox.psi import cost
from sandbox.psi.buckets import plan_buckets
from sandbox.psi.contract import MAX_BUCKETS
from sandbox.psi.keys import Positions

ALIGNMENT: Final = "alignment"
MOST_JOINED: Final = 1 << 30  # bytes
_FOUND: Final = "found"  # positions that only this job needs
_KEEPING: Final = (PsiOutput.ALIGNED, PsiOutput.MEMBERS_BOTH)
_OUTPUT: Final = {
    PsiOutput.ALIGNED: "aligned",
    PsiOutput.MEMBERS: "members",
    PsiOutput.MEMBERS_BOTH: "members",
    PsiOutput.SIZE: "size",
    PsiOutput.SUMS: "sums",
    PsiOutput.JOINED: "joined",
}
_BLIND: Final = {PsiOutput.SIZE: "count-sm2", PsiOutput.SUMS: "loads-sm2"}


def compute(task: Task) -> RawResult:
    """Find the common rows, or how many there are; of many parts, one bucket's."""
    spec = _spec(task.spec)
    if task.parts > 1:
        alignment.find_part(task, spec)
        return RawResult({}, {}, {})
    if spec.output is PsiOutput.SIZE:
        return _judged(task, blind.find_size(task), "size")
    if spec.output is PsiOutput.SUMS:
        size, judged = blind.find_sums(task, spec)
        task.keep("size", size.to_bytes(8, "big"))
        done = _judged(task, size, "sums")
        return RawResult({**done.gate_inputs, **judged}, done.figures, {}, done.populations)
    if spec.third is not None:
        return _found(task, spec, alignment.find_with_third(task, spec))
    if task.plan.engine == NAMES[PsiEngine.PREPARED_SM2]:
        done = _found(task, spec, prepared.find(task))
        asked = task.rows[task.party(PartyRole.LEFT)]  # what the right answered, and no row more
        return RawResult({**done.gate_inputs, "used": asked}, done.figures, done.tables, done.populations)
    return _found(task, spec, alignment.find(task, spec))


def split(task: Task) -> RawResult:
    """Cut this party's keys into buckets."""
    alignment.split(task)
    return RawResult({}, {}, {})


def gather(task: Task) -> RawResult:
    """Put the buckets' rows together."""
    return _found(task, _spec(task.spec), alignment.gather(task))


def finish(task: Task) -> RawResult:
    """At the left: the table that leaves."""
    spec = _spec(task.spec)
    name = _OUTPUT[spec.output]
    if spec.output is PsiOutput.SUMS:
        size = int.from_bytes(task.artefact(task.plan.job_id, "size"), "big")
        counts, sums = blind.open_sums(task, spec, size)
        table = cells.statistics(blind.shape(spec, task.scenario), [size], counts, sums)
        groups = {f"group.{place}": column[0] for place, column in enumerate(counts)}
        groups |= {f"rest.{place}": size - column[0] for place, column in enumerate(counts)}
        raw = RawResult({"rows": size, "group.shared": size, **groups}, {}, {name: name})
    else:
        kept = ALIGNMENT if spec.output in _KEEPING else _FOUND
        positions = np.frombuffer(task.artefact(task.plan.job_id, kept), "<i8")
        table = pa.table({"id": task.keys().take(pa.array(positions))})
        if spec.output is PsiOutput.JOINED:
            table = _joined(task, spec, table)
        raw = RawResult({"rows": table.num_rows, "group.shared": table.num_rows}, {}, {name: name})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    task.keep(name, sink.getvalue())
    return raw


def _found(task: Task, spec: PsiSpec, positions: Positions) -> RawResult:
    """Keep what this party may keep of the rows that were found, and say how many there are."""
    content = np.ascontiguousarray(positions, "<i8").tobytes()
    size = len(positions)
    if spec.output is PsiOutput.MEMBERS:
        size = blind.told_size(task, size if task.role is PartyRole.LEFT else None)
    if spec.output in _KEEPING:
        task.keep(ALIGNMENT, content)
    elif task.role is PartyRole.LEFT:
        task.keep(_FOUND, content)
    elif spec.output is PsiOutput.JOINED:
        columns = task.table(task.fields).take(pa.array(positions))
        sink = io.BytesIO()
        pq.write_table(columns, sink)
        task.keep(f"share-for-{task.party(PartyRole.LEFT)}", sink.getvalue())
    if spec.output in (PsiOutput.JOINED, PsiOutput.MEMBERS_BOTH):
        draw(task, positions)
    is_told = spec.output is not PsiOutput.MEMBERS or task.role is PartyRole.LEFT  # which rows they are
    return _judged(task, size, _OUTPUT[spec.output], positions if is_told else None)


def _table_of(content: bytes, party: str) -> pa.Table:
    """Read another party's table, whose compression might hide any size."""
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
        if sum(group.total_byte_size for group in groups) > MOST_JOINED:
            raise ProtocolFailed("the other side's columns are too large", party=party, stage="reveal")
        return file.read()
    except (pa.ArrowException, OSError, ValueError):
        raise ProtocolFailed("the other side's columns are no table", party=party, stage="reveal") from None


def _judged(task: Task, size: int, name: str, shared: Positions | None = None) -> RawResult:
    people = _people(task, size, name, shared)
    return RawResult({"rows": size, "group.shared": size}, {name: float(size)}, {}, people)


def _people(task: Task, size: int, name: str, shared: Positions | None) -> tuple[Population, ...]:
    """Return whom the result is about, as far as this party knows: all its rows, and which of them if it knows that."""
    rows = task.rows[task.me]
    codes = np.full(rows, 0 if size == rows else 1, np.int32)
    if shared is not None:
        codes[shared] = 0
    tally, first = Sketcher(task.population_key).start(2), 0
    for some in alignment.people(task):
        tally.add_digests(some, codes[first : first + len(some)])
        first += len(some)
    known, rest = tally.done([SHARED, "the rest"], [size, 0])
    is_summed = name == _OUTPUT[PsiOutput.SUMS] and task.role is PartyRole.RIGHT
    whole = union(SUMMED if is_summed else WHOLE, [known, rest], size, is_whole=True)
    return (whole, known) if known.rows == size else (whole,)


def _joined(task: Task, spec: PsiSpec, table: pa.Table) -> pa.Table:
    right = task.party(PartyRole.RIGHT)
    theirs = _table_of(task.artefact(task.plan.job_id, f"share-from-{right}"), right)
    if theirs.column_names != list(spec.columns) or theirs.num_rows != table.num_rows:
        raise ProtocolFailed("the other side's columns are not those of the shared rows", party=right, stage="reveal")
    for name in spec.columns:
        table = table.append_column(name, theirs.column(name))
    return table


# --- what the kind declares -------------------------------------------------------------------------------------------


def keeps_alignment(spec: JobSpec) -> bool:
    """Whether a job leaves at its owners which rows they share."""
    return isinstance(spec.kind, PsiSpec) and spec.kind.output in _KEEPING


def chosen(spec: JobSpec) -> frozenset[str]:
    """Return the one output."""
    return frozenset({_OUTPUT[_spec(spec).output]})


def columns(spec: JobSpec, scenario: Scenario, uses: Sequence[DatasetUse]) -> tuple[tuple[str, ...], ...]:
    """Return that the right's columns are used where they are asked for, and else nothing but keys.

    Raises:
        InvalidSpec: the spec names what its output does not take.
    """
    wanted = _spec(spec)
    if wanted.third is not None and wanted.output is not PsiOutput.ALIGNED:
        raise InvalidSpec(tell="psi.third: three parties can be aligned only")
    if bool(wanted.measures) != (wanted.output is PsiOutput.SUMS):
        raise InvalidSpec(tell="psi.measures go with output sums, and only there")
    if bool(wanted.columns) != (wanted.output is PsiOutput.JOINED) or len(set(wanted.columns)) != len(wanted.columns):
        raise InvalidSpec(tell="psi.columns: different ones, with output joined, and only there")
    if "id" in wanted.columns:
        raise InvalidSpec(tell="psi.columns: the name id is the key's")
    used = wanted.columns
    if wanted.output is PsiOutput.SUMS:
        used = blind.shape(wanted, scenario).measure_columns
    return ((), used, *(() for _ in uses[2:]))


def engines(spec: JobSpec, conditions: Conditions) -> tuple[str, ...]:
    """Return the engine asked for, or all that can do it, the cheapest first (``psi.cost``).

    Raises:
        InvalidSpec: the engine asked for cannot do it.
        PolicyRefused: it is none of the national algorithms that this node demands.
    """
    wanted = _spec(spec)
    asked = "" if wanted.engine is PsiEngine.AUTO else NAMES[wanted.engine]
    able = _able(wanted)
    if wanted.output in _BLIND and wanted.engine is PsiEngine.ECDH_SM2:
        asked = ""  # the same curve
    if asked and asked not in able:
        raise InvalidSpec(tell=f"psi.engine: {asked} cannot give output {wanted.output.name.lower()}")
    if asked and conditions.national and asked not in cost.NATIONAL:
        raise PolicyRefused(tell="this node demands national algorithms", hint="ask for engine auto or ecdh_sm2")
    if asked:
        return (asked,)
    left, right = (*conditions.rows, 0, 0)[:2]
    prepared_first = NAMES[PsiEngine.PREPARED_SM2] if conditions.is_prepared else ""
    best = cost.choose(
        able,
        left or right,
        right or left,
        link_mbit=conditions.link_mbit,
        cores=conditions.cores,
        backend=conditions.backend,
        seal=conditions.seal,
        national=conditions.national,
        asked=prepared_first if prepared_first in able else "",
        prepared=conditions.is_prepared,
    )
    # What this node would not choose itself it takes from a proposer, which may demand it.
    return best if conditions.national else (*best, *(name for name in able if name not in best))


def _able(wanted: PsiSpec) -> tuple[str, ...]:
    """Return the engines that can give an output."""
    if wanted.output in _BLIND:
        return (_BLIND[wanted.output],)
    general = (NAMES[PsiEngine.RR22], NAMES[PsiEngine.ECDH_SM2], NAMES[PsiEngine.ECDH_X25519])
    to_one_side = wanted.output is PsiOutput.MEMBERS and not wanted.bucket_rows
    return (*general, NAMES[PsiEngine.PREPARED_SM2]) if to_one_side else general


def parts(plan: Plan, spec: JobSpec, rows: Mapping[str, int]) -> int:
    """Return in how many buckets the tables are cut; sizes and sums, three parties and prepared sets are never."""
    wanted = _spec(spec)
    if wanted.output in _BLIND or wanted.third is not None or plan.engine == NAMES[PsiEngine.PREPARED_SM2]:
        return 1
    left, right = (rows[at(plan.parties, role)] for role in (PartyRole.LEFT, PartyRole.RIGHT))
    if wanted.bucket_rows:
        return min(MAX_BUCKETS, max(1, -(-max(left, right) // wanted.bucket_rows)))
    return plan_buckets(left, right, is_curve=plan.engine != NAMES[PsiEngine.RR22])


def reveals(spec: JobSpec, parties: Sequence[Party], scenario: Scenario, engine: str) -> tuple[Reveal, ...]:
    """Say who learns what."""
    wanted = _spec(spec)
    left, right = at(parties, PartyRole.LEFT), at(parties, PartyRole.RIGHT)
    rows, rows_zh = "; the other side's row count", "；对方行数"
    which = "which of its own rows the other side has too; a small overlap cannot be hidden afterwards" + rows
    which_zh = "本方哪些行对方也有，若交集很小，事后无法隐藏" + rows_zh
    many = "how many rows both have, not which" + rows
    many_zh = "共有行数，但不知是哪些行" + rows_zh
    told = [Reveal(left, which, which_zh), Reveal(right, which, which_zh)]
    if wanted.output is PsiOutput.MEMBERS:
        told[1] = Reveal(right, many, many_zh)
    if engine == NAMES[PsiEngine.PREPARED_SM2]:
        kept = "; it keeps an encoded copy of the other side's keys, of no use without that side's answers"
        told[0] = Reveal(left, which + kept, which_zh + "；并保留对方键值的编码副本，无对方应答则无法使用")
    if wanted.output in _BLIND:
        told = [Reveal(left, many, many_zh), Reveal(right, many, many_zh)]
    if wanted.output is PsiOutput.JOINED:
        told[0] = Reveal(left, which + f"; of those rows: {', '.join(wanted.columns)}", which_zh + "；及所列字段的值")
    if wanted.third is not None:
        third = "which of its own rows all three have, and how many rows the first two share"
        told = [
            Reveal(
                left,
                "which rows it shares with the second party, and with both" + rows,
                "与第二方及三方共有的行" + rows_zh,
            ),
            Reveal(
                right,
                "which rows it shares with the first party, and with both" + rows,
                "与第一方及三方共有的行" + rows_zh,
            ),
            Reveal(at(parties, PartyRole.THIRD), third + rows, "三方共有的本方行，以及前两方共有的行数" + rows_zh),
        ]
    leaves, leaves_zh = _LEAVES[wanted.output]
    return (*told, Reveal("recipient", leaves, leaves_zh))


_COUNT = ("the number of shared rows, rounded, unless below the minimum", "共有行数（取整；低于下限则不出域）")
_LEAVES: Final = {
    PsiOutput.ALIGNED: _COUNT,
    PsiOutput.SIZE: _COUNT,
    PsiOutput.MEMBERS: ("the left's keys of the shared rows", "共有行在发起方的键值"),
    PsiOutput.MEMBERS_BOTH: ("the left's keys of the shared rows", "共有行在发起方的键值"),
    PsiOutput.SUMS: ("the number of shared rows, rounded; sums and means over them", "共有行数（取整）及其合计与均值"),
    PsiOutput.JOINED: ("keys and named columns of the shared rows", "共有行的键值与所列字段"),
}


def shares(plan: Plan, spec: JobSpec, scenario: Scenario) -> Mapping[str, tuple[str, ...]]:
    """Return that the left makes the table, with the right's share where there is one."""
    output = _spec(spec).output
    if output in (PsiOutput.ALIGNED, PsiOutput.SIZE):
        return {}
    left, right = at(plan.parties, PartyRole.LEFT), at(plan.parties, PartyRole.RIGHT)
    return {left: (right,) if output in (PsiOutput.SUMS, PsiOutput.JOINED) else ()}


def key_holder(plan: Plan, spec: JobSpec, scenario: Scenario) -> str:
    """Return that the right's key seals what is summed."""
    return at(plan.parties, PartyRole.RIGHT) if _spec(spec).output is PsiOutput.SUMS else ""


def form(spec: JobSpec, scenario: Scenario, output: str) -> Form | None:
    """Return the form of the table, if the output is one."""
    wanted = _spec(spec)
    if wanted.output in (PsiOutput.ALIGNED, PsiOutput.SIZE):
        return None
    if wanted.output is PsiOutput.SUMS:
        made = blind.shape(wanted, scenario)
        values = cells.result_columns(made)
        return Form(tuple(values), cells.labels(()), frozenset({"rows"}), cells.result_places(made))
    plain: dict[str, pa.DataType | None] = {"id": pa.string(), **dict.fromkeys(wanted.columns)}
    return Form(tuple(plain), plain=plain)


def _spec(spec: JobSpec) -> PsiSpec:
    if not isinstance(spec.kind, PsiSpec):
        raise InvalidSpec("not a psi spec")
    return spec.kind


KIND = Kind(
    outputs={
        "aligned": OutputClass.AGGREGATE,
        "members": OutputClass.ROW_CONSENTED,
        "size": OutputClass.AGGREGATE,
        "sums": OutputClass.AGGREGATE,
        "joined": OutputClass.ROW_CONSENTED,
    },
    chosen=chosen,
    lasting=frozenset({ALIGNMENT}),
    reveals_in_protocol=True,
    engines=engines,
    columns=columns,
    reveals=reveals,
    shares=shares,
    form=form,
    compute=compute,
    finish=finish,
    key_holder=key_holder,
    parts=parts,
    split=split,
    gather=gather,
)
