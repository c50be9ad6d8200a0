"""Keeps long-lived processes small: what they do not need stays out, what they have freed goes back to the system.

Arrow imports pandas, 70 MiB of it, at the first conversion to numpy, if it is installed. Nodes and workers convert to
numpy all the time and never use pandas. Arrow takes an ``ImportError`` for "not installed"; a ``None`` in
``sys.modules`` it does not survive.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

import pyarrow as pa


class _Absent(MetaPathFinder):
    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == self.name:
            raise ModuleNotFoundError(f"{name} is kept out of this process", name=name)
        return None


def keep_out(name: str) -> None:
    """Let ``import name`` fail in this process from now on, if it has not been imported yet."""
    if not any(isinstance(finder, _Absent) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _Absent(name))


def give_back() -> None:
    """Return freed memory to the system: a worker may wait for its next stage for days."""
    pa.default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)  # large arrays raise the size from which malloc does so by itself
