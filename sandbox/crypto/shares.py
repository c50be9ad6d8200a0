"""A 16-byte key split among people: any ``need`` of ``count`` shares give it back, fewer say nothing about it.

    sandbox-share-1 ABCDEFGH-...          plain: whoever reads it has the share
    sandbox-share-1-locked ABCDEFGH-...   under a passphrase of its keeper's
    sandbox-share-1-sealed ABCDEFGH-...   to the sealing key on its keeper's card

    body    =  set (8) || need (1) || count (1) || index (1) || value (16) || check (16)
    plain   =  body || first 7 bytes of SM3(body), against slips of the pen
    check   =  first 16 bytes of SM3(set, need, count, key)

Source:    A. Shamir, How to Share a Secret, CACM 1979, over GF(2**128), computed by pycryptodome.
Security:  the library joins whatever it is given: too few shares, or shares of two keys, give a wrong key and no
           error; it splits with a threshold above the number of shares, and with a threshold of one, where every share
           is the key. All of that is refused here. The check tells a wrong key from the right one; it lets somebody
           without enough shares try keys, of which there are 2**128. Shares are authentic to whoever holds a list of
           their ``mark``s; otherwise a false one is noticed, not named.
Shapes:    a file is one such line; lines that begin with ``#`` are for people. Letters in any case, hyphens and blanks
           as one likes.
Errors:    ``InvalidSpec`` for what is no share, or shares that do not belong together; ``Unavailable`` for too few;
           ``IntegrityFailed`` for a wrong passphrase or key, or shares that give another key than was split.
Not here:  which key it is, who keeps what (``master``).
"""

from __future__ import annotations

import base64
import binascii
import enum
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from Cryptodome.Protocol.SecretSharing import Shamir

from sandbox.crypto import passphrase as words
from sandbox.crypto.envelope import open_with, seal_to
from sandbox.crypto.sm2 import PrivateKey, PublicKey
from sandbox.crypto.sm3 import tagged
from sandbox.crypto.sm4 import KEY_SIZE
from sandbox.errors import IntegrityFailed, InvalidSpec, Unavailable

LEAST: Final = 2  # with one, every share would be the key
MOST: Final = 16  # shares of a key
SET_SIZE, CHECK_SIZE, SUM_SIZE = 8, 16, 7  # bytes
_BODY = SET_SIZE + 3 + KEY_SIZE + CHECK_SIZE
_PURPOSE: Final = b"node-key-share"
_LONGEST: Final = 4096  # characters of a share's line


class Form(enum.Enum):
    """How a share is written down; the values begin its line."""

    PLAIN = "sandbox-share-1"
    LOCKED = "sandbox-share-1-locked"
    SEALED = "sandbox-share-1-sealed"


@dataclass(frozen=True, slots=True)
class Share:
    """One share; of no use without ``need - 1`` others of its set."""

    set_id: bytes
    need: int
    count: int
    index: int
    value: bytes = field(repr=False)
    check: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not LEAST <= self.need <= self.count <= MOST or not 1 <= self.index <= self.count:
            raise InvalidSpec(tell="a share's numbers make no sense")
        if (len(self.set_id), len(self.value), len(self.check)) != (SET_SIZE, KEY_SIZE, CHECK_SIZE):
            raise InvalidSpec(tell="a share has the wrong size")

    @property
    def mark(self) -> bytes:
        """What tells this share from a false one and says nothing about it: its value is 128 random bits."""
        return tagged("node-key-share", self._body())[:CHECK_SIZE]

    def _body(self) -> bytes:
        return self.set_id + bytes((self.need, self.count, self.index)) + self.value + self.check


def split(key: bytes, need: int, count: int) -> tuple[Share, ...]:
    """Split a key into ``count`` shares of a new set; any ``need`` of them give it back.

    Raises:
        InvalidSpec: the numbers are not 2 <= need <= count <= 16, or it is no key.
    """
    if not LEAST <= need <= count <= MOST:
        raise InvalidSpec(tell=f"a key is split into up to {MOST} shares, of which {LEAST} or more are needed")
    if len(key) != KEY_SIZE:
        raise InvalidSpec(f"a key to split has {KEY_SIZE} bytes")
    set_id = secrets.token_bytes(SET_SIZE)
    check = _check(set_id, need, count, key)
    made = tuple(
        Share(set_id, need, count, index, value, check) for index, value in Shamir.split(need, count, key, ssss=False)
    )
    for first in range(count - need + 1):  # every share takes part once: none is given out that does not work
        join(made[first : first + need])
    return made


