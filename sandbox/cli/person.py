"""One person on the command line: whom a job or a consent is about.

Security:  a person's id is read from a file, from standard input or from a hidden prompt, never from an argument, which
           would stand in the process list and in the shell's history.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox import signed, wire
from sandbox.cli.card import read_card
from sandbox.errors import InvalidSpec
from sandbox.model import ConsentPaper, Signed

if TYPE_CHECKING:
    from sandbox.client import Applicant

MAX_ID = 1024  # bytes of the file

SubjectFrom = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="File with the person's id; - is standard input."),
]
Consent = Annotated[
    Path | None, typer.Option(help="The person's consent (sandbox consent issue, sign).", exists=True, dir_okay=False)
]
Parties = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE", help="Card of a node that owns data about the person; repeatable.", exists=True, dir_okay=False
    ),
]


def read_subject(source: Path | None) -> str:
    """Return a person's id from a file, from standard input (``-``), or from a prompt if there is a terminal."""
    if source is None:
        if not sys.stdin.isatty():
            raise InvalidSpec(tell="whom it is about is not said", hint="add --subject-from FILE, or - for a pipe")
        return str(typer.prompt("Id of the person", hide_input=True, err=True)).strip()
    data = sys.stdin.buffer.read(MAX_ID + 1) if str(source) == "-" else source.read_bytes()
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        text = ""
    if not text or len(data) > MAX_ID or "\n" in text:
        raise InvalidSpec(tell="the person's id is not one line of text in UTF-8")
    return text


def read_paper(path: Path) -> tuple[Signed, Signed | None]:
    """Return the consent in a file and, where the person's own key signed it, what certifies that key.

    Raises:
        InvalidSpec: it is no consent.
    """
    content = path.read_bytes()
    try:
        return signed.read_signed(content), None
    except InvalidSpec:  # not a token alone
        try:
            paper = wire.decode(ConsentPaper, content)
        except InvalidSpec:
            raise InvalidSpec(tell=f"{path} is not a consent") from None
        return paper.consent, paper.subject_key


def read_applicant(subject_from: Path | None, consent: Path | None, parties: list[Path] | None) -> Applicant | None:
    """Return whom a job is about, or None if it is about nobody alone."""
    from sandbox.client import Applicant

    if consent is None and not parties and subject_from is None:
        return None
    if consent is None or not parties:
        raise InvalidSpec(tell="a job about one person needs --consent and --party, one for every owner of data")
    token, subject_key = read_paper(consent)
    cards = tuple(signed.open_peer_card(read_card(card)) for card in parties)
    return Applicant(read_subject(subject_from), token, cards, subject_key)
