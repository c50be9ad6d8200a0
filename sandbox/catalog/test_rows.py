"""The rows of the test environment at a node: sealed twins, apart from the vault and under a key of their own.

    <home>/twins/<code>/<version>/   sealed as in the vault
    <home>/keys/test.key             16 random bytes, made when first needed

Security:  whoever may open twins opens nothing else: the node key is not involved, and it is not lost with it either.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

from sandbox.catalog.chunks import sync_directory
from sandbox.crypto.sm4 import KEY_SIZE
from sandbox.errors import IntegrityFailed

TWINS: Final = "twins"


def twin_key(home: Path) -> bytes:
    """Return the key that wraps the keys of twins.

    Raises:
        IntegrityFailed: its file holds something else.
    """
    path = home / "keys" / "test.key"
    if not path.exists():
        made = path.with_name(f".test.key-{secrets.token_hex(8)}")
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(KEY_SIZE))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # of two made at once the first stays
            os.link(made, path)
        made.unlink()
        sync_directory(path.parent)
    key = path.read_bytes()
    if len(key) != KEY_SIZE:
        raise IntegrityFailed(f"{path} is no key")
    return key
