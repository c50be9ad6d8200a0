"""What the jail is for, and its life: forms of programs, warm pools, ends of nodes and of wardens."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from jail_world import SMALL, UIDS, World, left_over, levels, world, write_program
from onnx_model import logistic
from test_jail_escape import ANSWERED, BARRED

from sandbox.errors import InvalidSpec, JobFailed, Unavailable, WrongState
from sandbox.tee_sim import cgroup, launch, leases, probes, seccomp
from sandbox.tee_sim.levels import Level, Limits, told_by
from sandbox.tee_sim.pool import Pool

NODE = Path(__file__).with_name("jail_node.py")
PACKAGES = ":".join(path for path in sys.path if path.endswith("site-packages"))
ORDINARY = UIDS.stop


@pytest.fixture(scope="module")
def targets() -> Iterator[World]:
    with world() as made:
        yield made
        assert left_over(made) == []


@pytest.fixture(scope="module", params=list(Level))
def level(request: pytest.FixtureRequest) -> Level:
    chosen: Level = request.param
    if chosen not in levels():
        pytest.skip(f"the level {chosen} does not hold on this machine")
    return chosen


def answer(
    targets: World, level: Level, program: Path, inputs: dict[str, Path | pa.Table], params: bytes = b""
) -> dict[str, pa.Table]:
    with targets.pool(level) as pool, pool.take() as jail:
        outcome = jail.run(program, inputs, params, threading.Event())
    assert outcome.seconds > 0
    assert outcome.peak_mib > 10
    return {name: pa.ipc.open_stream(raw).read_all() for name, raw in outcome.tables.items()}


PEOPLE = pa.table({"id": pa.array([3, 1, 2]), "income": pa.array([30.0, 10.0, None]), "city": ["a", "b", "a"]})

# --- forms ------------------------------------------------------------------------------------------------------------


def test_python_gets_tables_and_parameters_and_returns_tables_or_frames(
    targets: World, level: Level, tmp_path: Path
) -> None:
    program = write_program(
        tmp_path / "p",
        "from part import double\n"
        "def run(tables, params):\n"
        "    people = tables['people']\n"
        "    frame = people.to_pandas()\n"
        "    frame['twice'] = frame['id'].map(double)\n"
        "    chosen = frame[['id', 'twice']][frame['id'] >= params['least']]\n"
        "    return {'same': people, 'frame': chosen, 'hash': chosen.assign(h=hash('x'))[['h']]}\n",
    )
    (program / "part.py").write_text("def double(x):\n    return 2 * x\n")
    file = tmp_path / "people.arrow"
    with pa.ipc.new_file(file, PEOPLE.schema) as writer:
        writer.write_table(PEOPLE)
    hashes = set()
    for given in (PEOPLE, file):
        tables = answer(targets, level, program, {"people": given}, b'{"least": 2}')
        assert tables["same"].equals(PEOPLE)
        assert tables["frame"].to_pydict() == {"id": [3, 2], "twice": [6, 4]}
        hashes |= set(tables["hash"]["h"].to_pylist())
    assert len(hashes) == 1  # the same seed in every run


def test_inputs_are_mapped_and_not_copied(targets: World, tmp_path: Path) -> None:
    program = write_program(
        tmp_path / "p",
        "import pyarrow\n"
        "def run(tables, params):\n"
        "    return {'n': pyarrow.table({'n': [tables['t'].nbytes, pyarrow.total_allocated_bytes()]})}\n",
    )
    table = pa.table({"x": np.arange(1 << 20)})
    size, allocated = answer(targets, levels()[0], program, {"t": table})["n"]["n"].to_pylist()
    assert size == 8 << 20
    assert allocated < 1 << 20


def test_onnx_scores_a_table(targets: World, level: Level, tmp_path: Path) -> None:
    mapping = {"input": "people", "features": ["a", "b"], "outputs": {"score": "p", "again": ["p", 0]}, "keep": ["id"]}
    program = write_program(tmp_path / "p", "", {"form": "onnx", "entry": "model.onnx", "mapping": mapping})
    (program / "model.onnx").write_bytes(logistic([2.0, -1.0], 0.5))
    a, b = np.linspace(-3, 3, 300_001), np.linspace(1, -1, 300_001)
    table = pa.table({"id": np.arange(a.size), "a": a, "b": b})
    result = answer(targets, level, program, {"people": table})["result"]
    assert result.column_names == ["id", "score", "again"]
    assert result["id"].equals(table["id"])
    expected = 1 / (1 + np.exp(-(2 * a - b + 0.5)))
    assert np.allclose(result["score"].to_numpy(), expected, atol=1e-6)
    assert result["again"].equals(result["score"])


def test_sql_answers_one_statement(targets: World, level: Level, tmp_path: Path) -> None:
    sql = "SELECT city, count(*) AS n, sum(income) AS s FROM people GROUP BY city ORDER BY city"
    program = write_program(tmp_path / "p", "", {"form": "sql", "sql": sql})
    result = answer(targets, level, program, {"people": PEOPLE})["result"].to_pydict()
    assert result["city"] == ["a", "b"]
    assert result["n"] == [2, 1]
    assert [math.isclose(x, y) for x, y in zip(result["s"], (30.0, 10.0), strict=True)] == [True, True]


@pytest.mark.parametrize(
    ("sql", "refusal"),
    [
        ("SELECT * FROM read_csv('/proc/cpuinfo')", "disabled by configuration"),
        ("SELECT * FROM '/job/in/tables/0.arrow'", "does not exist"),
        ("COPY people TO '/tmp/x.csv'", "disabled by configuration"),
        ("SET enable_external_access = true", "locked"),
        ("SET threads = 8", "locked"),
        ("INSTALL httpfs", "disabled by configuration"),
        ("ATTACH '/tmp/x.db'", "disabled by configuration"),
        ("SELECT * FROM job", "does not exist"),
    ],
)
def test_sql_reaches_nothing_but_its_tables(targets: World, tmp_path: Path, sql: str, refusal: str) -> None:
    program = write_program(tmp_path / "p", "", {"form": "sql", "sql": sql})
    with pytest.raises(JobFailed) as caught:
        answer(targets, levels()[0], program, {"people": PEOPLE})
    said = told_by(caught.value).decode()
    assert "connection.execute(job[" in said  # it was the statement that was refused
    assert refusal in said


@pytest.mark.parametrize(
    ("about", "link"),
    [("", ""), ("[1]", ""), ('{"form": "shell"}', ""), ('{"form": "python", "entry": "model.py"}', "/etc/passwd")],
)
def test_a_program_folder_that_is_none_is_refused(targets: World, tmp_path: Path, about: str, link: str) -> None:
    program = write_program(tmp_path / "p", "")
    (program / "program.json").write_text(about)
    if link:
        (program / "link").symlink_to(link)
    with pytest.raises(InvalidSpec):
        answer(targets, levels()[0], program, {})


# --- pool -------------------------------------------------------------------------------------------------------------


def test_a_jail_serves_once_and_the_pool_refills(targets: World, level: Level) -> None:
    threads = threading.active_count()
    with targets.pool(level, size=1) as pool:
        with pool.take() as jail:
            jail.run(targets.program, {}, b'{"attempts": []}', threading.Event())
            with pytest.raises(WrongState):
                jail.run(targets.program, {}, b'{"attempts": []}', threading.Event())
        first, second = jail, pool.take(dataclasses.replace(SMALL, wall_s=5.0))
        assert second is not first
        assert second.alive
        second.close()
        second.close()
        with pool.take(dataclasses.replace(SMALL, memory_mib=300)) as other:  # not what the warm ones are for
            other.wait_ready()
    with pytest.raises(WrongState):
        pool.take()
    assert threading.active_count() == threads
    assert left_over(targets) == []


def test_a_warm_jail_that_died_is_not_given_out(targets: World) -> None:
    with targets.pool(levels()[0], size=1) as pool:
        dead = pool.waiting[0]
        dead.wait_ready()
        os.kill(dead._warden.pid, signal.SIGKILL)
        dead._warden._process.wait()
        with pool.take() as jail:
            assert jail is not dead
            jail.run(targets.program, {}, b'{"attempts": []}', threading.Event())


def test_limits_no_run_can_have_are_refused() -> None:
    for change in ({"memory_mib": 1}, {"wall_s": 0.0}, {"cpu_s": 0}, {"cores": 0}, {"files": 1}, {"outputs": 0}):
        with pytest.raises(InvalidSpec):
            dataclasses.replace(Limits(), **change)


def test_a_scratch_folder_others_can_write_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(Unavailable):
        Pool(1, levels()[0], SMALL, scratch=shared)


@pytest.mark.skipif(os.geteuid() != 0, reason="uids are for nodes that are root")
def test_each_jail_has_a_uid_of_its_own(tmp_path: Path) -> None:
    numbers, handles = zip(*(leases.take_uid(range(210_300, 210_303), tmp_path) for _ in range(3)), strict=True)
    assert sorted(numbers) == [210_300, 210_301, 210_302]
    with pytest.raises(Unavailable):
        leases.take_uid(range(210_300, 210_303), tmp_path)
    os.close(handles[0])
    again, handle = leases.take_uid(range(210_300, 210_303), tmp_path)
    assert again == numbers[0]
    for one in (*handles[1:], handle):
        os.close(one)


@pytest.mark.skipif(os.geteuid() != 0, reason="the node here is root")
def test_nothing_in_the_jail_is_root_outside(targets: World, level: Level) -> None:
    with targets.pool(level, size=1) as pool, pool.take() as jail:
        jail.wait_ready()
        from sandbox.tee_sim.processes import descendants

        family = descendants(jail._warden.pid)
        assert family
        for process in family:
            fields = dict(line.split(":\t", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
            assert all(int(uid) in UIDS for uid in fields["Uid"].split())
            assert fields["Groups"].split() in ([], [fields["Gid"].split()[0]])


# --- memory -----------------------------------------------------------------------------------------------------------


def test_the_peak_is_what_the_program_held(targets: World, level: Level, tmp_path: Path) -> None:
    """Not what lies in the group's copies of files on disk, which grow up to the limit whatever a program holds."""
    program = write_program(
        tmp_path / "p",
        "import time\n"
        "import numpy\n"
        "def run(tables, params):\n"
        "    held = numpy.ones(params['mib'] << 17)\n"
        "    time.sleep(0.2)\n"  # long enough for a look from outside
        "    return {}\n",
    )
    peaks = []
    for mib in (0, 150):
        with targets.pool(level) as pool, pool.take() as jail:
            jail.wait_ready()
            group = jail._warden.group
            if group is not None:
                join = "; ".join(f"echo 0 > {file}" for file in group.joins)
                write = f"{join}; exec head -c {200 << 20} /dev/zero > {tmp_path / 'copies'}"
                subprocess.run(["sh", "-c", write], check=True)
                if group.mark() < 200 << 20:
                    pytest.skip("temporary files are not on a disk whose copies are charged")
            outcome = jail.run(program, {}, json.dumps({"mib": mib}).encode(), threading.Event())
            if group is not None:
                assert group.mark() > (200 + mib) << 20
        peaks.append(outcome.peak_mib)
    assert 10 < peaks[0] < 120
    assert 140 <= peaks[1] - peaks[0] < 170


