"""The other side of a job at one node: the parties, over sealed connections, and this party's workers.

``Exchange`` belongs to the node, ``Wires`` to one job while its connections are open. Nothing here is durable; what
must be is in ``ledger``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sandbox import signed, wire
from sandbox.audit import log as audit_log
from sandbox.audit.checkpoint import parse_checkpoint
from sandbox.audit.receipt import Receipt
from sandbox.crypto.sm2 import PublicKey
from sandbox.crypto.sm3 import tagged
from sandbox.errors import AlreadyExists, JobFailed, OutputWithheld, PartyFailed, SandboxError, Unavailable, WrongState
from sandbox.host import READY_S, Attempt, WorkerHost
from sandbox.kinds.model import PRINTED
from sandbox.ledger import SETTING, Ledger
from sandbox.materials import Committed, commitment_to
from sandbox.model import (
    Acceptance,
    CosignQuery,
    Failure,
    GrantStatement,
    OpenedTerms,
    Proposal,
    RawResult,
    Signed,
    Start,
)
from sandbox.parts import Parts
from sandbox.peer.failures import failure_of
from sandbox.peer.job import JobLinks
from sandbox.peer.links import Links
from sandbox.peer.relay import Fail
from sandbox.record import Job
from sandbox.runner import Runner

log = logging.getLogger(__name__)
T = TypeVar("T")
WhenReady = Callable[[], Awaitable[None]]
ANSWER_S = 20.0  # a peer's answer in the stages before the computation
TRAIL_S = 60.0
AWAY_S = 180.0  # how long a job in parts waits for a party that went away
PIECE = 4 << 20  # bytes of a share in one message
MOST_SHARE = 1 << 30  # bytes


@dataclass(frozen=True, slots=True)
class Setting:
    """What all parties agreed on before the first engine byte."""

    rows: Mapping[str, int]
    salt: bytes

    def to_bytes(self) -> bytes:
        """Return it as an artefact, the same at every party."""
        return json.dumps({"rows": dict(self.rows), "salt": self.salt.hex()}, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Setting:
        """Read it back."""
        found = json.loads(content)
        return cls(found["rows"], bytes.fromhex(found["salt"]))


class Exchange:
    """One node's connections and workers."""

    def __init__(
        self, ledger: Ledger, links: Links, runner: Runner, run: Path, identity: Callable[[str], PublicKey]
    ) -> None:
        """Args:
        run: the node's private run directory.
        identity: the pinned identity key of a party, or this node's own.
        """
        self.ledger, self.links, self.runner, self.run, self.identity = ledger, links, runner, run, identity
        self.log_in_order = asyncio.Lock()  # a witness refuses a checkpoint older than the last it saw
        self.granted: dict[str, asyncio.Event] = {}
        self._seen: dict[str, int] = {}

    async def propose(self, job: Job, commitment: bytes) -> tuple[Signed, ...]:
        """Return everybody's acceptance of exactly this plan; if one refuses, those who accepted hear of it."""
        asked = [party for party in job.parties if party != self.ledger.node_id]
        answers = await asyncio.gather(*(self._ask(party, job, commitment) for party in asked), return_exceptions=True)
        refused = next((answer for answer in answers if isinstance(answer, BaseException)), None)
        if refused is None:
            return tuple(answer for answer in answers if isinstance(answer, Signed))
        accepted = [party for party, answer in zip(asked, answers, strict=True) if isinstance(answer, Signed)]
        if accepted:
            why = refused if isinstance(refused, SandboxError) else JobFailed(party=self.ledger.node_id)
            await self._withdraw(job, accepted, self.failure(why, "propose"))
        raise refused

    async def _withdraw(self, job: Job, accepted: list[str], failure: Failure) -> None:
        """Connect to those who wait for the others in vain, and tell them why."""
        try:
            async with self.links.job(job.job_id, [self.ledger.node_id, *accepted], lambda: "propose") as connections:
                await connections.abort(failure)
        except SandboxError as error:
            log.warning("job %s: not everybody heard of its end: %s", job.job_id, error)

    async def _ask(self, party: str, job: Job, commitment: bytes) -> Signed:
        versions = await self.ledger.taken_versions(job.plan)
        proposal = Proposal(job.plan_bytes, job.submission, commitment, versions)
        acceptance = await self.links.propose(party, proposal, ANSWER_S)
        value = wire.decode(Acceptance, acceptance.payload)
        if value.party != party or value.plan_digest != job.plan_digest:
            raise PartyFailed(tell="accepted another plan", party=party, stage="propose")
        return acceptance

    @contextlib.asynccontextmanager
    async def open(
        self, job: Job, stage: Callable[[], str], reason: Callable[[], SandboxError | None], is_alone: bool = False
    ) -> AsyncIterator[Wires]:
        """Connect with every party of a job; on the way out the others hear why, or that all went well.

        Args:
            is_alone: with nobody, for what this node can do by itself.
        """
        warm = asyncio.create_task(self.runner.start())
        self.granted[job.job_id] = asyncio.Event()
        try:
            parties = (self.ledger.node_id,) if is_alone else job.parties
            async with self.links.job(job.job_id, parties, stage) as connections:
                try:
                    yield Wires(self, job, parties, connections, warm)
                except SandboxError as error:
                    await connections.abort(self.failure(error, stage()))
                    raise
                except BaseException:
                    why = reason() or JobFailed(party=self.ledger.node_id)
                    await connections.abort(self.failure(why, stage()))
                    raise
        finally:
            self.granted.pop(job.job_id, None)
            warm.add_done_callback(_note)

    @contextlib.asynccontextmanager
    async def reopen(
        self,
        job: Job,
        stage: Callable[[], str],
        reason: Callable[[], SandboxError | None],
        away_s: float = AWAY_S,
    ) -> AsyncIterator[Wires]:
        """Connect again with every party, waiting for one that is away."""
        end = asyncio.get_running_loop().time() + away_s
        while True:
            opened = contextlib.AsyncExitStack()
            try:
                wires = await opened.enter_async_context(self.open(job, stage, reason))
                break
            except (
                AlreadyExists,
                PartyFailed,
                WrongState,
            ):  # not there yet, or still at its old end
                if asyncio.get_running_loop().time() >= end:
                    raise
            await asyncio.sleep(1.0)
        async with opened:
            yield wires

    async def take_grant(self, party: str, grant: Signed) -> tuple[GrantStatement, bool]:
        """Take another party's grant, or its word about a held job, and wake whoever waits; whether it is new."""
        statement, is_new = await self.ledger.take_grant(party, self.identity(party), grant)
        if statement.job_id in self.granted:
            self.granted[statement.job_id].set()
        return statement, is_new

    async def receipt(self, index: int) -> bytes:
        """Return the receipt of an entry, co-signed; the text form."""
        async with self.log_in_order:
            leaf, path, note = await self.ledger.proof(index)
            cosignature = await self.cosign(note)
        return Receipt(leaf, index, path, note, (cosignature,)).to_text()

    async def witnessed(self) -> None:
        """Have the present head of this log co-signed: from then on it cannot be rewritten unseen."""
        try:
            async with self.log_in_order:
                await self.cosign(await self.ledger.head())
        except SandboxError as error:  # the next job, or the hourly round, tries again
            log.warning("the log was not co-signed: %s", error)

    async def cosign(self, note: bytes) -> bytes:
        """Have the witness check that this log only grew, and co-sign it."""
        witness = self.ledger.settings.witness
        if not witness:
            raise Unavailable(
                tell="this node has no witness, so no result can have a receipt",
                stage="deliver",
                hint='name one in sandbox.toml: witness = "<node id of a peer>"',
            )
        size = parse_checkpoint(note).size
        for _ in range(2):
            old = min(self._seen.get(witness, 0), size)
            with self.ledger.store.read() as conn:
                proof = tuple(audit_log.consistency(conn, old, size)) if 0 < old < size else ()
            line, seen = await self.links.cosign(witness, CosignQuery(old, note, proof))
            if line:
                self._seen[witness] = size
                return line
            self._seen[witness] = seen
        raise Unavailable(
            tell="the witness did not co-sign the log",
            party=witness,
            stage="deliver",
            hint="call the witness's operator",
        )

    def failure(self, error: SandboxError, stage: str) -> Failure:
        """Return what anybody may read of an error; of a withheld output not even where and when."""
        if isinstance(error, OutputWithheld):
            return failure_of(OutputWithheld(), "", "gate")
        return failure_of(error, error.party or self.ledger.node_id, error.stage or stage)


