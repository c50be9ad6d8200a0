"""Cuts two large sets of keys into buckets, each of which is intersected by itself.

Equal keys fall into the same bucket on both sides. That bounds memory by the bucket, gives progress, and lets one
bucket be repeated alone.

Source:  the padding is Bernstein's inequality for a binomial.
Reveals: the number of buckets follows from the sizes. Each bucket is padded with random digests to one size that
         depends on the number of keys only, so the sizes of buckets say nothing about the keys.
Errors:  ``InvalidSpec`` for digests that are no bucket of these terms.
Not here: keeping buckets on disk (``shards``).
"""

from __future__ import annotations

import math
import secrets

import numpy as np
from numpy.typing import NDArray

from sandbox.errors import InvalidSpec
from sandbox.psi.contract import Bucket, Role, Terms
from sandbox.psi.keys import Digests, check_unique

# Measured with RR22: starting a bucket costs each side 0.15 s of CPU, two million rows in one piece or in four about as
# much in all, while memory follows the bucket: a child's peak is 240 MiB at 500 000 rows, 410 at 1 000 000 and 740 at
# 2 000 000. On the SM2 curve it is 350 MiB at 500 000.
WHOLE = 1_000_000  # rows of the larger side up to which one bucket is best
BUCKET = 500_000  # rows a bucket beyond that
CURVE_BUCKET = 250_000  # on a curve, where a bucket more costs next to nothing beside its multiplications


def plan_buckets(n_left: int, n_right: int, is_curve: bool = False) -> int:
    """Return how many buckets two sets of these sizes are cut into; the same on both sides."""
    larger = max(n_left, n_right)
    if is_curve:
        return 1 if larger <= CURVE_BUCKET else math.ceil(larger / CURVE_BUCKET)
    return 1 if larger <= WHOLE else math.ceil(larger / BUCKET)


def number_of(digests: Digests, buckets: int) -> NDArray[np.uint16]:
    """Return the number of the bucket that each digest falls into.

    The top 32 bits, scaled to the number of buckets; the order of results sorts by the same bits, so buckets taken in
    turn give results already in order.
    """
    top = digests[:, 0] >> np.uint64(32)
    top *= np.uint64(buckets)
    top >>= np.uint64(32)
    return top.astype(np.uint16)


def padded_size(rows: int, buckets: int) -> int:
    """Return the size every bucket of a set of ``rows`` keys is padded to.

    A random bucket is larger than its mean m by t with a chance below exp(-t^2 / 2(m + t/3)); this t makes it less than
    2^-60 for every m.
    """
    if buckets == 1:
        return rows
    mean = rows / buckets
    return min(rows, math.ceil(mean + 10 * math.sqrt(mean)) + 32)


def check_bucket(digests: Digests, role: Role, terms: Terms, bucket: Bucket) -> None:
    """Check what this side brings into ``bucket``.

    Raises:
        InvalidSpec: it is not of the right form or number, has a key twice, or a key of another bucket.
    """
    if not isinstance(digests, np.ndarray) or digests.dtype != np.uint64 or digests.shape[1:] != (2,):
        raise InvalidSpec("the keys of an intersection are not digests")
    if len(digests) > padded_size(terms.rows(role), bucket.of) or (bucket.of == 1 and len(digests) != terms.rows(role)):
        raise InvalidSpec("the keys are not as many as the terms say")
    if bucket.of > 1 and bool((number_of(digests, bucket.of) != bucket.number).any()):
        raise InvalidSpec("a key belongs into another bucket")
    check_unique(digests)


def padded(digests: Digests, size: int) -> Digests:
    """Return ``digests`` filled up to ``size`` with random ones.

    Those match nothing: with 10^8 digests in all, the chance that one equals another is below 2^-74.
    """
    missing = size - len(digests)
    if missing <= 0:
        return digests
    noise: NDArray[np.uint64] = np.frombuffer(secrets.token_bytes(16 * missing), np.uint64).reshape(-1, 2)
    return np.concatenate([digests, noise])