def join(shares: Sequence[Share]) -> bytes:
    """Return the key that shares of one set give; more than are needed do no harm.

    Raises:
        InvalidSpec: they are of several sets, or one is there twice.
        Unavailable: there are too few; says how many.
        IntegrityFailed: one of them is not what was given out.
    """
    if not shares:
        raise Unavailable(tell="there are no shares")
    first = shares[0]
    if any(
        (s.set_id, s.need, s.count, s.check) != (first.set_id, first.need, first.count, first.check) for s in shares
    ):
        raise InvalidSpec(tell="the shares are of several sets", hint="give shares of one set only")
    if len({share.index for share in shares}) < len(shares):
        raise InvalidSpec(tell="a share was given twice", hint="give each share once")
    if (lacking := first.need - len(shares)) > 0:
        raise Unavailable(tell=f"{lacking} more of the {first.need} shares are needed")
    used = [(share.index, share.value) for share in shares[: first.need]]
    key = bytes(Shamir.combine(used, ssss=False))
    if not hmac.compare_digest(_check(first.set_id, first.need, first.count, key), first.check):
        raise IntegrityFailed(
            tell="the shares do not give the key that was split: one of them is not what was given out",
            hint="try other shares, and find out who changed one",
        )
    return key


def write(share: Share) -> str:
    """Return a share as a line of text that is as secret as the share."""
    body = share._body()
    return _line(Form.PLAIN, body + _sum(body))


def write_locked(share: Share, passphrase: bytes) -> str:
    """Return a share as a line of text that opens under its keeper's passphrase."""
    return _line(Form.LOCKED, words.lock(share._body(), passphrase, _PURPOSE))


def write_sealed(share: Share, key: PublicKey) -> str:
    """Return a share as a line of text that opens under its keeper's sealing key."""
    return _line(Form.SEALED, seal_to(key, share._body(), _PURPOSE))


def form_of(text: str) -> Form:
    """Return how a share is written down."""
    return _parse(text)[0]


def read(text: str, *, passphrase: bytes | None = None, key: PrivateKey | None = None) -> Share:
    """Return the share in a file.

    Raises:
        InvalidSpec: it is none, or damaged, or what opens it was not given.
        IntegrityFailed: passphrase or key do not open it.
    """
    form, data = _parse(text)
    if form is Form.PLAIN:
        body, checksum = data[:-SUM_SIZE], data[-SUM_SIZE:]
        if len(body) == _BODY and not hmac.compare_digest(_sum(body), checksum):
            raise InvalidSpec(tell="a share was copied with a slip", hint="compare it with the original")
    elif form is Form.LOCKED:
        if passphrase is None:
            raise InvalidSpec(tell="a share is under a passphrase")
        body = words.unlock(data, passphrase, _PURPOSE)
    else:
        if key is None:
            raise InvalidSpec(tell="a share is sealed to its keeper's card", hint="open it: sandbox node open-share")
        body = open_with(key, data, _PURPOSE)
    if len(body) != _BODY:
        raise InvalidSpec(tell="a share has the wrong size")
    set_id, (need, count, index), rest = body[:SET_SIZE], body[SET_SIZE : SET_SIZE + 3], body[SET_SIZE + 3 :]
    return Share(set_id, need, count, index, rest[:KEY_SIZE], rest[KEY_SIZE:])


def _check(set_id: bytes, need: int, count: int, key: bytes) -> bytes:
    return tagged("node-key-check", set_id + bytes((need, count)) + key)[:CHECK_SIZE]


def _sum(body: bytes) -> bytes:
    return tagged("node-key-share-sum", body)[:SUM_SIZE]


def _line(form: Form, data: bytes) -> str:
    letters = base64.b32encode(data).decode().rstrip("=")
    return f"{form.value} {'-'.join(letters[at : at + 8] for at in range(0, len(letters), 8))}"


def _parse(text: str) -> tuple[Form, bytes]:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    name, _, rest = lines[0].partition(" ") if len(lines) == 1 else ("", "", "")
    letters = rest.replace("-", "").replace(" ", "").upper()
    try:
        if len(letters) > _LONGEST:
            raise ValueError
        return Form(name.lower()), base64.b32decode(letters + "=" * (-len(letters) % 8))
    except (ValueError, binascii.Error):
        raise InvalidSpec(tell="this is not a share of a node key") from None
