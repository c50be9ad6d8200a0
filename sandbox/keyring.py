"""Keys on disk: what a node and a person hold, and the cards they hand out.

    <home>/keys/   identity.pem checkpoint.pem sealing.pem attestation.pem tls.key tls.crt node.key     (a node)
    <folder>/      identity.pem sealing.pem tls.key tls.crt                                             (a person)

PEM files are PKCS#8 as ``openssl`` reads them, encrypted when a passphrase is given; ``node.key`` holds 16 random
bytes, under the identity key's passphrase as SM4-GCM when there is one. Files are 0600, folders 0700.

Not here:  a node key that is split among officers or replaced by another (``master``).
"""

from __future__ import annotations

import functools
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sandbox import signed, wire
from sandbox.crypto.passphrase import lock, unlock
from sandbox.crypto.sm2 import PrivateKey, PublicKey
from sandbox.crypto.sm4 import KEY_SIZE
from sandbox.crypto.tls import lock_key, make_certificate, unlock_key
from sandbox.errors import IntegrityFailed, InvalidSpec, NotFound, WrongState
from sandbox.model import KeyCard, PeerCard, Signed

NODE_KEY = "node.key"
_PURPOSES = ("checkpoint", "sealing", "attestation")
_PLAIN, _LOCKED = b"plain\0", b"sealed"  # how a node key file begins
_LOCK = b"node.key"


@dataclass(frozen=True, slots=True)
class Person:
    """One person's or program's private keys."""

    identity: PrivateKey
    sealing: PrivateKey
    tls_key: bytes
    tls_certificate: bytes
    card: Signed

    @property
    def key_id(self) -> str:
        """The identity key's id."""
        return self.identity.public.key_id


@dataclass(frozen=True, slots=True)
class Master:
    """What opens everything that a node keeps."""

    node_key: bytes = field(repr=False)  # wraps the keys of everything at rest
    population_key: bytes = field(repr=False)  # outlives the node key; empty where no store was asked for it


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """One node's private keys; ``master`` returns those that may be in its officers' hands, or raises."""

    identity: PrivateKey
    checkpoint: PrivateKey
    sealing: PrivateKey
    attestation: PrivateKey
    tls_key: bytes = field(repr=False)
    tls_certificate: bytes
    master: Callable[[], Master] = field(repr=False)

    @property
    def node_key(self) -> bytes:
        """What wraps the keys of everything at rest.

        Raises:
            Unavailable: it is split, and too few shares are here.
        """
        return self.master().node_key

    @property
    def population_key(self) -> bytes:
        """The secret under which this node's people are sketched: of no use to anybody else.

        Raises:
            Unavailable: the node key is split, and too few shares are here.
        """
        if not (key := self.master().population_key):
            raise WrongState("the secret of the populations is in the store: open the node's home")
        return key

    def card(self, node_id: str, organisation: str, address: str) -> Signed:
        """Return the peer card of this node."""
        certified = {p: signed.certify(self.identity, p, getattr(self, p).public) for p in _PURPOSES}
        return signed.sign(
            self.identity,
            "peer-card",
            PeerCard(
                node_id,
                organisation,
                address,
                self.identity.public.to_bytes(),
                certified["checkpoint"],
                certified["sealing"],
                certified["attestation"],
                self.tls_certificate,
                signed.now_ms(),
            ),
        )


def create_person(folder: Path, name: str, organisation: str, passphrase: bytes | None = None) -> Person:
    """Make a person's keys in a new folder."""
    _new_folder(folder)
    identity, sealing = PrivateKey.generate(), PrivateKey.generate()
    tls_key, tls_certificate = make_certificate(name)
    card = signed.sign(
        identity,
        "key-card",
        KeyCard(
            name,
            organisation,
            identity.public.to_bytes(),
            signed.certify(identity, "sealing", sealing.public),
            tls_certificate,
            signed.now_ms(),
        ),
    )
    _write(folder / "identity.pem", identity.to_pem(passphrase))
    _write(folder / "sealing.pem", sealing.to_pem(passphrase))
    _write(folder / "tls.key", lock_key(tls_key, passphrase) if passphrase else tls_key)
    _write(folder / "tls.crt", tls_certificate)
    _write(folder / "key.card", wire.encode(card))
    return Person(identity, sealing, tls_key, tls_certificate, card)


def load_person(folder: Path, passphrase: bytes | None = None) -> Person:
    """Read a person's keys."""
    return Person(
        PrivateKey.from_pem(_read(folder / "identity.pem"), passphrase),
        PrivateKey.from_pem(_read(folder / "sealing.pem"), passphrase),
        _tls_key(folder, passphrase),
        _read(folder / "tls.crt"),
        signed.read_signed(_read(folder / "key.card")),
    )


