"""Sealed records over one connection.

    frame (sm4) = type byte || SM4-GCM(body)             nonce: sender || 64-bit counter, AAD: connection, sender, type
    frame (tls) = type byte || 64-bit counter || body    inside TLS, which encrypts; counted all the same

    DATA       bytes of an engine, or the beginning of a message too long for one record
    MESSAGE    a message, or its end
    HEARTBEAT  "I am here"; also the first record each way, which proves that both sides have the keys
    EOF        nothing follows in this direction. A stream that ends without it was cut: ``PartyFailed``

Security:  a record lost, repeated, moved, from another connection, direction or type does not open. One task seals and
           writes, one reads and opens, so the order sealed is the order sent.
Reveals:   to an observer inside TLS: the number, types and sizes of records. Outside TLS only its volume.
Shapes:    a body is at most 1 MiB, a message at most 8 MiB. Where OpenSSL seals, it seals more than 64 KiB in a thread;
           less is not worth the switch, nor is any record where our own code does.
Errors:    ``PartyFailed`` on a cut stream, ``IntegrityFailed`` on a record that does not open, ``ProtocolFailed`` on
           one that has no business there. All name the peer.
Not here:  gRPC (``transport``), who the peer is (``handshake``), what messages mean (``control``, ``relay``).
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Final

from sandbox.crypto.sm4 import BACKEND, TAG_SIZE, RecordOpener, RecordSealer
from sandbox.errors import IntegrityFailed, PartyFailed, ProtocolFailed
from sandbox.model import SealMode
from sandbox.peer.handshake import Session

RECORD_LIMIT: Final = 1 << 20  # bytes of one body
MESSAGE_LIMIT: Final = 8 << 20  # bytes of one message; ``wire`` parses no larger one

_THREAD_FROM: Final = 1 << 16 if BACKEND == "openssl" else RECORD_LIMIT  # bytes; 0.4 ms a record with "gfni"
_CALLER: Final = b"call"
_ANSWERER: Final = b"answ"
_COUNTER: Final = 8  # bytes

Read = Callable[[], Awaitable[bytes | None]]
Write = Callable[[bytes], Awaitable[None]]


class RecordType(enum.IntEnum):
    """What a record is."""

    DATA = 1
    EOF = 2
    HEARTBEAT = 3
    MESSAGE = 4


class SealedStream:
    """One connection's records. ``read`` returns a frame, or None when the other end is gone; ``write`` takes one.

    At most one task may send and one receive.
    """

    def __init__(self, session: Session, read: Read, write: Write, threads: Executor | None = None) -> None:
        """Args:
        session: keys and names, from the handshake.
        read: next frame, or None at the end of the transport.
        write: send one frame; returns when there is room for another.
        threads: where large records are sealed; None means the loop's own.
        """
        self.peer, self.traffic = session.peer, 0
        self._connection, self._read, self._write, self._threads = session.connection, read, write, threads
        self._sender, self._other = (_CALLER, _ANSWERER) if session.is_caller else (_ANSWERER, _CALLER)
        sealed = session.seal is SealMode.SM4
        self._sealer = RecordSealer(session.send_key, self._sender) if sealed else None
        self._opener = RecordOpener(session.receive_key, self._other) if sealed else None
        self._sent, self._received = 0, 0
        self.said_eof, self.heard_eof, self.is_cut = False, False, False

    async def confirm(self) -> None:
        """Exchange first records: afterwards both sides know that the other has the keys."""
        await self.send(RecordType.HEARTBEAT)
        kind, _ = await self.receive()
        if kind is not RecordType.HEARTBEAT:
            raise ProtocolFailed(f"{self.peer} began with a {kind.name} record", party=self.peer)

    async def send(self, kind: RecordType, body: bytes = b"") -> None:
        """Send ``body`` as one record, or as DATA records and a last one of ``kind``."""
        rest = memoryview(body)
        while len(rest) > RECORD_LIMIT:
            await self._send(RecordType.DATA, bytes(rest[:RECORD_LIMIT]))
            rest = rest[RECORD_LIMIT:]
        await self._send(kind, body if len(rest) == len(body) else bytes(rest))

    async def receive(self) -> tuple[RecordType, bytes]:
        """Return the next record.

        Raises:
            PartyFailed: the stream ended without EOF.
            IntegrityFailed: the record does not open, or is not the next one.
            ProtocolFailed: it has no such type, is too long, or comes after EOF.
        """
        frame = await self._read()
        if frame is None:
            self.is_cut = True
            raise PartyFailed(tell=f"{self.peer} ended its connection", party=self.peer)
        kind, body = self._split(frame)
        self.traffic += len(frame)
        body = await self._open(kind, body)
        if self.heard_eof or (body and kind in (RecordType.EOF, RecordType.HEARTBEAT)):
            raise ProtocolFailed(f"{self.peer} sent a {kind.name} record out of place", party=self.peer)
        self.heard_eof = kind is RecordType.EOF
        return kind, body

    async def drain(self) -> None:
        """After EOF: wait until the other end has closed.

        Raises:
            ProtocolFailed: something came after EOF.
        """
        if await self._read() is not None:
            raise ProtocolFailed(f"{self.peer} sent a record after its last", party=self.peer)

    async def _send(self, kind: RecordType, body: bytes) -> None:
        if self.said_eof:
            raise ProtocolFailed("this side sends after its own EOF")
        self.said_eof = kind is RecordType.EOF
        if self._sealer is None:
            frame = bytes([kind]) + self._sent.to_bytes(_COUNTER, "big") + body
        else:
            frame = bytes([kind]) + await self._work(self._sealer.seal, body, self._bound(self._sender, kind))
        self._sent += 1
        self.traffic += len(frame)
        await self._write(frame)

    async def _open(self, kind: RecordType, body: bytes) -> bytes:
        if self._opener is not None:
            try:
                return await self._work(self._opener.open, body, self._bound(self._other, kind))
            except IntegrityFailed as error:
                raise IntegrityFailed(f"a record from {self.peer}: {error}", party=self.peer) from None
        if body[:_COUNTER] != self._received.to_bytes(_COUNTER, "big"):
            raise IntegrityFailed(f"a record from {self.peer} is not the next one", party=self.peer)
        self._received += 1
        return body[_COUNTER:]

    async def _work(self, function: Callable[[bytes, bytes], bytes], body: bytes, bound: bytes) -> bytes:
        if len(body) <= _THREAD_FROM:
            return function(body, bound)
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, body, bound)

    def _bound(self, sender: bytes, kind: RecordType) -> bytes:
        return self._connection + sender + bytes([kind])

    def _split(self, frame: bytes) -> tuple[RecordType, bytes]:
        extra = _COUNTER if self._opener is None else TAG_SIZE
        if not 1 + extra <= len(frame) <= 1 + extra + RECORD_LIMIT:
            raise ProtocolFailed(f"{self.peer} sent a frame of {len(frame)} bytes", party=self.peer)
        try:
            return RecordType(frame[0]), frame[1:]
        except ValueError:
            raise ProtocolFailed(f"{self.peer} sent a record of type {frame[0]}", party=self.peer) from None
