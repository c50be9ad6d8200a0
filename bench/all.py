"""Every figure again; ``make bench`` also puts them into the pages (``docs/figures.py``).

python -m bench.all             what takes minutes, and the plot: up to an hour on two cores
python -m bench.all --long      also intersections of 1e7 rows, and beside peers that take minutes a run
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from bench import demo, gate, governance, paillier, psi, rpc, sm2, sm2curve, sm4, tee, totals, upload


def main() -> None:
    """Measure everything, one bench after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true")
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
    for run, arguments in runs:
        run(arguments)


if __name__ == "__main__":
    main()
