"""A merchant's own code at a real node: handed in, approved by measurement, quoted, run, judged, looked at; and what
becomes of code that means no good."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from node_world import PURPOSE, World, _use, ref, schema

from sandbox import keyring, signed
from sandbox.client import Client, Outcome, Trust, specs
from sandbox.crypto.sm3 import sm3
from sandbox.errors import (
    AlreadyExists,
    DeadlinePassed,
    IntegrityFailed,
    InvalidSpec,
    JobFailed,
    NotFound,
    OutputWithheld,
    PolicyRefused,
    Unavailable,
    WrongState,
)
from sandbox.keyring import public_key
from sandbox.kinds.confined import scratch
from sandbox.model import (
    BundleStatement,
    BundleUpload,
    Consent,
    ConsentRule,
    DatasetView,
    Decision,
    Environment,
    JobKind,
    JobView,
    OutputClass,
    OutputRule,
    Quota,
    Recipient,
    Scenario,
    State,
)
from sandbox.store import artefacts, bundles
from sandbox.tee_sim import attest, cgroup
from sandbox.tee_sim.attest import Expectation
from sandbox.tee_sim.broker import seal_bundle
from sandbox.tee_sim.bundle import measure, pack
from sandbox.tee_sim.levels import Level
from sandbox.tee_sim.probes import strongest

MARK = "MODEL-CANARY-5512"
ROWS = 300
APPLICANTS = schema({"id": "string", "income": "integer", "debt": "integer", "note": "string"})

SCORES = """
name = "card"
form = "python"
entry = "model.py"
[inputs]
applicants = ["id", "income", "debt"]
[params]
base = "integer"
[outputs.points]
class = "row"
rows = 1000
of = "applicants"
key = ["id"]
columns = [{ name = "id", type = "string" }, { name = "points", type = "integer", low = 0, high = 1000 }]
"""
SCORES_CODE = """
import pyarrow as pa

def run(tables, params):
    rows = tables["applicants"]
    print(rows.to_pylist())
    points = [params["base"] + income % 100 for income in rows["income"].to_pylist()]
    return {"points": pa.table({"id": rows["id"], "points": points})}
"""
LEARNT = """
name = "fit"
form = "python"
entry = "model.py"
[inputs]
data = ["income", "debt"]
[outputs.weights]
class = "model"
rows = 2
columns = [
  { name = "feature", type = "string", values = ["income", "debt"] },
  { name = "weight", type = "number", places = 2 },
]
[outputs.quality]
class = "aggregate"
rows = 30
columns = [{ name = "fold", type = "integer" }, { name = "auc", type = "number", places = 1, optional = true }]
"""
LEARNT_CODE = """
import pyarrow as pa

def run(tables, params):
    data = tables["data"]
    means = [sum(data[name].to_pylist()) / data.num_rows for name in ("income", "debt")]
    quality = pa.table({"fold": list(range(25)), "auc": pa.array([0.75, None] * 12 + [0.5], pa.float64())})
    return {"weights": pa.table({"feature": ["income", "debt"], "weight": means}), "quality": quality}
"""
HOSTILE = """
name = "{name}"
form = "python"
entry = "model.py"
[inputs]
applicants = ["id", "income"]
[outputs.points]
class = "row"
rows = 1000
of = "applicants"
key = ["id"]
columns = [{{ name = "id", type = "string" }}, {{ name = "points", type = "integer" }}]
"""
FINE = 'return {"points": pa.table({"id": rows["id"], "points": rows["income"]})}'
ATTACKS = {  # the body of ``run`` after the rows were printed
    "raises": 'raise ValueError(f"{rows.to_pylist()}")',
    "loops": "while True: pass",
    "sleeps": "time.sleep(600)",
    "floods": (
        'for _ in range(2000): print("x" * 50_000)\n'
        '    with open("/tmp/flood", "wb") as file:\n'
        f"        while True: file.write(b'{MARK}' * 65536)"
    ),
    "connects": f'socket.create_connection(("127.0.0.1", params["port"]), 5)\n    {FINE}',
    "invents": 'return {"points": pa.table({"id": ["NOBODY"], "points": [1]})}',
    "widens": 'return {"points": pa.table({"id": rows["id"], "points": rows["income"], "note": rows["id"]})}',
}
HOSTILE_CODE = """
import os, socket, sys, time
import pyarrow as pa

