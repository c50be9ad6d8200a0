"""Which lines of a table of totals stay blank: those too small to be shown, and as many more as would tell them.

    primary         a number of people is below the minimum, or so is the number of those without a value
    complementary   chosen so that no blank number can be narrowed down, from totals and the other lines, to fewer than
                    ``least`` possible values

Totals count as known, whether the table has them or not: another table may. Those of one dimension are a table of its
own and come first, so that a table of fewer dimensions over the same people has the same blanks; cells then are blanked
around them.

Of one dimension, blanks whose sum is at least the minimum (so two or more) are enough: each may be anything up to that
sum. Of two, numbers of people can be moved around between blanks as long as every total stays: along a closed way that
goes up in one cell, down in the next of its row or column, up again. How far a number can be moved up and down without
any becoming negative is a maximum flow; where it is too little, the cheapest way through cells that are still shown is
blanked.

Source:   network models of cell suppression: Cox, "Network models for complementary cell suppression", JASA 90, 1995;
          flows by successive shortest ways as in Ahuja, Magnanti and Orlin, "Network Flows", 1993, chapters 7 and 9.
Security: against whoever knows the table, its totals and that numbers are not negative. Every number of people that is
          counted (rows, and rows with each measure) is protected; sums have the same blanks. Not against two tables
          over the same people that cut them differently: each has blanks of its own.
Shapes:   counts and lacking are (numbers, cells), the last dimension fastest; masks are over cells and totals
          (``margins``). The same at every party, since numbers are all it depends on.
Not here: what blank lines together add up to must be large enough too (``counted``, ``dominance``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sandbox.kinds.cells import Mask
from sandbox.kinds.margins import cells_among, widened

MOST_LOOKS: Final = 10_000  # of how many blanks how often, to show again what can be
_ENDLESS: Final = 1 << 61
_FAR: Final = 1 << 60

Numbers = NDArray[np.int64]


def blanks(counts: Numbers, lacking: Numbers, levels: Sequence[int], least: int) -> Mask:
    """Return which of cells and totals stay blank; all of them if nothing less would do.

    Args:
        counts: numbers of people: rows, and rows with each measure (and in each band).
        lacking: numbers of rows without each measure.
        least: the minimum group.
    """
    least = max(least, 1)
    known = np.unique(widened(counts, levels), axis=0)  # equal ones need no second look
    without = np.unique(widened(lacking, levels), axis=0)
    rows = widened(counts, levels)[0]
    shape = tuple(count + 1 for count in levels)
    blank: Mask = np.logical_or((known < least).any(axis=0), ((without > 0) & (without < least)).any(axis=0))
    everything = np.ones_like(blank)
    if blank[-1]:
        return everything  # even the total of all
    if len(levels) == 1:
        return everything if not _close_line(blank, known, without, least) else blank
    if len(levels) == 2:
        grid = blank.reshape(shape)
        for line in (np.s_[:, -1], np.s_[-1, :]):
            margin = grid[line].copy()
            own = [numbers.reshape(-1, *shape)[(slice(None), *line)] for numbers in (known, without)]
            if not _close_line(margin, own[0], own[1], least):
                return everything
            grid[line] = margin
        needed = grid.copy()
        if not _close_table(grid, known.reshape(-1, *shape), rows.reshape(shape), least):
            return everything
        _give_back(grid, needed, known.reshape(-1, *shape), rows.reshape(shape), least)
    return blank


def unions(blank: Mask, levels: Sequence[int]) -> list[NDArray[np.int64]]:
    """Return the sets of cells that a table with blanks tells the totals of: the blanks of a line whose total is shown.

    With the cells that are shown they make up every total that is.
    """
    shape = tuple(count + 1 for count in levels)
    grid, is_cell = blank.reshape(shape), cells_among(levels).reshape(shape)
    numbers = np.full(shape, -1)
    numbers[is_cell] = np.arange(int(np.prod(levels, dtype=np.int64)))
    found: dict[tuple[int, ...], None] = {}
    for axis in range(len(levels)):
        for place in np.ndindex(*(count for at, count in enumerate(shape) if at != axis)):
            line = (*place[:axis], slice(None), *place[axis:])
            if grid[line][-1] or not grid[line].any():
                continue
            members: list[int] = []
            for at in np.flatnonzero(grid[line]).tolist():
                whole = (*place[:axis], at, *place[axis:])
                inside = tuple(slice(0, -1) if one == count else one for one, count in zip(whole, levels, strict=True))
                members += np.atleast_1d(numbers[inside]).ravel().tolist()
            found[tuple(sorted(members))] = None
    return [np.array(members, np.int64) for members in found]


def _close_line(blank: Mask, known: Numbers, without: Numbers, least: int) -> bool:
    """Blank more of one line until its blanks hide each other; False: they cannot. Its last is the total, and shown."""
    while blank.any():
        hidden, missing = known[:, blank].sum(axis=1), without[:, blank].sum(axis=1)
        if bool((hidden >= least).all()) and not bool(((missing > 0) & (missing < least)).any()):
            return True
        shown = np.flatnonzero(~blank[:-1])
        if not len(shown):
            return False
        sizes = known[:, shown].sum(axis=0)
        enough = ~((missing[:, None] + without[:, shown] > 0) & (missing[:, None] + without[:, shown] < least)).any(
            axis=0
        )
        blank[shown[np.lexsort((shown, sizes, ~enough))[0]]] = True
    return True


def _close_table(blank: Mask, known: Numbers, rows: Numbers, least: int, may_blank: bool = True) -> bool:
    """Blank more cells of a table until every blank may be ``least`` values; False: that cannot be reached."""
    is_safe = np.zeros((len(known), *blank.shape), np.bool_)
    waiting = deque(zip(*(axis.tolist() for axis in np.nonzero(blank)), strict=True))
    while waiting:
        place = waiting.popleft()
        for numbers, safe in zip(known, is_safe, strict=True):
            if not safe[place] and not _protect(place, blank, numbers, rows, least, safe, waiting, may_blank):
                return False
    return True


def _give_back(blank: Mask, needed: Mask, known: Numbers, rows: Numbers, least: int) -> None:
    """Show again what later blanks made needless, the largest first, unless there is too much to look at."""
    chosen = sorted(
        zip(*(axis.tolist() for axis in np.nonzero(blank & ~needed)), strict=True), key=lambda at: -rows[at]
    )
    if len(chosen) * int(blank.sum()) > MOST_LOOKS:
        return
    for place in chosen:
        blank[place] = False
        if not _close_table(blank, known, rows, least, may_blank=False):
            blank[place] = True


def _protect(
    place: tuple[int, int],
    blank: Mask,
    numbers: Numbers,
    rows: Numbers,
    least: int,
    safe: Mask,
    waiting: deque[tuple[int, int]],
    may_blank: bool,
) -> bool:
    """Make sure that one blank number may be ``least`` values, blanking more cells where that is needed and allowed."""
    ways = [_Ways(place, goes_up, blank, numbers, rows) for goes_up in (True, False)]
    for blanks_more in (False, True) if may_blank else (False,):
        for way in ways:
            while (missing := least - sum(one.moved for one in ways)) > 0 and way.widen(missing, blanks_more):
                pass
            if way.moved >= least:
                safe |= np.abs(way.flow) >= least  # they moved as far
    for way in ways:
        waiting.extend(way.blanked)
    return sum(way.moved for way in ways) >= least


class _Ways:
    """How far one blank number can be moved in one direction, and along which ways.

    ``flow`` is by how much each number is moved so far; totals count the other way round, so that the moves of every
    row and of every column add up to nothing.
    """

    def __init__(self, place: tuple[int, int], goes_up: bool, blank: Mask, numbers: Numbers, rows: Numbers) -> None:
        self._place, self._goes_up, self._blank, self._numbers, self._rows = place, goes_up, blank, numbers, rows
        self._is_total = np.zeros(blank.shape, np.bool_)
        self._is_total[-1, :], self._is_total[:, -1] = True, True
        self._is_total[-1, -1] = False
        self.flow = np.zeros(blank.shape, np.int64)
        self.moved = 0
        self.blanked: list[tuple[int, int]] = []

    def widen(self, missing: int, may_blank: bool) -> bool:
        """Move the number further, at best by ``missing``; False if it cannot be moved at all."""
        room = self._room()
        own = int(room[0 if self._goes_up else 1][self._place])
        if own <= 0:
            return False
        for least in (missing, 1):  # rather one way for all of it: it protects every number on it
            way = self._cheapest(room, least, may_blank)
            if way:
                self._move(way, min(missing, own, *(int(room[goes][at]) for at, goes in way)))
                return True
        return False

    def _room(self) -> tuple[Numbers, Numbers]:
        """Return by how much each number may still be moved up, and down."""
        left = self._numbers + np.where(self._is_total, -self.flow, self.flow)
        return np.where(self._is_total, left, _ENDLESS), np.where(self._is_total, _ENDLESS, left)

    def _cheapest(
        self, room: tuple[Numbers, Numbers], least: int, may_blank: bool
    ) -> list[tuple[tuple[int, int], int]]:
        """Return a way back to the number, as (place, 0 for up or 1 for down); empty if there is none."""
        open_to = ~self._is_total if may_blank else np.zeros_like(self._blank)
        open_to[-1, -1] = False
        costs = np.where(self._blank, 1, np.where(open_to, (self._rows + 1) * (sum(self._blank.shape) + 1), _FAR))
        costs[self._place] = _FAR
        up, down = (np.where(room[goes] >= least, costs, _FAR) for goes in (0, 1))
        row, column = self._place
        count_rows, count_columns = self._blank.shape
        to_row, to_column = np.full(count_rows, _FAR), np.full(count_columns, _FAR)
        from_column, from_row = np.zeros(count_rows, np.int64), np.zeros(count_columns, np.int64)
        # A number that goes up leaves its column short: start there, and come to its row. One that goes down, reversed.
        (to_column if self._goes_up else to_row)[column if self._goes_up else row] = 0
        for _ in range(sum(self._blank.shape)):
            through, cheaper = down + to_column[None, :], False
            best = through.argmin(axis=1)
            cost = through[np.arange(count_rows), best]
            better = cost < to_row
            to_row, from_column, cheaper = (
                np.where(better, cost, to_row),
                np.where(better, best, from_column),
                bool(better.any()),
            )
            through = up + to_row[:, None]
            best = through.argmin(axis=0)
            cost = through[best, np.arange(count_columns)]
            better = cost < to_column
            to_column, from_row = np.where(better, cost, to_column), np.where(better, best, from_row)
            if not cheaper and not bool(better.any()):
                break
        if (to_row[row] if self._goes_up else to_column[column]) >= _FAR:
            return []
        way: list[tuple[tuple[int, int], int]] = []
        at, is_row = (row, True) if self._goes_up else (column, False)
        goal = (column, False) if self._goes_up else (row, True)
        while (at, is_row) != goal:
            before = int(from_column[at] if is_row else from_row[at])
            way.append(((at, before), 1) if is_row else ((before, at), 0))
            at, is_row = before, not is_row
        return way

    def _move(self, way: list[tuple[tuple[int, int], int]], by: int) -> None:
        self.moved += by
        self.flow[self._place] += by if self._goes_up else -by
        for at, goes in way:
            self.flow[at] += -by if goes else by
            if not self._blank[at]:
                self._blank[at] = True
                self.blanked.append(at)
