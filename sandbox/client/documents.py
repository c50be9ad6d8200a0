"""Scenarios and jobs as people write them: TOML (or JSON with the same members) into shapes.

    scenario.toml      jobs/credit_score/scenario.toml is a complete example, with remarks
    align.toml ...     jobs/credit_score/{align,train,score,applicant}.toml

Shapes:    ``${name}`` inside any text stands for a value given at reading (``--set name=value``); an unknown one is
           refused. Files that a document names (key cards, datasets) are looked for beside it, or in ``files``.
           A dataset is given by ``file``, which holds what ``sandbox dataset show --json`` printed at its owner, or by
           ``owner``, ``code``, ``version`` and ``content_hash``.
Units:     times are TOML dates or texts in ISO 8601; without an offset they are UTC.
Errors:    ``InvalidSpec`` naming file and member, also for members that mean nothing.
Not here:  whether a scenario is wise or a job allowed: the nodes judge that.
"""

from __future__ import annotations

import json
import secrets
import string
import tomllib
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, TypeVar

from sandbox import signed, wire
from sandbox.catalog.registration import check_code
from sandbox.catalog.schema import parse_schema
from sandbox.client import specs
from sandbox.client.specs import Applicant
from sandbox.errors import InvalidSpec
from sandbox.model import (
    Consent,
    ConsentRule,
    DatasetRef,
    DatasetUse,
    JobKind,
    JobSpec,
    KeyCard,
    OutputClass,
    OutputRule,
    PriceTerms,
    PsiEngine,
    Quota,
    Recipient,
    Scenario,
    ScoreScope,
    SealedInput,
    VersionRule,
)

E = TypeVar("E", bound=IntEnum)
MAX_FILE: Final = 1 << 20  # bytes
_REQUIRED: Final = object()


class _Table:
    """One table of a document; every member must be taken, so that a misspelt one is noticed."""

    def __init__(self, where: str, members: object) -> None:
        if not isinstance(members, dict):
            raise InvalidSpec(tell=f"{where} is not a table")
        self.where, self._members, self._taken = where, members, set[str]()

    def take(self, name: str, kind: type[Any] | tuple[type[Any], ...], default: Any = _REQUIRED) -> Any:
        self._taken.add(name)
        value = self._members.get(name, default)
        if value is _REQUIRED:
            raise InvalidSpec(tell=f"{self.where}: {name} is missing")
        if name in self._members and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            raise InvalidSpec(tell=f"{self.where}: {name} is of another type")
        return value

    def choose(self, name: str, kind: type[E], default: E | None = None) -> E:
        text = self.take(name, str, default.name if default else _REQUIRED)
        return _member(f"{self.where}: {name}", kind, text)

    def texts(self, name: str, default: Any = _REQUIRED) -> tuple[str, ...]:
        items = self.take(name, list, default)
        if not all(isinstance(item, str) for item in items):
            raise InvalidSpec(tell=f"{self.where}: {name} is not a list of texts")
        return tuple(items)

    def digest(self, name: str) -> bytes:
        return _hex(f"{self.where}: {name}", self.take(name, str), 32)

    def table(self, name: str, default: Any = _REQUIRED) -> _Table:
        return _Table(f"{self.where}: {name}", self.take(name, dict, default))

    def tables(self, name: str) -> list[_Table]:
        return [_Table(f"{self.where}: {name} {n}", item) for n, item in enumerate(self.take(name, list), 1)]

    def has(self, name: str) -> bool:
        return name in self._members

    def end(self) -> None:
        if unknown := sorted(self._members.keys() - self._taken):
            raise InvalidSpec(tell=f"{self.where}: these members mean nothing here: {', '.join(map(repr, unknown))}")


