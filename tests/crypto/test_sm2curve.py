"""The SM2 group in batches, every back end against OpenSSL and against RFC 9380 in plain Python."""

from __future__ import annotations

import array
import functools
import json
import os
import pickle
import random
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import sm2_oracle as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.crypto import sm2curve
from sandbox.crypto._sm2curve import fallback
from sandbox.errors import InvalidSpec, Unavailable, WrongState

native = sm2curve._native
SOURCES = Path(sm2curve.__file__).parent / "_sm2curve"
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "sm2_hash_to_curve.json").read_text(encoding="utf-8"))
HERE = sm2curve.backends()
TAG = b"a tag"
N = oracle.N
EDGES = sorted(
    {*range(1, 72), *(N - k for k in range(1, 72)), (N - 1) // 2, (N + 1) // 2}
    | {2**255 + k for k in range(-3, 4)}
    | {2 ** (5 * k) + sign for k in range(1, 51) for sign in (-1, 0, 1)}
    | {int("8" * 64, 16), int("55" * 32, 16), N // 3, 2 * N // 3}
)

needs_native = pytest.mark.skipif(native is None, reason="the C extension is not built")
every = pytest.mark.parametrize(
    "backend",
    [
        pytest.param(name, marks=pytest.mark.skipif(name not in HERE, reason=f"no back end {name} on this machine"))
        for name in ("ifma", "portable", "libcrypto")
    ],
)
every_native = pytest.mark.parametrize(
    "backend",
    [
        pytest.param(name, marks=pytest.mark.skipif(name not in HERE, reason=f"no back end {name} on this machine"))
        for name in ("ifma", "portable")
    ],
)


def scalar(value: int) -> bytes:
    return value.to_bytes(32, "big")


def split(points: bytes) -> list[bytes]:
    return [points[place : place + 33] for place in range(0, len(points), 33)]


@functools.cache
def openssl() -> oracle.OpenSsl:
    return oracle.OpenSsl()


@functools.cache
def some_points(count: int) -> tuple[bytes, ...]:
    """Points nobody here computed: OpenSSL's multiples of the base point."""
    draw = random.Random(count)
    return tuple(openssl().multiply(scalar(draw.randrange(1, N))) for _ in range(count))


def multiply(backend: str, k: int, points: list[bytes] | tuple[bytes, ...]) -> list[bytes]:
    with sm2curve.Scalar(scalar(k), backend=backend) as secret:
        products, bad = secret.multiply(b"".join(points))
    assert bad == ()
    return split(products)


# -- multiplication -------------------------------------------------------------------------------------------------


@functools.cache
def edge_products() -> dict[int, list[bytes]]:
    points = some_points(3)
    return {k: [openssl().multiply(scalar(k), point) for point in points] for k in EDGES}


@every
def test_edge_scalars_equal_openssl(backend):
    # n - 6 (and so 6) is the one odd scalar whose last addition meets twice the same point.
    assert {6, N - 6} <= set(EDGES)
    for k, wanted in edge_products().items():
        assert multiply(backend, k, some_points(3)) == wanted, hex(k)


@every
@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 15, 16, 17, 63, 64, 65, 127, 128, 129])
def test_every_batch_size_equals_openssl(backend, count):
    k = random.Random(count).randrange(1, N)
    points = some_points(130)[:count]
    assert multiply(backend, k, points) == [openssl().multiply(scalar(k), point) for point in points]


@every_native
@pytest.mark.parametrize("count", [255, 256, 257, 271, 512, 513])
def test_batches_around_a_block_equal_their_points_one_by_one(backend, count):
    points = (some_points(130) * 4)[:count]
    wanted = [product for point in some_points(130) for product in multiply(backend, 0xB10C, [point])]
    assert multiply(backend, 0xB10C, points) == (wanted * 4)[:count]


@every
def test_no_points_give_no_products(backend):
    assert sm2curve.Scalar.generate(backend=backend).multiply(b"") == (b"", ())


@every_native
@pytest.mark.slow
def test_tens_of_thousands_of_points_equal_openssl(backend):
    points, k, wanted = many()
    assert multiply(backend, k, points) == wanted


@functools.cache
def many() -> tuple[list[bytes], int, list[bytes]]:
    draw = random.Random(20)
    points = [openssl().multiply(scalar(draw.randrange(1, N))) for _ in range(20_000)]
    k = draw.randrange(1, N)
    return points, k, [openssl().multiply(scalar(k), point) for point in points]


@every
@settings(max_examples=25, deadline=None)
@given(a=st.integers(1, N - 1), b=st.integers(1, N - 1))
def test_scalars_commute_and_multiply(backend, a, b):
    points = some_points(2)
    one, other = multiply(backend, a, multiply(backend, b, points)), multiply(backend, b, multiply(backend, a, points))
    assert one == other
    assert one == multiply(backend, a * b % N, points)


