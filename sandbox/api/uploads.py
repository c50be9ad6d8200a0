"""What arrives in chunks: exactly the bytes that its signed beginning announced, in its time, and room for them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from sandbox.crypto.sm3 import Sm3
from sandbox.errors import DeadlinePassed, IntegrityFailed, InvalidSpec, Unavailable
from sandbox.model import UploadFile

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


async def receive(requests: AsyncIterator[Any], folder: Path, files: Sequence[UploadFile]) -> None:
    """Write the chunks to new files, one after the other; no chunk belongs to two.

    Raises:
        InvalidSpec, IntegrityFailed: something else came than was announced.
        DeadlinePassed: the next chunk did not come.
    """
    for announced in files:
        received, found = 0, Sm3()
        with (folder / announced.name).open("xb") as file:
            while received < announced.size:
                message = await _within(anext(aiter(requests), None))
                if message is None:
                    break
                if message.WhichOneof("part") != "chunk" or not message.chunk:
                    raise InvalidSpec(tell="after its beginning an upload has only chunks")
                received += len(message.chunk)
                if received > announced.size:
                    raise IntegrityFailed(tell="more bytes came than were signed")
                found.update(message.chunk)
                await asyncio.to_thread(file.write, message.chunk)
        if received != announced.size or found.digest() != announced.digest:
            raise IntegrityFailed(tell="what arrived is not what was signed", hint="upload again")
    if await _within(anext(aiter(requests), None)) is not None:
        raise IntegrityFailed(tell="more bytes came than were signed")


async def _within(message: Awaitable[T]) -> T:
    try:
        return await asyncio.wait_for(message, IDLE_S)
    except TimeoutError:
        raise DeadlinePassed(tell=f"nothing of the upload came for {IDLE_S:.0f} s", hint="upload again") from None
