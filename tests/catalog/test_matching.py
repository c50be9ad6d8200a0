"""Whether the keys of two datasets can meet, and what the people who draft a scenario are told if not."""

from __future__ import annotations

from itertools import product

import pyarrow as pa
import pytest
from catalog_builders import keyed

from sandbox.catalog.formats import KeyFormat, WhenInvalid
from sandbox.catalog.ids import normalise
from sandbox.catalog.matching import compatible
from sandbox.catalog.schema import FORMAT_TYPES, FieldType

STRING, INTEGER, DATE = FieldType.STRING, FieldType.INTEGER, FieldType.DATE
KEEP = WhenInvalid.KEEP


def test_columns_of_other_names_and_the_same_formats_fit() -> None:
    left = keyed(name=(STRING, KeyFormat.NAME), phone=(STRING, KeyFormat.PHONE))
    right = keyed(xm=(STRING, KeyFormat.NAME), sjh=(INTEGER, KeyFormat.PHONE, KEEP))
    assert compatible(left, right) == compatible(right, left) == compatible(left, left) == []
    ours = normalise([pa.array(["张 三"]), pa.array(["+86 138-0013-8000"])], left.key_formats)
    theirs = normalise([pa.array(["张三"]), pa.array([13800138000])], right.key_formats)
    assert ours.equals(theirs)  # what the answer promises


def test_another_number_of_columns_is_named_with_the_columns() -> None:
    left = keyed(id=(STRING, KeyFormat.ID_NUMBER))
    right = keyed(xm=(STRING, KeyFormat.NAME), sjh=(STRING, KeyFormat.PHONE))
    assert compatible(left, right) == [
        "the key of the left dataset is 1 column ('id'), that of the right one 2 columns ('xm', 'sjh')"
    ]


def test_every_position_that_differs_is_named() -> None:
    left = keyed(name=(STRING, KeyFormat.NAME), born=(DATE, KeyFormat.TEXT), phone=(STRING, KeyFormat.PHONE))
    right = keyed(dh=(STRING, KeyFormat.PHONE), sr=(STRING, KeyFormat.TEXT), sjh=(STRING, KeyFormat.PHONE))
    assert compatible(left, right) == [
        "key column 1: 'name' (left) has the format name, 'dh' (right) the format phone: "
        "they spell the same person differently",
        "key column 2: 'born' (left) has the type date, 'sr' (right) the type string: "
        "they may write the same value differently",
    ]


@pytest.mark.parametrize("left", KeyFormat)
@pytest.mark.parametrize("right", KeyFormat)
def test_it_is_the_same_from_both_sides(left: KeyFormat, right: KeyFormat) -> None:
    for ours, theirs in product(FORMAT_TYPES[left], FORMAT_TYPES[right]):
        one, other = keyed(a=(ours, left)), keyed(b=(theirs, right))
        problems = compatible(one, other)
        assert len(problems) == len(compatible(other, one)) <= 1
        assert bool(problems) == (left is not right or (left is KeyFormat.TEXT and ours is not theirs))
        assert all("'a' (left)" in text and "'b' (right)" in text for text in problems)
