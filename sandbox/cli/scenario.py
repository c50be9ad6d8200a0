"""``sandbox scenario``: the signed objects that say what may run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandbox.cli.form import write_form
from sandbox.cli.session import CLIENT, Failed, Session, command
from sandbox.cli.values import Files, Values, read_digest, read_values
from sandbox.crypto.sm2 import PublicKey
from sandbox.errors import InvalidSpec, NotFound
from sandbox.model import NoticeKind, ScenarioView

if TYPE_CHECKING:
    from sandbox.client import Client, Difference

app = typer.Typer(
    name="scenario",
    help="Scenarios: apply, approve, suspend, revoke. 场景申请、审批、暂停与撤销。",
    no_args_is_help=True,
)

Document = Annotated[Path, typer.Argument(help="The scenario, in TOML.", exists=True, dir_okay=False)]
Digest = Annotated[str, typer.Argument(help="The scenario's digest, 64 hexadecimal digits.")]
Reason = Annotated[str, typer.Option(help="Why; the applicant and the other parties read it.")]
COLUMNS = ("digest", "name", "merchant", "state", "approved_by", "awaiting")
STATES_ZH = {
    "awaiting": "待审批",
    "refused": "已拒绝",
    "changes": "待修改",
    "active": "有效",
    "suspended": "已暂停",
    "amended": "已变更",
    "expired": "已到期",
    "revoked": "已撤销",
}
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
        "state_zh": STATES_ZH.get(view.state, ""),
        "approved_by": view.approved_by,
        "awaiting": view.awaiting,
        "awaiting_departments": view.awaiting_departments,
        "amends": scenario.amends,
        "applicant": view.scenario.key_id,
    }


def describe(view: ScenarioView) -> dict[str, Any]:
    """Return a scenario in full; keys also by their ids, which are what people compare."""
    from sandbox.client import read_scenario

    scenario = read_scenario(view)
    return {
        **summarise(view),
        "outline": scenario.outline,
        "notices": view.notices,
        "recipient": PublicKey.from_bytes(scenario.recipient.identity_key).key_id,
        "consent_issuers": [PublicKey.from_bytes(issuer).key_id for issuer in scenario.consent.issuers],
        "scenario": scenario,
    }


@command(app, "form")
def form(
    session: Session,
    out: Annotated[Path, typer.Argument(help="New file for the form.", dir_okay=False)],
    language: Annotated[str, typer.Option(help="Language of the remarks: en or zh. (default: that of --lang)")] = "",
) -> Any:
    """Write a form to fill in: 用什么数, 怎样供数, 解决什么问题, and every other term, each explained."""
    chosen = language or session.lang
    if chosen not in ("en", "zh"):
        raise typer.BadParameter("en or zh", param_hint="--language")
    with out.open("x", encoding="utf-8") as file:  # what somebody filled in already is never written over
        file.write(write_form(chosen))
    return {"form": out}


@command(app, "check")
def check(session: Session, file: Document, values: Values = None, files: Files = None) -> Any:
    """Say everything that an application still lacks, or the first thing that no node would accept; nothing is sent."""
    from sandbox.client import read_draft
    from sandbox.policy.scenario import Floors
    from sandbox.policy.scenario import check as check_terms

    draft = read_draft(file, read_values(values), files)
    if draft.gaps:
        return Failed({"complete": False, "missing": draft.gaps})
    check_terms(draft.scenario, Floors(1, 1, 1))  # each node has floors of its own, and may ask for more
    return {"complete": True, "missing": []}


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
        view = node.find_scenario(wanted)
        session.confirm("Approve?", yes, lambda: describe(view) | _changes(node, view))
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
        return describe(node.find_scenario(wanted))


@command(app, "diff", needs=CLIENT, columns=("field", "before", "after"))
def diff(session: Session, digest: Digest) -> Any:
    """Show field by field how a scenario differs from the one that it amends."""
    wanted = read_digest(digest)
    with session.connect() as node:
        return _differences(node, node.find_scenario(wanted))


@command(app, "refuse", needs=CLIENT)
def refuse(session: Session, digest: Digest, reason: Reason) -> Any:
    """Say that your organisation will not approve it as it is."""
    return _notify(session, digest, NoticeKind.REFUSED, reason)


@command(app, "ask-changes", needs=CLIENT)
def ask_changes(session: Session, digest: Digest, reason: Reason) -> Any:
    """Say what would have to be changed; the applicant applies anew with `amends`."""
    return _notify(session, digest, NoticeKind.CHANGES, reason)


@command(app, "suspend", needs=CLIENT)
def suspend(session: Session, digest: Digest, reason: Reason) -> Any:
    """Stop it until you resume it: no job is admitted, running ones are cancelled."""
    return _notify(session, digest, NoticeKind.SUSPENDED, reason)


@command(app, "resume", needs=CLIENT)
def resume(
    session: Session,
    digest: Digest,
    reason: Annotated[str, typer.Option(help="Why, if there is anything to say.")] = "",
) -> Any:
    """Take your own suspension back."""
    return _notify(session, digest, NoticeKind.RESUMED, reason)


@command(app, "revoke", needs=CLIENT)
def revoke(session: Session, digest: Digest, reason: Reason) -> Any:
    """End it for good: running jobs are cancelled, the other parties are told."""
    return _notify(session, digest, NoticeKind.REVOKED, reason)


def _notify(session: Session, digest: str, kind: NoticeKind, reason: str) -> Any:
    wanted = read_digest(digest)
    with session.connect() as node:
        return summarise(node.notify_scenario(wanted, kind, reason))


def _differences(node: Client, view: ScenarioView) -> list[Difference]:
    from sandbox.client import differences, read_scenario

    scenario = read_scenario(view)
    if not scenario.amends:
        raise InvalidSpec(tell="the scenario amends no other", hint="sandbox scenario show")
    return list(differences(read_scenario(node.find_scenario(scenario.amends)), scenario))


def _changes(node: Client, view: ScenarioView) -> dict[str, Any]:
    """Return what an amendment changes, for whoever is about to approve it; nothing for a first application."""
    from sandbox.client import read_scenario

    if not read_scenario(view).amends:
        return {}
    try:
        return {"changes": _differences(node, view)}
    except NotFound:
        return {"changes": "this node does not hold what it amends: judge it as a first application"}
