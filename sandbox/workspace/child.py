"""Runs one foreign engine in one fresh process and turns whatever becomes of it into a result or an error of ours.

Native engines abort the process when a peer dies, exit with 255, or hang; none of this may reach the node. So the
engine gets a process of its own with an explicit environment, dies with its parent, and counts as successful only
if it ended with code 0 *and* said so.

Security: the configuration travels over standard input, the result over a descriptor of its own; nothing of the
          node's environment is inherited; no core dumps. Of what the engine writes to standard error only the last
          2 KiB are kept, in memory, with long hexadecimal runs (digests of ids) blotted out, for the node's owner.
Units:    seconds; bytes.
Errors:   ``Cancelled``, ``DeadlinePassed``; ``PartyFailed``, ``ProtocolFailed``, ``InvalidSpec``, ``Unavailable``
          as the engine's own code says; ``ProtocolFailed`` when the engine aborted; else ``JobFailed``.
Not here: what the engines do; retries.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sandbox
from sandbox import errors
from sandbox.errors import Cancelled, DeadlinePassed, InvalidSpec, JobFailed, ProtocolFailed, SandboxError
from sandbox.workspace import boot
from sandbox.workspace.directory import Workspace
from sandbox.workspace.guard import kill_group

_MAX_CONFIG = 48 * 1024  # below a pipe's capacity, so that writing it never waits for the child
_MAX_ANSWER = 1024 * 1024
_TAIL = 2048
_STOP_POLL_S = 0.02
_DRAIN_S = 0.5
_MAY_REPORT = frozenset({"PartyFailed", "ProtocolFailed", "DeadlinePassed", "Unavailable", "InvalidSpec", "JobFailed"})
_ABORTS = frozenset({-signal.SIGABRT, -signal.SIGSEGV, 255})  # what native engines do when a peer goes away
_ROOT = str(Path(sandbox.__file__).resolve().parent.parent)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a child that succeeded returned, and what it used."""

    values: dict[str, Any]
    peak_rss: int  # bytes, of the engine process itself
    cpu_s: float  # user and system, with its helpers
    wall_s: float