def run(tables, params):
    rows = tables["applicants"]
    print(rows.to_pylist(), flush=True)
    print("{mark}", file=sys.stderr, flush=True)
    {body}
"""


@dataclass(frozen=True)
class Shop:
    """A merchant with code of its own, the rows it may not see, and a scenario that names its bundles."""

    world: World
    merchant: Client
    person: keyring.Person
    data: DatasetView
    rows: pa.Table
    files: dict[str, Path]
    scenario: bytes

    def measurement(self, name: str) -> bytes:
        return measure(self.files[name].read_bytes())

    def submit(self, name: str, **options: Any) -> JobView:
        params = options.pop("params", {"base": 500} if name == "card" else {})
        return self.merchant.run_model(self.scenario, ref(self.data), self.measurement(name), params, **options)

    def ended(self, job: JobView) -> JobView:
        return self.world.ended(job.job_id, self.merchant)

    def draft(self, *names: str, **changes: Any) -> Scenario:
        return draft(self.world, self.person, self.data, [self.measurement(name) for name in names], **changes)


def applicants() -> pa.Table:
    random = np.random.default_rng(9)
    return pa.table(
        {
            "id": [f"{MARK}-{n:04d}" for n in range(ROWS)],
            "income": random.integers(1000, 9000, ROWS),
            "debt": random.integers(0, 5000, ROWS),
            "note": [f"{MARK}-note-{n}" for n in range(ROWS)],
        }
    )


def draft(world: World, person: keyring.Person, data: DatasetView, measured: list[bytes], **changes: Any) -> Scenario:
    card = signed.open_key_card(person.card)
    whole = dataclasses.replace(
        world.draft(data, data),
        name="own-model",
        merchant="Fintech Ltd",
        purpose=PURPOSE,
        applicant_key=card.identity_key,
        datasets=(_use(data, ("income", "debt"), ""),),
        kinds=(JobKind.MODEL,),
        outputs=(
            OutputRule(JobKind.MODEL, "scores", OutputClass.ROW_CONSENTED, 10, 1, 1000, 1 << 20),
            OutputRule(JobKind.MODEL, "learnt", OutputClass.MODEL, 100, 10, 100, 1 << 20, reviewed=True),
            OutputRule(JobKind.MODEL, "summary", OutputClass.MODEL, 100, 10, 100, 1 << 20, reviewed=True),
        ),
        recipient=Recipient("operator", card.identity_key, card.sealing.key),
        computing_parties=(),
        quota=Quota(200, 200, 10_000_000),
        consent=Consent(ConsentRule.HELD_LETTER, ConsentRule.NONE, (), letter_days=14),
        controller="",
        bundles=tuple(measured),
        isolation=strongest().value,
    )
    return dataclasses.replace(whole, **changes)


def bundle(folder: Path, name: str, manifest: str, code: str) -> Path:
    (folder / name).mkdir()
    (folder / name / "bundle.toml").write_text(manifest)
    (folder / name / "model.py").write_text(code)
    path = folder / f"{name}.bundle"
    path.write_bytes(pack(folder / name))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    made = {
        "card": bundle(folder, "card", SCORES, SCORES_CODE),
        "fit": bundle(folder, "fit", LEARNT, LEARNT_CODE),
        "absent": bundle(folder, "absent", SCORES.replace('"card"', '"absent"'), SCORES_CODE),
    }
    for name, body in ATTACKS.items():
        manifest = HOSTILE.format(name=name)
        if name == "connects":
            manifest += '[params]\nport = "integer"\n'
        made[name] = bundle(folder, name, manifest, HOSTILE_CODE.format(mark=MARK, body=body))
    return made


@pytest.fixture(scope="module")
def shop(world: World, files: dict[str, Path]) -> Iterator[Shop]:
    person = keyring.create_person(world.folder / "fintech", "fintech", "Fintech Ltd")
    home = world.home("operator")
    home.register_key(person.card, ["submitter"])
    home.store.close()
    rows = applicants()
    data = world.register("op-owner", rows, APPLICANTS)
    with world.nodes.client("fintech", "operator") as merchant:
        for name, path in files.items():
            if name != "absent":
                merchant.put_bundle(path)
        made = Shop(world, merchant, person, data, rows, files, b"")
        digest = merchant.apply_scenario(made.draft(*files)).digest
        assert world.op_owner.approve_scenario(digest).state == "active"
        yield dataclasses.replace(made, scenario=digest)


def entries(shop: Shop, job: JobView) -> list[Any]:
    return [logged.entry for logged in shop.world.op_owner.entries(job_id=job.job_id)]


def outcome(shop: Shop, job: JobView) -> Outcome:
    return shop.merchant.result(job.job_id, Trust.from_file(shop.world.folder / "operator.trust"))


def running(world: World, timeout_s: float = 60.0) -> set[Path]:
    """The folders of the jails with a job in them, once there is one."""
    end = time.monotonic() + timeout_s
    while not (found := {folder for folder, is_busy in world.jails("operator").items() if is_busy}):
        assert time.monotonic() < end, f"no jail came up\n{world.logs()}"
        time.sleep(0.05)
    return found


def gone(world: World, known: set[Path], timeout_s: float = 15.0) -> None:
    """Wait until nothing is left of jails that had a job: no process, no folder, no control group."""
    tokens = [path.name.removeprefix("jail-") for path in known]
    places = set(cgroup.places()[0].values()) if strongest() is Level.CONFINED else set()

    def left() -> list[str]:
        groups = [place / f"{cgroup.PREFIX}{token}" for place in places for token in tokens]
        busy = [folder for folder, is_busy in world.jails("operator").items() if is_busy]
        return [str(path) for path in (*busy, *known, *groups) if path.exists()]

    end = time.monotonic() + timeout_s
    while found := left():
        assert time.monotonic() < end, f"left: {found}"
        time.sleep(0.1)
    assert len(world.jails("operator")) <= 1  # which waits for the next job


# --- bundles and quotes -----------------------------------------------------------------------------------------------


def test_a_bundle_is_kept_sealed_and_shown_to_those_it_concerns(shop: Shop) -> None:
    world = shop.world
    again = shop.merchant.put_bundle(shop.files["card"])
    assert (again.name, again.form, again.merchant) == ("card", "python", "Fintech Ltd")
    assert again.measurement == shop.measurement("card")
    assert again.outputs == ("points: row (id string, points integer)",)
    assert again.files == (f"model.py ({len(SCORES_CODE)} bytes)",)
    for seer in (shop.merchant, world.op_owner, world.clients["first-reviewer"]):
        assert again in seer.bundles()
    assert world.clients["op-merchant"].bundles() == ()  # another's
    with pytest.raises(AlreadyExists):
        world.clients["op-merchant"].put_bundle(shop.files["card"])
    folder = world.nodes.home("operator") / "bundles"
    sealed = folder / f"{shop.measurement('card').hex()}.sealed"
    assert sealed.stat().st_mode & 0o777 == 0o600
    assert b"points" not in sealed.read_bytes()
    kept = {bytes(row.measurement) for row in world.select("operator", bundles.select())}
    assert {path.name for path in folder.iterdir()} == {f"{one.hex()}.sealed" for one in kept}
    assert {shop.measurement(name) for name in shop.files} - kept == {shop.measurement("absent")}


def test_a_page_of_bundles_goes_on_where_the_last_ended(shop: Shop) -> None:
    whole = shop.merchant.bundles()
    assert [one.measurement for one in whole] == sorted(one.measurement for one in whole)
    first = shop.merchant.bundles(limit=2)
    assert first + shop.merchant.bundles(after=first[-1].measurement.hex()) == whole


def upload(shop: Shop, archive: bytes, **changes: Any) -> Any:
    """Hand something in that the SDK would not."""
    statement = BundleStatement(measure(archive), "card", signed.now_ms())
    kept = changes.pop("statement", signed.sign(shop.person.identity, "bundle", statement))
    body = BundleUpload(measure(archive), len(archive), sm3(archive), kept)
    body = dataclasses.replace(body, **changes)
    chunks = iter([archive[:100], archive[100:]])
    return shop.merchant._line.upload("ModelService/PutBundle", body, chunks, timeout_s=20.0)


def test_only_what_was_announced_and_signed_is_taken(shop: Shop, tmp_path: Path) -> None:
    archive = shop.files["absent"].read_bytes()
    with pytest.raises(InvalidSpec, match="not a bundle"):
        upload(shop, b"no bundle " * 100)
    with pytest.raises(InvalidSpec, match="names the bundle otherwise"):
        upload(shop, archive)
    with pytest.raises(InvalidSpec, match="about another bundle"):
        upload(shop, archive, measurement=bytes(32))
    with pytest.raises(IntegrityFailed, match="not what was signed"):
        upload(shop, archive, digest=bytes(32))
    with pytest.raises(IntegrityFailed, match="more bytes"):
        upload(shop, archive, size=len(archive) - 1)
    with pytest.raises(InvalidSpec, match="bytes"):
        upload(shop, archive, size=1 << 40)
    stranger = shop.world.people["op-merchant"].identity
    stolen = signed.sign(stranger, "bundle", BundleStatement(measure(archive), "absent", signed.now_ms()))
    with pytest.raises(Exception, match=r"signature|signed"):
        upload(shop, archive, statement=stolen)
    two = SCORES + LEARNT[LEARNT.index("[outputs.weights]") :].replace('"model"', '"aggregate"')
    with pytest.raises(InvalidSpec, match=r"at most one table of class aggregate.*quality and weights"):
        shop.merchant.put_bundle(bundle(tmp_path, "two", two, SCORES_CODE))
    assert shop.measurement("absent") not in [view.measurement for view in shop.merchant.bundles()]


def test_a_quote_verifies_offline_and_says_that_it_is_simulated(shop: Shop) -> None:
    measurement = shop.measurement("card")
    nonce = os.urandom(32)
    found = shop.merchant.quote(measurement, nonce)
    card = shop.world.nodes.cards["operator"]
    again = attest.verify(found.text, public_key(card), Expectation(nonce=nonce, bundle=measurement))
    assert again == found.quote
    assert (again.vendor, again.level, again.runtime) == ("SIMULATED", strongest(), attest.measure_runtime())
    assert found.text.startswith(b"sandbox-quote-v1 SIMULATED\n")
    with pytest.raises(IntegrityFailed):
        attest.verify(found.text, public_key(shop.world.nodes.cards["bank"]), Expectation())
    with pytest.raises(PolicyRefused, match="another nonce"):
        attest.verify(found.text, public_key(card), Expectation(nonce=os.urandom(32)))
    assert shop.merchant.quote().quote.bundle == b""
    with pytest.raises(NotFound):
        shop.world.clients["op-merchant"].quote(measurement)  # another's bundle is none
    with pytest.raises(NotFound):
        shop.merchant.quote(bytes(32))
    with pytest.raises(InvalidSpec, match="nonce"):
        shop.merchant.quote(nonce=bytes(16))


class Overheard:
    """A line to the node, and what was carried over it."""

    def __init__(self, line: Any) -> None:
        self._real, self.carried = line, b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def upload(self, method: str, body: Any, chunks: Iterator[bytes], **more: Any) -> Any:
        self.carried = b"".join(chunks)
        return self._real.upload(method, body, iter([self.carried]), **more)


def noted(shop: Shop, what: str) -> list[dict[str, str]]:
    """The facts of all entries of a kind at the operator's node."""
    found = [logged.entry for logged in shop.world.op_owner.entries(limit=500)]
    return [{fact.name: fact.value for fact in entry.facts} for entry in found if entry.what == what]


