"""Points from two or more partial sums, each rounded before it leaves its side.

    side k:      part_k = round(-factor (features_k . weights_k + offset_k) / step)       whole steps
    recipient:   points = step (sum of part_k + constant)                                 higher is better

A side whose columns have bands may turn its weights into whole points instead, and add those up:

    Points.of:   base = round(-factor offset),  points of a band = round(-factor (features of the band . weights))
    side k:      part_k = round((base + points of the row's bands) / step)

so that a table of points and ``step * constant`` give exactly what is scored, but for the last rounding to steps.

Source:   the usual scorecard scale, e.g. Siddiqi, "Credit Risk Scorecards", 2006: ``points_to_double`` points double
          the odds of good to bad, ``base_points`` stand for ``base_odds``.
Security: no engine; the rounding is the protection. A step is at least a quarter of ``points_to_double``.
Reveals:  to the recipient: each part, so the other side's weighted sum of a row, rounded to a step. A score and
          one's own part give the same, under any protocol. Many scores of one person under different models would
          sharpen it: the scenario caps them. A table of points and one row's score together tell which bands the row
          may be in: who gets the one of another side must not get the other.
Units:    parts are steps, points are whole multiples of ``step``; weights predict the log-odds of *bad*.
Errors:   ``InvalidSpec`` on a scale that is too fine, on shapes that do not fit, on values that are not finite.
Not here: what the bands are, reason codes, who may see the score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sandbox.errors import InvalidSpec

Steps = NDArray[np.int32]

MAX_STEPS = 1000  # a part beyond this says no more about a person, and is cut off
MAX_POINTS = 1_000_000  # of one band


@dataclass(frozen=True, slots=True)
class Scale:
    """What the points mean; public, part of the plan."""

    points_to_double: int = 20
    base_points: int = 600
    base_odds: float = 50.0  # good to bad
    step: int = 5

    def __post_init__(self) -> None:
        if not 1 <= self.points_to_double <= 1000 or not 0 <= self.base_points <= 100_000:
            raise InvalidSpec("the points of a scale are out of range")
        if not 4 * self.step >= self.points_to_double or self.step > 1000:
            raise InvalidSpec("a step is finer than a quarter of the points that double the odds, or far too coarse")
        if not 1e-6 <= self.base_odds <= 1e6:
            raise InvalidSpec("the odds of a scale are out of range")

    @property
    def factor(self) -> float:
        """Points for one unit of log-odds."""
        return self.points_to_double / math.log(2.0)

    @property
    def constant(self) -> int:
        """Steps of a row whose log-odds are zero."""
        return round((self.base_points - self.factor * math.log(self.base_odds)) / self.step)


@dataclass(frozen=True, slots=True)
class Points:
    """One side's whole points: what every row starts from, and what each band of each column adds."""

    base: int
    bands: tuple[tuple[int, ...], ...]  # column by column

    def __post_init__(self) -> None:
        given = (self.base, *(points for column in self.bands for points in column))
        if not all(type(points) is int and abs(points) <= MAX_POINTS for points in given):
            raise InvalidSpec("the points of a scorecard are not whole numbers in range")

    @classmethod
    def of(
        cls,
        blocks: Sequence[NDArray[np.floating]],
        weights: NDArray[np.floating],
        scale: Scale,
        *,
        offset: float = 0.0,
    ) -> Points:
        """Return the points of trained ``weights``; a block holds the features of every band of one column."""
        ends = np.cumsum([block.shape[1] for block in blocks])
        factors = np.asarray(weights, np.float64)
        if not len(blocks) or factors.shape != (int(ends[-1]),):
            raise InvalidSpec("bands and weights do not fit together")
        pieces = np.split(factors, ends[:-1])
        exact = [-scale.factor * (np.asarray(b, np.float64) @ w) for b, w in zip(blocks, pieces, strict=True)]
        if not all(
            bool((np.abs(column) <= MAX_POINTS).all()) for column in (*exact, np.array([offset * scale.factor]))
        ):
            raise InvalidSpec("the points of a scorecard are not finite or out of range")
        return cls(round(-scale.factor * offset), tuple(tuple(np.rint(c).astype(int).tolist()) for c in exact))

    def sums(self, places: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        """Return the points of every row; ``places`` has the band of every row, column by column."""
        if len(places) != len(self.bands):
            raise InvalidSpec("the bands of the rows are not those of the scorecard")
        columns = [np.array(points, np.int64)[place] for points, place in zip(self.bands, places, strict=True)]
        return np.asarray(self.base + np.sum(columns, axis=0, dtype=np.int64), np.int64)


def in_steps(points: NDArray[np.int64], scale: Scale) -> Steps:
    """Return whole points of every row as this side's part, in steps."""
    return np.rint(np.clip(points / scale.step, -MAX_STEPS, MAX_STEPS)).astype(np.int32)


def partial_points(
    features: NDArray[np.floating], weights: NDArray[np.floating], scale: Scale, *, offset: float = 0.0
) -> Steps:
    """Return this side's part of every row, in steps; ``offset`` is its share of the intercept."""
    block, factors = np.asarray(features, np.float64), np.asarray(weights, np.float64)
    if block.ndim != 2 or factors.shape != (block.shape[1],):
        raise InvalidSpec("features and weights do not fit together")
    steps = (block @ factors + offset) * (-scale.factor / scale.step)
    if not bool(np.isfinite(steps).all()):
        raise InvalidSpec("a partial sum is not finite")
    return np.rint(np.clip(steps, -MAX_STEPS, MAX_STEPS)).astype(np.int32)


def combine(*parts: Steps, scale: Scale) -> Steps:
    """Return the points of every row.

    Raises:
        InvalidSpec: a part is not of whole steps in range, or the parts differ in length.
    """
    if not parts or any(part.ndim != 1 or part.shape != parts[0].shape for part in parts):
        raise InvalidSpec("the parts of a score differ in their number of rows")
    if any(part.dtype != np.int32 or bool((abs(part.astype(np.int64)) > MAX_STEPS).any()) for part in parts):
        raise InvalidSpec("a part of a score is not in whole steps within the range")
    total = np.sum(parts, axis=0, dtype=np.int64) + scale.constant
    return np.asarray(total * scale.step, np.int32)
