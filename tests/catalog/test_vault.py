"""Rows at rest: they come back as they were, or not at all."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from catalog_builders import CODE, EVERY_TYPE, ROWS, Version, batch, schema

from sandbox.catalog import vault
from sandbox.catalog.chunks import CHUNK_ROWS
from sandbox.catalog.content import ContentHash
from sandbox.catalog.schema import FieldType, schema_digest
from sandbox.catalog.vault_keys import manifest_mac, wrap
from sandbox.crypto.sm3 import tagged
from sandbox.errors import AlreadyExists, IntegrityFailed, InvalidSpec, NotFound, Unavailable

NODE_KEY = bytes(range(16))
CANARY = "canary7731"
TWO = schema({"id": FieldType.STRING, "n": FieldType.INTEGER})
ROWS_OF_THREE = 2 * CHUNK_ROWS + 10  # three chunks


def numbered(rows: int, mark: str = "k") -> pa.RecordBatch:
    numbers = pa.array(range(rows))
    names = pc.binary_join_element_wise(mark, numbers.cast(pa.string()), "")
    return pa.RecordBatch.from_arrays([names, numbers], schema=TWO.arrow())


def seal(home: Path, rows: pa.RecordBatch, version: int = 1) -> tuple[Path, bytes, vault.Sealed]:
    sealed = vault.seal_version(home, NODE_KEY, Version(TWO, version), iter([rows]))
    key = vault.unwrap(NODE_KEY, sealed.wrapped_key, CODE, version)
    return vault.version_dir(home, CODE, version), key, sealed


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, vault.Sealed]:
    """A version of three chunks; tests that change it take a copy."""
    return seal(tmp_path_factory.mktemp("vault"), numbered(ROWS_OF_THREE))


@pytest.fixture
def copy(three: tuple[Path, bytes, vault.Sealed], tmp_path: Path) -> tuple[Path, bytes]:
    place = vault.version_dir(tmp_path, CODE, 1)
    shutil.copytree(three[0], place)
    return place, three[1]


def count(place: Path, key: bytes) -> int:
    return sum(rows.num_rows for rows in vault.open_version(place, key))


# Coming back


def test_every_type_comes_back_with_its_missing_values(tmp_path: Path) -> None:
    sealed = vault.seal_version(tmp_path, NODE_KEY, Version(EVERY_TYPE), iter([batch()]))
    key = vault.unwrap(NODE_KEY, sealed.wrapped_key, CODE, 1)
    place = vault.version_dir(tmp_path, CODE, 1)
    (back,) = vault.open_version(place, key)
    assert back.equals(batch())
    (some,) = vault.open_version(place, key, ["since", "id"])
    assert some.to_pydict() == {"since": ROWS["since"], "id": ROWS["id"]}


def test_chunks_keep_order_whatever_the_batches(tmp_path: Path, three: tuple[Path, bytes, vault.Sealed]) -> None:
    whole = numbered(ROWS_OF_THREE)
    cuts = [0, 0, 1, 70_000, 70_001, 131_071, 131_072, ROWS_OF_THREE, ROWS_OF_THREE]
    pieces = (whole.slice(a, b - a) for a, b in pairwise(cuts))
    sealed = vault.seal_version(tmp_path, NODE_KEY, Version(TWO), pieces)
    key = vault.unwrap(NODE_KEY, sealed.wrapped_key, CODE, 1)
    for place, one in ((vault.version_dir(tmp_path, CODE, 1), key), three[:2]):
        back = list(vault.open_version(place, one))
        assert [rows.num_rows for rows in back] == [CHUNK_ROWS, CHUNK_ROWS, 10]
        assert pa.concat_batches(back).equals(whole)
    assert sealed.content_hash == three[2].content_hash


def test_a_full_last_chunk_is_the_last_one(tmp_path: Path) -> None:
    place, key, sealed = seal(tmp_path, numbered(CHUNK_ROWS))
    assert len(sealed.manifest.chunks) == 1 and count(place, key) == CHUNK_ROWS


def test_the_manifest_says_what_there_is_and_no_value(tmp_path: Path) -> None:
    place, key, sealed = seal(tmp_path, numbered(5, CANARY))
    manifest = vault.read_manifest(place, key)
    content = ContentHash(TWO)
    content.update(numbered(5, CANARY))
    assert manifest == sealed.manifest
    assert (manifest.code, manifest.version, manifest.rows, manifest.key) == (CODE, 1, 5, ("id",))
    assert manifest.content_hash == sealed.content_hash == content.digest()
    assert manifest.schema_digest == schema_digest(TWO)
    assert json.loads((place / "manifest.json").read_bytes())["rows"] == 5
    (chunk,) = manifest.chunks
    data = (place / "chunk-00000.sealed").read_bytes()
    assert (chunk.rows, chunk.size, chunk.digest) == (5, len(data), tagged("chunk", data))
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or CANARY.encode() not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0


def test_the_same_rows_are_never_sealed_to_the_same_bytes(tmp_path: Path) -> None:
    one, other = (seal(tmp_path, numbered(5), version)[0] for version in (1, 2))
    assert (one / "chunk-00000.sealed").read_bytes() != (other / "chunk-00000.sealed").read_bytes()


def test_reading_is_lazy(copy: tuple[Path, bytes]) -> None:
    place, key = copy
    data = bytearray((place / "chunk-00002.sealed").read_bytes())
    data[-1] ^= 1
    (place / "chunk-00002.sealed").write_bytes(data)
    rows = vault.open_version(place, key)
    assert next(rows).num_rows == next(rows).num_rows == CHUNK_ROWS
    with pytest.raises(IntegrityFailed):
        next(rows)


def test_sealing_takes_one_batch_after_the_other(tmp_path: Path) -> None:
    written = []

    def batches() -> Iterator[pa.RecordBatch]:
        for _ in range(4):
            written.append(len(list(tmp_path.glob("*/.sealing-*/chunk-*"))))
            yield numbered(CHUNK_ROWS)

    vault.seal_version(tmp_path, NODE_KEY, Version(TWO), batches())
    assert written == [0, 0, 1, 2]  # one chunk behind: the last one is marked


@pytest.mark.parametrize("columns", [[], ["none"], ["id", "id"]])
def test_columns_that_are_not_there_are_refused(copy: tuple[Path, bytes], columns: list[str]) -> None:
    with pytest.raises(InvalidSpec):
        next(vault.open_version(*copy, columns))


# Tampering


@pytest.mark.parametrize("name", ["chunk-00000.sealed", "chunk-00002.sealed", "manifest.json", "manifest.mac"])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 1.0])
def test_a_flipped_byte_is_noticed(copy: tuple[Path, bytes], name: str, where: float) -> None:
    path = copy[0] / name
    data = bytearray(path.read_bytes())
    data[int(where * (len(data) - 1))] ^= 0x20
    path.write_bytes(data)
    with pytest.raises(IntegrityFailed):
        count(*copy)


def swap(place: Path) -> None:
    one, other = place / "chunk-00000.sealed", place / "chunk-00001.sealed"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def cut(place: Path) -> None:
    path = place / "chunk-00001.sealed"
    path.write_bytes(path.read_bytes()[:-1])


def extend(place: Path) -> None:
    with (place / "chunk-00001.sealed").open("ab") as file:
        file.write(b"\0")


TAMPERED: list[Callable[[Path], object]] = [
    swap,
    cut,
    extend,
    lambda place: (place / "chunk-00002.sealed").unlink(),
    lambda place: (place / "chunk-00000.sealed").unlink(),
    lambda place: (place / "chunk-00002.sealed").write_bytes(b""),
    lambda place: (place / "manifest.json").unlink(),
    lambda place: (place / "manifest.mac").unlink(),
    lambda place: (place / "manifest.mac").write_bytes(b""),
    lambda place: shutil.copy(place / "chunk-00000.sealed", place / "chunk-00003.sealed"),
    lambda place: shutil.copy(place / "chunk-00000.sealed", place / "chunk-00001.sealed"),
]


@pytest.mark.parametrize("tamper", TAMPERED)
def test_chunks_in_other_places_missing_or_cut_are_noticed(
    copy: tuple[Path, bytes], tamper: Callable[[Path], object]
) -> None:
    assert count(*copy) == ROWS_OF_THREE
    tamper(copy[0])
    with pytest.raises(IntegrityFailed):
        count(*copy)


def forge(place: Path, key: bytes, change: Callable[[dict[str, object]], object]) -> None:
    """Rewrite the manifest as somebody could who has the version's key: the chunks still know their places."""
    tree = json.loads((place / "manifest.json").read_bytes())
    change(tree)
    data = json.dumps(tree).encode()
    (place / "manifest.json").write_bytes(data)
    (place / "manifest.mac").write_bytes(manifest_mac(key, data))


