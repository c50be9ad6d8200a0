"""The SQL of what gates judge before a result is made: who is in every group, who is left out, who has how much.

Security:  computed from the same levels and units as the result, over all rows of all its tables: also of those that a
           condition or a join leaves out, since two results may differ by exactly these.
Units:     rows and people; measures in units of 10^-places, as whole numbers.
Shapes:    the columns below; the rows are, in order,
           part "group"  every group of the result, ``place`` from 0
           part "atom"   where conditions pick several levels: who is in each combination of them, by group
           part "rest"   who is left out, by ``way`` and by the levels there are: no partner in an inner join, another
                         level than a condition picks, or no level at all
Not here:  the judgement.
"""

from __future__ import annotations

from typing import Final

from sandbox.tee_sim import sql_columns
from sandbox.tee_sim.sql_columns import quoted
from sandbox.tee_sim.sql_render import EXACT, codes, counts, grid, grouped, keys, people, same, select, with_steps
from sandbox.tee_sim.sql_terms import QUANTILES, Margins, Statement

GROUP: Final = "group"
ATOM: Final = "atom"
REST: Final = "rest"
# Every row has "part", "way", "rows", "people", and "c0", ...: numbers of levels of the groups.
# Groups also have "place" and "others" (people left out with the same levels); and behind "m{j}_", for the measure j:
# people with it, and with rows without it; the largest and second largest part of one person in the sum, and the sum of
# all these, without their signs; whether all values are alike; and whether the sum is too large to be given exactly.
MEASURED: Final = ("people", "without", "largest", "second", "total", "alike", "large")
# Groups and the rest have behind "m{j}_": how many values are outside the range.
OUTSIDE: Final = "outside"
# Groups have behind "q{i}_", for the number i that is a quantile: how many have a value at or below it, at or above it.
SIDES: Final = ("below", "above")

_STATES: Final = 3  # of a dimension: a level that counts, another, none


def populations(statement: Statement) -> str:
    """Return the SQL."""
    many = range(len(statement.measured))
    steps = {"joined": _joined(statement), "placed": _placed(statement)}
    steps["kept"] = select(["*"], "placed", "WHERE way = 0")
    if statement.repeating:
        steps["persons"] = _persons(statement)
        steps["totals"] = _totals_by_person(statement)
    else:
        steps["totals"] = _totals_by_row(statement)
    steps["others"] = select([*_codes(statement), f"{people(statement)} AS others"], "placed", _left_out(statement))
    steps["grid"] = grid(statement)
    sources = f"grid AS g LEFT JOIN totals AS t ON {same(statement, 'g', 't')}"
    sources += f" LEFT JOIN others AS o ON {same(statement, 'g', 'o')}"
    if statement.repeating and _quantiles(statement):
        steps |= _sides(statement)
        sources += f" LEFT JOIN sides AS s ON {same(statement, 'g', 's')}"
    numbers = ["rows", "people", *(f"m{j}_{name}" for j in many for name in (*MEASURED, OUTSIDE))]
    shown = [
        f"'{GROUP}' AS part",
        "g.place AS place",
        "0 AS way",
        *(f"g.{name} AS {name}" for name in _codes(statement)),
    ]
    shown += [f"coalesce(t.{name}, 0) AS {name}" for name in numbers]
    shown += ["coalesce(o.others, 0) AS others"]
    for i in _quantiles(statement):
        source = "s" if statement.repeating else "t"
        shown += [f"coalesce({source}.q{i}_{side}, 0) AS q{i}_{side}" for side in SIDES]
    parts = [select(shown, sources)]
    if any(len(axis.chosen) > 1 for axis in statement.conditions):
        parts.append(_atoms(statement))
    parts.append(_rest(statement))
    order = [f"part = '{REST}'", f"part = '{ATOM}'", "place", "way", *_codes(statement), "people"]
    return with_steps(steps, f"{' UNION ALL BY NAME '.join(parts)} ORDER BY {', '.join(order)}", "placed")


