"""A computation in parts: what is run, run again, left out, and how it ends; two parties or three, in one loop."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sandbox.errors import (
    BudgetSpent,
    Cancelled,
    DeadlinePassed,
    IntegrityFailed,
    Interrupted,
    InvalidSpec,
    JobFailed,
    OutputWithheld,
    PartyFailed,
    PolicyRefused,
    ProtocolFailed,
    SandboxError,
    Unavailable,
    WrongState,
)
from sandbox.host import Attempt
from sandbox.model import RawResult
from sandbox.parts import ATTEMPTS, Parts, went_away

RAW = RawResult({"rows": 20}, {}, {})
NAMES = ("bank", "operator", "witness")
Behaviour = Callable[["Side", Attempt], Awaitable[None]]


class Line:
    """One party's connections with the others: messages arrive at once, and breaking one wakes whoever waits."""

    def __init__(self, me: str, names: Sequence[str]) -> None:
        self.me, self.peers = me, tuple(name for name in names if name != me)
        self.broken: asyncio.Future[SandboxError] = asyncio.get_running_loop().create_future()
        self.queues: dict[tuple[str, str], asyncio.Queue[bytes]] = {}
        self.lines: dict[str, Line] = {}

    def queue(self, party: str, label: str) -> asyncio.Queue[bytes]:
        return self.queues.setdefault((party, label), asyncio.Queue())

    async def broadcast(self, label: str, body: bytes = b"") -> None:
        self.check()
        for peer in self.peers:
            self.lines[peer].queue(self.me, label).put_nowait(body)

    async def recv(self, party: str, label: str, timeout_s: float) -> bytes:
        self.check()
        came = asyncio.ensure_future(self.queue(party, label).get())
        try:
            first: set[asyncio.Future[Any]] = {came, self.broken}
            await asyncio.wait(first, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if came.done():
                return came.result()
            self.check()
            raise DeadlinePassed(party=party)
        finally:
            came.cancel()

    def check(self) -> None:
        if self.broken.done():
            raise self.broken.result()

    def cut(self, party: str, cause: BaseException | None = None) -> None:
        """As a node does when a party's connection ends, with its reason or without."""
        if not self.broken.done():
            error = PartyFailed(party=party)
            error.__cause__ = cause
            self.broken.set_result(error)


@dataclass
class Side:
    """One party: what it has kept, what its workers do, and what was asked of them."""

    name: str
    behave: Behaviour
    kept: set[int] = field(default_factory=set)
    cores: int = 2
    resumed: bool = False
    asked: list[tuple[str, int, int]] = field(default_factory=list)  # stage, part, attempt
    cancelled: list[int] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    scratch: list[Path] = field(default_factory=list)
    charged: int = 0  # parts counted once more
    running: int = 0
    most: int = 0
    line: Line | None = None
    fail: Callable[[SandboxError], None] | None = None

    async def work(self, name: str, attempt: Attempt, together: bool, fail: Any) -> RawResult:
        assert together == (name == "compute") and attempt.scratch is not None and attempt.scratch.is_dir()
        assert (fail is not None) == together
        self.asked.append((name, attempt.part, attempt.number))
        self.scratch.append(attempt.scratch)
        if name != "compute":
            return RAW
        self.running += 1
        self.most = max(self.most, self.running)
        self.fail = fail
        try:
            await asyncio.sleep(0)
            await self.behave(self, attempt)
            self.kept.add(attempt.part)
            return RAW
        except asyncio.CancelledError:
            self.cancelled.append(attempt.part)
            raise
        finally:
            self.running -= 1

    def attempts(self, part: int) -> int:
        return sum(asked[:2] == ("compute", part) for asked in self.asked)


async def well(side: Side, attempt: Attempt) -> None:
    await asyncio.sleep(0.001)


async def forever(side: Side, attempt: Attempt) -> None:
    await asyncio.sleep(60)


def failing(error: Callable[[], SandboxError], part: int, times: int) -> Behaviour:
    """Fail in one part, so many times."""

    async def behave(side: Side, attempt: Attempt) -> None:
        if attempt.part == part and attempt.number < times:
            raise error()
        await asyncio.sleep(0.001)

    return behave


def run(folder: Path, count: int, *sides: Side, meanwhile: Any = None) -> dict[str, Any]:
    """Run the parts at every side; side -> what it got or raised."""

    async def main() -> dict[str, Any]:
        lines = {side.name: Line(side.name, [one.name for one in sides]) for side in sides}

        async def one(side: Side) -> Any:
            line = side.line = lines[side.name]
            line.lines = lines

            async def kept(job: Any, prefix: str) -> list[str]:
                return [f"{prefix}{part}" for part in sorted(side.kept)]

            async def charge_again(job: Any, again: int, of: int) -> None:
                assert of == count
                side.charged += again

            async def was_resumed(job: Any) -> bool:
                return side.resumed

            settings = SimpleNamespace(ray_cpus=side.cores)
            ledger = SimpleNamespace(kept=kept, charge_again=charge_again, was_resumed=was_resumed, settings=settings)
            job = SimpleNamespace(job_id="ab" * 16, plan=SimpleNamespace(deadline_s=5))
            parts = Parts(ledger, job, line, side.work, folder, count, side.done.append)  # type: ignore[arg-type]
            try:
                return await parts.compute()
            except SandboxError as error:
                for other in lines.values():  # as the exchange does: the others hear why
                    if other is not line:
                        other.cut(side.name, error)
                return error

        tasks = [asyncio.create_task(one(side)) for side in sides]
        if meanwhile is not None:
            await meanwhile(lines)
        results = await asyncio.wait_for(asyncio.gather(*tasks), 10)
        return dict(zip(lines, results, strict=True))

    ended = asyncio.run(main())
    assert list(folder.iterdir()) == [], "what the parts shared is gone, however they ended"
    return ended


def pair(left: Behaviour = well, right: Behaviour = well, **options: Any) -> tuple[Side, Side]:
    return Side("bank", left, **options), Side("operator", right, **options)


# --- all goes well --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parties", [2, 3])
def test_every_part_is_run_once_between_one_split_and_one_gather(tmp_path: Path, parties: int) -> None:
    sides = [Side(name, well) for name in NAMES[:parties]]
    assert run(tmp_path, 7, *sides) == dict.fromkeys(NAMES[:parties], RAW)
    for side in sides:
        assert side.asked[0] == ("split", 0, ATTEMPTS) and side.asked[-1] == ("gather", 0, ATTEMPTS)
        assert sorted(side.asked[1:-1]) == [("compute", part, 0) for part in range(7)]
        assert side.done == list(range(8)) and side.kept == set(range(7))
        assert len(set(side.scratch)) == 1


@pytest.mark.parametrize(("kept", "charged"), [(0, 2), (3, 2), (6, 1), (7, 0)])
def test_after_an_interruption_parts_that_may_have_been_sent_count_once_more(
    tmp_path: Path, kept: int, charged: int
) -> None:
    """As many as run at once may have been on their way, and whoever went away may ask about other keys now."""
    sides = pair(kept=set(range(kept)), resumed=True)
    run(tmp_path, 7, *sides)
    assert [side.charged for side in sides] == [charged, charged]


def test_what_the_parts_share_is_private(tmp_path: Path) -> None:
    seen: list[int] = []

    async def look(side: Side, attempt: Attempt) -> None:
        assert attempt.scratch is not None
        seen.append(stat.S_IMODE(attempt.scratch.stat().st_mode))
        (attempt.scratch / f"{side.name}-{attempt.part}").write_bytes(b"digests")

    run(tmp_path, 2, *pair(look, look))
    assert seen == [0o700] * 4


@pytest.mark.parametrize(("left", "right"), [(1, 4), (4, 1), (3, 3), (4, 2)])
def test_as_many_run_at_once_as_the_weaker_side_can(tmp_path: Path, left: int, right: int) -> None:
    sides = pair()
    sides[0].cores, sides[1].cores = left, right
    run(tmp_path, 12, *sides)
    assert {side.most for side in sides} == {min(left, right)}


# --- what is there already ------------------------------------------------------------------------------------------


def test_parts_that_everybody_has_kept_are_not_run_again(tmp_path: Path) -> None:
    sides = pair()
    sides[0].kept, sides[1].kept = {0, 1, 2}, {1, 2, 3}
    run(tmp_path, 6, *sides)
    for side in sides:
        assert {part for stage, part, _ in side.asked if stage == "compute"} == {0, 3, 4, 5}
        assert side.done[0] == 2 and side.done[-1] == 6
        assert [asked[0] for asked in side.asked].count("split") == 1
        assert side.charged == 1  # the one it had kept and the other had not


def test_if_all_is_there_only_the_gathering_is_left(tmp_path: Path) -> None:
    sides = [Side(name, forever, kept=set(range(4))) for name in NAMES]
    assert run(tmp_path, 4, *sides) == dict.fromkeys(NAMES, RAW)
    assert all([asked[0] for asked in side.asked] == ["split", "gather"] for side in sides)


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"done": [4], "cores": 1}',
        b'{"done": [-1], "cores": 1}',
        b'{"done": ["0"], "cores": 1}',
        b'{"done": [[0]], "cores": 1}',
        b'{"done": [true], "cores": 1}',
        b'{"done": 1, "cores": 1}',
        b'{"done": [], "cores": "1"}',
        b'{"done": [], "cores": true}',
        b'{"done": [0]}',
        b"[" * 200_000,
    ],
)
def test_a_list_of_parts_that_is_none_is_refused_by_name(tmp_path: Path, told: bytes) -> None:
    async def speak(lines: Mapping[str, Line]) -> None:
        lines["bank"].queue("operator", "parts").put_nowait(told)

    bank, operator = pair(forever, forever)
    error = run(tmp_path, 4, bank, operator, meanwhile=speak)["bank"]
    assert isinstance(error, ProtocolFailed) and (error.party, error.stage) == ("operator", "compute")
    assert bank.attempts(0) == 0


