"""Errors across gRPC: the table is total, the public half arrives, the private half does not."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import errors, wire
from sandbox.errors import DeadlinePassed, PartyFailed, SandboxError, Unavailable
from sandbox.model import Failure
from sandbox.peer.failures import STATUS, TRAILER, error_of, failure_of, from_rpc, refuse

CANARY = "row-value-4711"
CLASSES = [
    e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, SandboxError) and e is not SandboxError
]


def handlers(raised: dict[str, SandboxError]) -> grpc.GenericRpcHandler:
    async def fail(request: bytes, context: Any) -> bytes:
        await refuse(context, raised[request.decode()], "gov")

    return grpc.method_handlers_generic_handler("t.T", {"Fail": grpc.unary_unary_rpc_method_handler(fail)})


def test_every_error_has_a_status() -> None:
    assert set(STATUS) == set(CLASSES)
    assert len(CLASSES) == 18


@pytest.mark.parametrize("kind", CLASSES)
def test_failure_and_error_are_each_others_inverse(kind: type[SandboxError]) -> None:
    error = kind(f"private {CANARY}", tell="the count is 12", stage="align", hint="ask again")
    failure = failure_of(error, "gov", "train")
    hint_zh = f"{kind.next_step_zh}（ask again）"
    assert failure == Failure(kind.__name__, "gov", "align", "the count is 12", kind.public_zh, "ask again", hint_zh)
    back = error_of(wire.decode(Failure, wire.encode(failure)))
    assert type(back) is kind
    assert failure_of(back, "other", "other") == failure
    assert CANARY not in repr(failure)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_bare_error_says_its_class_words(kind: type[SandboxError]) -> None:
    failure = failure_of(kind(CANARY), "gov", "train")
    assert (failure.cause, failure.next_step, failure.stage) == (kind.public, kind.next_step, "train")


def test_every_class_crosses_a_real_server() -> None:
    raised = {kind.__name__: kind(f"log {CANARY}", tell=f"told {kind.__name__} 数据", stage="gate") for kind in CLASSES}

    async def run() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((handlers(raised),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for name, error in raised.items():
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary("/t.T/Fail")(name.encode())
                check(caught.value, error)

        def call_without_asyncio() -> grpc.RpcError:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/t.T/Fail")(b"PolicyRefused")
            return caught.value

        check(await asyncio.to_thread(call_without_asyncio), raised["PolicyRefused"])
        await server.stop(0)

    def check(told: grpc.RpcError, error: SandboxError) -> None:
        assert told.code() is STATUS[type(error)]
        back = from_rpc(told, "asked")
        assert (type(back), back.tell, back.party, back.stage) == (type(error), error.tell, "gov", "gate")
        assert CANARY not in f"{told!r} {back!r} {back}"

    asyncio.run(run())


def test_long_texts_fit_the_trailer() -> None:
    """gRPC drops calls whose metadata is too large: the longest failure in a wide script must still cross."""
    raised = {"x": PartyFailed("", tell="数" * 5000, party="p" * 500, stage="s" * 500, hint="据" * 5000)}

    async def run() -> SandboxError:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((handlers(raised),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/t.T/Fail")(b"x")
        await server.stop(0)
        return from_rpc(caught.value, "asked")

    told = asyncio.run(run())
    assert isinstance(told, PartyFailed)
    assert told.tell == "数" * 400
    assert told.hint == "据" * 400


def test_unreachable_names_the_address() -> None:
    async def run() -> SandboxError:
        async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/t.T/Fail")(b"")
        return from_rpc(caught.value, "bank", "127.0.0.1:1")

    told = asyncio.run(run())
    assert isinstance(told, PartyFailed)
    assert told.tell == "bank cannot be reached at 127.0.0.1:1"
    assert told.party == "bank"


def rpc_error(code: grpc.StatusCode, trailer: bytes | None = None) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata(*([(TRAILER, trailer)] if trailer is not None else []))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details=CANARY, debug_error_string="")


@pytest.mark.parametrize("code", [c for c in grpc.StatusCode if c is not grpc.StatusCode.OK])
def test_without_a_trailer_grpc_is_not_taken_for_a_decision(code: grpc.StatusCode) -> None:
    """RESOURCE_EXHAUSTED may be a message too large, UNAUTHENTICATED a proxy's: only a trailer speaks for the node."""
    expected = {grpc.StatusCode.DEADLINE_EXCEEDED: DeadlinePassed, grpc.StatusCode.UNIMPLEMENTED: Unavailable}
    told = from_rpc(rpc_error(code), "bank")
    assert type(told) is expected.get(code, PartyFailed)
    assert told.party == "bank"
    assert CANARY not in told.tell


@given(st.binary(max_size=64))
def test_a_damaged_trailer_is_ignored(trailer: bytes) -> None:
    told = from_rpc(rpc_error(grpc.StatusCode.INTERNAL, b"\xff" + trailer), "bank")
    assert type(told) is PartyFailed


def test_a_peers_words_are_made_harmless() -> None:
    told = error_of(Failure("NoSuchClass", "bank\x1b[31m", "align\n", "line\r\x1b]0;title\x07 数据", "", "x\u202ey"))
    assert type(told) is PartyFailed
    assert all(text.isprintable() for text in (told.tell, told.party, told.stage, told.hint))
    assert "数据" in told.tell


@pytest.mark.parametrize("code", ["SandboxError", "annotations", "__name__", "ClassVar"])
def test_only_names_of_the_table_become_classes(code: str) -> None:
    assert type(error_of(Failure(code, "", "", "x", "", ""))) is PartyFailed
