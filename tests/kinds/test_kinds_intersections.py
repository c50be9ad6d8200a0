"""Every output of an intersection against the plain answer, what each side hears of it, and what ends it early."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kind_parties import JOB, NAMES, Message, Room, good, paillier, ref, room, scenario

from sandbox.errors import InvalidSpec, OutputWithheld, PartyFailed, ProtocolFailed, SandboxError
from sandbox.kinds import psi
from sandbox.model import Measure, MeasureRange, OutputClass, PsiEngine, PsiOutput, PsiSpec, Statistic

RANGES = (MeasureRange("late", -2, 9), MeasureRange("owed", 0, 10_000_000, 2))
FIELDS = [("income",), ("late", "owed", "city"), ("tax",)]
LATE, OWED = Measure("late", Statistic.SUM, "late"), Measure("owed", Statistic.MEAN, "owed")
SM2, X25519 = "ecdh-sm2", "ecdh-x25519"


def people(names: Sequence[str], seed: int) -> pa.Table:
    random = np.random.default_rng(seed)
    count = len(names)
    owed = [Decimal(int(n)) / 100 for n in random.integers(0, 10_000_000, count)]
    return pa.table(
        {
            "id": pa.array(random.permutation(np.array(names, dtype=object)).tolist(), pa.string()),
            "income": pa.array(random.integers(0, 1000, count), pa.int64()),
            "late": pa.array(random.integers(-2, 10, count), pa.int64(), mask=random.random(count) < 0.2),
            "owed": pa.array(owed, pa.decimal128(38, 10)),
            "city": random.choice(["a", "b"], count).tolist(),
            "tax": pa.array(random.integers(0, 9, count), pa.int64()),
        }
    )


def names(first: int, last: int) -> list[str]:
    return [f"person-{n:04d}" for n in range(first, last)]


def ask(
    output: PsiOutput = PsiOutput.ALIGNED,
    engine: str = SM2,
    sets: Sequence[Sequence[str]] = (names(0, 60), names(20, 100)),
    *,
    minimum: int = 0,
    seed: int = 5,
    **options: Any,
) -> Room:
    kind = PsiSpec(
        ref(NAMES[0]),
        ref(NAMES[1]),
        PsiEngine.PREPARED_SM2 if engine == "prepared-sm2" else PsiEngine.AUTO,
        output,
        options.pop("measures", (LATE, OWED) if output is PsiOutput.SUMS else ()),
        options.pop("columns", ("city", "late") if output is PsiOutput.JOINED else ()),
        ref(NAMES[2]) if len(sets) == 3 else None,
    )
    engine = {PsiOutput.SIZE: "count-sm2", PsiOutput.SUMS: "loads-sm2"}.get(output, engine)
    held = scenario(FIELDS[: len(sets)], (), RANGES, minimum)
    return room(kind, held, [people(own, seed + n) for n, own in enumerate(sets)], engine, **options)


def shared(asked: Room) -> set[str]:
    sets = [set(spelled(one)) for one in asked.tables.values()]
    return set.intersection(*sets)


def spelled(table: pa.Table) -> list[str]:
    return [name.upper() for name in table["id"].to_pylist()]


def aligned(asked: Room, party: str) -> list[str]:
    """Whom a party's kept positions name, in their sequence."""
    positions = np.frombuffer(asked.artefacts[party, JOB, "alignment"], "<i8")
    return [spelled(asked.tables[party])[place] for place in positions]


# --- which rows -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [SM2, X25519])
def test_both_owners_keep_the_same_people_in_the_same_sequence(engine: str) -> None:
    asked = ask(engine=engine)
    assert asked.run() == {"aligned": {"aligned": 40}}
    assert aligned(asked, "bank") == aligned(asked, "operator") and set(aligned(asked, "bank")) == shared(asked)
    assert set(asked.artefacts) == {("bank", JOB, "alignment"), ("operator", JOB, "alignment")}


