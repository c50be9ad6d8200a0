"""``sandbox init``, ``serve`` and ``doctor``: one organisation's node; ``sandbox node``: its master key."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sandbox import keyring
from sandbox.cli.card import describe_node
from sandbox.cli.session import HOME, Failed, Session, command
from sandbox.cli.share import (
    SHARE_HELP,
    ask_passphrases,
    check_folder,
    describe,
    find_keeper,
    given_shares,
    place_of,
    read_text,
    write_share,
)
from sandbox.crypto.shares import Share, read, write
from sandbox.errors import InvalidSpec

master = typer.Typer(name="node", help="A node's master key. 节点主密钥：轮换、分持、合并。", no_args_is_help=True)
Shares = Annotated[list[Path] | None, typer.Option("--share", help=SHARE_HELP, exists=True, dir_okay=False)]


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


def serve(session: Session, share: Shares = None) -> Any:
    """Run the node until it is told to stop (Ctrl-C, SIGTERM)."""
    from sandbox.node import serve as run

    home = session.need_home()
    run(home, session.passphrase(home / "keys"), partial(given_shares, share or ()))
    return {"stopped": home}


def doctor(session: Session) -> Any:
    """Check keys, clocks, ports both ways, Ray, engines and isolation, and say what to do about each failure."""
    from sandbox.checks import doctor as check

    home = session.need_home()
    checks = check(home, session.passphrase(home / "keys"))
    return checks if all(found.ok for found in checks) else Failed(checks)


@command(master, "rotate-key", needs=HOME)
def rotate_key(session: Session) -> Any:
    """Put a new master key in the place of the present one; no row is written anew. The node must not be running."""
    with session.open_home() as home:
        return {"taken_over": home.rotate_key(), "held": home.path / "keys" / keyring.NODE_KEY}


@command(master, "split-key", needs=HOME)
def split_key(
    session: Session,
    out: Annotated[Path, typer.Argument(help="Folder for the shares' files.", file_okay=False)],
    need: Annotated[int, typer.Option(help="How many officers it takes to start the node.", min=2, max=16)],
    officer: Annotated[
        list[str], typer.Option(help="Name of an officer, or the file of a card: then sealed to it; for each.")
    ],
    lock: Annotated[
        bool, typer.Option("--lock", help="Ask every officer without a card for a passphrase of the share.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Write shares that whoever has the file can use; carry them away at once.")
    ] = False,
    share: Shares = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> Any:
    """Put a new master key in the place of the present one, and give it to officers only. The node must not be running.

    From then on the node starts with enough of their shares only (serve --share). Split again, with the old shares
    given by --share, when an officer leaves.
    """
    from sandbox.home import Home

    path = session.need_home()
    keepers = [find_keeper(named) for named in officer]
    if not (lock or plain) and (open_ones := [keeper.name for keeper in keepers if keeper.card is None]):
        raise InvalidSpec(
            tell=f"the shares of {', '.join(open_ones)} would lie here for anybody to use",
            hint="name the officers' cards, or ask for passphrases (--lock), or say --plain and carry the files away",
        )
    session.confirm(f"Without {need} of these {len(keepers)} shares all data are lost. Go on?", yes)
    check_folder(out, keepers)
    passphrases = ask_passphrases(keepers) if lock else {}
    home = Home(path, session.passphrase(path / "keys"), partial(given_shares, share or ()))
    node_id = home.settings.node_id

    def hand_out(made: Sequence[Share]) -> None:
        try:
            for keeper, one in zip(keepers, made, strict=True):
                write_share(place_of(out, keeper), node_id, one, keeper, passphrases.get(keeper.name))
        except OSError:  # the key stays what it was: nobody shall keep a share of one that never was
            for keeper in keepers:
                keyring.erase(place_of(out, keeper))
            raise

    try:
        split = home.split_key(need, [keeper.name for keeper in keepers], hand_out)
    finally:
        home.store.close()
    return {**describe(split), "shares": [place_of(out, keeper) for keeper in keepers]}


@command(master, "join-key", needs=HOME)
def join_key(session: Session, share: Shares = None) -> Any:
    """Put a new master key, in a file, in the place of the one that is split. The node must not be running."""
    from sandbox.home import Home

    path = session.need_home()
    home = Home(path, session.passphrase(path / "keys"), partial(given_shares, share or ()))
    try:
        return {"taken_over": home.join_key(), "held": path / "keys" / keyring.NODE_KEY}
    finally:
        home.store.close()


@command(master, "show-key", needs=HOME)
def show_key(session: Session) -> Any:
    """Say where the master key is: in a file, or who keeps its shares. Nothing secret."""
    with session.open_home() as home:
        split = home.master.holders()
        return describe(split) if split else {"held": home.path / "keys" / keyring.NODE_KEY}


@command(master, "open-share", needs=("key",))
def open_share(
    session: Session,
    share: Annotated[Path, typer.Argument(help="Your share, sealed to your card.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Argument(help="New file for the share as the node reads it.")],
) -> Any:
    """Open a share that was sealed to your card, with your key: for the start of the node; delete it afterwards."""
    folder = session.need_key()
    person = keyring.load_person(folder, session.passphrase(folder))
    opened = read(read_text(share), key=person.sealing)
    keyring.write_durably(out, f"{write(opened)}\n".encode())
    return {"file": out, "share": opened.index, "set": opened.set_id}


def add_to(app: typer.Typer) -> None:
    """Put the three at the top, beside the groups, and the master key's commands into a group of their own."""
    command(app, "init", needs=HOME)(init)
    command(app, "serve", needs=HOME)(serve)
    command(app, "doctor", needs=HOME, columns=("name", "ok", "detail", "fix"))(doctor)
    app.add_typer(master)
