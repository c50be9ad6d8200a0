"""What the catalogue and the policy cost: a large table registered, a decision, a twin.

    python -m bench.governance [--rows 10000000] [--scenarios 10000] [--history 1000000] [--twin 1000000]

Shapes:  *register*: a Parquet file of 20 columns (identity number, texts of few and of many values, whole numbers,
         decimals, dates, truth values) read, checked, profiled, graded and sealed, as a node does it, in a process of
         its own on one core: bytes of rows (in Arrow) and of sealed chunks (compressed) a second of processor time,
         peak memory of the whole process. What travels over gRPC before that is ``bench.upload``. *admit*: the
         decision by itself, and with the reading of everything that it may look at, in a store with so many
         scenarios, and so many uses of the one in question. *twin*: measured under a budget of 1 and made, 10
         columns, in a process of its own.
There is no peer: no other product at hand decides from one signed object, or makes twins under a stated budget.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import secrets
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import insert

from bench.record import Figure, median, record
from sandbox import signed
from sandbox.catalog import entries, vault
from sandbox.catalog.ids import made_up_ids
from sandbox.catalog.intake import read_table
from sandbox.catalog.registration import make_code
from sandbox.catalog.schema import DatasetVersion, Schema, parse_schema, schema_bytes
from sandbox.catalog.survey import Survey
from sandbox.catalog.twin import measure, synthesise
from sandbox.crypto.sm2 import PrivateKey
from sandbox.home import Home, init
from sandbox.ledger import Ledger
from sandbox.model import (
    Approval,
    ApprovalRecord,
    Category,
    Consent,
    ConsentRule,
    DatasetRef,
    DatasetRegistration,
    DatasetUse,
    JobKind,
    JobSpec,
    JobSubmission,
    Outline,
    OutputClass,
    OutputRule,
    PriceTerms,
    PsiEngine,
    PsiSpec,
    Quota,
    Recipient,
    Scenario,
    Signed,
    UploadFile,
    VersionRule,
)
from sandbox.policy import book
from sandbox.policy.admit import Choices, admit
from sandbox.policy.scenario import Floors
from sandbox.store import usage, usage_sums

COMMAND: Final = "python -m bench.governance"
PART: Final = 500_000
DAY_MS: Final = 86_400_000


def schema_of(columns: int) -> Schema:
    """Return a schema with an identity number and other columns of every type in turn."""
    kinds = ("string", "integer", "decimal", "date", "boolean", "string")
    fields = [{"name": "id", "type": "string", "meaning": "person", "grade": "L4", "format": "id_number"}]
    for place in range(1, columns):
        kind = kinds[place % len(kinds)]
        fields.append({"name": f"c{place:02}", "type": kind, "meaning": f"column {place}", "grade": "L3"})
    return parse_schema(json.dumps({"key": ["id"], "fields": fields}).encode())


def write_rows(path: Path, schema: Schema, rows: int) -> int:
    """Write a table of made-up rows and return its size in Arrow."""
    random, size = np.random.default_rng(7), 0
    ids = made_up_ids(rows, 7)
    with pq.ParquetWriter(path, schema.arrow(), compression="zstd") as writer:
        for first in range(0, rows, PART):
            count = min(PART, rows - first)
            columns = [ids.slice(first, count)]
            for field, kind in zip(schema.fields[1:], schema.arrow().types[1:], strict=True):
                columns.append(_column(random, field.name, kind, count))
            batch = pa.RecordBatch.from_arrays(columns, schema=schema.arrow())
            size += batch.nbytes
            writer.write_batch(batch)
    return size


def _column(random: np.random.Generator, name: str, kind: pa.DataType, count: int) -> pa.Array:
    if pa.types.is_string(kind):
        many = int(name[1:]) % 12 == 0
        numbers = random.integers(0, 10**9 if many else 40, count)
        return pa.array(np.char.add("v", numbers.astype(str)), pa.string())
    if pa.types.is_boolean(kind):
        return pa.array(random.random(count) < 0.3)
    if pa.types.is_date(kind):
        return pa.array(random.integers(10_000, 20_000, count).astype(np.int32)).cast(kind)
    whole = pa.array(random.integers(0, 200_000, count))
    return whole if pa.types.is_integer(kind) else whole.cast(pa.decimal128(19, 0)).cast(kind)


def alone(work: Callable[..., dict[str, float]], *args: Any) -> dict[str, float]:
    """Run a function in a fresh process and return what it found, with that process's peak memory in MiB."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        return pool.apply(_measured, (work, args))


