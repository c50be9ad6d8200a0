"""Every output of an intersection on real nodes: the plain answer, a receipt, and nothing left that need not be."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from conftest import Data
from node_world import (
    PEOPLE_SCHEMA,
    SHARED,
    SHARED_ID,
    World,
    bank_rows,
    joint_rules,
    operator_rows,
    people_table,
    ref,
)
from sqlalchemy import select

from sandbox.client import specs
from sandbox.errors import InvalidSpec, OutputWithheld, PolicyRefused, WrongState
from sandbox.model import (
    JobView,
    Measure,
    MeasureRange,
    PsiEngine,
    PsiOutput,
    State,
    Statistic,
)
from sandbox.policy.admit import REFUSALS
from sandbox.store import artefacts, cached, usage

ROUNDED = 10 * ((SHARED + 5) // 10)
LATE = Measure("late", Statistic.MEAN, "late")


def common() -> pd.DataFrame:
    """The operator's rows of the people the bank has too."""
    bank, operator = (rows.to_pandas() for rows in (bank_rows(), operator_rows()))
    found: pd.DataFrame = operator[operator["id"].isin(set(bank["id"]))]
    return found


def outputs(world: World, job: JobView) -> dict[str, Any]:
    """What the officer gets, its receipt verified offline."""
    outcome = world.officer.result(job.job_id, world.trust())
    proven = world.trust().verify(outcome.receipt)
    assert (proven.entry.what, proven.entry.job_id, proven.cosigners) == ("delivered", job.job_id, ("witness",))
    return outcome.outputs


def kept(world: World, job: JobView) -> dict[str, set[str]]:
    query = select(artefacts.c.name).where(artefacts.c.job_id == job.job_id)
    return {node: {row.name for row in world.select(node, query)} for node in ("bank", "operator")}


def stage_bytes(job: JobView, name: str) -> int:
    return next(stage.bytes for stage in job.stages if stage.name == name)


NOTHING: dict[str, set[str]] = {"bank": set(), "operator": set()}
ALIGNED = {"bank": {"alignment"}, "operator": {"alignment"}}


@pytest.mark.parametrize(
    ("output", "engine", "name", "left"),
    [
        (PsiOutput.MEMBERS, PsiEngine.RR22, "rr22", NOTHING),
        (PsiOutput.MEMBERS, PsiEngine.ECDH_SM2, "ecdh-sm2", NOTHING),
        (PsiOutput.MEMBERS_BOTH, PsiEngine.RR22, "rr22", ALIGNED),
    ],
)
def test_the_members_are_those_of_the_plain_join(
    world: World, data: Data, joint: bytes, output: PsiOutput, engine: PsiEngine, name: str, left: dict[str, set[str]]
) -> None:
    job = world.released(world.align(joint, data.bank, data.operator, engine=engine, output=output))
    members = outputs(world, job)["members"]
    assert list(members.columns) == ["id"] and set(members["id"]) == set(common()["id"])
    assert len(members) == SHARED and SHARED_ID in set(members["id"])
    assert (job.engine, kept(world, job)) == (name, left)


def test_the_size_is_rounded_and_nobody_knows_which(world: World, data: Data, joint: bytes) -> None:
    job = world.released(world.align(joint, data.bank, data.operator, engine=PsiEngine.AUTO, output=PsiOutput.SIZE))
    assert outputs(world, job) == {"size": {"size": ROUNDED}}
    assert (job.engine, kept(world, job)) == ("count-sm2", NOTHING)
    assert [s.name for s in job.stages] == ["propose", "agree", "gate-before", "compute", "gate", "reveal", "deliver"]


def test_sums_and_means_over_people_whom_nobody_names(world: World, data: Data, joint: bytes) -> None:
    measures = [LATE, Measure("nights", Statistic.SUM, "late")]
    with pytest.raises(InvalidSpec, match="two of sum, mean"):
        world.align(joint, data.bank, data.operator, engine=PsiEngine.AUTO, output=PsiOutput.SUMS, measures=measures)
    for measure, expected in ((measures[0], common()["late"].mean()), (measures[1], common()["late"].sum())):
        job = world.released(
            world.align(
                joint, data.bank, data.operator, engine=PsiEngine.AUTO, output=PsiOutput.SUMS, measures=[measure]
            )
        )
        (row,) = outputs(world, job)["sums"].to_dict("records")
        assert row["rows"] == ROUNDED and row[measure.name] == pytest.approx(expected, abs=0.0051)
        assert (job.engine, kept(world, job)) == ("loads-sm2", NOTHING)
    assert job.fee is not None and job.fee.units == ROUNDED  # one column of the other side