def test_a_bundle_sealed_to_a_quote_is_opened_at_the_node_only(shop: Shop, tmp_path: Path) -> None:
    path = bundle(tmp_path, "hidden", SCORES.replace('"card"', '"hidden"'), SCORES_CODE)
    measurement = measure(path.read_bytes())
    with pytest.raises(PolicyRefused, match="another runtime"):
        shop.merchant.put_bundle(path, seal=True, expect=Expectation(runtimes={bytes(32)}))
    assert measurement not in [view.measurement for view in shop.merchant.bundles()]
    merchant, line = copy.copy(shop.merchant), Overheard(shop.merchant._line)
    merchant._line = line  # type: ignore[assignment]
    expect = Expectation(runtimes={attest.measure_runtime()}, levels={strongest()})
    view = merchant.put_bundle(path, seal=True, expect=expect)
    assert (view.measurement, view.name, view.withdrawn_ms) == (measurement, "hidden", 0)
    assert b"tables[" in path.read_bytes() and b"tables[" not in line.carried
    sealed = {facts["name"]: facts["sealed"] for facts in noted(shop, "bundle-received")}
    assert (sealed["hidden"], sealed["card"]) == ("to an enclave, SIMULATED", "no")


def test_what_was_sealed_to_something_else_is_refused(shop: Shop, tmp_path: Path) -> None:
    archive = bundle(tmp_path, "late", SCORES.replace('"card"', '"late"'), SCORES_CODE).read_bytes()
    said = BundleStatement(measure(archive), "late", signed.now_ms())
    announced = {"measurement": measure(archive), "statement": signed.sign(shop.person.identity, "bundle", said)}
    found, loaded = shop.merchant.quote().quote, shop.merchant.quote(shop.measurement("card")).quote
    mine, other = shop.merchant._line.person.identity.public.key_id, "0" * 32
    sealed = seal_bundle(archive, found, mine)
    with pytest.raises(WrongState, match="not sealed under your key to a quote that this node gave"):
        upload(shop, sealed, **announced, sealed_nonce=os.urandom(32))
    with pytest.raises(WrongState):  # an enclave that has loaded a bundle takes in no other
        upload(shop, seal_bundle(archive, loaded, mine), **announced, sealed_nonce=loaded.nonce)
    with pytest.raises(WrongState):  # another merchant's, overheard
        upload(shop, seal_bundle(archive, found, other), **announced, sealed_nonce=found.nonce)
    with pytest.raises(InvalidSpec, match="not a bundle"):
        upload(shop, sealed, **announced)
    assert upload(shop, sealed, **announced, sealed_nonce=found.nonce).bundle.name == "late"


