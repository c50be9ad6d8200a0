"""JobService: plan, submit, get, list, watch, cancel, result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from sqlalchemy import select

from sandbox import record, wire
from sandbox.api.edge import Caller, Edge
from sandbox.errors import InvalidSpec, NotFound, PolicyRefused, WrongState
from sandbox.estimate import estimate
from sandbox.ledger import Ledger
from sandbox.model import ENDED, JobQuery, JobSubmission, JobView, ListQuery, ResultHead, State
from sandbox.pipeline import Pipeline
from sandbox.store import results
from sandbox.v1 import job_pb2, job_pb2_grpc

SUBMITTERS = frozenset({"submitter"})
READERS = frozenset({"submitter", "operator", "auditor"})
SEERS = frozenset({"operator", "auditor"})
CHUNK = 1 << 20
_PREFIX = "/sandbox.v1.JobService/"


class Jobs(job_pb2_grpc.JobServiceServicer):
    """The job runner's face."""

    def __init__(self, edge: Edge, pipeline: Pipeline, ledger: Ledger) -> None:
        self._edge, self._pipeline, self._ledger = edge, pipeline, ledger

    async def PlanJob(self, request: Any, context: Any) -> Any:  # noqa: N802 - the method names are the protocol's
        """Say what a job would do."""

        def plan() -> Any:
            opened = self._edge.open(request, _PREFIX + "PlanJob", JobSubmission, SUBMITTERS)
            self._edge.spend_nonce(opened)
            with self._ledger.store.read() as conn:
                planned, facts = self._pipeline.plan(conn, opened.call, opened.body)
                floor = self._ledger.settings.round_floor
                view = estimate(conn, planned, opened.body.spec, floor, facts.conditions, facts.recipe)
            return job_pb2.PlanJobResponse(plan=wire.to_proto(view))

        return await self._edge.unary(context, lambda: asyncio.to_thread(plan))

    async def SubmitJob(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Admit a job."""

        async def submit() -> Any:
            opened = await asyncio.to_thread(self._edge.open, request, _PREFIX + "SubmitJob", JobSubmission, SUBMITTERS)
            job_id = await self._pipeline.submit(opened.call, opened.body, opened.remember)
            return job_pb2.SubmitJobResponse(job=wire.to_proto(await asyncio.to_thread(self._view, job_id)))

        return await self._edge.unary(context, submit)

    async def GetJob(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Return one job."""

        def get() -> Any:
            opened = self._edge.open(request, _PREFIX + "GetJob", JobQuery, READERS)
            self._edge.spend_nonce(opened)
            return job_pb2.GetJobResponse(job=wire.to_proto(self._own(opened.caller, opened.body.job_id)))

        return await self._edge.unary(context, lambda: asyncio.to_thread(get))

    async def ListJobs(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Return the caller's jobs."""

        def listed() -> Any:
            opened = self._edge.open(request, _PREFIX + "ListJobs", ListQuery, READERS)
            self._edge.spend_nonce(opened)
            with self._ledger.store.read() as conn:
                whose = "" if SEERS & opened.caller.roles else opened.caller.key_id
                found = record.mine(conn, whose, opened.body.after, page(opened.body.limit))
            return job_pb2.ListJobsResponse(jobs=[wire.to_proto(self._view(job_id)) for job_id in found])

        return await self._edge.unary(context, lambda: asyncio.to_thread(listed))

    async def WatchJob(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Yield the job now and at every change."""
        async for part in self._edge.stream(context, self._watch(request)):
            yield part

    async def _watch(self, request: Any) -> AsyncIterator[Any]:
        opened = await asyncio.to_thread(self._edge.open, request, _PREFIX + "WatchJob", JobQuery, READERS)
        await asyncio.to_thread(self._edge.spend_nonce, opened)
        job_id = opened.body.job_id
        await asyncio.to_thread(self._own, opened.caller, job_id)
        last: JobView | None = None
        async for _ in self._pipeline.changes(job_id):
            view = await asyncio.to_thread(self._view, job_id, opened.caller)
            if view != last:  # a change that this caller may not see is none
                yield job_pb2.WatchJobResponse(job=wire.to_proto(view))
            last = view
            if view.state in ENDED:
                return

    async def CancelJob(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Stop a job everywhere."""

        async def cancel() -> Any:
            opened = await asyncio.to_thread(
                self._edge.open, request, _PREFIX + "CancelJob", JobQuery, frozenset({"submitter", "operator"})
            )
            await asyncio.to_thread(self._edge.spend_nonce, opened, False)
            view = await asyncio.to_thread(self._own, opened.caller, opened.body.job_id)
            if view.submitter != opened.caller.key_id and "operator" not in opened.caller.roles:
                raise NotFound()
            await self._pipeline.cancel(opened.body.job_id)
            view = await asyncio.to_thread(self._view, opened.body.job_id)
            return job_pb2.CancelJobResponse(job=wire.to_proto(view))

        return await self._edge.unary(context, cancel)

    async def GetConsole(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Return what the submitter's own code printed over a twin."""

        async def console() -> Any:
            opened = await asyncio.to_thread(self._edge.open, request, _PREFIX + "GetConsole", JobQuery, SUBMITTERS)
            await asyncio.to_thread(self._edge.spend_nonce, opened)
            job = await self._ledger.job(opened.body.job_id)
            if job.submission.key_id != opened.caller.key_id:
                raise NotFound()
            return job_pb2.GetConsoleResponse(text=await self._ledger.console(job))

        return await self._edge.unary(context, console)

    async def GetResult(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Stream a sealed result to its recipient."""
        async for part in self._edge.stream(context, self._result(request)):
            yield part

    async def _result(self, request: Any) -> AsyncIterator[Any]:
        def find() -> tuple[ResultHead, Path]:
            opened = self._edge.open(request, _PREFIX + "GetResult", JobQuery, READERS)
            self._edge.spend_nonce(opened)
            job_id = opened.body.job_id
            with self._ledger.store.read() as conn:
                job = record.read(conn, job_id)
                if opened.caller.key_id not in (job.plan.recipient, job.submission.key_id):
                    raise NotFound()
                if job.plan.recipient != opened.caller.key_id:
                    raise PolicyRefused(tell="you are not the recipient of this result")
                row = conn.execute(select(results).where(results.c.job_id == job_id)).one_or_none()
            if job.state is not State.RELEASED or row is None:
                raise WrongState(tell=f"the job is {job.state.name.lower()}, not released")
            head = ResultHead(job_id, row.recipient, bytes(row.receipt), row.size)
            return head, self._ledger.home / "results" / f"{job_id}.sealed"

        head, path = await asyncio.to_thread(find)
        yield job_pb2.GetResultResponse(head=wire.to_proto(head))
        with path.open("rb") as file:
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                yield job_pb2.GetResultResponse(chunk=chunk)

    def _view(self, job_id: str, caller: Caller | None = None) -> JobView:
        in_detail = caller is not None and bool(SEERS & caller.roles)
        with self._ledger.store.read() as conn:
            return record.view(conn, job_id, self._pipeline.stage_of(job_id, in_detail), in_detail)

    def _own(self, caller: Caller, job_id: str) -> JobView:
        view = self._view(job_id, caller)
        if view.submitter != caller.key_id and not SEERS & caller.roles:
            raise NotFound()
        return view


def page(limit: int) -> int:
    """Return how many items a page has."""
    if not 0 <= limit <= 500:
        raise InvalidSpec(tell="limit must be 0 to 500")
    return limit or 100
