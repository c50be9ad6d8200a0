"""How many rows there are in each cell of a table of totals: what gates judge, and what leaves rounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sandbox.errors import ProtocolFailed
from sandbox.kinds.cells import Mask, Shape
from sandbox.kinds.margins import Lines
from sandbox.kinds.suppression import blanks, unions

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

    def lacking(self, shape: Shape) -> NDArray[np.int64]:
        """Return (measures, cells) how many rows of a cell each measure does not count."""
        found, at = np.zeros((len(shape.wanted), shape.cells), np.int64), 0
        for number, one in enumerate(shape.wanted):
            found[number] = self.rows - self.measured[at : at + one.counts].sum(axis=0)
            at += one.counts
        return found

    def blank(self, shape: Shape, least: int) -> Mask:
        """Return which cells and totals stay blank, where a scenario has small ones suppressed."""
        counts = np.concatenate([self.rows[None], self.measured])
        return blanks(counts, self.lacking(shape), Lines(shape.dimensions, True).levels, least)

    def gate_inputs(self, shape: Shape, lines: Lines | None = None, blank: Mask | None = None) -> dict[str, int]:
        """Return every number, as a group that reaches the minimum, or as a rest that does so unless it is 0.

        A rest is what two tables may differ by: rows left out of the groups, and rows of a group without a measure.

        Args:
            lines: of the table; without, its cells.
            blank: of cells and totals, those that stay blank. They are not judged, but what they add up to is where
                that can be told. If everything is blank there is no group, and no gate passes that.
        """
        inputs = {"rows": int(self.rows.sum())}
        inputs |= {f"rest.{place}": count for place, count in enumerate(self.rest.tolist())}
        lines = lines or Lines(shape.dimensions, False)
        shown = range(lines.count) if blank is None else np.flatnonzero(~lines.chosen(blank)).tolist()
        inputs |= self._named(shape, {str(line): line for line in shown}, lines.totals)
        if blank is not None and len(shown):
            regions = unions(blank, lines.levels)

            def added(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
                return np.stack([numbers[..., cells].sum(axis=-1) for cells in regions], axis=-1)

            if regions:
                inputs |= self._named(shape, {f"blank.{place}": place for place in range(len(regions))}, added)
        return inputs

    def _named(
        self, shape: Shape, names: Mapping[str, int], total: Callable[[NDArray[np.int64]], NDArray[np.int64]]
    ) -> dict[str, int]:
        """Return the numbers of some lines under their names; ``total`` makes lines of cells."""
        rows, measured, lacking = total(self.rows), total(self.measured), total(self.lacking(shape))
        inputs = {f"group.{name}": int(rows[line]) for name, line in names.items()}
        at = 0
        for number, one in enumerate(shape.wanted):
            for band in range(one.counts):
                inputs |= {
                    f"group.{name}.{number}.{band}": int(measured[at + band, line]) for name, line in names.items()
                }
            at += one.counts
            inputs |= {f"rest.{name}.{number}": int(lacking[number, line]) for name, line in names.items()}
        return inputs
