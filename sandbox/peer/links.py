"""Everything between this node and its peers: signed calls, and the connections of jobs.

    links = Links(node_id, keys, peers, seal)            one a node
    await links.propose("bank", proposal, 20.0)          one signed call, tried again while the peer cannot be reached
    async with links.job(id, parties, stage) as job:     see ``job``
    links.serve_channel(requests, context)               the server's side, for the servicer of PeerService.Channel

Security:  every call is signed for its audience, and afresh at each try. A connection is accepted when its TLS client
           certificate and its hello are both the pinned peer's, the hello was not seen before, and the job it names is
           open here with that peer among its parties.
Errors:    ours only, naming the peer; see ``failures``.
Not here:  the services themselves (``api``), who the peers are (``catalog`` of cards, ``store``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sandbox import signed, wire
from sandbox.crypto.tls import fingerprint
from sandbox.errors import (
    Cancelled,
    DeadlinePassed,
    InvalidSpec,
    PartyFailed,
    SandboxError,
    Unauthenticated,
    Unavailable,
)
from sandbox.keyring import NodeKeys, public_key
from sandbox.model import (
    Acceptance,
    ChannelPurpose,
    CosignQuery,
    Hello,
    PeerCard,
    Proposal,
    ScenarioBundle,
    SealMode,
    Signed,
)
from sandbox.peer.channel import SealedStream
from sandbox.peer.failures import failure_of, from_rpc, refuse
from sandbox.peer.handshake import STAGE, Caller, Seen, Session, Terms, answer
from sandbox.peer.job import CONNECT_S, JobLinks, Rules
from sandbox.peer.openings import Openings
from sandbox.peer.transport import AnswererFrames, CallerFrames, Channels, Connection, Frames, is_cancelled, messages
from sandbox.v1 import peer_pb2_grpc
from sandbox.v1.peer_pb2 import ChannelRequest, ChannelResponse

__all__ = ["JobLinks", "Links"]

_PEER: Final = "/sandbox.v1.PeerService/"
_PAUSE_S: Final = (0.05, 0.5)  # between tries: at first, at most
_DIAL_S: Final = CONNECT_S - 0.5  # so that the dialler says why before the job says that
_THREADS: Final = 4  # sealing large records


class Links:
    """This node's links to its peers. All methods belong to the event loop it is first used on."""

    def __init__(
        self,
        node_id: str,
        keys: NodeKeys,
        peers: Callable[[str], PeerCard],
        seal: Callable[[str], SealMode],
        heartbeat_s: float = 2.0,
        silence_s: float = 10.0,
    ) -> None:
        """Args:
        node_id: this node's name.
        keys: its private keys.
        peers: the pinned card of a node; raises ``NotFound``.
        seal: how the link to a node is sealed.
        heartbeat_s: seconds between records when there is nothing to say.
        silence_s: seconds without any record after which a peer counts as lost.
        """
        self._node_id, self._keys, self._peers, self._seal = node_id, keys, peers, seal
        self._certificate = fingerprint(keys.tls_certificate)
        self._channels = Channels(keys)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="seal")
        self._open = Openings()
        self._rules = Rules(node_id, heartbeat_s, silence_s, self._dial, self._open.add, self._open.remove)
        self._seen = Seen()

    async def call(self, node_id: str, method: str, body: object, timeout_s: float = 20.0) -> Any:
        """Make one signed unary call and return the response message.

        Raises:
            PartyFailed: the node cannot be reached in ``timeout_s``, or broke off.
            SandboxError: what it answered.
        """
        request, response = messages(method)
        loop = asyncio.get_running_loop()
        end, pause = loop.time() + timeout_s, _PAUSE_S[0]
        while True:
            card = self._peers(node_id)
            unary = (await self._channels.get(card)).unary_unary(
                method, request_serializer=request.SerializeToString, response_deserializer=response.FromString
            )
            call = signed.sign_call(self._keys.identity, node_id, method, body)
            try:
                return await unary(request(signed=wire.to_proto(call)), timeout=max(end - loop.time(), 0.001))
            except grpc.aio.AioRpcError as error:
                told = from_rpc(error, node_id, card.address)
                lost = error.code() is grpc.StatusCode.UNAVAILABLE and isinstance(told, PartyFailed)
            except asyncio.CancelledError:
                if is_cancelled():
                    raise
                raise Cancelled(tell=f"the link to {node_id} was closed", party=node_id) from None
            if not lost or loop.time() + pause >= end:
                raise told from None
            await asyncio.sleep(pause)
            pause = min(2 * pause, _PAUSE_S[1])

    async def upload(self, node_id: str, method: str, body: object, chunks: Iterable[bytes], timeout_s: float) -> Any:
        """Make one signed call that is followed by chunks; it is never repeated."""
        request, response = messages(method)
        card = self._peers(node_id)
        remote = (await self._channels.get(card)).stream_unary(
            method, request_serializer=request.SerializeToString, response_deserializer=response.FromString
        )

        async def parts() -> AsyncIterator[Any]:
            yield request(signed=wire.to_proto(signed.sign_call(self._keys.identity, node_id, method, body)))
            for chunk in chunks:
                yield request(chunk=chunk)

        try:
            return await remote(parts(), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, node_id, card.address) from None

    async def propose(self, node_id: str, proposal: Proposal, timeout_s: float) -> Signed:
        """Return the peer's acceptance, signed by its pinned key; the caller compares what it accepts.

        Raises:
            Unauthenticated: the acceptance is signed by somebody else.
            SandboxError: the peer refuses.
        """
        response = await self.call(node_id, f"{_PEER}Propose", proposal, timeout_s)
        acceptance = wire.from_proto(Signed, response.acceptance)
        signed.verify(public_key(self._peers(node_id)), "acceptance", acceptance, Acceptance)
        return acceptance

    async def grant(self, node_id: str, grant: Signed) -> None:
        """Hand over this node's leave to reveal."""
        await self.call(node_id, f"{_PEER}Grant", grant)

    async def share(self, node_id: str, bundle: ScenarioBundle) -> tuple[Signed, ...]:
        """Hand over a scenario and return the approvals the peer holds."""
        response = await self.call(node_id, f"{_PEER}Share", bundle)
        return tuple(wire.from_proto(Signed, approval) for approval in response.approvals)

    async def cosign(self, node_id: str, query: CosignQuery) -> tuple[bytes, int]:
        """Return the peer's co-signature, or nothing and the size to prove consistency from."""
        response = await self.call(node_id, "/sandbox.v1.AuditService/Cosign", query)
        return response.cosignature, response.seen_size

    async def check(self, node_id: str) -> None:
        """See whether a peer can be reached with the certificates as pinned.

        Raises:
            Unauthenticated: its certificate is not the pinned one.
            PartyFailed: it cannot be reached, or does not take this node's certificate.
            Unavailable: it is there and does not serve.
        """
        card = self._peers(node_id)
        stub = health_pb2_grpc.HealthStub(await self._channels.get(card))
        try:
            reply = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5.0)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, node_id, card.address) from None
        if reply.status != health_pb2.HealthCheckResponse.SERVING:
            raise Unavailable(tell=f"{node_id} is there and does not serve", party=node_id)

    def job(self, job_id: str, parties: Sequence[str], stage: Callable[[], str]) -> JobLinks:
        """Return the links of one job, to be entered; ``stage`` says which stage it is in."""
        return JobLinks(self._rules, job_id, parties, stage)

    async def serve_channel(
        self, requests: AsyncIterator[ChannelRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[ChannelResponse]:
        """Answer one connection of a peer, and carry its records until either side ends it."""
        try:
            hello, terms = await self._heard(requests, context)
            reply, session = answer(terms, hello)
            job = await self._open.get(terms.job_id, CONNECT_S)
            self._seen.once(terms, session.connection)
            job.expect(terms.peer, terms.purpose)
        except SandboxError as error:
            await refuse(context, error, self._node_id)
        frames = AnswererFrames(requests, terms.peer)
        job.join(self._connect(session, frames), terms.purpose)
        try:
            yield ChannelResponse(hello=wire.to_proto(reply))
            async for response in frames.responses():
                yield response
        finally:
            frames.cancel()

    async def close(self) -> None:
        """End every job's links, tell their peers, and close every channel."""
        error = Cancelled(tell=f"{self._node_id} is shutting down", party=self._node_id)
        jobs = self._open.jobs
        for job in jobs:
            job.fail(error)
        await asyncio.gather(*(job.abort(failure_of(error, self._node_id, "")) for job in jobs))
        await self._channels.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _dial(self, peer: str, job_id: str, purpose: ChannelPurpose) -> Connection:
        card, loop = self._peers(peer), asyncio.get_running_loop()
        end = loop.time() + _DIAL_S
        told: SandboxError = PartyFailed(tell=f"{peer} did not join in time", party=peer, stage=STAGE)
        while loop.time() < end:
            try:
                async with asyncio.timeout_at(end):
                    return await self._try(card, self._terms(card, job_id, purpose))
            except grpc.aio.AioRpcError as error:
                told = from_rpc(error, peer, card.address)
                if error.code() is not grpc.StatusCode.UNAVAILABLE or not isinstance(told, PartyFailed):
                    break
            except TimeoutError:
                break
            except asyncio.CancelledError:
                if is_cancelled():
                    raise
                raise Cancelled(tell=f"the link to {peer} was closed", party=peer, stage=STAGE) from None
            await asyncio.sleep(_PAUSE_S[0])
        raise told

    async def _try(self, card: PeerCard, terms: Terms) -> Connection:
        caller = Caller(terms)
        call = peer_pb2_grpc.PeerServiceStub(await self._channels.get(card)).Channel()
        try:
            await call.write(ChannelRequest(hello=wire.to_proto(caller.hello)))
            response = await call.read()
            if not isinstance(response, ChannelResponse) or response.WhichOneof("part") != "hello":
                raise PartyFailed(tell=f"{card.node_id} did not answer the handshake", party=card.node_id, stage=STAGE)
            session = caller.finish(wire.from_proto(Signed, response.hello))
            connection = self._connect(session, CallerFrames(call, card.node_id))
            await connection.stream.confirm()
        except BaseException:
            call.cancel()
            raise
        return connection

    def _connect(self, session: Session, frames: Frames) -> Connection:
        stream = SealedStream(session, frames.read, frames.write, self._threads)
        return Connection(session.peer, stream, frames)

    def _terms(self, card: PeerCard, job_id: str, purpose: ChannelPurpose) -> Terms:
        return Terms(
            node_id=self._node_id,
            peer=card.node_id,
            identity=self._keys.identity,
            peer_identity=public_key(card),
            certificate=self._certificate,
            peer_certificate=fingerprint(card.tls_certificate),
            job_id=job_id,
            purpose=purpose,
            seal=self._seal(card.node_id),
        )

    async def _heard(
        self, requests: AsyncIterator[ChannelRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> tuple[Signed, Terms]:
        """The first message, and the terms it claims: trusted by nobody before ``answer`` has checked them."""
        try:
            async with asyncio.timeout(CONNECT_S):
                first = await anext(requests)
        except (TimeoutError, StopAsyncIteration):
            raise DeadlinePassed(tell="no hello came", stage=STAGE) from None
        if first.WhichOneof("part") != "hello":
            raise InvalidSpec(tell="a connection begins with a hello", stage=STAGE)
        hello = wire.from_proto(Signed, first.hello)
        claimed = wire.decode(Hello, hello.payload)
        try:
            card = self._peers(claimed.from_)
        except SandboxError:
            raise Unauthenticated(f"a hello from {claimed.from_}, which is no peer", stage=STAGE) from None
        terms = self._terms(card, claimed.job_id, claimed.purpose)
        presented = b"".join(context.auth_context().get("x509_pem_cert", ()))
        if not presented or fingerprint(presented) != terms.peer_certificate:
            raise Unauthenticated(
                f"a hello from {card.node_id} over a TLS connection with another certificate",
                tell=f"the TLS certificate of this connection is not the one pinned for {card.node_id}",
                party=card.node_id,
                stage=STAGE,
            )
        return hello, terms
