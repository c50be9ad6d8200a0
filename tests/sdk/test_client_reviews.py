"""Reviews through the SDK: real gRPC over mutual TLS, against a node that keeps what it is told."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from dataclasses import replace
from typing import Any

import grpc
import pytest

from sandbox import signed, wire
from sandbox.client import Client
from sandbox.errors import IntegrityFailed, InvalidSpec, PartyFailed
from sandbox.keyring import Person
from sandbox.model import (
    Call,
    Decision,
    DecisionView,
    JobKind,
    ListQuery,
    OutputClass,
    OutputRule,
    ReviewDecision,
    ReviewQuery,
    ReviewVerdict,
    ReviewView,
    Signed,
)
from sandbox.v1 import review_pb2, review_pb2_grpc

JOB, OTHER = "ab" * 16, "cd" * 16
VIEW = ReviewView(
    job_id=JOB,
    kind=JobKind.TRAIN,
    state="held",
    plan_digest=b"p" * 32,
    evidence_digest=b"e" * 32,
    scenario="credit",
    scenario_digest=b"s" * 32,
    purpose="credit",
    merchant="merchant",
    controller="",
    recipient="0" * 32,
    recipient_node="bank",
    outputs=(OutputRule(JobKind.TRAIN, "scorecard", OutputClass.MODEL, 20, 10, 100, 4096, True),),
    parties=("bank", "operator"),
    checks=(),
    history=(),
    decisions=(),
    approvals_needed=2,
    held_ms=1,
    due_ms=2,
    is_due_soon=True,
    sample="",
)


class Desk(review_pb2_grpc.ReviewServiceServicer):
    """Answers with ``view``; keeps what was called, which pages, and the decisions, both signatures checked."""

    def __init__(self, officer: Person) -> None:
        self._key = officer.identity.public
        self.view, self.called, self.pages = VIEW, list[str](), list[ListQuery]()
        self.decided: list[ReviewDecision] = []
        self.is_down = False

    def _open(self, method: str, shape: Any, message: Any) -> Any:
        call = signed.verify(self._key, "call", wire.from_proto(Signed, message.signed), Call)
        assert (call.audience, call.method) == ("bank", f"/sandbox.v1.ReviewService/{method}")
        self.called.append(method)
        return wire.decode(shape, call.body)

    def ListReviews(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.pages.append(self._open("ListReviews", ListQuery, request))
        return review_pb2.ListReviewsResponse(reviews=[wire.to_proto(self.view)])

    def GetReview(self, request: Any, context: Any) -> Any:  # noqa: N802
        assert self._open("GetReview", ReviewQuery, request) == ReviewQuery(JOB)
        return review_pb2.GetReviewResponse(review=wire.to_proto(self.view))

    def DecideReview(self, request: Any, context: Any) -> Any:  # noqa: N802
        verdict = self._open("DecideReview", ReviewVerdict, request)
        if self.is_down:
            context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
        value = signed.verify(self._key, "review", verdict.decision, ReviewDecision)
        self.decided.append(value)
        said = DecisionView("officer", value.decision, value.reason, value.time_ms)
        return review_pb2.DecideReviewResponse(review=wire.to_proto(replace(self.view, decisions=(said,))))


@pytest.fixture
def desk(officer: Person) -> Desk:
    return Desk(officer)


@pytest.fixture
def client(desk: Desk, bank: Any, officer: Person) -> Iterator[Client]:
    running = grpc.server(futures.ThreadPoolExecutor(2))
    review_pb2_grpc.add_ReviewServiceServicer_to_server(desk, running)
    credentials = grpc.ssl_server_credentials(
        [(bank.keys.tls_key, bank.keys.tls_certificate)], officer.tls_certificate, require_client_auth=True
    )
    port = running.add_secure_port("127.0.0.1:0", credentials)
    running.start()
    with Client.connect(officer, replace(bank.card, address=f"127.0.0.1:{port}")) as connected:
        yield connected
    running.stop(None).wait()


def test_what_is_held_is_listed_by_pages(client: Client, desk: Desk) -> None:
    assert client.reviews() == (VIEW,)
    client.reviews(JOB, 5)
    assert desk.pages == [ListQuery("", 0), ListQuery(JOB, 5)]


def test_a_review_arrives_whole(client: Client) -> None:
    assert client.review(JOB) == VIEW


@pytest.mark.parametrize(
    ("decision", "reason"), [(Decision.APPROVE, ""), (Decision.REFUSE, "no"), (Decision.SEND_BACK, "why")]
)
def test_a_decision_is_signed_over_the_evidence_fetched(
    client: Client, desk: Desk, decision: Decision, reason: str
) -> None:
    view = client.decide(JOB, decision, reason)
    assert desk.called == ["GetReview", "DecideReview"]
    [made] = desk.decided
    assert (made.job_id, made.plan_digest, made.evidence_digest) == (JOB, VIEW.plan_digest, VIEW.evidence_digest)
    assert (made.decision, made.reason) == (decision, reason)
    assert abs(made.time_ms - signed.now_ms()) < 60_000
    assert view.decisions[0].decision is decision


def test_a_decision_is_signed_over_what_the_person_looked_at(client: Client, desk: Desk) -> None:
    seen = client.review(JOB)
    desk.view = replace(VIEW, evidence_digest=b"n" * 32)
    client.decide(JOB, Decision.APPROVE, view=seen)
    assert desk.called == ["GetReview", "DecideReview"]  # not fetched again
    assert desk.decided[0].evidence_digest == VIEW.evidence_digest


def test_evidence_about_another_job_is_signed_for_none(client: Client, desk: Desk) -> None:
    with pytest.raises(InvalidSpec, match="another job"):
        client.decide(JOB, Decision.APPROVE, view=replace(VIEW, job_id=OTHER))
    assert desk.called == []


def test_a_node_that_shows_another_job_gets_no_signature(client: Client, desk: Desk) -> None:
    desk.view = replace(VIEW, job_id=OTHER)
    with pytest.raises(IntegrityFailed):
        client.review(JOB)
    with pytest.raises(IntegrityFailed):
        client.decide(JOB, Decision.APPROVE)
    assert desk.decided == []


def test_an_answer_about_another_job_is_not_believed(client: Client, desk: Desk) -> None:
    desk.view = replace(VIEW, job_id=OTHER)
    with pytest.raises(IntegrityFailed):
        client.decide(JOB, Decision.APPROVE, view=VIEW)


@pytest.mark.parametrize("decision", [Decision.REFUSE, Decision.SEND_BACK])
@pytest.mark.parametrize("reason", ["", " \n", "x" * 513])
def test_a_refusal_says_why_in_512_characters(client: Client, desk: Desk, decision: Decision, reason: str) -> None:
    with pytest.raises(InvalidSpec):
        client.decide(JOB, decision, reason)
    assert "DecideReview" not in desk.called


def test_a_decision_is_handed_in_once(client: Client, desk: Desk) -> None:
    desk.is_down = True
    with pytest.raises(PartyFailed):
        client.decide(JOB, Decision.APPROVE, view=VIEW)
    assert desk.called == ["DecideReview"]
