"""The wire: shapes and messages have the same fields, and nothing gets in that breaks a bound."""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest
from core_builders import bounded, hints, options, sample, shapes, split, strategy
from google.protobuf.descriptor import FieldDescriptor as Field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox import model, wire
from sandbox.errors import InvalidSpec
from sandbox.model import (
    BatchScore,
    DatasetRef,
    Dimension,
    JobSpec,
    JobSubmission,
    MeasureRange,
    PsiSpec,
    ScoreSpec,
    Signed,
    TrainSpec,
)
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

MODULES = (common_pb2, scenario_pb2, job_pb2, catalog_pb2, audit_pb2, peer_pb2, review_pb2, model_pb2, consent_pb2)
MESSAGES = {name: d for module in MODULES for name, d in module.DESCRIPTOR.message_types_by_name.items()}
SHAPES = {shape.__name__: shape for shape in shapes()}
INTEGERS = (Field.TYPE_UINT32, Field.TYPE_UINT64, Field.TYPE_INT64, Field.TYPE_SINT64)
UNKNOWN = b"\xf8\x07\x01"  # field 127, a varint
MAIN = (JobSubmission, model.Scenario, model.Plan, model.JobView, model.PlanView, model.Entry, model.Result)


def proto_of(value: object) -> Any:
    return wire.to_proto(value)


def parse(shape: type, data: bytes) -> Any:
    return wire.decode(shape, data)


