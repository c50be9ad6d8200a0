"""SM2 keys: sign, verify, encrypt, decrypt, agree.

Source:    GB/T 32918-2016 parts 1, 2 and 4 with the curve of part 5; encodings of GM/T 0009-2012; key files as
           OpenSSL writes them (RFC 5208, RFC 5480, RFC 8018).
Security:  a ``PublicKey`` exists only for a point on the curve. Nonces come from OpenSSL's generator. Whatever
           verifies or opens has exactly one encoding. A ``PrivateKey`` does not print its scalar, nor pickle.
           ``agree`` returns a raw shared coordinate: derive keys from it with ``sm3.hkdf``.
Reveals:   a ciphertext: the length of its plaintext. ``to_pem`` without a passphrase: the private key.
Shapes:    point 65 bytes ``04 || x || y``; signature DER (r, s) under the id 1234567812345678; ciphertext DER
           C1 C3 C2; shared coordinate 32 bytes.
Errors:    ``InvalidSpec`` for a key or point that is not one; ``IntegrityFailed`` for a signature or ciphertext that
           does not verify or open; ``Unavailable`` where OpenSSL 3 is missing.
Not here:  what is signed (``envelope``), the native calls (``libcrypto``).
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
from dataclasses import dataclass
from typing import Final, NoReturn

from sandbox.crypto import der, libcrypto
from sandbox.crypto.sm3 import tagged
from sandbox.errors import IntegrityFailed, InvalidSpec

SIGNER_ID: Final = b"1234567812345678"  # GM/T 0009-2012, 10: the id where none is agreed

_P: Final = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFF
_A: Final = _P - 3
_B: Final = 0x28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93
_WIDTH: Final = libcrypto.SCALAR_SIZE
# SubjectPublicKeyInfo {id-ecPublicKey, SM2} up to the point.
_SPKI: Final = bytes.fromhex("3059301306072a8648ce3d020106082a811ccf5501822d034200")
_SPKI_COMPRESSED: Final = bytes.fromhex("3039301306072a8648ce3d020106082a811ccf5501822d032200")
_PUBLIC_PEM: Final = re.compile(rb"\s*-----BEGIN PUBLIC KEY-----([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----\s*")
_PEM_LIMIT: Final = 16384  # bytes; a key file has a few hundred
_CACHED_KEYS: Final = 1024  # parsed public keys; about 1 KiB each


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A point on the SM2 curve. Equal keys are equal values; safe to share between threads and processes."""

    point: bytes

    def __post_init__(self) -> None:
        _check_point(self.point)

    def __reduce__(self) -> tuple[type[PublicKey], tuple[bytes]]:
        return PublicKey, (self.point,)  # so that an unpickled key is checked, too

    @classmethod
    def from_bytes(cls, data: bytes) -> PublicKey:
        """Read a point: 65 bytes, or 33 in compressed form.

        Raises:
            InvalidSpec: it is not on the curve, at infinity, or a coordinate is not less than the prime.
        """
        return cls(_decompress(data) if len(data) == 1 + _WIDTH else bytes(data))

    def to_bytes(self) -> bytes:
        """Return the 65 bytes ``04 || x || y``."""
        return self.point

    @classmethod
    def from_pem(cls, pem: bytes) -> PublicKey:
        """Read one SubjectPublicKeyInfo in PEM.

        Raises:
            InvalidSpec: it is anything but an SM2 key over the named curve.
        """
        block = _PUBLIC_PEM.fullmatch(pem) if len(pem) <= _PEM_LIMIT else None
        if block is None:
            raise InvalidSpec("this is not one public key in PEM")
        try:
            info = base64.b64decode(b"".join(block[1].split()), validate=True)
        except binascii.Error:
            raise InvalidSpec("a public key's PEM is not base64") from None
        for prefix in (_SPKI, _SPKI_COMPRESSED):
            if info.startswith(prefix):
                return cls.from_bytes(info[len(prefix) :])
        raise InvalidSpec("this public key is not an SM2 key over the named curve")

    def to_pem(self) -> bytes:
        """Return the key as SubjectPublicKeyInfo in PEM."""
        text = base64.b64encode(_SPKI + self.point)
        lines = (text[start : start + 64] for start in range(0, len(text), 64))
        return b"\n".join((b"-----BEGIN PUBLIC KEY-----", *lines, b"-----END PUBLIC KEY-----", b""))

    @property
    def key_id(self) -> str:
        """The key's name: 32 hexadecimal digits, from its digest."""
        return tagged("key", self.point)[:16].hex()

    def verify(self, message: bytes, signature: bytes) -> None:
        """Check a signature.

        Raises:
            IntegrityFailed: it is not this key's over ``message``, or is not in DER.
        """
        der.decode_signature(signature)
        libcrypto.verify(_native(self.point), SIGNER_ID, message, signature)

    def encrypt(self, plaintext: bytes) -> bytes:
        """Encrypt a short secret, such as a symmetric key, to the owner of this key.

        Raises:
            InvalidSpec: ``plaintext`` is empty.
        """
        if not plaintext:
            raise InvalidSpec("SM2 cannot encrypt nothing")
        while True:
            ciphertext = libcrypto.encrypt(_native(self.point), plaintext)
            # GB/T 32918.4, 6.1 A5: an all-zero mask must be drawn again. OpenSSL does so since 2024; before, one
            # ciphertext in 256 showed a one-byte plaintext.
            if not ciphertext.endswith(plaintext):
                return ciphertext


