"""The enclave: measured, unsealed, run, sealed; what breaks the declaration or the order of things ends the run."""

from __future__ import annotations

import importlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from bundle_builders import CODE, FILES, MANIFEST, write_files

from jobs.own_model.generate import generate
from sandbox import signed
from sandbox.crypto.envelope import open_with
from sandbox.crypto.sm2 import PrivateKey
from sandbox.errors import Cancelled, IntegrityFailed, InvalidSpec, JobFailed, OutputWithheld, Unavailable, WrongState
from sandbox.tee_sim.attest import Expectation, Quote, SimulatedAttester, verify
from sandbox.tee_sim.broker import Approved, grant_key, seal_bundle, seal_rows
from sandbox.tee_sim.bundle import MOST_BYTES, measure, pack, parse
from sandbox.tee_sim.enclave import Enclave, Ran, SealedTable, read_params, sweep_programs
from sandbox.tee_sim.levels import Level, Limits, Outcome, told_by
from sandbox.tee_sim.outputs import check_outputs
from sandbox.tee_sim.pool import Pool
from sandbox.tee_sim.probes import strongest
from sandbox.tee_sim.shelf import MOST_SEALED, Shelf
from sandbox.tee_sim.stream import read_stream, write_stream

ROOT = Path(__file__).parents[2]
LIMITS = Limits(memory_mib=1024, wall_s=60)
IDENTITY, ATTESTATION = PrivateKey.generate(), PrivateKey.generate()
CERTIFICATE = signed.certify(IDENTITY, "attestation", ATTESTATION.public)
CANARY = "canary-7f3a"
PEOPLE = pa.table({"id": ["a", "b", CANARY], "income": [1.0, 20.0, 30.5], "secret": [1, 2, 3]})


class Canned:
    """Where the jail is not the point: hands back chosen tables, and keeps what it was given."""

    def __init__(self, tables: Mapping[str, pa.Table], level: Level = Level.CONFINED) -> None:
        self.tables, self.level, self.taken = tables, level, 0
        self.program: dict[str, bytes] = {}
        self.inputs: Mapping[str, Path | pa.Table] = {}
        self.params = b""

    def take(self, limits: Limits) -> Canned:
        self.taken += 1
        return self

    def __enter__(self) -> Canned:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def run(
        self, program: Path, inputs: Mapping[str, Path | pa.Table], params: bytes, stop: threading.Event
    ) -> Outcome:
        files = [path for path in program.rglob("*") if path.is_file()]
        self.program = {str(path.relative_to(program)): path.read_bytes() for path in files}
        self.inputs, self.params = inputs, params
        streams = {name: write_stream(table) for name, table in self.tables.items()}
        return Outcome(streams, b"printed", 0.5, 10, self.level)


