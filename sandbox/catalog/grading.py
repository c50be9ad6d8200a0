"""Looks through a table for Chinese personal fields, and suggests a grade and a masking for each column that holds one.

    batches --Grader.add--> counts --done--> Suggestions --a person--> schema.json

Source:    which fields are more sensitive than others: GB/T 35273-2020, annex B, on documents of identity and accounts
           (here L4); what else tells who somebody is, is L3. A credit code tells of an organisation: L2.
Security:  only counts are kept: never a value, nor a part of one but the first three digits of numbers that may be
           telephone numbers, and digests under a fresh salt of at most ``DIFFERENT`` that may be names.
           A suggestion is no proof: a detector misses what is written in its own way, inside longer texts or in
           cipher. So a person confirms every grade; what the node may refuse by itself is a grade that is too low.
Reveals:   to whoever reads the suggestions, names of columns and shares of rows, rounded to hundredths.
Shapes:    a column is looked at as text, in NFKC and without blanks around it; numbers that are whole and bytes that
           are UTF-8 count as text, empty values not at all. A kind counts once the share of values that look like it
           reaches what it asks for (personal), which is less in a column whose name hints at it (column_hints).
           Suggested is the kind with the highest grade of those that count, then the one with the greatest share.
           Bare digits are telephone numbers only if the first digits vary, and texts are names only if they are not
           a few words again and again; a hint outweighs both.
           Memory: a block of rows.
Errors:    ``InvalidSpec``: the batches differ in their columns, a column stands twice, or bytes are not UTF-8. No
           text quotes a value.
Not here:  how a value is recognised (personal), a schema to start from (drafting), quality (profile).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from sandbox.catalog.column_hints import hints
from sandbox.catalog.formats import BLOCK
from sandbox.catalog.ids import digest128
from sandbox.catalog.personal import DETECTORS, PLAIN_MOBILE, Personal, looks
from sandbox.catalog.schema import Grade, Schema
from sandbox.errors import InvalidSpec

DIFFERENT: Final = 50  # names that differ are enough; so many rows may hold fewer
SEGMENTS: Final = 5  # first digits of mobile numbers that differ are enough
ROWS_PER_SEGMENT: Final = 4  # in a small table, so many rows may have the same
LONGEST: Final = 600  # bytes; what is longer counts as a value that looks like nothing
EXACT: Final = 2.0**53  # floats below this are exact whole numbers, or have places
_AROUND: Final = " \t\r\n'\"`\u200b\ufeff"  # what programs for tables leave around a value

GRADES: Final[Mapping[Personal, Grade]] = {
    Personal.ID_NUMBER: Grade.L4,
    Personal.BANK_CARD: Grade.L4,
    Personal.PASSPORT: Grade.L4,
    Personal.PHONE: Grade.L3,
    Personal.EMAIL: Grade.L3,
    Personal.PLATE: Grade.L3,
    Personal.NAME: Grade.L3,
    Personal.ADDRESS: Grade.L3,
    Personal.CREDIT_CODE: Grade.L2,
}
MASKINGS: Final[Mapping[Personal, str]] = {
    Personal.ID_NUMBER: "hash",
    Personal.BANK_CARD: "mask:0,4",
    Personal.PASSPORT: "hash",
    Personal.PHONE: "mask:3,4",
    Personal.EMAIL: "mask:1,0",
    Personal.PLATE: "mask:2,0",
    Personal.NAME: "mask:1,0",
    Personal.ADDRESS: "mask:6,0",
    Personal.CREDIT_CODE: "mask:2,4",
}


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What a column seems to hold, and what follows from it if it does."""

    column: str
    kind: Personal
    share: float  # of the values that are not empty, rounded to hundredths
    hinted: bool  # the column's name says so too
    grade: Grade
    masking: str


@dataclass(slots=True)
class _Column:
    hints: frozenset[Personal]
    values: int = 0
    sure: dict[Personal, int] = field(default_factory=lambda: dict.fromkeys(Personal, 0))
    likely: dict[Personal, int] = field(default_factory=lambda: dict.fromkeys(Personal, 0))
    segments: set[str] = field(default_factory=set)  # first three digits of bare mobile numbers
    plain: int = 0  # bare mobile numbers
    names: set[bytes] = field(default_factory=set)  # digests of those that differ


