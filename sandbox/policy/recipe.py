"""What a job asks, without on whose rows of which day: so that a production run can be known to have been tried.

Source:    the two environments (测试/生产双环境) of public-data operation: what runs on rows has run on twins before.
Security:  derived by every node from the spec that it admits, never taken from a submitter's word. Under one scenario
           everything else that a run depends on (fields, dimensions, bounds, outputs) is the same by its digest.
Shapes:    32 bytes, SM3 over the kind's message with neutral values in place of: dataset versions (0), the earlier job
           (its own recipe), the seed of a hold-out, the person of a single score, the size of buckets (not whether
           there are any). The kind, all parameters, the dataset codes, a statement, the digest and parameters of a
           bundle stay.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from sandbox import wire
from sandbox.crypto.sm3 import tagged
from sandbox.model import ApplicantScore, DatasetRef, JobSpec

_NEUTRAL: dict[str, Any] = {"seed": b"\0"}


def recipe(spec: JobSpec, earlier: bytes = b"") -> bytes:
    """Return the digest of what a job asks; ``earlier``: that of the job it builds on."""
    kind = spec.kind
    neutral = {
        field.name: _neutral(field.name, getattr(kind, field.name), earlier) for field in dataclasses.fields(kind)
    }
    asked = wire.encode(dataclasses.replace(kind, **neutral))
    return tagged("recipe", type(kind).__name__.encode() + b"\0" + asked)


def _neutral(name: str, value: Any, earlier: bytes) -> Any:
    if isinstance(value, DatasetRef):
        return DatasetRef(value.code, 0)
    if isinstance(value, tuple):
        return tuple(_neutral("", item, earlier) for item in value)
    if isinstance(value, ApplicantScore):
        return ApplicantScore(bytes(32))
    if name in ("alignment", "model") and value:
        return earlier[:16].hex()
    if name == "bucket_rows":  # how many does not matter; whether there are buckets decides which engines can do it
        return int(bool(value))
    return _NEUTRAL.get(name, value)
