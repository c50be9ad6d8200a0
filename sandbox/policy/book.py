"""The scenarios a node holds: application, approvals, notices, each as the signed bytes it came in.

An approval counts when its party's *node* vouches for it (the node is pinned; it checked that the approver is its own
person with the role, and that its source departments agreed), and the approvers' own signatures inside verify. A
notice counts when its party's node signed it; of one party, the one with the highest serial number. Everything is
checked before it is stored, so that what is read back can be trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sqlalchemy import Connection, func, insert, select

from sandbox import signed, wire
from sandbox.crypto.sm2 import PublicKey
from sandbox.errors import IntegrityFailed, InvalidSpec, NotFound, PolicyRefused, Unauthenticated
from sandbox.model import (
    Approval,
    ApprovalRecord,
    Notice,
    NoticeKind,
    NoticeView,
    Scenario,
    ScenarioBundle,
    ScenarioView,
    Signed,
)
from sandbox.policy import departments, versions
from sandbox.policy.scenario import Floors, Given, Standing, check, required, succeeds
from sandbox.store import approvals, notices, scenarios

_SHOWN = 64  # notices in a view, the newest
_PAGE = 200


def file(conn: Connection, application: Signed, floors: Floors) -> bytes:
    """Store an application and return its digest; filing it again changes nothing.

    Raises:
        InvalidSpec: it is not whole, asks for less than the floors, or amends somebody else's scenario.
        Unauthenticated: the applicant it names did not sign it.
    """
    claimed = wire.decode(Scenario, application.payload)
    scenario = signed.verify(PublicKey.from_bytes(claimed.applicant_key), "scenario", application, Scenario)
    check(scenario, floors)
    if scenario.amends:
        earlier = _application(conn, scenario.amends)
        if earlier is not None and not succeeds(scenario, earlier):
            raise InvalidSpec(tell="scenario: amends names a scenario of another applicant or merchant")
    digest = signed.digest("scenario", application)
    if conn.scalar(select(scenarios.c.name).where(scenarios.c.digest == digest)) is None:
        conn.execute(
            insert(scenarios).values(
                digest=digest,
                name=scenario.name,
                signed=wire.encode(application),
                received_ms=signed.now_ms(),
                amends=scenario.amends,
            )
        )
    return digest


def approve(conn: Connection, record: Signed, node: PublicKey, party: str) -> bytes:
    """Store one party's approval, for which its node vouches; returns the scenario's digest.

    Raises:
        NotFound: no such scenario here.
        PolicyRefused: the party has no say in it, or an approver is the applicant.
        Unauthenticated, IntegrityFailed: it, or a department's inside, does not verify or is over something else.
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
    departments.check(outer.departments, approval.scenario_digest, scenario, party)
    held = conn.scalar(
        select(approvals.c.party).where(approvals.c.digest == approval.scenario_digest, approvals.c.party == party)
    )
    if held is None:
        conn.execute(insert(approvals).values(digest=approval.scenario_digest, party=party, record=wire.encode(record)))
    return approval.scenario_digest


def notify(conn: Connection, record: Signed, node: PublicKey, party: str) -> Notice | None:
    """Store what one party says of a scenario, signed by its node; None if it is stored already.

    Raises:
        NotFound: no such scenario here.
        Unauthenticated, PolicyRefused: the party's node did not sign it, or has no say.
        IntegrityFailed: the party said something else under the same number.
    """
    notice = signed.verify(node, "notice", record, Notice)
    scenario = application(conn, notice.scenario_digest)
    if notice.party != party or party not in required(scenario):
        raise PolicyRefused(tell=f"{party} has no part in this scenario")
    if notice.serial < 1:
        raise InvalidSpec(f"a notice of {party} has no serial number")
    mine = (notices.c.digest == notice.scenario_digest) & (notices.c.party == party)
    stored = conn.scalar(select(notices.c.record).where(mine, notices.c.serial == notice.serial))
    if stored is None:
        row = {"digest": notice.scenario_digest, "party": party, "serial": notice.serial, "kind": int(notice.kind)}
        conn.execute(insert(notices).values(**row, record=wire.encode(record)))
        return notice
    if signed.read_signed(stored).payload != record.payload:
        raise IntegrityFailed(f"{party} signed two notices with the number {notice.serial}", party=party)
    return None


def next_serial(conn: Connection, digest: bytes, party: str) -> int:
    """Return the number of a party's next notice."""
    mine = (notices.c.digest == digest) & (notices.c.party == party)
    return int(conn.scalar(select(func.max(notices.c.serial)).where(mine)) or 0) + 1


def said(conn: Connection, digest: bytes, party: str = "") -> list[Notice]:
    """Return the notices of one party in their order, or of all."""
    query = select(notices.c.record).where(notices.c.digest == digest).order_by(notices.c.party, notices.c.serial)
    if party:
        query = query.where(notices.c.party == party)
    return [wire.decode(Notice, signed.read_signed(record).payload) for record in conn.scalars(query)]


def application(conn: Connection, digest: bytes) -> Scenario:
    """Return a scenario as applied for; ``NotFound`` if this node has none of that digest."""
    found = _application(conn, digest)
    if found is None:
        raise NotFound(tell="no such scenario at this node")
    return found


