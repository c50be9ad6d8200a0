"""Many small integers in one Paillier plaintext, so that adding ciphertexts adds all of them.

    plaintext = sum over slots s of  stored_s 2^(width s)        stored = sum over rows of (value - low)

A row is one value for each column; a plaintext holds ``lanes`` rows side by side, or, where a row is longer than a
plaintext, a row takes several (``parts``). Slots of absent rows and columns hold 0.

Head-room: with span = high - low of a column, a ``Layout`` is constructed only if, for every column,

               terms * span                <= 2^width - 1                             without masks
               terms * span                <= 2^mask_bits - 1                         with masks
               contributors * (2^mask_bits - 1) <= 2^width - 1                        with masks
               slots used * width          <= key_bits - 1

           A stored value is never negative, so there is no borrow. A slot of the sum of ``additions <= terms`` rows is
           at most terms * span (with masks: the sum of ``contributors`` numbers less than 2^mask_bits), hence less than
           2^width: no carry reaches the neighbour. All slots together are less than 2^(key_bits - 1) <= n: nothing is
           reduced modulo n. How many rows were added is the caller's word; ``unpack`` refuses what so many rows of the
           declared ranges cannot make.
Masks:     ``pack`` reduces stored value plus mask modulo 2^mask_bits *in the clear*, before encryption: reduced later,
           the carries would tell about the value. A sum over everybody reduces to the sum of the stored values.
Shapes:    values are ``(rows, columns)``, integers; plaintexts are ``key_bits / 8`` bytes each, big-endian, one after
           another; masks are ``(mask_slots(rows), 2)`` 64-bit words, low word first (``masks.masks``).
Units:     integers in the smallest unit (fen, days, thousandths); whoever declares the ranges fixes the scale.
Errors:    ``InvalidSpec`` for a layout without head-room and for values outside the declared range: the message names
           the column and how many rows are wrong, never a value. ``ProtocolFailed`` for sums that cannot be.
Not here:  encryption (``paillier``), making masks (``masks``), multiplication: it scales every slot alike, and the
           inequalities do not cover it; count a factor of k as k terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sandbox.errors import InvalidSpec, ProtocolFailed
from sandbox.mpc.paillier import KEY_BITS
from sandbox.mpc.slots import MAX_WIDTH, Words, add, integers, join, reduced, split

Additions: TypeAlias = int | NDArray[np.int64]

_MAX_COLUMNS: Final = 4096
_MAX_TERMS: Final = 1 << 62
_WORD: Final = (1 << 64) - 1
_NARROW: Final = 1 << 63  # what stays below needs no Python integers


@dataclass(frozen=True, slots=True)
class Column:
    """A column's name and the smallest and largest value a row may have in it."""

    name: str
    low: int
    high: int

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name and _is_int(self.low) and _is_int(self.high)):
            raise InvalidSpec("a column needs a name and a range of integers")
        if self.low > self.high:
            raise InvalidSpec(f"the declared range of column {self.name} is empty")

    @property
    def span(self) -> int:
        """The largest stored value of one row."""
        return self.high - self.low


