"""Cleans up after a workspace whose owner was killed: a small process of its own, run by file name.

    owner --- {"path", "token", "since"} --->  guard        first line of its standard input
    owner --- +pid / -pid             --->                  an engine's process group began / ended
    owner --- bye                     --->                  the owner cleaned up itself: do nothing
    owner dies: end of input          --->                  kill the groups, remove the directory and the trace files

An engine's input holds plaintext ids. ``PR_SET_PDEATHSIG`` ends the engine when the node is killed, but neither the
helpers the engine started nor its files; this does. It uses the standard library only and nothing of ``sandbox``.

The ``spu`` library writes ``/tmp/psi_<random>.trace`` after each intersection, whatever ``TMPDIR`` says, with its
command line inside. Every engine is started with its workspace's random token as an argument, so that the token
tells exactly our files from other people's.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import sys
import time

TRACE_DIRECTORY = "/tmp"  # noqa: S108 - fixed inside the library; we only look for and remove its files there
_MAX_TRACE = 4 * 1024 * 1024


def sweep_traces(token: str, since: float, directory: str = TRACE_DIRECTORY) -> int:
    """Remove the trace files that engines started with ``token`` left behind; return how many."""
    removed = 0
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries if entry.name.startswith("psi_") and entry.name.endswith(".trace")]
    for name in names:
        path = os.path.join(directory, name)
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if _is_ours(path, token.encode("ascii"), since):
                os.unlink(path)
                removed += 1
    return removed


def _is_ours(path: str, token: bytes, since: float) -> bool:
    state = os.lstat(path)
    if not stat.S_ISREG(state.st_mode) or state.st_uid != os.getuid() or state.st_size > _MAX_TRACE:
        return False
    if state.st_size:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with open(descriptor, "rb") as trace:
            return token in trace.read(_MAX_TRACE)
    # Empty: an engine was killed between creating and writing it. Names are random and never opened twice, so an
    # empty file that nobody holds open, and that is still empty afterwards, will stay empty: it is of use to nobody.
    return state.st_ctime >= since and not _is_open(path) and os.lstat(path).st_size == 0


def _is_open(path: str) -> bool:
    for process in filter(str.isdigit, os.listdir("/proc")):
        folder = f"/proc/{process}/fd"
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(folder):
                with contextlib.suppress(OSError):
                    if os.readlink(f"{folder}/{descriptor}") == path:
                        return True
    return False


def kill_group(group: int, wait_s: float = 0.0) -> None:
    """Kill every process of ``group``; with ``wait_s``, wait that long for them to be gone."""
    end = time.monotonic() + wait_s
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
        while time.monotonic() < end:
            os.killpg(group, 0)
            time.sleep(0.01)


def main() -> None:
    """Follow the owner until it says goodbye or dies."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the node is being stopped: that is when the guard is needed
    first = sys.stdin.readline()
    if not first.endswith("\n"):
        return  # the owner died before it had started anything
    order = json.loads(first)
    groups: set[int] = set()
    for line in sys.stdin:
        if line == "bye\n":
            return
        if line.startswith("+"):
            groups.add(int(line[1:]))
        elif line.startswith("-"):
            groups.discard(int(line[1:]))
    for group in groups:
        kill_group(group, wait_s=2.0)
    shutil.rmtree(order["path"], ignore_errors=True)
    sweep_traces(order["token"], order["since"])


if __name__ == "__main__":
    main()
