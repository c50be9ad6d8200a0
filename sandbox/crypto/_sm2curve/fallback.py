"""The SM2 group through the system's OpenSSL: for machines where the extension was not built.

Source:    ``EC_POINT_mul`` and its like from ``libcrypto.so.3``, called through cffi without a compiler; RFC 9380 as in
           ``sm2curve``.
Security:  the multiplication is OpenSSL's Montgomery ladder for one point, with the scalar marked secret. The map works
           on Python's integers: its time depends on the message.
Shapes:    as in ``_native``: results, and a byte an element that is 1 where there is no point.
Errors:    ``Unavailable`` if OpenSSL 3 is missing; ``ValueError`` for tags and offsets out of range.
"""

from __future__ import annotations

import ctypes.util
import functools
import itertools
import struct
from typing import Any, Final

from cffi import FFI

from sandbox.crypto.sm3 import sm3
from sandbox.errors import JobFailed, Unavailable

_P: Final = 2**256 - 2**224 - 2**96 + 2**64 - 1
_A: Final = _P - 3
_B: Final = 0x28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93
_Z: Final = -9
_POINT: Final = 33  # bytes
_UNIFORM: Final = 96  # bytes: two field elements
_ELEMENT: Final = 48  # bytes of a field element before it is reduced
_MAX_TAG: Final = 255
_MAX_MESSAGE: Final = 65535
_NID_SM2: Final = 1172
_COMPRESSED: Final = 2
_BN_FLG_CONSTTIME: Final = 4
_OLDEST: Final = 0x30000000  # OpenSSL 3.0.0
_NAMES: Final = ("libcrypto.so.3", "libcrypto.3.dylib", "libcrypto-3-x64.dll")

_ffi: Final = FFI()
_ffi.cdef("""
typedef struct bignum_st BIGNUM;
typedef struct bignum_ctx BN_CTX;
typedef struct ec_group_st EC_GROUP;
typedef struct ec_point_st EC_POINT;
unsigned long OpenSSL_version_num(void);
void ERR_clear_error(void);
EC_GROUP *EC_GROUP_new_by_curve_name(int);
EC_POINT *EC_POINT_new(const EC_GROUP *);
void EC_POINT_clear_free(EC_POINT *);
int EC_POINT_oct2point(const EC_GROUP *, EC_POINT *, const unsigned char *, size_t, BN_CTX *);
size_t EC_POINT_point2oct(const EC_GROUP *, const EC_POINT *, int, unsigned char *, size_t, BN_CTX *);
int EC_POINT_mul(const EC_GROUP *, EC_POINT *, const BIGNUM *, const EC_POINT *, const BIGNUM *, BN_CTX *);
int EC_POINT_add(const EC_GROUP *, EC_POINT *, const EC_POINT *, const EC_POINT *, BN_CTX *);
BIGNUM *BN_bin2bn(const unsigned char *, int, BIGNUM *);
void BN_set_flags(BIGNUM *, int);
void BN_clear_free(BIGNUM *);
BN_CTX *BN_CTX_secure_new(void);
void BN_CTX_free(BN_CTX *);
""")


def multiply(scalar: bytes | bytearray, points: bytes | memoryview) -> tuple[bytes, bytes]:
    """Return scalar times each point."""
    lib, group = _library()
    scratch = _own(lib.BN_CTX_secure_new(), lib.BN_CTX_free)
    secret = _own(lib.BN_bin2bn(_ffi.from_buffer(scalar), len(scalar), _ffi.NULL), lib.BN_clear_free)
    lib.BN_set_flags(secret, _BN_FLG_CONSTTIME)
    point = _own(lib.EC_POINT_new(group), lib.EC_POINT_clear_free)
    product = _own(lib.EC_POINT_new(group), lib.EC_POINT_clear_free)
    count = len(points) // _POINT
    out, marks = bytearray(_POINT * count), bytearray(count)
    source, target = _ffi.from_buffer("unsigned char[]", points), _ffi.from_buffer("unsigned char[]", out)
    for place in range(count):
        if lib.EC_POINT_oct2point(group, point, source + _POINT * place, _POINT, scratch) != 1:
            lib.ERR_clear_error()
            marks[place] = 1
            continue
        _must(lib.EC_POINT_mul(group, product, _ffi.NULL, point, secret, scratch) == 1)
        size = lib.EC_POINT_point2oct(group, product, _COMPRESSED, target + _POINT * place, _POINT, scratch)
        _must(size == _POINT)
    return bytes(out), bytes(marks)


