"""The extension with the loops over rows, or nothing where it was not built: then numpy does the same, more slowly.

Both give the same digests, the same order and the same files, so parties may differ in it. This module imports nothing
else: the engine's child, which has no numpy, uses it too.
"""

from __future__ import annotations

from types import ModuleType

ROWS: ModuleType | None
try:
    from sandbox.psi._rows import _native

    ROWS = _native
except ImportError:  # no compiler at installation
    ROWS = None
