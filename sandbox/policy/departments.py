"""Source departments: whoever's data a node operates is asked before the node approves in its organisation's name.

    datasets.department --needed--> names --approve, take_back--> rows --vouched--> ApprovalRecord.departments
    ApprovalRecord.departments --allowed--> whose versions count

Security:  that a person speaks for a department, this node checks when it takes the approval (a registered key with the
           role, of that organisation); other parties check the signature, and that it is over the same scenario.
Errors:    ``NotFound`` for a department that no dataset of the scenario comes from; ``WrongState`` naming those whose
           approval is missing.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select

from sandbox import signed, wire
from sandbox.crypto.sm2 import PublicKey
from sandbox.errors import IntegrityFailed, InvalidSpec, NotFound, PolicyRefused, WrongState
from sandbox.model import Approval, ApprovalRecord, DepartmentApproval, Scenario, Signed, VersionRule
from sandbox.store import approvals, datasets, department_approvals, scenarios


def needed(conn: Connection, scenario: Scenario, party: str) -> frozenset[str]:
    """Return the departments whose data the scenario uses at this node, which is ``party``."""
    found = set()
    for use in scenario.datasets:
        if use.owner != party:
            continue
        query = select(datasets.c.department).where(datasets.c.code == use.code)
        if use.rule is VersionRule.EXACT:
            query = query.where(datasets.c.version == use.version)
        found |= set(conn.scalars(query))
    return frozenset(found - {""})


def awaiting(conn: Connection, digest: bytes, scenario: Scenario, party: str) -> tuple[str, ...]:
    """Return the departments that have not approved yet, by name."""
    query = select(department_approvals.c.department).where(department_approvals.c.digest == digest)
    return tuple(sorted(needed(conn, scenario, party) - set(conn.scalars(query))))


def approve(
    conn: Connection, digest: bytes, scenario: Scenario, party: str, department: str, approval: Signed, key: PublicKey
) -> None:
    """Store one department's approval, which its registered person signed; giving it again changes nothing.

    Raises:
        NotFound: no dataset of the scenario at this node is the department's.
        PolicyRefused: the applicant's own approval.
    """
    if department not in needed(conn, scenario, party):
        raise NotFound(tell="no such scenario at this node")
    _check(DepartmentApproval(department, approval, key.to_bytes()), digest, scenario, party)
    if department in awaiting(conn, digest, scenario, party):
        row = {"digest": digest, "department": department, "approver_key": key.to_bytes()}
        conn.execute(insert(department_approvals).values(**row, record=wire.encode(approval)))


def take_back(conn: Connection, digest: bytes, department: str) -> None:
    """Forget a department's approval, because it objects now; it is asked again."""
    mine = (department_approvals.c.digest == digest) & (department_approvals.c.department == department)
    conn.execute(delete(department_approvals).where(mine))


def vouched(conn: Connection, digest: bytes, scenario: Scenario, party: str) -> tuple[DepartmentApproval, ...]:
    """Return the approvals of all departments that are asked.

    Raises:
        WrongState: one is missing.
    """
    if names := awaiting(conn, digest, scenario, party):
        raise WrongState(
            tell=f"awaiting the approval of: {', '.join(names)}",
            hint="a person of the department approves first (sandbox scenario approve)",
        )
    asked = needed(conn, scenario, party)
    query = select(department_approvals).where(department_approvals.c.digest == digest)
    return tuple(
        DepartmentApproval(row.department, signed.read_signed(row.record), bytes(row.approver_key))
        for row in conn.execute(query.order_by(department_approvals.c.department))
        if row.department in asked
    )


def allowed(conn: Connection, scenario: Scenario, here: str) -> frozenset[str]:
    """Return whose versions a scenario covers at this node: those of the departments that it vouched for, and its own.

    A version may be registered for another department after the approval; that one was not asked. Where the same terms
    were filed twice, in other bytes, who agreed to all that are approved counts.
    """
    joined = select(scenarios.c.signed, approvals.c.record).join(approvals, approvals.c.digest == scenarios.c.digest)
    found = []
    for row in conn.execute(joined.where(scenarios.c.name == scenario.name, approvals.c.party == here)):
        if wire.decode(Scenario, signed.read_signed(row.signed).payload) == scenario:
            record = wire.decode(ApprovalRecord, signed.read_signed(row.record).payload)
            found.append(frozenset(one.department for one in record.departments))
    return frozenset({""}).union(frozenset.intersection(*found) if found else ())


def check(given: Sequence[DepartmentApproval], digest: bytes, scenario: Scenario, party: str) -> None:
    """Refuse approvals of departments that a party's node vouches for and that do not hold.

    Raises:
        Unauthenticated: a signature is another's.
        IntegrityFailed: one is over another scenario, or for another party.
        InvalidSpec: a department is named twice.
    """
    if len({approval.department for approval in given}) != len(given):
        raise InvalidSpec(f"{party} names a department twice")
    for approval in given:
        _check(approval, digest, scenario, party)


def accepted(given: Sequence[DepartmentApproval]) -> tuple[Approval, ...]:
    """Return what departments signed, of approvals that were checked when they were stored."""
    return tuple(wire.decode(Approval, approval.approval.payload) for approval in given)


def _check(given: DepartmentApproval, digest: bytes, scenario: Scenario, party: str) -> None:
    approval = signed.verify(PublicKey.from_bytes(given.approver_key), "approval", given.approval, Approval)
    if approval.scenario_digest != digest or approval.party != party:
        raise IntegrityFailed(f"a department of {party} approved something else than {digest.hex()[:16]}")
    if given.approver_key == scenario.applicant_key:
        raise PolicyRefused(tell="the applicant cannot approve the own application")
