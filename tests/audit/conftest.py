"""Three parties with real SM2 keys, and a log in a SQLite file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, create_engine

from sandbox.audit import log, tables
from sandbox.audit.checkpoint import VerifierKey
from sandbox.audit.receipt import Receipt
from sandbox.crypto.sm2 import PrivateKey


@dataclass(frozen=True)
class Signer:
    """A named key; what a node knows of itself."""

    name: str
    key: PrivateKey

    @property
    def verifier(self) -> VerifierKey:
        return VerifierKey(self.name, self.key.public)


@pytest.fixture(scope="session")
def origin() -> Signer:
    return Signer("ops.example/audit", PrivateKey.generate())


@pytest.fixture(scope="session")
def bank() -> Signer:
    return Signer("bank.example/audit", PrivateKey.generate())


@pytest.fixture(scope="session")
def regulator() -> Signer:
    return Signer("regulator.example/audit", PrivateKey.generate())


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = create_engine(f"sqlite:///{tmp_path / 'audit.db'}")
    tables.metadata.create_all(made)
    yield made
    made.dispose()


@pytest.fixture
def conn(engine: Engine) -> Iterator[Connection]:
    with engine.begin() as open_transaction:
        yield open_transaction


def receipt_for(conn: Connection, index: int, note: bytes, size: int, *cosignatures: bytes) -> Receipt:
    """Put a receipt together the way a node does."""
    return Receipt(log.leaf(conn, index), index, tuple(log.inclusion(conn, index, size)), note, cosignatures)
