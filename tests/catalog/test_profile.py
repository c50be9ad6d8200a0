"""The quality profile: right figures, and none that a few rows decide."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from catalog_builders import EVERY_TYPE, batch, field, keyed, schema
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.catalog.formats import KeyFormat, WhenInvalid
from sandbox.catalog.ids import made_up_ids
from sandbox.catalog.intake import read_table
from sandbox.catalog.profile import (
    BELOW_TEN,
    MAX_BYTES,
    TOO_FEW,
    ColumnProfile,
    Profile,
    Profiler,
    profiled,
    rounded,
    share,
)
from sandbox.catalog.profile_columns import K
from sandbox.catalog.profile_page import WORDS, page
from sandbox.catalog.schema import ARROW, MAX_FIELDS, FieldType, Schema, Valid
from sandbox.errors import InvalidSpec

CANARY = "canary7731"
NO_RULE = Valid()


def column(
    type_: FieldType, values: Sequence[Any] | pa.Array, valid: Valid = NO_RULE, pieces: int = 1
) -> ColumnProfile:
    """Profile one column beside a key."""
    of = Schema((field("id", FieldType.INTEGER), replace(field("v", type_), valid=valid)), ("id",))
    values = values if isinstance(values, pa.Array) else pa.array(values, ARROW[type_])
    whole = pa.RecordBatch.from_arrays([pa.array(range(len(values)), pa.int64()), values], schema=of.arrow())
    profiler = Profiler(of)
    for part in np.array_split(np.arange(len(values)), pieces):
        profiler.add(whole.slice(int(part[0]), len(part)) if len(part) else whole.slice(0, 0))
    return profiler.done().columns[1]


# Figures


def test_a_known_table_has_known_figures(tmp_path: Path) -> None:
    of = Schema(
        (
            replace(field("id"), format=KeyFormat.ID_NUMBER, invalid=WhenInvalid.KEEP),
            replace(field("kind"), valid=Valid(values=("甲", "乙"))),
            replace(field("income", FieldType.DECIMAL), valid=Valid(low="0", high="99.5")),
            field("active", FieldType.BOOLEAN),
            field("since", FieldType.DATE),
        ),
        ("id",),
    )
    ids = [*made_up_ids(900, seed=1).to_pylist(), *(f"passport{n}" for n in range(100))]
    lines = [
        f"{one},{'甲乙丙'[n % 3]},{n % 200 if n % 4 else ''},{n % 2},2020-01-{n % 20 + 1:02}"
        for n, one in enumerate(ids)
    ]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["id,kind,income,active,since", *lines]))
    profiler = Profiler(of, "since")
    assert sum(one.num_rows for one in profiled(read_table(path, of, 300), profiler)) == 1000
    found = profiler.done(None, 30)
    assert found == Profile(
        rows=1000,
        key=("id",),
        columns=(
            ColumnProfile("id", 1000, None, 900, None),
            ColumnProfile("kind", 1000, 670, None, BELOW_TEN),  # 667 of 1000: 333 fall short, counted as 330
            ColumnProfile("income", 750, 507, None, 150),  # 375 of 750 are above 99: counted as 370
            ColumnProfile("active", 1000, None, None, BELOW_TEN),
            ColumnProfile("since", 1000, None, None, 20),
        ),
        as_of=date(2020, 1, 20),
        update_days=30,
    )
    assert found.due == date(2020, 2, 19)


def test_batches_do_not_matter() -> None:
    values = [None if n % 7 == 0 else f"v{n % 150}" for n in range(5000)]
    rule = Valid(pattern="v[0-9]{2}")
    assert column(FieldType.STRING, values, rule) == column(FieldType.STRING, values, rule, pieces=37)
    assert column(FieldType.STRING, values, rule).valid == share(
        sum(1 for one in values if one and len(one) == 3), sum(1 for one in values if one)
    )


RULES: list[tuple[FieldType, Valid, list[Any], list[Any]]] = [
    (FieldType.INTEGER, Valid(low="0.5", high="2.5"), [1, 2], [0, 3, -(2**63), 2**63 - 1]),
    (FieldType.INTEGER, Valid(low="-1e30", high="1e30"), [-(2**63), 0, 2**63 - 1], []),
    (FieldType.INTEGER, Valid(low="1e30"), [], [0, 2**63 - 1]),
    (FieldType.INTEGER, Valid(high="-1e30"), [], [0, -(2**63)]),
    (FieldType.DECIMAL, Valid(low="0.00000000005"), [Decimal("0.0000000001")], [Decimal(0)]),
    (FieldType.DECIMAL, Valid(high="0.00000000005"), [Decimal(0)], [Decimal("0.0000000001")]),
    (FieldType.DECIMAL, Valid(high="1e999999"), [Decimal(10**27)], []),
    (FieldType.DECIMAL, Valid(low="1e28"), [], [Decimal("9" * 28)]),
    (
        FieldType.DATE,
        Valid(low="2020-01-01", high="20200131"),
        [date(2020, 1, 1), date(2020, 1, 31)],
        [date(2020, 2, 1)],
    ),
    (FieldType.STRING, Valid(values=("a", "b")), ["a", "b"], ["", "A", "ab", "c"]),
    (FieldType.STRING, Valid(pattern="a|bb"), ["a", "bb"], ["ab", "b", "abb", "xa", "a\n", "\na", ""]),
    (FieldType.STRING, Valid(pattern="(?i)张.", values=("张A", "李a")), ["张A"], ["张a", "李a"]),
]


@pytest.mark.parametrize(("type_", "rule", "good", "bad"), RULES, ids=range(len(RULES)))
@pytest.mark.parametrize("repeats", [True, False])
def test_a_rule_says_what_is_valid(
    type_: FieldType, rule: Valid, good: list[Any], bad: list[Any], repeats: bool
) -> None:
    """Each value a hundred times, by itself beside missing ones: all of it is valid, or none."""
    for value, expected in [*((one, 1000) for one in good), *((one, 0) for one in bad)]:
        many = [value] * 100 if repeats else [value, None] * 100
        assert column(type_, many, rule, pieces=1 if repeats else 50).valid == expected


def test_a_pattern_that_swallows_what_follows_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="pattern"):
        Profiler(Schema((replace(field("id"), valid=Valid(pattern=r"\Qab")),), ("id",)))


VARIED: dict[FieldType, Any] = {
    FieldType.STRING: lambda n: pa.array([f"名{i}" for i in range(n)]),
    FieldType.INTEGER: lambda n: pa.array(np.arange(n) - n // 2),
    FieldType.DECIMAL: lambda n: pa.array(np.arange(n)).cast(ARROW[FieldType.DECIMAL]),
    FieldType.DATE: lambda n: pa.array(np.arange(n, dtype=np.int32) - n // 2).cast(pa.date32()),
}


@pytest.mark.parametrize("type_", VARIED)
@pytest.mark.parametrize("count", [30, K - 1, 20_000, 100_000])
def test_different_values_are_counted_about_right(type_: FieldType, count: int) -> None:
    """2.2 % is the standard error of K = 2048: a seventh of what this allows, rounding aside."""
    once = VARIED[type_](count)
    found = column(type_, pa.concat_arrays([once, once.slice(count // 2), once.slice(0, 7)]), pieces=3).distinct
    assert found is not None
    exact = count < K
    assert abs(found - count) <= (5 if count < 1000 else 50 if exact else 0.16 * count)


def test_the_high_half_of_a_decimal_counts() -> None:
    values = [Decimal(n) * 2**64 / 10**10 for n in range(500)]  # the low 64 bits are the same in all
    assert column(FieldType.DECIMAL, values).distinct == 500


def test_slices_and_missing_values_are_seen_as_they_are() -> None:
    whole = batch()
    some = pa.concat_batches([whole] * 50)
    for one in (some, some.slice(3, 160)):
        profiler = Profiler(EVERY_TYPE)
        profiler.add(one)
        found = {entry.name: entry for entry in profiler.done().columns}
        assert found["id"].distinct is None and found["income"].distinct == BELOW_TEN
        for name in ("姓名", "income", "orders", "active", "since"):
            assert found[name].complete == share(one.num_rows - one.column(name).null_count, one.num_rows)


def test_keys_that_intake_refuses_otherwise_are_all_what_they_say() -> None:
    of = keyed(id=(FieldType.STRING, KeyFormat.ID_NUMBER), tel=(FieldType.STRING, KeyFormat.PHONE, WhenInvalid.KEEP))
    ids, tels = made_up_ids(100, 1), pa.array(["13800138000"] * 60 + ["x"] * 40)
    profiler = Profiler(of)
    profiler.add(pa.RecordBatch.from_arrays([ids, tels], schema=of.arrow()))
    found = profiler.done()
    assert [one.formed for one in found.columns] == [1000, 600]
    assert [one.distinct for one in found.columns] == [100, BELOW_TEN]  # together unique, each by itself not


# What cannot be read from it


@given(st.integers(0, 3000), st.integers(0, 9), st.integers(0, 9))
def test_fewer_than_ten_rows_look_like_none(of: int, one: int, other: int) -> None:
    one, other = min(one, of), min(other, of)
    assert share(one, of) == share(other, of)
    assert share(of - one, of) == share(of - other, of)
    assert share(one, of) in (0, TOO_FEW) and share(of - one, of) in (1000, TOO_FEW)
    assert (share(one, of) == TOO_FEW) == (of < 20)


@given(st.integers(20, 10**6), st.data())
def test_a_share_is_right_but_for_ten_rows_and_rounding(of: int, data: st.DataObject) -> None:
    good = data.draw(st.integers(0, of))
    assert abs(share(good, of) - 1000 * good / of) <= 0.5 + 9000 / of
    assert share(max(good - 1, 0), of) <= share(good, of)


@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_numbers_of_values_are_in_tens_and_not_more_than_there_are(count: int, more: int) -> None:
    found = rounded(count, count + more)
    assert found == (TOO_FEW if count + more < 20 else found)
    if found not in (TOO_FEW, BELOW_TEN):
        assert found % 10 == 0 and found <= count + more and len(str(found).rstrip("0")) <= 2 + (found < 1000)
        assert abs(found - count) <= max(10, count // 10)


@settings(max_examples=40, deadline=None)
@given(st.integers(20, 60), st.integers(1, 9), st.sampled_from(list(FieldType)))
def test_a_few_odd_rows_change_nothing(rows: int, odd: int, type_: FieldType) -> None:
    """Whatever stands in fewer than ten rows, missing, invalid, extreme, the profile is the same."""
    usual: dict[FieldType, tuple[Any, Any]] = {
        FieldType.STRING: ("a", CANARY),
        FieldType.INTEGER: (1, 77317731),
        FieldType.DECIMAL: (Decimal(1), Decimal("7731.7731")),
        FieldType.BOOLEAN: (True, False),
        FieldType.DATE: (date(2020, 1, 1), date(2077, 3, 1)),
    }
    rule = {
        FieldType.STRING: Valid(values=("a",)),
        FieldType.DATE: Valid(high="2030-01-01"),
        FieldType.BOOLEAN: Valid(),
    }.get(type_, Valid(high="5"))
    common, rare = usual[type_]
    plain = column(type_, [common] * (rows + 20), rule)
    for other in (rare, None):
        assert column(type_, [common] * (rows + 20 - odd) + [other] * odd, rule) == plain


def test_no_value_of_a_row_is_in_a_profile() -> None:
    rows = 3000
    values: dict[str, Any] = {
        "id": [f"{CANARY}{n}" for n in range(rows)],
        "text": [f"{CANARY}-{n % 5}" for n in range(rows)],
        "number": [77310000 + n for n in range(rows)],
        "amount": [Decimal(773177) + n for n in range(rows)],
        "day": [date(2077, 3, 1) + timedelta(days=n) for n in range(rows)],
    }
    of = schema(
        {
            "id": FieldType.STRING,
            "text": FieldType.STRING,
            "number": FieldType.INTEGER,
            "amount": FieldType.DECIMAL,
            "day": FieldType.DATE,
        }
    )
    profiler = Profiler(of, "day")
    profiler.add(batch(values, of))
    found = profiler.done(None, 1)
    text = found.to_json().decode() + page(found, "t", "en")
    assert CANARY not in text and "7731" not in text
    assert found.as_of == date(2085, 5, 1)  # a month that ten rows share: no day is


# How recent


def of_days(days: Sequence[date | None], rule: Valid = NO_RULE) -> date | None:
    of = Schema((field("id", FieldType.INTEGER), replace(field("d", FieldType.DATE), valid=rule)), ("id",))
    profiler = Profiler(of, "d")
    for begin in range(0, len(days), 17):
        some = days[begin : begin + 17]
        profiler.add(batch({"id": range(len(some)), "d": some}, of))
    return profiler.done().as_of


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        ([], None),
        ([None] * 30, None),
        ([date(2020, 5, 5)] * 9, None),
        ([date(2020, 5, 5)] * 10, date(2020, 5, 5)),
        ([date(2020, 5, 5)] * 10 + [date(2021, 1, 1)] * 9, date(2020, 5, 5)),
        ([date(2020, 5, n) for n in range(1, 12)], date(2020, 5, 1)),
        ([date(2020, n, n) for n in range(1, 12)], date(2020, 1, 1)),
        ([date(1, 1, 1)] * 10, date(1, 1, 1)),
        ([date(9999, 12, 31)] * 10, date(9999, 12, 31)),
        ([date(1960 + n, 1, 1) for n in range(30)], None),
    ],
    ids=range(10),
)
def test_the_newest_day_is_one_that_ten_rows_share(days: list[date | None], expected: date | None) -> None:
    assert of_days(days) == expected


def test_days_that_are_no_valid_ones_do_not_count() -> None:
    days = [date(2020, 5, 5)] * 10 + [date(9999, 12, 31)] * 50
    assert of_days(days) == date(9999, 12, 31)
    assert of_days(days, Valid(high="2030-01-01")) == date(2020, 5, 5)


def test_a_day_that_is_given_counts_and_says_when_the_next_version_is_due() -> None:
    profiler = Profiler(schema({"id": FieldType.STRING}))
    profiler.add(batch({"id": ["a"]}, schema({"id": FieldType.STRING})))
    assert profiler.done(date(2024, 2, 28), 2).due == date(2024, 3, 1)
    assert profiler.done(date(2024, 2, 28), 0).due is None
    assert profiler.done(None, 2).due is None
    assert profiler.done(date(9999, 12, 30), 2).due is None


def test_only_a_column_of_dates_says_the_day() -> None:
    for name in ("income", "nothing"):
        with pytest.raises(InvalidSpec, match="is not a column of dates"):
            Profiler(EVERY_TYPE, name)


def test_batches_of_another_table_are_refused() -> None:
    with pytest.raises(InvalidSpec):
        Profiler(schema({"id": FieldType.STRING})).add(batch())


# JSON

shares = st.integers(TOO_FEW, 1000)
profiles = st.builds(
    Profile,
    rows=st.integers(0, 2**40),
    key=st.just(("a",)),
    columns=st.tuples(
        st.builds(ColumnProfile, st.just("a"), shares, st.none() | shares, st.none() | shares, st.none()),
        st.builds(ColumnProfile, st.just("名 \"'"), shares, st.none(), st.none() | shares, st.integers(-1, 9**9)),
    ),
    as_of=st.none() | st.dates(),
    update_days=st.integers(0, 9999),
)


@given(profiles)
def test_a_profile_comes_back_from_its_json(profile: Profile) -> None:
    assert Profile.from_json(profile.to_json()) == profile
    assert json.loads(profile.to_json())["rows"] == profile.rows


GOOD = Profile(30, ("a",), (ColumnProfile("a", 1000, 1000, None, 20),), date(2020, 1, 1), 7)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        GOOD.to_json() + b" ",
        GOOD.to_json().replace(b'"rows":30', b'"rows":30.0'),
        GOOD.to_json().replace(b'"rows":30', b'"rows":-1'),
        GOOD.to_json().replace(b'"rows":30', b'"rows":true'),
        GOOD.to_json().replace(b'"rows":30', b'"more":1,"rows":30'),
        GOOD.to_json().replace(b"1000,1000", b"1001,1000"),
        GOOD.to_json().replace(b"1000,1000", b"null,1000"),
        GOOD.to_json().replace(b"1000,1000", b"true,1000"),
        GOOD.to_json().replace(b'["a",', b'["b",'),
        GOOD.to_json().replace(b'["a",', b"[1,"),
        GOOD.to_json().replace(b"2020-01-01", b"2020-13-01"),
        GOOD.to_json().replace(b"2020-01-01", b"20200101"),
    ],
    ids=range(18),
)
def test_other_json_is_no_profile(data: bytes) -> None:
    with pytest.raises(InvalidSpec, match="profile"):
        Profile.from_json(data)


def test_the_widest_table_fits() -> None:
    names = [f"{n:04}" + "\u4e00" * 60 for n in range(MAX_FIELDS)]
    one = replace(field("x", FieldType.INTEGER), valid=Valid(low="1"))
    of = Schema(tuple(replace(one, name=name) for name in names), (names[0],))
    profiler = Profiler(of)
    profiler.add(pa.RecordBatch.from_arrays([pa.array(range(3000), pa.int64())] * MAX_FIELDS, schema=of.arrow()))
    found = profiler.done(date(2020, 1, 1), 365)
    assert len(found.to_json()) < MAX_BYTES and Profile.from_json(found.to_json()) == found


def test_a_table_that_would_not_fit_is_refused_before_its_rows() -> None:
    names = [f"{n:04}" + "\U00020000" * 60 for n in range(MAX_FIELDS)]
    with pytest.raises(InvalidSpec, match="too long"):
        Profiler(Schema(tuple(field(name) for name in names), (names[0],)))


# The page


class Read(HTMLParser):
    """What stands on a page: its tags, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


