"""ConsentService: withdrawals, and letters that are produced, read and judged.

Security:  the persons of a challenge and a letter leave this node sealed to the caller's own key. A letter on its way
           to the node that asks is sealed by whoever has it; this node hands it on. At the node that asks, whoever
           stands on the author's side neither reads nor judges. A judgement is signed apart from the request, over the
           SM3 of the document that was read.
Errors:    as ``edge`` says; a challenge that is not the caller's to see is none.
Not here:  rounds between nodes (``post``); what is kept (``challenges``, ``letters``, ``policy.spending``).
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from sandbox import challenges, letters, record, registry, review, signed, wire
from sandbox.api import uploads
from sandbox.api.edge import WINDOW_MS, Caller, Edge, Request
from sandbox.api.jobs import page
from sandbox.api.post import PIECE, Post
from sandbox.challenges import Challenge
from sandbox.crypto.envelope import seal_to
from sandbox.crypto.sm2 import PublicKey
from sandbox.errors import InvalidSpec, NotFound, WrongState
from sandbox.ledger import Ledger
from sandbox.model import (
    ChallengedPersons,
    ChallengeQuery,
    ChallengeView,
    LetterHead,
    LetterJudgement,
    LetterQuery,
    LetterUpload,
    LetterView,
    ListQuery,
    SealedWithdrawal,
    Signed,
    UploadFile,
)
from sandbox.pipeline import Pipeline
from sandbox.policy import book
from sandbox.registry import PEER
from sandbox.v1 import consent_pb2, consent_pb2_grpc

READERS = frozenset({"reviewer", "operator", "owner"})  # of the data that a challenge is about
HOLDERS = frozenset({"bank"})  # of letters
OVERSEERS = frozenset({"auditor"})  # see what is asked and what came of it, not of whom
MOST_SEALED = letters.MOST_BYTES + (1 << 16)  # bytes of a letter with its envelope
_PREFIX = "/sandbox.v1.ConsentService/"
_MOST_VIEWS = 50
_NOT_YOURS = "no such challenge, or not yours"
Check = Callable[[Connection, Challenge, Caller], bool]


class Consents(consent_pb2_grpc.ConsentServiceServicer):
    """What stands behind computing on one person."""

    def __init__(self, edge: Edge, pipeline: Pipeline, ledger: Ledger, post: Post, run: Path) -> None:
        """Args:
        run: the node's private run directory.
        """
        self._edge, self._pipeline, self._ledger, self._post, self._run = edge, pipeline, ledger, post, run

    async def WithdrawConsent(self, request: Any, context: Any) -> Any:  # noqa: N802 - the names are the protocol's
        """Take a withdrawal and hand it on."""

        async def withdraw() -> Any:
            method = _PREFIX + "WithdrawConsent"
            opened = await asyncio.to_thread(self._edge.open, request, method, SealedWithdrawal, registry.ROLES)
            actor, remember = opened.caller.key_id, opened.remember
            told = await self._post.take_withdrawal(actor, opened.body, remember, is_from_peer=False)
            return consent_pb2.WithdrawConsentResponse(told=told)

        return await self._edge.unary(context, withdraw)

    async def ListChallenges(self, request: Any, context: Any) -> Any:  # noqa: N802
        """List challenges that the caller may see, newest first."""

        def listed() -> Any:
            opened = self._edge.open(request, _PREFIX + "ListChallenges", ListQuery, registry.ROLES)
            self._edge.spend_nonce(opened)
            limit = min(page(opened.body.limit), _MOST_VIEWS)
            with self._ledger.store.read() as conn:
                asking = challenges.asking(conn)
                theirs = [digest for digest in asking if self._sees_theirs(conn, digest, opened.caller)]
                is_own = self._sees_own(opened.caller)
                found = challenges.listed(conn, opened.body.after, limit, is_own, theirs)
                views = [self._view(conn, one) for one in found]
            return consent_pb2.ListChallengesResponse(challenges=[wire.to_proto(view) for view in views])

        return await self._edge.unary(context, lambda: asyncio.to_thread(listed))

    async def GetChallenge(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Return one challenge with the persons, sealed to the caller."""

        def get() -> Any:
            opened = self._edge.open(request, _PREFIX + "GetChallenge", ChallengeQuery, registry.ROLES)
            self._edge.spend_nonce(opened)
            with self._ledger.store.read() as conn:
                challenge = challenges.find(conn, opened.body.challenge_id)
                if not self._sees(conn, challenge, opened.caller):
                    raise NotFound(tell=_NOT_YOURS)
                view = self._view(conn, challenge, opened.caller)
            return consent_pb2.GetChallengeResponse(challenge=wire.to_proto(view))

        return await self._edge.unary(context, lambda: asyncio.to_thread(get))

    async def ProduceLetter(self, requests: AsyncIterator[Any], context: Any) -> Any:  # noqa: N802
        """Hand a sealed letter on to the node that asks for it."""

        async def produce() -> Any:
            def check(conn: Connection, challenge: Challenge, caller: Caller) -> bool:
                return not challenge.is_own and self._holds(conn, challenge.scenario_digest, caller)

            opened, challenge, sealed = await self.receive(requests, _PREFIX + "ProduceLetter", registry.ROLES, check)
            upload, caller = opened.body, opened.caller
            await self._post.relay_letter(challenge, upload, sealed)

            def note(conn: Connection) -> ChallengeView:
                challenges.produced(conn, upload.challenge_id, upload.number)
                facts = {"challenge": upload.challenge_id, "number": str(upload.number), "party": challenge.party}
                job = record.read(conn, challenge.job_id)
                self._ledger.enter_by(conn, "letter-produced", job, caller.key_id, facts)
                return self._view(conn, challenges.find(conn, upload.challenge_id))

            view = await self._ledger.write(note)
            return consent_pb2.ProduceLetterResponse(challenge=wire.to_proto(view))

        return await self._edge.unary(context, produce)

    async def receive(
        self, requests: AsyncIterator[Any], method: str, roles: frozenset[str], check: Check
    ) -> tuple[Request[LetterUpload], Challenge, bytes]:
        """Return the announcement of a letter, the challenge, and the sealed bytes, from a person or another node.

        Args:
            check: whether the caller may hand in letters of a challenge.
        """
        first = await uploads.first_message(requests)
        opened = await asyncio.to_thread(self._edge.open, first, method, LetterUpload, roles)
        upload = opened.body
        if not 0 < upload.size <= MOST_SEALED:
            raise InvalidSpec(tell=f"a letter has 1 to {letters.MOST_BYTES} bytes")
        uploads.check_room(self._run, 2 * upload.size)
        await asyncio.to_thread(self._edge.spend_nonce, opened, False)

        def look() -> Challenge:
            with self._ledger.store.read() as conn:
                challenge = challenges.find(conn, upload.challenge_id)
                if not check(conn, challenge, opened.caller):
                    raise NotFound(tell=_NOT_YOURS)
                challenges.letter_of(challenge, upload.number)
                return challenge

        challenge = await asyncio.to_thread(look)
        folder = Path(tempfile.mkdtemp(prefix="l-", dir=self._run))  # what arrives is sealed
        try:
            await uploads.receive(requests, folder, (UploadFile("letter", upload.size, upload.digest),))
            return opened, challenge, await asyncio.to_thread((folder / "letter").read_bytes)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder)

    async def GetLetter(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Stream a letter, sealed to the caller."""

        async def stream() -> AsyncIterator[Any]:
            head, sealed = await asyncio.to_thread(self._letter, request)
            yield consent_pb2.GetLetterResponse(head=wire.to_proto(head))
            for first in range(0, len(sealed), PIECE):
                yield consent_pb2.GetLetterResponse(chunk=sealed[first : first + PIECE])

        async for part in self._edge.stream(context, stream()):
            yield part

    def _letter(self, request: Any) -> tuple[LetterHead, bytes]:
        opened = self._edge.open(request, _PREFIX + "GetLetter", LetterQuery, READERS)
        ledger, place = self._ledger, (opened.body.challenge_id, opened.body.number)
        with ledger.store.write() as conn:
            opened.remember(conn)
            challenge = self._judged_by(conn, place[0], opened.caller)
            digest = challenges.letter_of(challenge, place[1]).digest
            document = letters.document(conn, ledger.home, ledger.keys.node_key, *place)
            facts = {"challenge": place[0], "number": str(place[1])}
            ledger.enter_by(conn, "letter-read", record.read(conn, challenge.job_id), opened.caller.key_id, facts)
            reader = _sealing_key(conn, opened.caller)
        sealed = seal_to(reader, document, letters.document_aad(*place))
        return LetterHead(*place, digest, len(sealed)), sealed

    async def JudgeLetter(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Accept or reject a letter; a rejected one suspends the scenario."""

        async def judge() -> Any:
            opened = await asyncio.to_thread(self._edge.open, request, _PREFIX + "JudgeLetter", Signed, READERS)
            caller, ledger = opened.caller, self._ledger
            value = signed.verify(caller.key, "letter-judgement", opened.body, LetterJudgement)
            if abs(signed.now_ms() - value.time_ms) > WINDOW_MS:
                raise InvalidSpec(tell="the judgement was not signed just now", hint="read it again, and sign again")

            def judged(conn: Connection) -> ChallengeView:
                opened.remember(conn)
                challenge = self._judged_by(conn, value.challenge_id, caller)
                letters.judge(conn, opened.body, registry.find_key(conn, caller.key_id))
                facts = {"challenge": value.challenge_id, "number": str(value.number)}
                facts["verdict"] = "accepted" if value.accepted else "rejected"
                facts["signed"] = signed.digest("letter-judgement", opened.body).hex()
                job = record.read(conn, challenge.job_id)
                ledger.enter_by(conn, "letter-judged", job, caller.key_id, facts)
                return self._view(conn, challenges.find(conn, value.challenge_id))

            view = await ledger.write(judged)
            await asyncio.to_thread(letters.forget, ledger.home, value.challenge_id, value.number)
            await asyncio.shield(asyncio.ensure_future(self._post.suspend_failed()))
            self._post.soon()
            return consent_pb2.JudgeLetterResponse(challenge=wire.to_proto(view))

        return await self._edge.unary(context, judge)

    # --- who sees what ----------------------------------------------------------------------------------------------

    def _sees(self, conn: Connection, challenge: Challenge, caller: Caller) -> bool:
        if challenge.is_own:
            return self._sees_own(caller)
        return self._sees_theirs(conn, challenge.scenario_digest, caller)

    def _sees_own(self, caller: Caller) -> bool:
        return bool(OVERSEERS & caller.roles) or self._reads(caller)

    def _sees_theirs(self, conn: Connection, digest: bytes, caller: Caller) -> bool:
        return bool(OVERSEERS & caller.roles) or self._holds(conn, digest, caller)

    def _may_know(self, conn: Connection, challenge: Challenge, caller: Caller) -> bool:
        """Whether somebody may know whose letters are asked for."""
        return self._reads(caller) if challenge.is_own else self._holds(conn, challenge.scenario_digest, caller)

    def _reads(self, caller: Caller) -> bool:
        """Whether somebody is of this owner's people, and no other node."""
        return bool(READERS & caller.roles) and PEER not in caller.roles

    def _holds(self, conn: Connection, digest: bytes, caller: Caller) -> bool:
        """Whether somebody is of those who hold a scenario's letters: of the bank, the applicant or the recipient."""
        scenario = book.application(conn, digest)
        own = caller.key.to_bytes() in (scenario.applicant_key, scenario.recipient.identity_key)
        return own or bool(HOLDERS & caller.roles)

    def _judged_by(self, conn: Connection, challenge_id: str, caller: Caller) -> Challenge:
        """Return a challenge of this node whose letters the caller may read and judge.

        Raises:
            NotFound, WrongState: there is none, or others judge it.
            PolicyRefused: the caller stands on the author's side.
        """
        challenge = challenges.find(conn, challenge_id)
        if not challenge.is_own:
            raise WrongState(tell="the letters of this challenge are judged at the node that asks for them")
        job, reader = record.read(conn, challenge.job_id), registry.find_key(conn, caller.key_id)
        review.check_reader(conn, job, reader, self._pipeline.review_authors(conn, challenge.job_id))
        return challenge

    def _view(self, conn: Connection, challenge: Challenge, caller: Caller | None = None) -> ChallengeView:
        """Return a challenge as people see it, with the persons if it is shown to one who may know them."""
        sealed = b""
        if caller is not None and self._may_know(conn, challenge, caller):
            found = challenges.persons(conn, self._ledger.keys.node_key, challenge.challenge_id)
            people = wire.encode(ChallengedPersons(found))
            sealed = seal_to(_sealing_key(conn, caller), people, challenges.persons_aad(challenge.challenge_id))
        asks = b"" if challenge.is_own else self._post.sealing_key(conn, challenge.party).to_bytes()
        return ChallengeView(
            challenge_id=challenge.challenge_id,
            job_id=challenge.job_id,
            scenario_digest=challenge.scenario_digest,
            party=challenge.party,
            is_own=challenge.is_own,
            created_ms=challenge.created_ms,
            due_ms=challenge.due_ms,
            state=challenge.state,
            letters=tuple(
                LetterView(one.number, one.state, one.digest, one.judged_by, one.reason) for one in challenge.letters
            ),
            sealed=sealed,
            sealing_key=asks,
        )


def _sealing_key(conn: Connection, caller: Caller) -> PublicKey:
    """Return the key that seals to a registered person."""
    return PublicKey.from_bytes(registry.find_key(conn, caller.key_id).card.sealing.key)
