"""Scenarios and jobs as people write them: TOML (or JSON with the same members) into shapes.

    scenario.toml      jobs/credit_score/scenario.toml is a complete example, with remarks
    align.toml ...     jobs/credit_score/{align,train,score,applicant}.toml
    query.toml         jobs/income_query/query.toml

Shapes:    a dataset is given by ``file``, which holds what ``sandbox dataset show --json`` printed at its owner, or by
           ``owner``, ``code``, ``version`` and ``content_hash``; a key by the file of its card. Files are looked for
           beside the document, or in ``files``. ``${name}`` is explained in ``members``. A bundle is given by its file
           or by its measurement.
Units:     times are TOML dates or texts in ISO 8601; without an offset they are UTC.
Errors:    ``InvalidSpec`` naming file and member.
Not here:  whether a scenario is wise or a job allowed: the nodes judge that.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from sandbox import signed, wire
from sandbox.catalog.matching import compatible
from sandbox.catalog.registration import check_code
from sandbox.catalog.schema import Schema, parse_schema
from sandbox.client import specs
from sandbox.client.files import read_file
from sandbox.client.members import Table, open_document
from sandbox.client.specs import Applicant
from sandbox.errors import InvalidSpec
from sandbox.model import (
    Consent,
    ConsentRule,
    DatasetRef,
    DatasetUse,
    Dimension,
    JobKind,
    JobSpec,
    KeyCard,
    Measure,
    MeasureRange,
    OutputClass,
    OutputRule,
    PriceTerms,
    PsiEngine,
    PsiOutput,
    Quota,
    Recipient,
    Scenario,
    ScoreScope,
    SealedInput,
    Statistic,
    VersionRule,
)
from sandbox.tee_sim.bundle import MOST_BYTES, parse

T = TypeVar("T")
_KINDS: Final = ("psi", "train", "score", "aggregate", "query", "model")


def scenario_from_toml(path: Path, values: Mapping[str, str] | None = None, files: Path | None = None) -> Scenario:
    """Return the scenario in a document, with a fresh nonce.

    Args:
        path: the document.
        values: what ``${name}`` stands for.
        files: where the files it names lie; by default, beside it.
    """
    top = open_document(path, values or {})
    base = files or path.parent
    not_before = _moment(top, "not_before", datetime.now(UTC))
    days = top.take("valid_days", int, 0)
    not_after = _moment(top, "not_after", not_before + timedelta(days=days))
    if top.has("valid_days") == top.has("not_after"):
        raise InvalidSpec(tell=f"{top.where}: give either valid_days or not_after")
    applicant, recipient = top.table("applicant"), top.table("recipient")
    recipient_card = _card(recipient, "card", base)
    datasets = [_dataset(table, base) for table in top.tables("datasets")]
    kinds = top.choices("kinds", JobKind)
    if JobKind.PSI in kinds:
        _check_keys(top.where, [schema for _, schema in datasets])
    quota, consent, price = top.table("quota"), top.table("consent"), top.table("price")
    scenario = Scenario(
        name=top.take("name", str),
        merchant=top.take("merchant", str),
        purpose=top.take("purpose", str),
        applicant_key=_card(applicant, "card", base).identity_key,
        datasets=tuple(use for use, _ in datasets),
        kinds=kinds,
        outputs=tuple(_output(table) for table in top.tables("outputs")),
        recipient=Recipient(recipient.take("node", str), recipient_card.identity_key, recipient_card.sealing.key),
        operator=top.take("operator", str),
        computing_parties=top.texts("computing_parties", []),
        not_before_ms=_milliseconds(not_before),
        not_after_ms=_milliseconds(not_after),
        quota=Quota(*(quota.take(name, int) for name in ("calls_per_day", "calls_total", "rows_total"))),
        consent=Consent(
            consent.choose("batch", ConsentRule, ConsentRule.NONE),
            consent.choose("single", ConsentRule, ConsentRule.NONE),
            tuple(_read_card(consent.where, base / name).identity_key for name in consent.texts("issuers", [])),
        ),
        score_step=top.take("score_step", int, 5),
        models_per_person=top.take("models_per_person", int, 1),
        price=PriceTerms(
            price.take("tariff", str), price.take("coefficient", str, "1"), price.take("public_good", bool, False)
        ),
        accepts_simulated=top.take("accepts_simulated", bool, False),
        nonce=secrets.token_bytes(16),
        dimensions=tuple(_dimension(table) for table in top.tables("dimensions", [])),
        measures=tuple(_range(table) for table in top.tables("measures", [])),
        accepts_two_contributors=top.take("accepts_two_contributors", bool, False),
        controller=top.take("controller", str, ""),
        epsilon_milli=top.take("epsilon_milli", int, 0),
        bundles=tuple(_measurement(top.where, name, base) for name in top.texts("bundles", [])),
        isolation=top.take("isolation", str, ""),
    )
    for table in (top, applicant, recipient, quota, consent, price):
        table.end()
    return _bounded(Scenario, scenario, top.where)


def job_from_file(
    path: Path,
    values: Mapping[str, str] | None = None,
    files: Path | None = None,
    applicant: Applicant | None = None,
) -> tuple[JobSpec, tuple[SealedInput, ...]]:
    """Return the job in a document, and the sealed inputs it goes with.

    Args:
        path: the document.
        values: what ``${name}`` stands for.
        files: where the files it names lie; by default, beside it.
        applicant: whom a score with ``subject = "applicant"`` is about; never written into a document.
    """
    top = open_document(path, values or {})
    digest, deadline_s = top.digest("scenario"), top.take("deadline_s", int, 0)
    options: dict[str, Any] = {"request_id": top.take("request_id", str, ""), "deadline_s": deadline_s}
    kinds = [name for name in _KINDS if top.has(name)]
    if len(kinds) != 1:
        listed = f"[{'], ['.join(_KINDS[:-1])}] and [{_KINDS[-1]}]"
        raise InvalidSpec(tell=f"{top.where}: exactly one of {listed} says what to do")
    body, base = top.table(kinds[0]), files or path.parent
    inputs: tuple[SealedInput, ...] = ()
    if kinds == ["psi"]:
        left, right = (_reference(body.table(side), base) for side in ("left", "right"))
        spec = specs.align(
            digest,
            left,
            right,
            body.choose("engine", PsiEngine, PsiEngine.AUTO),
            output=body.choose("output", PsiOutput, PsiOutput.ALIGNED),
            measures=[_measure(table) for table in body.tables("measures", [])],
            columns=body.texts("columns", []),
            third=_reference(body.table("third"), base) if body.has("third") else None,
            bucket_rows=body.take("bucket_rows", int, 0),
            **options,
        )
    elif kinds == ["aggregate"]:
        spec = specs.aggregate(
            digest,
            [_reference(table, base) for table in body.tables("datasets", [])],
            measures=[_measure(table) for table in body.tables("measures")],
            groups=body.texts("groups", []),
            alignment=body.take("alignment", str, ""),
            key_bits=body.take("key_bits", int, specs.KEY_BITS),
            margins=body.take("margins", bool, False),
            epsilon_milli=body.take("epsilon_milli", int, 0),
            **options,
        )
    elif kinds == ["query"]:
        spec = specs.query(digest, _reference(body.table("dataset"), base), _statement(body, base), **options)
    elif kinds == ["model"]:
        bundle = _measurement(body.where, body.take("bundle", str), base)
        params = body.take("params", dict, {})
        spec = specs.model(digest, _reference(body.table("dataset"), base), bundle, params, **options)
    elif kinds == ["train"]:
        spec = specs.train(
            digest,
            body.take("alignment", str),
            steps=body.take("steps", int, specs.STEPS),
            holdout_percent=body.take("holdout_percent", int, specs.HOLDOUT_PERCENT),
            seed=body.take("seed", str, "").encode(),
            l2_micro=body.take("l2_micro", int, specs.L2_MICRO),
            release_scorecard=body.take("release_scorecard", bool, False),
            **options,
        )
    elif body.take("subject", str, "holdout") == "applicant":
        if applicant is None:
            raise InvalidSpec(tell=f"{top.where}: the job is about one applicant; say who, with which consent")
        spec, inputs = specs.score_applicant(digest, body.take("model", str), applicant, **options)
    else:
        scope = body.choose("subject", ScoreScope, ScoreScope.HOLDOUT)
        spec = specs.score(digest, body.take("model", str), scope, **options)
    body.end()
    top.end()
    return _bounded(JobSpec, spec, top.where), inputs


def _check_keys(where: str, schemas: Sequence[Schema | None]) -> None:
    """Refuse datasets whose keys could not meet, as far as their catalogue entries are at hand."""
    known = [schema for schema in schemas if schema is not None]
    for other in known[1:]:
        if problems := compatible(known[0], other):
            raise InvalidSpec(tell=f"{where}: {'; '.join(problems)}", hint="see docs/keys.md")


def _dataset(table: Table, base: Path) -> tuple[DatasetUse, Schema | None]:
    owner, reference, content_hash, schema, rows = _entry(table, base)
    use = DatasetUse(
        code=reference.code,
        owner=owner,
        rule=table.choose("rule", VersionRule, VersionRule.EXACT),
        version=reference.version,
        content_hash=content_hash,
        key=table.texts("key"),
        fields=table.texts("fields"),
        label=table.take("label", str, ""),
        rows=rows,
    )
    if schema is not None:
        for name in (*use.key, *use.fields, *([use.label] if use.label else ())):
            if name not in schema.names:
                raise InvalidSpec(tell=f"{table.where}: the dataset has no column {name!r}")
    table.end()
    return use, schema


def _entry(table: Table, base: Path) -> tuple[str, DatasetRef, bytes, Schema | None, int]:
    """Return owner, reference, content hash, schema and rows: from the catalogue entry in a file, or from the table."""
    if table.has("file"):
        view = open_document(base / table.take("file", str), {})
        schema = parse_schema(json.dumps(view.take("schema", dict)).encode()) if view.has("schema") else None
        rows = view.take("rows", int, 0)
        return view.take("owner", str), _code(view), view.digest("content_hash"), schema, rows
    return table.take("owner", str), _code(table), table.digest("content_hash"), None, table.take("rows", int, 0)


def _reference(table: Table, base: Path) -> DatasetRef:
    reference = _code(open_document(base / table.take("file", str), {}) if table.has("file") else table)
    table.end()
    return reference


def _statement(table: Table, base: Path) -> str:
    """Return a statement: from the document, or from a file of its own, as it stands there."""
    if table.has("sql") == table.has("file"):
        raise InvalidSpec(tell=f"{table.where}: give either sql or file")
    if table.has("sql"):
        return str(table.take("sql", str))
    path = base / table.take("file", str)
    try:
        return read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidSpec(tell=f"{path} is not UTF-8") from None


def _measurement(where: str, text: str, base: Path) -> bytes:
    """Return the measurement of a bundle: as it is written, or of the file that is named."""
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text)
    try:
        return parse(read_file(base / text, MOST_BYTES)).measurement
    except InvalidSpec as error:
        raise InvalidSpec(tell=f"{where}: {text} is no bundle: {error.tell}") from None


def _code(table: Table) -> DatasetRef:
    code = table.take("code", str)
    try:
        check_code(code)
    except InvalidSpec as error:
        raise InvalidSpec(tell=f"{table.where}: {error}") from None
    return DatasetRef(code, table.take("version", int))


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


def _measure(table: Table) -> Measure:
    statistic, column = table.choose("statistic", Statistic), table.take("column", str)
    name = table.take("name", str, f"{column}_{statistic.name.lower()}")
    made = Measure(name, statistic, column, table.take("weight", str, ""))
    table.end()
    return made


def _card(table: Table, name: str, base: Path) -> KeyCard:
    return _read_card(table.where, base / table.take(name, str))


def _read_card(where: str, path: Path) -> KeyCard:
    try:
        return signed.open_key_card(signed.read_signed(read_file(path)))
    except InvalidSpec as error:
        raise InvalidSpec(tell=f"{where}: {path} is not a key card: {error.tell}") from None


def _moment(table: Table, name: str, default: datetime) -> datetime:
    value = table.take(name, (date, str), default)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidSpec(tell=f"{table.where}: {name} is not a time in ISO 8601") from None
    if not isinstance(value, datetime):
        value = datetime.combine(value, time())
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _bounded(shape: type[T], value: T, where: str) -> T:
    """Return ``value`` after the checks that every node makes first, so that a person learns of a slip here."""
    try:
        return wire.decode(shape, wire.encode(value))
    except InvalidSpec as error:
        raise InvalidSpec(tell=f"{where}: {error.tell}") from None
    except ValueError as error:  # the encoder's word for a number that does not fit its field
        raise InvalidSpec(tell=f"{where}: a number is out of range: {error}") from None
