"""Known answers and keys for the tests of the primitives."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gmssl import sm2 as gmssl_sm2

from sandbox.crypto.sm2 import PrivateKey

VECTORS = Path(__file__).parents[1] / "vectors" / "gbt_sm.json"


@pytest.fixture(scope="session")
def vectors() -> dict[str, Any]:
    return dict(json.loads(VECTORS.read_text()))


@pytest.fixture(scope="session")
def key() -> PrivateKey:
    return PrivateKey.generate()


@pytest.fixture(scope="session")
def stranger() -> PrivateKey:
    return PrivateKey.generate()


def pkcs8(scalar: bytes, point: bytes) -> bytes:
    """Write a key file by hand (RFC 5915 in RFC 5208), for scalars that a standard fixes."""
    inner = bytes.fromhex("306b0201010420") + scalar + bytes.fromhex("a144034200") + point
    algorithm = bytes.fromhex("301306072a8648ce3d020106082a811ccf5501822d")
    outer = bytes.fromhex("308187020100") + algorithm + bytes.fromhex("046d") + inner
    return b"-----BEGIN PRIVATE KEY-----\n" + base64.encodebytes(outer) + b"-----END PRIVATE KEY-----\n"


@pytest.fixture(scope="session")
def write_key() -> Callable[[bytes, bytes], bytes]:
    return pkcs8


@pytest.fixture
def oracle(vectors: dict[str, Any]) -> Any:
    """The pure-Python gmssl holding the annex's private key: raw r || s, raw C1 C3 C2."""
    case = vectors["sm2_sign"][0]
    return gmssl_sm2.CryptSM2(private_key=case["private_key"], public_key=case["public_key"][2:], mode=1)


@pytest.fixture(scope="session")
def annex_key(vectors: dict[str, Any]) -> PrivateKey:
    """The private key of GB/T 32918.5 annex A."""
    case = vectors["sm2_sign"][0]
    return PrivateKey.from_pem(pkcs8(bytes.fromhex(case["private_key"]), bytes.fromhex(case["public_key"])))
