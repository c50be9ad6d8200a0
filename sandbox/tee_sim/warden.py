"""The process beside each jail: it builds the jail, outlives nothing, and cleans up. Run by file name.

    node  --- order, one JSON line ----------------------------------->  warden
    node <--- {"started", "base"} and the folders in, out, room --------  warden      as handles
    node <--- {"status"} -----------------------------------------------  warden     every process is gone
    node  --- "k" ------------------------------------------------------>  warden     end it now
    node hangs up, or dies  -------------------------------------------->  warden     end it, clean up, leave

What is inside may use all of its limits, fork and ignore signals: this process is its ancestor, adopts what it
leaves behind, and says that the run is over only when no descendant is left. At the levels with namespaces the
inputs and outputs are on file systems in memory that only this process and the jail have mounted: they are gone
with them, whatever happens.

Security: started with an empty environment and a handle to the node, none of the node's other handles; the jail gets
          its standard streams and one handle to say that it is ready.
Errors:   {"failed": step, "errno"} to the node.
Not here: when to end a run (``jail``), what merchant code sees (``inside``).
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
import time
from typing import Any, Final

if __name__ == "__main__":  # run as a file, isolated: the package is found from where the file is
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from sandbox.tee_sim import kernel, landlock, processes, stage

_STREAMS: Final = 4  # 0 orders, 1 and 2 log, 3 ready
_DEAF_TO: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
_LOOK_S: Final = 1.0
_GRACE_S: Final = 10.0
_FREE: Final = 10  # handles for bubblewrap start here
_CPU_GRACE_S: Final = 10  # what the libraries took to start; the exact sum is looked at from outside


class _Step:
    """What is being done, for the message if it fails."""

    name = "order"


def _restrict_resources(order: dict[str, Any]) -> None:
    limits = order["limits"]
    cpu, disk = limits["cpu_s"] + _CPU_GRACE_S, limits["disk_mib"] << 20
    each = {
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_CPU: (cpu, cpu + 1),
        resource.RLIMIT_FSIZE: (disk, disk),
        resource.RLIMIT_NOFILE: (1024, 1024),
        resource.RLIMIT_MSGQUEUE: (0, 0),
        resource.RLIMIT_MEMLOCK: (0, 0),
        resource.RLIMIT_NPROC: (order["nproc"], order["nproc"]),
    }
    if not order["joins"]:
        # The watcher looks from time to time; this holds for each process at every moment. Private memory only, so
        # that inputs mapped from files do not count.
        size = (limits["memory_mib"] << 20) + (256 << 20)
        each[resource.RLIMIT_DATA] = (size, size)
        processors = sorted(os.sched_getaffinity(0))
        first = os.getpid() % len(processors)
        chosen = (processors[first:] + processors[:first])[: limits["cores"]]
        os.sched_setaffinity(0, chosen)
    for what, bounds in each.items():
        resource.setrlimit(what, bounds)


def _become(identity: list[int] | None) -> None:
    """Give up root for good, for a uid that nobody else has."""
    if identity is None:
        return
    uid, gid = identity
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    kernel.be_readable()


def _enter(order: dict[str, Any], streams: list[int], trouble: int, warden: int) -> None:
    """Turn this fresh child into the jail; does not return."""
    try:
        _Step.name = "control group"
        for file in order["joins"]:
            with open(file, "w", encoding="utf-8") as procs:
                procs.write("0")
        for name in (*_DEAF_TO, signal.SIGXFSZ):
            signal.signal(name, signal.SIG_DFL)
        _Step.name = "standard streams"
        for number, stream in enumerate(streams):
            os.dup2(stream, number, inheritable=True)
        _Step.name = "resource limits"
        _restrict_resources(order)
        _Step.name = "identity"
        if os.geteuid() == 0:
            _become(order["identity"])
        kernel.die_with_parent(signal.SIGKILL)
        if os.getppid() != warden:
            os._exit(127)
        kernel.forgo_privileges()
        os.umask(0o077)
        if order["level"] == "narrowed":
            os.setsid()
            _Step.name = "landlock"
            landlock.restrict((path, rights) for path, rights in order["rules"])
            _Step.name = "seccomp"
            kernel.install_filter(bytes.fromhex(order["filter"]))
            os.chdir(order["folder"])
            os.execve(order["command"][0], order["command"], order["environment"])  # noqa: S606 - fixed by us
        _Step.name = "bubblewrap"
        wall = stage.in_memory(bytes.fromhex(order["filter"]), _FREE)
        options = stage.in_memory(b"\0".join(os.fsencode(one) for one in stage.options(order, wall)), _FREE)
        os.execve(order["bwrap"], ["bwrap", "--args", str(options), "--", *order["command"]], {})  # noqa: S606
    except BaseException as error:  # a child after fork must never run its parent's code
        code = getattr(error, "errno", None) or 0
        os.write(trouble, json.dumps({"failed": _Step.name, "errno": code}).encode())
    finally:
        os._exit(127)


def _end(child: int) -> int:
    """End everything that is left and collect it; return how the first child ended."""
    status = -1
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if child:
            os.killpg(child, signal.SIGKILL)  # without a pid namespace: nobody inside can leave the session's group
    while True:
        for other in processes.descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(other, signal.SIGKILL)
        try:
            process, raw = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if process == child:
            status = os.waitstatus_to_exitcode(raw)
        elif process == 0:
            time.sleep(0.002)


def _follow(control: socket.socket, child: int) -> bool:
    """Wait until the child ends or the node says so; whether the node is still there."""
    parent = os.getppid()
    handle = os.pidfd_open(child)
    try:
        with select.epoll() as poll:
            poll.register(control.fileno(), select.EPOLLIN | select.EPOLLHUP)
            poll.register(handle, select.EPOLLIN)
            while True:
                ready = {number for number, _ in poll.poll(_LOOK_S)}
                if control.fileno() in ready:
                    return bool(control.recv(1))
                if handle in ready:
                    return True
                if os.getppid() != parent:  # a process the node has forked may hold the other end open
                    return False
    finally:
        os.close(handle)


def _say(control: socket.socket, handles: list[int] | None = None, **message: object) -> None:
    line = json.dumps(message).encode() + b"\n"
    with contextlib.suppress(OSError):  # a node that has hung up is noticed where it is waited for
        socket.send_fds(control, [line], handles or [])


def main() -> None:
    """Read the order, and follow it whatever happens."""
    for name in _DEAF_TO:
        signal.signal(name, signal.SIG_IGN)  # the node is being stopped: that is when this process is needed
    os.umask(0o077)
    control = socket.socket(fileno=int(sys.argv[1]))
    streams, kept = ([int(number) for number in argument.split(",")] for argument in sys.argv[2:4])
    for number in (control.fileno(), *streams, *kept):
        os.set_inheritable(number, False)
    with control.makefile("rb") as lines:
        line = lines.readline()
    if not line.endswith(b"\n"):
        return
    order: dict[str, Any] = json.loads(line)
    kernel.adopt_orphans()
    scratch = os.open(os.path.dirname(order["folder"]), os.O_RDONLY | os.O_DIRECTORY)  # a mount may come to hide it
    try:
        _serve(order, control, streams)
    except Exception as error:  # the node's log has the step and the kernel's reason; no text from further in
        _say(control, failed=_Step.name, errno=getattr(error, "errno", None) or 0)
    finally:
        _end(0)
        _clean(order, scratch)


def _serve(order: dict[str, Any], control: socket.socket, streams: list[int]) -> None:
    """Build the jail, wait, end it, let the node take what it left."""
    folders = _prepare(order)
    child, trouble = _start(order, streams)
    for stream in set(streams):
        os.close(stream)
    failed = b"".join(iter(lambda: os.read(trouble, 4096), b""))
    if failed:
        control.sendall(failed + b"\n")
        return
    _say(control, folders, started=child)
    for folder in folders:
        os.close(folder)
    _Step.name = "run"
    present = _follow(control, child)
    status = _end(child)
    if present:
        _say(control, status=status)
        control.settimeout(_GRACE_S)
        with contextlib.suppress(OSError):
            while control.recv(1):  # until the node has taken the outputs
                pass


def _prepare(order: dict[str, Any]) -> list[int]:
    """Make what the jail will see; return the folders for the node."""
    _Step.name = "namespace for mounts"
    if order["level"] == "confined":
        kernel.unshare(kernel.NEWNS)
        return stage.build(order)
    if order["level"] == "unprivileged":
        if os.geteuid() == 0:
            _become(order["identity"])
        stage.enter_user_namespace()
        return stage.build(order)
    return [os.open(os.path.join(order["folder"], name), os.O_RDONLY | os.O_DIRECTORY) for name in ("in", "out")]


def _start(order: dict[str, Any], streams: list[int]) -> tuple[int, int]:
    _Step.name = "fork"
    high = [stage.high(stream, _STREAMS) for stream in streams]
    trouble, written = os.pipe()
    written_high = stage.high(written, _STREAMS)
    warden = os.getpid()
    child = os.fork()
    if child == 0:
        _enter(order, high, written_high, warden)
    for number in (*high, written, written_high):
        os.close(number)
    return child, trouble


def _clean(order: dict[str, Any], scratch: int) -> None:
    """Remove control groups and folder; the node looks after what this process may not remove."""
    for file in order["joins"]:
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(file))
    with contextlib.suppress(OSError):
        shutil.rmtree(os.path.basename(order["folder"]), dir_fd=scratch)


if __name__ == "__main__":
    main()
