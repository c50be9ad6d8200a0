"""What runs on rows has run on twins before: on nodes that insist on it, as operators' do."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from node_world import BANK, CANARY, OPERATOR, World, bank_rows, joint_rules, operator_rows, schema
from sqlalchemy import select

from sandbox import wire
from sandbox.client import Outcome, specs
from sandbox.demo.nodes import LocalNodes
from sandbox.errors import InvalidSpec, NotFound, PolicyRefused, SandboxError, Unavailable, WrongState
from sandbox.model import (
    DatasetRef,
    DatasetUse,
    DatasetView,
    Environment,
    JobKind,
    JobView,
    OutputClass,
    OutputRule,
    Plan,
    PsiEngine,
    PsiOutput,
    VersionRule,
)
from sandbox.store import jobs, released_populations, twins, usage, versions

EPSILON_MILLI = 2000
INSISTING = {"ray_start": "eager", "log_level": "DEBUG", "test_before_production": True}
SIZE = (OutputRule(JobKind.PSI, "size", OutputClass.AGGREGATE, 10, 10, 1, 4096),)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Nodes that insist on a run on twins first."""
    with ExitStack() as stack:
        settings = dict.fromkeys(("operator", "bank", "witness"), INSISTING)
        nodes = stack.enter_context(LocalNodes(tmp_path_factory.mktemp("strict"), settings))
        yield World(nodes, stack)


@dataclass(frozen=True)
class Shop:
    """Two datasets with twins, and a scenario over them."""

    bank: DatasetView
    operator: DatasetView
    digest: bytes


@pytest.fixture(scope="module")
def shop(strict: World) -> Shop:
    bank = strict.register("bank-owner", bank_rows(), BANK, "loans")
    operator = strict.register("op-owner", operator_rows(), OPERATOR, "records")
    bank = strict.bank_owner.make_twin(bank.code, bank.version, EPSILON_MILLI)
    operator = strict.op_owner.make_twin(operator.code, operator.version, EPSILON_MILLI)
    draft = strict.draft(bank, operator)
    changes: dict[str, Any] = {"kinds": (JobKind.PSI, JobKind.TRAIN, JobKind.SCORE)}
    return Shop(bank, operator, strict.approved(dataclasses.replace(draft, **changes)))


def by_rule(use: DatasetUse, view: DatasetView, max_age_days: int = 0) -> DatasetUse:
    """Let any version of the same schema be used."""
    changes = {"version": 0, "content_hash": b"", "schema_digest": view.schema_digest, "max_age_days": max_age_days}
    return dataclasses.replace(use, rule=VersionRule.SAME_SCHEMA, **changes)


# --- the main line ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """The jobs of the main line, in one environment."""

    psi: JobView
    train: JobView
    outcome: Outcome


def line(world: World, shop: Shop, test: bool) -> Line:
    left, right = DatasetRef(shop.bank.code, 0), DatasetRef(shop.operator.code, 0)
    psi = world.released(world.officer.align(shop.digest, left, right, PsiEngine.ECDH_X25519, test=test))
    train = world.officer.train(shop.digest, psi.job_id, steps=5, seed=b"test" if test else b"", test=test)
    train = world.released(train)
    return Line(psi, train, world.officer.result(train.job_id, world.trust()))


@pytest.fixture(scope="module")
def promoted(strict: World, shop: Shop) -> tuple[Line, Line]:
    """The same jobs on twins, and then on rows."""
    with pytest.raises(PolicyRefused, match="has not run on the twins"):
        strict.align(shop.digest, shop.bank, shop.operator)
    tried = line(strict, shop, test=True)
    return tried, line(strict, shop, test=False)


def test_a_job_runs_on_twins_first_and_then_on_rows(promoted: tuple[Line, Line]) -> None:
    tried, real = promoted
    assert {job.environment for job in (tried.psi, tried.train)} == {Environment.TEST}
    assert {job.environment for job in (real.psi, real.train)} == {Environment.PRODUCTION}
    assert tried.train.fee is not None and (tried.train.fee.units, tried.train.fee.yuan) == (0, "0.00")
    assert real.train.fee is not None and real.train.fee.units > 0
    assert real.outcome.outputs and tried.outcome.outputs.keys() == real.outcome.outputs.keys()


def test_what_was_tried_is_not_counted_nor_kept_as_history(strict: World, promoted: tuple[Line, Line]) -> None:
    tried, real = promoted
    for node in ("bank", "operator"):
        counted = {row.job_id for row in strict.select(node, select(usage.c.job_id))}
        noted = {row.job_id for row in strict.select(node, select(released_populations.c.job_id))}
        assert real.psi.job_id in counted & noted
        assert not {tried.psi.job_id, tried.train.job_id} & (counted | noted)


