"""How many rows there are in each cell of a table of totals: what gates judge, and what leaves rounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sandbox.errors import ProtocolFailed
from sandbox.kinds.cells import Shape

COUNTS: Final = "counts"  # the artefact that holds what this node's gate judged


@dataclass(frozen=True, slots=True)
class Counted:
    """Numbers of rows: in each cell, of those with each measure (and band), and left out in each way there is."""

    rows: NDArray[np.int64]  # (cells,)
    measured: NDArray[np.int64]  # (counts, cells)
    rest: NDArray[np.int64]  # (rest,)

    def to_bytes(self) -> bytes:
        """Return the numbers as an artefact, or for another party."""
        return np.concatenate([self.rows, self.measured.ravel(), self.rest]).astype("<i8").tobytes()

    @classmethod
    def from_bytes(cls, content: bytes, shape: Shape, party: str = "", stage: str = "compute") -> Counted:
        """Read them back.

        Raises:
            ProtocolFailed: they are for another table; naming the party they are from.
        """
        if len(content) != 8 * (shape.cells * (1 + shape.counts) + shape.rest):
            raise ProtocolFailed("numbers of rows came for other groups", party=party, stage=stage)
        whole = np.frombuffer(content, "<i8")
        listed = whole[: shape.cells * (1 + shape.counts)].reshape(1 + shape.counts, shape.cells)
        return cls(listed[0], listed[1:], whole[listed.size :])

    def gate_inputs(self, shape: Shape) -> dict[str, int]:
        """Return every number, as a group that reaches the minimum, or as a rest that does so unless it is 0.

        A rest is what two tables may differ by: rows left out of the groups, and rows of a group without a measure.
        """
        inputs = {"rows": int(self.rows.sum())}
        inputs |= {f"group.{cell}": count for cell, count in enumerate(self.rows.tolist())}
        inputs |= {f"rest.{place}": count for place, count in enumerate(self.rest.tolist())}
        at = 0
        for number, one in enumerate(shape.wanted):
            bands = self.measured[at : at + one.counts]
            at += one.counts
            for band, counts in enumerate(bands.tolist()):
                inputs |= {f"group.{cell}.{number}.{band}": count for cell, count in enumerate(counts)}
            without = self.rows - bands.sum(axis=0)
            inputs |= {f"rest.{cell}.{number}": count for cell, count in enumerate(without.tolist())}
        return inputs
