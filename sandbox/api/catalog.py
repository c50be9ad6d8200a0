"""CatalogService: register, list, get, destroy."""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, func, insert, select, update

from sandbox import record, review, signed, wire
from sandbox.api import uploads
from sandbox.api.edge import Edge, Request
from sandbox.api.jobs import page
from sandbox.catalog import artefacts, cache, vault
from sandbox.catalog.intake import read_table
from sandbox.catalog.registration import make_code
from sandbox.catalog.schema import DatasetVersion, parse_schema
from sandbox.errors import (
    AlreadyExists,
    IntegrityFailed,
    InvalidSpec,
    NotFound,
    WrongState,
)
from sandbox.exchange import Exchange
from sandbox.footprint import give_back
from sandbox.ledger import Ledger
from sandbox.model import DatasetQuery, DatasetRef, DatasetRegistration, DatasetView, ListQuery
from sandbox.registry import ROLES
from sandbox.store import datasets
from sandbox.v1 import catalog_pb2, catalog_pb2_grpc

T = TypeVar("T")
OWNERS = frozenset({"owner"})
MAX_UPLOAD = 64 << 30
_PREFIX = "/sandbox.v1.CatalogService/"
_FILE = re.compile(r"[^/\\\0]{1,200}\.(parquet|csv)", re.IGNORECASE)


