"""The story of one job, told with the command alone, against three real nodes."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from sandbox.audit import verify_receipt
from sandbox.cli import app
from sandbox.demo.nodes import LocalNodes

pytestmark = pytest.mark.slow

SHARED = 120
SECRET = "CANARY-7391"
PEOPLE = {
    "officer": ("bank", ["submitter"]),
    "bank-owner": ("bank", ["owner", "auditor"]),
    "op-owner": ("operator", ["owner", "operator", "auditor"]),
    "regulator": ("witness", ["operator", "auditor"]),
}
SCENARIO = """
name = "overlap"
merchant = "Example Bank"
purpose = "how many customers"
operator = "operator"
computing_parties = ["witness"]
kinds = ["psi"]
valid_days = 1
[outline]
data_use = "customers of both sides"
supply = "one table at each node"
problem = "how many customers both have"
category = "shared"
field_of_use = "tests"
[applicant]
card = "officer/key.card"
[recipient]
node = "bank"
card = "officer/key.card"
[[datasets]]
file = "bank.dataset.json"
key = ["id"]
fields = ["v"]
[[datasets]]
file = "operator.dataset.json"
key = ["id"]
fields = ["v"]
[[outputs]]
kind = "psi"
name = "aligned"
class = "aggregate"
min_group = 10
round_to = 10
max_rows = 1
max_bytes = 4096
[quota]
calls_per_day = 10
calls_total = 10
rows_total = 100000
[consent]
[price]
tariff = "fujian-2024"
"""
JOB = """
scenario = "${scenario}"
request_id = "${request}"
[psi]
left = { file = "bank.dataset.json" }
right = { file = "operator.dataset.json" }
engine = "ecdh_x25519"
"""
JOINT = """
kinds = ["psi", "aggregate"]
[[dimensions]]
name = "v_band"
column = "v"
edges = [2, 5]
[[measures]]
column = "w"
low = 0
high = 6
places = 2
[[outputs]]
kind = "psi"
name = "aligned"
class = "aggregate"
min_group = 10
round_to = 10
max_rows = 1
max_bytes = 4096
[[outputs]]
kind = "psi"
name = "sums"
class = "aggregate"
min_group = 10
round_to = 10
max_rows = 1
max_bytes = 4096
[[outputs]]
kind = "aggregate"
name = "totals"
class = "aggregate"
min_group = 10
round_to = 10
max_rows = 10
max_bytes = 8192
"""
SUMS = """
scenario = "${scenario}"
[psi]
left = { file = "bank.dataset.json" }
right = { file = "weights.dataset.json" }
output = "sums"
[[psi.measures]]
name = "average"
statistic = "mean"
column = "w"
"""
TOTALS = """
scenario = "${scenario}"
[aggregate]
alignment = "${alignment}"
groups = ["v_band"]
[[aggregate.measures]]
statistic = "sum"
column = "w"
"""
WEIGHTS = 'file = "weights.dataset.json"\nkey = ["id"]\nfields = ["w"]'
SCHEMA = {
    "key": ["id"],
    "fields": [
        {"name": "id", "type": "string", "meaning": "who", "grade": "L4"},
        {"name": "v", "type": "integer", "meaning": "how much", "grade": "L2"},
    ],
}


class Story:
    """Three nodes, their people, and the command with each one's key."""

    def __init__(self, nodes: LocalNodes) -> None:
        self.nodes, self.folder = nodes, nodes.folder

    def __call__(self, person: str, *words: object, code: int = 0) -> Any:
        """Return the JSON that the command prints for ``person`` at his own node."""
        node = PEOPLE[person][0]
        who = ("--key", self.folder / person, "--node", self.folder / f"{node}.peer", "--json")
        return self.run(*who, *words, code=code)

    def run(self, *words: object, code: int = 0) -> Any:
        ended = CliRunner().invoke(app, [str(word) for word in words])
        assert ended.exit_code == code, ended.output
        return json.loads(ended.stdout)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("three")
    eager = {"ray_start": "eager"}
    with LocalNodes(folder, {"bank": eager, "operator": eager}) as nodes:
        for person, (node, roles) in PEOPLE.items():
            nodes.person(person, node, roles)
        (folder / "schema.json").write_text(json.dumps(SCHEMA))
        (folder / "scenario.toml").write_text(SCENARIO)
        (folder / "job.toml").write_text(JOB)
        yield Story(nodes)


