"""What every command shares: its options, how its answer is printed, and how it ends.

Shapes:    ``--home --key --node --lang --json`` may stand before the command or after it; the later one counts, then
           the environment: SANDBOX_HOME, SANDBOX_KEY, SANDBOX_NODE, SANDBOX_PASSPHRASE, LANG.
Errors:    the process ends with 0 if all went well, 1 after an error of ours (told on standard error; with ``--json``
           also as ``{"error": ...}``), 2 if the command line made no sense.
Security:  a passphrase comes from the environment or a hidden prompt, never from an option: those stand in the process
           list.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from sandbox.cli import screen
from sandbox.errors import InvalidSpec, SandboxError

if TYPE_CHECKING:  # both take a second to import; `sandbox --help` and completion must not wait for them
    from sandbox.client import Client
    from sandbox.home import Home

F = TypeVar("F", bound=Callable[..., Any])

PASSPHRASE = "SANDBOX_PASSPHRASE"  # noqa: S105 - the name of the variable
HOME_HELP = "A node's directory. (env: SANDBOX_HOME)"
KEY_HELP = "Your key folder. (env: SANDBOX_KEY)"
NODE_HELP = "The card file of the node to call. (env: SANDBOX_NODE)"
LANG_HELP = "Language of messages: en or zh. (default: by LANG) 消息语言。"
JSON_HELP = "Print exactly one JSON value."

OPTIONS: dict[str, Any] = {
    "home": Annotated[Path | None, typer.Option("--home", help=HOME_HELP, file_okay=False)],
    "key": Annotated[Path | None, typer.Option("--key", help=KEY_HELP, file_okay=False)],
    "node": Annotated[Path | None, typer.Option("--node", help=NODE_HELP, dir_okay=False)],
    "lang": Annotated[str, typer.Option("--lang", help=LANG_HELP)],
    "as_json": Annotated[bool, typer.Option("--json", help=JSON_HELP)],
}
CLIENT = ("key", "node")
HOME = ("home",)


@dataclass(frozen=True, slots=True)
class Session:
    """One run of one command."""

    home: Path | None
    key: Path | None
    node: Path | None
    lang: str
    as_json: bool

    def connect(self) -> Client:
        """Return a client of the chosen node with the chosen key; a context manager."""
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own lines about lost connections; ours follow
        from sandbox.client import Client

        key, node = self.need_key(), _given(self.node, "--node", "SANDBOX_NODE")
        return Client.connect(key, node, self.passphrase(key))

    @contextmanager
    def open_home(self) -> Iterator[Home]:
        """Open the chosen node's home; the node may be running or not."""
        from sandbox.cli.share import given_shares
        from sandbox.home import Home

        path = self.need_home()
        home = Home(path, self.passphrase(path / "keys"), given_shares)
        try:
            yield home
        finally:
            home.store.close()

    def need_key(self) -> Path:
        """Return the chosen key folder."""
        return _given(self.key, "--key", "SANDBOX_KEY")

    def need_home(self) -> Path:
        """Return the chosen node's directory."""
        return _given(self.home, "--home", "SANDBOX_HOME")

    def passphrase(self, folder: Path) -> bytes | None:
        """Return what opens the keys in ``folder``, asking if they are protected and a person is there."""
        given = os.environ.get(PASSPHRASE, "")
        identity = folder / "identity.pem"
        if given or not identity.is_file() or b"ENCRYPTED" not in identity.read_bytes().splitlines()[0]:
            return given.encode() or None
        if not sys.stdin.isatty():
            raise InvalidSpec(tell=f"the keys in {folder} are protected by a passphrase", hint=f"set {PASSPHRASE}")
        return str(typer.prompt("Passphrase", hide_input=True, err=True)).encode()

    def new_passphrase(self, encrypt: bool) -> bytes | None:
        """Return the passphrase for new keys: the environment's, or one asked for twice if ``encrypt``."""
        given = os.environ.get(PASSPHRASE, "")
        if given or not encrypt:
            return given.encode() or None
        if not sys.stdin.isatty():
            raise InvalidSpec(tell="there is no terminal to ask for a passphrase", hint=f"set {PASSPHRASE}")
        return str(typer.prompt("New passphrase", hide_input=True, confirmation_prompt=True, err=True)).encode()

    def confirm(self, question: str, agreed: bool, about: Callable[[], Any] | None = None) -> None:
        """Go on only if the user agrees, having seen what it is ``about``; programs say ``--yes``."""
        if agreed:
            return
        if self.as_json or not sys.stdin.isatty():
            raise InvalidSpec(tell="this needs a yes, and there is nobody to ask", hint="add --yes")
        if about is not None:
            screen.show(about(), (), self.lang)
        typer.confirm(question, abort=True, err=True)


