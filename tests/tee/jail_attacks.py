"""The merchant's side of the escape and abuse corpus: shipped into the jail as a program and really run there.

``run`` makes the attempts it is told to and reports for each what happened: {"value"}, {"errno"} or {"error"}.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import json
import mmap
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
Params = dict[str, Any]


def run(tables: dict[str, Any], params: Params) -> dict[str, Any]:
    import pyarrow

    said = {}
    for name in params["attempts"]:
        try:
            said[name] = {"value": globals()[name](params)}
        except OSError as error:
            said[name] = {"errno": error.errno, "error": type(error).__name__}
        except Exception as error:
            said[name] = {"error": type(error).__name__}
    answer = pyarrow.array([json.dumps(said)], pyarrow.string())
    return {"said": pyarrow.Table.from_arrays([answer], ["said"])}


# --- network ----------------------------------------------------------------------------------------------------------


def _connect(family: int, kind: int, address: Any, protocol: int = 0) -> str:
    with socket.socket(family, kind, protocol) as talk:
        talk.settimeout(1)
        talk.connect(address)
    return "connected"


def tcp_to_live_listener(params: Params) -> str:
    return _connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", params["port"]))


def tcp6(params: Params) -> str:
    return _connect(socket.AF_INET6, socket.SOCK_STREAM, ("::1", params["port"]))


def udp(params: Params) -> str:
    return _connect(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", params["port"]))


def abstract_socket(params: Params) -> str:
    return _connect(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + params["abstract"])


def path_socket(params: Params) -> str:
    return _connect(socket.AF_UNIX, socket.SOCK_STREAM, params["socket"])


def raw_socket(params: Params) -> str:
    return _connect(socket.AF_INET, socket.SOCK_RAW, ("127.0.0.1", 0), 1)


def netlink(params: Params) -> str:
    return _connect(socket.AF_NETLINK, socket.SOCK_RAW, (0, 0))


def packet(params: Params) -> str:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
    return "made"


def vsock(params: Params) -> str:
    socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
    return "made"


def kernel_crypto(params: Params) -> str:
    socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET).close()
    return "made"


def socket_pair(params: Params) -> str:
    socket.socketpair()[0].close()
    return "made"


def name_lookup(params: Params) -> str:
    return str(socket.getaddrinfo("example.org", 80))


def interfaces(params: Params) -> list[str]:
    with open("/proc/net/dev", encoding="ascii") as file:
        return [line.split(":")[0].strip() for line in file if ":" in line]


# --- files ------------------------------------------------------------------------------------------------------------


def _read(path: str) -> str:
    with open(path, "rb") as file:
        return file.read(64).decode("latin-1")


def passwd(params: Params) -> str:
    return _read("/etc/passwd")


def shadow(params: Params) -> str:
    return _read("/etc/shadow")


def nodes_public_file(params: Params) -> str:
    return _read(params["public"])


def nodes_key(params: Params) -> str:
    return _read(params["key"])


def nodes_folder(params: Params) -> list[str]:
    return os.listdir(os.path.dirname(params["key"]))


def scratch_of_all_jobs(params: Params) -> list[str]:
    return os.listdir(params["scratch"])


def folder_of_another_job(params: Params) -> list[str]:
    return os.listdir(params["other"])


def top_folder(params: Params) -> list[str]:
    return sorted(os.listdir("/"))


def sysfs(params: Params) -> list[str]:
    return os.listdir("/sys/kernel")


def control_groups(params: Params) -> list[str]:
    return os.listdir("/sys/fs/cgroup")


def rays_folder(params: Params) -> list[str]:
    return os.listdir("/tmp/ray")


def file_by_handle(params: Params) -> int:
    return _call("open_by_handle_at", params)


def write_system_library(params: Params) -> str:
    os.close(os.open("/usr/lib/escape", os.O_CREAT | os.O_WRONLY))
    return "made"


def write_own_bundle(params: Params) -> str:
    os.close(os.open(__file__, os.O_WRONLY))
    return "opened"


def write_own_input(params: Params) -> str:
    folder = os.path.join(os.path.dirname(os.path.dirname(__file__)), "tables")
    os.close(os.open(os.path.join(folder, "0.arrow"), os.O_RDWR))
    return "opened"


def write_interpreter(params: Params) -> str:
    os.close(os.open(os.path.join(os.path.dirname(os.__file__), "escape.py"), os.O_CREAT | os.O_WRONLY))
    return "made"


def write_top_folder(params: Params) -> str:
    os.mkdir("/escape")
    return "made"


def write_devices(params: Params) -> str:
    os.close(os.open("/dev/escape", os.O_CREAT | os.O_WRONLY))
    return "made"


def open_disk(params: Params) -> str:
    os.close(os.open("/dev/vda", os.O_RDONLY))
    return "opened"


def set_uid_files(params: Params) -> list[str]:
    found = []
    for folder, _, files in os.walk("/"):
        if folder.startswith("/proc"):
            continue
        for name in files:
            path = os.path.join(folder, name)
            try:
                state = os.stat(path, follow_symlinks=False)
                mounted = os.statvfs(path).f_flag
            except OSError:
                continue
            if stat.S_ISREG(state.st_mode) and state.st_mode & 0o6000 and not mounted & os.ST_NOSUID:
                found.append(path)
    return found


def own_set_uid_file(params: Params) -> int:
    path = os.path.join(os.environ["TMPDIR"], "root-shell")
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o755))
    os.chmod(path, 0o4755)
    return os.stat(path).st_mode


def execute_from_work(params: Params) -> int:
    path = os.path.join(os.environ["TMPDIR"], "program")
    with open(sys.executable, "rb") as source, open(path, "wb") as target:
        target.write(source.read())
    return subprocess.run([path], check=False).returncode


def shell(params: Params) -> int:
    return subprocess.run(["/bin/sh", "-c", "true"], check=False).returncode


# --- processes and the kernel -----------------------------------------------------------------------------------------


def _call(name: str, params: Params, *arguments: int) -> int:
    ctypes.set_errno(0)
    words = [ctypes.c_long(one) for one in arguments]
    done = int(libc.syscall(ctypes.c_long(params["calls"][name]), *words))
    if done < 0:
        raise OSError(ctypes.get_errno(), name)
    return done


def every_other_call(params: Params) -> dict[str, list[int]]:
    """Make every call that is not allowed, with arguments that are not valid; return the numbers by errno."""
    found: dict[str, list[int]] = {}
    for number in params["not_allowed"]:
        ctypes.set_errno(0)
        done = int(libc.syscall(ctypes.c_long(number), *(ctypes.c_long(-1) for _ in range(6))))
        found.setdefault(str(ctypes.get_errno() if done < 0 else 0), []).append(number)
    return found


def foreign_calls(params: Params) -> int:
    """Make a system call of the x32 ABI."""
    child = os.fork()
    if child == 0:
        libc.syscall(ctypes.c_long(0x40000000 | 39))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def unshare_each(params: Params) -> list[int]:
    return [flag for flag in params["namespaces"] if libc.unshare(ctypes.c_int(flag)) == 0]


def clone_each(params: Params) -> list[int]:
    through = []
    for flag in params["namespaces"]:
        child = libc.syscall(ctypes.c_long(params["calls"]["clone"]), ctypes.c_long(flag | signal.SIGCHLD), 0, 0, 0, 0)
        if child == 0:
            os._exit(0)
        if child > 0:
            os.waitpid(child, 0)
            through.append(flag)
        elif ctypes.get_errno() != 1:
            raise OSError(ctypes.get_errno(), "clone")
    return through


def clone3(params: Params) -> int:
    return _call("clone3", params, 0, 0)


def terminal_input(params: Params) -> int:
    return int(fcntl.ioctl(0, 0x5412, b"x"))


def limits_of_the_node(params: Params) -> str:
    return str(resource.prlimit(params["pid"], resource.RLIMIT_NOFILE))


def signal_the_node(params: Params) -> None:
    os.kill(params["pid"], 0)


def signal_everybody(params: Params) -> str:
    try:
        os.kill(-1, signal.SIGKILL)
    except OSError as error:
        return f"errno {error.errno}"
    return "sent"


def command_line_of_the_node(params: Params) -> str:
    return _read(f"/proc/{params['pid']}/cmdline")


def environment_of_the_node(params: Params) -> str:
    return _read(f"/proc/{params['pid']}/environ")


def environment_of_the_first(params: Params) -> str:
    with open("/proc/1/environ", encoding="utf-8") as file:
        return file.read()


def command_line_of_the_first(params: Params) -> str:
    with open("/proc/1/cmdline", encoding="utf-8") as file:
        return file.read()


def visible_processes(params: Params) -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def kernel_setting(params: Params) -> None:
    os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))


def magic_keys(params: Params) -> None:
    os.close(os.open("/proc/sysrq-trigger", os.O_WRONLY))


def raise_limit(params: Params) -> None:
    try:
        resource.setrlimit(resource.RLIMIT_NPROC, (100_000, 100_000))
    except ValueError:  # what Python makes of EPERM
        raise OSError(1, "refused") from None


def identity(params: Params) -> dict[str, Any]:
    new_privileges = libc.prctl(39, 0, 0, 0, 0) != 1
    return {"uid": os.getuid(), "groups": os.getgroups(), "new_privileges": new_privileges, "host": os.uname().nodename}


def capabilities(params: Params) -> dict[str, str]:
    with open("/proc/self/status", encoding="ascii") as file:
        return {line.split()[0]: line.split()[1] for line in file if line.startswith("Cap")}


def handles(params: Params) -> list[str]:
    kinds = {stat.S_IFREG: "file", stat.S_IFIFO: "pipe", stat.S_IFCHR: "device", stat.S_IFSOCK: "socket"}
    found = []
    for number in range(4096):
        try:
            state = os.fstat(number)
        except OSError:
            continue
        found.append(f"{number} {kinds.get(stat.S_IFMT(state.st_mode), 'other')}")
    return found


def environment(params: Params) -> list[str]:
    return sorted(os.environ)


def frames_and_objects(params: Params) -> list[str]:
    """Walk up the frames and through all objects for a text of the node's."""
    texts: list[str] = []
    frame = sys._getframe()
    while frame is not None:
        texts += [str(value) for value in frame.f_locals.values() if isinstance(value, (str, bytes))]
        frame = frame.f_back  # type: ignore[assignment]
    for thing in gc.get_objects():
        if isinstance(thing, dict):
            texts += [value for value in thing.values() if isinstance(value, str)]
    return [text for text in texts if text.startswith("canary-") and text != "canary-"]


