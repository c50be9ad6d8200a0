"""Blank lines stay blank: a linear program that knows everything else about a table cannot narrow them down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import linprog  # type: ignore[import-untyped]
from scipy.sparse import eye, kron  # type: ignore[import-untyped]

from sandbox.kinds.margins import cells_among, widened
from sandbox.kinds.suppression import blanks, unions

LEAST = 10
Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def none(cells: int) -> Numbers:
    return np.zeros((0, cells), np.int64)


def chosen(numbers: Sequence[int], levels: Sequence[int], least: int = LEAST) -> Mask:
    return blanks(np.array([numbers], np.int64), none(len(numbers)), levels, least)


def drawn(random: np.random.Generator, dimensions: int) -> tuple[Numbers, tuple[int, ...]]:
    """A table of some small cells, some empty ones, and more or less large ones."""
    levels = tuple(random.integers(2, 9 if dimensions == 1 else 5, dimensions).tolist())
    cells = int(np.prod(levels))
    small = random.random(cells) < random.choice([0.15, 0.4, 0.8])
    return np.where(small, random.integers(0, 12, cells), random.integers(8, 90, cells)), levels


def narrowest(numbers: Numbers, levels: Sequence[int], blank: Mask) -> float:
    """How narrow the narrowest interval is that a blank number can be in: none is negative, all others are known.

    One linear program: a copy of the table for the largest value of each blank number, and one for its smallest.
    """
    shape = tuple(count + 1 for count in levels)
    whole, places = widened(numbers, levels), np.arange(int(np.prod(shape))).reshape(shape)
    sums = []
    for axis in range(len(levels)):
        for line in np.moveaxis(places, axis, -1).reshape(-1, shape[axis]):
            sums.append(np.zeros(whole.size))
            sums[-1][line[:-1]], sums[-1][line[-1]] = 1, -1
    known, count = np.array(sums), int(blank.sum())
    left = -known[:, ~blank] @ whole[~blank]
    found = linprog(
        np.concatenate([-np.eye(count).ravel(), np.eye(count).ravel()]),
        A_eq=kron(eye(2 * count), known[:, blank]),
        b_eq=np.tile(left, 2 * count),
    )
    assert found.status == 0
    ends = found.x.reshape(2, count, count)
    return float((ends[0].diagonal() - ends[1].diagonal()).min())


TABLES = [(seed, dimensions) for dimensions in (1, 2) for seed in range(60)]
MORE = [(seed, dimensions) for dimensions in (1, 2) for seed in range(60, 500)]


@pytest.mark.parametrize("tables", [TABLES, pytest.param(MORE, marks=pytest.mark.slow)], ids=["some", "more"])
def test_no_blank_number_can_be_narrowed_down_and_no_blank_is_needless(tables: list[tuple[int, int]]) -> None:
    """For hundreds of tables: as many values as the minimum, or more; and one blank less is one too few."""
    with_blanks = chosen_too = 0
    for seed, dimensions in tables:
        numbers, levels = drawn(np.random.default_rng(seed), dimensions)
        blank, whole = chosen(numbers.tolist(), levels), widened(numbers, levels)
        assert blank[whole < LEAST].all()
        if blank.all() or not blank.any():
            continue
        with_blanks += 1
        assert narrowest(numbers, levels, blank) >= LEAST - 1e-6
        more = np.flatnonzero(blank & (whole >= LEAST) & cells_among(levels))
        chosen_too += len(more)
        for place in more[:2].tolist():
            less = blank.copy()
            less[place] = False
            assert narrowest(numbers, levels, less) < LEAST - 1e-6
    assert min(with_blanks, chosen_too) > 0.6 * len(tables)


def test_all_numbers_of_people_are_protected_and_not_only_those_of_rows() -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        numbers, levels = drawn(random, 2)
        known = np.maximum(numbers - random.integers(0, 3, len(numbers)) * 10, 0)
        blank = blanks(np.stack([numbers, known]), (numbers - known)[None], levels, LEAST)
        for one in (numbers, known):
            assert blank[widened(one, levels) < LEAST].all()
            if blank.any() and not blank.all():
                assert narrowest(one, levels, blank) >= LEAST - 1e-6


def test_what_blanks_add_up_to_where_it_can_be_told_is_a_group_of_its_own() -> None:
    for seed, dimensions in TABLES:
        numbers, levels = drawn(np.random.default_rng(seed), dimensions)
        blank = chosen(numbers.tolist(), levels)
        if blank.all():
            continue
        regions = unions(blank, levels)
        assert all(numbers[region].sum() >= LEAST for region in regions)
        shape = tuple(count + 1 for count in levels)
        grid, whole, shown = blank.reshape(shape), widened(numbers, levels).reshape(shape), blank[cells_among(levels)]
        told = {tuple(region.tolist()) for region in regions}
        if dimensions == 1:
            assert told == ({tuple(np.flatnonzero(blank[:-1]).tolist())} if blank.any() else set())
            continue
        places = np.arange(len(numbers)).reshape(levels)
        for row in range(levels[0]):
            if not grid[row, -1] and grid[row].any():
                assert tuple(places[row][grid[row, :-1]].tolist()) in told
                assert whole[row, -1] - whole[row, :-1][~grid[row, :-1]].sum() >= LEAST
        thin = np.flatnonzero(grid[:-1, -1])
        assert not len(thin) or tuple(places[thin].ravel().tolist()) in told
        assert set(np.flatnonzero(shown).tolist()) <= {cell for region in told for cell in region}


def test_one_dimension_by_hand() -> None:
    assert np.flatnonzero(chosen([30, 4, 25, 40], (4,))).tolist() == [1, 2]  # 4, and the smallest that is shown
    assert np.flatnonzero(chosen([30, 4, 25, 7], (4,))).tolist() == [1, 3]  # 4 and 7 hide each other: 11
    assert np.flatnonzero(chosen([30, 4, 25, 5], (4,))).tolist() == [1, 2, 3]  # 9 are too few together
    assert np.flatnonzero(chosen([30, 0, 25], (3,))).tolist() == [1, 2]  # an empty cell is blank, too
    assert not chosen([30, 10, 25], (3,)).any()
    assert chosen([3, 4], (2,)).all() and chosen([30, 4], (2,)).tolist() == [True, True, False]


def test_two_dimensions_by_hand() -> None:
    #   20 20  4 |  44        the 4, and the cheapest rectangle around it whose corners can give 10
    #   20 15 30 |  65
    #   20 50 40 | 110
    blank = chosen([20, 20, 4, 20, 15, 30, 20, 50, 40], (3, 3)).reshape(4, 4)
    assert np.argwhere(blank).tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    assert not chosen([20] * 9, (3, 3)).any()
    #   a thin row is blank with its total; another row has to be with it, or the columns tell it
    blank = chosen([2, 1, 3, 20, 25, 30, 70, 80, 90], (3, 3)).reshape(4, 4)
    assert blank[0].all() and blank[1].all() and not blank[2:].any()


def test_the_same_blanks_in_a_table_of_one_dimension_less() -> None:
    """Otherwise two tables over the same people would tell what each of them hides."""
    for seed in range(60):
        numbers, levels = drawn(np.random.default_rng(seed), 2)
        both = chosen(numbers.tolist(), levels).reshape(levels[0] + 1, levels[1] + 1)
        if not both.all():
            grid = numbers.reshape(levels)
            assert chosen(grid.sum(axis=1).tolist(), levels[:1]).tolist() == both[:, -1].tolist()
            assert chosen(grid.sum(axis=0).tolist(), levels[1:]).tolist() == both[-1, :].tolist()


def test_a_table_that_is_too_small_as_a_whole_is_all_blank() -> None:
    assert chosen([9], ()).all() and not chosen([10], ()).any()
    assert chosen([3, 3, 3], (3,)).all() and chosen([2] * 4, (2, 2)).all()
    assert chosen([0] * 4, (2, 2), least=0).all()


def test_a_few_without_a_value_make_a_line_blank() -> None:
    """The table with the measure, and one without it, would differ by these people."""
    rows, lacking = np.array([[30, 40, 50]]), np.array([[3, 20, 0]])
    blank = blanks(np.concatenate([rows, rows - lacking]), lacking, (3,), LEAST)
    assert blank.tolist() == [True, True, False, False]
    assert blanks(rows, np.array([[3, 0, 0]]), (3,), LEAST).all()  # even all together 3: no line is large enough


@pytest.mark.parametrize("levels", [(40,), (9, 9)])
def test_every_party_finds_the_same(levels: Any) -> None:
    random = np.random.default_rng(7)
    numbers = random.integers(0, 60, int(np.prod(levels))).tolist()
    first = chosen(numbers, levels)
    assert first.any() and not first.all()
    assert all(chosen(numbers, levels).tolist() == first.tolist() for _ in range(3))
