"""Totals where one side knows the groups and the other what is added up: equal to the join in the clear, and no row of
either side at the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kind_parties import EARLIER, JOB, Message, Room, leaving, noted_threads, paillier, room, scenario

from sandbox.errors import (
    DeadlinePassed,
    InvalidSpec,
    OutputWithheld,
    PartyFailed,
    ProtocolFailed,
    SandboxError,
    WrongState,
)
from sandbox.kinds import aggregate, cells, crosswise, sealed
from sandbox.kinds.population import SHARED, Sketcher
from sandbox.model import AggregateSpec, Dimension, Measure, MeasureRange, Statistic
from sandbox.mpc.paillier import PrivateKey, PublicKey

BANK, OPERATOR = ("income", "branch", "bad"), ("late", "util", "city")
DIMENSIONS = (
    Dimension("branch", "branch", ("x", "y")),
    Dimension("city", "city", ("a", "b", "c")),
    Dimension("util_band", "util", (), (20, 50)),
    Dimension("late_band", "late", (), (1, 3)),
    Dimension("income_band", "income", (), (1000, 5000)),
)
RANGES = (
    MeasureRange("income", 0, 10_000),
    MeasureRange("bad", 0, 10_000, 4),
    MeasureRange("late", 0, 9),
    MeasureRange("util", -500, 10_000, 2),
)
HELD = scenario([BANK, OPERATOR], DIMENSIONS, RANGES)
DEFAULTS, INCOME = Measure("defaults", Statistic.MEAN, "bad"), Measure("income", Statistic.SUM, "income")
SPREAD, LATE = Measure("spread", Statistic.VARIANCE, "income"), Measure("late", Statistic.SUM, "late")
USE, LATES = Measure("use", Statistic.MEAN, "util"), Measure("lates", Statistic.HISTOGRAM, "late_band")
INCOMES = Measure("incomes", Statistic.HISTOGRAM, "income_band")
KNOWN = Measure("known", Statistic.COUNT, "late")
WEIGHED = Measure("weighed", Statistic.WEIGHTED_SUM, "income", "bad")
TOLD = Measure("told", Statistic.COUNT, "income")


def tables(seed: int, rows: int = 90, missing: float = 0.0) -> tuple[pa.Table, pa.Table]:
    random = np.random.default_rng(seed)
    gone = random.random(rows) < missing
    bank = {
        "id": [f"p{n}" for n in range(rows)],
        "income": pa.array(random.integers(0, 10_001, rows), pa.int64(), mask=gone),
        "branch": random.choice(["x", "y", "other"], rows, p=[0.5, 0.4, 0.1]).tolist(),
        "bad": pa.array(random.integers(0, 2, rows), pa.int64()),
    }
    operator = {
        "id": [f"p{n}" for n in range(rows // 3, rows + rows // 3)],
        "late": pa.array(random.integers(0, 10, rows), pa.int64(), mask=random.random(rows) < missing),
        "util": pa.array(random.integers(-5, 101, rows), pa.int64()),
        "city": random.choice(["a", "b", "c"], rows).tolist(),
    }
    return pa.table(bank), pa.table(operator)


def ask(
    groups: tuple[str, ...], *measures: Measure, seed: int = 1, rows: int = 90, missing: float = 0.0, **options: Any
) -> Room:
    both = options.pop("both", None) or tables(seed, rows, missing)
    ids = [one["id"].to_pylist() for one in both]
    shared = [name for name in ids[0] if name in set(ids[1])]
    np.random.default_rng(seed).shuffle(shared)
    held = replace(HELD, **options.pop("held", {}))
    bits = options.get("key_bits", 2048)
    made = room(AggregateSpec((), EARLIER, groups, measures, bits), held, both, **options)
    for party, own in zip(("bank", "operator"), ids, strict=True):
        positions = np.array([own.index(name) for name in shared], "<i8")
        made.artefacts[party, EARLIER, "alignment"] = positions.tobytes()
    return made


def joined(asked: Room) -> pa.Table:
    """Both sides' rows of the shared people beside each other, as nobody ever has them."""
    parts = []
    for party, own in asked.tables.items():
        positions = np.frombuffer(asked.artefacts[party, EARLIER, "alignment"], "<i8")
        parts.append(own.take(pa.array(positions)))
    whole = parts[0]
    for name in parts[1].column_names[1:]:
        whole = whole.append_column(name, parts[1][name])
    assert parts[0]["id"].equals(parts[1]["id"])
    return whole


