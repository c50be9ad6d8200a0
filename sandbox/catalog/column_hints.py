"""What the name of a column lets expect in it, in Chinese, in English and in the initials of pinyin.

Shapes:    a name counts in NFKC and without case. Chinese texts count anywhere in it, Latin ones as whole words, where
           words end at anything that is no letter and before a capital: ``customerPhone_2`` has the word ``phone``.
Security:  names of columns are in the catalogue for everybody; nothing of a row is looked at here.
Not here:  whether the values are what the name says (personal).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Final

from sandbox.catalog.personal import Personal

_NAMED: Final[Mapping[Personal, str]] = {
    Personal.ID_NUMBER: "身份证|身份号码|公民身份|居民身份|证件号|证件编号|id card|idcard|id no|idno|id number|idnumber"
    "|identity|identity number|national id|citizen id|cert no|certno|sfz|sfzh|sfzhm|zjhm",
    Personal.BANK_CARD: "银行卡|卡号|借记卡|信用卡|储蓄卡|银行账|银行帐|card|cardno|bankcard"
    "|bank account|account no|yhkh|yhzh|pan",
    Personal.PASSPORT: "护照|passport|hzhm",
    Personal.PHONE: "手机|电话|联系方式|移动号码|phone|mobile|cellphone|cell|tel|telephone|msisdn|phonenumber|mobileno"
    "|sjh|sjhm|lxdh|lxfs",
    Personal.EMAIL: "邮箱|电子邮件|email|e mail|mail|dzyx",
    Personal.PLATE: "车牌|号牌|plate|cph|cphm|hphm",
    Personal.NAME: "姓名|名字|联系人|户主|法人|法定代表人|负责人|收件人|收货人|当事人|申请人|持卡人|被保险人|纳税人"
    "|name|fullname|surname|xm|xingming",
    Personal.ADDRESS: "地址|住址|住所|居住地|户籍地|户口所在地|address|addr|residence|dz|zz|jtzz",
    Personal.CREDIT_CODE: "信用代码|社会信用|credit code|uscc|tyshxydm|xydm",
}
# A column that counts, dates or sorts something holds nothing of it: the number of calls, the type of a card.
_ABOUT: Final = (
    "count|cnt|type|brand|model|flag|status|date|time|days|length|is|has|minutes|amount|fee|rate|sum|total"
    "|数量|次数|个数|类型|种类|品牌|型号|时长|是否|状态|日期|时间|金额|费用|余额"
)
_OTHERWISE: Final[Mapping[Personal, str]] = {
    Personal.NAME: "company|corp|firm|product|item|goods|file|city|org|organisation|organization|dept|department|bank"
    "|school|table|column|field|country|province|street|project|event|app|host|domain|class|state|county|district"
    "|公司|企业|单位|产品|商品|部门|机构|学校|项目|文件",
    Personal.ADDRESS: "ip|mac|email|mail|url|web|wallet|邮件|网址",
}


def hints(column: str) -> frozenset[Personal]:
    """Return what the name of a column lets expect in it."""
    name = unicodedata.normalize("NFKC", column)
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower()
    words, whole = f" {' '.join(re.findall('[a-z]+', apart))} ", name.lower()

    def has(texts: str) -> bool:
        return any(f" {text} " in words if text.isascii() else text in whole for text in texts.split("|"))

    if has(_ABOUT):
        return frozenset()
    otherwise = {kind for kind, texts in _OTHERWISE.items() if has(texts)}
    return frozenset(kind for kind, texts in _NAMED.items() if kind not in otherwise and has(texts))
