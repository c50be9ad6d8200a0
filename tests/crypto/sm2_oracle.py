"""Second opinions on the SM2 curve: OpenSSL through ctypes, and RFC 9380 in plain Python.

    python tests/crypto/sm2_oracle.py > tests/vectors/sm2_hash_to_curve.json

Nothing of ``sandbox`` is used here. The map follows the definition in RFC 9380, 6.6.2, step by step, and points are
added by the text-book rule, so that it shares neither formulas nor constants with what it checks.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import sys

P = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFF
N = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123
A = P - 3
B = 0x28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93
Z = P - 9

Point = tuple[int, int] | None  # None is infinity


def expand(message: bytes, tag: bytes, length: int = 96) -> bytes:
    """expand_message_xmd, RFC 9380, 5.3.1."""

    def hashed(data: bytes) -> bytes:
        return hashlib.new("sm3", data).digest()

    dst_prime = tag + len(tag).to_bytes(1, "big")
    blocks = [hashed(bytes(64) + message + length.to_bytes(2, "big") + b"\x00" + dst_prime)]
    blocks.append(hashed(blocks[0] + b"\x01" + dst_prime))
    for number in range(2, -(-length // 32) + 1):
        mixed = (int.from_bytes(blocks[0], "big") ^ int.from_bytes(blocks[-1], "big")).to_bytes(32, "big")
        blocks.append(hashed(mixed + bytes([number]) + dst_prime))
    return b"".join(blocks[1:])[:length]


def hash_to_field(message: bytes, tag: bytes) -> tuple[int, int]:
    uniform = expand(message, tag)
    return int.from_bytes(uniform[:48], "big") % P, int.from_bytes(uniform[48:], "big") % P


def is_square(value: int) -> bool:
    return pow(value, (P - 1) // 2, P) in (0, 1)


def inv0(value: int) -> int:
    return pow(value, P - 2, P)


def map_to_curve(u: int) -> tuple[int, int]:
    """The simplified SWU map as RFC 9380, 6.6.2 defines it."""
    tv1 = inv0((Z * Z * pow(u, 4, P) + Z * u * u) % P)
    x1 = (-B * inv0(A)) % P * (1 + tv1) % P
    if tv1 == 0:
        x1 = B * inv0(Z * A % P) % P
    gx1 = (pow(x1, 3, P) + A * x1 + B) % P
    x2 = Z * u * u * x1 % P
    gx2 = (pow(x2, 3, P) + A * x2 + B) % P
    x, square = (x1, gx1) if is_square(gx1) else (x2, gx2)
    y = pow(square, (P + 1) // 4, P)
    assert y * y % P == square
    return (x, y) if u % 2 == y % 2 else (x, -y % P)


def add(p: Point, q: Point) -> Point:
    if p is None or q is None:
        return p or q
    if p[0] == q[0] and (p[1] + q[1]) % P == 0:
        return None
    slope = (3 * p[0] * p[0] + A) * inv0(2 * p[1]) if p == q else (q[1] - p[1]) * inv0(q[0] - p[0])
    x = (slope * slope - p[0] - q[0]) % P
    return x, (slope * (p[0] - x) - p[1]) % P


def compressed(point: Point) -> bytes:
    assert point is not None
    return bytes([2 + point[1] % 2]) + point[0].to_bytes(32, "big")


def hash_to_curve(message: bytes, tag: bytes) -> Point:
    return add(*(map_to_curve(u) for u in hash_to_field(message, tag)))


class OpenSsl:
    """``EC_POINT_mul`` on SM2."""

    def __init__(self) -> None:
        self._lib = ctypes.CDLL("libcrypto.so.3")
        for name in ("EC_GROUP_new_by_curve_name", "EC_POINT_new", "BN_bin2bn", "BN_CTX_new"):
            getattr(self._lib, name).restype = ctypes.c_void_p
        self._group = ctypes.c_void_p(self._lib.EC_GROUP_new_by_curve_name(1172))
        self._point, self._product = (ctypes.c_void_p(self._lib.EC_POINT_new(self._group)) for _ in range(2))
        self._scratch = ctypes.c_void_p(self._lib.BN_CTX_new())
        self._out = ctypes.create_string_buffer(33)

    def multiply(self, scalar: bytes, point: bytes | None = None) -> bytes:
        """Return scalar times the compressed point, or times the base point."""
        number = ctypes.c_void_p(self._lib.BN_bin2bn(scalar, len(scalar), None))
        size = ctypes.c_size_t(33)
        if point is None:
            done = self._lib.EC_POINT_mul(self._group, self._product, number, None, None, self._scratch)
        else:
            if self._lib.EC_POINT_oct2point(self._group, self._point, point, size, self._scratch) != 1:
                self._lib.ERR_clear_error()
                raise ValueError("not a point")
            done = self._lib.EC_POINT_mul(self._group, self._product, None, self._point, number, self._scratch)
        assert done == 1
        assert self._lib.EC_POINT_point2oct(self._group, self._product, 2, self._out, size, self._scratch) == 33
        self._lib.BN_free(number)
        return self._out.raw


def vectors() -> dict[str, object]:
    suite = "curveSM2_XMD:SM3_SSWU_RO_"
    tags = ["QUUX-V01-CS02-with-" + suite, "sandbox/v1/psi-sm2/" + suite, "t", "long-" * 51]
    messages = ["", "abc", "abcdef0123456789", "q128_" + 128 * "q", "a512_" + 512 * "a", "张三 110101199001011237"]
    cases = []
    for tag in tags:
        for message in messages:
            u0, u1 = hash_to_field(message.encode(), tag.encode())
            q0, q1 = map_to_curve(u0), map_to_curve(u1)
            point = add(q0, q1)
            cases.append(
                {
                    "tag": tag,
                    "message": message,
                    "uniform": expand(message.encode(), tag.encode()).hex(),
                    "u": [f"{u0:064x}", f"{u1:064x}"],
                    "q": [compressed(q0).hex(), compressed(q1).hex()],
                    "point": compressed(point).hex(),
                }
            )
    return {
        "source": "computed by tests/crypto/sm2_oracle.py from the definitions of RFC 9380, 5.2, 5.3.1 and 6.6.2; "
        "the RFC has no suite for this curve, so these are this project's own",
        "suite": {
            "name": suite,
            "curve": "GB/T 32918.5-2016",
            "hash": "SM3 (digest 32 bytes, block 64 bytes), expand_message_xmd",
            "k": 128,
            "L": 48,
            "map": "simplified SWU, both maps added, cofactor 1",
            "Z": -9,
        },
        "shapes": "tag and message are UTF-8; uniform is 96 bytes; points are SEC 1, compressed; all in hexadecimal",
        "cases": cases,
    }


if __name__ == "__main__":
    json.dump(vectors(), sys.stdout, indent=2, ensure_ascii=False)
    print()
