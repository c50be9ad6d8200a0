"""The scenarios a node holds: application, approvals, revocations, each as the signed bytes it came in.

An approval counts when its party's *node* vouches for it (the node is pinned; it checked that the approver is its own
person with the role), and the approver's own signature inside verifies. Everything is checked before it is stored, so
that what is read back can be trusted.
"""

from __future__ import annotations

from sqlalchemy import Connection, insert, select

from sandbox import signed, wire
from sandbox.crypto.sm2 import PublicKey
from sandbox.errors import InvalidSpec, NotFound, PolicyRefused, Unauthenticated
from sandbox.model import Approval, ApprovalRecord, Revocation, Scenario, ScenarioBundle, ScenarioView, Signed
from sandbox.policy.scenario import Floors, Given, Standing, check, required
from sandbox.store import approvals, revocations, scenarios


def file(conn: Connection, application: Signed, floors: Floors) -> bytes:
    """Store an application and return its digest; filing it again changes nothing.

    Raises:
        InvalidSpec: it is not whole, or asks for less than the floors.
        Unauthenticated: the applicant it names did not sign it.
    """
    claimed = wire.decode(Scenario, application.payload)
    scenario = signed.verify(PublicKey.from_bytes(claimed.applicant_key), "scenario", application, Scenario)
    check(scenario, floors)
    digest = signed.digest("scenario", application)
    if conn.scalar(select(scenarios.c.name).where(scenarios.c.digest == digest)) is None:
        conn.execute(
            insert(scenarios).values(
                digest=digest, name=scenario.name, signed=wire.encode(application), received_ms=signed.now_ms()
            )
        )
    return digest


def approve(conn: Connection, record: Signed, node: PublicKey, party: str) -> bytes:
    """Store one party's approval, for which its node vouches; returns the scenario's digest.

    Raises:
        NotFound: no such scenario here.
        PolicyRefused: the party has no say in it, or the approver is the applicant.
    """
    outer = signed.verify(node, "approval-record", record, ApprovalRecord)
    approver = PublicKey.from_bytes(outer.approver_key)
    approval = signed.verify(approver, "approval", outer.approval, Approval)
    scenario = application(conn, approval.scenario_digest)
    if approval.party != party:
        raise Unauthenticated(f"{party} vouches for an approval by {approval.party}")
    if party not in required(scenario):
        raise PolicyRefused(tell=f"{party} has no part in this scenario")
    if outer.approver_key == scenario.applicant_key:
        raise PolicyRefused(tell="the applicant cannot approve the own application")
    held = conn.scalar(
        select(approvals.c.party).where(approvals.c.digest == approval.scenario_digest, approvals.c.party == party)
    )
    if held is None:
        conn.execute(insert(approvals).values(digest=approval.scenario_digest, party=party, record=wire.encode(record)))
    return approval.scenario_digest


def revoke(conn: Connection, record: Signed, node: PublicKey, party: str) -> bytes:
    """Store one party's revocation, signed by its node; returns the scenario's digest."""
    revocation = signed.verify(node, "revocation", record, Revocation)
    scenario = application(conn, revocation.scenario_digest)
    if revocation.party != party or party not in required(scenario):
        raise PolicyRefused(tell=f"{party} has no part in this scenario")
    held = conn.scalar(
        select(revocations.c.party).where(
            revocations.c.digest == revocation.scenario_digest, revocations.c.party == party
        )
    )
    if held is None:
        conn.execute(
            insert(revocations).values(digest=revocation.scenario_digest, party=party, record=wire.encode(record))
        )
    return revocation.scenario_digest


def application(conn: Connection, digest: bytes) -> Scenario:
    """Return a scenario as applied for; ``NotFound`` if this node has none of that digest."""
    stored = conn.scalar(select(scenarios.c.signed).where(scenarios.c.digest == digest))
    if stored is None:
        raise NotFound(tell="no such scenario at this node")
    return wire.decode(Scenario, signed.read_signed(stored).payload)


def standing(conn: Connection, digest: bytes) -> Standing | None:
    """Return a scenario with what this node knows of it."""
    try:
        scenario = application(conn, digest)
    except NotFound:
        return None
    given = {}
    for party, record in conn.execute(
        select(approvals.c.party, approvals.c.record).where(approvals.c.digest == digest)
    ):
        outer = wire.decode(ApprovalRecord, signed.read_signed(record).payload)
        approval = wire.decode(Approval, outer.approval.payload)
        given[party] = Given(approval.accepts_simulated, approval.accepts_two_contributors)
    ended = conn.scalar(select(revocations.c.party).where(revocations.c.digest == digest).limit(1))
    return Standing(scenario, digest, given, ended is not None)


def bundle(conn: Connection, digest: bytes) -> ScenarioBundle:
    """Return everything this node holds about a scenario, to be handed to another party."""
    stored = conn.scalar(select(scenarios.c.signed).where(scenarios.c.digest == digest))
    if stored is None:
        raise NotFound(tell="no such scenario at this node")
    given = conn.execute(select(approvals.c.record).where(approvals.c.digest == digest).order_by(approvals.c.party))
    ended = conn.execute(
        select(revocations.c.record).where(revocations.c.digest == digest).order_by(revocations.c.party)
    )
    return ScenarioBundle(
        signed.read_signed(stored),
        tuple(signed.read_signed(record) for (record,) in given),
        tuple(signed.read_signed(record) for (record,) in ended),
    )


def view(conn: Connection, digest: bytes, now_ms: int) -> ScenarioView:
    """Return a scenario as people see it."""
    held = standing(conn, digest)
    if held is None:
        raise NotFound(tell="no such scenario at this node")
    return ScenarioView(
        digest,
        bundle(conn, digest).scenario,
        tuple(sorted(held.approved_by)),
        tuple(sorted(held.awaiting())),
        held.state(now_ms),
    )


def listed(conn: Connection, after: str, limit: int, now_ms: int) -> list[ScenarioView]:
    """Return a page of scenarios, by digest."""
    start = _digest(after)
    query = select(scenarios.c.digest).where(scenarios.c.digest > start).order_by(scenarios.c.digest).limit(limit)
    return [view(conn, bytes(digest), now_ms) for (digest,) in conn.execute(query)]


def _digest(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise InvalidSpec(tell="`after` is not a scenario digest in hex") from None
