"""What a bundle says of itself: form, libraries, which columns it reads, and every column that may leave.

    bundle.toml (people) --read--> Manifest --canonical--> bundle.json (in the archive) --read--> the same Manifest

Shapes:    see docs/models.md for every member. A name of a table, an output or a parameter is 1 to 40 characters of
           ``a-z 0-9 _`` and begins with a letter; a column's name is up to 64 printable characters.
Security:  an output column is a number of declared places, a truth value, a day, or a text that comes from a declared
           list or, in a key, from the input itself: there is no free text. Unknown members are refused at every depth.
Errors:    ``InvalidSpec`` naming the member.
Not here:  the archive (``bundle``), whether results keep to it (``outputs``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

from sandbox.errors import InvalidSpec
from sandbox.tee_sim.members import NAME, Members, read_texts

E = TypeVar("E", bound=StrEnum)

LIBRARIES: Final = ("duckdb", "lightgbm", "numpy", "onnxruntime", "pandas", "pyarrow", "scikit-learn", "scipy")
MOST_PLACES: Final = 9
MOST_ROWS: Final = 10_000_000
_MOST_COLUMNS = 256


class Form(StrEnum):
    """How a bundle computes."""

    PYTHON = "python"
    ONNX = "onnx"
    SQL = "sql"


_SUFFIXES: Final = {Form.PYTHON: ".py", Form.ONNX: ".onnx", Form.SQL: ".sql"}


class ResultClass(StrEnum):
    """How the gate has to judge an output: totals, one row a person, or a fitted model."""

    AGGREGATE = "aggregate"
    ROW = "row"
    MODEL = "model"


class Type(StrEnum):
    """What a value is."""

    INTEGER = "integer"
    NUMBER = "number"
    STRING = "string"
    BOOLEAN = "boolean"
    DATE = "date"


PARAMETERS: Final = (Type.INTEGER, Type.NUMBER, Type.STRING, Type.BOOLEAN)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of an output. ``places`` counts for numbers only; bounds are inclusive."""

    name: str
    type: Type
    places: int = 0
    low: float | None = None
    high: float | None = None
    values: tuple[str, ...] = ()
    optional: bool = False


