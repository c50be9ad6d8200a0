"""What an intersection costs as sets grow, and as a node gives Ray more cores; a table and a plot.

    python -m bench.psi --scale

Rows:    1e4 to 1e7 a side, half in common, engine RR22, sealed with TLS; one run each after a warm one, seconds from
         submission to release. Everything is on one machine: with two cores in all, a second core for Ray can only
         help where the other side leaves one idle.
Plot:    ``bench/psi-scale.svg``: seconds against rows, both axes logarithmic, one line a number of Ray's cores, and a
         line of constant cost a row through the largest measurement.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.nodes import Ready, started
from bench.record import Figure, record
from sandbox.model import PsiEngine

PLOT: Final = Path(__file__).with_name("psi-scale.svg")
ROWS: Final = (10_000, 100_000, 1_000_000, 3_000_000, 10_000_000)
CORES: Final = (1, 2)
COMMAND: Final = "python -m bench.psi --scale"


def seconds(ready: Ready) -> float:
    """Run one job."""
    began = time.perf_counter()
    view = ready.client.wait(ready.align(PsiEngine.RR22).job_id)
    taken = time.perf_counter() - began
    if ready.client.result(view.job_id).outputs["aligned"]["aligned"] != ready.common:
        raise SystemExit("the job lost or invented rows")
    return taken


def measure(rows_of_all: Sequence[int]) -> dict[int, dict[int, float]]:
    """Return seconds by Ray's cores and rows."""
    found: dict[int, dict[int, float]] = {cores: {} for cores in CORES}
    for rows in rows_of_all:
        for cores in CORES:
            with (
                tempfile.TemporaryDirectory(prefix="sbx-bench-") as folder,
                started(Path(folder) / "nodes", rows, settings={"seal": "tls", "ray_cpus": cores}) as ready,
            ):
                if rows <= 1_000_000:
                    seconds(ready)
                found[cores][rows] = seconds(ready)
            print(f"{rows} rows, Ray with {cores}: {found[cores][rows]:.2f} s", flush=True)
    return found


def plot(found: dict[int, dict[int, float]]) -> None:
    """Write the picture."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=(6, 4), layout="constrained")
    FigureCanvasSVG(picture)
    axes = picture.subplots()
    for cores, by_rows in found.items():
        axes.loglog(list(by_rows), list(by_rows.values()), "o-", label=f"ray_cpus = {cores}")
    sizes = list(found[CORES[0]])
    a_row = min(by_rows[sizes[-1]] for by_rows in found.values()) / sizes[-1]
    axes.loglog(sizes, [a_row * rows for rows in sizes], ":", label=f"{1e6 * a_row:.1f} µs a row of one side")
    axes.set_xlabel("rows on each side, half of them in common")
    axes.set_ylabel("seconds, submission to release")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    picture.savefig(PLOT, format="svg", metadata={"Date": None})


def main(most: int) -> None:
    """Measure up to ``most`` rows, record and draw."""
    found = measure([rows for rows in ROWS if rows <= most])
    command = COMMAND if most >= max(ROWS) else f"{COMMAND} --most {most}"
    figures = [
        Figure("psi", f"scale: {rows} rows a side, ray_cpus = {cores}", round(taken, 2), "s", command)
        for cores, by_rows in found.items()
        for rows, taken in by_rows.items()
    ]
    record(figures)
    plot(found)
    print(f"plot: {PLOT}")
