"""Totals with noise: what one person adds to a table is hidden by chance, and nobody ever opens an exact number.

    numbers(spec, shape)          -> the numbers every cell gets, each with its share of the budget and its noise
    layout(numbers, rows, bits)   -> room in a plaintext for what one contributor adds, noise included
    contribution(...)             -> what this contributor adds: exact numbers with noise, ready to mask and encrypt
    statistics(...)               -> at the recipient's node: the table, small cells blank

Source:   the discrete Laplace distribution (Ghosh, Roughgarden, Sundararajan, STOC 2009), drawn exactly, from OpenSSL's
          generator, by OpenDP's sampler (Canonne, Kamath, Steinke, NeurIPS 2020).
Security: epsilon-differential privacy, pure (delta 0), of one row of one contributor against everybody else together,
          the recipient included: every contributor adds the whole noise to its own part. Rows are added or removed;
          for a row that is replaced, as where the number of rows is known, the loss is at most 2 epsilon. Of somebody
          who is in the datasets of k contributors, k epsilon. The time that drawing takes is not hidden.
Reveals:  the joint numbers with the noise of all contributors; of the exact ones nothing, not even numbers of rows.
Units:    as in ``cells``; epsilon in thousandths.
Shapes:   numbers of cells are ``(cells, numbers)``, the number of rows first, then measure after measure.
Errors:   ``InvalidSpec`` for statistics and ranges that noise has no use for, ``Unavailable`` without OpenDP.
Not here: how much budget there is (``policy.privacy``), masks, encryption.

Head-room: a contributor's noisy number is clamped to what its rows could make at all, widened by ``bound`` on both
sides: limits made of public numbers only. Clamping a noisy number to such limits is post-processing, so delta stays 0;
clamping the noise itself would not be. A number is clamped with probability 2^-64 at most.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sandbox.errors import InvalidSpec, JobFailed, Unavailable
from sandbox.kinds import cells
from sandbox.kinds.cells import EXACT, Mask, Shape, Whole
from sandbox.model import AggregateSpec, Reveal, Statistic
from sandbox.mpc.packing import Column, Layout

MOST_EPSILON_MILLI: Final = 10_000
_TAIL: Final = 45.055  # above 65 ln 2: 2 exp(-45.055) is below 2^-64
_WIDEST: Final = 1 << 62  # of one contributor's number: OpenDP counts in 64 bits
_ROWS, _COUNT, _SUM = "rows", "count", "sum"
_INSTALL: Final = "pip install 'data-sandbox[noise]' at that node"


@dataclass(frozen=True, slots=True)
class Number:
    """One number that every cell gets: what a row may add to it, and the noise a contributor does."""

    measure: str
    source: str  # number of rows of the cell, or of a measure, or sum
    place: int  # among the shape's counts, or its sums
    low: int
    high: int
    places: int
    scale: float

    @property
    def bound(self) -> int:
        """What one contributor's noise exceeds with probability 2^-64 at most."""
        return bound(self.scale)

    def of(self, rows: Whole, measured: Whole, sums: npt.NDArray[Any]) -> Whole:
        """Return the exact number of every cell."""
        if self.source == _ROWS:
            return rows
        exact: Whole = measured[self.place] if self.source == _COUNT else sums[self.place].astype(np.int64)
        return exact


def scale_of(sensitivity: int, epsilon: Fraction) -> float:
    """Return the least scale that hides a change of ``sensitivity`` at a loss of at most ``epsilon``."""
    exact = sensitivity / epsilon
    near = float(exact)
    return near if Fraction(near) >= exact else math.nextafter(near, math.inf)


def bound(scale: float) -> int:
    """Return what noise of this scale exceeds with probability 2^-64 at most."""
    return math.ceil(scale * _TAIL)


def deviation(scale: float) -> float:
    """Return the standard deviation of noise of this scale."""
    if not scale:
        return 0.0
    return math.sqrt(2 * math.exp(-1 / scale)) / -math.expm1(-1 / scale)