def node_package(params: Params) -> str:
    import sandbox

    return str(sandbox.__file__)


def unpinned_package(params: Params) -> str:
    import cryptography

    return str(cryptography.__file__)


def allowed_packages(params: Params) -> list[str]:
    import duckdb
    import lightgbm
    import numpy
    import onnxruntime
    import pandas
    import scipy.stats
    import sklearn.linear_model

    model = sklearn.linear_model.LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
    assert list(model.predict([[0.0], [3.0]])) == [0, 1]
    return [m.__name__ for m in (duckdb, lightgbm, numpy, onnxruntime, pandas, scipy.stats)]


def native_code(params: Params) -> dict[str, int]:
    """Load the shared library that stands in the bundle, and make calls from it."""
    shipped = ctypes.CDLL(os.path.join(os.path.dirname(__file__), "native.so"))
    answer = {"sum": shipped.add(2, 3), "socket": -shipped.open_socket()}
    child = os.fork()
    if child == 0:
        shipped.old_call()
        os._exit(0)
    return {**answer, "old": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}


# --- bombs and bad manners: each alone in its jail --------------------------------------------------------------------


def fork_bomb(params: Params) -> None:
    while True:
        try:
            os.fork()
        except OSError:
            time.sleep(0.01)


def thread_bomb(params: Params) -> int:
    made = 0
    try:
        for _ in range(5000):
            threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
            made += 1
    except RuntimeError:
        return made
    return made