@dataclass(frozen=True, slots=True)
class OutputTable:
    """One table that may leave. With a ``key``, its rows are about rows of the input ``of``, each at most once."""

    class_: ResultClass
    columns: tuple[Column, ...]
    rows: int  # at most
    of: str = ""
    key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OnnxMapping:
    """Which columns go into an ONNX graph, and which of its outputs, or which place of one, each result column is."""

    input: str
    features: tuple[str, ...]
    outputs: Mapping[str, str | tuple[str, int]]
    keep: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle is. Only ``read`` makes one."""

    name: str
    form: Form
    entry: str
    libraries: tuple[str, ...]
    inputs: Mapping[str, tuple[str, ...]]
    outputs: Mapping[str, OutputTable]
    params_schema: Mapping[str, Type]
    mapping: OnnxMapping | None = None


def read(document: object, where: str) -> Manifest:
    """Return the manifest that a parsed TOML or JSON document holds.

    Raises:
        InvalidSpec: a member is missing, of another type, unknown, or contradicts another.
    """
    top = Members(where, document)
    form = _choice(top, "form", Form)
    inputs = {
        name: read_texts(top.at(f"inputs.{name}"), columns) for name, columns in top.named("inputs", list).items()
    }
    outputs = {name: _output(top.at(f"outputs.{name}"), table) for name, table in top.named("outputs", dict).items()}
    params = {name: _param(top.at("params"), kind) for name, kind in top.named("params", str, needed=False).items()}
    mapping = _mapping(top.at("onnx"), top.take("onnx", dict)) if form is Form.ONNX else None
    manifest = Manifest(
        name=top.take("name", str),
        form=form,
        entry=top.take("entry", str),
        libraries=tuple(sorted(top.texts("libraries", []))),
        inputs=inputs,
        outputs=outputs,
        params_schema=params,
        mapping=mapping,
    )
    top.end()
    _check(manifest, where)
    return manifest


def canonical(manifest: Manifest) -> bytes:
    """Return the one encoding of a manifest: JSON in ASCII, members sorted, what has its default left out."""
    document: dict[str, Any] = {
        "name": manifest.name,
        "form": manifest.form,
        "entry": manifest.entry,
        "libraries": manifest.libraries,
        "inputs": manifest.inputs,
        "outputs": {name: _plain_output(output) for name, output in manifest.outputs.items()},
        "params": manifest.params_schema,
    }
    if manifest.mapping is not None:
        document["onnx"] = asdict(manifest.mapping)
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _plain_output(output: OutputTable) -> dict[str, Any]:
    about = {"of": output.of, "key": output.key} if output.key else {}
    columns = [_plain_column(column) for column in output.columns]
    return {"class": output.class_, "rows": output.rows, "columns": columns, **about}


def _plain_column(column: Column) -> dict[str, Any]:
    plain: dict[str, Any] = {"name": column.name, "type": column.type}
    if column.type is Type.NUMBER:
        plain["places"] = column.places
    bounds = {"low": column.low, "high": column.high}
    plain |= {name: bound for name, bound in bounds.items() if bound is not None}
    plain |= {"values": column.values} if column.values else {}
    return plain | ({"optional": True} if column.optional else {})


def _output(where: str, document: object) -> OutputTable:
    table = Members(where, document)
    columns = table.take("columns", list)
    output = OutputTable(
        class_=_choice(table, "class", ResultClass),
        columns=tuple(_column(f"{where}: column {n}", column) for n, column in enumerate(columns, 1)),
        rows=table.take("rows", int),
        of=table.take("of", str, ""),
        key=table.texts("key", []),
    )
    table.end()
    if not 1 <= output.rows <= MOST_ROWS:
        raise InvalidSpec(tell=f"{where}: rows is the most there can be, 1 to {MOST_ROWS}")
    _distinct(where, [column.name for column in output.columns])
    if bool(output.of) != bool(output.key):
        raise InvalidSpec(tell=f"{where}: of and key belong together")
    return output


def _column(where: str, document: object) -> Column:
    table = Members(where, document)
    kind = _choice(table, "type", Type)
    number, ordered = kind is Type.NUMBER, kind in (Type.INTEGER, Type.NUMBER)
    low, high = (_bound(table, name, number) if ordered else None for name in ("low", "high"))
    column = Column(
        name=table.text("name"),
        type=kind,
        places=table.take("places", int) if number else 0,
        low=low,
        high=high,
        values=tuple(sorted(table.texts("values", []))) if kind is Type.STRING else (),
        optional=table.take("optional", bool, False),
    )
    table.end()
    if not 0 <= column.places <= MOST_PLACES:
        raise InvalidSpec(tell=f"{where}: places is 0 to {MOST_PLACES}")
    if low is not None and high is not None and low > high:
        raise InvalidSpec(tell=f"{where}: low is above high")
    return column


def _bound(table: Members, name: str, number: bool) -> float | None:
    value: int | float | None = table.take(name, (int, float) if number else int, None)
    if value is None:
        return None
    if not abs(value) < 1 << 63:  # not a number, too
        raise InvalidSpec(tell=f"{table.at(name)} is out of range")
    return float(value) + 0.0 if number else value  # 0, 0.0 and -0.0 are one bound


def _mapping(where: str, document: object) -> OnnxMapping:
    table = Members(where, document)
    outputs = table.take("outputs", dict)
    read_texts(table.at("outputs"), list(outputs))
    mapping = OnnxMapping(
        input=table.take("input", str),
        features=table.texts("features"),
        outputs={column: _graph_output(table.at(f"outputs.{column}"), output) for column, output in outputs.items()},
        keep=table.texts("keep", []),
    )
    table.end()
    return mapping


def _graph_output(where: str, output: object) -> str | tuple[str, int]:
    parts = [output, 0] if isinstance(output, str) else output
    if not isinstance(parts, list) or len(parts) != 2 or type(parts[1]) is not int or not 0 <= parts[1] < MOST_ROWS:
        raise InvalidSpec(tell=f"{where} is an output of the graph, or one with a place: [output, 1]")
    name = read_texts(where, parts[:1])[0]
    return name if isinstance(output, str) else (name, parts[1])


def _check(manifest: Manifest, where: str) -> None:
    """Refuse members that contradict each other."""
    if not NAME.fullmatch(manifest.name.replace("-", "_")):
        raise InvalidSpec(tell=f"{where}: name is not 1 to 40 characters of a-z 0-9 _ -, beginning with a letter")
    if not manifest.entry.endswith(_SUFFIXES[manifest.form]):
        raise InvalidSpec(tell=f"{where}: entry is a file whose name ends in {_SUFFIXES[manifest.form]}")
    if unknown := sorted(set(manifest.libraries) - set(LIBRARIES)):
        raise InvalidSpec(tell=f"{where}: {unknown[0]!r} is not one of the libraries {', '.join(LIBRARIES)}")
    for name, columns in manifest.inputs.items():
        _distinct(f"{where}: inputs.{name}", columns)
    for name, output in manifest.outputs.items():
        _check_output(manifest, output, f"{where}: outputs.{name}")
    if manifest.form is not Form.PYTHON and set(manifest.outputs) != {"result"}:
        raise InvalidSpec(tell=f"{where}: a statement or a graph has one output, and it is called result")
    if (mapping := manifest.mapping) is not None:
        missing = {*mapping.features, *mapping.keep} - set(manifest.inputs.get(mapping.input, ()))
        if missing or mapping.input not in manifest.inputs:
            raise InvalidSpec(tell=f"{where}: onnx names an input, or a column of it, that inputs does not have")
        if sorted([*mapping.keep, *mapping.outputs]) != sorted(one.name for one in manifest.outputs["result"].columns):
            raise InvalidSpec(tell=f"{where}: the result's columns are not those that onnx keeps and puts out")


def _check_output(manifest: Manifest, output: OutputTable, where: str) -> None:
    declared = {column.name: column for column in output.columns}
    if output.key and output.class_ is not ResultClass.ROW:
        raise InvalidSpec(tell=f"{where}: only rows about persons, class row, have a key")
    if output.of and output.of not in manifest.inputs:
        raise InvalidSpec(tell=f"{where}: of names no input")
    for key in output.key:
        if key not in declared or key not in manifest.inputs[output.of]:
            raise InvalidSpec(tell=f"{where}: a column of the key is one of this output and of the input it is of")
        if declared[key].type is Type.NUMBER or declared[key].optional:
            raise InvalidSpec(tell=f"{where}: a column of the key is no number, and never missing")
    for column in output.columns:
        if column.type is Type.STRING and not column.values and column.name not in output.key:
            raise InvalidSpec(tell=f"{where}: a text outside the key needs values, the list of what it may be")


def _choice(table: Members, name: str, kind: type[E]) -> E:
    try:
        return kind(table.take(name, str))
    except ValueError:
        raise InvalidSpec(tell=f"{table.at(name)} is not one of {', '.join(kind)}") from None


def _param(where: str, kind: str) -> Type:
    if kind not in PARAMETERS:
        raise InvalidSpec(tell=f"{where}: a parameter is one of {', '.join(PARAMETERS)}")
    return Type(kind)


def _distinct(where: str, names: list[str] | tuple[str, ...]) -> None:
    if not 1 <= len(names) <= _MOST_COLUMNS or len(set(names)) != len(names):
        raise InvalidSpec(tell=f"{where} has 1 to {_MOST_COLUMNS} columns, each once")
