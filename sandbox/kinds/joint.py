"""Rows that two owners share, side by side in the enclave of one of them.

    the other owner                                     the enclave's node
    a nonce                        ----------------->   the worker makes a key for this run, its node quotes it
    its broker decides             <-----------------   the quote
    the data key, sealed for it    ----------------->
    the columns that are used,     ----------------->   opened, and put beside the node's own, row by row
      sealed under the data key
    what its gate is to judge      <-----------------   sizes of groups; of a model also a sample for its reviewers

The rows are those of a released intersection, in the one sequence that both sides have of it.

Security:  nothing of a row is sent before this owner's node has verified the quote and entered its decision. The other
           owner cannot count for itself what it gave away: its gate judges what the enclave tells it, which is what
           accepting a simulated enclave means.
Reveals:   to the enclave's node, since it is simulated: the columns that are used, of all shared rows.
Shapes:    a message holds at most ``PIECE`` bytes of sealed rows.
Errors:    ``PolicyRefused`` where the quote is not what was approved, ``ProtocolFailed`` naming who sent something else
           than was planned, ``JobFailed`` where more would travel than may.
Not here:  the decision (``policy.enclaves``), what is computed (``query``, ``model``).
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from sandbox.crypto.sm2 import PrivateKey
from sandbox.crypto.sm4 import KEY_SIZE
from sandbox.errors import IntegrityFailed, InvalidSpec, JobFailed, ProtocolFailed
from sandbox.kinds.confined import program_of
from sandbox.kinds.kind import Task
from sandbox.kinds.population import SHARED, Sketcher
from sandbox.kinds.psi import ALIGNMENT
from sandbox.model import DatasetUse, JobSpec, ModelSpec, Plan, Population, QuerySpec, RawResult, Reveal, Scenario
from sandbox.psi.keys import Positions
from sandbox.tee_sim.attest import NONCE_SIZE, QUOTE_BYTES, measure_runtime
from sandbox.tee_sim.broker import Binding, open_grant, open_rows, seal_rows

PIECE: Final = 4 << 20  # bytes
MOST: Final = 1 << 30  # bytes of sealed rows
_TABLE: Final = "rows"
_JUDGED: Final = "judged"
_NUMBERS: Final = 7 << 20  # bytes of what gates judge: nearly what one message between nodes holds
_FIGURES: Final = re.compile(r"rows|(group|rest|top|remainder)\..+")  # nothing that a node does anything else with
_SHARED_ZH: Final = "共有行中本作业使用的各列：可信环境为模拟（SIMULATED），其节点管理员可见"
Columns = tuple[tuple[str, ...], ...]


def alignment_of(spec: JobSpec) -> str:
    """Return the intersection whose rows a query or model reads; empty if it reads one owner's dataset."""
    return spec.kind.alignment if isinstance(spec.kind, QuerySpec | ModelSpec) else ""


def host(spec: JobSpec, scenario: Scenario) -> str:
    """Return the node in whose enclave rows of two owners meet; empty for one owner's."""
    return scenario.enclave if alignment_of(spec) else ""


def divided(names: Sequence[str], uses: Sequence[DatasetUse], key: Sequence[str] = ()) -> Columns:
    """Return which of some columns each owner brings.

    Args:
        key: the left owner's key columns, where they are read.

    Raises:
        InvalidSpec: both have a column of that name, or one of the two brings nothing.
    """
    held = [{*use.fields, use.label} for use in uses]
    if both := sorted(set(names) & (held[0] | set(uses[0].key)) & held[1]):
        raise InvalidSpec(tell=f"both owners have a column {both[0]!r}", hint="register one of them under another name")
    found = tuple(tuple(name for name in names if name in columns) for columns in held)
    brings = ((*found[0], *key), found[1])
    if not all(brings):
        raise InvalidSpec(
            tell="over an alignment columns of both owners are read; this reads those of one",
            hint="name that owner's dataset instead of the alignment",
        )
    return found


def shares(plan: Plan, spec: JobSpec, scenario: Scenario) -> Mapping[str, tuple[str, ...]]:
    """Return that the enclave's node sends what leaves to the recipient's, where that is another."""
    enclave = host(spec, scenario)
    return {plan.recipient_node: (enclave,)} if enclave and plan.recipient_node != enclave else {}


