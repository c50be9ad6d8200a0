"""How scenarios go round: every party they name learns of them, of approvals, of notices and of new dataset versions.

    hand_round: what this node holds --share--> peer.take --> the approvals it has; what else this node lacks, the peer
                                                              hands over by itself

Security:  a record counts if the pinned node of its party signed it, whoever hands it over. Where a party contradicts
           itself, what came first stays and the rest of the bundle counts all the same. Two nodes that each hold what
           the other does not take do not call one another for ever: a peer is handed a scenario back once a minute.
Errors:    a peer that is down gets it next time: at the next change, or within the hour.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from sqlalchemy import Connection

from sandbox import registry, signed, wire
from sandbox.crypto.sm2 import PublicKey
from sandbox.errors import (
    DeadlinePassed,
    IntegrityFailed,
    InvalidSpec,
    PartyFailed,
    PolicyRefused,
    SandboxError,
    Unavailable,
)
from sandbox.exchange import Exchange
from sandbox.ledger import Ledger
from sandbox.model import Notice, NoticeKind, ScenarioBundle, ScenarioView, Signed, VersionNotice
from sandbox.pipeline import Pipeline
from sandbox.policy import book, versions
from sandbox.policy.scenario import STOPPED, Floors, Standing, required

T = TypeVar("T")
U = TypeVar("U")
log = logging.getLogger(__name__)
ENTRIES = {  # what the log says of a notice
    NoticeKind.REFUSED: "scenario-refused",
    NoticeKind.CHANGES: "changes-asked",
    NoticeKind.SUSPENDED: "scenario-suspended",
    NoticeKind.RESUMED: "scenario-resumed",
    NoticeKind.REVOKED: "revoked",
}
BACK_S = 60.0  # between two times that one peer is handed back one scenario
TOLD_S = 8.0  # that a caller waits for others to be told
_PAGE = 100


class Rounds:
    """What this node tells of scenarios, and what it learns."""

    def __init__(self, pipeline: Pipeline, ledger: Ledger, exchange: Exchange) -> None:
        self._pipeline, self._ledger, self._exchange = pipeline, ledger, exchange
        self._here, self._identity = ledger.node_id, ledger.keys.identity
        self._chores: set[asyncio.Task[object]] = set()
        self._handed: dict[tuple[bytes, str], float] = {}  # back, and when
        settings = ledger.settings
        self._floors = Floors(settings.min_group_floor, settings.round_floor, settings.score_step_floor)

    async def hand_round_all(self) -> None:
        """Give everybody what they may have missed while they were down; stop what a crash kept from being stopped."""
        after, away = "", frozenset[str]()
        while True:
            views = await self._look(_listed, after)
            for view in views:
                if view.state != "expired":
                    away |= await self.hand_round(view.digest, away)
                if view.state in STOPPED:
                    await self._pipeline.revoked(view.digest)
            if len(views) < _PAGE:
                return
            after = views[-1].digest.hex()

    async def offer(self, code: str) -> None:
        """Tell the parties of all scenarios that use a dataset by rule of a version that is new, or gone."""
        for digest in await self._look(versions.users, code):
            await self.hand_round(digest)

    async def hand_round(self, digest: bytes, away: frozenset[str] = frozenset()) -> frozenset[str]:
        """Give every party what this node holds, and take what it holds; returns those that cannot be reached.

        Args:
            digest: the scenario.
            away: who is not asked, because it was not there a moment ago: finding that out takes its time.
        """
        parties = sorted(required(await self._look(book.application, digest)) - {self._here} - away)
        reached = await asyncio.gather(*(self._hand(digest, party) for party in parties))
        return frozenset(party for party, is_there in zip(parties, reached, strict=True) if not is_there)

    async def announce(self, digest: bytes) -> None:
        """Hand round what a caller has changed; while a party is away, the rest goes on behind the caller's back."""
        round_ = self._behind(self.hand_round(digest))
        done, _ = await asyncio.wait({round_}, timeout=TOLD_S)
        for one in done:
            one.result()

    def _behind(self, work: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
        """Start something that goes on when its caller does not wait for it."""
        chore = asyncio.create_task(work)
        self._chores.add(chore)
        chore.add_done_callback(self._chores.discard)
        return chore

    async def _hand(self, digest: bytes, party: str) -> bool:
        """Give one party what this node holds; whether it could be reached."""
        bundle = await self._look(book.bundle, digest)
        try:
            theirs = await self._exchange.links.share(party, bundle)
            await self.learn(digest, theirs, ())
        except SandboxError as error:
            log.warning("scenario %s not handed to %s: %s", digest.hex()[:16], party, error)
            return not isinstance(error, PartyFailed | DeadlinePassed | Unavailable)
        return True

    async def take(self, sender: str, bundle: ScenarioBundle) -> tuple[Signed, ...]:
        """Take a scenario a peer hands over; returns the approvals this node holds."""

        def filed(conn: Connection) -> bytes:
            digest = signed.digest("scenario", bundle.scenario)
            known = book.standing(conn, digest) is not None
            book.file(conn, bundle.scenario, self._floors)
            if self._here not in required(book.application(conn, digest)):
                raise PolicyRefused(tell=f"{self._here} has no part in this scenario")
            if not known:
                self._ledger.enter_other(conn, "applied", sender, {"by": sender}, digest)
            return digest

        digest = await self._ledger.write(filed)
        await self.learn(digest, bundle.approvals, bundle.notices, bundle.versions)
        held = await self._look(book.bundle, digest)
        if _lacks(bundle, held) and self._may_hand_back(digest, sender):  # it was down, or never knew
            self._behind(self._hand(digest, sender))
        return held.approvals

    def _may_hand_back(self, digest: bytes, sender: str) -> bool:
        """Whether a minute has passed since the last time; if so, this one is remembered."""
        now = time.monotonic()
        self._handed = {key: at for key, at in self._handed.items() if now - at < BACK_S}
        if (digest, sender) in self._handed:
            return False
        self._handed[digest, sender] = now
        return True

    async def learn(
        self, digest: bytes, approvals: Iterable[Signed], notices: Iterable[Signed], offers: Iterable[Signed] = ()
    ) -> None:
        """Store others' approvals, notices and offers of versions; each is signed by the pinned node of its party."""

        def store(conn: Connection) -> bool:
            before = book.standing(conn, digest)
            known = {self._identity.public.key_id: self._here}
            keys = {self._here: self._identity.public}
            for card in registry.all_peers(conn):
                key = self._exchange.identity(card.node_id)
                known[key.key_id], keys[card.node_id] = card.node_id, key
            is_new = False
            for record, party in _of_known(approvals, known):
                if before is None or party not in before.approved_by:
                    _same(digest, book.approve(conn, record, keys[party], party))
                    self._ledger.enter_other(conn, "approved", party, {"party": party}, digest)
                    is_new = True
            for record, party in _of_known(notices, known):
                is_new |= self._learn_notice(conn, digest, record, party, keys)
            for record, party in _of_known(offers, known):
                _learn_version(conn, digest, record, party, keys[party])
            return is_new

        if await self._ledger.write(store):
            await self._stop(digest)

    def _learn_notice(
        self, conn: Connection, digest: bytes, record: Signed, party: str, keys: Mapping[str, PublicKey]
    ) -> bool:
        try:
            notice = book.notify(conn, record, keys[party], party)
        except IntegrityFailed as error:  # what was stored first stays; the rest of the bundle counts all the same
            log.warning("scenario %s: %s", digest.hex()[:16], error)
            return False
        if notice is None:
            return False
        _same(digest, notice.scenario_digest)
        facts = {"party": party, "serial": str(notice.serial)}
        self._ledger.enter_other(conn, ENTRIES[notice.kind], party, facts, digest)
        return True

    async def _stop(self, digest: bytes) -> None:
        """Cancel what runs under a scenario that stands still, or under the one in whose place it stands now."""
        now_ms = signed.now_ms()
        for standing in await self._look(_concerned, digest):
            if standing.state(now_ms) in STOPPED:
                await self._pipeline.revoked(standing.digest)

    async def _look(self, what: Callable[[Connection, U], T], at: U) -> T:
        """Read from the store off the event loop."""

        def run() -> T:
            with self._ledger.store.read() as conn:
                return what(conn, at)

        return await asyncio.to_thread(run)


def _listed(conn: Connection, after: str) -> list[ScenarioView]:
    return book.listed(conn, after, _PAGE, signed.now_ms())


def _concerned(conn: Connection, digest: bytes) -> list[Standing]:
    """Return a scenario, and the one in whose place it would stand."""
    amended = book.application(conn, digest).amends
    return [standing for one in (digest, amended) if one and (standing := book.standing(conn, one))]


def _learn_version(conn: Connection, digest: bytes, record: Signed, party: str, key: PublicKey) -> None:
    try:
        versions.file(conn, record, key, party)
    except (IntegrityFailed, InvalidSpec) as error:  # of an owner that contradicts itself, or dates it wrongly
        log.warning("scenario %s: a notice of a version does not count: %s", digest.hex()[:16], error)


def _same(digest: bytes, found: bytes) -> None:
    if found != digest:
        raise InvalidSpec(tell="a bundle holds a record of another scenario")


def _of_known(records: Iterable[Signed], known: Mapping[str, str]) -> Iterator[tuple[Signed, str]]:
    for record in records:
        if (party := known.get(record.key_id)) is not None:
            yield record, party


def _lacks(theirs: ScenarioBundle, held: ScenarioBundle) -> bool:
    """Whether a sender lacks a notice that this node holds, a higher version, or that one is gone."""
    newest = _newest(theirs)
    return bool(_said(held) - _said(theirs)) or any(
        version > newest.get(dataset, 0) for dataset, version in _newest(held).items()
    )


def _said(bundle: ScenarioBundle) -> set[tuple[str, str, int]]:
    """Return by name what is final in a bundle: whose notice or lost version, and its number."""
    notices = (wire.decode(Notice, record.payload) for record in bundle.notices)
    gone = {(offer.owner, offer.code, offer.version) for offer in _offers(bundle) if offer.gone}
    return gone | {(notice.party, "", notice.serial) for notice in notices}


def _newest(bundle: ScenarioBundle) -> dict[tuple[str, str], int]:
    """Return the highest version of each dataset that a bundle says is there."""
    newest: dict[tuple[str, str], int] = {}
    for offer in _offers(bundle):
        if not offer.gone:
            newest[offer.owner, offer.code] = max(offer.version, newest.get((offer.owner, offer.code), 0))
    return newest


def _offers(bundle: ScenarioBundle) -> list[VersionNotice]:
    return [wire.decode(VersionNotice, record.payload) for record in bundle.versions]
