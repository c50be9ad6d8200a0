"""Three real nodes with small made-up data, their people, and the little that many tests ask of them."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import select

from sandbox import signed, wire
from sandbox.client import Client, Trust
from sandbox.client.connection import full_name
from sandbox.demo.nodes import LocalNodes
from sandbox.errors import NotFound
from sandbox.home import Home
from sandbox.keyring import Person
from sandbox.kinds.confined import scratch
from sandbox.model import (
    ENDED,
    Category,
    Consent,
    ConsentRule,
    ConsentSource,
    DatasetRef,
    DatasetUse,
    DatasetView,
    Dimension,
    JobKind,
    JobView,
    MeasureRange,
    Outline,
    OutputClass,
    OutputRule,
    PriceTerms,
    PsiEngine,
    Quota,
    Recipient,
    Scenario,
    Signed,
    State,
    VersionRule,
)
from sandbox.peer.failures import TRAILER
from sandbox.store import usage

CANARY = "CANARY7391"
SHARED_ID = f"{CANARY}-SHARED"
BANK_ROWS, OPERATOR_ROWS, SHARED, BAD = 600, 900, 423, 140
PURPOSE = "a credit decision on a loan"
PEOPLE = {
    "officer": ("bank", ["submitter"]),
    "clerk": ("bank", ["submitter"]),
    "bank-owner": ("bank", ["owner", "auditor"]),
    "op-owner": ("operator", ["owner", "operator", "auditor"]),
    "op-merchant": ("operator", ["submitter"]),
    "desk": ("operator", ["consent"]),
    "regulator": ("witness", ["operator", "auditor"]),
    "fund-owner": ("witness", ["owner"]),
    "first-reviewer": ("operator", ["reviewer"]),
    "second-reviewer": ("operator", ["reviewer"]),
    "bank-reviewer": ("bank", ["reviewer"]),
}
HOUR = 3_600_000


OUTLINE = Outline(
    data_use="loans of the bank, credit records of the operator",
    supply="one table each, renewed every month",
    problem="who may be lent to, without papers",
    category=Category.AUTHORISED,
    field_of_use="finance",
)


def schema(columns: Mapping[str, str], key: str = "id") -> dict[str, Any]:
    """A schema file with the least that is required."""
    fields = [{"name": name, "type": kind, "meaning": name, "grade": "L3"} for name, kind in columns.items()]
    return {"key": [key], "fields": fields}


BANK = schema({"id": "string", "income": "integer", "region": "string", "note": "string", "bad": "integer"})
OPERATOR = schema({"id": "string", "late": "integer", "util": "integer", "city": "string"})


def bank_rows() -> pa.Table:
    """600 loans, 140 of them bad, all bad ones among the 423 whom the operator knows; not in the operator's order."""
    random = np.random.default_rng(5)
    order = random.permutation(BANK_ROWS)
    ids = np.array([SHARED_ID, *(f"PERSON-{n:05d}" for n in range(1, BANK_ROWS))])
    regions = np.array([f"region-{n % 4}" for n in range(BANK_ROWS)], dtype=object)
    regions[0] = f"{CANARY}-region"
    bad = np.zeros(BANK_ROWS, np.int64)
    bad[1 : 1 + BAD] = 1
    notes = np.array([f"{CANARY}-note-{n}" for n in range(BANK_ROWS)])
    columns = {"id": ids, "income": 1000 + random.integers(0, 500, BANK_ROWS) - 200 * bad, "region": regions}
    table = pa.table({**columns, "note": notes, "bad": bad})
    return table.take(pa.array(order))


