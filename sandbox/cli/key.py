"""``sandbox key``: people's and programs' keys, and which of them a node knows."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandbox import keyring, signed
from sandbox.cli.card import describe_person, read_card, write_card
from sandbox.cli.session import HOME, Session, command

if TYPE_CHECKING:
    from sandbox.home import Home
    from sandbox.registry import Registered

app = typer.Typer(name="key", help="Keys of people and programs. 用户密钥与角色登记。", no_args_is_help=True)


class Role(StrEnum):
    """What a registered key may do at a node."""

    MERCHANT = "merchant"
    BANK = "bank"
    DEPARTMENT = "department"
    SUBMITTER = "submitter"
    OWNER = "owner"
    OPERATOR = "operator"
    REVIEWER = "reviewer"
    AUDITOR = "auditor"
    CONSENT = "consent"


@command(app, "new")
def new(
    session: Session,
    folder: Annotated[Path, typer.Argument(help="New folder for the keys.")],
    name: Annotated[str, typer.Option(help="Who you are: lower-case letters, digits and hyphens.")],
    organisation: Annotated[str, typer.Option(help="Whom you belong to.")],
    encrypt: Annotated[bool, typer.Option("--encrypt", help="Protect the keys by a passphrase.")] = False,
) -> Any:
    """Make your keys. The file key.card in the folder is public: hand it to the nodes that should know you."""
    person = keyring.create_person(folder, name, organisation, session.new_passphrase(encrypt))
    return {**describe_person(signed.open_key_card(person.card)), "card": folder / "key.card"}


@command(app, "export", needs=("key",))
def export(session: Session, out: Annotated[Path, typer.Argument(help="New file to write your card to.")]) -> Any:
    """Write your card: your public keys and certificate, signed."""
    card = read_card(session.need_key() / "key.card")
    write_card(out, card)
    return {**describe_person(signed.open_key_card(card)), "file": out}


@command(app, "register", needs=HOME)
def register(
    session: Session,
    card: Annotated[Path, typer.Argument(help="The person's card.", exists=True, dir_okay=False)],
    role: Annotated[list[Role], typer.Option(help="What the key may do; may be given several times.")],
) -> Any:
    """Let this node know a key, with its roles."""
    roles = sorted({chosen.value for chosen in role})
    with session.open_home() as home:
        key_id = home.register_key(read_card(card), roles)
        return _find(home, key_id)


@command(app, "revoke", needs=HOME)
def revoke(session: Session, key_id: Annotated[str, typer.Argument(help="32 hexadecimal digits.")]) -> Any:
    """Make this node refuse a key from now on."""
    with session.open_home() as home:
        home.revoke_key(key_id)
        return _find(home, key_id)


@command(app, "list", needs=HOME, columns=("key_id", "name", "organisation", "roles", "revoked"))
def show_all(session: Session) -> Any:
    """List the keys this node knows."""
    with session.open_home() as home:
        return [_describe(found) for found in home.registered()]


def _find(home: Home, key_id: str) -> dict[str, Any]:
    return next(_describe(found) for found in home.registered() if found.key_id == key_id)


def _describe(found: Registered) -> dict[str, Any]:
    return {**describe_person(found.card), "roles": sorted(found.roles), "revoked": found.revoked}
