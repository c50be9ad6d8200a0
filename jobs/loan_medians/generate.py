"""The rows of a bank and of a social insurance bureau about the same self-employed people. All of it is generated.

    python -m jobs.loan_medians.generate DIR [--seed 2]

Shapes:    one row a person and owner: ``applicants`` (the bank's, 800) and ``social`` (3000, 500 applicants among
           them), drawn as in ``jobs.inclusive_finance``, from a seed of their own: a node registers no rows twice.
Security:  nobody is described: see the page that is written beside the files.
"""

from __future__ import annotations

import sys
from typing import Final

import pyarrow as pa

from jobs.generated import run
from jobs.inclusive_finance import generate as whole

SEED: Final = 2
SCHEMAS: Final = {name: whole.SCHEMAS[name] for name in ("applicants", "social")}


def generate(seed: int = SEED) -> dict[str, pa.Table]:
    """Return both owners' rows; the same seed, the same rows."""
    tables = whole.generate(seed)
    return {name: tables[name] for name in SCHEMAS}


def main(arguments: list[str]) -> int:
    """Write the files of both owners."""
    return run(arguments, "jobs.loan_medians.generate", generate, SCHEMAS, seed=SEED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
