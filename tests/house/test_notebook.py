"""The notebook runs from top to bottom against three nodes, and is committed without output."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest
from by_hand_page import ROOT, ByHand
from nbclient import NotebookClient

BOOK = ROOT / "notebooks" / "01_first_job.ipynb"
ALLOWED = {"os", "pathlib", "pandas", "sandbox.client", "sandbox.errors"}


def _cells() -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(BOOK, as_version=4).cells if cell.cell_type == "code"]


def test_notebook_is_committed_without_output() -> None:
    assert all(cell.outputs == [] and cell.execution_count is None for cell in _cells())


def test_notebook_needs_only_the_sdk() -> None:
    imported = set()
    for cell in _cells():
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module or "")
    assert "sandbox.client" in imported
    assert imported <= ALLOWED


@pytest.mark.slow
def test_notebook_runs(by_hand: ByHand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SANDBOX_FOLDER", str(by_hand.folder))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    book = nbformat.read(BOOK, as_version=4)
    NotebookClient(book, timeout=240, resources={"metadata": {"path": str(BOOK.parent)}}).execute()
    said = "".join(output.get("text", "") for cell in book.cells for output in cell.get("outputs", ()))
    assert "witness   approves: active" in said
    assert "co-signed by witness" in said
    assert "refused:" in said
