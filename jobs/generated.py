"""Files of examples whose rows were generated: the table, its schema, and a page that says so.

Not here:  what is in the rows; each example's ``generate`` makes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from sandbox.catalog.formats import KeyFormat
from sandbox.catalog.schema import Field, FieldType, Grade, Schema, schema_bytes

PROVENANCE: Final = """# Where these files come from

**Every row was generated**, by `python -m {module} DIR --seed {seed}`. Nobody is described here:
identity numbers are of region 990000, which does not exist, and names and values come from a random generator; none was
taken from a record of anybody. The same seed gives the same rows.

Licence: Apache-2.0, as the rest of the project.
"""


def key_field(name: str, meaning: str, form: KeyFormat) -> Field:
    """Return a column of a key."""
    return Field(name, FieldType.STRING, meaning, "", Grade.L4, "drop", Decimal(1), form)


def field(name: str, type_: FieldType, meaning: str, unit: str = "", grade: Grade = Grade.L3) -> Field:
    """Return any other column."""
    return Field(name, type_, meaning, unit, grade, "", Decimal("0.5"))


def write(directory: Path, tables: Mapping[str, tuple[pa.Table, Schema]], module: str, seed: int) -> None:
    """Write every table with its schema into a new directory, and where they come from."""
    directory.mkdir(parents=True)
    for name, (table, schema) in tables.items():
        typed = pa.table([table[column.name].cast(column.type) for column in schema.arrow()], schema=schema.arrow())
        pq.write_table(typed, directory / f"{name}.parquet", compression="zstd")
        text = json.dumps(json.loads(schema_bytes(schema)), indent=2, ensure_ascii=False)
        (directory / f"{name}.schema.json").write_text(text + "\n", encoding="utf-8")
    (directory / "PROVENANCE.md").write_text(PROVENANCE.format(module=module, seed=seed), encoding="utf-8")
