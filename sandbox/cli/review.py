"""``sandbox review``: look at what is held, and decide whether it may leave."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from sandbox.cli import evidence
from sandbox.cli.session import CLIENT, Session, command
from sandbox.cli.values import read_digest
from sandbox.errors import WrongState
from sandbox.model import Decision, ReviewView

app = typer.Typer(name="review", help="Reviews: what is held, and decisions on it. 出域审核。", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(help="32 hexadecimal digits.")]
COLUMNS = ("job_id", "kind", "merchant", "recipient_node", "approvals", "approvals_needed", "due_ms", "is_due_soon")
QUESTION = {"en": "Approve? It leaves once all have approved.", "zh": "同意出域？全部审核人同意后结果即出域。"}


def summarise(view: ReviewView) -> dict[str, Any]:
    """Return where a review stands."""
    return {
        "job_id": view.job_id,
        "kind": view.kind,
        "state": view.state,
        "scenario": view.scenario,
        "merchant": view.merchant,
        "recipient_node": view.recipient_node,
        "approvals": evidence.approvals(view),
        "approvals_needed": view.approvals_needed,
        "due_ms": view.due_ms,
        "is_due_soon": view.is_due_soon,
        "evidence_digest": view.evidence_digest,
    }


def describe_leaving(view: ReviewView) -> dict[str, Any]:
    """Return what would leave, to whom and for what: what a person says yes to."""
    return {
        "job_id": view.job_id,
        "leaves": [
            {
                "output": rule.name,
                "class": rule.class_,
                "smallest_group": rule.min_group,
                "rounded_to": rule.round_to,
                "rows_at_most": rule.max_rows,
            }
            for rule in view.outputs
        ],
        "recipient": view.recipient,
        "recipient_node": view.recipient_node,
        "merchant": view.merchant,
        "controller": view.controller,
        "scenario": view.scenario,
        "purpose": view.purpose,
        "checks": len(view.checks),
        "earlier_releases": len(view.history),
        "approvals": evidence.approvals(view),
        "approvals_needed": view.approvals_needed,
        "due_ms": view.due_ms,
        "evidence_digest": view.evidence_digest,
    }


@command(app, "list", needs=CLIENT, columns=COLUMNS)
def show_all(
    session: Session,
    after: Annotated[str, typer.Option(help="The last job id of the page before.")] = "",
    limit: Annotated[int, typer.Option(help="Jobs on a page; 0: as many as the node likes.", min=0, max=500)] = 0,
) -> Any:
    """List what is held at your node, first to expire on top."""
    with session.connect() as node:
        return [summarise(view) for view in node.reviews(after, limit)]


@command(app, "show", needs=CLIENT)
def show(
    session: Session,
    job_id: JobId,
    html: Annotated[Path | None, typer.Option(help="New file to write the page to.", dir_okay=False)] = None,
) -> Any:
    """Show what would leave, to whom, and the evidence; with --html as a page to look at."""
    with session.connect() as node:
        view, name = node.review(job_id), node.node.node_id
    if html is None:
        return view
    with os.fdopen(os.open(html, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(evidence.draw(view, name))
    return {**summarise(view), "file": html}


@command(app, "approve", needs=CLIENT)
def approve(
    session: Session,
    job_id: JobId,
    evidence_digest: Annotated[
        str, typer.Option("--evidence", help="Digest on the page you looked at; another one is refused.")
    ] = "",
    reason: Annotated[str, typer.Option(help="Why; kept with your decision.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not show what leaves and ask.")] = False,
) -> Any:
    """Look at what would leave and to whom, and approve it."""
    looked_at = read_digest(evidence_digest) if evidence_digest else b""
    with session.connect() as node:
        view = node.review(job_id)
        if looked_at and looked_at != view.evidence_digest:
            raise WrongState(tell="the evidence is not what you looked at", hint="look again: sandbox review show")
        session.confirm(QUESTION[session.lang], yes, lambda: describe_leaving(view))
        return summarise(node.decide(job_id, Decision.APPROVE, reason, view))


@command(app, "refuse", needs=CLIENT)
def refuse(
    session: Session,
    job_id: JobId,
    reason: Annotated[str, typer.Option(help="Why; stays with this owner.")],
) -> Any:
    """Refuse: nothing leaves, and the submitter is told no reason. Final."""
    with session.connect() as node:
        return summarise(node.decide(job_id, Decision.REFUSE, reason))


@command(app, "send-back", needs=CLIENT)
def send_back(
    session: Session,
    job_id: JobId,
    reason: Annotated[str, typer.Option(help="What to change; the submitter reads it.")],
) -> Any:
    """Send back: nothing leaves, and the submitter is told what to change. Final."""
    with session.connect() as node:
        return summarise(node.decide(job_id, Decision.SEND_BACK, reason))