def expected(asked: Room) -> pa.Table:
    spec: Any = asked.spec.kind
    made, whole = cells.shape(spec.groups, spec.measures, asked.scenario), joined(asked)
    placed = cells.group_codes(whole, made.dimensions)
    sums, counted = cells.prepare(whole, made.wanted)
    everything = np.ones(whole.num_rows, np.bool_)
    return cells.statistics(
        made,
        cells.grouped_counts(placed, everything, made.cells),
        [cells.grouped_counts(placed, one, made.cells) for one in counted],
        [cells.grouped_sums(placed, one, made.cells) for one in sums],
    )


CASES: dict[str, tuple[tuple[str, ...], tuple[Measure, ...]]] = {
    "groups left, measures right": (("branch",), (LATE, USE)),
    "groups right, measures left": (("util_band",), (DEFAULTS, INCOME)),
    "variance": (("util_band",), (SPREAD, DEFAULTS)),
    "two dimensions of one side": (("city", "util_band"), (DEFAULTS,)),
    "own measures between the others": (("util_band",), (LATE, DEFAULTS, USE, INCOME, KNOWN)),
    "own bands beside the others": (("city",), (LATES, INCOME)),
    "only counts of the other side": (("branch",), (KNOWN,)),
    "a weighted sum of the other side": (("city",), (WEIGHED,)),
    "every statistic of the other side by two dimensions": (("city", "util_band"), (SPREAD, WEIGHED, DEFAULTS, TOLD)),
    "a sum and own bands by two dimensions": (("city", "util_band"), (INCOME, LATES)),
    "no groups": ((), (DEFAULTS, LATE)),
    "no groups, measures of one side": ((), (LATE, USE)),
}


@pytest.mark.parametrize("recipient", ["bank", "operator"])
@pytest.mark.parametrize("case", CASES)
def test_the_table_is_the_one_of_the_join(case: str, recipient: str) -> None:
    groups, measures = CASES[case]
    asked = ask(groups, *measures, held={"recipient": replace(HELD.recipient, node_id=recipient)})
    assert asked.exact().equals(expected(asked))


def test_rows_without_a_value_do_not_count() -> None:
    for groups, measures in (((), (INCOME, KNOWN)), (("branch",), (LATE, USE)), (("util_band",), (LATE, INCOME))):
        asked = ask(groups, *measures, missing=0.04, rows=200)
        assert asked.exact().equals(expected(asked))
        whole = joined(asked)
        assert whole["late"].null_count and whole["income"].null_count


