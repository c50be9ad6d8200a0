"""Tables of owners: what is taken in, and how everything else is refused without a word of its contents."""

from __future__ import annotations

import io
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from catalog_builders import EVERY_TYPE, batch, keyed, schema, write_parquet
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.catalog import csv_text, intake
from sandbox.catalog.columns import Place, from_text
from sandbox.catalog.formats import KeyFormat, WhenInvalid
from sandbox.catalog.ids import Words, digest128, made_up_ids
from sandbox.catalog.intake import find_twins, read_table
from sandbox.catalog.schema import Field, FieldType, Schema
from sandbox.errors import InvalidSpec

CANARY = "canary7731"
PAIR = schema({"id": FieldType.STRING, "n": FieldType.INTEGER})


def table(path: Path | Sequence[Path], of: Schema, batch_rows: int = 131072, encoding: str = "utf-8") -> pa.Table:
    return pa.Table.from_batches(read_table(path, of, batch_rows, encoding), of.arrow())


def rows_of(path: Path | Sequence[Path], of: Schema, encoding: str = "utf-8") -> int:
    """Read everything, as sealing does."""
    return sum(batch.num_rows for batch in read_table(path, of, encoding=encoding))


def everything_in(error: BaseException) -> str:
    """Return all text that a log of the error could hold, the errors chained to it included."""
    chain, texts = [error], []
    while chain:
        one = chain.pop()
        texts += [repr(one), str(one), repr(one.__dict__), "".join(traceback.format_exception(one))]
        chain += [other for other in (one.__cause__, one.__context__) if other]
    return "\n".join(texts)


def refused(
    paths: Path | Sequence[Path], of: Schema, *said: str, canary: str = CANARY, encoding: str = "utf-8"
) -> None:
    with pytest.raises(InvalidSpec) as caught:
        rows_of(paths, of, encoding)
    error = caught.value
    named = (str(paths),) if isinstance(paths, Path) else ()
    assert all(word in str(error) for word in (*named, *said)), str(error)
    assert canary not in everything_in(error)
    assert error.tell == "the dataset cannot be used as it is; ask the department that owns it"
    assert "/" not in error.hint


# What is taken in


def test_parquet_gives_back_every_type_and_missing_values(tmp_path: Path) -> None:
    whole = batch()
    path = write_parquet(tmp_path / "t.parquet", dict(zip(whole.schema.names, whole.columns, strict=True)))
    assert table(path, EVERY_TYPE).equals(pa.Table.from_batches([whole]))
    assert rows_of(path, EVERY_TYPE) == 4


CSV = (
    "extra,id,姓名,income,orders,active,since\r\n"
    f"{CANARY},a1,张三,12.5,1,true,1999-12-31\r\n"
    ",a2,,,-9223372036854775808,FALSE,\r\n"
    '\xff,a3,"",-0.0000000001, ,"",0001-01-01\r\n'
    '"x,y",a4,"ünï\n""q"",😀"," 1000000000000000000000000000 ",9223372036854775807,1,9999-12-31\r\n'
).encode()


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("batch_rows", [1, 3, 131072])
def test_csv_gives_every_type_and_missing_values(tmp_path: Path, mark: bytes, batch_rows: int) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(mark + CSV)
    assert table(path, EVERY_TYPE, batch_rows).combine_chunks().equals(pa.Table.from_batches([batch()]))


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n\n"])
def test_the_end_of_the_file_does_not_matter(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b'"id","n"\n"a",1\n\n"b","2"' + end)
    assert table(path, PAIR).to_pydict() == {"id": ["a", "b"], "n": [1, 2]}


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=6)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(cells, min_size=1, max_size=8), quoted=st.lists(st.booleans(), min_size=8, max_size=8))
def test_any_text_comes_back_from_csv(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], quoted: list[bool]
) -> None:
    def cell(text: str, quote: bool) -> str:
        return '"' + text.replace('"', '""') + '"' if quote or not text or set(text) & set(',"\n') else text

    path = tmp_path_factory.mktemp("csv") / "t.csv"
    lines = [f"{cell(text, quote)},{n}" for n, (text, quote) in enumerate(zip(rows, quoted, strict=False))]
    path.write_text("\n".join(["text,id", *lines]), encoding="utf-8", newline="")
    of = schema({"text": FieldType.STRING, "id": FieldType.INTEGER})
    assert table(path, of)["text"].to_pylist() == rows


def test_narrower_parquet_types_are_widened(tmp_path: Path) -> None:
    of = schema({"id": FieldType.STRING, "i": FieldType.INTEGER, "d": FieldType.DECIMAL, "t": FieldType.DATE})
    for columns in (
        {"i": pa.array([5], pa.int8()), "d": pa.array([0.1]), "t": pa.array([datetime(2020, 1, 2)])},
        {"i": pa.array([5.0]), "d": pa.array([Decimal("0.1")]), "t": pa.array([date(2020, 1, 2)], pa.date64())},
    ):
        ids = pa.array(["a"]).dictionary_encode()
        path = write_parquet(tmp_path / "t.parquet", {"id": ids, **columns})
        assert table(path, of).to_pylist() == [{"id": "a", "i": 5, "d": Decimal("0.1"), "t": date(2020, 1, 2)}]


