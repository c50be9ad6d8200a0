"""A computation in many parts, each a worker of its own at every party: bounded memory, retry, and resume.

    split      at each node alone: the rows are cut into parts, the same way everywhere
    part n     a worker at every party; its result is kept, sealed, before the part counts as done
    gather     at each node alone: the parts' results become one

A part that fails at one party is run again at all of them, at most twice, on the same committed rows. If a party goes
away altogether the job waits for it; when it is back (``pipeline``), every party says which parts it has kept, and only
those that somebody lacks are run.

Errors:   ``Interrupted`` when a party went away while parts were running; the last error of a part that failed thrice;
          whatever else ends a job ends this one too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

from sandbox.errors import (
    DeadlinePassed,
    Interrupted,
    InvalidSpec,
    JobFailed,
    PartyFailed,
    ProtocolFailed,
    SandboxError,
)
from sandbox.host import READY_S, Attempt
from sandbox.ledger import Ledger
from sandbox.model import RawResult
from sandbox.peer.job import JobLinks
from sandbox.record import Job

log = logging.getLogger(__name__)
ATTEMPTS: Final = 3
PART: Final = "part-"  # artefacts that hold a part's result
_AGAIN: Final = (DeadlinePassed, JobFailed, PartyFailed, ProtocolFailed)
_OK, _FAILED = b"ok", b"failed"

# Runs one stage in a worker: its name, which part, whether all parties take part, who hears of a broken engine link.
Work = Callable[[str, Attempt, bool, Callable[[SandboxError], None] | None], Awaitable[RawResult]]


class Parts:
    """One job's parts at one node, while its connections are open."""

    def __init__(
        self,
        ledger: Ledger,
        job: Job,
        connections: JobLinks,
        work: Work,
        run: Path,
        count: int,
        on_done: Callable[[int], None] = lambda done: None,
    ) -> None:
        """Args:
        run: the node's private run directory.
        count: how many parts, the same at every party.
        on_done: told how many parts are done, whenever one more is.
        """
        self._on_done, self._done = on_done, 0
        self._last: SandboxError | None = None  # of a part that failed too often
        self._ledger, self._job, self._connections, self._work = ledger, job, connections, work
        self._run, self._count = run, count
        self._others = connections.peers

    async def compute(self) -> RawResult:
        """Split, run every part that is not done everywhere, gather."""
        try:
            return await self._compute()
        except SandboxError as error:
            if self._connections.broken.done() and went_away(cause := self._connections.broken.result()):
                raise Interrupted(str(cause), party=cause.party, stage="compute") from error
            raise

    async def _compute(self) -> RawResult:
        with _scratch(self._run) as scratch:
            await self._work("split", Attempt(0, self._count, ATTEMPTS, scratch), False, None)
            done, at_once = await self._compare()
            if done:
                log.info("job %s: %d of %d parts are there already", self._job.job_id, len(done), self._count)
            self._done = len(done)
            self._on_done(self._done)
            slots = asyncio.Semaphore(at_once)
            todo = [number for number in range(self._count) if number not in done]
            try:
                async with asyncio.TaskGroup() as group:
                    for number in todo:
                        group.create_task(self._part(number, scratch, slots))
            except BaseExceptionGroup as errors:
                first = self._first(errors)
                raise first from first.__cause__  # which says whether the other party ended the job, and how
            return await self._work("gather", Attempt(0, self._count, ATTEMPTS, scratch), False, None)

    def _first(self, errors: BaseExceptionGroup[BaseException]) -> BaseException:
        """Return why the parts ended; a party that is away interrupts them."""
        if self._last is not None:  # the others end for this, too, and may have said so already
            return self._last
        broken = self._connections.broken
        if broken.done():
            cause = broken.result()
            if went_away(cause):
                return Interrupted(str(cause), party=cause.party, stage="compute")
            return cause
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        return first

    async def _compare(self) -> tuple[frozenset[int], int]:
        """Return the parts that everybody has kept, and how many may run at once."""
        kept = await self._ledger.kept(self._job, PART)
        mine = own = frozenset(int(name.removeprefix(PART)) for name in kept)
        cores = self._ledger.settings.ray_cpus
        await self._connections.broadcast("parts", json.dumps({"done": sorted(own), "cores": cores}).encode())
        for party in self._others:
            told = _told(party, await self._connections.recv(party, "parts", READY_S), self._count)
            own, cores = own & told[0], min(cores, told[1])
        again = len(mine - own)  # who asks for a part once more may ask about other keys: it counts once more
        if await self._ledger.was_resumed(self._job):
            again += min(cores, self._count - len(mine))  # as many may have been on their way when a party went away
        if again:
            await self._ledger.charge_again(self._job, again, self._count)
        return own, cores

    async def _part(self, number: int, scratch: Path, slots: asyncio.Semaphore) -> None:
        async with slots:
            for attempt in range(ATTEMPTS):
                if attempt:
                    await self._ledger.charge_again(self._job, 1, self._count)
                error = await self._attempt(Attempt(number, self._count, attempt, scratch))
                if error is None:
                    self._done += 1
                    self._on_done(self._done)
                    return
                log.warning("job %s: part %d failed, attempt %d: %s", self._job.job_id, number, attempt + 1, error)
            if error is not None:
                self._last = self._last or error
                raise error

    async def _attempt(self, attempt: Attempt) -> SandboxError | None:
        """Run a part once; return why it failed, here or elsewhere."""
        label = f"part{attempt.tag}"
        broken_link: asyncio.Future[SandboxError] = asyncio.get_running_loop().create_future()

        def fail(error: SandboxError) -> None:
            if not broken_link.done():
                broken_link.set_result(error)

        own = asyncio.ensure_future(self._work("compute", attempt, True, fail))
        others = {
            party: asyncio.create_task(self._connections.recv(party, label, self._job.plan.deadline_s))
            for party in self._others
        }
        try:
            error = await self._outcome(own, broken_link, others)
            await self._connections.broadcast(label, _FAILED if error else _OK)
            for party, answer in others.items():
                if await answer != _OK and error is None:
                    error = PartyFailed(tell="a part of the computation failed there", party=party, stage="compute")
            return error
        finally:
            for task in (own, *others.values()):
                if not task.done():
                    task.cancel()
            await asyncio.gather(own, *others.values(), return_exceptions=True)

    async def _outcome(
        self,
        own: asyncio.Future[RawResult],
        broken_link: asyncio.Future[SandboxError],
        others: dict[str, asyncio.Task[bytes]],
    ) -> SandboxError | None:
        """Wait for this node's worker, but no longer than the part goes well everywhere."""
        waiting: set[asyncio.Future[Any]] = {own, broken_link, *others.values()}
        while not own.done():
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for party, answer in others.items():
                if answer.done() and not own.done():
                    if answer.result() != _OK:
                        return PartyFailed(tell="a part of the computation failed there", party=party, stage="compute")
                    waiting.discard(answer)
            if broken_link.done() and not own.done():
                return broken_link.result()
        try:
            await own
        except _AGAIN as error:
            if self._connections.broken.done():
                raise
            return error
        return None


def went_away(error: SandboxError) -> bool:
    """Whether a party's connection was lost, or the party said that it will be back; not that it ended the job."""
    return isinstance(error, PartyFailed) and (error.__cause__ is None or isinstance(error.__cause__, Interrupted))


@contextlib.contextmanager
def _scratch(run: Path) -> Iterator[Path]:
    """A private directory for what the parts share; gone afterwards, or with the run directory."""
    made = Path(tempfile.mkdtemp(prefix="s-", dir=run))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        if made.exists():  # a worker that was stopped may still write; the run directory goes with the node
            shutil.rmtree(made, ignore_errors=True)
            log.warning("the directory of a job's parts was removed late: %s", "no" if made.exists() else "yes")


def _told(party: str, message: bytes, count: int) -> tuple[frozenset[int], int]:
    try:
        found = json.loads(message)
        done, cores = frozenset(found["done"]), found["cores"]
        if not all(type(number) is int and 0 <= number < count for number in done) or type(cores) is not int:
            raise InvalidSpec("not numbers of parts")
    except (ValueError, KeyError, TypeError, RecursionError, InvalidSpec):
        raise ProtocolFailed("a party's list of parts is none", party=party, stage="compute") from None
    return done, max(1, cores)
