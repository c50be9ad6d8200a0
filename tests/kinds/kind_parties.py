"""All parties of one job in one process, each with a thread and the worker's own ``Assignment``; only the node between
the workers is ours: it carries messages from desk to desk, notes them, and lets a test change them on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import queue
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sandbox import wire
from sandbox.crypto.sm2 import PrivateKey as Identity
from sandbox.errors import NotFound, SandboxError
from sandbox.gate.judge import judge
from sandbox.gate.release import release
from sandbox.keyring import NodeKeys
from sandbox.kinds import KINDS, confined
from sandbox.model import (
    Category,
    Consent,
    ConsentRule,
    DatasetRef,
    DatasetUse,
    Dimension,
    JobKind,
    JobSpec,
    MeasureRange,
    Outline,
    OutputClass,
    OutputRule,
    Party,
    PartyRole,
    Plan,
    PriceTerms,
    PsiSpec,
    Quota,
    RawResult,
    Recipient,
    Scenario,
    VersionRule,
)
from sandbox.mpc.paillier import PrivateKey, PublicKey
from sandbox.policy import enclaves
from sandbox.tee_sim import broker
from sandbox.worker import Assignment

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "paillier.json").read_text("utf-8"))
NAMES = ("bank", "operator", "witness", "fund", "tax")
JOB, EARLIER = "ab" * 16, "cd" * 16
KEY = Identity.generate().public.to_bytes()
RULES = {
    JobKind.PSI: {
        "aligned": OutputClass.AGGREGATE,
        "size": OutputClass.AGGREGATE,
        "sums": OutputClass.AGGREGATE,
        "members": OutputClass.ROW_CONSENTED,
        "joined": OutputClass.ROW_CONSENTED,
    },
    JobKind.AGGREGATE: {"totals": OutputClass.AGGREGATE, "noisy_totals": OutputClass.NOISY},
}


@functools.cache
def paillier(bits: int = 2048) -> PrivateKey:
    """A key of published primes with short exponents: no test waits for one, and it protects nothing."""
    case = next(case for case in VECTORS["cases"] if case["bits"] == bits)
    p, q = int(case["p"], 16), int(case["q"], 16)
    return PrivateKey(p, q, PublicKey.from_modulus(p * q, exponent_bits=256))


@functools.cache
def node_keys(node: str) -> NodeKeys:
    """A node's own keys; nobody holds its master key, since nothing here is at rest."""

    def nobody() -> NoReturn:
        raise NotFound(f"{node} keeps nothing at rest")

    made = {name: Identity.generate() for name in ("identity", "checkpoint", "sealing", "attestation")}
    return NodeKeys(**made, tls_key=b"", tls_certificate=b"", master=nobody)


@dataclasses.dataclass(frozen=True)
class Message:
    """What one worker sent another."""

    sender: str
    to: str
    label: str
    body: bytes


Change = Callable[[Message], Sequence[Message]]


def as_it_is(message: Message) -> Sequence[Message]:
    return (message,)


class Gone(Exception):
    """A worker is no more, and nobody hears of it."""


def leaving(party: str, label: str) -> Change:
    """A party whose worker is gone the moment it would send such a message."""

    def change(message: Message) -> Sequence[Message]:
        if (message.sender, message.label) == (party, label):
            raise Gone
        return (message,)

    return change


def noted_threads(monkeypatch: pytest.MonkeyPatch, names: Mapping[type, Sequence[str]]) -> set[tuple[str, int]]:
    """On how many threads the operations of keys are asked to run from now on."""
    seen: set[tuple[str, int]] = set()

    def note(place: type, name: str) -> None:
        original = getattr(place, name)

        def run(*arguments: Any, **options: Any) -> Any:
            seen.add((name, options.get("threads", 1)))
            return original(*arguments, **options)

        monkeypatch.setattr(place, name, run)

    for place, own in names.items():
        for name in own:
            note(place, name)
    return seen


class Desk:
    """A worker's end of the line to its node, in memory."""

    def __init__(self, room: Room, me: str) -> None:
        self._room, self._me = room, me
        self.frames: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def read(self) -> Any:
        return self.frames.get()

    def write(self, head: dict[str, Any], body: bytes = b"") -> None:
        answer = self._room.serve(self._me, head, body)
        if answer is not None:
            self.frames.put(({"op": "answer"}, answer))

    def close(self) -> None:
        self.frames.put(None)


