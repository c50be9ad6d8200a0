"""Keys of rows: one spelling for each, a stable hash over them, and made-up identity numbers. All vectorised.

Source:    Unicode Standard Annex 15 (NFKC); GB 11643-1999 (identity numbers), ISO 7064 MOD 11-2 (their check digit);
           the hash is our own multiply-add hash, specified below.
Security:  the hash is fast, not cryptographic. It spreads keys over buckets and finds candidates for duplicates, under
           a salt that nobody knew when the keys were fixed. It commits to nothing and hides nothing: never send it.
Shapes:    a normalised key is NFKC text without blanks around it, ASCII letters in upper case (``x`` as a check digit
           becomes ``X``). A key of several columns is its parts joined by U+001F, which no part may contain, so two
           different rows of parts never join to the same key. A key with a missing part is missing.
           Hash of a key of L bytes under a salt: S0 .. S7 are the little-endian 64-bit words of the tagged SM3
           ("bucket-hash") of the salt, and of the same followed by one byte 01. The two lanes start from S0 and S2
           plus L; for every 8 bytes w of the key, little-endian, the last ones filled up with zeros,
           ``h = (h ^ w) * (S | 1)``, ``h ^= h >> 32`` with S = S1 for the first lane and S3 for the second; at the end
           ``h = (h + S') * 0xBF58476D1CE4E5B9``, ``h ^= h >> 29``, ``h *= 0x94D049BB133111EB``, ``h ^= h >> 32`` with
           S' = S4 and S5; everything modulo 2**64. The bucket is ``((first lane >> 32) * buckets) >> 32``.
           The known answers are in tests/vectors/bucket_hash.json: both sides of an intersection must agree on them.
Errors:    ``InvalidSpec`` with the number of the key in what was passed (from 1), never the key.
Not here:  whether keys are unique (intake), blinding (psi).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sandbox.crypto.sm3 import tagged
from sandbox.errors import InvalidSpec

SEPARATOR = "\x1f"
MAX_BUCKETS = 1 << 20
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

_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECK_DIGITS = np.frombuffer(b"10X98765432", dtype=np.uint8)

Words: TypeAlias = npt.NDArray[np.uint64]


def normalise(columns: Sequence[pa.Array | pa.ChunkedArray]) -> pa.Array:
    """Return the one spelling of every key; ``columns`` are its parts (text, whole numbers or dates).

    Raises:
        InvalidSpec: there is no column, they differ in length, a column has another type, or a part of a key of
            several columns contains the separator.
    """
    if not columns or len({len(column) for column in columns}) != 1:
        raise InvalidSpec("a key needs one column or several of the same length")
    parts = [_spell(_whole(column)) for column in columns]
    if len(parts) == 1:
        return parts[0]
    for part in parts:
        inside = pc.index(pc.match_substring(part, SEPARATOR), pa.scalar(True)).as_py()
        if inside >= 0:
            raise InvalidSpec(f"key {inside + 1} contains the control character U+001F")
    return pc.binary_join_element_wise(*parts, SEPARATOR, null_handling="emit_null")


def salted_bucket(keys: pa.Array | pa.ChunkedArray, salt: bytes, buckets: int) -> npt.NDArray[np.uint32]:
    """Return for every key the bucket, 0 to ``buckets`` - 1, that both sides put it in."""
    if not 1 <= buckets <= MAX_BUCKETS:
        raise InvalidSpec(f"the number of buckets is not between 1 and {MAX_BUCKETS}")
    (lane,) = _lanes(_whole(keys), salt, lanes=1)
    return (((lane >> np.uint64(32)) * np.uint64(buckets)) >> np.uint64(32)).astype(np.uint32)


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
    weighted = np.zeros(n, dtype=np.uint16)
    for place, weight in enumerate(_WEIGHTS):
        weighted += (characters[:, place] - ord("0")) * np.uint16(weight)
    characters[:, 17] = _CHECK_DIGITS[weighted % 11]
    offsets = np.arange(0, (n + 1) * ID_LENGTH, ID_LENGTH, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), n, [None, pa.py_buffer(offsets), pa.py_buffer(characters)])


def check_digit_ok(ids: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Return for every id whether it is 17 digits and their check digit; a missing one is not."""
    array = _whole(ids)
    data, starts, lengths = _bytes_of(array)
    right: npt.NDArray[np.bool_] = (lengths == ID_LENGTH) & array.is_valid().to_numpy(zero_copy_only=False)
    rows = starts[right]
    weighted = np.zeros(len(rows), dtype=np.uint16)
    digits = np.ones(len(rows), dtype=np.bool_)
    for place, weight in enumerate(_WEIGHTS):
        digit = data[rows + place] - np.uint8(ord("0"))  # wraps to more than 9 below "0"
        digits &= digit <= 9
        weighted += digit * np.uint16(weight)
    right[right] = digits & (data[rows + ID_LENGTH - 1] == _CHECK_DIGITS[weighted % 11])
    return right


def _spell(column: pa.Array) -> pa.Array:
    if pa.types.is_integer(column.type) or pa.types.is_date(column.type):
        return column.cast(pa.string())
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise InvalidSpec("a key column is neither text nor a whole number nor a date")
    plain = pc.all(pc.string_is_ascii(column), min_count=0).as_py()
    text = column if plain else pc.utf8_normalize(column, form="NFKC")
    text = pc.ascii_upper(pc.utf8_trim_whitespace(text))
    # Again: with its letter in upper case, a following accent may have found a composed form (i + U+0307).
    return (text if plain else pc.utf8_normalize(text, form="NFKC")).cast(pa.string())


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
    salts = np.frombuffer(tagged("bucket-hash", salt) + tagged("bucket-hash", salt + b"\x01"), dtype="<u8")
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
