"""The log: atomic with its caller, provable, and no alteration of what is stored goes unnoticed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_parties import Signer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, create_engine, delete, func, insert, select, text, update

from sandbox.audit import fsck, log, merkle, tables
from sandbox.audit.checkpoint import Checkpoint, sign_checkpoint, verify_checkpoint
from sandbox.audit.receipt import MAX_LEAF
from sandbox.crypto.sm2 import PrivateKey
from sandbox.crypto.sm3 import sm3
from sandbox.errors import IntegrityFailed, InvalidSpec, NotFound

ENTRIES = [b"entry %d" % n for n in range(13)]


def fill(conn: Connection, signer: Signer, entries: list[bytes] = ENTRIES) -> None:
    """Append, with a checkpoint now and then and at the end."""
    for entry in entries:
        index = log.append(conn, entry, job_of(entry))
        if index in (0, 4):
            log.checkpoint(conn, signer.name, signer.key)
    log.checkpoint(conn, signer.name, signer.key)


def job_of(entry: bytes) -> str:
    return f"job-{entry[-1] % 3}"


def test_entries_come_back_as_written(conn: Connection) -> None:
    assert log.size(conn) == 0
    assert [log.append(conn, entry, job_of(entry)) for entry in ENTRIES] == list(range(13))
    assert log.size(conn) == 13
    assert log.leaf(conn, 7) == b"entry 7"
    assert log.leaves(conn, 0, 100) == ENTRIES
    assert log.leaves(conn, 11, 2) == ENTRIES[11:]
    assert log.leaves(conn, 13, 5) == []
    mine = [(n, entry) for n, entry in enumerate(ENTRIES) if job_of(entry) == "job-1"]
    assert log.for_job(conn, "job-1") == mine
    assert log.for_job(conn, "job-9") == []


def test_proofs_equal_the_reference(conn: Connection, origin: Signer) -> None:
    fill(conn, origin)
    for size in range(14):
        for index in range(size):
            assert log.inclusion(conn, index, size) == merkle.path(index, ENTRIES[:size], sm3)
        for old in range(size + 1):
            assert log.consistency(conn, old, size) == merkle.consistency(old, ENTRIES[:size], sm3)


@pytest.mark.parametrize(
    "ask",
    [
        lambda conn: log.leaf(conn, 13),
        lambda conn: log.inclusion(conn, 13, 13),
        lambda conn: log.inclusion(conn, 0, 14),
        lambda conn: log.inclusion(conn, -1, 13),
        lambda conn: log.consistency(conn, 5, 14),
        lambda conn: log.consistency(conn, 5, 4),
        lambda conn: log.consistency(conn, -1, 4),
    ],
)
def test_what_does_not_exist_is_not_found(
    conn: Connection, origin: Signer, ask: Callable[[Connection], object]
) -> None:
    fill(conn, origin)
    with pytest.raises(NotFound):
        ask(conn)


def test_entries_have_bounds(conn: Connection) -> None:
    for entry in (b"", bytes(MAX_LEAF + 1)):
        with pytest.raises(InvalidSpec):
            log.append(conn, entry)
    log.append(conn, bytes(MAX_LEAF))
    for start, count in ((-1, 1), (0, -1)):
        with pytest.raises(InvalidSpec):
            log.leaves(conn, start, count)


def stored(conn: Connection) -> list[object]:
    return [tuple(row) for table in tables.metadata.sorted_tables for row in conn.execute(select(table))]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.booleans(), st.lists(st.binary(min_size=1, max_size=6), max_size=5)), max_size=6))
def test_an_entry_exists_exactly_if_its_transaction_commits(
    origin: Signer, tmp_path: Path, work: list[tuple[bool, list[bytes]]]
) -> None:
    path = tmp_path / "atomic.db"
    path.unlink(missing_ok=True)
    engine = create_engine(f"sqlite:///{path}")
    tables.metadata.create_all(engine)
    expected: list[bytes] = []
    for commits, entries in work:
        with engine.connect() as conn:
            before = stored(conn)
        with engine.connect() as conn:
            for entry in entries:
                log.append(conn, entry)
            log.checkpoint(conn, origin.name, origin.key)
            if commits:
                conn.commit()
                expected += entries
            else:
                conn.rollback()
        with engine.connect() as conn:
            assert log.leaves(conn, 0, 1000) == expected
            assert commits or stored(conn) == before
            log.check(conn, origin.verifier)
    engine.dispose()


def test_two_writers_at_once_never_share_an_index(engine: Engine) -> None:
    with engine.connect() as one, engine.connect() as two:
        one.execute(text("PRAGMA busy_timeout=0"))
        two.execute(text("PRAGMA busy_timeout=0"))
        log.append(one, b"first")
        with pytest.raises(Exception, match="locked"):
            log.append(two, b"second")
        two.rollback()
        one.commit()
        assert log.append(two, b"second") == 1


def test_a_checkpoint_is_of_the_head_and_signed_once(conn: Connection, origin: Signer) -> None:
    empty = log.checkpoint(conn, origin.name, origin.key)
    assert verify_checkpoint(empty, origin.verifier) == Checkpoint(origin.name, 0, sm3(b""))
    fill(conn, origin)
    note = log.checkpoint(conn, origin.name, origin.key)
    assert verify_checkpoint(note, origin.verifier) == Checkpoint(origin.name, 13, merkle.root(ENTRIES, sm3))
    assert log.checkpoint(conn, origin.name, origin.key) == note
    log.check(conn, origin.verifier, seen=[empty, note], job_of=job_of)


def test_a_new_key_signs_the_same_head_again(conn: Connection, origin: Signer) -> None:
    fill(conn, origin)
    renewed = Signer(origin.name, PrivateKey.generate())
    note = log.checkpoint(conn, renewed.name, renewed.key)
    assert verify_checkpoint(note, renewed.verifier).size == 13
    log.check(conn, renewed.verifier, retired=[origin.verifier])
    with pytest.raises(IntegrityFailed):
        log.check(conn, renewed.verifier)
    with pytest.raises(InvalidSpec, match="signs as"):
        log.checkpoint(conn, "another.example", renewed.key)


def test_a_head_that_does_not_extend_the_last_one_is_not_signed(conn: Connection, origin: Signer) -> None:
    fill(conn, origin)
    other = Checkpoint(origin.name, 13, sm3(b"another history"))
    rewritten = sign_checkpoint(other, origin.name, origin.key)
    conn.execute(update(tables.audit_checkpoint).where(tables.audit_checkpoint.c.size == 13).values(note=rewritten))
    for _ in range(2):  # at the same size, and after one more entry
        before = stored(conn)
        with pytest.raises(IntegrityFailed, match="do not extend"):
            log.checkpoint(conn, origin.name, origin.key)
        assert stored(conn) == before
        log.append(conn, b"more")


# --- golden test 6: flip one byte anywhere, drop the last entry, replay an old checkpoint ---------------------------


CELLS = [
    (tables.audit_leaf.c.index, 13),
    (tables.audit_leaf.c.leaf, 13),
    (tables.audit_leaf.c.job_id, 13),
    (tables.audit_node.c.level, 23),
    (tables.audit_node.c.index, 23),
    (tables.audit_node.c.hash, 23),
    (tables.audit_checkpoint.c.size, 3),
    (tables.audit_checkpoint.c.note, 3),
]


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cell=st.sampled_from(range(len(CELLS))), row=st.integers(0, 22), at=st.integers(0, 9999), bit=st.integers(0, 7))
def test_a_flipped_bit_in_any_column_is_found(
    engine: Engine, origin: Signer, cell: int, row: int, at: int, bit: int
) -> None:
    column, rows = CELLS[cell]
    with engine.connect() as conn:
        fill(conn, origin)
        assert conn.scalar(select(func.count()).select_from(column.table)) == rows
        log.check(conn, origin.verifier, job_of=job_of)
        rowid = conn.scalars(text(f"SELECT rowid FROM {column.table.name}")).all()[row % rows]
        where = text(f"rowid = {rowid}")
        value = conn.scalar(select(column).where(where))
        damaged: object
        if isinstance(value, int):
            damaged = value ^ (1 << (at * 8 + bit) % 63)
        elif isinstance(value, str):
            flipped = flip(value.encode(), at, bit)
            conn.execute(
                text(f"UPDATE {column.table.name} SET {column.name} = CAST(:v AS TEXT) WHERE rowid = {rowid}"),
                {"v": flipped},
            )
            damaged = None
        else:
            assert value is not None
            damaged = flip(value, at, bit)
        if damaged is not None:
            clash = conn.scalar(select(func.count()).select_from(column.table).where(column == damaged))
            if clash and column.primary_key:
                conn.execute(delete(column.table).where(column == damaged))  # the row it lands on is overwritten
            conn.execute(update(column.table).where(where).values({column.name: damaged}))
        with pytest.raises(IntegrityFailed):
            log.check(conn, origin.verifier, job_of=job_of)
        conn.rollback()


def flip(value: bytes, at: int, bit: int) -> bytes:
    changed = bytearray(value)
    changed[at % len(changed)] ^= 1 << bit
    return bytes(changed)


def test_a_byte_altered_on_the_disk_is_found(engine: Engine, origin: Signer, tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    with engine.begin() as conn:
        fill(conn, origin)
    engine.dispose()
    whole = path.read_bytes()
    root = merkle.root(ENTRIES[:4], sm3)
    for needle in (b"entry 7", merkle.leaf_hash(b"entry 3", sm3), root, b"ops.example/audit\n13\n"):
        at = whole.index(needle) + 2
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with engine.connect() as conn, pytest.raises(IntegrityFailed):
            log.check(conn, origin.verifier)
        engine.dispose()
    path.write_bytes(whole)
    with engine.connect() as conn:
        log.check(conn, origin.verifier)


@pytest.mark.parametrize(
    ("value", "words"),
    [("'text'", "column's type"), ("1.5", "column's type")],
)
def test_a_cell_of_another_type_is_damage(conn: Connection, origin: Signer, value: str, words: str) -> None:
    fill(conn, origin)
    conn.execute(text(f"UPDATE audit_node SET hash = {value} WHERE level = 1"))
    with pytest.raises(IntegrityFailed, match=words):
        log.check(conn, origin.verifier)


def test_a_file_that_is_no_database_is_damage_and_a_locked_one_is_not(
    engine: Engine, origin: Signer, tmp_path: Path
) -> None:
    with engine.begin() as conn:
        fill(conn, origin)
    engine.dispose()
    path = tmp_path / "audit.db"
    other = sqlite3.connect(path)
    other.execute("BEGIN EXCLUSIVE")
    with engine.connect() as conn:
        conn.execute(text("PRAGMA busy_timeout=0"))
        with pytest.raises(Exception, match="locked") as raised:
            log.check(conn, origin.verifier)
    assert not isinstance(raised.value, IntegrityFailed)
    other.close()
    engine.dispose()
    path.write_bytes(b"x" * path.stat().st_size)
    with engine.connect() as conn, pytest.raises(IntegrityFailed, match="damaged"):
        log.check(conn, origin.verifier)


def drop_last(conn: Connection, *, nodes: bool, checkpoints: bool) -> None:
    conn.execute(delete(tables.audit_leaf).where(tables.audit_leaf.c.index == 12))
    if nodes:
        node = tables.audit_node.c
        conn.execute(delete(tables.audit_node).where((node.level == 0) & (node.index == 12)))
    if checkpoints:
        conn.execute(delete(tables.audit_checkpoint).where(tables.audit_checkpoint.c.size == 13))


@pytest.mark.parametrize(("nodes", "words"), [(False, "nodes of more"), (True, "checkpoint of more")])
def test_dropping_the_last_entry_is_found(conn: Connection, origin: Signer, nodes: bool, words: str) -> None:
    fill(conn, origin)
    drop_last(conn, nodes=nodes, checkpoints=False)
    with pytest.raises(IntegrityFailed, match=f"12 entries, but .*{words}"):
        log.check(conn, origin.verifier)
    with pytest.raises(IntegrityFailed, match=r"12 entries do not extend the checkpoint of 13"):
        log.checkpoint(conn, origin.name, origin.key)


def test_a_log_cut_back_without_trace_is_shown_by_a_head_kept_elsewhere(conn: Connection, origin: Signer) -> None:
    fill(conn, origin)
    kept = log.checkpoint(conn, origin.name, origin.key)
    drop_last(conn, nodes=True, checkpoints=True)
    log.check(conn, origin.verifier)  # whole in itself: that is why others co-sign
    with pytest.raises(IntegrityFailed, match="checkpoint of more"):
        log.check(conn, origin.verifier, seen=[kept])
    log.append(conn, b"another entry 12")
    log.checkpoint(conn, origin.name, origin.key)
    log.check(conn, origin.verifier)
    with pytest.raises(IntegrityFailed, match="size 13"):
        log.check(conn, origin.verifier, seen=[kept])


def test_replaying_an_old_checkpoint_is_found(conn: Connection, origin: Signer) -> None:
    fill(conn, origin)
    size, note = tables.audit_checkpoint.c.size, tables.audit_checkpoint.c.note
    old = conn.scalar(select(note).where(size == 5))
    conn.execute(update(tables.audit_checkpoint).where(size == 13).values(note=old))
    with pytest.raises(IntegrityFailed, match="size 13 is a note of size 5"):
        log.check(conn, origin.verifier)


def test_a_rewritten_entry_with_all_nodes_recomputed_is_found(conn: Connection, origin: Signer) -> None:
    fill(conn, origin)
    notes = conn.execute(select(tables.audit_checkpoint)).all()
    for table in tables.metadata.sorted_tables:
        conn.execute(delete(table))
    for index, entry in enumerate(ENTRIES):
        log.append(conn, b"rewritten" if index == 3 else entry)
    conn.execute(insert(tables.audit_checkpoint), [{"size": row.size, "note": row.note} for row in notes])
    with pytest.raises(IntegrityFailed, match="checkpoint of size 5 does not match"):
        log.check(conn, origin.verifier)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("UPDATE audit_leaf SET leaf = X'00' WHERE \"index\" = 6", "entry 6 does not match"),
        ('DELETE FROM audit_leaf WHERE "index" = 6', "entry 6 is missing"),
        ("INSERT INTO audit_leaf VALUES (-1, X'00', '')", "entry 0 is missing"),
        ("UPDATE audit_leaf SET job_id = 'job-9' WHERE \"index\" = 6", "entry 6 is filed under another job"),
        (
            "UPDATE audit_node SET hash = X'00' WHERE level = 2 AND \"index\" = 1",
            "entry 7 does not match node 1 of level 2",
        ),
        ('DELETE FROM audit_node WHERE level = 1 AND "index" = 5', "entry 11 does not match"),
        ("INSERT INTO audit_node VALUES (5, 0, X'00')", "nodes of more"),
        ("INSERT INTO audit_checkpoint SELECT -5, note FROM audit_checkpoint WHERE size = 5", "checkpoint of more"),
        ("INSERT INTO audit_checkpoint SELECT 50, note FROM audit_checkpoint WHERE size = 5", "checkpoint of more"),
        (
            "INSERT INTO audit_checkpoint SELECT 6, note FROM audit_checkpoint WHERE size = 5",
            "size 6 is a note of size 5",
        ),
        ("UPDATE audit_checkpoint SET note = X'0a0a' WHERE size = 1", "of size 1 does not verify"),
    ],
)
def test_the_first_damage_is_named(
    conn: Connection, origin: Signer, monkeypatch: pytest.MonkeyPatch, damage: str, words: str
) -> None:
    monkeypatch.setattr(fsck, "BATCH", 4)  # the damage lies in another batch than the start
    fill(conn, origin)
    log.check(conn, origin.verifier, job_of=job_of)
    conn.execute(text(damage))
    with pytest.raises(IntegrityFailed, match=words):
        log.check(conn, origin.verifier, job_of=job_of)


def test_a_second_signature_line_in_a_stored_note_is_found(conn: Connection, origin: Signer) -> None:
    fill(conn, origin)
    note = log.checkpoint(conn, origin.name, origin.key)
    line = note[note.index(b"\n\n") + 2 :].replace(b"ops.", b"oops.")
    conn.execute(update(tables.audit_checkpoint).where(tables.audit_checkpoint.c.size == 13).values(note=note + line))
    with pytest.raises(IntegrityFailed):
        log.check(conn, origin.verifier)


def test_a_missing_node_is_no_proof_and_a_gap_no_list(conn: Connection, origin: Signer) -> None:
    fill(conn, origin)
    conn.execute(delete(tables.audit_node).where(tables.audit_node.c.level == 3))
    conn.execute(delete(tables.audit_leaf).where(tables.audit_leaf.c.index == 2))
    with pytest.raises(IntegrityFailed, match="node 0 of level 3 is missing"):
        log.inclusion(conn, 12, 13)
    with pytest.raises(IntegrityFailed, match="entry 2 is missing"):
        log.leaves(conn, 0, 5)
