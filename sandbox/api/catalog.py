"""CatalogService: register, list, search, get, sample, twin, destroy."""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from sqlalchemy import Connection, Row, func, select

from sandbox import custody, signed, wire
from sandbox.api import uploads
from sandbox.api.edge import Caller, Edge, Request
from sandbox.api.jobs import page
from sandbox.catalog import entries, sample_rows, vault
from sandbox.catalog.csv_text import ENCODINGS
from sandbox.catalog.intake import read_table
from sandbox.catalog.registration import make_code
from sandbox.catalog.schema import DatasetVersion, parse_schema
from sandbox.catalog.survey import Survey, refuse_low
from sandbox.catalog.test_rows import TWINS, twin_key
from sandbox.chores import chore
from sandbox.crypto.sm3 import hkdf
from sandbox.errors import AlreadyExists, InvalidSpec, NotFound, PolicyRefused, SandboxError, Unavailable, WrongState
from sandbox.exchange import Exchange
from sandbox.footprint import give_back
from sandbox.ledger import Ledger
from sandbox.model import (
    DatasetQuery,
    DatasetRegistration,
    DatasetSearch,
    DatasetView,
    ListQuery,
    TwinOrder,
    VersionNotice,
)
from sandbox.policy import versions
from sandbox.registry import ROLES
from sandbox.store import datasets, twins
from sandbox.twinning import Twinning, check_budget
from sandbox.v1 import catalog_pb2, catalog_pb2_grpc

OWNERS = frozenset({"owner", "department"})
MAX_UPLOAD = 64 << 30
_PREFIX = "/sandbox.v1.CatalogService/"
CHUNK = 1 << 20
MOST_DOWNLOADS = 8  # of twins at once
BYTES_A_ROW = 1024  # of a twin, about
Offer = Callable[[str], Coroutine[Any, Any, None]]
Remember = Callable[[Connection], None]
_FILE = re.compile(r"[^/\\\0]{1,200}\.(parquet|csv)", re.IGNORECASE)


def _nothing(conn: Connection) -> None:
    """Remember nothing: the nonce was spent before."""


