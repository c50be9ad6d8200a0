"""Batches of modular arithmetic, every back end against Python's own integers."""

from __future__ import annotations

import functools
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.crypto import modexp
from sandbox.errors import InvalidSpec, Unavailable

HERE = modexp.backends()
NAMES = ("ifma", "gmp")
# Lengths in use (keys of 1024, 2048 and 3072 bits and their squares), the ends, and those around a limb of 52 bits.
LENGTHS = (1024, 1025, 1040, 1041, 2047, 2048, 2080, 2081, 3072, 4096, 6100, 6144)
COUNTS = (0, 1, 7, 8, 9, 16, 17, 513)

every = pytest.mark.parametrize(
    "backend",
    [
        pytest.param(name, marks=pytest.mark.skipif(name not in HERE, reason=f"no back end {name} on this machine"))
        for name in NAMES
    ],
)


@functools.cache
def numbers(bits: int) -> tuple[int, ...]:
    """Odd numbers of a length: the least, the greatest, one with long runs of ones and zeros, two random ones."""
    draw = random.Random(bits)
    top = 1 << bits - 1
    runs = (top | (1 << bits - 200) - (1 << 300) | 1) & (2 * top - 1)
    return top + 1, 2 * top - 1, runs, *(draw.getrandbits(bits) | top | 1 for _ in range(2))


@functools.cache
def modulus(backend: str, n: int) -> modexp.Modulus:
    return modexp.Modulus(n, backend=backend)


def pack(values: list[int], size: int) -> bytes:
    return b"".join(value.to_bytes(size, "big") for value in values)


def unpack(data: bytes, size: int) -> list[int]:
    return [int.from_bytes(data[place : place + size], "big") for place in range(0, len(data), size)]


def some(n: int, count: int, seed: int = 0) -> list[int]:
    """Elements: the edges first, as far as there is room, then random ones."""
    draw = random.Random(seed)
    edges = [0, 1, n - 1, 2, n - 2, n >> 1, (n >> 1) + 1, 1 << n.bit_length() - 1 if n.bit_count() > 1 else 1]
    edges = [edge % n for edge in edges]
    return (draw.sample(edges, len(edges)) + [draw.randrange(n) for _ in range(count)])[:count]


# -- products ----------------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("bits", LENGTHS)
def test_multiplication_equals_python(backend, bits):
    for n in numbers(bits):
        used = modulus(backend, n)
        left, right = some(n, 40, 1), some(n, 40, 2)
        got = used.multiply(pack(left, used.size), pack(right, used.size))
        assert unpack(got, used.size) == [a * b % n for a, b in zip(left, right, strict=True)]


@every
@pytest.mark.parametrize("count", COUNTS)
def test_every_batch_size(backend, count):
    n = numbers(2048)[-1]
    used = modulus(backend, n)
    left, right = some(n, count, 3), some(n, count, 4)
    one, other = pack(left, used.size), pack(right, used.size)
    assert unpack(used.multiply(one, other), used.size) == [a * b % n for a, b in zip(left, right, strict=True)]
    units = [1 + value for value in some(n - 1, count, 3)]
    assert int.from_bytes(used.product(pack(units, used.size)), "big") == functools.reduce(
        lambda a, b: a * b % n, units, 1
    )


@every
def test_edges_meet_edges(backend):
    for bits in (1024, 2080, 4096):
        for n in numbers(bits):
            used = modulus(backend, n)
            edges = some(n, 8)
            pairs = [(a, b) for a in edges for b in edges]
            got = used.multiply(pack([a for a, _ in pairs], used.size), pack([b for _, b in pairs], used.size))
            assert unpack(got, used.size) == [a * b % n for a, b in pairs]


def grouped(values: list[int], groups: list[int], count: int, n: int) -> list[int]:
    out = [1] * count
    for value, group in zip(values, groups, strict=True):
        out[group] = out[group] * value % n
    return out


@every
@pytest.mark.parametrize("shape", ["one", "few", "many", "alone", "skewed", "gaps"])
def test_products_by_group_equal_python(backend, shape):
    draw = random.Random(shape)
    n = numbers(1024)[-1]
    used = modulus(backend, n)
    values = [1 + draw.randrange(n - 1) for _ in range(2500)]
    count, groups = {
        "one": (1, [0] * 2500),
        "few": (5, [draw.randrange(5) for _ in values]),
        "many": (1200, [draw.randrange(1200) for _ in values]),
        "alone": (2500, draw.sample(range(2500), 2500)),
        "skewed": (400, [min(int(draw.expovariate(0.02)), 399) for _ in values]),
        "gaps": (3000, [7 * draw.randrange(300) for _ in values]),
    }[shape]
    told: list[int] = []
    got = used.grouped_products(pack(values, used.size), np.array(groups, np.int32), count, on_slice=told.append)
    assert unpack(got, used.size) == grouped(values, groups, count, n)
    assert told == sorted(told) and told[-1] == 2500


