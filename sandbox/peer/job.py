"""The connections of one job with all its other parties, from the first hello to the last EOF.

    async with links.job(job_id, parties, stage) as job:      one CONTROL connection a party, or PartyFailed in 10 s
        await job.broadcast("ready")
        terms = await job.recv("bank", "terms", 20.0)
        await job.relay(directory)                             engine links, until the end
        ...
        await job.finish()

Security:  of two parties the one named earlier dials; a second CONTROL connection is refused. Nothing waits unbounded.
Errors:    ``broken`` gets the first cause, once, and everything pending or later raises it: a peer's own failure, a
           connection that ended without EOF, silence. Leaving by an exception tells the other parties, in at most 1 s.
Not here:  what the messages mean (``pipeline``), the handshake and gRPC (``links``).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from sandbox.errors import (
    AlreadyExists,
    Cancelled,
    DeadlinePassed,
    InvalidSpec,
    JobFailed,
    PartyFailed,
    PolicyRefused,
    ProtocolFailed,
    SandboxError,
    WrongState,
)
from sandbox.model import ChannelPurpose, Failure
from sandbox.peer.control import ABORT, ControlLink
from sandbox.peer.failures import error_of, failure_of
from sandbox.peer.handshake import STAGE
from sandbox.peer.relay import Fail, Relay
from sandbox.peer.transport import Connection

CONNECT_S: Final = 10.0  # seconds for all parties to be connected

_ABORT_S: Final = 1.0
_FINISH_S: Final = 10.0
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True, slots=True)
class Rules:
    """What ``Links`` gives every job: how to connect, and how long silence may last."""

    node_id: str
    heartbeat_s: float
    silence_s: float
    dial: Callable[[str, str, ChannelPurpose], Awaitable[Connection]]
    opened: Callable[[JobLinks], None]
    closed: Callable[[JobLinks], None]


class JobLinks:
    """One job's links; made by ``Links.job``, used as an async context manager."""

    def __init__(self, rules: Rules, job_id: str, parties: Sequence[str], stage: Callable[[], str]) -> None:
        if rules.node_id not in parties or len(set(parties)) != len(parties):
            raise InvalidSpec(f"{rules.node_id} is not one of {len(parties)} different parties")
        if not all(_NAME.fullmatch(party) for party in parties):
            raise InvalidSpec("a party's name is not a node id")  # names become file names below
        self.job_id = job_id
        self.peers = tuple(party for party in parties if party != rules.node_id)
        self.broken: asyncio.Future[SandboxError]
        self._rules, self._stage = rules, stage
        self._dials = self.peers[list(parties).index(rules.node_id) :]
        self._links: dict[str, ControlLink] = {}
        self._expected: set[str] = set()
        self._arrived: dict[str, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_over = False
        self._relay: Relay

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self.broken = loop.create_future()
        self._arrived = {peer: loop.create_future() for peer in self.peers}
        self._relay = Relay(lambda peer: self._rules.dial(peer, self.job_id, ChannelPurpose.RELAY), self.fail)
        self._rules.opened(self)
        try:
            await self._connect()
        except BaseException as error:
            await self._leave(error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave(error)

    @property
    def traffic(self) -> int:
        """Bytes of sealed records sent and received, all peers."""
        return self._relay.traffic + sum(link.traffic for link in self._links.values())

    async def send(self, peer: str, label: str, body: bytes = b"") -> None:
        """Send one message; waits while too much is on its way already.

        Raises:
            SandboxError: the first cause, if the job is broken.
        """
        if label == ABORT:
            raise InvalidSpec("the label of an abort is reserved")
        await self._link(peer).send(label, body)

    async def recv(self, peer: str, label: str, timeout_s: float) -> bytes:
        """Return the peer's next message under ``label``; others are kept.

        Raises:
            DeadlinePassed: it did not come in time.
            SandboxError: the first cause, if the job is broken.
        """
        try:
            return await self._link(peer).recv(label, timeout_s)
        except SandboxError as error:
            error.stage = error.stage or self._stage()
            raise

    async def broadcast(self, label: str, body: bytes = b"") -> None:
        """Send one message to every other party."""
        await asyncio.gather(*(self.send(peer, label, body) for peer in self.peers))

    async def relay(self, directory: Path, part: int = 0, fail: Fail | None = None) -> None:
        """Carry engine links between ``directory``/peer-<name>.sock and the peers' ``self.sock``, until the exit."""
        self._check()
        await self._relay.listen(directory, self.peers, part, fail)

    async def end_relay(self, part: int, patience_s: float = 0.0) -> None:
        """Let go of one engine's links before the exit, at once or when its last bytes are with the peers."""
        await self._relay.leave(part, patience_s)

    async def abort(self, failure: Failure) -> None:
        """Tell every peer that has not itself stopped that this side did, in at most 1 s, and close."""
        if self._is_over:
            return
        self._is_over = True
        error = error_of(failure)
        for link in self._links.values():
            link.close(error)
        with contextlib.suppress(TimeoutError):  # a peer that does not listen will see the connection end
            async with asyncio.timeout(_ABORT_S):
                await asyncio.gather(*(link.abort(failure) for link in self._links.values()))
        await self._let_go()

    async def finish(self, timeout_s: float = _FINISH_S) -> None:
        """End in order: send what is queued and EOF, wait for every peer's, close.

        Raises:
            DeadlinePassed: a peer has not finished in time; named.
            SandboxError: the first cause, if the job is broken.
        """
        self._check()
        for link in self._links.values():
            link.finish()
        late = await self._wait({peer: link.ended for peer, link in self._links.items()}, timeout_s)
        if late:
            raise DeadlinePassed(tell=f"{late} did not finish in time", party=late, stage=self._stage())
        self._is_over = True
        await self._let_go()

    def fail(self, error: SandboxError) -> None:
        """Record the first cause and wake everybody who waits; later causes change nothing."""
        if self._is_over or self.broken.done():
            return
        error.stage = error.stage or self._stage()
        self.broken.set_result(error)
        for link in self._links.values():
            link.close(error)

    def expect(self, peer: str, purpose: ChannelPurpose) -> None:
        """Say whether a peer's connection would be welcome; a CONTROL connection is then expected from nobody else.

        Raises:
            PolicyRefused: it is not of this job.
            AlreadyExists: it has its CONTROL connection.
            ProtocolFailed: it is this side that dials, or there are too many.
            WrongState: the job is broken or over.
        """
        if peer not in self.peers:
            raise PolicyRefused(f"{peer} is no party of job {self.job_id}", party=peer, stage=STAGE)
        if self._is_over or self.broken.done():
            raise WrongState(tell="the job has ended here", stage=STAGE)
        if purpose is ChannelPurpose.RELAY:
            self._relay.expect(peer)
        elif peer in self._dials:
            raise ProtocolFailed(f"{peer} dialled, but is to be dialled", party=peer, stage=STAGE)
        elif peer in self._expected:
            raise AlreadyExists(tell="this job has its connection with this party", party=peer, stage=STAGE)
        else:
            self._expected.add(peer)

    def join(self, connection: Connection, purpose: ChannelPurpose) -> None:
        """Take a connection that ``expect`` let in."""
        if purpose is ChannelPurpose.RELAY:
            self._relay.join(connection)
            return
        self._start(self._welcome(connection))

    async def _welcome(self, connection: Connection) -> None:
        try:
            await connection.stream.confirm()
        except SandboxError:
            connection.frames.cancel()
            self._expected.discard(connection.peer)  # it may dial again
        else:
            self._adopt(connection)

    def _adopt(self, connection: Connection) -> None:
        link = ControlLink(connection, self._rules.heartbeat_s, self._rules.silence_s, self.fail)
        self._links[connection.peer] = link
        if self.broken.done():
            link.close(self.broken.result())
        self._arrived[connection.peer].set_result(None)

    async def _connect(self) -> None:
        for peer in self._dials:
            self._start(self._reach(peer))
        late = await self._wait(self._arrived, CONNECT_S)
        if late:
            raise PartyFailed(tell=f"{late} did not join within {CONNECT_S:.0f} s", party=late, stage=STAGE)

    async def _wait(self, futures: Mapping[str, asyncio.Future[None]], timeout_s: float) -> str:
        """Wait for every peer's future and return who is late, if anybody; the first cause is raised at once."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while True:
            self._check()
            late = [peer for peer, future in futures.items() if not future.done()]
            if not late or loop.time() >= end:
                return late[0] if late else ""
            waits: list[asyncio.Future[Any]] = [self.broken, *(futures[peer] for peer in late)]
            await asyncio.wait(waits, timeout=end - loop.time(), return_when=asyncio.FIRST_COMPLETED)

    async def _reach(self, peer: str) -> None:
        try:
            self._adopt(await self._rules.dial(peer, self.job_id, ChannelPurpose.CONTROL))
        except SandboxError as error:
            error.stage = error.stage or STAGE
            self.fail(error)

    async def _leave(self, error: BaseException | None) -> None:
        try:
            if error is not None:
                await self.abort(failure_of(_public(error), self._rules.node_id, self._stage()))
        finally:
            self._is_over = True
            await self._let_go()
            self._rules.closed(self)

    async def _let_go(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(link.leave() for link in self._links.values()))
        await self._relay.close()

    def _link(self, peer: str) -> ControlLink:
        self._check()
        if peer not in self._links:
            raise InvalidSpec(f"{peer} is no other party of job {self.job_id}")
        return self._links[peer]

    def _check(self) -> None:
        if self.broken.done():
            raise self.broken.result()
        if self._is_over:
            raise WrongState(tell="the job has ended here", stage=self._stage())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _public(error: BaseException) -> SandboxError:
    """What the other parties may know of the way this side left."""
    if isinstance(error, SandboxError):
        return error
    return Cancelled() if isinstance(error, asyncio.CancelledError) else JobFailed()