def run_child(
    target: str | Path,
    config: Mapping[str, object],
    workspace: Workspace,
    deadline_s: float,
    on_progress: Callable[[float], None] | None = None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Run ``main(config, report)`` of ``target`` (a module name or a script) in a fresh process in ``workspace``.

    The calling thread waits; the kernel kills the child when this *thread* ends.

    Raises:
        SandboxError: whatever happened, as one of the errors named above.
    """
    if stop is not None and stop.is_set():
        raise Cancelled("stopped before the engine was started")
    return _Child(target, config, workspace).follow(deadline_s, on_progress, stop)


class _Child:
    """One engine process, from start to burial."""

    def __init__(self, target: str | Path, config: Mapping[str, object], workspace: Workspace) -> None:
        self._workspace, self._started = workspace, time.monotonic()
        self._buffer, self._tail = b"", b""
        self._messages: list[dict[str, Any]] = []
        answers, out = os.pipe()
        try:
            start = {"ppid": os.getpid(), "root": _ROOT, "fd": out, "target": str(target)}
            order = f"{json.dumps(start)}\n{json.dumps(dict(config))}\n".encode("ascii")
            if len(order) > _MAX_CONFIG:
                raise InvalidSpec("the configuration of an engine is too large")
            workspace.own_socket.unlink(missing_ok=True)
            self._process = subprocess.Popen(
                [sys.executable, "-I", boot.__file__, workspace.token],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=_environment(workspace.path),
                cwd=workspace.path,
                pass_fds=(out,),
                process_group=0,
            )
        except BaseException:
            os.close(answers)
            raise
        finally:
            os.close(out)
        self._answers = answers
        workspace.began(self._process.pid)
        with contextlib.suppress(BrokenPipeError):  # a child that is already dead is reported by its exit code
            if self._process.stdin is not None:
                self._process.stdin.write(order)
                self._process.stdin.close()

    def follow(
        self, deadline_s: float, on_progress: Callable[[float], None] | None, stop: threading.Event | None
    ) -> Outcome:
        """Wait for the end, of whatever kind, and judge it."""
        stderr = self._process.stderr
        if stderr is None:
            raise JobFailed("the engine has no standard error")
        cause: SandboxError | None = None
        try:
            with selectors.DefaultSelector() as selector:
                for descriptor in (self._answers, stderr.fileno()):
                    os.set_blocking(descriptor, False)
                    selector.register(descriptor, selectors.EVENT_READ)
                ending = os.pidfd_open(self._process.pid)
                try:
                    selector.register(ending, selectors.EVENT_READ)
                    cause = self._wait(selector, ending, self._started + deadline_s, on_progress, stop)
                    cpu_s = self._bury()
                    self._drain(selector)
                finally:
                    os.close(ending)
        finally:
            self._bury()
            stderr.close()
            os.close(self._answers)
            self._workspace.ended(self._process.pid)
        if cause is not None:
            raise cause
        result = self._verdict()
        return Outcome(result["result"], int(result["peak_rss"]), cpu_s, time.monotonic() - self._started)

    def _wait(
        self,
        selector: selectors.BaseSelector,
        ending: int,
        end: float,
        on_progress: Callable[[float], None] | None,
        stop: threading.Event | None,
    ) -> SandboxError | None:
        while True:
            left = end - time.monotonic()
            if stop is not None and stop.is_set():
                return Cancelled("stopped while the engine was running")
            if left <= 0:
                return DeadlinePassed("the engine did not end in its time" + self._said())
            ready = {key.fd for key, _ in selector.select(min(left, _STOP_POLL_S) if stop is not None else left)}
            for descriptor in ready - {ending}:
                self._read(descriptor, selector)
            if on_progress is not None:
                for message in self._messages:
                    if "progress" in message:
                        on_progress(float(message["progress"]))
            self._messages = [message for message in self._messages if "progress" not in message]
            if ending in ready:
                return None

    def _read(self, descriptor: int, selector: selectors.BaseSelector) -> bool:
        """Take what is there; return whether anything was."""
        try:
            part = os.read(descriptor, 65536)
        except BlockingIOError:
            return False
        if not part:
            selector.unregister(descriptor)
            return False
        if descriptor != self._answers:
            self._tail = (self._tail + part)[-_TAIL:]
            return True
        self._buffer += part
        *lines, self._buffer = self._buffer.split(b"\n")
        if len(self._buffer) > _MAX_ANSWER:
            raise JobFailed("the engine's answer is too long")
        self._messages += [_parse(line) for line in lines]
        return True

    def _drain(self, selector: selectors.BaseSelector) -> None:
        """Read what the dead child had still written."""
        end = time.monotonic() + _DRAIN_S
        for descriptor in [key.fd for key in selector.get_map().values()]:
            if descriptor in (self._answers, self._process.stderr.fileno() if self._process.stderr else -1):
                while time.monotonic() < end and self._read(descriptor, selector):
                    pass

    def _bury(self) -> float:
        """Kill the whole group and collect the child; return its CPU seconds."""
        if self._process.returncode is not None:
            return 0.0
        kill_group(self._process.pid)  # before the child is collected, so that its number is still its own
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_utime + usage.ru_stime

    def _verdict(self) -> dict[str, Any]:
        """Return the result message, or raise what the end of the child means."""
        code = self._process.returncode
        for message in self._messages:
            if "error" in message:
                name = message["error"] if message["error"] in _MAY_REPORT else "JobFailed"
                kind: type[SandboxError] = getattr(errors, name)
                raise kind(str(message.get("detail", "")) + self._said(), party=str(message.get("party", "")))
        results = [message for message in self._messages if "result" in message]
        if code == 0 and len(results) == 1 and isinstance(results[0]["result"], dict):
            return results[0]
        if code in _ABORTS:
            raise ProtocolFailed(f"the engine aborted with {code}" + self._said())
        raise JobFailed(f"the engine ended with {code} and {len(results)} results" + self._said())

    def _said(self) -> str:
        text = re.sub(r"[0-9A-Fa-f]{24,}", "<hex>", self._tail.decode("utf-8", "replace"))
        return f"; it wrote: {text}" if text else ""


def _environment(path: Path) -> dict[str, str]:
    """Return all that a child may know of the node's environment."""
    return {
        "PATH": "/usr/bin:/bin",  # RR22's alignment starts `sort`
        "LC_ALL": "C",
        "TMPDIR": str(path),
        # Measured: one arena takes a third of the memory, and steadier. What is freed is used again, not given back and
        # asked for anew page by page: a tenth less processor time of RR22, and the same peak.
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_TRIM_THRESHOLD_": "200000000",
        "MALLOC_MMAP_THRESHOLD_": "4000000",
        "MALLOC_TOP_PAD_": "16000000",
    }


def _parse(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError as error:
        raise JobFailed("the engine's answer is not JSON") from error
    if not isinstance(message, dict):
        raise JobFailed("the engine's answer is not an object")
    return message
