from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sandbox.errors import InvalidSpec
from sandbox.mpc.scorecard import MAX_POINTS, MAX_STEPS, Points, Scale, combine, in_steps, partial_points

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


def banded(draw: np.random.Generator, columns: int = 4) -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray]]:
    """Columns of a few bands and one or two features, weights, and the bands of 50 rows."""
    blocks = [draw.normal(size=(draw.integers(1, 6), draw.integers(1, 3))) for _ in range(columns)]
    places = [draw.integers(0, len(block), 50) for block in blocks]
    return blocks, draw.normal(size=sum(block.shape[1] for block in blocks)), places


@given(st.integers(0, 1 << 30), VALUES)
def test_whole_points_are_within_half_a_point_a_column_of_the_exact_sum(seed, offset):
    blocks, weights, places = banded(np.random.default_rng(seed))
    points = Points.of(blocks, weights, SCALE, offset=offset)
    features = np.concatenate([block[place] for block, place in zip(blocks, places, strict=True)], axis=1)
    exact = -SCALE.factor * (features @ weights + offset)
    assert np.abs(points.sums(places) - exact).max() <= 0.5 * (len(blocks) + 1) + 1e-6
    for block, column in zip(blocks, points.bands, strict=True):
        assert len(column) == len(block)
        assert all(type(one) is int for one in column)


def test_a_part_is_the_sum_of_the_table_rounded_to_a_step():
    points = Points(-7, ((10, -4, 0), (3, 0)))
    places = [np.array([0, 1, 2]), np.array([0, 0, 1])]
    assert points.sums(places).tolist() == [6, -8, -7]
    assert in_steps(points.sums(places), SCALE).tolist() == [1, -2, -1]
    assert in_steps(np.array([10**6, -(10**6)]), SCALE).tolist() == [MAX_STEPS, -MAX_STEPS]


@pytest.mark.parametrize(
    "given_points", [(0.5, ((1,),)), (True, ((1,),)), (0, ((1.0,),)), (0, (("1",),)), (0, ((MAX_POINTS + 1,),))]
)
def test_points_that_are_no_whole_numbers_in_range_are_refused(given_points):
    with pytest.raises(InvalidSpec):
        Points(*given_points)


def test_weights_that_do_not_fit_or_are_not_finite_make_no_points():
    blocks = [np.ones((2, 1)), np.ones((3, 2))]
    for weights in (np.ones(2), np.array([1.0, np.nan, 0.0]), np.array([1.0, np.inf, 0.0]), np.full(3, 1e9)):
        with pytest.raises(InvalidSpec):
            Points.of(blocks, weights, SCALE)
    with pytest.raises(InvalidSpec):
        Points.of([], np.ones(0), SCALE)
    with pytest.raises(InvalidSpec):
        Points.of(blocks, np.ones(3), SCALE, offset=float("nan"))
    with pytest.raises(InvalidSpec):
        Points(0, ((1,),)).sums([])