def test_reading_is_lazy_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_text, "BLOCK", 4096)
    path = tmp_path / "t.csv"
    path.write_text("id,n\n" + "".join(f"k{i},{i}\n" for i in range(50_000)) + f"{CANARY},x\n")
    batches = read_table(path, PAIR)
    first = next(batches)
    assert 0 < first.num_rows < 3000  # the file is wrong at its end, and nobody has looked there
    sizes: list[int] = []
    with pytest.raises(InvalidSpec, match="row 50001"):
        sizes.extend(batch.nbytes for batch in batches)
    assert max(sizes) < 2 * (csv_text.TOGETHER + 1) * 4096 and len(sizes) > 20


def test_parquet_is_read_lazily_too(tmp_path: Path) -> None:
    numbers = np.arange(300_000)
    ids = pa.array(numbers).cast(pa.string())
    path = write_parquet(tmp_path / "t.parquet", {"id": ids, "n": numbers.astype(float) + (numbers == 299_999) / 2})
    batches = read_table(path, PAIR, 1000)
    assert next(batches).num_rows == 1000
    with pytest.raises(InvalidSpec, match="row 300000"):
        assert all(batch.num_rows == 1000 for batch in batches)


# What is refused

BAD_CELLS = [
    (FieldType.INTEGER, CANARY, "a whole number"),
    (FieldType.INTEGER, "7731.5", "a whole number"),
    (FieldType.INTEGER, "0x7731", "a whole number"),
    (FieldType.INTEGER, "+7731", "a whole number"),
    (FieldType.INTEGER, "9223372036854775808", "a whole number"),
    (FieldType.DECIMAL, CANARY, "a decimal number"),
    (FieldType.DECIMAL, "7731e2", "a decimal number"),
    (FieldType.DECIMAL, "0.77310000001", "10 places"),
    (FieldType.DECIMAL, "7" * 40, "a decimal number"),
    (FieldType.DECIMAL, "NaN", "a decimal number"),
    (FieldType.BOOLEAN, "yes7731", "true or false"),
    (FieldType.DATE, "2020-02-30", "a date"),
    (FieldType.DATE, "2020/02/03", "a date"),
    (FieldType.DATE, "0000-01-01", "a date"),
    (FieldType.DATE, "2020-02-03\n", "a date"),
]


@pytest.mark.parametrize(("type_", "cell", "said"), BAD_CELLS)
@pytest.mark.parametrize("before", [0, 1, 5000])
def test_a_csv_cell_of_another_type_is_named_by_row(
    tmp_path: Path, type_: FieldType, cell: str, said: str, before: int
) -> None:
    good = {FieldType.BOOLEAN: "1", FieldType.DATE: "2020-01-01"}.get(type_, "0")
    rows = [f"{i},{good}" for i in range(before)] + [f'x,"{cell}"', f"y,{good}", f'z,"{cell}"']
    path = tmp_path / "t.csv"
    path.write_text("id,v\n" + "\n".join(rows), newline="")
    of = schema({"id": FieldType.STRING, "v": type_})
    if cell.endswith("\n"):  # blanks around a value are dropped
        assert rows_of(path, of) == before + 3
    else:
        refused(path, of, "column 'v'", f"row {before + 1}:", said, canary=cell)


BAD_COLUMNS: list[tuple[FieldType, Any, str]] = [
    (FieldType.INTEGER, pa.array([1, None, 2**63], pa.uint64()), "row 3: not a whole number"),
    (FieldType.INTEGER, pa.array([1.0, None, 7731.5]), "row 3: not a whole number"),
    (FieldType.INTEGER, pa.array([1.0, 2.0, float("nan")]), "row 3: not a whole number"),
    (FieldType.INTEGER, pa.array(["1", "2", CANARY]), "its type in the file is string"),
    (FieldType.DECIMAL, pa.array([1.0, 2.0, float("inf")]), "row 3: not a decimal"),
    (FieldType.DECIMAL, pa.array([1, 2, Decimal("0.77310000001")], pa.decimal128(38, 11)), "row 3: not a decimal"),
    (FieldType.DECIMAL, pa.array(["1", "2", CANARY]), "its type in the file is string"),
    (FieldType.BOOLEAN, pa.array([0, 1, 7731]), "its type in the file is int64"),
    (FieldType.DATE, pa.array([None, None, datetime(2020, 1, 1, 7, 31)]), "row 3: not a date"),
    (FieldType.DATE, pa.array([0, 0, 4_000_000], pa.int32()).cast(pa.date32()), "row 3: not a date"),
    (FieldType.DATE, pa.array(["1", "2", CANARY]), "its type in the file is string"),
    (FieldType.STRING, pa.array([1, 2, 7731]), "its type in the file is int64"),
    (FieldType.STRING, pa.array([b"a", b"b", CANARY.encode()]), "its type in the file is binary"),
    (FieldType.STRING, pa.array([[CANARY], [], []]), "its type in the file is list"),
]


