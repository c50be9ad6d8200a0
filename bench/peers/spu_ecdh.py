"""``spu``'s ECDH intersection on a curve of its own, bare: what ``bench.psi_bare`` is for RR22.

    python -m bench.peers.spu_ecdh CURVE_SM2 --rows 100000 [--inputs FOLDER]

Needs ``spu``, numpy and pyarrow, and nothing of this repository but ``bench.psi_bare``. On the SM2 curve only releases
before 0.10 get through (``spu.txt``).
"""

from __future__ import annotations

import sys

from bench import psi_bare


def main() -> None:
    """Run both sides on the curve named first."""
    if len(sys.argv) < 2 or not sys.argv[1].startswith("CURVE_"):
        raise SystemExit(__doc__)
    psi_bare.main(sys.argv[2:], curve=sys.argv[1])


if __name__ == "__main__":
    main()
