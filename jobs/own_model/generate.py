"""The rows that the two models read: loan applicants and whether they paid late. All of it is generated.

    python -m jobs.own_model.generate DIR [--seed 1]

Shapes:    one row an applicant.
Units:     yuan a month, yuan, months, years.
Security:  nobody is described: see the page that is written beside the files.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from jobs.generated import field, key_field, write
from sandbox.catalog.formats import KeyFormat
from sandbox.catalog.ids import made_up_ids
from sandbox.catalog.schema import FieldType, Grade, Schema

SEED: Final = 1
APPLICANTS: Final = 5000
SCHEMA: Final = Schema(
    fields=(
        key_field("id_no", "made-up identity number of the applicant", KeyFormat.ID_NUMBER),
        field("income", FieldType.INTEGER, "monthly income", "yuan"),
        field("debt", FieldType.INTEGER, "what the applicant owes already", "yuan"),
        field("months_insured", FieldType.INTEGER, "months with social insurance contributions", "month"),
        field("age", FieldType.INTEGER, "age", "year", grade=Grade.L2),
        field("late", FieldType.BOOLEAN, "whether an instalment was more than 90 days late"),
    ),
    key=("id_no",),
)


def generate(seed: int = SEED) -> pa.Table:
    """Return the applicants; the same seed, the same rows."""
    random = np.random.default_rng(seed)
    income = np.round(7000 * np.exp(0.5 * random.standard_normal(APPLICANTS))).astype(np.int64)
    debt = np.round(income * random.gamma(2.0, 4.0, APPLICANTS)).astype(np.int64)
    months = random.integers(0, 361, APPLICANTS)
    age = random.integers(20, 66, APPLICANTS)
    strain = 0.14 * debt / income - 0.008 * months - 0.9 * np.log(income / 7000) - 0.01 * (age - 40) - 1.6
    late = random.random(APPLICANTS) < 1 / (1 + np.exp(-strain))
    return pa.table(
        {
            "id_no": made_up_ids(APPLICANTS, seed),
            "income": income,
            "debt": debt,
            "months_insured": months,
            "age": age,
            "late": late,
        }
    )


def main(arguments: list[str]) -> int:
    """Write the file, its schema, and where it comes from."""
    parser = argparse.ArgumentParser(prog="jobs.own_model.generate", description="generated applicants")
    parser.add_argument("directory", type=Path, help="new directory for them")
    parser.add_argument("--seed", type=int, default=SEED)
    chosen = parser.parse_args(arguments)
    if chosen.directory.exists():
        parser.error(f"{chosen.directory} is there already; name a new directory")
    table = generate(chosen.seed)
    write(chosen.directory, {"applicants": (table, SCHEMA)}, "jobs.own_model.generate", chosen.seed)
    print(f"applicants: {table.num_rows} generated rows")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
