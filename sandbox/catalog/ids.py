"""Keys of rows: joined from their columns, a fast hash over them, and made-up identity numbers. All vectorised.

Source:    the spelling of each column is its format's (``formats``); the hash is our own multiply-add hash, specified
           below.
Security:  the hash is fast, not cryptographic. It finds candidates for duplicates, under a salt that nobody knew when
           the keys were fixed. It commits to nothing and hides nothing: never send it.
Shapes:    a key of several columns is its spelled parts joined by U+001F, which no part may contain, so two different
           rows of parts never join to the same key. A key with a missing part is missing.
           Hash of a key of L bytes under a salt: S0 .. S7 are the little-endian 64-bit words of the tagged SM3
           ("key-hash") of the salt, and of the same followed by one byte 01. The two lanes start from S0 and S2
           plus L; for every 8 bytes w of the key, little-endian, the last ones filled up with zeros,
           ``h = (h ^ w) * (S | 1)``, ``h ^= h >> 32`` with S = S1 for the first lane and S3 for the second; at the end
           ``h = (h + S') * 0xBF58476D1CE4E5B9``, ``h ^= h >> 29``, ``h *= 0x94D049BB133111EB``, ``h ^= h >> 32`` with
           S' = S4 and S5; everything modulo 2**64.
Errors:    ``InvalidSpec`` with the number of the key in what was passed (from 1), never the key.
Not here:  how a column is spelled (formats), whether keys are valid and unique (intake), blinding (psi).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sandbox.catalog.formats import BLOCK, KeyFormat, as_text, id_check_digits, spell
from sandbox.crypto.sm3 import tagged
from sandbox.errors import InvalidSpec

SEPARATOR = "\x1f"
ID_LENGTH = 18  # characters of an identity number
UNASSIGNED_REGION = "990000"

# The first two digits of every region code in use: provinces, Taiwan, Hong Kong, Macao, foreign residents.
ASSIGNED_REGIONS = frozenset(
    f"{prefix}"
    for block in ((11, 15), (21, 23), (31, 37), (41, 46), (50, 54), (61, 65), (71, 71), (81, 83), (91, 91))
    for prefix in range(block[0], block[1] + 1)
)
FIRST_BIRTHDAY = date(1950, 1, 1)
LAST_BIRTHDAY = date(2005, 12, 31)
DAYS = (LAST_BIRTHDAY - FIRST_BIRTHDAY).days + 1
SEQUENCES = 999  # 001 to 999, a day and region

Words: TypeAlias = npt.NDArray[np.uint64]


def normalise(columns: Sequence[pa.Array | pa.ChunkedArray], formats: Sequence[KeyFormat]) -> pa.Array:
    """Return the one spelling of every key; ``columns`` are its parts, each with its format.

    Raises:
        InvalidSpec: there is no column, they differ in length, there are more or fewer formats, a column is neither
            text nor whole numbers nor dates, or a part of a key of several columns contains the separator.
    """
    if not columns or len({len(column) for column in columns}) != 1:
        raise InvalidSpec("a key needs one column or several of the same length")
    if len(formats) != len(columns):
        raise InvalidSpec(f"a key of {len(columns)} columns was given {len(formats)} formats")
    table = pa.Table.from_arrays(list(columns), names=[str(place) for place in range(len(columns))])
    blocks, rows = [], 0
    for batch in table.to_batches(max_chunksize=BLOCK) or [pa.RecordBatch.from_pylist([], schema=table.schema)]:
        parts = [spell(part, form).text for part, form in zip(batch.columns, formats, strict=True)]
        blocks.append(join(parts, rows))
        rows += batch.num_rows
    return blocks[0] if len(blocks) == 1 else pa.concat_arrays(blocks)


def join(parts: Sequence[pa.Array], before: int = 0) -> pa.Array:
    """Return keys of spelled parts; ``before`` keys came before these, for the number in the error.

    Raises:
        InvalidSpec: a part of a key of several columns contains the separator.
    """
    if len(parts) == 1:
        return parts[0]
    for part in parts:
        inside = pc.index(pc.match_substring(part, SEPARATOR), pa.scalar(True)).as_py()
        if inside >= 0:
            raise InvalidSpec(f"key {before + inside + 1} contains the control character U+001F")
    return pc.binary_join_element_wise(*parts, SEPARATOR, null_handling="emit_null")


def digest128(keys: pa.Array | pa.ChunkedArray, salt: bytes) -> npt.NDArray[np.uint64]:
    """Return a row of two 64-bit words for every key; equal keys have equal rows."""
    return np.stack(_lanes(_whole(keys), salt, lanes=2), axis=1)


def made_up_ids(n: int, seed: int, region: str = UNASSIGNED_REGION) -> pa.Array:
    """Return ``n`` different identity numbers that nobody has: plausible but for a region that does not exist.

    Raises:
        InvalidSpec: the region is in use, or ``n`` is more than there are birthdays and sequence numbers.
    """
    if len(region) != 6 or not (region.isascii() and region.isdigit()) or region[:2] in ASSIGNED_REGIONS:
        raise InvalidSpec("made-up identity numbers need six digits of a region that is not in use")
    if not 0 <= n <= DAYS * SEQUENCES:
        raise InvalidSpec(f"a region has at most {DAYS * SEQUENCES} identity numbers")
    day, sequence = shuffled(n, seed)
    characters = np.empty((n, ID_LENGTH), dtype=np.uint8)
    characters[:, :6] = np.frombuffer(region.encode(), dtype=np.uint8)
    characters[:, 6:14] = _birthdays()[day]
    for place, unit in ((14, 100), (15, 10), (16, 1)):
        characters[:, place] = (sequence + 1) // unit % 10 + ord("0")
    characters[:, 17] = id_check_digits(characters)
    return as_text(characters)


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return whole.dictionary_decode() if pa.types.is_dictionary(whole.type) else whole


def _bytes_of(keys: pa.Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the bytes of all keys with 8 zeros behind them, and where each begins and how long it is."""
    if not (pa.types.is_string(keys.type) or pa.types.is_large_string(keys.type)):
        raise InvalidSpec("keys are not text: normalise them first")
    _, offsets, data = keys.buffers()
    width = np.dtype(np.int64 if pa.types.is_large_string(keys.type) else np.int32)
    if len(keys) == 0:
        return np.zeros(8, dtype=np.uint8), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    places = np.frombuffer(offsets, width, len(keys) + 1, keys.offset * width.itemsize).astype(np.int64)
    first, last = int(places[0]), int(places[-1])
    padded = np.zeros(last - first + 8, dtype=np.uint8)
    if last > first:
        padded[:-8] = np.frombuffer(data, np.uint8, last - first, first)
    return padded, places[:-1] - first, np.diff(places)


