"""How rows look outside production: every column under its masking rule, or under one that its grade asks for.

    batch of the schema's columns --Masker(schema, secret)--> batch that may be shown

Security:  what no rule speaks of fails closed. A column of the key is shown as a hash, whatever its grade; one of grade
           L4 not at all; one of grade L3 not at all, but dates as their year. Only L1 and L2 are shown as they are.
           Hashes are HMAC-SM3 under a key derived from the secret and the column's name, cut to 128 bits: without the
           secret nobody can try all identity numbers, and two columns never show who stands in both. The secret is one
           a dataset (or one for all datasets whose people may be linked), 32 bytes or more, and stays in the node.
           Masked rows are pseudonyms, not anonymous: who knows enough about a person finds that person.
Reveals:   of a hash, which rows are equal. Of a mask, its ends, only where a third of the text stays hidden (a shorter
           text is hidden altogether), and never how long it is. Of ``generalise:N``, a text of N characters or fewer
           as it is: meant for codes, not for names and addresses. Of a shift, the days between the dates of one row;
           a date that everybody knows gives that row's others away, so dates at the end of the calendar, which stand
           for "never", become missing values.
Shapes:    a hash is a string of 32 hexadecimal digits, a mask a string; the other rules keep the column's type. Equal
           spellings of a key (``formats``) have equal hashes. The shift is drawn from 1 to N days forward or back, by
           the secret and the row's key: the same in every date column with the same rule. Missing values stay
           missing. A bin begins at a multiple of its width, of dates counted from 1970-01-01; what lies below the
           first whole bin of its type is shown as the least value of the type.
Errors:    ``InvalidSpec``: the secret is too short, or a batch has other columns than the schema, or a key that no
           intake lets through. No text quotes a value.
Not here:  the rules' texts (masking_rules), synthetic rows (twin), which results may leave (gate).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal, localcontext
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sandbox.catalog.columns import FIRST_DAY, LAST_DAY
from sandbox.catalog.field_types import ARROW, DECIMAL_DIGITS, DECIMAL_PLACES, FieldType
from sandbox.catalog.formats import spell
from sandbox.catalog.ids import normalise
from sandbox.catalog.masking_rules import Bin, Drop, Hash, Mask, Period, Prefix, Shift, Shown, Unmasked, parse_rule
from sandbox.catalog.schema import Field, Grade, Schema
from sandbox.crypto.sm3 import hkdf, hmac_sm3
from sandbox.errors import InvalidSpec

MIN_SECRET: Final = 32  # bytes
HASH_SIZE: Final = 16  # bytes
HIDDEN: Final = "****"
SHOWN_PER_HIDDEN: Final = 2  # characters of a masked text

_DECIMAL: Final = ARROW[FieldType.DECIMAL]
_LEAST: Final = Decimal((1, (9,) * DECIMAL_DIGITS, -DECIMAL_PLACES))


def rule_in_force(field: Field, *, in_key: bool) -> str:
    """Return the text of the rule a column is shown under: its own, or the one its grade asks for."""
    if field.masking:
        return field.masking
    if in_key:
        return "hash"
    if field.grade is Grade.L3 and field.type is FieldType.DATE:
        return "generalise:year"
    return "" if field.grade in (Grade.L1, Grade.L2) else "drop"


class Masker:
    """Shows rows of one schema under its masking rules."""

    def __init__(self, schema: Schema, secret: bytes) -> None:
        """Args:
        schema: what the rows are.
        secret: 32 bytes or more that stay in the node; the same ones give the same hashes and shifts.

        Raises:
            InvalidSpec: the secret is too short.
        """
        if len(secret) < MIN_SECRET:
            raise InvalidSpec(f"a secret for masking has at least {MIN_SECRET} bytes")
        self._schema = schema
        self._secret = bytes(secret)
        rules = {f.name: parse_rule(rule_in_force(f, in_key=f.name in schema.key), f.type) for f in schema.fields}
        self._shown: Mapping[str, Shown] = {name: rule for name, rule in rules.items() if not isinstance(rule, Drop)}

    def arrow(self) -> pa.Schema:
        """Return the columns that ``apply`` leaves, with their types."""
        types = {field.name: ARROW[field.type] for field in self._schema.fields}
        texts = {name for name, rule in self._shown.items() if isinstance(rule, Hash | Mask)}
        return pa.schema([pa.field(name, pa.string() if name in texts else types[name]) for name in self._shown])

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows as they may be shown.

        Raises:
            InvalidSpec: the batch does not have exactly the schema's columns, or a key that cannot be spelled.
        """
        expected = self._schema.arrow()
        if batch.schema.names != expected.names or batch.schema.types != expected.types:
            raise InvalidSpec("the rows to be masked do not have the columns and types of their schema")
        fields = {field.name: field for field in self._schema.fields}
        columns = [self._masked(batch, fields[name], rule) for name, rule in self._shown.items()]
        return pa.RecordBatch.from_arrays(columns, schema=self.arrow())

    def _masked(self, batch: pa.RecordBatch, field: Field, rule: Shown) -> pa.Array:
        column = batch.column(field.name)
        match rule:
            case Unmasked():
                return column
            case Hash():
                return self._hashed(column, field)
            case Mask():
                return _ends(column.cast(pa.string()), rule)
            case Bin():
                return _decimal_bins(column, rule.width) if field.type is FieldType.DECIMAL else _bins(column, rule)
            case Prefix():
                return pc.utf8_slice_codeunits(column, 0, rule.characters)
            case Period():
                days = _days(column).astype("datetime64[D]")
                return _dates(days.astype(f"datetime64[{rule.unit}]").astype("datetime64[D]"), column.is_valid())
            case Shift():
                return self._shifted(column, rule.days, batch)

    def _hashed(self, column: pa.Array, field: Field) -> pa.Array:
        spelled = field.name in self._schema.key
        text = spell(column, field.format).text if spelled else column.cast(pa.string())
        key = self._key("hash/" + field.name)
        return _of_each(text, lambda value: hmac_sm3(key, value)[:HASH_SIZE].hex(), pa.string())

    def _shifted(self, column: pa.Array, most: int, batch: pa.RecordBatch) -> pa.Array:
        keys = normalise([batch.column(name) for name in self._schema.key], self._schema.key_formats)
        secret = self._key(f"shift/{most}")
        drawn = _of_each(keys, lambda key: int.from_bytes(hmac_sm3(secret, key)[:8], "big") % (2 * most), pa.int64())
        number = pc.fill_null(drawn, 0).to_numpy(zero_copy_only=False)
        days = _days(column)
        moved = days + np.where(number < most, number - most, number - most + 1)
        known = (days >= FIRST_DAY + most) & (days <= LAST_DAY - most)
        return _dates(moved.astype("datetime64[D]"), pc.and_(pc.and_(column.is_valid(), drawn.is_valid()), known))

    def _key(self, purpose: str) -> bytes:
        return hkdf(self._secret, b"", f"sandbox/v1/masking/{purpose}".encode(), 32)


