"""SM2-curve arithmetic beside OpenSSL's, and intersections on both curves end to end; prints JSON, records the former.

    python -m bench.sm2curve [--rows 100000] [--runs 3]

Operations: microseconds of CPU time an element on one core, best and median of many slices, the back ends in turn.
            Points go in and come out compressed, with validation; "libcrypto" is ``EC_POINT_mul`` with the same
            encodings. A neighbour on the same physical core can halve the speed of 512-bit vectors, which no clock
            of this process shows.
Exchanges:  two processes over a socket pair, from the keys in memory to the positions; wall-clock and CPU seconds and
            peak memory of each side, in the run with the median wall-clock time. No node, no sealing, no gate.
"""

from __future__ import annotations

import argparse
import array
import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
import pyarrow as pa

from bench.record import Figure, compared, median, record
from sandbox.crypto import sm2curve
from sandbox.psi import ecdh, ecdh_sm2
from sandbox.psi.contract import Role, Terms
from sandbox.workspace import SocketChannel

ENGINES: Final = {"sm2": ecdh_sm2, "x25519": ecdh}
SLICE: Final = {"ifma": 1024, "portable": 256, "libcrypto": 128}  # a few milliseconds: short enough to find quiet ones
ROUNDS: Final = 60
TAG: Final = b"bench/" + sm2curve.SUITE


def operations() -> dict[str, dict[str, dict[str, float]]]:
    """Measure one multiplication and one hash, every back end in turn."""
    messages = [b"99%016d" % number for number in range(max(SLICE.values()))]
    points = sm2curve.hash_to_curve(messages, TAG)
    taken: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS):
        for backend in sm2curve.backends():
            count = SLICE[backend]
            secret = sm2curve.Scalar.generate(backend=backend)
            data, places = b"".join(messages[:count]), array.array("q", range(0, 18 * count + 1, 18)).tobytes()
            work: dict[str, Callable[[], object]] = {
                "multiply": partial(secret.multiply, points[: sm2curve.POINT_SIZE * count]),
                "hash": partial(sm2curve.hash_column, data, places, TAG, backend=backend),
            }
            for name, run in work.items():
                began = time.thread_time()
                run()
                taken.setdefault((backend, name), []).append((time.thread_time() - began) / count * 1e6)
    shown: dict[str, dict[str, dict[str, float]]] = {}
    for (backend, name), values in taken.items():
        figure = {"best_us": round(min(values), 2), "median_us": round(median(values), 2)}
        shown.setdefault(backend, {})[name] = figure
    return shown


def figures(found: dict[str, dict[str, dict[str, float]]], command: str) -> list[Figure]:
    """Return the best time of each back end of ours beside OpenSSL's."""
    peer = "libcrypto"
    return [
        compared(
            "sm2curve", f"{name}, {backend}", cases[name]["best_us"], peer, found[peer][name]["best_us"], unit, command
        )
        for backend, cases in found.items()
        if backend != peer
        for name, unit in (("multiply", "µs CPU"), ("hash", "µs CPU"))
    ]


def side(engine: str, role: Role, rows: int, descriptor: int) -> None:
    """Run one side and print what it took."""
    ids = np.random.default_rng(role.value).permutation(rows) + role.value * (rows // 2)
    keys = pa.array(np.char.mod("99%016d", ids))
    with SocketChannel(socket.socket(fileno=descriptor)) as channel:
        channel.send(b"ready")
        channel.recv(60)
        began, cpu = time.perf_counter(), time.process_time()
        positions = ENGINES[engine].intersect(keys, role, Terms(b"bench" * 6, b"s" * 32, rows, rows), channel)
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    if len(positions) != rows - rows // 2:
        raise SystemExit("the engine lost or invented rows")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "peak_mib": peak}))


def exchange(engine: str, backend: str, rows: int) -> list[dict[str, Any]]:
    """Run both sides in processes of their own; return what each printed."""
    environment = os.environ | ({sm2curve.VARIABLE: backend} if backend else {})
    ends = socket.socketpair()
    running = []
    for role, end in zip(Role, ends, strict=True):
        line = [sys.executable, "-m", "bench.sm2curve", "--side", engine, role.name, str(rows), str(end.fileno())]
        running.append(
            subprocess.Popen(line, pass_fds=[end.fileno()], stdout=subprocess.PIPE, text=True, env=environment)
        )
    for end in ends:
        end.close()
    printed = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit("a side failed")
    return [json.loads(text) for text in printed]


def exchanges(rows: int, runs: int) -> dict[str, Any]:
    """Run every engine and back end in turn; return the run with the median wall-clock time of each."""
    built = [("sm2", name) for name in sm2curve.backends() if name != "libcrypto"]
    cases = [*(built or [("sm2", "libcrypto")]), ("x25519", "")]
    found: dict[str, list[list[dict[str, Any]]]] = {}
    for _ in range(runs):
        for engine, backend in cases:
            name = f"{engine} {backend}".strip()
            found.setdefault(name, []).append(exchange(engine, backend, rows))
            print(name, found[name][-1], file=sys.stderr, flush=True)
    middle = (runs - 1) // 2
    return {
        name: dict(zip(("left", "right"), sorted(sides, key=lambda both: both[0]["wall_s"])[middle], strict=True))
        for name, sides in found.items()
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="keys on each side, half of them in common; 0: none")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--side", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.side:
        engine, role, rows, descriptor = options.side
        side(engine, Role[role], int(rows), int(descriptor))
        return
    shown: dict[str, Any] = {"backend": sm2curve.BACKEND, "why": sm2curve.WHY, "load": round(os.getloadavg()[0], 1)}
    shown["operations"] = operations()
    record(figures(shown["operations"], f"python -m bench.sm2curve --rows {options.rows}"))
    if options.rows:
        shown["rows"] = options.rows
        shown["exchanges"] = exchanges(options.rows, options.runs)
    print(json.dumps(shown, indent=2))


if __name__ == "__main__":
    main()
