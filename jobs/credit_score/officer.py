"""The credit officer of the bank: a program that knows the SDK and one node's address, and nothing else.

    python -m jobs.credit_score.officer FOLDER

``FOLDER`` holds the officer's keys (``officer/``), the cards of the nodes (``*.peer``), the trust file
(``bank.trust``), and ``request.json``: {"scenario", "left", "right", "applicant", "consent", "steps", "seed",
"psi_engine"}. Prints progress on standard error, one JSON object on standard output, and writes the opened results
and receipts into ``FOLDER/results``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from sandbox import signed, wire
from sandbox.client import Client, Outcome, Trust
from sandbox.errors import IntegrityFailed
from sandbox.model import DatasetRef, JobView, Measure, PeerCard, PsiEngine, ScoreScope, Statistic

# The same as in totals.toml: of the bank's own column, and of one that only the operator has.
MEASURES = (
    Measure("default_rate", Statistic.MEAN, "default"),
    Measure("average_use", Statistic.MEAN, "revol_util"),
)


def main(folder: Path) -> int:
    """Align, train, score a batch, make a table of totals, score one applicant; open and verify everything."""
    request = json.loads((folder / "request.json").read_text())
    trust = Trust.from_file(folder / "bank.trust")
    cards = {path.stem: _card(path) for path in sorted(folder.glob("*.peer"))}
    with Client.connect(folder / "officer", cards["bank"]) as bank:
        print(json.dumps(_run(bank, request, trust, cards, folder / "results")))
    return 0


def _run(
    bank: Client, request: dict[str, Any], trust: Trust, cards: dict[str, PeerCard], results: Path
) -> dict[str, Any]:
    scenario = bytes.fromhex(request["scenario"])
    left, right = (DatasetRef(ref["code"], ref["version"]) for ref in (request["left"], request["right"]))
    aligned, alignment = _finish(
        bank, bank.align(scenario, left, right, PsiEngine[request["psi_engine"]]), trust, results / "psi"
    )
    trained, training = _finish(
        bank,
        bank.train(scenario, aligned.job_id, steps=request["steps"], seed=request["seed"].encode(), l2_micro=1000),
        trust,
        results / "train",
    )
    batch, scores = _finish(bank, bank.score(scenario, trained.job_id, ScoreScope.HOLDOUT), trust, results / "score")
    table = bank.aggregate(scenario, alignment=aligned.job_id, groups=["income_band"], measures=list(MEASURES))
    summed, totals = _finish(bank, table, trust, results / "totals")
    began = time.perf_counter()
    consent = signed.read_signed(bytes.fromhex(request["consent"]))
    owners = [card for name, card in cards.items() if name in request["owners"]]
    asked = bank.score_applicant(scenario, trained.job_id, request["applicant"], consent, owners)
    single = bank.wait(asked.job_id)
    answer = bank.result(single.job_id, trust)
    milliseconds = round(1000 * (time.perf_counter() - began))
    _store(answer, results / "applicant")
    return {
        "jobs": [_summary(view) for view in (aligned, trained, batch, summed, single)],
        "rows_aligned": alignment.outputs["aligned"]["aligned"],
        "training": training.outputs["training"],
        "metrics": scores.outputs["metrics"],
        "totals": _bands(totals),
        "points": int(answer.outputs["scores"]["points"].iloc[0]),
        "applicant_ms": milliseconds,
        "verified": True,  # every result above was opened against the trust file, or an error would have ended us
    }


def _bands(totals: Outcome) -> list[dict[str, Any]]:
    """Return the table of totals as people read it: a line a band, ratios in percent."""
    table = totals.outputs["totals"]
    if isinstance(table, dict):
        raise IntegrityFailed("the totals are no table")
    return [
        {
            "income_band": band["income_band"],
            "people": band["rows"],
            "default_rate_percent": round(100 * band["default_rate"], 1),
            "average_use_percent": round(band["average_use"], 1),
        }
        for band in table.to_dict("records")
    ]


def _finish(bank: Client, job: JobView, trust: Trust, folder: Path) -> tuple[JobView, Outcome]:
    """Watch a job to its end, then open and verify its result."""
    kind = job.kind.name.lower()
    for view in bank.watch(job.job_id):
        print(f"  {kind:9} {view.state.name.lower():9} {view.stages[-1].name if view.stages else ''}", file=sys.stderr)
    view = bank.wait(job.job_id)
    outcome = bank.result(job.job_id, trust)
    _store(outcome, folder)
    return view, outcome


def _store(outcome: Outcome, folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True)
    (folder / "receipt.txt").write_bytes(outcome.receipt)
    for name, content in outcome.files.items():
        (folder / name).write_bytes(content)


def _summary(view: JobView) -> dict[str, Any]:
    return {
        "job_id": view.job_id,
        "kind": view.kind.name.lower(),
        "engine": view.engine,
        "isolation": view.isolation,
        "stages": [{"name": s.name, "seconds": s.milliseconds / 1000, "bytes": s.bytes} for s in view.stages],
        "fee_units": view.fee.units if view.fee else 0,
        "fee_yuan": view.fee.yuan if view.fee else "0.00",
        "entries": {entry.party: entry.index for entry in view.trail},
    }


def _card(path: Path) -> PeerCard:
    return wire.decode(PeerCard, signed.read_signed(path.read_bytes()).payload)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
