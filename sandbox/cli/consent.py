"""``sandbox consent``: a person's leave for a call, from three sources; the letters behind it are in ``letter``.

Security:  a person's id is read as ``person`` says, and never printed.
"""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandbox import keyring, signed, wire
from sandbox.cli import letter
from sandbox.cli.card import read_card
from sandbox.cli.letter import write_new
from sandbox.cli.person import SubjectFrom, read_paper, read_subject
from sandbox.cli.session import CLIENT, HOME, Session, command
from sandbox.cli.values import read_digest
from sandbox.errors import IntegrityFailed
from sandbox.model import (
    ConsentPaper,
    ConsentSource,
    ConsentToken,
    Entry,
    Signed,
    SubjectKey,
    WithdrawalNotice,
)

if TYPE_CHECKING:
    from sandbox.keyring import Person

app = typer.Typer(name="consent", help="A person's consent, and letters. 个人授权凭证。", no_args_is_help=True)

Token = Annotated[Path, typer.Argument(help="The consent.", exists=True, dir_okay=False)]
TokenOut = Annotated[Path, typer.Argument(help="New file for the token; it holds the person's id.")]
ScenarioDigest = Annotated[str, typer.Option("--scenario", help="The scenario's digest, 64 hexadecimal digits.")]
Purpose = Annotated[str, typer.Option(help="What the person agreed to, as in the scenario.")]
Uses = Annotated[int, typer.Option(help="Calls it is for, if the scenario lets one be for several.", min=1)]
ValidS = Annotated[int, typer.Option(help="Seconds it holds.", min=1)]
Certificate = Annotated[
    Path, typer.Option(help="An issuer's word about your key (sandbox consent certify).", exists=True, dir_okay=False)
]
MaybeCertificate = Annotated[
    Path | None,
    typer.Option(help="Whom it is about: an issuer's word about your key.", exists=True, dir_okay=False),
]


class Source(enum.StrEnum):
    """Where an issuer has the consent from."""

    ATTESTED = "attested"
    LETTER = "letter"


@command(app, "issue", needs=("key",))
def issue(
    session: Session,
    out: TokenOut,
    scenario: ScenarioDigest,
    purpose: Purpose,
    valid_s: ValidS = 3600,
    subject_from: SubjectFrom = None,
    source: Annotated[Source, typer.Option(help="What stands behind it: a record of yours, or a letter.")] = (
        Source.ATTESTED
    ),
    evidence: Annotated[
        Path | None,
        typer.Option(help="The record or letter; only its SM3 goes into the token.", exists=True, dir_okay=False),
    ] = None,
    uses: Uses = 1,
) -> Any:
    """Sign that a person agreed to a call; your key must be among the scenario's issuers."""
    from sandbox.client import issue_consent

    found = _digest(evidence)
    kind = ConsentSource[source.name]
    person, digest = _person(session), read_digest(scenario)
    subject = read_subject(subject_from)
    token = issue_consent(person, subject, digest, purpose, valid_s, source=kind, evidence=found, uses=uses)
    write_new(out, wire.encode(token))
    return _told(out, token)


@command(app, "certify", needs=("key",))
def certify(
    session: Session,
    out: Annotated[Path, typer.Argument(help="New file for your word; it holds the person's id.")],
    card: Annotated[Path, typer.Argument(help="The person's card (sandbox key export).", exists=True, dir_okay=False)],
    valid_s: ValidS = 31_536_000,
    subject_from: SubjectFrom = None,
) -> Any:
    """Sign that a key is a person's own, after that person proved who it is; your key must be among the issuers."""
    from sandbox.client import certify_subject

    key = keyring.public_key(signed.open_key_card(read_card(card)))
    word = certify_subject(_person(session), read_subject(subject_from), key, valid_s)
    write_new(out, wire.encode(word))
    told = wire.decode(SubjectKey, word.payload)
    return {"file": out, "issuer": word.key_id, "key": key.key_id, "not_after_ms": told.not_after_ms}