def test_no_core_at_all_is_one(tmp_path: Path) -> None:
    async def speak(lines: Mapping[str, Line]) -> None:
        lines["bank"].queue("operator", "parts").put_nowait(b'{"done": [], "cores": 0}')

    sides = pair()
    assert run(tmp_path, 3, *sides, meanwhile=speak)["bank"] == RAW
    assert sides[0].most == 1


# --- a part fails ---------------------------------------------------------------------------------------------------

AGAIN = (DeadlinePassed, JobFailed, PartyFailed, ProtocolFailed)
AT_ONCE = (
    BudgetSpent,
    Cancelled,
    IntegrityFailed,
    InvalidSpec,
    OutputWithheld,
    PolicyRefused,
    Unavailable,
    WrongState,
)


@pytest.mark.parametrize("kind", AGAIN)
@pytest.mark.parametrize("times", [1, ATTEMPTS - 1])
def test_a_part_that_fails_is_run_again_everywhere(tmp_path: Path, kind: type[SandboxError], times: int) -> None:
    sides = pair(failing(kind, 2, times))
    assert run(tmp_path, 4, *sides) == {"bank": RAW, "operator": RAW}
    for side in sides:
        assert [side.attempts(part) for part in range(4)] == [1, 1, times + 1, 1]
        assert side.charged == times  # who asks once more may ask about other keys
        assert side.done == list(range(5))


