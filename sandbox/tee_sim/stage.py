"""What the jail sees, mounted where only its warden and itself can see it.

    /tmp in the warden's own mount namespace
        in/         job: program, tables, parameters; the node writes, the jail reads
        room/       out, tmp, shm: one file system of the size and the number of files the limits allow
        runtime/    bin, lib, site: interpreter, standard library and the pinned packages, read-only

Security: nothing else of the machine but its shared libraries and time zones is bound into the jail; everything
          but ``room`` is read-only; no set-uid, no devices, no executing from ``room``.
Errors:   ``OSError``.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from typing import Any, Final

from sandbox.tee_sim import kernel
from sandbox.tee_sim.kernel import BIND, NODEV, NOEXEC, NOSUID, PRIVATE, RDONLY, REC

STAGE: Final = "/tmp"  # noqa: S108 - a mount of our own over it, in a mount namespace of our own
NOBODY: Final = "65534"


def high(handle: int, least: int) -> int:
    """Return a copy of a handle with a number out of the way of the standard ones."""
    return fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, least + 8)


def in_memory(content: bytes, least: int) -> int:
    """Return a handle, to be inherited, from which ``content`` can be read."""
    handle = os.memfd_create("jail", os.MFD_CLOEXEC)
    os.write(handle, content)
    os.lseek(handle, 0, os.SEEK_SET)
    inherited = fcntl.fcntl(handle, fcntl.F_DUPFD, least)
    os.close(handle)
    return inherited


def enter_user_namespace() -> None:
    """Be able to mount, without being root anywhere else."""
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.NEWUSER | kernel.NEWNS)
    for file, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{file}", "w", encoding="utf-8") as control:
            control.write(text)


def build(order: dict[str, Any]) -> list[int]:
    """Mount everything in this process's own mount namespace; return handles to ``in``, ``out`` and ``room``."""
    kernel.mount("none", "/", "", REC | PRIVATE)
    runtime = order["runtime"]
    sources = {name: os.open(path, os.O_PATH | os.O_CLOEXEC) for name, path in runtime.items()}
    with open(order["inside"], "rb") as file:
        inside = file.read()
    owner = order["identity"] or [os.geteuid(), os.getegid()]
    limits = order["limits"]
    _memory(STAGE, "size=4m,mode=0755")
    for name in ("in", "room", "runtime"):
        os.mkdir(f"{STAGE}/{name}", 0o755)
        os.chmod(f"{STAGE}/{name}", 0o755)  # noqa: S103 - whatever the umask: the jail has another uid
    _memory(f"{STAGE}/in", "size=75%,mode=0755", huge=True)
    _memory(f"{STAGE}/room", f"size={limits['disk_mib']}m,nr_inodes={limits['files'] + 4},mode=0755", NOEXEC)
    for name in ("out", "tmp", "shm"):
        os.mkdir(f"{STAGE}/room/{name}", 0o700)
        if os.geteuid() == 0:
            os.chown(f"{STAGE}/room/{name}", owner[0], owner[1])
    for name, source in sources.items():
        _show(source, f"{STAGE}/runtime/{name}")
    hidden = f"{STAGE}/runtime/{order['library']}/site-packages"
    if os.path.isdir(hidden):  # what is installed for the interpreter itself is not for the jail
        kernel.mount("tmpfs", hidden, "tmpfs", NOSUID | NODEV | RDONLY, "size=4k,mode=0755")
    target = f"{STAGE}/runtime/inside.py"
    with open(target, "wb") as file:
        file.write(inside)
    os.chmod(target, 0o644)
    return [os.open(f"{STAGE}/{name}", os.O_RDONLY | os.O_DIRECTORY) for name in ("in", "room/out", "room")]


def _memory(target: str, data: str, flags: int = 0, *, huge: bool = False) -> None:
    """Mount a file system in memory; one that is never swapped out, where the kernel lets us say so.

    Args:
        huge: it will hold large files, which large pages make twice as fast to write.
    """
    wishes = [",noswap,huge=within_size", ",huge=within_size"] if huge else []
    for wish in (*wishes, ",noswap", ""):
        try:
            kernel.mount("tmpfs", target, "tmpfs", NOSUID | NODEV | flags, data + wish)
        except OSError:
            if not wish:
                raise
        else:
            return


def _show(source: int, target: str) -> None:
    """Bind a file or a folder, read-only."""
    path = f"/proc/self/fd/{source}"
    parent = os.path.dirname(target)
    made = []
    while not os.path.isdir(parent):
        made.append(parent)
        parent = os.path.dirname(parent)
    for folder in reversed(made):
        os.mkdir(folder)
        os.chmod(folder, 0o755)  # noqa: S103 - as above
    if os.path.isdir(path):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    kernel.mount(path, target, "", BIND | REC)
    os.close(source)


def options(order: dict[str, Any], wall: int) -> Iterator[str]:
    """Yield bubblewrap's options; ``wall`` is the handle of the system call filter."""
    yield from ("--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session")
    yield from ("--clearenv", "--uid", NOBODY, "--gid", NOBODY, "--cap-drop", "ALL", "--hostname", "jail")
    yield from ("--ro-bind", f"{STAGE}/runtime", "/runtime")
    for path in order["system"]:
        yield from ("--ro-bind", path, path)
    for path in ("/lib", "/lib64"):
        if os.path.islink(path):
            yield from ("--symlink", os.readlink(path), path)
        elif os.path.isdir(path):
            yield from ("--ro-bind", path, path)
    yield from ("--proc", "/proc", "--dev", "/dev")
    yield from ("--ro-bind", f"{STAGE}/in", "/job/in", "--bind", f"{STAGE}/room/out", "/job/out")
    yield from ("--bind", f"{STAGE}/room/tmp", "/tmp", "--bind", f"{STAGE}/room/shm", "/dev/shm")  # noqa: S108
    yield from ("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/job", "--seccomp", str(wall))
    for name, value in order["environment"].items():
        yield from ("--setenv", name, value)
