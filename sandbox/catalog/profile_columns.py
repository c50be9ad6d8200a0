"""What a quality profile counts in one column, batch by batch.

Source:    K minimum values: Bar-Yossef and others, "Counting distinct elements in a data stream", RANDOM 2002.
Security:  exact counts: they become shares and round numbers in ``profile`` before anybody sees them. Values are
           remembered as 64-bit digests under a secret of this object only.
Shapes:    texts that repeat much are looked at once per batch and value; where most differ, counting them first costs
           more than it saves. Fewer than ``K`` different values are counted exactly.
Errors:    ``InvalidSpec`` for a rule that cannot be applied.
Not here:  what may be told (profile).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import date
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sandbox.catalog.columns import FIRST_DAY, LAST_DAY
from sandbox.catalog.formats import BLOCK, KeyFormat, WhenInvalid, spell
from sandbox.catalog.ids import Words, digest128
from sandbox.catalog.schema import ARROW, DECIMAL_DIGITS, DECIMAL_PLACES, Field, FieldType, Valid
from sandbox.errors import InvalidSpec

K: Final = 2048
_EXACT: Final = Context(prec=2 * DECIMAL_DIGITS + DECIMAL_PLACES)  # enough for any bound that is not out of range

Rule: TypeAlias = Callable[[pa.Array], pa.Array]


class Distinct:
    """Counts different values about as well as their number is large: the K smallest digests are kept."""

    def __init__(self, type_: FieldType) -> None:
        self._type = type_
        self._salt = os.urandom(16)
        self._kept: Words = np.empty(0, dtype=np.uint64)

    def add(self, values: pa.Array) -> None:
        """Take in values, none of them missing."""
        digests = self._digests(values)
        if len(self._kept) == K:
            digests = digests[digests < self._kept[-1]]
        if not len(digests):
            return
        some = pc.unique(pa.array(digests)).to_numpy()
        ordered = np.sort(np.concatenate([self._kept, some]))
        new = np.ones(len(ordered), dtype=np.bool_)
        new[1:] = ordered[1:] != ordered[:-1]
        self._kept = ordered[new][:K].copy()

    def estimate(self) -> int:
        """Return about how many there are."""
        if len(self._kept) < K:
            return len(self._kept)
        return round((K - 1) * 2.0**64 / float(self._kept[-1]))

    def _digests(self, values: pa.Array) -> Words:
        if self._type is FieldType.STRING:
            return digest128(values, self._salt)[:, 0]
        if self._type is FieldType.BOOLEAN:
            values = values.cast(pa.int64())
        width = values.type.byte_width
        word = np.dtype("<i4" if width == 4 else "<u8")
        words = np.frombuffer(values.buffers()[1], word, len(values) * width // word.itemsize, values.offset * width)
        secret = np.frombuffer(self._salt, dtype="<u8")
        if width == 4:
            return _mixed(words.astype(np.int64).view(np.uint64) ^ secret[0])
        if width == 8:
            return _mixed(words ^ secret[0])
        low, high = words[::2], words[1::2]
        return _mixed(_mixed(low ^ secret[0]) ^ high ^ secret[1])


class Days:
    """Counts the rows of every day there is."""

    def __init__(self, valid: Valid) -> None:
        self._rule = rule_of(FieldType.DATE, valid)
        self._rows = np.zeros(LAST_DAY - FIRST_DAY + 1, dtype=np.uint32)

    def add(self, column: pa.Array) -> None:
        """Take in dates; missing ones and those that the schema calls no valid ones do not count."""
        if self._rule is not None:
            column = column.filter(self._rule(column))
        found = pc.value_counts(column.drop_null().cast(pa.int32()))
        self._rows[found.field("values").to_numpy() - FIRST_DAY] += found.field("counts").to_numpy().astype(np.uint32)

    def grouped(self, unit: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return in days since 1970 when each day, month or year ("D", "M", "Y") with rows begins, and its rows."""
        there = np.flatnonzero(self._rows)
        begins = (there + FIRST_DAY).astype("datetime64[D]").astype(f"datetime64[{unit}]").astype("datetime64[D]")
        different, index = np.unique(begins.astype(np.int64), return_inverse=True)
        rows = np.bincount(index, weights=self._rows[there], minlength=len(different))
        return different, rows.astype(np.int64)


