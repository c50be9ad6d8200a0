"""Rows of two owners in the enclave of one: what travels, and what happens if the giver, the enclave or nobody lies."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kind_parties import EARLIER, JOB, Message, Room, good, node_keys, read, scenario
from test_kinds_model import Shelf, packed, put

from sandbox.crypto.envelope import seal_to
from sandbox.errors import (
    Cancelled,
    IntegrityFailed,
    InvalidSpec,
    JobFailed,
    PolicyRefused,
    ProtocolFailed,
    SandboxError,
    Unavailable,
)
from sandbox.gate.release import release
from sandbox.kinds import KINDS, confined, joint, model
from sandbox.kinds.kind import Conditions
from sandbox.kinds.population import SHARED, WHOLE, Sketcher
from sandbox.model import (
    DatasetRef,
    DatasetUse,
    Dimension,
    JobKind,
    JobSpec,
    MeasureRange,
    ModelSpec,
    OutputClass,
    OutputRule,
    Party,
    PartyRole,
    Plan,
    QuerySpec,
    RawResult,
    Scenario,
    VersionRule,
)
from sandbox.policy import enclaves
from sandbox.store import Store
from sandbox.tee_sim import attest, broker, probes
from sandbox.tee_sim.attest import NONCE_SIZE, QUOTE_BYTES
from sandbox.tee_sim.broker import Binding, seal_rows
from sandbox.tee_sim.bundle import measure, parse
from sandbox.tee_sim.levels import Level
from sandbox.tee_sim.manifest import Manifest

OWNERS = ("bank", "operator")
OTHER = {"bank": "operator", "operator": "bank"}
PERSON, PLACE, AMOUNT = "JOINT-CANARY-7741", "JOINT-CANARY-PLACE", 73_190_264_117
REGIONS = (f"{PLACE}-north", f"{PLACE}-south")
BANDS = ("below 40", "40 to below 70", "70 and above")
STATEMENT = (
    "SELECT region, util_band, count(*) AS people, avg(late) AS late, sum(income) AS income "
    "FROM data GROUP BY region, util_band"
)
QUERY_RULE = OutputRule(JobKind.QUERY, "table", OutputClass.AGGREGATE, 5, 5, 1000, 1 << 20)
SHARED_ROWS = 400


def owned(owner: str) -> pa.Table:
    """One owner's rows: some people are only here, and the others stand in another order than at the other owner."""
    rng = np.random.default_rng(OWNERS.index(owner))
    only = [f"{PERSON}-{owner}-{number}" for number in range(60)]
    ids = rng.permutation([f"{PERSON}-{number:03d}" for number in range(SHARED_ROWS)] + only).tolist()
    count = len(ids)
    notes = {"id": ids, "note": [PERSON] * count}
    if owner == "bank":
        income = np.where(rng.random(count) < 0.1, AMOUNT, rng.integers(0, 100_000, count))
        return pa.table({**notes, "region": rng.choice(REGIONS, count).tolist(), "income": income})
    late = pa.array(rng.integers(0, 30, count), mask=rng.random(count) < 0.2)
    return pa.table({**notes, "util": rng.integers(0, 100, count), "late": late})


TABLES = {owner: owned(owner) for owner in OWNERS}
SEQUENCE = np.random.default_rng(9).permutation([f"{PERSON}-{number:03d}" for number in range(SHARED_ROWS)]).tolist()
POSITIONS = {
    owner: np.array([{name: at for at, name in enumerate(held["id"].to_pylist())}[name] for name in SEQUENCE], "<i8")
    for owner, held in TABLES.items()
}


def both() -> pd.DataFrame:
    """The shared rows side by side, as pandas joins them."""
    rows: pd.DataFrame = TABLES["bank"].to_pandas().merge(TABLES["operator"].to_pandas().drop(columns="note"), on="id")
    rows["util_band"] = pd.cut(rows["util"], [-1, 39, 69, 1000], labels=BANDS).astype(str)
    assert len(rows) == SHARED_ROWS
    return rows


@dataclasses.dataclass
class Meeting(Room):
    """Both owners of a job; its test may know the data key, as the owner who gives rows does."""

    data_key: bytes = b""

    def grant(self, text: bytes, nonce: bytes, key: bytes) -> bytes:
        self.data_key = key
        return super().grant(text, nonce, key)


def level() -> Level | None:
    try:
        return probes.strongest()
    except Unavailable:
        return None


@pytest.fixture(scope="module")
def jailed() -> Level:
    found = level()
    if found is None:
        pytest.skip("this machine confines no code; test_kinds_query sees what is said then")
    return found


def drafted(enclave: str, recipient: str = "bank", **changes: Any) -> Scenario:
    held = scenario(
        [("region", "income"), ("util", "late")],
        (Dimension("region", "region", REGIONS), Dimension("util_band", "util", (), (40, 70))),
        (MeasureRange("income", 0, AMOUNT), MeasureRange("late", 0, 3000, 2)),
        recipient=recipient,
    )
    held = dataclasses.replace(held, datasets=held.datasets[:2], kinds=(JobKind.PSI, JobKind.QUERY))
    held = dataclasses.replace(held, outputs=(QUERY_RULE,), enclave=enclave, accepts_simulated=True)
    return dataclasses.replace(held, **{"isolation": str(level() or Level.CONFINED), **changes})


