"""A merchant's own code as a kind: which bundles it takes, what they declare, what runs, what the gate is left with."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kind_parties import JOB, KEY, Room, good, ref, scenario

from sandbox import record, signed, wire
from sandbox.catalog import bundles
from sandbox.catalog.bundles import HandedIn
from sandbox.crypto.sm2 import PrivateKey
from sandbox.errors import (
    AlreadyExists,
    IntegrityFailed,
    InvalidSpec,
    JobFailed,
    OutputWithheld,
    PolicyRefused,
    Unavailable,
)
from sandbox.gate.judge import judge
from sandbox.gate.release import release
from sandbox.home import Home, init
from sandbox.kinds import confined, model
from sandbox.kinds.kind import Conditions
from sandbox.kinds.population import WHOLE, Sketcher
from sandbox.ledger import Ledger
from sandbox.model import (
    DatasetRef,
    DatasetUse,
    JobKind,
    JobSpec,
    JobSubmission,
    ModelSpec,
    OutputClass,
    OutputRule,
    Party,
    PartyRole,
    Plan,
    RawResult,
    Scenario,
    Signed,
    State,
)
from sandbox.policy import book, enclaves
from sandbox.policy.scenario import Floors
from sandbox.store import Store
from sandbox.tee_sim import attest
from sandbox.tee_sim.bundle import measure, pack, parse
from sandbox.tee_sim.levels import Level
from sandbox.tee_sim.manifest import Manifest
from sandbox.tee_sim.manifest import read as read_manifest
from sandbox.tee_sim.probes import strongest

MARK = "KIND-CANARY-2209"
NODE_KEY = bytes(range(16))
ROWS = pa.table({"id": [f"{MARK}-{n:03d}" for n in range(60)], "income": list(range(60)), "note": [MARK] * 60})
RULES = (
    OutputRule(JobKind.MODEL, "scores", OutputClass.ROW_CONSENTED, 10, 1, 100, 1 << 20),
    OutputRule(JobKind.MODEL, "learnt", OutputClass.MODEL, 20, 10, 50, 1 << 20, reviewed=True),
    OutputRule(JobKind.MODEL, "summary", OutputClass.MODEL, 20, 10, 50, 1 << 20, reviewed=True),
)
MANIFEST: dict[str, Any] = {
    "name": "small",
    "form": "python",
    "entry": "model.py",
    "inputs": {"people": ["id", "income"]},
    "outputs": {
        "points": {
            "class": "row",
            "rows": 100,
            "of": "people",
            "key": ["id"],
            "columns": [{"name": "id", "type": "string"}, {"name": "points", "type": "number", "places": 1}],
        },
        "weights": {
            "class": "model",
            "rows": 50,
            "columns": [
                {"name": "n", "type": "integer"},
                {"name": "w", "type": "number", "places": 2},
                {"name": "maybe", "type": "number", "places": 1, "optional": True},
                {"name": "day", "type": "date"},
                {"name": "is", "type": "boolean"},
                {"name": "what", "type": "string", "values": ["a", "b"]},
            ],
        },
    },
    "params": {"factor": "number"},
}
CODE = """
import datetime
import pyarrow as pa

def run(tables, params):
    people = tables["people"]
    assert people.column_names == ["id", "income"]
    print("MARK" * 3)
    if params["factor"] < 0:
        raise ValueError(people.to_pylist())
    points = [params["factor"] * value for value in people["income"].to_pylist()]
    count = 45
    weights = pa.table({
        "n": list(range(count)), "w": [n / 3 for n in range(count)],
        "maybe": pa.array([None if n % 2 else n / 10 for n in range(count)], pa.float64()),
        "day": [datetime.date(2020, 1, 1)] * count, "is": [n % 2 == 0 for n in range(count)], "what": ["a"] * count,
    })
    return {"points": pa.table({"id": people["id"], "points": points}), "weights": weights}
