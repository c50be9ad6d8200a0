"""Statements that are refused, each with its reason and its place; nothing of them reaches DuckDB."""

from __future__ import annotations

import dataclasses
import logging

import pyarrow as pa
import pytest
from sql_world import ACCOUNTS, DIMENSIONS, LOANS, MEASURES, TABLES, ask

from sandbox.errors import InvalidSpec
from sandbox.model import Dimension, MeasureRange
from sandbox.tee_sim.sql import Grouping, TableGrant, analyse
from sandbox.tee_sim.sql_tree import MOST_CONDITIONS

JOIN = "SELECT COUNT(*) FROM loans JOIN accounts ON "
ONE = "only one SELECT is allowed"
FUNCTION = "this function is not allowed"
EQUAL = "conditions are dimension = 'level'"
KEYS = "tables are joined on their keys"
MEASURE = "a function is given one measure"
LEVEL = "a level of 'district' is written as a text"
ORDER = "the result is in the order of the groups"
FIRST = "SELECT names the groups first"
PARAMETER = "parameters are not allowed"
ASCII = "outside quotes only ASCII is allowed"
QUANTILE = "a quantile is a number between 0.05 and 0.95"
TELLING = "two of sum, mean and variance"
NAME = "a column of the result is called by letters"
PLACED = "tables are named as the job names them"

