"""Whose letters an owner will ask for, where rows about many people leave on letters that another party holds.

    worker   draw ── artefact DRAWN, sealed at this owner ── after the release: ``sandbox.letters``

Source:    as many as the scenario's ``sample_permille`` of the people, rounded up; at least 1, at most ``MOST``.
Security:  drawn from the operating system's randomness, where the rows are, and kept under a key of its own until the
           job is released; the party that holds the letters learns of it only then, and cannot have known before. Who
           was drawn for a job that is not released is destroyed with the job's other artefacts.
Not here:  ``members`` of an intersection: there the owner does not learn which of its people are among them.
"""

from __future__ import annotations

import json
import secrets
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sandbox.kinds.kind import Task
from sandbox.model import ConsentRule, Environment

DRAWN: Final = "drawn"
MOST: Final = 50


def how_many(people: int, permille: int) -> int:
    """Return for how many of ``people`` letters are to be produced."""
    return min(people, MOST, max(1, -(-people * permille // 1000)))


def is_asked(task: Task) -> bool:
    """Whether this owner asks for letters: they stand behind the rows, and another has them."""
    on_letters = task.scenario.consent.batch is ConsentRule.HELD_LETTER
    is_here = task.me != task.plan.recipient_node  # an owner asks others for letters, not itself
    return on_letters and is_here and task.plan.environment is Environment.PRODUCTION


def draw(task: Task, rows: NDArray[np.int64]) -> None:
    """Draw from the people at ``rows``, and keep whom; nothing where no letters stand behind them."""
    if not is_asked(task) or not len(rows):
        return
    count = how_many(len(rows), task.scenario.consent.sample_permille)
    places = secrets.SystemRandom().sample(range(len(rows)), count)
    people = task.keys().take(pa.array(rows[places]))
    task.keep(DRAWN, json.dumps(people.to_pylist()).encode())
