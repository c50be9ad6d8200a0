"""Which nodes the tree of a statement may have, and which parts each of them; and where a node stands in the text.

Security:  an allow-list: a node or a part that is not named here is refused, also one that a later version of the
           parser adds. What is allowed may still make no sense where it stands: ``sql_tree`` reads shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlglot import exp

from sandbox.tee_sim.sql_text import refuse

ALLOWED: Final[Mapping[type[exp.Expr], frozenset[str]]] = {
    exp.Select: frozenset({"expressions", "from_", "joins", "where", "group", "order"}),
    exp.From: frozenset({"this"}),
    exp.Table: frozenset({"this", "alias"}),
    exp.TableAlias: frozenset({"this"}),
    exp.Join: frozenset({"this", "side", "kind", "on", "using"}),
    exp.Where: frozenset({"this"}),
    exp.And: frozenset({"this", "expression"}),
    exp.EQ: frozenset({"this", "expression"}),
    exp.In: frozenset({"this", "expressions"}),
    exp.Paren: frozenset({"this"}),
    exp.Group: frozenset({"expressions"}),
    exp.Rollup: frozenset({"expressions"}),
    exp.Cube: frozenset({"expressions"}),
    exp.Order: frozenset({"expressions"}),
    exp.Ordered: frozenset({"this"}),
    exp.Alias: frozenset({"this", "alias"}),
    exp.Column: frozenset({"this", "table"}),
    exp.Identifier: frozenset({"this", "quoted"}),
    exp.Literal: frozenset({"this", "is_string"}),
    exp.Star: frozenset(),
    exp.Count: frozenset({"this", "big_int"}),
    exp.Sum: frozenset({"this"}),
    exp.Avg: frozenset({"this"}),
    exp.Variance: frozenset({"this"}),
    exp.StddevSamp: frozenset({"this"}),
    exp.Median: frozenset({"this"}),
    exp.PercentileCont: frozenset({"this", "expression"}),
}

_REASONS: Final[Mapping[str, str]] = {
    "db": "names of schemas and catalogues are not allowed: a table is named by one word",
    "catalog": "names of schemas and catalogues are not allowed: a table is named by one word",
    "columns": "columns keep their names",
    "expressions": "a function is given one column",
}


def check_nodes(text: str, tree: exp.Expr) -> None:
    """Check every node of the tree, and every part of it that is there.

    Raises:
        InvalidSpec: one is not allowed.
    """
    for node in tree.walk():
        parts = ALLOWED.get(type(node))
        if parts is None:
            raise refuse(text, place(node), "this is not allowed in a statement here")
        for name, part in node.args.items():
            if part and name not in parts:
                raise refuse(text, place(node), _REASONS.get(name, f"this has a part ({name}) that is not allowed"))


def place(node: exp.Expr) -> int:
    """Return at which character of the text a node begins; 0 if it has no word of its own."""
    return min((part.meta["start"] for part in node.walk() if "start" in part.meta), default=0)
