"""Does a total tell what its largest contributor has? Of people as one party knows them, with a word from the others.

    top        (x1 + x2) / total, the largest over all groups              the (n, k) rule with n = 2
    remainder  (total - x1 - x2) / x1, the smallest over all groups        the p % rule

x1 and x2 are the largest amounts of a person in the group. Amounts are absolute values of what a person adds, since
values of two signs cancel in a sum and hide nobody; of a variance, squares. Who has x2 and sees the total knows x1 up
to the remainder, and so does a party that subtracts all its people. So an owner may count on what *others* have, less
what any one of them has:

    remainder = own amounts but for the two largest  +  the others' amounts, less the largest part one of them can have

That is never more than what is left to anybody who looks for x1, person or party, and only the owner of x1 needs to
find it large enough: if all owners do, the total is sound. ``top`` follows from it, with x1 for an x2 that may be
elsewhere.

What others have nobody shows. Who can judge a group alone (all but the two largest outweigh the largest) says nothing;
who cannot needs cover. Of groups that are large enough to leave, owners add up, under masks, first on which step of a
ladder of powers of 4 the largest amount that needs cover stands, then each owner's amounts in sixteenths of that step,
at most sixteen:

    cover = sixteenths of the others - 16          of two parties, who accept that each sees the other's total: people
                                                   are protected from people, and the other's all but two largest count

Source:   (n, k) and p % rules as in Hundepool et al., "Statistical Disclosure Control", Wiley 2012, chapter 4.
Reveals:  to every owner, of each such group in which one of them cannot judge alone: that step, and the sum of
          sixteenths.
Units:    permille; ``top`` rounded up, ``remainder`` down. Nothing is skipped but groups without any amount.
Shapes:   (measures with a sum, cells or regions); a region is a group, or several blank ones whose sum can be told.
Not here: the bounds (``gate.judge``); one person's rows at two owners, which nobody can put together; a step above the
          sixteen sixteenths: bounds beyond 1000 permille are met by own rows only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sandbox.kinds.cells import Codes, Mask, Shape, Whole, grouped_sums

MOST: Final = 1_000_000  # permille: what a remainder is said to be at most
PARTS: Final = 16  # in how many a step is cut
_STEPS: Final = np.array([4**step for step in range(32)], np.int64)

Exact: TypeAlias = NDArray[np.object_]  # whole numbers of any size
Region: TypeAlias = NDArray[np.int64]  # numbers of cells


@dataclass(frozen=True, slots=True)
class Weights:
    """The two largest amounts of a person, and all amounts together, of each measure in each cell."""

    first: Whole
    second: Whole
    total: Exact

    @classmethod
    def of_rows(cls, codes: Codes, amounts: Sequence[Whole], cells: int) -> Weights:
        """Return those of some rows."""
        first, second = (np.zeros((len(amounts), cells), np.int64) for _ in range(2))
        inside = codes >= 0
        placed = codes[inside].astype(np.intp)
        for measure, whole in enumerate(amounts):
            own = whole[inside]
            np.maximum.at(first[measure], placed, own)
            largest = np.flatnonzero(own == first[measure][placed])
            one_each = largest[np.unique(placed[largest], return_index=True)[1]]
            np.maximum.at(second[measure], np.delete(placed, one_each), np.delete(own, one_each))
        total = np.array([grouped_sums(codes, whole, cells) for whole in amounts], object)
        return cls(first, second, total.reshape(len(amounts), cells))

    @property
    def rest(self) -> Exact:
        """What there is but for the two largest."""
        rest: Exact = self.total - self.first - self.second
        return rest

    def plus(self, other: Weights) -> Weights:
        """Return these with those of other people in the same cells."""
        first = np.maximum(self.first, other.first)
        second = np.maximum(np.minimum(self.first, other.first), np.maximum(self.second, other.second))
        return Weights(first, second, self.total + other.total)

    def over(self, regions: Sequence[Region]) -> Weights:
        """Return those of regions, cells of which have nobody in common."""
        shape = (len(self.first), len(regions))
        first, second, total = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, object)
        for place, cells in enumerate(regions):
            largest = np.sort(np.concatenate([self.first[:, cells], self.second[:, cells]], axis=1), axis=1)
            second[:, place], first[:, place] = largest[:, -2], largest[:, -1]
            total[:, place] = self.total[:, cells].sum(axis=1)
        return Weights(first, second, total)


def names(shape: Shape) -> tuple[str, ...]:
    """Return the measures whose totals somebody could dominate."""
    return tuple(one.measure.name for one in shape.wanted if one.bounds)


def amounts(shape: Shape, values: Sequence[Whole]) -> list[Whole]:
    """Return what each row weighs in these measures, from what it adds to the sums."""
    found, at = [], 0
    for one in shape.wanted:
        at += len(one.bounds)
        if one.bounds:
            found.append(np.abs(values[at - 1]))  # of a variance the last sum, of squares
    return found


def figures(
    measures: Sequence[str], weights: Weights, cover: Exact | int = 0, alone: Mask | None = None
) -> dict[str, int]:
    """Return what the gate judges.

    Args:
        cover: what can be counted on of others.
        alone: in which regions there are no others: then the second largest amount is known, and not a guess.
    """
    seconds = weights.first if alone is None else np.where(alone, weights.second, weights.first)
    rests = weights.rest + cover
    inputs: dict[str, int] = {}
    for measure, name in enumerate(measures):
        judged = zip(weights.first[measure].tolist(), seconds[measure].tolist(), rests[measure].tolist(), strict=True)
        pairs = [_permille(first, second, rest) for first, second, rest in judged if first]
        inputs[f"top.{name}"] = max((top for top, _ in pairs), default=0)
        inputs[f"remainder.{name}"] = min((remainder for _, remainder in pairs), default=MOST)
    return inputs


def guessed(measures: Sequence[str], amounts: Sequence[Whole], size: int) -> dict[str, int]:
    """Return the same where nobody knows who of ``amounts`` is in the smallest group, of ``size`` people.

    Not a bound: as if both largest were in it, and the others in it had as much as all others have on average.
    """
    inputs: dict[str, int] = {}
    for name, own in zip(measures, amounts, strict=True):
        second, first = np.sort(np.concatenate([own, [0, 0]]))[-2:].tolist()
        others = sum(own.tolist()) - first - second
        rest = others * max(size - 2, 0) // max(len(own) - 2, 1)
        top, remainder = _permille(first, second, rest) if first else (0, MOST)
        inputs |= {f"top.{name}": top, f"remainder.{name}": remainder}
    return inputs


def _permille(first: int, second: int, rest: int) -> tuple[int, int]:
    return -(-1000 * (first + second) // (first + second + rest)), min(MOST, 1000 * rest // first)


# --- cover ------------------------------------------------------------------------------------------------------------


def ladder(shape: Shape, weights: Weights) -> NDArray[np.uint64]:
    """Return this party's part: a random number on every step up to that of an amount that needs cover, else 0.

    Of several random numbers the sum is one, too: it tells that there is any, and not how many.
    """
    needs = (weights.first > 0) & (weights.rest < weights.first)
    steps = np.where(needs, np.searchsorted(_STEPS, weights.first), -1)
    marked = [steps[measure] >= np.arange(count)[:, None] for measure, count in enumerate(_steps(shape))]
    whole = np.concatenate([one.ravel() for one in marked]) if marked else np.zeros(0, np.bool_)
    drawn = np.frombuffer(os.urandom(8 * len(whole)), np.uint64)
    return np.where(whole, drawn, np.uint64(0))


def highest(shape: Shape, joint: NDArray[np.uint64]) -> Whole:
    """Return the highest step of everybody's ladders that somebody marked, -1 where nobody did."""
    counts = _steps(shape)
    regions, at = len(joint) // max(sum(counts), 1), 0
    found = np.full((len(counts), regions), -1, np.int64)
    for measure, count in enumerate(counts):
        marked = joint[at : at + count * regions].reshape(count, regions) != 0
        found[measure] = np.where(marked.any(axis=0), count - 1 - np.argmax(marked[::-1], axis=0), -1)
        at += count * regions
    return found