@dataclass(frozen=True, slots=True)
class Failed:
    """An answer that is printed and still ends the command with 1; with ``error`` it says why."""

    value: Any
    error: SandboxError | None = None


def command(
    app: typer.Typer, name: str, *, needs: Sequence[str] = (), columns: Sequence[str] = (), always_json: bool = False
) -> Callable[[F], F]:
    """Make ``function(session, ...)`` a command: its answer is printed, its errors are told, its options completed.

    Args:
        app: the group it belongs to.
        name: what the user types.
        needs: which of the shared options it takes, ``CLIENT`` or ``HOME``; all take ``--lang`` and ``--json``.
        columns: which members a list shows to a person; JSON always holds all.
        always_json: the answer is for programs only.
    """

    def register(function: F) -> F:
        signature = inspect.signature(function, eval_str=True)
        shared = [*needs, "lang", "as_json"]
        own = list(signature.parameters.values())[1:]
        context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        options = [
            inspect.Parameter(
                option,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=OPTIONS[option],
                default={"lang": "", "as_json": False}.get(option),
            )
            for option in shared
        ]

        @functools.wraps(function)
        def run(**given: Any) -> None:
            session = _session(given.pop("ctx"), {option: given.pop(option) for option in shared}, always_json)
            _finish(session, functools.partial(function, session, **given), columns)

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[context, *parameters, *options], return_annotation=None
        )
        app.command(name)(run)
        return function

    return register


def choose_lang(asked: str) -> str:
    """Return ``en`` or ``zh``: as asked, else by the environment."""
    if asked not in ("", "en", "zh"):
        raise typer.BadParameter("en or zh", param_hint="--lang")
    variables = ("LC_ALL", "LC_MESSAGES", "LANG")
    locale = next((os.environ[name] for name in variables if os.environ.get(name)), "")
    return asked or ("zh" if locale.startswith("zh") else "en")


def _session(ctx: typer.Context, own: dict[str, Any], as_json: bool) -> Session:
    """Options after the command win over those before it."""
    merged = {**ctx.obj, **{name: value for name, value in own.items() if value}}
    merged["as_json"] |= as_json
    return Session(**(merged | {"lang": choose_lang(merged["lang"])}))


def _finish(session: Session, work: Callable[[], Any], columns: Sequence[str]) -> None:
    try:
        answer = work()
    except (SandboxError, OSError) as error:
        ours = error if isinstance(error, SandboxError) else _explain(error)
        if session.as_json:
            screen.show_json({"error": screen.failure(ours)})
        screen.show_error(ours, session.lang)
        raise typer.Exit(1) from None
    value = answer.value if isinstance(answer, Failed) else answer
    if session.as_json:
        screen.show_json(value)
    elif value is not None:
        screen.show(value, columns, session.lang)
    if isinstance(answer, Failed):
        if answer.error is not None:
            screen.show_error(answer.error, session.lang)
        raise typer.Exit(1)


def _explain(error: OSError) -> SandboxError:
    where = f"{error.filename}: " if error.filename else ""
    return InvalidSpec(tell=f"{where}{error.strerror or type(error).__name__}", hint="check the path and its rights")


def _given(value: Path | None, option: str, variable: str) -> Path:
    if value is None:
        raise typer.BadParameter(f"missing; give it or set {variable}", param_hint=option)
    return value
