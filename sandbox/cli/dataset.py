"""``sandbox dataset``: the catalogue of a node."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from sandbox.cli.session import CLIENT, Session, command
from sandbox.errors import InvalidSpec
from sandbox.model import DatasetView

app = typer.Typer(name="dataset", help="Datasets of a node. 数据集登记、检索、画像、孪生与销毁。", no_args_is_help=True)

Code = Annotated[str, typer.Argument(help="Registration code.")]
Version = Annotated[int, typer.Argument(help="Version, from 1.", min=1)]
SchemaFile = Annotated[Path, typer.Option(help="The schema.json of the data.", exists=True, dir_okay=False)]
NewFile = Annotated[Path, typer.Option(help="New file to write.")]
Department = Annotated[str, typer.Option(help="Source department that owns the data. (default: the operator)")]
Domain = Annotated[str, typer.Option(help="For example 社保 or transport.")]
Name = Annotated[str, typer.Option(help="The same name again makes a new version.")]
Licence = Annotated[str, typer.Option(help="Terms under which the data may be used.")]
RetentionDays = Annotated[int, typer.Option(help="0: until it is destroyed.", min=0)]
Keywords = Annotated[list[str] | None, typer.Option(help="To be found by; may be given several times.")]
UpdateDays = Annotated[int, typer.Option(help="A new version is due after so many days; 0: not told.", min=0)]
AsOf = Annotated[str, typer.Option(help="The day the rows describe, or the date column that says it.")]
VisibleTo = Annotated[
    list[str] | None, typer.Option(help="An organisation that may see the entry; none: everybody registered.")
]
GradesConfirmed = Annotated[
    bool, typer.Option("--grades-confirmed", help="Keep grades that look too low; you looked at them.")
]
TwinEpsilon = Annotated[
    float, typer.Option(help="Make the synthetic twin at once, under this privacy budget; 0: later.", min=0)
]
After = Annotated[str, typer.Option(help="The last CODE or CODE/VERSION of the page before.")]
Limit = Annotated[int, typer.Option(help="Entries on a page; 0: as many as the node likes.", min=0, max=500)]
COLUMNS = ("code", "version", "name", "owner", "department", "domain", "rows", "state", "created_ms")


def describe(view: DatasetView) -> dict[str, Any]:
    """Return a catalogue entry with its schema opened; scenario files may name a file of this."""
    entry = {name: getattr(view, name) for name in view.__slots__ if name != "schema_json"}
    return {**entry, "schema": json.loads(view.schema_json)}


@command(app, "draft")
def draft(
    session: Session,
    file: Annotated[Path, typer.Argument(help="Parquet or CSV.", exists=True, dir_okay=False)],
    to: NewFile,
    encoding: Annotated[str, typer.Option(help="Of CSV: utf-8 or gb18030.")] = "utf-8",
) -> Any:
    """Draft a schema.json from a table, with suggested grades and masks; the meanings are for you to write."""
    from sandbox.client import draft_schema

    text, found = draft_schema(file, encoding)
    with to.open("xb") as target:
        target.write(text)
    columns = [
        {"column": one.column, "looks_like": one.kind, "grade": one.grade, "masking": one.masking} for one in found
    ]
    return {"schema": to, "personal": columns}


@command(app, "register", needs=CLIENT)
def register(
    session: Session,
    file: Annotated[Path, typer.Argument(help="Parquet or CSV, or a folder of either.", exists=True)],
    schema: SchemaFile,
    name: Name,
    licence: Licence = "",
    retention_days: RetentionDays = 0,
    encoding: Annotated[str, typer.Option(help="Of CSV: utf-8 or gb18030.")] = "utf-8",
    department: Department = "",
    domain: Domain = "",
    keyword: Keywords = None,
    update_days: UpdateDays = 0,
    as_of: AsOf = "",
    visible_to: VisibleTo = None,
    grades_confirmed: GradesConfirmed = False,
    twin_epsilon: TwinEpsilon = 0.0,
) -> Any:
    """Upload one dataset version to your node, which checks and seals it."""
    terms = _terms(
        encoding, department, domain, keyword, update_days, as_of, visible_to, grades_confirmed, twin_epsilon
    )
    return _register(session, file, schema, name, licence, retention_days, terms)


@command(app, "import", needs=CLIENT)
def import_(
    session: Session,
    query: Annotated[str, typer.Argument(help="One SELECT.")],
    schema: SchemaFile,
    name: Name,
    database: Annotated[
        str,
        typer.Option(envvar="SANDBOX_SOURCE", help="postgresql://... ; better in the environment: it has a password."),
    ],
    licence: Licence = "",
    retention_days: RetentionDays = 0,
    department: Department = "",
    domain: Domain = "",
    keyword: Keywords = None,
    update_days: UpdateDays = 0,
    as_of: AsOf = "",
    visible_to: VisibleTo = None,
    grades_confirmed: GradesConfirmed = False,
    twin_epsilon: TwinEpsilon = 0.0,
) -> Any:
    """Register the rows of a query to a PostgreSQL database, read from this machine."""
    from sandbox.catalog.schema import read_schema
    from sandbox.client.postgres import export

    terms = _terms("utf-8", department, domain, keyword, update_days, as_of, visible_to, grades_confirmed, twin_epsilon)
    with tempfile.TemporaryDirectory(prefix="sbx-import-") as folder:
        file = export(database, query, read_schema(schema), Path(folder))
        return _register(session, file, schema, name, licence, retention_days, terms)


def _terms(
    encoding: str,
    department: str,
    domain: str,
    keywords: list[str] | None,
    update_days: int,
    as_of: str,
    visible_to: list[str] | None,
    grades_confirmed: bool,
    twin_epsilon: float,
) -> Any:
    from sandbox.client import Terms

    return Terms(
        encoding=encoding,
        department=department,
        domain=domain,
        keywords=tuple(keywords or ()),
        update_days=update_days,
        as_of=as_of,
        visible_to=tuple(visible_to or ()),
        grades_confirmed=grades_confirmed,
        twin_epsilon_milli=_milli(twin_epsilon) if twin_epsilon else 0,
    )


def _register(
    session: Session, file: Path, schema: Path, name: str, licence: str, retention_days: int, terms: Any
) -> dict[str, Any]:
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
            terms=terms,
        )
    return describe(view)


@command(app, "list", needs=CLIENT, columns=COLUMNS)
def show_all(session: Session, after: After = "", limit: Limit = 0) -> Any:
    """List the node's datasets, as far as you may see them."""
    with session.connect() as node:
        return [describe(view) for view in node.datasets(after, limit)]


