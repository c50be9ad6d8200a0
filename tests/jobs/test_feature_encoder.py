"""Laws of the feature encoder: what it learns from, what it forgets, what it survives."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.errors import InvalidSpec
from sandbox.kinds.categories import MAX_INDICATORS, SHRINK
from sandbox.kinds.features import Encoder, fit

CANARY = "canary-7319"
ROWS = 400
COLUMNS = ("income", "balance", "state", "member")


def table(seed: int = 0, rows: int = ROWS) -> pa.Table:
    random = np.random.default_rng(seed)
    return pa.table(
        {
            "income": pa.array(np.exp(random.normal(10, 1, rows))),
            "balance": pa.array(random.integers(-500, 500, rows), mask=random.random(rows) < 0.1),
            "state": pa.array(random.choice(["N", "S", "E", "W"], rows, p=[0.5, 0.3, 0.19, 0.01]).tolist()),
            "member": pa.array(random.random(rows) < 0.3),
        }
    )


def labels(seed: int = 0, rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(seed + 100).random(rows) < 0.2


TRAIN = np.arange(ROWS) % 5 != 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), held_labels=st.booleans())
def test_only_training_rows_are_read(seed, held_labels):
    clean = table()
    y = labels()
    wild = table(seed)
    spoiled = pa.table({name: _pick(clean, wild, name) for name in COLUMNS})
    other = np.where(TRAIN, y, ~y)
    assert fit(clean, COLUMNS, TRAIN, y if held_labels else None) == fit(
        spoiled, COLUMNS, TRAIN, other if held_labels else None
    )


def _pick(clean: pa.Table, wild: pa.Table, name: str) -> pa.Array:
    """The training rows of the one table, all others from the other."""
    both = pa.concat_arrays([clean[name].combine_chunks(), wild[name].combine_chunks()])
    rows = np.arange(ROWS) + np.where(TRAIN, 0, ROWS)
    return both.take(pa.array(rows))


def test_training_rows_do_matter():
    y = labels()
    assert fit(table(), COLUMNS, TRAIN, y) != fit(table(), COLUMNS, ~TRAIN, y)
    assert fit(table(), COLUMNS, TRAIN, y) != fit(table(), COLUMNS, TRAIN, np.where(TRAIN, ~y, y))


@pytest.mark.parametrize("held", [True, False])
def test_features_are_standardised_on_training_rows(held):
    encoder = fit(table(), COLUMNS, TRAIN, labels() if held else None)
    features = encoder.transform(table())[TRAIN]
    assert features.dtype == np.float32
    assert features.shape == (TRAIN.sum(), len(encoder.names()))
    known = features[np.array(table()["state"].to_pylist())[TRAIN] != "W"]  # W is too rare, so not of the mean
    assert np.abs(features[:, :2].mean(0)).max() < 0.06  # missing values have moved it a little
    assert np.abs(known[:, 2:].mean(0)).max() < 0.02
    assert np.abs(known.std(0) - 1).max() < 0.1


@pytest.mark.parametrize("held", [True, False])
def test_json_round_trip(held):
    encoder = fit(table(), COLUMNS, TRAIN, labels() if held else None)
    again = Encoder.from_json(encoder.to_json())
    assert again == encoder
    assert again.columns() == COLUMNS
    assert np.array_equal(again.transform(table(9)), encoder.transform(table(9)))
    assert again.to_json() == encoder.to_json()


@settings(max_examples=20, deadline=None)
@given(row=st.integers(0, ROWS - 1))
def test_one_applicant_scores_as_in_the_batch(row):
    encoder = fit(table(), COLUMNS, TRAIN, labels())
    whole = encoder.transform(table(3))
    assert np.array_equal(encoder.transform(table(3).slice(row, 1))[0], whole[row])


def test_names_say_level_where_there_are_several():
    assert fit(table(), COLUMNS, TRAIN, labels()).names() == COLUMNS
    names = fit(table(), ("balance", "state"), TRAIN, None).names()
    assert names == ("balance", "state=N", "state=S", "state=E")


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("value", [None, CANARY, "W"])
def test_missing_unseen_and_rare_categories_are_neutral(held, value):
    encoder = fit(table(), ("state",), TRAIN, labels() if held else None)
    assert (encoder.transform(pa.table({"state": pa.array([value], pa.string())})) == 0).all()
    assert (encoder.transform(pa.table({"state": ["N"]})) != 0).any()


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_missing_number_counts_as_the_median(value):
    values = np.array([1.0, 2.0, 3.0, 4.0, 90.0])
    encoder = fit(pa.table({"n": values}), ("n",), np.ones(5, dtype=bool), None)
    asked = encoder.transform(pa.table({"n": pa.array([value, 3.0], pa.float64())}))
    assert asked[0] == asked[1]


@pytest.mark.parametrize(("value", "edge"), [(float("inf"), 99.5), (1e300, 99.5), (-1e300, 0.5), (float("-inf"), 0.5)])
def test_extreme_numbers_are_clipped(value, edge):
    values = np.arange(1001) / 10 - 3
    encoder = fit(pa.table({"n": values}), ("n",), np.ones(1001, dtype=bool), None)
    asked = encoder.transform(pa.table({"n": [value, edge - 3]}))
    assert asked[0] == pytest.approx(asked[1], abs=1e-6)
    assert abs(asked[0]) < 2


def test_logarithm_only_where_it_helps_or_is_asked_for():
    random = np.random.default_rng(1)
    columns = {
        "skewed": np.exp(random.normal(0, 2, 500)),
        "even": random.random(500),
        "signed": -np.exp(random.normal(0, 2, 500)),
    }
    data, train = pa.table(columns), np.ones(500, dtype=bool)
    assert [part.log for part in fit(data, list(columns), train, None).parts] == [True, False, False]
    assert [part.log for part in fit(data, list(columns), train, None, log=["even"]).parts] == [False, True, False]


def test_weight_of_evidence_is_what_the_book_says():
    state = ["N"] * 60 + ["S"] * 40
    bad = np.array([True] * 6 + [False] * 54 + [True] * 14 + [False] * 26)
    encoder = fit(pa.table({"s": state}), ("s",), np.ones(100, dtype=bool), bad)
    shrunk = {"N": (6 + SHRINK * 0.2) / (60 + SHRINK), "S": (14 + SHRINK * 0.2) / (40 + SHRINK)}
    evidence = {level: np.log(rate / (1 - rate)) - np.log(0.2 / 0.8) for level, rate in shrunk.items()}
    column = np.array([evidence[level] for level in state])
    expected = (column - column.mean()) / column.std()
    assert np.allclose(encoder.transform(pa.table({"s": state}))[:, 0], expected, atol=1e-6)
    assert encoder.transform(pa.table({"s": ["S"]}))[0, 0] > 0  # more defaults, higher


def test_indicators_are_capped():
    levels = [f"level{number:02d}" for number in range(20) for _ in range(12 + number)]
    encoder = fit(pa.table({"s": levels}), ("s",), np.ones(len(levels), dtype=bool), None)
    assert encoder.names() == tuple(f"s=level{number}" for number in range(19, 19 - MAX_INDICATORS, -1))


def test_columns_that_never_vary_are_zero():
    data = pa.table({"n": [7] * 50, "s": ["a"] * 50})
    bad = np.arange(50) % 2 == 0
    asked = pa.table({"n": [7, 8, None], "s": ["a", "b", None]})
    assert (fit(data, ("n", "s"), np.ones(50, dtype=bool), bad).transform(asked) == 0).all()
    assert (fit(data, ("n", "s"), np.ones(50, dtype=bool), None).transform(asked) == 0).all()


def test_the_type_of_storage_makes_no_difference():
    floats = table()
    others = pa.table(
        {
            "income": pa.array(
                [Decimal(f"{value:.10f}") for value in floats["income"].to_pylist()], pa.decimal128(38, 10)
            ),
            "balance": floats["balance"].cast(pa.int32()),
            "state": floats["state"].dictionary_encode(),
            "member": floats["member"],
        }
    )
    encoder = fit(floats, COLUMNS, TRAIN, labels())
    assert np.allclose(encoder.transform(others), encoder.transform(floats), atol=1e-5)
    assert fit(others, COLUMNS, TRAIN, labels()).names() == encoder.names()


@pytest.mark.parametrize(
    ("columns", "train", "y"),
    [
        ((), TRAIN, labels()),
        (("income", "income"), TRAIN, labels()),
        (("absent",), TRAIN, labels()),
        (("income",), TRAIN[:-1], labels()),
        (("income",), TRAIN.astype(int), labels()),
        (("income",), np.zeros(ROWS, dtype=bool), labels()),
        (("income",), TRAIN, labels()[:-1]),
        (("income",), TRAIN, np.zeros(ROWS)),
        (("income",), TRAIN, np.full(ROWS, 2)),
        (("day",), TRAIN, labels()),
        (("empty",), TRAIN, labels()),
        (("many",), TRAIN, None),
    ],
)
def test_refusals_name_no_value(columns, train, y):
    data = table()
    data = data.append_column("day", pa.array([date(2020, 1, 1)] * ROWS))
    data = data.append_column("empty", pa.nulls(ROWS, pa.float64()))
    data = data.append_column("many", pa.array([f"{CANARY}-{row}" for row in range(ROWS)]))
    with pytest.raises(InvalidSpec) as caught:
        fit(data, columns, train, y)
    assert CANARY not in str(caught.value)


def test_a_table_of_other_types_is_refused():
    encoder = fit(table(), COLUMNS, TRAIN, labels())
    for name, column in (("income", pa.array([CANARY])), ("state", pa.array([7]))):
        row = table().slice(0, 1)
        row = row.set_column(row.schema.get_field_index(name), name, column)
        with pytest.raises(InvalidSpec) as caught:
            encoder.transform(row)
        assert CANARY not in str(caught.value)
    with pytest.raises(InvalidSpec):
        encoder.transform(table().drop_columns(["state"]))


def _changed(**members: object) -> str:
    tree = json.loads(fit(table(), ("income",), TRAIN, None).to_json())
    tree["parts"][0].update(members)
    return json.dumps(tree)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "null", "[" * 100_000, '{"encoder": 1, "parts": []}', '{"encoder": 2, "parts": [{}]}',
        '{"encoder": 1, "parts": [{}]}', '{"encoder": 1, "parts": [7]}', '{"encoder": 1, "parts": 7}',
        _changed(kind="Encoder"), _changed(kind="os"), _changed(scale=0.0), _changed(scale=float("nan")),
        _changed(mean=float("inf")), _changed(mean="0"), _changed(log=1), _changed(column=7), _changed(more=1),
        _changed(low=5.0, high=4.0), _changed(fill=None),
        '{"encoder": 1, "parts": [{"kind": "Evidence", "column": "s", "levels": ["a", "a"], "weights": [0.0, 1.0]}]}',
        '{"encoder": 1, "parts": [{"kind": "Evidence", "column": "s", "levels": ["a"], "weights": [0.0, 1.0]}]}',
        '{"encoder": 1, "parts": [{"kind": "Evidence", "column": "s", "levels": "a", "weights": [0.0]}]}',
        '{"encoder": 1, "parts": [{"kind": "Evidence", "column": "s", "levels": [["a"]], "weights": [0.0]}]}',
        '{"encoder": 1, "parts": [{"kind": "Indicators", "column": "s", "levels": ["a"], "shares": [1.5]}]}',
        '{"encoder": 1, "parts": [{"kind": "Indicators", "column": "s", "levels": ["a"], "shares": [0.0]}]}',
    ],
)  # fmt: skip
def test_malformed_text_is_refused(text):
    with pytest.raises(InvalidSpec):
        Encoder.from_json(text)
