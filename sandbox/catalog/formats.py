"""What a key column holds, and the one spelling of it: people written differently by two owners still match.

    column --text--> NFKC, trimmed, upper case --rule of the format--> spelling and whether it is valid

Source:    Unicode Standard Annex 15 (NFKC); GB 11643-1999 (identity numbers) with ISO 7064 MOD 11-2 for its check
           digit; GB 32100-2015 (unified social credit codes); ITU-T E.164 (telephone numbers).
Shapes:    every format starts from the spelling of a text and is a fixed point of itself. What is not valid keeps the
           spelling of a text. docs/keys.md has the rules with examples, tests/vectors/key_normalisation.json the known
           answers: both sides of an intersection must agree on them. What vanishes is named character by character,
           not by a property that the next version of Unicode may give to more, and no rule looks at the clock.
           Callers pass at most ``BLOCK`` rows at a time, so that what is being worked on stays small.
Errors:    ``InvalidSpec`` for a column that can be no key.
Not here:  whether a number was ever issued; which columns are the key (schema); what is done about invalid ones
           (intake).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sandbox.errors import InvalidSpec

BLOCK: Final = 1 << 17  # rows

Flags: TypeAlias = npt.NDArray[np.bool_]
Characters: TypeAlias = npt.NDArray[np.uint8]  # a row a key, a column a character


class KeyFormat(StrEnum):
    """What a key column holds."""

    TEXT = "text"
    ID_NUMBER = "id_number"
    PHONE = "phone"
    NAME = "name"
    CREDIT_CODE = "credit_code"


NEVER_INVALID: Final = frozenset({KeyFormat.TEXT, KeyFormat.NAME})


class WhenInvalid(StrEnum):
    """What intake does about a key that is not what its format says."""

    REFUSE = "refuse"  # the table, with the number of such rows
    KEEP = "keep"  # the row, its key spelled as a text: passports among identity numbers


@dataclass(frozen=True, slots=True)
class Spelled:
    """A block of keys in one spelling, and which of them are what their format says; a missing one is not."""

    text: pa.Array
    valid: Flags


# In NFKC the other blanks and hyphens of Unicode have become one of these.
_BLANKS = r"\t-\r \x{85}\x{1680}\x{2028}\x{2029}"
_HYPHENS = r"\-\x{2010}-\x{2015}\x{2043}\x{2212}"
# Marks of direction, joiners, byte order marks, variation selectors: what comes along when text is copied.
_INVISIBLE = (
    r"\x{AD}\x{34F}\x{61C}\x{180B}-\x{180F}\x{200B}-\x{200F}\x{202A}-\x{202E}\x{2060}-\x{2064}\x{2066}-\x{206F}"
    r"\x{FE00}-\x{FE0F}\x{FEFF}\x{E0100}-\x{E01EF}"
)
_HAN = r"\x{3400}-\x{4DBF}\x{4E00}-\x{9FFF}"
_RARE_HAN = r"\x{20000}-\x{3FFFD}"
_DOTS = r"[\x{2022}\x{2027}\x{2219}\x{22C5}\x{2E31}\x{30FB}]"  # written for the middle dot U+00B7

_DAY = r"(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])"  # of which some do not exist: see ``_born``
_ID = rf"^[1-9][0-9]{{5}}(?:18|19|20)[0-9]{{2}}{_DAY}[0-9]{{3}}[0-9X]$"
# 996 to 999 were kept for people over a hundred, whose century is not 19.
_OLD_ID = rf"^[1-9][0-9]{{7}}{_DAY}(?:[0-8][0-9]{{2}}|9[0-8][0-9]|99[0-5])$"
_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_ID_CHECKS = np.frombuffer(b"10X98765432", dtype=np.uint8)
_MONTHS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], dtype=np.int16)

_CREDIT_ALPHABET = b"0123456789ABCDEFGHJKLMNPQRTUWXY"
_CREDIT = r"^[0-9A-HJ-NPQRTUWXY]{2}[0-9]{6}[0-9A-HJ-NPQRTUWXY]{10}$"
_CREDIT_VALUES = np.zeros(256, dtype=np.uint16)
_CREDIT_VALUES[np.frombuffer(_CREDIT_ALPHABET, dtype=np.uint8)] = np.arange(31)

_MOBILE = r"1[3-9][0-9]{9}"
_LANDLINE = r"(?:10|2[0-9])[1-9][0-9]{7}|[3-9][0-9]{2}[1-9][0-9]{6,7}"
_SERVICE = r"[48]00[0-9]{7}"
_CODE = r"(?:(?:\+|00)?86)"
_DIALLED_MOBILE = rf"^{_CODE}?0?{_MOBILE}$"
_MAINLAND = rf"^(?:(?:{_CODE}0?|0)({_LANDLINE})|{_CODE}?({_SERVICE}))$"
_ABROAD = r"^(?:\+|00)((?:[1-79][0-9]|8[0-57-9])[0-9]{5,13})$"
_EXTENSION = r"[^0-9+][0-9]$"  # one digit by itself at the end: no part of a number
_TRUNK = r"^((?:\+|00)[0-9 \-]{1,6})\(0\)"


def spell(column: pa.Array, form: KeyFormat) -> Spelled:
    """Return a block of keys in their one spelling under ``form``; whole numbers and dates count as their text.

    Raises:
        InvalidSpec: the column is neither text nor a whole number nor a date.
    """
    return _RULES[form](_text(column))


def id_check_digits(characters: Characters) -> npt.NDArray[np.uint8]:
    """Return the last character of identity numbers whose first 17 digits are given."""
    weighted = np.zeros(len(characters), dtype=np.uint16)
    for place, weight in enumerate(_ID_WEIGHTS):
        weighted += (characters[:, place] - ord("0")) * np.uint16(weight)
    return _ID_CHECKS[weighted % 11]


def as_text(characters: Characters) -> pa.Array:
    """Return keys of one length as an Arrow array, without a copy."""
    rows, width = characters.shape
    offsets = np.arange(0, (rows + 1) * width, width, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(characters)])


def _text(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_integer(column.type) or pa.types.is_date(column.type):
        return column.cast(pa.string())
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise InvalidSpec("a key column is neither text nor a whole number nor a date")
    plain = pc.all(pc.string_is_ascii(column), min_count=0).as_py()
    composed = column if plain else pc.utf8_normalize(column, form="NFKC")
    text = pc.ascii_upper(pc.utf8_trim_whitespace(composed))
    if not plain and not text.equals(composed):
        # Again: with its letter in upper case, a following accent may have found a composed form (i + U+0307).
        text = pc.utf8_normalize(text, form="NFKC")
    return text.cast(pa.string())


def _as_it_is(text: pa.Array) -> Spelled:
    return Spelled(text, text.is_valid().to_numpy(zero_copy_only=False))


def _name(text: pa.Array) -> Spelled:
    return _as_it_is(_changed(text, ~_matches(text, rf"^[{_HAN}A-Z·]*$"), _plain_name))


def _plain_name(names: pa.Array) -> pa.Array:
    names = _replaced(pc.replace_substring(names, " ", ""), rf"[{_BLANKS}{_INVISIBLE}]", "")
    names = _replaced(names, _DOTS, "·")
    names = _replaced(names, rf"([{_HAN}{_RARE_HAN}])\.", r"\1·")
    return pc.utf8_normalize(pc.utf8_upper(names), form="NFKC")


def _id_number(text: pa.Array) -> Spelled:
    return _checked(text, _ID, _lengthened, lambda ids: _born(ids) & (ids[:, 17] == id_check_digits(ids)))


def _lengthened(text: pa.Array) -> pa.Array:
    """Return identity numbers without blanks, those of 15 digits with their century and check digit."""
    bare = _without(text, " -")
    return _changed(bare, _matches(bare, _OLD_ID), _with_century)


def _with_century(old: pa.Array) -> pa.Array:
    short = _characters(old, 15)
    ids = np.empty((len(short), 18), dtype=np.uint8)
    ids[:, :6], ids[:, 6:8], ids[:, 8:17] = short[:, :6], np.frombuffer(b"19", dtype=np.uint8), short[:, 6:]
    ids[:, 17] = id_check_digits(ids)
    return as_text(ids)


def _born(ids: Characters) -> Flags:
    """Return for every identity number, its month 1 to 12 and its day 1 to 31, whether that day exists."""
    digits = ids[:, 6:14].astype(np.int16) - ord("0")
    year = digits[:, 0] * 1000 + digits[:, 1] * 100 + digits[:, 2] * 10 + digits[:, 3]
    month, day = digits[:, 4] * 10 + digits[:, 5], digits[:, 6] * 10 + digits[:, 7]
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    exists: Flags = day <= _MONTHS[month] + (leap & (month == 2))
    return exists


def _credit_code(text: pa.Array) -> Spelled:
    return _checked(text, _CREDIT, lambda some: _without(some, " -"), _credit_checked)


def _credit_checked(codes: Characters) -> Flags:
    weighted = np.zeros(len(codes), dtype=np.uint16)
    for place in range(17):
        weighted += _CREDIT_VALUES[codes[:, place]] * np.uint16(pow(3, place, 31))
    right: Flags = _CREDIT_VALUES[codes[:, 17]] == (31 - weighted % 31) % 31
    return right


def _phone(text: pa.Array) -> Spelled:
    mobile, full = _matches(text, f"^{_MOBILE}$"), _matches(text, rf"^\+86{_MOBILE}$")
    whole = _changed(text, mobile, _with_country)
    valid = mobile | full
    if not valid.all():
        others = ~valid
        dialled = _dialled(text.filter(pa.array(others)))
        whole = pc.replace_with_mask(whole, pa.array(others), dialled.text)
        valid[others] = dialled.valid
    return Spelled(whole, valid)


def _dialled(text: pa.Array) -> Spelled:
    """Return telephone numbers as people write them in the spelling of E.164."""
    trunk = _flags(pc.match_substring(text, "(0)"))
    bare = _without(_changed(text, trunk, lambda some: pc.replace_substring_regex(some, _TRUNK, r"\1")), " -()")
    mobile = _matches(bare, _DIALLED_MOBILE)
    whole = _changed(bare, mobile, lambda some: _with_country(pc.utf8_slice_codeunits(some, -11)))
    if mobile.all():
        return Spelled(whole, mobile)
    number = ~mobile & ~_matches(text, _EXTENSION)
    mainland, abroad = number & _matches(bare, _MAINLAND), number & _matches(bare, _ABROAD)
    whole = _changed(whole, mainland, lambda some: pc.replace_substring_regex(some, _MAINLAND, r"+86\1\2"))
    whole = _changed(whole, abroad, lambda some: pc.replace_substring_regex(some, _ABROAD, r"+\1"))
    valid = mobile | mainland | abroad
    return Spelled(pc.if_else(pa.array(valid), whole, text), valid)


def _with_country(numbers: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise("+86", numbers, "")


def _matches(text: pa.Array, pattern: str) -> Flags:
    return _flags(pc.match_substring_regex(text, pattern))


def _flags(found: pa.Array) -> Flags:
    flags: Flags = pc.fill_null(found, False).to_numpy(zero_copy_only=False)
    return flags


def _changed(text: pa.Array, rows: Flags, change: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Return ``text`` with some rows changed; most often it is none, or all."""
    if not rows.any():
        return text
    if rows.all():
        return change(text)
    mask = pa.array(rows)
    return pc.replace_with_mask(text, mask, change(text.filter(mask)))


