"""Paillier in ``sf-heu`` (scheme ZPaillier); prints microseconds of CPU time as JSON. Started by ``bench.paillier``.

Run with ``python -I``: this file has the name of the library it imports.

Units:  microseconds of this process's CPU time a value, row, addition or decryption; best of several.
Shapes: column sums take two 40-bit integers a plaintext, which is what the library's own packing offers.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from heu import numpy as hnp
from heu import phe

ROUNDS: Final = 3
BITS_OF_SUMS: Final = 64


def best(work: Callable[[], Any], count: int) -> tuple[float, Any]:
    """Return microseconds of CPU time a piece of ``count``, and what the last round returned."""
    taken, result = [], None
    for _ in range(ROUNDS):
        began = time.process_time()
        result = work()
        taken.append((time.process_time() - began) / count * 1e6)
    return min(taken), result


def measure(bits: int, rows: int) -> dict[str, float]:
    """Measure one size of key."""
    scheme = phe.SchemaType.ZPaillier
    kit = hnp.setup(scheme, bits)
    encryptor, decryptor, evaluator = kit.encryptor(), kit.decryptor(), kit.evaluator()
    values = np.random.default_rng(1).integers(-(2**39), 2**39, rows)
    single, opener = phe.IntegerEncoderParams(1), phe.IntegerEncoder(scheme, 1)
    plain = kit.array(values, single)
    encryptor.encrypt(plain)  # tables, if there are any
    found: dict[str, float] = {}
    found["row"], ciphertexts = best(lambda: encryptor.encrypt(plain), rows)
    found["add"], total = best(lambda: evaluator.sum(ciphertexts), rows)
    found["decrypt"], opened = best(lambda: decryptor.decrypt(ciphertexts[0:100]), 100)
    assert opener.decode(decryptor.decrypt(total)) == values.sum()
    assert (opened.to_numpy(opener) == values[:100]).all()

    double = phe.BatchIntegerEncoderParams(1, BITS_OF_SUMS)
    reader = phe.BatchIntegerEncoder(scheme, 1, BITS_OF_SUMS)

    def column_sum() -> int:
        packed = encryptor.encrypt(kit.array(values.reshape(-1, 2), double))
        return sum(reader.decode(decryptor.decrypt(evaluator.sum(packed))))

    found["column sum"], result = best(column_sum, rows)
    assert result == values.sum()
    return found


def main() -> None:
    """Measure and print."""
    small, large = int(sys.argv[1]), int(sys.argv[2])
    print(json.dumps({"2048": measure(2048, small), "3072": measure(3072, large)}))


if __name__ == "__main__":
    main()
