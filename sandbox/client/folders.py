"""The files that make up one table: a file by itself, or those of a folder.

Not here:  what stands in them (``catalog.intake``, at the node).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sandbox.errors import InvalidSpec

SUFFIXES: Final = (".parquet", ".csv")


def files_of(path: Path) -> list[Path]:
    """Return a file, or the Parquet or CSV files that lie in a folder, by name; no links and nothing further down.

    Raises:
        InvalidSpec: there is nothing of that kind, or the folder holds both kinds.
    """
    reason, found = "", [path]
    try:
        if path.is_dir():
            found = sorted(one for one in path.iterdir() if _is_table(one) and one.is_file() and not one.is_symlink())
        elif not path.exists():
            reason = "no such file or folder"
    except OSError as error:
        reason = error.strerror or "unknown"
    if reason:
        raise InvalidSpec(tell=f"{path} cannot be read: {reason}", hint="check the path")
    kinds = {one.suffix.lower() for one in found}
    if not found or not kinds <= set(SUFFIXES):
        what = "holds no file" if path.is_dir() else "has no name"
        raise InvalidSpec(tell=f"{path} {what} ending in {' or '.join(SUFFIXES)}", hint="check the path")
    if len(kinds) > 1:
        raise InvalidSpec(tell=f"{path} holds both Parquet and CSV files", hint="put each kind into its own folder")
    return found


def _is_table(path: Path) -> bool:
    """Hidden files are left alone: programs keep there what is half written."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
