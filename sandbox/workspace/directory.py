"""A workspace: the private directory of one job's engine, gone afterwards whatever happened.

    <parent>/w-XXXXXXXX/        mode 0700; TMPDIR and working directory of the engine
        self.sock               where this party's engine listens
        peer-<name>.sock        where it reaches party <name>; something else carries the bytes

Security: the files inside may hold ids and columns in the clear, so the directory is removed on every way out:
          on leaving the ``with`` block, and by the guard process if this process is killed.
Errors:   ``Unavailable`` if the path is too long for a socket, ``JobFailed`` if the directory cannot be made or
          cannot be removed.
Not here: who connects the sockets, what runs inside.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from sandbox.errors import InvalidSpec, JobFailed, WrongState
from sandbox.workspace import guard
from sandbox.workspace.channel import check_socket_path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_GUARD_EXIT_S = 5.0


class Workspace:
    """A private directory with one socket for this party and one for each of ``peers``."""

    def __init__(self, parent: Path, peers: Sequence[str] = ()) -> None:
        """Args:
        parent: an existing directory of this node; not shared with other users.
        peers: names of the other parties, as used in the socket names.
        """
        for name in peers:
            if not _NAME.fullmatch(name):
                raise InvalidSpec("a party name does not fit into a socket name")
        self._parent, self.peers = parent.resolve(), tuple(peers)
        self._path: Path | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._since = 0.0
        self.token = secrets.token_hex(16)

    @property
    def path(self) -> Path:
        """The directory; only inside the ``with`` block."""
        if self._path is None:
            raise WrongState("the workspace is not open")
        return self._path

    @property
    def own_socket(self) -> Path:
        """Where this party's engine listens."""
        return self.path / "self.sock"

    def peer_socket(self, name: str) -> Path:
        """Where this party's engine reaches party ``name``."""
        if name not in self.peers:
            raise InvalidSpec("no such party in this workspace")
        return self.path / f"peer-{name}.sock"

    def __enter__(self) -> Workspace:
        self._since = time.time() - 1.0
        try:
            self._path = Path(tempfile.mkdtemp(prefix="w-", dir=self._parent))
        except OSError as error:
            raise JobFailed("the workspace could not be made", stage="workspace") from error
        try:
            for path in (self.own_socket, *map(self.peer_socket, self.peers)):
                check_socket_path(path)
            self._guard = _start_guard(self._path, self.token, self._since)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def began(self, group: int) -> None:
        """Tell the guard that the process group ``group`` runs in here."""
        self._tell(f"+{group}\n")

    def ended(self, group: int) -> None:
        """Tell the guard that the process group ``group`` is gone."""
        self._tell(f"-{group}\n")
        guard.sweep_traces(self.token, self._since)

    def _tell(self, line: str) -> None:
        if self._guard is None or self._guard.stdin is None:
            raise WrongState("the workspace is not open")
        # A guard that was itself killed must not fail the job: the engine still dies with us (PR_SET_PDEATHSIG).
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.write(line.encode("ascii"))
            self._guard.stdin.flush()

    def _close(self) -> None:
        path, watcher = self._path, self._guard
        if path is None:
            return
        failures: list[str] = []
        for _ in range(3):  # an engine's helper may still have been writing when it was killed
            failures.clear()
            shutil.rmtree(path, onerror=lambda *problem: failures.append(type(problem[2][1]).__name__))
            if not os.path.lexists(path):
                break
            time.sleep(0.05)
        guard.sweep_traces(self.token, self._since)
        if watcher is not None:
            self._tell("bye\n")
            if watcher.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    watcher.stdin.close()
            try:
                watcher.wait(_GUARD_EXIT_S)
            except subprocess.TimeoutExpired:
                watcher.kill()
                watcher.wait()
        self._path = self._guard = None
        if os.path.lexists(path):
            raise JobFailed(f"the workspace could not be removed: {sorted(set(failures))}", stage="workspace")


def _start_guard(path: Path, token: str, since: float) -> subprocess.Popen[bytes]:
    """Start the process that cleans up if this one is killed."""
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", guard.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"LC_ALL": "C"},
        cwd="/",
        start_new_session=True,
    )
    if watcher.stdin is None:
        raise JobFailed("the workspace's guard has no input", stage="workspace")
    watcher.stdin.write(json.dumps({"path": str(path), "token": token, "since": since}).encode("ascii") + b"\n")
    watcher.stdin.flush()
    return watcher
