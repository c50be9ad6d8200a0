"""The demonstration: its documents agree with its program, and all of it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import jobs.credit_score
from jobs.credit_score.officer import MEASURES
from jobs.credit_score.plaintext import PARTIES_SEED, align
from jobs.credit_score.split import make_parties
from sandbox.cli.demo import ENGINES, Psi
from sandbox.client import job_from_file
from sandbox.demo.local import main as run_nodes
from sandbox.gate.release import rounded
from sandbox.model import AggregateSpec, PsiEngine

EDGES = (-1, 40_000, 60_000, 80_000, 120_000, np.inf)
BANDS = ("below 40000", "40000 to below 60000", "60000 to below 80000", "80000 to below 120000", "120000 and above")


def test_the_officer_asks_for_what_the_document_asks_for() -> None:
    values = {"scenario": "5a" * 32, "alignment": "ab" * 16}
    spec, _ = job_from_file(Path(jobs.credit_score.__path__[0]) / "totals.toml", values)
    assert spec.kind == AggregateSpec((), "ab" * 16, ("income_band",), MEASURES, 2048)


def test_short_names_of_engines_stand_for_engines() -> None:
    assert {psi: PsiEngine[name] for psi, name in ENGINES.items()} == {
        Psi.AUTO: PsiEngine.AUTO,
        Psi.RR22: PsiEngine.RR22,
        Psi.SM2: PsiEngine.ECDH_SM2,
        Psi.X25519: PsiEngine.ECDH_X25519,
    }


@pytest.mark.parametrize("nodes", [["one=Alone"], ["a=A", "a=B"], ["a=A", "b"], []])
def test_nodes_need_names_of_their_own_and_organisations(nodes: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        run_nodes([str(tmp_path / "new"), *nodes])
    assert ended.value.code == 2
    assert not (tmp_path / "new").exists()


def test_nodes_are_not_made_where_something_is(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        run_nodes([str(tmp_path), "a=A", "b=B"])
    assert ended.value.code == 2
    assert not list(tmp_path.iterdir())


def plain_bands() -> pd.DataFrame:
    """The table of totals over pooled rows."""
    aligned = align(make_parties(PARTIES_SEED))
    rows = pd.DataFrame({"default": aligned.labels, "use": aligned.operator["revol_util"].to_pandas().astype(float)})
    income = aligned.bank["annual_inc"].to_pandas().astype(float)
    bands = pd.cut(income, EDGES, labels=BANDS, right=False)
    return rows.groupby(bands, observed=False).agg(
        people=("default", "size"), rate=("default", "mean"), use=("use", "mean")
    )


@pytest.mark.long
def test_the_demo_under_national_algorithms() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sandbox", "demo", "--psi", "sm2", "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    table = json.loads(done.stdout)
    assert table["verified"]
    assert (table["engine_psi"], table["engine_train"], table["engine_totals"]) == ("ecdh-sm2", "aby3", "paillier")
    assert [stage["name"] for stage in table["stages"]] == ["psi", "train", "score", "aggregate", "applicant"]
    assert abs(table["auc_joint"] - table["auc_pooled"]) < 0.01
    expected = plain_bands()
    assert [band["income_band"] for band in table["totals"]] == list(BANDS)
    for band, plain in zip(table["totals"], expected.itertuples(), strict=True):
        assert band["people"] == rounded(plain.people, 10)
        assert abs(band["default_rate_percent"] - 100 * plain.rate) <= 0.1
        assert abs(band["average_use_percent"] - plain.use) <= 0.051
