"""Scenarios and jobs as people write them, the shipped examples included."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from jobs.credit_score.columns import BANK, BANK_FEATURES, OPERATOR, OPERATOR_FEATURES
from sandbox import wire
from sandbox.catalog.registration import make_code
from sandbox.catalog.schema import schema_bytes
from sandbox.client import Applicant, differences, issue_consent, job_from_file, read_draft, scenario_from_toml
from sandbox.errors import InvalidSpec, NotFound
from sandbox.keyring import Person
from sandbox.model import (
    AggregateSpec,
    BatchScore,
    Category,
    ConsentRule,
    ConsentSource,
    Dimension,
    JobKind,
    Measure,
    MeasureRange,
    OutputClass,
    PsiEngine,
    PsiSpec,
    Scenario,
    ScoreScope,
    ScoreSpec,
    Statistic,
    TrainSpec,
    VersionRule,
)

EXAMPLES = Path(__file__).parents[2] / "jobs" / "credit_score"
DIGEST = "5a" * 32
JOB = "ab" * 16


@pytest.fixture
def files(tmp_path: Path, officer: Person) -> Path:
    """The files that the examples name."""
    for name in ("officer", "consent-desk"):
        (tmp_path / f"{name}.card").write_bytes(wire.encode(officer.card))
    for owner, schema in (("bank", BANK), ("operator", OPERATOR)):
        entry = {
            "owner": owner,
            "code": make_code(owner, f"{owner} data"),
            "version": 2,
            "content_hash": "1f" * 32,
            "schema": json.loads(schema_bytes(schema)),
        }
        (tmp_path / f"{owner}.dataset.json").write_text(json.dumps(entry))
    return tmp_path


def test_the_example_scenario_is_whole(files: Path, officer: Person) -> None:
    scenario = scenario_from_toml(EXAMPLES / "scenario.toml", files=files)
    assert wire.decode(Scenario, wire.encode(scenario)) == scenario
    assert scenario.applicant_key == officer.identity.public.to_bytes()
    assert scenario.recipient.sealing_key == officer.sealing.public.to_bytes()
    bank, operator = scenario.datasets
    assert (bank.owner, bank.version, bank.label) == ("bank", 2, "default")
    assert bank.code == make_code("bank", "bank data")
    assert (bank.fields, operator.fields) == (BANK_FEATURES, OPERATOR_FEATURES)
    assert scenario.kinds == (JobKind.PSI, JobKind.TRAIN, JobKind.SCORE, JobKind.AGGREGATE)
    assert scenario.dimensions == (Dimension("income_band", "annual_inc", (), (40_000, 60_000, 80_000, 120_000)),)
    assert scenario.measures == (MeasureRange("default", 0, 1000, 3), MeasureRange("revol_util", 0, 2000, 1))
    assert not scenario.accepts_two_contributors
    assert scenario.outputs[-1].class_ is OutputClass.ROW_CONSENTED
    assert scenario.consent.single is ConsentRule.TOKEN
    assert scenario.not_after_ms - scenario.not_before_ms == 90 * 86_400_000


def test_the_example_says_what_it_is_for_and_what_stands_behind_it(files: Path) -> None:
    scenario = scenario_from_toml(EXAMPLES / "scenario.toml", files=files)
    outline, consent, quota = scenario.outline, scenario.consent, scenario.quota
    assert outline is not None and (outline.category, outline.field_of_use) == (Category.AUTHORISED, "finance")
    assert all(len(text) >= 10 for text in (outline.data_use, outline.supply, outline.problem))
    assert (consent.sources, consent.most_uses) == ((ConsentSource.ATTESTED,), 0)
    assert (consent.sample_permille, consent.letter_days) == (5, 14)
    assert (quota.calls_per_day, quota.rows_total, quota.rows_per_day, quota.people_total) == (100, 2_000_000, 0, 0)
    assert scenario.amends == b""


@pytest.mark.parametrize("name", ["credit_score", "income_query", "intersections", "joint_totals", "own_model"])
def test_every_example_is_an_application_that_lacks_nothing_of_its_own(tmp_path: Path, name: str) -> None:
    """Without the files it names: cards and entries are the only things that it cannot bring."""
    text = (EXAMPLES.parent / name / "scenario.toml").read_text(encoding="utf-8")
    text = re.sub(r'(?m)^(card|file) = ".*"', r'\1 = ""', text)
    (tmp_path / "s.toml").write_text(re.sub(r"(?m)^(issuers|bundles) = .*$", "", text), encoding="utf-8")
    lacks = {gap.field for gap in read_draft(tmp_path / "s.toml").gaps}
    files = {"applicant", "recipient.card", "datasets", "datasets.label", "consent.issuers", "bundles"}
    assert {"applicant", "recipient.card", "datasets"} <= lacks <= files


def test_a_dataset_by_its_schema(files: Path) -> None:
    entry = json.loads((files / "bank.dataset.json").read_text()) | {"schema_digest": "2e" * 32, "rows": 9}
    (files / "bank.dataset.json").write_text(json.dumps(entry))
    by_file = 'file = "bank.dataset.json"\nrule = "same_schema"\nmax_age_days = 40'
    code = make_code("bank", "bank data")
    by_hand = f'owner = "bank"\ncode = "{code}"\nrule = "same_schema"\nschema_digest = "{"2e" * 32}"\nmax_age_days = 40'
    text = (EXAMPLES / "scenario.toml").read_text(encoding="utf-8")
    uses = []
    for written in (by_file, by_hand):
        (files / "s.toml").write_text(text.replace('file = "bank.dataset.json"', written), encoding="utf-8")
        uses.append(scenario_from_toml(files / "s.toml").datasets[0])
    assert (uses[0].rule, uses[0].version, uses[0].content_hash) == (VersionRule.SAME_SCHEMA, 0, b"")
    assert (uses[0].schema_digest, uses[0].max_age_days, uses[0].rows) == (b"\x2e" * 32, 40, 9)
    assert dataclasses.replace(uses[0], rows=0) == uses[1]


def test_everything_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('kinds = ["score"]\nvalid_days = 0\n[outline]\nsupply = "every month, by hand"\n')
    fields = [gap.field for gap in read_draft(tmp_path / "s.toml").gaps]
    assert fields == [
        "outline.category",
        "outline.data_use",
        "outline.problem",
        "outline.field_of_use",
        *("name", "merchant", "purpose", "operator", "applicant", "recipient.node", "recipient.card"),
        *("datasets", "price.tariff", "outputs of score", "not_after"),
        *("quota.calls_per_day", "quota.calls_total", "quota.rows_total"),
        *("consent.single", "consent.issuers", "consent.sources"),
    ]
    with pytest.raises(InvalidSpec, match=r"s.toml: not complete: outline.category"):
        scenario_from_toml(tmp_path / "s.toml")


def test_what_an_amendment_changes_is_told_field_by_field(files: Path) -> None:
    text = (EXAMPLES / "scenario.toml").read_text(encoding="utf-8")
    (files / "s.toml").write_text(text, encoding="utf-8")
    before = scenario_from_toml(files / "s.toml")
    changed = text.replace("score_step = 5", f'score_step = 10\namends = "{DIGEST}"').replace(
        "max_rows = 20000", "max_rows = 9"
    )
    changed = changed.replace('name = "income_band"', 'name = "band"')
    (files / "s.toml").write_text(changed, encoding="utf-8")
    after = dataclasses.replace(scenario_from_toml(files / "s.toml"), not_before_ms=before.not_before_ms)
    after = dataclasses.replace(after, not_after_ms=before.not_after_ms, outputs=after.outputs[1:])
    found = {one.field: (one.before, one.after) for one in differences(before, after)}
    assert found["score_step"] == (5, 10)
    assert found["outputs.score.scores.max_rows"] == (20_000, 9)
    names = tuple(f"{rule.kind.name.lower()}.{rule.name}" for rule in before.outputs)
    assert found["outputs"] == (names, names[1:])
    assert found["outputs.psi.aligned.min_group"] == (10, None)
    assert found["dimensions"] == (("income_band",), ("band",))
    assert not {"nonce", "amends", "datasets", "purpose"} & set(found)
    assert differences(before, dataclasses.replace(before, nonce=bytes(16))) == ()


def test_two_versions_of_one_dataset_are_told_apart(files: Path) -> None:
    scenario = scenario_from_toml(EXAMPLES / "scenario.toml", files=files)
    first = scenario.datasets[0]
    twice = dataclasses.replace(scenario, datasets=(first, dataclasses.replace(first, version=3)))
    more = dataclasses.replace(scenario, datasets=(first, dataclasses.replace(first, version=3, fields=("term",))))
    assert [(one.field, one.after) for one in differences(twice, more)] == [
        (f"datasets.{first.code} 2.fields", ("term",))
    ]


def test_two_applications_are_two_scenarios(files: Path) -> None:
    first, second = (scenario_from_toml(EXAMPLES / "scenario.toml", files=files) for _ in range(2))
    assert first.nonce != second.nonce


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('name = "joint-credit-score"', "", r"not complete: name \("),
        ('category = "authorised"', "", r"not complete: outline.category \("),
        ('category = "authorised"', 'category = "secret"', "not one of shared, open, authorised"),
        ('field_of_use = "finance"', 'field = "finance"', "'field'"),
        ('sources = ["attested"]', 'sources = ["rumour"]', "not one of subject, attested, letter"),
        ('sources = ["attested"]', "", r"not complete: consent.sources \("),
        ("score_step = 5", 'amends = "5a"', "amends is not 64 hexadecimal digits"),
        ("calls_per_day = 100", 'calls_per_day = "100"', "calls_per_day is of another type"),
        ('file = "bank.dataset.json"', 'file = "bank.dataset.json"\nrule = "newest"', "not one of exact, same_schema"),
        (
            'file = "bank.dataset.json"',
            'file = "bank.dataset.json"\nrule = "same_schema"',
            "schema_digest is missing",
        ),
        ('merchant = "Example Bank"', "merchant = 7", "merchant is of another type"),
        ("score_step = 5", "score_step = true", "score_step is of another type"),
        ("score_step = 5", "score_step = -1", "does not fit"),
        ("score_step = 5", "score_steps = 5", "score_steps"),
        (
            'kinds = ["psi", "train", "score", "aggregate"]',
            'kinds = ["psy"]',
            "not one of psi, train, score, aggregate",
        ),
        ('card = "officer.card"', 'card = "bank.dataset.json"', "not a key card"),
        ('label = "default"', 'label = "defualt"', "no column 'defualt'"),
        ('key = ["id"]', "key = [1]", "not a list of texts"),
        ("valid_days = 90", 'valid_days = 90\nnot_after = "2030-01-01"', "either valid_days or not_after"),
        ("valid_days = 90", "", r"not complete: not_after \("),
        ("valid_days = 90", "valid_days = 4000000", "valid_days is out of range"),
        ("valid_days = 90", 'not_after = "soon"', "ISO 8601"),
        ('file = "bank.dataset.json"', 'code = "WRONG"\nowner = "bank"\nversion = 1', "20 characters"),
        ('purpose = "credit', 'purpose = "${why} credit', "no value"),
        ('purpose = "credit', 'purpose = "$ credit', r"\$ that begins no"),
        ("[quota]", "[quota", "scenario.toml"),
        ('merchant = "Example Bank"', f'merchant = "{"x" * 65}"', "merchant"),
    ],
)
def test_slips_are_named(files: Path, old: str, new: str, reason: str) -> None:
    text = (EXAMPLES / "scenario.toml").read_text(encoding="utf-8")
    assert old in text
    (files / "scenario.toml").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InvalidSpec, match=reason):
        scenario_from_toml(files / "scenario.toml")


def test_times_without_an_offset_are_utc(files: Path) -> None:
    text = (EXAMPLES / "scenario.toml").read_text(encoding="utf-8")
    dates = "not_before = 2026-03-01\nnot_after = 2026-03-02T08:00:00+08:00"
    (files / "scenario.toml").write_text(text.replace("valid_days = 90", dates), encoding="utf-8")
    scenario = scenario_from_toml(files / "scenario.toml")
    assert scenario.not_before_ms == 1_772_323_200_000
    assert scenario.not_after_ms == scenario.not_before_ms + 86_400_000


def test_the_example_jobs_become_specs(files: Path) -> None:
    values = {"scenario": DIGEST, "alignment": JOB, "model": JOB}
    kinds: list[Any] = []
    for name in ("align", "train", "score", "totals"):
        spec, inputs = job_from_file(EXAMPLES / f"{name}.toml", values, files)
        assert spec.scenario_digest == bytes.fromhex(DIGEST)
        assert inputs == ()
        kinds.append(spec.kind)
    align, train, score, totals = kinds
    assert isinstance(align, PsiSpec)
    assert (align.left.code, align.left.version) == (make_code("bank", "bank data"), 2)
    assert align.right.code == make_code("operator", "operator data")
    assert align.engine is PsiEngine.AUTO
    assert train == TrainSpec(JOB, 30, 20, b"joint-credit-score", 1000)
    assert score == ScoreSpec(JOB, BatchScore(ScoreScope.HOLDOUT))
    measures = (
        Measure("default_rate", Statistic.MEAN, "default"),
        Measure("average_use", Statistic.MEAN, "revol_util"),
    )
    assert totals == AggregateSpec((), JOB, ("income_band",), measures, 2048)


def test_json_says_the_same_as_toml(files: Path) -> None:
    document = {"scenario": DIGEST, "request_id": "r1", "deadline_s": 60, "score": {"model": JOB, "subject": "aligned"}}
    (files / "job.json").write_text(json.dumps(document))
    spec, _ = job_from_file(files / "job.json")
    assert (spec.request_id, spec.deadline_s) == ("r1", 60)
    assert spec.kind == ScoreSpec(JOB, BatchScore(ScoreScope.ALIGNED))


def test_one_applicant_needs_a_person(files: Path, officer: Person, bank: Any) -> None:
    values = {"scenario": DIGEST, "model": JOB}
    with pytest.raises(InvalidSpec, match="one applicant"):
        job_from_file(EXAMPLES / "applicant.toml", values)
    token = issue_consent(officer, "990000199001011239", bytes.fromhex(DIGEST), "credit", 60)
    applicant = Applicant("990000199001011239", token, (bank.card,))
    spec, inputs = job_from_file(EXAMPLES / "applicant.toml", values, applicant=applicant)
    assert [item.party for item in inputs] == ["bank"]
    assert b"990000" not in wire.encode(spec)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"scenario": DIGEST}, "exactly one"),
        ({"scenario": DIGEST, "train": {"alignment": JOB}, "score": {"model": JOB}}, "exactly one"),
        ({"scenario": "zz", "train": {"alignment": JOB}}, "64 hexadecimal digits"),
        ({"scenario": DIGEST, "train": {"alignment": "short"}}, "characters"),
        ({"scenario": DIGEST, "score": {"model": JOB, "subject": "everybody"}}, "not one of holdout, aligned"),
        ({"scenario": DIGEST, "train": {"alignment": JOB, "step": 3}}, "'step'"),
        ({"scenario": DIGEST, "train": {"alignment": JOB, "steps": 1 << 40}}, "does not fit"),
        ({"scenario": DIGEST, "train": [JOB]}, "another type"),
        ([DIGEST], "not a table"),
    ],
)
def test_jobs_that_make_no_sense(tmp_path: Path, document: Any, reason: str) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InvalidSpec, match=reason):
        job_from_file(path)


def test_a_value_is_never_structure(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text('scenario = "${scenario}"\n[train]\nalignment = "${alignment}"\n')
    injected = f'{JOB}"\nsteps = 500\nseed = "x'
    with pytest.raises(InvalidSpec):
        job_from_file(path, {"scenario": DIGEST, "alignment": injected})


def test_files_lie_beside_the_document(files: Path) -> None:
    shutil.copy(EXAMPLES / "align.toml", files / "align.toml")
    spec, _ = job_from_file(files / "align.toml", {"scenario": DIGEST})
    assert isinstance(spec.kind, PsiSpec)


def test_files_that_are_not_there_or_too_long_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=re.escape(str(tmp_path / "none.toml"))):
        job_from_file(tmp_path / "none.toml")
    with pytest.raises(InvalidSpec, match="cannot be read"):
        job_from_file(tmp_path)
    (tmp_path / "long.toml").write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(InvalidSpec, match="longer than"):
        job_from_file(tmp_path / "long.toml")
