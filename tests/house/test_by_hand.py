"""docs/by-hand.md does what it says, command by command; so do the checks without our code, and grpcurl."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import pandas as pd
import pyarrow.parquet as pq
import pytest
from by_hand_page import ByHand

from jobs.credit_score.plaintext import align
from jobs.credit_score.split import make_parties
from sandbox.gate.release import rounded

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def told(by_hand: ByHand) -> dict[int, str]:
    """What sections 6 to 10 printed; each command of theirs has ended with 0, or this fails."""
    return {number: by_hand.section(number) for number in range(6, 11)}


def test_doctor_finds_nothing_wrong_with_a_node_made_by_hand(by_hand: ByHand) -> None:
    for node in ("operator", "bank", "witness"):
        lines = (by_hand.folder / f"{node}.doctor").read_text().splitlines()[1:]
        assert len(lines) > 10
        assert all(line.split("\t")[1] == "yes" for line in lines)


def test_scenario_is_active_after_three_approvals(told: dict[int, str]) -> None:
    states = re.findall(r"^state: (\w+)$", told[6], re.MULTILINE)
    assert len(states) == 3
    assert states[-1] == "active"
    assert set(states[:-1]).isdisjoint({"active"})


def test_all_three_jobs_are_released_and_the_scores_rank(by_hand: ByHand, told: dict[int, str]) -> None:
    assert len(re.findall(r"^state: released$", told[7], re.MULTILINE)) >= 3
    metrics = json.loads((by_hand.folder / "scores" / "metrics.json").read_text())
    scores = pq.read_table(by_hand.folder / "scores" / "scores.parquet")
    assert abs(metrics["rows"] - scores.num_rows) < 10
    assert 0.55 < metrics["auc"] < 0.75


def test_one_applicant_gets_the_one_score(by_hand: ByHand, told: dict[int, str]) -> None:
    assert "verified: yes" in told[8]
    assert pq.read_table(by_hand.folder / "applicant" / "scores.parquet").num_rows == 1


def test_receipt_verifies_with_the_command_the_single_file_and_openssl(told: dict[int, str]) -> None:
    assert "verified: yes" in told[9]
    assert re.search(r"^witness +witness co-signed at \d+", told[9], re.MULTILINE)
    assert "\nVERIFIED\n" in told[9]
    assert told[9].count("Signature Verified Successfully") == 2


def test_openssl_refuses_another_checkpoint_under_the_same_signature(by_hand: ByHand, told: dict[int, str]) -> None:
    forged = """
    sed '2s/$/0/' body > forged
    openssl pkeyutl -verify -pubin -inkey key.pem -rawin -digest sm3 -in forged -sigfile signature \\
      -pkeyopt distid:1234567812345678 && exit 1 || echo refused
    """
    assert "refused" in by_hand.shell.run(forged)


def test_grpcurl_lists_the_services_and_fetches_the_job(told: dict[int, str]) -> None:
    assert {"sandbox.v1.JobService", "grpc.health.v1.Health"} <= set(told[10].split())
    assert '"SERVING"' in told[10]
    assert '"state": "JOB_STATE_RELEASED"' in told[10]


def test_totals_by_income_band_are_those_of_the_pooled_rows(by_hand: ByHand, told: dict[int, str]) -> None:
    table = pd.read_parquet(by_hand.folder / "totals" / "totals.parquet")
    aligned = align(make_parties(1))
    income = aligned.bank["annual_inc"].to_pandas().astype(float)
    use = aligned.operator["revol_util"].to_pandas().astype(float)
    assert len(table) == 5
    for line, (low, high) in zip(table.itertuples(), pairwise((-1, 40_000, 60_000, 80_000, 120_000, 1e9)), strict=True):
        band = ((income >= low) & (income < high)).to_numpy()
        assert line.rows == rounded(int(band.sum()), 10)
        # Means are given to as many places as the scenario declares: three, and one.
        assert abs(line.default_rate - aligned.labels[band].mean()) < 0.000501
        assert abs(line.average_use - use[band].mean()) < 0.0501
    assert str(table["rows"].tolist()[0]) in told[7]
