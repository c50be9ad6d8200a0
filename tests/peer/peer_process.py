"""A node in a process of its own, to be killed: ``peer_process.py <folder with gov.card>``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from peer_nodes import JOB, Settings, start

from sandbox import signed, wire


async def main(folder: Path) -> None:
    node = await start("bank", Settings())
    gov = signed.open_peer_card(signed.read_signed((folder / "gov.card").read_bytes()))
    node.cards["gov"] = gov
    address = f"127.0.0.1:{node.port}"
    (folder / "bank.card").write_bytes(wire.encode(node.keys.card("bank", "bank", address)))
    print(node.port, flush=True)
    async with node.links.job(JOB, ["gov", "bank"], lambda: "align") as links:
        await links.send("gov", "ready", b"here")
        await links.broken


asyncio.run(main(Path(sys.argv[1])))
