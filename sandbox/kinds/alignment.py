"""Which rows two parties share, computed in one piece or bucket by bucket; the part of ``psi`` that finds rows.

    split      keys of all rows, batch by batch -> digests, cut into buckets
    compute    one bucket: an engine finds its common rows
    gather     all buckets' rows, in the one sequence both sides have

Memory:   of one bucket, not of the table: keys are read and hashed in batches, digests lie in a private directory that
          goes with the computation (``psi.shards``), and a bucket's rows are kept sealed until the last is done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from sandbox.errors import ProtocolFailed
from sandbox.footprint import give_back
from sandbox.kinds.kind import Task, blaming
from sandbox.kinds.population import Words, person_digests
from sandbox.model import PartyRole, PsiEngine, PsiOutput, PsiSpec
from sandbox.psi import ecdh, ecdh_sm2, rr22
from sandbox.psi.contract import EVERYTHING, Bucket, Role, Terms
from sandbox.psi.keys import Digests, Positions
from sandbox.psi.shards import Shards, assemble

PART: Final = "part-"
_PEOPLE: Final = "people"
_PIECE: Final = 1 << 17  # digests
NAMES: Final = {
    PsiEngine.RR22: "rr22",
    PsiEngine.ECDH_X25519: "ecdh-x25519",
    PsiEngine.ECDH_SM2: "ecdh-sm2",
    PsiEngine.PREPARED_SM2: "prepared-sm2",
}
_ONE_SIDED: Final = (PsiOutput.MEMBERS,)


def split(task: Task) -> None:
    """Cut this party's keys into the job's buckets, in the directory that the buckets' workers share.

    Beside them it leaves the digests by which populations are sketched: so the keys are read once, not twice.
    """
    shards, first = Shards(task.scratch, task.salt, task.parts), 0
    with contextlib.ExitStack() as stack:
        people: BinaryIO | None = None
        for keys in task.key_batches():
            shards.add(keys, first)
            first += len(keys)
            if people is None:  # and not before: shards begin in an empty directory
                people = stack.enter_context((task.scratch / _PEOPLE).open("xb"))
            people.write(np.ascontiguousarray(person_digests(keys, task.population_key), "<u8").data)
    shards.close()


def people(task: Task) -> Iterator[Words]:
    """Yield the digests of this party's people in stored order, piece by piece."""
    kept = task.scratch / _PEOPLE
    if task.parts > 1 and kept.is_file():
        with kept.open("rb") as file:
            while len(some := np.fromfile(file, "<u8", _PIECE)):
                yield some.astype(np.uint64, copy=False)
        return
    for keys in task.key_batches():
        yield person_digests(keys, task.population_key)


def find(task: Task, spec: PsiSpec) -> Positions:
    """Return the common rows of the whole table, in one piece."""
    digests, rows = digests_of(task)
    give_back()  # what reading the keys took is more than the engine will
    found: Positions = rows[intersect(task, spec, digests, EVERYTHING, _other(task), task.rows)]
    return found


def find_part(task: Task, spec: PsiSpec) -> None:
    """Find one bucket's common rows and keep them."""
    shards = Shards(task.scratch, task.salt, task.parts)
    digests, rows = shards.load(task.part)
    give_back()
    found = rows[intersect(task, spec, digests, Bucket(task.part, task.parts), _other(task), task.rows)]
    task.keep(f"{PART}{task.part}", np.ascontiguousarray(found, "<i8").tobytes())  # the shard stays for another try


def gather(task: Task) -> Positions:
    """Return the common rows of all buckets."""
    kept = (task.artefact(task.plan.job_id, f"{PART}{number}") for number in range(task.parts))
    return assemble([np.frombuffer(part, "<i8") for part in kept])


def find_with_third(task: Task, spec: PsiSpec) -> Positions:
    """Return the rows that three parties share: what left and right share, intersected with the third's.

    Left and right so learn what the two of them share; the third learns only how many those are, and which of its own
    rows all three share.
    """
    left, right, third = (task.party(role) for role in (PartyRole.LEFT, PartyRole.RIGHT, PartyRole.THIRD))
    digests, rows = digests_of(task)
    if task.role is PartyRole.THIRD:
        shared = int.from_bytes(task.receive(left, "size"), "big")
        if shared > min(task.rows[left], task.rows[right]):
            raise ProtocolFailed("more rows are shared by two than either has", party=left, stage="compute")
        found: Positions = rows[intersect(task, spec, digests, EVERYTHING, left, {left: shared, third: len(rows)})]
        return found
    both = intersect(task, spec, digests, EVERYTHING, right if task.me == left else left, task.rows)
    if task.me == left:
        task.send(third, "size", len(both).to_bytes(8, "big"))
        counts = {left: len(both), third: task.rows[third]}
        all_three = intersect(task, spec, digests[both], EVERYTHING, third, counts)
        mask = np.zeros(len(both), np.bool_)
        mask[all_three] = True
        task.send(right, "held", np.packbits(mask).tobytes())
    else:
        packed = np.frombuffer(task.receive(left, "held"), np.uint8)
        if len(packed) != (len(both) + 7) // 8:
            raise ProtocolFailed("the rows of all three are told for others", party=left, stage="compute")
        mask = np.unpackbits(packed, count=len(both)).astype(np.bool_)
    kept: Positions = rows[both[mask]]
    return kept


def intersect(
    task: Task, spec: PsiSpec, digests: Digests, bucket: Bucket, peer: str, rows: Mapping[str, int]
) -> Positions:
    """Run the plan's engine with one peer; left is whoever comes first in the plan."""
    names = [party.node_id for party in task.plan.parties]
    first, second = sorted((task.me, peer), key=names.index)
    role = Role.LEFT if task.me == first else Role.RIGHT
    terms = Terms(bytes.fromhex(task.plan.job_id), task.salt, rows[first], rows[second])
    learner = Role.LEFT if spec.output in _ONE_SIDED else None

    def progress(done: float) -> None:
        task.progress(int(1000 * done), 1000)

    with blaming(peer):
        return _run(task, digests, role, terms, bucket, peer, learner, progress)


def _run(
    task: Task,
    digests: Digests,
    role: Role,
    terms: Terms,
    bucket: Bucket,
    peer: str,
    learner: Role | None,
    progress: Callable[[float], None],
) -> Positions:
    if task.plan.engine == NAMES[PsiEngine.RR22]:
        return rr22.intersect(
            digests,
            role,
            terms,
            bucket,
            task.workspace,
            peer=peer,
            deadline_s=task.deadline_s,
            learner=learner,
            on_progress=progress,
            stop=task.stopped(),
        )
    engine = ecdh_sm2 if task.plan.engine == NAMES[PsiEngine.ECDH_SM2] else ecdh
    found: Positions = engine.intersect(
        digests,
        role,
        terms,
        bucket,
        task.channel(peer),
        learner=learner,
        on_progress=progress,
        stop=task.stopped(),
    )
    return found


def digests_of(task: Task, salt: bytes = b"") -> tuple[Digests, Positions]:
    """Return the digests of all keys, and the row of each; for engines that take a table whole."""
    return _fill(task, Shards(Path(), salt or task.salt, 1)).load(0)


def _fill(task: Task, shards: Shards) -> Shards:
    first = 0
    for keys in task.key_batches():
        shards.add(keys, first)
        first += len(keys)
    shards.close()
    return shards


def _other(task: Task) -> str:
    return task.party(PartyRole.RIGHT if task.role is PartyRole.LEFT else PartyRole.LEFT)
