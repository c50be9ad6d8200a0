"""A result is opened and checked against its receipt, or not returned at all."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from sandbox import signed, wire
from sandbox.audit.receipt import Receipt
from sandbox.client import Outcome, Trust
from sandbox.client.outcome import open_result
from sandbox.crypto.envelope import seal_to
from sandbox.crypto.sm3 import sm3, tagged
from sandbox.errors import IntegrityFailed
from sandbox.keyring import Person, public_key
from sandbox.model import Opening, Output, OutputClass, Result, ResultHead

JOB = "ab" * 16
SALT = bytes(range(32))


def parquet(frame: pd.DataFrame) -> bytes:
    sink = io.BytesIO()
    frame.to_parquet(sink)
    return sink.getvalue()


SCORES = pd.DataFrame({"id": ["990000199001011239", "甲"], "points": [600, 585]})
OUTPUTS = (
    Output("scores", OutputClass.ROW_CONSENTED, "parquet", parquet(SCORES)),
    Output("metrics", OutputClass.REPORT, "json", b'{"auc": 0.651, "rows": 1580}'),
)


class Delivery:
    """What a node sends, each part open to change before it is sealed."""

    def __init__(self, deliver: Callable[..., Receipt], bank: Any, officer: Person) -> None:
        self.bank, self.officer, self._deliver = bank, officer, deliver
        self.outputs: tuple[Output, ...] = OUTPUTS
        self.openings = tuple(Opening(o.name, SALT, sm3(o.content)) for o in OUTPUTS)
        self.commitments = {o.name: sm3(SALT + sm3(o.content)) for o in OUTPUTS}
        self.what, self.to, self.job_id, self.inner_job = "delivered", "", JOB, JOB
        self.signer, self.kind = bank.keys.identity, "result"
        self.recipient = officer.key_id

    def send(self) -> tuple[ResultHead, bytes]:
        receipt = self._deliver(self.job_id, self.commitments, self.what, self.to)
        made = signed.sign(self.signer, self.kind, Result(self.inner_job, self.outputs, self.openings))
        bound = JOB.encode() + self.recipient.encode() + tagged("leaf", receipt.leaf)
        sealed = seal_to(self.officer.sealing.public, wire.encode(made), tagged("result-aad", bound))
        return ResultHead(JOB, self.recipient, receipt.to_text(), len(sealed)), sealed

    def open(self) -> Outcome:
        return open_result(self.officer, public_key(self.bank.card), *self.send())


@pytest.fixture
def delivery(deliver: Callable[..., Receipt], bank: Any, officer: Person) -> Delivery:
    return Delivery(deliver, bank, officer)


def test_tables_and_reports_come_out_as_they_went_in(delivery: Delivery, trust: Trust) -> None:
    outcome = delivery.open()
    pd.testing.assert_frame_equal(outcome.outputs["scores"], SCORES, check_dtype=False)
    assert outcome.outputs["metrics"] == {"auc": 0.651, "rows": 1580}
    assert outcome.files == {"scores.parquet": OUTPUTS[0].content, "metrics.json": OUTPUTS[1].content}
    assert outcome.verify(trust).size == 6


def test_an_outcome_does_not_print_rows(delivery: Delivery) -> None:
    assert "990000" not in repr(delivery.open())


def test_verification_needs_the_witness(delivery: Delivery, trust: Trust) -> None:
    with pytest.raises(IntegrityFailed, match="co-signers"):
        delivery.open().verify(replace(trust, witnesses=()))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"what": "released"}, "delivery of this job"),
        ({"job_id": "cd" * 16}, "delivery of this job"),
        ({"inner_job": "cd" * 16}, "another job"),
        ({"to": "0" * 32}, "another recipient"),
        ({"recipient": "0" * 32}, "another recipient"),
        ({"kind": "grant"}, "not the node's"),
        ({"commitments": {}}, "committed to"),
        ({"openings": ()}, "opening says"),
        ({"outputs": (replace(OUTPUTS[0], content=OUTPUTS[1].content), OUTPUTS[1])}, "opening says"),
        ({"openings": tuple(Opening(o.name, bytes(32), sm3(o.content)) for o in OUTPUTS)}, "committed to"),
        ({"outputs": (OUTPUTS[1], OUTPUTS[1])}, "same name"),
    ],
)
def test_what_does_not_hold_is_named_and_nothing_returned(
    delivery: Delivery, change: dict[str, Any], reason: str
) -> None:
    for name, value in change.items():
        setattr(delivery, name, value)
    with pytest.raises(IntegrityFailed, match=reason):
        delivery.open()


def test_another_node_s_signature_is_refused(delivery: Delivery, witness: Any) -> None:
    delivery.signer = witness.keys.identity
    with pytest.raises(IntegrityFailed, match="not the node's"):
        delivery.open()


@pytest.mark.parametrize(
    ("name", "kind", "content"),
    [
        ("../../etc", "json", b"{}"),
        ("a.b", "json", b"{}"),
        ("report", "json", b"[1]"),
        ("report", "json", b"{"),
        ("report", "parquet", b"PAR1 but not really"),
        ("report", "pickle", b"\x80\x04."),
    ],
)
def test_outputs_that_are_no_tables_or_no_file_names(delivery: Delivery, name: str, kind: str, content: bytes) -> None:
    delivery.outputs = (Output(name, OutputClass.REPORT, kind, content),)
    delivery.openings = (Opening(name, SALT, sm3(content)),)
    delivery.commitments = {name: sm3(SALT + sm3(content))}
    with pytest.raises(IntegrityFailed):
        delivery.open()


def test_sealed_bytes_under_another_receipt_do_not_open(delivery: Delivery, officer: Person) -> None:
    _, sealed = delivery.send()
    delivery.commitments = {**delivery.commitments, "more": bytes(32)}
    other, _ = delivery.send()
    with pytest.raises(IntegrityFailed):
        open_result(officer, public_key(delivery.bank.card), replace(other, size=len(sealed)), sealed)


def test_another_person_cannot_open_it(delivery: Delivery, stranger: Person) -> None:
    head, sealed = delivery.send()
    with pytest.raises(IntegrityFailed):
        open_result(stranger, public_key(delivery.bank.card), head, sealed)


def test_reports_survive_json(delivery: Delivery) -> None:
    report = delivery.open().outputs["metrics"]
    assert json.loads(json.dumps(report)) == report
