"""Three-party training and reconstruction inside a child process; see ``logistic`` for the protocol.

``warm`` loads the library and its compiler (1.3 s), so that a child may wait loaded for its configuration.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sandbox.errors import JobFailed, PartyFailed, ProtocolFailed
from sandbox.mpc import shares

_FRACTION = 18  # bits after the binary point
_SQUARINGS = 6
_X, _Y, _WEIGHTS, _AHEAD, _MOMENTUM = "x", "y", "weights", "ahead", "momentum"


def warm() -> None:
    """Load what training needs."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    import spu.libspu
    import spu.utils.frontend  # noqa: F401 - loads the compiler


def main(config: dict[str, Any], report: Callable[[float], None]) -> dict[str, Any]:
    """Train with the two other parties; leave this party's shares of the weights in files."""
    from spu import libspu

    runtime_config = _protocol(libspu)
    programs = _programs(config)
    context = _connect(libspu, config)
    _agree(context, config, programs, runtime_config)
    runtime = libspu.RuntimeWrapper(context, runtime_config)
    io = libspu.IoWrapper(shares.PARTIES, runtime_config)
    try:
        for owner, name, shape in _inputs(config):
            value = _take(config["inputs"][name]) if owner == config["rank"] else None
            runtime.SetVar(name, _share_input(libspu, io, context, config, owner, name, shape, value))
        runtime.Run(programs["join"])
        for step in range(config["steps"]):
            momentum = np.array([[step / (step + 3.0)]], np.float32)
            public = io.MakeShares(momentum, libspu.Visibility.VIS_PUBLIC, -1)[config["rank"]]
            runtime.SetVar(_MOMENTUM, public)
            runtime.Run(programs["step"])
            report((step + 1) / config["steps"])
        runtime.Run(programs["cut"])
        for output, name in ((shares.LABEL_SIDE, "label_side"), (shares.OTHER_SIDE, "other_side")):
            share = _frame(runtime.GetVar(name), config, output)
            Path(config["outputs"][name]).write_bytes(share.to_bytes())
        context.all_gather("done")  # nobody leaves while another still needs an answer
    except RuntimeError as error:
        raise PartyFailed("another party ended, went silent, or broke the protocol") from error
    context.stop_link()
    return {}


def reconstruct(config: dict[str, Any], report: Callable[[float], None]) -> dict[str, Any]:
    """Return the value three shares make; needs the library without its compiler."""
    shell = types.ModuleType("spu")
    shell.__path__ = [config["package"]]
    sys.modules["spu"] = shell
    from spu import libspu

    given = shares.complete([Path(path).read_bytes() for path in config["shares"]])
    _check_overlap(libspu, given)
    pieces = []
    for share in given:
        piece = libspu.Share()
        piece.meta, piece.share_chunks = share.meta, list(share.chunks)
        pieces.append(piece)
    try:
        value = np.asarray(libspu.IoWrapper(shares.PARTIES, _protocol(libspu)).Reconstruct(pieces))
    except RuntimeError as error:
        raise ProtocolFailed("the shares do not make a value") from error
    if value.size > config["limit"] or not bool(np.isfinite(value).all()):
        raise ProtocolFailed("the shares make no vector of numbers")
    return {"values": value.astype(np.float64).reshape(-1).tolist()}


def _protocol(libspu: Any) -> Any:
    """Return the only configuration there is: ABY3 over 64-bit integers."""
    return libspu.RuntimeConfig(
        protocol=libspu.ProtocolKind.ABY3, field=libspu.FieldType.FM64, fxp_fraction_bits=_FRACTION
    )


def _inputs(config: dict[str, Any]) -> list[tuple[int, str, tuple[int, int]]]:
    """Return owner, name and shape of every secret input."""
    rows, label_columns, other_columns = config["rows"], config["label_columns"], config["other_columns"]
    return [
        (0, "label_block", (rows, label_columns)),
        (1, "other_block", (rows, other_columns)),
        (0, _Y, (rows, 1)),
        (0, "start", (1, 1)),
    ]


def _programs(config: dict[str, Any]) -> dict[str, Any]:
    """Compile the three programs: put the inputs together, one step, cut the weights apart."""
    import jax.numpy as jnp
    from spu import libspu
    from spu.utils import frontend

    rows, first, second = config["rows"], config["label_columns"], config["other_columns"]
    rate, l2, columns = config["rate"], config["l2"], config["label_columns"] + config["other_columns"] + 1

    def join(label_block: Any, other_block: Any, start: Any) -> Any:
        x = jnp.concatenate([label_block, other_block, jnp.ones((rows, 1), jnp.float32)], axis=1)
        weights = jnp.concatenate([jnp.zeros((columns - 1, 1), jnp.float32), start], axis=0)
        return x, weights, weights

    # rate / rows in fixed point would be off by a percent: a power of two, which is exact, and a factor near one.
    shift = min(max(math.floor(math.log2(rows / rate)), 0), _FRACTION)
    coarse, fine = 2.0**-shift, rate / rows * 2.0**shift
    decay = np.full((columns, 1), rate * l2, np.float32)
    decay[-1] = 0.0

    def step(x: Any, y: Any, weights: Any, ahead: Any, momentum: Any) -> Any:
        total = x.T @ (_sigmoid(x @ ahead) - y)
        following = ahead - total * coarse * fine
        if l2:
            following = following - decay * ahead
        return following, following + momentum * (following - weights)

    def cut(weights: Any) -> Any:
        return jnp.concatenate([weights[:first], weights[columns - 1 :]], axis=0), weights[first : first + second]

    shapes = {name: shape for _, name, shape in _inputs(config)}
    shapes |= {_X: (rows, columns), _WEIGHTS: (columns, 1), _AHEAD: (columns, 1), _MOMENTUM: (1, 1)}
    secret, public = libspu.Visibility.VIS_SECRET, libspu.Visibility.VIS_PUBLIC

    def compiled(function: Any, names: list[str], outputs: list[str]) -> Any:
        program, _ = frontend.compile(
            frontend.Kind.JAX,
            function,
            [np.zeros(shapes[name], np.float32) for name in names],
            {},
            names,
            [public if name == _MOMENTUM else secret for name in names],
            lambda _: outputs,
        )
        return program

    return {
        "join": compiled(join, ["label_block", "other_block", "start"], [_X, _WEIGHTS, _AHEAD]),
        "step": compiled(step, [_X, _Y, _WEIGHTS, _AHEAD, _MOMENTUM], [_WEIGHTS, _AHEAD]),
        "cut": compiled(cut, [_WEIGHTS], ["label_side", "other_side"]),
    }


