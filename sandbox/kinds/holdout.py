"""Which rows stay out of training: the same share of every class, chosen by a seed.

Source:    simple random sampling within each class (stratified sampling).
Security:  the seed must be the label holder's secret, also after the job. By itself the mask says nothing about a
           row; with the seed it does, because the classes are cut at different places of the same order, and the rows
           between the cuts give their labels away. So a seed that others know, such as one in a spec, must be mixed
           with a secret first: ``hmac_sm3(secret, seed)``.
Reveals:   to whom the mask is sent: how many rows are held out. To nobody: a label.
Shapes:    ``labels`` are 0/1 or boolean, one a row; of a class of n rows, ``round(fraction * n)`` are held out, but at
           least one, and at least one is left. The row keys are raw PCG64 output, so a mask never depends on numpy's
           version.
Errors:    ``InvalidSpec``.
Not here:  who sends the mask to whom.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sandbox.crypto.sm3 import tagged
from sandbox.errors import InvalidSpec


def holdout(labels: npt.NDArray[np.generic], seed: bytes, fraction: float = 0.2) -> npt.NDArray[np.bool_]:
    """Return which rows are held out of training.

    Raises:
        InvalidSpec: the labels are not two classes of two rows or more, the seed is empty, or the fraction is not
            between 0 and 1.
    """
    if not seed:
        raise InvalidSpec("a hold-out needs a seed")
    if not 0 < fraction < 1:
        raise InvalidSpec("the held-out fraction is not between 0 and 1")
    bad = truth(labels)
    # The digest is 256 bits of entropy for PCG64's own seeding; random_raw is stable where Generator is not.
    generator = np.random.PCG64(np.frombuffer(tagged("holdout", seed), dtype="<u4").tolist())
    keys = np.asarray(generator.random_raw(len(bad)), dtype=np.uint64)
    held = np.zeros(len(bad), dtype=np.bool_)
    for member in (~bad, bad):
        rows = np.flatnonzero(member)
        if len(rows) < 2:
            raise InvalidSpec("a class has fewer than two rows: there is nothing to hold out")
        count = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
        held[rows[np.argsort(keys[rows], kind="stable")[:count]]] = True
    return held


def truth(labels: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    """Return ``labels`` as booleans, true for 1.

    Raises:
        InvalidSpec: they are not one column of 0 and 1.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "biuf" or not np.isin(labels, (0, 1)).all():
        raise InvalidSpec("labels are not one column of 0 and 1")
    return labels.astype(np.bool_)
