"""What the escape probes do inside the jail; run there as a program of form "python", as any merchant's.

Each attempt is one that must fail. It reports which did, and stops short of doing harm where one succeeds.

Shapes:  parameters {"port", "abstract", "marker", "pid", "processes"}; output ``held``: probe, held.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from typing import Any

_NEW_USER = 0x10000000


def _connects(family: int, address: Any) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as talk:
        talk.settimeout(1.0)
        talk.connect(address)


def _writes(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY))


def _reads(path: str) -> None:
    with open(path, "rb") as file:
        file.read(1)


def _leaves(how: int) -> None:
    if how:
        done = ctypes.CDLL(None, use_errno=True).syscall(56, _NEW_USER | signal.SIGCHLD, None, None, None, None)
        if done == 0:
            os._exit(0)
    else:
        done = ctypes.CDLL(None, use_errno=True).unshare(_NEW_USER)
    if done < 0:
        raise OSError(ctypes.get_errno(), "refused")


def _forks(most: int) -> None:
    children = []
    try:
        for _ in range(most):
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            children.append(child)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _holds(attempt: Any, *arguments: Any) -> bool:
    try:
        attempt(*arguments)
    except OSError:
        return True
    return False


def run(tables: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Try everything; or, asked for memory, take too much of it."""
    import pyarrow

    if params.get("mib"):
        taken = bytearray(params["mib"] << 20)
        taken[::4096] = b"x" * len(taken[::4096])
        time.sleep(1.0)  # for a watcher to see it
        return {"held": pyarrow.table({"probe": ["memory"], "held": [False]})}
    found = {
        "network": _holds(_connects, socket.AF_INET, ("127.0.0.1", params["port"])),
        "abstract socket": _holds(_connects, socket.AF_UNIX, "\0" + params["abstract"]),
        "file of the node": _holds(_reads, params["marker"]),
        "passwords": _holds(_reads, "/etc/shadow"),
        "kernel setting": _holds(_writes, "/proc/sys/kernel/core_pattern"),
        "process of the node": _holds(os.kill, params["pid"], 0),
        "environment of the node": _holds(_reads, f"/proc/{params['pid']}/environ"),
        "user namespace": _holds(_leaves, 0),
        "user namespace by clone": sys.platform != "linux" or os.uname().machine != "x86_64" or _holds(_leaves, 1),
        "processes": _holds(_forks, params["processes"]),
        "folder of the program": _holds(os.mkdir, os.path.join(os.path.dirname(__file__), "x")),
    }
    return {"held": pyarrow.table({"probe": list(found), "held": list(found.values())})}
