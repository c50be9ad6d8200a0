"""Self-signed certificates for the mutual TLS between nodes, pinned by their fingerprint.

Source:    RFC 5280 (X.509), FIPS 186-5 (ECDSA P-256), through ``cryptography``. gRPC's BoringSSL knows no SM2
           certificates, so the inner channel and every message carry SM2; TLS is the outer wrapping.
Security:  a certificate is trusted because it was pinned, not because of who issued it: it is no authority, so that
           whoever steals its key cannot make others. The fingerprint goes into the transcript of the channel.
Shapes:    PEM in, PEM out; fingerprint 32 bytes.
Errors:    ``InvalidSpec`` for a name that is not a DNS name or bytes that are not one certificate.
Not here:  the channel (``peer``), how certificates are exchanged.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sandbox.crypto.sm3 import sm3
from sandbox.errors import InvalidSpec

VALIDITY: Final = timedelta(days=5 * 365)

_SKEW: Final = timedelta(minutes=10)  # a peer's clock may be behind ours
_NAME_LIMIT: Final = 64  # characters, of an X.509 common name
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PEM_LIMIT: Final = 16384  # bytes; one of ours has about 700


def make_certificate(name: str) -> tuple[bytes, bytes]:
    """Return a new private key (PKCS#8) and its certificate for the DNS name ``name``, both in PEM.

    Raises:
        InvalidSpec: ``name`` is not a lower-case DNS name of up to 64 characters.
    """
    if len(name) > _NAME_LIMIT or not _NAME.fullmatch(name):
        raise InvalidSpec(f"a certificate needs a lower-case DNS name of up to {_NAME_LIMIT} characters")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + VALIDITY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(usage, critical=True)
        .add_extension(purposes, critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return secret, certificate.public_bytes(serialization.Encoding.PEM)


def lock_key(pem: bytes, passphrase: bytes) -> bytes:
    """Return a private key in PEM, encrypted."""
    key = serialization.load_pem_private_key(pem, None)
    how = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


def unlock_key(pem: bytes, passphrase: bytes) -> bytes:
    """Return an encrypted private key in the clear, as gRPC wants it: in memory only.

    Raises:
        InvalidSpec: the passphrase does not open it.
    """
    try:
        key = serialization.load_pem_private_key(pem, passphrase)
    except (ValueError, TypeError):
        raise InvalidSpec(tell="the passphrase does not open the TLS key") from None
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def fingerprint(cert_pem: bytes) -> bytes:
    """Return the SM3 digest of a certificate's DER.

    Raises:
        InvalidSpec: the bytes are not exactly one certificate in PEM.
    """
    if len(cert_pem) > _PEM_LIMIT:
        raise InvalidSpec("this is too long for one certificate")
    try:
        certificates = x509.load_pem_x509_certificates(cert_pem)
    except ValueError:
        raise InvalidSpec("this is not a certificate in PEM") from None
    if len(certificates) != 1:
        raise InvalidSpec(f"one certificate was expected, not {len(certificates)}")
    return sm3(certificates[0].public_bytes(serialization.Encoding.DER))