def test_another_recipe_needs_a_run_of_its_own(strict: World, shop: Shop, promoted: tuple[Line, Line]) -> None:
    _, real = promoted
    with pytest.raises(PolicyRefused, match="has not run on the twins"):
        strict.officer.train(shop.digest, real.psi.job_id, steps=6)
    with pytest.raises(PolicyRefused, match="has not run on the twins"):
        strict.align(shop.digest, shop.bank, shop.operator, engine=PsiEngine.ECDH_SM2)


def test_environments_do_not_mix(strict: World, shop: Shop, promoted: tuple[Line, Line]) -> None:
    tried, real = promoted
    for alignment, test in ((tried.psi, False), (real.psi, True)):
        with pytest.raises(PolicyRefused):
            strict.officer.train(shop.digest, alignment.job_id, steps=5, test=test)


def test_the_plan_says_where_it_runs(strict: World, shop: Shop) -> None:
    left, right = DatasetRef(shop.bank.code, 1), DatasetRef(shop.operator.code, 1)
    spec = specs.align(shop.digest, left, right, PsiEngine.ECDH_X25519)
    on_twins = strict.officer.plan(specs.on_twins(spec))
    assert (on_twins.environment, on_twins.yuan_at_most) == (Environment.TEST, "0.00")
    assert on_twins.recipe == strict.officer.plan(spec).recipe


# --- twins ------------------------------------------------------------------------------------------------------------


def test_a_twin_is_of_nobody_and_is_there_for_the_merchant(strict: World, shop: Shop, tmp_path: Path) -> None:
    view = strict.officer.get_twin(shop.bank.code, shop.bank.version, tmp_path / "twin.parquet")
    twin, real = pq.read_table(tmp_path / "twin.parquet"), bank_rows()
    assert view.twin is not None and twin.num_rows == view.twin.rows == real.num_rows
    assert twin.schema.names == [field["name"] for field in BANK["fields"]]
    assert not set(twin["id"].to_pylist()) & set(real["id"].to_pylist())
    assert CANARY not in str(twin.to_pydict())
    theirs = strict.officer.datasets()[0]
    assert theirs.twin is not None and theirs.twin.epsilon_milli == EPSILON_MILLI


def test_twins_of_two_parties_share_people(strict: World, shop: Shop, tmp_path: Path) -> None:
    strict.officer.get_twin(shop.bank.code, 1, tmp_path / "b.parquet")
    strict.op_owner.get_twin(shop.operator.code, 1, tmp_path / "o.parquet")
    one, other = (set(pq.read_table(tmp_path / f"{name}.parquet")["id"].to_pylist()) for name in "bo")
    assert len(one & other) > 0.3 * min(len(one), len(other))


def test_a_version_is_measured_once(strict: World, shop: Shop) -> None:
    code, version = shop.bank.code, shop.bank.version
    query = select(twins.c.measurements).where(twins.c.code == code)
    before = strict.select("bank", query)
    with pytest.raises(WrongState, match="measured under a budget of 2000"):
        strict.bank_owner.make_twin(code, version, 1000)
    with pytest.raises(WrongState, match="600 rows, and keeps them"):
        strict.bank_owner.make_twin(code, version, rows=100)
    again = strict.bank_owner.make_twin(code, version)
    assert again.twin is not None and shop.bank.twin is not None
    assert again.twin.content_hash == shop.bank.twin.content_hash
    assert again.twin is not None and again.twin.epsilon_milli == EPSILON_MILLI
    assert strict.select("bank", query) == before
    charged = [e for e in strict.bank_owner.entries(limit=500) if e.entry.what == "twin"]
    assert [fact.value for e in charged for fact in e.entry.facts if fact.name == "epsilon_milli"] == ["2000", "0"]


@pytest.mark.parametrize("epsilon_milli", [0, 10_001])
def test_a_budget_is_bounded(strict: World, epsilon_milli: int) -> None:
    view = strict.register(
        "bank-owner",
        pa.table({"id": [f"B{epsilon_milli}", "C"], "v": [1, 2]}),
        schema({"id": "string", "v": "integer"}),
    )
    with pytest.raises(InvalidSpec, match="epsilon_milli"):
        strict.bank_owner.make_twin(view.code, view.version, epsilon_milli)


