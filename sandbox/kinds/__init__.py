"""The job kinds: one module each, found by the enumeration on the wire."""

from __future__ import annotations

from collections.abc import Mapping

from sandbox.kinds import aggregate, model, psi, query, score, train
from sandbox.kinds.kind import Form, Kind, Task
from sandbox.model import JobKind

KINDS: Mapping[JobKind, Kind] = {
    JobKind.PSI: psi.KIND,
    JobKind.TRAIN: train.KIND,
    JobKind.SCORE: score.KIND,
    JobKind.AGGREGATE: aggregate.KIND,
    JobKind.QUERY: query.KIND,
    JobKind.MODEL: model.KIND,
}

__all__ = ["KINDS", "Form", "Kind", "Task"]
