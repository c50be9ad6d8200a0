"""Formats of keys: known answers, a plain reference row by row, and what a library for telephone numbers says."""

from __future__ import annotations

import itertools
import json
import re
import unicodedata
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import phonenumbers
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from key_reference import REFERENCES, check_digit, credit_check, plain

from sandbox.catalog.formats import KeyFormat, spell
from sandbox.catalog.ids import made_up_ids
from sandbox.errors import InvalidSpec

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "key_normalisation.json").read_text())
CASES = VECTORS["cases"]
MAINLAND = [("1", 11), ("10", 10), ("26", 10), ("300", 10), ("300", 11), ("400", 10), ("800", 10)]


def spelled(values: Sequence[str | None], form: KeyFormat) -> list[tuple[str | None, bool]]:
    found = spell(pa.array(values, pa.string()), form)
    return list(zip(found.text.to_pylist(), found.valid.tolist(), strict=True))


# Known answers


@pytest.mark.parametrize("form", KeyFormat)
def test_known_answers(form: KeyFormat) -> None:
    cases = [case for case in CASES if case["format"] == form.value]
    assert len(cases) >= 10
    assert all(case["source"] and case["why"] for case in cases)
    wanted = [(case["output"], case["valid"]) for case in cases]
    assert spelled([case["input"] for case in cases], form) == wanted
    assert [spelled([case["input"]], form)[0] for case in cases] == wanted  # the neighbours do not matter
    assert [plain(case["input"], form) for case in cases] == wanted


def test_known_answers_are_enough() -> None:
    assert len(CASES) >= 60
    assert {case["format"] for case in CASES} == set(KeyFormat)
    outputs = [case["output"] for case in CASES if case["format"] == "id_number" and case["valid"]]
    assert {number[:4] for number in outputs} == {"9900", "9990"}  # nobody's


def test_the_examples_in_the_document_are_true() -> None:
    page = (Path(__file__).parents[2] / "docs" / "keys.md").read_text(encoding="utf-8")
    table = page.partition("### Examples")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", table, re.MULTILINE)
    assert {form for form, _, _ in rows} == set(KeyFormat)
    for form, written, answer in rows:
        (wanted,) = re.findall(r"`([^`]+)`", answer)
        texts = re.findall(r"`([^`]+)`", written)
        assert texts and spelled(texts, KeyFormat(form)) == [(wanted, "invalid" not in answer)] * len(texts)


def test_the_reference_computes_check_characters_as_published() -> None:
    assert check_digit("000000021825009") == "7"  # ISO 7064 MOD 11-2, in ORCID's made-up example 0000-0002-1825-0097
    assert check_digit("079") == "X"  # the standard's own example
    assert credit_check("91350100M000100Y4") == "3"  # GB 32100-2015, its example


# The reference

SEPARATORS = [*" \t-()", "\u3000", "\u2011", "\u2212", "\u200b", "\u202d", "\ufeff", "\x1f", "\x85", "·", "."]
FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}


@st.composite
def scribbled(draw: st.DrawFn, whole: st.SearchStrategy[str]) -> str:
    """Draw a text as somebody may have written it."""
    text = draw(whole)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.sampled_from(SEPARATORS)) + text[place:]
    text = draw(st.sampled_from([text, text, text.lower(), text.translate(FULL_WIDTH)]))
    return draw(st.sampled_from([text, text, text, text[:-1], text[1:], text + "0", "*" + text]))


@st.composite
def id_numbers(draw: st.DrawFn) -> str:
    year = draw(st.sampled_from(["1799", "1800", "1900", "1985", "2000", "2024", "2099", "2100"]))
    month, day = draw(st.integers(0, 13)), draw(st.sampled_from([0, 1, 28, 29, 30, 31, 32]))
    body = f"990000{year}{month:02d}{day:02d}{draw(st.sampled_from([0, 5, 123, 995, 996, 999])):03d}"
    if draw(st.booleans()):
        return body[:6] + body[8:]
    return body + draw(st.sampled_from([check_digit(body)] * 4 + list("0X")))


@st.composite
def phones(draw: st.DrawFn) -> str:
    begins, length = draw(st.sampled_from([*MAINLAND, ("2", 10), ("44", 12), ("852", 11), ("", 6), ("", 16)]))
    rest = draw(st.text("0123456789", min_size=length - len(begins), max_size=length - len(begins)))
    prefix = draw(st.sampled_from(["", "", "0", "86", "+86", "0086", "+", "00", "+86(0)", "+86 0", "(86)", "+44(0)"]))
    extension = draw(st.sampled_from(["", "", "", "-1", " 801"]))
    return prefix + begins + rest + extension


