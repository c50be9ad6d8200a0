from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from sandbox.errors import InvalidSpec
from sandbox.mpc import reference
from sandbox.mpc.reference import Schedule


def table(seed: int, share: float, rows: int = 6300):
    x, y = make_classification(
        rows, 20, n_informative=10, n_redundant=4, weights=[1 - share], class_sep=0.9, flip_y=0.02, random_state=seed
    )
    return (x - x.mean(axis=0)) / x.std(axis=0), y


@pytest.mark.parametrize(("seed", "share"), [(0, 0.05), (1, 0.05), (2, 0.2), (3, 0.5)])
def test_as_good_as_a_converged_solver(seed, share):
    x, y = table(seed, share)
    solver = LogisticRegression(C=1e6, max_iter=5000).fit(x, y)
    blocks = [x[:, :8], x[:, 8:]]
    ours = reference.logits(reference.train(blocks, y), blocks)
    assert abs(roc_auc_score(y, ours) - roc_auc_score(y, x @ solver.coef_[0])) < 0.002


def test_more_steps_reach_the_solvers_weights():
    draw = np.random.default_rng(2)
    x = draw.normal(size=(4000, 9))
    x[:, 7] += x[:, 1]  # correlated across the two sides
    y = (draw.random(4000) < reference.sigmoid(x @ draw.normal(size=9) - 2)).astype(int)
    solver = LogisticRegression(C=1e8, max_iter=5000, tol=1e-8).fit(x, y)
    parts = reference.train([x[:, :5], x[:, 5:]], y, Schedule(200))
    assert np.abs(np.concatenate([part.weights for part in parts]) - solver.coef_[0]).max() < 0.01
    assert abs(sum(part.offset for part in parts) - solver.intercept_[0]) < 0.01


def test_the_model_does_not_depend_on_units():
    x, y = table(4, 0.2, 500)
    plain = reference.train([x[:, :6], x[:, 6:]], y)
    moved = reference.train([x[:, :6] * 1000 + 7, x[:, 6:] / 50 - 3], y)
    one = reference.logits(plain, [x[:, :6], x[:, 6:]])
    two = reference.logits(moved, [x[:, :6] * 1000 + 7, x[:, 6:] / 50 - 3])
    assert np.abs(one - two).max() < 1e-6


def test_collinear_columns_and_outliers_do_not_diverge():
    x, y = table(5, 0.05, 1000)
    x[:, 1] = x[:, 0] * 2
    x[:, 13] = x[:, 2]  # held by both sides
    x[7] = 1e6
    parts = reference.train([x[:, :8], x[:, 8:]], y, Schedule(300))
    values = reference.logits(parts, [x[:, :8], x[:, 8:]])
    assert np.isfinite(values).all()
    assert reference.auc(values, y) > 0.55


def test_l2_shrinks_the_spread_but_not_the_intercept():
    x, y = table(6, 0.05, 2000)
    blocks = [x[:, :8], x[:, 8:]]
    free, held = (reference.logits(reference.train(blocks, y, Schedule(60, l2)), blocks) for l2 in (0.0, 1.0))
    assert held.std() < 0.3 * free.std()
    assert abs(reference.sigmoid(held).mean() - y.mean()) < 0.01


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
def test_auc_counts_pairs(rows):
    scores, labels = np.array([row[0] for row in rows]), np.array([row[1] for row in rows], int)
    ones, zeros = scores[labels == 1], scores[labels == 0]
    if not len(ones) or not len(zeros):
        with pytest.raises(InvalidSpec):
            reference.auc(scores, labels)
        return
    difference = ones[:, None] - zeros[None, :]
    assert reference.auc(scores, labels) == pytest.approx(((difference > 0) + 0.5 * (difference == 0)).mean())


def test_sigmoid_is_symmetric_and_does_not_overflow():
    values = np.array([-1e4, -3.0, 0.0, 3.0, 1e4])
    result = reference.sigmoid(values)
    assert np.allclose(result + result[::-1], 1) and result[0] == 0 and result[2] == 0.5


def test_inputs_that_make_no_sense_are_refused():
    x, y = table(0, 0.2, 100)
    bad = x.copy()
    bad[3, 3] = np.nan
    for blocks, labels in (
        ([bad], y), ([x[:50]], y), ([np.ones((100, 2))], y), ([x[:, 0]], y), ([], y),
        ([x], np.zeros(100)), ([x], y * 2), ([x], y[:, None]),
    ):  # fmt: skip
        with pytest.raises(InvalidSpec):
            reference.train(blocks, labels)
    for wrong in ({"steps": 0}, {"steps": 501}, {"l2": -1.0}, {"l2": float("nan")}):
        with pytest.raises(InvalidSpec):
            Schedule(**wrong)
