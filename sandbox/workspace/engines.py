"""Which foreign engines can run on this machine, found out without loading any of them.

Importing ``spu`` in the node's own process is not allowed: it starts threads, loads a compiler and may abort.
"""

from __future__ import annotations

import importlib.util
import platform
import sys

from sandbox.errors import Unavailable

INSTALL = "pip install 'data-sandbox[fast]'"
READY = "ready"


def package_directory(name: str) -> str:
    """Return the directory of an installed package, without importing it; empty if it is not installed."""
    found = importlib.util.find_spec(name)
    places = list(found.submodule_search_locations or []) if found is not None else []
    return places[0] if places else ""


def spu_directory(*, compiler: bool) -> str:
    """Return where ``spu`` is installed; with ``compiler``, what it compiles programs with must be there too.

    Raises:
        Unavailable: it is not here, or cannot run here.
    """
    reason = _missing(compiler=compiler)
    if reason:
        raise Unavailable(reason, hint=f"on the node: {INSTALL}")
    return package_directory("spu")


def engines() -> dict[str, str]:
    """Return every engine with ``ready``, or why it cannot run here."""
    return {
        "psi.rr22": _missing(compiler=False) or READY,
        "psi.ecdh": READY,
        "mpc.aby3": _missing(compiler=True) or READY,
        "mpc.scorecard": READY,
    }


def _missing(*, compiler: bool) -> str:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "the fast engines run on Linux on x86_64 only; this machine has the slower ones"
    for name in ("spu", "jax") if compiler else ("spu",):
        if not package_directory(name):
            return f"the package {name} of the extra 'fast' is not installed; to install it: {INSTALL}"
    return ""