def test_a_row_longer_than_a_plaintext_takes_several(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = tuple(f"c{n}" for n in range(16))
    many = tuple(Measure(f"v{n}", Statistic.VARIANCE, column) for n, column in enumerate(columns))
    bank, operator = HELD.datasets
    random = np.random.default_rng(4)
    both = list(tables(1, 30))
    for column in columns:
        both[0] = both[0].append_column(column, pa.array(random.integers(-(1 << 30), 1 << 30, 30), pa.int64()))
    held = {
        "measures": tuple(MeasureRange(column, -(1 << 30), 1 << 30) for column in columns),
        "datasets": (replace(bank, fields=columns), operator),
    }
    asked = ask(("city",), *many, both=tuple(both), held=held)
    shared = len(asked.artefacts["bank", EARLIER, "alignment"]) // 8
    spec: Any = asked.spec.kind
    parts = sealed.row_layout(cells.shape(spec.groups, spec.measures, asked.scenario), shared, 2048).parts
    assert parts > 1
    monkeypatch.setattr(crosswise, "MESSAGE", 7 * parts * 512)  # and several messages
    assert asked.exact().equals(expected(asked))
    messages = asked.heard("operator", "cipher")
    assert sum(map(len, messages)) == shared * parts * 512 and len(messages) == -(-shared // 7) > 1


def test_a_long_key() -> None:
    asked = ask(("branch",), LATE, key_bits=3072, rows=24)
    assert asked.exact().equals(expected(asked))


@given(st.integers(6, 60), st.integers(0, 2**31), st.booleans(), st.data())
@settings(max_examples=6, deadline=None)
def test_any_sizes_and_tables(rows: int, seed: int, left: bool, data: st.DataObject) -> None:
    pool = ("city", "util_band") if left else ("branch", "income_band")
    groups = tuple(data.draw(st.lists(st.sampled_from(pool), max_size=2, unique=True)))
    own, other = ([LATE, USE], [DEFAULTS, INCOME]) if left else ([DEFAULTS, INCOME], [LATE, USE])
    chosen = data.draw(
        st.permutations([data.draw(st.sampled_from(other)), *data.draw(st.lists(st.sampled_from(own), max_size=1))])
    )
    asked = ask(groups, *chosen, seed=seed, rows=rows)
    assert asked.exact().equals(expected(asked))


def test_what_leaves_has_the_declared_form() -> None:
    left = ask(("util_band",), DEFAULTS, INCOME).run()["totals"]
    assert left.column_names == ["util_band", "rows", "defaults", "income"]
    assert left["util_band"].to_pylist() == ["below 20", "20 to below 50", "50 and above"]


# --- who has what ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("groups", "measures", "told"),
    [
        (("branch", "city"), (DEFAULTS,), "one side holds all groups"),
        (("branch",), (DEFAULTS, INCOME), "one side holds all groups"),
        (("city",), (replace(WEIGHED, weight="late"),), "one side holds all groups"),
        (("branch",), (LATES,), "cannot be judged before it is opened"),
        (("city",), (LATE, INCOMES), "cannot be judged before it is opened"),
    ],
)
def test_a_job_that_cannot_be_shared_out_is_refused(groups: Any, measures: Any, told: str) -> None:
    with pytest.raises(InvalidSpec) as refusal:
        ask(groups, *measures)
    assert told in refusal.value.tell


def test_each_side_brings_only_the_columns_that_are_its_part() -> None:
    asked = ask(("util_band",), DEFAULTS, LATE)
    assert {party.node_id: party.fields for party in asked.plan.parties} == {
        "bank": ("bad",),
        "operator": ("util", "late"),
    }
    assert aggregate.KIND.key_holder(asked.plan, asked.spec, asked.scenario) == "bank"
    asked = ask(("branch",), LATE)
    assert {party.node_id: party.fields for party in asked.plan.parties} == {"bank": ("branch",), "operator": ("late",)}
    assert aggregate.KIND.key_holder(asked.plan, asked.spec, asked.scenario) == "operator"
    told = aggregate.KIND.reveals(asked.spec, asked.plan.parties, asked.scenario, "paillier")
    assert [reveal.party for reveal in told] == ["bank", "operator", "recipient"]


def test_a_column_of_both_is_no_one_s_measure() -> None:
    bank, operator = HELD.datasets
    held = {"datasets": (replace(bank, fields=(*bank.fields, "late")), operator)}
    with pytest.raises(InvalidSpec, match="both sides have its columns"):
        ask(("branch",), LATE, held=held)


def test_a_label_may_be_added_up_and_grouped_by() -> None:
    bank, operator = HELD.datasets
    held = {"datasets": (replace(bank, fields=("income", "branch"), label="bad"), operator)}
    asked = ask(("util_band",), DEFAULTS, held=held)
    assert asked.exact().equals(expected(asked))


# --- what each party sees -------------------------------------------------------------------------------------------


def test_the_group_side_sees_ciphertexts_and_the_measure_side_numbers_of_rows() -> None:
    rooms = [ask(("util_band",), DEFAULTS, INCOME, LATE, salt=bytes(32)) for _ in range(2)]
    for asked in rooms:
        asked.run()
        assert {(m.sender, m.to, m.label) for m in asked.said} == {
            ("bank", "operator", "key"),
            ("bank", "operator", "cipher"),
            ("operator", "bank", "counts"),
            ("operator", "bank", "masked"),
            ("operator", "bank", "share"),
        }
        (counts,) = asked.heard("bank", "counts")
        told = expected(asked)
        assert np.frombuffer(counts, "<i8").tolist() == [*told["rows"].to_pylist(), 0]  # and nobody was left out
        ciphers = b"".join(asked.heard("operator", "cipher"))
        units = [ciphers[at : at + 512] for at in range(0, len(ciphers), 512)]
        assert len(set(units)) == len(units)  # equal rows do not show
    first, second = ({m.body for m in asked.said if m.label in ("cipher", "masked", "share")} for asked in rooms)
    assert not first & second


def test_the_measure_side_decrypts_sums_under_a_uniform_number() -> None:
    asked = ask(("util_band",), DEFAULTS, INCOME)
    asked.compute()
    share = asked.artefacts["bank", JOB, "own-share"]
    numbers = [int.from_bytes(share[at : at + 256], "big") for at in range(0, len(share), 256)]
    assert len(numbers) == 3 and all(number.bit_length() > 1900 for number in numbers)
    (masked,) = asked.heard("bank", "masked")
    assert paillier().decrypt(masked) == share
    other = ask(("util_band",), DEFAULTS, INCOME)
    other.compute()
    assert other.artefacts["bank", JOB, "own-share"] != share


def test_what_goes_back_does_not_show_which_rows_were_added() -> None:
    """The measure side knows the randomness of every row it encrypted, and could try who makes up a product of them."""
    asked = ask(("util_band",), DEFAULTS)
    asked.compute()
    spec: Any = asked.spec.kind
    made, public = cells.shape(spec.groups, spec.measures, asked.scenario), paillier().public
    codes = cells.group_codes(joined(asked), made.dimensions)
    sums = public.grouped_sums(b"".join(asked.heard("operator", "cipher")), codes, made.cells, fresh=False)
    hiding = bytes.fromhex(json.loads(asked.artefacts["operator", JOB, "share-for-bank"])["hiding"])
    bare = public.add_plain(sums, hiding, fresh=False)
    (masked,) = asked.heard("bank", "masked")
    assert paillier().decrypt(bare) == paillier().decrypt(masked)
    assert not [at for at in range(0, len(bare), 512) if bare[at : at + 512] == masked[at : at + 512]]


def test_work_is_spread_over_the_node_s_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crosswise, "MESSAGE", 20 * 512)
    operations = {PublicKey: ("grouped_sums", "add", "add_plain"), PrivateKey: ("encrypt", "decrypt")}
    seen = noted_threads(monkeypatch, operations)
    asked = ask(("util_band",), DEFAULTS, cores=2)
    assert asked.exact().equals(expected(asked))
    assert seen == {(name, 2) for names in operations.values() for name in names}


