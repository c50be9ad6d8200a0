"""Dimensions, ranges, totals and every kind of intersection, as people write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sandbox import wire
from sandbox.catalog.registration import make_code
from sandbox.client import job_from_file, scenario_from_toml, specs
from sandbox.errors import InvalidSpec
from sandbox.keyring import Person
from sandbox.model import (
    AggregateSpec,
    DatasetRef,
    Dimension,
    JobKind,
    JobSpec,
    Measure,
    MeasureRange,
    PsiEngine,
    PsiOutput,
    PsiSpec,
    Scenario,
    Statistic,
)

DIGEST, JOB = "5a" * 32, "ab" * 16
OWNERS = ("bank", "operator", "fund")
FIELDS = ("city", "age", "income", "late")
SCENARIO = """
name = "totals"
merchant = "Example Bank"
purpose = "how people live"
operator = "operator"
kinds = ["psi", "aggregate"]
valid_days = 1
accepts_two_contributors = true
[outline]
data_use = "people's cities, ages, incomes"
supply = "one table at each node"
problem = "how people live in each city"
category = "shared"
field_of_use = "tests"
[applicant]
card = "officer.card"
[recipient]
node = "bank"
card = "officer.card"
[[datasets]]
file = "bank.dataset.json"
key = ["id"]
fields = ["city", "age", "income", "late"]
[[datasets]]
file = "operator.dataset.json"
key = ["id"]
fields = ["city", "age", "income", "late"]
[[dimensions]]
name = "city"
column = "city"
values = ["Beijing", "上海"]
[[dimensions]]
name = "income_band"
column = "income"
edges = [-100, 0, "1999.99", 5000.5]
places = 2
[[measures]]
column = "income"
low = "-100000.00"
high = 1e6
places = 2
[[measures]]
column = "late"
low = 0
high = 99
[[outputs]]
kind = "aggregate"
name = "totals"
class = "aggregate"
min_group = 10
round_to = 10
max_rows = 100
max_bytes = 40960
[[outputs]]
kind = "psi"
name = "joined"
class = "row_consented"
max_rows = 100
max_bytes = 40960
[quota]
calls_per_day = 10
calls_total = 10
rows_total = 100000
[consent]
batch = "held_letter"
letter_days = 14
[price]
tariff = "fujian-2024"
"""
TOTALS = """
scenario = "${scenario}"
request_id = "r1"
deadline_s = 60
[aggregate]
groups = ["city", "income_band"]
key_bits = 3072
datasets = [{ file = "bank.dataset.json" }, { file = "operator.dataset.json" }, { file = "fund.dataset.json" }]
[[aggregate.measures]]
name = "earned"
statistic = "sum"
column = "income"
[[aggregate.measures]]
statistic = "weighted_sum"
column = "income"
weight = "late"
[[aggregate.measures]]
statistic = "histogram"
column = "income_band"
"""
INTERSECTION = """
scenario = "${scenario}"
[psi]
left = { file = "bank.dataset.json" }
right = { file = "operator.dataset.json" }
"""


@pytest.fixture
def files(tmp_path: Path, officer: Person) -> Path:
    (tmp_path / "officer.card").write_bytes(wire.encode(officer.card))
    for owner in OWNERS:
        entry = {"owner": owner, "code": make_code(owner, "people"), "version": 2, "content_hash": "1f" * 32, "rows": 7}
        (tmp_path / f"{owner}.dataset.json").write_text(json.dumps(entry))
    return tmp_path


def ref(owner: str) -> DatasetRef:
    return DatasetRef(make_code(owner, "people"), 2)


def scenario(files: Path, text: str = SCENARIO) -> Scenario:
    (files / "scenario.toml").write_text(text, encoding="utf-8")
    return scenario_from_toml(files / "scenario.toml")


def job(files: Path, text: str, name: str = "job.toml") -> JobSpec:
    (files / name).write_text(text, encoding="utf-8")
    spec, inputs = job_from_file(files / name, {"scenario": DIGEST, "alignment": JOB})
    assert inputs == ()
    return spec


# --- scenarios ------------------------------------------------------------------------------------------------------


def test_dimensions_and_ranges_are_in_units_of_their_places(files: Path) -> None:
    made = scenario(files)
    assert wire.decode(Scenario, wire.encode(made)) == made
    assert made.dimensions == (
        Dimension("city", "city", ("Beijing", "上海")),
        Dimension("income_band", "income", (), (-10_000, 0, 199_999, 500_050), 2),
    )
    assert made.measures == (
        MeasureRange("income", -10_000_000, 100_000_000, 2),
        MeasureRange("late", 0, 99),
    )
    assert made.accepts_two_contributors and made.kinds == (JobKind.PSI, JobKind.AGGREGATE)
    assert [use.rows for use in made.datasets] == [7, 7]


def test_without_them_there_are_none_and_two_contributors_are_not_accepted(files: Path) -> None:
    text = SCENARIO.replace("accepts_two_contributors = true\n", "")
    head, rest = text.split("[[dimensions]]", 1)
    made = scenario(files, head + rest[rest.index("[[outputs]]") :])
    assert (made.dimensions, made.measures, made.accepts_two_contributors) == ((), (), False)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (
            'edges = [-100, 0, "1999.99", 5000.5]',
            "edges = [0.001]",
            "dimensions 2: edges is not a number with at most 2",
        ),
        ('edges = [-100, 0, "1999.99", 5000.5]', "edges = [true]", "dimensions 2: edges is not a number"),
        ('edges = [-100, 0, "1999.99", 5000.5]', 'edges = ["many"]', "dimensions 2: edges is not a number"),
        ('edges = [-100, 0, "1999.99", 5000.5]', "edges = [inf]", "dimensions 2: edges is not a number"),
        ('edges = [-100, 0, "1999.99", 5000.5]', "edges = 5", "dimensions 2: edges is of another type"),
        ('edges = [-100, 0, "1999.99", 5000.5]', "edge = [5]", "dimensions 2: these members mean nothing here: 'edge'"),
        ('values = ["Beijing", "上海"]', "values = [1, 2]", "dimensions 1: values is not a list of texts"),
        ('name = "city"\n', "", "dimensions 1: name is missing"),
        ("high = 1e6", 'high = "1e99"', "measures 1: high is not a number"),
        ("high = 1e6", "high = nan", "measures 1: high is not a number"),
        ("high = 99\n", "", "measures 2: high is missing"),
        ("high = 99\n", "high = 99\nunit = 1\n", "measures 2: these members mean nothing here: 'unit'"),
        ("accepts_two_contributors = true", "accepts_two_contributors = 1", "accepts_two_contributors is of another"),
        ("places = 2\n[[measures]]", "places = -1\n[[measures]]", "dimensions 2"),
    ],
)
def test_slips_are_named_by_file_and_member(files: Path, old: str, new: str, reason: str) -> None:
    assert old in SCENARIO
    with pytest.raises(InvalidSpec) as refusal:
        scenario(files, SCENARIO.replace(old, new, 1))
    assert reason in refusal.value.tell and "scenario.toml" in refusal.value.tell


# --- totals ---------------------------------------------------------------------------------------------------------


def test_a_table_of_totals_over_contributors(files: Path) -> None:
    spec = job(files, TOTALS)
    assert (spec.request_id, spec.deadline_s, spec.scenario_digest) == ("r1", 60, bytes.fromhex(DIGEST))
    assert spec.kind == AggregateSpec(
        tuple(map(ref, OWNERS)),
        "",
        ("city", "income_band"),
        (
            Measure("earned", Statistic.SUM, "income"),
            Measure("income_weighted_sum", Statistic.WEIGHTED_SUM, "income", "late"),
            Measure("income_band_histogram", Statistic.HISTOGRAM, "income_band"),
        ),
        3072,
    )


def test_a_table_of_totals_over_an_alignment_in_json(files: Path) -> None:
    document = {
        "scenario": DIGEST,
        "aggregate": {"alignment": "${alignment}", "measures": [{"statistic": "mean", "column": "late"}]},
    }
    spec = job(files, json.dumps(document), "job.json")
    assert spec.kind == AggregateSpec((), JOB, (), (Measure("late_mean", Statistic.MEAN, "late"),), specs.KEY_BITS)


@pytest.mark.parametrize("statistic", Statistic)
def test_every_statistic_has_its_name(files: Path, statistic: Statistic) -> None:
    text = TOTALS.replace('statistic = "sum"', f'statistic = "{statistic.name.lower()}"')
    kind: Any = job(files, text).kind
    assert kind.measures[0].statistic is statistic


# --- intersections --------------------------------------------------------------------------------------------------

OUTPUTS: dict[PsiOutput, tuple[str, dict[str, Any]]] = {
    PsiOutput.ALIGNED: ("", {}),
    PsiOutput.MEMBERS: ("", {}),
    PsiOutput.MEMBERS_BOTH: ("", {}),
    PsiOutput.SIZE: ("", {}),
    PsiOutput.SUMS: (
        'measures = [{ name = "owed", statistic = "mean", column = "late" }]',
        {"measures": (Measure("owed", Statistic.MEAN, "late"),)},
    ),
    PsiOutput.JOINED: ('columns = ["late", "city"]', {"columns": ("late", "city")}),
}


@pytest.mark.parametrize("output", PsiOutput)
def test_every_output_is_written_by_its_name(files: Path, output: PsiOutput) -> None:
    more, members = OUTPUTS[output]
    spec = job(files, f'{INTERSECTION}output = "{output.name.lower()}"\n{more}\n')
    assert spec.kind == PsiSpec(ref("bank"), ref("operator"), PsiEngine.AUTO, output, **members)
    assert wire.decode(JobSpec, wire.encode(spec)) == spec


def test_engine_buckets_and_a_third(files: Path) -> None:
    text = f'{INTERSECTION}engine = "prepared_sm2"\nbucket_rows = 50_000\nthird = {{ file = "fund.dataset.json" }}\n'
    assert job(files, text).kind == PsiSpec(
        ref("bank"), ref("operator"), PsiEngine.PREPARED_SM2, third=ref("fund"), bucket_rows=50_000
    )
    assert job(files, INTERSECTION).kind == PsiSpec(ref("bank"), ref("operator"), PsiEngine.AUTO)


def test_the_same_from_values() -> None:
    measures = [Measure("n", Statistic.SUM, "late")]
    left, right = ref("bank"), ref("operator")
    made = specs.align(bytes(32), left, right, output=PsiOutput.SUMS, measures=measures, deadline_s=9).kind
    assert made == PsiSpec(left, right, PsiEngine.AUTO, PsiOutput.SUMS, tuple(measures))
    totals = specs.aggregate(bytes(32), [left, right], measures=measures, groups=["city"])
    assert totals.kind == AggregateSpec((left, right), "", ("city",), tuple(measures), 2048) and totals.request_id


@pytest.mark.parametrize(
    ("text", "old", "new", "reason"),
    [
        (TOTALS, 'statistic = "sum"', 'statistic = "median"', "measures 1: statistic is not one of sum, count"),
        (TOTALS, 'statistic = "sum"\n', "", "aggregate: measures 1: statistic is missing"),
        (TOTALS, 'name = "earned"', 'nam = "earned"', "aggregate: measures 1: these members mean nothing here: 'nam'"),
        (TOTALS, 'column = "income"\n', "", "aggregate: measures 1: column is missing"),
        (TOTALS, 'groups = ["city", "income_band"]', 'groups = "city"', "aggregate: groups is of another type"),
        (TOTALS, 'groups = ["city", "income_band"]', 'groups = ["a", "b", "c"]', "kind.groups has 3 items"),
        (TOTALS, "key_bits = 3072", 'key_bits = "3072"', "aggregate: key_bits is of another type"),
        (TOTALS, "key_bits = 3072", "group = 1", "aggregate: these members mean nothing here: 'group'"),
        (TOTALS, '{ file = "fund.dataset.json" }', '{ file = "fund.dataset.json", rows = 1 }', "aggregate: datasets 3"),
        (TOTALS, '{ file = "fund.dataset.json" }', '{ code = "X", version = 1 }', "aggregate: datasets 3"),
        (INTERSECTION, "[psi]", "[intersect]", "exactly one of"),
        (INTERSECTION, "[psi]", '[psi]\noutput = "all"', "psi: output is not one of aligned, members"),
        (INTERSECTION, "[psi]", "[psi]\noutput = 3", "psi: output is of another type"),
        (INTERSECTION, "[psi]", "[psi]\nbucket_rows = -5", "job.toml"),
        (INTERSECTION, "[psi]", "[psi]\nbucket_rows = 1.5", "psi: bucket_rows is of another type"),
        (INTERSECTION, "[psi]", "[psi]\ncolumns = [1]", "psi: columns is not a list of texts"),
        (INTERSECTION, "[psi]", '[psi]\nthird = "fund"', "psi: third is of another type"),
        (INTERSECTION, "[psi]", "[psi]\nmeasures = [5]", "psi: measures 1 is not a table"),
        (INTERSECTION, "[psi]", '[psi]\nmeasure = "late"', "psi: these members mean nothing here: 'measure'"),
    ],
)  # fmt: skip
def test_slips_in_a_job_are_named_by_file_and_member(files: Path, text: str, old: str, new: str, reason: str) -> None:
    assert old in text
    with pytest.raises(InvalidSpec) as refusal:
        job(files, text.replace(old, new, 1))
    assert reason in refusal.value.tell and "job.toml" in refusal.value.tell
