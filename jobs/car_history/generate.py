"""The rows of a dealer and of a vehicle administration. All of it is generated.

    python -m jobs.car_history.generate DIR [--seed 1]

Shapes:    one row a car. ``yard`` (the dealer's): 150 cars with what their clocks show. ``vehicles`` (on record): 6000,
           131 of the yard's among them, with mileage and accidents in bands. Of every tenth car on the yard the clock
           was turned back.
Units:     kilometres; yuan.
Security:  no car is described: a vehicle number that begins with 0 belongs to no region of the world (ISO 3780).
"""

from __future__ import annotations

import sys
from typing import Final

import numpy as np
import pyarrow as pa

from jobs.generated import SEED, field, key_field, run
from sandbox.catalog.ids import made_up_ids
from sandbox.catalog.schema import FieldType, Grade, Schema, Valid

YARD, VEHICLES = 150, 6000
ON_RECORD: Final = 131  # of the yard's
EDGES: Final = (50_000, 100_000, 150_000)  # kilometres
MILEAGES: Final = ("below 50000", "50000 to below 100000", "100000 to below 150000", "150000 and above")
ACCIDENTS: Final = ("none", "1 or 2", "3 and more")
KEYS: Final = (
    "identity numbers are of region 990000, which does not exist, vehicle numbers begin with 0, which\n"
    "no region of the world has, and all of them"
)

_LETTERS: Final = "0123456789ABCDEFGHJKLMNPRSTUVWXYZ"  # of a vehicle number: no I, O, Q
_PATTERN: Final = Valid(pattern="0AA[0-9A-HJ-NPR-Z]{14}")

SCHEMAS: Final = {
    "yard": Schema(
        fields=(
            key_field("vin", "made-up vehicle number", grade=Grade.L3, masking="mask:3,0", valid=_PATTERN),
            field("clock", FieldType.INTEGER, "kilometres that the clock shows", "km", grade=Grade.L2),
            field("asked", FieldType.INTEGER, "price that is asked", "yuan", grade=Grade.L2),
        ),
        key=("vin",),
    ),
    "vehicles": Schema(
        fields=(
            key_field("vehicle_number", "made-up vehicle number", grade=Grade.L3, masking="mask:3,0", valid=_PATTERN),
            field("first_registered", FieldType.DATE, "first day on the road", masking="generalise:year"),
            field(
                "mileage",
                FieldType.STRING,
                "kilometres at the last inspection, in bands",
                grade=Grade.L2,
                valid=Valid(values=MILEAGES),
                price="0.6",
            ),
            field(
                "accidents",
                FieldType.STRING,
                "accidents on record, in bands",
                valid=Valid(values=ACCIDENTS),
                price="1",
            ),
            field("keeper", FieldType.STRING, "made-up identity number of the keeper", grade=Grade.L4, masking="hash"),
        ),
        key=("vehicle_number",),
    ),
}


def generate(seed: int = SEED) -> dict[str, pa.Table]:
    """Return both owners' rows; the same seed, the same rows."""
    random = np.random.default_rng(seed)
    drawn = random.integers(0, len(_LETTERS), (2 * VEHICLES, 14))
    numbers = sorted({"0AA" + "".join(_LETTERS[one] for one in row) for row in drawn.tolist()})
    vins = random.permutation(numbers)[: VEHICLES + YARD]
    driven = np.minimum(random.gamma(2.5, 32_000, len(vins)), 400_000).astype(np.int64)
    crashes = np.searchsorted([1, 3], random.poisson(0.6, len(vins)), side="right")
    recorded = np.concatenate([np.arange(ON_RECORD), YARD + np.arange(VEHICLES - ON_RECORD)])
    clock = driven[:YARD] + random.integers(0, 4000, YARD)
    clock[::10] = clock[::10] // 2
    yard = {"vin": vins[:YARD].tolist(), "clock": clock, "asked": 1000 * random.integers(20, 300, YARD)}
    vehicles = {
        "vehicle_number": vins[recorded].tolist(),
        "first_registered": np.datetime64("2025-05-31") - random.integers(200, 5000, VEHICLES),
        "mileage": [MILEAGES[band] for band in np.searchsorted(EDGES, driven[recorded], side="right").tolist()],
        "accidents": [ACCIDENTS[band] for band in crashes[recorded].tolist()],
        "keeper": made_up_ids(VEHICLES, seed),
    }
    return {
        "yard": pa.table(yard).take(pa.array(random.permutation(YARD))),
        "vehicles": pa.table(vehicles).take(pa.array(random.permutation(VEHICLES))),
    }


def main(arguments: list[str]) -> int:
    """Write the files of both owners."""
    return run(arguments, "jobs.car_history.generate", generate, SCHEMAS, KEYS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
