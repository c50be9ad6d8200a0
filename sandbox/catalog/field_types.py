"""What a column may hold, and the Arrow type its rows have.

Not here:  what the columns of a dataset are (schema), how values of a file become these (columns).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import pyarrow as pa

DECIMAL_DIGITS: Final = 38  # all that fits in 128 bits
DECIMAL_PLACES: Final = 10


class FieldType(StrEnum):
    """What a column holds. Decimals hold 28 digits before the point and 10 behind; dates are days."""

    STRING = "string"
    INTEGER = "integer"
    DECIMAL = "decimal"
    BOOLEAN = "boolean"
    DATE = "date"


ARROW: Mapping[FieldType, pa.DataType] = {
    FieldType.STRING: pa.string(),
    FieldType.INTEGER: pa.int64(),
    FieldType.DECIMAL: pa.decimal128(DECIMAL_DIGITS, DECIMAL_PLACES),
    FieldType.BOOLEAN: pa.bool_(),
    FieldType.DATE: pa.date32(),
}
