"""A node in a process of its own: holds jails until it is killed, or runs the corpus as an ordinary user.

python jail_node.py hold <level> <scratch> <program>      prints the warden's pid once something runs inside
python jail_node.py corpus                                prints what became of it, at each level, as JSON
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent), *sys.argv[1].split(":")]

import jail_world  # noqa: E402
import test_jail_escape  # noqa: E402

from sandbox.errors import SandboxError  # noqa: E402
from sandbox.tee_sim.levels import Level  # noqa: E402
from sandbox.tee_sim.pool import Pool  # noqa: E402


def hold(level: str, scratch: str, program: str) -> None:
    """Run something endless, and say so."""
    with Pool(1, Level(level), jail_world.SMALL, scratch=Path(scratch), preload=(), uids=jail_world.UIDS) as pool:
        jail = pool.take()
        jail.wait_ready()
        print(jail._warden.pid, flush=True)
        jail.run(Path(program), {}, b'{"attempts": ["deaf_family"]}', threading.Event())


def corpus() -> None:
    """Run what the tests run, as whoever this is."""
    answers: dict[str, object] = {}
    with jail_world.world() as targets:
        for level in jail_world.levels():
            names = (*test_jail_escape.BARRED, *test_jail_escape.ANSWERED)
            said, outcome = targets.attempt(level, *names)
            ends = {}
            for name in ("memory_of_many", "cpu_bomb", "fork_bomb"):
                limits = jail_world.tight(name)
                try:
                    targets.attempt(level, name, limits=limits, each_mib=80)
                except SandboxError as error:
                    ends[name] = [type(error).__name__, vars(error)["reason"].name]
            answers[level] = {"said": said, "ends": ends, "peak_mib": outcome.peak_mib}
    print(json.dumps(answers))


if __name__ == "__main__":
    {"hold": hold, "corpus": corpus}[sys.argv[2]](*sys.argv[3:])