def test_before_the_grants_neither_side_has_both_shares() -> None:
    asked = ask(("util_band",), DEFAULTS, LATE)
    asked.compute()
    names = {
        party: {name for who, job, name in asked.artefacts if who == party and job == JOB} for party in asked.tables
    }
    assert names == {
        "bank": {"own-share", "key", "shared", "counts"},
        "operator": {"share-for-bank", "key", "shared", "counts"},
    }


# --- too few --------------------------------------------------------------------------------------------------------


def withheld(asked: Room, reason: str) -> None:
    raw = asked.compute()
    with pytest.raises(OutputWithheld, match=reason) as refusal:
        asked.reveal(raw)
    assert (refusal.value.tell, refusal.value.stage) == (OutputWithheld.public, "gate")
    assert not [m for m in asked.said if m.label == "share"]
    assert ("bank", JOB, "totals") not in asked.artefacts


def at_least(minimum: int) -> dict[str, Any]:
    return {"outputs": tuple(replace(rule, min_group=minimum) for rule in HELD.outputs)}


def test_too_few_in_a_group_withholds_and_no_share_moves() -> None:
    smallest = min(expected(ask(("util_band",), DEFAULTS))["rows"].to_pylist())
    assert ask(("util_band",), DEFAULTS, held=at_least(smallest)).run()
    withheld(ask(("util_band",), DEFAULTS, held=at_least(smallest + 1)), "is below")


def listed(missing: float = 0.0, elsewhere: tuple[int, ...] = ()) -> tuple[pa.Table, pa.Table]:
    """Everybody is in a branch that is listed, but for some rows."""
    bank, operator = tables(1, missing=missing)
    names = [name.replace("other", "x") for name in bank["branch"].to_pylist()]
    names = ["other" if row in elsewhere else name for row, name in enumerate(names)]
    return bank.set_column(2, "branch", pa.array(names)), operator


