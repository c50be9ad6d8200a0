"""First code inside an engine's child process: run by file name, before anything of the engine is loaded.

    standard input   a line {"ppid", "root", "fd", "target"}, and later a line with the configuration
    standard output  nothing: the engine libraries log there, so it goes to /dev/null
    descriptor "fd"  JSON lines: {"progress": x}, then {"result": {...}, "peak_rss": n} or {"error", "detail"}

Configuration never travels in the arguments (an engine writes them into a trace file) nor in the environment.
The target is a module name or a file, with ``main(config, report) -> dict`` and, if loading the engine takes long,
``warm()``, which runs before the configuration is read: a child can so be started before there is a job for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
import runpy
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, TextIO

_PR_SET_PDEATHSIG = 1

Entry = Callable[[dict[str, Any], Callable[[float], None]], dict[str, Any]]


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; leave at once if that has already happened."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        os._exit(4)
    if os.getppid() != parent:
        os._exit(3)


def peak_rss() -> int:
    """Return the peak resident size of this process in bytes, from its own memory map only."""
    # getrusage counts the size of the parent before exec as ours; VmHWM starts anew with exec.
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def load(target: str) -> tuple[Entry, Callable[[], None]]:
    """Return ``main`` and ``warm`` of a module, or of a script given by absolute path."""
    names: dict[str, Any] = runpy.run_path(target) if target.startswith("/") else vars(importlib.import_module(target))
    return names["main"], names.get("warm", lambda: None)


def main() -> None:
    """Read the order, run the engine, say what became of it, and end without the libraries' exit handlers."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    order = json.loads(sys.stdin.buffer.readline())
    die_with_parent(order["ppid"])
    sys.path.append(order["root"])
    answers: TextIO = os.fdopen(order["fd"], "w", encoding="ascii")
    os.set_inheritable(answers.fileno(), False)

    def say(**message: object) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    code = 1
    try:
        run, warm = load(order["target"])
        warm()
        config = json.loads(sys.stdin.buffer.readline())
        result = run(config, lambda fraction: say(progress=float(fraction)))
        say(result=result, peak_rss=peak_rss())
        code = 0
    except Exception as error:
        if type(error).__module__ == "sandbox.errors":
            say(error=type(error).__name__, detail=str(error), party=getattr(error, "party", ""))
            code = 2
        else:
            traceback.print_exc()
    with contextlib.suppress(OSError):
        answers.close()
        sys.stderr.flush()
    os._exit(code)  # exit handlers of native engines hang or abort when the peer is gone


if __name__ == "__main__":
    main()