@pytest.mark.parametrize("kind", AGAIN)
def test_a_part_that_fails_thrice_ends_it(tmp_path: Path, kind: type[SandboxError]) -> None:
    sides = pair(failing(lambda: kind("the third time"), 1, ATTEMPTS))
    ended = run(tmp_path, 2, *sides)
    assert type(ended["bank"]) is kind and str(ended["bank"]) == "the third time"
    assert isinstance(ended["operator"], PartyFailed) and ended["operator"].party == "bank"
    assert [side.attempts(1) for side in sides] == [ATTEMPTS, ATTEMPTS]


@pytest.mark.parametrize("kind", AT_ONCE)
def test_what_another_try_would_not_mend_ends_it_at_once(tmp_path: Path, kind: type[SandboxError]) -> None:
    sides = pair(failing(kind, 0, 1))
    ended = run(tmp_path, 1, *sides)
    assert type(ended["bank"]) is kind
    assert isinstance(ended["operator"], PartyFailed) and isinstance(ended["operator"].__cause__, kind)
    assert sides[0].attempts(0) == 1 and sides[1].attempts(0) == 1


def test_another_party_s_failure_stops_our_worker(tmp_path: Path) -> None:
    """Otherwise it would wait for its peer until its patience ends."""

    async def waits_the_first_time(side: Side, attempt: Attempt) -> None:
        await asyncio.sleep(60 if attempt.number == 0 else 0)

    sides = pair(failing(JobFailed, 0, 1), waits_the_first_time)
    assert run(tmp_path, 1, *sides) == {"bank": RAW, "operator": RAW}
    assert sides[1].cancelled == [0] and sides[1].attempts(0) == 2


def test_with_three_all_run_the_part_again(tmp_path: Path) -> None:
    sides = [
        Side(name, behave) for name, behave in zip(NAMES, (well, failing(ProtocolFailed, 0, 1), well), strict=True)
    ]
    assert run(tmp_path, 2, *sides) == dict.fromkeys(NAMES, RAW)
    assert [side.attempts(0) for side in sides] == [2, 2, 2] and [side.attempts(1) for side in sides] == [1, 1, 1]


def test_a_side_that_had_finished_the_part_runs_it_again_as_well(tmp_path: Path) -> None:
    async def late(side: Side, attempt: Attempt) -> None:
        await asyncio.sleep(0.02)
        if attempt.number == 0:
            raise JobFailed

    sides = pair(late, well)
    assert run(tmp_path, 1, *sides) == {"bank": RAW, "operator": RAW}
    assert sides[1].attempts(0) == 2 and sides[1].cancelled == []


