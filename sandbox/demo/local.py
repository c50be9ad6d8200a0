"""Nodes on this machine, to try things with: made, introduced to each other, run until Ctrl-C or SIGTERM.

    python -m sandbox.demo.local FOLDER NODE="ORGANISATION" NODE="ORGANISATION" ...

What docs/by-hand.md does in its steps 1, 2 and 4, for any names. The folder then holds what commands need of a node:
its home (``--home FOLDER/NODE``), its card (``--node FOLDER/NODE.peer``), whose signatures prove its receipts
(``--trust FOLDER/NODE.trust``), and its log.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from sandbox.demo.nodes import LocalNodes


def main(arguments: list[str]) -> int:
    """Run nodes until told to stop."""
    parser = argparse.ArgumentParser(prog="sandbox.demo.local", description="nodes on this machine, to try things with")
    parser.add_argument("folder", type=Path, help="new folder for everything of theirs")
    parser.add_argument("nodes", nargs="+", metavar='NODE="ORGANISATION"', help="two or more")
    chosen = parser.parse_args(arguments)
    organisations = dict(pair.partition("=")[::2] for pair in chosen.nodes)
    if len(organisations) != len(chosen.nodes) or len(organisations) < 2 or not all(organisations.values()):
        parser.error("name at least two nodes, each once, as NODE=ORGANISATION")
    if chosen.folder.exists():
        parser.error(f"{chosen.folder} is there already; name a new folder")
    chosen.folder.mkdir(mode=0o700, parents=True)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with LocalNodes(chosen.folder, {name: {"ray_start": "eager"} for name in organisations}, organisations) as nodes:
        for name, card in nodes.cards.items():
            print(f"{name:12} {card.address:22} {card.organisation}")
        print(f"ready: {chosen.folder}", flush=True)
        stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
