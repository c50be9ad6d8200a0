"""Puts a job into the jail's input folder, and takes its outputs.

Shapes:  see ``inside``.
Security: nothing is followed: a link in a bundle is refused, an output that is not a plain file with one name of its
          own is refused. Outputs are bytes from untrusted code: they are counted here, and parsed by nobody.
Errors:   ``InvalidSpec`` for a program folder or an input that is not as described; ``JobFailed`` for outputs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from sandbox.errors import InvalidSpec, JobFailed
from sandbox.tee_sim import kernel
from sandbox.tee_sim.levels import Level, Limits
from sandbox.tee_sim.link import Warden

_OUTPUT: Final = re.compile(r"([a-z][a-z0-9_]{0,39})\.arrow")
_FORMS: Final = ("python", "onnx", "sql")
_MOST_FILES: Final = 1000
_MOST_BYTES: Final = 1 << 30
_NEW: Final = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_OLD: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def deliver(warden: Warden, program: Path, inputs: Mapping[str, Path | pa.Table], params: bytes) -> int:
    """Write everything the jail reads; return how many bytes of tables."""
    job = _job(program, list(inputs))
    folder = warden.inputs
    owner = warden.identity if warden.level is Level.UNPRIVILEGED else None
    with kernel.acting_on_files_as(*owner) if owner else contextlib.nullcontext():
        _put(folder, "job.json", json.dumps(job).encode())
        _put(folder, "params", params)
        _copy_program(program, _new_folder(folder, "program"))
        tables = _new_folder(folder, "tables")
        size = 0
        for number, table in enumerate(inputs.values()):
            handle = _new_file(tables, f"{number}.arrow")
            if isinstance(table, Path):
                _copy(table, handle)
            else:
                with (
                    os.fdopen(os.dup(handle), "wb", buffering=0) as file,
                    pa.ipc.new_file(file, table.schema) as writer,
                ):
                    writer.write_table(table)
            size += os.fstat(handle).st_size
            os.close(handle)
        os.close(tables)
    return size


def collect(folder: int, limits: Limits) -> dict[str, bytes]:
    """Return the outputs by name, from a jail in which nothing runs any more.

    Raises:
        JobFailed: too many, too large, or not plain files.
    """
    names: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            names.append(entry.name)
            if len(names) > limits.outputs:
                raise JobFailed("there are too many outputs", stage="jail")
    tables: dict[str, bytes] = {}
    left = limits.output_bytes
    for name in sorted(names):
        match = _OUTPUT.fullmatch(name)
        if match is None:
            raise JobFailed("an output does not have a plain name", stage="jail")
        tables[match[1]] = _take(folder, name, left)
        left -= len(tables[match[1]])
    return tables


def _take(folder: int, name: str, most: int) -> bytes:
    try:
        handle = os.open(name, _OLD, dir_fd=folder)
    except OSError as error:  # a link
        raise JobFailed("an output is not a plain file", stage="jail") from error
    with os.fdopen(handle, "rb") as file:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode) or state.st_nlink != 1:
            raise JobFailed("an output is not a plain file", stage="jail")
        if state.st_size > most:
            raise JobFailed("the outputs are too large", stage="jail")
        return file.read(most)


def _job(program: Path, tables: list[str]) -> dict[str, Any]:
    try:
        job = json.loads((program / "program.json").read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidSpec("the program folder has no readable program.json") from error
    if not isinstance(job, dict) or job.get("form") not in _FORMS:
        raise InvalidSpec("program.json does not say which form the program has")
    return {**job, "tables": tables}


def _copy_program(program: Path, target: int) -> None:
    """Copy a folder of plain files."""
    count = size = 0
    targets = {".": target}
    for parent, folders, files, here in os.fwalk(program, follow_symlinks=False):
        inside = os.path.relpath(parent, program)
        into = targets.pop(inside)
        for name in folders:
            if stat.S_ISLNK(os.stat(name, dir_fd=here, follow_symlinks=False).st_mode):
                raise InvalidSpec("a program may not contain links")
            targets[os.path.normpath(os.path.join(inside, name))] = _new_folder(into, name)
        for name in files:
            count += 1
            state = os.stat(name, dir_fd=here, follow_symlinks=False)
            size += state.st_size
            if not stat.S_ISREG(state.st_mode):
                raise InvalidSpec("a program may contain plain files only")
            if count > _MOST_FILES or size > _MOST_BYTES:
                raise InvalidSpec("a program is too large")
            handle = _new_file(into, name)
            source = os.open(name, _OLD, dir_fd=here)
            _send(source, handle)
            os.close(source)
            os.close(handle)
        os.close(into)


def _copy(path: Path, target: int) -> None:
    try:
        source = os.open(path, _OLD)
    except OSError as error:
        raise InvalidSpec("an input table cannot be opened") from error
    try:
        if not stat.S_ISREG(os.fstat(source).st_mode):
            raise InvalidSpec("an input table is not a plain file")
        _send(source, target)
    finally:
        os.close(source)


def _send(source: int, target: int) -> None:
    while os.sendfile(target, source, None, 1 << 30):
        continue


def _put(folder: int, name: str, content: bytes) -> None:
    with os.fdopen(_new_file(folder, name), "wb") as file:
        file.write(content)


def _new_file(folder: int, name: str) -> int:
    handle = os.open(name, _NEW, 0o644, dir_fd=folder)
    os.fchmod(handle, 0o644)  # whatever the umask: the jail has another uid
    return handle


def _new_folder(folder: int, name: str) -> int:
    os.mkdir(name, 0o755, dir_fd=folder)
    handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder)
    os.fchmod(handle, 0o755)
    return handle
