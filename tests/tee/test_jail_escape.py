"""Ways out of the jail, really tried from inside, at every level that holds on this machine."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Any

import pytest
from jail_world import CANARY, UIDS, World, levels, world

from sandbox.tee_sim import seccomp
from sandbox.tee_sim.levels import Level, Outcome

# attempt -> errno in a jail with its own file tree, errno where Landlock stands in front of the machine's
P, A, N, R, S = errno.EPERM, errno.EACCES, errno.ENOENT, errno.EROFS, errno.ESRCH
BARRED: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "tcp_to_live_listener": ((P,), (P,)),
    "tcp6": ((P,), (P,)),
    "udp": ((P,), (P,)),
    "abstract_socket": ((P,), (P,)),
    "path_socket": ((P,), (P,)),
    "raw_socket": ((P,), (P,)),
    "netlink": ((P,), (P,)),
    "packet": ((P,), (P,)),
    "vsock": ((P,), (P,)),
    "kernel_crypto": ((P,), (P,)),
    "socket_pair": ((P,), (P,)),
    "passwd": ((N,), (A,)),
    "shadow": ((N,), (A,)),
    "nodes_public_file": ((N,), (A,)),
    "nodes_key": ((N,), (A,)),
    "nodes_folder": ((N,), (A,)),
    "scratch_of_all_jobs": ((N,), (A,)),
    "folder_of_another_job": ((N,), (A,)),
    "sysfs": ((N,), (A,)),
    "control_groups": ((N,), (A, N)),
    "rays_folder": ((N,), (A, N)),
    "file_by_handle": ((P,), (P,)),
    "write_system_library": ((R,), (A,)),
    "write_own_bundle": ((R, A), (A,)),
    "write_own_input": ((R, A), (A,)),
    "write_interpreter": ((R,), (A,)),
    "write_top_folder": ((R,), (A,)),
    "write_devices": ((R,), (A,)),
    "open_disk": ((N,), (A, N)),
    "own_set_uid_file": ((P,), (P,)),
    "execute_from_work": ((A,), (A,)),
    "shell": ((N,), (A,)),
    "clone3": ((errno.ENOSYS,), (errno.ENOSYS,)),
    "terminal_input": ((P,), (P,)),
    "limits_of_the_node": ((P,), (P,)),
    "signal_the_node": ((S,), (P,)),
    "command_line_of_the_node": ((N,), (A,)),
    "environment_of_the_node": ((N,), (A,)),
    "kernel_setting": ((A, R), (A,)),
    "magic_keys": ((A, R, N), (A, N)),
    "raise_limit": ((P,), (P,)),
}
ANSWERED = (
    "name_lookup",
    "set_uid_files",
    "every_other_call",
    "unshare_each",
    "clone_each",
    "signal_everybody",
    "identity",
    "handles",
    "environment",
    "frames_and_objects",
    "node_package",
    "unpinned_package",
    "allowed_packages",
)
OWN_TREE = (
    "interfaces",
    "top_folder",
    "visible_processes",
    "environment_of_the_first",
    "command_line_of_the_first",
    "capabilities",
)


@pytest.fixture(scope="module")
def targets() -> Iterator[World]:
    os.environ["SANDBOX_TEST_SECRET"] = CANARY
    with world() as made:
        yield made
    del os.environ["SANDBOX_TEST_SECRET"]


@pytest.fixture(scope="module", params=list(Level))
def level(request: pytest.FixtureRequest) -> Level:
    chosen: Level = request.param
    if chosen not in levels():
        pytest.skip(f"the level {chosen} does not hold on this machine")
    return chosen


@pytest.fixture(scope="module")
def tried(targets: World, level: Level) -> tuple[dict[str, Any], Outcome]:
    """What became of everything that harms nobody, tried in one jail."""
    native = ("native_code",) if targets.native else ()
    foreign = ("foreign_calls",) if os.uname().machine == "x86_64" else ()
    return targets.attempt(level, *BARRED, *ANSWERED, *OWN_TREE, *native, *foreign)


@pytest.mark.parametrize("attempt", BARRED)
def test_a_way_out_is_barred(tried: tuple[dict[str, Any], Outcome], level: Level, attempt: str) -> None:
    said = tried[0][attempt]
    assert "value" not in said
    assert said["errno"] in BARRED[attempt][level is Level.NARROWED]


def test_names_are_not_looked_up(tried: tuple[dict[str, Any], Outcome]) -> None:
    assert tried[0]["name_lookup"]["error"] == "gaierror"


def test_no_system_call_beside_the_allowed_ones_is_served(tried: tuple[dict[str, Any], Outcome]) -> None:
    by_errno = tried[0]["every_other_call"]["value"]
    assert set(by_errno) == {str(errno.EPERM), str(errno.ENOSYS)}
    assert by_errno[str(errno.EPERM)] == sorted(seccomp.refused(os.uname().machine).values())


def test_calls_of_another_abi_end_the_process(tried: tuple[dict[str, Any], Outcome]) -> None:
    if "foreign_calls" not in tried[0]:
        pytest.skip("this architecture has no second ABI here")
    assert tried[0]["foreign_calls"] == {"value": -31}  # SIGSYS


def test_no_namespace_is_made(tried: tuple[dict[str, Any], Outcome]) -> None:
    assert tried[0]["unshare_each"] == {"value": []}
    assert tried[0]["clone_each"] == {"value": []}


def test_no_file_gives_another_identity(tried: tuple[dict[str, Any], Outcome]) -> None:
    assert tried[0]["set_uid_files"] == {"value": []}
    assert tried[0]["identity"]["value"]["new_privileges"] is False


def test_it_is_nobody_and_in_no_group(tried: tuple[dict[str, Any], Outcome], level: Level) -> None:
    who = tried[0]["identity"]["value"]
    assert who["groups"] in ([], [65534]) or os.geteuid() != 0
    if level is Level.NARROWED:
        assert who["uid"] == os.geteuid() != 0 or who["uid"] in UIDS
    else:
        assert (who["uid"], who["host"]) == (65534, "jail")


def test_it_holds_no_handle_but_its_streams(tried: tuple[dict[str, Any], Outcome]) -> None:
    assert tried[0]["handles"] == {"value": ["0 device", "1 pipe", "2 pipe"]}


def test_nothing_of_the_nodes_environment_is_there(tried: tuple[dict[str, Any], Outcome]) -> None:
    assert "SANDBOX_TEST_SECRET" not in tried[0]["environment"]["value"]
    assert {"HOME", "PATH", "PYTHONHASHSEED"} <= set(tried[0]["environment"]["value"])
    assert tried[0]["frames_and_objects"] == {"value": []}


def test_signalling_everybody_reaches_nobody_outside(tried: tuple[dict[str, Any], Outcome]) -> None:
    # The warden and this process have survived to tell.
    assert tried[0]["signal_everybody"]["value"] in ("sent", f"errno {S}", f"errno {P}")


def test_the_pinned_packages_are_there_and_no_others(tried: tuple[dict[str, Any], Outcome]) -> None:
    assert len(tried[0]["allowed_packages"]["value"]) == 6
    assert tried[0]["node_package"] == {"error": "ModuleNotFoundError"}
    assert tried[0]["unpinned_package"] == {"error": "ModuleNotFoundError"}


def test_native_code_from_the_bundle_runs_behind_the_same_walls(tried: tuple[dict[str, Any], Outcome]) -> None:
    if "native_code" not in tried[0]:
        pytest.skip("no C compiler, or another architecture than the one the code is written for")
    # It computes; a socket is refused; the 32-bit way into the kernel ends the process.
    assert tried[0]["native_code"] == {"value": {"sum": 5, "socket": P, "old": -31}}


def test_a_file_tree_and_a_process_table_of_its_own(tried: tuple[dict[str, Any], Outcome], level: Level) -> None:
    if level is Level.NARROWED:
        assert all(tried[0][name].get("errno") == A for name in OWN_TREE)
        return
    values = {name: tried[0][name]["value"] for name in OWN_TREE}
    assert values["interfaces"] == ["lo"]
    assert set(values["top_folder"]) <= {"dev", "job", "lib", "lib64", "proc", "runtime", "tmp", "usr"}
    assert values["visible_processes"] == [1, 2]
    assert values["environment_of_the_first"] == ""
    assert "/tmp" not in values["command_line_of_the_first"]
    assert set(values["capabilities"].values()) == {"0000000000000000"}


def test_nothing_of_the_nodes_was_in_any_answer(tried: tuple[dict[str, Any], Outcome]) -> None:
    assert CANARY not in repr(tried[0])
    assert CANARY.encode() not in tried[1].log
    assert tried[1].level in levels()
