"""Intersections as jobs, beside the same intersections by other libraries; in turn, on the same machine.

    python -m bench.psi [--cases NAME ...] [--peers NAME ...] [--long] [--runs N]
    python -m bench.psi --scale [--most ROWS]                 cost against rows and Ray workers, with a plot

Ours:    from the submission until the client hears that the job is released: signed request, admission at both nodes,
         gate and grants, rows unsealed and their keys normalised, the engine through the one port under TLS (and SM4,
         unless the case says "tls"), results sealed and durable at both, receipt co-signed. Ray is up, datasets are
         registered, and one intersection has run before (but at 1e7, where that makes no difference).
Peers:   ``bench/peer.py``: bare libraries without any of that, from the start of both processes, with whatever time
         they take to connect.
Memory:  one more run, watched from outside (``memory``), so that watching does not slow the runs that are timed. At 1e7
         the timed runs are watched, twice a second.
Checks:  every run finds the right number of rows. At the end of a case one more job, which gives out the shared keys,
         is compared with DuckDB's join of the files that were registered.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Final

import duckdb
import pyarrow.parquet as pq

from bench import psi_scale
from bench.memory import PARTS, PAUSE_S, Memory, cpu_by_part
from bench.nodes import Ready, environment, started
from bench.peer import PEERS, Peers
from bench.psi_cases import CASES, Case, is_current
from bench.record import Figure, compared, median, record
from sandbox.model import PsiOutput

NODES: Final = ("bank", "operator")
LARGE: Final = 5_000_000  # rows: a run takes so long that it needs no warm one before it, and may be watched
RARELY_S: Final = 0.5


def run_job(ready: Ready, case: Case) -> tuple[float, dict[str, int]]:
    """Run one job; return its seconds, and the milliseconds of its stages."""
    began = time.perf_counter()
    job = ready.align(case.engine, case.output)
    view = ready.client.wait(job.job_id)
    taken = time.perf_counter() - began
    if view.engine != case.uses:
        raise SystemExit(f"the job ran on {view.engine}, not on {case.uses}")
    outputs = ready.client.result(view.job_id).outputs
    if case.output is PsiOutput.ALIGNED:
        right = outputs["aligned"]["aligned"] == (ready.common + 5) // 10 * 10  # as the gate rounds
    else:
        right = len(outputs["members"]) == ready.common
    if not right:
        raise SystemExit("the job lost or invented rows")
    return taken, {stage.name: stage.milliseconds for stage in view.stages}


def compare_with_join(ready: Ready, case: Case) -> None:
    """Compare the shared keys that a job gives out with a join in the clear."""
    output = PsiOutput.MEMBERS if case.output is PsiOutput.MEMBERS else PsiOutput.MEMBERS_BOTH
    view = ready.client.wait(ready.align(case.engine, output).job_id)
    content = ready.client.result(view.job_id).files["members.parquet"]
    members = pq.read_table(io.BytesIO(content))
    left, right = (str(ready.ids(node)) for node in NODES)
    with duckdb.connect() as database:
        database.read_parquet(left).create_view("l")
        database.read_parquet(right).create_view("r")
        database.register("members", members)
        database.execute("CREATE TABLE joined AS SELECT l.id FROM l JOIN r USING (id)")
        differing = database.execute(
            "SELECT count(*) FROM ((SELECT id FROM joined EXCEPT ALL SELECT id FROM members)"
            " UNION ALL (SELECT id FROM members EXCEPT ALL SELECT id FROM joined))"
        ).fetchall()[0][0]
    if differing or members.num_rows != ready.common:
        raise SystemExit(f"the job and the join differ in {differing} rows")
    print(f"  {members.num_rows} shared keys, as DuckDB joins them", file=sys.stderr, flush=True)


def measure(name: str, case: Case, peers: Peers, command: str) -> list[Figure]:
    """Run ours and its peers in turn, then ours once more for its memory, and once to compare."""
    ours: list[float] = []
    used: list[dict[str, float]] = []
    stages: list[dict[str, int]] = []
    theirs: dict[str, list[dict[str, float]]] = {peer: [] for peer in case.at_most}
    first, hung_before = None, peers.hung.copy()
    with (
        environment(case.environment),
        tempfile.TemporaryDirectory(prefix="sbx-bench-") as folder,
        started(Path(folder) / "nodes", case.rows, case.right_rows, case.settings) as ready,
    ):
        roots = {node: ready.nodes.processes[node].pid for node in NODES}
        large = case.rows >= LARGE
        if not large:
            first, _ = run_job(ready, case)
        memory = Memory(roots, RARELY_S if large else PAUSE_S)
        for number in range(case.runs):
            before = _used(roots)
            with memory if large else nullcontext():
                taken, found = run_job(ready, case)
            ours.append(taken)
            stages.append(found)
            now = _used(roots)
            used.append({part: now[part] - before[part] for part in PARTS})
            shown = ", ".join(f"{part} {seconds:.2f}" for part, seconds in used[-1].items())
            _say(f"{name}, run {number + 1}: ours {taken:.2f} s (CPU: {shown}) {found}")
            for peer, results in theirs.items():
                if number < case.peer_runs.get(peer, case.runs):
                    result = peers.run(peer, case.rows)
                    results += [result] if result is not None else []
                    _say(f"{name}, run {number + 1}: {peer} {result}")
        if not large:
            with memory:
                run_job(ready, case)
        compare_with_join(ready, case)
    _say(f"{name}, memory at its peak: {memory.parts}")
    time_s = Figure("psi", name, round(median(ours), 3), "s", command, peak_mib=memory.peak_mib)
    figures: list[Figure] = []
    for peer, results in theirs.items():
        if results:
            case_name = name if peer == next(iter(CASES[name].at_most)) else f"{name} beside {peer}"
            their_s = median([result["seconds"] for result in results])
            figure = compared("psi", case_name, median(ours), PEERS[peer].title, their_s, "s", command)
            ratio = float(f"{figure.ours / their_s:.3g}")  # a hundredth would round to little
            figures.append(replace(figure, ratio=ratio, peak_mib=memory.peak_mib))
            _judge(f"{name} beside {peer}", "ratio", ratio, case.at_most[peer])
    if not figures:
        figures.append(time_s)
    for peer, count in (peers.hung - hung_before).items():
        figures.append(Figure("psi", f"{name}: hung runs", 0, "runs", command, PEERS[peer].title, count))
    parts = {part: median([run[part] for run in used]) for part in PARTS}
    figures += _details(name, case, first, parts, memory, theirs, command)
    if case.gib is not None:
        _judge(name, "peak in GiB", memory.peak_mib / 1024, case.gib)
    if case.seconds is not None:
        _judge(name, "seconds", median(ours), case.seconds)
    _table(name, ours, stages)
    return figures


def _used(roots: Mapping[str, int]) -> dict[str, float]:
    """Return the processor time that all nodes have used so far, by what for."""
    all_of_them = [cpu_by_part(pid) for pid in roots.values()]
    return {part: sum(used[part] for used in all_of_them) for part in PARTS}


def _details(
    name: str,
    case: Case,
    first: float | None,
    parts: Mapping[str, float],
    memory: Memory,
    theirs: Mapping[str, list[dict[str, float]]],
    command: str,
) -> list[Figure]:
    """Return the lines that belong to a case: processor time and memory, Ray's own, and what the first run costs."""
    figures = [Figure("psi", f"{name}: Ray's own processes a node", memory.ray_mib, "MiB", command)]
    figures += [Figure("psi", f"{name}: CPU, {part}", round(used, 2), "s", command) for part, used in parts.items()]
    cpu_s = sum(parts.values())
    peer = next((peer for peer, results in theirs.items() if results), "")
    cpu, peak = f"{name}: CPU of both sides, Ray's included", f"{name}: peak memory a node"
    if peer:
        title, results = PEERS[peer].title, theirs[peer]
        their_cpu, their_peak = (median([result[what] for result in results]) for what in ("cpu_s", "peak_mib"))
        figures.append(compared("psi", cpu, cpu_s, title, their_cpu, "s", command))
        figures.append(compared("psi", peak, memory.peak_mib, title, their_peak, "MiB", command))
    else:
        figures.append(Figure("psi", cpu, round(cpu_s, 3), "s", command))
        figures.append(Figure("psi", peak, memory.peak_mib, "MiB", command))
    if case.uses == "prepared-sm2" and first is not None:
        figures.append(Figure("psi", f"{name}: the first run, which prepares", round(first, 3), "s", command))
    return figures