def test_memory_of_freed_arrays_is_kept_by_programs_that_may_have_much(targets: World, level: Level) -> None:
    small, _ = targets.attempt(level, "environment")
    large, _ = targets.attempt(level, "environment", limits=dataclasses.replace(SMALL, memory_mib=2048))
    assert set(large["environment"]["value"]) - set(small["environment"]["value"]) == set(launch.allocator(2048))
    assert launch.allocator(2048) == {"MALLOC_MMAP_THRESHOLD_": "134217728", "MALLOC_TRIM_THRESHOLD_": "268435456"}
    assert launch.allocator(512) == {}


# --- ends -------------------------------------------------------------------------------------------------------------


def wait_until_clean(targets: World) -> None:
    end = time.monotonic() + 20
    while left_over(targets) and time.monotonic() < end:
        time.sleep(0.05)
    assert left_over(targets) == []


def start_node(targets: World, level: Level) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, str(NODE), "", "hold", level, str(targets.scratch), str(targets.program)]
    environment = {**os.environ, "JAIL_TEST_UIDS": str(UIDS.start)}
    node = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert node.stdout is not None
    warden = int(node.stdout.readline())
    targets.tokens |= {path.name.removeprefix("jail-") for path in targets.scratch.glob("jail-*")}
    return node, warden


