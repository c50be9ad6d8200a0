"""A file of many rows uploaded, checked and sealed: how long, and how much memory the node needs for it.

    python -m bench.upload [--rows 1000000]

Shapes:  two columns, ids and numbers; the witness takes it, which has no Ray, so that the node's memory is the node's.
Memory:  of the node's process, watched from outside; ``idle`` is before the upload, the rest is what the upload needs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from bench.memory import Memory, resident_mib
from bench.nodes import register
from bench.record import Figure, record
from sandbox.demo.nodes import LocalNodes


def measure(rows: int, command: str) -> list[Figure]:
    """Upload once to a fresh node."""
    with tempfile.TemporaryDirectory(prefix="sbx-bench-") as folder, LocalNodes(Path(folder) / "nodes") as nodes:
        nodes.person("witness-owner", "witness", ["owner"])
        pid = nodes.processes["witness"].pid
        register(nodes, "witness", 1000, 0, "small")
        idle = resident_mib(pid)
        began = time.perf_counter()
        with Memory({"witness": pid}) as memory:
            register(nodes, "witness", rows, 0, "large")
        taken = time.perf_counter() - began
    return [
        Figure("upload", f"{rows} rows: written, uploaded, checked, sealed", round(taken, 2), "s", command),
        Figure("upload", "node before it", idle, "MiB", command),
        Figure("upload", f"{rows} rows: node's peak", memory.peak_mib, "MiB", command, peak_mib=memory.peak_mib),
    ]


def main(arguments: list[str] | None = None) -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args(arguments)
    record(measure(options.rows, f"python -m bench.upload --rows {options.rows}"))


if __name__ == "__main__":
    main()