def _table(name: str, ours: list[float], stages: list[dict[str, int]]) -> None:
    """Print where the median run's time went."""
    middle = stages[sorted(range(len(ours)), key=ours.__getitem__)[(len(ours) - 1) // 2]]
    width = max(map(len, middle))
    for stage, milliseconds in middle.items():
        _say(f"  {stage:<{width}} {milliseconds / 1000:8.3f} s")


def _judge(name: str, what: str, value: float, at_most: float) -> None:
    print(f"{name}: {what} {value:.3g}, wanted at most {at_most:.3g}: {'met' if value <= at_most else 'MISSED'}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=sorted(CASES), metavar="NAME", help=f"of: {'; '.join(CASES)}")
    parser.add_argument("--long", action="store_true", help="also the cases that take minutes a run")
    parser.add_argument("--runs", type=int, default=0, help="of ours; by default as the case says")
    parser.add_argument("--peers", nargs="*", choices=sorted(PEERS), help="of each case's only these")
    parser.add_argument("--scale", action="store_true", help="cost against rows and workers instead, with a plot")
    parser.add_argument("--most", type=int, default=max(psi_scale.ROWS), help="rows a side, with --scale")
    options = parser.parse_args(arguments)
    if options.scale:
        psi_scale.main(options.most)
        return
    names = options.cases or [name for name, case in CASES.items() if options.long or not case.takes_long]
    with tempfile.TemporaryDirectory(prefix="sbx-peers-") as folder:
        peers = Peers(Path(folder))
        for name in names:
            case = CASES[name]
            command = f"python -m bench.psi --cases {_quoted(name)}"
            if options.runs:
                case, command = replace(case, runs=options.runs), f"{command} --runs {options.runs}"
            if options.peers is not None:
                wanted = {peer: ratio for peer, ratio in case.at_most.items() if peer in options.peers}
                case, command = replace(case, at_most=wanted), f"{command} --peers {' '.join(wanted)}"
            figures = measure(name, case, peers, command)
            record(figures, stale=lambda bench, case: bench == "psi" and not is_current(case))
        for peer, count in peers.hung.items():
            print(f"{peer}: {count} hung runs, ended and made again")


def _quoted(name: str) -> str:
    return f'"{name}"' if " " in name else name


if __name__ == "__main__":
    main()
