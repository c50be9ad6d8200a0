from sandbox.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LetterState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LETTER_STATE_UNSPECIFIED: _ClassVar[LetterState]
    LETTER_STATE_AWAITED: _ClassVar[LetterState]
    LETTER_STATE_PRODUCED: _ClassVar[LetterState]
    LETTER_STATE_ACCEPTED: _ClassVar[LetterState]
    LETTER_STATE_REJECTED: _ClassVar[LetterState]
    LETTER_STATE_MISSING: _ClassVar[LetterState]
LETTER_STATE_UNSPECIFIED: LetterState
LETTER_STATE_AWAITED: LetterState
LETTER_STATE_PRODUCED: LetterState
LETTER_STATE_ACCEPTED: LetterState
LETTER_STATE_REJECTED: LetterState
LETTER_STATE_MISSING: LetterState

class ConsentWithdrawal(_message.Message):
    __slots__ = ("token", "scenario_digest", "time_ms")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    SCENARIO_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    scenario_digest: bytes
    time_ms: int
    def __init__(self, token: _Optional[bytes] = ..., scenario_digest: _Optional[bytes] = ..., time_ms: _Optional[int] = ...) -> None: ...

class WithdrawalNotice(_message.Message):
    __slots__ = ("withdrawal", "signer", "subject_key")
    WITHDRAWAL_FIELD_NUMBER: _ClassVar[int]
    SIGNER_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_KEY_FIELD_NUMBER: _ClassVar[int]
    withdrawal: _common_pb2.Signed
    signer: bytes
    subject_key: _common_pb2.Signed
    def __init__(self, withdrawal: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ..., signer: _Optional[bytes] = ..., subject_key: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class SealedWithdrawal(_message.Message):
    __slots__ = ("scenario_digest", "sealed")
    SCENARIO_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    scenario_digest: bytes
    sealed: bytes
    def __init__(self, scenario_digest: _Optional[bytes] = ..., sealed: _Optional[bytes] = ...) -> None: ...

class ChallengeNotice(_message.Message):
    __slots__ = ("challenge_id", "job_id", "scenario_digest", "due_ms", "sealed", "letters", "revision")
    CHALLENGE_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    SCENARIO_DIGEST_FIELD_NUMBER: _ClassVar[int]
    DUE_MS_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    LETTERS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    challenge_id: str
    job_id: str
    scenario_digest: bytes
    due_ms: int
    sealed: bytes
    letters: _containers.RepeatedScalarFieldContainer[LetterState]
    revision: int
    def __init__(self, challenge_id: _Optional[str] = ..., job_id: _Optional[str] = ..., scenario_digest: _Optional[bytes] = ..., due_ms: _Optional[int] = ..., sealed: _Optional[bytes] = ..., letters: _Optional[_Iterable[_Union[LetterState, str]]] = ..., revision: _Optional[int] = ...) -> None: ...

class ChallengedPersons(_message.Message):
    __slots__ = ("persons",)
    PERSONS_FIELD_NUMBER: _ClassVar[int]
    persons: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, persons: _Optional[_Iterable[str]] = ...) -> None: ...

class ChallengeQuery(_message.Message):
    __slots__ = ("challenge_id",)
    CHALLENGE_ID_FIELD_NUMBER: _ClassVar[int]
    challenge_id: str
    def __init__(self, challenge_id: _Optional[str] = ...) -> None: ...