def noisy(values: Whole, scale: float) -> Whole:
    """Return the values, each with noise of its own: x with a probability proportional to exp(-abs(x) / scale).

    Raises:
        Unavailable: OpenDP is not installed.
    """
    try:
        from opendp.domains import atom_domain, vector_domain
        from opendp.measurements import make_laplace
        from opendp.metrics import l1_distance
        from opendp.mod import OpenDPException, enable_features
    except ImportError:
        raise Unavailable(tell=unavailable() or "opendp does not load", stage="compute", hint=_INSTALL) from None
    enable_features("contrib")
    try:
        disturb = make_laplace(vector_domain(atom_domain(T="i64")), l1_distance(T="i64"), scale)
        return np.array(disturb(values.tolist()), np.int64)
    except OpenDPException:  # its words may quote a value
        raise JobFailed("noise could not be drawn", stage="compute") from None


def unavailable() -> str:
    """Return why no noise can be drawn here; empty if it can. Loads nothing: the library takes 275 MB."""
    return "" if importlib.util.find_spec("opendp") else "opendp is not installed"


def numbers(spec: AggregateSpec, shape: Shape) -> tuple[Number, ...]:
    """Return the numbers every cell gets.

    The budget is split evenly: over the number of rows, every sum, every count, every histogram (a row is in one cell
    and one band, so all of its cells and bands are one share), and for a mean over its sum and its divisor. Each is
    then blurred alike, in units of the largest thing one person can add.

    Raises:
        InvalidSpec: the job asks for what cannot be had with noise.
    """
    _check(spec, shape)
    shares = 1 + sum(2 if one.measure.statistic is Statistic.MEAN else 1 for one in shape.wanted)
    epsilon = Fraction(spec.epsilon_milli, 1000 * shares)
    single = scale_of(1, epsilon)
    found = [Number("rows", _ROWS, 0, 0, 1, 0, single)]
    count_at, sum_at = 0, 0
    for one in shape.wanted:
        name, statistic = one.measure.name, one.measure.statistic
        if one.value is None or statistic is Statistic.MEAN:
            found += [Number(name, _COUNT, count_at + band, 0, 1, 0, single) for band in range(one.counts)]
        for low, high in one.bounds:
            places = one.value.places if one.value else 0
            places += one.weight.places if one.weight else 0
            scale = scale_of(max(abs(low), abs(high)), epsilon)
            found.append(Number(name, _SUM, sum_at, min(low, 0), max(high, 0), places, scale))
            sum_at += 1
        count_at += one.counts
    for number in found:
        if number.bound >= EXACT:
            raise InvalidSpec(
                tell=f"measure {number.measure!r}: the noise could be larger than any total that can be given exactly",
                hint="ask for more of the budget or for fewer measures, or declare fewer places",
            )
    return tuple(found)


def layout(numbers: Sequence[Number], rows: Mapping[str, int], key_bits: int) -> Layout:
    """Return the layout in which every contributor adds one row a cell.

    Args:
        rows: how many rows each contributor brings.

    Raises:
        InvalidSpec: a declared range is too wide for so many rows.
    """
    most = max(rows.values(), default=0)
    columns = []
    for number in numbers:
        low, high = most * number.low - number.bound, most * number.high + number.bound
        if max(-low, high) >= _WIDEST:
            raise InvalidSpec(
                tell=f"measure {number.measure!r}: the declared range is too wide for a total with noise",
                hint="declare a narrower range or fewer places",
            )
        columns.append(Column(f"{number.source}{number.place}", low, high))
    return Layout.fitting(columns, len(rows), key_bits=key_bits, contributors=len(rows))


def contribution(
    numbers: Sequence[Number], layout: Layout, rows: Whole, measured: Whole, sums: npt.NDArray[Any]
) -> Whole:
    """Return what this contributor adds to every cell: its own exact numbers, each with noise.

    Args:
        rows: how many rows each cell has, ``(cells,)``.
        measured: how many each measure and band has, ``(counts, cells)``.
        sums: the sums of each cell, ``(sums, cells)``, whole numbers of any size.
    """
    made = np.empty((len(rows), len(numbers)), np.int64)
    for place, (number, column) in enumerate(zip(numbers, layout.columns, strict=True)):
        drawn = noisy(number.of(rows, measured, sums), number.scale)
        made[:, place] = np.clip(drawn, column.low, column.high)
    return made