def parts(message: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every message inside a message, its own first."""
    yield path
    for field, value in message.ListFields():
        if field.type == Field.TYPE_MESSAGE:
            for index, part in enumerate(value if field.is_repeated else (value,)):
                yield from parts(part, (*path, (field.name, index if field.is_repeated else None)))


def at(message: Any, path: tuple[Any, ...]) -> Any:
    for name, index in path:
        message = getattr(message, name)
        message = message if index is None else message[index]
    return message


def test_every_message_has_a_shape_and_every_shape_a_message() -> None:
    inner = {name for name in MESSAGES if not name.endswith(("Request", "Response"))}
    assert inner - {"LogEntry"} == set(SHAPES)  # a log entry is an index and opaque bytes: nothing to read


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_fields_are_the_same_on_both_sides(name: str) -> None:
    descriptor, shape = MESSAGES[name], SHAPES[name]
    in_oneof = {field.name for oneof in descriptor.oneofs for field in oneof.fields}
    wired = {field.name for field in descriptor.fields} - in_oneof | {oneof.name for oneof in descriptor.oneofs}
    assert {field.rstrip("_") for field in hints(shape)} == wired
    for field, hint in hints(shape).items():
        check_type(descriptor, field.rstrip("_"), hint)


def check_type(descriptor: Any, name: str, hint: Any) -> None:
    kind, _ = split(hint)
    choices = tuple(option for option in options(kind) if option is not type(None))
    if len(choices) > 1:
        assert {c.__name__ for c in choices} == {f.message_type.name for f in descriptor.oneofs_by_name[name].fields}
        return
    field = descriptor.fields_by_name[name]
    kind = choices[0] if choices else kind
    assert field.is_repeated == (get_origin(kind) is tuple)
    if field.is_repeated:
        kind, _ = split(get_args(kind)[0])
    if dataclasses.is_dataclass(kind):
        assert field.message_type.name == typing.cast(type, kind).__name__
    elif issubclass(kind, enum.Enum):
        assert field.enum_type.name == {"State": "JobState"}.get(kind.__name__, kind.__name__)
        prefix = field.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
        named = {value.name.removeprefix(prefix): value.number for value in field.enum_type.values if value.number}
        assert named == {member.name: member.value for member in kind}
    elif kind is int:
        assert field.type in INTEGERS
    else:
        assert field.type == {str: Field.TYPE_STRING, bytes: Field.TYPE_BYTES, bool: Field.TYPE_BOOL}[kind]


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_least_values_make_the_round_trip(name: str) -> None:
    value = sample(SHAPES[name])
    assert parse(SHAPES[name], wire.encode(value)) == value


@pytest.mark.parametrize("shape", MAIN)
@given(data=st.data())
@settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
def test_any_value_makes_the_round_trip(shape: type, data: st.DataObject) -> None:
    value = data.draw(strategy(shape))
    assert parse(shape, wire.encode(value)) == value


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_unknown_fields_are_refused_at_every_depth(name: str) -> None:
    whole = proto_of(sample(SHAPES[name]))
    paths = list(parts(whole))
    assert paths[0] == ()
    for path in paths:
        message = proto_of(sample(SHAPES[name]))
        at(message, path).MergeFromString(UNKNOWN)
        with pytest.raises(InvalidSpec, match="does not know"):
            parse(SHAPES[name], message.SerializeToString())


def bounds() -> list[Any]:
    cases = []
    for shape in shapes():
        for name, kind, size in bounded(shape):
            if size.least > 0:
                cases.append(pytest.param(shape, name, kind, size.least - 1, id=f"{shape.__name__}.{name}<"))
            if size.most <= 1 << 20:
                cases.append(pytest.param(shape, name, kind, size.most + 1, id=f"{shape.__name__}.{name}>"))
    return cases


@pytest.mark.parametrize(("shape", "name", "kind", "length"), bounds())
def test_every_bound_is_kept(shape: type, name: str, kind: type, length: int) -> None:
    value = sample(shape)
    if kind is tuple:
        broken: Any = tuple(sample(get_args(split(hints(shape)[name])[0])[0]) for _ in range(length))
    else:
        broken = "x" * length if kind is str else b"x" * length
    message = wire.encode(dataclasses.replace(value, **{name: broken}))
    with pytest.raises(InvalidSpec, match=rf"{shape.__name__}\.{name.rstrip('_')} has {length} ") as refusal:
        parse(shape, message)
    assert "xx" not in refusal.value.tell


def enums() -> list[Any]:
    return [
        pytest.param(shape, name, id=f"{shape.__name__}.{name}")
        for shape in shapes()
        for name, hint in hints(shape).items()
        if isinstance(split(hint)[0], type) and issubclass(split(hint)[0], enum.Enum)
    ]


@pytest.mark.parametrize(("shape", "name"), enums())
@pytest.mark.parametrize("number", [0, 99])
def test_an_unset_or_unknown_enumeration_is_refused(shape: type, name: str, number: int) -> None:
    message = proto_of(sample(shape))
    setattr(message, name.rstrip("_"), number)
    with pytest.raises(InvalidSpec, match=f"{shape.__name__}.{name.rstrip('_')} is not set"):
        parse(shape, message.SerializeToString())


@pytest.mark.parametrize("number", [0, 99])
def test_an_unset_enumeration_in_a_list_is_refused(number: int) -> None:
    message = proto_of(sample(model.Scenario))
    message.kinds.append(number)
    with pytest.raises(InvalidSpec, match=r"Scenario\.kinds"):
        parse(model.Scenario, message.SerializeToString())


def test_an_unset_oneof_is_refused_and_never_defaulted() -> None:
    message = proto_of(JobSpec("r", bytes(32), TrainSpec("a" * 32, 1, 20, b"s", 0)))
    message.ClearField("train")
    with pytest.raises(InvalidSpec, match=r"JobSpec\.kind is not set"):
        parse(JobSpec, message.SerializeToString())
    inner = proto_of(ScoreSpec("a" * 32, BatchScore(model.ScoreScope.HOLDOUT)))
    inner.ClearField("batch")
    with pytest.raises(InvalidSpec, match=r"ScoreSpec\.subject is not set"):
        parse(ScoreSpec, inner.SerializeToString())


def required_parts() -> list[Any]:
    return [
        pytest.param(shape, name, id=f"{shape.__name__}.{name}")
        for shape in shapes()
        for name, hint in hints(shape).items()
        if dataclasses.is_dataclass(split(hint)[0])
    ]


@pytest.mark.parametrize(("shape", "name"), required_parts())
def test_a_missing_part_is_refused(shape: type, name: str) -> None:
    message = proto_of(sample(shape))
    message.ClearField(name.rstrip("_"))
    with pytest.raises(InvalidSpec, match=f"{shape.__name__}.{name} is not set"):
        parse(shape, message.SerializeToString())


@pytest.mark.parametrize("shape", [*MAIN, Signed, model.Call, model.Proposal, model.ScenarioBundle])
@given(data=st.data())
@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
def test_any_bytes_are_a_shape_or_an_invalid_spec(shape: type, data: st.DataObject) -> None:
    valid = wire.encode(sample(shape))
    start = data.draw(st.integers(0, len(valid)))
    noise = data.draw(st.binary(max_size=40))
    for candidate in (noise, valid[:start] + noise + valid[start:], valid[:start] + noise):
        try:
            assert isinstance(parse(shape, candidate), shape)
        except InvalidSpec as error:
            assert error.tell.startswith((shape.__name__, "not a "))


def test_a_message_above_eight_mebibytes_is_refused_unread() -> None:
    with pytest.raises(InvalidSpec, match="larger than"):
        wire.decode(JobSpec, bytes(wire.MAX_MESSAGE + 1))


@given(st.lists(st.integers(-wire.MAX_INTEGER, wire.MAX_INTEGER), max_size=5))
def test_bounds_of_numbers_keep_their_sign(edges: list[int]) -> None:
    dimension = Dimension("band", "balance", (), tuple(edges), 2)
    assert parse(Dimension, wire.encode(dimension)) == dimension
    declared = MeasureRange("balance", min(edges, default=0), max(edges, default=0), 9)
    assert parse(MeasureRange, wire.encode(declared)) == declared


def test_an_absent_part_stays_absent() -> None:
    two = PsiSpec(DatasetRef("a", 1), DatasetRef("b", 1), model.PsiEngine.AUTO)
    assert parse(PsiSpec, wire.encode(two)).third is None
    three = dataclasses.replace(two, third=DatasetRef("c", 1))
    assert parse(PsiSpec, wire.encode(three)) == three


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="not a DatasetRef message"):
        wire.decode(DatasetRef, b"\x0a\x02\xff\xfe\x10\x01")


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (DatasetRef("code", -1), "DatasetRef.version"),
        (DatasetRef("code", 1 << 32), "DatasetRef.version"),
        (DatasetRef("\ud800", 1), "DatasetRef.code"),
        (JobSpec("r", bytes(32), TrainSpec("a" * 32, -1, 20, b"s", 0)), "TrainSpec.steps"),
    ],
)
def test_a_value_that_no_message_can_hold_is_named_when_it_is_written(value: object, field: str) -> None:
    with pytest.raises(InvalidSpec, match=field):
        wire.encode(value)
