"""Which engines can run at this node, by the names plans use."""

from __future__ import annotations

from collections.abc import Mapping

from sandbox.workspace import engines

_NAMES = {
    "rr22": "psi.rr22",
    "ecdh-x25519": "psi.ecdh",
    "ecdh-sm2": "psi.ecdh",
    "prepared-sm2": "psi.ecdh",
    "count-sm2": "psi.ecdh",
    "loads-sm2": "psi.ecdh",
    "aby3": "mpc.aby3",
    "partial-sums": "mpc.scorecard",
}


def available() -> Mapping[str, str]:
    """Return every engine with an empty text, or with why it cannot run here."""
    found = engines.engines()
    ours = {name: "" if found[inner] == engines.READY else found[inner] for name, inner in _NAMES.items()}
    return {**ours, "paillier": ""}
