"""The output gate by itself: what one owner's node does between a computation and its grant.

    python -m bench.gate [--earlier 1000000] [--runs 15]

Shapes:  *history*: one new group beside ``earlier`` groups of the same controller in SQLite, in the write transaction
         as in a job: "spread" have 10 to 1 000 000 rows, evenly on a logarithmic scale; "equal, large" all have as many
         rows as the new one (5 000), as have "equal, small" (20); "equal, the same" all are one set of people. Then a
         table of 10 000 groups beside the spread ones. *table*: 100 000 groups with a number of rows, a count and two
         means. *sketches*: 1 000 000 people, in one group and in 1 000.
Ours:    history without the first check after a start, which reads the table and is a line of its own. Checks that a
         group with three people fewer is refused and a harmless one is not.
There is no peer: of the libraries at hand none compares releases; acro flags them for a person to look at.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import insert

from bench.record import Figure, median, record
from sandbox.gate.history import Asked, conflict
from sandbox.gate.judge import judge
from sandbox.gate.release import release
from sandbox.kinds.kind import Form
from sandbox.kinds.population import BITS, Sketcher
from sandbox.model import JobKind, OutputClass, OutputRule, Plan, Population, RawResult
from sandbox.store import Store, released_populations

COMMAND: Final = "python -m bench.gate"
LEAST: Final = 10
CELLS, GROUPS, PEOPLE = 100_000, 1000, 1_000_000
TABLE: Final = 10_000
_AT_ONCE: Final = 20_000

Rows = npt.NDArray[np.int64]


def keys(first: int, count: int) -> pa.Array:
    """Return made-up identifiers of 18 digits."""
    return pa.array(np.char.mod("99%016d", np.arange(first, first + count)), pa.string())


def sketches(rows: Rows, random: np.random.Generator) -> list[bytes]:
    """Return sketches of groups of so many people who are drawn at random: each bit is one as often as theirs are."""
    chance = (1 - (1 - 2 / BITS) ** rows.astype(float)) / 2
    bits = random.random((len(rows), BITS), np.float32) < chance[:, None]
    sums = random.integers(0, 1 << 63, len(rows)).astype("<i8").view(np.uint8).reshape(-1, 8)
    packed = np.concatenate([np.packbits(bits, axis=1), sums], axis=1)
    return [row.tobytes() for row in packed]


def fill(store: Store, rows: Rows, made: Callable[[Rows], list[bytes]]) -> None:
    """Note earlier groups, twenty in a job, as ``history.note`` does."""
    for first in range(0, len(rows), _AT_ONCE):
        some = rows[first : first + _AT_ONCE]
        lines = [
            {
                "controller": "bank",
                "job_id": f"{(first + place) // 20:032x}",
                "name": f"group {place % 20}",
                "is_whole": 0,
                "rows": count,
                "size": count,
                "sketch": sketch,
                "partners": "tax",
                "content": b"content".ljust(32),
                "time_ms": first,
            }
            for place, (count, sketch) in enumerate(zip(some.tolist(), made(some), strict=True))
        ]
        with store.write(flush=False) as conn:
            conn.execute(insert(released_populations), lines)


def ask(store: Store, populations: list[Population]) -> tuple[float, str]:
    """Return how long the check of a job took, in milliseconds, and what it said."""
    asked = Asked("bank", "f" * 32, frozenset({"tax"}), b"content".ljust(32))
    began = time.perf_counter()
    with store.write() as conn:
        reason = conflict(conn, asked, populations, LEAST)
    return 1000 * (time.perf_counter() - began), reason


def check_history(earlier: int, runs: int) -> Iterator[Figure]:
    """Time one new group beside many earlier ones."""
    random, sketcher = np.random.default_rng(7), Sketcher(bytes(32))
    spread = np.exp(random.uniform(np.log(10), np.log(1e6), earlier)).astype(np.int64)
    same = sketcher.of("same", keys(0, 5000), 5000)
    cases: dict[str, tuple[Rows, Callable[[Rows], list[bytes]], int]] = {
        "spread": (spread, lambda rows: sketches(rows, random), 1000),
        "equal, large": (np.full(earlier, 5000), lambda rows: sketches(rows, random), 5000),
        "equal, small": (np.full(earlier, 20), lambda rows: sketches(rows, random), 20),
        "equal, the same": (np.full(earlier, 5000), _always(same.sketch), 5000),
    }
    for case, (rows, made, own) in cases.items():
        with tempfile.TemporaryDirectory(prefix="bench-gate-") as folder:
            store = Store.at(Path(folder) / "store.db")
            store.create()
            fill(store, rows, made)
            firsts = [0 if case == "equal, the same" else 10_000 * (1 + turn) for turn in range(runs)]
            new = [sketcher.of("new", keys(first, own), own) for first in firsts]
            opened, _ = ask(store, new[:1])
            if case == "spread":
                yield Figure("gate", f"history of {earlier}, spread: first check", round(opened, 1), "ms", COMMAND)
            times, reasons = zip(*(ask(store, [one]) for one in new), strict=True)
            yield Figure("gate", f"history of {earlier}, {case}: one group", round(median(times), 2), "ms", COMMAND)
            assert not any(reasons)
            if case == "spread":
                yield _table_beside(store, sketcher, earlier, random)
            fill(store, np.full(1, own), _always(new[-1].sketch))
            _, reason = ask(store, [sketcher.of("few", keys(firsts[-1], own - 3), own - 3)])
            assert reason
            store.close()


def _always(sketch: bytes) -> Callable[[Rows], list[bytes]]:
    return lambda rows: [sketch] * len(rows)


def _table_beside(store: Store, sketcher: Sketcher, earlier: int, random: np.random.Generator) -> Figure:
    codes = random.integers(0, TABLE, PEOPLE).astype(np.int32)
    sizes = np.bincount(codes, minlength=TABLE).tolist()
    table = sketcher.groups([f"cell {n}" for n in range(TABLE)], keys(10**9, PEOPLE), codes, sizes)
    took, _ = ask(store, list(table))
    return Figure("gate", f"history of {earlier}, spread: {TABLE} groups", round(took, 1), "ms", COMMAND)


def check_table(runs: int) -> Iterator[Figure]:
    """Time the judgement and the release of a large table."""
    random = np.random.default_rng(8)
    rows, present = random.integers(20, 10_000, CELLS), random.integers(10, 20, CELLS)
    labels = pa.table({"group": pa.array([f"group {n}" for n in range(CELLS)], pa.string())})
    table = labels
    for name, column in {"rows": rows, "present": present}.items():
        table = table.append_column(name, pa.array(column, pa.int64()))
    for name in ("mean_paid", "mean_income"):
        table = table.append_column(name, pa.array(random.random(CELLS) * 1e6, pa.float64()))
    sink = io.BytesIO()
    pq.write_table(table, sink)
    groups = {f"group.{n}": count for n, count in enumerate(rows.tolist())}
    groups |= {f"group.{n}.0.0": count for n, count in enumerate(present.tolist())}
    rule = OutputRule(JobKind.AGGREGATE, "totals", OutputClass.AGGREGATE, 10, 10, CELLS, 1 << 28)
    raw = RawResult({"rows": int(rows.sum()), **groups}, {}, {"totals": "totals"})
    counts, places = frozenset({"rows", "present"}), {"mean_paid": 2, "mean_income": 2}
    form = Form(tuple(table.column_names), labels, counts, places)
    plan = _plan(rule)
    times: dict[str, list[float]] = {"judge": [], "judge and release": []}
    for _ in range(runs):
        began = time.perf_counter()
        judge(plan, raw.gate_inputs)
        times["judge"].append(time.perf_counter() - began)
        began = time.perf_counter()
        released = release(plan, raw, {"totals": sink.getvalue()}, lambda name: form)
        times["judge and release"].append(time.perf_counter() - began)
    shown = pq.read_table(io.BytesIO(released.outputs[0].content))
    assert np.array_equal(shown["rows"].to_numpy(), (rows + 5) // 10 * 10)
    for case, taken in times.items():
        yield Figure("gate", f"table of {CELLS} groups: {case}", round(1000 * median(taken), 1), "ms", COMMAND)


def _plan(rule: OutputRule) -> Plan:
    return Plan(
        job_id="a" * 32,
        proposer="bank",
        kind=rule.kind,
        scenario_digest=bytes(32),
        submission_digest=bytes(32),
        parties=(),
        engine="paillier",
        outputs=(rule,),
        recipient="0" * 32,
        recipient_node="bank",
        deadline_s=1,
        reveals=(),
        isolation="engine-child",
        time_ms=0,
    )


def check_sketches(runs: int) -> Iterator[Figure]:
    """Time the sketching of people."""
    sketcher, people = Sketcher(bytes(32)), keys(0, PEOPLE)
    codes = np.random.default_rng(9).integers(-1, GROUPS, PEOPLE).astype(np.int32)
    cases: dict[str, Callable[[], object]] = {
        "one group": lambda: sketcher.of("all", people, PEOPLE),
        f"{GROUPS} groups": lambda: sketcher.groups([""] * GROUPS, people, codes, [0] * GROUPS),
    }
    for case, run in cases.items():
        times = []
        for _ in range(max(3, runs // 3)):
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
        yield Figure("gate", f"sketches of {PEOPLE} people: {case}", round(1000 * median(times), 1), "ms", COMMAND)


def main(arguments: list[str] | None = None) -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--earlier", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args(arguments)
    for figures in (
        check_table(options.runs),
        check_sketches(options.runs),
        check_history(options.earlier, options.runs),
    ):
        record(list(figures))


if __name__ == "__main__":
    main()