def planned(held: Scenario, spec: JobSpec, kind: JobKind, columns: Sequence[tuple[str, ...]]) -> Plan:
    sides = zip(held.datasets, (PartyRole.LEFT, PartyRole.RIGHT), columns, strict=True)
    return Plan(
        job_id=JOB,
        proposer="bank",
        kind=kind,
        scenario_digest=bytes(32),
        submission_digest=bytes(32),
        parties=tuple(
            Party(use.owner, role, DatasetRef(use.code, use.version), use.content_hash, own) for use, role, own in sides
        ),
        engine=KINDS[kind].engines(spec, Conditions())[0],
        outputs=held.outputs,
        recipient="0" * 32,
        recipient_node=held.recipient.node_id,
        deadline_s=60,
        reveals=(),
        isolation=confined.isolation(level() or Level.CONFINED),
        time_ms=0,
    )


def meeting(enclave: str, recipient: str = "bank", **changes: Any) -> Meeting:
    """A statement over both owners' rows."""
    held, spec = (
        drafted(enclave, recipient, **changes),
        JobSpec("request", bytes(32), QuerySpec(None, STATEMENT, EARLIER)),
    )
    columns = KINDS[JobKind.QUERY].columns(spec, held, held.datasets)
    assert columns == (("region", "income"), ("util", "late"))
    plan = planned(held, spec, JobKind.QUERY, columns)
    return Meeting(TABLES, held, spec, plan, recipient, deadline_s=60.0, artefacts=aligned())


def aligned() -> dict[tuple[str, str, str], bytes]:
    """What both nodes keep of the intersection."""
    return {(owner, EARLIER, "alignment"): places.tobytes() for owner, places in POSITIONS.items()}


def kept(made: Room) -> set[tuple[str, str]]:
    """What the job itself left, and where."""
    return {(party, name) for party, job, name in made.artefacts if job == JOB}


def keys_of(rows: pd.DataFrame) -> pa.Array:
    return pa.array(rows["id"], pa.string())


