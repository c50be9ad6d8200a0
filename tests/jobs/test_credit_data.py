"""The committed loans are the ones that data/PROVENANCE.md describes."""

from __future__ import annotations

import hashlib
import lzma
import pickle
import re
from pathlib import Path

import pyarrow.compute as pc
import pytest

from jobs.credit_score.columns import BANK_FEATURES, LABEL, OPERATOR_FEATURES
from jobs.credit_score.convert import COLUMNS, PARQUET, read_pickle
from jobs.credit_score.split import read_source
from sandbox.crypto.sm3 import sm3
from sandbox.errors import IntegrityFailed

PROVENANCE = (PARQUET.parent / "PROVENANCE.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "digest"), [("SHA-256", lambda data: hashlib.sha256(data).hexdigest()), ("SM3", lambda d: sm3(d).hex())]
)
def test_the_file_has_the_digests_of_its_provenance(name, digest):
    stated = re.search(rf"\| {name} of `lending_club.parquet` \| `([0-9a-f]{{64}})` \|", PROVENANCE)
    assert stated and stated[1] == digest(PARQUET.read_bytes())


def test_it_holds_the_loans_and_nothing_else():
    source = read_source()
    assert source.num_rows == 9857
    assert tuple(source.schema.names) == COLUMNS
    assert (len(BANK_FEATURES), len(OPERATOR_FEATURES)) == (6, 14)
    assert not {"int_rate", "sub_grade"} & set(COLUMNS)
    assert all(column.null_count == 0 for column in source.columns)
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(source[LABEL]).to_pylist()}
    assert counts == {"good": 9340, "bad": 517}


@pytest.mark.parametrize("name", OPERATOR_FEATURES)
def test_the_ranges_are_those_of_the_provenance(name):
    row = re.search(rf"^\| `{name}` \| operator \| .* \| ([\d .]+) to ([\d .]+) \|$", PROVENANCE, re.MULTILINE)
    low, high = pc.min_max(read_source()[name]).as_py().values()
    assert row and [float(part.replace(" ", "")) for part in row.groups()] == [low, high]


class _Trap:
    """Writes a file when it is read back."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_an_unknown_pickle_is_not_opened(tmp_path):
    sprung = tmp_path / "sprung"
    bad = tmp_path / "lending_club.pkl.compress"
    bad.write_bytes(lzma.compress(pickle.dumps(_Trap(sprung))))
    with pytest.raises(IntegrityFailed):
        read_pickle(bad)
    assert not sprung.exists()
    pickle.loads(lzma.decompress(bad.read_bytes()))  # the trap does work
    assert sprung.exists()