def _measured(work: Callable[..., dict[str, float]], args: tuple[Any, ...]) -> dict[str, float]:
    found = work(*args)
    # Not getrusage: its peak is inherited from the process that started this one.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {**found, "mib": int(peak.split()[1]) / 1024}


def register(folder: str, rows: int) -> dict[str, float]:
    """Take in, look through and seal a table."""
    path, schema = Path(folder) / "rows.parquet", schema_of(20)
    code = make_code("bench", "rows")
    meta = DatasetVersion(code, 1, "bench", schema, 0, b"", datetime.now(UTC), "", 0)
    survey, began = Survey(schema), (time.perf_counter(), time.process_time())
    batches = survey.watch(read_table(path, schema))
    sealed = vault.seal_version(Path(folder) / "vault", secrets.token_bytes(16), meta, batches)
    survey.profile()
    seconds, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    place = vault.version_dir(Path(folder) / "vault", code, 1)
    if sealed.manifest.rows != rows:
        raise SystemExit("not all rows were sealed")
    size = sum(file.stat().st_size for file in place.glob("*.sealed"))
    return {"seconds": seconds, "cpu": cpu, "sealed": size / 1e6}


def twin(folder: str, rows: int) -> dict[str, float]:
    """Measure a table and make its twin."""
    schema = schema_of(10)
    path = Path(folder) / "twin.parquet"

    def batches() -> Any:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(65_536)

    began = time.perf_counter()
    found = measure(batches, schema, 1000)
    measured = time.perf_counter() - began
    made = sum(batch.num_rows for batch in synthesise(found, schema, make_code("bench", "twin"), rows, b"bench"))
    if made != rows:
        raise SystemExit("the twin has other rows")
    return {"seconds": time.perf_counter() - began, "measured": measured}


def scenario_of(number: int, applicant: PrivateKey, uses: tuple[DatasetUse, ...]) -> Scenario:
    """Return a scenario that counts who is in both of two datasets."""
    key, now = applicant.public.to_bytes(), signed.now_ms()
    return Scenario(
        name=f"scenario-{number}",
        merchant="Example Merchant",
        purpose="to count how many people both have",
        applicant_key=key,
        datasets=uses,
        kinds=(JobKind.PSI,),
        outputs=(OutputRule(JobKind.PSI, "aligned", OutputClass.AGGREGATE, 10, 10, 1, 4096),),
        recipient=Recipient("bank", key, key),
        operator="operator",
        computing_parties=(),
        not_before_ms=now - DAY_MS,
        not_after_ms=now + DAY_MS,
        quota=Quota(10**7, 10**7, 10**12),
        consent=Consent(ConsentRule.NONE, ConsentRule.NONE, ()),
        score_step=5,
        models_per_person=1,
        price=PriceTerms("fujian-2024", "1", False),
        accepts_simulated=False,
        nonce=number.to_bytes(16, "big"),
        outline=Outline(
            "which people both have", "by a node each", "how many are in both", Category.AUTHORISED, "bench"
        ),
    )


