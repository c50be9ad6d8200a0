"""The system calls that code in the jail may make, as a filter program for the kernel.

An allow-list: what is not named does not exist (``ENOSYS``, so that libraries take their older way), what merchants
may expect to work and must not is refused with ``EPERM``, and another architecture's calls kill the process.

Source:   classic BPF as in linux/filter.h and seccomp(2); numbers from the kernel's tables for x86-64 and the generic
          one (aarch64). The tests compare them with libseccomp's and interpret the program.
Security: no sockets of any family, no tracing, no namespaces (also not through the flags of clone, and clone3 does
          not exist), no keys, bpf, io_uring, mounts, identities, sessions, limits of others, ownership and modes of
          files, executable memory files, locks on files (jails share some: they would be a channel between them).
          What a file handle allows is Landlock's and the mounts'.
Errors:   ``Unavailable`` on an architecture without a table.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from sandbox.errors import Unavailable

# name, number on x86-64, number on aarch64; "-" where the architecture has no such call
_ALLOWED: Final = """
    mmap 9 222, mprotect 10 226, munmap 11 215, mremap 25 216, madvise 28 233, brk 12 214, msync 26 227,
    mincore 27 232, membarrier 324 283,
    read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, preadv 295 69,
    pwritev 296 70, preadv2 327 286, pwritev2 328 287, open 2 -, openat 257 56, close 3 57, close_range 436 436,
    lseek 8 62, stat 4 -, fstat 5 80, lstat 6 -, newfstatat 262 79, statx 332 291, access 21 -, faccessat 269 48,
    faccessat2 439 439, readlink 89 -, readlinkat 267 78, getdents 78 -, getdents64 217 61, getcwd 79 17,
    chdir 80 49, fchdir 81 50, rename 82 -, renameat 264 38, renameat2 316 276, mkdir 83 -, mkdirat 258 34,
    rmdir 84 -, unlink 87 -, unlinkat 263 35, link 86 -, linkat 265 37, symlink 88 -, symlinkat 266 36,
    truncate 76 45, ftruncate 77 46, fallocate 285 47, fsync 74 82, fdatasync 75 83, fadvise64 221 223,
    statfs 137 43, fstatfs 138 44, fcntl 72 25, dup 32 23, dup2 33 -, dup3 292 24, pipe 22 -,
    pipe2 293 59, umask 95 166, copy_file_range 326 285, sendfile 40 71, getxattr 191 8, lgetxattr 192 9,
    fgetxattr 193 10, listxattr 194 11, llistxattr 195 12, flistxattr 196 13,
    poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72, epoll_create 213 -, epoll_create1 291 20,
    epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, eventfd 284 -, eventfd2 290 19, futex 202 98,
    pause 34 -, nanosleep 35 101, clock_nanosleep 230 115,
    gettimeofday 96 169, time 201 -, clock_gettime 228 113, clock_getres 229 114, times 100 153,
    getrusage 98 165, alarm 37 -, setitimer 38 103, getitimer 36 102,
    fork 57 -, vfork 58 -, execve 59 221, exit 60 93, exit_group 231 94, wait4 61 260, waitid 247 95,
    kill 62 129, tkill 200 130, tgkill 234 131, getpid 39 172, gettid 186 178, getppid 110 173, getpgrp 111 -,
    getpgid 121 155, getsid 124 156, getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177,
    getresuid 118 148, getresgid 120 150, getgroups 115 158, getcpu 309 168, sched_yield 24 124,
    sched_getaffinity 204 123, sched_getparam 143 121, sched_getscheduler 145 120, getpriority 140 141,
    set_tid_address 218 96, set_robust_list 273 99, get_robust_list 274 100, rseq 334 293, arch_prctl 158 -,
    uname 63 160, sysinfo 99 179, getrlimit 97 163, setrlimit 160 164, getrandom 318 278,
    restart_syscall 219 128,
    rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigsuspend 130 133,
    rt_sigpending 127 136, rt_sigtimedwait 128 137, sigaltstack 131 132
"""
_REFUSED: Final = """
    socket 41 198, socketpair 53 199, connect 42 203, bind 49 200, listen 50 201, accept 43 202, accept4 288 242,
    sendto 44 206, recvfrom 45 207, sendmsg 46 211, recvmsg 47 212, sendmmsg 307 269, recvmmsg 299 243,
    shutdown 48 210, getsockname 51 204, getpeername 52 205, setsockopt 54 208, getsockopt 55 209,
    ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, bpf 321 280, perf_event_open 298 241,
    userfaultfd 323 282, keyctl 250 219, add_key 248 217, request_key 249 218, io_uring_setup 425 425,
    io_uring_enter 426 426, io_uring_register 427 427, mount 165 40, umount2 166 39, pivot_root 155 41,
    chroot 161 51, unshare 272 97, setns 308 268, setuid 105 146, setgid 106 144, setreuid 113 145,
    setregid 114 143, setresuid 117 147, setresgid 119 149, setgroups 116 159, setfsuid 122 151,
    setfsgid 123 152, capset 126 91, setsid 112 157, setpgid 109 154, chmod 90 -, fchmod 91 52, fchmodat 268 53,
    chown 92 -, fchown 93 55, lchown 94 -, fchownat 260 54, utime 132 -, utimes 235 -, utimensat 280 88,
    futimesat 261 -, setxattr 188 5, lsetxattr 189 6, fsetxattr 190 7, removexattr 197 14, mknod 133 -,
    mknodat 259 33, reboot 169 142, init_module 175 105, finit_module 313 273, delete_module 176 106,
    kexec_load 246 104, kexec_file_load 320 294, swapon 167 224, swapoff 168 225, acct 163 89,
    settimeofday 164 170, clock_settime 227 112, adjtimex 159 171, sethostname 170 161, setdomainname 171 162,
    syslog 103 116, personality 135 92, sched_setaffinity 203 122, sched_setscheduler 144 119,
    sched_setattr 314 274, setpriority 141 140, ioprio_set 251 30, memfd_create 319 279, shmget 29 194,
    semget 64 190, msgget 68 186, mq_open 240 180, open_by_handle_at 304 265, name_to_handle_at 303 264,
    quotactl 179 60, iopl 172 -, ioperm 173 -, modify_ldt 154 -, pidfd_open 434 434, pidfd_getfd 438 438,
    pidfd_send_signal 424 424, kcmp 312 272
