"""Two parties in one test: their workspaces joined by a relay of bytes, and each side on a thread of its own."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sandbox.errors import SandboxError
from sandbox.psi import keys, rr22
from sandbox.psi.contract import EVERYTHING, Bucket, Role, Terms
from sandbox.workspace import SocketChannel, Workspace
from sandbox.workspace import engines as availability

PLAN, SALT = b"p" * 32, b"salt of this run"


class Relay:
    """Carries bytes from every ``peer-x.sock`` to the ``self.sock`` of x, as a node does between machines."""

    def __init__(self) -> None:
        self._open: list[socket.socket] = []
        self._lock, self._closed = threading.Lock(), False
        self.carried: Counter[Path] = Counter()  # bytes by the socket they came to

    def join(self, listen_at: Path, target: Path) -> None:
        listener = self._keep(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(str(listen_at))
        listener.listen(8)
        threading.Thread(target=self._serve, args=(listener, target), daemon=True).start()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()

    def _keep(self, one: socket.socket) -> socket.socket:
        with self._lock:
            self._open.append(one)
        return one

    def _serve(self, listener: socket.socket, target: Path) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller = self._keep(listener.accept()[0])
                threading.Thread(target=self._link, args=(caller, target), daemon=True).start()

    def _link(self, caller: socket.socket, target: Path) -> None:
        while not self._closed:
            callee = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                callee.connect(str(target))
            except OSError:
                callee.close()
                time.sleep(0.005)
                continue
            self._keep(callee)
            # What the caller sends goes to the target; the answers come from there.
            for source, sink, way in ((caller, callee, target), (callee, caller, None)):
                threading.Thread(target=self._pump, args=(source, sink, way), daemon=True).start()
            return

    def _pump(self, source: socket.socket, sink: socket.socket, way: Path | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                if way is not None:
                    self.carried[way] += len(data)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def joined(parent: Path, names: Sequence[str], relay: Relay | None = None) -> Iterator[dict[str, Workspace]]:
    """One workspace a party, every pair joined both ways."""
    relay = relay or Relay()
    with contextlib.ExitStack() as stack:
        spaces = {
            name: stack.enter_context(Workspace(parent, [other for other in names if other != name])) for name in names
        }
        stack.callback(relay.close)
        for space in spaces.values():
            for other in space.peers:
                relay.join(space.peer_socket(other), spaces[other].own_socket)
        yield spaces


@contextlib.contextmanager
def channels() -> Iterator[tuple[SocketChannel, SocketChannel]]:
    left, right = socket.socketpair()
    with SocketChannel(left, peer="right") as one, SocketChannel(right, peer="left") as two:
        yield one, two


def together(*sides: Callable[[], Any]) -> list[Any]:
    """Run every side on its own thread; return what each returned or raised."""
    results: list[Any] = [None] * len(sides)

    def run(number: int) -> None:
        try:
            results[number] = sides[number]()
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(sides))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if any(thread.is_alive() for thread in threads):
        raise TimeoutError("a side did not end")
    return results


# -- intersections --------------------------------------------------------------------------------------------------


def terms(left: int, right: int, **other: Any) -> Terms:
    return Terms(**{"plan": PLAN, "salt": SALT, "left_rows": left, "right_rows": right} | other)


needs_spu = pytest.mark.skipif(availability.engines()["psi.rr22"] != availability.READY, reason="spu is not installed")


def digests(texts: pa.Array | Sequence[str]) -> keys.Digests:
    return keys.digest(texts if isinstance(texts, pa.Array) else pa.array(texts, pa.string()), SALT)


def sets(left: int, right: int, common: int) -> tuple[pa.Array, pa.Array]:
    draw = random.Random(left * 7 + right)
    ids = [f"99{draw.getrandbits(50):016d}" for _ in range(left + right - common)]
    mine, theirs = ids[:left], ids[left - common :]
    draw.shuffle(mine)
    draw.shuffle(theirs)
    return pa.array(mine, pa.string()), pa.array(theirs, pa.string())


@dataclass(frozen=True)
class Call:
    """What one side asks an engine for."""

    digests: Any
    terms: Terms
    bucket: Bucket = EVERYTHING
    learner: Role | None = None


def over_channel(engine: Any, left: Call, right: Call, wrap: Callable[[Any], Any] = lambda one: one) -> list[Any]:
    """Run an engine that speaks over a channel on both sides; return what each returned or raised."""
    with channels() as pair:

        def side(call: Call, role: Role) -> Any:
            channel = pair[role.value]
            try:
                return engine.intersect(
                    call.digests,
                    role,
                    call.terms,
                    call.bucket,
                    wrap(channel),
                    learner=call.learner,
                    patience_s=30,
                )
            except SandboxError:
                channel.close()  # as a node does, so that the other side learns of it
                raise

        return together(lambda: side(left, Role.LEFT), lambda: side(right, Role.RIGHT))


def in_children(spaces: Mapping[str, Workspace], left: Call, right: Call, **more: Any) -> list[Any]:
    """Run RR22 on both sides; return what each returned or raised."""
    more = {"deadline_s": 60, "patience_s": 5} | more

    def side(call: Call, role: Role, own: str, peer: str) -> Any:
        space = spaces[own]
        return rr22.intersect(
            call.digests, role, call.terms, call.bucket, space, peer=peer, learner=call.learner, **more
        )

    return together(lambda: side(left, Role.LEFT, "left", "right"), lambda: side(right, Role.RIGHT, "right", "left"))