@command(app, "sign", needs=("key",))
def sign(
    session: Session,
    out: TokenOut,
    scenario: ScenarioDigest,
    purpose: Purpose,
    certificate: Certificate,
    valid_s: ValidS = 3600,
    subject_from: SubjectFrom = None,
    uses: Uses = 1,
) -> Any:
    """Agree to a call yourself, with your own key and an issuer's word about it; both go into one file."""
    from sandbox.client import sign_consent

    word = signed.read_signed(certificate.read_bytes())
    person, digest = _person(session), read_digest(scenario)
    token = sign_consent(person, read_subject(subject_from), digest, purpose, valid_s, uses=uses)
    write_new(out, wire.encode(ConsentPaper(token, word)))
    return _told(out, token)


@command(app, "withdraw", needs=CLIENT)
def withdraw(
    session: Session,
    token: Token,
    certificate: MaybeCertificate = None,
    out: Annotated[
        Path | None, typer.Option(help="New file for the withdrawal, for somebody else to carry; sends nothing.")
    ] = None,
) -> Any:
    """Take a consent back: as who signed it, who certified the key that did, or whom it is about."""
    from sandbox.client import withdraw

    consent, subject_key = read_paper(token)
    person = _person(session)
    own = None if certificate is None else signed.read_signed(certificate.read_bytes())
    if own is None and subject_key is not None and consent.key_id == person.key_id:
        own = subject_key
    notice = withdraw(person, consent, own)
    if out is not None:
        write_new(out, wire.encode(notice))
        return {"file": out, "withdrawn": False}
    with session.connect() as node:
        return {"withdrawn": True, "node": node.node.node_id, "told": node.withdraw_consent(notice)}


@command(app, "carry", needs=CLIENT)
def carry(
    session: Session,
    withdrawal: Annotated[
        Path, typer.Argument(help="What `sandbox consent withdraw --out` made.", exists=True, dir_okay=False)
    ],
) -> Any:
    """Hand in somebody's withdrawal; it is signed, so anybody may carry it."""
    notice = wire.decode(WithdrawalNotice, withdrawal.read_bytes())
    with session.connect() as node:
        return {"withdrawn": True, "node": node.node.node_id, "told": node.withdraw_consent(notice)}


@command(app, "evidence", needs=HOME)
def show_evidence(session: Session, job_id: Annotated[str, typer.Argument(help="The job.")]) -> Any:
    """At a node: open what the log committed to of a job's consent, for whoever checks the issuer's records."""
    from sandbox.audit import log as audit_log
    from sandbox.crypto.sm3 import sm3
    from sandbox.policy import spending

    with session.open_home() as home, home.store.read() as conn:
        content = spending.opening(conn, home.keys.node_key, job_id)
        entries = [wire.decode(Entry, leaf) for _, leaf in audit_log.for_job(conn, job_id)]
    if sm3(content) not in {commitment.digest for entry in entries for commitment in entry.commitments}:
        raise IntegrityFailed(f"the consent of job {job_id} is not what the log committed to")
    token, evidence = spending.opened(content)
    return {"job_id": job_id, "token": token, "evidence": evidence, "committed": True}


def _person(session: Session) -> Person:
    folder = session.need_key()
    return keyring.load_person(folder, session.passphrase(folder))


def _told(out: Path, token: Signed) -> dict[str, Any]:
    told = wire.decode(ConsentToken, token.payload)
    return {
        "file": out,
        "issuer": token.key_id,
        "scenario": told.scenario_digest,
        "purpose": told.purpose,
        "source": told.source,
        "uses": max(1, told.uses),
        "not_after_ms": told.not_after_ms,
    }


def _digest(path: Path | None) -> bytes:
    if path is None:
        return b""
    from sandbox.crypto.sm3 import Sm3

    found = Sm3()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.digest()


letter.add_to(app)