def _fill(size: int) -> bytearray:
    taken = bytearray(size)
    taken[::4096] = b"x" * len(taken[::4096])
    return taken


def memory_bomb(params: Params) -> None:
    held = []
    while True:
        held.append(_fill(32 << 20))


def memory_of_many(params: Params) -> None:
    for _ in range(12):
        if os.fork() == 0:
            held = _fill(params["each_mib"] << 20)
            time.sleep(30)
            os._exit(len(held) & 1)
    time.sleep(30)


def shared_memory_bomb(params: Params) -> None:
    held = []
    while True:
        shared = mmap.mmap(-1, 32 << 20)
        shared[::4096] = b"x" * len(shared[::4096])
        held.append(shared)


def disk_bomb(params: Params) -> int:
    """Fill the disk; make room again, so that the answer can be written."""
    written = number = 0
    folder = os.path.join(os.environ["TMPDIR"], "bomb")
    os.mkdir(folder)
    try:
        while written < 4 << 30:
            with open(os.path.join(folder, str(number)), "wb", buffering=0) as file:
                written += file.write(b"x" * (1 << 20))
            number += 1
    except OSError as error:
        assert error.errno == errno.ENOSPC
    shutil.rmtree(folder)
    return written


def big_file(params: Params) -> int:
    path = os.path.join(os.environ["TMPDIR"], "big")
    written = 0
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with open(path, "wb", buffering=0) as file:
            while written < 4 << 30:
                written += file.write(b"x" * (1 << 20))
    except OSError as error:
        assert error.errno in (errno.EFBIG, errno.ENOSPC)
    os.unlink(path)
    return written


