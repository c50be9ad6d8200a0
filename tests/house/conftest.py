"""Three nodes as docs/by-hand.md makes them, and the examples that begin with nodes of their own or with these."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from by_hand_page import PAGE, ROOT, ByHand
from example_page import Example, Ran

PAGES_OF_MINUTES = {"by_hand", "joint_totals", "intersections", "own_model", "income_query"}  # typed by `make test-all`


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if PAGES_OF_MINUTES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ByHand]:
    """Sections 1 to 5 of the page: three nodes that run, their people, their data."""
    page = ByHand(tmp_path_factory.mktemp("by-hand"))
    try:
        for number in range(1, 6):
            page.section(number)
        yield page
    finally:
        page.shell.close()


@pytest.fixture(scope="session")
def joint_totals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """Three departments and their totals; the nodes run until the end."""
    page = Example("joint_totals", tmp_path_factory.mktemp("joint-totals"))
    try:
        yield Ran(page, page.folder / "departments", {number: page.section(number) for number in range(1, 7)})
        page.section(7)
    finally:
        page.shell.close()


@pytest.fixture(scope="session")
def intersections(by_hand: ByHand) -> Iterator[Ran]:
    """Every question about shared people, at the nodes made by hand."""
    member = next(line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("member()"))
    opening = f"source ./activate\nREPOSITORY={ROOT}\n{member}"
    page = Example("intersections", by_hand.folder, opening)
    try:
        yield Ran(page, by_hand.folder, {number: page.section(number) for number in range(1, 8)})
    finally:
        page.shell.close()


@pytest.fixture(scope="session")
def own_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """A merchant's two models at a data owner's node; the nodes run until the end."""
    page = Example("own_model", tmp_path_factory.mktemp("own-model"))
    try:
        yield Ran(page, page.folder / "lending", {number: page.section(number) for number in range(1, 8)})
        page.section(8)
    finally:
        page.shell.close()
