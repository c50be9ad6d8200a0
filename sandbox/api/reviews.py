"""ReviewService: what is held at this node, the evidence about one job, and what reviewers decide.

Security:  a list has no evidence; that is read one job at a time. A decision is signed by the reviewer apart from the
           request that carries it, over the digest of the evidence.
Errors:    as ``edge`` says; ``InvalidSpec`` for a refusal without a reason. Who may decide on what, and whether it is
           still held: ``sandbox.review``.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from sandbox import record, registry, review, signed, wire
from sandbox.api.edge import WINDOW_MS, Caller, Edge, Request
from sandbox.api.jobs import page
from sandbox.errors import InvalidSpec
from sandbox.ledger import Ledger
from sandbox.model import Decision, ListQuery, ReviewDecision, ReviewQuery, ReviewVerdict, ReviewView
from sandbox.pipeline import Pipeline
from sandbox.registry import Registered
from sandbox.v1 import review_pb2, review_pb2_grpc

READERS = frozenset({"reviewer", "operator", "owner", "auditor"})
REVIEWERS = frozenset({"reviewer"})
_PREFIX = "/sandbox.v1.ReviewService/"


class Reviews(review_pb2_grpc.ReviewServiceServicer):
    """The reviewers' desk."""

    def __init__(self, edge: Edge, pipeline: Pipeline, ledger: Ledger) -> None:
        self._edge, self._pipeline, self._ledger = edge, pipeline, ledger

    async def ListReviews(self, request: Any, context: Any) -> Any:  # noqa: N802 - the method names are the protocol's
        """List what is held here, first to expire on top."""

        def listed() -> Any:
            opened = self._edge.open(request, _PREFIX + "ListReviews", ListQuery, READERS)
            self._edge.spend_nonce(opened)
            after, limit = opened.body.after, page(opened.body.limit)
            with self._ledger.store.read() as conn:
                views = review.listed(conn, self._ledger.keys.node_key, after, limit, signed.now_ms())
            return review_pb2.ListReviewsResponse(reviews=[wire.to_proto(_without_evidence(view)) for view in views])

        return await self._edge.unary(context, lambda: asyncio.to_thread(listed))

    async def GetReview(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Return one job with the evidence."""

        def get() -> Any:
            opened = self._edge.open(request, _PREFIX + "GetReview", ReviewQuery, READERS)
            self._edge.spend_nonce(opened)
            job_id = opened.body.job_id
            with self._ledger.store.read() as conn:
                review.hold_of(conn, job_id)
                reader = registry.find_key(conn, opened.caller.key_id)
                authors = self._pipeline.review_authors(conn, job_id)
                review.check_reader(conn, record.read(conn, job_id), reader, authors)
            return review_pb2.GetReviewResponse(review=wire.to_proto(self._view(job_id)))

        return await self._edge.unary(context, lambda: asyncio.to_thread(get))

    async def DecideReview(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Take one reviewer's decision and act on it."""

        async def decide() -> Any:
            opened = await asyncio.to_thread(
                self._edge.open, request, _PREFIX + "DecideReview", ReviewVerdict, REVIEWERS
            )
            decision = await asyncio.to_thread(_decision, opened)
            reviewer = await asyncio.to_thread(self._reviewer, opened.caller)
            await self._pipeline.decide(decision.job_id, opened.body, reviewer, opened.remember)
            view = await asyncio.to_thread(self._view, decision.job_id)
            return review_pb2.DecideReviewResponse(review=wire.to_proto(view))

        return await self._edge.unary(context, decide)

    def _reviewer(self, caller: Caller) -> Registered:
        with self._ledger.store.read() as conn:
            return registry.find_key(conn, caller.key_id)

    def _view(self, job_id: str) -> ReviewView:
        with self._ledger.store.read() as conn:
            ledger = self._ledger
            return review.view(conn, ledger.keys.node_key, job_id, signed.now_ms(), ledger.sample(conn, job_id))


def _decision(opened: Request[ReviewVerdict]) -> ReviewDecision:
    """The caller's own signature inside the request, and whether it says enough."""
    decision = signed.verify(opened.caller.key, "review", opened.body.decision, ReviewDecision)
    if decision.decision is not Decision.APPROVE and not decision.reason.strip():
        raise InvalidSpec(tell="who refuses or sends back says why")
    if abs(signed.now_ms() - decision.time_ms) > WINDOW_MS:
        raise InvalidSpec(tell="the decision was not signed just now", hint="look again, and sign again")
    return decision


def _without_evidence(view: ReviewView) -> ReviewView:
    """A page of whole views could be larger than a message may be."""
    return replace(view, checks=(), history=(), sample="", asked=(), reveals=(), decisions=())
