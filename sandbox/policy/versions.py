"""Which dataset versions a scenario covers: the one it names, or by rule any of the same schema that is not too old.

    owner: register --offer--> VersionNotice, signed --bundle, proposal--> file at every party
    admission: spec (version 0: the newest) --pin--> the version that the plan names

Security:  a notice counts if the owner's pinned node signed it. Which schema is meant stands in the scenario by digest,
           so that approvers know every column there will ever be; the owner's own node looks at its own catalogue too.
Errors:    ``InvalidSpec`` and ``Unauthenticated`` on a notice that is not its owner's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from sqlalchemy import Connection, insert, select

from sandbox import signed, wire
from sandbox.crypto.sm2 import PublicKey
from sandbox.errors import InvalidSpec
from sandbox.model import DatasetRef, DatasetUse, Plan, Scenario, Signed, VersionNotice, VersionRule
from sandbox.store import scenarios, versions

_DAY_MS = 86_400_000


def file(conn: Connection, record: Signed, node: PublicKey, party: str) -> VersionNotice:
    """Store an owner's notice; the same one again changes nothing.

    Raises:
        Unauthenticated, InvalidSpec: the party's node did not sign it, or speaks of another's dataset.
    """
    notice = signed.verify(node, "version", record, VersionNotice)
    if notice.owner != party or notice.version < 1:
        raise InvalidSpec(f"{party} gives notice of a dataset version of {notice.owner}")
    same = (versions.c.code == notice.code) & (versions.c.version == notice.version) & (versions.c.owner == party)
    if conn.scalar(select(versions.c.code).where(same)) is None:
        conn.execute(
            insert(versions).values(
                code=notice.code,
                version=notice.version,
                owner=party,
                schema_digest=notice.schema_digest,
                created_ms=notice.created_ms,
                record=wire.encode(record),
            )
        )
    return notice


def learn(conn: Connection, notices: Iterable[Signed], identity: Callable[[str], PublicKey]) -> None:
    """Store what owners' nodes signed, whoever brought it; ``identity`` returns a pinned node's key.

    Raises:
        NotFound, Unauthenticated, InvalidSpec: the owner is not pinned here, or did not sign this.
    """
    for record in notices:
        owner = wire.decode(VersionNotice, record.payload).owner  # said; ``file`` verifies it
        file(conn, record, identity(owner), owner)


def taken(conn: Connection, scenario: Scenario, plan: Plan) -> tuple[Signed, ...]:
    """Return the notices of the versions that a plan takes by rule."""
    ruling = {use.code: use.owner for use in ruled(scenario)}
    found = []
    for ref in (party.dataset for party in plan.parties if party.dataset is not None):
        same = (versions.c.code == ref.code) & (versions.c.version == ref.version)
        query = select(versions.c.record).where(same, versions.c.owner == ruling.get(ref.code, ""))
        if (stored := conn.scalar(query)) is not None:
            found.append(signed.read_signed(stored))
    return tuple(found)


def records(conn: Connection, scenario: Scenario) -> tuple[Signed, ...]:
    """Return the notices of the newest versions that a scenario covers by rule, one of each dataset."""
    found = []
    for use in ruled(scenario):
        fits = (versions.c.code == use.code) & (versions.c.owner == use.owner)
        query = select(versions.c.record).where(fits, versions.c.schema_digest == use.schema_digest)
        stored = conn.scalar(query.order_by(versions.c.version.desc()).limit(1))
        if stored is not None:
            found.append(signed.read_signed(stored))
    return tuple(found)


def offered(conn: Connection, scenario: Scenario, refs: Iterable[DatasetRef]) -> dict[DatasetRef, VersionNotice]:
    """Return what this node knows of the versions that are asked for; of version 0, of the newest that fits."""
    known = {}
    for use in ruled(scenario):
        for ref in {ref for ref in refs if ref.code == use.code}:
            fits = (versions.c.code == use.code) & (versions.c.owner == use.owner)
            query = select(versions.c.record).where(fits, versions.c.schema_digest == use.schema_digest)
            if ref.version:
                query = query.where(versions.c.version == ref.version)
            stored = conn.scalar(query.order_by(versions.c.version.desc()).limit(1))
            if stored is not None:
                known[ref] = wire.decode(VersionNotice, signed.read_signed(stored).payload)
    return known


def users(conn: Connection, code: str) -> list[bytes]:
    """Return the digests of the scenarios that use a dataset by rule."""
    found = []
    for digest, stored in conn.execute(select(scenarios.c.digest, scenarios.c.signed)):
        scenario = wire.decode(Scenario, signed.read_signed(stored).payload)
        if any(use.code == code for use in ruled(scenario)):
            found.append(bytes(digest))
    return found


def ruled(scenario: Scenario) -> tuple[DatasetUse, ...]:
    """Return the datasets of a scenario of which no version is named."""
    return tuple(use for use in scenario.datasets if use.rule is VersionRule.SAME_SCHEMA)


def pin(
    scenario: Scenario, ref: DatasetRef, known: Mapping[DatasetRef, VersionNotice], now_ms: int
) -> DatasetUse | None:
    """Return how a scenario lets one dataset be used, with its version filled in; None if it does not."""
    for use in scenario.datasets:
        if use.code != ref.code:
            continue
        if use.rule is VersionRule.EXACT:
            if ref.version in (0, use.version):
                return use
        elif (notice := known.get(ref)) is not None and notice.schema_digest == use.schema_digest:
            is_fresh = not use.max_age_days or now_ms - notice.created_ms <= use.max_age_days * _DAY_MS
            if is_fresh and notice.owner == use.owner:
                return replace(use, version=notice.version, content_hash=notice.content_hash, rows=notice.rows)
    return None