@pytest.mark.parametrize(("type_", "column", "said"), BAD_COLUMNS)
def test_a_parquet_column_of_another_type_is_named(tmp_path: Path, type_: FieldType, column: Any, said: str) -> None:
    path = write_parquet(tmp_path / "t.parquet", {"id": ["a", "b", "c"], "v": column})
    refused(path, schema({"id": FieldType.STRING, "v": type_}), "column 'v'", said, canary="7731")


def not_utf8_in_parquet(path: Path) -> None:
    raw = pa.array([b"x", CANARY.encode() + b"\xff"])
    text = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    write_parquet(path, {"id": text, "n": [1, 2]})


def truncated_parquet(path: Path) -> None:
    write_parquet(path, {"id": [CANARY], "n": [1]})
    path.write_bytes(path.read_bytes()[:-20])


def damaged_parquet(path: Path) -> None:
    write_parquet(path, {"id": [f"{CANARY}{i}" for i in range(2000)], "n": range(2000)})
    data = bytearray(path.read_bytes())
    data[100:2000] = bytes(1900)
    path.write_bytes(data)


FILES: list[tuple[str, bytes | Callable[[Path], object], tuple[str, ...]]] = [
    ("empty", b"", ("the file is empty",)),
    ("heading only", b"id,n\n", ("no rows",)),
    ("heading without end", b"id,n", ("no rows",)),
    ("no heading", b"\n\n", ("no heading",)),
    ("values as heading", f"{CANARY},7\n{CANARY},8\n".encode(), ("column 'id'", "no such column")),
    ("missing column", f"id,m\n{CANARY},7\n".encode(), ("column 'n'", "no such column")),
    ("column twice", f"id,n,n\n{CANARY},7,7\n".encode(), ("column 'n'", "twice")),
    ("zip", b"PK\x03\x04\xff\xfe" + CANARY.encode(), ("neither Parquet nor CSV",)),
    ("utf-16", f"id,n\n{CANARY},7\n".encode("utf-16"), ("neither Parquet nor CSV",)),
    ("utf-16 without mark", f"id,n\n{CANARY},7\n".encode("utf-16-le"), ("neither Parquet nor CSV",)),
    ("heading in GBK", f"id,n,姓名\n{CANARY},7,\n".encode("gbk"), ("neither Parquet nor CSV, or in GB18030",)),
    ("open mark in heading", f'id,"n\n{CANARY},7\n'.encode(), ("heading",)),
    ("text in GBK", f"id,n\na,1\n{CANARY}张,7\n".encode("gbk"), ("column 'id'", "row 2: not text in UTF-8")),
    ("number not UTF-8", b"id,n\na,1\nb,7\xff\n", ("column 'n'", "row 2: not text in UTF-8")),
    ("field too many", f"id,n\na,1\n{CANARY},7,\n".encode(), ("row 2: more or fewer",)),
    ("field too few", f'id,n\n"a\n\n",1\n\n\n{CANARY}\n'.encode(), ("row 2: more or fewer",)),
    ("late ragged row", b"id,n\n" + b"".join(b"%d,1\n" % i for i in range(9000)) + b"x\n", ("row 9001:",)),
    ("open mark", f'id,n\na,1\n"{CANARY},7\n'.encode() + b"x,1\n" * 5, ("line 9: a quotation mark is open",)),
    ("open mark at the end", f'id,n\na,1\n{CANARY},"7'.encode(), ("line 3: a quotation mark",)),
    ("text behind a mark", f'id,n\n"{CANARY}" x,7\n'.encode(), ("line 2: a quotation mark",)),
    ("mark in a field", f'id,n\na,1\n{CANARY}" x",7\n'.encode(), ("line 3: a quotation mark",)),
    ("rows between marks", f'id,n\n"{CANARY},1\na,1\n"b,7\n'.encode(), ("line 4: a quotation mark",)),
    ("key missing", f"id,n\n{CANARY},1\n,7\n".encode(), ("column 'id'", "row 2: the key is missing or empty")),
    ("key empty", f'id,n\n{CANARY},1\n"",7\n'.encode(), ("column 'id'", "row 2: the key is missing or empty")),
    ("key blank", f"id,n\n{CANARY},1\n\u3000 ,7\n".encode(), ("column 'id'", "row 2: the key is missing or empty")),
    ("key with control", f"id,n\n{CANARY},1\n{CANARY}\x1f1,7\n".encode(), ("row 2: the key contains", "U+001F")),
    (
        "key twice",
        f"id,n\nb,1\n{CANARY},2\nc,3\n{CANARY},4\nb,5\n".encode(),
        ("rows 2 and 4 have the same key", "2 rows repeat the key"),
    ),
    (
        "key in two spellings",
        f"id,n\n{CANARY}x,1\n {CANARY}Ｘ,2\n".encode(),
        ("rows 1 and 2 have the same key (id)", "1 row repeats the key"),
    ),
    ("Parquet without rows", lambda p: write_parquet(p, {"id": pa.array([], pa.string()), "n": []}), ()),
    ("Parquet without column", lambda p: write_parquet(p, {"id": [CANARY]}), ("column 'n'", "no such column")),
    ("Parquet key missing", lambda p: write_parquet(p, {"id": [CANARY, None], "n": [1, 2]}), ("row 2: the key is",)),
    ("Parquet key twice", lambda p: write_parquet(p, {"id": [CANARY] * 2, "n": [1, 2]}), ("rows 1 and 2 have",)),
    ("Parquet not UTF-8", not_utf8_in_parquet, ("column 'id'", "row 2: not text in UTF-8")),
    ("Parquet cut off", truncated_parquet, ("a damaged Parquet file",)),
    ("Parquet damaged", damaged_parquet, ("a damaged Parquet file, here or further down",)),
    ("directory", lambda p: p.mkdir(), ("cannot be read",)),
    ("no file", lambda p: None, ("cannot be read (No such file or directory)",)),
]