def create_node(folder: Path, node_id: str, passphrase: bytes | None = None) -> NodeKeys:
    """Make a node's keys in a new folder."""
    _new_folder(folder)
    made = {purpose: PrivateKey.generate() for purpose in ("identity", *_PURPOSES)}
    tls_key, tls_certificate = make_certificate(node_id)
    node_key = secrets.token_bytes(KEY_SIZE)
    for purpose, key in made.items():
        _write(folder / f"{purpose}.pem", key.to_pem(passphrase))
    _write(folder / "tls.key", lock_key(tls_key, passphrase) if passphrase else tls_key)
    _write(folder / "tls.crt", tls_certificate)
    _write(folder / NODE_KEY, _wrap(node_key, passphrase))
    return NodeKeys(
        **made, tls_key=tls_key, tls_certificate=tls_certificate, master=functools.partial(Master, node_key, b"")
    )


def load_node(folder: Path, passphrase: bytes | None = None, master: Callable[[], Master] | None = None) -> NodeKeys:
    """Read a node's keys.

    Args:
        folder: where they are.
        passphrase: opens them.
        master: where the node key comes from; its file, if it is left out.
    """
    if master is None:
        master = functools.partial(Master, read_node_key(folder / NODE_KEY, passphrase), b"")
    keys = {p: PrivateKey.from_pem(_read(folder / f"{p}.pem"), passphrase) for p in ("identity", *_PURPOSES)}
    return NodeKeys(
        **keys,
        tls_key=_tls_key(folder, passphrase),
        tls_certificate=_read(folder / "tls.crt"),
        master=master,
    )


def public_key(card: PeerCard | KeyCard) -> PublicKey:
    """Return the identity key a card carries."""
    return PublicKey.from_bytes(card.identity_key)


def read_node_key(path: Path, passphrase: bytes | None) -> bytes:
    """Return the node key in a file.

    Raises:
        NotFound: there is none.
        InvalidSpec: it is protected, and no passphrase was given.
        IntegrityFailed: passphrase or file are not those it was written with.
    """
    return _unwrap(_read(path), passphrase)


def write_node_key(path: Path, key: bytes, passphrase: bytes | None) -> None:
    """Write a node key; it is on the disk when this returns."""
    write_durably(path, _wrap(key, passphrase))


def matching_passphrase(folder: Path, passphrase: bytes | None) -> bytes | None:
    """Return under what a new key has to be written to be protected as the others in ``folder`` are.

    Raises:
        SandboxError: they are protected, and this does not open them.
    """
    pem = _read(folder / "identity.pem")
    PrivateKey.from_pem(pem, passphrase)
    return passphrase if b"ENCRYPTED" in pem.splitlines()[0] else None


def write_durably(path: Path, data: bytes) -> None:
    """Write a new private file; content and name are on the disk when this returns."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def erase(path: Path) -> None:
    """Overwrite and remove a file, if it is there; disks and file systems may still keep what once stood in it."""
    if path.is_symlink():
        path.unlink()  # what it leads to is not ours
    elif path.exists():
        path.chmod(0o600)
        with path.open("r+b", buffering=0) as file:
            file.write(bytes(path.stat().st_size))
            os.fsync(file.fileno())
        path.unlink()
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _tls_key(folder: Path, passphrase: bytes | None) -> bytes:
    stored = _read(folder / "tls.key")
    return unlock_key(stored, passphrase) if passphrase else stored


def _wrap(key: bytes, passphrase: bytes | None) -> bytes:
    return _PLAIN + key if passphrase is None else _LOCKED + lock(key, passphrase, _LOCK)


def _unwrap(data: bytes, passphrase: bytes | None) -> bytes:
    if data.startswith(_PLAIN):
        key = data.removeprefix(_PLAIN)
    elif not data.startswith(_LOCKED):
        raise IntegrityFailed("a file is not a node key")
    elif passphrase is None:
        raise InvalidSpec(tell="the node's keys are protected by a passphrase", hint="set SANDBOX_PASSPHRASE")
    else:
        key = unlock(data.removeprefix(_LOCKED), passphrase, _LOCK)
    if len(key) != KEY_SIZE:
        raise IntegrityFailed("a node key has the wrong size")
    return key


def _new_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        raise InvalidSpec(
            tell=f"{folder} exists already; keys are never overwritten", hint="choose another folder"
        ) from None


def _write(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound(tell=f"no key file {path}", hint="make keys with `sandbox key new` or `sandbox init`") from None
