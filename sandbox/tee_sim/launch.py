"""Starts a jail's warden and speaks with it. The other end is ``warden``.

Security: the warden gets an empty environment and only the handles it needs. It ends the jail when this process
          ends, however that happens.
Errors:   ``Unavailable`` naming what the machine lacks, ``JobFailed`` otherwise.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from sandbox.errors import JobFailed, Unavailable
from sandbox.tee_sim import cgroup, inside, landlock, leases, processes, runtime, seccomp, warden
from sandbox.tee_sim.levels import Level, Limits
from sandbox.tee_sim.link import HINTS, Warden

_EXTRA_PROCESSES: Final = 4  # bubblewrap's own
_SHARE: Final = 16  # of the limit on memory: the largest array whose memory is kept
_OWN_MIB: Final = 32  # what the C library keeps by itself
_BUBBLEWRAP: Final = "/usr/bin:/usr/local/bin:/bin"


@dataclass(frozen=True, slots=True)
class Start:
    """How a node starts its jails."""

    level: Level
    scratch: Path  # a folder of the node's own
    preload: tuple[str, ...] = ("numpy", "pandas", "pyarrow")
    uids: range = leases.UIDS
    uid_locks: Path = leases.UID_LOCKS


def launch(start: Start, limits: Limits) -> Warden:
    """Start a warden that builds a jail; returns at once.

    Raises:
        Unavailable: the machine or this node's rights do not allow it.
    """
    root = os.geteuid() == 0
    if start.level is Level.CONFINED and not root:
        raise Unavailable(
            "confined, but not root",
            tell="the level `confined` needs root",
            hint="configure the level `unprivileged`, or run the node as root",
        )
    wrapper = shutil.which("bwrap", path=_BUBBLEWRAP) if start.level is not Level.NARROWED else ""
    if wrapper is None:
        tell, hint = HINTS["bubblewrap"]
        raise Unavailable("bwrap is not installed", tell=tell, hint=hint)
    seen = runtime.visible(readable_by_others=root and start.level is not Level.CONFINED)
    with contextlib.ExitStack() as undo, _no_raw_errors():
        folder = leases.make_folder(start.scratch)
        undo.callback(shutil.rmtree, folder.path, ignore_errors=True)
        handles = [folder.lock]
        undo.callback(_close_all, handles)
        identity = None
        if root:
            uid, lock = leases.take_uid(start.uids, start.uid_locks)
            handles.append(lock)
            identity = (uid, uid)
            (folder.path / "uid").write_text(str(uid))
        order = _order(start, limits, seen, folder.path, identity, wrapper)
        group = None
        if start.level is Level.CONFINED:
            group = cgroup.create(folder.token, limits.memory_mib, limits.processes + _EXTRA_PROCESSES, limits.cores)
            undo.callback(group.remove)
            (folder.path / "groups").write_text("\n".join(os.path.dirname(path) for path in group.joins))
            order["joins"] = group.joins
        made = _spawn(order, handles, folder)
        undo.pop_all()
    _close_all(handles)
    made.identity, made.group, made.level = identity, group, start.level
    made.limit_log(limits.log_bytes)
    return made


def _spawn(order: dict[str, Any], kept: list[int], folder: leases.Folder) -> Warden:
    control, theirs = socket.socketpair()
    go_in, go = os.pipe()
    log, log_out = os.pipe()
    ready, ready_out = os.pipe()
    given = (go_in, log_out, log_out, ready_out)
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", warden.__file__, str(theirs.fileno()), _commas(given), _commas(kept)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"LC_ALL": "C.UTF-8"},
            cwd="/",
            pass_fds=(theirs.fileno(), *given, *kept),
            start_new_session=True,
        )
    except BaseException:
        _close_all([go, log, ready])
        control.close()
        raise
    finally:
        theirs.close()
        _close_all([go_in, log_out, ready_out])
    os.set_blocking(log, False)
    with contextlib.suppress(OSError):  # a warden that is already dead is noticed when it is waited for
        control.sendall(json.dumps(order).encode() + b"\n")
    return Warden(process, control, (go, log, ready), folder)


def _order(
    start: Start, limits: Limits, seen: runtime.Runtime, folder: Path, identity: tuple[int, int] | None, wrapper: str
) -> dict[str, Any]:
    """Return all that the warden needs to know."""
    narrowed = start.level is Level.NARROWED
    own = processes.threads_of(os.geteuid()) if narrowed and identity is None else 0
    home, library = ("/runtime", f"lib/{seen.library.name}") if not narrowed else (str(seen.home), "")
    place, tmp = ("/job", "/tmp") if not narrowed else (str(folder), str(folder / "tmp"))  # noqa: S108 - in the jail
    program = "/runtime/bin/python" if not narrowed else str(seen.interpreter)
    site = "/runtime/site" if not narrowed else str(folder / "site")
    script = "/runtime/inside.py" if not narrowed else str(folder / "inside.py")
    numbers, preload = (str(limits.cores), str(limits.memory_mib)), ",".join(start.preload)
    order: dict[str, Any] = {
        "level": start.level.value,
        "limits": asdict(limits),
        "identity": identity,
        "folder": str(folder),
        "joins": [],
        "nproc": limits.processes + _EXTRA_PROCESSES + own,
        "filter": seccomp.program().hex(),
        "bwrap": wrapper,
        "inside": inside.__file__,
        "library": library,
        "system": [str(path) for path in seen.system],
        "environment": _environment(home, tmp, limits),
        "command": [program, "-S", "-s", "-P", "-B", script, f"{place}/in", f"{place}/out", site, *numbers, preload],
    }
    if narrowed:
        order["rules"] = _narrow(seen, folder, identity)
    else:
        order["runtime"] = {
            "bin/python": str(seen.interpreter),
            library: str(seen.library),
            **{f"lib/{path.name}": str(path) for path in seen.shared},
            **{f"site/{name}": str(path) for name, path in seen.packages.items()},
        }
    return order


def allocator(memory_mib: int) -> dict[str, str]:
    """Return how the C library is told to keep freed memory for the next array, instead of giving it back at once.

    It gives back what is larger than it has seen freed, 32 MiB at most, so that every temporary column of a large
    table is zeroed page by page again: a third of the time of arithmetic over columns. Its rule stays, with a share of
    the limit in place of 32 MiB. The price is memory in holes between arrays, each below that share.
    """
    largest = memory_mib // _SHARE
    if largest <= _OWN_MIB:
        return {}
    return {"MALLOC_MMAP_THRESHOLD_": str(largest << 20), "MALLOC_TRIM_THRESHOLD_": str(largest << 21)}


def _environment(home: str, tmp: str, limits: Limits) -> dict[str, str]:
    """Return the whole environment of merchant code."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ARROW_NUM_THREADS", "LOKY_MAX_CPU_COUNT")
    return {
        "PATH": "",
        "HOME": tmp,
        "TMPDIR": tmp,
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONHOME": home,
        "PYTHONHASHSEED": "0",
        "LD_LIBRARY_PATH": f"{home}/lib",
        **dict.fromkeys(threads, str(limits.cores)),
        **allocator(limits.memory_mib),
    }


