"""Measures the rows of a dataset version for its twin: the one place where rows are looked at, and the noise begins.

    batches() --look--> noisy ranges --batches() again--> counts --release--> Measurements

Security: see ``budget`` for what is promised about a row, ``release`` for the noise, ``tally`` for what is kept of rows
          in between. An exact count decides nothing that is seen outside: not an error, not what is asked.
Errors:   ``InvalidSpec`` for rows of other columns than the schema's, or none; ``Unavailable`` without OpenDP.
Not here: reading rows (vault), what becomes of the measurements (synthesis).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import pyarrow as pa

from sandbox.catalog.schema import ARROW, Field, Schema
from sandbox.catalog.twin.budget import Ask, measured, questions
from sandbox.catalog.twin.measurements import Measurements
from sandbox.catalog.twin.release import DELTA_BITS
from sandbox.catalog.twin.tally import Tally, tally
from sandbox.errors import InvalidSpec

Rows: TypeAlias = Callable[[], Iterable[pa.RecordBatch]]


def measure(batches: Rows, schema: Schema, epsilon_milli: int) -> Measurements:
    """Ask the rows of a dataset version all that its twin needs; spends ``epsilon_milli``.

    Args:
        batches: gives the rows, anew each time it is called; columns of the key may be missing.

    Raises:
        InvalidSpec: there are no rows, they have other columns than the schema says, or there is no such budget.
    """
    asked = questions(schema, epsilon_milli)
    fields = measured(schema)
    shares = {field.name: {one.ask: one.epsilon for one in asked if one.column == field.name} for field in fields}
    looking = sum(Ask.CATEGORIES in asks for asks in shares.values())
    # The number of columns rounded up to a power of two: a float holds the quotient exactly.
    delta = 2.0 ** -(DELTA_BITS + max(looking - 1, 0).bit_length())
    tallies = [tally(field, shares[field.name], delta) for field in fields]
    rows = _pass(batches, fields, [one.look for one in tallies])
    if not rows:
        raise InvalidSpec("there are no rows to measure")
    for one in tallies:
        one.settle(rows)
    if _pass(batches, fields, [one.count for one in tallies]) != rows:
        raise InvalidSpec("the second time there were other rows")
    columns = tuple(one.release(rows) for one in tallies)
    return Measurements(rows, epsilon_milli, DELTA_BITS if looking else 0, columns)


def _pass(batches: Rows, fields: Sequence[Field], take: Sequence[Callable[[pa.Array], None]]) -> int:
    """Hand every column of every batch on, and return how many rows there were."""
    rows = 0
    for batch in batches():
        for field, put in zip(fields, take, strict=True):
            at = batch.schema.get_field_index(field.name)
            if at < 0 or batch.schema.field(at).type != ARROW[field.type]:
                raise InvalidSpec(f"a batch has no column {field.name!r} of type {field.type.value}")
            put(batch.column(at))
        rows += batch.num_rows
    return rows


__all__ = ["Rows", "Tally", "measure"]
