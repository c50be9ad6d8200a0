"""The bare ``spu`` intersection, for comparison with ours: two processes, RR22, TCP loopback, default allocator.

    python bench/psi_bare.py --rows 1000000 [--inputs FOLDER]

Prints one JSON line: seconds from the start of both sides until both result files were there (``seconds``) and inside
the protocol (``protocol_s``), CPU seconds of both processes and of the sorting processes the library starts, the larger
of the two peak resident sizes, and the number of common rows. Inputs are written before the clock starts, or found in
``--inputs``.
None of our fences is here: no barrier, no private directory, no checks. Do not copy it into a product.
``bench.peers.spu_ecdh`` runs the library's other protocol with the same code.
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
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv


def side(rank: int, ports: list[int], inputs: str, folder: str, curve: str) -> None:
    """Run one side and write what it measured to ``<folder>/<rank>.json``; without a curve the protocol is RR22."""
    from spu import libspu, psi

    link = libspu.link.Desc()
    link.recv_timeout_ms = 300_000
    for number, port in enumerate(ports):
        link.add_party(f"p{number}", f"127.0.0.1:{port}")
    options: dict[str, Any] = {"protocol": psi.PsiProtocol.PROTOCOL_RR22}
    if curve:
        params = psi.EcdhParams(curve=getattr(psi.EllipticCurveType, curve))
        options = {"protocol": psi.PsiProtocol.PROTOCOL_ECDH, "ecdh_params": params}
    context = libspu.link.create_brpc(link, rank)
    started = time.perf_counter()
    report = psi.psi_execute(
        psi.PsiExecuteConfig(
            protocol_conf=psi.PsiProtocolConfig(receiver_rank=0, broadcast_result=True, **options),
            input_params=psi.InputParams(path=f"{inputs}/{rank}.csv", selected_keys=["id"], keys_unique=True),
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


def write_inputs(folder: Path, rows: int) -> None:
    """Write ``rows`` made-up 18-digit ids a side in random order, half of them in common; once."""
    for rank in (0, 1):
        path = folder / f"{rank}.csv"
        if not path.exists():
            ids = np.random.default_rng(rank).permutation(rows) + rank * rows // 2
            texts = pa.array(np.char.mod("99%016d", ids))
            csv.write_csv(pa.table({"id": texts, "row": np.arange(rows)}), path, csv.WriteOptions(quoting_style="none"))


def run(rows: int, inputs: Path, curve: str = "") -> dict[str, Any]:
    """Run both sides once and return what was measured."""
    write_inputs(inputs, rows)
    traces = set(Path("/tmp").glob("psi_*.trace"))
    with tempfile.TemporaryDirectory() as folder:
        ports = [free_port(), free_port()]
        started = time.monotonic()
        running = [
            subprocess.Popen(
                [sys.executable, __file__, "--side", json.dumps([rank, ports, str(inputs), folder, curve])],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for rank in (0, 1)
        ]
        sides, cpu, peak = [], 0.0, 0
        for rank, process in enumerate(running):
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(f"side {rank} ended with {process.returncode}")
            sides.append(json.loads(Path(f"{folder}/{rank}.json").read_text(encoding="ascii")))
            cpu, peak = cpu + usage.ru_utime + usage.ru_stime, max(peak, usage.ru_maxrss // 1024)
    for trace in set(Path("/tmp").glob("psi_*.trace")) - traces:
        if folder.encode("ascii") in trace.read_bytes():
            trace.unlink()
    (inputs / "0.csv.meta").unlink(missing_ok=True)
    (inputs / "1.csv.meta").unlink(missing_ok=True)
    common = {found["common"] for found in sides}
    return {
        "seconds": round(max(found["done"] for found in sides) - started, 2),
        "protocol_s": max(found["protocol_s"] for found in sides),
        "cpu_s": round(cpu, 2),
        "peak_mib": peak,
        "common": common.pop() if len(common) == 1 else -1,
    }


def main(arguments: list[str] | None = None, curve: str = "") -> None:
    """Prepare the inputs, run both sides, print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows on each side, half of them in common")
    parser.add_argument("--inputs", type=Path, help="where both CSV files are, or are put")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.side:
        side(*json.loads(options.side))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(options.rows, options.inputs or Path(folder), curve)))


if __name__ == "__main__":
    main()
