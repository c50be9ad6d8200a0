"""Commands that need no running node: keys, cards, documents, consents, signed requests; and how commands fail."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from sandbox import keyring, signed, wire
from sandbox.errors import PolicyRefused
from sandbox.model import Call, ConsentToken, JobQuery, Signed
from sandbox.v1 import job_pb2

EXAMPLES = Path(__file__).parents[2] / "jobs" / "credit_score"
DIGEST = "5a" * 32
JOB = "ab" * 16
PERSON = "990000199001011239"


@pytest.fixture
def bank_card(run: Any, node_home: Path, tmp_path: Path) -> Path:
    assert run("peer", "export", tmp_path / "bank.peer", "--home", node_home).code == 0
    return tmp_path / "bank.peer"


# --- how commands end -----------------------------------------------------------------------------------


def test_an_error_is_told_as_cause_and_next_step_and_ends_with_1(run: Any, tmp_path: Path) -> None:
    ended = run("key", "list", "--home", tmp_path)
    assert (ended.code, ended.out) == (1, "")
    cause, next_step = ended.err.splitlines()
    assert cause == f"cause: no node in {tmp_path}: sandbox.toml is missing"
    assert next_step == "next step: make one with `sandbox init`"


def test_with_json_an_error_is_one_json_value_too(run: Any, tmp_path: Path) -> None:
    ended = run("key", "list", "--home", tmp_path, "--json")
    assert ended.code == 1
    assert ended.json["error"]["code"] == "NotFound"
    assert set(ended.json["error"]) == {"code", "party", "stage", "cause", "next_step"}
    assert ended.err


@pytest.mark.parametrize("words", [("--lang", "zh", "key", "list"), ("key", "list", "--lang", "zh")])
def test_chinese_is_asked_for(run: Any, tmp_path: Path, words: tuple[str, ...]) -> None:
    ended = run(*words, "--home", tmp_path)
    assert "原因: 不存在或无权查看" in ended.err
    assert "下一步: " in ended.err


def test_chinese_comes_from_the_environment(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    assert "原因" in run("key", "list", "--home", tmp_path).err
    assert "cause" in run("key", "list", "--home", tmp_path, "--lang", "en").err
    monkeypatch.setenv("LC_ALL", "C")
    assert "cause" in run("key", "list", "--home", tmp_path).err


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("nonsense",),
        ("job", "nonsense"),
        ("job", "list", "--nonsense"),
        ("job", "list"),
        ("key", "list", "--lang", "fr"),
        ("key", "list"),
        ("key", "new"),
        ("consent", "issue", "x", "--scenario", "not-hex", "--purpose", "p"),
        ("job", "submit", "no-such-file"),
        ("scenario", "draft", __file__, "--set", "novalue"),
        ("scenario", "draft", __file__, "--set", "a=1", "--set", "a=2"),
        ("dataset", "show", "CODE", "0"),
    ],
)
def test_a_command_line_that_makes_no_sense_ends_with_2(run: Any, words: tuple[str, ...]) -> None:
    ended = run(*words)
    assert ended.code == 2
    assert "Usage" in ended.err or "Usage" in ended.out  # no words at all show the help


def test_options_before_the_command_count_and_later_ones_win(run: Any, node_home: Path, tmp_path: Path) -> None:
    assert run("--home", node_home, "--json", "key", "list").json == []
    assert run("--home", tmp_path, "key", "list", "--home", node_home, "--json").json == []
    assert run("--home", node_home, "key", "list", "--home", tmp_path).code == 1


def test_options_come_from_the_environment_last(
    run: Any, node_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDBOX_HOME", str(node_home))
    assert run("key", "list", "--json").json == []
    assert run("--home", tmp_path, "key", "list").code == 1
    assert run("key", "list", "--home", tmp_path).code == 1


def test_a_path_that_cannot_be_written_is_named(run: Any, node_home: Path, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("already")
    ended = run("peer", "export", tmp_path / "there", "--home", node_home)
    assert ended.code == 1
    assert str(tmp_path / "there") in ended.err
    assert (tmp_path / "there").read_text() == "already"


def test_as_a_process_of_its_own(spawn: Any, tmp_path: Path) -> None:
    assert spawn("--help").code == 0
    assert spawn("key", "list", SANDBOX_HOME=str(tmp_path)).code == 1
    assert spawn("key", "list").code == 2


def test_a_node_that_is_not_there_is_named(run: Any, officer: Path, bank_card: Path) -> None:
    ended = run("job", "list", "--key", officer, "--node", bank_card)
    assert ended.code == 1
    assert "party: bank" in ended.err
    assert "127.0.0.1:1" in ended.err
    assert "Traceback" not in ended.err


# --- keys and cards -------------------------------------------------------------------------------------


def test_new_keys_are_private_and_their_card_is_what_is_said(run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "officer"
    made = run("key", "new", folder, "--name", "officer", "--organisation", "银行", "--json").json
    person = keyring.load_person(folder)
    assert made["key_id"] == person.key_id
    assert (made["name"], made["organisation"]) == ("officer", "银行")
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in folder.iterdir())
    assert run("key", "new", folder, "--name", "officer", "--organisation", "x").code == 1  # never overwritten
    assert keyring.load_person(folder).key_id == made["key_id"]


def test_a_card_goes_to_a_node_with_roles(run: Any, officer: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert run("init", "bank", "--organisation", "Bank", "--home", home).code == 0
    assert run("key", "export", tmp_path / "officer.card", "--key", officer).code == 0
    register = ("key", "register", tmp_path / "officer.card", "--home", home, "--json")
    registered = run(*register, "--role", "submitter", "--role", "auditor").json
    assert registered["roles"] == ["auditor", "submitter"]
    assert run(*register, "--role", "king").code == 2
    assert run("key", "list", "--home", home, "--json").json == [registered]
    revoked = run("key", "revoke", registered["key_id"], "--home", home, "--json").json
    assert revoked["revoked"] is True
    assert run("key", "revoke", "0" * 32, "--home", home).code == 1
    fsck = run("audit", "fsck", "--home", home, "--json").json
    assert fsck == {"entries": 2, "intact": True}  # registered, revoked


def test_a_card_that_was_changed_is_refused(run: Any, node_home: Path, officer: Path, bank_card: Path) -> None:
    bank_card.write_bytes(bank_card.read_bytes().replace(b"127.0.0.1:1", b"127.0.0.9:1"))
    assert run("peer", "show", bank_card).code == 1
    assert run("peer", "add", bank_card, "--home", node_home).code == 1
    bank_card.write_bytes(b"not a card")
    assert "is not a card" in run("peer", "show", bank_card).err


def test_nodes_are_introduced_by_cards(run: Any, node_home: Path, tmp_path: Path) -> None:
    other, listen = tmp_path / "operator", "127.0.0.1:2"
    made = run("init", "operator", "--organisation", "Op", "--listen", listen, "--home", other, "--json").json
    exported = run("peer", "export", tmp_path / "op.peer", "--home", other, "--json").json
    shown = run("peer", "show", tmp_path / "op.peer", "--certificate", tmp_path / "op.crt", "--json").json
    added = run("peer", "add", tmp_path / "op.peer", "--home", node_home, "--json").json
    assert made["key_id"] == exported["key_id"] == shown["key_id"] == added["key_id"]
    assert (tmp_path / "op.crt").read_bytes() == (other / "keys" / "tls.crt").read_bytes()
    assert run("peer", "list", "--home", node_home, "--json").json == [added]
    trust = run("audit", "trust", "--home", node_home, "--json").json
    assert [line.split("+")[0] for line in trust] == ["origin bank", "witness operator"]
    assert run("audit", "trust", "--home", node_home).out.splitlines() == trust
    assert run("audit", "trust", tmp_path / "trust", "--home", node_home).code == 0
    assert (tmp_path / "trust").read_text().splitlines() == trust


def test_protected_keys_need_the_passphrase(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "officer"
    monkeypatch.setenv("SANDBOX_PASSPHRASE", "correct horse")
    run("key", "new", folder, "--name", "officer", "--organisation", "x")
    assert b"ENCRYPTED" in (folder / "identity.pem").read_bytes()
    issue = ("consent", "issue", tmp_path / "token", "--scenario", DIGEST, "--purpose", "p", "--key", folder)
    (tmp_path / "id").write_text(PERSON)
    assert run(*issue, "--subject-from", tmp_path / "id").code == 0
    (tmp_path / "token").unlink()
    monkeypatch.setenv("SANDBOX_PASSPHRASE", "wrong")
    assert run(*issue, "--subject-from", tmp_path / "id").code == 1
    monkeypatch.delenv("SANDBOX_PASSPHRASE")
    ended = run(*issue, "--subject-from", tmp_path / "id")
    assert ended.code == 1
    assert "SANDBOX_PASSPHRASE" in ended.err
    assert not (tmp_path / "token").exists()


def test_a_terminal_is_asked_and_the_passphrase_not_shown(terminal: Any, tmp_path: Path) -> None:
    folder = tmp_path / "officer"
    new = ("key", "new", folder, "--name", "officer", "--organisation", "x", "--encrypt")
    ended = terminal(*new, keys="correct horse\ncorrect horse\n")
    assert ended.code == 0
    assert "correct horse" not in ended.out
    assert keyring.load_person(folder, b"correct horse").key_id in ended.out


def test_without_a_terminal_there_is_nobody_to_ask(run: Any, tmp_path: Path) -> None:
    ended = run("key", "new", tmp_path / "k", "--name", "a", "--organisation", "x", "--encrypt")
    assert ended.code == 1
    assert "SANDBOX_PASSPHRASE" in ended.err


# --- what people and programs see -----------------------------------------------------------------------


def test_lists_are_tables_on_a_terminal_and_tabs_in_a_pipe(
    run: Any, terminal: Any, node_home: Path, tmp_path: Path
) -> None:
    piped = run("peer", "list", "--home", node_home).out.splitlines()
    assert piped[0].split("\t") == ["node id", "organisation", "address", "key id"]
    shown = terminal("peer", "list", "--home", node_home).out
    assert "node id" in shown
    assert "\t" not in shown


def test_texts_of_others_do_not_reach_the_terminal_raw(run: Any, tmp_path: Path) -> None:
    evil = "\x1b[31mred\x1b]0;title\x07[bold]"
    folder = tmp_path / "evil"
    ended = run("key", "new", folder, "--name", "evil", "--organisation", evil)
    assert ended.code == 0
    assert "\x1b" not in ended.out
    assert "[bold]" in ended.out
    assert (
        run("key", "new", tmp_path / "e", "--name", "e", "--organisation", evil, "--json").json["organisation"] == evil
    )


def test_errors_do_not_reach_the_terminal_raw(capsys: pytest.CaptureFixture[str]) -> None:
    from sandbox.cli.screen import show_error

    show_error(PolicyRefused(tell="\x1b[2Jgone", party="op\x07", stage="admit", hint="ask\r\nthem"), "en")
    told = capsys.readouterr().err
    assert told.isascii() is False  # the replacement character
    assert not any(character in told for character in "\x1b\x07\r")
    assert told.count("\n") == 4


# --- documents, consents, requests ----------------------------------------------------------------------


@pytest.fixture
def files(officer: Path, tmp_path: Path) -> Path:
    for name in ("officer", "consent-desk"):
        shutil.copy(officer / "key.card", tmp_path / f"{name}.card")
    for owner in ("bank", "operator"):
        entry = {"owner": owner, "code": "JI96PQ8JO14KBHYYOG52", "version": 1, "content_hash": "1f" * 32}
        (tmp_path / f"{owner}.dataset.json").write_text(json.dumps(entry))
    return tmp_path


def test_a_draft_is_shown_resolved(run: Any, files: Path) -> None:
    drafted = run("scenario", "draft", EXAMPLES / "scenario.toml", "--files", files, "--json").json
    assert drafted["datasets"][0]["content_hash"] == "1f" * 32
    assert drafted["outputs"][-1]["class"] == "row_consented"
    assert run("scenario", "draft", EXAMPLES / "scenario.toml", "--files", files).out.startswith("name: ")


def test_a_slip_in_a_document_is_named(run: Any, files: Path) -> None:
    (files / "s.toml").write_text('name = "x"\n')
    ended = run("scenario", "draft", files / "s.toml")
    assert ended.code == 1
    assert f"{files / 's.toml'}: " in ended.err


def test_a_consent_is_signed_and_the_id_comes_by_pipe(run: Any, officer: Path, tmp_path: Path) -> None:
    out = tmp_path / "token"
    words = ("consent", "issue", out, "--scenario", DIGEST, "--purpose", "credit", "--key", officer, "--json")
    issued = run(*words, "--subject-from", "-", stdin=PERSON + "\n")
    assert issued.code == 0
    assert PERSON not in issued.out + issued.err
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    person = keyring.load_person(officer)
    made = signed.read_signed(out.read_bytes())
    token = signed.verify(person.identity.public, "consent", made, ConsentToken)
    assert (token.subject_id, token.scenario_digest.hex(), token.purpose) == (PERSON, DIGEST, "credit")
    assert issued.json["not_after_ms"] == token.not_after_ms


@pytest.mark.parametrize("text", ["", "\n", "one\ntwo\n", "x" * 2000])
def test_an_id_is_one_line(run: Any, officer: Path, tmp_path: Path, text: str) -> None:
    words = ("consent", "issue", tmp_path / "t", "--scenario", DIGEST, "--purpose", "p", "--key", officer)
    ended = run(*words, "--subject-from", "-", stdin=text)
    assert ended.code == 1
    assert not (tmp_path / "t").exists()


def test_nobody_is_asked_for_an_id_without_a_terminal(run: Any, officer: Path, tmp_path: Path) -> None:
    words = ("consent", "issue", tmp_path / "t", "--scenario", DIGEST, "--purpose", "p", "--key", officer)
    assert "--subject-from" in run(*words).err


def test_a_job_about_one_person_needs_consent_and_parties(run: Any, officer: Path, bank_card: Path) -> None:
    words = ("job", "plan", EXAMPLES / "applicant.toml", "--set", f"scenario={DIGEST}", "--set", f"model={JOB}")
    ended = run(*words, "--party", bank_card, "--key", officer, "--node", bank_card)
    assert ended.code == 1
    assert "--consent" in ended.err


def test_a_request_for_grpcurl_is_what_a_node_would_accept(run: Any, officer: Path, bank_card: Path) -> None:
    words = ("request", "sign", "JobService/GetJob")
    ended = run(*words, f'{{"jobId": "{JOB}"}}', "--key", officer, "--node", bank_card)
    message = json_format.ParseDict(ended.json, job_pb2.GetJobRequest())
    made = wire.from_proto(Signed, message.signed)
    call = signed.verify(keyring.load_person(officer).identity.public, "call", made, Call)
    assert (call.audience, call.method) == ("bank", "/sandbox.v1.JobService/GetJob")
    assert wire.decode(JobQuery, call.body) == JobQuery(JOB)
    again = run(*words, "-", "--key", officer, "--node", bank_card, stdin=f'{{"job_id": "{JOB}"}}')
    assert again.json["signed"]["payload"] != ended.json["signed"]["payload"]  # a fresh nonce
    assert run(*words, '{"jobId": "short"}', "--key", officer, "--node", bank_card).code == 1
