"""Intersections by other libraries, one run at a time: started as a command, ended if it hangs, counted, checked.

    peer = Peers(folder)                       folder: for inputs that several runs share
    found = peer.run("spu", 100_000)           seconds, cpu_s, peak_mib; None where the peer cannot be installed

    spu             RR22, ``bench/psi_bare.py``: bare processes, in this environment
    spu-sm2         the same library's ECDH on the SM2 curve, ``bench/peers/spu_ecdh.py``, in release 0.9.5, which has
                    an environment of its own: later ones hang on this curve, as its way to hash to it was withdrawn
    spu-25519       the same on Curve25519, in the release at hand
    openmined-psi   ``bench/peers/openmined.py``, in an environment of its own, made on demand

Both sides of a peer share this machine's cores, as our two nodes do.
The ``spu`` library hangs in its first exchange now and then where there is no barrier, and the bare script has none:
a run that does nothing for ``IDLE_S`` is ended, counted, and made again. It does not count in the peer's time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.memory import cpu_seconds

HERE: Final = Path(__file__).parent
TRIES: Final = 3
START_S: Final = 600.0
LOOK_S: Final = 2.0
IDLE_S: Final = 40.0  # without a tenth of a second of CPU time


@dataclass(frozen=True, slots=True)
class Peer:
    """How a peer is started, and how long it may take."""

    title: str
    line: tuple[str, ...]
    seconds_a_row: float  # beside ``START_S``; several times what a run takes on a quiet machine
    environment: str = ""  # under bench/peers; empty: the bench's own
    reads: bool = True  # takes its inputs from files
    once: bool = False  # takes so long that one run serves all cases of an invocation


_ECDH: Final = ("-m", "bench.peers.spu_ecdh")
PEERS: Final = {
    "spu": Peer("spu RR22, bare script", (sys.executable, str(HERE / "psi_bare.py")), 3e-5),
    "spu-sm2": Peer("spu 0.9.5 ECDH on SM2, bare script", (*_ECDH, "CURVE_SM2"), 1e-2, "spu", once=True),
    "spu-25519": Peer("spu ECDH on Curve25519, bare script", (sys.executable, *_ECDH, "CURVE_25519"), 1e-4),
    "openmined-psi": Peer(
        "openmined-psi 2.0.6", ("-I", str(HERE / "peers" / "openmined.py")), 1e-3, "openmined", reads=False
    ),
}


class Peers:
    """Runs peers, and remembers which runs hung."""

    def __init__(self, inputs: Path) -> None:
        self.hung: Counter[str] = Counter()
        self._inputs = inputs
        self._known: dict[tuple[str, int], dict[str, float]] = {}

    def run(self, name: str, rows: int) -> dict[str, float] | None:
        """Intersect ``rows`` ids a side once; None if the peer cannot be had.

        Raises:
            SystemExit: it failed, found other rows than there are, or hung every time.
        """
        peer = PEERS[name]
        if (name, rows) in self._known:
            return self._known[name, rows]
        line = [*peer.line, "--rows", str(rows)]
        if peer.environment:
            python = environment(peer.environment)
            if python is None:
                return None
            line = [str(python), *line]
        if peer.reads:
            folder = self._inputs / str(rows)
            folder.mkdir(exist_ok=True, parents=True)
            line += ["--inputs", str(folder)]
        for _ in range(TRIES):
            text = _ended(line, START_S + peer.seconds_a_row * rows)
            if text is not None:
                found: dict[str, Any] = json.loads(text.splitlines()[-1])
                if found["common"] != rows // 2:
                    raise SystemExit(f"{name} lost or invented rows: {found['common']} of {rows // 2}")
                if peer.once:
                    self._known[name, rows] = found
                return found
            self.hung[name] += 1
        raise SystemExit(f"{name} hung {TRIES} times")


def environment(name: str) -> Path | None:
    """Return the Python of a peer's own environment, made if need be; None, with a word on it, if it cannot be made."""
    place, needs = HERE / "peers" / f".venv-{name}", HERE / "peers" / f"{name}.txt"
    python, done = place / "bin" / "python", place / needs.name
    if done.exists() and done.read_bytes() == needs.read_bytes():
        return python
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True, capture_output=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q", "-r", str(needs)]
        subprocess.run(pip, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{name} is left out, since it cannot be installed: {error}", file=sys.stderr, flush=True)
        return None
    done.write_bytes(needs.read_bytes())
    return python


def _ended(line: list[str], seconds: float) -> str | None:
    """Run a command and return what it printed; None if it hung: did nothing at all for a while, or took too long."""
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=HERE.parent)
    end, used, busy = time.monotonic() + seconds, 0.0, time.monotonic()
    while True:
        try:
            out, _ = process.communicate(timeout=LOOK_S)
            break
        except subprocess.TimeoutExpired:
            now, total = time.monotonic(), cpu_seconds(process.pid)
            if total > used + 0.1:
                used, busy = total, now
            if now > end or now > busy + IDLE_S:
                os.killpg(process.pid, signal.SIGKILL)  # a group of its own, with both sides in it
                process.communicate()
                return None
    if process.returncode:
        raise SystemExit(f"{' '.join(line[-5:])} ended with {process.returncode}")
    return out
