from sandbox.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DatasetRegistration(_message.Message):
    __slots__ = ("name", "schema_json", "licence", "retention_days", "files", "encoding", "department", "domain", "keywords", "update_days", "as_of", "visible_to", "grades_confirmed", "twin_epsilon_milli")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_JSON_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    RETENTION_DAYS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    DEPARTMENT_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    KEYWORDS_FIELD_NUMBER: _ClassVar[int]
    UPDATE_DAYS_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    VISIBLE_TO_FIELD_NUMBER: _ClassVar[int]
    GRADES_CONFIRMED_FIELD_NUMBER: _ClassVar[int]
    TWIN_EPSILON_MILLI_FIELD_NUMBER: _ClassVar[int]
    name: str
    schema_json: bytes
    licence: str
    retention_days: int
    files: _containers.RepeatedCompositeFieldContainer[UploadFile]
    encoding: str
    department: str
    domain: str
    keywords: _containers.RepeatedScalarFieldContainer[str]
    update_days: int
    as_of: str
    visible_to: _containers.RepeatedScalarFieldContainer[str]
    grades_confirmed: bool
    twin_epsilon_milli: int
    def __init__(self, name: _Optional[str] = ..., schema_json: _Optional[bytes] = ..., licence: _Optional[str] = ..., retention_days: _Optional[int] = ..., files: _Optional[_Iterable[_Union[UploadFile, _Mapping]]] = ..., encoding: _Optional[str] = ..., department: _Optional[str] = ..., domain: _Optional[str] = ..., keywords: _Optional[_Iterable[str]] = ..., update_days: _Optional[int] = ..., as_of: _Optional[str] = ..., visible_to: _Optional[_Iterable[str]] = ..., grades_confirmed: _Optional[bool] = ..., twin_epsilon_milli: _Optional[int] = ...) -> None: ...

class UploadFile(_message.Message):
    __slots__ = ("name", "size", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    size: int
    digest: bytes
    def __init__(self, name: _Optional[str] = ..., size: _Optional[int] = ..., digest: _Optional[bytes] = ...) -> None: ...

class DatasetSearch(_message.Message):
    __slots__ = ("words", "department", "domain", "after", "limit")
    WORDS_FIELD_NUMBER: _ClassVar[int]
    DEPARTMENT_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    words: str
    department: str
    domain: str
    after: str
    limit: int
    def __init__(self, words: _Optional[str] = ..., department: _Optional[str] = ..., domain: _Optional[str] = ..., after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class TwinOrder(_message.Message):
    __slots__ = ("code", "version", "epsilon_milli", "rows")
    CODE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EPSILON_MILLI_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    code: str
    version: int
    epsilon_milli: int
    rows: int
    def __init__(self, code: _Optional[str] = ..., version: _Optional[int] = ..., epsilon_milli: _Optional[int] = ..., rows: _Optional[int] = ...) -> None: ...

class TwinView(_message.Message):
    __slots__ = ("rows", "epsilon_milli", "content_hash", "created_ms")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    EPSILON_MILLI_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    epsilon_milli: int
    content_hash: bytes
    created_ms: int
    def __init__(self, rows: _Optional[int] = ..., epsilon_milli: _Optional[int] = ..., content_hash: _Optional[bytes] = ..., created_ms: _Optional[int] = ...) -> None: ...

class DatasetQuery(_message.Message):
    __slots__ = ("code", "version")
    CODE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    code: str
    version: int
    def __init__(self, code: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class DatasetView(_message.Message):
    __slots__ = ("code", "version", "name", "owner", "schema_json", "rows", "content_hash", "state", "created_ms", "licence", "retention_days", "department", "domain", "keywords", "update_days", "as_of", "visible_to", "schema_digest", "twin")
    CODE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_JSON_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    RETENTION_DAYS_FIELD_NUMBER: _ClassVar[int]
    DEPARTMENT_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    KEYWORDS_FIELD_NUMBER: _ClassVar[int]
    UPDATE_DAYS_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    VISIBLE_TO_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TWIN_FIELD_NUMBER: _ClassVar[int]
    code: str
    version: int
    name: str
    owner: str
    schema_json: bytes
    rows: int
    content_hash: bytes
    state: str
    created_ms: int
    licence: str
    retention_days: int
    department: str
    domain: str
    keywords: _containers.RepeatedScalarFieldContainer[str]
    update_days: int
    as_of: str
    visible_to: _containers.RepeatedScalarFieldContainer[str]
    schema_digest: bytes
    twin: TwinView
    def __init__(self, code: _Optional[str] = ..., version: _Optional[int] = ..., name: _Optional[str] = ..., owner: _Optional[str] = ..., schema_json: _Optional[bytes] = ..., rows: _Optional[int] = ..., content_hash: _Optional[bytes] = ..., state: _Optional[str] = ..., created_ms: _Optional[int] = ..., licence: _Optional[str] = ..., retention_days: _Optional[int] = ..., department: _Optional[str] = ..., domain: _Optional[str] = ..., keywords: _Optional[_Iterable[str]] = ..., update_days: _Optional[int] = ..., as_of: _Optional[str] = ..., visible_to: _Optional[_Iterable[str]] = ..., schema_digest: _Optional[bytes] = ..., twin: _Optional[_Union[TwinView, _Mapping]] = ...) -> None: ...

class RegisterDatasetRequest(_message.Message):
    __slots__ = ("signed", "chunk")
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    chunk: bytes
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class RegisterDatasetResponse(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: DatasetView
    def __init__(self, dataset: _Optional[_Union[DatasetView, _Mapping]] = ...) -> None: ...

class ListDatasetsRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class ListDatasetsResponse(_message.Message):
    __slots__ = ("datasets",)
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    datasets: _containers.RepeatedCompositeFieldContainer[DatasetView]
    def __init__(self, datasets: _Optional[_Iterable[_Union[DatasetView, _Mapping]]] = ...) -> None: ...

class GetDatasetRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class GetDatasetResponse(_message.Message):
    __slots__ = ("dataset", "profile")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    dataset: DatasetView
    profile: bytes
    def __init__(self, dataset: _Optional[_Union[DatasetView, _Mapping]] = ..., profile: _Optional[bytes] = ...) -> None: ...

class SearchDatasetsRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class SearchDatasetsResponse(_message.Message):
    __slots__ = ("datasets",)
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    datasets: _containers.RepeatedCompositeFieldContainer[DatasetView]
    def __init__(self, datasets: _Optional[_Iterable[_Union[DatasetView, _Mapping]]] = ...) -> None: ...

class SampleDatasetRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class SampleDatasetResponse(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: bytes
    def __init__(self, rows: _Optional[bytes] = ...) -> None: ...

class MakeTwinRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class MakeTwinResponse(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: DatasetView
    def __init__(self, dataset: _Optional[_Union[DatasetView, _Mapping]] = ...) -> None: ...

class GetTwinRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class GetTwinResponse(_message.Message):
    __slots__ = ("dataset", "chunk")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    dataset: DatasetView
    chunk: bytes
    def __init__(self, dataset: _Optional[_Union[DatasetView, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class DestroyDatasetRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class DestroyDatasetResponse(_message.Message):
    __slots__ = ("dataset", "receipt")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    dataset: DatasetView
    receipt: bytes
    def __init__(self, dataset: _Optional[_Union[DatasetView, _Mapping]] = ..., receipt: _Optional[bytes] = ...) -> None: ...
