"""The few calls to the kernel that Python 3.11 does not have: mounts, namespaces, process attributes, filters.

Units:   flags as in the kernel's headers.
Errors:  ``OSError``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from typing import Final

RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
NEWNS, NEWUSER = 0x00020000, 0x10000000
_PDEATHSIG, _DUMPABLE, _SECCOMP, _SUBREAPER, _NO_NEW_PRIVS = 1, 4, 22, 36, 38
_FILTER_MODE: Final = 2

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Mount; ``kind`` is empty for binds and changes."""
    _check(
        _libc.mount(
            source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None
        )
    )


def unshare(flags: int) -> None:
    """Leave the namespaces of the parent."""
    _check(_libc.unshare(flags))


def die_with_parent(signal: int) -> None:
    """Have the kernel send this process a signal when the thread that started it ends."""
    _prctl(_PDEATHSIG, signal)


def forgo_privileges() -> None:
    """Never gain a privilege by executing a file."""
    _prctl(_NO_NEW_PRIVS, 1)


def be_readable() -> None:
    """Own ``/proc/self`` again after a change of identity."""
    _prctl(_DUMPABLE, 1)


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent ends."""
    _prctl(_SUBREAPER, 1)


def install_filter(program: bytes) -> None:
    """Put a system call filter on the calling thread and its children."""
    record = _Program(len(program) // 8, program)
    _check(_libc.prctl(_SECCOMP, ctypes.c_ulong(_FILTER_MODE), ctypes.byref(record), 0, 0))


@contextlib.contextmanager
def acting_on_files_as(uid: int, gid: int) -> Iterator[None]:
    """Have this thread, if it is root's, make and open files as somebody else."""
    if os.geteuid() != 0:
        yield
        return
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    try:
        yield
    finally:
        _libc.setfsuid(0)
        _libc.setfsgid(os.getegid())


def _prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0))


def _check(result: int) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
