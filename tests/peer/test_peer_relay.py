"""Engine links through real servers: bytes equal both ways, half-close kept, cuts named."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from peer_nodes import JOB, Node, Settings, joined, running

from sandbox.errors import JobFailed, PartyFailed, ProtocolFailed
from sandbox.model import ChannelPurpose, SealMode
from sandbox.peer import relay
from sandbox.peer.channel import RecordType

Engine = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def relayed(*nodes: Node) -> AsyncIterator[tuple[list[Any], list[Path]]]:
    """The links of a job with a directory each and the relay on."""
    with tempfile.TemporaryDirectory(prefix="r-") as folder:
        async with joined(*nodes) as jobs:
            directories = [Path(folder) / node.name for node in nodes]
            for each, directory in zip(jobs, directories, strict=True):
                directory.mkdir(mode=0o700)
                await each.relay(directory)
            yield jobs, directories


@contextlib.asynccontextmanager
async def engine_at(directory: Path, serve: Engine) -> AsyncIterator[None]:
    async with await asyncio.start_unix_server(serve, directory / "self.sock"):
        yield


async def dial(directory: Path, peer: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_unix_connection(directory / f"peer-{peer}.sock")


async def pour(writer: asyncio.StreamWriter, data: bytes) -> None:
    for start in range(0, len(data), 300_000):
        writer.write(data[start : start + 300_000])
        await writer.drain()
    writer.write_eof()


@pytest.mark.parametrize("seal", list(SealMode))
def test_bytes_pass_both_ways_with_half_close(seal: SealMode) -> None:
    """The dialling side ends its direction first; the answer comes only after that end was seen."""
    there, back = secrets.token_bytes(10_000_000), secrets.token_bytes(10_000_000)
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(-1))
        await pour(writer, back)
        writer.close()

    async def work() -> None:
        mode = Settings(seal=lambda _: seal)
        async with running("gov", "bank", gov=mode, bank=mode) as nodes, relayed(*nodes) as (jobs, places):
            async with engine_at(places[1], answer):
                reader, writer = await dial(places[0], "bank")
                await pour(writer, there)
                assert await asyncio.wait_for(reader.read(-1), 20) == back
                writer.close()
                await asyncio.gather(*(each.finish() for each in jobs))
            assert seen == [there]
            assert all(20_000_000 < each.traffic < 20_100_000 for each in jobs)
            assert not any(each.broken.done() for each in jobs)

    asyncio.run(work())


def test_what_a_slow_engine_has_not_read_yet_is_delivered_after_both_ends() -> None:
    sizes = range(120_000, 400_000, 20_000)  # some leave bytes in this process when the socket's buffer is full
    seen: list[int] = []

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # nothing is read behind our back either
        writer.write_eof()
        await asyncio.sleep(0.5)
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        seen.append(len(await reader.read(-1)))
        writer.close()

    async def use(place: Path, size: int) -> None:
        reader, writer = await dial(place, "bank")
        await pour(writer, bytes(size))
        assert await reader.read() == b""
        writer.close()

    async def work() -> None:
        async with running("gov", "bank") as nodes, relayed(*nodes) as (_, places), engine_at(places[1], late):
            await asyncio.gather(*(use(places[0], size) for size in sizes))
            async with asyncio.timeout(10):
                while len(seen) < len(sizes):
                    await asyncio.sleep(0.02)
            assert sorted(seen) == list(sizes)

    asyncio.run(work())


def test_several_links_at_once_from_both_sides_and_a_late_engine() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
        writer.close()

    async def use(place: Path, peer: str) -> None:
        reader, writer = await dial(place, peer)
        data = secrets.token_bytes(200_000)
        answer, _ = await asyncio.gather(reader.readexactly(len(data)), pour(writer, data))
        assert answer == data
        assert await reader.read() == b""
        writer.close()

    async def work() -> None:
        async with running("gov", "bank", "witness") as nodes, relayed(*nodes) as (jobs, places):
            names = [node.name for node in nodes]
            uses = [
                asyncio.create_task(use(place, peer))
                for place, name in zip(places, names, strict=True)
                for peer in names
                if peer != name
                for _ in range(2)
            ]
            await asyncio.sleep(0.3)  # every engine dials before any listens
            async with contextlib.AsyncExitStack() as stack:
                for place in places:
                    await stack.enter_async_context(engine_at(place, echo))
                await asyncio.wait_for(asyncio.gather(*uses), 10)
            await asyncio.gather(*(each.finish() for each in jobs))
            assert not any((place / f"peer-{name}.sock").exists() for place in places for name in names)

    asyncio.run(work())


def test_an_engine_that_reads_nothing_holds_the_other_back() -> None:
    async def work() -> None:
        release, total = asyncio.Event(), 0

        async def sleepy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal total
            await release.wait()
            while data := await reader.read(1 << 20):
                total += len(data)
            writer.close()

        async with running("gov", "bank") as nodes, relayed(*nodes) as (_, places), engine_at(places[1], sleepy):
            reader, writer = await dial(places[0], "bank")
            sent = 0

            async def push() -> None:
                nonlocal sent
                for _ in range(100):
                    writer.write(bytes(1 << 20))
                    await writer.drain()
                    sent += 1
                writer.write_eof()

            pusher = asyncio.create_task(push())
            await asyncio.sleep(1.5)
            held = sent
            assert held < 40, "bytes pile up somewhere between the two engines"
            await asyncio.sleep(0.3)
            assert sent == held
            release.set()
            await asyncio.wait_for(pusher, 20)
            assert await asyncio.wait_for(reader.read(), 10) == b""
            assert total == 100 << 20
            writer.close()

    asyncio.run(work())


def test_a_killed_engine_looks_like_its_end_and_breaks_nothing() -> None:
    async def dying(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.transport.abort()

    async def work() -> None:
        async with running("gov", "bank") as nodes, relayed(*nodes) as (jobs, places), engine_at(places[1], dying):
            reader, writer = await dial(places[0], "bank")
            writer.write(b"x" * 100_000)
            assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()
            await asyncio.gather(*(each.finish() for each in jobs))
            assert not any(each.broken.done() for each in jobs)

    asyncio.run(work())


def test_a_lost_node_cuts_its_engine_links_and_is_named() -> None:
    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def work() -> None:
        async with running("gov", "bank") as nodes, relayed(*nodes) as (jobs, places), engine_at(places[1], hold):
            reader, writer = await dial(places[0], "bank")
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.2)
            await nodes[1].server.stop(0)
            assert await asyncio.wait_for(reader.read(), 5) == b""
            error = await asyncio.wait_for(asyncio.shield(jobs[0].broken), 5)
            assert (type(error), error.party) == (PartyFailed, "bank")
            writer.close()

    asyncio.run(work())


async def close_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


def test_a_message_on_an_engine_link_is_a_breach() -> None:
    async def work() -> None:
        async with (
            running("gov", "bank") as nodes,
            relayed(*nodes) as (jobs, places),
            engine_at(places[1], close_at_once),
        ):
            connection = await nodes[0].links._dial("bank", JOB, ChannelPurpose.RELAY)
            await connection.stream.send(RecordType.MESSAGE, b"x")
            error = await asyncio.wait_for(asyncio.shield(jobs[1].broken), 5)
            assert (type(error), error.party) == (ProtocolFailed, "gov")
            connection.frames.cancel()

    asyncio.run(work())


@pytest.mark.parametrize("named", [b"", b"x", b"1234567", b"-1", b"0\n"])
def test_a_link_that_does_not_say_whose_it_is_is_a_breach(named: bytes) -> None:
    async def work() -> None:
        async with (
            running("gov", "bank") as nodes,
            relayed(*nodes) as (jobs, places),
            engine_at(places[1], close_at_once),
        ):
            connection = await nodes[0].links._dial("bank", JOB, ChannelPurpose.RELAY)
            await connection.stream.send(RecordType.DATA, named)
            error = await asyncio.wait_for(asyncio.shield(jobs[1].broken), 5)
            assert (type(error), error.party) == (ProtocolFailed, "gov")
            connection.frames.cancel()

    asyncio.run(work())


# --- several engines of one job -------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def in_parts(parts: int, fail: Any = None) -> AsyncIterator[tuple[list[Any], dict[tuple[str, int], Path]]]:
    """The links of a job of two, with a directory and a relay for each part at each node."""
    with tempfile.TemporaryDirectory(prefix="r-") as folder:
        async with running("gov", "bank") as nodes, joined(*nodes) as jobs:
            places = {(node.name, part): Path(folder) / f"{node.name}{part}" for node in nodes for part in range(parts)}
            for node, each in zip(nodes, jobs, strict=True):
                for part in range(parts):
                    places[node.name, part].mkdir(mode=0o700)
                    await each.relay(places[node.name, part], part, fail)
            yield jobs, places


def saying(word: bytes) -> Engine:
    """An engine that answers whatever comes with its own word."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        await pour(writer, word)
        writer.close()

    return answer


