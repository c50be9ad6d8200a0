"""Takes a table out of a PostgreSQL database: one SELECT, streamed into a Parquet file that a node can register.

    url, query --read-only transaction, COPY--> batches of Arrow --columns--> export.parquet

Source:    ADBC with libpq; rows arrive in PostgreSQL's binary COPY format.
Security:  the statement is checked to be one SELECT, and runs in a transaction that the server keeps read-only,
           whatever functions it calls; what those do outside the database (``dblink``), the user's rights decide. The
           file is for this user only, in a directory that is. Without ``sslmode=verify-full`` in the URL, whether the
           connection is encrypted, and to whom, is the server's choice. No error quotes a row, the statement or the
           URL: what the library says may hold all of them, so of its words only the SQL state is told.
Shapes:    columns that the schema does not name are left out. ``numeric`` becomes decimals or whole numbers exactly;
           the other types as from a Parquet file (``catalog.columns``): a ``uuid`` or an ``enum`` is cast to text by
           the query. Memory: a few batches of about ``BATCH_BYTES``.
Errors:    ``InvalidSpec`` for a statement or result that cannot be used, ``Unavailable`` for a database that cannot be
           asked, or without the extra "postgres".
Not here:  removing the directory: the caller does, once the file is registered.
"""

from __future__ import annotations

import importlib
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq
import sqlglot
from sqlglot import TokenType, exp
from sqlglot.errors import SqlglotError

from sandbox.catalog.columns import Place, from_arrow, from_text
from sandbox.catalog.schema import Field, FieldType, Schema
from sandbox.errors import InvalidSpec, Unavailable

NAME: Final = "export.parquet"
BATCH_BYTES: Final = 8 << 20
CONNECT_S: Final = 10
_SCHEMES: Final = ("postgresql://", "postgres://")
_RESULT: Final = Path("the result of the query")
_BEGINNINGS: Final = (TokenType.SELECT, TokenType.WITH, TokenType.L_PAREN)
_WRITES: Final = (exp.DML, exp.DDL, exp.Into, exp.Lock, exp.Command)

# SQL states with the words for a person (PostgreSQL manual, appendix A).
_STATES: Final = (
    ("25006", "the query would change something: only reading is allowed"),
    ("42501", "this user may not read one of the tables"),
    ("42601", "a mistake in the query"),
    ("42703", "the query names a column that is not there"),
    ("42P01", "the query names a table that is not there"),
    ("57014", "the database stopped the query"),
)


def export(url: str, query: str, schema: Schema, directory: Path) -> Path:
    """Write the rows of ``query`` to a new file in ``directory``, and return it.

    Args:
        url: of the database, postgresql://USER:PASSWORD@HOST:PORT/NAME; the password may be in a password file
            instead.
        query: one SELECT, whose columns have the names of the schema.
        schema: which columns there must be, and their types.
        directory: is made, or is this user's alone. The caller removes it.

    Raises:
        InvalidSpec: the query is no single SELECT, fails, or its result has no rows or does not fit the schema.
        Unavailable: the database, the disk or the library cannot be used.
    """
    check_select(query)
    if not url.startswith(_SCHEMES):
        raise InvalidSpec(tell="the database's address must be a URL: postgresql://USER@HOST/NAME")
    driver = _driver()
    path = directory / NAME
    file = _new_file(path)
    reason, rows, whole = "", 0, False
    try:
        with file, closing(_batches(driver, url, query, schema)) as batches:
            rows = _write(batches, schema, file)
        whole = rows > 0
    except OSError as error:
        reason = error.strerror or "unknown"
    finally:
        if not whole:
            path.unlink(missing_ok=True)  # half of a table is worth nothing, and still is somebody's data
    if reason:
        raise Unavailable(tell=f"{path} cannot be written: {reason}", hint="make room, or choose another directory")
    if not rows:
        raise InvalidSpec(tell="the query found no rows", hint="try the query with psql")
    return path


def check_select(query: str) -> None:
    """Check that ``query`` is one SELECT and nothing else.

    Raises:
        InvalidSpec: it is not.
    """
    only = None
    try:
        kinds = [token.token_type for token in sqlglot.tokenize(query, read="postgres")]
        while kinds and kinds[-1] is TokenType.SEMICOLON:
            kinds.pop()
        # The parser logs the statements it does not know, with what stands in them: it sees none of those.
        if kinds and kinds[0] in _BEGINNINGS and TokenType.SEMICOLON not in kinds:
            only = sqlglot.parse_one(query, read="postgres")
    except (SqlglotError, RecursionError):
        only = None
    if not isinstance(only, exp.Query) or any(isinstance(node, _WRITES) for node in only.walk()):
        raise InvalidSpec(tell="the query must be one SELECT that changes and locks nothing")


