from __future__ import annotations

import copy
import pickle
import random
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from gmssl import sm2 as gmssl_sm2
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.crypto import der, libcrypto
from sandbox.crypto.sm2 import PrivateKey, PublicKey
from sandbox.crypto.sm3 import tagged
from sandbox.errors import IntegrityFailed, InvalidSpec

P = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFF
N = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123
DISTID = ("-pkeyopt", "distid:1234567812345678")


def openssl(*arguments: str | Path, stdin: bytes = b"") -> bytes:
    done = subprocess.run(["openssl", *map(str, arguments)], input=stdin, capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def flips(data: bytes) -> list[bytes]:
    """Return ``data`` with one bit changed, for every byte."""
    return [data[:i] + bytes((data[i] ^ 1 << i % 8,)) + data[i + 1 :] for i in range(len(data))]


# -- the standard's own examples ---------------------------------------------------------------


def test_the_signature_of_annex_a2(vectors: dict[str, Any], annex_key: PrivateKey) -> None:
    (case,) = vectors["sm2_sign"]
    key, message = PublicKey.from_bytes(bytes.fromhex(case["public_key"])), bytes.fromhex(case["msg_hex"])
    r, s = int(case["r"], 16), int(case["s"], 16)
    assert annex_key.public == key
    key.verify(message, der.encode_signature(r, s))
    for wrong in ((r + 1, s), (r, s - 1), (s, r), (r, N - s), (0, s), (r, 0), (r + N, s), (r, s + N)):
        with pytest.raises(IntegrityFailed):
            key.verify(message, der.encode_signature(*wrong))
    for text in flips(message):
        with pytest.raises(IntegrityFailed):
            key.verify(text, der.encode_signature(r, s))


def test_the_ciphertext_of_annex_a4(vectors: dict[str, Any], annex_key: PrivateKey) -> None:
    (case,) = vectors["sm2_encrypt"]
    c1, c3, c2 = (bytes.fromhex(case[name]) for name in ("c1", "c3", "c2"))
    assert len(c1) == 64  # x || y; the annex prints the 04 of the point apart
    x, y = int.from_bytes(c1[:32], "big"), int.from_bytes(c1[32:], "big")
    assert annex_key.decrypt(der.encode_ciphertext(x, y, c3, c2)) == bytes.fromhex(case["msg_hex"])


# -- second opinion: gmssl ---------------------------------------------------------------------


def test_signatures_both_ways_with_gmssl(annex_key: PrivateKey, oracle: Any) -> None:
    for index in range(4):
        message = b"message %d" % index * (index + 1)
        r, s = der.decode_signature(annex_key.sign(message))
        assert oracle.verify_with_sm3(f"{r:064x}{s:064x}", message)
        assert not oracle.verify_with_sm3(f"{r:064x}{s:064x}", message + b"x")
        raw = oracle.sign_with_sm3(message)
        annex_key.public.verify(message, der.encode_signature(int(raw[:64], 16), int(raw[64:], 16)))


def test_ciphertexts_both_ways_with_gmssl(annex_key: PrivateKey, oracle: Any) -> None:
    for size in (16, 40, 100):
        secret = bytes(range(size))
        x, y, c3, c2 = der.decode_ciphertext(annex_key.public.encrypt(secret))
        assert oracle.decrypt(x.to_bytes(32, "big") + y.to_bytes(32, "big") + c3 + c2) == secret
        raw = oracle.encrypt(secret)
        x, y = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:64], "big")
        assert annex_key.decrypt(der.encode_ciphertext(x, y, raw[64:96], raw[96:])) == secret


def test_the_shared_point_against_gmssl(vectors: dict[str, Any], annex_key: PrivateKey, key: PrivateKey) -> None:
    shared = annex_key.agree(key.public)
    assert len(shared) == 32
    assert key.agree(annex_key.public) == shared
    curve = gmssl_sm2.CryptSM2(private_key="", public_key="")
    scalar = int(vectors["sm2_sign"][0]["private_key"], 16)
    assert curve._kg(scalar, key.public.to_bytes()[1:].hex())[:64] == shared.hex()


