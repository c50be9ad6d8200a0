"""gRPC between nodes: one channel a peer, and the frames of one Channel stream at either end.

Security:  mutual TLS. A node trusts, as the root of a connection, the one certificate pinned for that peer; the server
           asks for a client certificate it knows. A channel is dropped at once when the peer's card changes.
Units:     milliseconds in gRPC's options. Lost links show after 5 s + 3 s by keepalive; a refused connection is tried
           again after 50 to 500 ms. The least reconnect time is also gRPC's connect timeout, hence not 50 ms.
Errors:    a transport that ends is ``None`` to a reader and ``PartyFailed`` to a writer.
Not here:  what the frames mean (``channel``), who calls (``links``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc
import grpc.aio
from google.protobuf import descriptor_pool, message_factory

from sandbox.errors import InvalidSpec, PartyFailed
from sandbox.keyring import NodeKeys
from sandbox.model import PeerCard
from sandbox.peer.channel import SealedStream
from sandbox.peer.failures import from_rpc, has_reason
from sandbox.v1.peer_pb2 import ChannelRequest, ChannelResponse

_MESSAGE: Final = 16 << 20  # bytes
_SIZES: Final = [("grpc.max_send_message_length", _MESSAGE), ("grpc.max_receive_message_length", _MESSAGE)]
_ALIVE: Final = [
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.http2.max_pings_without_data", 0),
]
SERVER_OPTIONS: Final = [
    *_SIZES,
    *_ALIVE,
    # Without this a server takes the keepalive of its peers for abuse and hangs up.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 2000),
    ("grpc.max_concurrent_streams", 1024),
    ("grpc.so_reuseport", 0),  # two nodes on one port would each get half of the calls
]
_CLIENT_OPTIONS: Final = [
    *_SIZES,
    *_ALIVE,
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 10_000),
    ("grpc.enable_retries", 0),  # a retry is signed afresh, see ``Links.call``
    ("grpc.enable_http_proxy", 0),  # a proxy in the environment is not for traffic between nodes
    ("grpc.use_local_subchannel_pool", 1),
]
_ROOM: Final = 4  # frames of at most 1 MiB on their way from a stream to gRPC


def server_credentials(keys: NodeKeys, certificates: Callable[[], Iterable[bytes]]) -> grpc.ServerCredentials:
    """Return credentials that ask for a client certificate among ``certificates()``, asked anew at every connection.

    The callable runs in a thread of gRPC's: it must be quick and must not raise.
    """

    def fetch() -> grpc.ServerCertificateConfiguration:
        roots = b"".join(certificates()) or keys.tls_certificate
        return grpc.ssl_server_certificate_configuration([(keys.tls_key, keys.tls_certificate)], roots)

    return grpc.dynamic_ssl_server_credentials(fetch(), fetch, require_client_authentication=True)


class Channels:
    """The open gRPC channels of a node, one a peer, each on the loop it was made on."""

    def __init__(self, keys: NodeKeys) -> None:
        self._keys = keys
        self._open: dict[str, tuple[PeerCard, asyncio.AbstractEventLoop, grpc.aio.Channel]] = {}

    async def get(self, card: PeerCard) -> grpc.aio.Channel:
        """Return the channel to the node of ``card``."""
        loop = asyncio.get_running_loop()
        known = self._open.get(card.node_id)
        if known is not None and known[0] == card and known[1] is loop:
            return known[2]
        channel = grpc.aio.secure_channel(
            card.address,
            grpc.ssl_channel_credentials(card.tls_certificate, self._keys.tls_key, self._keys.tls_certificate),
            options=[*_CLIENT_OPTIONS, ("grpc.ssl_target_name_override", card.node_id)],
        )
        self._open[card.node_id] = (card, loop, channel)
        if known is not None and known[1] is loop:
            await known[2].close(None)
        return channel

    async def close(self) -> None:
        """Close those of the running loop; those of a loop that has ended are gone already."""
        here = asyncio.get_running_loop()
        mine = [channel for _, loop, channel in self._open.values() if loop is here]
        self._open.clear()
        await asyncio.gather(*(channel.close(None) for channel in mine))


class Frames(Protocol):
    """One end of a Channel stream."""

    async def read(self) -> bytes | None:
        """Return the next frame; None when there will be none."""

    async def write(self, frame: bytes) -> None:
        """Send a frame, or wait for room."""

    async def done(self) -> None:
        """Nothing more from this side. At the answering end this ends the stream."""

    def cancel(self) -> None:
        """Let go at once."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A stream after its handshake."""

    peer: str
    stream: SealedStream
    frames: Frames


class CallerFrames:
    """The calling end."""

    def __init__(self, call: Any, peer: str) -> None:
        self._call, self._peer = call, peer

    async def read(self) -> bytes | None:
        """Return the next frame; a refusal in the trailer is raised, any other end is None."""
        try:
            response = await self._call.read()
        except grpc.aio.AioRpcError as error:
            if has_reason(error):
                raise from_rpc(error, self._peer) from None
            return None
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            return None  # the channel was closed under the call
        return response.record if isinstance(response, ChannelResponse) else None

    async def write(self, frame: bytes) -> None:
        """Send a frame."""
        try:
            await self._call.write(ChannelRequest(record=frame))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            raise _ended(self._peer) from None
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            raise _ended(self._peer) from None

    async def done(self) -> None:
        """Half-close; a call that is over has nothing left to close."""
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._call.done_writing()

    def cancel(self) -> None:
        """Reset the stream."""
        self._call.cancel()


class AnswererFrames:
    """The answering end: what is written waits in a short queue until gRPC asks for it."""

    def __init__(self, requests: AsyncIterator[ChannelRequest], peer: str) -> None:
        self._requests, self._peer = requests, peer
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(_ROOM)
        self._gone = asyncio.Event()

    async def read(self) -> bytes | None:
        """Return the next frame."""
        if self._gone.is_set():
            return None
        try:
            return (await anext(self._requests)).record
        except (StopAsyncIteration, grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError):
            return None

    async def write(self, frame: bytes) -> None:
        """Queue a frame."""
        if self._gone.is_set():
            raise _ended(self._peer)
        await self._queue.put(frame)

    async def done(self) -> None:
        """End the stream after what is queued."""
        if not self._gone.is_set():
            await self._queue.put(None)

    def cancel(self) -> None:
        """End the stream now."""
        self._gone.set()
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    async def responses(self) -> AsyncIterator[ChannelResponse]:
        """Yield what is written until ``done``; whoever stops asking has gone."""
        try:
            while (frame := await self._queue.get()) is not None:
                yield ChannelResponse(record=frame)
        finally:
            self.cancel()


def messages(method: str) -> tuple[Any, Any]:
    """Return the request and response classes of a method such as ``/sandbox.v1.PeerService/Propose``.

    Raises:
        InvalidSpec: there is no such method.
    """
    try:
        found = descriptor_pool.Default().FindMethodByName(method.lstrip("/").replace("/", "."))
    except KeyError:
        raise InvalidSpec(f"no method {method}") from None
    make = message_factory.GetMessageClass
    return make(found.input_type), make(found.output_type)


def is_cancelled() -> bool:
    """Whether somebody cancels the running task: gRPC raises the same for a call whose channel is closed."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _ended(peer: str) -> PartyFailed:
    return PartyFailed(tell=f"{peer} ended its connection", party=peer)