@pytest.fixture(scope="module")
def registered(story: Story) -> dict[str, Any]:
    entries = {}
    for person, owner, start in (("bank-owner", "bank", 0), ("op-owner", "operator", 80)):
        rows = "".join(f"person-{number},{number % 7}\n" for number in range(start, start + 200))
        (story.folder / f"{owner}.csv").write_text("id,v\n" + rows)
        words = ("dataset", "register", story.folder / f"{owner}.csv", "--schema", story.folder / "schema.json")
        entry = entries[owner] = story(person, *words, "--name", f"{owner} people", "--licence", "MIT")
        (story.folder / f"{owner}.dataset.json").write_text(json.dumps(entry))
    return entries


@pytest.fixture(scope="module")
def scenario(story: Story, registered: dict[str, Any]) -> str:
    digest: str = story("officer", "scenario", "apply", story.folder / "scenario.toml")["digest"]
    for person in ("bank-owner", "op-owner", "regulator"):
        last = story(person, "scenario", "approve", digest, "--yes")
    assert (last["state"], last["awaiting"]) == ("active", [])
    return digest


@pytest.fixture(scope="module")
def released(story: Story, scenario: str) -> dict[str, Any]:
    words = (story.folder / "job.toml", "--set", f"scenario={scenario}", "--set", "request=first")
    submitted = story("officer", "job", "submit", *words)
    again = story("officer", "job", "submit", *words)
    assert again["job_id"] == submitted["job_id"]
    view: dict[str, Any] = story("officer", "job", "watch", submitted["job_id"])
    assert view["state"] == "released", story.log("bank") + story.log("operator")
    return view


def test_a_catalogue_entry_says_what_was_registered(story: Story, registered: dict[str, Any]) -> None:
    entry = registered["bank"]
    assert (entry["rows"], entry["version"], entry["owner"], entry["licence"]) == (200, 1, "bank", "MIT")
    assert [field["name"] for field in entry["schema"]["fields"]] == ["id", "v"]
    assert story("bank-owner", "dataset", "list") == [entry]
    assert story("bank-owner", "dataset", "show", entry["code"], 1) == entry


def test_a_bad_row_is_named_to_its_owner_and_its_value_to_nobody(story: Story) -> None:
    (story.folder / "bad.csv").write_text(f"id,v\na,1\nb,{SECRET}\n")
    words = ("dataset", "register", story.folder / "bad.csv", "--schema", story.folder / "schema.json", "--name", "bad")
    error = story("bank-owner", *words, code=1)["error"]
    assert error["code"] == "InvalidSpec"
    assert all(part in error["cause"] for part in ("bad.csv", "'v'", "row 2"))
    assert SECRET not in json.dumps(error) + story.log("bank")


def test_a_role_is_needed_and_a_registration(story: Story) -> None:
    words = (
        "dataset",
        "register",
        story.folder / "schema.json",
        "--schema",
        story.folder / "schema.json",
        "--name",
        "x",
    )
    shutil.copy(story.folder / "schema.json", story.folder / "x.csv")
    words = (*words[:2], story.folder / "x.csv", *words[3:])
    assert story("officer", *words, code=1)["error"]["code"] == "PolicyRefused"
    stranger = ("--key", story.folder / "op-owner", "--node", story.folder / "bank.peer", "--json")
    assert story.run(*stranger, "job", "list", code=1)["error"]["code"] == "Unauthenticated"


def test_an_approval_is_asked_for(story: Story, scenario: str) -> None:
    assert "--yes" in story("bank-owner", "scenario", "approve", scenario, code=1)["error"]["next_step"]
    shown = story("bank-owner", "scenario", "show", scenario)
    assert shown["approved_by"] == ["bank", "operator", "witness"]
    assert shown["scenario"]["purpose"] == "how many customers"
    assert [listed["digest"] for listed in story("op-owner", "scenario", "list")] == [scenario]


def test_a_plan_says_who_learns_what_in_both_languages(story: Story, scenario: str) -> None:
    words = ("job", "plan", story.folder / "job.toml", "--set", f"scenario={scenario}", "--set", "request=plan")
    plan = story("officer", *words)
    assert {reveal["party"] for reveal in plan["reveals"]} >= {"bank", "operator"}
    assert all(reveal["what"] and reveal["what_zh"] for reveal in plan["reveals"])
    assert plan["engine"] == "ecdh-x25519"
    listed = story("officer", "job", "list")
    assert plan["job_id"] not in [job["job_id"] for job in listed]