def test_a_withdrawn_bundle_runs_no_more_and_can_come_back(shop: Shop, tmp_path: Path) -> None:
    path = bundle(tmp_path, "brief", SCORES.replace('"card"', '"brief"'), SCORES_CODE)
    measurement = shop.merchant.put_bundle(path).measurement
    sealed = shop.world.nodes.home("operator") / "bundles" / f"{measurement.hex()}.sealed"
    brief = dataclasses.replace(shop, files={"brief": path})
    submit = refused(brief, brief.draft("brief"), "brief")
    assert sealed.exists()
    with pytest.raises(NotFound):
        shop.world.clients["op-merchant"].withdraw_bundle(measurement)  # another's is none
    with pytest.raises(NotFound):
        shop.merchant.withdraw_bundle(bytes(32))
    withdrawn = shop.merchant.withdraw_bundle(measurement)
    assert withdrawn.withdrawn_ms > 0 and (withdrawn.outputs, withdrawn.files) == ((), ())
    assert shop.merchant.withdraw_bundle(measurement) == withdrawn
    assert withdrawn in shop.merchant.bundles() and withdrawn in shop.world.op_owner.bundles()
    assert not sealed.exists()
    with pytest.raises(Unavailable, match="withdrawn"):
        submit()
    assert noted(shop, "bundle-withdrawn") == [{"bundle": measurement.hex(), "name": "brief"}]
    other = shop.world.clients["op-merchant"]
    assert other.put_bundle(path).submitter != withdrawn.submitter  # nobody's any more
    other.withdraw_bundle(measurement)
    assert shop.merchant.put_bundle(path).withdrawn_ms == 0 and sealed.exists()
    assert shop.world.ended(submit().job_id, shop.merchant).state in (State.HELD, State.RELEASED)