def standing(conn: Connection, digest: bytes) -> Standing | None:
    """Return a scenario with what this node knows of it."""
    scenario = _application(conn, digest)
    if scenario is None:
        return None
    rows = conn.execute(
        select(notices.c.party, notices.c.kind).where(notices.c.digest == digest).order_by(notices.c.serial)
    )
    told, revoked = {}, False
    for party, number in rows:
        told[party] = NoticeKind(number)
        revoked |= number == NoticeKind.REVOKED
    given = {party: _given(outer) for party, outer in _approvals(conn, digest)}
    return Standing(scenario, digest, given, revoked, told, _amended_ms(conn, digest, scenario))


def bundle(conn: Connection, digest: bytes) -> ScenarioBundle:
    """Return what another party must know of a scenario; of each party's notices, those that count."""
    stored = conn.scalar(select(scenarios.c.signed).where(scenarios.c.digest == digest))
    if stored is None:
        raise NotFound(tell="no such scenario at this node")
    given = conn.scalars(select(approvals.c.record).where(approvals.c.digest == digest).order_by(approvals.c.party))
    last: dict[tuple[str, bool], bytes] = {}
    query = select(notices).where(notices.c.digest == digest).order_by(notices.c.party, notices.c.serial)
    for row in conn.execute(query):
        last[row.party, row.kind == NoticeKind.REVOKED] = bytes(row.record)
    application_record = signed.read_signed(stored)
    return ScenarioBundle(
        application_record,
        tuple(signed.read_signed(record) for record in given),
        tuple(signed.read_signed(record) for record in last.values()),
        versions.records(conn, wire.decode(Scenario, application_record.payload)),
    )


def view(conn: Connection, digest: bytes, now_ms: int, here: str = "") -> ScenarioView:
    """Return a scenario as people see it.

    Args:
        here: the node whose departments are asked, for those who may know of them. To others it would tell whose data
            this node holds, entries of the catalogue included that they do not see.
    """
    held = standing(conn, digest)
    if held is None:
        raise NotFound(tell="no such scenario at this node")
    told = sorted(said(conn, digest), key=lambda notice: (notice.time_ms, notice.party, notice.serial))
    is_open = here not in held.approved_by
    return ScenarioView(
        digest,
        bundle(conn, digest).scenario,
        tuple(sorted(held.approved_by)),
        tuple(sorted(held.awaiting())),
        held.state(now_ms),
        departments.awaiting(conn, digest, held.scenario, here) if is_open else (),
        tuple(NoticeView(one.party, one.kind, one.reason, one.time_ms) for one in told[-_SHOWN:]),
    )


def listed(
    conn: Connection,
    after: str,
    limit: int,
    now_ms: int,
    here: Callable[[Scenario], str] = lambda scenario: "",
    concerns: Callable[[Scenario], bool] = lambda scenario: True,
) -> list[ScenarioView]:
    """Return a page of the scenarios that concern somebody, by digest; ``here`` as in :func:`view`."""
    found: list[ScenarioView] = []
    for digest, scenario in _all(conn, _digest(after)):
        if len(found) == limit:
            break
        if concerns(scenario):
            found.append(view(conn, digest, now_ms, here(scenario)))
    return found


def _all(conn: Connection, start: bytes) -> Iterator[tuple[bytes, Scenario]]:
    while True:
        query = select(scenarios.c.digest, scenarios.c.signed).where(scenarios.c.digest > start)
        rows = conn.execute(query.order_by(scenarios.c.digest).limit(_PAGE)).all()
        for row in rows:
            start = bytes(row.digest)
            yield start, wire.decode(Scenario, signed.read_signed(row.signed).payload)
        if len(rows) < _PAGE:
            return


def _application(conn: Connection, digest: bytes) -> Scenario | None:
    stored = conn.scalar(select(scenarios.c.signed).where(scenarios.c.digest == digest))
    return None if stored is None else wire.decode(Scenario, signed.read_signed(stored).payload)


def _approvals(conn: Connection, digest: bytes) -> list[tuple[str, ApprovalRecord]]:
    rows = conn.execute(select(approvals.c.party, approvals.c.record).where(approvals.c.digest == digest))
    return [(party, wire.decode(ApprovalRecord, signed.read_signed(record).payload)) for party, record in rows]


def _given(outer: ApprovalRecord) -> Given:
    """A party accepts what its approver and all its source departments accept."""
    signed_by = (wire.decode(Approval, outer.approval.payload), *departments.accepted(outer.departments))
    return Given(
        all(approval.accepts_simulated for approval in signed_by),
        all(approval.accepts_two_contributors for approval in signed_by),
    )


def _amended_ms(conn: Connection, digest: bytes, scenario: Scenario) -> int | None:
    """Return since when a successor that every party approved stands in a scenario's place.

    What becomes of the successor afterwards does not matter: by revoking it, and saying that this was long ago, one
    party alone could otherwise bring back what the others saw replaced.
    """
    begins = []
    for other in conn.scalars(select(scenarios.c.digest).where(scenarios.c.amends == digest)):
        later = application(conn, bytes(other))
        given = set(conn.scalars(select(approvals.c.party).where(approvals.c.digest == other)))
        if succeeds(later, scenario) and not required(later) - given:
            begins.append(later.not_before_ms)
    return min(begins, default=None)


def _digest(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise InvalidSpec(tell="`after` is not a scenario digest in hex") from None
