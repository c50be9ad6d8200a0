"""Put what ``sandbox.psi.cost`` reckons into docs/intersections.md, between the marks; with ``--check`` only compare.

python docs/costs.py [--check]

The table is for one core a job at each party, a line of 1 Gbit/s, SM4-GCM records, and the curve's
AVX512 back end. A node reckons with its own settings and back end: ``sandbox job plan`` tells its figures.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sandbox.psi.cost import Cost, estimate

PAGE = Path(__file__).parent / "intersections.md"
MARKS = re.compile(r"(<!-- costs:begin -->\n).*?(<!-- costs:end -->)", re.DOTALL)
SIZES = ((1_000, 1_000_000), (1_000_000, 1_000_000), (10_000_000, 10_000_000))
ROWS = (
    ("rr22", "rr22", False),
    ("ecdh-sm2", "ecdh-sm2", False),
    ("ecdh-x25519", "ecdh-x25519", False),
    ("prepared-sm2, first time", "prepared-sm2", False),
    ("prepared-sm2, again", "prepared-sm2", True),
    ("count-sm2 (size)", "count-sm2", False),
    ("loads-sm2 (sums)", "loads-sm2", False),
)


def render() -> str:
    """Return the table."""
    heads = [f"{left:,} × {right:,}" for left, right in SIZES]
    lines = ["| Engine | " + " | ".join(heads) + " |", "|---|" + "---|" * len(SIZES)]
    for name, engine, prepared in ROWS:
        cells = [_cell(_cost(engine, left, right, prepared)) for left, right in SIZES]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Fill or check the page."""
    text = PAGE.read_text(encoding="utf-8")
    filled, found = MARKS.subn(lambda marks: marks[1] + render() + marks[2], text)
    if found != 1:
        raise SystemExit("the marks of the costs are missing, or there more than once")
    if filled == text:
        return 0
    if "--check" in arguments:
        print(f"{PAGE.name}: the costs are not those of sandbox.psi.cost; run `python docs/costs.py`")
        return 1
    PAGE.write_text(filled, encoding="utf-8")
    return 0


def _cost(engine: str, left: int, right: int, prepared: bool) -> Cost:
    return estimate(engine, left, right, link_mbit=1000, cores=1, backend="ifma", seal="sm4", prepared=prepared)


def _cell(cost: Cost) -> str:
    return f"{_number(cost.seconds)} s, {_number(cost.bytes / 1e6)} MB"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
