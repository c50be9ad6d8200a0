"""Which of several ways to compute the same thing is used, where an environment variable names one."""

from __future__ import annotations

from collections.abc import Sequence

from sandbox.errors import Unavailable


def asked_for(variable: str, name: str, here: Sequence[str]) -> tuple[str, str]:
    """Return the back end that a variable names, and that as the reason.

    Raises:
        Unavailable: it is not among those that can run here.
    """
    if name not in here:
        raise Unavailable(f"{variable} asks for a back end that is not among {', '.join(here)}")
    return name, f"asked for by the environment variable {variable}"