@pytest.mark.parametrize("engine", [SM2, X25519])
def test_in_parts_it_is_the_same(engine: str) -> None:
    sets = (names(0, 900), names(300, 1500))
    asked = ask(engine=engine, sets=sets)
    whole = asked.reveal(asked.compute())
    sequence = aligned(asked, "bank")
    raw = asked.in_parts(5)
    assert raw["bank"].gate_inputs == whole.gate_inputs == {"rows": 600, "group.shared": 600}
    assert raw["bank"].populations == whole.populations and raw["bank"].people == whole.people
    assert aligned(asked, "bank") == aligned(asked, "operator") == sequence
    parts = [asked.artefacts["bank", JOB, f"part-{n}"] for n in range(5)]
    assert all(parts) and b"".join(parts) == asked.artefacts["bank", JOB, "alignment"]


def test_a_part_that_failed_at_one_side_is_run_again_at_both() -> None:
    """The other side had finished it already; another attempt must find its keys still there."""
    asked = ask(sets=(names(0, 400), names(100, 500)))
    with tempfile.TemporaryDirectory() as folder:
        scratch = {party: str(Path(folder) / party) for party in asked.tables}
        for place in scratch.values():
            Path(place).mkdir(mode=0o700)
        good(asked.stage("split", parts=2, scratch=scratch))
        for part in (0, 0, 1, 1):
            good(asked.stage("compute", part=part, parts=2, scratch=scratch))
        done = good(asked.stage("gather", parts=2, scratch=scratch))
    assert done["bank"].gate_inputs["rows"] == 300
    assert aligned(asked, "bank") == aligned(asked, "operator")


@pytest.mark.parametrize("engine", [SM2, X25519])
def test_members_go_to_the_left_alone(engine: str) -> None:
    asked = ask(PsiOutput.MEMBERS, engine)
    left = asked.run()["members"]
    assert left.column_names == ["id"] and set(left["id"].to_pylist()) == shared(asked)
    assert {(party, name) for party, _, name in asked.artefacts} == {("bank", "found"), ("bank", "members")}
    assert int.from_bytes(asked.heard("operator", "size")[0], "big") == 40


def test_members_of_both_are_kept_at_both() -> None:
    asked = ask(PsiOutput.MEMBERS_BOTH)
    left = asked.run()["members"]["id"].to_pylist()
    assert left == aligned(asked, "bank") == aligned(asked, "operator")
    assert psi.keeps_alignment(asked.spec) and not psi.keeps_alignment(ask(PsiOutput.MEMBERS).spec)


@pytest.mark.parametrize("output", [PsiOutput.JOINED, PsiOutput.MEMBERS_BOTH, PsiOutput.MEMBERS, PsiOutput.ALIGNED])
def test_letters_are_asked_by_an_owner_that_knows_whose_rows_leave(output: PsiOutput) -> None:
    asked = ask(output)
    asked.compute()
    drawn = {party: json.loads(content) for (party, _, name), content in asked.artefacts.items() if name == "drawn"}
    if output in (PsiOutput.MEMBERS, PsiOutput.ALIGNED):  # it does not know them; none leave
        assert drawn == {}
    else:
        assert list(drawn) == ["operator"] and drawn["operator"] and set(drawn["operator"]) <= shared(asked)


def test_joined_rows_have_the_right_s_named_columns() -> None:
    asked = ask(PsiOutput.JOINED)
    left = asked.run()["joined"].to_pandas().set_index("id")
    own = asked.tables["operator"].to_pandas()
    own["id"] = own["id"].str.upper()
    own = own.set_index("id")
    assert set(left.index) == shared(asked) and list(left.columns) == ["city", "late"]
    assert (left["city"] == own.loc[left.index, "city"]).all()
    assert left["late"].equals(own.loc[left.index, "late"].astype(left["late"].dtype))
    assert asked.plan.parties[0].fields == () and asked.plan.parties[1].fields == ("city", "late")


