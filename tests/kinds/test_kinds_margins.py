"""Lines of totals, groups that stay blank, amounts that stand out, and who is behind each number: as parties do it."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from kind_parties import JOB, NAMES, Room, paillier
from test_kinds_contributors import AGE, CITY, MEASURES, TOLD, ask, expected, on, people, spoilt

from sandbox.errors import InvalidSpec, OutputWithheld, ProtocolFailed
from sandbox.gate.judge import judge
from sandbox.kinds import aggregate, cells, contributors
from sandbox.kinds.cells import Shape, levels
from sandbox.kinds.counted import Counted
from sandbox.kinds.margins import Lines
from sandbox.kinds.population import Sketcher, union
from sandbox.kinds.suppression import blanks
from sandbox.model import Dimension, Measure, Population, Statistic

INCOME, HOURS = MEASURES[:2]
SUPPRESS = {"suppress": True}
STRICT = {"top_two": 850, "remainder": 100}


def listed(seed: int, rows: int = 60) -> pd.DataFrame:
    """People who are all in a city that is named, and all have an income."""
    frame = people(seed, rows)
    frame["gone"], frame["city"] = False, frame["city"].replace("elsewhere", "a")
    return frame


def thin(count: int = 3) -> list[pd.DataFrame]:
    """The same with few young people in city c, over all parties."""
    frames = [listed(n, 100) for n in range(count)]
    for frame in frames:
        young = frame.index[(frame["city"] == "c") & (frame["age"] < 30)]
        frame.loc[young[1:], "age"] = 40
    return frames


def two(**options: Any) -> Room:
    measures = options.pop("measures", (INCOME, HOURS, TOLD))
    return ask(thin(), ("city", "age_band"), measures, minimum=10, **options)


# --- lines of totals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("groups", [(), ("city",), ("city", "age_band")])
def test_with_totals_the_table_is_the_one_in_the_clear(groups: tuple[str, ...], parties: int) -> None:
    asked = ask([people(n) for n in range(parties)], groups, margins=True)
    exact = asked.exact()
    assert exact.equals(expected(asked))
    assert exact.num_rows == np.prod([len(levels(d)) + 1 for d in (CITY, AGE)[: len(groups)]], dtype=int)


def test_totals_are_over_the_levels_that_are_listed_and_their_means_are_true_means() -> None:
    frames = [people(n) for n in range(3)]
    found = ask(frames, ("city", "age_band"), (INCOME, HOURS), margins=True).exact().to_pandas()
    found = found.set_index(["city", "age_band"])
    whole = pd.concat(frames)
    whole = whole[whole["city"] != "elsewhere"]
    assert list(found.index[:4]) == [("a", band) for band in (*levels(AGE), "all")]
    assert found.index[-1] == ("all", "all")
    for city, own in (("b", whole[whole["city"] == "b"]), ("all", whole)):
        line = found.loc[(city, "all")]
        assert line["rows"] == len(own) and line["hours"] == pytest.approx(own["hours"].mean(), abs=0.0051)
        assert line["income"] == pytest.approx(own["cents"][~own["gone"]].sum() / 100, abs=1e-6)


def test_totals_leave_in_the_declared_form() -> None:
    frames = [listed(n) for n in range(3)]
    left = ask(frames, margins=True, measures=(INCOME,), minimum=10).run()["totals"]
    assert left["city"].to_pylist() == ["a", "b", "c", "all"] and left["rows"].to_pylist()[-1] == 180


def test_a_level_of_the_name_of_a_total_is_refused() -> None:
    made = Shape((Dimension("city", "city", ("a", "all")),), ())
    with pytest.raises(InvalidSpec, match="'all'"):
        Lines.of(made, True)
    assert Lines.of(made, False).count == 2


def test_a_table_that_is_too_large_with_its_totals_is_refused() -> None:
    wide = [Dimension(f"d{n}", f"d{n}", tuple(map(str, range(100)))) for n in range(2)]
    assert Lines.of(Shape(tuple(wide), ()), False).count == 10_000
    with pytest.raises(InvalidSpec, match="too large"):
        Lines.of(Shape(tuple(wide), ()), True)


# --- groups that stay blank -------------------------------------------------------------------------------------------


def shown(table: pa.Table) -> list[bool]:
    """Which lines hold numbers; each holds all or none."""
    found = {
        tuple(table.column(name).is_valid().to_pylist())
        for name in table.column_names
        if name not in ("city", "age_band")
    }
    (one,) = found
    return list(one)


def blank_of(asked: Room) -> list[bool]:
    """Which lines must stay blank, from everybody's rows in one place."""
    every = expected(asked)
    counts = [every.column(name).to_numpy() for name in ("rows", "told") if name in every.column_names]
    spec: Any = asked.spec.kind
    made = cells.shape(spec.groups, spec.measures, asked.scenario)
    lines = Lines(made.dimensions, spec.margins)
    cell = np.ones(every.num_rows, np.bool_)
    for name in spec.groups if spec.margins else ():
        cell &= every.column(name).to_numpy(zero_copy_only=False) != "all"
    found = blanks(np.stack(counts)[:, cell], np.zeros((0, int(cell.sum())), np.int64), lines.levels, 10)
    return lines.chosen(found).tolist()


@pytest.mark.parametrize("margins", [True, False])
def test_small_groups_stay_blank_and_everything_else_is_exact(margins: bool) -> None:
    asked = two(rule=SUPPRESS, margins=margins)
    left, every = asked.run()["totals"], expected(asked)
    where = [not blank for blank in blank_of(asked)]
    assert shown(left) == where and 0 < sum(where) < len(where)
    small = every["rows"].to_numpy() < 10
    assert small.sum() == 1 and len(where) - sum(where) == 4  # a rectangle around the one
    for name in ("rows", "income", "hours", "told"):
        assert left[name].filter(pa.array(where)).to_pylist() == every[name].filter(pa.array(where)).to_pylist()
    assert left.schema.types == every.schema.types


def test_without_that_rule_one_small_group_withholds_the_table() -> None:
    asked = two()
    raw = asked.compute()
    with pytest.raises(OutputWithheld, match="is below 10"):
        asked.reveal(raw)


def test_what_is_blank_is_in_no_ciphertext() -> None:
    """Nor could the recipient open it with the key and everything the aggregator got."""
    asked = two(rule=SUPPRESS, margins=True)
    asked.compute()
    spec: Any = asked.spec.kind
    made = cells.shape(spec.groups, spec.measures, asked.scenario)
    lines, blank = Lines.of(made, True), np.array(blank_of(asked))
    layout = contributors._layout(_Assigned(asked), spec, made)  # type: ignore[arg-type]
    plain = paillier().decrypt(asked.artefacts["operator", JOB, "share-for-bank"])
    rows = np.where(blank, 0, expected(asked)["rows"].to_numpy())
    opened = layout.unpack(plain, rows, lines.count)
    assert not opened[blank].any() and opened[~blank].any(axis=1).all()
    with pytest.raises(ProtocolFailed):  # a single contribution is noise, in blank lines too
        layout.unpack(paillier().decrypt(asked.heard("operator", "cipher", "bank")[0]), rows, lines.count)


class _Assigned:
    def __init__(self, asked: Room) -> None:
        self.plan, self.rows = asked.plan, {name: held.num_rows for name, held in asked.tables.items()}


def test_gates_judge_what_is_shown_and_what_blanks_add_up_to() -> None:
    asked = two(rule=SUPPRESS, margins=True)
    raw = asked.compute()
    every, blank = expected(asked), blank_of(asked)
    rows = every["rows"].to_pylist()
    for numbers in raw.values():
        inputs = numbers.gate_inputs
        sizes = {name: count for name, count in inputs.items() if name.startswith("group.") and name.count(".") == 1}
        assert sizes == {f"group.{n}": rows[n] for n, is_blank in enumerate(blank) if not is_blank}
        together = [count for name, count in inputs.items() if name.startswith("group.blank.") and name.count(".") == 2]
        assert len(together) == 4 and min(together) >= 10  # two rows, two columns
        assert inputs["rows"] == 300
        judge(asked.plan, inputs)