def scenario_from_toml(path: Path, values: Mapping[str, str] | None = None, files: Path | None = None) -> Scenario:
    """Return the scenario in a document, with a fresh nonce.

    Args:
        path: the document.
        values: what ``${name}`` stands for.
        files: where the files it names lie; by default, beside it.
    """
    top = _open(path, values or {})
    base = files or path.parent
    not_before = _moment(top, "not_before", datetime.now(UTC))
    days = top.take("valid_days", int, 0)
    not_after = _moment(top, "not_after", not_before + timedelta(days=days))
    if top.has("valid_days") == top.has("not_after"):
        raise InvalidSpec(tell=f"{top.where}: give either valid_days or not_after")
    applicant, recipient = top.table("applicant"), top.table("recipient")
    recipient_card = _card(recipient, "card", base)
    quota, consent, price = top.table("quota"), top.table("consent"), top.table("price")
    scenario = Scenario(
        name=top.take("name", str),
        merchant=top.take("merchant", str),
        purpose=top.take("purpose", str),
        applicant_key=_card(applicant, "card", base).identity_key,
        datasets=tuple(_dataset(table, base) for table in top.tables("datasets")),
        kinds=tuple(_member(f"{top.where}: kinds", JobKind, kind) for kind in top.texts("kinds")),
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
    top = _open(path, values or {})
    digest, deadline_s = top.digest("scenario"), top.take("deadline_s", int, 0)
    options: dict[str, Any] = {"request_id": top.take("request_id", str, ""), "deadline_s": deadline_s}
    kinds = [name for name in ("psi", "train", "score") if top.has(name)]
    if len(kinds) != 1:
        raise InvalidSpec(tell=f"{top.where}: exactly one of [psi], [train] and [score] says what to do")
    body = top.table(kinds[0])
    inputs: tuple[SealedInput, ...] = ()
    if kinds == ["psi"]:
        base = files or path.parent
        left, right = (_reference(body.table(side), base) for side in ("left", "right"))
        spec = specs.align(digest, left, right, body.choose("engine", PsiEngine, PsiEngine.AUTO), **options)
    elif kinds == ["train"]:
        spec = specs.train(
            digest,
            body.take("alignment", str),
            steps=body.take("steps", int, specs.STEPS),
            holdout_percent=body.take("holdout_percent", int, specs.HOLDOUT_PERCENT),
            seed=body.take("seed", str, "").encode(),
            l2_micro=body.take("l2_micro", int, specs.L2_MICRO),
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


def _open(path: Path, values: Mapping[str, str]) -> _Table:
    data = path.read_bytes()
    if len(data) > MAX_FILE:
        raise InvalidSpec(tell=f"{path}: a document has at most {MAX_FILE} bytes")
    try:
        text = data.decode("utf-8-sig")
        tree = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidSpec(tell=f"{path}: {error}") from None
    return _Table(str(path), _fill(str(path), tree, values))


def _fill(where: str, tree: Any, values: Mapping[str, str]) -> Any:
    """Put the given values into every text; into texts only, so that a value never becomes structure."""
    if isinstance(tree, dict):
        return {name: _fill(where, item, values) for name, item in tree.items()}
    if isinstance(tree, list):
        return [_fill(where, item, values) for item in tree]
    if not isinstance(tree, str):
        return tree
    try:
        return string.Template(tree).substitute(values)
    except KeyError as error:
        name = error.args[0]
        raise InvalidSpec(tell=f"{where}: ${{{name}}} has no value", hint=f"add --set {name}=VALUE") from None
    except ValueError:
        raise InvalidSpec(tell=f"{where}: a $ that begins no ${{name}}; write $$ for the character") from None


def _dataset(table: _Table, base: Path) -> DatasetUse:
    owner, code, version, content_hash = _identity(table, base)
    use = DatasetUse(
        code=code,
        owner=owner,
        rule=table.choose("rule", VersionRule, VersionRule.EXACT),
        version=version,
        content_hash=content_hash,
        key=table.texts("key"),
        fields=table.texts("fields"),
        label=table.take("label", str, ""),
    )
    table.end()
    return use


def _identity(table: _Table, base: Path) -> tuple[str, str, int, bytes]:
    """Return owner, code, version and content hash, from the table itself or from the file it names."""
    if not table.has("file"):
        code = table.take("code", str)
        check_code(code)
        return table.take("owner", str), code, table.take("version", int), table.digest("content_hash")
    path = base / table.take("file", str)
    view = _open(path, {})
    return view.take("owner", str), view.take("code", str), view.take("version", int), view.digest("content_hash")


def _reference(table: _Table, base: Path) -> DatasetRef:
    if table.has("file"):
        _, code, version, _ = _identity(table, base)
    else:
        code, version = table.take("code", str), table.take("version", int)
        check_code(code)
    table.end()
    return DatasetRef(code, version)


def _output(table: _Table) -> OutputRule:
    rule = OutputRule(
        kind=table.choose("kind", JobKind),
        name=table.take("name", str),
        class_=table.choose("class", OutputClass),
        min_group=table.take("min_group", int, 0),
        round_to=table.take("round_to", int, 1),
        max_rows=table.take("max_rows", int),
        max_bytes=table.take("max_bytes", int),
    )
    table.end()
    return rule


def _card(table: _Table, name: str, base: Path) -> KeyCard:
    return _read_card(table.where, base / table.take(name, str))


def _read_card(where: str, path: Path) -> KeyCard:
    try:
        return signed.open_key_card(signed.read_signed(path.read_bytes()))
    except InvalidSpec as error:
        raise InvalidSpec(tell=f"{where}: {path} is not a key card: {error.tell}") from None


def _moment(table: _Table, name: str, default: datetime) -> datetime:
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


def _member(where: str, kind: type[E], text: str) -> E:
    try:
        return kind[text.upper()]
    except KeyError:
        known = ", ".join(item.name.lower() for item in kind)
        raise InvalidSpec(tell=f"{where} is not one of {known}") from None


def _hex(where: str, text: str, size: int) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != size:
        raise InvalidSpec(tell=f"{where} is not {2 * size} hexadecimal digits")
    return value


T = TypeVar("T")


def _bounded(shape: type[T], value: T, where: str) -> T:
    """Return ``value`` after the checks that every node makes first, so that a person learns of a slip here."""
    try:
        return wire.decode(shape, wire.encode(value))
    except InvalidSpec as error:
        raise InvalidSpec(tell=f"{where}: {error.tell}") from None
    except ValueError as error:  # the encoder's word for a number that does not fit its field
        raise InvalidSpec(tell=f"{where}: a number is out of range: {error}") from None