@every
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_products_by_group_for_any_groups(backend, data):
    n = numbers(1041)[3]
    used = modulus(backend, n)
    count = data.draw(st.integers(1, 30))
    groups = data.draw(st.lists(st.integers(0, count - 1), max_size=120))
    values = some(n, len(groups), data.draw(st.integers(0, 99)))
    got = used.grouped_products(pack(values, used.size), np.array(groups, np.int32), count)
    assert unpack(got, used.size) == grouped(values, groups, count, n)


@every
def test_a_product_of_nothing_is_one(backend):
    used = modulus(backend, numbers(1024)[-1])
    one = (1).to_bytes(used.size, "big")
    assert used.product(b"") == one
    assert used.grouped_products(b"", np.array([], np.int32), 3) == 3 * one
    assert used.grouped_products(b"", np.array([], np.int32), 0) == b""
    assert used.multiply(b"", b"") == b"" == used.power(b"", 5)


# -- powers ------------------------------------------------------------------------------------------------------------


def exponents(bits: int) -> list[int]:
    draw = random.Random(bits)
    return [
        0, 1, 2, 3, (1 << bits) - 1, 1 << bits - 1, (1 << bits - 1) + 1, 31, 32, 33, 1 << bits // 2,
        int("10" * (bits // 2), 2), *(draw.getrandbits(bits) for _ in range(4)),
    ]  # fmt: skip


@every
@pytest.mark.parametrize("bits", LENGTHS)
def test_powers_equal_python(backend, bits):
    # Short exponents under every modulus; long ones below.
    for n in numbers(bits):
        used = modulus(backend, n)
        values = some(n, 17, bits)
        for exponent in (0, 1, 2, 31, 32, 65537, 2**65 - 1, 2**64 + 2**63):
            got = used.power(pack(values, used.size), exponent)
            assert unpack(got, used.size) == [pow(value, exponent, n) for value in values]


@every
@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 17, 33])
def test_powers_of_long_exponents(backend, count):
    n = numbers(1024)[-1]
    used = modulus(backend, n)
    values = some(n, count, 5)
    for exponent in exponents(512):
        got = used.power(pack(values, used.size), exponent)
        assert unpack(got, used.size) == [pow(value, exponent, n) for value in values]


@every
@settings(max_examples=15, deadline=None)
@given(a=st.integers(0, 2**300), b=st.integers(0, 2**300), seed=st.integers(0, 9))
def test_powers_add_and_multiply(backend, a, b, seed):
    n = numbers(1041)[-1]
    used = modulus(backend, n)
    values = pack(some(n, 9, seed), used.size)
    one, other = used.power(values, a), used.power(values, b)
    assert used.multiply(one, other) == used.power(values, a + b)
    assert used.power(one, b) == used.power(other, a) == used.power(values, a * b)


