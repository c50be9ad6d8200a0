"""Peak memory of a node, by looking at its processes from outside.

    ours    the node, Ray workers while they work for us, engine children with their helpers
    ray     what Ray keeps for itself: cluster store, raylet, agents, monitors, idle workers

Units:   MiB of resident memory, added up: pages that processes share count in each, so this is never too little.
Shapes:  a process counts as Ray's by its command line. The sum is taken every ``PAUSE_S``; what is shorter is missed.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

import psutil

PAUSE_S: Final = 0.05
_RAYS: Final = ("/ray/", "ray::IDLE", "raylet", "gcs_server")


class Memory:
    """Watches the process trees of nodes while the ``with`` block runs."""

    def __init__(self, roots: Mapping[str, int]) -> None:
        """Args:
        roots: process id by node.
        """
        self.ours = dict.fromkeys(roots, 0.0)
        self.ray = dict.fromkeys(roots, 0.0)
        self._roots = {name: psutil.Process(pid) for name, pid in roots.items()}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
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
        while not self._over.wait(PAUSE_S):
            for name, root in self._roots.items():
                ours, rays = _sizes(root)
                self.ours[name] = max(self.ours[name], ours)
                self.ray[name] = max(self.ray[name], rays)


def _sizes(root: psutil.Process) -> tuple[float, float]:
    ours = rays = 0.0
    for process in [root, *root.children(recursive=True)]:
        try:
            size, line = process.memory_info().rss / 2**20, " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue  # it ended between the list and the look
        if process != root and any(mark in line for mark in _RAYS):
            rays += size
        else:
            ours += size
    return ours, rays