@every
@pytest.mark.parametrize("value", [0, N, N + 1, 2**256 - 1])
def test_scalars_out_of_range_are_refused(backend, value):
    with pytest.raises(InvalidSpec):
        sm2curve.Scalar(scalar(value), backend=backend)
    if native is not None and backend != "libcrypto":
        with pytest.raises(ValueError, match="scalar"):  # the C code does not rely on who calls it
            native.multiply(backend, scalar(value), some_points(1)[0])
        with pytest.raises(ValueError, match="scalar"):
            native.multiply_mapped(backend, scalar(value), bytes(96))
        with pytest.raises(ValueError, match="scalar"):
            native.multiply_hashed(backend, scalar(value), b"", bytes(8), TAG)


# -- validation -----------------------------------------------------------------------------------------------------


def off_the_curve() -> int:
    return next(x for x in range(1, 100) if not oracle.is_square((x**3 + oracle.A * x + oracle.B) % oracle.P))


def small_x() -> int:
    """An x of a point for which x + p still fits 32 bytes."""
    return next(x for x in range(1, 100) if oracle.is_square((x**3 + oracle.A * x + oracle.B) % oracle.P))


# With y = (-(x^3 - 3x + b))^(1/2), which is what a careless decompression yields, this x is a point of order 4 on
# another curve: were it not replaced, its product would be at infinity and spoil the inversion that its block shares.
ORDER_4 = 0xA3C2F293D8EA83B0277A26769347486A5145B2D6810B121C30F755506D3C592F

BAD = {
    "off the curve": b"\x02" + scalar(off_the_curve()),
    "order 4 on another curve": b"\x02" + scalar(ORDER_4),
    "a second spelling of x": b"\x02" + scalar(small_x() + oracle.P),
    "x is the prime": b"\x03" + scalar(oracle.P),
    "x is all ones": b"\x02" + b"\xff" * 32,
    "prefix of an uncompressed point": b"\x04" + some_points(1)[0][1:],
    "prefix of a hybrid point": b"\x06" + some_points(1)[0][1:],
    "prefix 0": b"\x00" + some_points(1)[0][1:],
    "prefix 1": b"\x01" + some_points(1)[0][1:],
    "prefix with the top bit": bytes([some_points(1)[0][0] | 0x80]) + some_points(1)[0][1:],
    "infinity": bytes(33),
}


@every
@pytest.mark.parametrize("what", BAD)
def test_a_bad_point_in_any_lane_is_named_and_harms_no_other(backend, what):
    count = 40 if backend != "libcrypto" else 5
    points, k = list(some_points(40)[:count]), 0xC0FFEE
    clean = multiply(backend, k, points)
    with sm2curve.Scalar(scalar(k), backend=backend) as secret:
        for lane in range(count):
            products, bad = secret.multiply(b"".join([*points[:lane], BAD[what], *points[lane + 1 :]]))
            assert bad == (lane,)
            assert split(products) == [*clean[:lane], bytes(33), *clean[lane + 1 :]]


@every
def test_nothing_but_bad_points(backend):
    with sm2curve.Scalar.generate(backend=backend) as secret:
        assert secret.multiply(BAD["infinity"] * 20) == (bytes(33 * 20), tuple(range(20)))


@every
def test_validation_agrees_with_openssl_on_random_bytes(backend):
    draw = random.Random(3)
    candidates = [bytes([draw.choice((2, 3))]) + draw.randbytes(32) for _ in range(300)]
    wanted = []
    for place, candidate in enumerate(candidates):
        try:
            openssl().multiply(scalar(1), candidate)
        except ValueError:
            wanted.append(place)
    assert 100 < len(wanted) < 200
    products, bad = sm2curve.Scalar(scalar(1), backend=backend).multiply(b"".join(candidates))
    assert list(bad) == wanted
    good = [place for place in range(300) if place not in set(bad)]
    assert [split(products)[place] for place in good] == [candidates[place] for place in good]  # 1 P = P


def test_positions_count_across_slices_and_progress_is_told(monkeypatch):
    monkeypatch.setattr(sm2curve, "SLICE", 10)
    points = list(some_points(40)[:25])
    points[3] = points[14] = points[24] = BAD["off the curve"]
    told: list[int] = []
    with sm2curve.Scalar(scalar(7)) as secret:
        products, bad = secret.multiply(b"".join(points), told.append)
    assert bad == (3, 14, 24) and told == [10, 20, 25]
    assert split(products)[:3] == multiply(sm2curve.BACKEND, 7, points[:3])


# -- hashing --------------------------------------------------------------------------------------------------------


