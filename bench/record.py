"""The figures: ``bench/results.json``, a list of objects, one a bench and case; a new measurement replaces the old one.

    {bench, case, ours, peer, peer_value, unit, ratio, peak_mib, versions, command}

Shapes:  ``ours`` and ``peer_value`` are in ``unit``; ``ratio`` is ours over the peer's for the same work, so less than
         1 means that we are faster. ``peer``, ``peer_value``, ``ratio`` and ``peak_mib`` are null where there is none.
         Nothing is written that was not measured by the command named.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).parent / "results.json"
_PACKAGES: Final = ("data-sandbox", "spu", "grpcio", "ray", "cryptography", "numpy", "pyarrow")


def versions() -> dict[str, str]:
    """Return what was measured, and on what: libraries, machine, and how busy it was in the minute before."""
    found = {"python": platform.python_version(), "cores": str(os.cpu_count()), "machine": platform.machine()}
    found["load"] = f"{os.getloadavg()[0]:.1f}"
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    bench: str
    case: str
    ours: float
    unit: str
    command: str
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    peak_mib: int | None = None
    versions: dict[str, str] = field(default_factory=versions)


def compared(bench: str, case: str, ours: float, peer: str, peer_value: float, unit: str, command: str) -> Figure:
    """Return a figure beside a peer's for the same work."""
    ratio = round(ours / peer_value, 2)
    return Figure(bench, case, round(ours, 3), unit, command, peer, round(peer_value, 3), ratio)


def median(values: Sequence[float]) -> float:
    """Return the median; of an even number the mean of the middle two."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that ``share`` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def record(
    figures: Sequence[Figure], path: Path = RESULTS, *, stale: Callable[[str, str], bool] = lambda bench, case: False
) -> None:
    """Put figures into the file and print them.

    Args:
        stale: whether a recorded bench and case is one that nothing measures any more; such are dropped.
    """
    kept: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    kept = [old for old in kept if not stale(old["bench"], old["case"])]
    fresh = {(figure.bench, figure.case) for figure in figures}
    kept = [old for old in kept if (old["bench"], old["case"]) not in fresh]
    kept += [asdict(figure) for figure in figures]
    names = ("bench", "case", "ours", "peer", "peer_value", "unit", "ratio", "peak_mib", "versions", "command")
    ordered = sorted(kept, key=lambda one: (one["bench"], one["case"]))
    rows = [{name: one[name] for name in names} for one in ordered]
    path.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for figure in figures:
        beside = f"; {figure.peer}: {figure.peer_value}, ratio {figure.ratio}" if figure.peer else ""
        peak = f"; peak {figure.peak_mib} MiB" if figure.peak_mib is not None else ""
        print(f"{figure.bench} | {figure.case}: {figure.ours} {figure.unit}{beside}{peak}", flush=True)
