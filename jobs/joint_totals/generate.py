"""The rows of three departments: what people paid to each of them last year, and how late. All of it is generated.

    python -m jobs.joint_totals.generate DIR [--seed 1]

Shapes:    one row a person and department. Most people are at all three departments, each with an income, a payment and
           a delay of its own. Some payments are not known yet; some districts are not one of the four.
Units:     yuan with two places; months.
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
PEOPLE: Final = 6000
DISTRICTS: Final = ("Lakeside", "Old Town", "Northbank", "Hillfoot")
SHARES: Final = (0.36, 0.28, 0.2, 0.15)  # of the people; the rest live elsewhere
# Department -> share of the people it knows, and of the income that it gets.
DEPARTMENTS: Final = {"social": (0.9, 0.105), "housing": (0.6, 0.12), "tax": (0.75, 0.04)}
UNKNOWN: Final = 0.05  # of the payments
SCHEMA: Final = Schema(
    fields=(
        key_field("id", "made-up identity number of the payer", KeyFormat.ID_NUMBER),
        field("district", FieldType.STRING, "where the payer lives", grade=Grade.L2),
        field("monthly_income", FieldType.DECIMAL, "monthly income that payments are reckoned from", "yuan"),
        field("paid", FieldType.DECIMAL, "paid to this department last year; missing where not settled", "yuan"),
        field("months_late", FieldType.INTEGER, "months behind with payments", "month"),
    ),
    key=("id",),
)


def generate(seed: int = SEED) -> dict[str, pa.Table]:
    """Return every department's rows; the same seed, the same rows."""
    random = np.random.default_rng(seed)
    ids = made_up_ids(PEOPLE, seed)
    lives = random.choice(len(DISTRICTS) + 1, PEOPLE, p=(*SHARES, 1 - sum(SHARES)))
    names = np.array((*DISTRICTS, "elsewhere"), dtype=object)
    usual = 7000 * np.exp(0.55 * random.standard_normal(PEOPLE)) * (1 + 0.12 * (lives == 0))
    tables = {}
    for department, (known, part) in DEPARTMENTS.items():
        people = np.flatnonzero(random.random(PEOPLE) < known)
        random.shuffle(people)
        income = np.clip(usual[people] * np.exp(0.08 * random.standard_normal(len(people))), 800, 90_000)
        late = np.minimum(random.geometric(0.55, len(people)) - 1, 24)
        paid = 12 * part * income * (1 - np.minimum(late, 12) / 12) * np.exp(0.05 * random.standard_normal(len(people)))
        tables[department] = pa.table(
            {
                "id": ids.take(pa.array(people)),
                "district": pa.array(names[lives[people]], pa.string()),
                "monthly_income": _yuan(income),
                "paid": _yuan(paid, random.random(len(people)) < UNKNOWN),
                "months_late": pa.array(late, pa.int64()),
            }
        )
    return tables


def main(arguments: list[str]) -> int:
    """Write the files of all departments."""
    parser = argparse.ArgumentParser(prog="jobs.joint_totals.generate", description="generated rows of 3 departments")
    parser.add_argument("directory", type=Path, help="new directory for them")
    parser.add_argument("--seed", type=int, default=SEED)
    chosen = parser.parse_args(arguments)
    if chosen.directory.exists():
        parser.error(f"{chosen.directory} is there already; name a new directory")
    tables = {name: (table, SCHEMA) for name, table in generate(chosen.seed).items()}
    write(chosen.directory, tables, "jobs.joint_totals.generate", chosen.seed)
    for name, (table, _) in tables.items():
        print(f"{name}: {table.num_rows} generated rows")
    return 0


def _yuan(amounts: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
    """Return amounts as decimals with two places, by way of text: a binary fraction is no decimal one."""
    written = [f"{amount:.2f}" for amount in amounts.tolist()]
    return pa.array(written, mask=missing).cast(pa.decimal128(38, 10))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
