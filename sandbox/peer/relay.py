"""Engine links through the one port: unix sockets at both ends, sealed records between.

    engine dials peer-B.sock --> node A ==RELAY connection==> node B dials self.sock --> B's engine

A job may have several engines at work, one a part of its rows. The first record of a connection says whose link it is.

Security:  the sockets lie in the job's private directory. Nothing is read into the bytes; they are sealed per link, and
           never pass a third node.
Shapes:    reads of at most 256 KiB, each one record; in each direction a read waits for the record before it to be
           taken, so a slow engine slows the other one down and nothing piles up.
Errors:    a connection that ends without EOF is ``PartyFailed`` naming the peer. A clean EOF says nothing about
           success: a killed engine leaves one, too.
Not here:  starting engines, and whether they succeeded (``runner``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sandbox.errors import DeadlinePassed, JobFailed, ProtocolFailed, SandboxError, Unavailable
from sandbox.peer.channel import RecordType, SealedStream
from sandbox.peer.transport import Connection

_READ: Final = 256 << 10  # bytes
_POLL_S: Final = 0.01
_ENGINE_S: Final = 60.0  # an engine may start late; its peers' bytes wait
_MOST_PARTS: Final = 4096  # engines a job has links for at one time
_NUMBER: Final = re.compile(rb"[0-9]{1,6}")
_MOST: Final = 16  # links of one engine open with one peer; brpc makes two or three

log = logging.getLogger(__name__)

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
Fail = Callable[[SandboxError], None]


@dataclass(eq=False)
class _Part:
    """One engine's place: where its sockets are, once it has one."""

    directory: asyncio.Future[Path]
    fail: Fail
    servers: list[tuple[asyncio.Server, Path]] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def close(self, patience_s: float) -> None:
        for server, path in self.servers:
            server.close()
            path.unlink(missing_ok=True)
        self.directory.cancel()
        if self.tasks and patience_s:
            await asyncio.wait(self.tasks, timeout=patience_s)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class Relay:
    """The engine links of one job at one node."""

    def __init__(self, dial: Callable[[str], Awaitable[Connection]], fail: Callable[[SandboxError], None]) -> None:
        self._live: set[Connection] = set()
        self._carried = 0  # bytes of connections that are over
        self._dial, self._fail = dial, fail
        self._parts: dict[int, _Part] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def traffic(self) -> int:
        """Bytes of sealed records, both ways."""
        return self._carried + sum(connection.stream.traffic for connection in self._live)

    async def listen(self, directory: Path, peers: Sequence[str], part: int = 0, fail: Fail | None = None) -> None:
        """Listen for one engine's links to ``peers``, and let theirs in.

        Args:
            part: which of the job's engines it is; the same number at the peers.
            fail: told what broke a link of this engine; by default that breaks the job.

        Raises:
            JobFailed: a socket cannot be made, e.g. because its path is too long.
        """
        mine = self._part_of(part)
        if mine.directory.done():
            raise JobFailed("the relay of an engine was started twice")
        mine.fail = fail or self._fail
        for peer in peers:
            path = directory / f"peer-{peer}.sock"
            try:
                server = await asyncio.start_unix_server(self._accept(peer, part), path, limit=_READ)
            except OSError as error:
                raise JobFailed(
                    f"cannot listen on a socket in the job's directory: {error.strerror or error}"
                ) from None
            mine.servers.append((server, path))
        mine.directory.set_result(directory)

    async def leave(self, part: int, patience_s: float = 0.0) -> None:
        """Let go of one engine's links; the number may be used again.

        Args:
            patience_s: how long an engine's last bytes may take to the peer. An engine that has its result has written
                all, which does not mean that all is read here: cut now, the peer's engine would miss the end.
        """
        mine = self._parts.pop(part, None)
        if mine is not None:
            await mine.close(patience_s)

    def expect(self, peer: str) -> None:
        """Refuse one connection more than a peer's engine needs.

        Raises:
            ProtocolFailed: the peer has opened too many.
        """
        engines = max(1, sum(part.directory.done() for part in self._parts.values()))
        if sum(known.peer == peer for known in self._live) >= _MOST * engines:
            raise ProtocolFailed(tell=f"{peer} opens too many engine links", party=peer)

    def join(self, connection: Connection) -> None:
        """Carry a connection of a peer's engine."""
        self._start(self._join(connection))

    async def close(self) -> None:
        """Let go of every link and remove the sockets."""
        for part in tuple(self._parts):
            await self.leave(part)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _part_of(self, number: int) -> _Part:
        return self._parts.setdefault(number, _Part(asyncio.get_running_loop().create_future(), self._fail))

    def _accept(self, peer: str, part: int) -> Callable[[Reader, Writer], None]:
        def accept(reader: Reader, writer: Writer) -> None:
            mine = self._part_of(part)
            self._start(self._carry(peer, part, reader, writer), mine)

        return accept

    def _start(self, work: Coroutine[Any, Any, None], part: _Part | None = None) -> None:
        task = asyncio.create_task(self._guard(work, part))
        for held in (self._tasks, *((part.tasks,) if part else ())):
            held.add(task)
            task.add_done_callback(held.discard)

    async def _guard(self, work: Coroutine[Any, Any, None], part: _Part | None) -> None:
        fail = part.fail if part else self._fail
        try:
            await work
        except SandboxError as error:
            fail(error)
        except Exception as error:
            log.error("an engine link failed inside: %s", type(error).__name__)
            fail(JobFailed(f"{type(error).__name__} in an engine link"))

    async def _carry(self, peer: str, part: int, reader: Reader, writer: Writer) -> None:
        try:
            connection = await self._dial(peer)
        except BaseException:
            writer.transport.abort()
            raise
        async with self._held(connection):
            await connection.stream.send(RecordType.DATA, str(part).encode("ascii"))
            await pump(connection.stream, reader, writer)
            await self._end(connection)

    async def _join(self, connection: Connection) -> None:
        async with self._held(connection):
            await connection.stream.confirm()
            kind, body = await connection.stream.receive()
            if kind is not RecordType.DATA or not _NUMBER.fullmatch(body):
                raise ProtocolFailed(tell=f"{connection.peer} does not say whose link it opens", party=connection.peer)
            if len(self._parts) >= _MOST_PARTS and int(body) not in self._parts:
                raise ProtocolFailed(tell=f"{connection.peer} opens links for too many engines", party=connection.peer)
            mine = self._part_of(int(body))
            task = asyncio.current_task()
            if task is not None:
                mine.tasks.add(task)
                task.add_done_callback(mine.tasks.discard)
            try:
                reader, writer = await self._engine(await self._place(mine))
                await pump(connection.stream, reader, writer)
                await self._end(connection)
            except SandboxError as error:
                mine.fail(error)

    @contextlib.asynccontextmanager
    async def _held(self, connection: Connection) -> AsyncIterator[None]:
        self._live.add(connection)
        try:
            yield
        finally:
            self._live.discard(connection)
            self._carried += connection.stream.traffic
            connection.frames.cancel()

    async def _end(self, connection: Connection) -> None:
        await connection.frames.done()
        await connection.stream.drain()

    async def _place(self, part: _Part) -> Path:
        try:
            async with asyncio.timeout(_ENGINE_S):
                return await asyncio.shield(part.directory)
        except TimeoutError:
            raise DeadlinePassed("an engine link came for no engine", tell="this node's engine did not start") from None

    async def _engine(self, directory: Path) -> tuple[Reader, Writer]:
        try:
            async with asyncio.timeout(_ENGINE_S):
                while True:
                    try:
                        return await asyncio.open_unix_connection(directory / "self.sock", limit=_READ)
                    except (FileNotFoundError, ConnectionRefusedError):
                        await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise DeadlinePassed(
                "the engine did not open its socket", tell="this node's engine did not start"
            ) from None
        except OSError as error:
            raise Unavailable(f"the engine's socket: {error.strerror or error}") from None