def statistics(shape: Shape, numbers: Sequence[Number], totals: npt.NDArray[Any], min_group: int) -> pa.Table:
    """Return the table of totals: nothing of a cell whose noisy number of rows is below the minimum.

    Likewise no mean over, and no count of, fewer rows with a value. All of this looks at noisy numbers alone.

    Args:
        totals: the joint numbers, ``(cells, numbers)``.
    """
    least = max(min_group, 1)
    rows = totals[:, 0]
    is_large: Mask = np.asarray(rows >= least, bool)
    shown = {"rows": is_large}
    counts: list[list[int]] = []
    sums: list[list[int]] = []
    held = {(number.source, number.place): totals[:, place] for place, number in enumerate(numbers)}
    for one in shape.wanted:
        for name in one.names:
            at = len(counts)
            own = held.get((_COUNT, at), rows)
            shown[name] = is_large & np.asarray(own >= least, bool)
            counts.append(np.where(shown[name], own, 1).tolist())
        for _ in one.bounds:
            sums.append(np.where(shown[one.measure.name], held[_SUM, len(sums)], 0).tolist())
    table = cells.statistics(shape, rows.tolist(), counts, sums)
    for name, mask in shown.items():
        column = pc.if_else(pa.array(mask), table.column(name), pa.scalar(None, table.schema.field(name).type))
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def gate_inputs(rows: Mapping[str, int], epsilon_milli: int) -> dict[str, int]:
    """Return what the gate may look at: numbers that the plan and everybody's terms say anyhow."""
    return {"rows": sum(rows.values()), "epsilon_milli": epsilon_milli}


def reveals(spec: AggregateSpec, shape: Shape, contributors: Sequence[str]) -> tuple[Reveal, ...]:
    """Say who learns what, and how much noise is in it."""
    parties, spent = len(contributors), _told(spec.epsilon_milli / 1000)
    sealed = "of the others' rows no exact number, not even of a group's rows: noise is added before encryption"
    sealed_zh = "其他参与方的任何精确数字（包括各组行数）均不可见：先加噪，后加密"
    table = f"the totals by group with noise, for epsilon {spent} of the budget; groups that seem too small stay blank"
    table_zh = f"加噪后的分组合计，消耗隐私预算 ε = {spent}；加噪行数低于下限的组留空"
    lines = [Reveal("recipient", table, table_zh)]
    told = dict.fromkeys((one.measure, one.source == _SUM, one.places, one.scale) for one in numbers(spec, shape))
    for measure, is_sum, places, scale in told:
        own = deviation(scale) / 10**places
        part, whole = _told(own), _told(own * math.sqrt(parties))
        what, what_zh = ("sum", "合计") if is_sum else ("number of rows", "行数")
        line = f"{measure}: a {what} in each group with a standard deviation of {whole} ({part} from each of {parties})"
        lines.append(
            Reveal("recipient", line, f"{measure}：各组{what_zh}，噪声标准差 {whole}（{parties} 方各 {part}）")
        )
    return (*(Reveal(party, sealed, sealed_zh) for party in contributors), *lines)


def _check(spec: AggregateSpec, shape: Shape) -> None:
    if not 1 <= spec.epsilon_milli <= MOST_EPSILON_MILLI:
        raise InvalidSpec(tell=f"epsilon_milli must be 1 to {MOST_EPSILON_MILLI}")
    if spec.alignment:
        raise InvalidSpec(tell="noise is for totals over datasets, not over an alignment")
    if spec.margins:
        raise InvalidSpec(
            tell="totals with noise have no margins: they would be a second answer to the same question",
            hint="add up the groups, or ask for fewer of them",
        )
    for one in shape.wanted:
        if one.measure.statistic is Statistic.VARIANCE:
            raise InvalidSpec(
                tell=f"measure {one.measure.name!r}: a variance drowns in noise", hint="ask for a histogram"
            )


def _told(value: float) -> str:
    """Return a number to three digits, written out."""
    if not value:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{round(value, digits):.{max(digits, 0)}f}"
