"""Made-up personal fields of every kind, as tables hold them; nobody has any of them but by chance."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from random import Random
from typing import Any

import pyarrow as pa

from sandbox.catalog.ids import made_up_ids
from sandbox.catalog.personal import Personal

ROWS = 300
SEGMENTS = (130, 133, 136, 138, 139, 147, 150, 152, 155, 159, 166, 170, 177, 180, 185, 188, 191, 199)
GIVEN = "伟芳娜秀英敏静丽强磊军洋勇艳杰娟涛明超霞平刚桂英文辉力健俊帆雪荣爱梅琳素云莲真环佳嘉琼勤珍贞"
FAMILY = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎"
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
CREDIT = "0123456789ABCDEFGHJKLMNPQRTUWXY"


def digits(random: Random, count: int) -> str:
    return "".join(random.choices("0123456789", k=count))


def mobile(random: Random) -> str:
    return f"{random.choice(SEGMENTS)}{digits(random, 8)}"


def luhn_right(number: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(number)):
        total += int(digit) if place % 2 == 0 else sum(divmod(2 * int(digit), 10))
    return total % 10 == 0


def card(random: Random, begin: str = "622202", length: int = 19) -> str:
    front = begin + digits(random, length - len(begin) - 1)
    return next(front + last for last in "0123456789" if luhn_right(front + last))


def credit_code(random: Random) -> str:
    front = "91" + digits(random, 6) + "".join(random.choices(CREDIT, k=9))
    weighted = sum(CREDIT.index(one) * pow(3, place, 31) for place, one in enumerate(front))
    return front + CREDIT[(31 - weighted % 31) % 31]


IDS = made_up_ids(1000, 7).to_pylist()


def identity(random: Random, between: str = "") -> str:
    number: str = random.choice(IDS)
    return between.join((number[:6], number[6:14], number[14:]))


def grouped(number: str) -> str:
    return " ".join(number[begin : begin + 4] for begin in range(0, len(number), 4))


def person(random: Random) -> str:
    return random.choice(FAMILY) + "".join(random.choices(GIVEN, k=random.choice([1, 2])))


def address(random: Random) -> str:
    return random.choice(
        [
            f"上海市浦东新区张江路{random.randrange(1, 900)}号{random.randrange(1, 30)}幢101室",
            f"广东省深圳市南山区科技园南路{random.randrange(1, 90)}号",
            f"河北省石家庄市正定县新城铺镇东咬村{random.randrange(1, 9)}组",
            f"北京市朝阳区望京花园{random.randrange(1, 9)}号楼{random.randrange(1, 9)}单元",
        ]
    )


def plate(random: Random) -> str:
    front = random.choice("京沪粤苏浙") + random.choice(LETTERS)
    return front + random.choice(
        [digits(random, 5), f"D{digits(random, 5)}", f"{digits(random, 5)}F", f"B{digits(random, 3)}学"]
    )


def email(random: Random) -> str:
    host = random.choice(["qq.com", "mail.example.com.cn"])
    return f"{random.choice(['li.na', 'wang_wei', 'x'])}{digits(random, 3)}@{host}"


LIKE: dict[str, tuple[Personal, Callable[[Random], Any]]] = {
    "identity numbers in groups": (Personal.ID_NUMBER, lambda r: identity(r, " ")),
    "identity numbers in lower case": (Personal.ID_NUMBER, lambda r: identity(r).lower()),
    "mobile numbers": (Personal.PHONE, mobile),
    "mobile numbers as numbers": (Personal.PHONE, lambda r: int(mobile(r))),
    "mobile numbers as floats": (Personal.PHONE, lambda r: float(mobile(r))),
    "mobile numbers as decimals": (Personal.PHONE, lambda r: Decimal(mobile(r))),
    "mobile numbers with their country": (Personal.PHONE, lambda r: f"+86 {mobile(r)}"),
    "mobile numbers in groups": (Personal.PHONE, lambda r: f"{(m := mobile(r))[:3]}-{m[3:7]}-{m[7:]}"),
    "mobile numbers behind a quote": (Personal.PHONE, lambda r: f"'{mobile(r)} "),
    "mobile numbers in wide digits": (
        Personal.PHONE,
        lambda r: mobile(r).translate({48 + i: 0xFF10 + i for i in range(10)}),
    ),
    "numbers of offices": (Personal.PHONE, lambda r: f"0755-2{digits(r, 7)}"),
    "numbers of UnionPay cards": (Personal.BANK_CARD, card),
    "numbers of cards as numbers": (Personal.BANK_CARD, lambda r: int(card(r, "4", 16))),
    "numbers of cards in groups": (Personal.BANK_CARD, lambda r: grouped(card(r, "6217", 16))),
    "names": (Personal.NAME, person),
    "double surnames": (Personal.NAME, lambda r: "欧阳" + person(r)[1:]),
    "names with a dot": (Personal.NAME, lambda r: f"阿卜杜{r.choice(GIVEN)}·买买{r.choice(GIVEN)}"),
    "addresses": (Personal.ADDRESS, address),
    "plates": (Personal.PLATE, plate),
    "plates with a dot": (Personal.PLATE, lambda r: f"沪A·{digits(r, 5)}"),
    "addresses of e-mail": (Personal.EMAIL, email),
    "credit codes": (Personal.CREDIT_CODE, credit_code),
}


def column(make: Callable[[Random], Any], rows: int = ROWS, name: str = "c7") -> pa.RecordBatch:
    random = Random(7)
    return pa.record_batch({name: [make(random) for _ in range(rows)]})
