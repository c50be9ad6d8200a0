"""Calls about the datasets of a node: register, list, look up, destroy.

Security:  the signed beginning of an upload carries the SM3 digest of the file, so what arrives is what was signed.
Units:     progress in bytes.
Errors:    ``InvalidSpec`` for a schema or file that no node would accept, before anything is sent.
Not here:  what a schema means (``catalog.schema``), how rows are kept (the node's vault).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from sandbox.catalog.schema import read_schema, schema_bytes
from sandbox.client.connection import CHUNK, Connection
from sandbox.crypto.sm3 import Sm3
from sandbox.errors import InvalidSpec
from sandbox.model import DatasetQuery, DatasetRegistration, DatasetView, ListQuery

UPLOAD_S: Final = 300.0  # and the time the bytes take
UPLOAD_RATE: Final = 1 << 20  # bytes a second, at least

Progress = Callable[[int, int], None]  # bytes sent so far, bytes in all


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
    ) -> DatasetView:
        """Upload one dataset version and have it sealed.

        Args:
            path: a Parquet or CSV file.
            schema_path: its schema.json.
            name: the same name again makes a new version of the same dataset.
            licence: under which terms the data may be used.
            retention_days: 0 keeps it until it is destroyed.
            progress: called after every chunk.
        """
        if path.suffix not in (".parquet", ".csv"):
            raise InvalidSpec(tell=f"{path}: the name must end in .parquet or .csv")
        schema = schema_bytes(read_schema(schema_path))
        try:
            digest, size = _digest(path)
        except OSError as error:
            raise InvalidSpec(tell=f"{path} cannot be read: {error.strerror}", hint="check the path") from None
        body = DatasetRegistration(name, schema, path.name, size, digest, licence, retention_days)
        answer = self._line.upload(
            "CatalogService/RegisterDataset",
            body,
            _chunks(path, size, progress),
            timeout_s=UPLOAD_S + size / UPLOAD_RATE,
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

    def destroy_dataset(self, code: str, version: int) -> tuple[DatasetView, bytes]:
        """Destroy a version's key and rows, for good; returns the entry and the receipt of the destruction."""
        query = DatasetQuery(code, version)
        answer = self._line.call("CatalogService/DestroyDataset", query, timeout_s=300.0, repeatable=False)
        return self._line.read(DatasetView, answer.dataset), answer.receipt


def _digest(path: Path) -> tuple[bytes, int]:
    digest, size = Sm3(), 0
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
            size += len(block)
    return digest.digest(), size


def _chunks(path: Path, size: int, progress: Progress | None) -> Iterator[bytes]:
    sent = 0
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            yield block
            sent += len(block)
            if progress is not None:
                progress(sent, size)