def test_the_joined_columns_wait_for_the_grants() -> None:
    asked = ask(PsiOutput.JOINED)
    raw = asked.compute()
    assert not [m for m in asked.said if m.label == "share"]
    assert {(party, name) for party, _, name in asked.artefacts} == {
        ("bank", "found"),
        ("operator", "drawn"),
        ("operator", "share-for-bank"),
    }
    sink = pa.BufferOutputStream()
    for table in (
        pa.table({"city": ["a"] * 40}),
        pa.table({"late": [1] * 40, "city": ["a"] * 40}),
        pa.table({"city": ["a"] * 39, "late": [1] * 39}),
    ):
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        asked.artefacts["operator", JOB, "share-for-bank"] = bytes(sink.getvalue())
        with pytest.raises(ProtocolFailed) as refusal:
            asked.reveal(raw)
        assert (refusal.value.party, refusal.value.stage) == ("operator", "reveal")


@given(st.sets(st.integers(0, 50), min_size=1, max_size=30), st.sets(st.integers(0, 50), min_size=1, max_size=30))
@settings(max_examples=8, deadline=None)
def test_any_two_sets(left: set[int], right: set[int]) -> None:
    sets = tuple([f"n{n}" for n in own] for own in (left, right))
    for output, name in ((PsiOutput.ALIGNED, "aligned"), (PsiOutput.SIZE, "size")):
        asked = ask(output, sets=sets)
        raw = asked.compute()
        assert {numbers.gate_inputs["rows"] for numbers in raw.values()} == {len(left & right)}
        assert raw["bank"].figures == {name: float(len(left & right))}


# --- three parties --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [SM2, X25519])
def test_three_are_aligned_to_the_same_people_in_the_same_sequence(engine: str) -> None:
    asked = ask(engine=engine, sets=(names(0, 60), names(20, 100), names(30, 50)))
    raw = asked.compute()
    assert {numbers.gate_inputs["rows"] for numbers in raw.values()} == {20}
    found = [aligned(asked, party) for party in asked.tables]
    assert found[0] == found[1] == found[2] and set(found[0]) == shared(asked)


@pytest.mark.parametrize(
    ("third", "count"), [(names(200, 210), 0), (names(0, 10), 0), (names(20, 60), 40), (names(55, 300), 5)]
)
def test_three_with_any_overlap(third: list[str], count: int) -> None:
    asked = ask(sets=(names(0, 60), names(20, 100), third))
    raw = asked.compute()
    assert {numbers.gate_inputs["rows"] for numbers in raw.values()} == {count}
    assert set(aligned(asked, "witness")) == shared(asked)


def test_the_third_hears_only_the_left_and_how_many_the_two_share() -> None:
    asked = ask(sets=(names(0, 60), names(20, 100), names(30, 50)))
    asked.compute()
    assert {(m.sender, m.label) for m in asked.said if m.to == "witness"} == {("bank", "size"), ("bank", "engine")}
    assert asked.heard("witness", "size") == [(40).to_bytes(8, "big")]
    assert not asked.heard("operator", sender="witness")
    told = psi.KIND.reveals(asked.spec, asked.plan.parties, asked.scenario, SM2)
    assert [reveal.party for reveal in told] == ["bank", "operator", "witness", "recipient"]
    assert "how many rows the first two share" in told[2].what


def test_a_list_of_the_shared_rows_of_another_length_ends_it() -> None:
    def change(message: Message) -> Sequence[Message]:
        return (replace(message, body=message.body[:-1]),) if message.label == "held" else (message,)

    asked = ask(sets=(names(0, 60), names(20, 100), names(30, 50)), change=change)
    with pytest.raises(ProtocolFailed, match="told for others") as refusal:
        asked.compute()
    assert (refusal.value.party, refusal.value.stage) == ("bank", "compute")


def test_more_rows_shared_by_two_than_they_have_is_refused_by_the_third() -> None:
    def change(message: Message) -> Sequence[Message]:
        return (replace(message, body=bytes(7) + b"="),) if message.label == "size" else (message,)

    asked = ask(sets=(names(0, 60), names(20, 100), names(30, 50)), change=change)
    with pytest.raises(ProtocolFailed, match="shared by two") as refusal:
        asked.compute()
    assert (refusal.value.party, refusal.value.stage) == ("bank", "compute")


# --- how many, and sums ---------------------------------------------------------------------------------------------