def test_the_death_of_the_node_ends_its_jails(targets: World, level: Level) -> None:
    node, _ = start_node(targets, level)
    assert left_over(targets)
    node.kill()
    node.communicate()
    if level is Level.UNPRIVILEGED and os.geteuid() == 0:  # the warden gave up root, and the folder is root's
        end = time.monotonic() + 20
        while not leases.sweep(targets.scratch) and time.monotonic() < end:
            time.sleep(0.05)
    wait_until_clean(targets)


def test_the_death_of_node_and_warden_leaves_nothing_that_sweeping_does_not_remove(
    targets: World, level: Level
) -> None:
    node, warden = start_node(targets, level)
    os.kill(warden, signal.SIGKILL)
    node.kill()
    node.communicate()
    if level is not Level.NARROWED:  # there only the sweep reaches what has forked away
        end = time.monotonic() + 10
        while any(one.startswith("process") for one in left_over(targets)) and time.monotonic() < end:
            time.sleep(0.05)
        assert not any(one.startswith("process") for one in left_over(targets))
    assert left_over(targets)
    assert leases.sweep(targets.scratch) == 1
    wait_until_clean(targets)


def test_sweeping_leaves_the_living_alone(targets: World, level: Level) -> None:
    with targets.pool(level, size=1) as pool:
        pool.waiting[0].wait_ready()
        leases.sweep(targets.scratch)
        with pool.take() as jail:
            jail.run(targets.program, {}, b'{"attempts": []}', threading.Event())