@pytest.mark.parametrize(("make", "said"), [case[1:] for case in FILES], ids=[case[0] for case in FILES])
def test_a_file_that_cannot_be_used_is_refused(
    tmp_path: Path, make: bytes | Callable[[Path], object], said: tuple[str, ...]
) -> None:
    path = tmp_path / "t"
    if isinstance(make, bytes):
        path.write_bytes(make)
    else:
        make(path)
    refused(path, PAIR, *said)


@pytest.mark.parametrize("block", [64, 65, 66, 67, 100])
def test_quotation_marks_are_checked_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(csv_text, "BLOCK", block)
    good = "id,n\n" + "".join(f'"k""{i}\n,",{i}\n' for i in range(60))
    path = tmp_path / "t.csv"
    path.write_text(good, newline="")
    assert rows_of(path, PAIR) == 60
    for line, wrong in ((62, '"k" x,1\n'), (62, 'k"x,1\n')):
        lines = good.splitlines(keepends=True)
        path.write_text("".join([*lines[: line - 1], wrong, *lines[line - 1 :]]), newline="")
        refused(path, PAIR, f"line {line}: a quotation mark")
    path.write_text(good + '"k,1\n', newline="")
    refused(path, PAIR, "a quotation mark is open")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('"a","b"\n"c""d",""\n', 0),
        ('a\n"b"\r\n"""",""""\n"\n"', 0),
        ('a\n"b"x\n"c"\n', 2),
        ('a\n"b" ,c\n', 2),
        ('"a\n\n"b,"c"\n', 3),
        ('a\nb"\n', 2),
        ('a\n "b"\n', 2),
        ('a\n"b""\nc\n', 4),
        ('a\n"""b\n', 3),
    ],
)
def test_marks_are_judged_the_same_wherever_a_block_ends(text: str, line: int) -> None:
    for first in range(1, len(text)):
        for second in range(1, 4):
            quotes = csv_text.Quotes(io.BytesIO(text.encode()))
            read = quotes.read(first)
            while some := quotes.read(second):
                read += some
            assert quotes.wrong_line == line
            assert line or read == text.encode()


def test_a_row_longer_than_a_block_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_text, "BLOCK", 1024)
    path = tmp_path / "t.csv"
    path.write_text("id,n\na,1\n" + CANARY * 500 + ",7\n")
    refused(path, PAIR, "a row longer than a block")


def test_a_key_of_several_columns(tmp_path: Path) -> None:
    of = schema({"id": FieldType.STRING, "day": FieldType.DATE, "n": FieldType.INTEGER}, key=("day", "id"))
    path = tmp_path / "t.csv"
    path.write_text("id,day,n\na,2020-01-01,1\na,2020-01-02,1\nb,2020-01-01,1\n")
    assert rows_of(path, of) == 3
    path.write_text(f"id,day,n\n{CANARY},2020-01-01,1\na,2020-01-02,1\n{CANARY},2020-01-01,2\n")
    refused(path, of, "rows 1 and 3 have the same key (day, id)")
    path.write_text(f"id,day,n\n{CANARY},2020-01-01,1\na,,1\n")
    refused(path, of, "column 'day', row 2: the key is missing")


