"""What the tests of the audit trail share: a named key, and a receipt put together the way a node does."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from sandbox.audit import log
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


def receipt_for(conn: Connection, index: int, note: bytes, size: int, *cosignatures: bytes) -> Receipt:
    """Put a receipt together the way a node does."""
    return Receipt(log.leaf(conn, index), index, tuple(log.inclusion(conn, index, size)), note, cosignatures)
