"""How an error of the sandbox crosses gRPC: one status a class, one sentence, and the whole ``Failure`` in a trailer.

    raise NotFound(...) -> refuse() ->  status, details, trailer  -> from_rpc() -> the same class, without its log text

Security:  only the public half of an error leaves (``tell``, the class's Chinese words, the hint); ``str(error)`` never
           does. What comes in is a peer's word: it is bounded, parsed, and stripped of control characters before
           anybody prints it.
Errors:    none of its own; whatever cannot be read becomes ``PartyFailed`` naming the party.
Not here:  who may call (``api``), what the SDK prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NoReturn, cast

import grpc
import grpc.aio

from sandbox import errors, wire
from sandbox.errors import (
    AlreadyExists,
    BudgetSpent,
    Cancelled,
    DeadlinePassed,
    Expired,
    IntegrityFailed,
    Interrupted,
    InvalidSpec,
    JobFailed,
    NotFound,
    OutputWithheld,
    PartyFailed,
    PolicyRefused,
    ProtocolFailed,
    SandboxError,
    SentBack,
    Unauthenticated,
    Unavailable,
    WrongState,
)
from sandbox.model import Failure

TRAILER: Final = "sandbox-failure-bin"
STATUS: Final[dict[type[SandboxError], grpc.StatusCode]] = {
    InvalidSpec: grpc.StatusCode.INVALID_ARGUMENT,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PolicyRefused: grpc.StatusCode.PERMISSION_DENIED,
    BudgetSpent: grpc.StatusCode.RESOURCE_EXHAUSTED,
    NotFound: grpc.StatusCode.NOT_FOUND,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    WrongState: grpc.StatusCode.FAILED_PRECONDITION,
    Unavailable: grpc.StatusCode.FAILED_PRECONDITION,
    OutputWithheld: grpc.StatusCode.FAILED_PRECONDITION,
    SentBack: grpc.StatusCode.FAILED_PRECONDITION,
    Expired: grpc.StatusCode.DEADLINE_EXCEEDED,
    PartyFailed: grpc.StatusCode.ABORTED,
    ProtocolFailed: grpc.StatusCode.ABORTED,
    Interrupted: grpc.StatusCode.ABORTED,
    Cancelled: grpc.StatusCode.CANCELLED,
    DeadlinePassed: grpc.StatusCode.DEADLINE_EXCEEDED,
    IntegrityFailed: grpc.StatusCode.DATA_LOSS,
    JobFailed: grpc.StatusCode.INTERNAL,
}

_TEXT_LIMIT: Final = 400  # characters; three such texts stay below gRPC's 8 KiB of metadata in any script
_NAME_LIMIT: Final = 64  # characters
_DETAILS_LIMIT: Final = 160  # characters; percent-encoded in the trailers beside the failure


def failure_of(error: SandboxError, party: str, stage: str) -> Failure:
    """Return the public half of ``error``; ``party`` and ``stage`` stand in where the error names none."""
    return Failure(
        code=type(error).__name__,
        party=_clean(error.party or party, _NAME_LIMIT),
        stage=_clean(error.stage or stage, _NAME_LIMIT),
        cause=_clean(error.tell, _TEXT_LIMIT),
        cause_zh=_clean(error.public_zh, _TEXT_LIMIT),
        next_step=_clean(error.hint, _TEXT_LIMIT),
        next_step_zh=_clean(error.hint_zh, _TEXT_LIMIT),
    )


def error_of(failure: Failure) -> SandboxError:
    """Return the error a failure tells of; a class this version does not know becomes ``PartyFailed``."""
    named = getattr(errors, failure.code, None)
    known = named if isinstance(named, type) and named in STATUS else PartyFailed
    tell = _clean(failure.cause, _TEXT_LIMIT)
    error: SandboxError = known(
        f"told by a party: {tell}",
        tell=tell,
        party=_clean(failure.party, _NAME_LIMIT),
        stage=_clean(failure.stage, _NAME_LIMIT),
        hint=_clean(failure.next_step, _TEXT_LIMIT),
    )
    return error


async def refuse(context: grpc.aio.ServicerContext[Any, Any], error: SandboxError, party: str) -> NoReturn:
    """End an RPC with the status of ``error``, one sentence, and the failure in the trailer; ``party`` is this node."""
    failure = failure_of(error, party, "")
    await context.abort(
        STATUS.get(type(error), grpc.StatusCode.INTERNAL),
        failure.cause[:_DETAILS_LIMIT],
        ((TRAILER, wire.encode(failure)),),
    )
    raise JobFailed("a refused call went on")  # never: abort raises


def from_rpc(error: grpc.RpcError, party: str, address: str = "") -> SandboxError:
    """Return our error for a failed RPC to ``party``: from the trailer if there is one, else from the status."""
    for value in _reasons(error):
        try:
            told = error_of(wire.decode(Failure, value))
        except InvalidSpec:
            break
        told.party = told.party or party
        return told
    return _from_status(error.code(), str(error.details() or ""), party, address)


def has_reason(error: grpc.RpcError) -> bool:
    """Whether the other node gave its reason, or gRPC alone speaks."""
    return any(True for _ in _reasons(error))


def _reasons(error: grpc.RpcError) -> Iterator[bytes]:
    for key, value in cast(Iterable[tuple[str, Any]], error.trailing_metadata() or ()):
        if key == TRAILER and isinstance(value, bytes):
            yield value


def _from_status(code: grpc.StatusCode, details: str, party: str, address: str) -> SandboxError:
    """Without a trailer it is gRPC itself that speaks: never take that for a decision of the other node."""
    log = f"{code.name} from {party}: {_clean(details, _TEXT_LIMIT)}"
    where = f" at {address}" if address else ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlinePassed(log, tell=f"{party} did not answer in time{where}", party=party)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Unavailable(
            log, tell=f"{party} does not offer this call", party=party, hint="compare the versions of the two nodes"
        )
    if code is grpc.StatusCode.UNAVAILABLE:
        if "CERTIFICATE_VERIFY_FAILED" in details:
            return Unauthenticated(
                log,
                tell=f"the certificate{where} is not the one pinned for {party}",
                party=party,
                hint="exchange the cards again (sandbox peer export, sandbox peer add)",
            )
        return PartyFailed(
            log,
            tell=f"{party} cannot be reached{where}",
            party=party,
            hint="check that the node runs, its address, and the firewall between (sandbox doctor)",
        )
    return PartyFailed(log, tell=f"{party} ended the call without a reason", party=party)


def _clean(text: str, limit: int) -> str:
    """A peer's text may end on somebody's terminal: printable characters only, cut to ``limit``."""
    return "".join(character if character.isprintable() else " " for character in text[:limit])
