"""One CONTROL connection: what two nodes tell each other while a job runs, and whether the other is still there.

    writer   outbox -> MESSAGE records; HEARTBEAT when there is nothing to say; EOF at the end
    reader   records -> inbox, by label; "abort" ends the job
    watch    no record for a while: the peer went silent

Security:  what waits here is bounded (``mailbox``). A full inbox stops the reader, so a peer that floods waits for us.
Errors:    told once, through ``fail``: the peer's own failure, ``PartyFailed`` where it ended or went silent,
           ``ProtocolFailed`` and ``IntegrityFailed`` from the records.
Not here:  who connects to whom, and which cause wins (``job``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from sandbox import wire
from sandbox.errors import (
    DeadlinePassed,
    InvalidSpec,
    JobFailed,
    PartyFailed,
    ProtocolFailed,
    SandboxError,
    WrongState,
)
from sandbox.model import ControlMessage, Failure
from sandbox.peer.channel import MESSAGE_LIMIT, RecordType
from sandbox.peer.failures import error_of
from sandbox.peer.mailbox import Mailbox
from sandbox.peer.transport import Connection

ABORT: Final = "abort"

_OUTBOX: Final = 16 << 20  # bytes waiting to be sent to one peer
_INBOX: Final = 64 << 20  # bytes one peer may have sent that nobody has asked for yet
_ONLY: Final = ""  # the outbox knows one label
_WORDS: Final = {
    "ready": "word that it is ready",
    "terms": "its opened terms",
    "engine": "the end of its engine",
    "share": "its last share",
    "trail": "its audit trail",
}

log = logging.getLogger(__name__)


class ControlLink:
    """One peer of one job."""

    def __init__(
        self, connection: Connection, heartbeat_s: float, silence_s: float, fail: Callable[[SandboxError], None]
    ) -> None:
        self.peer = connection.peer
        self.told = False  # the peer said that it stopped: nothing to tell it any more
        self._stream, self._frames = connection.stream, connection.frames
        self._heartbeat_s, self._silence_s, self._fail = heartbeat_s, silence_s, fail
        self._outbox, self._inbox = Mailbox(_OUTBOX), Mailbox(_INBOX)
        self._heard = asyncio.get_running_loop().time()
        self._is_full = False
        self._end = WrongState("this side has finished")
        self._writer = asyncio.create_task(self._guard(self._write()))
        self._reader = asyncio.create_task(self._follow())
        self._watch = asyncio.create_task(self._guard(self._listen()))

    @property
    def traffic(self) -> int:
        """Bytes of sealed records, both ways."""
        return self._stream.traffic

    @property
    def ended(self) -> asyncio.Task[None]:
        """Done when both sides have said their last, or something failed."""
        return self._reader

    async def send(self, label: str, body: bytes) -> None:
        """Queue one message, waiting for room.

        Raises:
            InvalidSpec: it is too long for a message.
        """
        if len(body) > MESSAGE_LIMIT:
            raise InvalidSpec(f"a {label} message has {len(body)} bytes; at most {MESSAGE_LIMIT} are allowed")
        await self._outbox.put(_ONLY, wire.encode(ControlMessage(label, body)))

    async def recv(self, label: str, timeout_s: float) -> bytes:
        """Return the next message under ``label``.

        Raises:
            DeadlinePassed: it did not come in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._inbox.get(label)
        except TimeoutError:
            words = _WORDS.get(label.partition("/")[0], f"“{label}”")
            raise DeadlinePassed(
                f"no {label} from {self.peer} within {timeout_s} s",
                tell=f"{self.peer} did not send {words} in time",
                party=self.peer,
            ) from None

    def finish(self) -> None:
        """Send EOF after what is queued."""
        self._outbox.end(self._end)

    def close(self, error: SandboxError) -> None:
        """Whoever waits here, or comes later, gets ``error``; nothing more is queued."""
        self._outbox.close(error)
        self._inbox.close(error)

    async def abort(self, failure: Failure) -> None:
        """Tell the peer that this side stopped, and wait for it to let go. The caller bounds the time."""
        await asyncio.wait({self._writer})  # its outbox is closed: it ends after the message it is sending
        if self.told or self._stream.is_cut or self._stream.said_eof:
            return
        with contextlib.suppress(PartyFailed):  # it may have gone by itself
            await self._stream.send(RecordType.MESSAGE, wire.encode(ControlMessage(ABORT, wire.encode(failure))))
            await self._stream.send(RecordType.EOF)
            await self._frames.done()
            await asyncio.wait({self._reader})
            while not self._stream.is_cut and await self._frames.read() is not None:
                pass  # what the reader left: gRPC ends a stream only when it was read

    async def leave(self) -> None:
        """Let go of the connection and its tasks."""
        tasks = (self._writer, self._reader, self._watch)
        for task in tasks:
            task.cancel()
        self._frames.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except SandboxError as error:
            self._fail(error)
        except Exception as error:
            log.error("a link with %s failed inside: %s", self.peer, type(error).__name__)
            self._fail(JobFailed(f"{type(error).__name__} in a link with {self.peer}"))

    async def _write(self) -> None:
        # A connection that has ended is the reader's to report: it may hold the peer's reason.
        with contextlib.suppress(PartyFailed):
            while True:
                try:
                    async with asyncio.timeout(self._heartbeat_s):
                        message = await self._outbox.get(_ONLY)
                except TimeoutError:
                    await self._stream.send(RecordType.HEARTBEAT)
                except SandboxError as error:
                    if error is self._end:
                        await self._stream.send(RecordType.EOF)
                    return  # closed: whoever closed it has told why
                else:
                    await self._stream.send(RecordType.MESSAGE, message)

    async def _follow(self) -> None:
        await self._guard(self._read())
        if self.told:
            await self._frames.done()  # the peer waits for this side to let go

    async def _read(self) -> None:
        try:
            await self._take()
        finally:
            self._watch.cancel()
        drained = asyncio.create_task(self._stream.drain())
        try:
            await asyncio.wait({drained, self._writer}, return_when=asyncio.FIRST_COMPLETED)
            if not self._stream.said_eof:
                raise PartyFailed(tell=f"{self.peer} ended its connection", party=self.peer)
            await self._frames.done()
            await drained
        finally:
            drained.cancel()

    async def _take(self) -> None:
        parts: list[bytes] = []
        while True:
            kind, body = await self._stream.receive()
            self._heard = asyncio.get_running_loop().time()
            if kind is RecordType.HEARTBEAT:
                continue
            if kind is RecordType.EOF:
                self._inbox.end(PartyFailed(tell=f"{self.peer} finished without what was expected", party=self.peer))
                return
            parts.append(body)
            if kind is RecordType.MESSAGE:
                await self._deliver(wire.decode(ControlMessage, b"".join(parts)))
                parts.clear()
            elif sum(map(len, parts)) > MESSAGE_LIMIT + 128:
                raise ProtocolFailed(f"{self.peer} sent a message without end", party=self.peer)

    async def _deliver(self, message: ControlMessage) -> None:
        if message.label == ABORT:
            self.told = True
            raise _stopped(self.peer, message.body)
        self._is_full = True
        with contextlib.suppress(SandboxError):  # this side has stopped: read on, to see the end
            await self._inbox.put(message.label, message.body)
        self._is_full = False
        self._heard = asyncio.get_running_loop().time()

    async def _listen(self) -> None:
        loop, step = asyncio.get_running_loop(), min(self._heartbeat_s, self._silence_s / 4)
        while True:
            before = loop.time()
            await asyncio.sleep(step)
            # What this side itself slept through, or did not read for want of room, is not the peer's silence.
            self._heard += max(0.0, loop.time() - before - 2 * step)
            if not self._is_full and loop.time() - self._heard > self._silence_s:
                raise PartyFailed(
                    f"no record from {self.peer} for {self._silence_s} s",
                    tell=f"{self.peer} went silent",
                    party=self.peer,
                )


def _stopped(peer: str, told: bytes) -> PartyFailed:
    """The peer's own public failure, in ours; its class stays as the cause."""
    try:
        inner = error_of(wire.decode(Failure, told))
    except InvalidSpec:
        inner = PartyFailed(tell=f"{peer} stopped without a reason")
    error = PartyFailed(
        f"{peer} stopped: {type(inner).__name__}: {inner.tell}",
        tell=inner.tell,
        party=inner.party or peer,
        stage=inner.stage,
        hint=inner.hint,
    )
    error.__cause__ = inner
    return error