def test_the_size_and_nothing_of_the_rows() -> None:
    asked = ask(PsiOutput.SIZE)
    assert asked.run() == {"size": {"size": 40}}
    assert asked.artefacts == {}


def plain_sums(asked: Room) -> dict[str, Any]:
    own = asked.tables["operator"]
    rows = [row for row in own.to_pylist() if row["id"].upper() in shared(asked)]
    owed = [row["owed"] for row in rows]
    return {
        "rows": len(rows),
        "late": sum(row["late"] for row in rows if row["late"] is not None),
        "owed": sum(owed) / len(owed),
    }


def test_sums_and_means_over_the_shared_rows() -> None:
    asked = ask(PsiOutput.SUMS)
    (row,) = asked.run()["sums"].to_pylist()
    plain = plain_sums(asked)
    assert (row["rows"], row["late"]) == (plain["rows"], plain["late"])
    assert row["owed"] == pytest.approx(float(plain["owed"]), abs=0.0051)
    kept = {(party, name) for party, _, name in asked.artefacts}
    assert {("bank", "hiding"), ("operator", "share-for-bank")} < kept


def test_a_sum_that_one_value_tells_is_withheld() -> None:
    """private-join-and-compute: whether somebody of four millions is shared, the sum of the others would show."""
    table = people(names(20, 100), 6)
    table = table.set_column(2, "late", pa.array([3] * 80, pa.int64()))
    strict = {"top_two": 850, "remainder": 100, "min_group": 10}
    wide = (MeasureRange("late", 0, 5_000_000), RANGES[1])

    def summed(values: pa.Table) -> Room:
        held = scenario(FIELDS[:2], (), wide)
        held = replace(held, outputs=tuple(replace(one, **strict) for one in held.outputs))
        kind = PsiSpec(ref("bank"), ref("operator"), PsiEngine.AUTO, PsiOutput.SUMS, (LATE,))
        return room(kind, held, [people(names(0, 60), 5), values], "loads-sm2")

    inputs = summed(table).compute()["operator"].gate_inputs
    assert (inputs["top.late"], inputs["remainder.late"]) == (50, 38_000)  # 2 and 38 of 40 times 3
    assert summed(table).run()["sums"]["late"].to_pylist() == [120.0]
    for row in (0, 79):  # whether it is shared or not
        values = [4_000_000 if at == row else 3 for at in range(80)]
        asked = summed(table.set_column(2, "late", pa.array(values, pa.int64())))
        raw = asked.compute()
        with pytest.raises(OutputWithheld, match="permille of late"):
            asked.reveal(raw)
        assert not [m for m in asked.said if m.label == "share"]


def test_a_row_of_many_sums_takes_several_ciphertexts() -> None:
    columns = tuple(f"wide{n}" for n in range(16))
    measures = tuple(Measure(f"m{n}", Statistic.SUM, column) for n, column in enumerate(columns))
    bank, operator = scenario(FIELDS[:2]).datasets
    held = replace(
        scenario(FIELDS[:2], (), tuple(MeasureRange(column, -(1 << 61), 1 << 61) for column in columns)),
        datasets=(bank, replace(operator, fields=columns)),
    )
    tables = [people(names(0, 12), 1), people(names(4, 20), 2)]
    for number, column in enumerate(columns):
        values = [(-1) ** row * ((1 << 47) - row * number) for row in range(16)]
        tables[1] = tables[1].append_column(column, pa.array(values, pa.int64()))
    kind = PsiSpec(ref("bank"), ref("operator"), PsiEngine.AUTO, PsiOutput.SUMS, measures)
    asked = room(kind, held, tables, "loads-sm2")
    (row,) = asked.exact().to_pylist()
    common = [theirs for theirs in tables[1].to_pylist() if theirs["id"].upper() in shared(asked)]
    assert len(common) == 8
    for number, column in enumerate(columns):
        assert row[f"m{number}"] == float(sum(theirs[column] for theirs in common))
    assert len(asked.artefacts["bank", JOB, "hiding"]) > 256


