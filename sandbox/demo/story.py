"""What ``sandbox demo`` does, and the table it prints."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from sandbox import wire
from sandbox.client import scenario_from_toml
from sandbox.demo.nodes import LocalNodes
from sandbox.errors import JobFailed
from sandbox.home import Home
from sandbox.model import DatasetView

STEPS = 30
PEOPLE = {
    "officer": ("bank", ["submitter"]),
    "bank-data-officer": ("bank", ["owner"]),
    "operator-officer": ("operator", ["owner", "operator"]),
    "consent-desk": ("operator", ["consent"]),
    "regulator": ("witness", ["operator", "auditor"]),
}
APPROVERS = (("operator", "operator-officer"), ("bank", "bank-data-officer"), ("witness", "regulator"))


def run(keep: Path | None = None, as_json: bool = False, psi_engine: str = "AUTO") -> dict[str, Any]:
    """Run the demo and return its table; ``keep`` is a new folder in which everything stays."""
    folder = keep or Path(tempfile.mkdtemp(prefix="sandbox-demo-"))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    console = Console(stderr=True, quiet=as_json, highlight=False)
    try:
        began = time.monotonic()
        settings = {name: {"ray_start": "eager"} for name in ("operator", "bank", "witness")}
        nodes = LocalNodes(folder, settings)
        console.print("[bold]1[/] three nodes: keys, cards exchanged, started")
        with nodes:
            result = _story(nodes, console, psi_engine)
        result["seconds"] = round(time.monotonic() - began, 1)
        if not as_json:
            _print(Console(highlight=False), result)
        return result
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def _story(nodes: LocalNodes, console: Console, psi_engine: str) -> dict[str, Any]:
    from jobs.credit_score.plaintext import PARTIES_SEED
    from jobs.credit_score.split import make_parties

    folder = nodes.folder
    for name, (node, roles) in PEOPLE.items():
        nodes.person(name, node, roles)
    parties = make_parties(PARTIES_SEED)
    data = folder / "data"
    data.mkdir()
    parties.write(data)
    views = {
        side: _register(nodes, person, side, data)
        for side, person in (("bank", "bank-data-officer"), ("operator", "operator-officer"))
    }
    shutil.rmtree(data)  # from here on the rows lie in the sealed vaults only
    console.print(
        f"[bold]2[/] datasets sealed: {views['bank'].rows} rows at the bank, {views['operator'].rows} at the operator"
    )
    digest = _approve(nodes, views)
    console.print("[bold]3[/] scenario applied for, approved by operator, bank and witness")
    shared = np.flatnonzero(pc.is_in(parties.bank["id"], parties.operator["id"].combine_chunks()).to_numpy())
    applicant = parties.bank["id"][int(shared[0])].as_py()
    desk = folder / "desk"
    desk.mkdir(mode=0o700)
    _brief(nodes, desk, digest, views, applicant, psi_engine)
    console.print("[bold]4[/] the credit officer, a process of its own: align, train, score, totals, one applicant")
    done = subprocess.run(
        [sys.executable, "-m", "jobs.credit_score.officer", str(desk)],
        stdout=subprocess.PIPE,
        stderr=None if not console.quiet else subprocess.DEVNULL,
        check=False,
    )
    if done.returncode != 0:
        raise JobFailed(tell="the credit officer's program failed", hint=f"see {folder}/*.log with --keep")
    report = json.loads(done.stdout)
    scored = pd.read_parquet(desk / "results" / "score" / "scores.parquet")
    bank_auc, pooled_auc = _in_the_clear(parties.bank, parties.operator, scored["id"].tolist())
    return _table(nodes, views, report, bank_auc, pooled_auc)


def _register(nodes: LocalNodes, person: str, side: str, data: Path) -> DatasetView:
    with nodes.client(person, side) as client:
        return client.register_dataset(
            data / f"{side}.parquet", data / f"{side}.schema.json", f"credit-{side}", licence="MIT"
        )


def _approve(nodes: LocalNodes, views: dict[str, DatasetView]) -> bytes:
    import jobs.credit_score as example

    files = nodes.folder / "application"
    files.mkdir()
    for side, view in views.items():
        entry = {
            "code": view.code,
            "version": view.version,
            "owner": view.owner,
            "content_hash": view.content_hash.hex(),
            "rows": view.rows,
            "schema": json.loads(view.schema_json),
        }
        (files / f"{side}.dataset.json").write_text(json.dumps(entry))
    for person in ("officer", "consent-desk"):
        shutil.copy(nodes.folder / person / "key.card", files / f"{person}.card")
    scenario = scenario_from_toml(Path(str(example.__path__[0])) / "scenario.toml", files=files)
    with nodes.client("officer", "bank") as bank:
        digest = bank.apply_scenario(scenario).digest
    for node, person in APPROVERS:
        with nodes.client(person, node) as client:
            state = client.approve_scenario(digest, node).state
    if state != "active":
        raise JobFailed(tell=f"the scenario is {state} after three approvals")
    return digest


def _brief(
    nodes: LocalNodes, desk: Path, digest: bytes, views: dict[str, DatasetView], applicant: str, psi_engine: str
) -> None:
    """Lay out what the officer needs: keys, cards, trust, and the applicant's consent."""
    from jobs.credit_score.plaintext import DEMO_SEED

    shutil.copytree(nodes.folder / "officer", desk / "officer")
    for name in nodes.cards:
        shutil.copy(nodes.folder / f"{name}.peer", desk)
    shutil.copy(nodes.folder / "bank.trust", desk)
    purpose = "credit decision on a loan application"
    with nodes.client("consent-desk", "operator") as client:
        consent = client.issue_consent(applicant, digest, purpose, 3600)
    request = {
        "scenario": digest.hex(),
        "left": {"code": views["bank"].code, "version": views["bank"].version},
        "right": {"code": views["operator"].code, "version": views["operator"].version},
        "owners": ["bank", "operator"],
        "applicant": applicant,
        "consent": wire.encode(consent).hex(),
        "steps": STEPS,
        "seed": DEMO_SEED.decode(),
        "psi_engine": psi_engine,
    }
    (desk / "request.json").write_text(json.dumps(request))


