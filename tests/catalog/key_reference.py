"""The spelling of keys once more, one value after the other in plain Python, from the rules in docs/keys.md."""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Callable
from datetime import date

from sandbox.catalog.formats import KeyFormat

Answer = tuple[str | None, bool]

BLANKS = {c for c in map(chr, range(0x3001)) if c.isspace()} - set("\x1c\x1d\x1e\x1f")
HYPHENS = set("-\u2010\u2011\u2012\u2013\u2014\u2015\u2043\u2212")
INVISIBLE = {
    chr(code)
    for first, last in (
        (0xAD, 0xAD),
        (0x34F, 0x34F),
        (0x61C, 0x61C),
        (0x180B, 0x180F),
        (0x200B, 0x200F),
        (0x202A, 0x202E),
        (0x2060, 0x2064),
        (0x2066, 0x206F),
        (0xFE00, 0xFE0F),
        (0xFEFF, 0xFEFF),
        (0xE0100, 0xE01EF),
    )
    for code in range(first, last + 1)
}
VANISH = BLANKS | HYPHENS | INVISIBLE
DOTS = set("•‧∙⋅⸱・")
CREDIT = "0123456789ABCDEFGHJKLMNPQRTUWXY"
ASCII_UPPER = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)


def plain(value: str | None, form: KeyFormat) -> Answer:
    """Return the spelling of one value, and whether it is valid."""
    if value is None:
        return None, False
    text = _nfkc(_nfkc(value).strip().translate(ASCII_UPPER))
    whole = REFERENCES[form](text)
    return (text, False) if whole is None else (whole, True)


def check_digit(digits: str) -> str:
    """ISO 7064, the pure system MOD 11-2, as the recursion it is defined by."""
    remainder = 0
    for digit in digits:
        remainder = (remainder + int(digit)) * 2 % 11
    return "10X98765432"[remainder]


def credit_check(body: str) -> str:
    """GB 32100-2015, clause 5: the sum with the check character is a multiple of 31."""
    total = sum(CREDIT.index(character) * 3**place for place, character in enumerate(body))
    return CREDIT[-total % 31]


def _nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _bare(text: str, more: str = "") -> str:
    return "".join(c for c in text if c not in VANISH and c not in more)


def _digits(text: str) -> bool:
    return bool(text) and set(text) <= set(string.digits)


def _name(text: str) -> str:
    text = "".join(c for c in text if c not in VANISH or c in HYPHENS)
    text = "".join("·" if c in DOTS else c for c in text)
    for place in range(1, len(text)):
        if text[place] == "." and _is_han(text[place - 1]):
            text = text[:place] + "·" + text[place + 1 :]
    return _nfkc("".join(_capital(c) for c in text))


def _is_han(c: str) -> bool:
    return any(first <= c <= last for first, last in ("㐀䶿", "一\u9fff", "\U00020000\U0003fffd"))


def _capital(c: str) -> str:
    if c == "ß":
        return "ẞ"
    return c.upper() if len(c.upper()) == 1 else c


def _id_number(text: str) -> str | None:
    bare = _bare(text)
    if len(bare) == 15 and _digits(bare) and bare[12:] < "996":
        bare = bare[:6] + "19" + bare[6:]
        bare += check_digit(bare)
    if len(bare) != 18 or not _digits(bare[:17]) or bare[0] == "0" or bare[17] != check_digit(bare[:17]):
        return None
    try:
        born = date(int(bare[6:10]), int(bare[10:12]), int(bare[12:14]))
    except ValueError:
        return None
    return bare if 1800 <= born.year <= 2099 else None


def _credit_code(text: str) -> str | None:
    bare = _bare(text)
    right = len(bare) == 18 and set(bare) <= set(CREDIT) and _digits(bare[2:8]) and bare[17] == credit_check(bare[:17])
    return bare if right else None


def _phone(text: str) -> str | None:
    head, mark, tail = text.partition("(0)")
    code = head.removeprefix("+") if head.startswith("+") else head.removeprefix("00")
    if mark and head.startswith(("+", "00")) and 1 <= len(code) <= 6 and set(code) <= set(string.digits + " -"):
        bare = _bare(head + tail, "()")
    else:
        bare = _bare(text, "()")
    abroad = bare.startswith(("+", "00"))
    digits = bare.removeprefix("+") if bare.startswith("+") else bare.removeprefix("00")
    if not _digits(digits):
        return None
    lone = len(text) > 1 and text[-1] in string.digits and text[-2] not in string.digits + "+"
    forms = [] if abroad else [("", digits)]
    forms += [("86", digits[2:])] if digits.startswith("86") else []
    for country, national in forms:
        short = national.removeprefix("0")
        if len(short) == 11 and short[0] == "1" and short[1] in "3456789":
            return "+86" + short
        if not lone and (country or short != national) and _is_landline(short):
            return "+86" + short
        if not lone and len(national) == 10 and national[:3] in ("400", "800"):
            return "+86" + national
    good = abroad and not lone and not digits.startswith("86") and digits[0] != "0" and 7 <= len(digits) <= 15
    return "+" + digits if good else None


def _is_landline(number: str) -> bool:
    if number[:2] == "10" or number[:1] == "2":
        return len(number) == 10 and number[2] != "0"
    return number[:1] in tuple("3456789") and len(number) in (10, 11) and number[3] != "0"


REFERENCES: dict[KeyFormat, Callable[[str], str | None]] = {
    KeyFormat.TEXT: lambda text: text,
    KeyFormat.ID_NUMBER: _id_number,
    KeyFormat.PHONE: _phone,
    KeyFormat.NAME: _name,
    KeyFormat.CREDIT_CODE: _credit_code,
}