def test_equal_keys_far_apart_are_found(tmp_path: Path) -> None:
    ids = [f"k{i}" for i in range(200_000)]
    ids[199_999] = "K77"
    path = write_parquet(tmp_path / "t.parquet", {"id": ids, "n": range(200_000)})
    refused(path, PAIR, "rows 78 and 200000 have the same key")


def test_a_table_of_one_key_only_is_refused_at_its_second_row(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "t.parquet", {"id": [CANARY] * 150_000, "n": range(150_000)})
    refused(path, PAIR, "rows 1 and 2 have the same key", "149999 rows repeat the key")


# Keys with a format

PERSON = keyed(id=(FieldType.STRING, KeyFormat.ID_NUMBER), tel=(FieldType.STRING, KeyFormat.PHONE, WhenInvalid.KEEP))
ID = keyed(id=(FieldType.STRING, KeyFormat.ID_NUMBER))
KEPT = keyed(id=(FieldType.STRING, KeyFormat.ID_NUMBER, WhenInvalid.KEEP))
VALID_ID, OLD_ID = "99000019900101005X", "990000900101005"


def written(path: Path, *ids: str) -> Path:
    path.write_text("id\n" + "".join(f"{one}\n" for one in ids))
    return path


@pytest.mark.parametrize("batch_rows", [1, 3, 131072])
def test_invalid_keys_are_counted_and_the_first_of_them_named(tmp_path: Path, batch_rows: int) -> None:
    good = made_up_ids(40, seed=1).to_pylist()
    bad = {place: f"{CANARY}{place}" for place in (0, *range(5, 15), 39)}
    path = written(tmp_path / "t.csv", *(bad.get(place, one) for place, one in enumerate(good)))
    with pytest.raises(InvalidSpec) as caught:
        list(read_table(path, ID, batch_rows))
    assert str(caught.value) == (
        f"{path}: column 'id': 12 of 40 rows hold no valid id_number (rows 1, 6, 7, 8, 9, 10, 11, 12, 13, 14 ...); "
        'correct them, or keep them as they are by saying "invalid": "keep" in the schema'
    )
    refused(path, ID, "12 of 40")
    assert rows_of(path, KEPT) == 40


def test_a_single_invalid_key_is_named(tmp_path: Path) -> None:
    wrong = VALID_ID[:-1] + "0"
    path = written(tmp_path / "t.csv", "99000019900101013X", wrong)
    refused(path, ID, "1 of 2 rows hold no valid id_number (rows 2);", canary=wrong)


def test_each_column_of_a_key_is_judged_by_its_own_word(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"id,tel\n{VALID_ID},{CANARY}\n{OLD_ID},13800138000\n")
    assert rows_of(path, PERSON) == 2  # the same person with two numbers, one of them none
    path.write_text(f"id,tel\n{CANARY},13800138000\n{VALID_ID},{CANARY}\n")
    refused(path, PERSON, "column 'id': 1 of 2 rows", "(rows 1)")


def test_a_key_written_in_two_ways_is_the_same_key(tmp_path: Path) -> None:
    other = "990000-19900101-013x"
    path = written(tmp_path / "t.csv", VALID_ID, "99000019900101013X", OLD_ID, other, " 990000 900101 005 ")
    for of in (ID, KEPT):
        refused(path, of, "rows 1 and 3 have the same key (id)", "3 rows repeat the key", canary=VALID_ID)
    assert rows_of(path, schema({"id": FieldType.STRING})) == 5  # as texts they differ


def test_invalid_and_repeated_keys_are_told_at_once(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", VALID_ID, CANARY, OLD_ID)
    refused(path, ID, "1 of 3 rows hold no valid id_number (rows 2)", "rows 1 and 3 have the same key")


def test_a_key_of_which_nothing_is_left_is_empty(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", CANARY, '"\u200b \u3000"')
    refused(path, keyed(id=(FieldType.STRING, KeyFormat.NAME)), "column 'id', row 2: the key is missing or empty")


def test_equal_keys_of_formats_are_found_far_apart(tmp_path: Path) -> None:
    ids = made_up_ids(150_000, seed=2).to_pylist()
    ids[149_999] = f"{ids[7][:6]} {ids[7][6:].lower()}"
    path = write_parquet(tmp_path / "t.parquet", {"id": ids})
    refused(path, ID, "rows 8 and 150000 have the same key", "1 row repeats", canary=ids[7])


def test_telephone_numbers_may_be_whole_numbers(tmp_path: Path) -> None:
    of = keyed(id=(FieldType.INTEGER, KeyFormat.PHONE))
    path = write_parquet(tmp_path / "t.parquet", {"id": [13800138000, 8613800000000]})
    assert rows_of(path, of) == 2
    path = write_parquet(tmp_path / "t.parquet", {"id": [13800138000, 8613800138000]})
    refused(path, of, "rows 1 and 2 have the same key", canary="13800138000")


keys = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), max_size=12)


