"""ScenarioService: apply, approve, list, revoke. What changes here is handed to every party the scenario names."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection

from sandbox import registry, signed, wire
from sandbox.api.edge import Edge
from sandbox.api.jobs import page
from sandbox.errors import InvalidSpec, PolicyRefused, SandboxError, WrongState
from sandbox.exchange import Exchange
from sandbox.ledger import Ledger
from sandbox.model import (
    Approval,
    ApprovalDecision,
    ApprovalRecord,
    ListQuery,
    Revocation,
    RevocationNotice,
    Scenario,
    ScenarioApplication,
    ScenarioBundle,
    ScenarioView,
    Signed,
)
from sandbox.pipeline import Pipeline
from sandbox.policy import book
from sandbox.policy.scenario import Floors, required
from sandbox.v1 import scenario_pb2, scenario_pb2_grpc

log = logging.getLogger(__name__)
APPLICANTS = frozenset({"submitter"})
APPROVERS = frozenset({"operator", "owner"})
OVERSEERS = frozenset({"operator", "owner", "auditor"})
_PREFIX = "/sandbox.v1.ScenarioService/"


class Scenarios(scenario_pb2_grpc.ScenarioServiceServicer):
    """Applications and approvals."""

    def __init__(self, edge: Edge, pipeline: Pipeline, ledger: Ledger, exchange: Exchange) -> None:
        self._edge, self._pipeline, self._ledger, self._exchange = edge, pipeline, ledger, exchange
        settings = ledger.settings
        self._floors = Floors(settings.min_group_floor, settings.round_floor, settings.score_step_floor)

    async def ApplyScenario(self, request: Any, context: Any) -> Any:  # noqa: N802
        """File an application and hand it round."""

        async def apply() -> Any:
            opened = await asyncio.to_thread(
                self._edge.open, request, _PREFIX + "ApplyScenario", ScenarioApplication, APPLICANTS
            )

            def filed(conn: Connection) -> bytes:
                opened.remember(conn)
                if opened.body.scenario.key_id != opened.caller.key_id:
                    raise PolicyRefused(tell="an application is signed by whoever applies")
                digest = book.file(conn, opened.body.scenario, self._floors)
                facts = {"name": book.application(conn, digest).name}
                self._ledger.enter_other(conn, "applied", opened.caller.key_id, facts, digest)
                return digest

            digest = await self._ledger.write(filed)
            await self.hand_round(digest)
            return scenario_pb2.ApplyScenarioResponse(scenario=wire.to_proto(await self._view(digest)))

        return await self._edge.unary(context, apply)

    async def ApproveScenario(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Approve in this organisation's name."""

        async def approve() -> Any:
            opened = await asyncio.to_thread(
                self._edge.open, request, _PREFIX + "ApproveScenario", ApprovalDecision, APPROVERS
            )
            caller, approval = opened.caller, opened.body.approval

            def approved(conn: Connection) -> bytes:
                opened.remember(conn)
                decision = signed.verify(caller.key, "approval", approval, Approval)
                standing = book.standing(conn, decision.scenario_digest)
                if standing is not None and (state := standing.state(signed.now_ms())) in {"revoked", "expired"}:
                    raise WrongState(tell=f"the scenario is {state}")
                outer = ApprovalRecord(approval, caller.key.to_bytes())
                record = signed.sign(self._ledger.keys.identity, "approval-record", outer)
                identity = self._ledger.keys.identity.public
                digest = book.approve(conn, record, identity, self._ledger.node_id)
                self._ledger.enter_other(conn, "approved", caller.key_id, {"party": self._ledger.node_id}, digest)
                return digest

            digest = await self._ledger.write(approved)
            await self.hand_round(digest)
            return scenario_pb2.ApproveScenarioResponse(scenario=wire.to_proto(await self._view(digest)))

        return await self._edge.unary(context, approve)

    async def ListScenarios(self, request: Any, context: Any) -> Any:  # noqa: N802
        """List what this node holds."""

        def listed() -> Any:
            opened = self._edge.open(request, _PREFIX + "ListScenarios", ListQuery, registry.ROLES)
            self._edge.spend_nonce(opened)
            with self._ledger.store.read() as conn:
                views = book.listed(conn, opened.body.after, page(opened.body.limit), signed.now_ms())
            if not OVERSEERS & opened.caller.roles:  # applicants do not see each other's terms
                key = opened.caller.key.to_bytes()
                views = [view for view in views if _concerns(view, key)]
            return scenario_pb2.ListScenariosResponse(scenarios=[wire.to_proto(view) for view in views])

        return await self._edge.unary(context, lambda: asyncio.to_thread(listed))

    async def RevokeScenario(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Revoke in this organisation's name, and stop what runs."""

        async def revoke() -> Any:
            opened = await asyncio.to_thread(
                self._edge.open, request, _PREFIX + "RevokeScenario", RevocationNotice, APPROVERS
            )
            notice, here = opened.body, self._ledger.node_id

            def revoked(conn: Connection) -> None:
                opened.remember(conn)
                value = Revocation(notice.scenario_digest, here, notice.reason, signed.now_ms())
                record = signed.sign(self._ledger.keys.identity, "revocation", value)
                book.revoke(conn, record, self._ledger.keys.identity.public, here)
                facts = {"party": here, "reason": notice.reason[:200]}
                self._ledger.enter_other(conn, "revoked", opened.caller.key_id, facts, notice.scenario_digest)

            await self._ledger.write(revoked)
            await asyncio.shield(asyncio.ensure_future(self._end(notice.scenario_digest)))
            return scenario_pb2.RevokeScenarioResponse(scenario=wire.to_proto(await self._view(notice.scenario_digest)))

        return await self._edge.unary(context, revoke)

    async def _end(self, digest: bytes) -> None:
        """Stop what runs and tell everybody, even if the caller hangs up meanwhile."""
        await asyncio.gather(self._pipeline.revoked(digest), self.hand_round(digest))

    async def hand_round_all(self) -> None:
        """Give everybody what they may have missed while they were down."""
        with self._ledger.store.read() as conn:
            views = book.listed(conn, "", 500, signed.now_ms())
        for view in views:
            if view.state != "expired":
                await self.hand_round(view.digest)

    async def hand_round(self, digest: bytes) -> None:
        """Give every party what this node holds, and take what it holds; one that is down gets it next time."""
        with self._ledger.store.read() as conn:
            bundle = book.bundle(conn, digest)
            parties = required(book.application(conn, digest)) - {self._ledger.node_id}
        for party in sorted(parties):
            try:
                theirs = await self._exchange.links.share(party, bundle)
                await self.learn(digest, theirs, ())
            except SandboxError as error:
                log.warning("scenario %s not handed to %s: %s", digest.hex()[:16], party, error)

    async def take(self, sender: str, bundle: ScenarioBundle) -> tuple[Signed, ...]:
        """Take a scenario a peer hands over; returns the approvals this node holds."""

        def filed(conn: Connection) -> bytes:
            digest = signed.digest("scenario", bundle.scenario)
            known = book.standing(conn, digest) is not None
            book.file(conn, bundle.scenario, self._floors)
            if self._ledger.node_id not in required(book.application(conn, digest)):
                raise PolicyRefused(tell=f"{self._ledger.node_id} has no part in this scenario")
            if not known:
                self._ledger.enter_other(conn, "applied", sender, {"by": sender}, digest)
            return digest

        digest = await self._ledger.write(filed)
        await self.learn(digest, bundle.approvals, bundle.revocations)
        with self._ledger.store.read() as conn:
            return book.bundle(conn, digest).approvals

    async def learn(self, digest: bytes, approvals: Iterable[Signed], revocations: Iterable[Signed]) -> None:
        """Store others' approvals and revocations; each is signed by the pinned node of its party."""

        def store(conn: Connection) -> bool:
            before = book.standing(conn, digest)
            known = {self._ledger.keys.identity.public.key_id: self._ledger.node_id}
            keys = {self._ledger.node_id: self._ledger.keys.identity.public}
            for card in registry.all_peers(conn):
                key = self._exchange.identity(card.node_id)
                known[key.key_id], keys[card.node_id] = card.node_id, key
            for record in approvals:
                party = known.get(record.key_id)
                if party is not None and (before is None or party not in before.approved_by):
                    _same(digest, book.approve(conn, record, keys[party], party))
                    self._ledger.enter_other(conn, "approved", party, {"party": party}, digest)
            for record in revocations:
                party = known.get(record.key_id)
                if party is not None and before is not None and not before.revoked:
                    _same(digest, book.revoke(conn, record, keys[party], party))
                    self._ledger.enter_other(conn, "revoked", party, {"party": party}, digest)
            after = book.standing(conn, digest)
            return after is not None and after.revoked and not (before is not None and before.revoked)

        if await self._ledger.write(store):
            await self._pipeline.revoked(digest)

    async def _view(self, digest: bytes) -> ScenarioView:
        with self._ledger.store.read() as conn:
            return book.view(conn, digest, signed.now_ms())


def _same(digest: bytes, found: bytes) -> None:
    if found != digest:
        raise InvalidSpec(tell="a bundle holds a record of another scenario")


def _concerns(view: ScenarioView, key: bytes) -> bool:
    scenario = wire.decode(Scenario, view.scenario.payload)
    return key in (scenario.applicant_key, scenario.recipient.identity_key, *scenario.consent.issuers)
