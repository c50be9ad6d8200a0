"""Every engine against the intersection in the clear: one suite, every engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from engine_pairs import SALT, Call, digests, in_children, joined, needs_spu, over_channel, sets, terms

from sandbox.errors import InvalidSpec, PartyFailed
from sandbox.psi import commutative, ecdh, ecdh_sm2, reference
from sandbox.psi.buckets import number_of
from sandbox.psi.contract import EVERYTHING, Bucket, Role

Pair = Callable[[Call, Call], list[Any]]
LEARNERS = [None, Role.LEFT, Role.RIGHT]


@pytest.fixture(params=["x25519", "sm2", pytest.param("rr22", marks=needs_spu)])
def pair(request, place) -> Any:
    """Run one engine on both sides; return what each side returned or raised."""
    if request.param == "rr22":
        with joined(place, ("left", "right")) as spaces:
            yield lambda left, right: in_children(spaces, left, right)
    else:
        engine = {"x25519": ecdh, "sm2": ecdh_sm2}[request.param]
        yield lambda left, right: over_channel(engine, left, right)


def calls(left: pa.Array, right: pa.Array, learner: Role | None = None, **other: Any) -> tuple[Call, Call]:
    """Return what honest sides ask for, in one bucket."""
    agreed = terms(len(left), len(right), **other)
    return Call(digests(left), agreed, learner=learner), Call(digests(right), agreed, learner=learner)


def check(pair: Pair, left: pa.Array, right: pa.Array, expected: int, learner: Role | None = None) -> None:
    results = pair(*calls(left, right, learner))
    wanted = reference.intersect(left, right, SALT)
    assert len(wanted[0]) == expected
    for role, got, want in zip(Role, results, wanted, strict=True):
        assert isinstance(got, np.ndarray), got
        assert got.dtype == np.int64
        assert np.array_equal(got, want if learner in (None, role) else [])


@pytest.mark.parametrize(
    ("left", "right", "common"),
    [
        (0, 0, 0), (0, 5, 0), (5, 0, 0), (1, 1, 1), (1, 1, 0), (1, 100, 1), (7, 5, 3), (100, 100, 100),
        (100, 99, 0), (1000, 10, 5), (4097, 4096, 17),
    ],
)  # fmt: skip
def test_equals_the_reference(pair, left, right, common, monkeypatch):
    monkeypatch.setattr(commutative, "BATCH", 4096)  # so that the last of them takes two messages
    check(pair, *sets(left, right, common), common)


@pytest.mark.parametrize("learner", LEARNERS[1:])
@pytest.mark.parametrize(("left", "right", "common"), [(0, 5, 0), (1, 1, 1), (1, 1, 0), (5, 9, 3), (9, 4100, 9)])
def test_one_side_learns_and_the_other_does_not(pair, left, right, common, learner):
    check(pair, *sets(left, right, common), common, learner)


def test_awkward_keys_are_compared_byte_for_byte(pair):
    left = ["张三", "a,b", 'say "x"', "two\nlines", "0012", " 3", "1.0", "NULL", "", "é", "x\0", "\\", "'", "id", "𠮷"]
    right = ["张三", "a,b", 'say "x"', "two\nlines", "12", "3", "1", "NULL", "", "e\u0301", "x", "\\", "'", "ID", "𠮷"]
    check(pair, pa.array(left), pa.array(right[::-1]), 9)


def test_the_sequence_depends_on_neither_sides_order(pair):
    left, right = sets(50, 50, 30)
    first = pair(*calls(left, right))
    again = pair(*calls(left[::-1], right))
    people = [left.take(pa.array(first[0])).to_pylist(), left[::-1].take(pa.array(again[0])).to_pylist()]
    assert people[0] == people[1] == right.take(pa.array(first[1])).to_pylist()


def test_same_sets_in_the_same_order_are_no_special_case(pair):
    left, _ = sets(60, 60, 60)
    for learner in LEARNERS:
        check(pair, left, left, 60, learner)


@pytest.mark.parametrize("learner", LEARNERS)
def test_buckets_are_independent_and_can_be_run_again_in_any_order(pair, learner):
    left, right = sets(2000, 900, 450)
    both, agreed, of = (digests(left), digests(right)), terms(2000, 900), 3
    places = [[np.flatnonzero(number_of(side, of) == number) for number in range(of)] for side in both]
    found: list[dict[int, Any]] = [{}, {}]
    for number in (2, 0, 1, 0):
        bucket = Bucket(number, of)
        results = pair(
            *(Call(side[at[number]], agreed, bucket, learner) for side, at in zip(both, places, strict=True))
        )
        for role, got in zip(Role, results, strict=True):
            assert isinstance(got, np.ndarray), got
            found[role.value][number] = places[role.value][number][got]
    for role, want in zip(Role, reference.intersect(left, right, SALT), strict=True):
        got = np.concatenate([found[role.value][number] for number in range(of)])
        assert np.array_equal(got, want if learner in (None, role) else [])


# -- what is refused ------------------------------------------------------------------------------------------------


def test_a_key_twice_never_reaches_the_other_side(pair):
    # The peer is not even waited for: nothing has been sent.
    both = Call(digests(["a", "b", "a"]), terms(3, 3))
    assert [type(result) for result in pair(both, both)] == [InvalidSpec, InvalidSpec]


@pytest.mark.parametrize("count", [4, 6])
@pytest.mark.parametrize("of", [1, 3])
def test_another_number_of_keys_than_agreed_is_refused(pair, count, of):
    left, right = sets(5, 5, 2)
    agreed = terms(count, count)
    bucket = Bucket(0, of)
    if of > 1:  # a bucket may hold less than its share, never more than all
        left = pa.array([f"k{number}" for number in range(40)])
        left = right = left.filter(pa.array(number_of(digests(left), of) == 0))
    results = pair(Call(digests(left), agreed, bucket), Call(digests(right), agreed, bucket))
    assert [type(result) for result in results] == [InvalidSpec, InvalidSpec]


def test_keys_of_another_bucket_are_refused(pair):
    left, right = sets(50, 50, 2)
    both = [Call(digests(side), terms(50, 50), Bucket(1, 2)) for side in (left, right)]
    assert [type(result) for result in pair(*both)] == [InvalidSpec, InvalidSpec]


@pytest.mark.parametrize("other", [{"plan": b"q" * 32}, {"salt": b"another salt 16b"}, {"right_rows": 6}])
def test_different_terms_end_before_any_key_is_used(pair, other):
    left, right = sets(5, other.get("right_rows", 5), 2)
    results = pair(Call(digests(left), terms(5, 5)), Call(digests(right), terms(**{"left": 5, "right": 5}, **other)))
    assert [type(result) for result in results] == [PartyFailed, PartyFailed], results


@pytest.mark.parametrize(
    "other",
    [
        {"bucket": Bucket(1, 3)},
        {"bucket": Bucket(2, 4)},
        {"bucket": EVERYTHING},
        {"learner": Role.LEFT},
        {"learner": Role.RIGHT},
    ],
    ids=["another bucket", "another cut", "no cut", "left is to learn", "right is to learn"],
)
def test_sides_that_mean_another_bucket_or_learner_do_not_start(pair, other):
    agreed = terms(0, 0)
    nothing = np.empty((0, 2), np.uint64)
    results = pair(Call(nothing, agreed, Bucket(2, 3)), Call(nothing, agreed, **{"bucket": Bucket(2, 3)} | other))
    assert [type(result) for result in results] == [PartyFailed, PartyFailed], results


@pytest.mark.parametrize("wrong", [{"salt": b"short"}, {"left_rows": -1}, {"right_rows": 1 << 31}])
def test_terms_without_a_salt_or_with_absurd_sizes_are_refused(wrong):
    with pytest.raises(InvalidSpec):
        terms(1, 1, **wrong)
