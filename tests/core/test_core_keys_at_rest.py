"""The node key: replaced, split and joined, with everything under it there afterwards, wherever it was cut off."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import Connection, Integer, LargeBinary, delete, insert, select, update
from test_core_ledger import made

from sandbox import challenges, letters, review, store, wire
from sandbox import materials as ledger_module
from sandbox.audit import log
from sandbox.catalog import artefacts, bundles, cache, retention, rotation, vault
from sandbox.catalog.bundles import HandedIn
from sandbox.catalog.registration import make_code
from sandbox.catalog.schema import Field, FieldType, Grade, Schema
from sandbox.crypto.shares import Share
from sandbox.crypto.sm3 import hkdf
from sandbox.crypto.sm4 import seal, unseal
from sandbox.errors import IntegrityFailed, InvalidSpec, PolicyRefused, SandboxError, Unavailable, WrongState
from sandbox.gate.judge import Evidence
from sandbox.home import Home, init
from sandbox.keyring import NODE_KEY
from sandbox.ledger import Ledger
from sandbox.master import NEXT, SHARES, Split
from sandbox.model import Entry, Failure, Signed
from sandbox.policy import spending
from sandbox.store import Store, cached, datasets, paillier_keys
from sandbox.tee_sim.bundle import measure, pack, parse

BUNDLE = Path(__file__).parents[2] / "jobs" / "own_model" / "score"
CODE = make_code("bank", "loans")
SCHEMA = Schema((Field("id", FieldType.STRING, "whose", "", Grade.L2, "", Decimal(1)),), ("id",))
OFFICERS = ("wang", "li", "zhao")
VALUES = 12  # in the stock below: one in each column that holds something under the node key
TOKEN, CHALLENGE = b"t" * 32, "c" * 32
ELSEWHERE = {("twin", "wrapped_key")}  # under the test key


@dataclass(frozen=True)
class Version:
    schema: Schema = SCHEMA
    version: int = 1
    code: str = CODE


def row_of(table: Any, **values: Any) -> dict[str, Any]:
    """A row with something in every column that must have something."""
    empty = {Integer: 0, LargeBinary: b""}
    needed = [column for column in table.c if not column.nullable and column.name not in values]
    return values | {c.name: next((e for kind, e in empty.items() if isinstance(c.type, kind)), "") for c in needed}


def sealed_by_hand(job_id: str) -> list[tuple[Any, bytes, bytes]]:
    """What a scenario with consents leaves: the column, the place it is bound to in its module's words, the content."""
    use, withdrawal = spending.use_context(TOKEN, 1, job_id), spending.withdrawal_context(TOKEN, "k" * 32)
    return [
        (store.consents.c.sealed, use, b"what opens it"),
        (store.withdrawn_consents.c.sealed, withdrawal, b"a notice"),
        (store.challenges.c.sealed, challenges.people_context(CHALLENGE), b'[["a person", ""]]'),
        (store.letters.c.wrapped_key, letters.key_context(CHALLENGE, 1), b"the key of it"),
    ]


