"""Every figure again, and the table in README.md from them.

python -m bench.all             what takes minutes, and the plot: up to an hour on two cores
python -m bench.all --long      also intersections of 1e7 rows, and beside peers that take minutes a run
python -m bench.all --table     the table only
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench import demo, gate, governance, paillier, psi, rpc, sm2, sm2curve, sm4, tee, totals, upload
from bench.record import RESULTS

README: Final = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def table(rows: list[dict[str, Any]]) -> str:
    """Return the figures as a table in Markdown."""
    lines = ["| bench | case | ours | peer | peer's | ratio | load |", "|---|---|---:|---|---:|---:|---:|"]
    for row in rows:
        shown = [row["bench"], row["case"], f"{row['ours']:g} {row['unit']}", row["peer"] or ""]
        shown.append(f"{row['peer_value']:g} {row['unit']}" if row["peer"] else "")
        shown.append(f"{row['ratio']:g}" if row["ratio"] is not None else "")
        shown.append(row["versions"].get("load", ""))
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines)


def write_table() -> None:
    """Put the table of what is recorded into README.md."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))
    README.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Measure everything, one bench after the other, and rewrite the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    runs: list[tuple[Callable[[list[str]], None], list[str]]] = [
        (sm2.main, []),
        (sm2curve.main, ["--rows", "0"]),
        (sm4.main, []),
        (paillier.main, []),
        (rpc.main, []),
        (upload.main, []),
        (totals.main, []),
        (gate.main, []),
        (governance.main, []),
        (tee.main, []),
        (psi.main, ["--long"] if options.long else []),
        (psi.main, ["--scale"] if options.long else ["--scale", "--most", "3000000"]),
        (demo.main, []),
    ]
    for run, arguments in () if options.table else runs:
        run(arguments)
        write_table()  # what is measured so far, should a later one fail


if __name__ == "__main__":
    main()
