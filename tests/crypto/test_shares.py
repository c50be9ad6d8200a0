"""A key split among people comes back from enough of them, and from nothing else."""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest
from Cryptodome.Protocol.SecretSharing import Shamir
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.crypto import passphrase, shares
from sandbox.crypto.shares import Form, Share, form_of, join, read, split, write, write_locked, write_sealed
from sandbox.crypto.sm2 import PrivateKey
from sandbox.errors import IntegrityFailed, InvalidSpec, SandboxError, Unavailable

KEY = bytes.fromhex("0123456789abcdeffedcba9876543210")


@pytest.fixture(scope="module")
def five() -> tuple[Share, ...]:
    return split(KEY, 3, 5)


# --- what the library does, for which the fence is there ------------------------------------------------------------


def test_the_library_gives_a_wrong_key_and_no_error() -> None:
    made = Shamir.split(3, 5, KEY, ssss=False)
    other = Shamir.split(3, 5, bytes(16), ssss=False)
    assert Shamir.combine(made[:3], ssss=False) == KEY
    for wrong in (made[:2], [*made[:2], other[2]]):
        assert len(Shamir.combine(wrong, ssss=False)) == 16
        assert Shamir.combine(wrong, ssss=False) != KEY


def test_the_library_splits_so_that_everybody_has_the_key_or_nobody_ever_does() -> None:
    assert Shamir.split(1, 3, KEY, ssss=False) == [(1, KEY), (2, KEY), (3, KEY)]
    assert Shamir.combine(Shamir.split(5, 3, KEY, ssss=False), ssss=False) != KEY


# --- splitting and joining ------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.binary(min_size=16, max_size=16), st.data())
def test_any_enough_of_them_give_the_key_back(key: bytes, data: st.DataObject) -> None:
    count = data.draw(st.integers(shares.LEAST, 7))
    need = data.draw(st.integers(shares.LEAST, count))
    made = split(key, need, count)
    chosen = data.draw(st.permutations(made))
    assert join(chosen[: data.draw(st.integers(need, count))]) == key
    lacking = data.draw(st.integers(1, need))
    with pytest.raises(Unavailable) as told:
        join(chosen[: need - lacking])
    assert need == lacking or f"{lacking} more of the {need} shares" in told.value.tell


def test_sixteen_work() -> None:
    made = split(KEY, 16, 16)
    assert join(made) == KEY
    with pytest.raises(Unavailable, match="1 more of the 16"):
        join(made[:15])


@pytest.mark.parametrize(("need", "count"), [(1, 1), (1, 3), (0, 3), (4, 3), (2, 17), (17, 17), (-1, 2)])
def test_numbers_that_protect_nothing_are_refused(need: int, count: int) -> None:
    with pytest.raises(InvalidSpec):
        split(KEY, need, count)


@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_only_a_key_is_split(size: int) -> None:
    with pytest.raises(InvalidSpec):
        split(bytes(size), 2, 3)


def test_a_share_twice_is_not_two(five: tuple[Share, ...]) -> None:
    with pytest.raises(InvalidSpec, match="twice"):
        join([five[0], five[1], five[1]])
    forged = dataclasses.replace(five[1], value=bytes(16))
    with pytest.raises(InvalidSpec, match="twice"):
        join([five[0], five[1], forged])


def test_shares_of_two_sets_do_not_mix_even_of_one_key(five: tuple[Share, ...]) -> None:
    again = split(KEY, 3, 5)
    assert again[0].set_id != five[0].set_id and again[0].check != five[0].check
    with pytest.raises(InvalidSpec, match="several sets"):
        join([five[0], five[1], again[2]])


@pytest.mark.parametrize("name", ["value", "check", "index"])
def test_a_false_share_is_noticed(five: tuple[Share, ...], name: str) -> None:
    true = five[2]
    changed = true.index % 5 + 2 if name == "index" else bytes(16)
    false = dataclasses.replace(true, **{name: changed})  # type: ignore[arg-type]
    with pytest.raises((IntegrityFailed, InvalidSpec)):
        join([five[0], five[1], false])
    assert false.mark != true.mark


def test_a_share_says_nothing_when_it_is_shown(five: tuple[Share, ...]) -> None:
    assert five[0].value.hex() not in repr(five[0]) and repr(five[0].value) not in repr(five[0])
    assert len({share.mark for share in five}) == 5


