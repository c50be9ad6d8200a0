"""Tables of totals on real nodes: over three departments, over two that accept it, and over an alignment."""

from __future__ import annotations

import dataclasses
from typing import Any

import pandas as pd
import pytest
from conftest import Data, Departments
from node_world import (
    CANARY,
    COLUMNS,
    DIMENSIONS,
    DISTRICTS,
    RANGES,
    SIZES,
    World,
    bank_rows,
    department_rows,
    operator_rows,
    ref,
)
from sqlalchemy import select

from sandbox.errors import PolicyRefused
from sandbox.model import JobView, Measure, PsiEngine, PsiOutput, State, Statistic
from sandbox.policy.admit import REFUSALS
from sandbox.store import artefacts, paillier_keys, usage

MEASURES = [
    Measure("income", Statistic.SUM, "income"),
    Measure("age", Statistic.MEAN, "age"),
    Measure("told", Statistic.COUNT, "income"),
    Measure("ages", Statistic.HISTOGRAM, "age_band"),
]


def rounded(count: int) -> int:
    return 10 * ((count + 5) // 10)


def table(world: World, job: JobView) -> pd.DataFrame:
    """What the officer gets, its receipt verified."""
    outcome = world.officer.result(job.job_id, world.trust())
    found = outcome.outputs["totals"]
    assert isinstance(found, pd.DataFrame) and list(outcome.outputs) == ["totals"]
    return found


def test_three_departments_make_one_table(world: World, departments: Departments) -> None:
    refs = [ref(view) for view in departments.views]
    job = world.released(world.officer.aggregate(departments.scenario, refs, groups=["district"], measures=MEASURES))
    found = table(world, job).set_index("district")
    assert list(found.index) == list(DISTRICTS) and CANARY not in repr(found)
    for district, own in departments.rows.groupby("district"):
        row: Any = found.loc[district]
        assert (row["rows"], row["told"]) == (rounded(len(own)), rounded(own["income"].notna().sum()))
        assert row["income"] == pytest.approx(own["income"].sum(), abs=1e-6)
        assert row["age"] == pytest.approx(own["age"].mean(), abs=0.0051)
        bands = pd.cut(own["age"], [0, 39, 64, 200]).value_counts(sort=False).tolist()
        assert row[["ages: below 40", "ages: 40 to below 65", "ages: 65 and above"]].tolist() == list(
            map(rounded, bands)
        )

    assert job.engine == "paillier" and set(job.parties) == set(SIZES)
    assert [stage.name for stage in job.stages] == ["propose", "agree", "compute", "gate", "reveal", "deliver"]
    assert job.fee is not None and job.fee.units == 2 * len(COLUMNS) * rounded(len(departments.rows))
    for name, (_, _, count) in SIZES.items():
        (row,) = world.select(name, select(usage.c.state, usage.c.rows).where(usage.c.job_id == job.job_id))
        assert tuple(row) == ("spent", count)
        assert world.select(name, select(artefacts.c.name).where(artefacts.c.job_id == job.job_id)) == []
    assert [row.bits for row in world.select("bank", select(paillier_keys.c.bits))] == [2048]
    assert world.select("witness", select(paillier_keys.c.bits)) == []  # the recipient's node alone can decrypt
    entries = {name: client.entries(job_id=job.job_id) for name, client in readers(world).items()}
    assert all([e.entry.what for e in own][:2] == ["admitted", "released"] for own in entries.values())


def test_variances_over_two_dimensions(world: World, departments: Departments) -> None:
    refs = [ref(view) for view in departments.views]
    spread = [Measure("spread", Statistic.VARIANCE, "age")]
    job = world.released(
        world.officer.aggregate(departments.scenario, refs, groups=["district", "age_band"], measures=spread)
    )
    found = table(world, job)
    bands = pd.cut(departments.rows["age"], [0, 39, 64, 200], labels=["below 40", "40 to below 65", "65 and above"])
    for (district, band), own in departments.rows.groupby(["district", bands], observed=False):
        (row,) = found[(found["district"] == district) & (found["age_band"] == band)].to_dict("records")
        assert row["rows"] == rounded(len(own)) and row["spread"] == pytest.approx(own["age"].var(), abs=1e-4)
    assert len(found) == 9


def readers(world: World) -> dict[str, Any]:
    return {"bank": world.bank_owner, "operator": world.op_owner, "witness": world.regulator}


def test_a_group_that_is_too_small_withholds_the_whole_table(world: World, departments: Departments) -> None:
    """At every party in one wording; whether one group or all were too small is not told."""
    young = (DIMENSIONS[0], dataclasses.replace(DIMENSIONS[1], edges=(19, 65)))
    sizes = departments.rows.groupby(["district", pd.cut(departments.rows["age"], [0, 18, 64, 200])], observed=False)
    assert 0 < sizes.size().min() < 10 < departments.rows.groupby("district").size().min()
    draft = world.joint(dict.fromkeys(departments.views, COLUMNS), dimensions=young, measures=RANGES)
    digest, refs = world.approved(draft), [ref(view) for view in departments.views]
    assert world.released(world.officer.aggregate(digest, refs, groups=["district"], measures=MEASURES[:1]))
    narrow = world.officer.aggregate(digest, refs, groups=["district", "age_band"], measures=MEASURES[1:2])
    for client in (world.officer, world.op_owner, world.regulator):
        view = world.ended(narrow.job_id, client)
        assert view.state is State.REFUSED and view.failure is not None
        assert (view.failure.code, view.failure.party, view.failure.stage) == ("OutputWithheld", "", "gate")
        assert view.failure.cause == "the result is too specific to be released"
        assert all(stage.bytes == 0 for stage in view.stages)
        assert "gate" not in [stage.name for stage in view.stages]
    for name in SIZES:
        assert world.select(name, select(artefacts.c.name).where(artefacts.c.job_id == narrow.job_id)) == []


def test_an_owner_left_out_is_refused_at_the_submitting_node(world: World, departments: Departments) -> None:
    refs = [ref(view) for view in departments.views]
    with pytest.raises(PolicyRefused) as refusal:
        world.officer.aggregate(departments.scenario, refs[:2], groups=["district"], measures=MEASURES[:1])
    assert refusal.value.tell == REFUSALS["contributors"]


@pytest.mark.parametrize(("scenario_accepts", "approvals_accept"), [(False, False), (False, True), (True, False)])
def test_two_departments_alone_need_everybodys_word(
    world: World, departments: Departments, scenario_accepts: bool, approvals_accept: bool
) -> None:
    two = departments.views[:2]
    draft = world.joint(
        dict.fromkeys(two, COLUMNS), dimensions=DIMENSIONS, measures=RANGES, accepts_two_contributors=scenario_accepts
    )
    digest = world.approved(draft, approvals_accept)
    with pytest.raises(PolicyRefused) as refusal:
        world.officer.aggregate(digest, [ref(view) for view in two], groups=["district"], measures=MEASURES[:1])
    assert refusal.value.tell == REFUSALS["two"]


def test_two_departments_that_all_accept_make_a_table(world: World, departments: Departments) -> None:
    two = departments.views[:2]
    draft = world.joint(
        dict.fromkeys(two, COLUMNS), dimensions=DIMENSIONS, measures=RANGES, accepts_two_contributors=True
    )
    digest = world.approved(draft, two=True)
    plan_and_job = world.officer.aggregate(digest, [ref(view) for view in two], measures=MEASURES[:1])
    job = world.released(plan_and_job)
    (row,) = table(world, job).to_dict("records")
    frames = [department_rows(*SIZES[name]).to_pandas() for name in ("bank", "operator")]
    whole = pd.concat(frames)
    assert row["rows"] == rounded(len(whole))  # without groups nobody is left out
    assert row["income"] == pytest.approx(float(whole["income"].dropna().sum()), abs=1e-6)


def test_an_alignment_of_three_names_the_people_all_three_know(world: World, departments: Departments) -> None:
    refs = [ref(view) for view in departments.views]
    job = world.released(world.officer.align(departments.scenario, refs[0], refs[1], PsiEngine.ECDH_SM2, third=refs[2]))
    known = [set(range(first, first + count)) for _, first, count in SIZES.values()]
    shared = set.intersection(*known)
    assert len(shared) == 200
    assert world.officer.result(job.job_id, world.trust()).outputs == {"aligned": {"aligned": rounded(len(shared))}}
    assert set(job.parties) == set(SIZES)
    for name in SIZES:
        (kept,) = world.select(name, select(artefacts.c.name).where(artefacts.c.job_id == job.job_id))
        assert kept.name == "alignment"
    with pytest.raises(PolicyRefused) as refusal:  # three sides have no one side of groups
        world.officer.aggregate(departments.scenario, alignment=job.job_id, groups=["district"], measures=MEASURES[:1])
    assert refusal.value.tell == REFUSALS["earlier"]


# --- over an alignment ----------------------------------------------------------------------------------------------

DEFAULTS = [
    Measure("defaults", Statistic.MEAN, "bad"),
    Measure("income", Statistic.SUM, "income"),
    Measure("late", Statistic.SUM, "late"),
]


def joined() -> pd.DataFrame:
    bank, operator = bank_rows().to_pandas(), operator_rows().to_pandas()
    whole: pd.DataFrame = bank.merge(operator, on="id")
    return whole


def test_defaults_by_use_over_an_alignment(world: World, data: Data, joint: bytes) -> None:
    """The groups are the operator's, defaults and incomes the bank's."""
    align = world.released(world.align(joint, data.bank, data.operator, engine=PsiEngine.RR22))
    job = world.released(
        world.officer.aggregate(joint, alignment=align.job_id, groups=["util_band"], measures=DEFAULTS)
    )
    found = table(world, job)
    whole = joined()
    bands = pd.cut(whole["util"], [-1, 32, 65, 1000])
    for row, (_, own) in zip(found.to_dict("records"), whole.groupby(bands, observed=False), strict=True):
        assert row["rows"] == rounded(len(own))
        assert row["defaults"] == pytest.approx(own["bad"].mean(), abs=1e-3)
        assert (row["income"], row["late"]) == (own["income"].sum(), own["late"].sum())
    assert found["util_band"].tolist() == ["below 33", "33 to below 66", "66 and above"]
    assert job.fee is not None and job.fee.units == 2 * rounded(len(whole))  # the operator's two columns


def test_over_an_alignment_whose_members_left(world: World, data: Data, joint: bytes) -> None:
    align = world.released(world.align(joint, data.bank, data.operator, output=PsiOutput.MEMBERS_BOTH))
    measures = [Measure("late", Statistic.MEAN, "late")]
    job = world.released(world.officer.aggregate(joint, alignment=align.job_id, groups=["region"], measures=measures))
    whole = joined()
    for row in table(world, job).to_dict("records"):
        own = whole[whole["region"] == row["region"]]
        assert row["rows"] == rounded(len(own)) and row["late"] == pytest.approx(own["late"].mean(), abs=0.0051)


def test_what_did_not_last_carries_no_totals(world: World, data: Data, joint: bytes) -> None:
    members = world.released(world.align(joint, data.bank, data.operator, output=PsiOutput.MEMBERS))
    with pytest.raises(PolicyRefused) as refusal:
        world.officer.aggregate(joint, alignment=members.job_id, groups=["region"], measures=DEFAULTS[2:])
    assert refusal.value.tell == REFUSALS["earlier"]
