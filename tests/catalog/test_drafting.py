"""A schema to start from: types as in the file, suggested grades, and nothing that could be registered unread."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from personal_builders import column, credit_code, identity, mobile, person

from sandbox.catalog.csv_text import read_columns
from sandbox.catalog.drafting import Drafter, draft
from sandbox.catalog.formats import KeyFormat
from sandbox.catalog.grading import suggest
from sandbox.catalog.intake import read_table
from sandbox.catalog.schema import Grade, Schema, parse_schema, read_schema
from sandbox.errors import InvalidSpec


def people(rows: int = 30) -> dict[str, list[Any]]:
    random = Random(4)
    return {
        "id": [identity(random) for _ in range(rows)],
        "who": [person(random) for _ in range(rows)],
        "tel": [float(mobile(random)) for _ in range(rows - 1)] + [None],
        "score": [number / 4 for number in range(rows)],
        "loans": list(range(rows)),
        "good": [True] * rows,
        "since": [date(2020, 1, 1)] * rows,
        "seen": [datetime(2020, 1, 1)] * rows,
        "due": [Decimal("1.50")] * rows,
    }


def completed(data: bytes, **changes: object) -> Schema:
    """What a person makes of a draft."""
    tree = json.loads(data)
    for one in tree["fields"]:
        assert one["meaning"] == ""
        one["meaning"] = "含义"
    return parse_schema(json.dumps(tree | changes).encode())


def test_a_draft_holds_types_grades_and_maskings() -> None:
    table = pa.record_batch(people())
    made = draft([table.slice(0, 10), table.slice(10)], suggest([table]))
    assert made.left_out == ()
    schema = completed(made.data)
    assert schema.names == tuple(table.schema.names)
    assert [(one.type.value, one.grade.value, one.masking) for one in schema.fields] == [
        ("string", "L4", "hash"),
        ("string", "L3", "mask:1,0"),
        ("integer", "L3", "mask:3,4"),
        ("decimal", "L3", ""),
        ("integer", "L3", ""),
        ("boolean", "L3", ""),
        ("date", "L3", ""),
        ("date", "L3", ""),
        ("decimal", "L3", ""),
    ]
    assert (schema.key, schema.key_formats) == (("id",), (KeyFormat.ID_NUMBER,))


def test_a_draft_cannot_be_registered_unread(tmp_path: Path) -> None:
    table = pa.record_batch(people())
    path = tmp_path / "schema.json"
    path.write_bytes(draft([table], suggest([table])).data)
    with pytest.raises(InvalidSpec, match="meaning of field 'id' is empty"):
        read_schema(path)
    for name in table.schema.names[:-1]:  # nor if a person has looked at some columns only
        tree = json.loads(path.read_bytes())
        next(one for one in tree["fields"] if one["name"] == name)["meaning"] = "含义"
        path.write_text(json.dumps(tree))
        with pytest.raises(InvalidSpec, match="meaning of field"):
            read_schema(path)


def test_a_draft_of_a_csv_file_takes_the_file_in(tmp_path: Path) -> None:
    path, names = tmp_path / "people.csv", ["id", "tel", "area", "loans", "due", "since", "good", "note", "none"]
    random = Random(6)
    rows = [
        [
            identity(random),
            mobile(random),
            f"0{number % 7}",
            str(number - 3),
            f"{number}.50",
            "2024-02-29",
            "true",
            "7",
            "",
        ]
        for number in range(30)
    ]
    rows[3][7], rows[4][4], rows[5][5] = "x", "-0.25", ""
    path.write_text("\n".join(",".join(row) for row in [names, *rows]) + "\n")
    batches = list(read_columns(path, names))
    made = draft(batches, suggest(batches))
    schema = completed(made.data)
    assert {one.name: one.type.value for one in schema.fields} == {
        "id": "string",
        "tel": "string",
        "area": "string",  # 01 is no whole number
        "loans": "integer",
        "due": "decimal",
        "since": "date",
        "good": "boolean",
        "note": "string",
        "none": "string",
    }
    taken = pa.Table.from_batches(list(read_table(path, schema)))
    assert taken.num_rows == 30 and taken["loans"].to_pylist()[:4] == [-3, -2, -1, 0]


def test_what_no_schema_can_hold_is_left_out_and_named() -> None:
    made = draft(
        [
            pa.record_batch(
                {
                    "id": ["a"],
                    "list": [[1]],
                    "noon": [datetime(2020, 1, 1, 12)],
                    "zoned": pa.array([0], pa.timestamp("s", "UTC")),
                    " blank": [1],
                    "x" * 65: [1],
                    "nothing": pa.nulls(1),
                }
            )
        ],
        (),
    )
    assert made.left_out == ("list", "noon", "zoned", " blank", "x" * 65)
    assert completed(made.data, key=["id"]).names == ("id", "nothing")
    with pytest.raises(InvalidSpec, match="no column that a schema can hold"):
        draft([pa.record_batch({"list": [[1]]})], ())
    with pytest.raises(InvalidSpec, match="no column that a schema can hold"):
        draft([], ())


def test_a_key_is_drafted_only_where_it_is_plain() -> None:
    random = Random(8)
    ids, others, codes = ([make(random) for _ in range(20)] for make in (identity, identity, credit_code))
    for table, key in (
        ({"a": ids, "b": codes}, ["a"]),
        ({"a": ids, "b": others}, []),
        ({"a": ids, "b": others, "c": codes}, ["c"]),
        ({"a": [1], "b": ["x"]}, []),
    ):
        rows = pa.record_batch(table)
        made = json.loads(draft([rows], suggest([rows])).data)
        assert made["key"] == key
    with pytest.raises(InvalidSpec, match="names no field"):
        completed(draft([rows], ()).data)


def test_a_masking_that_does_not_fit_the_type_becomes_the_strictest() -> None:
    tel = [float(mobile(Random(seed))) for seed in range(40)] + [0.5]
    rows = pa.record_batch({"id": ["a"] * 41, "tel": tel})
    (suggestion,) = suggest([rows])
    (_, one) = completed(draft([rows], [suggestion]).data, key=["id"]).fields
    assert (one.type.value, one.masking, one.grade) == ("decimal", "drop", Grade.L3)


def test_no_value_stands_in_a_draft() -> None:
    rows = column(identity, 20, "id")
    text = draft([rows], suggest([rows])).data.decode()
    assert not any(value in text for value in rows.column(0).to_pylist())


def test_tables_that_are_not_one_are_refused() -> None:
    drafter = Drafter()
    drafter.add(pa.record_batch({"a": ["b"]}))
    with pytest.raises(InvalidSpec, match="differ"):
        drafter.add(pa.record_batch({"a": [1]}))
    with pytest.raises(InvalidSpec, match="same name"):
        draft([pa.RecordBatch.from_arrays([pa.array(["a"])] * 2, names=["a", "a"])], ())
