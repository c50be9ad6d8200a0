"""``sandbox dataset``: the catalogue of a node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from sandbox.cli.session import CLIENT, Session, command
from sandbox.model import DatasetView

app = typer.Typer(name="dataset", help="Datasets of a node. 数据集登记、查看与销毁。", no_args_is_help=True)

Code = Annotated[str, typer.Argument(help="Registration code.")]
Version = Annotated[int, typer.Argument(help="Version, from 1.", min=1)]


def describe(view: DatasetView) -> dict[str, Any]:
    """Return a catalogue entry with its schema opened; scenario files may name a file of this."""
    entry = {name: getattr(view, name) for name in view.__slots__ if name != "schema_json"}
    return {**entry, "schema": json.loads(view.schema_json)}


@command(app, "register", needs=CLIENT)
def register(
    session: Session,
    file: Annotated[Path, typer.Argument(help="Parquet or CSV.", exists=True, dir_okay=False)],
    schema: Annotated[Path, typer.Option(help="The schema.json of the data.", exists=True, dir_okay=False)],
    name: Annotated[str, typer.Option(help="The same name again makes a new version.")],
    licence: Annotated[str, typer.Option(help="Terms under which the data may be used.")] = "",
    retention_days: Annotated[int, typer.Option(help="0: until it is destroyed.", min=0)] = 0,
) -> Any:
    """Upload one dataset version to your node, which checks and seals it."""
    errors = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    quiet = session.as_json or not errors.is_terminal
    with session.connect() as node, Progress(*columns, console=errors, disable=quiet, transient=True) as progress:
        task = progress.add_task("upload", total=None)
        view = node.register_dataset(
            file,
            schema,
            name,
            licence,
            retention_days,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    return describe(view)


@command(app, "list", needs=CLIENT, columns=("code", "version", "name", "owner", "rows", "state", "created_ms"))
def show_all(
    session: Session,
    after: Annotated[str, typer.Option(help="The last code of the page before.")] = "",
    limit: Annotated[int, typer.Option(help="Entries on a page; 0: as many as the node likes.", min=0, max=500)] = 0,
) -> Any:
    """List the node's datasets."""
    with session.connect() as node:
        return [describe(view) for view in node.datasets(after, limit)]


@command(app, "show", needs=CLIENT)
def show(session: Session, code: Code, version: Version) -> Any:
    """Show one catalogue entry; with --json, a file of it can stand in a scenario."""
    with session.connect() as node:
        return describe(node.dataset(code, version))


@command(app, "destroy", needs=CLIENT)
def destroy(
    session: Session,
    code: Code,
    version: Version,
    receipt: Annotated[Path, typer.Option(help="New file for the receipt of the destruction.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> Any:
    """Destroy a version's key and rows, for good."""
    session.confirm(f"Destroy version {version} of {code} for good?", yes)
    with receipt.open("xb") as file:  # before anything is destroyed: the receipt must have a place
        try:
            with session.connect() as node:
                view, text = node.destroy_dataset(code, version)
        except BaseException:
            receipt.unlink()
            raise
        file.write(text)
    return {**describe(view), "receipt": receipt}