""".replace("MARK", MARK)


def manifest(**changes: Any) -> Manifest:
    return read_manifest({**MANIFEST, **changes}, "bundle.json")


def packed(folder: Path, code: str = CODE, **changes: Any) -> bytes:
    """A bundle; TOML takes JSON's values as they are, but for tables."""
    folder.mkdir()
    document = {**MANIFEST, **changes}
    lines = [f"{name} = {json.dumps(document[name])}" for name in ("name", "form", "entry")]
    for table in ("inputs", "params"):
        lines += [f"[{table}]", *(f"{name} = {json.dumps(value)}" for name, value in document[table].items())]
    for name, output in document["outputs"].items():
        lines.append(f"[outputs.{name}]")
        lines += [f"{member} = {json.dumps(value)}" for member, value in output.items() if member != "columns"]
        columns = [", ".join(f"{n} = {json.dumps(v)}" for n, v in column.items()) for column in output["columns"]]
        lines.append("columns = [" + ", ".join(f"{{ {one} }}" for one in columns) + "]")
    (folder / "bundle.toml").write_text("\n".join(lines))
    (folder / "model.py").write_text(code)
    return pack(folder)


def held(measured: bytes, **changes: Any) -> Scenario:
    made = scenario([("income",)])
    return dataclasses.replace(made, kinds=(JobKind.MODEL,), outputs=RULES, bundles=(measured,), **changes)


def asked(measured: bytes, params: str = '{"factor": 2.0}') -> JobSpec:
    return JobSpec("request", bytes(32), ModelSpec(ref("bank"), measured, params))


# --- which bundles, and what they declare -----------------------------------------------------------------------------


def test_a_bundle_has_one_input_and_one_table_a_class() -> None:
    model.check_manifest(manifest())
    points = MANIFEST["outputs"]["points"]
    with pytest.raises(InvalidSpec, match="reads one table"):
        model.check_manifest(manifest(inputs={"people": ["id", "income"], "others": ["id"]}))
    with pytest.raises(InvalidSpec, match="at most one table of class row: it leaves as scores; this one has a and b"):
        model.check_manifest(manifest(outputs={"b": points, "a": points}))
    keyless = {name: value for name, value in points.items() if name not in ("of", "key")}
    keyless["columns"] = [{"name": "points", "type": "integer"}]
    with pytest.raises(InvalidSpec, match=r"outputs\.points: rows about persons need of and key"):
        model.check_manifest(manifest(outputs={"points": keyless}))


def test_a_bundle_makes_its_own_outputs_and_columns() -> None:
    made, spec, where = model.of(manifest()), asked(b"B" * 32), held(b"B" * 32)
    assert made.chosen(spec) == {"scores", "learnt"}
    assert made.columns(spec, where, where.datasets) == (("income",),)
    assert made.shares(None, spec, where) == {}  # type: ignore[arg-type]
    assert made.engines(spec, Conditions()) == ("jail",)
    alone = model.of(manifest(outputs={"totals": {**MANIFEST["outputs"]["weights"], "class": "aggregate"}}))
    assert alone.chosen(spec) == {"summary"}