class PrivateKey:
    """An SM2 private key. Make one with ``generate`` or ``from_pem``; share it between threads, not processes."""

    __slots__ = ("_handle", "_public")

    def __init__(self, handle: libcrypto.Key) -> None:
        self._handle = handle
        self._public = PublicKey.from_bytes(libcrypto.public_point(handle))

    @classmethod
    def generate(cls) -> PrivateKey:
        """Return a new key."""
        return cls(libcrypto.generate())

    @classmethod
    def from_pem(cls, data: bytes, passphrase: bytes | None = None) -> PrivateKey:
        """Read a key file, encrypted or not.

        Raises:
            InvalidSpec: it is not an SM2 key, is damaged, or needs another passphrase.
        """
        if len(data) > _PEM_LIMIT:
            raise InvalidSpec("this file is too long for a private key")
        if passphrase is not None:
            _check_passphrase(passphrase)
        return cls(libcrypto.read_private(data, passphrase or b""))

    def to_pem(self, passphrase: bytes | None = None) -> bytes:
        """Return the key as PKCS#8 in PEM, encrypted if there is a passphrase (1 to 1024 bytes, no zero byte)."""
        if passphrase is not None:
            _check_passphrase(passphrase)
        return libcrypto.write_private(self._handle, passphrase)

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return self._public

    def sign(self, message: bytes) -> bytes:
        """Return a DER signature of ``message``."""
        return libcrypto.sign(self._handle, SIGNER_ID, message)

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Return what was encrypted to this key.

        Raises:
            IntegrityFailed: it was not encrypted to this key, was changed, or is not in DER.
        """
        x, y, *_ = der.decode_ciphertext(ciphertext)
        if x >= _P or y >= _P:  # OpenSSL would reduce them: a second encoding of the same ciphertext
            raise IntegrityFailed("a coordinate of an SM2 ciphertext is not less than the prime of the curve")
        return libcrypto.decrypt(self._handle, ciphertext)

    def agree(self, peer: PublicKey) -> bytes:
        """Return the x coordinate of this scalar times the peer's point, 32 bytes known to both sides only."""
        return libcrypto.multiply(self._handle, peer.point)

    def __repr__(self) -> str:
        return f"PrivateKey(key_id={self._public.key_id!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key cannot be copied or pickled; use to_pem")


@functools.lru_cache(_CACHED_KEYS)
def _native(point: bytes) -> libcrypto.Key:
    return libcrypto.read_public(_SPKI + point)


def _check_point(point: bytes) -> None:
    if len(point) != 1 + 2 * _WIDTH or point[0] != 4:
        raise InvalidSpec("a point is 65 bytes, 04 and two coordinates, or 33 bytes in compressed form")
    x, y = int.from_bytes(point[1 : 1 + _WIDTH], "big"), int.from_bytes(point[1 + _WIDTH :], "big")
    if x >= _P or y >= _P:
        raise InvalidSpec("a coordinate is not less than the prime of the curve")
    if (y * y - _right_side(x)) % _P:
        raise InvalidSpec("a point is not on the SM2 curve")


def _decompress(data: bytes) -> bytes:
    x = int.from_bytes(data[1:], "big")
    if data[0] not in (2, 3) or x >= _P:
        raise InvalidSpec("this is not a compressed point")
    y = pow(_right_side(x), (_P + 1) // 4, _P)  # the root if there is one, since p = 3 (mod 4)
    if y % 2 != data[0] % 2:
        y = -y % _P
    return b"\x04" + data[1:] + y.to_bytes(_WIDTH, "big")  # the constructor checks that it was a root


def _right_side(x: int) -> int:
    return (x * x * x + _A * x + _B) % _P


def _check_passphrase(passphrase: bytes) -> None:
    if not passphrase or len(passphrase) > libcrypto.PASSPHRASE_LIMIT or b"\0" in passphrase:
        raise InvalidSpec(f"a passphrase is 1 to {libcrypto.PASSPHRASE_LIMIT} bytes and has no zero byte")