SHOWN = Profile(
    1234567,
    ("a",),
    (
        ColumnProfile("a", 1000, None, 998, None),
        ColumnProfile("b", 999, 5, None, BELOW_TEN),
        ColumnProfile("c", TOO_FEW, TOO_FEW, TOO_FEW, TOO_FEW),
        ColumnProfile("d", 0, None, None, 120_000),
    ),
    date(2024, 2, 28),
    2,
)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_page_shows_every_figure(language: Any) -> None:
    words = WORDS[language]
    found = Read(page(SHOWN, "纳税记录", language))
    for text in ("1,234,567", "99.8 %", "99.9 %", "0.5 %", "0.0 %", "<10", "120,000", "2024-02-28", "2024-03-01"):
        assert text in found.text
    for name in ("rows", "too_few", "no_rule", "no_format", "unique", "due"):
        assert words[name] in found.text
    assert found.tags[0] == ("html", {"lang": "zh-CN" if language == "zh" else "en"})
    assert "纳税记录" in found.text and "{" not in found.text.split("}")[-1]


def test_both_languages_say_the_same_things() -> None:
    assert WORDS["en"].keys() == WORDS["zh"].keys()


def test_an_unknown_day_is_called_so() -> None:
    shown = page(replace(SHOWN, as_of=None, update_days=0), "t", "en")
    assert WORDS["en"]["unknown"] in shown and WORDS["en"]["due"] not in shown


