"""Keys on disk: what a node and a person hold, and the cards they hand out.

    <home>/keys/   identity.pem checkpoint.pem sealing.pem attestation.pem tls.key tls.crt node.key     (a node)
    <folder>/      identity.pem sealing.pem tls.key tls.crt                                             (a person)

PEM files are PKCS#8 as ``openssl`` reads them, encrypted when a passphrase is given; ``node.key`` holds 16 random
bytes, under the identity key's passphrase as SM4-GCM when there is one. Files are 0600, folders 0700.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from hashlib import scrypt
from pathlib import Path

from sandbox import signed, wire
from sandbox.crypto.sm2 import PrivateKey, PublicKey
from sandbox.crypto.sm3 import hkdf
from sandbox.crypto.sm4 import seal, unseal
from sandbox.crypto.tls import lock_key, make_certificate, unlock_key
from sandbox.errors import InvalidSpec, NotFound
from sandbox.model import KeyCard, PeerCard, Signed

_PURPOSES = ("checkpoint", "sealing", "attestation")


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
class NodeKeys:
    """One node's private keys. ``node_key`` wraps the keys of everything at rest."""

    identity: PrivateKey
    checkpoint: PrivateKey
    sealing: PrivateKey
    attestation: PrivateKey
    tls_key: bytes
    tls_certificate: bytes
    node_key: bytes

    @property
    def population_key(self) -> bytes:
        """The secret under which this node's people are sketched: of no use to anybody else."""
        return hkdf(self.node_key, b"", b"populations", 32)

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
    node_key = secrets.token_bytes(16)
    for purpose, key in made.items():
        _write(folder / f"{purpose}.pem", key.to_pem(passphrase))
    _write(folder / "tls.key", lock_key(tls_key, passphrase) if passphrase else tls_key)
    _write(folder / "tls.crt", tls_certificate)
    _write(folder / "node.key", _wrap(node_key, passphrase))
    return NodeKeys(**made, tls_key=tls_key, tls_certificate=tls_certificate, node_key=node_key)


def load_node(folder: Path, passphrase: bytes | None = None) -> NodeKeys:
    """Read a node's keys."""
    keys = {p: PrivateKey.from_pem(_read(folder / f"{p}.pem"), passphrase) for p in ("identity", *_PURPOSES)}
    return NodeKeys(
        **keys,
        tls_key=_tls_key(folder, passphrase),
        tls_certificate=_read(folder / "tls.crt"),
        node_key=_unwrap(_read(folder / "node.key"), passphrase),
    )


def public_key(card: PeerCard | KeyCard) -> PublicKey:
    """Return the identity key a card carries."""
    return PublicKey.from_bytes(card.identity_key)


def _tls_key(folder: Path, passphrase: bytes | None) -> bytes:
    stored = _read(folder / "tls.key")
    return unlock_key(stored, passphrase) if passphrase else stored


def _wrap(key: bytes, passphrase: bytes | None) -> bytes:
    if passphrase is None:
        return b"plain\0" + key
    salt = secrets.token_bytes(32)
    return b"sealed" + salt + seal(_derived(passphrase, salt), bytes(12), key, b"node.key")


def _unwrap(data: bytes, passphrase: bytes | None) -> bytes:
    if data.startswith(b"plain\0"):
        return data[6:]
    if passphrase is None:
        raise InvalidSpec(tell="the node's keys are protected by a passphrase", hint="set SANDBOX_PASSPHRASE")
    return unseal(_derived(passphrase, data[6:38]), bytes(12), data[38:], b"node.key")


def _derived(passphrase: bytes, salt: bytes) -> bytes:
    # A passphrase is weak: stretch it before use (scrypt, RFC 7914), then bind the purpose with HKDF-SM3.
    return hkdf(scrypt(passphrase, salt=salt, n=1 << 15, r=8, p=1, maxmem=1 << 26), salt, b"node.key", 16)


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
