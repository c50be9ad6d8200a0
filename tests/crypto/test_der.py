from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from sandbox.crypto.der import decode_ciphertext, decode_signature, encode_ciphertext, encode_signature
from sandbox.errors import IntegrityFailed

NUMBERS = st.integers(0, 2**256 - 1)


@given(NUMBERS, NUMBERS)
def test_signatures_against_another_encoder(r: int, s: int) -> None:
    data = encode_signature(r, s)
    assert data == encode_dss_signature(r, s)
    assert decode_signature(data) == (r, s) == decode_dss_signature(data)


@given(NUMBERS, NUMBERS, st.binary(min_size=32, max_size=32), st.binary(max_size=400))
def test_ciphertexts_come_back(x: int, y: int, c3: bytes, c2: bytes) -> None:
    assert decode_ciphertext(encode_ciphertext(x, y, c3, c2)) == (x, y, c3, c2)


@given(st.binary(max_size=80), st.data())
def test_what_decodes_has_no_second_encoding(tail: bytes, data: st.DataObject) -> None:
    signature = bytearray(encode_signature(2**200 + 5, 127) + data.draw(st.sampled_from([b"", tail])))
    for _ in range(data.draw(st.integers(0, 3))):
        signature[data.draw(st.integers(0, len(signature) - 1))] = data.draw(st.integers(0, 255))
    try:
        r, s = decode_signature(bytes(signature))
    except IntegrityFailed:
        return
    assert encode_signature(r, s) == bytes(signature)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "30",
        "3006020101020102ff",  # trailing byte outside
        "3009020101020102020103",  # a third integer
        "300702020001020102",  # padded integer
        "30060201ff020102",  # negative integer
        "308106020101020102",  # long form of a short length
        "3080020101020102" + "0000",  # indefinite length (BER)
        "3006020101040102",  # wrong tag
        "3006020101020202",  # cut short
        "30ff",
    ],
)
def test_other_encodings_are_refused(data: str) -> None:
    assert decode_signature(bytes.fromhex("3006020101020102")) == (1, 2)
    with pytest.raises(IntegrityFailed):
        decode_signature(bytes.fromhex(data))


@pytest.mark.parametrize(
    "data",
    [
        "300b020101020102040105040000",  # trailing byte
        "300c020200010201020401050400",  # padded integer
        "300b0201ff0201020401050400",  # negative integer
        "300d02010102010204010504000400",  # a fifth field
        "300c020101020102048101050400",  # long form of a short length
        "30810b0201010201020401050400",
        "300b0201010201020401052400",  # constructed octets
        "300902010102010204010504",  # cut short
    ],
)
def test_other_encodings_of_a_ciphertext_are_refused(data: str) -> None:
    assert decode_ciphertext(bytes.fromhex("300b0201010201020401050400")) == (1, 2, b"\5", b"")
    with pytest.raises(IntegrityFailed):
        decode_ciphertext(bytes.fromhex(data))