async def ask(place: Path) -> bytes:
    reader, writer = await dial(place, "bank")
    await pour(writer, b"?")
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


def test_every_part_s_links_lead_to_the_same_part() -> None:
    async def work() -> None:
        async with in_parts(4) as (jobs, places), contextlib.AsyncExitStack() as stack:
            for part in range(4):
                await stack.enter_async_context(engine_at(places["bank", part], saying(f"part {part}".encode())))
            answers = await asyncio.gather(*(ask(places["gov", part]) for part in range(4) for _ in range(2)))
            assert answers == [f"part {part}".encode() for part in range(4) for _ in range(2)]
            assert not any(each.broken.done() for each in jobs)

    asyncio.run(work())


def test_a_link_that_comes_before_its_part_waits_for_it() -> None:
    async def work() -> None:
        async with in_parts(1) as (jobs, places):
            late = {name: places[name, 0].parent / f"{name}-late" for name in ("gov", "bank")}
            for place in late.values():
                place.mkdir(mode=0o700)
            await jobs[0].relay(late["gov"], 7)
            asked = asyncio.create_task(ask(late["gov"]))
            await asyncio.sleep(0.3)
            assert not asked.done()
            await jobs[1].relay(late["bank"], 7)
            async with engine_at(late["bank"], saying(b"here")):
                assert await asked == b"here"

    asyncio.run(work())


