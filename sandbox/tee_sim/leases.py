"""What a jail takes from the machine for its life: a uid nobody else has, and a folder of its own.

    <scratch>/jail-<token>/     lock    held by the jail's warden for as long as it lives
                                groups  the control groups, one a line, for whoever has to clean up
                                uid     its uid, if it has one of its own
    <uids>/<n>                  a lock for each uid in use, common to all nodes of the machine

Errors:   ``Unavailable`` if no uid is free, or the folder is in reach of others.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import secrets
import shutil
import signal
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox.errors import Unavailable
from sandbox.tee_sim import cgroup

UIDS: Final = range(200_000, 201_000)
UID_LOCKS: Final = Path("/run/sandbox-uids")  # not in a folder that others can write
_PREFIX: Final = "jail-"
_FRESH_S: Final = 60.0
_END_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Folder:
    """A jail's folder on the node's disk, and the handle that keeps it from being swept."""

    path: Path
    token: str
    lock: int


def make_folder(scratch: Path) -> Folder:
    """Make and lock a fresh folder below ``scratch``."""
    try:
        scratch.mkdir(mode=0o711, parents=True, exist_ok=True)
        state = scratch.stat()
    except OSError as error:
        raise _not_ours(f"the scratch directory cannot be made: {error.strerror}") from error
    if state.st_uid != os.geteuid() or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _not_ours("the scratch directory can be written by others")
    token = secrets.token_hex(8)
    path = scratch / f"{_PREFIX}{token}"
    path.mkdir(mode=0o700)
    lock = os.open(path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return Folder(path, token, lock)


def take_uid(uids: range = UIDS, locks: Path = UID_LOCKS) -> tuple[int, int]:
    """Return a uid that no process on this machine has, and the handle that reserves it.

    Raises:
        Unavailable: all are taken.
    """
    locks.mkdir(mode=0o700, parents=True, exist_ok=True)
    taken = _uids_in_use()
    order = list(uids)
    random.shuffle(order)  # so that a uid comes back late, should a file of its last user be left anywhere
    for uid in order:
        if uid in taken:
            continue
        handle = os.open(locks / str(uid), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            continue
        return uid, handle
    raise Unavailable(
        "every uid for jails is in use",
        tell="this node runs as many jails as it may",
        hint="wait for a job to end, or give the node a larger range of uids",
    )


def sweep(scratch: Path, locks: Path = UID_LOCKS) -> int:
    """Remove what dead jails left: processes, control groups, folders; return how many there were."""
    dead = 0
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(scratch.glob(f"{_PREFIX}*")):
            if _is_alive(path):
                continue
            dead += 1
            _sweep_groups(path)
            _sweep_uid(path, locks)
            shutil.rmtree(path, ignore_errors=True)
    return dead


def _is_alive(path: Path) -> bool:
    """Whether a warden still holds the lock of this folder."""
    try:
        handle = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # made this moment, or what is left after half a cleaning
        return time.time() - path.stat().st_mtime < _FRESH_S
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _sweep_groups(path: Path) -> None:
    """Empty and remove the control groups a folder names; nothing that is not a jail's."""
    try:
        lines = (path / "groups").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        folder = Path(line)
        if folder.name == cgroup.PREFIX + path.name.removeprefix(_PREFIX):
            group = cgroup.Group({"": folder}, unified=False)
            group.kill()
            group.remove()


def _sweep_uid(path: Path, locks: Path) -> None:
    """End what still runs under the uid of a dead jail, unless another jail has it by now."""
    try:
        uid = int((path / "uid").read_text(encoding="ascii"))
        handle = os.open(locks / str(uid), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (OSError, ValueError):
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        end = time.monotonic() + _END_S
        while uid in (in_use := _uids_in_use()) and time.monotonic() < end:
            for process in in_use[uid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.005)
    except BlockingIOError:
        return
    finally:
        os.close(handle)


def _not_ours(detail: str) -> Unavailable:
    return Unavailable(
        detail,
        tell="the scratch directory of this node is not its own",
        hint="give the node a directory that belongs to it and that nobody else can write",
    )


def _uids_in_use() -> dict[int, list[int]]:
    """Return the processes of each user, but for those that are dead and wait to be collected."""
    found: dict[int, list[int]] = {}
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] != "Z":
                found.setdefault(os.stat(f"/proc/{process}").st_uid, []).append(int(process))
    return found
