from sandbox.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BundleUpload(_message.Message):
    __slots__ = ("measurement", "size", "digest", "statement", "sealed_nonce")
    MEASUREMENT_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SEALED_NONCE_FIELD_NUMBER: _ClassVar[int]
    measurement: bytes
    size: int
    digest: bytes
    statement: _common_pb2.Signed
    sealed_nonce: bytes
    def __init__(self, measurement: _Optional[bytes] = ..., size: _Optional[int] = ..., digest: _Optional[bytes] = ..., statement: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ..., sealed_nonce: _Optional[bytes] = ...) -> None: ...

class BundleStatement(_message.Message):
    __slots__ = ("measurement", "name", "time_ms")
    MEASUREMENT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    measurement: bytes
    name: str
    time_ms: int
    def __init__(self, measurement: _Optional[bytes] = ..., name: _Optional[str] = ..., time_ms: _Optional[int] = ...) -> None: ...

class BundleView(_message.Message):
    __slots__ = ("measurement", "name", "form", "merchant", "submitter", "size", "created_ms", "outputs", "files", "withdrawn_ms")
    MEASUREMENT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    FORM_FIELD_NUMBER: _ClassVar[int]
    MERCHANT_FIELD_NUMBER: _ClassVar[int]
    SUBMITTER_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWN_MS_FIELD_NUMBER: _ClassVar[int]
    measurement: bytes
    name: str
    form: str
    merchant: str
    submitter: str
    size: int
    created_ms: int
    outputs: _containers.RepeatedScalarFieldContainer[str]
    files: _containers.RepeatedScalarFieldContainer[str]
    withdrawn_ms: int
    def __init__(self, measurement: _Optional[bytes] = ..., name: _Optional[str] = ..., form: _Optional[str] = ..., merchant: _Optional[str] = ..., submitter: _Optional[str] = ..., size: _Optional[int] = ..., created_ms: _Optional[int] = ..., outputs: _Optional[_Iterable[str]] = ..., files: _Optional[_Iterable[str]] = ..., withdrawn_ms: _Optional[int] = ...) -> None: ...

class BundleQuery(_message.Message):
    __slots__ = ("measurement",)
    MEASUREMENT_FIELD_NUMBER: _ClassVar[int]
    measurement: bytes
    def __init__(self, measurement: _Optional[bytes] = ...) -> None: ...

class QuoteQuery(_message.Message):
    __slots__ = ("nonce", "bundle")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    bundle: bytes
    def __init__(self, nonce: _Optional[bytes] = ..., bundle: _Optional[bytes] = ...) -> None: ...

class QuoteView(_message.Message):
    __slots__ = ("quote", "isolation", "vendor")
    QUOTE_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    VENDOR_FIELD_NUMBER: _ClassVar[int]
    quote: bytes
    isolation: str
    vendor: str
    def __init__(self, quote: _Optional[bytes] = ..., isolation: _Optional[str] = ..., vendor: _Optional[str] = ...) -> None: ...

class PutBundleRequest(_message.Message):
    __slots__ = ("signed", "chunk")
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    chunk: bytes
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class PutBundleResponse(_message.Message):
    __slots__ = ("bundle",)
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    bundle: BundleView
    def __init__(self, bundle: _Optional[_Union[BundleView, _Mapping]] = ...) -> None: ...

class WithdrawBundleRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class WithdrawBundleResponse(_message.Message):
    __slots__ = ("bundle",)
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    bundle: BundleView
    def __init__(self, bundle: _Optional[_Union[BundleView, _Mapping]] = ...) -> None: ...

class ListBundlesRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class ListBundlesResponse(_message.Message):
    __slots__ = ("bundles",)
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    bundles: _containers.RepeatedCompositeFieldContainer[BundleView]
    def __init__(self, bundles: _Optional[_Iterable[_Union[BundleView, _Mapping]]] = ...) -> None: ...

class GetQuoteRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class GetQuoteResponse(_message.Message):
    __slots__ = ("quote",)
    QUOTE_FIELD_NUMBER: _ClassVar[int]
    quote: QuoteView
    def __init__(self, quote: _Optional[_Union[QuoteView, _Mapping]] = ...) -> None: ...
