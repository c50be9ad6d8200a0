"""A stage that is stopped leaves nothing, whenever that is; without Ray, whose part is a task that never comes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest

from sandbox import runner
from sandbox.model import JobKind
from sandbox.runner import Runner


@pytest.fixture
def run() -> Iterator[Path]:
    with TemporaryDirectory(prefix="r-") as name:  # short: the path of a socket has 108 bytes at most
        yield Path(name)


def made(run: Path, remote: Any) -> Runner:
    found = Runner(run, run)
    found._ray = SimpleNamespace(cancel=lambda *_, **__: None)
    found._task = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=remote))
    return found


@pytest.mark.parametrize("steps", range(8))
def test_whenever_a_stage_is_stopped_its_socket_goes(run: Path, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    monkeypatch.setattr(runner, "STOP_S", 0.01)
    stages = made(run, lambda _: SimpleNamespace(future=Future))
    host: Any = None

    async def stopped() -> None:
        stage = asyncio.create_task(stages.stage("compute", JobKind.PSI, {}, b"", host))
        for _ in range(steps):
            await asyncio.sleep(0)
        stage.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stage

    asyncio.run(stopped())
    assert list(run.iterdir()) == []


def test_where_ray_takes_no_task_nothing_is_left(run: Path) -> None:
    def gone(_: str) -> None:
        raise ConnectionError("ray is gone")

    host: Any = None
    with pytest.raises(ConnectionError):
        asyncio.run(made(run, gone).stage("compute", JobKind.PSI, {}, b"", host))
    assert list(run.iterdir()) == []