def reveals(enclave: str) -> Reveal:
    """Say what the enclave's node learns."""
    what = "of the shared rows the columns that are used: the enclave is SIMULATED, its node's root can see them"
    return Reveal(enclave, what, _SHARED_ZH)


def positions(task: Task) -> Positions:
    """Return which of this party's rows are shared, in the common sequence."""
    found: Positions = np.frombuffer(task.artefact(alignment_of(task.spec), ALIGNMENT), "<i8")
    return found


def shared_keys(task: Task) -> pa.Array:
    """Return the keys of this party's shared rows, in the common sequence."""
    return task.keys().take(pa.array(positions(task)))


def everybody(task: Task, name: str = SHARED, is_whole: bool = False) -> Population:
    """Return all shared people, as the group that an owner knows who is not told which of them are in which."""
    keys = shared_keys(task)
    return Sketcher(task.population_key).of(name, keys, len(keys), is_whole)


# --- the owner whose rows travel --------------------------------------------------------------------------------------


def give(task: Task, columns: Sequence[str]) -> None:
    """Send columns of this owner's shared rows, sealed for the enclave that its node let have them."""
    enclave, nonce, key = task.scenario.enclave, secrets.token_bytes(NONCE_SIZE), secrets.token_bytes(KEY_SIZE)
    task.send(enclave, "nonce", nonce)
    quote = task.receive(enclave, "quote")
    if len(quote) > QUOTE_BYTES:
        raise ProtocolFailed("sent no quote", party=enclave, stage="compute")
    grant = task.grant_rows(quote, nonce, key)
    sealed = seal_rows(key, _TABLE, _own(task, columns))
    task.send(enclave, "grant", grant)
    task.send(enclave, "shared", len(sealed).to_bytes(8, "big"))
    for first in range(0, len(sealed), PIECE):
        task.send(enclave, "shared", sealed[first : first + PIECE])


def hear(task: Task) -> tuple[dict[str, int], str]:
    """Return what this owner's gate is to judge, and a sample for its reviewers where there is one.

    Raises:
        ProtocolFailed: it is not in its form, or tells this node something else than what gates judge.
    """
    enclave = task.scenario.enclave
    body = task.receive(enclave, "judged")
    try:
        said = json.loads(body if len(body) <= _NUMBERS else b"")
        numbers, sample = said["numbers"], said["sample"]
        is_plain = all(_FIGURES.fullmatch(name) and _is_size(value) for name, value in numbers.items())
        "".join((sample, *numbers)).encode()  # JSON can spell what is no text
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        is_plain = False
    if not is_plain:
        raise ProtocolFailed("what the gate is to judge is not in its form", party=enclave, stage="compute")
    task.keep(_JUDGED, json.dumps(numbers, sort_keys=True).encode())
    return numbers, sample


# --- the enclave ------------------------------------------------------------------------------------------------------


def take(task: Task, other: str, own: Sequence[str], others: Sequence[str]) -> pa.Table:
    """Return the shared rows of both owners: the node's own columns, and those that the other one sealed for here."""
    nonce = task.receive(other, "nonce")
    if len(nonce) != NONCE_SIZE:
        raise ProtocolFailed("asked for a quote with no nonce", party=other, stage="compute")
    key = PrivateKey.generate()
    task.send(other, "quote", task.quote(nonce, key.public.to_bytes()))
    grant = task.receive(other, "grant")
    sealed = _pieces(task, other)
    try:
        data_key = open_grant(key, grant, Binding(nonce, measure_runtime(), program_of(task.spec)))
        theirs = open_rows(data_key, _TABLE, sealed)
    except IntegrityFailed as error:
        raise ProtocolFailed(f"sealed rows do not open: {error}", party=other, stage="compute") from None
    mine = _own(task, own)
    if theirs.column_names != list(others) or theirs.num_rows != mine.num_rows:
        raise ProtocolFailed("sent other rows than were planned", party=other, stage="compute")
    if isinstance(task.spec.kind, QuerySpec) and (odd := _undeclared(task.scenario, theirs)):
        told = f"sent the column {odd!r} in another type than the scenario declares"
        raise ProtocolFailed(told, tell=told, party=other, stage="compute")
    columns = {name: table.column(name) for table in (mine, theirs) for name in table.column_names}
    return pa.table(columns)


