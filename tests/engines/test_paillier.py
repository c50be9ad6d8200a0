"""Paillier against published primes, against plain integers, and against what cannot be a key or a ciphertext."""

from __future__ import annotations

import copy
import math
import pickle
import random
import subprocess
import sys
import threading
from pathlib import Path

import gmpy2
import numpy as np
import phe
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paillier_keys import CASES, groups, integers, opened, plain, primes, private

from sandbox.crypto import modexp
from sandbox.errors import Cancelled, InvalidSpec, ProtocolFailed, SandboxError, WrongState
from sandbox.mpc import paillier, powers
from sandbox.mpc.paillier import PrivateKey, PublicKey, generate

KEY = private()
PUBLIC = KEY.public
N = PUBLIC.n
SIZE = 2 * PUBLIC.size
EDGES = [0, 1, 2, N // 2, N - 2, N - 1, 2**2047 - 1, 255 << 2040 >> 1]
numbers_below_n = st.one_of(st.sampled_from(EDGES), st.integers(0, N - 1))


def one(value: int, size: int = SIZE) -> bytes:
    return value.to_bytes(size, "big")


@pytest.mark.parametrize("bits", sorted(CASES))
def test_published_primes_give_the_known_results(bits):
    key, n = private(bits), math.prod(primes(bits))
    for known in CASES[bits]["encryptions"]:
        m, r, c = (int(known[name], 16) for name in "mrc")
        assert c == (1 + n * m) * gmpy2.powmod(r, n, n * n) % (n * n)
        assert opened(key, one(c, bits // 4)) == [m]
    together = b"".join(one(int(known["c"], 16), bits // 4) for known in CASES[bits]["encryptions"])
    expected = sum(int(known["m"], 16) for known in CASES[bits]["encryptions"]) % n
    assert opened(key, key.public.sum(together)) == [expected]


@pytest.mark.parametrize("bits", sorted(CASES))
def test_phe_opens_ours_and_we_open_theirs(bits):
    key = private(bits)
    theirs = phe.PaillierPublicKey(key.public.n)
    secret = phe.PaillierPrivateKey(theirs, *key.factors())
    values = [0, 1, key.public.n - 1, key.public.n // 2, 12345678901234567890]
    for ciphertexts in (key.public.encrypt(plain(key.public, values)), key.encrypt(plain(key.public, values))):
        assert [secret.raw_decrypt(c) for c in integers(ciphertexts, bits // 4)] == values
    assert opened(key, b"".join(one(theirs.raw_encrypt(v), bits // 4) for v in values)) == values


@settings(max_examples=12, deadline=None)
@given(st.lists(numbers_below_n, max_size=6), st.lists(numbers_below_n, max_size=6), st.integers(0, 2**64 - 1))
def test_operations_are_those_on_integers_modulo_n(left, right, factor):
    right = (right + [0] * len(left))[: len(left)]
    a, b = PUBLIC.encrypt(plain(PUBLIC, left)), KEY.encrypt(plain(PUBLIC, right))
    sums = [(x + y) % N for x, y in zip(left, right, strict=True)]
    for fresh in (True, False):
        assert opened(KEY, PUBLIC.add(a, b, fresh=fresh)) == sums
        assert opened(KEY, PUBLIC.add_plain(a, plain(PUBLIC, right), fresh=fresh)) == sums
        assert opened(KEY, PUBLIC.sum(a + b, fresh=fresh)) == [sum(left + right) % N]
        assert opened(KEY, PUBLIC.scale(a, factor, fresh=fresh)) == [x * factor % N for x in left]
    assert opened(KEY, PUBLIC.rerandomise(a)) == left


def test_grouped_sums_of_some_hundred_and_of_empty_groups():
    draw = random.Random(1)
    values = [draw.randrange(2**100) for _ in range(300)]
    where = np.array([draw.choice([0, 1, 1, 4, 5]) for _ in values], np.int32)
    ciphertexts = PUBLIC.encrypt(plain(PUBLIC, values))
    sums = opened(KEY, PUBLIC.grouped_sums(ciphertexts, where, 7))
    assert sums == [sum(v for v, g in zip(values, where.tolist(), strict=True) if g == k) for k in range(7)]
    assert opened(KEY, PUBLIC.grouped_sums(b"", groups(), 2)) == [0, 0]
    assert opened(KEY, PUBLIC.sum(b"")) == [0]


def test_what_goes_out_is_fresh_unless_asked_otherwise():
    m = plain(PUBLIC, [7, 7])
    a = PUBLIC.encrypt(m)
    assert len(set(integers(a + PUBLIC.encrypt(m) + KEY.encrypt(m) + KEY.encrypt(m), SIZE))) == 8
    cases = {
        "add": lambda **k: PUBLIC.add(a, a, **k),
        "add_plain": lambda **k: PUBLIC.add_plain(a, m, **k),
        "sum": lambda **k: PUBLIC.sum(a, **k),
        "grouped_sums": lambda **k: PUBLIC.grouped_sums(a, groups(0, 1), 3, **k),
        "scale": lambda **k: PUBLIC.scale(a, 5, **k),
    }
    for name, run in cases.items():
        assert run(fresh=False) == run(fresh=False), name
        outs = [integers(out, SIZE) for out in (run(fresh=False), run(), run())]
        assert all(len({*same}) == 3 for same in zip(*outs, strict=True)), name
    again = integers(PUBLIC.rerandomise(a), SIZE)
    assert not set(again) & set(integers(a, SIZE))
    # Not even an empty group or a factor of 0 shows as the number 1.
    assert 1 not in integers(PUBLIC.grouped_sums(a, groups(0, 0), 2) + PUBLIC.scale(a, 0), SIZE)


def test_randomness_is_an_nth_residue_of_the_length_agreed():
    p, q = primes(2048)
    zero = int.from_bytes(PUBLIC.encrypt(plain(PUBLIC, [0])), "big")
    assert pow(zero, (p - 1) * (q - 1), N * N) == 1
    assert gmpy2.jacobi(zero, N) == 1
    for exponent_bits in (224, 1024, 2048):
        key = PublicKey.from_modulus(N, exponent_bits=exponent_bits)
        drawn = integers(powers.uniform(64, 1 << exponent_bits), exponent_bits // 8)
        assert max(drawn).bit_length() > exponent_bits - 8
        assert len(set(drawn)) == 64
        assert opened(KEY, key.encrypt(plain(key, [5]))) == [5]
    assert PublicKey.from_modulus(N).exponent_bits == 1024


def test_few_powers_are_taken_one_by_one_and_many_from_one_table(monkeypatch):
    built = []

    class Counted(modexp.FixedBase):
        def __init__(self, *arguments: object) -> None:
            built.append(arguments)
            super().__init__(*arguments)

    monkeypatch.setattr(powers, "FixedBase", Counted)
    key = PublicKey.from_modulus(N, exponent_bits=232)
    few = plain(key, list(range(powers.FEW // 2)))
    for expected in (0, 0, 1, 1):
        assert opened(KEY, key.encrypt(few)) == list(range(powers.FEW // 2))
        assert len(built) == expected
    assert opened(KEY, PublicKey.from_bytes(key.to_bytes()).encrypt(few)) == list(range(powers.FEW // 2))
    assert len(built) == 1


def test_two_threads_build_one_table_and_give_the_same_results(monkeypatch):
    built = []
    monkeypatch.setattr(powers, "FixedBase", lambda *a: built.append(a) or modexp.FixedBase(*a))
    key = PublicKey.from_modulus(N, exponent_bits=240)
    values = list(range(150))
    found: list[list[int]] = []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        work = [
            threading.Thread(target=lambda: found.append(opened(KEY, key.encrypt(plain(key, values))))) for _ in "ab"
        ]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert found == [values, values]
    assert len(built) == 1


def test_threads_change_nothing_but_the_time():
    values = [random.Random(number).randrange(N) for number in range(140)]
    a = PUBLIC.encrypt(plain(PUBLIC, values), threads=2)
    b = KEY.encrypt(plain(PUBLIC, values), threads=2)
    assert integers(KEY.decrypt(a, threads=2), PUBLIC.size) == values == opened(KEY, b)
    assert PUBLIC.sum(a, threads=2, fresh=False) == PUBLIC.sum(a, fresh=False)
    assert PUBLIC.add(a, b, threads=2, fresh=False) == PUBLIC.add(a, b, fresh=False)
    assert PUBLIC.scale(a[: 4 * SIZE], 9, threads=2, fresh=False) == PUBLIC.scale(a[: 4 * SIZE], 9, fresh=False)


def test_more_than_one_chunk_is_one_result(monkeypatch):
    monkeypatch.setattr(powers, "CHUNK", 7)
    values, told = list(range(20)), []
    a = PUBLIC.encrypt(plain(PUBLIC, values), on_slice=told.append)
    assert told[-1] == 20
    assert told == sorted(told)
    for run in (PUBLIC.rerandomise, PUBLIC.sum, KEY.decrypt):
        told.clear()
        run(a, on_slice=told.append)
        assert told[-1] == 20
        assert told == sorted(told)
    assert told[0] == 7 // 2  # modulo one factor, half of the work
    told.clear()
    assert opened(KEY, KEY.encrypt(plain(PUBLIC, values), on_slice=told.append)) == values
    assert (told[-1], told) == (20, sorted(told))
    assert told[0] < 7


def test_the_callback_ends_the_work():
    values = plain(PUBLIC, [1] * 200)
    ciphertexts = PUBLIC.encrypt(values)

    def cancel(done: int) -> None:
        raise Cancelled("stop")

    for run, data in (
        (PUBLIC.encrypt, values),
        (KEY.encrypt, values),
        (KEY.decrypt, ciphertexts),
        (PUBLIC.rerandomise, ciphertexts),
        (PUBLIC.sum, ciphertexts),
    ):
        with pytest.raises(Cancelled):
            run(data, on_slice=cancel)


def everything_that_takes_ciphertexts():
    good = PUBLIC.encrypt(plain(PUBLIC, [1]))
    return {
        "check": PUBLIC.check,
        "rerandomise": PUBLIC.rerandomise,
        "add, left": lambda c: PUBLIC.add(c, good * (len(c) // SIZE)),
        "add, right": lambda c: PUBLIC.add(good * (len(c) // SIZE), c),
        "add_plain": lambda c: PUBLIC.add_plain(c, plain(PUBLIC, [1] * (len(c) // SIZE))),
        "sum": PUBLIC.sum,
        "grouped_sums": lambda c: PUBLIC.grouped_sums(c, np.arange(len(c) // SIZE, dtype=np.int32), 9),
        "scale": lambda c: PUBLIC.scale(c, 0),
        "decrypt": KEY.decrypt,
    }


@pytest.mark.parametrize("name", everything_that_takes_ciphertexts())
def test_ciphertexts_that_are_none_are_counted_and_refused(name):
    run = everything_that_takes_ciphertexts()[name]
    good, (p, q) = PUBLIC.encrypt(plain(PUBLIC, [3])), primes(2048)
    for bad in (0, N, p, q * q, p * (N + 5) % N**2, N**2 - N):
        with pytest.raises(ProtocolFailed, match="2 ciphertexts are no units"):
            run(good + one(bad) + good + one(bad))
    for bad in (N**2, N**2 + 1, 2**4096 - 1):
        with pytest.raises(ProtocolFailed, match="1 ciphertexts are out of range"):
            run(good + one(bad))
    with pytest.raises(ProtocolFailed, match="length"):
        run(good[:-1])
    run(good + one(1) + one(N**2 - 1))


def test_plaintexts_that_are_none_are_refused():
    for bad in (plain(PUBLIC, [1, N]), plain(PUBLIC, [2**2048 - 1]), b"\0", plain(PUBLIC, [1])[1:]):
        for run in (PUBLIC.encrypt, KEY.encrypt, lambda data: PUBLIC.add_plain(PUBLIC.sum(b""), data)):
            with pytest.raises(InvalidSpec):
                run(bad)


def test_sides_factors_and_groups_that_do_not_fit_are_refused():
    a = PUBLIC.encrypt(plain(PUBLIC, [1, 2]))
    for run in (
        lambda: PUBLIC.add(a, a[:SIZE]),
        lambda: PUBLIC.add_plain(a, plain(PUBLIC, [1])),
        lambda: PUBLIC.scale(a, -1),
        lambda: PUBLIC.scale(a, 2**64),
        lambda: PUBLIC.grouped_sums(a, groups(0), 1),
        lambda: PUBLIC.grouped_sums(a, groups(0, 2), 2),
        lambda: PUBLIC.grouped_sums(a, groups(0, -1), 2),
        lambda: PUBLIC.encrypt(plain(PUBLIC, [1]), threads=0),
        lambda: generate(1024),
    ):
        with pytest.raises(InvalidSpec):
            run()


@pytest.mark.parametrize("bits", sorted(CASES))
def test_keys_come_back_from_their_bytes(bits):
    key = private(bits)
    public = PublicKey.from_bytes(key.public.to_bytes())
    assert public == key.public
    assert (public.bits, public.size, public.key_id) == (bits, bits // 8, key.public.key_id)
    assert len(public.key_id) == 32
    assert public.key_id != private(bits, exponent_bits=264).public.key_id
    again = PrivateKey.from_bytes(key.to_bytes())
    assert (again.public, again.factors()) == (public, key.factors())
    assert opened(again, public.encrypt(plain(public, [77]))) == [77]


def rebuilt(data: bytes, place: int, value: int, size: int) -> bytes:
    return data[:place] + one(value, size) + data[place + size :]


def malformed_public() -> dict[str, bytes]:
    good, (p, _) = PUBLIC.to_bytes(), primes(2048)
    prime = int(gmpy2.next_prime(N))
    nonresidue = next(a for a in range(2, 100) if gmpy2.jacobi(a, N) == -1)
    moduli = {
        "even": N - 1,
        "small factor": next(k for k in range(N, N - 2 * 65521, -2) if k % 65521 == 0),
        "prime": prime,
        "square": p * p,
        "one bit short": N >> 1 | 1,
        "zero": 0,
    }
    bases = {
        "zero": 0,
        "one": 1,
        "n - 1": N - 1,
        "n + 1": N + 1,
        "n": N,
        "no unit": p,
        "other symbol": nonresidue,
        "n squared": N**2,
    }
    return {
        "empty": b"",
        "short": good[:-1],
        "long": good + b"\0",
        "magic": b"PPK2" + good[4:],
        "private's magic": b"PSK1" + good[4:],
        "bits": rebuilt(good, 4, 3072, 2),
        "bits of none": rebuilt(good, 4, 2049, 2),
        "exponents too short": rebuilt(good, 6, 216, 2),
        "exponents too long": rebuilt(good, 6, 2056, 2),
        "exponents in between": rebuilt(good, 6, 250, 2),
        # With a square as base, so that it is the modulus that is refused.
        **{f"modulus: {name}": rebuilt(rebuilt(good, 8, value, 256), 264, 4, 512) for name, value in moduli.items()},
        **{f"base: {name}": rebuilt(good, 264, value, 512) for name, value in bases.items()},
    }


@pytest.mark.parametrize("name", malformed_public())
def test_bytes_that_are_no_public_key_are_refused(name):
    PublicKey.from_bytes(rebuilt(PUBLIC.to_bytes(), 264, 4, 512))
    with pytest.raises(InvalidSpec):
        PublicKey.from_bytes(malformed_public()[name])


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=900), st.integers(0, 775), st.integers(1, 255))
def test_other_bytes_give_another_key_or_none_and_no_other_error(noise, place, change):
    changed = bytearray(PUBLIC.to_bytes())
    changed[place] ^= change
    for data in (noise, bytes(changed)):
        try:
            assert PublicKey.from_bytes(data) != PUBLIC
        except SandboxError as error:
            assert type(error) is InvalidSpec


def test_factors_that_are_none_are_refused():
    (p, q), other = primes(2048), primes(3072)[0]
    close = int(gmpy2.next_prime(p))
    data = KEY.to_bytes()
    for bad in ((p, p), (p, close), (p, q + 2), (-p, -q), (p, other), (0, 0), (1, N), (3, N // 3)):
        with pytest.raises(InvalidSpec):
            PrivateKey(*bad)
    with pytest.raises(InvalidSpec, match="another"):
        PrivateKey(p, int(gmpy2.next_prime(q)), PUBLIC)
    # The public part alone cannot tell this base from an n-th residue; the factors can.
    forged = PublicKey(N, PUBLIC.h_s * (1 + 5 * N) % N**2, 256)
    with pytest.raises(InvalidSpec, match="randomness"):
        PrivateKey(p, q, forged)
    for bad in (data[:-1], b"PPK1" + data[4:], rebuilt(data, 8, p + 2, 128), rebuilt(data, 136, 0, 128), b""):
        with pytest.raises(InvalidSpec):
            PrivateKey.from_bytes(bad)


def test_new_keys_are_of_the_form_asked_for():
    made = [generate(), generate(2048, exponent_bits=400)]
    assert made[0].public.n != made[1].public.n
    assert [key.public.exponent_bits for key in made] == [1024, 400]
    for key in made:
        p, q = key.factors()
        n, h_s = key.public.n, key.public.h_s
        assert n == p * q
        assert n.bit_length() == 2048
        assert (p % 4, q % 4, math.gcd(p - 1, q - 1)) == (3, 3, 2)
        assert gmpy2.is_prime(p) and gmpy2.is_prime(q)
        # h is minus a square: a non-residue modulo both factors, whose Jacobi symbol is 1.
        assert gmpy2.jacobi(h_s, p) == gmpy2.jacobi(h_s, q) == -1
        assert pow(h_s, (p - 1) * (q - 1), n * n) == 1
        assert opened(key, key.public.encrypt(plain(key.public, [9]))) == [9]


def test_a_private_key_does_not_print_copy_or_pickle_and_closes():
    p, q = primes(2048)
    with PrivateKey(p, q, PUBLIC) as key:
        assert (repr(key), str(key)) == ("PrivateKey(secret)", "PrivateKey(secret)")
        for run in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError):
                run(key)
        assert opened(key, PUBLIC.encrypt(plain(PUBLIC, [1]))) == [1]
    key.close()
    assert not [name for name in key.__slots__ if name != "public" and getattr(key, name) is not None]
    for run in (key.to_bytes, key.factors, lambda: key.decrypt(b""), lambda: key.encrypt(b"")):
        with pytest.raises(WrongState):
            run()


def test_a_public_key_prints_no_numbers_and_is_compared_by_value():
    assert str(N) not in repr(PUBLIC)
    assert len(repr(PUBLIC)) < 60
    assert pickle.loads(pickle.dumps(PUBLIC)) == PUBLIC
    assert PublicKey.from_modulus(N, exponent_bits=256) != PUBLIC


def test_a_modulus_of_the_other_form_gets_a_square_as_base():
    draw = random.Random(3)
    while True:
        p, q = (int(gmpy2.next_prime(draw.getrandbits(1024) | 3 << 1022)) for _ in "pq")
        if p * q % 4 == 3:
            break
    key = PrivateKey(p, q)
    assert gmpy2.jacobi(key.public.h_s, p) == gmpy2.jacobi(key.public.h_s, q) == 1
    assert opened(key, key.public.encrypt(plain(key.public, [0, p * q - 1]))) == [0, p * q - 1]


@pytest.mark.parametrize("backend", modexp.backends())
def test_every_back_end_of_the_arithmetic_opens_the_known_results(backend):
    program = """
import sys
from paillier_keys import CASES, opened, plain, private
from sandbox.crypto import modexp
key = private()
known = [(int(k["m"], 16), int(k["c"], 16).to_bytes(512, "big")) for k in CASES[2048]["encryptions"]]
assert opened(key, b"".join(c for _, c in known)) == [m for m, _ in known]
values = list(range(100))
assert opened(key, key.public.encrypt(plain(key.public, values))) == values
assert opened(key, key.public.sum(key.encrypt(plain(key.public, values)))) == [sum(values)]
print(modexp.BACKEND)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={modexp.VARIABLE: backend, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [backend]


@settings(deadline=None)
@given(
    st.binary(min_size=3, max_size=60).map(lambda data: data[: len(data) // 3 * 3]), st.binary(min_size=3, max_size=3)
)
def test_numbers_are_compared_as_numbers_not_as_text(data, bound):
    limit = int.from_bytes(bound, "big")
    assert powers.at_least(data, limit, 3) == sum(value >= limit for value in integers(data, 3))


def test_draws_are_uniform_above_zero_and_below_the_bound():
    for bound in (2, 3, 5, 255, 256, 257, 300, 65536):
        size = powers.size_of(bound - 1)
        drawn = integers(powers.uniform(400 * min(bound, 20), bound), size)
        assert len(drawn) == 400 * min(bound, 20)
        assert 1 <= min(drawn) <= max(drawn) < bound
        counts = np.bincount(drawn, minlength=bound)[1:]
        if bound <= 5:
            assert counts.min() > 0.8 * len(drawn) / (bound - 1)
        else:
            assert max(drawn) > bound * 0.99 - 2
    assert powers.uniform(0, 256) == b""


def test_the_tables_of_two_keys_are_kept_and_no_more():
    keys = [PublicKey.from_modulus(N, exponent_bits=bits) for bits in (224, 232, 240)]
    before = [paillier._powers(key) for key in keys]
    assert [paillier._powers(key) is one for key, one in zip(keys[1:], before[1:], strict=True)] == [True, True]
    assert paillier._powers(keys[0]) is not before[0]