# --- nobody lies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("enclave", "recipient"), [("bank", "bank"), ("operator", "bank"), ("bank", "operator")], ids=str
)
def test_a_statement_is_answered_as_over_the_joined_rows(
    jailed: Level, monkeypatch: pytest.MonkeyPatch, enclave: str, recipient: str
) -> None:
    monkeypatch.setattr(joint, "PIECE", 1000)  # several messages, the last a short one
    made, giver = meeting(enclave, recipient), OTHER[enclave]
    raw = made.compute()
    pieces = made.heard(enclave, "shared")
    assert len(pieces) > 3 and int.from_bytes(pieces[0], "big") == sum(map(len, pieces[1:]))
    assert {len(piece) for piece in pieces[1:-1]} == {1000} and len(pieces[-1]) < 1000

    rows = both()
    groups = [(region, band) for region in REGIONS for band in BANDS]
    inputs = dict(raw[enclave].gate_inputs)
    assert raw[giver].gate_inputs == inputs and inputs["rows"] == SHARED_ROWS
    for at, (region, band) in enumerate(groups):
        own = rows[(rows.region == region) & (rows.util_band == band)]
        told = [inputs[name] for name in (f"group.{at}", f"group.{at}.0", f"rest.{at}.0", f"group.{at}.1")]
        assert told == [len(own), own.late.count(), len(own) - own.late.count(), len(own)]

    sketch = {owner: Sketcher(owner[:1].encode() * 32) for owner in OWNERS}
    assert raw[giver].populations == (sketch[giver].of(SHARED, keys_of(rows), SHARED_ROWS),)
    named = {", ".join(group): rows[(rows.region == group[0]) & (rows.util_band == group[1])] for group in groups}
    named |= {f"{region}, all": rows[rows.region == region] for region in REGIONS}
    named |= {f"all, {band}": rows[rows.util_band == band] for band in BANDS} | {"all, all": rows}
    found = {one.name: one for one in raw[enclave].populations}
    assert found == {name: sketch[enclave].of(name, keys_of(own), len(own)) for name, own in named.items()}

    done = made.reveal(raw)
    held = {(giver, "judged")} | {(recipient, "table")}
    if recipient != enclave:
        held |= {(enclave, f"share-for-{recipient}"), (recipient, f"share-from-{enclave}")}
    assert kept(made) == held
    assert made.artefacts[giver, JOB, "judged"] == json.dumps(inputs, sort_keys=True).encode()

    (table,) = made.release(done).values()
    assert list(zip(table["region"].to_pylist(), table["util_band"].to_pylist(), strict=True)) == groups
    for (region, band), row in zip(groups, table.to_pylist(), strict=True):
        own = rows[(rows.region == region) & (rows.util_band == band)]
        assert row["people"] == 5 * int((len(own) + 2.5) // 5)
        assert row["late"] == pytest.approx(own.late.mean(), abs=0.00501)
        assert row["income"] == own.income.sum()

    assert {message.label for message in made.said} - {"share"} == {"nonce", "quote", "grant", "shared", "judged"}
    for message in made.said:
        assert PERSON.encode() not in message.body and str(AMOUNT).encode() not in message.body
        assert AMOUNT.to_bytes(8, "little") not in message.body
        assert message.label == "share" or PLACE.encode() not in message.body  # a share is the table itself
    assert not [m for m in made.said if m.label in ("shared", "grant", "nonce") and m.sender == enclave]


POINTS = """
import pyarrow as pa
import pyarrow.compute as pc

def run(tables, params):
    rows = tables["data"]
    assert rows.column_names == ["late", "id", "income"]
    late = pc.fill_null(rows["late"], 0)
    return {"points": pa.table({"id": rows["id"], "points": pc.subtract(rows["income"], late)})}
"""
POINTS_TABLES = {
    "points": {
        "class": "row",
        "rows": 1000,
        "of": "data",
        "key": ["id"],
        "columns": [{"name": "id", "type": "string"}, {"name": "points", "type": "integer"}],
    }
}
SCORES = OutputRule(JobKind.MODEL, "scores", OutputClass.ROW_CONSENTED, 10, 1, 1000, 1 << 20, reviewed=True)


def modelled(folder: Path, enclave: str, code: str = POINTS) -> tuple[Shelf, Manifest]:
    """A bundle over both owners' rows, which names people by the left owner's key."""
    inputs = {"data": ["late", "id", "income"]}
    archive = packed(folder / "points", code, inputs=inputs, outputs=POINTS_TABLES, params={})
    manifest, measured = parse(archive).manifest, measure(archive)
    store = Store.at(folder / "store.db")
    store.create()
    place = put(store, folder, archive)
    store.close()
    named: dict[str, Any] = {"dimensions": (), "measures": (), "bundles": (measured,)}
    held = drafted(enclave, kinds=(JobKind.PSI, JobKind.MODEL), outputs=(SCORES,), **named)
    spec = JobSpec("request", bytes(32), ModelSpec(None, measured, "{}", EARLIER))
    columns = model.of(manifest).columns(spec, held, held.datasets)
    assert columns == (("income",), ("late",))
    plan = planned(held, spec, JobKind.MODEL, columns)
    ticket = {"path": str(place.path), "key": place.key.hex(), "runtime": attest.measure_runtime().hex()}
    return Shelf(TABLES, held, spec, plan, "bank", deadline_s=60.0, artefacts=aligned(), bundle=ticket), manifest


@pytest.mark.parametrize("enclave", OWNERS)
def test_letters_are_asked_of_people_whose_scores_left_by_whoever_is_no_recipient(
    jailed: Level, tmp_path: Path, enclave: str
) -> None:
    made, _ = modelled(tmp_path, enclave, POINTS.replace('rows = tables["data"]', 'rows = tables["data"][::9]'))
    made.scenario = dataclasses.replace(
        made.scenario, consent=dataclasses.replace(made.scenario.consent, sample_permille=500)
    )
    made.compute()
    drawn = json.loads(made.artefacts["operator", JOB, "drawn"])
    scored = set(SEQUENCE[::9])  # 45 people
    assert ("bank", JOB, "drawn") not in made.artefacts
    assert len(drawn) == len(set(drawn)) == (23 if enclave == "operator" else 50)
    assert set(drawn) <= (scored if enclave == "operator" else set(SEQUENCE))


@pytest.mark.parametrize("enclave", OWNERS)
def test_a_model_over_both_is_judged_and_looked_at_by_both(jailed: Level, tmp_path: Path, enclave: str) -> None:
    made, manifest = modelled(tmp_path, enclave)
    raw, giver = made.compute(), OTHER[enclave]
    for owner, done in raw.items():
        assert dict(done.gate_inputs) == {"group.all": SHARED_ROWS, "rows": SHARED_ROWS}
        whole = Sketcher(owner[:1].encode() * 32).of(WHOLE, pa.array(SEQUENCE), SHARED_ROWS, is_whole=True)
        assert done.populations == (whole,)
    looked_at = made.artefacts[enclave, JOB, "sample"]
    assert looked_at.startswith(f"scores: 20 of 400 rows\nid | points\n{PERSON}-000 | ".encode())
    assert made.artefacts[giver, JOB, "sample"] == looked_at
    done = made.reveal(raw)
    tables = {name: made.artefacts["bank", JOB, name] for name in done.tables}
    form = model.of(manifest).form
    (left,) = release(made.plan, done, tables, lambda name: form(made.spec, made.scenario, name)).outputs
    rows = both().set_index("id")
    wanted = (rows["income"] - rows["late"].fillna(0)).astype(int)
    scores = read(left.content).to_pandas().set_index("id")["points"]
    assert scores.sort_index().equals(wanted.sort_index().rename("points"))


# --- the giver lies ---------------------------------------------------------------------------------------------------


def caught(made: Meeting) -> SandboxError:
    """The error with which the enclave ends, which names the giver; nothing is kept, and nothing of a row is in it."""
    enclave, giver = made.scenario.enclave, OTHER[made.scenario.enclave]
    ended = made.stage("compute")
    error = ended[enclave]
    assert isinstance(error, ProtocolFailed | JobFailed), error
    assert (error.party, error.stage) == (giver, "compute")
    assert isinstance(ended[giver], Cancelled) and not kept(made)
    assert PERSON not in repr(vars(error)) + str(error) and PLACE not in repr(vars(error)) + str(error)
    return error


@pytest.mark.parametrize(
    ("enclave", "nonce"),
    [("bank", b""), ("operator", bytes(NONCE_SIZE - 1)), ("operator", bytes(NONCE_SIZE + 1))],
    ids=("none", "shorter", "longer"),
)
def test_a_nonce_of_another_size_is_not_quoted(enclave: str, nonce: bytes) -> None:
    def change(message: Message) -> Sequence[Message]:
        return (dataclasses.replace(message, body=nonce) if message.label == "nonce" else message,)

    made = meeting(enclave)
    made.change = change
    assert "no nonce" in str(caught(made))
    assert not made.heard(OTHER[enclave])


Forged = Callable[[attest.Quote, bytes, Binding], bytes]
GRANTS: Mapping[str, Forged] = {
    "nonce": lambda quote, key, own: seal_to(
        quote.key, key, dataclasses.replace(own, nonce=bytes(NONCE_SIZE)).under("grant")
    ),
    "runtime": lambda quote, key, own: seal_to(
        quote.key, key, dataclasses.replace(own, runtime=bytes(32)).under("grant")
    ),
    "program": lambda quote, key, own: seal_to(
        quote.key, key, dataclasses.replace(own, bundle=bytes(32)).under("grant")
    ),
    "purpose": lambda quote, key, own: seal_to(quote.key, key, own.under("sealed-bundle")),
    "enclave": lambda quote, key, own: seal_to(node_keys("witness").sealing.public, key, own.under("grant")),
    "short key": lambda quote, key, own: seal_to(quote.key, key[:-1], own.under("grant")),
    "another key": lambda quote, key, own: seal_to(quote.key, bytes(len(key)), own.under("grant")),
    "nothing": lambda quote, key, own: b"",
    "no envelope": lambda quote, key, own: bytes(300),
}


@pytest.mark.parametrize("what", GRANTS)
def test_a_grant_opens_only_for_the_run_that_was_quoted(what: str) -> None:
    made = meeting("operator")

    def change(message: Message) -> Sequence[Message]:
        if message.label != "grant":
            return (message,)
        (quote,) = made.heard("bank", "quote")
        found = attest.open_simulated(quote, node_keys("operator").identity.public)
        own = Binding(found.nonce, found.runtime, found.bundle)
        return (dataclasses.replace(message, body=GRANTS[what](found, made.data_key, own)),)

    made.change = change
    assert "do not open" in str(caught(made))


def announced(sealed: bytes, size: int | None = None) -> list[bytes]:
    return [(len(sealed) if size is None else size).to_bytes(8, "big"), *([sealed] if sealed else [])]


def flipped(sealed: bytes, at: int) -> bytes:
    return sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]


