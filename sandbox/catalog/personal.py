"""What Chinese personal fields look like: how a value of each kind is recognised.

Source:    identity numbers and credit codes: ``formats``. Mobile numbers: the segments of China's numbering plan that
           are assigned (tests compare them with a well-kept library of telephone numbers). Cards: issuer ranges of
           ISO/IEC 7812-1 that are issued in China, check digit of the same (Luhn). Plates: GA 36-2018, those of
           new-energy vehicles included. Passports: GB/T 20258 and the letters that exit authorities use. Surnames:
           the ones that most people have, and the double ones of the Hundred Family Surnames (百家姓).
Shapes:    values come as Arrow texts in NFKC, in upper case, without blanks around them; at most a block at a time.
           ``sure`` is a look that other columns seldom have; ``likely`` one that counts only in a column whose name
           hints at it. ``sure_share`` and ``likely_share`` say how many of the values must look so.
Not here:  what columns are called (column_hints), counting, and what a column gets for it (grading). Numbers and
           names inside longer texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sandbox.catalog.formats import Flags, KeyFormat, spell

Look: TypeAlias = Callable[[pa.Array], Flags]


class Personal(StrEnum):
    """What a column holds of people."""

    ID_NUMBER = "id_number"
    BANK_CARD = "bank_card"
    PASSPORT = "passport"
    PHONE = "phone"
    EMAIL = "email"
    PLATE = "plate"
    NAME = "name"
    ADDRESS = "address"
    CREDIT_CODE = "credit_code"


@dataclass(frozen=True, slots=True)
class Detector:
    """How one kind of personal field is recognised."""

    sure: Look
    sure_share: float
    likely: Look
    likely_share: float


_HAN: Final = r"\x{3400}-\x{4DBF}\x{4E00}-\x{9FFF}"
_SURNAMES: Final = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩邓冯曹彭曾肖萧田董潘袁蔡蒋余于杜叶程魏苏吕丁任卢姚沈"
    "钟姜崔谭陆范汪廖石金韦贾夏付傅方邹熊白孟秦邱丘侯江尹薛闫阎段雷龙黎史陶贺毛郝顾龚邵万覃武钱戴严莫孔向常汤康"
    "易乔赖文施洪季庞樊兰殷颜倪牛温芦俞章鲁葛伍毕聂丛焦柳邢岳齐梅庄辛管祝左涂谷祁耿牟卜路詹关苗凌费纪靳盛童欧甄"
    "项曲成游阳裴席卫查屈鲍位霍翁隋植甘景单包司柏宁柯阮桂闵解强柴华车冉房边辜吉饶刁瞿戚古米池滕晋苑邬臧畅宫苟全褚"
    "廉简娄盖符奚木穆党燕郎邸冀谈姬屠连郜晏栾郁商蒙计喻揭窦迟宇敖糜鄢冷卓仇艾蓝巩稽井练仲乐虞卞封竺冼原楚佟栗匡应"
    "麻候尤占佘尚商危明植沙鞠丰艾禹诸莘桑荆沃伏岑习滑韶尧鹿敬时塔车保玉都亓逄宗郗訾仝安代"
)
_DOUBLE_SURNAMES: Final = (
    "欧阳|司马|上官|诸葛|皇甫|尉迟|东方|夏侯|令狐|公孙|慕容|长孙|宇文|司徒|轩辕|端木|独孤|南宫|西门|东郭|百里|呼延"
    "|赫连|申屠|淳于|单于|太史|闻人|澹台|公冶|宗政|濮阳|太叔|仲孙|钟离|鲜于|闾丘|司空|颛孙|巫马|公西|漆雕|乐正|壤驷"
    "|拓跋|夹谷|宰父|谷梁|段干|东门|羊舌|微生|梁丘|左丘|第五"
)
_PERSON: Final = rf"^(?:(?:[{_SURNAMES}]|{_DOUBLE_SURNAMES})[{_HAN}]{{1,2}}|[{_HAN}]{{1,8}}(?:[·•・][{_HAN}]{{1,8}})+)$"
_ANY_PERSON: Final = rf"^(?:[{_HAN}·•・]{{2,15}}|[A-Z][A-Z'.\-]*(?:,? [A-Z][A-Z'.\-]*){{1,3}})$"

_SEGMENT: Final = r"(?:13[0-9]|14[57]|15[0-35-9]|16[2567]|17[0-35-8]|18[0-9]|19[0-35-9])"
PLAIN_MOBILE: Final = rf"^{_SEGMENT}[0-9]{{8}}$"
_COUNTRY: Final = r"(?:(?:\+|00)?86[ \-]?)?"
_AREA: Final = r"(?:\(0[1-9][0-9]{1,2}\) ?|0[1-9][0-9]{1,2}[ \-])"  # without a sign behind it, it may be any number
_PHONE: Final = (
    rf"^{_COUNTRY}(?:{_SEGMENT}[ \-]?[0-9]{{4}}[ \-]?[0-9]{{4}}|{_AREA}[1-9][0-9]{{6,7}}(?:-[0-9]{{1,5}})?)$"
)
_ANY_PHONE: Final = r"^[+(0-9][0-9 ()\-]{6,20}$"

_CARD: Final = r"^(?:62[0-9]{14,17}|9558[0-9]{15}|(?:4[0-9]|5[1-5]|2[2-7]|35)[0-9]{14}|3[47][0-9]{13})$"
_ANY_CARD: Final = r"^[1-9][0-9]{12,18}$"
_CARD_DIGITS: Final = 20  # at most, with a zero in front: doubled are those at even places

_PROVINCE: Final = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_PLATE: Final = (
    rf"^[{_PROVINCE}][A-HJ-NP-Z][ ·•・\-]?(?:[A-HJ-NP-Z0-9]{{4}}[A-HJ-NP-Z0-9挂学警港澳领使]"
    r"|[A-HJK][A-HJ-NP-Z0-9][0-9]{4}|[0-9]{5}[A-HJK])$"
)
_EMAIL: Final = r"^[A-Z0-9._%+'\-]{1,64}@(?:[A-Z0-9](?:[A-Z0-9\-]*[A-Z0-9])?\.)+[A-Z]{2,24}$"

_NUMERAL: Final = "[0-9〇一二三四五六七八九十百]"
_ADDRESS: Final = (
    rf"(?:[路街道巷弄里村园苑坊庄]|胡同|小区|花园).*{_NUMERAL} ?(?:号|弄|栋|幢|座|室|楼|户|单元)"
    rf"|[省市区县州旗盟镇乡].*(?:[路街道巷弄里村园苑坊庄]|胡同|小区|花园).*{_NUMERAL}"
    rf"|[省市区县州旗盟镇乡].*{_NUMERAL} ?(?:号|弄|栋|幢|座|室|户|组|单元)"
)
_ANY_ADDRESS: Final = rf"(?:[{_HAN}].*){{4}}"
_OFFICE: Final = "(?:公司|厂|店|局|院|所|中心|银行|支行|分行|学校|大学|委员会|政府|合作社|经营部)$"
_PASSPORT: Final = r"^(?:[A-Z]{1,2}[0-9]{6,9}|1[45][0-9]{7})$"

_DATED: Final = r"^[1-9][0-9]{5}(?:18|19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]{3}[0-9X]$"
_ANY_ID: Final = r"^[1-9][0-9 \-]{13,20}[0-9X]$"
_CODE: Final = r"^[0-9A-HJ-NPQRTUWXY]{2}[0-9]{6}[0-9A-HJ-NPQRTUWXY]{10}$"
_ANY_CODE: Final = r"^[0-9A-HJ-NPQRTUWXY \-]{18,24}$"
_GROUPED: Final = r"^[0-9]{3,6}(?:[ \-][0-9X]{1,12})+$"  # digits in groups, as cards and identity numbers are written


def flags(found: pa.Array) -> Flags:
    """Return an Arrow column of truth values as flags; what is missing is not so."""
    result: Flags = pc.fill_null(found, False).to_numpy(zero_copy_only=False)
    return result


def looks(pattern: str) -> Look:
    """Return a look at whether a value has the pattern."""
    return lambda text: flags(pc.match_substring_regex(text, pattern))


def _both(pattern: str, check: Look) -> Look:
    """Return a look that the pattern picks, which is cheap, and the check decides."""

    def look(text: pa.Array) -> Flags:
        found = looks(pattern)(text)
        if found.any():
            found[found] = check(text.filter(pa.array(found)))
        return found

    return look


def _bare(look: Look) -> Look:
    """Return a look at numbers without what their groups of digits are written apart by."""

    def bare(text: pa.Array) -> Flags:
        grouped = pc.match_substring_regex(text, _GROUPED)
        if pc.any(grouped, min_count=0).as_py():
            joined = pc.replace_substring_regex(text.filter(grouped), r"[ \-]", "")
            text = pc.replace_with_mask(text, grouped, joined)
        return look(text)

    return bare


def _valid(form: KeyFormat) -> Look:
    return lambda text: spell(text, form).valid


def _luhn(numbers: pa.Array) -> Flags:
    """Whether the check digit is right, of numbers of fewer than 20 digits."""
    padded = pc.ascii_lpad(numbers, _CARD_DIGITS, "0").cast(pa.binary(_CARD_DIGITS))
    codes = np.frombuffer(padded.buffers()[1], np.uint8, len(padded) * _CARD_DIGITS, padded.offset * _CARD_DIGITS)
    digits = codes.reshape(-1, _CARD_DIGITS) - np.uint8(ord("0"))
    doubled = 2 * digits[:, ::2]
    total = digits[:, 1::2].sum(axis=1) + np.where(doubled > 9, doubled - 9, doubled).sum(axis=1)
    right: Flags = total % 10 == 0
    return right


def _no_office(text: pa.Array) -> Flags:
    return ~looks(_OFFICE)(text)


def _never(text: pa.Array) -> Flags:
    return np.zeros(len(text), dtype=np.bool_)


DETECTORS: Final[Mapping[Personal, Detector]] = {
    Personal.ID_NUMBER: Detector(
        sure=_bare(_both(_DATED, _valid(KeyFormat.ID_NUMBER))),
        sure_share=0.1,  # of numbers in a row, as a counter gives them, 1 in 11 has a right check digit
        likely=_both(_ANY_ID, _valid(KeyFormat.ID_NUMBER)),  # 15 digits too: those have no check digit
        likely_share=0.05,
    ),
    Personal.BANK_CARD: Detector(
        sure=_bare(_both(_CARD, _luhn)),
        sure_share=0.5,  # of any other numbers 1 in 10 has a right check digit
        likely=_bare(_both(_ANY_CARD, _luhn)),
        likely_share=0.3,
    ),
    Personal.PASSPORT: Detector(
        sure=_never,  # a letter or two and digits may be the number of anything
        sure_share=1,
        likely=looks(_PASSPORT),
        likely_share=0.3,
    ),
    Personal.PHONE: Detector(
        sure=looks(_PHONE),
        sure_share=0.8,  # of all numbers of 11 digits from 13 on, 7 in 10 are in a segment that is assigned
        likely=_both(_ANY_PHONE, _valid(KeyFormat.PHONE)),
        likely_share=0.2,
    ),
    Personal.EMAIL: Detector(sure=looks(_EMAIL), sure_share=0.05, likely=looks(_EMAIL), likely_share=0.01),
    Personal.PLATE: Detector(sure=looks(_PLATE), sure_share=0.2, likely=looks(_PLATE), likely_share=0.05),
    Personal.NAME: Detector(
        sure=looks(_PERSON),
        sure_share=0.8,  # of other words a quarter begins with a character that is a surname too
        likely=_both(_ANY_PERSON, _no_office),
        likely_share=0.3,
    ),
    Personal.ADDRESS: Detector(
        sure=_both(_ADDRESS, _no_office),
        sure_share=0.3,
        likely=looks(_ANY_ADDRESS),
        likely_share=0.2,
    ),
    Personal.CREDIT_CODE: Detector(
        sure=_both(_CODE, _valid(KeyFormat.CREDIT_CODE)),
        sure_share=0.3,  # of other codes of this shape 1 in 31 has a right check character
        likely=_both(_ANY_CODE, _valid(KeyFormat.CREDIT_CODE)),
        likely_share=0.1,
    ),
}