def test_the_result_is_opened_checked_and_kept(story: Story, released: dict[str, Any], run: Any) -> None:
    bank = story.folder / "bank.trust"
    out = story.folder / "out"
    result = story("officer", "job", "result", released["job_id"], "--out", out, "--trust", bank)
    assert result["verified"] is True
    assert result["outputs"] == {"aligned": {"aligned": SHARED}}
    assert json.loads((out / "aligned.json").read_text()) == {"aligned": SHARED}
    proven = run("audit", "verify", out / "receipt.txt", "--trust", bank, "--json").json
    assert (proven["verified"], proven["cosigned_by"]) == (True, ["witness"])
    assert proven["entry"]["job_id"] == released["job_id"]
    assert proven["entry"]["plan_digest"] == released["plan_digest"]
    alone = subprocess.run([sys.executable, verify_receipt.__file__, out / "receipt.txt", bank], check=False)
    assert alone.returncode == 0
    text = (out / "receipt.txt").read_bytes()
    (out / "forged.txt").write_bytes(text.replace(b"\nindex ", b"\nindex 1", 1))
    assert run("audit", "verify", out / "forged.txt", "--trust", bank).code == 1
    other = run("audit", "verify", out / "receipt.txt", "--trust", story.folder / "operator.trust")
    assert other.code == 1
    assert story("officer", "job", "result", released["job_id"], "--out", out, code=1)["error"]  # never overwritten


def test_only_the_recipient_gets_it(story: Story, released: dict[str, Any]) -> None:
    words = ("job", "result", released["job_id"], "--out", story.folder / "stolen")
    assert story("bank-owner", *words, code=1)["error"]["code"] in ("PolicyRefused", "NotFound")
    assert not (story.folder / "stolen").exists()


def test_every_party_s_log_tells_of_the_job(story: Story, released: dict[str, Any]) -> None:
    view = story("officer", "job", "show", released["job_id"], "--trail")
    assert {entry["party"] for entry in view["trail"]} == {"bank", "operator"}
    for person in ("bank-owner", "op-owner"):
        entries = story(person, "audit", "entries", "--job", released["job_id"])
        assert {entry["plan_digest"] for entry in entries} == {released["plan_digest"]}
        assert {"admitted", "released"} <= {entry["what"] for entry in entries}
        head = story(person, "audit", "checkpoint")
        assert (head["origin"], head["size"] > entries[-1]["index"]) == (PEOPLE[person][0], True)