"""


class _Rule(NamedTuple):
    """A call that is judged by the low 32 bits of one argument (the kernel looks at no others here)."""

    name: str
    x86_64: int
    aarch64: int
    argument: int
    mask: int  # refused if any of these bits is set, before anything else
    values: tuple[int, ...]
    allowed: bool  # whether ``values`` are the only ones allowed, or the only ones refused


# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_NEW_NAMESPACE: Final = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_RULES: Final = (
    _Rule("clone", 56, 220, 0, _NEW_NAMESPACE, (), False),
    # TIOCSTI and TIOCLINUX put characters into a terminal's input.
    _Rule("ioctl", 16, 29, 1, 0, (0x5412, 0x541C), False),
    # Names of threads and of memory, questions, huge pages, timer slack, no new privileges; not: dumpable, the signal
    # at the parent's death, sub-reaper.
    _Rule("prctl", 157, 167, 0, 0, (3, 15, 16, 21, 23, 29, 30, 38, 39, 41, 42, 0x53564D41), True),
    # Limits of this process (0) only: without a pid namespace the node's own would be in reach.
    _Rule("prlimit64", 302, 261, 0, 0, (0,), True),
)

_MACHINES: Final = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH
_X32_BIT: Final = 0x40000000

_LOAD, _JUMP_EQ, _JUMP_GE, _JUMP_GT, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x25, 0x45, 0x06
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16  # struct seccomp_data
_ALLOW: Final = 0x7FFF0000
_KILL: Final = 0x80000000
_ERRNO: Final = 0x00050000


def table(text: str, machine: str) -> dict[str, int]:
    """Return name and number of the calls of one of the lists that ``machine`` has."""
    column = _MACHINES[machine][0] + 1
    words = [entry.split() for entry in text.split(",")]
    return {word[0]: int(word[column]) for word in words if word[column] != "-"}


def allowed(machine: str) -> dict[str, int]:
    """Return the calls that are allowed whatever their arguments."""
    return table(_ALLOWED, machine)


def refused(machine: str) -> dict[str, int]:
    """Return the calls that are refused as not permitted, rather than unknown."""
    return table(_REFUSED, machine)


def ruled(machine: str) -> dict[str, int]:
    """Return the calls that are judged by an argument."""
    return {rule.name: (rule.x86_64, rule.aarch64)[_MACHINES[machine][0]] for rule in _RULES}


def program(machine: str = "") -> bytes:
    """Return the filter for ``machine`` (this one's architecture if empty), ready for the kernel.

    Raises:
        Unavailable: there is no table for it.
    """
    machine = machine or platform.machine()
    if machine not in _MACHINES:
        raise Unavailable(
            f"no system call table for {machine}",
            tell="merchant code cannot be confined on this processor architecture",
            hint="run the node on x86-64 or aarch64",
        )
    return b"".join(struct.pack("=HBBI", *step) for step in _steps(machine))


def _steps(machine: str) -> Iterator[tuple[int, int, int, int]]:
    """Yield (code, jump if true, jump if false, operand); every jump is forward and short."""
    arch = _MACHINES[machine][1]
    yield (_LOAD, 0, 0, _ARCH_AT)
    yield (_JUMP_EQ, 1, 0, arch)
    yield (_RETURN, 0, 0, _KILL)
    yield (_LOAD, 0, 0, _NUMBER_AT)
    if machine == "x86_64":
        yield (_JUMP_GE, 0, 1, _X32_BIT)
        yield (_RETURN, 0, 0, _KILL)
    for rule in _RULES:
        body = list(_judge(rule))
        yield (_JUMP_EQ, 0, len(body), ruled(machine)[rule.name])
        yield from body
    for first, last in _ranges(allowed(machine).values()):
        yield (_JUMP_GE, 0, 2, first)
        yield (_JUMP_GT, 1, 0, last)
        yield (_RETURN, 0, 0, _ALLOW)
    for first, last in _ranges(refused(machine).values()):
        yield (_JUMP_GE, 0, 2, first)
        yield (_JUMP_GT, 1, 0, last)
        yield (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    yield (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)


def _judge(rule: _Rule) -> Iterator[tuple[int, int, int, int]]:
    """Yield the steps that decide by an argument; they always end the program."""
    yes, no = (_ALLOW, _ERRNO | errno.EPERM) if rule.allowed else (_ERRNO | errno.EPERM, _ALLOW)
    yield (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * rule.argument)  # both machines are little-endian: the low half is first
    if rule.mask:
        yield (_JUMP_SET, 0, 1, rule.mask)
        yield (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    for value in rule.values:
        yield (_JUMP_EQ, 0, 1, value)
        yield (_RETURN, 0, 0, yes)
    yield (_RETURN, 0, 0, no)


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return the numbers as runs without gaps, in order."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs
