"""Tables out of a real PostgreSQL: a cluster of its own, on a socket, for these tests only."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import traceback
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalog_builders import EVERY_TYPE, ROWS, batch, schema

from sandbox.catalog.intake import read_table
from sandbox.catalog.schema import FieldType, Schema
from sandbox.client.folders import files_of
from sandbox.client.postgres import check_select, export
from sandbox.errors import InvalidSpec, SandboxError, Unavailable

CANARY, PASSWORD = "canary7731", "s3cret-canary7731"
PAIR = schema({"id": FieldType.STRING, "n": FieldType.INTEGER})
NOBODY = 65534  # the server refuses to run as root
DRIVER = importlib.util.find_spec("adbc_driver_postgresql")
BINARIES = (
    next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
    or Path(shutil.which("initdb") or "/nowhere/initdb").resolve().parent
)

needs_driver = pytest.mark.skipif(DRIVER is None, reason="the extra `postgres` (ADBC) is not installed")


@dataclass(frozen=True)
class Database:
    url: str

    def run(self, statement: str) -> None:
        from adbc_driver_postgresql import dbapi

        with dbapi.connect(self.url, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute(statement)

    def one(self, query: str) -> Any:
        from adbc_driver_postgresql import dbapi

        with dbapi.connect(self.url) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            row = cursor.fetchone()
            return row[0] if row else None


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    if DRIVER is None:
        pytest.skip("the extra `postgres` (ADBC) is not installed")
    if not (BINARIES / "initdb").exists():
        pytest.skip("no PostgreSQL server is installed (initdb is not there)")
    place = Path(tempfile.mkdtemp(prefix="pg-"))  # short: the name of a socket has 107 bytes at most
    root = os.geteuid() == 0
    (place / "password").write_text(PASSWORD)
    if root:
        for one in (place, place / "password"):
            os.chown(one, NOBODY, NOBODY)
    as_nobody: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if root else {}
    quiet: dict[str, Any] = {"cwd": place, "env": {"PATH": str(BINARIES)}, "stdout": subprocess.DEVNULL, **as_nobody}
    made = [BINARIES / "initdb", "-D", place / "data", "-U", "owner", "-A", "scram-sha-256", "-N"]
    with (place / "log").open("wb") as log:
        subprocess.run(
            [*made, "--pwfile", place / "password", "-E", "UTF8", "--locale=C"], check=True, stderr=log, **quiet
        )
        options = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", "log_min_messages=panic"]
        server = subprocess.Popen(
            [BINARIES / "postgres", "-D", place / "data", "-k", place, *options], stderr=log, **quiet
        )
    try:
        found = Database(f"postgresql://owner:{PASSWORD}@/postgres?host={place}")
        _wait(found, server)
        yield found
    finally:
        server.send_signal(signal.SIGINT)  # at once, whoever is still connected
        server.wait(20)
        shutil.rmtree(place)


def _wait(database: Database, server: subprocess.Popen[bytes]) -> None:
    from adbc_driver_postgresql import dbapi

    for _ in range(200):
        assert server.poll() is None, "the server ended at once"
        with suppress(dbapi.Error):
            assert database.one("SELECT 1") == 1
            return
        with suppress(subprocess.TimeoutExpired):
            server.wait(0.05)
    raise AssertionError("the server does not answer")


@pytest.fixture
def table(database: Database) -> Iterator[str]:
    """A table's name that is free, and dropped in the end."""
    name = f"t{uuid.uuid4().hex}"
    yield name
    database.run(f"DROP TABLE IF EXISTS {name}")


def everything_in(error: BaseException) -> str:
    chain, texts = [error], []
    while chain:
        one = chain.pop()
        texts += [repr(one), str(one), repr(one.__dict__), "".join(traceback.format_exception(one))]
        chain += [other for other in (one.__cause__, one.__context__) if other]
    return "\n".join(texts)


def refused(database: Database, query: str, of: Schema, place: Path, *said: str, url: str = "") -> SandboxError:
    with pytest.raises(SandboxError) as caught:
        export(url or database.url, query, of, place)
    error = caught.value
    assert all(word in error.tell for word in said), error.tell
    for secret in (CANARY, PASSWORD):
        assert secret not in everything_in(error)
    assert not place.exists() or not list(place.iterdir())  # nothing is left behind
    return error


# What arrives


def test_every_type_and_missing_values_arrive(database: Database, table: str, tmp_path: Path) -> None:
    database.run(
        f'CREATE TABLE {table} (extra text, id varchar(9), "姓名" text, income numeric(38,10), orders bigint, '
        "active boolean, since date)"
    )
    cells = zip(*ROWS.values(), strict=True)
    for row in cells:
        database.run(f"INSERT INTO {table} VALUES ('{CANARY}', {', '.join(map(_literal, row))})")
    path = export(database.url, f"SELECT * FROM {table} ORDER BY id;", EVERY_TYPE, tmp_path / "out")
    assert pa.Table.from_batches(read_table(path, EVERY_TYPE)).equals(pa.Table.from_batches([batch()]))
    assert files_of(path) == [path] and CANARY.encode() not in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def _literal(value: object) -> str:
    if value is None:
        return "NULL"
    return str(value) if isinstance(value, int | Decimal) else "'{}'".format(str(value).replace("'", "''"))