def test_neither_side_sees_a_row_of_the_other() -> None:
    rooms = [ask(PsiOutput.SUMS, salt=bytes(32)) for _ in range(2)]
    for asked in rooms:
        asked.run()
        clear = [name.encode() for one in asked.tables.values() for name in (*one["id"].to_pylist(), *spelled(one))]
        assert not [m for m in asked.said if any(name in m.body for name in clear)]
        # as many loads as the right has rows, whatever is common
        loads = [b for b in asked.heard("bank", "engine") if len(b) and len(b) % 512 == 0]
        assert sum(map(len, loads)) == 80 * 512
        share = asked.artefacts["bank", JOB, "share-from-operator"]
        assert int.from_bytes(share[:256], "big").bit_length() > 1900  # a sum under a uniform number
    said = [
        {m.body for m in asked.said if m.label in ("engine", "masked", "share") and len(m.body) > 40} for asked in rooms
    ]
    assert said[0] and not said[0] & said[1]


@pytest.mark.parametrize("output", [PsiOutput.SIZE, PsiOutput.SUMS])
def test_too_few_are_withheld_at_both_and_of_sums_nothing_was_sent(output: PsiOutput) -> None:
    asked = ask(output, sets=(names(0, 60), names(51, 100)), minimum=10)
    if output is PsiOutput.SIZE:
        raw = asked.compute()
        with pytest.raises(OutputWithheld):
            asked.reveal(raw)
        return
    ended = asked.stage("compute")
    assert all(isinstance(error, SandboxError) for error in ended.values())
    assert any(isinstance(error, OutputWithheld) and error.tell == OutputWithheld.public for error in ended.values())
    assert not [m for m in asked.said if m.label in ("masked", "share")]
    assert not [b for b in asked.heard("bank", "engine") if len(b) >= 512 * 49]
    assert asked.artefacts == {}
    enough = ask(output, sets=(names(0, 60), names(50, 100)), minimum=10, measures=(OWED,))
    assert enough.run()["sums"]["rows"].to_pylist() == [10]


def test_too_few_with_a_value_are_withheld_though_enough_are_shared() -> None:
    """The right judges the least there can be: in how many common rows a value is missing nobody knows yet."""
    asked = ask(PsiOutput.SUMS, sets=(names(0, 60), names(50, 100)), minimum=10)
    missing = asked.tables["operator"]["late"].null_count
    assert missing and len(shared(asked)) == 10
    raw = asked.compute()
    judged = raw["operator"].gate_inputs
    assert (judged["group.shared"], judged["group.sealed.0"], judged["group.sealed.1"]) == (10, 10 - missing, 10)
    with pytest.raises(OutputWithheld):
        asked.reveal(raw)
    assert not [m for m in asked.said if m.label == "share"]


def test_a_few_shared_people_without_a_value_are_withheld_at_the_last_step() -> None:
    """Sums with and without them would differ by exactly these people."""
    asked = ask(PsiOutput.SUMS, measures=(LATE,), sets=(names(0, 60), names(10, 100)))
    have = [row for row in asked.tables["operator"].to_pylist() if row["id"].upper() in shared(asked)]
    lacking = sum(row["late"] is None for row in have)
    total = asked.tables["operator"]["late"].null_count
    assert 0 < lacking < len(have) - total
    for minimum, passes in ((lacking, True), (lacking + 1, False)):
        asked = ask(PsiOutput.SUMS, measures=(LATE,), sets=(names(0, 60), names(10, 100)), minimum=minimum)
        raw = asked.reveal(asked.compute())
        if passes:
            assert asked.release(raw)
            continue
        with pytest.raises(OutputWithheld, match="above 0 and below"):
            asked.release(raw)


# --- a set prepared once --------------------------------------------------------------------------------------------


FEW_AND_MANY = (names(0, 12), names(4, 200))


def prepared(caches: Any = None, sets: Any = FEW_AND_MANY, **options: Any) -> Room:
    asked = ask(PsiOutput.MEMBERS, "prepared-sm2", sets, **options)
    asked.caches = {} if caches is None else caches
    return asked


def sent(asked: Room) -> int:
    return sum(len(m.body) for m in asked.said if m.label == "prepared" and m.sender == "operator")


