"""Buckets: how keys fall into them, how large they are made, and how they are kept on disk."""

from __future__ import annotations

import itertools
import json
import stat

import numpy as np
import pyarrow as pa
import pytest
from engine_pairs import SALT, digests, terms
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.errors import IntegrityFailed, InvalidSpec, JobFailed, WrongState
from sandbox.psi import buckets, shards
from sandbox.psi.buckets import check_bucket, number_of, padded, padded_size, plan_buckets
from sandbox.psi.contract import Bucket, Role, Terms
from sandbox.psi.keys import digest, order
from sandbox.psi.shards import Shards, assemble


def numbered(first: int, last: int) -> pa.Array:
    return pa.array([f"k{number}" for number in range(first, last)])


# -- numbers and sizes ----------------------------------------------------------------------------------------------


def test_equal_keys_fall_into_the_same_bucket_and_buckets_follow_the_order_of_digests():
    left, right = digests(numbered(0, 3000)), digests(numbered(500, 3000))
    numbers = number_of(left, 7)
    assert np.array_equal(numbers[500:], number_of(right, 7))
    assert set(numbers.tolist()) == set(range(7)) and set(number_of(left, 1).tolist()) == {0}
    assert (np.diff(numbers[order(left)].astype(int)) >= 0).all()


@pytest.mark.parametrize("pattern", ["99%016d", "138%08d", "%d", "user-%06d@example.org"])
def test_consecutive_numbers_fall_into_even_buckets_whatever_the_salt(pattern):
    keys = pa.array(np.char.mod(pattern, np.arange(20_000)))
    for salt in range(60):
        numbers = number_of(digest(keys, b"salt number %7d" % salt), 20)
        assert np.bincount(numbers, minlength=20).max() <= 1000 + 6 * 1000**0.5


def test_bucket_plans():
    assert plan_buckets(0, 0) == plan_buckets(buckets.WHOLE, 5) == 1
    assert plan_buckets(5, buckets.WHOLE + 1) == buckets.WHOLE // buckets.BUCKET + 1
    assert plan_buckets(buckets.CURVE_BUCKET, 5, is_curve=True) == 1
    assert plan_buckets(5, 1_000_000, is_curve=True) == 1_000_000 // buckets.CURVE_BUCKET
    assert plan_buckets(10_000_000, 5) == plan_buckets(5, 10_000_000) == 10_000_000 // buckets.BUCKET


@given(rows=st.integers(0, 10**9), cut=st.integers(2, 5000))
def test_a_padded_bucket_holds_what_a_random_cut_gives(rows, cut):
    size, mean = padded_size(rows, cut), rows / cut
    over = size - mean
    # Bernstein's bound, unless everything fits anyway.
    assert size == rows or over * over / (2 * (mean + over / 3)) > 60 * np.log(2)
    assert size <= rows and padded_size(rows, 1) == rows


def test_padding_is_random_and_leaves_what_is_there():
    some = digests(["a", "b"])
    first, second = padded(some, 50), padded(some, 50)
    assert np.array_equal(first[:2], some) and first.shape == (50, 2)
    assert len({bytes(row) for row in np.concatenate([first[2:], second[2:]])}) == 96
    assert padded(some, 2) is some


@pytest.mark.parametrize("wrong", [{"number": -1, "of": 1}, {"number": 1, "of": 1}, {"number": 0, "of": 0},
                                   {"number": 0, "of": 1 << 17}])  # fmt: skip
def test_a_bucket_that_cannot_be_is_refused(wrong):
    with pytest.raises(InvalidSpec):
        Bucket(**wrong)


def test_what_is_no_bucket_of_the_terms_is_refused():
    whole, agreed = digests(numbered(0, 300)), terms(300, 5)
    check_bucket(whole, Role.LEFT, agreed, Bucket(0, 1))
    part = whole[number_of(whole, 3) == 1]
    check_bucket(part, Role.LEFT, agreed, Bucket(1, 3))
    for bad, bucket in (
        (whole[:-1], Bucket(0, 1)),  # fewer than the terms say
        (part, Bucket(2, 3)),  # of another bucket
        (np.concatenate([part, part[:1]]), Bucket(1, 3)),  # twice
        (np.repeat(part[:1], 300, axis=0), Bucket(1, 3)),  # more than the padding hides
        (whole.astype(np.int64), Bucket(0, 1)),
        (whole[:, 0], Bucket(0, 1)),
        (numbered(0, 300), Bucket(0, 1)),
    ):
        with pytest.raises(InvalidSpec):
            check_bucket(bad, Role.LEFT, agreed, bucket)


# -- shards ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(max_size=12), unique=True, max_size=80),
    cuts=st.lists(st.integers(0, 80), max_size=4),
    count=st.integers(1, 6),
    held=st.integers(1, 40),
    elsewhere=st.booleans(),
)
def test_every_row_comes_back_once_in_its_bucket(tmp_path_factory, texts, cuts, count, held, elsewhere):
    directory = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "HELD", held)
        writer = Shards(directory, SALT, count)
        edges = sorted({0, len(texts), *(min(cut, len(texts)) for cut in cuts)})
        for first, last in itertools.pairwise(edges):
            writer.add(pa.array(texts[first:last], pa.string()), 1000 + first)
        assert not texts or writer.rows == len(texts)
        writer.close()
    reader = Shards(directory, SALT, count) if elsewhere and count > 1 else writer
    assert reader.rows == len(texts)
    whole = digests(texts)
    seen = []
    for number in range(count):
        part, rows = reader.load(number)
        assert part.dtype == np.uint64 and part.shape == (len(rows), 2) and rows.dtype == np.int64
        assert np.array_equal(part, whole[rows - 1000])
        assert (number_of(part, count) == number).all()
        seen.append(rows[order(part)])
    together = assemble(seen)
    assert np.array_equal(together - 1000, order(whole))