def map_to_curve(uniform: bytes) -> tuple[bytes, bytes]:
    """Return the sum of the maps of two field elements an item, 48 bytes each."""
    lib, group = _library()
    scratch = _own(lib.BN_CTX_secure_new(), lib.BN_CTX_free)
    first, second = (_own(lib.EC_POINT_new(group), lib.EC_POINT_clear_free) for _ in range(2))
    count = len(uniform) // _UNIFORM
    out, marks = bytearray(_POINT * count), bytearray(count)
    target = _ffi.from_buffer("unsigned char[]", out)
    for place in range(count):
        for half, point in enumerate((first, second)):
            start = _UNIFORM * place + _ELEMENT * half
            u = int.from_bytes(uniform[start : start + _ELEMENT], "big") % _P
            _must(lib.EC_POINT_oct2point(group, point, _swu(u), _POINT, scratch) == 1)
        _must(lib.EC_POINT_add(group, first, first, second, scratch) == 1)
        size = lib.EC_POINT_point2oct(group, first, _COMPRESSED, target + _POINT * place, _POINT, scratch)
        if size != _POINT:  # infinity is one byte, and does not fit the fixed form
            out[_POINT * place : _POINT * (place + 1)] = bytes(_POINT)
            marks[place] = 1
    return bytes(out), bytes(marks)


def expand(data: bytes | memoryview, offsets: bytes | memoryview, tag: bytes) -> tuple[bytes, bytes]:
    """Return expand_message_xmd of each message, 96 bytes.

    Raises:
        ValueError: the tag, a message or an offset is out of range.
    """
    if not 1 <= len(tag) <= _MAX_TAG or len(offsets) % 8 or not len(offsets):
        raise ValueError("the offsets or the tag are out of range")
    places = struct.unpack(f"={len(offsets) // 8}q", offsets)
    steps = [end - start for start, end in itertools.pairwise(places)]
    if places[0] < 0 or places[-1] > len(data) or any(not 0 <= step <= _MAX_MESSAGE for step in steps):
        raise ValueError("the offsets or a message are out of range")
    suffix = tag + bytes([len(tag)])
    return b"".join(
        _expanded(bytes(data[start : start + step]), suffix) for start, step in zip(places, steps, strict=False)
    ), b""


def hash_to_curve(data: bytes | memoryview, offsets: bytes | memoryview, tag: bytes) -> tuple[bytes, bytes]:
    """Return the point of each message.

    Raises:
        ValueError: the tag, a message or an offset is out of range.
    """
    return map_to_curve(expand(data, offsets, tag)[0])


def _expanded(message: bytes, suffix: bytes) -> bytes:
    seed = sm3(bytes(64) + message + _UNIFORM.to_bytes(2, "big") + b"\0" + suffix)
    block, blocks = bytes(32), b""
    for number in (1, 2, 3):
        mixed = bytes(x ^ y for x, y in zip(seed, block, strict=True))
        block = sm3(mixed + bytes([number]) + suffix)
        blocks += block
    return blocks


def _swu(u: int) -> bytes:
    """Return the compressed point of one field element (RFC 9380, 6.6.2)."""
    step = _Z * u * u % _P
    below = (step * step + step) % _P
    x = -_B * pow(_A, -1, _P) * (1 + pow(below, -1, _P)) % _P if below else _B * pow(_Z * _A, -1, _P) % _P
    y = _root(x)
    if y is None:
        x = step * x % _P
        y = _root(x)
    if y is None:
        raise JobFailed("neither candidate of the map lies on the curve")
    return bytes([2 | u & 1]) + x.to_bytes(32, "big")  # y takes the parity of u


def _root(x: int) -> int | None:
    right = (x * x * x + _A * x + _B) % _P
    y = pow(right, (_P + 1) // 4, _P)
    return y if y * y % _P == right else None


@functools.cache
def _library() -> tuple[Any, Any]:
    """Load libcrypto and the group, once; both live as long as the process.

    Raises:
        Unavailable: OpenSSL 3 with SM2 is not there.
    """
    for name in (*_NAMES, ctypes.util.find_library("crypto")):
        if name is None:
            continue
        try:
            lib = _ffi.dlopen(name)
            if lib.OpenSSL_version_num() < _OLDEST:
                continue
        except (OSError, AttributeError):
            continue
        group = lib.EC_GROUP_new_by_curve_name(_NID_SM2)
        if group != _ffi.NULL:
            return lib, group
        lib.ERR_clear_error()
    raise Unavailable("the SM2 curve needs the C extension, or OpenSSL 3 with SM2 (Debian package libssl3)")


def _own(pointer: Any, free: Any) -> Any:
    _must(pointer != _ffi.NULL)
    return _ffi.gc(pointer, free)


def _must(condition: bool) -> None:
    if not condition:
        _library()[0].ERR_clear_error()
        raise JobFailed("libcrypto failed at an operation that cannot fail on valid input")
