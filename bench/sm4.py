"""SM4-GCM beside OpenSSL's, by size of the message; both behind the same Python call.

    python -m bench.sm4

Units:   microseconds of CPU time a message, one thread; the best of several rounds in which both take turns. Every
         sealed message of ours is opened by the other, and the other way round.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from bench.record import Figure, compared, record
from sandbox.crypto import sm4

SIZES: Final = {"64 B": 64, "4 KiB": 1 << 12, "64 KiB": 1 << 16, "1 MiB": 1 << 20}
PEER: Final = "openssl"
ROUNDS: Final = 15
ROUND_S: Final = 0.02
AAD: Final = bytes(20)


def taken(call: Callable[[], object], count: int) -> float:
    """Return the microseconds of CPU time one call takes, of ``count`` in a row."""
    began = time.process_time()
    for _ in range(count):
        call()
    return (time.process_time() - began) / count * 1e6


def compare(size: int) -> dict[str, float]:
    """Return the best time to seal a message of ``size`` bytes and to open it again, for each back end."""
    key, nonce, text = os.urandom(16), os.urandom(12), os.urandom(size)
    sealed = {name: sm4.seal(key, nonce, text, AAD, backend=name) for name in sm4.backends()}
    calls: dict[str, Callable[[], object]] = {}
    for name in sealed:
        if any(sm4.unseal(key, nonce, others, AAD, backend=name) != text for others in sealed.values()):
            raise SystemExit("the back ends differ")
        calls[f"{name} seal"] = partial(sm4.seal, key, nonce, text, AAD, backend=name)
        calls[f"{name} open"] = partial(sm4.unseal, key, nonce, sealed[name], AAD, backend=name)
    counts = {name: max(1, int(ROUND_S * 1e6 / max(taken(call, 3), 1.0))) for name, call in calls.items()}
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            best[name] = min(best[name], taken(call, counts[name]))
    return best


def measure(command: str) -> list[Figure]:
    """Compare every size."""
    figures = []
    for name, size in SIZES.items():
        best = compare(size)
        for backend in sm4.backends():
            if backend != PEER:
                for work in ("seal", "open"):
                    ours, other = best[f"{backend} {work}"], best[f"{PEER} {work}"]
                    figures.append(compared("sm4", f"{work} {name}, {backend}", ours, PEER, other, "µs CPU", command))
    return figures


def main(arguments: list[str] | None = None) -> None:
    """Measure and record."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(
        arguments
    )
    record(measure("python -m bench.sm4"))


if __name__ == "__main__":
    main()
