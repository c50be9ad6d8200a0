"""What an intersection will take, before it runs, and which engine is the cheapest for two sizes.

Units:  seconds of wall time on machines with nothing else to do; bytes on the wire, both ways; MiB of memory at the
        side that needs more, for one bucket at a time; turns in which a message waits for the other side's (times the
        round trip of the line, which is not in ``seconds``).
Shapes: ``link_mbit`` is the line between the parties, each way; ``cores`` are those one party gives to one job.
Errors: ``InvalidSpec`` for an engine, back end, seal or size that does not exist.
Not here: which engines can run at both nodes, who learns (``prepared-sm2``, ``count-sm2`` and ``loads-sm2`` answer left
        alone), prices, deadlines.

Model:  compute, sealing and the line overlap where an engine streams and there is a core for each, and add up where
        phases take turns (``rr22``) or there is one core. Each party computes on its own machine, so the slower side
        counts. Every constant says where it was measured. They are good to about a third; the order of engines is less
        sensitive, since they differ by factors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from sandbox.errors import InvalidSpec
from sandbox.psi.buckets import plan_buckets
from sandbox.psi.commutative import BATCH
from sandbox.psi.contract import MAX_ROWS
from sandbox.psi.counting import BATCH as SMALL_BATCH
from sandbox.psi.counting import ECHO_BATCH
from sandbox.psi.counting import NAME as ECHO
from sandbox.psi.loads import MESSAGE
from sandbox.psi.prepared import NAME

NATIONAL: Final = frozenset({"ecdh-sm2", "prepared-sm2", "count-sm2", "loads-sm2"})
# Seconds a byte at one end, one thread, sealing and opening alike.
SEALS: Final = {
    "sm4": 1 / (1500 * 2**20),  # back end "gfni" of sandbox.crypto.sm4: bench.sm4
    "sm4/openssl": 1 / (146 * 2**20),  # OpenSSL 4.0.3 through cryptography
    # AES-GCM under TLS: 13 GiB/s and more, measured with the relay of one port.
    "tls": 1 / (13 * 2**30),
}
# Seconds of CPU an element, with validation: hash to the curve, and multiply. docs/adr/0008, bench.sm2curve.
BACKENDS: Final = {"ifma": (2.0e-6, 9.1e-6), "portable": (13e-6, 71e-6), "libcrypto": (385e-6, 323e-6)}
# The same for X25519 in a Python loop: 5 000 keys a side took 112 us of CPU a key and side (hash and two products).
_X25519: Final = (28e-6, 42e-6)

# RR22 (spu 0.10, fast mode), a core a party, sealed, from start to result: 5.5 s at 1e6 x 1e6 and 38.8 s at 1e7 x 1e7,
# about 1.9 us a row of either side; 0.8 s for 1e3 x 1e3 on a busy machine. Published figures with 8 cores a party are
# about twice as fast as ours with one, and no faster with 32.
_RR22_START_S: Final = 0.6
_RR22_ROW_S: Final = 1.9e-6
_RR22_CORES: Final = 2
# Bytes counted by the relay of the tests at 1e3 x 1e3, 1e3 x 1e6, 1e6 x 1e3, 1e6 x 1e6: 0.98, 9.97, 22.9, 34.9 million.
_RR22_BYTES: Final = (960_000, 22, 9, 3)  # of a run, of a row at left, at right, and of a row of the smaller side
_RR22_TURNS: Final = 57  # changes of direction in the relay, halved, at 1e3 and 1e5; brpc's replies are among them
# Child and caller together: 91 + 90 MiB at 1e3, 412 + 210 at 1e6 x 1e6.
_RR22_MIB: Final = (180, 1.5e-4, 1.2e-4)  # of a run, of a row of either side, of a row of one side

_START_S: Final = 0.4  # CPU of a process that has imported numpy, Arrow and an engine
_BASE_MIB: Final = 85  # the same process before it has rows
# MiB a row of either side: peak over base, a side, measured with 1e5 rows a side.
_ROW_MIB: Final = {"ecdh-x25519": 3.5e-4, "ecdh-sm2": 3.5e-4, "count-sm2": 1.1e-4, "loads-sm2": 1.1e-4}
_PREPARE_MIB: Final = 7e-5  # a row of the prepared side while it is prepared: 693 MiB over base at 1e7
_POINT: Final = 33
_X25519_POINT: Final = 32


@dataclass(frozen=True, slots=True)
class Cost:
    """What one intersection takes."""

    seconds: float
    bytes: int  # on the wire, both ways
    mib: int  # peak memory of the larger side
    rounds: int  # turns; multiply by the round trip of the line


@dataclass(frozen=True, slots=True)
class _Work:
    """What an engine does for two sizes, before machines and lines are looked at."""

    cpu_s: float  # of the slower side, on one core
    cores: int  # it can make use of
    carried: float  # bytes
    mib: float
    rounds: int
    start_s: float = _START_S
    overlaps: bool = True


def estimate(
    engine: str,
    left_rows: int,
    right_rows: int,
    *,
    link_mbit: float,
    cores: int,
    backend: str,
    seal: str,
    prepared: bool = False,
    load_size: int = 512,
) -> Cost:
    """Return what ``engine`` takes for these sizes.

    Args:
        backend: of the SM2 curve, at the slower party (``sm2curve.BACKEND``).
        seal: what protects the line: "sm4" for SM4-GCM records, "sm4/openssl" where OpenSSL seals them, "tls" for TLS
            alone.
        prepared: whether left has the copy already; else preparing it and sending it is part of the cost.
        load_size: bytes a load, for "loads-sm2".
    """
    if backend not in BACKENDS or seal not in SEALS or engine not in _ENGINES:
        raise InvalidSpec("there is no such engine, back end of the curve, or seal")
    if not (0 <= left_rows < MAX_ROWS and 0 <= right_rows < MAX_ROWS and 1 <= load_size <= MESSAGE):
        raise InvalidSpec("the sizes of an intersection are out of range")
    if not (link_mbit > 0 and cores >= 1):
        raise InvalidSpec("there is no line, or no core, to compute the cost with")
    work = _ENGINES[engine](_Ask(left_rows, right_rows, *BACKENDS[backend], prepared, load_size))
    compute = work.cpu_s / min(cores, work.cores)
    wire = 8e-6 * work.carried / link_mbit
    sealing = SEALS[seal] * work.carried
    if not work.overlaps:
        busy = compute + sealing + wire
    elif cores == 1:
        busy = max(compute + sealing, wire)
    else:
        busy = max(compute, sealing, wire)
    return Cost(round(work.start_s + busy, 3), round(work.carried), round(work.mib), work.rounds)


def choose(
    candidates: Iterable[str],
    left_rows: int,
    right_rows: int,
    *,
    link_mbit: float,
    cores: int,
    backend: str,
    seal: str,
    national: bool = False,
    asked: str = "",
    prepared: bool = False,
    load_size: int = 512,
) -> tuple[str, ...]:
    """Return the engines among ``candidates`` that may be used, the cheapest first.

    An engine on the SM2 curve is among them only if it was asked for by name, if national algorithms are demanded, or
    if there are no others (only they give a size or sums alone).

    Args:
        candidates: engines both nodes have and that answer what the job wants to know, to those who may learn it.
        national: whether the policy demands national algorithms; nothing else is used then.
        asked: the engine asked for by name, which comes first whatever it costs; empty if none was.

    Raises:
        InvalidSpec: ``asked`` is not a candidate, or not a national algorithm where one is demanded.
    """
    names = list(dict.fromkeys(candidates))
    others = [name for name in names if name not in NATIONAL]
    allowed = [name for name in names if name in NATIONAL] if national or not others else others
    if asked and asked not in allowed:
        if national or asked not in names:
            raise InvalidSpec("the engine asked for cannot be used for this job")
        allowed.append(asked)

    def rank(name: str) -> tuple[bool, float, str]:
        cost = estimate(
            name,
            left_rows,
            right_rows,
            link_mbit=link_mbit,
            cores=cores,
            backend=backend,
            seal=seal,
            prepared=prepared,
            load_size=load_size,
        )
        return name != asked, cost.seconds, name

    return tuple(sorted(allowed, key=rank))


@dataclass(frozen=True, slots=True)
class _Ask:
    left: int
    right: int
    hash_s: float
    multiply_s: float
    prepared: bool
    load_size: int


def _rr22(ask: _Ask) -> _Work:
    fixed, left, right, smaller = _RR22_BYTES
    buckets = plan_buckets(ask.left, ask.right)
    both, larger = ask.left + ask.right, max(ask.left, ask.right)
    mib, of_both, of_one = _RR22_MIB
    return _Work(
        cpu_s=_RR22_ROW_S * both,
        cores=_RR22_CORES * buckets,
        carried=fixed * buckets + left * ask.left + right * ask.right + smaller * min(ask.left, ask.right),
        mib=mib + (of_both * both + of_one * larger) / buckets,
        rounds=_RR22_TURNS * buckets,
        start_s=_RR22_START_S,  # that of later buckets is in the row's
        overlaps=False,
    )


def _exchange(ask: _Ask, name: str, hash_s: float, multiply_s: float, row_bytes: int) -> _Work:
    """Both learn: each side hashes and multiplies its own, and multiplies the other's."""
    buckets = plan_buckets(ask.left, ask.right, is_curve=True)
    return _Work(
        cpu_s=(hash_s + multiply_s) * max(ask.left, ask.right) + multiply_s * min(ask.left, ask.right),
        cores=buckets,  # each bucket computes on one
        carried=row_bytes * (ask.left + ask.right),
        mib=_BASE_MIB + _ROW_MIB[name] * (ask.left + ask.right) / buckets,
        rounds=2 * _batches(max(ask.left, ask.right), BATCH) + 2 * buckets,
    )


