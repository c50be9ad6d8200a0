"""Work cut into slices: done one after another or in threads, told of, and given up when the caller wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sandbox.errors import InvalidSpec

OnSlice = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Part:
    """One slice: what to call, and how many elements it does."""

    work: Callable[[], bytes]
    count: int


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
