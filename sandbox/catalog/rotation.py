"""What a node's store keeps sealed under the node key, and how all of it comes under another key at once.

    node_secret    what outlives the node key: random bytes by name, sealed under the key in use

Rows, artefacts, bundles, letters and cached sets lie in files under keys of their own; only those keys are sealed
again, so no file is read or written. ``WRAPPED`` is the list of all such columns: a table that is to hold something
under the node key has to be in it, and the test of this module fails until it is.

Security:  everything is opened under the old key and checked against its place before anything is written; what does
           not open stops the change, and the caller's transaction with it. The secret of the populations stays the same
           under every node key: what the gate remembers of earlier releases is sketched under it. Which key is in use
           is told by whether the secrets open, so store and key files can never disagree without notice.
Shapes:    a sealed value is a 12-byte nonce and SM4-GCM, its AAD the place, as each writer has it.
Errors:    ``IntegrityFailed`` naming table and column, never a row.
Not here:  key files and officers' shares (``master``); the entry in the log (``home``).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    insert,
    select,
    update,
)

from sandbox.catalog import vault_keys
from sandbox.crypto.sm3 import hkdf
from sandbox.crypto.sm4 import NONCE_SIZE, seal, unseal
from sandbox.errors import IntegrityFailed, InvalidSpec
from sandbox.store import (
    artefacts,
    bundles,
    cached,
    challenges,
    consents,
    datasets,
    evidences,
    letters,
    paillier_keys,
    refusals,
    withdrawn_consents,
)

POPULATION: Final = "population"  # the secret under which the people behind released numbers are sketched

metadata = MetaData()
node_secrets = Table(
    "node_secret",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),  # under the node key
)


@dataclass(frozen=True, slots=True)
class Wrapped:
    """One column that holds bytes under the node key, and how they are opened and sealed there."""

    column: Column[Any]
    opened: Callable[[bytes, bytes, Row[Any]], bytes]  # node key, sealed bytes, primary key
    sealed: Callable[[bytes, bytes, Row[Any]], bytes]  # node key, plain bytes, primary key

    @property
    def table(self) -> Table:
        """The column's table."""
        found = self.column.table
        if not isinstance(found, Table):
            raise TypeError(f"{self.column} is in no table")
        return found


def _bound(column: Column[Any], context: Callable[[Row[Any]], bytes]) -> Wrapped:
    """Return a column whose values are bound to ``context``."""
    return Wrapped(
        column,
        lambda key, value, row: unseal(key, value[:NONCE_SIZE], value[NONCE_SIZE:], context(row)),
        lambda key, value, row: _seal(key, value, context(row)),
    )


WRAPPED: Final = (
    Wrapped(
        datasets.c.wrapped_key,
        lambda key, value, row: vault_keys.unwrap(key, value, row.code, row.version),
        lambda key, value, row: vault_keys.wrap(key, value, row.code, row.version),
    ),
    _bound(artefacts.c.wrapped_key, lambda row: f"artefact\0{row.job_id}\0{row.name}".encode()),
    _bound(cached.c.wrapped_key, lambda row: f"cached\0{row.name}".encode()),
    _bound(bundles.c.wrapped_key, lambda row: b"bundle\0" + bytes(row.measurement)),
    _bound(paillier_keys.c.sealed, lambda row: f"paillier\0{row.bits}".encode()),
    _bound(evidences.c.sealed, lambda row: f"evidence\0{row.job_id}".encode()),
    _bound(refusals.c.sealed, lambda row: f"reason\0{row.job_id}".encode()),
    _bound(
        consents.c.sealed,
        lambda row: b"consent-use\0" + bytes(row.token) + f"\0{row.environment}\0{row.job_id}".encode(),
    ),
    _bound(withdrawn_consents.c.sealed, lambda row: b"withdrawal\0" + bytes(row.token) + row.signer.encode()),
    _bound(challenges.c.sealed, lambda row: f"challenge\0{row.challenge_id}".encode()),
    _bound(letters.c.wrapped_key, lambda row: f"letter\0{row.challenge_id}\0{row.number}".encode()),
    _bound(node_secrets.c.sealed, lambda row: _secret_context(row.name)),
)


def read_secret(conn: Connection, node_key: bytes, name: str) -> bytes | None:
    """Return a secret that outlives the node key; None if there is none of that name.

    Raises:
        IntegrityFailed: this is not the node key it was sealed under.
    """
    value = conn.scalar(select(node_secrets.c.sealed).where(node_secrets.c.name == name))
    if value is None:
        return None
    return unseal(node_key, bytes(value[:NONCE_SIZE]), bytes(value[NONCE_SIZE:]), _secret_context(name))


def names(conn: Connection) -> list[str]:
    """Return which secrets there are."""
    return list(conn.scalars(select(node_secrets.c.name).order_by(node_secrets.c.name)))


def keep_secret(conn: Connection, node_key: bytes, name: str, secret: bytes) -> None:
    """Keep a new secret; from now on it is the same under every node key."""
    conn.execute(insert(node_secrets).values(name=name, sealed=_seal(node_key, secret, _secret_context(name))))


def first_population_key(node_key: bytes) -> bytes:
    """Return the secret of the populations of a home that was made before there were secrets of their own."""
    return hkdf(node_key, b"", b"populations", 32)


def check(conn: Connection, node_key: bytes) -> int:
    """Open everything there is; returns how much.

    Raises:
        IntegrityFailed: something does not open under this key.
    """
    return sum(1 for wrapped in WRAPPED for _ in _opened(conn, wrapped, node_key))


def rewrap(conn: Connection, old: bytes, new: bytes) -> int:
    """Bring everything that is sealed under ``old`` under ``new``, within the caller's transaction; returns how much.

    Raises:
        IntegrityFailed: something does not open under ``old``; roll back, for then nothing may change.
    """
    done = 0
    for wrapped in WRAPPED:
        for place, row, plain in _opened(conn, wrapped, old):
            conn.execute(update(wrapped.table).where(*place).values({wrapped.column: wrapped.sealed(new, plain, row)}))
            done += 1
    return done


def _opened(
    conn: Connection, wrapped: Wrapped, node_key: bytes
) -> Iterator[tuple[list[ColumnElement[bool]], Row[Any], bytes]]:
    """Yield where, which row, and what, one after another: evidence can be long, and there can be much of it."""
    table, column = wrapped.table, wrapped.column
    names = list(table.primary_key.columns)
    for row in conn.execute(select(*names).where(column.is_not(None))).all():
        place = [name == value for name, value in zip(names, row, strict=True)]
        sealed = bytes(conn.execute(select(column).where(*place)).scalar_one())
        try:
            plain = wrapped.opened(node_key, sealed, row)
        except (IntegrityFailed, InvalidSpec):  # the latter where even the nonce is cut short
            raise IntegrityFailed(f"a value of {table.name}.{column.name} does not open under the node key") from None
        yield place, row, plain


def _seal(node_key: bytes, plain: bytes, context: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_SIZE)
    return nonce + seal(node_key, nonce, plain, context)


def _secret_context(name: str) -> bytes:
    return b"secret\0" + name.encode()