def test_what_an_engine_wrote_before_it_ended_arrives_though_its_part_is_let_go_at_once() -> None:
    told: list[Any] = []
    heard: list[bytes] = []

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while some := await reader.read(1 << 20):
            heard.append(some)
            await asyncio.sleep(0.02)
        heard.append(b"end")
        writer.close()

    async def work() -> None:
        async with in_parts(1, told.append) as (jobs, places), engine_at(places["bank", 0], slow):
            _, writer = await dial(places["gov", 0], "bank")
            writer.write(bytes(8 << 20))
            await writer.drain()
            writer.close()
            await jobs[0].end_relay(0, 20.0)
            assert sum(map(len, heard[:-1])) == 8 << 20
            assert heard[-1] == b"end"
            assert not told
            assert not any(each.broken.done() for each in jobs)

    asyncio.run(work())


def test_a_part_whose_peer_never_ends_is_let_go_after_a_while() -> None:
    async def work() -> None:
        over = asyncio.Event()

        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await over.wait()
            writer.close()

        async with in_parts(1, [].append) as (jobs, places), engine_at(places["bank", 0], hold):
            _, writer = await dial(places["gov", 0], "bank")
            await asyncio.sleep(0.2)
            writer.close()
            began = asyncio.get_running_loop().time()
            await jobs[0].end_relay(0, 0.5)
            assert 0.4 < asyncio.get_running_loop().time() - began < 30
            over.set()
            await asyncio.sleep(0.1)

    asyncio.run(work())


def test_letting_go_of_one_part_ends_its_links_and_no_other() -> None:
    told: list[Any] = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def work() -> None:
        async with in_parts(2, told.append) as (jobs, places), engine_at(places["bank", 0], hold):
            reader, writer = await dial(places["gov", 0], "bank")
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.2)
            await jobs[0].end_relay(0)
            assert await asyncio.wait_for(reader.read(), 5) == b""
            assert not (places["gov", 0] / "peer-bank.sock").exists()
            async with engine_at(places["bank", 1], saying(b"still here")):
                assert await ask(places["gov", 1]) == b"still here"
            await jobs[0].relay(places["gov", 0], 0)  # another attempt may have the number again
            await jobs[0].end_relay(5)  # one that never was
            writer.close()
            assert not any(each.broken.done() for each in jobs)

    asyncio.run(work())


