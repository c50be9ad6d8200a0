"""Generated rows of the examples: the same for the same seed, marked as generated, and nobody's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest

from jobs.intersections import generate as intersections
from jobs.joint_totals import generate as joint_totals
from sandbox.catalog.formats import KeyFormat, spell
from sandbox.catalog.ids import SEPARATOR, normalise
from sandbox.catalog.intake import read_table
from sandbox.catalog.schema import read_schema

EXAMPLES = {
    "joint_totals": (joint_totals.main, tuple(joint_totals.DEPARTMENTS)),
    "intersections": (intersections.main, tuple(intersections.SCHEMAS)),
}


@pytest.fixture(scope="module", params=EXAMPLES)
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...]]:
    main, owners = EXAMPLES[request.param]
    folder = tmp_path_factory.mktemp(request.param) / "data"
    assert main([str(folder)]) == 0
    return folder, owners


def test_nodes_take_the_files_as_they_are(example) -> None:
    folder, owners = example
    for owner in owners:
        schema = read_schema(folder / f"{owner}.schema.json")
        rows = sum(batch.num_rows for batch in read_table(folder / f"{owner}.parquet", schema))
        assert rows == len(pd.read_parquet(folder / f"{owner}.parquet")) > 100


def test_files_say_that_they_were_generated_and_under_which_licence(example) -> None:
    text = (example[0] / "PROVENANCE.md").read_text(encoding="utf-8")
    assert "Every row was generated" in text
    assert "--seed 1`" in text
    assert "Licence: Apache-2.0" in text


def test_people_are_of_a_region_that_does_not_exist_with_valid_check_digits(example) -> None:
    folder, owners = example
    for owner in owners:
        schema = read_schema(folder / f"{owner}.schema.json")
        place = schema.key_formats.index(KeyFormat.ID_NUMBER)
        for batch in read_table(folder / f"{owner}.parquet", schema):
            spelled = spell(batch.column(schema.names.index(schema.key[place])), KeyFormat.ID_NUMBER)
            assert spelled.valid.all()
            assert pc.all(pc.starts_with(spelled.text, "990000")).as_py()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_same_seed_gives_the_same_rows_and_another_gives_others(name: str, tmp_path: Path) -> None:
    main, owners = EXAMPLES[name]
    for folder, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        main([str(tmp_path / folder), "--seed", seed])
    for owner in owners:
        first, same, other = (pd.read_parquet(tmp_path / folder / f"{owner}.parquet") for folder in "abc")
        assert first.equals(same)
        assert not first.equals(other)


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    for main, _ in EXAMPLES.values():
        with pytest.raises(SystemExit):
            main([str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_every_group_of_the_totals_has_enough_rows_and_some_rows_are_in_none() -> None:
    rows = pd.concat([table.to_pandas() for table in joint_totals.generate().values()], ignore_index=True)
    named = rows[rows.district.isin(joint_totals.DISTRICTS)]
    bands = pd.cut(named.monthly_income.astype(float), [0, 5000, 10000, 1e9], right=False)
    late = pd.cut(named.months_late, [0, 1, 3, 99], right=False)
    sizes = named.groupby([named.district, bands, late], observed=False).size()
    assert len(sizes) == 4 * 3 * 3
    assert sizes.min() >= 10
    # Rows that are left out are judged as well, band by band: none, or enough.
    elsewhere = rows[~rows.district.isin(joint_totals.DISTRICTS)].monthly_income.astype(float)
    assert pd.cut(elsewhere, [0, 5000, 10000, 1e9], right=False).value_counts().min() >= 10
    assert len(elsewhere) < len(rows) / 50
    # Rows of a group without the measured value are judged too.
    unknown = named.paid.isna().groupby([named.district, bands], observed=False).sum()
    assert len(unknown) == 4 * 3
    assert unknown.min() >= 10


def test_lists_share_whom_they_should_although_each_writes_them_differently() -> None:
    people = intersections.generate()
    keys, written = {}, {}
    for owner, table in people.tables.items():
        schema = intersections.SCHEMAS[owner]
        columns = [table[name] for name in schema.key]
        keys[owner] = normalise(columns, schema.key_formats).to_pylist()
        written[owner] = {SEPARATOR.join(parts) for parts in zip(*(c.to_pylist() for c in columns), strict=True)}
        assert len(set(keys[owner])) == len(keys[owner])
    bank, operator, register = (set(keys[owner]) for owner in ("bank", "operator", "register"))
    assert len(bank & operator) == intersections.SHARED
    assert len(bank & operator & register) == intersections.AGREED
    assert not written["bank"] & written["operator"]
    assert not written["register"] & written["operator"]
    who = {owner: dict(zip(keys[owner], people.who[owner].tolist(), strict=True)) for owner in keys}
    assert all(who["bank"][key] == who["operator"][key] for key in bank & operator)
    assert all(who["register"][key] == who["operator"][key] for key in register & operator)
    order = people.who["operator"]
    assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 5 / np.sqrt(len(order))
