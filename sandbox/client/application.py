"""Scenarios as people write them: TOML (or JSON with the same members) into the shape that is signed.

    scenario.toml      jobs/credit_score/scenario.toml is a complete example, with remarks;
                       `sandbox scenario form` writes one to fill in

Shapes:    a dataset is given by ``file``, which holds what ``sandbox dataset show --json`` printed at its owner, or by
           ``owner``, ``code`` and, by rule: ``version`` and ``content_hash`` (exact), ``schema_digest`` and
           ``max_age_days`` (same_schema); a key by the file of its card. Files are looked for beside the document, or
           in ``files``. ``${name}`` is explained in ``members``.
Units:     times are TOML dates or texts in ISO 8601; without an offset they are UTC.
Errors:    ``InvalidSpec`` naming file and member; of what is missing, everything at once.
Not here:  whether a scenario is wise: the nodes and the people who approve it judge that.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from sandbox.catalog.matching import compatible
from sandbox.catalog.schema import Schema
from sandbox.client.members import Table, open_document
from sandbox.client.references import bounded, read_card, read_code, read_measurement, read_schema
from sandbox.completeness import NO_CATEGORY, Missing, incomplete, missing
from sandbox.errors import InvalidSpec
from sandbox.model import (
    Category,
    Consent,
    ConsentRule,
    ConsentSource,
    DatasetUse,
    Dimension,
    JobKind,
    MeasureRange,
    Outline,
    OutputClass,
    OutputRule,
    PriceTerms,
    Quota,
    Recipient,
    Scenario,
    VersionRule,
)

_QUOTA = ("calls_per_day", "calls_total", "rows_total", "rows_per_day", "people_per_day", "people_total")


@dataclass(frozen=True, slots=True)
class Draft:
    """A document as far as it is filled in."""

    where: str
    scenario: Scenario
    gaps: tuple[Missing, ...]


def scenario_from_toml(path: Path, values: Mapping[str, str] | None = None, files: Path | None = None) -> Scenario:
    """Return the scenario in a document, with a fresh nonce.

    Args:
        path: the document.
        values: what ``${name}`` stands for.
        files: where the files it names lie; by default, beside it.
    """
    draft = read_draft(path, values, files)
    if draft.gaps:
        raise incomplete(draft.gaps, draft.where)
    return bounded(Scenario, draft.scenario, draft.where)


def read_draft(path: Path, values: Mapping[str, str] | None = None, files: Path | None = None) -> Draft:
    """Return what a document says so far, and everything that it lacks; arguments as of ``scenario_from_toml``."""
    top = open_document(path, values or {})
    base = files or path.parent
    begins, ends = _validity(top)
    applicant, recipient = top.table("applicant", {}), top.table("recipient", {})
    datasets = [_dataset(table, base) for table in top.tables("datasets", []) if _is_named(table)]
    kinds = top.choices("kinds", JobKind) if top.has("kinds") else ()
    if JobKind.PSI in kinds:
        _check_keys(top.where, [schema for _, schema in datasets])
    quota, price, outline = top.table("quota", {}), top.table("price", {}), top.table("outline", {})
    has_category = bool(outline.take("category", str, "").strip())
    scenario = Scenario(
        name=top.take("name", str, ""),
        merchant=top.take("merchant", str, ""),
        purpose=top.take("purpose", str, ""),
        applicant_key=_card(applicant, base)[0],
        datasets=tuple(use for use, _ in datasets),
        kinds=kinds,
        outputs=tuple(_output(table) for table in top.tables("outputs", [])),
        recipient=Recipient(recipient.take("node", str, ""), *_card(recipient, base)),
        operator=top.take("operator", str, ""),
        computing_parties=top.texts("computing_parties", []),
        not_before_ms=_milliseconds(begins),
        not_after_ms=0 if ends is None else _milliseconds(ends),
        quota=Quota(*(quota.take(name, int, 0) for name in _QUOTA)),
        consent=_consent(top.table("consent", {}), base),
        score_step=top.take("score_step", int, 5),
        models_per_person=top.take("models_per_person", int, 1),
        price=PriceTerms(
            price.take("tariff", str, ""), price.take("coefficient", str, "1"), price.take("public_good", bool, False)
        ),
        accepts_simulated=top.take("accepts_simulated", bool, False),
        nonce=secrets.token_bytes(16),
        dimensions=tuple(_dimension(table) for table in top.tables("dimensions", [])),
        measures=tuple(_range(table) for table in top.tables("measures", [])),
        accepts_two_contributors=top.take("accepts_two_contributors", bool, False),
        controller=top.take("controller", str, ""),
        epsilon_milli=top.take("epsilon_milli", int, 0),
        bundles=tuple(read_measurement(top.where, name, base) for name in top.texts("bundles", [])),
        isolation=top.take("isolation", str, ""),
        enclave=top.take("enclave", str, ""),
        runtimes=tuple(read_measurement(top.where, name, base) for name in top.texts("runtimes", [])),
        outline=Outline(
            data_use=outline.take("data_use", str, ""),
            supply=outline.take("supply", str, ""),
            problem=outline.take("problem", str, ""),
            category=outline.choose("category", Category) if has_category else Category.AUTHORISED,
            field_of_use=outline.take("field_of_use", str, ""),
        ),
        amends=top.digest("amends") if top.take("amends", str, "") else b"",
    )
    for table in (top, applicant, recipient, quota, price, outline):
        table.end()
    gaps = missing(scenario)
    return Draft(top.where, scenario, gaps if has_category else (NO_CATEGORY, *gaps))


def _validity(top: Table) -> tuple[datetime, datetime | None]:
    begins = _moment(top, "not_before") or datetime.now(UTC)
    days, ends = top.take("valid_days", int, 0), _moment(top, "not_after")
    if days and ends is not None:
        raise InvalidSpec(tell=f"{top.where}: give either valid_days or not_after")
    try:
        return begins, begins + timedelta(days=days) if days else ends
    except OverflowError:
        raise InvalidSpec(tell=f"{top.where}: valid_days is out of range") from None


def _is_named(table: Table) -> bool:
    """Whether a dataset's table says which: the form has one with an empty ``file``."""
    return bool(table.take("file", str, "")) or table.has("code")


