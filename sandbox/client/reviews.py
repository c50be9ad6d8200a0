"""Calls about reviews: what is held, the evidence, and a decision on it.

Security:  a decision is signed by the person over the digest of the evidence in the view that was looked at; a node
           whose evidence is another by now refuses it.
Errors:    ``IntegrityFailed`` if a node answers about another job than was asked for.
Not here:  the page that shows the evidence (``sandbox.cli.evidence``).
"""

from __future__ import annotations

from typing import Any

from sandbox import signed, wire
from sandbox.client.connection import Connection
from sandbox.errors import IntegrityFailed, InvalidSpec
from sandbox.model import Decision, ListQuery, ReviewDecision, ReviewQuery, ReviewVerdict, ReviewView


class ReviewCalls:
    """What a reviewer can do."""

    _line: Connection

    def reviews(self, after: str = "", limit: int = 0) -> tuple[ReviewView, ...]:
        """Return one page of what is held at this node, first to expire on top; without the evidence."""
        answer = self._line.call("ReviewService/ListReviews", ListQuery(after, limit))
        return tuple(self._line.read(ReviewView, view) for view in answer.reviews)

    def review(self, job_id: str) -> ReviewView:
        """Return one job that is or was held at this node, with the evidence."""
        return self._review(job_id, self._line.call("ReviewService/GetReview", ReviewQuery(job_id)))

    def decide(self, job_id: str, decision: Decision, reason: str = "", view: ReviewView | None = None) -> ReviewView:
        """Sign a decision and hand it in; it is final.

        Args:
            job_id: the held job.
            decision: approve, refuse, or send back.
            reason: needed for all but an approval; one to send back is told to the submitter.
            view: what the person looked at; without it, what the node shows at this moment.
        """
        seen = view or self.review(job_id)
        if seen.job_id != job_id:
            raise InvalidSpec(tell="the evidence that was looked at is of another job")
        if decision is not Decision.APPROVE and not reason.strip():
            raise InvalidSpec(tell="who refuses or sends back says why")
        made = ReviewDecision(job_id, seen.plan_digest, seen.evidence_digest, decision, reason, signed.now_ms())
        verdict = signed.sign(self._line.person.identity, "review", made)
        wire.decode(ReviewDecision, verdict.payload)  # the bounds every node applies
        answer = self._line.call("ReviewService/DecideReview", ReviewVerdict(verdict), repeatable=False)
        return self._review(job_id, answer)

    def _review(self, job_id: str, answer: Any) -> ReviewView:
        view = self._line.read(ReviewView, answer.review)
        if view.job_id != job_id:
            raise IntegrityFailed("the node answered about another job", party=self._line.node.node_id)
        return view
