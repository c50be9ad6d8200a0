"""Registration codes: their check character, and that a dataset has one code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.catalog.registration import ALPHABET, check_character, check_code, make_code
from sandbox.errors import InvalidSpec


def test_check_character_of_a_published_identifier() -> None:
    # The GRid standard's example, A1-2425G-ABC1234002-M, whose M is the ISO 7064 MOD 37,36 check character.
    assert check_character("A12425GABC1234002") == "M"


@given(st.text("ABC 部门局", min_size=1).filter(str.strip), st.text("abc 数据", min_size=1).filter(str.strip))
def test_a_made_code_is_valid_and_stable(owner: str, name: str) -> None:
    code = make_code(owner, name)
    check_code(code)
    assert code == make_code(f" {owner} ", name)


def test_codes_differ_by_owner_and_name_and_by_where_one_ends() -> None:
    assert len({make_code("a", "bc"), make_code("ab", "c"), make_code("bc", "a"), make_code("a", "b")}) == 4


@given(st.integers(0, 19), st.sampled_from(ALPHABET))
def test_one_wrong_character_is_noticed(place: int, wrong: str) -> None:
    code = make_code("owner", "name")
    changed = code[:place] + wrong + code[place + 1 :]
    if changed != code:
        with pytest.raises(InvalidSpec, match="mistyped"):
            check_code(changed)


@pytest.mark.parametrize("code", ["", "A", "../../../../../etc/x", "a" * 20, "０" * 20, "A" * 19 + "\n", "A" * 21])
def test_what_is_no_code_is_refused(code: str) -> None:
    with pytest.raises(InvalidSpec, match="20 characters"):
        check_code(code)


@pytest.mark.parametrize(("owner", "name"), [("", "x"), ("x", " "), ("x\n", "y\0"), ("\x07", "x")])
def test_nameless_datasets_have_no_code(owner: str, name: str) -> None:
    with pytest.raises(InvalidSpec):
        make_code(owner, name)