def test_a_prepared_set_is_sent_once_and_asked_often() -> None:
    first = prepared()
    assert set(first.run()["members"]["id"].to_pylist()) == shared(first)
    assert sent(first) > 12 * 196
    second = prepared(first.caches, (names(190, 220), names(4, 200)))
    assert set(second.run()["members"]["id"].to_pylist()) == shared(second) and len(shared(second)) == 10
    assert [m.body for m in second.said if m.label == "prepared" and m.sender == "operator"] == [b"known"]
    asked = [b"".join(m.body for m in one.said if m.label == "engine") for one in (first, second)]
    assert len(asked[1]) < 33 * 30 * 2 + 200
    third = prepared(first.caches)
    assert set(third.run()["members"]["id"].to_pylist()) == shared(first)
    points = [{m.body for m in one.said if m.label == "engine" and not len(m.body) % 33} for one in (first, third)]
    assert len(points[0]) == 2 and not points[0] & points[1]  # the same keys, asked about again, look new


def test_another_version_or_scenario_is_prepared_anew() -> None:
    first = prepared()
    first.run()
    right = first.plan.parties[1]
    for change in (
        {"parties": (first.plan.parties[0], replace(right, content_hash=b"n" * 32))},
        {"scenario_digest": b"S" * 32},
    ):
        other = prepared(first.caches)
        other.plan = replace(other.plan, **change)
        other.run()
        assert sent(other) > 12 * 196
    assert {party: len(held) for party, held in first.caches.items()} == {"bank": 3, "operator": 3}


@pytest.mark.parametrize("who", ["bank", "operator"])
def test_a_side_that_lost_its_copy_gets_a_new_one(who: str) -> None:
    first = prepared()
    first.run()
    first.caches[who].clear()
    again = prepared(first.caches)
    assert set(again.run()["members"]["id"].to_pylist()) == shared(again)
    assert sent(again) > 12 * 196
    third = prepared(first.caches)
    third.run()
    assert sent(third) == len(b"known")


def test_a_copy_of_another_preparation_is_replaced() -> None:
    one, two = prepared(), prepared()
    one.run()
    two.run()
    mixed = prepared({"bank": one.caches["bank"], "operator": two.caches["operator"]})
    assert set(mixed.run()["members"]["id"].to_pylist()) == shared(mixed)
    assert sent(mixed) > 12 * 196


PREPARED_ABUSE: list[tuple[str, Callable[[bytes], bytes], type[SandboxError]]] = [
    ("nothing is known here", lambda b: b"known" if len(b) == 8 else b, ProtocolFailed),
    ("an impossible size", lambda b: (1 << 40).to_bytes(8, "big") if len(b) == 8 else b, ProtocolFailed),
    ("no size", lambda b: bytes(8) if len(b) == 8 else b, ProtocolFailed),
    ("shorter than announced", lambda b: b if len(b) == 8 else b[:-12], ProtocolFailed),
    ("damaged", lambda b: b if len(b) == 8 else b[:-1] + bytes([b[-1] ^ 1]), ProtocolFailed),
]


@pytest.mark.parametrize(("spoil", "kind"), [a[1:] for a in PREPARED_ABUSE], ids=[a[0] for a in PREPARED_ABUSE])
def test_a_preparation_that_is_none_is_refused_and_not_kept(spoil: Any, kind: type[SandboxError]) -> None:
    def change(message: Message) -> Sequence[Message]:
        if (message.label, message.sender) != ("prepared", "operator"):
            return (message,)
        return (replace(message, body=spoil(message.body)),)

    asked = prepared(change=change)
    with pytest.raises(kind) as refusal:
        asked.compute()
    assert (refusal.value.party, refusal.value.stage) == ("operator", "compute")
    assert not asked.caches.get("bank")


