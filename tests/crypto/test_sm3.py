from __future__ import annotations

import hashlib
import hmac
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.crypto.sm3 import Sm3, domain, hkdf, hmac_sm3, sm3, tagged
from sandbox.errors import InvalidSpec


def rfc2104(key: bytes, data: bytes) -> bytes:
    """Python's own HMAC over the system library's SM3: a second implementation of both."""
    return hmac.new(key, data, lambda: hashlib.new("sm3")).digest()


def rfc5869(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    pseudorandom = rfc2104(salt or bytes(32), secret)
    block, out, number = b"", b"", 0
    while len(out) < length:
        number += 1
        block = rfc2104(pseudorandom, block + info + bytes((number,)))
        out += block
    return out[:length]


def test_standard_digests(vectors: dict[str, Any]) -> None:
    assert vectors["sm3"]
    for case in vectors["sm3"]:
        assert sm3(bytes.fromhex(case["msg_hex"])).hex() == case["digest"], case["source"]


@given(st.lists(st.binary(max_size=200), max_size=6))
def test_a_digest_in_pieces_is_the_digest_of_the_whole(pieces: list[bytes]) -> None:
    state = Sm3()
    for number, piece in enumerate(pieces):
        state.update(piece)
        assert state.digest() == sm3(b"".join(pieces[: number + 1]))
    assert state.digest() == sm3(b"".join(pieces))


@given(st.binary(max_size=100))
def test_tagged_prefixes_the_kind(data: bytes) -> None:
    assert domain("plan") == b"sandbox/v1/plan\0"
    assert tagged("plan", data) == sm3(b"sandbox/v1/plan\0" + data)
    assert tagged("plan", data) != tagged("recipe", data)


def test_tagged_gives_the_same_answer_to_many_threads() -> None:
    inputs = [index.to_bytes(4, "big") * 50 for index in range(2000)]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda data: tagged("leaf", data), inputs))
    assert got == [sm3(b"sandbox/v1/leaf\0" + data) for data in inputs]


@pytest.mark.parametrize("kind", ["", "a\0b", "Plan", "a b", "é", "-x", "x" * 65, "plan\n"])
def test_a_kind_that_could_collide_is_refused(kind: str) -> None:
    with pytest.raises(InvalidSpec):
        tagged(kind, b"")


@given(st.binary(max_size=150), st.binary(max_size=300))
def test_hmac_against_another_implementation(key: bytes, data: bytes) -> None:
    assert hmac_sm3(key, data) == rfc2104(key, data)


@given(st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=40), st.integers(1, 200))
def test_hkdf_against_the_text_of_the_rfc(secret: bytes, salt: bytes, info: bytes, length: int) -> None:
    assert hkdf(secret, salt, info, length) == rfc5869(secret, salt, info, length)


def test_hkdf_at_its_limits() -> None:
    assert hkdf(b"s", b"", b"", 8160) == rfc5869(b"s", b"", b"", 8160)
    for length in (0, -1, 8161):
        with pytest.raises(InvalidSpec):
            hkdf(b"s", b"", b"", length)
