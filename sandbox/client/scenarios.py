"""Calls about scenarios: apply, approve, list, find, refuse, suspend, revoke.

Security:  an application and an approval are signed by the person, over the bytes that every party keeps; the digest
           that a node gives back must be the digest of what was signed here.
Errors:    ``IntegrityFailed`` if a node files something else than what was signed.
Not here:  writing a scenario (``application``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sandbox import signed, wire
from sandbox.client.connection import Connection
from sandbox.errors import IntegrityFailed, NotFound
from sandbox.model import (
    Announcement,
    Approval,
    ApprovalDecision,
    ListQuery,
    NoticeKind,
    OutputRule,
    Scenario,
    ScenarioApplication,
    ScenarioView,
)


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that differs; None where one side has no such field."""

    field: str
    before: Any
    after: Any


class ScenarioCalls:
    """What applicants and approvers can do."""

    _line: Connection

    def apply_scenario(self, scenario: Scenario) -> ScenarioView:
        """Sign a scenario and file it with this node, which hands it to every party it names."""
        made = signed.sign(self._line.person.identity, "scenario", scenario)
        view = self._scenario("ApplyScenario", ScenarioApplication(made))
        if view.digest != signed.digest("scenario", made):
            raise IntegrityFailed("the node filed another scenario than was signed", party=self._line.node.node_id)
        return view

    def scenarios(self, after: str = "", limit: int = 0) -> tuple[ScenarioView, ...]:
        """Return one page of the scenarios this node holds."""
        answer = self._line.call("ScenarioService/ListScenarios", ListQuery(after, limit))
        return tuple(self._line.read(ScenarioView, scenario) for scenario in answer.scenarios)

    def approve_scenario(
        self, digest: bytes, party: str = "", accepts_simulated: bool = False, accepts_two_contributors: bool = False
    ) -> ScenarioView:
        """Approve in the name of ``party``, this node's organisation by default; look at the scenario first."""
        name = party or self._line.node.node_id
        approval = Approval(digest, name, accepts_simulated, signed.now_ms(), accepts_two_contributors)
        made = signed.sign(self._line.person.identity, "approval", approval)
        return self._scenario("ApproveScenario", ApprovalDecision(made))

    def notify_scenario(self, digest: bytes, kind: NoticeKind, reason: str = "") -> ScenarioView:
        """Say something of a scenario in the name of this node's organisation; the other parties are told."""
        return self._scenario("NotifyScenario", Announcement(digest, kind, reason))

    def refuse_scenario(self, digest: bytes, reason: str) -> ScenarioView:
        """Say that it will not be approved as it is; a later approval takes that back."""
        return self.notify_scenario(digest, NoticeKind.REFUSED, reason)

    def ask_changes(self, digest: bytes, reason: str) -> ScenarioView:
        """Say what would have to be changed; the applicant applies anew, naming this one as amended."""
        return self.notify_scenario(digest, NoticeKind.CHANGES, reason)

    def suspend_scenario(self, digest: bytes, reason: str) -> ScenarioView:
        """Stop a scenario until whoever stopped it resumes it: nothing is admitted, running jobs are cancelled."""
        return self.notify_scenario(digest, NoticeKind.SUSPENDED, reason)

    def resume_scenario(self, digest: bytes, reason: str = "") -> ScenarioView:
        """Take the own suspension back."""
        return self.notify_scenario(digest, NoticeKind.RESUMED, reason)

    def revoke_scenario(self, digest: bytes, reason: str) -> ScenarioView:
        """End a scenario for good: nothing is admitted under it any more, running jobs are cancelled."""
        return self.notify_scenario(digest, NoticeKind.REVOKED, reason)

    def find_scenario(self, digest: bytes) -> ScenarioView:
        """Return one of the scenarios this node holds.

        Raises:
            NotFound: it holds none of that digest, or not for you.
        """
        after = (int.from_bytes(digest) - 1).to_bytes(len(digest)) if any(digest) else b""
        for view in self.scenarios(after.hex(), 1):
            if view.digest == digest:
                return view
        raise NotFound(tell=f"your node holds no scenario {digest.hex()}", party=self._line.node.node_id)

    def _scenario(self, method: str, body: object) -> ScenarioView:
        answer = self._line.call(f"ScenarioService/{method}", body)
        return self._line.read(ScenarioView, answer.scenario)


def read_scenario(view: ScenarioView) -> Scenario:
    """Return the scenario in a view, after checking that it is the one its digest names.

    Raises:
        IntegrityFailed: it is not.
    """
    if signed.digest("scenario", view.scenario) != view.digest:
        raise IntegrityFailed("a scenario does not have the digest under which it is listed")
    return wire.decode(Scenario, view.scenario.payload)


def differences(before: Scenario, after: Scenario) -> tuple[Difference, ...]:
    """Return what differs between two scenarios, field by field; not their nonces, and not what they amend."""
    old, new = (dict(_leaves(plain, "")) for plain in (before, after))
    names = [*old, *(name for name in new if name not in old)]
    changed = (Difference(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name))
    return tuple(one for one in changed if one.field not in ("nonce", "amends"))


def _leaves(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Yield every value in a shape with its path; of lists of shapes, by what the shapes are called."""
    if dataclasses.is_dataclass(value):
        for part in dataclasses.fields(value):
            name = part.name.rstrip("_")
            yield from _leaves(getattr(value, part.name), f"{where}.{name}" if where else name)
    elif isinstance(value, tuple) and any(dataclasses.is_dataclass(item) for item in value):
        called = [_called(item) for item in value]
        names = tuple(f"{one} {n}" if called.count(one) > 1 else one for n, one in enumerate(called, 1))
        yield where, names
        for name, item in zip(names, value, strict=True):
            yield from _leaves(item, f"{where}.{name}")
    else:
        yield where, value


def _called(item: Any) -> str:
    if isinstance(item, OutputRule):
        return f"{item.kind.name.lower()}.{item.name}"
    return str(getattr(item, "code", "") or getattr(item, "name", "") or item.column)