@every
@pytest.mark.parametrize(("bits", "length", "window"), [
    (1024, 512, None), (1024, 256, 1), (1024, 255, 3), (1040, 65, 5), (2048, 512, 8), (2081, 9, 4), (3072, 100, 7),
    (4096, 64, None), (6144, 40, None), (1024, 1, None), (1024, 130, 11),
])  # fmt: skip
def test_powers_of_a_fixed_base_equal_python(backend, bits, length, window):
    for n in numbers(bits)[-2:]:
        for base in (some(n, 30)[-1], n - 1):
            table = modexp.FixedBase(modulus(backend, n), base, length, window=window)
            wanted = [exponent % (1 << length) for exponent in exponents(max(length, 4))] * 2
            wanted += [random.Random(length).getrandbits(length) for _ in range(9)]
            got = table.power(pack(wanted, (length + 7) // 8))
            assert unpack(got, modulus(backend, n).size) == [pow(base, exponent, n) for exponent in wanted]


@every
@pytest.mark.parametrize("count", COUNTS)
def test_every_batch_size_of_a_fixed_base(backend, count):
    table, n, base = small_table(backend)
    draw = random.Random(count)
    wanted = [draw.getrandbits(256) for _ in range(count)]
    got = table.power(pack(wanted, 32))
    assert unpack(got, 128) == [pow(base, exponent, n) for exponent in wanted]


@functools.cache
def small_table(backend: str) -> tuple[modexp.FixedBase, int, int]:
    n = numbers(1024)[-1]
    base = some(n, 20)[-1]
    return modexp.FixedBase(modulus(backend, n), base, 256), n, base


@every
@pytest.mark.parametrize("base", [0, 1])
def test_bases_without_an_inverse_or_a_purpose(backend, base):
    table = modexp.FixedBase(modulus(backend, numbers(1024)[-1]), base, 16)
    assert unpack(table.power(pack([0, 1, 2, 65535], 2)), 128) == [1, base, base, base]


@every
@settings(max_examples=20, deadline=None)
@given(exponents=st.lists(st.integers(0, 2**256 - 1), min_size=1, max_size=20))
def test_powers_of_a_fixed_base_multiply_to_the_power_of_the_sum(backend, exponents):
    table, n, base = small_table(backend)
    product = modulus(backend, n).product(table.power(pack(exponents, 32)))
    assert int.from_bytes(product, "big") == pow(base, sum(exponents), n)


@every
def test_a_table_says_how_large_it_is(backend):
    used = modulus(backend, numbers(4096)[-1])
    narrow, wide = (modexp.FixedBase(used, 3, 64, window=window) for window in (4, 8))
    assert 16 * 16 * 512 <= narrow.nbytes <= 16 * 16 * 512 * 1.4
    assert 8 * 256 * 512 <= wide.nbytes <= 8 * 256 * 512 * 1.4


@pytest.mark.skipif(len(HERE) < 2, reason="one back end only")
@pytest.mark.slow
def test_thousands_of_elements_agree_between_back_ends():
    n = numbers(4096)[-1]
    draw = random.Random(9)
    left, right = (pack([draw.randrange(n) for _ in range(3000)], 512) for _ in range(2))
    groups = np.array([draw.randrange(100) for _ in range(3000)], np.int32)
    exponents = draw.randbytes(8 * 3000)
    results = []
    for backend in HERE:
        used = modulus(backend, n)
        table = modexp.FixedBase(used, 65537, 64, window=8)
        results.append((used.multiply(left, right), used.grouped_products(left, groups, 100), table.power(exponents)))
    assert all(result == results[0] for result in results)


# -- threads, progress, giving up --------------------------------------------------------------------------------------


Batch = Callable[..., bytes]


def batches(backend: str, count: int) -> dict[str, Batch]:
    table, n, _ = small_table(backend)
    used = modulus(backend, n)
    values = pack(some(n, count, 7), used.size)
    groups = np.arange(count, dtype=np.int32) % 3
    secret = random.Random(8).randbytes(32 * count)
    return {
        "multiply": functools.partial(used.multiply, values, values),
        "product": functools.partial(used.product, values),
        "grouped_products": functools.partial(used.grouped_products, values, groups, 3),
        "power": functools.partial(used.power, values, 12345),
        "fixed base": functools.partial(table.power, secret),
    }


@every
@pytest.mark.parametrize("name", ["multiply", "product", "grouped_products", "power", "fixed base"])
def test_threads_change_nothing_and_progress_is_told(backend, name):
    batch = batches(backend, 2500)[name]
    told: list[list[int]] = []
    results = []
    for threads in (1, 2, 5):
        told.append([])
        results.append(batch(threads=threads, on_slice=told[-1].append))
    assert results[0] == results[1] == results[2]
    assert told[0] == told[1] == told[2] == sorted(told[0])
    assert told[0][-1] == 2500 and len(set(told[0])) > 2


@every
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", ["multiply", "product", "grouped_products", "power", "fixed base"])
def test_what_progress_raises_ends_the_work(backend, name, threads):
    class Enough(Exception):
        pass

    told: list[int] = []

    def give_up(done: int) -> None:
        told.append(done)
        if len(told) == 2:
            raise Enough

    batch = batches(backend, 2500)[name]
    with pytest.raises(Enough):
        batch(threads=threads, on_slice=give_up)
    assert len(told) == 2 and told[1] < 2500
    assert batch(threads=threads) == batch()


# -- what is refused ---------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize(
    "n", [0, -5, 3, 1 << 2048, (1 << 2048) - 2, (1 << 1023) - 1, (1 << 6144) + 1, -(1 << 2048) + 1]
)
def test_moduli_that_are_none(backend, n):
    with pytest.raises(InvalidSpec):
        modexp.Modulus(n, backend=backend)


@every
def test_elements_that_are_none_are_refused_before_any_work(backend):
    n = numbers(2048)[-1]
    used, told = modulus(backend, n), []
    good = pack(some(n, 700), used.size)
    zero = np.zeros(701, np.int32)
    for value in (n, n + 1, n | 1 << 2047 | 0xFFFF, (1 << 2048) - 1):
        for bad in (good + value.to_bytes(256, "big"), value.to_bytes(256, "big") + good):
            for call in (
                lambda on_slice, bad=bad: used.multiply(bad, bad, on_slice=on_slice),
                lambda on_slice, bad=bad: used.multiply(bad[::1], good + good[:256], on_slice=on_slice),
                lambda on_slice, bad=bad: used.product(bad, on_slice=on_slice),
                lambda on_slice, bad=bad: used.grouped_products(bad, zero, 1, on_slice=on_slice),
                lambda on_slice, bad=bad: used.power(bad, 3, on_slice=on_slice),
            ):
                with pytest.raises(InvalidSpec):
                    call(told.append)
    for wrong in (good[:-1], good + b"\0"):
        for call in (
            lambda w=wrong: used.multiply(w, w),
            lambda w=wrong: used.product(w),
            lambda w=wrong: used.power(w, 3),
        ):
            with pytest.raises(InvalidSpec):
                call()
    with pytest.raises(InvalidSpec):
        used.multiply(good, good[:-256])
    assert told == []


@every
def test_groups_that_are_none(backend):
    used = modulus(backend, numbers(1024)[-1])
    three = pack([1, 2, 3], used.size)
    for groups, count in (
        (np.array([0, 1], np.int32), 2), (np.array([0, 1, 2], np.int32), 2), (np.array([0, -1, 1], np.int32), 2),
        (np.array([0, 1, 1], np.int64), 2), (np.array([[0, 1, 1]], np.int32), 2), (np.array([0, 0, 0], np.int32), -1),
        (np.array([0.0, 1.0, 1.0]), 2), (np.array([0, 0, 0], np.int32), 0),
    ):  # fmt: skip
        with pytest.raises(InvalidSpec):
            used.grouped_products(three, groups, count)


@every
def test_exponents_bases_windows_and_threads_that_are_none(backend):
    n = numbers(1024)[-1]
    used = modulus(backend, n)
    for exponent in (-1, 1 << modexp.MAX_EXPONENT_BITS):
        with pytest.raises(InvalidSpec):
            used.power(b"", exponent)
    for base, bits, window in ((n, 8, None), (-1, 8, None), (2, 0, None), (2, 8, 0), (2, 8, modexp.MAX_WINDOW + 1)):
        with pytest.raises(InvalidSpec):
            modexp.FixedBase(used, base, bits, window=window)
    with pytest.raises(InvalidSpec):
        modexp.FixedBase(used, 2, modexp.MAX_EXPONENT_BITS + 1)
    table = modexp.FixedBase(used, 2, 13)
    assert table.power(b"\x1f\xff")
    for wrong in (b"\x20\x00", b"\0", b"\0\0\0", b"\0\0\x80\0"):
        with pytest.raises(InvalidSpec):
            table.power(wrong)
    for threads in (0, -1):
        for batch in batches(backend, 3).values():
            with pytest.raises(InvalidSpec):
                batch(threads=threads)


# -- the choice --------------------------------------------------------------------------------------------------------


def test_the_choice_is_named_explained_and_can_be_forced():
    assert modexp.choose(os.environ.get(modexp.VARIABLE, "")) == (modexp.BACKEND, modexp.WHY)
    assert modexp.choose("")[0] == HERE[0]
    name, why = modexp.choose("gmp")
    assert name == "gmp" and modexp.VARIABLE in why
    for wrong in ("abacus", "IFMA"):
        with pytest.raises(Unavailable):
            modexp.choose(wrong)
    with pytest.raises(InvalidSpec):
        modexp.Modulus(numbers(1024)[0], backend="abacus")
    line = "from sandbox.crypto import modexp as m; print(m.BACKEND, m.Modulus(2**1024 - 1).backend)"
    forced = subprocess.run(
        [sys.executable, "-c", line], capture_output=True, text=True, env=os.environ | {modexp.VARIABLE: "gmp"}
    )
    assert forced.stdout == "gmp gmp\n", forced.stderr


def test_a_modulus_does_not_show_itself():
    n = numbers(1024)[-1]
    assert str(n)[:8] not in repr(modexp.Modulus(n)) and f"{n:x}"[:8] not in repr(modexp.Modulus(n))
    assert math.gcd(n, 2) == 1