def test_a_preparation_of_other_rows_than_committed_is_refused_and_not_kept() -> None:
    smaller = prepared(sets=(names(0, 12), names(4, 150)))
    smaller.run()
    size, content = smaller.heard("bank", "prepared")

    def change(message: Message) -> Sequence[Message]:
        if (message.label, message.sender) != ("prepared", "operator"):
            return (message,)
        return (replace(message, body=size if len(message.body) == 8 else content),)

    asked = prepared(change=change)
    with pytest.raises(ProtocolFailed, match="impossible size") as refusal:
        asked.compute()
    assert (refusal.value.party, refusal.value.stage) == ("operator", "compute")
    assert not asked.caches.get("bank")


def test_a_kept_preparation_of_other_rows_than_committed_is_refused() -> None:
    first = prepared()
    first.run()
    other = prepared(first.caches, (names(0, 12), names(4, 150)))  # the same content hash, fewer rows
    with pytest.raises(ProtocolFailed, match="another number of rows") as refusal:
        other.compute()
    assert refusal.value.party == "operator"


# --- parties that do not keep to it ---------------------------------------------------------------------------------


def on(label: str, make: Callable[[Message], Sequence[Message]], sender: str = "") -> Callable[[Message], Any]:
    def change(message: Message) -> Sequence[Message]:
        fits = message.label == label and sender in ("", message.sender)
        return make(message) if fits else (message,)

    return change


def body(make: Callable[[bytes], bytes]) -> Callable[[Message], Sequence[Message]]:
    return lambda message: (replace(message, body=make(message.body)),)


SUMS = PsiOutput.SUMS
ABUSE: dict[str, tuple[PsiOutput, Any, type[SandboxError], str]] = {
    "more than there are": (PsiOutput.SIZE, on("size", body(lambda b: bytes(7) + b"=")), ProtocolFailed, "bank"),
    "a size twice": (PsiOutput.SIZE, on("size", lambda m: (m, m)), ProtocolFailed, "bank"),
    "more members": (PsiOutput.MEMBERS, on("size", body(lambda b: bytes(7) + b"=")), ProtocolFailed, "bank"),
    "no key": (SUMS, on("key", body(lambda b: b"")), ProtocolFailed, "operator"),
    "a longer key": (SUMS, on("key", body(lambda b: paillier(3072).public.to_bytes())), PartyFailed, "operator"),
    "zeros to decrypt": (SUMS, on("masked", body(lambda b: bytes(len(b)))), ProtocolFailed, "bank"),
    "two to decrypt": (SUMS, on("masked", body(lambda b: b + b)), ProtocolFailed, "bank"),
    "another to decrypt later": (SUMS, on("masked", lambda m: (m, m)), ProtocolFailed, "bank"),
}


@pytest.mark.parametrize("case", ABUSE)
def test_whoever_departs_from_it_is_named(case: str) -> None:
    output, change, kind, party = ABUSE[case]
    asked = ask(output, change=change)  # 60 rows at the left
    with pytest.raises(kind) as refusal:
        asked.compute()
    assert (refusal.value.party, refusal.value.stage) == (party, "compute")
    assert not [m for m in asked.said if m.label == "share"]


@pytest.mark.parametrize("output", [PsiOutput.ALIGNED, PsiOutput.SIZE, PsiOutput.SUMS])
@pytest.mark.parametrize("spoil", ["noise", "short", "twice"])
def test_garbage_in_the_engines_words_ends_it(output: PsiOutput, spoil: str) -> None:
    """After the header, which is compared, every message is checked before a secret touches it."""
    seen = {"bank": 0, "operator": 0}

    def change(message: Message) -> Sequence[Message]:
        if message.label != "engine" or message.sender != "operator":
            return (message,)
        seen["operator"] += 1
        if seen["operator"] != 2:
            return (message,)
        made = {"noise": os.urandom(len(message.body)), "short": message.body[:-1]}
        return (message, message) if spoil == "twice" else (replace(message, body=made[spoil]),)

    asked = ask(output, change=change, sets=(names(0, 60), names(20, 100)))
    with pytest.raises((ProtocolFailed, PartyFailed)) as refusal:
        asked.compute()
    assert refusal.value.party == "operator"
    assert not [m for m in asked.said if m.label == "share"]
    assert ("bank", JOB, "alignment") not in asked.artefacts


