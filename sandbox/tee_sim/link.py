"""The node's end of the handles to one jail's warden. The other end is ``warden``.

Errors:   ``Unavailable`` naming what the machine lacks, if the jail could not be built; ``JobFailed``.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from sandbox.errors import JobFailed, SandboxError, Unavailable
from sandbox.tee_sim import cgroup, leases
from sandbox.tee_sim.levels import Level

_CUT: Final = b"\n[...]\n"
HINTS: Final = {
    "namespace for mounts": (
        "the node may not make namespaces",
        "allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, the AppArmor rule "
        "for bwrap), or configure the level `narrowed`",
    ),
    "control group": ("the node may not use control groups", "mount cgroups writable, or run the node as root"),
    "landlock": ("the kernel lacks Landlock, ABI 6", "use Linux 6.12 or later with landlock among the LSMs"),
    "seccomp": ("the kernel lacks seccomp filters", "use a kernel with CONFIG_SECCOMP_FILTER"),
    "bubblewrap": ("bubblewrap could not be started", "install bubblewrap (apt-get install bubblewrap)"),
}


class Warden:
    """The node's side of the handles to one warden."""

    def __init__(
        self, process: subprocess.Popen[bytes], control: socket.socket, streams: Sequence[int], folder: leases.Folder
    ) -> None:
        self._process, self._control, self._folder = process, control, folder
        self._go, self._log, self._ready = streams
        self.identity: tuple[int, int] | None = None
        self.group: cgroup.Group | None = None
        self.level = Level.CONFINED
        self._log_limit = 0
        self._head, self._tail, self._cut = b"", b"", False
        self._messages: list[dict[str, Any]] = []
        self._buffer = b""
        self._folders: list[int] = []
        self._is_ready = self._is_closed = False

    @property
    def pid(self) -> int:
        """The warden itself; the jail's processes are all below it."""
        return self._process.pid

    @property
    def inputs(self) -> int:
        """The folder into which the node writes."""
        return self._folders[0]

    @property
    def outputs(self) -> int:
        """The folder into which the jail writes."""
        return self._folders[1]

    @property
    def path(self) -> Path:
        """The jail's folder on the node's disk."""
        return self._folder.path

    def limit_log(self, size: int) -> None:
        """Keep no more than this of what the program prints."""
        self._log_limit = size

    def poll(self, wait_s: float) -> dict[str, Any] | None:
        """Take in what is there, waiting a little; return the last message once the jail has ended."""
        handles = [] if self._is_closed else [h for h in (self._log, self._control.fileno()) if h >= 0]
        for handle in _readable(handles, wait_s if self._last() is None else 0.0):
            if handle == self._log:
                self._read_log()
            else:
                self._read_control()
        return self._last()

    def is_ready(self, wait_s: float) -> bool:
        """Whether the interpreter inside waits for its job."""
        self.poll(0.0 if self._is_ready else wait_s)
        if not self._is_ready and self._folders and _readable([self._ready], 0.0):
            self._is_ready = os.read(self._ready, 1) == b"1"
        return self._is_ready and bool(self._folders)

    def go(self) -> None:
        """Let the jail begin."""
        with contextlib.suppress(BrokenPipeError):  # it has just died: its status says so
            os.write(self._go, b"g")

    def end(self, wait_s: float) -> None:
        """End every process in the jail."""
        if self.group is not None:
            self.group.kill()
        with contextlib.suppress(OSError):
            self._control.send(b"k")
        self._wait(wait_s)

    def status(self, wait_s: float) -> int:
        """Return how the jail's first process ended, once all of them have."""
        message = self._wait(wait_s)
        if message is None or "status" not in message:
            raise JobFailed("the jail's warden did not say how it ended", stage="jail")
        end = time.monotonic() + 1.0
        while self._log >= 0 and time.monotonic() < end:
            self._read_log()
        return int(message["status"])

    def log(self) -> bytes:
        """Return what the jail printed: all, or its beginning and its end."""
        return (self._head + (_CUT if self._cut else b"") + self._tail)[: self._log_limit]

    def trouble(self) -> SandboxError:
        """Return why the jail did not get ready. Until then nothing of a merchant has run in it."""
        failed = next((message for message in self._messages if "failed" in message), None)
        said = self.log().decode("utf-8", "replace").strip()
        if failed is None and "bwrap:" in said:
            failed = {"failed": "namespace for mounts", "errno": 0}
        if failed is None:
            return JobFailed(f"the jail did not get ready; it said: {said}", stage="jail")
        step, code = str(failed["failed"]), int(failed["errno"])
        tell, hint = HINTS.get(step, ("the jail could not be built", ""))
        reason = os.strerror(code) if code else said
        return Unavailable(f"jail: {step}: {reason}", tell=tell, hint=hint, stage="jail")

    def close(self) -> None:
        """End the jail and the warden, and remove what they had."""
        if self._is_closed:
            return
        if self.group is not None:
            self.group.kill()
        self._is_closed = True
        self._control.close()  # for the warden: end it, clean up, leave
        for handle in (self._go, self._ready, self._log, *self._folders):
            if handle >= 0:
                os.close(handle)
        try:
            self._process.wait(30.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self.group is not None:
            self.group.kill()
            self.group.remove()
        shutil.rmtree(self._folder.path, ignore_errors=True)

    def _last(self) -> dict[str, Any] | None:
        return next((message for message in self._messages if "status" in message or "failed" in message), None)

    def _wait(self, wait_s: float) -> dict[str, Any] | None:
        end = time.monotonic() + wait_s
        while (message := self.poll(0.02)) is None and time.monotonic() < end:
            continue
        return message

    def _read_log(self) -> None:
        try:
            part = os.read(self._log, 65536)
        except BlockingIOError:
            return
        if not part:
            os.close(self._log)
            self._log = -1
            return
        half = self._log_limit // 2
        room = max(0, half - len(self._head))
        self._head += part[:room]
        tail = self._tail + part[room:]
        keep = max(0, self._log_limit - half - len(_CUT))
        self._cut = self._cut or len(tail) > keep
        self._tail = tail[len(tail) - keep :] if len(tail) > keep else tail

    def _read_control(self) -> None:
        try:
            part, handles, _, _ = socket.recv_fds(self._control, 65536, 3)
        except ConnectionError:  # it died with something of ours unread
            part, handles = b"", []
        self._folders += handles
        if not part:
            self._messages.append({"failed": "warden", "errno": 0})
            return
        *lines, self._buffer = (self._buffer + part).split(b"\n")
        self._messages += [json.loads(line) for line in lines]


def _readable(handles: Sequence[int], wait_s: float) -> list[int]:
    """Return those from which something, or the end, can be read."""
    poll = select.poll()
    for handle in handles:
        poll.register(handle, select.POLLIN)
    return [handle for handle, _ in poll.poll(int(wait_s * 1000))]