# --- what is admitted -------------------------------------------------------------------------------------------------


def refused(shop: Shop, scenario: Scenario, name: str = "card", params: Any = None) -> Callable[[], JobView]:
    digest = shop.merchant.apply_scenario(scenario).digest
    shop.world.op_owner.approve_scenario(digest)
    values = {"base": 500} if params is None else params
    return lambda: shop.merchant.run_model(digest, ref(shop.data), shop.measurement(name), values)


def test_a_scenario_lets_in_what_it_names_and_nothing_else(shop: Shop) -> None:
    with pytest.raises(PolicyRefused, match="does not name this bundle"):
        refused(shop, shop.draft("fit"))()
    with pytest.raises(Unavailable, match="no such bundle"):
        refused(shop, shop.draft("absent"), "absent")()
    narrow = (_use(shop.data, ("income",), ""),)
    with pytest.raises(PolicyRefused, match="column 'debt'"):
        refused(shop, shop.draft("card", datasets=narrow))()
    whole = shop.draft("card")
    with pytest.raises(PolicyRefused, match="no rule for scores"):
        refused(shop, shop.draft("card", outputs=whole.outputs[1:]))()
    with pytest.raises(InvalidSpec, match="exactly these parameters: base"):
        refused(shop, whole, params={})()
    with pytest.raises(InvalidSpec, match="not of type integer"):
        refused(shop, whole, params={"base": "500"})()
    unlooked = tuple(dataclasses.replace(rule, reviewed=False) for rule in whole.outputs)
    with pytest.raises(InvalidSpec, match="looked at by people"):
        shop.merchant.apply_scenario(shop.draft("card", outputs=unlooked))


