"""Which tests share a process when there are several: those that share nodes, and otherwise those of one file.

Three nodes take 25 s of processor time to start, and some while they idle, so each set is started once. The folders
that take longest begin first.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

FOLDERS = ("tests/house", "tests/nodes")


class ByNodes(LoadScopeScheduling):  # type: ignore[misc]
    """Gives a process whole folders that share nodes, and whole files."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        folder = file.rpartition("/")[0]
        return folder if folder in FOLDERS else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByNodes:
    return ByNodes(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(FOLDERS))  # stable: otherwise nothing moves
