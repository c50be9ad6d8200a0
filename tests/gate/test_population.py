"""Sketches of groups: never more apart than the groups are, never the same for others, the same however they are read;
and whom an intersection's parties say that it is about."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.errors import InvalidSpec
from sandbox.kinds.population import BITS, SHARED, SKETCH_SIZE, SUMMED, WHOLE, Sketcher, differing, union, words
from sandbox.model import Measure, MeasureRange, Population, PsiEngine, PsiOutput, PsiSpec, Statistic
from sandbox.psi.keys import digest

sys.path.append(str(Path(__file__).parents[1] / "kinds"))
from kind_parties import NAMES, Room, ref, room, scenario

SECRET = bytes(range(32))
SKETCHER = Sketcher(SECRET)


def people(numbers: Any) -> pa.Array:
    return pa.array([f"99{number:016d}" for number in numbers], pa.string())


def sketch(numbers: Any) -> bytes:
    return SKETCHER.of("some", people(numbers), 0).sketch


def test_every_person_toggles_the_bit_and_adds_the_number_of_its_digest() -> None:
    keys = people([*range(700), 3])
    bits, total = 0, 0
    for first, _ in digest(keys, SECRET).tolist():
        bits ^= 1 << (first >> 54)
        total += first
    one = SKETCHER.of("all", keys, 700, is_whole=True)
    assert one.sketch == bits.to_bytes(BITS // 8, "little") + (total % 2**64).to_bytes(8, "little")
    assert (one.name, one.rows, one.size, one.is_whole) == ("all", 701, 700, True)
    assert len(one.sketch) == SKETCH_SIZE == 136


@settings(deadline=None, max_examples=200)
@given(
    st.sets(st.integers(0, 400)),
    st.sets(st.integers(0, 400)),
    st.binary(min_size=16, max_size=32),
)
def test_sketches_are_never_farther_apart_than_groups_and_equal_for_equal_groups_only(
    some: set[int], others: set[int], secret: bytes
) -> None:
    one, other = (Sketcher(secret).of("", people(sorted(group)), 0).sketch for group in (some, others))
    apart = len(some ^ others)
    found = differing(one, other)
    assert 0 <= found <= apart
    assert (found == 0) is (some == others)
    ones = int(np.bitwise_count(np.bitwise_xor(*words(one + other))[: BITS // 64]).sum())
    assert ones % 2 == apart % 2


def test_two_people_who_toggle_the_same_bit_do_not_pass_for_one_another() -> None:
    bits = [first >> 54 for first, _ in digest(people(range(200)), SECRET).tolist()]
    one, other = next((a, b) for a in range(200) for b in range(a) if bits[a] == bits[b])
    with_one, with_other = sketch([*range(200, 300), one]), sketch([*range(200, 300), other])
    assert with_one[: BITS // 8] == with_other[: BITS // 8]
    assert differing(with_one, with_other) == 1
    assert differing(with_one, sketch([*range(200, 300), one])) == 0


def test_a_person_who_is_there_twice_or_three_times_is_noticed() -> None:
    once = sketch(range(100))
    assert differing(once, sketch([*range(100), 7])) == 1  # toggled back: as if the person were gone
    assert differing(once, sketch([*range(100), 7, 7])) == 1  # the same bits, another sum
    assert SKETCHER.of("", people([*range(100), 7, 7]), 0).rows == 102
    assert differing(sketch([*range(100), 7]), sketch(number for number in range(100) if number != 7)) == 1


def test_sequence_batches_and_layout_of_keys_make_no_difference() -> None:
    keys = people(np.random.default_rng(1).permutation(5000))
    whole = SKETCHER.of("all", keys, 5000)
    in_batches = SKETCHER.start()
    for first in range(0, 5000, 700):
        in_batches.add(keys.slice(first, 700))
    assert in_batches.done(["all"], [5000]) == (whole,)
    assert SKETCHER.of("all", keys[::-1], 5000) == whole
    assert SKETCHER.of("all", keys.cast(pa.large_string()), 5000) == whole
    assert Sketcher(SECRET[::-1]).of("all", keys, 5000).sketch != whole.sketch


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(-1, 4), max_size=60), st.integers(1, 20))
def test_groups_are_what_each_is_alone_and_margins_are_their_union(codes: list[int], each: int) -> None:
    keys, held = people(range(len(codes))), np.array(codes, np.int32)
    names, sizes = [f"cell {number}" for number in range(5)], [10 * number for number in range(5)]
    cells = SKETCHER.groups(names, keys, held, sizes)
    for number, cell in enumerate(cells):
        own = keys.filter(pa.array(held == number))
        assert cell == SKETCHER.of(names[number], own, sizes[number])
    tally = SKETCHER.start(5)
    for first in range(0, len(codes), each):
        tally.add(keys.slice(first, each), held[first : first + each])
    assert tally.done(names, sizes) == cells
    listed = keys.filter(pa.array(held >= 0))
    assert union("all", cells, 100) == SKETCHER.of("all", listed, 100)
    assert union("all", cells, 100, is_whole=True) == SKETCHER.of("all", listed, 100, is_whole=True)


def test_nobody_is_a_group_too() -> None:
    nobody = SKETCHER.of("nobody", people([]), 0)
    assert nobody == Population("nobody", bytes(SKETCH_SIZE), 0, 0)
    assert union("none", [], 0).sketch == nobody.sketch


def test_what_is_no_group_is_refused() -> None:
    keys, codes = people(range(3)), np.array([0, 1, 2], np.int32)
    for wrong in (
        lambda: Sketcher(b"short"),
        lambda: SKETCHER.of("", pa.array(["a", None]), 2),
        lambda: SKETCHER.of("", pa.array([1, 2]), 2),
        lambda: SKETCHER.groups(["a", "b"], keys, codes, [1, 1]),
        lambda: SKETCHER.groups(["a", "b"], keys, codes - 2, [1, 1]),
        lambda: SKETCHER.groups(["a", "b", "c"], keys, codes[:2], [1, 1, 1]),
        lambda: SKETCHER.groups(["a", "b", "c"], keys, codes, [1, 1]),
        lambda: SKETCHER.start(2).add(keys),
        lambda: differing(bytes(SKETCH_SIZE), bytes(SKETCH_SIZE - 1)),
    ):
        with pytest.raises(InvalidSpec):
            wrong()


def chance(people_apart: int, least: int) -> float:
    """The chance that so many people toggle fewer than ``least`` bits: a walk over the number of ones."""
    ones = np.zeros(BITS + 1)
    ones[0], places = 1.0, np.arange(BITS + 1)
    for _ in range(people_apart):
        after = np.zeros_like(ones)
        after[1:] = ones[:-1] * (BITS - places[:-1]) / BITS
        after[:-1] += ones[1:] * places[1:] / BITS
        ones = after
    return float(ones[:least].sum())


FIGURES = [
    *[(10, 10, 0.043), (10, 12, 0.0014), (10, 20, 1.1e-9)],
    *[(20, 20, 0.17), (20, 24, 0.0016), (20, 40, 8.9e-13)],
    *[(100, 100, 0.99), (100, 112, 0.33), (100, 126, 0.0059), (100, 150, 1.8e-7)],
]


@pytest.mark.parametrize(("least", "people_apart", "told"), FIGURES)
def test_the_chance_that_a_large_difference_passes_for_a_small_one_is_what_the_page_says(
    least: int, people_apart: int, told: float
) -> None:
    assert chance(people_apart, least) == pytest.approx(told, rel=0.05)
    page = (Path(__file__).parents[2] / "docs" / "gate.md").read_text(encoding="utf-8")
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {least} | {people_apart} |")]
    assert float(line.split("|")[3]) == told


def test_sketches_collide_as_often_as_bits_drawn_at_random() -> None:
    tries = 4000
    codes = np.repeat(np.arange(tries, dtype=np.int32), 20)
    groups = SKETCHER.groups([""] * tries, people(range(20 * tries)), codes, [0] * tries)
    ones = np.bitwise_count(words(b"".join(group.sketch for group in groups))[:, : BITS // 64]).sum(axis=1)
    few = float((ones < 20).mean())
    assert abs(few - chance(20, 20)) < 5 * np.sqrt(0.17 * 0.83 / tries)


# --- the parties of an intersection -----------------------------------------------------------------------------------


class Place(Room):
    """A room whose nodes have secrets of their own."""

    def _ticket(self, me: str, *stage: Any) -> dict[str, Any]:
        return super()._ticket(me, *stage) | {"population_key": (me.encode() * 32)[:32].hex()}


def table(numbers: range) -> pa.Table:
    ids = [f"PERSON-{number:04d}" for number in numbers]
    late = pa.array([number % 7 for number in numbers], pa.int64())
    return pa.table({"id": pa.array(ids, pa.string()), "late": late})


def ask(output: PsiOutput, sets: list[range], engine: str = "ecdh-sm2") -> Place:
    kind = PsiSpec(
        ref(NAMES[0]),
        ref(NAMES[1]),
        PsiEngine.PREPARED_SM2 if engine == "prepared-sm2" else PsiEngine.AUTO,
        output,
        (Measure("late", Statistic.SUM, "late"),) if output is PsiOutput.SUMS else (),
        ("late",) if output is PsiOutput.JOINED else (),
        ref(NAMES[2]) if len(sets) == 3 else None,
    )
    engine = {PsiOutput.SIZE: "count-sm2", PsiOutput.SUMS: "loads-sm2"}.get(output, engine)
    held = scenario([("late",)] * len(sets), (), (MeasureRange("late", 0, 10),))
    made = room(kind, held, [table(own) for own in sets], engine)
    return Place(made.tables, made.scenario, made.spec, made.plan, made.recipient)


def named(party: str, name: str, numbers: range, size: int, is_whole: bool = False) -> Population:
    keys = pa.array([f"PERSON-{number:04d}" for number in numbers], pa.string())
    return Sketcher((party.encode() * 32)[:32]).of(name, keys, size, is_whole)


SETS = [range(0, 60), range(20, 100), range(10, 50)]
BOTH, ALL = range(20, 60), range(20, 50)


@pytest.mark.parametrize(
    ("output", "engine", "left", "right"),
    [
        (PsiOutput.ALIGNED, "ecdh-sm2", True, True),
        (PsiOutput.MEMBERS_BOTH, "ecdh-x25519", True, True),
        (PsiOutput.JOINED, "ecdh-sm2", True, True),
        (PsiOutput.MEMBERS, "ecdh-sm2", True, False),
        (PsiOutput.MEMBERS, "prepared-sm2", True, False),
        (PsiOutput.SIZE, "", False, False),
        (PsiOutput.SUMS, "", False, False),
    ],
)
def test_a_party_names_all_it_brought_and_those_it_knows_to_be_shared(
    output: PsiOutput, engine: str, left: bool, right: bool
) -> None:
    raw = ask(output, SETS[:2], engine).compute()
    whole = (WHOLE, SUMMED if output is PsiOutput.SUMS else WHOLE)
    for number, (party, knows) in enumerate(zip(NAMES, (left, right), strict=False)):
        expected = [named(party, whole[number], SETS[number], 40, is_whole=True)]
        expected += [named(party, SHARED, BOTH, 40)] if knows else []
        assert raw[party].populations == tuple(expected)


def test_of_three_each_names_those_all_three_share() -> None:
    raw = ask(PsiOutput.ALIGNED, SETS).compute()
    for party, own in zip(NAMES, SETS, strict=False):
        assert raw[party].populations == (named(party, WHOLE, own, 30, is_whole=True), named(party, SHARED, ALL, 30))


def test_in_parts_it_is_the_same_people() -> None:
    raw = ask(PsiOutput.ALIGNED, SETS[:2]).in_parts(3)
    for party, own in zip(NAMES[:2], SETS[:2], strict=True):
        assert raw[party].populations == (named(party, WHOLE, own, 40, is_whole=True), named(party, SHARED, BOTH, 40))


def test_who_brought_only_shared_people_knows_who_they_are() -> None:
    raw = ask(PsiOutput.SIZE, [range(30, 50), SETS[1]]).compute()
    mine = named("bank", WHOLE, range(30, 50), 20, is_whole=True), named("bank", SHARED, range(30, 50), 20)
    assert raw["bank"].populations == mine
    assert raw["operator"].populations == (named("operator", WHOLE, SETS[1], 20, is_whole=True),)
