"""The notebooks run from top to bottom against three nodes, and are committed without output."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest
from by_hand_page import ROOT, ByHand
from example_page import Ran
from nbclient import NotebookClient

BOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIRST, SECOND = BOOKS
ALLOWED = {"json", "os", "pathlib", "pandas", "sandbox.client", "sandbox.errors"}


def _cells(book: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(book, as_version=4).cells if cell.cell_type == "code"]


def _run(book: Path) -> str:
    """Run a notebook; return what it printed and showed."""
    read = nbformat.read(book, as_version=4)
    NotebookClient(read, timeout=600, resources={"metadata": {"path": str(book.parent)}}).execute()
    outputs = [output for cell in read.cells for output in cell.get("outputs", ())]
    return "\n".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs)


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_notebook_is_committed_without_output(book: Path) -> None:
    assert all(cell.outputs == [] and cell.execution_count is None for cell in _cells(book))


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_notebook_needs_only_the_sdk(book: Path) -> None:
    imported = set()
    for cell in _cells(book):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module or "")
    assert "sandbox.client" in imported
    assert imported <= ALLOWED


@pytest.mark.slow
def test_first_notebook_runs(by_hand: ByHand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SANDBOX_FOLDER", str(by_hand.folder))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    said = _run(FIRST)
    assert "witness   approves: active" in said
    assert "co-signed by witness" in said
    assert "refused:" in said


@pytest.mark.slow
def test_second_notebook_runs(joint_totals: Ran, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SANDBOX_FOLDER", str(joint_totals.folder))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    said = _run(SECOND)
    assert "joint-totals - approved by housing, social, tax" in said
    assert "how many rows each group has, over all parties" in said
    assert "co-signed by housing" in said
    assert "12 groups, equal" in said
