"""What nodes tell each other of consents: challenges and their letters, and withdrawals.

    tend     letters not produced in time ── entry ── the scenario is suspended, and what amends it
             rejected ones                        ── the same
             challenges the other node has not    ── sent, until it has them
             withdrawals other owners have not    ── sent, until they have them

Everything is durable before it is sent; a round that is cut short, or a node that is down, is made up for by the next.
What a node will not take is tried again ever more rarely, and keeps nothing else from it.

Security:  persons, letters and withdrawals travel sealed to the node they are for. A withdrawal counts by its own
           signature, whoever carries it; each owner knows only those that have reached it.
Errors:    what cannot be told now is logged and told in the next round.
Not here:  the services (``consents``, ``peers``); what is kept (``challenges``, ``letters``, ``policy.spending``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator
from functools import partial

from sqlalchemy import Connection

from sandbox import challenges, letters, record, registry, signed, wire
from sandbox.challenges import Challenge
from sandbox.crypto.envelope import open_with, seal_to
from sandbox.crypto.sm2 import PublicKey
from sandbox.errors import (
    DeadlinePassed,
    IntegrityFailed,
    InvalidSpec,
    NotFound,
    PartyFailed,
    SandboxError,
    Unavailable,
    WrongState,
)
from sandbox.exchange import Exchange
from sandbox.keyring import public_key
from sandbox.model import (
    ENDED,
    ChallengeNotice,
    ConsentWithdrawal,
    LetterState,
    LetterUpload,
    SealedWithdrawal,
    WithdrawalNotice,
)
from sandbox.pipeline import Pipeline
from sandbox.policy import book, spending
from sandbox.policy.scenario import owners
from sandbox.policy.spending import Untold, Withdrawn

log = logging.getLogger(__name__)
TELL_S = 10.0
LETTER_S = 120.0
PIECE = 1 << 20  # bytes
FIRST_WAIT_MS, LONGEST_WAIT_MS = 120_000, signed.DAY_MS  # between two tries of what a party will not take
_PEER = "/sandbox.v1.PeerService/"
Suspend = Callable[[bytes, str], Awaitable[None]]
Remember = Callable[[Connection], None]
Row = tuple[object, ...]  # what is to be told, and to whom


class _Round:
    """Whom one round tells what: for a party that is away it does not wait again; a row that is refused is put off."""

    def __init__(self, waits: dict[Row, tuple[int, int]], now_ms: int) -> None:
        self._waits = waits  # of each row that was refused, its wait and the time of its next try; outlives the round
        self._now_ms, self._away = now_ms, set[str]()

    async def tell(self, row: Row, party: str, what: str, send: Callable[[], Awaitable[None]]) -> bool:
        """Tell a party one row, if it is due; whether the party has it now."""
        wait_ms, next_ms = self._waits.get(row, (FIRST_WAIT_MS, self._now_ms))
        if party in self._away or self._now_ms < next_ms:
            return False
        try:
            await send()
        except SandboxError as error:
            log.warning("%s not told to %s: %s", what, party, error)
            if isinstance(error, PartyFailed | DeadlinePassed | Unavailable):
                self._away.add(party)
            else:
                self._waits[row] = (min(2 * wait_ms, LONGEST_WAIT_MS), self._now_ms + wait_ms)
            return False
        self._waits.pop(row, None)
        return True


class Post:
    """One node's rounds over challenges and withdrawals, and what it takes from others."""

    def __init__(self, pipeline: Pipeline, exchange: Exchange, suspend: Suspend) -> None:
        """Args:
        suspend: suspends a scenario, by its digest, in this node's name and for a reason; may be called again.
        """
        self._pipeline, self._exchange, self._suspend = pipeline, exchange, suspend
        self._ledger = exchange.ledger
        self._judging, self._telling, self._opening = asyncio.Lock(), asyncio.Lock(), asyncio.Lock()
        self._soon: set[asyncio.Task[None]] = set()
        self._waits, self._is_wanted = dict[Row, tuple[int, int]](), False

    # --- rounds -----------------------------------------------------------------------------------------------------

    async def tend(self, now_ms: int) -> None:
        """Do everything that is due."""
        await self._ledger.write(lambda conn: self._miss(conn, now_ms))
        await self.suspend_failed()
        async with self._telling:
            self._is_wanted = False
            await self._send_challenges(now_ms)
            await self._hand_round(now_ms)

    def soon(self) -> None:
        """Tend in the background, now."""
        if self._is_wanted:
            return  # a round that has told nothing yet will tell this as well

        async def run() -> None:
            try:
                await self.tend(signed.now_ms())
            except SandboxError as error:  # the next round tries again
                log.warning("the round over challenges was cut short: %s", error)
            finally:
                self._is_wanted = False

        self._is_wanted = True
        task = asyncio.create_task(run())
        self._soon.add(task)
        task.add_done_callback(self._soon.discard)

    async def close(self) -> None:
        """Stop tending; what is not told yet is told after the next start."""
        for task in self._soon:
            task.cancel()
        await asyncio.gather(*self._soon, return_exceptions=True)

    async def suspend_failed(self) -> None:
        """Suspend the scenarios of challenges that failed."""
        async with self._judging:
            with self._ledger.store.read() as conn:
                failed = letters.unpunished(conn)
            for challenge in failed:
                try:
                    await self._punish(challenge)
                except SandboxError as error:  # the next round tries again; the others have their turn now
                    log.warning("not suspended for challenge %s: %s", challenge.challenge_id, error)

    def _miss(self, conn: Connection, now_ms: int) -> None:
        for challenge in letters.overdue(conn, now_ms):
            missing = sum(letter.state is LetterState.MISSING for letter in challenge.letters)
            facts = {"challenge": challenge.challenge_id, "letters": str(missing), "party": challenge.party}
            job = record.read(conn, challenge.job_id)
            self._ledger.enter_by(conn, "letters-missing", job, self._ledger.node_id, facts)

    async def _punish(self, challenge: Challenge) -> None:
        here = self._ledger.node_id
        with self._ledger.store.read() as conn:
            charged = letters.charged(conn, challenge, here, signed.now_ms())
        for standing in charged:
            await self._suspend(standing.digest, letters.reason(challenge))
        await self._ledger.write(lambda conn: letters.punished(conn, challenge, here, signed.now_ms()))

    async def _send_challenges(self, now_ms: int) -> None:
        with self._ledger.store.read() as conn:
            waiting = challenges.unsent(conn)
        telling = _Round(self._waits, now_ms)
        for one in waiting:
            what = f"challenge {one.challenge_id}"
            if await telling.tell((one.challenge_id,), one.party, what, partial(self._send, one)):
                await self._ledger.write(partial(challenges.told, challenge_id=one.challenge_id, revision=one.revision))

    async def _send(self, challenge: Challenge) -> None:
        with self._ledger.store.read() as conn:
            recipient = self.sealing_key(conn, challenge.party)
            notice = challenges.notice(conn, self._ledger.keys.node_key, challenge, recipient)
        await self._exchange.links.call(challenge.party, f"{_PEER}Challenge", notice, TELL_S)

    async def _hand_round(self, now_ms: int) -> None:
        with self._ledger.store.read() as conn:
            waiting = spending.untold(conn, self._ledger.keys.node_key)
        telling = _Round(self._waits, now_ms)
        for one in waiting:
            token = wire.decode(ConsentWithdrawal, one.notice.withdrawal.payload).token
            signer = one.notice.withdrawal.key_id
            for party in one.parties:
                row, send = (token, signer, party), partial(self._hand, party, one)
                if await telling.tell(row, party, "a withdrawal of consent", send):
                    await self._ledger.write(partial(spending.told, token=token, signer=signer, party=party))

    async def _hand(self, party: str, one: Untold) -> None:
        with self._ledger.store.read() as conn:
            key, digest = self.sealing_key(conn, party), one.scenario_digest
        body = SealedWithdrawal(digest, seal_to(key, wire.encode(one.notice), spending.withdrawal_aad(digest)))
        await self._exchange.links.call(party, f"{_PEER}Withdraw", body, TELL_S)

    # --- what others send -------------------------------------------------------------------------------------------

    async def take_challenge(self, sender: str, notice: ChallengeNotice) -> None:
        """Keep what an owner asks this node's people for, with an entry if it is new.

        Raises:
            NotFound, PolicyRefused, AlreadyExists, InvalidSpec: as in ``challenges.take``.
        """
        ledger = self._ledger

        def take(conn: Connection) -> None:
            keys, here = ledger.keys, ledger.node_id
            if challenges.take(conn, keys.node_key, keys.sealing, here, sender, notice, signed.now_ms()):
                facts = {"challenge": notice.challenge_id, "people": str(len(notice.letters)), "party": sender}
                ledger.enter_by(conn, "challenge-received", record.read(conn, notice.job_id), sender, facts)

        await ledger.write(take)

    async def take_letter(self, sender: str, upload: LetterUpload, sealed: bytes) -> None:
        """Open and keep a letter that a recipient's node produces.

        Raises:
            IntegrityFailed: it does not open.
            NotFound, WrongState, InvalidSpec: as in ``letters.keep``.
        """
        async with self._opening:  # one at a time: each is in memory twice
            await asyncio.to_thread(self._keep_letter, sender, upload, sealed)
        self.soon()

    def _keep_letter(self, sender: str, upload: LetterUpload, sealed: bytes) -> None:
        """In one thread, which no caller cuts off between a file and the line that says whose it is."""
        ledger, place = self._ledger, (upload.challenge_id, upload.number)
        with ledger.store.read() as conn:
            challenge = letters.expect(conn, sender, *place, signed.now_ms())
        document = open_with(ledger.keys.sealing, sealed, letters.document_aad(*place))
        with letters.laid_down(ledger.home, *place, document) as laid, ledger.store.write() as conn:
            letters.keep(conn, ledger.home, ledger.keys.node_key, sender, *place, laid, signed.now_ms())
            facts = {"challenge": upload.challenge_id, "number": str(upload.number)}
            ledger.enter_by(conn, letters.RECEIVED, record.read(conn, challenge.job_id), sender, facts)

    async def relay_letter(self, challenge: Challenge, upload: LetterUpload, sealed: bytes) -> None:
        """Hand a sealed letter on to the node that asks for it."""
        pieces: Iterator[bytes] = (sealed[first : first + PIECE] for first in range(0, len(sealed), PIECE))
        await self._exchange.links.upload(challenge.party, f"{_PEER}Produce", upload, pieces, LETTER_S)

    async def take_withdrawal(
        self, actor: str, body: SealedWithdrawal, remember: Remember, is_from_peer: bool
    ) -> tuple[str, ...]:
        """Keep a withdrawal, stop what runs on the token, and tell the other owners; returns who knows by now.

        Raises:
            NotFound: no such scenario here.
            WrongState: a party has not approved the scenario: nobody can have agreed to anything under it.
            InvalidSpec: it does not open.
            PolicyRefused: it is nobody's who may withdraw.
        """
        ledger, digest = self._ledger, body.scenario_digest

        def take(conn: Connection) -> tuple[Withdrawn, frozenset[str]]:
            remember(conn)
            scenario, standing = book.application(conn, digest), book.standing(conn, digest)
            if standing is None or standing.awaiting():
                raise WrongState(tell="consents are withdrawn once every party has approved the scenario")
            try:
                opened = open_with(ledger.keys.sealing, body.sealed, spending.withdrawal_aad(digest))
            except IntegrityFailed:
                raise InvalidSpec(tell="the withdrawal does not open") from None
            withdrawn = spending.check_withdrawal(scenario, digest, wire.decode(WithdrawalNotice, opened))
            others = owners(scenario) - {ledger.node_id}
            untold: Collection[str] = () if is_from_peer else others
            if spending.withdraw(conn, ledger.keys.node_key, ledger.keys.population_key, withdrawn, untold):
                facts = {"by": "person" if withdrawn.person else "issuer"}
                facts["withdrawal"] = signed.digest("consent-withdrawal", withdrawn.notice.withdrawal).hex()
                ledger.enter_other(conn, "consent-withdrawn", actor, facts, digest)
            return withdrawn, others

        withdrawn, others = await ledger.write(take)
        await asyncio.shield(asyncio.ensure_future(self._stop(withdrawn.token)))
        if is_from_peer:
            return ()
        with contextlib.suppress(TimeoutError):  # whoever is missing hears of it in the next round
            async with asyncio.timeout(TELL_S), self._telling:
                await self._hand_round(signed.now_ms())
        with ledger.store.read() as conn:
            missing = spending.missing(conn, withdrawn.token, withdrawn.signer)
        return tuple(sorted(others - missing))

    async def _stop(self, token: bytes) -> None:
        """Cancel what runs on a token, if it was withdrawn by one who may."""
        with self._ledger.store.read() as conn:
            found = [record.read(conn, job_id) for job_id in spending.used_by(conn, token)]
        for job in found:
            if job.state not in ENDED and self._ledger.is_withdrawn(job):
                with contextlib.suppress(NotFound, WrongState):  # it ended meanwhile, or is being released already
                    await self._pipeline.cancel(job.job_id)

    def sealing_key(self, conn: Connection, party: str) -> PublicKey:
        """Return the key that seals to a peer's node."""
        card = registry.peer(conn, party)
        return signed.open_certified(public_key(card), "sealing", card.sealing)
