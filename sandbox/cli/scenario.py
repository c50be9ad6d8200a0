"""``sandbox scenario``: the signed objects that say what may run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandbox.cli.session import CLIENT, Session, command
from sandbox.cli.values import Files, Values, read_digest, read_values
from sandbox.crypto.sm2 import PublicKey
from sandbox.errors import InvalidSpec, NotFound
from sandbox.model import ScenarioView

if TYPE_CHECKING:
    from sandbox.client import Client

app = typer.Typer(name="scenario", help="Scenarios: apply, approve, revoke. 场景申请与授权。", no_args_is_help=True)

Document = Annotated[Path, typer.Argument(help="The scenario, in TOML.", exists=True, dir_okay=False)]
Digest = Annotated[str, typer.Argument(help="The scenario's digest, 64 hexadecimal digits.")]
COLUMNS = ("digest", "name", "merchant", "state", "approved_by", "awaiting")
PAGE = 500


def summarise(view: ScenarioView) -> dict[str, Any]:
    """Return where a scenario stands; refuses one that is not what its digest names."""
    from sandbox.client import read_scenario

    scenario = read_scenario(view)
    return {
        "digest": view.digest,
        "name": scenario.name,
        "merchant": scenario.merchant,
        "state": view.state,
        "approved_by": view.approved_by,
        "awaiting": view.awaiting,
        "applicant": view.scenario.key_id,
    }


def describe(view: ScenarioView) -> dict[str, Any]:
    """Return a scenario in full; keys also by their ids, which are what people compare."""
    from sandbox.client import read_scenario

    scenario = read_scenario(view)
    return {
        **summarise(view),
        "recipient": PublicKey.from_bytes(scenario.recipient.identity_key).key_id,
        "consent_issuers": [PublicKey.from_bytes(issuer).key_id for issuer in scenario.consent.issuers],
        "scenario": scenario,
    }


@command(app, "draft")
def draft(session: Session, file: Document, values: Values = None, files: Files = None) -> Any:
    """Read a scenario and show it with every name resolved; nothing is signed or sent."""
    from sandbox.client import scenario_from_toml

    return scenario_from_toml(file, read_values(values), files)


@command(app, "apply", needs=CLIENT)
def apply(session: Session, file: Document, values: Values = None, files: Files = None) -> Any:
    """Sign a scenario and file it with your node, which hands it to every party it names."""
    from sandbox.client import scenario_from_toml

    scenario = scenario_from_toml(file, read_values(values), files)
    with session.connect() as node:
        return summarise(node.apply_scenario(scenario))


@command(app, "approve", needs=CLIENT)
def approve(
    session: Session,
    digest: Digest,
    party: Annotated[str, typer.Option(help="In whose name. (default: the node you call)")] = "",
    accepts_simulated: Annotated[
        bool, typer.Option("--accepts-simulated", help="Let rows enter a simulated enclave.")
    ] = False,
    accepts_two_contributors: Annotated[
        bool,
        typer.Option("--accepts-two-contributors", help="Let totals over two owners leave: each can subtract its own."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not show it and ask.")] = False,
) -> Any:
    """Look at a scenario and approve it in the name of your organisation."""
    wanted = read_digest(digest)
    with session.connect() as node:
        view = _find(node, wanted)
        session.confirm("Approve?", yes, lambda: describe(view))
        return summarise(node.approve_scenario(view.digest, party, accepts_simulated, accepts_two_contributors))


@command(app, "list", needs=CLIENT, columns=COLUMNS)
def show_all(
    session: Session,
    after: Annotated[str, typer.Option(help="The last digest of the page before.")] = "",
    limit: Annotated[int, typer.Option(help="Entries on a page; 0: as many as the node likes.", min=0, max=PAGE)] = 0,
) -> Any:
    """List the scenarios your node holds."""
    with session.connect() as node:
        return [summarise(view) for view in node.scenarios(after, limit)]


@command(app, "show", needs=CLIENT)
def show(session: Session, digest: Digest) -> Any:
    """Show one scenario in full."""
    wanted = read_digest(digest)
    with session.connect() as node:
        return describe(_find(node, wanted))


@command(app, "revoke", needs=CLIENT)
def revoke(
    session: Session,
    digest: Digest,
    reason: Annotated[str, typer.Option(help="Why; the other parties read it.")],
) -> Any:
    """End a scenario: running jobs are cancelled, the other parties are told."""
    wanted = read_digest(digest)
    with session.connect() as node:
        return summarise(node.revoke_scenario(wanted, reason))


def _find(node: Client, wanted: bytes) -> ScenarioView:
    after = ""
    while page := node.scenarios(after, PAGE):
        for view in page:
            if view.digest == wanted:
                return view
        if after == (after := page[-1].digest.hex()):
            raise InvalidSpec(tell="the node gives the same page again", party=node.node.node_id)
    raise NotFound(tell=f"your node holds no scenario {wanted.hex()}")