def test_narrower_and_like_types_arrive(database: Database, tmp_path: Path) -> None:
    of = schema({"id": FieldType.STRING, "i": FieldType.INTEGER, "d": FieldType.DECIMAL, "t": FieldType.DATE})
    for columns in ("5::smallint AS i, 0.1::float8 AS d, DATE '2020-01-02' AS t", "5::numeric AS i, 0.1 AS d, t"):
        query = f"SELECT 'a'::char(3) AS id, {columns} FROM (SELECT TIMESTAMP '2020-01-02 00:00' AS t) AS x -- all"
        path = export(database.url, query, of, tmp_path / "out")
        expected = [{"id": "a  ", "i": 5, "d": Decimal("0.1"), "t": date(2020, 1, 2)}]
        assert pa.Table.from_batches(read_table(path, of)).to_pylist() == expected
        path.unlink()


def test_names_and_numbers_keep_every_character_and_digit(database: Database, tmp_path: Path) -> None:
    of = schema({"id": FieldType.STRING, "d": FieldType.DECIMAL})
    values = [Decimal(10**27) + Decimal("0.0000000001"), Decimal("-0.0000000001"), Decimal(0)]
    query = " UNION ALL ".join(f"SELECT '𠀀{i}' AS id, {value:f}::numeric AS d" for i, value in enumerate(values))
    found = pq.read_table(export(database.url, query, of, tmp_path / "out"))
    assert found["d"].to_pylist() == values and found["id"].to_pylist() == ["𠀀0", "𠀀1", "𠀀2"]


def test_a_large_result_comes_in_pieces(database: Database, tmp_path: Path) -> None:
    query = "SELECT repeat('x', 100) || n AS id, n FROM generate_series(1, 300000) AS n"
    path = export(database.url, query, PAIR, tmp_path / "out")
    with pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(index).num_rows for index in range(file.metadata.num_row_groups)]
        assert sum(sizes) == 300_000 and max(sizes) < 150_000
        assert file.metadata.row_group(0).column(0).statistics is None
    assert sum(piece.num_rows for piece in read_table(path, PAIR)) == 300_000


# What is refused

NOT_ONE_SELECT = [
    "",
    ";",
    "x",
    "SELECT 1; SELECT 2",
    "SELECT 1; EXPLAIN SELECT 2",
    "SELECT 1) TO STDOUT; DROP TABLE t; --",
    "DELETE FROM t RETURNING *",
    "WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone",
    "SELECT * INTO u FROM t",
    "SELECT * FROM t FOR UPDATE",
    "CREATE TABLE u AS SELECT 1",
    "COPY t TO STDOUT",
    "EXPLAIN ANALYZE SELECT 1",
    "CALL f()",
    "DO $$ BEGIN END $$",
    "BEGIN",
    "SET TRANSACTION READ WRITE",
    "SELECT '",
    "(" * 5000 + "SELECT 1" + ")" * 5000,
]


@pytest.mark.parametrize("query", NOT_ONE_SELECT, ids=range(len(NOT_ONE_SELECT)))
def test_only_one_select_is_taken(query: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InvalidSpec, match="one SELECT"):
        check_select(f"{query} /* {CANARY} */" if query else query)
    assert CANARY not in caplog.text


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1",
        " select 1 ; ",
        "(SELECT 1)",
        "SELECT 'a;b', $$c;d$$ -- ;",
        "WITH a AS (SELECT 1 AS x) SELECT x FROM a UNION ALL SELECT 2 ORDER BY 1 LIMIT 3",
        "SELECT DISTINCT ON (k) k, sum(n) OVER (PARTITION BY k) FROM t WHERE \"删除\" = 'delete'",
        "SELECT * FROM t WHERE d > now() - '1 day'::interval AND name ILIKE '%x%'",
    ],
)
def test_selects_are_taken(query: str) -> None:
    check_select(query)


def test_a_function_that_writes_is_stopped_by_the_server(database: Database, table: str, tmp_path: Path) -> None:
    database.run(f"CREATE TABLE {table} (id text)")
    for body in (
        f"INSERT INTO {table} VALUES (''{CANARY}'') RETURNING id",
        f"SET TRANSACTION READ WRITE; INSERT INTO {table} VALUES (''x'') RETURNING id",
    ):
        database.run(f"CREATE OR REPLACE FUNCTION f() RETURNS text LANGUAGE sql AS '{body}'")
        refused(database, "SELECT f() AS id, 1 AS n", PAIR, tmp_path / "out")
        assert database.one(f"SELECT count(*) FROM {table}") == 0
    database.run("DROP FUNCTION f()")


