"""From the tree of a statement to what it asks, in terms of what the scenario allows.

    text --sql_text.parse--> tree --every node and every part of it is on a list--> Statement

Security:  an allow-list twice: of nodes and their parts, and of the shapes read from them. Of the text only the names
           of the result's columns go on, and these are letters, digits and underscores.
           Quantiles go in steps of 0.05: in finer ones they would read out the values of a group one by one.
Errors:    ``InvalidSpec`` with a place and a reason.
Not here:  types of columns, and SQL to run (``sql_render``).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from math import prod
from typing import Final

from sqlglot import exp

from sandbox.errors import InvalidSpec
from sandbox.model import MeasureRange
from sandbox.tee_sim.sql_nodes import check_nodes, place
from sandbox.tee_sim.sql_scope import Scope, conditions, dimension, named, read_tables
from sandbox.tee_sim.sql_terms import Axis, Function, Grouping, Margins, Measured, Number, Statement, TableGrant
from sandbox.tee_sim.sql_text import FUNCTIONS, parse, refuse

MOST_NUMBERS: Final = 16  # asked for
MOST_GROUPED: Final = 2  # dimensions
MOST_CONDITIONS: Final = 8
MOST_GROUPS: Final = 10_000  # rows of the result
MOST_CELLS: Final = 100_000  # numbers in it

_FUNCTIONS: Final[Mapping[type[exp.Expr], Function]] = {
    exp.Count: Function.COUNT,
    exp.Sum: Function.SUM,
    exp.Avg: Function.AVG,
    exp.Variance: Function.VAR_SAMP,
    exp.StddevSamp: Function.STDDEV_SAMP,
    exp.Median: Function.MEDIAN,
    exp.PercentileCont: Function.QUANTILE_CONT,
}
# Two of one column from different sets would tell the exact number of rows, which rounding hides.
_TELLING: Final[Mapping[Function, str]] = {
    Function.SUM: "sum",
    Function.AVG: "mean",
    Function.VAR_SAMP: "variance",
    Function.STDDEV_SAMP: "variance",
}
_FRACTION: Final = re.compile(r"0?\.[0-9]{1,6}")
_NAME: Final = re.compile(r"[^\W\d]\w{0,62}")
_ONE_MEASURE: Final = "a function is given one measure, by its name and nothing else"
_ONLY_EQUAL: Final = "conditions are dimension = 'level' or dimension IN ('level', ...), joined with AND"


def read(
    text: str, tables: Sequence[TableGrant], dimensions: Sequence[Grouping], measures: Sequence[MeasureRange]
) -> Statement:
    """Return what a statement asks.

    Raises:
        InvalidSpec: it is no statement, or asks for what the scenario does not allow.
    """
    tree = parse(text)
    check_nodes(text, tree)
    scope = read_tables(text, tree, tables)
    known = {one.dimension.name: one for one in dimensions}
    groups, margins = _groups(scope, tree, known)
    picked = _conditions(scope, tree, known)
    groups, picked = _narrowed(scope, tree, groups, picked)
    numbers = _numbers(scope, tree, groups, {one.column: one for one in measures})
    _check_order(scope, tree, groups)
    rows = prod(len(axis.chosen) + (margins is not Margins.NONE) for axis in groups)
    if rows > MOST_GROUPS or rows * len(numbers) > MOST_CELLS:
        why = f"the result would have {rows} groups; at most {MOST_GROUPS} are allowed, with {MOST_CELLS} numbers"
        raise refuse(text, place(tree), why)
    statement = Statement(scope.tables, groups, picked, margins, numbers)
    _check_names(statement)
    return statement


def _groups(scope: Scope, tree: exp.Select, known: Mapping[str, Grouping]) -> tuple[tuple[Axis, ...], Margins]:
    clause = tree.args.get("group")
    if clause is None:
        return (), Margins.NONE
    words, margins = list(clause.expressions), Margins.NONE
    if len(words) == 1 and isinstance(words[0], exp.Rollup | exp.Cube):
        margins = Margins.ROLLUP if isinstance(words[0], exp.Rollup) else Margins.CUBE
        words = list(words[0].expressions)
    axes: list[Axis] = []
    for word in words:
        if isinstance(word, exp.Rollup | exp.Cube):
            raise refuse(scope.text, place(word), "ROLLUP or CUBE stands alone and holds all groups")
        found = dimension(scope, word, known)
        if found is None:
            raise refuse(scope.text, place(word), _no_dimension(word, "rows are grouped by dimensions only", known))
        if any(axis.grouping is found[0] for axis in axes):
            raise refuse(scope.text, place(word), f"dimension {found[0].dimension.name!r} is named twice")
        axes.append(Axis(*found, tuple(range(len(found[0].levels))), is_condition=False))
    if not 1 <= len(axes) <= MOST_GROUPED:
        raise refuse(scope.text, place(clause), f"at most {MOST_GROUPED} dimensions can group a result")
    return tuple(axes), margins


def _conditions(scope: Scope, tree: exp.Select, known: Mapping[str, Grouping]) -> tuple[Axis, ...]:
    clause = tree.args.get("where")
    axes: list[Axis] = []
    for one in conditions(clause.this) if clause is not None else ():
        if not isinstance(one, exp.EQ | exp.In):
            raise refuse(scope.text, place(one), _ONLY_EQUAL)
        found = dimension(scope, one.this, known)
        if found is None:
            raise refuse(scope.text, place(one), _no_dimension(one.this, _ONLY_EQUAL, known))
        if any(axis.grouping is found[0] for axis in axes):
            why = f"dimension {found[0].dimension.name!r} has two conditions: use IN ('level', ...)"
            raise refuse(scope.text, place(one), why)
        literals = list(one.expressions) if isinstance(one, exp.In) else [one.expression]
        chosen = tuple(sorted(_level(scope, literal, found[0]) for literal in literals))
        if not chosen or len(set(chosen)) != len(chosen):
            raise refuse(scope.text, place(one), "IN names no level, or one twice")
        axes.append(Axis(*found, chosen, is_condition=True))
    if len(axes) > MOST_CONDITIONS:
        raise refuse(scope.text, place(tree), f"at most {MOST_CONDITIONS} dimensions can have conditions")
    return tuple(axes)


def _level(scope: Scope, literal: exp.Expr, grouping: Grouping) -> int:
    name = grouping.dimension.name
    if not isinstance(literal, exp.Literal) or not literal.is_string:
        raise refuse(scope.text, place(literal), f"a level of {name!r} is written as a text in single quotes")
    if literal.this not in grouping.levels:
        raise refuse(scope.text, place(literal), f"dimension {name!r} has no such level")
    return grouping.levels.index(literal.this)


def _narrowed(
    scope: Scope, tree: exp.Select, groups: Sequence[Axis], picked: Sequence[Axis]
) -> tuple[tuple[Axis, ...], tuple[Axis, ...]]:
    """Return the groups with the levels that conditions leave, and the conditions that are no groups."""
    by_name = {axis.name: axis for axis in picked}
    for axis in groups:
        if axis.name in by_name and by_name[axis.name].table != axis.table:
            raise refuse(scope.text, place(tree), f"dimension {axis.name!r} is used of two tables")
    narrowed = tuple(by_name.get(axis.name, axis) for axis in groups)
    grouped = {axis.name for axis in groups}
    return narrowed, tuple(axis for axis in picked if axis.name not in grouped)


def _numbers(
    scope: Scope, tree: exp.Select, groups: Sequence[Axis], ranges: Mapping[str, MeasureRange]
) -> tuple[Number, ...]:
    items = list(tree.expressions)
    for axis, item in zip(groups, items, strict=False):
        if not isinstance(item, exp.Column) or named(item.this, {axis.name: axis}) is None:
            why = f"SELECT names the groups first, in their order and by their own names: {axis.name!r} belongs here"
            raise refuse(scope.text, place(item), why)
        if scope.holder(item, axis.grouping.dimension.column) != axis.table:
            raise refuse(scope.text, place(item), f"dimension {axis.name!r} is used of two tables")
    numbers = tuple(_number(scope, item, ranges) for item in items[len(groups) :])
    if not 1 <= len(numbers) <= MOST_NUMBERS:
        why = f"a statement asks for 1 to {MOST_NUMBERS} numbers ({FUNCTIONS}), after its groups"
        raise refuse(scope.text, place(tree), why)
    names = [name.lower() for name in (*(axis.name for axis in groups), *(number.name for number in numbers))]
    for at, name in enumerate(names):
        if name in names[:at]:
            raise refuse(
                scope.text, place(items[at]), f"two columns of the result are called {name!r}: name one with AS"
            )
    _refuse_telling(scope, items[len(groups) :], numbers)
    return numbers


def _number(scope: Scope, item: exp.Expr, ranges: Mapping[str, MeasureRange]) -> Number:
    call = item.this if isinstance(item, exp.Alias) else item
    if isinstance(call, exp.Star):
        raise refuse(scope.text, place(call), "rows do not leave: name functions of measures, not *")
    function = _FUNCTIONS.get(type(call))
    if function is None:
        why = f"only groups and functions of measures can be selected; the functions are {FUNCTIONS}"
        raise refuse(scope.text, place(item), why)
    if not isinstance(call.this, exp.Expr):
        raise refuse(scope.text, place(item), _ONE_MEASURE)
    if isinstance(call.this, exp.Star) and function is Function.COUNT:
        return Number(_name(scope, item, "count"), function, None)
    measured = _measured(scope, call.this, ranges)
    fraction = Decimal("0.5")
    if function is Function.QUANTILE_CONT:
        fraction = _fraction(scope, call)
    return Number(_name(scope, item, f"{function}_{measured.range.column}"), function, measured, fraction)


def _measured(scope: Scope, word: exp.Expr, ranges: Mapping[str, MeasureRange]) -> Measured:
    if not isinstance(word, exp.Column) or not isinstance(word.this, exp.Identifier):
        raise refuse(scope.text, place(word), _ONE_MEASURE)
    declared = named(word.this, ranges)
    if declared is None:
        raise refuse(scope.text, place(word), f"the scenario has no measure {word.name!r}: no range is declared for it")
    return Measured(scope.holder(word, declared.column), declared)


def _fraction(scope: Scope, call: exp.Expr) -> Decimal:
    literal = call.args.get("expression")
    why = "a quantile is a number between 0.05 and 0.95 in steps of 0.05"
    if not isinstance(literal, exp.Literal) or literal.is_string or not _FRACTION.fullmatch(literal.this):
        raise refuse(scope.text, place(call), why)
    fraction = Decimal(literal.this).normalize()
    if not Decimal("0.05") <= fraction <= Decimal("0.95") or fraction % Decimal("0.05"):
        raise refuse(scope.text, place(literal), why)
    return fraction


def _name(scope: Scope, item: exp.Expr, default: str) -> str:
    if not isinstance(item, exp.Alias):
        return default
    name = item.alias
    if not _NAME.fullmatch(name) or unicodedata.normalize("NFKC", name) != name:
        why = "a column of the result is called by letters, digits and underscores, at most 63, a letter first"
        raise refuse(scope.text, place(item.args["alias"]), why)
    return name


def _refuse_telling(scope: Scope, items: Sequence[exp.Expr], numbers: Sequence[Number]) -> None:
    telling: dict[Measured, str] = {}
    seen = set()
    for item, number in zip(items, numbers, strict=True):
        if (number.function, number.measured, number.fraction) in seen:
            raise refuse(scope.text, place(item), "the same number is asked for twice")
        seen.add((number.function, number.measured, number.fraction))
        if number.measured is not None and number.function in _TELLING:
            what = _TELLING[number.function]
            if telling.setdefault(number.measured, what) != what:
                why = f"two of sum, mean and variance of {number.measured.range.column!r} would tell"
                raise refuse(scope.text, place(item), f"{why} the exact number of rows", "ask for one of them")


def _check_order(scope: Scope, tree: exp.Select, groups: Sequence[Axis]) -> None:
    clause = tree.args.get("order")
    if clause is None:
        return
    why = "the result is in the order of the groups: ORDER BY can name them in that order, and nothing else"
    words = [one.this for one in clause.expressions]
    if len(words) > len(groups):
        raise refuse(scope.text, place(clause), why)
    for axis, word in zip(groups, words, strict=False):
        if not isinstance(word, exp.Column) or named(word.this, {axis.name: axis}) is None:
            raise refuse(scope.text, place(word), why)
        if scope.holder(word, axis.grouping.dimension.column) != axis.table:
            raise refuse(scope.text, place(word), why)


def _no_dimension(word: exp.Expr, rule: str, known: Mapping[str, Grouping]) -> str:
    if isinstance(word, exp.Column):
        by_column = [one.dimension.name for one in known.values() if one.dimension.column == word.name]
        if by_column:
            return f"{rule}; the dimension over column {word.name!r} is called {by_column[0]!r}"
        return f"{rule}; the scenario has no dimension {word.name!r}"
    return rule


def _check_names(statement: Statement) -> None:
    """Refuse what DuckDB would take for something else: to it, capital letters make no difference."""
    listed = [tuple(statement.used), *statement.used.values()]
    for names in listed:
        if len({name.lower() for name in names}) != len(names):
            raise InvalidSpec(tell="two names that this statement needs differ in nothing but capital letters")
    written = [*(name for names in listed for name in names), *(axis.name for axis in statement.groups)]
    written += [level for axis in statement.axes for level in axis.grouping.levels]
    if not all(written) or any("\0" in name for name in written):
        raise InvalidSpec(tell="a name or a level that this statement needs is empty, or holds a character of no text")
