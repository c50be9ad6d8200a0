"""How scenarios go round: every party they name learns of them, of approvals, of notices and of new dataset versions.

    hand_round: what this node holds --share--> peer.take --> the approvals it has; what else this node lacks, the peer
                                                              hands over by itself

Security:  a record counts if the pinned node of its party signed it, whoever hands it over.
Errors:    a peer that is down gets it next time: at the next change, or within the hour.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping

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
from sandbox.model import Notice, NoticeKind, ScenarioBundle, Signed, VersionNotice
from sandbox.pipeline import Pipeline
from sandbox.policy import book, versions
from sandbox.policy.scenario import STOPPED, Floors, required

log = logging.getLogger(__name__)
ENTRIES = {  # what the log says of a notice
    NoticeKind.REFUSED: "scenario-refused",
    NoticeKind.CHANGES: "changes-asked",
    NoticeKind.SUSPENDED: "scenario-suspended",
    NoticeKind.RESUMED: "scenario-resumed",
    NoticeKind.REVOKED: "revoked",
}
_PAGE = 100


class Rounds:
    """What this node tells of scenarios, and what it learns."""

    def __init__(self, pipeline: Pipeline, ledger: Ledger, exchange: Exchange) -> None:
        self._pipeline, self._ledger, self._exchange = pipeline, ledger, exchange
        self._here, self._identity = ledger.node_id, ledger.keys.identity
        self._chores: set[asyncio.Task[bool]] = set()
        settings = ledger.settings
        self._floors = Floors(settings.min_group_floor, settings.round_floor, settings.score_step_floor)

    async def hand_round_all(self) -> None:
        """Give everybody what they may have missed while they were down; stop what a crash kept from being stopped."""
        after, away = "", frozenset[str]()
        while True:
            with self._ledger.store.read() as conn:
                views = book.listed(conn, after, _PAGE, signed.now_ms())
            for view in views:
                if view.state != "expired":
                    away |= await self.hand_round(view.digest, away)
                if view.state in STOPPED:
                    await self._pipeline.revoked(view.digest)
            if len(views) < _PAGE:
                return
            after = views[-1].digest.hex()

    async def hand_round(self, digest: bytes, away: frozenset[str] = frozenset()) -> frozenset[str]:
        """Give every party what this node holds, and take what it holds; returns those that cannot be reached.

        Args:
            digest: the scenario.
            away: who is not asked, because it was not there a moment ago: finding that out takes its time.
        """
        with self._ledger.store.read() as conn:
            parties = sorted(required(book.application(conn, digest)) - {self._here} - away)
        reached = await asyncio.gather(*(self._hand(digest, party) for party in parties))
        return frozenset(party for party, is_there in zip(parties, reached, strict=True) if not is_there)

    async def _hand(self, digest: bytes, party: str) -> bool:
        """Give one party what this node holds; whether it could be reached."""
        with self._ledger.store.read() as conn:
            bundle = book.bundle(conn, digest)
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
        with self._ledger.store.read() as conn:
            held = book.bundle(conn, digest)
        if _told(held) - _told(bundle):  # it was down, or never knew
            chore = asyncio.create_task(self._hand(digest, sender))
            self._chores.add(chore)
            chore.add_done_callback(self._chores.discard)
        return held.approvals

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
                versions.file(conn, record, keys[party], party)
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
        with self._ledger.store.read() as conn:
            scenario = book.application(conn, digest)
            found = [standing for one in (digest, scenario.amends) if one and (standing := book.standing(conn, one))]
        for standing in found:
            if standing.state(now_ms) in STOPPED:
                await self._pipeline.revoked(standing.digest)


def _same(digest: bytes, found: bytes) -> None:
    if found != digest:
        raise InvalidSpec(tell="a bundle holds a record of another scenario")


def _of_known(records: Iterable[Signed], known: Mapping[str, str]) -> Iterator[tuple[Signed, str]]:
    for record in records:
        if (party := known.get(record.key_id)) is not None:
            yield record, party


def _told(bundle: ScenarioBundle) -> set[tuple[str, str, int]]:
    """Return by name what a bundle says beside approvals: whose notice or version, and its number."""
    said = (wire.decode(Notice, record.payload) for record in bundle.notices)
    offered = (wire.decode(VersionNotice, record.payload) for record in bundle.versions)
    notices = {(notice.party, "", notice.serial) for notice in said}
    return notices | {(offer.owner, offer.code, offer.version) for offer in offered}
