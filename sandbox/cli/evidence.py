"""The evidence about one held job as one page, for those who decide.

    ReviewView --draw--> one HTML file: no scripts, nothing loaded, no links; English and Chinese side by side

Security:  the page is built as a tree of elements, and every text becomes a text node: a merchant's name or another
           reviewer's words cannot become markup, because nothing here reads markup. Characters that steer a display
           (controls, changes of writing direction, zero widths) are shown as U+FFFD. A policy in the page forbids
           scripts and loading, whatever a browser would make of it.
Units:     times in this machine's zone, with the zone.
Not here:  fetching the view (``sandbox.client``), the terminal (``screen``).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from sandbox.cli.screen import cell
from sandbox.model import Decision, JobKind, OutputClass, OutputRule, ReviewView

Words = tuple[str, str]  # English, Chinese


class Said(str):
    """Somebody's own words: set apart on the page, in as many lines as they have."""

    __slots__ = ()


KINDS: Mapping[JobKind, Words] = {
    JobKind.PSI: ("intersection", "隐私求交"),
    JobKind.TRAIN: ("training", "联合训练"),
    JobKind.SCORE: ("scores", "评分"),
    JobKind.AGGREGATE: ("table of totals", "联合统计"),
    JobKind.QUERY: ("one statement over a dataset", "单条查询"),
    JobKind.MODEL: ("the merchant's own code next to the data", "数商自带模型"),
}
CLASSES: Mapping[OutputClass, Words] = {
    OutputClass.AGGREGATE: ("totals of groups", "分组统计"),
    OutputClass.ROW_CONSENTED: ("rows about persons who consented", "经本人授权的个体记录"),
    OutputClass.REPORT: ("report, rounded", "评估报告（已取整）"),
    OutputClass.MODEL: ("model", "模型"),
    OutputClass.NOISY: ("counts and sums with noise", "加噪统计"),
}
DECISIONS: Mapping[Decision, Words] = {
    Decision.APPROVE: ("approved", "同意出域"),
    Decision.REFUSE: ("refused", "拒绝出域"),
    Decision.SEND_BACK: ("sent back", "退回修改"),
}
STATES: Mapping[str, Words] = {
    "held": ("held: waits for reviewers", "待审核"),
    "released": ("released", "已出域"),
    "refused": ("refused or sent back", "已拒绝或退回"),
    "expired": ("expired", "已逾期"),
    "cancelled": ("cancelled", "已取消"),
}
STYLE = """
body { font: 15px/1.5 system-ui, "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; color: #1b1f24;
  max-width: 72rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
span + span { color: #57606a; font-weight: normal; margin-left: .5em; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #d8dee4; }
thead th { border-bottom: 2px solid #57606a; }
tbody th { width: 15rem; }
td div { contain: paint; }
.state { padding: .7rem 1rem; border-left: .4rem solid #57606a; background: #f6f8fa; }
.soon { border-color: #bc4c00; background: #fff1e5; }
.said { border-left: 3px solid #8c959f; padding-left: .6rem; white-space: pre-wrap; }
pre { font: 13px/1.5 ui-monospace, monospace; white-space: pre-wrap; background: #f6f8fa; padding: .7rem 1rem; }
@media print { body { margin: 0; max-width: none; } h2 { break-after: avoid; } tr { break-inside: avoid; } }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def approvals(view: ReviewView) -> int:
    """Return how many have approved so far."""
    return sum(decision.decision is Decision.APPROVE for decision in view.decisions)


def draw(view: ReviewView, node: str) -> str:
    """Return the page about one review at ``node``, as the text of one HTML file."""
    page = Element("html", lang="en")
    head = SubElement(page, "head")
    SubElement(head, "meta", charset="utf-8")
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": POLICY})
    SubElement(head, "title").text = f"Review 出域审核 {legible(view.job_id)}"
    SubElement(head, "style").text = STYLE
    body = SubElement(page, "body")
    _both(SubElement(body, "h1"), ("May this leave?", "出域审核"))
    _state(body, view, node)
    _outputs(body, view.outputs)
    _recipient(body, view)
    _asked(body, view)
    _checks(body, view)
    _sample(body, view.sample)
    _history(body, view)
    _decisions(body, view)
    _how(body, view)
    return "<!doctype html>\n" + tostring(page, encoding="unicode", method="html") + "\n"


def legible(text: str) -> str:
    """Return one line of text without characters that steer a display; spaces of any width are spaces."""
    return "".join(
        letter if letter.isprintable() else " " if unicodedata.category(letter) == "Zs" else "\ufffd" for letter in text
    )


def _state(body: Element, view: ReviewView, node: str) -> None:
    box = SubElement(body, "div", {"class": "state soon" if view.is_due_soon and view.state == "held" else "state"})
    rows: list[tuple[Words, object]] = [
        (("State", "状态"), STATES.get(view.state, (view.state, ""))),
        (("Approvals", "同意人数"), f"{approvals(view)} / {view.approvals_needed}"),
        (("Held since", "提交审核时间"), _time(view.held_ms)),
        (("Expires", "截止时间"), _time(view.due_ms)),
        (("Job", "作业"), view.job_id),
        (("Kind", "类型"), KINDS.get(view.kind, (view.kind.name.lower(), ""))),
        (("Held at", "审核节点"), node),
    ]
    _members(box, rows)


def _outputs(body: Element, rules: Sequence[OutputRule]) -> None:
    _heading(body, ("What leaves", "出域内容"))
    _table(
        body,
        (
            ("output", "输出"),
            ("class", "类别"),
            ("smallest group", "最小群体"),
            ("counts rounded to", "计数取整"),
            ("at most", "上限"),
            ("further", "其他"),
        ),
        (
            (
                rule.name,
                CLASSES.get(rule.class_, (rule.class_.name.lower(), "")),
                f"{rule.min_group:,}",
                f"{rule.round_to:,}",
                (f"{rule.max_rows:,} rows, {rule.max_bytes:,} bytes", f"{rule.max_rows:,} 行，{rule.max_bytes:,} 字节"),
                _further(rule),
            )
            for rule in rules
        ),
    )


def _further(rule: OutputRule) -> list[Words]:
    found = []
    if rule.top_two:
        share = f"{rule.top_two / 10:g} %"
        found.append((f"the two largest make up {share} of a total at most", f"最大两项合计不超过总额的 {share}"))
    if rule.remainder:
        share = f"{rule.remainder / 10:g} %"
        found.append((f"the rest is {share} of the largest at least", f"其余部分不低于最大项的 {share}"))
    if rule.suppress:
        found.append(("small cells are left blank", "小单元格留空"))
    return found


def _recipient(body: Element, view: ReviewView) -> None:
    _heading(body, ("To whom, for what", "接收方与用途"))
    rows: list[tuple[Words, object]] = [
        (("Merchant", "数商"), Said(view.merchant)),
        (("Controlled by", "实际控制方"), Said(view.controller) if view.controller else ("nobody else", "无")),
        (("Recipient's node", "接收节点"), view.recipient_node),
        (("Recipient's key", "接收方密钥"), view.recipient),
        (("Scenario", "场景"), Said(view.scenario)),
        (("Scenario digest", "场景摘要"), view.scenario_digest.hex()),
        (("Purpose", "用途"), Said(view.purpose)),
        (("Parties", "参与方"), list(view.parties)),
    ]
    _members(body, rows)


def _asked(body: Element, view: ReviewView) -> None:
    _heading(body, ("What was asked", "请求内容"))
    SubElement(body, "pre").text = "\n".join(legible(line) for line in view.asked)
    _heading(body, ("Who learns what", "各方得知内容"))
    columns = (("party", "参与方"), ("learns", "得知"))
    _table(body, columns, ((one.party, (one.what, one.what_zh)) for one in view.reveals))


def _checks(body: Element, view: ReviewView) -> None:
    _heading(body, ("What the gate checked", "自动检查"))
    columns = (("output", "输出"), ("check", "检查项"), ("bound", "界限"), ("found", "实际"))
    rows = ((check.output, check.check, check.bound, check.found) for check in view.checks)
    _table(body, columns, rows, ("no check was noted: do not approve", "无检查记录，请勿同意"))


def _sample(body: Element, sample: str) -> None:
    _heading(body, ("Sample", "样本"))
    if sample:
        SubElement(body, "pre").text = _lines(sample)
    else:
        words = ("none was kept with this review", "本次审核未附样本")
        _both(SubElement(body, "p"), words)


def _history(body: Element, view: ReviewView) -> None:
    _heading(body, ("Released before to this merchant, or under the same control", "此前向该数商或同一控制方的出域"))
    columns = (("time", "时间"), ("kind", "类型"), ("merchant", "数商"), ("outputs", "输出"), ("job", "作业"))
    rows = (
        (
            _time(earlier.time_ms),
            KINDS.get(earlier.kind, (earlier.kind.name.lower(), "")),
            Said(earlier.merchant),
            list(earlier.outputs),
            earlier.job_id,
        )
        for earlier in view.history
    )
    _table(body, columns, rows, ("nothing", "无"))


def _decisions(body: Element, view: ReviewView) -> None:
    _heading(body, ("Decisions so far", "已有审核意见"))
    columns = (("time", "时间"), ("reviewer", "审核人"), ("decision", "意见"), ("reason", "理由"))
    rows = (
        (_time(said.time_ms), said.reviewer, DECISIONS[said.decision], Said(said.reason)) for said in view.decisions
    )
    _table(body, columns, rows, ("none", "无"))


def _how(body: Element, view: ReviewView) -> None:
    _heading(body, ("What you sign", "签署内容"))
    rows: list[tuple[Words, object]] = [
        (("Plan digest", "计划摘要"), view.plan_digest.hex()),
        (("Evidence digest", "证据摘要"), view.evidence_digest.hex()),
    ]
    _members(body, rows)
    job = legible(view.job_id)
    SubElement(body, "pre").text = (
        f"sandbox review approve {job} --evidence {view.evidence_digest.hex()}\n"
        f"sandbox review refuse {job} --reason ...\n"
        f"sandbox review send-back {job} --reason ...\n"
    )


def _heading(body: Element, words: Words) -> None:
    _both(SubElement(body, "h2"), words)


def _members(parent: Element, rows: Iterable[tuple[Words, object]]) -> None:
    table = SubElement(SubElement(parent, "table"), "tbody")
    for words, value in rows:
        row = SubElement(table, "tr")
        _both(SubElement(row, "th", scope="row"), words)
        _value(SubElement(row, "td"), value)


def _table(
    body: Element, columns: Sequence[Words], rows: Iterable[Sequence[object]], none: Words = ("none", "无")
) -> None:
    table = SubElement(body, "table")
    heads = SubElement(SubElement(table, "thead"), "tr")
    for words in columns:
        _both(SubElement(heads, "th", scope="col"), words)
    lines = SubElement(table, "tbody")
    for values in rows:
        row = SubElement(lines, "tr")
        for value in values:
            _value(SubElement(row, "td"), value)
    if not len(lines):
        _both(SubElement(SubElement(lines, "tr"), "td", colspan=str(len(columns))), none)


def _value(place: Element, value: object) -> None:
    """Put a text, words in both languages, or a list of those into an element."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, tuple):
            _both(SubElement(place, "div"), item)
        elif isinstance(item, Said):
            SubElement(place, "div", {"class": "said"}).text = _lines(item)
        else:
            SubElement(place, "div").text = legible(str(item))


def _both(place: Element, words: Words) -> None:
    for lang, text in zip(("en", "zh"), words, strict=True):
        if text:
            SubElement(place, "span", lang=lang).text = legible(text)


def _time(unix_ms: int) -> str:
    try:
        return cell("time_ms", unix_ms)
    except (ValueError, OverflowError, OSError):  # a time that no calendar has: somebody's word, so it is shown
        return f"{unix_ms} ms"


def _lines(text: str) -> str:
    return "\n".join(map(legible, text.splitlines()))
