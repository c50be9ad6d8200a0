"""Put the figures of ``bench/results.json`` into the READMEs, between the marks; with ``--check`` only compare.

    python docs/figures.py [--check]

The READMEs show the cases named in ``SHOWN``, ``bench/README.md`` all that was measured, and how busy the machine was.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MARKS = re.compile(r"(<!-- figures:begin -->\n).*?(<!-- figures:end -->)", re.DOTALL)
HEADS = {
    "README.md": ("What", "Ours", "Peer", "Ratio", "Command"),
    "README.zh-CN.md": ("项目", "本项目", "对照", "比值", "命令"),
}
ALL = "bench/README.md"
# Which cases of a bench stand in the READMEs: those whose name matches as a whole.
SHOWN = {
    "applicant": r".*",
    "demo": r"whole.*",
    "gate": r"(history.*one group|table.*)",
    "paillier": r"(column sum|row|decrypt).*, 2048 bits.*, beside (phe|sf-heu)",
    "psi": r"(?!scale)[^:]*",  # what comes after a colon is a detail of a case
    "rpc": r".*median",
    "sm2": r".*",
    "sm2curve": r"multiply.*",
    "sm4": r"(seal|open) (4 KiB|1 MiB).*",
    "tee": r".*",
    "totals": r".*",
    "upload": r".*sealed",
}


def shown(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the results that the READMEs show."""
    return [one for one in results if one["bench"] in SHOWN and re.fullmatch(SHOWN[one["bench"]], one["case"])]


def render(results: list[dict[str, Any]], head: tuple[str, ...]) -> str:
    """Return the table, or nothing where nothing was measured."""
    if not results:
        return ""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for one in results:
        ours = f"{_number(one['ours'])} {one['unit']}"
        if one["peak_mib"] is not None:
            ours += f" (peak {one['peak_mib']} MiB)"
        peer = f"{_number(one['peer_value'])} {one['unit']}: {one['peer']}" if one["peer"] else "–"
        ratio = "–" if one["ratio"] is None else f"{one['ratio']:.2f}"
        lines.append(f"| {one['bench']}: {one['case']} | {ours} | {peer} | {ratio} | `{one['command']}` |")
    return "\n".join(lines) + "\n"


def render_all(results: list[dict[str, Any]]) -> str:
    """Return the table of everything."""
    lines = ["| bench | case | ours | peer | peer's | ratio | load |", "|---|---|---:|---|---:|---:|---:|"]
    for one in results:
        cells = [one["bench"], one["case"], f"{one['ours']:g} {one['unit']}", one["peer"] or ""]
        cells.append(f"{one['peer_value']:g} {one['unit']}" if one["peer"] else "")
        cells.append(f"{one['ratio']:g}" if one["ratio"] is not None else "")
        cells.append(one["versions"].get("load", ""))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def fill(text: str, table: str) -> str:
    """Return ``text`` with ``table`` between its marks."""
    filled, found = MARKS.subn(lambda marks: marks[1] + table + marks[2], text)
    if found != 1:
        raise SystemExit("the marks of the figures are missing, or there more than once")
    return filled


def main(arguments: list[str]) -> int:
    """Fill or check every README."""
    source = ROOT / "bench" / "results.json"
    results = json.loads(source.read_text(encoding="utf-8")) if source.exists() else []
    stale = False
    tables = {name: render(shown(results), head) for name, head in HEADS.items()} | {ALL: render_all(results)}
    for name, table in tables.items():
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        filled = fill(text, table)
        if filled != text and "--check" in arguments:
            print(f"{name}: the figures are not those of bench/results.json; run `make figures`")
            stale = True
        elif filled != text:
            path.write_text(filled, encoding="utf-8")
    return int(stale)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
