"""``sandbox audit``: what happened, and the proof of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sandbox.cli.session import CLIENT, HOME, Session, command

app = typer.Typer(name="audit", help="The audit log and its proofs. 审计存证与核验。", no_args_is_help=True)


@command(app, "entries", needs=CLIENT, columns=("index", "what", "job_id", "actor", "time_ms", "facts"))
def entries(
    session: Session,
    start: Annotated[int, typer.Option(help="First index.", min=0)] = 0,
    limit: Annotated[int, typer.Option(help="At most so many; 0: as many as the node likes.", min=0, max=1000)] = 0,
    job: Annotated[str, typer.Option(help="Only this job's.")] = "",
) -> Any:
    """List entries of the node's log."""
    from sandbox.cli.screen import plain

    with session.connect() as node:
        found = node.entries(start, limit, job)
    return [{"index": e.index, **plain(e.entry), "facts": _named(e.entry.facts), "leaf": e.leaf} for e in found]


@command(app, "checkpoint", needs=CLIENT)
def checkpoint(session: Session) -> Any:
    """Show the newest signed checkpoint, checked against the node's card."""
    with session.connect() as node:
        head = node.checkpoint()
    return {
        "origin": head.checkpoint.origin,
        "size": head.checkpoint.size,
        "root": head.checkpoint.root,
        "verifier_key": head.verifier_key,
        "note": head.note.decode(),
    }


@command(app, "verify")
def verify(
    session: Session,
    receipt: Annotated[Path, typer.Argument(help="The receipt.", exists=True, dir_okay=False)],
    trust: Annotated[Path, typer.Option(help="Trust file: whose signatures to believe.", exists=True, dir_okay=False)],
    required: Annotated[int, typer.Option(help="How many other parties must have co-signed.", min=0)] = 1,
) -> Any:
    """Check a receipt without any node: inclusion, checkpoint, co-signatures."""
    from sandbox.client import Trust

    proven = Trust.from_file(trust).verify(receipt.read_bytes(), required)
    return {
        "verified": True,
        "origin": proven.checkpoint.origin,
        "index": proven.index,
        "size": proven.checkpoint.size,
        "cosigned_by": proven.cosigners,
        "entry": {
            "what": proven.entry.what,
            "job_id": proven.entry.job_id,
            "plan_digest": proven.entry.plan_digest,
            "scenario_digest": proven.entry.scenario_digest,
            "actor": proven.entry.actor,
            "time_ms": proven.entry.time_ms,
            **_named(proven.entry.facts),
        },
    }


@command(app, "trust", needs=HOME)
def trust(
    session: Session,
    out: Annotated[Path | None, typer.Argument(help="New file to write it to. (default: show it)")] = None,
) -> Any:
    """Write the trust file for receipts of this node; check the keys in it with the other parties."""
    with session.open_home() as home:
        text = home.trust()
    if out is None:
        return text.splitlines()
    with out.open("x", encoding="utf-8") as file:
        file.write(text)
    return {"file": out}


@command(app, "fsck", needs=HOME)
def fsck(session: Session) -> Any:
    """Compute the whole log of this node again and compare."""
    with session.open_home() as home:
        return {"entries": home.fsck(), "intact": True}


@command(app, "reason", needs=HOME)
def reason(session: Session, job_id: Annotated[str, typer.Argument(help="The job.")]) -> Any:
    """Say why a job ended early at this node, in the words that only its owner may read."""
    with session.open_home() as home:
        return {"job_id": job_id, "reason": home.reason(job_id), "committed": True}


def _named(facts: Any) -> dict[str, str]:
    return {fact.name: fact.value for fact in facts}
