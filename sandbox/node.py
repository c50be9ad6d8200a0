"""The composition root: settings in, running node out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from sqlalchemy import select

from sandbox import custody, registry, signed
from sandbox.api.audit import Audit
from sandbox.api.catalog import Catalog
from sandbox.api.consents import Consents
from sandbox.api.edge import Edge
from sandbox.api.jobs import Jobs
from sandbox.api.models import Models
from sandbox.api.peers import Peers
from sandbox.api.post import Post
from sandbox.api.reviews import Reviews
from sandbox.api.scenarios import Scenarios
from sandbox.catalog import vault
from sandbox.catalog.test_rows import TWINS
from sandbox.checks import Check, doctor
from sandbox.crypto.sm2 import PublicKey
from sandbox.engines import available
from sandbox.errors import SandboxError, Unavailable
from sandbox.exchange import Exchange
from sandbox.footprint import keep_out
from sandbox.home import Home, init
from sandbox.kinds import confined
from sandbox.ledger import Ledger
from sandbox.master import Shares
from sandbox.model import SealMode
from sandbox.peer.links import Links
from sandbox.peer.transport import SERVER_OPTIONS, server_credentials
from sandbox.pipeline import Pipeline
from sandbox.runner import Runner
from sandbox.store import datasets
from sandbox.tee_sim import leases
from sandbox.tee_sim.probes import strongest
from sandbox.v1 import (
    audit_pb2,
    audit_pb2_grpc,
    catalog_pb2,
    catalog_pb2_grpc,
    consent_pb2,
    consent_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    peer_pb2,
    peer_pb2_grpc,
    review_pb2,
    review_pb2_grpc,
    scenario_pb2,
    scenario_pb2_grpc,
)

__all__ = ["Check", "Home", "doctor", "init", "serve"]
log = logging.getLogger(__name__)
RUN_PREFIX = "sbx-"
MOST_CALLS = 1024  # at once, of all callers
SERVICES = (
    *(
        module.DESCRIPTOR.services_by_name[name].full_name
        for module, name in (
            (audit_pb2, "AuditService"),
            (catalog_pb2, "CatalogService"),
            (consent_pb2, "ConsentService"),
            (job_pb2, "JobService"),
            (model_pb2, "ModelService"),
            (peer_pb2, "PeerService"),
            (review_pb2, "ReviewService"),
            (scenario_pb2, "ScenarioService"),
        )
    ),
    health.SERVICE_NAME,
    reflection.SERVICE_NAME,
)


def serve(home: Path, passphrase: bytes | None = None, shares: Shares = tuple) -> None:
    """Run the node in ``home`` until it is told to stop (SIGTERM, SIGINT)."""
    keep_out("pandas")
    node = Home(home, passphrase, shares)
    logging.basicConfig(
        level=node.settings.log_level, format=f"%(asctime)s {node.settings.node_id} %(levelname)s %(name)s: %(message)s"
    )
    os.umask(0o077)
    with node.alone():
        node.unlock()  # and not before: a rotation could slip in between
        with _run_directory(home) as run:
            asyncio.run(_serve(node, run))


async def _serve(home: Home, run: Path) -> None:
    settings, store = home.settings, home.store
    removed = _sweep_vault(home)
    if removed:
        log.warning("removed %d dataset versions whose registration was cut off", removed)
    if jails := leases.sweep(confined.scratch()):
        log.warning("removed what %d jails had left that were killed", jails)
    runner = Runner(run, home.path, settings.ray_address, settings.ray_cpus)

    def card(node_id: str) -> Any:
        with store.read() as conn:
            return registry.peer(conn, node_id)

    def identity(node_id: str) -> PublicKey:
        if node_id == settings.node_id:
            return home.keys.identity.public
        return PublicKey.from_bytes(card(node_id).identity_key)

    links = Links(settings.node_id, home.keys, card, lambda peer: SealMode[settings.seal_for(peer).upper()])
    ledger = Ledger(home.path, settings, home.keys, store, available)
    exchange = Exchange(ledger, links, runner, run, identity)
    pipeline = Pipeline(ledger, exchange)
    edge = Edge(settings.node_id, store)
    scenarios = Scenarios(edge, pipeline, ledger, exchange)
    post = Post(pipeline, exchange, scenarios.suspend)
    pipeline.on_released = post.soon
    consents = Consents(edge, pipeline, ledger, post, run)

    server = grpc.aio.server(options=SERVER_OPTIONS, maximum_concurrent_rpcs=MOST_CALLS)
    job_pb2_grpc.add_JobServiceServicer_to_server(Jobs(edge, pipeline, ledger), server)
    catalog_pb2_grpc.add_CatalogServiceServicer_to_server(Catalog(edge, ledger, exchange, run, scenarios.offer), server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(Models(edge, ledger, run, strongest), server)
    scenario_pb2_grpc.add_ScenarioServiceServicer_to_server(scenarios, server)
    review_pb2_grpc.add_ReviewServiceServicer_to_server(Reviews(edge, pipeline, ledger), server)
    consent_pb2_grpc.add_ConsentServiceServicer_to_server(consents, server)
    audit_pb2_grpc.add_AuditServiceServicer_to_server(Audit(edge, ledger), server)
    peer_pb2_grpc.add_PeerServiceServicer_to_server(Peers(edge, pipeline, exchange, scenarios, consents, post), server)
    healthy = health.aio.HealthServicer()  # type: ignore[attr-defined]  # the stubs lack it
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    reflection.enable_server_reflection(SERVICES, server)
    port = server.add_secure_port(settings.listen, server_credentials(home.keys, lambda: _certificates(home)))
    if port == 0:
        raise Unavailable(tell=f"cannot listen on {settings.listen}", hint="is another program using the port?")

    await pipeline.recover()
    await server.start()
    await healthy.set("", health_pb2.HealthCheckResponse.SERVING)
    log.info("listening on %s", settings.listen)
    stop = asyncio.Event()

    def listen_for_signals() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)

    listen_for_signals()
    runner.on_up = listen_for_signals  # Ray puts a handler of its own in front of ours, which prints a stack
    chores = [
        asyncio.create_task(_every_hour(edge, scenarios, exchange)),
        asyncio.create_task(_every_minute(pipeline, post)),
        asyncio.create_task(_probe()),
    ]
    if settings.ray_start == "eager":
        chores.append(asyncio.create_task(_start(runner)))
    await stop.wait()
    log.info("stopping")
    await healthy.enter_graceful_shutdown()
    for chore in chores:
        chore.cancel()
    await pipeline.close()
    await post.close()
    await links.close()
    await server.stop(2.0)
    await asyncio.to_thread(runner.stop)
    store.close()


async def _every_hour(edge: Edge, scenarios: Scenarios, exchange: Exchange) -> None:
    """Beginning now: forget nonces, destroy what outlived its retention, tell peers what they missed, be co-signed."""

    async def witnessed() -> None:
        if exchange.ledger.settings.witness:
            await exchange.witnessed()

    parts: tuple[Callable[[], Awaitable[Any]], ...] = (
        lambda: asyncio.to_thread(edge.forget_nonces),
        lambda: asyncio.to_thread(custody.retire, exchange.ledger),
        scenarios.hand_round_all,
        witnessed,
    )
    while True:
        for part in parts:
            try:
                await part()
            except SandboxError as error:
                log.warning("a part of the hourly round was cut short: %s", error)
            except Exception:  # a defect of ours must not end the rounds, nor the parts that follow
                log.exception("a part of the hourly round was cut short")
        await asyncio.sleep(3600)


async def _probe() -> None:
    """Find out how strongly this machine confines code, before the first job that asks."""
    try:
        log.info("merchants' code is confined at level %s", confined.isolation(await asyncio.to_thread(strongest)))
    except SandboxError as error:
        log.warning("no queries and no models at this node: %s (%s)", error.tell, error.hint)


async def _every_minute(pipeline: Pipeline, post: Post) -> None:
    """Look after the jobs that wait for people, and the letters that are waited for."""
    while True:
        try:
            await pipeline.tend_held()
        except Exception:  # a defect of ours must not end the rounds: jobs would be held for ever
            log.exception("the round over held jobs was cut short")
        try:
            await post.tend(signed.now_ms())
        except Exception:  # as above: letters would be awaited for ever
            log.exception("the round over challenges was cut short")
        await asyncio.sleep(60)


def _sweep_vault(home: Home) -> int:
    """Remove what a crash left: half-written versions, and whole ones whose key never reached the store."""
    place = home.path / "vault"
    if not place.is_dir():
        return 0
    removed = vault.sweep(place)
    if (home.path / TWINS).is_dir():
        vault.sweep(home.path / TWINS)
    with home.store.read() as conn:
        known = {(row.code, str(row.version)) for row in conn.execute(select(datasets.c.code, datasets.c.version))}
    for version in place.glob("*/[0-9]*"):
        if (version.parent.name, version.name) not in known:
            vault.destroy(version, None)
            removed += 1
    return removed


async def _start(runner: Runner) -> None:
    with contextlib.suppress(Unavailable):  # said in the log; the next job that needs it tries again
        await runner.start()


def _certificates(home: Home) -> list[bytes]:
    """Return whose certificates get in: pinned peers, and registered keys that were not revoked."""
    with home.store.read() as conn:
        known = [person.card.tls_certificate for person in registry.all_keys(conn) if not person.revoked]
        return known + [card.tls_certificate for card in registry.all_peers(conn)]


@contextlib.contextmanager
def _run_directory(home: Path) -> Iterator[Path]:
    """A short private path for sockets and job files; what a crash left behind is removed at the next start."""
    mark = home / "run.path"
    if mark.exists():
        _sweep(Path(mark.read_text()))
    run = Path(tempfile.mkdtemp(prefix=RUN_PREFIX))
    mark.write_text(str(run))
    try:
        yield run
    finally:
        shutil.rmtree(run, ignore_errors=True)
        if not run.exists():
            mark.unlink()


def _sweep(left: Path) -> None:
    """Remove only what is recognisably ours: the name, the owner, and no link."""
    try:
        found = left.lstat()
    except FileNotFoundError:
        return
    if left.name.startswith(RUN_PREFIX) and stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
        shutil.rmtree(left)
        log.warning("removed the run directory of a node that did not stop in order")
