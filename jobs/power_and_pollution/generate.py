"""What two owners know of the electricity of pollution control, for one month. All of it is generated.

    python -m jobs.power_and_pollution.generate DIR [--seed 1]

Shapes:    one row a plant. ``metered`` (the power company's): 1200 whose purifiers have a meter of their own.
           ``monitored`` (the environment bureau's): 900 whose purifiers hang behind the plant's meter and carry a
           monitor of the bureau. No plant is at both. Some industries idle more than others.
Units:     kWh; hours of the month.
Security:  no plant is described: credit codes of region 990000, which does not exist.
"""

from __future__ import annotations

import sys
from typing import Final

import numpy as np
import pyarrow as pa

from jobs.generated import SEED, decimals, field, key_field, made_up_codes, run
from sandbox.catalog.formats import KeyFormat
from sandbox.catalog.schema import FieldType, Grade, Schema, Valid

PLANTS: Final = {"metered": 1200, "monitored": 900}
INDUSTRIES: Final = ("cement", "coating", "dyeing", "foundry")
IDLE: Final = (0.02, 0.06, 0.04, 0.03)  # of the hours, by industry
HOURS: Final = 744
MOST: Final = 200_000  # kWh a month
KEYS: Final = "credit codes are of region 990000, which does not exist, and all numbers"

_SCHEMA: Final = Schema(
    fields=(
        key_field("credit_code", "made-up credit code", KeyFormat.CREDIT_CODE, grade=Grade.L2, masking="hash"),
        field("industry", FieldType.STRING, "industry of the plant", grade=Grade.L1, valid=Valid(values=INDUSTRIES)),
        field(
            "purifier_kwh",
            FieldType.DECIMAL,
            "electricity of the pollution control equipment in the month",
            "kWh",
            masking="bin:10000",
            valid=Valid("0", str(MOST)),
            price="0.6",
        ),
        field(
            "idle_hours",
            FieldType.INTEGER,
            "hours in which the plant ran and its pollution control did not",
            "hour",
            masking="drop",
            valid=Valid("0", str(HOURS)),
            price="1",
        ),
    ),
    key=("credit_code",),
)
SCHEMAS: Final = dict.fromkeys(PLANTS, _SCHEMA)


def generate(seed: int = SEED) -> dict[str, pa.Table]:
    """Return both owners' rows; the same seed, the same rows."""
    random = np.random.default_rng(seed)
    codes = made_up_codes(sum(PLANTS.values()), random)
    tables, first = {}, 0
    for owner, count in PLANTS.items():
        industry = random.integers(0, len(INDUSTRIES), count)
        ran = random.integers(300, HOURS + 1, count)
        idle = np.minimum(random.exponential(np.array(IDLE)[industry] * ran), ran).astype(np.int64)
        load = np.clip(40 * np.exp(0.6 * random.standard_normal(count)), 2, MOST / HOURS)
        made = {
            "credit_code": codes[first : first + count],
            "industry": [INDUSTRIES[one] for one in industry.tolist()],
            "purifier_kwh": decimals(load * (ran - idle), 1),
            "idle_hours": idle,
        }
        tables[owner] = pa.table(made)
        first += count
    return tables


def main(arguments: list[str]) -> int:
    """Write the files of both owners."""
    return run(arguments, "jobs.power_and_pollution.generate", generate, SCHEMAS, KEYS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