class Catalog(catalog_pb2_grpc.CatalogServiceServicer):
    """This organisation's datasets."""

    def __init__(self, edge: Edge, ledger: Ledger, exchange: Exchange, run: Path, offer: Offer) -> None:
        """Args:
        offer: tells the parties of scenarios that use a dataset by rule of a new version.
        """
        self._edge, self._ledger, self._exchange, self._run, self._offer = edge, ledger, exchange, run, offer
        self._twinning = Twinning(ledger, exchange.runner)
        self._registering, self._writing, self._downloads = asyncio.Lock(), asyncio.Lock(), 0
        self._telling: set[asyncio.Task[None]] = set()

    # --- registering ------------------------------------------------------------------------------------------------

    async def RegisterDataset(self, requests: AsyncIterator[Any], context: Any) -> Any:  # noqa: N802
        """Take an upload, check it, seal it."""

        async def register() -> Any:
            opened = await self._begin(requests)
            folder = Path(tempfile.mkdtemp(prefix="u-", dir=self._run))  # private to this upload, like a job's
            try:
                await uploads.receive(requests, folder, opened.body.files)
                async with self._registering:
                    view = await asyncio.to_thread(self._register, opened, folder)
            finally:
                await asyncio.to_thread(shutil.rmtree, folder)
            self._tell(view.code)
            if budget := opened.body.twin_epsilon_milli:
                try:
                    view = await self._make_twin(TwinOrder(view.code, view.version, budget), opened.caller)
                except SandboxError as error:
                    raise _registered_without_twin(view, error) from error
            return catalog_pb2.RegisterDatasetResponse(dataset=wire.to_proto(view))

        return await self._edge.unary(context, register)

    def _tell(self, code: str) -> None:
        """Tell others of a new version, or that one is gone; whoever is down hears of it in the hourly round."""
        task = asyncio.create_task(self._offer(code))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _begin(self, requests: AsyncIterator[Any]) -> Request[DatasetRegistration]:
        """The signed beginning; its nonce is spent before anything is stored."""
        first = await uploads.first_message(requests)
        opened = await asyncio.to_thread(
            self._edge.open, first, _PREFIX + "RegisterDataset", DatasetRegistration, OWNERS
        )
        body = opened.body
        for file in body.files:
            if not _FILE.fullmatch(file.name) or len(file.name.encode()) > 200:
                raise InvalidSpec(tell="file_name must be a plain name ending in .parquet or .csv")
            if file.size < 1:
                raise InvalidSpec(tell=f"size of a file must be 1 to {MAX_UPLOAD} bytes")
        if len({file.name for file in body.files}) != len(body.files):
            raise InvalidSpec(tell="two files have the same name")
        size = sum(file.size for file in body.files)
        if size > MAX_UPLOAD:
            raise InvalidSpec(tell=f"an upload has at most {MAX_UPLOAD} bytes")
        _check_department(opened.caller, body.department)
        entries.check(body, ENCODINGS)
        Survey(parse_schema(body.schema_json), body.as_of, body.update_days)  # refuses a day that is none
        check_budget(body.twin_epsilon_milli, is_optional=True)
        uploads.check_room(self._run, size)
        await asyncio.to_thread(self._edge.spend_nonce, opened, False)
        return opened

    def _register(self, opened: Request[DatasetRegistration], folder: Path) -> DatasetView:
        body, ledger = opened.body, self._ledger
        schema = parse_schema(body.schema_json)
        code = make_code(ledger.node_id, body.name)
        with ledger.store.read() as conn:
            known = select(func.max(datasets.c.version)).where(datasets.c.code == code)
            version = int(conn.scalar(known) or 0) + 1
            self._check_same_owner(conn, opened.caller, code, version - 1)
        meta = DatasetVersion(
            code, version, ledger.node_id, schema, 0, b"", datetime.now(UTC), body.licence, body.retention_days
        )
        place, survey = ledger.home / "vault", Survey(schema, body.as_of, body.update_days)
        try:
            batches = read_table([folder / file.name for file in body.files], schema, encoding=body.encoding)
            sealed = vault.seal_version(place, ledger.keys.node_key, meta, survey.watch(batches))
        except InvalidSpec as error:
            # The caller is the owner: file, column and row number, with the name of the file as it was given.
            raise InvalidSpec(str(error), tell=str(error).replace(f"{folder}/", "")) from None
        finally:
            give_back()
        try:
            low = survey.too_low()
            if not body.grades_confirmed:
                refuse_low(low)
            with ledger.store.write() as conn:
                self._refuse_twin(conn, code, sealed.content_hash)
                found = entries.Sealed(
                    sealed.manifest.rows, sealed.content_hash, sealed.wrapped_key, survey.profile().to_json()
                )
                entries.add(conn, code, version, body, found)
                facts = {"code": code, "version": str(version), "content_hash": sealed.content_hash.hex()}
                if low:
                    facts["grades_confirmed"] = ",".join(one.column for one in low)[:256]
                ledger.enter_other(conn, "registered", opened.caller.key_id, facts)
                view = entries.view(entries.find(conn, code, version), ledger.node_id)
                notice = VersionNotice(
                    code, version, ledger.node_id, view.content_hash, view.schema_digest, view.rows, view.created_ms
                )
                identity = ledger.keys.identity
                versions.file(conn, signed.sign(identity, "version", notice), identity.public, ledger.node_id)
                return view
        except BaseException:
            vault.destroy(vault.version_dir(place, code, version), None)
            raise

    def _check_same_owner(self, conn: Connection, caller: Caller, code: str, version: int) -> None:
        """A department adds versions to its own datasets only."""
        if version:
            _check_department(caller, entries.find(conn, code, version).department)

    def _refuse_twin(self, conn: Connection, code: str, content_hash: bytes) -> None:
        twin = conn.scalar(
            select(datasets.c.version).where(
                datasets.c.code == code, datasets.c.content_hash == content_hash, datasets.c.state == "active"
            )
        )
        if twin is not None:
            raise AlreadyExists(tell=f"the same rows are registered as {code} version {twin}", hint="use that version")

    # --- looking ----------------------------------------------------------------------------------------------------

    async def ListDatasets(self, request: Any, context: Any) -> Any:  # noqa: N802
        """List the entries."""

        def listed() -> Any:
            opened = self._edge.open(request, _PREFIX + "ListDatasets", ListQuery, ROLES)
            self._edge.spend_nonce(opened)
            with self._ledger.store.read() as conn:
                rows = entries.page(conn, self._seer(opened.caller), opened.body.after, page(opened.body.limit))
            views = [wire.to_proto(entries.view(row, self._ledger.node_id)) for row in rows]
            return catalog_pb2.ListDatasetsResponse(datasets=views)

        return await self._edge.unary(context, lambda: asyncio.to_thread(listed))

    async def SearchDatasets(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Find entries by words."""

        def searched() -> Any:
            opened = self._edge.open(request, _PREFIX + "SearchDatasets", DatasetSearch, ROLES)
            self._edge.spend_nonce(opened)
            body, seer = opened.body, self._seer(opened.caller)
            with self._ledger.store.read() as conn:
                rows = entries.page(conn, seer, body.after, page(body.limit), body.words, body.department, body.domain)
            views = [wire.to_proto(entries.view(row, self._ledger.node_id)) for row in rows]
            return catalog_pb2.SearchDatasetsResponse(datasets=views)

        return await self._edge.unary(context, lambda: asyncio.to_thread(searched))

    async def GetDataset(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Return one entry, with its quality profile."""

        def get() -> Any:
            opened = self._edge.open(request, _PREFIX + "GetDataset", DatasetQuery, ROLES)
            self._edge.spend_nonce(opened)
            with self._ledger.store.read() as conn:
                row = entries.find(conn, opened.body.code, opened.body.version, self._seer(opened.caller))
            dataset = wire.to_proto(entries.view(row, self._ledger.node_id))
            return catalog_pb2.GetDatasetResponse(dataset=dataset, profile=bytes(row.profile))

        return await self._edge.unary(context, lambda: asyncio.to_thread(get))

    def _seer(self, caller: Caller) -> entries.Seer:
        own = caller.organisation == self._ledger.settings.organisation
        return entries.Seer(caller.organisation, own or bool(entries.STAFF & caller.roles))

    # --- twins and samples ------------------------------------------------------------------------------------------

    async def MakeTwin(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Make the twin of a version, or make it anew."""

        async def make() -> Any:
            opened = await asyncio.to_thread(self._edge.open, request, _PREFIX + "MakeTwin", TwinOrder, OWNERS)
            with self._ledger.store.read() as conn:
                row = entries.find(conn, opened.body.code, opened.body.version)
            _check_department(opened.caller, row.department)
            view = await self._make_twin(opened.body, opened.caller, opened.remember)
            return catalog_pb2.MakeTwinResponse(dataset=wire.to_proto(view))

        return await self._edge.unary(context, make)

    async def _make_twin(self, order: TwinOrder, caller: Caller, remember: Remember = _nothing) -> DatasetView:
        await self._twinning.make(order, caller.key_id, remember)
        with self._ledger.store.read() as conn:
            return entries.view(entries.find(conn, order.code, order.version), self._ledger.node_id)

    async def GetTwin(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Stream the twin's rows as a Parquet file."""

        async def rows() -> AsyncIterator[Any]:
            opened = await asyncio.to_thread(self._edge.open, request, _PREFIX + "GetTwin", DatasetQuery, ROLES)
            await asyncio.to_thread(self._edge.spend_nonce, opened)
            code, version = opened.body.code, opened.body.version
            with self._ledger.store.read() as conn:
                row = entries.find(conn, code, version, self._seer(opened.caller))
                twin = twins_of(conn, code, version)
            view = entries.view(row, self._ledger.node_id)
            if self._downloads >= MOST_DOWNLOADS:
                raise Unavailable(tell="too many twins are being downloaded", hint="try again in a minute")
            self._downloads += 1
            folder = Path(tempfile.mkdtemp(prefix="t-", dir=self._run))
            try:
                async with self._writing:  # one after the other: the threads are needed for everything else, too
                    uploads.check_room(self._run, row.twin_rows * BYTES_A_ROW)
                    await asyncio.to_thread(self._write_twin, code, version, twin, folder / "twin.parquet")
                yield catalog_pb2.GetTwinResponse(dataset=wire.to_proto(view))
                with (folder / "twin.parquet").open("rb") as file:
                    while block := await asyncio.to_thread(file.read, CHUNK):
                        yield catalog_pb2.GetTwinResponse(chunk=block)
            finally:
                self._downloads -= 1
                await asyncio.to_thread(shutil.rmtree, folder)

        async for part in self._edge.stream(context, rows()):
            yield part

    async def SampleDataset(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Return a few masked rows."""

        async def sample() -> Any:
            opened = await asyncio.to_thread(
                self._edge.open, request, _PREFIX + "SampleDataset", DatasetQuery, OWNERS | entries.STAFF
            )
            code, version, ledger = opened.body.code, opened.body.version, self._ledger

            def enter(conn: Connection) -> Row[Any]:
                opened.remember(conn)
                row = entries.find(conn, code, version)
                if not entries.STAFF & opened.caller.roles:
                    _check_department(opened.caller, row.department)
                if row.state != "active":
                    raise WrongState(tell=f"dataset {code} version {version} is destroyed")
                facts = {"code": code, "version": str(version), "rows": f"at most {sample_rows.ROWS}"}
                ledger.enter_other(conn, "sampled", opened.caller.key_id, facts)
                return row

            row = await ledger.write(enter)
            secret = hkdf(ledger.keys.population_key, b"", b"masking", 32).hex()
            order = {**custody.opening(ledger, row), "secret": secret}
            rows = await chore(self._exchange.runner, "sample", order)
            return catalog_pb2.SampleDatasetResponse(rows=rows)

        return await self._edge.unary(context, sample)

    def _write_twin(self, code: str, version: int, wrapped: bytes, path: Path) -> None:
        home = self._ledger.home
        key = vault.unwrap(twin_key(home), wrapped, code, version)
        writer = None
        try:
            for batch in vault.open_version(vault.version_dir(home / TWINS, code, version), key):
                writer = writer or pq.ParquetWriter(path, batch.schema, compression="zstd")
                writer.write_batch(batch)
        finally:
            if writer is not None:
                writer.close()

    # --- destroying -------------------------------------------------------------------------------------------------

    async def DestroyDataset(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Destroy a version: its key first, then its chunks; answered with a receipt."""

        async def destroy() -> Any:
            opened = await asyncio.to_thread(self._edge.open, request, _PREFIX + "DestroyDataset", DatasetQuery, OWNERS)
            index, view = await asyncio.to_thread(self._destroy, opened)
            self._tell(view.code)
            await asyncio.to_thread(self._ledger.store.scrub)
            receipt = await self._exchange.receipt(index)
            return catalog_pb2.DestroyDatasetResponse(dataset=wire.to_proto(view), receipt=receipt)

        return await self._edge.unary(context, destroy)

    def _destroy(self, opened: Request[DatasetQuery]) -> tuple[int, DatasetView]:
        code, version, ledger = opened.body.code, opened.body.version, self._ledger
        with ledger.store.read() as conn:
            _check_department(opened.caller, entries.find(conn, code, version).department)
        index = custody.destroy(ledger, code, version, opened.caller.key_id, "asked for", opened.remember)
        with ledger.store.read() as conn:
            return index, entries.view(entries.find(conn, code, version), ledger.node_id)


def twins_of(conn: Connection, code: str, version: int) -> bytes:
    """Return the wrapped key of a twin."""
    found = conn.scalar(select(twins.c.wrapped_key).where(twins.c.code == code, twins.c.version == version))
    if found is None:
        raise NotFound(tell=f"dataset {code} version {version} has no twin", hint="ask its owner to make one")
    return bytes(found)


def _registered_without_twin(view: DatasetView, error: SandboxError) -> SandboxError:
    """Say that the rows are here all the same: to upload them again would be refused."""
    return type(error)(
        str(error),
        tell=f"{view.code} version {view.version} is registered, its twin could not be made: {error.tell}",
        party=error.party,
        stage=error.stage,
        hint=f"sandbox dataset twin {view.code} {view.version} --epsilon ...; do not upload the rows again",
    )


def _check_department(caller: Caller, department: str) -> None:
    """Whoever has only the role of a department acts for that department alone."""
    if "owner" not in caller.roles and caller.organisation != department:
        raise PolicyRefused(
            tell=f"the dataset is for the department {department or 'of the operator'} to manage",
            hint="give your own department's name (--department), or ask the operator",
        )
