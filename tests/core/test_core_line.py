"""The order of the line every party runs: what must be durable, granted or in place before what may leave, also where
a party went away in between, and after a restart."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from sandbox.errors import Interrupted, JobFailed, PartyFailed, SandboxError
from sandbox.model import Environment, JobKind, OutputClass, PartyRole, RawResult, State
from sandbox.pipeline import RESUMES, Live, Pipeline

RAW = RawResult({"rows": 20, "group.aligned": 20}, {}, {})


class Recorder:
    """Stands in for the ledger, the exchange and the wires: notes the order in which the line calls them."""

    def __init__(self, here: str, *computed: SandboxError | None, unfinished: Mapping[str, Any] | None = None) -> None:
        """Args:
        computed: how the computation ends, one time after another; after that well.
        unfinished: jobs of before a restart, each with its state and whether its setting was kept.
        """
        self.calls: list[str] = []
        self.node_id, self.traffic = here, 0
        self.log_in_order = asyncio.Lock()
        self.computed, self.before = list(computed), unfinished or {}
        self.stopped: dict[str, SandboxError] = {}

    @contextlib.asynccontextmanager
    async def open(self, *_: Any) -> Any:
        yield self

    @contextlib.asynccontextmanager
    async def reopen(self, *_: Any) -> Any:
        self.calls.append("reopen")
        yield self

    def owns(self, plan: Any) -> bool:
        return True

    def scenario(self, plan: Any) -> None:
        return None

    def grant(self, job: Any, which: str) -> str:
        return which

    def failure(self, error: SandboxError, stage: str) -> Any:
        return SimpleNamespace(stage=stage, code=type(error).__name__)

    async def compute(self, setting: Any, parts: int, when_all_are_ready: Any, on_done: Any) -> RawResult:
        await when_all_are_ready()
        self.calls.append("compute")
        on_done(1)
        error = self.computed.pop(0) if self.computed else None
        if error is not None:
            raise error
        return RAW

    async def unfinished(self) -> list[str]:
        return list(self.before)

    async def job(self, job_id: str) -> Any:
        return job(job_id, self.before[job_id][0])

    async def can_resume(self, job: Any) -> bool:
        return job.state is State.RUNNING and self.before[job.job_id][1]

    async def stop(self, job: Any, error: SandboxError, failure: Any) -> None:
        self.calls.append("stop")
        self.stopped[job.job_id] = error

    def __getattr__(self, name: str) -> Any:
        async def called(*arguments: Any, **named: Any) -> Any:
            self.calls.append(f"{name}:{arguments[0]}" if name == "work" else name)
            if name == "work":
                return RAW
            return SimpleNamespace(rows={"bank": 900, "operator": 900}, note=b"note")

        return called


def job(job_id: str = "a" * 32, state: State = State.RUNNING) -> Any:
    plan = SimpleNamespace(
        environment=Environment.PRODUCTION,
        kind=JobKind.SCORE,
        outputs=(SimpleNamespace(name="scores", class_=OutputClass.ROW_CONSENTED, reviewed=False),),
        parties=(
            SimpleNamespace(node_id="bank", role=PartyRole.LEFT),
            SimpleNamespace(node_id="operator", role=PartyRole.RIGHT),
        ),
        recipient_node="bank",
        deadline_s=10,
    )
    call = SimpleNamespace(key_id="s" * 32)
    return SimpleNamespace(job_id=job_id, plan=plan, spec=None, state=state, submission=call)


def line(here: str, *computed: SandboxError | None) -> list[str]:
    recorder = Recorder(here, *computed)
    pipeline = Pipeline(recorder, recorder)  # type: ignore[arg-type]
    asyncio.run(pipeline._carry(job(), Live("s" * 32), None, {}))  # type: ignore[arg-type]
    return [call for call in recorder.calls if call != "stage"]


@pytest.mark.parametrize("here", ["bank", "operator"])
@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("agree", "compute"),
        ("run", "spend"),
        ("spend", "compute"),  # quota is spent before anything is computed
        ("compute", "judge"),
        ("judge", "grants"),
        ("grants", "release"),  # every owner's leave, before the entry
        ("release", "shares"),  # the entry, before the last share
        ("shares", "close"),
        ("close", "closed"),  # in place here, before the others hear of it
    ],
)
def test_one_comes_before_the_other(here: str, first: str, then: str) -> None:
    calls = line(here)
    assert calls.index(first) < calls.index(then)


def test_the_recipients_node_delivers_last() -> None:
    """Once the submitter sees the release the next job may come: it must find what it builds on at every party."""
    calls = line("bank")
    assert calls.index("others_closed") < calls.index("deliver") < calls.index("cosign") < calls.index("seal")
    assert "deliver" not in line("operator")


# --- a party went away, and came back -------------------------------------------------------------------------------


@pytest.mark.parametrize("here", ["bank", "operator"])
@pytest.mark.parametrize("times", range(1, RESUMES + 1))
def test_an_interrupted_job_is_taken_up_where_its_parts_were_left(here: str, times: int) -> None:
    calls = line(here, *[Interrupted(party="operator")] * times)
    assert calls.count("agree") == calls.count("run") == calls.count("release") == 1  # the terms are those of before
    assert calls.count("resumed") == calls.count("reopen") == calls.count("resume") == times
    assert calls.count("compute") == times + 1
    again = calls[calls.index("resumed") :]
    order = ["resumed", "reopen", "resume", "compute"]
    assert [call for call in again if call in order][:4] == order
    assert calls.index("grants") > max(n for n, call in enumerate(calls) if call == "compute")
    whole = line(here)
    assert calls[-5:] == whole[-5:]  # it ends as one that was never interrupted


def test_one_that_is_interrupted_too_often_ends() -> None:
    with pytest.raises(Interrupted):
        line("bank", *[Interrupted(party="operator")] * (RESUMES + 1))


def test_a_job_whose_party_ended_it_is_not_taken_up() -> None:
    recorder = Recorder("bank", PartyFailed(party="operator"))
    pipeline = Pipeline(recorder, recorder)  # type: ignore[arg-type]
    with pytest.raises(PartyFailed):
        asyncio.run(pipeline._carry(job(), Live("s" * 32), None, {}))  # type: ignore[arg-type]
    assert "resumed" not in recorder.calls and "release" not in recorder.calls


BEFORE = {
    "a" * 32: (State.RUNNING, True),
    "b" * 32: (State.RUNNING, False),
    "c" * 32: (State.ADMITTED, False),
    "d" * 32: (State.ADMITTED, True),
}


def test_after_a_restart_only_jobs_that_ran_in_parts_are_taken_up() -> None:
    recorder = Recorder("bank", unfinished=BEFORE)

    async def restart() -> None:
        pipeline = Pipeline(recorder, recorder)  # type: ignore[arg-type]
        await pipeline.recover()
        task = pipeline._live["a" * 32].task
        assert task is not None and len(pipeline._live) == 1
        await task
        assert pipeline._live == {}

    asyncio.run(restart())
    assert set(recorder.stopped) == {"b" * 32, "c" * 32, "d" * 32}
    for error in recorder.stopped.values():
        assert isinstance(error, JobFailed) and error.tell == "the node was restarted" and error.party == "bank"
    assert "agree" not in recorder.calls and "run" not in recorder.calls
    resumed = [call for call in recorder.calls if call in ("resumed", "resume", "compute", "release", "seal", "close")]
    assert resumed == ["resumed", "resume", "compute", "release", "seal", "close"]


def test_a_node_that_is_stopped_leaves_what_can_be_taken_up_as_it_is() -> None:
    for resumable in (True, False):
        recorder = Recorder("bank")

        async def stop(recorder: Recorder = recorder, resumable: bool = resumable) -> None:
            pipeline = Pipeline(recorder, recorder)  # type: ignore[arg-type]

            async def work(live: Live) -> None:
                live.resumable = resumable
                await asyncio.sleep(60)

            live = pipeline._start(job(), work)
            await asyncio.sleep(0.05)
            await pipeline.close()
            assert isinstance(live.reason, Interrupted if resumable else JobFailed)
            assert live.reason is not None and live.reason.tell == "the node was stopped"

        asyncio.run(stop())
        assert (list(recorder.stopped) == []) is resumable
