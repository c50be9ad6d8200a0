"""What is visible inside the jail besides the job: an interpreter, its library, and the pinned packages.

A merchant's code may import the packages named here and what they need, in the versions that are installed, and
nothing else that happens to be installed beside the node (nor the node's own code).

Shapes:  package entries are what stands in ``site-packages`` (``numpy``, ``numpy.libs``, ``google/protobuf``, ...).
Errors:  ``Unavailable`` if a package or a readable interpreter is missing.
Not here: how it is shown there (``warden``).
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from sandbox.errors import Unavailable

ALLOWED: Final = ("numpy", "pandas", "pyarrow", "scikit-learn", "scipy", "onnxruntime", "duckdb", "lightgbm")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VERSION: Final = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where the parts are on the machine."""

    interpreter: Path  # the program itself, no link
    library: Path  # lib/pythonX.Y, the standard library
    shared: tuple[Path, ...]  # libpython, if the interpreter needs it
    packages: Mapping[str, Path]  # name inside -> file or directory
    system: tuple[Path, ...]  # the machine's shared libraries and time zones

    @property
    def home(self) -> Path:
        """What Python calls its home: the directory above ``lib``."""
        return self.library.parent.parent


def visible(readable_by_others: bool) -> Runtime:
    """Return what a jail shows.

    Args:
        readable_by_others: the interpreter must be in reach of another uid where it is: nothing can be mounted.

    Raises:
        Unavailable: a package is not installed, or no interpreter of this version is in reach.
    """
    system = tuple(path for path in map(Path, ("/usr/lib", "/usr/lib64", "/usr/share/zoneinfo")) if path.is_dir())
    packages = _packages(ALLOWED)
    own = Path(os.path.realpath(sys.executable))
    candidates = [(own, Path(sysconfig.get_path("stdlib")))]
    if readable_by_others:
        candidates.append((Path(f"/usr/bin/python{_VERSION}"), Path(f"/usr/lib/python{_VERSION}")))
    for program, library in candidates:
        shared = tuple(sorted(library.parent.glob(f"libpython{_VERSION}.so*")))
        needed = (program, library, library / "lib-dynload", *shared, *packages.values())
        if (library / "os.py").is_file() and (not readable_by_others or all(map(_reachable, needed))):
            return Runtime(program, library, shared, packages, system)
    raise Unavailable(
        "the interpreter or its packages cannot be read by another uid",
        tell="the Python of this node cannot be read by the jail",
        hint=f"install Python {_VERSION} and the node's packages where every user may read them, such as /opt",
    )


@cache
def _packages(names: Sequence[str]) -> dict[str, Path]:
    """Return the entries of packages and of everything they require."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = _plain(waiting.pop())
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            if name in map(_plain, names):
                raise Unavailable(
                    f"{name} is not installed",
                    tell="a package that merchant code may use is not installed on this node",
                    hint=f"pip install {name}",
                ) from None
            continue  # required on other platforms only
        for requirement in found[name].requires or ():
            match = _NAME.match(requirement)
            if match and "extra ==" not in requirement:
                waiting.append(match.group())
    entries: dict[str, Path] = {}
    for one in found.values():
        entries.update(_entries(one))
    return dict(sorted(entries.items()))


def _entries(one: Distribution) -> dict[str, Path]:
    """Return what a package put into ``site-packages``; of a namespace that it shares, only its own part."""
    root = Path(str(one.locate_file("")))
    entries: dict[str, Path] = {}
    for path in one.files or ():
        first = path.parts[0]
        if first in ("..", "__pycache__") or first.endswith(".pth"):
            continue
        inside = root / first
        shared = (
            len(path.parts) > 2
            and not first.endswith((".libs", ".dist-info"))
            and not (inside / "__init__.py").exists()
            and not (inside / "__init__.pyi").exists()
        )
        name = "/".join(path.parts[:2]) if shared else first
        if (root / name).exists():
            entries[name] = root / name
    return entries


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _reachable(path: Path) -> bool:
    """Whether every user may go there and read it."""
    for folder in path.parents:
        if not folder.stat().st_mode & 0o001:
            return False
    return path.exists() and bool(path.stat().st_mode & 0o004)