def operator_rows() -> pa.Table:
    """900 people, among them the bank's first 423."""
    random = np.random.default_rng(6)
    ids = [SHARED_ID, *(f"PERSON-{n:05d}" for n in range(1, SHARED))]
    ids += [f"OTHER-{n:05d}" for n in range(OPERATOR_ROWS - SHARED)]
    late = random.integers(0, 3, OPERATOR_ROWS)
    late[1 : 1 + BAD] += 2
    cities = [f"{CANARY}-city" if n % 9 == 0 else f"city-{n % 5}" for n in range(OPERATOR_ROWS)]
    table = pa.table({"id": ids, "late": late, "util": random.integers(0, 100, OPERATOR_ROWS), "city": cities})
    return table.take(pa.array(random.permutation(OPERATOR_ROWS)))


DEPARTMENT = schema({"id": "string", "district": "string", "age": "integer", "income": "decimal", "note": "string"})
DISTRICTS = ("north", "south", "harbour")
DIMENSIONS = (Dimension("district", "district", DISTRICTS), Dimension("age_band", "age", (), (40, 65)))
RANGES = (MeasureRange("income", 0, 1_000_000, 2), MeasureRange("age", 0, 15_000, 2))
COLUMNS = ("district", "age", "income")
SIZES = {"bank": (1, 0, 400), "operator": (2, 200, 600), "witness": (3, 100, 500)}  # seed, first, count
BANDS = (Dimension("util_band", "util", (), (33, 66)), Dimension("region", "region", ("region-1", "region-2")))
BOUNDS = (MeasureRange("bad", 0, 10_000, 4), MeasureRange("income", 0, 10_000), MeasureRange("late", 0, 900, 2))


def department_rows(seed: int, first: int, count: int) -> pa.Table:
    """People numbered from ``first``, with an income that is sometimes missing; one in nine lives nowhere we name."""
    random = np.random.default_rng(seed)
    districts = random.choice([*DISTRICTS, f"{CANARY}-district"], count, p=[0.3, 0.3, 0.29, 0.11])
    gone = random.random(count) < 0.1
    cents = random.integers(0, 1_000_000, count)
    incomes = [None if lost else Decimal(int(amount)) / 100 for amount, lost in zip(cents, gone, strict=True)]
    table = pa.table(
        {
            "id": [f"{CANARY}-{n:05d}" for n in range(first, first + count)],
            "district": districts.tolist(),
            "age": random.integers(18, 90, count),
            "income": pa.array(incomes, pa.decimal128(12, 2)),
            "note": [f"{CANARY}-note-{n}" for n in range(count)],
        }
    )
    return table.take(pa.array(random.permutation(count)))


def joint_rules(**changes: Any) -> tuple[OutputRule, ...]:
    """A rule for every output of an intersection, and for tables of totals."""
    rules = [
        OutputRule(JobKind.PSI, name, OutputClass.AGGREGATE, 10, 10, 1, 4096) for name in ("aligned", "size", "sums")
    ]
    rules += [
        OutputRule(JobKind.PSI, name, OutputClass.ROW_CONSENTED, 10, 1, 100_000, 8_000_000)
        for name in ("members", "joined")
    ]
    rules.append(OutputRule(JobKind.AGGREGATE, "totals", OutputClass.AGGREGATE, 10, 10, 100, 40_960))
    return tuple(dataclasses.replace(rule, **changes.get(rule.name, {})) for rule in rules)


@dataclass(frozen=True)
class Answer:
    """How a raw call ended."""

    code: str
    details: str
    trailer: bytes
    body: bytes = b""