@given(keys, st.sampled_from([0, 1, 2**64 - 1]), st.integers(1, 4))
def test_twins_are_what_a_plain_search_finds(values: list[str], kept: int, batch_rows: int) -> None:
    """With few bits of the digest left, unequal keys look alike: only equal ones may count."""

    def digest(some: pa.Array) -> Words:
        return digest128(some, b"salt")[:, 0] & np.uint64(kept)

    def again() -> Iterator[pa.Array]:
        for begin in range(0, len(values), batch_rows):
            yield pa.array(values[begin : begin + batch_rows], pa.string())

    found = find_twins([digest(some) for some in again()], again, digest)
    pairs = [(values.index(value), row) for row, value in enumerate(values) if value in values[:row]]
    assert (None if found is None else found[:2]) == next(iter(pairs), None)
    assert found is None or kept < 2 or found[2] == len(pairs)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_twins_are_found_whatever_is_compared_at_once(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest is the key's length: a and b look alike and differ, cc stands there twice."""
    monkeypatch.setattr(intake, "COMPARED_AT_ONCE", most)
    values = pa.array(["a", "cc", "b", "ddd", "eee", "cc", "ffff"])

    def digest(some: pa.Array) -> Words:
        return pc.utf8_length(some).cast(pa.uint64()).to_numpy()  # type: ignore[no-any-return]

    assert find_twins([digest(values)], lambda: iter([values]), digest) == (1, 5, 3)
    unlike = values.filter(pa.array([True] * 5 + [False] * 2))
    assert find_twins([digest(unlike)], lambda: iter([unlike]), digest) is None


def test_a_batch_has_rows(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "t.parquet", {"id": ["a"], "n": [1]})
    with pytest.raises(InvalidSpec):
        next(read_table(path, PAIR, 0))


def test_names_with_dots_are_names(tmp_path: Path) -> None:
    of = Schema(tuple(Field(n, *_rest()) for n in ("a.b", "a")), ("a.b",))
    path = write_parquet(tmp_path / "t.parquet", {"a": ["1"], "a.b": ["2"], "a.b.c": ["3"]})
    assert table(path, of).to_pylist() == [{"a.b": "2", "a": "1"}]


def _rest() -> tuple[Any, ...]:
    whole = schema({"id": FieldType.STRING}).fields[0]
    return (whole.type, whole.meaning, whole.unit, whole.grade, whole.masking, whole.price_coefficient)


# Several files


def in_parts(folder: Path, *parts: str) -> list[Path]:
    paths = [folder / f"part{number}.csv" for number in range(len(parts))]
    for path, text in zip(paths, parts, strict=True):
        path.write_text(text, newline="")
    return paths


@pytest.mark.parametrize("batch_rows", [1, 2, 131072])
def test_several_files_are_one_table_in_the_order_given(tmp_path: Path, batch_rows: int) -> None:
    paths = in_parts(tmp_path, "id,n\nb,1\nc,2\n", "n,more,id\n3,x,a\n", "id,n\n", "id,n", '"id","n"\r\n"d","4"')
    assert table(paths, PAIR, batch_rows).to_pydict() == {"id": ["b", "c", "a", "d"], "n": [1, 2, 3, 4]}
    assert table(paths[::-1], PAIR, batch_rows)["id"].to_pylist() == ["d", "a", "b", "c"]


def test_several_parquet_files_are_one_table(tmp_path: Path) -> None:
    paths = [
        write_parquet(tmp_path / "a", {"id": ["x", "y"], "n": pa.array([1, 2], pa.int8())}),
        write_parquet(tmp_path / "b", {"n": pa.array([], pa.int64()), "id": pa.array([], pa.string())}),
        write_parquet(tmp_path / "c", {"n": [3.0], "id": pa.array(["z"]).dictionary_encode()}),
    ]
    assert table(paths, PAIR).to_pydict() == {"id": ["x", "y", "z"], "n": [1, 2, 3]}


def test_rows_are_counted_anew_in_each_file(tmp_path: Path) -> None:
    paths = in_parts(tmp_path, "id,n\na,1\n", f"id,n\nb,1\n{CANARY},x\n")
    refused(paths, PAIR, f"{paths[1]}, column 'n', row 2: not a whole number")
    paths = in_parts(tmp_path, "id,n\na,1\n", f'id,n\nb,1\n{CANARY},"7\n')
    refused(paths, PAIR, f"{paths[1]}: line 4: a quotation mark is open")
    paths = in_parts(tmp_path, "id,n\na,1\n", f"id,n\nb,1\n{CANARY}\n")
    refused(paths, PAIR, f"{paths[1]}, row 2: more or fewer")
    paths = in_parts(tmp_path, "id,n\na,1\n", f"id,n\n{CANARY},1\n,2\n")
    refused(paths, PAIR, f"{paths[1]}, column 'id', row 2: the key is missing")


def test_keys_are_unique_over_all_files(tmp_path: Path) -> None:
    first, second = in_parts(tmp_path, f"id,n\na,1\n{CANARY},2\n", f"id,n\nb,1\nc,1\n{CANARY},2\n")
    said = f"rows 2 of {first} and 3 of {second} have the same key (id); in all, 1 row repeats"
    refused([first, second], PAIR, f"{first} and 1 more", said)
    refused([first, first], PAIR, f"rows 1 of {first} and 1 of {first} have", "2 rows repeat")


def test_invalid_keys_are_named_by_file(tmp_path: Path) -> None:
    good = made_up_ids(3, seed=1).to_pylist()
    first, second = in_parts(tmp_path, f"id\n{CANARY}\n{good[0]}\n{CANARY}2\n", f"id\n{good[1]}\n{CANARY}3\n")
    refused([first, second], ID, f"3 of 5 rows hold no valid id_number (rows 1, 3 of {first}, 2 of {second});")
    assert rows_of([first, second], KEPT) == 5


def test_what_is_wrong_with_a_later_file_is_said_before_any_row(tmp_path: Path) -> None:
    parquet = write_parquet(tmp_path / "p.parquet", {"id": ["x"], "n": [1]})
    narrow = write_parquet(tmp_path / "q.parquet", {"id": [CANARY]})
    one, other, empty = in_parts(tmp_path, "id,n\na,1\n", f"id,m\n{CANARY},1\n", "")
    for paths, said in (
        ([one, parquet], f"{parquet}: is a Parquet file, and {one} is no Parquet file"),
        ([parquet, one], f"{one}: is no Parquet file, and {parquet} is a Parquet file"),
        ([one, other], f"{other}, column 'n': the file has no such column"),
        ([parquet, narrow], f"{narrow}, column 'n': the file has no such column"),
        ([one, empty], f"{empty}: the file is empty"),
        ([one, tmp_path / "nowhere"], f"{tmp_path / 'nowhere'}: cannot be read"),
    ):
        with pytest.raises(InvalidSpec) as caught:
            next(read_table(paths, PAIR))
        assert said in str(caught.value) and CANARY not in everything_in(caught.value)


def test_a_table_has_a_file_and_rows(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="one file at least"):
        rows_of([], PAIR)
    refused(in_parts(tmp_path, "id,n\n", "id,n"), PAIR, "and 1 more: the table has no rows")


def test_a_table_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    first, second = in_parts(tmp_path, "id,n\na,1\nb,2\n", "id,n\nb,3\n")
    batches = read_table([first, second], PAIR)
    assert [next(batches).num_rows, next(batches).num_rows] == [2, 1]
    second.write_text("id,n\n")
    with pytest.raises(InvalidSpec, match="changed while it was read"):
        next(batches)


# GB18030

MIXED = "ab,张三\n㐀𠀀😀ǹ€ü丂\x81"  # characters of one, two and four bytes


def gb18030(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("gb18030"))
    return path


@pytest.mark.parametrize("block", [64, 65, 66, 67, 101, 4096])
def test_gb18030_comes_back_whatever_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(csv_text, "BLOCK", block)
    of = schema({"身份": FieldType.STRING, "数": FieldType.INTEGER}, key=("身份",))
    ids = [f"{MIXED[: number % 12]}{number}\u4e00" for number in range(300)]
    lines = [f'"{one}",{number}' for number, one in enumerate(ids)]
    path = gb18030(tmp_path / "t.csv", "\n".join(["数,身份", *(",".join(one.rsplit(",", 1)[::-1]) for one in lines)]))
    assert table(path, of, encoding="gb18030").to_pydict() == {"身份": ids, "数": list(range(300))}


@pytest.mark.parametrize("sizes", [(1,), (2, 3), (7, 1, 64)])
def test_recoded_bytes_are_those_of_utf8_in_any_portions(sizes: tuple[int, ...]) -> None:
    text = MIXED * 30
    recoded = csv_text.Recoded(io.BytesIO(text.encode("gb18030")))
    read, turn = b"", 0
    while some := recoded.read(sizes[turn % len(sizes)]):
        assert len(some) <= sizes[turn % len(sizes)]
        read, turn = read + some, turn + 1
    assert read == text.encode() and recoded.wrong_line == 0


def test_second_bytes_that_look_like_marks_are_no_marks(tmp_path: Path) -> None:
    """The second byte of 乗 is a backslash, of 倈 a vertical bar; four bytes of 㐀 have two digits among them."""
    of = schema({"id": FieldType.STRING})
    assert b"\\" in "乗".encode("gb18030") and b"|" in "倈".encode("gb18030") and b"9" in "㐀".encode("gb18030")
    path = gb18030(tmp_path / "t.csv", 'id\n乗\n"倈,㐀"\n')
    assert table(path, of, encoding="gb18030")["id"].to_pylist() == ["乗", "倈,㐀"]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_mark_at_the_beginning_is_dropped_in_gb18030_too(tmp_path: Path, mark: str) -> None:
    path = gb18030(tmp_path / "t.csv", f"{mark}id,n\n张,1\n")
    assert table(path, PAIR, encoding="gb18030").to_pydict() == {"id": ["张"], "n": [1]}


@pytest.mark.parametrize("wrong", [b"\xff", b"\x80", b"\x81\x20", b"\xe3\x32\x9a\x36", b"\x81\x30\x81"])
@pytest.mark.parametrize("before", [0, 3, 300])
@pytest.mark.parametrize("block", [97, 4 << 20])
def test_bytes_that_are_no_gb18030_are_refused_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: bytes, before: int, block: int
) -> None:
    monkeypatch.setattr(csv_text, "BLOCK", block)
    path = tmp_path / "t.csv"
    rows = "".join(f"张{number},{number}\n" for number in range(before)).encode("gb18030")
    path.write_bytes(b"id,n\n" + rows + CANARY.encode() + wrong + b",7\nz,1\n")
    refused(path, PAIR, f"line {before + 2}: not text in GB18030", encoding="gb18030")
    path.write_bytes(b"id,n\n" + rows + CANARY.encode() + wrong)  # and at the very end
    refused(path, PAIR, f"line {before + 2}: not text in GB18030", encoding="gb18030")


