"""What a worker may ask of its node while it works (:class:`sandbox.runner.Host`), one host a worker.

Several workers of one job may be at work at once, each on a part of the rows. What they say to the workers of the same
part at the other parties travels under the part's own label, and so do their engines' links.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox import wire
from sandbox.crypto.sm2 import PublicKey
from sandbox.errors import DeadlinePassed, SandboxError
from sandbox.ledger import Ledger
from sandbox.model import ControlMessage
from sandbox.peer.job import JobLinks
from sandbox.record import Job

log = logging.getLogger(__name__)
_LAST_BYTES_S = 10.0  # for what an engine that has ended wrote at its end
READY_S = 180.0  # a cold cluster may need that long; heartbeats tell a slow peer from a dead one


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of one part of a computation; the whole is part 0 of 1."""

    part: int = 0
    parts: int = 1
    number: int = 0  # 0 the first time; beyond all attempts, a stage of this node alone, with labels of its own
    scratch: Path | None = None  # what the parts share at this node: a private directory

    @property
    def tag(self) -> str:
        """What tells its messages from those of others."""
        return f".{self.part}.{self.number}" if self.parts > 1 else ""

    @property
    def link(self) -> int:
        """What tells its engine's links from those of others."""
        return 4 * self.part + self.number


class WorkerHost:
    """The node's side of one worker."""

    def __init__(
        self,
        ledger: Ledger,
        job: Job,
        connections: JobLinks,
        attempt: Attempt,
        when_all_are_ready: Callable[[], Awaitable[None]] | None,
        fail: Callable[[SandboxError], None] | None,
        identity: Callable[[str], PublicKey],
    ) -> None:
        """Args:
        when_all_are_ready: called once a worker of every party has the stage; None for a stage that is this node's own.
        fail: told what broke a link of this worker's engine; by default that breaks the job.
        identity: the pinned identity key of a party.
        """
        self._identity = identity
        self._ledger, self._job, self._connections, self._attempt = ledger, job, connections, attempt
        self._when_all_are_ready, self._fail = when_all_are_ready, fail
        self._others: Sequence[str] = connections.peers
        self._inbox: asyncio.Queue[tuple[str, str, bytes]] = asyncio.Queue(maxsize=64)

    @contextlib.asynccontextmanager
    async def attending(self) -> AsyncIterator[None]:
        """Take messages for the worker; on the way out let go of its engine's links.

        After a stage that succeeded the links end by themselves, when the peers' engines have ended, too.
        """
        pumps = [asyncio.create_task(self._pump(party)) for party in self._others]
        patience_s = 0.0
        try:
            yield
            patience_s = _LAST_BYTES_S
        finally:
            for pump in pumps:
                pump.cancel()
            await self._connections.end_relay(self._attempt.link, patience_s)

    async def begin(self) -> None:
        """A worker here has taken the stage: once every party's has, all start, and none waits inside a library."""
        if self._when_all_are_ready is None:
            return
        label = f"ready{self._attempt.tag}"
        await self._connections.broadcast(label)
        for party in self._others:
            await self._connections.recv(party, label, READY_S)
        await self._when_all_are_ready()

    async def relay(self, directory: Path) -> None:
        """Carry the engine's links to the other parties."""
        await self._connections.relay(directory, self._attempt.link, self._fail)

    async def fetch(self, job_id: str, name: str) -> bytes:
        """Return a kept artefact."""
        return await self._ledger.fetch(self._job, job_id, name)

    async def keep(self, name: str, content: bytes) -> None:
        """Keep an artefact."""
        await self._ledger.keep(self._job, name, content)

    async def cached(self, name: str) -> bytes:
        """Return what an earlier job kept for later ones."""
        return await self._ledger.cached(name)

    async def cache(self, name: str, content: bytes, source: bytes) -> None:
        """Keep something for later jobs."""
        await self._ledger.cache(name, content, source)

    async def quote(self, nonce: bytes, key: bytes) -> bytes:
        """Quote the enclave that the worker made a key for."""
        return await self._ledger.quote(self._job, nonce, key)

    async def grant_rows(self, quote: bytes, nonce: bytes, key: bytes) -> bytes:
        """Decide on the enclave of the scenario, and return the data key sealed for it."""
        enclave = self._ledger.scenario(self._job.plan).enclave
        return await self._ledger.grant_rows(self._job, self._identity(enclave), quote, nonce, key)

    async def send(self, party: str, label: str, body: bytes) -> None:
        """Send to the worker at another party."""
        message = wire.encode(ControlMessage(label, body))
        await self._connections.send(party, f"work{self._attempt.tag}", message)

    async def receive(self) -> tuple[str, str, bytes]:
        """Return the next message for this node's worker."""
        return await self._inbox.get()

    async def progress(self, done: int, total: int) -> None:
        """Take note of progress: for this node's log only, a requester learns nothing of it before release."""
        attempt = self._attempt
        log.debug("job %s: %d of %d, part %d of %d", self._job.job_id, done, total, attempt.part + 1, attempt.parts)

    async def _pump(self, party: str) -> None:
        with contextlib.suppress(SandboxError):  # whoever runs the stage hears of a broken connection itself
            while True:
                try:
                    message = await self._connections.recv(party, f"work{self._attempt.tag}", 3600.0)
                except DeadlinePassed:
                    continue
                content = wire.decode(ControlMessage, message)
                await self._inbox.put((party, content.label, content.body))
