"""The catalogue's rows: what each dataset version is, who may see that it is there, and how it is found.

Source:    the directory of public data (公共数据资源目录) with a code for every resource (一数一码).
Security:  an entry holds names, meanings, grades and rounded shares, no value of a row. With ``visible_to`` it is for
           the owner's own people, its department's, and the organisations named; others get ``NotFound``.
Shapes:    ``words`` is what an entry is found by: NFKC, case folded, a line a text. Every word that is looked for must
           be somewhere in it, so that Chinese, which has no blanks between words, is found as English is.
Errors:    ``NotFound``, also where the entry is not for the caller's eyes.
Not here:  rows (vault), registering and destroying (api).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, insert, literal, or_, select, true

from sandbox import signed
from sandbox.catalog.schema import parse_schema, schema_digest
from sandbox.errors import InvalidSpec, NotFound
from sandbox.model import DatasetRegistration, DatasetView, TwinView
from sandbox.store import datasets, twins

STAFF: Final = frozenset({"operator", "reviewer", "auditor"})  # of this node; they see every entry


@dataclass(frozen=True, slots=True)
class Seer:
    """Who looks: of which organisation, and whether one of the node's own people."""

    organisation: str
    is_staff: bool


@dataclass(frozen=True, slots=True)
class Sealed:
    """What sealing and looking through the rows of a version found out."""

    rows: int
    content_hash: bytes
    wrapped_key: bytes
    profile: bytes


def add(conn: Connection, code: str, version: int, body: DatasetRegistration, sealed: Sealed) -> None:
    """Make the entry of a new version."""
    schema = parse_schema(body.schema_json)
    texts = [body.name, code, body.department, body.domain, *body.keywords]
    texts += [text for field in schema.fields for text in (field.name, field.meaning)]
    conn.execute(
        insert(datasets).values(
            code=code,
            version=version,
            name=body.name,
            schema_json=body.schema_json,
            rows=sealed.rows,
            content_hash=sealed.content_hash,
            wrapped_key=sealed.wrapped_key,
            state="active",
            created_ms=signed.now_ms(),
            licence=body.licence,
            retention_days=body.retention_days,
            schema_digest=schema_digest(schema),
            department=body.department,
            domain=body.domain,
            keywords="\n".join(body.keywords),
            update_days=body.update_days,
            as_of=body.as_of,
            visible_to="\n".join(body.visible_to),
            profile=sealed.profile,
            words="\n".join(_folded(text) for text in texts),
        )
    )


def find(conn: Connection, code: str, version: int, seer: Seer | None = None) -> Row[Any]:
    """Return an entry with its twin; ``seer`` must be one who may see it."""
    row = conn.execute(_entries().where(datasets.c.code == code, datasets.c.version == version)).one_or_none()
    if row is None or (seer is not None and not _sees(seer, row)):
        raise NotFound(tell=f"no dataset {code} version {version} here")
    return row


def page(
    conn: Connection, seer: Seer, after: str, limit: int, words: str = "", department: str = "", domain: str = ""
) -> list[Row[Any]]:
    """Return a page of the entries that ``seer`` may see, and in which all words are found."""
    code, _, last = after.partition("/")
    if last and not (last.isascii() and last.isdecimal() and len(last) <= 9):
        raise InvalidSpec(tell="`after` must be CODE or CODE/VERSION")
    later = (datasets.c.code == code) & (datasets.c.version > int(last)) if last else datasets.c.code > code
    query = _entries().where((datasets.c.code > code) | later, _visible(seer))
    for word in _folded(words).split():
        query = query.where(datasets.c.words.contains(word, autoescape=True))
    if department:
        query = query.where(datasets.c.department == department)
    if domain:
        query = query.where(datasets.c.domain == domain)
    return list(conn.execute(query.order_by(datasets.c.code, datasets.c.version).limit(limit)))


def view(row: Row[Any], owner: str) -> DatasetView:
    """Return an entry as people see it."""
    twin = None
    if row.twin_key is not None:
        twin = TwinView(row.twin_rows, row.twin_epsilon_milli, bytes(row.twin_content_hash), row.twin_created_ms)
    return DatasetView(
        code=row.code,
        version=row.version,
        name=row.name,
        owner=owner,
        schema_json=bytes(row.schema_json),
        rows=row.rows,
        content_hash=bytes(row.content_hash),
        state=row.state,
        created_ms=row.created_ms,
        licence=row.licence,
        retention_days=row.retention_days,
        department=row.department,
        domain=row.domain,
        keywords=_lines(row.keywords),
        update_days=row.update_days,
        as_of=row.as_of,
        visible_to=_lines(row.visible_to),
        schema_digest=bytes(row.schema_digest),
        twin=twin,
    )


def _entries() -> Select[Any]:
    both = (twins.c.code == datasets.c.code) & (twins.c.version == datasets.c.version)
    shown = ("rows", "epsilon_milli", "content_hash", "created_ms")
    named = [twins.c[name].label(f"twin_{name}") for name in shown]
    return select(datasets, twins.c.wrapped_key.label("twin_key"), *named).select_from(datasets.outerjoin(twins, both))


def _visible(seer: Seer) -> ColumnElement[bool]:
    if seer.is_staff:
        return true()
    listed = literal("\n") + datasets.c.visible_to + "\n"
    # Not LIKE, which takes capitals for small letters and some names for patterns.
    named = func.replace(listed, "\n" + seer.organisation + "\n", "") != listed
    own = and_(datasets.c.department != "", datasets.c.department == seer.organisation)
    return or_(datasets.c.visible_to == "", named, own)


def _sees(seer: Seer, row: Row[Any]) -> bool:
    named = _lines(row.visible_to)
    return seer.is_staff or not named or seer.organisation in (*named, row.department)


def _lines(text: str) -> tuple[str, ...]:
    return tuple(text.split("\n")) if text else ()


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def check(body: DatasetRegistration, formats: Sequence[str]) -> None:
    """Refuse a registration whose parts do not fit, before anything is stored."""
    for texts in (body.keywords, body.visible_to):
        if any("\n" in text or text != text.strip() for text in texts):
            raise InvalidSpec(tell="keywords and visible_to are lines of text, without blanks around")
    if len(set(body.visible_to)) != len(body.visible_to):
        raise InvalidSpec(tell="visible_to names an organisation twice")
    if body.encoding not in formats:
        raise InvalidSpec(tell=f"encoding must be one of {', '.join(formats)}")
    if not 0 <= body.update_days <= 3660 or not 0 <= body.retention_days <= 36600:
        raise InvalidSpec(tell="update_days must be 0 to 3660, retention_days 0 to 36600")
