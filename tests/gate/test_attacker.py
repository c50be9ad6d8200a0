"""Somebody who asks what he likes, looking for one planted person: whatever sequence of questions the gates let
through, no two answers differ by fewer people than the minimum.

The attacker knows everything but the node's secret: who is where, what was refused, how gates work. What he gets is
judged by sets of people, not by sketches.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sandbox.crypto.sm3 import sm3
from sandbox.gate.history import Asked, conflict, note
from sandbox.kinds.population import SHARED, SUMMED, WHOLE, Sketcher, union
from sandbox.model import Population
from sandbox.store import Store

LEAST, PLANTED = 10, 0
OWNERS = ("bank", "tax", "land")
BOUNDED = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
_FRESH = itertools.count()

People = frozenset[int]


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[dict[str, Store]]:
    made = {owner: Store.at(tmp_path / f"{owner}.db") for owner in OWNERS}
    for one in made.values():
        one.create()
    yield made
    for one in made.values():
        one.close()


@dataclass
class Nodes:
    """Every owner's gate; a merchant nobody has seen before asks them."""

    stores: dict[str, Store]
    merchant: str = field(default_factory=lambda: f"merchant {next(_FRESH)}")
    jobs: int = 0

    def let_through(self, told: dict[str, tuple[list[Population], Sequence[str], bytes]]) -> bool:
        """Ask every owner in ``told``: its groups, the partners' dataset codes, the digest of their contents."""
        self.jobs += 1
        passed = []
        for owner, (populations, partners, content) in told.items():
            asked = Asked(self.merchant, f"{self.merchant}/{self.jobs}", frozenset(partners), content)
            with self.stores[owner].write(flush=False) as conn:
                passed.append(conflict(conn, asked, populations, LEAST) == "")
                if passed[-1]:
                    note(conn, asked, populations, self.jobs)
        return all(passed)


def keys(people: People) -> pa.Array:
    return pa.array([f"99{number:016d}" for number in sorted(people)], pa.string())


def sketcher(owner: str) -> Sketcher:
    return Sketcher(sm3(owner.encode()))


def digest(*contents: People) -> bytes:
    return sm3(repr([sorted(content) for content in contents]).encode())


def isolated(answers: Sequence[People]) -> list[int]:
    """By how many people two answers differ, where it is too few: all pairs, by brute force."""
    apart = (len(one ^ other) for one, other in itertools.combinations(answers, 2))
    return [d for d in apart if 0 < d < LEAST]


# --- one owner's table, any groups of it ------------------------------------------------------------------------------

