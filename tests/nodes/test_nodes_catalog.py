"""Registering and destroying: every bad file is named to its owner by file, column and row, its values to nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Data
from node_world import CANARY, PEOPLE_SCHEMA, World, counting, people_table, schema
from sqlalchemy import select

from sandbox import keyring
from sandbox.catalog.ids import made_up_ids
from sandbox.client import Client, Terms
from sandbox.client.connection import Connection
from sandbox.crypto.sm3 import sm3
from sandbox.errors import (
    AlreadyExists,
    IntegrityFailed,
    InvalidSpec,
    NotFound,
    PolicyRefused,
    SandboxError,
    Unavailable,
    WrongState,
)
from sandbox.model import DatasetRegistration, DatasetView, PsiEngine, State, UploadFile
from sandbox.store import datasets

COLUMNS = {"id": "string", "v": "integer"}


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def rows(ids: list[Any], **columns: Any) -> bytes:
    return parquet(pa.table({"id": ids, "v": list(range(len(ids))), **columns}))


BAD: dict[str, tuple[str, bytes, tuple[str, ...]]] = {
    "neither format": ("x.parquet", f"{CANARY} nothing at all".encode(), ("x.parquet",)),
    "a spreadsheet named csv": ("x.csv", b"PK\x03\x04\x00\xff\xfe" + CANARY.encode(), ("x.csv",)),
    "an empty file": ("x.csv", b"", ("x.csv",)),
    "a column is missing": ("x.csv", f"id\n{CANARY}\n".encode(), ("x.csv", "'v'")),
    "a column of another kind": ("x.parquet", rows([CANARY, "b"], v=[1.5, 2.5]), ("x.parquet", "'v'")),
    "a text among numbers": ("x.csv", f"id,v\na,1\nb,{CANARY}\n".encode(), ("x.csv", "'v'", "row 2")),
    "zero rows in csv": ("x.csv", b"id,v\n", ("x.csv", "row")),
    "zero rows in parquet": ("x.parquet", rows([]), ("x.parquet", "row")),
    "a duplicate key": ("x.parquet", rows(["a", CANARY, "b", CANARY]), ("x.parquet", "rows 2 and 4", "(id)")),
    "a duplicate after normalising": (
        "x.csv",
        f"id,v\n{CANARY},1\n {CANARY.lower()} ,2\n".encode(),
        ("x.csv", "rows 1 and 2", "(id)"),
    ),
    "an empty key": ("x.parquet", rows([CANARY, ""]), ("x.parquet", "'id'", "row 2")),
    "a blank key": ("x.parquet", rows([CANARY, "  "]), ("x.parquet", "'id'", "row 2")),
    "a missing key": ("x.parquet", rows([CANARY, None]), ("x.parquet", "'id'", "row 2")),
    "bytes that are no utf-8": ("x.csv", b"id,v\na,1\n\xff\xfe" + CANARY.encode() + b",2\n", ("x.csv", "row 2")),
    "a truncated parquet file": ("x.parquet", rows([CANARY, "b"])[:-20], ("x.parquet",)),
}


def upload(world: World, name: str, content: bytes, digest: bytes = b"", columns: Any = None, size: int = -1) -> Any:
    """Upload bytes as they are: what a client without our checks could do."""
    described = json.dumps(schema(COLUMNS) if columns is None else columns).encode()
    announced = UploadFile(name, len(content) if size < 0 else size, digest or sm3(content))
    body = DatasetRegistration("bad", described, (announced,))
    line = Connection(world.people["bank-owner"], world.nodes.cards["bank"])
    try:
        return line.upload("CatalogService/RegisterDataset", body, iter([content] if content else []), timeout_s=30)
    finally:
        line.close()


@pytest.mark.parametrize("case", sorted(BAD))
def test_a_bad_file_is_named_and_its_values_are_not(world: World, case: str) -> None:
    name, content, named = BAD[case]
    with pytest.raises(InvalidSpec) as refusal:
        upload(world, name, content)
    told = refusal.value.tell
    if content:
        assert all(part in told for part in named), told
    assert CANARY.lower() not in (told + refusal.value.hint + world.log("bank")).lower()
    assert str(world.run("bank")) not in told
    assert world.select("bank", select(datasets.c.code).where(datasets.c.name == "bad")) == []


@pytest.mark.parametrize("name", ["../x.csv", "a/b.csv", "x.txt", "x.csv\0", ".csv"])
def test_a_file_name_is_a_plain_name(world: World, name: str) -> None:
    with pytest.raises(InvalidSpec, match="file_name"):
        upload(world, name, b"id,v\na,1\n")


def test_an_upload_is_what_was_signed(world: World) -> None:
    content = b"id,v\na,1\n"
    for changed in ({"digest": sm3(b"other")}, {"size": 8}, {"size": 10}):
        with pytest.raises(IntegrityFailed):
            upload(world, "x.csv", content, **changed)
    assert world.select("bank", select(datasets.c.code).where(datasets.c.name == "bad")) == []


def test_a_malformed_schema_is_refused_before_the_upload(world: World) -> None:
    broken: tuple[Any, ...] = (
        {"key": ["nobody"], "fields": schema(COLUMNS)["fields"]},
        {"fields": []},
        [],
        {"key": [], "x": 1},
    )
    for columns in broken:
        with pytest.raises(InvalidSpec):
            upload(world, "x.csv", b"id,v\na,1\n", columns=columns)


def test_versions_and_twins(world: World) -> None:
    first = world.register("bank-owner", people_table(20), PEOPLE_SCHEMA, "versions")
    with pytest.raises(AlreadyExists, match="same rows"):
        world.register("bank-owner", people_table(20), PEOPLE_SCHEMA, "versions")
    second = world.register("bank-owner", people_table(21), PEOPLE_SCHEMA, "versions")
    assert (second.code, first.version, second.version) == (first.code, 1, 2)
    assert world.officer.dataset(first.code, 1) == first
    assert second in world.officer.datasets(limit=500)


def test_csv_and_parquet_of_the_same_rows_are_the_same(world: World, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,v\nA-1,5\nA-2,6\n")
    (tmp_path / "s.json").write_text(json.dumps(PEOPLE_SCHEMA))
    one = world.bank_owner.register_dataset(tmp_path / "a.csv", tmp_path / "s.json", "as-csv")
    two = world.register("bank-owner", pa.table({"id": ["A-1", "A-2"], "v": [5, 6]}), PEOPLE_SCHEMA, "as-parquet")
    assert one.content_hash == two.content_hash and one.rows == two.rows == 2


def test_a_destroyed_dataset_leaves_a_receipt_and_no_rows(world: World) -> None:
    bank = world.register("bank-owner", people_table(60), PEOPLE_SCHEMA, "doomed")
    operator = world.register("op-owner", people_table(60, 20), PEOPLE_SCHEMA, "doomed")
    draft = world.draft(bank, operator)
    digest = world.approved(world.draft(bank, operator, **counting(draft)))
    job = world.released(world.align(digest, bank, operator))
    assert world.officer.result(job.job_id, world.trust()).outputs == {"aligned": {"aligned": 40}}
    with pytest.raises(PolicyRefused):
        world.officer.destroy_dataset(bank.code, bank.version)

    view, receipt = world.bank_owner.destroy_dataset(bank.code, bank.version)
    proven = world.trust().verify(receipt)
    assert view.state == "destroyed" and proven.entry.what == "destroyed" and proven.cosigners == ("witness",)
    facts = {fact.name: fact.value for fact in proven.entry.facts}
    assert facts["code"] == bank.code and facts["content_hash"] == bank.content_hash.hex()
    (row,) = world.select("bank", select(datasets).where(datasets.c.code == bank.code))
    assert row.wrapped_key is None
    assert not list((world.nodes.home("bank") / "vault").glob(f"**/{bank.code}/*/*"))

    with pytest.raises(Unavailable, match="is not available") as refusal:
        world.align(digest, bank, operator)
    assert "ask the data owner" in refusal.value.hint
    again, second = world.bank_owner.destroy_dataset(bank.code, bank.version)  # the first receipt may have got lost
    assert again == view
    assert world.trust().verify(second).index == proven.index


def test_the_others_dataset_is_gone_and_the_asker_learns_only_that(world: World) -> None:
    bank = world.register("bank-owner", people_table(60), PEOPLE_SCHEMA, "widowed")
    operator = world.register("op-owner", people_table(60, 20), PEOPLE_SCHEMA, "widowed")
    digest = world.approved(world.draft(bank, operator, **counting(world.draft(bank, operator))))
    world.op_owner.destroy_dataset(operator.code, operator.version)
    job = world.ended(world.align(digest, bank, operator).job_id)
    assert job.state is State.FAILED and job.failure is not None
    assert (job.failure.code, job.failure.party) == ("Unavailable", "operator")
    assert job.failure.cause == f"dataset {operator.code} version 1 is not available"
    assert "ask the data owner" in job.failure.next_step


def test_a_dataset_in_use_is_not_destroyed(world: World, slow: tuple[Data, bytes]) -> None:
    pair, digest = slow
    job = world.align(digest, pair.bank, pair.operator, engine=PsiEngine.ECDH_X25519)
    world.reached(job.job_id, "compute")
    for client, view in ((world.bank_owner, pair.bank), (world.op_owner, pair.operator)):
        with pytest.raises(WrongState, match="is using it"):
            client.destroy_dataset(view.code, view.version)
    world.officer.cancel(job.job_id)
    assert world.officer.job(job.job_id).state is State.CANCELLED


def test_only_owners_register(world: World, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,v\nA-1,5\n")
    (tmp_path / "s.json").write_text(json.dumps(PEOPLE_SCHEMA))
    with pytest.raises(SandboxError) as refusal:
        world.officer.register_dataset(tmp_path / "a.csv", tmp_path / "s.json", "x")
    assert isinstance(refusal.value, PolicyRefused)
    assert world.leftovers("bank") == []


# --- what an entry says, and to whom --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strangers(world: World) -> Iterator[dict[str, Client]]:
    """Two registered people of other organisations, and one of a source department."""
    with ExitStack() as stack:
        made = {}
        for name, organisation, roles in (
            ("analyst", "Named Analytics", ["merchant"]),
            ("trader", "Some Trader", ["merchant"]),
            ("bureau", "人社局", ["department"]),
        ):
            person = keyring.create_person(world.folder / name, name, organisation)
            home = world.home("bank")
            home.register_key(person.card, roles)
            home.store.close()
            made[name] = stack.enter_context(world.nodes.client(name, "bank"))
        yield made


def filed(
    world: World, tmp_path: Path, client: Client, name: str, *files: tuple[str, bytes], **terms: Any
) -> DatasetView:
    folder = tmp_path / name
    folder.mkdir()
    for file, content in files:
        (folder / file).write_bytes(content)
    (tmp_path / "s.json").write_text(json.dumps(PEOPLE_SCHEMA))
    return client.register_dataset(folder, tmp_path / "s.json", name, terms=Terms(**terms))


def test_a_folder_in_gb18030_is_one_table_that_is_found_in_two_languages(world: World, tmp_path: Path) -> None:
    parts = [("1.csv", "id,v\n张三,1\n李四,\n".encode("gb18030")), ("2.csv", "id,v\n王五,3\n".encode("gb18030"))]
    terms: dict[str, Any] = {"domain": "社会保险", "keywords": ("pension",), "update_days": 30, "as_of": "2026-10-31"}
    view = filed(world, tmp_path, world.bank_owner, "参保人员", *parts, encoding="gb18030", **terms)
    assert (view.rows, view.domain, view.keywords, view.update_days) == (3, "社会保险", ("pension",), 30)
    for words in ("参保", "PENSION", "保险 pension"):
        assert [found.code for found in world.officer.search_datasets(words)] == [view.code]
    assert world.officer.search_datasets("参保 nothing") == ()
    assert [found.code for found in world.officer.search_datasets("", domain="社会保险")] == [view.code]
    profile = world.officer.dataset_profile(view.code, 1)
    assert profile.rows == 3 and str(profile.due) == "2026-11-30"
    with pytest.raises(InvalidSpec, match=r"2\.csv"):
        filed(
            world, tmp_path, world.bank_owner, "broken", parts[0], ("2.csv", b"id,v\n\xff\xff,2\n"), encoding="gb18030"
        )


def test_a_restricted_entry_is_not_there_for_others(world: World, tmp_path: Path, strangers: dict[str, Client]) -> None:
    view = filed(
        world, tmp_path, world.bank_owner, "secret", ("x.csv", b"id,v\nS1,1\n"), visible_to=("Named Analytics",)
    )
    world.bank_owner.make_twin(view.code, 1, 1000)
    for client in (strangers["analyst"], world.officer, world.bank_owner):
        assert client.dataset(view.code, 1).code == view.code
        assert view.code in {found.code for found in client.search_datasets("secret")}
    for name in ("trader", "bureau"):
        with pytest.raises(NotFound) as refused:
            strangers[name].dataset(view.code, 1)
        with pytest.raises(NotFound) as unknown:
            strangers[name].dataset(view.code, 7)
        assert refused.value.tell.replace("version 1", "") == unknown.value.tell.replace("version 7", "")
        with pytest.raises(NotFound):
            strangers[name].get_twin(view.code, 1, tmp_path / f"{name}.parquet")
        assert not {found.code for found in strangers[name].search_datasets("")} & {view.code}
        assert not {found.code for found in strangers[name].datasets(limit=500)} & {view.code}


def test_a_department_manages_its_own_datasets_only(world: World, tmp_path: Path, strangers: dict[str, Client]) -> None:
    bureau = strangers["bureau"]
    with pytest.raises(PolicyRefused, match="of the operator"):
        filed(world, tmp_path, bureau, "bureau-none", ("x.csv", b"id,v\nB1,1\n"))
    view = filed(world, tmp_path, bureau, "bureau-own", ("x.csv", b"id,v\nB1,1\n"), department="人社局")
    assert view.department == "人社局"
    others = filed(world, tmp_path, world.bank_owner, "tax", ("x.csv", b"id,v\nB2,1\n"), department="税务局")
    for attempt in (
        lambda: bureau.make_twin(others.code, 1, 1000),
        lambda: bureau.sample_dataset(others.code, 1),
        lambda: bureau.destroy_dataset(others.code, 1),
    ):
        with pytest.raises(PolicyRefused):
            attempt()
    with pytest.raises(PolicyRefused):  # a new version of another department's dataset, under its name
        (tmp_path / "tax" / "x.csv").write_bytes(b"id,v\nB3,1\n")
        bureau.register_dataset(tmp_path / "tax", tmp_path / "s.json", "tax", terms=Terms(department="人社局"))
    gone, _ = bureau.destroy_dataset(view.code, 1)
    assert gone.state == "destroyed"


def test_grades_that_are_too_low_are_kept_by_a_person_only(world: World, tmp_path: Path) -> None:
    numbers = made_up_ids(300, 11).to_pylist()
    rows = ("id,v\n" + "".join(f"{number},1\n" for number in numbers)).encode()
    with pytest.raises(PolicyRefused, match="id looks like") as refused:
        filed(world, tmp_path, world.bank_owner, "low", ("x.csv", rows))
    assert numbers[0] not in str(refused.value) + world.log("bank")
    assert world.select("bank", select(datasets.c.code).where(datasets.c.name == "low")) == []
    view = filed(world, tmp_path, world.bank_owner, "low-kept", ("x.csv", rows), grades_confirmed=True)
    entry = next(e.entry for e in reversed(world.bank_owner.entries(limit=500)) if e.entry.what == "registered")
    assert {fact.name: fact.value for fact in entry.facts} | {"grades_confirmed": "id"} == {
        fact.name: fact.value for fact in entry.facts
    }
    assert view.rows == 300