def test_the_last_chunk_cannot_be_dropped_even_with_a_fitting_manifest(copy: tuple[Path, bytes]) -> None:
    place, key = copy
    (place / "chunk-00002.sealed").unlink()
    forge(place, key, lambda tree: tree["chunks"].pop())  # type: ignore[attr-defined]
    with pytest.raises(IntegrityFailed):
        count(place, key)


def test_chunks_cannot_be_reordered_even_with_a_fitting_manifest(copy: tuple[Path, bytes]) -> None:
    place, key = copy
    swap(place)
    forge(place, key, lambda tree: tree.update(chunks=[tree["chunks"][i] for i in (1, 0, 2)]))  # type: ignore[index]
    with pytest.raises(IntegrityFailed):
        count(place, key)


def test_a_chunk_with_other_rows_than_its_manifest_says_is_refused(copy: tuple[Path, bytes]) -> None:
    forge(*copy, lambda tree: tree["chunks"][0].__setitem__(0, CHUNK_ROWS - 1))  # type: ignore[index]
    with pytest.raises(IntegrityFailed, match="other rows"):
        count(*copy)


@pytest.mark.parametrize(
    "change", [{"format": "x"}, {"rows": None, "chunks": 7}, {"columns": [["id", "text"]]}, {"chunks": [[9, 9, "00"]]}]
)
def test_a_manifest_of_another_format_is_refused(copy: tuple[Path, bytes], change: dict[str, object]) -> None:
    forge(*copy, lambda tree: tree.update(change))
    with pytest.raises(IntegrityFailed):
        count(*copy)


