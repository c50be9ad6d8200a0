"""Who stays out of training, and what labels may look like.

Source:    simple random sampling without replacement.
Security:  the draw knows no labels. A mask that is exact for each class tells a linear equation about the labels, and
           as many masks as people would tell them all.
Shapes:    of ``rows``, ``round(fraction * rows)`` are drawn, at least one, and at least one is left. The keys are raw
           PCG64 output, so a draw never depends on numpy's version.
Errors:    ``InvalidSpec``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sandbox.crypto.sm3 import tagged
from sandbox.errors import InvalidSpec


def draw(rows: int, seed: bytes, fraction: float) -> npt.NDArray[np.bool_]:
    """Return which of ``rows`` are held out; the same for the same seed, anywhere.

    Raises:
        InvalidSpec: there are fewer than two rows, the seed is empty, or the fraction is not between 0 and 1.
    """
    if not seed:
        raise InvalidSpec("a hold-out needs a seed")
    if not 0 < fraction < 1:
        raise InvalidSpec("the held-out fraction is not between 0 and 1")
    if rows < 2:
        raise InvalidSpec("of fewer than two rows none can be held out")
    # The digest is 256 bits of entropy for PCG64's own seeding; random_raw is stable where Generator is not.
    generator = np.random.PCG64(np.frombuffer(tagged("holdout", seed), dtype="<u4").tolist())
    keys = np.asarray(generator.random_raw(rows), dtype=np.uint64)
    held = np.zeros(rows, dtype=np.bool_)
    held[np.argsort(keys, kind="stable")[: min(max(round(fraction * rows), 1), rows - 1)]] = True
    return held


def truth(labels: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    """Return ``labels`` as booleans, true for 1.

    Raises:
        InvalidSpec: they are not one column of 0 and 1.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "biuf" or not np.isin(labels, (0, 1)).all():
        raise InvalidSpec("labels are not one column of 0 and 1")
    return labels.astype(np.bool_)
