"""What arrives in chunks: exactly the bytes that its signed beginning announced, in its time, and room for them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any, Final, TypeVar

from sandbox.crypto.sm3 import Sm3
from sandbox.errors import DeadlinePassed, IntegrityFailed, InvalidSpec, Unavailable

T = TypeVar("T")
SPARE: Final = 256 << 20  # bytes of disk that stay free
IDLE_S: Final = 60.0  # the longest pause within an upload


async def first_message(requests: AsyncIterator[Any]) -> Any:
    """Return the message with the signed announcement.

    Raises:
        InvalidSpec: the upload begins with something else.
        DeadlinePassed: nothing came.
    """
    first = await _within(anext(aiter(requests), None))
    if first is None or first.WhichOneof("part") != "signed":
        raise InvalidSpec(tell="an upload begins with its signed announcement")
    return first


def check_room(folder: Path, size: int) -> None:
    """Raise ``Unavailable`` if ``size`` bytes more would leave too little of the disk."""
    if shutil.disk_usage(folder).free < size + SPARE:
        raise Unavailable(tell="this node has no room for the upload", hint="ask its operator for disk space")


async def receive(requests: AsyncIterator[Any], path: Path, size: int, digest: bytes) -> None:
    """Write the chunks to a new file.

    Raises:
        InvalidSpec, IntegrityFailed: something else came than ``size`` bytes whose SM3 is ``digest``.
        DeadlinePassed: the next chunk did not come.
    """
    received, found = 0, Sm3()
    with path.open("xb") as file:
        while (message := await _within(anext(aiter(requests), None))) is not None:
            if message.WhichOneof("part") != "chunk":
                raise InvalidSpec(tell="after its beginning an upload has only chunks")
            received += len(message.chunk)
            if received > size:
                raise IntegrityFailed(tell="more bytes came than were signed")
            found.update(message.chunk)
            await asyncio.to_thread(file.write, message.chunk)
    if received != size or found.digest() != digest:
        raise IntegrityFailed(tell="what arrived is not what was signed", hint="upload again")


async def _within(message: Awaitable[T]) -> T:
    try:
        return await asyncio.wait_for(message, IDLE_S)
    except TimeoutError:
        raise DeadlinePassed(tell=f"nothing of the upload came for {IDLE_S:.0f} s", hint="upload again") from None
