"""``sandbox job``: plan, submit, follow and fetch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from sandbox.cli import screen
from sandbox.cli.person import Consent, Parties, SubjectFrom, read_applicant
from sandbox.cli.session import CLIENT, Failed, Session, command
from sandbox.cli.values import Files, Values, read_values
from sandbox.errors import SandboxError
from sandbox.model import ENDED, JobView

if TYPE_CHECKING:
    from sandbox.client import Outcome

app = typer.Typer(name="job", help="Jobs: plan, submit, follow, fetch. 作业提交与结果领取。", no_args_is_help=True)

Document = Annotated[Path, typer.Argument(help="The job, in TOML or JSON.", exists=True, dir_okay=False)]
Test = Annotated[bool, typer.Option("--test", help="In the test environment: over the twins of the datasets.")]
JobId = Annotated[str, typer.Argument(help="32 hexadecimal digits.")]


@command(app, "plan", needs=CLIENT)
def plan(
    session: Session,
    file: Document,
    values: Values = None,
    files: Files = None,
    subject_from: SubjectFrom = None,
    consent: Consent = None,
    party: Parties = None,
    test: Test = False,
) -> Any:
    """Say what a job would do, cost and reveal, without running it."""
    from sandbox.client import job_from_file
    from sandbox.client.specs import on_twins

    spec, inputs = job_from_file(file, read_values(values), files, read_applicant(subject_from, consent, party))
    with session.connect() as node:
        return node.plan(on_twins(spec) if test else spec, inputs)


@command(app, "submit", needs=CLIENT)
def submit(
    session: Session,
    file: Document,
    values: Values = None,
    files: Files = None,
    subject_from: SubjectFrom = None,
    consent: Consent = None,
    party: Parties = None,
    test: Test = False,
) -> Any:
    """Submit a job; with the same request_id in the document, twice is once."""
    from sandbox.client import job_from_file

    spec, inputs = job_from_file(file, read_values(values), files, read_applicant(subject_from, consent, party))
    with session.connect() as node:
        return _describe(node.submit(spec, inputs, test=test), trail=False)


@command(app, "watch", needs=CLIENT)
def watch(
    session: Session,
    job_id: JobId,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.", min=1)] = 86400.0,
) -> Any:
    """Follow a job until it has ended; ends with 1 unless it is released."""
    from sandbox.client.jobs import released

    with session.connect() as node:
        last = _follow(session, node.watch(job_id, timeout))
    try:
        return _describe(released(last), trail=False)
    except SandboxError as error:
        return Failed(_describe(last, trail=False), error)


@command(app, "show", needs=CLIENT)
def show(
    session: Session,
    job_id: JobId,
    trail: Annotated[bool, typer.Option("--trail", help="With every party's audit entries.")] = False,
) -> Any:
    """Show one job: state, stages, cost, and what stopped it."""
    with session.connect() as node:
        return _describe(node.job(job_id), trail)


@command(
    app, "list", needs=CLIENT, columns=("job_id", "kind", "environment", "state", "engine", "created_ms", "request_id")
)
def show_all(
    session: Session,
    after: Annotated[str, typer.Option(help="The last job id of the page before.")] = "",
    limit: Annotated[int, typer.Option(help="Jobs on a page; 0: as many as the node likes.", min=0, max=500)] = 0,
) -> Any:
    """List your jobs, newest first."""
    with session.connect() as node:
        return node.jobs(after, limit)


@command(app, "console", needs=CLIENT)
def console(session: Session, job_id: JobId) -> Any:
    """Show what your own code printed in the test environment."""
    with session.connect() as node:
        text = node.console(job_id)
    return {"console": text}


@command(app, "cancel", needs=CLIENT)
def cancel(session: Session, job_id: JobId) -> Any:
    """Stop a job at every party."""
    with session.connect() as node:
        return _describe(node.cancel(job_id), trail=False)


@command(app, "result", needs=CLIENT)
def result(
    session: Session,
    job_id: JobId,
    out: Annotated[Path, typer.Option(help="New folder for the outputs and the receipt.", file_okay=False)],
    trust: Annotated[
        Path | None, typer.Option(help="Trust file: whose signatures to believe.", exists=True, dir_okay=False)
    ] = None,
) -> Any:
    """Fetch what was released to you, open it, check it, and keep it with its receipt."""
    from sandbox.client import Trust

    believed = Trust.from_file(trust) if trust else None
    with session.connect() as node:
        outcome = node.result(job_id, believed)
    return {
        "job_id": outcome.job_id,
        "files": _store(outcome, out),
        "verified": believed is not None,
        "outputs": {name: _outline(value) for name, value in outcome.outputs.items()},
    }


def _describe(view: JobView, trail: bool) -> dict[str, Any]:
    members = {name: getattr(view, name) for name in view.__slots__ if name != "trail"}
    return members | ({"trail": view.trail} if trail else {})


def _follow(session: Session, views: Any) -> JobView:
    """Tell every change on standard error, in place if it is a terminal; return the last."""
    errors = Console(stderr=True, highlight=False, markup=False, emoji=False)
    last: JobView
    if not errors.is_terminal:
        for last in views:
            if not session.as_json:
                errors.print(_progress(last), soft_wrap=True)
        return last
    with errors.status("asking the node") as status:
        for last in views:
            status.update(_progress(last))
    return last


def _progress(view: JobView) -> str:
    stages = "".join(f"  {screen.cell('', stage.name)} {stage.milliseconds / 1000:.1f} s" for stage in view.stages)
    mark = "" if view.state in ENDED else " ..."
    return f"{view.kind.name.lower()} {view.state.name.lower()}{mark}{stages}"


def _store(outcome: Outcome, folder: Path) -> list[Path]:
    """Write outputs and receipt, readable by their owner only."""
    folder.mkdir(mode=0o700, parents=True)
    made = []
    for name, content in {**outcome.files, "receipt.txt": outcome.receipt}.items():
        path = folder / name
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        made.append(path)
    return made


def _outline(value: Any) -> Any:
    """Return a report whole; of a table only its size: rows are about persons, and screens are recorded."""
    return value if isinstance(value, dict) else {"rows": len(value), "columns": list(value.columns)}
