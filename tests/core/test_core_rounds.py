"""Scenarios at two nodes in one process: what goes round, what ends a conversation, what a department undoes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from core_builders import scenario
from sqlalchemy import Connection, select
from test_core_catalogue import SCHEMA, registered

from sandbox import custody, signed, wire
from sandbox.api import rounds
from sandbox.api.edge import Edge
from sandbox.api.scenarios import Scenarios
from sandbox.catalog.registration import make_code
from sandbox.catalog.schema import parse_schema, schema_digest
from sandbox.crypto.sm2 import PrivateKey, PublicKey
from sandbox.errors import NotFound, SandboxError, WrongState
from sandbox.home import Home, init
from sandbox.keyring import Person, create_person
from sandbox.ledger import Ledger
from sandbox.model import (
    Announcement,
    Approval,
    ApprovalDecision,
    DatasetRef,
    DatasetUse,
    Failure,
    ListQuery,
    Notice,
    NoticeKind,
    Scenario,
    ScenarioApplication,
    ScenarioBundle,
    ScenarioView,
    Signed,
    VersionNotice,
    VersionRule,
)
from sandbox.peer.failures import error_of
from sandbox.policy import book, versions
from sandbox.policy.scenario import Floors
from sandbox.store import versions as offered_versions
from sandbox.v1 import scenario_pb2

FLOORS = Floors(10, 10, 5)
DAY = 86_400_000
DIGEST = schema_digest(parse_schema(SCHEMA))
OLD = b"o" * 32  # digest of a schema that the scenario is not about


@dataclass
class Links:
    """The way to the other nodes; counts what was handed over. Whoever is not in ``doors`` cannot be reached."""

    sender: str
    doors: dict[str, Node] = field(default_factory=dict)
    shared: int = 0

    async def share(self, party: str, bundle: ScenarioBundle) -> tuple[Signed, ...]:
        if party not in self.doors:
            raise NotFound(tell="nobody there")
        self.shared += 1
        return await self.doors[party].scenarios.take(self.sender, wire.decode(ScenarioBundle, wire.encode(bundle)))


class Call:
    """A call as gRPC shows it to a handler: whose certificate it came with, and how it is refused."""

    def __init__(self, certificate: bytes) -> None:
        self._certificate = certificate

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [self._certificate]}

    async def abort(self, code: object, text: str, trailer: tuple[tuple[str, bytes], ...]) -> None:
        raise error_of(wire.decode(Failure, trailer[0][1]))


class Node:
    """One node's scenarios, with its store and its people."""

    def __init__(self, home: Home, folder: Path) -> None:
        self.home, self.folder, self.people = home, folder, dict[str, Person]()
        self.ledger = Ledger(home.path, home.settings, home.keys, home.store, lambda: {})
        self.pinned: dict[str, PublicKey] = {}
        self.links = Links(self.ledger.node_id)

        async def revoked(digest: bytes) -> None:
            return None

        pipeline: Any = SimpleNamespace(revoked=revoked)
        exchange: Any = SimpleNamespace(links=self.links, identity=self._identity)
        self.scenarios = Scenarios(Edge(self.ledger.node_id, home.store), pipeline, self.ledger, exchange)

    def _identity(self, party: str) -> PublicKey:
        return self.home.keys.identity.public if party == self.ledger.node_id else self.pinned[party]

    def pin(self, card: Signed) -> None:
        peer = self.home.add_peer(card)
        self.pinned[peer.node_id] = PublicKey.from_bytes(peer.identity_key)

    def person(self, name: str, organisation: str, *roles: str) -> None:
        self.people[name] = create_person(self.folder / name, name, organisation)
        self.home.register_key(self.people[name].card, roles)

    def file(self, held: Scenario, key: PrivateKey) -> bytes:
        with self.ledger.store.write() as conn:
            return book.file(conn, signed.sign(key, "scenario", held), FLOORS)

    def say(self, *notices: Signed) -> None:
        with self.ledger.store.write() as conn:
            for one in notices:
                owner = wire.decode(VersionNotice, one.payload).owner
                versions.file(conn, one, self._identity(owner), owner)

    def newest(self, held: Scenario) -> int:
        wanted = DatasetRef(held.datasets[0].code, 0)
        with self.ledger.store.read() as conn:
            found = versions.offered(conn, held, [wanted])
        return found[wanted].version if found else 0

    def call(self, who: str, method: str, body: object) -> Any:
        """Call a method as somebody who is registered here."""
        return finished(self.calling(who, method, body))

    def calling(self, who: str, method: str, body: object) -> Coroutine[Any, Any, Any]:
        person = self.people[who]
        full = f"/sandbox.v1.ScenarioService/{method}"
        envelope = signed.sign_call(person.identity, self.ledger.node_id, full, body)
        message = getattr(scenario_pb2, f"{method}Request")(signed=wire.to_proto(envelope))
        made: Coroutine[Any, Any, Any] = getattr(self.scenarios, method)(message, Call(person.tls_certificate))
        return made

    def decision(self, who: str, digest: bytes) -> ApprovalDecision:
        decision = Approval(digest, self.ledger.node_id, False, signed.now_ms())
        return ApprovalDecision(signed.sign(self.people[who].identity, "approval", decision))

    def approve(self, who: str, digest: bytes) -> ScenarioView:
        body = self.decision(who, digest)
        return wire.from_proto(ScenarioView, self.call(who, "ApproveScenario", body).scenario)

    def object(self, who: str, digest: bytes, kind: NoticeKind) -> ScenarioView:
        body = Announcement(digest, kind, "on second thoughts")
        return wire.from_proto(ScenarioView, self.call(who, "NotifyScenario", body).scenario)

    def listed(self, who: str) -> list[ScenarioView]:
        views = self.call(who, "ListScenarios", ListQuery("", 50)).scenarios
        return [wire.from_proto(ScenarioView, view) for view in views]


