"""Statements and models of one's own as people write them, and the specs they become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sandbox import wire
from sandbox.catalog.registration import make_code
from sandbox.client import job_from_file, scenario_from_toml, specs
from sandbox.errors import InvalidSpec, NotFound
from sandbox.keyring import Person
from sandbox.model import DatasetRef, JobKind, ModelSpec, QuerySpec
from sandbox.tee_sim.bundle import MOST_BYTES, measure, pack

JOBS = Path(__file__).parents[2] / "jobs"
DIGEST = "5a" * 32
STATEMENT = "SELECT count(*) AS n FROM data"
REF = DatasetRef(make_code("bank", "loans"), 3)


@pytest.fixture
def files(tmp_path: Path, officer: Person) -> Path:
    """The files that documents name here."""
    (tmp_path / "analyst.card").write_bytes(wire.encode(officer.card))
    entry: dict[str, Any] = {"owner": "social", "code": REF.code, "version": REF.version, "content_hash": "1f" * 32}
    (tmp_path / "social.dataset.json").write_text(json.dumps(entry))
    (tmp_path / "own.bundle").write_bytes(pack(JOBS / "own_model" / "score"))
    return tmp_path


def written(files: Path, body: dict[str, Any]) -> Path:
    path = files / "job.json"
    path.write_text(json.dumps({"scenario": DIGEST, **body}))
    return path


DATASET = {"file": "social.dataset.json"}


def test_the_example_is_whole(files: Path) -> None:
    scenario = scenario_from_toml(JOBS / "income_query" / "scenario.toml", files=files)
    assert (scenario.kinds, scenario.isolation, scenario.bundles) == ((JobKind.QUERY,), "narrowed", ())
    spec, inputs = job_from_file(JOBS / "income_query" / "query.toml", {"scenario": DIGEST}, files)
    assert isinstance(spec.kind, QuerySpec) and inputs == ()
    assert spec.kind.dataset == REF and spec.kind.sql.startswith("SELECT district")


def test_a_statement_stands_in_the_document_or_in_a_file(files: Path) -> None:
    (files / "ask.sql").write_text(f"{STATEMENT} -- $not_a_value", encoding="utf-8-sig")
    inside, _ = job_from_file(written(files, {"query": {"dataset": DATASET, "sql": STATEMENT}}))
    assert inside.kind == QuerySpec(REF, STATEMENT) and inside.scenario_digest == bytes.fromhex(DIGEST)
    beside, _ = job_from_file(written(files, {"query": {"dataset": DATASET, "file": "ask.sql"}}))
    assert beside.kind == QuerySpec(REF, f"{STATEMENT} -- $not_a_value")
    assert specs.query(bytes(32), REF, STATEMENT, request_id="r").kind == inside.kind


def test_a_model_is_named_by_its_file_or_its_measurement(files: Path) -> None:
    measurement = measure((files / "own.bundle").read_bytes())
    for name in ("own.bundle", measurement.hex(), measurement.hex().upper()):
        body = {"dataset": DATASET, "bundle": name, "params": {"base": 600, "cut": 0.5, "note": "x"}}
        spec, _ = job_from_file(written(files, {"model": body}))
        assert spec.kind == ModelSpec(REF, measurement, '{"base": 600, "cut": 0.5, "note": "x"}')
    bare, _ = job_from_file(written(files, {"model": {"dataset": DATASET, "bundle": measurement.hex()}}))
    assert bare.kind == ModelSpec(REF, measurement, "{}")


def test_a_scenario_names_bundles_and_the_weakest_jail(files: Path) -> None:
    text = (JOBS / "income_query" / "scenario.toml").read_text()
    changed = text.replace('isolation = "narrowed"', f'isolation = "confined"\nbundles = ["own.bundle", "{DIGEST}"]')
    (files / "scenario.toml").write_text(changed)
    scenario = scenario_from_toml(files / "scenario.toml")
    assert scenario.isolation == "confined"
    assert scenario.bundles == (measure((files / "own.bundle").read_bytes()), bytes.fromhex(DIGEST))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"query": {"dataset": DATASET}}, "give either sql or file"),
        ({"query": {"dataset": DATASET, "sql": "x", "file": "y"}}, "give either sql or file"),
        ({"query": {"dataset": DATASET, "sql": ""}}, "sql"),
        ({"query": {"dataset": DATASET, "sql": "x" * 16_385}}, "sql"),
        ({"query": {"sql": STATEMENT}}, "dataset is missing"),
        ({"query": {"dataset": DATASET, "sql": STATEMENT, "limit": 5}}, "mean nothing here: 'limit'"),
        ({"query": {"dataset": DATASET, "file": "binary.sql"}}, "is not UTF-8"),
        ({"model": {"dataset": DATASET, "bundle": "job.json"}}, "job.json is no bundle"),
        ({"model": {"dataset": DATASET, "bundle": "large.bundle"}}, "large.bundle is no bundle"),
        ({"model": {"dataset": DATASET, "bundle": DIGEST, "params": []}}, "params is of another type"),
        ({"model": {"dataset": DATASET, "bundle": DIGEST, "params": {"x": "y" * 65_536}}}, "params"),
        ({"query": {"dataset": DATASET, "sql": STATEMENT}, "model": {}}, "[query] and [model] says what to do"),
    ],
)
def test_slips_are_named(files: Path, body: dict[str, Any], reason: str) -> None:
    (files / "binary.sql").write_bytes(b"SELECT \xff")
    with (files / "large.bundle").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(InvalidSpec) as refusal:
        job_from_file(written(files, body))
    assert reason in refusal.value.tell


def test_a_file_that_is_not_there_is_named(files: Path) -> None:
    for body in ({"query": {"dataset": DATASET, "file": "no.sql"}}, {"model": {"dataset": DATASET, "bundle": "no"}}):
        with pytest.raises(NotFound, match="no file"):
            job_from_file(written(files, body))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", {1, 2}])
def test_parameters_are_plain(value: object) -> None:
    with pytest.raises(InvalidSpec, match="parameters are texts"):
        specs.model(bytes(32), REF, bytes(32), {"x": value})


def test_a_statement_or_a_bundle_may_read_an_alignment(tmp_path: Path) -> None:
    document = tmp_path / "job.toml"
    document.write_text(f'scenario = "{DIGEST}"\n[query]\nalignment = "${{align}}"\nsql = "{STATEMENT}"\n')
    spec, _ = job_from_file(document, {"align": "ab" * 16})
    assert spec.kind == QuerySpec(None, STATEMENT, "ab" * 16)
    assert spec.kind == specs.query(bytes(32), "ab" * 16, STATEMENT).kind
    measured = bytes(range(32))
    document.write_text(f'scenario = "{DIGEST}"\n[model]\nalignment = "{"ab" * 16}"\nbundle = "{measured.hex()}"\n')
    assert job_from_file(document)[0].kind == ModelSpec(None, measured, "{}", "ab" * 16)
    document.write_text(
        f'scenario = "{DIGEST}"\n[query]\nalignment = "x"\ndataset = {{ file = "a.json" }}\nsql = "SELECT 1"\n'
    )
    with pytest.raises(InvalidSpec, match="either a dataset or an alignment"):
        job_from_file(document)
