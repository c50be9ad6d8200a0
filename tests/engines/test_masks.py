"""Masks cancel over everybody, and over nobody else."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.crypto.sm3 import hmac_sm3
from sandbox.errors import InvalidSpec
from sandbox.mpc import slots
from sandbox.mpc.masks import masks

JOB = b"job 16 bytes id/round 1"


def pair_seed(one: str, other: str) -> bytes:
    return hashlib.sha256("|".join(sorted((one, other))).encode()).digest()


def everybody(count: int, size: int, bits: int, context: bytes = JOB) -> list[np.ndarray]:
    names = [f"party-{number}" for number in range(count)]
    return [
        masks(me, {other: pair_seed(me, other) for other in names if other != me}, context, size, bits) for me in names
    ]


def total(parts: list[np.ndarray], bits: int) -> np.ndarray:
    summed = np.zeros_like(parts[0])
    for part in parts:
        summed = slots.add(summed, part, bits)
    return summed


def chi_square(data: bytes) -> float:
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    expected = len(data) / 256
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("bits", [1, 40, 63, 64, 65, 96, 127, 128])
@pytest.mark.parametrize("count", range(3, 9))
def test_the_masks_of_all_parties_cancel(count, bits):
    parts = everybody(count, 50, bits)
    assert not total(parts, bits).any()
    for one in parts:
        assert all(value < 1 << bits for value in slots.integers(one).tolist())


@pytest.mark.parametrize("bits", [64, 128])
def test_any_proper_subset_looks_uniform_and_does_not_cancel(bits):
    parts = everybody(4, 4096, bits)
    width = bits // 64
    for size in (1, 2, 3):
        for chosen in itertools.combinations(parts, size):
            seen = total(list(chosen), bits)
            assert np.count_nonzero(seen.any(axis=1)) == 4096
            assert len(np.unique(seen[:, 0])) == 4096
            # 255 degrees of freedom: mean 255, deviation 22.6.
            assert 150 < chi_square(seen[:, :width].tobytes()) < 370
            assert bits == 128 or not seen[:, 1].any()


def test_small_moduli_are_uniform_too():
    first = everybody(3, 3000, 5)[0][:, 0]
    counts = np.bincount(first.astype(np.int64), minlength=32)
    assert len(counts) == 32
    assert ((counts - 3000 / 32) ** 2 / (3000 / 32)).sum() < 80


def test_a_mask_is_what_the_specification_says():
    # Written out once more, in plain integers.
    bits, context, a, b, c = 100, b"ctx", "a", "b", "c"
    ab, bc = b"\x01" * 32, b"\x02" * 32

    def stream(seed: bytes, first: str, second: str, slot: int) -> int:
        fields = b"".join(len(x).to_bytes(4, "big") + x for x in (first.encode(), second.encode(), context))
        key = hmac_sm3(seed, b"sandbox/v1/pair-mask\0" + fields + bytes([bits]))
        data = b"".join(hmac_sm3(key, number.to_bytes(8, "big")) for number in range(3))
        return int.from_bytes(data[16 * slot : 16 * slot + 16], "little") % 2**bits

    found = slots.integers(masks(b, {a: ab, c: bc}, context, 5, bits)).tolist()
    assert found == [(stream(bc, b, c, slot) - stream(ab, a, b, slot)) % 2**bits for slot in range(5)]


def test_another_round_job_size_or_seed_gives_other_masks():
    seen = {
        masks("a", {"b": seed}, context, 4, bits)[:, 0].tobytes()
        for seed in (b"\x01" * 32, b"\x02" * 32)
        for context in (b"job/1", b"job/2", b"joc/1")
        for bits in (64, 65)
    }
    assert len(seen) == 12


def test_fields_do_not_run_into_each_other():
    one = masks("ab", {"c": b"\x01" * 32}, b"x", 4, 64)
    assert one.tobytes() != masks("a", {"bc": b"\x01" * 32}, b"x", 4, 64).tobytes()
    assert one.tobytes() != masks("a", {"b": b"\x01" * 32}, b"cx", 4, 64).tobytes()


def test_the_first_slots_of_many_are_those_of_few():
    few, many = (masks("a", {"b": b"\x01" * 32}, JOB, count, 64) for count in (3, 300))
    assert (many[:3] == few).all()
    assert masks("a", {"b": b"\x01" * 32}, JOB, 0, 64).shape == (0, 2)


@pytest.mark.parametrize(
    ("me", "seeds", "context", "count", "bits"),
    [
        ("a", {}, JOB, 1, 64),
        ("a", {"a": b"s" * 32}, JOB, 1, 64),
        ("a", {"b": b"s" * 31}, JOB, 1, 64),
        ("a", {"b": b"s" * 32, "c": b"s" * 32}, JOB, 1, 64),
        ("a", {"b": b"s" * 32}, b"", 1, 64),
        ("a", {"b": b"s" * 32}, JOB, -1, 64),
        ("a", {"b": b"s" * 32}, JOB, 1, 0),
        ("a", {"b": b"s" * 32}, JOB, 1, 129),
        ("a", {"\ud800": b"s" * 32}, JOB, 1, 64),
    ],
)
def test_what_cannot_be_is_refused(me, seeds, context, count, bits):
    with pytest.raises(InvalidSpec):
        masks(me, seeds, context, count, bits)


@settings(deadline=None)
@given(
    st.integers(1, 128).flatmap(
        lambda bits: st.tuples(st.just(bits), st.integers(0, 2**bits - 1), st.integers(0, 2**bits - 1))
    )
)
def test_words_add_and_negate_like_integers(case):
    bits, left, right = case
    words = [np.array([[value % 2**64, value >> 64]], np.uint64) for value in (left, right)]
    assert slots.integers(slots.add(*words, bits)).tolist() == [(left + right) % 2**bits]
    assert slots.integers(slots.negated(words[0], bits)).tolist() == [-left % 2**bits]
