"""Sealed records over queues in place of a network, and the bounded box."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.errors import IntegrityFailed, PartyFailed, ProtocolFailed, SandboxError
from sandbox.model import SealMode
from sandbox.peer.channel import RECORD_LIMIT, RecordType, SealedStream
from sandbox.peer.handshake import Session
from sandbox.peer.mailbox import Mailbox

DATA, EOF, HEARTBEAT, MESSAGE = RecordType.DATA, RecordType.EOF, RecordType.HEARTBEAT, RecordType.MESSAGE
MODES = pytest.mark.parametrize("seal", list(SealMode))


class Wire:
    """Frames on their way; a test takes them out and puts others in."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def read(self) -> bytes | None:
        return await self.frames.get()

    async def write(self, frame: bytes) -> None:
        await self.frames.put(frame)

    def take(self) -> list[bytes]:
        return [frame for _ in range(self.frames.qsize()) if (frame := self.frames.get_nowait()) is not None]

    def put(self, frames: list[bytes | None]) -> None:
        for frame in frames:
            self.frames.put_nowait(frame)


def pair(seal: SealMode, connection: bytes = b"c" * 16) -> tuple[SealedStream, SealedStream, Wire]:
    """Two ends with keys as a handshake gives them, and the wire from the first to the second."""
    one, two = secrets.token_bytes(16), secrets.token_bytes(16)
    forth, back = Wire(), Wire()
    left = SealedStream(Session("gov", "bank", connection, seal, one, two, True), back.read, forth.write)
    right = SealedStream(Session("bank", "gov", connection, seal, two, one, False), forth.read, back.write)
    return left, right, forth


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


@MODES
def test_what_is_sent_arrives_in_order_with_its_type(seal: SealMode) -> None:
    async def work() -> None:
        left, right, _ = pair(seal)
        records = [(DATA, b"a"), (HEARTBEAT, b""), (MESSAGE, b""), (MESSAGE, secrets.token_bytes(200_000)), (EOF, b"")]
        for kind, body in records:
            await left.send(kind, body)
        assert [await right.receive() for _ in records] == records
        assert right.heard_eof
        assert left.traffic == right.traffic > 200_000

    run(work())


@MODES
def test_long_bodies_are_cut(seal: SealMode) -> None:
    async def work() -> None:
        left, right, _ = pair(seal)
        body = secrets.token_bytes(2 * RECORD_LIMIT + 3)
        await left.send(MESSAGE, body)
        got = [await right.receive() for _ in range(3)]
        assert [kind for kind, _ in got] == [DATA, DATA, MESSAGE]
        assert [len(part) for _, part in got] == [RECORD_LIMIT, RECORD_LIMIT, 3]
        assert b"".join(part for _, part in got) == body

    run(work())


def test_under_sm4_the_body_is_not_readable() -> None:
    async def work() -> None:
        left, _, wire = pair(SealMode.SM4)
        await left.send(DATA, b"plain words " * 10)
        assert b"plain" not in wire.take()[0]

    run(work())


def damage_drop(frames: list[bytes]) -> list[bytes]:
    return frames[1:]


def damage_repeat(frames: list[bytes]) -> list[bytes]:
    return [frames[0], frames[0], *frames[1:]]


def damage_swap(frames: list[bytes]) -> list[bytes]:
    return [frames[1], frames[0], *frames[2:]]


@MODES
@pytest.mark.parametrize("damage", [damage_drop, damage_repeat, damage_swap])
def test_lost_repeated_and_moved_records_do_not_open(seal: SealMode, damage: Any) -> None:
    async def work() -> None:
        left, right, wire = pair(seal)
        for body in (b"one", b"two", b"three"):
            await left.send(DATA, body)
        wire.put(damage(wire.take()))
        with pytest.raises(IntegrityFailed) as caught:
            for _ in range(3):
                await right.receive()
        assert caught.value.party == "gov"

    run(work())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8 * (1 + 40 + 16) - 1), st.sampled_from([DATA, MESSAGE]))
