"""The system call filter by itself: its numbers against another library's, its program against an interpreter."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import Unavailable
from sandbox.tee_sim import seccomp

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
words = st.integers(0, 2**64 - 1)


def judge(program: bytes, number: int, arch: int, arguments: tuple[int, ...] = (0,) * 6) -> int:
    """Interpret a filter as the kernel would (classic BPF, the six instructions that occur in it)."""
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *arguments)
    steps = list(struct.iter_unpack("=HBBI", program))
    at = accumulator = 0
    while True:
        code, if_true, if_false, operand = steps[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, operand)
        elif code == 0x06:
            return int(operand)
        else:
            tests = {0x15: accumulator == operand, 0x35: accumulator >= operand, 0x25: accumulator > operand}
            taken = bool(accumulator & operand) if code == 0x45 else tests[code]
            at += if_true if taken else if_false


@pytest.fixture(params=sorted(MACHINES))
def machine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_the_numbers_are_those_of_libseccomp(machine: str) -> None:
    name = ctypes.util.find_library("seccomp")
    if name is None:
        pytest.skip("libseccomp, which knows the numbers too, is not installed")
    resolve = ctypes.CDLL(name).seccomp_syscall_resolve_name_arch
    resolve.argtypes, resolve.restype = [ctypes.c_uint32, ctypes.c_char_p], ctypes.c_int
    listed = seccomp.allowed(machine) | seccomp.refused(machine) | seccomp.ruled(machine)
    assert len(listed) > 200
    for call, number in listed.items():
        assert resolve(MACHINES[machine], call.encode()) == number, call
    other = {name for one in MACHINES for name in seccomp.allowed(one) | seccomp.refused(one)}
    for call in other - set(listed):  # said not to exist there
        assert resolve(MACHINES[machine], call.encode()) < 0, call


def test_every_call_is_judged_by_its_list(machine: str) -> None:
    program, arch = seccomp.program(machine), MACHINES[machine]
    allowed, refused = set(seccomp.allowed(machine).values()), set(seccomp.refused(machine).values())
    ruled = set(seccomp.ruled(machine).values())
    assert not allowed & refused
    assert not ruled & (allowed | refused)
    for number in set(range(1024)) - ruled:
        expected = ALLOW if number in allowed else EPERM if number in refused else ENOSYS
        assert judge(program, number, arch) == expected


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_another_architecture_ends_the_process(number: int, arch: int) -> None:
    for name, own in MACHINES.items():
        if arch != own:
            assert judge(seccomp.program(name), number, arch) == KILL


@given(st.integers(0x40000000, 2**32 - 1))
def test_the_x32_abi_ends_the_process(number: int) -> None:
    assert judge(seccomp.program("x86_64"), number, MACHINES["x86_64"]) == KILL


@given(words)
def test_clone_makes_no_namespace(flags: int) -> None:
    spaces = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
    for name, arch in MACHINES.items():
        verdict = judge(seccomp.program(name), seccomp.ruled(name)["clone"], arch, (flags, 0, 0, 0, 0, 0))
        assert verdict == (EPERM if any(flags & one for one in spaces) else ALLOW)


@given(words, words)
def test_limits_can_be_set_for_oneself_only(process: int, other: int) -> None:
    for name, arch in MACHINES.items():
        number = seccomp.ruled(name)["prlimit64"]
        verdict = judge(seccomp.program(name), number, arch, (process, other, other, 0, 0, 0))
        assert verdict == (ALLOW if process & 0xFFFFFFFF == 0 else EPERM)


@pytest.mark.parametrize(
    ("call", "argument", "value", "verdict"),
    [
        ("ioctl", 1, 0x5412, EPERM),
        ("ioctl", 1, 0xFFFFFFFF00005412, EPERM),  # the kernel looks at the low half only
        ("ioctl", 1, 0x541C, EPERM),
        ("ioctl", 1, 0x5401, ALLOW),
        ("prctl", 0, 4, EPERM),  # dumpable
        ("prctl", 0, 1, EPERM),  # the signal at the parent's death
        ("prctl", 0, 36, EPERM),  # sub-reaper
        ("prctl", 0, 22, EPERM),
        ("prctl", 0, 15, ALLOW),
    ],
)
def test_arguments_decide(machine: str, call: str, argument: int, value: int, verdict: int) -> None:
    arguments = tuple(value if place == argument else 0 for place in range(6))
    number = seccomp.ruled(machine)[call]
    assert judge(seccomp.program(machine), number, MACHINES[machine], arguments) == verdict


def test_an_unknown_machine_has_no_filter() -> None:
    with pytest.raises(Unavailable):
        seccomp.program("riscv64")
