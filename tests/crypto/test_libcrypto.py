"""The native binding: what a machine without it says, and that it gives its memory back."""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Callable

import pytest

from sandbox.crypto import der, libcrypto
from sandbox.crypto.sm2 import PrivateKey
from sandbox.errors import IntegrityFailed, InvalidSpec, Unavailable


def refused(operation: Callable[[], object], error: type[Exception]) -> None:
    with pytest.raises(error):
        operation()


@pytest.mark.parametrize("names", [(), ("libabsent.so.3",), ("libc.so.6",)])
def test_a_machine_without_it_names_the_package(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libcrypto, "_NAMES", names)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(Unavailable, match="libssl3"):
        libcrypto._library.__wrapped__()


def test_an_old_one_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libcrypto, "_OLDEST", 0xF0000000)
    with pytest.raises(Unavailable, match="libssl3"):
        libcrypto._library.__wrapped__()


def test_failures_leave_nothing_in_the_error_queue(key: PrivateKey) -> None:
    """Python's ``ssl`` reads the same queue of the same library, and would report our failures as its own."""
    peek = ctypes.CDLL("libcrypto.so.3").ERR_peek_error
    peek.restype = ctypes.c_ulong
    zero = der.encode_signature(0, 0)
    off_curve = der.encode_ciphertext(1, 1, bytes(32), b"text")
    unsound = key.to_pem().replace(b"BEGIN", b"BEGUN")
    for operation, error in (
        (lambda: key.public.verify(b"message", zero), IntegrityFailed),
        (lambda: key.decrypt(off_curve), IntegrityFailed),
        (lambda: PrivateKey.from_pem(unsound), InvalidSpec),
    ):
        assert peek() == 0
        refused(operation, error)
        assert peek() == 0, error


class Mallinfo2(ctypes.Structure):
    """Of glibc, ``malloc.h``: the eighth counter is what is in use."""

    _fields_ = [("before", ctypes.c_size_t * 7), ("uordblks", ctypes.c_size_t), ("after", ctypes.c_size_t * 2)]


def allocated() -> int:
    """Bytes that malloc has handed out and not got back."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = Mallinfo2
    return int(mallinfo2().uordblks)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
def test_every_operation_gives_its_memory_back(key: PrivateKey) -> None:
    signature, sealed, pem = key.sign(b"m"), key.public.encrypt(b"m" * 16), key.to_pem()
    operations: dict[str, Callable[[], object]] = {
        "generate": PrivateKey.generate,
        "sign": lambda: key.sign(b"m"),
        "verify": lambda: key.public.verify(b"m", signature),
        "encrypt": lambda: key.public.encrypt(b"m" * 16),
        "decrypt": lambda: key.decrypt(sealed),
        "agree": lambda: key.agree(key.public),
        "read": lambda: PrivateKey.from_pem(pem),
        "write": key.to_pem,
        "refuse a signature": lambda: refused(lambda: key.public.verify(b"x", signature), IntegrityFailed),
        "refuse a ciphertext": lambda: refused(lambda: key.decrypt(sealed[:-1] + b"\0"), IntegrityFailed),
        "refuse a key": lambda: refused(lambda: PrivateKey.from_pem(pem[:-50]), InvalidSpec),
    }
    for name, operation in operations.items():
        for _ in range(20):
            operation()
        before = allocated()
        for _ in range(200):
            operation()
        assert allocated() - before < 200 * 32, name  # the smallest native object is larger than 32 bytes
