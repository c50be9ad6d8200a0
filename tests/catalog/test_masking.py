"""Rows as they are shown outside production: every rule, what holds without one, and what never comes through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from catalog_builders import EVERY_TYPE, batch, field
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.catalog.field_types import FieldType
from sandbox.catalog.formats import KeyFormat
from sandbox.catalog.ids import made_up_ids
from sandbox.catalog.masking import Masker, rule_in_force
from sandbox.catalog.masking_rules import Bin, Drop, Hash, Mask, Period, Prefix, Rule, Shift, Unmasked, parse_rule
from sandbox.catalog.schema import Field, Grade, Schema
from sandbox.crypto.sm3 import hkdf, hmac_sm3
from sandbox.errors import InvalidSpec

SECRET = bytes(range(32))
OTHER = bytes(32)
KEY = field("id")
FIRST, LAST = date(1, 1, 1), date(9999, 12, 31)


def masked(rule: str, type_: FieldType, values: Sequence[Any], secret: bytes = SECRET) -> list[Any]:
    """What is shown of ``values`` under a rule; the key of their rows is their number."""
    one = replace(field("x", type_), masking=rule)
    rows = {"id": [f"k{number}" for number in range(len(values))], "x": list(values)}
    schema = Schema((KEY, one), ("id",))
    shown = Masker(schema, secret).apply(batch(rows, schema))
    result: list[Any] = shown.column("x").to_pylist()
    return result


@pytest.mark.parametrize(
    ("text", "type_", "rule"),
    [
        ("", FieldType.BOOLEAN, Unmasked()),
        ("drop", FieldType.BOOLEAN, Drop()),
        ("drop", FieldType.DECIMAL, Drop()),
        ("hash", FieldType.STRING, Hash()),
        ("hash", FieldType.INTEGER, Hash()),
        ("hash", FieldType.DATE, Hash()),
        ("mask:3,4", FieldType.STRING, Mask(3, 4)),
        ("mask:0,0", FieldType.INTEGER, Mask(0, 0)),
        ("bin:10", FieldType.INTEGER, Bin(Decimal(10))),
        ("bin:0.25", FieldType.DECIMAL, Bin(Decimal("0.25"))),
        ("bin:7", FieldType.DATE, Bin(Decimal(7))),
        ("generalise:6", FieldType.STRING, Prefix(6)),
        ("generalise:month", FieldType.DATE, Period("M")),
        ("generalise:year", FieldType.DATE, Period("Y")),
        ("shift:30", FieldType.DATE, Shift(30)),
    ],
)
def test_a_rule_is_read(text: str, type_: FieldType, rule: Rule) -> None:
    assert parse_rule(text, type_) == rule


@pytest.mark.parametrize(
    ("text", "type_"),
    [
        ("never leaves the node", FieldType.STRING),
        ("Hash", FieldType.STRING),
        ("hash ", FieldType.STRING),
        ("hash", FieldType.DECIMAL),
        ("hash", FieldType.BOOLEAN),
        ("mask", FieldType.STRING),
        ("mask:3", FieldType.STRING),
        ("mask:-1,2", FieldType.STRING),
        ("mask:60,60", FieldType.STRING),
        ("mask:３,4", FieldType.STRING),
        ("mask:3,4", FieldType.DATE),
        ("bin:1", FieldType.INTEGER),
        ("bin:0", FieldType.DATE),
        ("bin:2.5", FieldType.INTEGER),
        ("bin:1.5", FieldType.DATE),
        ("bin:36501", FieldType.DATE),
        ("bin:1000000000000000001", FieldType.INTEGER),
        ("bin:0", FieldType.DECIMAL),
        ("bin:0.0000000001", FieldType.DECIMAL),
        ("bin:0.00000000011", FieldType.DECIMAL),
        ("bin:-5", FieldType.DECIMAL),
        ("bin:1e3", FieldType.DECIMAL),
        ("bin:NaN", FieldType.DECIMAL),
        ("bin:10", FieldType.STRING),
        ("generalise:0", FieldType.STRING),
        ("generalise:101", FieldType.STRING),
        ("generalise:4", FieldType.INTEGER),
        ("generalise:4", FieldType.DATE),
        ("generalise:month", FieldType.STRING),
        ("generalise:day", FieldType.DATE),
        ("shift:0", FieldType.DATE),
        ("shift:36501", FieldType.DATE),
        ("shift:30", FieldType.INTEGER),
    ],
)
def test_anything_else_is_refused(text: str, type_: FieldType) -> None:
    with pytest.raises(InvalidSpec):
        parse_rule(text, type_)


def test_a_refusal_says_what_would_do() -> None:
    with pytest.raises(InvalidSpec, match=r"'sometimes' is no rule for a column of type date; write .*shift:30"):
        parse_rule("sometimes", FieldType.DATE)


@pytest.mark.parametrize(
    ("type_", "grade", "in_key", "rule"),
    [
        *((type_, grade, True, "hash") for type_ in (FieldType.STRING, FieldType.INTEGER) for grade in Grade),
        *((type_, grade, False, "") for type_ in FieldType for grade in (Grade.L1, Grade.L2)),
        *((type_, Grade.L4, False, "drop") for type_ in FieldType),
        *((type_, Grade.L3, False, "drop") for type_ in FieldType if type_ is not FieldType.DATE),
        (FieldType.DATE, Grade.L3, False, "generalise:year"),
        (FieldType.DATE, Grade.L1, True, "hash"),
    ],
)
def test_what_no_rule_speaks_of_fails_closed(type_: FieldType, grade: Grade, in_key: bool, rule: str) -> None:
    one = replace(field("x", type_), grade=grade)
    assert rule_in_force(one, in_key=in_key) == rule
    own = replace(one, masking="drop")
    assert rule_in_force(own, in_key=in_key) == "drop"


def test_the_defaults_are_applied() -> None:
    grades = {
        "id": Grade.L1,
        "姓名": Grade.L3,
        "income": Grade.L4,
        "orders": Grade.L2,
        "active": Grade.L1,
        "since": Grade.L3,
    }
    schema = replace(EVERY_TYPE, fields=tuple(replace(one, grade=grades[one.name]) for one in EVERY_TYPE.fields))
    masker = Masker(schema, SECRET)
    shown = masker.apply(batch())
    assert shown.schema == masker.arrow()
    assert {one.name: str(one.type) for one in shown.schema} == {
        "id": "string",
        "orders": "int64",
        "active": "bool",
        "since": "date32[day]",
    }
    assert shown.column("orders") == batch().column("orders")
    assert shown.column("since").to_pylist() == [date(1999, 1, 1), None, FIRST, date(9999, 1, 1)]
    assert not set(shown.column("id").to_pylist()) & {"a1", "a2", "a3", "a4"}


def test_of_a_table_that_may_not_be_shown_nothing_is() -> None:
    schema = Schema((replace(KEY, masking="drop"), replace(field("x"), grade=Grade.L4)), ("id",))
    shown = Masker(schema, SECRET).apply(batch({"id": ["a"], "x": ["b"]}, schema))
    assert shown.num_columns == 0 and shown.num_rows == 0


keys = st.text(st.characters(codec="utf-8", exclude_characters="*\x1f"), min_size=1, max_size=30)


@given(
    st.lists(keys, min_size=1, max_size=20),
    st.sampled_from(["", "hash", "mask:0,0", "mask:3,4", "mask:9,9", "mask:0,1"]),
)
def test_no_key_comes_through(ids: list[str], rule: str) -> None:
    schema = Schema((replace(KEY, masking=rule), field("x")), ("id",))
    shown = Masker(schema, SECRET).apply(batch({"id": ids, "x": [None] * len(ids)}, schema))
    cells = {cell for column in shown.columns for cell in column.to_pylist()}
    assert not cells & set(ids)


def test_no_identity_number_comes_through_anywhere() -> None:
    ids = made_up_ids(2000, 7)
    schema = Schema((replace(KEY, format=KeyFormat.ID_NUMBER, grade=Grade.L4), field("n", FieldType.INTEGER)), ("id",))
    rows = pa.record_batch([ids, pa.array(range(2000))], schema=schema.arrow())
    sink = pa.BufferOutputStream()
    shown = Masker(schema, SECRET).apply(rows)
    with pa.ipc.new_stream(sink, shown.schema) as writer:
        writer.write_batch(shown)
    written = sink.getvalue().to_pybytes()
    assert not any(one.encode() in written for one in ids.to_pylist())


@pytest.mark.parametrize(
    ("rule", "values", "shown"),
    [
        ("mask:3,4", ["13800138000", "1380013", None, ""], ["138****8000", "****", None, "****"]),
        ("mask:6,4", ["110101199001011234"], ["110101****1234"]),
        ("mask:17,0", ["110101199001011234"], ["****"]),
        ("mask:1,0", ["张三", "欧阳小明", "张", "😀😀"], ["张****", "欧****", "****", "😀****"]),
        ("mask:0,2", ["abc", "ab", "abcdef"], ["****bc", "****", "****ef"]),
        ("mask:0,0", ["abc", ""], ["****", "****"]),
        ("generalise:4", ["310115", "31", "", None, "上海市浦东"], ["3101", "31", "", None, "上海市浦"]),
    ],
)
def test_texts_are_shown_in_part(rule: str, values: list[str | None], shown: list[str | None]) -> None:
    assert masked(rule, FieldType.STRING, values) == shown


def test_a_number_is_masked_as_its_text() -> None:
    assert masked("mask:3,4", FieldType.INTEGER, [13800138000, None, -5]) == ["138****8000", None, "****"]


@given(st.text("abc一", max_size=40), st.integers(0, 20), st.integers(0, 20))
def test_a_third_of_a_masked_text_stays_hidden(text: str, head: int, tail: int) -> None:
    (shown,) = masked(f"mask:{head},{tail}", FieldType.STRING, [text])
    assert shown in ("****", text[:head] + "****" + (text[-tail:] if tail else ""))
    assert 3 * (len(shown) - 4) <= 2 * len(text)


numbers = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-100, 100))


@given(st.lists(st.none() | numbers, min_size=1, max_size=20), st.one_of(st.integers(2, 9), st.integers(2, 10**18)))
def test_whole_numbers_are_shown_as_their_bin(values: list[int | None], width: int) -> None:
    for value, shown in zip(values, masked(f"bin:{width}", FieldType.INTEGER, values), strict=True):
        if value is None:
            assert shown is None
        else:
            assert shown == max(value // width * width, -(2**63))


def test_bins_begin_at_their_edges() -> None:
    assert masked("bin:10", FieldType.INTEGER, [-11, -10, -1, 0, 9, 10]) == [-20, -10, -10, 0, 0, 10]
    assert masked("bin:2.5", FieldType.DECIMAL, [Decimal("2.4999999999"), Decimal("2.5"), Decimal("-0.1"), None]) == [
        Decimal(0),
        Decimal("2.5"),
        Decimal("-2.5"),
        None,
    ]
    thursday = date(1970, 1, 1)
    days = [thursday - timedelta(1), thursday, thursday + timedelta(6), thursday + timedelta(7), FIRST, LAST, None]
    assert masked("bin:7", FieldType.DATE, days)[:4] == [
        thursday - timedelta(7),
        thursday,
        thursday,
        thursday + timedelta(7),
    ]
    assert masked("bin:7", FieldType.DATE, days)[4:] == [FIRST, date(9999, 12, 30), None]


UNITS = 10**38 - 1  # the largest decimal, counted in its last place
units = st.integers(-UNITS, UNITS) | st.integers(-50, 50) | st.sampled_from([UNITS, *range(-UNITS, 20 - UNITS)])


def of_units(number: int) -> Decimal:
    return Decimal(f"{number}E-10")


@given(st.lists(units, min_size=1, max_size=20), st.integers(2, 40) | st.integers(2, UNITS))
def test_decimals_are_shown_as_their_bin(values: list[int], width: int) -> None:
    shown = masked(f"bin:{of_units(width):f}", FieldType.DECIMAL, [of_units(value) for value in values])
    assert shown == [of_units(max(value // width * width, -UNITS)) for value in values]


def test_dates_are_shown_as_their_month_or_year() -> None:
    days = [date(2024, 2, 29), date(1969, 12, 31), FIRST, LAST, None]
    assert masked("generalise:month", FieldType.DATE, days) == [
        date(2024, 2, 1),
        date(1969, 12, 1),
        FIRST,
        date(9999, 12, 1),
        None,
    ]
    assert masked("generalise:year", FieldType.DATE, days) == [
        date(2024, 1, 1),
        date(1969, 1, 1),
        FIRST,
        date(9999, 1, 1),
        None,
    ]


def test_a_hash_is_a_keyed_digest_of_the_spelling() -> None:
    schema = Schema((replace(KEY, format=KeyFormat.PHONE), replace(field("x"), masking="hash")), ("id",))
    rows = batch({"id": ["138-0013-8000", "+8613800138000", "1"], "x": ["13800138000", None, "ａ"]}, schema)
    shown = Masker(schema, SECRET).apply(rows).to_pydict()
    key = hkdf(SECRET, b"", b"sandbox/v1/masking/hash/id", 32)
    assert shown["id"][0] == hmac_sm3(key, b"+8613800138000")[:16].hex()
    assert shown["id"][0] == shown["id"][1] != shown["id"][2]
    own = hkdf(SECRET, b"", b"sandbox/v1/masking/hash/x", 32)
    assert shown["x"] == [hmac_sm3(own, b"13800138000")[:16].hex(), None, hmac_sm3(own, "ａ".encode())[:16].hex()]
    assert not set(shown["id"]) & set(Masker(schema, OTHER).apply(rows).to_pydict()["id"])


def test_two_columns_do_not_show_who_stands_in_both() -> None:
    schema = Schema((KEY, replace(field("other"), masking="hash")), ("id",))
    (shown,) = Masker(schema, SECRET).apply(batch({"id": ["a"], "other": ["a"]}, schema)).to_pylist()
    assert shown["id"] != shown["other"]


SHIFTED = Schema(
    (
        replace(KEY, format=KeyFormat.NAME, masking="drop"),
        replace(field("born", FieldType.DATE), masking="shift:30", grade=Grade.L4),
        replace(field("died", FieldType.DATE), masking="shift:30"),
        replace(field("moved", FieldType.DATE), masking="shift:7"),
    ),
    ("id",),
)


def moved(
    ids: list[str], born: list[date | None], died: list[date | None], secret: bytes = SECRET
) -> dict[str, list[Any]]:
    rows = {"id": ids, "born": born, "died": died, "moved": born}
    shown: dict[str, list[Any]] = Masker(SHIFTED, secret).apply(batch(rows, SHIFTED)).to_pydict()
    return shown


inside = st.dates(FIRST + timedelta(30), LAST - timedelta(30))


@given(st.lists(st.tuples(st.text("张三 a", min_size=1, max_size=4), inside, inside), min_size=1, max_size=10))
def test_a_shift_keeps_the_days_between_the_dates_of_one_row(rows: list[tuple[str, date, date]]) -> None:
    ids, born, died = (list(column) for column in zip(*rows, strict=True))
    shown = moved(ids, list(born), list(died))
    assert list(shown) == ["born", "died", "moved"]
    for number, (_, first, last) in enumerate(rows):
        by = shown["born"][number] - first
        assert shown["died"][number] - last == by
        assert 1 <= abs(by.days) <= 30
        assert 1 <= abs((shown["moved"][number] - first).days) <= 7


def test_a_shift_is_of_the_person_and_the_secret() -> None:
    day = date(2000, 1, 1)
    ids = [f"人{number}" for number in range(400)]
    by = [one - day for one in moved(ids, [day] * 400, [None] * 400)["born"]]
    assert {one.days for one in by} == {*range(-30, 0), *range(1, 31)}
    again = moved(ids[::-1], [day + timedelta(5)] * 400, [day] * 400)
    assert [one - day - timedelta(5) for one in again["born"]][::-1] == by
    assert again["died"][::-1] == [day + one for one in by]
    assert moved([" 人 0"], [day], [None])["born"] == [day + by[0]]  # another spelling of the same name
    assert [one - day for one in moved(ids, [day] * 400, [None] * 400, OTHER)["born"]] != by


def test_shifts_of_different_rules_do_not_tell_each_other() -> None:
    day = date(2000, 1, 1)
    shown = moved([f"人{number}" for number in range(100)], [day] * 100, [None] * 100)
    wide, narrow = ([(one - day).days for one in shown[name]] for name in ("born", "moved"))
    drawn = {((by + (by < 0)) % 2, (less + (less < 0)) % 2) for by, less in zip(wide, narrow, strict=True)}
    assert drawn == {(0, 0), (0, 1), (1, 0), (1, 1)}  # from one number below 60 and below 14, both would be even or odd


def test_a_date_that_stands_for_never_gives_no_shift_away() -> None:
    day = date(2000, 1, 1)
    assert moved(["a"], [day], [LAST])["died"] == moved(["a"], [day], [FIRST])["died"] == [None]
    assert moved(["a"], [None], [LAST - timedelta(30)])["died"][0] <= LAST
    assert moved(["a"], [None], [day])["born"] == [None]


@settings(max_examples=20)
@given(st.integers(0, 5), st.integers(0, 5))
def test_parts_of_a_table_are_shown_as_the_whole(begin: int, rows: int) -> None:
    schema = Schema(
        tuple(
            replace(one, masking={"date": "shift:9", "decimal": "bin:3", "integer": "bin:5"}.get(one.type.value, ""))
            for one in EVERY_TYPE.fields
        ),
        EVERY_TYPE.key,
    )
    masker = Masker(schema, SECRET)
    whole = masker.apply(batch(of=schema))
    assert masker.apply(batch(of=schema).slice(begin, rows)).to_pylist() == whole.slice(begin, rows).to_pylist()


def test_rows_that_are_not_the_schemas_are_refused() -> None:
    masker = Masker(EVERY_TYPE, SECRET)
    rows = batch()
    for wrong in (
        rows.append_column("card", pa.array(["6222"] * 4)),
        rows.select(rows.schema.names[1:]),
        rows.select(rows.schema.names[::-1]),
        rows.set_column(0, "id", rows.column("id").dictionary_encode()),
    ):
        with pytest.raises(InvalidSpec, match="columns and types of their schema"):
            masker.apply(wrong)


def test_notes_in_the_file_do_not_come_along() -> None:
    noted = batch().replace_schema_metadata({"first row": "a1"})
    assert Masker(EVERY_TYPE, SECRET).apply(noted).schema.metadata is None


def test_a_secret_is_long_and_not_shown() -> None:
    with pytest.raises(InvalidSpec, match="at least 32 bytes"):
        Masker(EVERY_TYPE, SECRET[:31])
    masker = Masker(EVERY_TYPE, b"canary-canary-canary-canary-canary")
    assert "canary" not in repr(masker)


@pytest.mark.parametrize("rule", ["bin:10", "generalise:month", "generalise:year", "shift:30"])
def test_a_key_is_not_masked_by_what_may_leave_it_as_it_is(rule: str) -> None:
    one = Field("id", FieldType.DATE, "含义", "", Grade.L4, rule, Decimal(1))
    with pytest.raises(InvalidSpec, match="key field 'id'"):
        Schema((one,), ("id",))
    Schema((replace(one, name="x"), KEY), ("id",))
