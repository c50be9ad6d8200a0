"""Which dataset versions a scenario covers: the one it names, or by rule any of the same schema that is not too old.

    owner: register --offer--> VersionNotice, signed --bundle, proposal--> file at every party
           destroy --withdraw--> the same notice, ``gone``: stands in the first one's place for good, travels as it did
    admission: spec (version 0: the newest) --pin--> the version that the plan names

Security:  a notice counts if the owner's pinned node signed it. Which schema is meant stands in the scenario by digest,
           so that approvers know every column there will ever be; the owner's own node looks at its own catalogue too:
           what is there no more, or of a department that was not asked, it neither offers nor accepts.
Errors:    ``InvalidSpec`` and ``Unauthenticated`` on a notice that is not its owner's, ``IntegrityFailed`` where the
           owner says two things of one version.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from sqlalchemy import Connection, insert, select, update

from sandbox import signed, wire
from sandbox.crypto.sm2 import PrivateKey, PublicKey
from sandbox.errors import IntegrityFailed, InvalidSpec
from sandbox.model import DatasetRef, DatasetUse, Plan, Scenario, Signed, VersionNotice, VersionRule
from sandbox.policy import departments
from sandbox.store import datasets, scenarios, versions

log = logging.getLogger(__name__)
MOST_GONE = 31  # notices of one dataset that a bundle carries beside the newest version: eight times 32 are its bound
_AHEAD_MS = 120_000  # another's clock may be


def file(conn: Connection, record: Signed, node: PublicKey, party: str) -> VersionNotice:
    """Store an owner's notice and return the one that stands: the same again changes nothing, what is gone stays so.

    Raises:
        Unauthenticated, InvalidSpec: the party's node did not sign it, speaks of another's dataset, or of tomorrow.
        IntegrityFailed: the party said something else of the same version; what was stored first stays.
    """
    notice = signed.verify(node, "version", record, VersionNotice)
    if notice.owner != party or notice.version < 1:
        raise InvalidSpec(f"{party} gives notice of a dataset version of {notice.owner}")
    same = (versions.c.code == notice.code) & (versions.c.version == notice.version) & (versions.c.owner == party)
    stored = conn.scalar(select(versions.c.record).where(same))
    if stored is None:
        if notice.created_ms > signed.now_ms() + _AHEAD_MS:
            raise InvalidSpec(f"{party} dates {notice.code} version {notice.version} in the future", party=party)
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
    held = _opened(stored)
    if replace(held, gone=notice.gone) != notice:
        raise IntegrityFailed(f"{party} signed two notices of {notice.code} version {notice.version}", party=party)
    if notice.gone and not held.gone:
        conn.execute(update(versions).where(same).values(record=wire.encode(record)))
        return notice
    return held


def withdraw(conn: Connection, identity: PrivateKey, owner: str, code: str, version: int) -> None:
    """Sign and store that an own version is gone; one that was never offered needs no word."""
    same = (versions.c.code == code) & (versions.c.version == version) & (versions.c.owner == owner)
    stored = conn.scalar(select(versions.c.record).where(same))
    if stored is not None:
        record = signed.sign(identity, "version", replace(_opened(stored), gone=True))
        file(conn, record, identity.public, owner)


def learn(conn: Connection, notices: Iterable[Signed], identity: Callable[[str], PublicKey]) -> None:
    """Store what owners' nodes signed, whoever brought it; ``identity`` returns a pinned node's key.

    Where an owner contradicts itself, what came first stays: a plan that was made by the other is refused for that.

    Raises:
        NotFound, Unauthenticated, InvalidSpec: the owner is not pinned here, did not sign this, or dates it wrongly.
    """
    for record in notices:
        owner = wire.decode(VersionNotice, record.payload).owner  # said; ``file`` verifies it
        try:
            file(conn, record, identity(owner), owner)
        except IntegrityFailed as error:
            log.warning("a proposal's notice of a version does not count: %s", error)


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
    """Return what others must know to find the newest versions that a scenario covers by rule.

    Of each dataset the newest that is there, and of those above it, the newest first, that they are gone.
    """
    found = []
    for use in ruled(scenario):
        gone: list[Signed] = []
        for notice, record in _known(conn, scenario, use):
            if not notice.gone:
                found.append(record)
                break
            gone.append(record)
        found += gone[:MOST_GONE]
    return tuple(found)


def offered(conn: Connection, scenario: Scenario, refs: Iterable[DatasetRef]) -> dict[DatasetRef, VersionNotice]:
    """Return what this node knows of the versions that are asked for; of version 0, of the newest that fits."""
    known = {}
    for use in ruled(scenario):
        for ref in {ref for ref in refs if ref.code == use.code}:
            there = (notice for notice, _ in _known(conn, scenario, use, ref.version) if not notice.gone)
            if (newest := next(there, None)) is not None:
                known[ref] = newest
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
            age_ms = now_ms - notice.created_ms
            is_fresh = not use.max_age_days or -_AHEAD_MS <= age_ms <= use.max_age_days * signed.DAY_MS
            if is_fresh and notice.owner == use.owner and not notice.gone:
                return replace(use, version=notice.version, content_hash=notice.content_hash, rows=notice.rows)
    return None


def _known(
    conn: Connection, scenario: Scenario, use: DatasetUse, version: int = 0
) -> Iterator[tuple[VersionNotice, Signed]]:
    """Return the versions of one dataset that a scenario covers by rule, the newest first; those that are gone, too."""
    fits = (versions.c.code == use.code) & (versions.c.owner == use.owner)
    query = select(versions.c.record).where(fits, versions.c.schema_digest == use.schema_digest)
    if version:
        query = query.where(versions.c.version == version)
    own = _own(conn, scenario, use)
    for stored in conn.scalars(query.order_by(versions.c.version.desc())):
        record = signed.read_signed(stored)
        notice = wire.decode(VersionNotice, record.payload)
        if own is None or (notice.version in own if notice.gone else own.get(notice.version) == "active"):
            yield notice, record


def _own(conn: Connection, scenario: Scenario, use: DatasetUse) -> dict[int, str] | None:
    """Return the state of this node's own versions, of departments that agreed; None if the dataset is another's."""
    rows = conn.execute(
        select(datasets.c.version, datasets.c.state, datasets.c.department).where(datasets.c.code == use.code)
    ).all()
    if not rows:
        return None
    agreed = departments.allowed(conn, scenario, use.owner)
    return {row.version: row.state for row in rows if row.department in agreed}


def _opened(stored: bytes) -> VersionNotice:
    return wire.decode(VersionNotice, signed.read_signed(stored).payload)