def _replaced(text: pa.Array, pattern: str, replacement: str) -> pa.Array:
    """Return ``text`` with a pattern replaced; looking where takes a tenth of the time of replacing."""
    return _changed(text, _matches(text, pattern), lambda some: pc.replace_substring_regex(some, pattern, replacement))


def _without(text: pa.Array, characters: str) -> pa.Array:
    """Return ``text`` without these ASCII characters, and without blanks, hyphens and what cannot be seen."""
    for character in characters:
        text = pc.replace_substring(text, character, "")
    return _replaced(text, rf"[{_BLANKS}{_HYPHENS}{_INVISIBLE}]", "")


def _checked(
    text: pa.Array, pattern: str, clean: Callable[[pa.Array], pa.Array], check: Callable[[Characters], Flags]
) -> Spelled:
    """Return ``text``, cleaned where that is needed to match the pattern, of 18 characters, and the check."""
    looks, whole = _matches(text, pattern), text
    if not looks.all():
        others = ~looks
        cleaned = clean(text.filter(pa.array(others)))
        whole = pc.replace_with_mask(text, pa.array(others), cleaned)
        looks[others] = _matches(cleaned, pattern)
    valid = looks.copy()
    valid[looks] = check(_characters(whole if looks.all() else whole.filter(pa.array(looks)), 18))
    return Spelled(whole if valid.all() else pc.if_else(pa.array(valid), whole, text), valid)


def _characters(keys: pa.Array, width: int) -> Characters:
    """Return the characters of keys that all have ``width`` ASCII ones."""
    _, offsets, data = keys.buffers()
    if not len(keys):
        return np.empty((0, width), dtype=np.uint8)
    first = int(np.frombuffer(offsets, np.int32, 1, keys.offset * 4)[0])
    return np.frombuffer(data, np.uint8, len(keys) * width, first).reshape(-1, width)


_RULES: Final[Mapping[KeyFormat, Callable[[pa.Array], Spelled]]] = {
    KeyFormat.TEXT: _as_it_is,
    KeyFormat.ID_NUMBER: _id_number,
    KeyFormat.PHONE: _phone,
    KeyFormat.NAME: _name,
    KeyFormat.CREDIT_CODE: _credit_code,
}
