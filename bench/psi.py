"""An alignment as a job, beside the same intersection as a bare script; alternating, on the same machine.

    python -m bench.psi [--rows 1000000] [--runs 5]

Ours:    from the submission until the client hears that the job is released: signed request, admission at both nodes,
         gate and grants, rows unsealed and their keys normalised, RR22 in fenced children through the one port under
         TLS and SM4, both alignments sealed and durable, result sealed, receipt co-signed. Ray is up, datasets are
         registered, and one alignment has run before.
Peer:    ``psi_bare``: two processes and nothing else, from their start until both result files are there; reads
         prepared CSV files, one plain TCP port each.
         The library hangs in its first exchange now and then where there is no barrier, and the bare script has none:
         such a run is ended after ``HUNG_S``, counted, and made again. It does not count in the peer's time.
Memory:  one more run, watched from outside (``memory``), so that watching does not slow the runs that are timed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from bench.memory import Memory, cpu_seconds
from bench.nodes import Ready, started
from bench.record import Figure, compared, median, record

PEER: Final = "spu RR22, bare script"
HUNG_S: Final = 90.0  # ten times what a run takes


def bare(rows: int) -> dict[str, float] | None:
    """Run the bare script once; None if it hung."""
    line = [sys.executable, str(Path(__file__).with_name("psi_bare.py")), "--rows", str(rows)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        out, _ = process.communicate(timeout=HUNG_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # a group of its own, with both sides in it
        process.communicate()
        return None
    if process.returncode:
        raise SystemExit(f"the bare script ended with {process.returncode}")
    sides: list[dict[str, Any]] = json.loads(out)["sides"]
    if any(side["common"] != rows // 2 for side in sides):
        raise SystemExit("the bare script lost or invented rows")
    return {
        "result_s": max(side["result_s"] for side in sides),
        "protocol_s": max(side["protocol_s"] for side in sides),
        "cpu_s": sum(side["cpu_s"] for side in sides),
        "peak_mib": max(side["peak_rss_mib"] for side in sides),
    }


def align(ready: Ready) -> tuple[float, dict[str, int]]:
    """Run one job; return its seconds, and the milliseconds of its stages."""
    began = time.perf_counter()
    job = ready.align()
    view = ready.client.wait(job.job_id)
    taken = time.perf_counter() - began
    found = ready.client.result(view.job_id).outputs["aligned"]["aligned"]
    if found != ready.left.rows // 2 // 10 * 10:
        raise SystemExit("the job lost or invented rows")
    return taken, {stage.name: stage.milliseconds for stage in view.stages}


def measure(rows: int, runs: int, command: str) -> list[Figure]:
    """Run both in turn, then ours once more for its memory."""
    ours: list[float] = []
    used: list[float] = []
    theirs: list[dict[str, float]] = []
    hung = 0
    with tempfile.TemporaryDirectory(prefix="sbx-bench-") as folder, started(Path(folder) / "nodes", rows) as ready:
        roots = {name: ready.nodes.processes[name].pid for name in ("bank", "operator")}
        align(ready)
        for number in range(runs):
            before = sum(map(cpu_seconds, roots.values()))
            taken, stages = align(ready)
            ours.append(taken)
            used.append(sum(map(cpu_seconds, roots.values())) - before)
            while (measured := bare(rows)) is None:
                hung += 1
            theirs.append(measured)
            print(
                f"run {number + 1}: ours {taken:.2f} s ({used[-1]:.2f} s CPU) {stages}, bare {theirs[-1]}",
                file=sys.stderr,
                flush=True,
            )
        with Memory(roots) as memory:
            align(ready)
    case = f"{rows} x {rows}, {rows // 2} common"
    peer_s = median([run["result_s"] for run in theirs])
    time_s = compared("psi", f"{case}: submit to released", median(ours), PEER, peer_s, "s", command)
    cpu_s = compared(
        "psi",
        f"{case}: CPU of both sides, Ray's included",
        median(used),
        PEER,
        median([run["cpu_s"] for run in theirs]),
        "s",
        command,
    )
    peak = compared(
        "psi",
        f"{case}: peak memory a node (node, busy Ray worker, engine child)",
        memory.peak_mib,
        PEER,
        median([run["peak_mib"] for run in theirs]),
        "MiB",
        command,
    )
    rays = Figure("psi", f"{case}: Ray's own processes a node", memory.ray_mib, "MiB", command)
    hangs = Figure("psi", f"{case}: hung runs", 0, "runs", command, PEER, hung)
    return [replace(time_s, peak_mib=memory.peak_mib), cpu_s, peak, rays, hangs]


def main(arguments: list[str] | None = None) -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="ids on each side, half of them in common")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(arguments)
    command = f"python -m bench.psi --rows {options.rows} --runs {options.runs}"
    record(measure(options.rows, options.runs, command))


if __name__ == "__main__":
    main()