def test_loads_that_are_no_ciphertexts_are_not_added_up() -> None:
    def change(message: Message) -> Sequence[Message]:
        if message.sender == "operator" and message.label == "engine" and len(message.body) == 80 * 512:
            return (replace(message, body=bytes(len(message.body))),)
        return (message,)

    asked = ask(PsiOutput.SUMS, change=change)
    with pytest.raises(ProtocolFailed):
        asked.compute()
    assert not [m for m in asked.said if m.label in ("masked", "share")]


def test_a_share_of_another_run_opens_nothing() -> None:
    asked, other = ask(PsiOutput.SUMS), ask(PsiOutput.SUMS)
    raw = asked.compute()
    other.compute()
    right = other.artefacts["operator", JOB, "share-for-bank"]
    for forged in (right, right + right, right[:-1], b""):
        asked.artefacts["operator", JOB, "share-for-bank"] = forged
        with pytest.raises(ProtocolFailed) as refusal:
            asked.reveal(raw)
        assert (refusal.value.party, refusal.value.stage) == ("operator", "reveal")
        assert ("bank", JOB, "sums") not in asked.artefacts


# --- what the kind declares -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"output": PsiOutput.MEMBERS, "third": ref("witness")}, "psi.third"),
        ({"measures": (LATE,)}, "psi.measures go with"),
        ({"output": PsiOutput.SUMS}, "psi.measures go with"),
        ({"output": PsiOutput.SUMS, "measures": (replace(LATE, statistic=Statistic.COUNT),)}, "sums and means"),
        ({"output": SUMS, "measures": (LATE, replace(OWED, column="late"))}, "two of sum, mean and variance"),
        ({"output": PsiOutput.SUMS, "measures": (replace(LATE, column="city"),)}, "no range for 'city'"),
        ({"columns": ("city",)}, "psi.columns"),
        ({"output": PsiOutput.JOINED}, "psi.columns"),
        ({"output": PsiOutput.JOINED, "columns": ("city", "city")}, "psi.columns"),
        ({"output": PsiOutput.JOINED, "columns": ("id",)}, "the name id is the key's"),
    ],
)  # fmt: skip
def test_a_spec_that_makes_no_sense_is_refused(changes: dict[str, Any], told: str) -> None:
    asked = ask()
    spec: Any = replace(asked.spec, kind=replace(asked.spec.kind, **changes))
    with pytest.raises(InvalidSpec) as refusal:
        psi.KIND.columns(spec, asked.scenario, asked.scenario.datasets)
    assert told in refusal.value.tell


def test_every_output_says_who_learns_what() -> None:
    said = {}
    for output in PsiOutput:
        asked = ask(output)
        told = psi.KIND.reveals(asked.spec, asked.plan.parties, asked.scenario, asked.plan.engine)
        assert [reveal.party for reveal in told] == ["bank", "operator", "recipient"]
        said[output] = [reveal.what for reveal in told]
    assert all("not which" in what for what in (*said[PsiOutput.SIZE][:2], *said[PsiOutput.SUMS][:2]))
    assert "not which" in said[PsiOutput.MEMBERS][1] and "which of its own" in said[PsiOutput.MEMBERS][0]
    assert "city, late" in said[PsiOutput.JOINED][0]
    kept = psi.KIND.reveals(ask(PsiOutput.MEMBERS).spec, ask().plan.parties, ask().scenario, "prepared-sm2")
    assert "encoded copy" in kept[0].what


def test_forms_name_every_column_and_rows_are_the_key() -> None:
    asked = ask(PsiOutput.JOINED)
    form = psi.KIND.form(asked.spec, asked.scenario, "joined")
    assert form is not None and form.names == ("id", "city", "late") and form.labels is None
    sums = psi.KIND.form(ask(PsiOutput.SUMS).spec, asked.scenario, "sums")
    assert sums is not None and sums.names == ("rows", "late", "owed") and sums.counts == {"rows"}
    assert psi.KIND.form(ask().spec, asked.scenario, "aligned") is None
    assert psi.KIND.outputs["joined"] is OutputClass.ROW_CONSENTED