def column(messages: list[bytes]) -> tuple[bytes, bytes]:
    places = array.array("q", [0])
    for message in messages:
        places.append(places[-1] + len(message))
    return b"".join(messages), places.tobytes()


def expand(backend: str, messages: list[bytes], tag: bytes) -> list[bytes]:
    data, offsets = column(messages)
    if backend == "libcrypto":
        uniform, _ = fallback.expand(data, offsets, tag)
    else:
        assert native is not None
        uniform, _ = native.expand(backend, data, offsets, tag)
    return [uniform[place : place + 96] for place in range(0, len(uniform), 96)]


def map_pairs(backend: str, pairs: list[tuple[int, int]]) -> tuple[list[bytes], bytes]:
    uniform = b"".join(u.to_bytes(48, "big") for pair in pairs for u in pair)
    if backend == "libcrypto":
        points, marks = fallback.map_to_curve(uniform)
    else:
        assert native is not None
        points, marks = native.map_to_curve(backend, uniform)
    return split(points), marks


@every
@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: f"{case['tag'][:12]}-{case['message'][:8]}")
def test_published_vectors(backend, case):
    message, tag = case["message"].encode(), case["tag"].encode()
    assert expand(backend, [message], tag) == [bytes.fromhex(case["uniform"])]
    u = [int(one, 16) for one in case["u"]]
    assert map_pairs(backend, [(u[0], u[1])])[0] == [bytes.fromhex(case["point"])]
    assert sm2curve.hash_to_curve([message], tag, backend=backend) == bytes.fromhex(case["point"])


def test_the_published_file_is_what_the_plain_reference_computes():
    assert json.loads(json.dumps(oracle.vectors())) == VECTORS


@every
def test_expansion_equals_the_definition_at_every_length_and_in_mixed_batches(backend):
    draw = random.Random(5)
    messages = [draw.randbytes(size) for size in [*range(140), 255, 256, 1000, 1024]]
    for tag in (b"t", b"d" * 20, b"d" * 21, b"d" * 33, b"d" * 54, b"d" * 55, b"d" * 255):
        assert expand(backend, messages, tag) == [oracle.expand(message, tag) for message in messages]
    draw.shuffle(messages)
    assert expand(backend, messages[:37], TAG) == [oracle.expand(message, TAG) for message in messages[:37]]


@every_native
@pytest.mark.parametrize("count", [127, 128, 129, 1023, 1024, 1025])
def test_hashes_around_a_block_equal_the_definition(backend, count):
    messages = [b"%d" % number for number in range(count)]
    points = split(sm2curve.hash_to_curve(messages, TAG, backend=backend))
    assert points == [point for message in messages for point in split(hashed_alone(backend, message))]
    for place in {0, 1, 15, 16, count - 17, count - 16, count - 2, count - 1}:
        u, v = oracle.hash_to_field(messages[place], TAG)
        assert points[place] == oracle.compressed(oracle.add(oracle.map_to_curve(u), oracle.map_to_curve(v)))


@functools.cache
def hashed_alone(backend: str, message: bytes) -> bytes:
    return sm2curve.hash_to_curve([message], TAG, backend=backend)


EXCEPTIONAL = [0, 1, oracle.P - 1, oracle.P, oracle.P + 1, 2 * oracle.P, 2**256 - 1, 2**256, 2**383, 2**384 - 1]
# u with Z u^2 = -1, for which the definition divides by zero as well: u = 1 / sqrt(9) up to sign.
EXCEPTIONAL += [pow(3, -1, oracle.P), oracle.P - pow(3, -1, oracle.P)]


@every
def test_the_map_equals_the_definition(backend):
    draw = random.Random(6)
    some = [draw.randrange(2**384) for _ in range(60)]
    pairs = [(u, v) for u in EXCEPTIONAL for v in EXCEPTIONAL[:6]] + list(zip(some, some[::-1], strict=True))
    points, marks = map_pairs(backend, pairs)
    infinite = 0
    for (u, v), point, mark in zip(pairs, points, marks, strict=True):
        wanted = oracle.add(oracle.map_to_curve(u % oracle.P), oracle.map_to_curve(v % oracle.P))
        if wanted is None:
            infinite += 1
            assert (point, mark) == (bytes(33), 1)
        else:
            assert (point, mark) == (oracle.compressed(wanted), 0), (u, v)
    assert infinite  # u and -u: the sum that has to be refused, not computed
    assert any(u % oracle.P == v % oracle.P for u, v in pairs)  # and the one that is a doubling


