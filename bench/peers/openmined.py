"""An intersection with ``openmined-psi``: a server and a client, each a process, with a socket pair between them.

    python -I openmined.py --rows 100000

Prints one JSON line: seconds from the keys in memory to the client's positions, CPU seconds of both, the larger of the
two peak resident sizes, and the number of common rows. Server and client work at the same time where the protocol lets
them: the server's set-up message and the client's request do not need each other.
The client alone learns which rows are shared; no file is written, nothing is sealed. Golomb-compressed set, one wrong
row in 10^9 allowed over the whole run.
Needs nothing but the library (``openmined.txt``): made-up ids as in ``bench.psi_bare``, order drawn by ``random``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import socket
import time
from typing import Any, Final

import private_set_intersection.python as psi

FALSE_POSITIVES: Final = 1e-9


def ids(rows: int, first: int) -> list[str]:
    """Return ``rows`` made-up ids from ``first`` on, in random order."""
    numbers = list(range(first, first + rows))
    random.Random(first).shuffle(numbers)  # noqa: S311 made-up ids, the same ones every time
    return [f"99{number:016d}" for number in numbers]


def send(line: socket.socket, data: bytes) -> None:
    """Send one message."""
    line.sendall(len(data).to_bytes(8, "big") + data)


def receive(line: socket.socket) -> bytes:
    """Return one message."""
    size = int.from_bytes(line.recv(8, socket.MSG_WAITALL), "big")
    data = bytearray()
    while len(data) < size:
        piece = line.recv(min(1 << 20, size - len(data)))
        if not piece:
            raise SystemExit("the other side ended")
        data += piece
    return bytes(data)


def serve(line: socket.socket, keys: list[str]) -> None:
    """Be the server: the set-up, then one answer."""
    send(line, b"ready")
    receive(line)  # both begin now
    server: Any = psi.server.CreateWithNewKey(True)
    structure = psi.DataStructure.GCS
    send(line, server.CreateSetupMessage(FALSE_POSITIVES, len(keys), keys, structure).SerializeToString())
    request = psi.Request()
    request.ParseFromString(receive(line))
    send(line, server.ProcessRequest(request).SerializeToString())


def ask(line: socket.socket, keys: list[str]) -> int:
    """Be the client; return how many rows are shared."""
    send(line, b"begin")
    client: Any = psi.client.CreateWithNewKey(True)
    request = client.CreateRequest(keys).SerializeToString()
    # The set-up is read first: the server sends it before it reads.
    setup = psi.ServerSetup()
    setup.ParseFromString(receive(line))
    send(line, request)
    response = psi.Response()
    response.ParseFromString(receive(line))
    return len(client.GetIntersection(setup, response))


def used(whose: int) -> tuple[float, int]:
    """Return CPU seconds and peak MiB of this process or its child."""
    usage = resource.getrusage(whose)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss // 1024


def main() -> None:
    """Run both sides, print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="rows on each side, half of them in common")
    rows = parser.parse_args().rows
    ours, theirs = socket.socketpair()
    server = os.fork()
    if not server:
        ours.close()
        serve(theirs, ids(rows, 0))
        os._exit(0)
    theirs.close()
    keys = ids(rows, rows // 2)
    receive(ours)
    before, _ = used(resource.RUSAGE_SELF)
    began = time.perf_counter()
    common = ask(ours, keys)
    taken = time.perf_counter() - began
    if os.waitstatus_to_exitcode(os.waitpid(server, 0)[1]):
        raise SystemExit("the server failed")
    (own, peak), (other, their_peak) = used(resource.RUSAGE_SELF), used(resource.RUSAGE_CHILDREN)
    found = {"seconds": round(taken, 2), "cpu_s": round(own - before + other, 2), "peak_mib": max(peak, their_peak)}
    print(json.dumps({**found, "common": common}))


if __name__ == "__main__":
    main()