def tell(task: Task, other: str, numbers: Mapping[str, int], sample: str = "") -> None:
    """Tell the other owner's gate what it is to judge.

    Raises:
        JobFailed: it is more than that would hear.
    """
    body = json.dumps({"numbers": dict(numbers), "sample": sample}, separators=(",", ":")).encode()
    if len(body) > _NUMBERS:
        raise JobFailed(tell="the other owner's gate would have too many numbers to judge", stage="compute")
    task.send(other, "judged", body)


def other_owner(task: Task) -> str:
    """Return the owner whose rows travel."""
    return next(party.node_id for party in task.plan.parties if party.node_id != task.scenario.enclave)


def pack(tables: Mapping[str, bytes], numbers: Mapping[str, int]) -> bytes:
    """Return what goes to the recipient's node once every owner has granted, where the enclave is not there."""
    head = json.dumps({"numbers": dict(numbers), "sizes": {name: len(body) for name, body in tables.items()}}).encode()
    return len(head).to_bytes(4, "big") + head + b"".join(tables.values())


def unpack(share: bytes, sender: str) -> tuple[dict[str, bytes], dict[str, int]]:
    """Return the tables, and the numbers by which they are rounded and metered.

    Raises:
        ProtocolFailed: this is no such share.
    """
    start = 4 + int.from_bytes(share[:4], "big")
    try:
        head = json.loads(share[4:start])
        sizes, numbers = head["sizes"], head["numbers"]
        if type(numbers) is not dict or not all(map(_is_size, sizes.values())):
            raise ValueError("no sizes")
        if sum(sizes.values()) != len(share) - start:
            raise ValueError("other sizes")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ProtocolFailed("the tables did not come as announced", party=sender, stage="reveal") from None
    tables = {}
    for name, size in sizes.items():
        tables[name] = share[start : start + size]
        start += size
    return tables, numbers


def finish(task: Task, outputs: Collection[str]) -> RawResult:
    """At the recipient's node: keep the tables that came from the enclave.

    Raises:
        JobFailed: the job is over one owner's rows, and nothing was to come.
    """
    if not alignment_of(task.spec):
        raise JobFailed("nothing of this job comes from another node")
    enclave = task.scenario.enclave
    tables, numbers = unpack(task.artefact(task.plan.job_id, f"share-from-{enclave}"), enclave)
    if tables.keys() != {rule.name for rule in task.plan.outputs} & set(outputs):
        raise ProtocolFailed("sent something else than the outputs", party=enclave, stage="reveal")
    if json.dumps(numbers, sort_keys=True).encode() != task.artefact(task.plan.job_id, _JUDGED):
        raise ProtocolFailed("other numbers came than were judged", party=enclave, stage="reveal")
    for name, content in tables.items():
        task.keep(name, content)
    return RawResult(numbers, {}, {name: name for name in tables})


def _is_size(value: object) -> bool:
    """Whether this is a number of people, bytes or permille; True is none, and 1.0 is none."""
    return type(value) is int and 0 <= value < 1 << 63


def _undeclared(scenario: Scenario, table: pa.Table) -> str:
    """Return a column that cannot be what the scenario's levels, bands and ranges are about; empty if all can."""
    named = {dimension.column for dimension in scenario.dimensions if dimension.values}
    counted = {dimension.column for dimension in scenario.dimensions if dimension.edges}
    counted |= {measure.column for measure in scenario.measures}
    for one in table.schema:
        is_text, is_truth = pa.types.is_string(one.type), pa.types.is_boolean(one.type)
        is_number = pa.types.is_integer(one.type) or pa.types.is_decimal(one.type)
        if (one.name in named and not (is_text or is_truth)) or (one.name in counted and not (is_number or is_truth)):
            return str(one.name)
    return ""


def _own(task: Task, columns: Sequence[str]) -> pa.Table:
    return task.table(columns).take(pa.array(positions(task)))


def _pieces(task: Task, other: str) -> bytes:
    size = int.from_bytes(task.receive(other, "shared"), "big")
    if size > MOST:
        raise JobFailed(
            tell=f"more than {MOST >> 20} MiB of rows would enter the enclave", party=other, stage="compute"
        )
    sealed = bytearray()
    for first in range(0, size, PIECE):
        piece = task.receive(other, "shared")
        if len(piece) != min(PIECE, size - first):
            raise ProtocolFailed("sent other rows than announced", party=other, stage="compute")
        sealed += piece
    return bytes(sealed)
