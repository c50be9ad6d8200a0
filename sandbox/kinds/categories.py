"""A category as features, level by level: all rows of a level have the same.

    levels_of(name, column, least)                        the levels of enough rows, the most frequent first
    fit_evidence(name, column, levels, bad)               where labels are held: one feature, its weight of evidence
    fit_indicators(name, column, levels)                  elsewhere: one feature for each of the most frequent levels

Source:    weight of evidence as in I. J. Good, 1950, with the level's rate shrunk towards the mean.
Security:  levels are values of rows; ``Evidence`` holds default rates.
Shapes:    an entry of another level, or of none, is neutral: 0 in all features.
Errors:    ``InvalidSpec`` names the column, never a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sandbox.errors import InvalidSpec
from sandbox.kinds.columns import Floats, Mask, Places, are_finite, places_in, texts

SHRINK: Final = 20.0  # rows: a level of so many is believed half
MAX_INDICATORS: Final = 8
REST: Final = "(other)"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A category column at the label holder: one feature, the weight of evidence of each level."""

    column: str
    levels: tuple[str, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_levels(self.column, self.levels, self.weights)

    def places(self, column: pa.ChunkedArray) -> Places:
        """Return the level of every entry; the last is that of all others."""
        return places_in(self.column, column, self.levels)

    def labels(self) -> tuple[str, ...]:
        """Return the names of the levels."""
        return (*self.levels, REST)

    def rows(self) -> Floats:
        """Return the features of every level."""
        return np.array([*self.weights, 0.0])[:, None]


@dataclass(frozen=True, slots=True)
class Indicators:
    """A category column at a side without labels: one feature for each level."""

    column: str
    levels: tuple[str, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_levels(self.column, self.levels, self.shares)
        if not all(0 < share <= 1 for share in self.shares):
            raise InvalidSpec("an indicator part of an encoder has an impossible share")

    def places(self, column: pa.ChunkedArray) -> Places:
        """Return the level of every entry; the last is that of all others."""
        return places_in(self.column, column, self.levels)

    def labels(self) -> tuple[str, ...]:
        """Return the names of the levels."""
        return (*self.levels, REST)

    def rows(self) -> Floats:
        """Return the features of every level."""
        share = np.array(self.shares)
        deviation = np.sqrt(share * (1 - share))
        rows = (np.eye(len(share)) - share) / np.where(deviation > 0, deviation, 1.0)
        return np.concatenate([rows, np.zeros((1, len(share)))])


def levels_of(name: str, column: pa.ChunkedArray, least: int) -> tuple[str, ...]:
    """Return the levels of at least that many rows, the most frequent first, ties by name."""
    counts = pc.value_counts(texts(name, column).drop_null())
    pairs = zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)
    return tuple(level for _, level in sorted((-rows, level) for level, rows in pairs if rows >= least))


def fit_evidence(name: str, column: pa.ChunkedArray, levels: tuple[str, ...], bad: Mask) -> Evidence:
    """Return the weight of evidence of each level among the training rows, positive for more defaults."""
    place = places_in(name, column, levels)
    rows = np.bincount(place, minlength=len(levels) + 1)[:-1]
    defaults = np.bincount(place, weights=bad, minlength=len(levels) + 1)[:-1]
    rate = bad.mean()
    shrunk = (defaults + SHRINK * rate) / (rows + SHRINK)
    weights = np.log(shrunk / (1 - shrunk)) - np.log(rate / (1 - rate))
    share = rows / max(rows.sum(), 1)
    weights -= weights @ share
    weights *= 0.0 if (spread := np.sqrt(weights**2 @ share)) <= 1e-9 else 1 / spread
    return Evidence(name, levels, tuple(weights.tolist()))


def fit_indicators(name: str, column: pa.ChunkedArray, levels: tuple[str, ...]) -> Indicators:
    """Return the indicators of the most frequent levels of the training rows.

    Raises:
        InvalidSpec: there is none.
    """
    levels = levels[:MAX_INDICATORS]
    if not levels:
        raise InvalidSpec(f"column {name!r} has no level with enough training rows")
    place = places_in(name, column, levels)
    rows = np.bincount(place, minlength=len(levels) + 1)[:-1]
    return Indicators(name, levels, tuple((rows / rows.sum()).tolist()))


def _check_levels(column: object, levels: object, figures: object) -> None:
    if not (isinstance(column, str) and isinstance(levels, tuple) and isinstance(figures, tuple)):
        raise InvalidSpec("a category part of an encoder is malformed")
    are_texts = all(isinstance(level, str) for level in levels)
    if not (are_texts and are_finite(figures) and len(set(levels)) == len(levels) == len(figures)):
        raise InvalidSpec("a category part of an encoder is malformed")
