"""Released groups are remembered, and what would isolate a few people beside them is found; nothing else is."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import delete, func, select

from sandbox.gate import history
from sandbox.gate.history import Asked, conflict, note
from sandbox.kinds.population import SHARED, SUMMED, WHOLE, Sketcher, union
from sandbox.model import Population
from sandbox.store import Store, released_populations

SKETCHER = Sketcher(bytes(range(32)))
LEAST = 10


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.at(tmp_path / "store.db")
    made.create()
    yield made
    made.close()


def group(numbers: Sequence[int] | range, size: int = -1, name: str = "all", is_whole: bool = False) -> Population:
    """Some people; without a size, all of the group are this owner's."""
    keys = pa.array([f"99{number:016d}" for number in numbers], pa.string())
    return SKETCHER.of(name, keys, len(numbers) if size < 0 else size, is_whole)


class Gate:
    """One owner's gate: every request is a job of its own."""

    def __init__(self, store: Store) -> None:
        self.store, self.jobs = store, 0

    def asked(
        self,
        controller: str = "bank",
        partners: Sequence[str] = ("tax",),
        content: bytes = b"v1",
        is_alone: bool = False,
    ) -> Asked:
        self.jobs += 1
        return Asked(controller, f"{self.jobs:032x}", frozenset(partners), content.ljust(32), is_alone)

    def __call__(
        self,
        *populations: Population,
        controller: str = "bank",
        partners: Sequence[str] = ("tax",),
        content: bytes = b"v1",
        least: int = LEAST,
        is_alone: bool = False,
    ) -> str:
        """What ``Ledger.judge`` does: look, and note if there is nothing to be said against it."""
        asked = self.asked(controller, partners, content, is_alone)
        with self.store.write() as conn:
            reason = conflict(conn, asked, populations, least)
            if not reason:
                note(conn, asked, populations, 1_000 + self.jobs)
        return reason


@pytest.fixture
def gate(store: Store) -> Gate:
    return Gate(store)


def test_who_receives_is_no_cover_for_one_of_ours(gate: Gate) -> None:
    """Whoever has rows in a total and receives it takes the own change out of the difference."""
    assert gate(group(range(40), size=100)) == ""
    assert gate(group(range(41), size=131)) == ""  # thirty others came and are nobody's: 31 people differ
    assert "fewer than" in gate(group(range(42), size=162), is_alone=True)
    assert gate(group(range(60), size=220), is_alone=True) == ""


# --- published attacks, and their harmless neighbours -----------------------------------------------------------------

# OpenSAFELY's example of disclosure across tables: of 115 people 58 have a heart disease. The bands of its second table
# add up to 77 men, not to the 64 it names; the bands are what counts.
BANDS = {"21-30": (20, 19, 8, 7), "31-40": (25, 15, 10, 5), "41-50": (30, 18, 15, 8), "51+": (40, 25, 25, 13)}


def bands(place: int, only_ill: bool = False) -> tuple[Population, ...]:
    """A table by age band: of everybody (0) or of men (1), all of them or those who are ill; with its total."""
    cells, first = [], 0
    for name, (everybody, men, ill, ill_men) in BANDS.items():
        ill_women = ill - ill_men
        sick = [*range(first, first + ill_men), *range(first + men, first + men + ill_women)]
        some = list(range(first, first + (everybody, men)[place]))
        cells.append(group([n for n in some if n in sick] if only_ill else some, name=name))
        first += everybody
    return (*cells, union("all", cells, sum(cell.size for cell in cells)))


def test_a_table_of_men_after_one_of_everybody_is_refused(gate: Gate) -> None:
    everybody, men = bands(0), bands(1)
    assert [one.size for one in everybody] == [20, 25, 30, 40, 115]
    assert gate(*everybody) == ""
    assert "'21-30' and '21-30'" in gate(*men)  # 20 and 19: the one woman
    assert gate(*bands(0)) == ""
    assert gate(*men, controller="another bank") == ""


def test_so_is_the_same_the_other_way_round_and_for_those_who_are_ill(gate: Gate) -> None:
    assert gate(*bands(1)) == ""
    assert "differ by fewer than 10 people" in gate(*bands(0))
    assert [one.size for one in bands(0, only_ill=True)] == [8, 10, 15, 25, 58]
    assert gate(*bands(0, only_ill=True), controller="ill", least=5) == ""
    assert "'21-30'" in gate(*bands(1, only_ill=True), controller="ill", least=5)


