"""One bucket of RR22 inside its child process; see ``rr22`` for the protocol and the fences.

The library's package initialiser is skipped: it would import a compiler that is not needed here, and take 1.2 s
instead of 0.04 s. Nor is numpy imported: that takes longer than all that is done here without it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sandbox.errors import JobFailed, PartyFailed, ProtocolFailed
from sandbox.psi import native

_MAX_MESSAGE = 4096
_NEVER_CUT = 1 << 28  # rows a part of the library's own: more than any bucket has


def main(config: dict[str, Any], report: Callable[[float], None]) -> dict[str, Any]:
    """Run one bucket and return the number of common keys; the answer file is left for the parent."""
    libspu, psi = _load(config["package"])
    context = _connect(libspu, config)
    # Directly after connecting, always: a barrier, without which the first exchange hangs at times.
    _agree(context, config)
    count, both = 0, config["learner"] is None
    if all(config["sizes"]):
        count = _execute(psi, context, config)
    # The next bucket's peer must not reach this process: our listening path goes before the last exchange.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(config["hosts"][config["rank"]].removeprefix("unix:"))
    checksum = _checksum(Path(config["target"])) if both and count else ""
    result = {"count": count, "checksum": checksum} if both else {"done": True}
    for other in _gather(context, config, result):
        if other != result:
            raise ProtocolFailed("the two sides found different intersections", party=config["peer"])
    context.stop_link()
    return {"count": count}


def _load(package: str) -> tuple[Any, Any]:
    """Return ``spu.libspu`` and ``spu.psi`` without running the initialiser of ``spu``."""
    shell = types.ModuleType("spu")
    shell.__path__ = [package]
    sys.modules["spu"] = shell
    from spu import libspu, psi

    return libspu, psi


def _connect(libspu: Any, config: dict[str, Any]) -> Any:
    link = libspu.link.Desc()
    link.recv_timeout_ms = config["patience_ms"]
    link.connect_retry_times = 10
    link.connect_retry_interval_ms = 100
    for number, host in enumerate(config["hosts"]):
        if not host.startswith("unix:"):
            raise JobFailed("an engine listens on unix sockets only")
        link.add_party(f"party{number}", host)
    try:
        return libspu.link.create_brpc(link, config["rank"])
    except RuntimeError as error:
        raise PartyFailed("the engine could not reach the other side", party=config["peer"]) from error


def _agree(context: Any, config: dict[str, Any]) -> None:
    """Compare with the other side the terms, and that each brings as many rows as they say."""
    mine = {"agreement": config["agreement"], "rows": config["sizes"][config["rank"]]}
    for other, size in zip(_gather(context, config, mine), config["sizes"], strict=True):
        if not isinstance(other, dict) or other.get("agreement") != mine["agreement"]:
            raise PartyFailed("the other side works on different terms", party=config["peer"])
        if type(other.get("rows")) is not int or other["rows"] != size:
            raise ProtocolFailed("the other side brings another number of rows than agreed", party=config["peer"])


def _gather(context: Any, config: dict[str, Any], message: dict[str, Any]) -> list[Any]:
    """Exchange one JSON object with the other side."""
    try:
        answers = context.all_gather(json.dumps(message, sort_keys=True))
    except RuntimeError as error:
        raise PartyFailed("the other side ended or went silent", party=config["peer"]) from error
    if any(len(answer) > _MAX_MESSAGE for answer in answers):
        raise ProtocolFailed("the other side sent too long a message", party=config["peer"])
    try:
        return [json.loads(answer) for answer in answers]
    except (ValueError, RecursionError) as error:
        raise ProtocolFailed("the other side sent no JSON", party=config["peer"]) from error


def _execute(psi: Any, context: Any, config: dict[str, Any]) -> int:
    """Run the protocol, in the only mode we offer; return the number of common keys, 0 if it is not for this side."""
    rank, learner, target = config["rank"], config["learner"], Path(config["target"])
    request = psi.PsiExecuteConfig(
        protocol_conf=psi.PsiProtocolConfig(
            protocol=psi.PsiProtocol.PROTOCOL_RR22,
            receiver_rank=0 if learner is None else learner,
            broadcast_result=learner is None,
            bucket_size=_NEVER_CUT,  # the library's own parts are not padded
            rr22_params=psi.Rr22Rarams(low_comm_mode=False),
        ),
        input_params=psi.InputParams(path=config["source"], selected_keys=["id"], keys_unique=True),
        output_params=psi.OutputParams(path=str(target), disable_alignment=True),
    )
    try:
        done = psi.psi_execute(request, context)
    except RuntimeError as error:
        # The library's text may quote keys (here: digests); it goes nowhere.
        raise ProtocolFailed("the engine gave up", party=config["peer"]) from error
    if done.original_count != config["sizes"][rank]:
        raise ProtocolFailed("the engine read another number of rows than it was given")
    count = int(done.intersection_count)
    if learner in (None, rank):
        return count
    if count != -1 or target.exists():  # what the library leaves on the side that is not to learn: -1 and no file
        raise ProtocolFailed("the engine has a result for the side that is not to learn")
    return 0


def _checksum(path: Path) -> str:
    """Return the sum of the digests in an answer, which is equal for equal sets in whatever order."""
    try:
        with path.open("rb") as answer:
            next(answer)  # the header
            if native.ROWS is not None:
                sums: tuple[int, ...] = native.ROWS.sum(answer.read())
                return f"{sum(part << 32 * place for place, part in enumerate(sums)):x}"
            return f"{sum(int(line[:32], 16) for line in answer):x}"
    except (OSError, StopIteration, ValueError) as error:
        raise ProtocolFailed("the engine's answer is not of the expected form") from error
