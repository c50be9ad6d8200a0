"""Training with a scorecard among three parties: the released points add up to the scores, and nothing else leaves."""

from __future__ import annotations

import dataclasses
import json
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from kind_parties import EARLIER, JOB, NAMES, Room, good, read, ref, scenario

from sandbox.errors import OutputWithheld, PartyFailed, ProtocolFailed, SandboxError
from sandbox.gate.models import judge_model
from sandbox.kinds import KINDS, card
from sandbox.kinds.card import SCALE, START, Card
from sandbox.kinds.train import TrainedSide
from sandbox.model import (
    BatchScore,
    Dimension,
    JobKind,
    JobSpec,
    OutputClass,
    OutputRule,
    Party,
    PartyRole,
    Plan,
    RawResult,
    ScoreScope,
    ScoreSpec,
    TrainSpec,
)
from sandbox.mpc.scorecard import Points, Scale
from sandbox.workspace import engines as availability

needs_spu = pytest.mark.skipif(
    availability.engines()["mpc.aby3"] != availability.READY, reason="spu and jax are not installed"
)
BANK, OPERATOR = ("income", "term"), ("late", "util", "city")
ROWS, STEP = 600, 5
SIDES = (PartyRole.LEFT, PartyRole.RIGHT, PartyRole.COMPUTE)
RULES = (
    OutputRule(JobKind.TRAIN, "training", OutputClass.REPORT, 10, 10, 1, 4096),
    OutputRule(JobKind.TRAIN, "scorecard", OutputClass.MODEL, 20, 10, 1000, 1 << 20, reviewed=True),
    OutputRule(JobKind.SCORE, "scores", OutputClass.ROW_CONSENTED, 0, 0, 10_000, 1 << 20),
    OutputRule(JobKind.SCORE, "metrics", OutputClass.REPORT, 10, 10, 1, 4096),
)
HELD = dataclasses.replace(
    scenario([BANK, OPERATOR]),
    kinds=(JobKind.TRAIN, JobKind.SCORE),
    outputs=RULES,
    computing_parties=("witness",),
    score_step=STEP,
    dimensions=(Dimension("util_band", "util", (), (200, 650), 1),),
)


def tables() -> tuple[pa.Table, pa.Table, pa.Table]:
    random = np.random.default_rng(5)
    income, late = np.exp(random.normal(10, 0.7, ROWS)), random.poisson(0.7, ROWS)
    util = random.integers(0, 101, ROWS)
    risk = -1.5 - 0.8 * (np.log(income) - 10) + 0.5 * late + 0.02 * (util - 50)
    ids = [f"P{n}" for n in range(ROWS)]
    bank = {
        "id": ids,
        "income": pa.array(income, mask=random.random(ROWS) < 0.03),
        "term": random.choice(["36", "60"], ROWS, p=[0.7, 0.3]).tolist(),
        "bad": pa.array((random.random(ROWS) < 1 / (1 + np.exp(-risk))).astype(np.int64)),
    }
    operator = {
        "id": ids,
        "late": pa.array(late, pa.int64()),
        "util": pa.array(util, pa.int64(), mask=random.random(ROWS) < 0.05),
        "city": random.choice(["a", "b", "c", "rare"], ROWS, p=[0.5, 0.3, 0.19, 0.01]).tolist(),
    }
    return pa.table(bank), pa.table(operator), pa.table({"id": pa.array([], pa.string())})


class Credit(Room):
    """A bank with the labels, an operator, and a witness that only computes."""

    def serve(self, me: str, head: dict[str, Any], body: bytes) -> bytes | None:
        if head["op"] != "relay":
            return super().serve(me, head, body)
        with self._lock:
            if len(self.spaces) == len(SIDES):
                self.spaces.clear()
            self.spaces[me] = Path(head["path"])
        self.met.wait(20)
        for other in set(self.spaces) - {me}:  # on one machine a link of the engine may simply be a link
            (self.spaces[me] / f"peer-{other}.sock").symlink_to(self.spaces[other] / "self.sock")
        return b""

    def _ticket(self, me: str, *stage: Any) -> dict[str, Any]:
        ticket = {"population_key": ""} | super()._ticket(me, *stage)
        ticket["dataset"]["label"] = "bad" if me == "bank" else ""
        return ticket

    def reveal(self, raw: Any) -> RawResult:
        """Last shares, and the last stage at every party that has one, all at once."""
        shares = KINDS[self.plan.kind].shares(self.plan, self.spec, self.scenario)
        for receiver, senders in shares.items():
            for sender in senders:
                self.artefacts[receiver, JOB, f"share-from-{sender}"] = self.artefacts[
                    sender, JOB, f"share-for-{receiver}"
                ]
        self.said.clear()
        return good(self.stage("finish", tuple(shares)))[self.recipient]