def test_what_breaks_a_part_s_link_is_told_to_that_part_alone() -> None:
    told: list[Any] = []

    async def work() -> None:
        async with in_parts(1) as (jobs, places):
            mine = places["bank", 0].parent / "bank-mine"
            mine.mkdir(mode=0o700)
            await jobs[1].relay(mine, 3, told.append)
            async with engine_at(mine, close_at_once):
                connection = await jobs[0]._relay._dial("bank")
                await connection.stream.send(RecordType.DATA, b"3")
                await connection.stream.send(RecordType.MESSAGE, b"x")
                async with asyncio.timeout(5):
                    while not told:
                        await asyncio.sleep(0.02)
            assert (type(told[0]), told[0].party) == (ProtocolFailed, "gov")
            assert not jobs[1].broken.done()
            connection.frames.cancel()

    asyncio.run(work())


def test_a_part_has_one_engine() -> None:
    async def work() -> None:
        async with in_parts(1) as (jobs, places):
            with pytest.raises(JobFailed, match="twice"):
                await jobs[0].relay(places["gov", 0], 0)

    asyncio.run(work())


def test_a_peer_cannot_open_links_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_MOST", 3)

    async def work() -> None:
        async with running("gov", "bank") as nodes, relayed(*nodes):
            opened = []
            with pytest.raises(ProtocolFailed, match="too many"):
                for _ in range(5):
                    opened.append(await nodes[0].links._dial("bank", JOB, ChannelPurpose.RELAY))
            assert len(opened) == 3
            for connection in opened:
                connection.frames.cancel()

    asyncio.run(work())


def test_a_directory_too_deep_for_a_socket_is_said_so() -> None:
    async def work() -> None:
        async with running("gov", "bank") as nodes, joined(*nodes) as (gov, _):
            with tempfile.TemporaryDirectory() as folder:
                deep = Path(folder) / ("d" * 100)
                deep.mkdir()
                with pytest.raises(JobFailed):
                    await gov.relay(deep)

    asyncio.run(work())


@pytest.mark.slow
def test_the_fast_intersection_runs_through_the_relay(tmp_path_factory: pytest.TempPathFactory) -> None:
    pytest.importorskip("spu")
    from sandbox.psi import rr22
    from sandbox.psi.contract import EVERYTHING, Role, Terms
    from sandbox.psi.keys import digest
    from sandbox.workspace import Workspace

    left = [f"id-{number}" for number in range(20_000)]
    right = [f"id-{number}" for number in range(10_000, 25_000)]
    terms = Terms(b"p" * 32, b"s" * 32, len(left), len(right))
    sides = {"gov": (Role.LEFT, left, "bank"), "bank": (Role.RIGHT, right, "gov")}

    async def work() -> None:
        async with running("gov", "bank") as nodes, joined(*nodes) as jobs:
            with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory(prefix="r-") as folder:
                stops = threading.Event()
                stack.callback(stops.set)
                spaces = {name: stack.enter_context(Workspace(Path(folder), [sides[name][2]])) for name in sides}
                for node, each in zip(nodes, jobs, strict=True):
                    await each.relay(spaces[node.name].path)

                def intersect(name: str) -> Any:
                    role, keys, peer = sides[name]
                    digests = digest(pa.array(keys), terms.salt)
                    found = rr22.intersect(
                        digests, role, terms, EVERYTHING, spaces[name], peer=peer, deadline_s=60, stop=stops
                    )
                    return [keys[position] for position in found]

                one, two = await asyncio.gather(*(asyncio.to_thread(intersect, name) for name in sides))
                assert one == two
                assert set(one) == set(left) & set(right)
                await asyncio.gather(*(each.finish() for each in jobs))
                assert all(each.traffic > 100_000 for each in jobs)

    asyncio.run(work())
