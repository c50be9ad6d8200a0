"""What an application still lacks: all of it at once, in words for whoever fills in the form.

Shapes:    ``missing`` takes a scenario that may be a draft: empty where nothing was written yet.
Not here:  whether what is written is allowed (``policy.scenario.check``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sandbox.errors import InvalidSpec
from sandbox.model import ConsentRule, ConsentSource, DatasetUse, JobKind, OutputClass, Scenario, VersionRule

LEAST_TEXT = 10  # characters of each text of the outline
_TOLD = 340  # characters of a refusal: what a node tells is cut at 400


@dataclass(frozen=True, slots=True)
class Missing:
    """One thing that an application lacks."""

    field: str
    words: str
    words_zh: str


NO_CATEGORY = Missing(
    "outline.category", "under which regime: shared, open or authorised", "类别：共享、开放、授权运营"
)


def missing(scenario: Scenario) -> tuple[Missing, ...]:
    """Return everything that must be given and is not, in the order of the form."""
    return (
        *_outline(scenario),
        *_head(scenario),
        *(gap for use in scenario.datasets for gap in _dataset(use)),
        *_kinds(scenario),
        *_limits(scenario),
        *_consent(scenario),
    )


def incomplete(gaps: Sequence[Missing], where: str = "scenario") -> InvalidSpec:
    """Return one refusal that names every gap, in both languages, as far as it fits."""
    told = f"{where}: not complete:"
    for n, gap in enumerate(gaps):
        named = f" {gap.field} ({gap.words_zh})" + ("," if n + 1 < len(gaps) else "")
        if len(told) + len(named) > _TOLD:
            told += f" and {len(gaps) - n} more"
            break
        told += named
    return InvalidSpec(
        tell=told, hint="`sandbox scenario check FILE` explains each; `sandbox scenario form` has them all"
    )


def _outline(scenario: Scenario) -> Iterator[Missing]:
    outline = scenario.outline
    least, least_zh = f"; at least {LEAST_TEXT} characters", f"，不少于 {LEAST_TEXT} 个字"
    for name, words, words_zh in (
        ("data_use", "which data are used, and why these", "用什么数"),
        ("supply", "how they are supplied: in what form, how often", "怎样供数"),
        ("problem", "which problem is solved, for whom", "解决什么问题"),
    ):
        if outline is None or len(getattr(outline, name).strip()) < LEAST_TEXT:
            yield Missing(f"outline.{name}", words + least, words_zh + least_zh)
    if outline is None:
        yield Missing(
            "outline.category", "under which regime: shared, open or authorised", "类别：共享、开放、授权运营"
        )
    if outline is None or not outline.field_of_use.strip():
        yield Missing("outline.field_of_use", "the field of use, e.g. finance, health, transport", "应用领域")


def _head(scenario: Scenario) -> Iterator[Missing]:
    recipient = scenario.recipient
    for field, value, words, words_zh in (
        ("name", scenario.name, "what the scenario is called", "场景名称"),
        ("merchant", scenario.merchant, "the organisation that applies", "申请单位"),
        ("purpose", scenario.purpose, "the purpose, as a person's consent would name it", "使用目的"),
        ("operator", scenario.operator, "the operator's node", "运营机构节点"),
        ("applicant", scenario.applicant_key, "the card of whoever applies and submits", "申请人名片"),
        ("recipient.node", recipient.node_id, "the node that holds results for the recipient", "接收方节点"),
        ("recipient.card", recipient.identity_key, "the card of whoever opens results", "接收方名片"),
        ("datasets", scenario.datasets, "at least one dataset", "至少一个数据集"),
        ("kinds", scenario.kinds, "what may be computed", "作业种类"),
        ("price.tariff", scenario.price.tariff, "the tariff", "计费标准"),
        ("price.coefficient", scenario.price.coefficient, "the price coefficient, 0 to 1", "价格系数"),
    ):
        if not (value.strip() if isinstance(value, str) else value):
            yield Missing(field, words, words_zh)


def _dataset(use: DatasetUse) -> Iterator[Missing]:
    where = f"datasets.{use.code}"
    if not use.key:
        yield Missing(f"{where}.key", "the columns that say who a row is about", "主键列")
    if use.rule is VersionRule.SAME_SCHEMA and not use.schema_digest:
        yield Missing(f"{where}.schema_digest", "the digest of the schema that every version must have", "数据结构摘要")
    if use.rule is VersionRule.EXACT and not use.version:
        yield Missing(f"{where}.version", "the version, from 1", "版本号")
    if use.rule is VersionRule.EXACT and not use.content_hash:
        yield Missing(f"{where}.content_hash", "the content hash of the version", "内容摘要")


def _kinds(scenario: Scenario) -> Iterator[Missing]:
    kinds = set(scenario.kinds)
    for kind in sorted(kinds - {rule.kind for rule in scenario.outputs}):
        name = kind.name.lower()
        yield Missing(f"outputs of {name}", f"an output of {name}, and its floor", f"{name} 的输出及其下限")
    if JobKind.TRAIN in kinds:
        if not any(use.label for use in scenario.datasets):
            yield Missing("datasets.label", "the target column of the training", "训练的目标列")
        if not scenario.computing_parties:
            yield Missing("computing_parties", "a third party for the training", "训练所需的第三计算方")
    if JobKind.MODEL in kinds and not scenario.bundles:
        yield Missing("bundles", "the bundles that may run", "允许运行的程序包")


def _limits(scenario: Scenario) -> Iterator[Missing]:
    quota = scenario.quota
    for field, value, words, words_zh in (
        ("not_after", scenario.not_after_ms, "until when: valid_days or not_after", "有效期"),
        ("quota.calls_per_day", quota.calls_per_day, "how many jobs a day", "每日作业数"),
        ("quota.calls_total", quota.calls_total, "how many jobs in all", "作业总数"),
        ("quota.rows_total", quota.rows_total, "how many rows may enter computations in all", "行数总量"),
    ):
        if not value:
            yield Missing(field, words, words_zh)


def _consent(scenario: Scenario) -> Iterator[Missing]:
    consent = scenario.consent
    if any(rule.class_ is OutputClass.ROW_CONSENTED for rule in scenario.outputs) and consent.batch is ConsentRule.NONE:
        yield Missing("consent.batch", "what stands behind rows of people: held_letter", "批量授权方式")
    if JobKind.SCORE in scenario.kinds:
        if consent.single is ConsentRule.NONE:
            yield Missing("consent.single", "what stands behind one person's score: token", "单笔授权方式")
        if not consent.issuers:
            yield Missing("consent.issuers", "whose signature counts under consents", "授权签发方")
        if not consent.sources:
            yield Missing("consent.sources", "where consents come from: subject, attested, letter", "授权来源")
    if holds_letters(scenario) and not consent.letter_days:
        yield Missing("consent.letter_days", "within how many days a letter is produced", "授权书提交期限（天）")


def holds_letters(scenario: Scenario) -> bool:
    """Whether the scenario rests on letters that somebody keeps, and must produce when asked."""
    consent = scenario.consent
    return consent.batch is ConsentRule.HELD_LETTER or ConsentSource.LETTER in consent.sources


def complete(scenario: Scenario, where: str = "scenario") -> None:
    """Refuse an application that lacks anything.

    Raises:
        InvalidSpec: naming all that is missing.
    """
    if gaps := missing(scenario):
        raise incomplete(gaps, where)