def finished(action: Coroutine[Any, Any, Any]) -> Any:
    """Run something with everything that it sets going, which must come to an end."""

    async def run() -> Any:
        async with asyncio.timeout(20):
            result = await action
            while others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.gather(*others)
            return result

    return asyncio.run(run())


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Home]]:
    made: list[Home] = []

    def make(name: str) -> Home:
        folder = tmp_path_factory.mktemp("nodes") / name
        init(folder, node_id=name, organisation=f"{name} org", listen="127.0.0.1:1")
        made.append(Home(folder))
        return made[-1]

    yield make
    for home in made:
        home.store.close()


@dataclass
class World:
    """Two nodes that can reach each other, and a scenario of the bank's own person over its data by rule."""

    bank: Node
    operator: Node
    held: Scenario
    digest: bytes

    def notice(self, version: int, **changes: Any) -> Signed:
        whole = VersionNotice(self.held.datasets[0].code, version, "bank", bytes([version]) * 32, DIGEST, 600, 1)
        return signed.sign(self.bank.home.keys.identity, "version", replace(whole, **changes))

    def shared(self) -> tuple[int, int]:
        return self.bank.links.shared, self.operator.links.shared


@pytest.fixture
def world(homes: Callable[[str], Home], tmp_path: Path) -> World:
    bank, operator = (Node(homes(name), tmp_path / name) for name in ("bank", "operator"))
    bank.pin(operator.home.card())
    operator.pin(bank.home.card())
    bank.links.doors["operator"], operator.links.doors["bank"] = operator, bank
    bank.person("officer", "Example Bank", "submitter")
    bank.person("chief", "bank org", "owner")
    bank.person("health", "Health Bureau", "department")
    bank.person("roads", "Roads Bureau", "department")
    code = make_code("bank", "社保缴费记录")  # as ``registered`` names it
    ruled = DatasetUse(code, "bank", VersionRule.SAME_SCHEMA, 0, b"", ("id",), ("base",), "bad", 0, DIGEST)
    key, now = bank.people["officer"].identity, signed.now_ms()
    held = scenario(
        applicant_key=key.public.to_bytes(),
        datasets=(ruled, scenario().datasets[1]),
        not_before_ms=now - DAY,
        not_after_ms=now + DAY,
    )
    digest = bank.file(held, key)
    operator.file(held, key)
    return World(bank, operator, held, digest)


