"""What a family of processes uses, as the kernel counts it.

Units:   bytes, seconds.
Security: what cannot be read counts as nothing here; for the walls it is the limits on each process that hold.
Not here: control groups, which count exactly and which only root has (``cgroup``).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_BLOCK: Final = 512


def descendants(process: int) -> list[int]:
    """Return all processes below this one; one that is being born may be missing."""
    found: list[int] = []
    waiting = [process]
    while waiting:
        parent = waiting.pop()
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{thread}/children", encoding="utf-8") as children:
                    born = [int(child) for child in children.read().split()]
                waiting += born
                found += born
    return found


def memory(processes: Iterable[int]) -> int:
    """Return what they hold together, shared pages once: private memory and shared memory, not mapped files."""
    total = 0
    for process in processes:
        with contextlib.suppress(OSError), open(f"/proc/{process}/smaps_rollup", encoding="utf-8") as rollup:
            for line in rollup:
                if line.startswith(("Pss_Anon:", "Pss_Shmem:", "SwapPss:")):
                    total += int(line.split()[1]) << 10
    return total


def cpu_s(processes: Iterable[int]) -> float:
    """Return the processor time of the living, and of the dead they have collected."""
    ticks = 0
    for process in processes:
        with contextlib.suppress(OSError), open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
            ticks += sum(int(value) for value in fields[11:15])
    return ticks / _TICKS


def written(folders: Iterable[str], processes: Iterable[int], most_files: int) -> tuple[int, int]:
    """Return bytes and number of the files in folders, with those that are removed but still open.

    Stops counting at ``most_files``.
    """
    seen: dict[tuple[int, int], int] = {}
    for folder in folders:
        for parent, folders_in, files in os.walk(folder):
            for name in (*folders_in, *files):
                with contextlib.suppress(OSError):
                    state = os.lstat(os.path.join(parent, name))
                    seen[state.st_dev, state.st_ino] = state.st_blocks * _BLOCK
            if len(seen) > most_files:
                return sum(seen.values()), len(seen)
    for process in processes:
        with contextlib.suppress(OSError):
            for handle in os.listdir(f"/proc/{process}/fd"):
                with contextlib.suppress(OSError):
                    state = os.stat(f"/proc/{process}/fd/{handle}")
                    if state.st_nlink == 0 and stat.S_ISREG(state.st_mode):
                        seen[state.st_dev, state.st_ino] = state.st_blocks * _BLOCK
    return sum(seen.values()), len(seen)


def threads_of(uid: int) -> int:
    """Return how many threads a user has on this machine."""
    count = 0
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{process}").st_uid == uid:
                count += len(os.listdir(f"/proc/{process}/task"))
    return count