def test_what_a_scenario_does_not_let_in_is_refused() -> None:
    spec, where = asked(b"B" * 32), held(b"B" * 32)
    weights = {"weights": MANIFEST["outputs"]["weights"]}

    def columns(what: Manifest, of: JobSpec = spec, under: Scenario = where) -> Any:
        return model.of(what).columns(of, under, under.datasets)

    with pytest.raises(PolicyRefused, match="does not approve this bundle"):
        columns(manifest(), asked(b"C" * 32))
    with pytest.raises(PolicyRefused, match="does not approve this bundle"):
        model.KIND.columns(spec, where, where.datasets)  # of a bundle nobody opened
    with pytest.raises(PolicyRefused, match="'note', which the scenario does not let in"):
        columns(manifest(inputs={"people": ["id", "note"]}))
    with pytest.raises(PolicyRefused, match="reads the key 'id', and gives out no rows"):
        columns(manifest(outputs=weights))
    for params in ("[]", "nothing", "[" * 5000, '{"factor": NaN}', '{"factor": "2"}', "{}", '{"factor": 1, "more": 1}'):
        with pytest.raises(InvalidSpec, match=r"params|parameter"):
            columns(manifest(), asked(b"B" * 32, params))
    (use,) = where.datasets
    other = dataclasses.replace(where, datasets=(dataclasses.replace(use, key=("id", "income"), fields=()),))
    with pytest.raises(PolicyRefused, match="key of points is not that of the dataset: id, income"):
        columns(manifest(), under=other)
    for gone, name in (("scores", "points"), ("learnt", "weights")):
        ruled = dataclasses.replace(where, outputs=tuple(rule for rule in RULES if rule.name != gone))
        with pytest.raises(PolicyRefused, match=f"gives out {name}, and the scenario has no rule for {gone}"):
            columns(manifest(), under=ruled)
    strangers = tuple(dataclasses.replace(rule, kind=JobKind.SCORE) for rule in RULES)
    with pytest.raises(PolicyRefused, match="no rule for scores"):
        columns(manifest(), under=dataclasses.replace(where, outputs=strangers))


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def plan(measured: bytes, level: str, rules: tuple[OutputRule, ...] = RULES) -> Plan:
    party = Party("bank", PartyRole.LEFT, ref("bank"), b"b" * 32, ("income",))
    return Plan(
        job_id=JOB,
        proposer="bank",
        kind=JobKind.MODEL,
        scenario_digest=bytes(32),
        submission_digest=bytes(32),
        parties=(party,),
        engine="jail",
        outputs=rules,
        recipient="0" * 32,
        recipient_node="bank",
        deadline_s=60,
        reveals=(),
        isolation=f"{level} SIMULATED",
        time_ms=0,
    )


def test_the_gate_takes_only_what_the_bundle_declares() -> None:
    declared, spec = model.of(manifest()), asked(b"B" * 32)
    found = pa.table(
        {
            "n": pa.array([1, 2]),
            "w": pa.array([0.12, 0.5]),
            "maybe": pa.array([None, 0.5], pa.float64()),
            "day": pa.array([0, 1], pa.date32()),
            "is": pa.array([True, False]),
            "what": pa.array(["a", "b"]),
        }
    )
    raw = RawResult({"group.all": 60, "rows": 60}, {}, {"learnt": "learnt"})
    rules = plan(b"B" * 32, "confined", RULES[1:2])

    def leaves(table: pa.Table) -> pa.Table:
        (output,) = release(
            rules, raw, {"learnt": parquet(table)}, lambda name: declared.form(spec, held(b"B" * 32), name)
        ).outputs
        return pq.read_table(pa.BufferReader(output.content))

    assert leaves(found).equals(found)
    for place, name in enumerate(found.column_names):
        other = pa.array(["x", "y"]) if name != "what" else pa.array([1, 2])
        with pytest.raises(OutputWithheld):
            leaves(found.set_column(place, name, other))
    for wrong in (
        found.append_column("more", pa.array([1, 2])),
        found.drop_columns(["is"]),
        found.rename_columns(["n", "w", "maybe", "day", "what", "is"]),
        found.set_column(1, "w", pa.array([0.5, None], pa.float64())),
        found.set_column(1, "w", pa.array([0.5, float("inf")])),
        pa.concat_tables([found] * 26),
    ):
        with pytest.raises(OutputWithheld):
            leaves(wrong)
    finer = found.set_column(1, "w", pa.array([0.1234, 0.5]))
    assert leaves(finer)["w"].to_pylist() == [0.12, 0.5]


def test_of_a_strangers_code_only_how_many_went_in_is_judged() -> None:
    rule = RULES[1]
    judged = plan(b"B" * 32, "confined", (rule,))
    (evidence,) = judge(judged, {"group.all": 20, "rows": 20})
    assert (evidence.check, evidence.bound, evidence.found) == ("group.all", 20, 20)
    for inputs in ({"group.all": 19}, {"rows": 1000}, {}):
        with pytest.raises(OutputWithheld):
            judge(judged, inputs)
    card = dataclasses.replace(rule, kind=JobKind.TRAIN, name="scorecard")  # a scorecard needs what it always needed
    with pytest.raises(OutputWithheld, match="degrees of freedom"):
        judge(dataclasses.replace(judged, outputs=(card,)), {"group.all": 1000, "rows": 1000})