def test_why_gmssl_is_an_oracle_only(annex_key: PrivateKey, oracle: Any) -> None:
    """It opens a forged ciphertext, and one signature with a guessed random state gives the private key away."""
    raw = oracle.encrypt(b"pay 100 to Alice")
    forged = raw[:-1] + bytes((raw[-1] ^ 1,))
    assert oracle.decrypt(forged) == b"pay 100 to Alicd"
    x, y = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:64], "big")
    with pytest.raises(IntegrityFailed):
        annex_key.decrypt(der.encode_ciphertext(x, y, forged[64:96], forged[96:]))

    state = random.getstate()
    random.seed(2016)
    raw_signature = oracle.sign_with_sm3(b"anything")
    random.seed(2016)
    k = int("".join(random.choice("0123456789abcdef") for _ in range(64)), 16)
    random.setstate(state)
    r, s = int(raw_signature[:64], 16), int(raw_signature[64:], 16)
    assert (k - s) * pow(r + s, -1, N) % N == int(oracle.private_key, 16)


# -- the openssl program -----------------------------------------------------------------------


def test_openssl_verifies_what_we_sign(key: PrivateKey, tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(key.public.to_pem())
    (tmp_path / "m").write_bytes(b"the payload")
    (tmp_path / "s").write_bytes(key.sign(b"the payload"))
    command = ("pkeyutl", "-verify", "-pubin", "-inkey", tmp_path / "k", "-rawin", "-digest", "sm3")
    said = openssl(*command, "-in", tmp_path / "m", "-sigfile", tmp_path / "s", *DISTID)
    assert b"Verified Successfully" in said


def test_we_verify_what_openssl_signs(key: PrivateKey, tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(key.to_pem())
    (tmp_path / "m").write_bytes(b"the payload")
    command = ("pkeyutl", "-sign", "-inkey", tmp_path / "k", "-rawin", "-digest", "sm3", "-in", tmp_path / "m")
    key.public.verify(b"the payload", openssl(*command, *DISTID))
    with pytest.raises(IntegrityFailed):  # our id is not openssl's default
        key.public.verify(b"the payload", openssl(*command))


def test_ciphertexts_both_ways_with_openssl(key: PrivateKey, tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(key.to_pem())
    (tmp_path / "p").write_bytes(key.public.to_pem())
    sealed = key.public.encrypt(b"sixteen byte key")
    assert openssl("pkeyutl", "-decrypt", "-inkey", tmp_path / "k", stdin=sealed) == b"sixteen byte key"
    theirs = openssl("pkeyutl", "-encrypt", "-pubin", "-inkey", tmp_path / "p", stdin=b"another secret")
    assert key.decrypt(theirs) == b"another secret"


def test_openssl_reads_our_key_files(key: PrivateKey) -> None:
    sealed = key.to_pem(b"correct horse")
    assert sealed.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    public = key.public.to_pem()
    assert (
        openssl("pkey", "-passin", "pass:correct horse", "-pubout", "-check", stdin=sealed)
        == b"Key is valid\n" + public
    )
    assert openssl("pkey", "-pubout", stdin=key.to_pem()) == public
    assert openssl("pkey", "-pubin", stdin=public) == public
    layout = openssl("asn1parse", stdin=sealed).decode()
    assert "sm4-cbc" in layout and f":{600_000:06X}" in layout


def test_we_read_openssls_key_files(tmp_path: Path) -> None:
    plain = openssl("genpkey", "-algorithm", "SM2")
    sealed = openssl("pkcs8", "-topk8", "-v2", "aes-256-cbc", "-iter", "1000", "-passout", "pass:abc", stdin=plain)
    compressed = openssl("ec", "-conv_form", "compressed", stdin=plain)
    key = PrivateKey.from_pem(plain)
    assert key.public == PrivateKey.from_pem(sealed, b"abc").public == PrivateKey.from_pem(compressed).public
    assert key.public == PublicKey.from_pem(openssl("pkey", "-pubout", stdin=plain))
    short = openssl("ec", "-pubout", "-conv_form", "compressed", stdin=plain)
    assert len(short) < len(key.public.to_pem())
    assert key.public == PublicKey.from_pem(short)


# -- tampering ---------------------------------------------------------------------------------


def test_every_changed_signature_fails(key: PrivateKey, stranger: PrivateKey) -> None:
    signature = key.sign(b"message")
    key.public.verify(b"message", signature)
    for changed in (*flips(signature), signature + b"\0", signature[:-1], b""):
        with pytest.raises(IntegrityFailed):
            key.public.verify(b"message", changed)
    with pytest.raises(IntegrityFailed):
        stranger.public.verify(b"message", signature)


def test_every_changed_ciphertext_fails(key: PrivateKey, stranger: PrivateKey) -> None:
    sealed = key.public.encrypt(b"sixteen byte key")
    assert key.decrypt(sealed) == b"sixteen byte key"
    for changed in (*flips(sealed), sealed + b"\0", sealed[:-1], b"", sealed[:40]):
        with pytest.raises(IntegrityFailed):
            key.decrypt(changed)
    with pytest.raises(IntegrityFailed):
        stranger.decrypt(sealed)


def test_openssl_alone_would_take_a_ciphertext_with_a_tail(key: PrivateKey) -> None:
    sealed = key.public.encrypt(b"secret") + b"tail"
    assert libcrypto.decrypt(key._handle, sealed) == b"secret"  # the reason for the check in ``der``
    with pytest.raises(IntegrityFailed):
        key.decrypt(sealed)


def test_a_ciphertext_under_another_point_fails(key: PrivateKey) -> None:
    x, y, c3, c2 = der.decode_ciphertext(key.public.encrypt(b"secret"))
    for point in ((x, P - y), (x + 1, y), (0, 0), (x + P, y), (x, y + P)):
        with pytest.raises(IntegrityFailed):
            key.decrypt(der.encode_ciphertext(*point, c3, c2))
    for digest in (c3[:-1], c3 + b"\0", b""):
        with pytest.raises(IntegrityFailed):
            key.decrypt(der.encode_ciphertext(x, y, digest, c2))


def test_a_mask_that_shows_the_plaintext_is_drawn_again(key: PrivateKey, monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte meets an all-zero mask once in 256 tries; what an early OpenSSL 3.0 returned then comes first here."""
    answers = [der.encode_ciphertext(1, 2, bytes(32), b"A"), key.public.encrypt(b"A")]
    expected = answers[1]
    monkeypatch.setattr(libcrypto, "encrypt", lambda handle, plaintext: answers.pop(0))
    assert key.public.encrypt(b"A") == expected


def test_nonces_and_ciphertexts_never_repeat(key: PrivateKey) -> None:
    assert len({key.sign(b"m") for _ in range(50)}) == 50
    assert len({key.public.encrypt(b"m" * 16) for _ in range(50)}) == 50


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=3000))
def test_any_message_signs_and_any_secret_seals(key: PrivateKey, data: bytes) -> None:
    key.public.verify(data, key.sign(data))
    if data:
        assert key.decrypt(key.public.encrypt(data)) == data
    else:
        with pytest.raises(InvalidSpec):
            key.public.encrypt(data)


# -- points ------------------------------------------------------------------------------------


def coordinates(x: int, y: int) -> bytes:
    return b"\x04" + x.to_bytes(32, "big") + y.to_bytes(32, "big")


def test_points_come_back(key: PrivateKey) -> None:
    point = key.public.to_bytes()
    assert len(point) == 65 and point[0] == 4
    assert PublicKey.from_bytes(point) == key.public
    assert PublicKey.from_bytes(bytes((2 + point[-1] % 2,)) + point[1:33]) == key.public
    negated = PublicKey.from_bytes(bytes((3 - point[-1] % 2,)) + point[1:33])
    assert int.from_bytes(negated.to_bytes()[33:], "big") == P - int.from_bytes(point[33:], "big")
    assert hash(PublicKey.from_bytes(point)) == hash(key.public)
    assert {key.public: 1}[PublicKey.from_bytes(point)] == 1
    assert PublicKey.from_pem(key.public.to_pem()) == key.public
    assert key.public.key_id == tagged("key", point)[:16].hex()
    assert pickle.loads(pickle.dumps(key.public)) == key.public


def square_root(value: int) -> int:
    root = pow(value, (P + 1) // 4, P)
    assert root * root % P == value % P
    return root


def test_bad_points_are_refused(key: PrivateKey) -> None:
    point = key.public.to_bytes()
    x, y = int.from_bytes(point[1:33], "big"), int.from_bytes(point[33:], "big")
    # x = 0 is on the curve if b is a square; p + 0 still fits in 32 bytes and is the same point, written twice.
    b = 0x28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93
    zero_y = square_root(b)
    PublicKey.from_bytes(coordinates(0, zero_y))
    off_curve_x = next(c for c in range(1, 50) if pow(c**3 - 3 * c + b, (P - 1) // 2, P) != 1)
    bad = [
        b"",
        b"\x00",  # infinity
        bytes(65),
        b"\x04" + bytes(64),
        coordinates(x, y ^ 1),
        coordinates(x ^ 1, y),
        coordinates(P, zero_y),
        b"\x02" + P.to_bytes(32, "big"),
        b"\x02" + off_curve_x.to_bytes(32, "big"),
        b"\x03" + off_curve_x.to_bytes(32, "big"),
        b"\x04" + point[1:33],
        bytes((6 + y % 2,)) + point[1:],  # hybrid form
        point[1:],
        point + b"\0",
        point[:-1],
    ]
    for data in bad:
        with pytest.raises(InvalidSpec):
            PublicKey.from_bytes(data)
        with pytest.raises(InvalidSpec):
            PublicKey(data)


def test_bad_public_key_files_are_refused(key: PrivateKey) -> None:
    pem = key.public.to_pem()
    other_curve = openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout")
    bad = [
        b"",
        pem + pem,
        pem.replace(b"PUBLIC", b"PRIVATE"),
        pem[:-40],
        pem.replace(b"MFkw", b"M=kw"),
        openssl("pkey", "-pubout", stdin=other_curve),
        key.to_pem(),
        pem + b"\n" * 20000,
    ]
    for data in bad:
        with pytest.raises(InvalidSpec):
            PublicKey.from_pem(data)


# -- private keys ------------------------------------------------------------------------------


def test_private_keys_come_back(key: PrivateKey) -> None:
    for passphrase in (None, b"a", b"x" * 1024, "口令".encode()):
        again = PrivateKey.from_pem(key.to_pem(passphrase), passphrase)
        assert again.public == key.public
        key.public.verify(b"m", again.sign(b"m"))
    assert key.to_pem(b"same") != key.to_pem(b"same")  # salted


def test_wrong_passphrases_are_refused(key: PrivateKey) -> None:
    sealed = key.to_pem(b"right")
    for passphrase in (b"wrong", b"right ", b"Right", None):
        with pytest.raises(InvalidSpec):
            PrivateKey.from_pem(sealed, passphrase)
    for impossible in (b"", b"zero\0byte", b"x" * 1025):
        with pytest.raises(InvalidSpec):
            PrivateKey.from_pem(sealed, impossible)
        with pytest.raises(InvalidSpec):
            key.to_pem(impossible)


def test_files_that_are_not_sm2_keys_are_refused(
    key: PrivateKey, vectors: dict[str, Any], write_key: Callable[[bytes, bytes], bytes]
) -> None:
    case = vectors["sm2_sign"][0]
    scalar, point = bytes.fromhex(case["private_key"]), bytes.fromhex(case["public_key"])
    assert PrivateKey.from_pem(write_key(scalar, point)).public.to_bytes() == point
    bad = [
        b"",
        b"not a key",
        key.public.to_pem(),
        key.to_pem()[:-60],
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout"),
        openssl("genpkey", "-algorithm", "ED25519"),
        openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"),
        write_key(scalar, key.public.to_bytes()),  # a public point of another key
        write_key(bytes(32), point),
        write_key(N.to_bytes(32, "big"), point),
        write_key((N - 1).to_bytes(32, "big"), point),  # SM2 excludes n - 1: 1 + d has no inverse
        b"x" * 20000,
    ]
    for data in bad:
        with pytest.raises(InvalidSpec):
            PrivateKey.from_pem(data)


def test_a_private_key_does_not_leak_by_accident(annex_key: PrivateKey, vectors: dict[str, Any]) -> None:
    scalar = vectors["sm2_sign"][0]["private_key"]
    for text in (repr(annex_key), str(annex_key), f"{annex_key}", f"{annex_key!r:>10}"):
        assert scalar not in text.lower() and str(int(scalar, 16)) not in text
        assert annex_key.public.key_id in text
    for copier in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be copied"):
            copier(annex_key)
    assert not hasattr(annex_key, "__dict__")


def test_keys_are_safe_to_share_between_threads(key: PrivateKey) -> None:
    def work(index: int) -> bytes:
        message = index.to_bytes(4, "big")
        key.public.verify(message, key.sign(message))
        with pytest.raises(IntegrityFailed):
            key.public.verify(message + b"x", key.sign(message))
        assert key.decrypt(key.public.encrypt(message)) == message
        return key.agree(key.public)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(work, range(160)))) == 1
