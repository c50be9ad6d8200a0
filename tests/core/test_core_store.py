"""What a node keeps: durable tables, registered keys, pinned peers, key files, settings, and a job's public view."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from core_builders import BANK, JOB, OFFICER, facts, psi
from sqlalchemy import func, select, update

from sandbox import keyring, record, registry, signed, wire
from sandbox.crypto.envelope import sign_payload, verify_payload
from sandbox.crypto.sm2 import PrivateKey
from sandbox.errors import (
    AlreadyExists,
    IntegrityFailed,
    InvalidSpec,
    NotFound,
    SandboxError,
    Unauthenticated,
    WrongState,
)
from sandbox.home import Home, init
from sandbox.model import MOVES, Failure, Fee, JobSubmission, PeerCard, Signed, State, TrailEntry, TrailReport
from sandbox.policy.admit import admit
from sandbox.record import Job
from sandbox.settings import FILE, load
from sandbox.store import Store, jobs, keys, usage


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.at(tmp_path / "store.db")
    made.create()
    yield made
    made.close()


# --- store ----------------------------------------------------------------------------------------------------------


def test_every_connection_is_durable_and_private(store: Store, tmp_path: Path) -> None:
    wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1, "busy_timeout": 10000}
    with store.read() as first, store.read() as second:
        for conn in (first, second):
            assert {name: conn.exec_driver_sql(f"PRAGMA {name}").scalar() for name in wanted} == wanted
    with store.write() as conn:
        conn.execute(usage.insert().values(job_id="a", scenario_digest=b"", day=1, calls=1, rows=1, state="reserved"))
        for file in tmp_path.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file.name


def test_a_block_that_raises_leaves_nothing(store: Store) -> None:
    row = {"scenario_digest": b"", "day": 1, "calls": 1, "rows": 1, "state": "reserved"}
    with pytest.raises(InvalidSpec), store.write() as conn:
        conn.execute(usage.insert().values(job_id="a", **row))
        raise InvalidSpec
    with store.read() as conn:
        assert conn.scalar(select(func.count()).select_from(usage)) == 0


def test_what_was_deleted_and_scrubbed_is_in_no_file(store: Store, tmp_path: Path) -> None:
    secret = b"a wrapped key that is to be gone"
    row = {"day": 1, "calls": 1, "rows": 1, "state": "reserved"}
    with store.write() as conn:
        conn.execute(usage.insert().values(job_id="a", scenario_digest=secret, **row))
    assert any(secret in file.read_bytes() for file in tmp_path.iterdir())
    with store.write() as conn:
        conn.execute(usage.delete())
    store.scrub()
    assert not [file.name for file in tmp_path.iterdir() if secret in file.read_bytes()]
    with store.write() as conn:  # and the store goes on
        conn.execute(usage.insert().values(job_id="b", scenario_digest=b"", **row))


def test_writers_take_turns(store: Store, tmp_path: Path) -> None:
    """Two stores on one file, as two processes have: read, then write, never lost."""
    other = Store.at(tmp_path / "store.db")
    with store.write() as conn:
        conn.execute(usage.insert().values(job_id="a", scenario_digest=b"", day=1, calls=0, rows=0, state="reserved"))

    def count(mine: Store) -> None:
        for _ in range(20):
            with mine.write() as conn:
                calls = conn.scalar(select(usage.c.calls))
                conn.execute(usage.update().values(calls=int(calls or 0) + 1))

    threads = [threading.Thread(target=count, args=(mine,)) for mine in (store, other, store)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    with store.read() as conn:
        assert conn.scalar(select(usage.c.calls)) == 60


# --- registry -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def officer(tmp_path_factory: pytest.TempPathFactory) -> keyring.Person:
    return keyring.create_person(tmp_path_factory.mktemp("p") / "officer", "officer", "Example Bank")


def test_a_key_is_registered_with_roles_and_changes_them(store: Store, officer: keyring.Person) -> None:
    with store.write() as conn:
        first = registry.register(conn, officer.card, ["submitter", "owner"])
        assert (first.roles, first.revoked, first.name) == (frozenset({"submitter", "owner"}), False, "officer")
        assert first.identity == officer.identity.public
        assert registry.register(conn, officer.card, ["auditor"]).roles == {"auditor"}
        assert conn.scalar(select(func.count()).select_from(keys)) == 1
        for roles in ([], ["root"], ["submitter", "peer"]):
            with pytest.raises(InvalidSpec, match="roles must be among"):
                registry.register(conn, officer.card, roles)
        with pytest.raises(NotFound):
            registry.find_key(conn, "0" * 32)


def test_a_revoked_key_never_comes_back(store: Store, officer: keyring.Person) -> None:
    with store.write() as conn:
        registry.register(conn, officer.card, ["submitter"])
        registry.revoke(conn, officer.key_id)
        assert registry.find_key(conn, officer.key_id).revoked
        with pytest.raises(AlreadyExists, match="was revoked here"):
            registry.register(conn, officer.card, ["submitter"])
        assert registry.find_key(conn, officer.key_id).revoked
        with pytest.raises(NotFound):
            registry.revoke(conn, "0" * 32)


def test_a_card_by_another_hand_is_not_registered(store: Store, officer: keyring.Person) -> None:
    forged = replace(officer.card, payload=officer.card.payload.replace(b"officer", b"0fficer"))
    by_other = signed.sign(OFFICER, "key-card", signed.open_key_card(officer.card))
    for card in (forged, by_other):
        with pytest.raises(Unauthenticated), store.write() as conn:
            registry.register(conn, card, ["submitter"])


def test_a_peer_is_pinned_by_its_key(store: Store, tmp_path: Path) -> None:
    one, two = (keyring.create_node(tmp_path / name, "node") for name in ("one", "two"))
    with store.write() as conn:
        assert registry.pin(conn, one.card("bank", "Bank", "127.0.0.1:1")).node_id == "bank"
        assert registry.pin(conn, one.card("bank", "Bank", "127.0.0.1:2")).address == "127.0.0.1:2"
        assert registry.peer(conn, "bank").address == "127.0.0.1:2"
        for card in (two.card("bank", "Bank", "127.0.0.1:1"), one.card("shadow", "Bank", "127.0.0.1:1")):
            with pytest.raises(AlreadyExists, match="is pinned with key"):
                registry.pin(conn, card)
        assert [card.node_id for card in registry.all_peers(conn)] == ["bank"]
        with pytest.raises(NotFound, match="not a peer"):
            registry.peer(conn, "operator")


def test_a_peer_card_with_an_uncertified_key_is_refused(store: Store, tmp_path: Path) -> None:
    node = keyring.create_node(tmp_path / "one", "node")
    card = signed.open_peer_card(node.card("bank", "Bank", "127.0.0.1:1"))
    swapped = replace(card, sealing=replace(card.sealing, key=OFFICER.public.to_bytes()))
    with pytest.raises(Unauthenticated), store.write() as conn:
        registry.pin(conn, signed.sign(node.identity, "peer-card", swapped))


# --- keys and settings ----------------------------------------------------------------------------------------------


def test_key_files_are_private_and_a_passphrase_protects_them(tmp_path: Path) -> None:
    made = keyring.create_node(tmp_path / "keys", "bank", b"a long passphrase")
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in (tmp_path / "keys").iterdir())
    again = keyring.load_node(tmp_path / "keys", b"a long passphrase")
    assert again.node_key == made.node_key and again.identity.public == made.identity.public
    assert made.node_key not in (tmp_path / "keys" / "node.key").read_bytes()
    for wrong in (None, b"another passphrase"):
        with pytest.raises(SandboxError):
            keyring.load_node(tmp_path / "keys", wrong)
    (tmp_path / "keys" / "identity.pem").write_bytes(PrivateKey.generate().to_pem())
    sealed = bytearray((tmp_path / "keys" / "node.key").read_bytes())
    sealed[-1] ^= 1
    (tmp_path / "keys" / "node.key").write_bytes(bytes(sealed))
    with pytest.raises(IntegrityFailed):
        keyring.load_node(tmp_path / "keys", b"a long passphrase")
    with pytest.raises(InvalidSpec, match="never overwritten"):
        keyring.create_node(tmp_path / "keys", "bank")


def test_a_persons_keys_come_back(tmp_path: Path) -> None:
    made = keyring.create_person(tmp_path / "p", "officer", "Bank", b"a long passphrase")
    again = keyring.load_person(tmp_path / "p", b"a long passphrase")
    assert (again.key_id, again.card) == (made.key_id, made.card)
    verify_payload(made.identity.public, "call", b"x", sign_payload(again.identity, "call", b"x"))
    with pytest.raises(NotFound, match="no key file"):
        keyring.load_person(tmp_path / "nobody")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('node_id = "bank"', "organisation"),
        ('node_id = "Bank 1"\norganisation = "B"', "node_id"),
        ('node_id = "bank"\norganisation = "B"\nseal = "none"', "seal"),
        ('node_id = "bank"\norganisation = "B"\nsurprise = 1', "surprise"),
        ('node_id = "bank"\norganisation = "B"\nmin_group_floor = 0', "min_group_floor"),
        ("node_id = bank", "not valid TOML"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(InvalidSpec) as refusal:
        load(tmp_path)
    assert told in refusal.value.tell and FILE in refusal.value.tell


def test_settings_are_read_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FILE).write_text('node_id = "bank"\norganisation = "B"\nlisten = "127.0.0.1:1"\n')
    assert (load(tmp_path).reachable_at, load(tmp_path).seal_for("x"), load(tmp_path).deadline_s) == (
        "127.0.0.1:1",
        "sm4",
        900,
    )
    monkeypatch.setenv("SANDBOX_DEADLINE_S", "60")
    assert load(tmp_path).deadline_s == 60
    with pytest.raises(NotFound, match="is missing"):
        load(tmp_path / "nowhere")


def test_a_second_node_in_a_home_is_refused_and_a_home_remembers(tmp_path: Path) -> None:
    card = init(tmp_path / "bank", node_id="bank", organisation="Bank", listen="127.0.0.1:1")
    with pytest.raises(InvalidSpec, match="already"):
        init(tmp_path / "bank", node_id="bank", organisation="Bank")
    home = Home(tmp_path / "bank")
    assert wire.decode(PeerCard, home.card().payload).identity_key == card.identity_key
    with pytest.raises(InvalidSpec, match="own card"):
        home.add_peer(home.card())
    assert home.peers() == [] and home.fsck() == 0
    home.store.close()


# --- a job as its submitter sees it ---------------------------------------------------------------------------------


@pytest.fixture
def job(store: Store) -> Job:
    call = signed.sign_call(OFFICER, "bank", "/sandbox.v1.JobService/SubmitJob", JobSubmission(psi()))
    plan = admit(psi(), JOB, signed.digest("call", call), facts(), BANK)
    with store.write() as conn:
        made = record.create(conn, call, plan, wire.encode(plan), b"r" * 32)
        record.stage(conn, JOB, "compute", 1234, 987_654)
        record.people(conn, JOB, 4711)
        record.charge(conn, JOB, Fee(4711, "471.10", 3))
    return made


def test_nothing_of_sizes_is_shown_before_release(store: Store, job: Job) -> None:
    with store.write() as conn:
        for state in (State.ADMITTED, State.RUNNING):
            if state is State.RUNNING:
                record.move(conn, JOB, state)
            view = record.view(conn, JOB, "gate")
            assert [(s.name, s.milliseconds, s.bytes) for s in view.stages] == [("compute", 1200, 0), ("gate", 0, 0)]
            assert view.fee is None and "4711" not in repr(view) and "987" not in repr(view)
        record.move(conn, JOB, State.RELEASED)
        shown, in_full = record.view(conn, JOB), record.view(conn, JOB, in_full=True)
    # Bytes between parties follow the number of rows: to one digit for the submitter, exact for the operator.
    assert [(s.name, s.milliseconds, s.bytes) for s in shown.stages] == [("compute", 1234, 1_000_000)]
    assert [(s.name, s.milliseconds, s.bytes) for s in in_full.stages] == [("compute", 1234, 987_654)]
    assert shown.fee == Fee(4711, "471.10", 3)


def test_a_job_that_ended_badly_shows_no_sizes_either(store: Store, job: Job) -> None:
    told = Failure("OutputWithheld", "bank", "gate", "too specific", "过于具体", "ask")
    with store.write() as conn:
        record.move(conn, JOB, State.RUNNING)
        record.move(conn, JOB, State.REFUSED)
        record.fail(conn, JOB, told)
        view = record.view(conn, JOB, "gate")
    assert (view.state, view.failure, view.fee) == (State.REFUSED, told, None)
    assert [(s.name, s.milliseconds, s.bytes) for s in view.stages] == [("compute", 1200, 0)]


def test_only_the_moves_of_the_table_are_made(store: Store, job: Job) -> None:
    with store.write() as conn:
        for then in set(State) - MOVES[State.ADMITTED]:
            with pytest.raises(WrongState, match="ADMITTED"):
                record.move(conn, JOB, then)
        assert record.move(conn, JOB, State.CANCELLED) is State.ADMITTED
        for then in State:
            with pytest.raises(WrongState):
                record.move(conn, JOB, then)
        assert record.unfinished(conn) == []


def told(*entries: TrailEntry) -> Signed:
    return signed.sign(OFFICER, "trail", TrailReport(JOB, entries))


def test_a_trail_is_kept_a_party_at_a_time(store: Store, job: Job) -> None:
    entry = TrailEntry("operator", 4, "admitted", bytes(32), 1)
    with store.write() as conn:
        record.trail(conn, JOB, "operator", told(entry, replace(entry, index=5)))
        record.trail(conn, JOB, "operator", told(entry))
        record.trail(conn, JOB, "bank", told(replace(entry, party="bank")))
        assert [(e.party, e.index) for e in record.view(conn, JOB).trail] == [("bank", 4), ("operator", 4)]


def test_job_ids_are_equal_everywhere_and_pages_go_on(store: Store, job: Job) -> None:
    assert record.job_id("k" * 32, "r") == record.job_id("k" * 32, "r") != record.job_id("k" * 32, "s")
    with store.write() as conn:
        ids = [JOB]
        for number in range(4):
            call = signed.sign_call(OFFICER, "bank", "/m", JobSubmission(psi(request_id=f"r{number}")))
            plan = replace(job.plan, job_id=f"{number:032x}")
            ids.append(record.create(conn, call, plan, wire.encode(plan), b"r" * 32).job_id)
        conn.execute(update(jobs).values(created_ms=job.created_ms))
        seen: list[str] = []
        while page := record.mine(conn, OFFICER.public.key_id, seen[-1] if seen else "", 2):
            seen.extend(page)
        assert sorted(seen) == sorted(ids)