def test_a_sample_is_spread_evenly_and_bounded() -> None:
    long = pa.table({"n": list(range(1000))})
    lines = model.sample({"learnt": long}).splitlines()
    assert lines[:2] == ["learnt: 20 of 1000 rows", "n"]
    shown = [int(line) for line in lines[2:]]
    assert len(shown) == 20 and shown[0] == 0 and shown[-1] == 999
    assert max(np.diff(shown)) - min(np.diff(shown)) <= 1
    two = model.sample({"learnt": pa.table({"a": [1.5], "b": [None]}), "summary": long.slice(0, 0)})
    assert two == "learnt: 1 of 1 rows\na | b\n1.5 | \n\nsummary: 0 of 0 rows\nn"
    wide = pa.table({f"c{n}": ["x" * 60] * 20 for n in range(250)})
    assert len(model.sample({"learnt": wide})) == 65536


# --- next to the rows -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def level() -> Level:
    try:
        return strongest()
    except Unavailable as error:
        pytest.skip(f"no level of the jail holds here: {error}")


@dataclasses.dataclass
class Shelf(Room):
    """One owner's node, with a bundle on it."""

    bundle: Any = None

    def _ticket(self, *given: Any) -> dict[str, Any]:
        return {**super()._ticket(*given), "bundle": self.bundle}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.at(tmp_path / "store.db")
    made.create()
    yield made
    made.close()


def given(submitter: str = "m" * 32) -> HandedIn:
    return HandedIn("Fintech Ltd", submitter, Signed(b"statement", submitter, b"s" * 70), 1)


def put(store: Store, home: Path, archive: bytes, **who: Any) -> bundles.Place:
    with store.write() as conn:
        bundles.keep(conn, home, NODE_KEY, parse(archive), archive, given(**who))
        return bundles.locate(conn, home, NODE_KEY, measure(archive))


def shelf(place: bundles.Place, level: Level, params: str = '{"factor": 2.0}', **ticket: str) -> Shelf:
    measured = ticket.pop("named", place.measurement.hex())
    handed = {"path": str(place.path), "key": place.key.hex(), "runtime": attest.measure_runtime().hex(), **ticket}
    named = bytes.fromhex(measured)
    rules = tuple(rule for rule in RULES if rule.name != "summary")
    return Shelf({"bank": ROWS}, held(named), asked(named, params), plan(named, level, rules), "bank", bundle=handed)


def test_tables_stay_sealed_here_and_numbers_go_to_the_gate(level: Level, store: Store, tmp_path: Path) -> None:
    room = shelf(put(store, tmp_path, packed(tmp_path / "b")), level)
    raw = room.compute()["bank"]
    assert dict(raw.gate_inputs) == {"group.all": 60, "rows": 60}
    assert dict(raw.tables) == {"scores": "scores", "learnt": "learnt"}
    assert raw.figures == {"printed_bytes": float(3 * len(MARK) + 1)}
    assert raw.populations == (Sketcher(b"b" * 32).of(WHOLE, ROWS["id"].combine_chunks(), 60, is_whole=True),)
    assert {name for _, _, name in room.artefacts} == {"scores", "learnt", "sample"}
    text = room.artefacts["bank", JOB, "sample"].decode()
    assert text.startswith(
        "learnt: 20 of 45 rows\nn | w | maybe | day | is | what\n0 | 0.0 | 0.0 | 2020-01-01 | True | a\n"
    )
    assert MARK not in text  # nobody reviews the scores under this scenario
    tables = {name: room.artefacts["bank", JOB, name] for name in raw.tables}
    made = model.of(parse(packed(tmp_path / "again")).manifest)
    left = release(room.plan, raw, tables, lambda name: made.form(room.spec, room.scenario, name)).outputs
    scores = next(pq.read_table(pa.BufferReader(one.content)) for one in left if one.name == "scores")
    assert scores.column_names == ["id", "points"]
    assert dict(zip(*scores.to_pydict().values(), strict=True)) == {
        name: 2.0 * income for name, income in zip(ROWS["id"].to_pylist(), ROWS["income"].to_pylist(), strict=True)
    }