def inode_bomb(params: Params) -> int:
    made = 0
    folder = os.path.join(os.environ["TMPDIR"], "many")
    os.mkdir(folder)
    try:
        while made < 200_000:
            os.mkdir(os.path.join(folder, str(made)))
            made += 1
    except OSError as error:
        assert error.errno == errno.ENOSPC
    shutil.rmtree(folder)
    return made


def cpu_bomb(params: Params) -> None:
    for _ in range(3):
        if os.fork() == 0:
            break
    while True:
        pass


def endless_sleep(params: Params) -> None:
    time.sleep(1e6)


def deaf(params: Params) -> None:
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(0.1)


def deaf_family(params: Params) -> None:
    for _ in range(3):
        if os.fork() == 0 and os.fork() == 0:
            deaf(params)
    deaf(params)


def log_flood(params: Params) -> str:
    print("first line")
    for _ in range(2000):
        os.write(1, b"y" * 8192)
    sys.stdout.flush()
    print("last line")
    return "printed"


def daemon(params: Params) -> str:
    if os.fork() == 0:
        if os.fork() == 0:
            for number in range(3):
                os.close(number)
            time.sleep(600)
        os._exit(0)
    os.wait()
    return "left one behind"


def leave_with_seven(params: Params) -> None:
    os._exit(7)


def leave_with_nothing(params: Params) -> None:
    os._exit(0)


def fail_loudly(params: Params) -> None:
    print("row 42: canary-in-the-log")
    sys.stdout.flush()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


# --- outputs ----------------------------------------------------------------------------------------------------------


def _out(params: Params, name: str) -> str:
    return os.path.join(params["out"], name)


def link_as_output(params: Params) -> str:
    os.symlink("/etc/passwd", _out(params, "leak.arrow"))
    return "linked"


def hard_link_as_output(params: Params) -> str:
    with open(_out(params, "a.arrow"), "wb") as file:
        file.write(b"x")
    os.link(_out(params, "a.arrow"), _out(params, "b.arrow"))
    return "linked"


def folder_as_output(params: Params) -> str:
    os.mkdir(_out(params, "leak.arrow"))
    return "made"


def pipe_as_output(params: Params) -> str:
    os.mkfifo(_out(params, "leak.arrow"))
    return "made"


def odd_name_as_output(params: Params) -> str:
    with open(_out(params, "row 42.csv"), "wb") as file:
        file.write(b"x")
    return "made"


def too_many_outputs(params: Params) -> str:
    for number in range(100):
        with open(_out(params, f"t{number}.arrow"), "wb"):
            pass
    return "made"


def too_large_output(params: Params) -> str:
    with open(_out(params, "large.arrow"), "wb") as file:
        os.ftruncate(file.fileno(), params["size"])
    return "made"