@dataclass(frozen=True, slots=True)
class Layout:
    """Which slot of a plaintext holds what; public, and the same for everybody who adds or reads.

    Args:
        terms: how many rows a slot may be the sum of at most, all contributors' together.
        width: bits a slot.
        lanes: rows side by side in one plaintext.
        mask_bits: masks and masked values are less than 2 to this; 0 for none.
        contributors: how many masked plaintexts are added at most; 0 without masks.
    """

    columns: tuple[Column, ...]
    terms: int
    width: int
    key_bits: int = KEY_BITS[0]
    lanes: int = 1
    mask_bits: int = 0
    contributors: int = 0

    def __post_init__(self) -> None:
        numbers = (self.terms, self.width, self.key_bits, self.lanes, self.mask_bits, self.contributors)
        names = len({column.name for column in self.columns})
        if not (all(map(_is_int, numbers)) and 1 <= names == len(self.columns) <= _MAX_COLUMNS):
            raise InvalidSpec("a layout needs integers, and columns with names of their own")
        if self.key_bits not in KEY_BITS or not (1 <= self.width <= MAX_WIDTH and 1 <= self.terms <= _MAX_TERMS):
            raise InvalidSpec("a layout's key size, slot width or number of terms is out of range")
        if not (self.mask_bits >= 0 <= self.contributors and bool(self.mask_bits) == bool(self.contributors)):
            raise InvalidSpec("a layout with masks needs both their size and the number of contributors")
        room = (1 << (self.mask_bits or self.width)) - 1
        for column in self.columns:
            if self.terms * column.span > room:
                raise InvalidSpec(f"a slot has no room for the sum of the declared terms of column {column.name}")
        if self.contributors * ((1 << self.mask_bits) - 1) >= 1 << self.width:
            raise InvalidSpec("a slot has no room for the masked values of all contributors")
        if self.lanes < 1 or (self.lanes > 1 and self.lanes * len(self.columns) > self.slots):
            raise InvalidSpec("so many rows do not fit into one plaintext")

    @classmethod
    def fitting(
        cls,
        columns: Sequence[Column],
        terms: int,
        *,
        key_bits: int = KEY_BITS[0],
        contributors: int = 0,
        lanes: int | None = None,
    ) -> Layout:
        """Return the layout with the narrowest slots, masked if ``contributors`` is given.

        Args:
            lanes: None for as many rows in a plaintext as fit.
        """
        if not (columns and _is_int(terms) and _is_int(contributors)):
            raise InvalidSpec("a layout needs columns, and integers for terms and contributors")
        room = max(1, (terms * max(column.span for column in columns)).bit_length())
        width = (contributors * ((1 << room) - 1)).bit_length() if contributors else room
        layout = cls(tuple(columns), terms, width, key_bits, 1, room if contributors else 0, contributors)
        return replace(layout, lanes=max(1, layout.slots // len(columns)) if lanes is None else lanes)

    @property
    def slots(self) -> int:
        """How many slots fit into a plaintext."""
        return (self.key_bits - 1) // self.width

    @property
    def parts(self) -> int:
        """How many plaintexts one row takes; 1 unless it is longer than a plaintext."""
        return -(-len(self.columns) // self.slots)

    def plaintexts(self, rows: int) -> int:
        """Return how many plaintexts ``rows`` rows take."""
        return -(-rows // self.lanes) * self.parts

    def mask_slots(self, rows: int) -> int:
        """Return how many masks ``rows`` rows need: slots of absent rows are masked too, their number is nobody's."""
        return -(-rows // self.lanes) * self.lanes * len(self.columns)

    def pack(self, values: NDArray[Any], additions: Additions = 1, *, masks: Words | None = None) -> bytes:
        """Return the plaintexts of ``(rows, columns)`` values.

        Args:
            additions: how many rows each value is the sum of already; one number, or one a row.

        Raises:
            InvalidSpec: a value is outside its declared range, or the shapes or masks do not fit the layout.
        """
        stored = self._stored(np.asarray(values), additions)
        missing = -len(stored) % self.lanes
        if missing:
            stored = np.concatenate([stored, np.zeros((missing, *stored.shape[1:]), np.uint64)])
        if (masks is None) != (self.mask_bits == 0):
            raise InvalidSpec("values are packed with masks where the layout has them, and only there")
        if masks is not None:
            stored = add(stored, self._masks(masks, stored.shape), self.mask_bits)
        return join(self._arranged(stored), self.width, self.key_bits)

    def unpack(self, plaintexts: bytes, additions: Additions | str, rows: int | None = None) -> NDArray[Any]:
        """Return the sums, ``(rows, columns)``: int64 if ``terms`` values of any column fit, else Python integers.

        Args:
            additions: how many rows were added; one number, one a row of the result, or the name of a column with
                ``low`` 0 that counted them.
            rows: how many rows the result has; None for as many as the plaintexts have room for.

        Raises:
            ProtocolFailed: these are not sums of so many rows of this layout, or masks are missing.
        """
        stored = self._read(plaintexts)
        kept = len(stored) if rows is None else rows
        if not (_is_int(kept) and len(stored) - self.lanes < kept <= len(stored) and kept >= 0):
            raise InvalidSpec("the number of rows does not fit the number of plaintexts")
        if stored[kept:].any():
            raise ProtocolFailed("a slot that no row has is not empty")
        stored = stored[:kept]
        narrow = self.terms * max(max(abs(one.low), abs(one.high), one.span) for one in self.columns) < _NARROW
        if narrow and stored[..., 1].any():
            raise ProtocolFailed("a sum is larger than the declared terms can make it")
        slots: NDArray[Any] = stored[..., 0].astype(np.int64) if narrow else integers(stored)
        if isinstance(additions, str):
            place = self._counter(additions)
            counted = slots[:, place]
            if bool((counted > self.terms).any() or (counted < 0).any()):
                raise ProtocolFailed("more rows were counted than the layout has terms")
            added: NDArray[Any] = counted
        else:
            added = self._additions(additions, kept)
        times = added.astype(np.int64 if narrow else object)[:, None]
        lows, spans = self._limits(np.int64 if narrow else object)
        if bool(((slots < 0) | (slots > times * spans)).any()):
            raise ProtocolFailed("a sum is larger than the rows added can make it, or masks are missing")
        result: NDArray[Any] = slots + times * lows
        return result

    def total(self, plaintexts: bytes, additions: int) -> tuple[int, ...]:
        """Return one sum a column over all lanes and plaintexts, which ``additions`` rows made in all.

        Raises:
            ProtocolFailed: as in ``unpack``.
        """
        stored = self._read(plaintexts)
        if not (_is_int(additions) and 0 <= additions <= self.terms * len(stored)):
            raise InvalidSpec("the number of rows added is out of range")
        # By halves of words: the sums of 2^32 rows fit 64 bits.
        halves = [((stored >> shift) & 0xFFFFFFFF).sum(axis=0).tolist() for shift in (0, 32)]
        sums = []
        for place, column in enumerate(self.columns):
            low, high = (halves[0][place][word] + (halves[1][place][word] << 32) for word in (0, 1))
            total = low + (high << 64)
            if total > additions * column.span:
                raise ProtocolFailed("a sum is larger than the rows added can make it, or masks are missing")
            sums.append(total + additions * column.low)
        return tuple(sums)

    def _stored(self, values: NDArray[Any], additions: Additions) -> Words:
        """Return values minus their offsets as ``(rows, columns, 2)`` words, after the check of every range."""
        if values.ndim != 2 or values.shape[1] != len(self.columns) or values.dtype.kind not in "iuO":
            raise InvalidSpec("values to pack are integers, one column for each of the layout")
        if values.dtype.kind == "O" and not all(map(_is_int, values.flat)):
            raise InvalidSpec("values to pack are not all integers")
        added = self._additions(additions, len(values))
        reach = max(max(abs(one.low), abs(one.high), one.span) for one in self.columns) * int(added.max(initial=0))
        kind = np.int64 if reach < _NARROW and np.can_cast(values.dtype, np.int64) else object
        lows, spans = self._limits(kind)
        whole, times = values.astype(kind, copy=False), added.astype(kind)[:, None]
        first = times * lows
        bad = np.asarray((whole < first) | (whole > first + times * spans), bool).sum(axis=0)
        for column, count in zip(self.columns, bad.tolist(), strict=True):
            if count:
                raise InvalidSpec(f"column {column.name}: {count} rows are outside the declared range")
        stored = np.zeros((*values.shape, 2), np.uint64)
        above = whole - first
        if kind is object:
            stored[..., 1] = (above >> 64).astype(np.uint64)
            above = above & _WORD
        stored[..., 0] = above.astype(np.uint64)
        return stored

    def _limits(self, kind: type) -> tuple[NDArray[Any], NDArray[Any]]:
        limits: NDArray[Any] = np.array([(column.low, column.span) for column in self.columns], kind)
        return limits[:, 0], limits[:, 1]

    def _additions(self, additions: Additions, rows: int) -> NDArray[np.int64]:
        given = np.asarray(additions)
        if given.dtype.kind not in "iu" or given.shape not in ((), (rows,)):
            raise InvalidSpec("the numbers of rows added are integers: one for all, or one a row")
        if bool((given < 0).any() or (given > self.terms).any()):
            raise InvalidSpec("more rows were added than the layout has terms, or less than none")
        return np.broadcast_to(given.astype(np.int64), (rows,))

    def _counter(self, name: str) -> int:
        for place, column in enumerate(self.columns):
            if column.name == name and column.low == 0:
                return place
        raise InvalidSpec("there is no column of this name that can count rows")

    def _masks(self, masks: Words, shape: tuple[int, ...]) -> Words:
        if masks.dtype == np.uint64 and masks.shape == (shape[0] * shape[1], 2):
            return masks.reshape(shape)
        raise InvalidSpec("the masks do not fit the number of rows and columns")

    def _arranged(self, stored: Words) -> Words:
        """Return ``(plaintexts, slots, 2)`` words from ``(rows, columns, 2)``."""
        if self.parts == 1:
            return stored.reshape(len(stored) // self.lanes, self.lanes * len(self.columns), 2)
        wide = np.zeros((len(stored), self.parts * self.slots, 2), np.uint64)
        wide[:, : len(self.columns)] = stored
        return wide.reshape(-1, self.slots, 2)

    def _read(self, plaintexts: bytes) -> Words:
        """Return ``(rows, columns, 2)`` words, reduced modulo 2^mask_bits where there are masks."""
        size = self.key_bits // 8
        if len(plaintexts) % (size * self.parts):
            raise InvalidSpec("the length of plaintexts does not fit the layout")
        used = self.lanes * len(self.columns) if self.parts == 1 else self.slots
        slots = split(plaintexts, used, self.width, size)
        if self.parts == 1:
            stored = slots.reshape(-1, len(self.columns), 2)
        else:
            wide = slots.reshape(-1, self.parts * self.slots, 2)
            stored = wide[:, : len(self.columns)]
            if wide[:, len(self.columns) :].any():
                raise ProtocolFailed("a slot that no column has is not empty")
        return reduced(stored, self.mask_bits) if self.mask_bits else stored


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
