"""Keys: columns joined in one spelling, the hash that finds equal ones, made-up identity numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from key_reference import check_digit, plain

from sandbox.catalog import ids
from sandbox.catalog.formats import KeyFormat
from sandbox.catalog.ids import DAYS, SEQUENCES, digest128, made_up_ids
from sandbox.crypto.sm3 import sm3
from sandbox.errors import InvalidSpec

VECTORS = Path(__file__).parents[1] / "vectors" / "key_normalisation.json"
MASK = 2**64 - 1

TEXT, PHONE, NAME = KeyFormat.TEXT, KeyFormat.PHONE, KeyFormat.NAME

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def normalise(columns: Sequence[pa.Array | pa.ChunkedArray], *formats: KeyFormat) -> pa.Array:
    return ids.normalise(columns, formats or [TEXT] * len(columns))


def slow_lanes(key: bytes, salt: bytes) -> tuple[int, int]:
    """Compute the hash one byte after the other, as its specification reads."""
    stream = b"".join(sm3(b"sandbox/v1/key-hash\0" + salt + end) for end in (b"", b"\x01"))
    s = [int.from_bytes(stream[8 * i : 8 * i + 8], "little") for i in range(8)]
    lanes = []
    for lane in range(2):
        h = (s[2 * lane] + len(key)) & MASK
        for begin in range(0, len(key), 8):
            h = (h ^ int.from_bytes(key[begin : begin + 8], "little")) * (s[2 * lane + 1] | 1) & MASK
            h ^= h >> 32
        h = (h + s[4 + lane]) * 0xBF58476D1CE4E5B9 & MASK
        h ^= h >> 29
        h = h * 0x94D049BB133111EB & MASK
        lanes.append(h ^ h >> 32)
    return lanes[0], lanes[1]


@settings(deadline=None)
@given(st.lists(texts, max_size=12), st.binary(max_size=40))
def test_the_hash_equals_its_slow_reference(keys: list[str], salt: bytes) -> None:
    slow = [slow_lanes(key.encode(), salt) for key in keys]
    array = pa.array(["before", *keys, "behind"], pa.string()).slice(1, len(keys))
    for form in (array, array.cast(pa.large_string()), pa.chunked_array([array[:1], array[1:]], pa.string())):
        assert [tuple(row) for row in digest128(form, salt).tolist()] == slow


def test_the_hash_is_even_and_its_salt_matters() -> None:
    keys = made_up_ids(64_000, seed=5)
    one, other = digest128(keys, b"1"), digest128(keys, b"2")
    assert one.dtype == np.uint64 and one.shape == (64_000, 2)
    for lane in (0, 1):
        sizes = np.bincount((one[:, lane] >> np.uint64(58)).astype(np.int64), minlength=64)
        assert sizes.min() > 850 and sizes.max() < 1150  # five standard deviations around 1000
    assert not (one == other).any() and not (one[:, 0] == one[:, 1]).any()


def test_a_missing_key_has_no_hash() -> None:
    with pytest.raises(InvalidSpec, match="key 3 is missing"):
        digest128(pa.array(["canary", "b", None]), b"")
    with pytest.raises(InvalidSpec, match="not text"):
        digest128(pa.array([1]), b"")


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), texts), max_size=10))
def test_normalising_twice_changes_nothing(keys: list[str | None]) -> None:
    once = normalise([pa.array(keys, pa.string())])
    assert normalise([once]).equals(once)


@settings(deadline=None)
@given(st.lists(texts, min_size=1, max_size=5))
def test_letter_case_blanks_and_width_do_not_matter(keys: list[str]) -> None:
    upper = str.maketrans("abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    spelled = [f" \u3000{key.translate(upper)}\t" for key in keys]
    assert normalise([pa.array(spelled)]).equals(normalise([pa.array(keys)]))


def test_spellings() -> None:
    found = normalise([pa.array([" 99000019900101005x ", "１２ａ", "i\u0307", "ﬁ", None, "", "é", "e\u0301", "ß"])])
    assert found.to_pylist() == ["99000019900101005X", "12A", "\u0130", "FI", None, "", "é", "é", "ß"]
    assert normalise([pa.array([7, -1, None])]).to_pylist() == ["7", "-1", None]
    assert normalise([pa.array([date(2020, 2, 3)])]).to_pylist() == ["2020-02-03"]
    assert normalise([pa.array(["a", "a"]).dictionary_encode()]).to_pylist() == ["A", "A"]
    assert normalise([pa.chunked_array([["a"], ["b"]])]).to_pylist() == ["A", "B"]


plain_parts = st.text("ab1\x1e ", max_size=4)


@settings(deadline=None)
@given(st.lists(st.tuples(plain_parts, plain_parts), min_size=2, max_size=2))
def test_joined_keys_are_equal_only_if_all_parts_are(rows: list[tuple[str, str]]) -> None:
    columns = [pa.array(column) for column in zip(*rows, strict=True)]
    joined = normalise(columns).to_pylist()
    parts = [normalise([column]).to_pylist() for column in columns]
    assert (joined[0] == joined[1]) == all(part[0] == part[1] for part in parts)


def test_a_joined_key_lacks_what_a_part_lacks() -> None:
    assert normalise([pa.array(["a", None, ""]), pa.array([None, "b", "c"])]).to_pylist() == [None, None, "\x1fC"]


def test_keys_that_cannot_be_joined_are_refused_without_being_quoted() -> None:
    with pytest.raises(InvalidSpec, match=r"key 2 contains") as caught:
        normalise([pa.array(["a", "ca\x1fnary"]), pa.array(["a", "b"])])
    assert "nary" not in str(caught.value)
    for columns in ([], [pa.array(["a"]), pa.array(["a", "b"])], [pa.array([1.5])], [pa.array([], pa.float64())]):
        with pytest.raises(InvalidSpec):
            normalise(columns)
    with pytest.raises(InvalidSpec, match="2 columns was given 1 formats"):
        ids.normalise([pa.array(["a"]), pa.array(["b"])], [TEXT])


def test_a_key_of_several_columns_has_each_part_in_its_format() -> None:
    columns = [pa.array(["张 三", "李四"]), pa.array(["138 0013 8000", "H123 45"]), pa.array([7, 8])]
    assert normalise(columns, NAME, PHONE, TEXT).to_pylist() == [
        "张三\x1f+8613800138000\x1f7",
        "李四\x1fH123 45\x1f8",  # no telephone number: as it is
    ]


@settings(deadline=None)
@given(st.lists(st.tuples(texts, st.sampled_from(["13800138000", "+86 138-0013-8000", "x"])), max_size=9))
def test_where_blocks_and_chunks_end_does_not_matter(rows: list[tuple[str, str]]) -> None:
    names, phones = (pa.array([row[place] for row in rows], pa.string()) for place in (0, 1))
    chunked = pa.chunked_array([names[:2], names[2:2], names[2:]], pa.string())
    first = next((place for place, row in enumerate(rows) if any("\x1f" in str(part) for part in _parts(row))), None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ids, "BLOCK", 4)
        if first is not None:
            with pytest.raises(InvalidSpec, match=f"^key {first + 1} contains"):
                normalise([chunked, phones], NAME, PHONE)
            return
        found = normalise([chunked, phones], NAME, PHONE)
    assert found.to_pylist() == ["\x1f".join(map(str, _parts(row))) for row in rows]
    assert found.type == pa.string()


def test_a_key_that_cannot_be_joined_is_counted_through_all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "BLOCK", 4)
    for place in range(10):
        parts = ["b\x1fc" if row == place else "a" for row in range(10)]
        with pytest.raises(InvalidSpec, match=f"^key {place + 1} contains"):
            normalise([pa.array(["a"] * 10), pa.array(parts)])


def _parts(row: tuple[str, str]) -> tuple[str | None, str | None]:
    return plain(row[0], NAME)[0], plain(row[1], PHONE)[0]


def test_made_up_ids_look_right_and_belong_to_nobody() -> None:
    found = made_up_ids(20_000, seed=1)
    assert found.type == pa.string() and pc.count_distinct(found).as_py() == 20_000
    for one in found.to_pylist()[:2000]:
        assert one[:6] == "990000" and one[17] == check_digit(one[:17]) and one[14:17] != "000"
        assert date(1950, 1, 1) <= date(int(one[6:10]), int(one[10:12]), int(one[12:14])) <= date(2005, 12, 31)


def test_made_up_ids_follow_their_seed() -> None:
    assert made_up_ids(1000, 7).equals(made_up_ids(2000, 7)[:1000])
    assert not made_up_ids(1000, 7).equals(made_up_ids(1000, 8))
    assert made_up_ids(3, 1).to_pylist() == json.loads(VECTORS.read_text())["made_up_ids_seed_1"]
    assert len(made_up_ids(0, 1)) == 0


def test_every_birthday_and_sequence_comes_once() -> None:
    day, sequence = ids.shuffled(DAYS * SEQUENCES, seed=3)
    assert sequence.min() >= 0 and sequence.max() < SEQUENCES
    assert (np.bincount(day * SEQUENCES + sequence, minlength=DAYS * SEQUENCES) == 1).all()


@pytest.mark.parametrize("region", ["110101", "440000", "910000", "99", "99000x", "９９００００", ""])
def test_regions_in_use_are_refused(region: str) -> None:
    with pytest.raises(InvalidSpec):
        made_up_ids(1, 1, region)


@pytest.mark.parametrize("n", [-1, DAYS * SEQUENCES + 1])
def test_there_are_only_so_many_made_up_ids(n: int) -> None:
    with pytest.raises(InvalidSpec):
        made_up_ids(n, 1)
