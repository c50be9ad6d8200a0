from __future__ import annotations

import copy
import os
import pickle
import random
import secrets
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from gmssl.sm4 import SM4_ENCRYPT, CryptSM4
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.crypto import sm4
from sandbox.crypto.sm4 import RecordOpener, RecordSealer, seal, unseal
from sandbox.errors import IntegrityFailed, InvalidSpec, Unavailable, WrongState

KEY = bytes(range(16))
NONCE = bytes(range(12))
SENDER = b"a->b"
HERE = sm4.backends()
NAMES = ("gfni", "openssl")
SOURCES = Path(sm4.__file__).parent / "_sm4"
# Around a block, a vector, sixteen blocks and sixty-four, where the C changes its way.
EDGES = sorted({size + step for size in (0, 16, 64, 256, 512, 1024, 2048, 3072) for step in (-17, -1, 0, 1, 15, 16)})

needs_gfni = pytest.mark.skipif("gfni" not in HERE, reason="no back end gfni on this machine")
every = pytest.mark.parametrize(
    "backend",
    [
        pytest.param(name, marks=pytest.mark.skipif(name not in HERE, reason=f"no back end {name} on this machine"))
        for name in NAMES
    ],
)


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


@every
def test_the_vector_of_rfc_8998(vectors: dict[str, Any], backend: str) -> None:
    (case,) = vectors["sm4_gcm"]
    key, nonce, aad, plaintext = (bytes.fromhex(case[name]) for name in ("key", "iv", "aad", "plaintext"))
    sealed = seal(key, nonce, plaintext, aad, backend=backend)
    assert sealed.hex() == case["ciphertext"] + case["tag"]
    assert gcm_by_hand(key, nonce, plaintext, aad) == sealed
    assert unseal(key, nonce, sealed, aad, backend=backend) == plaintext


@needs_gfni
def test_both_back_ends_are_the_same_at_every_edge() -> None:
    draw = random.Random(1)
    for size in (edge for edge in EDGES if edge >= 0):
        for around in (0, 1, 13, 16, 255, 256, 257, 600):
            key, nonce, text, aad = (draw.randbytes(count) for count in (16, 12, size, around))
            sealed = seal(key, nonce, text, aad, backend="openssl")
            assert seal(key, nonce, text, aad, backend="gfni") == sealed, (size, around)
            assert unseal(key, nonce, sealed, aad, backend="gfni") == text
            assert unseal(key, nonce, seal(key, nonce, text, aad, backend="gfni"), aad, backend="openssl") == text


@needs_gfni
@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=16, max_size=16), st.binary(min_size=12, max_size=12), st.data())
def test_both_back_ends_are_the_same(key: bytes, nonce: bytes, data: st.DataObject) -> None:
    size, around = data.draw(st.integers(0, 5000)), data.draw(st.integers(0, 700))
    draw = random.Random(data.draw(st.integers()))
    text, aad = draw.randbytes(size), draw.randbytes(around)
    sealed = seal(key, nonce, text, aad, backend="openssl")
    assert seal(key, nonce, text, aad, backend="gfni") == sealed
    assert unseal(key, nonce, sealed, aad, backend="gfni") == text
    changed = bytearray(sealed)
    changed[draw.randrange(len(sealed))] ^= 1 << draw.randrange(8)
    with pytest.raises(IntegrityFailed):
        unseal(key, nonce, bytes(changed), aad, backend="gfni")


@needs_gfni
def test_a_long_text_is_the_same_and_takes_views() -> None:
    text = secrets.token_bytes((3 << 20) + 5)
    sealed = seal(KEY, NONCE, memoryview(text), b"aad", backend="gfni")  # type: ignore[arg-type]
    assert sealed == seal(KEY, NONCE, text, b"aad", backend="openssl")
    assert unseal(KEY, NONCE, memoryview(sealed), b"aad", backend="gfni") == text  # type: ignore[arg-type]


@needs_gfni
def test_threads_seal_side_by_side_and_the_same() -> None:
    texts = [secrets.token_bytes(1 << 18) for _ in range(8)]
    with ThreadPoolExecutor(4) as pool:
        sealed = list(pool.map(lambda text: seal(KEY, NONCE, text, b"", backend="gfni"), texts))
    assert sealed == [seal(KEY, NONCE, text, b"", backend="openssl") for text in texts]


@needs_gfni
def test_a_long_text_leaves_the_interpreter_to_others() -> None:
    text, during, done = bytes(1 << 28), [], threading.Event()

    def count() -> None:
        while not done.wait(0.001):
            during.append(None)

    beside = threading.Thread(target=count)
    beside.start()
    before = len(during)
    native = sm4._native
    assert native is not None
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60.0)  # nobody else runs unless the lock is given up
    try:
        native.seal(KEY, NONCE, text, b"")
        after = len(during)
    finally:
        sys.setswitchinterval(interval)
        done.set()
        beside.join()
    assert after > before


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


