"""Packed sums are the sums, up to the edge of a slot and never beyond it."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from paillier_keys import integers, private
from test_masks import everybody, pair_seed

from sandbox.errors import InvalidSpec, ProtocolFailed
from sandbox.mpc.masks import masks
from sandbox.mpc.packing import Column, Layout

CANARY = 987_654_321
AGE = Column("age", 0, 150)
SALDO = Column("saldo", -(2**39), 2**39 - 1)
COUNT = Column("rows", 0, 1)


def added(*packed: bytes, size: int = 256) -> bytes:
    """What the sum of ciphertexts decrypts to, less than the smallest modulus with this many bytes."""
    sums = [sum(column) for column in zip(*(integers(one, size) for one in packed), strict=True)]
    assert all(value < 2 ** (8 * size - 1) for value in sums)
    return b"".join(value.to_bytes(size, "big") for value in sums)


def one_by_one(layout: Layout, values: list[list[int]]) -> list[int]:
    """The plaintexts in plain integers."""
    plaintexts = []
    for first in range(0, len(values), layout.lanes):
        row = [
            value - column.low
            for line in values[first : first + layout.lanes]
            for value, column in zip(line, layout.columns, strict=True)
        ]
        for start in range(0, len(row), layout.slots):
            part = row[start : start + layout.slots]
            plaintexts.append(sum(stored << layout.width * slot for slot, stored in enumerate(part)))
    return plaintexts


ranges = st.integers(-(2**80), 2**80).flatmap(
    lambda low: st.sampled_from([0, 1, 6, 2**31, 2**40 - 1, 2**63, 2**90]).flatmap(
        lambda span: st.tuples(st.just(low), st.just(low + span))
    )
)
small_ranges = st.tuples(st.integers(-(2**40), 2**40), st.integers(0, 2**41)).map(lambda two: (two[0], sum(two)))


@st.composite
def layouts(draw):
    limits = draw(st.lists(draw(st.sampled_from([ranges, small_ranges])), min_size=1, max_size=60))
    columns = [Column(f"c{k}", *two) for k, two in enumerate(limits)]
    terms = draw(st.integers(1, 1000))
    bits = draw(st.sampled_from([2048, 3072]))
    return Layout.fitting(columns, terms, key_bits=bits, lanes=draw(st.sampled_from([1, None])))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_sums_of_packed_rows_are_the_sums(data):
    layout = data.draw(layouts())
    rows = data.draw(st.integers(0, 2 * layout.lanes + 1))
    batches = data.draw(st.integers(1, min(5, layout.terms)))
    cell = random.Random(data.draw(st.integers(0, 1000)))
    value = [(column.low, column.high, (column.low + column.high) // 2) for column in layout.columns]
    matrices = [[[cell.choice(three) for three in value] for _ in range(rows)] for _ in range(batches)]
    packed = []
    for matrix in matrices:
        array = np.array(matrix, object).reshape(rows, len(value))
        packed.append(layout.pack(array))
        assert integers(packed[-1], layout.key_bits // 8) == one_by_one(layout, matrix)
        assert len(packed[-1]) == layout.plaintexts(rows) * layout.key_bits // 8
        if max(abs(limit) for column in layout.columns for limit in (column.low, column.high)) < 2**62:
            assert layout.pack(array.astype(np.int64)) == packed[-1]
    expected = [[sum(cells) for cells in zip(*lines, strict=True)] for lines in zip(*matrices, strict=True)]
    together = added(*packed, size=layout.key_bits // 8)
    sums = layout.unpack(together, batches, rows)
    assert sums.tolist() == expected
    assert layout.total(together, batches * rows) == tuple(
        sum(line[place] for line in expected) for place in range(len(value))
    )


@settings(deadline=None)
@given(st.integers(1, 128), st.integers(1, 2**62), st.data())
def test_the_largest_sum_fits_exactly_and_one_term_more_does_not_construct(width, terms, data):
    full = (1 << width) - 1
    assume(terms <= full)
    span = full // terms
    low = data.draw(st.integers(-(2**62), 2**62))
    columns = (Column("left", low, low + span), Column("middle", low, low + span), Column("right", 0, 0))
    layout = Layout(columns, terms, width)
    # The middle slot gets all it can, its neighbours nothing: they stay at nothing.
    sums = np.array([[terms * low, terms * (low + span), 0]], object)
    packed = layout.pack(sums, terms)
    assert integers(packed, 256) == [terms * span << width]
    assert layout.unpack(packed, terms, 1).tolist() == sums.tolist()
    if terms < 2**62:
        too_many = full // span + 1
        assume(too_many <= 2**62)
        with pytest.raises(InvalidSpec, match=r"no room.*left"):
            replace(layout, terms=too_many)
    if width < 128:
        with pytest.raises(InvalidSpec, match="no room"):
            replace(layout, columns=(Column("wide", 0, full + 1),), terms=1)


@settings(deadline=None)
@given(st.integers(2, 100), st.integers(1, 120))
def test_the_largest_masked_sum_fits_exactly_and_one_contributor_more_does_not_construct(contributors, mask_bits):
    largest = contributors * (2**mask_bits - 1)
    assume(largest.bit_length() <= 128)
    layout = Layout.fitting([Column("a", 0, 2**mask_bits - 1)], 1, contributors=contributors)
    assert (layout.mask_bits, layout.width) == (mask_bits, largest.bit_length())
    most = (2**layout.width - 1) // (2**mask_bits - 1)
    assert replace(layout, contributors=most).contributors == most
    with pytest.raises(InvalidSpec, match="all contributors"):
        replace(layout, contributors=most + 1)
    with pytest.raises(InvalidSpec, match="no room"):
        replace(layout, terms=2)
    # Masked slots all at their largest, whatever the masks: the next slot does not notice.
    full = np.array([[2**mask_bits % 2**64 - 1 if mask_bits < 64 else 2**64 - 1, (2**mask_bits - 1) >> 64]], np.uint64)
    layout = replace(layout, lanes=1)
    packed = [layout.pack(np.zeros((1, 1), np.int64), masks=full)] * contributors
    assert integers(added(*packed), 256) == [largest]


def test_slots_of_a_full_plaintext_leave_the_top_bit_alone():
    for bits in (2048, 3072):
        for width in (1, 13, 64, 89, 128):
            span = 2**width - 1
            layout = Layout.fitting([Column("a", 0, span)], 1, key_bits=bits)
            assert layout.lanes == layout.slots == (bits - 1) // width
            packed = layout.pack(np.array([[span]] * layout.lanes, object))
            assert integers(packed, bits // 8) == [2 ** (width * layout.slots) - 1]
            assert layout.unpack(packed, 1).tolist() == [[span]] * layout.lanes
            with pytest.raises(InvalidSpec, match="do not fit into one"):
                replace(layout, lanes=layout.lanes + 1)


def test_forty_bit_columns_survive_encryption_and_a_thousand_additions():
    key = private()
    layout = Layout.fitting([SALDO], 1000)
    values = np.random.default_rng(5).integers(SALDO.low, SALDO.high, (20_000, 1), endpoint=True)
    ciphertexts = key.public.encrypt(layout.pack(values))
    assert len(ciphertexts) // 512 == -(-20_000 // layout.lanes) == 500
    plain = key.decrypt(key.public.sum(ciphertexts))
    assert layout.total(plain, 20_000) == (int(values.sum()),)


def test_grouped_sums_of_rows_with_their_counts():
    key, draw = private(), np.random.default_rng(6)
    layout = Layout.fitting([COUNT, AGE, SALDO], 500, lanes=1)
    rows = np.column_stack(
        [np.ones(200, np.int64), draw.integers(0, 150, 200), draw.integers(SALDO.low, SALDO.high, 200)]
    )
    where = draw.integers(0, 4, 200).astype(np.int32)
    sums = key.decrypt(key.public.grouped_sums(key.public.encrypt(layout.pack(rows)), where, 5))
    expected = [rows[where == group].sum(axis=0).tolist() for group in range(5)]
    assert layout.unpack(sums, "rows").tolist() == expected
    assert layout.unpack(sums, np.bincount(where, minlength=5)).tolist() == expected


def test_rows_longer_than_a_plaintext_take_several():
    columns = [Column(f"c{k}", -k, 2**60) for k in range(75)]
    layout = Layout.fitting(columns, 8)
    assert (layout.lanes, layout.slots, layout.parts) == (1, 31, 3) or layout.width != 64
    values = np.random.default_rng(7).integers(-0, 2**60, (9, 75))
    packed = layout.pack(values)
    assert len(packed) == 9 * layout.parts * 256
    assert (layout.unpack(packed, 1) == values).all()
    assert layout.total(packed, 9) == tuple(int(v) for v in values.sum(axis=0))


def test_sums_beyond_64_bits_are_python_integers():
    layout = Layout.fitting([Column("a", -(2**62), 2**62)], 2**40)
    packed = layout.pack(np.array([[2**62], [-(2**62)]]))
    many = b"".join((value * 2**40).to_bytes(256, "big") for value in integers(packed, 256))
    assert layout.unpack(many, 2**40, 2).tolist() == [[2**102], [-(2**102)]]


def test_values_out_of_range_are_counted_by_column_and_never_shown():
    layout = Layout.fitting([AGE, SALDO], 10)
    values = np.array([[150, 0], [151, 0], [-1, 2**39 - 1], [3, 2**39]])
    with pytest.raises(InvalidSpec, match="column age: 2 rows") as caught:
        layout.pack(values)
    with pytest.raises(InvalidSpec, match="column saldo: 1 rows"):
        layout.pack(values[[0, 3]])
    with pytest.raises(InvalidSpec, match="column age: 1 rows") as told:
        layout.pack(np.array([[CANARY, 0]], object))
    with pytest.raises(InvalidSpec, match="column age: 2 rows"):
        layout.pack(np.array([[2**70, 0], [-(2**70), 0]], object))
    assert "151" not in str(caught.value)
    assert str(CANARY) not in str(told.value)


@settings(deadline=None)
@given(st.integers(-(2**63), 2**63 - 1), small_ranges, st.integers(1, 3))
def test_a_value_is_packed_if_and_only_if_it_is_in_range(value, limits, additions):
    layout = Layout.fitting([Column("a", *limits)], 3)
    fits = additions * limits[0] <= value <= additions * limits[1]
    for kind in (np.int64, object):
        try:
            packed = layout.pack(np.array([[value]], kind), additions)
        except InvalidSpec:
            assert not fits
        else:
            assert fits
            assert layout.unpack(packed, additions, 1).tolist() == [[value]]


@pytest.mark.parametrize("limits", [(2**63, 2**64), (-(2**70), -(2**69)), (0, 2**100)])
def test_ranges_beyond_64_bits_hold_their_own(limits):
    low, high = limits
    layout = Layout.fitting([Column("a", low, high)], 5)
    assert layout.unpack(layout.pack(np.array([[low], [high]], object)), 1, 2).tolist() == [[low], [high]]
    for wrong in (low - 1, high + 1):
        with pytest.raises(InvalidSpec, match="1 rows"):
            layout.pack(np.array([[wrong]], object))
    if low > 0:
        with pytest.raises(InvalidSpec, match="2 rows"):
            layout.pack(np.array([[-1], [5]]))
        assert layout.unpack(layout.pack(np.array([[2**63]], np.uint64)), 1, 1).tolist() == [[2**63]]


@pytest.mark.parametrize(
    "values",
    [
        np.array([[1.0, 2.0]]),
        np.array([[True, False]]),
        np.array([[1, 2.5]], object),
        np.array([[1, True]], object),
        np.array([[1, None]], object),
        np.array([[1, "2"]], object),
        np.array([[1]]),
        np.array([1, 2]),
        np.array([["1", "2"]]),
    ],
)
def test_what_is_not_integers_in_columns_is_refused(values):
    with pytest.raises(InvalidSpec):
        Layout.fitting([AGE, SALDO], 10).pack(values)


@pytest.mark.parametrize("additions", [-1, 11, 1.0, np.array([1, 2]), np.array([[1]]), np.array(["1"])])
def test_impossible_numbers_of_rows_are_refused(additions):
    layout = Layout.fitting([AGE], 10)
    with pytest.raises(InvalidSpec):
        layout.pack(np.array([[1]]), additions)
    with pytest.raises(InvalidSpec):
        layout.unpack(layout.pack(np.array([[1]])), additions, 1)


def test_a_sum_of_more_rows_than_told_does_not_pass():
    layout = Layout.fitting([AGE, SALDO], 10)
    row = layout.pack(np.array([[150, SALDO.high]]))
    assert layout.unpack(added(*[row] * 10), 10, 1).tolist() == [[1500, 10 * SALDO.high]]
    with pytest.raises(ProtocolFailed, match="larger than"):
        layout.unpack(added(*[row] * 10), 9, 1)
    with pytest.raises(ProtocolFailed, match="larger than"):
        layout.total(added(*[row] * 10), 9)
    # Thirty thousand rows overflow a slot made for ten: its neighbours have to look wrong.
    with pytest.raises(ProtocolFailed):
        layout.unpack(added(*[row] * 30_000), 10, 1)


def test_what_is_beyond_the_slots_is_noticed():
    layout = Layout.fitting([AGE], 10, lanes=1)
    for bit in (layout.width, 63, 64, 2046, 2047):
        with pytest.raises(ProtocolFailed):
            layout.unpack((1 << bit).to_bytes(256, "big"), 1)
    with pytest.raises(ProtocolFailed, match="larger than"):
        Layout((AGE,), 10, 128).unpack((1 << 64).to_bytes(256, "big"), 1)
    lanes = Layout.fitting([AGE], 10)
    with pytest.raises(ProtocolFailed, match="no row"):
        lanes.unpack(lanes.pack(np.array([[1], [2]])), 1, 1)
    parts = Layout.fitting([Column(f"c{k}", 0, 2**60) for k in range(33)], 16)
    with pytest.raises(ProtocolFailed, match="no column"):
        parts.unpack(bytes(256) + (1 << 10 * parts.width).to_bytes(256, "big"), 1)


def test_lengths_and_rows_that_do_not_fit_are_refused():
    layout = Layout.fitting([AGE], 10, lanes=4)
    packed = layout.pack(np.ones((6, 1), np.int64))
    assert len(layout.unpack(packed, np.array([1] * 6), 6)) == 6
    for data, rows in ((packed[:-1], 6), (packed, 9), (packed, 4), (packed, -1), (packed, True)):
        with pytest.raises(InvalidSpec):
            layout.unpack(data, 1, rows)
    for added_rows in (-1, 81, True):
        with pytest.raises(InvalidSpec):
            layout.total(packed, added_rows)


def test_a_column_that_counts_has_to_be_there_and_honest():
    layout = Layout.fitting([COUNT, AGE], 10, lanes=1)
    packed = layout.pack(np.array([[1, 30]]))
    assert layout.unpack(packed, "rows").tolist() == [[1, 30]]
    with pytest.raises(InvalidSpec):
        layout.unpack(packed, "age of the universe")
    with pytest.raises(ProtocolFailed, match="counted"):
        layout.unpack(added(*[packed] * 11), "rows")
    with pytest.raises(ProtocolFailed):
        layout.unpack(layout.pack(np.array([[0, 30]])), "rows")


@pytest.mark.parametrize("contributors", [3, 5])
def test_masked_sums_open_together_only(contributors):
    key, draw = private(), np.random.default_rng(8)
    layout = Layout.fitting([COUNT, AGE, SALDO], 10_000, contributors=contributors)
    rows = 12
    counts = draw.integers(0, 50, (contributors, rows))
    matrices = [
        np.column_stack([c, c * draw.integers(0, 150), c * draw.integers(SALDO.low, SALDO.high)]) for c in counts
    ]
    hidden = everybody(contributors, layout.mask_slots(rows), layout.mask_bits)
    assert layout.mask_slots(rows) == -(-rows // layout.lanes) * layout.lanes * 3
    sent = [
        key.public.encrypt(layout.pack(matrix, c, masks=mask))
        for matrix, c, mask in zip(matrices, counts, hidden, strict=True)
    ]
    aggregate = sent[0]
    for one in sent[1:]:
        aggregate = key.public.add(aggregate, one)
    expected = sum(matrices).tolist()
    assert layout.unpack(key.decrypt(aggregate), counts.sum(axis=0), rows).tolist() == expected
    assert layout.unpack(key.decrypt(aggregate), "rows", rows).tolist() == expected
    # What the key's holder sees of one, or of all but one, is noise.
    without = sent[0]
    for one in sent[1:-1]:
        without = key.public.add(without, one)
    for part in (sent[0], without):
        with pytest.raises(ProtocolFailed):
            layout.unpack(key.decrypt(part), "rows", rows)


def test_masked_slots_are_reduced_before_encryption():
    # Whatever the value, a slot is below 2^mask_bits: a carry would tell that the value was large.
    layout = Layout.fitting([Column("a", 0, 255)], 1, contributors=3, lanes=1)
    assert layout.mask_bits == 8
    seen = set()
    for number in range(200):
        mask = masks("a", {"b": pair_seed("a", "b"), "c": pair_seed("a", "c")}, b"%d" % number, 1, 8)
        (slot,) = integers(layout.pack(np.array([[255]]), masks=mask), 256)
        assert slot == (255 + int(mask[0, 0])) % 256
        seen.add(slot)
    assert len(seen) > 100


def test_masks_go_with_layouts_that_have_them():
    plain, masked = Layout.fitting([AGE], 10), Layout.fitting([AGE], 10, contributors=3)
    values, count = np.array([[3]]), masked.mask_slots(1)
    assert count == masked.lanes
    with pytest.raises(InvalidSpec, match="only there"):
        plain.pack(values, masks=np.zeros((plain.lanes, 2), np.uint64))
    with pytest.raises(InvalidSpec, match="only there"):
        masked.pack(values)
    for wrong in (np.zeros((count - 1, 2), np.uint64), np.zeros((count, 2), np.int64), np.zeros(2 * count, np.uint64)):
        with pytest.raises(InvalidSpec, match="masks do not fit"):
            masked.pack(values, masks=wrong)


@pytest.mark.parametrize(
    "changes",
    [
        {"terms": 0},
        {"terms": 2**63},
        {"terms": 1.0},
        {"width": 0},
        {"width": 129},
        {"key_bits": 1024},
        {"lanes": 0},
        {"lanes": 2**20},
        {"mask_bits": 8},
        {"contributors": 3},
        {"mask_bits": -8, "contributors": 3},
        {"mask_bits": 8, "contributors": -3},
        {"columns": ()},
        {"columns": (AGE, AGE)},
        {"columns": tuple(Column(f"c{k}", 0, 0) for k in range(4097))},
    ],
)
def test_layouts_that_cannot_be_are_refused(changes):
    layout = Layout((AGE,), 10, 20)
    with pytest.raises(InvalidSpec):
        replace(layout, **changes)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("", 0, 1), ("a", 1, 0), ("a", 0.0, 1), ("a", 0, True), (b"a", 0, 1), (None, 0, 1)]
)
def test_columns_that_cannot_be_are_refused(name, low, high):
    with pytest.raises(InvalidSpec):
        Column(name, low, high)


def test_fitting_refuses_what_does_not_fit():
    for columns, terms, contributors in (([], 1, 0), ([Column("a", 0, 2**127)], 2**10, 0), ([AGE], -1, 0)):
        with pytest.raises(InvalidSpec):
            Layout.fitting(columns, terms, contributors=contributors)
    with pytest.raises(InvalidSpec):
        Layout.fitting([AGE], 10, contributors=-3)