def test_scores_that_people_review_are_in_their_sample(level: Level, store: Store, tmp_path: Path) -> None:
    room = shelf(put(store, tmp_path, packed(tmp_path / "b")), level)
    looked_at = tuple(dataclasses.replace(rule, reviewed=True) for rule in room.plan.outputs)
    room.plan = dataclasses.replace(room.plan, outputs=looked_at)
    room.compute()
    assert f"scores: 20 of 60 rows\nid | points\n{MARK}-000 | 0.0" in room.artefacts["bank", JOB, "sample"].decode()


def test_rows_about_persons_need_a_rule(level: Level, store: Store, tmp_path: Path) -> None:
    room = shelf(put(store, tmp_path, packed(tmp_path / "b")), level)
    room.plan = dataclasses.replace(room.plan, outputs=RULES[1:2])
    with pytest.raises(OutputWithheld, match="rows about persons"):
        room.compute()
    assert not room.artefacts


def test_failing_code_leaves_a_reason_and_none_of_its_words(level: Level, store: Store, tmp_path: Path) -> None:
    room = shelf(put(store, tmp_path, packed(tmp_path / "b")), level, '{"factor": -1.0}')
    with pytest.raises(JobFailed) as ended:
        room.compute()
    assert str(ended.value).startswith("the program ended with an error; the code printed ")
    assert ended.value.tell == JobFailed.public
    assert MARK not in repr(vars(ended.value)) + str(ended.value)
    assert ended.value.__cause__ is None and not room.artefacts


def test_only_the_bundle_that_was_approved_runs_and_only_in_the_runtime_that_was_quoted(
    store: Store, tmp_path: Path
) -> None:
    place = put(store, tmp_path, packed(tmp_path / "b"))
    other = put(store, tmp_path, packed(tmp_path / "o", CODE + "\n# other\n"))
    for room in (
        shelf(place, Level.CONFINED, named=other.measurement.hex()),
        shelf(place, Level.CONFINED, path=str(other.path)),
        shelf(place, Level.CONFINED, path=str(tmp_path / "gone")),
        shelf(place, Level.CONFINED, runtime="00" * 32),
    ):
        with pytest.raises(IntegrityFailed):
            good(room.stage("compute"))
    room = shelf(place, Level.CONFINED)
    room.bundle = {}
    with pytest.raises(JobFailed, match="no bundle"):
        good(room.stage("compute"))


def test_over_one_owner_s_rows_finish_is_never_asked_for() -> None:
    alone: Any = SimpleNamespace(spec=asked(b"B" * 32))
    with pytest.raises(JobFailed):
        model.KIND.finish(alone)


# --- bundles at rest --------------------------------------------------------------------------------------------------