class Grader:
    """Counts what the columns of a table look like, batch by batch."""

    def __init__(self) -> None:
        self._types: pa.Schema | None = None
        self._columns: dict[str, _Column] = {}
        self._salt = os.urandom(16)

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in the next rows.

        Raises:
            InvalidSpec: the batch has other columns than the first one, or one twice, or one that is not in UTF-8.
        """
        if self._types is None:
            if len(set(batch.schema.names)) != len(batch.schema.names):
                raise InvalidSpec("two columns of the table have the same name")
            self._types = batch.schema.remove_metadata()
            self._columns = {name: _Column(hints(name)) for name in batch.schema.names}
        elif not batch.schema.equals(self._types):
            raise InvalidSpec("the columns of the table differ from those of its first rows")
        for begin in range(0, batch.num_rows, BLOCK):
            part = batch.slice(begin, BLOCK)
            for name, found in self._columns.items():
                text, values = _texts(part.column(name), name)
                if text is not None:
                    found.values += values
                    self._count(text, found)

    def done(self) -> tuple[Suggestion, ...]:
        """Return what the columns so far seem to hold, those of them that seem to hold anything of people."""
        suggestions = []
        for name, column in self._columns.items():
            if found := _kind(column):
                kind, share = found
                hinted = kind in column.hints
                suggestions.append(Suggestion(name, kind, round(share, 2), hinted, GRADES[kind], MASKINGS[kind]))
        return tuple(suggestions)

    def _count(self, text: pa.Array, found: _Column) -> None:
        for kind, detector in DETECTORS.items():
            fits = detector.sure(text)
            found.sure[kind] += int(fits.sum())
            if kind in found.hints:
                found.likely[kind] += int((detector.likely(text) | fits).sum())
            if kind is Personal.PHONE and fits.any():
                plain = text.filter(pa.array(fits & looks(PLAIN_MOBILE)(text)))
                found.plain += len(plain)
                found.segments |= set(pc.unique(pc.utf8_slice_codeunits(plain, 0, 3)).to_pylist())
            if kind is Personal.NAME and len(found.names) < DIFFERENT and fits.any():
                different = digest128(pc.unique(text.filter(pa.array(fits))), self._salt)
                found.names |= {row.tobytes() for row in different[:DIFFERENT]}


def suggest(batches: Iterable[pa.RecordBatch]) -> tuple[Suggestion, ...]:
    """Return what the columns of a table seem to hold of people.

    Raises:
        InvalidSpec: the batches differ in their columns, a column stands twice, or it is not in UTF-8.
    """
    grader = Grader()
    for batch in batches:
        grader.add(batch)
    return grader.done()


def too_low(schema: Schema, suggestions: Sequence[Suggestion]) -> tuple[Suggestion, ...]:
    """Return the suggestions whose column the schema grades lower (L1 < L2 < L3 < L4, as texts too)."""
    declared = {one.name: one.grade for one in schema.fields}
    return tuple(one for one in suggestions if one.column in declared and declared[one.column] < one.grade)


def _kind(found: _Column) -> tuple[Personal, float] | None:
    """Return, of the kinds that enough values look like, the most sensitive, and of these the one of most values."""
    best: tuple[Personal, float] | None = None
    for kind, detector in DETECTORS.items():
        sure, hinted = found.sure[kind], kind in found.hints
        if kind is Personal.PHONE and len(found.segments) * ROWS_PER_SEGMENT < min(
            found.plain, SEGMENTS * ROWS_PER_SEGMENT
        ):
            sure -= found.plain  # numbers in a row, orders for example
        if kind is Personal.NAME and len(found.names) < min(DIFFERENT, sure / 2):
            sure = 0  # a few words again and again
        share = max(sure, found.likely[kind]) / max(found.values, 1)
        enough = sure >= detector.sure_share * found.values or (hinted and share >= detector.likely_share)
        if share and enough and (best is None or (GRADES[kind], share) > (GRADES[best[0]], best[1])):
            best = kind, share
    return best


def _texts(column: pa.Array, name: str) -> tuple[pa.Array | None, int]:
    """Return the short values as texts without what is around them, and how many values there are at all.

    None in place of the texts: the column holds nothing that is like one.
    """
    kinds = pa.types
    if kinds.is_dictionary(column.type):
        column = column.dictionary_decode()
    column = column.drop_null()
    values = len(column)
    if kinds.is_floating(column.type):
        column = column.cast(pa.float64())
        whole = pc.and_(pc.less(pc.abs(column), EXACT), pc.equal(pc.floor(column), column))
        column = column.filter(whole).cast(pa.int64())
    if kinds.is_decimal(column.type):  # as databases export NUMBER(11): what is whole without its places
        return pc.replace_substring_regex(column.cast(pa.string()), r"\.0+$", ""), values
    if kinds.is_integer(column.type):
        return column.cast(pa.string()), values
    if not _is_text(column.type):
        return None, values
    column = column.cast(pa.large_binary())
    column = column.filter(pc.less_equal(pc.binary_length(column), LONGEST))
    long = values - len(column)
    try:
        text = column.cast(pa.string())
    except pa.ArrowInvalid:
        text = None
    if text is None:  # raised outside the handler: the library's own text may quote a value
        raise InvalidSpec(f"column {name!r} is not text in UTF-8: write it so, or leave it out")
    if not pc.all(pc.string_is_ascii(text), min_count=0).as_py():
        text = pc.utf8_normalize(text, form="NFKC")
    text = pc.utf8_upper(pc.utf8_trim(text, _AROUND))
    text = text.filter(pc.not_equal(text, ""))
    return text, len(text) + long


def _is_text(type_: pa.DataType) -> bool:
    kinds = pa.types
    text = kinds.is_string(type_) or kinds.is_large_string(type_) or kinds.is_string_view(type_)
    return bool(text or kinds.is_binary(type_) or kinds.is_large_binary(type_))
