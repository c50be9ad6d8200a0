"""Counts the rows of one column, in two passes: what to count in the second hangs on noisy answers about the first.

    look(rows) ... settle(number of rows) ... count(rows) ... release(number of rows) -> Column

Security: holds exact counts of rows while it counts; nothing of them leaves but through ``release``. What is kept of
          a first look, and what a second one looks for, is decided by noisy answers and by the number of rows, which is
          public; that of texts by exact counts, which changes nothing of what comes out: a text that is left out has
          fewer rows than any that could be shown.
Shapes:   memory is bounded, whatever the rows hold: some hundred counts a column, and for texts ``BUCKETS`` of them
          and as many texts as have a thousandth of the rows.
Not here: what each question may cost (budget), noise (release), where cells lie (cells).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Final, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sandbox.catalog.ids import digest128
from sandbox.catalog.schema import DECIMAL_PLACES, Field, FieldType
from sandbox.catalog.twin import cells, release
from sandbox.catalog.twin.budget import Ask
from sandbox.catalog.twin.cells import Cell, Whole
from sandbox.catalog.twin.measurements import Column, Frequent, Span

FEWEST: Final = 10  # rows of a text that may be shown
RARE: Final = 1000  # a text with fewer than one row in so many is no category
LONGEST_CATEGORY: Final = 64  # characters
BUCKETS: Final = 1 << 14
CATEGORICAL: Final = 80  # percent of the rows with a text that categories make up, for a column to have no others
_CAREFUL: Final = 100  # missing values are told as warily as if a column had so many cells of them
_PLACES: Final = (0, 2, 4, DECIMAL_PLACES)
_ABOVE_NOISE: Final = 24  # scales of the noise that a finer cell holds, if all hold the same
_FITTING: Final = 95  # percent of the rows whose decimal places are enough
_USUAL: Final = {FieldType.INTEGER: (0, 100), FieldType.DATE: (10957, 20088)}  # of dates, the years 2000 to 2024
_USUAL_LENGTH: Final = (8, 8)

Shares: TypeAlias = Mapping[Ask, Fraction]


class Tally(Protocol):
    """Measures one column; ``look``, ``settle``, ``count`` and ``release`` in this order."""

    def look(self, column: pa.Array) -> None:
        """Take in the next rows, the first time."""

    def settle(self, rows: int) -> None:
        """Decide what to count in the second pass; ``rows`` is how many there were."""

    def count(self, column: pa.Array) -> None:
        """Take in the next rows, the second time."""

    def release(self, rows: int) -> Column:
        """Return what may be known of the column."""


def tally(field: Field, shares: Shares, delta: float) -> Tally:
    """Return what measures a column; ``delta`` is what a column may cost whose texts are looked for."""
    if field.type is FieldType.BOOLEAN:
        return Known(field, shares)
    if field.type is FieldType.STRING:
        return Choices(field, shares) if field.valid.values else Texts(field, shares, delta)
    return Numbers(field, shares)


class Known:
    """Truth values: everything is known but how many."""

    def __init__(self, field: Field, shares: Shares) -> None:
        self.field, self.shares = field, shares
        self.cells: tuple[Cell, ...] = ((0, 0), (1, 1))
        self.counts: Whole = np.zeros(len(self.cells) + 1, np.int64)  # the missing ones last

    def look(self, column: pa.Array) -> None:
        """Nothing has to be found out."""

    def settle(self, rows: int) -> None:
        """Nothing has to be decided."""

    def count(self, column: pa.Array) -> None:
        """Count the rows of each cell."""
        self.counts[:-1] += cells.count(cells.numbers(column.drop_null()), self.cells)
        self.counts[-1] += column.null_count

    def release(self, rows: int) -> Column:
        """Return the noisy counts; where noise has left none of them, as if all were alike."""
        nulls, found = _answer(self.counts, self.shares[Ask.VALUES], rows)
        return Column(self.field.name, self.field.type, nulls, _spans(self.cells, found))


class Choices:
    """Texts that the schema lists; others are not counted."""

    def __init__(self, field: Field, shares: Shares) -> None:
        self.field, self.shares = field, shares
        self._known = pa.array(field.valid.values, pa.string())
        self.counts: Whole = np.zeros(len(self._known) + 1, np.int64)  # the missing ones last

    def look(self, column: pa.Array) -> None:
        """Nothing has to be found out."""

    def settle(self, rows: int) -> None:
        """Nothing has to be decided."""

    def count(self, column: pa.Array) -> None:
        """Count the rows of each text."""
        places = pc.index_in(column.drop_null(), self._known).drop_null().to_numpy(zero_copy_only=False)
        self.counts[:-1] += np.bincount(places, minlength=len(self._known))
        self.counts[-1] += column.null_count

    def release(self, rows: int) -> Column:
        """Return the noisy counts; where noise has left none of them, as if all were alike."""
        nulls, found = _answer(self.counts, self.shares[Ask.VALUES], rows)
        spread = found if found.any() else found + 1
        pairs = zip(self.field.valid.values, spread.tolist(), strict=True)
        return Column(
            self.field.name, self.field.type, nulls, texts=tuple(Frequent(text, held) for text, held in pairs if held)
        )


class Numbers:
    """Integers, decimals, dates: in which coarse cells there are any, then how many in finer ones."""

    def __init__(self, field: Field, shares: Shares) -> None:
        self.field, self.shares = field, shares
        self.range = cells.coarse(field)
        self.ranged: Whole = np.zeros(len(self.range), np.int64)
        self.placed: Whole = np.zeros(len(_PLACES), np.int64)
        self.cells: tuple[Cell, ...] = ()
        self.counts: Whole = np.zeros(1, np.int64)
        self._coarse: tuple[Span, ...] = (Span(*cells.bounds(field), 1),)

    def look(self, column: pa.Array) -> None:
        """Count the rows of each coarse cell, and of each number of decimal places, where that is asked."""
        held = column.drop_null()
        if Ask.RANGE in self.shares:
            self.ranged += cells.count(cells.numbers(held), self.range)
        if Ask.PLACES in self.shares:
            self.placed += _places(held)

    def settle(self, rows: int) -> None:
        """Find the coarse cells that hold more than noise would, and split them as finely as the noise allows."""
        whole = self.range
        if Ask.RANGE in self.shares:
            noisy = release.histogram(self.ranged, self.shares[Ask.RANGE])
            noisy[noisy < release.doubtful(self.shares[Ask.RANGE], len(noisy))] = 0
            self._coarse = _spans(self.range, noisy) if noisy.any() else (self._usual(),)
            whole = tuple((span.low, span.high) for span in self._coarse)
        most = int(rows / (_ABOVE_NOISE * release.scale(self.shares[Ask.VALUES])))
        self.cells = cells.finer(whole, most)
        self.counts = np.zeros(len(self.cells) + 1, np.int64)

    def count(self, column: pa.Array) -> None:
        """Count the rows of each finer cell."""
        self.counts[:-1] += cells.count(cells.numbers(column.drop_null()), self.cells)
        self.counts[-1] += column.null_count

    def release(self, rows: int) -> Column:
        """Return the noisy counts of the finer cells, and of the coarse ones whose finer cells are lost in noise."""
        nulls, found = _answer(self.counts, self.shares[Ask.VALUES], rows)
        if Ask.RANGE in self.shares:
            found[found < release.doubtful(self.shares[Ask.VALUES], len(found))] = 0
        fine = _spans(self.cells, found) if found.any() else ()
        lost = [span for span in self._coarse if not any(span.low <= one.low <= span.high for one in fine)]
        spans = tuple(sorted((*fine, *lost), key=lambda span: span.low))
        return Column(self.field.name, self.field.type, nulls, spans, places=self._told_places())

    def _usual(self) -> Span:
        low, high = cells.bounds(self.field)
        usual = _USUAL.get(self.field.type, (0, 100 * 10**DECIMAL_PLACES))
        first = min(max(usual[0], low), high)
        return Span(first, max(min(usual[1], high), first), 1)

    def _told_places(self) -> int:
        if self.field.type is not FieldType.DECIMAL:
            return 0
        noisy = np.cumsum(np.maximum(release.histogram(self.placed, self.shares[Ask.PLACES]), 0))
        enough = noisy * 100 >= noisy[-1] * _FITTING
        found = _PLACES[int(np.argmax(enough))] if noisy[-1] else _PLACES[1]
        ends = [Decimal(text).normalize().as_tuple().exponent for text in _bounds(self.field)]
        return min(max(found, *(-end for end in ends if isinstance(end, int)), 0), DECIMAL_PLACES)


class Texts:
    """Texts of which nothing is known: those that many rows have, and how long the others are."""

    def __init__(self, field: Field, shares: Shares, delta: float) -> None:
        self.field, self.shares, self.delta = field, shares, delta
        self.counts: Whole = np.zeros(len(cells.LENGTHS) + 1, np.int64)  # the missing ones last
        self.texts: dict[str, int] = {}
        self._salt = secrets.token_bytes(16)  # so that nobody can choose texts that fall into one bucket
        self._buckets: Whole = np.zeros(BUCKETS, np.int64)
        self._least = FEWEST

    def look(self, column: pa.Array) -> None:
        """Count lengths, and the rows of each bucket of texts."""
        held = column.drop_null()
        self.counts[:-1] += cells.count(cells.numbers(held), cells.LENGTHS)
        self.counts[-1] += column.null_count
        texts, rows = _distinct(held)
        np.add.at(self._buckets, self._places(texts), rows)

    def settle(self, rows: int) -> None:
        """Decide how many rows make a category."""
        self._least = max(FEWEST, rows // RARE + 1)

    def count(self, column: pa.Array) -> None:
        """Count the rows of each text that may have enough of them."""
        texts, rows = _distinct(column.drop_null())
        full = self._buckets[self._places(texts)] >= self._least
        for text, held in zip(texts.filter(pa.array(full)).to_pylist(), rows[full].tolist(), strict=True):
            self.texts[text] = self.texts.get(text, 0) + held

    def release(self, rows: int) -> Column:
        """Return the frequent texts; if they are not almost all, the lengths of the others."""
        nulls, found = _answer(self.counts, self.shares[Ask.LENGTHS], rows)
        shown = release.frequent(self.texts, self._least, self.shares[Ask.CATEGORIES], self.delta)
        texts = tuple(Frequent(text, held) for text, held in shown.items())
        if texts and 100 * sum(shown.values()) >= CATEGORICAL * (rows - nulls):
            return Column(self.field.name, self.field.type, nulls, texts=texts)
        found[found < release.doubtful(self.shares[Ask.LENGTHS], len(found))] = 0
        spans = _spans(cells.LENGTHS, found) if found.any() else (Span(*_USUAL_LENGTH, 1),)
        return Column(self.field.name, self.field.type, nulls, spans, texts)

    def _places(self, texts: pa.Array) -> Whole:
        return (digest128(texts, self._salt)[:, 0] % np.uint64(BUCKETS)).astype(np.int64)


def _answer(counts: Whole, epsilon: Fraction, rows: int) -> tuple[int, Whole]:
    """Return the noisy number of missing values, none or all where it may be noise, and the other noisy counts."""
    noisy = np.maximum(release.histogram(counts, epsilon), 0)
    nulls, doubt = min(int(noisy[-1]), rows), release.doubtful(epsilon, _CAREFUL)
    if nulls < doubt:
        nulls = 0
    elif nulls > rows - doubt:
        nulls = rows
    return nulls, noisy[:-1]


def _spans(at: Sequence[Cell], counts: Whole) -> tuple[Span, ...]:
    """Return the cells with their counts; the empty ones are left out unless all are."""
    spread = counts if counts.any() else counts + 1
    return tuple(Span(*cell, held) for cell, held in zip(at, spread.tolist(), strict=True) if held)


def _places(column: pa.Array) -> Whole:
    """Return how many decimals need as many places as each of ``_PLACES``, and no fewer."""
    cut = (pc.round(column, places, round_mode="towards_zero") for places in _PLACES)  # rounding up may not fit
    enough = [pc.sum(pc.equal(fewer, column)).as_py() or 0 for fewer in cut]
    return np.asarray(np.diff(np.array([0, *enough])), np.int64)


def _bounds(field: Field) -> list[str]:
    return [text for text in (field.valid.low, field.valid.high) if text]


def _distinct(column: pa.Array) -> tuple[pa.Array, Whole]:
    """Return the texts that are short enough for a category, each once, and how many rows each has."""
    pairs = pc.value_counts(column)
    texts, rows = pairs.field("values"), pairs.field("counts").to_numpy(zero_copy_only=False)
    short = pc.less_equal(pc.utf8_length(texts), LONGEST_CATEGORY)
    return texts.filter(short), np.asarray(rows[short.to_numpy(zero_copy_only=False)], np.int64)
