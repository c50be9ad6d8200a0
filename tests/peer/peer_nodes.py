"""Nodes for the tests: real keys, real gRPC servers with mutual TLS on loopback, only the Channel service behind."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from sandbox import keyring, signed
from sandbox.errors import NotFound
from sandbox.keyring import NodeKeys
from sandbox.model import PeerCard, SealMode
from sandbox.peer.links import Links
from sandbox.peer.transport import SERVER_OPTIONS, server_credentials
from sandbox.v1 import peer_pb2_grpc

JOB = "0123456789abcdef" * 2


@dataclass
class Settings:
    """What a test may set differently from the product."""

    seal: Callable[[str], SealMode] = lambda _: SealMode.SM4
    heartbeat_s: float = 0.1
    silence_s: float = 5.0


class Servicer(peer_pb2_grpc.PeerServiceServicer):
    def __init__(self, links: Links) -> None:
        self._links = links

    async def Channel(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        async for response in self._links.serve_channel(request_iterator, context):
            yield response


@dataclass
class Node:
    """One node: keys, links, server."""

    name: str
    keys: NodeKeys
    links: Links
    server: grpc.aio.Server
    port: int
    cards: dict[str, PeerCard] = field(default_factory=dict)

    @property
    def card(self) -> PeerCard:
        return signed.open_peer_card(self.keys.card(self.name, self.name, f"127.0.0.1:{self.port}"))


def make_keys(name: str) -> NodeKeys:
    with tempfile.TemporaryDirectory() as folder:
        return keyring.create_node(Path(folder) / "keys", name)


async def start(name: str, settings: Settings, keys: NodeKeys | None = None, port: int = 0) -> Node:
    keys = keys or make_keys(name)
    cards: dict[str, PeerCard] = {}

    def peer(node_id: str) -> PeerCard:
        if node_id not in cards:
            raise NotFound(f"{node_id} is no peer")
        return cards[node_id]

    links = Links(name, keys, peer, settings.seal, settings.heartbeat_s, settings.silence_s)
    server = grpc.aio.server(options=SERVER_OPTIONS)
    peer_pb2_grpc.add_PeerServiceServicer_to_server(Servicer(links), server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    await checks.set("", health_pb2.HealthCheckResponse.SERVING)
    credentials = server_credentials(keys, lambda: [card.tls_certificate for card in cards.values()])
    bound = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    await server.start()
    return Node(name, keys, links, server, bound, cards)


def introduce(*nodes: Node) -> None:
    for node in nodes:
        node.cards.update({other.name: other.card for other in nodes if other is not node})


@contextlib.asynccontextmanager
async def running(*names: str, **settings: Settings) -> AsyncIterator[list[Node]]:
    nodes = [await start(name, settings.get(name, Settings())) for name in names]
    introduce(*nodes)
    try:
        yield nodes
    finally:
        for node in nodes:
            await node.links.close()
        for node in nodes:
            await node.server.stop(0)


@contextlib.asynccontextmanager
async def joined(*nodes: Node, job: str = JOB) -> AsyncIterator[list[Any]]:
    """Every node's links of one job, entered at the same time, left at the same time."""
    names = [node.name for node in nodes]
    jobs = [node.links.job(job, names, lambda: "align") for node in nodes]
    await asyncio.gather(*(each.__aenter__() for each in jobs))
    try:
        yield jobs
    finally:
        await asyncio.gather(*(each.__aexit__(None, None, None) for each in jobs))
