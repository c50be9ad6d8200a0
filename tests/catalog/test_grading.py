"""Finding Chinese personal fields: each kind under a name that says nothing, and what only looks like one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import phonenumbers
import pyarrow as pa
import pytest
from catalog_builders import field
from hypothesis import given
from hypothesis import strategies as st
from personal_builders import GIVEN, LIKE, ROWS, column, digits, email, identity, luhn_right, mobile, plate

from sandbox.catalog.column_hints import hints
from sandbox.catalog.field_types import FieldType
from sandbox.catalog.formats import BLOCK
from sandbox.catalog.grading import GRADES, MASKINGS, Grader, Suggestion, suggest, too_low
from sandbox.catalog.ids import made_up_ids
from sandbox.catalog.masking_rules import KEY_RULES, parse_rule
from sandbox.catalog.personal import DETECTORS, PLAIN_MOBILE, Personal, looks
from sandbox.catalog.schema import Grade, Schema
from sandbox.errors import InvalidSpec


@pytest.mark.parametrize("what", LIKE)
@pytest.mark.parametrize("rows", [4, ROWS])
def test_each_kind_is_found_under_a_name_that_says_nothing(what: str, rows: int) -> None:
    kind, make = LIKE[what]
    assert suggest([column(make, rows)]) == (Suggestion("c7", kind, 1.0, False, GRADES[kind], MASKINGS[kind]),)


PROVINCES = (
    "北京 天津 河北 山西 内蒙古 辽宁 吉林 黑龙江 上海 江苏 浙江 安徽 福建 江西 山东 "
    "河南 湖北 湖南 广东 广西 海南 重庆 四川 贵州 云南 西藏 陕西 甘肃 青海 宁夏 新疆"
)
CITIES = (
    "石家庄 唐山 秦皇岛 邯郸 邢台 保定 张家口 承德 沧州 廊坊 衡水 太原 大同 阳泉 长治 晋城 朔州 包头 乌海 赤峰 "
    "沈阳 大连 鞍山 抚顺 成都 自贡 温州 宁波 常州 马鞍山 杭州 金华 黄山 武汉 黄石 黄冈 常德 岳阳 张家界 江门 梅州"
)
DEGREES = "小学 初中 高中 中专 大专 本科 硕士 博士"
TRADES = (
    "农业 采矿 制造 建筑 批发 零售 运输 仓储 住宿 餐饮 软件 金融 房地产 租赁 科研 水利 教育 卫生 文化 体育 社会保障"
)


def order_of(when: datetime, more: str) -> str:
    return f"{when:%Y%m%d%H%M%S}{more}"


def some_time(random: Random) -> datetime:
    return datetime(2024, 1, 1) + timedelta(seconds=random.randrange(3 * 10**7))


UNLIKE: dict[str, Callable[[Random], Any]] = {
    "any numbers of 11 digits": lambda r: r.randrange(10**10, 10**11),
    "numbers of 11 digits from 13 on": lambda r: r.randrange(13 * 10**9, 20 * 10**9),
    "seconds": lambda r: 1_700_000_000 + r.randrange(10**7),
    "milliseconds": lambda r: 1_700_000_000_000 + r.randrange(10**10),
    "microseconds": lambda r: 1_700_000_000_000_000 + r.randrange(10**13),
    "amounts": lambda r: r.randrange(10**7),
    "amounts in decimals": lambda r: Decimal(r.randrange(10**9)).scaleb(-2),
    "amounts with places": lambda r: r.randrange(10**9) / 100,
    "numbers from snowflakes": lambda r: (1 << 60) + r.randrange(1 << 58),
    "numbers of 16 digits": lambda r: r.randrange(10**15, 10**16),
    "numbers of 16 digits from 62 on": lambda r: f"62{digits(r, 14)}",
    "numbers of 19 digits from 62 on": lambda r: f"62{digits(r, 17)}",
    "numbers of 18 digits": lambda r: digits(r, 18),
    "orders of 15 digits": lambda r: order_of(some_time(r), digits(r, 1)),
    "orders of 18 digits": lambda r: order_of(some_time(r), digits(r, 4)),
    "numbers with zeros in front": lambda r: digits(r, 8).zfill(11),
    "post codes": lambda r: digits(r, 6),
    "days": lambda r: f"{some_time(r):%Y-%m-%d}",
    "days without hyphens": lambda r: int(f"{some_time(r):%Y%m%d}"),
    "times": lambda r: some_time(r).isoformat(),
    "digests": lambda r: f"{r.randrange(16**32):032x}",
    "addresses of machines": lambda r: ".".join(str(r.randrange(256)) for _ in range(4)),
    "codes of shops": lambda r: f"SH{digits(r, 6)}",
    "numbers of passports or anything": lambda r: f"E{digits(r, 8)}",
    "masked mobile numbers": lambda r: f"138****{digits(r, 4)}",
    "numbers of hot lines": lambda r: f"400-{digits(r, 3)}-{digits(r, 4)}",
    "provinces": lambda r: r.choice(PROVINCES.split()),
    "cities": lambda r: r.choice(CITIES.split()),
    "degrees": lambda r: r.choice(DEGREES.split()),
    "trades": lambda r: r.choice(TRADES.split()),
    "words that begin like names": lambda r: r.choice(
        ["高中", "金融", "方便", "安徽", "江苏", "张家港", "马鞍山", "黄山"]
    ),
    "firms": lambda r: f"上海{r.choice(GIVEN)}{r.choice(GIVEN)}科技有限公司",
    "branches of banks": lambda r: f"中国银行上海市浦东大道{r.randrange(1, 9)}号支行",
    "sentences": lambda r: f"客户于{r.randrange(1, 12)}月来电咨询贷款利率，已经答复。",
    "truth values": lambda r: r.choice([True, False]),
    "dates": lambda r: date(1990, 1, 1) + timedelta(r.randrange(9000)),
}


@pytest.mark.parametrize("what", UNLIKE)
def test_what_only_looks_like_one_is_not_suggested(what: str) -> None:
    assert suggest([column(UNLIKE[what], 2000)]) == ()


def test_orders_counted_in_a_segment_are_no_telephone_numbers() -> None:
    orders = list(range(13_800_000_000, 13_800_002_000))
    assert suggest([pa.record_batch({"c7": orders, "c8": [str(one) for one in orders]})]) == ()
    (found,) = suggest([pa.record_batch({"mobile": orders})])
    assert (found.kind, found.hinted) == (Personal.PHONE, True)


def test_a_hint_lets_fewer_values_and_more_spellings_count() -> None:
    random = Random(3)
    old = [f"110101{random.randrange(50, 99)}0101{random.randrange(100, 999)}" for _ in range(20)]
    odd = ["passport E12345678"] * 80
    assert suggest([pa.record_batch({"c7": old + odd})]) == ()
    (found,) = suggest([pa.record_batch({"客户身份证号": old + odd})])
    assert (found.kind, found.share, found.hinted, found.grade) == (Personal.ID_NUMBER, 0.2, True, Grade.L4)
    passports = [f"E{digits(random, 8)}" for _ in range(50)]
    (found,) = suggest([pa.record_batch({"passportNo": passports})])
    assert (found.kind, found.masking) == (Personal.PASSPORT, "hash")
    (found,) = suggest([pa.record_batch({"full_name": ["Zhang San", "Li Si, Anna", None, ""]})])
    assert (found.kind, found.share) == (Personal.NAME, 1.0)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("身份证号码", {Personal.ID_NUMBER}),
        ("id_card_no", {Personal.ID_NUMBER, Personal.BANK_CARD}),
        ("idCard2", {Personal.ID_NUMBER, Personal.BANK_CARD}),
        ("ＭＯＢＩＬＥ", {Personal.PHONE}),
        ("customerPhone", {Personal.PHONE}),
        ("联系电话", {Personal.PHONE}),
        ("phone_count", set()),
        ("通话次数", set()),
        ("手机品牌", set()),
        ("telemetry", set()),
        ("hotel", set()),
        ("姓名", {Personal.NAME}),
        ("xm", {Personal.NAME}),
        ("company_name", set()),
        ("企业名称", set()),
        ("filename", set()),
        ("住址", {Personal.ADDRESS}),
        ("home-address", {Personal.ADDRESS}),
        ("ip_address", set()),
        ("email address", {Personal.EMAIL}),
        ("电子邮件地址", {Personal.EMAIL}),
        ("银行卡号", {Personal.BANK_CARD}),
        ("discard", set()),
        ("车牌", {Personal.PLATE}),
        ("template", set()),
        ("统一社会信用代码", {Personal.CREDIT_CODE}),
        ("护照号", {Personal.PASSPORT}),
        ("income", set()),
    ],
)
def test_names_of_columns_hint(name: str, kinds: set[Personal]) -> None:
    assert hints(name) == kinds


def test_a_hint_alone_suggests_nothing() -> None:
    random = Random(5)
    numbers = [random.randrange(10**6) for _ in range(ROWS)]
    names = ["手机", "身份证", "银行卡号", "card", "phone", "plate", "email", "passport", "姓名", "address"]
    assert suggest([pa.record_batch({name: numbers for name in names})]) == ()


def test_mobile_segments_are_those_of_a_library_of_telephone_numbers() -> None:
    random = Random(11)
    for segment in range(130, 200):
        numbers = [f"{segment}{digits(random, 8)}" for _ in range(30)]
        theirs = [phonenumbers.is_valid_number(phonenumbers.parse(number, "CN")) for number in numbers]
        ours = looks(PLAIN_MOBILE)(pa.array(numbers)).tolist()
        if all(theirs) or not any(theirs):  # the library knows some segments in parts, those of virtual operators
            assert ours == theirs, segment


@given(st.integers(10**12, 10**19 - 1))
def test_check_digits_of_cards(number: int) -> None:
    (right,) = DETECTORS[Personal.BANK_CARD].likely(pa.array([str(number)]))
    assert right == luhn_right(str(number))


def test_shares_are_of_what_is_not_empty_and_rounded() -> None:
    random = Random(2)
    values = [email(random) for _ in range(100)] + ["none"] * 200 + [None, "", "  "] * 50
    (found,) = suggest([pa.record_batch({"c7": values})])
    assert found.share == 0.33
    assert suggest([pa.record_batch({"c7": values[:2] + ["none"] * 98})]) == ()
    assert suggest([pa.record_batch({"c7": pa.array([None, None], pa.string())})]) == ()
    assert suggest([pa.record_batch({"c7": pa.array([], pa.string())})]) == ()
    assert suggest([]) == ()


def test_of_several_kinds_the_most_sensitive_is_suggested() -> None:
    random = Random(2)
    values = (
        [identity(random) for _ in range(20)] + [email(random) for _ in range(50)] + [plate(random) for _ in range(30)]
    )
    (found,) = suggest([pa.record_batch({"c7": values})])
    assert (found.kind, found.share) == (Personal.ID_NUMBER, 0.2)
    (found,) = suggest([pa.record_batch({"c7": values[20:]})])
    assert (found.kind, found.share) == (Personal.EMAIL, 0.62)


@pytest.mark.parametrize(
    "type_",
    [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_texts_of_every_arrow_type_are_looked_at(type_: pa.DataType) -> None:
    texts = column(email).column(0)
    cast = texts.dictionary_encode() if pa.types.is_dictionary(type_) else texts.cast(type_)
    (found,) = suggest([pa.record_batch({"c7": cast})])
    assert (found.kind, found.share) == (Personal.EMAIL, 1.0)


def test_batches_and_blocks_add_up() -> None:
    random = Random(9)
    mobiles = [mobile(random) for _ in range(40)]
    whole = pa.record_batch({"c7": mobiles * (BLOCK // 20)})
    assert whole.num_rows > BLOCK
    grader = Grader()
    for begin in range(0, 40, 7):
        grader.add(whole.slice(begin, min(7, 40 - begin)))
    assert grader.done() == suggest([whole])
    long = pa.record_batch({"c7": [mobiles[0] + " " * 700] * 10 + mobiles})
    (found,) = suggest([long])
    assert found.share == 0.8


def test_what_cannot_be_looked_at_is_refused_without_quoting_it() -> None:
    with pytest.raises(InvalidSpec, match="'c7' is not text in UTF-8") as caught:
        suggest([pa.record_batch({"c7": ["姓名".encode("gbk")]})])
    assert caught.value.__context__ is None
    with pytest.raises(InvalidSpec, match="same name"):
        suggest([pa.RecordBatch.from_arrays([pa.array(["a"])] * 2, names=["a", "a"])])
    with pytest.raises(InvalidSpec, match="differ"):
        suggest([pa.record_batch({"a": ["b"]}), pa.record_batch({"a": [1]})])


def test_no_value_stands_in_what_is_kept() -> None:
    grader = Grader()
    grader.add(pa.record_batch({what: column(make, 50).column(0) for what, (_, make) in LIKE.items()}))
    kept = repr(grader._columns) + repr(grader.done())
    for _, make in LIKE.values():
        for value in column(make, 50).column(0).to_pylist():
            assert str(value) not in kept


def test_suggested_maskings_fit_texts_and_keys() -> None:
    for kind in Personal:
        assert isinstance(parse_rule(MASKINGS[kind], FieldType.STRING), KEY_RULES)
    for kind in (Personal.PHONE, Personal.BANK_CARD, Personal.ID_NUMBER):
        assert isinstance(parse_rule(MASKINGS[kind], FieldType.INTEGER), KEY_RULES)


def test_a_grade_that_is_too_low_is_named() -> None:
    table = pa.record_batch({"id": made_up_ids(20, 1), "tel": column(mobile, 20).column(0), "note": ["x"] * 20})
    found = suggest([table])
    schema = Schema(tuple(replace(field(name), grade=Grade.L3) for name in ("id", "tel", "note")), ("id",))
    assert [one.column for one in too_low(schema, found)] == ["id"]
    lower = replace(schema, fields=(schema.fields[0], replace(schema.fields[1], grade=Grade.L1)))
    assert [one.column for one in too_low(lower, found)] == ["id", "tel"]
    high = replace(schema, fields=tuple(replace(one, grade=Grade.L4) for one in schema.fields))
    assert too_low(high, found) == ()
    assert too_low(replace(schema, fields=schema.fields[2:], key=("note",)), found) == ()
