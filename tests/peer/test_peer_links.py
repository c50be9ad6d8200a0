"""Signed calls between nodes, what a channel's server refuses, and a peer whose process is killed."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import sys
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from peer_nodes import JOB, Node, Settings, introduce, joined, make_keys, running, start

from sandbox import signed, wire
from sandbox.errors import (
    DeadlinePassed,
    InvalidSpec,
    NotFound,
    PartyFailed,
    PolicyRefused,
    SandboxError,
    Unauthenticated,
    WrongState,
)
from sandbox.keyring import public_key
from sandbox.model import (
    Acceptance,
    Call,
    ChannelPurpose,
    CosignQuery,
    GrantStatement,
    Hello,
    Proposal,
    ScenarioBundle,
    Signed,
)
from sandbox.peer import links as links_module
from sandbox.peer.failures import from_rpc, refuse
from sandbox.peer.handshake import Caller
from sandbox.peer.transport import SERVER_OPTIONS, server_credentials
from sandbox.v1 import audit_pb2, audit_pb2_grpc, peer_pb2, peer_pb2_grpc
from sandbox.v1.peer_pb2 import ChannelRequest

SIGNED = Signed(b"payload", "0" * 32, b"signature")
PROPOSAL = Proposal(b"plan", SIGNED, b"c" * 32)


class Answering(peer_pb2_grpc.PeerServiceServicer, audit_pb2_grpc.AuditServiceServicer):
    """A peer that checks the signature of every call, records it, and answers as the test says."""

    def __init__(self, node: Node, caller: Node) -> None:
        self.node, self.caller = node, caller
        self.calls: list[Call] = []
        self.acceptance_key = node.keys.identity
        self.refusal: SandboxError | None = None
        self.delay_s = 0.0

    async def _enter(self, request: Any, context: Any) -> None:
        call = signed.verify(public_key(self.caller.card), "call", wire.from_proto(Signed, request.signed), Call)
        self.calls.append(call)
        await asyncio.sleep(self.delay_s)
        if self.refusal is not None:
            await refuse(context, self.refusal, self.node.name)

    async def Propose(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._enter(request, context)
        accepted = Acceptance(self.node.name, b"p" * 32, b"c" * 32, signed.now_ms())
        return peer_pb2.ProposeResponse(
            acceptance=wire.to_proto(signed.sign(self.acceptance_key, "acceptance", accepted))
        )

    async def Grant(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._enter(request, context)
        return peer_pb2.GrantResponse()

    async def Share(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._enter(request, context)
        return peer_pb2.ShareResponse(approvals=[wire.to_proto(SIGNED)] * 2)

    async def Cosign(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._enter(request, context)
        return audit_pb2.CosignResponse(cosignature=b"line", seen_size=7)


async def answering(nodes: list[Node]) -> Answering:
    """Give the second node a server with the unary services, in place of the one it has."""
    caller, node = nodes
    await node.server.stop(0)
    servicer = Answering(node, caller)
    await restart(node, servicer)
    return servicer


async def restart(node: Node, servicer: Answering) -> None:
    node.server = grpc.aio.server(options=SERVER_OPTIONS)
    peer_pb2_grpc.add_PeerServiceServicer_to_server(servicer, node.server)
    audit_pb2_grpc.add_AuditServiceServicer_to_server(servicer, node.server)
    certificates = server_credentials(node.keys, lambda: [card.tls_certificate for card in node.cards.values()])
    node.server.add_secure_port(f"127.0.0.1:{node.port}", certificates)
    await node.server.start()


def test_calls_are_signed_for_their_audience_and_answers_come_back_typed() -> None:
    async def work() -> None:
        async with running("gov", "bank") as nodes:
            bank, links = await answering(nodes), nodes[0].links
            accepted = await links.propose("bank", PROPOSAL, 5)
            assert wire.decode(Acceptance, accepted.payload).plan_digest == b"p" * 32
            grant = signed.sign(
                nodes[0].keys.identity, "grant", GrantStatement("gov", JOB, b"p" * 32, "0" * 32, "after")
            )
            await links.grant("bank", grant)
            assert await links.share("bank", ScenarioBundle(SIGNED, (), ())) == (SIGNED, SIGNED)
            assert await links.cosign("bank", CosignQuery(0, b"note", ())) == (b"line", 7)
            assert [call.method.rpartition("/")[2] for call in bank.calls] == ["Propose", "Grant", "Share", "Cosign"]
            assert {call.audience for call in bank.calls} == {"bank"}
            assert wire.decode(Proposal, bank.calls[0].body) == PROPOSAL
            assert wire.decode(Signed, bank.calls[1].body) == grant
            assert len({call.nonce for call in bank.calls}) == 4

    asyncio.run(work())


def test_an_acceptance_of_another_key_is_refused() -> None:
    async def work() -> None:
        async with running("gov", "bank") as nodes:
            bank = await answering(nodes)
            bank.acceptance_key = nodes[0].keys.identity
            with pytest.raises(Unauthenticated):
                await nodes[0].links.propose("bank", PROPOSAL, 5)

    asyncio.run(work())


def test_refusals_arrive_as_they_were_raised() -> None:
    async def work() -> None:
        async with running("gov", "bank") as nodes:
            bank = await answering(nodes)
            bank.refusal = PolicyRefused("the reason stays there", stage="admit")
            with pytest.raises(PolicyRefused) as caught:
                await nodes[0].links.propose("bank", PROPOSAL, 5)
            assert (caught.value.party, caught.value.stage) == ("bank", "admit")
            assert "stays there" not in str(caught.value)
            assert len(bank.calls) == 1  # a refusal is not tried again
            bank.refusal, bank.delay_s = None, 3.0
            with pytest.raises(DeadlinePassed) as late:
                await nodes[0].links.propose("bank", PROPOSAL, 0.3)
            assert late.value.party == "bank"
            with pytest.raises(InvalidSpec):
                await nodes[0].links.call("bank", "/sandbox.v1.PeerService/Nothing", PROPOSAL)
            with pytest.raises(NotFound):
                await nodes[0].links.call("nobody", "/sandbox.v1.PeerService/Grant", SIGNED)

    asyncio.run(work())


def test_a_call_waits_for_a_node_that_is_down_and_signs_each_try_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    signatures: list[Signed] = []
    real = signed.sign_call

    def sign_call(*arguments: Any) -> Signed:
        signatures.append(real(*arguments))
        return signatures[-1]

    monkeypatch.setattr(links_module.signed, "sign_call", sign_call)

    async def work() -> None:
        async with running("gov", "bank") as nodes:
            bank = await answering(nodes)
            await nodes[1].server.stop(0)
            call = asyncio.create_task(nodes[0].links.propose("bank", PROPOSAL, 10))
            await asyncio.sleep(0.5)
            assert not call.done()
            await restart(nodes[1], bank)
            await call
            assert len(bank.calls) == 1
            assert len({one.payload for one in signatures}) == len(signatures) > 2
            await nodes[1].server.stop(0)
            with pytest.raises(PartyFailed) as caught:
                await nodes[0].links.propose("bank", PROPOSAL, 0.3)
            assert caught.value.tell == f"bank cannot be reached at 127.0.0.1:{nodes[1].port}"

    asyncio.run(work())


def test_check_tells_a_node_from_an_impostor_and_from_silence() -> None:
    async def work() -> None:
        async with running("gov", "bank") as nodes:
            gov, bank = nodes
            await gov.links.check("bank")
            impostor = make_keys("bank")
            gov.cards["bank"] = dataclasses.replace(bank.card, tls_certificate=impostor.tls_certificate)
            with pytest.raises(Unauthenticated) as caught:
                await gov.links.check("bank")
            assert caught.value.tell == f"the certificate at 127.0.0.1:{bank.port} is not the one pinned for bank"
            gov.cards["bank"] = bank.card  # the card as it was: a new channel, and it works again
            await gov.links.check("bank")
            gov.cards["bank"] = dataclasses.replace(bank.card, address="127.0.0.1:1")
            with pytest.raises(PartyFailed, match="UNAVAILABLE"):
                await gov.links.check("bank")

    asyncio.run(work())


def test_a_node_that_does_not_know_this_one_refuses_the_connection() -> None:
    async def work() -> None:
        async with running("gov", "bank") as nodes:
            gov, bank = nodes
            del bank.cards["gov"]
            with pytest.raises(PartyFailed):
                await gov.links.check("bank")
            bank.cards["gov"] = gov.card  # added while the server runs
            gov.cards["bank"] = dataclasses.replace(bank.card, created_ms=1)  # a channel of its own
            await gov.links.check("bank")

    asyncio.run(work())


async def say(node: Node, first: ChannelRequest) -> Any:
    """Open a Channel by hand and return the first response, or raise the refusal."""
    channel = await node.links._channels.get(node.cards["bank"])
    call = peer_pb2_grpc.PeerServiceStub(channel).Channel()
    try:
        await call.write(first)
        return await call.read()
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error, "bank") from None
    finally:
        call.cancel()


def hello_of(node: Node, **changes: Any) -> ChannelRequest:
    terms = node.links._terms(node.cards["bank"], JOB, ChannelPurpose.RELAY)
    said = wire.decode(Hello, Caller(terms).hello.payload)
    hello = signed.sign(node.keys.identity, "hello", dataclasses.replace(said, **changes))
    return ChannelRequest(hello=wire.to_proto(hello))


def test_a_hello_is_good_once() -> None:
    async def work() -> None:
        async with running("gov", "bank") as nodes, joined(*nodes):
            request = hello_of(nodes[0])
            assert (await say(nodes[0], request)).WhichOneof("part") == "hello"
            with pytest.raises(Unauthenticated):
                await say(nodes[0], request)

    asyncio.run(work())


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"to": "witness"}, Unauthenticated),
        ({"from_": "nobody"}, Unauthenticated),
        ({"from_": "witness"}, Unauthenticated),
        ({"time_ms": 0}, Unauthenticated),
        ({"own_certificate": b"x" * 32}, Unauthenticated),
        ({"peer_certificate": b"x" * 32}, Unauthenticated),
        ({"purpose": 3}, InvalidSpec),
        ({"connection": b"short"}, InvalidSpec),
        ({"job_id": "f" * 32}, WrongState),
    ],
)
def test_the_server_refuses_a_hello_that_is_wrong(
    changes: dict[str, Any], refusal: type[SandboxError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links_module, "CONNECT_S", 0.3)  # how long a job that is not open is waited for

    async def work() -> None:
        async with running("gov", "bank", "witness") as nodes, joined(*nodes) as jobs:
            with pytest.raises(refusal):
                await say(nodes[0], hello_of(nodes[0], **changes))
            assert not jobs[1].broken.done()
            assert not nodes[1].links._open.awaited

    asyncio.run(work())


@pytest.mark.parametrize("first", [ChannelRequest(), ChannelRequest(record=b"\x01"), ChannelRequest(hello={})])
def test_a_connection_begins_with_a_hello(first: ChannelRequest) -> None:
    async def work() -> None:
        async with running("gov", "bank") as nodes:
            with pytest.raises(InvalidSpec):
                await say(nodes[0], first)

    asyncio.run(work())


async def spawned(folder: Path, card: Signed) -> asyncio.subprocess.Process:
    folder.mkdir()
    (folder / "gov.card").write_bytes(wire.encode(card))
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("peer_process.py")),
        str(folder),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP])
def test_a_node_that_is_killed_or_frozen_is_named(tmp_path: Path, sign: signal.Signals) -> None:
    """A real process of its own: killed, its sockets are reset; stopped, they stay open and say nothing."""

    async def work() -> None:
        # For the killed one silence would take longer than this test waits: it is the lost connection that tells.
        gov = await start("gov", Settings(heartbeat_s=0.1, silence_s=60 if sign is signal.SIGKILL else 1.0))
        process = await spawned(tmp_path / "bank", gov.keys.card("gov", "gov", f"127.0.0.1:{gov.port}"))
        try:
            assert process.stdout is not None
            port = int(await asyncio.wait_for(process.stdout.readline(), 20))
            card = signed.open_peer_card(signed.read_signed((tmp_path / "bank" / "bank.card").read_bytes()))
            assert card.address == f"127.0.0.1:{port}"
            gov.cards["bank"] = card
            async with gov.links.job(JOB, ["gov", "bank"], lambda: "align") as links:
                assert await links.recv("bank", "ready", 5) == b"here"
                process.send_signal(sign)
                error = await asyncio.wait_for(asyncio.shield(links.broken), 20)
                assert (type(error), error.party, error.stage) == (PartyFailed, "bank", "align")
                words = "ended its connection" if sign is signal.SIGKILL else "went silent"
                assert error.tell == f"bank {words}"
                leaving = asyncio.get_running_loop().time()
            # Not a speed test: a peer that does not answer is given one second, not for ever.
            assert asyncio.get_running_loop().time() - leaving < 10
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()
            await gov.links.close()
            await gov.server.stop(0)

    asyncio.run(work())


def test_closing_ends_the_jobs_and_blames_nobody_else() -> None:
    async def work() -> None:
        async with running("gov", "bank") as nodes, joined(*nodes) as (gov, bank):
            await nodes[0].links.close()
            error = gov.broken.result()
            assert (type(error).__name__, error.party) == ("Cancelled", "gov")
            told = await asyncio.wait_for(asyncio.shield(bank.broken), 5)
            assert (told.tell, told.party) == ("gov is shutting down", "gov")

    asyncio.run(work())


def test_links_work_again_on_a_new_loop() -> None:
    """A channel left by a loop that has ended is not used again."""
    gov_keys, bank_keys = make_keys("gov"), make_keys("bank")
    card: list[Any] = []
    links: list[Any] = []

    async def once() -> None:
        bank = await start("bank", Settings(), bank_keys, card[0] if card else 0)
        gov = await start("gov", Settings(), gov_keys)
        introduce(gov, bank)
        card.append(bank.port)
        links.append(links[0] if links else gov.links)
        await asyncio.wait_for(links[0].check("bank"), 10)
        await bank.server.stop(0)
        await gov.server.stop(0)

    asyncio.run(once())
    asyncio.run(once())
    asyncio.run(links[0].close())
