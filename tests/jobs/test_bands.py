"""Columns in bands: what an edge may be, how many rows are behind one, and what all rows of a band share."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.errors import InvalidSpec
from sandbox.kinds import card
from sandbox.kinds.bands import BANDS, EVERYTHING, MISSING, Bands, fit_bands
from sandbox.kinds.categories import REST, Evidence, Indicators
from sandbox.kinds.features import Banding, Encoder, fit
from sandbox.model import Dimension

shapes = st.sampled_from(["normal", "skewed", "counts", "years", "few", "shares"])


def draw(shape: str, seed: int, rows: int = 400) -> np.ndarray:
    random = np.random.default_rng(seed)
    values: Any = {
        "normal": lambda: random.normal(0, 50, rows),
        "skewed": lambda: np.exp(random.normal(10, 2, rows)),
        "counts": lambda: random.poisson(0.4, rows),
        "years": lambda: random.integers(2010, 2021, rows),
        "few": lambda: (random.random(rows) < 0.03).astype(np.int64),
        "shares": lambda: random.beta(1, 30, rows),
    }[shape]()
    return values


def column(values: Any) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values)])


@settings(max_examples=60, deadline=None)
@given(shape=shapes, seed=st.integers(0, 500), least=st.integers(1, 120))
def test_every_band_has_enough_rows_and_edges_are_round(shape: str, seed: int, least: int) -> None:
    values = draw(shape, seed)
    bands = fit_bands("n", column(values), least, None)
    rows = np.bincount(bands.places(column(values)), minlength=len(bands.labels()))
    assert len(bands.labels()) <= BANDS + 1
    assert rows[-1] == 0 and rows.sum() == len(values)
    assert len(bands.edges) == 0 or rows[:-1].min() >= least
    low, high = np.quantile(values, (0.05, 0.95))
    for edge in bands.edges:
        exact = Decimal(edge).scaleb(-bands.places_after_point)
        units = [Decimal(10) ** (exact.copy_abs().logb() - 1)] if exact else [Decimal(1)]
        units += [Decimal(10) ** (Decimal(float(high - low)).logb() - 1)] if high > low else []
        assert any(exact % unit == 0 for unit in units)


@settings(max_examples=30, deadline=None)
@given(shape=shapes, seed=st.integers(0, 500))
def test_features_are_ridits_in_order_and_standardised(shape: str, seed: int) -> None:
    values = draw(shape, seed)
    bands = fit_bands("n", column(values), 20, None)
    assert list(bands.values) == sorted(bands.values)
    features = bands.rows()[bands.places(column(values)), 0]
    if bands.edges:
        assert abs(features.mean()) < 1e-9 and abs(features.std() - 1) < 1e-9
    else:
        assert not features.any()


def test_edges_by_hand() -> None:
    hundred = column(np.arange(101, 201))  # fifths begin at 121, 141, 161 and 181
    bands = fit_bands("n", hundred, 10, None)
    assert (bands.edges, bands.places_after_point) == ((121, 141, 161, 181), 0)  # the spread is 89: units of 1
    assert fit_bands("n", hundred, 40, None).edges == (141,)
    assert fit_bands("n", hundred, 41, None).edges == ()
    wide = fit_bands("n", column(np.arange(101, 201) * 1000 + 7), 10, None)
    assert wide.edges == (121_000, 141_000, 161_000, 181_000)
    assert wide.labels() == (
        "below 121000", "121000 to below 141000", "141000 to below 161000", "161000 to below 181000",
        "181000 and above", MISSING,
    )  # fmt: skip
    assert fit_bands("n", column([5] * 50), 10, None).labels() == (EVERYTHING, MISSING)


def test_decimals_keep_their_places_and_integers_have_none() -> None:
    money = pa.chunked_array([pa.array([Decimal(n) / 100 for n in range(1, 101)], pa.decimal128(5, 2))])
    bands = fit_bands("n", money, 10, None)
    assert bands.places_after_point <= 2
    assert bands.labels()[0] == "below 0.21"
    assert bands.places(money).tolist()[:21] == [0] * 20 + [1]  # 0.21 itself is not below it
    assert fit_bands("n", column(draw("counts", 1)), 10, None).places_after_point == 0


def test_edges_of_the_scenario_are_taken_and_thinned_out() -> None:
    declared = Dimension("band", "n", (), (2, 1100, 1500, 1501), 1)
    bands = fit_bands("n", column(np.arange(101, 201)), 10, declared)
    assert (bands.edges, bands.places_after_point) == ((1500,), 1)
    assert bands.labels() == ("below 150.0", "150.0 and above", MISSING)


def test_only_training_rows_and_no_labels_make_edges() -> None:
    train = np.arange(400) % 4 != 0
    table = pa.table({"n": draw("normal", 1), "c": np.where(np.arange(400) % 3 == 0, "a", "b").tolist()})
    wild = np.where(train, table["n"].to_numpy(), 1e6)
    labels = np.random.default_rng(1).random(400) < 0.3
    one = fit(table, ("n",), train, labels, banding=Banding(10))
    two = fit(pa.table({"n": wild}), ("n",), train, ~labels, banding=Banding(10))
    assert one == two == fit(table, ("n",), train, None, banding=Banding(10))


def people(rows: int = 600) -> tuple[pa.Table, np.ndarray]:
    random = np.random.default_rng(3)
    table = pa.table(
        {
            "income": pa.array(np.exp(random.normal(10, 1, rows)), mask=random.random(rows) < 0.02),
            "late": pa.array(random.poisson(0.4, rows)),
            "state": random.choice(["N", "S", "E", "W"], rows, p=[0.5, 0.3, 0.17, 0.03]).tolist(),
            "flat": pa.array(np.ones(rows)),
        }
    )
    return table, random.random(rows) < 0.2


@pytest.mark.parametrize("held", [True, False])
def test_rows_of_a_band_have_the_same_features_and_the_rest_is_neutral(held: bool) -> None:
    table, labels = people()
    encoder = fit(table, table.column_names, np.ones(600, bool), labels if held else None, banding=Banding(10))
    features, places = encoder.transform(table), encoder.places(table)
    start = 0
    for part, place in zip(encoder.banded(), places, strict=True):
        rows = part.rows()
        assert np.array_equal(features[:, start : start + rows.shape[1]], rows[place].astype(np.float32))
        assert not rows[-1].any()
        start += rows.shape[1]
    assert start == features.shape[1]
    income, _, state, flat = encoder.banded()
    assert (places[0][np.isnan(table["income"].to_numpy())] == len(income.labels()) - 1).all()
    assert isinstance(state, Evidence if held else Indicators)
    assert state.labels() == ("N", "S", "E", REST)  # W has less than a twentieth
    assert not flat.rows().any()
    again = Encoder.from_json(encoder.to_json())
    assert again == encoder and np.array_equal(again.transform(table), features)


def test_a_stricter_minimum_makes_fewer_levels_and_bands() -> None:
    table, _ = people()
    encoder = fit(table, ("late", "state"), np.ones(600, bool), None, banding=Banding(150))
    assert [len(part.labels()) for part in encoder.banded()] == [3, 3]


def test_an_encoder_of_numbers_has_no_bands() -> None:
    table, _ = people()
    encoder = fit(table, ("late", "state"), np.ones(600, bool), None)
    for ask in (encoder.banded, lambda: encoder.places(table)):
        with pytest.raises(InvalidSpec):
            ask()


@pytest.mark.parametrize(
    "fields",
    [
        ("n", (2, 1), 0, (0.0, 0.0, 0.0)),
        ("n", (1,), 0, (0.0,)),
        ("n", (1,), -1, (0.0, 1.0)),
        ("n", (1.5,), 0, (0.0, 1.0)),
        ("n", (1,), 0, (0.0, float("nan"))),
        ("n", [1], 0, (0.0, 1.0)),
        (3, (1,), 0, (0.0, 1.0)),
    ],
)
def test_malformed_bands_are_refused(fields: Any) -> None:
    with pytest.raises(InvalidSpec):
        Bands(*fields)


@pytest.mark.parametrize("held", [True, False])
def test_gate_inputs_count_what_is_behind_every_coefficient(held: bool) -> None:
    table, labels = people()
    encoder = fit(table, table.column_names, np.ones(600, bool), labels if held else None, banding=Banding(10))
    inputs = card.gate_inputs(encoder, table, labels if held else None, coefficients=9)
    assert inputs["freedom"] == 591
    behind: list[int] = []
    rarer: list[int] = []
    for part, place in list(zip(encoder.banded(), encoder.places(table), strict=True))[:3]:  # the flat one has none
        for band in range(len(part.labels()) - 1):
            members = place == band
            behind.append(int(min(members.sum(), (~members).sum())))
            rarer.append(int(min(labels[members].sum(), (~labels[members]).sum())))
    assert [count for name, count in inputs.items() if name.startswith("coefficient.")] == behind
    assert [count for name, count in inputs.items() if name.startswith("label.")] == (rarer if held else [])
    assert min(behind) >= 30
