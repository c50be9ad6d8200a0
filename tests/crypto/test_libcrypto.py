"""The native binding: what a machine without it says, and that it gives its memory back."""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

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


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
def test_every_operation_gives_its_memory_back() -> None:
    script = Path(__file__).with_name("memory_growth.py")
    done = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": str(script.parents[2])},
        capture_output=True,
        timeout=60,
        check=True,
    )
    kept = json.loads(done.stdout)
    assert len(kept) == 11
    assert {name: size for name, size in kept.items() if size >= 24} == {}  # the smallest native object has 24 bytes
