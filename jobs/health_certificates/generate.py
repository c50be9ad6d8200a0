"""The rows of a platform and of a health commission. All of it is generated.

    python -m jobs.health_certificates.generate DIR [--seed 1]

Shapes:    one row a person. ``couriers`` (the platform's): 400 who carry meals. ``certificates`` (the commission's):
           the last one of each of 5000 people, 290 of the couriers among them; some of those have run out, some are for
           another trade.
Security:  nobody is described: see the page that is written beside the files.
"""

from __future__ import annotations

import sys
from typing import Final

import numpy as np
import pyarrow as pa

from jobs.generated import SEED, field, key_field, run
from sandbox.catalog.formats import KeyFormat
from sandbox.catalog.ids import made_up_ids
from sandbox.catalog.schema import FieldType, Grade, Schema, Valid

COURIERS, CERTIFICATES = 400, 5000
HELD: Final = 290  # couriers with a certificate
KINDS: Final = ("food", "public place", "cosmetics")
TODAY: Final = np.datetime64("2025-06-30")
VALID_DAYS: Final = 365

SCHEMAS: Final = {
    "couriers": Schema(
        fields=(
            key_field("worker_id", "made-up identity number of the courier", KeyFormat.ID_NUMBER, masking="hash"),
            field(
                "joined_on",
                FieldType.DATE,
                "first day on the platform",
                masking="generalise:month",
                valid=Valid("2020-01-01", "2025-06-30"),
            ),
        ),
        key=("worker_id",),
    ),
    "certificates": Schema(
        fields=(
            key_field("holder_id", "made-up identity number of the holder", KeyFormat.ID_NUMBER, masking="hash"),
            field("kind", FieldType.STRING, "trade that it is for", grade=Grade.L2, valid=Valid(values=KINDS)),
            field(
                "valid_until",
                FieldType.DATE,
                "last day on which it counts",
                masking="generalise:month",
                valid=Valid("2023-01-01", "2026-12-31"),
                price="0.6",
            ),
            # Whoever asks for certificates has no use for it: no scenario of this folder names it.
            field("finding", FieldType.STRING, "remark of the examining doctor", grade=Grade.L4, masking="drop"),
        ),
        key=("holder_id",),
    ),
}


def generate(seed: int = SEED) -> dict[str, pa.Table]:
    """Return both owners' rows; the same seed, the same rows."""
    random = np.random.default_rng(seed)
    ids = made_up_ids(COURIERS + CERTIFICATES, seed)
    holders = np.concatenate([np.arange(HELD), COURIERS + np.arange(CERTIFICATES - HELD)])
    couriers = {"worker_id": ids.slice(0, COURIERS), "joined_on": TODAY - random.integers(5, 1500, COURIERS)}
    certificates = {
        "holder_id": ids.take(pa.array(holders)),
        "kind": random.choice(KINDS, CERTIFICATES, p=[0.7, 0.2, 0.1]).tolist(),
        "valid_until": TODAY + VALID_DAYS - random.integers(0, 500, CERTIFICATES),
        "finding": random.choice(["nothing to remark", "come again for a second test"], CERTIFICATES).tolist(),
    }
    return {
        "couriers": pa.table(couriers).take(pa.array(random.permutation(COURIERS))),
        "certificates": pa.table(certificates).take(pa.array(random.permutation(CERTIFICATES))),
    }


def main(arguments: list[str]) -> int:
    """Write the files of both owners."""
    return run(arguments, "jobs.health_certificates.generate", generate, SCHEMAS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