@command(app, "search", needs=CLIENT, columns=COLUMNS)
def search(
    session: Session,
    words: Annotated[list[str] | None, typer.Argument(help="All must be found, in Chinese or English.")] = None,
    department: Annotated[str, typer.Option(help="Only this source department's.")] = "",
    domain: Annotated[str, typer.Option(help="Only of this domain.")] = "",
    after: After = "",
    limit: Limit = 0,
) -> Any:
    """Find datasets by words in their names, fields, meanings, departments, domains and keywords."""
    with session.connect() as node:
        found = node.search_datasets(" ".join(words or ()), department, domain, after, limit)
        return [describe(view) for view in found]


@command(app, "show", needs=CLIENT)
def show(session: Session, code: Code, version: Version) -> Any:
    """Show one catalogue entry; with --json, a file of it can stand in a scenario."""
    with session.connect() as node:
        return describe(node.dataset(code, version))


@command(app, "profile", needs=CLIENT)
def profile(
    session: Session,
    code: Code,
    version: Version,
    html: Annotated[Path | None, typer.Option(help="New file for the report as a page.")] = None,
    language: Annotated[Literal["en", "zh"], typer.Option(help="Of the page.")] = "zh",
) -> Any:
    """Show how complete, valid, varied and fresh a dataset is; shares are rounded, values are not shown."""
    with session.connect() as node:
        found, name = node.dataset_profile(code, version), node.dataset(code, version).name
    if html is not None:
        from sandbox.catalog.profile_page import page

        with html.open("x", encoding="utf-8") as file:
            file.write(page(found, name, language))
    return json.loads(found.to_json()) if session.as_json else {**_told(found), **({"page": html} if html else {})}


@command(app, "sample", needs=CLIENT)
def sample(session: Session, code: Code, version: Version) -> Any:
    """Show a few rows, masked by the rules of the schema; for the owner's people, and entered in the log."""
    with session.connect() as node:
        return node.sample_dataset(code, version).to_pylist()


@command(app, "twin", needs=CLIENT)
def twin(
    session: Session,
    code: Code,
    version: Version,
    epsilon: Annotated[
        float, typer.Option(help="Privacy budget to measure under, once a version; made anew: 0.", min=0)
    ] = 0.0,
    rows: Annotated[int, typer.Option(help="0: as many as the dataset has, at most 1000000.", min=0)] = 0,
    to: Annotated[Path | None, typer.Option(help="Save the twin here as Parquet instead of making it.")] = None,
) -> Any:
    """Make the synthetic twin of a version, or with --to download it."""
    with session.connect() as node:
        if to is not None:
            return {**describe(node.get_twin(code, version, to)), "file": to}
        return describe(node.make_twin(code, version, _milli(epsilon) if epsilon else 0, rows))


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


def _milli(epsilon: float) -> int:
    milli = round(epsilon * 1000)
    if milli < 1 or abs(milli - epsilon * 1000) > 1e-6:
        raise InvalidSpec(tell="a privacy budget is counted in thousandths, from 0.001")
    return milli


def _told(found: Any) -> dict[str, Any]:
    return {
        "rows": found.rows,
        "key": found.key,
        "as_of": found.as_of,
        "due": found.due,
        "columns": [f"{one.name}: {one.complete / 10:.1f} % complete" for one in found.columns if one.complete >= 0],
    }
