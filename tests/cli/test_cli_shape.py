"""What holds for every command, and that its manual tells the truth."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from sandbox.cli import app

MANUAL = Path(__file__).parents[2] / "docs" / "cli.md"
SHARED = {"--help", "-h", "--lang", "--json", "--home", "--key", "--node"}


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield " ".join(path), command
        return
    for name, child in command.commands.items():
        yield from walk(child, (*path, name))


COMMANDS = dict(walk(typer.main.get_command(app)))


def options(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts if name.startswith("-")}


def test_no_command_is_lost() -> None:
    nouns = {
        "": "init serve doctor demo",
        "peer ": "export show add list",
        "node ": "rotate-key split-key join-key show-key open-share",
        "key ": "new export register revoke list",
        "dataset ": "draft register import list search show profile sample twin destroy",
        "model ": "pack show try upload withdraw list",
        "tee ": "quote verify doctor",
        "scenario ": "form check draft apply approve list show diff refuse ask-changes suspend resume revoke",
        "job ": "plan submit watch show list console cancel result",
        "review ": "list show approve refuse send-back",
        "consent ": "issue certify sign withdraw carry evidence challenges challenge produce letter judge",
        "audit ": "entries checkpoint verify trust fsck reason",
        "request ": "sign",
    }
    assert set(COMMANDS) == {f"{noun}{verb}" for noun, verbs in nouns.items() for verb in verbs.split()}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_answer_in_json_and_explains_itself(name: str) -> None:
    command = COMMANDS[name]
    assert {"--json", "--lang"} <= options(command)
    assert command.help
    for parameter in command.params:
        if parameter.name != "help":
            assert parameter.help, f"{name}: {parameter.name} is not explained"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_shown(name: str, run: Any) -> None:
    ended = run(*name.split(), "--help")
    assert ended.code == 0
    assert "--json" in ended.out


def test_groups_speak_chinese_too() -> None:
    for name, group in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        if hasattr(group, "commands"):
            assert re.search(r"[\u4e00-\u9fff]", group.help), name


def manual_rows() -> dict[str, str]:
    """Return, for every command that the manual has a row for, that row."""
    rows = {}
    for line in MANUAL.read_text(encoding="utf-8").splitlines():
        if found := re.match(r"\| `sandbox ([a-z -]+?)(?: [\[A-Z].*?)?` \|", line):
            rows[found[1]] = line
    return rows


def test_the_manual_has_every_command_and_no_other() -> None:
    assert set(manual_rows()) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_manual_names_exactly_the_options_there_are(name: str) -> None:
    named = set(re.findall(r"`(--[a-z-]+)`", manual_rows()[name]))
    there = options(COMMANDS[name])
    assert named <= there
    assert there - SHARED - {"--completion"} <= named


@pytest.mark.parametrize("name", COMMANDS)
def test_the_manual_names_the_arguments(name: str) -> None:
    found = re.search(r"`sandbox [a-z -]+?((?: \[?[A-Z_]+\]?)*)`", manual_rows()[name])
    assert found
    named = [word.strip("[]") for word in found[1].split()]
    there = [p.name.upper() for p in COMMANDS[name].params if not any(o.startswith("-") for o in p.opts)]
    assert named == there


def test_the_shell_is_told_the_groups() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from sandbox.cli import main; sys.argv = ['sandbox']; main()"],
        env={**os.environ, "_SANDBOX_COMPLETE": "complete_bash", "COMP_WORDS": "sandbox sc", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["scenario"]
