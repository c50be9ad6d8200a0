"""The README of an example as a program: its own commands, typed into one shell, section by section."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from by_hand_page import ROOT, Shell, read_sections


class Example:
    """An example's page in a shell of its own."""

    def __init__(self, name: str, folder: Path, opening: str = "") -> None:
        """Args:
        name: of the folder in jobs.
        folder: where the page begins.
        opening: commands that the page takes as done.
        """
        self.folder = folder
        text = (ROOT / "jobs" / name / "README.md").read_text(encoding="utf-8")
        # What a page shows beside its commands; the tests compare it with what they print.
        blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
        self.shown = [block for language, block in blocks if not language]
        text = text.replace(".venv/bin/activate", "./activate").replace("JOBS=$PWD", f"JOBS={ROOT}")
        _, self.sections = read_sections(text)
        self.shell = Shell(folder)
        if opening:
            self.shell.run(opening)

    def section(self, number: int) -> str:
        """Run one section and return what it printed."""
        return self.shell.run(self.sections[number])


@dataclass(frozen=True)
class Ran:
    """An example whose commands have been typed; each has ended with 0."""

    page: Example
    folder: Path  # where its files are
    told: dict[int, str]  # what each section printed
