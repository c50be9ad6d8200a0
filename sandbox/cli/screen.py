"""What a person or a program reads: one JSON value, or lines and tables.

    value (shape, dictionary, list) --plain--> JSON values --> standard output

Security:  texts of other parties are shown without control characters and without markup, so that nobody's dataset name
           moves the cursor or colours the screen.
Units:     members that end in ``_ms`` are shown to people as local times, in JSON as Unix milliseconds.
Shapes:    in JSON, bytes are hexadecimal digits and enumerations lower-case names. A list of like things is a table
           on a terminal, and lines of tab-separated values with a heading elsewhere.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sandbox.errors import SandboxError

LABELS = {
    "en": {"party": "party", "stage": "stage", "cause": "cause", "next_step": "next step"},
    "zh": {"party": "参与方", "stage": "阶段", "cause": "原因", "next_step": "下一步"},
}


def plain(value: Any) -> Any:
    """Return ``value`` as what JSON knows: dictionaries, lists, texts, numbers."""
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name.rstrip("_"): plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    return value


def show_json(value: Any) -> None:
    """Print one JSON value."""
    print(json.dumps(plain(value), ensure_ascii=False, indent=2))


def show(value: Any, columns: Sequence[str], lang: str) -> None:
    """Print a value for a person; ``columns`` are those of a list."""
    value = _spoken(plain(value), lang)
    if isinstance(value, list):
        _show_rows(value, columns)
    elif isinstance(value, dict):
        _show_members(value, "")
    else:
        print(cell("", value))


def show_error(error: SandboxError, lang: str) -> None:
    """Print to standard error what stopped a command: party, stage, cause, next step."""
    told, labels = failure(error), LABELS[lang]
    cause = told["cause"]
    if lang == "zh":
        cause = error.public_zh if cause == error.public else f"{error.public_zh}（{cause}）"
    next_step = error.hint_zh if lang == "zh" else told["next_step"]
    lines = {"party": told["party"], "stage": told["stage"], "cause": cause, "next_step": next_step}
    for name, text in lines.items():
        if text:
            print(f"{labels[name]}: {cell(name, text)}", file=sys.stderr)


def failure(error: SandboxError) -> dict[str, str]:
    """Return an error as the members of a ``Failure``; this program's user may read what a local error says."""
    local = not error.party and error.tell == error.public
    return {
        "code": type(error).__name__,
        "party": error.party,
        "stage": error.stage,
        "cause": str(error) if local else error.tell,
        "next_step": error.hint,
    }


def cell(name: str, value: Any) -> str:
    """Return one value as printable text on one line."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_ms") and isinstance(value, int):
        return datetime.fromtimestamp(value / 1000).astimezone().isoformat(" ", "seconds") if value else "-"
    if isinstance(value, list):
        return ", ".join(cell("", item) for item in value) or "-"
    if isinstance(value, dict):
        return "; ".join(f"{member} {cell(member, item)}" for member, item in value.items())
    return "".join(character if character.isprintable() else "\ufffd" for character in str(value))


def _spoken(value: Any, lang: str) -> Any:
    """Of every pair ``text`` and ``text_zh``, keep the one in the reader's language."""
    if isinstance(value, list):
        return [_spoken(item, lang) for item in value]
    if not isinstance(value, dict):
        return value
    chosen = {name: _spoken(item, lang) for name, item in value.items() if not name.endswith("_zh")}
    if lang == "zh":
        chosen |= {n: value[f"{n}_zh"] for n in chosen if isinstance(value.get(f"{n}_zh"), str) and value[f"{n}_zh"]}
    return chosen


def _show_members(value: Mapping[str, Any], margin: str) -> None:
    for name, item in value.items():
        label = f"{margin}{_heading(name)}:"
        if isinstance(item, dict) and item:
            print(label)
            _show_members(item, f"{margin}  ")
        elif isinstance(item, list) and item and all(isinstance(part, dict) for part in item):
            print(label)
            _show_rows(item, ())
        elif isinstance(item, str) and "\n" in item:
            print("\n".join([label, *(f"{margin}  {cell(name, line) if line else ''}" for line in item.splitlines())]))
        else:
            print(label, cell(name, item))


def _show_rows(rows: Sequence[Any], columns: Sequence[str]) -> None:
    if rows and not isinstance(rows[0], dict):
        print("\n".join(cell("", row) for row in rows))
        return
    names = columns or tuple(rows[0] if rows else ())
    cells = [[cell(name, row.get(name)) for name in names] for row in rows]
    if not sys.stdout.isatty():
        for line in [[_heading(name) for name in names], *cells]:
            print("\t".join(line))
        return
    table = Table(*map(_heading, names), box=None, pad_edge=False)
    for line in cells:
        table.add_row(*(Text(text, overflow="fold") for text in line))
    Console(highlight=False, markup=False, emoji=False).print(table)


def _heading(name: str) -> str:
    return cell("", name.removesuffix("_ms").replace("_", " "))
