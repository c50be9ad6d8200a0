"""Totals over two, three and five contributors: as in the clear, and nobody sees anybody else's part."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kind_parties import JOB, NAMES, Message, Room, leaving, noted_threads, paillier, ref, room, scenario

from sandbox.errors import DeadlinePassed, OutputWithheld, PartyFailed, ProtocolFailed, SandboxError, WrongState
from sandbox.kinds import aggregate, cells, contributors
from sandbox.kinds.margins import Lines
from sandbox.model import AggregateSpec, Dimension, Measure, MeasureRange, Statistic
from sandbox.mpc.paillier import PrivateKey, PublicKey, generate

FIELDS = ("city", "age", "income", "hours")
CITY, AGE = Dimension("city", "city", ("a", "b", "c")), Dimension("age_band", "age", (), (30, 60))
RANGES = (MeasureRange("income", -50_000, 1_000_000, 2), MeasureRange("hours", 0, 20_000, 2))
MEASURES = (
    Measure("income", Statistic.SUM, "income"),
    Measure("hours", Statistic.MEAN, "hours"),
    Measure("worked", Statistic.WEIGHTED_SUM, "income", "hours"),
    Measure("told", Statistic.COUNT, "income"),
    Measure("ages", Statistic.HISTOGRAM, "age_band"),
)
TOLD, AGES = MEASURES[3], MEASURES[4]
SPREAD = Measure("spread", Statistic.VARIANCE, "income")


def people(seed: int, rows: int = 60) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "id": [f"{seed}-{n}" for n in range(rows)],
            "city": random.choice(["a", "b", "c", "elsewhere"], rows, p=[0.3, 0.3, 0.3, 0.1]),
            "age": random.integers(10, 90, rows),
            "cents": random.integers(-50_000, 1_000_001, rows),
            "hours": random.integers(0, 201, rows),
        }
    )
    frame["gone"] = random.random(rows) < 0.1
    return frame


def table(frame: pd.DataFrame) -> pa.Table:
    incomes = [None if gone else Decimal(int(n)) / 100 for n, gone in zip(frame["cents"], frame["gone"], strict=True)]
    return pa.table(
        {
            "id": pa.array(frame["id"], pa.string()),
            "city": pa.array(frame["city"], pa.string()),
            "age": pa.array(frame["age"], pa.int64()),
            "income": pa.array(incomes, pa.decimal128(38, 10)),
            "hours": pa.array(frame["hours"], pa.int64()),
        }
    )


def ask(
    frames: Sequence[pd.DataFrame],
    groups: tuple[str, ...] = ("city",),
    measures: tuple[Measure, ...] = MEASURES,
    *,
    minimum: int = 0,
    recipient: str = "",
    bits: int = 2048,
    margins: bool = False,
    rule: dict[str, Any] | None = None,
    **options: Any,
) -> Room:
    held = scenario([FIELDS] * len(frames), (CITY, AGE), RANGES, minimum, recipient)
    held = replace(held, outputs=tuple(replace(one, **(rule or {})) for one in held.outputs))
    spec = AggregateSpec(tuple(map(ref, NAMES[: len(frames)])), "", groups, measures, bits, margins)
    return room(spec, held, [table(frame) for frame in frames], key_bits=bits, **options)


def expected(asked: Room) -> pa.Table:
    """The same table over everybody's rows in one place."""
    spec: Any = asked.spec.kind
    made = cells.shape(spec.groups, spec.measures, asked.scenario)
    lines = Lines.of(made, spec.margins)
    whole = pa.concat_tables([one.select(list(FIELDS)) for one in asked.tables.values()])
    placed = cells.group_codes(whole, made.dimensions)
    sums, counted = cells.prepare(whole, made.wanted)

    def totals(numbers: list[list[int]]) -> list[list[int]]:
        found: list[list[int]] = lines.totals(np.array(numbers, object).reshape(-1, made.cells)).tolist()
        return found

    everything = np.ones(whole.num_rows, np.bool_)
    return cells.statistics(
        made,
        totals([cells.grouped_counts(placed, everything, made.cells)])[0],
        totals([cells.grouped_counts(placed, one, made.cells) for one in counted]),
        totals([cells.grouped_sums(placed, one, made.cells) for one in sums]),
        lines.labels,
    )


