"""docs/by-hand.md as a program: the page's own commands, typed into one shell, section by section."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from sandbox.demo.nodes import free_ports

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "by-hand.md"
STOP_S = 60.0


class Shell:
    """A bash that stays, stopping at the first command that fails."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._turn = folder, 0
        self.log = folder / "shell.log"
        # The page activates .venv; the tests' own environment may lie elsewhere. The console scripts are in it.
        (folder / "activate").write_text(f'PATH="{Path(sys.executable).parent}:$PATH"\n')
        names = [name for name in os.environ if name.startswith("SANDBOX_")]
        environment = {name: value for name, value in os.environ.items() if name not in names}
        with self.log.open("wb") as log:
            self._bash = subprocess.Popen(
                ["bash", "-euo", "pipefail"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=environment,
                text=True,
            )
        self.run("trap 'kill $(jobs -p) 2>/dev/null || true' EXIT")

    def run(self, commands: str, timeout_s: float = 600.0) -> str:
        """Type commands, wait until they are done, and return what they printed."""
        self._turn += 1
        mark, before = self._folder / f".done-{self._turn}", self.log.stat().st_size
        assert self._bash.stdin is not None
        self._bash.stdin.write(f"{commands}\ntouch {mark}\n")
        self._bash.stdin.flush()
        end = time.monotonic() + timeout_s
        while not mark.exists():
            said = self.log.read_text(errors="replace")[before:]
            assert self._bash.poll() is None, f"{commands}\nfailed:\n{said[-4000:]}"
            assert time.monotonic() < end, f"{commands}\ndid not end:\n{said[-4000:]}"
            time.sleep(0.05)
        return self.log.read_bytes()[before:].decode(errors="replace")

    def close(self) -> None:
        """End the shell and what it started."""
        assert self._bash.stdin is not None
        self._bash.stdin.close()
        try:
            self._bash.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._bash.kill()
            self._bash.wait()


class ByHand:
    """The page, section by section, in a shell that keeps its variables."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "three"
        text = PAGE.read_text(encoding="utf-8")
        text = text.replace(".venv/bin/activate", "./activate").replace("REPOSITORY=$PWD", f"REPOSITORY={ROOT}")
        for port, free in zip(("7701", "7702", "7703"), free_ports(3), strict=True):
            assert f":{port}" in text, f"the page no longer says where port {port} is"
            text = text.replace(f":{port}", f":{free}")
        opening, self.sections = read_sections(text)
        self.shell = Shell(folder)
        self.shell.run(opening)

    def section(self, number: int) -> str:
        """Run one section and return what it printed."""
        return self.shell.run(self.sections[number])


def read_sections(text: str) -> tuple[str, dict[int, str]]:
    """Return the commands of a page: those before its first numbered section, and those of each of these."""
    opening, *parts = re.split(r"^###? (\d+)\. ", text, flags=re.MULTILINE)
    return _commands(opening), dict(zip(map(int, parts[::2]), map(_commands, parts[1::2]), strict=True))


def _commands(text: str) -> str:
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL))
