"""One person's session with one node: every call of the seven services, one method each.

Security:  the node's pinned certificate is the only one accepted; every request is signed anew (``connection``).
Errors:    every refusal and failure raises one of ``sandbox.errors`` with party, stage, cause and next step.
Not here:  reading scenario and job files (``documents``), the command line (``sandbox.cli``).
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sandbox import signed
from sandbox.client.audit import AuditCalls
from sandbox.client.connection import Connection
from sandbox.client.consents import ConsentCalls, issue_consent
from sandbox.client.datasets import DatasetCalls
from sandbox.client.files import read_file
from sandbox.client.jobs import JobCalls
from sandbox.client.models import ModelCalls
from sandbox.client.reviews import ReviewCalls
from sandbox.client.scenarios import ScenarioCalls
from sandbox.keyring import Person, load_person
from sandbox.model import PeerCard, Signed


class Client(JobCalls, DatasetCalls, ModelCalls, ScenarioCalls, ReviewCalls, ConsentCalls, AuditCalls):
    """A context manager; nothing is sent before the first call."""

    def __init__(self, connection: Connection) -> None:
        self._line = connection

    @classmethod
    def connect(cls, key: Path | Person, node: Path | PeerCard, passphrase: bytes | None = None) -> Self:
        """Return a client of a node.

        Args:
            key: the person's key folder, or the keys.
            node: the node's card file, or the card.
            passphrase: opens the key folder, where it is protected.
        """
        person = key if isinstance(key, Person) else load_person(key, passphrase)
        card = node if isinstance(node, PeerCard) else signed.open_peer_card(signed.read_signed(read_file(node)))
        return cls(Connection(person, card))

    @property
    def person(self) -> Person:
        """Who calls."""
        return self._line.person

    @property
    def node(self) -> PeerCard:
        """Who is called."""
        return self._line.node

    def sign_request(self, method: str, body: object) -> Signed:
        """Return ``body`` signed as one request for ``method``, for programs that call the node themselves."""
        return self._line.sign(method, body)

    def issue_consent(
        self, subject_id: str, scenario_digest: bytes, purpose: str, valid_s: int, **options: Any
    ) -> Signed:
        """Return a consent token signed by this person, who must be among the scenario's issuers; nothing is sent.

        ``options`` as in ``consents.issue_consent``.
        """
        return issue_consent(self.person, subject_id, scenario_digest, purpose, valid_s, **options)

    def close(self) -> None:
        """Hang up."""
        self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
