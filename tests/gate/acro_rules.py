"""The rules of acro for tables and models in the clear, written from its documentation; whole numbers, no rounding.

    MinimumThresholdCheck   fewer than 10 rows, with or without a value
    PresenceOfZeroCheck     no rows
    NKCheck                 the two largest values make up 90 % of the total, or more
    PPercentCheck           all but the two largest come to less than 10 % of the largest
    MissingCheck            a row has no value (acro does not look unless it is told to), or there are no rows
    MinimumDoFCheck         of a deviation: rows less one are below 10; of a model: rows less the rank of its columns

Where a value is negative, dominance is not judged in the whole table: acro marks the cells with such values, for people
to review.

Source:  acro 1.0.2 (``default.yaml``, ``checks.json``, ``risks.json``); (n, k) and p % as in Hundepool et al.,
         "Statistical Disclosure Control", 2012, chapter 4. Two things are not documented: a cell whose values are all
         zero fails PPercentCheck, and one without rows fails MissingCheck.
Shapes:  a cell is the values of its rows, None where there is none; a table its cells, the last level fastest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np

LEAST_ROWS: Final = 10
LEAST_FREEDOM: Final = 10
LARGEST: Final = 2
SHARE_PERCENT: Final = 90
REST_PERCENT: Final = 10

Cell: TypeAlias = Sequence[int | None]
Place: TypeAlias = tuple[int, int]


def is_small(cell: Cell) -> bool:
    """Return whether too few rows are behind a number."""
    return len(cell) < LEAST_ROWS


def is_empty(cell: Cell) -> bool:
    """Return whether nobody is behind a number."""
    return not cell


def lacks_a_value(cell: Cell) -> bool:
    """Return whether a row does not count in a total, or none does."""
    return not cell or any(value is None for value in cell)


def is_dominated(cell: Cell) -> bool:
    """Return whether the largest values make up too much of a total; there is none to judge where it is 0."""
    values = descending(cell)
    return sum(values) > 0 and 100 * sum(values[:LARGEST]) >= SHARE_PERCENT * sum(values)


def is_exposed(cell: Cell) -> bool:
    """Return whether who has the second largest value knows the largest one too well."""
    values = descending(cell)
    return bool(values) and (100 * sum(values[LARGEST:]) < REST_PERCENT * values[0] or is_zero(cell))


def is_zero(cell: Cell) -> bool:
    """Return whether there are values, and none but 0."""
    values = descending(cell)
    return bool(values) and not any(values)


def has_little_freedom(cell: Cell) -> bool:
    """Return whether a deviation has too few degrees of freedom."""
    return len(cell) - 1 < LEAST_FREEDOM


CHECKS: Final[Mapping[str, Callable[[Cell], bool]]] = {
    "MinimumThresholdCheck": is_small,
    "PresenceOfZeroCheck": is_empty,
    "NKCheck": is_dominated,
    "PPercentCheck": is_exposed,
    "MissingCheck": lacks_a_value,
    "MinimumDoFCheck": has_little_freedom,
}
OF_VALUES: Final = ("NKCheck", "PPercentCheck")


def flagged(check: str, cells: Mapping[Place, Cell]) -> set[Place]:
    """Return where a check fails in a table, its totals among the cells."""
    negative = {place for place, cell in cells.items() if any(value < 0 for value in descending(cell))}
    if check in OF_VALUES and negative:
        return negative
    return {place for place, cell in cells.items() if CHECKS[check](cell)}


def placed(cells: Sequence[Cell], levels: tuple[int, int], margins: bool) -> dict[Place, Cell]:
    """Return the cells of a table by row and column, and behind them their totals."""
    count_rows, count_columns = levels
    found: dict[Place, list[int | None]] = {}
    for at, cell in enumerate(cells):
        row, column = divmod(at, count_columns)
        totals = ((row, count_columns), (count_rows, column), (count_rows, count_columns)) if margins else ()
        for place in ((row, column), *totals):
            found.setdefault(place, []).extend(cell)
    return dict(found)


def is_saturated(columns: Sequence[Sequence[int]]) -> bool:
    """Return whether a model has too few degrees of freedom."""
    return len(columns[0]) - int(np.linalg.matrix_rank(np.array(columns, float))) < LEAST_FREEDOM


def descending(cell: Cell) -> list[int]:
    """Return the values that are there, the largest first."""
    return sorted((value for value in cell if value is not None), reverse=True)