# --- on paper -------------------------------------------------------------------------------------------------------


def test_a_share_is_one_line_and_comes_back_however_it_was_copied(five: tuple[Share, ...]) -> None:
    for share in five:
        line = write(share)
        assert "\n" not in line and len(line) < 120
        letters = line.split(" ", 1)[1]
        for copy in (
            line,
            f"# for wang\n\n{line}\n# keep it safe\n",
            line.lower(),
            f"{Form.PLAIN.value} {letters.replace('-', '')}",
            f"  {Form.PLAIN.value}  {letters.replace('-', ' ')}  \r\n",
        ):
            assert form_of(copy) is Form.PLAIN and read(copy) == share


def test_every_slip_of_one_letter_is_noticed(five: tuple[Share, ...]) -> None:
    line = write(five[0])
    start = line.index(" ") + 1
    for at in range(start, len(line)):
        if line[at] == "-":
            continue
        for letter in random.Random(at).sample("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 4):
            if letter != line[at]:
                with pytest.raises(InvalidSpec):
                    read(line[:at] + letter + line[at + 1 :])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing",
        "sandbox-share-1",
        "sandbox-share-1 AAAAAAAA",
        "sandbox-share-2 " + "A" * 80,
        "sandbox-share-1 " + "0" * 80,
        "sandbox-share-1 " + "Ä" * 80,
        "sandbox-share-1 " + "A" * 5000,
        "sandbox-share-1-locked AAAAAAAA",
        "sandbox-share-1-sealed AAAAAAAA",
        "sandbox-share-1 " + "A" * 80 + "\nsandbox-share-1 " + "A" * 80,
    ],
)
def test_what_is_no_share_is_refused_in_our_words(text: str, key: PrivateKey) -> None:
    with pytest.raises(SandboxError):
        read(text, passphrase=b"x", key=key)


def test_a_share_whose_numbers_make_no_sense_is_refused(five: tuple[Share, ...]) -> None:
    for changes in ({"need": 1}, {"need": 6}, {"index": 0}, {"index": 6}, {"count": 17}, {"value": b""}):
        with pytest.raises(InvalidSpec):
            dataclasses.replace(five[0], **changes)  # type: ignore[arg-type]


def test_under_a_passphrase_it_opens_for_that_alone(five: tuple[Share, ...]) -> None:
    text = write_locked(five[0], b"correct horse")
    assert form_of(text) is Form.LOCKED and read(text, passphrase=b"correct horse") == five[0]
    assert write(five[0]).split(" ", 1)[1][:8] not in text
    with pytest.raises(IntegrityFailed):
        read(text, passphrase=b"wrong horse")
    with pytest.raises(InvalidSpec, match="passphrase"):
        read(text)
    with pytest.raises(InvalidSpec, match="passphrase"):
        write_locked(five[0], b"")


def test_sealed_to_a_card_it_opens_for_its_keeper_alone(
    five: tuple[Share, ...], key: PrivateKey, stranger: PrivateKey
) -> None:
    text = write_sealed(five[0], key.public)
    assert form_of(text) is Form.SEALED and read(text, key=key) == five[0]
    with pytest.raises(IntegrityFailed):
        read(text, key=stranger)
    with pytest.raises(InvalidSpec, match="sealed"):
        read(text)


def test_any_three_of_five_after_paper(five: tuple[Share, ...]) -> None:
    for chosen in itertools.combinations(five, 3):
        assert join([read(write(share)) for share in chosen]) == KEY


# --- passphrases ----------------------------------------------------------------------------------------------------


def test_what_is_locked_opens_for_its_passphrase_and_purpose_alone() -> None:
    locked = passphrase.lock(KEY, b"correct horse", b"one")
    assert passphrase.unlock(locked, b"correct horse", b"one") == KEY
    assert passphrase.lock(KEY, b"correct horse", b"one") != locked
    for attempt in (
        (locked, b"correct horse", b"two"),
        (locked, b"wrong", b"one"),
        (locked[:-1], b"correct horse", b"one"),
        (bytes([locked[0] ^ 1]) + locked[1:], b"correct horse", b"one"),
        (b"", b"correct horse", b"one"),
    ):
        with pytest.raises(IntegrityFailed):
            passphrase.unlock(*attempt)
