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
from typing import Any

from bench.record import Figure, median, percentile, record
from sandbox.client import Client, Trust
from sandbox.demo.nodes import ORGANISATIONS, LocalNodes
from sandbox.home import Home
from sandbox.model import JobKind, State

FIRST_CALLS = 3  # a worker that has not scored yet loads what it needs


class KeptNodes(LocalNodes):
    """The nodes of a demonstration that has ended, started again where they lie."""

    def make(self) -> None:
        """Take the cards of the homes that are there."""
        for name in ORGANISATIONS:
            home = Home(self.home(name))
            self.cards[name] = home.card_as_pinned()
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


def applicants(folder: Path, count: int) -> list[float]:
    """Score ``count`` people one after the other; return the milliseconds of each."""
    request = json.loads((folder / "desk" / "request.json").read_text(encoding="utf-8"))
    scenario, trust = bytes.fromhex(request["scenario"]), Trust.from_file(folder / "bank.trust")
    taken: list[float] = []
    with KeptNodes(folder) as nodes, nodes.client("officer", "bank") as bank:
        owners = [nodes.cards[name] for name in request["owners"]]
        model = next(job for job in bank.jobs() if job.kind is JobKind.TRAIN and job.state is State.RELEASED).job_id
        batch = next(job for job in bank.jobs() if job.kind is JobKind.SCORE and job.state is State.RELEASED)
        people = [request["applicant"]] * (FIRST_CALLS + count) if batch else []
        with nodes.client("consent-desk", "operator") as desk:
            purpose = "credit decision on a loan application"
            tokens = [desk.issue_consent(person, scenario, purpose, 3600) for person in people]
        for person, token in zip(people, tokens, strict=True):
            began = time.perf_counter()
            asked = bank.score_applicant(scenario, model, person, token, owners)
            _open(bank, asked.job_id, trust)
            taken.append(1000 * (time.perf_counter() - began))
    return taken[FIRST_CALLS:]
