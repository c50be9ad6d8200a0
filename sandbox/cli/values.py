"""Values on the command line: ``--set name=value``, digests, and where a document's files lie."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

Values = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="What ${NAME} in the document stands for; repeatable."),
]
Files = Annotated[
    Path | None,
    typer.Option(help="Where the files named in the document lie. (default: beside it)", exists=True, file_okay=False),
]


def read_values(given: list[str] | None) -> dict[str, str]:
    """Return ``--set`` options as a mapping."""
    values: dict[str, str] = {}
    for item in given or ():
        name, equals, value = item.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name in values:
            raise typer.BadParameter(f"{name!r}: give each name once, as NAME=VALUE", param_hint="--set")
        values[name] = value
    return values


def read_digest(text: str, name: str = "DIGEST") -> bytes:
    """Return a digest, by default a scenario's; ``name`` is that of the argument, for the error."""
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise typer.BadParameter("not 64 hexadecimal digits", param_hint=name)
    return bytes.fromhex(text)