class Worker(Assignment):
    """The worker as it is, over rows in memory instead of a vault."""

    held: pa.Table
    batch: int

    def table(self, columns: Sequence[str]) -> pa.Table:
        return self.held.select(list(columns))

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        whole = self.table(columns)
        for first in range(0, whole.num_rows, self.batch):
            yield whole.slice(first, self.batch)


@dataclasses.dataclass
class Room:
    """One job's parties: what each holds and keeps, and everything that was said."""

    tables: Mapping[str, pa.Table]
    scenario: Scenario
    spec: JobSpec
    plan: Plan
    recipient: str
    change: Change = as_it_is
    deadline_s: float = 20.0
    batch: int = 100
    salt: bytes = dataclasses.field(default_factory=lambda: os.urandom(32))
    artefacts: dict[tuple[str, str, str], bytes] = dataclasses.field(default_factory=dict)
    caches: dict[str, dict[str, bytes]] = dataclasses.field(default_factory=dict)
    said: list[Message] = dataclasses.field(default_factory=list)
    key_bits: int = 2048
    cores: int = 1

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._desks: dict[str, Desk] = {}

    # --- the node between the workers -------------------------------------------------------------------------------

    def serve(self, me: str, head: dict[str, Any], body: bytes) -> bytes | None:
        operation = head["op"]
        if operation == "send":
            for message in self.change(Message(me, head["to"], head["label"], body)):
                with self._lock:
                    self.said.append(message)
                desk = self._desks.get(message.to)
                if desk is not None:
                    desk.frames.put(({"op": "data", "from": message.sender, "label": message.label}, message.body))
            return None
        if operation == "progress":
            assert 0 <= head["done"] <= head["total"]
            return None
        answer = b""
        if operation == "fetch":
            kept = self.artefacts.get((me, head["job"], head["name"]))
            if kept is None:
                raise NotFound(f"{me} has no {head['name']}")
            answer = kept
        elif operation == "keep":
            self.artefacts[me, JOB, head["name"]] = body
        elif operation == "cached":
            answer = self.caches.get(me, {}).get(head["name"], b"")
        elif operation == "cache":
            self.caches.setdefault(me, {})[head["name"]] = body
        elif operation == "quote":
            answer = self.quote(me, bytes.fromhex(head["nonce"]), body)
        elif operation == "grant":
            answer = self.grant(bytes.fromhex(head["quote"]), bytes.fromhex(head["nonce"]), body)
        return answer

    def quote(self, me: str, nonce: bytes, key: bytes) -> bytes:
        """A node's quote of the job's enclave, as ``materials`` has it made."""
        return enclaves.quote(node_keys(me), confined.level_of(self.plan), nonce, confined.program_of(self.spec), key)

    def grant(self, text: bytes, nonce: bytes, key: bytes) -> bytes:
        """What an owner's node decides of a quote, whose approval accepts a simulated enclave if the scenario does."""
        quote = enclaves.read(text, nonce, node_keys(self.scenario.enclave).identity.public)
        approved = enclaves.approved(self.scenario, self.spec, self.scenario.accepts_simulated)
        return broker.grant_key(key, quote, approved).sealed

    # --- stages -----------------------------------------------------------------------------------------------------

    def stage(self, name: str, parties: Sequence[str] = (), part: int = 0, parts: int = 1, scratch: Any = "") -> Any:
        """Run a stage at some parties, by default all; party -> what it left, or the error it ended with."""
        parties = tuple(parties or self.tables)
        kind = KINDS[self.plan.kind]
        work: Any = {"compute": kind.compute, "finish": kind.finish, "split": kind.split, "gather": kind.gather}[name]
        ended: dict[str, Any] = {}
        self._desks = {party: Desk(self, party) for party in parties}
        with tempfile.TemporaryDirectory(prefix="k-") as run:

            def do(party: str) -> None:
                desk = self._desks[party]
                with contextlib.ExitStack() as stack:
                    mine = scratch[party] if scratch else ""
                    worker = Worker(desk, self._ticket(party, name, run, part, parts, mine), self._documents())  # type: ignore[arg-type]
                    worker.stack, worker.held, worker.batch = stack, self.tables[party], self.batch
                    try:
                        raw = work(worker)
                        worker.report(raw)
                        ended[party] = raw
                    except Gone:
                        pass  # a worker that was killed tells nobody
                    except SandboxError as error:
                        ended[party] = error
                        for other in self._desks.values():
                            other.close()  # as nodes do: a party that breaks off stops the stage everywhere

            threads = [threading.Thread(target=do, args=(party,), daemon=True) for party in parties]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(240)
            assert not any(thread.is_alive() for thread in threads), "a party did not end"
        for desk in self._desks.values():
            desk.close()
        return ended

    def _ticket(self, me: str, stage: str, run: str, part: int, parts: int, scratch: str) -> dict[str, Any]:
        plan, spec = wire.encode(self.plan), wire.encode(self.spec)
        holder = KINDS[self.plan.kind].key_holder(self.plan, self.spec, self.scenario)
        return {
            "me": me,
            "stage": stage,
            "run": run,
            "salt": self.salt.hex(),
            "rows": {party: table.num_rows for party, table in self.tables.items()},
            "paillier_key": paillier(self.key_bits).to_bytes().hex() if me == holder else "",
            "deadline_s": self.deadline_s,
            "cores": self.cores,
            "population_key": (me[:1].encode() * 32).hex(),
            "part": part,
            "parts": parts,
            "scratch": scratch,
            "dataset": {"key_columns": ["id"], "key_formats": ["text"], "label": ""},
            "plan_size": len(plan),
            "spec_size": len(spec),
        }

    def _documents(self) -> bytes:
        return wire.encode(self.plan) + wire.encode(self.spec) + wire.encode(self.scenario)

    def compute(self) -> dict[str, RawResult]:
        """The computation at every party; the first error, if there is one that is not only an echo."""
        return good(self.stage("compute"))

    def in_parts(self, parts: int) -> dict[str, RawResult]:
        """The same cut into parts, one after the other."""
        with tempfile.TemporaryDirectory(prefix="s-") as folder:
            scratch = {party: str(Path(folder) / party) for party in self.tables}
            for place in scratch.values():
                Path(place).mkdir(mode=0o700)
            good(self.stage("split", parts=parts, scratch=scratch))
            for part in range(parts):
                good(self.stage("compute", part=part, parts=parts, scratch=scratch))
            done = good(self.stage("gather", parts=parts, scratch=scratch))
            assert all(not list(Path(place).rglob("*.draft")) for place in scratch.values())
            shutil.rmtree(folder, ignore_errors=True)
            Path(folder).mkdir()
        return done

    def reveal(self, raw: Mapping[str, RawResult]) -> RawResult:
        """What follows in ``pipeline``: every owner's gate, last shares, and the last stage at the recipient's node."""
        for numbers in raw.values():
            judge(self.plan, numbers.gate_inputs)
        shares = KINDS[self.plan.kind].shares(self.plan, self.spec, self.scenario)
        for receiver, senders in shares.items():
            for sender in senders:
                share = self.artefacts[sender, JOB, f"share-for-{receiver}"]
                (message,) = self.change(Message(sender, receiver, "share", share))
                self.said.append(message)
                self.artefacts[receiver, JOB, f"share-from-{sender}"] = message.body
        if self.recipient not in shares:
            return raw[self.recipient]
        return good(self.stage("finish", [self.recipient]))[self.recipient]

    def release(self, raw: RawResult) -> dict[str, Any]:
        """The outputs as they leave."""
        tables = {name: self.artefacts[self.recipient, JOB, kept] for name, kept in raw.tables.items()}
        form = KINDS[self.plan.kind].form
        outputs = release(self.plan, raw, tables, lambda name: form(self.spec, self.scenario, name)).outputs
        return {o.name: json.loads(o.content) if o.format == "json" else read(o.content) for o in outputs}

    def run(self) -> dict[str, Any]:
        """From rows to what leaves."""
        return self.release(self.reveal(self.compute()))

    def exact(self) -> pa.Table:
        """The table of totals before the gate rounds it."""
        raw = self.reveal(self.compute())
        (kept,) = raw.tables.values()
        return read(self.artefacts[self.recipient, JOB, kept])

    def heard(self, party: str, label: str = "", sender: str = "") -> list[bytes]:
        """Every message a party got."""
        return [m.body for m in self.said if m.to == party and label in ("", m.label) and sender in ("", m.sender)]


