"""A node whose operator took the gate out: it judges nothing, holds nothing, waits for nobody's leave, and asks for the
last share at once. Started like a node; it leaves the file ``got-share`` in its home if it ever gets one."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from sandbox import pipeline
from sandbox.cli import main
from sandbox.exchange import Wires
from sandbox.ledger import Ledger

HOME = Path(sys.argv[sys.argv.index("--home") + 1])
_take_share = Wires._take_share


async def judge(self: Ledger, job: Any, raw: Any) -> None:
    """Look away."""


async def grants(self: Wires, mine: Any, which: str) -> None:
    """Hand over the own leave, and do not wait for that of others."""
    if mine is not None:
        await asyncio.gather(*(self._exchange.links.grant(party, mine) for party in self._others))


async def take_share(self: Wires, sender: str) -> bytes:
    """Take the other side's share, and show that it came."""
    share = await _take_share(self, sender)
    (HOME / "got-share").write_bytes(b"")
    return share


Ledger.judge = judge  # type: ignore[assignment,method-assign]
Wires.grants = grants  # type: ignore[method-assign]
Wires._take_share = take_share  # type: ignore[method-assign]
pipeline.judge_sizes = lambda plan, rows: None
pipeline.is_reviewed = lambda plan: False

if __name__ == "__main__":
    main()
