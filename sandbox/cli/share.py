"""Officers' shares of a node key, from and to files.

Security:  shares come from files named by --share or SANDBOX_SHARES, passphrases from a hidden prompt; neither ever
           stands in an option. A share is written into a new file that its owner alone may read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sandbox import keyring, signed
from sandbox.cli.card import read_card
from sandbox.crypto.shares import Form, Share, form_of, read, write, write_locked, write_sealed
from sandbox.crypto.sm2 import PublicKey
from sandbox.errors import InvalidSpec
from sandbox.model import KeyCard

if TYPE_CHECKING:
    from sandbox.master import Split

SHARES = "SANDBOX_SHARES"
SHARE_HELP = f"File with an officer's share; may be given several times. (env: {SHARES}, separated as in PATH)"
_LONGEST = 65536  # bytes of a share's file


@dataclass(frozen=True, slots=True)
class Keeper:
    """An officer who is to keep a share; with a card it is sealed to it."""

    name: str
    card: KeyCard | None


def given_shares(files: Sequence[Path] = ()) -> tuple[Share, ...]:
    """Return the shares in ``files``, or without any in those that SANDBOX_SHARES names; asks for passphrases."""
    named = files or [Path(name) for name in os.environ.get(SHARES, "").split(os.pathsep) if name]
    return tuple(map(_read, named))


def read_text(file: Path) -> str:
    """Return what stands in a share's file, if it can be one."""
    with file.open("rb") as opened:
        data = opened.read(_LONGEST + 1)
    if len(data) > _LONGEST:
        raise InvalidSpec(tell=f"{file} is not a share of a node key")
    return data.decode("utf-8", "replace")  # remarks may be in any script; what is no share is found out later


def find_keeper(named: str) -> Keeper:
    """Return the officer meant by a name, or by the file of a card."""
    if not Path(named).is_file():
        return Keeper(named, None)
    card = signed.open_key_card(read_card(Path(named)))
    return Keeper(card.name, card)


def check_folder(folder: Path, keepers: Sequence[Keeper]) -> None:
    """Refuse before anything is done if a file is there already."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for keeper in keepers:
        if place_of(folder, keeper).exists():
            raise InvalidSpec(
                tell=f"{place_of(folder, keeper)} exists already; shares are never overwritten",
                hint="choose another folder",
            )


def place_of(folder: Path, keeper: Keeper) -> Path:
    """Return the file of an officer's share."""
    return folder / f"{keeper.name}.share"


def ask_passphrases(keepers: Sequence[Keeper]) -> dict[str, bytes]:
    """Ask every officer without a card for the passphrase of his share, twice."""
    if not sys.stdin.isatty():
        raise InvalidSpec(tell="there is no terminal to ask officers at", hint="name them by their cards instead")
    return {
        keeper.name: str(
            typer.prompt(f"New passphrase of {keeper.name}", hide_input=True, confirmation_prompt=True, err=True)
        ).encode()
        for keeper in keepers
        if keeper.card is None
    }


def write_share(file: Path, node_id: str, share: Share, keeper: Keeper, passphrase: bytes | None) -> None:
    """Write an officer's share: sealed to the card, under the passphrase, or as it is."""
    if keeper.card is not None:
        line = write_sealed(share, PublicKey.from_bytes(keeper.card.sealing.key))
    else:
        line = write(share) if passphrase is None else write_locked(share, passphrase)
    about = f"# share {share.index} of {share.count}, of which {share.need} start the node {node_id}"
    text = f"{about}; set {share.set_id.hex()}\n# kept by {keeper.name}, and shown to nobody\n{line}\n"
    keyring.write_durably(file, text.encode())


def describe(split: Split) -> dict[str, object]:
    """Return who keeps which share; nothing secret."""
    return {
        "set": split.set_id,
        "need": split.need,
        "officers": [{"share": index, "officer": name} for index, name in enumerate(split.officers, 1)],
    }


def _read(file: Path) -> Share:
    text = read_text(file)
    if form_of(text) is not Form.LOCKED:
        return read(text)
    if not sys.stdin.isatty():
        raise InvalidSpec(
            tell=f"the share in {file} is under a passphrase, and there is nobody to ask",
            hint="start the node at a terminal",
        )
    return read(text, passphrase=str(typer.prompt(f"Passphrase of {file.name}", hide_input=True, err=True)).encode())