def test_chunks_of_another_version_do_not_open(tmp_path: Path) -> None:
    (one, key, _), (other, _, _) = (seal(tmp_path, numbered(1000), version) for version in (1, 2))
    for name in ("chunk-00000.sealed", "manifest.json", "manifest.mac"):
        kept = (one / name).read_bytes()
        shutil.copy(other / name, one / name)
        with pytest.raises(IntegrityFailed):
            count(one, key)
        (one / name).write_bytes(kept)
    assert count(one, key) == 1000
    other_key = secrets.token_bytes(16)
    with pytest.raises(IntegrityFailed):
        count(one, other_key)


def test_a_version_under_the_name_of_another_does_not_open(tmp_path: Path) -> None:
    place, key, _ = seal(tmp_path, numbered(10))
    moved = place.rename(place.parent / "2")
    with pytest.raises(IntegrityFailed):
        count(moved, key)


def test_a_wrapped_key_opens_only_for_its_version_and_node() -> None:
    wrapped = wrap(NODE_KEY, bytes(16), CODE, 1)
    assert len(wrapped) == 44 and vault.unwrap(NODE_KEY, wrapped, CODE, 1) == bytes(16)
    changed = wrapped[:-1] + bytes([wrapped[-1] ^ 1])
    for key, data, code, version in (
        (bytes(16), wrapped, CODE, 1),
        (NODE_KEY, wrapped, CODE, 2),
        (NODE_KEY, wrapped, CODE[::-1], 1),
        (NODE_KEY, changed, CODE, 1),
        (NODE_KEY, wrapped[:12], CODE, 1),
        (NODE_KEY, b"", CODE, 1),
    ):
        with pytest.raises(IntegrityFailed):
            vault.unwrap(key, data, code, version)


# Failing half-way


def test_a_table_that_turns_out_wrong_leaves_nothing(tmp_path: Path) -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        yield numbered(2 * CHUNK_ROWS)
        assert list(tmp_path.glob("*/.sealing-*/chunk-*"))
        raise InvalidSpec("row 131073: the key is missing or empty")

    with pytest.raises(InvalidSpec, match="131073"):
        vault.seal_version(tmp_path, NODE_KEY, Version(TWO), batches())
    assert [path for path in tmp_path.rglob("*") if path.name != CODE] == []
    assert seal(tmp_path, numbered(3))[0].is_dir()


@pytest.mark.parametrize("batches", [[], [numbered(0)]])
def test_no_rows_are_not_sealed(tmp_path: Path, batches: list[pa.RecordBatch]) -> None:
    with pytest.raises(InvalidSpec, match="no rows"):
        vault.seal_version(tmp_path, NODE_KEY, Version(TWO), iter(batches))
    assert list(tmp_path.glob("*/*")) == []


def test_other_columns_are_not_sealed(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec):
        vault.seal_version(tmp_path, NODE_KEY, Version(TWO), iter([batch()]))
    assert list(tmp_path.glob("*/.*")) == list(tmp_path.glob("*/*")) == []


def _seal_and_hang(home: Path, ready: str) -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        yield numbered(2 * CHUNK_ROWS + 1)
        Path(ready).touch()
        signal.pause()

    vault.seal_version(home, NODE_KEY, Version(TWO), batches())


def test_a_killed_sealing_leaves_nothing_to_open_and_is_swept(tmp_path: Path) -> None:
    home, ready = tmp_path / "vault", tmp_path / "ready"
    home.mkdir()
    process = multiprocessing.get_context("spawn").Process(target=_seal_and_hang, args=(home, str(ready)))
    process.start()
    try:
        while not ready.exists():
            process.join(0.02)
            assert process.is_alive()
        assert vault.sweep(home) == 0  # somebody is at work there
        assert len(list(home.glob("*/.sealing-*/chunk-*"))) == 1
    finally:
        process.kill()
        process.join()
    assert not vault.version_dir(home, CODE, 1).exists()
    assert vault.sweep(home) == 1
    assert list(home.glob("*/*")) == list(home.glob("*/.*")) == []
    place, key, _ = seal(home, numbered(3))
    assert vault.sweep(home) == 0 and count(place, key) == 3