class ColumnMeasure:
    """The counts of one column."""

    def __init__(self, field: Field, unique: bool) -> None:
        """Args:
        field: the column.
        unique: its values are known to differ.
        """
        self.field = field
        self.present = 0
        self._rule = rule_of(field.type, field.valid)
        self.valid = None if self._rule is None else 0
        self.formed = None if field.format is KeyFormat.TEXT else 0
        self.distinct = None if unique else Distinct(field.type)
        self._repeats = field.type is FieldType.STRING and not unique  # until a batch shows otherwise

    def add(self, column: pa.Array) -> None:
        """Take in the next values."""
        values = column.drop_null() if column.null_count else column
        self.present += len(values)
        if self.formed is not None:
            self.formed += len(values) if self.field.invalid is WhenInvalid.REFUSE else self._formed(values)
        if not len(values) or (self._rule is None and self.distinct is None):
            return
        if self._repeats:
            found = pc.value_counts(values)
            different, times = found.field("values"), found.field("counts").to_numpy()
            self._repeats = 2 * len(different) < len(values)
            self._look(different, times)
        else:
            self._look(values, None)

    def _look(self, values: pa.Array, times: npt.NDArray[np.int64] | None) -> None:
        if self._rule is not None and self.valid is not None:
            meets = self._rule(values)
            self.valid += meets.true_count if times is None else int(times[meets.to_numpy(zero_copy_only=False)].sum())
        if self.distinct is not None:
            self.distinct.add(values)

    def _formed(self, values: pa.Array) -> int:
        blocks = (values.slice(begin, BLOCK) for begin in range(0, len(values), BLOCK))
        return sum(int(np.count_nonzero(spell(block, self.field.format).valid)) for block in blocks)


def rule_of(type_: FieldType, valid: Valid) -> Rule | None:
    """Return what tells of every value whether it is valid; None if there is no rule."""
    checks: list[Rule] = []
    if valid.low:
        checks.append(_bound(type_, valid.low, low=True))
    if valid.high:
        checks.append(_bound(type_, valid.high, low=False))
    if valid.values:
        allowed = pa.array(valid.values, pa.string())
        checks.append(lambda values: pc.is_in(values, allowed))
    if valid.pattern:
        whole = _whole(valid.pattern)
        checks.append(lambda values: pc.match_substring_regex(values, whole))
    if not checks:
        return None
    if len(checks) == 1:
        return checks[0]
    first, second = checks[0], checks[1]
    return lambda values: pc.and_(first(values), second(values))


def _bound(type_: FieldType, text: str, *, low: bool) -> Rule:
    compare = pc.greater_equal if low else pc.less_equal
    if type_ is FieldType.DATE:
        day = pa.scalar(date.fromisoformat(text))
        return lambda values: compare(values, day)
    # In the column's own unit: a bound with more places lies between two values, one out of range beyond all.
    places = DECIMAL_PLACES if type_ is FieldType.DECIMAL else 0
    most = Decimal(2**63 - 1) if type_ is FieldType.INTEGER else Decimal(10**DECIMAL_DIGITS - 1).scaleb(-places, _EXACT)
    least = Decimal(-(2**63)) if type_ is FieldType.INTEGER else -most
    bound = Decimal(text)
    if not least <= bound <= most:
        everything = pa.scalar((bound < least) is low)
        return lambda values: pa.repeat(everything, len(values))
    unit = Decimal(1).scaleb(-places)
    exact = bound.quantize(unit, ROUND_CEILING if low else ROUND_FLOOR, _EXACT)
    nearest = pa.scalar(int(exact) if type_ is FieldType.INTEGER else exact, ARROW[type_])
    return lambda values: compare(values, nearest)


def _whole(pattern: str) -> str:
    """Return the pattern that a text fits if all of it fits ``pattern``."""
    whole = rf"\A(?:{pattern})\z"
    try:
        pc.match_substring_regex(pa.array([""]), whole)
    except pa.ArrowInvalid:  # one that quotes (``\Q``) to its end quotes what was put behind it
        whole = ""
    if not whole:
        raise InvalidSpec("a pattern of the schema cannot be fitted to whole texts: end what it quotes")
    return whole


def _mixed(words: Words) -> Words:
    """Return 64-bit words mixed one to one (the finaliser of splitmix64)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