@dataclass(frozen=True)
class Stock:
    """A home with one thing in each place that the node key protects."""

    path: Path
    job_id: str
    refused: str
    population_key: bytes
    measurement: bytes

    def check(self, home: Home) -> None:
        """Read everything back as the node does."""
        key = home.keys.node_key
        with home.store.write() as conn:
            wrapped = conn.scalar(select(datasets.c.wrapped_key).where(datasets.c.state == "active"))
            opened = vault.unwrap(key, bytes(wrapped), CODE, 1)
            [rows] = vault.open_version(vault.version_dir(home.path / "vault", CODE, 1), opened)
            assert rows.column("id").to_pylist() == ["a", "b"]
            assert artefacts.fetch(conn, home.path / "artefacts", key, self.job_id, "model") == b"half a model"
            assert cache.fetch(conn, home.path / "cache", key, "n" * 32, 2) == b"a set"
            assert bundles.locate(conn, home.path, key, self.measurement).read() == pack(BUNDLE)
            held = bytes(conn.scalar(select(paillier_keys.c.sealed)) or b"")
            assert unseal(key, held[:12], held[12:], ledger_module._key_context(2048)) == b"p and q"
            assert b"group.shared" in review.evidence(conn, key, self.job_id)
            assert spending.opening(conn, key, self.job_id) == b"what opens it"
            assert challenges.persons(conn, key, CHALLENGE) == ("a person",)
            for column, context, plain in sealed_by_hand(self.job_id):
                held = bytes(conn.execute(select(column)).scalar_one())
                assert unseal(key, held[:12], held[12:], context) == plain
        assert home.reason(self.refused) == "the words for the owner"
        assert home.keys.population_key == self.population_key

    def sealed(self) -> list[bytes]:
        """Every value under the node key, as it lies there."""
        kept = Store.at(self.path / "store.db")
        with kept.read() as conn:
            found = [
                bytes(value)
                for one in rotation.WRAPPED
                for value in conn.scalars(select(one.column))
                if value is not None
            ]
        kept.close()
        return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    path = tmp_path_factory.mktemp("whole") / "bank"
    init(path, node_id="bank", organisation="Example Bank", listen="127.0.0.1:1")
    home = Home(path)
    ledger = Ledger(path, home.settings, home.keys, home.store, lambda: {})
    key, archive = home.keys.node_key, pack(BUNDLE)
    rows = pa.RecordBatch.from_pydict({"id": ["a", "b"]}, schema=SCHEMA.arrow())
    sealed = vault.seal_version(path / "vault", key, Version(), iter([rows]))
    job, other = made(ledger, "kept"), made(ledger, "refused")
    with home.store.write() as conn:
        conn.execute(
            insert(datasets).values(
                row_of(datasets, code=CODE, version=1, state="active", wrapped_key=sealed.wrapped_key)
            )
        )
        conn.execute(insert(datasets).values(row_of(datasets, code=CODE, version=2, state="destroyed")))
        artefacts.keep(conn, path / "artefacts", key, job.job_id, "model", b"half a model")
        cache.keep(conn, path / "cache", key, "n" * 32, b"a set", b"s" * 32, 1)
        given = HandedIn("Fintech Ltd", "m" * 32, Signed(b"statement", "m" * 32, b"s" * 70), 1)
        bundles.keep(conn, path, key, parse(archive), archive, given)
        ledger._file_key(conn, 2048, b"p and q")
        found = [Evidence("aligned", "group.shared", 10, 400)]
        review.keep(conn, key, job, ledger.scenario(job.plan), found, b"")
        place = {"token": TOKEN, "environment": 1, "job_id": job.job_id, "signer": "k" * 32, "state": "spent"}
        place |= {"challenge_id": CHALLENGE, "number": 1}
        for column, context, plain in sealed_by_hand(job.job_id):
            own = {name: value for name, value in place.items() if name in column.table.c}
            own |= {"state": 1} if column.table is store.letters else {}
            value = bytes(12) + seal(key, bytes(12), plain, context)
            conn.execute(insert(column.table).values(row_of(column.table, **own, **{column.name: value})))
    failure = Failure("PolicyRefused", "bank", "admission", "no", "否", "ask")
    assert asyncio.run(ledger.stop(other, PolicyRefused("the words for the owner"), failure))
    stock = Stock(path, job.job_id, other.job_id, home.keys.population_key, measure(archive))
    stock.check(home)
    home.store.close()
    return stock


@pytest.fixture
def stock(whole: Stock, tmp_path: Path) -> Stock:
    shutil.copytree(whole.path, tmp_path / "bank")
    return replace(whole, path=tmp_path / "bank")


@pytest.fixture
def opened(stock: Stock) -> Iterator[Callable[..., Home]]:
    homes: list[Home] = []

    def start(*given: Share, passphrase: bytes | None = None) -> Home:
        homes.append(Home(stock.path, passphrase, lambda: given))
        return homes[-1]

    yield start
    for home in homes:
        home.store.close()


def split(home: Home, need: int = 2, officers: Sequence[str] = OFFICERS) -> list[Share]:
    out: list[Share] = []
    told = home.split_key(need, officers, out.extend)
    assert (told.need, told.officers) == (need, tuple(officers))
    return out


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def holds(folder: Path, secret: bytes) -> list[str]:
    """The files in which something stands, as it is or in hexadecimal digits."""
    return [
        path.name for path, data in files(folder).items() if secret in data or secret.hex().encode() in data.lower()
    ]