def _matching(ask: _Ask, name: str) -> _Work:
    """Only left learns the size: one shuffle over everything, on as many cores as there are."""
    larger, smaller = max(ask.left, ask.right), min(ask.left, ask.right)
    loads = name == "loads-sm2"
    second = _batches(ask.left, ECHO_BATCH)
    if loads:
        second += _batches(ask.right, max(MESSAGE // ask.load_size, 1)) + 1
    return _Work(
        cpu_s=(ask.hash_s + ask.multiply_s) * larger + ask.multiply_s * smaller,
        cores=1 << 16,
        carried=(_POINT + ECHO) * ask.left + (_POINT + (ask.load_size if loads else 0)) * ask.right,
        mib=_BASE_MIB + _ROW_MIB[name] * (ask.left + ask.right),
        rounds=_batches(larger, SMALL_BATCH) + second + 2,
    )


def _prepared(ask: _Ask) -> _Work:
    """Left's keys go there and back; before the first query all of right's are prepared and sent."""
    query = (ask.hash_s + 3 * ask.multiply_s) * ask.left  # one after another: out, there, and back
    first = 0.0 if ask.prepared else (ask.hash_s + ask.multiply_s) * ask.right
    copy = NAME * ask.right
    return _Work(
        cpu_s=query + first,
        cores=1 if ask.prepared else 1 << 16,
        carried=2 * _POINT * ask.left + (0 if ask.prepared else copy),
        mib=_BASE_MIB + (copy / 2**20 if ask.prepared else _PREPARE_MIB * ask.right),
        rounds=1 + _batches(ask.left, SMALL_BATCH) + (0 if ask.prepared else 1),
    )


def _batches(rows: int, size: int) -> int:
    return -(-rows // size)


_ENGINES: Final[dict[str, Callable[[_Ask], _Work]]] = {
    "rr22": _rr22,
    "ecdh-x25519": lambda ask: _exchange(ask, "ecdh-x25519", *_X25519, 2 * _X25519_POINT),
    "ecdh-sm2": lambda ask: _exchange(ask, "ecdh-sm2", ask.hash_s, ask.multiply_s, _POINT + ECHO),
    "prepared-sm2": _prepared,
    "count-sm2": lambda ask: _matching(ask, "count-sm2"),
    "loads-sm2": lambda ask: _matching(ask, "loads-sm2"),
}
