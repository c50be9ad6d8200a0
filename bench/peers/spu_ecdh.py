"""``spu``'s ECDH intersection on a curve of its own, bare: what ``bench.psi_bare`` is for RR22.

    python -m bench.peers.spu_ecdh CURVE_SM2 --rows 100000 [--inputs FOLDER]

Runs where this repository is installed with the extra ``fast``: it is the release that our RR22 engine uses too.
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
