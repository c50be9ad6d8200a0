"""The two files of the RR22 engine: digests with their row number, as fixed-width CSV written by numpy.

    id,row\\n                                   header
    <32 hexadecimal digits>,<8 digits>\\n       one line of 42 bytes a row

Every byte is a digit, a comma or a line feed, whatever the keys were: no quoting, no escapes, no encodings.
Errors: ``ProtocolFailed`` if the engine's file is not of this form or names a row that was not given to it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sandbox.errors import InvalidSpec, ProtocolFailed
from sandbox.psi.keys import Digests, Positions

LINE = 42
HEADER = b"id,row\n"
ANSWER_HEADER = b'"id","row"\n'  # the library quotes it
MAX_ROWS = 10**8
_BLOCK = 1 << 17
_HEX = np.frombuffer(b"".join(f"{byte:02x}".encode("ascii") for byte in range(256)), "<u2")
_ZERO = ord("0")


def write(path: Path, digests: Digests) -> None:
    """Write ``digests`` with their positions."""
    if len(digests) > MAX_ROWS:
        raise InvalidSpec("too many rows for one bucket")
    with path.open("wb") as out:
        out.write(HEADER)
        for first in range(0, len(digests), _BLOCK):
            block = digests[first : first + _BLOCK]
            lines = np.empty((len(block), LINE), np.uint8)
            lines[:, :32] = _hex(block)
            lines[:, 32], lines[:, 41] = ord(","), ord("\n")
            numbers = np.arange(first, first + len(block))
            for place in range(40, 32, -1):
                numbers, digits = np.divmod(numbers, 10)
                lines[:, place] = digits + _ZERO
            out.write(lines.tobytes())


def read(path: Path, digests: Digests) -> Positions:
    """Return the positions named in the engine's answer, each checked against the digest it stands beside.

    Raises:
        ProtocolFailed: the file is damaged, or names rows that are not in ``digests``.
    """
    lines = _lines(path)
    digits = lines[:, 33:41] - np.uint8(_ZERO)
    if bool((digits > 9).any()):  # what was below zero has wrapped around
        raise ProtocolFailed("the engine's answer has a row number that is no number")
    positions: Positions = np.zeros(len(lines), np.int64)
    for place in range(8):
        positions *= 10
        positions += digits[:, place]
    if bool((positions >= len(digests)).any()):
        raise ProtocolFailed("the engine's answer names a row it was not given")
    named = np.zeros(len(digests), np.bool_)
    named[positions] = True
    if np.count_nonzero(named) != len(positions):
        raise ProtocolFailed("the engine's answer names a row twice")
    for first in range(0, len(positions), _BLOCK):
        part = slice(first, first + _BLOCK)
        if not np.array_equal(_hex(digests[positions[part]]), lines[part, :32]):
            raise ProtocolFailed("the engine's answer pairs a key with another key's row")
    return positions


def _lines(path: Path) -> NDArray[np.uint8]:
    """Return the lines of an answer as a matrix of bytes."""
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise ProtocolFailed("the engine left no answer") from error
    body = content[len(ANSWER_HEADER) :]
    if content[: len(ANSWER_HEADER)].tobytes() != ANSWER_HEADER or len(body) % LINE:
        raise ProtocolFailed("the engine's answer is not of the expected form")
    lines = body.reshape(-1, LINE)
    if bool((lines[:, 32] != ord(",")).any()) or bool((lines[:, 41] != ord("\n")).any()):
        raise ProtocolFailed("the engine's answer has a line of another form")
    return lines


def _hex(digests: Digests) -> NDArray[np.uint8]:
    return _HEX[np.ascontiguousarray(digests).view(np.uint8)].view(np.uint8)