def _check_keys(where: str, schemas: Sequence[Schema | None]) -> None:
    """Refuse datasets whose keys could not meet, as far as their catalogue entries are at hand."""
    known = [schema for schema in schemas if schema is not None]
    for other in known[1:]:
        if problems := compatible(known[0], other):
            raise InvalidSpec(tell=f"{where}: {'; '.join(problems)}", hint="see docs/keys.md")


def _dataset(table: Table, base: Path) -> tuple[DatasetUse, Schema | None]:
    entry = open_document(base / table.take("file", str)) if table.take("file", str, "") else table
    rule = table.choose("rule", VersionRule, VersionRule.EXACT)
    is_exact = rule is VersionRule.EXACT
    version = entry.take("version", int, 0)
    schema = read_schema(entry) if entry is not table else None
    use = DatasetUse(
        code=read_code(entry),
        owner=entry.take("owner", str),
        rule=rule,
        version=version if is_exact else 0,
        content_hash=entry.digest("content_hash") if is_exact else b"",
        key=table.texts("key", []),
        fields=table.texts("fields"),
        label=table.take("label", str, ""),
        rows=entry.take("rows", int, 0),
        schema_digest=b"" if is_exact else entry.digest("schema_digest"),
        max_age_days=table.take("max_age_days", int, 0),
    )
    if schema is not None:
        for name in (*use.key, *use.fields, *([use.label] if use.label else ())):
            if name not in schema.names:
                raise InvalidSpec(tell=f"{table.where}: the dataset has no column {name!r}")
    table.end()
    return use, schema


def _consent(table: Table, base: Path) -> Consent:
    made = Consent(
        batch=table.choose("batch", ConsentRule, ConsentRule.NONE),
        single=table.choose("single", ConsentRule, ConsentRule.NONE),
        issuers=tuple(read_card(table.where, base / name).identity_key for name in table.texts("issuers", [])),
        sources=table.choices("sources", ConsentSource) if table.has("sources") else (),
        most_uses=table.take("most_uses", int, 0),
        sample_permille=table.take("sample_permille", int, 0),
        letter_days=table.take("letter_days", int, 0),
    )
    table.end()
    return made


def _output(table: Table) -> OutputRule:
    rule = OutputRule(
        kind=table.choose("kind", JobKind),
        name=table.take("name", str),
        class_=table.choose("class", OutputClass),
        min_group=table.take("min_group", int, 0),
        round_to=table.take("round_to", int, 1),
        max_rows=table.take("max_rows", int),
        max_bytes=table.take("max_bytes", int),
        reviewed=table.take("reviewed", bool, False),
        top_two=table.take("top_two", int, 0),
        remainder=table.take("remainder", int, 0),
        suppress=table.take("suppress", bool, False),
    )
    table.end()
    return rule


def _dimension(table: Table) -> Dimension:
    places = table.take("places", int, 0)
    made = Dimension(
        name=table.take("name", str),
        column=table.take("column", str),
        values=table.texts("values", []),
        edges=table.decimals("edges", places) if table.has("edges") else (),
        places=places,
    )
    table.end()
    return made


def _range(table: Table) -> MeasureRange:
    places = table.take("places", int, 0)
    made = MeasureRange(table.take("column", str), table.decimal("low", places), table.decimal("high", places), places)
    table.end()
    return made


def _card(table: Table, base: Path) -> tuple[bytes, bytes]:
    """Return identity and sealing key of a card; empty where none is named yet."""
    name = table.take("card", str, "")
    if not name:
        return b"", b""
    card = read_card(table.where, base / name)
    return card.identity_key, card.sealing.key


def _moment(table: Table, name: str) -> datetime | None:
    value = table.take(name, (date, str), "")
    if isinstance(value, str):
        if not value:
            return None
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidSpec(tell=f"{table.where}: {name} is not a time in ISO 8601") from None
    if not isinstance(value, datetime):
        value = datetime.combine(value, time())
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
