"""A node's master key from the command line: rotated, split among officers, opened by them, joined."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sandbox import keyring
from sandbox.crypto.shares import Form, form_of, read
from sandbox.demo.nodes import free_ports
from sandbox.home import Home


@pytest.fixture
def home(node_home: Path, tmp_path: Path) -> Path:
    """A copy: the others' home keeps its key."""
    shutil.copytree(node_home, tmp_path / "bank")
    return tmp_path / "bank"


def key_of(home: Path, *shares: Path) -> bytes:
    opened = Home(home, None, lambda: [read(share.read_text()) for share in shares])
    try:
        return opened.keys.node_key
    finally:
        opened.store.close()


def divide(run: Any, home: Path, out: Path, *officers: object, **more: Any) -> Any:
    named = [word for officer in officers for word in ("--officer", officer)]
    return run(
        "node",
        "split-key",
        out,
        "--home",
        home,
        "--need",
        2,
        *named,
        "--plain",
        "--yes",
        "--json",
        *more.get("words", ()),
    )


def test_rotating_says_how_much_it_took_over(run: Any, home: Path) -> None:
    before, entered = key_of(home), run("audit", "fsck", "--home", home, "--json").json["entries"]
    told = run("node", "rotate-key", "--home", home, "--json").json
    assert told == {"taken_over": 1, "held": str(home / "keys" / "node.key")}
    assert key_of(home) != before
    assert run("node", "show-key", "--home", home, "--json").json == {"held": told["held"]}
    assert run("node", "join-key", "--home", home).code == 1
    assert run("audit", "fsck", "--home", home, "--json").json == {"entries": entered + 1, "intact": True}


def test_split_then_opened_by_name_and_card_then_joined(
    run: Any, home: Path, officer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "shares"
    told = divide(run, home, out, "wang", officer / "key.card", "zhao").json
    assert (told["need"], [one["officer"] for one in told["officers"]]) == (2, ["wang", "officer", "zhao"])
    assert told["shares"] == [str(out / f"{name}.share") for name in ("wang", "officer", "zhao")]
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in out.iterdir()} == {0o600}
    assert [form_of(Path(file).read_text()) for file in told["shares"]] == [Form.PLAIN, Form.SEALED, Form.PLAIN]
    assert "share 1 of 3, of which 2 start the node bank" in (out / "wang.share").read_text()
    shown = run("node", "show-key", "--home", home, "--json").json
    assert shown == {name: told[name] for name in ("set", "need", "officers")}

    join = ("node", "join-key", "--home", home, "--json")
    ended = run(*join)
    assert (ended.code, ended.json["error"]["code"]) == (1, "Unavailable")
    assert "2 of 2 shares are missing, kept by wang, officer, zhao" in ended.json["error"]["cause"]
    assert "kept by officer, zhao" in run(*join, "--share", out / "wang.share").err
    ended = run(*join, "--share", out / "wang.share", "--share", out / "officer.share")
    assert ended.code == 1 and "open-share" in ended.err

    opened = run("node", "open-share", out / "officer.share", tmp_path / "opened", "--key", officer, "--json").json
    assert (opened["share"], opened["set"]) == (2, told["set"])
    assert stat.S_IMODE((tmp_path / "opened").stat().st_mode) == 0o600
    assert run("node", "open-share", out / "officer.share", tmp_path / "opened", "--key", officer).code == 1  # is there
    assert key_of(home, out / "wang.share", tmp_path / "opened") == key_of(home, out / "zhao.share", out / "wang.share")
    monkeypatch.setenv("SANDBOX_SHARES", f"{out / 'zhao.share'}:{tmp_path / 'opened'}")
    assert run(*join).json == {"taken_over": 1, "held": str(home / "keys" / "node.key")}
    assert len(key_of(home)) == 16


