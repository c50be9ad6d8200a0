"""``sandbox doctor``: is this node fit to work, and if not, what is to be done?"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox import registry, signed
from sandbox.crypto import modexp, sm2curve, sm4
from sandbox.engines import available
from sandbox.errors import SandboxError, Unavailable
from sandbox.home import Home
from sandbox.kinds import confined
from sandbox.model import PeerCard, PingQuery, SealMode
from sandbox.peer.links import Links
from sandbox.tee_sim import probes
from sandbox.tee_sim.levels import Level

SKEW_MS = 60_000
_PING = "/sandbox.v1.PeerService/Ping"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    fix: str


def doctor(path: Path, passphrase: bytes | None = None) -> list[Check]:
    """Look at everything a node needs; never raises for what it finds."""
    try:
        home = Home(path, passphrase)
        home.keys.identity.public.to_bytes()
    except SandboxError as error:
        return [Check("keys", False, error.tell, error.hint)]
    checks = [Check("keys", True, f"identity {home.keys.identity.public.key_id}", "")]
    checks.append(_permissions(path))
    checks.append(_log(home))
    checks.append(_port(home))
    checks.extend(_engines())
    checks.append(_ray(home))
    checks.append(_sealing())
    checks.append(_jail())
    checks.append(_witness(home))
    checks.extend(asyncio.run(_peers(home)))
    home.store.close()
    return checks


def _permissions(path: Path) -> Check:
    wrong = [str(p.name) for p in (path / "keys").iterdir() if p.stat().st_mode & 0o077]
    fix = f"chmod 600 {path / 'keys'}/*"
    return Check(
        "key files", not wrong, f"readable by others: {', '.join(wrong)}" if wrong else "private", fix if wrong else ""
    )


def _log(home: Home) -> Check:
    try:
        return Check("audit log", True, f"{home.fsck()} entries verify", "")
    except SandboxError as error:
        return Check("audit log", False, str(error), error.hint)


def _port(home: Home) -> Check:
    host, _, port = home.settings.listen.rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(2.0)
        up = probe.connect_ex((host or "127.0.0.1", int(port))) == 0
    fix = "" if up else f"start it: sandbox --home {home.path} serve"
    return Check("port", up, f"{home.settings.listen} {'answers' if up else 'does not answer'}", fix)


def _engines() -> list[Check]:
    curve = f"ready, back end {sm2curve.BACKEND}: {sm2curve.WHY}"
    detail = {name: curve for name in ("ecdh-sm2", "prepared-sm2", "count-sm2", "loads-sm2")}
    detail["paillier"] = f"ready, back end {modexp.BACKEND}: {modexp.WHY}"
    found = available()
    return [
        Check(
            f"engine {name}",
            not found[name],
            found[name] or detail.get(name, "ready"),
            "pip install 'data-sandbox[fast]'" if found[name] else "",
        )
        for name in found.known
    ]


def _sealing() -> Check:
    return Check("sealing", True, f"SM4 back end {sm4.BACKEND}: {sm4.WHY}", "")


def _jail() -> Check:
    """Say how strongly this node confines code, having tried; without, everything else works."""
    try:
        level = probes.strongest()
    except Unavailable as error:
        return Check("jail", False, f"no queries and no models here: {error.tell}", error.hint)
    weaker = "" if level is Level.CONFINED else "; a scenario has to accept that"
    return Check("jail", True, f"{confined.isolation(level)}{weaker}", "")


def _ray(home: Home) -> Check:
    try:
        import ray
    except ImportError as error:
        return Check("ray", False, str(error), "pip install data-sandbox")
    where = home.settings.ray_address or "embedded, on loopback, started with the first job"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") >> 20
    ok = memory >= 800
    return Check(
        "ray", ok, f"{ray.__version__}, {where}; {memory} MiB free", "" if ok else "free at least 800 MiB of memory"
    )


def _witness(home: Home) -> Check:
    name = home.settings.witness
    pinned = name in {card.node_id for card in home.peers()}
    fix = "" if pinned else 'name a pinned peer in sandbox.toml: witness = "..."'
    return Check("witness", pinned, name or "none: no result of this node can have a receipt", fix)


async def _peers(home: Home) -> list[Check]:
    def card(node_id: str) -> PeerCard:
        with home.store.read() as conn:
            return registry.peer(conn, node_id)

    links = Links(home.settings.node_id, home.keys, card, lambda peer: SealMode[home.settings.seal_for(peer).upper()])
    try:
        found = [check for peer in home.peers() for check in await _peer(links, peer)]
    finally:
        await links.close()
    return found or [Check("peers", False, "none pinned", "exchange cards: sandbox peer export, sandbox peer add")]


async def _peer(links: Links, card: PeerCard) -> list[Check]:
    name = f"peer {card.node_id}"
    there = await _attempt(lambda: links.check(card.node_id))
    if there is not None:
        return [Check(name, False, f"{card.address}: {there.tell}", there.hint)]
    reply: Any = None

    async def ping() -> None:
        nonlocal reply
        reply = await links.call(card.node_id, _PING, PingQuery(True))

    before = signed.now_ms()
    error = await _attempt(ping)
    if error is not None:
        return [Check(name, False, f"{card.address} answers, but: {error.tell}", error.hint)]
    skew = reply.time_ms - (before + signed.now_ms()) // 2
    return [
        Check(name, True, f"{card.address} answers", ""),
        Check(
            f"clock of {card.node_id}",
            abs(skew) < SKEW_MS,
            f"{skew / 1000:+.1f} s",
            "set both clocks (NTP)" if abs(skew) >= SKEW_MS else "",
        ),
        Check(
            f"way back from {card.node_id}",
            not reply.problem,
            reply.problem or "reaches this node",
            "check this node's address in its card and the firewall" if reply.problem else "",
        ),
    ]


async def _attempt(action: Callable[[], Awaitable[None]]) -> SandboxError | None:
    try:
        await action()
    except SandboxError as error:
        return error
    return None
