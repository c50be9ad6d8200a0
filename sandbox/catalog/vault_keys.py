"""The keys of the vault: one a version, wrapped under the node's; one a chunk; one for the manifest.

Source:    GB/T 32907-2016 (SM4) in GCM, RFC 5869 (HKDF) and HMAC with SM3.
Security:  a key a chunk means that a nonce cannot repeat. Everything a key is bound to is encoded with lengths.
Shapes:    version and node keys 16 bytes; a wrapped key is a 12-byte nonce and SM4-GCM of the key, 44 bytes in all.
Errors:    ``IntegrityFailed`` if a wrapped key does not open.
Not here:  where the node key comes from (node), files (vault).
"""

from __future__ import annotations

import secrets

from sandbox.crypto.sm3 import hkdf, hmac_sm3
from sandbox.crypto.sm4 import KEY_SIZE, NONCE_SIZE, seal, unseal
from sandbox.errors import IntegrityFailed

SALT = 32  # random bytes before every chunk


def wrap(node_key: bytes, version_key: bytes, code: str, version: int) -> bytes:
    """Seal the key of a version under the node's."""
    nonce = secrets.token_bytes(NONCE_SIZE)
    return nonce + seal(node_key, nonce, version_key, _context("vault-key", code, str(version)))


def unwrap(node_key: bytes, wrapped: bytes, code: str, version: int) -> bytes:
    """Return the key of a version.

    Raises:
        IntegrityFailed: it was wrapped under another key, for another version, or changed.
    """
    if len(wrapped) <= NONCE_SIZE:
        raise IntegrityFailed("a wrapped key is too short")
    context = _context("vault-key", code, str(version))
    return unseal(node_key, wrapped[:NONCE_SIZE], wrapped[NONCE_SIZE:], context)


def chunk_key(version_key: bytes, salt: bytes) -> tuple[bytes, bytes]:
    """Return key and nonce of the chunk that begins with ``salt``."""
    derived = hkdf(version_key, salt, b"sandbox/v1/vault-chunk", KEY_SIZE + NONCE_SIZE)
    return derived[:KEY_SIZE], derived[KEY_SIZE:]


def chunk_context(code: str, version: int, index: int, last: bool) -> bytes:
    """Return what a chunk is bound to: its place."""
    return _context("vault-chunk", code, str(version), str(index), "last" if last else "more")


def manifest_mac(version_key: bytes, manifest: bytes) -> bytes:
    """Return the HMAC-SM3 of the bytes of a manifest."""
    return hmac_sm3(hkdf(version_key, b"", b"sandbox/v1/vault-manifest", 32), manifest)


def _context(*parts: str) -> bytes:
    """Return the parts, each after its length as 4 bytes: no two lists of parts give the same bytes."""
    return b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