SCORES = pa.table({"id": ["a"], "score": [1.0]})
TOTALS = pa.table(
    {
        "band": ["low"],
        "people": [1],
        "mean": [1.0],
        "full": [True],
        "day": pa.array([1], pa.int32()).cast(pa.date32()),
    }
)
GOOD = {"scores": SCORES, "totals": TOTALS}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return pack(write_files(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    try:
        level = strongest()
    except Unavailable as error:
        pytest.skip(f"no level of the jail holds here: {error}")
    folder = tmp_path_factory.mktemp("jails")
    folder.chmod(0o711)
    with Pool(1, level, LIMITS, scratch=folder / "scratch") as warm:
        yield warm


def attester(level: Level = Level.CONFINED) -> SimulatedAttester:
    return SimulatedAttester(ATTESTATION, CERTIFICATE, level)


def in_jail(pool: Pool, scratch: Path, bundle: bytes) -> Enclave:
    enclave = Enclave(attester(pool.level), pool, scratch, LIMITS)
    assert enclave.load(bundle) == measure(bundle)
    return enclave


def run(
    enclave: Enclave, own: Mapping[str, pa.Table], params: Mapping[str, Any], rows_allowed: bool = True, **sealed: Any
) -> Ran:
    return enclave.run(own, sealed.get("sealed", ()), params, threading.Event(), rows_allowed=rows_allowed)


def canned(scratch: Path, bundle: bytes, tables: Mapping[str, pa.Table] = GOOD) -> tuple[Enclave, Canned]:
    jails = Canned(tables)
    enclave = Enclave(attester(), jails, scratch)
    enclave.load(bundle)
    return enclave, jails


def quoted(enclave: Enclave, nonce: bytes) -> Quote:
    return verify(enclave.quote(nonce), IDENTITY.public, Expectation(nonce=nonce))


def approved(quote: Quote, bundle: bytes) -> Approved:
    return Approved(frozenset({measure(bundle)}), frozenset({quote.runtime}), frozenset({quote.level}), True)


# --- in the jail


@pytest.mark.parametrize(
    ("name", "params"),
    [("score", {"base": 600}), pytest.param("train", {"strength": 1.0}, marks=pytest.mark.slow)],
)
def test_the_examples_give_in_the_jail_what_they_give_outside(
    pool: Pool, tmp_path: Path, name: str, params: dict[str, Any]
) -> None:
    applicants = generate().slice(0, 1500)
    bundle = pack(ROOT / "jobs" / "own_model" / name)
    ran = run(in_jail(pool, tmp_path, bundle), {"applicants": applicants}, params)
    manifest = parse(bundle).manifest
    bare = importlib.import_module(f"jobs.own_model.{name}.model").run({"applicants": applicants}, params)
    streams = {output: write_stream(table) for output, table in bare.items()}
    expected = check_outputs(manifest, streams, {"applicants": applicants}, rows_allowed=True)
    assert ran.tables.keys() == expected.keys()
    assert all(ran.tables[output].equals(expected[output]) for output in expected)
    assert {fact.name: fact.value for fact in ran.facts} == {
        "vendor": "SIMULATED",
        "level": str(pool.level),
        "runtime": attester().runtime.hex(),
        "bundle": measure(bundle).hex(),
        "scratch": "wiped",
    }
    assert ran.seconds > 0
    assert ran.peak_mib > 0
    assert not list(tmp_path.iterdir())


def test_a_model_that_prints_fails_and_is_withheld_keeps_its_words_to_itself(pool: Pool, tmp_path: Path) -> None:
    shouting = CODE.replace("    people = ", f'    print("{CANARY}")\n    people = ')
    ends: list[tuple[str, type[Exception]]] = [
        (shouting.replace("    return {", "    raise ValueError(people)\n    return {"), JobFailed),
        (shouting.replace('["low", "high"]', f'["low", "{CANARY}"]'), OutputWithheld),
    ]
    for number, (code, kind) in enumerate(ends):
        bundle = pack(write_files(tmp_path / f"bundle{number}", {**FILES, "model.py": code.encode()}))
        scratch = tmp_path / f"scratch{number}"
        scratch.mkdir()
        with pytest.raises(kind) as ended:
            run(in_jail(pool, scratch, bundle), {"people": PEOPLE}, {"factor": 1.0})
        error = ended.value
        assert CANARY not in str(error) + error.tell + error.hint  # type: ignore[attr-defined]
        assert CANARY.encode() in told_by(error)  # type: ignore[arg-type]
        assert not list(scratch.iterdir())


STATEMENT = """
name = "statement"
form = "sql"
entry = "query.sql"

[inputs]
people = ["id", "income"]

[outputs.result]
class = "aggregate"
rows = 2
columns = [
  { name = "rich", type = "boolean" },
  { name = "people", type = "integer" },
  { name = "income", type = "number", places = 1 },
  { name = "whole", type = "integer" },
]
"""


def test_a_statement_runs_too(pool: Pool, tmp_path: Path) -> None:
    query = b"""SELECT income > 10 AS rich, count(*) AS people, sum(income) AS income, sum(income::BIGINT) AS whole
                FROM people GROUP BY rich"""
    bundle = pack(write_files(tmp_path / "bundle", {"bundle.toml": STATEMENT.encode(), "query.sql": query}))
    ran = run(in_jail(pool, tmp_path, bundle), {"people": PEOPLE}, {}, rows_allowed=False)
    expected = {"rich": [False, True], "people": [1, 2], "income": [1.0, 50.5], "whole": [1, 50]}
    assert ran.tables["result"].to_pydict() == expected


def test_a_run_can_be_stopped(pool: Pool, tmp_path: Path) -> None:
    code = CODE.replace("    people = ", "    import time\n    time.sleep(50)\n    people = ")
    bundle = pack(write_files(tmp_path / "bundle", {**FILES, "model.py": code.encode()}))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    stop = threading.Event()
    timer = threading.Timer(0.5, stop.set)
    timer.start()
    with pytest.raises(Cancelled):
        in_jail(pool, scratch, bundle).run({"people": PEOPLE}, (), {"factor": 1.0}, stop, rows_allowed=True)
    timer.join()
    assert not list(scratch.iterdir())


TWO = MANIFEST.replace('people = ["id", "income"]', 'people = ["id", "income"]\ndebts = ["id", "debt"]')
TWO_CODE = CODE.replace(
    '    people = tables["people"]',
    '    people = tables["people"].join(tables["debts"], "id", join_type="inner")',
)


def test_two_owners_seal_their_rows_to_one_enclave(pool: Pool, tmp_path: Path) -> None:
    files = {**FILES, "bundle.toml": TWO.encode(), "model.py": TWO_CODE.encode()}
    bundle = pack(write_files(tmp_path / "bundle", files))
    enclave = in_jail(pool, tmp_path, bundle)
    debts = pa.table({"id": ["b", "x"], "debt": [5, 6], "secret": [7, 8]})
    sealed = []
    for name, table, nonce, key in (
        ("people", PEOPLE, bytes(32), bytes(range(16))),
        ("debts", debts, bytes(range(32)), bytes(range(16, 32))),
    ):
        quote = quoted(enclave, nonce)
        grant = grant_key(key, quote, approved(quote, bundle))
        sealed.append(SealedTable(name, nonce, grant.sealed, seal_rows(key, name, table)))
    ran = run(enclave, {}, {"factor": 2}, sealed=sealed)
    assert ran.tables["scores"].to_pydict() == {"id": ["b"], "score": [40.0]}


# --- sealed things


def sealed_people(enclave: Enclave, bundle: bytes, nonce: bytes = bytes(32)) -> SealedTable:
    quote, key = quoted(enclave, nonce), bytes(range(16))
    grant = grant_key(key, quote, approved(quote, bundle))
    return SealedTable("people", nonce, grant.sealed, seal_rows(key, "people", PEOPLE))


def test_rows_sealed_to_an_enclave_open_in_no_other(tmp_path: Path, small: bytes) -> None:
    enclave, _ = canned(tmp_path, small)
    given = sealed_people(enclave, small)
    other, jails = canned(tmp_path, small)
    with pytest.raises(IntegrityFailed):
        run(other, {}, {"factor": 1}, sealed=[given])
    assert jails.taken == 0
    assert run(enclave, {}, {"factor": 1}, sealed=[given]).tables["scores"].num_rows == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda one: SealedTable("people", bytes([1]) * 32, one.grant, one.rows),
        lambda one: SealedTable("people", one.nonce, one.grant[:-1], one.rows),
        lambda one: SealedTable("people", one.nonce, one.grant, one.rows[:-1]),
        lambda one: SealedTable("people", one.nonce, b"", b""),
    ],
)
def test_grants_and_rows_that_were_changed_do_not_open(
    tmp_path: Path, small: bytes, change: Callable[[SealedTable], SealedTable]
) -> None:
    enclave, jails = canned(tmp_path, small)
    with pytest.raises(IntegrityFailed):
        run(enclave, {}, {"factor": 1}, sealed=[change(sealed_people(enclave, small))])
    assert jails.taken == 0


