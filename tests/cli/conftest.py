"""The command as its users run it: in this process for speed, as a process of its own where that matters."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sandbox.cli import app

Run = Callable[..., "Ended"]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be exactly one JSON value."""
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SANDBOX_", "LC_")) or name == "LANG":
            monkeypatch.delenv(name)


@pytest.fixture
def run() -> Run:
    def invoke(*words: object, stdin: str | None = None) -> Ended:
        result = CliRunner().invoke(app, [str(word) for word in words], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ended(result.exit_code, result.stdout, result.stderr)

    return invoke


@pytest.fixture
def spawn() -> Run:
    def start(*words: object, stdin: str = "", **environment: str) -> Ended:
        done = subprocess.run(
            [sys.executable, "-m", "sandbox", *map(str, words)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, **environment},
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return start


@pytest.fixture
def terminal() -> Run:
    """Run a command on a terminal, and type ``keys``; everything shown comes back as ``out``."""

    def start(*words: object, keys: str = "") -> Ended:
        outer, inner = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "sandbox", *map(str, words)],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            env={**os.environ, "COLUMNS": "200", "TERM": "xterm"},
        )
        os.close(inner)
        shown = bytearray()
        for line in keys.splitlines(keepends=True):
            asked = b""
            while not asked.endswith(b": "):  # the blank comes once the echo is off
                part = _read(outer)
                assert part, f"no prompt came: {shown!r}"
                asked += part
                shown += part
            os.write(outer, line.encode())
        while part := _read(outer):
            shown += part
        os.close(outer)
        return Ended(process.wait(60), shown.decode(), "")

    return start


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that the other side has closed
        return b""


@pytest.fixture(scope="session")
def node_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node that is not running."""
    from sandbox.home import init

    home = tmp_path_factory.mktemp("homes") / "bank"
    init(home, node_id="bank", organisation="Example Bank", listen="127.0.0.1:1")
    return home


@pytest.fixture
def officer(run: Run, tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "officer"
    assert run("key", "new", folder, "--name", "officer", "--organisation", "Example Bank").code == 0
    yield folder