def test_a_few_in_no_group_withhold_at_both() -> None:
    both = listed(elsewhere=(31, 32, 33))
    assert ask(("branch",), LATE, both=both, held=at_least(3)).run()
    raw = ask(("branch",), LATE, both=both, held=at_least(4)).compute()
    assert {party: numbers.gate_inputs["rest.0"] for party, numbers in raw.items()} == {"bank": 3, "operator": 3}
    withheld(ask(("branch",), LATE, both=both, held=at_least(4)), "rest.0 is above 0 and below 4")


def test_the_side_of_the_measures_judges_the_least_there_can_be() -> None:
    """In how many rows of which group a value is missing, nobody knows before it is opened."""
    both = listed(missing=0.1)
    asked = ask(("branch",), LATE, KNOWN, both=both)
    gone, smallest = joined(asked)["late"].null_count, min(expected(asked)["rows"].to_pylist())
    assert 0 < gone < smallest
    raw = asked.compute()
    judged = {name: count for name, count in raw["operator"].gate_inputs.items() if name.startswith("group.sealed")}
    assert judged == {"group.sealed.0": smallest - gone, "group.sealed.1": smallest - gone}
    assert not [name for name in raw["bank"].gate_inputs if "sealed" in name]
    withheld(ask(("branch",), LATE, KNOWN, both=both, held=at_least(smallest - gone + 1)), "sealed.0 is below")


def test_what_only_the_opened_table_shows_is_judged_once_more() -> None:
    """A few rows of a group lack the sealed column: a table without it would differ by these people."""
    both = listed(missing=0.1)
    table = expected(ask(("branch",), KNOWN, both=both))
    lacking = [n - known for n, known in zip(table["rows"].to_pylist(), table["known"].to_pylist(), strict=True)]
    assert min(lacking) > 0
    asked = ask(("branch",), LATE, both=both, held=at_least(min(lacking) + 1))
    raw = asked.reveal(asked.compute())
    with pytest.raises(OutputWithheld, match="above 0 and below"):
        asked.release(raw)


# --- amounts that stand out, and who is behind the numbers ----------------------------------------------------------


