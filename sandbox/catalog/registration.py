"""The registration code of a dataset: one dataset, one code (一数一码).

Source:    ISO 7064:2003, MOD 37,36 (hybrid system) for the check character.
Security:  the code is derived from public catalogue facts and keeps no secret.
Shapes:    20 characters of A-Z and 0-9: 19 of body, the last one the check character. The body is the tagged SM3
           ("registration") of the owner's UTF-8 length as 4 bytes, big-endian, the owner and the name, both NFC and
           without blanks around, written to base 36 and cut to its last 19 characters (98 bits). The same owner and
           name give the same code on every machine; versions of a dataset share it.
           One wrong character and most swapped neighbours are noticed.
Errors:    ``InvalidSpec``.
Not here:  who may register (policy), versions (schema).
"""

from __future__ import annotations

import unicodedata

from sandbox.crypto.sm3 import tagged
from sandbox.errors import InvalidSpec

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
BODY = 19  # characters
LENGTH = BODY + 1


def make_code(owner: str, name: str) -> str:
    """Return the registration code of the dataset ``name`` of ``owner``."""
    owner, name = (unicodedata.normalize("NFC", text).strip() for text in (owner, name))
    if not owner.isprintable() or not name.isprintable() or not owner or not name:
        raise InvalidSpec("a dataset is registered under the names of its owner and of itself, without controls")
    first, second = owner.encode(), name.encode()
    number = int.from_bytes(tagged("registration", len(first).to_bytes(4, "big") + first + second), "big")
    body = ""
    for _ in range(BODY):
        number, digit = divmod(number, 36)
        body = ALPHABET[digit] + body
    return body + check_character(body)


def check_code(code: str) -> None:
    """Check that ``code`` is a registration code, mistyped nowhere.

    Raises:
        InvalidSpec: it is not.
    """
    if len(code) != LENGTH or any(character not in ALPHABET for character in code):
        raise InvalidSpec(f"a registration code has {LENGTH} characters of A-Z and 0-9")
    if check_character(code[:-1]) != code[-1]:
        raise InvalidSpec("the registration code is mistyped: its check character does not fit")


def check_character(body: str) -> str:
    """Return the character that makes ``body`` valid under ISO 7064 MOD 37,36."""
    product = 36
    for character in body:
        total = (product + ALPHABET.index(character)) % 36 or 36
        product = total * 2 % 37
    return ALPHABET[(37 - product) % 36]