def test_the_other_encoding_is_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f"id,n\n{CANARY}张,1\n".encode())
    refused(path, PAIR, "byte order mark of UTF-8", encoding="gb18030")
    path.write_bytes(b"id,n\xff,\n" + CANARY.encode())
    refused(path, PAIR, "the heading is not text in GB18030: neither Parquet nor CSV, or in UTF-8", encoding="gb18030")
    with pytest.raises(InvalidSpec, match="one of utf-8, gb18030"):
        rows_of(path, PAIR, "gbk")


def test_an_encoding_does_not_concern_parquet(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "t.parquet", {"id": ["张"], "n": [1]})
    assert table(path, PAIR, encoding="gb18030").to_pydict() == {"id": ["张"], "n": [1]}


# Columns that need no closer look are read as the others are

PLAIN_OR_NOT = {
    FieldType.INTEGER: ["7", "-7", "007", "-0", "9223372036854775807", "9223372036854775808", "-", "--7", "7-", "1-2"],
    FieldType.DECIMAL: ["7", "-7.50", "0.1", ".5", "5.", "-.5", ".", "1..2", "1.2.3", "1.-2", "-", "0.00000000001"],
    FieldType.DATE: ["2020-02-29", "2021-02-29", "20200229--", "2020022900", "0000-01-01", "-999-01-01", "2020-1-1"],
}


