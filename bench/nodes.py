"""Real nodes for the benches: two datasets of made-up ids, registered and approved, and a person who may submit.

    with started(folder, rows) as ready:
        view = ready.client.wait(ready.align().job_id)

The ids are those of ``psi_bare``: 18 digits, random order, half of the left's on both sides. The witness does not
compute, so its Ray is never started. Both nodes, their Ray and their engines share this machine's cores.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sandbox import signed
from sandbox.client import Client
from sandbox.demo.nodes import LocalNodes
from sandbox.model import (
    Category,
    Consent,
    ConsentRule,
    DatasetRef,
    DatasetUse,
    DatasetView,
    JobKind,
    JobView,
    Outline,
    OutputClass,
    OutputRule,
    PriceTerms,
    PsiEngine,
    PsiOutput,
    Quota,
    Recipient,
    Scenario,
    VersionRule,
)
from sandbox.settings import FILE

DAY_MS: Final = 86_400_000
PEOPLE: Final = {
    "officer": ("bank", ["submitter"]),
    "bank-owner": ("bank", ["owner"]),
    "operator-owner": ("operator", ["owner", "operator"]),
    "regulator": ("witness", ["operator"]),
}
OUTLINE: Final = Outline(
    "ids that were made up",
    "one file at the start of a run",
    "how long an intersection takes",
    Category.OPEN,
    "measuring",
)
FAIR: Final = {"RAY_worker_niceness": "0"}
APPROVERS: Final = {"operator": "operator-owner", "bank": "bank-owner", "witness": "regulator"}


@dataclass(frozen=True, slots=True)
class Ready:
    """Nodes that wait for a job."""

    nodes: LocalNodes
    client: Client
    digest: bytes
    left: DatasetView
    right: DatasetView

    @property
    def common(self) -> int:
        """How many ids both sides have."""
        return min(self.left.rows - self.left.rows // 2, self.right.rows)

    def align(self, engine: PsiEngine = PsiEngine.AUTO, output: PsiOutput = PsiOutput.ALIGNED) -> JobView:
        """Submit one intersection."""
        return self.client.align(self.digest, _ref(self.left), _ref(self.right), engine, output=output)

    def ids(self, node: str) -> Path:
        """Return the file that one side registered."""
        return _ids(self.nodes, node)


class TunedNodes(LocalNodes):
    """Nodes whose settings may also be those that a new node's sandbox.toml has already: such a line is replaced."""

    def __init__(self, folder: Path, settings: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(folder)
        self._lines = settings

    def make(self) -> None:
        """Make the homes, then set what is asked for."""
        super().make()
        for node, values in self._lines.items():
            path = self.home(node) / FILE
            kept = [line for line in path.read_text().splitlines() if line.partition(" = ")[0] not in values]
            # JSON's strings, numbers and truth values are TOML's.
            path.write_text(
                "\n".join([*kept, *(f"{name} = {json.dumps(value)}" for name, value in values.items()), ""])
            )


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, for nodes that are started inside."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def started(
    folder: Path, rows: int, right_rows: int = 0, settings: Mapping[str, str | int] | None = None
) -> Iterator[Ready]:
    """Start nodes with ``rows`` ids a side, or ``right_rows`` at the right; they are stopped on the way out.

    Args:
        settings: more lines for the sandbox.toml of both.
    """
    lines: dict[str, Any] = {"ray_start": "eager", **(settings or {})}
    with environment(FAIR), TunedNodes(folder, {"operator": lines, "bank": lines}) as nodes:
        for name, (node, roles) in PEOPLE.items():
            nodes.person(name, node, roles)
        left = register(nodes, "bank", rows, 0, keep=True)
        right = register(nodes, "operator", right_rows or rows, rows // 2, keep=True)
        digest = approve(nodes, left, right)
        with nodes.client("officer", "bank") as client:
            yield Ready(nodes, client, digest, left, right)


def write_ids(path: Path, rows: int, first: int) -> None:
    """Write ``rows`` made-up ids from ``first`` on, in random order, each with a number."""
    order = np.random.default_rng(first).permutation(rows) + first
    ids = pa.array(np.char.mod("99%016d", order))
    pq.write_table(pa.table({"id": ids, "amount": np.arange(rows)}), path)


def register(
    nodes: LocalNodes, node: str, rows: int, first: int, name: str = "ids", *, keep: bool = False
) -> DatasetView:
    """Upload and seal one side's ids; with ``keep`` the file stays, for checks."""
    path, schema = _ids(nodes, node), nodes.folder / f"{node}.schema.json"
    write_ids(path, rows, first)
    fields = [
        {"name": name, "type": type_, "meaning": "made up", "grade": "L1"}
        for name, type_ in (("id", "string"), ("amount", "integer"))
    ]
    schema.write_text(json.dumps({"key": ["id"], "fields": fields}))
    try:
        with nodes.client(f"{node}-owner", node) as client:
            return client.register_dataset(path, schema, f"{name}-{node}", licence="none: made up")
    finally:
        if not keep:
            path.unlink()


def approve(nodes: LocalNodes, left: DatasetView, right: DatasetView) -> bytes:
    """File a scenario that allows many intersections, and have everybody approve it."""
    now = signed.now_ms()
    with nodes.client("officer", "bank") as bank:
        officer = signed.open_key_card(bank.person.card)
        scenario = Scenario(
            name="bench",
            merchant="Example Bank",
            purpose="measuring",
            applicant_key=officer.identity_key,
            datasets=tuple(
                DatasetUse(view.code, view.owner, VersionRule.EXACT, view.version, view.content_hash, ("id",), (), "")
                for view in (left, right)
            ),
            kinds=(JobKind.PSI,),
            outputs=(
                OutputRule(JobKind.PSI, "aligned", OutputClass.AGGREGATE, 10, 10, 1, 4096),
                OutputRule(JobKind.PSI, "members", OutputClass.ROW_CONSENTED, 0, 0, 10**7, 1 << 30),
            ),
            recipient=Recipient("bank", officer.identity_key, officer.sealing.key),
            operator="operator",
            computing_parties=("witness",),
            not_before_ms=now - DAY_MS,
            not_after_ms=now + DAY_MS,
            quota=Quota(10_000, 10_000, 10**12),
            consent=Consent(ConsentRule.HELD_LETTER, ConsentRule.NONE, (), letter_days=14),
            score_step=5,
            models_per_person=1,
            price=PriceTerms("fujian-2024", "1", True),
            accepts_simulated=False,
            nonce=secrets.token_bytes(16),
            outline=OUTLINE,
        )
        digest = bank.apply_scenario(scenario).digest
    for node, person in APPROVERS.items():
        with nodes.client(person, node) as client:
            client.approve_scenario(digest, node)
    return digest


def _ids(nodes: LocalNodes, node: str) -> Path:
    return nodes.folder / f"{node}.parquet"


def _ref(view: DatasetView) -> DatasetRef:
    return DatasetRef(view.code, view.version)
