"""Which tables a statement reads, how they are joined, and what a name in it means.

    FROM t0 [LEFT] JOIN t1 ON t0.key = t1.key ...   -> Scope

Security:  tables are joined on whole keys only, so that every joined row is about one person, and at most one of the
           tables has several rows of somebody: otherwise rows would be multiplied.
Errors:    ``InvalidSpec`` with a place and a reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from sqlglot import exp

from sandbox.errors import InvalidSpec
from sandbox.tee_sim.sql_nodes import place
from sandbox.tee_sim.sql_terms import Grouping, Joined, TableGrant
from sandbox.tee_sim.sql_text import refuse

MOST_TABLES: Final = 4
_ON_KEYS: Final = "tables are joined on their keys: a.key = b.key for every column of the key, joined with AND"

_Named = TypeVar("_Named")


@dataclass(frozen=True, slots=True)
class Scope:
    """The tables of a statement under the names it gives them."""

    text: str
    names: tuple[str, ...]
    tables: tuple[Joined, ...]

    def table(self, word: exp.Identifier) -> int:
        """Return which table a qualifier means."""
        number = named(word, dict(zip(self.names, range(len(self.names)), strict=True)))
        if number is None:
            raise refuse(self.text, place(word), f"there is no table {word.name!r} in this statement")
        return number

    def holder(self, word: exp.Column, column: str) -> int:
        """Return which table holds ``column``, of those ``word`` may mean."""
        if isinstance(qualifier := word.args.get("table"), exp.Identifier):
            number = self.table(qualifier)
            if column not in self.tables[number].grant.columns:
                raise refuse(self.text, place(word), f"table {self.names[number]!r} has no column for {word.name!r}")
            return number
        holders = [number for number, one in enumerate(self.tables) if column in one.grant.columns]
        if not holders:
            raise refuse(self.text, place(word), f"no table of this statement has a column for {word.name!r}")
        if len(holders) > 1:
            several = " and ".join(self.names[number] for number in holders)
            raise refuse(self.text, place(word), f"{word.name!r} is in {several}: say which (table.{word.name})")
        return holders[0]


def named(word: exp.Identifier, known: Mapping[str, _Named]) -> _Named | None:
    """Return what a word names: exactly, or unless it is quoted, in another case if that is only one."""
    if word.name in known:
        return known[word.name]
    if word.args.get("quoted"):
        return None
    alike = [value for name, value in known.items() if name.lower() == word.name.lower() and name.isascii()]
    return alike[0] if len(alike) == 1 else None


def read_tables(text: str, tree: exp.Select, grants: Sequence[TableGrant]) -> Scope:
    """Return the tables of the statement."""
    known = {grant.name: grant for grant in grants}
    if len(known) != len(grants):
        raise InvalidSpec(tell="two tables have the same name")
    source = tree.args.get("from_")
    if not isinstance(source, exp.From):
        raise refuse(text, place(tree), "the statement reads no table: FROM is missing")
    scope = Scope(text, (), ())
    scope = _with(scope, source.this, known, is_optional=False)
    for join in tree.args.get("joins") or ():
        is_optional = _is_optional(text, join)
        scope = _with(scope, join.this, known, is_optional)
        _check_keys(scope, join)
    if len(scope.tables) > MOST_TABLES:
        raise refuse(text, place(tree), f"at most {MOST_TABLES} tables can be joined")
    repeating = [name for name, one in zip(scope.names, scope.tables, strict=True) if not one.grant.is_unique]
    if len(repeating) > 1:
        why = f"{repeating[0]} and {repeating[1]} both have several rows of one person: joined, they would multiply"
        raise refuse(text, place(tree), why)
    return scope


def conditions(node: exp.Expr) -> Iterator[exp.Expr]:
    """Yield what is joined with AND, from left to right."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, exp.And):
            waiting += [one.expression, one.this]
        elif isinstance(one, exp.Paren):
            waiting.append(one.this)
        else:
            yield one