SEALED: Mapping[str, tuple[Callable[[bytes], list[bytes]], str]] = {
    "first byte": (lambda sealed: announced(flipped(sealed, 0)), "do not open"),
    "a byte between": (lambda sealed: announced(flipped(sealed, len(sealed) // 2)), "do not open"),
    "last byte": (lambda sealed: announced(flipped(sealed, len(sealed) - 1)), "do not open"),
    "cut off": (lambda sealed: announced(sealed[:-1]), "do not open"),
    "its salt only": (lambda sealed: announced(sealed[:32]), "do not open"),
    "nothing": (lambda sealed: announced(b""), "do not open"),
    "twice": (lambda sealed: announced(sealed + sealed), "do not open"),
    "less than announced": (lambda sealed: announced(sealed, len(sealed) + 1), "than announced"),
    "more than announced": (lambda sealed: announced(sealed, len(sealed) - 1), "than announced"),
    "more than may be": (lambda sealed: announced(sealed, joint.MOST + 1), "1024 MiB of rows would enter"),
    "the rows unannounced": (lambda sealed: [sealed], "1024 MiB of rows would enter"),
}


def sends(made: Meeting, bodies: Callable[[bytes], list[bytes]]) -> Meeting:
    """Let the giver send something else than its sealed rows, of which it has one piece."""

    def change(message: Message) -> Sequence[Message]:
        if message.label != "shared":
            return (message,)
        if len(message.body) == 8:
            return ()
        return [dataclasses.replace(message, body=body) for body in bodies(message.body)]

    made.change = change
    return made


@pytest.mark.parametrize("what", SEALED)
def test_only_the_rows_that_were_sealed_are_opened(what: str) -> None:
    bodies, told = SEALED[what]
    assert told in str(caught(sends(meeting("operator"), bodies)))


def test_a_piece_in_place_of_another_is_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joint, "PIECE", 1000)
    made, held = meeting("operator"), list[Message]()

    def change(message: Message) -> Sequence[Message]:
        if message.label != "shared" or len(message.body) != 1000:
            return (message,)
        held.append(message)
        return (held[1], held[0]) if len(held) == 2 else () if len(held) == 1 else (message,)

    made.change = change
    assert "do not open" in str(caught(made)) and len(held) > 2


Changed = Callable[[pa.Table], pa.Table]
OTHERS: Mapping[str, Changed] = {
    "a column more": lambda rows: rows.append_column("note", pa.array([PERSON] * rows.num_rows)),
    "a column less": lambda rows: rows.drop_columns(["late"]),
    "no column": lambda rows: rows.select([]),
    "another name": lambda rows: rows.rename_columns(["util", "delay"]),
    "a name of the enclave's": lambda rows: rows.rename_columns(["util", "income"]),
    "another order": lambda rows: rows.select(["late", "util"]),
    "a column twice": lambda rows: rows.append_column("late", rows["late"]),
    "a row less": lambda rows: rows.slice(1),
    "a row more": lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]),
    "no row": lambda rows: rows.slice(0, 0),
}