def test_the_plan_says_who_sees_what(shop: Shop) -> None:
    spec = specs.model(shop.scenario, ref(shop.data), shop.measurement("card"), {"base": 1})
    plan = shop.merchant.plan(spec)
    assert [rule.name for rule in plan.outputs] == ["scores"]
    assert "SIMULATED" in plan.reveals[0].what and "SIMULATED" in plan.reveals[0].what_zh


# --- what leaves ------------------------------------------------------------------------------------------------------


def test_scores_leave_with_a_receipt_that_says_where_they_were_made(shop: Shop) -> None:
    job = shop.submit("card")
    done = shop.ended(job)
    assert done.state is State.RELEASED, f"{done.failure}\n{shop.world.logs()}"
    level = strongest()
    assert done.isolation == f"{level} SIMULATED"
    got = outcome(shop, job)
    points = got.outputs["scores"].set_index("id")["points"]
    expected = shop.rows.to_pandas().set_index("id")["income"] % 100 + 500
    assert set(got.outputs) == {"scores"}
    assert points.sort_index().equals(expected.sort_index().rename("points"))
    facts = {fact.name: fact.value for fact in got.entry.facts}
    assert (facts["isolation"], facts["bundle"]) == (f"{level} SIMULATED", shop.measurement("card").hex())
    made = entries(shop, job)
    assert [entry.what for entry in made] == ["admitted", "key-released", "enclave-wiped", "released", "delivered"]
    told = {fact.name: fact.value for fact in made[1].facts}
    assert (told["vendor"], told["level"], told["bundle"]) == ("SIMULATED", level, shop.measurement("card").hex())
    assert told["runtime"] == attest.measure_runtime().hex() and len(told["quote"]) == 64
    log = shop.world.log("operator")
    assert f"job {job.job_id}: rows are opened for a bundle, level {level} SIMULATED" in log
    assert MARK not in log
    assert f"job {job.job_id}: the code printed" in log
    gone(shop.world, set())