def _in_the_clear(bank: pa.Table, operator: pa.Table, held_ids: list[str]) -> tuple[float, float]:
    """Return the AUC of the bank alone and of the pooled columns: same features, optimiser, steps and split."""
    from jobs.credit_score.columns import BANK_FEATURES, OPERATOR_FEATURES
    from sandbox.kinds.features import fit
    from sandbox.mpc import reference

    place = pc.index_in(bank["id"], value_set=operator["id"].combine_chunks()).combine_chunks()
    left, right = bank.filter(place.is_valid()), operator.take(place.drop_null())
    labels = left["default"].to_numpy().astype(bool)
    test = pc.is_in(left["id"], pa.array(held_ids)).to_numpy()
    blocks = [
        fit(left, BANK_FEATURES, ~test, labels).transform(left),
        fit(right, OPERATOR_FEATURES, ~test, None).transform(right),
    ]
    schedule = reference.Schedule(STEPS, 0.001)
    found = []
    for chosen in (blocks[:1], blocks):
        parts = reference.train([block[~test] for block in chosen], labels[~test], schedule)
        sums = reference.logits(parts, [block[test] for block in chosen])
        found.append(reference.auc(sums, labels[test]))
    return found[0], found[1]


def _table(
    nodes: LocalNodes, views: dict[str, DatasetView], report: dict[str, Any], bank_auc: float, pooled_auc: float
) -> dict[str, Any]:
    psi, train, _, totals, _ = report["jobs"]
    stages = [
        {
            "name": job["kind"],
            "seconds": round(sum(s["seconds"] for s in job["stages"]), 2),
            "bytes": sum(s["bytes"] for s in job["stages"]),
        }
        for job in report["jobs"]
    ]
    stages[-1]["name"] = "applicant"
    sizes = {}
    for name in nodes.cards:
        home = Home(nodes.home(name))
        sizes[name] = home.fsck()
        home.store.close()
    return {
        "rows_bank": views["bank"].rows,
        "rows_operator": views["operator"].rows,
        "rows_aligned": report["rows_aligned"],
        "auc_bank": round(bank_auc, 3),
        "auc_joint": report["metrics"]["auc"],
        "auc_pooled": round(pooled_auc, 3),
        "totals": report["totals"],
        "verified": report["verified"],
        "stages": stages,
        "engine_psi": psi["engine"],
        "engine_train": train["engine"],
        "engine_totals": totals["engine"],
        "isolation": psi["isolation"],
        "fee_units": sum(job["fee_units"] for job in report["jobs"]),
        "fee_yuan": str(sum((Decimal(job["fee_yuan"]) for job in report["jobs"]), Decimal(0))),
        "applicant_ms": report["applicant_ms"],
        "applicant_points": report["points"],
        "log_entries": sizes,
    }


def _print(console: Console, result: dict[str, Any]) -> None:
    table = Table(show_header=False, title="joint credit score / 联合信用评分")
    table.add_row(
        "rows at bank / operator / aligned (rounded)",
        f"{result['rows_bank']} / {result['rows_operator']} / {result['rows_aligned']}",
    )
    table.add_row(
        "AUC bank alone / joint / pooled in the clear",
        f"{result['auc_bank']:.3f} / {result['auc_joint']:.3f} / {result['auc_pooled']:.3f}",
    )
    for stage in result["stages"]:
        table.add_row(f"  {stage['name']}", f"{stage['seconds']:.2f} s, about {_size(stage['bytes'])} between parties")
    table.add_row("engines", ", ".join(result[f"engine_{job}"] for job in ("psi", "train", "totals")))
    table.add_row("isolation", result["isolation"])
    table.add_row("one applicant", f"{result['applicant_points']} points in {result['applicant_ms']} ms")
    table.add_row("fee", f"{result['fee_units']} units, {result['fee_yuan']} yuan (default tariff, upper limits)")
    table.add_row("log entries", ", ".join(f"{name} {count}" for name, count in result["log_entries"].items()))
    table.add_row("verified", "yes" if result["verified"] else "NO")
    table.add_row("whole", f"{result['seconds']} s")
    console.print(table)
    bands = Table(title="shared customers by income band / 按收入段的共同客户")
    bands.add_column("yearly income, US dollar (bank)")
    for head in ("people, rounded", "default rate (bank)", "credit lines in use (operator)"):
        bands.add_column(head, justify="right")
    for band in result["totals"]:
        bands.add_row(
            band["income_band"],
            str(band["people"]),
            f"{band['default_rate_percent']:.1f} %",
            f"{band['average_use_percent']:.1f} %",
        )
    console.print(bands)


def _size(count: int) -> str:
    """Return bytes with one digit: nodes tell no more, since exact ones follow the number of rows."""
    for unit, name in ((10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{float(f'{count / unit:.0e}'):.0f} {name}"
    return f"{count} bytes"
