"""The hold-out: exact shares, one seed one mask, no word about a label."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.errors import InvalidSpec
from sandbox.kinds.holdout import holdout

KNOWN = "ae53e17c6ca93fc826adc97a550d2b782c93570c929e15849b5fda0ca2298375"  # of the packed mask


@settings(max_examples=60, deadline=None)
@given(
    good=st.integers(2, 300),
    bad=st.integers(2, 60),
    fraction=st.floats(0.01, 0.99),
    seed=st.binary(min_size=1, max_size=40),
    turn=st.randoms(use_true_random=False),
)
def test_every_class_gives_its_share(good, bad, fraction, seed, turn):
    labels = [0] * good + [1] * bad
    turn.shuffle(labels)
    labels = np.array(labels)
    held = holdout(labels, seed, fraction)
    assert (held == holdout(labels.astype(bool), seed, fraction)).all()
    for label, size in ((0, good), (1, bad)):
        assert held[labels == label].sum() == min(max(round(fraction * size), 1), size - 1)


def test_the_mask_is_the_same_everywhere_for_ever():
    labels = np.arange(1000) % 19 == 0
    mask = holdout(labels, b"known answer")
    assert hashlib.sha256(np.packbits(mask).tobytes()).hexdigest() == KNOWN
    assert not (mask == holdout(labels, b"known answes")).all()


def test_every_row_has_the_same_chance_whatever_its_label():
    labels = np.arange(200) % 10 == 0
    often = sum(holdout(labels, f"{turn}".encode()).astype(int) for turn in range(1000)) / 1000
    # 1000 draws of chance 0.2: a deviation of 0.0126 for one row, far less for a class.
    assert abs(often - 0.2).max() < 0.065
    assert abs(often[labels].mean() - often[~labels].mean()) < 1e-9


def test_a_spec_seed_mixed_with_a_secret_is_another_mask():
    labels = np.arange(500) % 5 == 0
    assert not (holdout(labels, b"public") == holdout(labels, b"secret" + b"public")).all()


@pytest.mark.parametrize(
    ("labels", "seed", "fraction"),
    [
        (np.zeros(10), b"s", 0.2),
        (np.array([0, 0, 0, 1]), b"s", 0.2),
        (np.array([0, 1, 2, 1, 0]), b"s", 0.2),
        (np.array([0.0, 1.0, np.nan, 1.0, 0.0]), b"s", 0.2),
        (np.array(["0", "1", "0", "1"]), b"s", 0.2),
        (np.zeros((2, 2)), b"s", 0.2),
        (np.array([0, 1, 0, 1]), b"", 0.2),
        (np.array([0, 1, 0, 1]), b"s", 0.0),
        (np.array([0, 1, 0, 1]), b"s", 1.0),
        (np.array([0, 1, 0, 1]), b"s", float("nan")),
    ],
)
def test_refusals(labels, seed, fraction):
    with pytest.raises(InvalidSpec):
        holdout(labels, seed, fraction)
