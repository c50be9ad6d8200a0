"""Things that a document names: by the file that holds them, or in so many words.

Errors:    ``InvalidSpec`` naming document and member, also for numbers that do not fit their field.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TypeVar

from sandbox import signed, wire
from sandbox.catalog.registration import check_code
from sandbox.catalog.schema import Schema, parse_schema
from sandbox.client.files import read_file
from sandbox.client.members import Table, open_document
from sandbox.errors import InvalidSpec
from sandbox.model import DatasetRef, KeyCard
from sandbox.tee_sim.bundle import MOST_BYTES, parse

T = TypeVar("T")


def read_reference(table: Table, base: Path) -> DatasetRef:
    """Return the dataset version in a table, or in the catalogue entry that it names."""
    reference = read_version(open_document(base / table.take("file", str)) if table.has("file") else table)
    table.end()
    return reference


def read_version(table: Table) -> DatasetRef:
    """Return a version of a dataset, by code and number."""
    return DatasetRef(read_code(table), table.take("version", int))


def read_code(table: Table) -> str:
    """Return the code of a dataset."""
    code: str = table.take("code", str)
    try:
        check_code(code)
    except InvalidSpec as error:
        raise InvalidSpec(tell=f"{table.where}: {error}") from None
    return code


def read_schema(entry: Table) -> Schema | None:
    """Return the schema in a catalogue entry, if it holds one."""
    return parse_schema(json.dumps(entry.take("schema", dict)).encode()) if entry.has("schema") else None


def read_measurement(where: str, text: str, base: Path) -> bytes:
    """Return the measurement of a bundle: as it is written, or of the file that is named."""
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text)
    try:
        return parse(read_file(base / text, MOST_BYTES)).measurement
    except InvalidSpec as error:
        raise InvalidSpec(tell=f"{where}: {text} is no bundle: {error.tell}") from None


def read_card(where: str, path: Path) -> KeyCard:
    """Return the card in a file."""
    try:
        return signed.open_key_card(signed.read_signed(read_file(path)))
    except InvalidSpec as error:
        raise InvalidSpec(tell=f"{where}: {path} is not a key card: {error.tell}") from None


def bounded(shape: type[T], value: T, where: str) -> T:
    """Return ``value`` after the checks that every node makes first, so that a person learns of a slip here."""
    try:
        return wire.decode(shape, wire.encode(value))
    except InvalidSpec as error:
        raise InvalidSpec(tell=f"{where}: {error.tell}") from None
    except ValueError as error:  # the encoder's word for a number that does not fit its field
        raise InvalidSpec(tell=f"{where}: a number is out of range: {error}") from None