# --- levels -----------------------------------------------------------------------------------------------------------


def test_the_strongest_level_that_holds_is_chosen() -> None:
    assert probes.strongest() is levels()[0]
    assert os.geteuid() != 0 or probes.strongest() is Level.CONFINED


def test_a_wall_that_is_missing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probes are no formality: without the system call filter they refuse the level."""
    if Level.NARROWED not in levels():
        pytest.skip("the level narrowed does not hold on this machine")
    allow_everything = bytes.fromhex("06000000") + (0x7FFF0000).to_bytes(4, "little")
    monkeypatch.setattr(probes, "_answers", {})
    monkeypatch.setattr(seccomp, "program", lambda machine="": allow_everything)
    with pytest.raises(Unavailable) as caught:
        probes.check(Level.NARROWED)
    assert "cannot be confined here" in caught.value.tell
    assert caught.value.hint


def test_without_bubblewrap_the_answer_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_answers", {})
    monkeypatch.setattr("sandbox.tee_sim.launch._BUBBLEWRAP", "/nowhere")
    with pytest.raises(Unavailable) as caught:
        probes.check(Level.UNPRIVILEGED)
    assert "bubblewrap" in caught.value.tell
    assert "apt-get install bubblewrap" in caught.value.hint


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="another user can only be had by root")
def test_a_node_that_is_not_root_confines_as_well(tmp_path: Path) -> None:
    python = Path(f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
    readable = all(os.stat(folder).st_mode & 0o001 for folder in (NODE, *NODE.parents) if folder.is_dir())
    if not python.exists() or not readable:
        pytest.skip("no interpreter, or no copy of the package, that another user can read")
    command = ["setpriv", f"--reuid={ORDINARY}", f"--regid={ORDINARY}", "--clear-groups", str(python), "-B"]
    done = subprocess.run([*command, str(NODE), PACKAGES, "corpus"], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr[-2000:]
    answers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert set(answers) == {level for level in levels() if level is not Level.CONFINED}
    for name, found in answers.items():
        for attempt, errnos in BARRED.items():
            assert found["said"][attempt].get("errno") in errnos[name == Level.NARROWED], attempt
        assert set(found["said"]) == {*BARRED, *ANSWERED}
        assert found["said"]["set_uid_files"] == {"value": []}
        assert found["said"]["clone_each"] == {"value": []}
        assert found["ends"]["memory_of_many"] == ["JobFailed", "MEMORY"]
        assert found["ends"]["cpu_bomb"] == ["JobFailed", "CPU"]
        assert found["ends"]["fork_bomb"] == ["DeadlinePassed", "TIME"]


def test_control_groups_of_the_second_version_are_made_joined_emptied_and_removed(tmp_path: Path) -> None:
    """On the unified hierarchy, without controllers if it has none here: limits are then not part of this test."""
    own = cgroup._own_groups().get("")
    if own is None or not os.access(own, os.W_OK):
        pytest.skip("no unified hierarchy to write to")
    folder = own / f"{cgroup.PREFIX}{tmp_path.name}-{os.getpid()}"
    folder.mkdir()
    group = cgroup.Group({name: folder for name in cgroup.NEEDED_V2}, unified=True)
    assert group.joins == [str(folder / "cgroup.procs")]
    join = f"echo 0 > {group.joins[0]}; sleep 60 & sleep 60"
    shell = subprocess.Popen(["sh", "-c", join])
    end = time.monotonic() + 5
    while len(group.processes()) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    assert len(group.processes()) == 3
    assert group.cpu_s() >= 0.0
    group.kill()
    assert shell.wait(5) == -signal.SIGKILL
    assert group.processes() == []
    assert group.remove()
    assert not folder.exists()
