"""How one side turns its own columns into features, alone, so that nothing has to be pooled.

    fit(table, columns, train, labels) -> Encoder        on training rows, once
    encoder.transform(table) -> float32 (rows, width)    the same way ever after, also for one applicant

With ``banding``, every column has bands and all rows of a band the same features, so that a linear model is a table of
points (``mpc.scorecard``): numbers are cut as in ``bands``, and every level has enough rows to be named to others.

Security:  an encoder never leaves its side: it holds quantiles, levels and, at the label holder, default rates by
           level. ``fit`` reads training rows only; ``transform`` treats every row by itself.
Reveals:   nothing by itself. What the parties agree on is the width. Of a banded one, the names of the bands leave
           with a released scorecard.
Shapes:    a number (integer, decimal, floating): log1p where the training rows are non-negative and skewed by more
           than 1, or as the caller says; clipped to its 0.5 % and 99.5 % quantiles; missing: the median.
           A category (text, truth value) where labels are held: its weight of evidence, positive for more defaults.
           A category elsewhere: one indicator for each of the 8 most frequent levels.
           A missing category, an unseen one or one of fewer than 10 training rows (with ``banding``: than it says) is
           neutral: 0 in all its features.
           Every feature has mean 0 and deviation 1 among the training rows, or is 0 throughout if they are all alike.
Units:     standard deviations among the training rows.
Errors:    ``InvalidSpec`` names the column, never a value.
Not here:  which rows are held out (``holdout``), reading columns (``columns``), the model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sandbox.errors import InvalidSpec
from sandbox.kinds.bands import Bands, fit_bands
from sandbox.kinds.categories import Evidence, Indicators, fit_evidence, fit_indicators, levels_of
from sandbox.kinds.columns import Floats, Mask, Places, are_finite, column_of, is_category, numbers
from sandbox.kinds.holdout import truth
from sandbox.model import Dimension

CLIP: Final = (0.005, 0.995)  # quantiles
SKEWED: Final = 1.0
MIN_LEVEL_ROWS: Final = 10
BAND_SHARE: Final = 0.05  # of the training rows, that a band of a scorecard has at least


@dataclass(frozen=True, slots=True)
class Banding:
    """How columns are cut for a scorecard."""

    min_group: int  # rows that a band has at least, if a twentieth of them is less
    declared: Mapping[str, Dimension] = field(default_factory=dict)  # by column: edges that the scenario fixes

    def least(self, rows: int) -> int:
        """Return how many training rows of ``rows`` a band has at least."""
        return max(self.min_group, MIN_LEVEL_ROWS, math.ceil(BAND_SHARE * rows))


@dataclass(frozen=True, slots=True)
class Number:
    """A numeric column: one feature."""

    column: str
    log: bool
    low: float
    high: float
    fill: float
    mean: float
    scale: float

    def __post_init__(self) -> None:
        finite = are_finite((self.low, self.high, self.fill, self.mean, self.scale))
        if not (isinstance(self.column, str) and isinstance(self.log, bool) and finite):
            raise InvalidSpec("a numeric part of an encoder is malformed")
        if self.low > self.high or self.scale <= 0:
            raise InvalidSpec("a numeric part of an encoder has an impossible range")

    def features(self, column: pa.ChunkedArray) -> Floats:
        """Return its features, one row an entry."""
        values = numbers(self.column, column)
        known = ~np.isnan(values)
        values = np.where(known, _logged(values) if self.log else values, self.fill)
        return ((np.clip(values, self.low, self.high) - self.mean) / self.scale)[:, None]


Banded: TypeAlias = Bands | Evidence | Indicators
Part: TypeAlias = Number | Banded
KINDS: Final[dict[str, Callable[..., Part]]] = {kind.__name__: kind for kind in (Number, Bands, Evidence, Indicators)}


@dataclass(frozen=True, slots=True)
class Encoder:
    """One side's fitted transformation."""

    parts: tuple[Part, ...]

    def columns(self) -> tuple[str, ...]:
        """Return the columns it reads."""
        return tuple(part.column for part in self.parts)

    def names(self) -> tuple[str, ...]:
        """Return the names of the features, for this side's eyes: they hold levels."""
        names: list[str] = []
        for part in self.parts:
            levels = part.levels if isinstance(part, Indicators) else None
            names += [part.column] if levels is None else [f"{part.column}={level}" for level in levels]
        return tuple(names)

    def transform(self, table: pa.Table) -> npt.NDArray[np.float32]:
        """Return the features of every row of ``table``, which may hold further columns."""
        columns = [_features(part, column_of(table, part.column)) for part in self.parts]
        return np.concatenate(columns, axis=1).astype(np.float32)

    def banded(self) -> tuple[Banded, ...]:
        """Return its parts, if every one has bands; raises ``InvalidSpec`` otherwise."""
        found = tuple(part for part in self.parts if not isinstance(part, Number))
        if len(found) != len(self.parts):
            raise InvalidSpec("the encoder was not fitted in bands")
        return found

    def places(self, table: pa.Table) -> tuple[Places, ...]:
        """Return the band of every row of ``table``, column by column."""
        return tuple(part.places(column_of(table, part.column)) for part in self.banded())

    def to_json(self) -> str:
        """Return the encoder as text that ``from_json`` reads; floats survive exactly."""
        parts = [{"kind": type(part).__name__, **asdict(part)} for part in self.parts]
        return json.dumps({"encoder": 1, "parts": parts}, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Encoder:
        """Read what ``to_json`` wrote; raises ``InvalidSpec`` on anything else."""
        try:
            tree = json.loads(text)
            if tree.keys() != {"encoder", "parts"} or tree["encoder"] != 1 or not tree["parts"]:
                raise InvalidSpec("not an encoder of this version")
            parts = [{key: tuple(v) if type(v) is list else v for key, v in part.items()} for part in tree["parts"]]
            return cls(tuple(KINDS[str(part.pop("kind"))](**part) for part in parts))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise InvalidSpec("not the text of an encoder") from None


def fit(
    table: pa.Table,
    columns: Sequence[str],
    train: Mask,
    labels: npt.NDArray[np.generic] | None,
    *,
    log: Collection[str] | None = None,
    banding: Banding | None = None,
) -> Encoder:
    """Learn from the training rows of ``table`` how to encode ``columns``.

    Args:
        table: this side's rows, in any order.
        columns: the columns that become features, in the order of the features.
        train: which rows are training rows; no other is looked at.
        labels: the label of every row at the side that holds them, else ``None``.
        log: the numeric columns to take the logarithm of; ``None`` decides by the training rows.
        banding: how to cut every column for a scorecard; ``None`` leaves numbers as they are.

    Raises:
        InvalidSpec: a column is absent, listed twice, of a type that is no feature or empty in training, or the
            masks do not fit.
    """
    if not columns or len(set(columns)) != len(columns):
        raise InvalidSpec("no column to encode, or one is listed twice")
    if train.dtype != np.bool_ or train.shape != (table.num_rows,) or not train.any():
        raise InvalidSpec("the training mask does not fit the table or is empty")
    if labels is not None and len(labels) != table.num_rows:
        raise InvalidSpec("the labels do not fit the table")
    bad = None if labels is None else truth(labels[train])
    if bad is not None and (bad.all() or not bad.any()):
        raise InvalidSpec("the training rows hold only one class")
    rows = pa.array(train)
    least = MIN_LEVEL_ROWS if banding is None else banding.least(int(train.sum()))
    parts: list[Part] = []
    for name in columns:
        column = column_of(table, name).filter(rows)
        if is_category(name, column.type):
            levels = levels_of(name, column, least)
            parts.append(
                fit_indicators(name, column, levels) if bad is None else fit_evidence(name, column, levels, bad)
            )
        elif banding is not None:
            parts.append(fit_bands(name, column, least, banding.declared.get(name)))
        else:
            parts.append(_fit_number(name, column, None if log is None else name in log))
    return Encoder(tuple(parts))


def _features(part: Part, column: pa.ChunkedArray) -> Floats:
    return part.features(column) if isinstance(part, Number) else part.rows()[part.places(column)]


def _fit_number(name: str, column: pa.ChunkedArray, log: bool | None) -> Number:
    values = numbers(name, column)
    values = values[np.isfinite(values)]
    if not len(values):
        raise InvalidSpec(f"column {name!r} has no number in the training rows")
    if log is None:
        spread = values.std()
        log = bool(values.min() >= 0 and spread > 0 and np.mean(((values - values.mean()) / spread) ** 3) > SKEWED)
    if log:
        values = _logged(values)
    low, high = (float(q) for q in np.quantile(values, CLIP))
    values = np.clip(values, low, high)
    mean, scale = float(values.mean()), float(values.std())
    if scale <= 1e-9 * max(1.0, abs(mean)):
        mean, scale = low, 1.0  # constant once clipped: 0 for everybody, so the width does not depend on the data
    return Number(name, log, low, high, float(np.median(values)), mean, scale)


def _logged(values: Floats) -> Floats:
    return np.asarray(np.log1p(np.maximum(values, 0.0)), dtype=np.float64)
