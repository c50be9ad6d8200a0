"""A number cut into bands: all rows of a band count the same, so that a model over it is a table of points.

    fit_bands(name, column, least, declared) -> Bands        on training rows, once
    bands.places(column)                                     the band of every row
    bands.rows()                                             the feature of every band, then 0 for a missing number

Source:    ridits, I. D. J. Bross, Biometrics 14 (1958): a band's value is the share of training rows below its middle.
Security:  edges leave with a scorecard, so they say as little of a row as an edge can: where the scenario declares
           edges for the column, those; else the fifths of the training rows, rounded to two digits, or to the tenth of
           the power of ten that the spread has, whichever is finer. An edge without ``least`` known training rows on
           either side of it, up to the next edge, is left out. Labels are not looked at.
Reveals:   to whoever sees the points: that about a fifth of the training rows lies between two edges, that at least
           ``least`` rows do; and by the ratio of the points of a column's bands, roughly how the rows spread.
Shapes:    at most five bands, or as many as declared, and one for a missing number, which is neutral.
Not here:  levels of categories (``features``), the points (``mpc.scorecard``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from sandbox.errors import InvalidSpec
from sandbox.kinds import cells
from sandbox.kinds.columns import Floats, Places, are_finite, decimal_places, numbers
from sandbox.model import Dimension

BANDS: Final = 5
MISSING: Final = "(missing)"
EVERYTHING: Final = "(any number)"


@dataclass(frozen=True, slots=True)
class Bands:
    """A numeric column in bands: one feature."""

    column: str
    edges: tuple[int, ...]  # ascending, in units of 10^-places
    places_after_point: int
    values: tuple[float, ...]  # of the bands, standardised among the training rows

    def __post_init__(self) -> None:
        edges = isinstance(self.edges, tuple) and all(type(edge) is int for edge in self.edges)
        values = isinstance(self.values, tuple) and are_finite(self.values)
        if not (isinstance(self.column, str) and type(self.places_after_point) is int and edges and values):
            raise InvalidSpec("a part of an encoder that has bands is malformed")
        if list(self.edges) != sorted(set(self.edges)) or len(self.values) != len(self.edges) + 1:
            raise InvalidSpec("a part of an encoder has impossible bands")
        if not 0 <= self.places_after_point <= cells.MOST_PLACES:
            raise InvalidSpec("a part of an encoder has edges of impossible places")

    def places(self, column: pa.ChunkedArray) -> Places:
        """Return the band of every entry; the last is that of a missing number."""
        values = numbers(self.column, column)
        found = np.searchsorted(_edges(self.edges, self.places_after_point), values, side="right")
        return np.where(np.isnan(values), len(self.values), found).astype(np.int64)

    def labels(self) -> tuple[str, ...]:
        """Return the names of the bands."""
        if not self.edges:
            return (EVERYTHING, MISSING)
        return (*cells.levels(Dimension("", "", (), self.edges, self.places_after_point)), MISSING)

    def rows(self) -> Floats:
        """Return the features of every band."""
        return np.array([*self.values, 0.0])[:, None]


def fit_bands(name: str, column: pa.ChunkedArray, least: int, declared: Dimension | None) -> Bands:
    """Cut a column by its training rows; ``declared`` has the edges, if the scenario names any.

    Raises:
        InvalidSpec: it has no number in the training rows.
    """
    values = numbers(name, column)
    values = np.sort(values[np.isfinite(values)])
    if not len(values):
        raise InvalidSpec(f"column {name!r} has no number in the training rows")
    if declared is None:
        edges, places = _round_fifths(values, decimal_places(column.type))
    else:
        edges, places = list(declared.edges), declared.places
    edges = _wide_enough(edges, places, values, least)
    below = np.searchsorted(values, _edges(tuple(edges), places), side="left")
    shares = np.diff(below, prepend=0, append=len(values)) / len(values)
    ridits = np.cumsum(shares) - shares / 2 - 0.5
    spread = math.sqrt(float(shares @ ridits**2))
    # A number that is the same for everybody weighs nothing; the width must not depend on the data.
    ridits = ridits / spread if len(edges) else np.zeros(1)
    return Bands(name, tuple(edges), places, tuple(ridits.tolist()))


def _round_fifths(values: Floats, digits: int | None) -> tuple[list[int], int]:
    """Return edges near the fifths of sorted ``values``, with the least place that counts."""
    distinct, counts = np.unique(values, return_counts=True)
    below = np.cumsum(counts) - counts
    wanted = np.searchsorted(below, len(values) * np.arange(1, BANDS) / BANDS, side="left")
    spread = float(np.subtract(*np.quantile(values, (0.95, 0.05))))
    found: list[tuple[int, int]] = []  # a whole number of so many powers of ten
    for edge in distinct[wanted[wanted < len(distinct)]].tolist():
        power = min((_power(size) - 1 for size in (abs(edge), spread) if size > 0), default=0)
        power = max(power, -(cells.MOST_PLACES if digits is None else min(digits, cells.MOST_PLACES)))
        found.append((round(edge / 10.0**power), power))
    places = max([0, *(-power for _, power in found)])
    return sorted({units * 10 ** (power + places) for units, power in found}), places


def _wide_enough(edges: list[int], places: int, values: Floats, least: int) -> list[int]:
    """Return the edges that have enough of the sorted ``values`` on both sides, up to their neighbours."""
    kept: list[int] = []
    start = 0
    for edge, below in zip(edges, np.searchsorted(values, _edges(tuple(edges), places), side="left"), strict=True):
        if min(below - start, len(values) - below) >= max(least, 1):
            kept.append(edge)
            start = below
    return kept


def _edges(edges: tuple[int, ...], places: int) -> Floats:
    return np.array([edge / 10**places for edge in edges], np.float64)


def _power(size: float) -> int:
    return math.floor(math.log10(size))
