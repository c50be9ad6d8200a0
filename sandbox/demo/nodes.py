"""Nodes on loopback, each a process of its own with its own directory, keys and log; for the demo, the examples, the
tests and the benches.

with LocalNodes(folder) as nodes:      operator, bank, witness: made, introduced to each other, started, waited for
    nodes.person("officer", "bank", ["submitter"])
    with nodes.client("officer", "bank") as bank: ...

Each node's log is co-signed by the next one's, that of the last by the first, unless ``witnesses`` says otherwise.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from sandbox import keyring, wire
from sandbox.client import Client
from sandbox.errors import Unavailable
from sandbox.home import Home, init
from sandbox.model import PeerCard, Signed
from sandbox.settings import FILE

ORGANISATIONS = {
    "operator": "Example Public Data Operator",
    "bank": "Example Bank",
    "witness": "Example Data Regulator",
}
WITNESSES = {"operator": "witness", "bank": "witness", "witness": "operator"}
STOP_S = 20.0
PORTS = range(20_000, 32_000)


UNTRIED: dict[str, Any] = {"test_before_production": False}  # what is shown here is shown at once


class LocalNodes:
    """Two nodes or more; entering starts them, leaving stops them."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        organisations: Mapping[str, str] | None = None,
        witnesses: Mapping[str, str] | None = None,
    ) -> None:
        """Args:
        folder: where everything of theirs lies; must not hold nodes yet.
        settings: more lines for a node's sandbox.toml; nodes made here admit what was not run on twins first.
        organisations: node id -> organisation; by default operator, bank and witness.
        witnesses: node id -> whose node co-signs its log; by default the next one's.
        """
        self.folder = folder
        self.organisations = dict(organisations or ORGANISATIONS)
        self.cards: dict[str, PeerCard] = {}
        self._settings = settings or {}
        names = list(self.organisations)
        ring = dict(zip(names, names[1:] + names[:1], strict=True))
        self._witnesses = witnesses or (ring if organisations else WITNESSES)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> LocalNodes:
        try:
            self.make()
            for name in self.organisations:
                self.start(name)
            for name in self.organisations:
                self.wait(name)
        except BaseException:
            self.stop_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_all()

    def home(self, name: str) -> Path:
        """Return a node's directory."""
        return self.folder / name

    def make(self) -> None:
        """Make the homes and have every node pin all others."""
        ports = free_ports(len(self.organisations))
        for (name, organisation), port in zip(self.organisations.items(), ports, strict=True):
            self.cards[name] = init(
                self.home(name),
                node_id=name,
                organisation=organisation,
                listen=f"127.0.0.1:{port}",
                witness=self._witnesses[name],
            )
            with (self.home(name) / FILE).open("a") as file:
                for key, value in (UNTRIED | dict(self._settings.get(name, {}))).items():
                    file.write(f"{key} = {_toml(value)}\n")
        for name in self.organisations:
            home = Home(self.home(name))
            (self.folder / f"{name}.peer").write_bytes(wire.encode(home.card()))
            home.store.close()
        for name in self.organisations:
            home = Home(self.home(name))
            for other in self.organisations:
                if other != name:
                    card = (self.folder / f"{other}.peer").read_bytes()
                    home.add_peer(wire.decode(Signed, card))
            (self.folder / f"{name}.trust").write_text(home.trust())
            home.store.close()

    def person(self, name: str, node: str, roles: Sequence[str]) -> keyring.Person:
        """Make a person's keys and register them at a node."""
        made = keyring.create_person(self.folder / name, name, self.organisations[node])
        home = Home(self.home(node))
        home.register_key(made.card, roles)
        home.store.close()
        return made

    def client(self, person: str, node: str) -> Client:
        """Return a client of a node."""
        return Client.connect(self.folder / person, self.cards[node])

    def start(self, name: str) -> None:
        """Start a node; its log goes to <folder>/<name>.log."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "sandbox", "--home", str(self.home(name)), "serve"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def wait(self, name: str, timeout_s: float = 60.0) -> None:
        """Wait until a node answers."""
        host, _, port = self.cards[name].address.rpartition(":")
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if self.processes[name].poll() is not None:
                break
            with socket.socket() as probe:
                if probe.connect_ex((host, int(port))) == 0:
                    return
            time.sleep(0.05)
        log = (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]
        raise Unavailable(log, tell=f"node {name} did not start; see {self.folder / name}.log")

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        """Stop one node; whatever is left of its process group is killed."""
        process = self.processes.pop(name, None)
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop_all(self) -> None:
        """Stop what runs, all at once."""
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for name in tuple(self.processes):
            self.stop(name)


def free_ports(count: int) -> list[int]:
    """Return ports on loopback that nobody listens on.

    They are below those that the system gives to outgoing connections, which could take them before a node does.
    """
    probes: dict[int, socket.socket] = {}
    try:
        while len(probes) < count:
            port, probe = PORTS.start + secrets.randbelow(len(PORTS)), socket.socket()
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                probe.close()
            else:
                probes[port] = probe
        return list(probes)
    finally:
        for probe in probes.values():
            probe.close()


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else '"' + str(value) + '"'
