"""A table of totals over three owners' rows, as a job: from the submission until the client hears that it is released.

    python -m bench.totals [--rows 1000000] [--runs 5]

Shapes:  bank, operator and witness hold ``rows`` rows each: one of 100 groups, two amounts in fen. The table has a row
         for every group: how many rows, the sum of one column, the mean of the other, the variance of both.
Ours:    signed request, admission and gate at three nodes, rows unsealed and added up, masked, encrypted with Paillier
         (2048 bits), added up under encryption, decrypted at the recipient's node, sealed to the client, receipt
         co-signed. Ray is up at all three, datasets are registered, and one job has run before.
Checks:  the table is compared with the same totals in the clear, by numpy.
There is no peer: none of the libraries at hand does this as a job. ``bench.paillier`` compares the arithmetic.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.memory import Memory
from bench.nodes import DAY_MS, FAIR, environment
from bench.record import Figure, median, record
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
    Dimension,
    JobKind,
    Measure,
    MeasureRange,
    Outline,
    OutputClass,
    OutputRule,
    PriceTerms,
    Quota,
    Recipient,
    Scenario,
    Statistic,
    VersionRule,
)

OWNERS: Final = ("bank", "operator", "witness")
GROUPS: Final = tuple(f"group {number:02d}" for number in range(100))
RANGES: Final = {"paid": 1_000_000, "income": 5_000_000}  # fen
OUTLINE: Final = Outline(
    "rows that were made up",
    "one file at the start of a run",
    "how long a table of totals takes",
    Category.OPEN,
    "measuring",
)
MEASURES: Final = (
    Measure("total_paid", Statistic.SUM, "paid"),
    Measure("mean_income", Statistic.MEAN, "income"),
    Measure("variance_paid", Statistic.VARIANCE, "paid"),
    Measure("variance_income", Statistic.VARIANCE, "income"),
)
AT_MOST_S: Final = 5.0


def rows_of(place: int, rows: int) -> pd.DataFrame:
    """Return one owner's made-up rows; amounts in fen."""
    random = np.random.default_rng(place)
    return pd.DataFrame(
        {
            "id": np.char.mod("99%016d", random.permutation(rows)),
            "group": np.array(GROUPS, dtype=object)[random.integers(0, len(GROUPS), rows)],
            **{name: random.integers(0, high + 1, rows) for name, high in RANGES.items()},
        }
    )


