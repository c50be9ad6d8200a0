"""The few shapes of DER that SM2 uses, and no second way to write any of them.

Source:    ITU-T X.690 (DER), GM/T 0009-2012 (SM2 signature and ciphertext).
Shapes:    signature = SEQUENCE {INTEGER r, INTEGER s};
           ciphertext = SEQUENCE {INTEGER x, INTEGER y, OCTET STRING of 32 bytes, OCTET STRING}, that is C1 C3 C2.
Errors:    ``IntegrityFailed`` for bytes that are anything else, or the same in another encoding. OpenSSL reads
           ciphertexts with trailing bytes or padded integers; two byte strings would then be one message.
Not here:  keys and PEM.
"""

from __future__ import annotations

from typing import Final

from sandbox.errors import IntegrityFailed

_INTEGER: Final = 0x02
_OCTETS: Final = 0x04
_SEQUENCE: Final = 0x30


def encode_signature(r: int, s: int) -> bytes:
    """Return a signature from its two integers."""
    return _sequence(_integer(r), _integer(s))


def decode_signature(data: bytes) -> tuple[int, int]:
    """Return r and s.

    Raises:
        IntegrityFailed: the bytes are not the one encoding of a signature.
    """
    fields = _fields(data, (_INTEGER, _INTEGER))
    r, s = (int.from_bytes(field, "big") for field in fields)
    if encode_signature(r, s) != data:
        raise IntegrityFailed("a signature is not in DER")
    return r, s


def encode_ciphertext(x: int, y: int, c3: bytes, c2: bytes) -> bytes:
    """Return a ciphertext from its point, digest and masked text."""
    return _sequence(_integer(x), _integer(y), _element(_OCTETS, c3), _element(_OCTETS, c2))


def decode_ciphertext(data: bytes) -> tuple[int, int, bytes, bytes]:
    """Return x, y, c3 and c2.

    Raises:
        IntegrityFailed: the bytes are not the one encoding of a ciphertext.
    """
    first, second, c3, c2 = _fields(data, (_INTEGER, _INTEGER, _OCTETS, _OCTETS))
    x, y = int.from_bytes(first, "big"), int.from_bytes(second, "big")
    if encode_ciphertext(x, y, c3, c2) != data:
        raise IntegrityFailed("an SM2 ciphertext is not in DER")
    return x, y, c3, c2


def _element(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def _integer(value: int) -> bytes:
    return _element(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _sequence(*elements: bytes) -> bytes:
    return _element(_SEQUENCE, b"".join(elements))


def _fields(data: bytes, tags: tuple[int, ...]) -> list[bytes]:
    """Return the contents of a sequence's elements. Lenient: the caller compares with its own encoding."""
    content, _ = _take(_SEQUENCE, data)
    fields = []
    for tag in tags:
        field, content = _take(tag, content)
        fields.append(field)
    return fields


def _take(tag: int, data: bytes) -> tuple[bytes, bytes]:
    """Split one element's content from what follows it."""
    if len(data) < 2 or data[0] != tag:
        raise IntegrityFailed("a DER element is missing or of another type")
    start, size = 2, data[1]
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start], "big")
    if len(data) < start + size:
        raise IntegrityFailed("a DER element is cut short")
    return data[start : start + size], data[start + size :]