def read(content: bytes) -> pa.Table:
    return pq.read_table(pa.BufferReader(content))


def good(ended: Mapping[str, Any]) -> dict[str, RawResult]:
    """What every party left; the error of the party that ended it first."""
    errors = [error for error in ended.values() if isinstance(error, SandboxError)]
    causes = [error for error in errors if type(error).__name__ != "Cancelled"] or errors
    if causes:
        raise causes[0]
    return dict(ended)


def scenario(
    fields: Sequence[Sequence[str]],
    dimensions: Sequence[Dimension] = (),
    measures: Sequence[MeasureRange] = (),
    minimum: int = 0,
    recipient: str = "",
) -> Scenario:
    """One scenario over the datasets of some parties, the minimum group small so that tests can be."""
    rules = tuple(
        OutputRule(kind, name, class_, 0 if class_ is OutputClass.ROW_CONSENTED else minimum, 1, 1_000_000, 1 << 28)
        for kind, named in RULES.items()
        for name, class_ in named.items()
    )
    uses = tuple(
        DatasetUse(f"set-{name}", name, VersionRule.EXACT, 1, name[:1].encode() * 32, ("id",), tuple(own), "")
        for name, own in zip(NAMES, fields, strict=False)
    )
    return Scenario(
        name="totals",
        merchant="Example Bank",
        purpose="tests",
        applicant_key=KEY,
        datasets=uses,
        kinds=(JobKind.PSI, JobKind.AGGREGATE),
        outputs=rules,
        recipient=Recipient(recipient or NAMES[0], KEY, KEY),
        operator="operator",
        computing_parties=(),
        not_before_ms=0,
        not_after_ms=1,
        quota=Quota(1, 1, 1),
        consent=Consent(ConsentRule.HELD_LETTER, ConsentRule.NONE, (), letter_days=14),
        score_step=5,
        models_per_person=1,
        price=PriceTerms("fujian-2024", "1", False),
        accepts_simulated=False,
        nonce=bytes(16),
        dimensions=tuple(dimensions),
        measures=tuple(measures),
        outline=Outline(
            "made-up rows of the tests", "in memory, once a test", "whether totals are right", Category.OPEN, "tests"
        ),
    )


