"""How fast is SM2 through each library that could carry it? Prints and returns operations per CPU-second.

Run: ``python -m bench.sm2_adapters``. A library that is not installed is skipped, and the reason printed.
Units: operations per second of this process's CPU time, one thread, best of ``ROUNDS``.
Shapes: messages of 1 KiB, secrets of 16 bytes.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Final, TypeAlias

from sandbox.crypto.sm2 import PrivateKey
from sandbox.errors import Unavailable

Operations: TypeAlias = Mapping[str, Callable[[], object]]
Rates: TypeAlias = dict[str, dict[str, float]]

OPERATIONS: Final = ("sign", "verify", "encrypt", "decrypt", "agree")
ROUNDS: Final = 3
SECONDS: Final = 0.3  # CPU time of one round

_MESSAGE: Final = secrets.token_bytes(1024)
_SECRET: Final = secrets.token_bytes(16)


def libcrypto() -> Operations:
    """The adapter in use: the system's OpenSSL through cffi."""
    key, peer = PrivateKey.generate(), PrivateKey.generate().public
    signature, ciphertext = key.sign(_MESSAGE), key.public.encrypt(_SECRET)
    assert key.decrypt(ciphertext) == _SECRET
    return {
        "sign": lambda: key.sign(_MESSAGE),
        "verify": lambda: key.public.verify(_MESSAGE, signature),
        "encrypt": lambda: key.public.encrypt(_SECRET),
        "decrypt": lambda: key.decrypt(ciphertext),
        "agree": lambda: key.agree(peer),
    }


def gmssl_pyx() -> Operations:
    """GmSSL 3 compiled into a Python extension; offers no shared point."""
    library = import_module("gmssl_pyx")
    public, private = library.sm2_key_generate()
    signature = library.sm2_sign(private, public, _MESSAGE)
    ciphertext = library.sm2_encrypt(public, _SECRET)
    assert library.sm2_verify(public, _MESSAGE, signature)
    assert library.sm2_decrypt(private, ciphertext) == _SECRET
    return {
        "sign": lambda: library.sm2_sign(private, public, _MESSAGE),
        "verify": lambda: library.sm2_verify(public, _MESSAGE, signature),
        "encrypt": lambda: library.sm2_encrypt(public, _SECRET),
        "decrypt": lambda: library.sm2_decrypt(private, ciphertext),
    }


def gmssl() -> Operations:
    """Pure Python, for scale only: its nonces are predictable and it opens forged ciphertexts."""
    library = import_module("gmssl.sm2")
    scalar = secrets.randbelow(1 << 255) + 1
    maker = library.CryptSM2(private_key="", public_key="")
    public = maker._kg(scalar, library.default_ecc_table["g"])
    crypt = library.CryptSM2(private_key=f"{scalar:064x}", public_key=public, mode=1)
    signature, ciphertext = crypt.sign_with_sm3(_MESSAGE), crypt.encrypt(_SECRET)
    assert crypt.verify_with_sm3(signature, _MESSAGE)
    assert crypt.decrypt(ciphertext) == _SECRET
    return {
        "sign": lambda: crypt.sign_with_sm3(_MESSAGE),
        "verify": lambda: crypt.verify_with_sm3(signature, _MESSAGE),
        "encrypt": lambda: crypt.encrypt(_SECRET),
        "decrypt": lambda: crypt.decrypt(ciphertext),
    }


ADAPTERS: Final[dict[str, Callable[[], Operations]]] = {"libcrypto": libcrypto, "gmssl-pyx": gmssl_pyx, "gmssl": gmssl}


def rate(operation: Callable[[], object]) -> float:
    """Return how often ``operation`` runs in a second of CPU time."""
    best = 0.0
    for _ in range(ROUNDS):
        count, start = 0, time.process_time()
        while (spent := time.process_time() - start) < SECONDS:
            operation()
            count += 1
        best = max(best, count / spent)
    return best


def measure() -> Rates:
    """Measure every adapter that is installed; an operation it lacks has no rate."""
    rates: Rates = {}
    for name, prepare in ADAPTERS.items():
        try:
            operations = prepare()
        except (ImportError, Unavailable) as error:
            print(f"{name}: skipped, {error}")
            continue
        rates[name] = {operation: rate(run) for operation, run in operations.items()}
    return rates


def main() -> Rates:
    """Print the table."""
    rates = measure()
    print(f"{'ops per CPU-second':20}" + "".join(f"{operation:>10}" for operation in OPERATIONS))
    for name, row in rates.items():
        cells = (f"{row[operation]:10.0f}" if operation in row else f"{'-':>10}" for operation in OPERATIONS)
        print(f"{name:20}" + "".join(cells))
    return rates


if __name__ == "__main__":
    main()
