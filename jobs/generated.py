"""Files of examples whose rows were generated: the table, its schema, and a page that says so.

Security:  keys are nobody's: identity numbers and credit codes of region 990000, which does not exist. Credit codes
           have letters where those of twins have digits, so that no row of an example stands in a twin.
Not here:  what is in the rows; each example's ``generate`` makes them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sandbox.catalog.formats import KeyFormat
from sandbox.catalog.ids import UNASSIGNED_REGION
from sandbox.catalog.schema import Field, FieldType, Grade, Schema, Valid, schema_bytes

SEED: Final = 1
ANY: Final = Valid()
PEOPLE: Final = "identity numbers are of region 990000, which does not exist, and names and values"

PROVENANCE: Final = """# Where these files come from

**Every row was generated**, by `python -m {module} DIR --seed {seed}`. Nobody is described here:
{keys} come from a random generator; none was
taken from a record of anybody. The same seed gives the same rows.

Licence: Apache-2.0, as the rest of the project.
"""


# GB 32100-2015, of a credit code: the characters, and 3 to the power of a place modulo 31.
_CHARACTERS: Final = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_WEIGHTS: Final = tuple(pow(3, place, 31) for place in range(17))

Tables = Mapping[str, pa.Table]


def key_field(
    name: str,
    meaning: str,
    form: KeyFormat = KeyFormat.TEXT,
    *,
    grade: Grade = Grade.L4,
    masking: str = "drop",
    valid: Valid = ANY,
) -> Field:
    """Return a text column of a key."""
    return Field(name, FieldType.STRING, meaning, "", grade, masking, Decimal(1), form, valid=valid)


def field(
    name: str,
    type_: FieldType,
    meaning: str,
    unit: str = "",
    grade: Grade = Grade.L3,
    *,
    masking: str = "",
    valid: Valid = ANY,
    price: str = "0.5",
) -> Field:
    """Return any other column."""
    return Field(name, type_, meaning, unit, grade, masking, Decimal(price), valid=valid)


def run(
    arguments: Sequence[str],
    module: str,
    generate: Callable[[int], Tables],
    schemas: Mapping[str, Schema],
    keys: str = PEOPLE,
    seed: int = SEED,
) -> int:
    """Do what ``python -m MODULE DIR [--seed N]`` asks for: write every table of an example into a new directory."""
    parser = argparse.ArgumentParser(prog=module, description="generated rows of an example")
    parser.add_argument("directory", type=Path, help="new directory for them")
    parser.add_argument("--seed", type=int, default=seed)
    chosen = parser.parse_args(arguments)
    if chosen.directory.exists():
        parser.error(f"{chosen.directory} is there already; name a new directory")
    tables = generate(chosen.seed)
    write(chosen.directory, {name: (table, schemas[name]) for name, table in tables.items()}, module, chosen.seed, keys)
    for name, table in tables.items():
        print(f"{name}: {table.num_rows} generated rows")
    return 0


def write(
    directory: Path, tables: Mapping[str, tuple[pa.Table, Schema]], module: str, seed: int, keys: str = PEOPLE
) -> None:
    """Write every table with its schema into a new directory, and where they come from; ``keys``: whose they are."""
    directory.mkdir(parents=True)
    for name, (table, schema) in tables.items():
        typed = pa.table([table[column.name].cast(column.type) for column in schema.arrow()], schema=schema.arrow())
        pq.write_table(typed, directory / f"{name}.parquet", compression="zstd")
        text = json.dumps(json.loads(schema_bytes(schema)), indent=2, ensure_ascii=False)
        (directory / f"{name}.schema.json").write_text(text + "\n", encoding="utf-8")
    page = PROVENANCE.format(module=module, seed=seed, keys=keys)
    (directory / "PROVENANCE.md").write_text(page, encoding="utf-8")


def decimals(numbers: NDArray[np.float64], places: int = 2) -> pa.Array:
    """Return numbers as decimals, by way of text: a binary fraction is no decimal one."""
    return pa.array([f"{number:.{places}f}" for number in numbers.tolist()]).cast(pa.decimal128(38, 10))


def made_up_codes(count: int, random: np.random.Generator) -> list[str]:
    """Return different credit codes with valid check characters that no organisation has."""
    bodies = [f"91{UNASSIGNED_REGION}MA{number:06d}X" for number in random.permutation(1_000_000)[:count].tolist()]
    sums = [sum(_CHARACTERS.index(one) * weight for one, weight in zip(b, _WEIGHTS, strict=True)) for b in bodies]
    return [body + _CHARACTERS[-total % 31] for body, total in zip(bodies, sums, strict=True)]
