"""The table of contents of a sealed version: what there is, and nothing of what stands in it.

Shapes:    JSON with sorted members; digests in hexadecimal; chunks in their order.
Security:  whoever reads a manifest checks its MAC over the stored bytes first (vault), then parses it here.
Errors:    ``IntegrityFailed`` if authenticated bytes are not a manifest of this format.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import starmap

from sandbox.catalog.schema import FieldType
from sandbox.errors import IntegrityFailed

FORMAT = "sandbox/v1/vault"


@dataclass(frozen=True, slots=True)
class Chunk:
    """One sealed file: rows in it, bytes of it, and the tagged SM3 ("chunk") of those bytes."""

    rows: int
    size: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Manifest:
    """One sealed version."""

    code: str
    version: int
    schema_digest: bytes
    columns: tuple[tuple[str, FieldType], ...]
    key: tuple[str, ...]
    rows: int
    content_hash: bytes
    chunks: tuple[Chunk, ...]


def manifest_bytes(manifest: Manifest) -> bytes:
    """Return what is stored as ``manifest.json``."""
    tree = {
        "format": FORMAT,
        "code": manifest.code,
        "version": manifest.version,
        "schema_digest": manifest.schema_digest.hex(),
        "columns": [[name, type_.value] for name, type_ in manifest.columns],
        "key": list(manifest.key),
        "rows": manifest.rows,
        "content_hash": manifest.content_hash.hex(),
        "chunks": [[chunk.rows, chunk.size, chunk.digest.hex()] for chunk in manifest.chunks],
    }
    return json.dumps(tree, sort_keys=True, indent=1).encode() + b"\n"


def parse_manifest(data: bytes) -> Manifest:
    """Return the manifest that ``data`` is; its MAC has been checked."""
    try:
        tree = json.loads(data)
        if tree.pop("format") != FORMAT:
            raise ValueError
        return Manifest(
            code=tree.pop("code"),
            version=tree.pop("version"),
            schema_digest=bytes.fromhex(tree.pop("schema_digest")),
            columns=tuple((name, FieldType(type_)) for name, type_ in tree.pop("columns")),
            key=tuple(tree.pop("key")),
            rows=tree.pop("rows"),
            content_hash=bytes.fromhex(tree.pop("content_hash")),
            chunks=tuple(
                starmap(Chunk, ((rows, size, bytes.fromhex(digest)) for rows, size, digest in tree.pop("chunks")))
            ),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise IntegrityFailed("the manifest authenticates but has another format") from None