def test_a_bundle_is_kept_once_under_its_measurement(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = packed(tmp_path / "b")
    place = put(store, tmp_path, archive)
    assert place.read() == archive and archive[:512] not in place.path.read_bytes()
    assert place.key.hex() not in repr(place) and repr(place.key) not in repr(place)
    content = place.path.read_bytes()
    assert put(store, tmp_path, archive) == place and place.path.read_bytes() == content
    with pytest.raises(AlreadyExists):
        put(store, tmp_path, archive, submitter="n" * 32)
    described = bundles.describe(place)
    assert described.manifest == manifest() and described.files == (("model.py", len(CODE)),)
    monkeypatch.setattr(bundles, "MOST", 1)
    second = packed(tmp_path / "c", CODE + "\n")
    with pytest.raises(Unavailable, match="as many bundles as it may: 1 at once"):
        put(store, tmp_path, second)
    put(store, tmp_path, second, submitter="n" * 32)
    with store.read() as conn:
        assert [row.submitter[0] for row in bundles.listed(conn, b"", 9, "m" * 32)] == ["m"]
        assert len(bundles.listed(conn, b"", 9)) == 2 and len(bundles.listed(conn, b"", 1)) == 1
        with pytest.raises(Unavailable, match="is not here"):
            bundles.locate(conn, tmp_path, NODE_KEY, bytes(32))
        with pytest.raises(IntegrityFailed):
            bundles.locate(conn, tmp_path, bytes(16), place.measurement)


def test_a_key_that_withdraws_and_hands_in_without_end_is_stopped(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "MOST", 1)
    monkeypatch.setattr(bundles, "MOST_EVER", 3)
    archives = [packed(tmp_path / str(turn), CODE + "\n" * turn) for turn in range(4)]
    for archive in archives[:3]:
        place = put(store, tmp_path, archive)
        with store.write() as conn:
            assert bundles.withdraw(conn, place.measurement, 7).wrapped_key is None
            bundles.forget(conn, tmp_path, place.measurement)
        assert not place.path.exists()
    with pytest.raises(Unavailable, match="1 at once, 3 with those withdrawn"):
        put(store, tmp_path, archives[3])
    put(store, tmp_path, archives[3], submitter="n" * 32)  # another key has its own count


def test_a_file_that_was_changed_or_is_gone_is_never_run(store: Store, tmp_path: Path) -> None:
    place = put(store, tmp_path, packed(tmp_path / "b"))
    sealed = bytearray(place.path.read_bytes())
    sealed[100] ^= 1
    place.path.write_bytes(sealed)
    with pytest.raises(IntegrityFailed):
        place.read()
    place.path.unlink()
    with pytest.raises(IntegrityFailed, match="gone"):
        place.read()


# --- who may open the rows --------------------------------------------------------------------------------------------


def test_levels_as_strong_as_the_scenario_asks_for_are_accepted() -> None:
    for least, accepted in (
        ("", {"confined"}),
        ("confined", {"confined"}),
        ("unprivileged", {"confined", "unprivileged"}),
        ("narrowed", {"confined", "unprivileged", "narrowed"}),
    ):
        found = enclaves.approved(held(b"B" * 32, isolation=least), asked(b"B" * 32))
        assert found.levels == accepted and found.bundles == {b"B" * 32}
        assert found.runtimes == {attest.measure_runtime()}
    assert enclaves.approved(held(b"C" * 32), asked(b"B" * 32)).bundles == set()  # the job's is not the scenario's
    named = enclaves.approved(held(b"B" * 32, runtimes=(b"r" * 32,)), asked(b"B" * 32))
    assert named.runtimes == {b"r" * 32}


@dataclasses.dataclass(frozen=True)
class Owner:
    """One data owner's durable side, with a bundle handed in."""

    ledger: Ledger
    merchant: PrivateKey
    measured: bytes

    def running(self, level: str, **changes: Any) -> record.Job:
        """A job that was admitted, however it was, and runs."""
        now = signed.now_ms()
        key = self.merchant.public.to_bytes()
        use = dataclasses.replace(held(self.measured).datasets[0], owner="bank")
        assert isinstance(use, DatasetUse)
        whole = held(
            self.measured,
            applicant_key=key,
            operator="bank",
            not_before_ms=now - 1000,
            not_after_ms=now + 10_000_000,
            nonce=now.to_bytes(16, "big"),
        )
        whole = dataclasses.replace(whole, **changes)
        application = signed.sign(self.merchant, "scenario", whole)
        digest = signed.digest("scenario", application)
        spec = dataclasses.replace(asked(self.measured), scenario_digest=digest, request_id=digest.hex())
        call = signed.sign_call(self.merchant, "bank", "/sandbox.v1.JobService/SubmitJob", JobSubmission(spec))
        made = dataclasses.replace(
            plan(self.measured, level),
            job_id=record.job_id(call.key_id, spec.request_id),
            scenario_digest=digest,
        )
        with self.ledger.store.write() as conn:
            book.file(conn, application, Floors(1, 1, 1))
            job = record.create(conn, call, made, wire.encode(made), b"r" * 32)
            record.move(conn, job.job_id, State.RUNNING)
            return job

    def entered(self, job: record.Job) -> list[tuple[str, dict[str, str]]]:
        from sandbox.audit import log
        from sandbox.model import Entry

        with self.ledger.store.read() as conn:
            found = [wire.decode(Entry, leaf) for _, leaf in log.for_job(conn, job.job_id)]
        return [(entry.what, {fact.name: fact.value for fact in entry.facts}) for entry in found]


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    init(tmp_path / "bank", node_id="bank", organisation="Example Bank", listen="127.0.0.1:1")
    home = Home(tmp_path / "bank")
    ledger = Ledger(home.path, home.settings, home.keys, home.store, lambda: {})
    archive = packed(tmp_path / "b")
    with home.store.write() as conn:
        bundles.keep(conn, home.path, home.keys.node_key, parse(archive), archive, given())
    yield Owner(ledger, PrivateKey.generate(), measure(archive))
    home.store.close()


def test_the_key_of_rows_is_released_to_what_was_approved_and_entered_before(owner: Owner) -> None:
    job = owner.running("confined")
    ticket = asyncio.run(owner.ledger.open_enclave(job))
    opened = bundles.Place(Path(ticket["path"]), bytes.fromhex(ticket["key"]), owner.measured)
    assert measure(opened.read()) == owner.measured
    assert ticket["runtime"] == attest.measure_runtime().hex()
    ((what, facts),) = owner.entered(job)
    assert what == "key-released"
    quote = facts.pop("quote")
    assert facts == {
        "vendor": "SIMULATED",
        "level": "confined",
        "bundle": owner.measured.hex(),
        "runtime": attest.measure_runtime().hex(),
    }
    asyncio.run(owner.ledger.open_enclave(job))
    assert owner.entered(job)[1][1]["quote"] != quote  # a nonce of its own every time


def test_a_weaker_place_gets_no_key_and_the_refusal_is_entered(owner: Owner) -> None:
    job = owner.running("narrowed")
    with pytest.raises(PolicyRefused, match="isolation level is narrowed") as refused:
        asyncio.run(owner.ledger.open_enclave(job))
    assert refused.value.tell == "the enclave's quote is not what the data owners approved"
    ((what, facts),) = owner.entered(job)
    assert (what, facts["level"], facts["vendor"]) == ("key-refused", "narrowed", "SIMULATED")
    weaker = owner.running("narrowed", isolation="narrowed")
    assert asyncio.run(owner.ledger.open_enclave(weaker))


def test_a_bundle_that_is_not_approved_any_more_gets_no_key(owner: Owner) -> None:
    job = owner.running("confined", bundles=(b"C" * 32,))
    with pytest.raises(PolicyRefused):
        asyncio.run(owner.ledger.open_enclave(job))
    assert [what for what, _ in owner.entered(job)] == ["key-refused"]


def test_a_bundle_decides_a_jobs_kind_only_where_it_is_approved(owner: Owner) -> None:
    spec, ledger = asked(owner.measured), owner.ledger
    with ledger.store.read() as conn:
        made = ledger.bundled(conn, spec, held(owner.measured))
        assert made is not None and made.chosen(spec) == {"scores", "learnt"}
        assert ledger.bundled(conn, spec, held(b"C" * 32)) is None
        with pytest.raises(Unavailable, match="is not here"):
            ledger.bundled(conn, asked(b"C" * 32), held(b"C" * 32))


def test_plans_name_the_level_and_what_it_is_not() -> None:
    assert confined.level_of(plan(b"B" * 32, "narrowed")) is Level.NARROWED
    assert len(KEY) == 65


def test_people_are_found_by_the_key_of_the_job_s_dataset_as_the_bundle_declares_it() -> None:
    """The key is a number in the dataset and a text in the bundle; another dataset of the scenario has another key."""
    both = (SimpleNamespace(code="b", version=1, key=("phone",)), SimpleNamespace(code="a", version=1, key=("id",)))
    left = SimpleNamespace(role=PartyRole.LEFT, dataset=DatasetRef("a", 1))
    task: Any = SimpleNamespace(
        plan=SimpleNamespace(outputs=(SimpleNamespace(name="scores"),), parties=(left,)),
        scenario=SimpleNamespace(datasets=both),
        spec=JobSpec("request", bytes(32), ModelSpec(DatasetRef("a", 1), bytes(32), "{}")),
    )
    rows = pa.table({"id": [7, 8, 9], "phone": [1, 1, 1]})
    scores = pa.table({"points": [1, 2], "id": ["9", "7"]})
    assert sorted(model._scored(task, scores, rows).tolist()) == [0, 2]
    assert model._scored(task, scores.slice(0, 0), rows).tolist() == []
