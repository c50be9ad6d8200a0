"""From a statement to the SQL of its result: written anew from what the scenario allows, never from the text.

Security:  every name and text is quoted; DuckDB sees nothing of whoever asked but the names of columns.
           A group of fewer people than the minimum has no numbers in it, and a value outside its range stops the query,
           saying neither which nor what: both should have been seen before, in ``populations``.
Units:     measures are whole numbers of 10^-places from the first step on. Sums of them are exact, and neither they nor
           the real numbers made of them depend on the order of rows. Places are the gate's to round to.
Shapes:    a row for every group there is, in the order of the levels, the last dimension fastest and totals last; the
           groups' names come first, NULL where a number is a total over the dimension. An empty group has counts of 0
           and no other numbers.
Errors:    ``InvalidSpec`` where a column's type or range does not fit.
Not here:  what gates judge (``sql_populations``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sandbox.errors import InvalidSpec
from sandbox.tee_sim import sql_columns
from sandbox.tee_sim.sql_columns import literal, quoted
from sandbox.tee_sim.sql_terms import QUANTILES, Axis, Function, Margins, Number, Statement

EXACT: Final = 1 << 53  # units; a larger total would not be delivered exactly
MOST_WIDTH: Final = 1 << 46  # units, of a range whose variance is asked for: squares of 2^31 rows fit into 127 bits
_SPREADS: Final = frozenset({Function.VAR_SAMP, Function.STDDEV_SAMP})
_NARROW: Final = 1 << 31  # units; squares of smaller numbers fit into 63 bits

_OUTSIDE: Final = "error('a value is outside the range that the scenario declares')"
_LARGE: Final = "error('a total is too large to be given exactly')"


def result(statement: Statement, least: int) -> str:
    """Return the SQL of the result, of groups of ``least`` people or more."""
    parts = [part for at, number in enumerate(statement.numbers) for part in _parts(statement, number, at)]
    spread = [at for at, number in enumerate(statement.numbers) if number.function in _SPREADS]
    near = [f"n{at}_sum // nullif(n{at}_rows, 0) AS n{at}_near" for at in spread]
    shown = [f"g.l{at} AS {quoted(axis.name)}" for at, axis in enumerate(statement.groups)]
    for at, number in enumerate(statement.numbers):
        if number.function is Function.COUNT:
            value = f"CASE WHEN t.people >= {least} THEN t.n{at} WHEN coalesce(t.people, 0) = 0 THEN 0 END"
        else:
            value = f"CASE WHEN t.people >= {least} THEN {_value(number, f't.n{at}')} END"
        shown.append(f"{value} AS {quoted(number.name)}")
    levels = [f"a{at} AS c{at}" for at in range(len(statement.groups))]
    return with_steps(
        {
            "joined": _joined(statement),
            "found": _found(statement),
            "added": select([*levels, f"{people(statement)} AS people", *parts], "found", grouped(statement, "a")),
            "totals": select(["*", *near], "added"),
            "grid": grid(statement),
        },
        select(shown, f"grid AS g LEFT JOIN totals AS t ON {same(statement, 'g', 't')}", "ORDER BY g.place"),
    )


# --- steps that the result and the populations share ------------------------------------------------------------------


def with_steps(steps: Mapping[str, str], last: str, kept: str = "") -> str:
    """Return named steps and what is selected from them as one statement; ``kept`` is read several times."""
    named = ",\n".join(f"{name} AS {'MATERIALIZED ' * (name == kept)}({sql})" for name, sql in steps.items())
    return f"WITH {named}\n{last}"


def select(columns: Iterable[str], source: str, *clauses: str) -> str:
    """Return one SELECT."""
    shown = ", ".join(columns) or "0 AS nothing"
    return " ".join(["SELECT", shown, "FROM", source, *(clause for clause in clauses if clause)])


def people(statement: Statement) -> str:
    """Return how many people rows are about."""
    if not statement.repeating:
        return "count(*)"
    names = keys(statement)
    return f"count(DISTINCT {names[0] if len(names) == 1 else '(' + ', '.join(names) + ')'})"


def keys(statement: Statement) -> list[str]:
    """Return the columns that say who a row is about, if they may have several."""
    return [f"k{at}" for at in range(len(statement.tables[0].grant.key))] if statement.repeating else []


def grouped(statement: Statement, letter: str) -> str:
    """Return the clause that makes the groups, of the columns ``letter`` with a number behind."""
    if not statement.groups:
        return ""
    listed = ", ".join(f"{letter}{at}" for at in range(len(statement.groups)))
    if statement.margins is Margins.NONE:
        return f"GROUP BY {listed}"
    return f"GROUP BY {statement.margins.name} ({listed})"


def grid(statement: Statement) -> str:
    """Return every group of the result: its place, its levels (c0, ...) and their names (l0, ...)."""
    if not statement.groups:
        return "SELECT 0 AS place"
    columns, sources = [], []
    for at, axis in enumerate(statement.groups):
        chosen = [(str(level), literal(axis.grouping.levels[level])) for level in axis.chosen]
        if statement.margins is not Margins.NONE:
            chosen.append(("NULL", "NULL"))
        lists = {
            "c": [level for level, _ in chosen],
            "l": [name for _, name in chosen],
            "p": list(map(str, range(len(chosen)))),
        }
        unnested = [f"unnest([{', '.join(listed)}]) AS {letter}{at}" for letter, listed in lists.items()]
        sources.append(f"(SELECT {', '.join(unnested)}) AS x{at}")
        columns += [f"c{at}", f"l{at}"]
    is_part = ""
    if statement.margins is Margins.ROLLUP and len(statement.groups) > 1:
        is_part = "WHERE c0 IS NOT NULL OR c1 IS NULL"
    order = ", ".join(f"p{at}" for at in range(len(statement.groups)))
    return select([*columns, f"row_number() OVER (ORDER BY {order}) - 1 AS place"], ", ".join(sources), is_part)


def same(statement: Statement, left: str, right: str) -> str:
    """Return the condition that rows of two steps are of one group."""
    pairs = [f"{left}.c{at} IS NOT DISTINCT FROM {right}.c{at}" for at in range(len(statement.groups))]
    return " AND ".join(pairs) or "true"


def codes(statement: Statement) -> list[str]:
    """Return the numbers of the levels that rows have in every dimension."""
    return [sql_columns.code(axis, statement.tables[axis.table]) for axis in statement.axes]


def counts(axis: Axis, column: str) -> str:
    """Return the condition that a row has a level that counts."""
    if len(axis.chosen) == len(axis.grouping.levels):
        return f"{column} IS NOT NULL"
    return f"{column} IN ({', '.join(map(str, axis.chosen))})"


# --- rows -------------------------------------------------------------------------------------------------------------


def _joined(statement: Statement) -> str:
    """Return the joined rows: keys (k0, ...), levels (a0, ...), measures as they are (x0, ...)."""
    first = statement.tables[0].grant
    columns = [f"t0.{quoted(name)} AS {key}" for key, name in zip(keys(statement), first.key, strict=False)]
    columns += [f"{code} AS a{at}" for at, code in enumerate(codes(statement))]
    for at, one in enumerate(statement.measured):
        joined = statement.tables[one.table]
        raw, inside = sql_columns.raw(one, joined), sql_columns.is_inside(one, joined)
        columns.append(f"CASE WHEN {raw} IS NULL OR {inside} THEN {raw} ELSE {_OUTSIDE} END AS x{at}")
    source = f"{quoted(first.name)} AS t0"
    for at, joined in enumerate(statement.tables[1:], 1):
        pairs = zip(first.key, joined.grant.key, strict=True)
        on = " AND ".join(f"t0.{quoted(a)} = t{at}.{quoted(b)}" for a, b in pairs)
        source += f" {'LEFT' if joined.is_optional else 'INNER'} JOIN {quoted(joined.grant.name)} AS t{at} ON {on}"
    return select(columns, source)


def _found(statement: Statement) -> str:
    """Return the rows that are in a group: the same, measures in units (m0, ...)."""
    columns = [*keys(statement), *(f"a{at}" for at in range(len(statement.groups)))]
    for at, one in enumerate(statement.measured):
        columns.append(f"{sql_columns.units(one, statement.tables[one.table], f'x{at}')} AS m{at}")
    kept = " AND ".join(counts(axis, f"a{at}") for at, axis in enumerate(statement.axes))
    return select(columns, "joined", f"WHERE {kept}" if kept else "")


# --- numbers ----------------------------------------------------------------------------------------------------------


def _parts(statement: Statement, number: Number, at: int) -> Sequence[str]:
    """Return what is added up for one number: whole numbers, but for quantiles."""
    if number.measured is None:
        return [f"count(*) AS n{at}"]
    column = f"m{statement.measured.index(number.measured)}"
    total, rows = f"sum({column}) AS n{at}_sum", f"count({column}) AS n{at}_rows"
    if number.function is Function.COUNT:
        return [f"count({column}) AS n{at}"]
    if number.function is Function.SUM:
        return [total]
    if number.function is Function.AVG:
        return [total, rows]
    if number.function in QUANTILES:
        return [f"quantile_cont({column}, {number.fraction}) AS n{at}"]
    low, width = number.measured.range.low, number.measured.range.high - number.measured.range.low
    if width >= MOST_WIDTH:
        raise InvalidSpec(tell=f"the declared range of {number.measured.range.column!r} is too wide for a variance")
    above = f"({column} - ({low}))"
    wide = above if width < _NARROW else f"CAST({above} AS HUGEINT)"
    return [f"sum({above}) AS n{at}_sum", f"sum({wide} * {above}) AS n{at}_squares", rows]


def _value(number: Number, name: str) -> str:
    """Return a number that is no count, from what was added up for it."""
    unit = 10**number.measured.range.places if number.measured is not None else 1
    if number.function in QUANTILES:
        return f"{name} / CAST({unit} AS DOUBLE)"
    if number.function is Function.SUM:
        exact = f"CASE WHEN abs({name}_sum) < {EXACT} THEN {name}_sum ELSE {_LARGE} END"
        return f"CAST({exact} AS DOUBLE) / CAST({unit} AS DOUBLE)"
    if number.function is Function.AVG:
        return f"CAST({name}_sum AS DOUBLE) / nullif(CAST({name}_rows * {unit} AS DOUBLE), 0)"
    # Squares of distances from a whole number next to the mean: small, exact, and put right by what it is short of.
    short = f"({name}_sum - {name}_near * {name}_rows)"
    squares = f"({name}_squares - 2 * {name}_near * {name}_sum + {name}_near * {name}_near * {name}_rows)"
    real = f"(CAST({squares} AS DOUBLE) - CAST({short} * {short} AS DOUBLE) / {name}_rows)"
    variance = f"{real} / nullif(CAST({name}_rows - 1 AS DOUBLE), 0) / CAST({unit * unit} AS DOUBLE)"
    return variance if number.function is Function.VAR_SAMP else f"sqrt({variance})"
