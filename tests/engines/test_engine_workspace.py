"""A child process of every bad kind must come back as an error of ours, in time, and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from sandbox.errors import (
    Cancelled,
    DeadlinePassed,
    InvalidSpec,
    JobFailed,
    PartyFailed,
    ProtocolFailed,
    SandboxError,
    Unavailable,
    WrongState,
)
from sandbox.workspace import Workspace, guard, run_child

ROOT = str(Path(__file__).resolve().parents[2])


def script(place: Path, body: str) -> Path:
    path = place / "engine.py"
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    path.write_text(f"import json, os, signal, subprocess, sys, time\ndef main(config, report):\n{lines}\n")
    return path


def run(place: Path, body: str, deadline_s: float = 20, **more):
    with Workspace(place) as space:
        return run_child(script(place, body), more.pop("config", {}), space, deadline_s, **more)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_for(condition, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def test_a_good_child_returns_its_result_and_what_it_used(place):
    seen: list[float] = []
    outcome = run(
        place,
        "report(0.25); report(1)\nreturn {'sum': sum(config['n'])}",
        config={"n": [1, 2]},
        on_progress=seen.append,
    )
    assert outcome.values == {"sum": 3}
    assert seen == [0.25, 1.0]
    assert 5 << 20 < outcome.peak_rss < 100 << 20
    assert 0 < outcome.cpu_s < 10 and outcome.wall_s > 0


def test_the_peak_is_the_childs_own_not_the_parents(place):
    ballast = bytearray(os.urandom(1 << 20)) * 200  # the parent is larger than the child
    assert run(place, "return {}").peak_rss < len(ballast)


def test_a_child_inherits_nothing_and_is_private(place, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "secret")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    values = run(
        place,
        "import resource\nold = os.umask(0)\n"
        "return {'env': dict(os.environ), 'argv': sys.argv, 'cwd': os.getcwd(), 'umask': old,"
        " 'core': resource.getrlimit(resource.RLIMIT_CORE), 'group': os.getpgid(0) == os.getpid(),"
        " 'mode': os.stat('.').st_mode & 0o777, 'out': os.readlink('/proc/self/fd/1'),"
        " 'fds': sorted(os.listdir('/proc/self/fd'))}",
        config={"secret": "in the configuration only"},
    ).values
    malloc = {f"MALLOC_{name}" for name in ("ARENA_MAX", "TRIM_THRESHOLD_", "MMAP_THRESHOLD_", "TOP_PAD_")}
    assert set(values["env"]) <= {"PATH", "LC_ALL", "TMPDIR", "LC_CTYPE"} | malloc
    assert values["env"]["MALLOC_ARENA_MAX"] == "1"
    assert values["env"]["TMPDIR"] == values["cwd"] and values["mode"] == 0o700 and values["umask"] == 0o077
    assert values["core"] == [0, 0] and values["group"] and values["out"] == "/dev/null"
    assert "secret" not in json.dumps(values["argv"])
    assert len(values["fds"]) == 5  # 0, 1, 2, the answer, and the listing itself


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("raise ValueError('x')", JobFailed),
        ("os.abort()", ProtocolFailed),
        ("os._exit(255)", ProtocolFailed),
        ("os._exit(0)", JobFailed),  # code 0 without a result is no success
        ("os.kill(os.getpid(), signal.SIGKILL)", JobFailed),
        ("sys.exit(0)", JobFailed),
        ("return object()", JobFailed),
        ("return [1]", JobFailed),
        ("from sandbox.errors import PartyFailed\nraise PartyFailed('gone', party='bank')", PartyFailed),
        ("from sandbox.errors import Unavailable\nraise Unavailable('no engine')", Unavailable),
        ("from sandbox.errors import PolicyRefused\nraise PolicyRefused('not an engine\\'s business')", JobFailed),
    ],
)
def test_whatever_the_child_does_comes_back_as_ours(place, body, error):
    with pytest.raises(SandboxError) as caught:
        run(place, body)
    assert type(caught.value) is error
    assert [path.name for path in place.iterdir()] == ["engine.py"]


def test_a_result_followed_by_a_crash_is_no_success(place):
    body = (
        "links = [f'/proc/self/fd/{fd}' for fd in sorted(map(int, os.listdir('/proc/self/fd'))) if fd > 2]\n"
        "answer = int([link for link in links if os.path.exists(link) and 'pipe:' in os.readlink(link)][0][14:])\n"
        'os.write(answer, b\'{"result": {"count": 1}, "peak_rss": 1}\\n\')\nos.abort()'
    )
    with pytest.raises(ProtocolFailed):
        run(place, body)


def test_the_party_that_failed_keeps_its_name(place):
    with pytest.raises(PartyFailed) as caught:
        run(place, "from sandbox.errors import PartyFailed\nraise PartyFailed('gone', party='bank')")
    assert caught.value.party == "bank"


def test_what_the_engine_writes_is_kept_short_and_without_digests(place):
    key = "0123456789abcdef" * 2
    with pytest.raises(JobFailed) as caught:
        run(place, f"sys.stderr.write('x' * 100000 + ' duplicate {key} found')\nos._exit(1)")
    assert "duplicate <hex> found" in str(caught.value) and key not in str(caught.value)
    assert len(str(caught.value)) < 3000
    assert key not in caught.value.tell and "duplicate" not in caught.value.tell


def test_a_hanging_child_ends_at_the_deadline_with_its_helpers(place):
    with pytest.raises(DeadlinePassed), Workspace(place) as space:
        body = (
            "helper = subprocess.Popen(['sleep', '60'])\n"
            "open(config['note'], 'w').write(str(helper.pid))\ntime.sleep(60)"
        )
        run_child(script(place, body), {"note": str(place / "note")}, space, 1.0)
    assert gone(int((place / "note").read_text()))


def test_a_helper_that_outlives_a_good_child_is_killed_and_delays_nothing(place):
    started = time.monotonic()
    values = run(place, "return {'pid': subprocess.Popen(['sleep', '60']).pid}").values
    assert time.monotonic() - started < 20
    wait_for(lambda: gone(values["pid"]))


def test_stop_kills_a_running_child_and_prevents_a_new_one(place):
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    with pytest.raises(Cancelled):
        run(place, "time.sleep(60)\nreturn {}", stop=stop)
    timer.join()
    with pytest.raises(Cancelled):
        run(place, "return {}", stop=stop)


def test_a_failing_progress_callback_still_buries_the_child(place):
    def fail(_: float) -> None:
        raise KeyError("callback")

    with pytest.raises(KeyError):
        run(place, "report(0.5)\ntime.sleep(60)\nreturn {}", on_progress=fail)
    assert [path.name for path in place.iterdir()] == ["engine.py"]


def test_too_large_a_configuration_is_refused(place):
    with pytest.raises(InvalidSpec):
        run(place, "return {}", config={"x": "y" * 60_000})


def test_the_workspace_is_private_and_gone_afterwards(place):
    with pytest.raises(RuntimeError), Workspace(place, ["bank"]) as space:
        assert space.path.stat().st_mode & 0o777 == 0o700
        assert space.own_socket.name == "self.sock" and space.peer_socket("bank").name == "peer-bank.sock"
        (space.path / "deep").mkdir(mode=0o500)
        with pytest.raises(InvalidSpec):
            space.peer_socket("other")
        raise RuntimeError
    assert list(place.iterdir()) == []
    with pytest.raises(WrongState):
        _ = space.path


def test_names_and_paths_that_make_no_socket_are_refused(place):
    for name in ("", "../x", "a/b", "a\0b", "x" * 41):
        with pytest.raises(InvalidSpec):
            Workspace(place, [name])
    deep = place / ("d" * 90)
    deep.mkdir()
    with pytest.raises(Unavailable, match="limit"), Workspace(deep, ["bank"]):
        pass
    assert list(deep.iterdir()) == []
    with pytest.raises(JobFailed), Workspace(place / "missing"):
        pass


def test_only_our_own_trace_files_are_swept(tmp_path):
    since = time.time() - 1
    for name, content in {
        "psi_ours.trace": b"..token-of-ours..",
        "psi_other.trace": b"..another..",
        "psi_empty.trace": b"",
        "other_ours.trace": b"token-of-ours",
        "psi_ours.txt": b"token-of-ours",
    }.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "psi_link.trace").symlink_to(tmp_path / "psi_ours.txt")
    with (tmp_path / "psi_held.trace").open("wb"):  # another engine is about to write it
        assert guard.sweep_traces("token-of-ours", since, str(tmp_path)) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "other_ours.trace", "psi_held.trace", "psi_link.trace", "psi_other.trace", "psi_ours.txt",
    ]  # fmt: skip
    assert guard.sweep_traces("token-of-ours", time.time() + 60, str(tmp_path)) == 0  # empty, but older than we are


PARENT = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from sandbox.workspace import Workspace, run_child
with Workspace(Path(sys.argv[2])) as space:
    (space.path / "rows.csv").write_text("plaintext")
    run_child(sys.argv[3], {"note": sys.argv[2] + "/note"}, space, 60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_node_is_killed_the_engine_its_helpers_and_its_rows_go_too(place, number):
    body = (
        "helper = subprocess.Popen(['sleep', '60'])\n"
        "trace = '/tmp/psi_' + sys.argv[1][:8] + '.trace'\nopen(trace, 'w').write('by ' + sys.argv[1])\n"
        "open(config['note'] + '~', 'w').write(json.dumps([os.getpid(), helper.pid, trace]))\n"
        "os.rename(config['note'] + '~', config['note'])\ntime.sleep(60)"
    )
    engine = script(place, body)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, ROOT, str(place), str(engine)])
    wait_for((place / "note").exists, 30)
    child, helper, trace = json.loads((place / "note").read_text())
    assert os.path.exists(trace)
    parent.send_signal(number)
    parent.wait(10)
    wait_for(lambda: gone(child) and gone(helper))
    wait_for(lambda: not list(place.glob("w-*")))
    wait_for(lambda: not os.path.exists(trace))