REFUSED = [
    ("SELECT id, n FROM nowhere", ("names a table that is not there", "42P01")),
    ("SELECT nothing AS id, 1 AS n", ("names a column that is not there", "42703")),
    ("SELECT 'a' AS id", ("column 'n' is not there",)),
    ("SELECT 'a' AS id, 1 AS n, 2 AS n", ("column 'n' is twice",)),
    (f"SELECT '{CANARY}' AS id, 1 AS n WHERE false", ("found no rows",)),
    (f"SELECT 'a' AS id, '{CANARY}' AS n", ("column 'n'", "string", "a whole number")),
    (f"SELECT 'a' AS id, '{CANARY}'::int AS n", ("22P02",)),
    (f"SELECT x AS id, x::int AS n FROM (VALUES ('1'), ('{CANARY}')) AS v(x)", ("broke off",)),
    ("SELECT 'a' || n AS id, 77.31 / (3 - n) AS n FROM generate_series(1, 5) AS n", ("broke off",)),
    ("SELECT 'a' AS id, v.n FROM (VALUES (1.0), (7731.5)) AS v(n)", ("the result of the query, column 'n', row 1",)),
    ("SELECT 'a' AS id, 'NaN'::numeric AS n", ("row 1: not a whole number",)),
    ("SELECT gen_random_uuid() AS id, 1 AS n", ("column 'id'", "uuid")),
    ("SELECT 'a' AS id, '\\x7731'::bytea AS n", ("column 'n'", "binary")),
]


@pytest.mark.parametrize(("query", "said"), REFUSED, ids=range(len(REFUSED)))
def test_a_query_that_cannot_be_used_is_refused(
    database: Database, tmp_path: Path, query: str, said: tuple[str, ...]
) -> None:
    assert isinstance(refused(database, query, PAIR, tmp_path / "out", *said), InvalidSpec)


@pytest.mark.parametrize("day", ["infinity", "-infinity", "0044-03-15 BC"])
def test_days_that_are_none_are_refused(database: Database, tmp_path: Path, day: str) -> None:
    of = schema({"id": FieldType.STRING, "t": FieldType.DATE})
    refused(database, f"SELECT 'a' AS id, DATE '{day}' AS t", of, tmp_path / "out", "row 1: not a date")


def test_the_wrong_password_is_refused_and_not_quoted(database: Database, tmp_path: Path) -> None:
    wrong = database.url.replace(PASSWORD, f"{PASSWORD}x")
    error = refused(database, "SELECT 'a' AS id, 1 AS n", PAIR, tmp_path / "out", "cannot be reached", url=wrong)
    assert isinstance(error, Unavailable)
    nowhere = f"postgresql://owner:{PASSWORD}@127.0.0.1:1/nowhere?connect_timeout=2"
    refused(database, "SELECT 'a' AS id, 1 AS n", PAIR, tmp_path / "out", "cannot be reached", url=nowhere)


@needs_driver
def test_an_address_that_is_no_url_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="must be a URL"):
        export(f"host=/tmp password={CANARY}", "SELECT 1", PAIR, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@needs_driver
def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.mkdir(mode=0o755)
    with pytest.raises(Unavailable, match="not this user's alone"):
        export("postgresql:///x", "SELECT 1", PAIR, place)
    assert not list(place.iterdir())


def test_a_file_that_is_there_is_left_alone(database: Database, tmp_path: Path) -> None:
    place = tmp_path / "out"
    path = export(database.url, "SELECT 'a' AS id, 1 AS n", PAIR, place)
    before = path.read_bytes()
    with pytest.raises(Unavailable, match="File exists"):
        export(database.url, "SELECT 'b' AS id, 1 AS n", PAIR, place)
    assert path.read_bytes() == before


# Folders


def test_a_folder_is_its_tables_in_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "c.CSV", ".d.csv", "notes.txt"):
        (tmp_path / name).write_text("id\nx\n")
    (tmp_path / "e.csv").symlink_to(tmp_path / "a.csv")
    (tmp_path / "f.csv").mkdir()
    (tmp_path / "f.csv" / "g.csv").write_text("id\nx\n")
    assert [one.name for one in files_of(tmp_path)] == ["a.csv", "b.csv", "c.CSV"]
    assert files_of(tmp_path / "a.csv") == [tmp_path / "a.csv"]


def test_a_folder_of_both_kinds_of_none_or_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="holds no file"):
        files_of(tmp_path)
    (tmp_path / "a.csv").write_text("id\nx\n")
    (tmp_path / "a.txt").write_text("id\nx\n")
    with pytest.raises(InvalidSpec, match="has no name"):
        files_of(tmp_path / "a.txt")
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(InvalidSpec, match="both Parquet and CSV"):
        files_of(tmp_path)
    with pytest.raises(InvalidSpec, match="no such file"):
        files_of(tmp_path / "nowhere")