@pytest.mark.parametrize("what", OTHERS)
def test_only_the_planned_rows_are_put_beside_the_enclave_s_own(what: str) -> None:
    made = meeting("bank")
    rows = TABLES["operator"].select(["util", "late"]).take(pa.array(POSITIONS["operator"]))

    def bodies(_: bytes) -> list[bytes]:
        return announced(seal_rows(made.data_key, "rows", OTHERS[what](rows)))

    assert str(caught(sends(made, bodies))) == "sent other rows than were planned"


@pytest.mark.parametrize(
    ("enclave", "name", "kind"),
    [
        ("bank", "late", pa.string()),
        ("bank", "late", pa.float64()),
        ("bank", "util", pa.string()),
        ("operator", "region", pa.large_string()),
        ("operator", "income", pa.string()),
    ],
)
def test_a_column_of_another_type_than_declared_is_its_owner_s_fault(
    enclave: str, name: str, kind: pa.DataType
) -> None:
    made, giver = meeting(enclave), "operator" if enclave == "bank" else "bank"
    columns = ["util", "late"] if giver == "operator" else ["region", "income"]
    rows = TABLES[giver].select(columns).take(pa.array(POSITIONS[giver]))
    rows = rows.set_column(columns.index(name), name, rows[name].cast(kind))
    error = caught(sends(made, lambda _: announced(seal_rows(made.data_key, "rows", rows))))
    assert (error.party, error.stage) == (giver, "compute")
    assert str(error) == f"sent the column {name!r} in another type than the scenario declares"


@pytest.mark.parametrize("what", ["another name", "encoded", "nested"])
def test_a_table_of_another_name_or_form_is_not_opened(what: str) -> None:
    made, name = meeting("bank"), "others" if what == "another name" else "rows"
    rows = TABLES["operator"].select(["util", "late"]).take(pa.array(POSITIONS["operator"]))
    if what == "encoded":
        rows = rows.set_column(1, "late", rows["late"].dictionary_encode())
    if what == "nested":
        rows = rows.set_column(1, "late", pa.array([[late] for late in rows["late"].to_pylist()]))
    assert "do not open" in str(caught(sends(made, lambda _: announced(seal_rows(made.data_key, name, rows)))))


# --- the enclave lies -------------------------------------------------------------------------------------------------


def asked(made: Meeting, nonce: bytes | None = None, **other: Any) -> bytes:
    """A quote of a job's enclave, or of another program, level or node, over a key of this test."""
    enclave = made.scenario.enclave
    (own,) = made.heard(enclave, "nonce")
    told = {"keys": node_keys(enclave), "level": confined.level_of(made.plan), "nonce": nonce or own, **other}
    return enclaves.quote(**{"program": confined.program_of(made.spec), **told})


STATEMENTS_OTHER = confined.program_of(JobSpec("request", bytes(32), QuerySpec(None, STATEMENT + " ", EARLIER)))
QUOTES: Mapping[str, tuple[Callable[[Meeting], bytes], type[SandboxError], str]] = {
    "another nonce": (lambda made: asked(made, bytes(NONCE_SIZE)), PolicyRefused, "answers another nonce"),
    "another program": (lambda made: asked(made, program=STATEMENTS_OTHER), PolicyRefused, "not what the data owners"),
    "no program": (lambda made: asked(made, program=b""), PolicyRefused, "not what the data owners approved"),
    "another level": (lambda made: asked(made, level="open"), PolicyRefused, "not what the data owners approved"),
    "another node": (lambda made: asked(made, keys=node_keys("witness")), IntegrityFailed, "not certified"),
    "the asking node": (lambda made: asked(made, keys=node_keys("bank")), IntegrityFailed, "not certified"),
    "changed": (lambda made: asked(made).replace(b'"issued_ms":1', b'"issued_ms":2'), IntegrityFailed, "not verify"),
    "changed in its form": (lambda made: asked(made) + b" ", InvalidSpec, "not a quote"),
    "nothing": (lambda made: b"", InvalidSpec, "not a quote"),
    "too long": (lambda made: bytes(QUOTE_BYTES + 1), ProtocolFailed, "aborted"),
}


def refused(made: Meeting) -> SandboxError:
    """The error with which the giver ends; of its rows, and of their key, nothing was sent."""
    enclave = made.scenario.enclave
    ended = made.stage("compute")
    error = ended[OTHER[enclave]]
    assert isinstance(error, SandboxError) and isinstance(ended[enclave], Cancelled)
    assert [(m.sender, m.label) for m in made.said] == [(OTHER[enclave], "nonce"), (enclave, "quote")]
    assert not kept(made)
    return error