class Catalog(catalog_pb2_grpc.CatalogServiceServicer):
    """This organisation's datasets."""

    def __init__(self, edge: Edge, ledger: Ledger, exchange: Exchange, run: Path) -> None:
        self._edge, self._ledger, self._exchange, self._run = edge, ledger, exchange, run
        self._registering = asyncio.Lock()

    async def RegisterDataset(self, requests: AsyncIterator[Any], context: Any) -> Any:  # noqa: N802
        """Take an upload, check it, seal it."""

        async def register() -> Any:
            opened = await self._begin(requests, context)
            folder = Path(tempfile.mkdtemp(prefix="u-", dir=self._run))  # private to this upload, like a job's
            try:
                await uploads.receive(requests, folder / opened.body.file_name, opened.body.size, opened.body.digest)
                async with self._registering:
                    view = await asyncio.to_thread(self._register, opened, folder / opened.body.file_name)
                return catalog_pb2.RegisterDatasetResponse(dataset=wire.to_proto(view))
            finally:
                await asyncio.to_thread(shutil.rmtree, folder)

        return await self._edge.unary(context, register)

    async def _begin(self, requests: AsyncIterator[Any], context: Any) -> Request[DatasetRegistration]:
        """The signed beginning; its nonce is spent before anything is stored."""
        first = await uploads.first_message(requests)
        opened = await asyncio.to_thread(
            self._edge.open, first, _PREFIX + "RegisterDataset", DatasetRegistration, OWNERS
        )
        body = opened.body
        if not _FILE.fullmatch(body.file_name):
            raise InvalidSpec(tell="file_name must be a plain name ending in .parquet or .csv")
        if not 0 < body.size <= MAX_UPLOAD or len(body.file_name.encode()) > 200:
            raise InvalidSpec(tell=f"size must be 1 to {MAX_UPLOAD} bytes, file_name at most 200")
        parse_schema(body.schema_json)
        uploads.check_room(self._run, body.size)
        await asyncio.to_thread(self._edge.spend_nonce, opened, False)
        return opened

    def _register(self, opened: Request[DatasetRegistration], path: Path) -> DatasetView:
        body, ledger = opened.body, self._ledger
        schema = parse_schema(body.schema_json)
        code = make_code(ledger.node_id, body.name)
        with ledger.store.read() as conn:
            last = conn.scalar(select(func.max(datasets.c.version)).where(datasets.c.code == code)) or 0
        version = int(last) + 1
        meta = DatasetVersion(
            code, version, ledger.node_id, schema, 0, b"", datetime.now(UTC), body.licence, body.retention_days
        )
        place = ledger.home / "vault"
        try:
            sealed = vault.seal_version(place, ledger.keys.node_key, meta, read_table(path, schema))
        except InvalidSpec as error:
            # The caller is the owner: file, column and row number, with the name of the file as it was given.
            raise InvalidSpec(str(error), tell=str(error).replace(f"{path.parent}/", "")) from None
        finally:
            give_back()
        try:
            with ledger.store.write() as conn:
                self._refuse_twin(conn, code, sealed.content_hash)
                conn.execute(
                    insert(datasets).values(
                        code=code,
                        version=version,
                        name=body.name,
                        schema_json=body.schema_json,
                        rows=sealed.manifest.rows,
                        content_hash=sealed.content_hash,
                        wrapped_key=sealed.wrapped_key,
                        state="active",
                        created_ms=signed.now_ms(),
                        licence=body.licence,
                        retention_days=body.retention_days,
                    )
                )
                facts = {"code": code, "version": str(version), "content_hash": sealed.content_hash.hex()}
                ledger.enter_other(conn, "registered", opened.caller.key_id, facts)
                return _view(self._row(conn, code, version), ledger.node_id)
        except BaseException:
            vault.destroy(vault.version_dir(place, code, version), None)
            raise

    def _refuse_twin(self, conn: Connection, code: str, content_hash: bytes) -> None:
        twin = conn.scalar(
            select(datasets.c.version).where(
                datasets.c.code == code, datasets.c.content_hash == content_hash, datasets.c.state == "active"
            )
        )
        if twin is not None:
            raise AlreadyExists(tell=f"the same rows are registered as {code} version {twin}", hint="use that version")

    async def ListDatasets(self, request: Any, context: Any) -> Any:  # noqa: N802
        """List the entries."""

        def listed() -> Any:
            opened = self._edge.open(request, _PREFIX + "ListDatasets", ListQuery, ROLES)
            self._edge.spend_nonce(opened)
            code, _, last = opened.body.after.partition("/")
            if last and not last.isdecimal():
                raise InvalidSpec(tell="`after` must be CODE or CODE/VERSION")
            later = (datasets.c.code == code) & (datasets.c.version > int(last)) if last else datasets.c.code > code
            query = select(datasets).where((datasets.c.code > code) | later)
            query = query.order_by(datasets.c.code, datasets.c.version).limit(page(opened.body.limit))
            with self._ledger.store.read() as conn:
                views = [_view(row, self._ledger.node_id) for row in conn.execute(query)]
            return catalog_pb2.ListDatasetsResponse(datasets=[wire.to_proto(view) for view in views])

        return await self._edge.unary(context, lambda: asyncio.to_thread(listed))

    async def GetDataset(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Return one entry."""

        def get() -> Any:
            opened = self._edge.open(request, _PREFIX + "GetDataset", DatasetQuery, ROLES)
            self._edge.spend_nonce(opened)
            with self._ledger.store.read() as conn:
                view = _view(self._row(conn, opened.body.code, opened.body.version), self._ledger.node_id)
            return catalog_pb2.GetDatasetResponse(dataset=wire.to_proto(view))

        return await self._edge.unary(context, lambda: asyncio.to_thread(get))

    async def DestroyDataset(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Destroy a version: its key first, then its chunks; answered with a receipt."""

        async def destroy() -> Any:
            opened = await asyncio.to_thread(self._edge.open, request, _PREFIX + "DestroyDataset", DatasetQuery, OWNERS)
            index, view = await asyncio.to_thread(self._destroy, opened)
            await asyncio.to_thread(self._ledger.store.scrub)
            receipt = await self._exchange.receipt(index)
            return catalog_pb2.DestroyDatasetResponse(dataset=wire.to_proto(view), receipt=receipt)

        return await self._edge.unary(context, destroy)

    def _destroy(self, opened: Request[DatasetQuery]) -> tuple[int, DatasetView]:
        code, version, ledger = opened.body.code, opened.body.version, self._ledger
        directory = vault.version_dir(ledger.home / "vault", code, version)
        with ledger.store.write() as conn:
            opened.remember(conn)
            row = self._row(conn, code, version)
            if row.state != "active":  # asked again, because the receipt did not arrive
                return int(row.destroyed_entry), _view(row, ledger.node_id)
            for job_id in record.unfinished(conn):
                if any(p.dataset == DatasetRef(code, version) for p in record.read(conn, job_id).plan.parties):
                    raise WrongState(tell=f"job {job_id} is using it", hint="wait for the job, or cancel it")
            key = vault.unwrap(ledger.keys.node_key, bytes(row.wrapped_key), code, version)
            try:
                chunks, verified = len(vault.read_manifest(directory, key).chunks), "yes"
            except IntegrityFailed:  # what was damaged must go as well
                chunks, verified = len(list(directory.glob("*.sealed"))), "no"
            derived = record.using(conn, DatasetRef(code, version))  # what was derived from the rows goes too
            for job_id in derived:
                artefacts.drop(conn, ledger.home / "artefacts", job_id)
            review.forget(conn, derived)
            facts = {
                "code": code,
                "version": str(version),
                "content_hash": bytes(row.content_hash).hex(),
                "chunks": str(chunks),
                "verified": verified,
            }
            index = ledger.enter_other(conn, "destroyed", opened.caller.key_id, facts)
            same = (datasets.c.code == code) & (datasets.c.version == version)
            cache.forget_source(conn, ledger.home / "cache", bytes(row.content_hash))
            gone = {"state": "destroyed", "wrapped_key": None, "destroyed_entry": index}
            conn.execute(update(datasets).where(same).values(**gone))
            view = _view(self._row(conn, code, version), ledger.node_id)
        vault.destroy(directory, key)  # noise since the commit above; gone now
        return index, view

    def _row(self, conn: Connection, code: str, version: int) -> Row[Any]:
        row = conn.execute(select(datasets).where(datasets.c.code == code, datasets.c.version == version)).one_or_none()
        if row is None:
            raise NotFound(tell=f"no dataset {code} version {version} here")
        return row


def _view(row: Row[Any], owner: str) -> DatasetView:
    return DatasetView(
        row.code,
        row.version,
        row.name,
        owner,
        bytes(row.schema_json),
        row.rows,
        bytes(row.content_hash),
        row.state,
        row.created_ms,
        row.licence,
        row.retention_days,
    )
