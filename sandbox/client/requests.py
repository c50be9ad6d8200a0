"""Requests in protobuf's JSON, for programs that call a node without this SDK.

    {"jobId": "..."} --body_from_json--> body bytes --sign--> Signed --to_json--> {"signed": {...}} --> grpcurl -d @

Shapes:    JSON as protobuf maps it: bytes in base64, names in camel or snake case.
Errors:    ``InvalidSpec`` for a body that the node would refuse.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import Message

from sandbox import model, wire
from sandbox.client.connection import full_name
from sandbox.errors import InvalidSpec
from sandbox.model import Signed
from sandbox.v1 import audit_pb2, catalog_pb2, common_pb2, consent_pb2, job_pb2, model_pb2, review_pb2, scenario_pb2

BODIES: Final[dict[str, type[Message]]] = {
    "AuditService/ListEntries": audit_pb2.EntryQuery,
    "AuditService/GetCheckpoint": audit_pb2.CheckpointQuery,
    "AuditService/GetInclusion": audit_pb2.InclusionQuery,
    "AuditService/GetConsistency": audit_pb2.ConsistencyQuery,
    "AuditService/Cosign": audit_pb2.CosignQuery,
    "CatalogService/RegisterDataset": catalog_pb2.DatasetRegistration,
    "CatalogService/ListDatasets": scenario_pb2.ListQuery,
    "CatalogService/GetDataset": catalog_pb2.DatasetQuery,
    "CatalogService/DestroyDataset": catalog_pb2.DatasetQuery,
    "CatalogService/SearchDatasets": catalog_pb2.DatasetSearch,
    "CatalogService/SampleDataset": catalog_pb2.DatasetQuery,
    "CatalogService/MakeTwin": catalog_pb2.TwinOrder,
    "CatalogService/GetTwin": catalog_pb2.DatasetQuery,
    "ConsentService/WithdrawConsent": consent_pb2.SealedWithdrawal,
    "ConsentService/ListChallenges": scenario_pb2.ListQuery,
    "ConsentService/GetChallenge": consent_pb2.ChallengeQuery,
    "ConsentService/ProduceLetter": consent_pb2.LetterUpload,
    "ConsentService/GetLetter": consent_pb2.LetterQuery,
    "ConsentService/JudgeLetter": common_pb2.Signed,
    "JobService/PlanJob": job_pb2.JobSubmission,
    "JobService/SubmitJob": job_pb2.JobSubmission,
    "JobService/GetJob": job_pb2.JobQuery,
    "JobService/ListJobs": scenario_pb2.ListQuery,
    "JobService/WatchJob": job_pb2.JobQuery,
    "JobService/CancelJob": job_pb2.JobQuery,
    "JobService/GetResult": job_pb2.JobQuery,
    "JobService/GetConsole": job_pb2.JobQuery,
    "ModelService/PutBundle": model_pb2.BundleUpload,
    "ModelService/ListBundles": scenario_pb2.ListQuery,
    "ModelService/GetQuote": model_pb2.QuoteQuery,
    "ModelService/WithdrawBundle": model_pb2.BundleQuery,
    "ReviewService/ListReviews": scenario_pb2.ListQuery,
    "ReviewService/GetReview": review_pb2.ReviewQuery,
    "ReviewService/DecideReview": review_pb2.ReviewVerdict,
    "ScenarioService/ApplyScenario": scenario_pb2.ScenarioApplication,
    "ScenarioService/ApproveScenario": scenario_pb2.ApprovalDecision,
    "ScenarioService/ListScenarios": scenario_pb2.ListQuery,
    "ScenarioService/NotifyScenario": scenario_pb2.Announcement,
}


def body_from_json(method: str, text: str) -> bytes:
    """Return the encoded body of one method, checked as the node would."""
    message = BODIES[full_name(method).removeprefix("/sandbox.v1.")]()
    name = type(message).__name__
    try:
        json_format.Parse(text, message)
    except json_format.ParseError as error:
        raise InvalidSpec(tell=f"not a {name} in JSON: {error}") from None
    return wire.encode(wire.from_proto(getattr(model, name), message))


def to_json(signed: Signed) -> dict[str, Any]:
    """Return the request message that holds ``signed``."""
    return {"signed": json_format.MessageToDict(wire.to_proto(signed))}
