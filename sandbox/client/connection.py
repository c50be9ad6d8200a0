"""Signed calls from one person to one node.

    body --sign_call--> Signed --mutual TLS, pinned certificate--> node --> message | our error

Security:  the only trusted root is the certificate in the node's card; every request is signed for this node and this
           method, with a fresh nonce, by the person's identity key. A retry is signed anew.
Units:     timeouts in seconds; every call has one.
Errors:    every failure becomes one of ``sandbox.errors``, naming the party; an answer that does not parse is
           ``PartyFailed``, never believed in part.
Not here:  what the calls mean (``client``).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message_factory import GetMessageClass

from sandbox import signed, wire
from sandbox.errors import InvalidSpec, PartyFailed, SandboxError, Unauthenticated
from sandbox.keyring import Person
from sandbox.model import PeerCard, Signed
from sandbox.peer.failures import TRAILER, from_rpc
from sandbox.v1 import audit_pb2, catalog_pb2, consent_pb2, job_pb2, model_pb2, review_pb2, scenario_pb2

T = TypeVar("T")

SERVICES: Final = {
    service.full_name: service
    for module in (audit_pb2, catalog_pb2, consent_pb2, job_pb2, model_pb2, review_pb2, scenario_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
}
CALL_S: Final = 30.0
CHUNK: Final = 1 << 20  # bytes; the node refuses larger ones
ATTEMPTS: Final = 4
PAUSE_S: Final = 0.25  # before the second attempt; twice as long before each further one

_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 20_000),  # also how long one attempt may take, handshake included
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", wire.MAX_MESSAGE + CHUNK),
)


class Connection:
    """One person's line to one node. Threads may share it."""

    def __init__(self, person: Person, node: PeerCard) -> None:
        self.person, self.node = person, node
        credentials = grpc.ssl_channel_credentials(node.tls_certificate, person.tls_key, person.tls_certificate)
        name = ("grpc.ssl_target_name_override", node.node_id)
        self._channel = grpc.secure_channel(node.address, credentials, [name, *_OPTIONS])

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def sign(self, method: str, body: object) -> Signed:
        """Return ``body`` as a fresh signed request for ``method``, for example ``JobService/GetJob``."""
        return signed.sign_call(self.person.identity, self.node.node_id, full_name(method), body)

    def call(self, method: str, body: object, *, timeout_s: float = CALL_S, repeatable: bool = True) -> Any:
        """Return the answer to one call.

        Args:
            method: service and method, for example ``JobService/GetJob``.
            body: the shape named at the RPC.
            timeout_s: for each attempt.
            repeatable: whether doing it twice is the same as once; only then is an unreachable node tried again.
        """
        full, request, response = _method(method)
        remote = self._channel.unary_unary(
            full, request_serializer=request.SerializeToString, response_deserializer=response.FromString
        )
        for attempt in range(ATTEMPTS):
            message = request(signed=wire.to_proto(self.sign(method, body)))
            try:
                return remote(message, timeout=timeout_s)
            except grpc.RpcError as error:
                if not (repeatable and attempt + 1 < ATTEMPTS and _never_answered(error)):
                    raise self._told(error) from None
                time.sleep(PAUSE_S * 2**attempt)
        raise PartyFailed("unreachable", party=self.node.node_id)  # the last attempt has raised

    def stream(self, method: str, body: object, *, timeout_s: float) -> Generator[Any, None, None]:
        """Yield the messages of one answer."""
        full, request, response = _method(method)
        remote = self._channel.unary_stream(
            full, request_serializer=request.SerializeToString, response_deserializer=response.FromString
        )
        messages: Any = remote(request(signed=wire.to_proto(self.sign(method, body))), timeout=timeout_s)
        try:
            yield from messages
        except grpc.RpcError as error:
            raise self._told(error) from None
        finally:
            messages.cancel()  # no effect on a stream that has ended

    def upload(self, method: str, body: object, chunks: Iterator[bytes], *, timeout_s: float) -> Any:
        """Return the answer to a signed body followed by chunks; never repeated, the caller decides."""
        full, request, response = _method(method)
        remote = self._channel.stream_unary(
            full, request_serializer=request.SerializeToString, response_deserializer=response.FromString
        )
        failed: list[SandboxError | OSError] = []

        def messages() -> Iterator[Any]:
            yield request(signed=wire.to_proto(self.sign(method, body)))
            try:
                for chunk in chunks:
                    yield request(chunk=chunk)
            except (SandboxError, OSError) as error:
                failed.append(error)  # gRPC would report it as an unknown error of the node
                raise

        try:
            return remote(messages(), timeout=timeout_s)
        except grpc.RpcError as error:
            raise failed[0] if failed else self._told(error) from None

    def read(self, shape: type[T], message: Any) -> T:
        """Return a message of the node as a ``shape``."""
        try:
            return wire.from_proto(shape, message)
        except InvalidSpec as error:
            raise PartyFailed(
                tell=f"{self.node.node_id} answered what this version cannot read: {error.tell}",
                party=self.node.node_id,
                hint="compare the versions of the node and of this client",
            ) from None

    def _told(self, error: grpc.RpcError) -> SandboxError:
        name, address = self.node.node_id, self.node.address
        if _was_shut_out(error):
            return Unauthenticated(
                tell=f"{name} at {address} answers, and ends the connection: it does not know this key's certificate",
                party=name,
                hint="have your card registered there (sandbox key register), or ask whether the key was revoked",
            )
        return from_rpc(error, name, address)


def full_name(method: str) -> str:
    """Return the full gRPC name of ``Service/Method``; a name that is full already stays."""
    short = method.lstrip("/").removeprefix("sandbox.v1.")
    service, _, name = short.partition("/")
    if f"sandbox.v1.{service}" not in SERVICES or name not in SERVICES[f"sandbox.v1.{service}"].methods_by_name:
        raise InvalidSpec(tell=f"no method {method}", hint="name it as in proto/, for example JobService/GetJob")
    return f"/sandbox.v1.{service}/{name}"


def _method(method: str) -> tuple[str, Any, Any]:
    full = full_name(method)
    service, name = full[1:].split("/")
    found = SERVICES[service].methods_by_name[name]
    return full, GetMessageClass(found.input_type), GetMessageClass(found.output_type)


def _was_shut_out(error: grpc.RpcError) -> bool:
    """Tell whether the node closed a fresh connection: all that a client sees, in TLS 1.3, of a refused certificate."""
    details = str(error.details())
    return _never_answered(error) and "failed to connect" in details and "Socket closed" in details


def _never_answered(error: grpc.RpcError) -> bool:
    """Tell whether it is the network that failed; a node that speaks leaves a trailer."""
    if error.code() is not grpc.StatusCode.UNAVAILABLE or "CERTIFICATE_VERIFY_FAILED" in str(error.details()):
        return False
    trailers: Any = error.trailing_metadata()
    return all(key != TRAILER for key, _ in trailers or ())