def test_a_merchant_seals_its_bundle_to_a_shelf(small: bytes) -> None:
    shelf, nonce = Shelf(), bytes(range(32))
    text = attester().quote(nonce, b"", shelf.key)
    empty = verify(text, IDENTITY.public, Expectation(nonce=nonce, bundle=b""))
    sealed = seal_bundle(small, empty, "merchant-a")
    assert CODE.encode() not in sealed
    assert len(small) < len(sealed) <= len(small) + MOST_SEALED - MOST_BYTES
    for other, answered, who in (
        (Shelf(), nonce, "merchant-a"),  # after a restart
        (shelf, bytes(32), "merchant-a"),  # to another quote
        (shelf, nonce, "merchant-b"),  # overheard
    ):
        with pytest.raises(WrongState) as caught:
            other.open(sealed, answered, who)
        assert "not sealed under your key to a quote that this node gave" in caught.value.tell
    with pytest.raises(WrongState):
        shelf.open(sealed[:-1] + bytes([sealed[-1] ^ 1]), nonce, "merchant-a")
    assert shelf.open(sealed, nonce, "merchant-a") == small


def test_the_largest_bundle_fits_when_it_is_sealed() -> None:
    shelf, nonce = Shelf(), bytes(range(32))
    empty = verify(attester().quote(nonce, b"", shelf.key), IDENTITY.public, Expectation(nonce=nonce))
    assert len(seal_bundle(bytes(MOST_BYTES), empty, "merchant-a")) <= MOST_SEALED


