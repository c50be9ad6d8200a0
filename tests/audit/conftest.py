"""Three parties with real SM2 keys, and a log in a SQLite file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from audit_parties import Signer
from sqlalchemy import Connection, Engine, create_engine

from sandbox.audit import tables
from sandbox.crypto.sm2 import PrivateKey


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
