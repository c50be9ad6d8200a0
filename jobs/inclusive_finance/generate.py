"""The rows of a bank and of three departments about the same self-employed people. All of it is generated.

    python -m jobs.inclusive_finance.generate DIR [--seed 1]

Shapes:    one row a person and owner. ``applicants`` (the bank's): 800 who want a loan for a small business.
           ``social``, ``housing`` and ``tax``: everybody the department knows, 500, 400 and 330 of the applicants among
           them, in the same columns, so that one application form and one document a job do for all three.
Units:     yuan; months.
Security:  nobody is described: see the page that is written beside the files.
"""

from __future__ import annotations

import sys
from typing import Final

import numpy as np
import pyarrow as pa

from jobs.generated import SEED, decimals, field, key_field, run
from sandbox.catalog.formats import KeyFormat
from sandbox.catalog.ids import made_up_ids
from sandbox.catalog.schema import FieldType, Grade, Schema, Valid

APPLICANTS: Final = 800
KNOWN: Final = {"social": (3000, 500), "housing": (2200, 400), "tax": (1800, 330)}  # rows, applicants among them
SECTORS: Final = ("retail", "catering", "repairs", "transport", "crafts")
MONTHS: Final = 24  # that are looked back on
MOST: Final = 60_000  # yuan a month

_ID: Final = key_field("id", "made-up identity number", KeyFormat.ID_NUMBER, masking="hash")
_REGISTER: Final = Schema(
    fields=(
        _ID,
        field(
            "monthly_base",
            FieldType.DECIMAL,
            "monthly amount that contributions or tax are reckoned from",
            "yuan",
            masking="bin:1000",
            valid=Valid("0", str(MOST)),
            price="0.8",
        ),
        field(
            "months_paid",
            FieldType.INTEGER,
            "months paid of the last 24",
            "month",
            masking="bin:6",
            valid=Valid("0", str(MONTHS)),
        ),
        field("since", FieldType.DATE, "first month on record", masking="generalise:year", valid=Valid("1990-01-01")),
    ),
    key=("id",),
)
SCHEMAS: Final = {
    "applicants": Schema(
        fields=(
            _ID,
            field(
                "turnover",
                FieldType.INTEGER,
                "yearly turnover of the business, as applied with",
                "yuan",
                masking="bin:100000",
                valid=Valid("0", "5000000"),
            ),
            field("sector", FieldType.STRING, "what the business does", grade=Grade.L2, valid=Valid(values=SECTORS)),
        ),
        key=("id",),
    ),
    **dict.fromkeys(KNOWN, _REGISTER),
}


def generate(seed: int = SEED) -> dict[str, pa.Table]:
    """Return every owner's rows; the same seed, the same rows."""
    random = np.random.default_rng(seed)
    others = max(rows for rows, _ in KNOWN.values())
    ids = made_up_ids(APPLICANTS + 2 * others, seed)
    turnover = np.clip(600_000 * np.exp(0.8 * random.standard_normal(APPLICANTS)), 20_000, 4_900_000)
    tables = {
        "applicants": pa.table(
            {
                "id": ids.slice(0, APPLICANTS),
                "turnover": np.round(turnover, -3).astype(np.int64),
                "sector": random.choice(SECTORS, APPLICANTS).tolist(),
            }
        )
    }
    for department, (rows, shared) in KNOWN.items():
        asked = random.permutation(APPLICANTS)[:shared]
        people = np.concatenate([asked, APPLICANTS + random.permutation(2 * others)[: rows - shared]])
        usual = 6000 * np.exp(0.4 * random.standard_normal(rows))
        usual[:shared] *= (turnover[asked] / 600_000) ** 0.3  # who sells more, earns more
        made = {
            "id": ids.take(pa.array(people)),
            "monthly_base": decimals(np.clip(usual, 1500, MOST)),
            "months_paid": MONTHS - np.minimum(random.geometric(0.4, rows) - 1, MONTHS),
            "since": np.datetime64("2024-06-01") - random.integers(0, 9000, rows),
        }
        tables[department] = pa.table(made).take(pa.array(random.permutation(rows)))
    return tables


def main(arguments: list[str]) -> int:
    """Write the files of all owners."""
    return run(arguments, "jobs.inclusive_finance.generate", generate, SCHEMAS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
