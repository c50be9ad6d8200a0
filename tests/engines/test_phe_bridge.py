"""Keys and numbers go to ``phe`` and come back, and nothing of it is needed where it is not used."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from pathlib import Path

import phe
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paillier_keys import integers, private

from sandbox.errors import InvalidSpec, ProtocolFailed, Unavailable
from sandbox.mpc import phe_bridge as bridge
from sandbox.mpc.paillier import PrivateKey

KEY = private()
PUBLIC = KEY.public
THEIRS = phe.PaillierPublicKey(PUBLIC.n)
SECRET = phe.PaillierPrivateKey(THEIRS, *KEY.factors())
signed = st.integers(-(2**70), 2**70)


@functools.cache
def brought() -> tuple[phe.PaillierPublicKey, phe.PaillierPrivateKey, PrivateKey]:
    """A key that phe made, of whatever form."""
    public, secret = phe.generate_paillier_keypair(n_length=2048)
    return public, secret, bridge.private_from_phe(secret)


@settings(max_examples=5, deadline=None)
@given(st.lists(signed, min_size=1, max_size=5))
def test_numbers_of_phe_are_added_scaled_and_opened_here(values):
    taken = bridge.numbers_from_phe(PUBLIC, [THEIRS.encrypt(value) for value in values])
    assert bridge.ints_from_plaintexts(PUBLIC, KEY.decrypt(taken)) == values
    tripled = PUBLIC.scale(PUBLIC.sum(taken), 3)
    assert bridge.ints_from_plaintexts(PUBLIC, KEY.decrypt(tripled)) == [3 * sum(values)]


@settings(max_examples=5, deadline=None)
@given(st.lists(signed, min_size=1, max_size=5), st.integers(-50, 50))
def test_our_ciphertexts_are_added_scaled_and_opened_by_phe(values, factor):
    ciphertexts = PUBLIC.encrypt(bridge.plaintexts_from_ints(PUBLIC, values))
    given_back = bridge.numbers_to_phe(PUBLIC, ciphertexts)
    assert [SECRET.decrypt(number) for number in given_back] == values
    assert SECRET.decrypt(sum(given_back[1:], given_back[0]) * factor) == factor * sum(values)
    # And the same sum of both libraries' numbers, here.
    mixed = bridge.numbers_from_phe(PUBLIC, [given_back[0] + 17, THEIRS.encrypt(-4)])
    assert bridge.ints_from_plaintexts(PUBLIC, KEY.decrypt(PUBLIC.sum(mixed))) == [values[0] + 13]


def test_a_key_of_phe_works_here_and_goes_back():
    public, secret, key = brought()
    assert bridge.public_to_phe(key.public) == public
    assert bridge.private_to_phe(key) == secret
    values = [-5, 0, public.max_int, -public.max_int]
    ours = key.public.encrypt(bridge.plaintexts_from_ints(key.public, values))
    assert [secret.decrypt(number) for number in bridge.numbers_to_phe(key.public, ours)] == values
    taken = bridge.numbers_from_phe(key.public, [public.encrypt(value) for value in values])
    assert bridge.ints_from_plaintexts(key.public, key.decrypt(taken)) == values


def test_contributors_with_the_public_key_alone_draw_bases_of_their_own():
    public, _, key = brought()
    one, other = (bridge.public_from_phe(public, exponent_bits=bits) for bits in (None, 400))
    assert one.n == other.n == public.n
    assert (one.exponent_bits, other.exponent_bits) == (1024, 400)
    assert one.h_s != other.h_s
    sums = one.add(one.encrypt(bridge.plaintexts_from_ints(one, [8])), other.encrypt((9).to_bytes(256, "big")))
    assert bridge.ints_from_plaintexts(one, key.decrypt(sums)) == [17]
    again = bridge.private_from_phe(brought()[1], other)
    assert again.public == other


def test_fixed_point_numbers_keep_their_exponent():
    step = 16**-4
    numbers = [THEIRS.encrypt(value, precision=step) for value in (1.5, -2.25, 1000.0)]
    assert {number.exponent for number in numbers} == {-4}
    total = PUBLIC.sum(bridge.numbers_from_phe(PUBLIC, numbers, exponent=-4))
    (back,) = bridge.numbers_to_phe(PUBLIC, total, exponent=-4)
    assert SECRET.decrypt(back) == 999.25
    assert bridge.ints_from_plaintexts(PUBLIC, KEY.decrypt(total)) == [int(999.25 * 16**4)]


def test_numbers_with_exponents_of_their_own_are_refused():
    telling = [THEIRS.encrypt(value) for value in (0.5, 123456.789)]
    assert len({number.exponent for number in telling}) == 2
    with pytest.raises(InvalidSpec, match="exponent"):
        bridge.numbers_from_phe(PUBLIC, telling, exponent=telling[0].exponent)
    with pytest.raises(InvalidSpec, match="exponent"):
        bridge.numbers_from_phe(PUBLIC, [THEIRS.encrypt(1.5)])


def test_what_is_not_of_the_kind_or_key_is_refused():
    public, secret, key = brought()
    for run in (
        lambda: bridge.numbers_from_phe(key.public, [THEIRS.encrypt(1)]),
        lambda: bridge.numbers_from_phe(PUBLIC, [5]),
        lambda: bridge.numbers_from_phe(PUBLIC, [phe.EncodedNumber.encode(THEIRS, 5)]),
        lambda: bridge.public_from_phe(secret),
        lambda: bridge.public_from_phe(phe.PaillierPublicKey(PUBLIC.n >> 1)),
        lambda: bridge.private_from_phe(public),
        lambda: bridge.private_from_phe(secret, PUBLIC),
    ):
        with pytest.raises(InvalidSpec):
            run()


@pytest.mark.parametrize("value", [0, PUBLIC.n, -1, PUBLIC.n**2, PUBLIC.n**2 + 1, 2**5000])
@pytest.mark.parametrize("fresh", [True, False])
def test_numbers_that_are_no_ciphertexts_are_refused(value, fresh):
    with pytest.raises(ProtocolFailed):
        bridge.numbers_from_phe(PUBLIC, [phe.EncryptedNumber(THEIRS, value)], fresh=fresh)
    if 0 <= value < 2**4096:
        with pytest.raises(ProtocolFailed):
            bridge.numbers_to_phe(PUBLIC, value.to_bytes(512, "big"), fresh=fresh)


def test_what_crosses_is_fresh_unless_asked_otherwise():
    bare = phe.EncryptedNumber(THEIRS, THEIRS.raw_encrypt(5, r_value=1))
    kept = bridge.numbers_from_phe(PUBLIC, [bare], fresh=False)
    assert integers(kept, 512) == [5 * PUBLIC.n + 1]
    first, second = (bridge.numbers_from_phe(PUBLIC, [bare]) for _ in range(2))
    assert len({kept, first, second}) == 3
    out = [bridge.numbers_to_phe(PUBLIC, kept, fresh=fresh)[0].ciphertext(be_secure=False) for fresh in (False, True)]
    assert out[0] == 5 * PUBLIC.n + 1 != out[1]
    assert SECRET.raw_decrypt(out[1]) == 5


def test_integers_too_large_or_overflowed_are_counted_never_shown():
    largest = THEIRS.max_int
    edge = [largest, -largest]
    assert bridge.ints_from_plaintexts(PUBLIC, bridge.plaintexts_from_ints(PUBLIC, edge)) == edge
    with pytest.raises(InvalidSpec, match=r"^2 integers"):
        bridge.plaintexts_from_ints(PUBLIC, [largest + 1, 5, -largest - 1])
    for value in (largest + 1, PUBLIC.n - largest - 1):
        with pytest.raises(ProtocolFailed, match=r"^1 integers"):
            bridge.ints_from_plaintexts(PUBLIC, value.to_bytes(256, "big") + bytes(256))
    with pytest.raises(InvalidSpec):
        bridge.ints_from_plaintexts(PUBLIC, bytes(255))


def test_without_phe_the_hint_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "phe", None)
    with pytest.raises(Unavailable) as caught:
        bridge.public_to_phe(PUBLIC)
    assert "data-sandbox[phe]" in caught.value.hint


def test_the_lines_on_the_page_do_what_they_say():
    page = (Path(__file__).parents[2] / "docs" / "totals.md").read_text("utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == program.rpartition("# ")[2]


def test_the_library_is_loaded_only_when_used():
    program = "import sys, sandbox.mpc.phe_bridge, sandbox.mpc.packing; sys.exit('phe' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