def test_a_version_is_sealed_once(tmp_path: Path) -> None:
    place, key, _ = seal(tmp_path, numbered(3))
    with pytest.raises(AlreadyExists):
        seal(tmp_path, numbered(4))
    assert count(place, key) == 3


def test_of_two_sealings_at_once_one_wins(tmp_path: Path) -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        yield numbered(4)
        seal(tmp_path, numbered(3))

    with pytest.raises(AlreadyExists):
        vault.seal_version(tmp_path, NODE_KEY, Version(TWO), batches())
    assert [path.name for path in tmp_path.glob("*/*")] == ["1"]
    assert [path.name for path in tmp_path.glob("*/.*")] == []


def test_a_disk_that_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "vault").write_bytes(b"")
    with pytest.raises(Unavailable, match="cannot be made"):
        seal(tmp_path / "vault", numbered(3))


@pytest.mark.parametrize(("code", "version"), [("../x", 1), ("A" * 20, 1), (CODE, 0), (CODE, -1)])
def test_places_outside_the_vault_are_refused(tmp_path: Path, code: str, version: int) -> None:
    with pytest.raises(InvalidSpec):
        vault.seal_version(tmp_path, NODE_KEY, Version(TWO, version, code), iter([numbered(3)]))
    assert list(tmp_path.iterdir()) == []


# Destroying


def test_destroying_removes_the_rows_and_says_what_they_were(tmp_path: Path) -> None:
    place, key, sealed = seal(tmp_path, numbered(ROWS_OF_THREE))
    facts = vault.destroy(place, key)
    assert facts == vault.DestroyReceiptFacts(
        code=CODE,
        version=1,
        content_hash=sealed.content_hash,
        rows=ROWS_OF_THREE,
        chunk_digests=tuple(chunk.digest for chunk in sealed.manifest.chunks),
        verified=True,
    )
    assert list(place.parent.iterdir()) == []
    for again in (lambda: vault.destroy(place, key), lambda: count(place, key)):
        with pytest.raises(NotFound):
            again()


@pytest.mark.parametrize("lost", [True, False])
def test_what_was_tampered_with_or_lost_its_key_can_be_destroyed(copy: tuple[Path, bytes], lost: bool) -> None:
    place, key = copy
    if not lost:
        (place / "manifest.json").write_bytes(b"{}")
    digests = tuple(tagged("chunk", path.read_bytes()) for path in sorted(place.glob("chunk-*")))
    facts = vault.destroy(place, None if lost else key)
    assert (facts.verified, facts.content_hash, facts.chunk_digests) == (False, b"", digests)
    assert not place.exists()


def test_an_interrupted_destruction_is_finished_by_the_sweep(copy: tuple[Path, bytes]) -> None:
    place, _ = copy
    left = place.rename(place.parent / ".destroying-0123456789abcdef")
    kept = place.parent / ".other"
    kept.mkdir()
    handle = os.open(left, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert vault.sweep(place.parent.parent) == 0
    os.close(handle)
    assert vault.sweep(place.parent.parent) == 1
    assert [path.name for path in place.parent.iterdir()] == [".other"]


@pytest.mark.parametrize("part", [".", "..", "x", "01", "../.."])
def test_only_versions_can_be_destroyed(copy: tuple[Path, bytes], part: str) -> None:
    place, key = copy
    with pytest.raises(NotFound):
        vault.destroy(place.parent / part, key)
    assert count(place, key) == ROWS_OF_THREE


def test_many_kinds_of_rows_survive_chunk_borders(tmp_path: Path) -> None:
    n = CHUNK_ROWS + 3
    of = EVERY_TYPE
    start = date(1990, 1, 1)
    rows: dict[str, list[Any]] = {
        "id": [str(i) for i in range(n)],
        "姓名": [None if i % 7 == 0 else "名" * (i % 5) for i in range(n)],
        "income": [None if i % 11 == 0 else Decimal(i) / 100 for i in range(n)],
        "orders": [None if i % 3 == 0 else -i for i in range(n)],
        "active": [None if i % 4 == 0 else i % 2 == 0 for i in range(n)],
        "since": [None if i % 5 == 0 else start + timedelta(days=i % 9999) for i in range(n)],
    }
    sealed = vault.seal_version(tmp_path, NODE_KEY, Version(of), iter([batch(rows)]))
    key = vault.unwrap(NODE_KEY, sealed.wrapped_key, CODE, 1)
    back = list(vault.open_version(vault.version_dir(tmp_path, CODE, 1), key))
    assert len(back) == 2 and pa.concat_batches(back).equals(batch(rows))
