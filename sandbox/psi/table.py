"""The two files of the RR22 engine: digests with their row number, as fixed-width CSV written by numpy.

    id,row\\n                                   header
    <32 hexadecimal digits>,<8 digits>\\n       one line of 42 bytes a row

Every byte is a digit, a comma or a line feed, whatever the keys were: no quoting, no escapes, no encodings.
Errors: ``ProtocolFailed`` if the engine's file is not of this form or names a row that was not given to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sandbox.errors import InvalidSpec, ProtocolFailed
from sandbox.psi import native
from sandbox.psi.keys import Digests, Positions

LINE = 42
HEADER = b"id,row\n"
ANSWER_HEADER = b'"id","row"\n'  # the library quotes it
MAX_ROWS = 10**8
_BLOCK = 1 << 17
_HEX = np.frombuffer(b"".join(f"{byte:02x}".encode("ascii") for byte in range(256)), "<u2")
_ZERO = ord("0")
_WRONG: Final = {  # as the extension numbers them
    1: "has a line of another form",
    2: "has a row number that is no number",
    3: "names a row it was not given",
    4: "names a row twice",
    5: "pairs a key with another key's row",
}


def write(path: Path, digests: Digests) -> None:
    """Write ``digests`` with their positions."""
    if len(digests) > MAX_ROWS:
        raise InvalidSpec("too many rows for one bucket")
    with path.open("wb") as out:
        out.write(HEADER)
        for first in range(0, len(digests), _BLOCK):
            out.write(_written(digests[first : first + _BLOCK], first).data)


def read(path: Path, digests: Digests) -> Positions:
    """Return the positions named in the engine's answer, each checked against the digest it stands beside.

    Raises:
        ProtocolFailed: the file is damaged, or names rows that are not in ``digests``.
    """
    lines = _lines(path)
    if native.ROWS is not None:
        found: Positions = np.empty(len(lines), np.int64)
        wrong = native.ROWS.read(lines, np.ascontiguousarray(digests), found)
        if wrong:
            raise ProtocolFailed(f"the engine's answer {_WRONG[wrong]}")
        return found
    if bool((lines[:, 32] != ord(",")).any()) or bool((lines[:, 41] != ord("\n")).any()):
        raise ProtocolFailed(f"the engine's answer {_WRONG[1]}")
    digits = lines[:, 33:41] - np.uint8(_ZERO)
    if bool((digits > 9).any()):  # what was below zero has wrapped around
        raise ProtocolFailed(f"the engine's answer {_WRONG[2]}")
    positions: Positions = np.zeros(len(lines), np.int64)
    for place in range(8):
        positions *= 10
        positions += digits[:, place]
    if bool((positions >= len(digests)).any()):
        raise ProtocolFailed(f"the engine's answer {_WRONG[3]}")
    named = np.zeros(len(digests), np.bool_)
    named[positions] = True
    if np.count_nonzero(named) != len(positions):
        raise ProtocolFailed(f"the engine's answer {_WRONG[4]}")
    for first in range(0, len(positions), _BLOCK):
        part = slice(first, first + _BLOCK)
        if not np.array_equal(_hex(digests[positions[part]]), lines[part, :32]):
            raise ProtocolFailed(f"the engine's answer {_WRONG[5]}")
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
    return body.reshape(-1, LINE)


def _written(digests: Digests, first: int) -> NDArray[np.uint8]:
    """Return the lines of digests, of which the first stands in row ``first``."""
    lines = np.empty((len(digests), LINE), np.uint8)
    if native.ROWS is not None:
        native.ROWS.write(np.ascontiguousarray(digests), first, lines)
        return lines
    lines[:, :32] = _hex(digests)
    lines[:, 32], lines[:, 41] = ord(","), ord("\n")
    numbers = np.arange(first, first + len(digests))
    for place in range(40, 32, -1):
        numbers, digits = np.divmod(numbers, 10)
        lines[:, place] = digits + _ZERO
    return lines


def _hex(digests: Digests) -> NDArray[np.uint8]:
    return _HEX[np.ascontiguousarray(digests).view(np.uint8)].view(np.uint8)
