"""The SDK: everything that a notebook or a merchant's program needs.

    with Client.connect(Path("officer"), Path("bank.peer")) as bank:
        job = bank.align(scenario_digest, left, right)
        bank.wait(job.job_id)
        outcome = bank.result(job.job_id, Trust.from_file(Path("bank.trust")))

Errors:    always one of ``sandbox.errors``: ``party``, ``stage``, ``tell`` (the cause), ``hint`` (the next step).
Not here:  anything that needs a node's home or its keys.
"""

from sandbox.client.application import read_draft, scenario_from_toml
from sandbox.client.audit import LoggedEntry, SignedHead
from sandbox.client.client import Client
from sandbox.client.consents import Challenged, certify_subject, issue_consent, sign_consent, withdraw
from sandbox.client.datasets import Terms
from sandbox.client.documents import job_from_file
from sandbox.client.drafts import draft_schema
from sandbox.client.models import Quoted
from sandbox.client.outcome import Outcome
from sandbox.client.scenarios import Difference, differences, read_scenario
from sandbox.client.specs import Applicant
from sandbox.client.trust import Proven, Trust

__all__ = [
    "Applicant",
    "Challenged",
    "Client",
    "Difference",
    "LoggedEntry",
    "Outcome",
    "Proven",
    "Quoted",
    "SignedHead",
    "Terms",
    "Trust",
    "certify_subject",
    "differences",
    "draft_schema",
    "issue_consent",
    "job_from_file",
    "read_draft",
    "read_scenario",
    "scenario_from_toml",
    "sign_consent",
    "withdraw",
]