@pytest.mark.parametrize("parties", [2, 3, 5])
def test_the_table_is_the_one_in_the_clear(parties: int) -> None:
    for measures in (MEASURES, (SPREAD,)):
        asked = ask([people(n) for n in range(parties)], measures=measures)
        assert asked.exact().equals(expected(asked))


def test_the_table_is_what_pandas_says() -> None:
    frames = [people(n, 80) for n in (7, 8, 9)]
    cells_of = ["city", "age_band"]
    found = ask(frames, ("city", "age_band")).exact().to_pandas().set_index(cells_of)
    spread = ask(frames, ("city", "age_band"), (SPREAD,)).exact().to_pandas().set_index(cells_of)
    whole = pd.concat(frames)
    whole["income"] = (whole["cents"] / 100).where(~whole["gone"])
    whole["age_band"] = pd.cut(whole["age"], [-1, 29, 59, 200], labels=cells.levels(AGE)).astype(str)
    whole = whole[whole["city"] != "elsewhere"]
    for group, own in whole.groupby(["city", "age_band"]):
        row = found.loc[group]
        assert (row["rows"], row["told"]) == (len(own), own["income"].count())
        assert row["income"] == pytest.approx(own["income"].sum(), abs=1e-6)
        assert row["hours"] == pytest.approx(own["hours"].mean(), abs=0.5e-2)
        assert spread.loc[group]["spread"] == pytest.approx(own["income"].var(), rel=1e-9)
        assert row["worked"] == pytest.approx((own["income"] * own["hours"]).sum(), abs=1e-6)
        assert row[f"ages: {group[1]}"] == len(own)
    assert found["rows"].sum() == len(whole)


@pytest.mark.parametrize("recipient", NAMES[:3])
def test_whoever_the_recipient_is_only_its_node_can_decrypt(recipient: str) -> None:
    asked = ask([people(n) for n in range(3)], recipient=recipient)
    assert asked.exact().equals(expected(asked))
    plan = asked.plan
    assert (contributors.key_holder(plan), contributors.aggregator(plan)) == (
        recipient,
        next(name for name in NAMES if name != recipient),
    )
    assert {m.to for m in asked.said if m.label == "cipher"} == {contributors.aggregator(plan)}
    assert [(m.sender, m.to) for m in asked.said if m.label == "share"] == [(contributors.aggregator(plan), recipient)]


def test_numbers_of_rows_alone_need_no_key() -> None:
    asked = ask([people(n) for n in range(3)], measures=(TOLD, AGES))
    assert asked.exact().equals(expected(asked))
    assert {m.label for m in asked.said} == {"seed", "counts"}


def test_without_groups_there_is_one_line() -> None:
    asked = ask([people(n) for n in range(3)], (), MEASURES[:2])
    assert asked.exact().equals(expected(asked)) and asked.exact().num_rows == 1


def test_a_long_key_and_a_party_without_rows() -> None:
    asked = ask([people(1), people(2, 0), people(3)], measures=MEASURES[:1], bits=3072)
    assert asked.exact().equals(expected(asked))
    assert len(asked.heard("operator", "cipher")[0]) % 768 == 0


@given(
    st.lists(st.integers(0, 40), min_size=2, max_size=4).filter(any),
    st.integers(0, 2**31),
    st.integers(1, 50),
    st.data(),
)
@settings(max_examples=6, deadline=None)
def test_any_sizes_and_tables(sizes: list[int], seed: int, batch: int, data: st.DataObject) -> None:
    groups = tuple(data.draw(st.lists(st.sampled_from(["city", "age_band"]), max_size=2, unique=True)))
    chosen = data.draw(st.lists(st.sampled_from(MEASURES), min_size=1, max_size=3, unique=True))
    asked = ask([people(seed + n, rows) for n, rows in enumerate(sizes)], groups, tuple(chosen), batch=batch)
    assert asked.exact().equals(expected(asked))


def test_what_leaves_is_rounded_and_judged() -> None:
    frames = [people(n) for n in range(3)]
    asked = ask(frames, measures=(MEASURES[1],), minimum=10)
    rules = tuple(replace(rule, round_to=10) for rule in asked.plan.outputs)
    asked.plan = replace(asked.plan, outputs=rules)
    left, exact = asked.run()["totals"], expected(asked)
    assert left.column_names == ["city", "rows", "hours"] and left["hours"].equals(exact["hours"])
    pairs = zip(left["rows"].to_pylist(), exact["rows"].to_pylist(), strict=True)
    assert all(told % 10 == 0 and abs(told - true) <= 5 for told, true in pairs)


