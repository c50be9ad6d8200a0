"""A spec and a scenario with the dataset versions filled in that a job uses, where they leave that to a rule.

From admission on, everything sees these: nothing below has to know that versions can be left open.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from sandbox.model import DatasetRef, DatasetUse, JobSpec, Plan, Scenario, VersionRule


def spec_of(spec: JobSpec, refs: Iterable[DatasetRef]) -> JobSpec:
    """Return a spec that names the given versions of its datasets."""
    taken = {ref.code: ref for ref in refs}
    kind = spec.kind
    named = {field.name: _named(getattr(kind, field.name), taken) for field in dataclasses.fields(kind)}
    return dataclasses.replace(spec, kind=dataclasses.replace(kind, **named))


def scenario_of(scenario: Scenario, uses: Iterable[DatasetUse]) -> Scenario:
    """Return a scenario in which the given uses, with their versions, stand for those by rule."""
    taken = {use.code: use for use in uses}
    ruled = [use for use in scenario.datasets if use.rule is VersionRule.SAME_SCHEMA and use.code in taken]
    if not ruled:
        return scenario
    filled = (taken[use.code] if use in ruled else use for use in scenario.datasets)
    return dataclasses.replace(scenario, datasets=tuple(filled))


def for_plan(scenario: Scenario, plan: Plan) -> Scenario:
    """Return a scenario in which the versions are those of a plan."""
    parties = {party.dataset.code: party for party in plan.parties if party.dataset is not None}
    uses = []
    for use in scenario.datasets:
        party = parties.get(use.code)
        if party is not None and party.dataset is not None:
            uses.append(dataclasses.replace(use, version=party.dataset.version, content_hash=party.content_hash))
    return scenario_of(scenario, uses)


def _named(value: Any, taken: Mapping[str, DatasetRef]) -> Any:
    if isinstance(value, DatasetRef):
        return taken.get(value.code, value)
    if isinstance(value, tuple):
        return tuple(_named(item, taken) for item in value)
    return value
