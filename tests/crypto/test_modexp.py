"""Batches of modular arithmetic, every back end against Python's own integers."""

from __future__ import annotations

import functools
import os
import random
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.crypto import modexp
from sandbox.crypto._modexp import lanes
from sandbox.errors import InvalidSpec, Unavailable

native = lanes._native
SOURCES = Path(modexp.__file__).parent / "_modexp"
HERE = modexp.backends()
NAMES = ("ifma", "gmp")
# Lengths in use (keys of 1024, 2048 and 3072 bits and their squares), the ends, and those around a limb of 52 bits.
# The others have what is left of numbers of limbs.
LENGTHS = (1024, 1025, 1040, 1041, 2047, 2048, 2080, 2081, 3072, 3600, 4096, 4600, 5100, 5600, 6100, 6144)
COUNTS = (0, 1, 7, 8, 9, 16, 17, 513)

needs_ifma = pytest.mark.skipif("ifma" not in HERE, reason="no back end ifma on this machine")
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
    for n in numbers(bits)[1:4]:
        used = modulus(backend, n)
        values = some(n, 9, bits)
        for exponent in (0, 1, 31, 32, 65537, 2**64 + 2**63):
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
@pytest.mark.parametrize("bits", [2048, 3072])
def test_the_sizes_of_paillier(backend, bits):
    # Keys of that many bits: encryption under the square, decryption under the square of a prime, exponents of half.
    draw = random.Random(bits)
    wanted = [0, (1 << bits // 2) - 1, *(draw.getrandbits(bits // 2) for _ in range(3))]
    n = numbers(2 * bits)[-1]
    base = draw.randrange(n)
    table = modexp.FixedBase(modulus(backend, n), base, bits // 2, window=5)
    got = table.power(pack(wanted, bits // 16), threads=2)
    assert unpack(got, bits // 4) == [pow(base, exponent, n) for exponent in wanted]
    n = numbers(bits)[-1]
    values = some(n, 9, bits)
    got = modulus(backend, n).power(pack(values, bits // 8), wanted[-1])
    assert unpack(got, bits // 8) == [pow(value, wanted[-1], n) for value in values]


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


def test_without_the_extension_everything_works_and_says_that_it_is_slow(monkeypatch):
    monkeypatch.setattr(lanes, "_native", None)
    assert modexp.backends() == ("gmp",)
    name, why = modexp.choose("")
    assert name == "gmp" and "slower" in why and "gcc" in why
    with pytest.raises(Unavailable):
        modexp.choose("ifma")
    with pytest.raises(Unavailable):
        lanes.Engine(numbers(1024)[0])
    n = numbers(1024)[-1]
    assert modexp.Modulus(n, backend="gmp").product((5).to_bytes(128, "big") * 2) == (25).to_bytes(128, "big")


@pytest.mark.skipif(native is None, reason="the C extension is not built")
def test_on_another_processor_it_says_so(monkeypatch):
    monkeypatch.setattr(lanes, "runs", lambda: False)
    name, why = modexp.choose("")
    assert name == "gmp" and "AVX512-IFMA" in why and "gcc" not in why


@needs_ifma
def test_the_interpreter_runs_on_while_powers_are_computed():
    # One call into C, hundreds of milliseconds: only a thread without the lock lets another one count meanwhile.
    n = numbers(4096)[-1]
    engine = lanes.Engine(n)
    elements = memoryview(pack(some(n, 16), 512))
    ticks, done = [0], threading.Event()

    def count() -> None:
        while not done.is_set():
            ticks[0] += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    before = ticks[0]
    engine.power(elements, 2**8000)
    during = ticks[0] - before
    done.set()
    thread.join()
    assert during > 5


# -- the C code by itself ----------------------------------------------------------------------------------------------


def places(*values: int) -> bytes:
    return np.array(values, np.int64).tobytes()


@needs_ifma
def test_the_extension_refuses_sizes_and_places_by_itself():
    assert native is not None
    n = numbers(1024)[-1]
    good = [value.to_bytes(128, "big") for value in (n, 2**1040 % n, 2**2080 % n)]
    for wrong in (
        (good[0][1:], good[1][1:], good[2][1:]), (good[0], good[1][1:], good[2]), (good[0], good[1], good[2] + b"x"),
        (bytes(128), good[1], good[2]), (b"\x7f" + good[0][1:], good[1], good[2]), (b"", b"", b""),
        (good[0][:-1] + b"\2", good[1], good[2]), (b"\1" * 769, b"\1" * 769, b"\1" * 769),
    ):  # fmt: skip
        with pytest.raises(ValueError):
            native.modulus(*wrong)
    used = native.modulus(*good)
    table = native.table(used, good[1], 9, 3)
    three, powers = bytes(3 * 128), bytes(3 * 128)
    for call, arguments in (
        (native.multiply, (used, three, three[:-128])), (native.multiply, (used, three[1:], three[1:])),
        (native.power, (used, three[1:], b"\1")), (native.power, (used, three, bytes(1025))),
        (native.table, (used, three, 8, 8)), (native.table, (used, good[1], 0, 8)),
        (native.table, (used, good[1], 8, 13)), (native.table, (used, good[1], 8, 0)),
        (native.table, (used, good[1], 8193, 8)), (native.table, (used, good[1], -1, -1)),
        (native.look_up, (table, b"x")), (native.look_up, (table, b"xyz")),
        (native.chains, (used, powers, three, places(0, 1, 3), places(0, 2))),
        (native.chains, (used, powers, three, places(0, 1, -1), places(0, 2))),
        (native.chains, (used, powers, three, places(0, 1, 2), places(0, 3))),
        (native.chains, (used, powers, three, places(0, 1), places(0, 2, 3))),
        (native.chains, (used, powers, three, places(0, 1), places(0, 2, 1))),
        (native.chains, (used, powers, three, places(0, 1), places(-1, 1))),
        (native.chains, (used, powers, three, places(0, 1), b"")),
        (native.chains, (used, powers, three, places(0, 1)[1:], places(0, 1))),
        (native.chains, (used, powers, three, places(0, 1), places(0, 1) + b"x")),
        (native.chains, (used, powers[1:], three, places(0), places(0, 1))),
        (native.chains, (used, powers[:128], three, places(0), places(0, 0))),
        (native.multiply, (table, three, three)), (native.look_up, (used, b"")), (native.nbytes, (used,)),
        (native.power, (None, three, b"\1")),
    ):  # fmt: skip
        with pytest.raises(ValueError):
            call(*arguments)


EXERCISE = """
import array, random, sys
sys.path.insert(0, sys.argv[1])
import _native as native
draw = random.Random(1)
for bits in (1024, 1041, 2048, 3072, 4096):
    n = draw.getrandbits(bits) | 1 << bits - 1 | 1
    size = (bits + 7) // 8
    limbs = -(-(8 * size + 2) // 520) * 10
    r = 1 << 52 * limbs
    pack = lambda *values: b"".join(value.to_bytes(size, "big") for value in values)
    used = native.modulus(pack(n), pack(r % n), pack(r * r % n))
    for count in (0, 1, 7, 8, 9, 20):
        values = [draw.randrange(n) for _ in range(count)]
        values[-1:] = [n - 1] * len(values[-1:])
        elements = pack(*values)
        assert native.multiply(used, elements, elements) == pack(*(v * v % n for v in values))
        assert native.power(used, elements, bytes.fromhex('ff0180')) == pack(*(pow(v, 0xff0180, n) for v in values))
        assert native.power(used, elements, b"") == pack(*(1 for v in values))
        powers = pack(*(pow(r, k, n) for k in range(count + 2)))
        order = array.array("q", range(count)).tobytes()
        starts = array.array("q", [0, count // 2, count // 2, count]).tobytes()
        product = [1, 1, 1]
        for place, v in enumerate(values):
            product[0 if place < count // 2 else 2] *= v
        assert native.chains(used, powers, elements, order, starts) == pack(*(p % n for p in product))
    for length, window in ((1, 1), (9, 2), (17, 3), (16, 8)):
        table = native.table(used, pack(n - 2), length, window)
        for count in (0, 1, 17, 130):
            wanted = [draw.getrandbits(length) for _ in range(count)]
            exponents = b"".join(e.to_bytes((length + 7) // 8, "big") for e in wanted)
            assert native.look_up(table, exponents) == pack(*(pow(n - 2, e, n) for e in wanted))
        assert native.nbytes(table) == -(-length // window) * max(8, 1 << window) * limbs * 8
        del table
    del used
for wrong in ((native.modulus, (b"", b"", b"")), (native.modulus, (bytes(200),) * 3)):
    try:
        wrong[0](*wrong[1])
    except ValueError:
        continue
    raise SystemExit("not refused")
print("done")
"""


def compiler() -> str:
    found = shutil.which("gcc")
    if found is None:
        pytest.skip("no gcc")
    return found


@needs_ifma
@pytest.mark.long
def test_sanitizers_find_nothing(tmp_path):
    gcc = compiler()
    library = subprocess.run([gcc, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout
    if not Path(library.strip()).is_absolute():
        pytest.skip("gcc without libasan")
    include = sysconfig.get_paths()["include"]
    subprocess.run(
        [
            gcc, "-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared",
            "-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{include}",
            *map(str, sorted(SOURCES.glob("*.c"))), "-o", str(tmp_path / "_native.so"),
        ],
        check=True,
    )  # fmt: skip
    watched = os.environ | {"LD_PRELOAD": library.strip(), "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}
    done = subprocess.run(
        [sys.executable, "-c", EXERCISE, str(tmp_path)], capture_output=True, text=True, env=watched, timeout=250
    )
    assert done.returncode == 0 and done.stdout.startswith("done") and not done.stderr, done.stderr[-3000:]


# Valgrind knows no AVX512, so the instructions that the sources ask for are stood in for by plain C, none of which
# branches or indexes on a value: what is watched is our C, not what gcc makes of it for AVX512.
PLAIN = """
typedef long long __m512i __attribute__((vector_size(64), may_alias));
typedef unsigned long long word, __mmask64, words __attribute__((vector_size(64)));
typedef unsigned char __mmask8, octets __attribute__((vector_size(64)));

#define _MM_HINT_T0 3
#define _MM_HINT_T1 2
#define _mm_prefetch(from, hint) __builtin_prefetch(from)
#define INLINE static __attribute__((noinline, unused)) /* or gcc takes a minute */
#define EACH(value) words out; for (int i = 0; i < 8; i++) out[i] = (word)(value); return (__m512i)out
#define AT(vector) (((words)(vector))[i])
#define BIT(mask) (0 - hidden((mask) >> i & 1))
#define LOW52 ((1ull << 52) - 1)
#define PRODUCT(a, b) ((unsigned __int128)(AT(a) & LOW52) * (AT(b) & LOW52))

INLINE word hidden(word value) { __asm__("" : "+r"(value)); return value; }
INLINE word equal(word a, word b) { a ^= b; return hidden(~(a | (0 - a)) >> 63); }

INLINE __m512i _mm512_set1_epi64(long long v) { EACH(v); }
INLINE __m512i _mm512_load_si512(const void *from) { return *(const __m512i *)from; }
INLINE __m512i _mm512_or_si512(__m512i a, __m512i b) { return a | b; }
INLINE __m512i _mm512_slli_epi64(__m512i a, int by) { EACH(AT(a) << by); }
INLINE __m512i _mm512_madd52lo_epu64(__m512i s, __m512i a, __m512i b) { EACH(AT(s) + (PRODUCT(a, b) & LOW52)); }
INLINE __m512i _mm512_madd52hi_epu64(__m512i s, __m512i a, __m512i b) { EACH(AT(s) + (PRODUCT(a, b) >> 52)); }
INLINE __m512i _mm512_unpacklo_epi64(__m512i a, __m512i b) { EACH(i & 1 ? b[i - 1] : a[i]); }
INLINE __m512i _mm512_unpackhi_epi64(__m512i a, __m512i b) { EACH(i & 1 ? b[i] : a[i + 1]); }
INLINE __m512i _mm512_shuffle_i64x2(__m512i a, __m512i b, int by)
{
    EACH((i < 4 ? a : b)[2 * (by >> i / 2 * 2 & 3) + i % 2]);
}
INLINE __m512i _mm512_mask_mov_epi64(__m512i from, __mmask8 mask, __m512i a)
{
    EACH((AT(a) & BIT(mask)) | (AT(from) & ~BIT(mask)));
}
INLINE __m512i _mm512_mask_srli_epi64(__m512i from, __mmask8 mask, __m512i a, int by)
{
    return _mm512_mask_mov_epi64(from, mask, (__m512i)((words)a >> by));
}
INLINE __mmask8 _mm512_cmpeq_epi64_mask(__m512i a, __m512i b)
{
    word mask = 0;

    for (int i = 0; i < 8; i++)
        mask |= equal(AT(a), AT(b)) << i;
    return (__mmask8)mask;
}
INLINE __m512i _mm512_mask_permutexvar_epi64(__m512i from, __mmask8 mask, __m512i index, __m512i a)
{
    words taken = {0};

    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 8; j++)
            taken[i] |= ((words)a)[j] & (0 - equal(AT(index) & 7, j));
    return _mm512_mask_mov_epi64(from, mask, (__m512i)taken);
}
INLINE __m512i _mm512_permutexvar_epi8(__m512i index, __m512i a)
{
    octets out;

    for (int i = 0; i < 64; i++)
        out[i] = ((octets)a)[((octets)index)[i] & 63];
    return (__m512i)out;
}
INLINE __m512i _mm512_maskz_loadu_epi8(__mmask64 mask, const unsigned char *from)
{
    octets out = {0};

    for (int i = 0; i < 64; i++)
        if (mask >> i & 1)
            out[i] = from[i];
    return (__m512i)out;
}
INLINE void _mm512_mask_storeu_epi8(unsigned char *to, __mmask64 mask, __m512i a)
{
    for (int i = 0; i < 64; i++)
        if (mask >> i & 1)
            to[i] = ((octets)a)[i];
}
"""

# Reports every branch and address that depends on memory declared undefined: here, on exponents and elements. Memory
# that is given back is looked at: it has to have been wiped.
WATCH = """
#include <stdio.h>
#include <stdlib.h>
#include <valgrind/memcheck.h>

static struct { void *memory; size_t size; } taken[8];
static unsigned long unwiped;

static void *take(size_t alignment, size_t size)
{
    void *memory = aligned_alloc(alignment, size);

    for (int i = 0; i < 8; i++) {
        if (taken[i].memory == NULL) {
            taken[i].memory = memory;
            taken[i].size = size;
            return memory;
        }
    }
    return NULL;
}

static void give_back(void *memory)
{
    for (int i = 0; i < 8; i++) {
        if (taken[i].memory != memory)
            continue;
        VALGRIND_MAKE_MEM_DEFINED(memory, taken[i].size);
        for (size_t at = 0; at < taken[i].size; at++)
            unwiped += ((const unsigned char *)memory)[at] != 0;
        taken[i].memory = NULL;
    }
    free(memory);
}

#define aligned_alloc take
#define free give_back
#include "ifma.c"
#include "modulus.c"
#undef aligned_alloc
#undef free
#include "data.h"

static void show(const uint8_t *bytes, size_t size)
{
    VALGRIND_MAKE_MEM_DEFINED(bytes, size);
    for (size_t i = 0; i < size; i++)
        printf("%02x", bytes[i]);
    puts("");
}

int main(int count, char **arguments)
{
    static struct modulus m;
    static uint8_t out[COUNT * SIZE];
    struct table t = {.bits = 6, .window = 3, .windows = 2, .digits = 8};

    (void)arguments;
    if (modexp_prepare(&m, modulus, r, r_squared, SIZE))
        return 2;
    t.modulus = m;
    t.powers_size = t.windows * t.digits * m.limbs * 8;
    t.powers = aligned_alloc(64, t.powers_size);
    if (modexp_fill(&t, elements))
        return 2;
    VALGRIND_MAKE_MEM_UNDEFINED(elements, sizeof elements);
    VALGRIND_MAKE_MEM_UNDEFINED(exponents, sizeof exponents);
    if (modexp_multiply(&m, elements, elements, COUNT, out))
        return 2;
    show(out, sizeof out);
    if (modexp_power(&m, elements, COUNT, exponents, 2, out))
        return 2;
    if (count > 1 && (out[1] & 1)) /* a branch on a result: the watch itself is tested with it */
        puts("odd");
    show(out, sizeof out);
    if (modexp_look_up(&t, exponents, COUNT, out))
        return 2;
    show(out, sizeof out);
    free(t.powers);
    return unwiped != 0 ? 3 : 0;
}
"""


def watch(folder: Path, sources: dict[str, str], n: int, values: list[int], exponents: bytes) -> list[Any]:
    """Build the watch with plain C in place of AVX512 and return what starts it."""
    valgrind = shutil.which("valgrind")
    if valgrind is None or not Path("/usr/include/valgrind/memcheck.h").exists():
        pytest.skip("no valgrind with its headers")
    size = (n.bit_length() + 7) // 8
    r = 1 << -(-(8 * size + 2) // 520) * 520
    arrays = {
        "modulus": pack([n], size), "r": pack([r % n], size), "r_squared": pack([r * r % n], size),
        "elements": pack(values, size), "exponents": exponents,
    }  # fmt: skip
    data = [f"enum {{ SIZE = {size}, COUNT = {len(values)} }};"]
    data += [f"static uint8_t {name}[] = {{{', '.join(map(str, value))}}};" for name, value in arrays.items()]
    for name, text in {**sources, "immintrin.h": PLAIN, "watch.c": WATCH, "data.h": "\n".join(data)}.items():
        (folder / name).write_text(text, encoding="ascii")
    program = folder / "watch"
    subprocess.run(
        [
            compiler(),
            "-std=gnu11",
            "-O2",
            "-g",
            "-w",
            "-Wno-psabi",
            f"-I{folder}",
            str(folder / "watch.c"),
            "-o",
            str(program),
        ],
        check=True,
    )
    return [valgrind, "--quiet", "--error-exitcode=9", program]


def plain_sources() -> dict[str, str]:
    texts = {path.name: path.read_text(encoding="ascii") for path in (*SOURCES.glob("*.h"), *SOURCES.glob("*.c"))}
    texts["ifma.c"], pragmas = re.subn(r"#pragma GCC target.*", "", texts["ifma.c"])
    texts["ifma.c"], splits = re.subn(r"SQUARES_SPLIT = \d+", "SQUARES_SPLIT = 40", texts["ifma.c"])
    assert (pragmas, splits) == (1, 1)
    return texts


@pytest.mark.long
def test_no_branch_and_no_address_depends_on_exponents_or_elements_and_work_space_is_wiped(tmp_path):
    n = numbers(2048)[-1]
    values, secret = some(n, 9), bytes([43, 0, 1, 63, 7, 32, 8, 56, 21])
    line = watch(tmp_path, plain_sources(), n, values, secret)
    silent = subprocess.run(line, capture_output=True, text=True)
    assert silent.returncode == 0, silent.stderr[-3000:]
    common = int.from_bytes(secret[:2], "big")
    wanted = [[value * value % n for value in values], [pow(value, common, n) for value in values],
              [pow(values[0], exponent, n) for exponent in secret]]  # fmt: skip
    assert silent.stdout.split() == [pack(row, 256).hex() for row in wanted]
    assert subprocess.run([*line, "leak"], capture_output=True).returncode == 9


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "sound", "broken", "code"),
    [
        ("batch.h", "modexp_wipe(work, size);", "", 3),
        (
            "table.h",
            "first, powers, octets,",
            "first, powers + (powers[digits[group][0]][0] >> 63), octets,",
            9,
        ),
        ("batch.h", "            limb mask = ", "            if (i == digit) continue;\n            limb mask = ", 9),
    ],
    ids=["not wiped", "an address", "a branch"],
)
def test_the_watch_sees_what_it_is_for(tmp_path, name, sound, broken, code):
    sources = plain_sources()
    assert sources[name].count(sound) == 1
    sources[name] = sources[name].replace(sound, broken)
    n = numbers(1024)[-1]
    line = watch(tmp_path, sources, n, some(n, 3), b"\x21\x07\x3a")
    assert subprocess.run(line, capture_output=True).returncode == code
