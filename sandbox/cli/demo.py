"""``sandbox demo``: three nodes on this machine, one joint credit score, one receipt."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sandbox.cli.session import Failed, Session, command


class Psi(StrEnum):
    """Engines of the intersection, by short names."""

    AUTO = "auto"
    RR22 = "rr22"
    SM2 = "sm2"
    X25519 = "x25519"


ENGINES = {Psi.AUTO: "AUTO", Psi.RR22: "RR22", Psi.SM2: "ECDH_SM2", Psi.X25519: "ECDH_X25519"}


def demo(
    session: Session,
    keep: Annotated[
        Path | None, typer.Option(help="New folder in which everything stays. (default: removed)", file_okay=False)
    ] = None,
    psi: Annotated[
        Psi, typer.Option(help="What finds the common customers; sm2: on the national curve, with SM3.")
    ] = Psi.AUTO,
) -> Any:
    """Run the main job for real: a bank and a public-data operator score credit, a regulator co-signs."""
    from sandbox import demo

    table = demo.run(keep, session.as_json, ENGINES[psi])
    if not session.as_json:
        return None  # the demo has printed its story and its table
    return table if table["verified"] else Failed(table)


def add_to(app: typer.Typer) -> None:
    """Put it at the top, beside the groups."""
    command(app, "demo")(demo)
