"""Schemas, files and versions that the tests of the catalogue share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sandbox.catalog.formats import KeyFormat, WhenInvalid
from sandbox.catalog.registration import make_code
from sandbox.catalog.schema import Field, FieldType, Grade, Schema

CODE = make_code("某市大数据局", "纳税记录")


def field(name: str, type_: FieldType = FieldType.STRING) -> Field:
    return Field(name, type_, "含义", "", Grade.L2, "", Decimal(1))


def schema(columns: Mapping[str, FieldType], key: Sequence[str] = ("id",)) -> Schema:
    return Schema(tuple(field(name, type_) for name, type_ in columns.items()), tuple(key))


def keyed(**columns: tuple[FieldType, KeyFormat] | tuple[FieldType, KeyFormat, WhenInvalid]) -> Schema:
    """A schema whose columns are its key."""
    fields = [replace(field(name, type_), format=form) for name, (type_, form, *_) in columns.items()]
    kept = {name for name, said in columns.items() if said[2:] == (WhenInvalid.KEEP,)}
    fields = [replace(one, invalid=WhenInvalid.KEEP) if one.name in kept else one for one in fields]
    return Schema(tuple(fields), tuple(columns))


EVERY_TYPE = schema(
    {
        "id": FieldType.STRING,
        "姓名": FieldType.STRING,
        "income": FieldType.DECIMAL,
        "orders": FieldType.INTEGER,
        "active": FieldType.BOOLEAN,
        "since": FieldType.DATE,
    }
)

ROWS: dict[str, list[Any]] = {
    "id": ["a1", "a2", "a3", "a4"],
    "姓名": ["张三", None, "", 'ünï\n"q",😀'],
    "income": [Decimal("12.5000000000"), None, Decimal("-0.0000000001"), Decimal(10**27)],
    "orders": [1, -(2**63), None, 2**63 - 1],
    "active": [True, False, None, True],
    "since": [date(1999, 12, 31), None, date(1, 1, 1), date(9999, 12, 31)],
}


def batch(rows: Mapping[str, Sequence[Any]] = ROWS, of: Schema = EVERY_TYPE) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(dict(rows), schema=of.arrow())


def write_parquet(path: Path, columns: Mapping[str, object]) -> Path:
    pq.write_table(pa.table(dict(columns)), path)
    return path


@dataclass(frozen=True)
class Version:
    schema: Schema
    version: int = 1
    code: str = CODE
