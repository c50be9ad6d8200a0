"""Our gate beside acro, which checks tables of one owner in the clear: what ours lets pass, acro does, too.

Three sides: acro itself, in an environment of its own (``acro_peer``); its rules written anew (``acro_rules``); and our
gate, which no owner tells its rows (``dominance``, ``counted``, ``judge``). Where they differ on purpose, see
docs/gate-and-acro.md: a difference that is not listed there fails here.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import acro_rules as rules
import numpy as np
import pyarrow as pa
import pytest
from acro_rules import Cell
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.errors import OutputWithheld
from sandbox.gate.judge import judge
from sandbox.kinds import cells, dominance
from sandbox.kinds.counted import Counted
from sandbox.kinds.dominance import Weights
from sandbox.model import AggregateSpec, Dimension, JobKind, Measure, MeasureRange, OutputClass, Plan, Statistic

sys.path.append(str(Path(__file__).parents[1] / "kinds"))
from kind_parties import NAMES, Room, ref, room, scenario

HERE: Final = Path(__file__).parent
MOST: Final = 1 << 40
OURS: Final = {
    "sum": Statistic.SUM,
    "mean": Statistic.MEAN,
    "count": Statistic.COUNT,
    "std": Statistic.VARIANCE,
}
BOUNDS: Final[dict[str, Any]] = {"min_group": 10, "top_two": 900, "remainder": 100}  # as acro's
LEVELS: Final = ("row", "column")
DIMENSIONS: Final = tuple(Dimension(name, name, tuple(f"{name} {n}" for n in range(4))) for name in LEVELS)
RANGE: Final = MeasureRange("value", -MOST, MOST)


@dataclass(frozen=True)
class Table:
    """A table, and at which owner each row of its cells is."""

    levels: tuple[int, int]
    cells: tuple[Cell, ...]
    owners: tuple[tuple[int, ...], ...]
    of: str = "sum"
    margins: bool = False
    missing: bool = False

    @property
    def asked(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("levels", "cells", "of", "margins", "missing")}

    @property
    def has_negative(self) -> bool:
        return any(value < 0 for cell in self.cells for value in rules.descending(cell))

    @property
    def parties(self) -> int:
        return max(max((max(one, default=0) for one in self.owners), default=0) + 1, 2)


# --- tables -----------------------------------------------------------------------------------------------------------


def edges() -> list[Cell]:
    """Cells on both sides of every bound."""
    small = [1] * 10
    found: list[Cell] = [(), [None] * 12, [5] * 9, [5] * 10, [5] * 11, [0] * 12, [0] * 11 + [1], [0] * 10 + [1, 1]]
    found += [[60, 30, *small], [60, 29, *small], [59, 30, 2, *small[1:]], [899, 1, *[10] * 10], [900, 1, *[10] * 10]]
    found += [[100, 100, *small], [100, 100, 0, *small[1:]], [101, 7, *small], [100, 7, 2, *small[1:]]]
    found += [[MOST, *[MOST // 100] * 12], [MOST, MOST, *[MOST // 200] * 12], [MOST, *[1] * 30], [1, *[0] * 20]]
    found += [[7] * 9 + [None], [7] * 10 + [None], [7] * 10 + [None] * 9, [7] * 10 + [None] * 10, [7] + [None] * 30]
    return found


def amounts(random: np.random.Generator, rows: int) -> Cell:
    """Amounts of one cell, of which it may be somebody's nearly alone."""
    law = random.choice(["flat", "heavy", "giant", "shared", "mostly none", "none"], p=[0.35, 0.2, 0.15, 0.15, 0.1, 0.05])
    flat = random.integers(1, 100, rows)
    if law == "heavy":
        flat = np.minimum(10 * (1 + random.pareto(0.7, rows)), MOST).astype(np.int64)
    elif law == "giant" and rows > 2:  # about the 10 % of it that others must have
        flat[0] = 10 * (np.sort(flat[1:])[:-1].sum() + random.integers(-2, 3))
    elif law == "shared" and rows > 2:  # about the 10 % of the total that others must have
        flat[:2] = 45 * flat[2:].sum() // 10 + random.integers(-2, 3, 2)
    elif law == "mostly none":
        flat[random.random(rows) < 0.8] = 0
    elif law == "none":
        flat[:] = 0
    found: list[int | None] = flat.tolist()
    if random.random() < 0.15:
        found = [None if random.random() < 0.3 else value for value in found]
    return found


def drawn(random: np.random.Generator, of: str, harmless: bool = False) -> Table:
    levels = (int(random.integers(2, 4)), int(random.integers(1, 4))) if of != "std" else (1, 1)
    parties = int(random.integers(2, 5))
    made, owners = [], []
    for _ in range(levels[0] * levels[1]):
        rows = int(random.choice([random.integers(10, 35), random.integers(7, 14), 0], p=[0.7, 0.27, 0.03]))
        rows = rows if of != "std" else max(rows, 8)
        cell: Cell = amounts(random, rows)
        if harmless:
            rows = int(random.integers(20, 40))
            cell = random.integers(50, 100, rows).tolist()
        made.append(cell)
        alone = random.random() < 0.4
        owners.append(tuple([0] * rows if alone else random.integers(0, parties, rows).tolist()))
    return Table(levels, tuple(made), tuple(owners), of, margins=harmless, missing=bool(random.random() < 0.3))


def signed(random: np.random.Generator, table: Table) -> Table:
    """The same with some values below 0."""
    return replace(
        table,
        cells=tuple([v if v is None or random.random() < 0.7 else -v for v in cell] for cell in table.cells),
    )


def every_table() -> list[Table]:
    random = np.random.default_rng(20)
    kinds = ["sum"] * 110 + ["mean"] * 20 + ["count"] * 40 + ["std"] * 40
    found = [drawn(random, of) for of in kinds]
    found += [signed(random, table) for table in found[:12]]
    on_edge = edges()
    for of in ("sum", "count"):
        found.append(Table((len(on_edge), 1), tuple(on_edge), tuple((0,) * len(cell) for cell in on_edge), of))
    found += [Table((1, 1), ([5, *range(rows - 1)],), ((0,) * rows,), "std") for rows in (9, 10, 11, 12)]
    found += [drawn(random, "sum", harmless=True) for _ in range(10)]
    return found


TABLES: Final = every_table()
