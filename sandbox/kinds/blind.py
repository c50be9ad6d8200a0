"""How many rows two parties share, and totals of the right's columns over them, without either learning which rows.

    left                                    right (key holder)
    matching under two shuffles   <----->   a ciphertext for every row, in a random sequence    ``psi.loads``
    adds up the common ones, masks -------> decrypts: its share
                                  <-------  after all grants

Stops before anything is decrypted, and before any ciphertext is sent, if fewer rows are common than the minimum.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from sandbox.errors import InvalidSpec, ProtocolFailed
from sandbox.kinds import cells, dominance, sealed
from sandbox.kinds.alignment import digests_of
from sandbox.kinds.cells import Shape
from sandbox.kinds.kind import Task, blaming
from sandbox.model import PartyRole, PsiSpec, Scenario, Statistic
from sandbox.mpc.packing import Layout
from sandbox.mpc.paillier import KEY_BITS, PrivateKey, PublicKey
from sandbox.psi.contract import Role, Terms
from sandbox.psi.counting import count
from sandbox.psi.loads import collect_loads, send_loads

BITS: Final = KEY_BITS[0]
_ALLOWED: Final = (Statistic.SUM, Statistic.MEAN)


def shape(spec: PsiSpec, scenario: Scenario) -> Shape:
    """Return the table of one line that a job asks for."""
    if not spec.measures:
        raise InvalidSpec(tell="psi.measures: name at least one sum or mean")
    if any(measure.statistic not in _ALLOWED for measure in spec.measures):
        raise InvalidSpec(tell="psi.measures: an intersection gives sums and means")
    return cells.shape((), spec.measures, scenario)


def find_size(task: Task) -> int:
    """Return the size; the right hears it from the left, for its gate."""
    left, right = task.party(PartyRole.LEFT), task.party(PartyRole.RIGHT)
    digests, _ = digests_of(task)
    terms = Terms(bytes.fromhex(task.plan.job_id), task.salt, task.rows[left], task.rows[right])
    role, peer = (Role.LEFT, right) if task.me == left else (Role.RIGHT, left)
    with blaming(peer):
        size = count(
            digests,
            role,
            terms,
            task.channel(peer),
            on_progress=lambda done: task.progress(int(1000 * done), 1000),
            stop=task.stopped(),
            scratch=task.workspace.path,
            threads=task.cores,
        )
    return told_size(task, size)


def told_size(task: Task, size: int | None) -> int:
    """Return how many rows are common, at both sides: the one that found out tells the other."""
    left, right = task.party(PartyRole.LEFT), task.party(PartyRole.RIGHT)
    if task.me == left:
        if size is None:
            raise ProtocolFailed("the size is not known where it should be")
        task.send(right, "size", size.to_bytes(8, "big"))
        return size
    size = int.from_bytes(task.receive(left, "size"), "big")
    if size > min(task.rows[left], task.rows[right]):
        raise ProtocolFailed("more rows are common than there are", party=left, stage="compute")
    return size


def find_sums(task: Task, spec: PsiSpec) -> tuple[int, dict[str, int]]:
    """Return the size and what this side's gate judges, and leave both sides' shares of the totals.

    How many of the common rows have a measured column nobody knows before the totals are opened: the right has its gate
    judge the least there can be, as if all its missing values were in common rows. Nor does anybody know which values
    are: whether one stands out, the right guesses (``dominance.guessed``).
    """
    made = shape(spec, task.scenario)
    layout = sealed.row_layout(made, min(task.rows.values()), BITS)
    minimum = max(1, *(rule.min_group for rule in task.plan.outputs))
    if task.role is PartyRole.LEFT:
        size = _collect(task, layout, minimum)
        return size, {}
    return _send(task, made, layout, minimum)


def _collect(task: Task, layout: Layout, minimum: int) -> int:
    right = task.party(PartyRole.RIGHT)
    key = sealed.take_key(task, right, BITS)
    total = b""

    def take(loads: bytes) -> None:
        nonlocal total
        groups = np.tile(np.arange(layout.parts, dtype=np.int32), len(loads) // (2 * key.size * layout.parts))
        part = key.grouped_sums(loads, groups, layout.parts, threads=task.cores, fresh=False)
        total = key.add(total, part, fresh=False) if total else part

    digests, _ = digests_of(task)
    with blaming(right):
        size = collect_loads(
            digests,
            _terms(task),
            task.channel(right),
            load_size=2 * key.size * layout.parts,
            minimum=minimum,
            take=take,
            on_progress=lambda done: task.progress(int(1000 * done), 1000),
            stop=task.stopped(),
            scratch=task.workspace.path,
            threads=task.cores,
        )
    hidden, hiding = sealed.hide(key, total)
    task.send(right, "masked", hidden)
    task.keep("hiding", hiding)
    task.keep("key", key.to_bytes())
    return told_size(task, size)


def _send(task: Task, made: Shape, layout: Layout, minimum: int) -> tuple[int, dict[str, int]]:
    left = task.party(PartyRole.LEFT)
    digests, rows = digests_of(task)
    values, present = cells.prepare(task.table(task.fields), made.wanted)
    added = sealed.rows_of(values, present)[rows]
    with PrivateKey.from_bytes(task.paillier_key) as key:
        task.send(left, "key", key.public.to_bytes())
        with blaming(left):
            send_loads(
                digests,
                _terms(task),
                task.channel(left),
                load_size=2 * key.public.size * layout.parts,
                minimum=minimum,
                make=lambda places: key.encrypt(layout.pack(added[places]), threads=task.cores),
                on_progress=lambda done: task.progress(int(1000 * done), 1000),
                stop=task.stopped(),
                scratch=task.workspace.path,
                threads=task.cores,
            )
        masked = sealed.checked(key.public, task.receive(left, "masked"), layout.parts, left)
        task.keep(f"share-for-{left}", key.decrypt(masked))
    size = told_size(task, None)
    judged = {f"group.sealed.{place}": size - int((~mask).sum()) for place, mask in enumerate(present)}
    return size, judged | dominance.guessed(dominance.names(made), dominance.amounts(made, values), size)


def open_sums(task: Task, spec: PsiSpec, size: int) -> tuple[list[list[int]], list[list[int]]]:
    """Return, at the left, the numbers of rows with each column, and the sums."""
    made = shape(spec, task.scenario)
    layout = sealed.row_layout(made, min(task.rows.values()), BITS)
    right = task.party(PartyRole.RIGHT)
    key = PublicKey.from_bytes(task.artefact(task.plan.job_id, "key"))
    hiding, masked = (task.artefact(task.plan.job_id, name) for name in ("hiding", f"share-from-{right}"))
    plain = sealed.join(key, masked, hiding, right)
    opened = sealed.opened(layout, plain, size, 1, right)
    return opened[len(made.bounds) :], opened[: len(made.bounds)]


def _terms(task: Task) -> Terms:
    left, right = task.party(PartyRole.LEFT), task.party(PartyRole.RIGHT)
    return Terms(bytes.fromhex(task.plan.job_id), task.salt, task.rows[left], task.rows[right])
