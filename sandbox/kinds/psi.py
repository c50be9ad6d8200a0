"""Which people do two datasets share? The alignment stays at both nodes, sealed, for later jobs of the scenario.

    left                        right
    keys, salt    <--- PSI ---> keys, salt
    alignment                   alignment          same people, same sequence, positions into one's own rows

Reveals:  to both data owners: which of their own rows the other side has too, and the other side's row count.
          To the recipient: the rounded count, if it is not below the minimum.
          The protocol itself reveals, so the gate runs before the first round; a small intersection can then no
          longer be hidden from the two owners, only from the recipient.
Output:   {"aligned": rows, rounded}
Artefact: "alignment": little-endian int64 positions.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sandbox.errors import InvalidSpec
from sandbox.kinds.kind import Kind, Task
from sandbox.model import JobSpec, OutputClass, PartyRole, Plan, PsiEngine, PsiSpec, RawResult, Reveal
from sandbox.psi import ecdh, ecdh_sm2, rr22
from sandbox.psi.buckets import plan_buckets
from sandbox.psi.contract import Role, Terms

ALIGNMENT = "alignment"
_NAMES = {PsiEngine.RR22: "rr22", PsiEngine.ECDH_X25519: "ecdh-x25519", PsiEngine.ECDH_SM2: "ecdh-sm2"}
_AUTO = ("rr22", "ecdh-x25519")  # an engine under national algorithms is asked for by name


def compute(task: Task) -> RawResult:
    """Intersect, keep the positions, and report how many."""
    left, right = task.party(PartyRole.LEFT), task.party(PartyRole.RIGHT)
    role, peer = (Role.LEFT, right) if task.role is PartyRole.LEFT else (Role.RIGHT, left)
    buckets = plan_buckets(task.rows[left], task.rows[right])

    def bucket_done(done: float) -> None:
        task.progress(int(1000 * done), 1000)
        if buckets > 1:  # the next engine must not reach the one of this bucket on its way out
            task.send(peer, "bucket", b"")
            task.receive(peer, "bucket")

    terms = Terms(bytes.fromhex(task.plan.job_id), task.salt, task.rows[left], task.rows[right])
    keys = task.keys()
    if task.plan.engine == _NAMES[PsiEngine.RR22]:
        positions = rr22.intersect(
            keys,
            role,
            terms,
            task.workspace,
            peer=peer,
            deadline_s=task.deadline_s,
            on_progress=bucket_done,
            stop=task.stopped(),
        )
    else:
        intersect = ecdh_sm2.intersect if task.plan.engine == _NAMES[PsiEngine.ECDH_SM2] else ecdh.intersect
        positions = intersect(
            keys,
            role,
            terms,
            task.channel(peer),
            on_progress=lambda done: task.progress(int(1000 * done), 1000),
            stop=task.stopped(),
        )
    task.keep(ALIGNMENT, np.ascontiguousarray(positions, "<i8").tobytes())
    count = len(positions)
    return RawResult({"group.aligned": count}, {"aligned": float(count)}, {})


def finish(task: Task) -> RawResult:
    """Nothing more arrives: the alignment is complete when the protocol is."""
    raise InvalidSpec("psi has no second stage")


def engines(spec: JobSpec) -> tuple[str, ...]:
    """Return the engine asked for, or all, best first."""
    wanted = spec.kind.engine if isinstance(spec.kind, PsiSpec) else PsiEngine.AUTO
    return _AUTO if wanted is PsiEngine.AUTO else (_NAMES[wanted],)


def reveals(spec: JobSpec, parties: Mapping[PartyRole, str], engine: str) -> tuple[Reveal, ...]:
    """Say who learns what."""
    told = (
        "which of its own rows the other side has too, and the other side's row count; "
        "a small overlap cannot be hidden afterwards"
    )
    told_zh = "本方哪些行对方也有，以及对方行数；若交集很小，事后无法隐藏"
    return (
        Reveal(parties[PartyRole.LEFT], told, told_zh),
        Reveal(parties[PartyRole.RIGHT], told, told_zh),
        Reveal(
            "recipient",
            "the number of shared rows, rounded, unless below the minimum",
            "共有行数（取整；低于下限则不出域）",
        ),
    )


def shares(plan: Plan) -> Mapping[str, tuple[str, ...]]:
    """Return that no shares are exchanged after the grants."""
    return {}


KIND = Kind(
    outputs={"aligned": OutputClass.AGGREGATE},
    lasting=frozenset({ALIGNMENT}),
    reveals_in_protocol=True,
    engines=engines,
    reveals=reveals,
    shares=shares,
    compute=compute,
    finish=finish,
)
