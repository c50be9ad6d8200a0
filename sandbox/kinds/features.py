"""How one side turns its own columns into features, alone, so that nothing has to be pooled.

    fit(table, columns, train, labels) -> Encoder        on training rows, once
    encoder.transform(table) -> float32 (rows, width)    the same way ever after, also for one applicant

Source:    weight of evidence as in I. J. Good, 1950, with the level's rate shrunk towards the mean.
Security:  an encoder never leaves its side: it holds quantiles, levels and, at the label holder, default rates by
           level. ``fit`` reads training rows only; ``transform`` treats every row by itself.
Reveals:   nothing by itself. What the parties agree on is the width.
Shapes:    a number (integer, decimal, floating): log1p where the training rows are non-negative and skewed by more
           than 1, or as the caller says; clipped to its 0.5 % and 99.5 % quantiles; missing: the median.
           A category (text, truth value) where labels are held: its weight of evidence, positive for more defaults.
           A category elsewhere: one indicator for each of the 8 most frequent levels.
           A missing category, an unseen one or one of fewer than 10 training rows is neutral: 0 in all its features.
           Every feature has mean 0 and deviation 1 among the training rows, or is 0 throughout if they are all alike.
Units:     standard deviations among the training rows.
Errors:    ``InvalidSpec`` names the column, never a value.
Not here:  which rows are held out (``holdout``), reading the table, the model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sandbox.errors import InvalidSpec
from sandbox.kinds.holdout import truth

CLIP: Final = (0.005, 0.995)  # quantiles
SKEWED: Final = 1.0
SHRINK: Final = 20.0  # rows: a level of so many is believed half
MIN_LEVEL_ROWS: Final = 10
MAX_INDICATORS: Final = 8

Floats: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]


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
        finite = _finite((self.low, self.high, self.fill, self.mean, self.scale))
        if not (isinstance(self.column, str) and isinstance(self.log, bool) and finite):
            raise InvalidSpec("a numeric part of an encoder is malformed")
        if self.low > self.high or self.scale <= 0:
            raise InvalidSpec("a numeric part of an encoder has an impossible range")

    def features(self, column: pa.ChunkedArray) -> Floats:
        """Return its features, one row an entry."""
        values = _numbers(self.column, column)
        known = ~np.isnan(values)
        values = np.where(known, _logged(values) if self.log else values, self.fill)
        return ((np.clip(values, self.low, self.high) - self.mean) / self.scale)[:, None]


@dataclass(frozen=True, slots=True)
class Evidence:
    """A category column at the label holder: one feature, the weight of evidence of each level."""

    column: str
    levels: tuple[str, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_levels(self.column, self.levels, self.weights)

    def features(self, column: pa.ChunkedArray) -> Floats:
        """Return its features, one row an entry."""
        return np.array([*self.weights, 0.0])[_places(self.column, column, self.levels)][:, None]


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

    def features(self, column: pa.ChunkedArray) -> Floats:
        """Return its features, one row an entry."""
        share = np.array(self.shares)
        deviation = np.sqrt(share * (1 - share))
        rows = (np.eye(len(share)) - share) / np.where(deviation > 0, deviation, 1.0)
        neutral = np.zeros((1, len(share)))
        return np.concatenate([rows, neutral])[_places(self.column, column, self.levels)]


Part: TypeAlias = Number | Evidence | Indicators
KINDS: Final[dict[str, Callable[..., Part]]] = {kind.__name__: kind for kind in (Number, Evidence, Indicators)}


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
        columns = [part.features(_column(table, part.column)) for part in self.parts]
        return np.concatenate(columns, axis=1).astype(np.float32)

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
) -> Encoder:
    """Learn from the training rows of ``table`` how to encode ``columns``.

    Args:
        table: this side's rows, in any order.
        columns: the columns that become features, in the order of the features.
        train: which rows are training rows; no other is looked at.
        labels: the label of every row at the side that holds them, else ``None``.
        log: the numeric columns to take the logarithm of; ``None`` decides by the training rows.

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
    parts: list[Part] = []
    for name in columns:
        column = _column(table, name).filter(rows)
        if not _is_category(name, column.type):
            parts.append(_fit_number(name, column, None if log is None else name in log))
        elif bad is not None:
            parts.append(_fit_evidence(name, column, bad))
        else:
            parts.append(_fit_indicators(name, column))
    return Encoder(tuple(parts))