def fill(ledger: Ledger, scenarios: int, history: int) -> tuple[Signed, JobSpec]:
    """Fill a store, and return a call under one of its scenarios."""
    applicant, other = PrivateKey.generate(), PrivateKey.generate()
    codes = [make_code(node, "rows") for node in ("bank", "operator")]
    uses = tuple(
        DatasetUse(code, node, VersionRule.EXACT, 1, bytes([place]) * 32, ("id",), ("v",), "", 1000)
        for place, (code, node) in enumerate(zip(codes, ("bank", "operator"), strict=True))
    )
    floors, now, digest = Floors(10, 10, 5), signed.now_ms(), b""
    body = DatasetRegistration("rows", schema_bytes(schema_of(2)), (UploadFile("x.csv", 1, bytes(32)),))
    with ledger.store.write() as conn:
        entries.add(conn, codes[0], 1, body, entries.Sealed(1000, uses[0].content_hash, b"k", b"{}"))
        for number in range(scenarios):
            digest = book.file(conn, signed.sign(applicant, "scenario", scenario_of(number, applicant, uses)), floors)
            for party in ("bank", "operator"):
                approval = signed.sign(other, "approval", Approval(digest, party, False, now))
                record_ = ApprovalRecord(approval, other.public.to_bytes())
                vouched = signed.sign(ledger.keys.identity, "approval-record", record_)
                book.approve(conn, vouched, ledger.keys.identity.public, party)
        for first in range(0, history, 50_000):
            rows = [
                {
                    "job_id": f"{n:032x}",
                    "scenario_digest": digest,
                    "day": n % 300,
                    "calls": 1,
                    "rows": 10,
                    "state": "spent",
                }
                for n in range(first, min(first + 50_000, history))
            ]
            conn.execute(insert(usage), rows)
        sums = {"scenario_digest": digest, "calls": history, "rows": 9 * history}
        conn.execute(insert(usage_sums).values(day=-1, **sums))
    refs = [DatasetRef(code, 1) for code in codes]
    spec = JobSpec("request", digest, PsiSpec(refs[0], refs[1], PsiEngine.ECDH_X25519))
    return signed.sign_call(applicant, "bank", "/sandbox.v1.JobService/SubmitJob", JobSubmission(spec)), spec


def decide(folder: Path, scenarios: int, history: int) -> dict[str, float]:
    """Return milliseconds of the decision, and of it with everything that it reads."""
    init(folder, node_id="bank", organisation="Example Bank", listen="127.0.0.1:1")
    home = Home(folder)
    ledger = Ledger(folder, home.settings, home.keys, home.store, lambda: {"ecdh-x25519": ""})
    call, spec = fill(ledger, scenarios, history)
    choices, deciding, both = Choices("bank"), [], []
    for _ in range(200):
        began = time.perf_counter()
        with ledger.store.read() as conn:
            facts = replace(ledger.facts(conn, call, spec, choices), is_tested=True)
        read = time.perf_counter()
        admit(spec, "0" * 32, bytes(32), facts, choices)
        ended = time.perf_counter()
        deciding.append(ended - read)
        both.append(ended - began)
    home.store.close()
    return {"deciding": 1000 * median(deciding), "both": 1000 * median(both)}


def _figure(case: str, value: float, unit: str, mib: float | None = None) -> Figure:
    return Figure("governance", case, round(value, 3), unit, COMMAND, peak_mib=None if mib is None else round(mib))


def main(arguments: list[str] | None = None) -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 10_000_000), ("scenarios", 10_000), ("history", 1_000_000), ("twin", 1_000_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args(arguments)
    figures = []
    with tempfile.TemporaryDirectory(prefix="bench-governance-") as place:
        folder = Path(place)
        if asked.rows:
            size = write_rows(folder / "rows.parquet", schema_of(20), asked.rows)
            found = alone(register, place, asked.rows)
            case = f"register {asked.rows:.0e} rows x 20".replace("e+0", "e")
            print(f"{case}: {found['seconds']:.1f} s, {found['cpu']:.1f} s of processor time, {found['sealed']:.0f} MB")
            print(f"  in Arrow {size / 1e6:.0f} MB, peak {found['mib']:.0f} MiB")
            figures.append(_figure(case, size / 1e6 / found["cpu"], "MB/s of rows a core", found["mib"]))
            figures.append(_figure(f"{case}, sealed bytes", found["sealed"] / found["cpu"], "MB/s a core"))
            (folder / "rows.parquet").unlink()
        if asked.twin:
            write_rows(folder / "twin.parquet", schema_of(10), asked.twin)
            found = alone(twin, place, asked.twin)
            case = f"twin {asked.twin:.0e} rows x 10".replace("e+0", "e")
            print(f"{case}: {found['seconds']:.1f} s, of which measuring {found['measured']:.1f} s")
            figures.append(_figure(case, found["seconds"], "s", found["mib"]))
        if asked.scenarios:
            found = decide(folder / "node", asked.scenarios, asked.history)
            case = f"admit, {asked.scenarios} scenarios, {asked.history:.0e} uses".replace("e+0", "e")
            print(f"{case}: {found['deciding']:.3f} ms, with all that it reads {found['both']:.2f} ms")
            figures.append(_figure(case, found["deciding"], "ms"))
            figures.append(_figure(f"{case}, and all it reads", found["both"], "ms"))
    record(figures)


if __name__ == "__main__":
    main()
