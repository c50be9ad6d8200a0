"""Every figure again, and the table in README.md from them.

python -m bench.all
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from bench import demo, psi, rpc, sm2, upload
from bench.record import RESULTS

README: Final = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def table(rows: list[dict[str, Any]]) -> str:
    """Return the figures as a table in Markdown."""
    lines = ["| bench | case | ours | peer | peer's | ratio |", "|---|---|---:|---|---:|---:|"]
    for row in rows:
        shown = [row["bench"], row["case"], f"{row['ours']:g} {row['unit']}", row["peer"] or ""]
        shown.append(f"{row['peer_value']:g} {row['unit']}" if row["peer"] else "")
        shown.append(f"{row['ratio']:g}" if row["ratio"] is not None else "")
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
    for bench in () if "--table" in sys.argv[1:] else (sm2, rpc, upload, psi, demo):
        bench.main([])
    write_table()


if __name__ == "__main__":
    main()