def test_shares_are_read_only_where_they_are_needed(
    run: Any, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDBOX_SHARES", str(tmp_path / "not there"))
    assert run("node", "rotate-key", "--home", home).code == 0
    divide(run, home, tmp_path / "shares", "wang", "li")
    assert run("audit", "trust", "--home", home).code == 0
    ended = run("node", "join-key", "--home", home)
    assert ended.code == 1 and "not there" in ended.err


def test_remarks_may_be_in_any_script(run: Any, home: Path, tmp_path: Path) -> None:
    divide(run, home, tmp_path / "shares", "wang", "li")
    files = [tmp_path / "shares" / f"{name}.share" for name in ("wang", "li")]
    for file in files:
        file.write_text("# 王某保管\n" + file.read_text())
    assert run("node", "join-key", "--home", home, "--share", files[0], "--share", files[1]).code == 0


def test_another_s_key_does_not_open_a_share(run: Any, home: Path, officer: Path, tmp_path: Path) -> None:
    keyring.create_person(tmp_path / "other", "other", "Elsewhere")
    divide(run, home, tmp_path / "shares", officer / "key.card", "li")
    sealed = tmp_path / "shares" / "officer.share"
    ended = run("node", "open-share", sealed, tmp_path / "opened", "--key", tmp_path / "other")
    assert ended.code == 1 and not (tmp_path / "opened").exists()


def test_split_again_with_the_shares_there_are(run: Any, home: Path, tmp_path: Path) -> None:
    divide(run, home, tmp_path / "one", "wang", "li", "zhao")
    again = ("--share", tmp_path / "one" / "li.share", "--share", tmp_path / "one" / "zhao.share")
    assert divide(run, home, tmp_path / "two", "li", "zhao").code == 1
    assert list((tmp_path / "two").iterdir()) == []
    assert divide(run, home, tmp_path / "two", "li", "zhao", words=again).code == 0
    assert len(key_of(home, *(tmp_path / "two").iterdir())) == 16
    ended = run("node", "join-key", "--home", home, *again)
    assert ended.code == 1 and "2 of those given are of another set" in ended.err
    ended = run("node", "rotate-key", "--home", home)
    assert ended.code == 1 and "split-key" in ended.err


@pytest.mark.parametrize(
    "officers", [("wang",), ("wang", "wang"), ("Wang", "li"), ("../wang", "li"), ("no.card", "li")]
)
def test_officers_that_make_no_sense_change_nothing(
    run: Any, home: Path, tmp_path: Path, officers: tuple[str, ...]
) -> None:
    before = key_of(home)
    assert divide(run, home, tmp_path / "shares", *officers).code == 1
    assert list((tmp_path / "shares").iterdir()) == [] and key_of(home) == before


def test_shares_are_never_overwritten_and_a_yes_is_needed(run: Any, home: Path, tmp_path: Path) -> None:
    before = key_of(home)
    words = ("--need", 2, "--officer", "wang", "--officer", "li")
    ended = run("node", "split-key", tmp_path / "shares", "--home", home, *words, "--yes")
    assert ended.code == 1 and "wang, li would lie here for anybody" in ended.err
    ended = run("node", "split-key", tmp_path / "shares", "--home", home, *words, "--plain")
    assert ended.code == 1 and "--yes" in ended.err
    (tmp_path / "shares").mkdir(exist_ok=True)
    (tmp_path / "shares" / "li.share").write_text("another node's")
    ended = divide(run, home, tmp_path / "shares", "wang", "li")
    assert ended.code == 1 and "never overwritten" in ended.err
    assert [file.read_text() for file in (tmp_path / "shares").iterdir()] == ["another node's"]
    assert key_of(home) == before


@pytest.mark.parametrize("text", ["", "nothing", "ä", "sandbox-share-1 AAAA", "x" * 70_000])
def test_what_is_no_share_is_refused(run: Any, home: Path, tmp_path: Path, text: str) -> None:
    divide(run, home, tmp_path / "shares", "wang", "li")
    (tmp_path / "x").write_text(text)
    ended = run("node", "join-key", "--home", home, "--share", tmp_path / "x", "--json")
    assert (ended.code, ended.json["error"]["code"]) == (1, "InvalidSpec")


@pytest.mark.slow
def test_officers_type_passphrases_of_their_own(run: Any, terminal: Any, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "shares"
    words = ("--need", 2, "--officer", "wang", "--officer", "li", "--lock", "--yes", "--home", home)
    assert run("node", "split-key", out, *words).code == 1  # nobody to ask
    ended = terminal("node", "split-key", out, *words, keys="horse of wang\nhorse of wang\nhorse of li\nhorse of li\n")
    assert ended.code == 0 and "horse" not in ended.out
    assert form_of((out / "wang.share").read_text()) is Form.LOCKED
    join = ("node", "join-key", "--home", home, "--share", out / "wang.share", "--share", out / "li.share")
    assert "nobody to ask" in run(*join).err
    assert terminal(*join, keys="horse of wang\nhorse of wang\n").code == 1
    ended = terminal(*join, keys="horse of wang\nhorse of li\n")
    assert ended.code == 0 and len(key_of(home)) == 16


@pytest.mark.slow
def test_a_node_whose_key_is_split_starts_with_enough_shares(run: Any, home: Path, tmp_path: Path) -> None:
    divide(run, home, tmp_path / "shares", "wang", "li", "zhao")
    settings = home / "sandbox.toml"
    settings.write_text(settings.read_text().replace('127.0.0.1:1"', f'127.0.0.1:{free_ports(1)[0]}"'))
    words = [sys.executable, "-m", "sandbox", "serve", "--home", str(home)]
    given = ["--share", str(tmp_path / "shares" / "wang.share")]
    few = subprocess.run([*words, *given], capture_output=True, text=True, timeout=60)
    assert few.returncode == 1 and "1 of 2 shares are missing" in few.stderr and "li, zhao" in few.stderr
    given += ["--share", str(tmp_path / "shares" / "zhao.share")]
    node = subprocess.Popen([*words, *given], stderr=subprocess.PIPE, text=True)
    try:
        assert node.stderr is not None
        assert any("listening on" in line for line in node.stderr)
    finally:
        node.terminate()
        node.communicate(timeout=60)
