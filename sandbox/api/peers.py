"""PeerService: what other nodes ask. Only pinned peers get in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from sandbox import registry, signed, wire
from sandbox.api.consents import Consents
from sandbox.api.edge import Edge
from sandbox.api.post import Post
from sandbox.api.scenarios import Scenarios
from sandbox.errors import PolicyRefused, SandboxError
from sandbox.exchange import Exchange
from sandbox.model import ChallengeNotice, PingQuery, Proposal, ScenarioBundle, SealedWithdrawal, Signed
from sandbox.pipeline import Pipeline
from sandbox.v1 import peer_pb2, peer_pb2_grpc

PEERS = frozenset({registry.PEER})
_PREFIX = "/sandbox.v1.PeerService/"


class Peers(peer_pb2_grpc.PeerServiceServicer):
    """The other nodes' door."""

    def __init__(
        self,
        edge: Edge,
        pipeline: Pipeline,
        exchange: Exchange,
        scenarios: Scenarios,
        consents: Consents,
        post: Post,
    ) -> None:
        self._edge, self._pipeline, self._exchange, self._scenarios = edge, pipeline, exchange, scenarios
        self._consents, self._post = consents, post

    async def Propose(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Decide by this node's own rules whether it takes part."""

        async def propose() -> Any:
            opened = await asyncio.to_thread(self._edge.open, request, _PREFIX + "Propose", Proposal, PEERS)
            try:
                acceptance = await self._pipeline.take_part(opened.caller.name, opened.body, opened.remember)
            except PolicyRefused as error:
                raise PolicyRefused(
                    str(error), party=self._edge.node_id, stage="propose"
                ) from None  # the reason stays here
            return peer_pb2.ProposeResponse(acceptance=wire.to_proto(acceptance))

        return await self._edge.unary(context, propose)

    async def Grant(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Take another data owner's leave to reveal."""

        async def grant() -> Any:
            opened = await asyncio.to_thread(self._edge.open, request, _PREFIX + "Grant", Signed, PEERS)
            await asyncio.to_thread(self._edge.spend_nonce, opened, False)
            statement, is_new = await self._exchange.take_grant(opened.caller.name, opened.body)
            self._pipeline.told(statement, is_new)
            return peer_pb2.GrantResponse()

        return await self._edge.unary(context, grant)

    async def Share(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Take a scenario with what the sender knows of it."""

        async def share() -> Any:
            opened = await asyncio.to_thread(self._edge.open, request, _PREFIX + "Share", ScenarioBundle, PEERS)
            await asyncio.to_thread(self._edge.spend_nonce, opened, False)
            held = await self._scenarios.take(opened.caller.name, opened.body)
            return peer_pb2.ShareResponse(approvals=[wire.to_proto(item) for item in held])

        return await self._edge.unary(context, share)

    async def Challenge(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Take what an owner asks this node's people for."""

        async def challenge() -> Any:
            method = _PREFIX + "Challenge"
            opened = await asyncio.to_thread(self._edge.open, request, method, ChallengeNotice, PEERS)
            await asyncio.to_thread(self._edge.spend_nonce, opened, False)
            await self._post.take_challenge(opened.caller.name, opened.body)
            return peer_pb2.ChallengeResponse()

        return await self._edge.unary(context, challenge)

    async def Produce(self, requests: AsyncIterator[Any], context: Any) -> Any:  # noqa: N802
        """Take a letter that this node asked for."""

        async def produce() -> Any:
            opened, _, sealed = await self._consents.receive(
                requests, _PREFIX + "Produce", PEERS, lambda _, asked, by: asked.is_own and asked.party == by.name
            )
            await self._post.take_letter(opened.caller.name, opened.body, sealed)
            return peer_pb2.ProduceResponse()

        return await self._edge.unary(context, produce)

    async def Withdraw(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Take a person's withdrawal of consent."""

        async def withdraw() -> Any:
            method = _PREFIX + "Withdraw"
            opened = await asyncio.to_thread(self._edge.open, request, method, SealedWithdrawal, PEERS)
            await self._post.take_withdrawal(opened.caller.name, opened.body, opened.remember, is_from_peer=True)
            return peer_pb2.WithdrawResponse()

        return await self._edge.unary(context, withdraw)

    async def Ping(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Tell the time, and whether the caller can be reached from here."""

        async def ping() -> Any:
            opened = await asyncio.to_thread(self._edge.open, request, _PREFIX + "Ping", PingQuery, PEERS)
            await asyncio.to_thread(self._edge.spend_nonce, opened, False)
            problem = ""
            if opened.body.call_back:
                try:
                    await self._exchange.links.check(opened.caller.name)
                except SandboxError as error:
                    problem = error.tell
            return peer_pb2.PingResponse(time_ms=signed.now_ms(), problem=problem)

        return await self._edge.unary(context, ping)

    async def Channel(self, request_iterator: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Sealed records of one connection."""
        async for part in self._edge.stream(context, self._exchange.links.serve_channel(request_iterator, context)):
            yield part
