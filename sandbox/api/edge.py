"""Every request passes here: signature, audience, method, time, nonce, key, certificate, role; then the handler; then
the status.

Security:  verify, then parse. A request is for one node and one method, within 120 s of this node's clock; its nonce
           is kept until 240 s after its time, in the transaction of its effect, so a replay fails even after a
           restart. The TLS certificate must be the one registered with the signing key: a stolen request is useless
           on another connection, and to another node.
Errors:    one status a class (``peer.failures``), the class's public words, and the failure as trailing metadata.
           Unexpected errors are logged here and told as ``JobFailed`` without a word of their text.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc
from sqlalchemy import Connection, delete, insert
from sqlalchemy.exc import IntegrityError

from sandbox import registry, signed, wire
from sandbox.crypto.sm2 import PublicKey
from sandbox.crypto.tls import fingerprint
from sandbox.errors import InvalidSpec, JobFailed, NotFound, PolicyRefused, SandboxError, Unauthenticated
from sandbox.model import Call, Signed
from sandbox.peer.failures import refuse
from sandbox.store import Store, nonces

log = logging.getLogger(__name__)
B = TypeVar("B")
WINDOW_MS = 120_000
KEPT_MS = 240_000
_PRESENTED: ContextVar[bytes] = ContextVar("the TLS certificate of the connection a request came over", default=b"")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who signed: a registered person, or a pinned peer."""

    key_id: str
    name: str  # a person's name, or a node id
    roles: frozenset[str]
    key: PublicKey
    organisation: str


@dataclass(frozen=True, slots=True)
class Request(Generic[B]):
    """A request that passed."""

    caller: Caller
    body: B
    call: Signed
    remember: Callable[[Connection], None]


class Edge:
    """One node's door."""

    def __init__(self, node_id: str, store: Store) -> None:
        self.node_id, self.store = node_id, store

    def open(self, message: Any, method: str, shape: type[B], roles: frozenset[str]) -> Request[B]:
        """Return what a request asks for, or refuse it; called inside ``unary`` or ``stream``, in any thread.

        Raises:
            Unauthenticated, PolicyRefused, InvalidSpec: as the module says.
        """
        wire.refuse_unknown(message, type(message).__name__)
        if not message.HasField("signed"):
            raise Unauthenticated(tell="the request is not signed")
        envelope = wire.from_proto(Signed, message.signed)
        with self.store.read() as conn:
            caller, certificate = self._caller(conn, envelope.key_id)
        call = signed.verify(caller.key, "call", envelope, Call)
        self._check(call, method, certificate)
        if not roles & caller.roles:
            raise PolicyRefused(
                f"{caller.name} lacks a role for {method}",
                tell="your key has no role for this call",
                hint="ask this node's operator for the role (sandbox key register --role)",
            )
        return Request(
            caller, wire.decode(shape, call.body), envelope, lambda conn: self._remember(conn, envelope, call)
        )

    def _caller(self, conn: Connection, key_id: str) -> tuple[Caller, bytes]:
        try:
            found = registry.find_key(conn, key_id)
        except NotFound:
            for card in registry.all_peers(conn):
                key = PublicKey.from_bytes(card.identity_key)
                if key.key_id == key_id:
                    caller = Caller(key_id, card.node_id, frozenset({registry.PEER}), key, card.organisation)
                    return caller, card.tls_certificate
            raise Unauthenticated(f"unknown key {key_id}") from None
        if found.revoked:
            raise Unauthenticated(f"key {key_id} was revoked", tell="this key was revoked")
        caller = Caller(key_id, found.name, found.roles, found.identity, found.organisation)
        return caller, found.card.tls_certificate

    def _check(self, call: Call, method: str, certificate: bytes) -> None:
        if call.protocol != signed.PROTOCOL:
            raise InvalidSpec(tell=f"protocol version {call.protocol} is not spoken here, only {signed.PROTOCOL}")
        if call.audience != self.node_id:
            raise Unauthenticated(tell=f"the request is for another node than {self.node_id}")
        if call.method != method:
            raise Unauthenticated(tell="the request was signed for another method")
        if abs(signed.now_ms() - call.time_ms) > WINDOW_MS:
            raise Unauthenticated(
                tell="the request is older or newer than 120 s", hint="set this machine's clock, and sign again"
            )
        shown = _PRESENTED.get()
        if not shown or fingerprint(shown) != fingerprint(certificate):
            raise Unauthenticated(tell="the TLS certificate is not the one registered with this key")

    def _remember(self, conn: Connection, envelope: Signed, call: Call) -> None:
        """Store the nonce in the transaction of the effect; one that is there already is a replay."""
        try:
            conn.execute(
                insert(nonces).values(key_id=envelope.key_id, nonce=call.nonce, expires_ms=call.time_ms + KEPT_MS)
            )
        except IntegrityError:
            raise Unauthenticated(
                tell="this request was sent before", hint="sign again: a retry needs a fresh nonce"
            ) from None

    def spend_nonce(self, request: Request[Any], is_read: bool = True) -> None:
        """Store the nonce of a request without a transaction of its own; a read may recur if power is lost."""
        with self.store.write(flush=not is_read) as conn:
            request.remember(conn)

    def forget_nonces(self) -> None:
        """Drop nonces whose window has passed."""
        with self.store.write() as conn:
            conn.execute(delete(nonces).where(nonces.c.expires_ms < signed.now_ms()))

    async def unary(self, context: Any, action: Callable[[], Awaitable[Any]]) -> Any:
        """Run a handler and tell its failure."""
        _take_certificate(context)
        try:
            return await action()
        except SandboxError as error:
            await self._refuse(context, error)
        except Exception as error:  # the edge: no text of an unexpected error may leave
            log.exception("a defect in a handler")
            await self._refuse(context, JobFailed(type(error).__name__))

    async def stream(self, context: Any, parts: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Run a streaming handler and tell its failure."""
        _take_certificate(context)
        try:
            async for part in parts:
                yield part
        except SandboxError as error:
            await self._refuse(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # the edge, as above
            log.exception("a defect in a streaming handler")
            await self._refuse(context, JobFailed(type(error).__name__))

    async def _refuse(self, context: Any, error: SandboxError) -> None:
        log.info("refused: %s: %s", type(error).__name__, error)
        await refuse(context, error, self.node_id)


def _take_certificate(context: Any) -> None:
    """Read it first of all and on the event loop: gRPC frees a call that is cancelled under a thread that reads it."""
    _PRESENTED.set(b"".join(context.auth_context().get("x509_pem_cert", ())[:1]))
