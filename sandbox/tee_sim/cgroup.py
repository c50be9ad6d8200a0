"""A control group for one job: memory, processes, processor; cgroup v1 and v2.

The group is made below the node's own, so that whatever limits the node stands under hold for its jobs too.

Source:   the kernel's admin-guide, cgroup-v1 and cgroup-v2.
Security: swap counts as memory; killing first forbids new processes, so that a fork bomb cannot outrun it.
Errors:   ``Unavailable`` naming the controller that is missing, ``JobFailed`` if a group cannot be made.
Not here: who joins (``warden``), what a limit means for the job (``jail``).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox.errors import JobFailed, Unavailable

PREFIX: Final = "sandbox-jail-"
NEEDED_V1: Final = ("memory", "pids", "cpu", "cpuacct")
NEEDED_V2: Final = ("memory", "pids", "cpu")
_PERIOD_US: Final = 100_000
_GONE_S: Final = 5.0
_HINT: Final = (
    "as root: mount cgroups writable; under systemd with cgroup v2: Delegate=yes and DelegateSubgroup=node in the unit"
)


@dataclass(frozen=True, slots=True)
class Group:
    """The folders of one job's group, by controller; one and the same folder under v2."""

    folders: Mapping[str, Path]
    unified: bool

    @property
    def joins(self) -> list[str]:
        """The files into which a process writes 0 to enter."""
        return sorted({str(folder / "cgroup.procs") for folder in self.folders.values()})

    def kills(self) -> int:
        """How many processes the kernel ended for want of memory."""
        file = self._any("memory") / ("memory.events" if self.unified else "memory.oom_control")
        return _fields(file).get("oom_kill", 0)

    def mark(self) -> int:
        """The highest charge so far, in bytes, copies of files included; 0 if the kernel does not say."""
        return _number(self._any("memory") / ("memory.peak" if self.unified else "memory.max_usage_in_bytes"))

    def charge(self) -> tuple[int, int]:
        """Return in bytes what is charged now, and how much of it is copies of files on disk.

        Those are charged to whoever reads a file first, fill whatever is left up to the limit, and are dropped when
        memory is short. Files in memory are not among them.
        """
        folder = self._any("memory")
        now = _number(folder / ("memory.current" if self.unified else "memory.usage_in_bytes"))
        found = _fields(folder / "memory.stat")
        files, in_memory = ("file", "shmem") if self.unified else ("total_cache", "total_shmem")
        return now, max(0, found.get(files, 0) - found.get(in_memory, 0))

    def cpu_s(self) -> float:
        """The processor time used so far."""
        if self.unified:
            return _fields(self._any("cpu") / "cpu.stat").get("usage_usec", 0) / 1e6
        return _number(self._any("cpuacct") / "cpuacct.usage") / 1e9

    def kill(self) -> None:
        """End every process in the group and wait until they are gone."""
        folder = self._any("pids")
        with contextlib.suppress(OSError):
            (folder / "pids.max").write_text("0")
        end = time.monotonic() + _GONE_S
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                (folder / "cgroup.kill").write_text("1")
            processes = self.processes()
            if not processes:
                return
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.005)

    def processes(self) -> list[int]:
        """Who is in the group."""
        try:
            return [int(line) for line in (self._any("pids") / "cgroup.procs").read_text().split()]
        except FileNotFoundError:
            return []

    def remove(self) -> bool:
        """Remove the emptied group; return whether it is gone."""
        end = time.monotonic() + _GONE_S
        left = set(self.folders.values())
        while left and time.monotonic() < end:
            for folder in sorted(left):
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    left.discard(folder)
                except OSError:  # a process of it is still on its way out
                    time.sleep(0.005)
                else:
                    left.discard(folder)
        return not left

    def _any(self, controller: str) -> Path:
        return self.folders.get(controller) or next(iter(self.folders.values()))


