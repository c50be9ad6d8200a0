"""Totals over the levels of a dimension, beside the cells they are totals of; and who is behind each of them.

    levels a, b    x  y  all            a line for each: a x, a y, a all, b x, b y, b all, all x, all y, all all
            a      .  .   .
            b      .  .   .             without margins only the cells: a x, a y, b x, b y
          all      .  .   .

Shapes:   numbers of cells are (..., cells), of lines (..., lines), the last dimension fastest, "all" after its levels.
          A total is over the levels that are listed: rows left out of the cells are in none.
Errors:   ``InvalidSpec`` where a level is called "all" already, or the table becomes larger than one may be.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sandbox.errors import InvalidSpec
from sandbox.kinds.cells import MOST_CELLS, MOST_NUMBERS, Codes, Mask, Shape, levels
from sandbox.kinds.population import Sketcher, union
from sandbox.model import Dimension, Population

ALL: Final = "all"


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines of one table: its cells, with or without totals."""

    dimensions: tuple[Dimension, ...]
    has_margins: bool

    @classmethod
    def of(cls, shape: Shape, has_margins: bool) -> Lines:
        """Return those of a job's table.

        Raises:
            InvalidSpec: there cannot be such a table.
        """
        made = cls(shape.dimensions, has_margins)
        if has_margins and any(ALL in levels(dimension) for dimension in shape.dimensions):
            raise InvalidSpec(tell=f"a level is called {ALL!r}, as the lines of totals are", hint="ask without margins")
        if made.count > MOST_CELLS or made.count * (1 + shape.counts + len(shape.bounds)) > MOST_NUMBERS:
            raise InvalidSpec(tell="the table with its totals would be too large", hint="ask for less at once")
        return made

    @property
    def levels(self) -> tuple[int, ...]:
        """How many levels each dimension has."""
        return tuple(len(levels(dimension)) for dimension in self.dimensions)

    @property
    def count(self) -> int:
        """How many lines there are."""
        return int(np.prod([count + self.has_margins for count in self.levels], dtype=np.int64))

    @property
    def labels(self) -> pa.Table:
        """The lines in order, a column for each dimension."""
        rows = list(product(*self._named))
        return pa.table(
            {
                dimension.name: pa.array([row[place] for row in rows], pa.string())
                for place, dimension in enumerate(self.dimensions)
            }
        )

    @property
    def _named(self) -> list[tuple[str, ...]]:
        more = (ALL,) if self.has_margins else ()
        return [(*levels(dimension), *more) for dimension in self.dimensions]

    def totals(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """Return the numbers of lines that numbers of cells add up to."""
        return widened(numbers, self.levels) if self.has_margins else numbers

    def chosen(self, blank: Mask) -> Mask:
        """Return, of a mask over cells and totals, the lines this table has."""
        return blank if self.has_margins else blank[cells_among(self.levels)]


def widened(numbers: NDArray[Any], counts: Sequence[int]) -> NDArray[Any]:
    """Return numbers of cells and of all totals over them."""
    before = numbers.shape[:-1]
    whole = numbers.reshape((*before, *counts))
    for axis in range(-len(counts), 0):
        whole = np.concatenate([whole, whole.sum(axis=axis, keepdims=True)], axis=axis)
    return whole.reshape((*before, int(np.prod([count + 1 for count in counts], dtype=np.int64))))


def cells_among(counts: Sequence[int]) -> Mask:
    """Return which of cells and totals are cells."""
    is_cell: Mask = np.ones((), np.bool_)
    for count in counts:
        is_cell = is_cell[..., None] & (np.arange(count + 1) < count)
    return is_cell.ravel()


def populations(
    secret: bytes,
    keys: Iterable[pa.Array],
    codes: Codes,
    dimensions: Sequence[Dimension],
    sizes: NDArray[np.int64],
    blank: Mask,
) -> tuple[Population, ...]:
    """Return who is behind each cell and each total, as one party knows them.

    Whether totals are part of the table or not: they are all over its cells, which whoever has the table can add up.

    Args:
        keys: of this party's rows, batch by batch.
        codes: the cell of each of these rows.
        sizes: how many people each cell has, over all parties.
        blank: of cells and totals, those that are not released.
    """
    counts = tuple(len(levels(dimension)) for dimension in dimensions)
    tally, at = Sketcher(secret).start(len(sizes)), 0
    for batch in keys:
        tally.add(batch, codes[at : at + len(batch)])
        at += len(batch)
    if at != len(codes):
        raise InvalidSpec("a key is needed for every row")
    cells = tally.done([""] * len(sizes), sizes.tolist())
    names = [", ".join(line) or ALL for line in product(*((*levels(one), ALL) for one in dimensions))]
    numbers = np.arange(len(sizes)).reshape(counts)
    found: list[Population] = []
    for name, place, is_blank in zip(names, np.ndindex(*(count + 1 for count in counts)), blank.tolist(), strict=True):
        if not is_blank:
            whole = tuple(slice(None) if at == count else at for at, count in zip(place, counts, strict=True))
            parts = [cells[cell] for cell in np.atleast_1d(numbers[whole]).ravel().tolist()]
            found.append(union(name, parts, sum(part.size for part in parts)))
    return tuple(found)
