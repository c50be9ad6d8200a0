"""The catalogue's entries: who sees which, how they are found, and how they end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import select, update

from sandbox import custody, signed, wire
from sandbox.audit import log as audit_log
from sandbox.catalog import entries, vault
from sandbox.catalog.entries import Seer
from sandbox.catalog.ids import made_up_ids
from sandbox.catalog.registration import make_code
from sandbox.catalog.schema import parse_schema
from sandbox.catalog.survey import Survey, refuse_low
from sandbox.errors import IntegrityFailed, InvalidSpec, NotFound, PolicyRefused
from sandbox.home import Home, init
from sandbox.ledger import Ledger
from sandbox.model import DatasetRegistration, Entry, UploadFile
from sandbox.store import datasets

DAY = 86_400_000
SCHEMA = json.dumps(
    {
        "key": ["id"],
        "fields": [
            {"name": "id", "type": "string", "meaning": "身份证号 of the insured", "grade": "L4"},
            {"name": "base", "type": "integer", "meaning": "缴费基数 contribution base", "grade": "L3", "unit": "元"},
        ],
    }
).encode()
ANYBODY, STAFF = Seer("Some Merchant", False), Seer("Example Bank", True)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    init(tmp_path / "bank", node_id="bank", organisation="Example Bank", listen="127.0.0.1:1")
    home = Home(tmp_path / "bank")
    yield Ledger(home.path, home.settings, home.keys, home.store, lambda: {})
    home.store.close()


class Version:
    """What sealing has to know."""

    def __init__(self, code: str, version: int) -> None:
        self.code, self.version, self.schema = code, version, parse_schema(SCHEMA)


def registered(ledger: Ledger, name: str = "社保缴费记录", version: int = 1, **changes: Any) -> str:
    """Register a version with two rows and return its code."""
    code = make_code("bank", name)
    meta = Version(code, version)
    rows = pa.RecordBatch.from_pydict({"id": ["a", f"b{version}"], "base": [1, 2]}, schema=meta.schema.arrow())
    sealed = vault.seal_version(ledger.home / "vault", ledger.keys.node_key, meta, iter([rows]))
    body = DatasetRegistration(name, SCHEMA, (UploadFile("x.csv", 1, bytes(32)),))
    found = entries.Sealed(2, sealed.content_hash, sealed.wrapped_key, b"{}")
    with ledger.store.write() as conn:
        entries.add(conn, code, version, replace(body, **changes), found)
    return code


def names(ledger: Ledger, seer: Seer = ANYBODY, words: str = "", department: str = "", domain: str = "") -> list[str]:
    with ledger.store.read() as conn:
        return [row.name for row in entries.page(conn, seer, "", 100, words, department, domain)]


# --- finding ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def three(ledger: Ledger) -> Ledger:
    registered(ledger, domain="social insurance", department="人社局", keywords=("参保", "pension"))
    registered(ledger, "公积金 Housing Fund", domain="housing", department="公积金中心")
    registered(ledger, "sea 100% salt_level", domain="marine", keywords=("oyster",))
    return ledger


FOUND: list[tuple[dict[str, str], set[str]]] = [
    ({}, {"社保缴费记录", "公积金 Housing Fund", "sea 100% salt_level"}),
    ({"words": "缴费"}, {"社保缴费记录", "公积金 Housing Fund", "sea 100% salt_level"}),  # a field's meaning
    ({"words": "社保"}, {"社保缴费记录"}),
    ({"words": "PENSION"}, {"社保缴费记录"}),
    ({"words": "ｈｏｕｓｉｎｇ fund"}, {"公积金 Housing Fund"}),
    ({"words": "housing 社保"}, set()),
    ({"words": "100%"}, {"sea 100% salt_level"}),
    ({"words": "10%0"}, set()),
    ({"words": "t_l"}, {"sea 100% salt_level"}),
    ({"words": "tal_"}, set()),
    ({"words": "人社局"}, {"社保缴费记录"}),
    ({"words": "", "department": "公积金中心"}, {"公积金 Housing Fund"}),
    ({"words": "base", "domain": "marine"}, {"sea 100% salt_level"}),
    ({"words": "base", "domain": "mar"}, set()),
]


@pytest.mark.parametrize(("wanted", "expected"), FOUND)
def test_entries_are_found_in_both_languages(three: Ledger, wanted: dict[str, str], expected: set[str]) -> None:
    assert set(names(three, ANYBODY, **wanted)) == expected


def test_pages_follow_each_other(three: Ledger) -> None:
    registered(three, version=2)
    seen, after = [], ""
    with three.store.read() as conn:
        while page := entries.page(conn, ANYBODY, after, 1):
            seen.append((page[0].code, page[0].version))
            after = f"{page[0].code}/{page[0].version}"
    assert len(seen) == len(set(seen)) == 4 and seen == sorted(seen)


# --- who sees what ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seer", "sees"),
    [
        (Seer("Named Ltd", False), True),
        (Seer("Other Named Ltd", False), True),
        (Seer("人社局", False), True),
        (STAFF, True),
        (ANYBODY, False),
        (Seer("Named", False), False),
        (Seer("Ltd\nOther", False), False),
        (Seer("", False), False),
        (Seer("named ltd", False), False),
        (Seer("%", False), False),
        (Seer("Named_Ltd", False), False),
    ],
)
def test_a_restricted_entry_is_there_for_those_named(ledger: Ledger, seer: Seer, sees: bool) -> None:
    code = registered(ledger, department="人社局", visible_to=("Named Ltd", "Other Named Ltd"))
    assert bool(names(ledger, seer)) is sees is bool(names(ledger, seer, words="社保"))
    with ledger.store.read() as conn:
        if sees:
            assert entries.find(conn, code, 1, seer).name == "社保缴费记录"
        else:
            with pytest.raises(NotFound):
                entries.find(conn, code, 1, seer)


def test_an_entry_without_names_is_for_all(ledger: Ledger) -> None:
    registered(ledger)
    assert names(ledger, ANYBODY) == names(ledger, Seer("", False)) == ["社保缴费记录"]


BAD: list[dict[str, Any]] = [
    {"keywords": ("a\nb",)},
    {"visible_to": ("x", "x")},
    {"visible_to": (" x",)},
    {"encoding": "latin-1"},
    {"update_days": 3661},
    {"retention_days": -1},
]


@pytest.mark.parametrize("change", BAD)
def test_terms_that_mean_nothing_are_refused(change: dict[str, Any]) -> None:
    body = DatasetRegistration("x", SCHEMA, (UploadFile("x.csv", 1, bytes(32)),))
    entries.check(body, ("utf-8", "gb18030"))
    with pytest.raises(InvalidSpec):
        entries.check(replace(body, **change), ("utf-8", "gb18030"))


# --- looking through the rows -----------------------------------------------------------------------------------------


def test_grades_that_are_too_low_are_named_and_no_value_is() -> None:
    schema = parse_schema(SCHEMA.replace(b'"L4"', b'"L2"'))
    ids = made_up_ids(200, 1).to_pylist()
    batch = pa.RecordBatch.from_pydict({"id": ids, "base": range(200)}, schema=schema.arrow())
    survey = Survey(schema)
    assert list(survey.watch([batch])) == [batch]
    with pytest.raises(PolicyRefused) as refused:
        refuse_low(survey.too_low())
    assert "id looks like" in refused.value.tell and ids[0] not in str(refused.value) + refused.value.tell
    assert survey.profile().rows == 200


def test_grades_that_are_high_enough_pass() -> None:
    schema = parse_schema(SCHEMA)
    survey = Survey(schema)
    ids = made_up_ids(200, 1)
    list(survey.watch([pa.RecordBatch.from_arrays([ids, pa.array(range(200))], schema=schema.arrow())]))
    refuse_low(survey.too_low())


def test_the_day_that_rows_describe_is_a_day_or_a_column() -> None:
    assert Survey(parse_schema(SCHEMA), "2026-01-31")
    for wrong in ("31.1.2026", "base"):
        with pytest.raises(InvalidSpec):
            Survey(parse_schema(SCHEMA), wrong)


# --- the end ----------------------------------------------------------------------------------------------------------


def state_of(ledger: Ledger, code: str) -> list[str]:
    with ledger.store.read() as conn:
        found = conn.execute(select(datasets.c.state).where(datasets.c.code == code).order_by(datasets.c.version))
        return [state for (state,) in found]


def test_retention_ends_by_itself(ledger: Ledger) -> None:
    code = registered(ledger, retention_days=30)
    registered(ledger, version=2, retention_days=30)
    registered(ledger, version=3)
    assert custody.retire(ledger) == 0
    old = signed.now_ms() - 31 * DAY
    with ledger.store.write() as conn:
        conn.execute(update(datasets).where(datasets.c.version != 2).values(created_ms=old))
    assert custody.retire(ledger) == 1
    assert state_of(ledger, code) == ["destroyed", "active", "active"]
    assert not (ledger.home / "vault" / code / "1").exists() and (ledger.home / "vault" / code / "2").is_dir()
    with ledger.store.read() as conn:
        row = entries.find(conn, code, 1)
        entry = wire.decode(Entry, audit_log.leaf(conn, row.destroyed_entry))
    assert row.wrapped_key is None
    facts = {fact.name: fact.value for fact in entry.facts}
    assert (entry.what, entry.actor, facts["why"], facts["verified"]) == (
        "destroyed",
        "bank",
        "its retention has ended",
        "yes",
    )
    assert custody.retire(ledger) == 0


def test_what_was_damaged_is_destroyed_too_and_said_so(ledger: Ledger) -> None:
    code = registered(ledger)
    place = ledger.home / "vault" / code / "1"
    manifest = place / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b" ")
    index = custody.destroy(ledger, code, 1, "key", "asked for", lambda conn: None)
    assert not place.exists()
    with ledger.store.read() as conn:
        facts = {fact.name: fact.value for fact in wire.decode(Entry, audit_log.leaf(conn, index)).facts}
    assert facts["verified"] == "no"
    assert custody.destroy(ledger, code, 1, "key", "again", lambda conn: None) == index


def test_a_read_after_the_end_says_why(ledger: Ledger) -> None:
    code = registered(ledger)
    with ledger.store.read() as conn:
        wrapped = bytes(entries.find(conn, code, 1).wrapped_key)
    key = vault.unwrap(ledger.keys.node_key, wrapped, code, 1)
    custody.destroy(ledger, code, 1, "key", "asked for", lambda conn: None)
    with pytest.raises(NotFound):
        next(vault.open_version(ledger.home / "vault" / code / "1", key))
    with pytest.raises(IntegrityFailed):
        vault.unwrap(ledger.keys.node_key, wrapped, code, 2)


def test_a_version_that_has_gone_astray_holds_up_nobody(ledger: Ledger) -> None:
    code = registered(ledger, retention_days=1)
    other = registered(ledger, "another", retention_days=1)
    shutil.rmtree(ledger.home / "vault" / code / "1")
    with ledger.store.write() as conn:
        conn.execute(update(datasets).values(created_ms=0))
    assert custody.retire(ledger) == 2
    assert state_of(ledger, code) == state_of(ledger, other) == ["destroyed"]


@pytest.mark.parametrize("after", ["a/99999999999999999999999", "a/x", "a/" + "9" * 5000, "a/²"])
def test_a_page_begins_somewhere(ledger: Ledger, after: str) -> None:
    with ledger.store.read() as conn, pytest.raises(InvalidSpec):
        entries.page(conn, ANYBODY, after, 1)