class Wires:
    """One job's connections, and the host of its workers (:class:`sandbox.runner.Host`)."""

    def __init__(
        self, exchange: Exchange, job: Job, parties: Sequence[str], connections: JobLinks, warm: asyncio.Task[None]
    ) -> None:
        self._exchange, self._job, self._connections, self._warm = exchange, job, connections, warm
        self._ledger = exchange.ledger
        self._me = exchange.ledger.node_id
        self._others = [party for party in parties if party != self._me]

    @property
    def traffic(self) -> int:
        """Bytes sent and received so far."""
        return self._connections.traffic

    # --- agreement --------------------------------------------------------------------------------------------------

    async def agree(self, mine: Committed, commitments: Mapping[str, bytes], accepted: tuple[Signed, ...]) -> Setting:
        """Exchange the proof that all accepted, then open everybody's terms; the nonces together make the salt."""
        if self._job.plan.proposer == self._me:
            await self._connections.broadcast("start", wire.encode(Start(accepted)))
        else:
            start = await self._connections.recv(self._job.plan.proposer, "start", ANSWER_S)
            accepted = wire.decode(Start, start).acceptances
        promised = self._promised(accepted)
        if any(promised[party] != value for party, value in commitments.items()):
            raise PartyFailed(tell="changed its terms after proposing", party=self._job.plan.proposer, stage="agree")
        await self._connections.broadcast("terms", wire.encode(mine.opened))
        opened = {self._me: mine.opened}
        for party in self._others:
            opened[party] = wire.decode(OpenedTerms, await self._connections.recv(party, "terms", ANSWER_S))
            if commitment_to(opened[party]) != promised[party]:
                raise PartyFailed(tell="opened other terms than it committed to", party=party, stage="agree")
        for planned in self._job.plan.parties:
            if opened[planned.node_id].terms.content_hash != planned.content_hash:
                raise PartyFailed(tell="would use other rows than planned", party=planned.node_id, stage="agree")
        salt = tagged("salt", b"".join(opened[party].terms.nonce for party in self._job.parties))
        return Setting({party: opened[party].terms.rows for party in self._job.parties}, salt)

    def _promised(self, accepted: tuple[Signed, ...]) -> dict[str, bytes]:
        """Check every acceptance: signed by that party's pinned key, over this very plan."""
        promised = {}
        for acceptance in accepted:
            claimed = wire.decode(Acceptance, acceptance.payload)
            if claimed.party not in self._job.parties:
                raise PartyFailed(tell="brought a stranger's acceptance", party=self._job.plan.proposer, stage="agree")
            value = signed.verify(self._exchange.identity(claimed.party), "acceptance", acceptance, Acceptance)
            if value.plan_digest != self._job.plan_digest:
                raise PartyFailed(tell="accepted another plan", party=claimed.party, stage="agree")
            promised[value.party] = value.commitment
        if set(promised) != set(self._job.parties):
            raise PartyFailed(tell="started without everybody", party=self._job.plan.proposer, stage="agree")
        return promised

    async def grants(self, mine: Signed | None, which: str) -> None:
        """Hand over this owner's grant, and wait for those of all owners."""
        if mine is not None:
            await asyncio.gather(*(self._exchange.links.grant(party, mine) for party in self._others))
        owners = {p.node_id for p in self._job.plan.parties if p.dataset is not None} - {self._me}

        async def wait() -> None:
            while True:
                event = self._exchange.granted[self._job.job_id]
                event.clear()
                if owners <= await self._ledger.granted(self._job, which):
                    return
                await event.wait()

        await self._unless_broken(wait())

    async def shares(self, plan: Mapping[str, tuple[str, ...]]) -> None:
        """Send the last shares this node owes, and take those it is owed."""
        for receiver, senders in plan.items():
            if self._me in senders:
                share = await self._ledger.fetch(self._job, self._job.job_id, f"share-for-{receiver}")
                if receiver == self._me:
                    await self._ledger.keep(self._job, f"share-from-{self._me}", share)
                else:
                    await self._send_share(receiver, share)
        for sender in plan.get(self._me, ()):
            if sender != self._me:
                await self._ledger.keep(self._job, f"share-from-{sender}", await self._take_share(sender))

    async def taken(self, plan: Mapping[str, tuple[str, ...]]) -> None:
        """Wait until the shares this node sent are durable where they went: only then may it forget them."""
        for sender in plan.get(self._me, ()):
            if sender != self._me:
                await self._connections.send(sender, "taken", b"")
        for receiver, senders in plan.items():
            if self._me in senders and receiver != self._me:
                await self._connections.recv(receiver, "taken", READY_S)

    async def _send_share(self, receiver: str, share: bytes) -> None:
        await self._connections.send(receiver, "share", len(share).to_bytes(8, "big"))
        for first in range(0, len(share), PIECE):
            await self._connections.send(receiver, "share", share[first : first + PIECE])

    async def _take_share(self, sender: str) -> bytes:
        size = int.from_bytes(await self._connections.recv(sender, "share", READY_S), "big")
        if size > MOST_SHARE:
            raise PartyFailed(tell="sends more than a result may hold", party=sender, stage="reveal")
        share = bytearray()
        for first in range(0, size, PIECE):
            piece = await self._connections.recv(sender, "share", READY_S)
            if len(piece) != min(PIECE, size - first):
                raise PartyFailed(tell="sends another share than announced", party=sender, stage="reveal")
            share += piece
        return bytes(share)

    async def passed(self) -> None:
        """Wait until the gate of every party has let the job pass: only then is it held anywhere."""
        await self._connections.broadcast("passed")
        for party in self._others:
            await self._connections.recv(party, "passed", READY_S)

    async def part(self) -> None:
        """End the connections in order; whatever goes wrong now, the job is held at this node."""
        try:
            await self._connections.finish()
        except SandboxError as error:
            log.warning("job %s is held, its connections did not end in order: %s", self._job.job_id, error)

    async def closed(self) -> None:
        """Tell the others that whatever later jobs build on is in place here."""
        with contextlib.suppress(SandboxError):  # the job is released here; who is gone by now will see its own end
            await self._connections.broadcast("closed")

    async def others_closed(self) -> None:
        """Wait until it is in place everywhere: once the submitter sees the release, the next job may be submitted."""
        for party in self._others:
            await self._connections.recv(party, "closed", READY_S)

    async def trail(self) -> None:
        """Tell the others what was entered here, and keep what they say.

        The job is released by now: a party that breaks off here leaves its trail out, and takes nothing back.
        """
        own = await self._ledger.own_trail(self._job)
        signed_own = signed.sign(self._ledger.keys.identity, "trail", own)
        try:
            await self._connections.broadcast("trail", wire.encode(signed_own))
            for party in self._others:
                report = wire.decode(Signed, await self._connections.recv(party, "trail", TRAIL_S))
                await self._ledger.their_trail(self._job, party, self._exchange.identity(party), report)
            await self._connections.finish()
        except SandboxError as error:
            log.warning("job %s is released, its trail is not whole: %s", self._job.job_id, error)
        await self._exchange.witnessed()

    # --- workers ----------------------------------------------------------------------------------------------------

    async def compute(
        self, setting: Setting, parts: int, when_all_are_ready: WhenReady, on_done: Callable[[int], None]
    ) -> RawResult:
        """Compute with all parties: in one worker, or part by part."""
        if parts == 1:
            return await self.work("compute", setting, when_all_are_ready)
        if not await self._ledger.kept(self._job, SETTING):  # there already if the job is taken up
            await self._ledger.keep(self._job, SETTING, setting.to_bytes())
        await when_all_are_ready()

        async def work(name: str, attempt: Attempt, together: bool, fail: Fail | None) -> RawResult:
            return await self._in_worker(name, setting, attempt, _nothing if together else None, fail)

        ledger, exchange = self._ledger, self._exchange
        return await Parts(ledger, self._job, self._connections, work, exchange.run, parts, on_done).compute()

    async def resume(self) -> Setting:
        """Take up what was interrupted, if everybody means the same by it."""
        setting = Setting.from_bytes(await self._ledger.fetch(self._job, self._job.job_id, SETTING))
        mine = tagged("resume", self._job.plan_digest + setting.to_bytes())
        await self._connections.broadcast("resume", mine)
        for party in self._others:
            if await self._connections.recv(party, "resume", ANSWER_S) != mine:
                raise PartyFailed(tell="takes up the job on other terms", party=party, stage="resume")
        return setting

    async def work(self, name: str, setting: Setting, when_all_are_ready: WhenReady | None = None) -> RawResult:
        """Run a stage in a worker; a party that breaks off stops it at once."""
        return await self._in_worker(name, setting, Attempt(), when_all_are_ready, None)

    async def _in_worker(
        self,
        name: str,
        setting: Setting,
        attempt: Attempt,
        when_all_are_ready: WhenReady | None,
        fail: Fail | None,
    ) -> RawResult:
        await self._unless_broken(asyncio.shield(self._warm))
        plan, spec = self._job.plan_bytes, wire.encode(self._job.spec)
        bundle = await self._ledger.open_enclave(self._job)  # before the key of the rows stands in any ticket
        if bundle:
            log.info("job %s: rows are opened for a bundle, level %s", self._job.job_id, self._job.plan.isolation)
        ticket = {
            "me": self._me,
            "run": str(self._exchange.run),
            "salt": setting.salt.hex(),
            "rows": dict(setting.rows),
            "paillier_key": (await self._ledger.paillier_key(self._job)).hex(),
            "population_key": self._ledger.keys.population_key.hex(),
            "subject": self._ledger.subject(self._job),
            "deadline_s": self._job.plan.deadline_s,
            "cores": self._ledger.settings.ray_cpus,
            "part": attempt.part,
            "parts": attempt.parts,
            "scratch": str(attempt.scratch or ""),
            "dataset": dict(self._ledger.dataset(self._job.plan)),
            "bundle": dict(bundle),
            "plan_size": len(plan),
            "spec_size": len(spec),
        }
        documents = plan + spec + wire.encode(self._ledger.scenario(self._job.plan))
        host = WorkerHost(
            self._ledger, self._job, self._connections, attempt, when_all_are_ready, fail, self._exchange.identity
        )
        async with host.attending():
            stage = self._exchange.runner.stage(name, self._job.plan.kind, ticket, documents, host)
            done = await self._unless_broken(stage)
        if PRINTED in done.figures:
            log.info("job %s: the code printed %d bytes; dropped", self._job.job_id, done.figures[PRINTED])
        if name == "compute" and self._ledger.runs_code(self._job):
            await self._ledger.wiped(self._job)
        return done

    async def _unless_broken(self, action: Awaitable[T]) -> T:
        """Await ``action``, but no longer than the connections hold."""
        task: asyncio.Future[T] = asyncio.ensure_future(action)
        first: set[asyncio.Future[Any]] = {task, self._connections.broken}
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise self._connections.broken.result()
            return await task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=10.0)


async def _nothing() -> None:
    """Quota is spent once, before the first part."""


def _note(warm: asyncio.Task[None]) -> None:
    if not warm.cancelled() and (error := warm.exception()) is not None:
        log.warning("ray did not start: %s", type(error).__name__)