def test_what_was_learnt_waits_for_two_people_who_see_some_of_it(shop: Shop) -> None:
    job = shop.submit("fit")
    end = time.monotonic() + 60
    while (view := shop.merchant.job(job.job_id)).state is not State.HELD:
        assert view.failure is None and time.monotonic() < end, f"{view}\n{shop.world.logs()}"
        time.sleep(0.1)
    with pytest.raises(WrongState, match="has not ended yet"):  # it delivers by what the bundle declares
        shop.merchant.withdraw_bundle(shop.measurement("fit"))
    first, second = shop.world.clients["first-reviewer"], shop.world.clients["second-reviewer"]
    page = first.review(job.job_id)
    assert {(check.output, check.check, check.found) for check in page.checks} >= {
        ("learnt", "group.all", str(ROWS)),
        ("summary", "group.all", str(ROWS)),
    }
    rows = shop.rows.to_pandas()
    means = {name: f"{rows[name].mean():.2f}".rstrip("0").rstrip(".") for name in ("income", "debt")}
    lines = page.sample.splitlines()
    assert "learnt: 2 of 2 rows" in lines and "summary: 20 of 25 rows" in lines
    shown = dict(line.split(" | ") for line in lines if line.startswith(("income", "debt")))
    assert {name: float(value) for name, value in shown.items()} == {n: float(v) for n, v in means.items()}
    assert {"0 | 0.8", "24 | 0.5"} <= set(lines)  # the first and the last
    first.decide(job.job_id, Decision.APPROVE)
    assert shop.merchant.job(job.job_id).state is State.HELD
    second.decide(job.job_id, Decision.APPROVE)
    assert shop.ended(job).state is State.RELEASED, shop.world.logs()
    got = outcome(shop, job)
    weights = got.outputs["learnt"].set_index("feature")["weight"]
    assert weights.to_dict() == {name: round(rows[name].mean(), 2) for name in ("debt", "income")}
    assert got.outputs["summary"]["auc"].isna().sum() == 12
    assert [entry.what for entry in entries(shop, job)] == [
        "admitted",
        "key-released",
        "enclave-wiped",
        "held",
        "reviewed",
        "reviewed",
        "released",
        "delivered",
    ]
    kept = shop.world.select("operator", artefacts.select().where(artefacts.c.job_id == job.job_id))
    assert kept == []


def test_too_few_rows_are_learnt_from_by_nobody(shop: Shop) -> None:
    small = shop.world.register("op-owner", shop.rows.slice(0, 50), APPLICANTS)
    scenario = shop.draft("fit", datasets=(_use(small, ("income", "debt"), ""),))
    digest = shop.merchant.apply_scenario(scenario).digest
    shop.world.op_owner.approve_scenario(digest)
    view = shop.ended(shop.merchant.run_model(digest, ref(small), shop.measurement("fit")))
    assert view.state is State.REFUSED and view.failure is not None
    assert (view.failure.cause, view.failure.stage) == (OutputWithheld.public, "gate")


# --- code that means no good ------------------------------------------------------------------------------------------

ENDS = {
    "raises": (State.FAILED, JobFailed, "the program ended with an error"),
    "floods": (State.FAILED, JobFailed, ""),
    "connects": (State.FAILED, JobFailed, "the program ended with an error"),
    "invents": (State.REFUSED, OutputWithheld, "a key is not in the input"),
    "widens": (State.REFUSED, OutputWithheld, "not exactly the declared ones"),
}