def test_joined_rows_have_the_other_side_s_columns(world: World, data: Data, joint: bytes) -> None:
    job = world.released(
        world.align(joint, data.bank, data.operator, output=PsiOutput.JOINED, columns=["city", "late"])
    )
    joined = outputs(world, job)["joined"].set_index("id")
    plain = common().set_index("id")
    assert list(joined.columns) == ["city", "late"] and set(joined.index) == set(plain.index)
    assert (joined == plain.loc[joined.index, ["city", "late"]]).all().all()
    assert kept(world, job) == NOTHING
    with pytest.raises(PolicyRefused) as refusal:  # a column of the dataset, and none of the scenario
        world.align(joint, data.bank, data.operator, output=PsiOutput.JOINED, columns=["name"])
    assert refusal.value.tell == REFUSALS["columns"]


@pytest.mark.parametrize("output", PsiOutput)
def test_a_plan_tells_time_traffic_and_who_learns_what(
    world: World, data: Data, joint: bytes, output: PsiOutput
) -> None:
    more: dict[PsiOutput, Any] = {PsiOutput.SUMS: {"measures": [LATE]}, PsiOutput.JOINED: {"columns": ["city"]}}
    spec = specs.align(joint, ref(data.bank), ref(data.operator), output=output, **more.get(output, {}))
    view = world.officer.plan(spec)
    assert view.expected_s >= 1 and view.expected_bytes > 0 and view.expected_mib > 0 and view.units_at_most > 0
    assert {reveal.party for reveal in view.reveals} == {"bank", "operator", "recipient"}


# --- few people -----------------------------------------------------------------------------------------------------

RANGE = (MeasureRange("v", 0, 100),)
FEW: dict[PsiOutput, Any] = {
    PsiOutput.SIZE: {},
    PsiOutput.SUMS: {"measures": [Measure("v", Statistic.SUM, "v")]},
    PsiOutput.MEMBERS: {},
    PsiOutput.JOINED: {"columns": ["v"]},
}


@pytest.fixture(scope="module")
def few(world: World) -> dict[int, tuple[Data, bytes]]:
    """Sets that share nobody, nine people, and ten."""
    made = {}
    bank = world.register("bank-owner", people_table(50), PEOPLE_SCHEMA)
    for shared in (0, 9, 10):
        operator = world.register("op-owner", people_table(50, 50 - shared), PEOPLE_SCHEMA)
        draft = world.joint({bank: ("v",), operator: ("v",)}, measures=RANGE)
        made[shared] = Data(bank, operator), world.approved(draft)
    return made


@pytest.mark.parametrize("output", FEW)
def test_few_shared_people_are_withheld_in_one_wording_and_leave_no_trace(
    world: World, few: dict[int, tuple[Data, bytes]], output: PsiOutput
) -> None:
    seen = {}
    for shared, (pair, digest) in few.items():
        job = world.align(digest, pair.bank, pair.operator, engine=PsiEngine.AUTO, output=output, **FEW[output])
        views = [world.ended(job.job_id), world.ended(job.job_id, world.op_owner)]
        if shared == 10:
            assert views[0].state is State.RELEASED, world.logs()
            continue
        for view in views:
            assert view.state is State.REFUSED and view.failure is not None
            assert (view.failure.code, view.failure.cause) == ("OutputWithheld", OutputWithheld.public)
            assert (view.failure.party, view.failure.stage) == ("", "gate")
            assert all(stage.bytes == 0 for stage in view.stages) and view.fee is None
            assert {stage.name for stage in view.stages} <= {"propose", "agree", "gate-before", "compute"}
        seen[shared] = [view.failure for view in views]
        with pytest.raises(WrongState, match="refused, not released"):
            world.officer.result(job.job_id)
        assert kept(world, job) == NOTHING
        for node in ("bank", "operator"):
            (row,) = world.select(node, select(usage.c.state).where(usage.c.job_id == job.job_id))
            assert row.state == "spent"
    assert seen[0] == seen[9]  # none or nearly enough: the same to whoever asked


# --- a set prepared once --------------------------------------------------------------------------------------------

MANY = 20_000


@pytest.fixture(scope="module")
def lopsided(world: World) -> tuple[Data, bytes]:
    """Forty people against twenty thousand."""
    bank = world.register("bank-owner", people_table(40, MANY - 25), PEOPLE_SCHEMA)
    operator = world.register("op-owner", people_table(MANY), PEOPLE_SCHEMA)
    return Data(bank, operator), world.approved(world.joint({bank: ("v",), operator: ("v",)}))


def prepared(world: World, pair: Data, digest: bytes) -> JobView:
    engine = PsiEngine.PREPARED_SM2
    return world.released(world.align(digest, pair.bank, pair.operator, engine=engine, output=PsiOutput.MEMBERS))


def cache_of(world: World, node: str) -> tuple[int, int]:
    """Entries in the store, and files."""
    rows = world.select(node, select(cached.c.name))
    return len(rows), len(list((world.nodes.home(node) / "cache").glob("*")))


