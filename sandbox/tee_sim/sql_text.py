"""From the text of a statement to its words: everything that no statement may hold is refused here, with its place.

    text --tokenise--> words, each of a kind that is on the list --parse--> one tree, for ``sql_tree`` to read

Security:  an allow-list of kinds of words, and of names before a bracket: what is not on it does not reach the parser.
           Outside quotes there is ASCII only, so that nothing looks like what it is not. Comments are dropped.
Units:     places are lines and columns, from 1, in characters.
Errors:    ``InvalidSpec`` with a place and a reason. The parser's own words are never passed on.
Not here:  what words mean together (``sql_tree``).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Final

from sqlglot import Token, TokenType, exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import ParseError, SqlglotError

from sandbox.errors import InvalidSpec
from sandbox.tee_sim.sql_terms import Function

MOST_BYTES: Final = 16 << 10
MOST_DEPTH: Final = 16  # of brackets

_T = TokenType
_NAMES: Final = frozenset({_T.VAR, _T.IDENTIFIER})
_ALLOWED: Final = _NAMES | {
    *(_T.SELECT, _T.FROM, _T.WHERE, _T.AND, _T.IN, _T.EQ, _T.ALIAS),
    *(_T.JOIN, _T.INNER, _T.LEFT, _T.OUTER, _T.ON, _T.USING),
    *(_T.GROUP_BY, _T.ORDER_BY, _T.ASC, _T.ROLLUP, _T.CUBE),
    *(_T.COMMA, _T.DOT, _T.L_PAREN, _T.R_PAREN, _T.STAR, _T.STRING, _T.NUMBER),
}

FUNCTIONS: Final = ", ".join(function.upper() for function in Function)
_NO_FUNCTION = f"this function is not allowed; there are {FUNCTIONS}"
_ARITHMETIC = "arithmetic is not allowed, not even with constants: a function is given one measure"
_ONE_SELECT = "only one SELECT is allowed, and nothing beside it"
_ONLY_EQUAL = "conditions are dimension = 'level' or dimension IN ('level', ...), joined with AND"
_JOINS = "tables are joined with [INNER] JOIN or LEFT JOIN"
_PARAMETER = "parameters are not allowed: write the level itself, in single quotes"
_QUOTES = "texts are written in plain single quotes"
_SETS = "UNION, EXCEPT and INTERSECT are not allowed"
_WINDOWS = "window functions are not allowed"
_FIRST_ROWS = "the result has every group: LIMIT, OFFSET and FETCH are not allowed"
_LEVEL = "a level is written as a text in single quotes"
_CONDITIONAL = "CASE is not allowed: group by the dimension instead"
_NO_PLACE = "tables are named as the job names them: no values, functions or files stand in their place"

_REASONS: Final[Mapping[TokenType, str]] = {
    **dict.fromkeys(
        (
            *(_T.PRAGMA, _T.SET, _T.ATTACH, _T.DETACH, _T.COPY, _T.INSTALL, _T.LOAD, _T.COMMAND, _T.CREATE, _T.INSERT),
            *(_T.UPDATE, _T.DELETE, _T.DROP, _T.ALTER, _T.TRUNCATE, _T.DESCRIBE, _T.SUMMARIZE, _T.SHOW, _T.EXECUTE),
            *(_T.USE, _T.BEGIN, _T.COMMIT, _T.ROLLBACK, _T.MERGE, _T.GRANT, _T.REVOKE, _T.EXPORT, _T.INTO, _T.REPLACE),
        ),
        _ONE_SELECT,
    ),
    _T.SEMICOLON: _ONE_SELECT + ": leave out the semicolon",
    _T.WITH: "WITH is not allowed: a statement is one SELECT without others inside",
    **dict.fromkeys((_T.UNION, _T.EXCEPT, _T.INTERSECT), _SETS),
    **dict.fromkeys((_T.OVER, _T.WINDOW, _T.PARTITION_BY, _T.QUALIFY), _WINDOWS),
    **dict.fromkeys((_T.LIMIT, _T.OFFSET, _T.FETCH), _FIRST_ROWS),
    _T.HAVING: "HAVING is not allowed: every group is in the result, and the gate judges them",
    _T.DISTINCT: "DISTINCT is not allowed",
    _T.FILTER: "FILTER is not allowed: use WHERE, or group by the dimension",
    **dict.fromkeys((_T.CASE, _T.WHEN, _T.THEN, _T.ELSE, _T.END), _CONDITIONAL),
    **dict.fromkeys((_T.DCOLON, _T.DCOLONPERCENT), "casts are not allowed"),
    **dict.fromkeys((_T.PLACEHOLDER, _T.PARAMETER, _T.SESSION_PARAMETER, _T.COLON, _T.DOLLAR), _PARAMETER),
    **dict.fromkeys(
        (
            *(_T.OR, _T.NOT, _T.NEQ, _T.LT, _T.GT, _T.LTE, _T.GTE, _T.BETWEEN, _T.LIKE, _T.ILIKE, _T.IS, _T.ISNULL),
            *(_T.NOTNULL, _T.EXISTS, _T.ANY, _T.SOME, _T.GLOB, _T.SIMILAR_TO, _T.XOR, _T.RLIKE),
        ),
        _ONLY_EQUAL,
    ),
    _T.ALL: "ALL is not allowed: name the groups",
    **dict.fromkeys(
        (_T.PLUS, _T.DASH, _T.SLASH, _T.DIV, _T.MOD, _T.PERCENT, _T.DPIPE, _T.CARET, _T.DSTAR, _T.AMP, _T.PIPE),
        _ARITHMETIC,
    ),
    **dict.fromkeys((_T.FULL, _T.RIGHT, _T.CROSS, _T.NATURAL, _T.ASOF, _T.SEMI, _T.ANTI, _T.POSITIONAL), _JOINS),
    **dict.fromkeys((_T.LATERAL, _T.UNNEST, _T.VALUES, _T.TABLE, _T.FILE), _NO_PLACE),
    **dict.fromkeys((_T.PIVOT, _T.UNPIVOT, _T.TABLE_SAMPLE), "PIVOT and samples are not allowed"),
    _T.DESC: "the result is in the order of the levels: DESC is not allowed",
    _T.FIRST: "NULLS FIRST is not allowed",
    _T.GROUPING_SETS: "GROUPING SETS is not allowed: use ROLLUP or CUBE",
    **dict.fromkeys(
        (_T.HEREDOC_STRING, _T.RAW_STRING, _T.BYTE_STRING, _T.HEX_STRING, _T.BIT_STRING, _T.NATIONAL_STRING), _QUOTES
    ),
    **dict.fromkeys((_T.L_BRACKET, _T.L_BRACE, _T.R_BRACKET, _T.R_BRACE), "lists and structures are not allowed"),
    **dict.fromkeys((_T.TRUE, _T.FALSE, _T.NULL), _LEVEL),
    _T.ARROW: "functions of one's own are not allowed",
}

_CASTS: Final = frozenset({"cast", "try_cast", "convert"})
# Blanks and comments; none may begin inside another, where readers differ about its end.
_BETWEEN: Final = re.compile(r"(?:[ \t\r\n]|--[^\r\n]*|/\*(?:(?!/\*|\*/).)*\*/)*", re.DOTALL)
_DIALECT: Final = "duckdb"


def parse(text: str) -> exp.Select:
    """Return the tree of the one statement in ``text``, made of allowed words only.

    Raises:
        InvalidSpec: it is too long, holds something else, or is no statement.
    """
    _check_length(text)
    words = _words(text)
    at = depth = 0
    for number, word in enumerate(words):
        _check_gap(text, at, word.start)
        _check_word(text, words, number, word)
        at = word.end + 1
        depth += (word.token_type is _T.L_PAREN) - (word.token_type is _T.R_PAREN)
        if depth > MOST_DEPTH:
            raise refuse(text, word.start, f"brackets are more than {MOST_DEPTH} deep")
    _check_gap(text, at, len(text))
    at, trees = 0, []
    try:
        trees = Dialect.get_or_raise(_DIALECT).parse(text)
    except Exception as error:  # whatever the parser stumbles over, it is for what the text says
        at = _place(text, error)
    if len(trees) != 1 or not isinstance(trees[0], exp.Select):
        raise refuse(text, at, "this cannot be read as a SELECT statement")
    return trees[0]


def refuse(text: str, at: int, why: str, hint: str = "") -> InvalidSpec:
    """Return the error to raise about the statement ``text``, at the character ``at``."""
    line = text.count("\n", 0, at) + 1
    column = at - (text.rfind("\n", 0, at) + 1) + 1
    return InvalidSpec(tell=f"line {line}, column {column}: {why}", hint=hint)


def _check_length(text: str) -> None:
    try:
        length = len(text.encode())
    except UnicodeEncodeError as error:
        length, at = 0, error.start
    if not length and text:
        raise refuse(text, at, "half a character stands here")
    if length > MOST_BYTES:
        raise refuse(text, 0, f"the statement has {length} bytes; at most {MOST_BYTES} are allowed")
    if not text.strip():
        raise refuse(text, 0, "the statement is empty")


def _words(text: str) -> list[Token]:
    words: list[Token] | None = None
    with contextlib.suppress(SqlglotError):  # said below, without the library's own text
        words = Dialect.get_or_raise(_DIALECT).tokenize(text)
    if words is None:
        raise refuse(text, len(text) - 1, "a quote or a comment is not closed before the end")
    if not words:
        raise refuse(text, 0, "the statement is empty")
    return words


def _check_gap(text: str, begin: int, end: int) -> None:
    """Check that there are plain blanks and comments between two words."""
    found = _BETWEEN.match(text, begin, end)
    at = found.end() if found else begin
    if at < end:
        if text.startswith("/*", at):
            raise refuse(text, at, "a comment inside a comment is not allowed")
        _check_plain(text, at, at + 1)
        raise refuse(text, at, "this character is not allowed here")


def _check_plain(text: str, begin: int, end: int) -> None:
    for at in range(begin, end):
        if not (text[at].isascii() and (text[at].isprintable() or text[at] in "\t\r\n")):
            raise refuse(
                text, at, "outside quotes only ASCII is allowed: put such a name in double quotes, a level in single"
            )


def _check_word(text: str, words: Sequence[Token], number: int, word: Token) -> None:
    kind, at = word.token_type, word.start
    if kind not in (_T.STRING, _T.IDENTIFIER):
        _check_plain(text, at, word.end + 1)
    before = words[number - 1].token_type if number else None
    is_called = number + 1 < len(words) and words[number + 1].token_type is _T.L_PAREN
    if kind is _T.SELECT and number:
        raise refuse(text, at, "a SELECT inside another, or a second one, is not allowed")
    if number == 0 and kind is not _T.SELECT and kind not in _REASONS:
        raise refuse(text, at, _ONE_SELECT)
    if kind not in _ALLOWED and kind not in _REASONS and is_called:
        raise refuse(text, at, _NO_PLACE if before in (_T.FROM, _T.JOIN) else _NO_FUNCTION)
    if kind not in _ALLOWED:
        why = f"{word.text!r} is not allowed here" if len(word.text) <= 64 else "this is not allowed here"
        if word.text.isidentifier():
            why += "; if it is a name, put it in double quotes"
        raise refuse(text, at, _REASONS.get(kind, why))
    if kind in _NAMES and is_called:
        _check_called(text, word, before)
    if kind is _T.LEFT and is_called:
        raise refuse(text, at, _NO_FUNCTION)
    if kind is _T.STAR and before not in (_T.L_PAREN, _T.SELECT, _T.COMMA, _T.DOT):
        raise refuse(text, at, _ARITHMETIC)
    if kind is _T.STRING and before not in (_T.EQ, _T.L_PAREN, _T.COMMA):
        raise refuse(text, at, "a text in single quotes can only be a level of a dimension, after = or IN")


def _check_called(text: str, word: Token, before: TokenType | None) -> None:
    name = word.text.lower()
    if name in _CASTS and word.token_type is _T.VAR:
        raise refuse(text, word.start, "casts are not allowed")
    if before in (_T.FROM, _T.JOIN):
        raise refuse(text, word.start, _NO_PLACE)
    if before is _T.DOT or word.token_type is not _T.VAR or name not in set(Function):
        raise refuse(text, word.start, _NO_FUNCTION)


def _place(text: str, error: Exception) -> int:
    """Return where the parser stopped, in characters from 0."""
    found = error.errors[0] if isinstance(error, ParseError) and error.errors else {}
    line, column = found.get("line"), found.get("col")
    if not isinstance(line, int) or not isinstance(column, int):
        return 0
    begin = sum(len(one) + 1 for one in text.split("\n")[: line - 1])
    return min(max(begin + column - 1, 0), max(len(text) - 1, 0))