def credit(kind: Any, recipient: str = "bank", rows: Any = None, rules: Any = RULES) -> Credit:
    held = dataclasses.replace(HELD, outputs=rules, recipient=dataclasses.replace(HELD.recipient, node_id=recipient))
    spec = JobSpec("request", bytes(32), kind)
    job = JobKind.TRAIN if isinstance(kind, TrainSpec) else JobKind.SCORE
    parties = [
        Party("bank", PartyRole.LEFT, ref("bank"), b"b" * 32, BANK),
        Party("operator", PartyRole.RIGHT, ref("operator"), b"o" * 32, OPERATOR),
    ]
    if job is JobKind.TRAIN:
        parties.append(Party("witness", PartyRole.COMPUTE, None, b"", ()))
    chosen = KINDS[job].chosen(spec)
    plan = Plan(
        job_id=JOB,
        proposer="bank",
        kind=job,
        scenario_digest=bytes(32),
        submission_digest=bytes(32),
        parties=tuple(parties),
        engine="aby3" if job is JobKind.TRAIN else "partial-sums",
        outputs=tuple(rule for rule in rules if rule.kind is job and rule.name in chosen),
        recipient="0" * 32,
        recipient_node=recipient,
        deadline_s=60,
        reveals=KINDS[job].reveals(spec, parties, held, ""),
        isolation="engine-child",
        time_ms=0,
    )
    brought = dict(zip(NAMES, rows or tables(), strict=False))
    made = Credit({party.node_id: brought[party.node_id] for party in parties}, held, spec, plan, recipient)
    made.deadline_s = 60.0
    made.spaces, made.met = {}, threading.Barrier(len(SIDES))
    order = np.random.default_rng(9).permutation(ROWS)
    for party in ("bank", "operator"):
        made.artefacts[party, EARLIER, "alignment"] = order.astype("<i8").tobytes()
    return made


def training(is_released: bool, steps: int = 8) -> TrainSpec:
    return TrainSpec(EARLIER, steps, 20, b"who is held out", 1000, release_scorecard=is_released)


@pytest.fixture(scope="module")
def trained() -> tuple[Credit, dict[str, RawResult], RawResult]:
    room = credit(training(True))
    raw = room.compute()
    return room, raw, room.reveal(raw)


def scorecard(room: Credit) -> list[dict[str, Any]]:
    return read(room.artefacts[room.recipient, JOB, "scorecard"]).to_pylist()


def scored(room: Credit) -> pa.Table:
    """Everybody's score by the model that a training left."""
    asked = credit(ScoreSpec(JOB, BatchScore(ScoreScope.ALIGNED)))
    asked.artefacts = dict(room.artefacts)
    raw = asked.reveal(asked.compute())
    return read(asked.artefacts["bank", JOB, raw.tables["scores"]])


def is_in(value: Any, band: str) -> bool:
    """What the name of a band says, read as a person would."""
    if value is None or band in ("(missing)", "(other)"):
        return False
    if found := re.fullmatch(r"below (.+)", band):
        return bool(value < float(found[1]))
    if found := re.fullmatch(r"(.+) to below (.+)", band):
        return bool(float(found[1]) <= value < float(found[2]))
    if found := re.fullmatch(r"(.+) and above", band):
        return bool(value >= float(found[1]))
    return bool(value == band)


def by_hand(lines: list[dict[str, Any]], side: str, row: dict[str, Any]) -> int:
    """A person's points at one side, from the released table alone."""
    total = 0
    for name in dict.fromkeys(line["feature"] for line in lines if line["side"] == side):
        bands = [line for line in lines if (line["side"], line["feature"]) == (side, name)]
        total += next((b["points"] for b in bands[:-1] if is_in(row.get(name), b["band"])), bands[-1]["points"])
    return total


