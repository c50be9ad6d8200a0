"""SM2 signatures through the adapter in use, beside other libraries (``sm2_adapters`` has every operation).

    python -m bench.sm2

Units:   microseconds of CPU time an operation, one thread, 1 KiB messages; best of several rounds.
"""

from __future__ import annotations

import argparse
from typing import Final

from bench.record import Figure, compared, record
from bench.sm2_adapters import measure as measure_adapters

OURS: Final = "libcrypto"


def measure(command: str) -> list[Figure]:
    """Compare signing and verifying with every library that is installed."""
    rates = measure_adapters()
    figures = []
    for operation in ("sign", "verify"):
        ours = 1e6 / rates[OURS][operation]
        others = [name for name in rates if name != OURS and operation in rates[name]]
        if not others:
            figures.append(Figure("sm2", operation, round(ours, 1), "µs", command))
        for name in others:
            case = f"{operation}, beside {name}"
            figures.append(compared("sm2", case, ours, name, 1e6 / rates[name][operation], "µs", command))
    return figures


def main(arguments: list[str] | None = None) -> None:
    """Measure and record."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(
        arguments
    )
    record(measure("python -m bench.sm2"))


if __name__ == "__main__":
    main()