def test_a_large_set_is_encoded_and_sent_once(world: World, lopsided: tuple[Data, bytes]) -> None:
    pair, digest = lopsided
    before = cache_of(world, "bank")
    jobs = [prepared(world, pair, digest) for _ in range(2)]
    plain = {f"P-{n}" for n in range(MANY - 25, MANY)}
    assert [set(outputs(world, job)["members"]["id"]) for job in jobs] == [plain, plain]
    views = [world.op_owner.job(job.job_id) for job in jobs]  # exact only at the owner's own node
    first, second = (stage_bytes(view, "compute") for view in views)
    assert first > 12 * MANY and second < 40 * 66 + 20_000
    assert all(stage.bytes == float(f"{stage.bytes:.0e}") for job in jobs for stage in job.stages)
    assert cache_of(world, "bank") == (before[0] + 1, before[1] + 1)
    for job in jobs:
        for node in ("bank", "operator"):  # forty elements were answered, not the whole set
            (row,) = world.select(node, select(usage.c.state, usage.c.rows).where(usage.c.job_id == job.job_id))
            assert tuple(row) == ("spent", 40)
    spec = specs.align(digest, ref(pair.bank), ref(pair.operator), output=PsiOutput.MEMBERS)
    assert world.officer.plan(spec).engine == "prepared-sm2"  # what is prepared is what costs least


def test_a_destroyed_set_is_forgotten_in_its_encoded_form_too(world: World) -> None:
    bank = world.register("bank-owner", people_table(40), PEOPLE_SCHEMA)
    operator = world.register("op-owner", people_table(500), PEOPLE_SCHEMA)
    digest = world.approved(world.joint({bank: ("v",), operator: ("v",)}))
    before = cache_of(world, "operator")
    prepared(world, Data(bank, operator), digest)
    assert cache_of(world, "operator") == (before[0] + 1, before[1] + 1)
    names = {path.name for path in (world.nodes.home("operator") / "cache").iterdir()}
    world.op_owner.destroy_dataset(operator.code, operator.version)
    assert cache_of(world, "operator") == before
    gone = names - {path.name for path in (world.nodes.home("operator") / "cache").iterdir()}
    assert len(gone) == 1


# --- in parts -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def larger(world: World) -> tuple[Data, bytes]:
    bank = world.register("bank-owner", people_table(6000), PEOPLE_SCHEMA)
    operator = world.register("op-owner", people_table(7000, 1000), PEOPLE_SCHEMA)
    return Data(bank, operator), world.approved(world.joint({bank: ("v",), operator: ("v",)}))


@pytest.mark.parametrize("engine", [PsiEngine.RR22, PsiEngine.ECDH_SM2])
def test_in_buckets_it_is_the_same_people(world: World, larger: tuple[Data, bytes], engine: PsiEngine) -> None:
    pair, digest = larger
    options = {"engine": engine, "output": PsiOutput.MEMBERS_BOTH, "bucket_rows": 2000}
    job = world.released(world.align(digest, pair.bank, pair.operator, **options))
    assert set(outputs(world, job)["members"]["id"]) == {f"P-{n}" for n in range(1000, 6000)}
    assert kept(world, job) == ALIGNED  # of the four parts nothing is left
    for node, count in (("bank", 6000), ("operator", 7000)):
        rows = world.select(node, select(usage.c.state, usage.c.rows).where(usage.c.job_id == job.job_id))
        log = world.log(node).splitlines()
        again = sum(f"job {job.job_id}: part" in line and "failed, attempt" in line for line in log)  # counts as well
        assert [tuple(row) for row in rows] == [("spent", count + again * -(-count // 4))]
    done = [f"job {job.job_id}: ", "of 1000, part 4 of 4"]
    assert any(all(word in line for word in done) for line in world.log("bank").splitlines())


def test_buckets_are_no_business_of_the_recipient(world: World, larger: tuple[Data, bytes]) -> None:
    """The same stages as in one piece; only the nodes' own logs tell of parts."""
    pair, digest = larger
    names = []
    for bucket_rows in (0, 3000):
        job = world.align(digest, pair.bank, pair.operator, engine=PsiEngine.ECDH_SM2, bucket_rows=bucket_rows)
        names.append([stage.name for stage in world.released(job).stages])
    assert names[0] == names[1]


def test_a_minimum_that_rows_of_people_have_is_kept(world: World, few: dict[int, tuple[Data, bytes]]) -> None:
    pair, _ = few[9]
    loose = joint_rules(members={"min_group": 9}, joined={"min_group": 0})
    digest = world.approved(world.joint({pair.bank: ("v",), pair.operator: ("v",)}, outputs=loose))
    job = world.released(world.align(digest, pair.bank, pair.operator, output=PsiOutput.MEMBERS))
    assert len(outputs(world, job)["members"]) == 9
