"""Sketches of different people: exact for few, never far off for many, the same however they came; and of every job,
whom it is about."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kind_parties import EARLIER, JOB, Desk, Room, Worker
from test_kinds_intersections import ask, names, shared, spelled
from test_kinds_noisy_totals import MOST as MOST_EPSILON
from test_kinds_noisy_totals import TOTAL
from test_kinds_noisy_totals import ask as total
from test_kinds_noisy_totals import people as residents
from test_kinds_scorecard import ROWS, credit, training

from sandbox.desk import pack_result, unpack_result
from sandbox.errors import InvalidSpec
from sandbox.kinds import distinct, train
from sandbox.kinds.distinct import EXACT, Crowd, counted, merged, most
from sandbox.kinds.population import WHOLE, Sketcher, union
from sandbox.model import ApplicantScore, BatchScore, PsiOutput, RawResult, ScoreScope, ScoreSpec

SECRET = bytes(range(32))
SKETCHER = Sketcher(SECRET)


def keys(numbers: Any) -> pa.Array:
    return pa.array([f"id-{number}" for number in numbers], pa.string())


def sketch(numbers: Any, secret: bytes = SECRET) -> bytes:
    return Sketcher(secret).of("", keys(numbers), 0).people


def digests(count: int, seed: int) -> distinct.Words:
    return np.random.default_rng(seed).integers(0, 1 << 64, count, dtype=np.uint64)


# --- counting ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(0, 300), max_size=80), max_size=5))
def test_of_few_people_the_number_is_exact_and_nobody_counts_twice(groups: list[list[int]]) -> None:
    assert most(merged(sketch(group) for group in groups)) == len({one for group in groups for one in group})


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 3 * EXACT), min_size=1, max_size=4))
def test_a_sketch_of_all_is_that_of_its_parts_in_any_sequence(seed: int, cuts: list[int]) -> None:
    whole = digests(3 * EXACT, seed)
    parts = np.split(whole, sorted(cuts))
    at_once, in_parts = Crowd(), Crowd()
    at_once.add(whole)
    for part in reversed(parts):
        in_parts.add(part)
    apart = []
    for part in parts:
        own = Crowd()
        own.add(part)
        apart.append(own.done())
    assert at_once.done() == in_parts.done() == merged(apart) == merged([*apart[::-1], at_once.done()])


@pytest.mark.parametrize("count", [EXACT - 1, EXACT, EXACT + 1])
def test_exactness_ends_where_it_is_said_to(count: int) -> None:
    assert (most(sketch(range(count))) == count) is (count <= EXACT)
    assert len(sketch(range(count))) == 8 * (1 + min(count, EXACT))


@pytest.mark.parametrize("count", [EXACT + 1, 10_000, 60_000])
def test_of_many_the_bound_holds_and_is_not_far(count: int) -> None:
    """Fixed draws, and the number of those below is far from what a bound at fewer deviations would give."""
    found = []
    for seed in range(300):
        crowd = Crowd()
        crowd.add(digests(count, seed))
        found.append(most(crowd.done()) / count)
    assert sum(one < 1 for one in found) <= 3
    assert 1.0 < sum(found) / len(found) < 1.06 and max(found) < 1.11


def test_running_numbers_under_many_secrets_are_no_worse() -> None:
    """The hash is linear before its last step: ids that follow each other are what it could fail on."""
    found = [most(sketch(range(20_000), seed.to_bytes(32, "big"))) / 20_000 for seed in range(40)]
    assert sum(one < 1 for one in found) <= 1 and max(found) < 1.11
    assert sketch(range(5)) != sketch(range(5), bytes(32))


def test_a_merged_bound_is_as_good_as_a_new_one() -> None:
    halves = [sketch(range(first, first + 9000)) for first in (0, 6000)]
    assert merged(halves) == sketch(range(15_000))
    assert merged([sketch(range(9000)), sketch(range(10))]) == sketch(range(9000))  # a small one under a large one's


def test_who_comes_again_and_again_is_one_person() -> None:
    crowd = Crowd()
    for _ in range(3):
        crowd.add(np.repeat(digests(EXACT, 1), 9))
    assert most(crowd.done()) == EXACT


def test_nobody_is_no_bytes_and_garbage_is_refused() -> None:
    assert sketch([]) == merged([]) == merged([b"", b""]) == Crowd().done() == b"" and most(b"") == 0
    for garbage in (bytes(4), bytes(8 * EXACT + 16)):
        with pytest.raises(InvalidSpec):
            most(garbage)
        with pytest.raises(InvalidSpec):
            merged([garbage])


# --- in the same pass as populations ----------------------------------------------------------------------------------


def test_two_groups_are_counted_apart_and_more_together() -> None:
    codes = np.arange(90, dtype=np.int32) % 3
    apart = SKETCHER.groups(["a", "b"], keys(range(90)), codes - 1, [30, 30])
    assert [most(one.people) for one in apart] == [30, 30]
    assert apart[0].people == sketch(range(1, 90, 3))
    together = SKETCHER.groups(["a", "b", "c", "none"], keys(range(90)), np.where(codes == 2, -1, codes), [0] * 4)
    assert {one.people for one in together} == {sketch(n for n in range(90) if n % 3 < 2)}
    assert union("all", together, 0).people == together[0].people
    assert union("both", apart, 60).people == merged(one.people for one in apart)


def test_it_travels_with_what_a_stage_leaves_and_populations_do_without() -> None:
    one = SKETCHER.of(WHOLE, keys(range(70)), 70, is_whole=True)
    left = RawResult({"rows": 70}, {}, {}, (one,), one.people, 5)
    came = unpack_result(pack_result(left))
    assert came == left and (came.people, came.unknown) == (one.people, 5)
    assert came.populations[0].people == b"" and "people" not in repr(came)


# --- whom a job is about ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def worker(room: Room, party: str, subject: str = "") -> Iterator[Worker]:
    """A worker at one party of a job that was computed."""
    desk = Desk(room, party)
    room._desks = {party: desk}
    ticket = room._ticket(party, "compute", "", 0, 1, "") | {"subject": subject}
    made = Worker(desk, ticket, room._documents())  # type: ignore[arg-type]
    made.held, made.batch = room.tables[party], room.batch
    try:
        yield made
    finally:
        desk.close()


def whom(room: Room, party: str, raw: RawResult, subject: str = "") -> tuple[bytes, int]:
    with worker(room, party, subject) as at:
        done = counted(at, raw)
    assert replace(done, people=b"", unknown=0) == raw
    return done.people, done.unknown


def of(party: str, ids: Sequence[str]) -> bytes:
    return Sketcher(party[:1].encode() * 32).of("", pa.array(ids, pa.string()), 0).people


@pytest.mark.parametrize("output", [PsiOutput.ALIGNED, PsiOutput.MEMBERS_BOTH, PsiOutput.JOINED])
def test_of_an_intersection_that_both_know_it_is_the_shared_people(output: PsiOutput) -> None:
    asked = ask(output)
    for party, raw in asked.compute().items():
        assert whom(asked, party, raw) == (of(party, sorted(shared(asked))), 0)


def test_members_are_known_to_the_left_and_the_right_believes_nobody_how_many() -> None:
    asked = ask(PsiOutput.MEMBERS, sets=(names(0, 30), names(20, 100)))
    raw = asked.compute()
    assert whom(asked, "bank", raw["bank"]) == (of("bank", sorted(shared(asked))), 0)
    assert whom(asked, "operator", raw["operator"]) == (b"", 30)  # all that the left has; it says 10


@pytest.mark.parametrize("output", [PsiOutput.SIZE, PsiOutput.SUMS])
def test_of_a_size_it_is_as_many_as_were_found_or_else_as_there_can_be(output: PsiOutput) -> None:
    asked = ask(output)
    raw = asked.compute()
    assert [whom(asked, party, raw[party]) for party in ("bank", "operator")] == [(b"", 40), (b"", 60)]


def test_where_all_are_shared_nobody_is_unknown() -> None:
    asked = ask(PsiOutput.SIZE, sets=(names(0, 40), names(0, 80)))
    raw = asked.compute()
    assert whom(asked, "bank", raw["bank"]) == (of("bank", spelled(asked.tables["bank"])), 0)


def test_of_three_it_is_whom_all_have() -> None:
    asked = ask(sets=(names(0, 60), names(20, 100), names(30, 50)))
    for party, raw in asked.compute().items():
        assert whom(asked, party, raw) == (of(party, [name.upper() for name in names(30, 50)]), 0)


def test_in_parts_it_is_the_same() -> None:
    asked = ask(sets=(names(0, 900), names(300, 1500)))
    for party, raw in asked.in_parts(5).items():
        assert whom(asked, party, raw) == (of(party, sorted(shared(asked))), 0)


def test_of_totals_it_is_who_is_in_a_group_and_with_noise_everybody() -> None:
    tables = [residents(n) for n in range(3)]
    exact, noisy = total(tables, 0, TOTAL), total(tables, MOST_EPSILON, TOTAL)
    raw, hidden = exact.compute(), noisy.compute()
    for party, table in zip(("bank", "operator", "witness"), tables, strict=True):
        listed = [row["id"] for row in table.to_pylist() if row["city"] != "elsewhere"]
        assert 0 < len(listed) < table.num_rows
        assert whom(exact, party, raw[party]) == (of(party, [one.upper() for one in listed]), 0)
        assert whom(noisy, party, hidden[party]) == (of(party, spelled(table)), 0)


def test_of_a_training_and_its_batches_it_is_everybody_aligned() -> None:
    """Without its engine: all that is needed of a training is which rows it is about."""
    assert distinct.ALIGNED == train.POSITIONS
    room = credit(training(False))
    aligned = np.random.default_rng(3).permutation(ROWS)[:200]
    raw = RawResult({"rows": 200}, {}, {})
    for source, kind in ((JOB, training(False)), (EARLIER, ScoreSpec(EARLIER, BatchScore(ScoreScope.HOLDOUT)))):
        asked = credit(kind) if source == EARLIER else room
        for party in ("bank", "operator"):
            asked.artefacts[party, source, train.POSITIONS] = aligned.astype("<i8").tobytes()
            assert whom(asked, party, raw) == (of(party, [f"P{n}" for n in aligned]), 0)
    assert whom(room, "witness", raw) == (b"", 0)  # it owns nobody


@pytest.mark.parametrize(("rows", "people"), [(1, 1), (0, 0)])
def test_of_one_applicant_it_is_that_person_where_there_is_one(rows: int, people: int) -> None:
    asked = credit(ScoreSpec(EARLIER, ApplicantScore(bytes(32))))
    raw = RawResult({"rows": rows}, {}, {})
    assert whom(asked, "operator", raw, "P7") == (of("operator", ["P7"] * people), 0)