class World:
    """Three running nodes and everybody who works with them."""

    def __init__(self, nodes: LocalNodes, stack: ExitStack) -> None:
        self.nodes, self.folder = nodes, nodes.folder
        self.people = {name: nodes.person(name, node, roles) for name, (node, roles) in PEOPLE.items()}
        self.clients = {name: stack.enter_context(nodes.client(name, node)) for name, (node, _) in PEOPLE.items()}
        self.officer, self.bank_owner = self.clients["officer"], self.clients["bank-owner"]
        self.op_owner, self.regulator = self.clients["op-owner"], self.clients["regulator"]
        self.names = 0

    # --- data and scenarios -------------------------------------------------------------------------------------

    def register(self, person: str, table: pa.Table, columns: dict[str, Any], name: str = "") -> DatasetView:
        """Register a table; its files are gone afterwards."""
        self.names += 1
        name = name or f"set-{self.names}"
        path, described = self.folder / f"{name}.parquet", self.folder / f"{name}.schema.json"
        pq.write_table(table, path)
        described.write_text(json.dumps(columns))
        try:
            return self.clients[person].register_dataset(path, described, name)
        finally:
            path.unlink()
            described.unlink()

    def draft(self, bank: DatasetView, operator: DatasetView, **changes: Any) -> Scenario:
        """A scenario over two datasets, with every kind."""
        officer = self.people["officer"]
        card = signed.open_key_card(officer.card)
        now = signed.now_ms()
        rules = (
            OutputRule(JobKind.PSI, "aligned", OutputClass.AGGREGATE, 10, 10, 1, 4096),
            OutputRule(JobKind.TRAIN, "training", OutputClass.REPORT, 10, 10, 1, 4096),
            OutputRule(JobKind.SCORE, "metrics", OutputClass.REPORT, 10, 10, 1, 4096),
            OutputRule(JobKind.SCORE, "scores", OutputClass.ROW_CONSENTED, 0, 0, 1000, 1_000_000),
        )
        self.names += 1
        whole = Scenario(
            name=f"credit-{self.names}",
            merchant="Example Bank",
            purpose=PURPOSE,
            applicant_key=officer.identity.public.to_bytes(),
            datasets=(_use(bank, ("income", "region"), "bad"), _use(operator, ("late", "util", "city"), "")),
            kinds=(JobKind.PSI, JobKind.TRAIN, JobKind.SCORE),
            outputs=rules,
            recipient=Recipient("bank", card.identity_key, card.sealing.key),
            operator="operator",
            computing_parties=("witness",),
            not_before_ms=now - HOUR,
            not_after_ms=now + 24 * HOUR,
            quota=Quota(200, 200, 10_000_000),
            consent=Consent(
                ConsentRule.HELD_LETTER,
                ConsentRule.TOKEN,
                (self.people["desk"].identity.public.to_bytes(),),
                tuple(ConsentSource),
                sample_permille=5,
                letter_days=14,
            ),
            score_step=5,
            models_per_person=5,
            price=PriceTerms("fujian-2024", "1", False),
            accepts_simulated=False,
            nonce=os.urandom(16),
            controller=f"holding-{self.names}",  # else the tests' many small questions would be taken together
            outline=OUTLINE,
        )
        return dataclasses.replace(whole, **changes)

    def joint(self, uses: Mapping[DatasetView, tuple[str, ...]], label: str = "", **changes: Any) -> Scenario:
        """A scenario of intersections and totals over some owners' columns; the first dataset may have a label."""
        bank, *others = uses
        made = self.draft(bank, others[0])
        datasets = tuple(_use(view, fields, label if view is bank else "", view.rows) for view, fields in uses.items())
        whole = dataclasses.replace(
            made,
            datasets=datasets,
            kinds=(JobKind.PSI, JobKind.AGGREGATE),
            outputs=joint_rules(),
            computing_parties=() if len(uses) == 3 else ("witness",),
        )
        return dataclasses.replace(whole, **changes)

    def approved(
        self, scenario: Scenario, two: bool = False, person: str = "officer", simulated: bool = False
    ) -> bytes:
        """Apply for a scenario and have everybody approve it; a total over two, and a simulated enclave, if asked."""
        digest = self.clients[person].apply_scenario(scenario).digest
        for client in (self.op_owner, self.bank_owner, self.regulator):
            view = client.approve_scenario(digest, accepts_simulated=simulated, accepts_two_contributors=two)
        assert (view.state, view.awaiting) == ("active", ())
        return digest

    # --- jobs ---------------------------------------------------------------------------------------------------

    def ended(self, job_id: str, client: Client | None = None, timeout_s: float = 180.0) -> JobView:
        """Return a job once it has ended, however it did."""
        client = client or self.officer
        end = time.monotonic() + timeout_s
        while True:
            try:
                view = client.job(job_id)
            except NotFound:  # another party hears of it a moment after the submitter does
                assert client is not self.officer and time.monotonic() < end, f"job {job_id} is not known"
                time.sleep(0.1)
                continue
            if view.state in ENDED:
                return view
            assert time.monotonic() < end, f"job {job_id} is {view.state.name}: {view.stages}\n{self.logs()}"
            time.sleep(0.1)

    def released(self, job: JobView) -> JobView:
        """Return a job that ended well."""
        view = self.ended(job.job_id)
        assert view.state is State.RELEASED, f"{view.failure}\n{self.logs()}"
        return view

    def held(self, job_id: str, timeout_s: float = 180.0) -> None:
        """Wait until a job is held at the bank and at the operator."""
        end = time.monotonic() + timeout_s
        for client in (self.officer, self.op_owner):
            while (view := client.job(job_id)).state is not State.HELD:
                assert view.state not in ENDED, f"it ended before it was held: {view.failure}\n{self.logs()}"
                assert time.monotonic() < end, f"not held: {view.stages}\n{self.logs()}"
                time.sleep(0.05)

    def reached(self, job_id: str, stage: str, timeout_s: float = 180.0) -> None:
        """Wait until a job is in a stage."""
        end = time.monotonic() + timeout_s
        while True:
            view = self.officer.job(job_id)
            names = [s.name for s in view.stages]
            if names and names[-1] == stage:
                return
            assert view.state not in ENDED, f"it ended before {stage}: {view.failure}"
            assert time.monotonic() < end, f"not in {stage}: {names}"
            time.sleep(0.02)

    def computing(self, job: JobView) -> None:
        """Wait until both owners have spent the quota: from then on engine bytes flow."""
        self.reached(job.job_id, "compute")
        end = time.monotonic() + 30
        for node in ("bank", "operator"):
            while [r.state for r in self.select(node, select(usage.c.state).where(usage.c.job_id == job.job_id))] != [
                "spent"
            ]:
                assert time.monotonic() < end, f"nothing is spent at {node}"
                time.sleep(0.05)
        time.sleep(0.3)

    def align(self, digest: bytes, bank: DatasetView, operator: DatasetView, **options: Any) -> JobView:
        """Submit an alignment."""
        engine = options.pop("engine", PsiEngine.ECDH_X25519)
        return self.officer.align(digest, ref(bank), ref(operator), engine, **options)

    def trust(self) -> Trust:
        """Whom the bank's receipts are checked against."""
        return Trust.from_file(self.folder / "bank.trust")

    def logs(self) -> str:
        """The end of every node's log, for a failing assertion."""
        kept = {n: [line for line in self.log(n).splitlines() if " DEBUG " not in line] for n in self.nodes.cards}
        return "\n".join(f"--- {n}\n" + "\n".join(lines[-30:]) for n, lines in kept.items())

    def log(self, name: str) -> str:
        """A node's log."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def home(self, name: str) -> Home:
        """A node's home, opened beside the running node; close its store."""
        return Home(self.nodes.home(name))

    def select(self, name: str, query: Any) -> list[Any]:
        """Rows of a node's store."""
        home = self.home(name)
        try:
            with home.store.read() as conn:
                return list(conn.execute(query))
        finally:
            home.store.close()

    def run(self, name: str) -> Path:
        """A node's run directory."""
        return Path((self.nodes.home(name) / "run.path").read_text())

    def processes(self, name: str) -> list[psutil.Process]:
        """A node's process and everything below it."""
        own = psutil.Process(self.nodes.processes[name].pid)
        return [own, *own.children(recursive=True)]

    def engines(self, name: str) -> list[psutil.Process]:
        """The engine children of a node."""
        return [p for p in self.processes(name) if any("boot.py" in word for word in _words(p))]

    def jails(self, name: str) -> dict[Path, bool]:
        """The folders of the jails below a node, and whether a job is in each: one may wait for the next job, empty."""
        found = {}
        for process in self.processes(name):
            with suppress(psutil.Error, OSError):
                links = [os.readlink(handle) for handle in Path(f"/proc/{process.pid}/fd").iterdir()]
                held = [Path(link).parent for link in links if link.startswith(f"{scratch()}/jail-")]
                if held:
                    inside = [
                        Path("/proc", str(child.pid), "root", "job", "in") for child in process.children(recursive=True)
                    ]
                    found[held[0]] = any(any(place.iterdir()) for place in (*inside, held[0] / "in") if place.exists())
        return found

    def leftovers(self, name: str) -> list[str]:
        """What a job left in a node's run directory beside Ray's own."""
        return sorted(p.name for p in self.run(name).iterdir() if p.name != "r")

    def settle(self, *names: str, timeout_s: float = 10.0) -> None:
        """Wait until nothing of any job is left in the run directories, and no engine runs."""
        end = time.monotonic() + timeout_s
        for name in names or tuple(self.nodes.processes):
            while found := [*self.leftovers(name), *map(str, self.engines(name))]:
                assert time.monotonic() < end, f"left at {name}: {found}"
                time.sleep(0.1)

    # --- raw calls ----------------------------------------------------------------------------------------------

    def raw(self, node: str, person: Person | None, method: str, request: bytes, *, stream: bool = False) -> Answer:
        """Send bytes as a request over the person's TLS, and return how it ended."""
        card = self.nodes.cards[node]
        keys = (person.tls_key, person.tls_certificate) if person else (None, None)
        credentials = grpc.ssl_channel_credentials(card.tls_certificate, *keys)
        with grpc.secure_channel(
            card.address, credentials, [("grpc.ssl_target_name_override", card.node_id)]
        ) as channel:
            anything: Any = channel  # bytes in, bytes out
            name = method if method.startswith("/") else full_name(method)
            try:
                if stream:
                    body = b"".join(anything.unary_stream(name)(request, timeout=20))
                else:
                    body = anything.unary_unary(name)(request, timeout=20)
            except grpc.RpcError as error:
                metadata: Any = error.trailing_metadata() or ()
                trailer = b"".join(value for key, value in metadata if key == TRAILER)
                return Answer(error.code().name, str(error.details()), trailer)
            return Answer("OK", "", b"", body)

    def call(self, person: str, node: str, method: str, body: object) -> Signed:
        """A correctly signed call."""
        return signed.sign_call(self.people[person].identity, node, full_name(method), body)


def request(call: Signed) -> bytes:
    """The request message that holds a signed call: every one of them has it as its field 1."""
    inner = wire.encode(call)
    return b"\x0a" + _varint(len(inner)) + inner


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def ref(view: DatasetView) -> DatasetRef:
    """A dataset version as specs name it."""
    return DatasetRef(view.code, view.version)


def _use(view: DatasetView, fields: tuple[str, ...], label: str, rows: int = 0) -> DatasetUse:
    exact = VersionRule.EXACT
    return DatasetUse(view.code, view.owner, exact, view.version, view.content_hash, ("id",), fields, label, rows)


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def people_table(count: int, start: int = 0, **columns: Any) -> pa.Table:
    """Rows that only have an id and one number."""
    return pa.table({"id": [f"P-{n}" for n in range(start, start + count)], "v": list(range(count)), **columns})


PEOPLE_SCHEMA = schema({"id": "string", "v": "integer"})


def counting(scenario: Scenario) -> dict[str, Any]:
    """What makes a scenario one of counting only, over datasets that have no label."""
    return {
        "kinds": (JobKind.PSI,),
        "outputs": scenario.outputs[:1],
        "datasets": tuple(dataclasses.replace(use, fields=("v",), label="") for use in scenario.datasets),
    }
