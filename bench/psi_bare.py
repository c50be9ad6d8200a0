"""The bare ``spu`` intersection, for comparison with ours: two processes, RR22, TCP loopback, default allocator.

    python bench/psi_bare.py --rows 1000000

Prints one JSON line. For each side: seconds from its start to its end (``wall_s``), from its start until its result
file was there (``result_s``) and inside the protocol, CPU seconds of the process and of the sorting processes the
library starts, and the peak resident size of the process.
None of our fences is here: no barrier, no private directory, no checks. Do not copy it into a product.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv


def side(rank: int, ports: list[int], folder: str) -> None:
    """Run one side and write what it measured to ``<folder>/<rank>.json``."""
    from spu import libspu, psi

    link = libspu.link.Desc()
    link.recv_timeout_ms = 300_000
    for number, port in enumerate(ports):
        link.add_party(f"p{number}", f"127.0.0.1:{port}")
    context = libspu.link.create_brpc(link, rank)
    started = time.perf_counter()
    report = psi.psi_execute(
        psi.PsiExecuteConfig(
            protocol_conf=psi.PsiProtocolConfig(
                protocol=psi.PsiProtocol.PROTOCOL_RR22, receiver_rank=0, broadcast_result=True
            ),
            input_params=psi.InputParams(path=f"{folder}/{rank}.csv", selected_keys=["id"], keys_unique=True),
            output_params=psi.OutputParams(path=f"{folder}/{rank}.out.csv"),
        ),
        context,
    )
    taken, done = time.perf_counter() - started, time.monotonic()
    context.stop_link()
    Path(f"{folder}/{rank}.json").write_text(
        json.dumps({"protocol_s": round(taken, 2), "done": done, "common": int(report.intersection_count)}),
        encoding="ascii",
    )


def free_port() -> int:
    """Return a loopback port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def write_input(path: Path, rows: int, first: int, seed: int) -> None:
    """Write ``rows`` made-up 18-digit ids in random order."""
    ids = np.random.default_rng(seed).permutation(rows) + first
    texts = pa.array(np.char.mod("99%016d", ids))
    csv.write_csv(pa.table({"id": texts, "row": np.arange(rows)}), path, csv.WriteOptions(quoting_style="none"))


def main() -> None:
    """Prepare the inputs, run both sides, print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows on each side, half of them in common")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        rank, ports, folder = json.loads(options.side)
        side(rank, ports, folder)
        return
    traces = set(Path("/tmp").glob("psi_*.trace"))
    with tempfile.TemporaryDirectory() as folder:
        for rank in (0, 1):
            write_input(Path(folder) / f"{rank}.csv", options.rows, rank * options.rows // 2, rank)
        ports = [free_port(), free_port()]
        started = time.monotonic()
        running = [
            subprocess.Popen(
                [sys.executable, __file__, "--side", json.dumps([rank, ports, folder])],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for rank in (0, 1)
        ]
        sides = []
        for rank, process in enumerate(running):
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(f"side {rank} ended with {process.returncode}")
            measured = json.loads(Path(f"{folder}/{rank}.json").read_text(encoding="ascii"))
            wall, result = round(time.monotonic() - started, 2), round(measured.pop("done") - started, 2)
            cpu, peak = round(usage.ru_utime + usage.ru_stime, 2), usage.ru_maxrss // 1024
            sides.append({"wall_s": wall, "result_s": result, "cpu_s": cpu, "peak_rss_mib": peak, **measured})
    for trace in set(Path("/tmp").glob("psi_*.trace")) - traces:
        if folder.encode("ascii") in trace.read_bytes():
            trace.unlink()
    print(json.dumps({"rows": options.rows, "sides": sides}))


if __name__ == "__main__":
    main()