REFUSED = [
    # no statement, another one, or several
    ("", 1, 1, "the statement is empty"),
    (" \n\t", 1, 1, "the statement is empty"),
    ("-- only a comment", 1, 1, "the statement is empty"),
    ("COUNT(*)", 1, 1, ONE),
    ("FROM loans", 1, 1, ONE),
    ("SELECT COUNT(*) FROM loans;", 1, 27, "leave out the semicolon"),
    ("SELECT COUNT(*) FROM loans; DROP TABLE loans", 1, 27, "leave out the semicolon"),
    ("INSERT INTO loans SELECT COUNT(*) FROM loans", 1, 1, ONE),
    ("DELETE FROM loans", 1, 1, ONE),
    ("UPDATE loans SET income = 1", 1, 1, ONE),
    ("DROP TABLE loans", 1, 1, ONE),
    ("CREATE TABLE x AS SELECT COUNT(*) FROM loans", 1, 1, ONE),
    ("COPY loans TO '/tmp/x'", 1, 1, ONE),
    ("COPY (SELECT COUNT(*) FROM loans) TO '/tmp/x'", 1, 1, ONE),
    ("PRAGMA database_list", 1, 1, ONE),
    ("SET threads = 4", 1, 1, ONE),
    ("ATTACH '/tmp/x.db'", 1, 1, ONE),
    ("INSTALL httpfs", 1, 1, ONE),
    ("LOAD httpfs", 1, 1, ONE),
    ("EXPLAIN SELECT COUNT(*) FROM loans", 1, 1, ONE),
    ("DESCRIBE loans", 1, 1, ONE),
    ("SUMMARIZE loans", 1, 1, ONE),
    ("CALL pragma_version()", 1, 1, ONE),
    ("EXPORT DATABASE '/tmp/x'", 1, 1, ONE),
    ("WITH x AS (SELECT 1) SELECT COUNT(*) FROM x", 1, 1, "WITH is not allowed"),
    ("SELECT COUNT(*) FROM loans UNION ALL SELECT COUNT(*) FROM accounts", 1, 28, "UNION, EXCEPT and INTERSECT"),
    ("SELECT COUNT(*) FROM loans EXCEPT SELECT 1", 1, 28, "UNION, EXCEPT and INTERSECT"),
    ("SELECT COUNT(*) FROM loans INTERSECT SELECT 1", 1, 28, "UNION, EXCEPT and INTERSECT"),
    ("SELECT COUNT(*) FROM (SELECT id FROM loans)", 1, 23, "a SELECT inside another"),
    ("SELECT COUNT(*) FROM loans WHERE district IN (SELECT district FROM loans)", 1, 47, "a SELECT inside another"),
    ("SELECT (SELECT COUNT(*) FROM loans)", 1, 9, "a SELECT inside another"),
    ("SELECT COUNT(*) INTO x FROM loans", 1, 17, ONE),
    ("SELECT COUNT(* FROM loans", 1, 0, "this cannot be read as a SELECT statement"),
    ("SELECT COUNT(*)) FROM loans", 1, 0, "this cannot be read as a SELECT statement"),
    ("SELECT", 1, 1, "the statement reads no table"),
    ("SELECT COUNT(*)", 1, 8, "the statement reads no table"),
    # what stands outside the language
    ("SELECT COUNT(*) FROM loans WHERE district = 'Huli", 1, 49, "is not closed"),
    ("SELECT COUNT(*) FROM loans /* so", 1, 32, "is not closed"),
    ("SELECT COUNT(*) FROM loans /* a /* b */ c */", 1, 28, "a comment inside a comment"),
    ("SELECT COUNT(*) FROM loans WHERE district = $$Huli$$", 1, 45, "plain single quotes"),
    ("SELECT COUNT(*) FROM loans WHERE district = $x$Huli$x$", 1, 45, "plain single quotes"),
    ("SELECT COUNT(*) FROM loans WHERE district = E'Huli'", 1, 45, "plain single quotes"),
    ("SELECT COUNT(*) FROM loans WHERE district = N'Huli'", 1, 45, "plain single quotes"),
    ("SELECT COUNT(*) FROM loans WHERE district = x'48'", 1, 46, "a text in single quotes can only be a level"),
    ("SELECT COUNT(*) AS 'n' FROM loans", 1, 20, "a text in single quotes can only be a level"),
    ("SELECT COUNT(*) FROM 'loans'", 1, 22, "a text in single quotes can only be a level"),
    ("SELECT COUNT(*) FROM '/etc/passwd'", 1, 22, "a text in single quotes can only be a level"),
    ("SELECT COUNT(*) FROM loans WHERE district = ?", 1, 45, PARAMETER),
    ("SELECT COUNT(*) FROM loans WHERE district = $1", 1, 45, PARAMETER),
    ("SELECT COUNT(*) FROM loans WHERE district = :level", 1, 45, PARAMETER),
    ("SELECT COUNT(*) FROM loans WHERE district = @level", 1, 45, PARAMETER),
    ("SELECT COUNT(*) FROM l\u043eans", 1, 23, ASCII),
    ("SELECT COUNT(*)\u00a0FROM loans", 1, 16, ASCII),
    ("SELECT \u017fum(income) FROM loans", 1, 8, ASCII),
    ("\uff33ELECT COUNT(*) FROM loans", 1, 1, ASCII),
    ("SELECT COUNT(*) FROM loans\x00", 1, 27, ASCII),
    ("SELECT COUNT(*) \x0bFROM loans", 1, 17, ASCII),
    ("SELECT COUNT(*) FROM \ud800", 1, 22, "half a character"),
    ("SELECT COUNT(*) FROM [loans]", 1, 22, "lists and structures"),
    ("SELECT COUNT(*) FROM `loans`", 1, 22, "is not allowed here"),
    ("SELECT COUNT(*) FROM {{ loans }}", 1, 22, "lists and structures"),
    ("SELECT COUNT(*) n # comment\nFROM loans", 1, 19, "is not allowed here"),
    ("SELECT COUNT(*)\nFROM loans\nWHERE rows = 'x'", 3, 7, "put it in double quotes"),
    ("SELECT " + "(" * 40 + "COUNT(*)" + ")" * 40 + " FROM loans", 1, 24, "brackets are more than 16 deep"),
    ("SELECT COUNT(*) FROM loans --" + "x" * (16 << 10), 1, 1, "at most 16384 are allowed"),
    ("SELECT COUNT(*) FROM loans --" + "数" * 6000, 1, 1, "at most 16384 are allowed"),
    # functions and what they are given
    ("SELECT * FROM loans", 1, 8, "rows do not leave"),
    ("SELECT loans.* FROM loans", 1, 8, "only groups and functions of measures"),
    ("SELECT * EXCLUDE (id) FROM loans", 1, 10, FUNCTION),
    ("SELECT id FROM loans", 1, 8, "only groups and functions of measures"),
    ("SELECT income FROM loans", 1, 8, "only groups and functions of measures"),
    ("SELECT district FROM loans", 1, 8, "only groups and functions of measures"),
    ("SELECT 1 FROM loans", 1, 8, "only groups and functions of measures"),
    ("SELECT MAX(income) FROM loans", 1, 8, FUNCTION),
    ("SELECT MIN(income) FROM loans", 1, 8, FUNCTION),
    ("SELECT COUNT(*), FIRST(income) FROM loans", 1, 18, "NULLS FIRST"),
    ("SELECT LIST(income) FROM loans", 1, 8, FUNCTION),
    ("SELECT STRING_AGG(name, ',') FROM loans", 1, 8, FUNCTION),
    ("SELECT VAR_POP(income) FROM loans", 1, 8, FUNCTION),
    ("SELECT APPROX_QUANTILE(income, 0.5) FROM loans", 1, 8, FUNCTION),
    ("SELECT PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY income) FROM loans", 1, 8, FUNCTION),
    ("SELECT getenv('HOME') FROM loans", 1, 8, FUNCTION),
    ("SELECT LEFT(name, 2) FROM loans", 1, 8, FUNCTION),
    ('SELECT "sum"(income) FROM loans', 1, 8, FUNCTION),
    ("SELECT main.sum(income) FROM loans", 1, 13, FUNCTION),
    ("SELECT income.sum() FROM loans", 1, 15, FUNCTION),
    ("SELECT SUM(ABS(income)) FROM loans", 1, 12, FUNCTION),
    ("SELECT SUM(CAST(income AS INTEGER)) FROM loans", 1, 12, "casts are not allowed"),
    ("SELECT SUM(TRY_CAST(income AS INTEGER)) FROM loans", 1, 12, "casts are not allowed"),
    ("SELECT SUM(income::INTEGER) FROM loans", 1, 18, "casts are not allowed"),
    ("SELECT SUM(income * 2) FROM loans", 1, 19, "arithmetic is not allowed"),
    ("SELECT SUM(income + amount) FROM loans", 1, 19, "arithmetic is not allowed"),
    ("SELECT SUM(income) / COUNT(*) FROM loans", 1, 20, "arithmetic is not allowed"),
    ("SELECT -SUM(income) FROM loans", 1, 8, "arithmetic is not allowed"),
    ("SELECT SUM(CASE WHEN district = 'Huli' THEN income END) FROM loans", 1, 12, "CASE is not allowed"),
    ("SELECT SUM((income)) FROM loans", 1, 13, MEASURE),
    ("SELECT SUM(SUM(income)) FROM loans", 1, 12, MEASURE),
    ("SELECT SUM(*) FROM loans", 1, 12, MEASURE),
    ("SELECT SUM(1) FROM loans", 1, 12, MEASURE),
    ("SELECT COUNT() FROM loans", 1, 8, MEASURE),
    ("SELECT COUNT(1) FROM loans", 1, 14, MEASURE),
    ("SELECT COUNT(income, amount) FROM loans", 1, 8, "a function is given one column"),
    ("SELECT COUNT(DISTINCT id) FROM loans", 1, 14, "DISTINCT is not allowed"),
    ("SELECT DISTINCT district FROM loans", 1, 8, "DISTINCT is not allowed"),
    ("SELECT DISTINCT ON (district) COUNT(*) FROM loans", 1, 8, "DISTINCT is not allowed"),
    ("SELECT COUNT(id) FROM loans", 1, 14, "the scenario has no measure 'id'"),
    ("SELECT COUNT(name) FROM loans", 1, 14, "the scenario has no measure 'name'"),
    ("SELECT SUM(age) FROM loans", 1, 12, "the scenario has no measure 'age'"),
    ("SELECT SUM(balance) FROM loans", 1, 12, "no table of this statement has a column for 'balance'"),
    ("SELECT SUM(loans.balance) FROM loans", 1, 12, "table 'loans' has no column for 'balance'"),
    ("SELECT SUM(accounts.balance) FROM loans", 1, 12, "there is no table 'accounts'"),
    ("SELECT SUM(main.loans.income) FROM loans", 1, 12, "names of schemas"),
    ('SELECT SUM("Income") FROM loans', 1, 12, "the scenario has no measure 'Income'"),
    ("SELECT SUM(income) FILTER (WHERE district = 'Huli') FROM loans", 1, 20, "FILTER is not allowed"),
    ("SELECT SUM(income) OVER (PARTITION BY district) FROM loans", 1, 20, "window functions"),
    ("SELECT ROW_NUMBER() OVER () FROM loans", 1, 8, FUNCTION),
    ("SELECT QUANTILE_CONT(income) FROM loans", 1, 22, QUANTILE),
    ("SELECT QUANTILE_CONT(income, 0.04) FROM loans", 1, 30, QUANTILE),
    ("SELECT QUANTILE_CONT(income, 0.96) FROM loans", 1, 30, QUANTILE),
    ("SELECT QUANTILE_CONT(income, 0.123) FROM loans", 1, 30, QUANTILE),
    ("SELECT QUANTILE_CONT(income, 1) FROM loans", 1, 22, QUANTILE),
    ("SELECT QUANTILE_CONT(income, 5e-1) FROM loans", 1, 22, QUANTILE),
    ("SELECT QUANTILE_CONT(income, '0.5') FROM loans", 1, 22, QUANTILE),
    ("SELECT QUANTILE_CONT(income, amount) FROM loans", 1, 22, QUANTILE),
    ("SELECT QUANTILE_CONT(income, [0.5]) FROM loans", 1, 30, "lists and structures"),
    ("SELECT SUM(income), AVG(income) FROM loans", 1, 21, TELLING),
    ("SELECT SUM(income) a, VAR_SAMP(income) b FROM loans", 1, 23, TELLING),
    ("SELECT AVG(income) a, STDDEV_SAMP(income) b FROM loans", 1, 23, TELLING),
    ("SELECT SUM(income) a, SUM(income) b FROM loans", 1, 23, "is asked for twice"),
    ("SELECT COUNT(*), COUNT(*) FROM loans", 1, 18, "two columns of the result are called 'count'"),
    ("SELECT QUANTILE_CONT(income, 0.25), QUANTILE_CONT(income, 0.75) FROM loans", 1, 51, "name one with AS"),
    ("SELECT COUNT(*) n, SUM(income) N FROM loans", 1, 20, "two columns of the result are called 'n'"),
    (
        "SELECT member, COUNT(*) member FROM loans GROUP BY member",
        1,
        16,
        "two columns of the result are called 'member'",
    ),
    ('SELECT COUNT(*) AS "n;" FROM loans', 1, 20, NAME),
    ('SELECT COUNT(*) AS "1n" FROM loans', 1, 20, NAME),
    ('SELECT COUNT(*) AS "a""b" FROM loans', 1, 20, NAME),
    ('SELECT COUNT(*) AS "\uff4e" FROM loans', 1, 20, NAME),
    ('SELECT COUNT(*) AS "' + "n" * 64 + '" FROM loans', 1, 20, NAME),
    ("SELECT " + ", ".join(f"COUNT(*) c{n}" for n in range(17)) + " FROM loans", 1, 8, "a statement asks for 1 to 16"),
    # tables
    ("SELECT COUNT(*) FROM nobody", 1, 22, "the job has no table 'nobody'"),
    ("SELECT COUNT(*) FROM main.loans", 1, 22, "names of schemas"),
    ("SELECT COUNT(*) FROM memory.main.loans", 1, 22, "names of schemas"),
    ("SELECT COUNT(*) FROM information_schema.tables", 1, 22, "names of schemas"),
    ("SELECT COUNT(*) FROM duckdb_settings()", 1, 22, PLACED),
    ("SELECT COUNT(*) FROM read_csv('/etc/passwd')", 1, 22, PLACED),
    ("SELECT COUNT(*) FROM loans JOIN read_text('/etc/passwd') ON 1 = 1", 1, 33, PLACED),
    ("SELECT COUNT(*) FROM range(10)", 1, 22, PLACED),
    ("SELECT COUNT(*) FROM UNNEST([1])", 1, 22, PLACED),
    ("SELECT COUNT(*) FROM VALUES (1)", 1, 22, PLACED),
    ("SELECT COUNT(*) FROM loans l (a, b)", 1, 28, FUNCTION),
    ("SELECT COUNT(*) FROM loans, accounts", 1, 29, KEYS),
    ("SELECT COUNT(*) FROM loans CROSS JOIN accounts", 1, 28, "tables are joined with"),
    ("SELECT COUNT(*) FROM loans JOIN accounts", 1, 33, KEYS),
    ("SELECT COUNT(*) FROM loans NATURAL JOIN payments", 1, 28, "tables are joined with"),
    ("SELECT COUNT(*) FROM loans FULL JOIN accounts ON loans.id = accounts.person", 1, 28, "tables are joined with"),
    ("SELECT COUNT(*) FROM loans RIGHT JOIN accounts ON loans.id = accounts.person", 1, 28, "tables are joined with"),
    ("SELECT COUNT(*) FROM loans SEMI JOIN accounts ON loans.id = accounts.person", 1, 28, "tables are joined with"),
    ("SELECT COUNT(*) FROM loans ASOF JOIN accounts ON loans.id = accounts.person", 1, 28, "tables are joined with"),
    (
        "SELECT COUNT(*) FROM loans LEFT ANTI JOIN accounts ON loans.id = accounts.person",
        1,
        33,
        "tables are joined with",
    ),
    ("SELECT COUNT(*) FROM loans POSITIONAL JOIN accounts", 1, 28, "tables are joined with"),
    ("SELECT COUNT(*) FROM loans, LATERAL (SELECT 1)", 1, 29, PLACED),
    ("SELECT COUNT(*) FROM loans JOIN loans l ON loans.id = l.id", 1, 33, "table 'loans' is read twice"),
    ("SELECT COUNT(*) FROM loans x JOIN accounts X ON x.id = x.person", 1, 35, "two tables are called 'X'"),
    (JOIN + "loans.income = accounts.balance", 1, 45, KEYS),
    (JOIN + "loans.id = loans.id", 1, 45, KEYS),
    (JOIN + "id = person", 1, 45, KEYS),
    (JOIN + "loans.id = 'p1'", 1, 45, KEYS),
    (JOIN + "loans.id = accounts.person AND loans.district = 'Huli'", 1, 76, KEYS),
    (JOIN + "loans.id IN (accounts.person)", 1, 45, KEYS),
    (JOIN + "loans.id <> accounts.person", 1, 54, EQUAL),
    (JOIN + "loans.id = accounts.person OR loans.id = accounts.person", 1, 72, EQUAL),
    ("SELECT COUNT(*) FROM loans JOIN accounts USING (id)", 1, 33, "USING names the columns of the key"),
    ("SELECT COUNT(*) FROM firms JOIN shops USING (org)", 1, 33, "USING names the columns of the key"),
    ("SELECT COUNT(*) FROM firms JOIN shops USING (no, org)", 1, 33, "USING names the columns of the key"),
    ("SELECT COUNT(*) FROM firms JOIN shops ON firms.org = shops.org", 1, 42, KEYS),
    (
        "SELECT COUNT(*) FROM firms JOIN shops ON firms.org = shops.no AND firms.no = shops.org",
        1,
        42,
        KEYS,
    ),
    ("SELECT COUNT(*) FROM loans JOIN shops ON loans.id = shops.no", 1, 42, KEYS),
    (
        "SELECT COUNT(*) FROM payments JOIN visits ON payments.id = visits.who",
        1,
        8,
        "payments and visits both have several rows of one person",
    ),
    (
        "SELECT COUNT(*) FROM loans LEFT JOIN accounts ON loans.id = accounts.person"
        " JOIN payments ON accounts.person = payments.id",
        1,
        82,
        "a table is not joined to one that was joined with LEFT JOIN",
    ),
    # groups, conditions, order
    ("SELECT district, COUNT(*) FROM loans", 1, 8, "only groups and functions of measures"),
    ("SELECT age, COUNT(*) FROM loans GROUP BY age", 1, 42, "the dimension over column 'age' is called 'age_band'"),
    ("SELECT name, COUNT(*) FROM loans GROUP BY name", 1, 43, "the scenario has no dimension 'name'"),
    ("SELECT district, COUNT(*) FROM loans GROUP BY 1", 1, 47, "rows are grouped by dimensions only"),
    ("SELECT district, COUNT(*) FROM loans GROUP BY ALL", 1, 47, "ALL is not allowed"),
    ("SELECT district, COUNT(*) FROM loans GROUP BY district, district", 1, 57, "is named twice"),
    ("SELECT district, COUNT(*) FROM loans GROUP BY (district, member)", 1, 48, "this is not allowed in a statement"),
    (
        "SELECT district, member, age_band, COUNT(*) FROM loans GROUP BY district, member, age_band",
        1,
        65,
        "at most 2 dimensions",
    ),
    ("SELECT COUNT(*) FROM loans GROUP BY GROUPING SETS ((district), ())", 1, 37, "use ROLLUP or CUBE"),
    ("SELECT district, member, COUNT(*) FROM loans GROUP BY ROLLUP (district), member", 1, 63, "ROLLUP or CUBE stands"),
    (
        "SELECT district, member, COUNT(*) FROM loans GROUP BY ROLLUP (district, CUBE (member))",
        1,
        78,
        "this cannot be read",
    ),
    ("SELECT COUNT(*), district FROM loans GROUP BY district", 1, 8, FIRST),
    ("SELECT member, district, COUNT(*) FROM loans GROUP BY district, member", 1, 8, FIRST),
    ("SELECT district AS d, COUNT(*) FROM loans GROUP BY district", 1, 8, FIRST),
    ("SELECT COUNT(*) FROM loans GROUP BY district", 1, 8, FIRST),
    ("SELECT district FROM loans GROUP BY district", 1, 8, "a statement asks for 1 to 16 numbers"),
    (
        "SELECT district, COUNT(*) FROM loans JOIN firms ON loans.id = firms.no GROUP BY district",
        1,
        52,
        KEYS,
    ),
    (
        "SELECT COUNT(late) FROM loans JOIN accounts ON loans.id = accounts.person",
        1,
        14,
        "'late' is in loans and accounts",
    ),
    ("SELECT COUNT(*) FROM loans GROUP BY district HAVING COUNT(*) > 1", 1, 46, "HAVING is not allowed"),
    ("SELECT COUNT(*) FROM loans WHERE income = 5", 1, 34, "the scenario has no dimension 'income'"),
    ("SELECT COUNT(*) FROM loans WHERE id = 'p1'", 1, 34, "the scenario has no dimension 'id'"),
    ("SELECT COUNT(*) FROM loans WHERE income > 5", 1, 41, EQUAL),
    ("SELECT COUNT(*) FROM loans WHERE age BETWEEN 1 AND 2", 1, 38, EQUAL),
    ("SELECT COUNT(*) FROM loans WHERE district <> 'Huli'", 1, 43, EQUAL),
    ("SELECT COUNT(*) FROM loans WHERE NOT district = 'Huli'", 1, 34, EQUAL),
    ("SELECT COUNT(*) FROM loans WHERE district NOT IN ('Huli')", 1, 43, EQUAL),
    ("SELECT COUNT(*) FROM loans WHERE district = 'Huli' OR member = 'true'", 1, 52, EQUAL),
    ("SELECT COUNT(*) FROM loans WHERE district LIKE 'H%'", 1, 43, EQUAL),
    ("SELECT COUNT(*) FROM loans WHERE district IS NULL", 1, 43, EQUAL),
    ("SELECT COUNT(*) FROM loans WHERE EXISTS (SELECT 1)", 1, 34, EQUAL),
    ("SELECT COUNT(*) FROM loans WHERE district", 1, 34, EQUAL),
    ("SELECT COUNT(*) FROM loans WHERE 'Huli' = district", 1, 0, "a text in single quotes can only be a level"),
    ("SELECT COUNT(*) FROM loans WHERE district = member", 1, 45, LEVEL),
    ("SELECT COUNT(*) FROM loans WHERE district = 1", 1, 45, LEVEL),
    ("SELECT COUNT(*) FROM loans WHERE member = TRUE", 1, 43, "a level is written as a text"),
    ("SELECT COUNT(*) FROM loans WHERE district = NULL", 1, 45, "a level is written as a text"),
    ("SELECT COUNT(*) FROM loans WHERE district = 'Nowhere'", 1, 45, "dimension 'district' has no such level"),
    ("SELECT COUNT(*) FROM loans WHERE district = 'huli'", 1, 45, "dimension 'district' has no such level"),
    ("SELECT COUNT(*) FROM loans WHERE district = 'Huli' 'Huli'", 1, 52, "a text in single quotes can only be a level"),
    ("SELECT COUNT(*) FROM loans WHERE district IN ('Huli', 'Huli')", 1, 34, "IN names no level, or one twice"),
    ("SELECT COUNT(*) FROM loans WHERE district IN ()", 1, 34, "IN names no level, or one twice"),
    (
        "SELECT COUNT(*) FROM loans WHERE district = 'Huli' AND district = 'Siming'",
        1,
        56,
        "dimension 'district' has two conditions",
    ),
    ("SELECT COUNT(*) FROM loans ORDER BY district", 1, 37, ORDER),
    ("SELECT district, COUNT(*) n FROM loans GROUP BY district ORDER BY n", 1, 67, ORDER),
    ("SELECT district, COUNT(*) FROM loans GROUP BY district ORDER BY COUNT(*)", 1, 65, ORDER),
    ("SELECT district, COUNT(*) FROM loans GROUP BY district ORDER BY 1", 1, 65, ORDER),
    ("SELECT district, COUNT(*) FROM loans GROUP BY district ORDER BY district DESC", 1, 74, "DESC is not allowed"),
    (
        "SELECT district, COUNT(*) FROM loans GROUP BY district ORDER BY district NULLS FIRST",
        1,
        80,
        "NULLS FIRST is not allowed",
    ),
    ("SELECT COUNT(*) FROM loans LIMIT 1", 1, 28, "LIMIT, OFFSET and FETCH"),
    ("SELECT COUNT(*) FROM loans OFFSET 1", 1, 28, "LIMIT, OFFSET and FETCH"),
    ("SELECT COUNT(*) FROM loans FETCH FIRST 1 ROWS ONLY", 1, 28, "LIMIT, OFFSET and FETCH"),
    ("SELECT COUNT(*) FROM loans QUALIFY 1", 1, 28, "window functions"),
    ("SELECT COUNT(*) FROM loans WINDOW w AS ()", 1, 28, "window functions"),
    ("SELECT COUNT(*) FROM loans TABLESAMPLE 10", 1, 28, "PIVOT and samples"),
    ("SELECT COUNT(*) FROM loans USING SAMPLE 10", 1, 0, ""),
    ("SELECT COUNT(*) FROM loans PIVOT (COUNT(*) FOR district IN ('Huli'))", 1, 28, "PIVOT and samples"),
    ("SELECT SUM(x -> x) FROM loans", 1, 14, "functions of one's own"),
]


