"""A channel carries byte strings between two parties, in order, each whole or not at all.

    frame = length (4 bytes, big-endian) || data

Security: none of its own. Whoever connects the sockets authenticates and seals; here a peer can at most be slow,
          silent or wrong, and each of these ends in an error within the deadline given.
Units:    deadlines are seconds from the call; frames are at most ``MAX_FRAME`` bytes.
Errors:   ``PartyFailed`` when the other side closes, ``DeadlinePassed`` when it is too slow,
          ``ProtocolFailed`` when it announces a frame above the limit. After any of them the channel is closed.
Not here: gRPC, sealing, reconnection.
"""

from __future__ import annotations

import os
import select
import socket
import time
from pathlib import Path
from typing import Protocol

from sandbox.errors import DeadlinePassed, InvalidSpec, PartyFailed, ProtocolFailed, Unavailable

MAX_FRAME = 64 * 1024 * 1024
MAX_SOCKET_PATH = 107  # bytes: sockaddr_un holds 108 with the closing zero
_READ = 1 << 20
_RETRY_S = 0.01


class Channel(Protocol):
    """Two-way, ordered, reliable messages between two parties."""

    def send(self, data: bytes) -> None:
        """Send one message."""
        ...

    def recv(self, deadline: float) -> bytes:
        """Return the next message, waiting at most ``deadline`` seconds.

        Raises:
            PartyFailed: the other side ended.
            DeadlinePassed: nothing whole came in time.
        """
        ...


class SocketChannel:
    """A ``Channel`` over one connected stream socket, which it then owns."""

    def __init__(self, connection: socket.socket, *, peer: str = "", send_timeout_s: float = 60.0) -> None:
        connection.setblocking(False)
        self._socket, self._peer, self._send_timeout_s = connection, peer, send_timeout_s

    def __enter__(self) -> SocketChannel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; harmless when done twice."""
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send one message.

        Raises:
            InvalidSpec: ``data`` is above the frame limit.
            PartyFailed: the other side ended.
            DeadlinePassed: it does not read.
        """
        if len(data) > MAX_FRAME:
            raise InvalidSpec(f"a message of {len(data)} bytes is above the frame limit")
        end = time.monotonic() + self._send_timeout_s
        rest = memoryview(len(data).to_bytes(4, "big") + data)
        while rest:
            self._wait(select.POLLOUT, end)
            try:
                rest = rest[self._socket.send(rest, socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._ended("while sending") from error

    def recv(self, deadline: float) -> bytes:
        """Return the next message, waiting at most ``deadline`` seconds for all of it."""
        end = time.monotonic() + deadline
        length = int.from_bytes(self._exactly(4, end, start=True), "big")
        if length > MAX_FRAME:
            self.close()
            raise ProtocolFailed("the peer announced a frame above the limit", party=self._peer)
        return bytes(self._exactly(length, end, start=False))

    def _exactly(self, count: int, end: float, *, start: bool) -> bytearray:
        got = bytearray()
        while len(got) < count:
            self._wait(select.POLLIN, end)
            try:
                part = self._socket.recv(min(_READ, count - len(got)))
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._ended("while receiving") from error
            if not part:
                raise self._ended("between messages" if start and not got else "inside a message")
            got += part
        return got

    def _wait(self, events: int, end: float) -> None:
        if self._socket.fileno() < 0:
            raise PartyFailed("the channel is closed", party=self._peer)
        poll = select.poll()
        poll.register(self._socket, events)
        left = end - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            self.close()
            raise DeadlinePassed("the peer was silent for too long", party=self._peer)

    def _ended(self, when: str) -> PartyFailed:
        self.close()
        return PartyFailed(f"the peer closed the channel {when}", party=self._peer)


def check_socket_path(path: Path) -> Path:
    """Return ``path`` if the kernel can bind it.

    Raises:
        Unavailable: it is too long.
    """
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_PATH:
        raise Unavailable(
            f"a socket path of {length} bytes is above the system's limit of {MAX_SOCKET_PATH}",
            hint="give the node a working directory with a shorter path",
        )
    return path


def dial(path: Path, deadline: float, *, peer: str = "") -> SocketChannel:
    """Connect to ``path``, waiting for it to appear for at most ``deadline`` seconds.

    Raises:
        DeadlinePassed: nobody listened there in time.
    """
    end = time.monotonic() + deadline
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(max(end - time.monotonic(), _RETRY_S))
            connection.connect(os.fspath(check_socket_path(path)))
            return SocketChannel(connection, peer=peer)
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError, TimeoutError) as error:
            connection.close()
            if time.monotonic() >= end:
                raise DeadlinePassed("nobody listened on the socket in time", party=peer) from error
            time.sleep(_RETRY_S)
        except BaseException:
            connection.close()
            raise


def listen_once(path: Path, deadline: float, *, peer: str = "") -> SocketChannel:
    """Accept one connection on ``path`` within ``deadline`` seconds, then stop listening and remove the path.

    Raises:
        DeadlinePassed: nobody came.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(os.fspath(check_socket_path(path)))
        try:
            path.chmod(0o600)
            listener.listen(1)
            listener.settimeout(deadline)
            connection, _ = listener.accept()
        except TimeoutError as error:
            raise DeadlinePassed("nobody connected to the socket in time", party=peer) from error
        finally:
            path.unlink(missing_ok=True)
    return SocketChannel(connection, peer=peer)
