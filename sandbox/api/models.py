"""ModelService: bundles handed in, listed and withdrawn, and quotes of what would run them.

Security:  a bundle is a stranger's bytes until it was parsed; it is received into a private folder, no more of it than
           its signed beginning announced, and the merchant's statement about it is signed apart from the request. One
           that was sealed to a quote lies in that folder sealed. A quote is simulated, and says so.
Errors:    as ``edge`` says; ``InvalidSpec`` for what is no bundle that a node runs, or not the one announced.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Row

from sandbox import record, registry, signed, wire
from sandbox.api import uploads
from sandbox.api.edge import Edge, Request
from sandbox.api.jobs import page
from sandbox.catalog import bundles
from sandbox.catalog.bundles import Description, HandedIn
from sandbox.errors import InvalidSpec, NotFound, WrongState
from sandbox.kinds.model import check_manifest
from sandbox.ledger import Ledger
from sandbox.model import (
    BundleQuery,
    BundleStatement,
    BundleUpload,
    BundleView,
    ListQuery,
    ModelSpec,
    QuoteQuery,
    QuoteView,
    UploadFile,
)
from sandbox.policy import enclaves
from sandbox.registry import ROLES
from sandbox.tee_sim.attest import NONCE_SIZE, SIMULATED
from sandbox.tee_sim.bundle import MOST_BYTES, Bundle, parse
from sandbox.tee_sim.manifest import OutputTable
from sandbox.tee_sim.shelf import MOST_SEALED, Shelf
from sandbox.v1 import model_pb2, model_pb2_grpc

T = TypeVar("T")
MERCHANTS: Final = frozenset({"submitter"})
SEERS: Final = frozenset({"operator", "owner", "reviewer", "auditor"})
_MOST_FILES: Final = 255  # of a view; what a list on the wire may hold, less the line that says how many more
_MOST_TEXT: Final = 512
_MOST_VIEWS: Final = 100  # in one answer: each may have many files
_PREFIX: Final = "/sandbox.v1.ModelService/"
_NOT_YOURS: Final = "no such bundle at this node, or not yours"


class Models(model_pb2_grpc.ModelServiceServicer):
    """The merchants' shelf at this node."""

    def __init__(self, edge: Edge, ledger: Ledger, run: Path, level: Callable[[], str]) -> None:
        """Args:
        run: the node's private run directory.
        level: what stands around merchant code here; raises ``Unavailable`` if nothing does.
        """
        self._edge, self._ledger, self._run, self._level = edge, ledger, run, level
        self._parsing = asyncio.Lock()  # a bundle in memory is large; one at a time
        self._shelf = Shelf()

    async def PutBundle(self, requests: AsyncIterator[Any], context: Any) -> Any:  # noqa: N802 - the protocol's names
        """Take a bundle, check it, seal it."""

        async def put() -> Any:
            opened = await self._begin(requests)
            folder = Path(tempfile.mkdtemp(prefix="b-", dir=self._run))  # private to this upload
            try:
                announced = UploadFile("bundle", opened.body.size, opened.body.digest)
                await uploads.receive(requests, folder, [announced])
                async with self._parsing:
                    view = await asyncio.to_thread(self._keep, opened, folder / "bundle")
                return model_pb2.PutBundleResponse(bundle=wire.to_proto(view))
            finally:
                await asyncio.to_thread(shutil.rmtree, folder)

        return await self._edge.unary(context, put)

    async def _begin(self, requests: AsyncIterator[Any]) -> Request[BundleUpload]:
        """The signed beginning; its nonce is spent before anything is stored."""
        first = await uploads.first_message(requests)
        opened = await asyncio.to_thread(self._edge.open, first, _PREFIX + "PutBundle", BundleUpload, MERCHANTS)
        body = opened.body
        if not 0 < body.size <= (MOST_SEALED if body.sealed_nonce else MOST_BYTES):
            raise InvalidSpec(tell=f"a bundle has 1 to {MOST_BYTES} bytes")
        statement = signed.verify(opened.caller.key, "bundle", body.statement, BundleStatement)
        if statement.measurement != body.measurement:
            raise InvalidSpec(tell="the statement is about another bundle than is announced")
        uploads.check_room(self._run, 2 * body.size)
        await asyncio.to_thread(self._edge.spend_nonce, opened, False)
        return opened

    def _keep(self, opened: Request[BundleUpload], path: Path) -> BundleView:
        body, caller, ledger = opened.body, opened.caller, self._ledger
        archive = path.read_bytes()
        if body.sealed_nonce:
            archive = self._shelf.open(archive, body.sealed_nonce, caller.key_id)
        bundle = parse(archive)
        if bundle.measurement != body.measurement:
            raise InvalidSpec(tell="the bundle has another measurement than was announced")
        statement = wire.decode(BundleStatement, body.statement.payload)
        if statement.name != bundle.manifest.name:
            raise InvalidSpec(tell="the statement names the bundle otherwise than the bundle itself")
        check_manifest(bundle.manifest)
        with ledger.store.write() as conn:
            merchant = registry.find_key(conn, caller.key_id).organisation
            before = bundles.row(conn, bundle.measurement)
            is_new = before is None or before.wrapped_key is None
            given = HandedIn(merchant, caller.key_id, body.statement, signed.now_ms())
            row = bundles.keep(conn, ledger.home, ledger.keys.node_key, bundle, archive, given)
            if is_new:
                facts = {
                    "bundle": bundle.measurement.hex(),
                    "name": bundle.manifest.name,
                    "form": bundle.manifest.form.value,
                    "statement": signed.digest("bundle", body.statement).hex(),
                    "sealed": f"to an enclave, {SIMULATED}" if body.sealed_nonce else "no",
                }
                ledger.enter_other(conn, "bundle-received", caller.key_id, facts)
        return _view(row, _described(bundle))

    async def ListBundles(self, request: Any, context: Any) -> Any:  # noqa: N802
        """List the caller's bundles, or all."""

        def listed() -> Any:
            opened = self._edge.open(request, _PREFIX + "ListBundles", ListQuery, MERCHANTS | SEERS)
            self._edge.spend_nonce(opened)
            ledger, after = self._ledger, _measurement(opened.body.after)
            limit = min(page(opened.body.limit), _MOST_VIEWS)
            whose = "" if SEERS & opened.caller.roles else opened.caller.key_id
            with ledger.store.read() as conn:
                rows = bundles.listed(conn, after, limit, whose)
                key, here = ledger.keys.node_key, [row for row in rows if row.wrapped_key is not None]
                places = [bundles.locate(conn, ledger.home, key, bytes(row.measurement)) for row in here]
            told = {place.measurement: bundles.describe(place) for place in places}
            views = [_view(row, told.get(bytes(row.measurement))) for row in rows]
            return model_pb2.ListBundlesResponse(bundles=[wire.to_proto(view) for view in views])

        return await self._edge.unary(context, lambda: asyncio.to_thread(listed))

    async def WithdrawBundle(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Destroy a bundle's key and file."""

        def withdraw() -> Any:
            opened = self._edge.open(request, _PREFIX + "WithdrawBundle", BundleQuery, MERCHANTS | {"operator"})
            self._edge.spend_nonce(opened)
            caller, measurement, ledger = opened.caller, opened.body.measurement, self._ledger
            with ledger.store.write() as conn:
                row = bundles.row(conn, measurement)
                if row is None or not (row.submitter == caller.key_id or "operator" in caller.roles):
                    raise NotFound(tell=_NOT_YOURS)
                if is_here := row.wrapped_key is not None:
                    _check_idle(conn, measurement)
                    row = bundles.withdraw(conn, measurement, signed.now_ms())
                    facts = {"bundle": measurement.hex(), "name": row.name}
                    ledger.enter_other(conn, "bundle-withdrawn", caller.key_id, facts)
            with ledger.store.write() as conn:  # what a crash leaves of the file is noise: its key is gone
                bundles.forget(conn, ledger.home, measurement)
            if is_here:
                ledger.store.scrub()
            return model_pb2.WithdrawBundleResponse(bundle=wire.to_proto(_view(row, None)))

        return await self._edge.unary(context, lambda: asyncio.to_thread(withdraw))

    async def GetQuote(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Return a fresh quote."""

        def quote() -> Any:
            opened = self._edge.open(request, _PREFIX + "GetQuote", QuoteQuery, ROLES)
            self._edge.spend_nonce(opened)
            body = opened.body
            if len(body.nonce) != NONCE_SIZE or len(body.bundle) not in (0, 32):
                raise InvalidSpec(tell=f"a nonce has {NONCE_SIZE} bytes, and a measurement none or 32")
            self._check_seen(opened)
            level = self._level()
            key = b"" if body.bundle else self._shelf.key  # one that has loaded a bundle takes in no other
            text = enclaves.quote(self._ledger.keys, level, body.nonce, body.bundle, key)
            return model_pb2.GetQuoteResponse(quote=wire.to_proto(QuoteView(text, level, SIMULATED)))

        return await self._edge.unary(context, lambda: asyncio.to_thread(quote))

    def _check_seen(self, opened: Request[QuoteQuery]) -> None:
        """A bundle that is not the caller's to see is none, whether it is here or not."""
        if not opened.body.bundle:
            return
        with self._ledger.store.read() as conn:
            row = bundles.row(conn, opened.body.bundle)
        if row is None or not (row.submitter == opened.caller.key_id or SEERS & opened.caller.roles):
            raise NotFound(tell=_NOT_YOURS)


def _check_idle(conn: Connection, measurement: bytes) -> None:
    """Refuse to take away what a job still needs: one that is held for review delivers by what the bundle declares."""
    for job_id in record.unfinished(conn):
        spec = record.read(conn, job_id).spec.kind
        if isinstance(spec, ModelSpec) and spec.bundle == measurement:
            raise WrongState(
                f"job {job_id} runs bundle {measurement.hex()}",
                tell="a job with this bundle has not ended yet",
                hint="wait for its end, or cancel it",
            )


def _view(row: Row[Any], described: Description | None) -> BundleView:
    """What is told of a bundle; of one that was withdrawn, no more than that it was here."""
    files = [f"{name} ({size} bytes)" for name, size in described.files] if described else []
    if len(files) > _MOST_FILES:
        files = [*files[:_MOST_FILES], f"and {len(files) - _MOST_FILES} more"]
    return BundleView(
        measurement=bytes(row.measurement),
        name=row.name,
        form=row.form,
        merchant=row.merchant,
        submitter=row.submitter,
        size=row.size,
        created_ms=row.created_ms,
        outputs=tuple(_told(name, table) for name, table in described.manifest.outputs.items()) if described else (),
        files=tuple(files),
        withdrawn_ms=row.withdrawn_ms,
    )


def _told(name: str, table: OutputTable) -> str:
    columns = ", ".join(f"{column.name} {column.type}" for column in table.columns)
    text = f"{name}: {table.class_} ({columns})"
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 5] + " ...)"


def _described(bundle: Bundle) -> Description:
    return Description(bundle.manifest, tuple((name, len(content)) for name, content in bundle.files.items()))


def _measurement(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise InvalidSpec(tell="`after` is not a measurement in hex") from None
