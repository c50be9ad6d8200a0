"""The cases of ``bench.psi``: what is intersected, how, beside whom, and what we want of it.

Units:   ratios are our time over the peer's, so less is better; peaks in GiB of the node that needs most.
Shapes:  ``rows`` ids a side, or ``rows`` at the left and ``right_rows`` at the right; half of the left's are common.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from sandbox.model import PsiEngine, PsiOutput


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table, or one a peer."""

    rows: int
    at_most: Mapping[str, float]  # peer -> the largest ratio we want
    gib: float | None = None  # peak memory we want at most
    seconds: float | None = None  # where there is no peer
    right_rows: int = 0
    engine: PsiEngine = PsiEngine.AUTO
    uses: str = "rr22"  # what the plan must say
    output: PsiOutput = PsiOutput.ALIGNED
    settings: Mapping[str, str | int] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    runs: int = 5
    peer_runs: Mapping[str, int] = field(default_factory=dict)  # fewer than ours, where the peer takes long
    takes_long: bool = False


CASES: Final[Mapping[str, Case]] = {
    "1e5": Case(100_000, {"spu": 2.0, "openmined-psi": 1 / 15}, 0.5, peer_runs={"openmined-psi": 2}),
    "1e6": Case(1_000_000, {"spu": 1.2, "openmined-psi": 1 / 25}, 0.9, peer_runs={"openmined-psi": 1}),
    "1e7-tls": Case(10_000_000, {"spu": 1.0}, 1.0, settings={"seal": "tls"}, runs=2, takes_long=True),
    "1e7-sm4": Case(10_000_000, {"spu": 1.15}, 1.0, settings={"seal": "sm4"}, runs=2, takes_long=True),
    "unbalanced 1e3 x 1e6, prepared": Case(
        1_000,
        {},
        seconds=1.0,
        right_rows=1_000_000,
        engine=PsiEngine.PREPARED_SM2,
        uses="prepared-sm2",
        output=PsiOutput.MEMBERS,
    ),
    "sm2-1e5": Case(
        100_000,
        {"spu-sm2": 1 / 50},
        0.4,
        engine=PsiEngine.ECDH_SM2,
        uses="ecdh-sm2",
        peer_runs={"spu-sm2": 1},
        takes_long=True,
    ),
    "sm2-1e6": Case(
        1_000_000,
        {"spu-25519": 1.0},
        0.7,
        engine=PsiEngine.ECDH_SM2,
        uses="ecdh-sm2",
        runs=3,
    ),
    "sm2-1e5, portable C": Case(
        100_000,
        {"spu-sm2": 1 / 8},
        engine=PsiEngine.ECDH_SM2,
        uses="ecdh-sm2",
        environment={"SANDBOX_SM2CURVE": "portable"},
        runs=2,
        peer_runs={"spu-sm2": 1},
        takes_long=True,
    ),
}


def is_current(case: str) -> bool:
    """Whether a recorded case is one of these, or belongs to one: "1e6 beside ...", "1e6: ..."."""
    return any(case == name or case.startswith((f"{name} beside ", f"{name}: ")) for name in (*CASES, "scale"))
