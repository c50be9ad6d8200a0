"""Two parties in one test: their workspaces joined by a relay of bytes, and each side on a thread of its own."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sandbox.workspace import SocketChannel, Workspace


class Relay:
    """Carries bytes from every ``peer-x.sock`` to the ``self.sock`` of x, as a node does between machines."""

    def __init__(self) -> None:
        self._open: list[socket.socket] = []
        self._lock, self._closed = threading.Lock(), False
        self.carried = 0

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
            for source, sink in ((caller, callee), (callee, caller)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()
            return

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                self.carried += len(data)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def joined(parent: Path, names: Sequence[str]) -> Iterator[dict[str, Workspace]]:
    """One workspace a party, every pair joined both ways."""
    relay = Relay()
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