async def pump(stream: SealedStream, reader: Reader, writer: Writer) -> None:
    """Carry bytes both ways until both directions have ended, each with its own EOF.

    Raises:
        PartyFailed: the connection was cut.
        ProtocolFailed: the peer sent something else than bytes.
    """
    outward = asyncio.create_task(_send(stream, reader))
    inward = asyncio.create_task(_receive(stream, writer))
    try:
        done, _ = await asyncio.wait({outward, inward}, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            await task
        writer.close()
        with contextlib.suppress(ConnectionError):  # the engine has gone already
            await writer.wait_closed()  # what it has not read yet is still to be delivered
    finally:
        outward.cancel()
        inward.cancel()
        await asyncio.gather(outward, inward, return_exceptions=True)
        writer.transport.abort()


async def _send(stream: SealedStream, reader: Reader) -> None:
    while data := await _read(reader):
        await stream.send(RecordType.DATA, data)
    await stream.send(RecordType.EOF)


async def _read(reader: Reader) -> bytes:
    try:
        return await reader.read(_READ)
    except ConnectionError:
        return b""  # the engine died: its end of the bytes; the job's message says the rest


async def _receive(stream: SealedStream, writer: Writer) -> None:
    is_listening = True
    while True:
        kind, body = await stream.receive()
        if kind is RecordType.EOF:
            break
        if kind is not RecordType.DATA:
            raise ProtocolFailed(f"{stream.peer} sent a {kind.name} record on an engine link", party=stream.peer)
        if is_listening:
            is_listening = await _pass_on(writer, body)
    if is_listening and not writer.is_closing():
        with contextlib.suppress(OSError):  # it has closed at this moment
            writer.write_eof()


async def _pass_on(writer: Writer, body: bytes) -> bool:
    """Whether the engine still listens; if it does not, the peer's bytes are read and dropped until it notices."""
    try:
        writer.write(body)
        await writer.drain()
    except ConnectionError:
        return False
    return True