@st.composite
def credit_codes(draw: st.DrawFn) -> str:
    alphabet = "0123456789ABCDEFGHJKLMNPQRTUWXY"
    body = draw(st.text(alphabet, min_size=2, max_size=2)) + draw(st.sampled_from(["990000", "99000A"]))
    body += draw(st.text(alphabet, min_size=9, max_size=9))
    return body + draw(st.sampled_from([credit_check(body)] * 4 + ["0", "Z"]))


PARTS = st.sampled_from(
    [*"甲乙aZß.·•‧∙⋅⸱・･ éüσςÐÿﬁｱĳſжꙊ", "\u0387", "\u0308", "\uf900", "\U00020000", "\ufe00", "\u1680", "\x0b"]
)
WRITTEN = {
    KeyFormat.TEXT: st.lists(PARTS, max_size=6).map("".join),
    KeyFormat.NAME: st.lists(PARTS, max_size=6).map("".join),
    KeyFormat.ID_NUMBER: scribbled(id_numbers()),
    KeyFormat.PHONE: scribbled(phones()),
    KeyFormat.CREDIT_CODE: scribbled(credit_codes()),
}
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.mark.parametrize("form", KeyFormat)
@settings(deadline=None)
@given(data=st.data())
def test_it_equals_the_plain_reference(form: KeyFormat, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.one_of(st.none(), WRITTEN[form]), max_size=12))
    assert spelled(values, form) == [plain(value, form) for value in values]
    array = pa.array(["before", *values, None], pa.string()).slice(1, len(values))
    for other in (array, array.cast(pa.large_string()), array.dictionary_encode()):
        again = spell(other, form)
        assert list(zip(again.text.to_pylist(), again.valid.tolist(), strict=True)) == spelled(values, form)


@pytest.mark.parametrize("form", KeyFormat)
@settings(deadline=None)
@given(data=st.data())
def test_spelling_twice_changes_nothing(form: KeyFormat, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.one_of(anything, WRITTEN[form]), max_size=12))
    once = spelled(values, form)
    assert spelled([text for text, _ in once], form) == once


VALID = {"id_number": "990000199001011239", "phone": "13800138000", "credit_code": "91990000MA0000001B"}
# Without what is many and alike: the syllables of Hangul, Han characters that stand for themselves, private use.
EVERY = [
    chr(code)
    for code in range(0xF0000)
    if not (0x3400 <= code < 0xA000 or 0xAC00 <= code < 0xF900 or 0x20000 <= code < 0xE0000)
]


@pytest.mark.parametrize("form", KeyFormat)
def test_no_character_is_spelled_otherwise_the_second_time(form: KeyFormat) -> None:
    valid = VALID.get(form.value, "甲乙")
    for before, behind in (("", ""), (valid[:1], valid[1:])):
        first = spell(pa.array([before + character + behind for character in EVERY], pa.string()), form)
        again = spell(first.text, form)
        assert again.text.equals(first.text)
        assert (again.valid == first.valid).all()


@pytest.mark.parametrize("form", KeyFormat)
def test_every_character_is_treated_as_the_reference_does(form: KeyFormat) -> None:
    """In the middle of what is valid without it: what vanishes, and nothing else."""
    valid = VALID.get(form.value, "甲乙")
    kinds = {character: unicodedata.category(character) for character in EVERY}
    known = [c for c, kind in kinds.items() if kind != "Cn" and (kind != "Lo" or unicodedata.normalize("NFKC", c) != c)]
    if form is KeyFormat.NAME:  # letters beyond may get a capital in a later version of Unicode
        known = [c for c in known if c <= "\u017f" or kinds[c][0] != "L"]
    values = [valid[:1] + character + valid[1:] for character in known]
    found = spelled(values, form)
    assert len(known) > 8000
    assert [ascii(v) for v, one in zip(values, found, strict=True) if one != plain(v, form)] == []


def test_references_cover_every_format() -> None:
    assert set(REFERENCES) == set(KeyFormat)


# Particular formats


def test_made_up_identity_numbers_are_valid() -> None:
    ids = made_up_ids(20_000, seed=3)
    found = spell(ids, KeyFormat.ID_NUMBER)
    assert found.valid.all() and found.text.equals(ids)


