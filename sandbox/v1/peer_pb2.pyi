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

class PartyRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PARTY_ROLE_UNSPECIFIED: _ClassVar[PartyRole]
    PARTY_ROLE_LEFT: _ClassVar[PartyRole]
    PARTY_ROLE_RIGHT: _ClassVar[PartyRole]
    PARTY_ROLE_COMPUTE: _ClassVar[PartyRole]
    PARTY_ROLE_THIRD: _ClassVar[PartyRole]
    PARTY_ROLE_CONTRIBUTOR: _ClassVar[PartyRole]

class ChannelPurpose(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHANNEL_PURPOSE_UNSPECIFIED: _ClassVar[ChannelPurpose]
    CHANNEL_PURPOSE_CONTROL: _ClassVar[ChannelPurpose]
    CHANNEL_PURPOSE_RELAY: _ClassVar[ChannelPurpose]

class SealMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEAL_MODE_UNSPECIFIED: _ClassVar[SealMode]
    SEAL_MODE_SM4: _ClassVar[SealMode]
    SEAL_MODE_TLS: _ClassVar[SealMode]
PARTY_ROLE_UNSPECIFIED: PartyRole
PARTY_ROLE_LEFT: PartyRole
PARTY_ROLE_RIGHT: PartyRole
PARTY_ROLE_COMPUTE: PartyRole
PARTY_ROLE_THIRD: PartyRole
PARTY_ROLE_CONTRIBUTOR: PartyRole
CHANNEL_PURPOSE_UNSPECIFIED: ChannelPurpose
CHANNEL_PURPOSE_CONTROL: ChannelPurpose
CHANNEL_PURPOSE_RELAY: ChannelPurpose
SEAL_MODE_UNSPECIFIED: SealMode
SEAL_MODE_SM4: SealMode
SEAL_MODE_TLS: SealMode

class Party(_message.Message):
    __slots__ = ("node_id", "role", "dataset", "content_hash", "fields")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    role: PartyRole
    dataset: _job_pb2.DatasetRef
    content_hash: bytes
    fields: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, node_id: _Optional[str] = ..., role: _Optional[_Union[PartyRole, str]] = ..., dataset: _Optional[_Union[_job_pb2.DatasetRef, _Mapping]] = ..., content_hash: _Optional[bytes] = ..., fields: _Optional[_Iterable[str]] = ...) -> None: ...

class Plan(_message.Message):
    __slots__ = ("job_id", "proposer", "kind", "scenario_digest", "submission_digest", "parties", "engine", "outputs", "recipient", "recipient_node", "deadline_s", "reveals", "isolation", "time_ms", "environment")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    PROPOSER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SCENARIO_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SUBMISSION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PARTIES_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_NODE_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    REVEALS_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    proposer: str
    kind: _scenario_pb2.JobKind
    scenario_digest: bytes
    submission_digest: bytes
    parties: _containers.RepeatedCompositeFieldContainer[Party]
    engine: str
    outputs: _containers.RepeatedCompositeFieldContainer[_scenario_pb2.OutputRule]
    recipient: str
    recipient_node: str
    deadline_s: int
    reveals: _containers.RepeatedCompositeFieldContainer[_job_pb2.Reveal]
    isolation: str
    time_ms: int
    environment: _job_pb2.Environment
    def __init__(self, job_id: _Optional[str] = ..., proposer: _Optional[str] = ..., kind: _Optional[_Union[_scenario_pb2.JobKind, str]] = ..., scenario_digest: _Optional[bytes] = ..., submission_digest: _Optional[bytes] = ..., parties: _Optional[_Iterable[_Union[Party, _Mapping]]] = ..., engine: _Optional[str] = ..., outputs: _Optional[_Iterable[_Union[_scenario_pb2.OutputRule, _Mapping]]] = ..., recipient: _Optional[str] = ..., recipient_node: _Optional[str] = ..., deadline_s: _Optional[int] = ..., reveals: _Optional[_Iterable[_Union[_job_pb2.Reveal, _Mapping]]] = ..., isolation: _Optional[str] = ..., time_ms: _Optional[int] = ..., environment: _Optional[_Union[_job_pb2.Environment, str]] = ...) -> None: ...

class Proposal(_message.Message):
    __slots__ = ("plan", "submission", "commitment", "versions")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    SUBMISSION_FIELD_NUMBER: _ClassVar[int]
    COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    plan: bytes
    submission: _common_pb2.Signed
    commitment: bytes
    versions: _containers.RepeatedCompositeFieldContainer[_common_pb2.Signed]
    def __init__(self, plan: _Optional[bytes] = ..., submission: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ..., commitment: _Optional[bytes] = ..., versions: _Optional[_Iterable[_Union[_common_pb2.Signed, _Mapping]]] = ...) -> None: ...

class Acceptance(_message.Message):
    __slots__ = ("party", "plan_digest", "commitment", "time_ms")
    PARTY_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    party: str
    plan_digest: bytes
    commitment: bytes
    time_ms: int
    def __init__(self, party: _Optional[str] = ..., plan_digest: _Optional[bytes] = ..., commitment: _Optional[bytes] = ..., time_ms: _Optional[int] = ...) -> None: ...

class Start(_message.Message):
    __slots__ = ("acceptances",)
    ACCEPTANCES_FIELD_NUMBER: _ClassVar[int]
    acceptances: _containers.RepeatedCompositeFieldContainer[_common_pb2.Signed]
    def __init__(self, acceptances: _Optional[_Iterable[_Union[_common_pb2.Signed, _Mapping]]] = ...) -> None: ...

