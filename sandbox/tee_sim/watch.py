"""Looks at a running jail from outside: is it over a limit that the kernel does not hold by itself?

With a control group the kernel holds memory and processes, and counts processor time. Without one this sums up what
the jail's processes hold, several times a second; between two looks each process stands under its own limits.

Units:   seconds, MiB.
Not here: ending the run (``jail``).
"""

from __future__ import annotations

import signal
from typing import Final

from sandbox.tee_sim import processes
from sandbox.tee_sim.cgroup import Group
from sandbox.tee_sim.levels import Level, Limits, Reason
from sandbox.tee_sim.link import Warden

_MIB: Final = 1 << 20
_SIGNALLED: Final = 128  # bubblewrap ends with this much more than the signal that ended the program


class Watch:
    """One run, from the word to go."""

    def __init__(self, warden: Warden, limits: Limits, input_bytes: int) -> None:
        """Args:
        input_bytes: what stands in the jail's input folder; mapped, it counts as shared memory.
        """
        self._warden, self._limits, self._inputs = warden, limits, input_bytes
        self._before = self._cpu_s()
        self._peak = self._copies = 0

    def look(self) -> Reason | None:
        """Return the limit that is passed, if one is."""
        group, limits = self._warden.group, self._limits
        if self._cpu_s() - self._before > limits.cpu_s:
            return Reason.CPU
        if group is not None:
            self._note(group)
            return Reason.MEMORY if group.kills() else None
        family = processes.descendants(self._warden.pid)
        held = processes.memory(family)
        self._peak = max(self._peak, held)
        if held > limits.memory_mib * _MIB + self._inputs:
            return Reason.MEMORY
        if len(family) > limits.processes * 2:  # the kernel's own count is of threads
            return Reason.PROGRAM
        if self._warden.level is Level.NARROWED:
            folders = [str(self._warden.path / name) for name in ("out", "tmp")]
            size, files = processes.written(folders, family, limits.files)
            if size > limits.disk_mib * _MIB or files > limits.files:
                return Reason.DISK
        return None

    def afterwards(self, status: int) -> Reason | None:
        """Return why a run ended that nobody ended, if a limit is the reason."""
        ended_by = -status if status < 0 else status - _SIGNALLED
        if self._warden.group is not None and self._warden.group.kills():
            return Reason.MEMORY
        if ended_by == signal.SIGXCPU or self._cpu_s() - self._before > self._limits.cpu_s:
            return Reason.CPU
        return Reason.DISK if ended_by == signal.SIGXFSZ else None

    def peak_mib(self) -> int:
        """Return the most that was held at once: private memory and files in memory, the jail's own start included.

        With a control group the kernel's highest charge less the copies of files, and never less than what was seen
        at a look: too little only if it was held between two looks, before such copies came. Inputs are charged to
        the node. Without a group it is the most at any look, with what was touched of the inputs.
        """
        group = self._warden.group
        if group is not None:
            self._note(group)
            self._peak = max(self._peak, group.mark() - self._copies)
        return -(-self._peak // _MIB)

    def _note(self, group: Group) -> None:
        """Look at what is charged to the group."""
        charged, copies = group.charge()
        self._copies = max(self._copies, copies)
        self._peak = max(self._peak, charged - copies)

    def _cpu_s(self) -> float:
        group = self._warden.group
        if group is not None:
            return group.cpu_s()
        return processes.cpu_s([self._warden.pid, *processes.descendants(self._warden.pid)])
