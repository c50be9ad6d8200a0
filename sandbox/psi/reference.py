"""The intersection in the clear: what every engine must equal. For tests and estimates, never between parties."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sandbox.psi.keys import Positions, check_unique, digest, order


def intersect(left: pa.Array, right: pa.Array, salt: bytes) -> tuple[Positions, Positions]:
    """Return the positions of the common keys in ``left`` and in ``right``, in the order engines return them."""
    digests = digest(left, salt)
    check_unique(digests)
    check_unique(digest(right, salt))
    found = pc.index_in(left, value_set=right)
    mine = np.flatnonzero(found.is_valid().to_numpy(zero_copy_only=False)).astype(np.int64)
    theirs = found.drop_null().to_numpy(zero_copy_only=False).astype(np.int64)
    sequence = order(digests[mine])
    return mine[sequence], theirs[sequence]