def ref(name: str) -> DatasetRef:
    return DatasetRef(f"set-{name}", 1)


def room(kind: Any, held: Scenario, tables: Sequence[pa.Table], engine: str = "paillier", **options: Any) -> Room:
    """The parties of a job, the submitting one first."""
    names = NAMES[: len(tables)]
    spec = JobSpec("request", bytes(32), kind)
    is_psi = isinstance(kind, PsiSpec)
    job_kind = JobKind.PSI if is_psi else JobKind.AGGREGATE
    declared = KINDS[job_kind]
    columns = declared.columns(spec, held, held.datasets[: len(names)])
    sides = (PartyRole.LEFT, PartyRole.RIGHT, PartyRole.THIRD)
    roles = sides if is_psi or kind.alignment else (PartyRole.CONTRIBUTOR,) * len(names)
    plan = Plan(
        job_id=JOB,
        proposer=names[0],
        kind=job_kind,
        scenario_digest=bytes(32),
        submission_digest=bytes(32),
        parties=tuple(
            Party(name, role, ref(name), name[:1].encode() * 32, own)
            for name, role, own in zip(names, roles, columns, strict=False)
        ),
        engine=engine,
        outputs=tuple(r for r in held.outputs if r.kind is job_kind and r.name in declared.chosen(spec)),
        recipient="0" * 32,
        recipient_node=held.recipient.node_id,
        deadline_s=60,
        reveals=(),
        isolation="engine-child",
        time_ms=0,
    )
    return Room(dict(zip(names, tables, strict=True)), held, spec, plan, held.recipient.node_id, **options)