# --- too few --------------------------------------------------------------------------------------------------------


def test_a_group_below_the_minimum_withholds_everything_and_nothing_is_opened() -> None:
    frames = [people(n) for n in range(3)]
    for frame in frames:
        frame["gone"], frame["city"] = False, frame["city"].replace("elsewhere", "a")
    smallest = min(expected(ask(frames))["rows"].to_pylist())
    assert ask(frames, measures=MEASURES[:1], minimum=smallest).run()
    withheld(ask(frames, measures=MEASURES[:1], minimum=smallest + 1), "is below")


def withheld(asked: Room, reason: str) -> None:
    raw = asked.compute()
    with pytest.raises(OutputWithheld, match=reason) as refusal:
        asked.reveal(raw)
    assert (refusal.value.tell, refusal.value.stage) == (OutputWithheld.public, "gate")
    assert "share" not in {m.label for m in asked.said}
    assert not [key for key in asked.artefacts if key[0] == "bank" and key[2] != "counts"]


def test_a_few_without_a_value_withhold_as_well() -> None:
    """The table with the measure and one without it would differ by exactly these people."""
    frames = [people(n) for n in range(3)]
    for frame in frames:
        frame["gone"], frame["city"] = False, frame["city"].replace("elsewhere", "a")
    frames[1].loc[frames[1].index[frames[1]["city"] == "b"][:3], "gone"] = True
    withheld(ask(frames, measures=(TOLD,), minimum=10), "rest.1.0 is above 0 and below 10")
    assert ask(frames, measures=(MEASURES[1],), minimum=10).run()  # of a column that all have
    assert ask(frames, measures=(TOLD,), minimum=3).run()


def test_a_few_in_no_group_withhold_as_well() -> None:
    frames = [people(n) for n in range(3)]
    for frame in frames:
        frame["gone"], frame["city"] = False, frame["city"].replace("elsewhere", "a")
    frames[2].loc[:4, "city"] = "elsewhere"
    withheld(ask(frames, measures=(MEASURES[1],), minimum=10), "rest.0 is above 0 and below 10")
    assert ask(frames, (), (MEASURES[1],), minimum=10).run()  # without groups they are in the one line
    assert ask(frames, measures=(MEASURES[1],), minimum=5).run()


# --- what each party sees -------------------------------------------------------------------------------------------


def own_counts(frame: pd.DataFrame, asked: Room) -> list[int]:
    """One contributor's numbers of rows, as it alone knows them."""
    spec: Any = asked.spec.kind
    made = cells.shape(spec.groups, spec.measures, asked.scenario)
    rows = table(frame)
    placed = cells.group_codes(rows, made.dimensions)
    _, counted = cells.prepare(rows, made.wanted)
    masks = [np.ones(rows.num_rows, np.bool_), *counted]
    listed = [count for mask in masks for count in cells.grouped_counts(placed, mask, made.cells)]
    return [*listed, *cells.rest_counts(rows, made.dimensions)]


def test_what_is_said_shows_no_count_and_is_new_every_time() -> None:
    frames = [people(n) for n in range(3)]
    rooms = [ask(frames, salt=bytes(32)) for _ in range(2)]
    for asked in rooms:
        asked.run()
    for asked in rooms:
        for sender, frame in zip(NAMES, frames, strict=False):
            true = own_counts(frame, asked)
            shown = {m.body for m in asked.said if m.sender == sender and m.label == "counts"}
            assert len(shown) == 2, "the same masked numbers go to everybody, and then whether somebody needs cover"
            lists = sorted((np.frombuffer(body, "<u8").tolist() for body in shown), key=len)
            assert len(lists[0]) == len(true) < len(lists[1])
            for words in lists:
                assert not set(words) & set(true)
                assert all(1 << 20 < word < (1 << 64) - (1 << 20) for word in words)
            apart = np.array(lists[0], np.uint64) - np.array(lists[1], np.uint64)[: len(true)]
            small = (apart < 1 << 20) | (apart > (1 << 64) - (1 << 20))
            assert not small.any(), "under the same masks the two would differ by what they hide"
    first, second = (sorted((m.sender, m.to, m.label, len(m.body)) for m in asked.said) for asked in rooms)
    assert first == second
    fresh = ("seed", "counts", "cipher", "share")
    old = {m.body for m in rooms[0].said if m.label in fresh}
    assert not old & {m.body for m in rooms[1].said if m.label in fresh}


