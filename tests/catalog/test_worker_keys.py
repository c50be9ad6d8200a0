"""What a worker makes of sealed rows and of a person's id: keys in the spelling that the other side has too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from catalog_builders import CODE, Version, keyed

from sandbox import worker
from sandbox.catalog import vault
from sandbox.catalog.formats import KeyFormat
from sandbox.catalog.schema import FieldType, Schema
from sandbox.errors import InvalidSpec

NODE_KEY = b"k" * 16
STRING = FieldType.STRING
PERSON = keyed(tel=(STRING, KeyFormat.PHONE), name=(STRING, KeyFormat.NAME))


def sealed(home: Path, of: Schema, rows: Mapping[str, Sequence[str]], key: Sequence[str]) -> dict[str, Any]:
    """Seal rows and return what the node tells its worker of them."""
    batch = pa.RecordBatch.from_pydict(dict(rows), schema=of.arrow())
    made = vault.seal_version(home, NODE_KEY, Version(of), iter([batch]))
    formats = dict(zip(of.key, of.key_formats, strict=True))
    return {
        "directory": str(vault.version_dir(home, CODE, 1)),
        "key": vault.unwrap(NODE_KEY, made.wrapped_key, CODE, 1).hex(),
        "key_columns": list(key),
        "key_formats": [formats[name].value for name in key],
    }


def keys(dataset: Mapping[str, Any]) -> list[str]:
    """Read the keys as a stage does; the desk is not needed for that."""
    assignment = object.__new__(worker.Assignment)
    assignment._dataset = dataset
    read = assignment.keys().to_pylist()
    assert pa.chunked_array(assignment.key_batches(), pa.string()).to_pylist() == read
    return list(read)


def test_two_owners_that_write_a_person_differently_have_the_same_key(tmp_path: Path) -> None:
    ours = sealed(tmp_path / "a", PERSON, {"tel": ["+86 138-0013-8000"], "name": ["甲乙•丙"]}, PERSON.key)
    other = keyed(xm=(STRING, KeyFormat.NAME), sj=(STRING, KeyFormat.PHONE))
    theirs = sealed(tmp_path / "b", other, {"xm": ["甲 乙·丙"], "sj": ["13800138000"]}, ("sj", "xm"))
    assert keys(ours) == keys(theirs) == ["+8613800138000\x1f甲乙·丙"]


def test_a_person_asked_about_is_spelled_as_the_keys_are(tmp_path: Path) -> None:
    of = keyed(id=(STRING, KeyFormat.ID_NUMBER))
    dataset = sealed(tmp_path, of, {"id": ["99000019900101005X", "990000199001011239"]}, of.key)
    assert worker._subject("990000 900101 005", dataset) == keys(dataset)[0]
    assert worker._subject("", {}) == ""
    assert worker._subject("138 0013 8000\x1f甲 乙", {"key_formats": ["phone", "name"]}) == "+8613800138000\x1f甲乙"


def test_a_person_named_by_another_number_of_values_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="named by 1 values, the key of the dataset has 2") as caught:
        worker._subject("canary7731", {"key_formats": ["phone", "name"]})
    assert "canary" not in str(caught.value)