@pytest.mark.parametrize("name", ENDS)
def test_bad_code_ends_in_fixed_words_with_nothing_from_inside(shop: Shop, name: str) -> None:
    port = int(shop.world.nodes.cards["operator"].address.rpartition(":")[2])
    job = shop.submit(name, params={"port": port} if name == "connects" else {})
    view = shop.ended(job)
    state, kind, reason = ENDS[name]
    assert view.state is state and view.failure is not None, f"{view}\n{shop.world.logs()}"
    assert (view.failure.code, view.failure.cause) == (kind.__name__, kind.public)
    assert view.failure.next_step == kind.next_step
    home = shop.world.home("operator")
    try:
        said = home.reason(job.job_id)
    finally:
        home.store.close()
    assert reason in said and "the code printed" in said
    everywhere = (shop.world.log("operator"), repr(entries(shop, job)), repr(view), said)
    assert all(MARK not in text and "NOBODY" not in text for text in everywhere)
    assert all("ValueError" not in text and "model.py" not in text for text in everywhere[1:])
    gone(shop.world, set())


def test_over_a_twin_its_author_reads_what_it_printed_and_nothing_is_held(shop: Shop) -> None:
    shop.world.op_owner.make_twin(shop.data.code, shop.data.version, 2000)
    failed = shop.ended(shop.submit("raises", test=True))
    assert failed.state is State.FAILED and failed.environment is Environment.TEST
    printed = shop.merchant.console(failed.job_id)
    assert "ValueError" in printed and "'income'" in printed
    assert not any(person in printed for person in shop.rows["id"].to_pylist())
    learnt = shop.ended(shop.submit("fit", test=True))
    assert learnt.state is State.RELEASED  # in production two people look first
    with pytest.raises(NotFound, match="printed nothing"):
        shop.merchant.console(learnt.job_id)
    with pytest.raises(NotFound):
        shop.world.clients["op-merchant"].console(failed.job_id)


def test_over_rows_nobody_reads_what_it_printed(shop: Shop) -> None:
    job = shop.ended(shop.submit("raises"))
    with pytest.raises(WrongState, match="on twins only"):
        shop.merchant.console(job.job_id)


def test_code_that_does_not_end_is_ended(shop: Shop) -> None:
    view = shop.ended(shop.submit("loops", deadline_s=12))
    assert view.state is State.FAILED and view.failure is not None
    assert (view.failure.code, view.failure.cause) == ("DeadlinePassed", DeadlinePassed.public)
    gone(shop.world, set())


@pytest.mark.parametrize("name", ["loops", "sleeps"])
def test_cancel_ends_it_within_seconds_and_nothing_is_left(shop: Shop, name: str) -> None:
    job = shop.submit(name)
    known = running(shop.world)
    time.sleep(1.0)
    began = time.monotonic()
    shop.merchant.cancel(job.job_id)
    assert shop.ended(job).state is State.CANCELLED
    gone(shop.world, known)
    assert time.monotonic() - began < 12.0
    assert MARK not in shop.world.log("operator")


def test_no_row_and_no_word_of_the_code_lies_anywhere(shop: Shop) -> None:
    """In the node's home, in its run directory with Ray's files, among what jails leave."""
    places = (shop.world.nodes.home("operator"), shop.world.run("operator"), scratch())
    looked = 0
    for place in places:
        for path in place.rglob("*"):
            if path.is_file() and not path.is_symlink():
                with suppress(FileNotFoundError):  # of a job that another test runs at this moment
                    assert MARK.encode() not in path.read_bytes(), path
                    looked += 1
    assert looked > 50


def test_the_stories_end_with_a_whole_log(shop: Shop) -> None:
    whats = {logged.entry.what for logged in shop.world.op_owner.entries(limit=500)}
    assert {"bundle-received", "key-released", "delivered"} <= whats
    received = [e.entry for e in shop.world.op_owner.entries(limit=500) if e.entry.what == "bundle-received"]
    told = [{fact.name: fact.value for fact in entry.facts} for entry in received]
    assert {shop.measurement(n).hex() for n in shop.files if n != "absent"} <= {one["bundle"] for one in told}
    assert json.dumps(told).count('"card"') == 1
