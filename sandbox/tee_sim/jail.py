"""One jail: merchant code in a process that can reach nothing but its inputs, and what becomes of it.

    with pool.take(limits) as jail:
        outcome = jail.run(program, {"people": table}, b'{"cut": 3}', stop)

A jail is started before there is a job for it: interpreter up, libraries imported, waiting. It serves one run.

Security: see ``docs/threat-model.md``. The node writes program and tables where the jail only reads, says go, and
          looks at nothing from inside but two pipes until every process is gone. Outputs are then opened without
          following links; only plain files with plain names count. What they contain is still the program's word.
Reveals:  to whoever sees the error: which class of end it was. Reasons and log go with the error to the node's owner
          (``levels.ended``).
Units:    seconds; bytes.
Errors:   ``JobFailed``, ``DeadlinePassed``, ``Cancelled`` for how a run ended; ``Unavailable`` if the jail cannot be
          built; ``InvalidSpec`` for a program folder that is none; ``WrongState`` for a second run.
Not here: which level to use (``probes``), how it is built (``warden``, ``stage``), what runs inside (``inside``).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from sandbox.errors import Cancelled, DeadlinePassed, JobFailed, SandboxError, WrongState
from sandbox.tee_sim.delivery import collect, deliver
from sandbox.tee_sim.launch import Start, launch
from sandbox.tee_sim.levels import Level, Limits, Outcome, Reason, ended
from sandbox.tee_sim.link import Warden
from sandbox.tee_sim.watch import Watch

__all__ = ["Jail", "Level", "Limits", "Outcome"]

_LOOK_S = 0.02
_WATCH_S = 0.05
_READY_S = 60.0
_END_S = 30.0
_KINDS: Mapping[Reason, type[DeadlinePassed | Cancelled]] = {Reason.TIME: DeadlinePassed, Reason.STOPPED: Cancelled}


class Jail:
    """One use; ``Pool.take`` makes it."""

    def __init__(self, start: Start, limits: Limits, given_back: Callable[[], None]) -> None:
        """Start the jail and return at once; it gets ready by itself."""
        self._limits, self._level, self._given_back = limits, start.level, given_back
        self._used = self._closed = False
        self._warden: Warden = launch(start, limits)

    def __enter__(self) -> Jail:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def level(self) -> Level:
        """What stands around it."""
        return self._level

    @property
    def alive(self) -> bool:
        """Whether it is still there, ready or getting so."""
        return not self._used and self._warden.poll(0.0) is None

    def serves(self, limits: Limits) -> bool:
        """Whether a run with these limits can use it."""
        return self._limits.starts_like(limits)

    def allow(self, limits: Limits) -> None:
        """Set the limits that are judged from outside."""
        self._limits = limits
        self._warden.limit_log(limits.log_bytes)

    def wait_ready(self, stop: threading.Event | None = None, timeout_s: float = _READY_S) -> None:
        """Wait until the interpreter in the jail waits for its job.

        Raises:
            Cancelled: ``stop`` was set first.
            Unavailable: the jail could not be built.
            JobFailed: it was built, but never became ready.
        """
        end = time.monotonic() + timeout_s
        while not self._warden.is_ready(_LOOK_S):
            if stop is not None and stop.is_set():
                raise ended(Cancelled, Reason.STOPPED)
            if self._warden.poll(0.0) is not None or time.monotonic() > end:
                self._warden.end(_END_S)
                raise self._warden.trouble()

    def run(
        self, program: Path, inputs: Mapping[str, Path | pa.Table], params: bytes, stop: threading.Event
    ) -> Outcome:
        """Run the program over the tables and return what it left, or raise what became of it.

        Args:
            program: a folder of plain files with ``program.json`` = {"form": "python" | "onnx" | "sql", ...}.
            inputs: by table name; a path is that of an Arrow IPC file.
            params: JSON, or empty.
            stop: when set, the run ends at once.
        """
        if self._used:
            raise WrongState("this jail has been used")
        self.wait_ready(stop)
        self._used = True
        size = deliver(self._warden, program, inputs, params)
        watch = Watch(self._warden, self._limits, size)
        began = time.monotonic()
        self._warden.go()
        cause = self._follow(watch, began + self._limits.wall_s, stop)
        if cause is not None:
            self._warden.end(_END_S)
        status = self._warden.status(_END_S)
        peak = watch.peak_mib()
        log = self._warden.log()
        if cause is None and status != 0:
            cause = self._cause(watch, status)
        if cause is not None:
            raise ended(_KINDS.get(cause, JobFailed), cause, log)
        try:
            tables = collect(self._warden.outputs, self._limits)
        except JobFailed as error:
            raise ended(JobFailed, Reason.OUTPUT, log) from error
        return Outcome(tables, log, time.monotonic() - began, peak, self._level)

    def close(self) -> None:
        """End it, whatever it does, and remove what it had."""
        self._used = True
        if not self._closed:
            self._closed = True
            self._warden.close()
            with contextlib.suppress(SandboxError):  # no other jail just now: whoever takes the next will be told
                self._given_back()

    def _follow(self, watch: Watch, end: float, stop: threading.Event) -> Reason | None:
        """Wait for the end; return why the run has to be ended from outside, if so."""
        looked = 0.0
        while self._warden.poll(_LOOK_S) is None:
            now = time.monotonic()
            if stop.is_set():
                return Reason.STOPPED
            if now > end:
                return Reason.TIME
            if now - looked >= _WATCH_S:
                looked = now
                if (reason := watch.look()) is not None:
                    return reason
        return None

    def _cause(self, watch: Watch, status: int) -> Reason:
        """Return why a run ended by itself, and not well."""
        return watch.afterwards(status) or Reason.PROGRAM
