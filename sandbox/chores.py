"""Work with rows that is no job: a worker opens them, does one thing, and reports to its node.

Security:  the same line as for jobs (``desk``); such a worker reaches no party, no artefact and no cache.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandbox.errors import JobFailed
from sandbox.runner import Runner


async def chore(runner: Runner, name: str, order: Mapping[str, Any], body: bytes = b"") -> bytes:
    """Have a worker do one of ``worker.CHORES`` and return its report.

    Raises:
        SandboxError: what the worker raised, or that it vanished.
    """
    host = _Host()
    await runner.stage(name, None, order, body, host)
    return host.report


class _Host:
    """What such a worker may ask of its node: to take its report, and nothing else."""

    def __init__(self) -> None:
        self.report = b""

    async def begin(self) -> None:
        """Start at once."""

    async def keep(self, name: str, content: bytes) -> None:
        """Take the report."""
        if name != "report" or self.report:
            raise JobFailed("a worker outside any job keeps something else")
        self.report = content

    async def progress(self, done: int, total: int) -> None:
        """Nobody watches."""

    async def relay(self, directory: Path) -> None:
        """Refuse: there are no other parties."""
        raise JobFailed("a worker outside any job wants a relay")

    async def fetch(self, job_id: str, name: str) -> bytes:
        """Refuse: there are no artefacts."""
        raise JobFailed("a worker outside any job wants an artefact")

    async def cached(self, name: str) -> bytes:
        """Refuse: nothing is kept for it."""
        raise JobFailed("a worker outside any job wants what was kept")

    async def cache(self, name: str, content: bytes, source: bytes) -> None:
        """Refuse: nothing is kept for it."""
        raise JobFailed("a worker outside any job keeps something else")

    async def quote(self, nonce: bytes, key: bytes) -> bytes:
        """Refuse: no enclave is made for it."""
        raise JobFailed("a worker outside any job wants a quote")

    async def grant_rows(self, quote: bytes, nonce: bytes, key: bytes) -> bytes:
        """Refuse: rows go nowhere."""
        raise JobFailed("a worker outside any job wants to give rows away")

    async def send(self, party: str, label: str, body: bytes) -> None:
        """Refuse: there are no other parties."""
        raise JobFailed("a worker outside any job wants to send")

    async def receive(self) -> tuple[str, str, bytes]:
        """Wait for ever: nobody sends."""
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]
