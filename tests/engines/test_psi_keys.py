from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.crypto.sm3 import hmac_sm3
from sandbox.errors import InvalidSpec, ProtocolFailed
from sandbox.psi import keys, native, rr22_child, table

SALT = b"salt of this run"

needs_extension = pytest.mark.skipif(native.ROWS is None, reason="the C extension is not built")


@pytest.fixture(autouse=True, scope="module", params=[pytest.param("c", marks=needs_extension), "numpy"])
def way(request):
    """Everything here is done in C, and again in numpy."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "numpy":
            patch.setattr(native, "ROWS", None)
        yield request.param


def slow_digest(text: str, salt: bytes) -> tuple[int, int]:
    """The same formula, one key and one lane at a time, in Python's integers."""
    data = text.encode("utf-8")
    padded = data + bytes(-len(data) % 4)
    words = [len(data)] + [int.from_bytes(padded[place : place + 4], "little") for place in range(0, len(padded), 4)]
    stream = b"".join(hmac_sm3(salt, b"sandbox/v1/psi-keys\0" + i.to_bytes(4, "big")) for i in range(len(words) + 1))
    factor = [int.from_bytes(stream[place : place + 8], "little") for place in range(0, len(stream), 8)]
    sums = [factor[lane] + factor[4 + lane] * words[0] for lane in range(4)]
    for place, word in enumerate(words[1:]):
        sums = [total + factor[8 + 4 * place + lane] * word for lane, total in enumerate(sums)]
    top = [total % 2**64 >> 32 for total in sums]
    second = scattered = top[2] << 32 | top[3]
    for shift, factor_ in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        scattered = (scattered ^ scattered >> shift) * factor_ % 2**64
    return (top[0] << 32 | top[1]) ^ scattered, second


@given(st.lists(st.text(max_size=20), max_size=20), st.integers(0, 3))
def test_digests_equal_the_formula_whatever_the_lengths_and_slices(texts, skip):
    array = pa.array(texts, pa.string())[skip:]
    expected = [slow_digest(text, SALT) for text in texts[skip:]]
    assert [tuple(map(int, pair)) for pair in keys.digest(array, SALT)] == expected
    large = pa.chunked_array([pa.array(texts[skip:], pa.large_string())])
    assert [tuple(map(int, pair)) for pair in keys.digest(large, SALT)] == expected


def test_padding_and_salt_matter():
    texts = ["", "\0", "\0\0", "a", "a\0", "a\0\0\0", "a\0\0\0\0"]
    digests = keys.digest(pa.array(texts), SALT)
    assert len({bytes(row) for row in digests}) == len(texts)
    assert not (keys.digest(pa.array(texts), b"another salt 16b") == digests).all(axis=1).any()


def test_blocks_do_not_change_digests(monkeypatch):
    array = pa.array([f"k{number}" for number in range(1000)])
    whole = keys.digest(array, SALT)
    monkeypatch.setattr(keys, "_BLOCK", 7)
    assert np.array_equal(keys.digest(array, SALT), whole)


def test_order_sorts_and_breaks_ties_by_the_second_word():
    digests = np.array([[5, 2], [5, 1], [1, 9]], np.uint64)
    assert keys.order(digests).tolist() == [2, 1, 0]
    assert keys.order(digests[:0]).tolist() == []


def test_duplicates_are_found_and_near_duplicates_are_not():
    keys.check_unique(np.array([[5, 2], [5, 1]], np.uint64))
    with pytest.raises(InvalidSpec):
        keys.check_unique(np.array([[5, 2], [4, 4], [5, 2]], np.uint64))


@pytest.mark.parametrize(
    "array", [pa.array(["a", None]), pa.array([1, 2]), pa.array([b"a"]), pa.array(["x" * 1025]), ["a"]]
)
def test_what_is_no_array_of_keys_is_refused(array):
    with pytest.raises(InvalidSpec):
        keys.digest(array, SALT)


def test_tables_come_back_as_they_were_written(tmp_path):
    digests = keys.digest(pa.array([f"键{number}" for number in range(300)]), SALT)
    table.write(tmp_path / "in.csv", digests)
    body = (tmp_path / "in.csv").read_bytes().removeprefix(table.HEADER)
    lines = body.splitlines(keepends=True)
    assert lines[7] == bytes(digests[7]).hex().encode() + b",00000007\n" and {len(line) for line in lines} == {42}
    answer = tmp_path / "out.csv"
    answer.write_bytes(table.ANSWER_HEADER + lines[299] + lines[0] + lines[128])
    assert table.read(answer, digests).tolist() == [299, 0, 128]


