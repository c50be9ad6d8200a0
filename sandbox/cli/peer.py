"""``sandbox peer``: the other organisations' nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sandbox import signed
from sandbox.cli.card import describe_node, read_card, write_card, write_new
from sandbox.cli.session import HOME, Session, command

app = typer.Typer(name="peer", help="Other organisations' nodes. 对端节点。", no_args_is_help=True)


@command(app, "export", needs=HOME)
def export(
    session: Session, out: Annotated[Path, typer.Argument(help="New file to write this node's card to.")]
) -> Any:
    """Write this node's card: public keys, certificate and address, signed. Hand it to the others."""
    with session.open_home() as home:
        card = home.card()
    write_card(out, card)
    return {**describe_node(signed.open_peer_card(card)), "file": out}


@command(app, "add", needs=HOME)
def add(
    session: Session,
    card: Annotated[Path, typer.Argument(help="The other node's card.", exists=True, dir_okay=False)],
) -> Any:
    """Pin another node. Compare its key id and TLS fingerprint with the other side over the telephone."""
    with session.open_home() as home:
        return describe_node(home.add_peer(read_card(card)))


@command(app, "show")
def show(
    session: Session,
    card: Annotated[Path, typer.Argument(help="A node's card.", exists=True, dir_okay=False)],
    certificate: Annotated[Path | None, typer.Option(help="New file for its TLS certificate, in PEM.")] = None,
) -> Any:
    """Check a card's signatures and show what it says, before you add it or call that node."""
    opened = signed.open_peer_card(read_card(card))
    if certificate is not None:
        write_new(certificate, opened.tls_certificate)
    return describe_node(opened)


@command(app, "list", needs=HOME, columns=("node_id", "organisation", "address", "key_id"))
def show_all(session: Session) -> Any:
    """List the pinned nodes."""
    with session.open_home() as home:
        return [describe_node(card) for card in home.peers()]