@pytest.mark.parametrize("what", QUOTES)
def test_no_row_is_sent_to_an_enclave_that_is_not_the_approved_one(what: str) -> None:
    forge, error, told = QUOTES[what]
    made = meeting("operator")
    made.change = lambda m: (dataclasses.replace(m, body=forge(made)) if m.label == "quote" else m,)
    found = refused(made)
    assert type(found) is error and told in found.tell
    assert error is not ProtocolFailed or (found.party, found.stage) == ("operator", "compute")


@pytest.mark.parametrize("changes", [{"accepts_simulated": False}, {"runtimes": (bytes(32),)}], ids=str)
def test_no_row_is_sent_where_the_scenario_does_not_let_it(changes: dict[str, Any]) -> None:
    found = refused(meeting("operator", **changes))
    assert type(found) is PolicyRefused and found.tell == broker.REFUSED


def test_a_quote_is_good_for_one_run() -> None:
    earlier = meeting("operator")
    earlier.change = lambda m: (m,) if m.label in ("nonce", "quote") else (dataclasses.replace(m, body=b""),)
    caught(earlier)
    made = meeting("operator")
    (quote,) = earlier.heard("bank", "quote")
    made.change = lambda m: (dataclasses.replace(m, body=quote) if m.label == "quote" else m,)
    assert refused(made).tell == "the quote answers another nonce"


def told(enclave: str, body: bytes) -> tuple[Meeting, Any]:
    """What the giver ends with if its gate is told this; the enclave is only a node that quotes."""
    made, giver = meeting(enclave), OTHER[enclave]

    def change(message: Message) -> Sequence[Message]:
        if message.label == "nonce":
            return (message, Message(enclave, giver, "quote", made.quote(enclave, message.body, FRESH)))
        return (message, Message(enclave, giver, "judged", body)) if message.label == "grant" else (message,)

    made.change = change
    return made, made.stage("compute", [giver])[giver]


FRESH = node_keys("fund").sealing.public.to_bytes()


@pytest.mark.parametrize("enclave", OWNERS)
def test_what_the_giver_s_gate_judges_is_what_it_was_told(enclave: str) -> None:
    numbers = {"rows": 400, "group.0": 0, "rest.none.0": 7, "top.income": 1000, "remainder.income": (1 << 63) - 1}
    body = json.dumps({"numbers": numbers, "sample": "一"}).encode()
    made, raw = told(enclave, body)
    assert isinstance(raw, RawResult) and raw.gate_inputs == numbers and not raw.tables and not raw.figures
    assert {party for party, _ in kept(made)} == {OTHER[enclave]}
    assert made.artefacts[OTHER[enclave], JOB, "judged"] == json.dumps(numbers, sort_keys=True).encode()


def numbered(value: str, name: str = "rows") -> bytes:
    return f'{{"numbers": {{"{name}": {value}}}, "sample": ""}}'.encode()


JUDGED: Mapping[str, bytes] = {
    "nothing": b"",
    "no JSON": b"rows: 400",
    "no text": b"\xff\xfe\xfd",
    "a list": b"[]",
    "null": b"null",
    "deep": b"[" * 200_000,
    "no sample": b'{"numbers": {"rows": 400}}',
    "no numbers": b'{"sample": ""}',
    "numbers in a list": b'{"numbers": [["rows", 400]], "sample": ""}',
    "sample of no text": b'{"numbers": {"rows": 400}, "sample": null}',
    "sample in a list": b'{"numbers": {"rows": 400}, "sample": ["a"]}',
    "half a character": b'{"numbers": {"rows": 400}, "sample": "\\ud800"}',
    "half a character in a name": numbered("400", "group.\\ud800"),
    "a fraction": numbered("1.5"),
    "a whole fraction": numbered("400.0"),
    "infinite": numbered("Infinity"),
    "none": numbered("NaN"),
    "text": numbered('"400"'),
    "bool": numbered("true"),
    "null number": numbered("null"),
    "table": numbered("{}"),
    "below nothing": numbered("-1"),
    "no 64 bits": numbered(str(1 << 63)),
    "thousands of digits": numbered("9" * 5000),
    "of the quota": numbered("0", "used"),
    "no name": numbered("400", ""),
    "half a name": numbered("400", "group"),
    "too long": numbered("400").ljust((7 << 20) + 1),
}


@pytest.mark.parametrize("what", JUDGED)
def test_a_gate_is_told_numbers_of_people_and_nothing_else(what: str) -> None:
    made, error = told("operator", JUDGED[what])
    assert type(error) is ProtocolFailed and (error.party, error.stage) == ("operator", "compute")
    assert str(error) == "what the gate is to judge is not in its form"
    assert not kept(made)


def test_more_than_a_gate_would_hear_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    task: Any = type("Task", (), {"send": staticmethod(lambda to, label, body: sent.append(body))})
    joint.tell(task, "bank", {"rows": 400}, "一")
    monkeypatch.setattr(joint, "_NUMBERS", len(sent[0]))
    joint.tell(task, "bank", {"rows": 400}, "一")
    with pytest.raises(JobFailed, match="too many numbers"):
        joint.tell(task, "bank", {"rows": 4000}, "一")
    assert len(sent) == 2 and json.loads(sent[0]) == {"numbers": {"rows": 400}, "sample": "一"}


