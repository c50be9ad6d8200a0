"""Cards on the screen and on disk: what a person compares with what the other party reads out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sandbox import signed, wire
from sandbox.crypto.tls import fingerprint
from sandbox.errors import InvalidSpec
from sandbox.keyring import public_key
from sandbox.model import KeyCard, PeerCard, Signed


def describe_node(card: PeerCard) -> dict[str, Any]:
    """Return what a node's card says; the two fingerprints are what to compare by telephone."""
    return {
        "node_id": card.node_id,
        "organisation": card.organisation,
        "address": card.address,
        "key_id": public_key(card).key_id,
        "tls_fingerprint": fingerprint(card.tls_certificate),
        "created_ms": card.created_ms,
    }


def describe_person(card: KeyCard) -> dict[str, Any]:
    """Return what a person's card says."""
    return {
        "name": card.name,
        "organisation": card.organisation,
        "key_id": public_key(card).key_id,
        "tls_fingerprint": fingerprint(card.tls_certificate),
        "created_ms": card.created_ms,
    }


def read_card(path: Path) -> Signed:
    """Return the signed card in a file, not yet checked."""
    try:
        return signed.read_signed(path.read_bytes())
    except InvalidSpec:
        raise InvalidSpec(tell=f"{path} is not a card") from None


def write_card(path: Path, card: Signed) -> None:
    """Write a card, which holds public keys only, into a new file."""
    write_new(path, wire.encode(card))


def write_new(path: Path, data: bytes) -> None:
    """Write a file that must not be there yet."""
    with path.open("xb") as file:
        file.write(data)
