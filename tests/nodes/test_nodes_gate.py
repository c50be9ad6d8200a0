"""What the gate lets out on real nodes beside plain answers: margins with blanks, noise under a budget, a scorecard."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import Data
from node_world import (
    BANK,
    BANK_ROWS,
    COLUMNS,
    DEPARTMENT,
    DIMENSIONS,
    DISTRICTS,
    OPERATOR,
    OPERATOR_ROWS,
    RANGES,
    World,
    bank_rows,
    joint_rules,
    operator_rows,
    ref,
)
from sqlalchemy import select

from sandbox.client import specs
from sandbox.errors import BudgetSpent, OutputWithheld
from sandbox.model import (
    DatasetView,
    Decision,
    JobKind,
    JobView,
    Measure,
    OutputClass,
    OutputRule,
    State,
    Statistic,
)
from sandbox.store import evidences, privacy_uses

OWNERS = {"bank": "bank-owner", "operator": "op-owner", "witness": "fund-owner"}
INCOME = Measure("income", Statistic.SUM, "income")
FEW = 4  # people in the smallest cell


def rows(seed: int, first: int, count: int, few: int) -> pa.Table:
    """People of whom ``few`` are young and live at the harbour; all others of that district are older."""
    random = np.random.default_rng(seed)
    districts = np.array(random.choice(DISTRICTS, count), dtype=object)
    ages = random.integers(18, 90, count)
    ages[districts == "harbour"] = 50
    place = np.flatnonzero(districts != "harbour")[:few]
    districts[place], ages[place] = "harbour", 20
    return pa.table(
        {
            "id": [f"G{seed}-{n:05d}" for n in range(first, first + count)],
            "district": districts.tolist(),
            "age": ages,
            "income": pa.array(np.round(random.uniform(1000, 9000, count), 2)).cast(pa.decimal128(12, 2), safe=False),
            "note": [""] * count,
        }
    )


@pytest.fixture(scope="module")
def people(world: World) -> tuple[tuple[DatasetView, ...], pd.DataFrame]:
    tables = {name: rows(seed, 1000 * seed, 500, FEW if name == "bank" else 0) for seed, name in enumerate(OWNERS, 70)}
    views = tuple(world.register(OWNERS[name], table, DEPARTMENT) for name, table in tables.items())
    frame = pd.concat([table.to_pandas() for table in tables.values()])
    frame["income"] = frame["income"].astype(float)
    frame["age_band"] = pd.cut(frame["age"], [0, 39, 64, 200], labels=["below 40", "40 to below 65", "65 and above"])
    return views, frame


def scenario(world: World, views: tuple[DatasetView, ...], **changes: Any) -> bytes:
    return world.approved(world.joint(dict.fromkeys(views, COLUMNS), dimensions=DIMENSIONS, measures=RANGES, **changes))


def totals(world: World, digest: bytes, views: tuple[DatasetView, ...], **options: Any) -> JobView:
    refs = [ref(view) for view in views]
    return world.officer.aggregate(digest, refs, groups=["district", "age_band"], measures=[INCOME], **options)


def test_a_small_cell_is_blank_and_cannot_be_had_from_the_margins(
    world: World, people: tuple[tuple[DatasetView, ...], pd.DataFrame]
) -> None:
    views, frame = people
    plain = scenario(world, views)
    withheld = world.ended(totals(world, plain, views, margins=True).job_id)
    assert withheld.failure is not None and withheld.failure.cause == OutputWithheld.public

    digest = scenario(world, views, outputs=joint_rules(totals={"suppress": True}))
    job = world.released(totals(world, digest, views, margins=True))
    found = world.officer.result(job.job_id, world.trust()).outputs["totals"].set_index(["district", "age_band"])
    small: Any = found.loc[("harbour", "below 40")]
    assert small.isna().all()
    blank = found[found["rows"].isna()]
    # In every line and column with a blank there are two or more, so that no margin less the rest is the small cell.
    inner = blank[[("all" not in place) for place in blank.index]]
    for level in (0, 1):
        counts = inner.index.get_level_values(level).value_counts()
        assert (counts >= 2).all(), blank
    shown = found[found["rows"].notna()]
    for place, line in shown.iterrows():
        district, band = place  # type: ignore[misc]
        own = frame if district == "all" else frame[frame["district"] == district]
        own = own if band == "all" else own[own["age_band"] == band]
        assert line["income"] == pytest.approx(own["income"].sum(), abs=0.01), place
        assert line["rows"] == 10 * ((len(own) + 5) // 10)


def test_noise_is_paid_for_from_a_budget_that_is_never_refilled(
    world: World, people: tuple[tuple[DatasetView, ...], pd.DataFrame]
) -> None:
    views, frame = people
    rule = OutputRule(JobKind.AGGREGATE, "noisy_totals", OutputClass.NOISY, 10, 10, 100, 40_960)
    digest = scenario(world, views, kinds=(JobKind.AGGREGATE,), outputs=(rule,), epsilon_milli=3000)
    first = world.released(totals(world, digest, views, epsilon_milli=2000))
    found = (
        world.officer.result(first.job_id, world.trust()).outputs["noisy_totals"].set_index(["district", "age_band"])
    )
    exact = frame.groupby(["district", "age_band"], observed=False).size()
    shown = found["rows"].dropna()
    assert len(shown) >= 5 and (np.abs(shown - exact.loc[shown.index]) < 100).all()
    plan = world.officer.plan(_spec(views, digest, 1000))
    assert any("standard deviation" in reveal.what for reveal in plan.reveals)
    with pytest.raises(BudgetSpent, match="privacy budget"):
        totals(world, digest, views, epsilon_milli=2000)
    for name in OWNERS:
        spent = world.select(name, select(privacy_uses.c.epsilon_milli, privacy_uses.c.state))
        assert [tuple(row) for row in spent] == [(2000, "spent")]


def _spec(views: tuple[DatasetView, ...], digest: bytes, epsilon_milli: int) -> Any:
    refs = [ref(view) for view in views]
    return specs.aggregate(digest, refs, groups=["district"], measures=[INCOME], epsilon_milli=epsilon_milli)


def test_a_scorecard_leaves_after_two_people_looked(world: World) -> None:
    random = np.random.default_rng(8)
    loans, records = bank_rows(), operator_rows()  # in which one column tells all; here none does
    loans = loans.set_column(1, "income", pa.array(random.integers(1000, 1500, BANK_ROWS)))
    records = records.set_column(1, "late", pa.array(random.integers(0, 4, OPERATOR_ROWS)))
    data = Data(world.register("bank-owner", loans, BANK), world.register("op-owner", records, OPERATOR))
    draft = world.draft(data.bank, data.operator)
    card = OutputRule(JobKind.TRAIN, "scorecard", OutputClass.MODEL, 10, 10, 1000, 100_000, reviewed=True)
    digest = world.approved(replace(draft, kinds=(JobKind.PSI, JobKind.TRAIN), outputs=(*draft.outputs[:2], card)))
    psi = world.released(world.align(digest, data.bank, data.operator))
    train = world.officer.train(digest, psi.job_id, steps=10, seed=b"card", release_scorecard=True)
    world.held(train.job_id, timeout_s=120)
    reviewers = [world.clients[name] for name in ("first-reviewer", "second-reviewer")]
    page = reviewers[0].review(train.job_id)
    assert {"degrees of freedom", "rows behind a coefficient, or beside it"} <= {check.check for check in page.checks}
    assert any("release_scorecard: true" in line for line in page.asked) and page.reveals
    assert psi.job_id in [earlier.job_id for earlier in page.history]
    for reviewer in reviewers:
        reviewer.decide(train.job_id, Decision.APPROVE)
    view = world.ended(train.job_id, timeout_s=120)
    assert view.state is State.RELEASED, world.logs()
    points = world.officer.result(train.job_id, world.trust()).outputs["scorecard"]
    assert {"bank", "operator"} <= set(points["side"]) and pd.api.types.is_integer_dtype(points["points"])
    kept = world.select("operator", select(evidences.c.job_id).where(evidences.c.job_id == psi.job_id))
    assert kept == []  # exact numbers are kept where people have to look, and nowhere else
