"""Calls about scenarios: apply, approve, list, revoke.

Security:  an application and an approval are signed by the person, over the bytes that every party keeps; the digest
           that a node gives back must be the digest of what was signed here.
Errors:    ``IntegrityFailed`` if a node files something else than what was signed.
Not here:  writing a scenario (``documents``).
"""

from __future__ import annotations

from sandbox import signed, wire
from sandbox.client.connection import Connection
from sandbox.errors import IntegrityFailed
from sandbox.model import (
    Approval,
    ApprovalDecision,
    ListQuery,
    RevocationNotice,
    Scenario,
    ScenarioApplication,
    ScenarioView,
)


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

    def revoke_scenario(self, digest: bytes, reason: str) -> ScenarioView:
        """End a scenario: nothing is admitted under it any more, running jobs are cancelled."""
        return self._scenario("RevokeScenario", RevocationNotice(digest, reason))

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