class Terms(_message.Message):
    __slots__ = ("content_hash", "rows", "nonce")
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    content_hash: bytes
    rows: int
    nonce: bytes
    def __init__(self, content_hash: _Optional[bytes] = ..., rows: _Optional[int] = ..., nonce: _Optional[bytes] = ...) -> None: ...

class OpenedTerms(_message.Message):
    __slots__ = ("terms", "opening")
    TERMS_FIELD_NUMBER: _ClassVar[int]
    OPENING_FIELD_NUMBER: _ClassVar[int]
    terms: Terms
    opening: bytes
    def __init__(self, terms: _Optional[_Union[Terms, _Mapping]] = ..., opening: _Optional[bytes] = ...) -> None: ...

class GrantStatement(_message.Message):
    __slots__ = ("party", "job_id", "plan_digest", "recipient", "round", "note")
    PARTY_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    party: str
    job_id: str
    plan_digest: bytes
    recipient: str
    round: str
    note: str
    def __init__(self, party: _Optional[str] = ..., job_id: _Optional[str] = ..., plan_digest: _Optional[bytes] = ..., recipient: _Optional[str] = ..., round: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class ScenarioBundle(_message.Message):
    __slots__ = ("scenario", "approvals", "notices", "versions")
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    APPROVALS_FIELD_NUMBER: _ClassVar[int]
    NOTICES_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    scenario: _common_pb2.Signed
    approvals: _containers.RepeatedCompositeFieldContainer[_common_pb2.Signed]
    notices: _containers.RepeatedCompositeFieldContainer[_common_pb2.Signed]
    versions: _containers.RepeatedCompositeFieldContainer[_common_pb2.Signed]
    def __init__(self, scenario: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ..., approvals: _Optional[_Iterable[_Union[_common_pb2.Signed, _Mapping]]] = ..., notices: _Optional[_Iterable[_Union[_common_pb2.Signed, _Mapping]]] = ..., versions: _Optional[_Iterable[_Union[_common_pb2.Signed, _Mapping]]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("to", "job_id", "purpose", "connection", "ephemeral_key", "own_certificate", "peer_certificate", "seal", "answers", "time_ms")
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    EPHEMERAL_KEY_FIELD_NUMBER: _ClassVar[int]
    OWN_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    PEER_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    SEAL_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    to: str
    job_id: str
    purpose: ChannelPurpose
    connection: bytes
    ephemeral_key: bytes
    own_certificate: bytes
    peer_certificate: bytes
    seal: SealMode
    answers: bytes
    time_ms: int
    def __init__(self, to: _Optional[str] = ..., job_id: _Optional[str] = ..., purpose: _Optional[_Union[ChannelPurpose, str]] = ..., connection: _Optional[bytes] = ..., ephemeral_key: _Optional[bytes] = ..., own_certificate: _Optional[bytes] = ..., peer_certificate: _Optional[bytes] = ..., seal: _Optional[_Union[SealMode, str]] = ..., answers: _Optional[bytes] = ..., time_ms: _Optional[int] = ..., **kwargs) -> None: ...

class ChannelRequest(_message.Message):
    __slots__ = ("hello", "record")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    hello: _common_pb2.Signed
    record: bytes
    def __init__(self, hello: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ..., record: _Optional[bytes] = ...) -> None: ...

class ChannelResponse(_message.Message):
    __slots__ = ("hello", "record")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    hello: _common_pb2.Signed
    record: bytes
    def __init__(self, hello: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ..., record: _Optional[bytes] = ...) -> None: ...

class ControlMessage(_message.Message):
    __slots__ = ("label", "body")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    label: str
    body: bytes
    def __init__(self, label: _Optional[str] = ..., body: _Optional[bytes] = ...) -> None: ...

class TrailReport(_message.Message):
    __slots__ = ("job_id", "entries")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    entries: _containers.RepeatedCompositeFieldContainer[_job_pb2.TrailEntry]
    def __init__(self, job_id: _Optional[str] = ..., entries: _Optional[_Iterable[_Union[_job_pb2.TrailEntry, _Mapping]]] = ...) -> None: ...

class ProposeRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class ProposeResponse(_message.Message):
    __slots__ = ("acceptance",)
    ACCEPTANCE_FIELD_NUMBER: _ClassVar[int]
    acceptance: _common_pb2.Signed
    def __init__(self, acceptance: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class GrantRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class GrantResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ShareRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class ShareResponse(_message.Message):
    __slots__ = ("approvals",)
    APPROVALS_FIELD_NUMBER: _ClassVar[int]
    approvals: _containers.RepeatedCompositeFieldContainer[_common_pb2.Signed]
    def __init__(self, approvals: _Optional[_Iterable[_Union[_common_pb2.Signed, _Mapping]]] = ...) -> None: ...

class ChallengeRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class ChallengeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ProduceRequest(_message.Message):
    __slots__ = ("signed", "chunk")
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    chunk: bytes
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class ProduceResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WithdrawRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class WithdrawResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PingQuery(_message.Message):
    __slots__ = ("call_back",)
    CALL_BACK_FIELD_NUMBER: _ClassVar[int]
    call_back: bool
    def __init__(self, call_back: _Optional[bool] = ...) -> None: ...

class PingRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class PingResponse(_message.Message):
    __slots__ = ("time_ms", "problem")
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    time_ms: int
    problem: str
    def __init__(self, time_ms: _Optional[int] = ..., problem: _Optional[str] = ...) -> None: ...