def test_any_flipped_bit_of_a_sealed_record_is_found(bit: int, kind: RecordType) -> None:
    async def work() -> None:
        left, right, wire = pair(SealMode.SM4)
        await left.send(kind, b"x" * 40)
        frame = bytearray(wire.take()[0])
        frame[bit // 8] ^= 1 << bit % 8
        wire.put([bytes(frame)])
        with pytest.raises((IntegrityFailed, ProtocolFailed)):  # a type that does not exist is found before
            await right.receive()

    run(work())


@pytest.mark.parametrize("told", [DATA, EOF, HEARTBEAT])
def test_a_record_does_not_change_its_type(told: RecordType) -> None:
    async def work() -> None:
        left, right, wire = pair(SealMode.SM4)
        await left.send(MESSAGE, b"")
        wire.put([bytes([told]) + wire.take()[0][1:]])
        with pytest.raises(IntegrityFailed):
            await right.receive()

    run(work())


def test_records_belong_to_one_connection_and_one_direction() -> None:
    async def work() -> None:
        keys = secrets.token_bytes(16), secrets.token_bytes(16)
        wire = Wire()

        def end(connection: bytes, is_caller: bool) -> SealedStream:
            return SealedStream(Session("a", "b", connection, SealMode.SM4, *keys, is_caller), wire.read, wire.write)

        await end(b"1" * 16, True).send(DATA, b"x")
        frame = wire.take()[0]
        # Same keys on purpose: what refuses here is the connection id and the sender in the record itself.
        for connection, reads_as_caller in ((b"2" * 16, False), (b"1" * 16, True)):
            wire.put([frame])
            reader = SealedStream(
                Session("b", "a", connection, SealMode.SM4, keys[1], keys[0], reads_as_caller), wire.read, wire.write
            )
            with pytest.raises(IntegrityFailed):
                await reader.receive()
        wire.put([frame])
        right = SealedStream(Session("b", "a", b"1" * 16, SealMode.SM4, keys[1], keys[0], False), wire.read, wire.write)
        assert await right.receive() == (DATA, b"x")

    run(work())


@MODES
def test_an_end_without_eof_is_a_cut(seal: SealMode) -> None:
    async def work() -> None:
        left, right, wire = pair(seal)
        await left.send(DATA, b"x")
        wire.put([None])
        assert await right.receive() == (DATA, b"x")
        with pytest.raises(PartyFailed, match="gov ended its connection"):
            await right.receive()
        assert right.is_cut

    run(work())


@MODES
def test_nothing_follows_eof(seal: SealMode) -> None:
    async def work() -> None:
        left, right, _ = pair(seal)
        await left.send(EOF)
        with pytest.raises(ProtocolFailed):
            await left.send(DATA, b"x")
        left.said_eof = False  # a peer that does it nevertheless
        await left.send(DATA, b"x")
        await right.receive()
        with pytest.raises(ProtocolFailed):
            await right.receive()

    run(work())


@MODES
@pytest.mark.parametrize(
    "frame", [b"", b"\x01", b"\x01" + bytes(7), b"\x09" + bytes(40), b"\x01" + bytes(RECORD_LIMIT + 17)]
)
def test_frames_that_are_none_are_refused(seal: SealMode, frame: bytes) -> None:
    async def work() -> None:
        _, right, wire = pair(seal)
        wire.put([frame])
        with pytest.raises((ProtocolFailed, IntegrityFailed)):
            await right.receive()

    run(work())


@MODES
@pytest.mark.parametrize("kind", [EOF, HEARTBEAT])
def test_empty_types_carry_nothing(seal: SealMode, kind: RecordType) -> None:
    async def work() -> None:
        left, right, _ = pair(seal)
        await left.send(kind, b"x")
        with pytest.raises(ProtocolFailed):
            await right.receive()

    run(work())


def test_the_first_record_proves_the_keys() -> None:
    async def work() -> None:
        left, right, _ = pair(SealMode.SM4)
        await asyncio.gather(left.confirm(), right.confirm())
        left, right, _ = pair(SealMode.SM4)
        stranger, _, wire = pair(SealMode.SM4)
        await stranger.send(HEARTBEAT)
        wrong = SealedStream(
            Session("bank", "gov", b"c" * 16, SealMode.SM4, bytes(16), bytes(16), False), wire.read, Wire().write
        )
        with pytest.raises(IntegrityFailed):
            await wrong.confirm()
        await left.send(MESSAGE, b"x")
        with pytest.raises(ProtocolFailed):
            await right.confirm()

    run(work())


def test_a_box_keeps_order_per_label_and_waits_for_room() -> None:
    async def work() -> None:
        box, put = Mailbox(1000), 0

        async def write() -> None:
            nonlocal put
            for index in range(50):
                await box.put("ab"[index % 2], bytes([index]) + bytes(99))
                put += 1

        writer = asyncio.create_task(write())
        most, got = 0, []
        for _ in range(25):
            for label in "ab":
                await asyncio.sleep(0)
                most = max(most, box.used)
                got.append((await box.get(label))[0])
                assert put - len(got) <= 1000 // 164
        await writer
        assert got == list(range(50))
        assert 100 < most <= 1000
        assert box.used == 0

    run(work())


def test_a_message_larger_than_the_box_passes_alone() -> None:
    async def work() -> None:
        box = Mailbox(10)
        await box.put("a", b"x" * 100)
        second = asyncio.create_task(box.put("a", b"y"))
        await asyncio.sleep(0.01)
        assert not second.done()
        assert await box.get("a") == b"x" * 100
        await second
        assert await box.get("a") == b"y"

    run(work())


def test_an_ended_box_is_read_to_its_end_and_a_closed_one_is_not() -> None:
    async def work() -> None:
        error: SandboxError = PartyFailed("over")
        box = Mailbox(1000)
        await box.put("a", b"1")
        waits = asyncio.create_task(box.get("b"))
        await asyncio.sleep(0)
        box.end(error)
        assert await box.get("a") == b"1"
        for pending in (waits, box.get("a"), box.put("a", b"2")):
            with pytest.raises(PartyFailed):
                await pending
        box = Mailbox(100)
        await box.put("a", b"1")
        writer, reader = asyncio.create_task(box.put("a", b"2" * 50)), asyncio.create_task(box.get("b"))
        await asyncio.sleep(0)
        box.close(error)
        for pending in (writer, reader, box.get("a"), box.put("a", b"")):
            with pytest.raises(PartyFailed):
                await pending

    run(work())


def test_a_reader_that_gives_up_loses_nothing() -> None:
    async def work() -> None:
        box = Mailbox(1000)
        for index in range(20):
            reader = asyncio.create_task(box.get("a"))
            await asyncio.sleep(0)
            await box.put("a", bytes([index]))
            reader.cancel()  # cancelled in the same turn in which the message came
            await asyncio.gather(reader, return_exceptions=True)
            assert await asyncio.wait_for(box.get("a"), 1) == bytes([index])

    run(work())
