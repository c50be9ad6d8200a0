"""The content hash: equal to its specification, independent of batches, and of what lies under missing values."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from catalog_builders import EVERY_TYPE, ROWS, batch, schema
from hypothesis import given
from hypothesis import strategies as st

from sandbox.catalog.content import ContentHash
from sandbox.catalog.schema import FieldType, Schema
from sandbox.crypto.sm3 import sm3
from sandbox.errors import InvalidSpec


def hash_of(*batches: pa.RecordBatch, of: Schema = EVERY_TYPE) -> bytes:
    content = ContentHash(of)
    for one in batches:
        content.update(one)
    return content.digest()


def slow_hash(rows: dict[str, list[Any]], of: Schema) -> bytes:
    """Follow the specification value by value."""
    out = len(rows["id"]).to_bytes(8, "big")
    for field in of.fields:
        presence, lengths, values = b"", b"", b""
        for value in rows[field.name]:
            presence += bytes([value is not None])
            match field.type:
                case FieldType.STRING:
                    raw = str(value or "").encode()
                    lengths += len(raw).to_bytes(4, "little")
                    values += raw
                case FieldType.INTEGER:
                    values += (value or 0).to_bytes(8, "little", signed=True)
                case FieldType.DECIMAL:
                    values += int((value or Decimal(0)).scaleb(10)).to_bytes(16, "little", signed=True)
                case FieldType.DATE:
                    days = (value - date(1970, 1, 1)).days if value else 0
                    values += days.to_bytes(4, "little", signed=True)
                case FieldType.BOOLEAN:
                    values += bytes([bool(value)])
        for text in (field.name.encode(), field.type.value.encode()):
            out += len(text).to_bytes(4, "big") + text
        out += sm3(presence) + sm3(lengths) + sm3(values)
    return sm3(b"sandbox/v1/content\0" + out)


def test_the_hash_is_what_its_specification_says() -> None:
    assert hash_of(batch()) == slow_hash(ROWS, EVERY_TYPE)


@given(st.lists(st.integers(0, 4), max_size=4))
def test_batches_do_not_matter(cuts: list[int]) -> None:
    whole = batch()
    edges = [0, *sorted(cuts), 4]
    pieces = [whole.slice(a, b - a) for a, b in pairwise(edges)]
    assert hash_of(*pieces) == hash_of(whole)


@pytest.mark.parametrize("name", list(ROWS))
def test_every_value_and_the_order_matter(name: str) -> None:
    seen = {hash_of(batch())}
    for row in range(4):
        other = {column: list(values) for column, values in ROWS.items()}
        other[name][row] = other[name][(row + 1) % 4] if other[name][row] is None else None
        seen.add(hash_of(batch(other)))
    seen.add(hash_of(batch({column: values[::-1] for column, values in ROWS.items()})))
    assert len(seen) == 6


def test_where_one_text_ends_and_the_next_begins_matters() -> None:
    of = schema({"id": FieldType.STRING})
    hashes = {hash_of(batch({"id": texts}, of), of=of) for texts in (["ab", "c"], ["a", "bc"], ["abc", ""], ["abc"])}
    assert len(hashes) == 4


def test_what_lies_under_a_missing_value_does_not_matter() -> None:
    of = schema({"id": FieldType.STRING, "n": FieldType.INTEGER})
    mask = np.array([False, True])
    texts = pa.array(["a", "secret"])
    hidden = pa.Array.from_buffers(pa.string(), 2, [pa.array([1, None]).buffers()[0], *texts.buffers()[1:]])
    numbers = pa.array(np.array([1, 77]), mask=mask)
    assert numbers.buffers()[1].to_pybytes()[8] == 77 and hidden.to_pylist() == ["a", None]
    clean = batch({"id": ["a", None], "n": [1, None]}, of)
    assert hash_of(pa.RecordBatch.from_arrays([hidden, numbers], schema=of.arrow()), of=of) == hash_of(clean, of=of)


def test_names_and_types_matter_and_other_columns_are_refused() -> None:
    text, number = schema({"id": FieldType.STRING}), schema({"id": FieldType.INTEGER})
    renamed = schema({"key": FieldType.STRING}, key=("key",))
    assert len({hash_of(of=text), hash_of(of=number), hash_of(of=renamed)}) == 3
    with pytest.raises(InvalidSpec):
        ContentHash(text).update(batch({"id": [1]}, number))
