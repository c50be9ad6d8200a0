"""``sandbox demo``: three nodes on this machine, one joint credit score, one receipt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sandbox.cli.session import Failed, Session, command


def demo(
    session: Session,
    keep: Annotated[
        Path | None, typer.Option(help="New folder in which everything stays. (default: removed)", file_okay=False)
    ] = None,
) -> Any:
    """Run the main job for real: a bank and a public-data operator score credit, a regulator co-signs."""
    from sandbox import demo

    table = demo.run(keep, session.as_json)
    if not session.as_json:
        return None  # the demo has printed its story and its table
    return table if table["verified"] else Failed(table)


def add_to(app: typer.Typer) -> None:
    """Put it at the top, beside the groups."""
    command(app, "demo")(demo)
