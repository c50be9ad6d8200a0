"""Makes the rows of a twin from measurements: each column by itself, keys of people who do not exist.

Security: sees measurements, never a row; what comes out is as private as they are. Chance needs no secrecy here.
Reveals:  every column's own distribution, about. What hangs together in the real rows (age with income, a person's
          district with its street) does not in a twin, and columns outside the key are not unique: models learned from
          it mean nothing.
Shapes:   the schema's columns and types, batches of ``BATCH`` rows; texts that are no category are words of the letters
          v to y that begin with x. The same measurements, schema, code, rows and seed give the same rows, with the
          same release of numpy's generator.
          Decimals: no more places than most real ones have, and no numbers beyond 64 bits of their last place.
Errors:   ``InvalidSpec`` if the measurements are of other columns, or the schema has no room for so many keys.
Not here: measuring, the sequence of people (people).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sandbox.catalog.schema import ARROW, DECIMAL_DIGITS, DECIMAL_PLACES, FieldType, Schema
from sandbox.catalog.twin.budget import measured
from sandbox.catalog.twin.cells import Whole
from sandbox.catalog.twin.measurements import Column, Measurements
from sandbox.catalog.twin.people import keys, room, taken
from sandbox.crypto.sm3 import tagged
from sandbox.errors import InvalidSpec

BATCH: Final = 1 << 16  # rows
_LARGEST: Final = (1 << 63) - 1
_LETTERS: Final = np.frombuffer(b"vwxy", np.uint8)

Draw: TypeAlias = Callable[[int], pa.Array]  # how many rows -> that many values


def synthesise(
    measurements: Measurements, schema: Schema, code: str, rows: int, seed: bytes
) -> Iterator[pa.RecordBatch]:
    """Return the rows of a twin of the dataset ``code``, batch by batch.

    Args:
        seed: what the twin is drawn by; it needs not be secret.

    Raises:
        InvalidSpec: the measurements are of other columns, or there are fewer different keys than ``rows``.
    """
    fields = measured(schema)
    if [(one.name, one.type) for one in measurements.columns] != [(one.name, one.type) for one in fields]:
        raise InvalidSpec("these measurements are of other columns than the schema has")
    people = taken(code, rows, room(schema))
    root = np.random.SeedSequence(np.frombuffer(tagged("twin-rows", code.encode() + seed), "<u4").tolist())
    own, *each = (np.random.Generator(np.random.PCG64(part)) for part in root.spawn(1 + len(fields)))
    own.shuffle(people)  # in the order of the sequence, twins would lie side by side as real tables do not
    draws = {
        column.name: _column(column, measurements.rows, dice)
        for column, dice in zip(measurements.columns, each, strict=True)
    }
    return _rows(schema, people, draws)


def _rows(schema: Schema, people: Whole, draws: dict[str, Draw]) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(people), BATCH):
        batch = people[start : start + BATCH]
        columns = {**keys(schema, batch), **{name: draw(len(batch)) for name, draw in draws.items()}}
        yield pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema.arrow())


def _column(column: Column, rows: int, dice: np.random.Generator) -> Draw:
    """Return what draws the values of a column, missing ones included."""
    draw = _texts(column, rows, dice) if column.type is FieldType.STRING else _numbers(column, dice)
    if not column.nulls:
        return draw
    missing = column.nulls / rows

    def some(wanted: int) -> pa.Array:
        gone = dice.random(wanted) < missing
        return pc.if_else(pa.array(gone), pa.scalar(None, ARROW[column.type]), draw(wanted))

    return some


def _numbers(column: Column, dice: np.random.Generator) -> Draw:
    places = _fitting_places(column)
    unit = 10 ** (DECIMAL_PLACES - places) if column.type is FieldType.DECIMAL else 1
    within = [_whole(span.low, span.high, unit) for span in column.spans]
    pick = _chooser([span.count for span in column.spans], dice)
    lows, highs = (np.array(ends, np.int64) for ends in zip(*within, strict=True))

    def draw(wanted: int) -> pa.Array:
        at = pick(wanted)
        return _typed(dice.integers(lows[at], highs[at], endpoint=True), column.type, places)

    return draw


def _fitting_places(column: Column) -> int:
    """Return the decimal places with which every number fits into 64 bits."""
    largest = max(max(-span.low, span.high) for span in column.spans)
    places = column.places
    while places and largest // 10 ** (DECIMAL_PLACES - places) > _LARGEST:
        places -= 1
    return places


def _whole(low: int, high: int, unit: int) -> tuple[int, int]:
    """Return the first and last multiple of ``unit`` in a span, in such units; if there is none, the one below."""
    first, last = -(-low // unit), high // unit
    if first > last:
        first = last
    return tuple(min(max(end, -_LARGEST - 1), _LARGEST) for end in (first, last))  # type: ignore[return-value]  # two


def _typed(values: npt.NDArray[Any], type_: FieldType, places: int) -> pa.Array:
    if type_ is FieldType.BOOLEAN:
        return pa.array(values != 0)
    if type_ is FieldType.DATE:
        return pa.array(values.astype(np.int32), pa.date32())
    if type_ is FieldType.INTEGER:
        return pa.array(values, pa.int64())
    words = np.empty((len(values), 2), "<i8")  # of 128 bits each, the lower one first
    words[:, 0], words[:, 1] = values, values >> 63
    whole = pa.Array.from_buffers(pa.decimal128(DECIMAL_DIGITS, places), len(values), [None, pa.py_buffer(words)])
    return whole.cast(ARROW[type_])


def _texts(column: Column, rows: int, dice: np.random.Generator) -> Draw:
    known = pa.array([one.text for one in column.texts], pa.string())
    if not column.spans:
        pick = _chooser([one.count for one in column.texts], dice)
        return lambda wanted: known.take(pa.array(pick(wanted)))
    counts = [one.count for one in column.texts]
    rest = max(rows - column.nulls - sum(counts), 1)
    pick = _chooser([*counts, rest], dice)
    words = _words(column, dice)

    def draw(wanted: int) -> pa.Array:
        at = pick(wanted)
        other = pa.array(at == len(known))
        if not len(known):
            return words(wanted)
        return pc.if_else(other, words(wanted), known.take(pa.array(np.minimum(at, len(known) - 1))))

    return draw


def _words(column: Column, dice: np.random.Generator) -> Draw:
    pick = _chooser([span.count for span in column.spans], dice)
    lows, highs = (np.array(ends, np.int64) for ends in zip(*((s.low, s.high) for s in column.spans), strict=True))

    def draw(wanted: int) -> pa.Array:
        at = pick(wanted)
        lengths = dice.integers(lows[at], highs[at], endpoint=True)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        letters = _LETTERS[dice.integers(0, len(_LETTERS), int(offsets[-1]), dtype=np.uint8)]
        letters[offsets[:-1][lengths > 0]] = ord("x")
        return pa.Array.from_buffers(pa.string(), wanted, [None, pa.py_buffer(offsets), pa.py_buffer(letters)])

    return draw


def _chooser(counts: Sequence[int], dice: np.random.Generator) -> Callable[[int], Whole]:
    """Return what draws places, each as often as its count says."""
    shares = np.cumsum(np.array(counts, np.float64))
    edges = shares[:-1] / shares[-1]
    return lambda wanted: np.asarray(np.searchsorted(edges, dice.random(wanted), side="right"), np.int64)
