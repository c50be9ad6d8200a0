"""What jobs that run in the jail share: at which level, under which limits, and where it stands.

Security:  a plan names the level that the node's own probes found; the run is started at this level and no other.
           Rows are written into file systems that only the jail and its warden have mounted; at level ``narrowed``,
           which has none, into a folder of the jail's own, removed with it. A jail that waits between jobs knows of
           none, and serves one.
Units:     MiB, bytes, seconds.
Errors:    those of the jail.
Not here:  what is run, and whether a level holds here (``tee_sim.probes``).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from sandbox.crypto.sm3 import tagged
from sandbox.errors import InvalidSpec, JobFailed
from sandbox.kinds.kind import Task
from sandbox.model import JobKind, JobSpec, ModelSpec, Plan, QuerySpec, Scenario
from sandbox.tee_sim.levels import Level, Limits, Outcome
from sandbox.tee_sim.pool import Pool

JAIL: Final = "jail"  # among a node's engines
CONSOLE: Final = "console"  # the artefact with what a merchant's code printed over a twin
SIMULATED: Final = "SIMULATED"
KINDS: Final = frozenset({JobKind.QUERY, JobKind.MODEL})
LIBRARIES: Final = ("pyarrow",)  # imported before there is a job
_MOST_MEMORY: Final = 0.6  # of the machine's
_LEAST_MIB: Final = 768
_SLACK_MIB: Final = 64
_MIB: Final = 1 << 20


def at_level(level: Level) -> str:
    """Return the name under which a node's engines say whether it confines code at a level."""
    return f"{JAIL}, {level}"


def isolation(level: Level) -> str:
    """Return how plans, quotes and entries name a level: never without saying what it is not."""
    return f"{level} {SIMULATED}"


def level_of(plan: Plan) -> Level:
    """Return the level that a plan names."""
    name, _, mark = plan.isolation.partition(" ")
    if name not in set(Level) or mark != SIMULATED:
        raise InvalidSpec("the plan names no level at which code is confined")
    return Level(name)


def program_of(spec: JobSpec) -> bytes:
    """Return the measurement of what a job runs: of the bundle, or of the statement as it was written."""
    if isinstance(spec.kind, ModelSpec):
        return spec.kind.bundle
    if isinstance(spec.kind, QuerySpec):
        return tagged("statement", spec.kind.sql.encode())
    raise InvalidSpec("this kind of job runs no program")


def least(scenario: Scenario) -> Level:
    """Return the weakest level that a scenario accepts."""
    return Level(scenario.isolation or Level.CONFINED)


def scratch() -> Path:
    """Return where this user's jails have their folders: a place of its own that other uids may pass through."""
    return Path(tempfile.gettempdir()) / f"sandbox-jails-{os.geteuid()}"


def limits(task: Task, input_bytes: int, per_byte: float) -> Limits:
    """Return what one run may use.

    Args:
        input_bytes: of all its tables together.
        per_byte: how much memory the work takes for each of them, about.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MIB
    wanted, memory = _LEAST_MIB + int(input_bytes * per_byte) // _MIB, _LEAST_MIB
    while memory < wanted - _SLACK_MIB:  # in steps, so that jobs of about one size can use each other's waiting jails
        memory *= 2
    memory = min(memory, max(_LEAST_MIB, int(machine * _MOST_MEMORY)))
    return Limits(memory_mib=memory, wall_s=task.deadline_s, cpu_s=int(task.deadline_s) * task.cores, cores=task.cores)


@dataclass(slots=True)
class _Waiting:
    """The jail that waits in this process for the next job, if one does."""

    is_wanted: bool = False
    pool: Pool | None = None
    allowed: Limits | None = None


_waiting = _Waiting()


def stay_warm() -> None:
    """From the first job on, keep a jail waiting in this process, started as the last job's was: a job after it is
    spared the start. It ends with the process."""
    _waiting.is_wanted = True


@contextmanager
def jails(task: Task, allowed: Limits) -> Iterator[Pool]:
    """Give where this job's jail comes from: the one that waits, if it was started for such a job."""
    level = level_of(task.plan)
    counts_threads = level is Level.NARROWED and os.geteuid() != 0  # of all its user's, as they are at its start
    if not _waiting.is_wanted or counts_threads:
        with Pool(0, level, scratch=scratch(), preload=LIBRARIES) as pool:
            yield pool
        return
    kept = _waiting.pool
    if kept is None or kept.level is not level or _waiting.allowed is None or not allowed.starts_like(_waiting.allowed):
        if kept is not None:
            _waiting.pool = None
            kept.close()
        kept = Pool(1, level, allowed, scratch=scratch(), preload=LIBRARIES)
        _waiting.pool, _waiting.allowed = kept, allowed
    yield kept


def run(task: Task, program: Path, tables: Mapping[str, pa.Table], params: bytes, allowed: Limits) -> Outcome:
    """Run a program of the node's own over tables; ends at once when the job is stopped."""
    stop: Any = task.stopped()
    with jails(task, allowed) as pool, pool.take(allowed) as jail:
        outcome = jail.run(program, tables, params, stop)
    if outcome.level is not level_of(task.plan):
        raise JobFailed("the jail stood at another level than was planned", stage=JAIL)
    return outcome