def expected(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the totals in the clear, in yuan."""
    grouped = pd.concat(frames).groupby("group")
    made = pd.DataFrame({"total_paid": grouped["paid"].sum() / 100, "mean_income": grouped["income"].mean() / 100})
    for name in RANGES:
        made[f"variance_{name}"] = grouped[name].var() / 10_000
    return made.loc[list(GROUPS)]


def register(nodes: LocalNodes, node: str, frame: pd.DataFrame) -> DatasetView:
    """Upload and seal one owner's rows."""
    path, schema = nodes.folder / f"{node}.parquet", nodes.folder / f"{node}.schema.json"
    texts = {name: pa.array(frame[name], pa.string()) for name in ("id", "group")}
    amounts = {name: _yuan(pa.array(frame[name].to_numpy(), pa.int64())) for name in RANGES}
    pq.write_table(pa.table({**texts, **amounts}), path)
    types = {"id": "string", "group": "string", **dict.fromkeys(RANGES, "decimal")}
    fields = [{"name": name, "type": type_, "meaning": "made up", "grade": "L1"} for name, type_ in types.items()]
    schema.write_text(json.dumps({"key": ["id"], "fields": fields}))
    with nodes.client(f"{node}-owner", node) as client:
        return client.register_dataset(path, schema, f"rows-{node}", licence="none: made up")


def approve(nodes: LocalNodes, views: list[DatasetView]) -> bytes:
    """File a scenario that allows the table, and have every owner approve it."""
    now = signed.now_ms()
    fields = ("group", *RANGES)
    with nodes.client("analyst", "bank") as bank:
        analyst = signed.open_key_card(bank.person.card)
        scenario = Scenario(
            name="bench-totals",
            merchant="Example Bank",
            purpose="measuring",
            applicant_key=analyst.identity_key,
            datasets=tuple(
                DatasetUse(
                    view.code, view.owner, VersionRule.EXACT, view.version, view.content_hash, ("id",), fields, ""
                )
                for view in views
            ),
            kinds=(JobKind.AGGREGATE,),
            outputs=(OutputRule(JobKind.AGGREGATE, "totals", OutputClass.AGGREGATE, 10, 10, 1000, 1 << 20),),
            recipient=Recipient("bank", analyst.identity_key, analyst.sealing.key),
            operator="operator",
            computing_parties=(),
            not_before_ms=now - DAY_MS,
            not_after_ms=now + DAY_MS,
            quota=Quota(10_000, 10_000, 10**12),
            consent=Consent(ConsentRule.NONE, ConsentRule.NONE, ()),
            score_step=5,
            models_per_person=1,
            price=PriceTerms("fujian-2024", "1", True),
            accepts_simulated=False,
            nonce=secrets.token_bytes(16),
            outline=OUTLINE,
            dimensions=(Dimension("group", "group", GROUPS),),
            measures=tuple(MeasureRange(name, 0, high, 2) for name, high in RANGES.items()),
        )
        digest = bank.apply_scenario(scenario).digest
    for node in OWNERS:
        with nodes.client(f"{node}-owner", node) as client:
            client.approve_scenario(digest, node)
    return digest


def run_job(
    client: Client, digest: bytes, views: list[DatasetView], wanted: pd.DataFrame
) -> tuple[float, dict[str, int]]:
    """Run one job and check its table; return its seconds, and the milliseconds of its stages."""
    began = time.perf_counter()
    refs = [DatasetRef(view.code, view.version) for view in views]
    view = client.wait(client.aggregate(digest, refs, measures=MEASURES, groups=("group",)).job_id)
    taken = time.perf_counter() - began
    found = client.result(view.job_id).outputs["totals"]
    if not isinstance(found, pd.DataFrame) or list(found["group"]) != list(GROUPS):
        raise SystemExit("the table is of other groups")
    for name in wanted.columns:
        if not np.allclose(found[name].to_numpy(float), wanted[name].to_numpy(float), rtol=1e-9):
            raise SystemExit(f"{name} is not what it is in the clear")
    return taken, {stage.name: stage.milliseconds for stage in view.stages}


def measure(rows: int, runs: int, command: str) -> list[Figure]:
    """Make the nodes, run the job several times, then once more for its memory."""
    frames = [rows_of(place, rows) for place in range(len(OWNERS))]
    wanted = expected(frames)
    taken: list[float] = []
    eager = {node: {"ray_start": "eager"} for node in OWNERS}
    with (
        environment(FAIR),
        tempfile.TemporaryDirectory(prefix="sbx-bench-") as folder,
        LocalNodes(Path(folder) / "nodes", eager) as nodes,
    ):
        nodes.person("analyst", "bank", ["submitter"])
        for node in OWNERS:
            nodes.person(f"{node}-owner", node, ["owner", "operator"])
        views = [register(nodes, node, frame) for node, frame in zip(OWNERS, frames, strict=True)]
        digest = approve(nodes, views)
        with nodes.client("analyst", "bank") as client:
            run_job(client, digest, views, wanted)
            for number in range(runs):
                seconds, stages = run_job(client, digest, views, wanted)
                taken.append(seconds)
                print(f"run {number + 1}: {seconds:.2f} s {stages}", file=sys.stderr, flush=True)
            with Memory({node: nodes.processes[node].pid for node in OWNERS}) as memory:
                run_job(client, digest, views, wanted)
    case = f"{rows} rows x {len(OWNERS)} parties x {len(GROUPS)} groups, end to end as a job"
    seconds = median(taken)
    print(f"totals: {seconds:.3g} s, wanted at most {AT_MOST_S:g}: {'met' if seconds <= AT_MOST_S else 'MISSED'}")
    return [Figure("totals", case, round(seconds, 3), "s", command, peak_mib=memory.peak_mib)]


def _yuan(fen: pa.Array) -> pa.Array:
    """Return amounts with two decimal places, exactly: by way of decimals, not of binary fractions."""
    return pc.multiply(fen.cast(pa.decimal128(19, 0)), pa.scalar(Decimal("0.01"))).cast(pa.decimal128(38, 10))


def main(arguments: list[str] | None = None) -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of each owner")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(arguments)
    command = f"python -m bench.totals --rows {options.rows} --runs {options.runs}"
    record(measure(options.rows, options.runs, command))


if __name__ == "__main__":
    main()