def test_the_holder_of_the_key_would_see_noise_in_any_one_contribution() -> None:
    """Even who decrypts what only the aggregator gets learns no party's sums: they carry masks."""
    frames = [people(n) for n in range(3)]
    asked = ask(frames, measures=MEASURES[:2])
    asked.run()
    spec: Any = asked.spec.kind
    made = cells.shape(spec.groups, spec.measures, asked.scenario)
    layout = contributors._layout(_Assigned(asked), spec, made)  # type: ignore[arg-type]
    true = {int(value) for frame in frames for value in stored(frame, made)}
    for sender in ("bank", "witness"):
        (sent,) = asked.heard("operator", "cipher", sender)
        plain = paillier().decrypt(sent)
        slots = layout._read(plain)[..., 0].ravel()
        assert not true & {int(slot) for slot in slots}
        with pytest.raises(ProtocolFailed):
            layout.unpack(plain, np.zeros(made.cells, np.int64), made.cells)


class _Assigned:
    def __init__(self, asked: Room) -> None:
        self.plan, self.rows = asked.plan, {name: held.num_rows for name, held in asked.tables.items()}


def stored(frame: pd.DataFrame, made: cells.Shape) -> list[int]:
    """One party's sums as a slot would hold them without masks."""
    rows = table(frame)
    placed = cells.group_codes(rows, made.dimensions)
    sums, _ = cells.prepare(rows, made.wanted)
    counts = cells.grouped_counts(placed, np.ones(rows.num_rows, np.bool_), made.cells)
    lows = [min(low, 0) for low, _ in made.bounds]
    found = []
    for low, column in zip(lows, sums, strict=True):
        totals = cells.grouped_sums(placed, column, made.cells)
        found += [total - low * count for total, count in zip(totals, counts, strict=True)]
    return found


def test_masks_are_of_this_job_and_this_run_whatever_the_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    def fixed(task: Any, others: Sequence[str]) -> dict[str, bytes]:
        return {other: hashlib.sha256("|".join(sorted((task.me, other))).encode()).digest() for other in others}

    monkeypatch.setattr(contributors, "_agree_on_seeds", fixed)
    shown: list[set[bytes]] = []
    for job, salt in ((JOB, bytes(32)), (JOB, bytes(32)), (JOB, b"2" * 32), ("ef" * 16, bytes(32))):
        asked = ask([people(n) for n in range(3)], measures=MEASURES[:1], salt=salt)
        asked.plan = replace(asked.plan, job_id=job)
        asked.compute()
        shown.append({m.body for m in asked.said if m.label == "counts"})
    assert shown[0] == shown[1] and not shown[0] & shown[2] and not shown[0] & shown[3]


def test_work_is_spread_over_the_node_s_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = noted_threads(monkeypatch, {PublicKey: ("encrypt", "add", "rerandomise"), PrivateKey: ("decrypt",)})
    asked = ask([people(n) for n in range(3)], measures=MEASURES[:2], cores=2)
    assert asked.exact().equals(expected(asked))
    assert seen == {("encrypt", 2), ("add", 2), ("rerandomise", 2), ("decrypt", 2)}


def test_a_pair_s_secret_goes_to_that_pair_only() -> None:
    asked = ask([people(n) for n in range(5)], measures=MEASURES[:1])
    asked.compute()
    seeds = [m for m in asked.said if m.label == "seed"]
    assert len({m.body for m in seeds}) == len(seeds) == 10
    assert {frozenset((m.sender, m.to)) for m in seeds} == {frozenset((a, b)) for a in NAMES for b in NAMES if a != b}


