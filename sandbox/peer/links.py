"""Stub: signatures only, body follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc.aio

from sandbox.errors import SandboxError
from sandbox.keyring import NodeKeys
from sandbox.model import CosignQuery, Failure, PeerCard, Proposal, ScenarioBundle, SealMode, Signed
from sandbox.v1.peer_pb2 import ChannelRequest, ChannelResponse


class Links:
    """Everything between this node and its peers."""

    def __init__(
        self,
        node_id: str,
        keys: NodeKeys,
        peers: Callable[[str], PeerCard],
        seal: Callable[[str], SealMode],
        heartbeat_s: float = 2.0,
        silence_s: float = 10.0,
    ) -> None:
        raise NotImplementedError

    async def call(self, node_id: str, method: str, body: object, timeout_s: float = 20.0) -> Any:
        """One signed unary call; returns the response message."""
        raise NotImplementedError

    async def propose(self, node_id: str, proposal: Proposal, timeout_s: float) -> Signed:
        """Return the peer's signed acceptance."""
        raise NotImplementedError

    async def grant(self, node_id: str, grant: Signed) -> None:
        """Hand over a signed grant."""
        raise NotImplementedError

    async def share(self, node_id: str, bundle: ScenarioBundle) -> tuple[Signed, ...]:
        """Hand over a scenario; return the approvals the peer holds."""
        raise NotImplementedError

    async def cosign(self, node_id: str, query: CosignQuery) -> tuple[bytes, int]:
        """Return the co-signature, or the size to prove consistency from."""
        raise NotImplementedError

    def job(self, job_id: str, parties: Sequence[str], stage: Callable[[], str]) -> JobLinks:
        """Open the connections of one job (async context manager)."""
        raise NotImplementedError

    def serve_channel(
        self, requests: AsyncIterator[ChannelRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[ChannelResponse]:
        """Serve PeerService.Channel (an async generator)."""
        raise NotImplementedError

    async def check(self, node_id: str) -> None:
        """Reachability and pinned certificate."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close every channel."""
        raise NotImplementedError


class JobLinks:
    """The connections of one job with all its other parties."""

    broken: asyncio.Future[SandboxError]
    traffic: int

    async def __aenter__(self) -> JobLinks:
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError

    async def send(self, peer: str, label: str, body: bytes = b"") -> None:
        """Send one message."""
        raise NotImplementedError

    async def recv(self, peer: str, label: str, timeout_s: float) -> bytes:
        """Return the next message with this label."""
        raise NotImplementedError

    async def broadcast(self, label: str, body: bytes = b"") -> None:
        """Send to every other party."""
        raise NotImplementedError

    async def abort(self, failure: Failure) -> None:
        """Tell all peers that this side stopped, then close."""
        raise NotImplementedError

    async def relay(self, directory: Path) -> None:
        """Carry engine links between unix sockets."""
        raise NotImplementedError

    async def finish(self) -> None:
        """End in order: EOF both ways."""
        raise NotImplementedError