def _joined(statement: Statement) -> str:
    """Return all rows of all tables, with partners or without: keys, levels, values and who is absent."""
    grants = [joined.grant for joined in statement.tables]
    own = [[f"t{number}.{quoted(name)}" for name in grant.key] for number, grant in enumerate(grants)]
    whole = [_first(same_key) for same_key in zip(*own, strict=True)]
    columns = [f"{column} AS {key}" for key, column in zip(keys(statement), whole, strict=False)]
    columns += [f"{code} AS a{at}" for at, code in enumerate(codes(statement))]
    for at, one in enumerate(statement.measured):
        joined = statement.tables[one.table]
        raw, inside = sql_columns.raw(one, joined), sql_columns.is_inside(one, joined)
        columns += [f"CASE WHEN {inside} THEN {raw} END AS x{at}", f"NOT coalesce({inside}, true) AS o{at}"]
    columns += [f"{own[number][0]} IS NULL AS absent{number}" for number in _needed(statement)]
    source = f"{quoted(grants[0].name)} AS t0"
    for number in range(1, len(grants)):
        known = [_first(before) for before in zip(*own[:number], strict=True)]
        on = " AND ".join(f"{a} = {b}" for a, b in zip(known, own[number], strict=True))
        source += f" FULL JOIN {quoted(grants[number].name)} AS t{number} ON {on}"
    return select(columns, source)


def _placed(statement: Statement) -> str:
    """Return the same rows with the levels that count (c0, ...), in which way they are left out (0: not), and units."""
    columns = keys(statement)
    way, weight = ["0"], 1
    for at, axis in enumerate(statement.axes):
        is_counted = counts(axis, f"a{at}")
        columns.append(f"CASE WHEN {is_counted} THEN a{at} END AS c{at}")
        way.append(f"CASE WHEN {is_counted} THEN 0 WHEN a{at} IS NOT NULL THEN {weight} ELSE {2 * weight} END")
        weight *= _STATES
    for number in _needed(statement):
        way.append(f"CASE WHEN absent{number} THEN {weight} ELSE 0 END")
        weight *= 2
    columns.append(f"{' + '.join(way)} AS way")
    for at, one in enumerate(statement.measured):
        columns += [f"{sql_columns.units(one, statement.tables[one.table], f'x{at}')} AS m{at}", f"o{at}"]
    return select(columns, "joined")


def _totals_by_row(statement: Statement) -> str:
    """Return the groups where everybody has one row."""
    columns = [*_codes(statement), "count(*) AS rows", f"{people(statement)} AS people"]
    for j in range(len(statement.measured)):
        columns += [f"count(m{j}) AS m{j}_people", f"count(*) - count(m{j}) AS m{j}_without"]
        columns += [
            *_dominance(j, f"m{j}"),
            f"min(m{j}) = max(m{j}) AS m{j}_alike",
            f"abs(sum(m{j})) >= {EXACT} AS m{j}_large",
        ]
        columns.append(f"count(*) FILTER (o{j}) AS m{j}_{OUTSIDE}")
    for i in _quantiles(statement):
        # Of n values in order, a quantile lies between those at floor(f * (n - 1)) and at ceil(f * (n - 1)), from 0.
        number = statement.numbers[i]
        rows = f"count(m{_measure(statement, i)})"
        above, below = number.fraction.as_integer_ratio()
        columns.append(f"CASE WHEN {rows} > 0 THEN (({rows} - 1) * {above}) // {below} + 1 ELSE 0 END AS q{i}_below")
        columns.append(f"{rows} - (({rows} - 1) * {above} + {below - 1}) // {below} AS q{i}_above")
    return select(columns, "kept", grouped(statement, "c"))


def _persons(statement: Statement) -> str:
    """Return every person of every group, where somebody may have several rows."""
    columns = [*_codes(statement), *keys(statement), "count(*) AS n"]
    for j in range(len(statement.measured)):
        columns += [f"count(m{j}) AS n{j}", f"sum(m{j}) AS s{j}", f"min(m{j}) AS low{j}", f"max(m{j}) AS high{j}"]
        columns.append(f"count(*) FILTER (o{j}) AS o{j}")
    sets = [f"({', '.join([*listed, *keys(statement)])})" for listed in _sets(statement)]
    return select(columns, "kept", f"GROUP BY GROUPING SETS ({', '.join(sets)})")


