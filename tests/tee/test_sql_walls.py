"""If a statement were passed on as it is: what DuckDB itself refuses where the jail starts it, without any analysis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from sql_world import closed, run

from sandbox.tee_sim.inside import run_sql

CANARY = "canary-8c1d"
TABLE = pa.table({"id": ["a", "b"], "income": pa.array([1, 2], pa.int64())})

HOSTILE = [
    "SELECT * FROM read_csv('{secret}')",
    "SELECT * FROM read_text('{secret}')",
    "SELECT * FROM read_blob('{secret}')",
    "SELECT * FROM read_json('{secret}')",
    "SELECT * FROM read_parquet('{secret}')",
    "SELECT * FROM '{secret}'",
    "SELECT * FROM sniff_csv('{secret}')",
    "SELECT * FROM parquet_metadata('{secret}')",
    "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM read_text('/proc/self/environ')",
    "SELECT getenv('SECRET')",
    "COPY data TO '{folder}/out.csv'",
    "COPY data FROM '{secret}'",
    "EXPORT DATABASE '{folder}/out'",
    "IMPORT DATABASE '{folder}'",
    "ATTACH '{folder}/out.db'",
    "ATTACH 'host=127.0.0.1' AS pg (TYPE postgres)",
    "SELECT * FROM 'http://127.0.0.1:1/x.parquet'",
    "SELECT * FROM read_csv('http://127.0.0.1:1/x.csv')",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '{folder}/x.duckdb_extension'",
    "CALL dbgen(sf = 1)",
    "CREATE SECRET (TYPE s3)",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET temp_directory = '{folder}'",
    "SET allowed_directories = ['{folder}']",
    "SET threads = 64",
    "SET memory_limit = '100GB'",
    "SET python_enable_replacements = true",
    "SET GLOBAL enable_external_access = true",
    "RESET enable_external_access",
    "PRAGMA enable_external_access = true",
    "PRAGMA threads = 64",
    "SELECT * FROM reachable",
    "SELECT * FROM reachable_frame",
]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    secret = tmp_path / "secret.csv"
    secret.write_text(f"a\n{CANARY}\n", encoding="utf-8")
    monkeypatch.setenv("SECRET", CANARY)
    return {"secret": str(secret), "folder": str(tmp_path)}


@pytest.mark.parametrize("statement", HOSTILE)
def test_duckdb_reaches_nothing_outside(statement: str, places: dict[str, str]) -> None:
    reachable, reachable_frame = TABLE, TABLE.to_pandas()  # a replacement scan would find them by their names
    before = sorted(Path(places["folder"]).iterdir())
    with closed() as connection:
        connection.register("data", TABLE)
        with pytest.raises(duckdb.Error) as raised:
            connection.sql(statement.format(**places)).to_arrow_table()
        assert CANARY not in str(raised.value)
        assert connection.sql("SELECT count(*) FROM data").fetchall() == [(2,)]
    assert sorted(Path(places["folder"]).iterdir()) == before
    assert len(reachable) == len(reachable_frame)


@pytest.mark.filterwarnings("ignore:Arrow output on a DB-API result")
@pytest.mark.parametrize("statement", HOSTILE)
def test_neither_does_the_program_in_the_jail(statement: str, places: dict[str, str]) -> None:
    before = sorted(Path(places["folder"]).iterdir())
    job: dict[str, Any] = {"sql": statement.format(**places), "cores": 1, "memory_mib": 256}
    with pytest.raises(duckdb.Error) as raised:
        run_sql(job, {"data": TABLE}, {})
    assert CANARY not in str(raised.value)
    assert sorted(Path(places["folder"]).iterdir()) == before


@pytest.mark.filterwarnings("ignore:Arrow output on a DB-API result")
def test_both_answer_a_plain_statement_alike() -> None:
    statement = "SELECT count(*) AS n, sum(income) AS s FROM data"
    found = run_sql({"sql": statement, "cores": 1, "memory_mib": 256}, {"data": TABLE}, {})
    assert found["result"].to_pylist() == run(statement, {"data": TABLE}).to_pylist() == [{"n": 2, "s": 3}]
