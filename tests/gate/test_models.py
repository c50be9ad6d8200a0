"""The gate on what was learnt from rows: every bound holds at its edge, and whatever is missing withholds."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import OutputWithheld
from sandbox.gate.models import LEAST_FREEDOM, Check, judge_model
from sandbox.model import JobKind, OutputClass, OutputRule

RULE = OutputRule(JobKind.TRAIN, "scorecard", OutputClass.MODEL, 20, 10, 1000, 1 << 20, reviewed=True)
GOOD = {"rows": 500, "group.trained_bad": 40, "freedom": 490, "coefficient.1": 20, "coefficient.2": 170}
LABELS = {"label.1": 1, "label.2": 16}


def test_evidence_names_bound_and_least_of_every_check() -> None:
    freedom, behind, outcome = judge_model(RULE, GOOD | LABELS)
    assert freedom == Check("degrees of freedom", 10, 490)
    assert (behind.bound, behind.found) == (20, 20)
    assert (outcome.bound, outcome.found) == (1, 1)


def test_a_side_without_labels_is_not_asked_for_outcomes() -> None:
    assert [check.found for check in judge_model(RULE, GOOD)] == [490, 20]


WITHHELD: dict[str, dict[str, int]] = {
    "nothing": {},
    "no freedom given": {name: n for name, n in GOOD.items() if name != "freedom"},
    "no coefficient given": {name: n for name, n in GOOD.items() if not name.startswith("coefficient")},
    "as many coefficients as rows": GOOD | {"freedom": 9},
    "more coefficients than rows": GOOD | {"freedom": -3},
    "a small band": GOOD | {"coefficient.2": 19},
    "an empty band": GOOD | {"coefficient.3": 0},
    "a band of one outcome": GOOD | LABELS | {"label.2": 0},
    "a band whose outcomes were not looked at": GOOD | {"label.1": 5},
}


@pytest.mark.parametrize("case", WITHHELD)
def test_withheld_in_one_wording_with_the_reason_for_the_owner(case: str) -> None:
    with pytest.raises(OutputWithheld) as caught:
        judge_model(RULE, WITHHELD[case])
    assert caught.value.tell == OutputWithheld.public
    assert str(caught.value).startswith("scorecard: ")
    assert set(re.findall(r"\d+", str(caught.value))) <= {"10", "20", "1"}  # bounds; never what was found


def test_a_rule_without_a_minimum_still_wants_somebody_behind_every_coefficient() -> None:
    rule = replace(RULE, min_group=0)
    assert judge_model(rule, GOOD | {"coefficient.2": 1})
    with pytest.raises(OutputWithheld):
        judge_model(rule, GOOD | {"coefficient.2": 0})


numbers: Any = st.integers(-5, 60)


@given(
    minimum=st.integers(1, 40),
    freedom=numbers,
    behind=st.lists(numbers, min_size=1, max_size=6),
    outcomes=st.none() | st.lists(numbers, min_size=6, max_size=6),
)
def test_passes_if_and_only_if_every_number_reaches_its_bound(
    minimum: int, freedom: int, behind: list[int], outcomes: list[int] | None
) -> None:
    inputs = {"freedom": freedom} | {f"coefficient.{n}": count for n, count in enumerate(behind, 1)}
    known = [] if outcomes is None else outcomes[: len(behind)]
    inputs |= {f"label.{n}": count for n, count in enumerate(known, 1)}
    fits = freedom >= LEAST_FREEDOM and min(behind) >= minimum and min(known, default=1) >= 1
    try:
        judge_model(replace(RULE, min_group=minimum), inputs)
    except OutputWithheld:
        assert not fits
    else:
        assert fits
