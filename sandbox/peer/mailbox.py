"""A queue that stays within a number of bytes: the only place where messages between nodes wait.

Shapes:    at most ``limit`` bytes wait; one message larger than that is let in when the box is empty.
Errors:    whatever the box was ended or closed with.
Not here:  sockets, records, gRPC.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Final

from sandbox.errors import SandboxError

_OVERHEAD: Final = 64  # bytes; a message costs memory even when it is empty


class Mailbox:
    """Messages under labels, in order within a label: a writer waits for room, a reader for its label.

    All methods belong to one event loop.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._used = limit, 0
        self._items: defaultdict[str, deque[bytes]] = defaultdict(deque)
        self._waiters: list[asyncio.Future[None]] = []
        self._error: SandboxError | None = None
        self._last: SandboxError | None = None

    @property
    def used(self) -> int:
        """How many bytes wait here."""
        return self._used

    async def put(self, label: str, body: bytes) -> None:
        """Add a message, waiting for room."""
        size = len(body) + _OVERHEAD
        await self._until(lambda: self._last is not None or self._used == 0 or self._used + size <= self._limit)
        if self._last is not None:
            raise self._last
        self._used += size
        self._items[label].append(body)
        self._changed()

    async def get(self, label: str) -> bytes:
        """Take the next message under ``label``, waiting for it."""
        await self._until(lambda: bool(self._items.get(label)) or self._last is not None)
        if not self._items.get(label) and self._last is not None:
            raise self._last
        body = self._items[label].popleft()
        if not self._items[label]:
            del self._items[label]
        self._used -= len(body) + _OVERHEAD
        self._changed()
        return body

    def end(self, error: SandboxError) -> None:
        """Let nothing more in: what is here can be read, after that ``error`` is raised."""
        self._last = self._last or error
        self._changed()

    def close(self, error: SandboxError) -> None:
        """Drop everything; whoever waits or comes later gets ``error``."""
        self._error = self._error or error
        self._items.clear()
        self._used = 0
        self._changed()

    async def _until(self, ready: Callable[[], bool]) -> None:
        while True:
            if self._error is not None:
                raise self._error
            if ready():
                return
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                self._waiters.remove(waiter)

    def _changed(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