NUMBERS = {"rows": 400, "group.0": 400}
TABLE = b"PAR1 and so on"


def headed(head: Any, body: bytes = TABLE) -> bytes:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return len(text).to_bytes(4, "big") + text + body


def finished(share: bytes) -> tuple[Meeting, Any]:
    """What the last stage at the recipient's node ends with."""
    made = meeting("operator")
    made.artefacts["bank", JOB, "judged"] = json.dumps(NUMBERS, sort_keys=True).encode()
    made.artefacts["bank", JOB, "share-from-operator"] = share
    return made, made.stage("finish", ["bank"])["bank"]


def test_the_tables_of_a_share_are_kept_as_they_came() -> None:
    share = joint.pack({"table": TABLE}, dict(reversed(NUMBERS.items())))
    made, done = finished(share)
    assert done == RawResult(NUMBERS, {}, {"table": "table"})
    assert made.artefacts["bank", JOB, "table"] == TABLE
    several = {"scores": b"abc", "learnt": b"", "summary": b"d"}
    assert joint.unpack(joint.pack(several, NUMBERS), "operator") == (several, NUMBERS)


SIZE = len(TABLE)
SHARES: Mapping[str, bytes] = {
    "other numbers": joint.pack({"table": TABLE}, {**NUMBERS, "rows": 401}),
    "a number more": joint.pack({"table": TABLE}, {**NUMBERS, "group.1": 1}),
    "a number less": joint.pack({"table": TABLE}, {"rows": 400}),
    "another kind of number": joint.pack({"table": TABLE}, {**NUMBERS, "rows": 400.0}),  # type: ignore[dict-item]
    "numbers in a list": headed({"numbers": [["rows", 400], [1, 2]], "sizes": {"table": SIZE}}),
    "no numbers": headed({"sizes": {"table": SIZE}}),
    "no sizes": headed({"numbers": NUMBERS}),
    "sizes in a list": headed({"numbers": NUMBERS, "sizes": [["table", SIZE]]}),
    "a smaller size": headed({"numbers": NUMBERS, "sizes": {"table": SIZE - 1}}),
    "a larger size": headed({"numbers": NUMBERS, "sizes": {"table": SIZE + 1}}),
    "a fraction": headed({"numbers": NUMBERS, "sizes": {"table": float(SIZE)}}),
    "bool": headed({"numbers": NUMBERS, "sizes": {"table": True}}, b"P"),
    "text": headed({"numbers": NUMBERS, "sizes": {"table": str(SIZE)}}),
    "below nothing": headed({"numbers": NUMBERS, "sizes": {"table": SIZE + 5, "other": -5}}),
    "no output": headed({"numbers": NUMBERS, "sizes": {}}, b""),
    "another output": joint.pack({"scores": TABLE}, NUMBERS),
    "an output more": joint.pack({"table": TABLE, "judged": b"{}"}, NUMBERS),
    "a list": headed([]),
    "null": headed(None),
    "no JSON": headed(b"{"),
    "no text": headed(b"\xff\xfe\xfd"),
    "deep": headed(b"[" * 200_000),
    "shorter than its head": headed({"numbers": NUMBERS, "sizes": {"table": SIZE}})[:20],
    "a head beyond the end": b"\xff\xff\xff\xff" + json.dumps({"numbers": NUMBERS, "sizes": {}}).encode(),
    "three bytes": b"\0\0\1",
    "nothing": b"",
}


@pytest.mark.parametrize("what", SHARES)
def test_a_share_is_what_was_judged_and_what_was_planned(what: str) -> None:
    made, error = finished(SHARES[what])
    assert type(error) is ProtocolFailed and (error.party, error.stage) == ("operator", "reveal")
    assert kept(made) == {("bank", "judged"), ("bank", "share-from-operator")}


def test_a_table_the_plan_does_not_name_is_none_of_its_outputs() -> None:
    """A model's kind has three outputs; of a job that has two of them, both come, and no other."""
    names = ("scores", "learnt")
    made = meeting("operator")
    rules = tuple(dataclasses.replace(QUERY_RULE, kind=JobKind.MODEL, name=name) for name in names)
    made.plan = dataclasses.replace(made.plan, kind=JobKind.MODEL, outputs=rules)
    made.artefacts["bank", JOB, "judged"] = json.dumps(NUMBERS, sort_keys=True).encode()
    for came, is_good in ((names, True), (names[:1], False), ((*names, "summary"), False)):
        share = joint.pack(dict.fromkeys(came, TABLE), NUMBERS)
        made.artefacts["bank", JOB, "share-from-operator"] = share
        done = made.stage("finish", ["bank"])["bank"]
        assert isinstance(done, RawResult if is_good else ProtocolFailed)


@pytest.mark.parametrize("what", ["numbers in a list", "sizes in a list", "a fraction", "bool", "below nothing"])
def test_the_head_of_a_share_has_one_form(what: str) -> None:
    with pytest.raises(ProtocolFailed, match="as announced"):
        joint.unpack(SHARES[what], "operator")


