"""Results of a merchant's code, held against what its bundle declared, and made anew so that nothing else rides along.

    Arrow streams from the jail --stream--> tables --check--> the same values in new memory, in a fixed order

Security:  a result has exactly the declared tables and columns. Every column is rebuilt: numbers are rounded to their
           places and have to be a whole number of them that a double holds exactly, minus zero is zero, not-a-number
           and infinity are refused, and under a missing value lies a zero. Rows stand in the order of their key, or of
           all columns; keys are those of the input and none comes twice. What a merchant's code can still say is in the
           values themselves, how many rows there are, and whether it failed: docs/threat-model.md.
Reveals:   to the caller nothing: one wording. Details name declared columns only, for the data owner's log: what the
           code called its own columns could be a person's name.
Errors:    ``OutputWithheld``.
Not here:  group sizes, dominance, history: the gate judges what comes out of here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from sandbox.errors import IntegrityFailed, OutputWithheld
from sandbox.tee_sim.manifest import Column, Manifest, OutputTable, ResultClass, Type
from sandbox.tee_sim.stream import read_stream

MOST_BYTES: Final = 256 << 20  # of all results of one run
_EXACT: Final = float(1 << 53)  # below it a double holds every whole number
_DAYS: Final = (-719162, 2932896)  # 0001-01-01 and 9999-12-31 in days since 1970: what Python and SQL can hold

# What a column may come as, and what it leaves as. Narrower types are widened, and a statement's totals come as
# decimals; nothing is parsed.
_TAKEN: Final[Mapping[Type, tuple[Callable[[pa.DataType], bool], pa.DataType]]] = {
    Type.INTEGER: (lambda t: types.is_integer(t) or (types.is_decimal(t) and t.scale == 0), pa.int64()),
    Type.NUMBER: (lambda t: types.is_floating(t) or types.is_decimal(t), pa.float64()),
    Type.STRING: (lambda t: types.is_string(t) or types.is_large_string(t), pa.string()),
    Type.BOOLEAN: (types.is_boolean, pa.bool_()),
    Type.DATE: (types.is_date32, pa.date32()),
}


def check_classes(manifest: Manifest, *, rows_allowed: bool) -> None:
    """Refuse rows about persons where a job may give out none: before it runs, and again with its results."""
    if not rows_allowed and any(output.class_ is ResultClass.ROW for output in manifest.outputs.values()):
        raise OutputWithheld("the bundle declares rows about persons, and this job may not give out any")


def check_outputs(
    manifest: Manifest, found: Mapping[str, bytes], inputs: Mapping[str, pa.Table], *, rows_allowed: bool
) -> dict[str, pa.Table]:
    """Return the declared tables, rebuilt from what the jail left.

    Args:
        manifest: what the bundle declared.
        found: Arrow streams by name.
        inputs: what the code was given; keys of results are looked up in it.
        rows_allowed: whether this job may give out rows about persons at all.

    Raises:
        OutputWithheld: something is missing, undeclared, of another type, out of bounds, too large, or not allowed.
    """
    check_classes(manifest, rows_allowed=rows_allowed)
    if found.keys() != manifest.outputs.keys():
        raise OutputWithheld("the results are not exactly the declared tables")
    if sum(map(len, found.values())) > MOST_BYTES:
        raise OutputWithheld(f"the results have more than {MOST_BYTES >> 20} MiB")
    return {name: _check_table(name, output, found[name], inputs) for name, output in sorted(manifest.outputs.items())}


def _check_table(name: str, output: OutputTable, stream: bytes, inputs: Mapping[str, pa.Table]) -> pa.Table:
    names = [column.name for column in output.columns]
    try:
        table = read_stream(stream, output.rows, names)
    except IntegrityFailed as error:
        raise OutputWithheld(f"{name}: {error}") from None
    columns = [_rebuild(f"{name}.{one.name}", one, table[one.name].combine_chunks()) for one in output.columns]
    rebuilt = pa.table(columns, names=names)
    if output.key:
        _check_key(name, rebuilt.select(output.key), inputs[output.of].select(output.key))
    order = [(column, "ascending") for column in output.key or rebuilt.column_names]
    return rebuilt.take(pc.sort_indices(rebuilt, order)).combine_chunks()


def _rebuild(where: str, column: Column, array: pa.Array) -> pa.Array:
    """Return the column's values in new memory, as the declared type."""
    takes, arrow = _TAKEN[column.type]
    if not takes(array.type):
        raise OutputWithheld(f"{where} is not of type {column.type}")
    missing = np.asarray(pc.is_null(array))
    if missing.any() and not column.optional:
        raise OutputWithheld(f"{where} has missing values and is not declared optional")
    if column.type is Type.STRING:
        return _rebuild_texts(where, column, array.cast(pa.string()))
    try:
        known = pc.fill_null(array.cast(arrow), pa.scalar(0, pa.int32()).cast(arrow))
    except pa.ArrowInvalid:  # an unsigned number of 64 bits, a long decimal
        raise OutputWithheld(f"{where} has a value that does not fit its type") from None
    if column.type is Type.DATE:
        known = known.cast(pa.int32())
    values = known.to_numpy(zero_copy_only=False)
    if column.type is Type.NUMBER:
        values = _rounded(where, values, column.places)
    _check_bounds(where, column, values[~missing])
    plain = pa.array(values, pa.int32() if column.type is Type.DATE else arrow, mask=missing, from_pandas=False)
    return plain.cast(arrow)


def _rebuild_texts(where: str, column: Column, array: pa.Array) -> pa.Array:
    present = array.drop_null()
    if column.values and not pc.all(pc.is_in(present, pa.array(column.values, pa.string())), min_count=0).as_py():
        raise OutputWithheld(f"{where} has a text that is not one of the declared values")
    nothing = pa.scalar(None, pa.string())
    return pc.if_else(pc.is_null(array), nothing, pc.fill_null(array, ""))  # no text is left under a missing value


def _rounded(where: str, values: np.ndarray, places: int) -> np.ndarray:
    """Return numbers with so many places and nothing behind: each is told by one whole number below 2^53."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.rint(values * 10.0**places)
        exact = bool((np.abs(scaled) < _EXACT).all())  # not-a-number is not below anything
    if not exact:
        raise OutputWithheld(f"{where} has a value that is no finite number, or too large for its places")
    rounded: np.ndarray = scaled / 10.0**places + 0.0
    return rounded


def _check_bounds(where: str, column: Column, values: np.ndarray) -> None:
    low, high = _DAYS if column.type is Type.DATE else (column.low, column.high)
    if (low is not None and (values < low).any()) or (high is not None and (values > high).any()):
        raise OutputWithheld(f"{where} has a value outside the declared bounds")


def _check_key(name: str, keys: pa.Table, given: pa.Table) -> None:
    """Refuse rows about somebody who is not in the input, and two rows about one."""
    columns = keys.column_names
    try:
        given = given.cast(keys.schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise OutputWithheld(f"{name}: the key is not of the type that the input has") from None
    if keys.group_by(columns).aggregate([]).num_rows != keys.num_rows:
        raise OutputWithheld(f"{name}: a key comes twice")
    if keys.join(given, columns, join_type="left anti").num_rows:
        raise OutputWithheld(f"{name}: a key is not in the input")