@needs_spu
@pytest.mark.slow
def test_the_points_of_the_table_add_up_to_the_scores(trained: Any) -> None:
    room, _, raw = trained
    assert raw.tables == {"scorecard": "scorecard"}
    assert raw.figures == {"rows_trained": 480.0, "rows_held": 120.0}
    lines = scorecard(room)
    assert {line["side"] for line in lines} == {"", "bank", "operator"}
    (start,) = [line["points"] for line in lines if (line["side"], line["feature"]) == ("", START)]
    rows = {side: {row["id"]: row for row in room.tables[side].to_pylist()} for side in ("bank", "operator")}
    scores = scored(room)
    assert scores.num_rows == ROWS and len(set(scores["points"].to_pylist())) > 8
    for one in scores.to_pylist():
        parts = [by_hand(lines, side, rows[side][one["id"]]) for side in ("bank", "operator")]
        assert one["points"] == start + STEP * sum(round(part / STEP) for part in parts)
        assert abs(one["points"] - start - sum(parts)) <= STEP  # half a step a side


@needs_spu
@pytest.mark.slow
def test_the_table_is_the_model_in_points(trained: Any) -> None:
    room, _, _ = trained
    lines = scorecard(room)
    scale = {line["band"]: line["points"] for line in lines if line["feature"] == SCALE}
    assert sorted(scale.values()) == [STEP, 20, 50, 600]
    for side in ("bank", "operator"):
        half = TrainedSide.from_json(room.artefacts[side, JOB, "model"])
        exact = [-Scale().factor * half.part.offset]
        start = 0
        for part in half.encoder.banded():
            width = part.rows().shape[1]
            weights = half.part.weights[start : start + width]
            exact += (-Scale().factor * (part.rows() @ weights)).tolist()
            start += width
        assert [line["points"] for line in lines if line["side"] == side] == np.rint(exact).tolist()
    util = [line["band"] for line in lines if line["feature"] == "util"]
    assert util == ["below 20.0", "20.0 to below 65.0", "65.0 and above", "(missing)"]  # the scenario's own edges
    assert [line["band"] for line in lines if line["feature"] == "city"] == ["a", "b", "c", "(other)"]
    late = [line["points"] for line in lines if line["feature"] == "late"][:-1]
    assert late == sorted(late, reverse=True) and late[0] > late[-1]  # more often late, fewer points


@needs_spu
@pytest.mark.slow
def test_only_whole_points_of_the_other_side_reach_the_recipient(trained: Any) -> None:
    room, _, _ = trained
    assert [(message.sender, message.to) for message in room.said] == [("operator", "bank")]
    found = json.loads(room.said[0].body, parse_float=pytest.fail)
    assert found.keys() == {"base", "features"}
    assert [feature["feature"] for feature in found["features"]] == list(OPERATOR)
    assert [party for party, _, name in room.artefacts if name == "scorecard"] == ["bank"]


@needs_spu
@pytest.mark.slow
def test_every_owner_judges_what_is_behind_its_own_coefficients(trained: Any) -> None:
    room, raw, last = trained
    rule = room.plan.outputs[1]
    for side in ("bank", "operator"):
        inputs = raw[side].gate_inputs
        checks = judge_model(rule, inputs)
        assert len(checks) == (3 if side == "bank" else 2)
        assert any(name.startswith("label.") for name in inputs) == (side == "bank")
        least = checks[1].found
        judge_model(dataclasses.replace(rule, min_group=least), inputs)
        with pytest.raises(OutputWithheld):
            judge_model(dataclasses.replace(rule, min_group=least + 1), inputs)
    # One coefficient a feature, of both sides, and the intercept: three numbers, two terms as one, three cities.
    assert {raw[side].gate_inputs["freedom"] for side in ("bank", "operator")} == {480 - (2 + 5) - 1}
    assert judge_model(rule, last.gate_inputs) == judge_model(rule, raw["bank"].gate_inputs)
    assert not raw["witness"].gate_inputs


@needs_spu
@pytest.mark.slow
def test_the_operator_may_be_the_recipient_and_then_gets_the_banks_points(trained: Any) -> None:
    room, raw, _ = trained
    turned = credit(training(True), recipient="operator")
    turned.artefacts = {key: kept for key, kept in room.artefacts.items() if key[2] != "scorecard"}
    turned.reveal(raw)
    assert [(message.sender, message.to) for message in turned.said] == [("bank", "operator")]
    assert scorecard(turned) == scorecard(room)
    assert ("bank", JOB, "scorecard") not in turned.artefacts


