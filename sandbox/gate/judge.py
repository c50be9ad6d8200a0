"""Would the outputs of this job be too specific? Judged on numbers, by every data owner, before anything is revealed.

A pure function over the plan's rules, the node's own bounds and the gate inputs that the kind declares. It fails
closed: a rule without the number it needs withholds. Of two bounds, the scenario's and the node's, the stricter holds.

    group.<name>       people behind a number: at least the minimum group
    rest.<name>        people left out: none, or at least the minimum group
    rows               people of a table of rows: between the minimum and the cap
    top.<measure>      permille of a total that its two largest contributions make up, where it is most: at most
                       ``top_two``
    remainder.<m>      permille of the largest contribution that all but the two largest reach, where it is least: at
                       least ``remainder``
    others             of outputs of class MODEL: see ``gate.models``; of a merchant's own code only ``group`` is known,
                       how many went in, and the rest is for the people who look at what it learnt

    people.day, .total of different people of this owner that the scenario's jobs told of: at most its quota, counted
                       with those of this job (``policy.people``)

Source:   the (n, k) and p % rules as in Hundepool et al., Statistical Disclosure Control (2012), chapter 4.
Errors:   ``OutputWithheld``, one wording for every reason; the reason itself is the exception's detail, for the owner
          only.
Not here: what was released before (``gate.history``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sandbox.errors import OutputWithheld
from sandbox.gate.models import judge_model
from sandbox.model import JobKind, OutputClass, OutputRule, Plan, Quota


@dataclass(frozen=True, slots=True)
class Evidence:
    """One check that passed, for the owner's record."""

    output: str
    check: str
    bound: int
    found: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """The node's own least strict bounds, in permille."""

    top_two: int = 1000
    remainder: int = 0


def judge(plan: Plan, gate_inputs: Mapping[str, int], bounds: Bounds | None = None) -> tuple[Evidence, ...]:
    """Return the evidence that every output of the plan may be revealed, or withhold them all."""
    if not plan.outputs:
        raise _withheld("the plan has no outputs")
    own = bounds or Bounds()
    return tuple(evidence for rule in plan.outputs for evidence in _judge(rule, gate_inputs, own))


def judge_sizes(plan: Plan, rows: Mapping[str, int]) -> None:
    """Withhold everything if a data owner's whole set is below a minimum: an intersection would be, too."""
    owners = {party.node_id for party in plan.parties if party.dataset is not None}
    for rule in plan.outputs:
        for party in sorted(owners):
            if rows.get(party, 0) < max(rule.min_group, 1):
                raise _withheld(f"{rule.name}: the set of {party} is below {max(rule.min_group, 1)}")


def judge_people(quota: Quota, today: int, total: int) -> tuple[Evidence, ...]:
    """Withhold everything if a job would tell of more different people than the scenario may learn of."""
    found = (("people.day", quota.people_per_day, today), ("people.total", quota.people_total, total))
    evidence = tuple(Evidence("", check, bound, people) for check, bound, people in found if bound)
    for each in evidence:
        if each.found > each.bound:
            raise _withheld(f"{each.check}: more than {each.bound}")
    return evidence


def _judge(rule: OutputRule, gate_inputs: Mapping[str, int], bounds: Bounds) -> Iterator[Evidence]:
    if rule.class_ is OutputClass.ROW_CONSENTED:
        rows = gate_inputs.get("rows")
        least = max(rule.min_group, 1)
        if rows is None or not least <= rows <= rule.max_rows:
            raise _withheld(f"{rule.name}: the number of rows is missing, below {least}, or above {rule.max_rows}")
        yield Evidence(rule.name, "rows at most", rule.max_rows, rows)
        return
    if rule.class_ is OutputClass.MODEL and rule.kind is not JobKind.MODEL:
        for check in judge_model(rule, gate_inputs):
            yield Evidence(rule.name, check.check, check.bound, check.found)
        return
    if rule.class_ is OutputClass.NOISY:
        if gate_inputs.get("epsilon_milli", 0) < 1:
            raise _withheld(f"{rule.name}: nothing says how much noise is in it")
        yield Evidence(rule.name, "epsilon_milli", 1, gate_inputs["epsilon_milli"])
        return
    yield from _groups(rule, gate_inputs)
    if rule.class_ is OutputClass.AGGREGATE:
        yield from _shares(rule, gate_inputs, bounds)


def _groups(rule: OutputRule, gate_inputs: Mapping[str, int]) -> Iterator[Evidence]:
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
        yield Evidence(rule.name, name, rule.min_group, count)


def _shares(rule: OutputRule, gate_inputs: Mapping[str, int], bounds: Bounds) -> Iterator[Evidence]:
    """No total that one or two people nearly make up alone."""
    most = min(rule.top_two or bounds.top_two, bounds.top_two)
    least = max(rule.remainder, bounds.remainder)
    for name, permille in gate_inputs.items():
        if name.startswith("top."):
            if permille > most:
                raise _withheld(f"{rule.name}: two people make up more than {most} permille of {name[4:]}")
            yield Evidence(rule.name, name, most, permille)
        if name.startswith("remainder."):
            if permille < least:
                raise _withheld(f"{rule.name}: the rest of {name[10:]} is below {least} permille of its largest part")
            yield Evidence(rule.name, name, least, permille)


def _withheld(reason: str) -> OutputWithheld:
    return OutputWithheld(reason, stage="gate")
