"""Three nodes, started once for all tests here; a second set for the tests that kill and restart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pytest
from node_world import (
    BANDS,
    BANK,
    BOUNDS,
    COLUMNS,
    DEPARTMENT,
    DIMENSIONS,
    DISTRICTS,
    OPERATOR,
    PEOPLE_SCHEMA,
    RANGES,
    SIZES,
    World,
    bank_rows,
    counting,
    department_rows,
    operator_rows,
    people_table,
)

from sandbox.client import Outcome
from sandbox.demo.nodes import LocalNodes
from sandbox.model import DatasetView, JobView, PsiEngine, ScoreScope

EAGER = {name: {"ray_start": "eager", "log_level": "DEBUG"} for name in ("operator", "bank", "witness")}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "nodes":
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        nodes = stack.enter_context(LocalNodes(tmp_path_factory.mktemp("nodes"), EAGER))
        yield World(nodes, stack)


@pytest.fixture(scope="session")
def frail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Nodes that tests may kill, if they start them again."""
    with ExitStack() as stack:
        nodes = stack.enter_context(LocalNodes(tmp_path_factory.mktemp("frail"), EAGER))
        yield World(nodes, stack)


@pytest.fixture
def mended(frail: World) -> Iterator[World]:
    """Nodes that may be killed; whoever is down afterwards is started again."""
    yield frail
    for name in frail.nodes.cards:
        if name not in frail.nodes.processes or frail.nodes.processes[name].poll() is not None:
            frail.nodes.processes.pop(name, None)
            frail.nodes.start(name)
            frail.nodes.wait(name)


@dataclass(frozen=True)
class Data:
    """Both sides' registered datasets."""

    bank: DatasetView
    operator: DatasetView


@pytest.fixture(scope="session")
def data(world: World) -> Data:
    return Data(
        world.register("bank-owner", bank_rows(), BANK, "loans"),
        world.register("op-owner", operator_rows(), OPERATOR, "records"),
    )


@pytest.fixture(scope="session")
def scenario(world: World, data: Data) -> bytes:
    return world.approved(world.draft(data.bank, data.operator))


@dataclass(frozen=True)
class Flow:
    """The main job, run once: every stage's job and what it released."""

    psi: JobView
    train: JobView
    score: JobView
    outcomes: dict[str, Outcome]


@pytest.fixture(scope="session")
def flow(world: World, data: Data, scenario: bytes) -> Flow:
    psi = world.released(world.align(scenario, data.bank, data.operator, engine=PsiEngine.RR22))
    train = world.released(world.officer.train(scenario, psi.job_id, steps=10, seed=b"test"))
    score = world.released(world.officer.score(scenario, train.job_id, ScoreScope.ALIGNED))
    trust = world.trust()
    jobs = {"psi": psi, "train": train, "score": score}
    return Flow(psi, train, score, {name: world.officer.result(job.job_id, trust) for name, job in jobs.items()})


def slow_pair(world: World, rows: int = 60_000) -> tuple[Data, bytes]:
    """Two datasets whose alignment by the portable engine takes several seconds, and a scenario for them."""
    left = world.register("bank-owner", people_table(rows), PEOPLE_SCHEMA)
    right = world.register("op-owner", people_table(rows, 1000), PEOPLE_SCHEMA)
    draft = world.draft(left, right)
    return Data(left, right), world.approved(world.draft(left, right, **counting(draft)))


@pytest.fixture(scope="session")
def slow(world: World) -> tuple[Data, bytes]:
    return slow_pair(world)


@pytest.fixture(scope="session")
def frail_slow(frail: World) -> tuple[Data, bytes]:
    return slow_pair(frail)


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[Any]:
    """After every test: no engine, no private directory of a job, at any node that runs."""
    yield
    for name in ("world", "frail"):
        if name in request.fixturenames:
            request.getfixturevalue(name).settle()


@dataclass(frozen=True)
class Departments:
    """Three owners' datasets, and a scenario over them."""

    views: tuple[DatasetView, ...]
    scenario: bytes
    rows: pd.DataFrame


@pytest.fixture(scope="session")
def departments(world: World) -> Departments:
    tables = {name: department_rows(*size) for name, size in SIZES.items()}
    owners = {"bank": "bank-owner", "operator": "op-owner", "witness": "fund-owner"}
    views = tuple(
        world.register(owners[name], table, DEPARTMENT, f"people-of-{name}") for name, table in tables.items()
    )
    draft = world.joint(dict.fromkeys(views, COLUMNS), dimensions=DIMENSIONS, measures=RANGES)
    frame = pd.concat([table.to_pandas() for table in tables.values()])
    frame["income"] = frame["income"].astype(float)
    return Departments(views, world.approved(draft), frame[frame["district"].isin(DISTRICTS)])


@pytest.fixture(scope="session")
def joint(world: World, data: Data) -> bytes:
    uses = {data.bank: ("income", "region"), data.operator: ("late", "util", "city")}
    return world.approved(world.joint(uses, "bad", dimensions=BANDS, measures=BOUNDS))
