"""What a merchant's code leaves: exactly the declared tables, made anew; in every other case, nothing."""

from __future__ import annotations

import datetime
import struct
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from bundle_builders import write_files
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sandbox.errors import IntegrityFailed, OutputWithheld
from sandbox.tee_sim.bundle import pack, parse
from sandbox.tee_sim.manifest import Manifest
from sandbox.tee_sim.outputs import check_outputs
from sandbox.tee_sim.stream import read_stream, write_stream

PEOPLE = pa.table({"id": ["a", "b", "c", "d"], "income": [4, 3, 2, 1]})
SCORES = pa.table({"id": ["c", "a"], "score": [3.14159, 2.71828]})
TOTALS = pa.table(
    {
        "band": ["low", "high"],
        "people": [1, 2],
        "mean": pa.array([0.555, None], pa.float64()),
        "full": pa.array([None, True], pa.bool_()),
        "day": pa.array([datetime.date(2026, 1, 2), None], pa.date32()),
    }
)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return parse(pack(write_files(tmp_path_factory.mktemp("bundle")))).manifest


def stream(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def checked(
    manifest: Manifest, scores: pa.Table = SCORES, totals: pa.Table = TOTALS, rows_allowed: bool = True
) -> dict[str, pa.Table]:
    found = {"scores": stream(scores), "totals": stream(totals)}
    return check_outputs(manifest, found, {"people": PEOPLE}, rows_allowed=rows_allowed)


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


# --- what passes


def test_values_are_rounded_sorted_and_typed(manifest: Manifest) -> None:
    found = checked(manifest)
    assert found["scores"].to_pydict() == {"id": ["a", "c"], "score": [2.7, 3.1]}
    assert found["totals"].to_pydict() == {
        "band": ["high", "low"],
        "people": [2, 1],
        "mean": [None, 0.56],
        "full": [True, None],
        "day": [None, datetime.date(2026, 1, 2)],
    }
    types = [pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.date32()]
    assert found["totals"].schema == pa.schema(list(zip(found["totals"].column_names, types, strict=True)))


def test_narrower_types_are_widened(manifest: Manifest) -> None:
    scores = pa.table({"id": SCORES["id"].cast(pa.large_string()), "score": SCORES["score"].cast(pa.float32())})
    totals = with_column(TOTALS, "people", TOTALS["people"].cast(pa.uint8()))
    assert checked(manifest, scores, totals)["totals"].equals(checked(manifest)["totals"])
    totals = with_column(totals, "people", TOTALS["people"].cast(pa.decimal128(38, 0)))
    totals = with_column(totals, "mean", pa.array([Decimal("0.555"), None]))
    found = checked(manifest, scores, totals)
    assert found["scores"].equals(checked(manifest)["scores"])
    assert found["totals"].equals(checked(manifest)["totals"])


def test_the_sequence_of_rows_and_columns_says_nothing(manifest: Manifest) -> None:
    expected = checked(manifest)
    turned = checked(manifest, SCORES.take([1, 0]).select(["score", "id"]), TOTALS.take([1, 0]).select([4, 2, 0, 1, 3]))
    assert all(
        write_stream(turned[name]) == write_stream(expected[name]) and turned[name].equals(expected[name])
        for name in expected
    )


def test_the_same_values_are_the_same_bytes_whatever_hides_behind_them(manifest: Manifest) -> None:
    """Metadata, bytes under missing values, around slices and between batches, and the low bits of numbers."""
    hidden = np.array([0.5550000001, 1234.5])
    mean = pa.Array.from_buffers(pa.float64(), 2, [pa.py_buffer(b"\x01"), pa.py_buffer(hidden.tobytes())])
    full = pa.Array.from_buffers(pa.bool_(), 2, [pa.py_buffer(b"\x02"), pa.py_buffer(b"\x03")])
    day = pa.Array.from_buffers(pa.int32(), 2, [pa.py_buffer(b"\x01"), pa.py_buffer(struct.pack("<ii", 20455, 99))])
    totals = with_column(with_column(with_column(TOTALS, "mean", mean), "full", full), "day", day.view(pa.date32()))
    totals = totals.replace_schema_metadata({"row": "7 secret"})
    longer = pa.concat_tables([TOTALS, totals, TOTALS]).slice(2, 2)
    batches = pa.Table.from_batches([*totals.slice(0, 1).to_batches(), *totals.slice(1, 1).to_batches()])
    expected = write_stream(checked(manifest)["totals"])
    for one in (totals, longer, batches):
        found = checked(manifest, totals=one)["totals"]
        assert write_stream(found) == expected
        assert found.schema.metadata is None
        assert len(found.column("mean").chunks) == 1


def test_no_bytes_are_left_under_a_missing_text(tmp_path: Path) -> None:
    text = """
name = "texts"
form = "python"
entry = "model.py"
[inputs]
people = ["id"]
[outputs.kinds]
class = "aggregate"
rows = 9
columns = [{ name = "kind", type = "string", values = ["a"], optional = true }]
"""
    manifest = parse(pack(write_files(tmp_path, {"bundle.toml": text.encode(), "model.py": b""}))).manifest
    offsets = pa.py_buffer(struct.pack("<iii", 0, 1, 7))
    kinds = pa.StringArray.from_buffers(2, offsets, pa.py_buffer(b"asecret"), pa.py_buffer(b"\x01"))
    assert kinds.to_pylist() == ["a", None]
    found = check_outputs(manifest, {"kinds": stream(pa.table({"kind": kinds}))}, {}, rows_allowed=False)
    assert found["kinds"].to_pydict() == {"kind": ["a", None]}
    assert b"secret" not in write_stream(found["kinds"])


@settings(max_examples=300, deadline=None)
@given(st.floats(width=64))
@example(-0.0)
@example(-0.04)
@example(5e-324)
@example(1e308)
@example(float(2**53) / 10)
def test_a_number_is_told_by_a_whole_number_of_its_places(manifest: Manifest, value: float) -> None:
    totals = with_column(TOTALS, "mean", pa.array([value, 1.0], pa.float64()))
    try:
        found = checked(manifest, totals=totals)["totals"]["mean"].to_pylist()
    except OutputWithheld:
        assert not abs(value) * 100 < 2**53 - 1
        return
    low = found[1]
    assert low == round(low * 100) / 100
    assert abs(low - value) <= 0.005 + abs(value) * 2**-52
    assert struct.pack("<d", low) != struct.pack("<d", -0.0)


# --- what does not


def nested() -> pa.Array:
    return pa.array([[1], [2]], pa.list_(pa.int64()))


BROKEN: dict[str, tuple[str, Any, str]] = {
    "text for a number": ("mean", pa.array(["1", "2"]), "totals.mean is not of type number"),
    "whole numbers for numbers": ("mean", pa.array([1, 2]), "totals.mean is not of type number"),
    "decimals with places": ("people", pa.array([1, 2]).cast(pa.decimal128(30, 2)), "people is not of type integer"),
    "a long decimal": ("people", pa.array([Decimal(1), Decimal(10**20)]), "does not fit its type"),
    "numbers for whole ones": ("people", pa.array([1.0, 2.0]), "totals.people is not of type integer"),
    "truth for whole ones": ("people", pa.array([True, False]), "totals.people is not of type integer"),
    "beyond 64 bits": ("people", pa.array([1, 2**63], pa.uint64()), "does not fit its type"),
    "missing": ("people", pa.array([1, None], pa.int64()), "missing values"),
    "missing text": ("band", pa.array(["low", None]), "missing values"),
    "another text": ("band", pa.array(["low", "secret"]), "not one of the declared values"),
    "dictionary": ("band", pa.array(["low", "high"]).dictionary_encode(), "nested or encoded"),
    "bytes": ("band", pa.array([b"low", b"high"]), "nested or encoded"),
    "views, of which many may show one place": (
        "band",
        pa.array(["low", "high"], pa.string_view()),
        "nested or encoded",
    ),
    "list": ("people", nested(), "nested or encoded"),
    "struct": ("people", pa.array([{"a": 1}, {"a": 2}]), "nested or encoded"),
    "nothing": ("people", pa.nulls(2), "nested or encoded"),
    "run ends": (
        "people",
        pa.RunEndEncodedArray.from_arrays([2], [1], pa.run_end_encoded(pa.int32(), pa.int64())),
        "n",
    ),
    "time": ("day", pa.array([1, 2], pa.timestamp("us", "secret")), "nested or encoded"),
    "milliseconds": ("day", pa.array([0, 86_400_000], pa.date64()), "totals.day is not of type date"),
    "a day of no calendar": (
        "day",
        pa.array([0, 2932897], pa.int32()).view(pa.date32()),
        "outside the declared bounds",
    ),
    "not a number": ("mean", pa.array([float("nan"), 1.0], from_pandas=False), "no finite number"),
    "infinity": ("mean", pa.array([1.0, float("-inf")]), "no finite number"),
    "too large for its places": ("mean", pa.array([1.0, 1e15]), "no finite number"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_columns_that_are_not_as_declared(manifest: Manifest, name: str) -> None:
    column, values, why = BROKEN[name]
    with pytest.raises(OutputWithheld, match=why):
        checked(manifest, totals=with_column(TOTALS, column, values))


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        (pa.table({"id": ["a", "x"], "score": [1.0, 2.0]}), "a key is not in the input"),
        (pa.table({"id": ["a", "a"], "score": [1.0, 2.0]}), "a key comes twice"),
        (pa.table({"id": ["a", None], "score": [1.0, 2.0]}), "missing values"),
        (pa.table({"id": ["a"], "score": [1000.06]}), "outside the declared bounds"),
        (pa.table({"id": ["a"], "score": [-0.06]}), "outside the declared bounds"),
        (pa.table({"id": ["a"] * 101, "score": [1.0] * 101}), "too many rows"),
        (SCORES.append_column("extra", [["s", "t"]]), "exactly the declared"),
        (SCORES.rename_columns(["id", "7 secret"]), "exactly the declared"),
        (SCORES.rename_columns(["id", "id"]), "exactly the declared"),
        (SCORES.select(["id"]), "exactly the declared"),
        (pa.table({}), "exactly the declared"),
    ],
)
def test_tables_that_are_not_as_declared(manifest: Manifest, scores: pa.Table, why: str) -> None:
    with pytest.raises(OutputWithheld, match=why) as withheld:
        checked(manifest, scores)
    assert "secret" not in str(withheld.value)
    assert withheld.value.tell == OutputWithheld.public


def test_keys_have_the_type_of_the_input(manifest: Manifest) -> None:
    people = pa.table({"id": pa.array([b"\xff"], pa.binary()), "income": [1]})
    found = {"scores": stream(SCORES), "totals": stream(TOTALS)}
    with pytest.raises(OutputWithheld, match="type that the input has"):
        check_outputs(manifest, found, {"people": people}, rows_allowed=True)
    large = PEOPLE.set_column(0, "id", PEOPLE["id"].cast(pa.large_string()))
    assert check_outputs(manifest, found, {"people": large}, rows_allowed=True)["scores"].num_rows == 2


def test_rows_about_persons_need_leave(manifest: Manifest) -> None:
    with pytest.raises(OutputWithheld, match="may not give out any"):
        checked(manifest, rows_allowed=False)


@pytest.mark.parametrize("change", [lambda f: f.pop("totals"), lambda f: f.update(secret=f["totals"])])
def test_the_tables_are_the_declared_ones(manifest: Manifest, change: Any) -> None:
    found = {"scores": stream(SCORES), "totals": stream(TOTALS)}
    change(found)
    with pytest.raises(OutputWithheld, match="not exactly the declared tables") as withheld:
        check_outputs(manifest, found, {"people": PEOPLE}, rows_allowed=True)
    assert "secret" not in str(withheld.value)


def test_results_have_a_size(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.tee_sim.outputs.MOST_BYTES", 100)
    with pytest.raises(OutputWithheld, match="MiB"):
        checked(manifest)


def test_a_table_without_rows_is_a_table(manifest: Manifest) -> None:
    assert checked(manifest, SCORES.slice(0, 0), TOTALS.slice(0, 0))["scores"].num_rows == 0


# --- streams


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_streams_are_refused_before_they_grow(codec: str) -> None:
    table = pa.table({"n": pa.array(np.zeros(100_000, np.int64))})
    with pytest.raises(IntegrityFailed, match="plain record batches"):
        read_stream(stream(table, compression=codec))
    assert read_stream(stream(table)).equals(table)


def test_columns_are_counted() -> None:
    wide = pa.table({f"c{n}": [n] for n in range(1025)})
    with pytest.raises(IntegrityFailed, match="exactly the declared"):
        read_stream(stream(wide))
    assert read_stream(stream(wide.select(range(1024)))).num_columns == 1024


def test_rows_without_bytes_are_refused() -> None:
    with pytest.raises(IntegrityFailed, match="too many rows"):
        read_stream(stream(pa.table({"n": [1, 2, 3]})), most_rows=2)
    batch = pa.RecordBatch.from_pydict({"n": [1]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        for _ in range(4):
            writer.write_batch(batch)
    with pytest.raises(IntegrityFailed, match="too many rows"):
        read_stream(bytes(sink.getvalue()), most_rows=3)


def test_offsets_outside_the_buffers_are_found() -> None:
    table = pa.table({"t": ["aaaa", "bbbb"]})
    data = bytearray(stream(table))
    at = data.index(struct.pack("<iii", 0, 4, 8))
    data[at + 8 : at + 12] = struct.pack("<i", 1 << 30)
    with pytest.raises(IntegrityFailed, match="well-formed"):
        read_stream(bytes(data))


def test_text_and_names_that_are_not_unicode_are_found() -> None:
    for table in (pa.table({"t": ["aaaa"]}), pa.table({"aaaa": ["t"]})):
        data = stream(table)
        assert b"aaaa" in data
        with pytest.raises(IntegrityFailed, match="well-formed"):
            read_stream(data.replace(b"aaaa", b"\xff\xfe\xfd\xfc"))


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_changed_streams_are_read_or_refused_in_our_words(data: st.DataObject) -> None:
    whole = stream(TOTALS)
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :]
    for one in (changed, whole[:at]):
        try:
            read = read_stream(one, 1000)
            read.validate(full=True)
            assert all(name.encode() for name in read.column_names if name)
        except IntegrityFailed as error:
            assert error.__cause__ is None


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_no_stream(data: bytes) -> None:
    with pytest.raises(IntegrityFailed):
        read_stream(data)
