"""The links of a job between real servers on loopback: messages, and every way in which a party can fail."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from typing import Any

import pytest
from peer_nodes import JOB, Node, Settings, introduce, joined, make_keys, running, start

from sandbox.errors import (
    DeadlinePassed,
    InvalidSpec,
    PartyFailed,
    PolicyRefused,
    ProtocolFailed,
    SandboxError,
    Unauthenticated,
    WrongState,
)
from sandbox.model import ChannelPurpose, Failure, SealMode
from sandbox.peer import control, job
from sandbox.peer.channel import RecordType
from sandbox.peer.links import JobLinks

STOPPED = Failure("OutputWithheld", "bank", "gate", "the result is too specific", "结果过于具体", "change the question")


async def cause(links: JobLinks) -> SandboxError:
    return await asyncio.wait_for(asyncio.shield(links.broken), 5)


def enter(node: Node, *names: str, job_id: str = JOB) -> Any:
    return node.links.job(job_id, names, lambda: "align").__aenter__()


def test_three_parties_exchange_messages_and_finish() -> None:
    async def work() -> None:
        async with running("gov", "bank", "witness") as nodes, joined(*nodes) as (gov, bank, witness):
            await gov.broadcast("ready", b"g")
            await bank.send("gov", "terms", b"1")
            await bank.send("gov", "share/a", bytes(3 << 20))
            await bank.send("gov", "terms", b"2")
            await bank.send("gov", "terms")
            assert [await other.recv("gov", "ready", 2) for other in (bank, witness)] == [b"g", b"g"]
            assert len(await gov.recv("bank", "share/a", 5)) == 3 << 20
            assert [await gov.recv("bank", "terms", 2) for _ in range(3)] == [b"1", b"2", b""]
            await witness.send("bank", "last", b"!")
            await asyncio.gather(*(each.finish() for each in (gov, bank, witness)))
            assert not any(each.broken.done() for each in (gov, bank, witness))
            assert 3 << 20 < gov.traffic < (3 << 20) + 10_000
            assert abs(gov.traffic + witness.traffic - bank.traffic) < 2_000

    asyncio.run(work())


def test_what_was_sent_before_finishing_is_still_read_and_more_is_not_awaited() -> None:
    async def work() -> None:
        async with running("gov", "bank") as nodes, joined(*nodes) as (gov, bank):
            await gov.send("bank", "trail", b"t")
            ends = asyncio.create_task(gov.finish())
            await asyncio.sleep(0.1)
            assert await bank.recv("gov", "trail", 2) == b"t"
            with pytest.raises(PartyFailed, match="gov finished without"):
                await bank.recv("gov", "trail", 2)
            assert not ends.done()
            await bank.finish()
            await ends
            with pytest.raises(WrongState):
                await bank.send("gov", "trail")

    asyncio.run(work())


@pytest.mark.parametrize("leaver", [0, 1])
def test_who_leaves_before_the_others_have_finished_is_named(leaver: int) -> None:
    async def work() -> None:
        async with running("gov", "bank") as nodes, joined(*nodes) as jobs:
            ends = asyncio.create_task(jobs[leaver].finish())
            await asyncio.sleep(0.1)
            assert not jobs[1 - leaver].broken.done()
            ends.cancel()
            await jobs[leaver].__aexit__(None, None, None)
            error = await cause(jobs[1 - leaver])
            assert (error.tell, error.party) == (f"{nodes[leaver].name} ended its connection", nodes[leaver].name)

    asyncio.run(work())


def test_a_message_without_end_is_a_breach() -> None:
    async def work() -> None:
        quiet = Settings(heartbeat_s=60)  # so that this test alone writes
        async with running("gov", "bank", gov=quiet) as nodes, joined(*nodes) as (gov, bank):
            stream = gov._links["bank"]._stream
            for _ in range(12):
                with contextlib.suppress(SandboxError):
                    await stream.send(RecordType.DATA, bytes(1 << 20))
            error = await cause(bank)
            assert (type(error), error.party) == (ProtocolFailed, "gov")

    asyncio.run(work())


def test_a_job_can_follow_with_the_same_id() -> None:
    async def work() -> None:
        async with running("gov", "bank") as nodes:
            for _ in range(3):
                async with joined(*nodes) as (gov, bank):
                    await asyncio.gather(gov.finish(), bank.finish())

    asyncio.run(work())


def test_a_missing_message_is_a_deadline_with_names() -> None:
    async def work() -> None:
        async with running("gov", "bank") as nodes, joined(*nodes) as (gov, _):
            with pytest.raises(DeadlinePassed) as caught:
                await gov.recv("bank", "share/gov", 0.2)
            assert caught.value.tell == "bank did not send its last share in time"
            assert (caught.value.party, caught.value.stage) == ("bank", "align")
            assert not gov.broken.done()

    asyncio.run(work())


def test_an_abort_arrives_with_party_stage_and_cause_and_is_not_echoed() -> None:
    async def work() -> None:
        async with running("gov", "bank", "witness") as nodes, joined(*nodes) as (gov, bank, witness):
            pending = asyncio.create_task(gov.recv("bank", "terms", 30))
            await asyncio.sleep(0.05)
            await bank.abort(STOPPED)
            for each in (gov, witness):
                told = await cause(each)
                assert type(told) is PartyFailed
                assert (told.tell, told.party, told.stage) == (STOPPED.cause, "bank", "gate")
                assert type(told.__cause__).__name__ == "OutputWithheld"
                with pytest.raises(PartyFailed):
                    await each.send("bank", "terms")
            with pytest.raises(PartyFailed, match="too specific"):
                await pending
            assert not bank.broken.done()
            await gov.abort(Failure("PartyFailed", "bank", "gate", "echo", "", ""))
            assert not bank.broken.done()
            assert (await cause(witness)).tell == STOPPED.cause

    asyncio.run(work())


@pytest.mark.parametrize(
    ("raised", "told", "party"),
    [
        (ValueError("row 17: secret"), "the job failed inside the node", "gov"),
        (asyncio.CancelledError(), "the job was cancelled", "gov"),
        (PartyFailed(tell="witness went away", party="witness", stage="train"), "witness went away", "witness"),
    ],
)
def test_leaving_by_an_exception_tells_the_others_its_public_half(raised: BaseException, told: str, party: str) -> None:
    async def work() -> None:
        async with running("gov", "bank") as nodes:
            gov = nodes[0].links.job(JOB, ["gov", "bank"], lambda: "score")
            bank = nodes[1].links.job(JOB, ["gov", "bank"], lambda: "score")
            await asyncio.gather(gov.__aenter__(), bank.__aenter__())
            await gov.__aexit__(type(raised), raised, None)
            error = await cause(bank)
            assert (error.tell, error.party) == (told, party)
            assert error.stage == getattr(raised, "stage", "score")
            assert "secret" not in f"{error} {error.tell}"
            await bank.__aexit__(None, None, None)

    asyncio.run(work())


def test_the_first_cause_wins() -> None:
    async def work() -> None:
        async with running("gov", "bank", "witness") as nodes, joined(*nodes) as (gov, bank, witness):
            await bank.abort(STOPPED)
            await cause(gov)
            await witness.abort(Failure("JobFailed", "witness", "train", "second", "", ""))
            gov.fail(PartyFailed(tell="third", party="witness"))
            assert (await cause(gov)).tell == STOPPED.cause

    asyncio.run(work())


def test_leaving_without_a_word_is_an_ended_connection() -> None:
    async def work() -> None:
        async with running("gov", "bank") as nodes, joined(*nodes) as (gov, bank):
            for left, stays, name in ((gov, bank, "gov"),):
                await left.__aexit__(None, None, None)
                error = await cause(stays)
                assert (error.tell, error.party, error.stage) == (f"{name} ended its connection", name, "align")

    asyncio.run(work())


@pytest.mark.parametrize("falls", [0, 1])
def test_a_server_that_stops_is_named_at_once(falls: int) -> None:
    """gov dials, bank is dialled: whichever loses its node, the other names it."""

    async def work() -> None:
        patient = Settings(silence_s=60)  # it is not silence that tells
        async with running("gov", "bank", gov=patient, bank=patient) as nodes, joined(*nodes) as jobs:
            await nodes[falls].server.stop(0)
            await nodes[falls].links._channels.close()
            error = await cause(jobs[1 - falls])
            assert (error.tell, error.party) == (f"{nodes[falls].name} ended its connection", nodes[falls].name)

    asyncio.run(work())


@pytest.mark.parametrize("silent", ["gov", "bank"])
def test_a_silent_peer_is_named(silent: str) -> None:
    """The silent side lives, reads and keeps the connection; it only says nothing."""

    async def work() -> None:
        quiet = {silent: Settings(heartbeat_s=60, silence_s=300)}
        other = "bank" if silent == "gov" else "gov"
        quick = {other: Settings(heartbeat_s=0.05, silence_s=0.5)}
        async with running("gov", "bank", **quiet, **quick) as nodes, joined(*nodes) as jobs:
            survivor = jobs[0 if other == "gov" else 1]
            error = await cause(survivor)
            assert (error.tell, error.party) == (f"{silent} went silent", silent)

    asyncio.run(work())


def test_heartbeats_keep_an_idle_job_alive() -> None:
    async def work() -> None:
        quick = Settings(heartbeat_s=0.05, silence_s=0.4)
        async with running("gov", "bank", gov=quick, bank=quick) as nodes, joined(*nodes) as (gov, bank):
            await asyncio.sleep(1.0)
            assert not gov.broken.done()
            assert not bank.broken.done()
            time.sleep(0.8)  # this process stands still: neither may blame the other for it
            await asyncio.sleep(0.3)
            assert not gov.broken.done()
            assert not bank.broken.done()
            assert gov.traffic > 40 * 17

    asyncio.run(work())


def test_who_does_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "CONNECT_S", 2.0)
    monkeypatch.setattr("sandbox.peer.links._DIAL_S", 0.8)

    async def work() -> None:
        async with running("gov", "bank") as nodes:
            with pytest.raises(PartyFailed, match="bank did not join") as caught:  # it waits for gov's job to open
                await enter(nodes[0], "gov", "bank")
            assert (caught.value.party, caught.value.stage) == ("bank", "connect")
            with pytest.raises(PartyFailed, match="gov did not join") as caught:
                await enter(nodes[1], "gov", "bank")
            assert (caught.value.party, caught.value.stage) == ("gov", "connect")
            await nodes[1].server.stop(0)
            with pytest.raises(PartyFailed) as caught:
                await enter(nodes[0], "gov", "bank")
            assert caught.value.tell == f"bank cannot be reached at 127.0.0.1:{nodes[1].port}"

    asyncio.run(work())


def test_of_three_the_connected_one_learns_who_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "CONNECT_S", 3.0)
    monkeypatch.setattr("sandbox.peer.links._DIAL_S", 1.0)

    async def work() -> None:
        names = ("gov", "bank", "witness")
        async with running(*names) as nodes:
            outcomes = await asyncio.gather(*(enter(node, *names) for node in nodes[:2]), return_exceptions=True)
            for outcome in outcomes:
                assert isinstance(outcome, PartyFailed)
                assert outcome.party == "witness"

    asyncio.run(work())


def test_a_late_party_is_waited_for() -> None:
    async def work() -> None:
        async with running("gov", "bank") as nodes:
            first = asyncio.create_task(enter(nodes[0], "gov", "bank"))
            await asyncio.sleep(0.4)
            bank = await enter(nodes[1], "gov", "bank")
            gov = await first
            await asyncio.gather(gov.finish(), bank.finish())
            await asyncio.gather(gov.__aexit__(None, None, None), bank.__aexit__(None, None, None))

    asyncio.run(work())


def test_a_node_that_starts_late_is_reached() -> None:
    async def work() -> None:
        bank_keys = make_keys("bank")
        gov, bank = await start("gov", Settings()), await start("bank", Settings(), bank_keys)
        introduce(gov, bank)
        await bank.server.stop(0)
        first = asyncio.create_task(enter(gov, "gov", "bank"))
        await asyncio.sleep(0.5)
        again = await start("bank", Settings(), bank_keys, bank.port)
        again.cards.update(bank.cards)
        second = await enter(again, "gov", "bank")
        await asyncio.gather((await first).finish(), second.finish())
        for node in (gov, bank, again):
            await node.links.close()
            await node.server.stop(0)

    asyncio.run(work())


def test_seal_modes_must_agree() -> None:
    async def work() -> None:
        tls = Settings(seal=lambda _: SealMode.TLS)
        async with running("gov", "bank", gov=tls, bank=tls) as nodes, joined(*nodes) as (gov, bank):
            await gov.send("bank", "ready", b"x" * 100_000)
            assert await bank.recv("gov", "ready", 2) == b"x" * 100_000
        async with running("gov", "bank", gov=tls) as nodes:
            bank = nodes[1].links.job(JOB, ["gov", "bank"], lambda: "align")
            waits = asyncio.create_task(bank.__aenter__())
            with pytest.raises(PartyFailed) as caught:
                await enter(nodes[0], "gov", "bank")
            assert "tls" in caught.value.tell and "sm4" in caught.value.tell
            waits.cancel()
            await asyncio.gather(waits, return_exceptions=True)

    asyncio.run(work())


def test_a_second_control_connection_is_refused() -> None:
    async def work() -> None:
        async with running("gov", "bank") as nodes, joined(*nodes) as (gov, bank):
            with pytest.raises(SandboxError) as caught:
                await nodes[0].links._dial("bank", JOB, ChannelPurpose.CONTROL)
            assert type(caught.value).__name__ == "AlreadyExists"
            with pytest.raises(SandboxError) as caught:
                await nodes[1].links._dial("gov", JOB, ChannelPurpose.CONTROL)
            assert type(caught.value).__name__ == "ProtocolFailed"
            await asyncio.gather(gov.finish(), bank.finish())

    asyncio.run(work())


def test_a_peer_that_is_no_party_is_refused() -> None:
    async def work() -> None:
        async with running("gov", "bank", "witness") as nodes, joined(*nodes[:2]):
            for purpose in ChannelPurpose:
                with pytest.raises(PolicyRefused):
                    await nodes[2].links._dial("bank", JOB, purpose)

    asyncio.run(work())


def test_a_hello_of_another_tls_certificate_is_refused() -> None:
    """The right identity key over a TLS connection of another registered node."""

    async def work() -> None:
        async with running("gov", "bank", "witness") as nodes, joined(*nodes[:2]):
            thief = await start("gov", Settings(), nodes[0].keys)
            thief.cards.update(nodes[0].cards)
            other = nodes[2].keys
            thief.links._channels._keys = dataclasses.replace(
                thief.keys, tls_key=other.tls_key, tls_certificate=other.tls_certificate
            )
            with pytest.raises(Unauthenticated, match="TLS certificate of this connection"):
                await thief.links._dial("bank", JOB, ChannelPurpose.RELAY)
            await thief.links.close()
            await thief.server.stop(0)

    asyncio.run(work())


def test_a_slow_reader_slows_the_sender_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_INBOX", 2 << 20)
    monkeypatch.setattr(control, "_OUTBOX", 2 << 20)

    async def work() -> None:
        quick = Settings(heartbeat_s=0.05, silence_s=0.6)
        async with running("gov", "bank", gov=quick, bank=quick) as nodes, joined(*nodes) as (gov, bank):
            sent = 0

            async def flood() -> None:
                nonlocal sent
                for _ in range(100):
                    await gov.send("bank", "bulk", bytes(1 << 20))
                    sent += 1

            writer = asyncio.create_task(flood())
            await asyncio.sleep(1.5)
            held = sent
            assert held < 50, "the sender ran ahead of a reader that reads nothing"
            await asyncio.sleep(0.3)
            assert sent == held
            assert not bank.broken.done(), "a reader with a full box must not call its peer silent"
            for _ in range(100):
                assert len(await bank.recv("gov", "bulk", 10)) == 1 << 20
            await writer
            await asyncio.gather(gov.finish(), bank.finish())

    asyncio.run(work())


def test_wrong_uses_are_refused_before_anything_is_sent() -> None:
    async def work() -> None:
        async with running("gov", "bank") as nodes:
            for parties in (["bank", "witness"], ["gov", "gov"], ["gov", "../bank"]):
                with pytest.raises(InvalidSpec):
                    nodes[0].links.job(JOB, parties, lambda: "")
            async with joined(*nodes) as (gov, _):
                with pytest.raises(InvalidSpec):
                    await gov.send("bank", "abort")
                with pytest.raises(InvalidSpec):
                    await gov.send("witness", "ready")
                with pytest.raises(InvalidSpec):
                    await gov.send("bank", "bulk", bytes((8 << 20) + 1))
                with pytest.raises(WrongState):
                    await enter(nodes[0], "gov", "bank")
                assert not gov.broken.done()

    asyncio.run(work())
