"""The form of an application, and what the command says of one that is not filled in."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sandbox.catalog.registration import make_code
from sandbox.cli.form import write_form
from sandbox.client import read_draft, scenario_from_toml
from sandbox.errors import InvalidSpec
from sandbox.model import Category, ConsentRule, ConsentSource, JobKind, OutputClass, VersionRule
from sandbox.policy.scenario import Floors, check

FILLED = {
    "name": "credit",
    "merchant": "Example Bank",
    "controller": "Example Holding",
    "purpose": "小微企业贷款审批",
    "operator": "operator",
    "computing_parties": ["witness"],
    "kinds": ["psi", "score"],
    "valid_days": 30,
    "score_step": 10,
    "models_per_person": 2,
    "accepts_two_contributors": True,
    "amends": "5a" * 32,
    "data_use": "社保缴纳月数与欠缴金额两个字段",
    "supply": "每月更新一次，数据不出域",
    "problem": "解决小微企业贷款审批缺少依据的问题",
    "category": "authorised",
    "field_of_use": "金融",
    "card": "officer.card",
    "node": "bank",
    "key": ["id"],
    "fields": ["late"],
    "rule": "same_schema",
    "max_age_days": 40,
    "calls_per_day": 1,
    "calls_total": 2,
    "rows_total": 30,
    "rows_per_day": 4,
    "people_per_day": 5,
    "people_total": 6,
    "issuers": ["desk.card"],
    "sources": ["subject", "letter"],
    "most_uses": 7,
    "sample_permille": 8,
    "letter_days": 9,
    "column": "late",
    "high": 50,
    "edges": [1, 3],
}
RULES = (("psi", "aligned", "aggregate"), ("score", "metrics", "report"), ("score", "scores", "row_consented"))


@pytest.fixture
def files(officer: Path, tmp_path: Path, run: Any) -> Path:
    assert run("key", "new", tmp_path / "desk", "--name", "desk", "--organisation", "Desk").code == 0
    shutil.copy(officer / "key.card", tmp_path / "officer.card")
    shutil.copy(tmp_path / "desk" / "key.card", tmp_path / "desk.card")
    for owner in ("bank", "operator"):
        entry = {"owner": owner, "code": make_code(owner, "people"), "version": 3, "rows": 900}
        entry |= {"content_hash": "1f" * 32, "schema_digest": "2e" * 32}
        (tmp_path / f"{owner}.json").write_text(json.dumps(entry))
    return tmp_path


def fill(form: str) -> str:
    """Put an answer behind every member, those that may be left out included."""
    form = re.sub(r"(?m)^#(?! )", "", form)
    blocks = []
    for block in re.split(r"(?m)^(?=\[)", form):
        for name, value in FILLED.items():
            written = json.dumps(value, ensure_ascii=False)
            block = re.sub(rf"(?m)^{name} = .*$", lambda _, n=name, w=written: f"{n} = {w}", block)
        if block.startswith("[[datasets]]"):
            other = re.sub(r"(?m)^(rule|max_age_days|label) = .*\n", "", block).replace(
                'file = ""', 'file = "bank.json"'
            )
            blocks += [other, block.replace('file = ""', 'file = "operator.json"')]
        elif block.startswith("[[outputs]]"):
            for kind, output, class_ in RULES:
                made = re.sub(r"(?m)^kind = .*$", f'kind = "{kind}"', block)
                made = re.sub(r"(?m)^name = .*$", f'name = "{output}"', made)
                blocks.append(re.sub(r"(?m)^class = .*$", f'class = "{class_}"', made))
        else:
            blocks.append(block)
    return "".join(blocks)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_form_that_is_filled_in_is_an_application(run: Any, files: Path, language: str) -> None:
    path = files / "form.toml"
    assert run("scenario", "form", path, "--language", language).code == 0
    path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")
    made = scenario_from_toml(path)
    check(made, Floors(10, 10, 5))
    outline, consent, quota = made.outline, made.consent, made.quota
    assert outline is not None
    assert (outline.data_use, outline.supply, outline.problem) == (
        FILLED["data_use"],
        FILLED["supply"],
        FILLED["problem"],
    )
    assert (outline.category, outline.field_of_use) == (Category.AUTHORISED, "金融")
    assert (made.controller, made.computing_parties, made.score_step) == ("Example Holding", ("witness",), 10)
    assert (made.kinds, made.models_per_person) == ((JobKind.PSI, JobKind.SCORE), 2)
    assert (quota.calls_per_day, quota.calls_total, quota.rows_total) == (1, 2, 30)
    assert (quota.rows_per_day, quota.people_per_day, quota.people_total) == (4, 5, 6)
    assert (consent.batch, consent.single) == (ConsentRule.HELD_LETTER, ConsentRule.TOKEN)
    assert consent.sources == (ConsentSource.SUBJECT, ConsentSource.LETTER)
    assert (consent.most_uses, consent.sample_permille, consent.letter_days) == (7, 8, 9)
    bank, operator = made.datasets
    assert (bank.rule, bank.version, bank.content_hash) == (VersionRule.EXACT, 3, b"\x1f" * 32)
    assert (operator.rule, operator.schema_digest, operator.max_age_days) == (
        VersionRule.SAME_SCHEMA,
        b"\x2e" * 32,
        40,
    )
    assert [rule.class_ for rule in made.outputs] == [
        OutputClass.AGGREGATE,
        OutputClass.REPORT,
        OutputClass.ROW_CONSENTED,
    ]
    assert made.amends == b"\x5a" * 32 and made.not_after_ms > made.not_before_ms
    assert (made.dimensions[0].edges, made.measures[0].high) == ((1, 3), 50)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_member_of_the_form_is_explained(language: str) -> None:
    lines = write_form(language).splitlines()
    assert all(len(line) <= 120 for line in lines)
    for before, line in pairwise(lines):
        if re.match(r"#?[a-z_]+ = ", line):
            assert before.startswith("# ") and len(before) > 3, line
    tomllib.loads("\n".join(lines))


def test_the_forms_differ_in_their_words_only() -> None:
    english, chinese = (
        [line for line in write_form(language).splitlines() if not line.startswith("# ")] for language in ("en", "zh")
    )
    assert english == chinese
    assert all(words in write_form("zh") for words in ("用什么数", "怎样供数", "解决什么问题", "类别", "应用领域"))


def test_a_form_never_takes_the_place_of_a_file(run: Any, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("mine")
    ended = run("scenario", "form", tmp_path / "s.toml")
    assert ended.code == 1 and (tmp_path / "s.toml").read_text() == "mine"
    assert run("scenario", "form", tmp_path / "t.toml", "--language", "fr").code == 2


@pytest.mark.parametrize("language", ["en", "zh"])
def test_an_empty_form_lacks_everything_at_once(run: Any, tmp_path: Path, language: str) -> None:
    path = tmp_path / "s.toml"
    assert run("scenario", "form", path, "--lang", language).code == 0
    ended = run("scenario", "check", path, "--json")
    assert ended.code == 1 and not ended.json["complete"]
    fields = [gap["field"] for gap in ended.json["missing"]]
    assert len(fields) == len(set(fields)) == 18
    assert {"outline.data_use", "outline.category", "merchant", "applicant", "datasets", "quota.rows_total"} <= set(
        fields
    )
    told = run("scenario", "check", path, "--lang", language).out
    words = {"en": "which problem is solved", "zh": "解决什么问题"}
    assert words[language] in told and words["zh" if language == "en" else "en"] not in told


def test_check_says_yes_to_a_whole_application_and_no_to_one_that_could_not_run(run: Any, files: Path) -> None:
    path = files / "s.toml"
    path.write_text(fill(write_form("en")), encoding="utf-8")
    ended = run("scenario", "check", path, "--json")
    assert (ended.code, ended.json) == (0, {"complete": True, "missing": []})
    path.write_text(path.read_text(encoding="utf-8").replace('"5a', '"').replace("edges = [1, 3]", "edges = [3, 1]"))
    assert "amends is not 64" in run("scenario", "check", path).err
    path.write_text(path.read_text(encoding="utf-8").replace('amends = "', '#amends = "'))
    ended = run("scenario", "check", path, "--json")
    assert ended.code == 1 and "ascending edges" in ended.json["error"]["cause"]
    assert not read_draft(path).gaps


def test_apply_refuses_what_is_not_complete_before_it_needs_a_node(run: Any, officer: Path, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(write_form("en"))
    words = ("--key", officer, "--node", officer / "key.card")
    ended = run("scenario", "apply", tmp_path / "s.toml", *words)
    assert ended.code == 1 and "not complete: outline.category" in ended.err
    with pytest.raises(InvalidSpec, match="not complete"):
        scenario_from_toml(tmp_path / "s.toml")
