"""The demonstration from its start to its table, and one applicant's score on the nodes it leaves behind.

    python -m bench.demo [--applicants 20]

Demo:       ``sandbox demo`` as ``make demo`` runs it after the set-up: three nodes made, Ray started three times, two
            data sets, alignment, training under three parties, a batch of scores, one applicant.
Applicant:  from the submission with a consent token until the points are opened and the receipt is verified, on warm
            nodes; every applicant another person with a fresh token.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import pandas as pd

from bench.record import Figure, median, percentile, record
from sandbox import signed
from sandbox.client import Trust
from sandbox.demo.nodes import ORGANISATIONS, LocalNodes
from sandbox.home import Home
from sandbox.model import JobKind, State

WARM: Final = 3  # calls before the timed ones: the first wait for Ray, and load what scoring needs
PURPOSE: Final = "credit decision on a loan application"  # the scenario's, word for word


class KeptNodes(LocalNodes):
    """The nodes of a demonstration that has ended, started again where they lie."""

    def make(self) -> None:
        """Take the cards of the homes that are there."""
        for name in ORGANISATIONS:
            home = Home(self.home(name))
            self.cards[name] = signed.open_peer_card(home.card())
            home.store.close()


def demo(folder: Path) -> tuple[float, dict[str, Any]]:
    """Run the demonstration; return its wall seconds and its table."""
    began = time.perf_counter()
    line = [sys.executable, "-m", "sandbox", "demo", "--keep", str(folder), "--json"]
    done = subprocess.run(line, check=True, capture_output=True, text=True)
    taken = time.perf_counter() - began
    table: dict[str, Any] = json.loads(done.stdout)
    if not table["verified"] or abs(table["auc_joint"] - table["auc_pooled"]) > 0.01:
        raise SystemExit("the demonstration did not do what it shows")
    return taken, table


def applicants(folder: Path, count: int) -> tuple[list[float], list[dict[str, int]]]:
    """Score ``count`` people, one after the other; return the milliseconds of each, and of its stages."""
    request = json.loads((folder / "desk" / "request.json").read_text(encoding="utf-8"))
    scenario, trust = bytes.fromhex(request["scenario"]), Trust.from_file(folder / "bank.trust")
    people = pd.read_parquet(folder / "desk" / "results" / "score" / "scores.parquet")["id"].tolist()
    taken: list[float] = []
    stages: list[dict[str, int]] = []
    with KeptNodes(folder) as nodes, nodes.client("officer", "bank") as bank:
        owners = [nodes.cards[name] for name in request["owners"]]
        model = next(job for job in bank.jobs() if job.kind is JobKind.TRAIN and job.state is State.RELEASED).job_id
        with nodes.client("consent-desk", "operator") as desk:
            tokens = {person: desk.issue_consent(person, scenario, PURPOSE, 3600) for person in people[: WARM + count]}
        for person, token in tokens.items():
            began = time.perf_counter()
            asked = bank.score_applicant(scenario, model, person, token, owners)
            view = bank.wait(asked.job_id)
            bank.result(view.job_id, trust)
            taken.append(1000 * (time.perf_counter() - began))
            stages.append({stage.name: stage.milliseconds for stage in view.stages})
    return taken[WARM:], stages[WARM:]


def measure(count: int, command: str) -> list[Figure]:
    """Run the demonstration, then the applicants."""
    with tempfile.TemporaryDirectory(prefix="sbx-bench-") as folder:
        place = Path(folder) / "demo"
        seconds, table = demo(place)
        taken, stages = applicants(place, count)
    for name in stages[0]:
        middle = median([float(one[name]) for one in stages])
        print(f"  stage {name}: {middle:.0f} ms", file=sys.stderr)
    figures = [Figure("demo", "whole, after the set-up", round(seconds, 1), "s", command)]
    for stage in table["stages"]:
        if stage["name"] != "applicant":
            figures.append(Figure("demo", f"{stage['name']}: all stages", stage["seconds"], "s", command))
            figures.append(
                Figure("demo", f"{stage['name']}: carried", round(stage["bytes"] / 2**20, 2), "MiB", command)
            )
    return [
        *figures,
        Figure("applicant", "submit to verified points: median", round(median(taken), 1), "ms", command),
        Figure(
            "applicant", "submit to verified points: 90th percentile", round(percentile(taken, 0.9), 1), "ms", command
        ),
    ]


def main(arguments: list[str] | None = None) -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--applicants", type=int, default=20)
    options = parser.parse_args(arguments)
    record(measure(options.applicants, f"python -m bench.demo --applicants {options.applicants}"))


if __name__ == "__main__":
    main()