def sixteenths(weights: Weights, steps: Whole, parties: int) -> NDArray[np.uint64]:
    """Return this party's amounts in parts of the steps."""
    amounts = weights.total if parties > 2 else weights.rest
    found: NDArray[np.uint64] = np.minimum(amounts // _units(steps), _most(steps)).astype(np.uint64)
    return found


def cover(own: NDArray[np.uint64], joint: NDArray[np.uint64], steps: Whole, parties: int) -> Exact | None:
    """Return what can be counted on of the others; None if these cannot be sums of their parts."""
    others = (joint - own).astype(np.int64)
    most = _most(steps)
    if bool(((others < 0) | (others > most * (parties - 1))).any()):
        return None
    # One of them may look for the largest, and knows its own.
    sure = np.maximum(others - most, 0) if parties > 2 else others
    covered: Exact = sure.astype(object) * _units(steps)
    return covered


def _steps(shape: Shape) -> list[int]:
    """Return how many steps the ladder of each measure has: up to the largest amount its range allows."""
    reach = [max(max(-low, high) for low, high in one.bounds[-1:]) for one in shape.wanted if one.bounds]
    return [int(np.searchsorted(_STEPS, max(most, 1))) + 1 for most in reach]


def _units(steps: Whole) -> Exact:
    units: Exact = np.maximum(_STEPS[np.maximum(steps, 0)] // PARTS, 1).astype(object)
    return units


def _most(steps: Whole) -> Any:
    return np.where(steps < 0, 0, np.minimum(_STEPS[np.maximum(steps, 0)], PARTS))