@every
def test_every_change_is_noticed(backend: str) -> None:
    def unseal(key: bytes, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
        return sm4.unseal(key, nonce, sealed, aad, backend=backend)

    sealed = seal(KEY, NONCE, b"twenty bytes of text", b"aad", backend=backend)
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


@every
@pytest.mark.parametrize(("key", "nonce"), [(KEY[:15], NONCE), (KEY + b"x", NONCE), (KEY, NONCE[:8]), (KEY, b"")])
def test_sizes_are_checked(key: bytes, nonce: bytes, backend: str) -> None:
    with pytest.raises(InvalidSpec):
        seal(key, nonce, b"", b"", backend=backend)
    with pytest.raises(InvalidSpec):
        unseal(key, nonce, bytes(16), b"", backend=backend)


@every
def test_more_than_one_nonce_serves_is_refused(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.setattr(sm4, "_MOST_BYTES", 32)
    assert len(seal(KEY, NONCE, bytes(32), b"", backend=backend)) == 48
    with pytest.raises(InvalidSpec, match="one nonce"):
        seal(KEY, NONCE, bytes(33), b"", backend=backend)
    with pytest.raises(IntegrityFailed):
        unseal(KEY, NONCE, bytes(49), b"", backend=backend)


@needs_gfni
def test_the_extension_checks_sizes_itself() -> None:
    native = sm4._native
    assert native is not None
    for key, nonce, data in ((KEY[:15], NONCE, bytes(16)), (KEY, NONCE + b"x", bytes(16)), (KEY, NONCE, bytes(15))):
        with pytest.raises(ValueError):
            native.unseal(key, nonce, data, b"")
    with pytest.raises(ValueError):
        native.seal(KEY, NONCE[:11], b"", b"")
    with pytest.raises(TypeError):
        native.seal(KEY, NONCE, "text", b"")


def test_the_choice_is_named_explained_and_can_be_forced() -> None:
    assert sm4.choose(os.environ.get(sm4.VARIABLE, "")) == (sm4.BACKEND, sm4.WHY)
    assert sm4.choose("")[0] == HERE[0]
    name, why = sm4.choose("openssl")
    assert name == "openssl" and sm4.VARIABLE in why
    for wrong in ("abacus", "GFNI"):
        with pytest.raises(Unavailable):
            sm4.choose(wrong)
    with pytest.raises(InvalidSpec):
        seal(KEY, NONCE, b"", b"", backend="abacus")
    line = "from sandbox.crypto import sm4; print(sm4.BACKEND, sm4.seal(bytes(16), bytes(12), b'', b'').hex())"
    forced = subprocess.run(
        [sys.executable, "-c", line], capture_output=True, text=True, env=os.environ | {sm4.VARIABLE: "openssl"}
    )
    assert forced.stdout == f"openssl {seal(bytes(16), bytes(12), b'', b'').hex()}\n", forced.stderr


def test_without_the_extension_everything_works_and_says_that_it_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sm4, "_native", None)
    assert sm4.backends() == ("openssl",)
    name, why = sm4.choose("")
    assert name == "openssl" and "slower" in why and "gcc" in why
    with pytest.raises(Unavailable):
        sm4.choose("gfni")


@pytest.mark.skipif(sm4._native is None, reason="the C extension is not built")
def test_on_another_processor_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sm4._native, "runs", lambda: False)
    name, why = sm4.choose("")
    assert name == "openssl" and "GFNI" in why and "gcc" not in why


EXERCISE = """
import random, sys
sys.path.insert(0, sys.argv[1])
import _native as native
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
draw = random.Random(1)
for size in [*range(0, 70), 255, 256, 257, 1023, 1024, 1025, 1040, 1279, 1280, 5000, 100_001]:
    for around in (0, 5, 16, 300):
        key, nonce, text, aad = (draw.randbytes(count) for count in (16, 12, size, around))
        oracle = Cipher(algorithms.SM4(key), modes.GCM(nonce)).encryptor()
        oracle.authenticate_additional_data(aad)
        wanted = oracle.update(text) + oracle.finalize() + oracle.tag
        assert native.seal(key, nonce, text, aad) == wanted
        assert native.unseal(key, nonce, wanted, aad) == text
        assert native.unseal(key, nonce, wanted[:-1] + bytes([wanted[-1] ^ 1]), aad) is None
print("done")
"""


@needs_gfni
@pytest.mark.slow
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("no gcc")
    library = subprocess.run([gcc, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout
    if not Path(library.strip()).is_absolute():
        pytest.skip("gcc without libasan")
    include = sysconfig.get_paths()["include"]
    subprocess.run(
        [
            gcc, "-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared",
            "-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{include}",
            *map(str, sorted(SOURCES.glob("*.c"))), "-o", str(tmp_path / "_native.so"),
        ],
        check=True,
    )  # fmt: skip
    watched = os.environ | {"LD_PRELOAD": library.strip(), "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}
    done = subprocess.run(
        [sys.executable, "-c", EXERCISE, str(tmp_path)], capture_output=True, text=True, env=watched, timeout=250
    )
    assert done.returncode == 0 and done.stdout.startswith("done") and not done.stderr, done.stderr[-3000:]


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
