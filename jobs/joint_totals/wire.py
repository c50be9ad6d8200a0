"""What each of three contributors to a total really receives: their programs in one process, every message kept.

    python -m jobs.joint_totals.wire DIR [--json FILE]        DIR: what ``jobs.joint_totals.generate`` wrote

The rows are read by the nodes' intake, the documents are ``scenario.toml`` and ``totals.toml`` of this folder, and what
runs is ``sandbox.kinds.aggregate`` and ``sandbox.gate``: the very functions that nodes run. Only what carries messages
is another: queues here; between nodes TLS and, inside it, records sealed with SM4-GCM.

Shapes:    the file holds {"messages": [{"order", "from", "to", "label", "bytes", "begins"}], "plain": {party: its
           own rows in the first group}, "shown": {party: what it told the others about that group}, "joint": all
           parties' rows in it, "released": the table that leaves}. ``begins`` are the first 16 bytes, hexadecimal.
Security:  ``plain`` and ``joint`` are here for comparison; in no message stands the first. For generated rows only.
Not here:  the network, admission, grants: a node sends the share only after every owner's grant.
"""

from __future__ import annotations

import argparse
import io
import json
import queue
import secrets
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import pandas as pd
import pyarrow as pa

from jobs.joint_totals.generate import DEPARTMENTS, SCHEMA
from sandbox import keyring, wire
from sandbox.catalog.ids import normalise
from sandbox.catalog.intake import read_table
from sandbox.catalog.registration import make_code
from sandbox.client import job_from_file, scenario_from_toml
from sandbox.gate.release import release
from sandbox.kinds import aggregate, cells
from sandbox.kinds.kind import Task
from sandbox.model import AggregateSpec, JobKind, JobSpec, Party, PartyRole, Plan, RawResult, Scenario
from sandbox.mpc import paillier

HERE: Final = Path(__file__).parent
WAIT_S: Final = 60.0
BEGINS: Final = 16  # bytes of a message that are shown


@dataclass(frozen=True, slots=True)
class Message:
    """One message, as its receiver gets it."""

    sender: str
    receiver: str
    label: str
    body: bytes = field(repr=False)