def test_damaged_answers_are_refused(tmp_path):
    digests = keys.digest(pa.array(["a", "b"]), SALT)
    table.write(tmp_path / "in.csv", digests)
    first, second = (tmp_path / "in.csv").read_bytes().removeprefix(table.HEADER).splitlines(keepends=True)
    swapped = first[:33] + second[33:]
    answer = tmp_path / "out.csv"
    for content in (
        b"", b"id,row\n" + first, table.ANSWER_HEADER + first[:-1], table.ANSWER_HEADER + first + first,
        table.ANSWER_HEADER + swapped, table.ANSWER_HEADER + first[:33] + b"00000002\n",
        table.ANSWER_HEADER + first[:33] + b"0000000x\n", table.ANSWER_HEADER + first[:32] + b";" + first[33:],
    ):  # fmt: skip
        answer.write_bytes(content)
        with pytest.raises(ProtocolFailed):
            table.read(answer, digests)
    with pytest.raises(ProtocolFailed):
        table.read(tmp_path / "missing.csv", digests)


# -- both ways, side by side -------------------------------------------------------------------------------------------


def in_numpy(call, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "ROWS", None)
        return call(*arguments)


def random_digests(count, seed):
    return np.random.default_rng(seed).integers(0, 2**64, (count, 2), np.uint64)


def crowded(seed):
    """Digests that somebody made: many with the same leading bits, many with the same first word, none twice."""
    digests = random_digests(4000, seed)
    digests[:1500, 0] %= np.uint64(1000)
    digests[1500:2000, 0] = 7
    digests[2000:2100, 0] = 2**64 - 1
    digests[2100:2200, 0] = 0
    return np.random.default_rng(seed + 1).permutation(digests)


@pytest.mark.parametrize("digests", [random_digests(1, 0), random_digests(5000, 1), crowded(2), crowded(3)[::2]])
def test_one_order_both_ways(digests):
    order = keys.order(digests)
    ordered = digests[order]
    assert sorted(order.tolist()) == list(range(len(digests)))
    assert [tuple(row) for row in ordered.tolist()] == sorted(tuple(row) for row in digests.tolist())
    assert np.array_equal(order, in_numpy(keys.order, digests))


@pytest.mark.parametrize("make", [lambda: random_digests(3000, 4), lambda: crowded(5)])
def test_one_key_twice_is_found_in_any_crowd(make):
    digests = make()
    keys.check_unique(digests)
    for first, second in ((0, len(digests) - 1), (17, 18), (999, 2500)):
        twice = digests.copy()
        twice[second] = twice[first]
        with pytest.raises(InvalidSpec, match="twice"):
            keys.check_unique(twice)


def test_a_shuffle_is_a_permutation_of_its_own_each_time():
    for count in (0, 1, 2, 1000):
        assert sorted(keys.shuffled(count).tolist()) == list(range(count))
    assert not np.array_equal(keys.shuffled(1000), keys.shuffled(1000))
    firsts = np.bincount([int(keys.shuffled(4)[0]) for _ in range(4000)], minlength=4)
    assert firsts.min() > 850 and firsts.max() < 1150  # 1000, and five standard deviations


def test_one_file_and_one_checksum_both_ways(tmp_path):
    digests = random_digests(300_000, 6)
    table.write(tmp_path / "one.csv", digests)
    in_numpy(table.write, tmp_path / "other.csv", digests)
    written = (tmp_path / "one.csv").read_bytes()
    assert written == (tmp_path / "other.csv").read_bytes()
    answer = tmp_path / "answer.csv"
    answer.write_bytes(table.ANSWER_HEADER + written.removeprefix(table.HEADER))
    assert np.array_equal(table.read(answer, digests), np.arange(len(digests)))
    assert rr22_child._checksum(answer) == in_numpy(rr22_child._checksum, answer)
    assert rr22_child._checksum(answer) == f"{sum(int(bytes(row).hex(), 16) for row in digests):x}"
