"""The rows of a bank and of a registry of marriages. All of it is generated.

    python -m jobs.marriage_check.generate DIR [--seed 1]

Shapes:    one row a couple. ``couples`` (the bank's): 120 that want a loan together, as they wrote themselves down.
           ``marriages`` (the registry's): 4000 that are in force. 84 of the couples are among them; of 20 both are
           married, to others; the other 16 are not married. The key of both is the husband's number, then the wife's.
Security:  nobody is described: see the page that is written beside the files.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from jobs.generated import SEED, field, key_field, run
from sandbox.catalog.formats import KeyFormat
from sandbox.catalog.ids import made_up_ids
from sandbox.catalog.schema import FieldType, Grade, Schema, Valid

COUPLES, MARRIAGES = 120, 4000
MARRIED: Final = 84  # of the couples
CROSSED: Final = 20  # of the couples: both are married, to others

_KEY: Final = (
    key_field("husband_id", "made-up identity number of the husband", KeyFormat.ID_NUMBER, masking="hash"),
    key_field("wife_id", "made-up identity number of the wife", KeyFormat.ID_NUMBER, masking="hash"),
)
SCHEMAS: Final = {
    "couples": Schema(
        fields=(
            *_KEY,
            field("amount", FieldType.INTEGER, "loan applied for", "yuan", masking="bin:100000", valid=Valid("10000")),
        ),
        key=("husband_id", "wife_id"),
    ),
    "marriages": Schema(
        fields=(
            *_KEY,
            field(
                "registered_on",
                FieldType.DATE,
                "day of the registration",
                masking="generalise:year",
                valid=Valid("1975-01-01", "2025-06-30"),
            ),
            field(
                "office",
                FieldType.STRING,
                "office that keeps the record",
                grade=Grade.L2,
                valid=Valid(values=("Harbour", "Hill", "River")),
            ),
        ),
        key=("husband_id", "wife_id"),
    ),
}


def generate(seed: int = SEED) -> dict[str, pa.Table]:
    """Return both owners' rows; the same seed, the same rows."""
    random = np.random.default_rng(seed)
    ids = made_up_ids(2 * (MARRIAGES + COUPLES), seed).to_pylist()
    married = [(ids[2 * n], ids[2 * n + 1]) for n in range(MARRIAGES)]
    crossed = [(married[n][0], married[n + 1][1]) for n in range(MARRIED, MARRIED + CROSSED)]
    single = [(ids[2 * n], ids[2 * n + 1]) for n in range(MARRIAGES, MARRIAGES + COUPLES - MARRIED - CROSSED)]
    # As people fill in forms: in groups of digits, and with a small x.
    asked: list[tuple[str, ...]] = [
        tuple(f"{i[:6]} {i[6:14]} {i[14:].lower()}" for i in couple) for couple in married[:MARRIED]
    ]
    couples, order = [*asked, *crossed, *single], random.permutation(MARRIAGES)
    days = random.integers(0, 18_000, MARRIAGES)
    marriages = {
        **_key(married),
        "registered_on": np.datetime64("2025-06-30") - days,
        "office": random.choice(["Harbour", "Hill", "River"], MARRIAGES).tolist(),
    }
    wanted = {**_key(couples), "amount": 10_000 * random.integers(5, 200, COUPLES)}
    return {
        "couples": pa.table(wanted).take(pa.array(random.permutation(COUPLES))),
        "marriages": pa.table(marriages).take(pa.array(order)),
    }


def main(arguments: list[str]) -> int:
    """Write the files of both owners."""
    return run(arguments, "jobs.marriage_check.generate", generate, SCHEMAS)


def _key(couples: Sequence[tuple[str, ...]]) -> dict[str, list[str]]:
    return {"husband_id": [couple[0] for couple in couples], "wife_id": [couple[1] for couple in couples]}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
