"""What the jail costs: its start, a function over many rows, and a GROUP BY, beside the same without walls.

    python -m bench.tee [--rows 10000000] [--rounds 5] [--starts 20] [--into FILE]

Shapes:  four columns of doubles and a group of 1000 (40 bytes a row); the function is a logistic score with a points
         band and means by group, in numpy; one core each.
Units:   seconds of wall clock; medians.
Method:  "start" is from taking a warm jail to the first statement of the merchant's code in it, delivery of the job
         included. "run" is from the word to go to the last process gone, outputs written; the peer is the same
         function in a fresh process with the same libraries and thread settings, from opening the file to its output
         written, imports before; "processor time" is the function's own, and on a busy machine the one to compare, as
         a control group is scheduled as one. "walls alone" is that again beside a peer with the jail's settings of
         the C library's allocator too, which the jail has and an ordinary process has not (``launch.allocator``).
         "delivered" is what writing the table into the jail adds. "whole" is from taking the jail to holding the
         result; its peer is DuckDB in a process without walls, over the same table in a file. "answered" is the part
         of it that is no delivery. Ours and the peers ran in turn, each first in turn.
Fairness: both map the same bytes from a file that is in memory and touch them for the first time, the peer's in larger
         pages than ours. While a peer runs, a fresh copy of the table lies in memory as the delivered one does beside
         ours: without it the peer was left the memory that the machine has at hand, and the jail, whose delivery had
         used that up, memory that a virtual machine must first ask its host for. That was most of the difference.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from bench.record import RESULTS, Figure, compared, median, record
from sandbox.tee_sim.launch import allocator
from sandbox.tee_sim.levels import Level, Limits
from sandbox.tee_sim.pool import Pool
from sandbox.tee_sim.probes import strongest

LIMITS: Final = Limits(memory_mib=4096)
FIRST: Final = textwrap.dedent(
    """
    import time
    now = time.time()
    import pyarrow

    def run(tables, params):
        return {"at": pyarrow.table({"at": [now]})}
    """
)
MODEL: Final = textwrap.dedent(
    """
    import time
    import numpy
    import pyarrow

    def run(tables, params):
        began = time.process_time()
        people = tables["people"]
        columns = [people[name].to_numpy() for name in ("a", "b", "c", "d")]
        score = numpy.zeros(people.num_rows)
        for step in range(params["steps"]):
            line = 0.1 * step
            for weight, column in zip((0.8, -0.4, 0.2, 0.6), columns):
                line = line + weight * column
            score += 1.0 / (1.0 + numpy.exp(-line))
        group = people["g"].to_numpy()
        total = numpy.bincount(group, weights=score)
        band = numpy.bincount(numpy.clip(score, 0, 19).astype("int64"), minlength=20)
        print(time.process_time() - began)
        return {"means": pyarrow.table({"m": total / numpy.bincount(group)}), "bands": pyarrow.table({"n": band})}
    """
)
STEPS: Final = 3
SQL: Final = "SELECT g, count(*) AS n, sum(a) AS s, avg(b) AS m, max(c) AS x FROM people GROUP BY g ORDER BY g"
BARE: Final = textwrap.dedent(
    """
    import json, sys, time
    import numpy, pandas, pyarrow
    sys.path.insert(0, sys.argv[1])
    import model
    pyarrow.set_cpu_count(1)
    began = time.perf_counter()
    table = pyarrow.ipc.open_file(pyarrow.memory_map(sys.argv[2])).read_all()
    for name, result in model.run({"people": table}, json.loads(sys.argv[3])).items():
        with pyarrow.ipc.new_stream(f"{sys.argv[4]}/{name}.arrow", result.schema) as stream:
            stream.write_table(result)
    print(time.perf_counter() - began)
    """
)
BARE_SQL: Final = textwrap.dedent(
    """
    import sys, time
    import duckdb, pyarrow
    table = pyarrow.ipc.open_file(pyarrow.memory_map(sys.argv[1])).read_all()
    began = time.perf_counter()
    with duckdb.connect(":memory:", config={"threads": "1"}) as connection:
        connection.register("people", table)
        result = connection.execute(sys.argv[2]).to_arrow_table()
    print(time.perf_counter() - began)
    """
)
ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_NUM_THREADS"), "1")


def _program(folder: Path, source: str, about: dict[str, str]) -> Path:
    folder.mkdir()
    (folder / "model.py").write_text(source, encoding="utf-8")
    (folder / "program.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


@contextlib.contextmanager
def _copy_in_memory(file: Path) -> Iterator[None]:
    """Keep as much memory in use as a delivered table does."""
    handle = os.memfd_create("delivered")
    try:
        with file.open("rb") as source:
            while os.sendfile(handle, source.fileno(), None, 1 << 30):
                continue
        yield
    finally:
        os.close(handle)


def _bare(file: Path, code: str, *arguments: str, environment: Mapping[str, str] = ONE_THREAD) -> list[float]:
    """Return what the code printed."""
    command = [sys.executable, "-c", code, *arguments]
    with _copy_in_memory(file):
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return [float(line) for line in done.stdout.split()]


def starts(level: Level, folder: Path, rounds: int, command: str) -> list[Figure]:
    """Measure how long a merchant waits for the first statement, warm and cold."""
    program = _program(folder / "first", FIRST, {"form": "python", "entry": "model.py"})
    taken: dict[str, list[float]] = {"warm": [], "cold": []}
    for kind, rows in taken.items():
        with Pool(kind == "warm", level, LIMITS, scratch=folder / "scratch") as pool:
            for _ in range(rounds if kind == "warm" else max(3, rounds // 4)):
                for waiting in pool.waiting:
                    waiting.wait_ready()
                began = time.time()
                with pool.take() as jail:
                    outcome = jail.run(program, {}, b"", threading.Event())
                rows.append(pa.ipc.open_stream(outcome.tables["at"]).read_all()["at"][0].as_py() - began)
    return [
        Figure("tee", f"{level}: start of a {kind} jail", round(median(rows) * 1000, 1), "ms", command)
        for kind, rows in taken.items()
    ]


def throughput(level: Level, folder: Path, file: Path, rounds: int, command: str) -> list[Figure]:
    """Run the same function bare and in the jail."""
    program = _program(folder / "model", MODEL, {"form": "python", "entry": "model.py"})
    out = folder / "out"
    out.mkdir()
    params = json.dumps({"steps": STEPS})
    tuned = {**ONE_THREAD, **allocator(LIMITS.memory_mib)}
    peers: dict[str, list[list[float]]] = {"plain": [], "tuned": []}
    ours: list[list[float]] = []
    delivered: list[float] = []

    def bare(name: str, environment: Mapping[str, str]) -> None:
        peers[name].append(_bare(file, BARE, str(program), str(file), params, str(out), environment=environment))

    def jailed() -> None:
        for waiting in pool.waiting:
            waiting.wait_ready()
        with pool.take() as jail:
            began = time.perf_counter()
            outcome = jail.run(program, {"people": file}, params.encode(), threading.Event())
            delivered.append(time.perf_counter() - began - outcome.seconds)
        expected = (out / "means.arrow").read_bytes()  # the plain peer was first
        assert outcome.tables["means"] == expected  # the same bytes, or the comparison is of nothing
        ours.append([float(outcome.log), outcome.seconds])

    with Pool(1, level, LIMITS, scratch=folder / "scratch") as pool:
        turns = [lambda: bare("plain", ONE_THREAD), lambda: bare("tuned", tuned), jailed]
        for first in range(rounds):
            for place in range(len(turns)):
                turns[(first + place) % len(turns)]()
    (cpu, taken), (cpu_bare, bare_taken), (cpu_tuned, _) = (
        [median(column) for column in zip(*rows, strict=True)] for rows in (ours, peers["plain"], peers["tuned"])
    )
    peer = "the same function without walls"
    case, same = f"{level}: python over the rows", f"{peer}, same allocator"
    return [
        compared("tee", f"{case}: run", taken, peer, bare_taken, "s", command),
        compared("tee", f"{case}: run, processor time", cpu, peer, cpu_bare, "s", command),
        compared("tee", f"{case}: walls alone, processor time", cpu, same, cpu_tuned, "s", command),
        Figure("tee", f"{case}: delivered", round(median(delivered), 3), "s", command),
    ]


def query(level: Level, folder: Path, file: Path, rounds: int, command: str) -> list[Figure]:
    """Answer the same statement with and without walls."""
    program = _program(folder / "sql", "", {"form": "sql", "sql": SQL})
    peers: list[float] = []
    whole: list[float] = []
    answered: list[float] = []

    def bare() -> None:
        peers.extend(_bare(file, BARE_SQL, str(file), SQL))

    def jailed() -> None:
        for waiting in pool.waiting:
            waiting.wait_ready()
        began = time.perf_counter()
        with pool.take() as jail:
            outcome = jail.run(program, {"people": file}, b"", threading.Event())
            whole.append(time.perf_counter() - began)
        answered.append(outcome.seconds)
        assert pa.ipc.open_stream(outcome.tables["result"]).read_all().num_rows == 1000

    with Pool(1, level, LIMITS, scratch=folder / "scratch", preload=("duckdb",)) as pool:
        for first in range(rounds):
            for turn in (bare, jailed) if first % 2 else (jailed, bare):
                turn()
    case, peer = f"{level}: GROUP BY over the rows", "DuckDB without walls"
    return [
        compared("tee", f"{case}: whole", median(whole), peer, median(peers), "s", command),
        compared("tee", f"{case}: answered", median(answered), peer, median(peers), "s", command),
    ]


def main(arguments: list[str] | None = None) -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--into", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    command = f"python -m bench.tee --rows {options.rows} --rounds {options.rounds} --starts {options.starts}"
    level = strongest()
    random = np.random.default_rng(1)
    columns = {name: random.standard_normal(options.rows) for name in ("a", "b", "c", "d")}
    table = pa.table({**columns, "g": random.integers(0, 1000, options.rows)})
    with tempfile.TemporaryDirectory(prefix="sbx-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        file = folder / "people.arrow"
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        del table, columns
        figures = starts(level, folder, options.starts, command)
        figures += throughput(level, folder, file, options.rounds, command)
        figures += query(level, folder, file, options.rounds, command)
    record(figures, options.into)


if __name__ == "__main__":
    main()