# --- what ends a conversation -----------------------------------------------------------------------------------------


def test_who_holds_less_hands_nothing_back(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The bank said two things of version 3; to the operator, it is no version of this schema."""
    world.bank.say(world.notice(3))
    world.operator.say(world.notice(2), world.notice(3, schema_digest=OLD))
    finished(world.bank.scenarios.hand_round(world.digest))
    assert world.shared() == (1, 0)
    assert (world.bank.newest(world.held), world.operator.newest(world.held)) == (3, 2)
    assert "bank signed two notices of" in caplog.text


def test_a_caller_does_not_wait_for_a_party_that_is_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "TOLD_S", 0.05)
    node, told = world.bank, list[str]()

    async def run() -> None:
        is_back, share = asyncio.Event(), node.links.share

        async def later(party: str, bundle: ScenarioBundle) -> tuple[Signed, ...]:
            await is_back.wait()
            told.append(party)
            return await share(party, bundle)

        monkeypatch.setattr(node.links, "share", later)
        answer = await node.calling("chief", "ApproveScenario", node.decision("chief", world.digest))
        assert tuple(answer.scenario.approved_by) == ("bank",) and told == []
        is_back.set()

    finished(run())
    assert "operator" in told
    with world.operator.ledger.store.read() as conn:
        standing = book.standing(conn, world.digest)
    assert standing is not None and "bank" in standing.approved_by


def test_a_notice_that_does_not_count_stops_nothing_else(world: World) -> None:
    tomorrow = world.notice(5, created_ms=signed.now_ms() + DAY)
    finished(world.operator.scenarios.learn(world.digest, (), (), [tomorrow, world.notice(4)]))
    assert world.operator.newest(world.held) == 4


def test_who_holds_more_hands_it_back_once(world: World) -> None:
    world.bank.say(world.notice(3), world.notice(4), world.notice(4, gone=True))
    world.operator.say(world.notice(4))
    finished(world.operator.scenarios.hand_round(world.digest))
    assert world.shared() == (1, 1)
    assert (world.bank.newest(world.held), world.operator.newest(world.held)) == (3, 3)


def test_two_who_never_agree_do_not_call_for_ever(
    world: World, homes: Callable[[str], Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They know different keys for the witness, so that neither takes what the other has of it."""
    for serial, node in enumerate((world.bank, world.operator), 1):
        witness = homes("witness")
        node.pin(witness.card())
        value = Notice(world.digest, "witness", NoticeKind.CHANGES, "fewer calls", 1, serial, "a")
        with node.ledger.store.write() as conn:
            book.notify(conn, signed.sign(witness.keys.identity, "notice", value), node.pinned["witness"], "witness")
    finished(world.bank.scenarios.hand_round(world.digest))
    assert world.shared() == (2, 1)  # told, handed back, handed back; and that is all
    finished(world.bank.scenarios.hand_round(world.digest))
    assert world.shared() == (3, 1)
    monkeypatch.setattr(rounds, "BACK_S", 0.0)  # the minute has passed
    world.bank.links.doors.clear()
    finished(world.operator.scenarios.take("bank", bundle_of(world.bank, world.digest)))
    assert world.shared() == (3, 2)


def test_the_rounds_read_off_the_event_loop(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()
    store = world.bank.ledger.store
    read = store.read

    def noted() -> AbstractContextManager[Connection]:
        seen.add(threading.current_thread().name)
        return read()

    monkeypatch.setattr(store, "read", noted)
    for action in (world.bank.scenarios.hand_round_all(), world.bank.scenarios.offer(world.held.datasets[0].code)):
        seen.clear()
        finished(action)
        assert seen and threading.current_thread().name not in seen


def bundle_of(node: Node, digest: bytes) -> ScenarioBundle:
    with node.ledger.store.read() as conn:
        return book.bundle(conn, digest)


# --- versions that end ------------------------------------------------------------------------------------------------


def test_the_newest_is_the_newest_that_is_left_everywhere(world: World) -> None:
    node = world.bank
    code = world.held.datasets[0].code
    for version in (1, 2):
        assert registered(node.ledger, version=version) == code
        node.say(world.notice(version))
    finished(node.scenarios.hand_round(world.digest))
    assert (node.newest(world.held), world.operator.newest(world.held)) == (2, 2)
    for _ in range(2):
        custody.destroy(node.ledger, code, 2, "somebody", "asked for", lambda conn: None)
    finished(node.scenarios.offer("another"))
    assert (node.newest(world.held), world.operator.newest(world.held)) == (1, 2)
    finished(node.scenarios.offer(code))
    assert (node.newest(world.held), world.operator.newest(world.held)) == (1, 1)
    with world.operator.ledger.store.read() as conn:
        stored = conn.scalars(select(offered_versions.c.record).order_by(offered_versions.c.version)).all()
    said = [wire.decode(VersionNotice, signed.read_signed(one).payload) for one in stored]
    assert [(one.version, one.gone, one.content_hash) for one in said] == [
        (1, False, b"\1" * 32),
        (2, True, b"\2" * 32),
    ]


# --- departments ------------------------------------------------------------------------------------------------------


def refused(error: type[SandboxError], text: str, action: Callable[[], object]) -> None:
    with pytest.raises(error, match=text):
        action()


@pytest.mark.parametrize("kind", [NoticeKind.REFUSED, NoticeKind.CHANGES])
def test_a_departments_later_no_outlives_its_yes(world: World, kind: NoticeKind) -> None:
    node, digest = world.bank, world.digest
    registered(node.ledger, department="Health Bureau")
    assert node.approve("health", digest).awaiting_departments == ()
    assert node.object("health", digest, kind).awaiting_departments == ("Health Bureau",)
    refused(WrongState, "awaiting the approval of: Health Bureau", lambda: node.approve("chief", digest))
    assert node.approve("health", digest).awaiting_departments == ()
    node.object("chief", digest, kind)  # the organisation's no is not the department's
    assert node.approve("chief", digest).approved_by == ("bank",)
    refused(WrongState, "approved the scenario already", lambda: node.object("health", digest, kind))


def test_a_department_that_came_later_is_told_that_it_is_not_part_of_it(world: World) -> None:
    node, digest = world.bank, world.digest
    registered(node.ledger, department="Health Bureau")
    node.approve("health", digest)
    node.approve("chief", digest)
    registered(node.ledger, version=2, department="Roads Bureau")
    refused(WrongState, "data of Roads Bureau came under it", lambda: node.approve("roads", digest))
    node.say(world.notice(1), world.notice(2))
    assert node.newest(world.held) == 1
    assert node.approve("health", digest).approved_by == ("bank",)  # again, and nothing changes


def test_applicants_do_not_learn_whose_data_a_node_holds(world: World) -> None:
    node = world.bank
    registered(node.ledger, department="Health Bureau", visible_to=("Somebody Else",))
    seen = {who: [view.awaiting_departments for view in node.listed(who)] for who in node.people}
    assert seen == {"officer": [()], "chief": [("Health Bureau",)], "health": [("Health Bureau",)], "roads": []}
    own = node.people["officer"].identity
    body = ScenarioApplication(signed.sign(own, "scenario", replace(world.held, purpose="another")))
    answer = node.call("officer", "ApplyScenario", body)
    assert wire.from_proto(ScenarioView, answer.scenario).awaiting_departments == ()
