"""Statements changed at random: refused, or made of allowed nodes only; and what is run holds nothing of the text."""

from __future__ import annotations

import re

import sqlglot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sql_world import DIMENSIONS, TABLES, ask, rows, run
from sqlglot import exp
from test_sql_refusals import REFUSED
from test_sql_results import CASES

from sandbox.errors import InvalidSpec
from sandbox.tee_sim.sql import Query
from sandbox.tee_sim.sql_nodes import ALLOWED

PIECE = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|\w+|\s+|.", re.DOTALL)
PIECES = [PIECE.findall(case.text) for case in CASES]
WORDS = sorted(
    {piece for pieces in PIECES for piece in pieces}
    | {piece for text, *_ in REFUSED if len(text) < 100 for piece in PIECE.findall(text)}
    | {
        "*",
        "(",
        ")",
        ",",
        ";",
        "--",
        "/*",
        "*/",
        "||",
        "::",
        "'",
        '"',
        "$$",
        "\\",
        "\x00",
        "\u200b",
        "ＳＵＭ",
        "1e9",
        "0x1",
    }
)
STEPS = {"joined", "found", "added", "totals", "grid", "placed", "kept", "persons", "others", "quantiles", "sides"}
INNER = re.compile(
    r"[acgklmnopqstx]\d*|[almnopqsx]\d+_?\w*|absent\d+|place|way|rows|people|part|others|low\d+|high\d+|nothing"
)
TEXTS = re.compile(r"-?[0-9]+(\.[0-9]+)?|group|atom|rest|a value is outside .*|a total is too large .*")
TINY = rows(people=12)

CHANGES = st.lists(
    st.tuples(st.sampled_from(["drop", "put", "swap", "twice"]), st.integers(0, 200), st.sampled_from(WORDS)),
    min_size=1,
    max_size=4,
)


def changed(pieces: list[str], changes: list[tuple[str, int, str]]) -> str:
    made = list(pieces)
    for how, at, word in changes:
        at %= len(made) + 1
        if how == "drop":
            made[at : at + 1] = []
        elif how == "put":
            made[at:at] = [word]
        elif how == "swap":
            made[at : at + 1] = [word]
        else:
            made[at:at] = made[at : at + 4]
    return "".join(made)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(PIECES), CHANGES)
def test_a_changed_statement_is_refused_or_entirely_understood(
    pieces: list[str], changes: list[tuple[str, int, str]]
) -> None:
    text = changed(pieces, changes)
    try:
        query = ask(text)
    except InvalidSpec as error:
        assert error.tell.startswith("line ") or "range" in error.tell or "column" in error.tell
        return
    (tree,) = sqlglot.parse(text, dialect="duckdb")
    assert {type(node) for node in tree.walk()} <= set(ALLOWED)
    check_rendered(query)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60), st.sampled_from(["", "SELECT ", "SELECT COUNT(*) FROM loans WHERE district = '"]))
def test_any_text_at_all_is_refused_as_our_own_error(text: str, before: str) -> None:
    try:
        query = ask(before + text)
    except InvalidSpec:
        return
    check_rendered(query)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(PIECES), CHANGES)
def test_what_is_accepted_runs(pieces: list[str], changes: list[tuple[str, int, str]]) -> None:
    try:
        query = ask(changed(pieces, changes))
    except InvalidSpec:
        query = ask("".join(pieces))
    tables = {name: TINY[name] for name in query.tables}
    assert run(query.sql, tables).column_names == [column.name for column in query.columns]
    assert "group" in run(query.populations, tables).column("part").to_pylist()


def check_rendered(query: Query) -> None:
    """What DuckDB gets: its tables are granted, its texts are the scenario's levels, its names ours or granted."""
    grants = {table.name for table in TABLES}
    names = {name for table in TABLES for name in (*table.columns, *table.key)} | {
        column.name for column in query.columns
    }
    levels = {level for grouping in DIMENSIONS for level in grouping.levels}
    for sql in (query.sql, query.populations):
        (tree,) = sqlglot.parse(sql, dialect="duckdb")
        for node in tree.walk():
            if isinstance(node, exp.Table):
                assert node.name in (STEPS | grants) and not node.db
            if isinstance(node, exp.Literal) and node.is_string:
                assert node.this in levels or TEXTS.fullmatch(node.this)
            if isinstance(node, exp.Identifier):
                assert node.name in names | grants | STEPS or INNER.fullmatch(node.name), node.name
            if isinstance(node, exp.Anonymous):
                assert node.name.lower() in {"error", "row_number"}, node.name


def test_unchanged_statements_pass_that_check() -> None:
    for case in CASES:
        check_rendered(ask(case.text))