REGION, AGE, SEX = (lambda n: n % 4), (lambda n: n // 40 % 3), (lambda n: n % 2)
CHOICES = st.tuples(
    st.sampled_from([(), (REGION,), (AGE,), (SEX,), (REGION, AGE), (AGE, SEX), (REGION, AGE, SEX)]),
    st.integers(0, 23),  # which of the cells
    st.lists(st.integers(0, 160), max_size=14),  # rows added to the table, or taken from it: a new version
    st.booleans(),  # the planted person in or out
    st.sampled_from(["tax", "tax-2", "tax-3"]),  # the partner's code: registered again or not
)


def cells_of(dimensions: Sequence[object], rows: People) -> dict[tuple[int, ...], People]:
    made: dict[tuple[int, ...], set[int]] = {}
    for number in rows:
        made.setdefault(tuple(level(number) for level in dimensions), set()).add(number)  # type: ignore[operator]
    return {level: frozenset(own) for level, own in made.items()}


@BOUNDED
@given(st.lists(CHOICES, min_size=2, max_size=12))
def test_groups_of_one_table_in_any_versions(stores: dict[str, Store], asks: list[object]) -> None:
    nodes, answers = Nodes(stores), list[People]()
    for dimensions, cell, changed, has_planted, code in asks:  # type: ignore[misc]
        rows = frozenset(range(1, 161)) ^ frozenset(changed)
        rows = rows | {PLANTED} if has_planted else rows - {PLANTED}
        cells = cells_of(dimensions, rows)
        group = cells[sorted(cells)[cell % len(cells)]]
        if len(group) < LEAST:
            continue  # refused for its size, by ``gate.judge``
        told = sketcher("bank").of(str(cell), keys(group), len(group))
        if nodes.let_through({"bank": ([told], [code], b"")}):
            answers.append(group)
    assume(answers)
    assert not isolated(answers)


@BOUNDED
@given(st.lists(CHOICES, min_size=2, max_size=6), st.booleans())
def test_whole_tables_with_their_margins(stores: dict[str, Store], asks: list[object], is_margin_told: bool) -> None:
    """Every cell and every total of a table leaves at once, or none: beside other tables, and beside itself."""
    nodes, answers = Nodes(stores), list[People]()
    for dimensions, _, changed, has_planted, code in asks:  # type: ignore[misc]
        rows = frozenset(range(1, 161)) ^ frozenset(changed)
        rows = rows | {PLANTED} if has_planted else rows - {PLANTED}
        cells = cells_of(dimensions, rows)
        if min(map(len, cells.values())) < LEAST:
            continue
        groups = [sketcher("bank").of(str(level), keys(own), len(own)) for level, own in cells.items()]
        margins = {
            f"{place}={level}": [one for one in cells if one[place] == level]
            for place in range(len(dimensions))
            for level in {one[place] for one in cells}
        } | {"all": list(cells)}
        for name, listed in margins.items():
            parts = [groups[list(cells).index(one)] for one in listed]
            groups.append(union(name, parts, sum(part.size for part in parts)))
        if nodes.let_through({"bank": (groups, [code], b"")}):
            answers += cells.values()
            answers += [frozenset().union(*(cells[one] for one in listed)) for listed in margins.values()]
    assume(answers)
    assert not isolated(answers)


@BOUNDED
@given(st.integers(20, 150), st.lists(st.integers(1, 150), unique=True, max_size=12), st.data())
def test_triples_around_one_answer(stores: dict[str, Store], size: int, moved: list[int], data: st.DataObject) -> None:
    """A, A without some, A without some others: what a targeted attacker tries around an answer that he has."""
    nodes, answers = Nodes(stores), list[People]()
    first = frozenset(range(1, size + 1)) | {PLANTED}
    for group in (first, first - {PLANTED}, first ^ frozenset(moved), first ^ frozenset(moved) ^ {PLANTED}):
        extra = frozenset(data.draw(st.lists(st.integers(151, 300), max_size=11)))
        group = group | extra
        if len(group) >= LEAST and nodes.let_through(
            {"bank": ([sketcher("bank").of("any", keys(group), len(group))], ["tax"], b"")}
        ):
            answers.append(group)
    assert not isolated(answers)


# --- two owners, and nobody knows who is shared -----------------------------------------------------------------------


@BOUNDED
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 149), max_size=13),  # customers exchanged, some of them taxpayers
            st.integers(0, 60),  # strangers added, whom the tax office does not have
            st.booleans(),
            st.booleans(),  # sums, or only how many
            st.sampled_from(["bank-1", "bank-2"]),
        ),
        min_size=2,
        max_size=12,
    )
)
def test_a_bank_that_chooses_whom_it_brings(stores: dict[str, Store], asks: list[object]) -> None:
    """One who pads his list with strangers gets past his own gate; the other one counts."""
    nodes, sums, counts = Nodes(stores), list[People](), list[People]()
    taxpayers = frozenset(range(0, 120))
    for changed, strangers, has_planted, is_sum, code in asks:  # type: ignore[misc]
        customers = frozenset(range(50, 130)) ^ frozenset(changed) | frozenset(range(1000, 1000 + strangers))
        customers = customers | {PLANTED} if has_planted else customers - {PLANTED}
        shared = customers & taxpayers
        if len(shared) < LEAST:
            continue
        bank = sketcher("bank").of(WHOLE, keys(customers), len(shared), is_whole=True)
        tax = sketcher("tax").of(SUMMED if is_sum else WHOLE, keys(taxpayers), len(shared), is_whole=True)
        groups = [bank] if shared != customers else [bank, sketcher("bank").of(SHARED, keys(shared), len(shared))]
        if nodes.let_through({"bank": (groups, ["tax"], digest(taxpayers)), "tax": ([tax], [code], digest(customers))}):
            (sums if is_sum else counts).append(shared)
    assume(sums or counts)
    assert not isolated(sums)
    for one, other in itertools.combinations([*sums, *counts], 2):
        assert abs(len(one) - len(other)) not in range(1, LEAST)  # numbers that tell whether somebody is there


# --- three owners who each have some of the rows ----------------------------------------------------------------------


@BOUNDED
@given(
    st.lists(
        st.tuples(
            st.sampled_from([(), (REGION,), (SEX,)]),
            st.integers(0, 3),
            st.lists(st.integers(0, 261), max_size=6),  # rows changed, at any owner
            st.booleans(),
            st.sampled_from([OWNERS, OWNERS, OWNERS[:2], OWNERS[1:]]),
        ),
        min_size=2,
        max_size=10,
    )
)
def test_tables_that_several_owners_have_rows_of(stores: dict[str, Store], asks: list[object]) -> None:
    """Every owner sees its own part, and all numbers: who differs by a few people refuses, and who sees others do."""
    nodes, answers = Nodes(stores), list[People]()
    parts = {"bank": range(0, 120), "tax": range(120, 240), "land": range(240, 262)}
    for dimensions, cell, changed, has_planted, asked in asks:  # type: ignore[misc]
        gone = frozenset(changed) | (frozenset() if has_planted else {PLANTED})
        held = {owner: frozenset(parts[owner]) - gone for owner in asked}
        cells = cells_of(dimensions, frozenset().union(*held.values()))
        level = sorted(cells)[cell % len(cells)]
        told = {}
        for owner in asked:
            own = held[owner] & cells[level]
            others = [held[other] for other in asked if other != owner]
            population = sketcher(owner).of(f"{len(dimensions)} {level}", keys(own), len(cells[level]))
            told[owner] = ([population], [other for other in asked if other != owner], digest(*others))
        if nodes.let_through(told):
            answers.append(cells[level])
    assume(answers)
    assert not isolated(answers)


def test_an_attacker_without_a_gate_in_his_way_would_succeed() -> None:
    """What is looked for is there to be found."""
    random = np.random.default_rng(3)
    first = frozenset(random.choice(160, 60, replace=False).tolist()) | {PLANTED}
    assert isolated([first, first - {PLANTED}]) == [1]
