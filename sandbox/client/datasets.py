"""Calls about the datasets of a node: register, list, search, look up, twin, destroy.

Security:  the signed beginning of an upload carries the SM3 digest of the file, so what arrives is what was signed.
Units:     progress in bytes.
Errors:    ``InvalidSpec`` for a schema or file that no node would accept, before anything is sent.
Not here:  what a schema means (``catalog.schema``), how rows are kept (the node's vault).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from sandbox.catalog.profile import Profile
from sandbox.catalog.schema import read_schema, schema_bytes
from sandbox.client.connection import CHUNK, Connection
from sandbox.client.folders import files_of
from sandbox.crypto.sm3 import Sm3
from sandbox.errors import InvalidSpec
from sandbox.model import (
    DatasetQuery,
    DatasetRegistration,
    DatasetSearch,
    DatasetView,
    ListQuery,
    TwinOrder,
    UploadFile,
)

UPLOAD_S: Final = 300.0  # and the time the bytes take
UPLOAD_RATE: Final = 1 << 20  # bytes a second, at least

TWIN_S: Final = 600.0

Progress = Callable[[int, int], None]  # bytes sent so far, bytes in all


@dataclass(frozen=True, slots=True)
class Terms:
    """What a catalogue entry says beside name, schema, licence and retention; ``DatasetRegistration`` explains each."""

    encoding: str = "utf-8"
    department: str = ""
    domain: str = ""
    keywords: tuple[str, ...] = ()
    update_days: int = 0
    as_of: str = ""
    visible_to: tuple[str, ...] = ()
    grades_confirmed: bool = False
    twin_epsilon_milli: int = 0


class DatasetCalls:
    """What the owner of data can do."""

    _line: Connection

    def register_dataset(
        self,
        path: Path,
        schema_path: Path,
        name: str,
        licence: str = "",
        retention_days: int = 0,
        progress: Progress | None = None,
        *,
        terms: Terms = Terms(),
    ) -> DatasetView:
        """Upload one dataset version and have it sealed.

        Args:
            path: a Parquet or CSV file, or a folder of either: all files in it are one table.
            schema_path: its schema.json.
            name: the same name again makes a new version of the same dataset.
            licence: under which terms the data may be used.
            retention_days: 0 keeps it until it is destroyed.
            progress: called after every chunk.
            terms: everything else that the catalogue says of it.
        """
        schema = schema_bytes(read_schema(schema_path))
        paths = files_of(path)
        try:
            files = tuple(_announced(file) for file in paths)
        except OSError as error:
            raise InvalidSpec(tell=f"{path} cannot be read: {error.strerror}", hint="check the path") from None
        size = sum(file.size for file in files)
        given = {field.name: getattr(terms, field.name) for field in dataclasses.fields(terms)}
        body = DatasetRegistration(name, schema, files, licence, retention_days, **given)
        answer = self._line.upload(
            "CatalogService/RegisterDataset",
            body,
            _chunks(paths, size, progress),
            timeout_s=UPLOAD_S + size / UPLOAD_RATE + (TWIN_S if terms.twin_epsilon_milli else 0),
        )
        return self._line.read(DatasetView, answer.dataset)

    def datasets(self, after: str = "", limit: int = 0) -> tuple[DatasetView, ...]:
        """Return one page of the node's catalogue."""
        answer = self._line.call("CatalogService/ListDatasets", ListQuery(after, limit))
        return tuple(self._line.read(DatasetView, dataset) for dataset in answer.datasets)

    def dataset(self, code: str, version: int) -> DatasetView:
        """Return one catalogue entry."""
        answer = self._line.call("CatalogService/GetDataset", DatasetQuery(code, version))
        return self._line.read(DatasetView, answer.dataset)

    def search_datasets(
        self, words: str, department: str = "", domain: str = "", after: str = "", limit: int = 0
    ) -> tuple[DatasetView, ...]:
        """Return one page of the entries in which all words are found: in names, fields, meanings, keywords."""
        answer = self._line.call(
            "CatalogService/SearchDatasets", DatasetSearch(words, department, domain, after, limit)
        )
        return tuple(self._line.read(DatasetView, dataset) for dataset in answer.datasets)

    def dataset_profile(self, code: str, version: int) -> Profile:
        """Return the quality profile of a version: how complete, unique, valid and fresh it is."""
        answer = self._line.call("CatalogService/GetDataset", DatasetQuery(code, version))
        return Profile.from_json(answer.profile)

    def sample_dataset(self, code: str, version: int) -> pa.Table:
        """Return a few rows, masked by the rules of the schema; for people of the owner, and entered in its log."""
        query = DatasetQuery(code, version)
        answer = self._line.call("CatalogService/SampleDataset", query, timeout_s=TWIN_S, repeatable=False)
        return pq.read_table(pa.BufferReader(answer.rows))

    def make_twin(self, code: str, version: int, epsilon_milli: int = 0, rows: int = 0) -> DatasetView:
        """Have the synthetic twin of a version made; made anew, it costs no budget and needs none named."""
        order = TwinOrder(code, version, epsilon_milli, rows)
        answer = self._line.call("CatalogService/MakeTwin", order, timeout_s=TWIN_S, repeatable=False)
        return self._line.read(DatasetView, answer.dataset)

    def get_twin(self, code: str, version: int, path: Path) -> DatasetView:
        """Save the twin's rows as a new Parquet file."""
        parts = self._line.stream("CatalogService/GetTwin", DatasetQuery(code, version), timeout_s=UPLOAD_S)
        view = self._line.read(DatasetView, next(parts).dataset)
        with path.open("xb") as file:
            try:
                for part in parts:
                    file.write(part.chunk)
            except BaseException:
                path.unlink()
                raise
        return view

    def destroy_dataset(self, code: str, version: int) -> tuple[DatasetView, bytes]:
        """Destroy a version's key and rows, for good; returns the entry and the receipt of the destruction."""
        query = DatasetQuery(code, version)
        answer = self._line.call("CatalogService/DestroyDataset", query, timeout_s=300.0, repeatable=False)
        return self._line.read(DatasetView, answer.dataset), answer.receipt


def _announced(path: Path) -> UploadFile:
    digest, size = Sm3(), 0
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
            size += len(block)
    return UploadFile(path.name, size, digest.digest())


def _chunks(paths: Sequence[Path], size: int, progress: Progress | None) -> Iterator[bytes]:
    sent = 0
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(CHUNK):
                yield block
                sent += len(block)
                if progress is not None:
                    progress(sent, size)