def _of_each(text: pa.Array, function: Callable[[bytes], str | int], type_: pa.DataType) -> pa.Array:
    """Return the function of each value, computed once for equal ones; missing ones stay missing."""
    values = text.dictionary_encode()
    results = pa.array([function(value) for value in values.dictionary.cast(pa.binary()).to_pylist()], type_)
    return results.take(values.indices)


def _ends(text: pa.Array, rule: Mask) -> pa.Array:
    """Return texts with their middle hidden, or all of it where too little would be."""
    shown = rule.head + rule.tail
    tail = pc.utf8_slice_codeunits(text, -rule.tail) if rule.tail else ""
    ends = pc.binary_join_element_wise(pc.utf8_slice_codeunits(text, 0, rule.head), tail, HIDDEN)
    long = pc.greater_equal(pc.multiply(pc.utf8_length(text), SHOWN_PER_HIDDEN), shown * (SHOWN_PER_HIDDEN + 1))
    return pc.if_else(pc.and_(long, shown > 0), ends, HIDDEN)


def _bins(column: pa.Array, rule: Bin) -> pa.Array:
    """Return where the bins of whole numbers or dates begin."""
    width, is_date = int(rule.width), pa.types.is_date(column.type)
    values = _days(column) if is_date else pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
    least = FIRST_DAY if is_date else int(np.iinfo(np.int64).min)
    above = values % width
    # Below the least number there is none to compare with, so the sum is compared and not the difference.
    edges = np.where(values < least + above, least, values - above)
    if is_date:
        return _dates(edges.astype("datetime64[D]"), column.is_valid())
    return pc.if_else(column.is_valid(), pa.array(edges), None)


def _decimal_bins(column: pa.Array, width: Decimal) -> pa.Array:
    """Return where the bins of decimals begin."""
    with localcontext(prec=2 * DECIMAL_DIGITS):
        first_whole = _LEAST - _LEAST % width
    low = pc.less(column, pa.scalar(first_whole, _DECIMAL))
    rest = pc.if_else(low, pa.scalar(Decimal(0), _DECIMAL), column)
    edges = pc.round_to_multiple(rest, pa.scalar(width, _DECIMAL), round_mode="down")  # down: to minus infinity
    return pc.if_else(low, pa.scalar(_LEAST, _DECIMAL), edges)


def _days(column: pa.Array) -> npt.NDArray[np.int64]:
    days: npt.NDArray[np.int32] = pc.fill_null(column.cast(pa.int32()), 0).to_numpy(zero_copy_only=False)
    return days.astype(np.int64)


def _dates(days: npt.NDArray[np.datetime64], known: pa.Array) -> pa.Array:
    return pc.if_else(known, pa.array(days, pa.date32()), None)