def _batches(driver: Any, url: str, query: str, schema: Schema) -> Generator[pa.RecordBatch, None, None]:
    """Yield what the query finds, in the schema's columns and types."""
    more = f"{'&' if '?' in url else '?'}client_encoding=UTF8"
    if "connect_timeout=" not in url:
        more += f"&connect_timeout={CONNECT_S}"
    with _connect(driver, url + more) as connection, connection.cursor() as cursor:
        reader = _ask(driver, cursor, query)
        for field in schema.fields:
            if reader.schema.names.count(field.name) != 1:
                there = "twice" if field.name in reader.schema.names else "not there"
                raise InvalidSpec(tell=f"column {field.name!r} is {there} in the result of the query")
        rows = 0
        while (batch := _next(reader, rows)) is not None:
            place = Place(_RESULT, rows)
            columns = [_converted(batch.column(field.name), field, place) for field in schema.fields]
            yield pa.RecordBatch.from_arrays(columns, schema=schema.arrow())
            rows += batch.num_rows


def _connect(driver: Any, url: str) -> Any:
    try:
        return driver.connect(url)
    except driver.Error:
        words = "the database cannot be reached, does not exist, or refuses the user or password"
    raise Unavailable(tell=words, hint="try the same URL with psql, and look into the database's log")


def _ask(driver: Any, cursor: Any, query: str) -> Any:
    try:
        cursor.execute("SET TRANSACTION READ ONLY")  # from the first query on, nothing in the transaction undoes it
        cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(BATCH_BYTES)})
        # COPY takes the query into brackets: no semicolon, and an end of line for a last comment.
        cursor.execute(query.strip().rstrip(";") + "\n")
        return cursor.fetch_record_batch()
    except (driver.Error, pa.ArrowException, OSError) as error:
        state = getattr(error, "sqlstate", None) or ""
    raise _failed(state)


def _next(reader: Any, rows: int) -> pa.RecordBatch | None:
    broken = False
    try:
        return reader.read_next_batch()
    except StopIteration:
        return None
    except (pa.ArrowException, OSError):  # the library's words may quote a row
        broken = True
    if broken:
        raise _failed("", rows)
    return None


def _failed(state: str, rows: int = 0) -> InvalidSpec:
    words = next((words for code, words in _STATES if state == code), "the database broke off the query")
    about = f" (SQL state {state})" if state else f" after {rows} rows or a few more" if rows else ""
    return InvalidSpec(tell=f"{words}{about}", hint="try the query with psql")


def _converted(column: pa.Array, field: Field, place: Place) -> pa.Array:
    numeric = False
    if isinstance(column.type, pa.BaseExtensionType) and pa.types.is_string(column.type.storage_type):
        numeric = getattr(column.type, "type_name", "") == "numeric"
        column = column.storage
    text = numeric and field.type in (FieldType.DECIMAL, FieldType.INTEGER)
    try:
        return from_text(column, field, place) if text else from_arrow(column, field, place)
    except InvalidSpec as error:
        words = str(error)
    raise InvalidSpec(tell=words, hint="correct the rows, the schema, or cast the column in the query")


def _write(batches: Iterator[pa.RecordBatch], schema: Schema, file: BinaryIO) -> int:
    """Write all batches and return how many rows they have; statistics would be copies of values."""
    rows = 0
    with pq.ParquetWriter(file, schema.arrow(), compression="zstd", write_statistics=False) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _new_file(path: Path) -> BinaryIO:
    """Return a new file for this user's eyes, in a directory for this user's eyes."""
    reason = ""
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        found = path.parent.stat()
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            reason = "its directory is not this user's alone"
        else:
            return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb")
    except OSError as error:
        reason = error.strerror or "unknown"
    raise Unavailable(tell=f"{path} cannot be written: {reason}", hint="choose another directory")


def _driver() -> Any:
    try:
        return importlib.import_module("adbc_driver_postgresql.dbapi")
    except ImportError:
        words = "queries to PostgreSQL need the extra: pip install 'data-sandbox[postgres]'"
    raise Unavailable(tell=words, hint="install it, or export the table as Parquet or CSV yourself")
