"""Cuts two large sets of keys into buckets that can be intersected one after another.

Equal keys fall into the same bucket on both sides. That bounds memory, gives progress, and lets one bucket be
repeated alone. Below two million rows one bucket is faster (measured on 2 cores).

Reveals: the number of buckets follows from the sizes. Each bucket is padded with random digests to one size that
         depends on the number of keys only (except with probability about 2^-25, see ``padded_size``), so the sizes
         of buckets say nothing about the keys.
"""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa

from sandbox.psi.keys import Digests, Positions, digest

WHOLE = 2_000_000  # rows of the larger side up to which one bucket is best
BUCKET = 500_000  # rows a bucket beyond that


def plan_buckets(n_left: int, n_right: int) -> int:
    """Return how many buckets two sets of these sizes are cut into; the same on both sides."""
    larger = max(n_left, n_right)
    return 1 if larger < WHOLE else math.ceil(larger / BUCKET)


def split(keys: pa.Array, salt: bytes, buckets: int) -> list[Positions]:
    """Return, for each bucket, the positions of its keys in ascending order."""
    return split_digests(digest(keys, salt), buckets)


def split_digests(digests: Digests, buckets: int) -> list[Positions]:
    """Return what ``split`` returns, for keys whose digests are known already."""
    if buckets == 1:
        return [np.arange(len(digests), dtype=np.int64)]
    # The top 32 bits, scaled to the number of buckets; the order of results sorts by the same bits, so buckets
    # taken in turn give results already in order.
    numbers = (digests[:, 0] >> np.uint64(32)) * np.uint64(buckets) >> np.uint64(32)
    places = np.argsort(numbers, kind="stable").astype(np.int64, copy=False)
    ends = np.cumsum(np.bincount(numbers.astype(np.int64), minlength=buckets))
    return np.split(places, ends[:-1])


def padded_size(rows: int, buckets: int) -> int:
    """Return the size every bucket of a set of ``rows`` keys is padded to.

    Mean plus six standard deviations of a random cut: about one bucket in 10^9 is larger, and is then sent as it is.
    """
    if buckets == 1:
        return rows
    mean = rows / buckets
    return min(rows, math.ceil(mean + 6 * math.sqrt(mean)))
