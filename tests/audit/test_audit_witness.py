"""Co-signing: growth is accepted, everything else is not, and nothing is signed or stored then."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from audit_parties import Signer
from sqlalchemy import Connection, Engine, create_engine, text

from sandbox.audit import log, merkle, tables
from sandbox.audit.checkpoint import Checkpoint, sign_checkpoint, verify_cosignature
from sandbox.audit.witness import cosign_checked, seen
from sandbox.crypto.sm3 import sm3
from sandbox.errors import IntegrityFailed, InvalidSpec, WrongState

ENTRIES = [b"%d" % n for n in range(9)]


def note_of(signer: Signer, entries: list[bytes]) -> bytes:
    head = Checkpoint(signer.name, len(entries), merkle.root(entries, sm3))
    return sign_checkpoint(head, signer.name, signer.key)


def ask(conn: Connection, origin: Signer, witness: Signer, note: bytes, proof: Sequence[bytes], now: int = 7) -> bytes:
    return cosign_checked(conn, note, origin.verifier, proof, witness.name, witness.key, now)


def test_a_growing_log_is_cosigned_each_time(conn: Connection, origin: Signer, bank: Signer) -> None:
    last = 0
    for now, size in enumerate((0, 3, 3, 8, 9)):
        note = note_of(origin, ENTRIES[:size])
        line = ask(conn, origin, bank, note, merkle.consistency(last, ENTRIES[:size], sm3), now)
        assert verify_cosignature(note + line, bank.verifier) == now
        assert seen(conn, origin.name) == (Checkpoint(origin.name, size, merkle.root(ENTRIES[:size], sm3)), note)
        last = size
    assert seen(conn, bank.name) is None


def test_a_log_of_one_node_is_cosigned_by_another(engine: Engine, origin: Signer, bank: Signer, tmp_path: Path) -> None:
    other = create_engine(f"sqlite:///{tmp_path / 'witness.db'}")
    tables.metadata.create_all(other)
    last = 0
    for entry in ENTRIES:
        with engine.begin() as ours, other.begin() as theirs:
            log.append(ours, entry)
            note = log.checkpoint(ours, origin.name, origin.key)
            proof = log.consistency(ours, last, log.size(ours))
            assert verify_cosignature(note + ask(theirs, origin, bank, note, proof), bank.verifier) == 7
            last = log.size(ours)
    other.dispose()


def test_a_split_view_is_refused_and_nothing_is_stored(conn: Connection, origin: Signer, bank: Signer) -> None:
    honest = note_of(origin, ENTRIES[:5])
    ask(conn, origin, bank, honest, [])
    before = seen(conn, origin.name)
    forked = [*ENTRIES[:4], b"another"]
    grown_fork = [*forked, b"more"]
    for note, proof, words in (
        (note_of(origin, forked), [], "two histories of 5"),
        (note_of(origin, grown_fork), merkle.consistency(5, grown_fork, sm3), "does not extend"),
        (note_of(origin, grown_fork), [], "too short"),
        (note_of(origin, ENTRIES[:4]), [], "shrank from 5 to 4"),
        (note_of(origin, ENTRIES[:4]), merkle.consistency(4, ENTRIES[:5], sm3), "shrank"),
        (note_of(origin, []), [], "shrank"),
        (note_of(origin, ENTRIES), merkle.consistency(4, ENTRIES, sm3), "consistency"),
        (note_of(origin, ENTRIES), [*merkle.consistency(5, ENTRIES, sm3), sm3(b"")], "too long"),
        (honest, [sm3(b"")], "too long"),
        (note_of(bank, ENTRIES), merkle.consistency(5, ENTRIES, sm3), "another origin"),
        (note_of(Signer(origin.name, bank.key), ENTRIES), merkle.consistency(5, ENTRIES, sm3), "signatures"),
        (honest[:-1], [], "malformed"),
    ):
        with pytest.raises(IntegrityFailed, match=words):
            ask(conn, origin, bank, note, proof)
        assert seen(conn, origin.name) == before
    ask(conn, origin, bank, note_of(origin, ENTRIES), merkle.consistency(5, ENTRIES, sm3))


def test_the_first_head_needs_no_proof_and_takes_none(conn: Connection, origin: Signer, bank: Signer) -> None:
    with pytest.raises(IntegrityFailed, match="too long"):
        ask(conn, origin, bank, note_of(origin, ENTRIES), [sm3(b"")])
    assert seen(conn, origin.name) is None
    empty_with_a_root = sign_checkpoint(Checkpoint(origin.name, 0, sm3(b"x")), origin.name, origin.key)
    with pytest.raises(IntegrityFailed):
        ask(conn, origin, bank, empty_with_a_root, [])


def test_a_log_does_not_cosign_itself(conn: Connection, origin: Signer, bank: Signer) -> None:
    for self_in_disguise in (origin, Signer(origin.name, bank.key), Signer(bank.name, origin.key)):
        with pytest.raises(InvalidSpec):
            ask(conn, origin, self_in_disguise, note_of(origin, ENTRIES), [])
    assert seen(conn, origin.name) is None


def test_what_was_seen_is_forgotten_only_with_the_transaction(engine: Engine, origin: Signer, bank: Signer) -> None:
    with engine.connect() as conn:
        ask(conn, origin, bank, note_of(origin, ENTRIES), [])
        conn.rollback()
    with engine.begin() as conn:
        assert seen(conn, origin.name) is None
        ask(conn, origin, bank, note_of(origin, ENTRIES), [])
    with engine.begin() as conn, pytest.raises(IntegrityFailed, match="shrank"):
        ask(conn, origin, bank, note_of(origin, ENTRIES[:8]), [])


@pytest.mark.parametrize("column", ["size = 4", "root = X'00'", "note = X'00'"])
def test_altered_witness_state_is_noticed(conn: Connection, origin: Signer, bank: Signer, column: str) -> None:
    ask(conn, origin, bank, note_of(origin, ENTRIES[:5]), [])
    conn.execute(text(f"UPDATE audit_seen SET {column}"))
    with pytest.raises(IntegrityFailed):
        ask(conn, origin, bank, note_of(origin, ENTRIES), merkle.consistency(5, ENTRIES, sm3))


def test_of_two_heads_checked_at_once_one_is_cosigned(
    conn: Connection, origin: Signer, bank: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading what was seen and storing the new head, another transaction stores its own."""
    check, name = merkle.verify_consistency, "sandbox.audit.witness.verify_consistency"
    rivals = [ENTRIES[:3], [*ENTRIES[:3], b"rival"]]

    def slow(*args: object) -> None:
        monkeypatch.setattr(name, check)
        rival = rivals.pop(0)
        ask(conn, origin, bank, note_of(origin, rival), merkle.consistency(3 if len(rival) > 3 else 0, rival, sm3))
        check(*args)  # type: ignore[arg-type]

    for size, old in ((5, 0), (9, 3)):
        monkeypatch.setattr(name, slow)
        entries = ENTRIES[:size]
        with pytest.raises(WrongState, match="meanwhile"):
            ask(conn, origin, bank, note_of(origin, entries), merkle.consistency(old, entries, sm3))
    last = seen(conn, origin.name)
    assert last is not None
    assert last[0].size == 4
