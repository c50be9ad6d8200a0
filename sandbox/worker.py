"""What runs inside a Ray worker: one stage of one job, with rows in its hands and nothing else.

``work`` returns nothing but whether it succeeded; results, failures and their words go to the node over the desk, so
that no text and no row can leave through Ray. When the node hangs up, ``stopped`` is set and the engine's child is
killed.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from sandbox import wire
from sandbox.catalog import sample_rows, twin_rows, vault
from sandbox.catalog.formats import KeyFormat
from sandbox.catalog.ids import SEPARATOR, normalise
from sandbox.desk import Blocking, pack_result
from sandbox.errors import (
    Cancelled,
    DeadlinePassed,
    IntegrityFailed,
    InvalidSpec,
    JobFailed,
    PartyFailed,
    ProtocolFailed,
    SandboxError,
)
from sandbox.footprint import give_back, keep_out
from sandbox.kinds import KINDS, confined
from sandbox.kinds.distinct import counted
from sandbox.model import JobSpec, ModelSpec, PartyRole, Plan, RawResult, Scenario
from sandbox.tee_sim.attest import measure_runtime
from sandbox.workspace import Channel, Workspace

# What workers of different parties may say to each other.
LABELS = frozenset(("engine", "held", "shape", "size", "key", "seed", "counts", "cipher", "masked", "prepared")) | {
    *("nonce", "quote", "grant", "shared", "judged"),
}
MOST_WAITING = 64 << 20  # bytes

Chore = Callable[[dict[str, Any], bytes], bytes]  # what a node has done with rows outside a job
CHORES: Mapping[str, Chore] = {"twin": twin_rows.make, "sample": sample_rows.make}


def work(path: str) -> bool:
    """Do the stage the node at ``path`` has a ticket for; whether it succeeded."""
    desk = Blocking(path)
    try:
        frame = desk.read()
        if frame is None:
            return False
        if (chore := CHORES.get(frame[0]["stage"])) is not None:
            _do(desk, chore, *frame)
            return True
        assignment = Assignment(desk, *frame)
        with contextlib.ExitStack() as stack:
            assignment.stack = stack
            kind = KINDS[assignment.plan.kind]
            stages = {"compute": kind.compute, "finish": kind.finish, "split": kind.split, "gather": kind.gather}
            stage = stages[frame[0]["stage"]]
            if stage is None:
                raise JobFailed(f"this kind has no stage {frame[0]['stage']}")
            done = stage(assignment)
            if frame[0]["stage"] == "gather" or (frame[0]["stage"] == "compute" and assignment.parts == 1):
                done = counted(assignment, done)
        assignment.report(done)
        return True
    except SandboxError as error:
        _tell(desk, error)
        return False
    except MemoryError:
        _tell(desk, JobFailed("out of memory", stage="compute"))
        return False
    except Exception as error:  # the boundary: no cause may leave the worker through Ray
        _tell(desk, JobFailed(_where(error)))
        return False
    finally:
        desk.close()
        give_back()


def _do(desk: Blocking, chore: Chore, order: dict[str, Any], body: bytes) -> None:
    report = chore(order, body)
    done = pack_result(RawResult({}, {}, {}))
    for head, content in (({"op": "keep", "name": "report"}, report), ({"op": "done"}, done)):
        desk.write(head, content)
        if desk.read() is None:
            raise JobFailed("the node is gone")


def enter(path: str) -> bool:
    """Do a stage in a process of its own, where pandas is not wanted."""
    keep_out("pandas")
    confined.stay_warm()
    return work(path)


def warm() -> None:
    """Do nothing, in a worker that thereby has this module and all it needs in memory."""
    keep_out("pandas")


def _tell(desk: Blocking, error: SandboxError) -> None:
    head = {"op": "failed", "code": type(error).__name__, "detail": str(error), "tell": error.tell}
    with contextlib.suppress(SandboxError):  # a node that is gone needs no reason
        desk.write({**head, "party": error.party, "stage": error.stage, "hint": error.hint})


def _where(error: Exception) -> str:
    """Name an unexpected error by class and place; its text may quote a row."""
    places = []
    trace = error.__traceback__
    while trace is not None:
        places.append(f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__} at {' > '.join(places[-6:])}"


class Assignment:
    """One stage of one job: the :class:`~sandbox.kinds.Task` that a kind's code sees."""

    def __init__(self, desk: Blocking, ticket: Mapping[str, Any], documents: bytes) -> None:
        plan_end = int(ticket["plan_size"])
        spec_end = plan_end + int(ticket["spec_size"])
        self.plan = wire.decode(Plan, documents[:plan_end])
        self.spec = wire.decode(JobSpec, documents[plan_end:spec_end])
        self.scenario = wire.decode(Scenario, documents[spec_end:])
        self.me: str = ticket["me"]
        self.role = next(party.role for party in self.plan.parties if party.node_id == self.me)
        self.salt = bytes.fromhex(ticket["salt"])
        self.rows: Mapping[str, int] = ticket["rows"]
        self.subject = _subject(ticket.get("subject", ""), ticket["dataset"])
        self.deadline_s = float(ticket["deadline_s"])
        self.cores, self.part, self.parts = (int(ticket[name]) for name in ("cores", "part", "parts"))
        self.scratch = Path(ticket["scratch"])
        self.paillier_key = bytes.fromhex(ticket["paillier_key"])
        self.population_key = bytes.fromhex(ticket["population_key"])
        self.stack: contextlib.ExitStack
        self._dataset: Mapping[str, Any] = ticket["dataset"]
        self._bundle: Mapping[str, str] = ticket.get("bundle", {})
        self._stage: str = ticket["stage"]
        self._run = Path(ticket["run"])
        self._desk, self._writing = desk, threading.Lock()
        self._stop = threading.Event()
        self._why: SandboxError = Cancelled("the node asked to stop", stage="compute")
        self._workspace: Workspace | None = None
        self._inbox: dict[str, queue.SimpleQueue[bytes]] = {}
        self._inbox_lock = threading.Lock()
        self._waiting, self._room = 0, threading.Condition()
        threading.Thread(target=self._listen, name="desk", daemon=True).start()

    @property
    def workspace(self) -> Workspace:
        """The engine's private directory, made when first asked for; while computing, linked to the other parties."""
        if self._workspace is None:
            peers = [party.node_id for party in self.plan.parties if party.node_id != self.me]
            self._workspace = self.stack.enter_context(Workspace(self._run, peers))
            if self._stage == "compute":
                self._ask({"op": "relay", "path": str(self._workspace.path)})
        return self._workspace

    def party(self, role: PartyRole) -> str:
        """Return the node id of the party with that role."""
        return next(party.node_id for party in self.plan.parties if party.role is role)

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns of this party's dataset that the plan lets this job use."""
        return next(party.fields for party in self.plan.parties if party.node_id == self.me)

    def table(self, columns: Sequence[str]) -> pa.Table:
        """Return columns of this party's dataset, in stored order."""
        key = bytes.fromhex(self._dataset["key"])
        batches = vault.open_version(Path(self._dataset["directory"]), key, list(columns))
        return pa.Table.from_batches(list(batches))

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the same piece by piece, so that memory does not grow with the dataset."""
        key = bytes.fromhex(self._dataset["key"])
        for batch in vault.open_version(Path(self._dataset["directory"]), key, list(columns)):
            yield pa.Table.from_batches([batch])

    def keys(self) -> pa.Array:
        """Return this party's normalised alignment keys, in stored order."""
        table = self.table(self._dataset["key_columns"])
        return normalise([table.column(name) for name in table.column_names], _formats(self._dataset))

    def key_batches(self) -> Iterator[pa.Array]:
        """Yield the same piece by piece."""
        formats = _formats(self._dataset)
        for batch in self.batches(self._dataset["key_columns"]):
            yield normalise([batch.column(name) for name in batch.column_names], formats)

    def label(self) -> str:
        """Return the target column where this side holds it, else an empty name."""
        return str(self._dataset.get("label", ""))

    def bundle(self) -> bytes:
        """Return the merchant's archive that the job names, if this process is the runtime that was quoted.

        Raises:
            IntegrityFailed: it is another runtime, or the archive is not what was handed in.
        """
        if not isinstance(self.spec.kind, ModelSpec) or not self._bundle:
            raise JobFailed("there is no bundle in this job")
        if measure_runtime().hex() != self._bundle["runtime"]:
            raise IntegrityFailed("the worker is of another runtime than was quoted")
        from sandbox.catalog.bundles import Place  # brings SQLAlchemy, 12 MiB that other jobs have no use for

        return Place(Path(self._bundle["path"]), bytes.fromhex(self._bundle["key"]), self.spec.kind.bundle).read()

    def artefact(self, job_id: str, name: str) -> bytes:
        """Return what this node keeps under a job."""
        return self._ask({"op": "fetch", "job": job_id, "name": name})

    def keep(self, name: str, content: bytes) -> None:
        """Keep bytes at this node, sealed, under this job."""
        self._ask({"op": "keep", "name": name}, content)

    def cached(self, name: str) -> bytes:
        """Return what an earlier job kept at this node for later ones; empty if nothing is there."""
        return self._ask({"op": "cached", "name": name})

    def cache(self, name: str, content: bytes, source: bytes) -> None:
        """Keep bytes for later jobs, until the dataset with the content hash ``source`` is destroyed."""
        self._ask({"op": "cache", "name": name, "source": source.hex()}, content)

    def send(self, party: str, label: str, body: bytes) -> None:
        """Send a message to the same job's worker at another party."""
        self._write({"op": "send", "to": party, "label": label}, body)

    def receive(self, party: str, label: str) -> bytes:
        """Wait for such a message."""
        return self._take(f"{party}/{label}", self.deadline_s, party)

    def channel(self, party: str) -> Channel:
        """Return a two-way channel to the same job's worker at another party."""
        return _DeskChannel(self, party)

    def quote(self, nonce: bytes, key: bytes) -> bytes:
        """Have this node quote an enclave made here."""
        return self._ask({"op": "quote", "nonce": nonce.hex()}, key)

    def grant_rows(self, quote: bytes, nonce: bytes, key: bytes) -> bytes:
        """Have this node decide on the other owner's enclave; return the data key sealed for it."""
        return self._ask({"op": "grant", "quote": quote.hex(), "nonce": nonce.hex()}, key)

    def progress(self, done: int, total: int) -> None:
        """Say how far it is."""
        self._write({"op": "progress", "done": done, "total": total})

    def stopped(self) -> threading.Event:
        """Return the event that asks the work to stop."""
        return self._stop

    def report(self, done: RawResult) -> None:
        """Hand in what the stage leaves, and wait until the node has it.

        Raises:
            ProtocolFailed: another party said more than the computation asks for.
        """
        with self._inbox_lock:
            unread = [slot for slot, waiting in self._inbox.items() if slot != "answer" and not waiting.empty()]
        if unread:
            party, _, label = unread[0].partition("/")
            raise ProtocolFailed(f"{label} came twice", tell="said something twice", party=party, stage="compute")
        self._ask({"op": "done"}, pack_result(done))

    def _write(self, head: dict[str, Any], body: bytes = b"") -> None:
        with self._writing:
            self._desk.write(head, body)

    def _ask(self, head: dict[str, Any], body: bytes = b"") -> bytes:
        self._write(head, body)
        return self._take("answer", self.deadline_s, self.me)

    def _take(self, slot: str, timeout_s: float, party: str) -> bytes:
        waiting = self._slot(slot)
        left = timeout_s
        while left > 0:
            try:
                body = waiting.get(timeout=min(0.2, left))
            except queue.Empty:
                left -= 0.2
                if self._stop.is_set():
                    raise self._why from None
                continue
            with self._room:
                self._waiting -= len(body)
                self._room.notify()
            return body
        raise DeadlinePassed(f"no {slot.split('/')[-1]} from {party}", party=party, stage="compute")

    def _slot(self, name: str) -> queue.SimpleQueue[bytes]:
        with self._inbox_lock:
            return self._inbox.setdefault(name, queue.SimpleQueue())

    def _listen(self) -> None:
        while (frame := self._desk.read()) is not None:
            head, body = frame
            if head["op"] == "answer":
                slot = "answer"
            elif head["label"] in LABELS:
                slot = f"{head['from']}/{head['label']}"
            else:
                tell = "spoke of something else"  # a party that does is not followed any further
                self._why = ProtocolFailed("an unknown label came", tell=tell, party=head["from"], stage="compute")
                break
            with self._room:  # beyond its share a party waits in the nodes' own bounded queues
                self._waiting += len(body)
                self._room.wait_for(lambda: self._waiting <= MOST_WAITING or self._stop.is_set())
            self._slot(slot).put(body)
        self._stop.set()


class _DeskChannel:
    """A :class:`~sandbox.workspace.Channel` over the desk and the sealed connection between the nodes."""

    def __init__(self, assignment: Assignment, party: str) -> None:
        self._assignment, self._party = assignment, party

    def send(self, data: bytes) -> None:
        self._assignment.send(self._party, "engine", data)

    def recv(self, deadline: float) -> bytes:
        try:
            return self._assignment._take(f"{self._party}/engine", deadline, self._party)
        except DeadlinePassed as error:
            raise PartyFailed(str(error), tell="went silent", party=self._party, stage="compute") from None


def _formats(dataset: Mapping[str, Any]) -> list[KeyFormat]:
    return [KeyFormat(name) for name in dataset["key_formats"]]


def _subject(value: str, dataset: Mapping[str, Any]) -> str:
    """Return the person's key in the spelling of this party's keys; of several columns, it comes joined already."""
    if not value:
        return ""
    parts, formats = value.split(SEPARATOR), _formats(dataset)
    if len(parts) != len(formats):
        raise InvalidSpec(f"the person is named by {len(parts)} values, the key of the dataset has {len(formats)}")
    return str(normalise([pa.array([part], pa.string()) for part in parts], formats)[0].as_py())
