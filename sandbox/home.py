"""A node's directory: what `init` makes, and what its operator changes while the node runs or stands still.

    <home>/sandbox.toml  keys/  store.db  vault/  artefacts/  results/  ray-token  serve.lock

Every change of keys and peers is an audit entry in the same transaction. The node key changes only while the node is
not running.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sqlalchemy import Connection, select

from sandbox import keyring, registry, signed, wire
from sandbox.audit import log as audit_log
from sandbox.audit import tables as audit_tables
from sandbox.audit.checkpoint import VerifierKey
from sandbox.books import reason_context
from sandbox.catalog import rotation
from sandbox.crypto.shares import Share
from sandbox.crypto.sm2 import PublicKey
from sandbox.crypto.sm3 import sm3
from sandbox.crypto.sm4 import unseal
from sandbox.errors import IntegrityFailed, InvalidSpec, NotFound, Unavailable, WrongState
from sandbox.keyring import NodeKeys
from sandbox.master import MasterKey, Shares, Split
from sandbox.model import Entry, Fact, PeerCard, Signed
from sandbox.registry import Registered
from sandbox.settings import FILE, load
from sandbox.store import Store, refusals


def init(
    home: Path,
    *,
    node_id: str,
    organisation: str,
    listen: str = "127.0.0.1:7700",
    address: str = "",
    witness: str = "",
    seal: str = "sm4",
    passphrase: bytes | None = None,
) -> PeerCard:
    """Make a node: directory, settings, keys, store.

    Raises:
        InvalidSpec: there is a node already, or a value is wrong.
    """
    if (home / FILE).exists():
        raise InvalidSpec(tell=f"there is a node in {home} already", hint="choose another directory")
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    values = {
        "node_id": node_id,
        "organisation": organisation,
        "listen": listen,
        "address": address,
        "witness": witness,
        "seal": seal,
    }
    text = "".join(f"{name} = {_quoted(value)}\n" for name, value in values.items() if value)
    (home / FILE).write_text(text, encoding="utf-8")
    try:
        load(home)
        keyring.create_node(home / "keys", node_id, passphrase)
    except BaseException:
        (home / FILE).unlink()
        raise
    node = Home(home, passphrase)
    node.master.begin()
    node.store.close()
    return wire.decode(PeerCard, node.card().payload)


class Home:
    """An existing node's directory.

    Where its key is split, ``shares`` is asked for its officers'; without any, all works but what needs that key.
    """

    def __init__(self, path: Path, passphrase: bytes | None = None, shares: Shares = tuple) -> None:
        self.path, self.settings = path, load(path)
        self._passphrase = passphrase
        self.store = Store(self.settings.database) if self.settings.database else Store.at(path / "store.db")
        self.store.create(audit_tables.metadata, rotation.metadata)
        self.master = MasterKey(path / "keys", self.store, passphrase, shares)
        self._is_alone = False

    @functools.cached_property
    def keys(self) -> NodeKeys:
        """The node's private keys."""
        return keyring.load_node(self.path / "keys", self._passphrase, self.master.read)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Be the one process that runs the node, or changes its key.

        Raises:
            Unavailable: there is another.
        """
        with (self.path / "serve.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Unavailable(tell=f"a node is running in {self.path} already", hint="stop it first") from None
            self._is_alone = True
            try:
                yield
            finally:
                self._is_alone = False

    def unlock(self) -> None:
        """Get hold of the node key, and tidy up what a change of it left that was cut off; only while ``alone``.

        Raises:
            Unavailable: it is split, and too few shares are here; says how many are missing.
            IntegrityFailed: no key here is the store's.
            WrongState: another process could be at work.
        """
        if not self._is_alone:
            raise WrongState("the node key is tidied up by whoever is alone")
        self.master.settle()

    def rotate_key(self) -> int:
        """Put a new node key in the place of the one in ``keys/node.key``; returns how many values it took over.

        Raises:
            Unavailable: the node is running.
            WrongState: the node key is split: splitting it again makes a new one as well.
            IntegrityFailed: something does not open; nothing changed.
        """
        split = WrongState(tell="the node key is split", hint="`sandbox node split-key` makes a new key and new shares")
        with self.alone():
            if self.master.holders() is not None:
                raise split
            self.unlock()  # which may finish a splitting that was cut off
            if self.master.holders() is not None:
                raise split
            return self.master.into_file(lambda conn, count: self._enter_key(conn, count, "file"))

    def split_key(self, need: int, officers: Sequence[str], hand_out: Callable[[Sequence[Share]], None]) -> Split:
        """Put a new node key in the place of the one there is, and give it to officers in shares.

        Args:
            need: how many of them it takes to start the node.
            officers: their names.
            hand_out: brings the shares where they are to be, durably, before anything else changes.

        Raises:
            Unavailable: the node is running, or shares of the present key are lacking.
            InvalidSpec: need or officers make no sense.
            IntegrityFailed: something does not open; nothing changed.
        """
        held = f"{need} of {len(officers)} shares"
        with self.alone():
            return self.master.into_shares(
                need, officers, hand_out, lambda conn, count: self._enter_key(conn, count, held)
            )

    def join_key(self) -> int:
        """Put a new node key, in ``keys/node.key``, in the place of the one that is split; the shares are worthless.

        Raises:
            Unavailable: the node is running, or shares are lacking.
            WrongState: the node key is not split.
            IntegrityFailed: something does not open; nothing changed.
        """
        with self.alone():
            self.unlock()
            if self.master.holders() is None:
                raise WrongState(tell="the node key is not split", hint="`sandbox node rotate-key` makes a new one")
            return self.master.into_file(lambda conn, count: self._enter_key(conn, count, "file"))

    def card(self) -> Signed:
        """Return the peer card to hand to other organisations."""
        return self.keys.card(self.settings.node_id, self.settings.organisation, self.settings.reachable_at)

    def add_peer(self, card: Signed) -> PeerCard:
        """Pin another organisation's node."""
        with self.store.write() as conn:
            pinned = registry.pin(conn, card)
            if pinned.node_id == self.settings.node_id:
                raise InvalidSpec(tell="that is this node's own card")
            facts = (Fact("node", pinned.node_id), Fact("key", card.key_id))
            self._enter(conn, "peer", facts)
        return pinned

    def peers(self) -> list[PeerCard]:
        """Return the pinned peers."""
        with self.store.read() as conn:
            return registry.all_peers(conn)

    def register_key(self, card: Signed, roles: Sequence[str]) -> str:
        """Register a person's key with roles; returns its id."""
        with self.store.write() as conn:
            found = registry.register(conn, card, roles)
            if "bank" in roles and found.organisation != self.settings.organisation:
                raise InvalidSpec(
                    tell=f"bank is a role for people of {self.settings.organisation}: they own its data",
                    hint="register people of other organisations as merchant",
                )
            facts = (Fact("key", found.key_id), Fact("roles", ",".join(sorted(found.roles))))
            self._enter(conn, "key", facts)
        return found.key_id

    def revoke_key(self, key_id: str) -> None:
        """Revoke a person's key, for good."""
        with self.store.write() as conn:
            registry.revoke(conn, key_id)
            self._enter(conn, "key", (Fact("key", key_id), Fact("revoked", "yes")))

    def registered(self) -> list[Registered]:
        """Return every key ever registered."""
        with self.store.read() as conn:
            return registry.all_keys(conn)

    def trust(self) -> str:
        """Return whom a receipt of this node is checked against: one verifier key a line."""
        own = VerifierKey(self.settings.node_id, self.keys.checkpoint.public)
        lines = [f"origin {own.to_text()}"]
        for card in self.peers():
            key = VerifierKey(card.node_id, PublicKey.from_bytes(card.checkpoint.key))
            lines.append(f"witness {key.to_text()}")
        return "\n".join(lines) + "\n"

    def reason(self, job_id: str) -> str:
        """Return why a job of this node ended early, in the words only its owner may read; checked against the log.

        Raises:
            NotFound: no such job ended early here.
            IntegrityFailed: it is not what the log committed to.
        """
        with self.store.read() as conn:
            sealed = conn.scalar(select(refusals.c.sealed).where(refusals.c.job_id == job_id))
            if sealed is None:
                raise NotFound(tell=f"no job {job_id} ended early at this node")
            entries = [wire.decode(Entry, leaf) for _, leaf in audit_log.for_job(conn, job_id)]
        opened = unseal(self.keys.node_key, sealed[:12], sealed[12:], reason_context(job_id))
        digests = {commitment.digest for entry in entries for commitment in entry.commitments}
        if sm3(opened) not in digests:
            raise IntegrityFailed(f"the reason of job {job_id} is not what the log committed to")
        return opened[32:].decode()

    def fsck(self) -> int:
        """Recompute the whole log; returns the number of entries.

        Raises:
            IntegrityFailed: naming the first bad entry or checkpoint.
        """
        with self.store.read() as conn:
            audit_log.check(conn, VerifierKey(self.settings.node_id, self.keys.checkpoint.public))
            return audit_log.size(conn)

    def _enter_key(self, conn: Connection, count: int, held: str) -> None:
        self._enter(conn, "key-rotated", (Fact("values", str(count)), Fact("held", held)))

    def _enter(self, conn: Connection, what: str, facts: tuple[Fact, ...]) -> None:
        actor = self.settings.node_id
        audit_log.append(conn, wire.encode(Entry(what, "", b"", b"", actor, signed.now_ms(), 0, facts, ())))


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