def _lanes(keys: pa.Array, salt: bytes, lanes: int) -> list[Words]:
    if keys.null_count:
        missing = pc.index(keys.is_null(), pa.scalar(True)).as_py()
        raise InvalidSpec(f"key {missing + 1} is missing")
    data, starts, lengths = _bytes_of(keys)
    # Every run of 8 bytes of the data, wherever it begins, as one little-endian word.
    words: Words = np.ndarray(len(data) - 7, dtype="<u8", buffer=data, strides=(1,))
    salts = np.frombuffer(tagged("key-hash", salt) + tagged("key-hash", salt + b"\x01"), dtype="<u8")
    state = [salts[2 * lane] + lengths.astype(np.uint64) for lane in range(lanes)]
    live: npt.NDArray[np.intp] | slice = slice(None)
    for begin in range(0, int(lengths.max(initial=0)), 8):
        left = lengths[live] - begin
        if left.min() <= 0:  # only then do the shorter ones have to be left out, which costs a gather
            live = np.flatnonzero(lengths > begin)
            left = lengths[live] - begin
        word = words[starts[live] + begin]
        short = np.flatnonzero(left < 8)
        word[short] &= (np.uint64(1) << (left[short].astype(np.uint64) * np.uint64(8))) - np.uint64(1)
        for lane in range(lanes):
            h = (state[lane][live] ^ word) * (salts[2 * lane + 1] | np.uint64(1))
            state[lane][live] = h ^ (h >> np.uint64(32))
    return [_finish(h + salts[4 + lane]) for lane, h in enumerate(state)]


def _finish(h: Words) -> Words:
    h = h * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(29))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(32))


def _birthdays() -> npt.NDArray[np.uint8]:
    """Return the eight characters of every birthday, one row a day."""
    days = np.datetime64(FIRST_BIRTHDAY) + np.arange(DAYS)
    text = "".join(np.datetime_as_string(days, unit="D").tolist()).replace("-", "")
    return np.frombuffer(text.encode(), dtype=np.uint8).reshape(DAYS, 8)


def shuffled(n: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the first ``n`` places of a shuffle of all (day, sequence): a Feistel network, so none comes twice."""
    day, sequence = np.divmod(np.arange(n, dtype=np.int64), SEQUENCES)
    keys = np.frombuffer(tagged("made-up-ids", str(seed).encode()), dtype="<u8")
    for turn in (0, 2):
        day = (day + (_finish(keys[turn] + sequence.astype(np.uint64)) % np.uint64(DAYS)).astype(np.int64)) % DAYS
        moved = (_finish(keys[turn + 1] + day.astype(np.uint64)) % np.uint64(SEQUENCES)).astype(np.int64)
        sequence = (sequence + moved) % SEQUENCES
    return day, sequence