HOSTILE = "<script>alert(1)</script>\"'&lt;<!--\u202e\x00\u200b]]>"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_on_a_page_becomes_markup(language: Any) -> None:
    hostile = Profile(30, (HOSTILE,), (ColumnProfile(HOSTILE, 1, 2, 3, None),), None, 0)
    text = page(hostile, HOSTILE, language)
    found, harmless = Read(text), Read(page(replace(SHOWN, columns=SHOWN.columns[:1], as_of=None), "t", language))
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in harmless.tags]
    assert not {"script", "a", "img", "link", "iframe", "form"} & {tag for tag, _ in found.tags}
    assert not set("\u202e\x00\u200b") & set(text)
    assert found.text.count("<script>alert(1)</script>") == 4  # as text: title, heading, key and column
    policy = next(attrs["content"] for tag, attrs in found.tags if tag == "meta" and "http-equiv" in attrs)
    assert policy is not None and policy.startswith("default-src 'none'")
    assert "http://" not in text and "https://" not in text and "src=" not in text.replace("default-src", "")


def test_profiled_passes_every_batch_on() -> None:
    of = schema({"id": FieldType.INTEGER})
    parts = [batch({"id": [n]}, of) for n in range(25)]
    profiler = Profiler(of)

    def source() -> Iterator[pa.RecordBatch]:
        yield from parts

    assert all(one is part for one, part in zip(profiled(source(), profiler), parts, strict=True))
    assert profiler.done().rows == 25
