"""Would the outputs of this job be too specific? Judged on numbers, by every data owner, before anything is revealed.

A pure function over the plan's rules and the gate inputs that the kind declares. It fails closed: a rule without the
number it needs withholds. Gate inputs whose name starts with ``rest.`` count people who are left out; each must be 0 or
reach the minimum. Those whose name starts with ``group.`` count people; each must reach the minimum of
every rule that has one.

Errors:   ``OutputWithheld``, one wording for every reason; the reason itself is the exception's detail, for the owner
          only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sandbox.errors import OutputWithheld
from sandbox.model import OutputClass, OutputRule, Plan


@dataclass(frozen=True, slots=True)
class Evidence:
    """One check that passed, for the owner's record."""

    output: str
    check: str
    bound: int


def judge(plan: Plan, gate_inputs: Mapping[str, int]) -> tuple[Evidence, ...]:
    """Return the evidence that every output of the plan may be revealed, or withhold them all."""
    if not plan.outputs:
        raise _withheld("the plan has no outputs")
    return tuple(evidence for rule in plan.outputs for evidence in _judge(rule, gate_inputs))


def judge_sizes(plan: Plan, rows: Mapping[str, int]) -> None:
    """Withhold everything if a data owner's whole set is below a minimum: an intersection would be, too."""
    owners = {party.node_id for party in plan.parties if party.dataset is not None}
    for rule in plan.outputs:
        for party in sorted(owners):
            if rows.get(party, 0) < max(rule.min_group, 1):
                raise _withheld(f"{rule.name}: the set of {party} is below {max(rule.min_group, 1)}")


def _judge(rule: OutputRule, gate_inputs: Mapping[str, int]) -> list[Evidence]:
    if rule.class_ is OutputClass.ROW_CONSENTED:
        rows = gate_inputs.get("rows")
        least = max(rule.min_group, 1)
        if rows is None or not least <= rows <= rule.max_rows:
            raise _withheld(f"{rule.name}: the number of rows is missing, below {least}, or above {rule.max_rows}")
        return [Evidence(rule.name, "rows at most", rule.max_rows)]
    groups = {name: count for name, count in gate_inputs.items() if name.startswith("group.")}
    if rule.class_ is OutputClass.REPORT and not groups and "rows" in gate_inputs:
        groups = {"rows": gate_inputs["rows"]}  # a side without labels knows no smaller group
    if not groups:
        raise _withheld(f"{rule.name}: no group size was given")
    for name, count in gate_inputs.items():
        if name.startswith("rest.") and count != 0 and count < rule.min_group:
            raise _withheld(f"{rule.name}: {name} is above 0 and below {rule.min_group}")
    for name, count in groups.items():
        if count < rule.min_group:
            raise _withheld(f"{rule.name}: {name.removeprefix('group.')} is below {rule.min_group}")
    return [Evidence(rule.name, name, rule.min_group) for name in groups]


def _withheld(reason: str) -> OutputWithheld:
    return OutputWithheld(reason, stage="gate")
