"""People who do not exist: one public sequence of them, from which every twin in every house takes its keys.

Source:   GB 11643-1999 (identity numbers), GB 32100-2015 with GB 11714-1997 inside (credit codes); the first hundred
          surnames by frequency; numbers that begin with 154 are not assigned to any network.
Security: nothing here looks at a row. Person ``n`` is the same in every twin, whoever makes it: the same identity
          number (region 990000, which is not in use), telephone number, name (with the 某 of nobody in particular),
          credit code, number. Somebody real who ever gets such a name or number is hit by chance, not by data.
Shapes:   a dataset takes each person with a probability of ``OVERLAP_PERCENT``, by a hash of its code and the person's
          place, until it has as many as it has rows. So two twins share that part of the smaller one, without any
          exchange. If people run out, as in a table of days, those who were passed over are taken as well.
          Keys of several columns are unique as a whole; a column of few values (dates, declared values and ranges)
          repeats them unless it is needed to tell people apart.
Units:    made-up whole numbers begin at 990,000,000,000, or at a declared bound.
Errors:   ``InvalidSpec`` for more rows than there are people, or different keys that the schema lets be.
Not here: texts of a declared ``pattern``, which keys do not follow; the other columns (synthesis).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from math import prod
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sandbox.catalog.formats import KeyFormat, as_text, id_check_digits
from sandbox.catalog.ids import DAYS, FIRST_BIRTHDAY, ID_LENGTH, SEQUENCES, UNASSIGNED_REGION
from sandbox.catalog.registration import check_code
from sandbox.catalog.schema import Field, FieldType, Schema
from sandbox.catalog.twin.cells import Whole, bounds
from sandbox.crypto.sm3 import tagged
from sandbox.errors import InvalidSpec

OVERLAP_PERCENT: Final = 60
POPULATION: Final = DAYS * SEQUENCES
FIRST_NUMBER: Final = 990_000_000_000
SURNAMES: Final = (
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎"
    "余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文"
)
GIVEN: Final = "甲乙丙丁戊己庚辛壬癸子丑寅卯辰巳午未申酉戌亥"
_GIVEN_LENGTH: Final = 4
_DIALLED: Final = b"154"
_BLOCK: Final = 1 << 20  # people looked at in one go
_FIRST_DAY: Final = (date(1950, 1, 1) - date(1970, 1, 1)).days
_APART: Final = 7_777_777  # places in the sequence between people in one key
_CENTURY: Final = 36_525  # days, of a key whose range is not declared
_STEP: Final = 7_368_787  # has no factor in common with any number of places below
_OFFSET: Final = 1_299_709
_CREDIT_ALPHABET: Final = b"0123456789ABCDEFGHJKLMNPQRTUWXY"
_ORGANISATION_WEIGHTS: Final = (3, 7, 9, 10, 5, 8, 4, 2)

Characters = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Part:
    """A column of a key: how many values it has, at most one a person, and how to write them."""

    size: int
    write: Callable[[Whole], pa.Array]


def room(schema: Schema) -> int:
    """Return how many different keys a twin of this schema can have."""
    return min(prod(_part(field).size for field in schema.key_fields), POPULATION)


def taken(code: str, rows: int, among: int) -> Whole:
    """Return the ``rows`` people who are in the twin of a dataset, of the first ``among``.

    Raises:
        InvalidSpec: there are not so many, or the code is none.
    """
    check_code(code)
    if not 0 < rows <= among:
        raise InvalidSpec(tell=f"a twin of this schema has 1 to {among} rows", hint="ask for fewer rows")
    chosen: list[Whole] = []
    passed: list[Whole] = []
    missing, start = rows, 0
    while missing > 0 and start < among:
        people = np.arange(start, min(start + _BLOCK, among), dtype=np.int64)
        mine = _mine(code, people)
        chosen.append(people[mine][:missing])
        passed.append(people[~mine])
        missing -= len(chosen[-1])
        start += _BLOCK
    return np.concatenate([*chosen, np.concatenate(passed)[:missing]])


def keys(schema: Schema, people: Whole) -> Mapping[str, pa.Array]:
    """Return the columns of the key for these people."""
    found, stride, several = {}, 1, Counter[KeyFormat]()
    for field in schema.key_fields:
        part = _part(field)
        if part.size == POPULATION:
            # Of two in one key the second is somebody else: nobody is married to themselves.
            found[field.name] = part.write((people + several[field.format] * _APART) % POPULATION)
            several[field.format] += 1
        else:
            found[field.name] = part.write(people // stride % part.size)
            stride = min(stride * part.size, POPULATION)
    return found


def _mine(code: str, people: Whole) -> npt.NDArray[np.bool_]:
    """Return which people are in a dataset."""
    first, second = np.frombuffer(tagged("twin-people", code.encode()), "<u8", 2)
    h = (people.astype(np.uint64) + first) * np.uint64(0x9E3779B97F4A7C15) ^ second
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray((h ^ (h >> np.uint64(31))) % np.uint64(100) < OVERLAP_PERCENT)


def _part(field: Field) -> _Part:
    if field.type is FieldType.DATE:
        low, high = bounds(field)
        if not field.valid.low:
            low = max(low, high - _CENTURY + 1) if field.valid.high else _FIRST_DAY
        high = high if field.valid.high else min(high, low + _CENTURY - 1)
        return _Part(min(high - low + 1, POPULATION), lambda at: pa.array((at + low).astype(np.int32), pa.date32()))
    if field.format is not KeyFormat.TEXT:
        write = _WRITTEN[field.format]
        whole = field.type is FieldType.INTEGER
        return _Part(POPULATION, lambda at: write(at).cast(pa.int64()) if whole else write(at))
    if field.type is FieldType.INTEGER:
        low, high = bounds(field)
        first = low if field.valid.low else min(FIRST_NUMBER, max(high - POPULATION + 1, low))
        return _Part(min(high - first + 1, POPULATION), lambda at: pa.array(at + first, pa.int64()))
    if field.valid.values:
        values = pa.array(field.valid.values, pa.string())
        return _Part(len(values), lambda at: values.take(pa.array(at)))
    return _Part(POPULATION, lambda at: as_text(_behind(b"x", _digits(at, 9))))


def _shuffled(people: Whole, places: int) -> Whole:
    """Return a place of each person among ``places``, which nobody else has."""
    found: Whole = (people * _STEP + _OFFSET) % places
    return found


def _id_numbers(people: Whole) -> pa.Array:
    day, sequence = np.divmod(_shuffled(people, POPULATION), SEQUENCES)
    born = (np.datetime64(FIRST_BIRTHDAY) + day).astype("datetime64[D]")
    years, months = born.astype("datetime64[Y]"), born.astype("datetime64[M]")
    written = (years.astype(np.int64) + 1970) * 10_000 + (months.astype(np.int64) % 12 + 1) * 100
    written += (born - months).astype(np.int64) + 1
    ids = np.empty((len(people), ID_LENGTH), np.uint8)
    ids[:, :6] = np.frombuffer(UNASSIGNED_REGION.encode(), np.uint8)
    ids[:, 6:14], ids[:, 14:17] = _digits(written, 8), _digits(sequence + 1, 3)
    ids[:, 17] = id_check_digits(ids)
    return as_text(ids)


def _phones(people: Whole) -> pa.Array:
    return as_text(_behind(_DIALLED, _digits(_shuffled(people, 10**8), 8)))


def _names(people: Whole) -> pa.Array:
    surnames, given = (np.frombuffer(text.encode(), np.uint8).reshape(-1, 3) for text in (SURNAMES, GIVEN))
    at, surname = np.divmod(_shuffled(people, len(SURNAMES) * len(GIVEN) ** _GIVEN_LENGTH), len(SURNAMES))
    parts = [surnames[surname], np.broadcast_to(np.frombuffer("某".encode(), np.uint8), (len(people), 3))]
    for _ in range(_GIVEN_LENGTH):
        at, character = np.divmod(at, len(GIVEN))
        parts.append(given[character])
    return as_text(np.ascontiguousarray(np.concatenate(parts, axis=1)))


def _credit_codes(people: Whole) -> pa.Array:
    digits = _digits(_shuffled(people, 10**8), 8)
    total = (digits.astype(np.int64) - ord("0")) @ np.array(_ORGANISATION_WEIGHTS)
    inner = np.frombuffer(b"0X987654321", np.uint8)[total % 11]
    codes = np.concatenate([_behind(b"91" + UNASSIGNED_REGION.encode(), digits), inner[:, None]], axis=1)
    worth = np.zeros(256, np.int64)
    worth[np.frombuffer(_CREDIT_ALPHABET, np.uint8)] = np.arange(31)
    weighted = worth[codes] @ np.array([pow(3, place, 31) for place in range(17)])
    last = np.frombuffer(_CREDIT_ALPHABET, np.uint8)[(31 - weighted % 31) % 31]
    return as_text(np.ascontiguousarray(np.concatenate([codes, last[:, None]], axis=1)))


_WRITTEN: Final[Mapping[KeyFormat, Callable[[Whole], pa.Array]]] = {
    KeyFormat.ID_NUMBER: _id_numbers,
    KeyFormat.PHONE: _phones,
    KeyFormat.NAME: _names,
    KeyFormat.CREDIT_CODE: _credit_codes,
}


def _digits(numbers: Whole, width: int) -> Characters:
    units = 10 ** np.arange(width - 1, -1, -1, dtype=np.int64)
    return (numbers[:, None] // units % 10 + ord("0")).astype(np.uint8)


def _behind(head: bytes, characters: Characters) -> Characters:
    """Return rows of characters, each behind the same head."""
    front = np.broadcast_to(np.frombuffer(head, np.uint8), (len(characters), len(head)))
    return np.ascontiguousarray(np.concatenate([front, characters], axis=1))
