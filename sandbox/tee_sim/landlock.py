"""Landlock: what a process that has no mount namespace of its own may open.

Source:   landlock(7); ABI 6 (Linux 6.12) also keeps signals and abstract sockets inside.
Security: only ``open`` and its like are ruled; that a file exists, its size and times can still be asked for where
          its folder lets this uid through. Changing modes, owners and attributes is not ruled either: seccomp does.
Errors:   ``OSError`` from the kernel.
Not here: the system call filter (``seccomp``), who is restricted when (``warden``).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from typing import Final

NEEDED_ABI: Final = 6
_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same numbers on every architecture we know
_VERSION_FLAG: Final = 1
_PATH_BENEATH: Final = 1
_EXECUTE, _WRITE, _READ, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_DIR, _MAKE_REG, _TRUNCATE = 1 << 7, 1 << 8, 1 << 14
_EVERY_FILE_RIGHT: Final = (1 << 16) - 1  # up to IOCTL_DEV, ABI 5
_EVERY_PORT_RIGHT: Final = 3
_EVERY_SCOPE: Final = 3  # abstract unix sockets, signals

LIBRARIES: Final = _EXECUTE | _READ | _READ_DIR
INPUTS: Final = _EXECUTE | _READ | _READ_DIR  # a bundle may hold a shared library
DEVICE: Final = _READ | _WRITE
FACTS: Final = _READ
WORK: Final = _READ | _WRITE | _READ_DIR | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _TRUNCATE
_ON_FILES: Final = _EXECUTE | _READ | _WRITE | _TRUNCATE

_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """Return the version the kernel has, 0 for none."""
    return max(0, int(_libc.syscall(_CREATE, None, 0, _VERSION_FLAG)))


def restrict(rules: Iterable[tuple[str, int]]) -> None:
    """Restrict the calling thread and its children to what is beneath the paths; what does not exist is left out.

    Needs no privilege once no_new_privs is set.
    """
    attributes = struct.pack("=QQQ", _EVERY_FILE_RIGHT, _EVERY_PORT_RIGHT, _EVERY_SCOPE)
    ruleset = _call(_CREATE, attributes, len(attributes), 0)
    for path, rights in rules:
        if not os.path.exists(path):
            continue
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        wanted = rights if os.path.isdir(path) else rights & _ON_FILES
        _call(_ADD, ruleset, _PATH_BENEATH, struct.pack("=Qi", wanted, handle), 0)
        os.close(handle)
    _call(_RESTRICT, ruleset, 0)
    os.close(ruleset)


def _call(number: int, *arguments: int | bytes) -> int:
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    done = int(_libc.syscall(ctypes.c_long(number), *words))
    if done < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return done
