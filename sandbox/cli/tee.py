"""``sandbox tee``: quotes, and what this machine can confine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandbox import signed
from sandbox.cli.card import read_card, write_new
from sandbox.cli.session import CLIENT, Failed, Session, command
from sandbox.cli.values import read_digest
from sandbox.errors import Unavailable
from sandbox.keyring import public_key
from sandbox.model import PeerCard

if TYPE_CHECKING:
    from sandbox.tee_sim.attest import Quote

app = typer.Typer(name="tee", help="Quotes and the jail. 可信执行（模拟）：度量报告与隔离级别。", no_args_is_help=True)

WARNING = (
    "SIMULATED: no trusted hardware stands behind this; whoever controls the node's machine could have signed anything"
)
WARNING_ZH = "SIMULATED（模拟）：背后没有可信硬件；控制该节点机器的人可以签署任何内容"


@command(app, "quote", needs=CLIENT)
def quote(
    session: Session,
    out: Annotated[Path, typer.Argument(help="New file for the quote.")],
    bundle: Annotated[str, typer.Option(help="Measurement of a bundle at the node; else of its runtime alone.")] = "",
    nonce: Annotated[str, typer.Option(help="64 hexadecimal digits that it has to answer. (default: fresh)")] = "",
) -> Any:
    """Have a node prove what would run a bundle there; the quote is checked against the node's card, and kept."""
    wanted = _read_digits(bundle, "--bundle")
    with session.connect() as node:
        found = node.quote(wanted, _read_digits(nonce, "--nonce"))
        write_new(out, found.text)
        return {"file": out, **_tell(found.quote, node.node), "bundle_checked": bool(wanted), "nonce_checked": True}


@command(app, "verify")
def verify(
    session: Session,
    quote: Annotated[Path, typer.Argument(help="The quote.", exists=True, dir_okay=False)],
    peer: Annotated[Path, typer.Option(help="Card of the node it comes from.", exists=True, dir_okay=False)],
    bundle: Annotated[
        Path | None, typer.Option(help="It must be about this bundle.", exists=True, dir_okay=False)
    ] = None,
    nonce: Annotated[str, typer.Option(help="It must answer this nonce: 64 hexadecimal digits.")] = "",
    max_age_s: Annotated[int, typer.Option(help="It must not be older; 0: any age.", min=0)] = 0,
) -> Any:
    """Check a quote offline: signatures up to the node's card, and what you expect of it."""
    from sandbox.tee_sim import attest
    from sandbox.tee_sim.bundle import measure

    answered = _read_digits(nonce, "--nonce")
    card = signed.open_peer_card(read_card(peer))
    expect = attest.Expectation(
        nonce=answered or None,
        bundle=measure(bundle.read_bytes()) if bundle else None,
        max_age_ms=1000 * max_age_s or None,
    )
    found = attest.verify(quote.read_bytes(), public_key(card), expect)
    return {**_tell(found, card), "bundle_checked": bundle is not None, "nonce_checked": bool(nonce)}


@command(app, "doctor", columns=("name", "ok", "detail", "fix"))
def doctor(session: Session) -> Any:
    """Say at which levels this machine confines code, what the others lack, and the measurement of the runtime."""
    from sandbox.tee_sim import attest
    from sandbox.tee_sim.levels import Level
    from sandbox.tee_sim.manifest import LIBRARIES

    levels = [_probe(level) for level in Level]
    runtime = attest.describe_runtime()
    absent = [library for library in LIBRARIES if runtime[library] == "absent"]
    others = [
        _line("libraries", not absent, f"missing: {', '.join(absent)}" if absent else "all there", "install them"),
        _line("runtime", True, attest.measure_runtime().hex()),
        _line("vendor", True, attest.SIMULATED),
    ]
    return [*levels, *others] if any(one["ok"] for one in levels) else Failed([*levels, *others])


def _tell(found: Quote, card: PeerCard) -> dict[str, Any]:
    """Return what a quote says that was verified against a node's card."""
    return {
        "vendor": found.vendor,
        "warning": WARNING,
        "warning_zh": WARNING_ZH,
        "verified": True,
        "node_id": card.node_id,
        "organisation": card.organisation,
        "level": found.level,
        "runtime": found.runtime,
        "bundle": found.bundle,
        "nonce": found.nonce,
        "issued_ms": found.issued_ms,
        "key_id": found.key.key_id,
    }


def _read_digits(text: str, option: str) -> bytes:
    return read_digest(text, option) if text else b""


def _probe(level: Any) -> dict[str, Any]:
    from sandbox.tee_sim.probes import check

    try:
        check(level)
    except Unavailable as error:
        return _line(f"level {level}", False, error.tell, error.hint)
    return _line(f"level {level}", True, "holds")


def _line(name: str, ok: bool, detail: str, fix: str = "") -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": detail, "fix": "" if ok else fix}
