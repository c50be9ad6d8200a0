"""Writes a small ONNX model, field by field: a logistic regression, sigmoid(X W + b)."""

from __future__ import annotations

import struct


def _number(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def _whole(field: int, value: int) -> bytes:
    return _number(field << 3) + _number(value)


def _part(field: int, content: bytes | str) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return _number(field << 3 | 2) + _number(len(raw)) + raw


def _constant(name: str, shape: tuple[int, ...], values: list[float]) -> bytes:
    dims = b"".join(_whole(1, size) for size in shape)
    return dims + _whole(2, 1) + _part(8, name) + _part(9, struct.pack(f"<{len(values)}f", *values))


def _value(name: str, columns: int) -> bytes:
    shape = _part(1, _part(2, "rows")) + _part(1, _whole(1, columns))
    return _part(1, name) + _part(2, _part(1, _whole(1, 1) + _part(2, shape)))


def _node(operator: str, inputs: tuple[str, ...], output: str) -> bytes:
    return b"".join(_part(1, one) for one in inputs) + _part(2, output) + _part(4, operator)


def logistic(weights: list[float], intercept: float) -> bytes:
    """Return the model: input ``x`` of as many columns as weights, output ``p`` of one."""
    graph = (
        _part(1, _node("MatMul", ("x", "w"), "xw"))
        + _part(1, _node("Add", ("xw", "b"), "z"))
        + _part(1, _node("Sigmoid", ("z",), "p"))
        + _part(2, "logistic")
        + _part(5, _constant("w", (len(weights), 1), weights))
        + _part(5, _constant("b", (1,), [intercept]))
        + _part(11, _value("x", len(weights)))
        + _part(12, _value("p", 1))
    )
    return _whole(1, 8) + _part(7, graph) + _part(8, _whole(2, 13))
