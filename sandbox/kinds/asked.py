"""What gates judge of a statement's result: from its populations, as they came out of the jail, to gate inputs.

    group.<line>          people in a group; of totals over groups too
    group.<line>.<j>      of them, people with the measure j
    group.<line>.q<n>     of a quantile: people on its thinner side
    group.unlike.<line>.<j>   0, where all values of a group are alike: a mean would tell each one's
    rest.<line>.<j>       people of a group with rows without the measure
    rest.others.<line>    people left out by conditions who have the group's levels
    rest.none.<n>         people who meet the conditions and have no level of a group that counts
    rest.atom.<n>         people of one combination of levels, where conditions pick several
    top, remainder        as in ``dominance``: one owner's people, so the second largest is known

A condition leaves out whole levels, and one more condition is another statement: what two statements differ by beyond
this, released history finds (``gate.history``).

Shapes:   a line is a group of the result, totals included, from 0; cells are those that are no totals; ``blank`` is
          over cells and totals (``margins``), and a blank line is not judged, but what blanks add up to is.
Errors:   ``WrongState`` for a value outside its range and for a total that is too large; ``JobFailed`` where the jail
          gave other populations than the statement has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sandbox.errors import JobFailed, WrongState
from sandbox.kinds import dominance
from sandbox.kinds.cells import Mask, Whole
from sandbox.kinds.dominance import Weights
from sandbox.kinds.suppression import blanks, unions
from sandbox.tee_sim.sql_populations import ATOM, GROUP, REST, SIDES
from sandbox.tee_sim.sql_terms import QUANTILES, Function, Statement

_STATES: Final = 3  # of a dimension in ``way``: a level that counts, another, none

Column: TypeAlias = list[Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A statement, and the numbers of people behind its result."""

    statement: Statement
    groups: dict[str, Column]
    atoms: dict[str, Column]
    rests: dict[str, Column]

    @classmethod
    def of(cls, statement: Statement, populations: pa.Table) -> Asked:
        """Return what came out of the jail, checked against the statement.

        Raises:
            JobFailed: these are no populations of this statement.
            WrongState: a value is outside its declared range, or a sum too large.
        """
        columns: dict[str, Column] = populations.to_pydict()
        parts = columns["part"]
        groups, atoms, rests = (_where(columns, parts, part) for part in (GROUP, ATOM, REST))
        codes = [f"c{at}" for at in range(len(statement.groups))]
        places = [tuple(line) for line in zip(*(groups[name] for name in codes), strict=True)] or [()]
        if tuple(places) != statement.places or groups["place"] != list(range(len(places))):
            raise _other("groups")
        made = cls(statement, groups, atoms, rests)
        made._check_values()
        return made

    @property
    def levels(self) -> tuple[int, ...]:
        """How many levels of each dimension count."""
        return tuple(len(axis.chosen) for axis in self.statement.groups)

    @property
    def people(self) -> Whole:
        """How many people each cell has."""
        return self._cells("people")

    def blank(self, least: int) -> Mask:
        """Return which cells and totals stay blank, where a scenario has small ones suppressed."""
        measured = range(len(self.statement.measured))
        counts = np.stack([self.people, *(self._cells(f"m{j}_people") for j in measured)])
        lacking = np.stack([np.zeros_like(self.people), *(self._cells(f"m{j}_without") for j in measured)])
        return blanks(counts, lacking, self.levels, least)

    def shown(self, blank: Mask | None) -> list[int]:
        """Return the lines of the result that hold numbers."""
        if blank is None:
            return list(range(len(self.statement.places)))
        grid = blank.reshape(tuple(count + 1 for count in self.levels))
        return [line for line, place in enumerate(self._numbered()) if not grid[place]]

    def gate_inputs(self, blank: Mask | None) -> dict[str, int]:
        """Return every number that is judged."""
        shown = self.shown(blank)
        inputs = {"rows": int(self.people.sum())}
        for line in shown:
            inputs |= self._of_line(line)
        if shown:  # else there is no group, and no gate passes that
            inputs |= self._left_out() | self._of_weights(shown, blank)
        return inputs

    # --- people -------------------------------------------------------------------------------------------------------

    def _of_line(self, line: int) -> dict[str, int]:
        told = {f"group.{line}": self.groups["people"][line], f"rest.others.{line}": self.groups["others"][line]}
        for j in range(len(self.statement.measured)):
            told[f"group.{line}.{j}"] = self.groups[f"m{j}_people"][line]
            told[f"rest.{line}.{j}"] = self.groups[f"m{j}_without"][line]
            if self._is_told(j) and self.groups[f"m{j}_alike"][line]:
                told[f"group.unlike.{line}.{j}"] = 0
        for number, one in enumerate(self.statement.numbers):
            if one.function in QUANTILES:
                told[f"group.{line}.q{number}"] = min(self.groups[f"q{number}_{side}"][line] for side in SIDES)
        return {name: int(count) for name, count in told.items()}

    def _left_out(self) -> dict[str, int]:
        """Return who is in no group, though no condition says so; and whom a list of levels could have left out."""
        grouped, conditions = len(self.statement.groups), len(self.statement.conditions)
        kept = [
            people
            for way, people in zip(self.rests["way"], self.rests["people"], strict=True)
            if (way // _STATES**grouped) % _STATES**conditions == 0
        ]
        told = {f"rest.none.{number}": int(people) for number, people in enumerate(kept)}
        return told | {f"rest.atom.{number}": int(people) for number, people in enumerate(self.atoms["people"])}

    # --- amounts ------------------------------------------------------------------------------------------------------

    def _of_weights(self, shown: Sequence[int], blank: Mask | None) -> dict[str, int]:
        """Return how far the largest amounts stand out in any group that is shown, or whose numbers can be told."""
        measured = [j for j in range(len(self.statement.measured)) if self._is_weighed(j)]
        names = [self.statement.measured[j].range.column for j in measured]
        lines = self._weights(measured, list(shown))
        inputs: dict[str, int] = {}
        if blank is not None:
            told = unions(blank, self.levels)
            for number, cells in enumerate(told):
                inputs[f"group.blank.{number}"] = int(self.people[cells].sum())
                for j in range(len(self.statement.measured)):
                    inputs[f"group.blank.{number}.{j}"] = int(self._cells(f"m{j}_people")[cells].sum())
                    inputs[f"rest.blank.{number}.{j}"] = int(self._cells(f"m{j}_without")[cells].sum())
            lines = _both(lines, self._weights(measured, self._cell_lines()).over(told))
        return inputs | dominance.figures(names, lines, alone=np.ones(lines.first.shape[1], np.bool_))

    def _weights(self, measured: Sequence[int], lines: Sequence[int]) -> Weights:
        found = [
            np.array([[int(self.groups[f"m{j}_{name}"][line]) for line in lines] for j in measured], object)
            for name in ("largest", "second", "total")
        ]
        first, second, total = (one.reshape(len(measured), len(lines)) for one in found)
        return Weights(first.astype(np.int64), second.astype(np.int64), total)

    # --- the statement ------------------------------------------------------------------------------------------------

    def _is_weighed(self, j: int) -> bool:
        """Whether a sum, or what is made of one, is told of a measure."""
        plain = {*QUANTILES, Function.COUNT}
        return any(
            one.measured == self.statement.measured[j] for one in self.statement.numbers if one.function not in plain
        )

    def _is_told(self, j: int) -> bool:
        """Whether anything of a measure's values is told, and not only how many there are."""
        counts = Function.COUNT
        return any(
            one.measured == self.statement.measured[j] for one in self.statement.numbers if one.function is not counts
        )

    def _check_values(self) -> None:
        for j, measured in enumerate(self.statement.measured):
            column = measured.range.column
            if any(self.groups[f"m{j}_outside"]) or any(self.rests[f"m{j}_outside"]):
                raise WrongState(
                    tell=f"a value of {column!r} is outside the range the scenario declares",
                    hint="apply for a scenario with a wider range",
                )
            is_summed = any(one.function is Function.SUM and one.measured == measured for one in self.statement.numbers)
            if is_summed and any(self.groups[f"m{j}_large"]):
                raise WrongState(
                    tell=f"a total of {column!r} is too large to be given exactly",
                    hint="declare fewer places, or ask for finer groups",
                )

    def _numbered(self) -> list[tuple[int, ...]]:
        """Return the lines as places among cells and totals."""
        chosen = [{level: at for at, level in enumerate(axis.chosen)} for axis in self.statement.groups]
        return [
            tuple(len(known) if level is None else known[level] for known, level in zip(chosen, place, strict=True))
            for place in self.statement.places
        ]

    def _cell_lines(self) -> list[int]:
        return [line for line, place in enumerate(self.statement.places) if None not in place]

    def _cells(self, name: str) -> Whole:
        column = self.groups[name]
        cells: NDArray[np.int64] = np.array([int(column[line]) for line in self._cell_lines()], np.int64)
        return cells


def _where(columns: dict[str, Column], parts: Column, part: str) -> dict[str, Column]:
    places = [at for at, found in enumerate(parts) if found == part]
    return {name: [column[at] for at in places] for name, column in columns.items()}


def _both(one: Weights, other: Weights) -> Weights:
    return Weights(
        np.concatenate([one.first, other.first], axis=1),
        np.concatenate([one.second, other.second], axis=1),
        np.concatenate([one.total, other.total], axis=1),
    )


def _other(what: str) -> JobFailed:
    return JobFailed(f"the jail gave other {what} than the statement has", stage="compute")