def test_blanks_that_are_too_few_together_withhold() -> None:
    made = Shape((CITY,), ())
    counted = Counted(np.array([30, 2, 40]), np.zeros((0, 3), np.int64), np.zeros(1, np.int64))
    inputs = counted.gate_inputs(made, Lines(made.dimensions, True), np.array([False, True, False, False]))
    assert inputs["group.blank.0"] == 2
    with pytest.raises(OutputWithheld, match=r"blank\.0 is below 10"):
        judge(two(rule=SUPPRESS).plan, inputs)


def test_a_table_that_would_be_all_blank_is_withheld() -> None:
    asked = ask([listed(n, 2) for n in range(3)], measures=(INCOME,), minimum=10, rule=SUPPRESS)
    raw = asked.compute()
    assert not [name for name in raw["bank"].gate_inputs if name.startswith("group.")]
    with pytest.raises(OutputWithheld, match="no group size"):
        asked.reveal(raw)


def test_over_an_alignment_there_are_no_totals_and_no_blanks() -> None:
    asked = two(rule=SUPPRESS)
    spec: Any = asked.spec.kind
    over = replace(spec, datasets=(), alignment="cd" * 16)
    held = replace(asked.scenario, outputs=tuple(replace(r, suppress=False) for r in asked.scenario.outputs))
    for wanted, scenario in ((over, asked.scenario), (replace(over, margins=True), held)):
        with pytest.raises(InvalidSpec, match="over an alignment"):
            aggregate.columns(replace(asked.spec, kind=wanted), scenario, scenario.datasets[:2])


def left_with(asked: Room, change: Any) -> Any:
    """What leaves if the table is changed behind the gate's back."""
    raw = asked.reveal(asked.compute())
    kept = pq.read_table(pa.BufferReader(asked.artefacts["bank", JOB, "totals"]))
    sink = pa.BufferOutputStream()
    pq.write_table(change(kept), sink)
    asked.artefacts["bank", JOB, "totals"] = sink.getvalue().to_pybytes()
    return asked.release(raw)


def without(name: str, line: int) -> Any:
    def change(table: pa.Table) -> pa.Table:
        mask = pa.array([at != line for at in range(table.num_rows)])
        place = table.column_names.index(name)
        return table.set_column(place, name, pc.if_else(mask, table.column(name), None))

    return change


def test_a_line_that_is_blank_in_part_does_not_leave() -> None:
    asked = two(rule=SUPPRESS)
    first = blank_of(asked).index(False)
    for name in ("rows", "income", "told"):
        with pytest.raises(OutputWithheld, match="something else than declared"):
            left_with(two(rule=SUPPRESS), without(name, first))


def test_without_that_rule_no_line_may_be_blank() -> None:
    frames = [listed(n) for n in range(3)]

    def emptied(table: pa.Table) -> pa.Table:
        for name in ("rows", "income"):
            table = without(name, 0)(table)
        return table

    for rule in ({}, SUPPRESS):
        asked = ask(frames, measures=(INCOME,), minimum=10, rule=rule)
        if rule:
            assert left_with(asked, emptied)["totals"]["rows"].null_count == 1
            continue
        with pytest.raises(OutputWithheld, match="something else than declared"):
            left_with(asked, emptied)


# --- amounts that stand out -------------------------------------------------------------------------------------------


def rich(cents: int, sizes: tuple[int, ...] = (20, 20, 20)) -> list[pd.DataFrame]:
    """One person of the operator's has so much; everybody else has between 100 and 120."""
    frames = [listed(n, size) for n, size in enumerate(sizes)]
    for frame in frames:
        frame["city"], frame["cents"] = "a", 10_000 + np.arange(len(frame)) * 100
    frames[1].loc[0, "cents"] = cents
    return frames


