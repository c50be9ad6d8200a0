from __future__ import annotations

import copy
import pickle
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from gmssl.sm4 import SM4_ENCRYPT, CryptSM4
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.crypto.sm4 import RecordOpener, RecordSealer, seal, unseal
from sandbox.errors import IntegrityFailed, InvalidSpec, WrongState

KEY = bytes(range(16))
NONCE = bytes(range(12))
SENDER = b"a->b"


def gcm_by_hand(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """NIST SP 800-38D in plain integers over gmssl's block cipher: shares no code with OpenSSL."""
    cipher = CryptSM4()
    cipher.set_key(key, SM4_ENCRYPT)

    def block(data: bytes) -> int:
        return int.from_bytes(bytes(cipher.one_round(cipher.sk, list(data))), "big")

    def multiply(x: int, y: int) -> int:
        product = 0
        for bit in range(127, -1, -1):
            if x >> bit & 1:
                product ^= y
            y = y >> 1 ^ (0xE1 << 120 if y & 1 else 0)
        return product

    def pad(data: bytes) -> bytes:
        return data + bytes(-len(data) % 16)

    stream = b"".join(
        block(nonce + (2 + index).to_bytes(4, "big")).to_bytes(16, "big") for index in range(len(plaintext) // 16 + 1)
    )
    ciphertext = bytes(a ^ b for a, b in zip(plaintext, stream, strict=False))
    lengths = (8 * len(aad)).to_bytes(8, "big") + (8 * len(ciphertext)).to_bytes(8, "big")
    data, hashed, subkey = pad(aad) + pad(ciphertext) + lengths, 0, block(bytes(16))
    for start in range(0, len(data), 16):
        hashed = multiply(hashed ^ int.from_bytes(data[start : start + 16], "big"), subkey)
    tag = hashed ^ block(nonce + b"\0\0\0\1")
    return ciphertext + tag.to_bytes(16, "big")


def test_the_vector_of_rfc_8998(vectors: dict[str, Any]) -> None:
    (case,) = vectors["sm4_gcm"]
    key, nonce, aad, plaintext = (bytes.fromhex(case[name]) for name in ("key", "iv", "aad", "plaintext"))
    sealed = seal(key, nonce, plaintext, aad)
    assert sealed.hex() == case["ciphertext"] + case["tag"]
    assert gcm_by_hand(key, nonce, plaintext, aad) == sealed
    assert unseal(key, nonce, sealed, aad) == plaintext


def test_the_block_cipher_under_the_second_opinion(vectors: dict[str, Any]) -> None:
    case = vectors["sm4_ecb_block"][0]
    cipher = CryptSM4()
    cipher.set_key(bytes.fromhex(case["key"]), SM4_ENCRYPT)
    assert bytes(cipher.one_round(cipher.sk, list(bytes.fromhex(case["plaintext"])))).hex() == case["ciphertext"]


@settings(max_examples=15, deadline=None)
@given(st.binary(min_size=16, max_size=16), st.binary(max_size=70), st.binary(max_size=40))
def test_sealing_against_gcm_by_hand(key: bytes, plaintext: bytes, aad: bytes) -> None:
    sealed = seal(key, NONCE, plaintext, aad)
    assert sealed == gcm_by_hand(key, NONCE, plaintext, aad)
    assert unseal(key, NONCE, sealed, aad) == plaintext


def test_every_change_is_noticed() -> None:
    sealed = seal(KEY, NONCE, b"twenty bytes of text", b"aad")
    for index in range(len(sealed)):
        for bit in (1, 0x80):
            changed = bytearray(sealed)
            changed[index] ^= bit
            with pytest.raises(IntegrityFailed):
                unseal(KEY, NONCE, bytes(changed), b"aad")
        with pytest.raises(IntegrityFailed):
            unseal(KEY, NONCE, sealed[:index], b"aad")
    for key, nonce, data, aad in (
        (KEY[::-1], NONCE, sealed, b"aad"),
        (KEY, NONCE[::-1], sealed, b"aad"),
        (KEY, NONCE, sealed, b"aae"),
        (KEY, NONCE, sealed, b""),
        (KEY, NONCE, sealed + b"\0", b"aad"),
    ):
        with pytest.raises(IntegrityFailed):
            unseal(key, nonce, data, aad)


@pytest.mark.parametrize(("key", "nonce"), [(KEY[:15], NONCE), (KEY + b"x", NONCE), (KEY, NONCE[:8]), (KEY, b"")])
def test_sizes_are_checked(key: bytes, nonce: bytes) -> None:
    with pytest.raises(InvalidSpec):
        seal(key, nonce, b"", b"")
    with pytest.raises(InvalidSpec):
        unseal(key, nonce, bytes(16), b"")


def test_record_nonces_are_the_sender_and_a_count_from_zero() -> None:
    sealer = RecordSealer(KEY, SENDER)
    for count in range(3):
        assert sealer.seal(b"x", b"a") == seal(KEY, SENDER + count.to_bytes(8, "big"), b"x", b"a")


def test_records_open_once_and_in_order() -> None:
    sealer, opener = RecordSealer(KEY, SENDER), RecordOpener(KEY, SENDER)
    first, second, third = (sealer.seal(text, b"") for text in (b"1", b"2", b"3"))
    with pytest.raises(IntegrityFailed):
        opener.open(second, b"")  # reordered, or the first was lost
    assert opener.open(first, b"") == b"1"  # a failure did not advance it
    with pytest.raises(IntegrityFailed):
        opener.open(first, b"")  # repeated
    with pytest.raises(IntegrityFailed):
        opener.open(third, b"")  # the second was lost
    assert [opener.open(second, b""), opener.open(third, b"")] == [b"2", b"3"]


def test_a_record_of_another_sender_or_key_or_aad_fails() -> None:
    record = RecordSealer(KEY, SENDER).seal(b"x", b"a")
    for key, sender, aad in ((KEY, b"b->a", b"a"), (KEY[::-1], SENDER, b"a"), (KEY, SENDER, b"b")):
        with pytest.raises(IntegrityFailed):
            RecordOpener(key, sender).open(record, aad)


def test_the_counter_does_not_wrap() -> None:
    sealer, opener = RecordSealer(KEY, SENDER), RecordOpener(KEY, SENDER)
    sealer._count = opener._count = 2**64 - 1
    last = sealer.seal(b"last", b"")
    assert last == seal(KEY, SENDER + b"\xff" * 8, b"last", b"")
    assert opener.open(last, b"") == b"last"
    with pytest.raises(WrongState):
        sealer.seal(b"one more", b"")
    with pytest.raises(WrongState):
        opener.open(last, b"")


class SlowSealer(RecordSealer):
    """Gives way between reading the counter and raising it, so that a missing lock shows."""

    def _nonce(self) -> bytes:
        nonce = super()._nonce()
        time.sleep(0.001)
        return nonce


def test_threads_never_share_a_nonce() -> None:
    sealer = SlowSealer(KEY, SENDER)
    with ThreadPoolExecutor(8) as pool:
        records = set(pool.map(lambda _: sealer.seal(b"same", b""), range(100)))
    assert records == {seal(KEY, SENDER + count.to_bytes(8, "big"), b"same", b"") for count in range(100)}


@pytest.mark.parametrize("kind", [RecordSealer, RecordOpener])
def test_a_counter_is_neither_copied_nor_printed(kind: type[RecordSealer] | type[RecordOpener]) -> None:
    key = secrets.token_bytes(16)
    record = kind(key, SENDER)
    for copier in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be copied"):
            copier(record)
    assert key.hex() not in repr(record) and repr(key) not in repr(record)


@pytest.mark.parametrize(("key", "sender"), [(KEY[:8], SENDER), (KEY, b"abc"), (KEY, b"abcde")])
def test_a_counter_checks_its_sizes(key: bytes, sender: bytes) -> None:
    with pytest.raises(InvalidSpec):
        RecordSealer(key, sender)
