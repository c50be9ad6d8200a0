"""Paillier keys made of published primes: no test waits for a new one, and they protect nothing."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from sandbox.mpc.paillier import PrivateKey, PublicKey

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "paillier.json").read_text("utf-8"))
CASES: dict[int, dict[str, Any]] = {case["bits"]: case for case in VECTORS["cases"]}


def primes(bits: int) -> tuple[int, int]:
    return int(CASES[bits]["p"], 16), int(CASES[bits]["q"], 16)


@functools.cache
def private(bits: int = 2048, exponent_bits: int | None = 256) -> PrivateKey:
    """A key with short exponents, so that its table is small, unless told otherwise."""
    p, q = primes(bits)
    return PrivateKey(p, q, PublicKey.from_modulus(p * q, exponent_bits=exponent_bits))


def plain(key: PublicKey, values: list[int]) -> bytes:
    return b"".join(value.to_bytes(key.size, "big") for value in values)


def opened(key: PrivateKey, ciphertexts: bytes) -> list[int]:
    return integers(key.decrypt(ciphertexts), key.public.size)


def integers(data: bytes, size: int) -> list[int]:
    return [int.from_bytes(data[place : place + size], "big") for place in range(0, len(data), size)]


def groups(*numbers: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.array(numbers, np.int32)
