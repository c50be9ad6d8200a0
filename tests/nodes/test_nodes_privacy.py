"""Nothing of a row is anywhere it does not belong: files, logs, Ray, entries, answers; and nobody listens outside."""

from __future__ import annotations

import ipaddress
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Data, Departments, Flow
from node_world import CANARY, DISTRICTS, PURPOSE, SHARED_ID, World, ref

from sandbox import wire
from sandbox.model import Measure, PsiEngine, PsiOutput, ScoreScope, State, Statistic

MARKS = tuple(mark.encode(coding) for mark in (CANARY, CANARY.lower()) for coding in ("utf-8", "utf-16-le"))
NODES = ("bank", "operator", "witness")


def files_with_a_mark(folder: Path) -> Iterator[str]:
    """Every regular file below a folder that holds a mark; files come and go meanwhile."""
    for where, _, names in os.walk(folder):
        for name in names:
            path = Path(where) / name
            try:
                if stat.S_ISREG(path.lstat().st_mode) and holds(path):
                    yield str(path.relative_to(folder))
            except FileNotFoundError:
                continue


def holds(path: Path) -> bool:
    content = path.read_bytes()
    return any(mark in content for mark in MARKS)


def places(world: World) -> dict[str, list[str]]:
    """Where marks lie, by place: homes (stores, vaults, artefacts, results), logs, and run directories with Ray's."""
    found = {}
    for name in NODES:
        found[f"home of {name}"] = list(files_with_a_mark(world.nodes.home(name)))
        found[f"run of {name}"] = list(files_with_a_mark(world.run(name)))
        found[f"log of {name}"] = [name] if holds(world.folder / f"{name}.log") else []
    return {place: files for place, files in found.items() if files}


@pytest.fixture(scope="module")
def watched(
    world: World, data: Data, scenario: bytes, flow: Flow, joint: bytes, departments: Departments
) -> dict[str, set[str]]:
    """What is found, all the while, as one job of every kind and with every output runs."""
    seen: dict[str, set[str]] = {}
    done = threading.Event()
    rounds = [0]

    def look() -> None:
        while not done.is_set():
            for place, files in places(world).items():
                seen.setdefault(place, set()).update(files)
            rounds[0] += 1
            time.sleep(0.2)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        run_all_kinds(world, data, scenario)
        run_all_outputs(world, data, joint, departments)
    finally:
        done.set()
        watcher.join()
    assert rounds[0] > 5
    return seen


def run_all_kinds(world: World, data: Data, scenario: bytes) -> None:
    for engine in (PsiEngine.RR22, PsiEngine.ECDH_X25519):
        psi = world.released(world.align(scenario, data.bank, data.operator, engine=engine))
    train = world.released(world.officer.train(scenario, psi.job_id, steps=10))
    world.released(world.officer.score(scenario, train.job_id, ScoreScope.ALIGNED))
    token = world.clients["desk"].issue_consent(SHARED_ID, scenario, PURPOSE, 600)
    cards = [world.nodes.cards[name] for name in ("bank", "operator")]
    job = world.released(world.officer.score_applicant(scenario, train.job_id, SHARED_ID, token, cards))
    assert SHARED_ID in set(world.officer.result(job.job_id).outputs["scores"]["id"])  # it did go through


def run_all_outputs(world: World, data: Data, joint: bytes, departments: Departments) -> None:
    """Intersections with every output, in one piece, in parts and prepared; totals of both kinds."""
    late = Measure("late", Statistic.MEAN, "late")
    more: dict[PsiOutput, Any] = {
        PsiOutput.SUMS: {"measures": [late]},
        PsiOutput.JOINED: {"columns": ["city", "late"], "bucket_rows": 1000},
        PsiOutput.MEMBERS: {"engine": PsiEngine.PREPARED_SM2},
    }
    jobs = {}
    for output in PsiOutput:
        options = {"engine": PsiEngine.AUTO, "output": output, **more.get(output, {})}
        jobs[output] = world.released(world.align(joint, data.bank, data.operator, **options))
    for output, name in ((PsiOutput.MEMBERS, "members"), (PsiOutput.JOINED, "joined")):
        rows: Any = world.officer.result(jobs[output].job_id).outputs[name]
        assert SHARED_ID in set(rows["id"])  # it did go through
    assert f"{CANARY}-city" in set(rows["city"])
    alignment = jobs[PsiOutput.ALIGNED].job_id
    world.released(world.officer.aggregate(joint, alignment=alignment, groups=["region"], measures=[late]))
    refs = [ref(view) for view in departments.views]
    income = Measure("income", Statistic.SUM, "income")
    job = world.released(world.officer.aggregate(departments.scenario, refs, groups=["district"], measures=[income]))
    totals: Any = world.officer.result(job.job_id).outputs["totals"]
    assert list(totals["district"]) == list(DISTRICTS)
    world.released(world.officer.align(departments.scenario, refs[0], refs[1], PsiEngine.ECDH_SM2, third=refs[2]))


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"x" * 5000 + SHARED_ID.encode() + b"y")
    (tmp_path / "clean").write_bytes(b"nothing")
    assert list(files_with_a_mark(tmp_path)) == ["deep/file"]


