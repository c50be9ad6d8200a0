"""One SELECT over authorised columns: read, judged before any work, and written anew for DuckDB.

    text --sql_tree.read--> Statement --sql_render, sql_populations--> Query

Security:  nothing of the text reaches DuckDB but the names of the result's columns: a statement is refused, or it is
           understood entirely and written again from the scenario's own names, levels and ranges.
Errors:    ``InvalidSpec``, with line and column where the text is at fault.
Not here:  running it (the jail), and judging whom it is about (the gate, on ``populations``).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sandbox.model import MeasureRange
from sandbox.tee_sim import sql_populations, sql_render
from sandbox.tee_sim.sql_terms import Function, Grouping, Number, Statement, TableGrant
from sandbox.tee_sim.sql_tree import read

__all__ = ["Grouping", "Query", "ResultColumn", "Role", "TableGrant", "analyse", "labels", "read", "result_columns"]

_SQUARED: Final = 2  # a variance has the square of its column's unit


class Role(enum.Enum):
    """What a column of the result holds."""

    LABEL = "label"
    COUNT = "count"
    REAL = "real"


@dataclass(frozen=True, slots=True)
class ResultColumn:
    """One column of the result; places are decimal places of a real number."""

    name: str
    role: Role
    places: int = 0


@dataclass(frozen=True, slots=True)
class Query:
    """A statement in the form in which it is run."""

    sql: str  # its result: exactly ``columns``, a row a group, in order
    populations: str  # what gates judge before: see ``sql_populations``
    columns: tuple[ResultColumn, ...]
    tables: tuple[str, ...]  # the tables that both read, under their names
    used: Mapping[str, tuple[str, ...]]  # table -> its columns
    statement: Statement


def analyse(
    text: str,
    tables: Sequence[TableGrant],
    dimensions: Sequence[Grouping],
    measures: Sequence[MeasureRange],
    min_group: int,
) -> Query:
    """Return the query that a statement asks for; a group of fewer people than ``min_group`` has no numbers in it.

    Raises:
        InvalidSpec: it is no statement, or asks for what the scenario does not allow.
    """
    statement = read(text, tables, dimensions, measures)
    return Query(
        sql=sql_render.result(statement, max(min_group, 1)),
        populations=sql_populations.populations(statement),
        columns=result_columns(statement),
        tables=tuple(joined.grant.name for joined in statement.tables),
        used=statement.used,
        statement=statement,
    )


def result_columns(statement: Statement) -> tuple[ResultColumn, ...]:
    """Return the columns of the result."""
    labelled = tuple(ResultColumn(axis.name, Role.LABEL) for axis in statement.groups)
    return labelled + tuple(_column(number) for number in statement.numbers)


def labels(statement: Statement) -> tuple[tuple[str | None, ...], ...]:
    """Return the groups of the result in order, by the names of their levels; None where a number is a total."""
    return tuple(
        tuple(
            None if level is None else axis.grouping.levels[level]
            for axis, level in zip(statement.groups, place, strict=True)
        )
        for place in statement.places
    )


def _column(number: Number) -> ResultColumn:
    if number.function is Function.COUNT or number.measured is None:
        return ResultColumn(number.name, Role.COUNT)
    places = number.measured.range.places
    return ResultColumn(number.name, Role.REAL, places * _SQUARED if number.function is Function.VAR_SAMP else places)
