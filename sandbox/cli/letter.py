"""The part of ``sandbox consent`` that is about letters: whose are asked for, produced, read and judged.

Security:  persons are printed by ``challenge`` alone, to those who hold the letters or own the data.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from sandbox.cli.session import CLIENT, Session, command
from sandbox.cli.values import read_digest
from sandbox.model import ChallengeView

COLUMNS = ("challenge_id", "party", "is_own", "state", "letters", "due_ms")
QUESTION = {"en": "Reject it? The scenario is suspended.", "zh": "确认不予认可？场景将被暂停。"}

ChallengeId = Annotated[str, typer.Argument(help="32 hexadecimal digits.")]
Number = Annotated[int, typer.Argument(help="Which of its letters, from 1.", min=1)]


def add_to(app: typer.Typer) -> None:
    """Add the commands to their group."""
    command(app, "challenges", needs=CLIENT, columns=COLUMNS)(show_all)
    for name, function in (("challenge", show), ("produce", produce), ("letter", read), ("judge", judge)):
        command(app, name, needs=CLIENT)(function)


def show_all(
    session: Session,
    after: Annotated[str, typer.Option(help="The last challenge id of the page before.")] = "",
    limit: Annotated[int, typer.Option(help="Challenges on a page; 0: as many as the node likes.", min=0)] = 0,
) -> Any:
    """List the challenges to produce letters that concern you, newest first."""
    with session.connect() as node:
        return [_summary(view) for view in node.challenges(after, limit)]


def show(session: Session, challenge_id: ChallengeId) -> Any:
    """Show whose letters are asked for, and how far each is."""
    with session.connect() as node:
        found = node.challenge(challenge_id)
    people = found.persons or ("",) * len(found.view.letters)
    rows = [
        {"number": letter.number, "person": _spelled(person), "state": letter.state, "digest": letter.digest}
        | ({"judged_by": letter.judged_by, "reason": letter.reason} if letter.judged_by else {})
        for letter, person in zip(found.view.letters, people, strict=True)
    ]
    return {**_summary(found.view), "scenario": found.view.scenario_digest, "letters": rows}


def produce(
    session: Session,
    challenge_id: ChallengeId,
    number: Number,
    file: Annotated[Path, typer.Argument(help="The letter; up to 16 MiB.", exists=True, dir_okay=False)],
) -> Any:
    """Hand in a letter that was asked for, sealed to the node that asks."""
    from sandbox.client.consents import MOST_LETTER
    from sandbox.client.files import read_file

    with session.connect() as node:
        return _summary(node.produce_letter(challenge_id, number, read_file(file, MOST_LETTER)))


def read(
    session: Session,
    challenge_id: ChallengeId,
    number: Number,
    to: Annotated[Path, typer.Option(help="New file to write it to; destroy it when you have judged.")],
) -> Any:
    """Read a letter that was produced; entered in the log."""
    from sandbox.crypto.sm3 import sm3

    with session.connect() as node:
        document = node.letter(challenge_id, number)
    write_new(to, document)
    return {"file": to, "digest": sm3(document), "bytes": len(document)}


def judge(
    session: Session,
    challenge_id: ChallengeId,
    number: Number,
    accept: Annotated[bool, typer.Option("--accept/--reject", help="Whether it proves the person's consent.")],
    reason: Annotated[str, typer.Option(help="Why; needed to reject.")] = "",
    digest: Annotated[str, typer.Option(help="SM3 of what you read; another letter is refused.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before rejecting.")] = False,
) -> Any:
    """Accept or reject a letter; either destroys it here, and rejecting one suspends the scenario."""
    looked_at = read_digest(digest) if digest else b""
    with session.connect() as node:
        if not accept:
            session.confirm(QUESTION[session.lang], yes)
        return _summary(node.judge_letter(challenge_id, number, accept, reason, looked_at))


def write_new(path: Path, content: bytes) -> None:
    """Write to a new file that only its owner can read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _summary(view: ChallengeView) -> dict[str, Any]:
    """Return how far a challenge is."""
    states = [letter.state.name.lower() for letter in view.letters]
    return {
        "challenge_id": view.challenge_id,
        "job_id": view.job_id,
        "party": view.party,
        "is_own": view.is_own,
        "state": view.state,
        "letters": {state: states.count(state) for state in sorted(set(states))},
        "due_ms": view.due_ms,
    }


def _spelled(person: str) -> str:
    """Return a person's key as it can be read: one of several columns is joined by a character that is not shown."""
    return " / ".join(person.split("\x1f"))
