"""Prints how many bytes each SM2 operation keeps, as JSON: run alone, because other tests allocate too."""

from __future__ import annotations

import ctypes
import json
import statistics
from collections.abc import Callable
from contextlib import suppress

from sandbox.crypto.sm2 import PrivateKey
from sandbox.errors import SandboxError

ROUNDS = 5
TIMES = 250  # what the C library settles once, about 2.5 kB, is no growth


class Mallinfo2(ctypes.Structure):
    """Of glibc, ``malloc.h``: the eighth counter is what is in use."""

    _fields_ = [("before", ctypes.c_size_t * 7), ("uordblks", ctypes.c_size_t), ("after", ctypes.c_size_t * 2)]


mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Mallinfo2


def growth(operation: Callable[[], object]) -> float:
    """Return the bytes malloc hands out and does not get back in one ``operation``, in the median round."""
    rounds = []
    for _ in range(ROUNDS):
        before = mallinfo2().uordblks
        for _ in range(TIMES):
            with suppress(SandboxError):
                operation()
        rounds.append(mallinfo2().uordblks - before)
    return float(statistics.median(rounds) / TIMES)


def main() -> None:
    key = PrivateKey.generate()
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
        "refuse a signature": lambda: key.public.verify(b"x", signature),
        "refuse a ciphertext": lambda: key.decrypt(sealed[:-1] + bytes((sealed[-1] ^ 1,))),
        "refuse a key": lambda: PrivateKey.from_pem(pem[:-50]),
    }
    print(json.dumps({name: growth(operation) for name, operation in operations.items()}))


if __name__ == "__main__":
    main()
