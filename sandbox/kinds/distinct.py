"""How many different people jobs were about, all together: sketches that are exact for few, and small for many.

    sketch = a bound | every digest of a person below it       at most 4096: of more, the 4096 smallest, and the next
                                                               one is the bound
    merge  = both sides' digests below the smaller bound       who is in both counts once

Source:   Bar-Yossef, Jayram, Kumar, Sivakumar and Trevisan, "Counting distinct elements in a data stream", RANDOM 2002;
          with a bound that is kept, Dasgupta, Lang, Rhodes and Thaler, "A framework for estimating the number of
          distinct elements", ICDT 2016. The analysis asks for pairwise independent hashing, which ``psi.keys`` is.
Security: digests are those of ``kinds.population``, under the node's own secret. A sketch never leaves its node: who
          has it and the secret can tell of a name whether it is among the 4096.
Units:    exact up to 4096 people; beyond, ``most`` is 5 % above the number on average, at most 10 %, and below it about
          once in a thousand counts. At most 32 KiB. A million digests take 20 ms, merging two sketches 1 ms.
Errors:   ``InvalidSpec`` on bytes that are no sketch.
Not here: what is counted against which quota (``policy.people``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sandbox.errors import InvalidSpec
from sandbox.kinds.kind import Task
from sandbox.model import AggregateSpec, ApplicantScore, PartyRole, PsiSpec, RawResult, ScoreSpec, TrainSpec
from sandbox.psi.keys import digest

EXACT: Final = 4096  # people
DEVIATIONS: Final = 3.0  # by which ``most`` lies above what is expected
ALIGNED: Final = "positions"  # the artefact of a training with the rows that it is about
_UNBOUNDED: Final = (1 << 64) - 1

Words = npt.NDArray[np.uint64]


class Crowd:
    """People that are still being read."""

    def __init__(self) -> None:
        self._bound, self._kept = _UNBOUNDED, np.empty(0, np.uint64)

    def add(self, digests: Words) -> None:
        """Add people by their digests; who comes again changes nothing."""
        self._take(digests, self._bound)

    def merge(self, sketch: bytes) -> None:
        """Add the people of a sketch."""
        if sketch:
            found = _words(sketch)
            self._take(found[1:], min(self._bound, int(found[0])))

    def done(self) -> bytes:
        """Return the sketch; of nobody, nothing."""
        if not len(self._kept) and self._bound == _UNBOUNDED:
            return b""
        return self._bound.to_bytes(8, "little") + self._kept.astype("<u8").tobytes()

    def _take(self, digests: Words, bound: int) -> None:
        both = np.concatenate([self._kept, digests])
        if bound < _UNBOUNDED:
            both = both[both < np.uint64(bound)]
        if len(both) > 4 * EXACT:  # only to have less to sort: whoever is among the smallest stays
            smallest = np.unique(np.partition(both, 2 * EXACT)[: 2 * EXACT])
            both = smallest if len(smallest) > EXACT else both
        both = np.unique(both)
        if len(both) > EXACT:
            bound, both = int(both[EXACT]), both[:EXACT]
        self._bound, self._kept = bound, both


def merged(sketches: Iterable[bytes]) -> bytes:
    """Return the sketch of everybody who is in at least one of some."""
    crowd = Crowd()
    for sketch in dict.fromkeys(sketches):
        crowd.merge(sketch)
    return crowd.done()


def most(sketch: bytes) -> int:
    """Return how many people there are: exactly, if few; of many, more than are likely to be there."""
    if not sketch:
        return 0
    found = _words(sketch)
    kept, bound = len(found) - 1, int(found[0])
    if bound == _UNBOUNDED:
        return kept
    share = bound / 2.0**64  # each of the people is below the bound with this probability
    spread = DEVIATIONS * math.sqrt(1 - share)
    root = (spread + math.sqrt(spread * spread + 4 * kept)) / 2
    return math.ceil(root * root / share)


def counted(task: Task, done: RawResult) -> RawResult:
    """Return what a stage leaves together with the people of this owner it is about, as far as it knows them.

    Numbers that leave come with whom they are about (``kinds.population``); the rest is known from the alignment, or
    all rows are taken. Where a party is not told which of its rows are shared, they are ``unknown``: as many as it
    found itself, or, where it would have to believe the other side, as the smallest of the sets.
    """
    known, unknown = Crowd(), 0
    exact = [one for one in done.populations if not one.is_whole]
    if exact:
        known.merge(merged(one.people for one in exact))
    elif done.populations:
        whole = done.populations[0]
        if isinstance(task.spec.kind, PsiSpec) and whole.size != whole.rows:
            owners = [party.node_id for party in task.plan.parties if party.dataset is not None]
            found = whole.size if task.role is PartyRole.LEFT else _UNBOUNDED
            unknown = min(found, *(task.rows[party] for party in owners))
        else:
            known.merge(whole.people)
    else:
        for keys in _keys(task, done):
            known.add(digest(keys, task.population_key)[:, 0])
    return replace(done, people=known.done(), unknown=unknown)


def _keys(task: Task, done: RawResult) -> Iterable[pa.Array]:
    """Yield the keys a job without populations is about."""
    spec = task.spec.kind
    if task.role is PartyRole.COMPUTE or not task.rows.get(task.me):
        return
    if isinstance(spec, TrainSpec | ScoreSpec):
        if isinstance(spec, ScoreSpec) and isinstance(spec.subject, ApplicantScore):
            if done.gate_inputs.get("rows"):
                yield pa.array([task.subject], pa.string())
            return
        # Of a batch over the held-out, everybody aligned: when the model was trained, they were counted already.
        source = task.plan.job_id if isinstance(spec, TrainSpec) else spec.model
        yield task.keys().take(pa.array(np.frombuffer(task.artefact(source, ALIGNED), "<i8")))
    elif isinstance(spec, AggregateSpec):
        yield from task.key_batches()


def _words(sketch: bytes) -> Words:
    if len(sketch) % 8 or not 8 <= len(sketch) <= 8 * (EXACT + 1):
        raise InvalidSpec("a sketch of people has another size")
    return np.frombuffer(sketch, "<u8").astype(np.uint64)
