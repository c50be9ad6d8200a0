"""The handshake of one connection between two nodes: two signed hellos, then keys.

    caller                                                answerer
    hello: names, job, purpose, ephemeral key,   --->     checks it against what is pinned
           both TLS fingerprints, seal, time
    checks it, and that it answers ours          <---     hello: the same, and the digest of the caller's
    keys = HKDF(agreement of the ephemeral keys, both signed hellos)

Source:    sign-and-hash over the whole transcript in the manner of SIGMA (H. Krawczyk, CRYPTO 2003); SM2 agreement by
           plain ECDH on the curve of GB/T 32918.5, HKDF (RFC 5869) with SM3.
Security:  each side proves its pinned identity key over names, job, purpose, seal and both TLS fingerprints: who stands
           between the two TLS ends, or holds only one of the keys (identity, TLS), is found out, and a hello for one
           job, link or direction is worth nothing in another. The answerer's hello covers the caller's, so an old one
           answers nothing; an old caller's hello can be replayed, but nobody has its ephemeral scalar: the first
           record, which both sides send before anything else, does not open; and ``Seen`` takes each hello once.
           Forward secrecy: the secret comes from two ephemeral keys alone, made for one connection, used once, and
           held by no object after ``Caller.finish`` or ``answer`` returns; the identity keys only sign. Whoever takes
           every long-lived key later can pose as a node, but cannot open what was recorded. Nothing is resumed.
           Under ``seal = tls`` secrecy is TLS's (ephemeral there, too); the keys made here then go unused.
Reveals:   to an observer inside TLS: names, job id, purpose. Nobody else sees a hello.
Shapes:    keys 16 bytes, one a direction; connection id 16 bytes; times in milliseconds, window 120 s either way.
Errors:    ``Unauthenticated`` where a hello is not from the pinned node, is stale, or is for somebody else;
           ``PartyFailed`` where the node is right and the terms are not (job, purpose, connection, seal). Both name
           the party.
Not here:  transport, and which jobs are open (``links``); the records (``channel``).
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import Final

from sandbox import signed
from sandbox.crypto.sm2 import PrivateKey, PublicKey
from sandbox.crypto.sm3 import hkdf, tagged
from sandbox.crypto.sm4 import KEY_SIZE
from sandbox.errors import InvalidSpec, PartyFailed, SandboxError, Unauthenticated
from sandbox.model import ChannelPurpose, Hello, SealMode, Signed

WINDOW_MS: Final = 120_000
STAGE: Final = "connect"

_HELLO_S: Final = 2 * WINDOW_MS / 1000 + 30  # ahead of our clock at first, late at last, and waiting for its job


@dataclass(frozen=True, slots=True)
class Terms:
    """What one side knows before a connection, and holds the other side to."""

    node_id: str
    peer: str
    identity: PrivateKey = field(repr=False)
    peer_identity: PublicKey
    certificate: bytes  # fingerprint of this node's TLS certificate
    peer_certificate: bytes  # pinned fingerprint of the peer's
    job_id: str
    purpose: ChannelPurpose
    seal: SealMode


@dataclass(frozen=True, slots=True)
class Session:
    """What a handshake yields: one connection's keys, for this side's two directions."""

    node_id: str
    peer: str
    connection: bytes
    seal: SealMode
    send_key: bytes = field(repr=False)
    receive_key: bytes = field(repr=False)
    is_caller: bool


class Caller:
    """The calling side: says ``hello``, then finishes with the answer, once."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._connection = secrets.token_bytes(16)
        self._ephemeral: PrivateKey | None = PrivateKey.generate()
        self.hello = _say(terms, self._connection, self._ephemeral, b"")

    def finish(self, reply: Signed) -> Session:
        """Check the answer and derive the keys; the ephemeral scalar is dropped whatever comes of it.

        Raises:
            Unauthenticated: the answer is not the pinned peer's, is stale, or answers another hello.
            PartyFailed: the peer means another job, purpose or seal.
        """
        ephemeral, self._ephemeral = self._ephemeral, None
        if ephemeral is None:
            raise Unauthenticated("a handshake was finished twice", party=self._terms.peer, stage=STAGE)
        said = _hear(self._terms, reply)
        if said.answers != tagged("hello", self.hello.payload):
            raise _distrust(self._terms, "answers another hello")
        if said.connection != self._connection:
            raise _disagree(self._terms, "names another connection")
        return _derive(self._terms, self._connection, ephemeral, said.ephemeral_key, (self.hello, reply), True)