def create(token: str, memory_mib: int, processes: int, cores: int) -> Group:
    """Make a group with these limits.

    Raises:
        Unavailable: this node cannot make groups.
        JobFailed: it can, but not now.
    """
    parents, unified = places()
    group = Group({name: folder / (PREFIX + token) for name, folder in parents.items()}, unified)
    try:
        for folder in sorted(set(group.folders.values())):
            folder.mkdir(0o755)
        size = memory_mib << 20
        if unified:
            _write(group, "memory", "memory.max", size)
            _write(group, "memory", "memory.swap.max", 0, optional=True)
            _write(group, "memory", "memory.oom.group", 1)
            _write(group, "cpu", "cpu.max", f"{cores * _PERIOD_US} {_PERIOD_US}")
        else:
            _write(group, "memory", "memory.limit_in_bytes", size)
            _write(group, "memory", "memory.memsw.limit_in_bytes", size, optional=True)
            _write(group, "cpu", "cpu.cfs_period_us", _PERIOD_US)
            _write(group, "cpu", "cpu.cfs_quota_us", cores * _PERIOD_US)
        _write(group, "pids", "pids.max", processes)
    except OSError as error:
        group.remove()
        raise JobFailed(f"a control group could not be made: {error.strerror}", stage="jail") from error
    return group


def places() -> tuple[dict[str, Path], bool]:
    """Return by controller where this node makes groups, and whether that is cgroup v2.

    Raises:
        Unavailable: a controller is missing or the node may not write there.
    """
    own = _own_groups()
    first: dict[str, Path] = {name: own[name] for name in NEEDED_V1 if name in own}
    if len(first) == len(NEEDED_V1):
        if not all(os.access(folder, os.W_OK) for folder in first.values()):
            raise _missing("the node may not make control groups")
        return first, False
    if "" in own:
        for folder in (own[""], own[""].parent):
            if _delegates(folder):
                return dict.fromkeys(NEEDED_V2, folder), True
    raise _missing("control groups for memory, processes and processor are not available to the node")


def limit_files() -> list[str]:
    """Return the files in which a library looks up what this process may use; there, not in its group's others."""
    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us", "memory.limit_in_bytes", "cpu.max", "memory.max")
    return sorted({str(folder / name) for folder in _own_groups().values() for name in names})


def _delegates(folder: Path) -> bool:
    """Whether groups below ``folder`` have all controllers, or can be given them."""
    try:
        if not set(NEEDED_V2) <= set((folder / "cgroup.controllers").read_text().split()):
            return False
        control = folder / "cgroup.subtree_control"
        if not set(NEEDED_V2) <= set(control.read_text().split()):
            control.write_text(" ".join(f"+{name}" for name in NEEDED_V2))  # refused while a process is in it
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _own_groups() -> dict[str, Path]:
    """Return the folder of this process's group by v1 controller; of v2 under the empty name."""
    paths: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, names, path = line.split(":", 2)
        paths.update(dict.fromkeys(names.split(","), path))
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields, _, tail = line.partition(" - ")
        root, point = fields.split()[3:5]
        kind, _, options = tail.split(" ", 2)
        served = [""] if kind == "cgroup2" else options.split(",") if kind == "cgroup" else []
        for name in served:
            if name in paths and name not in found:
                inside = os.path.relpath(paths[name], root)
                found[name] = Path(point) if inside.startswith("..") else Path(point) / inside
    return found


def _write(group: Group, controller: str, name: str, value: int | str, *, optional: bool = False) -> None:
    file = group.folders[controller] / name
    if optional and not file.exists():  # a kernel without accounting of swap
        return
    file.write_text(str(value))


def _fields(file: Path) -> dict[str, int]:
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    return {name: int(value) for name, value in (line.split() for line in lines if len(line.split()) == 2)}


def _number(file: Path) -> int:
    try:
        return int(file.read_text(encoding="ascii"))
    except OSError:
        return 0


def _missing(what: str) -> Unavailable:
    return Unavailable(what, tell=what, hint=_HINT)
