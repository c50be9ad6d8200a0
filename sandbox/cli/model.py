"""``sandbox model``: a merchant's own model, packed, looked at, tried on its own machine, and handed in."""

from __future__ import annotations

import json
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandbox import signed, wire
from sandbox.cli import screen
from sandbox.cli.card import write_new
from sandbox.cli.session import CLIENT, Failed, Session, command
from sandbox.cli.values import read_digest
from sandbox.errors import InvalidSpec, SandboxError

if TYPE_CHECKING:
    import pyarrow as pa

    from sandbox.tee_sim.bundle import Bundle
    from sandbox.tee_sim.enclave import Ran
    from sandbox.tee_sim.manifest import Column

app = typer.Typer(name="model", help="Models of your own. 自带模型：打包、查看、试运行。", no_args_is_help=True)

ROOT_SEES = (
    "SIMULATED: no trusted hardware stands behind the enclave; the root of the node's machine can read the bundle"
)
ROOT_SEES_ZH = "SIMULATED（模拟）：可信环境背后没有可信硬件；该节点机器的管理员可以读取模型包"

Directory = Annotated[Path, typer.Argument(help="Directory with a bundle.toml.", exists=True, file_okay=False)]


@command(app, "pack", needs=("key",))
def pack(
    session: Session,
    directory: Directory,
    out: Annotated[Path | None, typer.Option(help="New file for the bundle. (default: its name and .bundle)")] = None,
    sign: Annotated[bool, typer.Option("--sign", help="Also sign it with --key, into a file ending in .sig.")] = False,
) -> Any:
    """Pack a directory into one file and measure it. The same contents give the same measurement on any machine."""
    from sandbox.crypto.sm2 import PrivateKey
    from sandbox.kinds.model import check_manifest
    from sandbox.tee_sim.bundle import pack as make
    from sandbox.tee_sim.bundle import parse, sign_bundle

    archive = make(directory)
    packed = parse(archive)
    check_manifest(packed.manifest)
    key = session.need_key() if sign else None
    target = out or Path(f"{packed.manifest.name}.bundle")
    found = {"file": target, "bytes": len(archive), **_describe(session, packed)}
    if key is None:
        write_new(target, archive)
        return found
    identity = PrivateKey.from_pem((key / "identity.pem").read_bytes(), session.passphrase(key))
    statement = sign_bundle(identity, archive, signed.now_ms())
    signature = target.with_name(target.name + ".sig")
    write_new(target, archive)
    write_new(signature, wire.encode(statement))
    return {**found, "signature": signature}


@command(app, "show")
def show(
    session: Session, bundle: Annotated[Path, typer.Argument(help="The bundle.", exists=True, dir_okay=False)]
) -> Any:
    """Show a bundle's measurement, what it reads, every column it may give out, and its files."""
    from sandbox.tee_sim.bundle import parse

    found = parse(bundle.read_bytes())
    files = [{"name": name, "bytes": len(content)} for name, content in found.files.items()]
    return {**_describe(session, found), "files": files}


@command(app, "upload", needs=CLIENT)
def upload(
    session: Session,
    bundle: Annotated[Path, typer.Argument(help="The bundle.", exists=True, dir_okay=False)],
    seal: Annotated[bool, typer.Option("--seal", help="Seal it to a quote of the node's enclave (SIMULATED).")] = False,
    runtime: Annotated[
        str, typer.Option(help="With --seal: only if the quote is of this runtime; 64 hexadecimal digits.")
    ] = "",
) -> Any:
    """Hand a bundle in at a data owner's node, with your signature that it is yours; scenarios name its measurement."""
    from sandbox.tee_sim.attest import SIMULATED, Expectation

    if runtime and not seal:
        raise typer.BadParameter("it is what --seal expects; give both", param_hint="--runtime")
    expect = Expectation(runtimes={read_digest(runtime, "--runtime")} if runtime else None)
    with session.connect() as node:
        view = node.put_bundle(bundle, seal=seal, expect=expect)
    told = {"sealed": SIMULATED, "warning": ROOT_SEES, "warning_zh": ROOT_SEES_ZH} if seal else {}
    return {**screen.plain(view), **told}