@pytest.mark.parametrize("type_", PLAIN_OR_NOT)
@pytest.mark.parametrize("beside", ["", " ", '""', ".5"])
def test_a_value_is_taken_or_refused_whatever_stands_beside_it(tmp_path: Path, type_: FieldType, beside: str) -> None:
    """A blank, an empty text or a value that is wrong in the next row makes the whole column be looked at closely."""
    of = schema({"id": FieldType.STRING, "v": type_})
    for value in PLAIN_OR_NOT[type_]:
        path = tmp_path / "t.csv"
        path.write_text(f"id,v\nx,{value}\n")
        try:
            alone: list[Any] | None = table(path, of)["v"].to_pylist()
        except InvalidSpec as error:
            assert "row 1: not a" in str(error)
            alone = None
        path.write_text(f"id,v\nx,{value}\ny,{beside}\n")
        try:
            together: list[Any] | None = table(path, of)["v"].to_pylist()[:1]
        except InvalidSpec as error:
            together = None if "row 1" in str(error) else alone
            assert beside == ".5" or "row 1" in str(error)
        assert together == alone


numberlike = st.text(st.sampled_from("0123456789-. "), max_size=11) | st.dates().map(str) | st.decimals(-9, 9).map(str)


@given(st.sampled_from([FieldType.INTEGER, FieldType.DECIMAL, FieldType.DATE]), numberlike)
def test_a_blank_behind_a_value_changes_nothing(type_: FieldType, cell: str) -> None:
    """With it the column is looked at closely."""
    of, place = schema({"id": FieldType.STRING, "v": type_}).fields[1], Place(Path("t"))
    found = []
    for text in (cell, f"{cell} "):
        try:
            found.append(from_text(pa.array([None, text.encode(), None], pa.binary())[1:], of, place).to_pylist())
        except InvalidSpec as error:
            found.append(str(error))
    assert found[0] == found[1]