def _narrow(seen: runtime.Runtime, folder: Path, identity: tuple[int, int] | None) -> list[tuple[str, int]]:
    """Lay out the folder of a jail that has no mounts of its own; return what it may open."""
    for name, mode in (("in", 0o755), ("out", 0o700), ("tmp", 0o700), ("site", 0o755)):
        (folder / name).mkdir()
        (folder / name).chmod(mode)
    for name, path in seen.packages.items():
        (folder / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "site" / name).symlink_to(path)
    shutil.copyfile(inside.__file__, folder / "inside.py")
    (folder / "inside.py").chmod(0o644)
    if identity is not None:
        for name in ("out", "tmp"):
            os.chown(folder / name, *identity)
        os.chown(folder, 0, identity[1])
        folder.chmod(0o750)
    libraries = [seen.interpreter, seen.library, *seen.shared, *seen.packages.values(), *seen.system]
    libraries += [path for path in (Path("/lib"), Path("/lib64")) if not path.is_symlink()]
    rules = [(str(path), landlock.LIBRARIES) for path in (*libraries, folder / "site", folder / "inside.py")]
    rules += [(str(folder / "in"), landlock.INPUTS)]
    rules += [(str(folder / name), landlock.WORK) for name in ("out", "tmp")]
    rules += [(path, landlock.DEVICE) for path in ("/dev/null", "/dev/zero", "/dev/full")]
    rules += [(path, landlock.FACTS) for path in ("/dev/urandom", "/dev/random", "/proc/cpuinfo", "/proc/meminfo")]
    # DuckDB ends the process if these are there and may not be read.
    rules += [(path, landlock.FACTS) for path in ("/proc/self/cgroup", *cgroup.limit_files())]
    return rules


@contextlib.contextmanager
def _no_raw_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JobFailed(f"a jail could not be started: {error.strerror}", stage="jail") from error


def _commas(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))


def _close_all(handles: Iterable[int]) -> None:
    for handle in handles:
        os.close(handle)
