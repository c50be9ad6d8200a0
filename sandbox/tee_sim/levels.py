"""The words of the jail: how strongly it stands, what it allows, what came out, and how a bad end is told.

Units:   MiB, seconds, bytes, counts, as each name says.
Errors:  ``InvalidSpec`` for limits that no run can have. ``ended`` makes the errors of a run: ``JobFailed``,
         ``DeadlinePassed`` and ``Cancelled`` with their class's fixed words for the caller. What the program itself
         wrote stands in their attribute ``log`` only, which the caller may show in a test environment and nowhere
         else; why, in their attribute ``reason``.
Not here: the jail (``jail``), the warm ones (``pool``), whether a level holds on this machine (``probes``).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TypeVar

from sandbox.errors import InvalidSpec, SandboxError

Failure = TypeVar("Failure", bound=SandboxError)


class Level(enum.StrEnum):
    """What stands between merchant code and the machine, strongest first."""

    CONFINED = "confined"  # a uid of its own, namespaces (bubblewrap), seccomp, cgroup
    UNPRIVILEGED = "unprivileged"  # the node is not root: namespaces and seccomp under its uid, rlimits and a watcher
    NARROWED = "narrowed"  # no namespaces: Landlock and seccomp, a uid of its own if root, rlimits and a watcher


class Reason(enum.StrEnum):
    """Why a run ended badly. For the node's owner, and in a test environment for the merchant."""

    PROGRAM = "the program ended with an error"
    MEMORY = "the program used more memory than its limit"
    CPU = "the program used more processor time than its limit"
    DISK = "the program wrote more than its limit"
    OUTPUT = "the program left outputs that are not allowed: too many, too large, or not plain tables"
    TIME = "the program did not end in its time"
    STOPPED = "the run was stopped"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use; inclusive."""

    memory_mib: int = 2048
    wall_s: float = 600.0
    cpu_s: int = 1200  # of all its processes together
    processes: int = 64  # and threads
    disk_mib: int = 512  # everything it may write, outputs included; in memory, and counted there too
    files: int = 4096  # inodes
    log_bytes: int = 65536
    cores: int = 1
    outputs: int = 32
    output_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        least = {"memory_mib": 64, "processes": 4, "disk_mib": 1, "files": 16, "log_bytes": 0}
        for one in fields(self):
            if not getattr(self, one.name) >= least.get(one.name, 0) or (one.name == "wall_s" and self.wall_s <= 0):
                raise InvalidSpec(f"the limit {one.name} of a run is too low")
        if self.cpu_s < 1 or self.cores < 1 or self.outputs < 1:
            raise InvalidSpec("a run needs a processor, time on it, and an output")

    def starts_like(self, other: Limits) -> bool:
        """Whether a jail started for ``other`` serves these too: they differ only in what is judged from outside."""
        outside = ("wall_s", "log_bytes", "outputs", "output_bytes")
        return all(getattr(self, f.name) == getattr(other, f.name) for f in fields(self) if f.name not in outside)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run that succeeded left. Nothing of it has passed a gate."""

    tables: Mapping[str, bytes] = field(repr=False)  # by output name: Arrow IPC stream, written by untrusted code
    log: bytes = field(repr=False)  # standard output and error, cut in the middle
    seconds: float  # from the word to go until every process was gone
    peak_mib: int
    level: Level


def ended(kind: type[Failure], reason: Reason, log: bytes = b"") -> Failure:
    """Return the error for a run that ended badly, with nothing from inside in its text."""
    error = kind(str(reason), stage="jail")
    vars(error).update(reason=reason, log=log)
    return error


def told_by(error: SandboxError) -> bytes:
    """Return what the program wrote before it ended as ``error``; for test environments only."""
    log: bytes = vars(error).get("log", b"")
    return log