@pytest.mark.parametrize(("text", "line", "column", "reason"), REFUSED, ids=lambda value: str(value)[:60])
def test_a_statement_is_refused_for_its_reason(
    text: str, line: int, column: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(InvalidSpec) as raised:
        ask(text)
    told = raised.value.tell
    assert reason in told
    assert told.startswith(f"line {line}, column {column or ''}")
    assert raised.value.__cause__ is None and raised.value.__context__ is None
    assert len(told) <= 300 and not caplog.records


def test_there_are_enough_of_them_and_none_twice() -> None:
    texts = [text for text, *_ in REFUSED]
    assert len(set(texts)) == len(texts) > 150


def test_the_size_of_the_result_is_bounded() -> None:
    wide = [
        Grouping(Dimension(f"d{n}", f"d{n}", levels), levels)
        for n in range(2)
        for levels in [tuple(f"{n}-{level}" for level in range(100))]
    ]
    grant = TableGrant("t", {"d0": pa.string(), "d1": pa.string(), "v": pa.int64()}, {"k": pa.string()})
    measures = [MeasureRange("v", 0, 1)]
    analyse("SELECT d0, d1, COUNT(*) FROM t GROUP BY d0, d1", [grant], wide, measures, 1)
    with pytest.raises(InvalidSpec, match="the result would have 10201 groups"):
        analyse("SELECT d0, d1, COUNT(*) FROM t GROUP BY CUBE (d0, d1)", [grant], wide, measures, 1)
    numbers = ", ".join(f"QUANTILE_CONT(v, 0.{n * 5:02}) q{n}" for n in range(1, 12))
    with pytest.raises(InvalidSpec, match="with 100000 numbers"):
        analyse(f"SELECT d0, d1, {numbers} FROM t GROUP BY d0, d1", [grant], wide, measures, 1)


def test_so_is_the_number_of_conditions_and_tables() -> None:
    names = [f"d{n}" for n in range(MOST_CONDITIONS + 1)]
    groupings = [Grouping(Dimension(name, name, ("a",)), ("a",)) for name in names]
    grant = TableGrant("t", dict.fromkeys(names, pa.string()), {"k": pa.string()})
    fits = " AND ".join(f"{name} = 'a'" for name in names[1:])
    analyse(f"SELECT COUNT(*) FROM t WHERE {fits}", [grant], groupings, [], 1)
    with pytest.raises(InvalidSpec, match="at most 8 dimensions"):
        analyse(f"SELECT COUNT(*) FROM t WHERE {fits} AND d0 = 'a'", [grant], groupings, [], 1)
    tables = [TableGrant(f"t{n}", {}, {"k": pa.string()}) for n in range(5)]
    joins = [f" JOIN t{n} USING (k)" for n in range(1, 5)]
    analyse("SELECT COUNT(*) FROM t0" + "".join(joins[:3]), tables, [], [], 1)
    with pytest.raises(InvalidSpec, match="at most 4 tables"):
        analyse("SELECT COUNT(*) FROM t0" + "".join(joins), tables, [], [], 1)


def test_sixteen_numbers_are_enough() -> None:
    numbers = [f"QUANTILE_CONT({name}, 0.{n * 5:02}) {name}{n}" for n in range(1, 10) for name in ("income", "amount")]
    ask(f"SELECT {', '.join(numbers[:16])} FROM loans")
    with pytest.raises(InvalidSpec, match="1 to 16 numbers"):
        ask(f"SELECT {', '.join(numbers[:17])} FROM loans")


def test_two_tables_of_one_name_and_keys_of_two_types_are_refused() -> None:
    with pytest.raises(InvalidSpec, match="two tables have the same name"):
        ask("SELECT COUNT(*) FROM loans", tables=[LOANS, LOANS])
    other = dataclasses.replace(ACCOUNTS, key={"person": pa.int64()})
    with pytest.raises(InvalidSpec, match="the keys of these tables are of different types"):
        ask("SELECT COUNT(*) FROM loans JOIN accounts ON loans.id = accounts.person", tables=[LOANS, other])


def test_a_name_in_two_cases_is_taken_only_if_it_is_written_exactly() -> None:
    twice = [*DIMENSIONS, Grouping(Dimension("Member", "late", ("true",)), ("true",))]
    analyse("SELECT Member, COUNT(*) FROM loans GROUP BY Member", TABLES, twice, MEASURES, 1)
    with pytest.raises(InvalidSpec, match="has no dimension 'MEMBER'"):
        analyse("SELECT MEMBER, COUNT(*) FROM loans GROUP BY MEMBER", TABLES, twice, MEASURES, 1)


def test_names_that_duckdb_would_mix_up_are_refused() -> None:
    grant = TableGrant("t", {"Late": pa.int64(), "late": pa.int64(), "LATE": pa.string()}, {"k": pa.string()})
    measures = [MeasureRange("Late", 0, 1), MeasureRange("late", 0, 1)]
    analyse("SELECT SUM(Late) a FROM t", [grant], [], measures, 1)
    with pytest.raises(InvalidSpec, match="capital letters"):
        analyse("SELECT SUM(Late) a, SUM(late) b FROM t", [grant], [], measures, 1)
    tables = [TableGrant("t", {}, {"k": pa.string()}), TableGrant("T", {}, {"k": pa.string()})]
    with pytest.raises(InvalidSpec, match="capital letters"):
        analyse('SELECT COUNT(*) FROM t a JOIN "T" b ON a.k = b.k', tables, [], [], 1)


@pytest.mark.parametrize("level", ["", "a\0b"])
def test_levels_that_no_text_can_hold_are_refused(level: str) -> None:
    listed = [Grouping(Dimension("member", "member", (level, "true")), (level, "true"))]
    with pytest.raises(InvalidSpec, match="a name or a level"):
        analyse("SELECT member, COUNT(*) FROM loans GROUP BY member", TABLES, listed, MEASURES, 1)