def _sigmoid(values: Any) -> Any:
    """Return the sigmoid with one comparison and without a general division.

    The library's own finds the highest bit of the divisor, which is most of its cost; its exponential is off by a
    percent. Here, with a = abs(x), the divisor 1 + exp(-a) lies between 1 and 2, where two Newton steps from a line
    are enough, and exp(-a) is a Taylor polynomial in a / 64, squared six times. Error below 2e-4 for a < 170.
    """
    import jax.numpy as jnp

    positive = (values > 0).astype(jnp.float32)
    part = values * (2 * positive - 1) * 2.0**-_SQUARINGS
    decay = 1 - part * (1 - part * (1 / 2 - part * (1 / 6 - part * (1 / 24))))
    for _ in range(_SQUARINGS):
        decay = decay * decay
    divisor = 1 + decay
    inverse = 24 / 17 - divisor * (8 / 17)
    for _ in range(2):
        inverse = inverse * (2 - divisor * inverse)
    return 1 - inverse + positive * (2 * inverse - 1)


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
        raise PartyFailed("the engine could not reach the other parties") from error


def _agree(context: Any, config: dict[str, Any], programs: dict[str, Any], runtime_config: Any) -> None:
    """Compare terms, protocol and compiled programs before any input is shared; also the barrier after connecting."""
    program = hashlib.sha256()
    for name in sorted(programs):
        code = programs[name].SerializeToString()
        program.update(len(code).to_bytes(8, "big") + code)
    mine = json.dumps(
        {
            "agreement": config["agreement"],
            "program": program.hexdigest(),
            "protocol": runtime_config.SerializeToString().hex(),
        },
        sort_keys=True,
    )
    try:
        answers = context.all_gather(mine)
    except RuntimeError as error:
        raise PartyFailed("another party ended or went silent") from error
    if any(answer != mine for answer in answers):
        raise PartyFailed("another party works on different terms or has another version of the engine")


def _take(path: str) -> NDArray[np.float32]:
    """Return an input and remove its file: from here on it exists in memory only."""
    value: NDArray[np.float32] = np.load(path, allow_pickle=False)
    Path(path).unlink()
    return value


def _share_input(
    libspu: Any,
    io: Any,
    context: Any,
    config: dict[str, Any],
    owner: int,
    name: str,
    shape: tuple[int, int],
    value: NDArray[np.float32] | None,
) -> Any:
    """Return this party's share of one input: cut and sent by its owner, received and checked by the others."""
    secret = libspu.Visibility.VIS_SECRET
    if value is not None:
        if value.shape != shape or value.dtype != np.float32:
            raise JobFailed("an input has another shape than the terms say")
        cut = io.MakeShares(np.ascontiguousarray(value), secret, -1)
        for rank in range(shares.PARTIES):
            if rank != owner:
                context.send(rank, _frame(cut[rank], config, shares.INPUT, rank).to_bytes())
        return cut[owner]
    got = shares.parse(bytes(context.recv(owner)))
    # What a share of this shape looks like: same description, same lengths. The content is random either way.
    model = io.MakeShares(np.zeros(shape, np.float32), secret, -1)[config["rank"]]
    if (got.rank, got.output, got.terms) != (config["rank"], shares.INPUT, bytes.fromhex(config["digest"])) or (
        got.meta != model.meta or list(map(len, got.chunks)) != list(map(len, model.share_chunks))
    ):
        raise ProtocolFailed("a party sent a share of another form than the terms say")
    model.share_chunks = list(got.chunks)
    return model


def _frame(share: Any, config: dict[str, Any], output: int, rank: int | None = None) -> shares.Share:
    terms = bytes.fromhex(config["digest"])
    return shares.Share(
        config["rank"] if rank is None else rank,
        output,
        terms,
        bytes(share.meta),
        tuple(map(bytes, share.share_chunks)),
    )


def _check_overlap(libspu: Any, given: list[shares.Share]) -> None:
    """Check that the shares agree where they overlap: each party holds two of the three summands.

    Raises:
        ProtocolFailed: they do not, so at least one of them was altered or belongs to another run.
    """
    halves = []
    for share in given:
        content = bytearray()
        for data in share.chunks:
            chunk = libspu.ValueChunk()
            if not chunk.ParseFromString(data):
                raise ProtocolFailed("a share holds no chunk of the library")
            content += bytes(chunk.content)
        if len(content) % 16:
            raise ProtocolFailed("a share is not made of pairs")
        halves.append(np.frombuffer(bytes(content), "<u8").reshape(-1, 2))
    for rank in range(shares.PARTIES):
        if not np.array_equal(halves[rank][:, 1], halves[(rank + 1) % shares.PARTIES][:, 0]):
            raise ProtocolFailed("the shares disagree where they overlap")
