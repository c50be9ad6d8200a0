"""Calls about jobs: plan, submit, follow, cancel, fetch.

Security:  a result is opened and checked before it is returned (``outcome``).
Units:     timeouts in seconds.
Errors:    a job that ended otherwise than released raises, where one waits for it, what its node says stopped it.
Not here:  building specs from files (``documents``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Final

from sandbox.client import specs
from sandbox.client.connection import ATTEMPTS, PAUSE_S, Connection
from sandbox.client.outcome import Outcome, open_result
from sandbox.client.trust import Trust
from sandbox.errors import DeadlinePassed, IntegrityFailed, JobFailed, PartyFailed
from sandbox.keyring import public_key
from sandbox.model import (
    ENDED,
    DatasetRef,
    JobQuery,
    JobSpec,
    JobSubmission,
    JobView,
    ListQuery,
    PeerCard,
    PlanView,
    PsiEngine,
    ResultHead,
    ScoreScope,
    SealedInput,
    Signed,
    State,
)
from sandbox.peer.failures import error_of

WATCH_S: Final = 30.0  # one watch stream; a node that says nothing at all on one is called silent
RESULT_S: Final = 300.0
MAX_RESULT: Final = 1 << 31  # bytes


class JobCalls:
    """What a submitter and a recipient can do."""

    _line: Connection

    def plan(self, spec: JobSpec, inputs: Sequence[SealedInput] = ()) -> PlanView:
        """Say what a job would do, cost and reveal, without running it."""
        answer = self._line.call("JobService/PlanJob", JobSubmission(spec, tuple(inputs)))
        return self._line.read(PlanView, answer.plan)

    def submit(self, spec: JobSpec, inputs: Sequence[SealedInput] = (), *, test: bool = False) -> JobView:
        """Submit a job; the same request id again returns the same job.

        Args:
            test: in the test environment, over the twins of the datasets; so in all calls below.
        """
        return self._job("SubmitJob", JobSubmission(specs.on_twins(spec) if test else spec, tuple(inputs)))

    def align(
        self,
        scenario_digest: bytes,
        left: DatasetRef,
        right: DatasetRef,
        engine: PsiEngine = PsiEngine.AUTO,
        test: bool = False,
        **options: Any,
    ) -> JobView:
        """Submit an intersection; ``options`` as in ``specs.align``."""
        return self.submit(specs.align(scenario_digest, left, right, engine, **options), test=test)

    def aggregate(
        self, scenario_digest: bytes, datasets: Sequence[DatasetRef] = (), test: bool = False, **options: Any
    ) -> JobView:
        """Submit a table of totals; ``options`` as in ``specs.aggregate``."""
        return self.submit(specs.aggregate(scenario_digest, datasets, **options), test=test)

    def query(
        self, scenario_digest: bytes, source: specs.Source, sql: str, test: bool = False, **options: Any
    ) -> JobView:
        """Submit one statement over a dataset, or over what two owners share; ``options`` as in ``specs.query``."""
        return self.submit(specs.query(scenario_digest, source, sql, **options), test=test)

    def run_model(
        self,
        scenario_digest: bytes,
        source: specs.Source,
        bundle: bytes,
        params: Mapping[str, Any] | None = None,
        test: bool = False,
        **options: Any,
    ) -> JobView:
        """Submit a run of a model of one's own; ``options`` as in ``specs.model``."""
        return self.submit(specs.model(scenario_digest, source, bundle, params, **options), test=test)

    def train(self, scenario_digest: bytes, alignment: str, test: bool = False, **options: Any) -> JobView:
        """Submit a training run over a released alignment; ``options`` as in ``specs.train``."""
        return self.submit(specs.train(scenario_digest, alignment, **options), test=test)

    def score(
        self,
        scenario_digest: bytes,
        model: str,
        scope: ScoreScope = ScoreScope.HOLDOUT,
        test: bool = False,
        **options: Any,
    ) -> JobView:
        """Submit a batch of scores by a released model; ``options`` as in ``specs.score``."""
        return self.submit(specs.score(scenario_digest, model, scope, **options), test=test)

    def score_applicant(
        self,
        scenario_digest: bytes,
        model: str,
        subject_id: str,
        consent: Signed,
        parties: Sequence[PeerCard],
        test: bool = False,
        subject_key: Signed | None = None,
        **options: Any,
    ) -> JobView:
        """Submit one person's score; ``parties`` are the nodes that own the data.

        Args:
            subject_key: of a consent signed with the person's own key: an issuer's word about that key.
        """
        applicant = specs.Applicant(subject_id, consent, tuple(parties), subject_key)
        return self.submit(*specs.score_applicant(scenario_digest, model, applicant, **options), test=test)

    def job(self, job_id: str) -> JobView:
        """Return one job."""
        return self._job("GetJob", JobQuery(job_id))

    def console(self, job_id: str) -> str:
        """Return what one's own code printed in the test environment."""
        answer = self._line.call("JobService/GetConsole", JobQuery(job_id))
        return bytes(answer.text).decode(errors="replace")

    def jobs(self, after: str = "", limit: int = 0) -> tuple[JobView, ...]:
        """Return one page of the caller's jobs, newest first; ``after`` is the last job id of the page before."""
        answer = self._line.call("JobService/ListJobs", ListQuery(after, limit))
        return tuple(self._line.read(JobView, job) for job in answer.jobs)

    def cancel(self, job_id: str) -> JobView:
        """Stop a job at every party."""
        return self._job("CancelJob", JobQuery(job_id))

    def watch(self, job_id: str, timeout_s: float = 86400.0) -> Iterator[JobView]:
        """Yield the job now and after every change, until it has ended; a lost node is looked for again.

        Raises:
            DeadlinePassed: it has not ended in time; it goes on at the node.
        """
        end = time.monotonic() + timeout_s
        last: JobView | None = None
        failures = 0
        while last is None or last.state not in ENDED:
            left = end - time.monotonic()
            if left <= 0:
                tell = f"job {job_id} has not ended in {timeout_s:g} s; it goes on"
                raise DeadlinePassed(tell=tell, party=self._line.node.node_id, hint="watch it again later")
            try:
                for view in self._watch_once(job_id, min(WATCH_S, left)):
                    failures = 0
                    if view != last:
                        last = view
                        yield view
                if last is not None and last.state not in ENDED:
                    time.sleep(PAUSE_S)  # never in a tight loop, whatever the node does
            except PartyFailed:
                failures += 1
                if failures == ATTEMPTS:
                    raise
                time.sleep(PAUSE_S * 2**failures)

    def wait(self, job_id: str, timeout_s: float = 3600.0) -> JobView:
        """Return the job once it is released, or raise what stopped it.

        Raises:
            DeadlinePassed: it has not ended in time; it goes on at the node.
        """
        *_, last = self.watch(job_id, timeout_s)
        return released(last)

    def result(self, job_id: str, trust: Trust | None = None) -> Outcome:
        """Fetch, open and check what a job released to this person; with ``trust``, the receipt's signatures too."""
        head, sealed = self._fetch(job_id)
        outcome = open_result(self._line.person, public_key(self._line.node), head, sealed)
        if trust is not None:
            outcome.verify(trust)
        return outcome

    def _job(self, method: str, body: object) -> JobView:
        return self._line.read(JobView, self._line.call(f"JobService/{method}", body).job)

    def _watch_once(self, job_id: str, timeout_s: float) -> Iterator[JobView]:
        """Yield what one stream says; that its time is over is no failure if it said anything."""
        heard = False
        with closing(self._line.stream("JobService/WatchJob", JobQuery(job_id), timeout_s=timeout_s)) as stream:
            try:
                for message in stream:
                    heard = True
                    yield self._line.read(JobView, message.job)
            except DeadlinePassed:
                if not heard and timeout_s == WATCH_S:
                    raise
                return
        if not heard:
            raise PartyFailed(tell="the node ended a watch without a word", party=self._line.node.node_id)

    def _fetch(self, job_id: str) -> tuple[ResultHead, bytes]:
        name = self._line.node.node_id
        with closing(self._line.stream("JobService/GetResult", JobQuery(job_id), timeout_s=RESULT_S)) as stream:
            first = next(stream, None)
            if first is None or first.WhichOneof("part") != "head":
                raise PartyFailed(tell="the node sent a result without its head", party=name)
            head = self._line.read(ResultHead, first.head)
            sealed = bytearray()
            for message in stream:
                sealed += message.chunk
                if len(sealed) > min(head.size, MAX_RESULT):
                    raise IntegrityFailed("the result is longer than announced", party=name)
        if head.job_id != job_id or len(sealed) != head.size:
            raise IntegrityFailed("the result is of another job, or cut short", party=name)
        return head, bytes(sealed)


def released(view: JobView) -> JobView:
    """Return a job that is released; raise what stopped one that ended otherwise."""
    if view.state is State.RELEASED:
        return view
    if view.failure is not None:
        raise error_of(view.failure)
    raise JobFailed(tell=f"job {view.job_id} is {view.state.name.lower()}")
