from sandbox.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DatasetRegistration(_message.Message):
    __slots__ = ("name", "schema_json", "file_name", "size", "digest", "licence", "retention_days")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_JSON_FIELD_NUMBER: _ClassVar[int]
    FILE_NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    RETENTION_DAYS_FIELD_NUMBER: _ClassVar[int]
    name: str
    schema_json: bytes
    file_name: str
    size: int
    digest: bytes
    licence: str
    retention_days: int
    def __init__(self, name: _Optional[str] = ..., schema_json: _Optional[bytes] = ..., file_name: _Optional[str] = ..., size: _Optional[int] = ..., digest: _Optional[bytes] = ..., licence: _Optional[str] = ..., retention_days: _Optional[int] = ...) -> None: ...

class DatasetQuery(_message.Message):
    __slots__ = ("code", "version")
    CODE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    code: str
    version: int
    def __init__(self, code: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class DatasetView(_message.Message):
    __slots__ = ("code", "version", "name", "owner", "schema_json", "rows", "content_hash", "state", "created_ms", "licence", "retention_days")
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
    def __init__(self, code: _Optional[str] = ..., version: _Optional[int] = ..., name: _Optional[str] = ..., owner: _Optional[str] = ..., schema_json: _Optional[bytes] = ..., rows: _Optional[int] = ..., content_hash: _Optional[bytes] = ..., state: _Optional[str] = ..., created_ms: _Optional[int] = ..., licence: _Optional[str] = ..., retention_days: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: DatasetView
    def __init__(self, dataset: _Optional[_Union[DatasetView, _Mapping]] = ...) -> None: ...

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