def test_no_mark_is_in_any_file_while_jobs_run(watched: dict[str, set[str]]) -> None:
    assert watched == {}


def test_no_mark_is_in_any_file_afterwards(world: World, watched: dict[str, set[str]]) -> None:
    world.settle()
    assert places(world) == {}


def test_no_mark_is_in_any_entry_view_or_answer(world: World, flow: Flow, watched: Any) -> None:
    told = []
    for client in (world.bank_owner, world.op_owner, world.regulator):
        told += [logged.leaf for logged in client.entries(limit=1000)]
        told += [wire.encode(view) for view in client.scenarios(limit=500)]
        told += [wire.encode(view) for view in client.datasets(limit=500)]
    for client in (world.officer, world.op_owner, world.regulator):
        told += [wire.encode(view) for view in client.jobs(limit=500)]
    assert len(told) > 50
    assert not [line for line in told if any(mark in line for mark in MARKS)]


def test_failures_name_no_value(world: World, data: Data, scenario: bytes, flow: Flow) -> None:
    token = world.clients["desk"].issue_consent(f"{CANARY}-NOBODY", scenario, PURPOSE, 600)
    cards = [world.nodes.cards[name] for name in ("bank", "operator")]
    job = world.officer.score_applicant(scenario, flow.train.job_id, f"{CANARY}-NOBODY", token, cards)
    for client in (world.officer, world.op_owner):
        view = world.ended(job.job_id, client)
        assert view.state is State.REFUSED and CANARY not in repr(view)
    world.settle()
    assert places(world) == {}


def test_results_and_keys_are_private_files(world: World, flow: Flow) -> None:
    for name in NODES:
        home = world.nodes.home(name)
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert stat.S_IMODE(world.run(name).stat().st_mode) == 0o700
        assert stat.S_IMODE((home / "ray-token").stat().st_mode) == 0o600
        for where, _, names in os.walk(home):
            for file in names:
                mode = stat.S_IMODE((Path(where) / file).lstat().st_mode)
                allowed = 0o644 if file.endswith((".toml", "-shm", "-wal", ".path", ".lock", ".peer")) else 0o600
                assert mode & ~allowed == 0, f"{file} is {mode:o}"


def listeners(processes: list[psutil.Process]) -> Iterator[tuple[int, str, int]]:
    for process in processes:
        try:
            for socket in process.net_connections("inet"):
                if socket.status == psutil.CONN_LISTEN or (socket.type == 2 and not socket.raddr):
                    yield process.pid, socket.laddr.ip, socket.laddr.port
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue


@pytest.mark.parametrize("name", NODES)
def test_everything_listens_on_loopback_and_the_node_on_one_port(world: World, flow: Flow, name: str) -> None:
    own = world.nodes.processes[name].pid
    found = list(listeners(world.processes(name)))
    assert len(found) > 1  # Ray's are among them: the test sees them
    for pid, address, port in found:
        parsed = ipaddress.ip_address(address)
        mapped = getattr(parsed, "ipv4_mapped", None)
        assert (mapped or parsed).is_loopback, f"{psutil.Process(pid).name()} listens on {address}:{port}"
    configured = int(world.nodes.cards[name].address.rpartition(":")[2])
    ours = {port for pid, _, port in found if pid == own}
    assert configured in ours and len(ours) <= 2  # the other is Ray's driver, a part of this process, with its token


def test_rays_objects_hold_no_rows(world: World, flow: Flow, watched: Any) -> None:
    """The object store is shared memory; what Ray maps there is read as any file."""
    shared = [p for p in Path("/dev/shm").iterdir() if p.is_file() and os.access(p, os.R_OK)]
    assert not [str(path) for path in shared if path.stat().st_size < 1 << 28 and holds(path)]


def test_a_cluster_without_the_token_is_closed(world: World) -> None:
    """Ray asks for its token: the file is the only way in, and it is the node's alone."""
    token = world.nodes.home("bank") / "ray-token"
    assert len(token.read_text()) == 64 and token.stat().st_uid == os.getuid()
    environment = psutil.Process(world.nodes.processes["bank"].pid).children()[0].environ()
    assert environment["RAY_AUTH_MODE"] == "token" and environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert token.read_text() not in "".join(environment.values())
