"""A machine with things worth stealing, and a jail beside them: what the corpus in ``jail_attacks`` runs against."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from sandbox.errors import Unavailable
from sandbox.tee_sim import cgroup, probes, seccomp
from sandbox.tee_sim.levels import Level, Limits, Outcome
from sandbox.tee_sim.pool import Pool

CANARY = "canary-" + secrets.token_hex(16)
# Not the nodes' own, nor those of another run of these tests: what is left over is then known to be ours.
FIRST_UID = int(os.environ.get("JAIL_TEST_UIDS", 210_000 + os.getpid() % 50 * 100))
UIDS = range(FIRST_UID, FIRST_UID + 99)
SMALL = Limits(memory_mib=512, wall_s=30.0, cpu_s=60, processes=24, disk_mib=32, files=500, log_bytes=4096)
NAMESPACES = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
NATIVE = """
long syscall(long number, ...);
int *__errno_location(void);
int add(int a, int b) { return a + b; }
int open_socket(void) { return syscall(41, 2, 1, 0) < 0 ? -*__errno_location() : 0; }
void old_call(void) { __asm__ volatile ("int $0x80" : : "a"(20) : "memory"); }
"""
TABLE = pa.table({"id": pa.array([1, 2, 3]), "v": pa.array([0.5, 1.5, 2.5])})


@functools.cache
def levels() -> tuple[Level, ...]:
    """The levels that hold on this machine, each by its own probes."""
    found = []
    for level in Level:
        with contextlib.suppress(Unavailable):
            probes.check(level)
            found.append(level)
    return tuple(found)


@dataclass
class World:
    """Live targets, and a folder for jails."""

    folder: Path
    port: int
    abstract: str
    native: bool
    tokens: set[str] = field(default_factory=set)  # of the jails there have been

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    @property
    def program(self) -> Path:
        return self.folder / "program"

    def params(self) -> dict[str, Any]:
        machine = os.uname().machine
        allowed, refused = seccomp.allowed(machine), seccomp.refused(machine)
        ruled = seccomp.ruled(machine)
        # Those of probes the kernel lets through every filter, and ends whoever makes them.
        probing = {335, 336} if machine == "x86_64" else set()
        known = set(allowed.values()) | set(ruled.values()) | probing
        return {
            "port": self.port,
            "abstract": self.abstract,
            "socket": str(self.folder / "live.sock"),
            "public": str(self.folder / "public"),
            "key": str(self.folder / "home" / "identity.pem"),
            "scratch": str(self.scratch),
            "other": str(self.scratch / "other-job"),
            "pid": os.getpid(),
            "calls": {**refused, **ruled, "clone3": 435},
            "not_allowed": [number for number in range(600) if number not in known],
            "namespaces": NAMESPACES,
        }

    def pool(self, level: Level, limits: Limits = SMALL, size: int = 0) -> Pool:
        return Pool(size, level, limits, scratch=self.scratch, preload=(), uids=UIDS)

    def attempt(
        self,
        level: Level,
        *names: str,
        limits: Limits = SMALL,
        stop: threading.Event | None = None,
        **more: Any,
    ) -> tuple[dict[str, Any], Outcome]:
        """Make attempts in one jail; return what each said, and the outcome."""
        with self.pool(level, limits) as pool, pool.take() as jail:
            self.tokens.add(jail._warden.path.name.removeprefix("jail-"))
            params = {**self.params(), "attempts": names, "out": out_folder(level, jail), **more}
            outcome = jail.run(self.program, {"t": TABLE}, json.dumps(params).encode(), stop or threading.Event())
        return json.loads(pa.ipc.open_stream(outcome.tables["said"]).read_all()["said"][0].as_py()), outcome


def left_over(targets: World) -> list[str]:
    """What jails have left: processes, folders, control groups."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{process}").st_uid in UIDS:
                found.append(f"process {process}")
    found += [path.name for path in targets.scratch.iterdir() if path.name != "other-job"]
    if Level.CONFINED in levels():
        folders = set(cgroup.places()[0].values())
        found += [
            str(folder)
            for token in targets.tokens
            for folder in folders
            if (folder / f"{cgroup.PREFIX}{token}").exists()
        ]
    return found


def out_folder(level: Level, jail: Any) -> str:
    """Where the jail writes its outputs, as it sees it."""
    return "/job/out" if level is not Level.NARROWED else str(jail._warden.path / "out")


def write_program(folder: Path, source: str, about: Mapping[str, Any] | None = None) -> Path:
    """Make a program folder with one Python file."""
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(source)
    (folder / "program.json").write_text(json.dumps(about or {"form": "python", "entry": "model.py"}))
    return folder


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Make the targets, and remove them."""
    with (
        tempfile.TemporaryDirectory(prefix="jail-world-") as name,
        socket.socket(socket.AF_INET) as port,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.socket(socket.AF_UNIX) as path,
    ):
        folder = Path(name)
        folder.chmod(0o711)
        (folder / "home").mkdir(mode=0o700)
        (folder / "home" / "identity.pem").write_text(CANARY)
        (folder / "home" / "identity.pem").chmod(0o600)
        (folder / "public").write_text(CANARY)
        (folder / "public").chmod(0o644)
        (folder / "scratch").mkdir(mode=0o711)
        (folder / "scratch" / "other-job").mkdir(mode=0o755)
        (folder / "scratch" / "other-job" / "rows").write_text(CANARY)
        attacks = Path(__file__).with_name("jail_attacks.py")
        write_program(folder / "program", attacks.read_text())
        compiler = shutil.which("cc") if os.uname().machine == "x86_64" else None
        if compiler:
            (folder / "native.c").write_text(NATIVE)
            command = [compiler, "-shared", "-fPIC", "-o", folder / "program" / "native.so", folder / "native.c"]
            subprocess.run(command, check=True)
        port.bind(("127.0.0.1", 0))
        abstract_name = f"jail-world-{secrets.token_hex(8)}"
        abstract.bind(f"\0{abstract_name}")
        path.bind(str(folder / "live.sock"))
        (folder / "live.sock").chmod(0o777)
        for one in (port, abstract, path):
            one.listen()
        yield World(folder, port.getsockname()[1], abstract_name, compiler is not None)


def tight(attempt: str) -> Limits:
    """Limits that a bomb meets soon."""
    change: dict[str, dict[str, Any]] = {
        "memory_of_many": {"memory_mib": 256},
        "cpu_bomb": {"cpu_s": 1},
        "fork_bomb": {"wall_s": 1.5},
    }
    return dataclasses.replace(SMALL, **change[attempt])
