"""ScenarioService: apply, approve, list, say something of one. What changes here is handed to every party it names.

Security:  a department's person sees scenarios that use its data, an applicant the own ones; nobody approves in two
           names at once. Who speaks in whose name inside this node: ``_voices``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from sandbox import registry, signed, wire
from sandbox.api.edge import WINDOW_MS, Caller, Edge
from sandbox.api.jobs import page
from sandbox.api.rounds import ENTRIES, Rounds
from sandbox.errors import InvalidSpec, NotFound, PolicyRefused, WrongState
from sandbox.exchange import Exchange
from sandbox.ledger import Ledger
from sandbox.model import (
    Announcement,
    Approval,
    ApprovalDecision,
    ApprovalRecord,
    ListQuery,
    Notice,
    NoticeKind,
    Scenario,
    ScenarioApplication,
    ScenarioView,
    Signed,
)
from sandbox.pipeline import Pipeline
from sandbox.policy import book, departments
from sandbox.policy.moves import check_move, suspensions
from sandbox.policy.scenario import ENDED, Standing, required
from sandbox.v1 import scenario_pb2, scenario_pb2_grpc

APPLICANTS = frozenset({"submitter"})
APPROVERS = frozenset({"operator", "owner"})
DEPARTMENTS = frozenset({"department"})
OVERSEERS = frozenset({"operator", "owner", "auditor"})
OBJECTIONS = frozenset({NoticeKind.REFUSED, NoticeKind.CHANGES})
_PREFIX = "/sandbox.v1.ScenarioService/"


class Scenarios(Rounds, scenario_pb2_grpc.ScenarioServiceServicer):
    """Applications, approvals and notices."""

    def __init__(self, edge: Edge, pipeline: Pipeline, ledger: Ledger, exchange: Exchange) -> None:
        super().__init__(pipeline, ledger, exchange)
        self._edge = edge

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
                is_new = book.standing(conn, signed.digest("scenario", opened.body.scenario)) is None
                digest = book.file(conn, opened.body.scenario, self._floors)
                scenario = book.application(conn, digest)
                if is_new and scenario.amends:
                    _check_amended(book.standing(conn, scenario.amends))
                facts = {"name": scenario.name} | ({"amends": scenario.amends.hex()} if scenario.amends else {})
                self._ledger.enter_other(conn, "applied", opened.caller.key_id, facts, digest)
                return digest

            digest = await self._ledger.write(filed)
            await self.announce(digest)
            return scenario_pb2.ApplyScenarioResponse(scenario=wire.to_proto(await self._view(digest, opened.caller)))

        return await self._edge.unary(context, apply)

    async def ApproveScenario(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Approve in this organisation's name, or a source department's."""

        async def approve() -> Any:
            opened = await asyncio.to_thread(
                self._edge.open, request, _PREFIX + "ApproveScenario", ApprovalDecision, APPROVERS | DEPARTMENTS
            )

            def approved(conn: Connection) -> bytes:
                opened.remember(conn)
                return self._approve(conn, opened.caller, opened.body.approval)

            digest = await self._ledger.write(approved)
            await self._stop(digest)
            await self.announce(digest)
            return scenario_pb2.ApproveScenarioResponse(scenario=wire.to_proto(await self._view(digest, opened.caller)))

        return await self._edge.unary(context, approve)

    def _approve(self, conn: Connection, caller: Caller, approval: Signed) -> bytes:
        decision = signed.verify(caller.key, "approval", approval, Approval)
        digest, now_ms = decision.scenario_digest, signed.now_ms()
        standing = book.standing(conn, digest)
        if standing is None:
            raise NotFound(tell="no such scenario at this node")
        if (state := standing.state(now_ms)) in ENDED:
            raise WrongState(tell=f"the scenario is {state}")
        if decision.time_ms > now_ms + WINDOW_MS:
            raise InvalidSpec(tell="the approval is dated in the future", hint="set this machine's clock")
        scenario = standing.scenario
        if decision.party != self._here:
            raise PolicyRefused(tell=f"an approval at {self._here} is in the name of {self._here}")
        awaited = departments.awaiting(conn, digest, scenario, self._here)
        if DEPARTMENTS & caller.roles and (not APPROVERS & caller.roles or caller.organisation in awaited):
            of = caller.organisation
            if self._here in standing.approved_by and of in awaited:
                tell = f"{self._here} approved the scenario before data of {of} came under it: they are not part of it"
                raise WrongState(tell=tell, hint="the applicant amends the scenario (`amends`), and all approve anew")
            departments.approve(conn, digest, scenario, self._here, of, approval, caller.key)
            facts = {"party": self._here, "department": of}
            self._ledger.enter_other(conn, "department-approved", caller.key_id, facts, digest)
            return digest
        if self._here not in required(scenario):
            raise PolicyRefused(tell=f"{self._here} has no part in this scenario")
        vouched = departments.vouched(conn, digest, scenario, self._here)
        record = signed.sign(
            self._identity, "approval-record", ApprovalRecord(approval, caller.key.to_bytes(), vouched)
        )
        book.approve(conn, record, self._identity.public, self._here)
        self._ledger.enter_other(conn, "approved", caller.key_id, {"party": self._here}, digest)
        return digest

    async def ListScenarios(self, request: Any, context: Any) -> Any:  # noqa: N802
        """List what this node holds."""

        def listed() -> Any:
            opened = self._edge.open(request, _PREFIX + "ListScenarios", ListQuery, registry.ROLES)
            self._edge.spend_nonce(opened)
            caller, query, now_ms = opened.caller, opened.body, signed.now_ms()
            with self._ledger.store.read() as conn:
                views = book.listed(
                    conn,
                    query.after,
                    page(query.limit),
                    now_ms,
                    lambda scenario: self._asks(conn, caller, scenario),
                    lambda scenario: self._concerns(conn, caller, scenario),
                )
            return scenario_pb2.ListScenariosResponse(scenarios=[wire.to_proto(view) for view in views])

        return await self._edge.unary(context, lambda: asyncio.to_thread(listed))

    async def NotifyScenario(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Say something of a scenario in this organisation's name, and stop what runs if it says so."""

        async def notify() -> Any:
            opened = await asyncio.to_thread(
                self._edge.open, request, _PREFIX + "NotifyScenario", Announcement, APPROVERS | DEPARTMENTS
            )
            caller, body = opened.caller, opened.body

            def told(conn: Connection) -> None:
                opened.remember(conn)
                standing = book.standing(conn, body.scenario_digest)
                if standing is None or not self._concerns(conn, caller, standing.scenario):
                    raise NotFound(tell="no such scenario at this node")
                self._say(conn, standing, body.kind, body.reason, caller.key_id)
                if body.kind in OBJECTIONS and DEPARTMENTS & caller.roles:  # its yes must not outlive its no
                    departments.take_back(conn, standing.digest, caller.organisation)

            await self._ledger.write(told)
            await asyncio.shield(asyncio.ensure_future(self._tell(body.scenario_digest)))
            view = await self._view(body.scenario_digest, caller)
            return scenario_pb2.NotifyScenarioResponse(scenario=wire.to_proto(view))

        return await self._edge.unary(context, notify)

    async def suspend(self, digest: bytes, reason: str) -> None:
        """Suspend a scenario in this node's own name; does nothing if it did so already, or the scenario has ended."""

        def told(conn: Connection) -> bool:
            standing = book.standing(conn, digest)
            if standing is None or standing.state(signed.now_ms()) in ENDED or standing.awaiting():
                return False
            if "" in suspensions(book.said(conn, digest, self._here), self._voices(conn)):
                return False
            self._say(conn, standing, NoticeKind.SUSPENDED, reason, self._here)
            return True

        if await self._ledger.write(told):
            await asyncio.shield(asyncio.ensure_future(self._tell(digest)))

    def _say(self, conn: Connection, standing: Standing, kind: NoticeKind, reason: str, actor: str) -> None:
        """Sign, store and enter a notice of this node, if it means something where the scenario stands."""
        if self._here not in required(standing.scenario):
            raise PolicyRefused(tell=f"{self._here} has no part in this scenario")
        voices = self._voices(conn)
        held = suspensions(book.said(conn, standing.digest, self._here), voices)
        check_move(standing, self._here, kind, reason, voices(actor), held, signed.now_ms())
        self._put(conn, standing.digest, kind, reason, actor)
        if kind is NoticeKind.RESUMED:
            for voice, notice in held.items():
                if voice != voices(actor):  # the last notice counts: say again what still holds
                    self._put(conn, standing.digest, notice.kind, notice.reason, notice.actor)

    def _put(self, conn: Connection, digest: bytes, kind: NoticeKind, reason: str, actor: str) -> None:
        serial = book.next_serial(conn, digest, self._here)
        value = Notice(digest, self._here, kind, reason, signed.now_ms(), serial, actor)
        record = signed.sign(self._identity, "notice", value)
        book.notify(conn, record, self._identity.public, self._here)
        facts = {"party": self._here, "reason": reason[:200], "serial": str(serial)}
        self._ledger.enter_other(conn, ENTRIES[kind], actor, facts, digest)

    def _voices(self, conn: Connection) -> Callable[[str], str]:
        """Return a function from an actor to in whose name it speaks: a department, or this organisation ("")."""
        known = {person.key_id: person for person in registry.all_keys(conn)}

        def voice(actor: str) -> str:
            person = known.get(actor)
            if person is None or APPROVERS & person.roles or not DEPARTMENTS & person.roles:
                return ""
            return person.organisation

        return voice

    def _concerns(self, conn: Connection, caller: Caller, scenario: Scenario) -> bool:
        """Whether a caller may see a scenario: those who oversee, its own people, departments whose data it uses."""
        return _is_named(scenario, caller.key.to_bytes()) or bool(self._asks(conn, caller, scenario))

    def _asks(self, conn: Connection, caller: Caller, scenario: Scenario) -> str:
        """Return this node to whom it says which departments it asks: who oversees, and those it asks; "" to others."""
        if OVERSEERS & caller.roles:
            return self._here
        is_department = bool(DEPARTMENTS & caller.roles)
        is_asked = is_department and caller.organisation in departments.needed(conn, scenario, self._here)
        return self._here if is_asked else ""

    async def _tell(self, digest: bytes) -> None:
        """Stop what runs and tell everybody, even if the caller hangs up meanwhile."""
        await asyncio.gather(self._stop(digest), self.announce(digest))

    async def _view(self, digest: bytes, caller: Caller) -> ScenarioView:
        def look(conn: Connection, at: bytes) -> ScenarioView:
            return book.view(conn, at, signed.now_ms(), self._asks(conn, caller, book.application(conn, at)))

        return await self._look(look, digest)


def _is_named(scenario: Scenario, key: bytes) -> bool:
    """Whether a key is one of the scenario's own people: applicants do not see each other's terms."""
    return key in (scenario.applicant_key, scenario.recipient.identity_key, *scenario.consent.issuers)


def _check_amended(earlier: Standing | None) -> None:
    """Refuse to amend what is unknown here, or has no successor any more or one already."""
    if earlier is None:
        raise NotFound(tell="this node holds no scenario that the application could amend")
    if (state := earlier.state(signed.now_ms())) in {"revoked", "amended"}:
        raise WrongState(
            tell=f"the scenario to be amended is {state}", hint="apply without `amends`, or amend the newest"
        )
