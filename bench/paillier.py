"""Paillier beside ``phe`` on gmpy2 and ``sf-heu`` (ZPaillier), with our back ends in turn.

    python -m bench.paillier [--rounds 3]

Units:      microseconds of CPU time of the whole process, one thread; for "two threads" wall-clock time. Best of all
            rounds, in each of which every library runs once in a process of its own: a neighbour on the same core slows
            some rounds of each. Keys and tables are made before the clock starts; what a table costs is a line of its
            own.
Shapes:     exponents have half the key's length. "column sum": 40-bit signed integers packed, encrypted, added and
            the sum decrypted, a value; ``phe`` has one value in a plaintext, ``sf-heu`` two. "row": one ciphertext,
            encrypted with the public key; "of the owner": with p and q. "add": one of many added up.
Two threads: beside a control, SHA-256 of OpenSSL, that needs two cores as well. Where the control's ratio is far above
            0.5 the machine had no second core to give, and ours says nothing.
Peers:      ``sf-heu`` runs in ``bench/peers/.venv-heu``, made on demand; without it its lines are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from bench.record import Figure, record, versions
from sandbox.crypto import modexp
from sandbox.mpc import paillier, powers
from sandbox.mpc.packing import Column, Layout

Found: TypeAlias = dict[str, dict[str, float]]  # by key size and case

COMMAND: Final = "python -m bench.paillier"
HEU: Final = "sf-heu==0.5.2b0"
PEERS: Final = Path(__file__).parent / "peers"
TRIES: Final = 3
WALL_TRIES: Final = 12  # two free cores are rarer than a quiet one
CONTROL_MIB: Final = 128
CASES: Final = {
    ("column sum", "2048"): "column sum of 40-bit integers, 2048 bits: a value",
    ("row", "2048"): "row, 2048 bits",
    ("add", "2048"): "add, 2048 bits",
    ("decrypt", "2048"): "decrypt, 2048 bits",
    ("column sum", "3072"): "column sum of 40-bit integers, 3072 bits: a value",
    ("row", "3072"): "row, 3072 bits",
    ("decrypt", "3072"): "decrypt, 3072 bits",
}


def best(work: Callable[[], Any], count: int) -> float:
    """Return microseconds of CPU time a piece of ``count``, the best of some tries."""
    taken = []
    for _ in range(TRIES):
        began = time.process_time()
        work()
        taken.append((time.process_time() - began) / count * 1e6)
    return min(taken)


def ours(bits: int, rows: int, values: int) -> dict[str, float]:
    """Measure this package with the back end of this process."""
    key = paillier.generate(bits)
    public, size = key.public, bits // 8
    plain = np.random.default_rng(1).integers(0, 256, (rows, size), np.uint8)
    plain[:, 0] = 0
    data = plain.tobytes()
    enough = data[: (powers.FEW + 1) * size]  # one more than is done without a table
    began = time.process_time()
    public.encrypt(enough)
    found = {"table": (time.process_time() - began) * 1e6}
    key.encrypt(enough)
    ciphertexts = public.encrypt(data)
    found["row"] = best(lambda: public.encrypt(data), rows)
    found["row of the owner"] = best(lambda: key.encrypt(data), rows)
    found["add"] = best(lambda: public.sum(ciphertexts * 8, fresh=False), 8 * rows)
    found["decrypt"] = best(lambda: key.decrypt(ciphertexts[: 256 * 2 * size]), 256)
    assert key.decrypt(ciphertexts[: 256 * 2 * size]) == data[: 256 * size]

    column = np.random.default_rng(2).integers(-(2**39), 2**39, (values, 1))
    layout = Layout.fitting([Column("amount", -(2**39), 2**39 - 1)], terms=4096, key_bits=bits)

    def column_sum() -> None:
        total = public.sum(public.encrypt(layout.pack(column)))
        assert layout.total(key.decrypt(total), values) == (int(column.sum()),)

    found["column sum"] = best(column_sum, values)
    return found | walls(public, data)


def walls(public: paillier.PublicKey, data: bytes) -> dict[str, float]:
    """Return wall-clock microseconds a row and, as a control, a MiB of SHA-256, with one thread and with two."""
    rows, half = len(data) // public.size, bytes(CONTROL_MIB << 19)
    with ThreadPoolExecutor(2) as pool:
        works: dict[str, tuple[int, Callable[[], object]]] = {
            "wall": (rows, lambda: public.encrypt(data)),
            "wall, two threads": (rows, lambda: public.encrypt(data, threads=2)),
            "control": (CONTROL_MIB, lambda: list(map(sha256, (half, half)))),
            "control, two threads": (CONTROL_MIB, lambda: list(pool.map(sha256, (half, half)))),
        }
        taken: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(WALL_TRIES):
            for name, (count, work) in works.items():
                began = time.perf_counter()
                work()
                taken[name].append((time.perf_counter() - began) / count * 1e6)
    return {name: min(values) for name, values in taken.items()}


def theirs(bits: int, rows: int) -> dict[str, float]:
    """Measure ``phe``, which uses gmpy2 where it is installed, as it is here."""
    import phe
    from phe import util

    assert util.HAVE_GMP
    public, secret = phe.generate_paillier_keypair(n_length=bits)
    values = [int(value) for value in np.random.default_rng(1).integers(-(2**39), 2**39, rows)]
    ciphertexts = [public.encrypt(value) for value in values]

    def column_sum() -> None:
        assert secret.decrypt(sum(public.encrypt(value) for value in values)) == sum(values)

    return {
        "row": best(lambda: [public.encrypt(value) for value in values], rows),
        "add": best(lambda: sum(ciphertexts * 50), 50 * rows),
        "decrypt": best(lambda: [secret.decrypt(one) for one in ciphertexts], rows),
        "column sum": best(column_sum, rows),
    }


def worker(who: str) -> Found:
    """Measure one library in this process."""
    if who == "phe":
        return {"2048": theirs(2048, 40), "3072": theirs(3072, 15)}
    return {"2048": ours(2048, 1024, 100_000), "3072": ours(3072, 512, 60_000)}


def heu() -> list[str]:
    """Return the command that measures ``sf-heu``, its environment made if need be; nothing where it cannot be."""
    place = PEERS / ".venv-heu"
    python = place / "bin" / "python"
    line = [str(python), "-I", str(PEERS / "heu.py"), "1000", "300"]
    try:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(place)], check=True, capture_output=True)
        installed = subprocess.run([str(python), "-c", "import heu"], capture_output=True).returncode == 0
        if not installed:
            pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q", HEU]
            subprocess.run(pip, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{HEU} is left out, since it cannot be installed: {error}", file=sys.stderr, flush=True)
        return []
    return line


def run(line: list[str], **environment: str) -> Found:
    """Run one library in a process of its own."""
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, env=os.environ | environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(line[:3])} failed")
    printed: Found = json.loads(done.stdout.splitlines()[-1])
    return printed


def rounds(count: int) -> dict[str, Found]:
    """Run every library in turn, and return the best of each case."""
    program = [sys.executable, "-m", "bench.paillier", "--worker"]
    lines: dict[str, tuple[list[str], dict[str, str]]] = {
        name: ([*program, "ours"], {modexp.VARIABLE: name}) for name in modexp.backends()
    }
    lines["phe"] = [*program, "phe"], {}
    peer = heu()
    if peer:
        lines["sf-heu"] = peer, {}
    least: dict[str, Found] = {}
    for number in range(count):
        for name, (line, environment) in lines.items():
            for bits, cases in run(line, **environment).items():
                kept = least.setdefault(name, {}).setdefault(bits, {})
                for case, value in cases.items():
                    kept[case] = min(value, kept.get(case, value))
            print(f"round {number + 1}: {name} {least[name]}", file=sys.stderr, flush=True)
    return least


def figures(least: dict[str, Found], command: str) -> list[Figure]:
    """Return the lines to record: ours on the fastest back end, beside each other."""
    first = modexp.backends()[0]
    mine, seen = least[first], versions() | {"modexp": first, "gmpy2": version("gmpy2")}
    peers = {"phe": f"phe {version('phe')} + gmpy2", "sf-heu": f"{HEU.replace('==', ' ')} ZPaillier"}
    peers = {name: title for name, title in peers.items() if name in least}

    def beside(case: str, value: float, peer: str, other: float, unit: str = "µs CPU") -> Figure:
        ratio = float(f"{value / other:.3g}")  # a thousandth would round to nothing
        return Figure("paillier", case, round(value, 3), unit, command, peer, round(other, 3), ratio, None, seen)

    made = []
    for (case, bits), title in CASES.items():
        for name, peer in peers.items():
            made.append(beside(f"{title}, beside {name}", mine[bits][case], peer, least[name][bits][case]))
            print(f"{title}: {1e6 / mine[bits][case]:.0f} /s, {peer} {1e6 / least[name][bits][case]:.0f} /s")
    for other in modexp.backends()[1:]:
        for case in ("row", "decrypt", "add"):
            title, slower = CASES[case, "2048"], least[other]["2048"][case]
            made.append(beside(f"{title}, beside the back end {other}", mine["2048"][case], f"ours, {other}", slower))
    small = mine["2048"]
    owner = "row of the key's owner, 2048 bits, beside the public key's"
    made.append(beside(owner, small["row of the owner"], "ours, public key", small["row"]))
    for case, title in (("wall", "row, 2048 bits"), ("control", "control, a MiB of SHA-256")):
        both = f"{title}, two threads beside one: wall-clock"
        made.append(beside(both, small[f"{case}, two threads"], "one thread", small[case], "µs"))
    for bits in ("2048", "3072"):
        table = round(mine[bits]["table"] / 1e3, 1)
        made.append(Figure("paillier", f"table of a key, {bits} bits", table, "ms CPU", command, versions=seen))
    return made


def main(arguments: list[str] | None = None) -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", choices=("ours", "phe"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        print(json.dumps(worker(options.worker)))
        return
    record(figures(rounds(options.rounds), f"{COMMAND} --rounds {options.rounds}"))


if __name__ == "__main__":
    main()
