"""The root of the command: shared options, and which groups there are.

Not here:  what a command does (one module a noun), how answers look (``screen``), how commands end (``session``).
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from sandbox.cli import audit, consent, dataset, demo, job, key, model, node, peer, request, review, scenario, tee
from sandbox.cli.session import HOME_HELP, JSON_HELP, KEY_HELP, LANG_HELP, NODE_HELP

app = typer.Typer(
    name="sandbox",
    help="Compute on data that stays where it is; get checked results with a verifiable receipt. 数据沙箱命令行。",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a trace with local variables could show keys
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def read_options(
    ctx: typer.Context,
    home: Annotated[Path | None, typer.Option(envvar="SANDBOX_HOME", show_envvar=False, help=HOME_HELP)] = None,
    key: Annotated[Path | None, typer.Option(envvar="SANDBOX_KEY", show_envvar=False, help=KEY_HELP)] = None,
    node: Annotated[Path | None, typer.Option(envvar="SANDBOX_NODE", show_envvar=False, help=NODE_HELP)] = None,
    lang: Annotated[str, typer.Option(help=LANG_HELP)] = "",
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Keep the options that stand before the command."""
    ctx.obj = {"home": home, "key": key, "node": node, "lang": lang, "as_json": as_json}


node.add_to(app)
demo.add_to(app)
for group in (peer, key, dataset, model, scenario, job, review, consent, tee, audit, request):
    app.add_typer(group.app)


def main() -> None:
    """Run the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without Chinese still gets its message
    app()