def test_a_broken_link_of_a_part_fails_that_part_alone(tmp_path: Path) -> None:
    async def link_breaks(side: Side, attempt: Attempt) -> None:
        if attempt.part == 0 and attempt.number == 0:
            assert side.fail is not None
            side.fail(PartyFailed("the engine's link", party="operator"))
            side.fail(JobFailed("later causes change nothing"))
            await asyncio.sleep(60)
        await asyncio.sleep(0.001)

    sides = pair(link_breaks, well)
    sides[0].cores = 1
    assert run(tmp_path, 3, *sides) == {"bank": RAW, "operator": RAW}
    assert sides[0].cancelled == [0]
    assert [side.attempts(0) for side in sides] == [2, 2] and [side.attempts(1) for side in sides] == [1, 1]


def test_attempts_never_hear_each_other() -> None:
    tags = {Attempt(part, 9, number).tag for part in range(9) for number in range(ATTEMPTS)}
    links = {Attempt(part, 9, number).link for part in range(9) for number in range(ATTEMPTS)}
    assert len(tags) == len(links) == 9 * ATTEMPTS
    assert Attempt().tag == "" and Attempt().link == 0


# --- a party goes away ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", [None, Interrupted("the node was stopped")])
def test_a_lost_party_interrupts_and_what_is_done_stays(tmp_path: Path, cause: Any) -> None:
    async def third_waits(side: Side, attempt: Attempt) -> None:
        await asyncio.sleep(60 if attempt.part >= 2 else 0)

    async def lose(lines: Mapping[str, Line]) -> None:
        await asyncio.sleep(0.1)
        lines["bank"].cut("operator", cause)
        lines["operator"].cut("bank", cause)

    sides = pair(third_waits, third_waits)
    ended = run(tmp_path, 4, *sides, meanwhile=lose)
    for name, other in (("bank", "operator"), ("operator", "bank")):
        assert isinstance(ended[name], Interrupted)
        assert (ended[name].party, ended[name].stage) == (other, "compute")
    for side in sides:
        assert side.kept == {0, 1} and sorted(side.cancelled) == [2, 3] and side.running == 0
        assert ("gather", 0, 0) not in side.asked


@pytest.mark.parametrize("stage", ["split", "gather"])
def test_a_party_lost_in_the_stages_of_each_alone_interrupts_as_well(tmp_path: Path, stage: str) -> None:
    class Alone(Side):
        async def work(self, name: str, attempt: Attempt, together: bool, fail: Any) -> RawResult:
            raw = await super().work(name, attempt, together, fail)
            if name == stage and self.name == "bank":
                assert self.line is not None
                self.line.cut("operator")
                self.line.check()  # as the node's stages do
            return raw

    sides = Alone("bank", well), Alone("operator", well)
    error = run(tmp_path, 2, *sides)["bank"]
    assert isinstance(error, Interrupted) and (error.party, error.stage) == ("operator", "compute")
    assert sides[0].kept == (set() if stage == "split" else {0, 1})


def test_a_party_that_ended_the_job_does_not_interrupt_it(tmp_path: Path) -> None:
    cancelled = Cancelled(party="operator")

    async def end(lines: Mapping[str, Line]) -> None:
        await asyncio.sleep(0.05)
        lines["bank"].cut("operator", cancelled)

    bank, operator = pair(forever, forever)
    error = run(tmp_path, 2, bank, operator, meanwhile=end)["bank"]
    assert isinstance(error, PartyFailed) and error.__cause__ is cancelled


def test_a_worker_that_fails_because_the_party_is_lost_does_not_hide_it(tmp_path: Path) -> None:
    async def fails_with_the_line(side: Side, attempt: Attempt) -> None:
        assert side.line is not None
        side.line.cut("operator")
        raise PartyFailed("the engine noticed first", party="operator")

    bank, operator = pair(fails_with_the_line, forever)
    error = run(tmp_path, 1, bank, operator)["bank"]
    assert isinstance(error, Interrupted) and error.party == "operator"
    assert bank.attempts(0) == 1


def test_who_went_away_and_who_did_not() -> None:
    away, back, ended = PartyFailed(party="a"), PartyFailed(party="a"), PartyFailed(party="a")
    back.__cause__, ended.__cause__ = Interrupted(), WrongState()
    assert went_away(away) and went_away(back) and not went_away(ended)
    assert not went_away(ProtocolFailed(party="a")) and not went_away(DeadlinePassed())