def _totals_by_person(statement: Statement) -> str:
    """Return the groups from their persons."""
    columns = [*_codes(statement), "CAST(sum(n) AS BIGINT) AS rows", "count(*) AS people"]
    for j in range(len(statement.measured)):
        columns += [f"count(*) FILTER (n{j} > 0) AS m{j}_people", f"count(*) FILTER (n > n{j}) AS m{j}_without"]
        columns += [
            *_dominance(j, f"s{j}"),
            f"min(low{j}) = max(high{j}) AS m{j}_alike",
            f"abs(sum(s{j})) >= {EXACT} AS m{j}_large",
        ]
        columns.append(f"CAST(sum(o{j}) AS BIGINT) AS m{j}_{OUTSIDE}")
    listed = ", ".join(_codes(statement))
    return select(columns, "persons", f"GROUP BY {listed}" if listed else "")


def _sides(statement: Statement) -> dict[str, str]:
    """Return how many people have values at or below, and at or above, the quantiles of their group."""
    quantiles, columns = [], []
    for i in _quantiles(statement):
        j = _measure(statement, i)
        quantiles.append(f"quantile_cont(m{j}, {statement.numbers[i].fraction}) AS q{i}")
        columns += [
            f"count(*) FILTER (low{j} <= q{i}) AS q{i}_below",
            f"count(*) FILTER (high{j} >= q{i}) AS q{i}_above",
        ]
    levels = [f"p.{name}" for name in _codes(statement)]
    by_group = f"GROUP BY {', '.join(levels)}" if levels else ""
    return {
        "quantiles": select([*_codes(statement), *quantiles], "kept", grouped(statement, "c")),
        "sides": select(
            [*levels, *columns], f"persons AS p JOIN quantiles AS q ON {same(statement, 'p', 'q')}", by_group
        ),
    }


def _atoms(statement: Statement) -> str:
    """Return who is in every combination of the levels that conditions pick."""
    picked = [f"c{at}" for at in range(len(statement.axes))]
    columns = [
        f"'{ATOM}' AS part",
        "0 AS way",
        *_codes(statement),
        "count(*) AS rows",
        f"{people(statement)} AS people",
    ]
    return select(columns, "kept", f"GROUP BY {', '.join(picked)}")


def _rest(statement: Statement) -> str:
    """Return who is left out."""
    columns = [f"'{REST}' AS part", "way", *_codes(statement), "count(*) AS rows", f"{people(statement)} AS people"]
    columns += [f"count(*) FILTER (o{j}) AS m{j}_{OUTSIDE}" for j in range(len(statement.measured))]
    return select(columns, "placed", f"WHERE way <> 0 GROUP BY {', '.join(['way', *_codes(statement)])}")


def _left_out(statement: Statement) -> str:
    """Return the clauses that pick rows which have the levels of a group and are not in it."""
    has_levels = [f"AND {name} IS NOT NULL" for name in _codes(statement)]
    return " ".join(["WHERE way <> 0", *has_levels, grouped(statement, "c")])


def _dominance(j: int, column: str) -> list[str]:
    top = f"max(abs({column}), 2)"
    shown = [f"coalesce({top}[{place}], 0) AS m{j}_{name}" for place, name in ((1, "largest"), (2, "second"))]
    return [*shown, f"sum(abs({column})) AS m{j}_total"]


def _codes(statement: Statement) -> list[str]:
    return [f"c{at}" for at in range(len(statement.groups))]


def _sets(statement: Statement) -> list[list[str]]:
    """Return the sets of dimensions that groups are made by."""
    listed = _codes(statement)
    if statement.margins is Margins.NONE:
        return [listed]
    if statement.margins is Margins.ROLLUP:
        return [listed[:size] for size in range(len(listed), -1, -1)]
    return [[name for at, name in enumerate(listed) if kept >> at & 1] for kept in range(1 << len(listed))]


def _needed(statement: Statement) -> list[int]:
    """Return the tables that a row must have a part of."""
    if len(statement.tables) == 1:
        return []
    return [number for number, joined in enumerate(statement.tables) if not joined.is_optional]


def _quantiles(statement: Statement) -> list[int]:
    return [i for i, number in enumerate(statement.numbers) if number.function in QUANTILES]


def _measure(statement: Statement, i: int) -> int:
    measured = statement.numbers[i].measured
    return statement.measured.index(measured) if measured is not None else 0


def _first(columns: tuple[str, ...]) -> str:
    return columns[0] if len(columns) == 1 else f"coalesce({', '.join(columns)})"