def entries(home: Home) -> list[tuple[str, dict[str, str]]]:
    with home.store.read() as conn:
        found = [wire.decode(Entry, leaf) for leaf in log.leaves(conn, 0, log.size(conn))]
    return [(entry.what, {fact.name: fact.value for fact in entry.facts}) for entry in found]


# --- nothing is forgotten -------------------------------------------------------------------------------------------


def test_every_column_under_the_node_key_comes_along(whole: Stock) -> None:
    """A new table with something sealed in it fails here, until it is in the list or known to be under another key."""
    there = {
        (table.name, column.name)
        for tables in (store.metadata, rotation.metadata)
        for table in tables.tables.values()
        for column in table.c
        if column.name in ("wrapped_key", "sealed")
    }
    assert {(one.table.name, one.column.name) for one in rotation.WRAPPED} == there - ELSEWHERE
    assert len(whole.sealed()) == len(rotation.WRAPPED) == VALUES


# --- a new key ------------------------------------------------------------------------------------------------------


def test_everything_opens_under_the_new_key_and_nothing_under_the_old(
    stock: Stock, opened: Callable[..., Home]
) -> None:
    home = opened()
    old, before, values = home.keys.node_key, files(stock.path), stock.sealed()
    assert len(holds(stock.path, old)) == 1 and all(holds(stock.path, value) for value in values)
    assert home.rotate_key() == VALUES
    assert home.keys.node_key != old  # the same object goes on
    again = opened()
    stock.check(again)
    assert again.keys.node_key == home.keys.node_key
    assert holds(stock.path, old) == [] and not [value for value in values if holds(stock.path, value)]
    changed = {path.name for path, data in files(stock.path).items() if before.get(path) != data}
    assert changed <= {NODE_KEY, "store.db", "store.db-wal", "store.db-shm", "serve.lock"}
    assert entries(again)[-1] == ("key-rotated", {"values": str(VALUES), "held": "file"})
    assert again.fsck() > 0
    for one in rotation.WRAPPED:
        with again.store.read() as conn, pytest.raises(IntegrityFailed):
            list(rotation._opened(conn, one, old))


def test_again_and_again(stock: Stock, opened: Callable[..., Home]) -> None:
    seen = set()
    for _ in range(4):
        home = opened()
        seen.add(home.keys.node_key)
        home.rotate_key()
    stock.check(opened())
    assert len(seen) == 4


def test_what_does_not_open_stops_it_and_nothing_changes(stock: Stock, opened: Callable[..., Home]) -> None:
    home = opened()
    with home.store.write() as conn:
        held = conn.execute(select(cached.c.wrapped_key)).scalar_one()
        for spoilt in (held[:-1] + bytes([held[-1] ^ 1]), b"short"):
            conn.execute(update(cached).values(wrapped_key=spoilt))
    before = stock.sealed()
    with pytest.raises(IntegrityFailed, match=r"cached\.wrapped_key"):
        home.rotate_key()
    shares: list[Share] = []
    with pytest.raises(IntegrityFailed, match=r"cached\.wrapped_key"):
        home.split_key(2, OFFICERS, shares.extend)
    assert stock.sealed() == before and shares == []
    assert [what for what, _ in entries(home)].count("key-rotated") == 0
    assert not list((stock.path / "keys").glob(f"*{NEXT}")) and not (stock.path / "keys" / SHARES).exists()
    with home.store.write() as conn:
        conn.execute(update(cached).values(wrapped_key=held))
    stock.check(opened())


