"""The end of a dataset version: its key first, then its chunks, everything derived from it, and an entry that says so.

Security:  the key is gone with the commit; what a crash leaves of the chunks is noise, and swept at the next start.
Not here:  who may ask for it (api), when it is due by itself (catalog.retention).
"""

from __future__ import annotations

import base64
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Row, update

from sandbox import record, review, signed
from sandbox.catalog import artefacts, cache, entries, retention, vault
from sandbox.catalog.test_rows import TWINS
from sandbox.errors import IntegrityFailed, NotFound, SandboxError, WrongState
from sandbox.ledger import Ledger
from sandbox.model import DatasetRef, Environment
from sandbox.policy import versions
from sandbox.store import datasets, twins

log = logging.getLogger(__name__)
Remember = Callable[[Connection], None]


def opening(ledger: Ledger, row: Row[Any]) -> dict[str, str]:
    """Return what a worker opens a version's rows by: the schema, where they lie, and their key."""
    key = vault.unwrap(ledger.keys.node_key, bytes(row.wrapped_key), row.code, row.version)
    return {
        "schema": base64.b64encode(bytes(row.schema_json)).decode(),
        "directory": str(vault.version_dir(ledger.home / "vault", row.code, row.version)),
        "key": key.hex(),
    }


def destroy(ledger: Ledger, code: str, version: int, actor: str, why: str, remember: Remember) -> int:
    """Destroy a version and return the index of the entry; destroyed already, that of the first time.

    Raises:
        WrongState: a running job uses it.
        NotFound: there is none.
    """
    reference = DatasetRef(code, version)
    directory = vault.version_dir(ledger.home / "vault", code, version)
    with ledger.store.write() as conn:
        remember(conn)
        row = entries.find(conn, code, version)
        if row.state != "active":
            return int(row.destroyed_entry)
        check_unused(conn, reference)
        key: bytes | None = None
        try:
            key = vault.unwrap(ledger.keys.node_key, bytes(row.wrapped_key), code, version)
            chunks, verified = len(vault.read_manifest(directory, key).chunks), "yes"
        except (IntegrityFailed, NotFound):  # what was damaged, or has gone astray, must go as well
            chunks, verified = len(list(directory.glob("*.sealed"))), "no"
        derived = record.using(conn, reference)  # what was derived from the rows goes too
        for job_id in derived:
            artefacts.drop(conn, ledger.home / "artefacts", job_id)
        review.forget(conn, derived)
        cache.forget_source(conn, ledger.home / "cache", bytes(row.content_hash))
        facts = {
            "code": code,
            "version": str(version),
            "content_hash": bytes(row.content_hash).hex(),
            "chunks": str(chunks),
            "verified": verified,
            "why": why,
        }
        index = ledger.enter_other(conn, "destroyed", actor, facts)
        same = (datasets.c.code == code) & (datasets.c.version == version)
        gone = {"state": "destroyed", "wrapped_key": None, "destroyed_entry": index}
        conn.execute(update(datasets).where(same).values(**gone))
        versions.withdraw(conn, ledger.keys.identity, ledger.node_id, code, version)
        twin = (twins.c.code == code) & (twins.c.version == version)
        conn.execute(update(twins).where(twin).values(wrapped_key=None, measurements=b""))  # its cost stays known
    with contextlib.suppress(NotFound):  # it had gone astray
        vault.destroy(directory, key)  # noise since the commit above; gone now
    drop_twin(ledger, code, version)
    return index


def check_unused(conn: Connection, reference: DatasetRef, environment: Environment | None = None) -> None:
    """Raise ``WrongState`` if a job in motion uses a version, in one environment or any."""
    for job_id in record.unfinished(conn):
        plan = record.read(conn, job_id).plan
        if environment in (None, plan.environment) and any(party.dataset == reference for party in plan.parties):
            raise WrongState(tell=f"job {job_id} is using it", hint="wait for the job, or cancel it")


def retire(ledger: Ledger) -> int:
    """Destroy the versions whose retention has ended and return how many; what is in use is tried again later."""
    with ledger.store.read() as conn:
        due = retention.due(conn, signed.now_ms())
    done = 0
    for code, version in due:
        try:
            destroy(ledger, code, version, ledger.node_id, "its retention has ended", lambda conn: None)
            done += 1
        except (SandboxError, OSError) as error:  # the others' time is up all the same
            log.warning("dataset %s version %d is past its retention and not destroyed: %s", code, version, error)
    if done:
        ledger.store.scrub()
        log.info("destroyed %d dataset versions past their retention", done)
    return done


def drop_twin(ledger: Ledger, code: str, version: int) -> None:
    """Remove the rows of a twin, if there are any."""
    try:
        vault.destroy(vault.version_dir(ledger.home / TWINS, code, version), None)
    except NotFound:
        return
