"""Memory and CPU time of nodes, by looking at their processes from outside.

    ours    the node, Ray workers while they work for us, engine children with their guards and helpers
    ray     what Ray keeps for itself: cluster store, raylet, agents, monitors, idle workers

Units:   MiB of resident memory of a node. Its processes load the same libraries: what they hold of their own is added
         up, what they hold of one file counts once (of each file, as much as the process that holds most of it). Ray's
         are plainly added up, shared pages and all. Seconds of CPU time, user and system, Ray's included.
Shapes:  a process counts as Ray's by its name or command line. The sum is taken every ``PAUSE_S`` seconds
         unless told otherwise; what is shorter is missed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Final, Self

import psutil

PAUSE_S: Final = 0.05
PARTS: Final = ("engines", "workers", "node", "Ray")
_RAYS: Final = frozenset({"gcs_server", "raylet", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::IDLE"})


class Memory:
    """Watches the process trees of nodes while a ``with`` block runs; over several blocks, the most of all."""

    def __init__(self, roots: Mapping[str, int], pause_s: float = PAUSE_S) -> None:
        """Args:
        roots: process id by node.
        pause_s: between two looks.
        """
        self._pause_s = pause_s
        self.ours = dict.fromkeys(roots, 0.0)
        self.ray = dict.fromkeys(roots, 0.0)
        self.parts: dict[str, dict[str, int]] = {name: {} for name in roots}  # MiB by process when ours was largest
        self._own = dict.fromkeys(roots, 0.0)  # the most that was no file's
        self._roots = {name: psutil.Process(pid) for name, pid in roots.items()}
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self._over.clear()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    @property
    def peak_mib(self) -> int:
        """Of the node that needed most, Ray's own processes apart."""
        return round(max(self.ours.values()))

    @property
    def ray_mib(self) -> int:
        """Ray's own processes, of the node where they needed most."""
        return round(max(self.ray.values()))

    def _watch(self) -> None:
        while not self._over.wait(self._pause_s):
            for name, root in self._roots.items():
                parts, rays = _sizes(root)
                self.ray[name] = max(self.ray[name], rays)
                own = sum(parts.values())
                if own <= self._own[name]:
                    continue
                files = _files(int(part.split()[-1]) for part in parts)
                self._own[name], self.ours[name] = own, own + files
                self.parts[name] = {part: round(size) for part, size in parts.items()} | {"files": round(files)}


def cpu_seconds(pid: int) -> float:
    """Return what a process, its descendants, and those of them that have ended have used."""
    return sum(cpu_by_part(pid).values())


def cpu_by_part(pid: int) -> dict[str, float]:
    """Return the same by what it was used for: engines, Ray workers apart from the engines they ran, the node, Ray."""
    root, used = psutil.Process(pid), dict.fromkeys(PARTS, 0.0)
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # its parent has it in its own sum by now
            times, name = process.cpu_times(), process.name()
            own, ended = times.user + times.system, times.children_user + times.children_system
            if process == root:
                used["node"] += own + ended
            elif name.startswith("ray::") and not name.endswith("Agent"):
                used["workers"] += own
                used["engines"] += ended
            else:
                used["Ray" if _is_rays(process) else "engines"] += own + ended
    return used


def resident_mib(pid: int) -> int:
    """Return the resident memory of one process."""
    return round(psutil.Process(pid).memory_info().rss / 2**20)


def _sizes(root: psutil.Process) -> tuple[dict[str, float], float]:
    """Return the MiB that each process of ours holds of its own, by name and id, and what all of Ray's hold."""
    ours: dict[str, float] = {}
    rays = 0.0
    for process in [root, *root.children(recursive=True)]:
        try:
            held, is_own = process.memory_info(), process == root or not _is_rays(process)
            name = f"{process.name()} {process.pid}"
        except psutil.NoSuchProcess:
            continue  # it ended between the list and the look
        if is_own:
            ours[name] = (held.rss - held.shared) / 2**20
        else:
            rays += held.rss / 2**20
    return ours, rays


def _files(pids: Iterable[int]) -> float:
    """Return the MiB that processes hold of files and of memory they share, each file once."""
    most: dict[str, int] = {}
    for pid in pids:
        own: dict[str, int] = {}
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
            for mapped in psutil.Process(pid).memory_maps(grouped=True):
                if not mapped.path.startswith("["):
                    own[mapped.path] = max(0, mapped.rss - mapped.anonymous)
        for path, size in own.items():
            most[path] = max(most.get(path, 0), size)
    return sum(most.values()) / 2**20


def _is_rays(process: psutil.Process) -> bool:
    return process.name() in _RAYS or "/ray/" in " ".join(process.cmdline()[:4])