def test_bands_that_differ_enough_may_be_asked_for_one_by_one(gate: Gate) -> None:
    assert gate(*bands(0)) == ""
    assert gate(bands(1)[3]) == ""  # 40 and 25 people


def test_a_mean_with_everybody_and_then_without_one_is_refused(gate: Gate) -> None:
    everybody = range(100)
    assert gate(group(everybody)) == ""
    assert gate(group(range(1, 100))) != ""
    assert gate(group([*everybody, 7])) != ""  # one row doubled
    assert gate(group([*everybody, 7, 7])) != ""  # or tripled: every bit as before
    assert gate(group([*range(99), 100])) != ""  # or exchanged
    assert gate(group(everybody)) == ""  # the same again


@pytest.mark.parametrize("apart", range(1, 2 * LEAST + 1))
@pytest.mark.parametrize("is_more", [True, False])
def test_the_bound_is_what_it_says(gate: Gate, apart: int, is_more: bool) -> None:
    assert gate(group(range(100))) == ""
    reason = gate(group(range(100 + apart) if is_more else range(apart, 100)))
    assert bool(reason) is (apart < LEAST)


def test_it_holds_for_people_exchanged_too(gate: Gate) -> None:
    assert gate(group(range(100))) == ""
    for apart in range(1, LEAST // 2):
        assert gate(group(range(apart, 100 + apart))) != ""
    assert gate(group(range(12, 112))) == ""


def test_a_reason_names_the_earlier_job_and_both_groups_and_no_number_of_people(gate: Gate) -> None:
    assert gate(group(range(100), name="east")) == ""
    reason = gate(group(range(3, 100), name="east but three"))
    assert reason == f"'east but three' and 'east' of job {1:032x} differ by fewer than 10 people"


# --- whole sets: nobody here knows who of them is in the group --------------------------------------------------------


def whole(numbers: Sequence[int] | range, size: int, name: str = WHOLE) -> Population:
    return group(numbers, size, name, is_whole=True)


def test_a_set_of_customers_and_the_same_without_three(gate: Gate) -> None:
    assert gate(whole(range(1000), 400)) == ""
    assert gate(whole(range(3, 1000), 399)) != ""
    assert gate(whole(range(3, 1000), 399), partners=("tax", "land")) != ""
    assert gate(whole(range(3, 1000), 399), partners=("land",), content=b"v2") == ""  # another department
    assert gate(whole(range(20, 1000), 399)) == ""


def test_a_partner_under_another_code_with_the_same_data_is_the_same_partner(gate: Gate) -> None:
    assert gate(whole(range(1000), 400), partners=("tax",)) == ""
    assert gate(whole(range(3, 1000), 399), partners=("tax-again",)) != ""


def test_the_same_customers_and_a_partner_who_brings_a_few_more(gate: Gate) -> None:
    assert gate(whole(range(1000), 400)) == ""
    assert gate(whole(range(1000), 400)) == ""
    assert gate(whole(range(1000), 409), content=b"v2") != ""
    assert gate(whole(range(1000), 410), content=b"v2") == ""
    assert gate(whole(range(1000), 401), content=b"v3") != ""


def test_one_exchanged_for_another_matters_where_columns_are_added_up(gate: Gate) -> None:
    assert gate(whole(range(1000), 400)) == ""
    assert gate(whole(range(1000), 400), content=b"v2") == ""  # a number of people tells nothing then
    assert gate(whole(range(1000), 400, SUMMED), content=b"v3") == ""
    assert gate(whole(range(1000), 400, SUMMED), content=b"v4") != ""
    assert gate(whole(range(1000), 400, SUMMED), content=b"v3") == ""


def test_where_the_shared_rows_are_known_they_are_judged_and_not_the_sets(gate: Gate) -> None:
    assert gate(whole(range(1000), 400), group(range(400), name=SHARED)) == ""
    assert gate(whole(range(3, 1003), 400), group(range(400), name=SHARED)) == ""  # the same people shared
    assert gate(whole(range(1000), 401), group(range(401), name=SHARED), content=b"v2") != ""
    assert gate(whole(range(1000), 401), content=b"v2") != ""  # known of one of the two is not enough
    assert gate(whole(range(1000), 401), group(range(401), name="another group"), content=b"v2") != ""


def test_whole_sets_and_known_groups_are_not_compared(gate: Gate) -> None:
    assert gate(whole(range(1000), 990)) == ""
    assert gate(group(range(3, 1000))) == ""


# --- groups that several owners have people in ------------------------------------------------------------------------


def test_people_who_differ_at_other_owners_count_as_far_as_numbers_tell(gate: Gate) -> None:
    assert gate(group(range(100), 500)) == ""
    assert gate(group(range(3, 100), 497)) != ""  # as many others: maybe the same ones
    assert gate(group(range(3, 100), 503)) != ""  # six others at least, and three
    assert gate(group(range(3, 100), 504)) == ""


def test_a_few_people_of_somebody_else_are_noticed_by_those_who_stay_the_same(gate: Gate) -> None:
    assert gate(group(range(100), 500)) == ""
    assert gate(group(range(100), 503), partners=("tax", "land"), content=b"v2") != ""
    assert gate(group(range(100), 503)) != ""
    assert gate(group(range(100), 510), content=b"v2") == ""
    assert gate(group([], 200, name="nobody of mine")) == ""
    assert gate(group([], 203, name="nor here")) == ""


def test_cells_with_a_few_own_people_are_told_apart_by_their_names(gate: Gate) -> None:
    cells = [group([number, number + 50], 200 + number, name=f"cell {number}") for number in range(40)]
    assert gate(*cells) == ""
    assert gate(*cells) == ""
    assert gate(*cells[:5], content=b"v2") == ""
    other = [group([100 + number], 200 + number, name=f"band {number}") for number in range(40)]
    assert gate(*other) == ""
    assert gate(group([0], 199, name="cell 0")) != ""  # the same cell without one
    assert gate(group([0, 50, 60], 201, name="a new name")) != ""  # nearly the same people of mine


def test_cells_with_enough_own_people_are_not_excused_by_their_names(gate: Gate) -> None:
    assert gate(group(range(10), 200, name="cell 0"), group(range(20, 40), 300, name="cell 1")) == ""
    assert gate(group(range(11), 201, name="cell 2"), group(range(50, 70), 300, name="cell 0")) != ""


# --- one job beside itself --------------------------------------------------------------------------------------------


def test_a_margin_that_differs_from_its_cell_by_a_few_is_found(gate: Gate) -> None:
    large, small = group(range(100), name="large"), group(range(100, 103), name="small")
    enough = group(range(100, 110), name="enough")
    assert gate(large, union("total", [large, small], 103)) != ""
    assert gate(large, enough, union("total", [large, enough], 110)) == ""
    reason = gate(large, union("total", [large, small], 103), controller="another")
    assert reason == "'large' and 'total' of this job differ by fewer than 10 people"


def test_cells_of_one_job_and_a_margin_of_one_cell_are_harmless(gate: Gate) -> None:
    cells = [group(range(20 * number, 20 * number + 12), name=f"cell {number}") for number in range(50)]
    assert gate(*cells, union("row", cells[:1], 12), union("total", cells, 600)) == ""
    few = [group([number], 100, name=f"cell {number}") for number in range(50)]
    assert gate(*few, union("total", few, 5000), controller="several owners") == ""


def test_a_job_is_not_held_against_itself(store: Store) -> None:
    asked = Asked("bank", "a" * 32, frozenset({"tax"}), b"")
    first, second = group(range(100)), group(range(1, 100))
    with store.write() as conn:
        assert conflict(conn, asked, [first], LEAST) == ""
        note(conn, asked, [first], 1)
        note(conn, asked, [first], 2)
        assert conflict(conn, asked, [second], LEAST) == ""
    with store.read() as conn:
        assert conn.scalar(select(func.count()).select_from(released_populations)) == 1


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_without_a_minimum_or_without_people_nothing_is_refused(gate: Gate) -> None:
    assert gate(group(range(100))) == ""
    assert gate(group(range(99)), least=1) == ""
    assert gate(group(range(98)), least=0) == ""
    assert gate() == ""


def test_a_large_minimum_is_judged_as_far_as_sketches_reach(gate: Gate) -> None:
    assert gate(group(range(5000)), least=2000) == ""
    assert "fewer than 400" in gate(group(range(350, 5000)), least=2000)
    assert gate(group(range(10_000, 15_000)), least=2000) == ""


def test_a_difference_below_the_minimum_is_found_among_many_earlier_groups(store: Store, gate: Gate) -> None:
    """Many parts of the memory, groups of all sizes; the plain comparison of sets finds the same."""
    random = np.random.default_rng(5)
    sets: list[set[int]] = []
    for number in range(120):
        people = set(random.choice(3000, int(random.integers(10, 400)), replace=False).tolist())
        if sets and number % 2:
            people = sets[int(random.integers(len(sets)))]
        people = people ^ set(random.choice(3000, int(random.integers(0, 25)), replace=False).tolist())
        apart = [len(people ^ old) for old in sets]
        reason = gate(group(sorted(people)))
        if any(0 < d < LEAST for d in apart):
            assert reason
        elif all(d == 0 or d > 2 * LEAST for d in apart):
            assert not reason
        if not reason:
            sets.append(people)
    assert 40 < len(sets) < 119


# --- what is remembered -----------------------------------------------------------------------------------------------


def test_of_two_jobs_at_once_one_comes_second(store: Store, gate: Gate) -> None:
    for turn in range(10):
        ready, reasons = threading.Barrier(2), []

        def ask(
            numbers: range, controller: str, ready: threading.Barrier = ready, reasons: list[str] = reasons
        ) -> None:
            ready.wait(10)
            reasons.append(gate(group(numbers), controller=controller))

        threads = [threading.Thread(target=ask, args=(range(n, 100), f"bank {turn}")) for n in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sorted(bool(reason) for reason in reasons) == [False, True]


def test_what_was_rolled_back_is_not_remembered(store: Store, gate: Gate) -> None:
    lost = gate.asked()
    with pytest.raises(ZeroDivisionError), store.write() as conn:
        note(conn, lost, [group(range(100))], 1)
        assert conflict(conn, gate.asked(), [group(range(99))], LEAST) != ""  # now it is in memory
        raise ZeroDivisionError
    assert gate(group(range(500, 600))) == ""  # takes the lost row's number
    assert gate(group(range(500, 599))) != ""
    assert gate(group(range(99))) == ""


def test_what_was_removed_is_forgotten(store: Store, gate: Gate) -> None:
    assert gate(group(range(100))) == ""
    assert gate(group(range(200, 300))) == ""
    assert gate(group(range(99))) != ""
    with store.write() as conn:
        conn.execute(delete(released_populations).where(released_populations.c.id == 1))
    assert gate(group(range(99))) == ""
    assert gate(group(range(98))) != ""


def test_what_another_process_noted_is_seen(store: Store, gate: Gate, tmp_path: Path) -> None:
    other = Store.at(tmp_path / "store.db")
    theirs = Gate(other)
    theirs.jobs = 100
    assert gate(group(range(100))) == ""
    assert theirs(group(range(99))) != ""
    assert theirs(group(range(200, 300))) == ""
    assert gate(group(range(200, 299))) != ""
    other.close()


def test_a_fresh_start_remembers(store: Store, gate: Gate, tmp_path: Path) -> None:
    many = [group(range(n, n + 100), name=f"group {n}") for n in range(0, 2000, 50)]
    assert gate(*many) == ""
    store.close()
    again = Store.at(tmp_path / "store.db")
    later = Gate(again)
    later.jobs = gate.jobs
    assert later(group(range(1, 100), name="first")) != ""
    again.close()


def test_a_job_that_is_read_in_two_pieces_is_whole(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_AT_ONCE", 3)
    for first in range(0, 4000, 1000):
        people = range(first, first + 500)
        assert gate(whole(people, 400), group(people[:400], name=SHARED)) == ""
    assert gate(whole(range(3, 500), 400), group(range(400), name=SHARED), controller="bank") == ""
    assert gate(whole(range(3, 500), 399)) != ""


def test_rows_hold_no_person(store: Store, gate: Gate) -> None:
    assert gate(group(range(12)), whole(range(50), 12)) == ""
    with store.read() as conn:
        rows = conn.execute(select(released_populations)).fetchall()
    assert len(rows) == 2
    for row in rows:
        assert b"99000000" not in row.sketch and len(row.sketch) == 136
        assert (row.controller, row.partners, row.content) == ("bank", "tax", b"v1".ljust(32))
    assert [(row.is_whole, row.rows, row.size) for row in rows] == [(0, 12, 12), (1, 50, 12)]
