"""Certificates in a real mutual-TLS call between two gRPC ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from sandbox.crypto.sm3 import sm3
from sandbox.crypto.tls import fingerprint, make_certificate
from sandbox.errors import InvalidSpec

SERVER_NAME = "operator.sandbox"

Pair = tuple[bytes, bytes]
Call = Callable[..., bytes]


class Echo(grpc.GenericRpcHandler):  # type: ignore[type-arg, unused-ignore]
    """Answers every call with the caller's certificate."""

    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda request, call: call.auth_context()["x509_pem_cert"][0])


@pytest.fixture(scope="module")
def server_pair() -> Pair:
    return make_certificate(SERVER_NAME)


@pytest.fixture(scope="module")
def client_pair() -> Pair:
    return make_certificate("bank.sandbox")


@pytest.fixture(scope="module")
def successor_pair() -> Pair:
    """The client's next certificate, under the same name."""
    return make_certificate("bank.sandbox")


@pytest.fixture(scope="module")
def call(server_pair: Pair, client_pair: Pair, successor_pair: Pair) -> Iterator[Call]:
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Echo()])
    pinned = client_pair[1] + successor_pair[1]
    port = server.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials([server_pair], pinned, require_client_auth=True)
    )
    server.start()

    def ask(pin: bytes, pair: Pair | tuple[None, None], name: str = SERVER_NAME) -> bytes:
        credentials = grpc.ssl_channel_credentials(pin, *pair)
        with grpc.secure_channel(
            f"127.0.0.1:{port}", credentials, [("grpc.ssl_target_name_override", name)]
        ) as channel:
            return bytes(channel.unary_unary("/test/Echo", None, None)(b"", timeout=10))

    yield ask
    server.stop(0).wait()


def test_pinned_certificates_meet(call: Call, server_pair: Pair, client_pair: Pair, successor_pair: Pair) -> None:
    for pair in (client_pair, successor_pair):
        assert fingerprint(call(server_pair[1], pair)) == fingerprint(pair[1])


def test_others_do_not(call: Call, server_pair: Pair, client_pair: Pair) -> None:
    impostor = make_certificate("bank.sandbox")
    for pin, pair, name in (
        (server_pair[1], impostor, SERVER_NAME),  # right name, not the pinned key
        (server_pair[1], (None, None), SERVER_NAME),  # no client certificate
        (make_certificate(SERVER_NAME)[1], client_pair, SERVER_NAME),  # the server is not the pinned one
        (server_pair[1], client_pair, "other.sandbox"),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            call(pin, pair, name)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_what_a_certificate_says(client_pair: Pair) -> None:
    key, certificate = load_pem_private_key(client_pair[0], None), x509.load_pem_x509_certificate(client_pair[1])
    assert certificate.public_key() == key.public_key()
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["bank.sandbox"]
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical and not constraints.value.ca
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(purposes) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=5 * 365 - 1) < left < timedelta(days=5 * 365 + 1)
    assert certificate.not_valid_before_utc < datetime.now(UTC)
    certificate.verify_directly_issued_by(certificate)


def test_the_fingerprint_is_sm3_over_der(client_pair: Pair, server_pair: Pair) -> None:
    certificate = x509.load_pem_x509_certificate(client_pair[1])
    assert fingerprint(client_pair[1]) == sm3(certificate.public_bytes(Encoding.DER))
    assert fingerprint(client_pair[1]) == fingerprint(b"a comment\n" + client_pair[1])
    assert fingerprint(client_pair[1]) != fingerprint(server_pair[1])
    for bad in (b"", b"junk", client_pair[0], client_pair[1] + server_pair[1], client_pair[1][:-60], b"x" * 20000):
        with pytest.raises(InvalidSpec):
            fingerprint(bad)


@pytest.mark.parametrize("name", ["", "UPPER", "a b", "-a", "a-", "a..b", "*.sandbox", "é", "a" * 65, "a\n", "x" * 64])
def test_names(name: str) -> None:
    with pytest.raises(InvalidSpec):
        make_certificate(name)
