"""``sandbox consent``: a person's leave for one call."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from sandbox import keyring, wire
from sandbox.cli.person import SubjectFrom, read_subject
from sandbox.cli.session import Session, command
from sandbox.cli.values import read_digest
from sandbox.model import ConsentToken

app = typer.Typer(name="consent", help="A person's consent. 个人授权凭证。", no_args_is_help=True)


@command(app, "issue", needs=("key",))
def issue(
    session: Session,
    out: Annotated[Path, typer.Argument(help="New file for the token; it holds the person's id.")],
    scenario: Annotated[str, typer.Option(help="The scenario's digest, 64 hexadecimal digits.")],
    purpose: Annotated[str, typer.Option(help="What the person agreed to, as in the scenario.")],
    valid_s: Annotated[int, typer.Option(help="Seconds the consent holds.", min=1)] = 3600,
    subject_from: SubjectFrom = None,
) -> Any:
    """Sign that one person agreed to one call; your key must be among the scenario's issuers."""
    from sandbox.client import issue_consent

    folder = session.need_key()
    person = keyring.load_person(folder, session.passphrase(folder))
    token = issue_consent(person, read_subject(subject_from), read_digest(scenario), purpose, valid_s)
    with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(wire.encode(token))
    told = wire.decode(ConsentToken, token.payload)
    return {
        "file": out,
        "issuer": token.key_id,
        "scenario": told.scenario_digest,
        "purpose": told.purpose,
        "not_after_ms": told.not_after_ms,
    }
