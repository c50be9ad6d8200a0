"""Does a level hold on this machine? Asked by trying to get out.

``check`` is for the configured level and never settles for a weaker one; ``strongest`` is for choosing it. Both run
``probe_inside`` in a real jail with live targets outside, once a process, and remember the answer.

Errors:   ``Unavailable`` with the missing feature in ``tell`` and the fix in ``hint``.
Not here: that attempts fail which nobody thought of; the tests try more of them.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import tempfile
import threading
from pathlib import Path
from typing import Final

import pyarrow as pa

from sandbox.errors import JobFailed, SandboxError, Unavailable
from sandbox.tee_sim import landlock, probe_inside
from sandbox.tee_sim.levels import Level, Limits
from sandbox.tee_sim.link import HINTS
from sandbox.tee_sim.pool import Pool

_LIMITS: Final = Limits(memory_mib=256, wall_s=30.0, cpu_s=30, processes=16, disk_mib=16)
_MORE_MIB: Final = 1024
_answers: dict[Level, SandboxError | None] = {}
_lock = threading.Lock()


def strongest() -> Level:
    """Return the strongest level that holds here.

    Raises:
        Unavailable: none does; says what the first that could have held lacks.
    """
    candidates = [level for level in Level if level is not Level.CONFINED or os.geteuid() == 0]
    first: Unavailable | None = None
    for level in candidates:
        try:
            check(level)
        except Unavailable as error:
            first = first or error
        else:
            return level
    raise first or Unavailable("no level to try")


def check(level: Level) -> None:
    """Return if the level holds on this machine.

    Raises:
        Unavailable: it does not; no run may start at it.
    """
    with _lock:
        if level not in _answers:
            _answers[level] = _judge(level)
        answer = _answers[level]
    if answer is not None:
        raise Unavailable(str(answer), tell=answer.tell, hint=answer.hint)


def _judge(level: Level) -> SandboxError | None:
    """Return what speaks against a level, or nothing."""
    if level is Level.NARROWED and landlock.abi() < landlock.NEEDED_ABI:
        tell, hint = HINTS["landlock"]
        return Unavailable(f"Landlock has ABI {landlock.abi()}", tell=tell, hint=hint)
    try:
        with tempfile.TemporaryDirectory(prefix="sandbox-probe-") as name:
            _probe(level, Path(name))
    except SandboxError as error:
        return error
    return None


def _probe(level: Level, folder: Path) -> None:
    folder.chmod(0o711)  # other uids pass through to the jail's folder, and see nothing
    marker = folder / "marker"
    marker.write_text("readable to everybody who gets here")
    marker.chmod(0o644)
    program = folder / "program"
    program.mkdir()
    shutil.copyfile(probe_inside.__file__, program / "probe.py")
    (program / "program.json").write_text(json.dumps({"form": "python", "entry": "probe.py"}))
    name = f"sandbox-probe-{secrets.token_hex(8)}"
    with (
        socket.socket(socket.AF_INET) as port,
        socket.socket(socket.AF_UNIX) as abstract,
        Pool(0, level, _LIMITS, scratch=folder / "scratch", preload=()) as pool,
    ):
        port.bind(("127.0.0.1", 0))
        port.listen()
        abstract.bind(f"\0{name}")
        abstract.listen()
        params = {
            "port": port.getsockname()[1],
            "abstract": name,
            "marker": str(marker),
            "pid": os.getpid(),
            "processes": _LIMITS.processes * 4,
        }
        held = _run(pool, program, params)
        if held is None:
            raise _does_not_hold(level, "the probes did not come back")
        for probe, holds in zip(held["probe"].to_pylist(), held["held"].to_pylist(), strict=True):
            if holds is not True:
                raise _does_not_hold(level, str(probe))
        if _run(pool, program, {"mib": _MORE_MIB}) is not None:
            raise _does_not_hold(level, "memory")


def _run(pool: Pool, program: Path, params: dict[str, object]) -> pa.Table | None:
    """Return the table a probing run left; nothing if it did not get to its end."""
    with pool.take() as jail:
        try:
            outcome = jail.run(program, {}, json.dumps(params).encode(), threading.Event())
        except JobFailed:
            return None
        return pa.ipc.open_stream(outcome.tables["held"]).read_all()


def _does_not_hold(level: Level, probe: str) -> Unavailable:
    return Unavailable(
        f"level {level}: an escape probe got through: {probe}",
        tell=f"merchant code cannot be confined here: {probe}",
        hint=f"do not run merchant code on this machine at level `{level}`; choose another with `sandbox tee doctor`",
    )