def test_results_can_be_sealed_to_whoever_judges_them(tmp_path: Path, small: bytes) -> None:
    enclave, _ = canned(tmp_path, small)
    ran, gate = run(enclave, {"people": PEOPLE}, {"factor": 1}), PrivateKey.generate()
    sealed = ran.seal(gate.public, b"job 1")
    assert read_stream(open_with(gate, sealed["scores"], b"job 1")).equals(ran.tables["scores"])
    with pytest.raises(IntegrityFailed):
        open_with(gate, sealed["scores"], b"job 2")


# --- the order of things


def test_an_enclave_serves_once(tmp_path: Path, small: bytes) -> None:
    with pytest.raises(WrongState):
        run(Enclave(attester(), Canned(GOOD), tmp_path), {"people": PEOPLE}, {"factor": 1})
    enclave, jails = canned(tmp_path, small)
    with pytest.raises(WrongState):
        enclave.load(small)
    run(enclave, {"people": PEOPLE}, {"factor": 1})
    with pytest.raises(WrongState):
        run(enclave, {"people": PEOPLE}, {"factor": 1})
    assert jails.taken == 1
    keys = {Enclave(attester(), jails, tmp_path).quote(bytes(32)).split(b'"report_data":')[1][:140] for _ in range(3)}
    assert len(keys) == 3


def test_the_level_that_ran_is_the_level_that_was_quoted(tmp_path: Path, small: bytes) -> None:
    jails = Canned(GOOD, Level.NARROWED)
    enclave = Enclave(attester(), jails, tmp_path)
    enclave.load(small)
    with pytest.raises(JobFailed, match="ran at level narrowed, quoted was confined"):
        run(enclave, {"people": PEOPLE}, {"factor": 1})


def test_nothing_runs_that_may_not_give_out_its_results(tmp_path: Path, small: bytes) -> None:
    enclave, jails = canned(tmp_path, small)
    with pytest.raises(OutputWithheld):
        run(enclave, {"people": PEOPLE}, {"factor": 1}, rows_allowed=False)
    assert jails.taken == 0


def test_results_that_break_the_declaration_are_withheld_with_what_was_printed(tmp_path: Path, small: bytes) -> None:
    for tables in (
        {"scores": SCORES},
        {**GOOD, "more": SCORES},
        {**GOOD, "scores": SCORES.append_column("more", [[1]])},
        {**GOOD, "scores": pa.table({"id": ["nobody"], "score": [1.0]})},
    ):
        enclave, _ = canned(tmp_path, small, tables)
        with pytest.raises(OutputWithheld) as withheld:
            run(enclave, {"people": PEOPLE}, {"factor": 1})
        assert told_by(withheld.value) == b"printed"
        assert not list(tmp_path.iterdir())


class Killed(Canned):
    """A jail in whose run the node is killed: nothing is cleaned up."""

    def run(
        self, program: Path, inputs: Mapping[str, Path | pa.Table], params: bytes, stop: threading.Event
    ) -> Outcome:
        shutil.copytree(program, program.with_name(program.name + "x"))
        return super().run(program, inputs, params, stop)


