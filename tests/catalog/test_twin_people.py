"""The people of twins: nobody real, the same in every house, and enough of them."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date

import numpy as np
import phonenumbers
import pyarrow as pa
import pytest
from catalog_builders import field, keyed, schema
from key_reference import plain

from sandbox.catalog.formats import KeyFormat, spell
from sandbox.catalog.ids import ASSIGNED_REGIONS, DAYS, SEQUENCES, normalise
from sandbox.catalog.registration import make_code
from sandbox.catalog.schema import FieldType, Schema, Valid
from sandbox.catalog.twin import people
from sandbox.errors import InvalidSpec

T, K = FieldType, KeyFormat
CODES = make_code("税务局", "纳税"), make_code("银行", "贷款")
CROWD = np.arange(200_000, dtype=np.int64)
FORMATS = (K.ID_NUMBER, K.PHONE, K.NAME, K.CREDIT_CODE)


def one_key(form: KeyFormat) -> Schema:
    return keyed(key=(T.STRING, form))


@pytest.mark.parametrize("form", FORMATS)
def test_keys_are_valid_in_their_one_spelling_and_different(form: KeyFormat) -> None:
    made = people.keys(one_key(form), CROWD)["key"]
    spelled = spell(made, form)
    assert spelled.valid.all()
    assert len(spelled.text.unique()) == len(CROWD)
    for value in made[:300].to_pylist():
        assert plain(value, form)[1]


def test_identity_numbers_are_of_a_region_that_is_not_in_use() -> None:
    made = people.keys(one_key(K.ID_NUMBER), CROWD)["key"].to_pylist()
    assert {number[:6] for number in made} == {"990000"}
    assert "99" not in ASSIGNED_REGIONS
    born = [date(int(number[6:10]), int(number[10:12]), int(number[12:14])) for number in made[:5000]]
    assert min(born) >= date(1950, 1, 1)
    assert max(born) <= date(2005, 12, 31)
    assert len({day.year for day in born}) == 56


def test_telephone_numbers_are_of_no_network() -> None:
    for number in people.keys(one_key(K.PHONE), CROWD[:500])["key"].to_pylist():
        parsed = phonenumbers.parse(number, "CN")
        assert phonenumbers.is_possible_number(parsed)
        assert not phonenumbers.is_valid_number(parsed)


def test_names_say_that_they_are_of_nobody() -> None:
    assert len(set(people.SURNAMES)) == len(people.SURNAMES) == 100
    assert len(set(people.GIVEN)) == len(people.GIVEN) == 22
    made = people.keys(one_key(K.NAME), CROWD[:2000])["key"].to_pylist()
    assert {name[1] for name in made} == {"某"}
    assert {name[0] for name in made} == set(people.SURNAMES)


def test_credit_codes_hold_the_code_of_an_organisation() -> None:
    for code in people.keys(one_key(K.CREDIT_CODE), CROWD[:500])["key"].to_pylist():
        assert code.startswith("91990000")
        organisation = code[8:17]
        total = sum(int(c) * w for c, w in zip(organisation[:8], (3, 7, 9, 10, 5, 8, 4, 2), strict=True))
        last = 10 if organisation[8] == "X" else int(organisation[8])
        assert (total + last) % 11 == 0


def test_nobody_shares_a_place_with_another() -> None:
    """Multiplying by a number without a common factor is one to one: it holds for all people, not for those tried."""
    for places in (DAYS * SEQUENCES, 10**8, 100 * 22**4):
        assert math.gcd(people._STEP, places) == 1
        assert places >= people.POPULATION
        assert people.POPULATION * people._STEP + people._OFFSET < 2**63
    ends = np.array([0, people.POPULATION - 1], np.int64)
    for form in FORMATS:
        assert spell(people.keys(one_key(form), ends)["key"], form).valid.all()


def test_a_person_is_the_same_in_every_twin() -> None:
    left = keyed(a=(T.STRING, K.ID_NUMBER), b=(T.STRING, K.PHONE), c=(T.STRING, K.NAME))
    right = keyed(x=(T.INTEGER, K.PHONE), y=(T.STRING, K.ID_NUMBER))
    ours, theirs = people.keys(left, CROWD[:1000]), people.keys(right, CROWD[:1000])
    assert ours["a"].equals(theirs["y"])
    assert normalise([ours["b"]], [K.PHONE]).equals(normalise([theirs["x"]], [K.PHONE]))
    assert theirs["x"].type == pa.int64()


# Who is in a twin


@pytest.mark.parametrize(("ours", "theirs"), [(30_000, 30_000), (10_000, 80_000)])
def test_two_twins_share_most_of_the_smaller_one(ours: int, theirs: int) -> None:
    left, right = (
        set(people.taken(code, rows, people.POPULATION).tolist())
        for code, rows in zip(CODES, (ours, theirs), strict=True)
    )
    assert (len(left), len(right)) == (ours, theirs)
    assert len(left & right) / min(ours, theirs) == pytest.approx(0.6, abs=0.025)


def test_three_twins_share_what_chance_leaves() -> None:
    codes = (*CODES, make_code("医保局", "参保"))
    first, second, third = (set(people.taken(code, 50_000, people.POPULATION).tolist()) for code in codes)
    assert len(first & second & third) / 50_000 == pytest.approx(0.36, abs=0.02)


def test_a_larger_twin_of_a_dataset_holds_the_smaller_one() -> None:
    small, large = (people.taken(CODES[0], rows, people.POPULATION) for rows in (1000, 5000))
    assert large[:1000].tolist() == small.tolist()


def test_when_people_run_out_those_passed_over_are_taken() -> None:
    for rows in (61, 99, 100):
        found = people.taken(CODES[0], rows, 100).tolist()
        assert len(set(found)) == rows
        assert set(found) <= set(range(100))
    whole = people.taken(CODES[0], 1_500_000, 1_500_000)
    assert np.array_equal(np.sort(whole), np.arange(1_500_000))


@pytest.mark.parametrize("rows", [0, -3, 101])
def test_more_than_there_are_or_none_are_refused(rows: int) -> None:
    with pytest.raises(InvalidSpec, match="1 to 100 rows"):
        people.taken(CODES[0], rows, 100)


def test_a_mistyped_code_is_refused() -> None:
    with pytest.raises(InvalidSpec):
        people.taken(CODES[0][:-1] + "?", 1, 100)


# Keys of several columns, and of few values


def of_few(*names: str, **valid: Valid) -> Schema:
    types = {"city": T.STRING, "day": T.DATE, "year": T.INTEGER, "id": T.STRING}
    fields = [replace(field(name, types[name]), valid=valid.get(name, Valid())) for name in names]
    return Schema(tuple(fields), names)


CITY = Valid(values=("东城", "西城", "south"))
YEARS = Valid(low="2019", high="2024")


@pytest.mark.parametrize("order", [("city", "year"), ("year", "city")])
def test_keys_of_few_values_are_counted_through(order: tuple[str, str]) -> None:
    pairs = of_few(*order, city=CITY, year=YEARS)
    assert people.room(pairs) == 18
    made = people.keys(pairs, np.arange(18))
    assert len({(a, b) for a, b in zip(*(made[name].to_pylist() for name in order), strict=True)}) == 18
    assert set(made["city"].to_pylist()) == set(CITY.values)
    assert set(made["year"].to_pylist()) == set(range(2019, 2025))


def test_beside_a_person_a_column_of_few_values_keeps_to_them() -> None:
    both = of_few("city", "id", "year", city=CITY, year=YEARS)
    assert people.room(both) == people.POPULATION
    made = people.keys(both, CROWD[:1000])
    assert len(made["id"].unique()) == 1000
    assert set(made["city"].to_pylist()) == set(CITY.values)
    assert set(made["year"].to_pylist()) == set(range(2019, 2025))


def test_days_are_a_key_as_long_as_there_are_any() -> None:
    assert people.room(of_few("day")) == 36_525
    made = people.keys(of_few("day"), np.arange(36_525))["day"]
    assert len(made.unique()) == 36_525
    for valid, low, high in (
        (Valid(low="2020-01-01", high="2020-12-31"), date(2020, 1, 1), date(2020, 12, 31)),
        (Valid(low="9999-12-01"), date(9999, 12, 1), date(9999, 12, 31)),
        (Valid(high="0001-01-05"), date(1, 1, 1), date(1, 1, 5)),
        (Valid(low="2060-01-01"), date(2060, 1, 1), date(2160, 1, 1)),
    ):
        days = of_few("day", day=valid)
        every = people.keys(days, np.arange(people.room(days)))["day"].to_pylist()
        assert (min(every), len(set(every))) == (low, len(every))
        assert max(every) <= high


@pytest.mark.parametrize(
    ("valid", "low", "high", "room"),
    [
        (Valid(), 990_000_000_000, 990_000_000_000 + people.POPULATION, people.POPULATION),
        (Valid(low="5"), 5, 5 + people.POPULATION, people.POPULATION),
        (Valid(low="-3", high="3"), -3, 3, 7),
        (Valid(high="100"), 100 - people.POPULATION, 100, people.POPULATION),
        (Valid(low="9223372036854775800"), 9223372036854775800, 9223372036854775807, 8),
        (Valid(high="-9223372036854775808"), -9223372036854775808, -9223372036854775808, 1),
    ],
)
def test_whole_numbers_keep_to_a_declared_range(valid: Valid, low: int, high: int, room: int) -> None:
    years = of_few("year", year=valid)
    assert people.room(years) == room
    every = people.keys(years, np.arange(room - min(room, 9), room))["year"].to_pylist()
    assert low <= min(every) <= max(every) <= high
    assert len(set(every)) == min(room, 9)


def test_texts_are_numbered() -> None:
    assert people.keys(schema({"id": T.STRING}), np.array([0, 17]))["id"].to_pylist() == ["x000000000", "x000000017"]
    assert len(str(people.POPULATION)) <= 9