def test_four_millions_among_small_ones_withhold_the_mean() -> None:
    """datashield/dsBase#250: under two years later still open there."""
    mean = (Measure("mean", Statistic.MEAN, "income"),)
    assert ask(rich(12_000), (), mean, minimum=10, rule=STRICT).run()
    asked = ask(rich(1_000_000), (), mean, minimum=10, rule=STRICT)
    raw = asked.compute()
    assert raw["operator"].gate_inputs["remainder.mean"] < 1000 and raw["bank"].gate_inputs["remainder.mean"] > 1000
    assert ask(rich(1_000_000), (), mean, minimum=10).run()  # where nobody asks for it
    for rule in ({"top_two": 700}, {"remainder": 900}):
        refused = ask(rich(1_000_000), (), mean, minimum=10, rule=rule)
        left = refused.compute()
        with pytest.raises(OutputWithheld, match=r"of mean|of its largest"):
            refused.reveal(left)
        assert "share" not in {m.label for m in refused.said}


def test_an_owner_of_one_person_withholds_nothing_that_many_make() -> None:
    asked = ask(rich(11_000, (20, 1, 20)), (), (INCOME,), minimum=10, rule=STRICT)
    assert asked.run()
    assert {m.label for m in asked.said if m.to == "bank"} >= {"masked"}  # it had to ask


def test_one_person_beside_one_other_party_is_withheld() -> None:
    """Forty-one rows, and yet the bank would see what this person has: its own forty subtracted."""
    asked = ask(rich(11_000, (40, 1, 0)), (), (INCOME,), minimum=10, rule=STRICT)
    raw = asked.compute()
    assert raw["operator"].gate_inputs["remainder.income"] == 0
    with pytest.raises(OutputWithheld):
        asked.reveal(raw)


def test_nobody_asks_where_everybody_can_judge_alone() -> None:
    asked = ask(rich(11_000), (), (INCOME, HOURS), minimum=10, rule=STRICT)
    assert asked.run()
    assert "masked" not in {m.label for m in asked.said}


def test_nobody_is_asked_about_a_table_that_is_withheld_anyhow() -> None:
    """What stands out in a group of three is nobody's business: such a group is not shown."""
    frames = rich(1_000_000, (20, 1, 20))
    for frame in frames:
        frame.loc[frame.index[-1], "city"] = "b"
    asked = ask(frames, ("city",), (INCOME,), minimum=10, rule=STRICT)
    raw = asked.compute()
    assert sum(m.label == "counts" for m in asked.said) == 6 and "masked" not in {m.label for m in asked.said}
    with pytest.raises(OutputWithheld, match="is below 10"):
        asked.reveal(raw)
    shown_too = ask(frames, ("city",), (INCOME,), minimum=0, rule=STRICT)
    shown_too.compute()
    assert {m.label for m in shown_too.said} >= {"masked"}


def test_what_is_said_about_amounts_is_masked() -> None:
    rooms = [ask(rich(1_000_000, (20, 1, 20)), (), (INCOME,), salt=bytes(32)) for _ in range(2)]
    for asked in rooms:
        asked.compute()
        for sender in NAMES[:3]:
            (shown,) = {m.body for m in asked.said if m.sender == sender and m.label == "masked"}
            assert all(1 << 20 < word < (1 << 64) - (1 << 20) for word in np.frombuffer(shown, "<u8").tolist())
    bodies = [{m.body for m in asked.said if m.label == "masked"} for asked in rooms]
    assert not bodies[0] & bodies[1]


