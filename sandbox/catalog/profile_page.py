"""The quality profile of a dataset as one page for people.

    Profile --page--> one HTML file: no scripts, nothing loaded, no links; English or Chinese

Security:  every text on the page is escaped, and characters that steer a display (controls, changes of writing
           direction, zero widths) are shown as U+FFFD. A policy in the page forbids scripts and loading.
Reveals:   what the profile does: counts and shares, rounded; nothing of a row (profile).
Not here:  how the figures are made (profile).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from html import escape
from typing import Final, Literal, TypeAlias

from sandbox.catalog.profile import BELOW_TEN, FEW, SMALL, TOO_FEW, ColumnProfile, Profile

Language: TypeAlias = Literal["en", "zh"]

TAGS: Final[Mapping[Language, str]] = {"en": "en", "zh": "zh-CN"}
WORDS: Final[Mapping[Language, Mapping[str, str]]] = {
    "en": {
        "quality": "Data quality",
        "rows": "Rows",
        "key": "Key, different in every row",
        "as_of": "The rows describe the day",
        "every": "A new version is due every",
        "days": "days",
        "due": "The next one is due by",
        "unknown": "not known",
        "column": "Column",
        "complete": "Complete",
        "valid": "Valid by its rule",
        "formed": "Valid by its format",
        "distinct": "Different values, about",
        "unique": "all, it is the key",
        "no_rule": "no rule",
        "no_format": "no format",
        "too_few": "too few rows to tell",
        "below": "<10",
        "note": "Complete: the share of rows that hold a value. Valid: the share of those values that meet the rule or "
        "the format which the schema declares. Fewer than {small} rows are never counted, shares of fewer than {few} "
        "rows are not shown, and shares are rounded to 0.1 %: nothing here is read from a single row.",
    },
    "zh": {
        "quality": "数据质量",
        "rows": "行数",
        "key": "主键（各行互不相同）",
        "as_of": "数据截止日期",
        "every": "更新周期",
        "days": "天",
        "due": "下次更新应不晚于",
        "unknown": "未知",
        "column": "字段",
        "complete": "完整率",
        "valid": "规则有效率",
        "formed": "格式有效率",
        "distinct": "不同取值数（约）",
        "unique": "全部不同（主键）",
        "no_rule": "未设规则",
        "no_format": "未设格式",
        "too_few": "行数过少，不予显示",
        "below": "<10",
        "note": "完整率：有值的行所占比例。有效率：有值的行中符合数据目录所声明规则或格式的比例。少于 {small} 行的情况"
        "不予统计，总数少于 {few} 行的比例不予显示，比例取整至 0.1 %，因此本页不反映任何单行内容。",
    },
}
STYLE: Final = """
body { font: 15px/1.5 system-ui, "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; color: #1b1f24;
  max-width: 72rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; }
table { border-collapse: collapse; width: 100%; margin: 1.5rem 0; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #d8dee4; }
thead th { border-bottom: 2px solid #57606a; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
thead th.n { text-align: right; }
td.none { text-align: right; color: #57606a; }
p { color: #57606a; }
@media print { body { margin: 0; max-width: none; } tr { break-inside: avoid; } thead { display: table-header-group; } }
"""
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(profile: Profile, title: str, language: Language) -> str:
    """Return the page about one dataset, whose name is ``title``, as the text of one HTML file."""
    words = WORDS[language]
    heads = ("column", "complete", "valid", "formed", "distinct")
    named = "".join(
        f'<th scope="col"{"" if head == "column" else " class=n"}>{escape(words[head])}</th>' for head in heads
    )
    facts = "".join(
        f'<tr><th scope="row">{escape(label)}</th><td>{_text(value)}</td></tr>\n'
        for label, value in _facts(profile, words)
    )
    lines = "".join(f"<tr>{_line(column, words)}</tr>\n" for column in profile.columns)
    return (
        f'<!doctype html>\n<html lang="{TAGS[language]}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
        f"<title>{escape(words['quality'])} {_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(words['quality'])}: {_text(title)}</h1>\n<table>\n<tbody>\n{facts}</tbody>\n</table>\n"
        f"<table>\n<thead>\n<tr>{named}</tr>\n</thead>\n<tbody>\n{lines}</tbody>\n</table>\n"
        f"<p>{escape(words['note'].format(small=SMALL, few=FEW))}</p>\n</body>\n</html>\n"
    )


def _facts(profile: Profile, words: Mapping[str, str]) -> list[tuple[str, str]]:
    every = f"{profile.update_days:,} {words['days']}" if profile.update_days else words["unknown"]
    facts = [
        (words["rows"], f"{profile.rows:,}"),
        (words["key"], ", ".join(profile.key)),
        (words["as_of"], profile.as_of.isoformat() if profile.as_of else words["unknown"]),
        (words["every"], every),
    ]
    return [*facts, (words["due"], profile.due.isoformat())] if profile.due else facts


def _line(column: ColumnProfile, words: Mapping[str, str]) -> str:
    cells = [
        _share(column.complete, "", words),
        _share(column.valid, "no_rule", words),
        _share(column.formed, "no_format", words),
        _distinct(column.distinct, words),
    ]
    return f'<th scope="row">{_text(column.name)}</th>' + "".join(cells)


def _share(share: int | None, none: str, words: Mapping[str, str]) -> str:
    if share is None:
        return _cell(words[none], shown=False)
    if share == TOO_FEW:
        return _cell(words["too_few"], shown=False)
    return _cell(f"{share / 10:.1f} %")


def _distinct(distinct: int | None, words: Mapping[str, str]) -> str:
    if distinct is None:
        return _cell(words["unique"], shown=False)
    if distinct == TOO_FEW:
        return _cell(words["too_few"], shown=False)
    return _cell(words["below"] if distinct == BELOW_TEN else f"{distinct:,}")


def _cell(text: str, *, shown: bool = True) -> str:
    return f'<td class="{"n" if shown else "none"}">{_text(text)}</td>'


def _text(text: str) -> str:
    """Return text for the page: escaped, and without characters that steer a display."""
    letters = (
        letter if letter.isprintable() else " " if unicodedata.category(letter) == "Zs" else "\ufffd" for letter in text
    )
    return escape("".join(letters))
