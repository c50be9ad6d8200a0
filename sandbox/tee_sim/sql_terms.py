"""What a statement may name, and what is left of one when it has been read: shapes only.

    TableGrant, Grouping, MeasureRange   what the scenario allows
    Statement                            what was asked, in terms of these and of nothing else

Shapes:  a ``Statement`` holds no text of whoever wrote it but the names of the result's columns, which ``sql_tree``
         limits to letters, digits and underscores; everything else points into what the scenario allows.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

import pyarrow as pa

from sandbox.model import Dimension, MeasureRange


@dataclass(frozen=True, slots=True)
class TableGrant:
    """One table a statement may read. Keys say who a row is about and are never missing; types may come later.

    A key is not read where nothing depends on it: a table alone, in which nobody has two rows, can come without.
    """

    name: str
    columns: Mapping[str, pa.DataType | None]  # the granted ones; the key need not be among them
    key: Mapping[str, pa.DataType | None]  # in the order in which they are compared
    is_unique: bool = True  # whether nobody has two rows


@dataclass(frozen=True, slots=True)
class Grouping:
    """A dimension of the scenario with the names of its levels, in order."""

    dimension: Dimension
    levels: tuple[str, ...]


class Function(enum.StrEnum):
    """What is computed of a column."""

    COUNT = "count"
    SUM = "sum"
    AVG = "avg"
    VAR_SAMP = "var_samp"
    STDDEV_SAMP = "stddev_samp"
    MEDIAN = "median"
    QUANTILE_CONT = "quantile_cont"


QUANTILES = frozenset({Function.MEDIAN, Function.QUANTILE_CONT})


class Margins(enum.Enum):
    """Which totals over groups come with them."""

    NONE = "none"
    ROLLUP = "rollup"
    CUBE = "cube"


@dataclass(frozen=True, slots=True)
class Joined:
    """One table of a statement."""

    grant: TableGrant
    is_optional: bool  # joined with LEFT JOIN: whoever is not in it stays


@dataclass(frozen=True, slots=True)
class Axis:
    """A dimension that groups rows, or picks them, with the levels that count."""

    grouping: Grouping
    table: int  # of the statement's tables
    chosen: tuple[int, ...]  # numbers of levels, ascending
    is_condition: bool

    @property
    def name(self) -> str:
        """The dimension's name."""
        return self.grouping.dimension.name


@dataclass(frozen=True, slots=True)
class Measured:
    """A column that is counted or computed with."""

    table: int
    range: MeasureRange


@dataclass(frozen=True, slots=True)
class Number:
    """One column of the result that is no label; without a measure it counts rows."""

    name: str
    function: Function
    measured: Measured | None
    fraction: Decimal = Decimal("0.5")  # of a quantile


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that was read."""

    tables: tuple[Joined, ...]
    groups: tuple[Axis, ...]
    conditions: tuple[Axis, ...]  # those that are no groups
    margins: Margins
    numbers: tuple[Number, ...]

    @property
    def axes(self) -> tuple[Axis, ...]:
        """All dimensions it uses, the groups first."""
        return self.groups + self.conditions

    @property
    def measured(self) -> tuple[Measured, ...]:
        """The columns it computes with, each once, in the order of their first use."""
        return tuple(dict.fromkeys(number.measured for number in self.numbers if number.measured is not None))

    @property
    def places(self) -> tuple[tuple[int | None, ...], ...]:
        """The groups of the result in order, each as numbers of levels; None where it is a total over all of them."""
        made: list[tuple[int | None, ...]] = [()]
        for axis in self.groups:
            levels: tuple[int | None, ...] = axis.chosen
            if self.margins is not Margins.NONE:
                levels = (*axis.chosen, None)
            made = [(*before, level) for before in made for level in levels]
        if self.margins is Margins.ROLLUP:  # no totals over an earlier dimension within a later one
            made = [one for one in made if sorted(one, key=lambda level: level is None) == list(one)]
        return tuple(made)

    @property
    def used(self) -> dict[str, tuple[str, ...]]:
        """The columns it reads of each table, keys first."""
        columns: list[dict[str, None]] = [dict.fromkeys(joined.grant.key) for joined in self.tables]
        for axis in self.axes:
            columns[axis.table][axis.grouping.dimension.column] = None
        for one in self.measured:
            columns[one.table][one.range.column] = None
        return {joined.grant.name: tuple(names) for joined, names in zip(self.tables, columns, strict=True)}

    @property
    def repeating(self) -> bool:
        """Whether somebody may have more than one row."""
        return any(not joined.grant.is_unique for joined in self.tables)
