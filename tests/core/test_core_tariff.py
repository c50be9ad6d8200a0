"""The tariff: golden answers, and no gain from splitting."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from core_builders import BANK, JOB, facts, psi
from hypothesis import given
from hypothesis import strategies as st

from sandbox.ledger import metered_fields, metered_rows
from sandbox.policy.admit import admit
from sandbox.usage import tariff


@pytest.mark.parametrize(
    ("units", "yuan"),
    [
        (0, "0.00"),
        (1, "0.10"),
        (3_000_000, "300000.00"),
        (3_000_001, "300000.08"),
        (5_000_000, "460000.00"),
        (30_000_000, "2460000.00"),
        (30_000_001, "2460000.06"),
        (40_000_000, "3060000.00"),
    ],
)
def test_golden_answers(units: int, yuan: str) -> None:
    assert str(tariff.price(units)) == yuan
    assert str(tariff.price(units, public_good=True)) == "0.00"


@given(st.lists(st.integers(0, 20_000_000), min_size=1, max_size=8))
def test_splitting_into_calls_costs_the_same(calls: list[int]) -> None:
    before, total = 0, Decimal(0)
    for call in calls:
        total += tariff.price(call, before)
        before += call
    assert total == tariff.price(sum(calls))


def test_coefficient_and_rounding_to_the_fen() -> None:
    assert tariff.price(5_000_000, coefficient=Decimal("0.5")) == Decimal("230000.00")
    assert str(tariff.price(1, coefficient=Decimal("0.05"))) == "0.01"  # half a fen goes up
    assert str(tariff.price(1, coefficient=Decimal("0.049"))) == "0.00"
    assert tariff.units(3, 100) == 300 and tariff.units(3, 100, 2) == 600


def test_a_fee_is_as_rounded_as_the_outputs() -> None:
    plan = admit(psi(), JOB, bytes(32), facts(), BANK)
    (rule,) = plan.outputs
    for people, round_to, rows in ((455, 10, 460), (455, 100, 500), (455, 1, 460), (1, 100, 1), (449, 100, 400)):
        assert metered_rows(replace(plan, outputs=(replace(rule, round_to=round_to),)), people, 10) == rows
    assert metered_fields(plan) == 1  # a key alone counts as one column