def test_only_the_owner_makes_twins_and_only_twins_there_are_are_given(strict: World, tmp_path: Path) -> None:
    view = strict.register(
        "bank-owner", pa.table({"id": ["D", "E"], "v": [1, 2]}), schema({"id": "string", "v": "integer"})
    )
    with pytest.raises(PolicyRefused):
        strict.officer.make_twin(view.code, view.version, 1000)
    with pytest.raises(NotFound, match="no twin"):
        strict.officer.get_twin(view.code, view.version, tmp_path / "none.parquet")
    assert not (tmp_path / "none.parquet").exists()


def test_without_a_twin_nothing_is_tried(strict: World, shop: Shop) -> None:
    fresh = strict.register("bank-owner", bank_rows().slice(0, 500), BANK, "fresh")
    digest = strict.approved(strict.draft(fresh, shop.operator))
    with pytest.raises(Unavailable, match="has no twin"):
        strict.officer.align(digest, DatasetRef(fresh.code, 1), DatasetRef(shop.operator.code, 1), test=True)


def test_a_destroyed_version_takes_its_twin_along(strict: World, tmp_path: Path) -> None:
    view = strict.register("bank-owner", bank_rows().slice(0, 300), BANK, "short-lived")
    strict.bank_owner.make_twin(view.code, view.version, 1000)
    place = strict.nodes.home("bank") / "twins" / view.code / "1"
    assert place.is_dir()
    strict.bank_owner.destroy_dataset(view.code, view.version)
    assert not place.exists()
    with pytest.raises(NotFound):
        strict.officer.get_twin(view.code, view.version, tmp_path / "gone.parquet")
    with pytest.raises(SandboxError, match="destroyed"):
        strict.bank_owner.make_twin(view.code, view.version, 1000)


# --- samples ----------------------------------------------------------------------------------------------------------


def test_samples_are_masked_for_the_owner_and_entered(strict: World, shop: Shop) -> None:
    rows = strict.bank_owner.sample_dataset(shop.bank.code, shop.bank.version)
    assert 0 < rows.num_rows <= 20
    assert CANARY not in str(rows.to_pydict()) and "PERSON" not in str(rows.to_pydict())
    assert any(e.entry.what == "sampled" for e in strict.bank_owner.entries(limit=500))
    with pytest.raises(PolicyRefused):
        strict.officer.sample_dataset(shop.bank.code, shop.bank.version)


# --- versions by rule -------------------------------------------------------------------------------------------------


def test_a_daily_update_does_not_end_a_scenario(strict: World, shop: Shop) -> None:
    """The operator registers a new version and the next job uses it, though what was tried was the old one's twin."""
    records = operator_rows()
    first = strict.register("op-owner", records.slice(0, 700), OPERATOR, "daily")
    strict.op_owner.make_twin(first.code, first.version, EPSILON_MILLI)
    draft = strict.draft(shop.bank, first)
    left, right = draft.datasets
    digest = strict.approved(
        dataclasses.replace(
            draft, datasets=(left, by_rule(right, first)), kinds=(JobKind.PSI,), outputs=joint_rules()[:2]
        )
    )
    refs = DatasetRef(shop.bank.code, 0), DatasetRef(first.code, 0)
    strict.released(strict.officer.align(digest, *refs, output=PsiOutput.SIZE, test=True))
    one = strict.released(strict.officer.align(digest, *refs, output=PsiOutput.SIZE))
    second = strict.register("op-owner", records.slice(0, 900), OPERATOR, "daily")
    assert (second.code, second.version) == (first.code, 2)

    def parties_of(job: JobView) -> list[DatasetRef | None]:
        (row,) = strict.select("bank", select(jobs.c.plan).where(jobs.c.job_id == job.job_id))
        return [party.dataset for party in wire.decode(Plan, bytes(row.plan)).parties]

    end = time.monotonic() + 30  # the notice travels after the registration is answered
    while len(strict.select("bank", select(versions.c.version).where(versions.c.code == first.code))) < 2:
        assert time.monotonic() < end, strict.logs()
        time.sleep(0.1)
    two = strict.released(strict.officer.align(digest, *refs, output=PsiOutput.SIZE))
    assert [parties_of(job)[1] for job in (one, two)] == [DatasetRef(first.code, 1), DatasetRef(first.code, 2)]
    again = strict.released(strict.officer.align(digest, refs[0], DatasetRef(first.code, 1), output=PsiOutput.SIZE))
    assert parties_of(again)[1] == DatasetRef(first.code, 1)
