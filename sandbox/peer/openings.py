"""Which jobs are open at this node, and who waits for one to be: the other side of a job may be faster.

Errors:    ``WrongState`` for a job that is open already, or did not open in time.
Not here:  whether a peer belongs to a job (``job``).
"""

from __future__ import annotations

import asyncio

from sandbox.errors import WrongState
from sandbox.peer.handshake import STAGE
from sandbox.peer.job import JobLinks


class Openings:
    """The open jobs by id."""

    def __init__(self) -> None:
        self._jobs: dict[str, JobLinks] = {}
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    @property
    def jobs(self) -> tuple[JobLinks, ...]:
        """Every open job."""
        return tuple(self._jobs.values())

    @property
    def awaited(self) -> tuple[str, ...]:
        """The jobs somebody waits for."""
        return tuple(self._waiting)

    def add(self, job: JobLinks) -> None:
        """Open a job and wake who waits for it.

        Raises:
            WrongState: it is open already.
        """
        if job.job_id in self._jobs:
            raise WrongState(f"job {job.job_id} is open already", tell="this job is running already")
        self._jobs[job.job_id] = job
        for waiter in self._waiting.get(job.job_id, ()):
            if not waiter.done():
                waiter.set_result(None)

    def remove(self, job: JobLinks) -> None:
        """Close a job."""
        if self._jobs.get(job.job_id) is job:
            del self._jobs[job.job_id]

    async def get(self, job_id: str, timeout_s: float) -> JobLinks:
        """Return a job as soon as it is open.

        Raises:
            WrongState: it did not open in time.
        """
        if job_id not in self._jobs:
            waiter = asyncio.get_running_loop().create_future()
            waiters = self._waiting.setdefault(job_id, [])
            waiters.append(waiter)
            try:
                await asyncio.wait({waiter}, timeout=timeout_s)
            finally:
                waiters.remove(waiter)
                if not waiters:
                    self._waiting.pop(job_id, None)
        if job_id not in self._jobs:
            raise WrongState(f"job {job_id} is not open", tell="this job is not open here", stage=STAGE)
        return self._jobs[job_id]
