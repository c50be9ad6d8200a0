"""Whom this node knows: registered keys of its own people, and pinned peers."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from sandbox import signed, wire
from sandbox.crypto.sm2 import PublicKey
from sandbox.crypto.tls import fingerprint
from sandbox.errors import AlreadyExists, InvalidSpec, NotFound
from sandbox.model import KeyCard, PeerCard, Signed
from sandbox.store import keys, peers

ROLES = frozenset(
    {"merchant", "bank", "department", "submitter", "owner", "operator", "reviewer", "auditor", "consent"}
)
IMPLIED: Mapping[str, frozenset[str]] = {  # whoever has the one has the others
    "merchant": frozenset({"submitter"}),  # applies for scenarios, uploads bundles, submits jobs
    "bank": frozenset({"submitter", "owner"}),  # the same, and brings data: for people of the node's organisation only
}
PEER = "peer"  # the role of a pinned node's identity key


@dataclass(frozen=True, slots=True)
class Registered:
    """A key that may sign requests here."""

    key_id: str
    name: str
    organisation: str
    roles: frozenset[str]
    card: KeyCard
    revoked: bool

    @property
    def identity(self) -> PublicKey:
        """The key that signs."""
        return PublicKey.from_bytes(self.card.identity_key)


def register(conn: Connection, card: Signed, roles: Sequence[str]) -> Registered:
    """Register a person's card; registering the same key again changes its roles.

    Raises:
        InvalidSpec: an unknown role, or none.
        AlreadyExists: the key was revoked here; a revoked key never comes back.
    """
    if not roles or not set(roles) <= ROLES:
        raise InvalidSpec(tell=f"roles must be among {', '.join(sorted(ROLES))}")
    opened = signed.open_key_card(card)
    key_id = card.key_id
    row = {
        "name": opened.name,
        "organisation": opened.organisation,
        "roles": ",".join(sorted(set(roles))),
        "card": wire.encode(card),
        "tls_fingerprint": fingerprint(opened.tls_certificate),
    }
    found = conn.execute(select(keys).where(keys.c.key_id == key_id)).one_or_none()
    if found is not None and found.revoked_ms is not None:
        raise AlreadyExists(tell=f"key {key_id} was revoked here", hint="make a new key with `sandbox key new`")
    if found is None:
        conn.execute(insert(keys).values(key_id=key_id, created_ms=signed.now_ms(), **row))
    else:
        conn.execute(update(keys).where(keys.c.key_id == key_id).values(**row))
    return find_key(conn, key_id)


def revoke(conn: Connection, key_id: str) -> None:
    """Revoke a key, for good."""
    find_key(conn, key_id)
    conn.execute(update(keys).where(keys.c.key_id == key_id).values(revoked_ms=signed.now_ms()))


def find_key(conn: Connection, key_id: str) -> Registered:
    """Return a registered key, revoked or not; ``NotFound`` if there is none."""
    row = conn.execute(select(keys).where(keys.c.key_id == key_id)).one_or_none()
    if row is None:
        raise NotFound(tell=f"no key {key_id} is registered here")
    return _registered(row)


def all_keys(conn: Connection) -> list[Registered]:
    """Return every key ever registered here."""
    return [_registered(row) for row in conn.execute(select(keys).order_by(keys.c.created_ms))]


def pin(conn: Connection, card: Signed) -> PeerCard:
    """Pin a peer by its card; a new card of the same identity key replaces the old one.

    Raises:
        AlreadyExists: another key is pinned under that node id, or the key under another id.
    """
    opened = signed.open_peer_card(card)
    for row in conn.execute(select(peers)):
        if (row.node_id == opened.node_id) != (row.key_id == card.key_id):
            raise AlreadyExists(
                tell=f"peer {row.node_id} is pinned with key {row.key_id}",
                hint="compare fingerprints with that organisation before anything else",
            )
    conn.execute(peers.delete().where(peers.c.node_id == opened.node_id))
    conn.execute(
        insert(peers).values(
            node_id=opened.node_id, key_id=card.key_id, card=wire.encode(card), added_ms=signed.now_ms()
        )
    )
    return opened


def peer(conn: Connection, node_id: str) -> PeerCard:
    """Return a pinned peer's card; ``NotFound`` names the peer and how to pin it."""
    stored = conn.scalar(select(peers.c.card).where(peers.c.node_id == node_id))
    if stored is None:
        raise NotFound(tell=f"{node_id} is not a peer of this node", hint="exchange cards: sandbox peer export / add")
    return _peer_card(bytes(stored))


def all_peers(conn: Connection) -> list[PeerCard]:
    """Return every pinned peer."""
    found = conn.execute(select(peers.c.card).order_by(peers.c.node_id))
    return [_peer_card(bytes(card)) for (card,) in found]


def _registered(row: Row[Any]) -> Registered:
    card = _key_card(bytes(row.card))
    given = frozenset(row.roles.split(","))
    roles = given.union(*(IMPLIED.get(role, frozenset()) for role in given))
    return Registered(row.key_id, row.name, row.organisation, roles, card, row.revoked_ms is not None)


@functools.lru_cache(maxsize=1024)
def _key_card(stored: bytes) -> KeyCard:
    return signed.open_key_card(signed.read_signed(stored))


@functools.lru_cache(maxsize=256)
def _peer_card(stored: bytes) -> PeerCard:
    return signed.open_peer_card(signed.read_signed(stored))