def _with(scope: Scope, node: exp.Expr, known: Mapping[str, TableGrant], is_optional: bool) -> Scope:
    if not isinstance(node, exp.Table) or not isinstance(node.this, exp.Identifier):
        raise refuse(scope.text, place(node), "tables are named as the job names them, and nothing else is read")
    grant = named(node.this, known)
    if grant is None:
        raise refuse(scope.text, place(node), f"the job has no table {node.name!r}")
    if any(one.grant is grant for one in scope.tables):
        raise refuse(scope.text, place(node), f"table {grant.name!r} is read twice")
    alias = node.args.get("alias")
    name = alias.name if isinstance(alias, exp.TableAlias) else grant.name
    if any(name.lower() == other.lower() for other in scope.names):
        raise refuse(scope.text, place(node), f"two tables are called {name!r}")
    return Scope(scope.text, (*scope.names, name), (*scope.tables, Joined(grant, is_optional)))


def _is_optional(text: str, join: exp.Join) -> bool:
    kind = (join.args.get("side") or "", join.args.get("kind") or "")
    if kind in (("", ""), ("", "INNER")):
        is_optional = False
    elif kind in (("LEFT", ""), ("LEFT", "OUTER")):
        is_optional = True
    else:
        raise refuse(text, place(join), "tables are joined with [INNER] JOIN or LEFT JOIN")
    if not join.args.get("on") and not join.args.get("using"):
        raise refuse(text, place(join), _ON_KEYS)
    return is_optional


def _check_keys(scope: Scope, join: exp.Join) -> None:
    """Check that the last table is joined to an earlier one by the columns of both keys, in order."""
    new = len(scope.tables) - 1
    keys = [tuple(one.grant.key) for one in scope.tables]
    if using := join.args.get("using"):
        if tuple(word.name for word in using) != keys[new] or keys[new] != keys[0]:
            raise refuse(
                scope.text, place(join), "USING names the columns of the key, the same in both tables, in order"
            )
        other = 0
    else:
        other, pairs = _pairs(scope, join, new)
        if len(keys[other]) != len(keys[new]) or pairs != set(zip(keys[other], keys[new], strict=True)):
            raise refuse(scope.text, place(join.args["on"]), _ON_KEYS)
    if scope.tables[other].is_optional:
        raise refuse(scope.text, place(join), "a table is not joined to one that was joined with LEFT JOIN")
    types = [tuple(scope.tables[number].grant.key.values()) for number in (other, new)]
    if any(a is not None and b is not None and a != b for a, b in zip(*types, strict=True)):
        raise refuse(scope.text, place(join), "the keys of these tables are of different types")


def _pairs(scope: Scope, join: exp.Join, new: int) -> tuple[int, set[tuple[str, str]]]:
    others: set[int] = set()
    pairs = set()
    for one in conditions(join.args["on"]):
        sides = (one.this, one.expression) if isinstance(one, exp.EQ) else ()
        words = [side for side in sides if isinstance(side, exp.Column) and side.args.get("table")]
        if len(words) != 2:
            raise refuse(scope.text, place(one), _ON_KEYS)
        ends = {scope.table(word.args["table"]): _key_column(scope, word) for word in words}
        if len(ends) != 2 or new not in ends:
            raise refuse(scope.text, place(one), _ON_KEYS)
        other = next(number for number in ends if number != new)
        others.add(other)
        pairs.add((ends[other], ends[new]))
    if len(others) != 1:
        raise refuse(scope.text, place(join), "a table is joined to one other")
    return others.pop(), pairs


def _key_column(scope: Scope, word: exp.Column) -> str:
    key = scope.tables[scope.table(word.args["table"])].grant.key
    column = named(word.this, {name: name for name in key}) if isinstance(word.this, exp.Identifier) else None
    if column is None:
        raise refuse(scope.text, place(word), _ON_KEYS)
    return column


def dimension(scope: Scope, word: exp.Expr, known: Mapping[str, Grouping]) -> tuple[Grouping, int] | None:
    """Return which dimension a word names and which table holds its column; None if it names none."""
    if not isinstance(word, exp.Column) or not isinstance(word.this, exp.Identifier):
        return None
    grouping = named(word.this, known)
    return None if grouping is None else (grouping, scope.holder(word, grouping.dimension.column))
