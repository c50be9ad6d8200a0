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
from typing import Any, BinaryIO, Final

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
    """Write everything the jail reads; return how many bytes of tables.

    Raises:
        InvalidSpec: the program or a table is not as described.
        JobFailed: there is no room, or the node may not read what it was given.
    """
    job = _job(program, list(inputs))
    owner = warden.identity if warden.level is Level.UNPRIVILEGED else None
    try:
        with contextlib.ExitStack() as handles:
            folder = _Folder(warden.inputs, owner, handles)
            folder.put("job.json", json.dumps(job).encode())
            folder.put("params", params)
            _copy_program(program, folder.inner("program"))
            tables = folder.inner("tables")
            return sum(_put_table(tables, f"{number}.arrow", table) for number, table in enumerate(inputs.values()))
    except OSError as error:
        raise JobFailed(f"the job could not be put into the jail: {error.strerror}", stage="jail") from error


class _Folder:
    """A folder of the jail's that the node writes, as the user whom its file system belongs to."""

    def __init__(self, handle: int, owner: tuple[int, int] | None, handles: contextlib.ExitStack) -> None:
        self._handle, self._owner, self._handles = handle, owner, handles

    def inner(self, name: str) -> _Folder:
        with self._as_owner():
            os.mkdir(name, 0o755, dir_fd=self._handle)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
            handle = os.open(name, flags, dir_fd=self._handle)
            self._handles.callback(os.close, handle)
            os.fchmod(handle, 0o755)  # whatever the umask: the jail has another uid
        return _Folder(handle, self._owner, self._handles)

    def new(self, name: str) -> BinaryIO:
        with self._as_owner():
            handle = os.open(name, _NEW, 0o644, dir_fd=self._handle)
            os.fchmod(handle, 0o644)
        return os.fdopen(handle, "wb")

    def put(self, name: str, content: bytes) -> None:
        with self.new(name) as file:
            file.write(content)

    def _as_owner(self) -> contextlib.AbstractContextManager[None]:
        return kernel.acting_on_files_as(*self._owner) if self._owner else contextlib.nullcontext()


def _put_table(folder: _Folder, name: str, table: Path | pa.Table) -> int:
    """Write a table, or copy the file it is in; return its size there."""
    with folder.new(name) as file:
        if isinstance(table, Path):
            _copy(table, file)
        else:
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
            file.flush()
        return os.fstat(file.fileno()).st_size


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
    try:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode) or state.st_nlink != 1:
            raise JobFailed("an output is not a plain file", stage="jail")
        if state.st_size > most:
            raise JobFailed("the outputs are too large", stage="jail")
        parts = []
        while part := os.read(handle, 1 << 24):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(handle)


def _job(program: Path, tables: list[str]) -> dict[str, Any]:
    try:
        job = json.loads((program / "program.json").read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidSpec("the program folder has no readable program.json") from error
    if not isinstance(job, dict) or job.get("form") not in _FORMS:
        raise InvalidSpec("program.json does not say which form the program has")
    return {**job, "tables": tables}


def _copy_program(program: Path, target: _Folder) -> None:
    """Copy a folder of plain files."""
    count = size = 0
    targets = {".": target}
    for parent, folders, files, here in os.fwalk(program, follow_symlinks=False):
        inside = os.path.relpath(parent, program)
        into = targets.pop(inside)
        for name in folders:
            if stat.S_ISLNK(os.stat(name, dir_fd=here, follow_symlinks=False).st_mode):
                raise InvalidSpec("a program may not contain links")
            targets[os.path.normpath(os.path.join(inside, name))] = into.inner(name)
        for name in files:
            count += 1
            state = os.stat(name, dir_fd=here, follow_symlinks=False)
            size += state.st_size
            if not stat.S_ISREG(state.st_mode):
                raise InvalidSpec("a program may contain plain files only")
            if count > _MOST_FILES or size > _MOST_BYTES:
                raise InvalidSpec("a program is too large")
            source = os.open(name, _OLD, dir_fd=here)
            try:
                with into.new(name) as file:
                    _send(source, file)
            finally:
                os.close(source)


def _copy(path: Path, target: BinaryIO) -> None:
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


def _send(source: int, target: BinaryIO) -> None:
    while os.sendfile(target.fileno(), source, None, 1 << 30):
        continue
