"""The hold-out: an exact share, one seed one mask, and no label anywhere near it."""

from __future__ import annotations

import hashlib
import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.errors import InvalidSpec
from sandbox.kinds.holdout import draw, truth

KNOWN = "52396a9b8483f7eb83aa770b2bfed25174948f070f56ea861d62d59d850e4e27"  # of the packed mask


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(2, 400), fraction=st.floats(0.01, 0.99), seed=st.binary(min_size=1, max_size=40))
def test_the_share_is_exact_and_leaves_both_parts(rows, fraction, seed):
    held = draw(rows, seed, fraction)
    assert held.sum() == min(max(round(fraction * rows), 1), rows - 1)
    assert (held == draw(rows, seed, fraction)).all()


def test_the_mask_is_the_same_everywhere_for_ever():
    mask = draw(1000, b"known answer", 0.2)
    assert hashlib.sha256(np.packbits(mask).tobytes()).hexdigest() == KNOWN
    assert not (mask == draw(1000, b"known answes", 0.2)).all()


def test_every_row_has_the_same_chance():
    often = sum(draw(200, f"{turn}".encode(), 0.2).astype(int) for turn in range(1000)) / 1000
    # 1000 draws of chance 0.2: a standard deviation of 0.0126 for one row.
    assert abs(often - 0.2).max() < 0.065


def test_a_draw_cannot_see_labels():
    assert list(inspect.signature(draw).parameters) == ["rows", "seed", "fraction"]


@pytest.mark.parametrize(
    ("rows", "seed", "fraction"), [(10, b"", 0.2), (10, b"s", 0.0), (10, b"s", 1.0), (1, b"s", 0.5)]
)
def test_bad_input_is_refused(rows, seed, fraction):
    with pytest.raises(InvalidSpec):
        draw(rows, seed, fraction)


@pytest.mark.parametrize("labels", [np.array([0, 1, 2]), np.array([[0, 1]]), np.array(["0"]), np.array([0.0, np.nan])])
def test_labels_are_zeros_and_ones(labels):
    with pytest.raises(InvalidSpec):
        truth(labels)
