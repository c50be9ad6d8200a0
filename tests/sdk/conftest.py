"""People, a node's keys, and a real audit log to make receipts from; everything is made for these tests alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy import Connection, create_engine

from sandbox import keyring, signed, wire
from sandbox.audit import log
from sandbox.audit.checkpoint import VerifierKey, cosign
from sandbox.audit.receipt import Receipt
from sandbox.audit.tables import metadata
from sandbox.client import Trust
from sandbox.keyring import NodeKeys, Person
from sandbox.model import Commitment, Entry, Fact, PeerCard


@dataclass(frozen=True)
class Party:
    """A node without a server: its keys and its card."""

    keys: NodeKeys
    card: PeerCard


@pytest.fixture(scope="session")
def officer(tmp_path_factory: pytest.TempPathFactory) -> Person:
    return keyring.create_person(tmp_path_factory.mktemp("people") / "officer", "officer", "bank")


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Person:
    return keyring.create_person(tmp_path_factory.mktemp("people") / "stranger", "stranger", "elsewhere")


@pytest.fixture(scope="session")
def make_party(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Party]:
    def make(name: str, address: str = "127.0.0.1:1") -> Party:
        keys = keyring.create_node(tmp_path_factory.mktemp("nodes") / name, name)
        return Party(keys, signed.open_peer_card(keys.card(name, f"{name} organisation", address)))

    return make


@pytest.fixture(scope="session")
def bank(make_party: Callable[..., Party]) -> Party:
    return make_party("bank")


@pytest.fixture(scope="session")
def witness(make_party: Callable[..., Party]) -> Party:
    return make_party("witness")


@pytest.fixture
def trust(bank: Party, witness: Party) -> Trust:
    origin = VerifierKey("bank", bank.keys.checkpoint.public).to_text()
    other = VerifierKey("witness", witness.keys.checkpoint.public).to_text()
    return Trust.from_text(f"# the test's own\norigin {origin}\n\nwitness {other}\n")


@pytest.fixture
def conn() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.begin() as connection:
        for number in range(5):
            log.append(connection, f"an earlier entry {number}".encode())
        yield connection
    engine.dispose()


@pytest.fixture
def deliver(conn: Connection, bank: Party, witness: Party, officer: Person) -> Callable[..., Receipt]:
    """Append the entry of a delivery and return its co-signed receipt."""

    def append(job_id: str, commitments: dict[str, bytes], what: str = "delivered", to: str = "") -> Receipt:
        committed = tuple(Commitment(name, digest) for name, digest in commitments.items())
        facts = (Fact("recipient", to or officer.key_id),)
        entry = Entry(what, job_id, bytes(32), bytes(32), "bank", 1, 0, facts, committed)
        leaf = wire.encode(entry)
        index = log.append(conn, leaf, job_id)
        note = log.checkpoint(conn, "bank", bank.keys.checkpoint)
        path = tuple(log.inclusion(conn, index, log.size(conn)))
        return Receipt(leaf, index, path, note, (cosign(note, "witness", witness.keys.checkpoint, 1_700_000_000),))

    return append
