"""Runs one stage of a job in a Ray worker: Plan -> RawResult. The only importer of Ray.

Ray is this party's scheduler and nothing more. A task's argument is the path of a socket, its result a boolean; rows,
keys and words travel over that socket (``desk``). Ray listens on loopback only, with a token in a 0600 file; usage
statistics and dashboard are off; its files lie in the node's private run directory. ``max_retries=0``: a job that
spends quota must not run twice by accident.

Errors:   whatever the worker said, as our own class; ``JobFailed`` if the worker vanished.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sandbox import desk, errors
from sandbox.errors import JobFailed, SandboxError, Unavailable
from sandbox.model import JobKind, RawResult

log = logging.getLogger(__name__)
OBJECT_STORE = 80 << 20  # bytes; Ray's least. Nothing of ours goes in
STOP_S = 5.0
# Four engines may share a core: a stage that waits for its peers must not keep the stage they wait for from starting.
HEAVY_CPUS = 0.25
_HEAVY = frozenset({JobKind.PSI, JobKind.TRAIN, JobKind.AGGREGATE, JobKind.QUERY, JobKind.MODEL})


class Host(Protocol):
    """What a worker may ask of its node while it works."""

    async def begin(self) -> None:
        """A worker has taken the stage; return when it may start."""

    async def relay(self, directory: Path) -> None:
        """Carry the engine's links to the other parties."""

    async def fetch(self, job_id: str, name: str) -> bytes:
        """Return a kept artefact."""

    async def keep(self, name: str, content: bytes) -> None:
        """Keep an artefact."""

    async def cached(self, name: str) -> bytes:
        """Return what an earlier job kept for later ones."""

    async def cache(self, name: str, content: bytes, source: bytes) -> None:
        """Keep something for later jobs."""

    async def send(self, party: str, label: str, body: bytes) -> None:
        """Send to the worker at another party."""

    async def receive(self) -> tuple[str, str, bytes]:
        """Return the next (party, label, body) for this worker."""

    async def quote(self, nonce: bytes, key: bytes) -> bytes:
        """Quote the enclave that the worker made a key for."""

    async def grant_rows(self, quote: bytes, nonce: bytes, key: bytes) -> bytes:
        """Decide on another node's enclave, and return the data key sealed for it."""

    async def progress(self, done: int, total: int) -> None:
        """Take note of progress."""


@dataclass
class Runner:
    """This party's Ray, started when first needed."""

    run: Path
    home: Path
    address: str = ""
    cpus: int = 1
    on_up: Callable[[], None] = lambda: None
    _ray: Any = field(default=None, repr=False)
    _task: Any = field(default=None, repr=False)
    _starter: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="ray"), repr=False
    )
    _starting: threading.Lock = field(default_factory=threading.Lock, repr=False)

    async def start(self) -> None:
        """Start or join Ray, and have one worker warm; may be called again."""
        if self._ray is not None:
            return
        try:  # a thread of its own: a cold start takes long, and requests must not wait behind it
            await asyncio.get_running_loop().run_in_executor(self._starter, self._start)
        except Exception as error:  # whatever Ray raises: its text stays here
            log.exception("ray did not start")
            raise Unavailable(f"ray did not start: {type(error).__name__}", hint="run `sandbox doctor`") from None
        self.on_up()

    def stop(self) -> None:
        """Shut the embedded Ray down, or leave the cluster."""
        with self._starting:
            if self._ray is not None:
                self._ray.shutdown()
                self._ray = None

    @property
    def up(self) -> bool:
        """Whether Ray has been started."""
        return self._ray is not None

    async def stage(
        self, name: str, kind: JobKind | None, ticket: Mapping[str, Any], body: bytes, host: Host
    ) -> RawResult:
        """Run one stage to its end and return what it left; ``kind``: of the job, if it is one's."""
        await self.start()
        path = self.run / f"d-{secrets.token_hex(6)}.sock"
        outcome: asyncio.Future[RawResult] = asyncio.get_running_loop().create_future()

        lines: list[asyncio.StreamWriter] = []

        async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            path.unlink(missing_ok=True)  # one worker, once
            lines.append(writer)
            try:
                await host.begin()
            except SandboxError as error:
                _settle(outcome, error)
                writer.close()
                return
            writer.write(desk.pack({**ticket, "stage": name}, body))
            await _attend(reader, writer, host, outcome)

        # Bound here and listening below: who is stopped in between leaves no socket.
        server = await asyncio.start_unix_server(attend, str(path), limit=1 << 20, start_serving=False)
        finished: asyncio.Future[Any] | None = None
        try:
            await server.start_serving()
            heavy = kind is None or (name == "compute" and kind in _HEAVY)
            reference = self._task.options(num_cpus=HEAVY_CPUS if heavy else 0, **self._here()).remote(str(path))
            finished = asyncio.wrap_future(reference.future())
            await asyncio.wait({outcome, finished}, return_when=asyncio.FIRST_COMPLETED)
            if not outcome.done():
                await asyncio.wait({outcome}, timeout=1.0)
            if not outcome.done():
                await asyncio.get_running_loop().run_in_executor(self._starter, self._look)
                raise JobFailed(f"the worker of stage {name} vanished", stage=name)
            return outcome.result()
        except asyncio.CancelledError:
            if finished is not None:
                await self._stop_task(lines, outcome, finished, reference)
            raise
        finally:
            if not outcome.done():
                outcome.cancel()
            server.close()
            path.unlink(missing_ok=True)
            if finished is not None:
                finished.add_done_callback(_forget)

    async def _stop_task(
        self, lines: list[asyncio.StreamWriter], outcome: asyncio.Future[RawResult], finished: Any, reference: Any
    ) -> None:
        """A worker told to stop (its desk closes) ends by itself; one that does not is killed."""
        outcome.cancel()
        for writer in lines:
            writer.close()
        done, _ = await asyncio.wait({finished}, timeout=STOP_S)
        if not done:
            self._ray.cancel(reference, force=True)

    def _here(self) -> dict[str, Any]:
        """In a cluster of many hosts a stage runs on the node's own: the desk and the engine's sockets are there."""
        if not self.address:
            return {}
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node_id = self._ray.get_runtime_context().get_node_id()
        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)}

    def _look(self) -> None:
        """After a worker vanished: if Ray itself is gone, let the next stage start it anew."""
        try:
            self._ray.get(self._ray.remote(max_retries=0, num_cpus=0)(_nothing).remote(), timeout=30)
        except Exception:
            log.exception("ray does not answer; it is started anew with the next job")
            self._ray.shutdown()
            self._ray = None

    def _start(self) -> None:
        with self._starting:
            if self._ray is not None:
                return
            os.environ.update(_environment(self.home / "ray-token", embedded=not self.address))
            import ray

            from sandbox import worker

            options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
            if self.address:
                options |= {"address": self.address}
            else:
                temporary = self.run / "r"
                options |= {
                    "address": "local",
                    "num_cpus": self.cpus,
                    "num_gpus": 0,
                    "include_dashboard": False,
                    "object_store_memory": OBJECT_STORE,
                    "_temp_dir": str(temporary),
                }
            try:
                try:
                    ray.init(**options)
                except Exception as error:  # Ray gives itself 30 s, which a busy machine may miss
                    log.warning("ray did not start at the first try: %s", type(error).__name__)
                    ray.shutdown()
                    ray.init(**options)
                self._task = ray.remote(max_retries=0)(worker.enter)
                warm = ray.remote(max_retries=0, num_cpus=0)(worker.warm)
                ray.get(warm.remote(), timeout=120)
            except BaseException:
                ray.shutdown()  # half a start would stand in the way of the next
                raise
            self._ray = ray
            log.info("ray is up (%s)", self.address or "embedded, loopback")


