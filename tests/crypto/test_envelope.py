from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.crypto.envelope import RECORD_SIZE, open_with, seal_to, sign_payload, verify_payload
from sandbox.crypto.sm2 import PrivateKey
from sandbox.errors import IntegrityFailed, InvalidSpec

TAG = 16
STRIDE = RECORD_SIZE + TAG


def header_size(sealed: bytes) -> int:
    return 3 + int.from_bytes(sealed[1:3], "big")


def records(sealed: bytes) -> tuple[bytes, list[bytes]]:
    start = header_size(sealed)
    return sealed[:start], [sealed[place : place + STRIDE] for place in range(start, len(sealed), STRIDE)]


def test_a_signature_holds_for_its_kind_payload_and_key(key: PrivateKey, stranger: PrivateKey) -> None:
    signature = sign_payload(key, "plan", b"bytes")
    verify_payload(key.public, "plan", b"bytes", signature)
    key.public.verify(b"sandbox/v1/plan\0bytes", signature)
    for public, kind, payload in (
        (key.public, "scenario", b"bytes"),
        (key.public, "plan", b"bytes2"),
        (key.public, "plan", b""),
        (stranger.public, "plan", b"bytes"),
    ):
        with pytest.raises(IntegrityFailed):
            verify_payload(public, kind, payload, signature)
    with pytest.raises(InvalidSpec):
        sign_payload(key, "plan\0", b"bytes")
    with pytest.raises(InvalidSpec):
        verify_payload(key.public, "", b"bytes", signature)


@pytest.mark.parametrize("size", [0, 1, RECORD_SIZE - 1, RECORD_SIZE, RECORD_SIZE + 1, 2 * RECORD_SIZE + 5])
def test_any_size_comes_back(key: PrivateKey, size: int) -> None:
    plaintext = (b"0123456789abcde" * (size // 15 + 1))[:size]
    sealed = seal_to(key.public, plaintext, b"job")
    assert open_with(key, sealed, b"job") == plaintext
    count = max(1, -(-size // RECORD_SIZE))
    assert len(sealed) == header_size(sealed) + size + TAG * count


def test_two_envelopes_of_the_same_differ_everywhere(key: PrivateKey) -> None:
    one, two = (seal_to(key.public, b"same plaintext, same aad", b"") for _ in range(2))
    assert one[10:40] != two[10:40]
    assert one[-40:] != two[-40:]


def test_only_the_recipient_with_the_same_aad_opens(key: PrivateKey, stranger: PrivateKey) -> None:
    sealed = seal_to(key.public, b"result", b"job 1")
    for reader, aad in ((stranger, b"job 1"), (key, b"job 2"), (key, b""), (key, b"job 1 ")):
        with pytest.raises(IntegrityFailed):
            open_with(reader, sealed, aad)


def test_every_changed_or_missing_byte_is_noticed(key: PrivateKey) -> None:
    sealed = seal_to(key.public, b"a short result", b"aad")
    for index in range(len(sealed)):
        for changed in (
            sealed[:index] + bytes((sealed[index] ^ 1 << index % 8,)) + sealed[index + 1 :],
            sealed[:index],
        ):
            with pytest.raises(IntegrityFailed):
                open_with(key, changed, b"aad")
    with pytest.raises(IntegrityFailed):
        open_with(key, sealed + b"\0", b"aad")


def test_records_cannot_be_dropped_repeated_reordered_or_mixed(
    key: PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    header, (first, second, third) = records(seal_to(key.public, bytes(2 * RECORD_SIZE + 5), b""))
    assert open_with(key, b"".join((header, first, second, third)), b"") == bytes(2 * RECORD_SIZE + 5)
    _, (foreign, *_) = records(seal_to(key.public, bytes(2 * RECORD_SIZE + 5), b""))
    for order in (
        (first, second),  # the end is cut off at a record boundary
        (first,),
        (),
        (second, third),
        (first, third),
        (second, first, third),
        (first, first, second, third),
        (first, second, third, third),
        (foreign, second, third),
    ):
        with pytest.raises(IntegrityFailed):
            open_with(key, header + b"".join(order), b"")


def test_a_header_cannot_lend_bytes_to_the_aad(key: PrivateKey) -> None:
    """The header's own size is authenticated: moving its end fails."""
    sealed = seal_to(key.public, b"text", b"aad")
    size = int.from_bytes(sealed[1:3], "big")
    for moved in (size - 1, size + 1, 0, 0xFFFF):
        with pytest.raises(IntegrityFailed):
            open_with(key, sealed[:1] + moved.to_bytes(2, "big") + sealed[3:], b"aad")


def test_the_wrapped_key_cannot_be_wrapped_again(key: PrivateKey) -> None:
    """Even who knows the inner key cannot give the same records another header."""
    sealed = seal_to(key.public, b"text", b"aad")
    start = header_size(sealed)
    wrapped = key.public.encrypt(key.decrypt(sealed[3:start]))
    with pytest.raises(IntegrityFailed):
        open_with(key, b"\x01" + len(wrapped).to_bytes(2, "big") + wrapped + sealed[start:], b"aad")


def test_a_wrapped_key_of_another_size_is_refused(key: PrivateKey) -> None:
    wrapped = key.public.encrypt(bytes(17))
    forged = b"\x01" + len(wrapped).to_bytes(2, "big") + wrapped + bytes(TAG)
    with pytest.raises(IntegrityFailed):
        open_with(key, forged, b"")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_noise_is_refused_as_such(key: PrivateKey, noise: bytes) -> None:
    for data in (noise, b"\x01" + noise, b"\x01\x00\x20" + noise):
        with pytest.raises(IntegrityFailed):
            open_with(key, data, b"")


def test_each_envelope_uses_a_fresh_key(key: PrivateKey) -> None:
    secrets = set()
    for _ in range(20):
        sealed = seal_to(key.public, b"", b"")
        secrets.add(key.decrypt(sealed[3 : header_size(sealed)]))
    assert len(secrets) == 20
    assert all(len(secret) == 16 for secret in secrets)
