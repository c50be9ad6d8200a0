"""May what was learnt from rows leave? Judged on numbers, by every data owner, before any coefficient is opened.

A pure function over the rule of the output and the gate inputs that the kind declares:

    freedom           rows trained on, less the coefficients (of all parties, and the intercept)
    coefficient.<n>   of each band or level of this owner with a coefficient: the rows behind it, or those beside it if
                      they are fewer
    label.<n>         of each of these bands, at the owner of the labels: its rows of the rarer outcome

Source:   degrees of freedom and zero or full cells as in the rules of output checkers, e.g. W. Griffiths et al.,
          "Handbook on Statistical Disclosure Control for Outputs", 2019.
Security: fails closed: without a degree of freedom or a coefficient to judge, nothing leaves. An owner judges its own
          bands. How the outcomes fall in the bands of a side without labels nobody may know, so nobody judges it.
Errors:   ``OutputWithheld``, one wording for every reason; the reason itself is its detail, for the owner only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sandbox.errors import OutputWithheld
from sandbox.model import OutputRule

LEAST_FREEDOM: Final = 10
LEAST_OUTCOME: Final = 1  # rows of either outcome: a band of one outcome tells it of everybody in it


@dataclass(frozen=True, slots=True)
class Check:
    """One check that passed, and what it found; for the owner's eyes only."""

    check: str
    bound: int
    found: int


def judge_model(rule: OutputRule, gate_inputs: Mapping[str, int]) -> tuple[Check, ...]:
    """Return the evidence that a model may be released, or withhold it."""
    behind = _numbered(gate_inputs, "coefficient.")
    if "freedom" not in gate_inputs or not behind:
        raise _withheld(rule, "degrees of freedom or coefficients were not given")
    checks = [
        Check("degrees of freedom", LEAST_FREEDOM, gate_inputs["freedom"]),
        Check("rows behind a coefficient, or beside it", max(rule.min_group, 1), min(behind)),
    ]
    outcomes = _numbered(gate_inputs, "label.")
    if outcomes:
        if len(outcomes) != len(behind):
            raise _withheld(rule, "outcomes were not given for every coefficient")
        checks.append(Check("rows of either outcome in a band", LEAST_OUTCOME, min(outcomes)))
    for each in checks:
        if each.found < each.bound:
            raise _withheld(rule, f"{each.check}: below {each.bound}")
    return tuple(checks)


def _numbered(gate_inputs: Mapping[str, int], prefix: str) -> list[int]:
    return [count for name, count in gate_inputs.items() if name.startswith(prefix)]


def _withheld(rule: OutputRule, reason: str) -> OutputWithheld:
    return OutputWithheld(f"{rule.name}: {reason}", stage="gate")
