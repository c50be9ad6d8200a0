"""One unary call on a warm channel: signed by the client, verified by the node, its nonce durable before the answer.

    python -m bench.rpc [--calls 1000]

Ours:    GetJob of a released job, by a client of the SDK in another process on the same machine.
Peer:    the standard health check of the same node over the same channel: TLS and gRPC alone, nothing signed, nothing
         stored. The two alternate, call by call.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.nodes import started
from bench.record import Figure, compared, median, percentile, record

PEER: Final = "gRPC health check, unsigned"
ROWS: Final = 1000
WARM: Final = 50


def measure(calls: int, command: str) -> list[Figure]:
    """Time both calls in turn."""
    ours: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory(prefix="sbx-bench-") as folder, started(Path(folder) / "nodes", ROWS) as ready:
        job_id = ready.client.wait(ready.align().job_id).job_id
        health: Any = health_pb2_grpc.HealthStub(ready.client._line._channel)
        question = health_pb2.HealthCheckRequest()
        for number in range(WARM + calls):
            began = time.perf_counter()
            ready.client.job(job_id)
            between = time.perf_counter()
            health.Check(question)
            if number >= WARM:
                ours.append(1000 * (between - began))
                theirs.append(1000 * (time.perf_counter() - between))
    return [
        compared("rpc", f"GetJob, signed and verified: {name}", one, PEER, other, "ms", command)
        for name, one, other in (
            ("median", median(ours), median(theirs)),
            ("99th percentile", percentile(ours, 0.99), percentile(theirs, 0.99)),
        )
    ]


def main(arguments: list[str] | None = None) -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000)
    options = parser.parse_args(arguments)
    record(measure(options.calls, f"python -m bench.rpc --calls {options.calls}"))


if __name__ == "__main__":
    main()