def test_other_programs_can_call_with_a_signed_request(story: Story, scenario: str, run: Any) -> None:
    grpcurl = shutil.which("grpcurl", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if grpcurl is None:
        pytest.skip("the program grpcurl is not installed")
    folder, address = story.folder, story.nodes.cards["bank"].address
    certificate = folder / "bank.crt"
    run("peer", "show", folder / "bank.peer", "--certificate", certificate)
    signed = story("officer", "request", "sign", "ScenarioService/ListScenarios", '{"limit": 5}')
    keys = folder / "officer"
    words = [grpcurl, "-cacert", certificate, "-cert", keys / "tls.crt", "-key", keys / "tls.key", "-authority", "bank"]
    words += ["-d", "@", address, "sandbox.v1.ScenarioService/ListScenarios"]
    first, second = (
        subprocess.run(words, input=json.dumps(signed), capture_output=True, text=True, check=False) for _ in range(2)
    )
    assert first.returncode == 0, first.stderr
    [listed] = json.loads(first.stdout)["scenarios"]
    assert base64.b64decode(listed["digest"]).hex() == scenario
    assert second.returncode != 0  # one use
    assert "Unauthenticated" in second.stderr


def test_what_went_wrong_is_told_in_the_asked_language(story: Story, scenario: str) -> None:
    words = [sys.executable, "-m", "sandbox", "--key", story.folder / "officer", "--node", story.folder / "bank.peer"]
    done = subprocess.run(
        [*words, "--lang", "zh", "job", "show", "0" * 32], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "参与方: bank" in done.stderr
    assert "原因: 不存在或无权查看" in done.stderr


def test_a_version_is_destroyed_with_a_receipt(story: Story, run: Any) -> None:
    (story.folder / "old.csv").write_text("id,v\na,1\n")
    words = ("dataset", "register", story.folder / "old.csv", "--schema", story.folder / "schema.json", "--name", "old")
    entry = story("bank-owner", *words)
    receipt = story.folder / "destroyed.txt"
    destroy = ("dataset", "destroy", entry["code"], entry["version"], "--receipt", receipt)
    story("bank-owner", *destroy, code=1)  # nobody said yes
    assert not receipt.exists()
    assert story("bank-owner", *destroy, "--yes")["state"] == "destroyed"
    proven = run("audit", "verify", receipt, "--trust", story.folder / "bank.trust", "--json").json
    assert proven["entry"]["what"] == "destroyed"
    story("bank-owner", *destroy[:-1], story.folder / "again.txt", "--yes")  # a receipt that got lost is made again
    again = run("audit", "verify", story.folder / "again.txt", "--trust", story.folder / "bank.trust", "--json").json
    assert again["entry"] == proven["entry"]


# --- totals ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def joint(story: Story, registered: dict[str, Any]) -> str:
    """The bank's dataset and another of the operator's, under a scenario of sums and tables of totals."""
    rows = "".join(f"{name},{value}\n" for name, value in people("operator").items())
    (story.folder / "weights.csv").write_text("id,w\n" + rows)
    (story.folder / "weights.schema.json").write_text(json.dumps(SCHEMA).replace('"v"', '"w"'))
    words = ("dataset", "register", story.folder / "weights.csv", "--schema", story.folder / "weights.schema.json")
    entry = story("op-owner", *words, "--name", "weights")
    (story.folder / "weights.dataset.json").write_text(json.dumps(entry))
    head = SCENARIO.replace('kinds = ["psi"]', JOINT.split("\n")[1]).replace('"overlap"', '"totals"')
    head = head.replace('file = "operator.dataset.json"\nkey = ["id"]\nfields = ["v"]', WEIGHTS)
    outputs = head.index("[[outputs]]"), head.index("[quota]")
    tables = "\n".join(JOINT.split("\n")[2:])
    (story.folder / "joint.toml").write_text(head[: outputs[0]] + tables + head[outputs[1] :])
    (story.folder / "sums.toml").write_text(SUMS)
    (story.folder / "totals.toml").write_text(TOTALS)
    digest: str = story("officer", "scenario", "apply", story.folder / "joint.toml")["digest"]
    for person in ("bank-owner", "op-owner", "regulator"):
        story(person, "scenario", "approve", digest, "--yes", "--accepts-two-contributors")
    return digest


def people(owner: str) -> dict[str, int]:
    first = {"bank": 0, "operator": 80}[owner]
    return {f"person-{number}": number % 7 for number in range(first, first + 200)}


def finished(story: Story, document: str, *values: str) -> dict[str, Any]:
    words = ("job", "submit", story.folder / document, *(word for value in values for word in ("--set", value)))
    view: dict[str, Any] = story("officer", "job", "watch", story("officer", *words)["job_id"])
    assert view["state"] == "released", story.log("bank") + story.log("operator")
    return view


def result(story: Story, job: dict[str, Any], name: str) -> pd.DataFrame:
    out = story.folder / f"out-{job['job_id'][:6]}"
    words = ("job", "result", job["job_id"], "--out", out, "--trust", story.folder / "bank.trust")
    assert story("officer", *words)["verified"] is True
    return pd.read_parquet(out / f"{name}.parquet")


def test_a_mean_over_people_whom_nobody_names(story: Story, joint: str) -> None:
    job = finished(story, "sums.toml", f"scenario={joint}")
    (row,) = result(story, job, "sums").to_dict("records")
    theirs = people("operator")
    common = [theirs[name] for name in people("bank") if name in theirs]
    assert row["rows"] == len(common) == SHARED
    assert row["average"] == pytest.approx(sum(common) / len(common), abs=0.0051)
    assert job["engine"] == "loads-sm2"


def test_a_table_of_totals_over_an_alignment(story: Story, joint: str) -> None:
    (story.folder / "align.toml").write_text(JOB.replace("operator.dataset.json", "weights.dataset.json"))
    alignment = finished(story, "align.toml", f"scenario={joint}", "request=for-totals")["job_id"]
    job = finished(story, "totals.toml", f"scenario={joint}", f"alignment={alignment}")
    table = result(story, job, "totals")
    assert list(table.columns) == ["v_band", "rows", "w_sum"]
    ours, theirs = people("bank"), people("operator")
    for row in table.to_dict("records"):
        band = {"below 2": range(2), "2 to below 5": range(2, 5), "5 and above": range(5, 7)}[row["v_band"]]
        own = [theirs[name] for name, value in ours.items() if name in theirs and value in band]
        assert (row["rows"], row["w_sum"]) == (10 * ((len(own) + 5) // 10), sum(own))
    shown = story("officer", "job", "list")
    assert {view["kind"] for view in shown} >= {"psi", "aggregate"}


def test_a_total_that_the_scenario_does_not_carry_is_refused_by_name(story: Story, joint: str) -> None:
    (story.folder / "other.toml").write_text(SUMS.replace('column = "w"', 'column = "x"'))
    words = ("job", "plan", story.folder / "other.toml", "--set", f"scenario={joint}")
    error = story("officer", *words, code=1)["error"]
    assert (error["code"], "'x'" in error["cause"]) == ("InvalidSpec", True)
    (story.folder / "other.toml").write_text(SUMS.replace("[[psi.measures]]", "[[psi.measure]]"))
    error = story("officer", *words, code=1)["error"]
    assert "other.toml" in error["cause"] and "'measure'" in error["cause"]


def test_an_application_lives_by_the_command(story: Story, scenario: str) -> None:
    text = SCENARIO.replace('name = "overlap"', f'name = "overlap"\namends = "{scenario}"')
    (story.folder / "again.toml").write_text(text.replace("calls_total = 10", "calls_total = 20"))
    assert story("officer", "scenario", "check", story.folder / "again.toml") == {"complete": True, "missing": []}
    again: str = story("officer", "scenario", "apply", story.folder / "again.toml")["digest"]
    changed = {line["field"]: (line["before"], line["after"]) for line in story("op-owner", "scenario", "diff", again)}
    assert changed.pop("quota.calls_total") == (10, 20)
    assert set(changed) == {"not_before_ms", "not_after_ms"}
    assert story("op-owner", "scenario", "diff", scenario, code=1)["error"]["code"] == "InvalidSpec"
    asked = story("op-owner", "scenario", "ask-changes", again, "--reason", "fewer calls")
    assert (asked["state"], asked["state_zh"]) == ("changes", "待修改")
    assert story("regulator", "scenario", "refuse", again, "--reason", "no basis")["state"] == "refused"
    shown = story("officer", "scenario", "show", again)
    assert shown["outline"]["category"] == "shared"
    assert [(told["party"], told["kind"], told["reason"]) for told in shown["notices"]] == [
        ("operator", "changes", "fewer calls"),
        ("witness", "refused", "no basis"),
    ]
    assert story("bank-owner", "scenario", "suspend", scenario, "--reason", "a moment")["state"] == "suspended"
    states = {listed["digest"]: listed["state"] for listed in story("op-owner", "scenario", "list")}
    assert (states[scenario], states[again]) == ("suspended", "refused")
    error = story("op-owner", "scenario", "resume", scenario, code=1)["error"]
    assert (error["code"], "did not suspend it" in error["cause"]) == ("WrongState", True)
    assert story("bank-owner", "scenario", "resume", scenario)["state"] == "active"
    assert story("bank-owner", "scenario", "revoke", again, "--reason", "applied for in error")["state"] == "revoked"


def test_an_amendment_is_approved_after_a_look_at_what_it_changes(story: Story, scenario: str, terminal: Any) -> None:
    text = SCENARIO.replace('name = "overlap"', f'name = "overlap"\namends = "{scenario}"')
    (story.folder / "look.toml").write_text(text.replace("calls_per_day = 10", "calls_per_day = 7"))
    again = story("officer", "scenario", "apply", story.folder / "look.toml")["digest"]
    who = ("--key", story.folder / "op-owner", "--node", story.folder / "operator.peer")
    ended = terminal("scenario", "approve", again, *who, keys="n\n")
    assert ended.code == 1
    assert re.search(r"quota\.calls_per_day\s+10\s+7\b", ended.out), ended.out
    assert story("op-owner", "scenario", "show", again)["approved_by"] == []
