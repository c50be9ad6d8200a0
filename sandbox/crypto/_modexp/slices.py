"""Work cut into slices: done one after another or in threads, told of, and given up when the caller wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from sandbox.errors import InvalidSpec

LANES: Final = 16  # elements, or runs of them, that are best done together

OnSlice = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Part:
    """One slice: what to call, and how many elements it does."""

    work: Callable[[], bytes]
    count: int


def cut(length: int, size: int, most: int, threads: int) -> list[tuple[slice, int]]:
    """Return slices of at most ``most`` elements of ``size`` bytes each, and how many; one a thread if possible."""
    share = -(-length // (size * LANES * max(threads, 1))) * LANES
    step = size * max(LANES, min(most, share))
    return [(slice(at, at + step), min(step, length - at) // size) for at in range(0, length, step)]


def join(parts: Sequence[Part], threads: int, on_slice: OnSlice | None) -> bytes:
    """Do all parts and return their results one after another; ``on_slice`` is told of the elements done so far.

    Raises:
        InvalidSpec: there are no threads to do it.
    """
    if threads < 1:
        raise InvalidSpec("work needs at least one thread")
    results, done = [], 0
    for part, result in zip(parts, _results(parts, threads), strict=True):
        results.append(result)
        done += part.count
        if on_slice is not None:
            on_slice(done)
    return b"".join(results)


def _results(parts: Sequence[Part], threads: int) -> Iterator[bytes]:
    if threads == 1 or len(parts) < 2:
        for part in parts:
            yield part.work()
        return
    pool = ThreadPoolExecutor(min(threads, len(parts)), "modexp")
    try:
        for future in [pool.submit(part.work) for part in parts]:
            yield future.result()
    finally:
        # Also when the caller gives up: what has not begun never does, and what has is waited for.
        pool.shutdown(cancel_futures=True)
