from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sandbox.errors import InvalidSpec
from sandbox.mpc.scorecard import MAX_STEPS, Scale, combine, partial_points

SCALE = Scale()
VALUES = st.floats(-5, 5)


def test_base_odds_give_base_points_within_half_a_step():
    logit = -math.log(SCALE.base_odds)
    part = partial_points(np.array([[logit]]), np.array([1.0]), SCALE)
    assert abs(int(combine(part, scale=SCALE)[0]) - SCALE.base_points) <= SCALE.step


def test_doubling_the_odds_adds_the_points_that_double():
    rows = -math.log(2.0) * np.arange(8)[:, None]
    points = combine(partial_points(rows, np.ones(1), SCALE), scale=SCALE)
    assert np.diff(points).tolist() == [20] * 7


@given(hnp.arrays(np.float64, (7, 5), elements=VALUES), hnp.arrays(np.float64, 5, elements=VALUES), VALUES)
def test_each_part_is_within_half_a_step_of_the_exact_sum(block, weights, offset):
    exact = SCALE.base_points - SCALE.factor * (block @ weights + offset + math.log(SCALE.base_odds))
    left = partial_points(block[:, :2], weights[:2], SCALE, offset=offset)
    right = partial_points(block[:, 2:], weights[2:], SCALE)
    assert np.abs(left * SCALE.step + SCALE.factor * (block[:, :2] @ weights[:2] + offset)).max() <= 2.5 + 1e-9
    assert np.abs(right * SCALE.step + SCALE.factor * (block[:, 2:] @ weights[2:])).max() <= 2.5 + 1e-9
    points = combine(left, right, scale=SCALE)
    assert points.dtype == np.int32
    assert np.abs(points - exact).max() <= 3 * 2.5 + 1e-9  # two parts and the constant, half a step each
    assert not (points % SCALE.step).any()


def test_a_part_saturates_and_never_wraps():
    parts = partial_points(np.array([[1e30], [-1e30]]), np.ones(1), SCALE)
    assert parts.tolist() == [-MAX_STEPS, MAX_STEPS]


@pytest.mark.parametrize(
    "fields", [{"step": 4}, {"step": 0}, {"base_odds": 0.0}, {"points_to_double": 0}, {"step": -5}]
)
def test_a_scale_that_is_too_fine_or_senseless_is_refused(fields):
    with pytest.raises(InvalidSpec):
        Scale(**fields)


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(InvalidSpec):
        partial_points(np.ones((2, 3)), np.ones(2), SCALE)
    with pytest.raises(InvalidSpec):
        partial_points(np.array([[np.nan]]), np.ones(1), SCALE)
    one, two = np.zeros(1, np.int32), np.zeros(2, np.int32)
    for parts in ((), (one, two), (one.astype(np.float64),), (one + MAX_STEPS + 1,)):
        with pytest.raises(InvalidSpec):
            combine(*parts, scale=SCALE)