class Post:
    """Carries messages between the parties of one process, and keeps a copy of each."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._boxes: dict[tuple[str, str, str], queue.SimpleQueue[bytes]] = {}
        self._lock = threading.Lock()

    def carry(self, message: Message) -> None:
        """Hand a message over."""
        with self._lock:
            self.messages.append(message)
        self._box(message.sender, message.receiver, message.label).put(message.body)

    def take(self, sender: str, receiver: str, label: str) -> bytes:
        """Wait for a message."""
        return self._box(sender, receiver, label).get(timeout=WAIT_S)

    def _box(self, *address: str) -> queue.SimpleQueue[bytes]:
        with self._lock:
            return self._boxes.setdefault(cast("tuple[str, str, str]", address), queue.SimpleQueue())


@dataclass
class Contributor:
    """One party's part of the job: as much of ``sandbox.kinds.kind.Task`` as a total of contributors asks for."""

    plan: Plan
    spec: JobSpec
    scenario: Scenario
    me: str
    salt: bytes
    data: list[pa.RecordBatch] = field(repr=False)
    rows: dict[str, int]
    post: Post = field(repr=False)
    paillier_key: bytes = field(repr=False)
    cores: int = 1
    population_key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    kept: dict[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns the job uses."""
        return next(party.fields for party in self.plan.parties if party.node_id == self.me)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield this party's rows."""
        return (pa.Table.from_batches([batch]).select(list(columns)) for batch in self.data)

    def key_batches(self) -> Iterator[pa.Array]:
        """Yield this party's keys."""
        for batch in self.data:
            yield normalise([batch.column(name) for name in SCHEMA.key], list(SCHEMA.key_formats))

    def send(self, party: str, label: str, body: bytes) -> None:
        """Send a message."""
        self.post.carry(Message(self.me, party, label, body))

    def receive(self, party: str, label: str) -> bytes:
        """Wait for one."""
        return self.post.take(party, self.me, label)

    def keep(self, name: str, content: bytes) -> None:
        """Keep something at this party."""
        self.kept[name] = content

    def artefact(self, job_id: str, name: str) -> bytes:
        """Return what was kept."""
        return self.kept[name]

    def progress(self, done: int, total: int) -> None:
        """Nobody watches here."""


def run(directory: Path) -> dict[str, Any]:
    """Make the table of totals in one process; return what was sent, and what came out."""
    data = {name: list(read_table(directory / f"{name}.parquet", SCHEMA)) for name in DEPARTMENTS}
    scenario, spec = _documents()
    plan = _plan(scenario, spec)
    wanted = cast(AggregateSpec, spec.kind)
    shape = cells.shape(wanted.groups, wanted.measures, scenario)
    rows = {name: sum(batch.num_rows for batch in batches) for name, batches in data.items()}
    with paillier.generate() as key:
        secret = key.to_bytes()
    post, salt = Post(), secrets.token_bytes(32)
    parties = {
        name: Contributor(
            plan, spec, scenario, name, salt, data[name], rows, post, secret if name == plan.recipient_node else b""
        )
        for name in DEPARTMENTS
    }
    with ThreadPoolExecutor(len(parties)) as pool:
        raws = dict(zip(parties, pool.map(_compute, parties.values()), strict=True))
    recipient = parties[plan.recipient_node]
    for giver in aggregate.shares(plan, spec, scenario)[recipient.me]:
        share = parties[giver].kept[f"share-for-{recipient.me}"]
        post.carry(Message(giver, recipient.me, "share, after all grants", share))
        recipient.keep(f"share-from-{giver}", share)
    done = aggregate.finish(cast(Task, recipient))
    tables = {name: recipient.kept[artefact] for name, artefact in done.tables.items()}
    released = release(plan, done, tables, lambda name: aggregate.form(spec, scenario, name)).outputs[0]
    table = pd.read_parquet(io.BytesIO(released.content))
    return {
        "messages": [_describe(place, message) for place, message in enumerate(post.messages, 1)],
        "plain": {name: _own_rows(party, shape) for name, party in parties.items()},
        # Of each sender the first: a second says, masked as well, how large a contribution needs others beside it.
        "shown": {one.sender: _first_number(one.body) for one in reversed(post.messages) if one.label == "counts"},
        "joint": raws[recipient.me].gate_inputs["group.0"],
        "released": table.to_dict("list"),
    }


def main(arguments: list[str]) -> int:
    """Print what each party received."""
    parser = argparse.ArgumentParser(prog="jobs.joint_totals.wire", description="every message of a total of three")
    parser.add_argument("directory", type=Path, help="what jobs.joint_totals.generate wrote")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the same as one JSON object, too")
    chosen = parser.parse_args(arguments)
    found = run(chosen.directory)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for party in DEPARTMENTS:
        print(f"{party} receives")
        for one in found["messages"]:
            if one["to"] == party:
                print(f"  from {one['from']:8} {one['label']:24} {one['bytes']:6} bytes  {one['begins']}...")
        print(f"  has {found['plain'][party]} rows in the first group, and tells the others {found['shown'][party]}")
    print(f"rows of all in the first group, which every owner's gate judges: {found['joint']}")
    print(pd.DataFrame(found["released"]).iloc[:, :6].to_string(index=False))
    return 0


def _compute(party: Contributor) -> RawResult:
    return aggregate.compute(cast(Task, party))


def _documents() -> tuple[Scenario, JobSpec]:
    """Read the example's documents, with a key and catalogue entries made for the moment."""
    with tempfile.TemporaryDirectory(prefix="sandbox-wire-") as made:
        folder = Path(made)
        analyst = keyring.create_person(folder / "analyst", "analyst", "City Statistics Office")
        (folder / "analyst.card").write_bytes(wire.encode(analyst.card))
        for name in DEPARTMENTS:
            entry = {"code": make_code(name, "payers"), "version": 1, "owner": name, "content_hash": "00" * 32}
            (folder / f"{name}.dataset.json").write_text(json.dumps(entry))
        scenario = scenario_from_toml(HERE / "scenario.toml", files=folder)
        spec, _ = job_from_file(HERE / "totals.toml", {"scenario": "00" * 32}, folder)
    return scenario, spec


def _plan(scenario: Scenario, spec: JobSpec) -> Plan:
    """Return the plan that the nodes' policy would admit, as far as the computation looks at it."""
    columns = aggregate.columns(spec, scenario, scenario.datasets)
    parties = tuple(
        Party(use.owner, PartyRole.CONTRIBUTOR, None, use.content_hash, used)
        for use, used in zip(scenario.datasets, columns, strict=True)
    )
    return Plan(
        job_id=secrets.token_hex(16),
        proposer=parties[0].node_id,
        kind=JobKind.AGGREGATE,
        scenario_digest=spec.scenario_digest,
        submission_digest=bytes(32),
        parties=parties,
        engine=aggregate.ENGINE,
        outputs=scenario.outputs,
        recipient="",
        recipient_node=scenario.recipient.node_id,
        deadline_s=60,
        reveals=aggregate.reveals(spec, parties, scenario, aggregate.ENGINE),
        isolation="",
        time_ms=0,
    )


def _describe(place: int, message: Message) -> dict[str, Any]:
    return {
        "order": place,
        "from": message.sender,
        "to": message.receiver,
        "label": message.label,
        "bytes": len(message.body),
        "begins": message.body[:BEGINS].hex(),
    }


def _own_rows(party: Contributor, shape: cells.Shape) -> int:
    """Return how many of a party's own rows are in the first group."""
    codes = cells.group_codes(pa.Table.from_batches(party.data), shape.dimensions)
    return int((codes == 0).sum())


def _first_number(body: bytes) -> int:
    return int.from_bytes(body[:8], "little")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
