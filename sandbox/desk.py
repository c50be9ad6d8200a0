"""The line between a node and the worker that does a job's work: one unix socket in the node's private run directory.

    node                                          worker (a Ray task)
    ticket: plan, keys of what it may open  --->
                                            <---  relay(directory) · fetch(artefact) · send(party) · progress
    answers, messages of other parties      --->
                                            <---  keep(artefact) · done(numbers) | failed(class, words)

Keys and rows travel here only, so nothing of them is in Ray's arguments, results, logs or object store. When either
end goes away the other sees the socket close: a worker whose node died stops its engine.

Shapes:   a frame is a 4-byte length, a JSON head, and the body whose size the head gives.
Not here: what the messages do (``worker``, ``runner``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from typing import Any

from sandbox.errors import JobFailed
from sandbox.model import Population, RawResult

MAX_HEAD = 1 << 20
MAX_BODY = 1 << 31
Frame = tuple[dict[str, Any], bytes]
_LENGTH = struct.Struct(">I")


def pack(head: dict[str, Any], body: bytes = b"") -> bytes:
    """Return one frame."""
    text = json.dumps({**head, "size": len(body)}, separators=(",", ":")).encode()
    return _LENGTH.pack(len(text)) + text + body


class Blocking:
    """The worker's end."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(path)
        self._file = self._socket.makefile("rb")

    def write(self, head: dict[str, Any], body: bytes = b"") -> None:
        """Send one frame; callers serialise."""
        try:
            self._socket.sendall(pack(head, body))
        except OSError:
            raise JobFailed("the node is gone") from None

    def read(self) -> Frame | None:
        """Return the next frame, or None when the node has hung up."""
        try:
            prefix = self._file.read(4)
            if len(prefix) < 4:
                return None
            head = json.loads(self._file.read(_checked(_LENGTH.unpack(prefix)[0], MAX_HEAD)))
            return head, self._file.read(_checked(head["size"], MAX_BODY))
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """Hang up; a thread that waits in ``read`` sees the end."""
        with contextlib.suppress(OSError):  # the node may have hung up first
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def pack_result(done: RawResult) -> bytes:
    """Return what a stage leaves, as it travels to the node, and as the node keeps it while a job is held."""
    people = [(one.name, one.sketch.hex(), one.rows, one.size, one.is_whole) for one in done.populations]
    numbers = {"gate_inputs": dict(done.gate_inputs), "figures": dict(done.figures), "tables": dict(done.tables)}
    concerned = {"populations": people, "people": done.people.hex(), "unknown": done.unknown}
    return json.dumps({**numbers, **concerned}, separators=(",", ":")).encode()


def unpack_result(data: bytes) -> RawResult:
    """Return what :func:`pack_result` packed."""
    told = json.loads(data)
    people = tuple(
        Population(name, bytes.fromhex(sketch), rows, size, is_whole)
        for name, sketch, rows, size, is_whole in told["populations"]
    )
    concerned = (people, bytes.fromhex(told["people"]), told["unknown"])
    return RawResult(told["gate_inputs"], told["figures"], told["tables"], *concerned)


async def read(reader: asyncio.StreamReader) -> Frame | None:
    """The node's end of the same: the next frame, or None when the worker has hung up."""
    try:
        prefix = await reader.readexactly(4)
        head = json.loads(await reader.readexactly(_checked(_LENGTH.unpack(prefix)[0], MAX_HEAD)))
        return head, await reader.readexactly(_checked(head["size"], MAX_BODY))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def _checked(size: int, most: int) -> int:
    if not 0 <= size <= most:
        raise JobFailed("a frame between node and worker is out of bounds")
    return size
