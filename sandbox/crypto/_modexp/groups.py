"""Products by group, in rounds: runs of elements of one group shrink to one product each, until each group has one.

The runs of a slice are independent of each other and of about the same length, so a back end with lanes fills them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sandbox.crypto._modexp.slices import LANES, OnSlice, Part, join

RUN: Final = 64  # elements of a run at most: one in so many is worked on again

Places = NDArray[np.int64]
# Called with elements, the order in which they are taken, and where in the order each run begins and the last one ends.
Chains = Callable[[memoryview, Places, Places], bytes]


def fill(
    out: NDArray[np.uint8],
    chains: Chains,
    elements: memoryview,
    groups: NDArray[np.int32],
    *,
    slice_size: int,
    threads: int,
    on_slice: OnSlice | None,
) -> None:
    """Put the product of each group that has an element into the row of ``out`` with its number.

    ``on_slice`` is told of the elements done in the first round, then of all of them after each slice of a later one.
    """
    rows, owners, before = elements, groups, 0
    while len(owners):
        alone = np.bincount(owners)[owners] == 1
        out[owners[alone]] = np.frombuffer(rows, np.uint8).reshape(-1, out.shape[1])[alone]
        rest = np.flatnonzero(~alone)
        if owners is groups and on_slice is not None and len(rest) < len(groups):
            before = len(groups) - len(rest)
            on_slice(before)
        slices = list(_slices(rest[np.argsort(owners[rest], kind="stable")], owners, slice_size))
        parts = [Part(partial(chains, rows, order, starts), len(order)) for order, starts in slices]
        rows = memoryview(join(parts, threads, on_slice and partial(_tell, on_slice, before, len(groups))))
        owners = np.concatenate([owners[:0], *(owners[order[starts[:-1]]] for order, starts in slices)])
        before = len(groups)


def _tell(on_slice: OnSlice, before: int, total: int, done: int) -> None:
    on_slice(min(before + done, total))


def _slices(places: Places, owners: NDArray[np.int32], size: int) -> Iterator[tuple[Places, Places]]:
    """Cut ``places``, sorted by owner, into runs, and deal them out longest first, about ``size`` elements a slice."""
    grouped = owners[places]
    first = np.flatnonzero(np.diff(grouped, prepend=-1))
    inside = np.arange(len(places)) - np.repeat(first, np.diff(first, append=len(places)))
    starts = np.flatnonzero(inside % min(max(2, len(places) // (2 * LANES)), RUN) == 0)
    lengths = np.diff(starts, append=len(places))
    by_length = np.argsort(-lengths, kind="stable")
    starts, lengths = starts[by_length], lengths[by_length]
    at = 0
    while at < len(starts):
        end = at + LANES * max(1, size // (LANES * int(lengths[at])))
        bounds = np.concatenate(([0], np.cumsum(lengths[at:end])))
        shifts = np.repeat(starts[at:end] - bounds[:-1], lengths[at:end])
        yield places[shifts + np.arange(bounds[-1])], bounds
        at = end
