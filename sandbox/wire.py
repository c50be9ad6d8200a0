"""The only encoder and parser of messages: protocol buffers <-> the frozen shapes of ``model``.

A shape and its message carry the same name and the same field names (a trailing underscore avoids Python's keywords);
one recursive walk converts either way. A test proves that no field is missing on either side.

Security:  unknown fields are refused at every depth; an unset ``oneof`` or enumeration is refused, never defaulted;
           every string, byte string and list has a bound (``model.Size``, or the defaults below). What was signed is
           verified over its bytes *before* it comes here, and is never re-encoded.
Errors:    ``InvalidSpec`` naming the field, never its value.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Proto
from google.protobuf.unknown_fields import UnknownFieldSet

from sandbox import model
from sandbox.errors import InvalidSpec
from sandbox.model import Size
from sandbox.v1 import (
    audit_pb2,
    catalog_pb2,
    common_pb2,
    consent_pb2,
    job_pb2,
    model_pb2,
    peer_pb2,
    review_pb2,
    scenario_pb2,
)

T = TypeVar("T")
_MODULES = (common_pb2, scenario_pb2, job_pb2, catalog_pb2, audit_pb2, peer_pb2, review_pb2, model_pb2, consent_pb2)
_DEFAULT = {str: Size(0, 256), bytes: Size(0, 65536), tuple: Size(0, 256)}
_PLAIN = frozenset({str, bytes, int, bool})
_FIELDS: dict[type, dict[str, Any]] = {}
_CLASSES: dict[type, Callable[[], Any]] = {}
MAX_INTEGER = (1 << 63) - 1  # what the store can hold
MAX_MESSAGE = 8 << 20  # bytes of one encoded message; larger things are streamed


def encode(value: object) -> bytes:
    """Return ``value`` as the bytes of its message."""
    encoded: bytes = to_proto(value).SerializeToString(deterministic=True)
    return encoded


def decode(shape: type[T], data: bytes) -> T:
    """Return ``data`` as a ``shape``.

    Raises:
        InvalidSpec: it is not one, has unknown fields, or breaks a bound.
    """
    if len(data) > MAX_MESSAGE and shape not in (model.Result, model.Signed):
        raise InvalidSpec(tell=f"{shape.__name__} is larger than {MAX_MESSAGE} bytes")
    message = _message(shape)()
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise InvalidSpec(tell=f"not a {shape.__name__} message") from None
    return from_proto(shape, message)


def from_proto(shape: type[T], message: Proto) -> T:
    """Return a parsed message as a ``shape``, checked as in :func:`decode`."""
    refuse_unknown(message, shape.__name__)
    return _read(shape, message, shape.__name__)


def to_proto(value: object) -> Any:
    """Return ``value`` as a message object."""
    message = _message(type(value))()
    for name, hint in _fields(type(value)).items():
        _write(message, name.rstrip("_"), getattr(value, name), hint)
    return message


def _message(shape: type) -> Callable[[], Any]:
    known = _CLASSES.get(shape)
    if known is not None:
        return known
    for module in _MODULES:
        if hasattr(module, shape.__name__):
            made = _CLASSES[shape] = typing.cast(Callable[[], Any], getattr(module, shape.__name__))
            return made
    raise TypeError(f"{shape.__name__} has no message")


def _fields(shape: type) -> dict[str, Any]:
    known = _FIELDS.get(shape)
    if known is None:
        hints = typing.get_type_hints(shape, include_extras=True)
        known = _FIELDS[shape] = {field.name: hints[field.name] for field in dataclasses.fields(shape)}
    return known


def refuse_unknown(message: Proto, where: str) -> None:
    """Refuse fields this version does not know, at every depth."""
    if len(UnknownFieldSet(message)):
        raise InvalidSpec(tell=f"{where} has fields this version does not know")
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for part in value if field.is_repeated else (value,):
                refuse_unknown(part, f"{where}.{field.name}")


@functools.cache
def _options(hint: Any) -> tuple[type, ...]:
    """The shapes a union may hold; empty if it is no union."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ()


def _read(shape: type[T], message: Any, where: str) -> T:
    values = {}
    for name, hint in _fields(shape).items():
        values[name] = _read_field(message, name.rstrip("_"), hint, f"{where}.{name.rstrip('_')}")
    return shape(**values)


def _read_field(message: Any, name: str, given: Any, where: str) -> Any:
    hint, size = _strip(given)
    if hint in _PLAIN:
        return _read_value(getattr(message, name), given, where)
    options = _options(hint)
    if type(None) in options:
        return _read(options[0], getattr(message, name), where) if message.HasField(name) else None
    if options:
        chosen = message.WhichOneof(name)
        if chosen is None:
            raise InvalidSpec(tell=f"{where} is not set")
        part = getattr(message, chosen)
        return _read(next(o for o in options if o.__name__ == type(part).__name__), part, where)
    if get_origin(hint) is tuple:
        items = getattr(message, name)
        _bound(len(items), size or _DEFAULT[tuple], where, "items")
        return tuple(_read_value(item, get_args(hint)[0], where) for item in items)
    if dataclasses.is_dataclass(hint) and not message.HasField(name):
        raise InvalidSpec(tell=f"{where} is not set")
    return _read_value(getattr(message, name), given, where)


def _read_value(value: Any, hint: Any, where: str) -> Any:
    kind, size = _strip(hint)
    if kind in (str, bytes):
        _bound(len(value), size or _DEFAULT[kind], where, "characters" if kind is str else "bytes")
        return value
    if kind is not int and dataclasses.is_dataclass(kind):
        return _read(typing.cast(type, kind), value, where)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(value)
        except ValueError:
            raise InvalidSpec(tell=f"{where} is not set, or not a value this version knows") from None
    if kind is int and not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise InvalidSpec(tell=f"{where} is out of range")
    return value


@functools.cache
def _strip(hint: Any) -> tuple[Any, Size | None]:
    if get_origin(hint) is Annotated:
        return get_args(hint)[0], next((m for m in get_args(hint)[1:] if isinstance(m, Size)), None)
    return hint, None


def _bound(length: int, size: Size, where: str, unit: str) -> None:
    if not size.least <= length <= size.most:
        raise InvalidSpec(tell=f"{where} has {length} {unit}; {size.least} to {size.most} are allowed")


def _write(message: Any, name: str, value: Any, hint: Any) -> None:
    hint, _ = _strip(hint)
    if value is None:
        return
    options = tuple(option for option in _options(hint) if option is not type(None))
    if len(options) > 1:
        oneof = message.DESCRIPTOR.oneofs_by_name[name]
        name = next(f.name for f in oneof.fields if f.message_type.name == type(value).__name__)
    if dataclasses.is_dataclass(value):
        getattr(message, name).CopyFrom(to_proto(value))
        getattr(message, name).SetInParent()
        return
    try:
        if isinstance(value, tuple):
            getattr(message, name).extend(to_proto(item) if dataclasses.is_dataclass(item) else item for item in value)
        else:
            setattr(message, name, value)
    except (TypeError, ValueError):  # out of range, of another type, or text that is no Unicode
        raise InvalidSpec(tell=f"{message.DESCRIPTOR.name}.{name} does not fit its message") from None