@command(app, "withdraw", needs=CLIENT)
def withdraw(
    session: Session,
    measurement: Annotated[str, typer.Argument(help="The bundle's measurement: 64 hexadecimal digits.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> Any:
    """Take a bundle back: the node destroys its key and file, and refuses jobs that name it; its log keeps the name."""
    wanted = read_digest(measurement, "MEASUREMENT")
    session.confirm("Withdraw it? Jobs that name this bundle are refused from then on.", yes)
    with session.connect() as node:
        return node.withdraw_bundle(wanted)


@command(
    app, "list", needs=CLIENT, columns=("measurement", "name", "form", "merchant", "size", "created_ms", "withdrawn_ms")
)
def show_all(
    session: Session,
    after: Annotated[str, typer.Option(help="The last measurement of the page before.")] = "",
    limit: Annotated[int, typer.Option(help="Entries on a page; 0: as many as the node likes.", min=0, max=100)] = 0,
) -> Any:
    """List the bundles at a node: your own, or all if you look after its data."""
    with session.connect() as node:
        return node.bundles(after, limit)


@command(app, "try")
def attempt(
    session: Session,
    directory: Directory,
    table: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="Parquet of an input; repeatable.")
    ] = None,
    params: Annotated[str, typer.Option(help="Parameters, as a JSON object.")] = "{}",
    out: Annotated[Path | None, typer.Option(help="New directory for the results, as Parquet.")] = None,
) -> Any:
    """Run a model in the jail of this machine, as a node would, and show what it printed and what came out."""
    from sandbox.crypto.sm2 import PrivateKey
    from sandbox.tee_sim.attest import SIMULATED, SimulatedAttester
    from sandbox.tee_sim.bundle import pack as make
    from sandbox.tee_sim.enclave import Enclave
    from sandbox.tee_sim.levels import Limits, told_by
    from sandbox.tee_sim.pool import Pool
    from sandbox.tee_sim.probes import strongest

    inputs = {name: _read_table(path) for name, path in _named(table or []).items()}
    values = _read_params(params)
    archive, level, limits = make(directory), strongest(), Limits()
    identity, key = PrivateKey.generate(), PrivateKey.generate()  # of nobody: nothing here is attested to anybody
    attester = SimulatedAttester(key, signed.certify(identity, "attestation", key.public), level)
    with tempfile.TemporaryDirectory(prefix="sandbox-try-") as name:
        scratch = Path(name)
        scratch.chmod(0o711)  # the jail's own user passes through to its folder, and sees nothing
        enclave = Enclave(attester, Pool(0, level, limits, scratch=scratch / "jails"), scratch, limits)
        enclave.load(archive)
        try:
            ran = enclave.run(inputs, (), values, threading.Event(), rows_allowed=True)
        except SandboxError as error:
            told = {"vendor": SIMULATED, "level": level, "log": _text(told_by(error))}
            return Failed({**told, "error": screen.failure(error)} if session.as_json else told, error)
    if out is not None:
        _write_tables(out, ran)
    return {
        "vendor": SIMULATED,
        "level": level,
        "seconds": round(ran.seconds, 3),
        "peak_mib": ran.peak_mib,
        "log": _text(ran.log),
        "outputs": [
            {"name": name, "rows": found.num_rows, "columns": found.column_names} for name, found in ran.tables.items()
        ],
    }


def _describe(session: Session, bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    outputs = [
        {
            "name": name,
            "class": output.class_.value,
            "rows": output.rows,
            "of": output.of,
            "key": output.key,
            "columns": output.columns if session.as_json else [_spell(column) for column in output.columns],
        }
        for name, output in manifest.outputs.items()
    ]
    return {
        "name": manifest.name,
        "form": manifest.form.value,
        "entry": manifest.entry,
        "measurement": bundle.measurement,
        "libraries": manifest.libraries,
        "inputs": manifest.inputs,
        "parameters": {name: kind.value for name, kind in manifest.params_schema.items()},
        "outputs": outputs,
    }


def _spell(column: Column) -> str:
    """Return an output column in few words."""
    words = [column.name, column.type.value]
    words += [f"of {column.places} places"] if column.type == "number" else []
    words += [f"from {column.low}"] if column.low is not None else []
    words += [f"to {column.high}"] if column.high is not None else []
    words += [f"({' | '.join(column.values)})"] if column.values else []
    return " ".join([*words, "or missing"] if column.optional else words)


def _named(given: list[str]) -> dict[str, Path]:
    tables: dict[str, Path] = {}
    for item in given:
        name, equals, path = item.partition("=")
        if not equals or not path or name in tables:
            raise typer.BadParameter(f"{name!r}: give each table once, as NAME=FILE", param_hint="--table")
        tables[name] = Path(path)
    return tables


def _read_table(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except pa.ArrowException:
        raise InvalidSpec(tell=f"{path} is not a Parquet file") from None


def _read_params(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise typer.BadParameter("not a JSON object", param_hint="--params")
    return values


def _write_tables(out: Path, ran: Ran) -> None:
    import pyarrow.parquet as pq

    out.mkdir(parents=True)
    for name, table in ran.tables.items():
        pq.write_table(table, out / f"{name}.parquet")


def _text(log: bytes) -> str:
    return log.decode("utf-8", errors="replace")
