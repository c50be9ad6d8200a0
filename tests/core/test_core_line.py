"""The order of the line every party runs: what must be durable, granted or in place before what may leave."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from sandbox.model import JobKind, OutputClass, PartyRole, RawResult
from sandbox.pipeline import Live, Pipeline

RAW = RawResult({"rows": 20, "group.aligned": 20}, {}, {})


class Recorder:
    """Stands in for the ledger, the exchange and the wires: notes the order in which the line calls them."""

    def __init__(self, here: str) -> None:
        self.node_id, self.calls, self.traffic = here, [], 0
        self.log_in_order = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def open(self, *_: Any) -> Any:
        yield self

    def owns(self, plan: Any) -> bool:
        return True

    def grant(self, job: Any, which: str) -> str:
        return which

    def __getattr__(self, name: str) -> Any:
        async def called(*arguments: Any, **named: Any) -> Any:
            self.calls.append(f"{name}:{arguments[0]}" if name == "work" else name)
            if name == "work":
                if "when_all_are_ready" in named:
                    await named["when_all_are_ready"]()
                return RAW
            return SimpleNamespace(rows={"bank": 900, "operator": 900}, note=b"note")

        return called


def line(here: str) -> list[str]:
    plan = SimpleNamespace(
        kind=JobKind.SCORE,
        outputs=(SimpleNamespace(name="scores", class_=OutputClass.ROW_CONSENTED, max_rows=50),),
        parties=(
            SimpleNamespace(node_id="bank", role=PartyRole.LEFT),
            SimpleNamespace(node_id="operator", role=PartyRole.RIGHT),
        ),
        recipient_node="bank",
    )
    recorder = Recorder(here)
    pipeline = Pipeline(recorder, recorder)  # type: ignore[arg-type]
    job = SimpleNamespace(job_id="a" * 32, plan=plan)
    asyncio.run(pipeline._carry(job, Live(), None, {}))  # type: ignore[arg-type]
    return [call for call in recorder.calls if call != "stage"]


@pytest.mark.parametrize("here", ["bank", "operator"])
@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("agree", "work:compute"),
        ("spend", "grants"),  # quota is spent before anything was computed
        ("work:compute", "grants"),
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