@needs_spu
@pytest.mark.slow
@pytest.mark.parametrize("body", [b"", b"[]", b'{"base": 0, "features": []}'])
def test_a_part_that_is_none_ends_the_job_and_names_its_sender(trained: Any, body: bytes) -> None:
    room, raw, _ = trained
    spoilt = credit(training(True))
    spoilt.artefacts = dict(room.artefacts)
    spoilt.change = lambda message: (dataclasses.replace(message, body=body),)
    with pytest.raises(ProtocolFailed) as caught:
        spoilt.reveal(raw)
    assert caught.value.party == "operator"


@needs_spu
@pytest.mark.slow
def test_a_part_that_never_comes_names_who_is_silent(trained: Any) -> None:
    room, raw, _ = trained
    silent = credit(training(True))
    silent.artefacts = {key: kept for key, kept in room.artefacts.items() if key[2] != "scorecard"}
    silent.change, silent.deadline_s = (lambda message: ()), 2.0
    with pytest.raises(PartyFailed) as caught:
        silent.reveal(raw)
    assert caught.value.party == "operator"
    assert ("bank", JOB, "scorecard") not in silent.artefacts


@needs_spu
@pytest.mark.slow
def test_without_being_asked_for_no_scorecard_is_made() -> None:
    room = credit(training(False, steps=2))
    raw = room.compute()
    last = room.reveal(raw)
    assert last.tables == {} and last.figures["rows_trained"] == 480.0
    assert room.said == []  # the last stage says nothing to anybody
    assert not {name for _, _, name in room.artefacts} & {"scorecard", "judged"}
    for side in ("bank", "operator"):
        half = TrainedSide.from_json(room.artefacts[side, JOB, "model"])
        assert half.points is None
        with pytest.raises(SandboxError):
            half.encoder.banded()  # weights of numbers as they are, which no table of points could tell
        assert not any(name.startswith(("freedom", "coefficient", "label")) for name in raw[side].gate_inputs)


def test_outputs_and_reveals_say_so_in_both_languages() -> None:
    assert KINDS[JobKind.TRAIN].outputs["scorecard"] is OutputClass.MODEL
    asked = credit(training(True), recipient="operator")
    assert [rule.name for rule in asked.plan.outputs] == ["training", "scorecard"]
    told = [reveal for reveal in asked.plan.reveals if "points" in reveal.what]
    assert [reveal.party for reveal in told] == ["operator", "recipient"]
    assert all("整数分值" in reveal.what_zh and len(reveal.what) <= 512 for reveal in told)
    for asks, rules in ((False, RULES), (True, RULES[:1] + RULES[2:])):  # not asked for; not in the scenario
        plan = credit(training(asks), rules=rules).plan
        assert [rule.name for rule in plan.outputs] == ["training"]
        assert not any("points" in reveal.what for reveal in plan.reveals)


PART = Card(("n", "c"), (("below 3", "3 and above", "(missing)"), ("a", "(other)")), Points(-4, ((7, -7, 0), (3, 0))))


def test_a_part_travels_as_it_is() -> None:
    assert Card.from_bytes(PART.to_bytes(), ("n", "c"), "operator") == PART
    lines = read(card.table([("operator", PART)], Scale())).to_pylist()
    assert [line["points"] for line in lines if line["side"] == "operator"] == [-4, 7, -7, 0, 3, 0]
    assert list(lines[0]) == list(card.FORM.names)


def _changed(**changes: Any) -> bytes:
    return json.dumps(json.loads(PART.to_bytes()) | changes).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"\xff",
        b"null",
        _changed(base=0.5),
        _changed(base=True),
        _changed(features=[{"feature": "n", "bands": [["below 3", 1]]}]),
        _changed(features=[{"feature": name, "bands": [["a", 1.25]]} for name in ("n", "c")]),
        _changed(features=[{"feature": name, "bands": [[7, 1]]} for name in ("n", "c")]),
        _changed(features=[{"feature": name, "bands": []} for name in ("n", "c")]),
        _changed(features=[{"feature": name, "bands": [["a" * 129, 1]]} for name in ("n", "c")]),
        _changed(features=[{"feature": name, "bands": [["a", 10**9]]} for name in ("n", "c")]),
        _changed(features=[{"feature": name, "bands": [["a", 1]] * 1001} for name in ("n", "c")]),
        b"[" * 100_000,
        b" " * (5 << 20),
    ],
)
def test_a_part_of_another_form_is_refused_naming_the_party(body: bytes) -> None:
    with pytest.raises(ProtocolFailed) as caught:
        Card.from_bytes(body, ("n", "c"), "operator")
    assert caught.value.party == "operator"