def test_what_a_killed_run_left_is_swept(tmp_path: Path, small: bytes) -> None:
    enclave = Enclave(attester(), Killed(GOOD), tmp_path)
    enclave.load(small)
    run(enclave, {"people": PEOPLE}, {"factor": 1})
    (tmp_path / "jails").mkdir()
    assert len(list(tmp_path.iterdir())) == 2
    assert sweep_programs(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["jails"]
    assert sweep_programs(tmp_path) == 0


def test_a_program_that_cannot_be_removed_ends_the_run(
    tmp_path: Path, small: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    enclave, _ = canned(tmp_path, small)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(JobFailed, match="could not be removed"):
        run(enclave, {"people": PEOPLE}, {"factor": 1})


def test_only_declared_columns_enter_the_jail(tmp_path: Path, small: bytes) -> None:
    enclave, jails = canned(tmp_path, small)
    noted = pa.schema([one.with_metadata({"grade": "L4"}) for one in PEOPLE.schema], metadata={"owner": "bank"})
    run(enclave, {"people": PEOPLE.cast(noted)}, {"factor": 2})
    (given,) = jails.inputs.values()
    assert isinstance(given, pa.Table)
    assert given.equals(PEOPLE.select(["id", "income"]))
    assert given.schema.metadata is None
    assert all(one.metadata is None for one in given.schema)
    assert json.loads(jails.params) == {"factor": 2.0}
    assert json.loads(jails.program.pop("program.json")) == {"form": "python", "entry": "model.py"}
    assert jails.program == {"model.py": CODE.encode(), "data/weights.csv": b"a,1\n"}


@pytest.mark.parametrize(
    ("own", "why"),
    [
        ({}, "needs exactly the tables people"),
        ({"people": PEOPLE, "more": PEOPLE}, "needs exactly the tables people"),
        ({"people": PEOPLE.select(["id"])}, "no column 'income'"),
        ({"people": PEOPLE.append_column("income", [[1, 2, 3]])}, "no column 'income', or has it twice"),
    ],
)
def test_tables_that_are_not_those_the_bundle_needs(
    tmp_path: Path, small: bytes, own: dict[str, pa.Table], why: str
) -> None:
    enclave, jails = canned(tmp_path, small)
    with pytest.raises(InvalidSpec, match=why):
        run(enclave, own, {"factor": 1})
    assert jails.taken == 0


def test_a_table_comes_from_one_side(tmp_path: Path, small: bytes) -> None:
    enclave, _ = canned(tmp_path, small)
    with pytest.raises(InvalidSpec, match="twice"):
        run(enclave, {"people": PEOPLE}, {"factor": 1}, sealed=[sealed_people(enclave, small)])


def test_a_graph_s_mapping_is_handed_on(tmp_path: Path) -> None:
    text = """
name = "graph"
form = "onnx"
entry = "model.onnx"
[inputs]
people = ["id", "income"]
[onnx]
input = "people"
features = ["income"]
outputs = { score = ["probabilities", 1], label = "label" }
keep = ["id"]
[outputs.result]
class = "row"
rows = 9
of = "people"
key = ["id"]
columns = [{ name = "id", type = "string" }, { name = "score", type = "number", places = 3 },
  { name = "label", type = "integer" }]
"""
    bundle = pack(write_files(tmp_path / "bundle", {"bundle.toml": text.encode(), "model.onnx": b"\x08\x07"}))
    result = pa.table({"id": ["a"], "label": [1], "score": [0.12345]})
    enclave, jails = canned(tmp_path, bundle, {"result": result})
    ran = run(enclave, {"people": PEOPLE}, {})
    assert ran.tables["result"].to_pydict() == {"id": ["a"], "score": [0.123], "label": [1]}
    document = json.loads(jails.program["program.json"])
    assert document["mapping"] == {
        "input": "people",
        "features": ["income"],
        "outputs": {"score": ["probabilities", 1], "label": "label"},
        "keep": ["id"],
    }


# --- parameters

PARAMETERS = MANIFEST.replace('factor = "number"', 'n = "integer"\nx = "number"\ns = "string"\nb = "boolean"')


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    files = {**FILES, "bundle.toml": PARAMETERS.encode()}
    return pack(write_files(tmp_path_factory.mktemp("parameters"), files))


def test_parameters_are_typed(typed: bytes) -> None:
    given = {"n": -3, "x": 2, "s": "文", "b": False}
    assert json.loads(read_params(parse(typed).manifest, given)) == {"n": -3, "x": 2.0, "s": "文", "b": False}


@pytest.mark.parametrize(
    "change",
    [
        {"n": True},
        {"n": 1.0},
        {"n": 1 << 63},
        {"n": None},
        {"x": "1"},
        {"x": float("nan")},
        {"x": float("inf")},
        {"x": True},
        {"s": 3},
        {"s": "a\nb"},
        {"s": "a" * 257},
        {"b": 0},
        {"more": 1},
        {"n": [CANARY]},
        {"n": CANARY},
    ],
)
def test_parameters_that_are_refused(typed: bytes, change: dict[str, Any]) -> None:
    given = {"n": 1, "x": 1.0, "s": "a", "b": True, **change}
    with pytest.raises(InvalidSpec) as refused:
        read_params(parse(typed).manifest, given)
    assert CANARY not in str(refused.value)
    with pytest.raises(InvalidSpec, match="exactly these parameters: b, n, s, x"):
        read_params(parse(typed).manifest, {"n": 1})
