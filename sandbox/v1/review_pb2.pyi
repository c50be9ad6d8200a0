from sandbox.v1 import common_pb2 as _common_pb2
from sandbox.v1 import job_pb2 as _job_pb2
from sandbox.v1 import scenario_pb2 as _scenario_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Decision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECISION_UNSPECIFIED: _ClassVar[Decision]
    DECISION_APPROVE: _ClassVar[Decision]
    DECISION_REFUSE: _ClassVar[Decision]
    DECISION_SEND_BACK: _ClassVar[Decision]
DECISION_UNSPECIFIED: Decision
DECISION_APPROVE: Decision
DECISION_REFUSE: Decision
DECISION_SEND_BACK: Decision

class ReviewDecision(_message.Message):
    __slots__ = ("job_id", "plan_digest", "evidence_digest", "decision", "reason", "time_ms")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    plan_digest: bytes
    evidence_digest: bytes
    decision: Decision
    reason: str
    time_ms: int
    def __init__(self, job_id: _Optional[str] = ..., plan_digest: _Optional[bytes] = ..., evidence_digest: _Optional[bytes] = ..., decision: _Optional[_Union[Decision, str]] = ..., reason: _Optional[str] = ..., time_ms: _Optional[int] = ...) -> None: ...

class ReviewVerdict(_message.Message):
    __slots__ = ("decision",)
    DECISION_FIELD_NUMBER: _ClassVar[int]
    decision: _common_pb2.Signed
    def __init__(self, decision: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class ReviewQuery(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class CheckView(_message.Message):
    __slots__ = ("output", "check", "bound", "found")
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    BOUND_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    output: str
    check: str
    bound: str
    found: str
    def __init__(self, output: _Optional[str] = ..., check: _Optional[str] = ..., bound: _Optional[str] = ..., found: _Optional[str] = ...) -> None: ...

class ReleaseView(_message.Message):
    __slots__ = ("job_id", "kind", "merchant", "time_ms", "outputs")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MERCHANT_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    kind: _scenario_pb2.JobKind
    merchant: str
    time_ms: int
    outputs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, job_id: _Optional[str] = ..., kind: _Optional[_Union[_scenario_pb2.JobKind, str]] = ..., merchant: _Optional[str] = ..., time_ms: _Optional[int] = ..., outputs: _Optional[_Iterable[str]] = ...) -> None: ...

class DecisionView(_message.Message):
    __slots__ = ("reviewer", "decision", "reason", "time_ms")
    REVIEWER_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    reviewer: str
    decision: Decision
    reason: str
    time_ms: int
    def __init__(self, reviewer: _Optional[str] = ..., decision: _Optional[_Union[Decision, str]] = ..., reason: _Optional[str] = ..., time_ms: _Optional[int] = ...) -> None: ...

class ReviewView(_message.Message):
    __slots__ = ("job_id", "kind", "state", "plan_digest", "evidence_digest", "scenario", "scenario_digest", "purpose", "merchant", "controller", "recipient", "recipient_node", "outputs", "parties", "checks", "history", "decisions", "approvals_needed", "held_ms", "due_ms", "is_due_soon", "sample", "asked", "reveals")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    SCENARIO_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    MERCHANT_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_NODE_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    PARTIES_FIELD_NUMBER: _ClassVar[int]
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    APPROVALS_NEEDED_FIELD_NUMBER: _ClassVar[int]
    HELD_MS_FIELD_NUMBER: _ClassVar[int]
    DUE_MS_FIELD_NUMBER: _ClassVar[int]
    IS_DUE_SOON_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    REVEALS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    kind: _scenario_pb2.JobKind
    state: str
    plan_digest: bytes
    evidence_digest: bytes
    scenario: str
    scenario_digest: bytes
    purpose: str
    merchant: str
    controller: str
    recipient: str
    recipient_node: str
    outputs: _containers.RepeatedCompositeFieldContainer[_scenario_pb2.OutputRule]
    parties: _containers.RepeatedScalarFieldContainer[str]
    checks: _containers.RepeatedCompositeFieldContainer[CheckView]
    history: _containers.RepeatedCompositeFieldContainer[ReleaseView]
    decisions: _containers.RepeatedCompositeFieldContainer[DecisionView]
    approvals_needed: int
    held_ms: int
    due_ms: int
    is_due_soon: bool
    sample: str
    asked: _containers.RepeatedScalarFieldContainer[str]
    reveals: _containers.RepeatedCompositeFieldContainer[_job_pb2.Reveal]
    def __init__(self, job_id: _Optional[str] = ..., kind: _Optional[_Union[_scenario_pb2.JobKind, str]] = ..., state: _Optional[str] = ..., plan_digest: _Optional[bytes] = ..., evidence_digest: _Optional[bytes] = ..., scenario: _Optional[str] = ..., scenario_digest: _Optional[bytes] = ..., purpose: _Optional[str] = ..., merchant: _Optional[str] = ..., controller: _Optional[str] = ..., recipient: _Optional[str] = ..., recipient_node: _Optional[str] = ..., outputs: _Optional[_Iterable[_Union[_scenario_pb2.OutputRule, _Mapping]]] = ..., parties: _Optional[_Iterable[str]] = ..., checks: _Optional[_Iterable[_Union[CheckView, _Mapping]]] = ..., history: _Optional[_Iterable[_Union[ReleaseView, _Mapping]]] = ..., decisions: _Optional[_Iterable[_Union[DecisionView, _Mapping]]] = ..., approvals_needed: _Optional[int] = ..., held_ms: _Optional[int] = ..., due_ms: _Optional[int] = ..., is_due_soon: _Optional[bool] = ..., sample: _Optional[str] = ..., asked: _Optional[_Iterable[str]] = ..., reveals: _Optional[_Iterable[_Union[_job_pb2.Reveal, _Mapping]]] = ...) -> None: ...

class ListReviewsRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class ListReviewsResponse(_message.Message):
    __slots__ = ("reviews",)
    REVIEWS_FIELD_NUMBER: _ClassVar[int]
    reviews: _containers.RepeatedCompositeFieldContainer[ReviewView]
    def __init__(self, reviews: _Optional[_Iterable[_Union[ReviewView, _Mapping]]] = ...) -> None: ...

class GetReviewRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class GetReviewResponse(_message.Message):
    __slots__ = ("review",)
    REVIEW_FIELD_NUMBER: _ClassVar[int]
    review: ReviewView
    def __init__(self, review: _Optional[_Union[ReviewView, _Mapping]] = ...) -> None: ...

class DecideReviewRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class DecideReviewResponse(_message.Message):
    __slots__ = ("review",)
    REVIEW_FIELD_NUMBER: _ClassVar[int]
    review: ReviewView
    def __init__(self, review: _Optional[_Union[ReviewView, _Mapping]] = ...) -> None: ...
