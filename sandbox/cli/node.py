"""``sandbox init``, ``serve`` and ``doctor``: one organisation's node."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from sandbox.cli.card import describe_node
from sandbox.cli.session import HOME, Failed, Session, command


def init(
    session: Session,
    node_id: Annotated[str, typer.Argument(help="Short name of the node, unique among its peers.")],
    organisation: Annotated[str, typer.Option(help="Whose node it is.")],
    listen: Annotated[str, typer.Option(help="host:port that its one port binds.")] = "127.0.0.1:7700",
    address: Annotated[str, typer.Option(help="host:port that others dial. (default: as --listen)")] = "",
    witness: Annotated[str, typer.Option(help="Node id of the peer that co-signs its log.")] = "",
    seal: Annotated[Literal["sm4", "tls"], typer.Option(help="What seals records between nodes.")] = "sm4",
    encrypt: Annotated[bool, typer.Option("--encrypt", help="Protect the keys by a passphrase.")] = False,
) -> Any:
    """Make a node: keys, settings and an empty log in the directory given by --home."""
    from sandbox.home import init as make

    home = session.need_home()
    card = make(
        home,
        node_id=node_id,
        organisation=organisation,
        listen=listen,
        address=address,
        witness=witness,
        seal=seal,
        passphrase=session.new_passphrase(encrypt),
    )
    return {**describe_node(card), "home": home}


def serve(session: Session) -> Any:
    """Run the node until it is told to stop (Ctrl-C, SIGTERM)."""
    from sandbox.node import serve as run

    home = session.need_home()
    run(home, session.passphrase(home / "keys"))
    return {"stopped": home}


def doctor(session: Session) -> Any:
    """Check keys, clocks, ports both ways, Ray, engines and isolation, and say what to do about each failure."""
    from sandbox.checks import doctor as check

    home = session.need_home()
    checks = check(home, session.passphrase(home / "keys"))
    return checks if all(found.ok for found in checks) else Failed(checks)


def add_to(app: typer.Typer) -> None:
    """Put the three at the top, beside the groups."""
    command(app, "init", needs=HOME)(init)
    command(app, "serve", needs=HOME)(serve)
    command(app, "doctor", needs=HOME, columns=("name", "ok", "detail", "fix"))(doctor)
