"""Three nodes as docs/by-hand.md makes them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from by_hand_page import ByHand


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
