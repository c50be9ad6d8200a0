"""What nodes tell each other of consents: challenges and their letters, and withdrawals.

    tend     letters not produced in time ── entry ── the scenario is suspended
             rejected ones                        ── the scenario is suspended
             challenges the other node has not    ── sent, until it has them
             withdrawals other owners have not    ── sent, until they have them

Everything is durable before it is sent; a round that is cut short, or a node that is down, is made up for by the next.

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

from sqlalchemy import Connection

from sandbox import challenges, letters, record, registry, signed, wire
from sandbox.challenges import Challenge
from sandbox.crypto.envelope import open_with, seal_to
from sandbox.crypto.sm2 import PublicKey
from sandbox.errors import IntegrityFailed, InvalidSpec, NotFound, SandboxError, WrongState
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

log = logging.getLogger(__name__)
TELL_S = 10.0
LETTER_S = 120.0
PIECE = 1 << 20  # bytes
_PEER = "/sandbox.v1.PeerService/"
Suspend = Callable[[bytes, str], Awaitable[None]]
Remember = Callable[[Connection], None]


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
        self._is_wanted = False

    # --- rounds -----------------------------------------------------------------------------------------------------

    async def tend(self, now_ms: int) -> None:
        """Do everything that is due."""
        await self._ledger.write(lambda conn: self._miss(conn, now_ms))
        await self.suspend_failed()
        async with self._telling:
            self._is_wanted = False
            await self._send_challenges()
            await self._hand_round()

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
            await self._suspend_failed()

    def _miss(self, conn: Connection, now_ms: int) -> None:
        for challenge in letters.overdue(conn, now_ms):
            missing = sum(letter.state is LetterState.MISSING for letter in challenge.letters)
            facts = {"challenge": challenge.challenge_id, "letters": str(missing), "party": challenge.party}
            job = record.read(conn, challenge.job_id)
            self._ledger.enter_by(conn, "letters-missing", job, self._ledger.node_id, facts)

    async def _suspend_failed(self) -> None:
        with self._ledger.store.read() as conn:
            failed = letters.unpunished(conn)
        for challenge in failed:
            reason = f"a letter of challenge {challenge.challenge_id} was not produced in time, or was rejected"
            await self._suspend(challenge.scenario_digest, reason)
            await self._ledger.write(lambda conn, one=challenge.challenge_id: letters.suspended(conn, one))  # type: ignore[misc]

    async def _send_challenges(self) -> None:
        node_key = self._ledger.keys.node_key
        with self._ledger.store.read() as conn:
            waiting = challenges.unsent(conn)
        away: set[str] = set()
        for challenge in waiting:
            if challenge.party in away:
                continue
            try:
                with self._ledger.store.read() as conn:
                    recipient = self.sealing_key(conn, challenge.party)
                    notice = challenges.notice(conn, node_key, challenge, recipient)
                await self._exchange.links.call(challenge.party, f"{_PEER}Challenge", notice, TELL_S)
            except SandboxError as error:
                away.add(challenge.party)
                log.warning("challenge %s not told to %s: %s", challenge.challenge_id, challenge.party, error)
                continue
            await self._ledger.write(
                lambda conn, one=challenge: challenges.told(conn, one.challenge_id, one.revision)  # type: ignore[misc]
            )

    async def _hand_round(self) -> None:
        with self._ledger.store.read() as conn:
            waiting = spending.untold(conn, self._ledger.keys.node_key)
        away: set[str] = set()
        for one in waiting:
            for party in one.parties:
                if party not in away and not await self._tell(party, one.notice, one.scenario_digest):
                    away.add(party)

    async def _tell(self, party: str, notice: WithdrawalNotice, digest: bytes) -> bool:
        """Hand one withdrawal to one owner; whether it has it now."""
        try:
            with self._ledger.store.read() as conn:
                key = self.sealing_key(conn, party)
            sealed = seal_to(key, wire.encode(notice), spending.withdrawal_aad(digest))
            await self._exchange.links.call(party, f"{_PEER}Withdraw", SealedWithdrawal(digest, sealed), TELL_S)
        except SandboxError as error:
            log.warning("a withdrawal of consent not told to %s: %s", party, error)
            return False
        token = wire.decode(ConsentWithdrawal, notice.withdrawal.payload).token
        await self._ledger.write(lambda conn: spending.told(conn, token, notice.withdrawal.key_id, party))
        return True

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
        ledger, aad = self._ledger, letters.document_aad(upload.challenge_id, upload.number)

        def take(conn: Connection) -> None:
            challenge = challenges.find(conn, upload.challenge_id)
            place = (upload.challenge_id, upload.number)
            letters.keep(conn, ledger.home, ledger.keys.node_key, sender, *place, document, signed.now_ms())
            facts = {"challenge": upload.challenge_id, "number": str(upload.number)}
            ledger.enter_by(conn, "letter-received", record.read(conn, challenge.job_id), sender, facts)

        async with self._opening:  # one at a time: each is in memory twice
            document = await asyncio.to_thread(open_with, ledger.keys.sealing, sealed, aad)
            await ledger.write(take)
        self.soon()

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
            InvalidSpec: it does not open.
            PolicyRefused: it is nobody's who may withdraw.
        """
        ledger, digest = self._ledger, body.scenario_digest

        def take(conn: Connection) -> tuple[bytes, frozenset[str]]:
            remember(conn)
            scenario = book.application(conn, digest)
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
            return withdrawn.token, others

        token, others = await ledger.write(take)
        await asyncio.shield(asyncio.ensure_future(self._stop(token)))
        if is_from_peer:
            return ()
        with contextlib.suppress(TimeoutError):  # whoever is missing hears of it in the next round
            async with asyncio.timeout(TELL_S), self._telling:
                await self._hand_round()
        with ledger.store.read() as conn:
            missing = {party for one in spending.untold(conn, ledger.keys.node_key) for party in one.parties}
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