def test_old_and_new_identity_numbers_of_a_person_meet() -> None:
    new = [number for number in made_up_ids(5000, seed=4).to_pylist() if number[6:8] == "19" and number[14:17] < "996"]
    old = [number[:6] + number[8:17] for number in new]
    assert len(new) > 3000
    assert spelled(old, KeyFormat.ID_NUMBER) == [(number, True) for number in new]


@pytest.mark.parametrize("place", range(18))
def test_one_wrong_digit_of_an_identity_number_is_noticed(place: int) -> None:
    number = "99000019900101005X"
    changed = [number[:place] + other + number[place + 1 :] for other in "0123456789X" if other != number[place]]
    assert spelled(changed, KeyFormat.ID_NUMBER) == [(other, False) for other in changed]


def test_every_check_character_is_right_for_some_codes_and_wrong_for_the_others() -> None:
    alphabet = "0123456789ABCDEFGHJKLMNPQRTUWXY"
    bodies = [f"91990000MA00000{one}{other}" for one in alphabet for other in alphabet]
    right = [credit_check(body) for body in bodies]
    assert set(right) == set(alphabet)
    for character in alphabet:
        found = spelled([body + character for body in bodies], KeyFormat.CREDIT_CODE)
        assert [valid for _, valid in found] == [character == wanted for wanted in right]


def test_every_day_of_the_calendar_and_no_other_is_a_birthday() -> None:
    days = [f"{y:04d}{m:02d}{d:02d}" for y, m, d in itertools.product(range(1795, 2105), range(14), range(33))]
    bodies = [f"990000{day}001" for day in days]
    found = spelled([body + check_digit(body) for body in bodies], KeyFormat.ID_NUMBER)
    first, last = date(1800, 1, 1).toordinal(), date(2099, 12, 31).toordinal()
    wanted = {date.fromordinal(number).strftime("%Y%m%d") for number in range(first, last + 1)}
    assert {day for day, (_, valid) in zip(days, found, strict=True) if valid} == wanted


def test_telephone_numbers_stored_as_numbers_meet_those_stored_as_text() -> None:
    numbers = pa.array([13800138000, 8613800138000, 1088888888, None])
    found = spell(numbers, KeyFormat.PHONE)
    assert found.text.to_pylist() == ["+8613800138000", "+8613800138000", "1088888888", None]
    assert found.valid.tolist() == [True, True, False, False]


def test_what_the_library_for_telephone_numbers_writes_means_the_same_to_it_and_us() -> None:
    kinds, shapes = phonenumbers.PhoneNumberType, phonenumbers.PhoneNumberFormat
    written, wanted = [], []
    for region in sorted(phonenumbers.SUPPORTED_REGIONS):
        for kind in (kinds.MOBILE, kinds.FIXED_LINE, kinds.TOLL_FREE):
            number = phonenumbers.example_number_for_type(region, kind)
            if number is None:
                continue
            e164 = phonenumbers.format_number(number, shapes.E164)
            forms = [e164, "00" + e164[1:], phonenumbers.format_number(number, shapes.INTERNATIONAL)]
            if region == "CN":
                forms.append(phonenumbers.format_number(number, shapes.NATIONAL))
            forms = [form for form in forms if "." not in form]  # points between groups are not taken
            written += forms
            wanted += [(e164, True)] * len(forms)
    assert len(written) > 1500
    assert spelled(written, KeyFormat.PHONE) == wanted


@settings(deadline=None)
@given(st.lists(phones(), min_size=1, max_size=12))
def test_the_library_for_telephone_numbers_does_not_contradict(written: list[str]) -> None:
    for text, (ours, valid) in zip(written, spelled(written, KeyFormat.PHONE), strict=True):
        try:
            theirs = phonenumbers.parse(text, "CN")
        except phonenumbers.NumberParseException:
            continue
        if valid and phonenumbers.is_valid_number(theirs) and not theirs.italian_leading_zero:
            assert ours == phonenumbers.format_number(theirs, phonenumbers.PhoneNumberFormat.E164)


def test_what_can_be_no_key_is_refused() -> None:
    for column in (pa.array([1.5]), pa.array([True]), pa.array([b"a"])):
        for form in KeyFormat:
            with pytest.raises(InvalidSpec, match="neither text"):
                spell(column, form)