@given(
    st.binary(max_size=64)
    | st.recursive(
        st.none() | st.booleans() | st.integers(-5, 40) | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["sizes", "numbers", "a"]), inner),
        max_leaves=8,
    ).map(headed)
)
def test_no_share_ends_the_last_stage_in_an_error_that_is_not_ours(share: bytes) -> None:
    try:
        tables, numbers = joint.unpack(share, "operator")
    except ProtocolFailed as error:
        assert error.party == "operator"
    else:
        assert share.endswith(b"".join(tables.values())) and type(numbers) is dict


# --- which columns each owner brings ----------------------------------------------------------------------------------


def use(owner: str, key: tuple[str, ...], fields: tuple[str, ...], label: str = "") -> DatasetUse:
    return DatasetUse(f"set-{owner}", owner, VersionRule.EXACT, 1, bytes(32), key, fields, label)


LEFT, RIGHT = use("bank", ("id",), ("income", "region"), "bad"), use("operator", ("phone",), ("late", "util"))


def test_each_owner_brings_its_own_columns_in_the_order_of_use() -> None:
    assert joint.divided(["util", "region", "late", "income"], [LEFT, RIGHT]) == (
        ("region", "income"),
        ("util", "late"),
    )
    assert joint.divided(["late", "bad"], [LEFT, RIGHT]) == (("bad",), ("late",))
    labelled = dataclasses.replace(RIGHT, label="churned")
    assert joint.divided(["bad", "churned"], [LEFT, labelled]) == (("bad",), ("churned",))


def test_the_key_of_the_left_counts_as_a_column_and_travels_apart() -> None:
    assert joint.divided(["id", "late"], [LEFT, RIGHT], ["id"]) == ((), ("late",))
    assert joint.divided(["id", "late", "income"], [LEFT, RIGHT], ["id"]) == (("income",), ("late",))
    with pytest.raises(InvalidSpec, match="columns of both owners"):
        joint.divided(["id", "late"], [LEFT, RIGHT])  # of a statement, which is told of no key
    with pytest.raises(InvalidSpec, match="columns of both owners"):
        joint.divided(["id", "income"], [LEFT, RIGHT], ["id"])


@pytest.mark.parametrize("names", [["income", "region"], ["late"], [], ["phone", "income"]], ids=str)
def test_an_owner_that_brings_nothing_has_no_part_in_it(names: list[str]) -> None:
    with pytest.raises(InvalidSpec) as refusal:
        joint.divided(names, [LEFT, RIGHT])
    assert "this reads those of one" in refusal.value.tell and "instead of the alignment" in refusal.value.hint


def test_a_column_that_both_have_is_nobody_s() -> None:
    alike = dataclasses.replace(RIGHT, fields=("late", "income"))
    with pytest.raises(InvalidSpec) as refusal:
        joint.divided(["late", "income", "region"], [LEFT, alike])
    assert refusal.value.tell == "both owners have a column 'income'" and refusal.value.hint
    assert joint.divided(["late", "region"], [LEFT, alike]) == (("region",), ("late",))  # which is not read
    with pytest.raises(InvalidSpec, match="column 'bad'"):
        joint.divided(["bad", "late"], [LEFT, dataclasses.replace(RIGHT, label="bad")])
    assert joint.divided(["income", "late"], [LEFT, dataclasses.replace(RIGHT, key=("income",))])


@pytest.mark.parametrize("key", [(), ("id",)], ids=str)
def test_a_column_of_the_right_owner_s_does_not_pass_for_the_left_owner_s_key(key: tuple[str, ...]) -> None:
    """Rows about persons are named by the left owner's key: no column of the other may stand in its place."""
    alike = dataclasses.replace(RIGHT, fields=("late", "id"))
    with pytest.raises(InvalidSpec, match="both owners have a column 'id'"):
        joint.divided(["id", "late", "income"], [LEFT, alike], key)


def test_the_same_name_of_both_owners_keys_is_no_clash() -> None:
    same = dataclasses.replace(RIGHT, key=("id",))
    assert joint.divided(["id", "late"], [LEFT, same], ["id"]) == ((), ("late",))


# --- what the kinds ask of this module --------------------------------------------------------------------------------


def test_only_the_enclave_sends_and_only_to_a_recipient_elsewhere() -> None:
    for enclave, recipient, wanted in (
        ("bank", "bank", {}),
        ("operator", "operator", {}),
        ("operator", "bank", {"bank": ("operator",)}),
        ("bank", "operator", {"operator": ("bank",)}),
    ):
        made = meeting(enclave, recipient)
        assert joint.shares(made.plan, made.spec, made.scenario) == wanted
        alone = dataclasses.replace(made.spec, kind=QuerySpec(None, STATEMENT))
        assert joint.shares(made.plan, alone, made.scenario) == {} and joint.host(alone, made.scenario) == ""
        assert joint.host(made.spec, made.scenario) == enclave


def test_the_enclave_s_key_is_of_this_run() -> None:
    found = []
    for _ in range(2):
        made = meeting("operator")
        made.change = lambda m: (m,) if m.label in ("nonce", "quote") else (dataclasses.replace(m, body=b""),)
        with pytest.raises(ProtocolFailed):
            good(made.stage("compute"))
        (quote,) = made.heard("bank", "quote")
        (nonce,) = made.heard("operator", "nonce")
        found += [attest.open_simulated(quote, node_keys("operator").identity.public).report_data, nonce, made.data_key]
    assert len(set(found)) == 6