def _nothing() -> None:
    """Do nothing."""


def _environment(token: Path, embedded: bool) -> dict[str, str]:
    """Ray reads these once, at import and at init."""
    if not token.exists():
        with os.fdopen(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_DEDUP_LOGS": "0",
        "RAY_worker_niceness": "0",  # a node's work is what its machine is there for; by default it stands back by 15
    }
    if embedded:
        # The one switch that keeps every listener on 127.0.0.1 on Linux; a test lists the listeners, as its name
        # promises nothing.
        settings["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    return settings


async def _attend(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: Host, outcome: asyncio.Future[RawResult]
) -> None:
    """Serve one worker until it is done, fails, or hangs up."""
    pump = asyncio.create_task(_deliver(writer, host))
    try:
        while (frame := await desk.read(reader)) is not None:
            head, body = frame
            op = head["op"]
            if op == "send":
                await host.send(head["to"], head["label"], body)
            elif op == "progress":
                await host.progress(head["done"], head["total"])
            elif op == "failed":
                _settle(outcome, _error(head))
                break
            else:
                answer = b""
                if op == "fetch":
                    answer = await host.fetch(head["job"], head["name"])
                elif op == "keep":
                    await host.keep(head["name"], body)
                elif op == "cached":
                    answer = await host.cached(head["name"])
                elif op == "cache":
                    await host.cache(head["name"], body, bytes.fromhex(head["source"]))
                elif op == "quote":
                    answer = await host.quote(bytes.fromhex(head["nonce"]), body)
                elif op == "grant":
                    answer = await host.grant_rows(bytes.fromhex(head["quote"]), bytes.fromhex(head["nonce"]), body)
                elif op == "relay":
                    await host.relay(Path(head["path"]))
                elif op == "done" and not outcome.done():
                    outcome.set_result(desk.unpack_result(body))
                writer.write(desk.pack({"op": "answer"}, answer))
                await writer.drain()
    except SandboxError as error:
        _settle(outcome, error)
    except (OSError, ValueError, KeyError) as error:
        _settle(outcome, JobFailed(f"the line to the worker broke: {type(error).__name__}"))
    finally:
        pump.cancel()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _deliver(writer: asyncio.StreamWriter, host: Host) -> None:
    while True:
        party, label, body = await host.receive()
        writer.write(desk.pack({"op": "data", "from": party, "label": label}, body))
        await writer.drain()


def _error(head: Mapping[str, Any]) -> SandboxError:
    kind = getattr(errors, head["code"], JobFailed)
    error: SandboxError = kind(
        head["detail"], tell=head["tell"], party=head["party"], stage=head["stage"], hint=head["hint"]
    )
    return error


def _settle(outcome: asyncio.Future[RawResult], error: SandboxError) -> None:
    if not outcome.done():
        outcome.set_exception(error)
        outcome.exception()  # whoever waits sees it; nobody waiting is no warning


def _forget(finished: asyncio.Future[Any]) -> None:
    if not finished.cancelled():
        finished.exception()