def test_amounts_that_cannot_be_end_it() -> None:
    noise = on("masked", "witness", "bank", spoilt(lambda b: os.urandom(len(b))))
    with pytest.raises(ProtocolFailed, match="amounts that do not add up") as refusal:
        ask(rich(1_000_000, (20, 1, 20)), (), (INCOME,), change=noise).compute()
    assert refusal.value.party == ""  # of three nobody can say whose they are
    short = on("masked", "witness", "bank", spoilt(lambda b: b[:-8]))
    with pytest.raises(ProtocolFailed, match="other groups") as refusal:
        ask(rich(1_000_000, (20, 1, 20)), (), (INCOME,), change=short).compute()
    assert refusal.value.party == "witness"
    again = on("masked", "witness", "bank", lambda message: (message, message))
    with pytest.raises(ProtocolFailed) as refusal:
        ask(rich(1_000_000, (20, 1, 20)), (), (INCOME,), change=again).compute()
    assert refusal.value.party == "witness"


def test_blank_groups_are_judged_together() -> None:
    """Someone rich in a blank group: what the blanks of a line add up to can be told, and is nearly all theirs."""
    frames = thin()
    row = frames[0].index[(frames[0]["city"] == "c") & (frames[0]["age"] < 30)][0]
    for frame in frames:
        frame["cents"] = 10_000
    frames[0].loc[row, "cents"] = 1_000_000
    asked = ask(frames, ("city", "age_band"), (INCOME,), minimum=10, rule=SUPPRESS)
    raw = asked.compute()
    assert blank_of(asked)[6]
    assert raw["bank"].gate_inputs["remainder.income"] < 1000
    for frame in frames:
        frame["cents"] = 10_000
    even = ask(frames, ("city", "age_band"), (INCOME,), minimum=10, rule=SUPPRESS).compute()
    assert even["bank"].gate_inputs["remainder.income"] >= 1000


# --- who is behind the numbers ----------------------------------------------------------------------------------------


def behind(frame: pd.DataFrame, party: str, sizes: dict[tuple[str, str], int]) -> dict[str, Population]:
    """The populations of one party, group by group, from its rows."""
    sketcher = Sketcher(party[:1].encode() * 32)
    bands = pd.cut(frame["age"], [-1, 29, 59, 200], labels=levels(AGE)).astype(str)
    found = {}
    for city in (*levels(CITY), "all"):
        for band in (*levels(AGE), "all"):
            inside = frame["city"].isin(levels(CITY) if city == "all" else [city])
            inside &= band == "all" or bands == band
            name = f"{city}, {band}"
            found[name] = sketcher.of(name, pa.array(frame["id"][inside], pa.string()), sizes[city, band])
    return found


@pytest.mark.parametrize("margins", [True, False])
def test_every_cell_and_every_total_has_its_people(margins: bool) -> None:
    frames = [people(n) for n in range(3)]
    asked = ask(frames, ("city", "age_band"), (INCOME,), margins=margins)
    raw = asked.compute()
    every = expected(ask(frames, ("city", "age_band"), (INCOME,), margins=True)).to_pydict()
    sizes = dict(zip(zip(every["city"], every["age_band"], strict=True), every["rows"], strict=True))
    for party, frame in zip(NAMES, frames, strict=False):
        found = {one.name: one for one in raw[party].populations}
        assert found == behind(frame, party, sizes) and not any(one.is_whole for one in found.values())


def test_blank_groups_leave_no_trace() -> None:
    asked = two(rule=SUPPRESS)
    raw = asked.compute()
    both = two(rule=SUPPRESS, margins=True)
    names = [f"{city}, {band}" for city in (*levels(CITY), "all") for band in (*levels(AGE), "all")]
    shown_ones = [name for name, is_blank in zip(names, blank_of(both), strict=True) if not is_blank]
    assert len(shown_ones) == 12
    for numbers in raw.values():
        assert [one.name for one in numbers.populations] == shown_ones


def test_of_one_line_there_is_one_population() -> None:
    frames = [people(n) for n in range(2)]
    raw = ask(frames, (), (INCOME,)).compute()
    (one,) = raw["bank"].populations
    assert (one.name, one.rows, one.size) == ("all", 60, 120)
    cities = ask(frames, ("city",), (INCOME,)).compute()["bank"].populations
    assert [one.name for one in cities] == ["a", "b", "c", "all"]
    assert union("all", cities[:3], cities[3].size) == cities[3]