def test_a_transaction_that_fails_at_its_end_leaves_the_old_key(
    stock: Stock, opened: Callable[..., Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = opened()
    old = home.keys.node_key

    def full(*_: Any) -> None:
        raise OSError("no space")

    monkeypatch.setattr(home, "_enter_key", full)
    for change in (home.rotate_key, lambda: split(home)):
        with pytest.raises(OSError, match="no space"):
            change()
        assert not list((stock.path / "keys").glob(f"*{NEXT}"))
    assert opened().keys.node_key == old
    stock.check(opened())


def test_a_commit_that_says_nothing_of_its_success_counts(
    stock: Stock, opened: Callable[..., Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = opened()
    old, write = home.keys.node_key, home.store.write

    @contextlib.contextmanager
    def commit_and_fail(flush: bool = True) -> Iterator[Connection]:
        with write(flush) as conn:
            yield conn
        if (stock.path / "keys" / (NODE_KEY + NEXT)).exists():
            raise OSError("the disk went away")

    monkeypatch.setattr(home.store, "write", commit_and_fail)
    with pytest.raises(OSError, match="went away"):
        home.rotate_key()
    again = opened()
    stock.check(again)
    with again.alone():
        again.unlock()
    stock.check(opened())
    assert again.keys.node_key != old and not list((stock.path / "keys").glob(f"*{NEXT}"))


def test_the_old_file_is_overwritten_and_what_a_link_leads_to_is_left(
    stock: Stock, opened: Callable[..., Home], tmp_path: Path
) -> None:
    place, elsewhere = stock.path / "keys" / NODE_KEY, tmp_path / "elsewhere"
    os.link(place, elsewhere)
    place.chmod(0o400)
    opened().rotate_key()
    assert set(elsewhere.read_bytes()) == {0}
    place.rename(elsewhere)
    place.symlink_to(elsewhere)
    kept = elsewhere.read_bytes()
    opened().rotate_key()
    assert elsewhere.read_bytes() == kept and not place.is_symlink() and place.read_bytes() != kept
    stock.check(opened())


def test_shares_that_cannot_be_handed_out_change_nothing(stock: Stock, opened: Callable[..., Home]) -> None:
    before = files(stock.path / "keys")

    def fail(_: Sequence[Share]) -> None:
        raise OSError("no such disk")

    with pytest.raises(OSError, match="no such disk"):
        opened().split_key(2, OFFICERS, fail)
    assert files(stock.path / "keys") == before
    stock.check(opened())


def test_one_process_at_a_time(stock: Stock, opened: Callable[..., Home]) -> None:
    running, other = opened(), opened()
    with running.alone():
        for change in (other.rotate_key, other.join_key, lambda: split(other)):
            with pytest.raises(Unavailable, match="running"):
                change()
        stock.check(other)  # reading goes on
        running.unlock()
    with pytest.raises(WrongState):
        running.unlock()
    assert other.rotate_key() == VALUES


def test_a_foreign_key_file_opens_nothing_and_is_left_alone(stock: Stock, opened: Callable[..., Home]) -> None:
    place = stock.path / "keys" / NODE_KEY
    own = place.read_bytes()
    place.write_bytes(b"plain\0" + bytes(16))
    for attempt in (lambda home: home.keys.node_key, lambda home: home.rotate_key(), lambda home: split(home)):
        with pytest.raises(IntegrityFailed, match="not the key of this node's store"):
            attempt(opened())
    assert place.read_bytes() == b"plain\0" + bytes(16)
    for damaged in (b"", b"plain\0" + bytes(15), own[:-1], b"sealed"):
        place.write_bytes(damaged)
        with pytest.raises(SandboxError):
            assert opened().keys.node_key
    place.write_bytes(own)
    stock.check(opened())


# --- under a passphrase ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_new_key_is_protected_as_the_others_are(tmp_path: Path) -> None:
    path, right = tmp_path / "bank", b"a long passphrase"
    init(path, node_id="bank", organisation="Bank", passphrase=right)
    place = path / "keys" / NODE_KEY
    home = Home(path, right)
    population = home.keys.population_key
    assert home.rotate_key() == 1
    key = home.keys.node_key
    assert place.read_bytes().startswith(b"sealed") and holds(path, key) == []
    shares = split(home)
    for wrong in (None, b"another"):
        guest = Home(path, wrong, lambda: shares)
        with pytest.raises(SandboxError):
            guest.join_key()  # or the key would lie there unprotected, or under a slip of the hand
        guest.store.close()
    assert not place.exists() and not list(place.parent.glob(f"*{NEXT}"))
    home.store.close()
    home = Home(path, right, lambda: shares)
    assert home.join_key() == 1
    assert place.read_bytes().startswith(b"sealed") and place.stat().st_mode & 0o077 == 0
    assert Home(path, right).keys.population_key == population
    home.store.close()


def test_a_passphrase_that_nothing_needs_protects_nothing(stock: Stock, opened: Callable[..., Home]) -> None:
    opened(passphrase=b"left in the environment").rotate_key()
    stock.check(opened())


# --- in officers' hands ---------------------------------------------------------------------------------------------


def test_split_the_key_is_nowhere_and_enough_shares_open_everything(stock: Stock, opened: Callable[..., Home]) -> None:
    home = opened()
    old = home.keys.node_key
    one, two, three = split(home)
    for given in ([one, two], [three, one], [two, three], [three, two, one]):
        stock.check(opened(*given))
    key = opened(one, two).keys.node_key
    assert key != old and holds(stock.path, key) == holds(stock.path, old) == []
    assert not [share for share in (one, two, three) if holds(stock.path, share.value)]
    assert {path.name for path in (stock.path / "keys").glob("node.*")} == {SHARES}
    assert entries(home)[-1] == ("key-rotated", {"values": str(VALUES), "held": "2 of 3 shares"})


def test_without_shares_a_node_says_how_many_are_missing_and_does_all_else(
    stock: Stock, opened: Callable[..., Home]
) -> None:
    one, _, _ = split(opened())
    for given, lacking, keepers in (((), 2, "wang, li, zhao"), ((one,), 1, "li, zhao"), ((one, one), 1, "li, zhao")):
        home = opened(*given)
        for attempt in (
            lambda home=home: home.keys.node_key,
            lambda home=home: home.reason(stock.refused),
            home.join_key,
        ):
            with pytest.raises(Unavailable) as told:
                attempt()
            assert f"{lacking} of 2 shares are missing, kept by {keepers}" in told.value.tell
            assert "SANDBOX_SHARES" in told.value.hint
        with home.alone(), pytest.raises(Unavailable, match="shares are missing"):
            home.unlock()
        assert home.card().payload and "origin bank" in home.trust() and home.fsck() > 0
        assert home.master.holders() == Split(one.set_id, 2, OFFICERS, home.master.holders().marks)  # type: ignore[union-attr]


def test_a_false_share_is_named_and_a_strange_one_left_aside(stock: Stock, opened: Callable[..., Home]) -> None:
    one, two, _ = split(opened())
    with pytest.raises(IntegrityFailed) as told:
        assert opened(one, replace(two, value=bytes(16))).keys.node_key
    assert "the share of li is not the one that was given out" in told.value.tell
    again = split(opened(one, two))
    stock.check(opened(one, again[0], two, again[2]))
    with pytest.raises(Unavailable, match="2 of those given are of another set"):
        assert opened(one, two, again[0]).keys.node_key


def test_one_who_left_opens_nothing_together_with_the_old_shares_of_all(
    stock: Stock, opened: Callable[..., Home]
) -> None:
    first = split(opened())
    second = split(opened(*first[:2]), 2, ("li", "sun"))
    assert {share.set_id for share in first}.isdisjoint({share.set_id for share in second})
    with pytest.raises(Unavailable, match="kept by li, sun"):
        assert opened(*first).keys.node_key
    stock.check(opened(*second))
    with pytest.raises(WrongState, match="split"):
        opened(*second).rotate_key()


def test_joined_it_is_a_new_key_in_a_file_and_the_shares_are_worthless(
    stock: Stock, opened: Callable[..., Home]
) -> None:
    shares = split(opened())
    home = opened(*shares[1:])
    key = home.keys.node_key
    assert home.join_key() == VALUES
    stock.check(opened())
    assert opened(*shares).keys.node_key != key
    assert {path.name for path in (stock.path / "keys").glob("node.*")} == {NODE_KEY}
    with pytest.raises(WrongState, match="not split"):
        home.join_key()
    assert entries(home)[-1][1]["held"] == "file"


@pytest.mark.parametrize(
    ("need", "officers"),
    [(2, ("wang", "wang", "li")), (2, ("Wang", "li")), (2, ("../li", "wang")), (2, ("", "li")), (3, ("wang", "li")),
     (1, ("wang", "li")), (2, tuple(f"o{number}" for number in range(17)))],
)  # fmt: skip
def test_officers_that_make_no_sense_are_refused(
    stock: Stock, opened: Callable[..., Home], need: int, officers: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidSpec):
        split(opened(), need, officers)
    stock.check(opened())


@pytest.mark.parametrize("spoilt", [b"", b"[]", b"{}", b"\xff", b'{"set":"","need":3,"officers":["a"],"marks":["00"]}'])
def test_a_spoilt_list_of_officers_is_refused_in_our_words(
    stock: Stock, opened: Callable[..., Home], spoilt: bytes
) -> None:
    shares = split(opened())
    (stock.path / "keys" / SHARES).write_bytes(spoilt)
    with pytest.raises(IntegrityFailed, match=SHARES):
        assert opened(*shares).keys.node_key


# --- cut off --------------------------------------------------------------------------------------------------------


def die_at(step: int, action: Callable[[], object]) -> bool:
    """Do something in a process that ends, as if killed, before its ``step``-th touch of the disk; whether it did."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    left = step

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **more: Any) -> Any:
            nonlocal left
            if left == 0:
                os._exit(9)
            left -= 1
            return function(*args, **more)

        return run

    code = 1
    try:
        for owner, name in (
            (os, "fsync"),
            (os, "rename"),
            (Path, "unlink"),
            (Path, "chmod"),
            (Store, "scrub"),  # right behind the commit
            (rotation, "rewrap"),
            (log, "append"),  # everything is under the new key, and not committed
        ):
            setattr(owner, name, counting(getattr(owner, name)))
        action()
        code = 0
    finally:
        os._exit(code)


@pytest.mark.parametrize("change", ["file to file", "file to shares", "shares to shares", "shares to file"])
def test_killed_at_any_moment_exactly_one_key_opens_everything(whole: Stock, tmp_path: Path, change: str) -> None:
    """Each time from the same start, one step later, until it comes through."""
    start = tmp_path / "start"
    shutil.copytree(whole.path, start)
    before: list[Share] = []
    if change.startswith("shares"):
        home = Home(start)
        before = split(home)
        home.store.close()
    outcomes = []
    for step in range(100):
        stock = replace(whole, path=tmp_path / str(step))
        shutil.copytree(start, stock.path)
        kept = tmp_path / f"{step}.shares"

        def hand_out(made: Sequence[Share], kept: Path = kept) -> None:
            kept.write_text("\n".join(map(repr_of, made)))

        def act(stock: Stock = stock, hand_out: Callable[[Sequence[Share]], None] = hand_out) -> object:
            home = Home(stock.path, None, lambda: before)
            if change == "file to file":
                return home.rotate_key()
            return home.join_key() if change.endswith("file") else home.split_key(2, OFFICERS, hand_out)

        killed = die_at(step, act)
        after = [share_of(line) for line in kept.read_text().splitlines()] if kept.exists() else []
        home = Home(stock.path, None, lambda both=[*before, *after]: both)
        stock.check(home)  # before anybody has tidied up
        with home.alone():
            home.unlock()
        home.store.close()
        home = Home(stock.path, None, lambda both=[*before, *after]: both)
        stock.check(home)
        assert [path.name for path in (stock.path / "keys").glob("node.*")] in ([NODE_KEY], [SHARES])
        outcomes.append(entries(home)[-1][0] == "key-rotated" and len(entries(home)))
        home.store.close()
        shutil.rmtree(stock.path)
        if not killed:
            break
    assert not killed and len(outcomes) > 8
    assert len(set(outcomes)) == 2 and outcomes == sorted(outcomes)  # at first the old key counts, then the new


@pytest.mark.parametrize("torn", [b"", b"pla", b"plain\0" + bytes(16), b"sealed\xff"])
def test_half_a_file_of_a_change_that_was_cut_off_does_no_harm(
    stock: Stock, opened: Callable[..., Home], torn: bytes
) -> None:
    for name in (NODE_KEY, SHARES):
        (stock.path / "keys" / (name + NEXT)).write_bytes(torn)
    home = opened()
    stock.check(home)
    with home.alone():
        home.unlock()
    assert not list((stock.path / "keys").glob(f"*{NEXT}"))
    stock.check(opened())


def repr_of(share: Share) -> str:
    return " ".join([share.set_id.hex(), str(share.need), str(share.count), str(share.index), share.value.hex(),
                     share.check.hex()])  # fmt: skip


def share_of(line: str) -> Share:
    set_id, need, count, index, value, check = line.split()
    return Share(bytes.fromhex(set_id), int(need), int(count), int(index), bytes.fromhex(value), bytes.fromhex(check))


def test_a_splitting_that_was_cut_off_needs_the_new_shares_and_is_finished_with_them(
    stock: Stock, opened: Callable[..., Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    out: list[Share] = []
    home = opened()
    monkeypatch.setattr(home.master, "_finish", lambda following: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        home.split_key(2, OFFICERS, out.extend)
    assert (stock.path / "keys" / NODE_KEY).exists()  # the old one, which opens nothing
    for attempt in (lambda: opened().keys.node_key, lambda: opened().rotate_key(), lambda: opened().join_key()):
        with pytest.raises(Unavailable, match="2 of 2 shares are missing"):
            attempt()
    with pytest.raises(WrongState, match="split"):
        opened(*out).rotate_key()
    assert {path.name for path in (stock.path / "keys").glob("node.*")} == {SHARES}
    stock.check(opened(*out))


# --- homes of before ------------------------------------------------------------------------------------------------


def test_a_home_of_before_keeps_its_secret_of_the_populations_for_ever(
    stock: Stock, opened: Callable[..., Home]
) -> None:
    home = opened()
    key = home.keys.node_key
    with home.store.write() as conn:
        conn.execute(delete(rotation.node_secrets))
    derived = hkdf(key, b"", b"populations", 32)
    old = replace(stock, population_key=derived)
    old.check(opened())
    with opened().store.read() as conn:
        assert rotation.names(conn) == []  # whoever only looks changes nothing
    home = opened()
    assert home.rotate_key() == VALUES
    old.check(opened())
    assert hkdf(opened().keys.node_key, b"", b"populations", 32) != derived


def test_a_home_of_before_does_not_take_a_foreign_key_for_its_own(stock: Stock, opened: Callable[..., Home]) -> None:
    with opened().store.write() as conn:
        conn.execute(delete(rotation.node_secrets))
    (stock.path / "keys" / NODE_KEY).write_bytes(b"plain\0" + bytes(16))
    home = opened()
    with home.alone(), pytest.raises(IntegrityFailed, match="not the key"):
        home.unlock()
    with home.store.read() as conn:
        assert rotation.names(conn) == []


def test_each_new_home_has_a_secret_of_its_own_and_a_store_of_its_own(
    whole: Stock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(whole.path)
    assert whole.population_key != hkdf(home.keys.node_key, b"", b"populations", 32)
    assert len(whole.population_key) == 32
    home.store.close()
    monkeypatch.setenv("SANDBOX_DATABASE", f"sqlite:///{tmp_path}/shared.db")
    init(tmp_path / "one", node_id="one", organisation="One")
    with pytest.raises(InvalidSpec, match="another node's"):
        init(tmp_path / "two", node_id="two", organisation="Two")


def test_nothing_secret_is_shown(whole: Stock) -> None:
    home = Home(whole.path)
    key = home.keys.node_key
    for shown in (repr(home.keys), repr(home.keys.master()), repr(home.master)):
        for secret in (key, whole.population_key, home.keys.tls_key):
            assert secret.hex() not in shown and repr(secret)[2:-1] not in shown
    home.store.close()


# --- kept long enough -----------------------------------------------------------------------------------------------


def test_what_was_kept_as_long_as_promised_is_due(tmp_path: Path) -> None:
    kept, day = Store.at(tmp_path / "store.db"), 86_400_000
    kept.create()
    now = 20_000 * day
    versions = {
        ("a", 1): (30, 30 * day, "active"),  # today, to the millisecond
        ("a", 2): (30, 30 * day - 1, "active"),  # in a millisecond
        ("a", 3): (0, 10_000 * day, "active"),  # without an end
        ("b", 1): (1, 400 * day, "active"),
        ("b", 2): (1, 400 * day, "destroyed"),
        ("c", 1): (36_500, 5 * day, "active"),  # a hundred years: more milliseconds than 32 bits hold
        ("c", 2): (1, -day, "active"),  # from a clock that was ahead
    }
    with kept.write() as conn:
        for (code, version), (days, age, state) in versions.items():
            row = row_of(datasets, code=code, version=version, state=state, created_ms=now - age, retention_days=days)
            conn.execute(insert(datasets).values(row))
    with kept.read() as conn:
        assert retention.due(conn, now) == [("b", 1), ("a", 1)]
        assert retention.due(conn, now + 1) == [("b", 1), ("a", 1), ("a", 2)]
        assert retention.due(conn, 0) == []
    kept.close()
