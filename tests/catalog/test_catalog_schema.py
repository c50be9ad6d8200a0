"""The schema that users write: what is read, what is refused and how it is named, and its digest."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from catalog_builders import EVERY_TYPE, field, schema
from hypothesis import given
from hypothesis import strategies as st

from sandbox.catalog.formats import KeyFormat, WhenInvalid
from sandbox.catalog.schema import (
    FORMAT_TYPES,
    KEY_TYPES,
    Field,
    FieldType,
    Grade,
    Schema,
    parse_schema,
    read_schema,
    schema_bytes,
    schema_digest,
)
from sandbox.errors import InvalidSpec

GOOD = {"name": "id", "type": "string", "meaning": "身份证号", "grade": "L3"}


def text(**changes: object) -> bytes:
    return json.dumps({"key": ["id"], "fields": [GOOD | changes]}).encode()


def test_a_short_schema_has_defaults() -> None:
    (read,) = parse_schema(text()).fields
    assert read == Field("id", FieldType.STRING, "身份证号", "", Grade.L3, "", Decimal(1))


def test_a_schema_is_read_from_a_file_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_bytes(b"\xef\xbb\xbf" + text(price_coefficient=0.1))
    assert read_schema(path).fields[0].price_coefficient == Decimal("0.1")


names = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=20)


@given(
    st.lists(st.builds(field, names, st.sampled_from(FieldType)), min_size=1, max_size=5, unique_by=lambda f: f.name)
)
def test_the_canonical_form_reads_back(fields: list[Field]) -> None:
    key = Field(
        "\N{CIRCLED NUMBER EIGHTY ON BLACK SQUARE}", FieldType.DATE, "m", "元", Grade.L4, "hash", Decimal("0.250")
    )
    other = replace(
        key,
        name="\N{SNOWMAN}",
        type=FieldType.STRING,
        masking="mask:3,4",
        format=KeyFormat.PHONE,
        invalid=WhenInvalid.KEEP,
    )
    whole = Schema((*fields, key, other), (other.name, key.name))
    again = parse_schema(schema_bytes(whole))
    assert again == whole
    assert schema_digest(again) == schema_digest(whole)


def test_the_digest_covers_every_member() -> None:
    base = parse_schema(text())
    changes = [
        text(type="date"),
        text(meaning="x"),
        text(unit="x"),
        text(grade="L4"),
        text(masking="hash"),
        text(masking="mask:3,4"),
        text(price_coefficient="0.5"),
        text(format="id_number"),
        text(format="id_number", invalid="keep"),
        text(format="phone"),
        text(format="phone", invalid="keep"),
        text(format="name"),
        text(format="credit_code"),
        json.dumps({"key": ["id"], "fields": [GOOD, GOOD | {"name": "b"}]}).encode(),
        json.dumps({"key": ["b"], "fields": [GOOD, GOOD | {"name": "b"}]}).encode(),
        json.dumps({"key": ["b"], "fields": [GOOD | {"name": "b"}, GOOD]}).encode(),
    ]
    digests = {schema_digest(parse_schema(data)) for data in changes} | {schema_digest(base)}
    assert len(digests) == len(changes) + 1
    for same in (text(price_coefficient="1.000"), text(format="text"), text(format="text", invalid="refuse")):
        assert schema_digest(parse_schema(same)) == schema_digest(base)


def test_the_digest_is_what_approvals_were_given_for() -> None:
    assert schema_bytes(parse_schema(text())) == (
        b'{"fields":[{"grade":"L3","masking":"","meaning":"\\u8eab\\u4efd\\u8bc1\\u53f7","name":"id",'
        b'"price_coefficient":"1","type":"string","unit":""}],"key":["id"]}'
    )
    assert schema_bytes(parse_schema(text(format="phone", invalid="keep", meaning="x"))) == (
        b'{"fields":[{"format":"phone","grade":"L3","invalid":"keep","masking":"","meaning":"x","name":"id",'
        b'"price_coefficient":"1","type":"string","unit":""}],"key":["id"]}'
    )


def test_the_key_has_its_formats_in_its_own_order() -> None:
    fields = [GOOD | {"name": "a"}, GOOD | {"name": "b", "format": "phone"}, GOOD | {"name": "c", "format": "name"}]
    read = parse_schema(json.dumps({"key": ["c", "a", "b"], "fields": fields}).encode())
    assert [field.name for field in read.key_fields] == ["c", "a", "b"]
    assert read.key_formats == (KeyFormat.NAME, KeyFormat.TEXT, KeyFormat.PHONE)
    assert {field.invalid for field in read.fields} == {WhenInvalid.REFUSE}


@pytest.mark.parametrize("form", KeyFormat)
@pytest.mark.parametrize("type_", FieldType)
def test_a_format_is_refused_for_types_that_cannot_have_it(form: KeyFormat, type_: FieldType) -> None:
    data = text(format=form.value, type=type_.value)
    if type_ in FORMAT_TYPES[form]:
        assert parse_schema(data).key_formats == (form,)
        return
    with pytest.raises(InvalidSpec) as caught:
        parse_schema(data)
    assert "'id'" in str(caught.value) and type_.value in str(caught.value)
    if type_ in KEY_TYPES:
        assert f"the format {form.value} needs string" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"[]", "not a JSON object"),
        (b"{", "not a JSON file"),
        (b'{"key": ["id"], "key": []}', "stands in it twice"),
        (b"\xff\xfe", "not a JSON file"),
        (b"[" * 100_000, "not a JSON file"),
        (b'{"key": ["id"]}', "lacks fields"),
        (b'{"key": ["id"], "fields": [], "rows": 1}', "mean nothing: rows"),
        (b'{"key": "id", "fields": []}', "key is not a list"),
        (b'{"key": ["id"], "fields": {}}', "fields is not a list"),
        (b'{"key": ["id"], "fields": []}', "1 to 1024 fields"),
        (b'{"key": ["id"], "fields": [7]}', "field number 1 is not"),
        (text(type="text"), "field 'id': type is not one of string"),
        (text(type=7), "field 'id': type is not a text"),
        (text(grade="L5"), "field 'id': grade"),
        (text(meaning=""), "meaning of field 'id'"),
        (text(meaning=None), "field 'id': meaning is not a text"),
        (text(name="a\u0000"), "name is empty"),
        (text(name=" id"), "name is empty"),
        (text(name="x" * 65), "name is empty"),
        (text(colour="x"), "mean nothing: colour"),
        (text(masking="never leaves the node"), "field 'id': masking 'never leaves the node' is no rule"),
        (
            json.dumps({"key": ["id"], "fields": [GOOD, GOOD | {"name": "b", "masking": "x"}]}).encode(),
            "field 'b': masking 'x' is no rule for a column of type string",
        ),
        (text(masking="shift:30"), "is no rule for a column of type string"),
        (text(masking="generalise:4"), "key field 'id': a key is masked by drop, hash or mask"),
        (text(price_coefficient=1.5), "price_coefficient of field 'id'"),
        (text(price_coefficient=-0.1), "price_coefficient of field 'id'"),
        (text(price_coefficient="0.0000001"), "price_coefficient of field 'id'"),
        (text(price_coefficient="NaN"), "price_coefficient of field 'id'"),
        (text(price_coefficient="much"), "field 'id': price_coefficient is not a number"),
        (text(price_coefficient=True), "field 'id': price_coefficient is not a number"),
        (text(type="decimal"), "key field 'id' is a decimal"),
        (text(format="passport"), "field 'id': format is not one of text, id_number, phone, name, credit_code"),
        (text(format=7), "field 'id': format is not a text"),
        (text(format=["phone"]), "field 'id': format is not a text"),
        (text(format="phone", invalid="drop"), "field 'id': invalid is not one of refuse, keep"),
        (text(invalid="keep"), "field 'id': every value is a valid text"),
        (text(format="name", invalid="keep"), "field 'id': every value is a valid name"),
        (text(format="id_number", type="integer"), "the format id_number needs string"),
        (text(format="phone", type="date"), "the format phone needs string or integer"),
        (
            json.dumps({"key": ["id"], "fields": [GOOD, GOOD | {"name": "b", "format": "phone"}]}).encode(),
            "field 'b' has the format phone and is not in the key",
        ),
        (
            json.dumps({"key": ["id"], "fields": [GOOD, GOOD | {"name": "b", "invalid": "keep"}]}).encode(),
            "field 'b': every value is a valid text",
        ),
        (json.dumps({"key": [], "fields": [GOOD]}).encode(), "names no field"),
        (json.dumps({"key": ["id", "id"], "fields": [GOOD]}).encode(), "or one twice"),
        (json.dumps({"key": ["b"], "fields": [GOOD]}).encode(), "'b', which is not a field"),
        (json.dumps({"key": ["id"], "fields": [GOOD, GOOD]}).encode(), "same name"),
    ],
)
def test_a_wrong_schema_is_refused_by_file_and_field(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "schema.json"
    path.write_bytes(data)
    with pytest.raises(InvalidSpec) as caught:
        read_schema(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="cannot be read"):
        read_schema(tmp_path / "none.json")


def test_arrow_types_follow_the_fields_in_order() -> None:
    arrow = EVERY_TYPE.arrow()
    assert arrow.names == list(EVERY_TYPE.names)
    assert [str(type_) for type_ in arrow.types] == [
        "string",
        "string",
        "decimal128(38, 10)",
        "int64",
        "bool",
        "date32[day]",
    ]
    assert schema({"id": FieldType.DATE}).arrow().types[0] == arrow.types[-1]
