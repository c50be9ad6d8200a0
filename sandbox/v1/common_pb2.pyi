from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Signed(_message.Message):
    __slots__ = ("payload", "key_id", "signature")
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    payload: bytes
    key_id: str
    signature: bytes
    def __init__(self, payload: _Optional[bytes] = ..., key_id: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Call(_message.Message):
    __slots__ = ("protocol", "audience", "method", "body", "time_ms", "nonce")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    audience: str
    method: str
    body: bytes
    time_ms: int
    nonce: bytes
    def __init__(self, protocol: _Optional[int] = ..., audience: _Optional[str] = ..., method: _Optional[str] = ..., body: _Optional[bytes] = ..., time_ms: _Optional[int] = ..., nonce: _Optional[bytes] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("code", "party", "stage", "cause", "cause_zh", "next_step", "next_step_zh")
    CODE_FIELD_NUMBER: _ClassVar[int]
    PARTY_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    CAUSE_ZH_FIELD_NUMBER: _ClassVar[int]
    NEXT_STEP_FIELD_NUMBER: _ClassVar[int]
    NEXT_STEP_ZH_FIELD_NUMBER: _ClassVar[int]
    code: str
    party: str
    stage: str
    cause: str
    cause_zh: str
    next_step: str
    next_step_zh: str
    def __init__(self, code: _Optional[str] = ..., party: _Optional[str] = ..., stage: _Optional[str] = ..., cause: _Optional[str] = ..., cause_zh: _Optional[str] = ..., next_step: _Optional[str] = ..., next_step_zh: _Optional[str] = ...) -> None: ...

class CertifiedKey(_message.Message):
    __slots__ = ("key", "signature")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    signature: bytes
    def __init__(self, key: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class KeyCard(_message.Message):
    __slots__ = ("name", "organisation", "identity_key", "sealing", "tls_certificate", "created_ms")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ORGANISATION_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_KEY_FIELD_NUMBER: _ClassVar[int]
    SEALING_FIELD_NUMBER: _ClassVar[int]
    TLS_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    name: str
    organisation: str
    identity_key: bytes
    sealing: CertifiedKey
    tls_certificate: bytes
    created_ms: int
    def __init__(self, name: _Optional[str] = ..., organisation: _Optional[str] = ..., identity_key: _Optional[bytes] = ..., sealing: _Optional[_Union[CertifiedKey, _Mapping]] = ..., tls_certificate: _Optional[bytes] = ..., created_ms: _Optional[int] = ...) -> None: ...

class PeerCard(_message.Message):
    __slots__ = ("node_id", "organisation", "address", "identity_key", "checkpoint", "sealing", "attestation", "tls_certificate", "created_ms")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ORGANISATION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_KEY_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    SEALING_FIELD_NUMBER: _ClassVar[int]
    ATTESTATION_FIELD_NUMBER: _ClassVar[int]
    TLS_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    organisation: str
    address: str
    identity_key: bytes
    checkpoint: CertifiedKey
    sealing: CertifiedKey
    attestation: CertifiedKey
    tls_certificate: bytes
    created_ms: int
    def __init__(self, node_id: _Optional[str] = ..., organisation: _Optional[str] = ..., address: _Optional[str] = ..., identity_key: _Optional[bytes] = ..., checkpoint: _Optional[_Union[CertifiedKey, _Mapping]] = ..., sealing: _Optional[_Union[CertifiedKey, _Mapping]] = ..., attestation: _Optional[_Union[CertifiedKey, _Mapping]] = ..., tls_certificate: _Optional[bytes] = ..., created_ms: _Optional[int] = ...) -> None: ...