def _finite(figures: Sequence[float]) -> bool:
    return all(type(figure) is float and math.isfinite(figure) for figure in figures)


def _check_levels(column: object, levels: object, figures: object) -> None:
    if not (isinstance(column, str) and isinstance(levels, tuple) and isinstance(figures, tuple)):
        raise InvalidSpec("a category part of an encoder is malformed")
    texts = all(isinstance(level, str) for level in levels)
    if not (texts and _finite(figures) and len(set(levels)) == len(levels) == len(figures)):
        raise InvalidSpec("a category part of an encoder is malformed")


def _fit_number(name: str, column: pa.ChunkedArray, log: bool | None) -> Number:
    values = _numbers(name, column)
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


def _fit_evidence(name: str, column: pa.ChunkedArray, bad: Mask) -> Evidence:
    levels = _levels(name, column)
    place = _places(name, column, levels)
    rows = np.bincount(place, minlength=len(levels) + 1)[:-1]
    defaults = np.bincount(place, weights=bad, minlength=len(levels) + 1)[:-1]
    rate = bad.mean()
    shrunk = (defaults + SHRINK * rate) / (rows + SHRINK)
    weights = np.log(shrunk / (1 - shrunk)) - np.log(rate / (1 - rate))
    share = rows / max(rows.sum(), 1)
    weights -= weights @ share
    weights *= 0.0 if (spread := np.sqrt(weights**2 @ share)) <= 1e-9 else 1 / spread
    return Evidence(name, levels, tuple(weights.tolist()))


def _fit_indicators(name: str, column: pa.ChunkedArray) -> Indicators:
    levels = _levels(name, column)[:MAX_INDICATORS]
    if not levels:
        raise InvalidSpec(f"column {name!r} has no level with {MIN_LEVEL_ROWS} training rows")
    place = _places(name, column, levels)
    rows = np.bincount(place, minlength=len(levels) + 1)[:-1]
    return Indicators(name, levels, tuple((rows / rows.sum()).tolist()))


def _levels(name: str, column: pa.ChunkedArray) -> tuple[str, ...]:
    """Return the levels of enough rows, the most frequent first, ties by name."""
    counts = pc.value_counts(_text(name, column).drop_null())
    pairs = zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)
    return tuple(level for _, level in sorted((-rows, level) for level, rows in pairs if rows >= MIN_LEVEL_ROWS))


def _places(name: str, column: pa.ChunkedArray, levels: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Return the place of every entry in ``levels``, and their number where it is missing or not among them."""
    found = pc.index_in(_text(name, column), value_set=pa.array(levels, pa.string()), skip_nulls=True)
    places: npt.NDArray[np.int64] = found.fill_null(len(levels)).to_numpy().astype(np.int64)
    return places


def _is_category(name: str, kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return False
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind):
        return True
    raise InvalidSpec(f"column {name!r} is neither a number nor a category")


def _text(name: str, column: pa.ChunkedArray) -> pa.Array:
    if not _is_category(name, column.type):
        raise InvalidSpec(f"column {name!r} is a number; the encoder was fitted on a category")
    return pc.cast(column.combine_chunks(), pa.string())


def _numbers(name: str, column: pa.ChunkedArray) -> Floats:
    if _is_category(name, column.type):
        raise InvalidSpec(f"column {name!r} is a category; the encoder was fitted on numbers")
    # Unsafe: integers beyond 2**53 lose their last digits, which no feature needs.
    values: Floats = pc.cast(column.combine_chunks(), pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values


def _logged(values: Floats) -> Floats:
    return np.asarray(np.log1p(np.maximum(values, 0.0)), dtype=np.float64)


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if table.schema.names.count(name) != 1:
        raise InvalidSpec(f"column {name!r} is absent or there twice")
    return table.column(name)