@every
@pytest.mark.parametrize("k", [1, 2, 6, N - 6, N - 1, N // 3])
def test_hashing_and_multiplying_in_one_step_is_both_steps(backend, k):
    data, offsets = column([b"%d" % number for number in range(40)])
    points = [openssl().multiply(scalar(k), point) for point in split(sm2curve.hash_column(data, offsets, TAG))]
    with sm2curve.Scalar(scalar(k), backend=backend) as secret:
        assert split(secret.multiply_hashed(data, offsets, TAG)) == points
        assert secret.multiply_hashed(b"", bytes(8), TAG) == b""
    with pytest.raises(WrongState):
        secret.multiply_hashed(data, offsets, TAG)


@every_native
@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 63, 64, 65, 255, 256, 257, sm2curve.SLICE + 1])
def test_one_step_around_a_block_and_a_slice_is_both_steps(backend, count):
    data, offsets = column([b"%d" % number for number in range(count)])
    with sm2curve.Scalar(scalar(0xB10C), backend=backend) as secret:
        products, bad = secret.multiply(sm2curve.hash_column(data, offsets, TAG, backend=backend))
        assert bad == () and secret.multiply_hashed(data, offsets, TAG) == products


@every_native
def test_an_item_mapped_to_infinity_is_marked_and_does_not_touch_its_neighbours(backend):
    assert native is not None
    some = list(range(1, 40))
    pairs = [(u, oracle.P - u) if u % 7 == 3 else (u, u) if u % 7 == 5 else (u, 2 * u) for u in some]
    uniform = b"".join(u.to_bytes(48, "big") for pair in pairs for u in pair)
    products, marks = native.multiply_mapped(backend, scalar(N // 5), uniform)
    assert [bool(mark) for mark in marks] == [u % 7 == 3 for u in some]
    for (u, v), product, mark in zip(pairs, split(products), marks, strict=True):
        point = oracle.add(oracle.map_to_curve(u), oracle.map_to_curve(v))
        wanted = bytes(33) if mark else openssl().multiply(scalar(N // 5), oracle.compressed(point))
        assert product == wanted, u


@every
def test_points_of_messages_lie_on_the_curve_and_depend_on_the_tag(backend):
    messages = [b"%d" % number for number in range(50)]
    points = split(sm2curve.hash_to_curve(messages, TAG, backend=backend))
    assert [openssl().multiply(scalar(1), point) for point in points] == points
    assert len(set(points)) == 50
    assert not set(points) & set(split(sm2curve.hash_to_curve(messages, b"another", backend=backend)))


@every
@pytest.mark.parametrize(
    ("data", "offsets", "tag"),
    [
        (b"abc", [0, 4], TAG), (b"abc", [0, 2, 1], TAG), (b"abc", [-1, 2], TAG), (b"abc", [4, 4], TAG),
        (b"abc", [0, 2**62], TAG), (b"abc", [0, 3], b""), (b"abc", [0, 3], b"x" * 256), (bytes(65536), [0, 65536], TAG),
        (b"abc", [2**63 - 1, -(2**63)], TAG),
    ],
)  # fmt: skip
def test_messages_and_tags_out_of_range_are_refused(backend, data, offsets, tag):
    with pytest.raises(InvalidSpec):
        sm2curve.hash_column(data, array.array("q", offsets).tobytes(), tag, backend=backend)
    with sm2curve.Scalar.generate(backend=backend) as secret, pytest.raises(InvalidSpec):
        secret.multiply_hashed(data, array.array("q", offsets).tobytes(), tag)


@needs_native
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("multiply", (bytes(31) + b"\1", b"x" * 34)), ("multiply", (b"\1", b"")), ("map_to_curve", (b"x" * 97,)),
        ("expand", (b"", b"", TAG)), ("expand", (b"", b"x" * 9, TAG)), ("hash_to_curve", (b"", b"x" * 7, TAG)),
    ],
)  # fmt: skip
def test_the_extension_refuses_sizes_by_itself(name, arguments):
    assert native is not None
    with pytest.raises(ValueError):
        getattr(native, name)("portable", *arguments)
    with pytest.raises(ValueError, match="back end"):
        getattr(native, name)("abacus", *arguments)


# -- the secret, the choice, the lock -------------------------------------------------------------------------------


def test_a_scalar_is_not_shown_copied_or_used_after_it_was_wiped():
    value = scalar(0xDEADBEEF)
    with sm2curve.Scalar(value) as secret:
        assert "beef" not in repr(secret) and str(secret) == "Scalar(secret)"
        with pytest.raises(TypeError):
            pickle.dumps(secret)
        kept = secret._value
        assert kept == value
    assert kept == bytes(32)
    with pytest.raises(WrongState):
        secret.multiply(some_points(1)[0])
    with pytest.raises(InvalidSpec):
        sm2curve.Scalar(value).multiply(b"x" * 34)


def test_generated_scalars_differ_and_are_in_range():
    values = {bytes(sm2curve.Scalar.generate()._value) for _ in range(50)}
    assert len(values) == 50 and all(0 < int.from_bytes(value, "big") < N for value in values)


def test_the_choice_is_named_explained_and_can_be_forced():
    assert sm2curve.choose(os.environ.get(sm2curve.VARIABLE, "")) == (sm2curve.BACKEND, sm2curve.WHY)
    assert sm2curve.choose("")[0] == HERE[0]
    name, why = sm2curve.choose("libcrypto")
    assert name == "libcrypto" and sm2curve.VARIABLE in why
    for wrong in ("abacus", "IFMA"):
        with pytest.raises(Unavailable):
            sm2curve.choose(wrong)
    with pytest.raises(InvalidSpec):
        sm2curve.Scalar.generate(backend="abacus")
    line = "from sandbox.crypto import sm2curve as s; print(s.BACKEND); print(s.Scalar.generate()._backend)"
    forced = subprocess.run(
        [sys.executable, "-c", line], capture_output=True, text=True, env=os.environ | {sm2curve.VARIABLE: "libcrypto"}
    )
    assert forced.stdout.split() == ["libcrypto", "libcrypto"], forced.stderr


def test_without_the_extension_everything_works_and_says_that_it_is_slow(monkeypatch):
    wanted = sm2curve.hash_to_curve([b"abc"], TAG)
    monkeypatch.setattr(sm2curve, "_native", None)
    assert sm2curve.backends() == ("libcrypto",)
    name, why = sm2curve.choose("")
    assert name == "libcrypto" and "slower" in why and "gcc" in why
    with pytest.raises(Unavailable):
        sm2curve.choose("portable")
    assert sm2curve.hash_to_curve([b"abc"], TAG, backend="libcrypto") == wanted


@needs_native
def test_the_interpreter_runs_on_while_points_are_multiplied():
    # One call into C, hundreds of milliseconds: only a thread without the lock lets another one count meanwhile.
    assert native is not None
    points = b"".join(some_points(40)) * 100
    ticks, done = [0], threading.Event()

    def count() -> None:
        while not done.is_set():
            ticks[0] += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    before = ticks[0]
    native.multiply("portable", scalar(5), points)
    during = ticks[0] - before
    done.set()
    thread.join()
    assert during > 5


@every_native
@pytest.mark.slow
def test_the_intersection_runs_on_every_back_end(backend):
    """The engine's own tests, in a process that is told to use this back end."""
    tests = Path(__file__).parents[1] / "engines" / "test_ecdh_sm2.py"
    line = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-m", "not long", str(tests)]
    told = subprocess.run(
        line, capture_output=True, text=True, env=os.environ | {sm2curve.VARIABLE: backend}, cwd=tests.parents[2]
    )
    assert told.returncode == 0, told.stdout[-3000:]
    passed = re.search(r"(\d+) passed", told.stdout)
    assert passed and int(passed[1]) > 10, told.stdout[-3000:]


# -- the C code under watch -----------------------------------------------------------------------------------------

EXERCISE = """
import array, os, random, sys
sys.path.insert(0, sys.argv[1])
import _native as native
draw = random.Random(1)
data = draw.randbytes(3000)
for backend in native.backends():
    for count in (0, 1, 5, 16, 17, 130, 300):
        cuts = sorted(draw.randrange(len(data) + 1) for _ in range(count + 1))
        offsets = array.array("q", cuts).tobytes()
        points, marks = native.hash_to_curve(backend, data, offsets, b"tag")
        assert len(points) == 33 * count and not any(marks)
        products = native.multiply(backend, b"7" * 32, points)
        assert native.multiply_hashed(backend, b"7" * 32, data, offsets, b"tag") == products
        hurt = bytearray(points)
        for place in range(0, 33 * count, 33 * 3):
            hurt[place:place + 33] = draw.choice((bytes(33), b"\\xff" * 33, b"\\x02" + b"\\xff" * 32))
        for k in (1, 2, 6, draw.getrandbits(255)):
            products, marks = native.multiply(backend, k.to_bytes(32, "big"), bytes(hurt))
            assert sum(marks) == -(-count // 3)
    edges = b"".join(u.to_bytes(48, "big") for u in (0, 0, 1, 0, 2**384 - 1, 5, 7, 7))
    native.map_to_curve(backend, edges)
    native.multiply_mapped(backend, b"7" * 32, edges)
    for wrong in ((backend, bytes(32), b""), (backend, b"\\xff" * 32, b""), (backend, b"", b"x"), ("none", b"", b"")):
        try:
            native.multiply(*wrong)
        except ValueError:
            continue
        raise SystemExit("not refused")
print("done", *native.backends())
"""


def compiler() -> str:
    found = shutil.which("gcc")
    if found is None:
        pytest.skip("no gcc")
    return found


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


# The point formulas alone, on what Python sends: a byte that says which, the accumulator, and what is added.
FORMULAS = """
#include "BACKEND.c"
#include <stdio.h>

int main(void)
{
    static jacobian p;
    static affine q;

    for (int which; (which = getchar()) != EOF;) {
        if (fread(&p, sizeof p, 1, stdin) != 1 || fread(&q, sizeof q, 1, stdin) != 1)
            return 2;
        if (which == 2)
            point_double(&p);
        else
            point_add_affine(&p, &q, broadcast(0 - (uint64_t)which));
        fwrite(&p, sizeof p, 1, stdout);
    }
    return 0;
}
"""
LANES = {"ifma": (8, 2), "portable": (1, 2)}  # lanes of a unit, units of an element
LIMB = 1 << 52
R = pow(2, -260, oracle.P)
Limbs = list[int]


def limbs_of(value: int, draw: random.Random, form: str, backend: str) -> Limbs:
    """Split a number into limbs, as untidily as its form allows (field.h)."""
    limbs = [value >> 52 * i & (LIMB - 1) for i in range(4)] + [value >> 208]
    for i in range(4):
        if form == "loose" or (form == "factor" and backend == "portable"):
            moved = draw.randint(-7, 7) if backend == "portable" else draw.randint(-120, 120)
            limbs[i] += moved * LIMB
            limbs[i + 1] -= moved
        elif form == "factor":
            limbs[i] += draw.randint(-(2**9), 2**9) * LIMB  # what was carried, and does not count
    return limbs


def value_of(limbs: Limbs, form: str, backend: str) -> int:
    if form == "factor" and backend == "ifma":
        limbs = [limb % LIMB for limb in limbs[:4]] + limbs[4:]
    return sum(limb << 52 * i for i, limb in enumerate(limbs))


def laid_out(elements: list[Limbs], backend: str) -> bytes:
    lanes, units = LANES[backend]
    order = [elements[lanes * unit + lane][i] for unit in range(units) for i in range(5) for lane in range(lanes)]
    return struct.pack(f"={len(order)}q", *order)


def taken_apart(data: bytes, backend: str) -> list[Limbs]:
    lanes, units = LANES[backend]
    flat = struct.unpack(f"={5 * lanes * units}q", data)
    return [[flat[5 * lanes * u + lanes * i + lane] for i in range(5)] for u in range(units) for lane in range(lanes)]


def doubled(x: int, y: int, z: int) -> tuple[int, int, int]:
    a, alpha = y * y, 3 * (x - z * z) * (x + z * z)
    x3 = alpha * alpha - 2 * x * a
    return x3, 2 * alpha * (x3 - x * a) + a * a, y * z


def added(x: int, y: int, z: int, x2: int, y2: int) -> tuple[int, int, int]:
    h, r = x2 * z * z - x, y2 * z**3 - y
    j, v = 4 * h**3, 4 * x * h * h
    x3 = r * r - j - 2 * v
    return x3, 2 * r * (x3 - v) + 2 * j * y, 2 * z * h


@every_native
@pytest.mark.slow
def test_formulas_hold_up_to_the_bounds_that_their_comments_state(backend, tmp_path):
    source, program, draw = tmp_path / "formulas.c", tmp_path / "formulas", random.Random(52)
    source.write_text(FORMULAS.replace("BACKEND", backend), encoding="ascii")
    scalar_c = str(SOURCES / "scalar.c")
    build = [compiler(), "-std=gnu11", "-O2", "-w", f"-I{SOURCES}", str(source), scalar_c, "-o", str(program)]
    subprocess.run(build, check=True)
    width = LANES[backend][0] * LANES[backend][1]
    # In thousandths of p: where what comes in lies, and what goes out: X, Y, Z, and x and 2y of what is added.
    doubling = ([(2000, 3100), (0, 7000), (0, 2800)], [(2000, 3100), (0, 5800), (0, 2300)])
    addition = ([(2000, 3100), (0, 5000), (0, 1800)], [(2000, 3100), (0, 6700), (0, 2800)])
    forms = ("loose", "factor", "factor", "factor", "factor")
    sent, wanted = [], []
    for turn in range(900):
        which = turn % 3
        lanes = []
        for _ in range(width):
            ends = [(oracle.P * low // 1000, oracle.P * high // 1000 - 1)
                    for low, high in [*(doubling if which == 2 else addition)[0], (0, 1100), (0, 1100)]]  # fmt: skip
            lanes.append([draw.choice((low, high, draw.randint(low, high))) for low, high in ends])
        elements = [[limbs_of(lane[k], draw, forms[k], backend) for lane in lanes] for k in range(5)]
        sent.append(bytes([which]) + b"".join(laid_out(element, backend) for element in elements))
        for lane in lanes:
            x, y, z, x2, y2 = (value * R % oracle.P for value in lane)
            wanted.append((which, doubled(x, y, z) if which == 2 else added(x, y, z, x2, -y2 if which else y2)))
    got = subprocess.run([program], input=b"".join(sent), capture_output=True, check=True).stdout
    size = 40 * width
    assert len(got) == 900 * 3 * size
    for turn in range(900):
        parts = [taken_apart(got[size * k : size * (k + 1)], backend) for k in range(3 * turn, 3 * turn + 3)]
        for lane in range(width):
            which, results = wanted[width * turn + lane]
            for k, (low, high) in enumerate((doubling if which == 2 else addition)[1]):
                value = value_of(parts[k][lane], forms[k], backend)
                assert (value * R - results[k]) % oracle.P == 0, (turn, lane, k)
                assert oracle.P * low // 1000 <= value < oracle.P * high // 1000, (turn, lane, k, value / oracle.P)


# Valgrind knows no AVX512: both instructions that the source asks for by name are stood in for by plain C, and gcc
# makes the rest of SSE2. What is watched is our C, not what gcc makes of it for AVX512; for that see below.
PLAIN = """
typedef long long __m512i __attribute__((vector_size(64), may_alias));
typedef unsigned long long words __attribute__((vector_size(64)));

static __attribute__((noinline)) __m512i halves(__m512i sum, __m512i a, __m512i b, int high)
{
    const unsigned long long mask = (1ull << 52) - 1;
    words out = (words)sum;

    for (int i = 0; i < 8; i++) {
        unsigned __int128 product = (unsigned __int128)(((words)a)[i] & mask) * (((words)b)[i] & mask);
        out[i] += (unsigned long long)(high ? product >> 52 : product & mask);
    }
    return (__m512i)out;
}
#define _mm512_madd52lo_epu64(sum, a, b) halves(sum, a, b, 0)
#define _mm512_madd52hi_epu64(sum, a, b) halves(sum, a, b, 1)
"""

# Valgrind reports every branch and address that depends on memory that was declared undefined: here, on the scalar.
# Memory that is given back is looked at: it has to have been wiped.
WATCH = """
#include <stdio.h>
#include <stdlib.h>
#include <valgrind/memcheck.h>

static void *taken;
static size_t taken_size;
static unsigned long unwiped;

static void *take(size_t alignment, size_t size)
{
    taken_size = size;
    return taken = aligned_alloc(alignment, size);
}

static void give_back(void *memory)
{
    VALGRIND_MAKE_MEM_DEFINED(memory, memory == taken ? taken_size : 0);
    for (size_t at = 0; memory == taken && at < taken_size; at++)
        unwiped += ((const unsigned char *)memory)[at] != 0;
    free(memory);
}

#define aligned_alloc take
#define free give_back
#include "scalar.c"
#include "BACKEND.c"

int main(int count, char **arguments)
{
    uint8_t scalar[32], points[2 * 33], out[2 * 33], uniform[2 * 96], mapped[2 * 33], bad[2] = {0};
    struct recoded recoded;

    (void)arguments;
    for (int i = 0; i < 32; i++)
        scalar[i] = (uint8_t)(37 * i + 1);
    for (int at = 0; at < 2; at++) {
        static const uint8_t base[33] = {2,
            0x32, 0xc4, 0xae, 0x2c, 0x1f, 0x19, 0x81, 0x19, 0x5f, 0x99, 0x04, 0x46, 0x6a, 0x39, 0xc9, 0x94,
            0x8f, 0xe3, 0x0b, 0xbf, 0xf2, 0x66, 0x0b, 0xe1, 0x71, 0x5a, 0x45, 0x89, 0x33, 0x4c, 0x74, 0xc7};
        for (int i = 0; i < 33; i++)
            points[33 * at + i] = base[i];
    }
    VALGRIND_MAKE_MEM_UNDEFINED(scalar, sizeof scalar);
    int refused = sm2curve_recode(&recoded, scalar);
    VALGRIND_MAKE_MEM_DEFINED(&refused, sizeof refused); /* that it is in range is no secret */
    if (refused)
        return 2;
    if (sm2curve_BACKEND.multiply(&recoded, points, 2, out, bad))
        return 2;
    for (size_t i = 0; i < sizeof uniform; i++)
        uniform[i] = (uint8_t)(i + 1);
    VALGRIND_MAKE_MEM_DEFINED(bad, sizeof bad);
    if (bad[0] || bad[1] || sm2curve_BACKEND.multiply_mapped(&recoded, uniform, 2, mapped, bad))
        return 2;
    VALGRIND_MAKE_MEM_DEFINED(bad, sizeof bad);
    if (count > 1 && (out[1] & 1)) /* a branch on the product: the watch itself is tested with it */
        puts("odd");
    VALGRIND_MAKE_MEM_DEFINED(out, sizeof out);
    for (int i = 0; i < 33; i++)
        printf("%02x", out[i]);
    return unwiped ? 3 : bad[0] || bad[1];
}
"""


def watch(folder: Path, backend: str, sources: dict[str, str]) -> list[Any]:
    """Build the watch and return what starts it."""
    valgrind = shutil.which("valgrind")
    if valgrind is None or not Path("/usr/include/valgrind/memcheck.h").exists():
        pytest.skip("no valgrind with its headers")
    for name, text in {**sources, "immintrin.h": PLAIN, "watch.c": WATCH.replace("BACKEND", backend)}.items():
        (folder / name).write_text(text, encoding="ascii")
    program = folder / "watch"
    build = [
        compiler(),
        "-std=gnu11",
        "-O2",
        "-g",
        "-w",
        "-Wno-psabi",
        f"-I{folder}",
        folder / "watch.c",
        "-o",
        program,
    ]
    subprocess.run([*map(str, build)], check=True)
    return [valgrind, "--quiet", "--error-exitcode=9", program]


def plain_sources() -> dict[str, str]:
    texts = {path.name: path.read_text(encoding="ascii") for path in (*SOURCES.glob("*.h"), *SOURCES.glob("*.c"))}
    texts["ifma.c"], pragmas = re.subn(r"#pragma GCC target.*", "", texts["ifma.c"])
    assert pragmas == 1
    return texts


@pytest.mark.long
@pytest.mark.parametrize("backend", ["ifma", "portable"])
def test_no_branch_and_no_address_depends_on_the_scalar_and_work_space_is_wiped(backend, tmp_path):
    line = watch(tmp_path, backend, plain_sources())
    silent = subprocess.run(line, capture_output=True, text=True)
    assert silent.returncode == 0, silent.stderr[-3000:]
    k = bytes((37 * place + 1) % 256 for place in range(32))
    assert silent.stdout == openssl().multiply(k).hex()
    assert subprocess.run([*line, "leak"], capture_output=True).returncode == 9


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "sound", "broken", "code"),
    [
        ("batch.h", "    sm2curve_wipe(work, sizeof *work);\n    free(work);", "    free(work);", 3),
        ("point.h", "look_up(&term, multiples, scalar->magnitude[digit]);",
         "term = multiples[scalar->magnitude[digit]];", 9),
        ("point.h", "look_up(&term, multiples, scalar->magnitude[digit]);",
         "look_up(&term, multiples, scalar->magnitude[digit]); if (scalar->negative[digit]) puts(\"\");", 9),
        ("scalar.c", "k[i] ^= (k[i] ^ rest[i]) & out->flip;", "if (out->flip) puts(\"\"), k[i] = rest[i];", 9),
    ],
    ids=["not wiped", "indexed", "branch on a sign", "branch on the parity"],
)  # fmt: skip
def test_the_watch_notices(name, sound, broken, code, tmp_path):
    sources = plain_sources()
    assert sound in sources[name]
    sources[name] = sources[name].replace(sound, broken)
    assert subprocess.run(watch(tmp_path, "portable", sources), capture_output=True).returncode == code


@needs_native
@pytest.mark.slow
def test_gcc_makes_straight_code_of_the_formulas_on_the_scalar_s_way(tmp_path):
    """What valgrind cannot run, read: the only jumps are calls and returns, in the search for a digit one loop."""
    objdump, made = shutil.which("objdump"), tmp_path / "ifma.o"
    if objdump is None or "ifma" not in HERE:
        pytest.skip("no objdump, or no AVX512-IFMA here")
    source = str(SOURCES / "ifma.c")
    subprocess.run([compiler(), "-std=c11", "-O2", "-fPIC", "-g0", "-c", source, "-o", str(made)], check=True)
    listing = subprocess.run([objdump, "-d", "--no-show-raw-insn", made], capture_output=True, text=True, check=True)
    functions: dict[str, list[str]] = {}
    for block in re.split(r"\n\n", listing.stdout):
        if found := re.match(r"\s*[0-9a-f]+ <(\w+)", block):
            functions[found[1]] = re.findall(r"^ +[0-9a-f]+:\t(?!.*\bnop)(.*)$", block, re.M)
    for name, loops in (("point_double", 0), ("point_add_affine", 0), ("look_up", 1), ("multiply", 0), ("square", 0)):
        code = functions[name]
        assert sum("%zmm" in line for line in code) > 50, name
        assert sum(bool(re.match(r"j(?!mp\b)|loop", line)) for line in code) == loops, name
        assert not [line for line in code if "gather" in line or re.search(r"\(%r\w+,%r", line)], name
