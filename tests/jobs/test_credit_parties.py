"""The two parties: real records, made-up people, and no way to see who is who."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from jobs.credit_score.columns import BANK, BANK_FEATURES, DEFAULT, ID, LABEL, OPERATOR, OPERATOR_FEATURES
from jobs.credit_score.split import make_parties, read_source
from sandbox.catalog.formats import KeyFormat, spell
from sandbox.catalog.intake import read_table
from sandbox.catalog.schema import read_schema

SHARED = 7886  # 80 % of 9 857


@pytest.fixture(scope="module")
def parties():
    return make_parties(1)


@pytest.fixture(scope="module")
def places(parties):
    """Where the operator has each of the bank's customers; null where it does not."""
    return pc.index_in(parties.bank[ID], value_set=parties.operator[ID].combine_chunks()).combine_chunks()


def test_sizes_and_overlap(parties, places):
    assert parties.bank.num_rows == 9857
    assert parties.operator.num_rows == 60_000
    assert len(places.drop_null()) == SHARED
    assert (parties.operator_source >= 0).sum() == SHARED


@pytest.mark.parametrize("side", ["bank", "operator"])
def test_ids_are_valid_unique_and_nobodys(parties, side):
    ids = getattr(parties, side)[ID]
    assert len(ids.unique()) == len(ids)
    assert all(spell(chunk, KeyFormat.ID_NUMBER).valid.all() for chunk in ids.chunks)
    assert pc.all(pc.starts_with(ids, "990000")).as_py()
    born = pc.strptime(pc.utf8_slice_codeunits(ids, 6, 14), format="%Y%m%d", unit="s", error_is_null=True)
    years = pc.year(born)
    assert born.null_count == 0
    assert pc.min(years).as_py() >= 1900
    assert pc.max(years).as_py() <= 2010


def test_real_records_belong_to_the_loan_of_the_same_id(parties, places):
    known = np.flatnonzero(places.is_valid().to_numpy(zero_copy_only=False))
    theirs = places.drop_null().to_numpy()
    rows = parties.bank_source[known]
    assert (parties.operator_source[theirs] == rows).all()
    source = read_source().take(pa.array(rows))
    records = parties.operator.take(pa.array(theirs))
    for name in OPERATOR_FEATURES:
        assert np.allclose(source[name].to_numpy(), records[name].cast(pa.float64()).to_numpy(), rtol=0, atol=1e-9)


def test_the_bank_holds_every_loan_unchanged(parties):
    assert sorted(parties.bank_source) == list(range(9857))
    source = read_source().take(pa.array(parties.bank_source))
    for name in BANK_FEATURES:
        if pa.types.is_decimal(parties.bank[name].type):
            cents = [round(100 * value) for value in source[name].to_pylist()]
            assert [int(100 * value) for value in parties.bank[name].to_pylist()] == cents
        else:
            assert parties.bank[name].equals(source[name])
    assert (parties.bank[DEFAULT].to_numpy() == (source[LABEL].to_numpy() == "bad")).all()
    assert parties.bank[DEFAULT].to_numpy().sum() == 517


def test_orders_are_unrelated(parties, places):
    theirs = places.drop_null().to_numpy()
    for order in (theirs, parties.bank_source, parties.operator_source[parties.operator_source >= 0]):
        # The ranks of two unrelated orders of n things correlate by about 1 / sqrt(n).
        assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 5 / np.sqrt(len(order))
    tenth = np.bincount(theirs // 6000, minlength=10)
    assert (abs(tenth - SHARED / 10) < 5 * np.sqrt(SHARED / 10)).all()


def test_filler_is_plausible_and_no_copy(parties):
    source = read_source()
    filler = parties.operator.filter(pa.array(parties.operator_source < 0))
    assert filler.num_rows == 52_114
    for name in OPERATOR_FEATURES:
        real, made = source[name].to_numpy(), filler[name].cast(pa.float64()).to_numpy()
        assert made.min() >= 0
        assert made.max() <= real.max()
        assert abs(np.median(made) - np.median(real)) <= 0.05 * np.median(real) + 1e-9
        assert abs((made > 0).mean() - (real > 0).mean()) < 0.1
    assert pc.all(pc.less_equal(filler["open_il_12m"], filler["open_il_24m"])).as_py()
    assert pc.all(pc.less_equal(filler["open_il_6m"], filler["num_il_tl"])).as_py()
    records = set(zip(*(source[name].to_pylist() for name in ("total_bal_il", "all_util", "revol_util")), strict=True))
    made_up = zip(
        filler["total_bal_il"].to_pylist(),
        filler["all_util"].to_pylist(),
        map(float, filler["revol_util"].to_pylist()),
        strict=True,
    )
    assert sum(record in records for record in made_up) < 0.1 * filler.num_rows


def test_a_seed_fixes_the_parties(parties):
    again, other = make_parties(1), make_parties(2)
    assert again.bank.equals(parties.bank)
    assert again.operator.equals(parties.operator)
    assert set(other.bank[ID].to_pylist()) != set(parties.bank[ID].to_pylist())
    assert not other.operator.equals(parties.operator)


def test_files_are_what_the_schemas_say(parties, tmp_path):
    parties.write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bank.parquet", "bank.schema.json", "operator.parquet", "operator.schema.json",
    ]  # fmt: skip
    for name, table, schema in (("bank", parties.bank, BANK), ("operator", parties.operator, OPERATOR)):
        assert read_schema(tmp_path / f"{name}.schema.json") == schema
        written = pq.read_table(tmp_path / f"{name}.parquet")
        assert written.equals(table)
        assert written.schema.equals(schema.arrow())  # and so no column that says who is real
        taken = read_table(tmp_path / f"{name}.parquet", schema)
        assert sum(batch.num_rows for batch in taken) == table.num_rows