def answer(terms: Terms, hello: Signed) -> tuple[Signed, Session]:
    """Check a caller's hello and return this side's, with the keys.

    Raises:
        Unauthenticated: the hello is not the pinned peer's, is stale, or is meant for somebody else.
        PartyFailed: the peer means another job, purpose or seal.
    """
    said = _hear(terms, hello)
    if said.answers:
        raise _distrust(terms, "is an answer where a call was expected")
    ephemeral = PrivateKey.generate()
    reply = _say(terms, said.connection, ephemeral, tagged("hello", hello.payload))
    return reply, _derive(terms, said.connection, ephemeral, said.ephemeral_key, (hello, reply), False)


class Seen:
    """The connections answered lately: a hello is good once, also where TLS alone seals."""

    def __init__(self) -> None:
        self._seen: dict[bytes, float] = {}

    def once(self, terms: Terms, connection: bytes) -> None:
        """Remember a connection for as long as its hello could pass.

        Raises:
            Unauthenticated: it came before.
        """
        now = time.monotonic()
        while self._seen and next(iter(self._seen.values())) < now - _HELLO_S:
            del self._seen[next(iter(self._seen))]
        if connection in self._seen:
            raise _distrust(terms, "came twice")
        self._seen[connection] = now


def _say(terms: Terms, connection: bytes, ephemeral: PrivateKey, answers: bytes) -> Signed:
    said = Hello(
        from_=terms.node_id,
        to=terms.peer,
        job_id=terms.job_id,
        purpose=terms.purpose,
        connection=connection,
        ephemeral_key=ephemeral.public.to_bytes(),
        own_certificate=terms.certificate,
        peer_certificate=terms.peer_certificate,
        seal=terms.seal,
        answers=answers,
        time_ms=signed.now_ms(),
    )
    return signed.sign(terms.identity, "hello", said)


def _hear(terms: Terms, hello: Signed) -> Hello:
    try:
        said = signed.verify(terms.peer_identity, "hello", hello, Hello)
    except SandboxError as error:
        raise _distrust(terms, f"does not verify ({error})") from None
    if (said.from_, said.to) != (terms.peer, terms.node_id):
        raise _distrust(terms, f"is from {said.from_} to {said.to}")
    if said.own_certificate != terms.peer_certificate:
        raise _distrust(terms, f"names a TLS certificate that is not the one pinned for {terms.peer}")
    if said.peer_certificate != terms.certificate:
        raise _distrust(terms, "expects another TLS certificate of this node")
    skew = said.time_ms - signed.now_ms()
    if abs(skew) > WINDOW_MS:
        raise _distrust(terms, f"is {abs(skew) // 1000} s off this node's clock")
    if said.job_id != terms.job_id:
        raise _disagree(terms, "means another job")
    if said.purpose is not terms.purpose:
        raise _disagree(terms, "means a connection for another purpose")
    if said.seal is not terms.seal:
        ours, theirs = terms.seal.name.lower(), said.seal.name.lower()
        raise _disagree(
            terms,
            f"seals this link with {theirs}, {terms.node_id} with {ours}",
            hint="set the same `seal` for this link in both nodes' settings",
        )
    return said


def _derive(
    terms: Terms, connection: bytes, own: PrivateKey, other: bytes, hellos: tuple[Signed, Signed], is_caller: bool
) -> Session:
    try:
        secret = own.agree(PublicKey.from_bytes(other))
    except InvalidSpec:
        raise _distrust(terms, "carries an ephemeral key that is no point of the curve") from None
    parts = [part for hello in hellos for part in (hello.payload, hello.signature)]
    salt = tagged("handshake", b"".join(len(part).to_bytes(4, "big") + part for part in parts))
    calling = hkdf(secret, salt, b"sandbox/v1/channel caller to answerer", KEY_SIZE)
    answering = hkdf(secret, salt, b"sandbox/v1/channel answerer to caller", KEY_SIZE)
    return Session(
        node_id=terms.node_id,
        peer=terms.peer,
        connection=connection,
        seal=terms.seal,
        send_key=calling if is_caller else answering,
        receive_key=answering if is_caller else calling,
        is_caller=is_caller,
    )


def _distrust(terms: Terms, why: str) -> Unauthenticated:
    return Unauthenticated(
        f"the hello of {terms.peer} {why}",
        tell=f"the handshake with {terms.peer} failed: its hello {why}",
        party=terms.peer,
        stage=STAGE,
        hint="compare clocks and exchange the cards again (sandbox doctor)",
    )


def _disagree(terms: Terms, why: str, hint: str = "") -> PartyFailed:
    return PartyFailed(
        f"the handshake with {terms.peer} failed: it {why}",
        tell=f"{terms.peer} {why}",
        party=terms.peer,
        stage=STAGE,
        hint=hint,
    )