def test_nothing_assembled_is_an_empty_array():
    assert assemble([]).dtype == assemble([np.empty(0, np.int64)]).dtype == np.int64


def test_files_are_private_and_hold_nothing_of_a_key(tmp_path):
    marked = [f"CANARY-{number}" for number in range(500)]
    table = Shards(tmp_path, SALT, 4)
    table.add(pa.array(marked), 0)
    table.close()
    table.close()
    files = list(tmp_path.iterdir())
    assert len(files) == 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    content = b"".join(path.read_bytes() for path in files)
    assert b"CANARY" not in content and SALT not in content and SALT.hex().encode() not in content
    assert sum(path.stat().st_size for path in files if path.name != "index") == 24 * 500
    table.remove(2)
    table.remove(2)
    assert len(list(tmp_path.iterdir())) == 4
    with pytest.raises(WrongState):
        table.load(2)


def test_one_bucket_is_never_written(tmp_path):
    table = Shards(tmp_path, SALT, 1)
    table.add(numbered(0, 10), 5)
    table.add(numbered(10, 12), 15)
    table.close()
    for _ in range(2):  # a bucket may be repeated
        part, rows = table.load(0)
        assert rows.tolist() == list(range(5, 17)) and np.array_equal(part, digests(numbered(0, 12)))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(WrongState):
        Shards(tmp_path, SALT, 1).load(0)
    table.remove(0)
    with pytest.raises(WrongState):
        table.load(0)


@pytest.mark.parametrize("count", [1, 3])
def test_a_key_that_comes_twice_anywhere_is_found(tmp_path, count):
    table = Shards(tmp_path, SALT, count)
    table.add(numbered(0, 200), 0)
    table.add(numbered(77, 78), 200)
    table.close()
    ends = []
    for number in range(count):
        try:
            ends.append(len(table.load(number)[0]))
        except InvalidSpec as error:
            assert "77" not in str(error)
            ends.append(-1)
    assert ends.count(-1) == 1


@pytest.mark.parametrize("count", [1, 3])
def test_calls_out_of_order_are_refused(tmp_path, count):
    table = Shards(tmp_path, SALT, count)
    with pytest.raises(WrongState):
        table.load(0)
    table.add(numbered(0, 50), 0)
    with pytest.raises(WrongState):
        table.load(0)
    table.close()
    with pytest.raises(WrongState):
        table.add(numbered(50, 60), 50)
    for number in (-1, count):
        with pytest.raises(InvalidSpec):
            table.load(number)


def test_bad_batches_are_refused(tmp_path):
    with pytest.raises(InvalidSpec):
        Shards(tmp_path, SALT, 0)
    table = Shards(tmp_path, SALT, 2)
    for keys, first in (
        (pa.array(["a", None]), 0),
        (pa.array([1]), 0),
        (pa.array(["a"]), -1),
        (pa.array(["a"]), 2**63),
    ):
        with pytest.raises(InvalidSpec):
            table.add(keys, first)
    table.close()
    assert table.rows == 0 and len(table.load(1)[0]) == 0


def test_remains_of_another_run_are_not_taken_for_ours(tmp_path):
    table = Shards(tmp_path, SALT, 2)
    table.add(numbered(0, 50), 0)
    table.close()
    for other in (Shards(tmp_path, b"another salt 16b", 2), Shards(tmp_path, SALT, 3)):
        with pytest.raises(WrongState):
            other.load(0)
    with pytest.raises(WrongState):
        Shards(tmp_path, SALT, 2).add(numbered(50, 60), 50)
    (tmp_path / "index").unlink()  # as after a crash of the writer
    with pytest.raises(WrongState):
        Shards(tmp_path, SALT, 2).load(0)
    with pytest.raises(WrongState):
        Shards(tmp_path, SALT, 2).add(numbered(0, 50), 0)
    with pytest.raises(JobFailed):
        Shards(tmp_path / "missing", SALT, 2).add(numbered(0, 50), 0)


def test_damaged_files_are_refused(tmp_path):
    table = Shards(tmp_path, SALT, 2)
    table.add(numbered(0, 50), 0)
    table.close()
    one, two = (tmp_path / f"bucket-{number}" for number in (0, 1))
    good = one.read_bytes()
    one.write_bytes(good[:-24])
    with pytest.raises(IntegrityFailed):
        table.load(0)
    one.write_bytes(two.read_bytes()[: len(good)] + good[len(two.read_bytes()) :])
    with pytest.raises(IntegrityFailed):
        table.load(0)
    for index in ("", "[]", json.dumps({"salt": 3})):
        (tmp_path / "index").write_text(index)
        with pytest.raises(IntegrityFailed):
            Shards(tmp_path, SALT, 2).load(0)


def test_a_directory_that_goes_away_is_an_error_of_ours(tmp_path):
    directory = tmp_path / "shards"
    directory.mkdir()
    table = Shards(directory, SALT, 2)
    table.add(numbered(0, 50), 0)
    directory.rmdir()
    with pytest.raises(JobFailed):
        table.close()


def test_terms_count_the_whole_table_not_a_bucket():
    agreed = Terms(b"p", SALT, 1000, 10)
    shown = agreed.agreement("e/1", Bucket(2, 5), Role.RIGHT)
    assert (shown["left_rows"], shown["bucket"], shown["of"], shown["learner"]) == (1000, 2, 5, "right")
    assert agreed.agreement("e/1")["learner"] == "both" and SALT.hex() not in str(shown)