def test_the_side_of_the_measures_guesses_whether_somebody_stands_out() -> None:
    """It knows amounts, and not whose group they are in: as if the two largest were in the smallest."""
    both = listed()
    asked = ask(("branch",), LATE, both=both)
    late = sorted(joined(asked)["late"].to_pylist(), reverse=True)
    smallest = min(expected(asked)["rows"].to_pylist())
    rest = sum(late[2:]) * (smallest - 2) // (len(late) - 2)
    raw = asked.compute()
    inputs = raw["operator"].gate_inputs
    assert inputs["remainder.late"] == 1000 * rest // late[0]
    assert inputs["top.late"] == -(-1000 * (late[0] + late[1]) // (late[0] + late[1] + rest))
    assert not [name for name in raw["bank"].gate_inputs if name.startswith(("top.", "remainder."))]


def test_one_large_value_withholds_whichever_group_it_is_in() -> None:
    """datashield/dsBase#250"""
    bank, operator = listed()
    ages = [8] * 90
    ages[40] = 4_000_000
    both = (bank, operator.set_column(1, "late", pa.array(ages, pa.int64())))
    rules = {"outputs": tuple(replace(rule, top_two=850, remainder=100) for rule in HELD.outputs)}
    wide = {"measures": (*RANGES[:2], MeasureRange("late", 0, 5_000_000), RANGES[3])}
    withheld(ask(("branch",), LATE, both=both, held={**rules, **wide}), "more than 850 permille of late")
    ages[40] = 8
    both = (bank, operator.set_column(1, "late", pa.array(ages, pa.int64())))
    assert ask(("branch",), LATE, both=both, held={**rules, **wide}).run()


def test_the_side_of_the_groups_judges_its_own_measures_exactly() -> None:
    asked = ask(("util_band",), DEFAULTS, LATE)
    groups: dict[int, list[int]] = {}
    whole = joined(asked)
    for use, late in zip(whole["util"].to_pylist(), whole["late"].to_pylist(), strict=True):
        groups.setdefault((use >= 20) + (use >= 50), []).append(late)
    parts = [sorted(own, reverse=True) for own in groups.values()]
    inputs = asked.compute()["operator"].gate_inputs
    assert inputs["top.late"] == max(-(-1000 * (own[0] + own[1]) // sum(own)) for own in parts)
    assert inputs["remainder.late"] == min(1000 * sum(own[2:]) // own[0] for own in parts)
    assert "top.defaults" not in inputs


def spelled(keys: list[str]) -> pa.Array:
    return pa.array([key.upper() for key in keys])


def test_each_side_says_of_whom_the_numbers_are_as_far_as_it_knows() -> None:
    asked = ask(("branch",), LATE, both=listed(elsewhere=(31, 32, 33)))
    raw = asked.compute()
    (told,) = raw["operator"].populations
    whole = joined(asked)
    assert (told.name, told.rows, told.size, told.is_whole) == (SHARED, len(whole), len(whole), False)
    assert told == Sketcher(b"o" * 32).of(SHARED, spelled(whole["id"].to_pylist()), len(whole))
    cells_of = {one.name: one for one in raw["bank"].populations}
    assert list(cells_of) == ["x", "y", "all"]
    for branch, own in (("x", ["x"]), ("y", ["y"]), ("all", ["x", "y"])):
        keys = [row["id"] for row in whole.to_pylist() if row["branch"] in own]
        assert cells_of[branch] == Sketcher(b"b" * 32).of(branch, spelled(keys), len(keys))


# --- parties that do not keep to it ---------------------------------------------------------------------------------


def on(label: str, make: Callable[[Message], Sequence[Message]]) -> Callable[[Message], Sequence[Message]]:
    return lambda message: make(message) if message.label == label else (message,)


def spoilt(body: Callable[[bytes], bytes]) -> Callable[[Message], Sequence[Message]]:
    return lambda message: (replace(message, body=body(message.body)),)


def numbers(*values: int) -> bytes:
    return np.array(values, "<i8").tobytes()


ABUSE: list[tuple[str, Any, type[SandboxError], str]] = [
    ("zeros for ciphertexts", on("cipher", spoilt(lambda b: bytes(len(b)))), ProtocolFailed, "bank"),
    ("noise for ciphertexts", on("cipher", spoilt(lambda b: b"\xff" * len(b))), ProtocolFailed, "bank"),
    ("a row less", on("cipher", spoilt(lambda b: b[512:])), ProtocolFailed, "bank"),
    ("a batch twice", on("cipher", lambda m: (m, m)), ProtocolFailed, "bank"),
    ("no key", on("key", spoilt(lambda b: b[:-1])), ProtocolFailed, "bank"),
    ("another key", on("key", spoilt(lambda b: paillier(3072).public.to_bytes())), PartyFailed, "bank"),
    ("more rows than are shared", on("counts", spoilt(lambda b: numbers(1000, 1, 1, 0))), ProtocolFailed, "operator"),
    ("fewer rows than are shared", on("counts", spoilt(lambda b: numbers(1, 1, 1, 0))), ProtocolFailed, "operator"),
    ("rows below none", on("counts", spoilt(lambda b: numbers(-5, 30, 30, 5))), ProtocolFailed, "operator"),
    ("numbers of other groups", on("counts", spoilt(lambda b: b[:-8])), ProtocolFailed, "operator"),
    ("numbers twice", on("counts", lambda m: (m, m)), ProtocolFailed, "operator"),
    ("no ciphertexts back", on("masked", spoilt(lambda b: b"")), ProtocolFailed, "operator"),
    ("one more to decrypt", on("masked", spoilt(lambda b: b + b[:512])), ProtocolFailed, "operator"),
    ("zeros to decrypt", on("masked", spoilt(lambda b: bytes(len(b)))), ProtocolFailed, "operator"),
    ("another to decrypt later", on("masked", lambda m: (m, m)), ProtocolFailed, "operator"),
]


@pytest.mark.parametrize(("change", "kind", "party"), [a[1:] for a in ABUSE], ids=[a[0] for a in ABUSE])
def test_whoever_departs_from_it_is_named(change: Any, kind: type[SandboxError], party: str) -> None:
    asked = ask(("util_band",), DEFAULTS, change=change)
    with pytest.raises(kind) as refusal:
        asked.compute()
    assert (refusal.value.party, refusal.value.stage) == (party, "compute")
    assert not [m for m in asked.said if m.label == "share"]


def share_with(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda body: json.dumps({**json.loads(body), **changes}).encode()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda b: b"no share",
        lambda b: b"[]",
        lambda b: b"[" * 100_000,
        share_with(hiding="zz"),
        share_with(hiding="ab" * 256),
        share_with(hiding=""),
        share_with(counts="00" * 8),
        share_with(sums=[]),
        share_with(sums=[["1"]]),
        share_with(sums=[["1", "2", "x"]]),
        share_with(sums=[["1", "2", "1000000"]]),
        share_with(sums=[["-1", "2", "3"]]),
        lambda b: json.dumps({"counts": json.loads(b)["counts"]}).encode(),
    ],
)
def test_a_share_that_is_none_is_refused_by_name(spoil: Any) -> None:
    asked = ask(("util_band",), DEFAULTS, LATE)
    raw = asked.compute()
    asked.change = on("share", spoilt(spoil))
    with pytest.raises(ProtocolFailed) as refusal:
        asked.reveal(raw)
    assert (refusal.value.party, refusal.value.stage) == ("operator", "reveal")
    assert ("bank", JOB, "totals") not in asked.artefacts


def test_other_numbers_of_rows_in_the_share_than_were_judged_are_refused() -> None:
    """The measure side's gate judged what it was told: the share cannot bring other numbers afterwards."""
    asked = ask(("util_band",), DEFAULTS)
    raw = asked.compute()
    told = np.frombuffer(asked.heard("bank", "counts")[0], "<i8")
    other = (told + np.array([1, 0, 0, 0])).astype("<i8").tobytes().hex()
    asked.change = on("share", spoilt(share_with(counts=other)))
    with pytest.raises(ProtocolFailed, match="than were judged") as refusal:
        asked.reveal(raw)
    assert (refusal.value.party, refusal.value.stage) == ("operator", "reveal")


def test_hiding_of_another_run_opens_nothing() -> None:
    asked, other = ask(("util_band",), DEFAULTS), ask(("util_band",), DEFAULTS)
    raw = asked.compute()
    other.compute()
    asked.artefacts["operator", JOB, "share-for-bank"] = other.artefacts["operator", JOB, "share-for-bank"]
    with pytest.raises(ProtocolFailed) as refusal:
        asked.reveal(raw)
    assert ("bank", JOB, "totals") not in asked.artefacts
    assert (refusal.value.party, refusal.value.stage) == ("operator", "reveal")


@pytest.mark.parametrize(("here", "away"), [("bank", "operator"), ("operator", "bank")])
def test_a_side_that_does_not_come_is_named(here: str, away: str) -> None:
    asked = ask(("util_band",), DEFAULTS, deadline_s=1.0)
    (error,) = asked.stage("compute", [here]).values()
    assert isinstance(error, DeadlinePassed) and (error.party, error.stage) == (away, "compute")


@pytest.mark.parametrize(
    ("away", "label"), [("bank", "key"), ("bank", "cipher"), ("operator", "counts"), ("operator", "masked")]
)
def test_a_side_that_goes_away_is_named_wherever_it_was(away: str, label: str) -> None:
    asked = ask(("util_band",), DEFAULTS, change=leaving(away, label), deadline_s=2.0)
    ((here, error),) = asked.stage("compute").items()
    assert here != away and isinstance(error, DeadlinePassed)
    assert (error.party, error.stage) == (away, "compute")
    assert {key[2] for key in asked.artefacts if key[1] == JOB} <= {"shared"}


def test_a_value_outside_its_range_ends_it_without_a_ciphertext() -> None:
    late = MeasureRange("late", 0, 8)
    asked = ask(("branch",), LATE, held={"measures": (*RANGES[:2], late, RANGES[3])})
    with pytest.raises(WrongState, match="'late' is outside"):
        asked.compute()
    assert not asked.said
