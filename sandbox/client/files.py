"""Files that a person names: read whole, bounded, with an error that says which."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sandbox.errors import InvalidSpec, NotFound

MAX_FILE: Final = 1 << 20  # bytes of a card, a trust file or a document


def read_file(path: Path, most: int = MAX_FILE) -> bytes:
    """Return the bytes of a file of at most ``most``, by default a small one.

    Raises:
        NotFound: there is none.
        InvalidSpec: it cannot be read, or is too long.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        raise NotFound(tell=f"no file {path}", hint="check the path") from None
    except OSError as error:
        raise InvalidSpec(
            tell=f"{path} cannot be read: {error.strerror}", hint="check the path and its rights"
        ) from None
    if len(data) > most:
        raise InvalidSpec(tell=f"{path} is longer than {most} bytes")
    return data