class LetterView(_message.Message):
    __slots__ = ("number", "state", "digest", "judged_by", "reason")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    JUDGED_BY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    number: int
    state: LetterState
    digest: bytes
    judged_by: str
    reason: str
    def __init__(self, number: _Optional[int] = ..., state: _Optional[_Union[LetterState, str]] = ..., digest: _Optional[bytes] = ..., judged_by: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ChallengeView(_message.Message):
    __slots__ = ("challenge_id", "job_id", "scenario_digest", "party", "is_own", "created_ms", "due_ms", "state", "letters", "sealed", "sealing_key")
    CHALLENGE_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    SCENARIO_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PARTY_FIELD_NUMBER: _ClassVar[int]
    IS_OWN_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    DUE_MS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LETTERS_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    SEALING_KEY_FIELD_NUMBER: _ClassVar[int]
    challenge_id: str
    job_id: str
    scenario_digest: bytes
    party: str
    is_own: bool
    created_ms: int
    due_ms: int
    state: str
    letters: _containers.RepeatedCompositeFieldContainer[LetterView]
    sealed: bytes
    sealing_key: bytes
    def __init__(self, challenge_id: _Optional[str] = ..., job_id: _Optional[str] = ..., scenario_digest: _Optional[bytes] = ..., party: _Optional[str] = ..., is_own: _Optional[bool] = ..., created_ms: _Optional[int] = ..., due_ms: _Optional[int] = ..., state: _Optional[str] = ..., letters: _Optional[_Iterable[_Union[LetterView, _Mapping]]] = ..., sealed: _Optional[bytes] = ..., sealing_key: _Optional[bytes] = ...) -> None: ...

class LetterUpload(_message.Message):
    __slots__ = ("challenge_id", "number", "size", "digest")
    CHALLENGE_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    challenge_id: str
    number: int
    size: int
    digest: bytes
    def __init__(self, challenge_id: _Optional[str] = ..., number: _Optional[int] = ..., size: _Optional[int] = ..., digest: _Optional[bytes] = ...) -> None: ...

class LetterQuery(_message.Message):
    __slots__ = ("challenge_id", "number")
    CHALLENGE_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    challenge_id: str
    number: int
    def __init__(self, challenge_id: _Optional[str] = ..., number: _Optional[int] = ...) -> None: ...

class LetterHead(_message.Message):
    __slots__ = ("challenge_id", "number", "digest", "size")
    CHALLENGE_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    challenge_id: str
    number: int
    digest: bytes
    size: int
    def __init__(self, challenge_id: _Optional[str] = ..., number: _Optional[int] = ..., digest: _Optional[bytes] = ..., size: _Optional[int] = ...) -> None: ...

class LetterJudgement(_message.Message):
    __slots__ = ("challenge_id", "number", "digest", "accepted", "reason", "time_ms")
    CHALLENGE_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    challenge_id: str
    number: int
    digest: bytes
    accepted: bool
    reason: str
    time_ms: int
    def __init__(self, challenge_id: _Optional[str] = ..., number: _Optional[int] = ..., digest: _Optional[bytes] = ..., accepted: _Optional[bool] = ..., reason: _Optional[str] = ..., time_ms: _Optional[int] = ...) -> None: ...

class ConsentPaper(_message.Message):
    __slots__ = ("consent", "subject_key")
    CONSENT_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_KEY_FIELD_NUMBER: _ClassVar[int]
    consent: _common_pb2.Signed
    subject_key: _common_pb2.Signed
    def __init__(self, consent: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ..., subject_key: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class WithdrawConsentRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class WithdrawConsentResponse(_message.Message):
    __slots__ = ("told",)
    TOLD_FIELD_NUMBER: _ClassVar[int]
    told: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, told: _Optional[_Iterable[str]] = ...) -> None: ...

class ListChallengesRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class ListChallengesResponse(_message.Message):
    __slots__ = ("challenges",)
    CHALLENGES_FIELD_NUMBER: _ClassVar[int]
    challenges: _containers.RepeatedCompositeFieldContainer[ChallengeView]
    def __init__(self, challenges: _Optional[_Iterable[_Union[ChallengeView, _Mapping]]] = ...) -> None: ...

class GetChallengeRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class GetChallengeResponse(_message.Message):
    __slots__ = ("challenge",)
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    challenge: ChallengeView
    def __init__(self, challenge: _Optional[_Union[ChallengeView, _Mapping]] = ...) -> None: ...

class ProduceLetterRequest(_message.Message):
    __slots__ = ("signed", "chunk")
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    chunk: bytes
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class ProduceLetterResponse(_message.Message):
    __slots__ = ("challenge",)
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    challenge: ChallengeView
    def __init__(self, challenge: _Optional[_Union[ChallengeView, _Mapping]] = ...) -> None: ...

class GetLetterRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class GetLetterResponse(_message.Message):
    __slots__ = ("head", "chunk")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    head: LetterHead
    chunk: bytes
    def __init__(self, head: _Optional[_Union[LetterHead, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class JudgeLetterRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class JudgeLetterResponse(_message.Message):
    __slots__ = ("challenge",)
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    challenge: ChallengeView
    def __init__(self, challenge: _Optional[_Union[ChallengeView, _Mapping]] = ...) -> None: ...