def test_what_the_recipient_gets_is_not_what_the_aggregator_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Re-randomised: who knows two contributions as they were sent could otherwise divide them out."""
    made: list[bytes] = []
    encrypt = PublicKey.encrypt

    def noted(key: PublicKey, plaintexts: bytes, **options: Any) -> bytes:
        made.append(encrypt(key, plaintexts, **options))
        return made[-1]

    monkeypatch.setattr(PublicKey, "encrypt", noted)
    asked = ask([people(n) for n in range(3)], measures=MEASURES[:1])
    asked.compute()
    share, public = asked.artefacts["operator", JOB, "share-for-bank"], paillier().public
    total = public.add(public.add(made[0], made[1], fresh=False), made[2], fresh=False)
    assert len(made) == 3 and share != total
    assert paillier().decrypt(share) == paillier().decrypt(total)


# --- parties that do not keep to it ---------------------------------------------------------------------------------


Spoil = Callable[[bytes], bytes]


def on(label: str, sender: str, to: str, make: Callable[[Message], Sequence[Message]]) -> Callable[[Message], Any]:
    def change(message: Message) -> Sequence[Message]:
        return make(message) if (message.label, message.sender, message.to) == (label, sender, to) else (message,)

    return change


def spoilt(body: Spoil) -> Callable[[Message], Sequence[Message]]:
    return lambda message: (replace(message, body=body(message.body)),)


def twice(message: Message) -> Sequence[Message]:
    return (message, message)


def multiple(body: bytes) -> bytes:
    """A number with a factor of the modulus: no unit."""
    return paillier().factors()[0].to_bytes(SIZE, "big") + body[SIZE:]


SIZE = 512
ABUSE = {
    "zeros for ciphertexts": ("cipher", "witness", "operator", spoilt(lambda b: bytes(len(b)))),
    "noise for ciphertexts": ("cipher", "witness", "operator", spoilt(lambda b: b"\xff" * len(b))),
    "a multiple of a factor": ("cipher", "witness", "operator", spoilt(multiple)),
    "one ciphertext more": ("cipher", "witness", "operator", spoilt(lambda b: b + b[:SIZE])),
    "half a ciphertext": ("cipher", "bank", "operator", spoilt(lambda b: b[:-1])),
    "no ciphertexts": ("cipher", "bank", "operator", spoilt(lambda b: b"")),
    "a contribution twice": ("cipher", "witness", "operator", twice),
    "numbers twice": ("counts", "operator", "bank", twice),
    "a seed twice": ("seed", "bank", "operator", twice),
    "a short seed": ("seed", "bank", "witness", spoilt(lambda b: b[:-1])),
    "numbers of other groups": ("counts", "witness", "bank", spoilt(lambda b: b + bytes(8))),
    "no numbers at all": ("counts", "witness", "bank", spoilt(lambda b: b"")),
    "no key": ("key", "bank", "operator", spoilt(lambda b: b"key")),
    "half a key": ("key", "bank", "witness", spoilt(lambda b: b[:-1])),
}


@pytest.mark.parametrize("case", ABUSE)
def test_whoever_departs_from_it_is_named_and_nothing_is_opened(case: str) -> None:
    asked = ask([people(n) for n in range(3)], measures=MEASURES[:2], change=on(*ABUSE[case]))
    with pytest.raises(ProtocolFailed) as refusal:
        asked.compute()
    assert (refusal.value.party, refusal.value.stage) == (ABUSE[case][1], "compute")
    assert not [m for m in asked.said if m.label == "share"]


def test_a_longer_key_than_planned_is_refused() -> None:
    change = on("key", "bank", "witness", spoilt(lambda b: paillier(3072).public.to_bytes()))
    with pytest.raises(PartyFailed, match="another size than planned") as refusal:
        ask([people(n) for n in range(3)], measures=MEASURES[:2], change=change).compute()
    assert (refusal.value.party, refusal.value.stage) == ("bank", "compute")


def test_contributors_that_were_given_different_keys_end_it_before_a_sum_is_made() -> None:
    other = generate().public.to_bytes()
    for to in ("witness", "operator"):
        change = on("key", "bank", to, spoilt(lambda b: other))
        asked = ask([people(n) for n in range(3)], measures=MEASURES[:2], change=change)
        with pytest.raises(PartyFailed, match="under another key") as refusal:
            asked.compute()
        assert (refusal.value.party, refusal.value.stage) == ("witness", "compute")
        assert not [key for key in asked.artefacts if key[2].startswith("share")]


def test_numbers_that_do_not_add_up_end_it_though_of_many_nobody_can_say_whose_they_are() -> None:
    for count, sender, named in ((3, "witness", ""), (2, "operator", "operator")):
        change = on("counts", sender, "bank", spoilt(lambda b: os.urandom(len(b))))
        with pytest.raises(ProtocolFailed, match="do not add up") as refusal:
            ask([people(n) for n in range(count)], measures=MEASURES[:2], change=change).compute()
        assert (refusal.value.party, refusal.value.stage) == (named, "compute")


def test_a_person_counted_twice_or_not_at_all_does_not_add_up() -> None:
    def one_more(body: bytes) -> bytes:
        return bytes((np.frombuffer(body, "<u8") + np.eye(1, len(body) // 8, dtype=np.uint64)[0]).tobytes())

    change = on("counts", "witness", "bank", spoilt(one_more))
    with pytest.raises(ProtocolFailed, match="do not add up"):
        ask([people(n) for n in range(3)], measures=MEASURES[:2], change=change).compute()


def test_who_speaks_of_other_things_is_named_and_not_followed() -> None:
    change = on("counts", "witness", "operator", lambda m: (replace(m, label="gossip"),))
    asked = ask([people(n) for n in range(3)], measures=MEASURES[:2], change=change)
    with pytest.raises(ProtocolFailed, match="unknown label") as refusal:
        asked.compute()
    assert (refusal.value.party, refusal.value.stage) == ("witness", "compute")


def test_a_share_that_is_no_total_is_not_opened() -> None:
    for spoil in (lambda b: bytes(len(b)), lambda b: b[:-SIZE], lambda b: b + b):
        asked = ask([people(n) for n in range(3)], measures=MEASURES[:2])
        raw = asked.compute()
        asked.change = on("share", "operator", "bank", spoilt(spoil))
        with pytest.raises(ProtocolFailed) as refusal:
            asked.reveal(raw)
        assert refusal.value.party == "operator"
        assert (("bank", JOB, "totals")) not in asked.artefacts


def test_a_contribution_that_is_missing_or_comes_twice_leaves_noise_and_no_table() -> None:
    """The masks cancel over all contributors and over no part of them."""
    frames = [people(n) for n in range(3)]
    asked = ask(frames, measures=MEASURES[:1])
    raw = asked.compute()
    own, other = (asked.heard("operator", "cipher", sender)[0] for sender in ("bank", "witness"))
    public = paillier().public
    for forged in (own, public.add(own, other), public.add(own, own)):
        asked.artefacts["operator", JOB, "share-for-bank"] = forged
        with pytest.raises(ProtocolFailed) as refusal:
            asked.reveal(raw)
        assert refusal.value.stage == "reveal"  # who it was cannot be told
        assert ("bank", JOB, "totals") not in asked.artefacts


def test_a_contributor_that_does_not_come_is_named() -> None:
    asked = ask([people(n) for n in range(3)], measures=MEASURES[:1], deadline_s=1.0)
    ended = asked.stage("compute", ["bank", "operator"])
    named = [error for error in ended.values() if isinstance(error, DeadlinePassed)]
    assert named and {(error.party, error.stage) for error in named} == {("witness", "compute")}
    assert all(isinstance(error, SandboxError) for error in ended.values())
    assert not [key for key in asked.artefacts if key[2].startswith("share")]


@pytest.mark.parametrize(
    ("party", "label"), [("operator", "seed"), ("witness", "counts"), ("bank", "key"), ("witness", "cipher")]
)
def test_a_contributor_that_goes_away_is_named_wherever_it_was(party: str, label: str) -> None:
    asked = ask([people(n, 20) for n in range(3)], measures=MEASURES[:1], change=leaving(party, label), deadline_s=2.0)
    ended = asked.stage("compute")
    named = [error for error in ended.values() if isinstance(error, DeadlinePassed)]
    assert party not in ended and named
    assert {(error.party, error.stage) for error in named} == {(party, "compute")}
    assert not [key for key in asked.artefacts if key[2].startswith("share")]


def test_a_value_outside_its_range_ends_it_before_anything_but_seeds_was_said() -> None:
    frames = [people(n) for n in range(3)]
    frames[1].loc[5, ["cents", "gone"]] = [100_000_099, False]
    asked = ask(frames)
    with pytest.raises(WrongState, match="'income' is outside") as refusal:
        asked.compute()
    assert "1000000" not in f"{refusal.value}{refusal.value.tell}{refusal.value.hint}"
    assert not [m for m in asked.said if m.sender == "operator" and m.label != "seed"]


def test_the_kind_says_who_learns_what() -> None:
    asked = ask([people(n) for n in range(2)])
    told = aggregate.KIND.reveals(asked.spec, asked.plan.parties, asked.scenario, "paillier")
    assert [reveal.party for reveal in told] == ["bank", "operator", "recipient"]
    assert all("subtract its own part" in reveal.what for reveal in told[:2])
    three = ask([people(n) for n in range(3)])
    told = aggregate.KIND.reveals(three.spec, three.plan.parties, three.scenario, "paillier")
    assert len(told) == 4 and not any("subtract" in reveal.what for reveal in told)
