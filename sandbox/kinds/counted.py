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
    """Numbers of rows: in each cell, and of those with each measure (and band)."""

    rows: NDArray[np.int64]  # (cells,)
    measured: NDArray[np.int64]  # (counts, cells)

    def to_bytes(self) -> bytes:
        """Return the numbers as an artefact, or for another party."""
        return np.concatenate([self.rows[None, :], self.measured]).astype("<i8").tobytes()

    @classmethod
    def from_bytes(cls, content: bytes, shape: Shape, party: str = "", stage: str = "compute") -> Counted:
        """Read them back.

        Raises:
            ProtocolFailed: they are for another table; naming the party they are from.
        """
        if len(content) != 8 * shape.cells * (1 + shape.counts):
            raise ProtocolFailed("numbers of rows came for other groups", party=party, stage=stage)
        whole = np.frombuffer(content, "<i8").reshape(1 + shape.counts, shape.cells)
        return cls(whole[0], whole[1:])

    def gate_inputs(self) -> dict[str, int]:
        """Return every number as a group that has to reach the minimum."""
        inputs = {"rows": int(self.rows.sum())}
        inputs |= {f"group.{cell}": count for cell, count in enumerate(self.rows.tolist())}
        for place, counts in enumerate(self.measured.tolist()):
            inputs |= {f"group.{cell}.{place}": count for cell, count in enumerate(counts)}
        return inputs
