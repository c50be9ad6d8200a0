"""Warm jails: started before there is a job for them, each used once.

    with Pool(2, strongest(scratch), Limits(), scratch=scratch) as pool, pool.take() as jail:
        jail.run(...)

A jail in the pool holds an interpreter with its libraries and nothing of any job. A taken one is replaced when it is
given back, so that a run does not share the processors with the start of the next jail.

Not here: threads; jails get ready by themselves.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

from sandbox.errors import InvalidSpec, WrongState
from sandbox.tee_sim import leases
from sandbox.tee_sim.jail import Jail
from sandbox.tee_sim.launch import Start
from sandbox.tee_sim.levels import Level, Limits


class Pool:
    """Keeps ``size`` jails warm."""

    def __init__(
        self,
        size: int,
        level: Level,
        limits: Limits | None = None,
        *,
        scratch: Path,
        preload: tuple[str, ...] = ("numpy", "pandas", "pyarrow"),
        uids: range = leases.UIDS,
    ) -> None:
        """Args:
        size: how many wait; with 0, every jail is started when it is taken.
        limits: what the waiting ones are started for.
        scratch: a folder of the node's own; at level ``narrowed`` one that every uid may pass through.
        preload: modules that are imported before a job is there.
        """
        if size < 0:
            raise InvalidSpec("a pool has no negative size")
        self._size, self._limits = size, limits or Limits()
        self._start = Start(level, scratch, preload, uids)
        self._lock = threading.Lock()
        self._warm: list[Jail] = []
        self._is_closed = False
        try:
            self.fill()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def level(self) -> Level:
        """What stands around every jail of this pool."""
        return self._start.level

    @property
    def waiting(self) -> tuple[Jail, ...]:
        """The jails that wait for a job, ready or getting so."""
        with self._lock:
            return tuple(self._warm)

    def fill(self) -> None:
        """Start what is missing; returns at once."""
        with self._lock:
            while not self._is_closed and len(self._warm) < self._size:
                self._warm.append(Jail(self._start, self._limits, self.fill))

    def take(self, limits: Limits | None = None) -> Jail:
        """Return a jail for one run: a warm one, if these limits are what the pool is for."""
        wanted = limits or self._limits
        while True:
            with self._lock:
                if self._is_closed:
                    raise WrongState("the pool is closed")
                place = next((number for number, jail in enumerate(self._warm) if jail.serves(wanted)), None)
                jail = self._warm.pop(place) if place is not None else None
            if jail is None:
                return Jail(self._start, wanted, self.fill)
            if jail.alive:
                jail.allow(wanted)
                return jail
            jail.close()  # it ended while it waited; the next one, or a new one, serves

    def close(self) -> None:
        """End the warm ones; those in use are their users'."""
        with self._lock:
            self._is_closed = True
            waiting, self._warm = self._warm, []
        for jail in waiting:
            jail.close()
