"""The tariff: golden answers, and no gain from splitting."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
